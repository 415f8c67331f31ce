"""Does a file agree with what was declared about it: its band names (or an error), its values (or a warning)?

Nothing is corrected here: bands and units are declared, never guessed. A contradiction between two declarations is an
error; values that do not look like their unit become a sentence that names the likely cause.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eosfm.bands import Band, BandSet, sensor_named
from eosfm.contracts import BandError, RasterError, UnitError
from eosfm.statistics import BandStatistics
from eosfm.units import Quantity, Unit

MAX_OUTSIDE = 0.5
"""Share of values outside `Unit.plausible` above which a band is reported."""

MAX_ZEROS = 0.02
"""Share of pixels that are 0 in every band, in a scene without nodata, above which they are reported."""

OFFSET_FLOOR = (900.0, 1500.0)
"""Where the darkest band's 1st percentile lies if digital numbers carry Sentinel-2's +1000 offset undeclared."""

VISIBLE_NM = 700.0

MAX_SHIFT = 2.0
"""Standard deviations of the training data by which a band's mean may differ from theirs before it is reported."""


def agreed_bands(
    path: object, declared: BandSet | None, descriptions: Sequence[str | None], tag: str | None, *, alpha: bool
) -> BandSet:
    """The bands of the file at ``path``, one per channel, where the caller and the file do not contradict each other.

    Args:
        path: the file, for messages.
        declared: what the caller says the channels are; None to rely on the file.
        descriptions: the file's band descriptions, None or empty where it has none.
        tag: the text of a band set that the file carries for all its channels, if any.
        alpha: whether the last channel is an alpha band, which then need not be declared.

    Raises:
        RasterError: another number of bands, another order, another band or another unit than the file says.
        BandError: ``declared`` repeats a band, or neither side says what the channels are.
        UnitError: the file names its bands but not their unit.
    """
    stated = _stated(path, descriptions, tag)
    bands = declared or stated
    if bands is None:
        seen = ", ".join(repr(d) for d in descriptions if d) or "none"
        raise BandError(
            f"{path} does not say which sensor's bands it holds, nor their unit (band descriptions: {seen}). Declare them "
            f"in file order ({len(descriptions)} bands) with --bands, or with data.file_bands in a YAML file, for example "
            "'sentinel-2-l2a:B04,B03,B02@reflectance'."
        )
    bands.require_distinct()
    if len(bands) != len(descriptions) and not (alpha and len(bands) == len(descriptions) - 1):
        raise RasterError(
            f"{path} has {len(descriptions)} bands, but {len(bands)} are declared: {bands}. "
            "Declare every band of the file, in file order."
        )
    for i, (band, description) in enumerate(zip(bands, descriptions, strict=False)):
        if description and (other := _other_band(band, description)):
            raise RasterError(
                f"band {i + 1} of {path} is declared as {band.name} ({band.common}), but the file describes it as "
                f"{description!r}, which is {other}. Declare the bands in file order: "
                f"{', '.join(d or '?' for d in descriptions)}."
            )
    if stated is not None:
        for i, (band, said) in enumerate(zip(bands, stated, strict=True)):
            if (band.key, band.unit) != (said.key, said.unit):
                raise RasterError(
                    f"band {i + 1} of {path} is declared as {band}, but the file says {said}. "
                    "Leave the declaration out to use the file's own, or correct the file's tag."
                )
    return bands


def _stated(path: object, descriptions: Sequence[str | None], tag: str | None) -> BandSet | None:
    text = tag or " + ".join(d for d in descriptions if d and ":" in d and "@" in d)
    try:
        stated = BandSet.parse(text) if text else None
    except (BandError, UnitError) as e:
        if tag is None:
            return None  # descriptions are free text; only the tag is ours
        raise type(e)(f"{path}: its band tag {tag!r} cannot be used: {e}") from e
    return stated if stated is not None and (tag or len(stated) == len(descriptions)) else None


def _other_band(band: Band, description: str) -> str | None:
    """The name of the other band of the same sensor that ``description`` names; None if it names this one or nothing."""
    try:
        named = sensor_named(band.sensor).resolve(description)
    except BandError:
        return None  # free text, or a name that several bands share
    return None if named.name == band.name else f"{named.name} ({named.common})"


def unit_warnings(bands: BandSet, samples: NDArray[np.float32], *, nodata_known: bool) -> list[str]:
    """Sentences about values that do not look like their declared unit; empty where nothing is suspicious.

    Args:
        bands: one per row of ``samples``, each with the unit in which the file is said to store it.
        samples: ``(bands, n)`` valid values as stored, without NaN.
        nodata_known: whether the scene declares which pixels are invalid (a nodata value, a mask or an alpha band).

    >>> unit_warnings(BandSet.parse("sentinel-1:VV@db"), np.array([[0.05, 0.1]], np.float32), nodata_known=True)[0][:42]
    'sentinel-1:VV@db: no sampled value is belo'
    """
    if samples.shape[1] == 0:
        return []
    found = [w for band, values in zip(bands, samples, strict=True) if (w := _band_warning(band, values))]
    return found + _offset_warning(bands, samples) + ([] if nodata_known else _zeros_warning(samples))


def shift_warnings(bands: BandSet, samples: NDArray[np.float32], trained: BandStatistics) -> list[str]:
    """A sentence if most bands lie far from what the model was trained on: a unit, offset or season it never saw.

    Args:
        bands: one per row of ``samples``.
        samples: ``(bands, n)`` valid values in the units of ``bands``.
        trained: mean and std of the training data, in the same units.
    """
    if samples.shape[1] == 0:
        return []
    means = samples.mean(axis=1, dtype=np.float64)
    shifts = (means - np.array(trained.mean)) / np.array(trained.std)
    far = [i for i, s in enumerate(shifts) if abs(s) > MAX_SHIFT]
    if 2 * len(far) <= len(bands):
        return []
    shown = "; ".join(
        f"{bands[i].name} {means[i]:.4g}, trained on {trained.mean[i]:.4g} +- {trained.std[i]:.3g}" for i in far[:4]
    )
    return [
        f"the scene is unlike the training data: {len(far)} of {len(bands)} band means are more than {MAX_SHIFT:g} standard "
        f"deviations away ({shown}, in {bands[0].unit}). Check the declared unit and offset; predictions may be wrong."
    ]


def _band_warning(band: Band, values: NDArray[np.float32]) -> str | None:
    low, high = band.unit.plausible
    outside = float(np.mean((values < low) | (values > high)))
    p1, p50, p99 = (float(p) for p in np.percentile(values, [1, 50, 99]))
    seen = f"the 1st, 50th and 99th percentiles are {p1:.4g}, {p50:.4g} and {p99:.4g}"
    if outside > MAX_OUTSIDE:
        what = f"{outside:.0%} of the sampled values lie outside {low:g}..{high:g}, where {band.unit} belongs"
    elif band.unit is Unit.DB and p1 >= 0.0:
        what = "no sampled value is below 0, but backscatter in dB mostly is"
    elif band.unit is Unit.EIGHT_BIT and 0.0 < p99 <= 1.6 and bool(np.any(values % 1.0)):
        what = "the sampled values are fractions, but 8bit counts from 0 to 255"
    else:
        return None
    return f"{band}: {what}; {seen}.{_advice(band.unit, p1, p50, p99)} Predictions are likely wrong."


def _advice(declared: Unit, p1: float, p50: float, p99: float) -> str:
    def fits(unit: Unit) -> bool:
        low, high = unit.plausible
        # values of a few units fit the wide range of digital numbers, but only reflectance stays below its own bound
        return low <= p50 <= high and p99 <= 2 * high and (unit is not Unit.DB or p1 < 0.0)

    brightness = {Quantity.REFLECTANCE: (Quantity.REFLECTANCE, Quantity.BRIGHTNESS)}
    related = brightness.get(declared.quantity, (declared.quantity,))
    likely = [str(u) for u in Unit if u is not declared and u.quantity in related and fits(u)]
    return f" They would fit {' or '.join(likely)}: declare the unit the file is stored in." if likely else ""


def _offset_warning(bands: Sequence[Band], samples: NDArray[np.float32]) -> list[str]:
    rows = [i for i, b in enumerate(bands) if b.unit is Unit.DN_1E4 and b.family == "sentinel-2"]
    if not any((bands[i].wavelength_nm or np.inf) < VISIBLE_NM for i in rows):
        return []  # vegetation alone is this bright in the infrared: without a visible band there is nothing to see
    darkest = min(float(np.percentile(samples[i], 1)) for i in rows)
    if not OFFSET_FLOOR[0] <= darkest < OFFSET_FLOOR[1]:
        return []
    return [
        f"declared dn-1e4, but the darkest band's 1st percentile is {darkest:.4g}: products of processing baseline 04.00 "
        "or later (since 2022-01-25) store reflectance * 10000 + 1000. If this is one, declare dn-1e4-offset-1000."
    ]


def _zeros_warning(samples: NDArray[np.float32]) -> list[str]:
    share = float(np.mean(np.all(samples == 0.0, axis=0)))
    if share <= MAX_ZEROS:
        return []
    return [
        f"{share:.0%} of the sampled pixels are 0 in every band and the scene declares no nodata value: "
        "if they are outside the swath, pass nodata=0; they are predicted as if they were measured."
    ]
