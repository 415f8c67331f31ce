"""A long job's finished blocks on disk, so that it survives being killed: `<output>.part/`.

    lock           held while a process works on this output; the system releases it when the process dies
    job.json       what is being computed, from what: a rerun may continue only the very same job
    journal.jsonl  one line per finished block, written after the block's files
    12.map.npy     the pixels of block 12 (none if the block is empty)

The final file is moved to its place from inside this folder (one file system, so the move is atomic) and the folder is
removed after it. Arrays are read with ``allow_pickle=False``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import RasterError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_OURS = re.compile(r"lock|job\.json|journal\.jsonl|.+\.(npy|tmp)|(map|probabilities)\.tif(\..+)?")

Stats = dict[str, Any]
"""What is remembered of a finished block besides its pixels; must survive JSON unchanged."""


@dataclass
class PartFolder:
    """The folder of one job, locked by this process. Made by `claim`."""

    path: Path
    done: dict[int, Stats] = field(default_factory=dict)
    """finished blocks by index, those of earlier runs included"""

    def save(self, index: int, arrays: Mapping[str, NDArray[Any]], stats: Stats) -> None:
        """Store block ``index`` (no arrays: it is empty) and note it as finished.

        Raises:
            RasterError: the disk is full or the folder is not writable; the blocks before it stay usable.
        """
        with disk_errors(self.path):
            for name, array in arrays.items():
                final = self._file(index, name)
                with final.with_suffix(".tmp").open("wb") as f:
                    np.save(f, array, allow_pickle=False)
                    f.flush()
                    os.fsync(f.fileno())
                final.with_suffix(".tmp").replace(final)
            with (self.path / "journal.jsonl").open("a", encoding="utf-8") as f:
                f.write(json.dumps({"block": index, "stats": stats, "files": sorted(arrays)}) + "\n")
                f.flush()
                if arrays:
                    os.fsync(f.fileno())  # empty blocks are cheap to find again, and there may be many
        self.done[index] = stats

    def load(self, index: int, name: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
        """The pixels ``name`` of finished block ``index``, of the expected ``shape``; None if the block is empty.

        Raises:
            RasterError: the stored block is damaged.
        """
        file = self._file(index, name)
        try:
            array = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as e:
            raise RasterError(f"{file} is damaged ({e}). Delete {self.path} and start again.") from e
        if array.shape != shape:
            raise RasterError(f"{file} holds {array.shape}, expected {shape}. Delete {self.path} and start again.")
        return np.asarray(array)

    def remove(self) -> None:
        """Delete the folder: the job is finished, or gave nothing worth keeping."""
        with disk_errors(self.path):
            self._empty()
            if sys.platform != "win32":  # an open file cannot be deleted there; `claim` does it
                (self.path / "lock").unlink(missing_ok=True)
                _rmdir_unless_reused(self.path)

    def _file(self, index: int, name: str) -> Path:
        return self.path / f"{index}.{name}.npy"

    def _begin(self, job: Mapping[str, Any], *, replace: bool) -> None:
        """Take up the job that is there if it is ``job``; start it if there is none."""
        manifest, journal = self.path / "job.json", self.path / "journal.jsonl"
        foreign = sorted(f.name for f in self.path.iterdir() if not _OURS.fullmatch(f.name))
        if foreign:
            raise RasterError(f"{self.path} holds files that are not ours ({', '.join(foreign[:5])}): move them away")
        before = _read_json(manifest)
        lines = journal.read_text("utf-8").splitlines() if before and journal.exists() else []
        whole = [e for e in map(_entry, lines) if e and all(self._file(e["block"], n).exists() for n in e["files"])]
        if before != job:
            if whole and not replace:
                changed = sorted(k for k in {*before, *job} if before.get(k) != job.get(k))
                raise RasterError(
                    f"{self.path} holds an unfinished job that differs in: "
                    + "; ".join(f"{k} (was {before.get(k)!r}, now {job.get(k)!r})" for k in changed)
                    + ". Rerun it as it was to finish it, delete that folder, or pass overwrite=True (--overwrite)."
                )
            self._empty()
            _write_text(manifest, json.dumps(job, indent=1))
            whole = []
        # rewritten, so that a line torn by a crash does not swallow the next one
        _write_text(journal, "".join(json.dumps(e) + "\n" for e in whole))
        self.done = {e["block"]: e["stats"] for e in whole}

    def _empty(self) -> None:
        for file in self.path.iterdir():
            if file.name != "lock":
                file.unlink()


@contextmanager
def claim(output: Path, job: Mapping[str, Any], *, overwrite: bool, also: Sequence[Path] = ()) -> Iterator[PartFolder]:
    """The part folder of ``output``, locked, with the blocks that an earlier run of the same ``job`` finished.

    Args:
        output: the file the job makes; the folder is ``<output>.part`` beside it.
        job: JSON values that identify the job: inputs, model, parameters.
        overwrite: replace ``output``, and the unfinished blocks of another job.
        also: further files the job makes, moved to their places before ``output`` is.

    Raises:
        RasterError: ``output`` exists and is not to be replaced, another process is writing it, the folder cannot be
            written, or it holds another job's blocks.
    """
    _refuse_existing(output, overwrite=overwrite)
    part = PartFolder(output.with_name(output.name + ".part"))
    with disk_errors(part.path):
        lock = _lock(part.path, output)
    try:
        _refuse_existing(output, overwrite=overwrite)  # another process may have finished it meanwhile
        with disk_errors(part.path):
            part._begin(job, replace=overwrite)
        for other in () if part.done else also:  # a job killed between two moves has made them itself
            _refuse_existing(other, overwrite=overwrite)
        yield part
    except BaseException:
        if not part.done and _read_json(part.path / "job.json") == job:
            part.remove()  # nothing worth resuming: do not stand in the way of the next attempt
        raise
    finally:
        os.close(lock)
        if sys.platform == "win32" and not (part.path / "job.json").exists():
            shutil.rmtree(part.path, ignore_errors=True)


def publish(finished: Path, output: Path) -> None:
    """Move a complete file to its final name in one step, durably: readers see the old file or the new one.

    Raises:
        RasterError: the move failed; ``output`` is as before.
    """
    with disk_errors(output):
        with finished.open("rb+") as f:
            os.fsync(f.fileno())
        finished.replace(output)
        if sys.platform != "win32":
            folder = os.open(output.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's refusals into a `RasterError` that says what is kept."""
    try:
        yield
    except OSError as e:
        raise RasterError(
            f"cannot write {path}: {e.strerror or e}. Check that its folder exists, is writable and has free space; "
            "a rerun continues with the blocks that were finished, and an existing output is untouched."
        ) from e


def _refuse_existing(output: Path, *, overwrite: bool) -> None:
    if output.is_dir():
        raise RasterError(f"{output} is a folder; name the file to write inside it")
    if output.exists() and not overwrite:
        raise RasterError(f"{output} exists. Choose another name, or replace it with overwrite=True (--overwrite).")


def _lock(folder: Path, output: Path) -> int:
    """Descriptor of the locked ``folder/lock``; closing it, or dying, releases the lock."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # its last owner finished and removed the folder between the two steps
        try:
            if sys.platform == "win32":
                msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(handle)
            raise RasterError(
                f"another process is writing {output} (it holds {folder / 'lock'}). Wait for it, or choose another output."
            ) from None
        except OSError:
            os.close(handle)
            raise
        if _is_still_there(handle, folder / "lock"):
            return handle
        os.close(handle)  # locked a file that its last owner had just removed


def _is_still_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _rmdir_unless_reused(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        if not (folder / "lock").exists():
            raise  # else another process has begun the next job here


def _entry(line: str) -> dict[str, Any] | None:
    try:
        e = json.loads(line)
    except ValueError:
        return None
    return e if isinstance(e, dict) and {"block", "stats", "files"} <= e.keys() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    temporary.replace(path)
