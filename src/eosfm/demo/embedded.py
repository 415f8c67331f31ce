"""The demo on embedded data: specialists of three sensors on worlds without fire, adapted to burn scars in HLS bands."""

from __future__ import annotations

from functools import partial

from eosfm.bands import BandSet
from eosfm.benchmark.compare import Protocol
from eosfm.data.chips import Splits
from eosfm.data.worlds import synthetic_splits
from eosfm.demo.plan import DemoPlan, SpecialistPlan, TaskPlan
from eosfm.tasks.model import HeadConfig
from eosfm.training.settings import FitConfig

HLS = "hls:BLUE,GREEN,RED,NIR_NARROW,SWIR_1,SWIR_2@reflectance"
S2_SIX = "sentinel-2-l2a:B02,B03,B04,B8A,B11,B12@dn-1e4"
S2_IRG = "sentinel-2-l2a:B8A,B04,B03@reflectance"
S2_RGB = "sentinel-2-l2a:B04,B03,B02@reflectance"
S1 = "sentinel-1:VV,VH,VH@db"
AERIAL = "aerial:R,G,B@8bit"

# (name, what it learnt, task, bands)
_SPECIALISTS = (
    ("s2-land-cover", "Six land covers from six Sentinel-2 bands", "land-cover", S2_SIX),
    ("s2-vegetation", "Vegetation fraction from Sentinel-2 infrared, red and green", "vegetation-fraction", S2_IRG),
    ("s2-rgb-scene", "Which covers occur in a Sentinel-2 true colour scene", "scene-multilabel", S2_RGB),
    ("s2-moisture", "Soil moisture from six Sentinel-2 bands", "soil-moisture", S2_SIX),
    ("s1-flood", "Permanent water and flooded vegetation from Sentinel-1", "flood-sar", S1),
    ("s1-moisture", "Soil moisture from Sentinel-1", "soil-moisture", S1),
    ("aerial-urban", "Urban density from 8-bit aerial pictures", "urban-density", AERIAL),
    ("aerial-water", "Open water from 8-bit aerial pictures", "water", AERIAL),
)  # fmt: skip


def splits_of(task: str, bands: str, train: int, validation: int, test: int, seed: int) -> Splits:
    """Chips of a synthetic task for a specialist (repeated bands are observed once and repeated)."""
    return synthetic_splits(task, BandSet.parse(bands), train, validation, test, seed=seed)


def downstream(seed: int, train: int, test: int) -> Splits:
    """Burn scars in HLS reflectance; ``seed`` draws the training worlds, the test worlds are always the same."""
    return synthetic_splits("burn-scars", BandSet.parse(HLS), train, 32, test, seed=seed, test_seed=4242)


def fixed_labels(seed: int, data_seed: int, train: int, test: int) -> Splits:  # noqa: ARG001
    """The same labels whatever the ``seed``, which is left to initial weights and the order of chips."""
    return downstream(data_seed, train, test)


def embedded_plan(seed: int, quick: bool) -> DemoPlan:
    """The plan; ``quick`` shrinks everything until it means nothing, for smoke tests."""
    chips, epochs = (24, 1) if quick else (512, 8)
    specialists = tuple(
        SpecialistPlan(
            name=name,
            description=about,
            make=partial(splits_of, task, bands, chips, max(16, chips // 8), max(16, chips // 4), 100 + 10 * seed + i),
            fit=FitConfig(
                epochs=epochs, batch_size=16, learning_rate=1e-3, augment=True, validate_every=min(2, epochs), seed=seed
            ),
        )
        for i, (name, about, task, bands) in enumerate(_SPECIALISTS[:2] if quick else _SPECIALISTS)
    )
    adapt = FitConfig(epochs=1 if quick else 24, batch_size=8, learning_rate=1e-3, validate_every=1 if quick else 4)
    scratch = FitConfig(
        epochs=1 if quick else 32, batch_size=8, learning_rate=1e-3, augment=True, validate_every=1 if quick else 4
    )
    train, test = (8, 8) if quick else (48, 400)
    seeds = tuple(1000 + 10 * seed + s for s in range(1 if quick else 3))
    task = TaskPlan(
        name="burn-scars",
        title="Burn scars in six HLS bands, never seen by any specialist",
        about=(
            f"Segmentation of burnt vegetation. {train} labelled chips of 64 px for training and 32 to choose the best epoch, "
            f"the same for each of {len(seeds)} seeds, which move initial weights and the order of chips; {test} test chips from "
            "other worlds. No specialist has seen a fire, a cloud, or HLS."
        ),
        limits=(
            "Worlds are drawn by a program: spectra, speckle and shapes are plausible, but nothing was measured. The figures "
            "compare methods with one another; they say nothing about burn scars on Earth."
        ),
        make=partial(fixed_labels, data_seed=1000 + 10 * seed, train=train, test=test),
        head=HeadConfig(decoder="unet", channels=64),
        protocol=Protocol(adapt=adapt, scratch=scratch, subset_sizes=(1,) if quick else (2, 4)),
        seeds=seeds,
    )
    return DemoPlan(
        title="A generalist from small specialists: embedded worlds",
        about="Synthetic Sentinel-2, Sentinel-1 and aerial worlds; the unseen task is burn scars in HLS bands.",
        specialists=specialists,
        tasks=(task,),
        scene_task="burn-scars",
    )
