"""Ensembles on disk: ``ensemble.json`` names specialists by hash; the fusion's weights lie beside it once it is trained.

compose -> folder/ensemble.json            (a list of specialists, rules and a fusion; weights stay in the zoo)
eosfm.load(folder | zoo | specialist, bands=...) -> Ensemble
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from eosfm._version import __version__
from eosfm.bands import BandSet
from eosfm.config import read_json, read_record, record, to_plain
from eosfm.contracts import AdaptationError, BandError, CardError, ConfigError, CorruptArtifact, EosfmError, ZooError
from eosfm.ensemble import Ensemble, Specialist
from eosfm.files import atomic_folder, sha256_file
from eosfm.fusion.fuse import FUSIONS, Normalise, make_fusion
from eosfm.rules import DEFAULT_RULES, rules_named
from eosfm.seeding import seeded
from eosfm.specialists.card import SpecialistCard
from eosfm.specialists.encoder import MIN_SIZE
from eosfm.specialists.store import load_specialist, read_tensors, require_file, write_tensors
from eosfm.specialists.zoo import find
from eosfm.statistics import BandStatistics

MANIFEST, FUSION_WEIGHTS = "ensemble.json", "fusion.safetensors"


@record
class Reference:
    """A specialist by name and hash: a checkpoint is valid only with the very weights it was trained on."""

    name: str
    sha256: str
    reading: str
    """`SpecialistCard.reading`: the same weights under other statistics are another specialist"""


@record
class FileInfo:
    """A file beside a manifest."""

    file: str
    sha256: str
    bytes: int


@record
class EnsembleManifest:
    """An ensemble without weights: which specialists, which rules, which fusion, and for which input."""

    schema_version: Literal[1] = 1
    eosfm_version: str = __version__
    specialists: tuple[Reference, ...]
    zoo: str
    """the zoo's folder, relative to the manifest's"""
    rules: tuple[str, ...] = DEFAULT_RULES
    fusion: str = "conv1x1"
    normalise: Normalise = "none"
    bands: str | None = None
    """the input; None until the ensemble is loaded for one"""
    statistics: BandStatistics | None = None
    views: tuple[str, ...] | None = None
    """names of the views in fusion order; a loaded plan must give the same ones"""
    weights: FileInfo | None = None
    weights_prefix: str = ""
    """where the fusion's tensors are in that file: "" in an ensemble, "encoder.fusion." in a task model"""
    fusion_trained: bool = False


def manifest_of(ensemble: Ensemble, folder: Path, zoo: Path) -> EnsembleManifest:
    """What to store beside anything trained on ``ensemble``; its skipped specialists are not part of it.

    Raises:
        ConfigError: a view is ablated; a manifest could not say so, and the view would speak again after loading.
    """
    if bool((ensemble.gates != 1).any()):
        raise ConfigError(
            "some views are ablated, which is not stored: keep the others with pruned(...), or undo it with ablate([])"
        )
    if ensemble.selector is not None:
        raise ConfigError("a selection is being learnt: store pruned(selector.chosen()), which is what it chose")
    return EnsembleManifest(
        specialists=tuple(reference_to(c) for c in ensemble.cards),
        zoo=os.path.relpath(zoo.resolve(), folder.resolve()),
        rules=ensemble.rules,
        fusion=ensemble.fusion.name,
        normalise=ensemble.fusion.normalise,
        bands=str(ensemble.bands),
        statistics=ensemble.statistics,
        views=tuple(v.name for v in ensemble.views),
        fusion_trained=ensemble.fusion_trained,
    )


def reference_to(card: SpecialistCard) -> Reference:
    """The specialist of ``card``, as manifests name it."""
    return Reference(name=card.name, sha256=card.weights.sha256, reading=card.reading)


def compose(
    zoo: Path,
    output: Path,
    *,
    names: Sequence[str] | None = None,
    rules: Sequence[str] = DEFAULT_RULES,
    fusion: str = "conv1x1",
    normalise: Normalise = "none",
    overwrite: bool = False,
) -> EnsembleManifest:
    """Write an ensemble of the specialists ``names`` (default: all) of ``zoo`` to the folder ``output``.

    Every specialist is loaded, checked against its hash and tried on a mean image first, so a broken one never gets into
    an ensemble.
    """
    rules_named(rules)
    if fusion not in FUSIONS:
        raise AdaptationError(f"unknown fusion {fusion!r}; known: {', '.join(FUSIONS)}")
    cards = [_sound(e.folder) for e in find(zoo, names)]
    with seeded(0):  # a fusion that cannot join these specialists is refused now, not when the ensemble is loaded
        make_fusion(fusion, len(cards), normalise, [c.channels for c in cards])
    manifest = EnsembleManifest(
        specialists=tuple(reference_to(c) for c in cards),
        zoo=os.path.relpath(zoo.resolve(), output.resolve()),
        rules=tuple(rules),
        fusion=fusion,
        normalise=normalise,
    )
    with atomic_folder(output, overwrite=overwrite) as tmp:
        write_manifest(tmp / MANIFEST, manifest)
    return manifest


def _sound(folder: Path) -> SpecialistCard:
    """The card of the specialist in ``folder`` if its features of a mean image are finite; `CardError` otherwise."""
    encoder, card = load_specialist(folder)
    with torch.inference_mode():
        features = encoder(torch.zeros(1, len(card.bands), MIN_SIZE, MIN_SIZE))
    if not all(bool(level.isfinite().all()) for level in features):
        raise CardError(f"specialist {card.name} ({folder}): its features of a mean image are not finite; it is broken")
    return card


def load(
    path: str | Path,
    bands: BandSet | str | None = None,
    *,
    statistics: BandStatistics | None = None,
    zoo: str | Path | None = None,
) -> Ensemble:
    """An ensemble ready for images of ``bands``.

    >>> ens = load("zoo", bands="hls:all@dn-1e4", statistics=...)   # doctest: +SKIP
    >>> pyramid = ens(x)                                            # doctest: +SKIP

    Args:
        path: an ensemble (folder with ``ensemble.json``, also a task model), a zoo, or one specialist's folder.
        bands: the input's channels, as a `BandSet` or its text form; may be left out where the ensemble has its own.
        statistics: the input's mean and std per band, in its units; without them views into another modality or an
            inconvertible unit are listed in ``ens.skipped``.
        zoo: where the specialists lie, if not where the manifest says.

    Raises:
        EosfmError: what is missing, unreadable, changed or contradictory, and how to repair it.
    """
    path = Path(path)
    wanted = BandSet.parse(bands) if isinstance(bands, str) else bands
    if (path / MANIFEST).exists():
        manifest = read_manifest(path / MANIFEST)
        return from_manifest(manifest, path, wanted, statistics=statistics, zoo=Path(zoo) if zoo else None)
    if not path.is_dir():
        raise ZooError(f"{path}: no such folder; expected an ensemble, a task model, a zoo or a specialist")
    if wanted is None:
        raise BandError(f"{path}: say what the image's bands are: bands='SENSOR:BAND,BAND@UNIT'")
    folders = [path] if (path / "card.json").exists() else [e.folder for e in find(path)]
    return Ensemble([load_specialist(f) for f in folders], wanted, statistics=statistics)


def from_manifest(
    manifest: EnsembleManifest,
    folder: Path,
    bands: BandSet | None = None,
    *,
    statistics: BandStatistics | None = None,
    zoo: Path | None = None,
) -> Ensemble:
    """The ensemble that ``manifest`` (stored in ``folder``) describes, with every specialist's hash checked."""
    own = BandSet.parse(manifest.bands) if manifest.bands else None
    if bands is None and own is None:
        raise BandError(f"{folder}: this ensemble is not tied to an input yet: say bands='SENSOR:BAND,BAND@UNIT'")
    if own is not None and bands not in (None, own):
        raise AdaptationError(
            f"{folder}: made for {own}, asked for {bands}; reorder and convert the input to the former"
        )
    if manifest.statistics is not None and statistics not in (None, manifest.statistics):
        raise AdaptationError(f"{folder}: made with statistics {manifest.statistics}; leave them out, or adapt anew")
    chosen = own if own is not None else bands
    assert chosen is not None
    ensemble = Ensemble(
        resolve(manifest, folder, zoo),
        chosen,
        statistics=manifest.statistics or statistics,
        rules=manifest.rules,
        fusion=manifest.fusion,
        normalise=manifest.normalise,
    )
    views = tuple(v.name for v in ensemble.views)
    if manifest.views is not None and views != manifest.views and set(manifest.views) < set(views):
        ensemble = ensemble.pruned(manifest.views)  # it was stored after pruning single views
        views = tuple(v.name for v in ensemble.views)
    if manifest.views is not None and views != manifest.views:
        raise CorruptArtifact(
            f"{folder}: stored views {manifest.views} but this eosfm plans {views}; cards or rules changed"
        )
    if manifest.weights is not None:
        if manifest.weights.file not in (FUSION_WEIGHTS, "model.safetensors"):
            raise CorruptArtifact(f"{folder}: weights file {manifest.weights.file!r}; expected {FUSION_WEIGHTS}")
        weights, prefix = folder / manifest.weights.file, manifest.weights_prefix
        require_file(weights, manifest.weights.sha256, manifest.weights.bytes)
        own_tensors = {k.removeprefix(prefix): v for k, v in read_tensors(weights).items() if k.startswith(prefix)}
        try:
            ensemble.fusion.load_state_dict(own_tensors, strict=True)
        except RuntimeError as e:
            raise CorruptArtifact(f"{weights}: does not fit the fusion it is stored for: {e}") from None
    ensemble.fusion_trained = manifest.fusion_trained
    return ensemble


def resolve(manifest: EnsembleManifest, folder: Path, zoo: Path | None = None) -> list[Specialist]:
    """The manifest's specialists, loaded; a missing one or one with another hash says where it was looked for."""
    place = zoo if zoo is not None else (folder / manifest.zoo).resolve()
    out = []
    for ref in manifest.specialists:
        try:
            entry = find(place, [ref.name])[0]
        except EosfmError as e:
            raise ZooError(
                f"{folder} needs specialist {ref.name!r}: {e}\nPoint to the zoo that has it with zoo=... (--zoo)"
            ) from None
        encoder, card = load_specialist(entry.folder)
        if card.weights.sha256 == ref.sha256 and card.reading != ref.reading:
            raise ZooError(
                f"{folder} was made with other bands, units or statistics of {ref.name} than its card in {place} has now: "
                "the card was edited. Restore it, or adapt anew."
            )
        if card.weights.sha256 != ref.sha256:
            raise ZooError(
                f"{folder} was made with {ref.name}@{ref.sha256[:12]}, but {place} holds {card.reference}: "
                "another specialist under the same name. Point to the zoo that has the former (--zoo)."
            )
        out.append((encoder, card))
    return out


def save_ensemble(ensemble: Ensemble, folder: Path, zoo: Path, *, overwrite: bool = False) -> None:
    """Store the fusion's weights and references to the specialists (whose weights stay in ``zoo``)."""
    with atomic_folder(folder, overwrite=overwrite) as tmp:
        tensors = {k: v.detach().cpu().contiguous() for k, v in ensemble.fusion.state_dict().items()}
        plain: dict[str, Any] = to_plain(manifest_of(ensemble, folder, zoo))
        if tensors:
            write_tensors(tmp / FUSION_WEIGHTS, tensors)
            file = tmp / FUSION_WEIGHTS
            plain["weights"] = {"file": FUSION_WEIGHTS, "sha256": sha256_file(file), "bytes": file.stat().st_size}
        write_manifest(tmp / MANIFEST, read_record(EnsembleManifest, plain, "manifest"))


def write_manifest(path: Path, manifest: EnsembleManifest) -> None:
    """Write ``manifest`` as JSON (inside an `atomic_folder`)."""
    path.write_text(json.dumps(to_plain(manifest), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> EnsembleManifest:
    """The manifest at ``path``; malformed ones are a `CorruptArtifact` with the key path and who wrote it."""
    data = read_json(path, error=CorruptArtifact)
    try:
        return read_record(EnsembleManifest, data, str(path), error=CorruptArtifact)
    except CorruptArtifact as e:
        raise CorruptArtifact(f"{e}\n{written_by(path.parent)}") from None


def written_by(folder: Path) -> str:
    """A sentence for an ensemble or a task model whose files do not have the fields of this version."""
    try:
        data = read_json(folder / MANIFEST, error=CorruptArtifact)
        version = data.get("eosfm_version") if isinstance(data, dict) else None
    except CorruptArtifact:
        version = None
    who = (
        f"eosfm {version[:40]}" if isinstance(version, str) and version.isprintable() else "an unknown version of eosfm"
    )
    again = "eosfm adapt" if (folder / "task.json").exists() else "eosfm compose"
    return (
        f"{folder} was written by {who}, this is {__version__}. Its fields are those of another version (a development state "
        f"may have the same number), or somebody edited it. It cannot be converted; make it again with `{again}`."
    )
