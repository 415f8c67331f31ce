"""The demo on small real data: EuroSAT, UC Merced, MSTAR, BigEarthNet, CaFFe, cloud masks, Sen1Floods11."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from eosfm.benchmark.compare import Protocol
from eosfm.data import real
from eosfm.data.chips import ChipSet, Splits, few_per_class
from eosfm.demo.plan import DemoPlan, SpecialistPlan, TaskPlan
from eosfm.tasks.model import HeadConfig
from eosfm.training.settings import FitConfig

UNSEEN = ("AnnualCrop", "Highway", "Residential", "SeaLake")
"""EuroSAT classes that no group specialist sees"""
GROUPS = (
    ("Forest", "Industrial"),
    ("HerbaceousVegetation", "River"),
    ("Pasture", "PermanentCrop"),
    ("Forest", "HerbaceousVegetation", "Pasture"),
    ("Industrial", "PermanentCrop", "River"),
)
"""two ways to cut the other six classes into disjoint groups: three pairs, two triples"""


def eurosat(root: Path, classes: tuple[str, ...] | None, per_class: int | None, seed: int) -> Splits:
    """EuroSAT RGB of some classes."""
    return real.eurosat_rgb(root, classes=classes, per_class=per_class, seed=seed)


def few_labels(splits: Splits, train: int, validation: int, seed: int) -> Splits:
    """The same test split, with ``train`` and ``validation`` labels a class."""
    return replace(
        splits,
        train=few_per_class(splits.train, train, seed),
        validation=few_per_class(splits.validation, validation, seed),
        rule=f"{splits.rule}; {train} training and {validation} validation labels a class, drawn by seed",
    )


def eurosat_unseen(seed: int, root: Path, labels: int, test: int | None) -> Splits:
    """EuroSAT's unseen classes with few labels."""
    splits = few_labels(eurosat(root, UNSEEN, None, 0), labels, labels, seed)
    return splits if test is None else replace(splits, test=_limit(splits.test, test))


def merced(seed: int, root: Path, labels: int, test: int | None) -> Splits:
    """UC Merced with few labels a class."""
    splits = few_labels(real.uc_merced(root, size=128), labels, max(1, labels // 2), seed)
    return splits if test is None else replace(splits, test=_limit(splits.test, test))


def flood(seed: int, root: Path) -> Splits:  # noqa: ARG001 - one chip, one split; the seed moves initial weights only
    """Sen1Floods11's one chip, S1 and S2, split by stripes."""
    return real.sen1floods11(root)


def _limit(chips: ChipSet, n: int) -> ChipSet:
    return chips.subset(range(0, len(chips), max(1, len(chips) // n)))


def real_plan(data: Path, seed: int, quick: bool) -> DemoPlan:
    """The plan; ``quick`` shrinks everything until it means nothing, for smoke tests."""
    root = real.real_root(data)

    def cls(epochs: int, batch: int = 32) -> FitConfig:
        return FitConfig(
            epochs=1 if quick else epochs, batch_size=batch, learning_rate=1e-3, augment=True, seed=seed
        )  # fmt: skip

    n = 8 if quick else None
    reader = {
        "eurosat-rgb": ("EuroSAT RGB, all ten classes", partial(eurosat, root, None, n, seed), cls(6)),
        "mstar": ("Ten vehicle classes in X-band SAR", partial(real.mstar, root, size=64, per_class=n, seed=seed, composite=True), cls(5)),
        "uc-merced": (
            "21 land uses in 0.3 m aerial pictures", partial(real.uc_merced, root, per_class=n, seed=seed), cls(12),
        ),
        "bigearthnet-s1": (
            "19 land covers in Sentinel-1, a few patches", partial(real.bigearthnet_s1, root, limit=n, seed=seed), cls(30, 4),
        ),
        "bigearthnet-s2": (
            "19 land covers in 12 Sentinel-2 bands, a few patches",
            partial(real.bigearthnet_s2, root, limit=n, seed=seed), cls(30, 4),
        ),
        "caffe": ("Glacier zones in SAR", partial(real.caffe, root, limit=n, seed=seed, composite=True), cls(12, 8)),
        "clouds": (
            "Cloud and shadow in six Sentinel-2 bands", partial(real.cloud_masks, root, limit=n, seed=seed), cls(30, 8),
        ),
    }  # fmt: skip
    plans = [SpecialistPlan(name, *rest) for name, rest in reader.items()]
    plans += [
        SpecialistPlan(
            f"eurosat-group-{i + 1}",
            f"EuroSAT RGB, {', '.join(g)} only",
            partial(eurosat, root, g, n or 3000 // len(g), seed),
            cls(3),
        )
        for i, g in enumerate(GROUPS)
    ]
    seeds = tuple(10 * seed + s for s in range(1 if quick else 3))
    few = 2 if quick else 10
    linear = HeadConfig(decoder="linear", channels=64, dropout=0.0)
    probe = FitConfig(epochs=2 if quick else 60, batch_size=16, learning_rate=1e-3, weight_decay=0.05, validate_every=2)
    scratch = FitConfig(epochs=2 if quick else 60, batch_size=16, learning_rate=5e-4, augment=True, validate_every=2)
    tasks = (
        TaskPlan(
            "eurosat-unseen", "EuroSAT classes that no group specialist has seen",
            f"Four scene classes ({', '.join(UNSEEN)}), {few} training labels a class, a linear head; the specialists saw the "
            "other six classes only. The specialist of all ten classes is left out.",
            "Real Sentinel-2 pictures; the test set of the given random split (neighbouring tiles may fall on both sides). "
            "Sensor and continent are those of the specialists: this shows transfer to new classes, not to new places.",
            partial(eurosat_unseen, root=root, labels=few, test=16 if quick else None), linear,
            Protocol(adapt=probe, scratch=scratch, subset_sizes=() if quick else (1, 2, 4, 6)), seeds, ("eurosat-rgb",),
        ),
        TaskPlan(
            "uc-merced", "UC Merced: another resolution, sensor and continent",
            f"21 land uses at 0.3 m in the United States, {few} training labels a class, a linear head, every specialist but the "
            "one trained on it.",
            "252 test pictures: differences of a few points are within the intervals. The specialists' optical pictures are 10 m "
            "Sentinel-2 over Europe.",
            partial(merced, root=root, labels=few, test=16 if quick else None), linear,
            Protocol(adapt=replace(probe, epochs=min(40, probe.epochs)), scratch=replace(scratch, epochs=min(24, scratch.epochs)),
                     subset_sizes=() if quick else (1, 2, 4, 8)), seeds, ("uc-merced",),
        ),
        TaskPlan(
            "sen1floods11", "A flood from Sentinel-1 and Sentinel-2",
            "Water segmentation on one 512 px chip in Spain, Sentinel-1 VV, VH and 13 Sentinel-2 bands, split into "
            "stripes with gaps (32/16/8 chips of 64 px); every specialist.",
            "One chip, one flood, eight test chips: this proves that units, 15 mixed bands and the spatial split work. It "
            "cannot rank methods: look at the width of the intervals.",
            partial(flood, root=root), HeadConfig(decoder="unet", channels=64),
            Protocol(adapt=replace(probe, batch_size=8), scratch=replace(scratch, batch_size=8)), seeds,
        ),
    )  # fmt: skip
    return DemoPlan(
        title="A generalist from small specialists: real data",
        about="EuroSAT, UC Merced, MSTAR, BigEarthNet, CaFFe, cloud masks and Sen1Floods11, all small and real.",
        specialists=tuple(plans),
        tasks=tasks,
        scene_task="sen1floods11",
    )
