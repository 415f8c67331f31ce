"""ETCI 2021: floods in Sentinel-1 chips of four regions (NASA IMPACT), in TorchGeo's layout (`torchgeo.datasets.ETCI2021`)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About
from eosfm.data.published.satellite_files import Layout, kept_apart, read_grey, relabel, streamed
from eosfm.seeding import purpose_seed

_TILE = re.compile(r"([a-z]+)_(\d{8}t\d{6})_(x-\d+_y-\d+)_vv\.png")
_LAYOUT = Layout(
    "ETCI 2021",
    "train/<region>_<date>/tiles/{vv,vh,flood_label}/<region>_<date>_x-<i>_y-<j>[_vv|_vh].png and the same below test/",
    "train.zip (33,405 tiles of 256 x 256 pixels) and val_with_ref_labels.zip, which unpacks to test/, by the links in "
    "torchgeo.datasets.ETCI2021 or https://nasa-impact.github.io/etci2021; test_without_ref_labels.zip is of no use here",
    "etci2021",
)
_ABOUT = About(
    "ETCI 2021",
    BandSet.of("sentinel-1", ("VV", "VH", "VH"), "8bit"),
    "segmentation",
    ("no flood", "flood"),
    "not stated (competition data by NASA IMPACT and IEEE GRSS)",
    "ETCI 2021 Competition on Flood Detection (https://nasa-impact.github.io/etci2021): Sentinel-1 VV and VH, made by HyP3, "
    "stretched to 8 bit by its authors. Contains modified Copernicus Sentinel data.",
)


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        vv, vh = (read_grey(_path(self.root, key, p)).astype(np.float32) for p in ("vv", "vh"))
        label = _path(self.root, key, "flood_label")
        if vv.shape != vh.shape:
            raise DataError(f"{self.root / key}: VV {vv.shape}, VH {vh.shape} pixels; expected the same of both")
        y = relabel(read_grey(label), {0: 0, 255: 1}, str(label))
        return torch.from_numpy(np.stack([vv, vh, vh])), torch.from_numpy(y)


def etci2021(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """Flooded or not: VV, VH, VH as 8 bit, float32 ``(3, 256, 256)``; labels int64 ``(256, 256)``, 1 is flood.

    Labels are ``flood_label``, as TorchGeo's data module uses (``water_body_label`` is permanent water). Cleaned by rule: a
    tile is left out if VV or VH has one single value on all of it (beyond the swath), or if one of its three files is not
    there. The data set defines no nodata, and 0 is also calm water, so no pixel is declared nodata.

    The published test set has no labels. Regions are held out instead: "test" is the published validation set (another
    region), validation is the training region with the fewest tiles. Cleaning reads every VV and VH once, or only as many
    as ``limit`` needs.

    Args:
        root: holds ``train/`` and ``test/``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.

    Raises:
        DataError: missing files, half of the tiles incomplete, a picture in colours, labels other than 0 and 255 (when
            they are read).
    """
    root = _LAYOUT.folder(root, "train", "test")
    train, lost_train = _tiles(root, "train")
    test, lost_test = _tiles(root, "test")
    counts = Counter(map(_region, train))
    if len(counts) < 2:
        raise DataError(
            f"{root / 'train'}: tiles of {', '.join(counts)} only; expected two regions, one to validate on"
        )
    validation = min(counts, key=lambda r: (counts[r], r))
    parts, lost = kept_apart(
        {
            "train": [k for k in train if _region(k) != validation],
            "validation": [k for k in train if _region(k) == validation],
            "test": test,
        },
        _region,
        "region",
        "ETCI 2021",
    )
    kept = {split: _filled(root, keys, limit, seed) for split, keys in parts.items()}
    rule = (
        f"by region: test the published validation set ({', '.join(sorted(set(map(_region, test))))}), validation {validation}; "
        f"tiles of one single value left out, and {lost_train + lost_test} incomplete ones{lost}"
    )
    return streamed(_ABOUT, kept, _Read(root), (256, 256), rule, limit=limit, seed=seed)


def _tiles(root: Path, part: str) -> tuple[list[str], int]:
    """Keys ``part/scene/tile`` whose three files are there, and how many lack one."""
    keys: list[str] = []
    lost = 0
    for folder in sorted((root / part).glob("*/tiles")):
        names = {kind: {p.name for p in (folder / kind).glob("*.png")} for kind in ("vv", "vh", "flood_label")}
        scene = folder.parent.name
        for name in sorted(names["vv"]):
            match = _TILE.fullmatch(name)
            if match is None or f"{match[1]}_{match[2]}" != scene:
                raise DataError(f"{folder / 'vv' / name}: expected names like {scene}_x-0_y-0_vv.png")
            tile = f"{scene}_{match[3]}"
            if f"{tile}_vh.png" in names["vh"] and f"{tile}.png" in names["flood_label"]:
                keys.append(f"{part}/{scene}/{match[3]}")
            else:
                lost += 1
    if len(keys) <= lost:
        raise DataError(
            f"{root / part}: {len(keys)} complete tiles, {lost} without VH or flood_label. Expected: {_LAYOUT.tree}. "
            f"Get it: {_LAYOUT.source}"
        )
    return keys, lost


def _filled(root: Path, keys: Sequence[str], limit: int | None, seed: int) -> list[str]:
    """The ``keys`` whose VV and VH vary, in their order: all, or the first ``limit`` of them in an order drawn by ``seed``."""
    if limit is not None and limit < 1:
        raise DataError(f"ETCI 2021: limit {limit}; expected at least 1 chip")
    rng = np.random.default_rng(purpose_seed(seed, "limit"))
    order = range(len(keys)) if limit is None else rng.permutation(len(keys)).tolist()
    kept: list[int] = []
    for i in order:
        if len(kept) == limit:
            break
        if all(np.ptp(read_grey(_path(root, keys[i], p))) > 0 for p in ("vv", "vh")):
            kept.append(i)
    return [keys[i] for i in sorted(kept)]


def _region(key: str) -> str:
    return key.split("/")[1].split("_")[0]


def _path(root: Path, key: str, kind: str) -> Path:
    part, scene, tile = key.split("/")
    ending = "" if kind == "flood_label" else f"_{kind}"
    return root / part / scene / "tiles" / kind / f"{scene}_{tile}{ending}.png"
