"""Drawn labels and predictions of things, for scores."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from eosfm.tasks.boxes import CELLS, stacked, things

SIDE, CLASSES = 64, 3


def drawn(rng: np.random.Generator, instances: bool, digits: int = 2) -> tuple[Tensor, Tensor]:
    """A chip's label, and predictions that are near it, far from it, doubled and of wrong classes."""
    y = np.zeros((2, SIDE, SIDE), np.int64)
    boxes = []
    for number in range(1, rng.integers(0, 6) + 1):
        x, top, w, h = rng.integers(0, 40, 2).tolist() + rng.integers(4, 24, 2).tolist()
        c = int(rng.integers(CLASSES))
        y[0, top : top + h, x : x + w], y[1, top : top + h, x : x + w] = number, c
        boxes.append([c, x, top, x + w, top + h])
    label = torch.from_numpy(y) if instances else torch.tensor(boxes, dtype=torch.float32).reshape(-1, 5)
    theirs, classes, _ = things(label)
    rows = []
    for box, c in zip(theirs.tolist(), classes.tolist(), strict=True):
        for _ in range(rng.integers(0, 3)):
            near = np.array(box) + rng.normal(0, 2, 4)
            near = np.clip([*np.minimum(near[:2], near[2:] - 2), *near[2:]], 0, SIDE)
            rows.append([c if rng.random() < 0.8 else (c + 1) % CLASSES, round(rng.random(), digits), *near])
    for _ in range(rng.integers(0, 4)):
        x, top = rng.uniform(0, 50, 2)
        rows.append([int(rng.integers(CLASSES)), round(rng.random(), digits), x, top, x + 9, top + 7])
    out = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    if instances:
        cells = torch.from_numpy(rng.random((len(out), CELLS**2)) * 0.6 + 0.35).float()
        out = torch.cat([out, cells], 1)
    return out, label


def drawn_batch(kind: str, seed: int, n: int) -> tuple[Tensor, Tensor]:
    """Predictions and labels of ``n`` chips; no two scores are equal, so that the chips' order does not matter."""
    rng = np.random.default_rng(seed)
    rows = [drawn(rng, kind == "instances", digits=12) for _ in range(n)]
    return stacked([p for p, _ in rows]), stacked([y for _, y in rows])
