"""A zoo on the Hugging Face Hub: push specialists, pull them at a pinned commit, through the Hub's cache when offline.

A repository is a zoo (``NAME/card.json``, ``NAME/model.safetensors``) with an index, ``zoo.json``, that names every
specialist and its hashes; so a pull from an incomplete cache is an error and never a smaller zoo. What comes is
checked like any specialist before it gets into the zoo: hash, card, tensors.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from eosfm.config import read_json, read_record, record, to_plain
from eosfm.contracts import ConfigError, CorruptArtifact, ZooError, known
from eosfm.files import atomic_folder, require_place, sha256_file
from eosfm.specialists.card import SpecialistCard, require_safe_name
from eosfm.specialists.licences import allows_commercial_use, combine
from eosfm.specialists.store import CARD, README, SIGNATURE, WEIGHTS, load_specialist, verify_specialist
from eosfm.specialists.zoo import find

INDEX = "zoo.json"
_OURS = "<!-- written by eosfm zoo push -->"
MAX_FILE = 64 << 20
"""Bytes of one file of a specialist; an encoder has 13.6 million and a card thousands."""
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@record
class IndexEntry:
    """A specialist of the repository: what identifies it, and what a visitor wants to know."""

    sha256: str
    """of its weights"""
    reading: str
    """`SpecialistCard.reading`"""
    bands: str
    task: str
    licence: str
    signature: str = ""
    """sha256 of its ``model.sig``; empty where it is not signed"""

    @property
    def files(self) -> tuple[str, ...]:
        return (CARD, WEIGHTS, SIGNATURE) if self.signature else (CARD, WEIGHTS)


@record
class HubIndex:
    """``zoo.json``: what the repository holds."""

    schema_version: Literal[1] = 1
    specialists: dict[str, IndexEntry]


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    commit: str
    """of the repository now: what to pin"""
    pushed: tuple[str, ...]
    unchanged: tuple[str, ...]


class Hub(Protocol):
    """What push and pull need of a hub; `HuggingFace` is one, the tests' folder another."""

    def head(self, repo: str, revision: str) -> str:
        """The commit that ``revision`` is now."""

    def create(self, repo: str, public: bool) -> None:
        """Make the repository where it does not exist."""

    def fetch(self, repo: str, commit: str, files: Sequence[str]) -> Path:
        """A folder with ``files`` (those that exist) of that commit, from the cache where they are in it."""

    def upload(self, repo: str, folder: Path, message: str, parent: str) -> str:
        """Add or replace the files of ``folder`` on top of commit ``parent``; the new commit."""


class HuggingFace:
    """The Hub through ``huggingface_hub``, which keeps the cache, the token and ``HF_HUB_OFFLINE``."""

    def head(self, repo: str, revision: str) -> str:
        """The commit that ``revision`` is now."""
        from huggingface_hub import HfApi

        with _said(f"cannot ask for {revision} of {repo}"):
            return str(HfApi().model_info(repo, revision=revision).sha)

    def create(self, repo: str, public: bool) -> None:
        """Make the repository where it does not exist; a new one is private unless ``public``."""
        from huggingface_hub import HfApi

        with _said(f"cannot create or reach {repo}"):
            HfApi().create_repo(repo, private=not public, exist_ok=True)

    def fetch(self, repo: str, commit: str, files: Sequence[str]) -> Path:
        """The snapshot of ``commit`` with ``files``; sizes are asked for first where the Hub can be reached."""
        from huggingface_hub import HfApi, constants, snapshot_download

        offline = constants.HF_HUB_OFFLINE
        if not offline:
            with _said(f"cannot list {repo} at {commit}"):
                info = HfApi().model_info(repo, revision=commit, files_metadata=True)
            for f in info.siblings or []:
                if f.rfilename in files and (f.size or 0) > MAX_FILE:
                    raise CorruptArtifact(f"{repo}: {f.rfilename} has {f.size} bytes; a specialist's files have fewer")
        with _said(
            f"{repo} at {commit} is not in the cache, or not all of it"
            if offline
            else f"cannot fetch {repo} at {commit}"
        ):
            return Path(
                snapshot_download(repo, revision=commit, allow_patterns=list(files), local_files_only=bool(offline))
            )

    def upload(self, repo: str, folder: Path, message: str, parent: str) -> str:
        """One commit, refused by the Hub if somebody committed after ``parent``; no signature of replaced files stays."""
        from huggingface_hub import HfApi

        stale = [f"{d.name}/{SIGNATURE}" for d in folder.iterdir() if d.is_dir() and not (d / SIGNATURE).exists()]
        with _said(f"cannot upload to {repo}"):
            done = HfApi().upload_folder(
                repo_id=repo, folder_path=folder, commit_message=message, parent_commit=parent,
                delete_patterns=stale or None,
            )  # fmt: skip
        return str(done.oid)


def push(
    zoo: Path,
    names: Sequence[str] | None,
    repo: str,
    *,
    public: bool = False,
    overwrite: bool = False,
    hub: Hub | None = None,
) -> Pushed:
    """Put specialists of ``zoo`` (default: all) into the Hub's ``repo``, which is made (private) where it is missing.

    Raises:
        CorruptArtifact: a specialist that is not sound; nothing is uploaded then.
        ZooError: the repository has another specialist of that name, or another signature of it, and ``overwrite`` is
            false; or the Hub refuses.
        ConfigError: ``repo`` is no ``owner/name``.
    """
    _require_repo(repo)
    hub = hub or HuggingFace()
    entries = [(e.folder, verify_specialist(e.folder, exact_files=True)) for e in find(zoo, names)]
    for folder, _ in entries:
        load_specialist(folder)
    hub.create(repo, public)
    parent = hub.head(repo, "main")
    before = hub.fetch(repo, parent, [INDEX, README])
    there = _index(before, f"{repo} at {parent}", missing_is_empty=True)
    new = {c.name: _entry(c, f) for f, c in entries}
    same = [n for n in new if n in there and _same(there[n], new[n])]
    # A copy without signature takes none away; a signature is added to what had none.
    unchanged = tuple(n for n in same if new[n].signature in ("", there[n].signature))
    free = [n for n in new if n not in there or n in unchanged or (n in same and not there[n].signature)]
    if (clash := [n for n in new if n not in free]) and not overwrite:
        raise ZooError(
            f"{repo} holds another specialist called {', '.join(clash)}, or another signature of it; rename yours, or "
            "replace it (--overwrite)"
        )
    todo = [(f, c) for f, c in entries if c.name not in unchanged]
    if not todo:
        return Pushed(parent, (), unchanged)
    with tempfile.TemporaryDirectory() as tmp:
        staged = Path(tmp)
        for folder, card in todo:
            (staged / card.name).mkdir()
            for file in new[card.name].files:
                shutil.copyfile(folder / file, staged / card.name / file)
        index = HubIndex(specialists={**there, **{c.name: new[c.name] for _, c in todo}})
        (staged / INDEX).write_text(json.dumps(to_plain(index), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        readme = before / README
        if not readme.is_file() or _OURS in readme.read_text(encoding="utf-8", errors="replace"):
            (staged / README).write_text(_readme(repo, index), encoding="utf-8")
        commit = hub.upload(repo, staged, f"eosfm: {', '.join(c.name for _, c in todo)}", parent)
    return Pushed(commit, tuple(c.name for _, c in todo), unchanged)


def pull(
    repo: str,
    commit: str,
    zoo: Path,
    names: Sequence[str] | None = None,
    *,
    overwrite: bool = False,
    hub: Hub | None = None,
) -> list[SpecialistCard]:
    """Fetch specialists (default: all) of the Hub's ``repo`` at ``commit`` into ``zoo``; each is whole and checked, or absent.

    Raises:
        ConfigError: ``commit`` is no full commit hash (a branch would mean other weights tomorrow; says the present one).
        ZooError: not cached and not to be had, an unknown name, or a repository without index.
        CorruptArtifact: a file that is not what its card or the index says.
        OutputError: a specialist of that name exists in ``zoo`` and ``overwrite`` is false.
    """
    _require_repo(repo)
    hub = hub or HuggingFace()
    if not _COMMIT.fullmatch(commit):
        raise ConfigError(f"--revision {commit!r}: pin the full commit, 40 hexadecimal digits{_now(hub, repo, commit)}")
    index = _index(hub.fetch(repo, commit, [INDEX]), f"{repo} at {commit}")
    wanted = list(names) if names is not None else sorted(index)
    if unknown := [n for n in wanted if n not in index]:
        raise ZooError(f"{repo} has no specialist {', '.join(map(repr, unknown))}; {known(index)}")
    for name in wanted:
        require_place(zoo / require_safe_name(name), overwrite=overwrite)
    folder = hub.fetch(repo, commit, [f"{n}/{f}" for n in wanted for f in index[n].files])
    return [_take(folder / n, zoo / n, n, index[n], overwrite) for n in wanted]


def _take(source: Path, target: Path, name: str, promised: IndexEntry, overwrite: bool) -> SpecialistCard:
    """Copy its files, check them where they lie, and only then let them into the zoo."""
    with atomic_folder(target, overwrite=overwrite) as tmp:
        for file in promised.files:
            if not (source / file).is_file():
                raise ZooError(f"{name}/{file} did not come: the cache is incomplete. Pull it again with network.")
            if (size := (source / file).stat().st_size) > MAX_FILE:
                raise CorruptArtifact(f"{name}/{file}: {size} bytes; a specialist's files have fewer")
            shutil.copyfile(source / file, tmp / file)
        verify_specialist(tmp, exact_files=True)
        _, card = load_specialist(tmp)
        if card.name != name:
            raise CorruptArtifact(f"{name}: its card says it is {card.name!r}")
        if not _same(_entry(card), promised) or _entry(card, tmp).signature != promised.signature:
            raise CorruptArtifact(f"{name}: card, weights or signature are not those of the repository's {INDEX}")
    return card


def _index(folder: Path, where: str, *, missing_is_empty: bool = False) -> dict[str, IndexEntry]:
    file = folder / INDEX
    if not file.is_file():
        if missing_is_empty:
            return {}
        raise ZooError(f"{where}: no {INDEX}, so not a zoo that `eosfm zoo push` made")
    index = read_record(HubIndex, read_json(file, error=CorruptArtifact), f"{where}: {INDEX}", error=CorruptArtifact)
    for name in index.specialists:
        require_safe_name(name)
    return index.specialists


def _require_repo(repo: str) -> None:
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise ConfigError(f"repository {repo[:80]!r}: expected OWNER/NAME")


def _now(hub: Hub, repo: str, revision: str) -> str:
    try:
        return f"; {revision or 'main'} is {hub.head(repo, revision or 'main')} now"
    except ZooError:
        return ""


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Whatever the Hub's client raises, as a `ZooError` that says what to do."""
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, EntryNotFoundError, HfHubHTTPError

    # A failed connection is an error of the HTTP library under it, whose name changed twice: take its root class from here.
    roots = [c for c in HfHubHTTPError.__mro__ if issubclass(c, Exception) and c is not Exception]
    failures: tuple[type[Exception], ...] = (
        *roots, EntryNotFoundError, CachedRepoTreeNotFoundError, OSError, ValueError,
    )  # fmt: skip
    try:
        yield
    except failures as e:
        first = (str(e).strip().splitlines() or [""])[0][:300]
        raise ZooError(
            f"{what}: {type(e).__name__}: {first}\nCheck the name, `hf auth whoami` and the network; without network, pull "
            "once on a machine that has it and copy its cache (HF_HOME) here, with HF_HUB_OFFLINE=1."
        ) from None


def _entry(card: SpecialistCard, folder: Path | None = None) -> IndexEntry:
    """What the index says of a specialist; of its signature only where ``folder`` has one."""
    signature = folder / SIGNATURE if folder else None
    return IndexEntry(
        sha256=card.weights.sha256,
        reading=card.reading,
        bands=str(card.bandset()),
        task=card.task.kind,
        licence=card.licence,
        signature=sha256_file(signature) if signature and signature.is_file() else "",
    )


def _same(a: IndexEntry, b: IndexEntry) -> bool:
    return (a.sha256, a.reading) == (b.sha256, b.reading)


def _readme(repo: str, index: HubIndex) -> str:
    licence = combine(*(i.licence for i in index.specialists.values()))
    rows = "\n".join(f"| {n} | {i.bands} | {i.task} | {i.licence} |" for n, i in sorted(index.specialists.items()))
    use = "allow" if allows_commercial_use(licence) else "do not all allow, or are not all known to allow,"
    return (
        "---\nlibrary_name: eosfm\ntags: [earth-observation, feature-extraction]\nlicense: other\n"
        f"license_name: {json.dumps(licence)}\n---\n{_OURS}\n\nSpecialists for `eosfm`, each with its own licence; together "
        f"they {use} commercial use.\n\n| specialist | bands | task | licence |\n|---|---|---|---|\n{rows}\n\n"
        f"    eosfm zoo pull {repo} --revision COMMIT --to zoo\n"
    )
