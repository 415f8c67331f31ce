"""Subsets of specialists with fusion and head trained anew for each, from features that are computed once."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from eosfm.data.chips import Splits
from eosfm.engine.cache import Features, cached_features
from eosfm.ensemble import Ensemble
from eosfm.explain.contributions import main_score, players
from eosfm.fusion.fuse import make_fusion
from eosfm.seeding import purpose_seed, seeded
from eosfm.tasks.model import TaskModel
from eosfm.training.module import fit
from eosfm.training.scoring import per_chip_counts
from eosfm.training.settings import FitConfig, Progress

Array = NDArray[np.float64]
Subset = frozenset[int]


class Refit:
    """Trains fusion and head of any subset of an ensemble's specialists, from random weights, as `adapt` would.

    Args:
        model: says which ensemble, task and head; its trained weights are not used.
        splits: training data, validation data that pick the epoch and the subset, and test data to report on.
        config: of the training; without augmentation, because features are cached.
        progress: called while the encoders run.
    """

    def __init__(self, model: TaskModel, splits: Splits, config: FitConfig, progress: Progress | None = None) -> None:
        assert isinstance(model.encoder, Ensemble)
        self.full, self.task, self.size = model.encoder, model.task, splits.train.size
        self.config = config.without_augmentation()
        self.names, self.groups = players(self.full)
        self.train, self.validation, self.test = (
            cached_features(self.full, c, progress=progress, label=f"features of {c.name}")
            for c in (splits.train, splits.validation, splits.test)
        )
        self._known: dict[tuple[Subset, int], tuple[Array, Array]] = {}

    def scores(self, subsets: Sequence[Subset], seed: int = 0, progress: Progress | None = None) -> list[float]:
        """The main validation score of each subset, made so that more is better."""
        out = []
        for number, s in enumerate(subsets):
            out.append(main_score(self.task.kind, self.counts(s, seed)[0]))
            if progress:
                progress((number + 1) / len(subsets), f"refitted {len(s)} of {len(self.names)} specialists")
        return out

    def counts(self, subset: Subset, seed: int = 0) -> tuple[Array, Array]:
        """`eosfm.training.scoring.per_chip_counts` on validation and test chips; the best validation epoch is taken."""
        if (subset, seed) not in self._known:
            views = sorted(v for i in subset for v in self.groups[i])
            model = self.model(subset, seed)
            train, check, test = (f.of(views) for f in (self.train, self.validation, self.test))
            with tempfile.TemporaryDirectory(prefix="eosfm-refit-") as folder:
                fit(
                    model, self.task.kind, len(self.task.classes), train, check, replace(self.config, seed=seed),
                    folder=Path(folder), forward=partial(model.from_features, size=self.size), short=True,
                )  # fmt: skip
            self._known[subset, seed] = self._count(model, check), self._count(model, test)
        return self._known[subset, seed]

    def model(self, subset: Subset, seed: int) -> TaskModel:
        """A model of ``subset`` with fusion and head at random weights."""
        ensemble = self.full.pruned(self.names[i] for i in subset)
        with seeded(purpose_seed(seed, "fusion")):
            ensemble.fusion = make_fusion(
                self.full.fusion.name, len(ensemble.views), self.full.fusion.normalise, ensemble.fusion.widths
            )
        with seeded(purpose_seed(seed, "head")):
            return TaskModel(ensemble, self.task)

    def _count(self, model: TaskModel, features: Features) -> Array:
        parts = []
        with torch.inference_mode():
            for i in range(0, len(features), 32):
                x, y = features.batch(range(i, min(i + 32, len(features))))
                z = model.eval().from_features(x, self.size)
                parts.append(per_chip_counts(self.task.kind, z, y, len(self.task.classes)))
        return np.concatenate(parts)
