"""Loss, metrics and predictions of each kind of task: one visible table, `OBJECTIVES`.

Labels: segmentation ``(b, h, w)`` int64 with 255 ignored; classification ``(b,)`` int64; multilabel ``(b, k)`` 0/1;
regression ``(b, h, w)`` float with NaN ignored; detection and instances as in `eosfm.tasks.boxes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import segmentation_models_pytorch.losses as smp_losses
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError, R2Score
from torchmetrics.utilities import dim_zero_cat

from eosfm.contracts import ConfigError, known
from eosfm.tasks.kinds import IGNORE, KINDS, OBJECTS
from eosfm.tasks.precision import OVERLAPS, average_precision, matched_chip

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """How one kind of task is trained and scored."""

    losses: tuple[str, ...]
    """the first is the default"""
    monitor: str
    """validation metric that picks the best checkpoint"""
    higher_is_better: bool


OBJECTIVES: dict[str, Objective] = {
    "segmentation": Objective(("cross-entropy", "dice", "cross-entropy+dice", "focal", "lovasz"), "miou", True),
    "classification": Objective(("cross-entropy", "focal"), "accuracy", True),
    "multilabel": Objective(("binary-cross-entropy",), "map", True),
    "regression": Objective(("mse", "l1", "huber"), "rmse", False),
    "detection": Objective(("faster-rcnn",), "map-boxes", True),
    "instances": Objective(("mask-rcnn",), "map-masks", True),
}
assert tuple(OBJECTIVES) == KINDS


def make_loss(kind: str, name: str | None = None, class_weights: Sequence[float] | None = None) -> Loss:
    """The loss called ``name`` (default: the first of the kind). A batch with nothing to learn from gives exactly 0.

    Raises:
        ConfigError: an unknown kind or loss, or class weights for a loss without classes.
    """
    if kind not in OBJECTIVES:
        raise ConfigError(f"unknown task kind {kind!r}; {known(OBJECTIVES)}")
    name = name or OBJECTIVES[kind].losses[0]
    if name not in OBJECTIVES[kind].losses:
        raise ConfigError(f"loss {name!r} is not for {kind}; {known(OBJECTIVES[kind].losses)}")
    if class_weights is not None and name not in ("cross-entropy", "cross-entropy+dice", "binary-cross-entropy"):
        raise ConfigError(f"class weights have no meaning for loss {name!r}")
    weight = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
    if kind == "regression":
        return _regression_loss(name)
    if kind in OBJECTS:
        return lambda z, _: z  # the head computes it, because what it proposes depends on the labels
    if kind == "multilabel":
        return lambda z, y: F.binary_cross_entropy_with_logits(z, y.float(), pos_weight=_to(weight, z))
    ignore = IGNORE if kind == "segmentation" else -100  # class 255 of a large classification is a class
    dice = smp_losses.DiceLoss("multiclass", ignore_index=IGNORE) if "dice" in name else None
    other = {"focal": smp_losses.FocalLoss, "lovasz": smp_losses.LovaszLoss}.get(name)
    special = other("multiclass", ignore_index=IGNORE) if other else None

    def loss(z: Tensor, y: Tensor) -> Tensor:
        if bool((y == ignore).all()) or (weight is not None and not bool((_to(weight, z)[y[y != ignore]] > 0).any())):  # type: ignore[index]
            return z.sum() * 0.0  # keeps the graph; the mean over no pixels, or over weight 0, would be NaN
        parts: list[Tensor] = []
        if name.startswith("cross-entropy"):
            parts.append(F.cross_entropy(z, y, weight=_to(weight, z), ignore_index=ignore))
        if dice is not None:
            parts.append(dice(z, y))
        if special is not None:
            parts.append(special(z, y))
        return torch.stack(parts).sum()

    return loss


def _to(weight: Tensor | None, like: Tensor) -> Tensor | None:
    return None if weight is None else weight.to(like)


def _regression_loss(name: str) -> Loss:
    pick = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}[name]

    def loss(z: Tensor, y: Tensor) -> Tensor:
        ok = y.isfinite()
        return pick(z[:, 0][ok], y[ok]) if bool(ok.any()) else z.sum() * 0.0

    return loss


def make_metrics(kind: str, classes: int) -> MetricCollection:
    """Torchmetrics of a kind. ``miou`` is the macro mean over classes present in labels or predictions."""
    metrics: dict[str, Metric | MetricCollection]
    if kind == "segmentation":
        metrics = {
            "miou": MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORE),
            "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE),
            "f1": MulticlassF1Score(classes, average="macro", ignore_index=IGNORE),
        }
    elif kind == "classification":
        metrics = {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "f1": MulticlassF1Score(classes, average="macro"),
        }
    elif kind == "multilabel":
        metrics = {
            "map": MultilabelAveragePrecision(classes, average="macro"),
            "f1": MultilabelF1Score(classes, average="micro"),
        }
    elif kind in OBJECTS:
        metrics = {OBJECTIVES[kind].monitor: ObjectPrecision()}
    else:
        metrics = {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError(), "r2": R2Score()}
    return MetricCollection(metrics)


def update_metrics(metrics: MetricCollection, kind: str, z: Tensor, y: Tensor) -> None:
    """Add a batch of logits ``z`` and labels ``y`` to ``metrics``, leaving ignored pixels out."""
    if kind == "regression":
        ok = y.isfinite()
        if bool(ok.any()):
            metrics.update(z[:, 0][ok], y[ok])
    elif kind == "multilabel":
        metrics.update(z.sigmoid(), y.long())
    elif kind in OBJECTS:
        metrics.update(z, y)
    else:
        metrics.update(z.argmax(1), y)


class ObjectPrecision(Metric):
    """`average_precision` over the batches of an epoch: of masks where the predictions have them, else of boxes."""

    full_state_update = False
    higher_is_better = True
    matches: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("matches", default=[], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Add a batch; see `eosfm.tasks.boxes`."""
        for rows, y in zip(predictions.detach().cpu(), labels.cpu(), strict=True):
            self.matches.append(torch.from_numpy(matched_chip(rows, y)).to(self.device))

    def compute(self) -> Tensor:
        """0 where no thing was labelled and none was found."""
        rows = dim_zero_cat(self.matches).cpu().numpy() if len(self.matches) else np.zeros((0, 12))
        value = average_precision(rows, masks=rows.shape[1] > 2 + len(OVERLAPS))
        return torch.tensor(0.0 if np.isnan(value) else value)
