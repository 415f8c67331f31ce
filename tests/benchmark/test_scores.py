"""Every score against plain loops, torchmetrics or scikit-learn, and what must not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score
from torchmetrics.functional.classification import binary_calibration_error, multiclass_jaccard_index

from eosfm.benchmark.scores import (
    METRICS,
    class_iou,
    confidence_table,
    confusion_table,
    multilabel_table,
    regression_table,
    rule,
    things_table,
    value,
)
from eosfm.contracts import ConfigError, DataError
from eosfm.tasks.kinds import IGNORE, KINDS
from miniatures.things import drawn_batch

K = 4


def maps(seed: int, n: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and labelled maps; the last class is never labelled, some pixels are ignored."""
    rng = np.random.default_rng(seed)
    p, y = rng.integers(0, K, (n, 3, 5)), rng.integers(0, K - 1, (n, 3, 5))
    y[rng.random(y.shape) < 0.25] = IGNORE
    return p, y


def many(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (with ties) and labels of several classes a sample; class 3 has no positive."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, K)) < [0.5, 0.2, 0.8, 0.0]).astype(int)
    return np.round(np.clip(0.3 * y + 0.7 * rng.random((n, K)), 0.001, 0.999), 2), y


def table(metric: str, seed: int, n: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    made = METRICS[metric].table
    if made == "confusion":
        return confusion_table(*maps(seed, n), K)
    if made == "multilabel":
        return multilabel_table(*many(seed, n))
    if made == "things":
        return things_table(*drawn_batch("instances" if "masks" in metric else "detection", seed, n))
    if made == "confidence":
        return confidence_table(rng.dirichlet([1] * K, n), rng.integers(0, K, n))
    y = rng.normal(3, 2, (n, 2, 2))
    y[rng.random(y.shape) < 0.2] = np.nan
    return regression_table(rng.normal(3, 2, (n, 2, 2)), y)


def per_class(p: np.ndarray, y: np.ndarray) -> list[tuple[int, int, int]]:
    """Intersection, predicted and labelled pixels of each class, pixel by pixel."""
    out = []
    for c in range(K):
        both = predicted = labelled = 0
        for a, b in zip(p.flatten().tolist(), y.flatten().tolist(), strict=True):
            if b != IGNORE:
                both += a == c and b == c
                predicted += a == c
                labelled += b == c
        out.append((both, predicted, labelled))
    return out


@pytest.mark.parametrize("seed", range(6))
def test_scores_of_maps_against_plain_loops(seed: int):
    p, y = maps(seed)
    counts = per_class(p, y)
    t = confusion_table(p, y, K)
    iou = [b / (a + c - b) if a + c - b else math.nan for b, a, c in counts]
    np.testing.assert_allclose(class_iou(t), iou)
    assert value("miou", t) == pytest.approx(np.nanmean(iou))
    pangaea = np.mean([b / (a + c - b + 1e-6) for b, a, c in counts])  # as its evaluator writes it
    assert value("miou-absent-zero", t) == pytest.approx(pangaea, abs=1e-6)
    known = y != IGNORE
    assert value("accuracy", t) == pytest.approx((p == y)[known].mean())
    assert value("f1-micro", t) == pytest.approx(f1_score(y[known], p[known], average="micro"))
    assert value("f1-macro", t) == pytest.approx(np.mean([2 * b / (a + c) for b, a, c in counts if a + c]))


def test_miou_against_torchmetrics():
    p, y = maps(11)
    theirs = multiclass_jaccard_index(torch.from_numpy(p), torch.from_numpy(y), K, average="macro", ignore_index=IGNORE)
    assert value("miou", confusion_table(p, y, K)) == pytest.approx(theirs.item(), rel=1e-6)


def test_an_absent_class_is_left_out_or_zero_as_the_name_says():
    t = confusion_table(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]]), 3)
    assert value("miou", t) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert value("miou-absent-zero", t) == pytest.approx((2 / 3 + 1 / 2) / 3)


def test_what_is_predicted_at_ignored_pixels_does_not_matter():
    p, y = maps(3)
    other = np.where(y == IGNORE, 200, p)
    np.testing.assert_array_equal(confusion_table(p, y, K), confusion_table(other, y, K))


@pytest.mark.parametrize("seed", range(4))
def test_several_labels_against_scikit_learn(seed: int):
    p, y = many(seed)
    t = multilabel_table(p, y)
    assert value("map-micro", t) == pytest.approx(average_precision_score(y, p, average="micro"))
    assert value("map-macro", t) == pytest.approx(average_precision_score(y[:, :3], p[:, :3], average="macro"))
    assert value("f1-multilabel-micro", t) == pytest.approx(f1_score(y, p > 0.5, average="micro"))
    seen = [c for c in range(K) if y[:, c].any() or (p[:, c] > 0.5).any()]
    macro = f1_score(y[:, seen], p[:, seen] > 0.5, average="macro")
    assert value("f1-multilabel-macro", t) == pytest.approx(macro)


@pytest.mark.parametrize("seed", range(4))
def test_calibration_against_torchmetrics(seed: int):
    rng = np.random.default_rng(seed)
    p, y = rng.dirichlet([0.5] * K, 200), rng.integers(0, K, 200)
    theirs = binary_calibration_error(
        torch.from_numpy(p.max(1)), torch.from_numpy((p.argmax(1) == y).astype(int)), n_bins=15, norm="l1"
    )
    assert value("ece", confidence_table(p, y)) == pytest.approx(theirs.item(), abs=1e-6)
    q, z = rng.random((200, K)), rng.integers(0, 2, (200, K))
    z[:, 2] = 1  # one label only: left out
    each = [binary_calibration_error(torch.tensor(q[:, c]), torch.tensor(z[:, c]), n_bins=15).item() for c in (0, 1, 3)]
    assert value("ece-multilabel", multilabel_table(q, z)) == pytest.approx(np.mean(each), abs=1e-6)


def test_a_sure_and_right_prediction_is_calibrated_and_a_sure_and_wrong_one_is_not():
    sure = np.eye(3)[[0, 1, 2]]
    assert value("ece", confidence_table(sure, np.array([0, 1, 2]))) == 0.0
    assert value("ece", confidence_table(sure, np.array([1, 2, 0]))) == 1.0


def test_rmse_pixel_by_pixel():
    rng = np.random.default_rng(0)
    p, y = rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2, 3))
    y[1] = np.nan
    squared = [(a - b) ** 2 for a, b in zip(p.flatten(), y.flatten(), strict=True) if not math.isnan(b)]
    assert value("rmse", regression_table(p, y)) == pytest.approx(math.sqrt(sum(squared) / len(squared)))
    assert value("r2", regression_table(y[2:], y[2:])) == pytest.approx(1.0)


@given(st.integers(0, 10_000), st.sampled_from(sorted(METRICS)))
def test_the_order_of_samples_does_not_matter(seed: int, metric: str):
    t = table(metric, seed)
    order = np.random.default_rng(seed).permutation(len(t))
    assert value(metric, t[order]) == pytest.approx(value(metric, t), nan_ok=True)


@given(st.integers(0, 10_000), st.sampled_from(sorted(set(METRICS) - {"rmse", "r2"})))
def test_scores_are_fractions(seed: int, metric: str):
    assert 0 <= value(metric, table(metric, seed)) <= 1


@given(st.integers(0, 10_000), st.sampled_from(["map-micro", "map-macro"]))
def test_precision_depends_on_the_order_of_scores_only(seed: int, metric: str):
    p, y = many(seed)
    assert value(metric, multilabel_table(3 * p - 7, y)) == pytest.approx(value(metric, multilabel_table(p, y)))


def test_every_kind_of_task_has_a_score_and_every_score_a_kind():
    kinds = {k for r in METRICS.values() for k in r.kinds}
    assert kinds == set(KINDS)
    assert not rule("rmse").higher_is_better
    assert rule("miou").higher_is_better


def test_an_unknown_score_names_the_known_ones():
    with pytest.raises(ConfigError, match="known: accuracy"):
        value("mIoU", np.zeros((1, 2, 2)))


@pytest.mark.parametrize("make", [
    lambda: confusion_table(np.zeros((2, 3), int), np.zeros((2, 4), int), 2),
    lambda: confusion_table(np.array([[2]]), np.array([[0]]), 2),
    lambda: confusion_table(np.array([[0]]), np.array([[-1]]), 2),
    lambda: confusion_table(np.zeros((0, 3), int), np.zeros((0, 3), int), 2),
    lambda: multilabel_table(np.zeros((2, 3)), np.full((2, 3), 2)),
    lambda: multilabel_table(np.full((2, 3), np.nan), np.zeros((2, 3))),
    lambda: multilabel_table(np.zeros(3), np.zeros(3)),
    lambda: regression_table(np.zeros((2, 3)), np.zeros((3, 2))),
    lambda: confidence_table(np.ones((2, 3)), np.zeros(2, int)),
    lambda: confidence_table(np.ones(3), np.zeros(3, int)),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused(make):
    with pytest.raises(DataError):
        make()
