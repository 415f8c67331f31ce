"""The models of a suite under frozen probes: features of scenes, k nearest neighbours and logistic regression on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.baselines import ConstantPredictor
from eosfm.benchmark.intervals import Interval, interval
from eosfm.benchmark.ledger import Measured
from eosfm.benchmark.probe import Features, ProbeResult, knn_probe, linear_probe, pooled_features
from eosfm.benchmark.protocol import FrozenProbe
from eosfm.benchmark.scores import METRICS, confusion_table, multilabel_table
from eosfm.benchmark.suite import CONSTANT, GEOBENCH2, PANGAEA, RANDOM, STATISTICS
from eosfm.contracts import PYRAMID_STRIDES, DataError
from eosfm.data.chips import ChipSet, Splits
from eosfm.engine.cache import cached_features
from eosfm.ensemble import Ensemble
from eosfm.seeding import purpose_seed
from eosfm.statistics import BandStatistics
from eosfm.tasks.kinds import OBJECTS

STANDARDISED = FrozenProbe(standardise=True)
"""features of many views differ in scale by orders of magnitude, where L-BFGS without scaling stops early"""
FILTERS = 160


def probe(
    model: str, build: Callable[[], Ensemble | Backbone], splits: Splits, seed: int, cache_folder: Path | None = None
) -> Measured:
    """Linear probe (the main score) and k-NN of ``model`` on the test scenes; with every score.

    Features of specialists are kept in ``cache_folder``; with or without one the scores are the same.

    Raises:
        DataError: not scenes, or several dates.
    """
    if splits.train.kind not in ("classification", "multilabel"):
        raise DataError(
            f"{splits.train.name} is {splits.train.kind}; a frozen-probe needs scenes: use protocol "
            f"{GEOBENCH2 if splits.train.kind in OBJECTS else PANGAEA}"
        )
    if splits.train.dates != 1:
        raise DataError(f"{splits.train.name}: chips of {splits.train.dates} dates; a frozen-probe reads scenes of one")
    parts = (splits.train, splits.validation, splits.test)
    if model == CONSTANT:
        return _constant(splits)
    statistics, count, weights = splits.train.statistics(), 0, ""
    if model == STATISTICS:
        train, check, test = (_statistics(p, statistics) for p in parts)
    elif model == RANDOM:
        g = torch.Generator().manual_seed(purpose_seed(seed, "random-features"))
        filters = torch.randn(FILTERS, len(splits.train.bands), 7, 7, generator=g)
        train, check, test = (_random(p, statistics, filters) for p in parts)
    else:
        ensemble = build().eval()
        count = sum(p.numel() for p in ensemble.encoders.parameters())
        weights = ensemble.sha256 if isinstance(ensemble, Backbone) else ""
        if isinstance(ensemble, Backbone):
            train, check, test = (pooled_features(ensemble, p) for p in parts)
        else:
            train, check, test = (kept_features(ensemble, p, cache_folder) for p in parts)
    linear, near = linear_probe(train, check, test, STANDARDISED), knn_probe(train, test, STANDARDISED)
    metrics = [_named("linear", m, r) for m, r in linear.scores.items()]
    metrics += [_named("5-nn", m, r) for m, r in near.scores.items()]
    chosen = max(score for _, score in linear.sweep)
    trained = train.features.shape[1] * train.classes + train.classes
    note = f"{train.note}; standardised; C = {linear.penalty:.3g}"
    return Measured(_counts(linear, test), metrics, chosen, count + trained, trained, note, weights)


def kept_features(ensemble: Ensemble, chips: ChipSet, folder: Path | None) -> Features:
    """`pooled_features` of an ensemble whose fusion is not trained, up to rounding, by the fast plan.

    They are kept in ``folder``, and found again there by whoever pools the same views of the same pixels; None keeps nothing.
    """
    kept = cached_features(ensemble, chips, folder=folder, pooled=True)
    pyramids, labels = kept.batch(range(len(kept)))
    rows = torch.cat([level.flatten(1) for p in pyramids for level in p], 1).numpy()
    levels = ", ".join(map(str, range(len(PYRAMID_STRIDES))))
    note = f"mean over each of levels {levels} of {len(ensemble.views)} views, before the fusion"
    return Features(rows, labels.numpy(), len(chips.classes), note)


def _named(method: str, metric: str, r: Interval) -> dict[str, Any]:
    return {"name": f"{method} {metric}", "value": r.value, "low": r.low, "high": r.high}


def _counts(result: ProbeResult, test: Features) -> NDArray[Any]:
    if test.several:
        return multilabel_table(result.probabilities, test.labels)
    return confusion_table(result.predictions, test.labels, test.classes, ignore=None)


def _constant(splits: Splits) -> Measured:
    model, labels = ConstantPredictor(splits.train), _labels(splits.test)
    z = model(torch.zeros(len(splits.test), len(splits.train.bands), 1, 1)).numpy()
    if splits.train.kind == "multilabel":
        table, name = multilabel_table(1 / (1 + np.exp(-z)), labels), "map-micro"
    else:
        table, name = confusion_table(z.argmax(1), labels, len(splits.train.classes), ignore=None), "accuracy"
    r = interval([table], METRICS[name].statistic, STANDARDISED.seed, STANDARDISED.resamples)
    return Measured(table, [_named("linear", name, r)], None, 0, 0, "no features")


def _labels(chips: ChipSet) -> NDArray[Any]:
    return np.concatenate(
        [chips.batch(range(i, min(i + 256, len(chips))))[1].numpy() for i in range(0, len(chips), 256)]
    )


def _pooled(chips: ChipSet, features: Callable[[Tensor], Tensor], note: str) -> Features:
    rows, labels = [], []
    for i in range(0, len(chips), 64):
        x, y = chips.batch(range(i, min(i + 64, len(chips))))
        rows.append(features(x).numpy())
        labels.append(y.numpy())
    return Features(np.concatenate(rows), np.concatenate(labels), len(chips.classes), note)


def _standard(x: Tensor, s: BandStatistics) -> Tensor:
    mean, std = (x.new_tensor(v).view(1, -1, 1, 1) for v in (s.mean, s.std))
    return ((x - mean) / std).nan_to_num(0.0, 0.0, 0.0)


def _statistics(chips: ChipSet, s: BandStatistics) -> Features:
    def features(x: Tensor) -> Tensor:
        z = _standard(x, s).flatten(2)
        return torch.cat([z.mean(2), z.std(2)], 1)

    return _pooled(chips, features, "mean and standard deviation of each band")


def _random(chips: ChipSet, s: BandStatistics, filters: Tensor) -> Features:
    scale = filters[0].numel() ** 0.5

    def features(x: Tensor) -> Tensor:
        return F.conv2d(_standard(x, s), filters / scale, stride=2, padding=3).relu().mean((-2, -1))

    return _pooled(chips, features, f"{len(filters)} random filters of 7x7 pixels")
