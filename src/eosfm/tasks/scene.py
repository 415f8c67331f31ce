"""Task models, ensembles and exports as `eosfm.inference.predict` sees them: chips in, probabilities, values or features out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, Pyramid
from eosfm.engine.exported import FEATURES, Exported
from eosfm.engine.fused import Fused, Precision, fused
from eosfm.ensemble import Ensemble
from eosfm.tasks.model import TaskModel, probabilities, require_maps

_SUFFIX = {"fp32": "", "bf16": "-bf16"}
"""of a fingerprint: a map that was begun in one precision is not continued in another"""


class SceneTaskModel:
    """A `TaskModel` as `eosfm.inference.predict` sees it: chips in, class probabilities or values out.

    Raises:
        ConfigError: a model of several dates; a scene has one.
    """

    stride = 1

    def __init__(
        self, model: TaskModel, fingerprint: str, precision: Precision = "fp32", *, release: bool = False
    ) -> None:
        """``release``: see `eosfm.engine.fused.fused`; ``model`` is of no other use then."""
        require_maps(model.task, "a map of a scene")
        self.model, self.fingerprint = model.fast(precision, release=release), fingerprint + _SUFFIX[precision]
        self.bands: BandSet = model.encoder.bands
        self.statistics = model.encoder.statistics
        self.chip_size = model.task.chip_size
        self.kind = _kind(model.task.kind)
        self.names = model.task.classes
        self.engine = _engine(self.model.encoder)

    def chips(self, x: Tensor) -> Tensor:
        """``(b, k, chip, chip)`` of ``x`` ``(b, c, chip, chip)``; scene labels cover their whole chip."""
        return _maps(self.model.task.kind, self.model(x), x)


class SceneFeatures:
    """One level of an ensemble's fused pyramid, as `eosfm.inference.predict` sees it."""

    kind = "features"

    def __init__(
        self, ensemble: Ensemble, level: int, chip_size: int, fingerprint: str, precision: Precision = "fp32", *,
        release: bool = False,
    ) -> None:  # fmt: skip
        """``release``: see `eosfm.engine.fused.fused`; ``ensemble`` is of no other use then."""
        cpu = ensemble.gates.device.type == "cpu"
        self.encoder = fused(ensemble, precision=precision, release=release) if cpu else ensemble
        self.level, self.chip_size, self.fingerprint = level, chip_size, fingerprint + _SUFFIX[precision]
        self.bands, self.statistics = ensemble.bands, ensemble.statistics
        self.stride = 4 * 2**level
        self.names = tuple(f"feature_{i:03d}" for i in range(ensemble.out_channels[level]))
        self.engine = _engine(self.encoder)

    def chips(self, x: Tensor) -> Tensor:
        """``(b, channels, chip/stride, chip/stride)`` fused features."""
        with torch.no_grad():
            features: Pyramid = self.encoder(x)
        return features[self.level]


class SceneExport:
    """An exported model as `eosfm.inference.predict` sees it: a task's maps, or one ``level`` of an ensemble's features.

    Raises:
        ConfigError: maps asked of features, or features of a task.
    """

    def __init__(self, exported: Exported, level: int | None = None) -> None:
        card = exported.card
        if (card.kind == FEATURES) != (level is not None):
            other = (
                "features, which `eosfm embed` writes"
                if level is None
                else "a task's maps, which `eosfm predict` writes"
            )
            raise ConfigError(f"{exported.folder} is an export that gives {other}")
        self.exported, self.level = exported, level or 0
        self.bands, self.statistics, self.chip_size = exported.bands, card.statistics, card.chip_size
        self.fingerprint = exported.fingerprint
        self.engine = f"{card.format}, {card.precision}"
        self.kind = "features" if card.kind == FEATURES else _kind(card.kind)
        if not self.level < len(card.outputs):
            raise ConfigError(f"{exported.folder} has no level {level}; it has {len(card.outputs)}")
        out = card.outputs[self.level]
        self.stride = out.stride if self.kind == "features" and out.stride else 1
        self.names = tuple(f"feature_{i:03d}" for i in range(out.channels)) if self.kind == "features" else card.classes

    def chips(self, x: Tensor) -> Tensor:
        """As `SceneTaskModel.chips` or `SceneFeatures.chips`."""
        out = self.exported(x)[self.level]
        return out if self.kind == "features" else _maps(self.exported.card.kind, out, x)


def _engine(encoder: nn.Module) -> str:
    """What computes, for people."""
    if not isinstance(encoder, Fused):
        return "PyTorch"
    slow = f"; {', '.join(encoder.plain)} unfused" if encoder.plain else ""
    return f"fast plan, {encoder.kernels} kernels, {encoder.precision}{slow}"


def _kind(task: str) -> str:
    # multi-label maps have no single winner: they are written as one probability band per class
    return "classes" if task in ("segmentation", "classification") else "values"


def _maps(task: str, z: Tensor, x: Tensor) -> Tensor:
    """Probabilities or values of logits ``z`` over the pixels of ``x``; the label of a scene covers its whole chip."""
    p = probabilities(task, z)
    return p if p.ndim == 4 else p[..., None, None].expand(-1, -1, *x.shape[-2:])
