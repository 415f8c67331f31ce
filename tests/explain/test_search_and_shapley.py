"""Search and Shapley values on games whose answers are known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from eosfm.contracts import ConfigError
from eosfm.explain.attribution import spearman
from eosfm.explain.search import Step, search, smallest_within
from eosfm.explain.shapley import shapley

WORTH = np.array([0.3, 0.0, 0.5, 0.1, -0.2])


def additive(subsets):
    return [float(sum(WORTH[i] for i in s)) for s in subsets]


def pairs(subsets):
    """0 and 1 help together only; 2 helps a little alone: a greedy forward search takes 2 first."""
    return [(1.0 if {0, 1} <= s else 0.0) + (0.2 if 2 in s else 0.0) for s in subsets]


@pytest.mark.parametrize("method", ["forward", "backward", "exhaustive"])
def test_an_additive_game_is_solved_by_every_method(method):
    steps = search(additive, 5, method)
    assert [sorted(s.members) for s in steps] == [[2], [0, 2], [0, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert [s.score for s in steps] == pytest.approx([0.5, 0.8, 0.9, 0.9, 0.7])


def test_where_methods_differ():
    assert search(pairs, 4, "exhaustive")[1] == Step(frozenset({0, 1}), 1.0)
    assert search(pairs, 4, "backward")[1] == Step(frozenset({0, 1}), 1.0)
    assert search(pairs, 4, "forward")[1].score == 0.2, "greedy cannot see a pair"


def test_each_subset_is_asked_for_once_and_sizes_are_kept():
    asked = []

    def score(subsets):
        asked.extend(subsets)
        return additive(subsets)

    steps = search(score, 5, "forward", smallest=2, largest=3)
    assert [len(s.members) for s in steps] == [2, 3] and len(asked) == 5 + 4 + 3 == len(set(asked))


def test_the_smallest_subset_that_keeps_the_score():
    steps = search(additive, 5, "exhaustive")
    assert sorted(smallest_within(steps, 0.0).members) == [0, 2], "0.8 is above the 0.7 of all"
    assert sorted(smallest_within(steps, 0.25).members) == [2]


def test_wrong_wishes():
    with pytest.raises(ConfigError, match="known: forward, backward, exhaustive"):
        search(additive, 5, "random")
    with pytest.raises(ConfigError, match="exhaustive search takes up to 12"):
        search(additive, 13, "exhaustive")
    with pytest.raises(ConfigError, match="1 <= smallest <= largest <= 5"):
        search(additive, 5, "forward", largest=6)


def game(subsets):
    """Two games: one additive, one with interactions and a dummy (player 4)."""
    rows = []
    for s in subsets:
        second = 2.0 * ({0, 1} <= s) + 1.0 * (2 in s) - 0.5 * ({2, 3} <= s) + 0.1
        rows.append([additive([s])[0], second])
    return np.array(rows)


def by_definition(value, n):
    out = np.zeros((n, value([frozenset()]).shape[1]))
    orders = list(permutations(range(n)))
    for order in orders:
        for k, i in enumerate(order):
            out[i] += (value([frozenset(order[: k + 1])]) - value([frozenset(order[:k])]))[0]
    return out / len(orders)


def test_exact_values_are_those_of_the_definition():
    s = shapley(game, 5, orders=64)
    assert s.orders == 0 and not s.errors.any()
    np.testing.assert_allclose(s.values, by_definition(game, 5), atol=1e-12)
    np.testing.assert_allclose(s.values[:, 0], WORTH, atol=1e-12)
    assert s.values[4, 1] == pytest.approx(0, abs=1e-12), "a dummy is worth nothing"
    assert s.values[0, 1] == pytest.approx(s.values[1, 1]), "players who play alike are worth alike"


@pytest.mark.parametrize("seed", range(5))
def test_sampled_values_are_efficient_and_near(seed):
    s = shapley(game, 5, orders=6, seed=seed)
    full, empty = game([frozenset(range(5))])[0], game([frozenset()])[0]
    np.testing.assert_allclose(s.values.sum(0), full - empty, atol=1e-12)
    assert s.orders == 6
    many = shapley(lambda subsets: game(subsets), 5, orders=6, seed=seed)
    np.testing.assert_array_equal(s.values, many.values)
    assert np.all(np.abs(s.values - by_definition(game, 5)) <= 4 * s.errors + 0.7)
    (
        np.testing.assert_allclose(s.values[:, 0], WORTH, atol=1e-12),
        "an order and its reverse are exact for additive games",
    )


def test_more_orders_are_nearer_and_the_errors_say_so():
    n = 9
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(n, n))

    def value(subsets):
        return np.array([[sum(pair[i, j] ** 3 for i in s for j in s if i < j and len(s) < 7)] for s in subsets])

    exact = shapley(value, n, orders=100)
    assert exact.orders == 0
    errors = []
    for orders in (8, 32):
        runs = [shapley(value, n, orders=orders, seed=k) for k in range(8)]
        real = np.sqrt(np.mean([(r.values - exact.values) ** 2 for r in runs]))
        said = np.sqrt(np.mean([r.errors**2 for r in runs]))
        assert 0.5 < said / real < 2, (orders, said, real)
        errors.append(real)
    assert errors[1] < 0.75 * errors[0]


def test_rank_correlation():
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 90])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    # by hand: ranks 1.5 1.5 3 4 and 1 2 3 4 -> 0.9487
    assert spearman(np.array([5.0, 5, 6, 7]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.94868, abs=1e-5)
    assert np.isnan(spearman(np.array([1.0, 1]), np.array([1.0, 2])))
