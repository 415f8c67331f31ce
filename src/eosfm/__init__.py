"""eosfm: a generalist feature extractor for Earth observation, assembled from small specialists.

    pixels with named bands -> views each specialist can read -> frozen specialists -> fused pyramid -> small decoder -> map

>>> ens = eosfm.load("zoo", bands="hls:all@dn-1e4")     # doctest: +SKIP
>>> pyramid = ens(x)                                    # doctest: +SKIP
>>> [tuple(p.shape[1:2]) for p in pyramid]              # doctest: +SKIP
[(40,), (80,), (160,), (320,)]

Importing this package imports neither torch nor anything heavier; names are resolved when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from eosfm._version import __version__
from eosfm.contracts import EosfmError

if TYPE_CHECKING:
    from eosfm.adaptation import AdaptationPlan, adapt
    from eosfm.bands import Band, BandSet
    from eosfm.composition import load
    from eosfm.engine.export import export
    from eosfm.engine.fused import fused
    from eosfm.ensemble import Ensemble
    from eosfm.statistics import BandStatistics, band_statistics
    from eosfm.tasks.model import TaskModel
    from eosfm.tasks.stored import load_task_model

_HOME = {
    "AdaptationPlan": "eosfm.adaptation",
    "Band": "eosfm.bands",
    "BandSet": "eosfm.bands",
    "BandStatistics": "eosfm.statistics",
    "Ensemble": "eosfm.ensemble",
    "TaskModel": "eosfm.tasks.model",
    "adapt": "eosfm.adaptation",
    "band_statistics": "eosfm.statistics",
    "export": "eosfm.engine.export",
    "fused": "eosfm.engine.fused",
    "load": "eosfm.composition",
    "load_task_model": "eosfm.tasks.stored",
}

__all__ = [
    "AdaptationPlan",
    "Band",
    "BandSet",
    "BandStatistics",
    "Ensemble",
    "EosfmError",
    "TaskModel",
    "__version__",
    "adapt",
    "band_statistics",
    "export",
    "fused",
    "load",
    "load_task_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'eosfm' has no attribute {name!r}; known: {', '.join(__all__)}")
