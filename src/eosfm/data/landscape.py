"""The hidden landscape of a synthetic world: covers, materials and latent states, drawn from a seed before any sensor looks.

    terrain and water -> climate decides what grows -> parcels and towns -> materials -> fire -> sky
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    cells,
    edges_of,
    illumination,
    noise,
    per_id,
    rotated,
    smoothstep,
    stream,
    strips,
    winding_line,
)
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
    "boreal": Climate(0.9, 0.2, -0.5, -0.7, (0.35, 0.9), 0.60, 0.8, 0.4),
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


@dataclass(frozen=True)
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
        return self.material[[MATERIALS.index(n) for n in names]].sum(axis=0)

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

    z, height, river = _terrain(seed, shape)
    water = river | (z < rng.normal(-1.9, 0.5)) | (noise(stream(seed, "ponds"), shape, 9, 1.5) < -3.1)
    parcels = _parcels(seed, shape, c)
    cover, near = _allot(seed, shape, c, z, water, parcels.ids)
    moisture = _moisture(seed, c, cover, near)
    density, town = _town(seed, shape, z, cover)
    cover[town] = Cover.URBAN
    if rng.random() < c.snow:
        snow = z + 0.5 * noise(stream(seed, "snow"), shape, 30, 0.7) > rng.normal(0.7, 0.5)
        cover[snow & (cover != Cover.WATER) & ~town] = Cover.SNOW

    ground = _Ground(seed, c, green, cover, moisture, density, parcels)
    ground.paint()
    severity = _fire(seed, shape, ground) if burns else np.zeros(shape, np.float32)
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
    """Standardised relief, height in metres, and the pixels of rivers."""
    rng = stream(seed, "terrain")
    z = 0.9 * noise(rng, shape, 110, 1.5) + 0.3 * noise(rng, shape, 30, 1.4)
    relief = float(np.exp(rng.uniform(np.log(4.0), np.log(110.0))))  # from plains to mountains
    river = np.zeros(shape, np.bool_)
    for _ in range(int(rng.binomial(1 + max(shape) // 250, 0.65))):
        line = winding_line(rng, shape, rng.uniform(12, 30), rng.uniform(35, 80))
        width = rng.uniform(0.8, 5.0) * (1 + 0.35 * noise(rng, shape, 25, 1.5))
        river |= np.abs(line) < width
        stream_line = winding_line(rng, shape, 20, 40)  # a tributary, on one bank only
        river |= (np.abs(stream_line) < 0.3 * width) & (line > 0)
        z = z - 0.8 * np.exp(-((np.minimum(np.abs(line), 60) / 22) ** 2))
    height = rng.uniform(20, 900) + relief * z
    return z.astype(np.float32), height.astype(np.float32), river


@dataclass(frozen=True)
class _Parcels:
    """How the farmland is divided, drawn everywhere and used where crops grow."""

    ids: NDArray[np.int64]
    gap: Mask
    """left out between irrigated circles"""


def _parcels(seed: int, shape: Shape, c: Climate) -> _Parcels:
    rng = stream(seed, "parcels")
    bend = 3.0 * noise(rng, shape, 60, 2.0)
    width = rng.uniform(7, 13)
    angle = rng.uniform(0, math.pi)
    ids = strips(rng, shape, angle, width, rng.uniform(1.5, 4) * width, bend)
    zone = noise(rng, shape, 80, 1.5) > rng.normal(0.4, 0.8)
    gap = np.zeros(shape, np.bool_)
    if rng.random() < 0.5 and c.moisture < 0.4:  # centre-pivot irrigation
        other, radius = cells(rng, shape, 20.0, 0.0)
        gap = zone & (radius > 9.3)
    elif rng.random() < 0.5:
        other, _ = cells(rng, shape, rng.uniform(12, 18))
    else:
        other = strips(rng, shape, angle + rng.uniform(0.5, 2.5), width, 1.6 * width, bend)
    return _Parcels(np.where(zone, other + 100_000_007, ids), gap)


def _allot(
    seed: int, shape: Shape, c: Climate, z: Field, water: Mask, parcels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Field]:
    """Cover of each pixel before towns and snow, and closeness to water (0-1)."""
    rng = stream(seed, "cover")
    scores = np.stack(
        [
            c.forest + 0.45 * z + noise(rng, shape, 45, 0.9),
            c.grassland + 0.1 * z + noise(rng, shape, 45, 1.0),
            c.cropland - 0.5 * z + noise(rng, shape, 90, 1.5),
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
    wetland = near + 0.45 * noise(rng, shape, 25, 0.9) - 0.25 * z > rng.uniform(0.5, 1.6) - c.moisture
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
    level = rng.normal(1.35, 0.35) + 9.0 * (rng.random() > 0.75)  # a quarter of the worlds has no town
    density = smoothstep((pull - level).astype(np.float32), -0.1, 1.2)
    town = (density > 0.02) & (cover != Cover.WATER)
    return np.where(town, density, 0).astype(np.float32), town


class _Ground:
    """Materials and textures while they are being painted, cover by cover."""

    def __init__(
        self,
        seed: int,
        c: Climate,
        green: float,
        cover: NDArray[np.int64],
        moisture: Field,
        density: Field,
        parcels: _Parcels,
    ) -> None:
        self.seed, self.climate, self.green, self.cover, self.density = seed, c, green, cover, density
        self.parcels = parcels
        self.shape: Shape = (cover.shape[0], cover.shape[1])
        self.material = np.zeros((len(MATERIALS), *self.shape), np.float32)
        self.moisture = moisture
        self.parcel = np.zeros(self.shape, np.int64)
        rng = stream(seed, "texture")
        self.coarse = noise(rng, self.shape, 22, 0.8)
        self.fine = noise(rng, self.shape, 2.5, 0.5)
        self.soil = self._soil(noise(rng, self.shape, 60, 0.8) + float(rng.normal(0, 0.8)))
        self.vigour = (green + 0.12 * self.coarse).astype(np.float32)
        self.brightness = (1 + 0.05 * self.coarse + 0.03 * self.fine).astype(np.float32)
        self.roughness = (0.5 * self.coarse + 0.5 * self.fine).astype(np.float32)

    def _soil(self, kind: Field) -> dict[str, Field]:
        """Shares of three soils that grade into one another, along one axis dark - pale - red."""
        dark, red = smoothstep(-kind, -0.2, 0.8), smoothstep(kind, 0.2, 1.2)
        return {"dark-soil": dark, "pale-soil": 1 - dark - red, "red-soil": red}

    def put(self, where: Mask, share: Field | float, parts: Mapping[str, Field | float]) -> None:
        """Add ``share`` of a mixture to the pixels ``where``."""
        for name, part in parts.items():
            self.material[MATERIALS.index(name)] += where * share * part

    def clear(self, where: Mask, keep: Field | float) -> None:
        """Leave ``keep`` of what has been painted ``where``."""
        self.material *= np.where(where, keep, 1.0).astype(np.float32)

    def paint(self) -> None:
        """All covers, then the roads that run across them."""
        self._nature()
        self._crops()
        self._buildings()
        self._roads()

    def _nature(self) -> None:
        rng, cover, v = stream(self.seed, "nature"), self.cover, np.clip(self.vigour, 0, 1)
        water = cover == Cover.WATER
        silt = smoothstep(noise(rng, self.shape, 50, 1.5) + float(rng.normal(0, 1)), -0.3, 2.0)
        self.put(water, 1.0, {"water": 1 - silt, "silt": silt})
        self.brightness[water] = 1.0

        forest = cover == Cover.FOREST
        conifer = smoothstep(noise(rng, self.shape, 35, 0.8) + (self.climate.conifer - 0.5) * 4, -0.4, 0.4)
        leaf = np.clip(0.55 + 0.5 * v, 0, 0.95)  # deciduous crowns follow the season, conifers hardly
        self.put(forest, conifer, {"conifer": 0.85, "dark-soil": 0.15})
        self.put(forest, 1 - conifer, {"broadleaf": leaf, "straw": (1 - leaf) * 0.6, "dark-soil": (1 - leaf) * 0.4})
        crowns = noise(rng, self.shape, 2.0, 0.5)
        self.brightness += forest * (0.09 * crowns - 0.05)
        self.roughness += forest * 0.8 * crowns

        grass = cover == Cover.GRASSLAND
        g = np.clip(v - 0.1 + 0.06 * self.fine, 0.02, 0.95)
        self.put(grass, g, {"green": 1.0})
        self.put(grass, (1 - g) * 0.65, {"straw": 1.0})
        self.put(grass, (1 - g) * 0.35, self.soil)

        bare = cover == Cover.SOIL
        scrub = np.clip(0.25 * v + 0.12 * self.fine + 0.06 * self.coarse - 0.05, 0, 0.5)
        self.put(bare, scrub, {"green": 0.6, "straw": 0.4})
        self.put(bare, 1 - scrub, self.soil)
        self.brightness += bare * 0.06 * self.coarse

        wet = cover == Cover.WETLAND
        reed = np.clip(0.3 + 0.45 * v + 0.15 * self.coarse, 0.15, 0.9)
        self.put(wet, reed, {"green": 0.7, "straw": 0.3})
        self.put(wet, 1 - reed, {"water": 0.7, "silt": 0.3})
        self.put(cover == Cover.SNOW, 1.0, {"snow": 0.93, "conifer": 0.07})

    def _crops(self) -> None:
        rng, crop = stream(self.seed, "crops"), self.cover == Cover.CROPLAND
        if not crop.any():
            return
        ids, gap = self.parcels.ids, self.parcels.gap
        stage, state, tone, wet, rough = (per_id(rng, ids) for _ in range(5))
        growing = stage < 0.15 + 0.6 * self.green
        v = np.where(growing, 0.35 + 0.6 * np.sqrt(state), 0.09 * state) + 0.04 * self.fine
        v = np.clip(np.where(gap, 0.15 * self.green, v), 0, 0.97)
        stubble = np.where(growing | (tone < 0.45), 0.1, 0.75)  # else ploughed: dark where the soil is dark and wet
        self.put(crop, v, {"green": 1.0})
        self.put(crop, (1 - v) * stubble, {"straw": 1.0})
        self.put(crop, (1 - v) * (1 - stubble), self.soil)
        self.brightness += crop * (0.24 * (tone - 0.5) - 0.03 * self.coarse)
        self.moisture += crop * ~gap * (0.6 * (wet - 0.4) * np.where(growing, 0.7, 1.0))
        self.roughness += crop * 4.5 * (rough - 0.5)

        edge = edges_of(ids) & crop
        self.parcel[crop & ~gap] = 1
        self.parcel[edge & ~(gap & ~edges_of(gap.astype(np.int64)))] = 2
        margin = edge & (per_id(rng, ids) < 0.8)  # grass strips, hedges, tracks; some fields just touch
        hedge = 0.5 * per_id(rng, ids)
        self.clear(margin, 0.45)
        self.put(margin, 0.55 * hedge, {"broadleaf": 0.8, "dark-soil": 0.2})
        self.put(margin, 0.55 * (1 - hedge), {"green": 0.35, "straw": 0.35, "pale-soil": 0.3})

    def _buildings(self) -> None:
        rng, town = stream(self.seed, "buildings"), self.cover == Cover.URBAN
        if not town.any():
            return
        angle, block = rng.uniform(0, math.pi), rng.uniform(6, 10)
        across, along = rotated(self.shape, angle, 1.5 * noise(rng, self.shape, 50, 2.0))
        length = block * rng.uniform(1.0, 1.8)
        ids = (across / block).astype(np.int64) * 1009 + (along / length).astype(np.int64)
        street = ((across % block) < 1.3) | ((along % length) < 1.3)
        lots = (across / 2.2).astype(np.int64) * 1013 + (along / 2.2).astype(np.int64)
        kind, lot, roof = per_id(rng, ids), per_id(rng, lots), per_id(rng, lots)
        d = self.density
        park = kind < 0.07
        hall = kind > 0.9 - 0.1 * d  # factories and malls: one big roof
        built = ~street & ~park & ((lot < 0.3 + 0.6 * d) | hall)
        garden = ~street & ~built
        tile = np.where(hall, 0.0, np.where(roof < 0.75 - 0.6 * d, 0.9, 0.05))
        metal = np.where(hall, 0.7 * (kind > 0.93), 0.15 * (roof > 0.9))
        house = town & built
        self.put(house, 0.85, {"tile": tile, "metal": metal, "concrete": (1 - tile - metal) * 0.7})
        self.put(house, 0.85 * (1 - tile - metal) * 0.3 + 0.15, {"asphalt": 1.0})
        self.put(town & street, 1.0, {"asphalt": 0.75, "concrete": 0.15, "green": 0.1 * self.green})
        leafy = np.clip(0.35 + 0.6 * self.green - 0.4 * d, 0.1, 0.9)
        self.put(town & garden, leafy, {"green": 0.6, "broadleaf": 0.4})
        self.put(town & garden, 1 - leafy, {"pale-soil": 0.3, "straw": 0.3, "concrete": 0.4})
        self.brightness += town * (0.2 * (lot - 0.5))
        # Walls facing the radar return much more than their neighbours: a heavy tail of bright points.
        glint = np.where(roof > 0.85, 5.0, 0.0)
        self.roughness += town * np.where(built, 2.0 + 3.0 * d + glint, np.where(street, -6.0, -5.0))

    def _roads(self) -> None:
        rng = stream(self.seed, "roads")
        for _ in range(1 + max(self.shape) // 250):
            line = np.abs(winding_line(rng, self.shape, 6, 90))
            near = (1 - smoothstep(line, 0.3, 1.3)) * float(rng.uniform(0.4, 0.9))
            where = near > 0
            self.clear(where, 1 - near)
            self.put(where, near, {"asphalt": 0.8, "pale-soil": 0.2})


def _fire(seed: int, shape: Shape, ground: _Ground) -> Field:
    """Burn what grows; returns severity and leaves char, ash and bare soil in the ground's materials."""
    rng = stream(seed, "fire")
    age = float(rng.beta(1.2, 2.6))  # 0 days after, 1 a season later: washed out and greening again
    front = noise(rng, shape, 55, 1.0) + 0.25 * noise(rng, shape, 10, 0.6) + 0.25 * ground.coarse
    level = rng.normal(0.3, 0.5)
    core = smoothstep(front.astype(np.float32), level, level + 0.45)
    patch = smoothstep(noise(rng, shape, 12, 0.7) + 1.6 + 1.5 * core, -0.2, 1.6)  # green islands stay inside
    fuel = np.zeros(len(Cover), np.float32)
    fuel[[Cover.FOREST, Cover.GRASSLAND, Cover.CROPLAND, Cover.SOIL]] = 1.0, 0.9, 0.0, 0.25
    burning = fuel[ground.cover]
    if rng.random() < 0.5:  # stubble fires stop at the edge of the field
        burning = burning + 0.8 * ((ground.cover == Cover.CROPLAND) & (ground.parcel == 1))
    severity = (core > 0) * np.sqrt(core) * patch * burning
    severity = np.where(severity > 0.12, np.clip(severity, 0, 1), 0).astype(np.float32)

    consumed = severity * (0.97 - 0.25 * age)
    burnt = severity > 0
    ground.clear(burnt, 1 - consumed)
    char = np.clip(0.97 - 0.5 * age + 0.06 * ground.fine, 0.1, 1)
    ground.put(burnt, consumed * char, {"char": 0.85, "ash": 0.15})
    ground.put(burnt, consumed * (1 - char) * (1 - 0.35 * age), ground.soil)
    ground.put(burnt, consumed * (1 - char) * 0.35 * age, {"green": ground.green, "straw": 1 - ground.green})
    ground.moisture -= 0.1 * severity
    ground.roughness += 0.6 * severity * ground.fine
    return severity


def _sky(seed: int, shape: Shape, conditions: Conditions) -> tuple[Field, Field]:
    """Opacity of the clouds and darkness of their shadows, which fall away from the sun."""
    rng = stream(seed, "sky")
    shape_noise = noise(rng, shape, 38, 0.8) + 0.2 * noise(rng, shape, 6, 0.6)
    level = rng.normal(1.3, 0.6)
    cumulus = smoothstep(shape_noise.astype(np.float32), level, level + 0.7)
    veil = 0.35 * smoothstep(noise(rng, shape, 80, 1.0), float(rng.normal(1.0, 0.8)), 2.8)
    reach = rng.uniform(8, 20) / math.tan(conditions.sun_elevation)
    down = round(reach * math.cos(conditions.sun_azimuth))
    right = round(-reach * math.sin(conditions.sun_azimuth))
    # The noise is periodic, so rolling it brings in the shadow of clouds that stand outside the image.
    shadow = np.roll(cumulus, (down, right), axis=(0, 1)) * (1 - cumulus)
    return np.clip(cumulus + veil * (1 - cumulus), 0, 1).astype(np.float32), blur(shadow.astype(np.float32), 0.8)
