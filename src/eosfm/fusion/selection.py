"""Learned top-k selection: which specialists are worth keeping, learnt with fusion and head (paper, v2: a "selection layer").

    explore: random subsets  ->  thin out: the worse ones leave, by noisy scores  ->  settle: the k best, nothing else moves

The forward is always hard: a specialist is on or off, as it will be after pruning. The gradient passes straight through to
the score of every gate, also of one that is off: that of what its view would have added. The published selection has none:
its mask is made of constants, all scores start equal, and the choice is a tie-break.

Figures: docs/selection.md (`benchmarks/selection_methods.py`). What decides is that all specialists take part before any is
dropped: columns of the fusion that never trained say nothing about their specialist, and top-k from the first step finds what
matters in one world of twenty. The scores take one common step, because an optimiser that scales each of them alone moves a
useless one as fast as a useful one; with very few labels that is worth two points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from eosfm.config import record
from eosfm.contracts import ConfigError


@record
class SelectionConfig:
    """How a selection is learnt; the schedules are shares of all training steps."""

    keep: int
    """specialists to keep, of those that can read the input"""
    explore: float = 0.4
    """until then random subsets of ``keep`` to all specialists are on"""
    settle: float = 0.7
    """from then on exactly ``keep`` are on, and scores no longer move; until then ever fewer are"""
    noise: float = 1.0
    """Gumbel noise on the scores that falls to 0 while specialists are thinned out: near ties are tried both ways"""
    learning_rate: float = 0.3
    """of the scores; their gradients are scaled to a common length of 1"""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep {self.keep}; expected at least 1 specialist")
        if not 0 <= self.explore <= self.settle <= 1:
            raise ValueError(f"explore {self.explore}, settle {self.settle}; expected 0 <= explore <= settle <= 1")
        if self.noise < 0 or not 0 < self.learning_rate < 10:
            raise ValueError(
                f"noise {self.noise}, learning_rate {self.learning_rate}; expected 0 or more, and a positive number"
            )


class TopK(nn.Module):
    """One score per specialist; gates for their views. See `SelectionConfig`.

    Args:
        names: of the specialists.
        owner: for each view the number of its specialist: the views of one specialist live and die together.
        config: see `SelectionConfig`; ``keep`` of all of them switches the selection off.

    Raises:
        ConfigError: ``keep`` is more than there are.
    """

    owner: Tensor

    def __init__(self, names: Sequence[str], owner: Sequence[int], config: SelectionConfig) -> None:
        super().__init__()
        if config.keep > len(names):
            raise ConfigError(
                f"selection: keep {config.keep} of {len(names)} specialists that can read this input ({', '.join(names)}); "
                f"expected at most {len(names)}"
            )
        self.names, self.config, self.done = tuple(names), config, 0.0
        self.scores = nn.Parameter(torch.zeros(len(names)), requires_grad=config.keep < len(names))
        if self.scores.requires_grad:
            self.scores.register_hook(_unit)  # type: ignore[no-untyped-call]
        self.register_buffer("owner", torch.tensor(list(owner)), persistent=False)

    def optimiser_group(self) -> dict[str, Any]:
        """How AdamW must treat the scores: under an epsilon far above their gradients it takes one common step for all."""
        far = 10.0  # the gradients have length 1
        return {"params": [self.scores], "lr": far * self.config.learning_rate, "weight_decay": 0.0, "eps": far}

    def advance(self, done: float) -> None:
        """Say which share of the training steps is over; the training loop does."""
        self.done = done

    def most(self) -> int:
        """How many specialists are on at this point of the training at the most (`keep`, outside of it)."""
        c, n = self.config, len(self.names)
        if not self.training or self.done >= c.settle:
            return c.keep
        # most go early, the last ones are weighed longest
        return c.keep + round((n - c.keep) * (1 - self._thinned()) ** 3)

    def forward(self) -> Tensor:
        """Gates ``(views,)``: 1 for the views of the specialists that are on, 0 for the others."""
        n, k, c = len(self.names), self.most(), self.config
        if c.keep == n:
            return torch.ones_like(self.owner, dtype=self.scores.dtype)
        settled = not self.training or self.done >= c.settle
        worth = self.scores.detach()
        if not settled:
            k = int(torch.randint(c.keep, k + 1, (1,)))
            uniform = torch.rand(n, device=worth.device).clamp(1e-6, 1 - 1e-6)
            worth = worth - c.noise * (1 - self._thinned()) * torch.log(-torch.log(uniform))
        best = worth.argsort(descending=True, stable=True)[:k]
        hard = torch.zeros_like(worth).index_fill(0, best, 1.0)
        if not settled:
            hard = hard + (self.scores - self.scores.detach())  # exactly hard; the gate's gradient is the score's
        return hard[self.owner]

    def _thinned(self) -> float:
        """Which share of the thinning out is over."""
        c = self.config
        return min(1.0, max(0.0, (self.done - c.explore) / max(c.settle - c.explore, 1e-9)))

    def chosen(self) -> list[str]:
        """The names of the ``keep`` best scores, in the ensemble's order."""
        best = self.scores.detach().argsort(descending=True, stable=True)[: self.config.keep].tolist()
        return [self.names[i] for i in sorted(best)]


def _unit(gradient: Tensor) -> Tensor:
    """``gradient`` at length 1: what counts is which specialist matters more, not how steep the loss is."""
    unit: Tensor = gradient / gradient.norm().clamp_min(1e-12)
    return unit
