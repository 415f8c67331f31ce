"""Crop types of fields in western Kenya, 2019 (CV4A at ICLR 2020), in the layout of TorchGeo's `CV4AKenyaCropType`."""

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
from eosfm.data.folders import SPLITS, About
from eosfm.data.published.satellite_files import (
    Layout,
    raster_size,
    read_tif,
    relabel,
    streamed,
    tiles,
    window_key,
    window_of,
    zeros_to_nan,
)
from eosfm.tasks.kinds import IGNORE

CLASSES = (
    "maize",
    "cassava",
    "common bean",
    "maize and common bean",
    "maize and cassava",
    "maize and soybean",
    "cassava and common bean",
)
"""crop ids 1 to 7 in order (the data set's Documentation.pdf, appendix D); 0 is a field whose crop is withheld, or no field"""
TILES = {"train": ("0", "1"), "validation": ("2",), "test": ("3",)}
MARGIN = 32
"""pixels left out along the edges of validation and test tiles: the four tiles touch, and a field can cross a border"""
_LABELS = {0: IGNORE, **{crop: crop - 1 for crop in range(1, len(CLASSES) + 1)}}
_LAYOUT = Layout(
    "Kenya crop types",
    "FieldIds.csv, data/<tile>/<tile>_label.tif and data/<tile>/<date>/<tile>_{B01,...,B12,CLD}_<date>.tif for tiles 0 to 3",
    "684 TIFFs (4 tiles of 3035 x 2016 pixels, 13 dates) from https://source.coop/radiantearth/african-crops-kenya-02, or by "
    "azcopy sync from https://radiantearth.blob.core.windows.net/mlhub/kenya-crop-challenge",
    "kenya-croptype",
)
_ABOUT = About(
    "Kenya crop types",
    BandSet.parse("sentinel-2-l2a:all@dn-1e4"),
    "segmentation",
    CLASSES,
    "CC-BY-SA-4.0",
    "CV4A Kenya Crop Type Competition (Radiant Earth 2020, doi:10.34911/rdnt.dw605x), Sentinel-2 L2A resampled to 10 m, one "
    "of its 13 dates in 2019. Contains modified Copernicus Sentinel data.",
)


@dataclass(frozen=True)
class _Read:
    root: Path
    date: str

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        bands = [read_tif(_path(self.root, name, self.date, b), 1, window) for b in _ABOUT.bands.names]
        label = _label(self.root, name)
        y = relabel(read_tif(label, 1, window)[0], _LABELS, str(label))
        return torch.from_numpy(zeros_to_nan(np.concatenate(bands))), torch.from_numpy(y)


def kenya_croptype(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 128) -> Splits:
    """Crops of one date: 12 bands of Sentinel-2 L2A x 10000, float32 ``(12, tile, tile)``; labels int64 ``(tile, tile)``.

    The date is the one with the lowest mean cloud probability (CLD) over the four tiles; it is named in the split's rule.
    Pixels outside the labelled fields are ignored, chips without a labelled field left out. Pixels that are 0 in all bands
    become NaN. No offset: the scenes are of 2019.

    Splits are tiles: 0 and 1 for training, 2 for validation, 3 for testing, with 32 pixels left out along the edges of
    the latter two. The competition's own test fields have no public labels.

    Args:
        root: holds ``FieldIds.csv`` and ``data/``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels.

    Raises:
        DataError: missing files, bands of another size than their labels, cloud probabilities outside 0 to 100, a split
            without a labelled field, or (when it is read) a crop id above 7.
        RasterError: a damaged file.
    """
    names = [name for split in SPLITS for name in TILES[split]]
    root = _LAYOUT.folder(root, "FieldIds.csv", *(f"data/{n}/{n}_label.tif" for n in names))
    date = _clearest(root, names)
    _LAYOUT.require(_path(root, n, date, band) for n in names for band in _ABOUT.bands.names)
    for name in names:
        _require_one_size(_label(root, name), [_path(root, name, date, band) for band in _ABOUT.bands.names])
    parts: dict[str, list[str]] = {}
    for split in SPLITS:
        margin = 0 if split == "train" else MARGIN
        parts[split] = [key for name in TILES[split] for key in _labelled(root, name, tile, margin)]
    rule = f"tiles 0 and 1, 2, 3; {MARGIN} pixels left out along the edges of 2 and 3; {date}, the clearest date"
    return streamed(_ABOUT, parts, _Read(root, date), (tile, tile), rule, limit=limit, seed=seed)


def _clearest(root: Path, names: list[str]) -> str:
    """The date with the lowest mean cloud probability over all tiles."""
    dates = sorted(p.name for p in (root / "data" / names[0]).iterdir() if re.fullmatch(r"\d{8}", p.name))
    if not dates:
        raise DataError(f"{root / 'data' / names[0]}: no folder of a date (20190606). Expected: {_LAYOUT.tree}")
    clouds: dict[str, float] = {}
    for date in dates:
        files = [_path(root, name, date, "CLD") for name in names]
        _LAYOUT.require(files)
        values = [read_tif(f, 1) for f in files]
        if min(v.min() for v in values) < 0 or max(v.max() for v in values) > 100:
            raise DataError(f"{files[0]} and the other tiles': cloud probabilities outside 0 to 100 %")
        clouds[date] = float(np.mean([v.mean(dtype=np.float64) for v in values]))
    return min(dates, key=lambda d: (clouds[d], d))


def _require_one_size(label: Path, bands: list[Path]) -> None:
    """`DataError` if a band is not of the size of its labels: windows of the two would be different places."""
    for path in bands:
        if raster_size(path) != raster_size(label):
            raise DataError(f"{path}: {raster_size(path)} pixels, its labels {raster_size(label)}; expected the same")


def _labelled(root: Path, name: str, side: int, margin: int) -> list[str]:
    """Keys of the windows of tile ``name`` in which a field is labelled."""
    label = _label(root, name)
    crops = read_tif(label, 1)[0]
    where = f"{label} without {margin} pixels at its edges"
    inner = tiles(crops.shape[0] - 2 * margin, crops.shape[1] - 2 * margin, side, where)
    windows = [(t + margin, x + margin, h, w) for t, x, h, w in inner]
    return [window_key(name, (t, x, h, w)) for t, x, h, w in windows if bool(crops[t : t + h, x : x + w].any())]


def _label(root: Path, name: str) -> Path:
    return root / "data" / name / f"{name}_label.tif"


def _path(root: Path, name: str, date: str, band: str) -> Path:
    return root / "data" / name / date / f"{name}_{band}_{date}.tif"
