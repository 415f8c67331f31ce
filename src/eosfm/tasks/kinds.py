"""The kinds of task and the label that is never scored. Needs no torch, so commands and cards can name them."""

KINDS = ("segmentation", "classification", "multilabel", "regression", "detection", "instances")
OBJECTS = ("detection", "instances")
"""kinds whose labels are single things: boxes (`eosfm.tasks.boxes`), or boxes with their pixels"""
IGNORE = 255
"""Segmentation label of pixels that are neither trained on nor scored."""
