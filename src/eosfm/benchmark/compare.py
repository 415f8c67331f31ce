"""One downstream task, one seed: the frozen ensemble beside its baselines, with the same data, head and training budget.

Frozen features are computed once and shared: every single specialist and every subset is the same ensemble, pruned.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eosfm.benchmark.baselines import ConstantPredictor, scene_network, unet, untrained
from eosfm.config import record
from eosfm.contracts import DataError, Pyramid
from eosfm.data.chips import ChipSet, Splits
from eosfm.engine.cache import cached_features
from eosfm.ensemble import Ensemble, Specialist
from eosfm.fusion.fuse import Normalise
from eosfm.rules import DEFAULT_RULES
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.encoder import pad
from eosfm.specialists.store import load_specialist
from eosfm.specialists.zoo import find
from eosfm.statistics import BandStatistics
from eosfm.tasks.model import TaskModel, TaskSpec
from eosfm.tasks.stored import save_task_model
from eosfm.training.energy import Energy
from eosfm.training.fit import data_info, training_info
from eosfm.training.module import fit
from eosfm.training.scoring import Scores, per_chip_counts, scores_from
from eosfm.training.settings import FitConfig, Progress

ENSEMBLE, CONSTANT, UNTRAINED, SCRATCH = "ensemble", "constant predictor", "untrained ensemble", "from scratch"


Part = Literal["all", "frozen", "baselines"]


@record
class Protocol:
    """What all rows of a comparison share."""

    adapt: FitConfig
    """of fusion and head on frozen features"""
    scratch: FitConfig
    """of the network trained from scratch, which gets augmentation and more steps because it needs them"""
    singles: bool = True
    """also adapt every specialist alone"""
    subset_sizes: tuple[int, ...] = ()
    """also adapt random subsets of so many specialists, one order a seed"""
    normalise: Normalise = "none"
    rules: tuple[str, ...] = DEFAULT_RULES


@dataclass(frozen=True)
class Row:
    """One method's result on one seed."""

    method: str
    seed: int
    specialists: tuple[str, ...]
    scores: Scores
    validation: float
    trained_parameters: int
    parameters: int
    seconds: float
    """of training, after the frozen features were there"""
    feature_seconds: float
    """of computing the frozen features of training and validation chips"""


@dataclass(frozen=True)
class Comparison:
    """All rows of one seed, and the predictions of the first test chips for pictures."""

    seed: int
    rows: list[Row]
    predictions: dict[str, NDArray[np.int64]]
    """method -> argmax ``(n, h, w)`` or ``(n,)`` of the first test chips"""
    data_sha256: str


def compare(
    zoo: Path,
    names: Sequence[str],
    splits: Splits,
    task: TaskSpec,
    protocol: Protocol,
    seed: int,
    folder: Path,
    *,
    part: Part = "all",
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Adapt the ensemble of ``names`` and every baseline to ``splits`` with ``seed``, and score all on the test split.

    ``part`` "frozen" does the ensemble, its singles and subsets, "baselines" the rest; `merged` puts them together, so that
    they can run side by side. ``keep`` is a folder in which the adapted ensemble is stored as a task model.

    The best single specialist is left to the caller, who knows the validation scores of all seeds.
    """
    tell = _Steps(progress)
    specialists = [load_specialist(e.folder) for e in find(zoo, names)]
    statistics = splits.train.statistics()

    def build(of: Sequence[Specialist]) -> Ensemble:
        return Ensemble(
            of,
            splits.train.bands,
            statistics=statistics,
            rules=protocol.rules,
            normalise=protocol.normalise,
            seed=purpose_seed(seed, "fusion"),
        )

    candidates: list[Candidate] = []
    scored: list[Scored] = []
    if part in ("all", "frozen"):
        full = build(specialists)
        wanted = _variants([c.name for c in full.cards], protocol, seed)
        tell.total = len(wanted) + 1
        candidates += _adapt_all(full, wanted, splits, task, protocol.adapt, seed, folder, tell)
        scored += _score_shared(full, candidates, splits.test, tell)
    if part in ("all", "baselines"):
        tell.total, tell.done = 3, 0
        random = build(untrained(specialists, seed))
        active = [c.name for c in random.cards]
        candidates += _adapt_all(random, [(UNTRAINED, active)], splits, task, protocol.adapt, seed, folder, tell)
        scored += _score_shared(random, candidates[-1:], splits.test, tell)
        candidates.append(_from_scratch(splits, task, statistics, protocol.scratch, seed, folder, tell))
        candidates.append(Candidate(CONSTANT, ConstantPredictor(splits.train), (), float("nan"), 0.0, 0.0))
        scored += [_score(c.model, splits.test) for c in candidates[-2:]]
    rows = [_row(c, counts, splits.test, seed) for c, (counts, _) in zip(candidates, scored, strict=True)]
    shown = {c.method: first.numpy() for c, (_, first) in zip(candidates, scored, strict=True)}
    data = splits.train.sha256()
    if keep is not None and part != "baselines":
        winner = candidates[0]
        assert isinstance(winner.model, TaskModel)
        info = training_info("frozen ensemble", replace(protocol.adapt, seed=seed), Energy(seconds=winner.seconds))
        save_task_model(
            winner.model, keep, zoo, name=keep.name, data=data_info(splits, data), training=info,
            metrics=rows[0].scores.metrics, overwrite=True,
        )  # fmt: skip
    return Comparison(seed, rows, shown, data)


def merged(a: Comparison, b: Comparison) -> Comparison:
    """The rows of two parts of one comparison."""
    if (a.seed, a.data_sha256) != (b.seed, b.data_sha256):
        raise DataError(
            f"parts of different comparisons: seeds {a.seed}, {b.seed}; data {a.data_sha256[:8]}, {b.data_sha256[:8]}"
        )
    return Comparison(a.seed, [*a.rows, *b.rows], {**a.predictions, **b.predictions}, a.data_sha256)


@dataclass(frozen=True)
class Candidate:
    """A method after training, before scoring."""

    method: str
    model: nn.Module
    specialists: tuple[str, ...]
    validation: float
    seconds: float
    feature_seconds: float


def _row(c: Candidate, counts: NDArray[np.float64], test: ChipSet, seed: int) -> Row:
    trained = sum(p.numel() for p in c.model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in c.model.parameters())
    scores = scores_from(test.kind, counts, test.classes, seed)
    return Row(c.method, seed, c.specialists, scores, c.validation, trained, total, c.seconds, c.feature_seconds)


def _variants(active: list[str], protocol: Protocol, seed: int) -> list[tuple[str, list[str]]]:
    out = [(ENSEMBLE, active)]
    if protocol.singles:
        out += [(f"single: {n}", [n]) for n in active]
    order = [active[i] for i in np.random.default_rng(purpose_seed(seed, "subset")).permutation(len(active))]
    sizes = [k for k in protocol.subset_sizes if k < len(active)]
    return out + [(f"subset of {k}", order[:k]) for k in sizes]


def _adapt_all(
    full: Ensemble, variants: Sequence[tuple[str, list[str]]], splits: Splits, task: TaskSpec, config: FitConfig,
    seed: int, folder: Path, tell: _Steps,
) -> list[Candidate]:  # fmt: skip
    """Train fusion and head of each variant on features that are computed once."""
    start = time.perf_counter()
    train = cached_features(full, splits.train, progress=tell.inside())
    check = cached_features(full, splits.validation)
    feature_seconds = time.perf_counter() - start
    out = []
    for method, names in variants:
        keep = [i for i, v in enumerate(full.views) if v.specialist in names]
        ensemble = full.pruned(names) if len(keep) < len(full.views) else full
        with seeded(purpose_seed(seed, "head")):
            model = TaskModel(ensemble, task)
        start = time.perf_counter()
        result = fit(
            model, task.kind, len(task.classes), train.of(keep), check.of(keep), replace(config, seed=seed),
            folder=folder / method.replace(": ", "-").replace(" ", "-"),
            forward=partial(model.from_features, size=splits.train.size), progress=tell.inside(), label=method, short=True,
        )  # fmt: skip
        tell.step()
        used = tuple(c.name for c in ensemble.cards)
        share = feature_seconds * len(keep) / len(full.views)
        out.append(Candidate(method, model, used, result.best, time.perf_counter() - start, share))
    return out


def _from_scratch(
    splits: Splits, task: TaskSpec, statistics: BandStatistics, config: FitConfig, seed: int, folder: Path, tell: _Steps
) -> Candidate:
    make = scene_network if task.kind in ("classification", "multilabel") else unet
    net = make(splits.train.bands, len(task.classes), statistics, seed)
    start = time.perf_counter()
    result = fit(
        net, task.kind, len(task.classes), splits.train, splits.validation, replace(config, seed=seed),
        folder=folder / "scratch", progress=tell.inside(), label=SCRATCH,
    )  # fmt: skip
    return Candidate(SCRATCH, net, (), result.best, time.perf_counter() - start, 0.0)


PICTURES = 24
"""test chips whose predictions are kept for the report"""

Scored = tuple[NDArray[np.float64], Tensor]
"""counts per chip, and the argmax of the first chips"""


def _score_shared(full: Ensemble, candidates: Sequence[Candidate], chips: ChipSet, tell: _Steps) -> list[Scored]:
    """Counts per chip and first predictions of several models that share ``full``'s encoders, in one pass."""
    position = {v.name: i for i, v in enumerate(full.views)}
    models = [m for c in candidates if isinstance(m := c.model, TaskModel)]
    views = [[position[v.name] for v in m.encoder.views] for m in models]
    counts: list[list[NDArray[np.float64]]] = [[] for _ in models]
    first: list[list[Tensor]] = [[] for _ in models]
    batch = 16
    with torch.inference_mode():
        for i in range(0, len(chips), batch):
            x, y = chips.batch(range(i, min(i + batch, len(chips))))
            pyramids: list[Pyramid] = full.encode(pad(x))
            for k, model in enumerate(models):
                z = model.eval().from_features([pyramids[v] for v in views[k]], chips.size)
                counts[k].append(per_chip_counts(chips.kind, z, y, len(chips.classes)))
                if i < PICTURES:
                    first[k].append(z.argmax(1))
    tell.step()
    return [(np.concatenate(c), torch.cat(f)) for c, f in zip(counts, first, strict=True)]


def _score(model: nn.Module, chips: ChipSet) -> Scored:
    counts, first = [], []
    with torch.inference_mode():
        for i in range(0, len(chips), 32):
            x, y = chips.batch(range(i, min(i + 32, len(chips))))
            z = model(x)
            counts.append(per_chip_counts(chips.kind, z, y, len(chips.classes)))
            if i < PICTURES:
                first.append(z.argmax(1))
    return np.concatenate(counts), torch.cat(first)


class _Steps:
    """Turns the progress of many parts into one fraction."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress, self.total, self.done = progress, 1, 0

    def step(self) -> None:
        self.done += 1

    def inside(self) -> Progress | None:
        if self.progress is None:
            return None
        outer = self.progress

        def tell(fraction: float, line: str) -> None:
            outer(min(1.0, (self.done + fraction) / self.total), line)

        return tell
