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
    out, on = [], [gates.requires_grad or bool(g) for g in gates]
    for level, row in enumerate(rows):
        conv = fusion.convs[level]
        weight, bias = conv.weight, conv.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        with torch.autocast(row.device.type, enabled=False):  # small, and worth its digits
            both, total = row.float() @ weight.flatten(1).float(), (row.float() @ bias.float())[:, None]
            both = both * torch.cat([g.expand(w[level]) for g, w in zip(gates, fusion.widths, strict=True)])
        maps = [norms[level](pyramid[level]) for norms, pyramid in zip(fusion.norms, pyramids, strict=True)]  # type: ignore[index]
        kept = [v for v in range(len(maps)) if on[v]]  # of the others exactly nothing, also where a view gives NaN
        side = pyramids[0][level].shape[-2:]
        if kept:
            features = side_by_side([maps[v] for v in kept]).flatten(2)
            mine = torch.cat([both[:, fusion._columns(level, v)] for v in kept], 1).to(features.dtype)
            total = torch.bmm(mine.expand(len(features), -1, -1), features).float() + total
        out.append(total.expand(len(maps[0]), -1, side.numel()).reshape(len(maps[0]), -1, *side))
    return out
