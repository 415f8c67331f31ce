"""Scores of a model on a test split, with 95 % intervals from resampling the test chips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.data.chips import ChipSet
from eosfm.seeding import purpose_seed
from eosfm.specialists.card import Metric
from eosfm.tasks.kinds import IGNORE, OBJECTS
from eosfm.tasks.precision import average_precision, matched_chip, padded

Array = NDArray[Any]
RESAMPLES = 1000


@dataclass(frozen=True)
class Scores:
    """Scores and what they were computed from, per chip, so that intervals can span several seeds."""

    metrics: list[Metric]
    per_chip: Array
    """segmentation and classification: confusion counts ``(n, k, k)``; otherwise see `statistic`"""
    main: str
    classes: tuple[str, ...]
    class_scores: tuple[float, ...] = ()
    """IoU per class (segmentation) or recall per class (classification); NaN where the class never occurs"""


def score(
    model: Callable[[Tensor], Tensor], chips: ChipSet, seed: int, *, batch_size: int = 32, split: str = "test"
) -> Scores:
    """Predict every chip of ``chips`` and score it: mIoU, accuracy, mean average precision or RMSE by kind of task."""
    counts = []
    with torch.inference_mode():
        for i in range(0, len(chips), batch_size):
            x, y = chips.batch(range(i, min(i + batch_size, len(chips))))
            counts.append(per_chip_counts(chips.kind, model(x), y, len(chips.classes)))
    table = padded([t for c in counts for t in c]) if chips.kind in OBJECTS else np.concatenate(counts)
    return scores_from(chips.kind, table, chips.classes, seed, split)


def scores_from(kind: str, table: Array, classes: tuple[str, ...], seed: int, split: str = "test") -> Scores:
    """Every score of ``table`` (from `per_chip_counts`) with its interval."""
    metrics = []
    for name, statistic in STATISTICS[kind].items():
        value = statistic(table)
        if not np.isfinite(value):
            continue  # R2 of constant labels, RMSE of no valid pixel: no value is better than a wrong one
        low, high = bootstrap([table], statistic, purpose_seed(seed, "bootstrap", 0) % 2**32)
        metrics.append(
            Metric(name=name, value=value, low=low, high=high, split=split, samples=len(table), seed=seed)
        )  # fmt: skip
    main = next(iter(STATISTICS[kind]))
    per_class: tuple[float, ...] = ()
    if kind == "segmentation":
        per_class = tuple(float(v) for v in iou_per_class(table))
    elif kind == "classification":
        c = table.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            per_class = tuple(float(v) for v in np.diag(c) / c.sum(1))
    return Scores(metrics, table, main, classes, per_class)


def per_chip_counts(kind: str, z: Tensor, y: Tensor, k: int) -> Array:
    """What each chip adds to the score.

    Segmentation, classification: confusion ``(b, k, k)``, rows labels, columns predictions, ignored pixels left out.
    Multilabel: ``(b, 2, k)`` logits and labels. Regression: ``(b, 4)`` count, squared error, sum, sum of squares.
    Detection, instances: the matches of `eosfm.tasks.precision`.
    """
    if kind in OBJECTS:
        return padded([matched_chip(rows, labels) for rows, labels in zip(z.float(), y, strict=True)])
    if kind == "multilabel":
        return torch.stack([z.double(), y.double()], 1).numpy()  # logits: probabilities near 1 would tie
    if kind == "regression":
        ok = y.isfinite()
        e = torch.where(ok, z[:, 0] - y, 0.0).double().flatten(1)
        v = torch.where(ok, y, 0.0).double().flatten(1)
        return torch.stack([ok.flatten(1).sum(1).double(), (e * e).sum(1), v.sum(1), (v * v).sum(1)], 1).numpy()
    return confusion(z.argmax(1), y, k, IGNORE if kind == "segmentation" else None)


def confusion(p: Tensor, y: Tensor, k: int, ignore: int | None) -> Array:
    """Confusion counts per chip ``(n, k, k)`` of predicted classes ``p`` and labels ``y`` ``(n, ...)``, both integers.

    Rows are labels, columns predictions; places whose label is ``ignore`` are left out.
    """
    p, t = p.long().reshape(len(p), -1), y.long().reshape(len(y), -1)
    ok = torch.ones_like(t, dtype=torch.bool) if ignore is None else t != ignore
    cell = torch.where(ok, t * k + p, k * k)
    out = torch.zeros(len(p), k * k + 1, dtype=torch.int64).scatter_add_(1, cell, torch.ones_like(cell))
    return out[:, :-1].reshape(len(p), k, k).numpy()


def iou_per_class(table: Array) -> Array:
    """``(k,)`` intersection over union from one global confusion matrix; NaN for classes neither labelled nor predicted."""
    c = table.sum(0).astype(float)
    union = c.sum(0) + c.sum(1) - np.diag(c)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.diag(c) / union)


def _miou(table: Array) -> float:
    return float(np.nanmean(iou_per_class(table)))


def _accuracy(table: Array) -> float:
    c = table.sum(0)
    return float(np.trace(c) / max(1, c.sum()))


def _macro_f1(table: Array) -> float:
    c = table.sum(0).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * np.diag(c) / (c.sum(0) + c.sum(1))
    return float(np.nanmean(f1))


def _mean_average_precision(table: Array) -> float:
    """Mean over classes with a positive of the average precision: area under precision over recall, equal scores together."""
    out = []
    for p, t in zip(table[:, 0].T, table[:, 1].T, strict=True):
        if t.sum() == 0:
            continue
        order = np.argsort(-p, kind="stable")
        last = np.append(np.nonzero(np.diff(p[order]))[0], len(p) - 1)  # the last of each group of equal scores
        hits = np.cumsum(t[order])[last]
        gain = np.diff(hits, prepend=0.0) / hits[-1]
        out.append(float((gain * hits / (last + 1)).sum()))
    return float(np.mean(out)) if out else float("nan")


def _rmse(table: Array) -> float:
    n, squared = table[:, 0].sum(), table[:, 1].sum()
    return float(np.sqrt(squared / n)) if n else float("nan")


def _r2(table: Array) -> float:
    n, squared, total, square = table.sum(0)
    variance = square - total**2 / max(1.0, n)
    return float(1 - squared / variance) if variance > 0 else float("nan")


Statistic = Callable[[Array], float]

STATISTICS: dict[str, dict[str, Statistic]] = {
    "segmentation": {"miou": _miou, "accuracy": _accuracy, "f1": _macro_f1},
    "classification": {"accuracy": _accuracy, "f1": _macro_f1},
    "multilabel": {"map": _mean_average_precision},
    "regression": {"rmse": _rmse, "r2": _r2},
    "detection": {"map-boxes": average_precision, "map-boxes-50": partial(average_precision, at=0.5)},
    "instances": {
        "map-masks": partial(average_precision, masks=True),
        "map-masks-50": partial(average_precision, masks=True, at=0.5),
        "map-boxes": average_precision,
    },
}
"""per kind: the scores, the first being the main one"""


def bootstrap(
    tables: Sequence[Array], statistic: Statistic, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of ``statistic`` when chips (and, with several ``tables``, seeds) are resampled.

    Each table holds one seed's counts per chip. Every resample draws as many seeds with replacement, and chips once for all
    of them: seeds are mostly scored on the same chips, and chips drawn anew for each would average their chance away.
    (Where each seed has chips of its own, one draw for all makes the interval a little wide.)
    """
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = [tables[s] for s in (rng.integers(len(tables), size=len(tables)) if len(tables) > 1 else [0])]
        rows = {n: rng.integers(n, size=n) for n in sorted({len(t) for t in drawn})}
        values.append(float(np.mean([statistic(t[rows[len(t)]]) for t in drawn])))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def paired_bootstrap(a: Array, b: Array, statistic: Statistic, seed: int) -> tuple[float, float, float]:
    """``statistic(a) - statistic(b)`` of two tables of the same chips, and its 95 % interval over chips."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(a), size=len(a)) for _ in range(RESAMPLES)]
    low, high = np.nanquantile([statistic(a[i]) - statistic(b[i]) for i in drawn], [0.025, 0.975])
    return statistic(a) - statistic(b), float(low), float(high)
