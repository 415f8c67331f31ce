"""SpecialistCard: everything one needs to know to use, trust and share a specialist. Stored as ``card.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from eosfm.bands import Band, BandSet
from eosfm.config import read_json, read_record, record, to_plain
from eosfm.contracts import PYRAMID_CHANNELS, CardError, EosfmError
from eosfm.statistics import BandStatistics

SCHEMA_VERSION: Literal[1] = 1
ATTO = "convnextv2_atto"
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,79}")


@record
class CardBand:
    """One channel the specialist reads."""

    sensor: str
    name: str
    unit: str


@record
class TaskInfo:
    """What the specialist was trained to do; its head is not kept, its classes are."""

    kind: str
    """one of `eosfm.tasks.kinds.KINDS`, "masked-autoencoder", or "none" (never trained)"""
    classes: tuple[str, ...] = ()
    description: str = ""


@record
class DataInfo:
    """What it was trained on and how that was split."""

    name: str
    licence: str
    source: str = ""
    images: int = 0
    split: str = ""
    sha256: str = ""
    """hash of the training data as read (file names and bytes, or the arrays), "" where unknown"""


@record
class Metric:
    """A score with its 95 % interval, the split it was measured on and the number of samples."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    split: str
    samples: int
    seed: int


@record
class TrainingInfo:
    """How it was trained, and what that cost."""

    initialisation: str = "random"
    epochs: int = 0
    seed: int = 0
    seconds: float = 0.0
    energy_kwh: float | None = None
    co2_kg: float | None = None
    hardware: str = ""


@record
class WeightsInfo:
    """The tensor file beside the card."""

    sha256: str
    bytes: int
    parameters: int
    file: Literal["model.safetensors"] = "model.safetensors"


@record
class PyramidInfo:
    """How another architecture than ConvNeXtV2-Atto gives four levels at strides 4/8/16/32; see `specialists.backbone`."""

    channels: tuple[int, int, int, int]
    """per level, fine to coarse"""
    levels: tuple[int, int, int, int]
    """which of timm's feature maps they are, by number"""
    resampled: bool = False
    """the maps all have one stride and are resampled to the four (bilinear): asked for by name, because it adds no detail"""

    def __post_init__(self) -> None:
        if min(self.channels) < 1 or min(self.levels) < 0 or sorted(set(self.levels)) != list(self.levels):
            raise CardError(f"channels {self.channels}, levels {self.levels}; expected positive numbers, levels rising")


@record
class SpecialistCard:
    """A specialist's identity: bands in order, unit, statistics, architecture, task, data, cost, licence and hash.

    Raises:
        CardError: on construction, for a name that is not safe as a folder name, an unknown band or unit, or statistics
            that do not fit the bands.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    description: str = ""
    architecture: str = ATTO
    """timm's name for it"""
    pyramid: PyramidInfo | None = None
    """of other architectures; None for ConvNeXtV2-Atto, whose pyramid is known"""
    bands: tuple[CardBand, ...]
    statistics: BandStatistics
    chip_size: int
    """pixels; GRN makes features depend on the size of the chip (and others have position tables for it), so it belongs to
    the specialist"""
    task: TaskInfo
    data: DataInfo
    metrics: tuple[Metric, ...] = ()
    training: TrainingInfo
    licence: str
    weights: WeightsInfo
    eosfm_version: str
    created: str
    """ISO 8601 date and time, UTC"""
    digest: str = ""
    """SHA-256 of all other fields, so that a slip of an editor shows; a card without one was written by hand"""

    def __post_init__(self) -> None:
        require_safe_name(self.name)
        self.statistics.require_channels(len(self.bands), f"specialist {self.name}")
        self.bandset()
        if self.chip_size < 32 or self.chip_size % 32:
            raise CardError(
                f"specialist {self.name}: chip size {self.chip_size}; expected a multiple of 32, 32 or more"
            )
        if (self.architecture == ATTO) is not (self.pyramid is None):
            raise CardError(
                f"specialist {self.name}: architecture {self.architecture!r} {'with' if self.pyramid else 'without'} a "
                f"pyramid; {ATTO} has none on its card, every other architecture has one"
            )

    def bandset(self) -> BandSet:
        """The channels the encoder reads, in order (repeats are allowed: the paper's SAR specialists read VV, VH, VH)."""
        try:
            return BandSet(tuple(Band.of(b.sensor, b.name, b.unit) for b in self.bands))
        except EosfmError as e:
            raise CardError(f"specialist {self.name}: {e}") from None

    @property
    def channels(self) -> tuple[int, ...]:
        """Of its features, per level."""
        return self.pyramid.channels if self.pyramid else PYRAMID_CHANNELS

    @property
    def reading(self) -> str:
        """SHA-256 of everything on the card that changes the features: bands, units, statistics, architecture."""
        text = f"{self.bandset()}|{self.statistics.mean}|{self.statistics.std}|{self.architecture}"
        if self.pyramid:
            text += f"|{self.pyramid}|{self.chip_size}"
        return hashlib.sha256(text.encode()).hexdigest()

    def sealed(self) -> SpecialistCard:
        """This card with its digest."""
        return dataclasses.replace(self, digest=digest_of(to_plain(self)))

    @property
    def reference(self) -> str:
        """``name@sha256[:12]``: what manifests and reports cite."""
        return f"{self.name}@{self.weights.sha256[:12]}"


def card_bands(bands: BandSet) -> tuple[CardBand, ...]:
    """A band set as it is written on a card; ``SpecialistCard(bands=card_bands(b), ...).bandset() == b``."""
    return tuple(CardBand(sensor=b.sensor, name=b.name, unit=str(b.unit)) for b in bands)


def require_safe_name(name: str) -> str:
    """``name`` if it can be a folder name inside a zoo and nothing else; `CardError` otherwise (``../x``, ``/etc``)."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise CardError(
            f"name {name[:80]!r}: expected 1-80 of a-z 0-9 . _ + - starting with a letter or digit, without '..'; "
            f"for example {re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')[:40] or 'eurosat-rgb'!r}"
        )
    return name


def read_card(path: Path) -> SpecialistCard:
    """The card at ``path``; any unknown field, wrong type, duplicate key or NaN is a `CardError` with its key path."""
    data: Any = read_json(path, error=CardError)
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise CardError(
            f"{path}: schema_version {version!r}; this eosfm reads version {SCHEMA_VERSION}. "
            "Upgrade eosfm, or re-create the card with the eosfm that wrote it."
        )
    card = read_record(SpecialistCard, data, str(path), error=CardError)
    if card.digest and card.digest != digest_of(data):
        raise CardError(
            f"{path}: was edited after eosfm wrote it, so the specialist may be fed with wrong bands, units or statistics. "
            'Restore it; or, if the change is meant, take its "digest" line out.'
        )
    return card


def digest_of(data: dict[str, Any]) -> str:
    """SHA-256 of a card's content as it stands in the file, whatever its order and layout."""
    text = json.dumps({k: v for k, v in data.items() if k != "digest"}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
