"""Several dates of one place: change detection (two dates, both kept) and time series (the mean over dates)."""

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


class MeanOfDates(nn.Module):
    """The mean over dates of each level of the pyramids, from one shared encoder: GEO-Bench-2's rule for time series.

    (PANGAEA has a learnt weight for each date, or L-TAE, instead.) A date of which nothing was measured (all NaN) is left
    out of the mean; where nothing was measured at all, all dates count.
    """

    def __init__(self, encoder: nn.Module & Encoder, dates: int) -> None:  # type: ignore[valid-type]
        super().__init__()
        self.encoder, self.dates = encoder, dates

    @property
    def out_channels(self) -> list[int]:
        """The encoder's."""
        return list(self.encoder.out_channels)

    def forward(self, x: Tensor) -> Pyramid:
        """``x`` ``(b, dates * c, h, w)``: the bands of the first date, then those of the second, and so on."""
        b = len(x)
        each = x.reshape(b, self.dates, -1, *x.shape[2:])
        there = each.isfinite().flatten(2).any(2)
        there = there | ~there.any(1, keepdim=True)
        weight = (there / there.sum(1, keepdim=True)).to(x.dtype)
        levels: Pyramid = self.encoder(each.flatten(0, 1))
        return [
            torch.einsum("bt,btchw->bchw", weight, level.reshape(b, self.dates, *level.shape[1:])) for level in levels
        ]
