"""Limited labels against a re-statement of PANGAEA's rule in plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm.benchmark.subsets import class_shares, stratified
from eosfm.contracts import DataError
from eosfm.tasks.kinds import IGNORE


def pangaea_counts(labels, classes: int, fraction: float) -> dict[tuple[int, ...], int]:
    """Stratum -> how many of its chips are drawn, chip by chip and pixel by pixel."""
    sizes: dict[tuple[int, ...], int] = {}
    for chip in labels:
        pixels = [p for p in chip.flatten().tolist() if p != IGNORE]
        key = []
        for c in range(classes):
            share = pixels.count(c) / len(pixels) if pixels else 0.0
            key.append(3 if share >= 1 else 2 if share >= np.linspace(0, 1, 4)[2] else 1 if share >= 1 / 3 else 0)
        sizes[tuple(key)] = sizes.get(tuple(key), 0) + 1
    return {k: int(max(1, n * fraction)) for k, n in sizes.items()}


def masks(seed: int, n: int = 60, classes: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    out = np.stack([rng.choice(classes, (4, 4), p=rng.dirichlet([0.3] * classes)) for _ in range(n)])
    out[rng.random(out.shape) < 0.2] = IGNORE
    out[0] = IGNORE
    return out


@given(st.integers(0, 500), st.sampled_from([0.05, 0.1, 0.29, 0.5, 0.9]))
def test_as_many_chips_of_each_stratum_as_pangaea(seed: int, fraction: float):
    labels = masks(seed)
    subset = stratified("segmentation", class_shares("segmentation", labels, 3), fraction, seed)
    expected = pangaea_counts(labels, 3, fraction)
    chosen = labels[list(subset.indices)]
    assert sizes_of(chosen) == expected
    assert len(subset.indices) == sum(expected.values()) == round(subset.drawn * len(labels))
    assert subset.strata == len(expected)


def sizes_of(labels) -> dict[tuple[int, ...], int]:
    """How many chips each stratum has: the rule with nothing left out."""
    return pangaea_counts(labels, 3, 1.0)


def test_distinct_sorted_and_reproducible():
    shares = class_shares("segmentation", masks(1), 3)
    a, b = (stratified("segmentation", shares, 0.5, seed=4) for _ in range(2))
    assert a == b
    assert list(a.indices) == sorted(set(a.indices))
    assert a.indices != stratified("segmentation", shares, 0.5, seed=5).indices


def test_the_draw_does_not_touch_or_depend_on_numpy_s_global_stream():
    shares = class_shares("segmentation", masks(2), 3)
    np.random.seed(0)
    first = stratified("segmentation", shares, 0.5, 0)
    value = np.random.random()
    np.random.seed(0)
    assert np.random.random() == value
    assert stratified("segmentation", shares, 0.5, 0) == first


def test_all_labels_are_all_chips():
    subset = stratified("segmentation", class_shares("segmentation", masks(3), 3), 1.0, 0)
    assert subset.indices == tuple(range(60))
    assert subset.drawn == 1.0


def test_classes_of_scenes_keep_their_shares():
    labels = np.repeat(np.arange(4), [100, 40, 20, 5])
    subset = stratified("classification", class_shares("classification", labels, 4), 0.1, 0)
    assert np.bincount(labels[list(subset.indices)]).tolist() == [10, 4, 2, 1]
    assert subset.drawn == pytest.approx(17 / 165)


def test_more_than_asked_is_reported_where_strata_are_rare():
    labels = np.eye(8, dtype=int)  # eight chips, each the only one with its combination
    subset = stratified("multilabel", class_shares("multilabel", labels, 8), 0.1, 0)
    assert (subset.asked, subset.drawn, subset.strata) == (0.1, 1.0, 8)


def test_regression_is_binned_between_its_extremes_and_loses_nobody():
    labels = np.repeat(np.r_[np.zeros(30), np.full(30, 0.5), np.ones(30)], 4).reshape(90, 2, 2).astype(float)
    labels[0, 0, 0] = np.nan
    shares = class_shares("regression", labels, 1)
    assert shares[:, 0].tolist() == [0.0] * 30 + [0.5] * 30 + [1.0] * 30
    subset = stratified("regression", shares, 0.1, 0)
    assert [sum(i // 30 == b for i in subset.indices) for b in range(3)] == [3, 3, 3]
    halves = stratified("regression", shares[30:], 0.1, 0)  # an empty bin in the middle
    assert (halves.strata, len(halves.indices)) == (2, 6)


def test_shares_leave_ignored_pixels_out():
    labels = np.array([[[0, 1, IGNORE, IGNORE]], [[IGNORE] * 4]])
    assert class_shares("segmentation", labels, 2).tolist() == [[0.5, 0.5], [0.0, 0.0]]


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_impossible_fractions_are_refused(fraction: float):
    with pytest.raises(DataError, match="fraction"):
        stratified("segmentation", np.ones((3, 2)), fraction, 0)


@pytest.mark.parametrize(("kind", "shape"), [("segmentation", (3,)), ("classification", (3, 2)), ("dense", (3,)),
                                             ("classification", (0,))])  # fmt: skip
def test_labels_of_another_shape_are_refused(kind: str, shape: tuple[int, ...]):
    with pytest.raises(DataError):
        class_shares(kind, np.zeros(shape, int), 2)


def test_a_regression_chip_without_values_is_refused():
    with pytest.raises(DataError, match="1 chips have no finite value"):
        class_shares("regression", np.full((1, 2, 2), np.nan), 1)
