"""Chips that stay on disk: data sets larger than memory, with the same face as `eosfm.data.chips.Chips`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.labels import fits, label_shape, require_labels, shown
from eosfm.inference.plausibility import unit_warnings
from eosfm.statistics import BandStatistics, band_statistics
from eosfm.tasks.boxes import stacked
from eosfm.tasks.kinds import KINDS

SAMPLED = 2_000
"""chips that statistics are measured on; 0.02 sigma of error even if every chip were one independent value"""
HASHED = 64
"""chips whose pixels enter the hash, besides all ids"""


class Reader(Protocol):
    """Reads one chip by its id; a picklable object, so that worker processes can have it."""

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        """``(image (c, h, w), label)`` in the declared units; NaN where nodata, `IGNORE` where there is no label."""
        ...


@dataclass(frozen=True)
class StreamedChips:
    """A data set on disk, read chip by chip. Each chip is checked when it is read.

    Raises:
        DataError: no ids or doubled ones, an unknown kind; while reading, a chip of another shape or a label outside
            the classes, with the chip's id.
    """

    read: Reader
    ids: tuple[str, ...]
    size: tuple[int, int]
    """``(h, w)`` of every chip"""
    bands: BandSet
    kind: str
    classes: tuple[str, ...]
    name: str
    licence: str = "unknown"
    source: str = ""
    dates: int = 1
    """more than 1: images are ``(dates * c, h, w)``, the bands of the first date, then of the second. 2 dates are a change
    (`eosfm.training.dates.TwoDates`), more a time series (`MeanOfDates`)"""

    def __post_init__(self) -> None:
        if not self.ids:
            raise DataError(f"{self.name}: no chips; check the folder, the split and the file endings")
        if len(set(self.ids)) != len(self.ids):
            raise DataError(f"{self.name}: {len(self.ids) - len(set(self.ids))} chips are listed twice")
        if self.kind not in KINDS:
            raise DataError(f"{self.name}: unknown task kind {self.kind!r}; known: {', '.join(KINDS)}")

    def __len__(self) -> int:
        return len(self.ids)

    def chip(self, i: int) -> tuple[Tensor, Tensor]:
        """Float32 image and label of chip ``i``, checked."""
        key = self.ids[i]
        x, y = self.read(key)
        channels = self.dates * len(self.bands)
        if tuple(x.shape) != (channels, *self.size):
            raise DataError(
                f"{self.name}, {key}: image {tuple(x.shape)}; expected {(channels, *self.size)} for {self.bands}"
            )
        shape = label_shape(self.kind, len(self.classes), self.size)
        if not fits(tuple(y.shape), shape):
            raise DataError(f"{self.name}, {key}: label {tuple(y.shape)}; {self.kind} has {shown(shape)}")
        require_labels(self.kind, y[None], len(self.classes), f"{self.name}, {key}", self.size)
        return x.float(), y

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Float32 images and labels at ``indices``."""
        pairs = [self.chip(i) for i in indices]
        return torch.stack([x for x, _ in pairs]), stacked([y for _, y in pairs])

    def subset(self, indices: Sequence[int], name: str | None = None) -> StreamedChips:
        """The chips at ``indices``, in that order."""
        return replace(self, ids=tuple(self.ids[i] for i in indices), name=name or self.name)

    @property
    def labels(self) -> Tensor:
        """All labels; reads every chip, so ask for it once and only where all of them are needed."""
        return stacked([self.chip(i)[1] for i in range(len(self))])

    def spread(self, n: int) -> list[int]:
        """Up to ``n`` indices, evenly spread."""
        return [int(i) for i in np.unique(np.linspace(0, len(self) - 1, min(n, len(self))).round())]

    def statistics(self) -> BandStatistics:
        """Mean and std per band over the valid pixels of up to `SAMPLED` evenly spread chips, in the declared units."""
        return band_statistics(self._images(self.spread(SAMPLED)))

    def unit_warnings(self) -> list[str]:
        """Sentences about bands whose values do not look like their declared unit."""
        some = torch.cat(list(self._images(self.spread(32)))).transpose(0, 1).flatten(1)
        valid = some[:, some.isfinite().all(0)][:, :200_000]
        return unit_warnings(self.bands, valid.numpy(), nodata_known=True)

    def label_warnings(self) -> list[str]:
        """None: knowing which classes occur would mean reading every chip."""
        return []

    def sha256(self) -> str:
        """Hash of all ids, bands and classes, and of the pixels and labels of `HASHED` evenly spread chips."""
        h = hashlib.sha256(f"{self.bands}|{self.kind}|{self.classes}|{self.size}".encode())
        h.update("\n".join(self.ids).encode())
        for i in self.spread(HASHED):
            for t in self.chip(i):
                h.update(f"{t.dtype}{tuple(t.shape)}".encode())
                h.update(np.ascontiguousarray(t.numpy()).data)
        return h.hexdigest()

    def _images(self, indices: Sequence[int]) -> Iterator[Tensor]:
        for a in range(0, len(indices), 16):
            images = torch.stack([self.chip(i)[0] for i in indices[a : a + 16]])
            yield images.reshape(-1, len(self.bands), *self.size)
