"""Results as JSON lines: a row is there, whole, or it is not; each at most once; nothing that was measured is lost."""

from __future__ import annotations

import fcntl
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import ConfigError, CorruptArtifact
from eosfm.files import OutputError, atomic_file, sha256_bytes

Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """What one run gives: counts per test chip, scores, and what they cost."""

    table: NDArray[Any]
    metrics: list[dict[str, Any]]
    """name, value, low, high; the main score first. Intervals over test chips"""
    validation: float | None
    parameters: int
    trained: int
    note: str = ""
    weights: str = ""
    """hash of the frozen weights of a named baseline"""


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no score")


def _require_whole(row: Row) -> None:
    """`TypeError` or `KeyError` unless ``row`` has what a page is made of."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "case": str, "model": str, "seed": int, "kind": str, "metrics": list, "parameters": int, "seconds": (int, float),
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(row[name], kind):
            raise TypeError(f"{name} is {row[name]!r}")
    if not row["metrics"] or not all(isinstance(m, dict) and isinstance(m["name"], str) for m in row["metrics"]):
        raise TypeError("metrics are not those of a row")
    row["validation"]


class Ledger:
    """``results.jsonl`` of a folder, with the scores of single chips in ``chips/<key>.npz``; ``trials.jsonl`` without.

    A row is one write to the end of the file, after its chips; what a killed process left of a line is cut off when the
    file is opened to write.
    """

    def __init__(self, folder: Path, name: str = "results.jsonl") -> None:
        self.folder, self.path = folder, folder / name

    @contextmanager
    def writing(self) -> Iterator[Ledger]:
        """Alone with the folder.

        Raises:
            ConfigError: another process writes to it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = (self.folder / ".lock").open("w")
        except (OSError, ValueError) as e:
            raise OutputError(f"cannot write into {self.folder}: {e}; choose another output") from None
        with held as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"{self.path}: another process is writing; wait for it, or choose another output"
                ) from None
            self.mend()
            yield self

    def rows(self) -> list[Row]:
        """All rows, in the order in which they were measured.

        Raises:
            CorruptArtifact: a line that is no row, other than a torn last one.
        """
        try:
            if not self.path.exists():
                return []
            text = self.path.read_text(encoding="utf-8")
        except (OSError, ValueError) as e:
            raise CorruptArtifact(f"{self.path}: {e}; choose another output, or delete it and measure again") from None
        lines = text.split("\n")
        out = []
        for number, line in enumerate(lines[:-1], 1):  # what follows the last line break was never finished
            try:
                row = json.loads(line, parse_constant=_no_number)
                if not isinstance(row, dict) or not isinstance(row["key"], str):
                    raise TypeError("not a row")
                if "trial" not in row:
                    _require_whole(row)
            except (ValueError, KeyError, TypeError, RecursionError) as e:
                raise CorruptArtifact(
                    f"{self.path}, line {number}: {e}; delete the line, and it is measured again"
                ) from None
            out.append(row)
        return out

    def add(self, row: Row, table: NDArray[Any] | None = None) -> None:
        """Write ``row`` and, where it was scored, the counts of its test chips ``table``."""
        if table is not None:
            packed = io.BytesIO()
            np.savez_compressed(packed, table=table)
            with atomic_file(self.folder / "chips" / f"{row['key']}.npz") as tmp:
                tmp.write_bytes(packed.getvalue())
            row = {**row, "chips_sha256": sha256_bytes(packed.getvalue())}
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(fd, line)
            if written != len(line):  # a full disk; the rest of the line would become the next row's beginning
                os.ftruncate(fd, os.fstat(fd).st_size - written)
                raise OutputError(
                    f"cannot write {self.path}: {written} of {len(line)} bytes; make room and start again"
                )
            os.fsync(fd)
        finally:
            os.close(fd)

    def table(self, row: Row) -> NDArray[Any]:
        """The counts of a row's test chips.

        Raises:
            CorruptArtifact: they are not there, or not those that were written with the row.
        """
        path = self.folder / "chips" / f"{row['key']}.npz"
        try:
            data = path.read_bytes()
            if row.get("chips_sha256", "") not in ("", sha256_bytes(data)):
                raise ValueError("another file than was written")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                return np.asarray(arrays["table"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
            said = type(e).__name__ if isinstance(e, ValueError) else e  # numpy would advise to unpickle it
            raise CorruptArtifact(
                f"{path}: not the counts of test chips ({said}); delete its row in {self.path.name}, and it is measured again"
            ) from None

    def mend(self) -> None:
        """Cut off what a killed process left of a line; for who is alone with the folder."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self.path.open("rb+") as f:
                f.truncate(whole)
                os.fsync(f.fileno())
