"""Change detection: one encoder looks at two dates, the head at both pyramids."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eosfm.contracts import Encoder, Pyramid


class TwoDates(nn.Module):
    """The pyramids of both dates, concatenated per level, from one shared encoder (a siamese network).

    The published EoS-FM code does the same, one date after the other.
    """

    def __init__(self, encoder: nn.Module & Encoder) -> None:  # type: ignore[valid-type]
        super().__init__()
        self.encoder = encoder

    @property
    def out_channels(self) -> list[int]:
        """Twice the encoder's."""
        return [2 * c for c in self.encoder.out_channels]

    def forward(self, x: Tensor) -> Pyramid:
        """``x`` ``(b, 2 * c, h, w)``: the bands of the first date, then those of the second."""
        both: Pyramid = self.encoder(torch.cat(x.chunk(2, dim=1)))
        return [torch.cat(level.chunk(2), dim=1) for level in both]
