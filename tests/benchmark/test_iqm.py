"""GEO-Bench-2's aggregate against pandas and SciPy, which its leaderboard computes it with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem, trim_mean
from scipy.stats.mstats import trim

from eosfm.benchmark.iqm import (
    BIOMASSTERS_STD,
    CAPABILITIES,
    Normaliser,
    Run,
    aggregate,
    higher_is_better,
    iqm,
    iqm_error,
    make_normaliser,
)
from eosfm.contracts import DataError

DATASETS, BACKBONES = ("benv2", "caffe", "pastis"), ("atto", "vit")


def runs(seed: int = 0, seeds: int = 5) -> list[Run]:
    rng = np.random.default_rng(seed)
    return [Run(b, d, s, float(rng.random())) for b in BACKBONES for d in DATASETS for s in range(seeds)]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_against_scipy(scores: list[float]):
    assert iqm(scores) == pytest.approx(trim_mean(scores, 0.25), abs=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=40, unique=True))
def test_error_against_scipy(scores: list[float]):
    trimmed = trim(scores, limits=(0.25, 0.25), relative=True)
    kept = trimmed.data[~np.ma.getmaskarray(trimmed)]
    if len(kept) > 1:
        assert iqm_error(scores) == pytest.approx(sem(kept), abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20), st.floats(0.5, 2), st.floats(-1, 1))
def test_it_moves_with_its_scores_and_not_with_their_order(scores: list[float], scale: float, shift: float):
    assert iqm(scores[::-1]) == iqm(scores)
    assert iqm([scale * s + shift for s in scores]) == pytest.approx(scale * iqm(scores) + shift, abs=1e-9)


def test_extremes_do_not_count():
    assert iqm([0, 1, 2, 3]) == iqm([-1e6, 1, 2, 1e6]) == 1.5
    assert iqm([1, 2, 100]) == pytest.approx(103 / 3)  # a quarter of three, rounded down, is nobody
    assert math.isnan(iqm_error([1.0]))


def test_the_bootstrap_is_the_leaderboard_s_to_the_last_draw():
    pd = pytest.importorskip("pandas")
    data = runs()
    scale = make_normaliser(data, "all")
    frame = pd.DataFrame([{"backbone": r.backbone, "dataset": r.dataset, "score": scale(r)} for r in data])
    group = frame.groupby(["backbone", "dataset"])
    drawn: dict[str, list[float]] = {b: [] for b in BACKBONES}
    for i in range(100):
        sampled = group.sample(frac=1, replace=True, random_state=100 + i)
        for b, scores in sampled.groupby("backbone")["score"]:
            drawn[b].append(trim_mean(scores.to_numpy(), 0.25))
    for a in aggregate(data, scale):
        assert a.mean == pytest.approx(np.mean(drawn[a.backbone]), abs=1e-12)
        assert (a.low, a.high) == pytest.approx(tuple(np.quantile(drawn[a.backbone], [0.025, 0.975])), abs=1e-12)
        own = frame[frame.backbone == a.backbone]["score"]
        assert a.value == pytest.approx(trim_mean(own.to_numpy(), 0.25), abs=1e-12)
        assert (a.datasets, a.runs, a.normaliser) == (DATASETS, 15, "all")


def test_best_first_and_the_order_of_runs_does_not_matter():
    data = [*runs(), *(Run("best", d, s, 2.0) for d in DATASETS for s in range(5))]
    scale = make_normaliser(runs(), "base")
    got = aggregate(data, scale)
    assert got[0].backbone == "best"
    assert [a.value for a in got] == sorted((a.value for a in got), reverse=True)
    assert [a.value for a in aggregate(data[::-1], scale)] == pytest.approx([a.value for a in got])


def test_a_new_model_may_leave_the_range_of_the_base_submissions():
    scale = Normaliser({"caffe": (0.2, 0.6)}, "base")
    assert scale(Run("x", "caffe", 0, 0.8)) == pytest.approx(1.5)
    assert scale(Run("x", "caffe", 0, 0.0)) == pytest.approx(-0.5)


def test_ranges_are_least_and_greatest_over_all_runs():
    data = runs()
    ranges = make_normaliser(data, "base").ranges
    for d in DATASETS:
        scores = [r.score for r in data if r.dataset == d]
        assert ranges[d] == (min(scores), max(scores))


def test_biomassters_error_is_turned_round_and_nothing_else():
    assert higher_is_better("biomassters", "test/RMSE", 2.0) == 1 - 2 * BIOMASSTERS_STD
    assert higher_is_better("biomassters", "r2", 0.7) == 0.7
    assert higher_is_better("pastis", "rmse", 2.0) == 2.0


def test_a_capability_counts_its_own_data_sets_only():
    data = runs()
    scale = make_normaliser(data, "base")
    some = aggregate(data, scale, ["caffe", "benv2"])
    without = aggregate([r for r in data if r.dataset != "pastis"], scale)
    assert [(a.backbone, a.value, a.mean) for a in some] == [(a.backbone, a.value, a.mean) for a in without]
    assert some[0].datasets == ("benv2", "caffe")


def test_capabilities_are_nine_overlapping_groups_of_known_sizes():
    sizes = {k: len(v) for k, v in CAPABILITIES.items()}
    assert sizes == {"core": 12, "multi-spectral": 8, "multi-temporal": 4, "pixel-wise": 11, "classification": 4,
                     "detection": 4, "under-10-m": 5, "10-m-and-above": 10, "rgb-nir": 5}  # fmt: skip
    assert len({d for v in CAPABILITIES.values() for d in v}) == 19
    assert not set(CAPABILITIES["under-10-m"]) & set(CAPABILITIES["10-m-and-above"])


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: [r for r in d if r.seed < 4], "5 seeds are required"),
    (lambda d: [r for r in d if (r.backbone, r.dataset) != ("vit", "caffe")], "vit has no run on caffe"),
    (lambda d: [*d, d[0]], "two runs of seed 0"),
    (lambda d: [], "no run on"),
    (lambda d: [*d, *(Run(b, "fotw", s, 0.5) for b in BACKBONES for s in range(5))], "no range for data set 'fotw'"),
])  # fmt: skip
def test_what_is_no_full_submission_is_refused(change, message: str):
    data = runs()
    with pytest.raises(DataError, match=message):
        aggregate(change(data), make_normaliser(data, "base"))


def test_runs_without_a_range_are_refused():
    with pytest.raises(DataError, match="no range; add another model"):
        make_normaliser([Run("a", "caffe", s, 0.5) for s in range(5)], "base")
    with pytest.raises(DataError, match="score nan"):
        make_normaliser([Run("a", "caffe", 0, math.nan)], "base")
    with pytest.raises(DataError, match="no runs"):
        make_normaliser([], "base")
    with pytest.raises(DataError, match="0 scores"):
        iqm([])
