"""The models of a suite under PANGAEA and GEO-Bench-2: trained on the training split, chosen on validation, scored once."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.baselines import ConstantPredictor, scratch
from eosfm.benchmark.frozen import adapt_backbone
from eosfm.benchmark.intervals import interval
from eosfm.benchmark.ledger import Measured
from eosfm.benchmark.protocol import GeoBench2, Pangaea
from eosfm.benchmark.scores import METRICS
from eosfm.benchmark.suite import CONSTANT, GEOBENCH2, PANGAEA, SCRATCH, Case
from eosfm.benchmark.tasks import TASKS
from eosfm.benchmark.trials import Hyper
from eosfm.data.chips import ChipSet, Splits
from eosfm.dates import default_join
from eosfm.ensemble import Ensemble
from eosfm.tasks.detection import suppressed
from eosfm.tasks.kinds import OBJECTS
from eosfm.tasks.model import HeadConfig, TaskSpec, is_frozen_key
from eosfm.training.finetune import fine_tune
from eosfm.training.fit import adapt_ensemble
from eosfm.training.module import fit
from eosfm.training.scoring import score
from eosfm.training.settings import FitConfig, Progress


@dataclass(frozen=True)
class Trained:
    """A model before it is scored."""

    model: nn.Module
    validation: float | None
    """the kind's score that picked its epoch; None where nothing was trained"""
    note: str = ""
    weights: str = ""
    """of a named baseline: how it was fed, and the hash of its weights"""


def settings_of(case: Case, seed: int) -> FitConfig:
    """How a case trains, its trials aside."""
    if case.fit is not None or case.protocol != GEOBENCH2:
        return replace(case.fit or Pangaea().fit_config(seed), seed=seed)
    things = case.benchmark_task in TASKS and TASKS[case.benchmark_task].kind in OBJECTS
    config = GeoBench2().fit_config(seed)
    return replace(config, batch_size=GeoBench2().detection_batch_size) if things else config


def train(
    name: str, case: Case, build: Callable[[], Ensemble | Backbone], splits: Splits, config: FitConfig, *,
    cache_folder: Path | None = None, progress: Progress | None = None,
) -> Trained:  # fmt: skip
    """The model called ``name``, trained. The test split is not looked at."""
    task = task_spec(case, splits)
    if name == CONSTANT:
        return Trained(ConstantPredictor(splits.train), None)
    note = weights = ""
    with tempfile.TemporaryDirectory(prefix="eosfm-bench-") as folder:
        if name.startswith(SCRATCH):
            train = splits.train
            model: nn.Module = scratch(name.removeprefix(SCRATCH).removeprefix(":"), train, task, config.seed)
            result = fit(
                model, task.kind, len(task.classes), train, splits.validation, config, folder=Path(folder), progress=progress,
                label=name, short=True,
            )  # fmt: skip
        elif isinstance(encoder := build(), Backbone):
            used = encoder.thaw() if case.mode == "full" else encoder
            model, result = adapt_backbone(used, splits, task, config, progress=progress, label=name)
            note, weights = encoder.note, encoder.sha256
        elif case.mode == "full":
            model, result = fine_tune(encoder, splits, task, config, run=Path(folder), progress=progress, label=name)
        else:
            model, result, _ = adapt_ensemble(
                encoder, splits, task, config, cache=not set(config.augmented) - {"augment"}, cache_folder=cache_folder,
                run=Path(folder), progress=progress, label=name,
            )  # fmt: skip
    return Trained(model, result.best if math.isfinite(result.best) else None, note, weights)


def task_spec(case: Case, splits: Splits) -> TaskSpec:
    """The task of a case's data, with the protocol's head (or the case's own) and rule for dates."""
    chips, geo, pangaea = splits.train, GeoBench2(), Pangaea()
    if case.protocol == GEOBENCH2:
        head = HeadConfig(decoder=geo.pixel_decoder, channels=geo.decoder_channels)
    else:
        head = HeadConfig(decoder=pangaea.decoder, channels=pangaea.decoder_channels, dropout=pangaea.dropout)
    if chips.kind in OBJECTS:
        head = HeadConfig(channels=geo.detection_channels, dropout=0.0)
    if case.protocol == GEOBENCH2 and chips.kind in ("classification", "multilabel"):
        head = HeadConfig(dropout=0.0)  # one linear layer: a scene's head has no decoder
    rule = "mean" if case.protocol == GEOBENCH2 else default_join(chips.dates)
    return TaskSpec(
        kind=chips.kind, classes=chips.classes, chip_size=-(-max(chips.size) // 32) * 32, head=case.head or head,
        dates=chips.dates, join=case.join or rule,
    )  # fmt: skip


def scored(trained: Trained, name: str, case: Case, test: ChipSet, seed: int, note: str = "") -> Measured:
    """Every score of the test split, which is looked at here and nowhere else."""
    model = trained.model.eval()
    predict: Callable[[Tensor], Tensor] = model
    if case.protocol == GEOBENCH2 and test.kind in OBJECTS and name != CONSTANT:
        geo = GeoBench2()  # what the benchmark's task throws away before it scores
        predict = partial(_kept, model, geo.detection_score, geo.detection_overlap)
    scores = score(predict, test, seed)
    metrics: list[dict[str, Any]] = [
        {"name": m.name, "value": m.value, "low": m.low, "high": m.high} for m in scores.metrics
    ]
    table = scores.per_chip
    if case.protocol == PANGAEA and test.kind == "segmentation":
        main = Pangaea().metric  # a class that the test chips lack counts as 0 there; our 'miou' stands beside it
        r = interval([table], METRICS[main].statistic, seed)
        metrics.insert(0, {"name": main, "value": r.value, "low": r.low, "high": r.high})
    if case.protocol == GEOBENCH2 and test.kind == "multilabel":
        table, main = with_probabilities(table), GeoBench2().metrics["multilabel"]
        r = interval([table], METRICS[main].statistic, seed)
        metrics.insert(0, {"name": main, "value": r.value, "low": r.low, "high": r.high})
    count = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for n, p in model.named_parameters() if is_frozen_key(n))
    note = "; ".join(n for n in (trained.note, note) if n)
    of_it = 0 if name == CONSTANT else count - frozen
    return Measured(table, metrics, trained.validation, count, of_it, note, trained.weights)


def _kept(model: nn.Module, least: float, overlap: float, x: Tensor) -> Tensor:
    return suppressed(model(x), least, overlap)


def with_probabilities(table: NDArray[Any]) -> NDArray[Any]:
    """A multi-label table of logits as one of probabilities, which F1 at 0.5 needs."""
    return np.stack([torch.from_numpy(table[:, 0].copy()).sigmoid().numpy(), table[:, 1]], 1)


def note_of(tried: Hyper | None, trials: int) -> str:
    """What a row says of how its training was chosen."""
    return "" if tried is None else f"{tried}; best of {trials} trials by validation"
