"""Average precision of things, as COCO counts it: what each chip adds to it, and the score of many chips.

A prediction is matched to the thing that it overlaps most, the surest first, each thing once, at ten overlaps from 0.50 to
0.95. Precision is made monotone over recall and read at 101 recalls; the mean is over overlaps and over classes that occur
in the labels (Lin et al. 2014; ``tests/tasks/test_precision.py`` compares it with pycocotools).

A chip's matches are rows ``(m, 2 + 10 * kinds of overlap)``: class, score, 1 where the prediction is right at each overlap;
of instances the ten of boxes and then the ten of masks. A thing of the labels is a row whose score is NaN. Rows that hold
nothing have class -1. So a table of chips can be resampled, and nothing has to be matched again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.tasks.boxes import BOX, NONE, SCORE, things

Array = NDArray[Any]
OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""predictions of a class in a chip that count"""


def matched_chip(rows: Tensor, y: Tensor) -> Array:
    """The matches of one chip: predictions ``rows`` ``(m, 6)`` or ``(m, 6 + 28 * 28)``, and its label ``y``."""
    rows = rows.detach()[rows[:, 0] != NONE]
    rows = rows[rows[:, SCORE].argsort(descending=True, stable=True)]
    boxes, classes, masks = things(y)
    overlaps = [_box_overlaps(rows[:, BOX], boxes)]
    if masks is not None:
        from eosfm.tasks.detection import pasted  # torchvision takes a second to import

        overlaps.append(_mask_overlaps(pasted(rows, (y.shape[-2], y.shape[-1])), masks))
    n, columns = len(OVERLAPS), 2 + len(OVERLAPS) * len(overlaps)
    out = np.full((len(rows) + len(classes), columns), np.nan)
    out[: len(rows), 0], out[: len(rows), 1] = rows[:, 0].numpy(), rows[:, SCORE].numpy()
    out[len(rows) :, 0] = classes.numpy()
    for k, overlap in enumerate(overlaps):
        right = out[: len(rows), 2 + k * n : 2 + (k + 1) * n]
        right[:] = 0
        for c in np.unique(out[: len(rows), 0]):
            mine, theirs = np.nonzero(out[: len(rows), 0] == c)[0], np.nonzero(classes.numpy() == c)[0]
            right[mine[:MOST]] = _greedy(overlap[np.ix_(mine[:MOST], theirs)])
            right[mine[MOST:]] = np.nan
    kept: Array = out[~np.isnan(out[:, 2:]).any(1) | np.isnan(out[:, 1])]
    return kept


def _greedy(overlap: Array) -> Array:
    """``(m, 10)``: whether each prediction, the surest first, finds a thing that no surer one has taken."""
    out = np.zeros((len(overlap), len(OVERLAPS)))
    for t, least in enumerate(OVERLAPS):
        free = np.ones(overlap.shape[1], bool)
        for i, row in enumerate(overlap):
            candidates = np.where(free, row, -1.0)
            if candidates.size and candidates.max() >= min(least, 1 - 1e-10):
                last = len(candidates) - 1 - int(candidates[::-1].argmax())  # of equals the last, as COCO's code does
                free[last], out[i, t] = False, 1
    return out


def _box_overlaps(a: Tensor, b: Tensor) -> Array:
    a64, b64 = a.double(), b.double()
    low = torch.maximum(a64[:, None, :2], b64[None, :, :2])
    high = torch.minimum(a64[:, None, 2:], b64[None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area = [(t[:, 2:] - t[:, :2]).prod(-1) for t in (a64, b64)]
    return (both / (area[0][:, None] + area[1][None] - both)).numpy()


def _mask_overlaps(a: Tensor, b: Tensor) -> Array:
    x, y = a.flatten(1).double(), b.flatten(1).double()
    both = x @ y.T
    union = x.sum(1)[:, None] + y.sum(1)[None] - both
    return (both / union.clamp(min=1)).numpy()


def padded(chips: Sequence[Array]) -> Array:
    """The matches of several chips as one table ``(n, m, columns)``."""
    columns = max(c.shape[-1] for c in chips)
    out = np.full((len(chips), max(len(c) for c in chips), columns), float(NONE))
    for table, rows in zip(out, chips, strict=True):
        table[: len(rows)] = rows
    return out


def average_precision(table: Array, *, masks: bool = False, at: float | None = None) -> float:
    """Mean average precision of a table of matches, NaN where it has no thing.

    Args:
        table: ``(..., columns)``; the chips that rows come from do not matter any more.
        masks: by the overlap of masks instead of boxes.
        at: one overlap instead of the mean over ten.
    """
    rows = table.reshape(-1, table.shape[-1])
    rows = rows[rows[:, 0] != NONE]
    start = 2 + (len(OVERLAPS) if masks else 0)
    columns = [start + i for i, o in enumerate(OVERLAPS) if at is None or abs(o - at) < 1e-9]
    labelled = np.isnan(rows[:, 1])
    found = rows[~labelled]
    found = found[np.argsort(-found[:, 1], kind="stable")]
    out = []
    for c in np.unique(rows[labelled, 0]):
        count = int((rows[labelled, 0] == c).sum())
        right = found[found[:, 0] == c][:, columns]
        out.append(_area(right, count))
    return float(np.mean(out)) if out else float("nan")


def _area(right: Array, count: int) -> float:
    """Mean over overlaps (columns) of the precision at `RECALLS`; predictions the surest first, ``count`` things."""
    if not len(right):
        return 0.0
    hits = right.cumsum(0)
    recall = hits / count
    precision = hits / np.arange(1, len(right) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    out = []
    for r, p in zip(recall.T, precision.T, strict=True):
        at = np.searchsorted(r, RECALLS, side="left")
        out.append(np.append(p, 0.0)[np.minimum(at, len(p))].mean())
    return float(np.mean(out))
