"""Batches whose order and augmentation depend on (seed, epoch, batch) only, so that a resumed run is the same run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError
from eosfm.engine.cache import Features
from eosfm.seeding import purpose_seed
from eosfm.tasks.boxes import turned_boxes
from eosfm.tasks.kinds import OBJECTS
from eosfm.training.colour import Colour, optical_channels, recoloured

UNCHANGED = Colour()
Key = tuple[int, int, list[int]]
"""(epoch, batch number, indices)"""


class BatchSource(Protocol):
    """Anything that gives (input, label) batches by index: chips, or cached features."""

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> tuple[Any, Tensor]: ...


@runtime_checkable
class ImageSource(BatchSource, Protocol):
    """One whose inputs are images of ``bands``, of one date or several."""

    @property
    def bands(self) -> BandSet: ...


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
        rank, world = place()
        for b in range(len(self)):
            batch = order[b * self.batch_size : (b + 1) * self.batch_size]
            batch += batch[: max(0, world - len(batch))]  # no process may be left without a chip
            yield self.epoch, b * world + rank, batch[rank::world]


def place() -> tuple[int, int]:
    """This process's number and the number of processes that share every batch: (0, 1) but for a DDP run."""
    on = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if on else (0, 1)


class _Batches(Dataset[tuple[Any, Tensor]]):
    def __init__(self, source: BatchSource, seed: int, augment: bool, zoom: float, colour: Colour) -> None:
        self.source, self.seed, self.augment, self.zoom, self.colour = source, seed, augment, zoom, colour

    def __getitem__(self, key: Key) -> tuple[Any, Tensor]:
        epoch, number, indices = key
        g = torch.Generator().manual_seed(purpose_seed(self.seed, "augment", epoch, number))
        if isinstance(self.source, Features):  # its augmentation was computed before; here it is drawn
            among = torch.randint(len(self.source.orientations), (len(indices),), generator=g).tolist()
            return self.source.batch(indices, among if self.augment else None)
        x, y = self.source.batch(indices)
        boxes = getattr(self.source, "kind", "") == "detection"
        if self.augment:
            x, y = dihedral(x, y, g, boxes=boxes)
        if self.zoom:
            x, y = zoomed(x, y, self.zoom, g)
        if self.colour and isinstance(self.source, ImageSource):
            x = recoloured(x, self.source.bands, self.colour, g)
        return x, y


def loader(
    source: BatchSource,
    batch_size: int,
    seed: int,
    *,
    train: bool,
    augment: bool = False,
    zoom: float = 0.0,
    colour: Colour = UNCHANGED,
    workers: int = 0,
) -> DataLoader[tuple[Any, Tensor]]:
    """A data loader over whole batches; shuffled and augmented only where ``train``.

    Raises:
        ConfigError: other colours are asked for where there are no optical bands.
    """
    if colour:
        if not isinstance(source, ImageSource):
            raise ConfigError(
                "brightness, contrast and band_gain need images with named bands; these are cached features"
            )
        optical_channels(source.bands)
    if zoom and train and getattr(source, "kind", "") in OBJECTS:
        raise ConfigError("zoom is not for boxes and instances, which a crop would cut; set fit: {zoom: 0}")
    return DataLoader(
        _Batches(source, seed, augment and train, zoom if train else 0.0, colour if train else UNCHANGED),
        batch_size=None,  # the sampler already yields whole batches
        sampler=EpochSampler(len(source), batch_size, seed, shuffle=train),
        num_workers=workers,
        persistent_workers=False,  # workers keep no state, so an epoch can be replayed
    )


def dihedral(x: Tensor, y: Tensor, g: torch.Generator, *, boxes: bool = False) -> tuple[Tensor, Tensor]:
    """Each image of ``x`` ``(b, c, h, w)`` turned or flipped by a random symmetry of the square, its label map alike.

    With ``boxes`` the labels are lists of boxes ``(b, m, 5)``, see `eosfm.tasks.boxes`.

    Nadir images have no up; colours are left alone because they are measurements (`training.colour` changes them on request).
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

    if boxes:
        which = (turns * step + 4 * flips).tolist()
        h, w = x.shape[-2:]
        return move(x), torch.stack([turned_boxes(one, o, (h, w)) for one, o in zip(y, which, strict=True)])
    return move(x), move(y) if y.ndim >= 3 else y


def zoomed(x: Tensor, y: Tensor, amount: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random crop of each image, ``1 - amount`` to 1 of its side, enlarged to the whole chip; label maps alike.

    The pixels of a crop are finer than the sensor's, up to ``1 / (1 - amount)`` times: a lossy step that is asked for by
    name. Images bilinear, labels nearest; a pixel that borders on nodata becomes nodata.
    """
    n = len(x)
    side = 1 - amount * torch.rand(n, generator=g)
    shift = (2 * torch.rand(n, 2, generator=g) - 1) * (1 - side)[:, None]
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [n, 1, *x.shape[-2:]], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if y.ndim < 3:
        return x, y
    moved = F.grid_sample(
        y[:, None].double(), grid.double(), mode="nearest", padding_mode="border", align_corners=False
    )
    return x, moved[:, 0].to(y.dtype)
