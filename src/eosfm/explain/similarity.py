"""Which specialists say the same: centred kernel alignment (CKA, Kornblith et al. 2019) between their features.

The linear kind, with the unbiased estimate of Song et al. (2012, HSIC_1), so that few samples of many channels do not look
alike by chance. 1: the same up to rotation and scale; 0: unrelated (an estimate may fall slightly below).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.contracts import DataError
from eosfm.data.chips import ChipSet
from eosfm.ensemble import Ensemble
from eosfm.explain.contributions import players
from eosfm.specialists.encoder import pad
from eosfm.training.settings import Progress

Array = NDArray[np.float64]
SAMPLES = 2000


@dataclass(frozen=True)
class Similarity:
    """CKA of each pair of specialists, mean over the levels of the pyramid."""

    names: tuple[str, ...]
    matrix: Array
    """``(n, n)``, symmetric, 1 on the diagonal"""
    samples: int

    def pairs(self) -> list[tuple[float, str, str]]:
        """All pairs, the most alike first."""
        n = len(self.names)
        found = [(float(self.matrix[i, j]), self.names[i], self.names[j]) for i in range(n) for j in range(i)]
        return sorted(found, reverse=True)


def similarity(
    ensemble: Ensemble, chips: ChipSet, *, samples: int = SAMPLES, seed: int = 0, progress: Progress | None = None
) -> Similarity:
    """CKA between the specialists of ``ensemble`` on ``chips``: at each level, at ``samples`` random pixels of it.

    Args:
        ensemble: its untrained or trained fusion plays no part; features before the fusion are compared.
        chips: labels are not looked at.
        samples: pixels per level (fewer where a level has fewer).
        seed: of the pixels.
        progress: called after each batch.

    Raises:
        DataError: fewer than 4 samples, of which nothing can be said.
    """
    names, groups = players(ensemble)
    rows = _sampled(ensemble, chips, groups, samples, seed, progress)
    count = min(len(level[0]) for level in rows)
    if count < 4:
        raise DataError(f"{chips.name}: {count} pixels at the coarsest level; CKA needs at least 4. Give more chips.")
    return Similarity(tuple(names), np.mean([cka_matrix(level) for level in rows], axis=0), len(rows[0][0]))


def cka_matrix(features: Sequence[Array]) -> Array:
    """CKA of each pair of ``(samples, channels)`` features of the same samples; NaN where one is constant."""
    centred = [_unbiased(f) for f in features]
    n = len(centred[0])
    hsic = np.array([[_hsic(a, b, n) for b in centred] for a in centred])
    own = np.diag(hsic)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = hsic / np.sqrt(np.outer(own, own))
    return np.where(np.outer(own, own) > 0, out, np.nan)


def _unbiased(f: Array) -> Array:
    """The kernel of ``f``, U-centred (Székely & Rizzo 2014): inner products of such are unbiased HSIC."""
    f = f - f.mean(0)
    k = f @ f.T
    np.fill_diagonal(k, 0.0)
    n = len(k)
    rows = k.sum(0) / (n - 2)
    k = k - rows[:, None] - rows[None] + k.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(k, 0.0)
    return np.asarray(k)


def _hsic(a: Array, b: Array, n: int) -> float:
    return float((a * b).sum() / (n * (n - 3)))


def _sampled(
    ensemble: Ensemble, chips: ChipSet, groups: Sequence[Sequence[int]], samples: int, seed: int,
    progress: Progress | None,
) -> list[list[Array]]:  # fmt: skip
    """Per level and specialist ``(samples, channels of its views)``, at the same random pixels for all."""
    g = torch.Generator().manual_seed(seed)
    per_chip = max(1, -(-samples // len(chips)))
    parts: list[list[list[Tensor]]] = []
    with torch.inference_mode():
        for i in range(0, len(chips), 16):
            x, _ = chips.batch(range(i, min(i + 16, len(chips))))
            pyramids = ensemble.encode(pad(x))
            levels = []
            for level in range(len(pyramids[0])):
                b, _, h, w = pyramids[0][level].shape
                at = torch.stack([torch.randperm(h * w, generator=g)[:per_chip] for _ in range(b)])
                picked = [p[level].flatten(2).transpose(1, 2) for p in pyramids]
                rows = torch.arange(b)[:, None]
                levels.append([torch.cat([picked[v][rows, at] for v in views], 2).flatten(0, 1) for views in groups])
            parts.append(levels)
            if progress:
                progress(min(1.0, (i + 16) / len(chips)), f"features of {chips.name}")
    count = range(len(parts[0]))
    return [
        [torch.cat([p[level][s] for p in parts])[:samples].double().numpy() for s in range(len(groups))]
        for level in count
    ]
