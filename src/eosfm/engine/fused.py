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


class _Folded:
    """A specialist's weights without those of a view."""

    def __init__(self, encoder: FrozenEncoder, dtype: torch.dtype) -> None:
        stem = fold_stem(encoder, None, dtype)
        assert stem is not None  # without a plan there is no conversion that could not be folded
        self.stem: Stem = stem
        self.body: Body = fold_body(encoder, dtype)


class Fused(nn.Module):
    """The fast plan of an ensemble; satisfies the `Encoder` protocol. Made by `fused`.

    float32: equal to the ensemble up to 1e-5 of each level's norm. bf16: cosine above 0.9999; features and fusion are
    computed in bf16 and accumulated in float32. The fusion is the ensemble's own module: training it trains both. The
    specialists' weights are copied when this is made. Specialists of other architectures than ConvNeXtV2-Atto run as they
    are, in float32: `plain` names them.
    """

    def __init__(self, ensemble: Ensemble, precision: Precision, run: Encode) -> None:
        super().__init__()
        dtype = DTYPES[precision]
        self.ensemble, self.precision, self.dtype, self._run = ensemble, precision, dtype, run
        self._folded = [_Folded(e, dtype) if isinstance(e, FrozenEncoder) else None for e in ensemble.encoders]
        self._stems: list[Stem | None] = [
            fold_stem(encoder, plan, dtype) if isinstance(encoder := ensemble.encoders[e], FrozenEncoder) else None
            for e, plan in zip(ensemble._encoder_of, ensemble.views, strict=True)
        ]

    @property
    def plain(self) -> list[str]:
        """The specialists that cannot be folded, so that this plan is not faster for them."""
        return [c.name for c, f in zip(self.ensemble.cards, self._folded, strict=True) if f is None]

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
            images.append(total or self._nothing(image, self.out_channels))
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
                widths = self.ensemble.fusion.widths[view]
                out.append([m.new_zeros(len(x), *m.shape[1:]) for m in self._nothing(x[:1], widths)])
        return out

    def _gates(self) -> Tensor:
        selector = self.ensemble.selector
        return self.ensemble.gates if selector is None else self.ensemble.gates * selector()

    def _view(self, image: Tensor, view: int, finite: bool) -> Pyramid:
        """The pyramid of one image under one view, in this plan's precision."""
        encoder, stem = self.ensemble._encoder_of[view], self._stems[view]
        folded, plan = self._folded[encoder], self.ensemble.views[view]
        with torch.no_grad():
            if folded is None:
                pyramid: Pyramid = self.ensemble.encoders[encoder](adapt(image, plan))
                return pyramid
            if stem is None or not finite:  # what is not finite becomes the mean, which differs from view to view
                image, stem = adapt(image, plan), folded.stem
            return self._run(stem_map(image, stem), folded.body)

    def _part(self, view: int, pyramid: Pyramid, gate: Tensor) -> Pyramid:
        fusion, out = self.ensemble.fusion, []
        for level, m in enumerate(pyramid):
            with torch.autocast(m.device.type, self.dtype, enabled=self.precision == "bf16"):
                norm = fusion.norms[view][level]  # type: ignore[index]
                out.append(fusion.part(level, view, norm(m), gate).float())
        return out

    def _nothing(self, image: Tensor, channels: Sequence[int]) -> Pyramid:
        """Zeros of the shape of a pyramid."""
        h, w = image.shape[-2:]
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
