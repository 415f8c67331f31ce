"""What cached orientations do to the score: the same adaptation with each chip as it is, and in its eight orientations.

python benchmarks/orientations.py runs/demo/zoo   # writes results/orientations/scores.csv; zoo of `make demo`

The embedded world's burn scars, a task that none of the specialists saw; a U-Net on the fused features, five seeds, each with
training chips of its own. Differences are paired on test chips and seeds, with intervals over both.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

from result_tables import store

from eosfm.benchmark.intervals import interval, paired_difference
from eosfm.composition import load
from eosfm.data.files import DataConfig, open_data
from eosfm.tasks.model import HeadConfig, TaskSpec
from eosfm.training.fit import adapt_ensemble
from eosfm.training.scoring import STATISTICS, score
from eosfm.training.settings import FitConfig

BANDS = "hls:BLUE,GREEN,RED,NIR_NARROW,SWIR_1,SWIR_2@reflectance"
SEEDS = range(5)
LABELLED = (12, 48)
MIOU = STATISTICS["segmentation"]["miou"]


def main(zoo: Path) -> None:
    """Both ways for each number of labelled chips."""
    rows = []
    for labelled in LABELLED:
        tables: dict[bool, list[object]] = {False: [], True: []}
        seconds = {False: 0.0, True: 0.0}
        for seed in SEEDS:
            splits = open_data(
                DataConfig(kind="synthetic", task="burn-scars", bands=BANDS, size=(labelled, 24, 200), seed=1000 + seed)
            )
            task = TaskSpec(
                kind="segmentation", classes=splits.train.classes, chip_size=splits.train.size[0],
                head=HeadConfig(decoder="unet", channels=64),
            )  # fmt: skip
            config = FitConfig(
                epochs=24 * 48 // labelled // 2, batch_size=8, learning_rate=1e-3, validate_every=4, seed=seed
            )
            for augment in tables:
                start = time.perf_counter()
                ensemble = load(zoo, BANDS, statistics=splits.train.statistics())
                model, _, _ = adapt_ensemble(ensemble, splits, task, replace(config, augment=augment))
                seconds[augment] += time.perf_counter() - start
                tables[augment].append(score(model.eval(), splits.test, seed).per_chip)
        difference = paired_difference(list(zip(tables[True], tables[False], strict=True)), MIOU)  # type: ignore[arg-type]
        for augment, of in tables.items():
            r = interval(of, MIOU)  # type: ignore[arg-type]
            rows.append({"labelled": labelled, "orientations": 8 if augment else 1, "miou": round(r.value, 4),
                         "low": round(r.low, 4), "high": round(r.high, 4), "seconds": round(seconds[augment] / len(SEEDS), 1),
                         "gain": round(difference.value, 4) if augment else "", "gain_low": round(difference.low, 4) if augment
                         else "", "gain_high": round(difference.high, 4) if augment else ""})  # fmt: skip
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
        store("orientations/scores.csv", rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
