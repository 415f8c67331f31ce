"""A fused pyramid that is only ever multiplied by few rows: those rows first, the same numbers for a fraction of the work.

A linear head on a linear fusion is a product of matrices, ``rows @ (weight @ features)``. With ``k`` rows, one per class,
``(rows @ weight) @ features`` reads each feature once and needs ``k`` instead of 40 to 320 outputs per pixel and level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from eosfm.contracts import Pyramid
from eosfm.fusion.fuse import Conv1x1, side_by_side


def projected(fusion: Conv1x1, pyramids: Sequence[Pyramid], gates: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
    """``rows[level]`` ``(k, c)`` times each fused map: ``(b, k, h, w)`` per level, in fp32. Gradients as without the detour."""
    learnt, values, out = gates.requires_grad, gates.tolist(), []
    kept = [v for v, g in enumerate(values) if learnt or g]  # of the others exactly nothing, also where they give NaN
    for level, row in enumerate(rows):
        conv = fusion.convs[level]
        weight, bias = conv.weight, conv.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        widths = [w[level] for w in fusion.widths]
        with torch.autocast(row.device.type, enabled=False):  # small, and worth its digits
            both, total = row.float() @ weight.flatten(1).float(), (row.float() @ bias.float())[:, None]
            if learnt or set(values) - {0.0, 1.0}:
                both = both * torch.cat([g.expand(w) for g, w in zip(gates, widths, strict=True)])
            if len(kept) < len(widths):
                both = torch.cat([both[:, fusion._columns(level, v)] for v in kept], 1) if kept else both[:, :0]
        maps = [norms[level](pyramid[level]) for norms, pyramid in zip(fusion.norms, pyramids, strict=True)]  # type: ignore[index]
        if kept:
            features = side_by_side([maps[v] for v in kept]).flatten(2)
            total = torch.bmm(both.to(features.dtype).expand(len(features), -1, -1), features).float() + total
        side = pyramids[0][level].shape[-2:]
        out.append(total.expand(len(maps[0]), -1, side.numel()).reshape(len(maps[0]), -1, *side))
    return out
