"""torchgeo-bench (0.4): ``torchgeo-bench run model=imagestats model._target_=eosfm.outward.torchgeo_bench.EosEnsemble ...``

The class has the face of torchgeo-bench's ``BenchModel`` (torchgeo_bench/models/interface.py) without deriving from it, so
that it exists without torchgeo-bench. docs/outward.md has the whole command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from eosfm.contracts import PYRAMID_STRIDES, BandError, ConfigError
from eosfm.outward.guest import Guest, assemble
from eosfm.outward.inputs import named_bands, require_consistent
from eosfm.specialists.encoder import MIN_SIZE, pad
from eosfm.statistics import BandStatistics

NAMES = {
    "coastal_aerosol": "coastal",
    "swir_cirrus": "cirrus",
    "red_edge_4": "B8A",
    "r": "red",
    "g": "green",
    "b": "blue",
}
"""torchgeo-bench's words for bands that `eosfm.bands` calls otherwise"""


class BandSpec(Protocol):
    """What is read of a ``torchgeo_bench.datasets.base.BandSpec``; statistics are of the training split, in raw values."""

    @property
    def sensor(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...


class EosEnsemble(nn.Module):
    """An ensemble under torchgeo-bench's probes: pooled vectors for scenes, four named layers for segmentation.

    Args:
        bands: of the data set, from torchgeo-bench, which also gives their statistics.
        normalization: torchgeo-bench's; only "identity" leaves values in their units, every other one is refused.
        zoo: a zoo, a stored ensemble, or a list of specialists' folders.
        inputs: torchgeo-bench's sensor -> "SENSOR@UNIT" ({"s2": "sentinel-2-l1c@dn-1e4"}); it knows neither.
        rename: a band's name in torchgeo-bench -> what it is; see `eosfm.outward.inputs.named_bands`.
        specialists: names, where not all of the zoo.
        leave_out: names of specialists that saw the data set.
        levels: that vectors are pooled from, fine to coarse, 0-3.
        trust_names: use names and units that the data set's statistics contradict.
        name: of the row; torchgeo-bench reads it from its configuration.
        eval: torchgeo-bench's overrides per model; it reads them from its configuration.

    Raises:
        ConfigError: a normalisation under which units are unknown, or levels that do not exist.
        BandError: a band that nobody declared, or that the statistics contradict.
    """

    def __init__(
        self,
        bands: Sequence[BandSpec],
        normalization: str = "bandspec_zscore",
        *,
        zoo: str | Sequence[str],
        inputs: Mapping[str, str],
        rename: Mapping[str, str] | None = None,
        specialists: Sequence[str] | None = None,
        leave_out: Sequence[str] = (),
        levels: Sequence[int] = tuple(range(len(PYRAMID_STRIDES))),
        trust_names: bool = False,
        name: str = "eosfm",
        eval: Mapping[str, object] | None = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        if str(normalization) != "identity":
            raise ConfigError(
                f"dataset.normalization={normalization!s}: eosfm converts units and standardises itself, view by view, and "
                "needs the data set's raw values. Run it with dataset.normalization=identity"
            )
        if not levels or not set(levels) <= set(range(len(PYRAMID_STRIDES))):
            raise ConfigError(f"levels {list(levels)}; expected some of 0 to {len(PYRAMID_STRIDES) - 1}")
        self.bands, self.num_channels, self.normalization = list(bands), len(bands), str(normalization)
        self.name, self.levels = name, tuple(levels)
        words = {b.name: NAMES[b.name] for b in bands if b.name in NAMES}
        known_as = named_bands([(b.sensor, b.name) for b in bands], inputs, {**words, **(rename or {})})
        statistics = BandStatistics(mean=tuple(b.mean for b in bands), std=tuple(b.std for b in bands))
        if not trust_names:
            require_consistent(known_as, statistics, [b.min for b in bands], [b.max for b in bands])
        ensemble = assemble(zoo, known_as, statistics, specialists=specialists, leave_out=leave_out)
        # torchgeo-bench feeds noise to learn shapes, so values are checked by the statistics alone
        self.guest = Guest(ensemble, "none", statistics, check_values=False)
        self.stride4, self.stride8, self.stride16, self.stride32 = (nn.Identity() for _ in PYRAMID_STRIDES)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """One vector ``(b, k)`` per image of raw ``images`` ``(b, c, h, w)``: the mean of each level, side by side.

        Raises:
            BandError: layers are read for segmentation, and the sides are no multiples of 32.
        """
        layers = (self.stride4, self.stride8, self.stride16, self.stride32)
        h, w = images.shape[-2:]
        if any(m._forward_hooks for m in layers) and (h % MIN_SIZE or w % MIN_SIZE):
            raise BandError(
                f"images of ({h}, {w}): maps for segmentation need sides that are multiples of {MIN_SIZE}, or they would not "
                "lie on the labels; set dataset.image_size"
            )
        pyramid = self.guest(pad(images))
        maps = [layer(m) for layer, m in zip(layers, pyramid, strict=True)]
        return torch.cat([maps[i].mean((-2, -1)) for i in self.levels], 1)

    def forward_patch_features(self, images: Tensor) -> Tensor:
        """`BenchModel.forward_patch_features`: the same as ``forward``."""
        out: Tensor = self(images)
        return out

    def normalize_inputs(self, images: Tensor) -> Tensor:
        """`BenchModel.normalize_inputs`: nothing is done before the views are made."""
        return images
