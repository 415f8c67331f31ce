"""The kinds of task and the label that is never scored. Needs no torch, so commands and cards can name them."""

import re
from collections.abc import Sequence

KINDS = ("segmentation", "classification", "multilabel", "regression", "detection", "instances")
DETECTORS = {"detection": "faster-rcnn", "instances": "mask-rcnn"}
OBJECTS = tuple(DETECTORS)
"""kinds whose labels are single things: boxes (`eosfm.tasks.boxes`), or boxes with their pixels"""
IGNORE = 255
"""Segmentation label of pixels that are neither trained on nor scored."""


def require_colours(colours: Sequence[str], classes: Sequence[str]) -> None:
    """`ValueError` unless there is one "#rrggbb" for each of ``classes``, or none at all."""
    good = all(re.fullmatch("#[0-9a-fA-F]{6}", c) for c in colours)
    if colours and (len(colours) != len(classes) or not good):
        raise ValueError(
            f"colours {tuple(colours)}: expected one '#rrggbb' for each of {len(classes)} classes, or none"
        )
