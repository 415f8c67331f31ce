"""Batches whose order and augmentation depend on (seed, epoch, batch) only, so that a resumed run is the same run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from eosfm.seeding import purpose_seed

Key = tuple[int, int, list[int]]
"""(epoch, batch number, indices)"""


class BatchSource(Protocol):
    """Anything that gives (input, label) batches by index: chips, or cached features."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> tuple[Any, Tensor]: ...


class EpochSampler(Sampler[Key]):
    """Shuffled batches, each epoch in its own order; Lightning calls `set_epoch`."""

    def __init__(self, n: int, batch_size: int, seed: int, shuffle: bool) -> None:
        self.n, self.batch_size, self.seed, self.shuffle, self.epoch = n, batch_size, seed, shuffle, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Key]:
        if self.shuffle:
            g = torch.Generator().manual_seed(purpose_seed(self.seed, "order", self.epoch))
            order = torch.randperm(self.n, generator=g).tolist()
        else:
            order = list(range(self.n))
        for b in range(len(self)):
            yield self.epoch, b, order[b * self.batch_size : (b + 1) * self.batch_size]


class _Batches(Dataset[tuple[Any, Tensor]]):
    def __init__(self, source: BatchSource, seed: int, augment: bool) -> None:
        self.source, self.seed, self.augment = source, seed, augment

    def __getitem__(self, key: Key) -> tuple[Any, Tensor]:
        epoch, number, indices = key
        x, y = self.source.batch(indices)
        if self.augment:
            g = torch.Generator().manual_seed(purpose_seed(self.seed, "augment", epoch, number))
            x, y = dihedral(x, y, g)
        return x, y


def loader(
    source: BatchSource, batch_size: int, seed: int, *, train: bool, augment: bool = False, workers: int = 0
) -> DataLoader[tuple[Any, Tensor]]:
    """A data loader over whole batches; shuffled and augmented only where ``train``."""
    return DataLoader(
        _Batches(source, seed, augment and train),
        batch_size=None,  # the sampler already yields whole batches
        sampler=EpochSampler(len(source), batch_size, seed, shuffle=train),
        num_workers=workers,
        persistent_workers=False,  # workers keep no state, so an epoch can be replayed
    )


def dihedral(x: Tensor, y: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image of ``x`` ``(b, c, h, w)`` turned or flipped by a random symmetry of the square, its label map alike.

    Nadir images have no up; colours are left alone because they are measurements.
    """
    turns = torch.randint(4 if x.shape[-1] == x.shape[-2] else 2, (len(x),), generator=g)
    flips = torch.rand(len(x), generator=g) < 0.5
    step = 1 if x.shape[-1] == x.shape[-2] else 2

    def move(t: Tensor) -> Tensor:
        out = t.clone()
        for k in range(4):
            for f in (False, True):
                which = ((turns * step == k) & (flips == f)).nonzero()[:, 0]
                if len(which) and (k or f):
                    m = torch.rot90(t[which], k, (-2, -1))
                    out[which] = m.flip(-1) if f else m
        return out

    return move(x), move(y) if y.ndim >= 3 else y
