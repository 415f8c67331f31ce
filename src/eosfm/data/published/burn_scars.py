"""HLS Burn Scars: wildfires in the United States, 2018 to 2021 (IBM and NASA, doi:10.57967/hf/0956), in its own layout."""

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
from eosfm.data.footprints import Footprint, without_shared_ground
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import (
    held_out,
    raster_size,
    read_tif,
    relabel,
    streamed,
    tiles,
    window_key,
    window_of,
)
from eosfm.inference.raster import RasterFile
from eosfm.tasks.kinds import IGNORE

_LAYOUT = LAYOUTS["hls-burn-scars"]
_ABOUT = About(
    "HLS Burn Scars",
    BandSet.parse("hls:all@reflectance"),
    "segmentation",
    ("not burned", "burn scar"),
    "CC-BY-4.0",
    "HLS Burn Scars (Phillips et al. 2023, doi:10.57967/hf/0956), chips of 512 x 512 pixels at 30 m of Harmonized Landsat and "
    "Sentinel-2, six bands, with fires of the MTBS programme",
)
_TILE = re.compile(r"\.(T\d{2}[A-Z]{3})\.")
_VALUES = {-1: IGNORE, 0: 0, 1: 1}
_NODATA = 9999.0
_HELD_OUT = 0.1


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        image, mask = _files(self.root, name)
        x = read_tif(image, len(_ABOUT.bands), window)
        if x.dtype.kind != "f":
            raise DataError(f"{image}: {x.dtype} values; expected reflectance as real numbers, as published")
        x = x.astype(np.float32)
        x[np.abs(x) == _NODATA] = np.nan
        y = relabel(read_tif(mask, 1, window)[0], _VALUES, str(mask))
        return torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(y))


def hls_burn_scars(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Burn scars in six HLS bands (blue to SWIR 2) as reflectance: float32 ``(6, tile, tile)``; labels ``(tile, tile)``.

    Mask -1 (no data) is ignored; values of 9999 or -9999 become NaN.

    The folder validation/ is the test split, as in PANGAEA. Where PANGAEA validates on a tenth of the training chips drawn
    at random, a tenth of the training *MGRS tiles* is held out here, and chips that show ground of a later split are left
    out: two dates of one fire are one place.

    Args:
        root: holds ``training`` and ``validation``.
        seed: of the validation tiles, and of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels; PANGAEA's is 512, the whole.

    Raises:
        DataError: missing files, names without an MGRS tile, files without a place, masks of another size, or (when they
            are read) values that are integers, or labels other than -1, 0 and 1.
        RasterError: a damaged file.
    """
    root = _LAYOUT.folder(root, "training", "validation")
    chips = {part: _names(root, part) for part in ("training", "validation")}
    validation = held_out(map(_mgrs, chips["training"]), _HELD_OUT, seed, "HLS Burn Scars")
    published = {
        "train": [c for c in chips["training"] if _mgrs(c) not in validation],
        "validation": [c for c in chips["training"] if _mgrs(c) in validation],
        "test": chips["validation"],
    }
    places = {name: _place(root, name) for names in published.values() for name in names}
    parts, lost = without_shared_ground(published, places)
    keys = {split: [k for name in names for k in _windows(root, name, tile)] for split, names in parts.items()}
    rule = (
        f"test: the published validation folder; validation: {len(validation)} of the training folder's MGRS tiles (seed "
        f"{seed}); {lost} chips left out that show ground of a later split"
    )
    return streamed(_ABOUT, keys, _Read(root), (tile, tile), rule, limit=limit, seed=seed)


def _names(root: Path, part: str) -> list[str]:
    names = sorted(f"{part}/{p.name.removesuffix('_merged.tif')}" for p in (root / part).glob("*_merged.tif"))
    if not names:
        raise DataError(f"HLS Burn Scars: no *_merged.tif in {root / part}. {_LAYOUT.where_to_get()}")
    _LAYOUT.require(f for name in names for f in _files(root, name))
    return names


def _files(root: Path, name: str) -> tuple[Path, Path]:
    return root / f"{name}_merged.tif", root / f"{name}.mask.tif"


def _mgrs(name: str) -> str:
    match = _TILE.search(name)
    if match is None:
        raise DataError(
            f"HLS Burn Scars, {name}: no MGRS tile such as T10SDH in the name; expected the published names"
        )
    return match[1]


def _windows(root: Path, name: str, side: int) -> list[str]:
    image, mask = _files(root, name)
    height, width = raster_size(image)
    if raster_size(mask) != (height, width):
        raise DataError(f"{mask}: {raster_size(mask)} pixels, its picture {(height, width)}; expected the same")
    return [window_key(name, w) for w in tiles(height, width, side, f"HLS Burn Scars, {name}")]


def _place(root: Path, name: str) -> Footprint:
    file = RasterFile(_files(root, name)[0])
    file.close()
    if file.where.missing:
        raise DataError(
            f"{file.path}: no {' and '.join(file.where.missing)}; without it nobody sees whether splits overlap"
        )
    (x0, y0), (x1, y1) = (file.where.transform * at for at in ((0, 0), (file.width, file.height)))
    return Footprint(str(file.where.crs), min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
