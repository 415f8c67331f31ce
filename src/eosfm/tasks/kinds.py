"""The kinds of task and the label that is never scored. Needs no torch, so commands and cards can name them."""

KINDS = ("segmentation", "classification", "multilabel", "regression")
IGNORE = 255
"""Segmentation label of pixels that are neither trained on nor scored."""
