"""A weights file from the outside: what lies there, and whether it is whole and plain. Nothing in it is unpickled or run."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
from pathlib import Path

from eosfm.contracts import CorruptArtifact

MAX_PICKLE = 32 << 20
"""Size of the structure (names and shapes) inside a torch file; the tensors lie beside it."""
MAX_TENSORS = 20_000
EXPECTED = "Expected a file of torch.save (PyTorch 1.6 or later), or one called NAME.safetensors"

# Whatever a malformed archive or pickle makes PyTorch raise; nothing of it is a fault of ours.
MALFORMED = (
    RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError, EOFError, OSError,
    MemoryError, OverflowError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def require_file_here(path: Path) -> None:
    """`CorruptArtifact` unless ``path`` is a plain file; says what it is instead and what was expected."""
    if problem := _no_file(path):
        raise CorruptArtifact(f"{path}: {problem}")


def _no_file(path: Path) -> str:
    """Why ``path`` is no file that could be read; "" for a plain file. Nothing is opened: a pipe would be waited for."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"no such file{', but a link that leads to none' if path.is_symlink() else ''}. {EXPECTED}"
    except OSError as e:
        return f"cannot be read: {e.strerror}. {EXPECTED}"
    if stat.S_ISDIR(mode):
        there = (path / "card.json").exists()
        own = "it is a specialist already: copy the folder into the zoo" if there else "name the weights file in it"
        return f"a folder; {own}. {EXPECTED}"
    return "" if stat.S_ISREG(mode) else f"not a plain file but a pipe, a socket or a device. {EXPECTED}"


def what_came(path: Path, size: int) -> str:
    """What a file that is neither a whole zip archive nor safetensors seems to be, by its first bytes."""
    try:
        with path.open("rb") as f:
            head = f.read(64)
    except OSError as e:
        return f"cannot be read: {e.strerror}"
    if not head:
        return "an empty file"
    if head.startswith(b"PK\x03\x04"):
        return f"a file of torch.save that breaks off after {size} bytes (its index, at the end, is missing): fetch it again"
    if head.startswith(b"\x80"):
        return (
            "a bare pickle, whole or not (PyTorch before 1.6, or pickle.dump). Reading one runs whatever is in it, so it "
            "is not read; who trusts it saves it again with a PyTorch of today"
        )
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the weights: git lfs pull"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the weights: the download was refused or went elsewhere"
    if head[8:9] == b"{":
        return "looks like safetensors, but is not called so: rename it"
    return f"neither a file of torch.save nor of safetensors, or a damaged one: it begins with {head[:8]!r}"


def require_sound_archive(path: Path, size: int) -> None:
    """`CorruptArtifact` unless the zip archive is as `torch.save` writes it: stored whole, no tricks, right checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            problem = _trick(members, size)
            if not problem and (bad := archive.testzip()):
                problem = f"{bad[:80]!r} does not have its checksum: the file was changed or damaged. Fetch it again."
    except (*MALFORMED, NotImplementedError) as e:
        problem = f"not a readable zip archive: {str(e)[:200]}"
    if problem:
        raise CorruptArtifact(f"{path}: {problem}")


def _trick(members: list[zipfile.ZipInfo], size: int) -> str:
    names = [m.filename for m in members]
    if len(names) > 2 * MAX_TENSORS:
        return f"{len(names)} members; at most {2 * MAX_TENSORS} are read"
    if len(set(names)) != len(names):
        return "two members of one name"
    if bad := [n for n in names if n.startswith("/") or "\\" in n or ".." in n.split("/")]:
        return f"a member called {bad[0][:80]!r} leads out of the archive"
    if bad := [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1]:
        return f"member {bad[0][:80]!r} is compressed or encrypted, which torch.save never does"
    if sum(m.file_size for m in members) > size:
        return "its members claim more bytes than the file has"
    if any(re.search(r"(^|/)(constants\.pkl|code/)", n) for n in names):
        return "a TorchScript archive holds a program; save the state dict instead: torch.save(model.state_dict(), ...)"
    if max((m.file_size for m in members if m.filename.endswith("data.pkl")), default=0) > MAX_PICKLE:
        return f"its structure is larger than {MAX_PICKLE} bytes"
    return ""
