"""An `Ensemble` run fast: folded weights, one image of one view per thread, fusion by accumulation.

    fast = fused(ensemble, precision="bf16")
    pyramid = fast(x)              # what ensemble(x) gives, up to rounding: see `Fused`

With the compiled kernels (`eosfm.engine.native`), where they are built, a part of the views of an image is one call.

Specialists that are ablated or pruned cost nothing. The concatenation of all views is never made, so memory does not grow
with their number. Gradients still flow to the fusion.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.adaptation import adapt
from eosfm.bands import BandSet
from eosfm.contracts import PYRAMID_CHANNELS, ConfigError, Pyramid
from eosfm.engine import native
from eosfm.engine.folded import EPS, Body, Maps, Patches, Stem, as_map, encode, fold_body, fold_stem, onednn, stem_map
from eosfm.engine.streams import each
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import Fusion
from eosfm.specialists.encoder import FrozenEncoder

Precision = Literal["fp32", "bf16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Kernels = Literal["auto", "library", "native"]


class _Folded:
    """A specialist's weights without those of a view."""

    def __init__(self, encoder: FrozenEncoder, dtype: torch.dtype) -> None:
        stem = fold_stem(encoder, None, encoder.in_channels, dtype)
        assert stem is not None  # without a plan there is no conversion that could not be folded
        self.stem: Stem = stem
        self.body: Body = fold_body(encoder, dtype)


class _Released(nn.Module):
    """In place of an encoder whose weights only the plan has."""

    def forward(self, x: Tensor) -> Pyramid:  # noqa: ARG002
        raise ConfigError("this ensemble gave its weights to a fast plan, and runs by that plan only; load it again")


class Fused(nn.Module):
    """The fast plan of an ensemble; satisfies the `Encoder` protocol. Made by `fused`.

    float32: equal to the ensemble up to 1e-5 of each level's norm. bf16: cosine above 0.9999; features and fusion are
    computed in bf16 and accumulated in float32. The fusion is the ensemble's own module: training it trains both. The
    specialists' weights are copied when this is made. Specialists of other architectures than ConvNeXtV2-Atto run as they
    are, in float32: `plain` names them.
    """

    def __init__(
        self, ensemble: Ensemble, precision: Precision, views: native.Views | None, release: bool = False
    ) -> None:
        super().__init__()
        dtype = DTYPES[precision]
        self.ensemble, self.precision, self.dtype, self._native = ensemble, precision, dtype, views
        self._folded: list[_Folded | None] = []
        stems: dict[int, Stem | None] = {}
        for number, encoder in enumerate(ensemble.encoders):
            if not isinstance(encoder, FrozenEncoder):
                self._folded.append(None)
                continue
            self._folded.append(_Folded(encoder, dtype))
            for v, plan in enumerate(ensemble.views):
                if ensemble._encoder_of[v] == number:
                    stems[v] = fold_stem(encoder, plan, len(ensemble.bands), dtype)
            if release:
                ensemble.encoders[number] = _Released()
        if release:
            _give_back()
        self._stems = [stems.get(v) for v in range(len(ensemble.views))]
        self._known: tuple[list[Tensor], Mixes] | None = None

    @property
    def kernels(self) -> str:
        """Whose code does the work: "native" (`views.cpp`) or "library" (PyTorch's operators, one by one)."""
        return "library" if self._native is None else "native"

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
        fusion = self.ensemble.fusion
        if torch.is_grad_enabled() or fusion.training or not fusion.linear:
            return self.ensemble.fuse(self.encode(x))  # what is trained, or is no sum, needs all views at once
        self.ensemble._check(x)
        finite, mixes, images = _finite(x), self._mixes(), torch.split(x.float(), 1)
        active = [v for v, gate in enumerate(self.ensemble.gates_now().tolist()) if gate]
        parts = _parts(len(x), len(active))
        out = self._zeros(x)

        def part(job: tuple[int, int]) -> Maps:
            number, first = job
            # one part writes its sum where it belongs; several of one image are added in their order when all are there
            total = [m[number] for m in out] if parts == 1 else [m[0] for m in self._zeros(images[number])]
            self._add(images[number], active[first::parts], mixes, finite, [t.flatten(0, 1) for t in total])
            return total

        sums = each(part, [(n, first) for n in range(len(x)) for first in range(parts)])
        for n in range(len(x)) if parts > 1 else ():
            for total in sums[n * parts : (n + 1) * parts]:
                for whole, t in zip(out, total, strict=True):
                    whole[n] += t
        for whole, offset in zip(out, mixes.offsets, strict=True):
            if offset is not None:
                whole += offset
        return [m.permute(0, 3, 1, 2) for m in out]

    def _zeros(self, x: Tensor) -> list[Tensor]:
        """A fused pyramid to add to, ``(b, h, w, c)``."""
        sizes = zip(self.out_channels, _sizes(x), strict=True)
        return [x.new_zeros(len(x), h, w, c, dtype=torch.float32) for c, (h, w) in sizes]

    def encode(
        self, x: Tensor, views: Sequence[int] | None = None, dtype: torch.dtype = torch.float32
    ) -> list[Pyramid]:
        """See `Ensemble.encode`. All views, zeros for those whose gate is 0; or ``views``, whatever their gates."""
        self.ensemble._check(x)
        if not len(x):
            return self.ensemble.encode(x)
        finite, gates, images = _finite(x), self.ensemble.gates_now(), torch.split(x.float(), 1)
        wanted = range(len(gates)) if views is None else views
        active = [v for v in wanted if views is not None or gates.requires_grad or float(gates[v]) != 0.0]

        parts = _parts(len(x), len(active))

        def part(job: tuple[int, int]) -> list[tuple[tuple[int, int], Maps]]:
            number, first = job
            image, cut = images[number], Patches(images[number])
            mine = active[first::parts]
            fast = self._at_once(mine, finite)
            maps = self._call(image, fast, [], []) if fast else []
            done = {v: maps[4 * i : 4 * i + 4] for i, v in enumerate(fast)}
            return [
                ((v, number), [m.to(dtype) for m in done.get(v) or self._view(image, cut, v, finite)]) for v in mine
            ]

        made = dict(pair for done in each(part, [(n, i) for n in range(len(x)) for i in range(parts)]) for pair in done)
        sizes, widths = _sizes(x), self.ensemble.fusion.widths
        return [
            [torch.cat([as_map(made[v, n][i], *size) for n in range(len(x))]) for i, size in enumerate(sizes)]
            if v in active
            else [x.new_zeros(len(x), c, *size, dtype=dtype) for c, size in zip(widths[v], sizes, strict=True)]
            for v in wanted
        ]

    def _add(self, image: Tensor, views: list[int], mixes: Mixes, finite: bool, total: Maps) -> None:
        """Add to ``total`` what ``views`` add to the fused pyramid of one image, without the offsets."""
        cut, fast = Patches(image), self._at_once(views, finite)
        if fast:
            self._call(image, fast, [w for v in fast for w in mixes.weights[v]], total)
        for v in (v for v in views if v not in fast):
            maps = self._view(image, cut, v, finite)
            if self.ensemble.fusion.normalise == "layer":
                maps = [F.layer_norm(m, (m.shape[1],), eps=EPS) for m in maps]
            for t, m, weight in zip(total, maps, mixes.weights[v], strict=True):
                t += F.linear(m, weight)

    def _view(self, image: Tensor, cut: Patches, view: int, finite: bool) -> Maps:
        """The pyramid of one image (``cut``: its patches) under one view, in this plan's precision."""
        encoder, stem, plan = self.ensemble._encoder_of[view], self._stems[view], self.ensemble.views[view]
        folded = self._folded[encoder]
        if folded is None:
            pyramid: Pyramid = self.ensemble.encoders[encoder](adapt(image, plan))
            return [m[0].permute(1, 2, 0).flatten(0, 1).to(self.dtype) for m in pyramid]
        if stem is None or not finite:  # what is not finite becomes the mean, which differs from view to view
            cut, stem = Patches(adapt(image, plan)), folded.stem
        h, w = _sizes(image)[0]
        return encode(stem_map(cut, stem), folded.body.low, folded.body.high, h, w)

    def _at_once(self, views: Sequence[int], finite: bool) -> list[int]:
        """Those of ``views`` that the native kernels can take."""
        if self._native is None or not finite:
            return []
        return [
            v for v in views if self._stems[v] is not None and self._folded[self.ensemble._encoder_of[v]] is not None
        ]

    def _call(self, image: Tensor, views: list[int], mixes: list[Tensor], total: Maps) -> Maps:
        """`views.cpp`: the pyramids of ``views`` one after the other, or with ``mixes`` nothing but their sum in ``total``."""
        assert self._native is not None
        stems = [s for v in views if (s := self._stems[v]) is not None]
        bodies = [f.body for v in views if (f := self._folded[self.ensemble._encoder_of[v]]) is not None]
        return self._native(
            image.contiguous(), [s.channels for s in stems], [s.weight for s in stems], [s.bias for s in stems],
            [torch.cat([s.scale, s.shift]).float() for s in stems], [b.low for b in bodies], [b.high for b in bodies],
            [b.taps for b in bodies], mixes, total, self.ensemble.fusion.normalise == "layer",
        )  # fmt: skip

    def _mixes(self) -> Mixes:
        """The fusion as it is now; made again when a weight, a running mean or a gate has changed."""
        fusion, gates = self.ensemble.fusion, self.ensemble.gates_now().detach()
        # by value: a fused optimiser changes weights without a new version, and so does whoever writes to `.data`
        state = [gates, *(t.detach() for t in fusion.parameters()), *fusion.buffers()]
        if self._known is None or not all(map(torch.equal, self._known[0], state)):
            with torch.autocast(gates.device.type, enabled=False):
                self._known = [t.clone() for t in state], fold_fusion(fusion, gates, self.dtype)
        return self._known[1]


@dataclass(frozen=True)
class Mixes:
    """A linear fusion as matrices: a view's map times ``weights[view][level]``, summed over views, plus ``offsets[level]``."""

    weights: list[Maps]
    offsets: list[Tensor | None]


def fold_fusion(fusion: Fusion, gates: Tensor, dtype: torch.dtype) -> Mixes:
    """Gates and, where they are fixed numbers, norms of a `Fusion` that is linear, folded into its weights."""
    offsets, weights = [fusion.offset(i) for i in range(len(PYRAMID_CHANNELS))], []
    for view, gate in enumerate(gates):
        row = []
        for level, c in enumerate(fusion.widths[view]):
            # a part is linear in its map: of the unit vectors it gives its matrix
            matrix = fusion.part(level, view, torch.eye(c, device=gate.device).view(c, c, 1, 1), gate).view(c, -1).T
            norm = fusion.norms[view][level]  # type: ignore[index]
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None and norm.running_var is not None
                matrix = matrix * torch.rsqrt(norm.running_var + norm.eps)
                shift = -(matrix @ norm.running_mean)
                offsets[level] = shift if (o := offsets[level]) is None else o + shift
            row.append(matrix.to(dtype).contiguous())
        weights.append(row)
    return Mixes(weights, offsets)


def _parts(images: int, views: int) -> int:
    """Into how many parts the views of an image are divided: twice as many as threads in all, so that threads end together.

    Which views make a part does not depend on time, so nor does the order of a sum.
    """
    return max(1, min(views, -(-2 * torch.get_num_threads() // max(1, images))))


def _give_back() -> None:
    """Hand freed memory back to the system at once: glibc keeps it, and two copies of all weights would stay resident."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _finite(x: Tensor) -> bool:
    """Whether every value is finite; False also where only their sum is not. Needs no memory of the size of ``x``."""
    return bool(x.sum().isfinite())


def _sizes(x: Tensor) -> list[tuple[int, int]]:
    """Height and width of each level of the pyramid of ``x``."""
    h, w = x.shape[-2:]
    return [(h // (4 << i), w // (4 << i)) for i in range(len(PYRAMID_CHANNELS))]


def fused(
    ensemble: Ensemble, *, precision: Precision = "fp32", kernels: Kernels = "auto", release: bool = False
) -> Fused:
    """The fast plan of ``ensemble``.

    Args:
        ensemble: stays usable, and shares its fusion with the plan.
        precision: "fp32", or "bf16" where a cosine of 0.9999 is enough.
        kernels: "native" asks for the compiled ones (`eosfm kernels` builds them), "library" for PyTorch's operators; "auto"
            takes the first where they are built and the encoders are on a CPU, else the second.
        release: drop the encoders' own weights, which else stay beside the plan's: the ensemble then runs by this plan only.

    Raises:
        ConfigError: an unknown precision or kind of kernels; native ones that are not built or cannot run here.
    """
    if precision not in DTYPES:
        raise ConfigError(f"unknown precision {precision!r}; known: {', '.join(DTYPES)}")
    if kernels not in get_args(Kernels):
        raise ConfigError(f"unknown kernels {kernels!r}; known: {', '.join(get_args(Kernels))}")
    possible = ensemble.gates.device.type == "cpu" and onednn(DTYPES[precision])
    if kernels == "native" and not possible:
        raise ConfigError(f"native kernels need the ensemble on a CPU, and oneDNN in {precision}; take library")
    wanted = kernels == "native" or (kernels == "auto" and possible and native.built())
    return Fused(ensemble, precision, native.load() if wanted else None, release)
