"""Which way of learning a selection finds the specialists that matter: the experiment behind `eosfm.fusion.selection`.

python benchmarks/selection_methods.py 10            # seeds; writes benchmarks/results/selection/methods.csv
python benchmarks/selection_methods.py 10 "Gumbel top-k"   # that method only; the others' rows stay

Twelve specialists, three of them informative (`selection_world`), 32 or 6 labelled chips, keep 3. Every method trains the same
fusion and head from the same weights with the same schedule; only the gates differ.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from selection_world import selection_world
from torch import Tensor, nn

from eosfm.ensemble import Ensemble
from eosfm.files import atomic_file
from eosfm.fusion.fuse import make_fusion
from eosfm.fusion.selection import SelectionConfig, TopK
from eosfm.seeding import seeded
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.training.fit import Features, cache_features

KEEP, STEPS, BATCH, RATE = 3, 240, 8, 1e-3
HEAD = HeadConfig(decoder="linear", channels=32, dropout=0.0)


class AllOn(TopK):
    """All are on while exploring, instead of random subsets."""

    def forward(self) -> Tensor:
        if not self.training or self.done > self.config.explore:
            return super().forward()
        return (1 + (self.scores - self.scores.detach()))[self.owner]


class OwnSteps(TopK):
    """Each score with a step of its own, as AdamW takes them by default."""

    def optimiser_group(self) -> dict[str, Any]:
        return super().optimiser_group() | {"eps": 1e-8, "lr": 0.05}


class AllOnOwnSteps(AllOn, OwnSteps):
    """Both: how a selection is usually learnt after a warm-up."""


class FromTheStart(OwnSteps):
    """Exactly ``keep`` are on from the first step: top-k as it is usually written."""

    def most(self) -> int:
        return self.config.keep


class HardConcrete(OwnSteps):
    """Stochastic gates with an L0 penalty (Louizos et al. 2018); the ``keep`` largest are kept."""

    beta, low, high, weight = 2 / 3, -0.1, 1.1, 0.02

    def start(self) -> None:
        with torch.no_grad():
            self.scores.fill_(2.0)

    def forward(self) -> Tensor:
        if not self.training:
            return super().forward()
        u = torch.rand_like(self.scores).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid((u.log() - (1 - u).log() + self.scores) / self.beta)
        return (s * (self.high - self.low) + self.low).clamp(0, 1)[self.owner]

    def penalty(self) -> Tensor:
        """Expected number of open gates, phased in."""
        open_ = torch.sigmoid(self.scores - self.beta * math.log(-self.low / self.high))
        return self.weight * min(1.0, 2 * self.done) * open_.sum()


OURS, ALWAYS = SelectionConfig(keep=KEEP), {"keep": KEEP, "explore": 0.0, "settle": 1.0}
METHODS: dict[str, Callable[[Sequence[str], Sequence[int]], TopK] | None] = {
    "no selection": None,
    "ours: random subsets, one common step": lambda n, o: TopK(n, o, OURS),
    "ours, all on at first": lambda n, o: AllOn(n, o, OURS),
    "ours, a step for each score": lambda n, o: OwnSteps(n, o, OURS),
    "all on at first, a step for each score": lambda n, o: AllOnOwnSteps(n, o, OURS),
    "straight-through top-k": lambda n, o: FromTheStart(n, o, SelectionConfig(noise=0.0, **ALWAYS)),
    "Gumbel top-k": lambda n, o: FromTheStart(n, o, SelectionConfig(**ALWAYS)),
    "hard concrete": lambda n, o: HardConcrete(n, o, SelectionConfig(**ALWAYS)),
}


def train(model: TaskModel, selector: TopK | None, data: Features, seed: int) -> None:
    """The same steps for every method."""
    own = [] if selector is None else [selector.scores]
    rest = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in own)]
    groups = [{"params": rest}, *([] if selector is None else [selector.optimiser_group()])]
    optimiser = torch.optim.AdamW(groups, lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: 0.5 * (1 + math.cos(math.pi * s / STEPS)))
    torch.manual_seed(seed)
    model.train()
    for step in range(STEPS):
        x, y = data.batch(torch.randperm(len(data))[:BATCH].tolist())
        if selector is not None:
            selector.advance(step / STEPS)
        loss = F.cross_entropy(model.from_features(x), y.long())
        if isinstance(selector, HardConcrete):
            loss = loss + selector.penalty()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(rest, 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def trial(seed: int, labels: int, methods: Sequence[str]) -> list[dict[str, object]]:
    """One world: a row per method."""
    splits, specialists, truth = selection_world(seed, train=labels)
    ensemble = Ensemble(specialists, splits.train.bands, statistics=splits.train.statistics())
    data, test = cache_features(ensemble, splits.train), cache_features(ensemble, splits.test)
    task = TaskSpec(kind="segmentation", classes=splits.train.classes, chip_size=64, head=HEAD)
    rows: list[dict[str, object]] = []
    for name in methods:
        make = METHODS[name]
        with seeded(seed):
            ensemble.fusion = make_fusion("conv1x1", len(ensemble.views))
            ensemble.selector = None if make is None else make([c.name for c in ensemble.cards], range(12))
            model = TaskModel(ensemble, task)
        selector = ensemble.selector
        if isinstance(selector, HardConcrete):
            selector.start()
        train(model, selector, data, seed)
        with torch.inference_mode():
            right = (model.from_features(test.batch(range(len(test)))[0]).argmax(1) == test.labels).float().mean()
        found = "" if selector is None else len(set(selector.chosen()) & set(truth))
        rows.append(
            {"labels": labels, "seed": seed, "method": name, "found": found, "accuracy": round(float(right), 4)}
        )
    return rows


def main() -> None:
    """All trials, then the table."""
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    methods = sys.argv[2:] or list(METHODS)
    rows = [r for labels in (32, 6) for seed in range(seeds) for r in trial(seed, labels, methods)]
    path = Path(__file__).parent / "results" / "selection" / "methods.csv"
    if path.exists():
        with path.open(newline="") as f:
            rows = [*(r for r in csv.DictReader(f) if r["method"] not in methods), *rows]
    with atomic_file(path) as tmp, tmp.open("w", newline="") as f:
        table = csv.DictWriter(f, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    for labels in ("32", "6"):
        for name in METHODS:
            mine = [r for r in rows if str(r["labels"]) == labels and r["method"] == name]
            whole = sum(str(r["found"]) == str(KEEP) for r in mine)
            mean = sum(float(str(r["accuracy"])) for r in mine) / max(1, len(mine))
            sys.stdout.write(
                f"{labels} chips, {name}: all {KEEP} found in {whole} of {len(mine)}, accuracy {mean:.3f}\n"
            )


if __name__ == "__main__":
    main()
