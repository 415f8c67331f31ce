"""Sen1Floods11, the 446 hand-labelled chips (Bonafilia et al. 2020), in the layout of its bucket.

The one real chip at hand is read by `eosfm.data.real_scenes`.
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
from eosfm.data.folders import About, channel_order
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import (
    listed,
    raster_size,
    read_tif,
    relabel,
    shared_groups,
    streamed,
    tiles,
    window_key,
    window_of,
    zeros_to_nan,
)
from eosfm.inference.raster import RasterFile
from eosfm.tasks.kinds import IGNORE

_LAYOUT = LAYOUTS["sen1floods11-hand"]
_ABOUT = About(
    "Sen1Floods11",
    BandSet.parse("sentinel-1:VV,VH@db + sentinel-2-l1c:all@dn-1e4"),
    "segmentation",
    ("dry", "water"),
    "not stated (open access)",
    "Sen1Floods11 (Bonafilia et al. 2020, doi:10.1109/CVPRW50498.2020.00113), hand-labelled chips of 512 x 512 pixels of 10 m "
    "from 11 floods. Contains modified Copernicus Sentinel data.",
)
_PARTS = {"train": "train", "validation": "valid", "test": "test"}
_LINE = re.compile(r"([A-Za-z-]+_\d+)_S1Hand\.tif,\1_LabelHand\.tif")
_VALUES = {-1: IGNORE, 0: 0, 1: 1}


@dataclass(frozen=True)
class _Read:
    folder: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        chip, window = window_of(key)
        layers = []
        for part, sensor in (("S1", "sentinel-1"), ("S2", "sentinel-2-l1c")):
            wanted = [b.name for b in _ABOUT.bands if b.sensor == sensor]
            path = _path(self.folder, chip, part)
            values = read_tif(path, len(wanted), window)[_order(path, sensor, wanted)]
            layers.append(zeros_to_nan(values) if part == "S2" else values.astype(np.float32))
        label = _path(self.folder, chip, "Label")
        y = relabel(read_tif(label, 1, window)[0], _VALUES, str(label))
        return torch.from_numpy(np.concatenate(layers)), torch.from_numpy(np.ascontiguousarray(y))


def sen1floods11_hand(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Floods: VV, VH in dB and the 13 bands of Sentinel-2 L1C x 10000, float32 ``(15, tile, tile)``; labels dry, water.

    Bands are found by the files' own descriptions where they have any, else taken in the published order. Unlabelled
    pixels (-1) are ignored. NaN in radar stays NaN (PANGAEA fills 0 dB, a bright value); pixels that are 0 in all optical
    bands become NaN there. The scenes are of 2016 to 2019, before values had an offset.

    Splits are the published lists. They are by chip: every flood but Bolivia's (a list of its own, not read here, nor by
    PANGAEA) has chips in all three. Chips do not overlap, but scores are about floods that were seen.

    Args:
        root: holds ``v1.1``, or is that folder.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels; PANGAEA's is 512, the whole.

    Raises:
        DataError: missing files, a list with other names, layers of different size, or (when it is read) another label.
        RasterError: a damaged file.
    """
    root = root if (Path(root) / "splits").is_dir() else Path(root) / "v1.1"
    lists = {split: f"splits/flood_handlabeled/flood_{name}_data.csv" for split, name in _PARTS.items()}
    root = _LAYOUT.folder(root, *lists.values(), "data/flood_events/HandLabeled")
    folder = root / "data/flood_events/HandLabeled"
    chips = {split: [_chip(root / path, line) for line in listed(root / path)] for split, path in lists.items()}
    _LAYOUT.require(_path(folder, c, part) for names in chips.values() for c in names for part in ("S1", "S2", "Label"))
    keys = {split: [k for c in names for k in _windows(folder, c, tile)] for split, names in chips.items()}
    rule = "the published lists, by chip" + shared_groups(chips, lambda c: c.split("_")[0], "floods")
    return streamed(_ABOUT, keys, _Read(folder), (tile, tile), rule, limit=limit, seed=seed)


def _chip(path: Path, line: str) -> str:
    match = _LINE.fullmatch(line)
    if match is None:
        raise DataError(f"{path}: line {line!r}; expected Spain_7370579_S1Hand.tif,Spain_7370579_LabelHand.tif")
    return match[1]


def _path(folder: Path, chip: str, part: str) -> Path:
    return folder / f"{part}Hand" / f"{chip}_{part}Hand.tif"


def _order(path: Path, sensor: str, wanted: list[str]) -> list[int]:
    file = RasterFile(path)
    file.close()
    if not any(file.descriptions):
        return list(range(len(wanted)))
    return channel_order(path, file.descriptions, sensor, wanted)


def _windows(folder: Path, chip: str, side: int) -> list[str]:
    sizes = {part: raster_size(_path(folder, chip, part)) for part in ("S1", "S2", "Label")}
    if len(set(sizes.values())) != 1:
        raise DataError(f"Sen1Floods11, {chip}: {sizes} pixels; expected the same of all three")
    return [window_key(chip, w) for w in tiles(*sizes["Label"], side, f"Sen1Floods11, {chip}")]
