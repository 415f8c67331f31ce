"""Tiny copies of PANGAEA's data sets of one or two dates, in the layouts that its loaders read. `WRITERS` lists them all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from eosfm.data.published.spacenet7 import AREAS
from miniatures import pangaea_series
from miniatures.satellite import digital, patchwork, write_lines, write_png, write_tif

SIDE = 64
BURNS = {
    "training": ("T10SDH.2020248", "T10SEH.2019300", "T11SKA.2018210", "T13TBE.2020100"),
    "validation": ("T10SGJ.2020214", "T12SVE.2021190"),
}
MADOS_NM = {60: (443,), 10: (492, 560, 665, 833), 20: (704, 740, 783, 865, 1614, 2202)}
"""Sentinel-2A's wavelengths"""
SN7 = {split: names[:1] for split, names in AREAS.items()}


def write_placed(path: Path, values: NDArray[np.generic], east: float, names: tuple[str, ...] = ()) -> None:
    """A GeoTIFF ``(c, h, w)`` at 30 m whose left edge is ``east`` metres from the others' origin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", height=values.shape[1], width=values.shape[2], count=len(values), dtype=values.dtype,
            crs="EPSG:32610", transform=from_origin(400_000.0 + east, 4_000_000.0, 30.0, 30.0), interleave="pixel",
        ) as file:  # fmt: skip
            file.write(values)
            if names:
                file.descriptions = names


def write_burn_scars(folder: Path, seed: int = 0) -> None:
    """HLS Burn Scars: four training chips on four MGRS tiles and two of validation, really 512 x 512."""
    rng = np.random.default_rng(seed)
    for i, (part, name) in enumerate((p, n) for p, names in BURNS.items() for n in names):
        burned = patchwork(rng, (0, 0, 1), SIDE, 16).astype(np.int16)
        base = np.array([0.04, 0.06, 0.07, 0.25, 0.2, 0.12])[:, None, None]
        x = (base + rng.normal(0, 0.01, (6, SIDE, SIDE))).astype(np.float32)
        x[3] -= 0.15 * burned
        x[:, 0, 0], burned[0, 0] = 9999, -1
        stem = folder / part / f"subsetted_512x512_HLS.S30.{name}.v1.4"
        write_placed(stem.with_name(stem.name + "_merged.tif"), x, 100_000.0 * i)
        write_placed(stem.with_name(stem.name + ".mask.tif"), burned[None], 100_000.0 * i)


def write_sen1floods11(folder: Path, seed: int = 0) -> None:
    """Sen1Floods11: two chips in training and one in each other list, really 512 x 512, bands with descriptions."""
    rng = np.random.default_rng(seed)
    data = folder / "v1.1" / "data" / "flood_events" / "HandLabeled"
    optical = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
    lists = {"train": ("Ghana_1", "India_2"), "valid": ("Ghana_3",), "test": ("Spain_4",)}
    for i, chip in enumerate(c for chips in lists.values() for c in chips):
        water = patchwork(rng, (0, 0, 1), SIDE, 16).astype(np.int16)
        radar = np.stack([rng.normal(m, 1, (SIDE, SIDE)) - 6 * water for m in (-10, -17)]).astype(np.float32)
        label = water.copy()
        label[:4] = -1
        radar[:, 0, 0] = np.nan
        write_placed(data / "S1Hand" / f"{chip}_S1Hand.tif", radar, 50_000.0 * i, ("VV", "VH"))
        write_placed(
            data / "S2Hand" / f"{chip}_S2Hand.tif", digital(rng, 13, SIDE).astype(np.int16), 50_000.0 * i, optical
        )
        write_placed(data / "LabelHand" / f"{chip}_LabelHand.tif", label[None], 50_000.0 * i)
    for part, chips in lists.items():
        lines = [f"{c}_S1Hand.tif,{c}_LabelHand.tif" for c in chips]
        write_lines(folder / "v1.1" / "splits" / "flood_handlabeled" / f"flood_{part}_data.csv", lines)


def write_mados(folder: Path, seed: int = 0) -> None:
    """MADOS: two scenes, three crops each, one file a band in 240, 120 and 40 pixels as published."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for scene in ("Scene_0", "Scene_7"):
        for crop, part in enumerate(parts, start=1):
            label = patchwork(rng, range(16), 240, 20)
            for metres, wavelengths in MADOS_NM.items():
                side = 2400 // metres
                for nm in wavelengths:
                    values = rng.normal(0.05, 0.01, (1, side, side)).astype(np.float32)
                    write_tif(folder / scene / str(metres) / f"{scene}_L2R_rhorc_{nm}_{crop}.tif", values, placed=False)
            write_tif(folder / scene / "10" / f"{scene}_L2R_cl_{crop}.tif", label[None], placed=False)
            parts[part].append(f"{scene}_{crop}")
    for part, names in parts.items():
        write_lines(folder / "splits" / f"{part}_X.txt", names)


def write_small_farms(folder: Path, seed: int = 0) -> None:
    """AI4SmallFarms: two tiles of 80 x 72 pixels for training and one for each other split, really about 500."""
    rng = np.random.default_rng(seed)
    tiles = {"train": ("0_vietnam", "12_cambodia"), "validate": ("3_vietnam",), "test": ("40_cambodia",)}
    for part, names in tiles.items():
        for name in names:
            mark = 255 * patchwork(rng, (0, 0, 0, 1), 80, 8)[:, :72]
            pixels = digital(rng, 4, 80)[:, :, :72] + np.uint16(2) * mark
            write_tif(folder / "sentinel-2-asia" / part / "images" / f"{name}.tif", pixels)
            write_tif(folder / "sentinel-2-asia" / part / "masks" / f"{name}.tif", mark[None])


def write_spacenet7(folder: Path, seed: int = 0) -> None:
    """SpaceNet 7: one area in each split, four months (one masked, one without labels), 64 x 63 pixels, really 1024 x 1023."""
    rng = np.random.default_rng(seed)
    metadata = {}
    for area in (a for areas in SN7.values() for a in areas):
        metadata[area] = [
            {"aoi_id": area, "year": 2018, "month": m, "mask": m == 3, "label": m != 2} for m in (1, 2, 3, 4, 5)
        ]
        for month in (1, 4, 5):
            buildings = 255 * patchwork(rng, (0, 0, 0, 1), SIDE, 8)[:, :63]
            pixels = rng.integers(30, 120, (3, SIDE, 63)) + buildings // 3
            alpha = np.full((1, SIDE, 63), 255)
            alpha[0, 0, 0] = 0
            stem = f"global_monthly_2018_{month:02d}_mosaic_{area}"
            place = folder / "train" / area
            write_tif(place / "images_masked" / f"{stem}.tif", np.concatenate([pixels, alpha]).astype(np.uint8))
            write_tif(place / "labels_raster" / f"{stem}_Buildings.tif", buildings[None])
    (folder / "metadata_train.json").write_text(json.dumps(metadata), encoding="utf-8")


def write_fivebillion(folder: Path, seed: int = 0) -> None:
    """Five-Billion-Pixels: tiles of four scenes, 72 x 64 pixels, really 520; labels named as the scenes' are."""
    rng = np.random.default_rng(seed)
    scenes = {"train": (1, 2), "val": (3,), "test": (4,)}
    for part, numbers in scenes.items():
        for n in numbers:
            for tile in (0, 1):
                stem = f"GF2_PMS1__L1A000056453{n}-MSS1_{tile}"
                label = patchwork(rng, range(25), 80, 8)[:72, :64]
                pixels = (rng.integers(40, 80, (4, 72, 64)) + 5 * label).astype(np.uint8)
                write_tif(folder / part / "imgs" / f"{stem}.tif", pixels, placed=False)
                write_tif(folder / part / "labels" / f"{stem}_24label.tif", label[None], placed=False)


def write_xview2(folder: Path, seed: int = 0) -> None:
    """xView2: three disasters in training and tier 3, one of them in the test set, 64 x 64 pixels, really 1024."""
    rng = np.random.default_rng(seed)
    chips = {"train": ("guatemala-volcano_00000001", "socal-fire_00000002"), "tier3": ("joplin-tornado_00000003",),
             "test": ("socal-fire_00000009",)}  # fmt: skip
    for part, stems in chips.items():
        for stem in stems:
            damage = patchwork(rng, (0, 0, 0, 1, 2, 3, 4), SIDE, 8)
            for when in ("pre", "post"):
                picture = rng.integers(40, 90, (SIDE, SIDE, 3)) + (30 * damage[..., None] if when == "post" else 0)
                path = folder / part / "images" / f"{stem}_{when}_disaster.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture.astype(np.uint8)).save(path)
                label = damage if when == "post" else (damage > 0).astype(np.uint8)
                write_png(folder / part / "targets" / f"{stem}_{when}_disaster_target.png", label)


WRITERS: dict[str, Callable[[Path], None]] = {
    "hls-burn-scars": write_burn_scars,
    "sen1floods11-hand": write_sen1floods11,
    "mados": write_mados,
    "ai4smallfarms": write_small_farms,
    "pastis": pangaea_series.write_pastis,
    "croptype-southsudan": pangaea_series.write_south_sudan,
    "dynamicearthnet": pangaea_series.write_dynamic_earth_net,
    "spacenet7": write_spacenet7,
    "spacenet7-change": write_spacenet7,
    "fivebillionpixels": write_fivebillion,
    "xview2": write_xview2,
    "biomassters": pangaea_series.write_biomassters,
}
"""data set name -> writer of its miniature"""
