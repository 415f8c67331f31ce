"""Units of pixel values and the exact conversions between them. Units are declared, never guessed from magnitudes.

sentinel-2 digital number --(1e-4, offset -1000 since baseline 04.00)--> reflectance 0-1
backscatter: dB <--10 log10--> linear power
8 bit: display values whose stretch is unknown; they convert to nothing but themselves. The same of counts ("dn")
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

from eosfm.contracts import UnitError, known

if TYPE_CHECKING:
    from torch import Tensor

MIN_LINEAR_POWER = 1e-6
"""Power below this (-60 dB, far under Sentinel-1's noise floor) is clipped before the logarithm."""


class Quantity(StrEnum):
    """What is measured. Only units of one quantity convert into each other."""

    REFLECTANCE = "reflectance"
    BACKSCATTER = "backscatter"
    BRIGHTNESS = "brightness"  # 8-bit display values: no declared stretch, so no physical meaning
    COUNTS = "counts"  # a sensor's own numbers, whose calibration was not published with them
    HEIGHT = "height"


class Unit(StrEnum):
    """How a band's numbers are to be read."""

    REFLECTANCE = "reflectance"  # 0-1
    DN_1E4 = "dn-1e4"  # reflectance * 10000 (Sentinel-2 before baseline 04.00, HLS, harmonised collections)
    DN_1E4_OFFSET = "dn-1e4-offset-1000"  # reflectance * 10000 + 1000 (Sentinel-2 since baseline 04.00, 2022-01-25)
    DN_LANDSAT_C2 = "dn-landsat-c2"  # Landsat Collection 2 Level 2: reflectance = 0.0000275 * dn - 0.2
    DB = "db"  # 10 log10(power)
    LINEAR = "linear"  # power, sigma0 or gamma0
    EIGHT_BIT = "8bit"  # 0-255
    DN = "dn"  # counts of the detector, uncalibrated
    METRE = "metre"

    @property
    def quantity(self) -> Quantity:
        """The physical quantity this unit measures."""
        return _QUANTITY[self]

    @property
    def plausible(self) -> tuple[float, float]:
        """Values outside this range on most pixels mean that another unit was declared than was stored."""
        return _PLAUSIBLE[self]


_QUANTITY = {
    Unit.REFLECTANCE: Quantity.REFLECTANCE,
    Unit.DN_1E4: Quantity.REFLECTANCE,
    Unit.DN_1E4_OFFSET: Quantity.REFLECTANCE,
    Unit.DN_LANDSAT_C2: Quantity.REFLECTANCE,
    Unit.DB: Quantity.BACKSCATTER,
    Unit.LINEAR: Quantity.BACKSCATTER,
    Unit.EIGHT_BIT: Quantity.BRIGHTNESS,
    Unit.DN: Quantity.COUNTS,
    Unit.METRE: Quantity.HEIGHT,
}

_PLAUSIBLE = {
    Unit.REFLECTANCE: (-0.1, 1.6),  # clouds and snow exceed 1; surface reflectance dips below 0
    Unit.DN_1E4: (20.0, 20000.0),
    Unit.DN_1E4_OFFSET: (900.0, 21000.0),
    Unit.DN_LANDSAT_C2: (7000.0, 65535.0),
    Unit.DB: (-60.0, 30.0),
    Unit.LINEAR: (0.0, 100.0),
    Unit.EIGHT_BIT: (0.0, 255.0),
    Unit.DN: (0.0, 65535.0),
    Unit.METRE: (-500.0, 9000.0),
}

# reflectance = scale * value + offset
_TO_REFLECTANCE = {
    Unit.REFLECTANCE: (1.0, 0.0),
    Unit.DN_1E4: (1e-4, 0.0),
    Unit.DN_1E4_OFFSET: (1e-4, -0.1),
    Unit.DN_LANDSAT_C2: (2.75e-5, -0.2),
}


def parse_unit(text: str) -> Unit:
    """The unit called ``text``; raises `UnitError` that lists the known ones."""
    try:
        return Unit(text.strip().lower())
    except ValueError:
        raise UnitError(f"unknown unit {text!r}; {known(Unit)}") from None


def convertible(source: Unit, target: Unit) -> bool:
    """Whether `convert` can turn ``source`` into ``target`` without guessing."""
    return source.quantity is target.quantity


def affine(source: Unit, target: Unit) -> tuple[float, float] | None:
    """``(scale, offset)`` with ``target = scale * source + offset``, or None where the conversion is logarithmic.

    >>> affine(Unit.DN_1E4_OFFSET, Unit.DN_1E4)
    (1.0, -1000.0)
    """
    _require_convertible(source, target)
    if source is target:
        return 1.0, 0.0
    if source.quantity is not Quantity.REFLECTANCE:
        return None
    (s, o), (ts, to) = _TO_REFLECTANCE[source], _TO_REFLECTANCE[target]
    return s / ts, round((o - to) / ts, 9)


def convert(x: Tensor, source: Unit, target: Unit) -> Tensor:
    """``x`` in ``source`` units, expressed in ``target`` units; any shape; NaN stays NaN.

    Linear power at or below `MIN_LINEAR_POWER` is clipped there before it becomes dB (the only lossy case).

    Raises:
        UnitError: the two units measure different quantities.
    """
    step = affine(source, target)
    if step == (1.0, 0.0):
        return x
    if step is not None:
        return x * step[0] + step[1]
    if source is Unit.LINEAR:
        return x.clamp_min(MIN_LINEAR_POWER).log10() * 10.0  # clamp_min keeps NaN
    return (x * (math.log(10.0) / 10.0)).exp()


def _require_convertible(source: Unit, target: Unit) -> None:
    if not convertible(source, target):
        raise UnitError(
            f"{source} ({source.quantity}) cannot be converted to {target} ({target.quantity}): "
            "they measure different quantities. Standardise with the input's own statistics instead."
        )
