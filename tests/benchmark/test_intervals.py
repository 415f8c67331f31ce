"""Intervals against the enumeration of all resamples, and against what is known of a mean."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from eosfm.benchmark.intervals import Interval, interval, paired_difference
from eosfm.contracts import DataError


def mean(table) -> float:
    return float(table.mean())


def test_against_all_resamples_of_four_samples():
    values = np.array([0.0, 1.0, 3.0, 10.0])
    every = [np.mean([values[i] for i in drawn]) for drawn in itertools.product(range(4), repeat=4)]
    got = interval([values], mean, resamples=4000)
    assert got.value == values.mean()
    assert got.low == pytest.approx(np.quantile(every, 0.025), abs=0.26)  # a step of the enumerated means is 0.25
    assert got.high == pytest.approx(np.quantile(every, 0.975), abs=0.26)


def test_over_seeds_against_all_resamples_of_two_seeds_of_two_samples():
    seeds = [np.array([0.0, 1.0]), np.array([10.0, 13.0])]
    every = []
    for drawn in itertools.product(range(2), repeat=2):
        for rows in itertools.product(range(2), repeat=2):
            every.append(np.mean([seeds[s][list(rows)].mean() for s in drawn]))
    got = interval(seeds, mean, resamples=4000)
    assert (got.value, got.samples, got.seeds) == (6.0, 2, 2)
    assert (got.low, got.high) == pytest.approx(
        tuple(np.quantile(every, [0.025, 0.975], method="inverted_cdf")), abs=0.26
    )


def test_the_interval_of_a_mean_is_the_textbook_one():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, 400)
    got = interval([values], mean, resamples=3000)
    half = norm.ppf(0.975) * values.std() / math.sqrt(400)
    assert (got.low, got.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        got = interval([rng.normal(size=60)], mean, seed=trial, resamples=200)
        hits += got.low <= 0 <= got.high
    assert 0.89 <= hits / 200 <= 0.985  # 0.95 - 3 standard errors; bootstrap of 60 samples is slightly narrow


def test_more_seeds_on_the_same_chips_do_not_make_the_chips_more():
    """Five equal tables tell what one tells; and it covers the truth where seeds share their chips."""
    one = np.random.default_rng(0).normal(size=100)
    single, five = interval([one], mean), interval([one] * 5, mean)
    assert five.high - five.low == pytest.approx(single.high - single.low, rel=0.1)
    gap = paired_difference([(one, 0 * one)] * 5, mean)
    assert gap.high - gap.low == pytest.approx(single.high - single.low, rel=0.1)
    rng, hits = np.random.default_rng(4), 0
    for trial in range(200):
        chips = rng.normal(size=60)
        got = interval([chips + 0.3 * rng.normal(size=60) for _ in range(5)], mean, seed=trial, resamples=200)
        hits += got.low <= 0 <= got.high
    assert hits / 200 >= 0.89


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(2)
    one = rng.normal(size=200)
    narrow = interval([one, one, one], mean)
    wide = interval([one - 1, one, one + 1], mean)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_what_two_methods_share_cancels_in_their_paired_difference():
    rng = np.random.default_rng(3)
    shared = rng.normal(0, 10, 300)
    a, b = shared + 0.5, shared + rng.normal(0, 0.1, 300)
    got = paired_difference([(a, b)], mean, resamples=400)
    assert got.value == pytest.approx(np.mean(a - b))
    assert 0.4 < got.low < got.value < got.high < 0.6
    alone = interval([a], mean, resamples=400)
    assert got.high - got.low < (alone.high - alone.low) / 20


def test_paired_differences_against_resampling_the_differences():
    """For a mean, the difference of the resampled means is the resampled mean of the differences."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=80), rng.normal(size=80)
    direct = interval([a - b], mean, resamples=3000)
    paired = paired_difference([(a, b)], mean, resamples=3000)
    assert (paired.low, paired.high) == pytest.approx((direct.low, direct.high), abs=0.03)


def test_a_method_does_not_differ_from_itself():
    t = np.random.default_rng(5).normal(size=50)
    assert paired_difference([(t, t), (t, t)], mean, resamples=50) == Interval(0.0, 0.0, 0.0, 50, 2)


@pytest.mark.parametrize("make", [
    lambda: interval([], mean),
    lambda: interval([np.zeros(3), np.zeros(4)], mean),
    lambda: interval([np.zeros(0)], mean),
    lambda: paired_difference([], mean),
    lambda: paired_difference([(np.zeros(3), np.zeros(4))], mean),
])  # fmt: skip
def test_tables_of_other_samples_are_refused(make):
    with pytest.raises(DataError, match="same samples"):
        make()
