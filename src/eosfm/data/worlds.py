"""Splits of the synthetic worlds: training, validation and test chips come from worlds that share no seed."""

from __future__ import annotations

import torch

from eosfm.bands import BandSet
from eosfm.data import synthetic
from eosfm.data.chips import Chips, Splits

LICENCE = "CC0-1.0"
SOURCE = "eosfm.data.synthetic, drawn by seed; nothing in it was measured"
_SPLIT_STRIDE = 1_000_003
"""between the seeds of two splits; synthetic worlds derive theirs from (seed, number)"""


def synthetic_splits(
    task: str,
    bands: BandSet,
    train: int,
    validation: int,
    test: int,
    *,
    size: int = 64,
    seed: int = 0,
    test_seed: int | None = None,
) -> Splits:
    """Chips of ``task`` (see `eosfm.data.synthetic.TASKS`) seen in ``bands``.

    Args:
        task: what to label.
        bands: what the sensor sees.
        train: number of training chips.
        validation: number of validation chips.
        test: number of test chips.
        size: chip side in pixels of 10 m.
        seed: of the worlds.
        test_seed: of the test worlds, where several training seeds share one test split.
    """
    fixed = seed if test_seed is None else test_seed
    return Splits(
        train=synthetic_chips(task, bands, train, size=size, seed=seed * 10 + 1),
        validation=synthetic_chips(task, bands, validation, size=size, seed=seed * 10 + 2),
        test=synthetic_chips(task, bands, test, size=size, seed=_SPLIT_STRIDE + fixed * 10 + 3),
        rule="worlds of different seeds",
    )


def synthetic_chips(task: str, bands: BandSet, n: int, *, size: int = 64, seed: int = 0) -> Chips:
    """``n`` chips of ``task`` as `Chips`."""
    made = synthetic.make_chips(task, bands, n, size=size, seed=seed)
    about = synthetic.task_named(task)
    labels = torch.from_numpy(made.labels)
    return Chips(
        images=torch.from_numpy(made.images),
        labels=labels if about.kind != "regression" else labels.float(),
        bands=bands,
        kind=about.kind,
        classes=about.classes,
        name=f"synthetic {task}",
        licence=LICENCE,
        source=SOURCE,
        ids=tuple(f"world {w}, chip {i}" for i, w in enumerate(made.seeds.tolist())),
    )
