"""SpaceNet 7: buildings, and new buildings, in monthly PlanetScope mosaics (Van Etten et al. 2021, arXiv:2102.04420).

The layout is that of PANGAEA's archive, which adds rasters of the labels to the published pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import SPLITS, About, Field, Labels
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import (
    Layout,
    Window,
    raster_size,
    read_tif,
    streamed,
    tiles,
    window_key,
    window_of,
)

_AREAS = {
    "train": """
    L15-0331E-1257N_1327_3160_13 L15-0358E-1220N_1433_3310_13 L15-0457E-1135N_1831_3648_13
    L15-0487E-1246N_1950_3207_13 L15-0577E-1243N_2309_3217_13 L15-0586E-1127N_2345_3680_13
    L15-0595E-1278N_2383_3079_13 L15-0632E-0892N_2528_4620_13 L15-0683E-1006N_2732_4164_13
    L15-0924E-1108N_3699_3757_13 L15-1015E-1062N_4061_3941_13 L15-1138E-1216N_4553_3325_13
    L15-1203E-1203N_4815_3378_13 L15-1204E-1202N_4816_3380_13 L15-1209E-1113N_4838_3737_13
    L15-1210E-1025N_4840_4088_13 L15-1276E-1107N_5105_3761_13 L15-1298E-1322N_5193_2903_13
    L15-1389E-1284N_5557_3054_13 L15-1438E-1134N_5753_3655_13 L15-1439E-1134N_5759_3655_13
    L15-1481E-1119N_5927_3715_13 L15-1538E-1163N_6154_3539_13 L15-1615E-1206N_6460_3366_13
    L15-1669E-1153N_6678_3579_13 L15-1669E-1160N_6679_3549_13 L15-1672E-1207N_6691_3363_13
    L15-1703E-1219N_6813_3313_13 L15-1709E-1112N_6838_3742_13 L15-1716E-1211N_6864_3345_13
    """,
    "validation": """
    L15-0357E-1223N_1429_3296_13 L15-0361E-1300N_1446_2989_13 L15-0368E-1245N_1474_3210_13
    L15-0566E-1185N_2265_3451_13 L15-0614E-0946N_2459_4406_13 L15-0760E-0887N_3041_4643_13
    L15-1014E-1375N_4056_2688_13 L15-1049E-1370N_4196_2710_13 L15-1185E-0935N_4742_4450_13
    L15-1289E-1169N_5156_3514_13 L15-1296E-1198N_5184_3399_13 L15-1615E-1205N_6460_3370_13
    L15-1617E-1207N_6468_3360_13 L15-1669E-1160N_6678_3548_13 L15-1748E-1247N_6993_3202_13
    """,
    "test": """
    L15-0387E-1276N_1549_3087_13 L15-0434E-1218N_1736_3318_13 L15-0506E-1204N_2027_3374_13
    L15-0544E-1228N_2176_3279_13 L15-0977E-1187N_3911_3441_13 L15-1025E-1366N_4102_2726_13
    L15-1172E-1306N_4688_2967_13 L15-1200E-0847N_4802_4803_13 L15-1204E-1204N_4819_3372_13
    L15-1335E-1166N_5342_3524_13 L15-1479E-1101N_5916_3785_13 L15-1690E-1211N_6763_3346_13
    L15-1691E-1211N_6764_3347_13 L15-1848E-0793N_7394_5018_13
    """,
}
AREAS = {split: tuple(text.split()) for split, text in _AREAS.items()}
"""the split by area of Hafner et al. 2023 (doi:10.3390/rs15215135), which PANGAEA uses"""
_BANDS = BandSet.parse("planetscope-4b:red,green,blue@8bit")
_SOURCE = (
    "SpaceNet 7 (Van Etten et al. 2021, arXiv:2102.04420), monthly PlanetScope mosaics of 2017 to 2020, 1024 x 1024 pixels of "
    "4 m, stretched to 8 bit by their publisher"
)
_MAPPING = About("SpaceNet 7", _BANDS, "segmentation", ("background", "building"), "CC-BY-SA-4.0", _SOURCE)
_CHANGE = About("SpaceNet 7 change", _BANDS, "segmentation", ("no change", "change"), "CC-BY-SA-4.0", _SOURCE)

Month = tuple[int, int]
"""year and month"""


@dataclass(frozen=True)
class _Read:
    """A key names area, months and window; two months mean the change between them."""

    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        files = _scene(self.root, name)
        x = np.concatenate([_picture(image, window) for image, _ in files])
        buildings = [_buildings(label, window) for _, label in files]
        y = buildings[0] if len(buildings) == 1 else (buildings[0] != buildings[1]).astype(np.int64)
        return torch.from_numpy(x), torch.from_numpy(y)


def spacenet7(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 256) -> Splits:
    """Buildings in single months: red, green, blue as 8 bit, float32 ``(3, tile, tile)``; labels background, building.

    Months without labels, or with a mask of clouds, are left out, as in PANGAEA. Pixels whose alpha is 0 become NaN.

    Splits are PANGAEA's, by area; areas that ``metadata_train.json`` does not list are missing from them, and the rule says
    how many there are. Two areas (L15-1669E-1160N_6679_3549_13 for training, ..._6678_3548_13 for validation) meet at a corner.

    Args:
        root: holds ``metadata_train.json`` and ``train``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels; mosaics are 1024 or one less.

    Raises:
        DataError: missing files, metadata of another form, an unknown area, pictures and labels of different size, or
            pictures that are not 8 bit with alpha.
        RasterError: a damaged file.
    """
    return _splits(root, LAYOUTS["spacenet7"], _MAPPING, lambda months: [[m] for m in months], seed, limit, tile)


def spacenet7_change(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 256) -> Splits:
    """Buildings that came or went between two months: ``(6, tile, tile)``, red, green, blue of the first, then the second.

    The months are an area's first and its middle one, as PANGAEA evaluates (it never shows the last), in all three
    splits; for training, PANGAEA draws two months at least 5 apart anew each time. Else as `spacenet7`.
    """
    return _splits(root, LAYOUTS["spacenet7-change"], _CHANGE, _first_and_middle, seed, limit, tile)


def _first_and_middle(months: list[Month]) -> list[list[Month]]:
    return [[months[0], months[len(months) // 2]]] if len(months) > 1 else []


def _splits(
    root: Path,
    layout: Layout,
    about: About,
    choose: Callable[[list[Month]], list[list[Month]]],
    seed: int,
    limit: int | None,
    tile: int,
) -> Splits:
    root = layout.folder(root, "metadata_train.json", "train")
    months = _months(root / "metadata_train.json")
    keys: dict[str, list[str]] = {}
    for split in SPLITS:
        keys[split] = []
        for area in AREAS[split]:
            for chosen in choose(months.get(area, [])):
                name = f"{area}|{'|'.join(f'{y}_{m:02d}' for y, m in chosen)}"
                keys[split] += _windows(root, layout, name, tile)
    rule = f"published, by area ({len(months)} of {sum(map(len, AREAS.values()))} areas are there)"
    dates = 2 if about is _CHANGE else 1
    return streamed(about, keys, _Read(root), (tile, tile), rule, limit=limit, seed=seed, dates=dates)


def _months(path: Path) -> dict[str, list[Month]]:
    """Area -> its months that have labels and no clouds, in time."""
    try:
        areas: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8"))
        found = {
            str(area): sorted((int(t["year"]), int(t["month"])) for t in times if t["label"] and not t["mask"])
            for area, times in areas.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise DataError(f"{path}: expected lists of year, month, label and mask by area ({e!r})") from e
    if unknown := sorted(set(found) - {a for areas in AREAS.values() for a in areas}):
        raise DataError(f"{path}: area {unknown[0]!r} is in none of PANGAEA's splits")
    return found


def _scene(root: Path, name: str) -> list[tuple[Path, Path]]:
    """Mosaic and label of each month."""
    area, *months = name.split("|")
    folder = root / "train" / area
    stems = [f"global_monthly_{m}_mosaic_{area}" for m in months]
    return [(folder / "images_masked" / f"{s}.tif", folder / "labels_raster" / f"{s}_Buildings.tif") for s in stems]


def _windows(root: Path, layout: Layout, name: str, side: int) -> list[str]:
    files = [f for pair in _scene(root, name) for f in pair]
    layout.require(files)
    sizes = {f: raster_size(f) for f in files}
    if len(set(sizes.values())) != 1:
        shown = ", ".join(f"{f.name} {h} x {w}" for f, (h, w) in sizes.items())
        raise DataError(f"SpaceNet 7: {shown} pixels; expected the same size")
    return [window_key(name, w) for w in tiles(*sizes[files[0]], side, f"SpaceNet 7, {name}")]


def _picture(path: Path, window: Window) -> Field:
    stored = read_tif(path, 4, window)
    if stored.dtype != np.uint8:
        raise DataError(f"{path}: {stored.dtype} values; expected 8 bit, red, green, blue and alpha")
    values = stored[:3].astype(np.float32)
    values[:, stored[3] == 0] = np.nan
    return values


def _buildings(path: Path, window: Window) -> Labels:
    """1 where the raster is above 0 (PANGAEA's rule)."""
    labels: Labels = (read_tif(path, 1, window)[0] > 0).astype(np.int64)
    return labels
