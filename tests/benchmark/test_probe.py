"""Probes against scikit-learn and plain loops, and that the test samples choose nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier

from eosfm.bands import BandSet
from eosfm.benchmark.probe import Features, fit_logistic, knn_probe, linear_probe, pooled_features
from eosfm.benchmark.probing import kept_features
from eosfm.benchmark.protocol import FrozenProbe
from eosfm.contracts import DataError
from eosfm.data.chips import Chips
from eosfm.ensemble import Ensemble
from helpers import make_specialist, statistics_of

QUICK = FrozenProbe(penalties=(1e-4, 1e-2, 1.0, 100.0), resamples=50)


def blobs(seed: int, n: int = 120, classes: int = 3, d: int = 6, noise: float = 2.5) -> Features:
    centres = np.random.default_rng(99).normal(size=(classes, d)) * 2
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return Features(centres[y] + noise * rng.normal(size=(n, d)), y, classes)


def tags(seed: int, n: int = 120, classes: int = 3, d: int = 6) -> Features:
    directions = np.random.default_rng(98).normal(size=(d, classes))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return Features(x, (x @ directions + rng.normal(size=(n, classes)) > 0.5).astype(int), classes)


def slow_neighbours(train: Features, test: Features, k: int) -> list[list[int]]:
    out = []
    for row in test.features.astype(float):
        distances = [
            sum((a - b) ** 2 for a, b in zip(row, other, strict=True)) for other in train.features.astype(float)
        ]
        out.append(sorted(range(len(distances)), key=lambda i, d=distances: (d[i], i))[:k])
    return out


@pytest.mark.parametrize("make", [blobs, tags])
def test_neighbours_against_plain_loops(make):
    train, test = make(0), make(1, n=20)
    got = knn_probe(train, test, QUICK)
    for row, near in enumerate(slow_neighbours(train, test, 5)):
        if train.several:
            expected = [sum(train.labels[i, c] for i in near) / 5 for c in range(3)]
        else:
            expected = [sum(train.labels[i] == c for i in near) / 5 for c in range(3)]
        np.testing.assert_allclose(got.probabilities[row], expected)


def test_neighbours_against_scikit_learn():
    train, test = blobs(2, 300), blobs(3, 100)
    theirs = KNeighborsClassifier(5).fit(train.features, train.labels)
    got = knn_probe(train, test, QUICK)
    np.testing.assert_allclose(got.probabilities, theirs.predict_proba(test.features))
    np.testing.assert_array_equal(got.predictions, theirs.predict(test.features))
    cosine = KNeighborsClassifier(5, metric="cosine").fit(train.features, train.labels)
    ours = knn_probe(train, test, replace(QUICK, distance="cosine"))
    np.testing.assert_allclose(ours.probabilities, cosine.predict_proba(test.features))


def test_cosine_ignores_the_length_of_a_vector_and_euclidean_does_not():
    train, test = blobs(2), blobs(3)
    longer = replace(test, features=test.features * np.linspace(0.1, 9, len(test.features))[:, None])
    cosine = replace(QUICK, distance="cosine")
    np.testing.assert_array_equal(
        knn_probe(train, test, cosine).predictions, knn_probe(train, longer, cosine).predictions
    )
    assert (knn_probe(train, test, QUICK).predictions != knn_probe(train, longer, QUICK).predictions).any()


def test_fewer_samples_than_neighbours_all_vote():
    train = Features(np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 1]), 3)
    got = knn_probe(train, Features(np.array([[0.0]]), np.array([0]), 3), QUICK)
    np.testing.assert_allclose(got.probabilities, [[1 / 3, 2 / 3, 0]])


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_regression_against_scikit_learn(penalty: float):
    train, test = blobs(4), blobs(5)
    theirs = LogisticRegression(C=penalty, tol=1e-8, max_iter=5000).fit(train.features.astype(float), train.labels)
    ours = fit_logistic(torch.from_numpy(train.features), train.labels, 3, penalty)
    assert ours.converged
    np.testing.assert_allclose(
        ours.probabilities(torch.from_numpy(test.features)), theirs.predict_proba(test.features), atol=2e-3
    )


@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_several_labels_against_one_regression_per_class(penalty: float):
    train, test = tags(6), tags(7)
    theirs = OneVsRestClassifier(LogisticRegression(C=penalty, tol=1e-8, max_iter=5000))
    theirs.fit(train.features.astype(float), train.labels)
    ours = fit_logistic(torch.from_numpy(train.features), train.labels, 3, penalty)
    np.testing.assert_allclose(
        ours.probabilities(torch.from_numpy(test.features)), theirs.predict_proba(test.features), atol=2e-3
    )


def test_a_smaller_tolerance_and_double_precision_reach_scikit_learn_s_optimum():
    """Forty directions in two hundred correlated columns: here the default stops early."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 40)) @ rng.normal(size=(40, 200)) + 0.3 * rng.normal(size=(300, 200))
    y = (x @ rng.normal(size=(200, 4)) * 0.05 + rng.gumbel(size=(300, 4))).argmax(1)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=20_000).fit(x, y).predict_proba(x)
    far, near = (
        np.abs(
            fit_logistic(torch.from_numpy(x), y, 4, 1.0, replace(QUICK, tolerance=t)).probabilities(torch.from_numpy(x))
            - theirs
        ).max()
        for t in (1e-4, 1e-12)
    )
    assert near < 1e-4 < far


def test_a_warm_start_ends_where_a_cold_one_does():
    train, test = blobs(4), torch.from_numpy(blobs(5).features)
    x = torch.from_numpy(train.features)
    cold = fit_logistic(x, train.labels, 3, 1.0)
    warm = fit_logistic(x, train.labels, 3, 1.0, start=fit_logistic(x, train.labels, 3, 1e-3))
    np.testing.assert_allclose(warm.probabilities(test), cold.probabilities(test), atol=1e-3)


def test_the_sweep_is_scikit_learn_s_sweep_and_refit():
    train, validation, test = blobs(8, 60, noise=4), blobs(9, 200, noise=4), blobs(10, 200, noise=4)
    got = linear_probe(train, validation, test, QUICK)
    by_c = {}
    for c in QUICK.penalties:
        m = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(train.features, train.labels)
        by_c[c] = m.score(validation.features, validation.labels)
    assert dict(got.sweep) == pytest.approx(by_c, abs=0.006)  # one sample of 200 may lie on the border
    assert got.penalty == min(c for c, s in got.sweep if s == max(v for _, v in got.sweep))
    final = LogisticRegression(C=got.penalty, tol=1e-8, max_iter=5000).fit(
        np.concatenate([train.features, validation.features]), np.concatenate([train.labels, validation.labels])
    )
    np.testing.assert_allclose(got.probabilities, final.predict_proba(test.features), atol=2e-3)
    assert got.fitted_on == 260
    assert linear_probe(train, validation, test, replace(QUICK, refit_with_validation=False)).fitted_on == 60


@pytest.mark.parametrize("make", [blobs, tags])
def test_the_labels_of_the_test_samples_change_the_scores_only(make):
    train, validation, test = make(11), make(12), make(13)
    other = replace(test, labels=np.roll(test.labels, 1, axis=0))
    a, b = linear_probe(train, validation, test, QUICK), linear_probe(train, validation, other, QUICK)
    assert (a.penalty, a.sweep) == (b.penalty, b.sweep)
    np.testing.assert_array_equal(a.probabilities, b.probabilities)
    assert a.scores != b.scores


@pytest.mark.parametrize(("make", "main"), [(blobs, "accuracy"), (tags, "map-micro")])
def test_scores_come_with_intervals_and_beat_guessing(make, main: str):
    train, validation, test = make(14), make(15), make(16, n=300)
    for got in (knn_probe(train, test, QUICK), linear_probe(train, validation, test, QUICK)):
        score = got.scores[main]
        assert next(iter(got.scores)) == main
        assert score.low <= score.value <= score.high
        assert (score.samples, score.seeds) == (300, 1)
        assert score.value > 0.6
        assert got.unconverged == ()
        assert got.predictions.shape == test.labels.shape


def test_validation_can_choose_by_the_other_average():
    got = linear_probe(tags(1), tags(2), tags(3), replace(QUICK, multilabel_average="macro"))
    assert next(iter(got.scores)) == "map-macro"
    assert set(got.scores) == {"map-macro", "map-micro", "f1-multilabel-micro", "ece-multilabel"}


def test_a_class_without_training_samples_is_never_predicted():
    train = blobs(17)
    kept = train.labels != 1
    fewer = Features(train.features[kept], train.labels[kept], 3)
    got = linear_probe(fewer, fewer, blobs(18), QUICK)
    assert (got.probabilities[:, 1] == 0).all()
    np.testing.assert_allclose(got.probabilities.sum(1), 1)


def test_fits_that_ran_out_of_iterations_are_named():
    got = linear_probe(blobs(1), blobs(2), blobs(3), replace(QUICK, iterations=1))
    assert set(got.unconverged) == set(QUICK.penalties)


def test_standardised_features_make_the_scale_of_a_column_meaningless():
    train, validation, test = blobs(19), blobs(20), blobs(21)
    scale = np.array([1e-3, 1, 1e3, 1, 1, 0.1])
    protocol = replace(QUICK, standardise=True)
    scaled = [replace(p, features=p.features * scale + 5) for p in (train, validation, test)]
    a, b = linear_probe(train, validation, test, protocol), linear_probe(*scaled, protocol)
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=2e-3)
    constant = [replace(p, features=np.c_[p.features, np.ones(len(p.features))]) for p in (train, test)]
    np.testing.assert_allclose(
        knn_probe(*constant, protocol).probabilities, knn_probe(train, test, protocol).probabilities
    )


@pytest.mark.parametrize(("features", "labels"), [
    (np.zeros((3, 2)), np.zeros(4, int)),
    (np.zeros((0, 2)), np.zeros(0, int)),
    (np.full((2, 2), np.nan), np.zeros(2, int)),
    (np.zeros((2, 2)), np.array([0, 3])),
    (np.zeros((2, 2)), np.full((2, 3), 2)),
    (np.zeros((2, 2)), np.zeros((2, 4), int)),
])  # fmt: skip
def test_features_that_do_not_fit_are_refused(features, labels):
    with pytest.raises(DataError):
        Features(features, labels, 3)


def test_sets_of_other_features_are_refused():
    with pytest.raises(DataError, match="expected the same"):
        knn_probe(blobs(0), blobs(0, d=5), QUICK)
    with pytest.raises(DataError, match="expected the same"):
        linear_probe(blobs(0), tags(0), blobs(0), QUICK)


S2 = BandSet.parse("sentinel-2-l2a:B02,B03,B04,B8A,B11,B12@dn-1e4")


def scenes(n: int = 5, size: int = 40) -> Chips:
    g = torch.Generator().manual_seed(0)
    return Chips(
        images=torch.rand(n, 6, size, size, generator=g) * 5000, labels=torch.arange(n) % 2, bands=S2,
        kind="classification", classes=("a", "b"), name="scenes",
    )  # fmt: skip


def ensemble() -> Ensemble:
    specialists = [
        make_specialist("s2-rgb", "sentinel-2-l2a:B04,B03,B02@reflectance", 1),
        make_specialist("s2-six", str(S2), 2),
    ]
    return Ensemble(specialists, S2, statistics=statistics_of(S2))


def test_features_of_an_untrained_fusion_are_those_of_the_views():
    ens, chips = ensemble(), scenes()
    got = pooled_features(ens, chips, batch_size=2)
    padded = torch.nn.functional.pad(chips.images, (0, 24, 0, 24), mode="replicate")
    expected = [level.mean((2, 3)) for pyramid in ens.encode(padded) for level in pyramid]
    np.testing.assert_allclose(got.features, torch.cat(expected, 1).numpy(), rtol=1e-4, atol=1e-5)
    assert got.features.shape == (5, 600 * len(ens.views))
    assert got.labels.tolist() == [0, 1, 0, 1, 0]
    assert "views, before the fusion" in got.note


@pytest.mark.parametrize("kept", [False, True])
def test_kept_features_are_the_pooled_ones(tmp_path, kept):
    ens, chips = ensemble(), scenes()
    plain, got = pooled_features(ens, chips), kept_features(ens, chips, tmp_path if kept else None)
    np.testing.assert_allclose(got.features, plain.features, rtol=1e-3, atol=1e-4)
    assert got.labels.tolist() == plain.labels.tolist() and got.note == plain.note
    assert any(tmp_path.iterdir()) == kept


def test_features_of_a_trained_fusion_are_the_fused_ones():
    ens, chips = ensemble(), scenes(size=32)
    ens.fusion_trained = True
    got = pooled_features(ens, chips, levels=(2, 3))
    with torch.inference_mode():
        expected = torch.cat([ens(chips.images)[i].mean((2, 3)) for i in (2, 3)], 1)
    np.testing.assert_allclose(got.features, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert got.features.shape == (5, 480)


def test_pixels_labels_and_absent_levels_are_refused():
    chips = scenes()
    with pytest.raises(DataError, match="levels"):
        pooled_features(ensemble(), chips, levels=(4,))
    masks = replace(chips, labels=torch.zeros(5, 40, 40, dtype=torch.int64), kind="segmentation", ids=())
    with pytest.raises(DataError, match="scene labels"):
        pooled_features(ensemble(), masks)
