"""Shapley values (Shapley 1953): each player's gain, averaged over all orders in which the players can join.

Exact where all subsets are fewer than the samples asked for; otherwise over random orders, each followed by its reverse
(antithetic, which halves the variance of near-additive games). Their sum is the value of all minus that of none, always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Subset = frozenset[int]
Value = Callable[[Sequence[Subset]], Array]
"""``(subsets, m)`` values: several games at once, such as the scores of all classes"""


@dataclass(frozen=True)
class Shapley:
    """Values ``(n, m)`` and their standard errors (0 where exact)."""

    values: Array
    errors: Array
    orders: int
    """random orders that were walked; 0 where exact"""


def shapley(value: Value, n: int, *, orders: int = 64, seed: int = 0) -> Shapley:
    """Shapley values of ``n`` players; see the module's text.

    Args:
        value: of subsets of ``range(n)``; called once for all that are needed.
        n: players.
        orders: random orders, rounded up to an even number.
        seed: of the orders.
    """
    if 2**n <= orders * n:
        return Shapley(_exact(value, n), np.zeros((n, value([frozenset()]).shape[1])), 0)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(n) for _ in range(-(-orders // 2))]
    walks = [w for d in drawn for w in (d, d[::-1])]
    chains = [[frozenset(w[:i].tolist()) for i in range(n + 1)] for w in walks]
    flat = [s for chain in chains for s in chain]
    different = list(dict.fromkeys(flat))
    at = dict(zip(different, value(different), strict=True))
    gains = np.zeros((len(walks), n, len(at[frozenset()])))
    for k, (w, chain) in enumerate(zip(walks, chains, strict=True)):
        steps = np.diff(np.stack([at[s] for s in chain]), axis=0)
        gains[k, w] = steps
    pairs = gains.reshape(-1, 2, n, gains.shape[-1]).mean(1)  # an order and its reverse are not independent
    errors = pairs.std(0, ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else np.full(pairs.shape[1:], np.nan)
    return Shapley(pairs.mean(0), errors, len(walks))


def _exact(value: Value, n: int) -> Array:
    subsets = [frozenset(c) for k in range(n + 1) for c in combinations(range(n), k)]
    at = dict(zip(subsets, value(subsets), strict=True))
    out = np.zeros((n, len(at[frozenset()])))
    for s in subsets:
        for i in set(range(n)) - s:
            out[i] += (at[s | {i}] - at[s]) / (n * comb(n - 1, len(s)))
    return out
