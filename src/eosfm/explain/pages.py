"""The HTML pages of `eosfm select`, `scaling` and `explain`: the answer first, then the curve, then the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from eosfm.explain.price import Price
from eosfm.explain.scaling import Growth
from eosfm.explain.studies import Kept, Scaling, Selection
from eosfm.report.document import Code, Column, Fact, Figure, Item, Report, Section, Table
from eosfm.report.growth import Line, lines

METRIC = {"miou": "mean IoU", "accuracy": "accuracy", "map": "mean average precision", "rmse": "RMSE (negated)"}


def select_page(s: Selection, title: str, data: str, command: str) -> Report:
    """Score against parameters, multiply-adds and milliseconds, and the subset that was chosen."""
    chosen, full = s.rows[s.chosen], s.rows[-1]
    how = "fusion and head trained anew for each subset" if s.refitted else "the others ablated, nothing trained anew"
    verdict = (
        f"**{len(chosen.names)} of {len(full.names)} specialists** ({', '.join(chosen.names)}) stay within {s.tolerance:g} of "
        f"the full validation score. On test data that changes the score by {chosen.difference[0]:+.3f} ({interval(chosen)}), "
        f"with {share(chosen.price.parameters, full.price.parameters)} of the parameters and "
        f"{share(chosen.price.milliseconds, full.price.milliseconds)} of the time."
    )
    facts = [
        Fact("specialists", f"{len(chosen.names)} of {len(full.names)}"),
        Fact("parameters", f"{chosen.price.parameters / 1e6:.1f} M", f"of {full.price.parameters / 1e6:.1f} M"),
        Fact("one chip", f"{chosen.price.milliseconds:.0f} ms", f"of {full.price.milliseconds:.0f} ms"),
        Fact(
            METRIC[chosen.test.name],
            f"{chosen.test.value:.3f}",
            f"{chosen.test.low:.3f} to {chosen.test.high:.3f}; all: {full.test.value:.3f}",
        ),
    ]
    sizes = [len(r.names) for r in s.rows]
    score = [Line("validation, which chooses", sizes, [r.validation for r in s.rows]),
             Line("test", sizes, [signed(r) for r in s.rows], *bounds(s.rows))]  # fmt: skip
    cost = [Line("test", [r.price.parameters / 1e6 for r in s.rows], [signed(r) for r in s.rows], *bounds(s.rows))]
    time = [Line("test", [r.price.milliseconds for r in s.rows], [signed(r) for r in s.rows], joined=False)]
    mark = (float(len(chosen.names)), chosen.validation, "chosen")
    label = METRIC[chosen.test.name]
    items: list[Item] = [
        Figure(
            lines(score, xlabel="specialists", ylabel=label, mark=mark),
            f"Best subset found of each size ({s.method} search; {how}). The band is the 95 % interval over test chips.",
            "Score over the number of specialists",
        ),
        Figure(
            lines(cost, xlabel="million parameters", ylabel=label, width="half"),
            "The same against parameters.",
            "Score over parameters",
            "half",
        ),
        Figure(
            lines(time, xlabel="milliseconds for one chip, measured", ylabel=label, width="half"),
            "Against the measured latency of the pruned models on this machine.",
            "Score over milliseconds",
            "half",
        ),
        _subset_table(s),
        Code(command),
    ]
    about = [
        f"The search sees {data}. A subset's fused map is the sum of its specialists' contributions, computed once, so that "
        "without refitting any subset costs the decoder only.",
        "Scores of subsets found by search are optimistic on the validation data; the test column is not used to choose.",
    ]
    return Report(title, data, verdict, facts, [Section("Which specialists to keep", about, items)])


def _subset_table(s: Selection) -> Table:
    columns = [Column("specialists", "right"), Column("change"), Column("validation", "right"), Column("test", "right"),
               Column("95 % interval", "right"), Column("minus all", "right"), Column("parameters", "right", "M"),
               Column("weights", "right", "MB"), Column("MACs", "right", "G"), Column("one chip", "right", "ms")]  # fmt: skip
    rows, before = [], set[str]()
    for r in s.rows:
        now = set(r.names)
        change = " ".join([*(f"+{n}" for n in sorted(now - before)), *(f"-{n}" for n in sorted(before - now))])
        p = r.price
        rows.append([str(len(now)), change, f"{r.validation:.3f}", f"{r.test.value:.3f}",
                     f"{r.test.low:.3f} to {r.test.high:.3f}", f"{r.difference[0]:+.3f} ({interval(r)})",
                     *price_cells(p)])  # fmt: skip
        before = now
    caption = f"The best subset found of each size, {s.method} search. Differences are paired over the same test chips."
    return Table(columns, [list(r) for r in rows], caption, highlight=s.chosen)


def price_cells(p: Price) -> list[str]:
    """Parameters (M), weights (MB), multiply-adds (G) and milliseconds, as text."""
    return [f"{p.parameters / 1e6:.2f}", f"{p.bytes / 1e6:.1f}", f"{p.macs / 1e9:.2f}", f"{p.milliseconds:.1f}"]


def interval(r: Kept) -> str:
    """The difference's interval as text."""
    return f"{r.difference[1]:+.3f} to {r.difference[2]:+.3f}"


def share(part: float, whole: float) -> str:
    """``part`` of ``whole`` in per cent."""
    return f"{100 * part / whole:.0f} %"


def signed(r: Kept) -> float:
    """The test score, made so that more is better."""
    return -r.test.value if r.test.name == "rmse" else r.test.value


def bounds(rows: Sequence[Kept]) -> tuple[list[float], list[float]]:
    """Lower and upper ends of the test intervals, made so that more is better."""
    known = [
        (r.test.low, r.test.high) if r.test.low is not None and r.test.high is not None else (math.nan,) * 2
        for r in rows
    ]
    ends = [(-b, -a) if r.test.name == "rmse" else (a, b) for r, (a, b) in zip(rows, known, strict=True)]
    return [a for a, _ in ends], [b for _, b in ends]


def scaling_page(s: Scaling, title: str, data: str, command: str) -> Report:
    """The growth curves of both modes, their saturating fits, and whether more specialists would help."""
    label = METRIC[s.metric]
    n = len(s.names)
    sections = []
    for mode, growth in s.random.items():
        curve, greedy = s.outlooks[mode].curve, s.greedy[mode]
        mean, low, high = growth.spread()
        x = growth.sizes
        rows = [
            Line(f"{len(growth.orders)} random orders", x, mean.tolist(), low.tolist(), high.tolist()),
            Line("greedy order", x, greedy.scores[0].tolist()),
            Line("saturating fit", x, [curve(k) for k in x], markers=False),
        ]
        caption = (
            f"Score on test data with 1 to {n} specialists. The band spans 95 % of the orders. Fit: "
            f"{curve.limit:.3f} - {curve.gap:.3f} exp(-(n - 1) / {curve.scale:.2f})."
        )
        items: list[Item] = [
            Figure(lines(rows, xlabel="specialists", ylabel=label), caption, f"Growth of the score, {mode}"),
            _growth_table(s.names, growth, greedy),
        ]
        sections.append(Section(_MODES[mode][0], [_MODES[mode][1], s.outlooks[mode].verdict()], items))
    sections.append(Section("How to repeat it", [], [Code(command)]))
    best = "refit" if "refit" in s.outlooks else "ablation"
    mean, _, _ = s.random[best].spread()
    verdict = (
        f"From one specialist to {n}, in random order, the score goes from {mean[0]:.3f} to {mean[-1]:.3f} "
        f"({_MODES[best][0].lower()}). {s.outlooks[best].verdict()}"
    )
    top = s.greedy[best].scores[0]
    most = int(np.argmax(top))
    facts = [
        Fact("one specialist", f"{mean[0]:.3f}", "mean over orders"),
        Fact(f"all {n}", f"{mean[-1]:.3f}"),
        Fact("greedy order peaks at", f"{most + 1}", f"{top[most]:.3f}"),
    ]
    if best == "refit":
        facts.append(Fact("as many again", f"{s.outlooks[best].gain:+.3f}", "extrapolated"))
    return Report(title, data, verdict, facts, sections)


_MODES = {
    "ablation": (
        "Ablation of one trained model",
        "As in the paper's Figure 2: one model is trained with all specialists, then all but some are switched off exactly at "
        "the fusion. The decoder never trained on such sums, so small sizes look worse than they are.",
    ),
    "refit": (
        "Fusion and head trained anew at each size",
        "What a user with so many specialists would get. The seed changes with the order, so the band holds the chance "
        "of training too.",
    ),
}


def _growth_table(names: Sequence[str], growth: Growth, greedy: Growth) -> Table:
    mean, low, high = growth.spread()
    order = greedy.orders[0]
    rows = [
        [str(k), f"{mean[k - 1]:.3f}", f"{low[k - 1]:.3f} to {high[k - 1]:.3f}", f"{greedy.scores[0][k - 1]:.3f}",
         names[order[k - 1]]]
        for k in growth.sizes
    ]  # fmt: skip
    columns = [Column("specialists", "right"), Column("random orders, mean", "right"), Column("95 % of orders", "right"),
               Column("greedy order", "right"), Column("which it adds")]  # fmt: skip
    return Table(
        columns, [list(r) for r in rows], "Scores on test data; the greedy order was found on validation data."
    )
