"""What sensors see of a hidden world: reflectance, radar backscatter, height, each in the unit its band declares.

optical: materials -> wetness, texture, light -> clouds, haze -> blur to the band's resolution -> noise -> unit
radar:   covers -> moisture, growth, fire, slope -> blur -> speckle, noise floor -> unit
"""

from __future__ import annotations

import numpy as np

from eosfm.bands import Band, BandSet, Modality
from eosfm.data.fields import Field, blur, stream
from eosfm.data.landscape import PIXEL_M, World
from eosfm.data.spectra import (
    GREEN,
    MATERIALS,
    RADAR,
    WATER_VAPOUR,
    WETTABLE,
    Cover,
    cloud_at,
    haze_at,
    reflectance_at,
    skylight_at,
    wetting_at,
)
from eosfm.units import MIN_LINEAR_POWER, Unit, affine

LOOKS: dict[str, float] = {"sentinel-1": 4.4, "sar-x": 3.0, "sar": 4.0}
"""Equivalent number of looks: the speckle of a uniform target has standard deviation mean / sqrt(looks)."""

NOISE_FLOOR_DB = -26.0
"""Noise-equivalent sigma0 of the radars."""

PICTURE_NM = {"red": 655.0, "green": 555.0, "blue": 470.0}
"""Wavelengths of a plain picture, whose bands declare none."""

DISPLAY_WHITE = (0.3, 0.55)
"""Reflectance that an 8-bit product shows as 255, in the visible and beyond 700 nm."""

DISPLAY_GAMMA = 1.3

TOP_OF_ATMOSPHERE = ("sentinel-2-l1c",)
UNCORRECTED = ("rgb", "aerial", "naip")
"""Pictures that keep some of their haze; surface products keep a tenth."""


def observe(world: World, bands: BandSet, seed: int = 0) -> Field:
    """The image ``(c, h, w)`` that ``bands`` record of ``world``, in the units they declare.

    ``seed`` draws the sensor noise: another seed is another overpass of the same ground. A band's values depend neither
    on the other bands nor, but for quantisation, on its unit.
    """
    return np.stack([_OBSERVERS[b.modality](world, b, seed) for b in bands])


def _optical(world: World, band: Band, seed: int) -> Field:
    nm = PICTURE_NM[band.common] if band.wavelength_nm is None else band.wavelength_nm
    spectrum, light = reflectance_at(nm), world.light
    wettable = np.array([m in WETTABLE for m in MATERIALS], dtype=np.float32)
    dry = np.tensordot(spectrum, world.material, 1)
    soaked = np.tensordot(spectrum * wettable, world.material, 1) * world.moisture
    rho = (dry - wetting_at(nm) * soaked) * world.brightness

    sky = skylight_at(nm)
    direct = light * (1 - world.shadow)
    rho *= world.conditions.gain * np.clip(sky + (1 - sky) * direct, 0.08, 1.6)
    rho += world.cloud * (cloud_at(nm) * (0.85 + 0.3 * world.cloud) - rho)

    top = band.sensor in TOP_OF_ATMOSPHERE
    if top and band.common in WATER_VAPOUR:  # the vapour below hides the ground; high clouds stay visible
        through = WATER_VAPOUR[band.common]
        rho = rho * (through + (1 - through) * 0.15 * world.cloud)
    keep = 1.0 if top else 0.5 if band.sensor in UNCORRECTED else 0.1
    haze = keep * world.conditions.haze * haze_at(nm)
    rho = haze + (1 - 1.5 * haze) * rho

    rng = stream(world.seed, f"{band.family}:{band.name}", seed)
    rho = blur(rho.astype(np.float32), _sigma(band))
    # Shot noise grows with the signal; the constant part is what dark water shows.
    rho += rng.standard_normal(rho.shape, dtype=np.float32) * (0.0012 + 0.008 * np.abs(rho))
    return _in_unit(np.maximum(rho, 1e-4, dtype=np.float32), band, nm)


def _sigma(band: Band) -> float:
    """Blur in pixels: sharper than the grid stays nearly sharp, 60 m bands smear."""
    return 0.42 * max(1.0, (band.gsd_m or PIXEL_M) / PIXEL_M)


def _in_unit(rho: Field, band: Band, nm: float) -> Field:
    if band.unit is Unit.REFLECTANCE:
        return rho
    if band.unit is Unit.EIGHT_BIT:
        white = DISPLAY_WHITE[nm > 700.0]
        shown: Field = np.clip(rho / white, 0, 1) ** (1 / DISPLAY_GAMMA)
        return np.rint(255 * shown)
    step = affine(Unit.REFLECTANCE, band.unit)
    assert step is not None  # digital numbers are affine in reflectance
    # In double precision, so that two units of one value round the same way.
    return np.rint(rho.astype(np.float64) * step[0] + step[1]).astype(np.float32)


def _radar(world: World, band: Band, seed: int) -> Field:
    cross, horizontal = band.name in ("VH", "HV"), band.name == "HH"
    table = np.array([RADAR[c] for c in Cover], dtype=np.float32).T[:, world.cover]  # (6, h, w)
    green = world.share(GREEN)
    db = table[1] if cross else table[0] + (table[2] if horizontal else 0.0)
    db = db + table[3] * world.moisture + table[5 if cross else 4] * green + world.roughness
    water = world.cover == Cover.WATER
    wind = world.conditions.wind * (5.0 if cross else 5.0 if horizontal else 9.0)
    db = np.where(water, RADAR[Cover.WATER][1 if cross else 0] + wind, db)
    # Fire takes the crowns, which scatter volume (cross) before surface (co-polarised).
    db -= world.severity * np.where(world.cover == Cover.FOREST, 3.5 if cross else 1.5, 2.0 if cross else 1.0)
    slope = np.gradient(
        world.height, PIXEL_M, axis=1
    )  # an ascending pass looks east: ground that rises eastward faces it
    db += np.clip(9.0 * slope, -6.0, 6.0)

    power = blur((10 ** (db / 10)).astype(np.float32), 0.45)
    rng = stream(world.seed, f"{band.family}:{band.name}", seed)
    looks = LOOKS[band.sensor]
    power = power + np.float32(10 ** (NOISE_FLOOR_DB / 10))
    power *= rng.standard_gamma(looks, power.shape, dtype=np.float32) / np.float32(looks)
    power = np.maximum(power, MIN_LINEAR_POWER)
    if band.unit is Unit.DB:
        return (10 * np.log10(power)).astype(np.float32)
    if band.unit is Unit.EIGHT_BIT:  # amplitude, as SAR quick looks are
        return np.rint(255 * np.clip(np.sqrt(power) / 0.8, 0, 1)).astype(np.float32)
    return power.astype(np.float32)


def _elevation(world: World, band: Band, seed: int) -> Field:
    rng = stream(world.seed, f"{band.family}:{band.name}", seed)
    height = blur(world.height, 1.0) + 0.5 * rng.standard_normal(world.shape, dtype=np.float32)
    if band.unit is Unit.EIGHT_BIT:
        return np.rint(255 * np.clip(height / 1500.0, 0, 1)).astype(np.float32)
    return height.astype(np.float32)


_OBSERVERS = {Modality.OPTICAL: _optical, Modality.SAR: _radar, Modality.ELEVATION: _elevation}
"""modality -> what a band of it sees of a world, ``(h, w)``"""
