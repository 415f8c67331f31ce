"""Mean and standard deviation per band, in the band's own unit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from eosfm.config import record
from eosfm.contracts import CardError, DataError

if TYPE_CHECKING:
    from torch import Tensor


@record
class BandStatistics:
    """Per-channel mean and standard deviation of valid pixels, in channel order and in each band's declared unit."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise CardError(f"statistics: {len(self.mean)} means but {len(self.std)} standard deviations")
        for m, s in zip(self.mean, self.std, strict=True):
            if not (math.isfinite(m) and math.isfinite(s) and s > 0):
                raise CardError(f"statistics: mean {m}, std {s}; a mean must be finite and a std finite and above 0")

    def require_channels(self, n: int, whose: str) -> BandStatistics:
        """Itself, or `CardError` if it does not describe exactly ``n`` channels."""
        if len(self.mean) != n:
            raise CardError(f"{whose}: statistics of {len(self.mean)} channels for {n} bands")
        return self


def band_statistics(images: Iterable[Tensor]) -> BandStatistics:
    """Statistics over an iterable of ``(c, h, w)`` or ``(n, c, h, w)`` tensors; non-finite pixels are left out.

    A channel without variation gets std 1 (it carries nothing to scale); a channel without valid pixels is an error.

    Raises:
        DataError: no images, or a channel with no valid pixel.
    """
    sums: tuple[Tensor, Tensor, Tensor] | None = None
    for image in images:
        x = image.double()
        x = x.reshape(-1, *x.shape[-3:]).transpose(0, 1).flatten(1)  # (c, n*h*w)
        ok = x.isfinite()
        x = x.where(ok, 0.0)
        n, s, q = ok.sum(1), x.sum(1), (x * x).sum(1)
        sums = (n, s, q) if sums is None else (sums[0] + n, sums[1] + s, sums[2] + q)
    if sums is None:
        raise DataError("statistics of an empty data set")
    count, total, square = sums
    if bool((count == 0).any()):
        raise DataError(f"channel {int((count == 0).nonzero()[0])} has no valid pixel; check nodata and band choice")
    mean = total / count
    std = (square / count - mean**2).clamp_min(0).sqrt()
    std = std.where(std > 1e-6 * mean.abs().clamp_min(1e-6), 1.0)
    return BandStatistics(
        mean=tuple(float(f"{float(v):.9g}") for v in mean), std=tuple(float(f"{float(v):.9g}") for v in std)
    )
