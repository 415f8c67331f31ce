"""A specialist is trained on several dates through one encoder: a change (both dates kept), or the mean of a series.

The same rules as `eosfm.dates`, where an ensemble is adapted to several dates.
"""

from __future__ import annotations

from torch import Tensor, nn

from eosfm.contracts import Encoder, Pyramid
from eosfm.dates import each_date, joined, joined_channels, mean_of, weights


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
        return joined_channels(self.encoder.out_channels, 2, "concat")

    def forward(self, x: Tensor) -> Pyramid:
        """``x`` ``(b, 2 * c, h, w)``: the bands of the first date, then those of the second."""
        return joined(self.encoder(each_date(x, 2)), 2, "concat")


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
        return mean_of(self.encoder(each_date(x, self.dates)), weights(x, self.dates))
