"""What a harness hands over, as named bands in declared units: harnesses know band names, but neither product nor unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from eosfm.bands import Band, BandSet
from eosfm.contracts import BandError, CardError, ConfigError, UnitError
from eosfm.inference.plausibility import MAX_OUTSIDE
from eosfm.statistics import BandStatistics
from eosfm.units import Quantity, Unit, affine

if TYPE_CHECKING:
    from torch import Tensor

BRIGHT_CIRRUS = 0.05
"""Reflectance that the mean of a cirrus band never has: water vapour absorbs the ground's light at 1374 nm."""


def named_bands(
    channels: Sequence[tuple[str, str]], inputs: Mapping[str, str], rename: Mapping[str, str] | None = None
) -> BandSet:
    """What the channels of a harness are.

    >>> str(named_bands([("s2", "red"), ("s2", "b8a")], {"s2": "sentinel-2-l2a@dn-1e4"}))
    'sentinel-2-l2a:B04,B8A@dn-1e4'

    Args:
        channels: (group, band name) in channel order; the group is the harness's word for a sensor or modality.
        inputs: group -> "SENSOR@UNIT", which only the user can know.
        rename: a channel's name -> what it is called on that sensor; for names that the sensor does not have, or that
            the harness got wrong.

    Raises:
        BandError: a group that is not declared, a name that the sensor does not have, or a name in ``rename`` that no
            channel has.
        UnitError: a declaration without a unit.
    """
    rename = dict(rename or {})
    bands = []
    for group, name in channels:
        if group not in inputs:
            raise BandError(
                f"the harness's bands {', '.join(n for g, n in channels if g == group)} are of {group!r}, which is not "
                f"declared. Say which product they are and in which unit: inputs.{group}=SENSOR@UNIT, for example "
                f"inputs.{group}=sentinel-2-l2a@dn-1e4 or sentinel-1@db"
            )
        sensor, at, unit = str(inputs[group]).partition("@")
        if not at:
            raise UnitError(f"inputs.{group}={inputs[group]}: no unit declared; expected SENSOR@UNIT")
        try:
            bands.append(Band.of(sensor.strip(), rename.get(name, name), unit))
        except BandError as e:
            raise BandError(
                f"the harness's band {name!r} of {group!r}: {e}. Say what it is: rename.{name}=BAND"
            ) from None
    if unused := sorted(rename.keys() - {name for _, name in channels}):
        raise BandError(f"rename names {', '.join(unused)}, but the bands are {', '.join(n for _, n in channels)}")
    return BandSet(tuple(bands)).require_distinct()


def require_consistent(bands: BandSet, statistics: BandStatistics, low: Sequence[float], high: Sequence[float]) -> None:
    """Refuse names and units that the data set's own statistics contradict.

    torchgeo-bench 0.4.0 is in need of it: in its ``benv2`` VV is darker than VH (the files have VH first), in its
    ``m-eurosat`` the cirrus band is as bright as the ground (from 8A on, names and values are shifted by one band), in its
    ``m-brick-kiln`` B10, B11 and B12 end at 255, in its ``so2sat`` VV and VH are negative (real parts, not power).

    Args:
        bands: of the channels.
        statistics: their mean and std over the training split.
        low: their smallest values.
        high: their largest values.

    Raises:
        BandError: lists every contradiction.
    """
    found = []
    for band, mean, least, most in zip(bands, statistics.mean, low, high, strict=True):
        floor, ceiling = band.unit.plausible
        if band.common != "cirrus" and not floor <= mean <= ceiling:
            found.append(f"{band} has mean {mean:g}, but {band.unit} lies within {floor:g} to {ceiling:g}")
        elif band.common == "cirrus" and (r := _reflectance(band, mean)) is not None and r > BRIGHT_CIRRUS:
            found.append(
                f"{band} has mean {mean:g}, reflectance {r:.2g}; a cirrus band sees almost nothing of the ground"
            )
        if band.unit in (Unit.DN_1E4, Unit.DN_1E4_OFFSET, Unit.DN_LANDSAT_C2) and most == 255:
            found.append(f"{band} ends at 255, where 8 bit ends")
        if band.unit is Unit.LINEAR and least < 0:
            found.append(f"{band} begins at {least:g}, but power is never negative")
    means = {(b.sensor, b.name): m for b, m in zip(bands, statistics.mean, strict=True)}
    for b in bands:
        plain, crossed = means[b.sensor, b.name], means.get((b.sensor, "VH"))
        if (b.name, b.unit.quantity) == ("VV", Quantity.BACKSCATTER) and crossed is not None and plain < crossed:
            found.append(f"{b.sensor}: VV has mean {plain:g} and VH {crossed:g}, but VV is the brighter one")
    if found:
        raise BandError(
            "the data set's own statistics contradict the declared bands:\n  " + "\n  ".join(found) + "\n"
            "Correct the unit (inputs.GROUP=SENSOR@UNIT) or the names (rename.NAME=BAND), leave such bands out of the "
            "harness's selection, or insist with trust_names=true."
        )


def require_plausible(x: Tensor, bands: BandSet) -> None:
    """`UnitError` where most values of a band lie outside its unit's range: normalised, when it should not be, or not.

    ``x``: ``(b, len(bands), h, w)`` in the declared units.
    """
    for i, band in enumerate(bands):
        low, high = band.unit.plausible
        values = x[:, i][x[:, i].isfinite()]
        outside = ((values < low) | (values > high)).float().mean().item() if values.numel() else 0.0
        if outside > MAX_OUTSIDE:
            raise UnitError(
                f"{outside:.0%} of the values of {band} lie outside {low:g} to {high:g}, where {band.unit} belongs (the mean "
                f"is {values.mean().item():.4g}). Either the unit is another, or the harness's normalisation is not what "
                "normalised=... says: 'mean-std' where it standardises, 'none' where it hands over raw values. "
                "check_values=false if the data are like that."
            )


def statistics_of(mean: Sequence[float], std: Sequence[float], whose: str) -> BandStatistics:
    """A harness's mean and std as `BandStatistics`; `ConfigError` says whose they are."""
    try:
        return BandStatistics(mean=tuple(map(float, mean)), std=tuple(map(float, std)))
    except (TypeError, ValueError, CardError) as e:
        raise ConfigError(f"{whose}: expected as many numbers in mean and std as there are bands: {e}") from None


def _reflectance(band: Band, value: float) -> float | None:
    if band.unit.quantity is not Quantity.REFLECTANCE:
        return None
    step = affine(band.unit, Unit.REFLECTANCE)
    return None if step is None else value * step[0] + step[1]
