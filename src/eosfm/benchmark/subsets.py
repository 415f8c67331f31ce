"""Limited labels: a part of the training chips whose classes are distributed as in the whole, as PANGAEA draws it.

PANGAEA (pangaea/utils/subset_sampler.py, strategy "stratified"): the share of every class in a chip falls into one of
three equal bins; chips that fall into the same bin for every class are a stratum; of each stratum
``int(max(1, size * fraction))`` chips are drawn.

Where ours differs: the draw has a random stream of its own, so nothing else changes it; indices come back sorted;
labels of whole chips work too (a class is a share of 0 or 1, so each class or combination of classes is a stratum).
For regression PANGAEA loses the chip with the largest mean and stops at an empty bin; ours puts the one into the last
bin and leaves the other out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError
from eosfm.seeding import purpose_seed
from eosfm.tasks.kinds import IGNORE, KINDS

BINS = 3


@dataclass(frozen=True)
class LabelSubset:
    """Which chips keep their labels, and how close that came to what was asked."""

    indices: tuple[int, ...]
    asked: float
    drawn: float
    """share of all chips; above ``asked`` where many strata hold fewer than ``1 / asked`` chips, for each gives at least one"""
    strata: int


def class_shares(kind: str, labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """``(n, classes)``: the share of each class in each chip, ignored pixels left out; ``(n, 1)`` mean for regression.

    Args:
        kind: one of `eosfm.tasks.kinds.KINDS`.
        labels: ``(n, h, w)`` for pixels, ``(n,)`` or ``(n, classes)`` for scenes, those of `eosfm.tasks.boxes` for things.
        classes: how many.

    Raises:
        DataError: an unknown kind, labels of another shape, or regression chips without one finite value.
    """
    pixels = {"segmentation": 3, "regression": 3, "classification": 1, "multilabel": 2, "detection": 3, "instances": 4}
    if kind not in pixels:
        raise DataError(f"unknown task kind {kind!r}; known: {', '.join(KINDS)}")
    if labels.ndim != pixels[kind] or len(labels) == 0:
        raise DataError(f"{kind} labels have {pixels[kind]} dimensions and one chip or more; got shape {labels.shape}")
    if kind == "detection":  # a class is in a chip or not
        return np.asarray((labels[:, :, :1] == np.arange(classes)).any(1), dtype=np.float64)
    if kind == "instances":
        held = [np.unique(y[1][y[0] > 0]) for y in labels]
        return np.asarray([np.isin(np.arange(classes), h) for h in held], dtype=np.float64)
    if kind == "multilabel":
        return np.asarray(labels != 0, dtype=np.float64)
    if kind == "regression":
        values = np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)
        finite = np.isfinite(values)
        if not finite.any(1).all():
            raise DataError(f"{int((~finite.any(1)).sum())} chips have no finite value; leave them out before drawing")
        return np.asarray(np.where(finite, values, 0.0).sum(1) / finite.sum(1), dtype=np.float64)[:, None]
    flat = labels.reshape(len(labels), -1)
    counts = np.stack([(flat == c).sum(1) for c in range(classes)], 1)
    known_pixels = (flat != IGNORE).sum(1, keepdims=True) if kind == "segmentation" else np.ones((len(flat), 1))
    return np.asarray(counts / np.maximum(1, known_pixels), dtype=np.float64)


def stratified(kind: str, shares: NDArray[np.float64], fraction: float, seed: int, *, bins: int = BINS) -> LabelSubset:
    """Draw ``fraction`` of the chips of every stratum of ``shares`` (from `class_shares`), at least one of each.

    Equal arguments, equal subset. A regression's means are binned between their extremes, class shares between 0 and 1.

    Raises:
        DataError: a fraction outside 0-1, or shares that are not ``(n, k)`` finite numbers.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"label fraction {fraction}; expected above 0 and at most 1, for example 0.1")
    if shares.ndim != 2 or not len(shares) or not np.isfinite(shares).all():
        raise DataError(f"shares of shape {shares.shape}; expected (chips, classes) of finite numbers")
    n, strata = len(shares), _strata(shares, bins, spread=kind == "regression")
    if fraction == 1:
        return LabelSubset(tuple(range(n)), 1.0, 1.0, len(strata))
    rng = np.random.default_rng(purpose_seed(seed, "label-fraction", round(fraction * 1e6)))
    drawn: list[int] = []
    for members in strata:
        drawn += rng.choice(members, int(max(1, len(members) * fraction)), replace=False).tolist()
    return LabelSubset(tuple(sorted(drawn)), fraction, len(drawn) / n, len(strata))


def _strata(shares: NDArray[np.float64], bins: int, *, spread: bool) -> list[list[int]]:
    low, high = (shares.min(), shares.max()) if spread else (0.0, 1.0)
    number = np.digitize(shares, np.linspace(low, high, bins + 1)) - 1
    if spread:
        number = np.minimum(number, bins - 1)
    # Otherwise a share of exactly 1 has a bin of its own, as in PANGAEA.
    strata: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(number):
        strata.setdefault(tuple(row.tolist()), []).append(i)
    return list(strata.values())
