"""A GeoTIFF read as a model wants it: bands by name, units converted, NaN wherever a pixel is invalid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.bands import Band, BandSet
from eosfm.contracts import RasterError, UnitError
from eosfm.inference.plausibility import agreed_bands, shift_warnings, unit_warnings
from eosfm.inference.raster import BANDS_TAG, RasterFile
from eosfm.statistics import BandStatistics
from eosfm.units import convert, convertible

_SAMPLES_PER_AXIS, _SAMPLE_SIDE = 4, 256


def bands_of(path: Path | str) -> BandSet:
    """The bands that the GeoTIFF at ``path`` says it holds (its `BANDS_TAG` or band descriptions).

    Raises:
        BandError: it does not say; RasterError: it cannot be read.
    """
    file = RasterFile(path)
    try:
        found = agreed_bands(file.path, None, file.descriptions, file.tag(BANDS_TAG), alpha=file.alpha)
    finally:
        file.close()
    return found


class SceneReader:
    """Windows of one GeoTIFF as float32 in the bands and units a model wants, NaN where a pixel is invalid.

    Bands are found by name (`Band.key`), never by position. A pixel is invalid in all channels when any needed band is
    nodata, masked, NaN or infinite there.

    Args:
        path: a local GeoTIFF. Anything else is refused, also if it is called ``.tif``.
        wanted: the channels to return, in order, each with its unit.
        declared: what the file's bands are; None reads the file's `BANDS_TAG` or its band descriptions.
        nodata: the invalid value, replacing the one the file declares; masks and alpha bands still count.
        allow_no_crs: accept a scene without a coordinate reference system or transform.

    Raises:
        RasterError: the file cannot be opened, or contradicts ``declared``, or lacks a needed band or georeferencing.
        BandError, UnitError: ``declared`` repeats a band; a unit is not declared or does not convert.
    """

    def __init__(
        self,
        path: Path | str,
        wanted: BandSet,
        *,
        declared: BandSet | None = None,
        nodata: float | None = None,
        allow_no_crs: bool = False,
    ) -> None:
        self._file = file = RasterFile(path)
        try:
            self.path, self.height, self.width, self.where = file.path, file.height, file.width, file.where
            self.wanted = wanted
            self.bands = agreed_bands(self.path, declared, file.descriptions, file.tag(BANDS_TAG), alpha=file.alpha)
            self._alpha = file.count - 1 if len(self.bands) < file.count else None
            self._index = [self._locate(b) for b in wanted]
            self._nodata = file.nodata if nodata is None else (self._possible(nodata),) * file.count
            if not allow_no_crs:
                self._require_georeference()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._file.close()

    def read(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Float32 ``(len(wanted), height, width)`` in the wanted units, NaN in all channels of an invalid pixel.

        Raises:
            RasterError: the window leaves the scene, or its data is corrupt.
        """
        stored, valid = self._stored(top, left, height, width, self._index)
        x = torch.from_numpy(stored)
        for i, band in enumerate(self.wanted):
            x[i] = convert(x[i], self.bands[self._index[i]].unit, band.unit)
        x[:, ~(torch.from_numpy(valid) & x.isfinite().all(0))] = float("nan")  # a conversion may overflow
        return x

    def known_empty(self, top: int, left: int, height: int, width: int) -> bool:
        """True if no pixel of the window is valid and the file's index says so: a sparse file, nothing stored there.

        False means "read it to know". Lets a mostly empty scene of any size pass at the speed of its block index.
        """
        first = self._index[0]
        invalid, invented = self._nodata[first], self._file.nodata[first] or 0.0
        if invalid is None or (invalid != invented and not (np.isnan(invalid) and np.isnan(invented))):
            return False
        return self._file.is_sparse(top, left, height, width, first)

    def unit_warnings(self, trained: BandStatistics | None = None) -> list[str]:
        """Sentences about needed bands whose stored values do not look like their declared unit, from a few windows.

        ``trained`` are the statistics of a model's training data in the wanted units, to be compared with.
        """
        needed = sorted(set(self._index))
        high, wide = min(_SAMPLE_SIDE, self.height), min(_SAMPLE_SIDE, self.width)
        tops = np.unique(np.linspace(0, self.height - high, _SAMPLES_PER_AXIS).astype(int))
        lefts = np.unique(np.linspace(0, self.width - wide, _SAMPLES_PER_AXIS).astype(int))
        samples = [np.zeros((len(needed), 0), np.float32)]
        for top, left in ((int(t), int(s)) for t in tops for s in lefts):
            if not self.known_empty(top, left, high, wide):
                stored, valid = self._stored(top, left, high, wide, needed)
                samples.append(stored[:, valid])
        bands = BandSet(tuple(self.bands[i] for i in needed))
        declared = self._alpha is not None or self._file.has_mask or any(v is not None for v in self._nodata)
        stored = np.concatenate(samples, axis=1)
        found = unit_warnings(bands, stored, nodata_known=declared)
        if trained is not None:
            rows = [torch.from_numpy(stored[needed.index(i)]) for i in self._index]
            converted = [
                convert(row, self.bands[i].unit, w.unit)
                for row, i, w in zip(rows, self._index, self.wanted, strict=True)
            ]
            found += shift_warnings(self.wanted, torch.stack(converted).numpy(), trained)
        return found

    def _stored(
        self, top: int, left: int, height: int, width: int, index: Sequence[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values as stored ``(len(index), height, width)`` and which pixels are valid in every one of those bands."""
        raw = self._file.read(top, left, height, width, index)
        mask = self._file.mask(top, left, height, width)
        valid = np.ones((height, width), bool) if mask is None else mask
        if self._alpha is not None:
            valid &= self._file.read(top, left, height, width, [self._alpha])[0] > 0
        for values, i in zip(raw, index, strict=True):
            invalid = self._nodata[i]
            if invalid is not None:
                valid &= values != invalid  # a Python float: numpy rounds it to the file's type, as the writer did
        stored = raw.astype(np.float32)
        if raw.dtype.kind == "f":
            valid &= np.isfinite(stored).all(axis=0)
        return stored, valid

    def _locate(self, band: Band) -> int:
        i = self.bands.index_of(band.key)
        if i is None:
            raise RasterError(
                f"{self.path} lacks {band.family}:{band.name} ({band.common}), which the model needs; it has {self.bands}. "
                "Use a scene with that band, or a model that does without."
            )
        if not convertible(self.bands[i].unit, band.unit):
            raise UnitError(
                f"{self.path} stores {band.name} as {self.bands[i].unit}, which cannot be converted to the {band.unit} "
                "that the model needs: they measure different quantities."
            )
        return i

    def _possible(self, nodata: float) -> float:
        """``nodata``, or `RasterError` if no pixel of the file can have that value."""
        kind = self._file.dtype
        limits = None if kind.kind == "f" else np.iinfo(kind)
        if limits and not (limits.min <= nodata <= limits.max and float(nodata).is_integer()):
            raise RasterError(
                f"nodata={nodata:g} cannot occur in {self.path}: {kind} holds integers {limits.min}..{limits.max}"
            )
        return float(nodata)

    def _require_georeference(self) -> None:
        if self.where.missing:
            raise RasterError(
                f"{self.path} has no {' and no '.join(self.where.missing)}, so a map of it could not be placed. "
                "Georeference it, or allow this with --allow-no-crs (data.allow_no_crs: true in a YAML file)."
            )
