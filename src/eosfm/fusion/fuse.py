"""Fusion of the views' pyramids, level by level (paper 3.1): a 1x1 convolution by default.

    normalise each view (optional, affine-free) -> multiply by its gate -> combine

The gate comes after the normalisation, so a gate of 0 is exactly 0 at the fusion: with the gate first, a normalised zero
map would become ``-mean/std`` and the ablated view would still speak.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.contracts import PYRAMID_CHANNELS, ConfigError, Pyramid, known
from eosfm.seeding import seeded

Normalise = Literal["none", "layer", "batch"]


class ChannelLayerNorm(nn.Module):
    """Affine-free layer norm over the channels of ``(b, c, h, w)``, at each pixel."""

    def forward(self, x: Tensor) -> Tensor:
        """Zero mean and unit variance over ``c``."""
        mean = x.mean(1, keepdim=True)
        return (x - mean) * torch.rsqrt((x - mean).square().mean(1, keepdim=True) + 1e-6)


def _norm(kind: Normalise, channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "layer":
        return ChannelLayerNorm()
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=False)
    raise ConfigError(f"unknown normalisation {kind!r}; known: none, layer, batch")


class Fusion(nn.Module):
    """What all fusions share: a norm per view and level, then gates. Subclasses combine."""

    name: str
    linear = False
    """whether the fused map is a sum over views; see `contributions`"""

    def __init__(self, views: int, normalise: Normalise = "none") -> None:
        super().__init__()
        if views < 1:
            raise ConfigError("a fusion needs at least one view")
        self.views, self.normalise = views, normalise
        self.norms = nn.ModuleList(nn.ModuleList(_norm(normalise, c) for c in PYRAMID_CHANNELS) for _ in range(views))

    @property
    def out_channels(self) -> list[int]:
        """Channels per level of the fused pyramid."""
        return list(PYRAMID_CHANNELS)

    def forward(self, pyramids: Sequence[Pyramid], gates: Tensor | None) -> Pyramid:
        """Fuse ``views`` pyramids; ``gates`` ``(views,)`` scale each view after its normalisation (None: all are 1)."""
        levels = range(len(PYRAMID_CHANNELS))
        return [self.combine(i, [n[i](p[i]) for n, p in zip(self.norms, pyramids, strict=True)], gates) for i in levels]  # type: ignore[index]

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:
        """One fused map from the ungated ``maps`` of one level."""
        raise NotImplementedError

    def contributions(self, pyramids: Sequence[Pyramid], gates: Tensor) -> list[Pyramid]:
        """What each view adds to the fused pyramid: their sum plus `offset` is `forward`, so subsets need no encoder.

        Raises:
            ConfigError: the fusion is not linear in the views.
        """
        return [
            [self.part(i, v, n[i](level), gates[v]) for i, level in enumerate(p)]  # type: ignore[index]
            for v, (n, p) in enumerate(zip(self.norms, pyramids, strict=True))
        ]

    def part(self, level: int, view: int, m: Tensor, gate: Tensor) -> Tensor:  # noqa: ARG002
        """What ``view`` adds to one fused map, from its normalised map ``m``; see `contributions`."""
        raise ConfigError(f"a {self.name} fusion is not a sum over views")

    def offset(self, level: int) -> Tensor | None:  # noqa: ARG002
        """What the fused map of one level is without any view, per channel; None is 0."""
        return None

    def narrowed(self, keep: Sequence[int]) -> Fusion:
        """A fusion of the views ``keep`` only, equal to this one with the gates of all others at 0."""
        with seeded(0):  # what is drawn here is replaced; nobody's random state must move
            new = type(self)(len(keep), self.normalise)
        new.norms = nn.ModuleList(deepcopy(self.norms[v]) for v in keep)  # running statistics are its own
        return new

    def widened(self, extra: int) -> Fusion:  # noqa: ARG002
        """A fusion of ``extra`` more views at the end, whose weights start at 0: the same output until it is trained.

        Raises:
            ConfigError: a fusion without weights, whose output a new view changes at once.
        """
        raise ConfigError(
            f"a {self.name} fusion has no weights that could start at 0: a new view would change its output at once. "
            "Compose a new ensemble instead."
        )

    def _with_norms_of(self, old: Fusion) -> None:
        for v, norm in enumerate(old.norms):
            self.norms[v] = deepcopy(norm)


class Conv1x1(Fusion):
    """A linear 1x1 convolution per level to one encoder's width: ``sum(views) * c * c + c`` parameters (paper 3.1)."""

    name = "conv1x1"
    linear = True

    def __init__(self, views: int, normalise: Normalise = "none") -> None:
        super().__init__(views, normalise)
        self.convs = nn.ModuleList(nn.Conv2d(views * c, c, 1) for c in PYRAMID_CHANNELS)

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:
        """Linear in every view."""
        out: Tensor = self.convs[level](_gated_concat(maps, gates))
        return out

    def part(self, level: int, view: int, m: Tensor, gate: Tensor) -> Tensor:
        """See `Fusion.part`: the view's columns applied to its map."""
        weight, c = self.convs[level].weight, m.shape[1]
        assert isinstance(weight, Tensor)
        return F.conv2d(_gated(m, gate), weight[:, view * c : (view + 1) * c])

    def offset(self, level: int) -> Tensor | None:
        """See `Fusion.offset`: the bias."""
        bias = self.convs[level].bias
        assert isinstance(bias, Tensor)
        return bias

    def weight_energy(self, view: int) -> list[float]:
        """Sum of squares of the view's columns, per level."""
        pairs = zip(self.convs, PYRAMID_CHANNELS, strict=True)
        return [float(k.weight.detach()[:, view * c : (view + 1) * c].square().sum()) for k, c in pairs]  # type: ignore[operator]

    def narrowed(self, keep: Sequence[int]) -> Fusion:
        """See `Fusion.narrowed`: the columns of the other views are cut out."""
        new = super().narrowed(keep)
        assert isinstance(new, Conv1x1)
        for ours, theirs, c in zip(self.convs, new.convs, PYRAMID_CHANNELS, strict=True):
            _copy_columns(ours, theirs, keep, c)
        return new

    def widened(self, extra: int) -> Fusion:
        """See `Fusion.widened`."""
        with seeded(0):
            new = type(self)(self.views + extra, self.normalise)
        new._with_norms_of(self)
        for ours, theirs in zip(self.convs, new.convs, strict=True):
            _append_zeros(ours, theirs)
        return new


class MLP(Fusion):
    """Two 1x1 convolutions with a GELU between them, per level."""

    name = "mlp"

    def __init__(self, views: int, normalise: Normalise = "none") -> None:
        super().__init__(views, normalise)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(views * c, c, 1), nn.GELU(), nn.Conv2d(c, c, 1)) for c in PYRAMID_CHANNELS
        )

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:
        """Nonlinear in the gated concatenation."""
        out: Tensor = self.mlps[level](_gated_concat(maps, gates))
        return out

    def narrowed(self, keep: Sequence[int]) -> Fusion:
        """See `Fusion.narrowed`."""
        new = super().narrowed(keep)
        assert isinstance(new, MLP)
        for ours, theirs, c in zip(self.mlps, new.mlps, PYRAMID_CHANNELS, strict=True):
            _copy_columns(ours[0], theirs[0], keep, c)  # type: ignore[index]
            theirs[2] = deepcopy(ours[2])  # type: ignore[index, operator]
        return new

    def widened(self, extra: int) -> Fusion:
        """See `Fusion.widened`."""
        with seeded(0):
            new = type(self)(self.views + extra, self.normalise)
        new._with_norms_of(self)
        for ours, theirs in zip(self.mlps, new.mlps, strict=True):
            _append_zeros(ours[0], theirs[0])  # type: ignore[index]
            theirs[2] = deepcopy(ours[2])  # type: ignore[index, operator]
        return new


class Concat(Fusion):
    """All views side by side: nothing to train, ``views`` times as many channels."""

    name = "concat"

    @property
    def out_channels(self) -> list[int]:
        """``views`` times one encoder's channels."""
        return [self.views * c for c in PYRAMID_CHANNELS]

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:  # noqa: ARG002
        """Gated concatenation."""
        return _gated_concat(maps, gates)


class Sum(Fusion):
    """The gated sum of the views: nothing to train."""

    name = "sum"
    linear = True

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:  # noqa: ARG002
        """Sum over views."""
        return torch.stack(_gated_all(maps, gates)).sum(0)

    def part(self, level: int, view: int, m: Tensor, gate: Tensor) -> Tensor:  # noqa: ARG002
        """See `Fusion.part`: the gated map itself."""
        return _gated(m, gate)


class Product(Fusion):
    """The elementwise product of the views; a gate of 0 makes a view the factor 1, its neutral element."""

    name = "product"

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:  # noqa: ARG002
        """Product over views of ``1 + gate * (map - 1)``."""
        return torch.stack([1 + m for m in _gated_all([m - 1 for m in maps], gates)]).prod(0)


FUSIONS: dict[str, type[Fusion]] = {f.name: f for f in (Conv1x1, MLP, Concat, Sum, Product)}


def make_fusion(name: str, views: int, normalise: Normalise = "none") -> Fusion:
    """The fusion called ``name``; unknown names list the known ones."""
    if name not in FUSIONS:
        raise ConfigError(f"unknown fusion {name!r}; {known(FUSIONS)}")
    return FUSIONS[name](views, normalise)


def _gated_concat(maps: list[Tensor], gates: Tensor | None) -> Tensor:
    return torch.cat(_gated_all(maps, gates), dim=1)


def _gated_all(maps: list[Tensor], gates: Tensor | None) -> list[Tensor]:
    return maps if gates is None else [_gated(m, g) for m, g in zip(maps, gates, strict=True)]


def _gated(m: Tensor, gate: Tensor) -> Tensor:
    """``m * gate``, but exactly 0 where the gate is 0, also for a view that gives NaN."""
    if gate.requires_grad:
        return m * gate  # a gate that is learnt must feel what its view would add, above all while it is 0
    return torch.where(gate == 0, torch.zeros_like(m), m * gate)


def _copy_columns(source: nn.Module, target: nn.Module, keep: Sequence[int], channels: int) -> None:
    columns = torch.cat([torch.arange(v * channels, (v + 1) * channels) for v in keep])
    weight, bias = source.weight, source.bias
    assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
    # new parameters instead of copies into the old ones: they keep the precision and the device of the source
    target.weight = nn.Parameter(weight.detach()[:, columns.to(weight.device)].clone())
    target.bias = nn.Parameter(bias.detach().clone())


def _append_zeros(source: nn.Module, target: nn.Module) -> None:
    weight, wide, bias = source.weight, target.weight, source.bias
    assert isinstance(weight, Tensor) and isinstance(wide, Tensor) and isinstance(bias, Tensor)
    more = weight.new_zeros(weight.shape[0], wide.shape[1] - weight.shape[1], 1, 1)
    target.weight = nn.Parameter(torch.cat([weight.detach(), more], 1))
    target.bias = nn.Parameter(bias.detach().clone())
