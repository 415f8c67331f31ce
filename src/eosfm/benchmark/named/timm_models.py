"""``timm:NAME``: any network of timm that gives feature maps, with its published weights. It reads red, green and blue.

Weights are read as safetensors from their place on the Hub (`eosfm.specialists.encoder.published_file`) and fitted in by timm
itself. The input's convention is timm's: mean and std of 8-bit pictures, mostly ImageNet's. A plain ViT gives four blocks
evenly spaced over its depth; position tables of weights for images above 256 pixels are interpolated to 224 by timm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.benchmark.backbones import Body, Built, spread
from eosfm.benchmark.readings import Name, Reading, choose
from eosfm.contracts import PYRAMID_STRIDES, ConfigError
from eosfm.seeding import seeded
from eosfm.specialists.backbone import stages
from eosfm.specialists.encoder import PublishedInput, other_architecture, published_file, published_input
from eosfm.statistics import BandStatistics

RGB = "rgb:R,G,B@8bit"
LARGE, COMMON = 256, 224
"""sides above the first are brought to the second: what GEO-Bench-2 and torchgeo-bench feed ViTs"""


class TimmBody(Body):
    """A ``features_only`` network of timm."""

    def __init__(self, name: str, seed: int, *, random: bool) -> None:
        super().__init__()
        given, architecture = published_input(name), name.partition(".")[0]
        side = given.side if given.side <= LARGE else COMMON
        file = None if random else _file(name, architecture)
        with torch.device("meta"):
            info = stages(other_architecture(architecture, 3, side))
        levels, plain = _levels(architecture, info)
        wanted = sorted(set(levels))
        with seeded(seed):
            self.network: nn.Module = other_architecture(architecture, 3, side, wanted, file)
        self._which = [wanted.index(i) for i in levels]
        self._last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        self.source = f"timm {given.version} {name}"
        self.how = f"{'blocks' if plain else 'maps'} {', '.join(map(str, levels))} of {len(info)}, from 0"
        self.side = None if _any_size(self, side) and not plain else side
        self.measure(3)

    def maps(self, x: Tensor) -> list[Tensor]:
        found = [m.permute(0, 3, 1, 2) if self._last else m for m in self.network(x)]
        return [found[i] for i in self._which]


def build(name: Name, available: BandSet, statistics: BandStatistics, size: tuple[int, int], seed: int) -> Built:  # noqa: ARG001
    """The network of ``name`` for this input.

    Raises:
        BandError: no red, green and blue.
        ConfigError: unknown to timm, no feature maps, or weights that cannot be had.
    """
    reading = reading_of(published_input(name.model))
    choose(name, [reading], available, statistics)  # before gigabytes are fetched
    return Built(TimmBody(name.model, seed, random=name.random), reading)


def reading_of(given: PublishedInput) -> Reading:
    """The convention of timm in 8-bit units."""
    if len(given.mean) != 3:
        raise ConfigError(f"timm's network reads {len(given.mean)} channels; only those of three are colour pictures")
    return Reading(
        BandSet.parse(RGB), tuple(255 * m for m in given.mean), tuple(255 * s for s in given.std), own="other units"
    )


def _file(name: str, architecture: str) -> str:
    if "." not in name:
        raise ConfigError(f"timm:{name}: say which weights, such as timm:{name}.TAG, or timm:{name}@random")
    return published_file(name, f"{architecture}.*")


def _levels(architecture: str, info: list[tuple[int, int]]) -> tuple[list[int], bool]:
    """Which maps are the levels, and whether the network has one stride only."""
    deepest = {stride: i for i, (stride, _) in enumerate(info)}
    if not info:
        raise ConfigError(f"timm gives no feature maps of {architecture}")
    if len(deepest) == 1:
        return list(spread(len(info))), True
    return [deepest[min(deepest, key=lambda s: (abs(s - t), s))] for t in PYRAMID_STRIDES], False


def _any_size(body: TimmBody, side: int) -> bool:
    """Whether it reads images of any multiple of 32."""
    for h, w in ((32, 32), (64, 96)):
        try:
            with torch.no_grad():
                body.eval().maps(torch.zeros(1, 3, h, w))
        except (AssertionError, RuntimeError, ValueError):
            return False
    return side > 0
