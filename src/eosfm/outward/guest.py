"""An ensemble as a guest in a harness: built from a zoo in one call, fed what the harness hands over, lean in checkpoints."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.composition import MANIFEST, load, read_manifest, resolve
from eosfm.contracts import ConfigError, CorruptArtifact, Pyramid, ZooError, known
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import Normalise, make_fusion
from eosfm.outward.inputs import require_plausible
from eosfm.rules import DEFAULT_RULES
from eosfm.seeding import seeded
from eosfm.specialists.store import CARD, load_specialist
from eosfm.specialists.zoo import find
from eosfm.statistics import BandStatistics

Normalised = Literal["mean-std", "none"]
_log = logging.getLogger(__name__)


def assemble(
    zoo: str | Path | Sequence[str | Path],
    bands: BandSet,
    statistics: BandStatistics | None,
    *,
    specialists: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    fusion: str = "concat",
) -> Ensemble:
    """An ensemble for images of ``bands``; logs who reads what, and who cannot.

    Args:
        zoo: a zoo, a stored ensemble or task model, or a list of specialists' folders.
        bands: of the harness's images.
        statistics: their mean and std, for views into another modality; an ensemble that has its own keeps it.
        specialists: names, where not all of the zoo.
        leave_out: names of those that must not take part, because they saw the benchmark's data.
        fusion: where none is trained. "concat" for a harness that trains no fusion: a random one would only blur the views.

    Raises:
        ConfigError: names together with a stored ensemble, which is a selection already.
        EosfmError: what is missing, unreadable, changed or contradictory, and how to repair it.
    """
    rules: Sequence[str] = DEFAULT_RULES
    normalise: Normalise = "none"
    folders = require_members(zoo, specialists, leave_out)
    if folders is None:
        assert isinstance(zoo, str | Path)
        manifest = read_manifest(Path(zoo) / MANIFEST)
        if manifest.fusion_trained or manifest.bands:
            # what it was composed for (bands in their order, statistics, pruned views) holds here, too, or is an error
            ensemble = load(zoo, bands, statistics=manifest.statistics or statistics)
            if not manifest.fusion_trained:
                with seeded(0):  # as an ensemble's own; nobody's random state moves
                    ensemble.fusion = make_fusion(
                        fusion, len(ensemble.views), ensemble.fusion.normalise, ensemble.fusion.widths
                    )
            _report(ensemble)
            return ensemble
        statistics = manifest.statistics or statistics
        rules, normalise, members = manifest.rules, manifest.normalise, resolve(manifest, Path(zoo))
    else:
        members = [load_specialist(f) for f in folders]
    ensemble = Ensemble(members, bands, statistics=statistics, rules=rules, fusion=fusion, normalise=normalise)
    _report(ensemble)
    return ensemble


def require_members(
    zoo: str | Path | Sequence[str | Path], specialists: Sequence[str] | None, leave_out: Sequence[str]
) -> list[Path] | None:
    """The folders of the specialists that are meant; None for a stored ensemble, which names its own.

    Raises:
        ConfigError: names together with a stored ensemble.
        ZooError: an unknown name, or none is left.
    """
    if isinstance(zoo, str | Path) and (Path(zoo) / MANIFEST).exists():
        if specialists is not None or leave_out:
            raise ConfigError(f"{zoo} is a stored ensemble: its specialists are chosen; name a zoo to choose from")
        return None
    if not isinstance(zoo, str | Path):
        folders = [Path(f) for f in zoo]
    elif (Path(zoo) / CARD).exists():
        folders = [Path(zoo)]
    else:
        folders = [e.folder for e in find(Path(zoo))]
    names = [f.name for f in folders]
    if unknown := [n for n in (*(specialists or ()), *leave_out) if n not in names]:
        raise ZooError(f"no specialist {', '.join(map(repr, unknown))} in {zoo}; {known(names)}")
    kept = [f for f in folders if f.name not in leave_out and (specialists is None or f.name in specialists)]
    if not kept:
        raise ZooError(f"no specialist is left of {zoo}: {', '.join(names)}")
    return kept


def _report(ensemble: Ensemble) -> None:
    for view in ensemble.views:
        _log.info("eosfm: %s reads %s, statistics of the %s", view.name, ",".join(view.bands), view.normalise)
    for skipped in ensemble.skipped:
        _log.warning("eosfm: left out: %s: %s", skipped.specialist, skipped.reason)


class Guest(nn.Module):
    """An ensemble that is fed what a harness hands over: standardised images become values in declared units again.

    A checkpoint of the harness holds the fusion and a digest of the specialists, not their weights; loading it into
    another selection, or other weights under the same names, is an error.

    Args:
        ensemble: see `assemble`.
        normalised: "mean-std" if the harness hands over ``(x - mean) / std``, which is undone here; "none" if raw values.
        check_values: whether the first batch must look like its declared units.

    Raises:
        ConfigError: "mean-std" without statistics to undo it by.
    """

    mean: Tensor
    std: Tensor
    digest: Tensor

    def __init__(
        self,
        ensemble: Ensemble,
        normalised: Normalised,
        statistics: BandStatistics | None,
        *,
        check_values: bool = True,
    ) -> None:
        super().__init__()
        require_normalised(normalised)
        if normalised == "mean-std" and statistics is None:
            raise ConfigError("normalised='mean-std' needs the mean and std that the harness standardises with")
        channels = len(ensemble.bands)
        if statistics is not None:
            statistics.require_channels(channels, "the harness's statistics")
        undo = statistics if normalised == "mean-std" else None
        shift = undo.mean if undo else (0.0,) * channels
        scale = undo.std if undo else (1.0,) * channels
        self.ensemble = ensemble
        self.register_buffer("mean", torch.tensor(shift).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(scale).view(-1, 1, 1), persistent=False)
        self.register_buffer("digest", _digest(ensemble))
        self._unchecked = check_values
        self.register_state_dict_post_hook(_without_specialists)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_specialists)  # type: ignore[no-untyped-call]

    @property
    def out_channels(self) -> list[int]:
        """Channels per level, fine to coarse."""
        return self.ensemble.out_channels

    def forward(self, x: Tensor) -> Pyramid:
        """Four maps at strides 4/8/16/32 of ``x`` ``(b, len(bands), h, w)`` as the harness hands it over.

        Raises:
            BandError: other channels than declared, or sides that are no multiples of 32.
            UnitError: the first batch does not look like its units.
            ConfigError: training around a random fusion that is frozen.
        """
        weights = list(self.ensemble.fusion.parameters())
        if self.training and weights and not (self.ensemble.fusion_trained or any(w.requires_grad for w in weights)):
            raise ConfigError(
                f"the {self.ensemble.fusion.name} fusion has random weights and the harness froze it: say fusion=concat, "
                "which has none, or do not freeze the backbone (its specialists are frozen in any case)"
            )
        self.ensemble._check(x)
        values = x.float() * self.std + self.mean
        if self._unchecked:
            require_plausible(values, self.ensemble.bands)
            self._unchecked = False
        out: Pyramid = self.ensemble(values)
        return out


def require_normalised(normalised: str) -> None:
    """`ConfigError` unless it is a normalisation that can be undone, or none."""
    if normalised not in ("mean-std", "none"):
        raise ConfigError(
            f"normalised={normalised!r}; known: mean-std (undone with the data set's mean and std), none (raw values). "
            "Values under any other normalisation have no known unit: switch it off in the harness."
        )


def _digest(ensemble: Ensemble) -> Tensor:
    """``(32,)`` uint8: SHA-256 of the specialists, what they read, and the views."""
    text = repr([(c.name, c.weights.sha256, c.reading) for c in ensemble.cards] + [v.name for v in ensemble.views])
    return torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)


def _without_specialists(
    module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Mapping[str, Any]  # noqa: ARG001
) -> None:  # fmt: skip
    for key in [k for k in state if k.startswith(f"{prefix}ensemble.encoders.")]:
        del state[key]


def _with_specialists(
    module: nn.Module, state: dict[str, Any], prefix: str, *rest: object  # noqa: ARG001
) -> None:  # fmt: skip
    assert isinstance(module, Guest)
    stored = state.get(f"{prefix}digest")
    if stored is not None and not torch.equal(stored.cpu(), module.digest.cpu()):
        raise CorruptArtifact(
            "this checkpoint was written with other specialists, bands or views than the ensemble it is loaded into: "
            f"{', '.join(v.name for v in module.ensemble.views)}. Name the zoo and the bands it was trained with."
        )
    own = {f"{prefix}ensemble.encoders.{k}": v for k, v in module.ensemble.encoders.state_dict().items()}
    for key, value in own.items():
        state.setdefault(key, value)
