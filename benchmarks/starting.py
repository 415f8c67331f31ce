"""What is waited for before anything is computed: whole processes, cold Python, warm disk. Medians of seven, in turns.

python benchmarks/starting.py            # writes benchmarks/results/starting/times.csv
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_tables import store

from eosfm.specialists.store import save_specialist
from inference import RGB, specialist

ROUNDS = 7
LOAD = "import eosfm; e = eosfm.load({zoo!r}, bands={bands!r})"
CASES = {
    "python alone": "pass",
    "import eosfm": "import eosfm",
    "eosfm --help": "import sys; sys.argv = ['eosfm', '--help']; from eosfm.cli import main; main()",
    "import torch": "import torch",
    "load 14 specialists": LOAD,
    "load 14 and make the fast plan": LOAD + "; eosfm.fused(e)",
    "load 14 and run one chip of 224": LOAD + "; import torch; eosfm.fused(e)(torch.ones(1, 3, 224, 224))",
}


def main() -> None:
    """All cases, in turns."""
    from eosfm.bands import BandSet

    with tempfile.TemporaryDirectory() as folder:
        for i in range(14):
            save_specialist(*specialist(f"rgb-{i}", BandSet.parse(RGB)), Path(folder))
        times: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(ROUNDS):
            for name, code in CASES.items():
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-c", code.format(zoo=folder, bands=RGB)], check=True, stdout=subprocess.DEVNULL
                )
                times[name].append(time.perf_counter() - start)
    rows = [
        {"what": n, "seconds": round(statistics.median(t), 2), "low": round(min(t), 2), "high": round(max(t), 2)}
        for n, t in times.items()
    ]
    store("starting/times.csv", rows)
    for r in rows:
        sys.stdout.write(f"{r['what']}: {r['seconds']} s ({r['low']} to {r['high']})\n")


if __name__ == "__main__":
    main()
