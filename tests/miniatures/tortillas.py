"""Files in the ``.tortilla`` format: items one after another, with a table of contents in parquet at the end."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import pyarrow.parquet
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

Parts = Mapping[str, tuple[str, bytes]]
Facts = Mapping[str, Mapping[str, Any]]


def pack(
    parts: Parts, facts: Facts | None = None, *, rows: Callable[..., Any] | None = None,
    header: Callable[[int, int], tuple[int, int, int]] | None = None, partitions: int = 1, **columns: Any,
) -> bytes:  # fmt: skip
    """A ``.tortilla`` file of ``name -> (format, bytes)``.

    Args:
        parts: the items.
        facts: further columns, item by item; ``columns`` are those of all items.
        rows: replaces the table of contents, to make a hostile file.
        header: replaces the three numbers of the header.
        partitions: how many files the data set has.
    """
    body, table = b"", []
    for name, (form, data) in parts.items():
        table.append({"tortilla:id": name, "tortilla:file_format": form, "tortilla:offset": 200 + len(body),
                      "tortilla:length": len(data), **columns, **(facts or {}).get(name, {})})  # fmt: skip
        body += data
    stream = io.BytesIO()
    pandas.DataFrame(table if rows is None else rows(table)).to_parquet(stream)
    footer = stream.getvalue()
    numbers = (200 + len(body), len(footer), partitions) if header is None else header(200 + len(body), len(footer))
    return (b"#y" + struct.pack("<QQQ", *numbers)).ljust(200, b"\0") + body + footer


def tif_bytes(values: NDArray[np.generic], crs: str = "EPSG:32632") -> bytes:
    """A GeoTIFF ``(c, h, w)`` without band names, as the benchmark's are."""
    count, height, width = values.shape
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", height=height, width=width, count=count, dtype=values.dtype, crs=crs, interleave="pixel",
            transform=from_origin(500_000.0, 5_400_000.0, 10.0, 10.0),
        ) as file:  # fmt: skip
            file.write(values)
        return bytes(memory.read())


def hdf5_bytes(values: NDArray[np.generic], name: str = "data") -> bytes:
    """An HDF5 file with one gzipped array, as the benchmark's PASTIS is."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset(name, data=values, compression="gzip", compression_opts=4)
    return stream.getvalue()


def write_bytes(path: Path, data: bytes) -> None:
    """``data`` in a file of a folder that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def hdf5_text_bytes(text: str, name: str = "annotation") -> bytes:
    """An HDF5 file with one text among its attributes, as the benchmark's boxes are."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.attrs[name] = text
    return stream.getvalue()


def parquet_bytes(rows: list[dict[str, Any]], metadata: Mapping[bytes, bytes] | None = None) -> bytes:
    """A table in parquet; GeoParquet is one whose ``metadata`` say so."""
    stream = io.BytesIO()
    table = pyarrow.Table.from_pandas(pandas.DataFrame(rows))
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})}), stream
    )
    return stream.getvalue()


def rectangle(x1: float, y1: float, x2: float, y2: float) -> bytes:
    """A polygon in well-known binary."""
    ring = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    return struct.pack("<BIII", 1, 3, 1, len(ring)) + b"".join(struct.pack("<dd", *corner) for corner in ring)
