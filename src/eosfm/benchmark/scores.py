"""The scores of the benchmark protocols, by name: `METRICS`. Predictions become a table of rows per sample, a table a score.

Tables are what intervals resample (`eosfm.benchmark.intervals`): resampling rows is resampling samples. Fractions, 0-1.
The statistics that training reports are `eosfm.training.scoring`'s, not written again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.contracts import ConfigError, DataError, known
from eosfm.tasks.kinds import IGNORE
from eosfm.training.scoring import STATISTICS, Statistic, confusion, iou_per_class, per_chip_counts

Array = NDArray[Any]
BINS = 15
"""of the calibration error, as torchgeo-bench has it"""


def confusion_table(predictions: Array, labels: Array, classes: int, ignore: int | None = IGNORE) -> Array:
    """``(n, classes, classes)`` counts per sample, rows labels, columns predictions.

    Args:
        predictions: classes ``(n, ...)``, integers.
        labels: of the same shape.
        classes: how many.
        ignore: label that is left out; None where every label counts.

    Raises:
        DataError: shapes that differ, or a class outside the classes (an ignored pixel may be predicted as anything).
    """
    if predictions.shape != labels.shape or not len(labels):
        raise DataError(
            f"predictions {predictions.shape} and labels {labels.shape}; expected one shape and one sample or more"
        )
    p, y = np.asarray(predictions, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    counted = np.ones(y.shape, bool) if ignore is None else y != ignore
    for what, values in (("label", y[counted]), ("prediction", p[counted])):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise DataError(
                f"{what} {values.min()} to {values.max()}; expected 0 to {classes - 1}, or {ignore} to ignore"
            )
    return confusion(torch.from_numpy(np.where(counted, p, 0)), torch.from_numpy(y), classes, ignore)


def multilabel_table(scores: Array, labels: Array) -> Array:
    """``(n, 2, classes)`` from scores (probabilities where F1 or calibration is asked for) and 0/1 labels ``(n, classes)``."""
    if scores.shape != labels.shape or labels.ndim != 2 or not len(labels):
        raise DataError(f"scores {scores.shape} and labels {labels.shape}; expected both (samples, classes)")
    if not np.isin(labels, (0, 1)).all() or not np.isfinite(scores).all():
        raise DataError("multi-label scores must be finite, and labels 0 or 1")
    return np.stack([scores.astype(np.float64), labels.astype(np.float64)], 1)


def regression_table(predictions: Array, truth: Array) -> Array:
    """``(n, 4)`` sums per sample (see `eosfm.training.scoring.per_chip_counts`); places without a finite truth are left out."""
    if predictions.shape != truth.shape or not len(truth):
        raise DataError(
            f"predictions {predictions.shape} and truth {truth.shape}; expected one shape and one sample or more"
        )
    z, y = (torch.from_numpy(np.asarray(a, dtype=np.float64).reshape(len(truth), 1, -1)) for a in (predictions, truth))
    return per_chip_counts("regression", z[:, :, None], y, 1)


def things_table(predictions: Tensor, labels: Tensor) -> Array:
    """``(n, m, columns)`` matches of predictions and labels of things (`eosfm.tasks.boxes`, `eosfm.tasks.precision`)."""
    if len(predictions) != len(labels) or not len(labels):
        raise DataError(f"{len(predictions)} predictions and {len(labels)} labels; expected one for each chip")
    return per_chip_counts("instances" if labels.ndim == 4 else "detection", predictions, labels, 0)


def confidence_table(probabilities: Array, labels: Array) -> Array:
    """``(n, 2)``: the probability of the predicted class, and 1 where it is the label; for ``ece``."""
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise DataError(
            f"probabilities {probabilities.shape}, labels {labels.shape}; expected (samples, classes), (samples,)"
        )
    if not np.allclose(probabilities.sum(1), 1, atol=1e-3) or probabilities.min() < 0:
        raise DataError("probabilities must be 0 or more and sum to 1 in every row; apply a softmax first")
    return np.stack([probabilities.max(1), probabilities.argmax(1) == labels], 1).astype(np.float64)


def class_iou(table: Array) -> Array:
    """``(classes,)`` from a confusion table; NaN for classes neither labelled nor predicted."""
    return iou_per_class(table)


def _miou_absent_zero(table: Array) -> float:
    return float(np.nan_to_num(iou_per_class(table)).mean())


def _micro_f1(table: Array) -> float:
    # Every mistake is one false positive and one false negative, so this is accuracy: named, because tables print it.
    c = table.sum(0).astype(float)
    total = c.sum()
    return float(2 * np.trace(c) / (2 * total)) if total else float("nan")


def _hits(table: Array, threshold: float = 0.5) -> tuple[Array, Array, Array]:
    """True positives, predicted and labelled counts per class of a multi-label table of probabilities."""
    p, y = table[:, 0] > threshold, table[:, 1] > 0
    return (p & y).sum(0), p.sum(0), y.sum(0)


def _multilabel_macro_f1(table: Array) -> float:
    tp, predicted, labelled = _hits(table)
    seen = predicted + labelled > 0
    return float((2 * tp[seen] / (predicted + labelled)[seen]).mean()) if seen.any() else float("nan")


def _multilabel_micro_f1(table: Array) -> float:
    tp, predicted, labelled = (v.sum() for v in _hits(table))
    return float(2 * tp / (predicted + labelled)) if predicted + labelled else float("nan")


def _micro_average_precision(table: Array) -> float:
    pooled = table.transpose(1, 0, 2).reshape(2, -1).T  # every (sample, class) pair is one decision
    return STATISTICS["multilabel"]["map"](pooled[:, :, None])


def _calibration(confidence: Array, correct: Array) -> float:
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    size = np.bincount(number, minlength=BINS)
    gap = np.bincount(number, confidence - correct, minlength=BINS)
    return float(np.abs(gap).sum() / size.sum())


def _multiclass_calibration(table: Array) -> float:
    return _calibration(table[:, 0], table[:, 1])


def _multilabel_calibration(table: Array) -> float:
    mixed = [c for c in range(table.shape[2]) if 0 < table[:, 1, c].sum() < len(table)]
    return float(np.mean([_calibration(table[:, 0, c], table[:, 1, c]) for c in mixed])) if mixed else float("nan")


@dataclass(frozen=True)
class ScoreRule:
    """How one score is computed from a table."""

    kinds: tuple[str, ...]
    """of task, see `eosfm.tasks.kinds`"""
    table: str
    """the function above that makes its table, without ``_table``"""
    statistic: Statistic
    higher_is_better: bool
    meaning: str


_SCENE, _MAP = STATISTICS["classification"], STATISTICS["segmentation"]
METRICS: dict[str, ScoreRule] = {
    "miou": ScoreRule(("segmentation",), "confusion", _MAP["miou"], True,
        "mean IoU of one confusion matrix over all samples; classes neither labelled nor predicted left out"),
    "miou-absent-zero": ScoreRule(("segmentation",), "confusion", _miou_absent_zero, True,
        "the same with such classes counted as 0, as PANGAEA does"),
    "accuracy": ScoreRule(("segmentation", "classification"), "confusion", _SCENE["accuracy"], True,
        "share of pixels or scenes that are right"),
    "f1-macro": ScoreRule(("segmentation", "classification"), "confusion", _SCENE["f1"], True,
        "mean over classes that occur in labels or predictions"),
    "f1-micro": ScoreRule(("segmentation", "classification"), "confusion", _micro_f1, True,
        "over all decisions; equal to accuracy where each has one label"),
    "map-macro": ScoreRule(("multilabel",), "multilabel", STATISTICS["multilabel"]["map"], True,
        "average precision, mean over classes with a positive"),
    "map-micro": ScoreRule(("multilabel",), "multilabel", _micro_average_precision, True,
        "average precision over all (sample, class) pairs, as torchgeo-bench does"),
    "f1-multilabel-macro": ScoreRule(("multilabel",), "multilabel", _multilabel_macro_f1, True,
        "at probability 0.5; mean over classes that are labelled or predicted"),
    "f1-multilabel-micro": ScoreRule(("multilabel",), "multilabel", _multilabel_micro_f1, True,
        "at probability 0.5, over all (sample, class) pairs"),
    "map-boxes": ScoreRule(("detection", "instances"), "things", STATISTICS["detection"]["map-boxes"], True,
        "average precision of boxes, mean over overlaps of 0.50 to 0.95 and classes with a thing, as COCO"),
    "map-boxes-50": ScoreRule(("detection",), "things", STATISTICS["detection"]["map-boxes-50"], True,
        "the same at an overlap of 0.5"),
    "map-masks": ScoreRule(("instances",), "things", STATISTICS["instances"]["map-masks"], True,
        "the same as map-boxes by the overlap of masks"),
    "map-masks-50": ScoreRule(("instances",), "things", STATISTICS["instances"]["map-masks-50"], True,
        "the same at an overlap of 0.5"),
    "rmse": ScoreRule(("regression",), "regression", STATISTICS["regression"]["rmse"], False,
        "over all finite pixels, in the unit of the labels"),
    "r2": ScoreRule(("regression",), "regression", STATISTICS["regression"]["r2"], True,
        "share of the labels' variance that is explained"),
    "ece": ScoreRule(("classification",), "confidence", _multiclass_calibration, False,
        f"expected calibration error (L1) of the predicted class, {BINS} equal bins"),
    "ece-multilabel": ScoreRule(("multilabel",), "multilabel", _multilabel_calibration, False,
        f"the same per class, mean over classes with both labels, {BINS} equal bins"),
}  # fmt: skip


def value(metric: str, table: Array) -> float:
    """The score called ``metric`` of a table from the function that its rule names; NaN where it is not defined.

    Raises:
        ConfigError: an unknown metric.
    """
    return rule(metric).statistic(table)


def rule(metric: str) -> ScoreRule:
    """The rule of ``metric``; `ConfigError` for an unknown one."""
    if metric not in METRICS:
        raise ConfigError(f"unknown score {metric!r}; {known(METRICS)}")
    return METRICS[metric]
