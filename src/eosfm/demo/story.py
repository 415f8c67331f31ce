"""The demo's report: what was asked, what came out, why to believe it, and what it cannot show."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from eosfm._version import __version__
from eosfm.benchmark.compare import CONSTANT, ENSEMBLE, SCRATCH, UNTRAINED, Comparison
from eosfm.benchmark.results import SINGLE, Summary, headline, main_metric, paired_difference, summarise
from eosfm.data.chips import ChipSet
from eosfm.demo.pages import METRIC, cores_text, cost_section, routes_section, scene_section, specialists_section
from eosfm.demo.plan import TaskPlan
from eosfm.report import panels, pictures, plots
from eosfm.report.document import Cell, Column, Fact, Figure, Item, Note, Report, Section, Table, write_report

if TYPE_CHECKING:
    from eosfm.demo.run import DemoResult

_LABELS = {
    ENSEMBLE: "eosfm ensemble (frozen, fused)",
    "best single specialist": "best single specialist (frozen)",
    UNTRAINED: "ensemble of untrained encoders",
    SCRATCH: "network trained from scratch",
    CONSTANT: "constant predictor",
}
_SHORT = {
    ENSEMBLE: "ensemble",
    "best single specialist": "best single",
    UNTRAINED: "untrained",
    SCRATCH: "from scratch",
    CONSTANT: "constant",
}
_SHOWN = 5


def write_story(result: DemoResult, path: Path, *, data: Path | None, seed: int, quick: bool) -> None:
    """Assemble and write the report; fills ``result.lines`` with what the command prints."""
    sections, verdicts = [], []
    for task in result.plan.tasks:
        section, verdict = _task_section(task, result)
        sections.append(section)
        verdicts.append(verdict)
    if result.scene is not None:
        sections.append(scene_section(result))
    sections += [routes_section(result, t) for t in result.plan.tasks]
    sections += [specialists_section(result), cost_section(result, data, seed, quick)]
    lead = verdicts[0]
    report = Report(
        title=result.plan.title,
        subtitle=result.plan.about,
        verdict=("SMOKE TEST: figures mean nothing. " if quick else "") + lead,
        facts=_facts(result),
        sections=sections,
        footer=[
            f"eosfm {__version__}, torch {torch.__version__}, {platform.platform()}, seed {seed}. "
            "Method: EoS-FM, [arXiv 2511.21523](https://arxiv.org/abs/2511.21523).",
            "Every score is on a test split that chose nothing. Intervals resample seeds and test chips (1,000 times, 95 %).",
        ],
    )
    size = write_report(report, path)
    result.lines = [*(v.replace("**", "") for v in verdicts), f"report: {path} ({size / 1e6:.1f} MB)", f"specialists: {result.zoo}",
                    f"{result.seconds / 60:.1f} minutes"]  # fmt: skip


def _facts(result: DemoResult) -> list[Fact]:
    task = result.plan.tasks[0]
    comparisons = result.comparisons[task.name]
    kind = _kind(comparisons)
    top = headline(summarise(comparisons, kind))
    ens = top[ENSEMBLE]
    energy = [e.kwh for e in result.phases.values()]
    kwh = sum(e for e in energy if e is not None)
    return [
        Fact("specialists", str(len(result.cards)), f"{sum(c.weights.parameters for c in result.cards) / 1e6:.1f} M parameters, frozen"),
        Fact(METRIC[main_metric(kind)], f"{ens.mean:.3f}", f"{ens.low:.3f} to {ens.high:.3f} on {task.name}"),
        Fact("best single", f"{top['best single specialist'].mean:.3f}" if "best single specialist" in top else "-", "chosen on validation"),
        Fact("trained for a new task", f"{ens.trained_parameters / 1e6:.2f} M", f"of {ens.parameters / 1e6:.1f} M parameters"),
        Fact("everything on this page", f"{result.seconds / 60:.1f} min", f"{1000 * kwh:.1f} Wh (estimate), {cores_text()}"),
    ]  # fmt: skip


def _task_section(task: TaskPlan, result: DemoResult) -> tuple[Section, str]:
    comparisons = result.comparisons[task.name]
    kind = _kind(comparisons)
    summaries = summarise(comparisons, kind)
    top = headline(summaries)
    metric = METRIC[main_metric(kind)]
    items: list[Item] = [Note(task.limits, "info")]
    bars = [
        plots.ScoreBar(_LABELS.get(k, k), s.mean, s.low, s.high, s.seeds, highlight=k == ENSEMBLE)
        for k, s in top.items()
    ]
    items.append(
        Figure(
            plots.score_bars(bars, label=f"{metric} on the test split"), _bars_caption(task), f"{metric} of each method"
        )
    )
    chips = task.make(task.seeds[0]).test
    if kind == "segmentation":
        items.append(_gallery(chips, comparisons[0], top))
    items.append(_score_table(top, comparisons, kind))
    if len(comparisons) > 1:
        items.append(_seed_table(top, comparisons))
    items += _more(task, summaries, metric)
    if kind == "classification":
        items.append(_confusion(comparisons, chips.classes))
    verdict = _verdict(task, comparisons, kind, top)
    return Section(task.title, [task.about, verdict], items), verdict


def _verdict(task: TaskPlan, comparisons: Sequence[Comparison], kind: str, top: dict[str, Summary]) -> str:
    """What the figures say, in words that follow from the intervals and nothing else."""
    ens = top[ENSEMBLE]
    above: list[str] = []
    level: list[str] = []
    below: list[str] = []
    for key, s in top.items():
        if key == ENSEMBLE:
            continue
        mean, low, high = paired_difference(comparisons, kind, ENSEMBLE, s.method)
        text = f"{_SHORT[key]} ({100 * mean:+.1f} points, {100 * low:+.1f} to {100 * high:+.1f})"
        (above if low > 0 else below if high < 0 else level).append(text)
    parts = [f"**{task.name}: {METRIC[main_metric(kind)]} {ens.mean:.3f}**"]
    if above:
        parts.append("the frozen ensemble is ahead of " + ", ".join(above))
    if level:
        parts.append("level with " + ", ".join(level))
    if below:
        parts.append("behind " + ", ".join(below))
    return "; ".join(parts) + "."


def _bars_caption(task: TaskPlan) -> str:
    seeds = f"{len(task.seeds)} seeds" if len(task.seeds) > 1 else "one seed"
    return (
        f"Mean over {seeds}, one dot a seed; whiskers are 95 % intervals over seeds and test chips. All frozen rows train the "
        "same head for the same number of epochs on the same labels; the network from scratch gets augmentation besides."
    )


def _gallery(chips: ChipSet, comparison: Comparison, top: dict[str, Summary]) -> Figure:
    n = min(len(next(iter(comparison.predictions.values()))), len(chips))
    colours = pictures.class_colours(chips.classes)
    labels = chips.labels[:n].numpy()
    # Show chips where there is something to see: the rarest class covers most, counted in labelled pixels.
    counts = [np.bincount(y[y != 255].ravel(), minlength=len(chips.classes)) for y in labels]
    chosen = sorted(range(n), key=lambda i: -int(np.sort(counts[i])[-2:].min()))[:_SHOWN]
    images = chips.batch(range(n))[0].numpy()
    shown = pictures.possible_pictures(chips.bands)[:2]
    inputs = [pictures.picture(images, chips.bands, k) for k in shown if k != "grey"] or [
        pictures.best_picture(images, chips.bands)
    ]
    methods = [(k, s) for k, s in top.items() if k != CONSTANT]
    columns = [p.label.split(" (")[0] for p in inputs] + ["label"] + [_SHORT[k] for k, _ in methods]
    rows = []
    for i in chosen:
        row = [panels.Panel(p.pixels[i]) for p in inputs]
        row.append(panels.Panel.of_classes(labels[i], colours))
        for _, s in methods:
            guess = np.where(labels[i] == 255, 255, comparison.predictions[s.method][i])
            right = float((guess == labels[i])[labels[i] != 255].mean())
            row.append(panels.Panel.of_classes(guess, colours, note=f"{100 * right:.0f} %"))
        rows.append(row)
    png = panels.gallery(columns, rows, legend=dict(zip(chips.classes, colours, strict=True)))
    caption = (
        f"The test chips with the most even classes, out of the first {n} (first seed). Inputs: {'; '.join(p.label for p in inputs)}. "
        "The corner shows the share of labelled pixels that are right; grey is not labelled."
    )
    return Figure(png, caption, "Inputs, labels and predictions of each method on test chips")


def _score_table(top: dict[str, Summary], comparisons: Sequence[Comparison], kind: str) -> Table:
    metric = METRIC[main_metric(kind)]
    columns = [Column("method"), Column(metric, "right"), Column("95 % interval", "right"), 
               Column("ensemble minus this", "right", note="95 % interval"), Column("trained", "right", note="parameters"),
               Column("all", "right", note="parameters"), Column("seconds", "right", note="features + training")]  # fmt: skip
    rows: list[list[Cell | str]] = []
    for key, s in top.items():
        name = _SHORT.get(key, key) + (f": {s.specialists[0]}" if s.method.startswith(SINGLE) else "")
        gap = "-"
        if key != ENSEMBLE:
            mean, low, high = paired_difference(comparisons, kind, ENSEMBLE, s.method)
            gap = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append(
            [name, f"{s.mean:.3f}", f"{s.low:.3f} to {s.high:.3f}", gap,
             f"{s.trained_parameters / 1e6:.2f} M", f"{s.parameters / 1e6:.2f} M", f"{s.feature_seconds:.1f} + {s.seconds:.1f}"]
        )  # fmt: skip
    c = comparisons[0]
    hashes = ", ".join(x.data_sha256[:8] for x in comparisons)
    caption = (
        f"Scores on {len(c.rows[0].scores.per_chip)} test chips. Seeds {', '.join(str(x.seed) for x in comparisons)}; training data "
        f"sha256 {hashes}. The difference is paired: both methods on the same resampled seeds and chips."
    )
    return Table(columns, rows, caption, highlight=0)


def _seed_table(top: dict[str, Summary], comparisons: Sequence[Comparison]) -> Table:
    """Each seed by itself, with the interval of its test chips: whether the picture holds for every draw of labels."""
    columns = [
        Column("method"),
        *(Column(f"seed {c.seed}", "right", note="95 % interval of the test chips") for c in comparisons),
    ]
    rows: list[list[Cell | str]] = []
    clear = {}
    own = [next(r for r in c.rows if r.method == ENSEMBLE).scores.metrics[0] for c in comparisons]
    for key, s in top.items():
        scores = [next(r for r in c.rows if r.method == s.method).scores.metrics[0] for c in comparisons]
        rows.append([_SHORT.get(key, key), *(f"{m.value:.3f} ({m.low:.3f} to {m.high:.3f})" for m in scores)])
        if key != ENSEMBLE:
            clear[_SHORT.get(key, key)] = sum(
                (e.low or 0.0) > (m.high or 0.0) for e, m in zip(own, scores, strict=True)
            )
    counts = ", ".join(f"{name} {n} of {len(own)}" for name, n in clear.items())
    same = len({c.data_sha256 for c in comparisons}) == 1
    labels = "All seeds share the same labels" if same else "Each seed draws its own labels"
    caption = f"{labels}. Seeds whose ensemble interval lies wholly above the method's: {counts}."
    return Table(columns, rows, caption, highlight=0)


def _more(task: TaskPlan, summaries: Sequence[Summary], metric: str) -> list[Item]:  # fmt: skip
    out: list[Item] = []
    table = {s.method: s for s in summaries}
    sizes = [k for k in task.protocol.subset_sizes if f"subset of {k}" in table]
    if sizes:
        points = [table[f"subset of {k}"] for k in sizes] + [table[ENSEMBLE]]
        x = [*sizes, len(table[ENSEMBLE].specialists)]
        runs = [[p.seeds[i] for p in points] for i in range(len(task.seeds))]
        refs = {"untrained ensemble": table[UNTRAINED].mean, "from scratch": table[SCRATCH].mean}
        png = plots.curve(x, [p.mean for p in points], [p.low for p in points], [p.high for p in points],
                          xlabel="specialists in the ensemble", ylabel=metric, references=refs, runs=runs, width="half")  # fmt: skip
        caption = "Score against the number of specialists: fusion and head trained anew at each size, another random order for each seed (dots)."
        out.append(Figure(png, caption, "Score against number of specialists", "half"))
    singles = sorted((s for s in summaries if s.method.startswith(SINGLE)), key=lambda s: -s.mean)
    if singles:
        bars = [
            plots.ScoreBar("ensemble", table[ENSEMBLE].mean, table[ENSEMBLE].low, table[ENSEMBLE].high, highlight=True)
        ]
        bars += [plots.ScoreBar(s.specialists[0], s.mean, s.low, s.high) for s in singles]
        caption = (
            "Every specialist alone, with the same head, labels and epochs. None of them was trained for this task."
        )
        out.append(
            Figure(
                plots.score_bars(bars, label=metric, width="half"), caption, "Score of every specialist alone", "half"
            )
        )
    return out


def _confusion(comparisons: Sequence[Comparison], classes: tuple[str, ...]) -> Figure:
    matrix = sum(c.rows[0].scores.per_chip.sum(0) for c in comparisons)
    png = plots.confusion(np.asarray(matrix), classes)
    return Figure(
        png, "The ensemble's confusions, all seeds; rows are the truth.", "Confusion matrix of the ensemble", "half"
    )


def _kind(comparisons: Sequence[Comparison]) -> str:
    return "segmentation" if comparisons[0].rows[0].scores.main == "miou" else "classification"
