"""Tiny copies of GEO-Bench-2's detection data sets, as the scripts of `geobenchv2` 0.9 write them.

Everywhere the things are squares that are brighter than the ground, one level a class: a detector can learn them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miniatures.geobench2 import PLACE, SPLITS, pastis, write
from miniatures.satellite import digital
from miniatures.tortillas import hdf5_text_bytes, pack, parquet_bytes, rectangle, tif_bytes, write_bytes

SIDE = 64
BIRDS = ("White Ibis", "Great Egret", "Unknown White")
Square = tuple[int, int, int, int, int]
"""class, left, top, width, height"""


def squares(rng: np.random.Generator, classes: int, count: int) -> list[Square]:
    """One in each of ``count`` quarters of the picture, so that none touches another."""
    out = []
    for quarter in range(count):
        w, h = rng.integers(9, 20, 2).tolist()
        x, y = rng.integers(2, 32 - max(w, h) - 1, 2).tolist()
        out.append((int(rng.integers(classes)), 32 * (quarter % 2) + x, 32 * (quarter // 2) + y, w, h))
    return out


def painted(ground: NDArray[Any], found: list[Square], step: float) -> NDArray[Any]:
    """``ground`` ``(c, h, w)`` with the squares on it, as much brighter as their class says."""
    out = ground.astype(np.float64)
    for c, x, y, w, h in found:
        out[:, y : y + h, x : x + w] += step * (c + 1)
    return out.astype(ground.dtype)


def coco(found: list[Square], key: str, *, masks: bool) -> str:
    """The annotation's JSON."""
    listed: list[dict[str, Any]] = []
    for c, x, y, w, h in found:
        one: dict[str, Any] = {"category_id": c + 1, "bbox": [x, y, w, h], "bbox_mode": "xywh"}
        if masks:
            one["mask"] = [[x, y, x + w - 1, y, x + w - 1, y + h - 1, x, y + h - 1]]  # PIL fills its corners too
        listed.append(one)
    return json.dumps({key: listed, "image_size": [SIDE, SIDE]})


def boxed(
    folder: Path, name: str, picture: Callable[[np.random.Generator, list[Square]], NDArray[Any]], classes: int,
    annotation: Callable[[list[Square]], tuple[str, bytes]], seed: int = 0, splits: tuple[str, ...] = SPLITS,
) -> dict[str, list[Square]]:  # fmt: skip
    """Write the samples; what they hold is returned."""
    rng = np.random.default_rng(seed)
    outer, facts, held = {}, {}, {}
    for i, split in enumerate(splits):
        found = squares(rng, classes, 1 + i % 4)
        common = {"tortilla:data_split": split, "add_test_split": False, **PLACE}
        inside = {"image": ("GTiff", tif_bytes(picture(rng, found))), "annotations": annotation(found)}
        outer[f"sample_{i}"] = ("TORTILLA", pack(inside, **common))
        facts[f"sample_{i}"], held[f"sample_{i}"] = common, found
    write_bytes(folder / f"geobench_{name}.tortilla", pack(outer, facts))
    return held


def _grey(rng: np.random.Generator, found: list[Square]) -> NDArray[Any]:
    ground = rng.normal(60, 4, (3, SIDE, SIDE)).clip(1, 255).astype(np.uint8)
    return painted(ground, found, 50)


def _bright(rng: np.random.Generator, found: list[Square]) -> NDArray[Any]:
    return painted(digital(rng, 13, SIDE).astype(np.int16), found, 1500)


def _parquet(found: list[Square]) -> tuple[str, bytes]:
    rows = [
        {"geotiff_path": "x.tif", "label": BIRDS[c], "xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h, "split": "train",
         "class_id": c, "geometry": rectangle(x, y, x + w, y + h)}
        for c, x, y, w, h in found
    ]  # fmt: skip
    column = {"encoding": "WKB", "geometry_types": ["Polygon"]}
    geo = {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}
    return "GeoParquet", parquet_bytes(rows, {b"geo": json.dumps(geo).encode()})


def _json(key: str, *, masks: bool) -> Callable[[list[Square]], tuple[str, bytes]]:
    return lambda found: ("HDF5", hdf5_text_bytes(coco(found, key, masks=masks)))


def _pastis(rng: np.random.Generator, i: int) -> Any:
    """PASTIS with fields of one crop each: a void one among them, and ground between them."""
    layers, own, columns = pastis(rng, i)
    number, crop = np.zeros((2, 32, 32), np.int32)
    for n, (x, y) in enumerate([(0, 0), (16, 0), (0, 16), (16, 16)], 1):
        number[y + 1 : y + 14, x + 1 : x + 12], crop[y + 1 : y + 14, x + 1 : x + 12] = 100 + n, (n + i) % 19 or 19
    layers["semantic"], layers["instance"] = np.repeat(crop[None], 3, 0).astype(np.uint8), number
    return layers, own, columns


WRITERS: dict[str, Callable[..., Any]] = {
    "everwatch": partial(boxed, name="everwatch", picture=_grey, classes=3, annotation=_parquet),
    "nzcattle": partial(boxed, name="nzcattle", picture=_grey, classes=1, annotation=_json("boxes", masks=False)),
    "pastis_r": partial(write, name="pastis", samples=_pastis, parts=3),
    "substation": partial(
        boxed, name="substation", picture=_bright, classes=1, annotation=_json("sample_annotations", masks=True)
    ),
}
"""GEO-Bench-2's name -> function that writes its files into a folder"""
