"""OSCD: changes between two Sentinel-2 scenes of 24 cities (Daudt et al. 2018), in its own layout (`torchgeo.datasets.OSCD`)."""

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
from eosfm.data.folders import About, Field
from eosfm.data.published.satellite_files import (
    Layout,
    Window,
    held_out,
    kept_apart,
    raster_size,
    read_grey,
    read_tif,
    relabel,
    streamed,
    tiles,
    window_key,
    window_of,
    zeros_to_nan,
)

_STEM = "Onera Satellite Change Detection dataset - "
_IMAGES = f"{_STEM}Images"
_LABELS = {"train": f"{_STEM}Train Labels", "test": f"{_STEM}Test Labels"}
_DATES = ("imgs_1_rect", "imgs_2_rect")
_BAND = re.compile(r"(?:.*_)?(B\d\d|B8A)\.tif")
_HELD_OUT = 0.2
_LAYOUT = Layout(
    "OSCD",
    f"'{_IMAGES}'/<city>/{{imgs_1_rect,imgs_2_rect}}/B01.tif ... B12.tif, and '{_LABELS['train']}'/<city>/cm/cm.png, "
    f"'{_LABELS['test']}'/<city>/cm/cm.png",
    "three zip files (24 cities, about 0.5 GB) from https://rcdaudt.github.io/oscd (or by torchgeo.datasets.OSCD's links), "
    "unpacked in one folder",
    "oscd",
)
_ABOUT = About(
    "OSCD",
    BandSet.parse("sentinel-2-l1c:all@dn-1e4"),
    "segmentation",
    ("no change", "change"),
    "CC-BY-NC-SA-4.0",
    "OSCD (Daudt et al. 2018, doi:10.1109/IGARSS.2018.8518015), pairs of Sentinel-2 L1C scenes, 2015 to 2018, all bands at "
    "10 m. Contains modified Copernicus Sentinel data.",
)


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        part, city = name.split("/")
        top, left, height, width = window
        cm = _mask(self.root, part, city)
        y = relabel(read_grey(cm), {0: 0, 255: 1}, str(cm))[top : top + height, left : left + width]
        x = np.concatenate([_image(self.root, city, date, window) for date in _DATES])
        return torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(y))


def oscd(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 128) -> Splits:
    """Change between two dates: float32 ``(26, tile, tile)``, the 13 bands of the first and then of the second date.

    Sentinel-2 L1C x 10000, bands in sensor order (B08, B8A, B09 ...), found by file name; labels int64 ``(tile, tile)``,
    1 is change. The scenes are of 2015 to 2018, before values had an offset. Pixels that are 0 in all bands of one date
    become NaN in that date.

    Cities are the published 14 for training and 10 for testing; a fifth of the training cities, drawn by ``seed``, is held
    out for validation. Tiles cover each city; the last ones are moved inwards, over others of the same city.

    Args:
        root: holds the three "Onera Satellite Change Detection dataset" folders.
        seed: of the validation cities, and of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels, at most that of the smallest city.

    Raises:
        DataError: missing files, bands or labels of different sizes, or (when they are read) label values other than
            0 and 255.
        RasterError: a damaged file.
    """
    root = _LAYOUT.folder(root, _IMAGES, *_LABELS.values())
    cities = {part: sorted(p.name for p in (root / _LABELS[part]).iterdir() if p.is_dir()) for part in _LABELS}
    validation = held_out(cities["train"], _HELD_OUT, seed, "OSCD")
    parts, lost = kept_apart(
        {
            "train": [f"train/{c}" for c in cities["train"] if c not in validation],
            "validation": [f"train/{c}" for c in cities["train"] if c in validation],
            "test": [f"test/{c}" for c in cities["test"]],
        },
        lambda name: name.split("/")[1],
        "city",
        "OSCD",
    )
    keys = {split: [k for name in names for k in _windows(root, name, tile)] for split, names in parts.items()}
    rule = f"the data set's cities; validation: {', '.join(sorted(validation))} (seed {seed}){lost}"
    return streamed(_ABOUT, keys, _Read(root), (tile, tile), rule, limit=limit, seed=seed, dates=2)


def _windows(root: Path, name: str, side: int) -> list[str]:
    part, city = name.split("/")
    cm = _mask(root, part, city)
    _LAYOUT.require([cm])
    size = read_grey(cm).shape
    for date in _DATES:
        for path in _bands(root, city, date).values():
            if raster_size(path) != size:
                raise DataError(f"{path}: {raster_size(path)} pixels, its labels {size}; expected the same")
    return [window_key(name, w) for w in tiles(size[0], size[1], side, f"OSCD, {city}")]


def _bands(root: Path, city: str, date: str) -> dict[str, Path]:
    """Band name -> file of one date; all 13, each once."""
    folder = root / _IMAGES / city / date
    files = {m[1]: p for p in sorted(folder.glob("*.tif")) if (m := _BAND.fullmatch(p.name))}
    if sorted(files) != sorted(_ABOUT.bands.names) or len(files) != len(list(folder.glob("*.tif"))):
        raise DataError(
            f"{folder}: bands {', '.join(files) or 'none'} in {len(list(folder.glob('*.tif')))} files; expected one file of "
            f"each of {', '.join(_ABOUT.bands.names)}"
        )
    return files


def _image(root: Path, city: str, date: str, window: Window) -> Field:
    files = _bands(root, city, date)
    return zeros_to_nan(np.concatenate([read_tif(files[b], 1, window) for b in _ABOUT.bands.names]))


def _mask(root: Path, part: str, city: str) -> Path:
    return root / _LABELS[part] / city / "cm" / "cm.png"
