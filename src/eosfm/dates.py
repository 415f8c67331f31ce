"""Several dates of one place: each date goes through the encoder alone, then their features become one pyramid.

A chip of ``n`` dates is ``(n * c, h, w)``, the bands of the first date, then those of the second. How features are joined:

    mean          of each view's features, before the fusion (GEO-Bench-2's rule for time series)
    concat        the fused pyramids of all dates side by side, for a change (the published EoS-FM code)
    difference    the second date's fused pyramid minus the first's: antisymmetric in the dates

A date of which nothing was measured (all NaN) is left out of the mean; where nothing was measured at all, all dates count.
The mean is taken of frozen features, so it is cached at the size of one date. Of a linear fusion it equals the mean after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from eosfm.contracts import Pyramid

Join = Literal["mean", "concat", "difference"]


def default_join(dates: int) -> Join:
    """Two dates are a change and both are kept, as the readers of `eosfm.data` have it; more are a series."""
    return "concat" if dates == 2 else "mean"


def joined_channels(channels: Sequence[int], dates: int, join: Join) -> list[int]:
    """Channels per level after `joined`."""
    return [dates * c if join == "concat" else c for c in channels]


def each_date(x: Tensor, dates: int) -> Tensor:
    """``(b * dates, c, h, w)`` of ``x`` ``(b, dates * c, h, w)``: all dates of the first chip, then of the second."""
    return x.reshape(len(x) * dates, -1, *x.shape[2:])


def weights(x: Tensor, dates: int) -> Tensor:
    """``(b, dates)``, 1 in sum: equal weights of the dates of ``x`` ``(b, dates * c, h, w)`` that have a finite pixel."""
    there = x.reshape(len(x), dates, -1).isfinite().any(2)
    there = there | ~there.any(1, keepdim=True)
    return (there / there.sum(1, keepdim=True)).to(x.dtype)


def mean_of(levels: Pyramid, weight: Tensor) -> Pyramid:
    """The weighted mean over dates of ``levels`` ``(b * dates, c, h, w)``; ``weight`` is from `weights`."""
    b, dates = weight.shape
    return [torch.einsum("bt,btchw->bchw", weight.to(m), m.reshape(b, dates, *m.shape[1:])) for m in levels]


def joined(levels: Pyramid, dates: int, join: Join) -> Pyramid:
    """``concat`` or ``difference`` over dates of ``levels`` ``(b * dates, c, h, w)``."""
    each = [m.reshape(-1, dates, *m.shape[1:]) for m in levels]
    return [m[:, 1] - m[:, 0] if join == "difference" else m.flatten(1, 2) for m in each]


def side_by_side(levels: Pyramid, dates: int) -> Pyramid:
    """``(b, dates * c, h, w)`` of ``(b * dates, c, h, w)``: how features of all dates of a chip are kept."""
    return [m.reshape(-1, dates * m.shape[1], *m.shape[2:]) for m in levels]


def kept_features(pyramids: Sequence[Pyramid], x: Tensor, dates: int, join: Join) -> list[Pyramid]:
    """What is kept of the views' features of `each_date` of ``x``: one row per chip, the mean or all dates side by side."""
    if dates == 1:
        return list(pyramids)
    if join == "mean":
        weight = weights(x, dates)
        return [mean_of(p, weight) for p in pyramids]
    return [side_by_side(p, dates) for p in pyramids]
