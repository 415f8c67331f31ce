"""The same ground in two splits: under other file names, in other files, shifted by part of a chip."""

from dataclasses import replace

import numpy as np
import pytest

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.files import DataConfig, open_data
from eosfm.data.footprints import Footprint, require_apart
from eosfm.inference.raster import georeference, write_scene

RGB = BandSet.parse("rgb:R,G,B@8bit")


def write(root, part, name, x, y=0.0, crs="EPSG:32631"):
    """A 32 x 32 chip of 10 m pixels whose upper left corner lies at (x, y) pixels."""
    where = georeference(crs, 500000 + 10 * x, 5000000 - 10 * y, 10.0)
    rng = np.random.default_rng(abs(hash(name)) % 1000)
    for folder in ("images", "labels"):
        (root / part / folder).mkdir(parents=True, exist_ok=True)
    write_scene(root / part / "images" / name, rng.integers(1, 255, (3, 32, 32)).astype(np.uint8), RGB, where)
    label = BandSet.parse("rgb:R@8bit")
    write_scene(root / part / "labels" / name, rng.integers(0, 2, (1, 32, 32)).astype(np.uint8), label, where)


def config(root):
    return DataConfig(kind="chips", root=root, bands="rgb:R,G,B@8bit", classes=("a", "b"), chip_size=32)


@pytest.mark.parametrize(("at", "crs", "leaks"), [
    ((64, 0), "EPSG:32631", True), ((80, 0), "EPSG:32631", True), ((64, 16), "EPSG:32631", True),
    ((96, 0), "EPSG:32631", False), ((64, 32), "EPSG:32631", False), ((64, 0), "EPSG:32632", False),
])  # fmt: skip
def test_overlapping_ground_is_refused(tmp_path, at, crs, leaks):
    write(tmp_path, "train", "a.tif", 0)
    write(tmp_path, "train", "b.tif", 64)
    write(tmp_path, "validation", "c.tif", 0, 640)
    write(tmp_path, "test", "other name.tif", *at, crs=crs)
    if leaks:
        with pytest.raises(DataError, match=r"train/b.tif.*test/other name.tif.*same ground.*Split by place"):
            open_data(config(tmp_path))
    else:
        splits = open_data(config(tmp_path))
        assert len(splits.train.footprints) == 2
        assert splits.train.subset([1]).footprints == splits.train.footprints[1:]


def test_a_nodata_value_that_is_a_class_is_refused(tmp_path):
    """Label rasters often declare nodata 0, and class 0 was left out of training without a word."""
    for part, y in (("train", 0), ("validation", 640), ("test", 1280)):
        write(tmp_path, part, f"{part}.tif", 0, y)
        path = tmp_path / part / "labels" / f"{part}.tif"
        values = np.tile(np.array([0, 1], np.uint8), (1, 32, 16))
        write_scene(
            path,
            values,
            BandSet.parse("rgb:R@8bit"),
            georeference("EPSG:32631", 500000, 5000000 - 10 * y, 10.0),
            nodata=0,
        )
    with pytest.raises(DataError, match=r"nodata value 0 is also class 'a'.*ignore_value: 0"):
        open_data(config(tmp_path))
    splits = open_data(replace(config(tmp_path), ignore_value=0))
    assert set(splits.train.labels.unique().tolist()) == {1, 255}
    assert splits.train.label_warnings() == ["chips (train): no label is 'a'"]


def test_touching_neighbours_are_no_leak():
    a, b = Footprint("x", 0, 0, 10, 10), Footprint("x", 9.95, 0, 19.95, 10)
    require_apart({"train": (["a"], [a]), "test": (["b"], [b])})
    with pytest.raises(DataError, match="30 % of it"):
        require_apart({"train": (["a"], [a]), "test": (["b"], [Footprint("x", 7, 0, 17, 10)])})
