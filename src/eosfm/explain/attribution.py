"""How much each specialist is worth to a task model: ablation drop, Shapley value, and the energy of its fusion weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosfm.explain.contributions import SubsetScorer, main_score
from eosfm.explain.shapley import shapley
from eosfm.fusion.fuse import Conv1x1
from eosfm.training.scoring import iou_per_class

Array = NDArray[np.float64]
Subset = frozenset[int]


@dataclass(frozen=True)
class Attribution:
    """Per specialist and game; the games are the main score and, where they exist, the scores of single classes."""

    names: tuple[str, ...]
    games: tuple[str, ...]
    full: Array
    """``(games,)`` score with all specialists"""
    empty: Array
    """... with none: the decoder on the fusion's bias"""
    drop: Array
    """``(n, games)``: what is lost when one specialist is ablated"""
    shapley: Array
    errors: Array
    """standard errors of the Shapley values; 0 where they are exact"""
    orders: int
    weight_energy: Array
    """``(n,)`` share of the fusion's squared weights, mean over levels; empty where the fusion has none"""
    signal_energy: Array
    """``(n,)`` share of the variance of what is added to the fused maps, mean over levels; empty likewise"""

    def measures(self) -> dict[str, Array]:
        """Every measure of the main score, by name."""
        found = {"Shapley value": self.shapley[:, 0], "ablation drop": self.drop[:, 0],
                 "fusion-weight energy": self.weight_energy, "signal energy": self.signal_energy}  # fmt: skip
        return {k: v for k, v in found.items() if len(v)}

    def agreement(self) -> list[tuple[str, str, float]]:
        """Spearman's rank correlation of each pair of measures, over specialists."""
        m = list(self.measures().items())
        return [(a, b, spearman(x, y)) for i, (a, x) in enumerate(m) for b, y in m[i + 1 :]]


def attribute(scorer: SubsetScorer, *, orders: int = 32, seed: int = 0) -> Attribution:
    """All measures on the chips of ``scorer``; see `Attribution`.

    Args:
        scorer: of test chips, say; the encoders ran when it was made, so this costs decoder passes only.
        orders: random orders for the Shapley values; fewer specialists than about log2 of that times n are exact.
        seed: of the orders.
    """
    n = len(scorer.names)
    games, value = _games(scorer)
    everything = scorer.everything
    rows = value([everything, frozenset(), *(everything - {i} for i in range(n))])
    s = shapley(value, n, orders=orders, seed=seed)
    weights, signal = np.zeros(0), np.zeros(0)
    if isinstance(scorer.fusion, Conv1x1):
        per_view = np.array([scorer.fusion.weight_energy(v) for v in range(scorer.fusion.views)])
        weights = _shares(np.stack([per_view[g].sum(0) for g in scorer.groups]))
    if scorer.fusion.linear:
        signal = _shares(scorer.energy())
    return Attribution(
        tuple(scorer.names), games, rows[0], rows[1], rows[0] - rows[2:], s.values, s.errors, s.orders, weights, signal
    )


def spearman(x: Array, y: Array) -> float:
    """Rank correlation; equal values share their mean rank. NaN where one side is constant."""
    a, b = _ranks(x), _ranks(y)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(x: Array) -> Array:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[inverse], float)


def _shares(energy: Array) -> Array:
    """``(n, levels)`` to shares per specialist: each level counts alike, whatever its number of weights."""
    total = energy.sum(0, keepdims=True)
    return np.asarray(np.divide(energy, total, out=np.zeros_like(energy), where=total > 0).mean(1))


def _games(scorer: SubsetScorer) -> tuple[tuple[str, ...], Callable[[Sequence[Subset]], Array]]:
    """Names of the games, and their values for subsets: the main score, then one per class that is labelled."""
    kind = scorer.chips.kind
    labelled: list[int] = []
    if kind in ("segmentation", "classification"):
        (full,) = scorer.counts([scorer.everything])
        labelled = [c for c in range(len(scorer.chips.classes)) if full.sum(0)[c].sum() > 0]

    def value(subsets: Sequence[Subset]) -> Array:
        rows = []
        for counts in scorer.counts(subsets):
            per_class = _class_scores(kind, counts)[labelled] if labelled else np.zeros(0)
            rows.append(np.concatenate([[main_score(kind, counts)], per_class]))
        return np.array(rows)

    return ("all", *(scorer.chips.classes[c] for c in labelled)), value


def _class_scores(kind: str, counts: Array) -> Array:
    """IoU (segmentation) or recall (classification) per class; defined for every class that is labelled."""
    if kind == "segmentation":
        return iou_per_class(counts)
    c = counts.sum(0).astype(float)
    return np.asarray(np.diag(c) / np.maximum(c.sum(1), 1))
