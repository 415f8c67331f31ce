"""What is exported: raw pixels in declared units -> logits or pyramid, as operators that every runtime has, for any size.

    unit conversion -> standardisation -> band selection -> specialists -> fusion -> head

The same weights and modules as the readable ensemble's, but for what a runtime cannot run with dynamic sizes: adaptive
pooling becomes two products with matrices that are made from the size of the map. Padding stays outside: height and width
must be multiples of 32.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from eosfm.adaptation import AdaptationPlan
from eosfm.contracts import ConfigError
from eosfm.ensemble import Ensemble
from eosfm.units import Unit, affine, convert


class View(nn.Module):
    """`eosfm.adaptation.adapt` for one plan, standardising first and selecting bands last.

    In this order every operator on raw values reads the graph's input and runs in float32 also where the rest runs in
    bf16, whose 8 bits cannot tell the digital numbers 10000 and 10030 apart.
    """

    centre: Tensor
    spread: Tensor
    index: Tensor
    stretch: Tensor
    shift: Tensor

    def __init__(self, plan: AdaptationPlan, bands: int) -> None:
        super().__init__()
        centre, spread = torch.zeros(bands, dtype=torch.float64), torch.ones(bands, dtype=torch.float64)
        stretch, shift = [], []
        logarithmic: dict[tuple[Unit, Unit], Tensor] = {}
        for j, (i, units) in enumerate(zip(plan.index, plan.convert, strict=True)):
            step = affine(*units)
            if step is None:
                logarithmic.setdefault(units, torch.zeros(1, bands, 1, 1, dtype=torch.bool))[0, i] = True
            scale, offset = step or (1.0, 0.0)
            mean, std = (plan.mean[j] - offset) / scale, plan.std[j] / scale
            if i not in plan.index[:j]:
                centre[i], spread[i] = mean, std
            stretch.append(float(spread[i]) / std)  # 1 and 0 unless a band is read twice under other statistics
            shift.append((float(centre[i]) - mean) / std)
        self.logarithmic = list(logarithmic)
        for number, channels in enumerate(logarithmic.values()):
            self.register_buffer(f"channels_{number}", channels)
        self.selects = plan.index != tuple(range(bands))
        self.restandardises = any(abs(a - 1) > 1e-12 or b for a, b in zip(stretch, shift, strict=True))
        for name, values in (("centre", centre), ("spread", spread), ("stretch", stretch), ("shift", shift)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("index", torch.tensor(plan.index))

    def forward(self, x: Tensor) -> Tensor:
        """``(b, len(plan.index), h, w)``; what is not finite becomes 0, the mean."""
        z = x
        for number, units in enumerate(self.logarithmic):
            z = torch.where(self.get_buffer(f"channels_{number}"), convert(x, *units), z)
        z = (z - self.centre) / self.spread
        known = z.isfinite()  # and where: OpenVINO has no nan_to_num
        if self.logarithmic:
            known = known & x.isfinite()  # OpenVINO clamps NaN to the smallest power, which is a number
        z = torch.where(known, z, torch.zeros_like(z))
        if self.selects:
            z = z.index_select(1, self.index)
        return z * self.stretch + self.shift if self.restandardises else z


class AdaptivePool(nn.Module):
    """``nn.AdaptiveAvgPool2d(bins)`` for maps whose size is known only when the graph runs."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """``(b, c, bins, bins)``: the mean over each cell."""
        return self._cells(x.shape[-2], x) @ x @ self._cells(x.shape[-1], x).transpose(0, 1)

    def _cells(self, length: int, like: Tensor) -> Tensor:
        """``(bins, length)``: row k averages positions ``floor(k * length / bins)`` to ``ceil((k + 1) * length / bins)``."""
        at = torch.arange(length, device=like.device)
        k = torch.arange(self.bins, device=like.device)
        first = torch.div(k * length, self.bins, rounding_mode="floor")[:, None]
        after = torch.div((k + 1) * length + self.bins - 1, self.bins, rounding_mode="floor")[:, None]
        inside = ((at >= first) & (at < after)).to(like.dtype)
        return inside / (after - first).to(like.dtype)


class Graph(nn.Module):
    """Everything from raw pixels to the output, in evaluation mode. Made by `graph_of`."""

    def __init__(self, ensemble: Ensemble, head: nn.Module | None) -> None:
        super().__init__()
        self.views = nn.ModuleList(View(plan, len(ensemble.bands)) for plan in ensemble.views)
        self.encoders, self.encoder_of = ensemble.encoders, list(ensemble._encoder_of)
        self.fusion, self.head = ensemble.fusion, head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """One tensor of logits, or the four levels, from ``x`` ``(b, c, h, w)``, ``h`` and ``w`` multiples of 32."""
        pyramids = [self.encoders[e](view(x)) for e, view in zip(self.encoder_of, self.views, strict=True)]
        levels = self.fusion(pyramids, None)
        return tuple(levels) if self.head is None else (self.head(levels),)


def graph_of(ensemble: Ensemble, head: nn.Module | None = None) -> Graph:
    """The graph of ``ensemble``, and of the ``head`` over it if there is one; the originals stay as they are.

    Raises:
        ConfigError: a view is ablated or a selection is being learnt, which would leave dead weights in the graph.
    """
    if bool((ensemble.gates != 1).any()) or ensemble.selector is not None:
        raise ConfigError(
            "some views are ablated or still being chosen, and would be carried along dead: export pruned(...) instead"
        )
    graph = deepcopy(Graph(ensemble, head)).cpu().float().eval().requires_grad_(False)
    for module in list(graph.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and isinstance(child.output_size, int):
                setattr(module, name, AdaptivePool(child.output_size))
    return graph
