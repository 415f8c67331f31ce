"""Specialists of other architectures: a frozen timm backbone whose features are a `Pyramid` with channels of its own.

    plan_pyramid("resnet18", 3, 224)   -> which four of timm's maps have strides 4/8/16/32
    FrozenBackbone("resnet18", 3, 224, that)(x)   -> four maps of 64/128/256/512 channels

An ensemble treats it as it treats ConvNeXtV2-Atto. Weights bear the names of timm's ``features_only`` model.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosfm.contracts import PYRAMID_STRIDES, CardError, ConfigError, Pyramid
from eosfm.seeding import seeded
from eosfm.specialists.card import ATTO, PyramidInfo, SpecialistCard
from eosfm.specialists.encoder import MIN_SIZE, FrozenEncoder, other_architecture, require_weights

SINGLE_STRIDES = (8, 16, 32)
"""patch sizes that tile every image whose sides are multiples of 32"""


class FrozenBackbone(nn.Module):
    """A specialist of another architecture in use: no gradients, always in evaluation mode, strides 4/8/16/32.

    Raises:
        ConfigError: an architecture that timm does not have.
        CardError: ``pyramid`` is not what this architecture gives.
    """

    def __init__(self, architecture: str, in_channels: int, image_size: int, pyramid: PyramidInfo) -> None:
        super().__init__()
        self.architecture, self.in_channels, self.pyramid = architecture, in_channels, pyramid
        self.body = other_architecture(architecture, in_channels, image_size, pyramid.levels)
        table = stages(self.body)
        given = [table[i] for i in pyramid.levels if i < len(table)]
        strides = tuple(s for s, _ in given)
        allowed = [(s,) * 4 for s in SINGLE_STRIDES] if pyramid.resampled else [PYRAMID_STRIDES]
        if tuple(c for _, c in given) != pyramid.channels or strides not in allowed:
            raise CardError(
                f"{architecture}: its maps {pyramid.levels} have (stride, channels) {given}; the card says channels "
                f"{pyramid.channels} at strides {' or '.join(map(str, allowed))}"
            )
        self._last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"  # Swin
        self.requires_grad_(False)
        self.eval()

    @property
    def out_channels(self) -> list[int]:
        return list(self.pyramid.channels)

    def forward(self, x: Tensor) -> Pyramid:
        """Features of ``x`` ``(b, in_channels, h, w)``, ``h`` and ``w`` multiples of 32, at strides 4/8/16/32."""
        maps: Pyramid = [m.permute(0, 3, 1, 2) if self._last else m for m in self.body(x)]
        if not self.pyramid.resampled:
            return maps
        h, w = x.shape[-2:]
        return [
            F.interpolate(m, (h // s, w // s), mode="bilinear", antialias=True)
            for m, s in zip(maps, PYRAMID_STRIDES, strict=True)
        ]

    def train(self, mode: bool = True) -> FrozenBackbone:  # noqa: ARG002
        """Stay in evaluation mode; see `FrozenEncoder.train`."""
        super().train(False)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """The weights and the statistics of batch norms, on the CPU, ready to be stored. No integers: they are counters."""
        return {k: v.detach().cpu().contiguous() for k, v in weights(self.body).items()}

    def load_tensors(self, tensors: dict[str, Tensor], whose: str) -> None:
        """Copy ``tensors`` in; `CardError` names every missing, extra or wrongly shaped one. Nothing half loads."""
        require_weights(weights(self.body), tensors, self.architecture, whose)
        self.body.load_state_dict({**self.body.state_dict(), **tensors}, strict=True)


def weights(body: nn.Module) -> dict[str, Tensor]:
    """What makes two backbones differ: everything but counters and index tables."""
    return {k: v for k, v in body.state_dict().items() if v.is_floating_point()}


def stages(body: nn.Module) -> list[tuple[int, int]]:
    """``(stride, channels)`` of every map that timm could give of this network."""
    return [(int(i["reduction"]), int(i["num_chs"])) for i in body.feature_info.info]  # type: ignore[union-attr]


AnyEncoder: TypeAlias = "FrozenEncoder | FrozenBackbone"
"""What a card can describe."""


def encoder_of(card: SpecialistCard) -> AnyEncoder:
    """A frozen encoder as ``card`` describes it, with random weights."""
    if card.pyramid is None:
        return FrozenEncoder(len(card.bands))
    return FrozenBackbone(card.architecture, len(card.bands), card.chip_size, card.pyramid)


def loaded(card: SpecialistCard, tensors: dict[str, Tensor], whose: str) -> AnyEncoder:
    """The encoder of ``card`` with ``tensors`` as its weights; random states stay as they were.

    Raises:
        CardError: tensors that are not those of the card's architecture.
        ConfigError: an architecture that timm does not have.
    """
    if card.pyramid is not None:  # a card may name a network of any size: only its own weights make it worth the memory
        with torch.device("meta"):
            require_weights(weights(encoder_of(card).body), tensors, card.architecture, whose)
    if card.pyramid is None:  # every tensor of it is stored, so no initial weights are drawn
        with torch.device("meta"):
            encoder = encoder_of(card)
        encoder.to_empty(device="cpu")
    else:
        with seeded(0):  # replaced at once; drawing them must not move anybody's random state
            encoder = encoder_of(card)
    encoder.load_tensors(tensors, whose)
    return encoder


def plan_pyramid(architecture: str, in_channels: int, image_size: int, *, resample: bool = False) -> PyramidInfo:
    """Which of timm's feature maps of ``architecture`` are the levels at strides 4/8/16/32.

    Where several have one stride, the deepest. ``resample`` asks for four maps of a network with a single stride (a plain
    ViT), evenly spread over its depth and resampled to the four strides.

    Raises:
        ConfigError: ConvNeXtV2-Atto, an architecture that timm does not have, one without these strides, or one that reads
            images of one size only.
    """
    if architecture == ATTO:
        raise ConfigError(f"{ATTO} is the zoo's own architecture; leave the architecture out")
    with torch.device("meta"):
        body = other_architecture(architecture, in_channels, image_size)
    info = stages(body)
    deepest = {stride: i for i, (stride, _) in enumerate(info)}
    strides = ", ".join(map(str, deepest))
    if resample:
        if len(deepest) != 1 or next(iter(deepest)) not in SINGLE_STRIDES or len(info) < 4:
            raise ConfigError(
                f"{architecture} has maps at strides {strides}; only a network with a single stride of "
                f"{', '.join(map(str, SINGLE_STRIDES))} can be resampled"
            )
        levels = [len(info) * (i + 1) // 4 - 1 for i in range(4)]
    elif missing := [s for s in PYRAMID_STRIDES if s not in deepest]:
        single = len(deepest) == 1 and next(iter(deepest)) in SINGLE_STRIDES
        raise ConfigError(
            f"{architecture} has maps at strides {strides}; a pyramid needs {', '.join(map(str, PYRAMID_STRIDES))}, so "
            f"{', '.join(map(str, missing))} {'is' if len(missing) == 1 else 'are'} missing."
            + (" Its maps can be resampled to them, which adds no detail: --pyramid resample" if single else "")
        )
    else:
        levels = [deepest[s] for s in PYRAMID_STRIDES]
    a, b, c, d = levels
    w, x, y, z = (info[i][1] for i in levels)
    pyramid = PyramidInfo(channels=(w, x, y, z), levels=(a, b, c, d), resampled=resample)
    with seeded(0):
        _try(FrozenBackbone(architecture, in_channels, image_size, pyramid))
    return pyramid


def _try(backbone: FrozenBackbone) -> None:
    """`ConfigError` unless it gives the promised shapes for images that are neither square nor of its training's size."""
    for h, w in ((MIN_SIZE, MIN_SIZE), (2 * MIN_SIZE, 3 * MIN_SIZE)):
        expected = [(1, c, h // s, w // s) for c, s in zip(backbone.out_channels, PYRAMID_STRIDES, strict=True)]
        try:
            with torch.inference_mode():
                given = [tuple(m.shape) for m in backbone(torch.zeros(1, backbone.in_channels, h, w))]
        except (AssertionError, RuntimeError, ValueError) as e:
            raise ConfigError(
                f"{backbone.architecture} cannot read an image of {h} x {w} pixels, and a specialist must read every "
                f"multiple of {MIN_SIZE}: {' '.join(str(e).split())[:200]}"
            ) from None
        if given != expected:
            raise ConfigError(
                f"{backbone.architecture} gives maps {given} of an image of {h} x {w}; expected {expected}"
            )
