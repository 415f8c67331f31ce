"""What commands have to say, and the two tables that several of them show. Importing this imports nothing heavy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eosfm.inference.predict import SceneReport
    from eosfm.training.scoring import Scores


@dataclass(frozen=True)
class Outcome:
    """What a command has to say: lines and tables for people, and the value for programs."""

    value: object
    lines: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    """first row is the header"""
    failed: bool = False


def score_table(result: Scores, splits: object) -> tuple[tuple[str, ...], ...]:
    """Scores with intervals, a constant predictor beside them; the first row is the header."""
    from eosfm.benchmark.baselines import ConstantPredictor
    from eosfm.data.chips import Splits
    from eosfm.training.scoring import score

    assert isinstance(splits, Splits)
    constant = score(ConstantPredictor(splits.train), splits.test, 0)
    rows = [("score (test)", "value", "95 % interval", "constant predictor", "samples")]
    for m, c in zip(result.metrics, constant.metrics, strict=True):
        rows.append((m.name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}", f"{c.value:.4f}", str(m.samples)))
    return tuple(rows)


def scene_outcome(report: SceneReport) -> Outcome:
    """What a prediction did, for people."""
    lines = [f"warning: {w}" for w in report.warnings]
    lines += [f"wrote {p}" for p in report.outputs]
    lines.append(
        f"{report.tiles} tiles ({report.skipped_tiles} without data), {report.pixels} pixels, "
        f"{100 * report.valid_share:.1f} % valid, {report.seconds:.1f} s"
    )
    lines += [f"  {name}: {100 * share:.1f} %" for name, share in report.class_shares.items()]
    if report.tile_disagreement is not None:
        split = "" if report.split_share is None else f"; {100 * report.split_share:.2f} % of them change class"
        lines.append(f"overlapping tiles differ by {report.tile_disagreement:.4f} on average{split}")
    return Outcome(dataclasses.replace(report), lines=tuple(lines))
