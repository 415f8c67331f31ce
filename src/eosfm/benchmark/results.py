"""Results on disk, and their summary over seeds: what a table row is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eosfm.benchmark import intervals
from eosfm.benchmark.compare import CONSTANT, ENSEMBLE, Comparison, Row
from eosfm.benchmark.trials import LOWER_IS_BETTER
from eosfm.config import read_json, to_plain
from eosfm.contracts import CorruptArtifact
from eosfm.files import atomic_folder
from eosfm.training.scoring import STATISTICS, bootstrap, scores_from

SINGLE = "single: "


@dataclass(frozen=True)
class Summary:
    """One method over all seeds, with a 95 % interval that covers the choice of seeds and of test chips."""

    method: str
    label: str
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    validation: float
    """the kind's score on the validation split: of a regression an error"""
    trained_parameters: int
    parameters: int
    seconds: float
    feature_seconds: float
    specialists: tuple[str, ...]
    class_scores: tuple[float, ...]
    lower_is_better: bool = False
    """of ``mean`` and ``validation``"""


def save_comparison(comparison: Comparison, kind: str, folder: Path) -> None:
    """Store a comparison: counts per chip and predictions as plain arrays, the rest as JSON."""
    with atomic_folder(folder, overwrite=True) as tmp:
        arrays = {f"counts_{i}": r.scores.per_chip for i, r in enumerate(comparison.rows)}
        arrays |= {f"shown_{i}": comparison.predictions[r.method] for i, r in enumerate(comparison.rows)}
        np.savez_compressed(tmp / "arrays.npz", **arrays)  # type: ignore[arg-type]
        rows = [
            {"method": r.method, "specialists": r.specialists, "validation": None if np.isnan(r.validation) else r.validation,
             "trained_parameters": r.trained_parameters, "parameters": r.parameters, "seconds": r.seconds,
             "feature_seconds": r.feature_seconds, "metrics": [to_plain(m) for m in r.scores.metrics]}
            for r in comparison.rows
        ]  # fmt: skip
        about: dict[str, Any] = {"seed": comparison.seed, "kind": kind, "data_sha256": comparison.data_sha256,
                                 "classes": comparison.rows[0].scores.classes, "rows": rows}  # fmt: skip
        (tmp / "rows.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def load_comparison(folder: Path) -> Comparison:
    """The inverse of `save_comparison`."""
    about = read_json(folder / "rows.json", error=CorruptArtifact)
    try:
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            stored = {k: arrays[k] for k in arrays.files}
        rows = []
        for i, r in enumerate(about["rows"]):
            scores = scores_from(about["kind"], stored[f"counts_{i}"], tuple(about["classes"]), about["seed"])
            validation = float("nan") if r["validation"] is None else r["validation"]
            rows.append(Row(r["method"], about["seed"], tuple(r["specialists"]), scores, validation,
                            r["trained_parameters"], r["parameters"], r["seconds"], r["feature_seconds"]))  # fmt: skip
        shown = {r["method"]: stored[f"shown_{i}"] for i, r in enumerate(about["rows"])}
    except (KeyError, ValueError, OSError, TypeError) as e:
        raise CorruptArtifact(f"{folder}: not a stored comparison ({e}); delete it to compute it again") from None
    return Comparison(about["seed"], rows, shown, about["data_sha256"])


def summarise(comparisons: Sequence[Comparison], kind: str) -> list[Summary]:
    """One summary per method, in the order of the rows; intervals by resampling seeds and test chips."""
    statistic = STATISTICS[kind][main_metric(kind)]
    out = []
    for i, first in enumerate(comparisons[0].rows):
        rows = [c.rows[i] for c in comparisons]
        assert all(r.method == first.method for r in rows)
        tables = [r.scores.per_chip for r in rows]
        values = tuple(statistic(t) for t in tables)
        low, high = bootstrap(tables, statistic, seed=0)
        out.append(
            Summary(
                method=first.method,
                label=first.method,
                mean=float(np.mean(values)),
                low=low,
                high=high,
                seeds=values,
                validation=float(np.mean([r.validation for r in rows])),
                trained_parameters=first.trained_parameters,
                parameters=first.parameters,
                seconds=float(np.mean([r.seconds for r in rows])),
                feature_seconds=float(np.mean([r.feature_seconds for r in rows])),
                specialists=first.specialists,
                class_scores=tuple(np.nanmean([r.scores.class_scores for r in rows], axis=0).tolist())
                if first.scores.class_scores
                else (),
                lower_is_better=kind in LOWER_IS_BETTER,
            )
        )
    return out


def main_metric(kind: str) -> str:
    """The score a kind of task is judged by."""
    return next(iter(STATISTICS[kind]))


def best_single(summaries: Sequence[Summary]) -> Summary | None:
    """The single specialist with the best mean validation score (never chosen on the test split)."""
    singles = [s for s in summaries if s.method.startswith(SINGLE)]
    return max(singles, key=lambda s: -s.validation if s.lower_is_better else s.validation) if singles else None


def paired_difference(comparisons: Sequence[Comparison], kind: str, a: str, b: str) -> tuple[float, float, float]:
    """Mean of ``a - b`` on the main score and its 95 % interval, resampling the same seeds and chips for both."""
    pairs = []
    for c in comparisons:
        by = {r.method: r.scores.per_chip for r in c.rows}
        pairs.append((by[a], by[b]))
    out = intervals.paired_difference(pairs, STATISTICS[kind][main_metric(kind)])
    return out.value, out.low, out.high


def headline(summaries: Sequence[Summary]) -> dict[str, Summary]:
    """The rows of the main table: ensemble, best single, untrained, from scratch, constant."""
    table = {s.method: s for s in summaries}
    best = best_single(summaries)
    out = {ENSEMBLE: table[ENSEMBLE]}
    if best is not None:
        out["best single specialist"] = best
    for m in table:
        if not m.startswith((SINGLE, "subset of ")) and m not in (ENSEMBLE, CONSTANT):
            out[m] = table[m]
    out[CONSTANT] = table[CONSTANT]
    return out
