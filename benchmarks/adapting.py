"""Eighty epochs of adapting an ensemble, with and without cached features: what a step costs, and what writing the cache costs.

python benchmarks/adapting.py            # writes benchmarks/results/adapting/times.csv and prints ratios
python benchmarks/adapting.py scene      # one of the three heads

Workload R of `inference.py` (14 specialists of three bands), chips of 224, PANGAEA's batch of 8. The published way runs
every encoder at every step, in fp32 or under bf16 autocast. Ours reads features that were written once to disk, as `eosfm
adapt` does with `cache_folder`. Both train with PyTorch's fused AdamW. Steps are timed in turns, a process per variant; 80
epochs over N chips are then added up: published 80 N step; ours N write + 80 N step. Validation is left out of both. The
published fusion has batch norms of the features, ours none, as is each one's default.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from result_tables import store
from torch import Tensor

from eosfm.data.chips import Chips
from eosfm.engine.cache import cached_features, can_pool
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.objectives import make_loss
from inference import tell, workload

SIZE, BATCH, CHIPS, EPOCHS, ROUNDS = 224, 8, 64, 80, 3
VARIANTS = ("published fp32", "published bf16", "cached fp32", "cached bf16")
HEADS = {"upernet": HeadConfig(decoder="upernet", channels=128), "linear": HeadConfig(decoder="linear", channels=128),
         "scene": HeadConfig()}  # fmt: skip
"""UPerNet and a linear layer per pixel for segmentation; a linear layer on means for scenes, whose cache holds means"""


def worker(head: str, name: str) -> None:
    """One variant in a process of its own: first what a chip costs once, then a line of JSON per turn."""
    torch.set_num_threads(2)
    ensemble, _ = workload("R", "batch" if name.startswith("published") else "none")
    kind = "classification" if head == "scene" else "segmentation"
    task = TaskSpec(kind=kind, classes=("a", "b"), chip_size=SIZE, head=HEADS[head])
    model = TaskModel(ensemble, task).train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
    loss_of, rounded = make_loss(kind), name.endswith("bf16")
    g = torch.Generator().manual_seed(0)
    x = 1500 + 900 * torch.randn(CHIPS, len(ensemble.bands), SIZE, SIZE, generator=g)
    labels = torch.arange(CHIPS) % 2 if head == "scene" else (x[:, 0] > 1500).long()
    chips = Chips(images=x, labels=labels, bands=ensemble.bands, kind=kind, classes=("a", "b"), name="noise")
    with tempfile.TemporaryDirectory() as folder:
        once, source = 0.0, chips
        forward: Callable[[Tensor], Tensor] = model
        if name.startswith("cached"):
            start = time.perf_counter()
            source = cached_features(  # type: ignore[assignment]
                ensemble, chips, precision="bf16" if rounded else "fp32", folder=Path(folder),
                pooled=can_pool(ensemble, kind),
            )  # fmt: skip
            once, forward = (time.perf_counter() - start) / CHIPS, model.from_features  # type: ignore[assignment]

        def step(number: int) -> None:
            batch, y = source.batch([(number * BATCH + i) % CHIPS for i in range(BATCH)])
            with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
                loss = loss_of(forward(batch), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        for n in range(2):
            step(n)
        tell({"once": once})
        for _ in sys.stdin:
            start = time.perf_counter()
            for n in range(4):
                step(n)
            tell({"step": (time.perf_counter() - start) / 4 / BATCH})


def main() -> None:
    """All heads, all variants, in turns."""
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3])
        return
    for head in sys.argv[1:2] or HEADS:
        rows: list[dict[str, object]] = []
        started = []
        for v in VARIANTS:
            p = subprocess.Popen([sys.executable, __file__, "--worker", head, v], stdin=-1, stdout=-1, text=True)
            assert p.stdin is not None and p.stdout is not None
            started.append((v, p, json.loads(p.stdout.readline())["once"]))
        total: dict[str, list[float]] = {v: [] for v in VARIANTS}
        for _ in range(ROUNDS):
            for v, p, once in started:
                p.stdin.write("go\n")  # type: ignore[union-attr]
                p.stdin.flush()  # type: ignore[union-attr]
                total[v].append(once + EPOCHS * json.loads(p.stdout.readline())["step"])  # type: ignore[union-attr]
        for _, p, _once in started:
            p.communicate()
        peer = min(VARIANTS[:2], key=lambda v: statistics.median(total[v]))
        for v, _, once in started:
            ratios = sorted(a / b for a, b in zip(total[peer], total[v], strict=True))
            seconds = statistics.median(total[v])
            rows.append({"head": head, "variant": v, "seconds_per_chip": round(seconds, 2), "of_it_once": round(once, 3),
                         "step_ms_per_chip": round(1000 * (seconds - once) / EPOCHS, 2), "peer": peer,
                         "ratio": round(statistics.median(ratios), 2),
                         "low": round(ratios[0], 2), "high": round(ratios[-1], 2)})  # fmt: skip
            sys.stdout.write(f"{rows[-1]}\n")
        store("adapting/times.csv", rows, "head")


if __name__ == "__main__":
    main()
