"""Training one specialist on real JPEG pictures with augmentation, beside the bare step of timm's network on ready tensors.

python benchmarks/train_step.py ../shared/data     # writes benchmarks/results/training/times.csv

EuroSAT in colour, 64 pixels, batches of 32, fp32. The bare step is forward, loss, backward and AdamW of timm's ConvNeXtV2-Atto,
eager, with batches that lie in memory as tensors; ours is `eosfm train` as users run it: pictures decoded, checked and turned in
the clock, logs and checkpoints written. Validation is left out of both. Processes take turns, about 100 steps each.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from result_tables import store

BATCH, STEPS, ROUNDS = 32, 112, 3


def bare(_: Path) -> float:
    """timm's network and nothing else."""
    import timm

    torch.manual_seed(0)
    net = timm.create_model("convnextv2_atto", pretrained=False, num_classes=10).train()
    optimiser, loss_of = torch.optim.AdamW(net.parameters(), lr=1e-3), torch.nn.CrossEntropyLoss()
    x, y = torch.randn(BATCH, 3, 64, 64), torch.randint(0, 10, (BATCH,))
    start = 0.0
    for step in range(STEPS + 10):
        if step == 10:
            start = time.perf_counter()
        loss = loss_of(net(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return BATCH * STEPS / (time.perf_counter() - start)


def ours(data: Path) -> float:
    """`eosfm train`: the clock runs from the tenth step to the end of the second epoch."""
    from eosfm.data.files import DataConfig, open_data
    from eosfm.training.fit import train_specialist
    from eosfm.training.settings import FitConfig

    half = BATCH * STEPS // 2 // 10
    splits = open_data(DataConfig(kind="dataset", dataset="eurosat-rgb", root=data, per_class=half))
    seen: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        train_specialist(
            splits, FitConfig(epochs=2, batch_size=BATCH, learning_rate=1e-3, augment=True, validate_every=2), Path(folder),
            name="eurosat", run=Path(folder) / "run", progress=lambda f, _: seen.append((f, time.perf_counter())),
        )  # fmt: skip
    steps = [(f, t) for f, t in seen if 0 < f <= 1]
    total = 2 * -(-len(splits.train) // BATCH)
    (f0, t0), (f1, t1) = steps[9], next(s for s in reversed(steps) if s[0] < 1)
    return BATCH * total * (f1 - f0) / (t1 - t0)


def main() -> None:
    """Both in turns."""
    kinds = {"bare eager step": bare, "eosfm train": ours}
    if sys.argv[1] == "--worker":
        torch.set_num_threads(2)
        sys.stdout.write(f"\n{kinds[sys.argv[2]](Path(sys.argv[3]))}\n")
        return
    rates: dict[str, list[float]] = {k: [] for k in kinds}
    for _ in range(ROUNDS):
        for kind, rate in rates.items():
            done = subprocess.run(
                [sys.executable, __file__, "--worker", kind, sys.argv[1]], check=True, stdout=subprocess.PIPE, text=True
            )
            rate.append(float(done.stdout.splitlines()[-1]))
    peer, rows = rates["bare eager step"], []
    for kind, rate in rates.items():
        ratio = sorted(a / b for a, b in zip(rate, peer, strict=True))
        rows.append({"what": kind, "images_per_second": round(statistics.median(rate), 1),
                     "ratio": round(statistics.median(ratio), 2), "low": round(ratio[0], 2),
                     "high": round(ratio[-1], 2)})  # fmt: skip
        sys.stdout.write(f"{rows[-1]}\n")
    store("training/times.csv", rows)


if __name__ == "__main__":
    main()
