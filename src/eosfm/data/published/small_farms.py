"""AI4SmallFarms: fields of smallholders in Vietnam and Cambodia (Persello et al. 2023, doi:10.1109/LGRS.2023.3323095).

What the published column of PANGAEA measures is not settled. Its configuration first had one class (``num_classes: 1``):
cross entropy over one logit is 0 everywhere, so nothing is learnt, and the 25 to 28 mIoU printed for frozen models lie
below a constant map. With the 27 % of its second class, an all-0 map scores 36.3 mIoU and an all-1 map 13.7. Later versions
have two classes, "Background" and "Crop Field", and others who ran it anew print 35 to 39. So compare scores with the
constant predictor of the same run, never with that column.

Nor is it settled what mask value 255 means. The data set was made to delineate fields, and 439,001 fields on 62 tiles of
25 km2 are 0.35 ha each: 6 x 6 pixels, of which a line of one pixel between neighbours takes 30 % and the inside 70. PANGAEA's
27 % fit borders, not fields. This was computed, not seen: the files are not at hand.
"""

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
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import (
    kept_apart,
    raster_size,
    read_tif,
    relabel,
    streamed,
    tiles,
    window_key,
    window_of,
    zeros_to_nan,
)

_LAYOUT = LAYOUTS["ai4smallfarms"]
_ABOUT = About(
    "AI4SmallFarms",
    BandSet.parse("sentinel-2-l2a:B02,B03,B04,B08@dn-1e4"),
    "segmentation",
    ("unmarked", "marked"),
    "CC-BY-4.0",
    "AI4SmallFarms (Persello et al. 2023, doi:10.17026/dans-xy6-ngg6), Sentinel-2 tiles of about 5 x 5 km at 10 m, Vietnam and "
    "Cambodia, 2021; PANGAEA calls its mask 'Crop Field', its share fits field borders. Contains modified Copernicus "
    "Sentinel data.",
)
_TILE = re.compile(r"(\d+_[a-z]+)")
_VALUES = {0: 0, 1: 1, 255: 1}


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        image, mask = _files(self.root, name)
        x = zeros_to_nan(read_tif(image, len(_ABOUT.bands), window))
        y = relabel(read_tif(mask, 1, window)[0], _VALUES, str(mask))
        return torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(y))


def ai4smallfarms(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 256) -> Splits:
    """What AI4SmallFarms marks: B02, B03, B04, B08 x 10000, float32 ``(4, tile, tile)``; labels unmarked, marked (255).

    Two real classes, unlike PANGAEA's first version; what the mark means is in this module's docstring. Pixels that are 0
    in all bands become NaN. Bands are taken in PANGAEA's order, which the files do not state. Nothing is ignored.

    Splits are the published folders, by tile of 5 km; a tile that is in two of them is left out of the earlier one.

    Args:
        root: holds ``sentinel-2-asia``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels; PANGAEA crops 496 or resizes.

    Raises:
        DataError: missing files, names without tile and country, masks of another size, or (when it is read) a mask value
            other than 0, 1 and 255.
        RasterError: a damaged file.
    """
    base = Path(root) / "sentinel-2-asia"
    middle = "val" if (base / "val").is_dir() else "validate"
    folders = {"train": "train", "validation": middle, "test": "test"}
    root = _LAYOUT.folder(
        root, *(f"sentinel-2-asia/{f}/{kind}" for f in folders.values() for kind in ("images", "masks"))
    )
    found = {split: _names(root, folder) for split, folder in folders.items()}
    parts, lost = kept_apart(found, lambda name: _ground(root, name), "tile", "AI4SmallFarms")
    keys = {split: [k for name in names for k in _windows(root, name, tile)] for split, names in parts.items()}
    return streamed(
        _ABOUT, keys, _Read(root), (tile, tile), f"the published folders, by tile{lost}", limit=limit, seed=seed
    )


def _names(root: Path, folder: str) -> list[str]:
    names = sorted(f"{folder}/{p.name}" for p in (root / "sentinel-2-asia" / folder / "images").glob("*.tif"))
    if not names:
        raise DataError(
            f"AI4SmallFarms: no *.tif in {root / 'sentinel-2-asia' / folder / 'images'}. {_LAYOUT.where_to_get()}"
        )
    _LAYOUT.require(f for name in names for f in _files(root, name))
    return names


def _files(root: Path, name: str) -> tuple[Path, Path]:
    folder, _, file = name.partition("/")
    base = root / "sentinel-2-asia" / folder
    return base / "images" / file, base / "masks" / file


def _ground(root: Path, name: str) -> str:
    match = _TILE.match(name.rpartition("/")[2])
    if match is None:
        raise DataError(f"{_files(root, name)[0]}: expected a name such as 12_cambodia.tif, a tile and its country")
    return match[1]


def _windows(root: Path, name: str, side: int) -> list[str]:
    image, mask = _files(root, name)
    height, width = raster_size(image)
    if raster_size(mask) != (height, width):
        raise DataError(f"{mask}: {raster_size(mask)} pixels, its picture {(height, width)}; expected the same")
    return [window_key(name, w) for w in tiles(height, width, side, f"AI4SmallFarms, {name}")]
