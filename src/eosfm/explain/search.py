"""Which subset of specialists to keep: forward, backward and exhaustive search over any score of subsets.

The search sees numbers and a function only; `eosfm.explain.contributions.SubsetScorer.scores` is the cheap one,
`eosfm.explain.refit.Refit.scores` trains the fusion anew for each subset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from eosfm.contracts import ConfigError

Subset = frozenset[int]
Score = Callable[[Sequence[Subset]], Sequence[float]]
"""scores of subsets, more is better"""
Method = Literal["forward", "backward", "exhaustive"]
MOST = 12
"""specialists up to which all subsets are tried (4,095 of them)"""


@dataclass(frozen=True)
class Step:
    """The best subset of one size that the search has found."""

    members: Subset
    score: float


def search(score: Score, n: int, method: Method, *, smallest: int = 1, largest: int | None = None) -> list[Step]:
    """The best subset found of each size, from small to large.

    Args:
        score: of subsets of ``range(n)``.
        n: specialists.
        method: "forward" adds the one that helps most, from none; "backward" drops the one that hurts least, from all;
            "exhaustive" tries every subset.
        smallest: sizes below are left out.
        largest: sizes above are left out; default ``n``.

    Raises:
        ConfigError: an unknown method, sizes that do not exist, or too many specialists to try all subsets.
    """
    last = n if largest is None else largest
    if not 1 <= smallest <= last <= n:
        raise ConfigError(
            f"subsets of {smallest} to {last} of {n} specialists; expected 1 <= smallest <= largest <= {n}"
        )
    if method == "forward":
        steps = _forward(score, n, last)
    elif method == "backward":
        steps = _backward(score, n, smallest)
    elif method == "exhaustive":
        if n > MOST:
            raise ConfigError(
                f"{n} specialists have {2**n - 1} subsets; exhaustive search takes up to {MOST}. Use forward or backward."
            )
        steps = _exhaustive(score, n, smallest, last)
    else:
        raise ConfigError(f"search method {method!r}; known: forward, backward, exhaustive")
    return [s for s in steps if smallest <= len(s.members) <= last]


def smallest_within(steps: Sequence[Step], tolerance: float) -> Step:
    """The smallest subset whose score is at most ``tolerance`` below that of the largest one (or of a better one)."""
    full = max(steps, key=lambda s: len(s.members)).score
    return min((s for s in steps if s.score >= full - tolerance), key=lambda s: len(s.members))


def _forward(score: Score, n: int, largest: int) -> list[Step]:
    now, steps = frozenset[int](), []
    while len(now) < largest:
        steps.append(_best(score, [now | {i} for i in range(n) if i not in now]))
        now = steps[-1].members
    return steps


def _backward(score: Score, n: int, smallest: int) -> list[Step]:
    steps = [_best(score, [frozenset(range(n))])]
    while len(steps[-1].members) > smallest:
        now = steps[-1].members
        steps.append(_best(score, [now - {i} for i in sorted(now)]))
    return steps[::-1]


def _exhaustive(score: Score, n: int, smallest: int, largest: int) -> list[Step]:
    return [_best(score, [frozenset(c) for c in combinations(range(n), k)]) for k in range(smallest, largest + 1)]


def _best(score: Score, subsets: Sequence[Subset]) -> Step:
    values = score(subsets)
    i = max(range(len(subsets)), key=values.__getitem__)  # the first of equals, so that results repeat
    return Step(subsets[i], values[i])
