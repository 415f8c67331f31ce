"""Small multi-sensor worlds with known answers: enough to teach small networks, for the demo, the tests and the docs.

    world = make_world(256, seed=7)                        # a hidden landscape
    image = observe(world, BandSet.parse("sentinel-1:VV,VH@db"))
    truth = label(world, "water")
    chips = make_chips("burn-scars", BandSet.parse("hls:all@reflectance"), 400, seed=1)

Nothing here is measured: scores on these worlds compare methods with one another and say nothing about a real place.
Every result is a pure function of its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eosfm.bands import BandSet
from eosfm.contracts import DataError, known
from eosfm.data.fields import Field, Shape
from eosfm.data.landscape import CLIMATES, World, make_world
from eosfm.data.sensing import LOOKS, observe
from eosfm.data.spectra import GREEN, Cover
from eosfm.tasks.kinds import IGNORE

__all__ = [
    "CLIMATES",
    "IGNORE",
    "LOOKS",
    "TASKS",
    "SyntheticChips",
    "SyntheticTask",
    "World",
    "label",
    "make_chips",
    "make_scene",
    "make_world",
    "observe",
    "task_named",
]

Label: TypeAlias = NDArray[Any]
Kind: TypeAlias = Literal["segmentation", "classification", "multilabel", "regression"]

_WORLDS_PER_SEED = 2**20

_COVERS = (
    "water",
    "forest",
    "grassland",
    "cropland",
    "soil",
    "urban",
)  # the first six of Cover; the others are ignored


@dataclass(frozen=True)
class SyntheticTask:
    """A question about a world and what its answer looks like.

    Labels: segmentation int64 ``(h, w)``, `IGNORE` where undefined; regression float32 ``(h, w)``, NaN where undefined;
    classification int64 ``()``; multilabel int64 ``(classes,)`` of 0 and 1.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    """names in the order of the labels; the one quantity of a regression"""
    description: str
    burns: bool = False
    """whether its worlds contain fires"""
    clouds: bool = False
    """whether its worlds contain clouds"""
    downstream: bool = False
    """whether it is kept from all specialists"""


TASKS: dict[str, SyntheticTask] = {
    t.name: t
    for t in [
        SyntheticTask("land-cover", "segmentation", _COVERS, "dominant cover; wetland and snow are ignored"),
        SyntheticTask("water", "segmentation", ("land", "water"), "open water, clear or turbid; wetland is land"),
        SyntheticTask(
            "crop-fields", "segmentation", ("other", "interior", "boundary"), "parcels and the lines between them"
        ),
        SyntheticTask(
            "urban-density", "segmentation", ("open", "suburban", "dense"), "how built-up the surroundings are"
        ),
        SyntheticTask("scene", "classification", _COVERS, "the cover with the most pixels"),
        SyntheticTask("scene-multilabel", "multilabel", _COVERS, "covers on more than 5 % of the pixels"),
        SyntheticTask(
            "flood-sar", "segmentation", ("dry", "water", "flooded vegetation"), "water and what stands in it"
        ),
        SyntheticTask(
            "vegetation-fraction", "regression", ("green fraction",), "share of the pixel under green leaves"
        ),
        SyntheticTask("soil-moisture", "regression", ("moisture",), "wetness of the soil, 0-1; undefined without soil"),
        SyntheticTask(
            "burn-scars",
            "segmentation",
            ("unburnt", "burnt"),
            "vegetation that fire has consumed, days to months ago; clouds are ignored",
            burns=True,
            clouds=True,
            downstream=True,
        ),
        SyntheticTask(
            "cloud-cover",
            "segmentation",
            ("clear", "cloud", "shadow"),
            "clouds and the shadows they cast",
            clouds=True,
            downstream=True,
        ),
    ]
}
"""Every task by name. Specialists learn those without `downstream`, in worlds that never burn."""


@dataclass(frozen=True, eq=False)
class SyntheticChips:
    """Images with labels, cut from worlds of their own."""

    images: Field
    """``(n, c, size, size)`` in the units that ``bands`` declare"""
    labels: Label
    """one label of the task per image, stacked along the first axis"""
    bands: BandSet
    task: SyntheticTask
    seeds: NDArray[np.int64]
    """``(n,)`` seed of the world that each chip was cut from"""

    def __len__(self) -> int:
        return len(self.images)


def task_named(name: str) -> SyntheticTask:
    """The task called ``name``; raises `DataError` that lists the known ones."""
    if name not in TASKS:
        raise DataError(f"unknown synthetic task {name!r}; {known(TASKS)}")
    return TASKS[name]


def label(world: World, task: str) -> Label:
    """The answer to ``task`` in ``world``; dtype and shape depend on the kind, see `SyntheticTask`."""
    return _LABELS[task_named(task).name](world)


def make_chips(
    task: str, bands: BandSet, n: int, *, size: int = 64, seed: int = 0, per_side: int = 2
) -> SyntheticChips:
    """``n`` chips of ``size`` pixels for ``task``, cut ``per_side`` by ``per_side`` from one world after another.

    Two different seeds share no world, so ``seed=1`` trains, ``seed=2`` validates, ``seed=3`` tests.

    Raises:
        DataError: unknown task, or a count or size that is not positive.
    """
    spec = task_named(task)
    if n < 1 or size < 8 or per_side < 1 or seed < 0:
        raise DataError(f"expected n >= 1, size >= 8, per_side >= 1, seed >= 0; got {n}, {size}, {per_side}, {seed}")
    images = np.empty((n, len(bands), size, size), np.float32)
    labels: list[Label] = []
    seeds = np.array([seed * _WORLDS_PER_SEED + i // per_side**2 for i in range(n)], np.int64)
    for first in range(0, n, per_side**2):
        world = make_world(size * per_side, int(seeds[first]), burns=spec.burns, clouds=spec.clouds)
        image = observe(world, bands)
        for i in range(first, min(n, first + per_side**2)):
            top, left = (size * k for k in divmod(i - first, per_side))
            images[i] = image[:, top : top + size, left : left + size]
            labels.append(label(world.crop(top, left, size), task))
    return SyntheticChips(images, np.stack(labels), bands, spec, seeds)


def make_scene(
    bands: BandSet,
    *,
    size: int | Shape = 512,
    seed: int = 0,
    task: str = "burn-scars",
    burns: bool = True,
    clouds: bool = True,
) -> tuple[Field, Label, World]:
    """One large image ``(c, h, w)``, its label for ``task``, and the world behind both."""
    world = make_world(size, seed, burns=burns, clouds=clouds)
    return observe(world, bands), label(world, task), world


def _land_cover(world: World) -> Label:
    return np.where(world.cover < len(_COVERS), world.cover, IGNORE)


def _shares(world: World) -> NDArray[np.float64]:
    count = np.bincount(world.cover.ravel(), minlength=len(Cover))
    shares: NDArray[np.float64] = count[: len(_COVERS)] / world.cover.size
    return shares


def _density(world: World) -> Label:
    return np.digitize(world.density, (0.02, 0.45)).astype(np.int64)


def _flood(world: World) -> Label:
    return np.where(world.cover == Cover.WETLAND, 2, world.cover == Cover.WATER).astype(np.int64)


def _moisture(world: World) -> Label:
    soil = (world.cover >= Cover.FOREST) & (world.cover <= Cover.SOIL)
    return np.where(soil, world.moisture, np.float32(np.nan))


def _burn(world: World) -> Label:
    return np.where(world.cloud > 0.5, IGNORE, world.severity > 0.2).astype(np.int64)


def _cloud(world: World) -> Label:
    return np.where(world.cloud > 0.4, 1, 2 * (world.shadow > 0.4)).astype(np.int64)


_LABELS: dict[str, Callable[[World], Label]] = {
    "land-cover": _land_cover,
    "water": lambda w: (w.cover == Cover.WATER).astype(np.int64),
    "crop-fields": lambda w: w.parcel,
    "urban-density": _density,
    "scene": lambda w: np.asarray(_shares(w).argmax(), dtype=np.int64),
    "scene-multilabel": lambda w: (_shares(w) > 0.05).astype(np.int64),
    "flood-sar": _flood,
    "vegetation-fraction": lambda w: w.share(GREEN),
    "soil-moisture": _moisture,
    "burn-scars": _burn,
    "cloud-cover": _cloud,
}
"""task -> its answer in a world; the same names as `TASKS`"""
