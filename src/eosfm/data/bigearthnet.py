"""BigEarthNet examples: paired Sentinel-1 and Sentinel-2 patches of 120 pixels, labelled with several of 19 classes.

Two sources are read as one: patches of version 2 (GEO-Bench-2's sample) and of version 1 (BigEarthNet-MM's own layout,
one file per band, 43 CORINE names). The nomenclature is Sumbul et al. 2021, "BigEarthNet-MM", table 2
(doi:10.1109/MGRS.2021.3089174).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Chips, Splits
from eosfm.data.folders import SPLITS, About, Field, data_folder, few, read_raster, read_rows

CORINE: dict[str, tuple[str, ...]] = {
    "Urban fabric": ("Continuous urban fabric", "Discontinuous urban fabric"),
    "Industrial or commercial units": ("Industrial or commercial units",),
    "Arable land": ("Non-irrigated arable land", "Permanently irrigated land", "Rice fields"),
    "Permanent crops": (
        "Vineyards",
        "Fruit trees and berry plantations",
        "Olive groves",
        "Annual crops associated with permanent crops",
    ),
    "Pastures": ("Pastures",),
    "Complex cultivation patterns": ("Complex cultivation patterns",),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
    ),
    "Agro-forestry areas": ("Agro-forestry areas",),
    "Broad-leaved forest": ("Broad-leaved forest",),
    "Coniferous forest": ("Coniferous forest",),
    "Mixed forest": ("Mixed forest",),
    "Natural grassland and sparsely vegetated areas": ("Natural grassland", "Sparsely vegetated areas"),
    "Moors, heathland and sclerophyllous vegetation": ("Moors and heathland", "Sclerophyllous vegetation"),
    "Transitional woodland, shrub": ("Transitional woodland/shrub",),
    "Beaches, dunes, sands": ("Beaches, dunes, sands",),
    "Inland wetlands": ("Inland marshes", "Peatbogs"),
    "Coastal wetlands": ("Salt marshes", "Salines"),
    "Inland waters": ("Water courses", "Water bodies"),
    "Marine waters": ("Coastal lagoons", "Estuaries", "Sea and ocean"),
}
"""The 19 classes, in the official order, and the CORINE names (of version 1's 43) that each one unites."""

DROPPED: tuple[str, ...] = (
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Bare rock",
    "Burnt areas",
    "Intertidal flats",
)
"""CORINE names without one of the 19 classes: too rare, or not to be seen at 10 m."""

CLASSES = tuple(CORINE)
_CLASS_OF = {old: new for new, olds in CORINE.items() for old in olds}

SIDE = 120
"""pixels of a patch at 10 m"""
_S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
_V2_S1 = ("VH", "VV")
"""Version 2's s1.tif has no band names. Its first band is the weaker one everywhere, as cross-polarised backscatter is
(GEO-Bench-2 calls that band VV; its published means, -19 dB for "VV" and -12 dB for "VH", show the names swapped)."""
_S2_NAME = re.compile(r"S2[AB]_MSIL2A_\w{1,60}")


@dataclass(frozen=True)
class _Patch:
    """One place: ``version`` 1 or 2, and the folders that hold its two sensors."""

    name: str
    version: int
    tile: str
    split: str
    labels: tuple[str, ...]
    s1: Path
    s2: Path


def bigearthnet_s1(
    root: Path | str,
    *,
    polarisations: Sequence[str] = ("VV", "VH", "VH"),
    size: int = 128,
    limit: int | None = None,
    seed: int = 0,
) -> Splits:
    """Sentinel-1 backscatter in dB, float32 ``(n, c, size, size)``; labels 0/1 ``(n, 19)``.

    Channels are ``polarisations``, by default VV, VH, VH as the three-channel specialist reads them. Places, labels,
    split and ids are those of `bigearthnet_s2`.

    Args:
        root: the folder of all shared data (``geobench2_samples/benv2`` and ``bigearthnet_v1_examples``), or ``benv2``
            itself, which then is read without version 1.
        polarisations: "VV" and "VH", in the order of the channels.
        size: side of the chips, see `bigearthnet_s2`.
        limit: at most so many chips in each split, drawn by ``seed``.
        seed: of that draw.

    Raises:
        DataError: files that are missing or contradict each other, a label of neither nomenclature, or radar bands whose
            values are not those of the names they should have.
        RasterError: a damaged file.
    """
    bands = BandSet.of("sentinel-1", polarisations, "db")
    return _splits(root, "BigEarthNet S1", bands, _read_s1, size, limit, seed)


def bigearthnet_s2(root: Path | str, *, size: int = 128, limit: int | None = None, seed: int = 0) -> Splits:
    """Sentinel-2 L2A, 12 bands, reflectance x 10000, float32 ``(n, 12, size, size)``; labels 0/1 ``(n, 19)``.

    Bands are in sensor order (B01 ... B8A, B09, B11, B12); those of 20 and 60 m are brought to 10 m, bilinear. No offset:
    version 2 was made by Sen2Cor without it, version 1 predates it.

    Patches are 120 pixels. A ``size`` above that mirrors the border, so that 128 (the default) changes no pixel and keeps
    all that was labelled; one below it keeps the middle, where some of the labelled classes may be missing.

    The split is GEO-Bench-2's. Version 1's patches join the split in which their Sentinel-2 tile already is, else
    training: no tile is in two splits.

    Args:
        root: see `bigearthnet_s1`.
        size: side of the chips in pixels, 32 to 224.
        limit: at most so many chips in each split, drawn by ``seed``.
        seed: of that draw.

    Raises:
        DataError: files that are missing or contradict each other, or a label of neither nomenclature.
        RasterError: a damaged file.
    """
    bands = BandSet.of("sentinel-2-l2a", _S2, "dn-1e4")
    return _splits(root, "BigEarthNet S2", bands, _read_s2, size, limit, seed)


def to_19(labels: Iterable[str], where: str) -> tuple[str, ...]:
    """The classes of the 19 that unite ``labels`` (names of either nomenclature), in the official order.

    >>> to_19(["Peatbogs", "Water bodies", "Airports"], "patch")
    ('Inland wetlands', 'Inland waters')

    Raises:
        DataError: a name of neither nomenclature.
    """
    found = set()
    for label in labels:
        if label not in _CLASS_OF and label not in CORINE and label not in DROPPED:
            raise DataError(f"{where}: {label!r} is neither a CORINE name of version 1 nor one of the 19 classes")
        found.add(label if label in CORINE else _CLASS_OF.get(label))
    return tuple(c for c in CLASSES if c in found)


def _splits(
    root: Path | str,
    title: str,
    bands: BandSet,
    read: Callable[[_Patch], dict[str, Field]],
    size: int,
    limit: int | None,
    seed: int,
) -> Splits:
    if not 32 <= size <= 224:
        raise DataError(f"{title}: size {size}; choose 32 to 224 pixels (patches are {SIDE})")
    about = About(
        title,
        bands,
        "multilabel",
        CLASSES,
        "CDLA-Permissive-1.0",
        "BigEarthNet (Sumbul et al. 2019, 2021; Clasen et al. 2024): GEO-Bench-2's sample of version 2 and the example "
        "patches of version 1, which an older Sen2Cor made; one of these is under snow. Contains modified Copernicus "
        f"Sentinel data. Chips of {size} pixels from patches of {SIDE}, "
        + ("borders mirrored." if size > SIDE else "cut from the middle."),
    )
    patches = _patches(Path(root))
    parts: dict[str, Chips] = {}
    for split in SPLITS:
        mine = [p for p in patches if p.split == split]
        if not mine:
            raise DataError(f"{title}: no patch of the {split} split under {root}; are all samples there?")
        stacks = [read(p) for p in mine]
        images = torch.stack([_fit(torch.from_numpy(np.stack([x[n] for n in bands.names])), size) for x in stacks])
        labels = torch.tensor([[int(c in p.labels) for c in CLASSES] for p in mine])
        parts[split] = few(about.chips(split, images, labels, [f"{p.name}#{size}" for p in mine]), limit, seed)
    rule = "GEO-Bench-2's split; version 1's patches go where their Sentinel-2 tile is, else to training"
    rule = rule if limit is None else f"{rule}; at most {limit} in each, seed {seed}"
    return Splits(parts["train"], parts["validation"], parts["test"], rule)


def _patches(root: Path) -> list[_Patch]:
    folder = data_folder(root, "geobench2_samples/benv2", "samples.csv")
    patches = _version_2(folder)
    examples = root / "bigearthnet_v1_examples"
    if examples.is_dir():
        split_of = {p.tile: p.split for p in patches}
        patches += _version_1(examples, split_of)
    return sorted((p for p in patches if p.labels), key=lambda p: p.name)


def _version_2(folder: Path) -> list[_Patch]:
    table = folder / "samples.csv"
    patches = []
    for row in read_rows(table, ("tortilla:id", "tortilla:data_split", "labels", "patch_id")):
        sample, split, name = row["tortilla:id"], row["tortilla:data_split"], row["patch_id"]
        tile = re.search(r"_T(\d{2}[A-Z]{3})_\d+_\d+$", name)
        if (
            not re.fullmatch(r"sample_\d+", sample)
            or split not in SPLITS
            or not _S2_NAME.fullmatch(name)
            or tile is None
        ):
            raise DataError(f"{table}: {sample!r}, split {split!r}, patch {name!r}; expected sample_N, one of {SPLITS}")
        labels = to_19(re.findall(r"'([^']+)'", row["labels"]), f"{table}: {name}")
        patches.append(_Patch(name, 2, tile[1], split, labels, folder / sample / "s1.tif", folder / sample / "s2.tif"))
    return patches


def _version_1(folder: Path, split_of: dict[str, str]) -> list[_Patch]:
    patches = []
    for s1 in sorted((folder / "BigEarthNet-S1-Example").glob("S1*")):
        about = s1 / f"{s1.name}_labels_metadata.json"
        try:
            facts = json.loads(about.read_text(encoding="utf-8"))
            name, labels = str(facts["corresponding_s2_patch"]), [str(x) for x in facts["labels"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
            raise DataError(f"{about}: cannot be read as the labels of a patch ({type(e).__name__}: {e})") from e
        tile = re.search(r"_(\d{2}[A-Z]{3})_\d+_\d+$", s1.name)
        if not _S2_NAME.fullmatch(name) or tile is None:
            raise DataError(
                f"{about}: pairs {s1.name!r} with {name!r}; expected names like S1..._33UUP_87_48 and S2..."
            )
        split = split_of.get(tile[1], "train")
        s2 = folder / "BigEarthNet-S2-Example" / name
        patches.append(_Patch(name, 1, tile[1], split, to_19(labels, str(about)), s1, s2))
    return patches


def _read_s1(patch: _Patch) -> dict[str, Field]:
    if patch.version == 2:
        channels = dict(zip(_V2_S1, _stack(patch.s1, 2), strict=True))
    else:
        channels = {p: _stack(patch.s1 / f"{patch.s1.name}_{p}.tif", 1)[0] for p in ("VV", "VH")}
    means = {p: float(np.nanmean(v)) for p, v in channels.items()}
    if means["VV"] <= means["VH"]:
        raise DataError(
            f"{patch.s1}: mean VV {means['VV']:.1f} dB, VH {means['VH']:.1f} dB; VV must be the stronger one. "
            "This file's bands are in another order than the samples that eosfm was written for."
        )
    return channels


def _read_s2(patch: _Patch) -> dict[str, Field]:
    if patch.version == 2:
        return dict(zip(_S2, _stack(patch.s2, len(_S2)), strict=True))
    return {b: _stack(patch.s2 / f"{patch.s2.name}_{b}.tif", 1)[0] for b in _S2}


def _stack(path: Path, count: int) -> Field:
    """The ``count`` bands of ``path`` as ``(count, 120, 120)``; coarser ones (60 and 20 pixels) are resized, bilinear."""
    values, _ = read_raster(path)
    if values.shape[0] != count or values.shape[1] != values.shape[2] or values.shape[1] not in (20, 60, SIDE):
        raise DataError(f"{path}: shape {values.shape}; expected {count} bands of 20, 60 or {SIDE} pixels square")
    if values.shape[1] == SIDE:
        return values
    resized = F.interpolate(torch.from_numpy(values)[None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return resized[0].numpy()


def _fit(x: Tensor, size: int) -> Tensor:
    """``(c, 120, 120)`` mirrored or cropped about the middle to ``(c, size, size)``."""
    if size <= SIDE:
        start = (SIDE - size) // 2
        return x[:, start : start + size, start : start + size]
    before = (size - SIDE) // 2
    after = size - SIDE - before
    return F.pad(x[None], (before, after, before, after), mode="reflect")[0]
