"""A named baseline in a case: opened by its name, and its neck and head trained by the code that trains an ensemble's.

backbone = open_backbone("timm:resnet50.a1_in1k@random", splits, seed=0)
model, result = adapt_backbone(backbone, splits, task, config)
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.readings import Name, choose
from eosfm.contracts import Pyramid
from eosfm.data.chips import ChipSet, Splits
from eosfm.dates import each_date, kept_features
from eosfm.engine.cache import Features
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.encoder import pad
from eosfm.tasks.boxes import joined_labels
from eosfm.tasks.model import TaskModel, TaskSpec
from eosfm.training.fit import require_dates
from eosfm.training.module import fit
from eosfm.training.settings import FitConfig, FitResult, Progress

CACHE_BYTES = 4 << 30
"""native maps of all training and validation chips are kept up to here; above, they are computed in every epoch"""


def open_backbone(model: str, splits: Splits, seed: int) -> Backbone:
    """The baseline called ``model`` for the bands, unit and size of ``splits``.

    Raises:
        BandError: bands that it wants and the data lack.
        ConfigError: a name that its library does not know, or weights that cannot be had.
        MissingExtra: its library is not installed.
    """
    from eosfm.benchmark.named import terratorch_models, timm_models, torchgeo_models

    name, train = Name.parse(model), splits.train
    build = {"timm": timm_models.build, "torchgeo": torchgeo_models.build, "terratorch": terratorch_models.build}
    h, w = (-(-s // 32) * 32 for s in train.size)
    statistics = train.statistics()
    built = build[name.library](name, train.bands, statistics, (h, w), purpose_seed(seed, "weights"))
    _, plan = choose(name, [built.reading], train.bands, statistics)
    return Backbone(name, built, plan, (h, w), seed, train.bands)


def adapt_backbone(
    backbone: Backbone,
    splits: Splits,
    task: TaskSpec,
    config: FitConfig,
    *,
    progress: Progress | None = None,
    label: str = "adapt",
) -> tuple[TaskModel, FitResult]:
    """Train neck, decoder and head on the network, frozen or thawed: what `eosfm.training.fit.adapt_ensemble` does.

    Of several dates each goes through the network alone (`eosfm.dates`).
    """
    require_dates(task, splits)
    with seeded(purpose_seed(config.seed, "head")):
        model = TaskModel(backbone, task)
    train, check = splits.train, splits.validation
    cached = not (config.augmented or backbone.thawed)
    cached = cached and _bytes(backbone, train, task) * (len(train) + len(check)) <= CACHE_BYTES
    with tempfile.TemporaryDirectory(prefix="eosfm-bench-") as folder:
        result = fit(
            model, task.kind, len(task.classes), native(backbone, train, task) if cached else train,
            native(backbone, check, task) if cached else check, config, folder=Path(folder),
            forward=partial(model.from_features, size=train.size) if cached else None, progress=progress, label=label,
            short=True,
        )  # fmt: skip
    return model, result


@dataclass
class Maps:
    """The native maps of all chips, level by level."""

    levels: list[Tensor]

    def row(self, level: int, index: int) -> Tensor:
        return self.levels[level][index]


def native(backbone: Backbone, chips: ChipSet, task: TaskSpec) -> Features:
    """The frozen half, computed once: what ``TaskModel.from_features`` takes."""
    found: list[Pyramid] = []
    labels = []
    for i in range(0, len(chips), 8):
        x, y = chips.batch(range(i, min(i + 8, len(chips))))
        found.append(_kept(backbone, x, task))
        labels.append(y)
    return Features([[Maps([torch.cat([m[k] for m in found]) for k in range(4)])]], joined_labels(labels))


def _kept(backbone: Backbone, x: Tensor, task: TaskSpec) -> Pyramid:
    found = backbone.eval().encode(each_date(pad(x), task.dates))
    return kept_features(found, pad(x), task.dates, task.join)[0]


def _bytes(backbone: Backbone, chips: ChipSet, task: TaskSpec) -> int:
    """Of one chip's native maps."""
    x, _ = chips.batch([0])
    return sum(m.numel() * m.element_size() for m in _kept(backbone, x, task))
