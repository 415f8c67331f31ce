"""Any subset of specialists at the price of the decoder: what each adds to the fused pyramid is computed once.

    encoders, once per chip -> contribution of each specialist -> (sum over a subset + bias) -> decoder -> score

A linear fusion (conv1x1, sum) is a sum over views, so this equals the ensemble with all others ablated. A fusion that is
not (mlp, product, concat) keeps the views' features instead and runs again for each subset: slower, the same answer.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.contracts import PYRAMID_CHANNELS, ConfigError, Pyramid, ZooError, known
from eosfm.data.chips import ChipSet
from eosfm.ensemble import Ensemble
from eosfm.specialists.encoder import pad
from eosfm.tasks.model import TaskModel
from eosfm.training.scoring import STATISTICS, per_chip_counts
from eosfm.training.settings import Progress

Array = NDArray[np.float64]
Subset = frozenset[int]
IN_MEMORY = 2 * 1024**3
"""bytes of contributions that are kept in memory; more go to a temporary file"""


class SubsetScorer:
    """Scores of a task model with any subset of its specialists, on one set of chips.

    Args:
        model: a trained task model around an `Ensemble`; nothing of it changes.
        chips: with labels. Validation chips to choose by, test chips to report on.
        by: "specialist" (its views live and die together) or "view".
        batch_size: chips at a time.
        progress: called while the encoders run, and the decoder for many subsets.

    Raises:
        ConfigError: another input than the model's.
    """

    def __init__(
        self, model: TaskModel, chips: ChipSet, *, by: str = "specialist", batch_size: int = 32,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        ensemble = model.encoder
        assert isinstance(ensemble, Ensemble)
        if chips.bands != ensemble.bands or chips.classes != model.task.classes:
            raise ConfigError(
                f"the model reads {ensemble.bands} and predicts {', '.join(model.task.classes)}; "
                f"{chips.name} is {chips.bands} with {', '.join(chips.classes)}"
            )
        self.model, self.chips, self.batch_size, self.progress = model.eval(), chips, batch_size, progress
        self.names, self.groups = players(ensemble, by)
        self.fusion = ensemble.fusion
        self.labels = torch.cat([chips.batch(b)[1] for b in self._batches()])
        self._known: dict[Subset, Array] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.slots = len(self.names) if self.fusion.linear else len(ensemble.views)
        self.maps = self._allocate()
        self._compute(ensemble)

    def subset(self, names: Iterable[str]) -> Subset:
        """The numbers of ``names``."""
        wanted = list(names)
        if unknown := [n for n in wanted if n not in self.names]:
            raise ZooError(f"no active {', '.join(map(repr, unknown))}; {known(self.names)}")
        return frozenset(self.names.index(n) for n in wanted)

    @property
    def everything(self) -> Subset:
        """All specialists."""
        return frozenset(range(len(self.names)))

    def counts(self, subsets: Sequence[Subset]) -> list[Array]:
        """For each subset what `eosfm.training.scoring.per_chip_counts` gives, per chip; remembered."""
        new = [s for s in dict.fromkeys(subsets) if s not in self._known]
        parts: dict[Subset, list[Array]] = {s: [] for s in new}
        k = len(self.chips.classes)
        with torch.inference_mode():
            for batch in self._batches() if new else ():
                if self.progress:
                    self.progress(batch[0] / len(self.chips), f"{len(new)} subsets on {self.chips.name}")
                y = self.labels[batch[0] : batch[-1] + 1]
                for s, pyramid in zip(new, self._fused(new, slice(batch[0], batch[-1] + 1)), strict=True):
                    parts[s].append(per_chip_counts(self.chips.kind, self._logits(pyramid), y, k))
        self._known |= {s: np.concatenate(p) for s, p in parts.items()}
        return [self._known[s] for s in subsets]

    def scores(self, subsets: Sequence[Subset]) -> list[float]:
        """The main score of each subset, made so that more is better (an RMSE is negated)."""
        return [main_score(self.chips.kind, c) for c in self.counts(subsets)]

    def logits(self, subset: Subset, chips: Sequence[int]) -> Tensor:
        """Logits of ``chips`` (a run of numbers without gaps) with ``subset`` only."""
        part = slice(chips[0], chips[-1] + 1)
        with torch.inference_mode():
            return self._logits(next(iter(self._fused([subset], part))))

    def energy(self) -> Array:
        """``(players, levels)``: mean square of what each adds to the fused map beyond its mean. Linear fusions only."""
        if not self.fusion.linear:
            raise ConfigError(f"a {self.fusion.name} fusion is not a sum over views")
        out = np.zeros((self.slots, len(PYRAMID_CHANNELS)))
        for i, player in enumerate(self.maps):
            for level, m in enumerate(player):
                out[i, level] = float((m - m.mean((0, 2, 3), keepdim=True)).square().mean())
        return out

    def _logits(self, pyramid: Pyramid) -> Tensor:
        h, w = self.chips.size
        out: Tensor = self.model.head(pyramid)
        return out[..., :h, :w] if out.ndim == 4 else out

    def _fused(self, subsets: Sequence[Subset], part: slice) -> Iterable[Pyramid]:
        maps = [[m[part] for m in player] for player in self.maps]
        if not self.fusion.linear:
            for s in subsets:
                on = {v for i in s for v in self.groups[i]}
                yield self.fusion(maps, torch.tensor([1.0 if v in on else 0.0 for v in range(self.slots)]))
            return
        common = frozenset.intersection(*subsets)
        base = self._added(self._offsets(maps[0]), maps, common)
        done, total = common, base
        for s in subsets:
            if not done <= s:  # start again from what all have; otherwise go on from the last sum
                done, total = common, base
            total = self._added(total, maps, s - done)
            done = s
            yield total

    def _offsets(self, like: Pyramid) -> Pyramid:
        biases = [self.fusion.offset(i) for i in range(len(like))]
        return [
            torch.zeros_like(m) if b is None else b.detach().view(1, -1, 1, 1).expand_as(m)
            for m, b in zip(like, biases, strict=True)
        ]

    @staticmethod
    def _added(total: Pyramid, maps: Sequence[Pyramid], who: Iterable[int]) -> Pyramid:
        for i in sorted(who):
            total = [t + m for t, m in zip(total, maps[i], strict=True)]
        return total

    def _allocate(self) -> list[Pyramid]:
        n, (h, w) = len(self.chips), (-(-s // 32) * 32 for s in self.chips.size)
        widths = [PYRAMID_CHANNELS] * self.slots if self.fusion.linear else self.fusion.widths
        shapes = [[(n, c, h // (4 << i), w // (4 << i)) for i, c in enumerate(channels)] for channels in widths]
        if 4 * sum(math.prod(s) for player in shapes for s in player) <= IN_MEMORY:
            return [[torch.empty(s) for s in player] for player in shapes]
        self._folder = tempfile.TemporaryDirectory(prefix="eosfm-contributions-")  # removed with this object
        return [
            [self._mapped(Path(self._folder.name) / f"{i}-{level}", s) for level, s in enumerate(player)]
            for i, player in enumerate(shapes)
        ]

    @staticmethod
    def _mapped(path: Path, shape: tuple[int, ...]) -> Tensor:
        return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=torch.float32).view(shape)

    def _compute(self, ensemble: Ensemble) -> None:
        with torch.inference_mode():
            for batch in self._batches():
                x, _ = self.chips.batch(batch)
                pyramids = ensemble.encode(pad(x))
                part = slice(batch[0], batch[-1] + 1)
                if self.fusion.linear:
                    added = self.fusion.contributions(pyramids, ensemble.gates)
                    pyramids = [[sum(level) for level in zip(*(added[v] for v in g), strict=True)] for g in self.groups]
                for player, pyramid in zip(self.maps, pyramids, strict=True):
                    for m, level in zip(player, pyramid, strict=True):
                        m[part] = level
                if self.progress:
                    self.progress(part.stop / len(self.chips), f"{len(self.names)} specialists on {self.chips.name}")

    def _batches(self) -> list[range]:
        n = len(self.chips)
        return [range(i, min(i + self.batch_size, n)) for i in range(0, n, self.batch_size)]


def players(ensemble: Ensemble, by: str = "specialist") -> tuple[list[str], list[list[int]]]:
    """Names, and for each the numbers of its views: of the ensemble's specialists, or of its single views."""
    if by == "view":
        return [v.name for v in ensemble.views], [[i] for i in range(len(ensemble.views))]
    if by != "specialist":
        raise ConfigError(f"by {by!r}; known: specialist, view")
    names = [c.name for c in ensemble.cards]
    return names, [[i for i, v in enumerate(ensemble.views) if v.specialist == n] for n in names]


def main_score(kind: str, counts: Array) -> float:
    """The main score of ``counts``, made so that more is better."""
    name, statistic = next(iter(STATISTICS[kind].items()))
    value = statistic(counts)
    return -value if name == "rmse" else value
