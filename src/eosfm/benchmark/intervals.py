"""Intervals of 95 % by the bootstrap: over samples, over seeds, and of paired differences.

Hierarchical: each resample draws seeds with replacement, then samples within each drawn seed, so an interval covers the
choice of both. Drawing is `eosfm.training.scoring.bootstrap`'s; tables are `eosfm.benchmark.scores`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eosfm.benchmark.scores import Array
from eosfm.contracts import DataError
from eosfm.training.scoring import RESAMPLES, Statistic, bootstrap


@dataclass(frozen=True)
class Interval:
    """A score, the mean over seeds, with the 2.5 % and 97.5 % quantiles of its resamples."""

    value: float
    low: float
    high: float
    samples: int
    """in each seed"""
    seeds: int
    """1: the interval is over samples only, and says nothing of another seed"""

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def interval(tables: Sequence[Array], statistic: Statistic, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """``statistic`` of one table per seed, with its interval.

    Raises:
        DataError: no table, or tables of different numbers of samples.
    """
    n = _samples(tables)
    low, high = bootstrap(tables, statistic, seed, resamples)
    return Interval(float(np.mean([statistic(t) for t in tables])), low, high, n, len(tables))


def paired_difference(
    pairs: Sequence[tuple[Array, Array]], statistic: Statistic, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """``statistic(a) - statistic(b)`` of two methods on the same seeds and samples, row for row; one pair per seed.

    Both methods of a pair are resampled with the same seeds and samples, so what they share cancels.

    Raises:
        DataError: no pair, or tables that are not of the same samples.
    """
    n = _samples([t for pair in pairs for t in pair])
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        difference = []
        drawn, i = rng.integers(len(pairs), size=len(pairs)), rng.integers(n, size=n)
        for a, b in (pairs[s] for s in drawn):
            difference.append(statistic(a[i]) - statistic(b[i]))
        values.append(float(np.mean(difference)))
    low, high = np.nanquantile(values, [0.025, 0.975])
    mean = float(np.mean([statistic(a) - statistic(b) for a, b in pairs]))
    return Interval(mean, float(low), float(high), n, len(pairs))


def _samples(tables: Sequence[Array]) -> int:
    sizes = {len(t) for t in tables}
    if len(sizes) != 1 or sizes == {0}:
        raise DataError(f"tables of {sorted(sizes)} samples; expected one table or more, all of the same samples")
    return sizes.pop()
