"""Distance To Best (Adorni et al. 2025; EoS-FM paper 4.1): how far a model is behind the best one, averaged over tasks.

    DTB(model) = mean over tasks of (best score of any listed model - score of the model), in the tables' unit

So it depends on which models are listed (a U-Net trained from scratch counts): a `Distance` carries its reference table,
and `rows` prints both. Smaller is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from eosfm.contracts import DataError, known


@dataclass(frozen=True)
class ReferenceTable:
    """Published scores, with where they were published and what is known to be wrong with them.

    Raises:
        DataError: a model with a score for a task that is not listed, or that is no finite number.
    """

    name: str
    source: str
    unit: str
    tasks: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    """model -> task -> score; a task may be missing"""
    printed: Mapping[str, float] = field(default_factory=dict)
    """the mean distance that the source prints, where it does"""
    lower_is_better: tuple[str, ...] = ()
    """tasks whose score is an error"""
    caveats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        frozen = {m: MappingProxyType(dict(s)) for m, s in self.scores.items()}
        object.__setattr__(self, "scores", MappingProxyType(frozen))
        object.__setattr__(self, "printed", MappingProxyType(dict(self.printed)))
        for model, scores in self.scores.items():
            if alien := [t for t in scores if t not in self.tasks]:
                raise DataError(f"{self.name}: {model} has a score for {', '.join(alien)}; {known(self.tasks)}")
            if wrong := [t for t, v in scores.items() if not math.isfinite(v)]:
                raise DataError(f"{self.name}: {model} has no finite score for {', '.join(wrong)}; leave the task out")

    def extended(self, model: str, scores: Mapping[str, float]) -> ReferenceTable:
        """This table with one more model, whose scores may be the new best ones.

        Raises:
            DataError: the model is listed already, or a task that is not.
        """
        if model in self.scores:
            raise DataError(
                f"{self.name} lists {model!r} already; give yours another name, for example {model + ', ours'!r}"
            )
        return replace(self, scores={**self.scores, model: scores})

    def without(self, *tasks: str) -> ReferenceTable:
        """This table without some tasks; what the source prints does not hold for it and is dropped."""
        if unknown := [t for t in tasks if t not in self.tasks]:
            raise DataError(f"{self.name} has no task {', '.join(unknown)}; {known(self.tasks)}")
        kept = tuple(t for t in self.tasks if t not in tasks)
        scores = {m: {t: v for t, v in s.items() if t in kept} for m, s in self.scores.items()}
        return replace(self, name=f"{self.name} without {', '.join(tasks)}", tasks=kept, scores=scores, printed={})


@dataclass(frozen=True)
class Distance:
    """A model's distance to the best of a reference table."""

    model: str
    mean: float
    per_task: Mapping[str, float]
    best: Mapping[str, str]
    """task -> the best model"""
    reference: ReferenceTable

    def rows(self) -> list[list[str]]:
        """The reference table with every model's mean distance beside it, header first; nearest to the best on top."""
        table = self.reference
        head = ["model", *table.tasks, "mean DTB", "printed"]
        distances = {m: d for m in table.scores if (d := _mean_distance(table, m)) is not None}
        body = []
        for m in sorted(table.scores, key=lambda m: distances.get(m, math.inf)):
            cells = [f"{table.scores[m][t]:.2f}" if t in table.scores[m] else "-" for t in table.tasks]
            own = f"{distances[m]:.3f}" if m in distances else "-"
            body.append([m, *cells, own, f"{table.printed[m]:.2f}" if m in table.printed else ""])
        return [head, *body]


def distance_to_best(table: ReferenceTable, model: str) -> Distance:
    """The distance of ``model``, one of ``table``.

    Raises:
        DataError: a model that is not listed, or that lacks a task: a mean over other tasks would be another number.
    """
    if model not in table.scores:
        raise DataError(f"{table.name} has no model {model!r}; {known(table.scores)}")
    if missing := [t for t in table.tasks if t not in table.scores[model]]:
        raise DataError(f"{model} has no score for {', '.join(missing)} of {table.name}; drop the tasks with without()")
    best = {t: _best(table, t) for t in table.tasks}
    per_task = {t: abs(table.scores[best[t]][t] - table.scores[model][t]) for t in table.tasks}
    return Distance(model, sum(per_task.values()) / len(per_task), per_task, best, table)


def _best(table: ReferenceTable, task: str) -> str:
    sign = -1 if task in table.lower_is_better else 1
    return max((m for m, s in table.scores.items() if task in s), key=lambda m: sign * table.scores[m][task])


def _mean_distance(table: ReferenceTable, model: str) -> float | None:
    whole = all(t in table.scores[model] for t in table.tasks)
    return distance_to_best(table, model).mean if whole else None


def _table(tasks: tuple[str, ...], rows: str) -> dict[str, dict[str, float]]:
    out = {}
    for line in rows.strip().splitlines():
        model, *values = (cell.strip() for cell in line.split("|"))
        out[model] = dict(zip(tasks, map(float, values), strict=True))
    return out


_SMALL_FARMS = (
    "AI4SmallFarms is suspect for every model: PANGAEA's configuration had num_classes 1, and values of 25 to 28 lie below a "
    "constant predictor."
)
_V1_TASKS = ("HLS Burn Scars", "MADOS", "Sen1Floods11", "AI4SmallFarms")
PAPER_V1 = ReferenceTable(
    name="EoS-FM v1, Table 1",
    source="arXiv 2511.21523v1, Table 1 (PANGAEA, single dates, frozen encoders except the U-Net)",
    unit="test mIoU, %",
    tasks=_V1_TASKS,
    scores=_table(_V1_TASKS, """
RemoteCLIP (87M) | 76.59 | 60.00 | 74.26 | 25.12
GFM-Swin (87M)   | 76.90 | 64.71 | 72.60 | 27.19
Prithvi (87M)    | 83.62 | 49.98 | 90.37 | 26.86
SatlasNet (87M)  | 79.96 | 55.86 | 90.30 | 25.13
DOFA (112M)      | 80.63 | 59.58 | 89.37 | 27.07
CROMA (303M)     | 82.42 | 67.55 | 90.89 | 25.65
EoS-FM (48M)     | 79.50 | 59.90 | 89.26 | 45.10
U-Net (~8M, trained) | 84.51 | 54.79 | 91.42 | 46.34"""),
    printed={
        "RemoteCLIP (87M)": 13.46, "GFM-Swin (87M)": 12.10, "Prithvi (87M)": 9.74, "SatlasNet (87M)": 9.64,
        "DOFA (112M)": 8.30, "CROMA (303M)": 5.80, "EoS-FM (48M)": 4.17, "U-Net (~8M, trained)": 3.19,
    },
    caveats=(
        "The printed 4.17 of EoS-FM does not follow from its own row, which gives 4.02; the other seven rows follow to 0.03.",
        "EoS-FM saw the floods of ETCI 2021 in training.",
        _SMALL_FARMS,
    ),
)  # fmt: skip
_FULL_TASKS = (
    *_V1_TASKS[:2],
    "PASTIS",
    "Sen1Floods11",
    "DynamicEarthNet",
    "CropTypeMapping",
    "SpaceNet7",
    "AI4SmallFarms",
)
PANGAEA_FULL = ReferenceTable(
    name="PANGAEA, all labels",
    source="README of RAMEN (frozen encoders, 100 % of the labels)",
    unit="test mIoU, %",
    tasks=_FULL_TASKS,
    scores=_table(_FULL_TASKS, """
CROMA       | 82.42 | 67.55 | 32.32 | 90.89 | 38.29 | 49.38 | 59.28 | 25.65
DOFA        | 80.63 | 59.58 | 30.02 | 89.37 | 39.29 | 51.33 | 61.84 | 27.07
TerraMind-B | 82.42 | 69.52 | 40.51 | 90.62 | 37.87 | 55.80 | 60.61 | 28.12
TerraMind-L | 82.93 | 75.57 | 43.13 | 90.78 | 37.89 | 55.04 | 59.98 | 27.47
RAMEN       | 85.02 | 69.72 | 42.29 | 91.03 | 39.85 | 53.27 | 60.31 | 38.78"""),
    caveats=(_SMALL_FARMS, "No U-Net trained from scratch is listed, so distances are smaller than with one."),
)  # fmt: skip
_TENTH_TASKS = (*_V1_TASKS[:2], "PASTIS", "Sen1Floods11", "FiveBillionPixels", "DynamicEarthNet", "CropTypeMapping", "SpaceNet7",
                "AI4SmallFarms")  # fmt: skip
PANGAEA_TENTH = ReferenceTable(
    name="PANGAEA, a tenth of the labels",
    source="README of THOR (frozen encoders, 10 % of the labels)",
    unit="test mIoU, %",
    tasks=_TENTH_TASKS,
    scores=_table(_TENTH_TASKS, """
CROMA       | 76.44 | 32.44 | 32.80 | 87.22 | 37.39 | 36.08 | 36.77 | 42.15 | 38.48
DOFA        | 71.98 | 23.77 | 27.68 | 82.84 | 27.82 | 39.15 | 29.91 | 46.10 | 27.74
Prithvi     | 77.73 | 21.24 | 33.56 | 86.28 | 29.98 | 32.28 | 27.71 | 36.78 | 35.04
SpectralGPT | 83.35 | 20.29 | 34.53 | 83.12 | 39.51 | 35.33 | 31.06 | 36.31 | 37.35
TerraMind-B | 77.39 | 44.06 | 39.96 | 84.43 | 54.00 | 37.35 | 35.65 | 43.21 | 38.59
UNet        | 79.46 | 24.30 | 29.53 | 88.55 | 52.58 | 35.59 | 13.88 | 46.08 | 34.84
ViT         | 75.92 | 10.18 | 38.44 | 81.85 | 56.53 | 35.39 | 27.76 | 36.01 | 39.20
THOR-B      | 76.90 | 40.67 | 38.93 | 86.29 | 42.80 | 35.21 | 42.23 | 55.94 | 38.90
THOR-T      | 75.98 | 41.65 | 36.26 | 82.70 | 42.81 | 34.03 | 37.82 | 58.52 | 38.56"""),
    caveats=("With a tenth of the labels several models are above what all labels give in the other table on AI4SmallFarms.",),
)  # fmt: skip
REFERENCES: dict[str, ReferenceTable] = {
    "eosfm-v1": PAPER_V1, "pangaea-100": PANGAEA_FULL, "pangaea-10": PANGAEA_TENTH,
}  # fmt: skip
