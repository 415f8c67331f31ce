"""Parquet from strangers: looked over page by page before anything is unpacked, then read as plain rows.

A parquet file states its sizes in three places, and a reader that believes one of them can be made to fill the memory: a
page of a kilobyte may unpack to two gigabytes, a run length may stand for a billion values, and one long string in a
dictionary may be meant by every row. All headers are read here first (Apache Parquet's format, ``PageHeader`` in Thrift's
compact protocol), and what they add up to is refused beyond the limits below.
"""

from __future__ import annotations

import io
from typing import Any

from eosfm.contracts import DataError, missing_extra

MAX_BYTES = 2**28
"""what all pages may unpack to; also what repeating one dictionary's strings may add up to"""
MAX_VALUES = 4_000_000
"""values in all columns: a hundred times what a table of 20,000 samples has"""
MAX_COLUMNS = 512
_MAX_PAGES = 100_000
_PLAIN = {
    0,
    2,
    3,
    4,
    8,
}  # PLAIN, PLAIN_DICTIONARY, RLE, BIT_PACKED, RLE_DICTIONARY; the delta encodings can multiply strings
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_I32, _STRUCT = 5, 12
_DISTRUST = "Nothing was unpacked; fetch the file again from where it was published."


def read_rows_of(data: bytes, where: str) -> list[dict[str, Any]]:
    """The rows of the parquet file ``data``, as plain Python values.

    Raises:
        DataError: no parquet, damaged, or one that would unpack to more than the limits, whatever it says of itself.
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as parquet  # type: ignore[import-untyped]
    except ImportError as e:
        raise missing_extra("pyarrow", "datasets") from e
    try:
        metadata = parquet.ParquetFile(io.BytesIO(data)).metadata
        texts = _looked_over(data, metadata, where)
        table = parquet.ParquetFile(io.BytesIO(data), read_dictionary=texts).read(use_threads=False)
        columns = {name: _values(table.column(i)) for i, name in enumerate(table.column_names)}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, NotImplementedError) as e:
        raise DataError(f"{where}: cannot be read as parquet ({e}). {_DISTRUST}") from e
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _looked_over(data: bytes, metadata: Any, where: str) -> list[str]:
    """Check all pages; the names of flat columns of text, which are to be read as dictionaries."""
    chunks = metadata.num_columns * metadata.num_row_groups
    if metadata.num_columns > MAX_COLUMNS or chunks > _MAX_PAGES or metadata.num_rows > MAX_VALUES:
        raise DataError(
            f"{where}: {metadata.num_columns} columns of {metadata.num_rows} rows in {metadata.num_row_groups} groups; at most "
            f"{MAX_COLUMNS} columns and {MAX_VALUES} values are read. {_DISTRUST}"
        )
    sizes = values = pages = repeated = 0
    texts: list[str] = []
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            count, size, dictionary, seen = _chunk(data, chunk, where)
            if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY":
                raise DataError(
                    f"{where}: column {chunk.path_in_schema} is {chunk.physical_type}, which is not read here"
                )
            if chunk.physical_type == "BYTE_ARRAY":
                if "." not in chunk.path_in_schema:
                    texts.append(chunk.path_in_schema)
                else:
                    repeated += count * dictionary
            sizes, values, pages = sizes + size, values + count, pages + seen
            if max(sizes, repeated) > MAX_BYTES or values > MAX_VALUES or pages > _MAX_PAGES:
                raise DataError(
                    f"{where}: {len(data)} bytes that would unpack to {max(sizes, repeated)} bytes and {values} values; at most "
                    f"{MAX_BYTES} and {MAX_VALUES} are expected. {_DISTRUST}"
                )
    return sorted(set(texts))


def _chunk(data: bytes, chunk: Any, where: str) -> tuple[int, int, int, int]:
    """Values, unpacked bytes, unpacked bytes of the dictionary, and pages of one column chunk, from its page headers."""
    at, first = chunk.data_page_offset, chunk.dictionary_page_offset
    if first is not None and 0 < first < at:
        at = first
    end = at + chunk.total_compressed_size
    if not 4 <= at <= end <= len(data):
        raise DataError(f"{where}: pages at bytes {at} to {end} of {len(data)}. {_DISTRUST}")
    values = size = dictionary = pages = 0
    while at < end:
        header, at = _struct(data, at, end)
        kind, unpacked, packed = (header.get(i) for i in (1, 2, 3))
        body = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}.get(kind, 0)) if isinstance(kind, int) else None
        if not isinstance(body, dict) or not isinstance(unpacked, int) or not isinstance(packed, int):
            raise ValueError(f"a page of kind {kind} without its sizes")
        count, encoding = body.get(1), body.get(4 if kind == _DATA_2 else 2)
        if not isinstance(count, int) or encoding not in _PLAIN or min(count, unpacked, packed) < 0:
            raise ValueError(
                f"a page of {count} values in encoding {encoding}, {packed} bytes that unpack to {unpacked}"
            )
        if kind == _DICTIONARY:
            dictionary += unpacked
        else:
            values += count
        size, pages, at = size + unpacked, pages + 1, at + packed
    if at != end:
        raise ValueError(f"pages that end at byte {at}, not at {end}")
    return values, size, dictionary, pages


def _struct(data: bytes, at: int, end: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A Thrift struct in compact protocol: field number -> integer or struct; other kinds are skipped."""
    if depth > 4:
        raise ValueError("a page header nested too deeply")
    out: dict[int, Any] = {}
    number = 0
    while True:
        byte, at = _byte(data, at, end), at + 1
        if byte == 0:
            return out, at
        kind = byte & 15
        if byte >> 4:
            number += byte >> 4
        else:
            number, at = _integer(data, at, end)
        if kind == _STRUCT:
            out[number], at = _struct(data, at, end, depth + 1)
        elif kind in (4, _I32, 6):
            value, at = _integer(data, at, end)
            if kind == _I32:
                out[number] = value
        elif kind == 8:
            length, at = _varint(data, at, end)
            at += length
        elif kind in (3, 7):
            at += 1 if kind == 3 else 8
        elif kind not in (1, 2):
            raise ValueError(f"a page header with a field of kind {kind}")
        if at > end:
            raise ValueError("a page header that leaves its column")


def _byte(data: bytes, at: int, end: int) -> int:
    if at >= end:
        raise ValueError("a page header that is cut short")
    return data[at]


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte, at = _byte(data, at, end), at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number of more than 64 bits in a page header")


def _integer(data: bytes, at: int, end: int) -> tuple[int, int]:
    value, at = _varint(data, at, end)
    return (value >> 1) ^ -(value & 1), at


def _values(column: Any) -> list[Any]:
    """A column as Python values; equal texts of a dictionary stay one object."""
    import pyarrow

    out: list[Any] = []
    for part in column.chunks:
        if pyarrow.types.is_dictionary(part.type):
            words = part.dictionary.to_pylist()
            out += [None if i is None else words[i] for i in part.indices.to_pylist()]
        else:
            out += part.to_pylist()
    return out
