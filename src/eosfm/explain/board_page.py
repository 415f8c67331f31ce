"""The leaderboard as a page: what the intervals allow to say first, then a table and a plot per case, published figures apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eosfm.benchmark.dtb import REFERENCES, distance_to_best
from eosfm.benchmark.leaderboard import Board, Standing, findings
from eosfm.benchmark.readings import is_named
from eosfm.benchmark.suite import CONSTANT, ENSEMBLE, Suite
from eosfm.explain.board_totals import totals
from eosfm.report.document import Cell, Code, Column, Fact, Figure, Item, Note, Report, Section, Table
from eosfm.report.growth import Line, lines
from eosfm.report.plots import ScoreBar, score_bars


def board_page(suite: Suite, boards: Sequence[Board], missing: Sequence[str], command: str) -> Report:
    """One section per case, then what the cases say together; what is missing is said, what is published marked as such."""
    rows = [r for b in boards for s in b.standings for r in s.rows]
    said = [f"**{b.case}**: {' '.join(findings(b)) or 'no comparison with the ensemble was measured.'}" for b in boards]
    facts = [
        Fact("cases", str(len(boards))),
        Fact("rows", str(len(rows)), f"{len(missing)} missing" if missing else "none missing"),
        Fact("seeds", ", ".join(map(str, sorted({int(r["seed"]) for r in rows})))),
        Fact("hours", f"{sum(r['seconds'] for r in rows) / 3600:.2f}", _energy(rows)),
    ]
    sections = [*(_section(b) for b in boards), *totals(suite, boards)]
    if missing:
        sections.append(Section("Not measured", [], [Code("\n".join(missing), "text")]))
    sections.append(_published())
    sections.append(Section("How to repeat it", ["Finished rows are not measured again."], [Code(command)]))
    verdict = " ".join(said) if len(said) == 1 else "What each case shows is said at its head."
    return Report(
        f"Benchmark {suite.name}", "measured here, on this machine, under one protocol a case", verdict, facts, sections
    )


def _section(board: Board) -> Section:
    row = board.row
    about = [
        f"Protocol {row['protocol']}, {_mode(row)}.",
        f"{row['data']}, {' / '.join(map(str, row['chips']))} chips for training, validation, test; "
        f"split: {row['split'] or 'the data set’s own'}; test data {row['data_sha256'][2][:12]}.",
        "Intervals hold 95 % of resamples of test chips"
        + (" and seeds." if len(row_seeds(board)) > 1 else ", of one seed."),
        *findings(board),
    ]
    if row["differs"]:
        about.append(f"Differs from the protocol: {'; '.join(row['differs'])}.")
    several = len(row_seeds(board)) > 1
    bars = [
        ScoreBar(_label(s, board), s.score.value, s.score.low, s.score.high, s.values if several else (), s.model == ENSEMBLE)
        for s in board.standings
    ]  # fmt: skip
    items: list[Item] = [
        Figure(score_bars(bars, label=board.metric), f"{board.metric} of every model.", f"Scores on {board.case}"),
        _table(board),
    ]
    named = [s for s in board.standings if is_named(s.model)]
    if named:
        items.append(Table([Column("baseline"), Column("how it was fed")], [[s.label, s.note] for s in named],
                           f"Baselines of other libraries on {board.case}."))  # fmt: skip
    costly = [s for s in board.standings if s.parameters]
    if len(costly) > 1:
        points = [Line(_label(s, board), [s.parameters / 1e6], [s.score.value]) for s in costly[:8]]
        items.append(
            Figure(
                lines(points, xlabel="million parameters", ylabel=board.metric),
                "Score against parameters, encoders included.",
                "Score over parameters",
            )
        )
    measured = [(s, s.kwh) for s in board.standings if s.kwh is not None]
    if len(measured) > 1:
        points = [Line(_label(s, board), [1000 * kwh], [s.score.value]) for s, kwh in measured[:8]]
        items.append(
            Figure(
                lines(points, xlabel="Wh of one seed", ylabel=board.metric),
                "Score against energy: features, training and scoring of one seed, trials not counted; codecarbon's estimate.",
                "Score over energy",
            )
        )
    if chosen := _chosen(board):
        items.append(chosen)
    return Section(board.case, about, items)


def _mode(row: dict[str, Any]) -> str:
    """How the encoders took part; rows of before had one way only."""
    full = row.get("mode", "frozen") == "full"
    return "full fine-tuning (encoders trained, too)" if full else "frozen encoders"


def _chosen(board: Board) -> Table | None:
    """What the trials of each model chose."""
    rows = [(s, s.rows[0]["hyper"], s.rows[0]["trials"]) for s in board.standings if s.rows[0].get("hyper")]
    if not rows:
        return None
    columns = [Column("model"), Column("trials", "right"), Column("learning rate", "right"), Column("weight decay", "right"),
               Column("batch", "right")]  # fmt: skip
    cells: list[list[Cell | str]] = [
        [_label(s, board), str(n), f"{h['learning_rate']:.2g}", f"{h['weight_decay']:.2g}", str(h["batch_size"])]
        for s, h, n in rows
    ]
    return Table(columns, cells, "What trials chose, by validation on one seed; the test split was not looked at.")


def row_seeds(board: Board) -> set[int]:
    """All seeds of a board."""
    return {int(r["seed"]) for s in board.standings for r in s.rows}


def _table(board: Board) -> Table:
    columns = [
        Column("model"), Column(board.metric, "right"), Column("95 % interval", "right"),
        Column("ensemble minus it", "right", "paired, same chips"), Column("validation", "right"),
        Column("parameters", "right"), Column("trained", "right"), Column("seconds", "right"), Column("Wh", "right"),
    ]  # fmt: skip
    rows: list[list[Cell | str]] = []
    for s in board.standings:
        behind = (
            ""
            if s.behind_ensemble is None
            else f"{s.behind_ensemble.value:+.3f} ({s.behind_ensemble.low:+.3f} to {s.behind_ensemble.high:+.3f})"
        )
        rows.append([
            Cell(_label(s, board), muted=s.model == CONSTANT), f"{s.score.value:.3f}", f"{s.score.low:.3f} to {s.score.high:.3f}",
            behind, "" if s.validation is None or math.isnan(s.validation) else f"{s.validation:.3f}",
            f"{s.parameters / 1e6:.2f} M", f"{s.trained / 1e6:.3f} M", f"{s.seconds:.1f}",
            "" if s.kwh is None else f"{1000 * s.kwh:.2f}",
        ])  # fmt: skip
    best = next((i for i, s in enumerate(board.standings) if s.model == ENSEMBLE), None)
    return Table(columns, rows, f"{board.case}: best first.", best)


def _label(s: Standing, board: Board) -> str:
    return f"{s.model} (best by validation)" if s.model == board.best_single else s.label


def _energy(rows: Sequence[dict[str, object]]) -> str:
    known = [float(str(r["kwh"])) for r in rows if r["kwh"] is not None]
    return f"{sum(known):.3f} kWh, estimated" if known else "energy not measured"


def _published() -> Section:
    """The paper's Table 1 with Distance To Best computed anew: nothing in it was measured here."""
    items: list[Item] = [
        Note(
            "Published by their authors, under other conditions: not measured here, and not comparable with the rows above.",
            "warning",
        )
    ]
    for table in REFERENCES.values():
        model = next((m for m in table.scores if all(t in table.scores[m] for t in table.tasks)), None)
        if model is None:
            continue
        head, *body = distance_to_best(table, model).rows()
        columns = [Column(h, "left" if i == 0 else "right") for i, h in enumerate(head)]
        items.append(Table(columns, [list(r) for r in body], f"{table.name} ({table.source}), in {table.unit}."))
    return Section(
        "Published figures", ["Distance To Best is the mean over tasks of best score minus own score."], items
    )
