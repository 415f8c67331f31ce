"""Result tables: CSV files whose rows are replaced case by case, so that one case can be measured again alone."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from eosfm.files import atomic_file

RESULTS = Path(__file__).parent / "results"


def read(name: str) -> list[dict[str, str]]:
    """The rows of ``results/<name>``; none where it is not there."""
    path = RESULTS / name
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def store(name: str, rows: Sequence[dict[str, object]], key: str | None = None) -> None:
    """Write ``rows`` to ``results/<name>``; with ``key``, rows whose ``key`` is none of theirs stay."""
    new = {str(r[key]) for r in rows} if key else set()
    before = [r for r in read(name) if r[key] not in new] if key else []
    if any(list(r) != list(rows[0]) for r in before):
        sys.exit(f"{RESULTS / name} has other columns than these rows; delete it, and measure all of it again")
    with atomic_file(RESULTS / name) as tmp, tmp.open("w", newline="", encoding="utf-8") as f:
        table = csv.DictWriter(f, list(rows[0]))
        table.writeheader()
        table.writerows([*before, *rows])
