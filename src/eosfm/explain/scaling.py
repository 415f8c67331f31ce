"""Does the ensemble grow with its specialists? The paper's Figure 2: activate encoders one by one, and watch the score.

Two modes: "ablation" switches specialists of one trained model off, as the paper does, which is cheap but asks the fusion
for sums it was never trained on; "refit" trains fusion and head anew at each size, which is what a user would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosfm.config import read_json
from eosfm.contracts import ConfigError, CorruptArtifact
from eosfm.files import write_json
from eosfm.seeding import purpose_seed
from eosfm.training.settings import Progress

Array = NDArray[np.float64]
Subset = frozenset[int]
SHAPES = np.geomspace(0.15, 12.0, 60)
"""scales (in specialists) that are tried for the saturating curve"""


class SubsetScores:
    """Scores of subsets in a file: each is there, whole, or not; a killed run continues where it was.

    Raises:
        ConfigError: the file is of another model, data or settings.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path, self.identity, self.scores = path, identity, dict[str, float]()
        if path.exists():
            content = read_json(path, error=CorruptArtifact)
            if not isinstance(content, dict) or not isinstance(content.get("scores"), dict):
                raise CorruptArtifact(f"{path}: not a ledger of scores; delete it to compute it again")
            if content.get("identity") != identity:
                raise ConfigError(
                    f"{path} holds scores of another model, data or settings; choose another output, or --overwrite"
                )
            self.scores = {str(k): float(v) for k, v in content["scores"].items()}

    def get(self, mode: str, seed: int, names: Sequence[str], compute: Callable[[], float]) -> float:
        """The score of the specialists ``names``, from the file or else computed and written."""
        key = f"{mode} {seed} {'+'.join(sorted(names))}"
        if key not in self.scores:
            self.scores[key] = compute()
            write_json(self.path, {"identity": self.identity, "scores": self.scores})
        return self.scores[key]


@dataclass(frozen=True)
class Growth:
    """Scores over sizes: ``scores[o][k]`` with the first ``k + 1`` specialists of ``orders[o]``."""

    mode: str
    orders: tuple[tuple[int, ...], ...]
    scores: Array
    """``(orders, n)``, more is better"""

    @property
    def sizes(self) -> list[int]:
        """1 to n."""
        return list(range(1, self.scores.shape[1] + 1))

    def spread(self) -> tuple[Array, Array, Array]:
        """Mean over orders, and the 2.5 % and 97.5 % quantiles of single orders: how much the order matters."""
        low, high = np.quantile(self.scores, [0.025, 0.975], axis=0)
        return self.scores.mean(0), low, high


def random_orders(n: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """``count`` random orders of ``n`` specialists."""
    rng = np.random.default_rng(purpose_seed(seed, "scaling orders"))
    return [tuple(rng.permutation(n).tolist()) for _ in range(count)]


def grow(
    mode: str, orders: Sequence[tuple[int, ...]], names: Sequence[str], score: Callable[[Subset, int], float],
    ledger: SubsetScores, *, seeds: Sequence[int], progress: Progress | None = None,
) -> Growth:  # fmt: skip
    """Score every prefix of every order with ``score(subset, seed)``; what ``ledger`` knows is not computed again."""
    n, rows = len(names), []
    for o, (order, seed) in enumerate(zip(orders, seeds, strict=True)):
        row = []
        for k in range(1, n + 1):
            s = frozenset(order[:k])
            row.append(ledger.get(mode, seed, [names[i] for i in s], lambda s=s, seed=seed: score(s, seed)))  # type: ignore[misc]
            if progress:
                progress((o * n + k) / (n * len(orders)), f"{mode}: order {o + 1} of {len(orders)}, {k} specialists")
        rows.append(row)
    return Growth(mode, tuple(orders), np.array(rows))


@dataclass(frozen=True)
class Curve:
    """``limit - gap * exp(-(size - 1) / scale)``: what the score saturates at, and how fast."""

    limit: float
    gap: float
    scale: float

    def __call__(self, size: float) -> float:
        """The fitted score with ``size`` specialists."""
        return self.limit - self.gap * float(np.exp(-(size - 1) / self.scale))


def saturating(sizes: Sequence[float], scores: Array) -> Curve:
    """Least squares over ``scores`` ``(orders, sizes)``; the scale is searched on a grid, so the result cannot diverge."""
    x, y = np.asarray(sizes, float), scores.mean(0)
    best: tuple[float, Curve] | None = None
    for scale in SHAPES:
        basis = np.stack([np.ones_like(x), -np.exp(-(x - 1) / scale)], 1)
        (limit, gap), *_ = np.linalg.lstsq(basis, y, rcond=None)
        error = float(((basis @ (limit, gap) - y) ** 2).sum())
        if best is None or error < best[0]:
            best = error, Curve(float(limit), float(gap), float(scale))
    assert best is not None
    return best[1]


@dataclass(frozen=True)
class Outlook:
    """What the fitted curve says of as many specialists again: the gain, with an interval over orders."""

    curve: Curve
    gain: float
    low: float
    high: float
    mode: str
    orders: int

    def verdict(self, useful: float = 0.005) -> str:
        """One sentence; ``useful`` is the gain below which one would not bother."""
        if self.mode == "ablation":
            return (
                "The curve of one trained model says what its specialists carry in it. It cannot be extrapolated: with fewer "
                "or more of them another model would have been trained."
            )
        range_ = f"{self.gain:+.3f} ({self.low:+.3f} to {self.high:+.3f}, from {self.orders} orders)"
        if self.low > useful:
            return f"More specialists of this kind would probably help: as many again are extrapolated to add {range_}."
        if self.high < useful:
            return f"The curve has saturated: as many specialists again are extrapolated to add {range_}."
        return f"The curve does not say whether more would help: as many again are extrapolated to add {range_}."


def outlook(growth: Growth, seed: int = 0, resamples: int = 200) -> Outlook:
    """Extrapolate to twice the size. The interval resamples orders; it knows nothing of specialists that do not exist yet."""
    n = len(growth.sizes)
    curve = saturating(growth.sizes, growth.scores)
    rng = np.random.default_rng(purpose_seed(seed, "outlook"))
    gains = []
    for _ in range(resamples):
        drawn = growth.scores[rng.integers(len(growth.scores), size=len(growth.scores))]
        c = saturating(growth.sizes, drawn)
        gains.append(c(2 * n) - c(n))
    low, high = np.quantile(gains, [0.025, 0.975])
    return Outlook(curve, curve(2 * n) - curve(n), float(low), float(high), growth.mode, len(growth.orders))
