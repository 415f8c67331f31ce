"""An `Ensemble` run fast: folded weights, one image of one view at a time, fusion by accumulation.

    fast = fused(ensemble, precision="bf16", compile=True)
    pyramid = fast(x)              # what ensemble(x) gives, up to rounding: see `Fused`

Specialists that are ablated or pruned cost nothing. The concatenation of all views is never made, so memory does not grow
with their number. Gradients still flow to the fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from eosfm.adaptation import adapt
from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, Pyramid
from eosfm.engine.folded import Body, Stem, encode, fold_body, fold_stem, stem_map
from eosfm.ensemble import Ensemble
from eosfm.specialists.encoder import FrozenEncoder

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Encode = Callable[[Tensor, Body], Pyramid]


class Fused(nn.Module):
    """The fast plan of an ensemble; satisfies the `Encoder` protocol. Made by `fused`.

    float32: equal to the ensemble up to 1e-5 of each level's norm. bf16: cosine above 0.9999; features and fusion are
    computed in bf16 and accumulated in float32. The fusion is the ensemble's own module: training it trains both. The
    specialists' weights are copied when this is made.
    """

    def __init__(self, ensemble: Ensemble, precision: Precision, run: Encode) -> None:
        super().__init__()
        dtype = DTYPES[precision]
        self.ensemble, self.precision, self.dtype, self._run = ensemble, precision, dtype, run
        encoders = [e for e in ensemble.encoders if isinstance(e, FrozenEncoder)]
        self._bodies: list[Body] = [fold_body(e, dtype) for e in encoders]
        self._plain: list[Stem] = [s for e in encoders if (s := fold_stem(e, None, dtype)) is not None]
        self._stems: list[Stem | None] = [
            fold_stem(encoders[e], plan, dtype) for e, plan in zip(ensemble._encoder_of, ensemble.views, strict=True)
        ]

    @property
    def bands(self) -> BandSet:
        """What channel ``i`` of the input is."""
        return self.ensemble.bands

    @property
    def out_channels(self) -> list[int]:
        """Channels per level, fine to coarse."""
        return self.ensemble.out_channels

    def forward(self, x: Tensor) -> Pyramid:
        """See `Ensemble.forward`; float32 maps."""
        self.ensemble._check(x)
        fusion, gates = self.ensemble.fusion, self._gates()
        if not fusion.linear or (fusion.training and fusion.normalise == "batch"):
            return self.ensemble.fuse(self.encode(x))  # needs all views, or the whole batch, at once
        finite = bool(x.isfinite().all())
        images: list[Pyramid] = []
        for image in torch.split(x.float(), 1):
            total: Pyramid = []
            for view, gate in enumerate(gates):
                if gate.requires_grad or float(gate) != 0.0:
                    added = self._part(view, self._view(image, view, finite), gate)
                    total = [t + a for t, a in zip(total, added, strict=True)] if total else added
            images.append(total or self._nothing(image))
        levels = [torch.cat(level) for level in zip(*images, strict=True)]
        offsets = [fusion.offset(i) for i in range(len(levels))]
        return [m if b is None else m + b.view(1, -1, 1, 1) for m, b in zip(levels, offsets, strict=True)]

    def encode(self, x: Tensor) -> list[Pyramid]:
        """See `Ensemble.encode`; float32 maps, zeros for views whose gate is 0."""
        self.ensemble._check(x)
        finite, gates = bool(x.isfinite().all()), self._gates()
        out = []
        for view, gate in enumerate(gates):
            if gate.requires_grad or float(gate) != 0.0:
                images = [self._view(image, view, finite) for image in torch.split(x.float(), 1)]
                out.append([torch.cat(level).float() for level in zip(*images, strict=True)])
            else:
                out.append([m.new_zeros(len(x), *m.shape[1:]) for m in self._nothing(x[:1], fused=False)])
        return out

    def _gates(self) -> Tensor:
        selector = self.ensemble.selector
        return self.ensemble.gates if selector is None else self.ensemble.gates * selector()

    def _view(self, image: Tensor, view: int, finite: bool) -> Pyramid:
        """The pyramid of one image under one view, in this plan's precision."""
        encoder, stem = self.ensemble._encoder_of[view], self._stems[view]
        with torch.no_grad():
            if stem is None or not finite:  # what is not finite becomes the mean, which differs from view to view
                image, stem = adapt(image, self.ensemble.views[view]), self._plain[encoder]
            return self._run(stem_map(image, stem), self._bodies[encoder])

    def _part(self, view: int, pyramid: Pyramid, gate: Tensor) -> Pyramid:
        fusion, out = self.ensemble.fusion, []
        for level, m in enumerate(pyramid):
            with torch.autocast(m.device.type, self.dtype, enabled=self.precision == "bf16"):
                norm = fusion.norms[view][level]  # type: ignore[index]
                out.append(fusion.part(level, view, norm(m), gate).float())
        return out

    def _nothing(self, image: Tensor, *, fused: bool = True) -> Pyramid:
        """Zeros of the shape of a pyramid."""
        h, w = image.shape[-2:]
        channels: Sequence[int] = self.out_channels if fused else (40, 80, 160, 320)
        return [
            image.new_zeros(1, c, h // (4 << i), w // (4 << i), dtype=torch.float32) for i, c in enumerate(channels)
        ]


def fused(ensemble: Ensemble, *, precision: Precision = "fp32", compile: bool = False) -> Fused:
    """The fast plan of ``ensemble``.

    Args:
        ensemble: stays usable, and shares its fusion with the plan.
        precision: "fp32", or "bf16" where a cosine of 0.9999 is enough.
        compile: compile the encoder by `torch.compile` (once for all specialists, at the first image of each size;
            tens of seconds, cached on disk by PyTorch). Needs a C++ compiler on a CPU.

    Raises:
        ConfigError: an unknown precision.
    """
    if precision not in DTYPES:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(DTYPES)}")
    return Fused(ensemble, precision, _compiled() if compile else encode)


def _compiled() -> Encode:
    run: Encode = torch.compile(encode, dynamic=False)
    return run
