"""Plain arrays out of HDF5 from strangers, read from memory: no links, no foreign files, no filters but gzip."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError, missing_extra

MAX_VALUES = 2**27
"""of an array, and of one of its chunks"""
_FILTERS = {1, 2, 3}  # deflate, shuffle, Fletcher's checksum: the ones that every HDF5 library has built in


def hdf5_array(
    data: bytes, name: str, where: str, take: Callable[[int], Sequence[int | None]] | None = None
) -> NDArray[Any]:
    """Array ``name`` of the HDF5 file ``data``.

    Args:
        data: the whole file.
        name: of an array at its top.
        where: for messages.
        take: given the length of the first axis, which of it is wanted; None in its answer becomes NaN (as float32).

    Raises:
        DataError: no HDF5, damaged, no such plain array of numbers in the file itself, or one that is far too large.
        MissingExtra: h5py is not installed.
    """
    h5py = _library()
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):  # others can name any file on this machine
                raise DataError(
                    f"{where}: no array {name!r} of its own; found {', '.join(map(str, file)) or 'nothing'}"
                )
            array = file[name]
            if problem := _problem(h5py, array):
                raise DataError(f"{where}: {name} {problem}; expected a plain array of numbers")
            if take is None:
                whole: NDArray[Any] = array[()]
                return whole
            wanted = take(len(array))
            out = np.full((len(wanted), *array.shape[1:]), np.nan, np.float32)
            for i, at in enumerate(wanted):
                if at is not None:
                    out[i] = array[at]
            return out
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as e:
        raise DataError(f"{where}: no plain array {name!r} can be read ({e}); fetch it again") from e


def hdf5_text(data: bytes, name: str, where: str) -> str:
    """The text of attribute ``name`` at the top of the HDF5 file ``data``.

    Raises:
        DataError: no HDF5, damaged, or no such text.
        MissingExtra: h5py is not installed.
    """
    h5py = _library()
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            text = file.attrs[name]
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as e:
        raise DataError(f"{where}: no text {name!r} can be read ({e}); fetch it again") from e
    if not isinstance(text, str):
        raise DataError(f"{where}: {name} is {type(text).__name__}; expected a text")
    return text


def _library() -> Any:
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as e:
        raise missing_extra("h5py", "datasets") from e
    return h5py


def _problem(h5py: Any, array: Any) -> str:
    """Why ``array`` must not be read, or an empty string."""
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "uif" or array.ndim < 1:
        return "is not an array of numbers"
    if array.is_virtual or array.external is not None:
        return "lies in other files"
    plan = array.id.get_create_plist()
    filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
    if filters - _FILTERS:
        return f"is packed by filters {sorted(filters)}"
    if 0 in array.shape or max(array.size, int(np.prod(array.chunks or (1,), dtype=object))) > MAX_VALUES:
        return f"is {array.shape} in pieces of {array.chunks}"
    return ""
