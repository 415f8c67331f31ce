"""Learned top-k selection: which specialists are worth keeping, learnt with fusion and head (paper, v2: a "selection layer").

    explore: all specialists on  ->  thin out: n falls to k, by noisy scores  ->  settle: the k best, nothing else moves

The forward is always hard: a specialist is on or off, as it will be after pruning. Backwards the gate passes for a sigmoid
of its score (straight-through), so every gate has a gradient, also one that is off: that of what its view would have added.
The published selection has none: its mask is made of constants, all scores start equal, and the choice is a tie-break.
Why all are on at first: columns of the fusion that never trained say nothing about their specialist
(`benchmarks/selection_methods.py` compares; docs/selection.md shows the figures).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eosfm.config import record
from eosfm.contracts import ConfigError


@record
class SelectionConfig:
    """How a selection is learnt; the schedules are shares of all training steps."""

    keep: int
    """specialists to keep, of those that can read the input"""
    explore: float = 0.2
    """until then all specialists are on"""
    settle: float = 0.6
    """from then on exactly ``keep`` are on, and scores no longer move"""
    noise: float = 1.0
    """Gumbel noise on the scores while specialists are thinned out, falling to 0: near ties are tried both ways"""
    temperature: float = 2.0
    """of the sigmoid behind the gates' gradients; falls to a fifth"""
    learning_rate: float = 0.05
    """of the scores"""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ValueError(f"keep {self.keep}; expected at least 1 specialist")
        if not 0 <= self.explore <= self.settle <= 1:
            raise ValueError(f"explore {self.explore}, settle {self.settle}; expected 0 <= explore <= settle <= 1")
        if self.noise < 0 or self.temperature <= 0 or not 0 < self.learning_rate < 10:
            raise ValueError(
                f"noise {self.noise}, temperature {self.temperature}, learning_rate {self.learning_rate}; "
                "expected noise of 0 or more, and positive numbers"
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
        self.register_buffer("owner", torch.tensor(list(owner)), persistent=False)

    def advance(self, done: float) -> None:
        """Say which share of the training steps is over; the training loop does."""
        self.done = done

    def kept(self) -> int:
        """How many specialists are on at this point of the training (`keep`, outside of it)."""
        c, n = self.config, len(self.names)
        if not self.training or self.done >= c.settle:
            return c.keep
        if self.done <= c.explore:
            return n
        share = (self.done - c.explore) / (c.settle - c.explore)
        return c.keep + round((n - c.keep) * (1 - share) ** 3)  # most go early, the last ones are weighed longest

    def forward(self) -> Tensor:
        """Gates ``(views,)``: 1 for the views of the specialists that are on, 0 for the others."""
        n, k, c = len(self.names), self.kept(), self.config
        if c.keep == n:
            return torch.ones_like(self.owner, dtype=self.scores.dtype)
        settled = not self.training or self.done >= c.settle
        noisy = self.scores.detach()
        if not settled and k < n:
            share = (self.done - c.explore) / (c.settle - c.explore)
            uniform = torch.rand(n, device=noisy.device).clamp(1e-6, 1 - 1e-6)
            noisy = noisy - c.noise * (1 - share) * torch.log(-torch.log(uniform))
        order = noisy.argsort(descending=True, stable=True)
        hard = torch.zeros_like(noisy).index_fill(0, order[:k], 1.0)
        if settled:
            return hard[self.owner]
        ranked = noisy[order]
        border = (ranked[k - 1] + ranked[k]) / 2 if k < n else ranked.mean()
        temperature = c.temperature * (1 - 0.8 * min(1.0, self.done / max(c.settle, 1e-9)))
        soft = torch.sigmoid((noisy + (self.scores - self.scores.detach()) - border) / temperature)
        return (hard + (soft - soft.detach()))[self.owner]  # exactly hard

    def chosen(self) -> list[str]:
        """The names of the ``keep`` best scores, in the ensemble's order."""
        best = self.scores.detach().argsort(descending=True, stable=True)[: self.config.keep].tolist()
        return [self.names[i] for i in sorted(best)]
