"""What a demo does, as data: which specialists are trained on what, and which unseen tasks they are tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eosfm.benchmark.compare import Protocol
from eosfm.data.chips import Splits
from eosfm.tasks.model import HeadConfig
from eosfm.training.fit import LIGHT_HEAD
from eosfm.training.settings import FitConfig


@dataclass(frozen=True)
class SpecialistPlan:
    """One specialist: importable ``make()`` gives its data (a `functools.partial` of a module's function)."""

    name: str
    description: str
    make: Callable[[], Splits]
    fit: FitConfig
    head: HeadConfig = LIGHT_HEAD


@dataclass(frozen=True)
class TaskPlan:
    """One downstream task that no specialist in use has seen; ``make(seed)`` gives its data."""

    name: str
    title: str
    about: str
    """what is asked, on which data, with how many labels"""
    limits: str
    """what its figures can and cannot show"""
    make: Callable[[int], Splits]
    head: HeadConfig
    protocol: Protocol
    seeds: tuple[int, ...]
    exclude: tuple[str, ...] = ()
    """specialists that have seen this data or these classes"""


@dataclass(frozen=True)
class DemoPlan:
    """A whole demo."""

    title: str
    about: str
    specialists: tuple[SpecialistPlan, ...]
    tasks: tuple[TaskPlan, ...]
    scene: Callable[..., object] | None = None
    """``scene(folder)`` writes a GeoTIFF and its truth; see `eosfm.demo.scene`"""
    scene_task: str = ""
