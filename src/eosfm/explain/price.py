"""What a task model costs: parameters, bytes, multiply-adds, milliseconds. Pruned models are measured, not estimated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from eosfm.ensemble import Ensemble
from eosfm.tasks.model import TaskModel


@dataclass(frozen=True)
class Price:
    """Costs of one model for one chip of its size."""

    specialists: int
    views: int
    parameters: int
    """of specialists, fusion and head"""
    trained_parameters: int
    """of fusion and head"""
    bytes: int
    """of all weights on disk: what has to be sent to run the model elsewhere"""
    macs: int
    """multiply-adds for one chip"""
    milliseconds: float
    """median forward of one chip on this machine"""


def prices(models: Sequence[TaskModel], *, repeats: int = 7, batch: int = 1) -> list[Price]:
    """The price of each model. Latencies are measured in turns, so that a wandering clock is fair to all.

    Args:
        models: task models around ensembles.
        repeats: forwards of each, after one that warms up.
        batch: chips per forward; milliseconds are per forward.
    """
    inputs = [_chip(m, batch) for m in models]
    times: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for m, x, t in zip(models, inputs, times, strict=True):
                start = time.perf_counter()
                m(x)
                if turn:
                    t.append(time.perf_counter() - start)
    return [_price(m, x[:1], 1000 * statistics.median(t)) for m, x, t in zip(models, inputs, times, strict=True)]


def _chip(model: TaskModel, batch: int) -> Tensor:
    ensemble = model.eval().encoder
    assert isinstance(ensemble, Ensemble)
    size = model.task.chip_size
    means = ensemble.statistics.mean if ensemble.statistics is not None else (0.0,) * len(ensemble.bands)
    return torch.tensor(means).repeat(model.task.dates).view(1, -1, 1, 1).expand(batch, -1, size, size).contiguous()


def _price(model: TaskModel, x: Tensor, milliseconds: float) -> Price:
    ensemble = model.encoder
    assert isinstance(ensemble, Ensemble)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(x)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    own = sum(t.numel() * t.element_size() for t in model.trainable_tensors().values())
    return Price(
        specialists=len(ensemble.cards),
        views=len(ensemble.views),
        parameters=sum(p.numel() for p in model.parameters()),
        trained_parameters=trained,
        bytes=own + sum(c.weights.bytes for c in ensemble.cards),
        macs=int(counter.get_total_flops()) // 2,
        milliseconds=milliseconds,
    )
