"""Labels are checked before they are learnt from: a value outside the classes is an error, never a class."""

from __future__ import annotations

import torch
from torch import Tensor

from eosfm.contracts import DataError
from eosfm.tasks.kinds import IGNORE


def require_labels(kind: str, y: Tensor, classes: int, where: str) -> None:
    """`DataError` for labels outside ``0..classes-1`` (255 is ignore in segmentation), naming the values and ``where``."""
    if kind == "regression":
        return
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
