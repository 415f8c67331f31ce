"""What the ground is painted with: parcels, then materials and textures cover by cover, then fire on top."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from eosfm.data.fields import (
    Field,
    Ids,
    Mask,
    Shape,
    cells,
    edges_of,
    noise,
    per_id,
    rotated,
    smoothstep,
    stream,
    strips,
    winding_line,
)
from eosfm.data.spectra import GREEN, MATERIALS, Cover

Share: TypeAlias = "NDArray[np.floating] | float"
"""how much of a pixel, 0-1: an image or one number"""


@dataclass(frozen=True)
class Parcels:
    """How the farmland is divided, drawn everywhere and used where crops grow."""

    ids: Ids
    gap: Mask
    """left out between irrigated circles"""


def draw_parcels(seed: int, shape: Shape, dry: bool) -> Parcels:
    """Strips, blocks, Voronoi cells or, where it is ``dry``, irrigated circles; two patterns share a world."""
    rng = stream(seed, "parcels")
    bend = 3.0 * noise(rng, shape, 60, 2.0)
    width = rng.uniform(7, 13)
    angle = rng.uniform(0, math.pi)
    ids = strips(rng, shape, angle, width, rng.uniform(1.5, 4) * width, bend)
    zone = noise(rng, shape, 80, 1.5) > rng.normal(0.4, 0.8)
    gap = np.zeros(shape, np.bool_)
    if rng.random() < 0.5 and dry:  # centre-pivot irrigation
        other, radius = cells(rng, shape, 20.0, 0.0)
        gap = zone & (radius > 9.3)
    elif rng.random() < 0.5:
        other, _ = cells(rng, shape, rng.uniform(12, 18))
    else:
        other = strips(rng, shape, angle + rng.uniform(0.5, 2.5), width, 1.6 * width, bend)
    return Parcels(np.where(zone, other + 100_000_007, ids), gap)


class Ground:
    """Materials and textures while they are being painted, cover by cover."""

    def __init__(
        self,
        seed: int,
        conifer: float,
        green: float,
        cover: NDArray[np.int64],
        moisture: Field,
        density: Field,
        parcels: Parcels,
    ) -> None:
        self.seed, self.conifer, self.green, self.cover, self.density = seed, conifer, green, cover, density
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

    def put(self, where: Mask, share: Share, parts: Mapping[str, Share]) -> None:
        """Add ``share`` of a mixture to the pixels ``where``."""
        for name, part in parts.items():
            self.material[MATERIALS.index(name)] += where * share * part

    def clear(self, where: Mask, keep: Share) -> None:
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
        conifer = smoothstep(noise(rng, self.shape, 35, 0.8) + (self.conifer - 0.5) * 4, -0.4, 0.4)
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

        edge = edges_of(np.where(gap, -1, ids)) & crop & ~gap
        self.parcel[crop & ~gap] = 1
        self.parcel[edge] = 2
        margin = edge & (per_id(rng, ids) < 0.8)  # grass strips, hedges, tracks; some fields just touch
        hedge = 0.2 + 0.6 * per_id(rng, ids)
        self.clear(margin, 0.3)
        self.put(margin, 0.7 * hedge, {"broadleaf": 0.8, "dark-soil": 0.2})
        self.put(margin, 0.7 * (1 - hedge), {"green": 0.35, "straw": 0.35, "pale-soil": 0.3})

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


def set_fire(seed: int, shape: Shape, ground: Ground) -> Field:
    """Burn what grows; returns severity and leaves char, ash and bare soil in the ground's materials."""
    rng = stream(seed, "fire")
    age = float(rng.beta(1.2, 2.6))  # 0 days after, 1 a season later: washed out and greening again
    front = noise(rng, shape, 65, 1.2) + 0.15 * noise(rng, shape, 12, 0.9) + 0.2 * ground.coarse
    level = rng.normal(0.1, 0.5)
    core = smoothstep(front.astype(np.float32), level, level + 0.45)
    patch = smoothstep(noise(rng, shape, 12, 0.9) + 1.6 + 1.5 * core, -0.2, 1.6)  # green islands stay inside
    fuel = ground.material[[MATERIALS.index(m) for m in (*GREEN, "straw")]].sum(axis=0)
    burns = (ground.cover == Cover.FOREST) | (ground.cover == Cover.GRASSLAND)
    if rng.random() < 0.5:  # stubble fires stop at the edge of the field
        burns |= (ground.cover == Cover.CROPLAND) & (ground.parcel == 1)
    burning = burns * smoothstep(fuel, 0.2, 0.8)
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
