"""What several cases say together: GEO-Bench-2's interquartile mean per capability, PANGAEA's Distance To Best.

The first is scaled by the leaderboard's published ranges, and its published rows stand beside ours, marked. The second depends
on who else is listed: here the models of the suite and nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence

from eosfm.benchmark.dtb import ReferenceTable, distance_to_best
from eosfm.benchmark.geobench2_published import LEADERBOARD, SOURCE, published
from eosfm.benchmark.iqm import CAPABILITIES, REQUIRED_SEEDS, Aggregate, Run, aggregate
from eosfm.benchmark.leaderboard import Board
from eosfm.benchmark.suite import Suite
from eosfm.benchmark.tasks import GEO_BENCH_2
from eosfm.contracts import DataError
from eosfm.report.document import Cell, Column, Item, Note, Section, Table

Named = Sequence[tuple[str, str, Board]]
"""(task, mode, board)"""


def totals(suite: Suite, boards: Sequence[Board]) -> list[Section]:
    """The sections that the suite's cases make possible: those that are tasks of a benchmark."""
    by, out = {b.case: b for b in boards}, []
    found = [(c.benchmark_task, c.mode, by[c.name]) for c in suite.cases if c.name in by]
    geo = [(t.removeprefix("geobench2/"), m, b) for t, m, b in found if t.startswith("geobench2/")]
    if geo:
        out.append(_capabilities(geo))
    pangaea = [(t.removeprefix("pangaea/"), m, b) for t, m, b in found if t.startswith("pangaea/")]
    if pangaea:
        out.append(_distances(pangaea))
    return out


def runs_of(cases: Named) -> list[Run]:
    """One run a row; a fully fine-tuned model is another backbone than the frozen one."""
    out = []
    for task, mode, board in cases:
        scale = GEO_BENCH_2[task].scale
        for s in board.standings:
            name = s.model if mode == "frozen" else f"{s.model}, fine-tuned"
            for row, value in zip(s.rows, s.values, strict=True):
                score = value if scale is None or board.metric != "rmse" else 1 - value * scale
                out.append(Run(name, task, int(row["seed"]), score))
    return out


def _capabilities(cases: Named) -> Section:
    runs, here = runs_of(cases), {t for t, _, _ in cases}
    about = [
        "Interquartile mean of normalised scores over data sets and seeds, each data set scaled by the leaderboard's own range "
        f"({SOURCE}): 0 and 1 are the least and greatest score of its base submissions, and a model may lie beyond. Only data "
        "sets measured here enter, for all rows alike.",
        "Rows marked PUBLISHED are computed from the leaderboard's rows for the same data sets. They were not measured here: "
        "other training, trials of learning rate and batch size (16 by their rows; 4 to 10, in batches of 8, for detection), "
        "and the package's reading of the data, which differs for some tasks (docs/tasks.md says where).",
    ]
    others = {f"PUBLISHED: {m}": published(m) for m in dict.fromkeys(m for _, m, _ in cases)}
    table: dict[str, dict[str, Aggregate]] = {}
    items: list[Item] = []
    columns: dict[str, str] = {}
    for group, members in CAPABILITIES.items():
        names = [m for m in members if m in here]
        if not names:
            continue
        mine = _whole(runs, names)
        if not mine:
            items.append(
                Note(f"{group}: no model has {REQUIRED_SEEDS} seeds on each of {', '.join(names)}, as is required")
            )
            continue
        try:
            found = aggregate(mine, LEADERBOARD, names)
        except DataError as e:  # a task that two cases measure
            items.append(Note(f"{group}: {e}"))
            continue
        columns[group] = f"{group} ({len(names)} of {len(members)})"
        for a in found:
            table.setdefault(a.backbone, {})[group] = a
        for label, theirs in others.items():
            if known_to_them := _whole(theirs, names):
                for a in aggregate(known_to_them, LEADERBOARD, names):
                    table.setdefault(f"{label}, {a.backbone}", {})[group] = a
    if table:
        order = sorted(table, key=lambda b: (b.startswith("PUBLISHED"), -max(a.value for a in table[b].values())))
        rows: list[list[Cell | str]] = [[b, *(_cell(table[b].get(g)) for g in columns)] for b in order]
        head = [
            Column("model"),
            *(Column(c, "right", "data sets measured here, of all in the group") for c in columns.values()),
        ]
        caption = f"Interquartile means with 95 % of resamples of seeds; {REQUIRED_SEEDS} seeds a data set."
        items.insert(0, Table(head, rows, caption))
    return Section("Capabilities (GEO-Bench-2)", about, items)


def _whole(runs: Sequence[Run], names: Sequence[str]) -> list[Run]:
    """The runs of backbones that have enough seeds on each of ``names``."""
    whole = {b for b in {r.backbone for r in runs} if all(_seeds(runs, b, n) >= REQUIRED_SEEDS for n in names)}
    return [r for r in runs if r.backbone in whole and r.dataset in names]


def _seeds(runs: Sequence[Run], backbone: str, dataset: str) -> int:
    return sum(r.backbone == backbone and r.dataset == dataset for r in runs)


def _cell(a: Aggregate | None) -> str:
    return "" if a is None else f"{a.value:.3f} ({a.low:.3f} to {a.high:.3f})"


def _distances(cases: Named) -> Section:
    about = [
        "Distance To Best: the mean over tasks of the best score measured here minus the model's own. A model that lacks a "
        "task has none. Published models are not in it: they were measured under other conditions.",
    ]
    tasks = tuple(dict.fromkeys(t for t, _, _ in cases))
    if twice := sorted({t for t in tasks if sum(t == u for u, _, _ in cases) > 1}):
        said = f"none: several cases are of {', '.join(twice)}; a table mixes no conditions, so give each share of labels a suite"
        return Section("Distance To Best (PANGAEA)", about, [Note(said)])
    errors = tuple(t for t, _, b in cases if not b.higher_is_better)
    scores: dict[str, dict[str, float]] = {}
    for task, _, board in cases:
        for s in board.standings:
            scores.setdefault(s.model, {})[task] = s.score.value * (100 if board.higher_is_better else 1)
    whole = [m for m, s in scores.items() if len(s) == len(tasks)]
    if not whole:
        return Section("Distance To Best (PANGAEA)", about, [Note("no model has all of " + ", ".join(tasks))])
    reference = ReferenceTable(
        name="measured here",
        source="this suite",
        unit="test mIoU, %",
        tasks=tasks,
        scores=scores,
        lower_is_better=errors,
    )
    head, *body = distance_to_best(reference, whole[0]).rows()
    columns = [Column(h, "left" if i == 0 else "right") for i, h in enumerate(head[:-1])]
    return Section(
        "Distance To Best (PANGAEA)", about, [Table(columns, [list(r[:-1]) for r in body], "mIoU in %; RMSE as it is.")]
    )
