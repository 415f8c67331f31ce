"""Task models and ensembles as `eosfm.inference.predict` sees them: chips in, probabilities, values or features out."""

from __future__ import annotations

import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import Pyramid
from eosfm.ensemble import Ensemble
from eosfm.tasks.model import TaskModel, probabilities


class SceneTaskModel:
    """A `TaskModel` as `eosfm.inference.predict` sees it: chips in, class probabilities or values out."""

    stride = 1

    def __init__(self, model: TaskModel, fingerprint: str) -> None:
        self.model, self.fingerprint = model, fingerprint
        self.bands: BandSet = model.encoder.bands
        self.statistics = model.encoder.statistics
        self.chip_size = model.task.chip_size
        # multi-label maps have no single winner: they are written as one probability band per class
        self.kind = "classes" if model.task.kind in ("segmentation", "classification") else "values"
        self.names = model.task.classes

    def chips(self, x: Tensor) -> Tensor:
        """``(b, k, chip, chip)`` of ``x`` ``(b, c, chip, chip)``; scene labels cover their whole chip."""
        z = probabilities(self.model.task.kind, self.model(x))
        return z if z.ndim == 4 else z[..., None, None].expand(-1, -1, *x.shape[-2:])


class SceneFeatures:
    """One level of an ensemble's fused pyramid, as `eosfm.inference.predict` sees it."""

    kind = "features"

    def __init__(self, ensemble: Ensemble, level: int, chip_size: int, fingerprint: str) -> None:
        self.ensemble, self.level, self.chip_size, self.fingerprint = ensemble, level, chip_size, fingerprint
        self.bands, self.statistics = ensemble.bands, ensemble.statistics
        self.stride = 4 * 2**level
        self.names = tuple(f"feature_{i:03d}" for i in range(ensemble.out_channels[level]))

    def chips(self, x: Tensor) -> Tensor:
        """``(b, channels, chip/stride, chip/stride)`` fused features."""
        with torch.no_grad():
            features: Pyramid = self.ensemble(x)
        return features[self.level]
