"""The commands that compare: bench, bench report. Importing this imports nothing heavy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eosfm.contracts import ConfigError
from eosfm.outcomes import Outcome

if TYPE_CHECKING:
    from eosfm.benchmark.leaderboard import Board

File = Annotated[Path, typer.Argument(metavar="SUITE.yaml", help="Cases, models and seeds; see docs/benchmarks.md.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override settings of the file.")]


def bench(
    suite: File,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is missing.")] = False,
    cluster: Annotated[
        str | None, typer.Option(help="Ray cluster that measures the rows: auto, HOST:6379, or local.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="On a cluster: rows at once; 0 is as many as fit.")] = 0,
) -> Outcome:
    """Measure every case with every model and seed. Started again, it goes on where it was; finished rows stay."""
    from eosfm.benchmark.leaderboard import boards
    from eosfm.benchmark.ledger import Ledger
    from eosfm.benchmark.run import plan, plan_trials, run_suite
    from eosfm.benchmark.suite import read_suite, without_rows
    from eosfm.progress import bar

    what = read_suite(suite, overrides or ())
    ledger = Ledger(what.folder)
    if dry_run:
        there = {r["key"] for r in (*ledger.rows(), *Ledger(what.folder, "trials.jsonl").rows())}
        jobs = plan(what)
        lines = tuple(str(j) for j in jobs if j.key not in there)
        first = tuple(str(t) for t in plan_trials(what) if t.key not in there)
        tries = (f"{len(first)} trials before them:", *first) if first and lines else ()
        never = tuple(f"left out: {p}" for p in without_rows(what))
        return Outcome(
            lines, (f"{len(jobs) - len(lines)} of {len(jobs)} rows are there; missing:", *lines, *tries, *never)
        )
    with bar(f"bench {what.name}") as progress:
        done = run_suite(what, progress, cluster=cluster, workers=workers)
    found = boards(what, done.rows, ledger)
    lines = (
        f"results: {ledger.path} ({len(done.rows)} rows)",
        *(f"left out: {' '.join(p.split())}" for p in (*done.unfit, *done.left_out)),
        *(f"not measured: {p}" for p in done.problems),
    )
    again = f"page: eosfm bench report {shlex.quote(str(suite))}"
    return Outcome(found, (*lines, again), _table(found), failed=bool(done.problems))


def bench_models() -> Outcome:
    """What can stand in a suite's models; of other libraries' baselines the bands, units and normalisation of each."""
    from eosfm.benchmark.named.listing import listing
    from eosfm.benchmark.readings import SUFFIXES
    from eosfm.benchmark.suite import MODELS

    found, missing = listing()
    table = [("name", "bands and unit it wants", "normalisation")]
    table += [(n, "", about) for n, about in MODELS.items()]
    table += [(i.name, i.bands or f"cannot be fed: {i.unreadable}", i.normalisation) for i in found]
    lines = (
        *(f"NAME@{s}: {about}" for s, about in SUFFIXES.items()),
        "NAME#HASH: refused unless the weights have this hash (a row's weights_sha256)",
        "timm: any of timm.list_pretrained(); a few are listed",
        *missing,
    )
    return Outcome(found, lines, tuple(table))


def bench_report(
    suite: File,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="HTML file; default report.html beside the results.")] = None,
) -> Outcome:
    """The leaderboard page of what `eosfm bench` measured: tables with intervals, score against cost."""
    from eosfm.benchmark.leaderboard import boards
    from eosfm.benchmark.ledger import Ledger
    from eosfm.benchmark.run import matched, plan
    from eosfm.benchmark.suite import read_suite
    from eosfm.explain.board_page import board_page
    from eosfm.report.document import write_report

    what = read_suite(suite, overrides or ())
    ledger, jobs = Ledger(what.folder), plan(what)
    there = matched(jobs, ledger.rows())
    rows = [there[j.key] for j in jobs if j.key in there]
    if not rows:
        raise ConfigError(f"{ledger.path} holds no row of {suite}; measure first: eosfm bench {suite}")
    found = boards(what, rows, ledger)
    missing = [str(j) for j in jobs if j.key not in there]
    target = output or what.folder / "report.html"
    write_report(
        board_page(what, found, missing, f"eosfm bench {shlex.join([str(suite), *(overrides or ())])}"), target
    )
    left = (f"{len(missing)} of {len(jobs)} rows are not measured yet",) if missing else ()
    return Outcome(found, (f"page: {target}", *left), _table(found))


def _table(boards: list[Board]) -> tuple[tuple[str, ...], ...]:
    rows = [("case", "model", "score", "value", "95 % interval", "ensemble minus it", "parameters", "seconds")]
    for b in boards:
        for s in b.standings:
            behind = "" if s.behind_ensemble is None else str(s.behind_ensemble)
            rows.append(
                (b.case, s.label, b.metric, f"{s.score.value:.4f}", f"{s.score.low:.4f} to {s.score.high:.4f}", behind,
                 f"{s.parameters / 1e6:.2f} M", f"{s.seconds:.1f}")
            )  # fmt: skip
    return tuple(rows)
