"""Summaries over seeds: what is chosen on validation is the better one, whichever way its score counts."""

from __future__ import annotations

import numpy as np
import pytest

from eosfm.benchmark.compare import Comparison, Row
from eosfm.benchmark.results import SINGLE, best_single, summarise
from eosfm.training.scoring import scores_from


def comparison(kind: str, table: np.ndarray, validation: dict[str, float]) -> Comparison:
    scores = scores_from(kind, table, ("a", "b"), 0)
    rows = [Row(SINGLE + n, 0, (n,), scores, v, 0, 0, 0.0, 0.0) for n, v in validation.items()]
    return Comparison(0, rows, {}, "")


@pytest.mark.parametrize(
    ("kind", "table", "best"),
    [
        ("regression", np.array([[4.0, 1.0, 4.0, 6.0], [4.0, 2.0, 8.0, 17.0]]), "small"),
        ("classification", np.eye(2, dtype=np.int64)[None].repeat(2, 0), "large"),
    ],
)
def test_the_best_single_of_a_regression_has_the_smallest_error(kind, table, best):
    """The largest RMSE was "the best single specialist" of a page, so an ensemble looked better than it was."""
    summaries = summarise([comparison(kind, table, {"middle": 0.5, "small": 0.1, "large": 0.9})], kind)
    chosen = best_single(summaries)
    assert chosen is not None and chosen.method == SINGLE + best
