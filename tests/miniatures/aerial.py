"""Miniatures of aerial and very-high-resolution data sets in their own layouts: names, folders, types, encodings."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin

from eosfm.data.published.aerial_cities import POTSDAM_COLOURS, POTSDAM_TEST, POTSDAM_TRAIN
from eosfm.data.published.aerial_pictures import DEEPGLOBE_COLOURS, FIRERISK

SIDE = 96


def picture(rng: np.random.Generator, side: int = SIDE, channels: int = 3) -> NDArray[np.uint8]:
    """``(side, side, channels)`` of plausible brightness; channel ``i`` is about ``60 + 20 * i``."""
    base = 60 + 20 * np.arange(channels)
    return (base + rng.normal(0, 6, (side, side, channels))).clip(0, 255).astype(np.uint8)


def patches(rng: np.random.Generator, values: list[int], side: int = SIDE) -> NDArray[np.uint8]:
    """A label map of blocks of 16 pixels in which every one of ``values`` occurs."""
    n = side // 16
    drawn = rng.permutation(np.resize(values, n * n)).reshape(n, n)
    return np.kron(drawn, np.ones((16, 16))).astype(np.uint8)


def png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def tif(
    path: Path,
    pixels: NDArray[np.generic],
    *,
    nodata: float | None = None,
    left: float = 0,
    top: float = 0,
    gsd: float = 0.5,
) -> None:
    """A GeoTIFF of ``(h, w)`` or ``(h, w, c)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2], dtype=bands.dtype,
        crs="EPSG:2154", transform=from_origin(left, top, gsd, gsd), nodata=nodata,
    ) as f:  # fmt: skip
        f.write(bands)


def coloured(classes: NDArray[np.uint8], table: dict[tuple[int, int, int], int]) -> NDArray[np.uint8]:
    """Class numbers as the colours of ``table``."""
    colours = {c: rgb for rgb, c in table.items()}
    return np.array([[colours[int(c)] for c in row] for row in classes], np.uint8)


def write_deepglobe(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for part, ids in (("training", range(100, 108)), ("test", range(200, 203))):
        for i in ids:
            at = folder / "data" / f"{part}_data"
            (at / "images").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(rng)).save(at / "images" / f"{i}_sat.jpg", quality=95)
            png(at / "masks" / f"{i}_mask.png", coloured(patches(rng, [0, 1, 2, 3, 4, 5, 255]), DEEPGLOBE_COLOURS))


def write_loveda(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for part, kind, numbers in (
        ("Train", "Rural", range(4)), ("Train", "Urban", range(1366, 1370)), ("Val", "Rural", range(2522, 2524)),
        ("Val", "Urban", range(3514, 3516)),
    ):  # fmt: skip
        for n in numbers:
            png(folder / part / kind / "images_png" / f"{n}.png", picture(rng))
            png(folder / part / kind / "masks_png" / f"{n}.png", patches(rng, list(range(8))))


def write_levircd_plus(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for part, n in (("train", 8), ("test", 2)):
        for i in range(1, n + 1):
            at, change = folder / "LEVIR-CD+" / part, patches(rng, [0, 0, 0, 255])
            for date in "AB":
                look = picture(rng)
                look[(change > 0) & (date == "B")] = 220
                png(at / date / f"{part}_{i}.png", look)
            png(at / "label" / f"{part}_{i}.png", change)


FIRERISK_CODES = {c: i + 1 for i, c in enumerate(
    ("Very_Low", "Low", "Moderate", "High", "Very_High", "Non-burnable", "Water"))}  # fmt: skip


def write_firerisk(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for part, n in (("train", 3), ("val", 1)):
        for c in FIRERISK:
            for i in range(n):
                number, code = 27032281 + 110 * i, FIRERISK_CODES[c]
                name = f"{number}_{code}_{-103.430441201095 + 2 * i}_{44.2804260315038 + code / 100}.png"
                png(folder / "FireRisk" / part / c / name, picture(rng, 64))


def write_inria(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for city in ("austin", "chicago", "kitsap", "tyrol-w", "vienna"):
        for number in (1, 6, 9, 36):
            at = folder / "AerialImageDataset" / "train"
            tif(at / "images" / f"{city}{number}.tif", picture(rng))
            tif(at / "gt" / f"{city}{number}.tif", patches(rng, [0, 0, 255]))


def write_potsdam(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name in (*POTSDAM_TRAIN, *POTSDAM_TEST):
        tif(folder / "4_Ortho_RGBIR" / f"top_potsdam_{name}_RGBIR.tif", picture(rng, 64, 4), gsd=0.05)
        tif(
            folder / f"top_potsdam_{name}_label.tif",
            coloured(patches(rng, list(range(6)), 64), POTSDAM_COLOURS),
            gsd=0.05,
        )


def write_minifrance(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for region, east, north, n in (("Nantes_Saint-Nazaire", 350, 6690, 6), ("Nice", 1015, 6305, 2)):
        for i in range(n):
            stem = f"06-2014-{east + 6 * i:04d}-{north:04d}-LA93-0M50-E080"
            at = folder / "labeled_train" / region
            tif(at / "BDORTHO" / f"{stem}.tif", picture(rng), left=1000.0 * (east + 6 * i), top=1000.0 * north)
            tif(
                at / "UrbanAtlas" / f"{stem}_UA2012.tif",
                patches(rng, list(range(16))),
                left=1000.0 * (east + 6 * i),
                top=1000.0 * north,
            )


def write_landcoverai(folder: Path, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for i in range(8):
        tif(folder / "images" / f"M-33-{i}-A-d-2-3.tif", picture(rng), gsd=0.25)
        tif(folder / "masks" / f"M-33-{i}-A-d-2-3.tif", patches(rng, list(range(5))), gsd=0.25)


def write_opencanopy(folder: Path, seed: int = 0) -> None:
    """Heights in decimetres, cropped on a grid of their own (1.9 and 3.1 m off the picture's), as published."""
    rng = np.random.default_rng(seed)
    features = []
    for year, name in (
        (2021, "compressed_pansharpened_20210611a.tif"),
        (2022, "compressed_pansharpened_20220702b.tif"),
    ):
        left, top, side = 700000.0, 6600000.0, 200
        at = folder / "canopy_height" / str(year)
        spot = np.zeros((side, side, 4), np.uint8)  # 0: the edge of the picture
        spot[2:, 2:] = picture(rng, side - 2, 4)
        tif(at / "spot" / name, spot, left=left, top=top, gsd=1.5)
        height = rng.gamma(2.0, 50.0, (side, side)).astype(np.uint16)
        tif(
            at / "lidar" / f"compressed_lidar_{name.split('_')[-1]}", height, left=left + 1.9, top=top - 3.1, gsd=1.5,
        )  # fmt: skip
        for row, split in enumerate(("train", "val", "test", "buffer")):
            x0, y1 = left + 6, top - 6 - 64 * 1.5 * min(row, 2)
            x1, y0 = x0 + 192 * 1.5, y1 - 64 * 1.5
            ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
            features.append({"type": "Feature",
                             "properties": {"lidar_year": year, "image_name": name, "split": split},
                             "geometry": {"type": "Polygon", "coordinates": [ring]}})  # fmt: skip
    (folder / "canopy_height" / "geometries.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )


MINIATURES: dict[str, Callable[[Path], None]] = {
    "deepglobe-lcc": write_deepglobe,
    "loveda": write_loveda,
    "levircd+": write_levircd_plus,
    "firerisk": write_firerisk,
    "inria": write_inria,
    "potsdam": write_potsdam,
    "minifrance": write_minifrance,
    "landcoverai": write_landcoverai,
    "opencanopy": write_opencanopy,
}
