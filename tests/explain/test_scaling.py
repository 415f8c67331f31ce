"""Growth curves: the ledger survives a kill, the fit finds a known curve, the verdict says what the numbers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eosfm.contracts import ConfigError, CorruptArtifact
from eosfm.explain.scaling import Curve, Growth, SubsetScores, grow, outlook, random_orders, saturating

NAMES = list("abcde")


def gain(s, seed):
    return 0.5 + 0.08 * len(s) - 0.005 * len(s) ** 2 + 0.001 * seed


def test_a_killed_run_continues_and_computes_nothing_twice(tmp_path):
    asked = []

    def score(s, seed):
        asked.append((s, seed))
        if len(asked) == 7:
            raise KeyboardInterrupt
        return gain(s, seed)

    orders = random_orders(5, 3, 0)
    args = ("refit", orders, NAMES, score)
    with pytest.raises(KeyboardInterrupt):
        grow(*args, SubsetScores(tmp_path / "s.json", "x"), seeds=[0, 1, 2])
    assert len(SubsetScores(tmp_path / "s.json", "x").scores) == 6
    done = grow(*args, SubsetScores(tmp_path / "s.json", "x"), seeds=[0, 1, 2])
    plain = grow("refit", orders, NAMES, gain, SubsetScores(tmp_path / "t.json", "x"), seeds=[0, 1, 2])
    np.testing.assert_array_equal(done.scores, plain.scores)
    assert len(asked) == len(set(asked)) + 1, "one was interrupted, none repeated"


def test_another_models_ledger_is_refused(tmp_path):
    SubsetScores(tmp_path / "s.json", "x").get("refit", 0, ["a"], lambda: 0.5)
    with pytest.raises(ConfigError, match="another model, data or settings"):
        SubsetScores(tmp_path / "s.json", "y")
    (tmp_path / "s.json").write_text("[]")
    with pytest.raises(CorruptArtifact, match="not a ledger"):
        SubsetScores(tmp_path / "s.json", "x")


def test_equal_sets_are_one_entry_whatever_their_order(tmp_path):
    ledger = SubsetScores(tmp_path / "s.json", "x")
    assert ledger.get("ablation", 0, ["b", "a"], lambda: 0.25) == 0.25
    assert ledger.get("ablation", 0, ["a", "b"], lambda: 9.0) == 0.25
    assert ledger.get("refit", 0, ["a", "b"], lambda: 0.5) == 0.5


@pytest.mark.parametrize(("limit", "gap", "scale"), [(0.8, 0.3, 2.0), (0.6, 0.05, 5.0), (0.7, -0.1, 1.0)])
def test_the_fit_finds_a_known_curve(limit, gap, scale):
    known = Curve(limit, gap, scale)
    sizes = list(range(1, 15))
    rng = np.random.default_rng(0)
    scores = np.array([[known(k) for k in sizes]] * 8) + rng.normal(0, 1e-4, (8, 14))
    found = saturating(sizes, scores)
    assert [found(k) for k in sizes] == pytest.approx([known(k) for k in sizes], abs=1e-3)
    assert found.limit == pytest.approx(limit, abs=0.01)


def growth(curve, noise=0.002):
    rng = np.random.default_rng(1)
    sizes = range(1, 13)
    scores = np.array([[curve(k) for k in sizes]] * 16) + rng.normal(0, noise, (16, 12))
    return Growth("refit", tuple(random_orders(12, 16, 0)), scores)


def test_the_verdict_follows_the_curve():
    assert "would probably help" in outlook(growth(Curve(0.9, 0.5, 8.0))).verdict()
    assert "has saturated" in outlook(growth(Curve(0.8, 0.3, 1.0))).verdict()
    ablated = replace(growth(Curve(0.9, 0.5, 8.0)), mode="ablation")
    assert "cannot be extrapolated" in outlook(ablated).verdict()
    assert "does not say" in outlook(growth(Curve(0.8, 0.02, 6.0), noise=0.05)).verdict()


def test_spread_is_that_of_single_orders():
    g = growth(Curve(0.8, 0.3, 2.0))
    mean, low, high = g.spread()
    assert g.sizes == list(range(1, 13)) and np.all(low <= mean) and np.all(mean <= high)
