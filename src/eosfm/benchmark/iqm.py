"""GEO-Bench-2's aggregate: the interquartile mean of normalised scores, with a bootstrap stratified by data set.

Re-stated from the leaderboard's code (itself "modified from ServiceNow geo-bench plot_tools.py"), which this reproduces to
the last bit where pandas and SciPy do: BioMassters' RMSE becomes ``1 - RMSE * 0.2538``; each data set is scaled by the
least and greatest score of the base submissions, so a new model may lie below 0 or above 1; runs of a model are pooled;
a quarter is cut off each end (rounded down), the rest averaged; 100 resamples draw runs within each data set.

The leaderboard's code does not say which of its numbers is the headline: `Aggregate` has the value of the runs themselves
and the mean over resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError, known

CUT = 0.25
REPEATS = 100
FIRST_STATE = 100
"""random state of the first resample; the i-th has 100 + i"""
REQUIRED_SEEDS = 5
BIOMASSTERS_STD = 0.2537951171398163

CAPABILITIES: dict[str, tuple[str, ...]] = {
    "core": ("kuro_siwo", "pastis", "burn_scars", "cloudsen12", "flair2", "spacenet7", "benv2", "treesatai", "biomassters",
             "fotw", "substation", "everwatch"),
    "multi-spectral": ("benv2", "biomassters", "pastis", "so2sat", "cloudsen12", "spacenet2", "burn_scars", "fotw"),
    "multi-temporal": ("kuro_siwo", "pastis", "biomassters", "dynamic_earthnet"),
    "pixel-wise": ("kuro_siwo", "pastis", "burn_scars", "spacenet2", "cloudsen12", "caffe", "flair2", "dynamic_earthnet",
                   "biomassters", "spacenet7", "fotw"),
    "classification": ("so2sat", "forestnet", "benv2", "treesatai"),
    "detection": ("substation", "everwatch", "nzcattle", "pastis_r"),
    "under-10-m": ("spacenet2", "treesatai", "flair2", "dynamic_earthnet", "spacenet7"),
    "10-m-and-above": ("biomassters", "so2sat", "kuro_siwo", "cloudsen12", "pastis", "benv2", "forestnet", "burn_scars", "caffe",
                       "fotw"),
    "rgb-nir": ("flair2", "treesatai", "dynamic_earthnet", "spacenet7", "fotw"),
}  # fmt: skip
"""capability -> its data sets, from the leaderboard's constants"""


@dataclass(frozen=True)
class Run:
    """One training's test score; more is better (see `higher_is_better`)."""

    backbone: str
    dataset: str
    seed: int
    score: float


def higher_is_better(dataset: str, metric: str, score: float) -> float:
    """A test metric as the leaderboard scores it: BioMassters' RMSE (in units of 289.89 t/ha) turned round."""
    return 1 - score * BIOMASSTERS_STD if dataset == "biomassters" and "rmse" in metric.lower() else score


@dataclass(frozen=True)
class Normaliser:
    """The range of every data set, and which runs it comes from: no normalised score means anything without it."""

    ranges: Mapping[str, tuple[float, float]]
    source: str

    def __call__(self, run: Run) -> float:
        """``(score - least) / (greatest - least)``; `DataError` for a data set without a range."""
        if run.dataset not in self.ranges:
            raise DataError(f"no range for data set {run.dataset!r} from {self.source}; {known(self.ranges)}")
        low, high = self.ranges[run.dataset]
        return (run.score - low) / (high - low)


def make_normaliser(runs: Iterable[Run], source: str) -> Normaliser:
    """Least and greatest score of each data set over ``runs``, which are those of the base submissions.

    Raises:
        DataError: no runs, a score that is not finite, or a data set whose runs all score the same.
    """
    found: dict[str, list[float]] = {}
    for r in runs:
        if not math.isfinite(r.score):
            raise DataError(f"{r.backbone} on {r.dataset}, seed {r.seed}: score {r.score}")
        found.setdefault(r.dataset, []).append(r.score)
    if not found:
        raise DataError(f"no runs to normalise by ({source})")
    ranges = {d: (min(v), max(v)) for d, v in found.items()}
    if flat := [d for d, (low, high) in ranges.items() if low == high]:
        raise DataError(
            f"{', '.join(flat)}: all runs of {source} score the same, so there is no range; add another model"
        )
    return Normaliser(ranges, source)


def iqm(scores: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean without the lowest and the highest quarter, each rounded down to whole scores."""
    return float(_middle(scores).mean())


def iqm_error(scores: Sequence[float] | NDArray[np.float64]) -> float:
    """The standard error of the mean of what `iqm` averages; NaN for a single score."""
    kept = _middle(scores)
    return float(kept.std(ddof=1) / math.sqrt(len(kept))) if len(kept) > 1 else float("nan")


def _middle(scores: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not values.size or not np.isfinite(values).all():
        raise DataError(f"{values.size} scores, {int((~np.isfinite(values)).sum())} not finite; expected finite ones")
    cut = int(CUT * values.size)
    return values[cut : values.size - cut]


@dataclass(frozen=True)
class Aggregate:
    """A backbone's normalised interquartile mean over data sets and seeds."""

    backbone: str
    value: float
    """of the runs themselves"""
    error: float
    """standard error over the runs that were averaged"""
    mean: float
    """over resamples"""
    low: float
    high: float
    """2.5 % and 97.5 % quantiles over resamples: of the choice of seeds, not of data sets"""
    datasets: tuple[str, ...]
    runs: int
    normaliser: str
    """where the ranges come from"""


def aggregate(
    runs: Sequence[Run], normaliser: Normaliser, datasets: Sequence[str] | None = None, *,
    repeats: int = REPEATS, required_seeds: int = REQUIRED_SEEDS,
) -> list[Aggregate]:  # fmt: skip
    """The interquartile mean of every backbone in ``runs`` over ``datasets`` (default: all that occur), best first.

    Args:
        runs: scores of which more is better.
        normaliser: from the base submissions.
        datasets: for example ``CAPABILITIES["core"]``; runs on others are left out.
        repeats: resamples.
        required_seeds: for each backbone and data set; the leaderboard asks for five.

    Raises:
        DataError: a backbone without one of the data sets, with too few or repeated seeds, or a data set without a range.
    """
    wanted = sorted(set(datasets) if datasets is not None else {r.dataset for r in runs})
    groups: dict[str, dict[str, list[float]]] = {}
    seen: set[tuple[str, str, int]] = set()
    for r in runs:
        if r.dataset not in wanted:
            continue
        if (key := (r.backbone, r.dataset, r.seed)) in seen:
            raise DataError(f"{r.backbone} on {r.dataset}: two runs of seed {r.seed}")
        seen.add(key)
        groups.setdefault(r.backbone, {}).setdefault(r.dataset, []).append(normaliser(r))
    if not groups:
        raise DataError(f"no run on {', '.join(wanted) or 'any data set'}")
    for backbone, scores in groups.items():
        if missing := [d for d in wanted if d not in scores]:
            raise DataError(
                f"{backbone} has no run on {', '.join(missing)}; an aggregate over other data sets is another number"
            )
        if few := [f"{d} ({len(v)})" for d, v in scores.items() if len(v) < required_seeds]:
            raise DataError(f"{backbone}: {required_seeds} seeds are required; got fewer on {', '.join(sorted(few))}")
    drawn = _resampled(groups, repeats)
    out = []
    for backbone, scores in groups.items():
        pooled = [s for d in wanted for s in scores[d]]
        low, high = np.quantile(drawn[backbone], [0.025, 0.975])
        out.append(Aggregate(backbone, iqm(pooled), iqm_error(pooled), float(np.mean(drawn[backbone])), float(low), float(high),
                             tuple(wanted), len(pooled), normaliser.source))  # fmt: skip
    return sorted(out, key=lambda a: -a.value)


def _resampled(groups: Mapping[str, Mapping[str, Sequence[float]]], repeats: int) -> dict[str, list[float]]:
    """Per backbone the interquartile means of ``repeats`` draws, in the order and from the streams of pandas' sampling.

    One legacy random state a repeat, shared by all groups in sorted order: so a backbone's draws depend on who else is
    listed, as on the leaderboard.
    """
    out: dict[str, list[float]] = {b: [] for b in groups}
    for i in range(repeats):
        state = np.random.RandomState(FIRST_STATE + i)
        for backbone in sorted(groups):
            pooled: list[float] = []
            for dataset in sorted(groups[backbone]):
                scores = np.asarray(groups[backbone][dataset])
                pooled += scores[state.choice(len(scores), size=len(scores), replace=True)].tolist()
            out[backbone].append(iqm(pooled))
    return out
