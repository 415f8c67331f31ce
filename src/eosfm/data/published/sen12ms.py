"""SEN12MS: Sentinel-1, Sentinel-2 and MODIS land cover of four seasons (Schmitt et al. 2019), in TorchGeo's layout."""

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
from eosfm.data.folders import About
from eosfm.data.published.satellite_files import (
    Layout,
    held_out,
    kept_apart,
    listed,
    read_tif,
    relabel,
    streamed,
    zeros_to_nan,
)
from eosfm.tasks.kinds import IGNORE

CLASSES = (
    "forest",
    "shrubland",
    "savanna",
    "grassland",
    "wetlands",
    "croplands",
    "urban and built-up",
    "snow and ice",
    "barren",
    "water",
)
"""the ten classes of the IEEE GRSS Data Fusion Contest 2020, in its order"""

IGBP: dict[int, int] = {
    0: IGNORE,
    **dict.fromkeys(range(1, 6), 0),
    **dict.fromkeys((6, 7), 1),
    **dict.fromkeys((8, 9), 2),
    10: 3,
    11: 4,
    12: 5,
    13: 6,
    14: 5,
    15: 7,
    16: 8,
    17: 9,
    255: IGNORE,
}
"""IGBP land cover -> place in `CLASSES`: the simplified scheme of DFC2020 (arXiv:2002.08254; TorchGeo's
``SEN12MSDataModule.DFC2020_CLASS_MAPPING`` counts from 1). 0 is unclassified and 255 is MODIS' fill value: ignored."""

S1 = ("VV", "VH")
S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_SEASONS = ("ROIs1158_spring", "ROIs1868_summer", "ROIs1970_fall", "ROIs2017_winter")
_NAME = re.compile(rf"({'|'.join(_SEASONS)})_s2_(\d+)_(p\d+)\.tif")
_BROKEN = "ROIs1868_summer_s2_146_p202.tif"  # its radar is NaN; the authors leave it out (classification/dataset.py)
_HELD_OUT = 0.1
_SIZE = (256, 256)
_LAYOUT = Layout(
    "SEN12MS",
    f"{{{','.join(_SEASONS)}}}/{{s1,s2,lc}}_<scene>/<season>_{{s1,s2,lc}}_<scene>_p<patch>.tif, train_list.txt, test_list.txt",
    "12 archives ROIs*_{lc,s1,s2}.tar.gz (180,662 triplets of 256 x 256 pixels, about 500 GB) from "
    "https://dataserv.ub.tum.de/s/m1474000, the two lists from https://github.com/schmitt-muc/SEN12MS/tree/master/splits",
    "sen12ms-s1",
)


@dataclass(frozen=True)
class _Read:
    root: Path
    bands: BandSet

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        channels: dict[str, np.ndarray] = {}
        wanted = set(self.bands.names)
        if wanted & set(S1):
            values = read_tif(_path(self.root, key, "s1"), len(S1), size=_SIZE).astype(np.float32)
            values[~np.isfinite(values)] = np.nan
            channels |= dict(zip(S1, values, strict=True))
        if wanted & set(S2):
            values = zeros_to_nan(read_tif(_path(self.root, key, "s2"), len(S2), size=_SIZE))
            channels |= dict(zip(S2, values, strict=True))
        cover = _path(self.root, key, "lc")
        igbp = read_tif(cover, 4, size=_SIZE)[0]
        x = np.stack([channels[name] for name in self.bands.names])
        return torch.from_numpy(x), torch.from_numpy(relabel(igbp, IGBP, str(cover)))


def sen12ms_s1(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """Sentinel-1 backscatter in dB, VV, VH, VH as a three-channel specialist reads it: float32 ``(3, 256, 256)``.

    Everything else as `sen12ms_all`.
    """
    return _splits(root, "SEN12MS S1", BandSet.of("sentinel-1", ("VV", "VH", "VH"), "db"), seed, limit)


def sen12ms_s2(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """All 13 bands of Sentinel-2 L1C, reflectance x 10000: float32 ``(13, 256, 256)``. Else as `sen12ms_all`."""
    return _splits(root, "SEN12MS S2", BandSet.of("sentinel-2-l1c", S2, "dn-1e4"), seed, limit)


def sen12ms_rgb(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """Red, green, blue (B04, B03, B02), reflectance x 10000: float32 ``(3, 256, 256)``. Else as `sen12ms_all`."""
    return _splits(root, "SEN12MS RGB", BandSet.of("sentinel-2-l1c", ("B04", "B03", "B02"), "dn-1e4"), seed, limit)


def sen12ms_all(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """VV, VH in dB and 13 bands of Sentinel-2 L1C x 10000: float32 ``(15, 256, 256)``; labels int64 ``(256, 256)``.

    Labels are the IGBP layer (the first of the four in ``lc``) in the ten classes of DFC2020; MODIS' pixels are 500 m, so
    borders are coarse. Nodata: radar that is not finite, and pixels that are 0 in all 13 optical bands.

    Test chips are the published hold-out scenes. Of the published training list, a tenth of the scenes is held out for
    validation, drawn by ``seed``: whole scenes, so that no neighbouring patches are in two splits.

    Args:
        root: holds the four seasons' folders, ``train_list.txt`` and ``test_list.txt``.
        seed: of the validation scenes, and of the draw of ``limit``.
        limit: at most so many chips in each split.

    Raises:
        DataError: missing files, names that are not SEN12MS's, a land-cover value outside IGBP (when it is read).
        RasterError: a damaged file (when it is read).
    """
    bands = (*BandSet.of("sentinel-1", S1, "db"), *BandSet.of("sentinel-2-l1c", S2, "dn-1e4"))
    return _splits(root, "SEN12MS all", BandSet(bands), seed, limit)


def _splits(root: Path, title: str, bands: BandSet, seed: int, limit: int | None) -> Splits:
    root = _LAYOUT.folder(root, "train_list.txt", "test_list.txt")
    about = About(
        title,
        bands,
        "segmentation",
        CLASSES,
        "CC-BY-4.0",
        "SEN12MS (Schmitt et al. 2019, doi:10.14459/2019mp1474000), 180,662 triplets of 256 x 256 pixels at 10 m; labels "
        "MODIS MCD12Q1 (IGBP) in the classes of DFC2020. Contains modified Copernicus Sentinel data.",
    )
    lists = {
        name: [_checked(k, root / name) for k in listed(root / name)] for name in ("train_list.txt", "test_list.txt")
    }
    train = [k for k in lists["train_list.txt"] if k != _BROKEN]
    validation = held_out(map(_scene, train), _HELD_OUT, seed, title)
    parts, lost = kept_apart(
        {
            "train": [k for k in train if _scene(k) not in validation],
            "validation": [k for k in train if _scene(k) in validation],
            "test": [k for k in lists["test_list.txt"] if k != _BROKEN],
        },
        _scene,
        "scene",
        title,
    )
    rule = f"test: the published hold-out scenes; validation: {len(validation)} training scenes, seed {seed}{lost}"
    splits = streamed(about, parts, _Read(root, bands), _SIZE, rule, limit=limit, seed=seed)
    sources = sorted({"s1" if b.sensor == "sentinel-1" else "s2" for b in bands} | {"lc"})
    for part in (splits.train, splits.validation, splits.test):
        for source in sources:
            _LAYOUT.require(_path(root, key, source) for key in part.ids)
    return splits


def _checked(name: str, table: Path) -> str:
    if _NAME.fullmatch(name) is None:
        raise DataError(f"{table}: {name!r}; expected names like ROIs1158_spring_s2_1_p30.tif")
    return name


def _scene(key: str) -> str:
    return key.rpartition("_")[0]


def _path(root: Path, key: str, source: str) -> Path:
    match = _NAME.fullmatch(key)
    assert match is not None  # keys come from `_checked`
    season, scene, patch = match.groups()
    return root / season / f"{source}_{scene}" / f"{season}_{source}_{scene}_{patch}.tif"
