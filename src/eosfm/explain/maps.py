"""Pictures of attribution: which specialist carried each pixel's decision, and what each specialist sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.contracts import DataError
from eosfm.ensemble import Ensemble
from eosfm.explain.contributions import SubsetScorer, players
from eosfm.specialists.encoder import pad

NOBODY = 255
"""in a map of carriers: no specialist supports the decision"""


def carriers(scorer: SubsetScorer, chips: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Per pixel the specialist without which the winning class would lose most, and how much its logit would lose.

    For a regression: without which the value would change most. Scene labels have one decision: ``(n, 1, 1)`` maps.

    Args:
        scorer: of a model and data.
        chips: numbers of chips, a run without gaps.

    Returns:
        ``(n, h, w)`` numbers of specialists (`NOBODY` where all are against it), and the losses.
    """
    if len(scorer.names) >= NOBODY:
        raise DataError(f"{len(scorer.names)} specialists; a map of carriers has numbers for {NOBODY - 1}")
    full = _maps(scorer.logits(scorer.everything, chips))
    winner = full.argmax(1, keepdim=True)
    losses = []
    for i in range(len(scorer.names)):
        without = _maps(scorer.logits(scorer.everything - {i}, chips))
        loss = (full - without).gather(1, winner)[:, 0]
        losses.append(loss.abs() if scorer.chips.kind == "regression" else loss)
    most, who = torch.stack(losses).max(0)
    named = torch.where(most > 0, who, NOBODY)
    return named.to(torch.uint8).numpy(), most.clamp_min(0).numpy()


def _maps(z: Tensor) -> Tensor:
    return z if z.ndim == 4 else z[..., None, None]


def components(ensemble: Ensemble, x: Tensor, level: int = 0) -> dict[str, NDArray[np.uint8]]:
    """What each specialist sees in ``x``: the first three principal components of its features as red, green and blue.

    Components are those of all images together, each stretched between its 2nd and 98th percentile. Signs and order of
    components mean nothing, so colours can be compared within one specialist only.

    Args:
        ensemble: of the specialists.
        x: ``(b, c, h, w)`` in the ensemble's bands and units.
        level: of the pyramid; 0 is the finest, at a quarter of the resolution.

    Returns:
        Name -> ``(b, h / stride, w / stride, 3)`` uint8.
    """
    names, groups = players(ensemble)
    pyramids = ensemble.encode(pad(x))
    stride = 4 * 2**level
    h, w = -(-x.shape[-2] // stride), -(-x.shape[-1] // stride)
    out = {}
    for name, views in zip(names, groups, strict=True):
        f = torch.cat([pyramids[v][level] for v in views], 1)[..., :h, :w].permute(0, 2, 3, 1)
        out[name] = _rgb(f.flatten(0, 2).double().numpy()).reshape(len(x), h, w, 3)
    return out


def _rgb(rows: NDArray[np.float64]) -> NDArray[np.uint8]:
    """``(pixels, channels)`` features as ``(pixels, 3)`` colours."""
    centred = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 4000)], full_matrices=False)
    axes = axes[:3] * np.sign(axes[:3].sum(1, keepdims=True))  # the sign is arbitrary: fix it, so that pictures repeat
    p = np.zeros((len(rows), 3))
    p[:, : len(axes)] = centred @ axes.T
    low, high = np.percentile(p, [2, 98], axis=0)
    return np.asarray(255 * np.clip((p - low) / np.maximum(high - low, 1e-12), 0, 1), np.uint8)
