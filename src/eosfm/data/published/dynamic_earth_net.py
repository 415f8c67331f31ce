"""DynamicEarthNet: land cover of every month in daily PlanetScope pictures (Toker et al. 2022, arXiv:2203.12560)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About, Labels
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import (
    Window,
    kept_apart,
    listed,
    raster_size,
    read_tif,
    streamed,
    tiles,
    window_key,
    window_of,
    zeros_to_nan,
)
from eosfm.data.published.series_files import require_dates
from eosfm.tasks.kinds import IGNORE

CLASSES = ("impervious surface", "agriculture", "forest and other vegetation", "wetlands", "soil", "water")
"""layers 1 to 6 of a label; layer 7, snow and ice, is ignored, as in PANGAEA"""
DAYS = ("01", "05", "10", "15", "20", "25")
"""of the month: what PANGAEA calls weekly"""
_LAYOUT = LAYOUTS["dynamicearthnet"]
_ABOUT = About(
    "DynamicEarthNet",
    BandSet.parse("planetscope-4b:blue,green,red,nir@dn-1e4"),
    "segmentation",
    CLASSES,
    "CC-BY-SA-4.0",
    "DynamicEarthNet (Toker et al. 2022, arXiv:2203.12560), PlanetScope fusion pictures of 1024 x 1024 pixels of 3 m, 2018 "
    "and 2019, areas of the published splits",
)
_MONTH = re.compile(r"\d{4}-\d{2}")
_REPLACED = "/reprocess-cropped/UTM-24000/"


@dataclass(frozen=True)
class _Read:
    root: Path
    days: tuple[str, ...]

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        folder, label, month = name.split("|")
        x = [zeros_to_nan(read_tif(_picture(self.root, folder, month, d), 4, window)) for d in self.days]
        return torch.from_numpy(np.concatenate(x)), torch.from_numpy(_label(self.root / label, window))


def dynamicearthnet(
    root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 256, dates: int = len(DAYS)
) -> Splits:
    """Land cover of a month: blue, green, red, near infrared x 10000 of several days, ``(dates * 4, tile, tile)``.

    The days are the 1st, 5th, 10th, 15th, 20th and 25th, as in PANGAEA, or the first ``dates`` of them. Labels
    ``(tile, tile)``; snow and ice, and pixels without any layer, are ignored (PANGAEA makes the latter "impervious
    surface"). Bands are taken as blue, green, red, near infrared, as PANGAEA's loader reads the files. Pixels that are 0 in
    all bands become NaN in that date.

    Splits are the published lists, by area; an area that is in two of them is left out of the earlier one.

    Args:
        root: holds ``dynnet_training_splits``, ``planet`` and ``labels``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels; pictures are 1024.
        dates: how many of the six days: 1, or 3 to 6.

    Raises:
        DataError: missing files, a line of another form or that leads out of ``root``, pictures and labels of different
            size, or (when it is read) a label that is not 0 and 255 or has two classes in a pixel.
        RasterError: a damaged file.
    """
    require_dates(dates, len(DAYS), "DynamicEarthNet")
    lists = {"train": "train", "validation": "val", "test": "test"}
    lists = {split: f"dynnet_training_splits/{name}.txt" for split, name in lists.items()}
    root = _LAYOUT.folder(root, *lists.values())
    found = {split: [_line(root / path, line) for line in listed(root / path)] for split, path in lists.items()}
    parts, lost = kept_apart(found, _area, "area", "DynamicEarthNet")
    keys = {split: [k for n in names for k in _windows(root, n, tile, DAYS[:dates])] for split, names in parts.items()}
    rule = f"the published lists, by area; days {', '.join(DAYS[:dates])} of each month{lost}"
    read = _Read(root, DAYS[:dates])
    return streamed(_ABOUT, keys, read, (tile, tile), rule, limit=limit, seed=seed, dates=dates)


def _line(path: Path, line: str) -> str:
    """``folder|label|month`` of a line, relative to the root."""
    words = line.split()
    if len(words) == 3 and _MONTH.fullmatch(words[2]):
        names = [w.replace(_REPLACED, "/planet/").lstrip("/") for w in words[:2]]
        if not any(".." in PurePosixPath(n).parts or "|" in n for n in names):
            return "|".join([*names, words[2]])
    raise DataError(
        f"{path}: line {line!r}; expected a folder of pictures, a label and a month (2018-01), within the root"
    )


def _area(name: str) -> str:
    """The label's folder: all months of one area lie in one."""
    return str(PurePosixPath(name.split("|")[1]).parent)


def _picture(root: Path, folder: str, month: str, day: str) -> Path:
    return root / folder / f"{month}-{day}.tif"


def _windows(root: Path, name: str, side: int, days: tuple[str, ...]) -> list[str]:
    folder, label, month = name.split("|")
    pictures = [_picture(root, folder, month, d) for d in days]
    _LAYOUT.require([root / label, *pictures])
    size = raster_size(root / label)
    for path in pictures:
        if raster_size(path) != size:
            raise DataError(f"{path}: {raster_size(path)} pixels, its label {size}; expected the same")
    return [window_key(name, w) for w in tiles(*size, side, f"DynamicEarthNet, {name}")]


def _label(path: Path, window: Window) -> Labels:
    """Classes from seven layers of 0 and 255."""
    layers = read_tif(path, len(CLASSES) + 1, window)
    marked = layers == 255
    if not bool((marked | (layers == 0)).all()) or int(marked.sum(0).max()) > 1:
        raise DataError(f"{path}: expected seven layers of 0 and 255, at most one of them 255 in a pixel")
    top = marked.argmax(0).astype(np.int64)
    return np.where(marked[: len(CLASSES)].any(0), top, IGNORE)
