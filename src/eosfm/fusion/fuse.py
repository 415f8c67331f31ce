"""Fusion of the views' pyramids, level by level (paper 3.1): a 1x1 convolution by default.

    normalise each view (optional, affine-free) -> multiply by its gate -> combine

The views of ConvNeXtV2-Atto have 40/80/160/320 channels, and so has the fused pyramid; a view of another architecture has its
own, and the fusions with weights bring it to those.

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
Widths = Sequence[int]
"""channels of a view, per level"""


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
    mixes = True
    """whether views of different widths can be fused"""

    def __init__(self, views: int, normalise: Normalise = "none", widths: Sequence[Widths] | None = None) -> None:
        super().__init__()
        if views < 1:
            raise ConfigError("a fusion needs at least one view")
        self.widths = [tuple(w) for w in widths or [PYRAMID_CHANNELS] * views]
        if len(self.widths) != views:
            raise ConfigError(f"{len(self.widths)} widths for {views} views")
        if not self.mixes and (other := sorted(set(self.widths) - {PYRAMID_CHANNELS})):
            raise ConfigError(
                f"a {self.name} fusion needs maps of {PYRAMID_CHANNELS} channels from every specialist; one has {other[0]}. "
                "Fuse with conv1x1, mlp or concat."
            )
        self.views, self.normalise = views, normalise
        self.norms = nn.ModuleList(nn.ModuleList(_norm(normalise, c) for c in w) for w in self.widths)

    @property
    def out_channels(self) -> list[int]:
        """Channels per level of the fused pyramid."""
        return list(PYRAMID_CHANNELS)

    def forward(self, pyramids: Sequence[Pyramid], gates: Tensor | None) -> Pyramid:
        """Fuse ``views`` pyramids; ``gates`` ``(views,)`` scale each view after its normalisation (None: all are 1)."""
        levels = range(len(PYRAMID_CHANNELS))
        if gates is not None and len(gates) == self.views and not gates.requires_grad and bool((gates == 1).all()):
            gates = None  # the usual case: no pass over all maps to multiply them by 1
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
            new = type(self)(len(keep), self.normalise, [self.widths[v] for v in keep])
        new.norms = nn.ModuleList(deepcopy(self.norms[v]) for v in keep)  # running statistics are its own
        return new

    def widened(self, extra: Sequence[Widths]) -> Fusion:  # noqa: ARG002
        """A fusion with views of widths ``extra`` at the end, whose weights start at 0: the same output until it is trained.

        Raises:
            ConfigError: a fusion without weights, whose output a new view changes at once.
        """
        raise ConfigError(
            f"a {self.name} fusion has no weights that could start at 0: a new view would change its output at once. "
            "Compose a new ensemble instead."
        )

    def _inputs(self, level: int) -> int:
        """Channels of all views side by side."""
        return sum(w[level] for w in self.widths)

    def _columns(self, level: int, view: int) -> slice:
        """Where the view lies among them."""
        start = sum(w[level] for w in self.widths[:view])
        return slice(start, start + self.widths[view][level])

    def _with_norms_of(self, old: Fusion) -> None:
        for v, norm in enumerate(old.norms):
            self.norms[v] = deepcopy(norm)


class Conv1x1(Fusion):
    """A linear 1x1 convolution per level to ConvNeXtV2-Atto's width: ``views * c * c + c`` parameters (paper 3.1)."""

    name = "conv1x1"
    linear = True

    def __init__(self, views: int, normalise: Normalise = "none", widths: Sequence[Widths] | None = None) -> None:
        super().__init__(views, normalise, widths)
        self.convs = nn.ModuleList(nn.Conv2d(self._inputs(i), c, 1) for i, c in enumerate(PYRAMID_CHANNELS))

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:
        """Linear in every view."""
        out: Tensor = self.convs[level](_gated_concat(maps, gates))
        return out

    def part(self, level: int, view: int, m: Tensor, gate: Tensor) -> Tensor:
        """See `Fusion.part`: the view's columns applied to its map."""
        weight = self.convs[level].weight
        assert isinstance(weight, Tensor)
        return F.conv2d(_gated(m, gate), weight[:, self._columns(level, view)])

    def offset(self, level: int) -> Tensor | None:
        """See `Fusion.offset`: the bias."""
        bias = self.convs[level].bias
        assert isinstance(bias, Tensor)
        return bias

    def weight_energy(self, view: int) -> list[float]:
        """Sum of squares of the view's columns, per level."""
        return [
            float(k.weight.detach()[:, self._columns(i, view)].square().sum())  # type: ignore[operator]
            for i, k in enumerate(self.convs)
        ]

    def narrowed(self, keep: Sequence[int]) -> Fusion:
        """See `Fusion.narrowed`: the columns of the other views are cut out."""
        new = super().narrowed(keep)
        assert isinstance(new, Conv1x1)
        for i, (ours, theirs) in enumerate(zip(self.convs, new.convs, strict=True)):
            _copy_columns(ours, theirs, [self._columns(i, v) for v in keep])
        return new

    def widened(self, extra: Sequence[Widths]) -> Fusion:
        """See `Fusion.widened`."""
        with seeded(0):
            new = type(self)(self.views + len(extra), self.normalise, [*self.widths, *extra])
        new._with_norms_of(self)
        for ours, theirs in zip(self.convs, new.convs, strict=True):
            _append_zeros(ours, theirs)
        return new


class MLP(Fusion):
    """Two 1x1 convolutions with a GELU between them, per level."""

    name = "mlp"

    def __init__(self, views: int, normalise: Normalise = "none", widths: Sequence[Widths] | None = None) -> None:
        super().__init__(views, normalise, widths)
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(self._inputs(i), c, 1), nn.GELU(), nn.Conv2d(c, c, 1))
            for i, c in enumerate(PYRAMID_CHANNELS)
        )

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:
        """Nonlinear in the gated concatenation."""
        out: Tensor = self.mlps[level](_gated_concat(maps, gates))
        return out

    def narrowed(self, keep: Sequence[int]) -> Fusion:
        """See `Fusion.narrowed`."""
        new = super().narrowed(keep)
        assert isinstance(new, MLP)
        for i, (ours, theirs) in enumerate(zip(self.mlps, new.mlps, strict=True)):
            _copy_columns(ours[0], theirs[0], [self._columns(i, v) for v in keep])  # type: ignore[index]
            theirs[2] = deepcopy(ours[2])  # type: ignore[index, operator]
        return new

    def widened(self, extra: Sequence[Widths]) -> Fusion:
        """See `Fusion.widened`."""
        with seeded(0):
            new = type(self)(self.views + len(extra), self.normalise, [*self.widths, *extra])
        new._with_norms_of(self)
        for ours, theirs in zip(self.mlps, new.mlps, strict=True):
            _append_zeros(ours[0], theirs[0])  # type: ignore[index]
            theirs[2] = deepcopy(ours[2])  # type: ignore[index, operator]
        return new


class Concat(Fusion):
    """All views side by side: nothing to train, the channels of all."""

    name = "concat"

    @property
    def out_channels(self) -> list[int]:
        """The sum of the views' channels."""
        return [self._inputs(i) for i in range(len(PYRAMID_CHANNELS))]

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:  # noqa: ARG002
        """Gated concatenation."""
        return _gated_concat(maps, gates)


class Sum(Fusion):
    """The gated sum of the views: nothing to train."""

    name = "sum"
    linear = True
    mixes = False

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:  # noqa: ARG002
        """Sum over views."""
        return torch.stack(_gated_all(maps, gates)).sum(0)

    def part(self, level: int, view: int, m: Tensor, gate: Tensor) -> Tensor:  # noqa: ARG002
        """See `Fusion.part`: the gated map itself."""
        return _gated(m, gate)


class Product(Fusion):
    """The elementwise product of the views; a gate of 0 makes a view the factor 1, its neutral element."""

    name = "product"
    mixes = False

    def combine(self, level: int, maps: list[Tensor], gates: Tensor | None) -> Tensor:  # noqa: ARG002
        """Product over views of ``1 + gate * (map - 1)``."""
        return torch.stack([1 + m for m in _gated_all([m - 1 for m in maps], gates)]).prod(0)


FUSIONS: dict[str, type[Fusion]] = {f.name: f for f in (Conv1x1, MLP, Concat, Sum, Product)}


def make_fusion(name: str, views: int, normalise: Normalise = "none", widths: Sequence[Widths] | None = None) -> Fusion:
    """The fusion called ``name`` of views with ``widths`` (default: ConvNeXtV2-Atto's); unknown names list the known ones."""
    if name not in FUSIONS:
        raise ConfigError(f"unknown fusion {name!r}; {known(FUSIONS)}")
    return FUSIONS[name](views, normalise, widths)


def side_by_side(maps: Sequence[Tensor]) -> Tensor:
    """`torch.cat` of ``maps`` ``(b, c, h, w)`` over channels; no copy where they are neighbours in one tensor already.

    Cached features are (`eosfm.engine.cache.Features.batch`), and copying them would be a good part of a training step.
    """
    first, *rest = maps
    exported = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if exported or any(m.requires_grad for m in maps):
        return torch.cat(list(maps), 1)
    channels, start = first.shape[1], first.untyped_storage().data_ptr()
    for m in rest:
        here = first.storage_offset() + channels * first.stride(1)
        alike = (len(m), m.shape[2:], m.stride(), m.dtype) == (len(first), first.shape[2:], first.stride(), first.dtype)
        if not alike or (m.untyped_storage().data_ptr(), m.storage_offset()) != (start, here):
            return torch.cat(list(maps), 1)
        channels += m.shape[1]
    return first.as_strided((first.shape[0], channels, *first.shape[2:]), first.stride(), first.storage_offset())


def _gated_concat(maps: list[Tensor], gates: Tensor | None) -> Tensor:
    return side_by_side(_gated_all(maps, gates))


def _gated_all(maps: list[Tensor], gates: Tensor | None) -> list[Tensor]:
    return maps if gates is None else [_gated(m, g) for m, g in zip(maps, gates, strict=True)]


def _gated(m: Tensor, gate: Tensor) -> Tensor:
    """``m * gate``, but exactly 0 where the gate is 0, also for a view that gives NaN."""
    if gate.requires_grad:
        return m * gate  # a gate that is learnt must feel what its view would add, above all while it is 0
    return torch.where(gate == 0, torch.zeros_like(m), m * gate)


def _copy_columns(source: nn.Module, target: nn.Module, keep: Sequence[slice]) -> None:
    columns = torch.cat([torch.arange(s.start, s.stop) for s in keep])
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
