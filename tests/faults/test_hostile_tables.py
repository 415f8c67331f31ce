"""Parquet and HDF5 from strangers: small files that would fill the memory or read other files are refused before they do."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eosfm.contracts import DataError
from eosfm.data.published import parquet_tables
from eosfm.data.published.hdf5_files import hdf5_array
from eosfm.data.published.parquet_tables import read_rows_of
from eosfm.data.published.tortilla import items
from miniatures.tortillas import hdf5_bytes, pack


def parquet(table: pa.Table, **options) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def test_an_honest_table_is_read_as_written():
    rows = [
        {"a": "x", "b": [1.5, 2.5], "c": 1, "d": ["p", "q"], "e": None},
        {"a": None, "b": [], "c": 2, "d": None, "e": None},
        {"a": "x", "b": [3.0], "c": 3, "d": ["p"], "e": 2.0},
    ]
    for options in (
        {},
        {"compression": "zstd"},
        {"use_dictionary": False},
        {"row_group_size": 1},
        {"data_page_version": "2.0"},
    ):
        assert read_rows_of(parquet(pa.Table.from_pylist(rows), **options), "here") == rows


def words(word: str, rows: int) -> pa.Array:
    """``rows`` times one word, as a dictionary: no memory is needed to make it."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([word]))


def nested(word: str, rows: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32)), words(word, rows))


PLAIN = {"compression": "zstd", "use_dictionary": False}
BOMBS = {
    "zeros": (lambda: parquet(pa.table({"a": np.zeros(300_000, np.int64)}), **PLAIN), "columns of 300000 rows"),
    "run lengths": (lambda: parquet(pa.table({"a": pa.array([7] * 300_000, pa.int64())})), "columns of 300000 rows"),
    "lists": (lambda: parquet(pa.table({"a": pa.array([[7] * 300_000])})), "unpack to"),
    "one long text in every list": (lambda: parquet(pa.table({"a": nested("y" * 10_000, 5000)})), "unpack to"),
    "a text written out": (lambda: parquet(pa.table({"a": ["z" * 2**19] * 9}), **PLAIN), "unpack to"),
    "texts that share their beginnings": (
        lambda: parquet(
            pa.table({"a": ["w" * 10_000] * 100}), use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}
        ),
        "in encoding 7",
    ),
    "columns": (lambda: parquet(pa.table({f"c{i}": [1] for i in range(600)})), "600 columns"),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Lower limits, so that bombs are quick to make; and nothing may be unpacked."""
    monkeypatch.setattr(parquet_tables, "MAX_BYTES", 2**20)
    monkeypatch.setattr(parquet_tables, "MAX_VALUES", 100_000)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("unpacked"))


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_unpacks_to_much_is_refused(bomb, small):
    build, message = BOMBS[bomb]
    data = build()
    assert len(data) < 200_000
    with pytest.raises(DataError, match=message) as caught:
        read_rows_of(data, "here")
    assert "here" in str(caught.value) and "Nothing was unpacked" in str(caught.value)


def test_a_flat_text_that_every_row_repeats_is_held_once():
    rows = read_rows_of(parquet(pa.table({"a": words("y" * 100_000, 50_000)})), "here")  # 5 GB if written out
    assert len(rows) == 50_000 and len({id(r["a"]) for r in rows}) == 1


def test_the_pages_count_and_not_what_the_table_says_of_them(small):
    data = parquet(pa.table({"a": ["z" * 2**19] * 4}), **PLAIN)
    said = varint(2 * pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).total_uncompressed_size)
    data = data.replace(said, bytes([0x90, *[0x80] * (len(said) - 2), 0]))
    assert pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).total_uncompressed_size == 8
    with pytest.raises(DataError, match="would unpack to"):
        read_rows_of(data, "here")


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


@pytest.mark.parametrize("seed", range(40))
def test_damaged_parquet_is_an_error_and_nothing_else(seed):
    data = bytearray(parquet(pa.Table.from_pylist([{"a": "x", "b": [1.5]}, {"a": "y", "b": []}])))
    rng = np.random.default_rng(seed)
    for at in rng.integers(4, len(data), 3):
        data[at] = rng.integers(256)
    try:
        rows = read_rows_of(bytes(data), "here")
    except DataError as e:
        assert "here" in str(e)
    else:
        assert len(rows) <= 2


def test_a_bomb_in_a_tortilla_names_the_file(tmp_path, small):
    path = tmp_path / "bomb.tortilla"
    path.write_bytes(pack({"a": ("BYTES", b"x")}, rows=lambda t: t * 90_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="would unpack to") as caught:
        items(path)
    assert str(path) in str(caught.value)


def hdf5(build) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        build(file)
    return stream.getvalue()


def virtual(file, other: Path) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource(str(other), "data", (4,))
    file.create_virtual_dataset("data", layout)


def external(file, other: Path) -> None:
    file.create_dataset("data", (4,), "u1", external=[(str(other), 0, 4)])


HOSTILE = {
    "soft link": (lambda f, o: f.__setitem__("data", h5py.SoftLink("/elsewhere")), "no array 'data' of its own"),
    "external link": (lambda f, o: f.__setitem__("data", h5py.ExternalLink(str(o), "data")), "no array 'data' of its own"),
    "virtual": (virtual, "lies in other files"),
    "external": (external, "lies in other files"),
    "a group": (lambda f, o: f.create_group("data"), "is not an array of numbers"),
    "texts": (lambda f, o: f.create_dataset("data", data=[b"a"]), "is not an array of numbers"),
    "another filter": (lambda f, o: f.create_dataset("data", (4,), "u1", compression="lzf"), "is packed by filters"),
    "huge": (lambda f, o: f.create_dataset("data", (2**20, 2**20), "u1", chunks=(64, 64), compression="gzip"), "in pieces of"),
    "huge pieces": (
        lambda f, o: f.create_dataset("data", (4,), "u1", maxshape=(None,), chunks=(2**28,), compression="gzip"), "in pieces of"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_hdf5_is_refused(what, tmp_path):
    build, message = HOSTILE[what]
    secret = tmp_path / "secret.h5"
    secret.write_bytes(hdf5_bytes(np.arange(4, dtype=np.uint8)))
    data = hdf5(lambda f: build(f, secret))
    with pytest.raises(DataError, match=message) as caught:
        hdf5_array(data, "data", "there")
    assert "there" in str(caught.value)


def test_damaged_hdf5_and_other_bytes_are_refused():
    good = hdf5_bytes(np.arange(4096, dtype=np.int16).reshape(64, 64))
    assert np.array_equal(hdf5_array(good, "data", "x"), np.arange(4096).reshape(64, 64))
    assert np.isnan(hdf5_array(good, "data", "x", lambda n: [None, n - 1])[0]).all()
    for data in (b"", b"nothing", good[:200], good[:-50]):
        with pytest.raises(DataError, match="no plain array 'data'"):
            hdf5_array(data, "data", "x")
