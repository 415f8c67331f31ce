"""The hidden landscape of a synthetic world: covers, materials and latent states, drawn from a seed before any sensor looks.

terrain and water -> climate decides what grows -> parcels and towns -> materials -> fire -> sky
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError, known
from eosfm.data.fields import (
    Field,
    Mask,
    Shape,
    blur,
    illumination,
    noise,
    smoothstep,
    stream,
    winding_line,
)
from eosfm.data.ground import Ground, draw_parcels, set_fire
from eosfm.data.spectra import MATERIALS, Cover

PIXEL_M = 10.0
"""Ground size of a pixel of the hidden landscape, and of every observation of it."""


@dataclass(frozen=True)
class Climate:
    """What a climate favours; scores are in standard deviations of the noise that allots land."""

    forest: float
    grassland: float
    cropland: float
    soil: float
    greenness: tuple[float, float]
    """range of the season's green cover, 0-1"""
    moisture: float
    conifer: float
    snow: float
    """share of worlds with snow on high ground"""


CLIMATES: dict[str, Climate] = {
    "temperate": Climate(0.3, 0.2, 0.6, -1.0, (0.45, 1.0), 0.50, 0.3, 0.05),
    "mediterranean": Climate(0.1, 0.2, 0.3, 0.2, (0.20, 0.75), 0.30, 0.5, 0.05),
    "arid": Climate(-0.9, 0.3, 0.1, 0.8, (0.10, 0.50), 0.18, 0.3, 0.0),
    "boreal": Climate(0.9, 0.2, -0.5, -0.7, (0.35, 0.9), 0.60, 0.8, 0.25),
}


@dataclass(frozen=True)
class Conditions:
    """What varies from one acquisition to the next, the same for every pixel."""

    sun_elevation: float
    """radians"""
    sun_azimuth: float
    """radians clockwise from north"""
    haze: float
    """path radiance relative to a clear day"""
    gain: float
    """calibration and viewing geometry: multiplies all reflectance"""
    wind: float
    """roughness of open water, 0-1"""


@dataclass(frozen=True, eq=False)
class World:
    """A hidden landscape. Arrays are ``(h, w)`` float32 in 0-1 unless said otherwise."""

    seed: int
    climate: str
    conditions: Conditions
    cover: NDArray[np.int64]
    """`Cover` of each pixel"""
    material: Field
    """share of each of `MATERIALS`, ``(m, h, w)``, sums to 1"""
    height: Field
    """metres above sea level"""
    light: Field
    """direct sunlight relative to flat ground, 0-2"""
    brightness: Field
    """texture that multiplies reflectance, about 1"""
    moisture: Field
    roughness: Field
    """texture that adds to backscatter, dB"""
    parcel: NDArray[np.int64]
    """0 no field, 1 inside a field, 2 on its boundary"""
    density: Field
    """how built-up"""
    severity: Field
    """of the fire; 0 is unburnt"""
    cloud: Field
    """opacity"""
    shadow: Field
    """darkness of the clouds' shadows"""

    @property
    def shape(self) -> Shape:
        """``(h, w)`` in pixels."""
        return self.cover.shape[0], self.cover.shape[1]

    def share(self, names: tuple[str, ...]) -> Field:
        """How much of each pixel the named materials cover, ``(h, w)``."""
        total: Field = self.material[[MATERIALS.index(n) for n in names]].sum(axis=0)
        return total

    def crop(self, top: int, left: int, size: int) -> World:
        """The ``size`` by ``size`` pixels whose first row and column are ``top`` and ``left``."""
        window = (..., slice(top, top + size), slice(left, left + size))
        arrays: dict[str, Any] = {
            f.name: getattr(self, f.name)[window] for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **arrays)


def make_world(
    size: int | Shape, seed: int, *, climate: str | None = None, burns: bool = False, clouds: bool = False
) -> World:
    """The landscape of ``seed``, ``size`` pixels wide (or ``(h, w)``), under the named climate or a drawn one.

    Fire and clouds are added on top: without them the same seed gives the same ground.

    Raises:
        DataError: unknown climate, negative seed or a size under 16.
    """
    shape = (size, size) if isinstance(size, int) else (size[0], size[1])
    if min(shape) < 16:
        raise DataError(f"a world needs at least 16 by 16 pixels, got {shape}")
    rng = stream(seed, "climate")
    drawn = sorted(CLIMATES)[int(rng.integers(len(CLIMATES)))]  # drawn even if given, so that the rest does not change
    name = drawn if climate is None else climate
    if name not in CLIMATES:
        raise DataError(f"unknown climate {name!r}; {known(CLIMATES)}")
    c = CLIMATES[name]
    green = float(rng.uniform(*c.greenness))
    conditions = Conditions(
        sun_elevation=math.radians(rng.uniform(28, 68)),
        sun_azimuth=math.radians(rng.uniform(110, 200)),
        haze=float(rng.gamma(4.0, 0.25)),
        gain=float(rng.normal(1.0, 0.06)),
        wind=float(rng.beta(1.2, 2.5)),
    )

    z, height, water = _terrain(seed, shape)
    parcels = draw_parcels(seed, shape, dry=c.moisture < 0.4)
    cover, near = _allot(seed, shape, c, z, height, water, parcels.ids)
    moisture = _moisture(seed, c, cover, near)
    density, town = _town(seed, shape, z, cover)
    cover[town] = Cover.URBAN
    if rng.random() < c.snow:
        green *= 0.5  # snow comes in the dormant season
        snow = z + 0.5 * noise(stream(seed, "snow"), shape, 30, 0.9) > rng.normal(0.8, 0.4)
        cover[snow & (cover != Cover.WATER) & ~town] = Cover.SNOW

    ground = Ground(seed, c.conifer, green, cover, moisture, density, parcels)
    ground.paint()
    severity = set_fire(seed, shape, ground) if burns else np.zeros(shape, np.float32)
    cloud, shadow = _sky(seed, shape, conditions) if clouds else (np.zeros(shape, np.float32),) * 2
    return World(
        seed=seed,
        climate=name,
        conditions=conditions,
        cover=cover,
        material=ground.material / ground.material.sum(axis=0),
        height=height,
        light=illumination(height, conditions.sun_azimuth, conditions.sun_elevation, PIXEL_M),
        brightness=np.clip(ground.brightness, 0.3, 1.8),
        moisture=np.clip(ground.moisture, 0.0, 1.0),
        roughness=ground.roughness,
        parcel=ground.parcel,
        density=density,
        severity=severity,
        cloud=cloud,
        shadow=shadow,
    )


def _terrain(seed: int, shape: Shape) -> tuple[Field, Field, Mask]:
    """Standardised relief, height in metres, and the pixels of rivers, lakes and ponds."""
    rng = stream(seed, "terrain")
    z = 0.9 * noise(rng, shape, 110, 1.5) + 0.3 * noise(rng, shape, 30, 1.4)
    relief = float(np.exp(rng.uniform(np.log(4.0), np.log(110.0))))  # from plains to mountains
    water = np.zeros(shape, np.bool_)
    for _ in range(int(rng.binomial(1 + max(shape) // 250, 0.65))):
        line = winding_line(rng, shape, rng.uniform(12, 30), rng.uniform(35, 80))
        width = rng.uniform(0.8, 5.0) * (1 + 0.35 * noise(rng, shape, 25, 1.5))
        water |= np.abs(line) < width
        tributary = winding_line(rng, shape, 20, 40)
        water |= (np.abs(tributary) < 0.3 * width) & (line > 0)  # on one bank only
        z = z - 0.8 * np.exp(-((np.minimum(np.abs(line), 60) / 22) ** 2))
    level = rng.normal(-1.9, 0.5)
    water |= (z < level) | (noise(rng, shape, 9, 1.5) < -3.1)
    height = rng.uniform(20, 900) + relief * np.maximum(z, level)  # lakes are flat
    return z.astype(np.float32), height.astype(np.float32), water


def _allot(
    seed: int, shape: Shape, c: Climate, z: Field, height: Field, water: Mask, parcels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Field]:
    """Cover of each pixel before towns and snow, and closeness to water (0-1)."""
    rng = stream(seed, "cover")
    gy, gx = np.gradient(height, PIXEL_M)
    slope = blur(np.hypot(gy, gx), 2.0)
    scores = np.stack(
        [
            c.forest + 0.3 * z + 1.5 * slope + noise(rng, shape, 45, 0.9),
            c.grassland + 0.1 * z + noise(rng, shape, 45, 1.0),
            c.cropland + 1.15 - 0.4 * z - 5 * slope + noise(rng, shape, 90, 1.5),
            c.soil + 0.2 * z + noise(rng, shape, 40, 0.9),
        ]
    )
    # A parcel is farmed whole or not at all, so that fields keep straight edges.
    _, parcel = np.unique(parcels, return_inverse=True)
    parcel = parcel.reshape(shape)
    mean = np.bincount(parcel.ravel(), scores[2].ravel()) / np.bincount(parcel.ravel())
    scores[2] = mean[parcel]
    cover = scores.argmax(axis=0) + int(Cover.FOREST)  # the four scores are in the order of Cover
    near = np.clip(3 * blur(water.astype(np.float32), 5.0), 0, 1)
    wetland = 0.9 * near + 0.6 * noise(rng, shape, 25, 0.9) - 0.25 * z > rng.uniform(0.5, 1.6) - c.moisture
    cover[wetland & (near > 0.1)] = Cover.WETLAND
    cover[water] = Cover.WATER
    return cover.astype(np.int64), near


def _moisture(seed: int, c: Climate, cover: NDArray[np.int64], near: Field) -> Field:
    rng = stream(seed, "moisture")
    m = c.moisture + rng.normal(0, 0.12) + 0.14 * noise(rng, cover.shape, 35, 1.0) + 0.25 * near
    m[(cover == Cover.WATER) | (cover == Cover.WETLAND)] = 1.0
    return m.astype(np.float32)


def _town(seed: int, shape: Shape, z: Field, cover: NDArray[np.int64]) -> tuple[Field, Mask]:
    """Built-up density, 0 outside towns, and the pixels that belong to a town."""
    rng = stream(seed, "town")
    pull = noise(rng, shape, 55, 1.0) - 0.3 * z + 0.12 * noise(rng, shape, 8, 0.7)
    level = rng.normal(1.2, 0.35) + 9.0 * (rng.random() > 0.75)  # a quarter of the worlds has no town
    density = smoothstep((pull - level).astype(np.float32), -0.1, 1.2)
    town = (density > 0.02) & (cover != Cover.WATER)
    return np.where(town, density, 0).astype(np.float32), town


def _sky(seed: int, shape: Shape, conditions: Conditions) -> tuple[Field, Field]:
    """Opacity of the clouds and darkness of their shadows, which fall away from the sun."""
    rng = stream(seed, "sky")
    shape_noise = noise(rng, shape, 38, 0.8) + 0.2 * noise(rng, shape, 6, 0.6)
    level = rng.normal(1.05, 0.6)
    cumulus = smoothstep(shape_noise.astype(np.float32), level, level + 0.7)
    veil = 0.35 * smoothstep(noise(rng, shape, 80, 1.0), float(rng.normal(1.0, 0.8)), 2.8)
    reach = rng.uniform(8, 20) / math.tan(conditions.sun_elevation)
    down = round(reach * math.cos(conditions.sun_azimuth))
    right = round(-reach * math.sin(conditions.sun_azimuth))
    # The noise is periodic, so rolling it brings in the shadow of clouds that stand outside the image.
    shadow = np.roll(cumulus, (down, right), axis=(0, 1)) * (1 - cumulus)
    return np.clip(cumulus + veil * (1 - cumulus), 0, 1).astype(np.float32), blur(shadow.astype(np.float32), 0.8)
