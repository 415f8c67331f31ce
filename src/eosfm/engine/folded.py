"""A frozen ConvNeXtV2-Atto as plain tensors, with everything folded that can be: the same function in fewer passes.

    unit conversion, standardisation   -> into the stem's weights (per view)
    scale and shift of each layer norm -> into the linear layer after it
    response norm (GRN)                -> its shift into the bias of the second linear layer, its scale into the weights,
                                          per image, so that the widest map is not written once more

One image at a time, channels last: at these sizes a map that stays in the cache is worth more than a larger batch. All
specialists have the same shape, so `encode` is compiled once for all of them, weights being arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.adaptation import AdaptationPlan
from eosfm.contracts import CorruptArtifact, Pyramid
from eosfm.specialists.encoder import FrozenEncoder
from eosfm.units import affine

Block = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""depthwise weight and bias; first linear layer's; second linear layer's weight (float32), GRN's scale, bias"""
Down = tuple[Tensor, Tensor]
"""weight and bias of the convolution that halves the resolution"""
Body = tuple[tuple[tuple[Down, ...], tuple[Block, ...]], ...]
"""per stage: the downsampling (none in the first) and the blocks"""
EPS = 1e-6


@dataclass(frozen=True)
class Stem:
    """A view's own first layer, over the channels of the raw input that it reads."""

    index: tuple[int, ...]
    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor
    """of the layer norm that follows"""


def fold_body(encoder: FrozenEncoder, dtype: torch.dtype) -> Body:
    """Everything after the stem, folded in float64 and stored in ``dtype``.

    Raises:
        CorruptArtifact: modules other than those of timm's ConvNeXtV2-Atto.
    """
    stages = []
    try:
        for number in range(4):
            stage = encoder.body.get_submodule(f"stages_{number}")
            down: tuple[Down, ...] = ()
            if number:
                norm, conv = stage.get_submodule("downsample.0"), stage.get_submodule("downsample.1")
                down = (_after_norm(conv, norm, dtype),)
            blocks = stage.get_submodule("blocks")
            assert isinstance(blocks, nn.Sequential)
            stages.append((down, tuple(_block(b, dtype) for b in blocks)))
    except AttributeError as e:
        raise CorruptArtifact(f"this encoder is not timm's ConvNeXtV2-Atto, so it cannot be folded: {e}") from None
    return tuple(stages)


def fold_stem(encoder: FrozenEncoder, plan: AdaptationPlan | None, dtype: torch.dtype) -> Stem | None:
    """The stem over raw input, or None where a conversion is not affine (linear power to dB). ``plan`` None: no conversion."""
    conv, norm = encoder.body.get_submodule("stem_0"), encoder.body.get_submodule("stem_1")
    weight, bias = _double(conv.weight), _double(conv.bias)
    index = tuple(range(weight.shape[1]))
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
    return Stem(index, weight.float(), bias.float(), _double(norm.weight).to(dtype), _double(norm.bias).to(dtype))


def stem_map(x: Tensor, stem: Stem) -> Tensor:
    """``(1, 40, h/4, w/4)`` channels last from one raw image ``(1, c, h, w)``."""
    picked = x[:, list(stem.index)]
    y = F.conv2d(picked, stem.weight, stem.bias, stride=4).contiguous(memory_format=torch.channels_last)
    return _norm(y.to(stem.scale.dtype), stem.scale, stem.shift)


def encode(x: Tensor, body: Body) -> Pyramid:
    """The pyramid of one image from its stem map."""
    out = []
    for down, blocks in body:
        for weight, bias in down:
            x = F.conv2d(_norm(x), weight, bias, stride=2)
        for block in blocks:
            x = _apply(x, block)
        out.append(x)
    return out


def _apply(x: Tensor, block: Block) -> Tensor:
    depthwise, shift, first, first_bias, second, response, second_bias = block
    _, c, h, w = x.shape
    y = F.conv2d(x, depthwise, shift, padding=3, groups=c)
    t = F.gelu(F.linear(F.layer_norm(_tokens(y), (c,), eps=EPS), first, first_bias))
    energy = t.float().square().sum(0).sqrt()
    scaled = second * (1 + response * (energy / (energy.mean() + EPS)))
    return x + _map(F.linear(t, scaled.to(t.dtype), second_bias), h, w)


def _norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    return _map(F.layer_norm(_tokens(x), (x.shape[1],), scale, shift, eps=EPS), *x.shape[-2:])


def _tokens(x: Tensor) -> Tensor:
    """``(h * w, c)`` of a channels-last ``(1, c, h, w)``: a view, no copy."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _map(t: Tensor, h: int, w: int) -> Tensor:
    return t.view(1, h, w, t.shape[1]).permute(0, 3, 1, 2)


def _block(block: nn.Module, dtype: torch.dtype) -> Block:
    conv, norm = block.get_submodule("conv_dw"), block.get_submodule("norm")
    first, second, grn = (block.get_submodule(f"mlp.{n}") for n in ("fc1", "fc2", "grn"))
    w1, w2 = _double(first.weight).flatten(1), _double(second.weight).flatten(1)
    return (
        _double(conv.weight).to(dtype).contiguous(memory_format=torch.channels_last),
        _double(conv.bias).to(dtype),
        (w1 * _double(norm.weight)).to(dtype),
        (_double(first.bias) + w1 @ _double(norm.bias)).to(dtype),
        w2.float(),
        _double(grn.weight).float(),
        (_double(second.bias) + w2 @ _double(grn.bias)).to(dtype),
    )


def _after_norm(conv: nn.Module, norm: nn.Module, dtype: torch.dtype) -> Down:
    weight, shift = _double(conv.weight), _double(norm.bias).view(1, -1, 1, 1)
    bias = _double(conv.bias) + (weight * shift).sum((1, 2, 3))
    weight = weight * _double(norm.weight).view(1, -1, 1, 1)
    return weight.to(dtype).contiguous(memory_format=torch.channels_last), bias.to(dtype)


def _double(t: Tensor | nn.Module) -> Tensor:
    assert isinstance(t, Tensor)
    return t.detach().double().clone()
