"""Published data fetched on request: from the address of their authors, resumable, checked by hash, never without room.

    fetch(remotes("geobench2-caffe"), Path("data/geobench2/caffe"))

Known are files whose publisher, or a library that reads them, states a hash: GEO-Bench-2's (SHA-256, package `geobenchv2` 0.9)
and PASTIS-R (MD5, TorchGeo 0.9). Of the others `eosfm.benchmark.tasks.where_to_get` says where they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from eosfm.contracts import ConfigError, CorruptArtifact, DataError, known
from eosfm.data.published.geobench2_tables import S2_SHEETS, SHEETS
from eosfm.files import OutputError

Progress = Callable[[float, str], None]
BLOCK = 1 << 20
MARGIN = 1 << 30
"""bytes that stay free on the disk"""
TRIES = 5
"""connections in a row that bring nothing, before it is given up; with all that came kept"""
REFUSED = (400, 401, 403, 404, 410, 451)
"""answers that asking again does not change"""
PAUSE = 1.0
"""seconds of the first wait, which doubles"""
_HUB = "https://huggingface.co/datasets/aialliance/{}/resolve/main/{}"

_GEO_BENCH_2: dict[str, tuple[str, ...]] = {
    "benv2": ("821c2f429c3e85c158c758bbb215bf61170a2451a11284efaf0f89cef97e468a",),
    "biomassters": (
        "52bdd8f76107ef14498c54c751c0cddb9ab073fc03cff0102b05406af127b747",
        "52b3217ad7b44667f147fc2033769e42f2c47b502126f3ff9413c7f75b2de82f",
        "7da0898b25ff4ca23a8bbe06dcf383ae70068b78c95132ae26abdabbba4c13d4",
    ),
    "burn_scars": ("9f865e72bc4aeb657ee03be167a093f80ee92403ccb2c23b4d19be1189e442aa",),
    "caffe": ("8b2a2e1020a26a2e62080c96646c9c1f1cb35a54722739f8cef6f11122c4161e",),
    "cloudsen12": ("16b3c03d7b15cf42f6ef0cee6d453b6ad8ebbe7744674c4b58657511f7f5d0c0",),
    "dynamic_earthnet": (
        "3459ed6e7b528a6356f2ac8249d75c7c199230c4df28ec60e19f67684c4fefe5",
        "31b757804a687c2761fa991de48d98312f0b35140c5d54a5074b4267da1aaf8c",
        "b8e3bc71aaf0422564e91117ca6192fa441ab9405b115c84a5e32b586b41d8c2",
    ),
    "everwatch": ("4afb1eada24ce990c1798fa481963ab8c0a0e302ba2d4112f02261c6a8246272",),
    "flair2": ("f446098513d85591b8abae03e8d98447d2ab5173271f85c11f40edcdb1e2e1a9",),
    "forestnet": ("6ee7cb7135b4ca5d0cde52e781f5960ed0e648dcceab598982fa612802cd3ad1",),
    "fotw": ("2584cdada3dd3c275792d2376c8bbca782a7b1faea54924c9627906f0296854c",),
    "kuro_siwo": ("4830fe6f23bf9750dee0c765850724b55026bf5d47cb67162d3ef7dcb04c3bbd",),
    "nzcattle": ("70ca3b78af3f5b17868dd856b8e31b102a03e74439d58960a69c77b1efcd31c1",),
    "pastis": (
        "56b1490c6dc7345fdff79e94d9132753ee28d8504bb061d8db39d19e888f7ca3",
        "7d0463a695a0822a1f25638598b2d54daf28f387d6a80d353be7c323069060db",
        "22d27389b1ccee4f250f4a187d034d12dbf15c5610a5dd8d502ee8783e94c81e",
    ),
    "so2sat": ("2f9aa3a0cbf7f5071d2fafee24156a6041a9c732f0f979881b8db582201aa7bc",),
    "spacenet2": ("e48e57654c1755a6b1c79bcfe172035a27b815ebe1738d1ce95d96d5c37214b6",),
    "spacenet7": ("f202abe270b729f7f2651de64cb5c6b41c5f9915109ec12b6c467afa2abcb5b6",),
    "substation": ("7f12cd5b510fca4a153b8e77b786d7fc7f7c4e04aece1507121e9c24ff1d47a4",),
    "treesatai": ("0ddb8068720242ad4f5931ea91f3459ed695ad490bbaa48905afe72dd9623aee",),
}
"""GEO-Bench-2's data set -> SHA-256 of its files, in order"""


@dataclass(frozen=True)
class Remote:
    """One published file."""

    url: str
    name: str
    """in the folder"""
    hash: str
    """``sha256:...`` or ``md5:...``"""


def remotes(dataset: str) -> tuple[Remote, ...]:
    """The files of ``dataset`` (`eosfm.data.catalogue`).

    Raises:
        ConfigError: none is known with a hash.
    """
    if dataset in fetchable():
        if dataset == "pastis":
            md5 = "md5:4887513d6c2d2b07fa935d325bd53e09"
            return (Remote("https://zenodo.org/records/5735646/files/PASTIS-R.zip?download=1", "PASTIS-R.zip", md5),)
        name = dataset.removeprefix("geobench2-").removesuffix("-s2")
        held = SHEETS[name].held_by or name
        files = zip(SHEETS[name].paths, _GEO_BENCH_2[held], strict=True)
        return tuple(Remote(_HUB.format(held, file), file, f"sha256:{h}") for file, h in files)
    raise ConfigError(
        f"{dataset}: no file of it is known with a hash, so it is not fetched; docs/tasks.md and docs/zoo.md say where it is "
        f"published. {known(fetchable())}"
    )


def fetchable() -> tuple[str, ...]:
    """The data sets that `remotes` knows."""
    return (*(f"geobench2-{n}" for n in SHEETS), *(f"geobench2-{n}-s2" for n in S2_SHEETS), "pastis")


def fetch(files: Sequence[Remote], folder: Path, progress: Progress | None = None) -> list[str]:
    """Bring ``files`` into ``folder``; what is there and whole stays, what was begun goes on. A line for each.

    Raises:
        OutputError: no room, or a folder that cannot be written.
        CorruptArtifact: a file, there or fetched, that has another hash.
        DataError: the network fails, or the publisher has no such file any more.
        ConfigError: another process fetches the same file.
    """
    lines = []
    for number, file in enumerate(files):

        def tell(fraction: float, line: str, number: int = number) -> None:
            if progress:
                progress((number + fraction) / len(files), line)

        target = folder / file.name
        if target.exists():
            _require_hash(target, file, tell)
            lines.append(f"there already, hash checked: {target}")
            continue
        with _alone(folder, file) as part:
            _bring(file, part, tell)
            _require_hash(part, file, tell)
            part.replace(target)
        lines.append(f"fetched, hash checked: {target}")
    return lines


class _alone:
    """The unfinished file, for this process only."""

    def __init__(self, folder: Path, file: Remote) -> None:
        self.part = folder / f"{file.name}.part"
        self.folder = folder

    def __enter__(self) -> Path:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.held = self.part.open("ab")
        except OSError as e:
            raise OutputError(f"cannot write into {self.folder}: {e}; choose another folder") from None
        try:
            fcntl.flock(self.held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.held.close()
            raise ConfigError(f"{self.part}: another process fetches it; wait for it") from None
        return self.part

    def __exit__(self, *_: object) -> None:
        self.held.close()


def _bring(file: Remote, part: Path, tell: Progress) -> None:
    """Append to ``part`` until the file is whole; a connection that breaks is made again where it broke."""
    failures = 0
    while True:
        start = part.stat().st_size
        try:
            if _stream(file, part, start, tell):
                return
            raise ConnectionError("the connection ended early")
        except (OSError, HTTPException) as e:
            if isinstance(e, urllib.error.HTTPError) and e.code in REFUSED:
                raise DataError(
                    f"{file.url}: {e.code} {e.reason}; the publisher does not give it, see docs/tasks.md"
                ) from None
            failures = 0 if part.stat().st_size > start else failures + 1
            if failures >= TRIES:
                raise DataError(
                    f"{file.url}: {e} ({TRIES} times in a row). {part.stat().st_size} bytes are kept in {part}; start again, "
                    "and it goes on there"
                ) from None
            time.sleep(min(2.0**failures, 30.0) * PAUSE)


def _stream(file: Remote, part: Path, start: int, tell: Progress) -> bool:
    """One connection; whether the file is whole after it."""
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        answer = _open(request)
    except urllib.error.HTTPError as e:
        if e.code == 416 and start:  # nothing lies behind what is there
            return True
        raise
    with answer:
        if start and answer.status != 206:  # it gives whole files only
            start = 0
            os.truncate(part, 0)
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else 0
        free = shutil.disk_usage(part.parent).free
        if total and total - start > free - MARGIN:
            raise OutputError(
                f"{file.name}: {(total - start) / 1e9:.1f} GB are to come, {free / 1e9:.1f} GB are free in {part.parent}, of "
                f"which {MARGIN / 1e9:.1f} stay free; make room or choose another folder. Nothing that came is lost"
            )
        done = start
        try:
            with part.open("ab") as out:
                while block := answer.read(BLOCK):
                    _write(out, block)
                    done += len(block)
                    tell(0.9 * done / total if total else 0.0, f"{file.name}, {done / 1e9:.2f} of {total / 1e9:.2f} GB")
        except OSError as e:
            raise ConnectionError(f"the connection broke: {e}") from e
    return not total or done >= total


def _write(out: Any, block: bytes) -> None:
    try:
        out.write(block)
        out.flush()
    except OSError as e:
        raise OutputError(f"cannot write {out.name}: {e}; make room and start again, it goes on there") from None


def _open(request: urllib.request.Request) -> Any:
    """The answer, over an encrypted connection to its end."""
    if not _safe(request.full_url):
        raise DataError(f"{request.full_url}: not https; nothing was fetched")
    answer = urllib.request.urlopen(request, timeout=60)
    if not _safe(answer.geturl()):
        answer.close()
        raise DataError(f"{request.full_url}: led to {answer.geturl()}, which is not https; nothing was fetched")
    return answer


def _safe(url: str) -> bool:
    return url.startswith("https://")


def _require_hash(path: Path, file: Remote, tell: Progress) -> None:
    kind, _, wanted = file.hash.partition(":")
    tell(0.9, f"{file.name}: checking its hash")
    try:
        with path.open("rb") as data:
            found = hashlib.file_digest(data, kind).hexdigest()
    except OSError as e:
        raise CorruptArtifact(f"{path}: cannot be read ({e.strerror or e}); delete it and fetch it again") from None
    if found == wanted:
        return
    begun = path.name.endswith(".part")
    if begun:
        path.unlink()
    raise CorruptArtifact(
        f"{path}: {kind} {found[:16]}, expected {wanted[:16]}: "
        + ("it was thrown away. Start again; if it happens twice, the publisher has changed the file"
           if begun else "changed or incomplete; delete it and fetch it again")
    )  # fmt: skip
