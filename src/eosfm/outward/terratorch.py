"""TerraTorch: the ensemble as a backbone called ``eosfm_ensemble``, for its factories, tasks and configuration files.

TerraTorch has no entry points. It imports a folder that it is told of, so put this into ``custom_modules/__init__.py``:

    from eosfm.outward.terratorch import register
    register()
"""

from __future__ import annotations

from collections.abc import Sequence

from eosfm.bands import BandSet
from eosfm.contracts import missing_extra
from eosfm.outward.guest import Guest, Normalised, assemble
from eosfm.outward.inputs import statistics_of


def eosfm_ensemble(
    zoo: str | Sequence[str],
    bands: str,
    *,
    normalised: Normalised,
    means: Sequence[float] | None = None,
    stds: Sequence[float] | None = None,
    specialists: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    fusion: str = "conv1x1",
    check_values: bool = True,
) -> Guest:
    """A TerraTorch backbone: ``out_channels`` and four maps. Specialists stay frozen and in evaluation mode; the fusion trains.

    Args:
        zoo: a zoo, a stored ensemble, or a list of specialists' folders.
        bands: of the data module's images, in their order: "sentinel-2-l2a:B02,B03,B04@dn-1e4".
        normalised: "mean-std" where the data module standardises (TerraTorch's do) with ``means`` and ``stds``, "none" where
            it hands over raw values (its own means 0 and stds 1).
        means: of the data, per band; also for views into another modality.
        stds: of the data, per band.
        specialists: names, where not all of the zoo.
        leave_out: names of specialists that saw the data.
        fusion: "concat" with ``freeze_backbone: true``, which would freeze a fusion with random weights.
        check_values: whether the first batch must look like its units.

    Raises:
        ConfigError: one of ``means`` and ``stds`` without the other, or neither where the normalisation is to be undone.
        EosfmError: as `eosfm.outward.guest.assemble`.
    """
    named = BandSet.parse(bands).require_distinct()
    statistics = None if means is None and stds is None else statistics_of(means or (), stds or (), "means, stds")
    ensemble = assemble(zoo, named, statistics, specialists=specialists, leave_out=leave_out, fusion=fusion)
    return Guest(ensemble, normalised, statistics, check_values=check_values)


def register() -> None:
    """Make ``eosfm_ensemble`` known to TerraTorch; a second call changes nothing.

    Raises:
        MissingExtra: TerraTorch is not installed.
    """
    try:
        from terratorch.registry import TERRATORCH_BACKBONE_REGISTRY as registry
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] != "terratorch":
            raise  # something that TerraTorch needs
        raise missing_extra("TerraTorch", "terratorch") from None
    if eosfm_ensemble.__name__ not in registry:
        registry.register(eosfm_ensemble)
