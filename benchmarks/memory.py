"""Memory of a whole ensemble's forward: the published loop and the fast plan, a fresh process each, nothing else in it.

python benchmarks/memory.py                  # writes benchmarks/results/memory/peaks.csv
python benchmarks/memory.py S-4-512          # one case of inference.py

Specialists are read from a zoo on disk, as users' are. `loaded_mb` is the resident memory of the process with the model ready;
`above_mb` is what two forwards add to it at their peak; `total_mb` is the highest resident memory from the process's start to
its end, Python, PyTorch and the loading of weights included. Linux only: peaks are read from /proc and reset there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from result_tables import store

from eosfm.composition import load
from eosfm.engine import native
from eosfm.engine.fused import fused
from eosfm.specialists.store import save_specialist
from inference import ALL, RGB, VARIANTS, PublishedLoop, specialist, tell

CASES = ("R-8-224", "S-8-224", "R-1-512", "S-4-512")
REPEATS = 3


def zoo(kind: str, folder: Path) -> None:
    """The specialists of a workload (see `inference.py`), as files."""
    from eosfm.bands import BandSet

    for i in range(14):
        wide = kind == "S" and i >= 10
        save_specialist(*specialist(f"s{i}", BandSet.parse(ALL if wide else RGB)), folder)


def worker(case: str, name: str, folder: str) -> None:
    """One variant: load, run twice, tell."""
    torch.set_num_threads(2)
    kind, batch, size = case.split("-")
    x = torch.empty(int(batch), 13 if kind == "S" else 3, int(size), int(size)).normal_(1500, 900)
    ensemble = load(Path(folder), ALL if kind == "S" else RGB).eval()
    if name.startswith("published"):
        run = PublishedLoop(ensemble, [c.name for c in ensemble.cards])
    else:
        run = fused(
            ensemble, precision="bf16" if "bf16" in name else "fp32",
            kernels="native" if "native" in name else "library", release=True,
        )  # fmt: skip
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    loaded, before = status("VmRSS"), status("VmHWM")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=name == "published loop bf16"):
        for _ in range(2):
            run(x)
    peak = status("VmHWM")
    tell({"loaded_mb": loaded, "above_mb": peak - loaded, "total_mb": max(before, peak)})


def status(field: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def main() -> None:
    """All cases, or those named."""
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:5])
        return
    variants = [v for v in VARIANTS if "native" not in v or native.built()]
    for case in sys.argv[1:] or CASES:
        facts: dict[str, dict[str, float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            zoo(case[0], Path(folder))
            for v in variants:
                told = [
                    json.loads(subprocess.run([sys.executable, __file__, "--worker", case, v, folder], check=True,
                                              stdout=subprocess.PIPE, text=True).stdout)
                    for _ in range(REPEATS)
                ]  # fmt: skip
                facts[v] = {k: round(statistics.median(t[k] for t in told)) for k in told[0]}
        rows = [
            {"case": case, "variant": v, **f}
            | {f"{what}_of_{peer}": round(f[f"{what}_mb"] / facts[f"published loop {peer}"][f"{what}_mb"], 3)
               for peer in ("fp32", "bf16") for what in ("above", "total")}
            for v, f in facts.items()
        ]  # fmt: skip
        for r in rows:
            sys.stdout.write(f"{r}\n")
        sys.stdout.flush()
        store("memory/peaks.csv", rows, "case")


if __name__ == "__main__":
    main()
