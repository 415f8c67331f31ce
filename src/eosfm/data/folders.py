"""Plain files of a data set's folder: where it lies, its tables, its rasters, and the cutting of scenes into chips."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eosfm.bands import BandSet, sensor_named
from eosfm.contracts import BandError, DataError
from eosfm.data.chips import Chips
from eosfm.inference.raster import RasterFile
from eosfm.seeding import purpose_seed

FRACTIONS = (0.6, 0.2, 0.2)
"""training, validation and test, where a data set brings no split of its own"""
SPLITS = ("train", "validation", "test")

Field = NDArray[np.float32]
Labels = NDArray[np.int64]
_MAX_VALUES = 2**27  # half a gigabyte of float32: far above every chip, far below a sparse bomb


@dataclass(frozen=True)
class About:
    """What the three splits of a data set have in common, in the words of `Chips`."""

    title: str
    bands: BandSet
    kind: str
    classes: tuple[str, ...]
    licence: str
    source: str

    def chips(self, split: str, images: Tensor, labels: Tensor, ids: Sequence[str]) -> Chips:
        """The chips of ``split``; see `Chips` for shapes and errors."""
        name = f"{self.title} ({split})"
        return Chips(images, labels, self.bands, self.kind, self.classes, name, self.licence, self.source, tuple(ids))


def thrice(bands: BandSet) -> BandSet:
    """The one band of ``bands`` three times over: a composite, as the paper's CaFFe specialist reads it."""
    (band,) = bands
    return BandSet((band, band, band))


def data_folder(root: Path | str, name: str, *markers: str) -> Path:
    """``root/name``, or ``root`` itself if it is that folder: the one that holds all of the files ``markers``.

    Raises:
        DataError: neither holds them, saying what is expected where.
    """
    root = Path(root)
    tried = (root / name, root)
    for folder in tried:
        if all((folder / m).exists() for m in markers):
            return folder
    lacking = [m for m in markers if not (tried[0] / m).exists()]
    raise DataError(
        f"no data set {name} under {root}: expected {', '.join(markers)} in {tried[0]} (or in {root} itself); "
        f"{', '.join(lacking)} is not there. Name the folder of all shared data, or that of {name}."
    )


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a comma-separated table, each reduced to ``columns``.

    Raises:
        DataError: unreadable, no such column, or a row that is cut short.
    """
    try:
        with path.open(newline="", encoding="utf-8") as f:
            table = csv.DictReader(f)
            missing = [c for c in columns if c not in (table.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path}: no column {', '.join(missing)}; found {', '.join(table.fieldnames or ()) or 'none'}"
                )
            rows = [{c: row[c] for c in columns} for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path}: cannot be read as a comma-separated table ({e})") from e
    for i, row in enumerate(rows):
        if any(v is None for v in row.values()):
            raise DataError(f"{path}: row {i + 1} is cut short; expected {', '.join(columns)}")
    return rows


def read_raster(path: Path) -> tuple[Field, tuple[str | None, ...]]:
    """A whole small GeoTIFF as float32 ``(c, h, w)`` and its band descriptions; NaN where all bands are nodata.

    Values stay in the file's units. A pixel with nodata in some bands only is kept, because 0 is nodata *and* a legal
    value in Sentinel-2 files (cirrus over clear ground).

    Raises:
        RasterError: no GeoTIFF, or damaged.
        DataError: too large to be a chip.
    """
    file = RasterFile(path)
    try:
        values = _whole(file).astype(np.float32)
        if all(n is not None for n in file.nodata):
            nodata = np.array(file.nodata, np.float32)[:, None, None]
            values[:, ((values == nodata) | np.isnan(values)).all(0)] = np.nan
        return values, file.descriptions
    finally:
        file.close()


def read_labels(path: Path) -> Labels:
    """A whole small GeoTIFF of classes as int64 ``(h, w)``, as stored: a declared nodata value is a value.

    Raises:
        RasterError: no GeoTIFF, or damaged.
        DataError: not one band of integers, or too large to be a chip.
    """
    file = RasterFile(path)
    try:
        if file.count != 1 or file.dtype.kind not in "ui":
            raise DataError(f"{path}: {file.count} bands of {file.dtype}; expected one band of integers, the classes")
        labels: Labels = _whole(file)[0].astype(np.int64)
        return labels
    finally:
        file.close()


def _whole(file: RasterFile) -> NDArray[Any]:
    if file.count * file.height * file.width > _MAX_VALUES:
        raise DataError(
            f"{file.path}: {file.count} x {file.height} x {file.width} values; expected a chip, not a scene"
        )
    return file.read(0, 0, file.height, file.width, range(file.count))


def channel_order(path: Path, described: Sequence[str | None], sensor: str, wanted: Sequence[str]) -> list[int]:
    """Positions in the file of the channels ``wanted`` (canonical names of ``sensor``), found by the file's own names.

    Raises:
        DataError: a channel without a description, one that ``sensor`` does not know, or a wanted one that is missing.
    """
    try:
        names = [sensor_named(sensor).resolve(d or "").name for d in described]
    except BandError as e:
        raise DataError(f"{path}: its band descriptions {list(described)} are not those of {sensor}: {e}") from e
    missing = [w for w in wanted if w not in names]
    if missing:
        raise DataError(f"{path}: no band {', '.join(missing)} of {sensor} among {', '.join(names)}")
    return [names.index(w) for w in wanted]


def grid(height: int, width: int, chip: int, where: str) -> list[tuple[int, int]]:
    """``(top, left)`` of the whole, non-overlapping chips in ``height`` x ``width`` pixels, row by row.

    Raises:
        DataError: ``chip`` is below 1 or larger than the scene.
    """
    if not 1 <= chip <= min(height, width):
        raise DataError(f"{where}: chips of {chip} pixels from {height} x {width}; choose 1 to {min(height, width)}")
    return [(t, x) for t in range(0, height - chip + 1, chip) for x in range(0, width - chip + 1, chip)]


def stripes(width: int, chip: int, gap: int, where: str) -> list[list[int]]:
    """Left edges of the chip columns of training, validation and test: three stripes, ``gap`` unused pixels between them.

    >>> stripes(512, 64, 32, "scene")
    [[0, 64, 128, 192], [288, 352], [448]]

    Raises:
        DataError: a stripe would have no column, or ``gap`` is negative.
    """
    if gap < 0 or chip < 1:
        raise DataError(f"{where}: chips of {chip} pixels with gaps of {gap}; expected 1 or more, and 0 or more")
    columns = (width - 2 * gap) // chip
    edges = [round(float(e) * columns) for e in np.cumsum((0.0, *FRACTIONS))]
    if columns < 3 or len(set(edges)) < 4:
        raise DataError(
            f"{where}: {width} pixels give {max(columns, 0)} columns of {chip} with gaps of {gap}, too few for three "
            f"splits; choose smaller chips{' or a smaller gap' if gap else ''}"
        )
    return [[c * chip + i * gap for c in range(edges[i], edges[i + 1])] for i in range(3)]


def few(chips: Chips, limit: int | None, seed: int) -> Chips:
    """At most ``limit`` of ``chips``, drawn by ``seed``, in their old order; None keeps all."""
    if limit is None or len(chips) <= limit:
        return chips
    if limit < 1:
        raise DataError(f"{chips.name}: limit {limit}; expected at least 1 chip")
    rng = np.random.default_rng(purpose_seed(seed, "limit", limit))
    return chips.subset(sorted(rng.permutation(len(chips))[:limit].tolist()))
