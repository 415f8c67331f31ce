"""What the ground is made of and how it looks: reflectance curves and radar brightness, as plain tables.

All numbers were set by hand to the well-known general shape (red edge, dark water in the infrared, char dark but for the
short-wave infrared) and brightness order; they are taken from no spectral library and no measurement. Plausible, not true.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

ANCHORS_NM = (440.0, 490.0, 560.0, 620.0, 665.0, 705.0, 740.0, 783.0, 865.0, 1240.0, 1610.0, 2200.0)
"""Wavelengths at which the curves are given; linear between them, constant outside."""

CURVES: dict[str, tuple[float, ...]] = {
    #                440   490   560   620   665   705   740   783   865  1240  1610  2200 nm
    "water":       (.035, .034, .026, .012, .008, .006, .004, .004, .003, .001, .001, .001),
    "silt":        (.055, .070, .105, .110, .105, .090, .050, .045, .035, .004, .003, .002),
    "broadleaf":   (.018, .022, .052, .032, .024, .085, .280, .370, .410, .390, .200, .085),
    "conifer":     (.014, .017, .034, .024, .019, .048, .150, .200, .225, .200, .100, .045),
    "green":       (.025, .030, .078, .050, .036, .115, .320, .410, .450, .420, .240, .115),
    "straw":       (.055, .070, .110, .150, .175, .205, .230, .255, .295, .360, .350, .245),
    "pale-soil":   (.090, .110, .160, .210, .245, .265, .280, .295, .325, .390, .430, .395),
    "dark-soil":   (.045, .052, .070, .088, .100, .112, .122, .132, .150, .195, .225, .195),
    "red-soil":    (.040, .048, .085, .155, .215, .235, .245, .258, .285, .340, .375, .325),
    "concrete":    (.125, .145, .175, .195, .210, .218, .225, .232, .240, .262, .272, .252),
    "asphalt":     (.065, .070, .082, .090, .096, .100, .104, .108, .114, .130, .146, .138),
    "tile":        (.058, .068, .100, .175, .225, .240, .252, .262, .285, .320, .345, .310),
    "metal":       (.270, .310, .345, .365, .375, .380, .385, .390, .395, .400, .390, .350),
    "char":        (.030, .033, .038, .043, .048, .053, .058, .063, .072, .098, .125, .135),
    "ash":         (.075, .085, .098, .108, .116, .122, .128, .135, .145, .175, .195, .205),
    "snow":        (.880, .880, .870, .860, .850, .840, .830, .815, .780, .400, .100, .080),
    "cloud":       (.580, .580, .590, .600, .610, .620, .630, .635, .640, .580, .470, .380),
}  # fmt: skip
"""material -> reflectance (0-1) at `ANCHORS_NM`"""

MATERIALS = tuple(name for name in CURVES if name != "cloud")
"""Order of `World.material`; a cloud is not on the ground."""

GREEN = ("broadleaf", "conifer", "green")
WETTABLE = ("straw", "pale-soil", "dark-soil", "red-soil", "char", "ash")
"""Materials that darken when wet, most of all in the short-wave infrared (Lobell & Asner 2002)."""


class Cover(IntEnum):
    """The dominant land cover of a pixel."""

    WATER = 0
    FOREST = 1
    GRASSLAND = 2
    CROPLAND = 3
    SOIL = 4
    URBAN = 5
    WETLAND = 6
    SNOW = 7


RADAR: dict[Cover, tuple[float, ...]] = {
    #                VV     VH    HH-VV  moisture  green VV  green VH
    Cover.WATER:     (-22.5, -29.0, -1.0, 0.0, 0.0, 0.0),
    Cover.FOREST:    (-10.0, -16.0, 0.5, 1.0, 1.0, 2.0),
    Cover.GRASSLAND: (-15.0, -22.5, 0.0, 5.0, 0.5, 2.5),
    Cover.CROPLAND:  (-15.0, -23.0, 0.0, 6.0, 1.5, 5.5),
    Cover.SOIL:      (-16.5, -25.0, 0.5, 7.0, 0.0, 3.0),
    Cover.URBAN:     (-7.0, -15.0, 1.0, 0.0, -1.0, 0.5),
    Cover.WETLAND:   (-7.5, -16.0, 2.0, 0.0, 1.0, 1.0),
    Cover.SNOW:      (-15.5, -22.0, 0.0, -2.0, 0.0, 0.0),
}  # fmt: skip
"""cover -> mean sigma0 in dB on flat ground, the HH excess, and dB per unit of soil moisture and of green cover (both 0-1)"""


def reflectance_at(wavelength_nm: float) -> NDArray[np.float32]:
    """Reflectance ``(len(MATERIALS),)`` of every material at one band centre."""
    return np.array([np.interp(wavelength_nm, ANCHORS_NM, CURVES[m]) for m in MATERIALS], dtype=np.float32)


def cloud_at(wavelength_nm: float) -> float:
    """Reflectance of an opaque cloud."""
    return float(np.interp(wavelength_nm, ANCHORS_NM, CURVES["cloud"]))


def wetting_at(wavelength_nm: float) -> float:
    """Fraction of a `WETTABLE` material's reflectance that saturation takes away."""
    return float(np.interp(wavelength_nm, (500.0, 1000.0, 2200.0), (0.38, 0.42, 0.65)))


def haze_at(wavelength_nm: float) -> float:
    """Path reflectance of a clear atmosphere at sea level, mostly Rayleigh with some aerosol."""
    ratio = 443.0 / wavelength_nm
    return 0.075 * math.pow(ratio, 3.4) + 0.008 * math.pow(ratio, 1.3)


def skylight_at(wavelength_nm: float) -> float:
    """Share of the light that comes from the sky and still reaches shaded ground."""
    return 0.16 + 0.34 * math.pow(443.0 / wavelength_nm, 2.0)


WATER_VAPOUR = {"nir09": 0.35, "cirrus": 0.006}
"""Common name -> transmission of the top-of-atmosphere bands that lie in water-vapour absorption."""
