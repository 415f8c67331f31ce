"""Writes that are whole or absent, and hashes. Temporary files lie in the target's own folder, so that replacing is atomic."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from eosfm.contracts import EosfmError


class OutputError(EosfmError):
    """An output that exists already, or a place that cannot be written."""


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` when the block ends well and vanishes when it does not.

    Raises:
        OutputError: the folder cannot be written, or the disk is full; ``path`` is then as it was.
    """
    path = _named(path)
    tmp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield tmp
        with tmp.open("rb+") as f:
            os.fsync(f.fileno())
        tmp.replace(path)
        _sync_folder(path.parent)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}") from e
    finally:
        with suppress(OSError):  # a read-only disk refuses this, too; what matters is said above
            tmp.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes ``path`` when the block ends well and vanishes when it does not.

    Raises:
        OutputError: ``path`` exists and ``overwrite`` is false, or the place cannot be written.
    """
    path = _named(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting (--overwrite)")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; expected a folder, or nothing")
    tmp = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    old = path.with_name(f".{path.name}.{secrets.token_hex(4)}.old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp.mkdir()
        yield tmp
        for file in tmp.iterdir():
            with file.open("rb+") as f:
                os.fsync(f.fileno())
        if not path.exists():
            tmp.replace(path)
        elif not overwrite:
            raise OutputError(f"{path} was made by another process meanwhile; choose another name, or look at that one")
        elif not _exchange(tmp, path):  # one step: killed at any moment, one of the two is in place
            path.replace(old)
            tmp.replace(path)
        _sync_folder(path.parent)
        _discard(old)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}") from e
    finally:
        if old.exists() and not path.exists():
            old.replace(path)  # also after an interrupt
        _discard(tmp)


def _discard(path: Path) -> None:
    """Remove a folder, or the link to one that stood in its place."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _named(path: Path) -> Path:
    """``path`` if it can be replaced as a whole; the folder one works in, or one above it, cannot."""
    full, here = path.resolve(), Path.cwd()
    if full == here or full in here.parents:
        raise OutputError(f"{path} is the folder you are in, or one above it; name a new file or folder for the output")
    return path


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths of one file system atomically (Linux ``renameat2``); False where the system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0)


def require_place(path: Path, *, overwrite: bool = False) -> None:
    """`OutputError` now rather than after hours of work: ``path`` exists, or its folder cannot be written."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; choose another name or allow overwriting (--overwrite)")
    probe = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    made = next((p for p in reversed([path.parent, *path.parent.parents]) if not p.exists()), None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}") from e
    finally:
        if made is not None and made.is_dir():
            _remove_empty(path.parent, made)


def _remove_empty(folder: Path, top: Path) -> None:
    for p in [folder, *folder.parents]:
        if not any(p.iterdir()):
            p.rmdir()
        if p == top:
            return


def write_json(path: Path, value: Any) -> None:
    """``value`` as readable JSON, atomically."""
    with atomic_file(path) as tmp:
        tmp.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
