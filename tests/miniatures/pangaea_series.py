"""Tiny copies of PANGAEA's time series, in the layouts that its loaders read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from miniatures.satellite import digital, patchwork, write_lines, write_tif


def write_pastis(folder: Path, seed: int = 0) -> None:
    """PASTIS-R: a patch in each of the five folds, 128 x 128 as published, 7 optical and 9 radar dates, both orbits."""
    rng = np.random.default_rng(seed)
    features = []
    for fold in range(1, 6):
        patch = 10_000 + fold
        crops = patchwork(rng, range(20), 128, 16)
        day = {"S2": 7, "S1A": 9, "S1D": 8}
        series = {
            "S2": np.stack([digital(rng, 10, 128, 600 + 40 * t) for t in range(day["S2"])]).astype(np.int16),
            "S1A": rng.normal((-11, -17, 6), 1, (day["S1A"], 128, 128, 3)).transpose(0, 3, 1, 2).astype(np.float32),
            "S1D": rng.normal((-11, -17, 6), 1, (day["S1D"], 128, 128, 3)).transpose(0, 3, 1, 2).astype(np.float32),
        }
        target = np.stack([crops, crops, crops]).astype(np.uint8)
        for kind, values in {**series, "TARGET": target}.items():
            place = folder / ("ANNOTATIONS" if kind == "TARGET" else f"DATA_{kind}")
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f"{kind}_{patch}.npy", values)
        dates = {f"dates-{k}": {str(i): 20180917 + i for i in range(n)} for k, n in day.items()}
        corners = [[0, 0], [1, 0], [1, 1], [0, 0]]
        features.append(
            {
                "type": "Feature",
                "properties": {"ID_PATCH": patch, "Fold": fold, "TILE": "t30uxv", **dates},
                "geometry": {"type": "Polygon", "coordinates": [corners]},
            }
        )
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::2154"}}
    text = json.dumps({"type": "FeatureCollection", "crs": crs, "features": features})
    (folder / "metadata.geojson").write_text(text, encoding="utf-8")


def write_south_sudan(folder: Path, seed: int = 0) -> None:
    """Crop types of South Sudan: two chips for training and one for each other split, 64 x 64, series of different length."""
    rng = np.random.default_rng(seed)
    rows = ["id,partition"]
    for number, partition, length in ((3, 0, 8), (17, 0, 4), (20, 1, 7), (101, 2, 9)):
        crops = patchwork(rng, (0, 0, 1, 2, 3, 4, 5, 9), 64, 8)
        s2 = np.stack([digital(rng, 10, 64, 900 + 50 * t) for t in range(length)], axis=-1)
        s1 = rng.normal((-9, -15, 6), 1, (64, 64, length + 2, 3)).transpose(3, 0, 1, 2).astype(np.float32)
        for kind, arrays in {"npy": {"s1": s1, "s2": s2.astype(np.float32)}, "truth": {"truth": crops}}.items():
            place = folder / "southsudan" / kind
            place.mkdir(parents=True, exist_ok=True)
            np.savez(place / f"southsudan_{number:06d}.npz", **arrays)
        rows.append(f"{number},{partition}")
    write_lines(folder / "southsudan" / "list_eval_partition.csv", rows)


def write_dynamic_earth_net(folder: Path, seed: int = 0) -> None:
    """DynamicEarthNet: one area a split, two months for training, 64 x 64 pixels, really 1024; seven layers of labels."""
    rng = np.random.default_rng(seed)
    areas = {"train": ("1311_3077_13_10N", "7367_5050_13"), "val": ("2029_3764_13_15N", "8077_5007_13"),
             "test": ("4421_3800_13_39N", "6204_3495_13")}  # fmt: skip
    for split, (area, place) in areas.items():
        lines = []
        for month in ("2018-01", "2018-02")[: 2 if split == "train" else 1]:
            cover = patchwork(rng, range(7), 64, 8)
            layers = np.stack([255 * (cover == c) for c in range(7)]).astype(np.uint8)
            label = f"labels/{area}/Labels/Raster/{place}/{place}-{month.replace('-', '_')}_01.tif"
            write_tif(folder / label, layers)
            for day in ("01", "05", "10", "15", "20", "25"):
                picture = folder / "planet" / place / "PF-SR" / f"{month}-{day}.tif"
                write_tif(picture, digital(rng, 4, 64, 500 + 20 * int(day)).astype(np.int16))
            lines.append(f"/reprocess-cropped/UTM-24000/{place}/PF-SR /{label} {month}")
        write_lines(folder / "dynnet_training_splits" / f"{split}.txt", lines)


def write_biomassters(folder: Path, seed: int = 0) -> None:
    """BioMassters: two chips for training and one for each other split, 64 x 64 pixels, really 256; two optical months miss."""
    rng = np.random.default_rng(seed)
    lists = {"train": ("001b0634", "0022989a"), "val": ("00a1d3f5",), "test": ("ffb9ed24",)}
    table = ["filename,chip_id,satellite,split,month,corresponding_agbm"]
    for name, chips in lists.items():
        part = "test" if name == "test" else "train"
        for chip in chips:
            mass = 40.0 * patchwork(rng, (0, 1, 2, 3), 64, 8)
            write_tif(folder / f"{part}_agbm" / f"{chip}_agbm.tif", mass[None].astype(np.float32))
            for month in range(12):
                s1 = np.stack([rng.normal(m, 1, (64, 64)) for m in (-9, -16, -10, -17)]).astype(np.float32)
                s1[2:, 0, 0] = -9999
                names = {f"{chip}_S1_{month:02d}.tif": s1}
                if month not in (3, 4):
                    cloud = np.full((1, 64, 64), 7, np.uint16)
                    names[f"{chip}_S2_{month:02d}.tif"] = np.concatenate(
                        [digital(rng, 10, 64, 300 + 30 * month), cloud]
                    )
                for file, values in names.items():
                    write_tif(folder / f"{part}_features" / file, values)
                    table.append(f"{file},{chip},{file.split('_')[1]},{part},month {month},{chip}_agbm.tif")
        write_lines(folder / f"{name}_Data_list.csv", ["chip_id", *chips])
    write_lines(folder / "biomassters_features_metadata.csv", table)
