"""Tiny copies of published satellite data sets, in their exact layouts: names, folders, types, encodings, split files.

`MINIATURES` maps a recipe's name to the function that writes its data set. Pixels are random but plausible; chips of one
class are brighter than those of another, so that something can be learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import from_origin

from eosfm.data.real_chips import EUROSAT_CLASSES

EUROSAT_TIF = Path("ds/images/remote_sensing/otherDatasets/sentinel_2/tif")


def write_tif(path: Path, values: NDArray[np.generic], nodata: float | None = None) -> None:
    """A plain GeoTIFF ``(c, h, w)`` without band names, as the published files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=count, dtype=values.dtype, nodata=nodata,
        crs="EPSG:32632", transform=from_origin(500_000.0, 5_400_000.0, 10.0, 10.0), interleave="pixel",
    ) as file:  # fmt: skip
        file.write(values)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """A text file of ``lines``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def digital(rng: np.random.Generator, bands: int, side: int, level: int = 1000) -> NDArray[np.uint16]:
    """Sentinel-2 digital numbers ``(bands, side, side)`` about ``level``, another level for each band."""
    values = rng.normal(level, 150, (bands, side, side)) + 100 * np.arange(bands)[:, None, None]
    return values.clip(1, 10_000).astype(np.uint16)


def patchwork(rng: np.random.Generator, values: Sequence[int], side: int, cell: int = 32) -> NDArray[np.uint8]:
    """Labels ``(side, side)``: squares of ``cell`` pixels, each of one of ``values``; all of them occur."""
    n = -(-side // cell)
    coarse = rng.permutation(np.resize(np.array(values, np.uint8), n * n)).reshape(n, n)
    return np.kron(coarse, np.ones((cell, cell), np.uint8))[:side, :side]


def write_eurosat_s2(folder: Path, seed: int = 0) -> None:
    """EuroSAT, 13 bands: six classes in training, 64 x 64 pixels, uint16, and TorchGeo's two sets of lists."""
    rng = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for c, name in enumerate(EUROSAT_CLASSES):
        for n, split in enumerate(("train", "val", "test"), start=1):
            if split == "train" or c % 3 == 0:
                write_tif(folder / EUROSAT_TIF / name / f"{name}_{n}.tif", digital(rng, 13, 64, 600 + 200 * c))
                lists[split].append(f"{name}_{n}.jpg")
    for split, names in lists.items():
        write_lines(folder / f"eurosat-{split}.txt", names)
        write_lines(folder / f"eurosat-spatial-{split}.txt", names)


def write_sen12ms(folder: Path, seed: int = 0) -> None:
    """SEN12MS: three training scenes and one hold-out scene of two patches, 256 x 256; radar dB, DN and IGBP layers."""
    rng = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {"train": [], "test": []}
    scenes = [("ROIs1158_spring", 1, "train"), ("ROIs1868_summer", 1, "train"), ("ROIs1970_fall", 30, "train"),
              ("ROIs2017_winter", 146, "test")]  # fmt: skip
    for season, scene, split in scenes:
        for patch in ("p30", "p31"):
            igbp = patchwork(rng, (0, 1, 7, 9, 10, 12, 13, 14, 16, 17), 256)
            cover = np.stack([igbp, igbp, igbp, igbp]).astype(np.uint16)
            radar = np.stack([rng.normal(-11, 1, (256, 256)), rng.normal(-18, 1, (256, 256))]) - (igbp == 17) * 6
            optical = digital(rng, 13, 256) + 80 * igbp.astype(np.uint16)
            layers = {"s1": radar.astype(np.float32), "s2": optical, "lc": cover}
            for source, values in layers.items():
                write_tif(folder / season / f"{source}_{scene}" / f"{season}_{source}_{scene}_{patch}.tif", values)
            lists[split].append(f"{season}_s2_{scene}_{patch}.tif")
    for split, names in lists.items():
        write_lines(folder / f"{split}_list.txt", names)


MINIATURES: dict[str, Callable[[Path], None]] = {
    "eurosat-s2": write_eurosat_s2,
    "sen12ms-s1": write_sen12ms,
    "sen12ms-s2": write_sen12ms,
    "sen12ms-rgb": write_sen12ms,
    "sen12ms-all": write_sen12ms,
}
