"""Choosing specialists: from several zoos at once, and by what they read, do and allow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eosfm.adaptation import plan_views
from eosfm.bands import BandSet, Modality
from eosfm.contracts import ConfigError, EosfmError, ZooError, known
from eosfm.specialists.card import SpecialistCard
from eosfm.specialists.licences import allows_commercial_use, unknown_words
from eosfm.specialists.zoo import ZooEntry, list_zoo
from eosfm.statistics import BandStatistics
from eosfm.tasks.kinds import KINDS


def list_zoos(zoos: Sequence[Path], broken: dict[str, EosfmError] | None = None) -> list[ZooEntry]:
    """Every specialist of several zoos, by name. Reads cards only; ``broken`` as in `list_zoo`.

    Raises:
        ZooError: a name in two folders (both are named), a folder twice, or what `list_zoo` refuses.
        CardError: a malformed card.
    """
    found: dict[str, ZooEntry] = {}
    seen: dict[Path, Path] = {}
    for zoo in zoos:
        if (place := zoo.resolve()) in seen:
            raise ZooError(f"{zoo} is named twice" + (f" (also as {seen[place]})" if seen[place] != zoo else ""))
        seen[place] = zoo
        for entry in list_zoo(zoo, broken):
            if entry.card.name in found:
                raise ZooError(
                    f"specialist {entry.card.name!r} is in two zoos: {found[entry.card.name].folder} and {entry.folder}. "
                    "A name stands for one specialist: rename or leave out one of them."
                )
            found[entry.card.name] = entry
    return [found[n] for n in sorted(found)]


def choose(
    entries: Sequence[ZooEntry],
    *,
    bands: BandSet | None = None,
    task: str = "",
    modality: str = "",
    commercial: bool = False,
) -> tuple[list[ZooEntry], list[tuple[str, str]]]:
    """The ``entries`` that pass every filter, and ``(name, reason)`` for each that does not.

    Args:
        entries: from `list_zoo` or `list_zoos`.
        bands: only those that can read these bands under the default rules, given statistics of the input (which
            ``adapt`` measures).
        task: only those trained for this kind of task.
        modality: only those that read some band of this modality ("optical", "sar", "elevation").
        commercial: only those whose licence is known to allow commercial use; an unknown licence is not.

    Raises:
        ConfigError: an unknown task or modality.
    """
    kinds = (*KINDS, "masked-autoencoder", "none")
    if task and task not in kinds:
        raise ConfigError(f"unknown task {task!r}; {known(kinds)}")
    if modality and modality not in {str(m) for m in Modality}:
        raise ConfigError(f"unknown modality {modality!r}; {known(Modality)}")
    kept, left = [], []
    for e in entries:
        reason = _unfit(e.card, bands, task, modality, commercial)
        if reason:
            left.append((e.card.name, reason))
        else:
            kept.append(e)
    return kept, left


def _unfit(card: SpecialistCard, bands: BandSet | None, task: str, modality: str, commercial: bool) -> str:
    """Why ``card`` does not pass; "" where it does."""
    if task and card.task.kind != task:
        return f"trained for {card.task.kind}"
    modalities = dict.fromkeys(str(b.modality) for b in card.bandset())
    if modality and modality not in modalities:
        return f"reads {' and '.join(modalities)}"
    if commercial and not allows_commercial_use(card.licence):
        unknown = unknown_words(card.licence)
        says = f"{', '.join(unknown)}: not known to allow" if unknown else f"{card.licence}: does not allow"
        return f"licence {says} commercial use"
    if bands is not None:
        own = BandStatistics(mean=(0.0,) * len(bands), std=(1.0,) * len(bands))
        plans, reason = plan_views(card.name, card.bandset(), card.statistics, bands, own)
        return "" if plans else f"cannot read them: {reason}"
    return ""
