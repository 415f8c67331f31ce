"""GEO-Bench-2's ``.tortilla`` files: samples one after another in one file, with a table of contents in parquet at its end.

Layout, as read from the real samples at hand: ``#y``, then footer offset, footer length and number of partitions as
little-endian 64-bit integers, zeros up to byte 200, the items, the footer. A sample can be such a file itself; its offsets
count from its own first byte. All of these numbers come from a stranger: none is used before it is known to lie inside.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eosfm.contracts import DataError
from eosfm.data.published.parquet_tables import read_rows_of
from eosfm.data.published.satellite_files import raster_bands, read_tif

_MAGIC = b"#y"
_HEADER = 200
_NUMBERS = struct.Struct("<QQQ")
_COLUMNS = ("tortilla:id", "tortilla:file_format", "tortilla:offset", "tortilla:length")
_NAME = re.compile(r"[\w.-]{1,200}")
MAX_FOOTER = 64 * 1024**2
"""bytes of a table of contents that is read; the benchmark's largest data set has some 20,000 samples"""
MAX_ITEM = 2**30
"""bytes of an item that is read at once"""


@dataclass(frozen=True)
class Item:
    """One item: where its bytes lie in the outermost file, and its row of the table of contents."""

    name: str
    format: str
    """ "TORTILLA" for one that holds items itself, "GTiff" for a GeoTIFF"""
    start: int
    length: int
    row: tuple[tuple[str, Any], ...]

    def facts(self) -> dict[str, Any]:
        """The other columns: split, place, time and labels, under the file's own names."""
        return dict(self.row)


def items(path: Path, inside: Item | None = None, *, parts: int = 1) -> list[Item]:
    """The items of a ``.tortilla`` file that is one of ``parts``, or of its sample ``inside``.

    Raises:
        DataError: no such file, cut short, a table of contents that is damaged or lacks a column, or items that lie
            outside the file, over each other, or have the same or an unsafe name; or no parquet engine is installed.
    """
    if inside is not None and inside.format != "TORTILLA":
        raise DataError(f"{path}: {inside.name!r} is {inside.format}; expected TORTILLA, which holds items")
    start, length = (0, _size(path)) if inside is None else (inside.start, inside.length)
    where = f"{path}" if inside is None else f"{path}, {inside.name}"
    head = _bytes(path, start, min(_HEADER, length))
    if len(head) < _HEADER or not head.startswith(_MAGIC):
        raise DataError(
            f"{where}: begins with {head[:8]!r}; expected a .tortilla file. Is it complete? Fetch it again."
        )
    offset, footer, partitions = _NUMBERS.unpack_from(head, len(_MAGIC))
    if partitions not in (1, parts):
        raise DataError(f"{where}: one of {partitions} partitions; expected one of {parts}. Are all its files there?")
    if not _HEADER <= offset <= length or not 0 < footer <= min(MAX_FOOTER, length - offset):
        raise DataError(
            f"{where}: a table of contents at byte {offset} of {footer} bytes, in {length} bytes. {_DISTRUST}"
        )
    rows = _rows(_bytes(path, start + offset, footer), where)
    found = [_item(row, start, offset, where) for row in rows]
    if len({i.name for i in found}) != len(found):
        raise DataError(f"{where}: two items of one name. {_DISTRUST}")
    ordered = sorted(found, key=lambda i: i.start)
    for one, other in pairwise(ordered):
        if one.start + one.length > other.start:
            raise DataError(f"{where}: items {one.name!r} and {other.name!r} lie over each other. {_DISTRUST}")
    return found


_DISTRUST = "Nothing was read; fetch the file again from where it was published."


def read_item(path: Path, item: Item) -> bytes:
    """The bytes of ``item``, at most `MAX_ITEM`.

    Raises:
        DataError: larger, or the file is shorter than when its table of contents was read.
    """
    if item.length > MAX_ITEM:
        raise DataError(f"{path}: {item.name!r} has {item.length} bytes; at most {MAX_ITEM} are read at once")
    data = _bytes(path, item.start, item.length)
    if len(data) != item.length:
        raise DataError(
            f"{path}: {len(data)} of the {item.length} bytes of {item.name!r}; is the file still being written?"
        )
    return data


def read_item_tif(path: Path, item: Item, count: int, more: int = 0) -> NDArray[Any]:
    """The first ``count`` bands of an item that is a GeoTIFF, as stored ``(count, h, w)``; it passes through a temporary file.

    Args:
        path: the file.
        item: one of its `items`.
        count: bands to read.
        more: how many further bands it may have, which are left out.

    Raises:
        DataError: another format or number of bands; RasterError: no GeoTIFF, or damaged.
    """
    if item.format != "GTiff":
        raise DataError(f"{path}: {item.name!r} is {item.format}; expected GTiff")
    with tempfile.TemporaryDirectory(prefix="eosfm-item-") as folder:
        file = Path(folder) / f"{item.name}.tif"
        file.write_bytes(read_item(path, item))
        held = raster_bands(file) if more else count
        return read_tif(file, held if count <= held <= count + more else count)[:count]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except OSError as e:
        raise DataError(f"{path}: cannot be opened ({e.strerror}). Expected a .tortilla file there.") from e


def _bytes(path: Path, start: int, length: int) -> bytes:
    try:
        with path.open("rb") as f:
            f.seek(start)
            return f.read(length)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}). Expected a .tortilla file there.") from e


def _rows(footer: bytes, where: str) -> list[dict[str, Any]]:
    rows = read_rows_of(footer, f"{where}, its table of contents")
    if rows and (missing := [c for c in _COLUMNS if c not in rows[0]]):
        raise DataError(f"{where}: no column {', '.join(missing)}; found {', '.join(rows[0])}")
    return rows


def _item(row: dict[str, Any], start: int, end: int, where: str) -> Item:
    """``row`` checked: inside ``200..end`` of the file or sample that begins at ``start``."""
    name, form, offset, length = (row[c] for c in _COLUMNS)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(form, str):
        raise DataError(f"{where}: an item called {name!r}; expected letters, digits, '_', '-' and '.'. {_DISTRUST}")
    try:
        offset, length = _whole(offset), _whole(length)
    except (ValueError, OverflowError, TypeError) as e:
        raise DataError(f"{where}: item {name!r} lies at {offset!r}, {length!r}; expected whole numbers") from e
    if offset < _HEADER or length < 1 or offset + length > end:
        raise DataError(
            f"{where}: item {name!r} at byte {offset} of {length} bytes leaves {_HEADER}..{end}. {_DISTRUST}"
        )
    others: Sequence[tuple[str, Any]] = [(str(k), v) for k, v in row.items() if k not in _COLUMNS]
    return Item(name, form, start + offset, length, tuple(others))


def _whole(value: Any) -> int:
    number = int(value)  # of NaN: ValueError; of infinity: OverflowError; of nothing: TypeError
    if number != value:
        raise ValueError(value)
    return number
