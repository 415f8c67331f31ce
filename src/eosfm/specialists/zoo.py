"""A zoo is a folder of specialists: list them, resolve a name, verify them all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eosfm.contracts import CardError, EosfmError, ZooError, known
from eosfm.specialists.card import SpecialistCard, read_card


@dataclass(frozen=True)
class ZooEntry:
    """One specialist of a zoo: where it lies and what its card says."""

    folder: Path
    card: SpecialistCard


def list_zoo(zoo: Path, broken: dict[str, EosfmError] | None = None) -> list[ZooEntry]:
    """Every specialist in ``zoo``, by name. Reads cards only.

    Args:
        zoo: a folder of specialists.
        broken: where given, takes the folders that are refused, with the reason; else the first of them is raised.

    Raises:
        ZooError: no such folder, a specialist whose folder is not its name, or one that lies outside the zoo.
        CardError: a malformed card.
    """
    if not zoo.is_dir():
        raise ZooError(
            f"{zoo}: no such folder. A zoo is a folder of specialists; make one with `eosfm demo` or `eosfm train`."
        )
    entries = []
    for folder in sorted(zoo.iterdir()):
        if folder.name.startswith(".") or not _claims(folder):
            continue
        try:
            entries.append(_entry(folder, zoo))
        except EosfmError as e:
            if broken is None:
                raise
            broken[folder.name] = e
    return entries


def _claims(folder: Path) -> bool:
    """Whether ``folder`` is meant to be a specialist: there is a card, or a link in the place of card or folder that leads
    nowhere, or to itself, so that nothing could be seen behind it.
    """
    card = folder / "card.json"
    return card.exists() or card.is_symlink() or (folder.is_symlink() and not folder.exists())


def _require_inside(folder: Path, zoo: Path) -> None:
    """`ZooError` where ``folder`` or its card is a link out of ``zoo``, to nowhere or to itself."""
    if folder.is_symlink() and not folder.exists():
        raise ZooError(
            f"{folder}: a symbolic link that leads nowhere; copy the specialist into the zoo, or delete the link"
        )
    if not folder.resolve().is_relative_to(zoo.resolve()):
        raise ZooError(f"{folder}: leads outside the zoo; copy the specialist into it instead of linking it")
    if (card := folder / "card.json").is_symlink():
        raise ZooError(
            f"{card}: a link that leads outside the zoo, or nowhere; put the specialist's own file in its place"
        )


def _entry(folder: Path, zoo: Path) -> ZooEntry:
    _require_inside(folder, zoo)
    card = read_card(folder / "card.json")
    if card.name != folder.name:
        raise ZooError(f"{folder}: its card says it is {card.name!r}; folder and name must agree (rename the folder)")
    return ZooEntry(folder, card)


def find(zoo: Path, names: Sequence[str] | None = None) -> list[ZooEntry]:
    """The specialists called ``names`` in that order, or all of them. One that is broken is an error where it is wanted.

    Raises:
        ZooError: an empty zoo, a name twice, or an unknown name (lists the known ones).
        CardError: a malformed card.
    """
    broken: dict[str, EosfmError] = {}
    entries = list_zoo(zoo, None if names is None else broken)
    if not entries and not broken and (zoo / "card.json").exists():
        raise ZooError(f"{zoo} is a specialist itself; give the folder it lies in, {zoo.parent}, and its name")
    if not entries and not broken:
        raise ZooError(f"{zoo}: no specialists here (no folder with a card.json)")
    if names is None:
        return entries
    table = {e.card.name: e for e in entries}
    if wanted := next((n for n in names if n in broken), None):
        raise broken[wanted]
    unknown = [n for n in names if n not in table]
    if unknown:
        raise ZooError(f"no specialist {', '.join(map(repr, unknown))} in {zoo}; {known(table)}")
    twice = {n for n in names if list(names).count(n) > 1}
    if twice:
        raise ZooError(f"specialist {', '.join(sorted(twice))} is named twice")
    return [table[n] for n in names]


def verify_zoo(zoo: Path, names: Sequence[str] | None = None, *, key: Path | None = None) -> list[tuple[str, str]]:
    """``(name, problem)`` for each specialist; the problem is empty where card, hash and tensors agree.

    With ``key``, a file with a public key, each must also be signed with the private key that goes with it.

    Raises:
        ZooError: no zoo, an empty one, or an unknown name.
        ConfigError: ``key`` is missing or no public key.
    """
    from eosfm.specialists.store import load_specialist, verify_specialist  # torch and timm, only when needed

    check = None
    if key is not None:
        from eosfm.specialists.signing import signature_check

        check = signature_check(key)
    if not zoo.is_dir():
        raise ZooError(f"{zoo}: no such folder")
    folders = [f for f in sorted(zoo.iterdir()) if (f.is_dir() or _claims(f)) and not f.name.startswith(".")]
    if names is not None:
        folders = [e.folder for e in find(zoo, names)]
    out = []
    for folder in folders:
        problem = ""
        try:
            _require_inside(folder, zoo)
            card = verify_specialist(folder, exact_files=True)
            if check is not None:
                check(folder)
            load_specialist(folder)
            if card.name != folder.name:
                raise CardError(f"its card says it is {card.name!r}")
        except EosfmError as e:
            problem = str(e)
        out.append((folder.name, problem))
    if not out:
        raise ZooError(f"{zoo}: no specialists here (no folder with a card.json)")
    return out
