"""GEO-Bench-2's .tortilla files: the real ones against their unpacked copies, and hostile ones against the reader."""

import csv
from pathlib import Path

import numpy as np
import pytest

from eosfm.contracts import DataError, RasterError
from eosfm.data.folders import read_raster
from eosfm.data.published.tortilla import Item, items, read_item, read_item_tif
from miniatures.real_ones import SHARED
from miniatures.satellite import write_tif
from miniatures.tortillas import pack

SAMPLES = SHARED / "geobench2_samples"


@pytest.fixture
def image(tmp_path) -> bytes:
    write_tif(tmp_path / "image.tif", np.arange(2 * 32 * 32, dtype=np.uint16).reshape(2, 32, 32))
    return (tmp_path / "image.tif").read_bytes()


def test_samples_in_samples_are_read_where_they_lie(tmp_path, image):
    inner = pack({"mask": ("BYTES", b"abc"), "img": ("GTiff", image)})
    path = tmp_path / "a.tortilla"
    path.write_bytes(
        pack({"first": ("BYTES", b"xyz"), "sample_1": ("TORTILLA", inner)}, **{"tortilla:data_split": "test"})
    )
    first, sample = items(path)
    assert (first.name, read_item(path, first)) == ("first", b"xyz")
    assert sample.facts() == {"tortilla:data_split": "test"}
    mask, img = items(path, sample)
    assert read_item(path, mask) == b"abc" and read_item(path, img) == image
    assert np.array_equal(read_item_tif(path, img, 2), np.arange(2048).reshape(2, 32, 32))
    with pytest.raises(DataError, match="'mask' is BYTES; expected GTiff"):
        read_item_tif(path, mask, 1)
    with pytest.raises(DataError, match="expected TORTILLA"):
        items(path, first)
    with pytest.raises(DataError, match="2 bands; expected 1"):
        read_item_tif(path, img, 1)
    with pytest.raises(RasterError):
        read_item_tif(path, Item("x", "GTiff", mask.start, 3, ()), 1)
    with pytest.raises(DataError, match="at most"):
        read_item(path, Item("x", "GTiff", 200, 2**40, ()))


def moved(**change):
    return lambda table: [{**table[0], **{f"tortilla:{k}": v for k, v in change.items()}}, *table[1:]]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"header": lambda at, n: (2**63, n, 1)}, "table of contents at byte"),
        ({"header": lambda at, n: (at, 2**62, 1)}, "table of contents at byte"),
        ({"header": lambda at, n: (0, n, 1)}, "table of contents at byte 0"),
        ({"header": lambda at, n: (at, n, 3)}, "one of 3 partitions"),
        ({"header": lambda at, n: (at + 1, n - 1, 1)}, "cannot be read as parquet"),
        ({"rows": moved(offset=10**15)}, "leaves 200"),
        ({"rows": moved(offset=-5)}, "leaves 200"),
        ({"rows": moved(offset=0)}, "leaves 200"),
        ({"rows": moved(length=2**62)}, "leaves 200"),
        ({"rows": moved(length=5)}, "lie over each other"),
        ({"rows": moved(length=0)}, "leaves 200"),
        ({"rows": moved(offset=200.5)}, "expected whole numbers"),
        ({"rows": moved(offset=float("nan"))}, "expected whole numbers"),
        ({"rows": moved(offset=float("inf"))}, "expected whole numbers"),
        ({"rows": moved(id="../../x")}, "an item called"),
        ({"rows": moved(id="b")}, "two items of one name"),
        ({"rows": lambda t: [{"other": 1}]}, "no column tortilla:id"),
    ],
)
def test_a_hostile_table_is_refused(damage, message, tmp_path):
    path = tmp_path / "bad.tortilla"
    path.write_bytes(pack({"a": ("BYTES", b"1234"), "b": ("BYTES", b"5678")}, **damage))
    with pytest.raises(DataError, match=message) as caught:
        items(path)
    assert str(path) in str(caught.value)


def test_files_that_are_none_or_cut_short_are_refused(tmp_path, image):
    path = tmp_path / "x.tortilla"
    with pytest.raises(DataError, match="cannot be opened"):
        items(path)
    whole = pack({"a": ("GTiff", image)})
    for data in (b"", b"#y", image, whole[:500], whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"expected a \.tortilla|table of contents"):
            items(path)
    path.write_bytes(whole)
    (a,) = items(path)
    path.write_bytes(whole[:300])
    with pytest.raises(DataError, match="bytes of 'a'"):
        read_item(path, a)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["caffe", "benv2", "treesatai", "flair2"])
def test_the_real_files_hold_what_was_unpacked_from_them(name):
    path = SAMPLES / name / f"{name}.tortilla"
    samples = {i.name: i for i in items(path)}
    with (SAMPLES / name / "samples.csv").open(newline="", encoding="utf-8") as f:
        rows = {r["tortilla:id"]: r for r in csv.DictReader(f)}
    assert set(samples) == set(rows)
    for key, sample in samples.items():
        assert sample.facts()["tortilla:data_split"] == rows[key]["tortilla:data_split"]
    key, sample = next(iter(samples.items()))
    compared = 0
    for item in items(path, sample):
        unpacked = Path(SAMPLES / name / key / f"{item.name}.tif")
        if item.format == "GTiff" and unpacked.is_file():
            expected, _ = read_raster(unpacked)
            found = read_item_tif(path, item, len(expected))
            assert np.array_equal(np.where(np.isnan(expected), 0, expected), np.where(np.isnan(expected), 0, found))
            compared += 1
    assert compared
