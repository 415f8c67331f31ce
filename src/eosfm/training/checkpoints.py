"""Checkpoints of a training: written atomically, read without unpickling."""

from __future__ import annotations

import shutil
from pathlib import Path
from pickle import UnpicklingError  # the name of torch's refusal; nothing is unpickled here
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from eosfm.contracts import TrainingError
from eosfm.files import OutputError, atomic_file


class AtomicCheckpoints(CheckpointIO):
    """Checkpoints that are whole or absent, and that are read without unpickling code (``weights_only``)."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ARG002
        """Write beside the target, sync, replace."""
        with atomic_file(Path(path)) as tmp:
            try:
                torch.save(checkpoint, tmp)
            except RuntimeError as e:  # how torch reports a full disk, in words that do not say so
                free = shutil.disk_usage(tmp.parent).free / 1e6
                reason = str(e).splitlines()[0]
                raise OutputError(
                    f"cannot write {path}: is the disk full? It has {free:.0f} MB free. Make room and start the same command "
                    f"again; the checkpoint before this one is kept ({reason})"
                ) from e

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Tensors and plain values only; anything else is refused."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint that a better one replaced."""
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint written by `fit`; a broken one says so and how to go on."""
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, UnpicklingError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise TrainingError(f"{path}: not a checkpoint of eosfm ({reason}). Delete it to start afresh.") from None
    return content
