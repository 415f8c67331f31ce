"""Labels are checked before they are learnt from: a value outside the classes is an error, never a class."""

from __future__ import annotations

import torch
from torch import Tensor

from eosfm.contracts import DataError
from eosfm.tasks.boxes import require_boxes, require_instances
from eosfm.tasks.kinds import IGNORE


def label_shape(kind: str, classes: int, size: tuple[int, int]) -> tuple[int | None, ...]:
    """Of one chip of ``size``; None where chips differ."""
    shapes: dict[str, tuple[int | None, ...]] = {
        "classification": (), "multilabel": (classes,), "detection": (None, 5), "instances": (2, *size),
    }  # fmt: skip
    return shapes.get(kind, size)


def shown(shape: tuple[int | None, ...]) -> str:
    """As a message has it: ``(2, any, 5)``."""
    return f"({', '.join('any' if s is None else str(s) for s in shape)})"


def fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether a label of ``shape`` is one of `label_shape`."""
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))


def require_labels(kind: str, y: Tensor, classes: int, where: str, size: tuple[int, int] = (0, 0)) -> None:
    """`DataError` for labels outside ``0..classes-1`` (255 is ignore in segmentation), naming the values and ``where``.

    ``size`` ``(h, w)`` is that of the chips, which boxes must not leave.
    """
    if kind == "regression":
        return
    if kind == "detection":
        return require_boxes(y, classes, size, where)
    if kind == "instances":
        return require_instances(y, classes, where)
    if y.is_floating_point() and kind != "multilabel":
        raise DataError(f"{where}: labels are {y.dtype}; expected integers 0 to {classes - 1}")
    top = 1 if kind == "multilabel" else classes - 1
    values = torch.unique(y)
    legal = (values >= 0) & (values <= top) & (values == values.round())
    if kind == "segmentation":
        legal |= values == IGNORE
    if not bool(legal.all()):
        bad = ", ".join(str(v) for v in values[~legal].tolist()[:5])
        raise DataError(
            f"{where}: label values {bad} are outside the {classes} classes 0 to {top} ({IGNORE} is ignored)"
        )
