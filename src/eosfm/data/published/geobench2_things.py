"""GEO-Bench-2's labels of single things: boxes in GeoParquet, boxes and polygons as JSON in HDF5, maps of instances.

What differs from the package `geobenchv2` 0.9:

* boxes are cut at the picture's edge, and those that then have no area are left out: torchvision would learn nothing of them
* a thing of several polygons has the pixels of all of them (the package reads the first); where two things overlap, the later
  has the pixels, and boxes of instances are drawn around what is left (the package takes the annotated box)
* pastis_r: fields of void and background are left out (the package finds them as classes 19 and 0); a field's class is that of
  most of its pixels (the package: the least); its box ends behind its last pixel (the package: at it)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.contracts import DataError, missing_extra
from eosfm.data.published.parquet_tables import read_rows_of

MOST = 10_000
"""things in one picture"""


@dataclass(frozen=True)
class Things:
    """Where a sample's things are written down."""

    form: Literal["boxes in parquet", "boxes in json", "polygons in json", "maps"]
    item: str = "annotations"
    key: str = ""
    """of the list in the JSON"""
    unnamed: str = ""
    """class of a box whose label is empty"""
    first: int = 1
    """number of the first class, as stored"""


def boxes_of_rows(data: bytes, things: Things, classes: Sequence[str], size: tuple[int, int], where: str) -> Tensor:
    """``(m, 5)`` from a table with the columns label, xmin, ymin, xmax, ymax."""
    out = []
    for row in read_rows_of(data, where):
        if missing := {"label", "xmin", "ymin", "xmax", "ymax"} - set(row):
            raise DataError(f"{where}: no column {', '.join(sorted(missing))}; found {', '.join(row)}")
        label = things.unnamed if row["label"] is None else row["label"]
        if label not in classes:
            raise DataError(f"{where}: a box is {label!r}; expected one of {', '.join(classes)}")
        corners = [row[k] for k in ("xmin", "ymin", "xmax", "ymax")]
        out.append([float(classes.index(label)), *_cut(corners, size, where)])
    return _held(out, where)


def boxes_of_json(text: str, things: Things, classes: Sequence[str], size: tuple[int, int], where: str) -> Tensor:
    """``(m, 5)`` from COCO's ``bbox`` (x, y, width, height)."""
    out = []
    for one in _listed(text, things.key, where):
        x, y, w, h = _numbers(one.get("bbox"), where, 4)
        out.append([float(_class(one, things, classes, where)), *_cut([x, y, x + w, y + h], size, where)])
    return _held(out, where)


def instances_of_json(text: str, things: Things, classes: Sequence[str], size: tuple[int, int], where: str) -> Tensor:
    """``(2, h, w)`` from COCO's polygons under ``mask``."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as e:
        raise missing_extra("pillow", "report") from e
    out = np.zeros((2, *size), np.int64)
    for number, one in enumerate(_listed(text, things.key, where), 1):
        polygons = one.get("mask")
        if not isinstance(polygons, list) or not polygons:
            raise DataError(f"{where}: a thing without polygons; found {', '.join(map(str, one))}")
        layer = Image.new("L", (size[1], size[0]), 0)
        for polygon in polygons:
            corners = _numbers(polygon, where)
            if len(corners) < 6 or len(corners) % 2:
                raise DataError(
                    f"{where}: a polygon of {len(corners)} numbers; expected x and y of three corners or more"
                )
            ImageDraw.Draw(layer).polygon(list(zip(corners[::2], corners[1::2], strict=True)), fill=1)
        inside = np.asarray(layer) > 0
        out[0, inside], out[1, inside] = number, _class(one, things, classes, where)
    return torch.from_numpy(out)


def instances_of_maps(
    number: NDArray[Any], crop: NDArray[Any], classes: Mapping[int, int], where: str
) -> Tensor:  # fmt: skip
    """``(2, h, w)`` from a map of numbers and one of classes; things whose class ``classes`` lacks are left out."""
    if number.shape != crop.shape or number.dtype.kind not in "ui" or crop.dtype.kind not in "ui":
        raise DataError(f"{where}: instances {number.shape} and classes {crop.shape}; expected integers of one shape")
    out = np.zeros((2, *number.shape), np.int64)
    for n, one in enumerate(np.unique(number[number != 0]), 1):
        inside = number == one
        values, counts = np.unique(crop[inside], return_counts=True)
        c = classes.get(int(values[counts.argmax()]))
        if c is not None:
            out[0, inside], out[1, inside] = n, c
    return torch.from_numpy(out)


def _cut(corners: Sequence[Any], size: tuple[int, int], where: str) -> list[float]:
    x1, y1, x2, y2 = _numbers(list(corners), where, 4)
    h, w = size
    return [min(max(x1, 0.0), w), min(max(y1, 0.0), h), max(min(x2, w), 0.0), max(min(y2, h), 0.0)]


def _held(rows: list[list[float]], where: str) -> Tensor:
    if len(rows) > MOST:
        raise DataError(f"{where}: {len(rows)} things in one picture; at most {MOST} are read")
    kept = [r for r in rows if r[3] > r[1] and r[4] > r[2]]
    return torch.tensor(kept, dtype=torch.float32).reshape(-1, 5)


def _listed(text: str, key: str, where: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
        listed = found[key]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DataError(f"{where}: no list {key!r} in its JSON ({type(e).__name__}: {e})") from None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed) or len(listed) > MOST:
        raise DataError(f"{where}: {key} is no list of at most {MOST} things")
    return listed


def _numbers(values: Any, where: str, count: int | None = None) -> list[float]:
    good = isinstance(values, list) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    if not good or len(values) not in (count, len(values) if count is None else count):
        raise DataError(f"{where}: {str(values)[:80]}; expected {count or 'a list of'} finite numbers")
    return [float(v) for v in values]


def _class(one: Mapping[str, Any], things: Things, classes: Sequence[str], where: str) -> int:
    number = one.get("category_id")
    if type(number) is not int or not things.first <= number < things.first + len(classes):
        last = things.first + len(classes) - 1
        raise DataError(f"{where}: category_id is {number!r}; expected {things.first} to {last}: {', '.join(classes)}")
    return number - things.first
