"""Where a specialist's weights start: random, ImageNet FCMAE, or another specialist. Never silently something else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, ZooError
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.card import ATTO
from eosfm.specialists.encoder import ConvNeXtV2Atto, fcmae_tensors
from eosfm.specialists.store import load_specialist
from eosfm.specialists.zoo import find

RANDOM, FCMAE = "random", "imagenet-fcmae"
FCMAE_LICENCE = "CC-BY-NC-4.0"
"""of the weights released with ConvNeXt V2 (Woo et al. 2023); what is trained from them inherits it"""
STEM = "stem_0.weight"
_RGB = BandSet.parse("rgb:R,G,B@8bit")


@dataclass(frozen=True)
class Start:
    """An encoder to begin with, what the card says of it, and the licence that its weights carry on."""

    encoder: ConvNeXtV2Atto
    text: str
    licence: str | None = None
    """None: random weights have none"""


def start_from(init: str, bands: BandSet, zoo: Path, seed: int) -> Start:
    """The encoder for ``bands`` that ``init`` asks for: "random", "imagenet-fcmae", or a specialist of ``zoo``.

    All but the stem is copied. A stem channel is copied where the source reads the same band (by common name: red is
    red); the others stay random, and the text says which.

    Raises:
        ConfigError: FCMAE weights that are neither cached nor to be had, with what to do; a specialist of another
            architecture.
        ZooError: no such specialist.
    """
    with seeded(purpose_seed(seed, "specialist")):
        encoder = ConvNeXtV2Atto(len(bands))
    if init == RANDOM:
        return Start(encoder, RANDOM)
    if init == FCMAE:
        copied = transfer(encoder, bands, fcmae_tensors(), _RGB)
        return Start(encoder, f"{FCMAE} ({copied})", FCMAE_LICENCE)
    if not zoo.is_dir():
        raise ConfigError(
            f"init {init!r}: expected {RANDOM}, {FCMAE}, or a specialist of the zoo {zoo}, which is not there"
        )
    try:
        source, card = load_specialist(find(zoo, [init])[0].folder)
    except ZooError as e:
        raise ConfigError(f"init {init!r}: expected {RANDOM}, {FCMAE} or a specialist of {zoo}; {e}") from None
    if card.pyramid is not None:
        raise ConfigError(
            f"init {init!r}: a {card.architecture}; what is trained here is {ATTO}, which its weights do not fit"
        )
    copied = transfer(encoder, bands, source.tensors(), card.bandset())
    return Start(encoder, f"specialist {card.reference} ({copied})", card.licence)


def transfer(encoder: ConvNeXtV2Atto, bands: BandSet, tensors: dict[str, Tensor], source: BandSet) -> str:
    """Copy ``tensors`` of an encoder for ``source`` into ``encoder`` for ``bands``; says which stem channels came along."""
    stem = encoder.tensors()[STEM].clone()
    fresh = []
    for channel, name in enumerate(bands.commons):
        if name in source.commons:
            stem[:, channel] = tensors[STEM][:, source.commons.index(name)].to(torch.float32)
        else:
            fresh.append(name)
    encoder.load_tensors({**{k: v.float() for k, v in tensors.items()}, STEM: stem}, "initial weights")
    return "all bands copied" if not fresh else f"stem of {', '.join(dict.fromkeys(fresh))} random, the rest copied"
