"""The table of published frozen backbones in docs/benchmarks.md, made from `eosfm.benchmark.geobench2_published`.

PYTHONPATH=src .venv/bin/python tests/published/leaderboard_table.py   # prints it; a test compares it with the page
"""

import sys

from eosfm.benchmark.geobench2_published import LEADERBOARD, published
from eosfm.benchmark.iqm import CAPABILITIES, aggregate


def table() -> str:
    """Interquartile means of the groups on whose data sets all ten have rows."""
    runs = published("frozen")
    there = {r.dataset for r in runs}
    groups = [g for g, members in CAPABILITIES.items() if set(members) <= there]
    found = {g: {a.backbone: a.value for a in aggregate(runs, LEADERBOARD, CAPABILITIES[g])} for g in groups}
    order = sorted(found[groups[0]], key=lambda b: -sum(found[g][b] for g in groups))
    rows = [["published, frozen", *groups], ["---"] * (1 + len(groups))]
    rows += [[f"`{b}`", *(f"{found[g][b]:.2f}" for g in groups)] for b in order]
    return "\n".join(f"| {' | '.join(r)} |" for r in rows)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
