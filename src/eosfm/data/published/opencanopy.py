"""Open-Canopy: canopy height from SPOT 6-7 at 1.5 m, in the layout that PANGAEA's reader of it uses."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About
from eosfm.data.published.satellite_files import Layout, read_tif, streamed, tiles, window_key, window_of
from eosfm.inference.raster import RasterFile

_STORED = ("red", "green", "blue", "nir")
_ABOUT = About(
    "Open-Canopy",
    BandSet.parse("spot-6-7:nir,red,green@8bit"),
    "regression",
    ("canopy height as stored",),
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


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        image, window = window_of(key)
        spot, lidar = _files(self.root, image)
        x = read_tif(spot, len(_STORED), window)[[_STORED.index(n) for n in _ABOUT.bands.names]].astype(np.float32)
        file = RasterFile(lidar)
        nodata = file.nodata[0]
        file.close()
        y = read_tif(lidar, 1, window)[0].astype(np.float32)
        if nodata is not None:
            y[y == np.float32(nodata)] = np.nan
        return torch.from_numpy(x), torch.from_numpy(y)


def opencanopy(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 256) -> Splits:
    """Canopy height from near infrared, red, green (files: red, green, blue, near infrared): regression ``(tile, tile)``.

    The published split, area by area, from geometries.geojson; areas marked for nothing (buffers) are left out. Heights are
    those of the files, without a change of unit, NaN where the lidar file has its nodata value. That pictures are 8 bit and
    their bands in this order is inferred from public readers, not seen.

    Raises:
        DataError: missing files, areas outside their picture or smaller than a tile, another split name than
            train, val, test (other words are buffers and left out).
    """
    root = _LAYOUT.folder(root, "canopy_height/geometries.geojson")
    keys: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for image, split, window in _areas(root):
        if split in _PARTS:
            top, left, height, width = window
            for t, x, h, w in tiles(height, width, tile, f"Open-Canopy, an area of {image}"):
                keys[_PARTS[split]].append(window_key(image, (top + t, left + x, h, w)))
    rule = "published, by area; areas of no split (buffers) left out"
    parts = {part: list(dict.fromkeys(some)) for part, some in keys.items()}
    return streamed(_ABOUT, parts, _Read(root), (tile, tile), rule, limit=limit, seed=seed)


def _areas(root: Path) -> list[tuple[str, str, tuple[int, int, int, int]]]:
    """Picture, split and pixel window of every area, whose polygon is a box in the picture's coordinates."""
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
    out = []
    for image, split, ring in rows:
        if "/" in image or "\\" in image or not image.endswith(".tif"):
            raise DataError(f"{path}: image_name {image!r}; expected the name of a .tif file")
        _LAYOUT.require(_files(root, image))
        file = RasterFile(_files(root, image)[0])
        t, height, width = file.where.transform, file.height, file.width
        file.close()
        columns, rows_ = zip(*(~t * (x, y) for x, y in ring[:, :2]), strict=True)
        top, left = round(min(rows_)), round(min(columns))
        bottom, right = round(max(rows_)), round(max(columns))
        if top < 0 or left < 0 or bottom > height or right > width:
            raise DataError(
                f"{path}: an area of {image} (rows {top} to {bottom}, columns {left} to {right}) leaves its picture"
            )
        out.append((image, split, (top, left, bottom - top, right - left)))
    return out


def _files(root: Path, image: str) -> tuple[Path, Path]:
    last = image.split("_")[-1]
    folder = root / "canopy_height" / last[:4]
    return folder / "spot" / image, folder / "lidar" / f"compressed_lidar_{last}"
