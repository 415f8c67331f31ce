"""GEO-Bench-2's detection data sets from their files: boxes and instances by value; and what a stranger may write into them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from eosfm.contracts import DataError
from eosfm.data.catalogue import open_dataset
from eosfm.data.published.geobench2_tables import SHEETS
from eosfm.data.published.geobench2_things import (
    Things,
    boxes_of_json,
    boxes_of_rows,
    instances_of_json,
    instances_of_maps,
)
from eosfm.tasks.boxes import NONE, things
from miniatures.geobench2_things import SIDE, WRITERS
from miniatures.tortillas import hdf5_text_bytes, pack, parquet_bytes, tif_bytes

JSON = Things("boxes in json", key="boxes")
POLYGONS = Things("polygons in json", key="boxes")


@pytest.mark.parametrize("name", ["everwatch", "nzcattle", "substation"])
def test_every_thing_is_where_it_was_written(name, tmp_path):
    held = WRITERS[name](tmp_path)
    splits = open_dataset(f"geobench2-{name}", tmp_path)
    assert splits.train.kind == ("instances" if name == "substation" else "detection")
    for part in (splits.train, splits.validation, splits.test):
        for i, key in enumerate(part.ids):
            _, y = part.chip(i)
            boxes, classes, masks = things(y)
            wanted = {(x, top, x + w, top + h, c) for c, x, top, w, h in held[key]}
            found = {(*map(int, b), int(c)) for b, c in zip(boxes.tolist(), classes.tolist(), strict=True)}
            if name == "everwatch":
                names = [splits.train.classes[c] for *_, c in sorted(found)]
                assert names == [("White Ibis", "Great Egret", "Unknown White")[c] for *_, c in sorted(wanted)]
                found, wanted = {f[:4] for f in found}, {w[:4] for w in wanted}
            assert found == wanted
            if masks is not None:
                assert masks.sum((1, 2)).tolist() == [w * h for _, _, _, w, h in held[key]]


def test_batches_of_different_numbers_of_boxes_are_filled_up(tmp_path):
    WRITERS["nzcattle"](tmp_path)
    train = open_dataset("geobench2-nzcattle", tmp_path).train
    _, y = train.batch([0, 1])
    assert y.shape == (2, 2, 5) and (y[0, 1] == NONE).all() and (y[1] >= 0).all()
    assert torch.equal(train.labels, y) and len(train.sha256()) == 64


def test_fields_of_void_and_background_are_left_out(tmp_path):
    WRITERS["pastis_r"](tmp_path)
    splits = open_dataset("geobench2-pastis_r", tmp_path, dates=3)
    assert splits.train.classes[0] == "meadow" and len(splits.train.classes) == 18 and splits.train.dates == 3
    _, y = splits.train.chip(0)
    boxes, classes, masks = things(y)
    assert classes.tolist() == [0, 1, 2, 3] and boxes[0].tolist() == [1, 1, 12, 14] and int(masks[0].sum()) == 11 * 13
    number = np.array([[1, 1, 1, 2], [3, 3, 0, 2]])
    crop = np.array([[4, 4, 5, 19], [0, 0, 0, 19]])
    y = instances_of_maps(number, crop, {v: v - 1 for v in range(1, 19)}, "x")
    assert y[0].tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]] and y[1, 0].tolist()[:3] == [3, 3, 3]


def test_a_bird_without_a_name_is_unknown():
    birds = Things("boxes in parquet", unnamed="Unknown White")
    rows = [{"label": label, "xmin": 1, "ymin": 2, "xmax": 5, "ymax": 9} for label in ("Anhinga", None)]
    y = boxes_of_rows(parquet_bytes(rows), birds, ("Anhinga", "Unknown White"), (SIDE, SIDE), "x")
    assert y.tolist() == [[0, 1, 2, 5, 9], [1, 1, 2, 5, 9]]


def coco(*listed, key="boxes"):
    return json.dumps({key: list(listed)})


def test_boxes_are_cut_at_the_edge_and_lost_where_nothing_is_left():
    text = coco({"category_id": 1, "bbox": [-5, 50, 20, 30]}, {"category_id": 1, "bbox": [70, 3, 4, 4]})
    assert boxes_of_json(text, JSON, ("cattle",), (SIDE, SIDE), "x").tolist() == [[0, 0, 50, 15, 64]]


def test_later_polygons_lie_on_earlier_ones_and_all_parts_count():
    square = [2, 2, 9, 2, 9, 9, 2, 9]
    text = coco(
        {"category_id": 1, "mask": [square, [20, 20, 25, 20, 25, 25, 20, 25]]},
        {"category_id": 1, "mask": [[6, 6, 12, 6, 12, 12, 6, 12]]},
    )
    y = instances_of_json(text, POLYGONS, ("station",), (SIDE, SIDE), "x")
    boxes, _, masks = things(y)
    assert boxes.tolist() == [[2, 2, 26, 26], [6, 6, 13, 13]]
    assert masks.sum((1, 2)).tolist() == [64 - 16 + 36, 49]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no list 'boxes'"),
        ("[" * 100_000, "no list 'boxes'"),
        ('{"other": []}', "no list 'boxes'"),
        ('{"boxes": {}}', "no list of at most"),
        (coco({"category_id": 0, "bbox": [1, 1, 2, 2]}), "category_id is 0; expected 1 to 1: cattle"),
        (coco({"category_id": True, "bbox": [1, 1, 2, 2]}), "category_id is True"),
        (coco({"category_id": 1, "bbox": [1, 1, 2]}), "expected 4 finite numbers"),
        (coco({"category_id": 1}), "expected 4 finite numbers"),
        ('{"boxes": [{"category_id": 1, "bbox": [1, 1, 2, NaN]}]}', "finite numbers"),
        ('{"boxes": [{"category_id": 1, "bbox": [1, 1, 2, 1e999]}]}', "finite numbers"),
    ],
)
def test_strange_annotations_are_refused_in_a_sentence(text, says):
    with pytest.raises(DataError, match=says):
        boxes_of_json(text, JSON, ("cattle",), (SIDE, SIDE), "x")


def test_strange_polygons_and_tables_are_refused_in_a_sentence():
    for polygon in ([1, 2, 3, 4], [1, 2, 3, 4, 5], "11", [[1, 2]]):
        with pytest.raises(DataError, match=r"expected|numbers"):
            instances_of_json(coco({"category_id": 1, "mask": [polygon]}), POLYGONS, ("s",), (SIDE, SIDE), "x")
    with pytest.raises(DataError, match="without polygons"):
        instances_of_json(coco({"category_id": 1}), POLYGONS, ("s",), (SIDE, SIDE), "x")
    with pytest.raises(DataError, match="no column xmin"):
        boxes_of_rows(parquet_bytes([{"label": "a", "ymin": 1, "xmax": 1, "ymax": 1}]), JSON, ("a",), (9, 9), "x")
    row = {"label": "Emu", "xmin": 1, "ymin": 1, "xmax": 2, "ymax": 2}
    with pytest.raises(DataError, match="a box is 'Emu'; expected one of Ibis"):
        boxes_of_rows(parquet_bytes([row]), JSON, ("Ibis",), (9, 9), "x")


@pytest.mark.parametrize("damage", [b"", b"junk", hdf5_text_bytes("{}", "other")])
def test_a_damaged_annotation_names_its_sample(damage, tmp_path):
    sheet = SHEETS["nzcattle"]
    rows = {}
    for i in range(3):
        image = ("GTiff", tif_bytes(np.full((3, SIDE, SIDE), 9, np.uint8)))
        rows[f"s{i}"] = ("TORTILLA", pack({"image": image, "annotations": ("HDF5", damage or b"x")}))
    facts = {f"s{i}": {"tortilla:data_split": s} for i, s in enumerate(("train", "validation", "test"))}
    (tmp_path / sheet.paths[0]).write_bytes(pack(rows, facts))
    with pytest.raises(DataError, match=r"geobench_nzcattle.tortilla, s0: no text 'annotation'"):
        open_dataset("geobench2-nzcattle", tmp_path).train.chip(0)
