"""Decoders: a pyramid in, one map at stride 4 out. One visible table, `DECODERS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.contracts import ConfigError, Pyramid, known

Norm = Literal["group", "batch"]


def _conv(cin: int, cout: int, kernel: int, norm: Norm) -> nn.Sequential:
    # Group norm needs no running statistics and works at any batch size, down to the few labels users have;
    # batch norm is what PANGAEA's UPerNet uses.
    layer: nn.Module = nn.BatchNorm2d(cout) if norm == "batch" else nn.GroupNorm(_groups(cout), cout)
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False), layer, nn.ReLU(inplace=True))


def _groups(channels: int) -> int:
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class UPerNet(nn.Module):
    """Unified perceptual parsing (Xiao et al. 2018): pyramid pooling on the coarsest level, then a feature pyramid."""

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 512,
        pool_scales: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
        norm: Norm = "group",
    ) -> None:
        super().__init__()
        self.out_channels = channels
        top = in_channels[-1]
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(s), _conv(top, channels, 1, norm)) for s in pool_scales
        )
        self.bottleneck = _conv(top + len(pool_scales) * channels, channels, 3, norm)
        self.laterals = nn.ModuleList(_conv(c, channels, 1, norm) for c in in_channels[:-1])
        self.smooth = nn.ModuleList(_conv(channels, channels, 3, norm) for _ in in_channels[:-1])
        self.merge = _conv(len(in_channels) * channels, channels, 3, norm)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """``(b, channels, h/4, w/4)`` from the four levels of ``pyramid``."""
        top = pyramid[-1]
        maps = [self.bottleneck(torch.cat([top, *(_resize(p(top), top) for p in self.pools)], 1))]
        for lateral, level in zip(reversed(self.laterals), reversed(pyramid[:-1]), strict=True):
            side = lateral(level)
            maps.append(side + _resize(maps[-1], side))
        finest = maps[-1]
        smoothed = [maps[0], *(s(m) for s, m in zip(self.smooth, maps[1:], strict=True))]
        out: Tensor = self.dropout(self.merge(torch.cat([_resize(m, finest) for m in smoothed], 1)))
        return out


class UNetDecoder(nn.Module):
    """The U-Net's expanding half (Ronneberger et al. 2015) over a pyramid: upsample, concatenate, convolve twice."""

    def __init__(
        self, in_channels: Sequence[int], channels: int = 64, dropout: float = 0.1, norm: Norm = "group"
    ) -> None:
        super().__init__()
        self.out_channels = channels
        blocks, width = [], in_channels[-1]
        for skip in reversed(in_channels[:-1]):
            blocks.append(nn.Sequential(_conv(width + skip, channels, 3, norm), _conv(channels, channels, 3, norm)))
            width = channels
        self.blocks = nn.ModuleList(blocks)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """``(b, channels, h/4, w/4)`` from the four levels of ``pyramid``."""
        x = pyramid[-1]
        for block, skip in zip(self.blocks, reversed(pyramid[:-1]), strict=True):
            x = block(torch.cat([_resize(x, skip), skip], 1))
        out: Tensor = self.dropout(x)
        return out


class LinearDecoder(nn.Module):
    """All levels side by side at stride 4, then one 1x1 convolution: a linear probe for pixels.

    The convolution runs on each level before it is upsampled, which is the same mathematics (bilinear interpolation
    and a 1x1 convolution commute) at a fraction of the memory.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 64) -> None:
        super().__init__()
        self.out_channels = channels
        self.projections = nn.ModuleList(nn.Conv2d(c, channels, 1, bias=i == 0) for i, c in enumerate(in_channels))

    def forward(self, pyramid: Pyramid) -> Tensor:
        """``(b, channels, h/4, w/4)`` from the four levels of ``pyramid``."""
        return self.sum([p(level) for p, level in zip(self.projections, pyramid, strict=True)])

    def levels(self) -> list[nn.Conv2d]:
        """The projection of each level; the first has the bias."""
        return [p for p in self.projections if isinstance(p, nn.Conv2d)]

    def sum(self, projected: Sequence[Tensor]) -> Tensor:
        """Projected maps, upsampled to the finest and added."""
        finest, *rest = projected
        for m in rest:
            finest = finest + _resize(m, finest)
        return finest


def _upernet(in_channels: Sequence[int], channels: int, dropout: float, norm: Norm) -> nn.Module:
    return UPerNet(in_channels, channels, dropout=dropout, norm=norm)


def _unet(in_channels: Sequence[int], channels: int, dropout: float, norm: Norm) -> nn.Module:
    return UNetDecoder(in_channels, channels, dropout=dropout, norm=norm)


def _linear(in_channels: Sequence[int], channels: int, dropout: float, norm: Norm) -> nn.Module:  # noqa: ARG001
    return LinearDecoder(in_channels, channels)


DECODERS: dict[str, Callable[[Sequence[int], int, float, Norm], nn.Module]] = {
    "upernet": _upernet,
    "unet": _unet,
    "linear": _linear,
}


def make_decoder(
    name: str, in_channels: Sequence[int], channels: int, dropout: float = 0.1, norm: Norm = "group"
) -> nn.Module:
    """The decoder called ``name``; unknown names list the known ones."""
    if name not in DECODERS:
        raise ConfigError(f"unknown decoder {name!r}; {known(DECODERS)}")
    return DECODERS[name](in_channels, channels, dropout, norm)
