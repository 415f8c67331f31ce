"""Where tiles lie on a scene and how their overlapping outputs blend. Arrays only: no files, no bands.

    |<---- chip ---->|
    0                            tile 0       positions step by pitch = chip - overlap,
              |<---- chip ---->| tile 1       the last tile is shifted inwards to the edge

Positions belong to the scene, never to a work block, so a pixel's result does not depend on how the scene was cut up.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from eosfm.contracts import ConfigError

WEIGHT_FLOOR = 0.01
"""Smallest blending weight along one axis: positive, so that a pixel seen by a tile's rim alone still has a value."""


@dataclass(frozen=True)
class Block:
    """A rectangle of the scene that is computed and stored as one piece, in input pixels and in output pixels."""

    index: int
    top: int
    left: int
    height: int
    width: int
    stride: int

    @property
    def out_top(self) -> int:
        return self.top // self.stride

    @property
    def out_left(self) -> int:
        return self.left // self.stride

    @property
    def out_height(self) -> int:
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        return -(-self.width // self.stride)


@dataclass(frozen=True)
class TileGrid:
    """Tiles of exactly ``chip`` x ``chip`` pixels that cover a scene of ``height`` x ``width`` pixels.

    ``stride`` is how many input pixels one output pixel spans along an axis. Where the scene is smaller than a chip, or
    its size is not a multiple of ``stride``, the last tile reaches past the edge; `pad_edges` fills what is missing.

    Raises:
        ConfigError: a size below 1, a stride that does not divide the chip, an overlap that is negative (tiles would
            leave gaps), not below the chip (tiles would not advance) or not a multiple of the stride.
    """

    height: int
    width: int
    chip: int
    overlap: int
    stride: int = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.chip, self.stride) < 1:
            raise ConfigError(
                f"scene {self.height} x {self.width}, chip {self.chip}, stride {self.stride}: all must be at least 1"
            )
        if self.chip % self.stride:
            raise ConfigError(f"stride {self.stride} must divide the chip size {self.chip}")
        if not 0 <= self.overlap < self.chip:
            raise ConfigError(
                f"overlap {self.overlap} must lie in 0..{self.chip - self.stride} (chip size {self.chip}): "
                "a negative one leaves gaps between tiles, a larger one never advances"
            )
        if self.overlap % self.stride:
            raise ConfigError(
                f"overlap {self.overlap} must be a multiple of the model's stride {self.stride}; "
                f"the nearest is {min(round(self.overlap / self.stride) * self.stride, self.chip - self.stride)}"
            )

    @property
    def pitch(self) -> int:
        """Distance between the starts of neighbouring tiles, in input pixels."""
        return self.chip - self.overlap

    @property
    def out_height(self) -> int:
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        return -(-self.width // self.stride)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """First scene row of each row of tiles, ascending, multiples of ``stride``."""
        return _positions(self.out_height * self.stride, self.chip, self.pitch)

    @cached_property
    def cols(self) -> tuple[int, ...]:
        """First scene column of each column of tiles."""
        return _positions(self.out_width * self.stride, self.chip, self.pitch)

    @property
    def tiles(self) -> int:
        """Number of tiles on the scene."""
        return len(self.rows) * len(self.cols)

    def rows_touching(self, start: int, stop: int) -> range:
        """Indices into `rows` of the tiles that share a pixel row with ``start <= row < stop``."""
        return _touching(self.rows, self.chip, start, stop)

    def cols_touching(self, start: int, stop: int) -> range:
        """Indices into `cols` of the tiles that share a pixel column with ``start <= column < stop``."""
        return _touching(self.cols, self.chip, start, stop)

    def coverage(self, block: Block) -> Tensor:
        """How many tiles cover each output pixel of ``block``: int64 ``(out_height, out_width)``, at least 1."""
        down = _counts(self.rows, self.chip, block.top, block.out_height, self.stride)
        across = _counts(self.cols, self.chip, block.left, block.out_width, self.stride)
        return down[:, None] * across[None, :]

    @cached_property
    def weight(self) -> Tensor:
        """Blending weight of a tile's output pixels: float32 ``(chip / stride, chip / stride)``, in (0, 1].

        A raised cosine over the overlap, flat in between, so that two neighbours cross-fade.
        """
        n, ramp = self.chip // self.stride, min(self.overlap, self.chip // 2) // self.stride
        line = torch.ones(n, dtype=torch.float64)
        if ramp:
            rise = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(ramp, dtype=torch.float64) + 0.5) / ramp)
            line[:ramp] = WEIGHT_FLOOR + (1.0 - WEIGHT_FLOOR) * rise
            line[n - ramp :] = line[:ramp].flip(0)
        return torch.outer(line, line).float()

    def block_side(self, target: int) -> int:
        """Side of the work blocks closest to ``target`` input pixels: a multiple of `pitch`, at least one.

        Edges on tile starts keep the tiles that two blocks share, and therefore compute twice, to one row.
        """
        if target < 1:
            raise ConfigError(f"block {target} must be at least 1 pixel; 1024 is usual")
        return self.pitch * max(1, round(target / self.pitch))

    def blocks(self, target: int) -> Iterator[Block]:
        """Work blocks of about ``target`` x ``target`` input pixels that partition the scene, row by row."""
        side, index = self.block_side(target), 0
        for top in range(0, self.height, side):
            for left in range(0, self.width, side):
                height, width = min(side, self.height - top), min(side, self.width - left)
                yield Block(index, top, left, height, width, self.stride)
                index += 1

    def block_count(self, target: int) -> int:
        """How many blocks `blocks` yields."""
        side = self.block_side(target)
        return -(-self.height // side) * -(-self.width // side)


class Blend:
    """Weighted mean and spread of overlapping tile outputs over one rectangle, updated tile by tile.

    West's running update (1979) instead of sums: where all tiles agree the mean is their value to the last bit and the
    spread is exactly 0, whatever the weights.
    """

    def __init__(self, channels: int, height: int, width: int, *, votes: bool) -> None:
        """Zeros for ``channels`` x ``height`` x ``width`` output pixels; ``votes``: also compare argmaxes (classes)."""
        self.mean = torch.zeros(channels, height, width)
        self.total = torch.zeros(height, width)
        self._spread = torch.zeros(height, width)
        self._first = torch.full((height, width), -1, dtype=torch.int32) if votes else None
        self._split = torch.zeros(height, width, dtype=torch.bool)

    def add(self, out: Tensor, weight: Tensor, top: int, left: int) -> None:
        """Blend in ``out`` ``(channels, n, n)`` whose corner lies at output pixel (``top``, ``left``), cut to fit.

        ``weight`` is ``(n, n)``. A corner may be negative: that part of the tile lies outside the rectangle.
        """
        (height, width), (th, tw) = self.total.shape, weight.shape
        y0, y1, x0, x1 = max(0, top), min(height, top + th), max(0, left), min(width, left + tw)
        if y0 >= y1 or x0 >= x1:
            return
        here = (slice(y0, y1), slice(x0, x1))
        there = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        w, value = weight[there], out[(slice(None), *there)]
        self.total[here] += w
        mean = self.mean[(slice(None), *here)]
        before = value - mean
        mean += before * (w / self.total[here])
        self._spread[here] += w * (before * (value - mean)).sum(0)
        if self._first is not None:
            vote = value.max(0).indices.to(torch.int32)  # as argmax, ten times as fast over the first axis
            first = self._first[here]
            self._split[here] |= (first >= 0) & (first != vote)
            self._first[here] = torch.where(first < 0, vote, first)

    @property
    def deviation(self) -> Tensor:
        """Weighted standard deviation between the tiles at each pixel, root mean square over channels: ``(h, w)``."""
        variance = self._spread / self.total.clamp_min(torch.finfo(torch.float32).tiny) / self.mean.shape[0]
        return variance.clamp_min(0.0).sqrt()

    @property
    def split(self) -> Tensor:
        """Where the tiles' argmaxes differ, bool ``(h, w)``: exactly where some tile contradicts the blended argmax."""
        return self._split


def default_overlap(chip: int, stride: int) -> int:
    """A quarter of the chip, rounded up to a multiple of ``stride``; 0 where that would exceed half the chip."""
    overlap = -(-(chip // 4) // stride) * stride
    return overlap if overlap <= chip // 2 else 0


def pad_edges(x: Tensor, height: int, width: int) -> Tensor:
    """``x`` ``(c, h, w)`` grown to ``(c, height, width)`` at the bottom and right by repeating the last row and column.

    Index arithmetic rather than `torch.nn.functional.pad`, so that a 1 x 1 scene can fill a whole chip and NaN stays.
    """
    h, w = x.shape[-2:]
    if (h, w) == (height, width):
        return x
    down = torch.arange(height).clamp_max(h - 1)
    across = torch.arange(width).clamp_max(w - 1)
    return x[..., down[:, None], across[None, :]]


def any_valid(valid: Tensor, stride: int) -> Tensor:
    """Which output pixels have at least one valid input pixel: bool ``(h, w)`` -> ``(ceil(h/stride), ceil(w/stride))``.

    >>> any_valid(torch.tensor([[True, False, False]]), 2)
    tensor([[ True, False]])
    """
    if stride == 1:
        return valid
    h, w = valid.shape
    rows, cols = -(-h // stride), -(-w // stride)
    full = torch.zeros(rows * stride, cols * stride, dtype=torch.bool)
    full[:h, :w] = valid
    return full.view(rows, stride, cols, stride).any(3).any(1)


def _positions(length: int, chip: int, pitch: int) -> tuple[int, ...]:
    if length <= chip:
        return (0,)
    return (*range(0, length - chip, pitch), length - chip)


def _touching(starts: tuple[int, ...], chip: int, start: int, stop: int) -> range:
    return range(bisect_right(starts, start - chip), bisect_left(starts, stop))


def _counts(starts: tuple[int, ...], chip: int, origin: int, length: int, stride: int) -> Tensor:
    pixels = torch.arange(length) * stride + origin
    begun = torch.searchsorted(torch.tensor(starts), pixels, right=True)
    ended = torch.searchsorted(torch.tensor([s + chip for s in starts]), pixels, right=True)
    return begun - ended
