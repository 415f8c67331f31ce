"""Named baselines in the harness: any frozen network that gives feature maps, reading pixels by band name and declared unit.

    Backbone(name, Built(body, reading), plan, size, seed, bands)(x)   -> four maps at strides 4/8/16/32 of x as the data come

A library's module under `eosfm.benchmark.named` gives a `Body` (the network, its native maps) and its `Reading`s (which
bands, in which order, unit and normalisation: `eosfm.benchmark.readings`). Frozen and trainable halves are divided as in
`eosfm.ensemble`: `encode` gives the native maps, `fuse` brings them to the pyramid's strides.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.adaptation import AdaptationPlan, adapt
from eosfm.bands import BandSet
from eosfm.benchmark.readings import Name, Reading
from eosfm.contracts import PYRAMID_STRIDES, ConfigError, Pyramid
from eosfm.engine.cache import weights_sha256
from eosfm.seeding import purpose_seed, seeded


class Body(nn.Module, ABC):
    """A network and the native feature maps it is known by."""

    channels: tuple[int, ...]
    """of each map, finest first"""
    strides: tuple[int, ...]
    side: int | None = None
    """the only side of images it reads; None where any multiple of 32 will do"""
    source: str = ""
    """library, version, model"""
    how: str = ""
    """which layers the maps are, for reports"""
    resolution: float | None = None
    """metres of a pixel of the data, where a network asks"""

    @abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """Four maps ``(b, c, h', w')`` of standardised ``x``, finest first."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """See `maps`."""
        return self.maps(x)

    def measure(self, in_channels: int) -> None:
        """Set `channels` and `strides` by what the network gives."""
        side = self.side or 64
        with torch.no_grad():
            found = self.eval().maps(torch.zeros(1, in_channels, side, side))
        if len(found) != len(PYRAMID_STRIDES):
            raise ConfigError(f"{self.source}: {len(found)} feature maps; four are needed")
        self.channels = tuple(int(m.shape[1]) for m in found)
        self.strides = tuple(round(side / m.shape[-2]) for m in found)


@dataclass(frozen=True)
class Built:
    """What a library's module gives for one input."""

    body: Body
    reading: Reading


@dataclass(frozen=True)
class Tiles:
    """How an image of ``h x w`` meets a network that reads one side only: resized to whole tiles, each run alone."""

    rows: int
    columns: int
    side: int

    @classmethod
    def of(cls, h: int, w: int, side: int) -> Tiles:
        return cls(max(1, round(h / side)), max(1, round(w / side)), side)

    @property
    def size(self) -> tuple[int, int]:
        return self.rows * self.side, self.columns * self.side


class Backbone(nn.Module):
    """A frozen network as an encoder of the harness, for one declared input. Satisfies the `Encoder` protocol.

    A network with the stride of a pyramid's level gives that level as it is. Others (ViTs) get TerraTorch's
    ``LearnedInterpolateToPyramidal``, which is PANGAEA's ``Feature2Pyramid`` with fewer channels: transposed convolutions
    up, maximum pooling down, trained with the decoder; with group norm for its batch norm. What remains is bilinear.

    Args:
        name: in the suite.
        built: network and reading.
        plan: how the data's channels become the network's.
        size: of the chips, each side a multiple of 32.
        seed: of the trainable half's initial weights.
        bands: of the data, each date.
    """

    fusion_trained = False
    thawed = False
    """whether the network trains, too"""

    def __init__(
        self, name: Name, built: Built, plan: AdaptationPlan, size: tuple[int, int], seed: int, bands: BandSet
    ) -> None:
        super().__init__()
        body = built.body
        self.name, self.reading, self.plan, self.size, self.bands = name, built.reading, plan, size, bands
        self.encoders = nn.ModuleList([body])  # the name under which checkpoints leave frozen weights out
        self.encoders.requires_grad_(False)
        self.sha256 = weights_sha256(body)
        if name.pin and not self.sha256.startswith(name.pin):
            raise ConfigError(f"{name.text}: the weights have hash {self.sha256[:16]}; write that, or fetch them again")
        scale = 1.0 if body.side is None else size[0] / Tiles.of(*size, body.side).size[0]
        with seeded(purpose_seed(seed, "neck")):
            necks = [
                _neck(c, s * scale / t) for c, s, t in zip(body.channels, body.strides, PYRAMID_STRIDES, strict=True)
            ]
        self.necks = nn.ModuleList(n for n, _ in necks)
        self._channels = [c for _, c in necks]
        self.eval()

    @property
    def body(self) -> Body:
        held = self.members if self.thawed else self.encoders
        assert isinstance(held, nn.ModuleList)
        body = held[0]
        assert isinstance(body, Body)
        return body

    def thaw(self) -> Backbone:
        """A copy whose network trains, with one rate for all: `eosfm.training.finetune`'s counterpart. Checkpoints keep it."""
        new = deepcopy(self)
        new.members = new.encoders.requires_grad_(True)  # the name under which checkpoints do not leave it out
        del new.encoders
        new.thawed = True
        return new

    @property
    def out_channels(self) -> list[int]:
        return list(self._channels)

    @property
    def note(self) -> str:
        """What a reader of a score must know about this row, in one line; random weights first."""
        body, (h, w) = self.body, self.size
        parts = ["RANDOM WEIGHTS: shapes and paths only, no pretrained model was measured"] if self.name.random else []
        parts += [f"{body.source}, weights {self.sha256[:12]}", f"bands {','.join(self.plan.bands)}", body.how]
        if self.plan.normalise == "input":
            parts.append("standardised with the training chips' own mean and std")
        parts += [self.plan.note, self.reading.note]
        if body.side is not None:
            t = Tiles.of(h, w, body.side)
            resized = f"chips of {h} x {w} resized (bilinear) to {t.size[0]} x {t.size[1]}" if t.size != (h, w) else ""
            cut = f"{t.rows * t.columns} tiles of {t.side} run alone" if t.rows * t.columns > 1 else ""
            parts += [resized, cut]
        if len(set(body.strides)) < len(PYRAMID_STRIDES):
            learned = "learned transposed convolutions, " if any(True for _ in self.necks.parameters()) else ""
            parts.append(
                f"pyramid of strides 4/8/16/32 by {learned}pooling and bilinear resizing, as TerraTorch's neck"
            )
        return "; ".join(filter(None, parts))

    def forward(self, x: Tensor) -> Pyramid:
        """Maps of ``x`` ``(b, len(bands), h, w)`` in the data's units, at strides 4/8/16/32."""
        h, w = x.shape[-2:]
        return self._levels(self.encode(x)[0], (h, w))

    def encode(self, x: Tensor) -> list[Pyramid]:
        """The network's native maps, as the one view there is. Frozen: equal input, equal output."""
        with torch.set_grad_enabled(self.thawed and torch.is_grad_enabled()):
            return [self._native(x)]

    def _native(self, x: Tensor) -> Pyramid:
        z = adapt(x, self.plan)
        if self.reading.clip is not None:
            z = z.clamp(*self.reading.clip) + self.reading.shift
        side = self.body.side
        if side is None:
            return list(self.body(z))
        h, w = z.shape[-2:]
        tiles = Tiles.of(h, w, side)
        if tiles.size != (h, w):
            z = F.interpolate(z, tiles.size, mode="bilinear", align_corners=False, antialias=True)
        rows = [
            [self.body(z[..., r * side : (r + 1) * side, c * side : (c + 1) * side]) for c in range(tiles.columns)]
            for r in range(tiles.rows)
        ]
        beside = [[torch.cat([tile[i] for tile in row], -1) for row in rows] for i in range(len(self.necks))]
        return [torch.cat(level, -2) for level in beside]

    def fuse(self, pyramids: Sequence[Pyramid]) -> Pyramid:
        """The trainable half of `forward`, for maps that were computed before."""
        return self._levels(pyramids[0], self.size)

    def _levels(self, maps: Pyramid, size: tuple[int, int]) -> Pyramid:
        out = []
        for m, neck, stride in zip(maps, self.necks, PYRAMID_STRIDES, strict=True):
            y = neck(m)
            target = (size[0] // stride, size[1] // stride)
            if y.shape[-2:] != target:
                y = F.interpolate(y, target, mode="bilinear", align_corners=False, antialias=y.shape[-1] > target[-1])
            out.append(y)
        return out

    def train(self, mode: bool = True) -> Backbone:
        """The neck may train; a frozen network stays in evaluation mode, statistics of its batch norms included."""
        super().train(mode)
        if not self.thawed:
            self.encoders.eval()
        return self


def _neck(channels: int, ratio: float) -> tuple[nn.Module, int]:
    """From a map whose pixels are ``ratio`` times too large to the level; and its channels."""
    steps = max(-2, min(3, round(math.log2(ratio))))
    if steps <= 0:
        return (nn.MaxPool2d(2**-steps) if steps else nn.Identity()), channels
    layers: list[nn.Module] = []
    for i in range(steps):
        less = max(8, channels // 2)
        layers.append(nn.ConvTranspose2d(channels, less, 2, 2))
        if i < steps - 1:
            layers += [nn.GroupNorm(math.gcd(8, less), less), nn.GELU()]
        channels = less
    return nn.Sequential(*layers), channels


@dataclass
class Seen:
    """Outputs (or first inputs) of modules, kept while a network runs."""

    outputs: list[Tensor] = field(default_factory=list)

    def watch(self, modules: Sequence[nn.Module], *, before: bool = False) -> None:
        """Register for each of ``modules``, in the order in which they run."""
        for m in modules:
            if before:
                m.register_forward_pre_hook(lambda _, args: self.outputs.append(args[0]))
            else:
                m.register_forward_hook(lambda _, __, out: self.outputs.append(out))

    def take(self) -> list[Tensor]:
        """What was seen since the last time."""
        out, self.outputs = self.outputs, []
        return out


def grid_of(tokens: Tensor) -> Tensor:
    """``(b, n, c)`` as a square map ``(b, c, side, side)``; class and register tokens stand first and are dropped."""
    side = math.isqrt(tokens.shape[1])
    return tokens[:, tokens.shape[1] - side * side :].transpose(1, 2).reshape(len(tokens), -1, side, side)


def spread(count: int) -> tuple[int, ...]:
    """Four blocks, evenly spaced over the depth: 12 gives 2, 5, 8, 11."""
    return tuple(max(0, count * (i + 1) // 4 - 1) for i in range(4))
