"""Import specialists that others trained: EoS-FM's published file, a Lightning or TerraTorch checkpoint, timm's weights.

    import_file(Path("eosfm.pth"), Path("zoo"))        all its encoders, described by eosfm_published.yaml
    import_file(Path("last.ckpt"), zoo, own=Description(...))   one encoder, described by you
    import_timm("convnextv2_atto.fcmae", zoo)

Other architectures: `eosfm.specialists.import_backbone`.

A weights file does not say what its channels are. Here they get a card with bands by name, unit and statistics: such that
``(value - mean) / std`` is the very input the encoder was trained on. Nothing is guessed from the number of channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from eosfm._version import __version__
from eosfm.bands import BandSet
from eosfm.config import read_record, read_yaml, record
from eosfm.contracts import CardError, ConfigError, CorruptArtifact, ZooError, known
from eosfm.files import require_place, sha256_file
from eosfm.seeding import seeded
from eosfm.specialists.backbone import AnyEncoder
from eosfm.specialists.card import (
    DataInfo,
    SpecialistCard,
    TaskInfo,
    TrainingInfo,
    WeightsInfo,
    card_bands,
    require_safe_name,
)
from eosfm.specialists.encoder import MIN_SIZE, FrozenEncoder, timm_tensors
from eosfm.specialists.foreign import ForeignEncoder, read_foreign
from eosfm.specialists.store import save_specialist
from eosfm.statistics import BandStatistics
from eosfm.tasks.kinds import KINDS

MANIFEST = Path(__file__).with_name("eosfm_published.yaml")
TASKS = (*KINDS, "masked-autoencoder", "none")
_STEM = "stem_0.weight"
_NO_WEIGHTS = WeightsInfo(sha256="0" * 64, bytes=0, parameters=0)  # filled in when stored


@record
class Description:
    """What a weights file does not say about an encoder: what its channels are and how they were fed to it.

    Raises:
        ConfigError: on construction, for statistics or a task that make no sense; `BandError` and `UnitError` for bands.
    """

    name: str
    also: tuple[str, ...] = ()
    """other names the file may use; only in the manifest of published specialists"""
    bands: str
    """in channel order, with units: "sentinel-2-l2a:B04,B03,B02@dn-1e4" """
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """input as trained = (value - mean) / std; one number stands for all bands; a negative std is allowed"""
    chip_size: int
    task: str
    labels: str = ""
    classes: tuple[str, ...] = ()
    dataset: str
    data_licence: str = "unknown"
    images: int = 0
    licence: str = "unknown"
    source: str = ""
    initialisation: str = "unknown"
    inferred: tuple[str, ...] = ()
    lost: str = ""

    def __post_init__(self) -> None:
        require_safe_name(self.name)
        n = len(self.bandset())
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, n):
                raise ConfigError(
                    f"{self.name}: {len(values)} values of {what} for {n} bands; expected {n}, or 1 for all"
                )
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)) or 0.0 in self.std:
            raise ConfigError(f"{self.name}: mean {self.mean}, std {self.std}; expected finite numbers and no std of 0")
        if self.task not in TASKS:
            raise ConfigError(f"{self.name}: unknown task {self.task!r}; {known(TASKS)}")

    def bandset(self) -> BandSet:
        """The channels in order."""
        return BandSet.parse(self.bands)

    def standardisation(self) -> tuple[BandStatistics, tuple[float, ...]]:
        """Statistics with a positive std, and per channel the sign that the first convolution has to take over.

        ``conv(w, (x - mean) / -s) == conv(-w, (x - mean) / s)``, bit by bit.
        """
        n = len(self.bandset())
        mean, std = (v * n if len(v) == 1 else v for v in (self.mean, self.std))
        signs = tuple(math.copysign(1.0, s) for s in std)
        return BandStatistics(mean=mean, std=tuple(abs(s) for s in std)), signs


@record
class _Manifest:
    licence: str
    source: str
    label_sets: dict[str, tuple[str, ...]]
    specialists: tuple[Description, ...]


@dataclass(frozen=True)
class Imported:
    """A specialist that was imported, and what its user should know."""

    card: SpecialistCard
    notes: tuple[str, ...]


def published() -> tuple[Description, ...]:
    """The specialists that EoS-FM may have published, as the manifest beside this module describes them."""
    manifest = read_record(_Manifest, read_yaml(MANIFEST), str(MANIFEST))
    return tuple(
        replace(
            d,
            licence=manifest.licence,
            source=manifest.source,
            initialisation="imagenet-fcmae" if d.name != "imagenet" else "random",
            classes=manifest.label_sets[d.labels] if d.labels else (),
        )
        for d in manifest.specialists
    )


def import_file(
    file: Path,
    zoo: Path,
    *,
    own: Description | None = None,
    names: Mapping[str, str] | None = None,
    entries: Sequence[int] | None = None,
    prefix: str | None = None,
    overwrite: bool = False,
) -> list[Imported]:
    """Store the encoders of ``file`` in ``zoo``. All are checked before the first is written.

    Args:
        file: EoS-FM's published file, or a checkpoint with one ConvNeXtV2-Atto; see `eosfm.specialists.foreign`.
        zoo: folder of specialists; made where it is missing.
        own: describes the one encoder to import; needed for a checkpoint, possible for one entry of a published file.
        names: for a published file, which specialist of the manifest an entry is, by the entry's number or name.
        entries: only these entries of a published file, counted from 0.
        prefix: where the encoder lies in a checkpoint that holds several.
        overwrite: replace specialists of these names.

    Raises:
        CorruptArtifact: a malformed or hostile file; nothing in it is run.
        CardError: another architecture, wrong shapes, or weights that are not finite.
        ConfigError: no description where one is needed, or one too many.
        ZooError: an entry whose name is unknown or ambiguous, or two entries of one name.
        OutputError: a specialist of that name exists.
    """
    found = read_foreign(file, prefix)
    encoders = found.encoders
    if entries is not None:
        if len(set(entries)) != len(entries) or not all(0 <= i < len(encoders) for i in entries):
            raise ConfigError(
                f"{file}: entries {list(entries)}; expected distinct numbers from 0 to {len(encoders) - 1}"
            )
        encoders = tuple(encoders[i] for i in entries)
    if own is not None:
        if len(encoders) != 1:
            raise ConfigError(f"{file}: one description for {len(encoders)} encoders; say which entry: --entry 0")
        described = [own]
    elif found.kind == "checkpoint":
        raise ConfigError(
            f"{file}: a checkpoint of one encoder does not say what its {encoders[0].channels} channels are: describe it "
            "(--name, --bands SENSOR:BAND,...@UNIT, --mean, --std, --task, --dataset, --chip-size, --licence)"
        )
    else:
        described = _describe(file, encoders, names or {})
    origin = f"{file.name} (sha256 {sha256_file(file)[:16]})"
    jobs = []
    for e, d in zip(encoders, described, strict=True):
        where = origin if found.kind == "checkpoint" else f"entry {e.index} ({e.name!r}) of {origin}"
        left = (f"left out of the file: {', '.join(e.left_out[:8])}",) if e.left_out else ()
        jobs.append((e.tensors, d, where, left))
    return _store(jobs, zoo, overwrite)


def import_timm(name: str, zoo: Path, *, store_as: str = "", overwrite: bool = False) -> Imported:
    """Store timm's ImageNet weights ``name`` ("convnextv2_atto.fcmae") in ``zoo``, from the Hub or its cache.

    Raises:
        ConfigError: weights that timm does not have, or that are neither cached nor to be had.
    """
    own = Description(
        name=store_as or "imagenet-" + name.partition(".")[2].replace("_", "-").lower(),
        bands="rgb:R,G,B@8bit",
        mean=(123.675, 116.28, 103.53),  # ImageNet's 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225, times 255
        std=(58.395, 57.12, 57.375),
        chip_size=224,
        task="masked-autoencoder" if name.endswith(".fcmae") else "classification",
        dataset="ImageNet-1k",
        data_licence="research-only",
        images=1_281_167,
        licence="CC-BY-NC-4.0",
        source=f"https://huggingface.co/timm/{name}",
        initialisation="random" if name.endswith(".fcmae") else "imagenet-fcmae",
    )
    return _store([(timm_tensors(name), own, f"timm {name}", ())], zoo, overwrite)[0]


def _describe(file: Path, encoders: Sequence[ForeignEncoder], names: Mapping[str, str]) -> list[Description]:
    """The manifest's description of each entry; by name and channel count, or as ``names`` says."""
    table = published()
    by_name = {d.name: d for d in table}
    out, problems, used = [], [], set()
    for e in encoders:
        asked = [k for k in (str(e.index), e.name) if k and k in names]
        used.update(asked)
        if asked:
            wanted = names[asked[0]]
            fits = [by_name[wanted]] if wanted in by_name else []
            if not fits:
                raise ZooError(f"{file}: no published specialist {wanted!r}; {known(by_name)}")
            if (n := len(fits[0].bandset())) != e.channels:
                raise ZooError(f"{file}: entry {e.index} reads {e.channels} channels, {wanted} reads {n}: not the same")
        else:
            key = _key(e.name)
            fits = [d for d in table if key in map(_key, (d.name, *d.also)) and len(d.bandset()) == e.channels]
        if len(fits) == 1:
            out.append(fits[0])
        else:
            what = f"can be {' or '.join(d.name for d in fits)}" if fits else "is not known"
            problems.append(f"entry {e.index}, {e.name!r} with {e.channels} channels, {what}")
    if problems:
        raise ZooError(
            f"{file}:\n  "
            + "\n  ".join(problems)
            + f"\n{known(by_name)}. Say which one an entry is (--as ENTRY=NAME), "
            "describe it yourself (--entry ENTRY --name ... --bands ...), or import only others (--entry)."
        )
    if unused := [k for k in names if k not in used]:
        raise ZooError(f"{file}: no entry {', '.join(map(repr, unused))}; {known(e.name or e.index for e in encoders)}")
    final = [d.name for d in out]
    if twice := sorted({n for n in final if final.count(n) > 1}):
        which = [f"{e.index} is {d.name}" for e, d in zip(encoders, out, strict=True) if d.name in twice]
        raise ZooError(f"{file}: two entries of one name: entry {', entry '.join(which)}. Choose with --entry or --as.")
    return out


def _key(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


Job = tuple[dict[str, Tensor], Description, str, tuple[str, ...]]
"""tensors, description, origin, notes"""


def _store(jobs: Sequence[Job], zoo: Path, overwrite: bool) -> list[Imported]:
    """Check every encoder before the first is written."""
    ready = []
    for tensors, own, where, notes in jobs:
        require_place(zoo / own.name, overwrite=overwrite)
        ready.append((*_made(tensors, own, where), own, notes))
    out = []
    for encoder, card, own, notes in ready:
        stored = save_specialist(encoder, card, zoo, overwrite=overwrite)
        more = [f"inferred, not stated by its authors: {', '.join(own.inferred)}"] if own.inferred else []
        more += [f"cannot be reproduced: {own.lost}"] if own.lost else []
        out.append(Imported(stored, (*notes, *more)))
    return out


def _made(tensors: dict[str, Tensor], own: Description, where: str) -> tuple[FrozenEncoder, SpecialistCard]:
    """The encoder with the signs of its statistics folded in, tried on a mean image, and its card."""
    bands, (statistics, signs) = own.bandset(), own.standardisation()
    stem = tensors.get(_STEM)
    if stem is not None and stem.ndim == 4 and stem.shape[1] == len(bands):
        tensors = {**tensors, _STEM: stem * stem.new_tensor(signs).view(1, -1, 1, 1)}
    elif stem is not None and stem.ndim == 4:
        raise CardError(
            f"{own.name}: described with {len(bands)} bands ({bands}), but the weights read {stem.shape[1]} channels"
        )
    with seeded(0):
        encoder = FrozenEncoder(len(bands))
    encoder.load_tensors(tensors, f"{own.name} ({where})")
    require_finite(encoder, f"{own.name} ({where})")
    return encoder, card_of(own, statistics, _account(own, where, signs))


def require_finite(encoder: AnyEncoder, whose: str) -> None:
    """`CorruptArtifact` where the features of a mean image are not finite."""
    with torch.inference_mode():
        features = encoder(torch.zeros(1, encoder.in_channels, MIN_SIZE, MIN_SIZE))
    if not all(bool(level.isfinite().all()) for level in features):
        raise CorruptArtifact(f"{whose}: its features of a mean image are not finite; the weights are broken")


def card_of(own: Description, statistics: BandStatistics, description: str) -> SpecialistCard:
    """The card of an encoder as its user describes it, before it is stored."""
    return SpecialistCard(
        name=own.name,
        description=description,
        bands=card_bands(own.bandset()),
        statistics=statistics,
        chip_size=own.chip_size,
        task=TaskInfo(kind=own.task, classes=own.classes),
        data=DataInfo(name=own.dataset, licence=own.data_licence, source=own.source, images=own.images),
        training=TrainingInfo(initialisation=own.initialisation),
        licence=own.licence,
        weights=_NO_WEIGHTS,
        eosfm_version=__version__,
        created="",
    )


def _account(own: Description, where: str, signs: Sequence[float]) -> str:
    """Where it comes from, what was changed, what is inferred and what is lost: for the card."""
    text = [f"Imported from {where}."]
    if -1.0 in signs:
        text.append(
            "Trained on (value - mean) / std with a negative std; its sign was folded into the first convolution, so "
            "features are equal and the weights differ from the original there."
        )
    if own.inferred:
        text.append(f"Inferred, not stated by its authors: {', '.join(own.inferred)}.")
    if own.lost:
        text.append(f"Cannot be reproduced: {own.lost}.")
    return " ".join(text)
