"""What commands have to say, and the two tables that several of them show. Importing this imports nothing heavy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eosfm.inference.predict import SceneReport
    from eosfm.queue import Trained
    from eosfm.training.scoring import Scores


@dataclass(frozen=True)
class Outcome:
    """What a command has to say: lines and tables for people, and the value for programs."""

    value: object
    lines: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    """first row is the header"""
    failed: bool = False


def score_table(result: Scores, splits: object) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Scores with intervals, a constant predictor beside them (the first row is the header); and what to warn of."""
    from eosfm.benchmark.baselines import ConstantPredictor
    from eosfm.data.chips import Splits
    from eosfm.training.scoring import score

    assert isinstance(splits, Splits)
    constant = score(ConstantPredictor(splits.train), splits.test, 0)
    rows = [("score (test)", "value", "95 % interval", "constant predictor", "samples")]
    for m, c in zip(result.metrics, constant.metrics, strict=True):
        rows.append((m.name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}", f"{c.value:.4f}", str(m.samples)))
    return tuple(rows), no_better(result, constant, splits.test.kind)


def no_better(result: Scores, constant: Scores, kind: str) -> tuple[str, ...]:
    """A warning where ``result`` is no better than a predictor that says the same everywhere, by the main score."""
    from eosfm.benchmark.trials import LOWER_IS_BETTER
    from eosfm.tasks.kinds import OBJECTS

    mine, theirs = ([m.value for m in s.metrics if m.name == result.main] for s in (result, constant))
    sign = -1 if kind in LOWER_IS_BETTER else 1
    if not mine or not theirs or sign * mine[0] > sign * theirs[0]:
        return ()
    same = "what is most frequent in the training labels everywhere"
    if kind == "regression":
        same = "the mean of the training labels everywhere"
    elif kind in OBJECTS:
        same = "the median box of each class in every chip"
    return (
        f"warning: no better than the constant predictor, which says {same} ({result.main} {mine[0]:.4f} against "
        f"{theirs[0]:.4f} on the test split): what this model says tells nothing. Check bands, unit and labels; then train "
        "longer (fit.epochs), or give more labels",
    )


def queue_outcome(results: Sequence[Trained]) -> Outcome:
    """A queue of trainings: one row each with score, hours, energy and CO2, and their sums."""
    rows = [("specialist", "score (test)", "95 % interval", "hours", "kWh", "kg CO2", "state")]
    lines, hours, kwh, co2 = [], 0.0, 0.0, 0.0
    for r in results:
        lines += [f"warning: {r.name}: {w}" for w in r.warnings]
        if r.card is None:
            rows.append((r.name, "-", "-", "-", "-", "-", "failed"))
            lines.append(f"{r.name}: {r.problem}")
            continue
        t, m = r.card.training, r.card.metrics[0] if r.card.metrics else None
        score = ("-", "-") if m is None else (f"{m.name} {m.value:.3f}", f"{m.low:.3f} to {m.high:.3f}")
        hours, kwh, co2 = hours + t.seconds / 3600, kwh + (t.energy_kwh or 0), co2 + (t.co2_kg or 0)
        cost = (f"{t.seconds / 3600:.2f}", f"{t.energy_kwh or 0:.4f}", f"{t.co2_kg or 0:.4f}")
        rows.append((r.name, *score, *cost, "was there" if r.already else "trained"))
    failed = sum(r.card is None for r in results)
    total = f"{len(results) - failed} of {len(results)} specialists, {hours:.2f} h, {kwh:.4f} kWh, {co2:.4f} kg CO2"
    return Outcome(list(results), table=tuple(rows), lines=(*lines, total), failed=bool(failed))


def scene_outcome(report: SceneReport, engine: str) -> Outcome:
    """What a prediction did, for people; ``engine`` is what computed it."""
    lines = [f"warning: {w}" for w in report.warnings]
    lines += [f"wrote {p}" for p in report.outputs]
    lines.append(
        f"{report.tiles} tiles ({report.skipped_tiles} without data), {report.pixels} pixels, "
        f"{100 * report.valid_share:.1f} % valid, {report.seconds:.1f} s ({engine})"
    )
    lines += [f"  {name}: {100 * share:.1f} %" for name, share in report.class_shares.items()]
    if report.tile_disagreement is not None:
        split = "" if report.split_share is None else f"; {100 * report.split_share:.2f} % of them change class"
        lines.append(f"overlapping tiles differ by {report.tile_disagreement:.4f} on average{split}")
    return Outcome(dataclasses.replace(report), lines=tuple(lines))
