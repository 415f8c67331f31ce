"""The tables of docs/tasks.md, made from `eosfm.benchmark.tasks`.

PYTHONPATH=src .venv/bin/python tests/published/task_table.py   # prints them; a test compares them with the page
"""

import sys

from eosfm.benchmark.tasks import CAPABILITIES, GEO_BENCH_2, PANGAEA, where_to_get

PANGAEA_COLUMNS = (
    "data set",
    "kind",
    "classes",
    "bands and unit, each date",
    "dates",
    "chip",
    "metric",
    "what to heed",
)
GEO_COLUMNS = (
    "task",
    "data set",
    "kind",
    "classes",
    "bands and unit, each date",
    "dates",
    "chip",
    "metric",
    "what to heed",
)
GROUP_COLUMNS = ("task", *CAPABILITIES)


def lines(columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    return "\n".join([f"| {' | '.join(map(str, r))} |" for r in (columns, ("---",) * len(columns), *rows)])


def tables() -> str:
    """The tables, and where PANGAEA's data come from."""
    pangaea = [
        (f"`{n}`", t.kind, t.classes, f"`{t.bands}`", t.dates, t.chip, t.metric, t.note) for n, t in PANGAEA.items()
    ]
    geo = [
        (f"`{n}`", f"`{t.dataset}`", t.kind, t.classes, f"`{t.bands}`", t.dates, t.chip or "", t.metric, t.note)
        for n, t in GEO_BENCH_2.items()
    ]  # fmt: skip
    groups = [(f"`{n}`", *("x" if g in t.groups else "" for g in CAPABILITIES)) for n, t in GEO_BENCH_2.items()]
    sources = [f"- {where_to_get(f'pangaea/{n}')}" for n in PANGAEA]
    return "\n\n".join(
        [lines(PANGAEA_COLUMNS, pangaea), "\n".join(sources), lines(GEO_COLUMNS, geo), lines(GROUP_COLUMNS, groups)]
    )


if __name__ == "__main__":
    sys.stdout.write(tables() + "\n")
