"""The studies behind the commands: which subset to keep, and how the score grows. `eosfm.explain.pages` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm.config import to_plain
from eosfm.data.chips import Splits
from eosfm.ensemble import Ensemble
from eosfm.explain.contributions import SubsetScorer, main_score
from eosfm.explain.price import Price, prices
from eosfm.explain.refit import Refit
from eosfm.explain.scaling import Growth, Outlook, SubsetScores, grow, outlook, random_orders
from eosfm.explain.search import Method, Step, search, smallest_within
from eosfm.files import sha256_bytes
from eosfm.specialists.card import Metric
from eosfm.tasks.model import TaskModel, fingerprint
from eosfm.training.scoring import STATISTICS, paired_bootstrap, scores_from
from eosfm.training.settings import FitConfig, Progress

Array = NDArray[np.float64]
Subset = frozenset[int]


@dataclass(frozen=True)
class Kept:
    """A subset of specialists: what it scores and what it costs."""

    names: tuple[str, ...]
    validation: float
    """main score on the validation chips that it was chosen by; more is better (an RMSE is negated)"""
    test: Metric
    difference: tuple[float, float, float]
    """test score minus that of all specialists, and its 95 % interval over the same chips"""
    price: Price


@dataclass(frozen=True)
class Selection:
    """The best subset found of each size, and the one that was chosen."""

    method: str
    refitted: bool
    tolerance: float
    rows: tuple[Kept, ...]
    """from few to many"""
    chosen: int
    """row of the smallest subset within the tolerance, by validation"""


def select_subset(
    model: TaskModel, splits: Splits, *, method: Method = "forward", refit: FitConfig | None = None,
    tolerance: float = 0.01, seed: int = 0, progress: Progress | None = None,
) -> Selection:  # fmt: skip
    """Search subsets by validation score; test scores are reported for those found and choose nothing.

    Args:
        model: a trained task model.
        splits: of its data.
        method: see `eosfm.explain.search.search`.
        refit: train fusion and head anew for every subset, by these settings; default: ablate, which costs the decoder only.
        tolerance: validation score that the chosen subset may lose against all specialists.
        seed: of the refitting and the intervals.
        progress: called as it goes.
    """
    kind = model.task.kind
    if refit is None:
        check = SubsetScorer(model, splits.validation, progress=progress)
        steps = search(check.scores, len(check.names), method)
        names = check.names
        held = SubsetScorer(model, splits.test, progress=progress)
        counts = held.counts([s.members for s in steps])
    else:
        again = Refit(model, splits, refit, progress)
        names = again.names
        steps = search(lambda subsets: again.scores(subsets, seed, progress), len(names), method)
        counts = [again.counts(s.members, seed)[1] for s in steps]
    parts = [[names[i] for i in sorted(s.members)] for s in steps]
    costs = prices([model.pruned(p) for p in parts])
    rows = [
        _kept(kind, splits, p, s, c, counts[-1], cost, seed)
        for p, s, c, cost in zip(parts, steps, counts, costs, strict=True)
    ]
    chosen = steps.index(smallest_within(steps, tolerance))
    return Selection(method, refit is not None, tolerance, tuple(rows), chosen)


def _kept(
    kind: str, splits: Splits, names: Sequence[str], step: Step, counts: Array, full: Array, price: Price, seed: int
) -> Kept:
    metric = scores_from(kind, counts, splits.test.classes, seed).metrics[0]
    difference = paired_bootstrap(counts, full, next(iter(STATISTICS[kind].values())), seed)
    return Kept(tuple(names), step.score, metric, difference, price)


@dataclass(frozen=True)
class Scaling:
    """Growth curves of one model; ``greedy`` are the forward search's orders, chosen on validation data."""

    names: tuple[str, ...]
    random: dict[str, Growth]
    """by mode: "ablation", "refit" """
    greedy: dict[str, Growth]
    outlooks: dict[str, Outlook]
    metric: str


def scale_up(
    model: TaskModel, splits: Splits, folder: Path, *, orders: int = 16, refit: FitConfig | None = None,
    refit_orders: int = 3, seed: int = 0, progress: Progress | None = None,
) -> Scaling:  # fmt: skip
    """The paper's Figure 2 on test chips: score over the number of specialists, ablated and (``refit``) refitted.

    Scores are kept in ``folder/scores.json`` as they come; a killed run continues.

    Args:
        model: a trained task model.
        splits: of its data.
        folder: of the ledger.
        orders: random orders for the ablation.
        refit: also train fusion and head anew at each size, by these settings.
        refit_orders: random orders for that; each with a seed of its own.
        seed: of orders and refitting.
        progress: called as it goes.
    """
    ensemble = model.encoder
    assert isinstance(ensemble, Ensemble)
    kind = model.task.kind
    settings = (
        f"{splits.test.sha256()}{splits.train.sha256()}{fingerprint(model)}{seed}{to_plain(refit) if refit else ''}"
    )
    ledger = SubsetScores(folder / "scores.json", sha256_bytes(settings.encode()))
    check = SubsetScorer(model, splits.validation, progress=progress)
    held = SubsetScorer(model, splits.test, progress=progress)
    names, n = check.names, len(check.names)
    greedy_order = _order(search(check.scores, n, "forward"))
    drawn = random_orders(n, orders, seed)
    held.counts([frozenset(o[:k]) for o in (*drawn, greedy_order) for k in range(1, n + 1)])  # all in one pass

    def ablated(s: Subset, _: int) -> float:
        return held.scores([s])[0]

    random = {"ablation": grow("ablation", drawn, names, ablated, ledger, seeds=[seed] * orders, progress=progress)}
    greedy = {"ablation": grow("ablation", [greedy_order], names, ablated, ledger, seeds=[seed])}
    if refit is not None:
        again = Refit(model, splits, refit, progress)

        def refitted(s: Subset, own: int) -> float:
            return main_score(kind, again.counts(s, own)[1])

        few, seeds = drawn[:refit_orders], [seed + i for i in range(min(refit_orders, orders))]
        random["refit"] = grow("refit", few, names, refitted, ledger, seeds=seeds, progress=progress)
        greedy["refit"] = grow("refit", [greedy_order], names, refitted, ledger, seeds=[seed], progress=progress)
    return Scaling(
        tuple(names), random, greedy, {k: outlook(g, seed) for k, g in random.items()}, next(iter(STATISTICS[kind]))
    )


def _order(steps: Sequence[Step]) -> tuple[int, ...]:
    """The order in which a forward search added them."""
    out: list[int] = []
    for s in steps:
        out += sorted(s.members - set(out))
    return tuple(out)
