"""Clouds in Sentinel-2 L2A (DrivenData and Radiant Earth 2022), in the layout of TorchGeo's `CloudCoverDetection`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About, read_rows
from eosfm.data.published.satellite_files import (
    Layout,
    held_out,
    kept_apart,
    read_tif,
    relabel,
    streamed,
    tiles,
    window_key,
    window_of,
    zeros_to_nan,
)

FILES = ("B02", "B03", "B04", "B08")
_FOLDERS = {"train": "public", "test": "private"}
"""part -> its folder in the archive; the files inside are named by part"""
_HELD_OUT = 0.15
_SIZE = (512, 512)
_LAYOUT = Layout(
    "Cloud cover",
    "{train,test}/{train,test}_metadata.csv, {train,test}/{train,test}_features/<chip>/{B02,B03,B04,B08}.tif and "
    "{train,test}/{train,test}_labels/<chip>.tif (or the archive's own public/ and private/ in place of train/ and test/)",
    "22,728 chips of 512 x 512 pixels (at most 54 GB), by azcopy sync from "
    "https://radiantearth.blob.core.windows.net/mlhub/ref_cloud_cover_detection_challenge_v1/final: public/ and "
    "private/, or as train/ and test/ (torchgeo.datasets.CloudCoverDetection: the former since 0.9, the latter before)",
    "cloud-cover",
)
_ABOUT = About(
    "Cloud cover",
    BandSet.of("sentinel-2-l2a", ("B04", "B03", "B02"), "dn-1e4"),
    "segmentation",
    ("clear", "cloud"),
    "CC-BY-4.0",
    "Sentinel-2 Cloud Cover Segmentation Dataset (Radiant Earth 2022, doi:10.34911/rdnt.hfq6m7), chips of 512 x 512 pixels at "
    "10 m, 2018 to 2020. Contains modified Copernicus Sentinel data.",
)


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        part, _, chip = name.split("/")
        folder = _folder(self.root, part) / f"{part}_features" / chip
        bands = zeros_to_nan(np.concatenate([read_tif(folder / f"{b}.tif", 1, window, size=_SIZE) for b in FILES]))
        label = _label(self.root, name)
        y = relabel(read_tif(label, 1, window, size=_SIZE)[0], {0: 0, 1: 1}, str(label))
        order = [FILES.index(name) for name in _ABOUT.bands.names]
        return torch.from_numpy(bands[order]), torch.from_numpy(y)


def cloud_cover(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Cloud or clear: red, green, blue of Sentinel-2 L2A x 10000, float32 ``(3, tile, tile)``; labels int64 ``(tile, tile)``.

    The chips are of 2018 to 2020, before L2A values had an offset. Pixels that are 0 in all four files become NaN.

    Test chips are the competition's private ones. 15 % of the training locations, drawn by ``seed``, are held out for
    validation (the published code validates on the test chips); chips of a location of a later split are left out.

    Args:
        root: holds ``train/`` and ``test/``, or ``public/`` and ``private/``.
        seed: of the validation locations, and of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips; those of 512 pixels are cut into these, the last ones moved inwards.

    Raises:
        DataError: missing files, a table without chip_id and location, ``tile`` above 512, or (when they are read) other
            labels than 0 and 1.
        RasterError: a damaged file (when it is read).
    """
    root = _LAYOUT.folder(root, *(f"{_folder(Path(root), p).name}/{p}_metadata.csv" for p in _FOLDERS))
    train, test = _keys(root, "train"), _keys(root, "test")
    validation = held_out(map(_location, train), _HELD_OUT, seed, "Cloud cover")
    parts, lost = kept_apart(
        {
            "train": [k for k in train if _location(k) not in validation],
            "validation": [k for k in train if _location(k) in validation],
            "test": test,
        },
        _location,
        "location",
        "Cloud cover",
    )
    rule = f"test: the competition's private chips; validation: {len(validation)} training locations, seed {seed}{lost}"
    windows = tiles(*_SIZE, tile, "Cloud cover")
    keys = {split: [window_key(n, w) for n in names for w in windows] for split, names in parts.items()}
    splits = streamed(_ABOUT, keys, _Read(root), (tile, tile), rule, limit=limit, seed=seed)
    for part in (splits.train, splits.validation, splits.test):
        _LAYOUT.require(_label(root, window_of(key)[0]) for key in part.ids)
    return splits


def _keys(root: Path, part: str) -> list[str]:
    """``part/location/chip`` of every row."""
    table = _folder(root, part) / f"{part}_metadata.csv"
    keys = []
    for row in read_rows(table, ("chip_id", "location")):
        if not re.fullmatch(r"\w+", row["chip_id"]):
            raise DataError(f"{table}: chip {row['chip_id']!r}; expected a name of letters and digits")
        keys.append(f"{part}/{row['location'].replace('/', ' ')}/{row['chip_id']}")
    return keys


def _location(key: str) -> str:
    return key.split("/")[1]


def _label(root: Path, key: str) -> Path:
    part, _, chip = key.split("/")
    return _folder(root, part) / f"{part}_labels" / f"{chip}.tif"


def _folder(root: Path, part: str) -> Path:
    given = root / _FOLDERS[part]
    return given if given.is_dir() and not (root / part).is_dir() else root / part
