"""A frozen ConvNeXtV2-Atto as two flat tensors, with everything folded that can be: the same function in fewer passes.

    unit conversion, standardisation   -> into the stem's weights (per view)
    scale and shift of each layer norm -> into the linear layer after it
    response norm (GRN)                -> its shift into the bias of the second linear layer; its scale, per image, into
                                          that layer's weights or its input, whichever is smaller
    convolutions without overlap       -> patches times a matrix

One image at a time, maps as ``(h * w, c)``: at these sizes what stays in the cache is worth more than a larger batch. All
specialists have the same shape, so `encode` serves all of them, weights being arguments. `views.cpp` is the same in C++.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.adaptation import AdaptationPlan
from eosfm.contracts import PYRAMID_CHANNELS, CorruptArtifact
from eosfm.specialists.encoder import FrozenEncoder
from eosfm.units import affine

DEPTHS = (2, 2, 6, 2)
"""blocks per stage of ConvNeXtV2-Atto"""
EPS = 1e-6
_PATCH = 4
_LAST = len(DEPTHS) - 1
Maps = list[Tensor]
"""a pyramid of one image as ``(h * w, c)``"""


@dataclass(frozen=True)
class Body:
    """Everything after the stem, in the order in which `encode` reads it."""

    low: Tensor
    """in the plan's precision"""
    high: Tensor
    """float32: what is multiplied by GRN's scale before it is rounded"""
    taps: Tensor
    """float32: each depthwise layer as ``(49, c)`` and its bias, as `views.cpp` reads it; a few percent of the whole"""


@dataclass(frozen=True)
class Stem:
    """A view's own first layer, over the channels of the raw input that it reads."""

    index: tuple[int, ...] | None
    """the channels that are picked; None is all, as they come"""
    weight: Tensor
    """``(40, channels * 16)``"""
    bias: Tensor
    scale: Tensor
    shift: Tensor
    """of the layer norm that follows"""
    channels: Tensor
    """``index`` as `views.cpp` reads it"""


def fold_body(encoder: FrozenEncoder, dtype: torch.dtype) -> Body:
    """Everything after the stem, folded in float64 and stored in ``dtype``.

    Raises:
        CorruptArtifact: modules other than those of timm's ConvNeXtV2-Atto.
    """
    low: list[Tensor] = []
    high: list[Tensor] = []
    taps: list[Tensor] = []
    try:
        for number, depth in enumerate(DEPTHS):
            stage = encoder.body.get_submodule(f"stages_{number}")
            if number:
                low += _after_norm(stage.get_submodule("downsample.1"), stage.get_submodule("downsample.0"))
            blocks = list(stage.get_submodule("blocks").children())
            if len(blocks) != depth:
                raise AttributeError(f"{len(blocks)} blocks in stage {number}, expected {depth}")
            for block in blocks:
                rounded, scale, second = _block(block)
                taps += [rounded[0].flatten(1).T, rounded[1]]
                low += rounded
                high.append(scale)
                (low if number == _LAST else high).append(second)
    except AttributeError as e:
        raise CorruptArtifact(f"this encoder is not timm's ConvNeXtV2-Atto, so it cannot be folded: {e}") from None
    return Body(_flat(low, dtype), _flat(high, torch.float32), _flat(taps, torch.float32))


def fold_stem(encoder: FrozenEncoder, plan: AdaptationPlan | None, channels: int, dtype: torch.dtype) -> Stem | None:
    """The stem over raw input of ``channels``, or None where a conversion is not affine (linear power to dB).

    ``plan`` None: the input is the encoder's own, standardised.
    """
    conv, norm = encoder.body.get_submodule("stem_0"), encoder.body.get_submodule("stem_1")
    weight, bias = _double(conv.weight), _double(conv.bias)
    index: tuple[int, ...] | None = None
    if plan is not None:
        index = plan.index
        for j, (units, mean, std) in enumerate(zip(plan.convert, plan.mean, plan.std, strict=True)):
            step = affine(*units)
            if step is None:
                return None
            scale, offset = step
            bias = bias + weight[:, j].sum((1, 2)) * (offset - mean) / std
            weight[:, j] *= scale / std
    # float32 also in a bf16 plan: the raw values of some sensors run to tens of thousands
    rest = bias.float(), _double(norm.weight).to(dtype), _double(norm.bias).to(dtype)
    if index is None or 2 * len(index) < channels:
        picked = torch.arange(channels) if index is None else torch.tensor(index)
        return Stem(index, weight.flatten(1).float().contiguous(), *rest, picked)
    # to multiply the others by 0 takes less than to pick these out, and a band that is read twice is read once
    wide = weight.new_zeros(weight.shape[0], channels, *weight.shape[2:])
    wide.index_add_(1, torch.tensor(index, device=weight.device), weight)
    return Stem(None, wide.flatten(1).float().contiguous(), *rest, torch.arange(channels))


class Patches:
    """One image ``(1, c, h, w)`` as stems read it, cut once for all views; what several of them pick is picked once."""

    def __init__(self, x: Tensor) -> None:
        _, c, h, w = x.shape
        self._cut = x.reshape(c, h // _PATCH, _PATCH, w // _PATCH, _PATCH).permute(1, 3, 0, 2, 4)
        self._read: dict[tuple[int, ...] | None, Tensor] = {}

    def of(self, index: tuple[int, ...] | None) -> Tensor:
        """``(h/4 * w/4, 16 * channels)`` of the channels ``index``, or of all."""
        if index not in self._read:
            cut = self._cut if index is None else self._cut[:, :, list(index)]
            self._read[index] = cut.flatten(0, 1).flatten(1)
        return self._read[index]


def stem_map(image: Patches, stem: Stem) -> Tensor:
    """``(h/4 * w/4, 40)`` of a raw image."""
    y = _linear(image.of(stem.index), stem.weight, stem.bias)
    return F.layer_norm(y.to(stem.scale.dtype), (y.shape[1],), stem.scale, stem.shift, EPS)


def encode(x: Tensor, low: Tensor, high: Tensor, h: int, w: int) -> Maps:
    """The pyramid of one image of ``h`` x ``w`` stem patches from its `stem_map` and a `Body`'s tensors."""
    rounded, exact, out = _reader(low), _reader(high), []
    for number, (c, depth) in enumerate(zip(PYRAMID_CHANNELS, DEPTHS, strict=True)):
        if number:
            x, h, w = _halved(x, rounded, h, w), h // 2, w // 2
        for _ in range(depth):
            y = _depthwise(x, _take(rounded, c, 1, 7, 7), _take(rounded, c), h, w)
            t = _linear(_norm(y), _take(rounded, 4 * c, c), _take(rounded, 4 * c), gelu=True)
            shift, response = _take(rounded, c), _take(exact, 4 * c)
            second = _take(rounded if number == _LAST else exact, c, 4 * c)
            energy = t.float().square().sum(0).sqrt()
            scale = 1 + response * (energy / (energy.mean() + EPS))
            if number == _LAST:  # fewer pixels than channels
                t = (t * scale).to(t.dtype)
            else:
                second = (second * scale).to(t.dtype)
            x = _linear(t, second, shift, add=x)
        out.append(x)
    return out


def as_map(t: Tensor, h: int, w: int) -> Tensor:
    """``(1, c, h, w)``, channels last, of ``(h * w, c)``: a view, no copy."""
    return t.view(1, h, w, t.shape[1]).permute(0, 3, 1, 2)


def _halved(x: Tensor, weights: list[Tensor], h: int, w: int) -> Tensor:
    """Layer norm and a 2x2 convolution with stride 2."""
    c = x.shape[1]
    cut = _norm(x).view(h // 2, 2, w // 2, 2, c).permute(0, 2, 1, 3, 4).reshape(-1, 4 * c)
    return _linear(cut, _take(weights, 2 * c, 4 * c), _take(weights, 2 * c))


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor, h: int, w: int) -> Tensor:
    c = x.shape[1]
    y = F.conv2d(as_map(x, h, w), weight, bias, padding=3, groups=c)
    return y.permute(0, 2, 3, 1).reshape(-1, c)


def _linear(x: Tensor, weight: Tensor, bias: Tensor, *, gelu: bool = False, add: Tensor | None = None) -> Tensor:
    """A linear layer and what follows it, by oneDNN in one pass where PyTorch has it."""
    if x.device.type == "cpu" and onednn(x.dtype):
        both = torch.ops.mkldnn._linear_pointwise
        if add is not None:
            return both.binary(x, add, weight, bias, "add")  # type: ignore[no-any-return]
        return both(x, weight, bias, "gelu" if gelu else "none", [], "none")  # type: ignore[no-any-return]
    y = F.linear(x, weight, bias)
    return F.gelu(y) if gelu else y if add is None else add + y


@cache
def onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in ``dtype`` here; the operator is PyTorch's own, for its compiler, so it may not be there."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not available or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[1],), eps=EPS)


def _reader(flat: Tensor) -> list[Tensor]:
    """What `_take` shortens: the part of a flat tensor that has not been read."""
    return [flat]


def _take(rest: list[Tensor], *shape: int) -> Tensor:
    """The next tensor of ``shape``."""
    count = 1
    for side in shape:
        count *= side
    taken, rest[0] = rest[0][:count].view(shape), rest[0][count:]
    return taken


def _block(block: nn.Module) -> tuple[list[Tensor], Tensor, Tensor]:
    """What is rounded, GRN's scale, and the second linear layer."""
    conv, norm = block.get_submodule("conv_dw"), block.get_submodule("norm")
    first, second, grn = (block.get_submodule(f"mlp.{n}") for n in ("fc1", "fc2", "grn"))
    w1, w2 = _double(first.weight).flatten(1), _double(second.weight).flatten(1)
    rounded = [
        _double(conv.weight),
        _double(conv.bias),
        w1 * _double(norm.weight),
        _double(first.bias) + w1 @ _double(norm.bias),
        _double(second.bias) + w2 @ _double(grn.bias),
    ]
    return rounded, _double(grn.weight), w2


def _after_norm(conv: nn.Module, norm: nn.Module) -> list[Tensor]:
    """Weight and bias of a 2x2 convolution over patches whose channels come last."""
    weight, shift = _double(conv.weight), _double(norm.bias).view(1, -1, 1, 1)
    bias = _double(conv.bias) + (weight * shift).sum((1, 2, 3))
    weight = weight * _double(norm.weight).view(1, -1, 1, 1)
    return [weight.permute(0, 2, 3, 1), bias]


def _flat(tensors: Iterable[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([t.flatten() for t in tensors]).to(dtype)


def _double(t: Tensor | nn.Module) -> Tensor:
    assert isinstance(t, Tensor)
    return t.detach().double().clone()
