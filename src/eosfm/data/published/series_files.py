"""What the readers of time series share: which dates are taken, how they are stacked, and plain numpy files.

A chip of ``n`` dates is ``(n * c, h, w)``, the bands of the first date, then those of the second (`StreamedChips.dates`).
Nothing is invented for a date that a place does not have: it is NaN, and `eosfm.training.dates.MeanOfDates` leaves it out.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError
from eosfm.data.archives import scan_zip
from eosfm.data.folders import Field

_MAX_VALUES = 2**27


def require_dates(dates: int, most: int, title: str) -> None:
    """`DataError` unless ``dates`` is 1, or 3 to ``most``: chips of two dates are read as a change, not as a series."""
    if dates != 1 and not 3 <= dates <= most:
        raise DataError(f"{title}: dates {dates}; expected 1, or 3 to {most} (2 would be read as a change)")


def evenly(available: int, dates: int) -> list[int | None]:
    """Positions of ``dates`` of ``available`` pictures: evenly spread from first to last; one date is the last (as in PANGAEA).

    Where there are fewer pictures than dates, all of them and then None.

    >>> evenly(11, 6), evenly(11, 1), evenly(2, 3)
    ([0, 2, 4, 6, 8, 10], [10], [0, 1, None])
    """
    if available < dates:
        return [*range(available), *([None] * (dates - available))]
    if dates == 1:
        return [available - 1]
    return [int(i) for i in np.linspace(0, available - 1, dates)]


def stack_dates(pictures: Sequence[Field | None], shape: tuple[int, int, int]) -> Field:
    """``(dates * c, h, w)`` of pictures of ``shape`` ``(c, h, w)``; a missing one is NaN."""
    return np.concatenate([np.full(shape, np.nan, np.float32) if p is None else p for p in pictures])


def read_npy(path: Path, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """A plain array, mapped, not read: take what is needed. ``shape`` has None where any length will do.

    Raises:
        DataError: no plain array of numbers (pickled content is refused), cut short, or of another shape.
    """
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as e:
        raise DataError(f"{path}: no plain array can be read ({e}); fetch it again") from e
    return _checked(path, path.name, values, shape)


def read_npz(path: Path, name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Array ``name`` of an archive of arrays; ``shape`` as in `read_npy`.

    Raises:
        DataError: a harmful or damaged archive, no such plain array in it, or one of another shape.
    """
    scan_zip(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values: NDArray[Any] = arrays[name]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path}: no plain array {name!r} can be read ({e}); fetch it again") from e
    return _checked(path, name, values, shape)


def _checked(path: Path, name: str, values: NDArray[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
    fits = values.ndim == len(shape) and all(w in (None, n) for n, w in zip(values.shape, shape, strict=True))
    if not fits or values.dtype.kind not in "uif" or values.size > _MAX_VALUES or 0 in values.shape:
        wanted = ", ".join("any" if w is None else str(w) for w in shape)
        raise DataError(f"{path}: {name} is {values.dtype} {values.shape}; expected numbers ({wanted})")
    return values
