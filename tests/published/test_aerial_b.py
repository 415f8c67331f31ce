"""Open-Canopy, Potsdam and LandCover.ai: heights of the right place in metres, colours that are not pure, one test set."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eosfm.contracts import DataError
from eosfm.data.catalogue import open_dataset
from eosfm.data.published.satellite_files import window_of
from miniatures import aerial

CANOPY = Path("canopy_height")
SPOT, LIDAR = CANOPY / "2021/spot", CANOPY / "2021/lidar"
PICTURE, HEIGHTS = SPOT / "compressed_pansharpened_20210611a.tif", LIDAR / "compressed_lidar_20210611a.tif"
WEST, NORTH = 700000.0, 6600000.0


@pytest.fixture
def canopy(tmp_path):
    aerial.write_opencanopy(tmp_path)
    return tmp_path


def first(splits):
    """Image, label, top and left of the first training tile of 2021."""
    i = next(i for i, key in enumerate(splits.train.ids) if "2021" in key)
    _, (top, left, _, _) = window_of(splits.train.ids[i])
    return *splits.train.chip(i), top, left


def ground(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A height in decimetres for every cell of 1.5 m whose centre is at ``x``, ``y``: 1 dm a metre to the east and south."""
    return np.round((x - WEST)[None] + (NORTH - y)[:, None]).astype(np.uint16)


def lidar(path: Path, left: float, top: float, side: int = 210, gsd: float = 1.5) -> None:
    x, y = left + (np.arange(side) + 0.5) * gsd, top - (np.arange(side) + 0.5) * gsd
    aerial.tif(path, ground(x, y), left=left, top=top, gsd=gsd)


@pytest.mark.parametrize(
    ("left", "top"), [(WEST, NORTH), (WEST + 1.9, NORTH - 3.1), (WEST - 30.0, NORTH + 4.4), (WEST + 5.0, NORTH + 15.0)]
)
def test_opencanopy_heights_are_those_of_the_pixel_in_metres(canopy, left, top):
    """Wherever the lidar file begins. Reading one window of both files would be off by up to 22 pixels here."""
    side = 240 if left < WEST else 210
    lidar(canopy / HEIGHTS, left, top, side)
    _, y, row, column = first(open_dataset("opencanopy", canopy, tile=64))
    x = WEST + (column + np.arange(64) + 0.5) * 1.5
    north = NORTH - (row + np.arange(64) + 0.5) * 1.5
    wanted = torch.from_numpy(((x - WEST)[None] + (NORTH - north)[:, None]) / 10)
    assert y.dtype == torch.float32 and (row, column) == (4, 4)
    assert float((y - wanted).abs().max()) <= 0.15 + 0.05 + 1e-4, "half a cell both ways, and rounding to decimetres"


def test_opencanopy_bands_by_value_and_edges_without_a_picture(canopy):
    spot = np.zeros((200, 200, 4), np.uint8)
    spot[6:] = (10, 20, 30, 40)
    spot[6:, 7] = (0, 20, 30, 40)  # one band of 0 is a dark pixel
    aerial.tif(canopy / PICTURE, spot, left=WEST, top=NORTH, gsd=1.5)
    train = open_dataset("opencanopy", canopy, tile=64).train
    x, _, row, column = first(open_dataset("opencanopy", canopy, tile=64))
    assert train.bands.names == ("nir", "red", "green") and str(train.bands[0].unit) == "8bit"
    assert x[:, 6 - row :, 0].unique(dim=1).flatten().tolist() == [40, 10, 20]
    assert x[:, 6 - row, 7 - column].tolist() == [40, 0, 20]
    assert x[:, : 6 - row].isnan().all() and x[:, 6 - row :].isfinite().all()


def test_opencanopy_unknown_heights_are_nan(canopy):
    stored = np.full((200, 200), 123, np.uint16)
    stored[4] = 65535
    aerial.tif(canopy / HEIGHTS, stored, nodata=65535, left=WEST, top=NORTH, gsd=1.5)
    _, y, row, _ = first(open_dataset("opencanopy", canopy, tile=64))
    assert y[4 - row].isnan().all() and bool((y[5 - row :] == 12.3).all())


def test_opencanopy_areas_are_the_published_split(canopy):
    splits = open_dataset("opencanopy", canopy, tile=64)
    rows = [{window_of(i)[1][0] for i in p.ids} for p in (splits.train, splits.validation, splits.test)]
    assert rows == [{4}, {68}, {132}] and [len(splits.train), len(splits.validation), len(splits.test)] == [6, 6, 6]
    assert "touch them" in splits.rule and splits.train.classes == ("canopy height in metres",)
    again = pickle.loads(pickle.dumps(splits.train))
    assert torch.equal(again.chip(0)[1], splits.train.chip(0)[1])


def areas(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / CANOPY / "geometries.geojson"
    known = json.loads(path.read_text())
    change(known["features"])
    path.write_text(json.dumps(known))


def test_opencanopy_areas_off_the_grid_share_no_pixel(canopy):
    """Squares of 1 km are 666.67 pixels: the pixels that two of them share belong to neither."""

    def thirds(features):
        for f in features:
            f["geometry"]["coordinates"][0] = [[x + 0.4, y + 0.4] for x, y in f["geometry"]["coordinates"][0]]

    areas(canopy, thirds)
    splits = open_dataset("opencanopy", canopy, tile=63)
    seen = np.zeros((200, 200), int)
    for part in (splits.train, splits.validation, splits.test):
        mine = np.zeros((200, 200), int)
        for _, (top, left, h, w) in (window_of(i) for i in part.ids if "2021" in i):
            mine[top : top + h, left : left + w] = 1
        seen += mine
    assert seen.max() == 1 and seen.sum() == 3 * 63 * 191
    with pytest.raises(DataError, match=r"tiles of 64 pixels from 63 x 191"):
        open_dataset("opencanopy", canopy, tile=64)


def test_opencanopy_files_that_do_not_fit_are_errors(canopy):
    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match):
            _ = open_dataset("opencanopy", canopy, tile=64).train.labels

    lidar(canopy / HEIGHTS, WEST, NORTH, side=90)
    refused(r"leaves its heights of 90 x 90 pixels")
    lidar(canopy / HEIGHTS, WEST + 500, NORTH)
    refused(r"leaves its heights")
    lidar(canopy / HEIGHTS, WEST - 3, NORTH + 3, side=105, gsd=3.0)
    refused(r"pixels of 3 m, .* of 1\.5 m")
    aerial.tif(canopy / HEIGHTS, np.full((200, 200), 12.3, np.float32), left=WEST, top=NORTH, gsd=1.5)
    refused(r"float32 values; expected decimetres as 16-bit integers")
    lidar(canopy / HEIGHTS, WEST, NORTH)
    aerial.tif(canopy / PICTURE, np.ones((200, 200, 4), np.uint16), left=WEST, top=NORTH, gsd=1.5)
    refused(r"uint16 values; expected 8 bit")
    aerial.tif(canopy / PICTURE, np.ones((200, 200, 3), np.uint8), left=WEST, top=NORTH, gsd=1.5)
    refused(r"3 bands; expected 4")
    (canopy / HEIGHTS).unlink()
    refused(r"1 files are missing, the first is .*compressed_lidar_20210611a\.tif")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[0]["properties"].update(split="training"), "split 'training' of an area"),
        (lambda f: f[0]["properties"].update(image_name="../x.tif"), "expected the name of a .tif file"),
        (lambda f: f[0]["geometry"]["coordinates"][0].pop(1), "is no box along the axes"),
        (lambda f: f[0]["geometry"].update(coordinates=[[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]), "leaves its picture"),
        (lambda f: f[0].pop("geometry"), "expected features with image_name, split and a polygon"),
    ],
)  # fmt: skip
def test_opencanopy_areas_that_are_wrong_are_errors(canopy, change, message):
    areas(canopy, change)
    with pytest.raises(DataError, match=message):
        open_dataset("opencanopy", canopy, tile=64)


def test_potsdam_labels_that_are_not_pure(tmp_path):
    """The colours that are reported of 4_12 and 6_7; TorchGeo, which compares exactly, makes them clutter."""
    aerial.write_potsdam(tmp_path)
    rows = [(225, 227, 227), (5, 12, 250), (9, 222, 221), (30, 240, 20), (252, 255, 0), (250, 3, 9)]
    mask = np.full((64, 64, 3), 255, np.uint8)
    for row, colour in enumerate(rows):
        mask[row] = colour
    path = tmp_path / "top_potsdam_4_12_label.tif"
    aerial.tif(path, mask, gsd=0.05)

    def labels():
        splits = open_dataset("potsdam", tmp_path, tile=64)
        part, i = next((p, i) for p in (splits.train, splits.validation) for i, k in enumerate(p.ids) if "_4_12_" in k)
        return [splits.train.classes[c] for c in part.chip(i)[1][: len(rows), 0].tolist()]

    assert labels() == ["impervious surfaces", "building", "low vegetation", "tree", "car", "clutter"]
    for wrong in ((255, 0, 255), (20, 9, 3)):
        mask[0] = wrong
        aerial.tif(path, mask, gsd=0.05)
        with pytest.raises(DataError, match=r"4_12_label\.tif: colours \((255, 0, 255|0, 0, 0)\)"):
            labels()


def test_landcoverai_is_tested_on_the_same_orthophotos_for_every_seed(tmp_path):
    aerial.write_landcoverai(tmp_path)
    several = [open_dataset("landcoverai", tmp_path, seed=s, tile=64) for s in range(8)]
    assert len({s.test.ids for s in several}) == 1 and len({s.validation.ids for s in several}) > 1


@pytest.mark.parametrize("name", ["landcoverai", "loveda", "levircd+", "potsdam"])
def test_a_label_of_no_class_is_refused(tmp_path, name):
    aerial.MINIATURES[name](tmp_path)
    ending = {"landcoverai": "masks/*.tif", "loveda": "Val/Rural/masks_png/*.png", "levircd+": "LEVIR-CD+/test/label/*.png",
              "potsdam": "top_potsdam_2_13_label.tif"}[name]  # fmt: skip
    for path in tmp_path.glob(ending):
        if path.suffix == ".png":
            Image.fromarray(np.full((96, 96), 77, np.uint8)).save(path)
        else:
            aerial.tif(path, np.zeros((64, 64, 3), np.uint8) if name == "potsdam" else np.full((96, 96), 77, np.uint8))
    with pytest.raises(DataError, match=r"label values 77|colours \(0, 0, 0\)"):
        _ = open_dataset(name, tmp_path, tile=64).test.labels
