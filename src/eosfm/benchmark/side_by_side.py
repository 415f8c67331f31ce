"""Which rows may stand side by side: those of one case saw the same data, and those of one name have the same weights.

A row's key holds neither the hash of the data's files nor that of another library's weights, for both are known only after
they were read. So each new row is compared with those that are there, and these with each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from eosfm.benchmark.ledger import Row
from eosfm.benchmark.suite import Case
from eosfm.contracts import ConfigError

PARTS = ("training", "validation", "test")


def require_same_data(case: Case, row: Row, rows: Sequence[Row]) -> None:
    """`ConfigError` where ``row`` of ``case`` saw other chips than ``rows`` of the same suite did.

    With ``draw`` each seed has chips of its own, and with ``labels`` below 1 training chips of its own: these are compared
    with those of their own seed. ``rows`` of other cases are passed over.
    """
    for r in rows:
        same_seed = r["seed"] == row["seed"]
        if r["case"] != case.name or r["key"] == row["key"] or (case.draw and not same_seed):
            continue
        pairs = zip(PARTS, row.get("data_sha256") or (), r.get("data_sha256") or (), strict=False)
        differ = [p for p in pairs if p[1] != p[2] and (p[0] != "training" or case.labels == 1 or same_seed)]
        if differ:
            part, mine, theirs = differ[-1]
            raise ConfigError(
                f"the {part} chips have hash {mine[:12]}, those of the row of {r['model']}, seed {r['seed']}, {theirs[:12]}: the "
                "data's files were changed between the two, and the scores cannot be compared. Bring the files back that were "
                f"there, or measure into another output, or delete the lines of {case.name} in results.jsonl: they are "
                "measured again"
            )


def require_same_weights(row: Row, rows: Sequence[Row]) -> None:
    """`ConfigError` where ``row`` would stand beside rows of the same name and other weights.

    Random weights differ by seed, so they are compared with those of their own seed.
    """
    mine = row["weights_sha256"]
    for r in rows:
        same = r["model"] == row["model"] and ("@random" not in r["model"] or r["seed"] == row["seed"])
        if mine and same and r.get("weights_sha256", mine) != mine and r["case"] == row["case"]:
            raise ConfigError(
                f"the weights have hash {mine[:12]}, those of the rows that are there {r['weights_sha256'][:12]}: its library "
                f"gives others now. Measure into another output, or name the weights: {row['model']}#{r['weights_sha256'][:12]}"
            )
