"""Rows become standings: per case and model one score with its interval, and its difference to the ensemble on the same chips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eosfm.benchmark.intervals import Interval, interval, paired_difference
from eosfm.benchmark.ledger import Ledger, Row
from eosfm.benchmark.scores import METRICS
from eosfm.benchmark.suite import CONSTANT, ENSEMBLE, RANDOM, SCRATCH, SINGLE, UNTRAINED, Suite
from eosfm.benchmark.suite import STATISTICS as STATISTICS_OF_IMAGES
from eosfm.benchmark.trials import LOWER_IS_BETTER
from eosfm.training.scoring import STATISTICS, Statistic


@dataclass(frozen=True)
class Standing:
    """One model on one case, over all seeds."""

    model: str
    score: Interval
    """of the main metric; resampled over test chips and, where there are several, seeds"""
    values: tuple[float, ...]
    """per seed"""
    behind_ensemble: Interval | None
    """ensemble minus this model on the same chips and seeds; None for the ensemble or where it was not measured"""
    validation: float | None
    parameters: int
    trained: int
    seconds: float
    kwh: float | None
    rows: tuple[Row, ...]

    @property
    def label(self) -> str:
        """The model's name; of one with random weights nobody can overlook that."""
        return f"{self.model} (random weights)" if "@random" in self.model else self.model

    @property
    def note(self) -> str:
        """What the first row says of how it was measured."""
        return str(self.rows[0].get("note", ""))


@dataclass(frozen=True)
class Board:
    """The standings of one case, best first."""

    case: str
    metric: str
    higher_is_better: bool
    standings: tuple[Standing, ...]
    best_single: str | None
    """by validation score, never by the test split"""

    @property
    def row(self) -> Row:
        """Any row: what all of a case share."""
        return self.standings[0].rows[0]


def boards(suite: Suite, rows: Sequence[Row], ledger: Ledger) -> list[Board]:
    """One board per case that has rows, in the suite's order."""
    out = []
    for case in suite.cases:
        mine = [r for r in rows if r["case"] == case.name]
        if mine:
            out.append(_board(case.name, mine, ledger))
    return out


def _board(case: str, rows: list[Row], ledger: Ledger) -> Board:
    metric = str(rows[0]["metrics"][0]["name"])
    statistic, higher = _statistic(str(rows[0]["kind"]), metric)
    by: dict[str, list[Row]] = {}
    for r in rows:
        by.setdefault(str(r["model"]), []).append(r)
    tables = {m: {int(r["seed"]): ledger.table(r) for r in rs} for m, rs in by.items()}
    standings = []
    for model, rs in by.items():
        behind = None
        shared = sorted(tables[model].keys() & tables.get(ENSEMBLE, {}).keys())
        if model != ENSEMBLE and shared:
            behind = paired_difference([(tables[ENSEMBLE][s], tables[model][s]) for s in shared], statistic)
        checks = [r["validation"] for r in rs if r["validation"] is not None]
        kwh = [r["kwh"] for r in rs if r["kwh"] is not None]
        standings.append(
            Standing(
                model, interval(list(tables[model].values()), statistic), tuple(statistic(t) for t in tables[model].values()),
                behind, float(np.mean(checks)) if checks else None, rs[0]["parameters"], rs[0]["trained_parameters"],
                float(np.mean([r["seconds"] for r in rs])), float(np.mean(kwh)) if kwh else None, tuple(rs),
            )
        )  # fmt: skip
    standings.sort(key=lambda s: -s.score.value if higher else s.score.value)
    singles = [s for s in standings if s.model.startswith(SINGLE) and s.validation is not None]
    sign = -1 if rows[0]["kind"] in LOWER_IS_BETTER else 1
    best = max(singles, key=lambda s: sign * (s.validation or 0.0)) if singles else None
    return Board(case, metric, higher, tuple(standings), best.model if best else None)


def _statistic(kind: str, metric: str) -> tuple[Statistic, bool]:
    """Of the table that is stored with a row."""
    name = metric.removeprefix("linear ").removeprefix("5-nn ")
    if name in STATISTICS[kind]:
        return STATISTICS[kind][name], name != "rmse"
    return METRICS[name].statistic, METRICS[name].higher_is_better


def findings(board: Board) -> list[str]:
    """What the intervals of a board allow to say, and nothing more."""
    out = []
    named = {s.model: s for s in board.standings}
    for model in (UNTRAINED, board.best_single, SCRATCH, RANDOM, STATISTICS_OF_IMAGES, CONSTANT):
        s = named.get(model or "")
        if s is None or s.behind_ensemble is None:
            continue
        d = s.behind_ensemble
        gain = (d.low, d.high) if board.higher_is_better else (-d.high, -d.low)
        says = "is ahead of" if gain[0] > 0 else "is behind" if gain[1] < 0 else "cannot be told from"
        who = f"the best single specialist ({s.model[len(SINGLE) :]})" if s.model == board.best_single else s.model
        out.append(f"The ensemble {says} {who}: {d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f}).")
    return out
