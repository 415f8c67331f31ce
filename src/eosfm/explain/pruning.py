"""Which specialists to prune to: by name, by a search that was made before, or by the size of fusion weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eosfm.config import read_json
from eosfm.contracts import ConfigError, CorruptArtifact, ZooError, known
from eosfm.ensemble import Ensemble
from eosfm.explain.contributions import players
from eosfm.fusion.fuse import Conv1x1
from eosfm.tasks.model import TaskModel
from eosfm.tasks.stored import Choice, TaskCard


def choose(
    model: TaskModel, card: TaskCard, *, keep: int | None = None, names: Sequence[str] | None = None,
    selection: Path | None = None,
) -> Choice:  # fmt: skip
    """The specialists to keep.

    Args:
        model: to be pruned.
        card: of ``model``; a selection of another model is refused.
        keep: how many; of ``selection``'s rows, or by fusion weights without one.
        names: which; instead of ``keep`` and ``selection``.
        selection: ``selection.json`` of `eosfm select`; without ``keep`` its chosen subset.

    Raises:
        ConfigError: contradictory or missing wishes.
        ZooError: a name that the model does not have.
        CorruptArtifact: a selection that cannot be read.
    """
    assert isinstance(model.encoder, Ensemble)
    have, groups = players(model.encoder)
    if names is not None and (keep is not None or selection is not None):
        raise ConfigError(
            "say either which specialists to keep (--name) or how to choose (--keep, --selection), not both"
        )
    if keep is not None and not 1 <= keep <= len(have):
        raise ConfigError(f"--keep {keep} of {len(have)} specialists; expected 1 to {len(have)}")
    if names is not None:
        if unknown := [n for n in names if n not in have]:
            raise ZooError(f"no specialist {', '.join(map(repr, unknown))} in this model; {known(have)}")
        return _choice("by name", have, names)
    if selection is not None:
        return _choice(f"search ({selection.name})", have, _searched(selection, card, keep))
    if keep is None:
        raise ConfigError("say what to keep: --name NAME (repeat), --keep N, or --selection FILE of `eosfm select`")
    fusion = model.encoder.fusion
    if not isinstance(fusion, Conv1x1):
        raise ConfigError(f"a {fusion.name} fusion has no weights per specialist to rank by; use --selection or --name")
    energy = np.array([fusion.weight_energy(v) for v in range(fusion.views)])
    shares = (energy / energy.sum(0)).mean(1)
    worth = [float(shares[g].sum()) for g in groups]
    best = sorted(range(len(have)), key=lambda i: -worth[i])[:keep]
    choice = _choice("fusion-weight energy", have, [have[i] for i in best])
    return Choice(by=choice.by, kept=choice.kept, dropped=choice.dropped, scores=dict(zip(have, worth, strict=True)))


def _choice(by: str, have: Sequence[str], names: Sequence[str]) -> Choice:
    kept = tuple(n for n in have if n in names)
    return Choice(by=by, kept=kept, dropped=tuple(n for n in have if n not in kept))


def _searched(path: Path, card: TaskCard, keep: int | None) -> list[str]:
    content = read_json(path, error=CorruptArtifact)
    try:
        sha, chosen, rows = content["weights_sha256"], content["chosen"], [list(r["names"]) for r in content["rows"]]
    except (KeyError, TypeError) as e:
        raise CorruptArtifact(f"{path}: not a selection of `eosfm select` ({e})") from None
    if sha != card.weights.sha256:
        raise ConfigError(
            f"{path} is a selection of another model (weights {str(sha)[:12]}, these are {card.weights.sha256[:12]})"
        )
    if keep is None:
        return [str(n) for n in chosen]
    found = [r for r in rows if len(r) == keep]
    if not found:
        raise ConfigError(f"{path} has no subset of {keep}; it has {', '.join(str(len(r)) for r in rows)}")
    return [str(n) for n in found[0]]
