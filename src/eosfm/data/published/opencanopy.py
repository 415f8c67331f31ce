"""Open-Canopy: canopy height from SPOT 6-7 at 1.5 m, in the layout of its published folder.

What the files hold is read from the authors' own code (github.com/fajwel/Open-Canopy): bands red, green, blue, near
infrared (wavelengths in configs/model/Dofa.yaml); 8 bit, 0 to 2000 stretched to 0 to 255 and 0 where there is no picture
(src/preprocessing); heights in decimetres as uint16, on a grid of their own (scripts/prepare_lidar.py, create_splits.py).
The files themselves, 360 GB, have not been seen here.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About, Field
from eosfm.data.published.satellite_files import (
    Layout,
    Window,
    read_tif,
    streamed,
    tiles,
    window_key,
    window_of,
    zeros_to_nan,
)
from eosfm.inference.raster import RasterFile

_STORED = ("red", "green", "blue", "nir")
_ABOUT = About(
    "Open-Canopy",
    BandSet.parse("spot-6-7:nir,red,green@8bit"),
    "regression",
    ("canopy height in metres",),
    "etalab-2.0",
    "Open-Canopy (Fogel et al. 2024, arXiv:2407.09392), SPOT 6-7 pansharpened to 1.5 m and heights from aerial lidar, France",
)
_LAYOUT = Layout(
    "Open-Canopy",
    "canopy_height/geometries.geojson, canopy_height/<year>/spot/<image>.tif and "
    "canopy_height/<year>/lidar/compressed_lidar_<end of image>.tif",
    "360 GB: hf download AI4Forest/Open-Canopy --repo-type dataset",
    "opencanopy",
)
_PARTS = {"train": "train", "val": "validation", "test": "test"}
_DECIMETRES = 10.0
_SLACK = 1e-6  # of a pixel: corners of areas are decimal numbers


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        image, window = window_of(key)
        spot, lidar = _files(self.root, image)
        pixels = read_tif(spot, len(_STORED), window)
        if pixels.dtype != np.uint8:
            raise DataError(f"{spot}: {pixels.dtype} values; expected 8 bit, as published")
        x = zeros_to_nan(pixels)[[_STORED.index(n) for n in _ABOUT.bands.names]]
        return torch.from_numpy(x), torch.from_numpy(_heights(spot, lidar, window))


def opencanopy(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 256) -> Splits:
    """Canopy height in metres from near infrared, red, green of SPOT 6-7: regression ``(tile, tile)``.

    The published split, area by area of 1 km, from geometries.geojson; buffers are left out.
    Pixels that are 0 in all bands are NaN (the edge of a picture). A pixel's height is that of the lidar cell in which its
    centre lies, because the two files are on different grids: the same window of both would be two places.

    Raises:
        DataError: missing files, areas that are no boxes, leave their files or are smaller than a tile, another split name
            than train, val, test and buffer, pictures that are not 8 bit, heights that are not 16-bit integers, or files
            that do not lie in one place.
    """
    root = _LAYOUT.folder(root, "canopy_height/geometries.geojson")
    keys: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for image, split, (top, left, height, width) in _areas(root):
        for t, x, h, w in tiles(height, width, tile, f"Open-Canopy, an area of {image}"):
            keys[_PARTS[split]].append(window_key(image, (top + t, left + x, h, w)))
    rule = (
        "published, by area of 1 km: a buffer of 1 km around test areas, but validation areas were drawn at random among "
        "training areas and touch them; buffers left out"
    )
    parts = {part: list(dict.fromkeys(some)) for part, some in keys.items()}
    return streamed(_ABOUT, parts, _Read(root), (tile, tile), rule, limit=limit, seed=seed)


def _areas(root: Path) -> list[tuple[str, str, Window]]:
    """Picture, split and pixel window of every area of a split; rounded inwards, so that no pixel is of two areas."""
    path = root / "canopy_height/geometries.geojson"
    try:
        features: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["features"]
        rows = [
            (
                str(f["properties"]["image_name"]),
                str(f["properties"]["split"]),
                np.array(f["geometry"]["coordinates"][0], float),
            )
            for f in features
        ]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path}: expected features with image_name, split and a polygon ({e!r})") from e
    grids: dict[str, tuple[_Grid, _Grid]] = {}  # an area is 1 km, a picture has hundreds of them
    out = []
    for image, split, ring in rows:
        if split == "buffer":
            continue
        if split not in _PARTS:
            raise DataError(f"{path}: split {split!r} of an area of {image}; expected buffer, {', '.join(_PARTS)}")
        if "/" in image or "\\" in image or not image.endswith(".tif"):
            raise DataError(f"{path}: image_name {image!r}; expected the name of a .tif file")
        if image not in grids:
            _LAYOUT.require(_files(root, image))
            grids[image] = _grids(*_files(root, image))
        spot, lidar = grids[image]
        box = _box(ring, f"{path}: an area of {image}")
        for grid, what, slack in ((spot, "picture", 0.5), (lidar, "heights", 1.0)):
            top, left, bottom, right = grid.pixels(box)
            if top < -slack or left < -slack or bottom > grid.height + slack or right > grid.width + slack:
                raise DataError(
                    f"{path}: an area of {image} (rows {top:.1f} to {bottom:.1f}, columns {left:.1f} to {right:.1f}) leaves "
                    f"its {what} of {grid.height} x {grid.width} pixels. Are all files complete and of one release?"
                )
        top, left, bottom, right = spot.pixels(box)
        t, x = max(math.ceil(top - _SLACK), 0), max(math.ceil(left - _SLACK), 0)
        b, r = min(math.floor(bottom + _SLACK), spot.height), min(math.floor(right + _SLACK), spot.width)
        out.append((image, split, (t, x, b - t, r - x)))
    return out


def _box(ring: NDArray[np.float64], where: str) -> tuple[float, float, float, float]:
    """West, south, east, north of a polygon that is a box: the bounds of another one would hold its neighbours' ground."""
    if ring.ndim != 2 or len(ring) < 4 or ring.shape[1] < 2:
        raise DataError(f"{where}: a polygon of shape {ring.shape}; expected corners of two coordinates")
    x, y = ring[:, 0], ring[:, 1]
    area = abs(float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) + x[-1] * y[0] - x[0] * y[-1])) / 2
    west, south, east, north = float(x.min()), float(y.min()), float(x.max()), float(y.max())
    if not area > 0 or abs(area - (east - west) * (north - south)) > 0.001 * area:
        raise DataError(f"{where} is no box along the axes; expected the squares of 1 km of the published file")
    return west, south, east, north


@dataclass(frozen=True)
class _Grid:
    """Where the pixels of a north-up raster lie: upper left corner and size of a pixel, in metres."""

    west: float
    north: float
    wide: float
    high: float
    height: int
    width: int

    def pixels(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Top, left, bottom, right in pixels, not rounded, of a box (west, south, east, north)."""
        west, south, east, north = box
        rows = [(self.north - y) / self.high for y in (north, south)]
        columns = [(x - self.west) / self.wide for x in (west, east)]
        return rows[0], columns[0], rows[1], columns[1]

    def cells(self, other: _Grid, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of this grid in which the centres of the pixels of ``window`` of ``other`` lie."""
        top, left, height, width = window
        y = other.north - (top + 0.5 + np.arange(height)) * other.high
        x = other.west + (left + 0.5 + np.arange(width)) * other.wide
        rows, columns = (self.north - y) / self.high, (x - self.west) / self.wide
        return np.floor(rows + _SLACK).astype(np.int64), np.floor(columns + _SLACK).astype(np.int64)


def _grids(spot: Path, lidar: Path) -> tuple[_Grid, _Grid]:
    """The grids of a picture and of its heights, which must lie in one coordinate system and be equally fine."""
    grids, systems = [], []
    for path in (spot, lidar):
        file = RasterFile(path)
        file.close()
        t = file.where.transform
        if file.where.missing or t.b or t.d or t.a <= 0 or t.e >= 0:
            raise DataError(f"{path}: not placed, or not north up; heights could not be matched with pixels")
        grids.append(_Grid(t.c, t.f, t.a, -t.e, file.height, file.width))
        systems.append(file.where.crs)
    if systems[0] != systems[1]:
        raise DataError(f"{lidar} lies in {systems[1]}, {spot} in {systems[0]}; expected one coordinate system")
    a, b = grids
    if not (0.9 < a.wide / b.wide < 1.1 and 0.9 < a.high / b.high < 1.1):
        raise DataError(f"{lidar} has pixels of {b.wide:g} m, {spot} of {a.wide:g} m; expected equal ones, 1.5 m")
    return a, b


def _heights(spot: Path, lidar: Path, window: Window) -> Field:
    """Heights in metres at the centres of the pixels of ``window`` of ``spot``; NaN where there are none."""
    picture, grid = _grids(spot, lidar)
    rows, columns = grid.cells(picture, window)
    inside = ((rows >= 0) & (rows < grid.height))[:, None] & ((columns >= 0) & (columns < grid.width))[None]
    rows, columns = rows.clip(0, grid.height - 1), columns.clip(0, grid.width - 1)
    file = RasterFile(lidar)
    dtype, nodata = file.dtype, file.nodata[0]
    file.close()
    if dtype not in (np.uint16, np.int16):
        raise DataError(f"{lidar}: {dtype} values; expected decimetres as 16-bit integers, as published")
    top, left = int(rows.min()), int(columns.min())
    stored = read_tif(lidar, 1, (top, left, int(rows.max()) + 1 - top, int(columns.max()) + 1 - left))[0]
    values = stored[(rows - top)[:, None], (columns - left)[None]]
    known = inside if nodata is None else inside & (values != nodata)
    return np.where(known, values / _DECIMETRES, np.nan).astype(np.float32)


def _files(root: Path, image: str) -> tuple[Path, Path]:
    last = image.split("_")[-1]
    folder = root / "canopy_height" / last[:4]
    return folder / "spot" / image, folder / "lidar" / f"compressed_lidar_{last}"
