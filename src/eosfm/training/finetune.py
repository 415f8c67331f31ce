"""Full fine-tuning: an ensemble's encoders are copied, and the copies train with fusion and head. Frozen ones stay frozen.

What a benchmark compares a frozen ensemble with. The result is no `Ensemble`: its encoders are no specialists of a zoo any
more, so it is scored and not stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from torch import Tensor, nn

from eosfm.adaptation import adapt
from eosfm.contracts import Pyramid
from eosfm.data.chips import Splits
from eosfm.ensemble import Ensemble
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.backbone import AnyEncoder, FrozenBackbone
from eosfm.specialists.encoder import ConvNeXtV2Atto
from eosfm.tasks.model import TaskModel, TaskSpec
from eosfm.training.fit import require_dates
from eosfm.training.module import fit
from eosfm.training.settings import FitConfig, FitResult, Progress


class Trainable(nn.Module):
    """An ensemble with copies of its encoders that train. Starts with the very features of the ensemble it was made of.

    Its encoders are called ``members``: a checkpoint leaves out what is called ``encoders``, because that never changes.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.bands, self.views, self._member_of = ensemble.bands, ensemble.views, list(ensemble._encoder_of)
        self.members = nn.ModuleList(_trainable(e) for e in ensemble.encoders)  # type: ignore[arg-type]
        self.fusion = deepcopy(ensemble.fusion)
        self.register_buffer("gates", ensemble.gates.clone(), persistent=False)

    @property
    def out_channels(self) -> list[int]:
        """Channels per level, fine to coarse."""
        return self.fusion.out_channels

    def forward(self, x: Tensor) -> Pyramid:
        """See `Ensemble.forward`."""
        return self.fuse(self.encode(x))

    def encode(self, x: Tensor) -> list[Pyramid]:
        """One pyramid per view, with gradients."""
        return [self.members[m](adapt(x, plan)) for m, plan in zip(self._member_of, self.views, strict=True)]

    def fuse(self, pyramids: Sequence[Pyramid]) -> Pyramid:
        """See `Ensemble.fuse`."""
        assert isinstance(self.gates, Tensor)
        fused: Pyramid = self.fusion(pyramids, self.gates)
        return fused


class _TrainableBackbone(FrozenBackbone):
    train = nn.Module.train


def _trainable(encoder: AnyEncoder) -> nn.Module:
    """A copy that trains; ``encoder`` is left as it is."""
    if isinstance(encoder, FrozenBackbone):
        new = deepcopy(encoder)
        new.__class__ = _TrainableBackbone  # same weights, same names
        return new.requires_grad_(True)
    with seeded(0):  # what is drawn here is replaced; nobody's random state must move
        own = ConvNeXtV2Atto(encoder.in_channels)
    own.load_tensors(encoder.tensors(), "copy")
    return own


def fine_tune(
    ensemble: Ensemble, splits: Splits, task: TaskSpec, config: FitConfig, *, run: Path, progress: Progress | None = None,
    label: str = "fine-tune",
) -> tuple[TaskModel, FitResult]:  # fmt: skip
    """Train copies of all encoders, the fusion and the head: one optimiser and one learning rate for every parameter.

    The head starts as that of `eosfm.training.fit.adapt_ensemble` with the same seed. The test split is not looked at.
    """
    require_dates(task, splits)
    with seeded(purpose_seed(config.seed, "head")):
        model = TaskModel(Trainable(ensemble), task)
    result = fit(
        model, task.kind, len(task.classes), splits.train, splits.validation, config, folder=run, progress=progress, label=label,
        short=True,
    )  # fmt: skip
    return model, result
