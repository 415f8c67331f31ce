"""Heads: from decoded maps or a pyramid to logits of a task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.contracts import PYRAMID_STRIDES, Pyramid
from eosfm.tasks.decoders import LinearDecoder, Norm, make_decoder


class PixelHead(nn.Module):
    """Decoder, 1x1 convolution, bilinear upsampling to the image: segmentation and pixel-wise regression."""

    def __init__(
        self, in_channels: Sequence[int], outputs: int, decoder: str = "upernet", channels: int = 512,
        dropout: float = 0.1, norm: Norm = "group",
    ) -> None:  # fmt: skip
        super().__init__()
        self.decoder = make_decoder(decoder, in_channels, channels, dropout, norm)
        self.classify = nn.Conv2d(channels, outputs, 1)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Logits or values ``(b, outputs, h, w)`` at the image's resolution."""
        return self._upsampled(self.classify(self.decoder(pyramid)))

    def rows(self) -> list[Tensor] | None:
        """Decoder and classes as one matrix ``(outputs, c)`` per level, where the decoder is linear; see `of_rows`."""
        if not isinstance(self.decoder, LinearDecoder):
            return None
        return [self.classify.weight.flatten(1) @ p.weight.flatten(1) for p in self.decoder.levels()]

    def of_rows(self, levels: Sequence[Tensor]) -> Tensor:
        """`forward` of a pyramid, from `rows` times each of its maps."""
        assert isinstance(self.decoder, LinearDecoder)
        bias = self.decoder.levels()[0].bias
        assert bias is not None and self.classify.bias is not None
        offset = self.classify.weight.flatten(1) @ bias + self.classify.bias
        return self._upsampled(self.decoder.sum(levels) + offset[:, None, None])

    def _upsampled(self, out: Tensor) -> Tensor:
        return F.interpolate(out, scale_factor=PYRAMID_STRIDES[0], mode="bilinear", align_corners=False)


class SceneHead(nn.Module):
    """A linear layer on the mean of every level: scene classification, single or multi-label."""

    def __init__(self, in_channels: Sequence[int], outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        # Affine-free, so the head stays linear in the features up to their scale.
        self.scale = nn.LayerNorm(sum(in_channels), elementwise_affine=False)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(sum(in_channels), outputs)

    def forward(self, pyramid: Pyramid) -> Tensor:
        """Logits ``(b, outputs)``."""
        pooled = torch.cat([p.mean((-2, -1)) for p in pyramid], 1)
        out: Tensor = self.classify(self.dropout(self.scale(pooled)))
        return out
