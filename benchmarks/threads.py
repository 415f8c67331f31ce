"""Images per second of one ConvNeXtV2-Atto training step (64 px, batch 32) with N threads; OMP_WAIT_POLICY comes from the caller.

.venv/bin/python benchmarks/threads.py 1
OMP_WAIT_POLICY=PASSIVE .venv/bin/python benchmarks/threads.py 2
"""

import sys
import time

import torch
import torch.nn.functional as F

from eosfm.specialists.encoder import untrained_encoder


def main(threads: int, steps: int = 10) -> None:
    torch.set_num_threads(threads)
    encoder, head = untrained_encoder(6, seed=0), torch.nn.Linear(320, 10)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 1e-3)
    x, y = torch.randn(32, 6, 64, 64), torch.randint(0, 10, (32,))

    def step() -> None:
        loss = F.cross_entropy(head(encoder(x)[-1].mean((-2, -1))), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    print(f"{threads} threads: {32 * steps / (time.perf_counter() - start):.0f} images/s")


if __name__ == "__main__":
    main(int(sys.argv[1]))
