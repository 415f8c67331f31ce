"""Shards of frozen features on disk: written whole or not at all, checked before they are used, read row by row.

A shard knows the hash of its own numbers and of the place it belongs to, so that a changed byte, another shard under its
name and a file of other shapes are noticed and not trained on. The hash is compared once, when a process first opens a shard.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from eosfm.contracts import CorruptArtifact
from eosfm.files import OutputError, atomic_file
from eosfm.specialists.store import write_tensors

OPEN = 64
"""shards of one view that are mapped at once"""
ABANDONED = 3600.0
"""seconds after which an unfinished file is a killed run's: a shard is written in less than a minute"""
_HASH = "features_sha256"
_checked: set[tuple[str, int, int]] = set()
"""shards whose hash this process has compared: path, size, time of the last change"""


class ShardsOnDisk:
    """Shards mapped into memory: a row is read when it is asked for, and the system keeps what fits.

    Few are open at once: a process may have some 65,000 maps, and views, orientations and shards multiply.
    """

    def __init__(self, shards: list[Path], rows: int, levels: int) -> None:
        """``rows`` chips lie in each of ``shards`` (fewer in the last), with ``levels`` maps each."""
        self.shards, self.rows, self.levels = shards, rows, levels
        self._open: OrderedDict[int, list[Tensor]] = OrderedDict()

    def row(self, level: int, index: int) -> Tensor:
        """One level of one chip."""
        shard = index // self.rows
        if shard in self._open:
            self._open.move_to_end(shard)
        else:
            if len(self._open) == OPEN:
                self._open.popitem(last=False)
            self._open[shard] = read_shard(self.shards[shard], self.levels)
        return self._open[shard][level][index % self.rows]


def write_shard(path: Path, levels: Sequence[Tensor]) -> None:
    """Store ``levels`` under ``path``.

    Raises:
        OutputError: something else lies there, the folder cannot be written, or the disk is full; no half file is left.
    """
    folder = path.parent
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"{folder} is a file; expected a folder of features. Delete it, or choose another cache_folder"
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected a file of features, or nothing. Delete it and start again")
    _remove_abandoned(folder)
    tensors = [m.contiguous() for m in levels]
    with atomic_file(path) as tmp:
        write_tensors(tmp, {f"level{i}": m for i, m in enumerate(tensors)}, {_HASH: _hash(path, tensors)})
    _checked.add(_stamp(path))


def read_shard(path: Path, levels: int) -> list[Tensor]:
    """The ``levels`` maps in ``path``, mapped into memory.

    Raises:
        CorruptArtifact: missing, cut short, changed, or written for another place.
    """
    try:
        with safe_open(path, framework="pt") as f:
            found = [f.get_tensor(f"level{i}") for i in range(levels)]
            said = (f.metadata() or {}).get(_HASH)
        stamp = _stamp(path)
    except (SafetensorError, OSError) as e:
        raise _changed(path, e) from None
    if stamp not in _checked:
        if said != _hash(path, found):
            raise _changed(path, "its numbers do not have the hash that was stored with them")
        _checked.add(stamp)
    return found


def _hash(path: Path, levels: Sequence[Tensor]) -> str:
    """Of the numbers and of where they belong: the same numbers under another name are another chip's."""
    h = hashlib.sha256(f"{path.parent.name}/{path.name}".encode())
    for m in levels:
        h.update(f"{tuple(m.shape)} {m.dtype}".encode())
        h.update(m.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return h.hexdigest()


def _stamp(path: Path) -> tuple[str, int, int]:
    facts = path.stat()
    return str(path.absolute()), facts.st_size, facts.st_mtime_ns


def _changed(path: Path, reason: object) -> CorruptArtifact:
    return CorruptArtifact(f"{path} is not what was written ({reason}); delete this file, and it is computed again")


def _remove_abandoned(folder: Path) -> None:
    """Delete what killed runs left half written: some hundred megabytes each, which nobody would ever find."""
    for part in folder.glob(".*.part"):
        try:
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink()
        except OSError:
            pass  # another process was quicker, or it is not ours to delete
