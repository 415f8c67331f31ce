"""Chips: images of one size with their labels, and always with their bands. What training and evaluation read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.footprints import Footprint, require_apart
from eosfm.data.labels import fits, label_shape, require_labels, shown
from eosfm.inference.plausibility import unit_warnings
from eosfm.seeding import purpose_seed
from eosfm.statistics import BandStatistics, band_statistics
from eosfm.tasks.kinds import KINDS


@dataclass(frozen=True)
class Chips:
    """A data set in memory.

    Raises:
        DataError: empty, sizes that disagree, labels outside the classes, or an unknown kind.
    """

    images: Tensor
    """``(n, c, h, w)`` in the units of ``bands``, any numeric type; NaN where nodata"""
    labels: Tensor
    """see `eosfm.tasks.objectives`"""
    bands: BandSet
    kind: str
    classes: tuple[str, ...]
    name: str
    licence: str = "unknown"
    source: str = ""
    ids: tuple[str, ...] = field(default=())
    """one per chip; no id may occur in two splits"""
    footprints: tuple[Footprint, ...] = ()
    """one per chip where it is known where they lie; no place may occur in two splits"""

    def __post_init__(self) -> None:
        n = len(self.images)
        if n == 0:
            raise DataError(f"{self.name}: no chips; check the folder, the split and the file endings")
        if self.kind not in KINDS:
            raise DataError(f"{self.name}: unknown task kind {self.kind!r}; known: {', '.join(KINDS)}")
        if self.images.ndim != 4 or self.images.shape[1] != len(self.bands):
            raise DataError(
                f"{self.name}: images {tuple(self.images.shape)}; expected (n, {len(self.bands)}, h, w) for {self.bands}"
            )
        if len(self.labels) != n:
            raise DataError(f"{self.name}: {n} images but {len(self.labels)} labels")
        size = tuple(self.images.shape[-2:])
        shape = (n, *label_shape(self.kind, len(self.classes), self.size))
        if not fits(tuple(self.labels.shape), shape):
            raise DataError(
                f"{self.name}: labels {tuple(self.labels.shape)}; {self.kind} of {n} images {size} has {shown(shape)}"
            )
        if self.ids and (len(self.ids) != n or len(set(self.ids)) != n):
            raise DataError(f"{self.name}: {len(self.ids)} ids, {len(set(self.ids))} different ones, for {n} chips")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(f"{self.name}/{i}" for i in range(n)))
        if len(self.footprints) not in (0, n):
            raise DataError(f"{self.name}: {len(self.footprints)} footprints for {n} chips")
        require_labels(self.kind, self.labels, len(self.classes), self.name, self.size)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """``(h, w)`` of the chips."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    @property
    def dates(self) -> int:
        """1: chips in memory show one date."""
        return 1

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Float32 images and labels at ``indices``."""
        i = torch.as_tensor(list(indices))
        return self.images[i].float(), self.labels[i]

    def subset(self, indices: Sequence[int], name: str | None = None) -> Chips:
        """The chips at ``indices``, in that order."""
        i = torch.as_tensor(list(indices), dtype=torch.long)
        ids = tuple(self.ids[j] for j in i.tolist())
        places = tuple(self.footprints[j] for j in i.tolist()) if self.footprints else ()
        return replace(
            self, images=self.images[i], labels=self.labels[i], ids=ids, footprints=places, name=name or self.name
        )

    def statistics(self) -> BandStatistics:
        """Mean and std per band over valid pixels, in the declared units."""
        return band_statistics(self.images[i : i + 256] for i in range(0, len(self), 256))

    def unit_warnings(self) -> list[str]:
        """Sentences about bands whose values do not look like their declared unit (linear given as dB, say)."""
        some = self.images[:: max(1, len(self) // 64)].float().transpose(0, 1).flatten(1)
        valid = some[:, some.isfinite().all(0)][:, :200_000]
        return unit_warnings(self.bands, valid.numpy(), nodata_known=True)

    def label_warnings(self) -> list[str]:
        """A sentence naming the classes that no label has: nothing can be learnt of them."""
        if self.kind == "regression":
            return []
        if self.kind == "multilabel":
            seen = self.labels.any(0).nonzero()[:, 0]
        elif self.kind == "detection":
            seen = torch.unique(self.labels[..., 0])
        elif self.kind == "instances":
            seen = torch.unique(self.labels[:, 1][self.labels[:, 0] > 0])
        else:
            seen = torch.unique(self.labels)
        absent = [c for i, c in enumerate(self.classes) if i not in set(seen.tolist())]
        return [f"{self.name}: no label is {', '.join(map(repr, absent))}"] if absent else []

    def sha256(self) -> str:
        """Hash of pixels, labels, bands and classes: two runs with equal hashes saw equal data."""
        h = hashlib.sha256(f"{self.bands}|{self.kind}|{self.classes}".encode())
        for t in (self.images, self.labels):
            h.update(f"{t.dtype}{tuple(t.shape)}".encode())
            h.update(np.ascontiguousarray(t.numpy()).data)
        return h.hexdigest()


class ChipSet(Protocol):
    """What training, scoring and reports need of a data set: `Chips` in memory, or `StreamedChips` on disk."""

    @property
    def bands(self) -> BandSet: ...
    @property
    def kind(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def name(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def dates(self) -> int: ...
    def __len__(self) -> int: ...
    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]: ...
    def subset(self, indices: Sequence[int], name: str | None = None) -> ChipSet: ...
    def statistics(self) -> BandStatistics: ...
    def unit_warnings(self) -> list[str]: ...
    def label_warnings(self) -> list[str]: ...
    def sha256(self) -> str: ...


@dataclass(frozen=True)
class Splits:
    """Training, validation and test data that share bands and classes and no chip.

    Raises:
        DataError: a chip or a place in two splits, or splits that disagree on bands or classes.
    """

    train: ChipSet
    validation: ChipSet
    test: ChipSet
    rule: str = ""
    """how the split was made, for the card"""

    def __post_init__(self) -> None:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        seen: dict[str, str] = {}
        for name, part in parts.items():
            if (part.bands, part.classes, part.kind) != (self.train.bands, self.train.classes, self.train.kind):
                raise DataError(
                    f"{part.name}: the {name} split has other bands, classes or task than the training split"
                )
            for i in part.ids:
                if seen.setdefault(i, name) != name:
                    raise DataError(
                        f"chip {i!r} is in both the {seen[i]} and the {name} split; scores would be worthless"
                    )
        placed = {name: (p.ids, f) for name, p in parts.items() if (f := getattr(p, "footprints", ()))}
        require_apart(placed)


def split_indices(
    n: int, fractions: Sequence[float], seed: int, groups: Sequence[object] | None = None
) -> list[list[int]]:
    """``n`` indices shuffled by ``seed`` and cut into ``fractions``; stratified where ``groups`` (say, labels) are given.

    >>> [len(p) for p in split_indices(10, (0.6, 0.2, 0.2), seed=0)]
    [6, 2, 2]
    """
    rng = np.random.default_rng(purpose_seed(seed, "split"))
    strata: dict[object, list[int]] = {}
    for i in range(n):
        strata.setdefault(0 if groups is None else groups[i], []).append(i)
    parts: list[list[int]] = [[] for _ in fractions]
    for members in strata.values():
        order = [members[j] for j in rng.permutation(len(members))]
        edges = [round(float(e) * len(order)) for e in np.cumsum((0.0, *fractions))]
        for part, a, b in zip(parts, edges[:-1], edges[1:], strict=True):
            part += order[a:b]
    return [sorted(p) for p in parts]


def few_per_class(chips: ChipSet, per_class: int, seed: int) -> ChipSet:
    """At most ``per_class`` chips of each class, drawn by ``seed`` (classification only)."""
    if chips.kind != "classification":
        raise DataError(f"few_per_class is for classification, not {chips.kind}")
    rng = np.random.default_rng(purpose_seed(seed, "few", per_class))
    picked: list[int] = []
    for c in range(len(chips.classes)):
        members = (chips.labels == c).nonzero()[:, 0].tolist()
        picked += [members[j] for j in rng.permutation(len(members))[:per_class]]
    return chips.subset(sorted(picked), f"{chips.name}, {per_class} labels a class")
