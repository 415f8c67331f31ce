"""Labels and predictions of single things: boxes, and maps of instances. Plain tensors, so that they travel as others do.

Boxes are ``(x1, y1, x2, y2)`` in pixels of the chip, x to the right, y down, the outer edges: a box around the first pixel
is ``(0, 0, 1, 1)``. Rows that hold nothing have class -1: chips have different numbers of things.

* label of a ``detection`` chip: ``(m, 5)`` float32, class and box
* label of an ``instances`` chip: ``(2, h, w)`` integers: a number above 0 for each thing (0: none), and its class
* prediction: ``(b, m, 6)``, class, score (0-1) and box; of instances ``(b, m, 6 + 28 * 28)``, with the probability of each cell
  of the box to belong to the thing
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eosfm.contracts import DataError

NONE = -1
"""class of a row that holds nothing"""
CELLS = 28
"""side of the grid of a predicted mask (Mask R-CNN's)"""
BOX, SCORE, MASK = slice(2, 6), 1, 6
"""columns of a prediction; class is column 0"""


def stacked(labels: Sequence[Tensor]) -> Tensor:
    """Labels of several chips as one tensor; lists of boxes of different lengths are filled up with `NONE`.

    >>> stacked([torch.zeros(2, 5), torch.zeros(0, 5)]).shape
    torch.Size([2, 2, 5])
    """
    if len({y.shape for y in labels}) == 1:
        return torch.stack(list(labels))
    most = max(len(y) for y in labels)
    return torch.stack([filled(y, most) for y in labels])


def joined_labels(batches: Sequence[Tensor]) -> Tensor:
    """`torch.cat` of labels of batches, where lists of boxes may have different lengths."""
    if len({y.shape[1:] for y in batches}) == 1:
        return torch.cat(list(batches))
    most = max(y.shape[1] for y in batches)
    return torch.cat([torch.stack([filled(one, most) for one in y]) for y in batches])


def filled(rows: Tensor, length: int) -> Tensor:
    """``rows`` ``(m, k)`` with rows of `NONE` up to ``length``."""
    more = rows.new_full((length - len(rows), rows.shape[1]), NONE)
    return torch.cat([rows, more])


def require_boxes(y: Tensor, classes: int, size: tuple[int, int], where: str) -> None:
    """`DataError` unless ``y`` ``(..., m, 5)`` holds boxes of the ``classes`` with an area, inside chips of ``size``."""
    held = y[y[..., 0] != NONE]
    if y.shape[-1] != 5 or not bool(held.isfinite().all()):
        raise DataError(f"{where}: boxes {tuple(y.shape)}; expected finite rows of class, x1, y1, x2, y2")
    c, x1, y1, x2, y2 = held.unbind(-1)
    legal = (c >= 0) & (c < classes) & (c == c.round())
    if not bool(legal.all()):
        raise DataError(f"{where}: class {c[~legal][0].item():g} of a box; expected 0 to {classes - 1}")
    h, w = size
    inside = (x1 >= 0) & (y1 >= 0) & (x2 <= w) & (y2 <= h) & (x2 > x1) & (y2 > y1)
    if not bool(inside.all()):
        bad = ", ".join(f"{v:g}" for v in held[~inside][0, 1:].tolist())
        raise DataError(f"{where}: box {bad}; expected x1 < x2 <= {w} and y1 < y2 <= {h}, in pixels from 0")


def require_instances(y: Tensor, classes: int, where: str) -> None:
    """`DataError` unless ``y`` ``(..., 2, h, w)`` numbers things from 1, each of one class."""
    number, c = y[..., 0, :, :], y[..., 1, :, :]
    things = number > 0
    if y.is_floating_point() or bool((number < 0).any()):
        raise DataError(f"{where}: instances are {y.dtype}; expected integers from 0 (none)")
    if bool(((c[things] < 0) | (c[things] >= classes)).any()):
        raise DataError(f"{where}: class {int(c[things].max())} of an instance; expected 0 to {classes - 1}")
    for chip in y.reshape(-1, 2, *y.shape[-2:]):
        pairs: Tensor = torch.unique(chip[:, chip[0] > 0], dim=1)
        if pairs.shape[1] != len(torch.unique(pairs[0])):
            raise DataError(f"{where}: an instance has pixels of two classes; expected one class for each")


def things(y: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Boxes ``(n, 4)``, classes ``(n,)`` and, of instances, masks ``(n, h, w)`` of one chip's label.

    A box of an instance reaches from its first to behind its last pixel. GEO-Bench-2's package ends it at the last one.
    """
    if y.ndim == 2:
        held = y[y[:, 0] != NONE]
        return held[:, 1:].float(), held[:, 0].long(), None
    numbers = torch.unique(y[0])
    masks = y[0] == numbers[numbers > 0][:, None, None]
    classes = [int(y[1][m][0]) for m in masks]
    boxes = [_around(m) for m in masks]
    return (
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(classes, dtype=torch.long),
        masks,
    )


def _around(mask: Tensor) -> list[float]:
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return [float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1]


def turned_boxes(y: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """Boxes ``(m, 5)`` of a chip of ``size``, moved as `eosfm.engine.cache.turned` moves its picture."""
    h, w = size
    out = y.clone()
    held = y[:, 0] != NONE
    x1, y1, x2, y2 = y[held, 1:].unbind(1)
    for _ in range(orientation % 4):  # a quarter to the left: what was right is up
        x1, y1, x2, y2 = y1, w - x2, y2, w - x1
        h, w = w, h
    if orientation >= 4:
        x1, x2 = w - x2, w - x1
    out[held, 1:] = torch.stack([x1, y1, x2, y2], 1)
    return out
