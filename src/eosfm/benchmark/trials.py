"""Hyper-parameter trials of GEO-Bench-2: learning rate and batch size, judged on the validation split.

Trial 0 is the case's own setting, the n-th draws by n alone: all models of all cases try the same values, and more trials
begin with those of fewer. A training that diverges is a trial without a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from eosfm.benchmark.ledger import Row
from eosfm.benchmark.protocol import GeoBench2
from eosfm.config import record
from eosfm.seeding import purpose_seed
from eosfm.tasks.kinds import KINDS
from eosfm.training.settings import FitConfig

LOWER_IS_BETTER = ("regression",)
"""kinds whose validation score is an error"""
assert set(LOWER_IS_BETTER) < set(KINDS)


@record
class Hyper:
    """What a trial tries."""

    learning_rate: float
    weight_decay: float
    batch_size: int

    def of(self, config: FitConfig) -> FitConfig:
        """``config`` with these values."""
        return replace(
            config, learning_rate=self.learning_rate, weight_decay=self.weight_decay, batch_size=self.batch_size
        )

    def __str__(self) -> str:
        return f"lr {self.learning_rate:.1e}, decay {self.weight_decay:.1e}, batch {self.batch_size}"


def hyper(number: int, base: FitConfig, protocol: GeoBench2, *, things: bool = False) -> Hyper:
    """What trial ``number`` tries; ``base`` is the training of the case. ``things``: of detection the batch size is fixed."""
    if number == 0:
        return Hyper(learning_rate=base.learning_rate, weight_decay=base.weight_decay, batch_size=base.batch_size)
    rng = np.random.default_rng(purpose_seed(0, "trial", number))

    def between(low: float, high: float) -> float:
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")

    return Hyper(
        learning_rate=between(*protocol.search_learning_rate), weight_decay=base.weight_decay,
        batch_size=base.batch_size if things else int(rng.choice(protocol.search_batch_size)),
    )  # fmt: skip


def best(trials: Sequence[Row]) -> Row | None:
    """The trial with the best validation score, the earlier of equals; None where none has a score."""
    scored = [t for t in trials if t["validation"] is not None]
    sign = -1 if trials and trials[0]["kind"] in LOWER_IS_BETTER else 1
    return max(scored, key=lambda t: (sign * t["validation"], -t["trial"])) if scored else None
