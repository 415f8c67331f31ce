"""Shapes of landscapes: seeded random fields, winding lines and parcels. Arrays only; lengths and sizes are in pixels."""

from __future__ import annotations

import math
import zlib
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError

Field: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]
Ids: TypeAlias = NDArray[np.int64]
Shape: TypeAlias = tuple[int, int]

_TABLE = 2039  # prime, so that neighbouring ids do not share an entry


def stream(seed: int, purpose: str, *more: int) -> np.random.Generator:
    """The random numbers for one ``purpose``; drawing more for one purpose never shifts another.

    Raises:
        DataError: a negative seed.
    """
    if seed < 0 or any(m < 0 for m in more):
        raise DataError(f"seeds must be 0 or more, got {(seed, *more)}")
    return np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), *more]))


def grid(shape: Shape) -> tuple[Field, Field]:
    """Row and column coordinates, each ``(h, w)``."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return y, x


@lru_cache(maxsize=64)
def _amplitude(shape: Shape, length: float, smooth: float) -> Field:
    ky, kx = np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij")
    omega2 = (2 * math.pi) ** 2 * (ky**2 + kx**2)
    amplitude = (8 * smooth / length**2 + omega2) ** (-(smooth + 1) / 2)
    # Unit variance of the ensemble, not of each draw: a small world may be all valley, a big one has everything.
    amplitude /= math.sqrt(float(np.mean(amplitude**2)))
    half: Field = amplitude[:, : shape[1] // 2 + 1].astype(np.float32)
    return half


def noise(rng: np.random.Generator, shape: Shape, length: float, smooth: float = 1.0) -> Field:
    """A Gaussian field ``(h, w)``, mean 0 and variance 1 over many draws, with a Matern power-law spectrum.

    ``length`` is the correlation length in pixels whatever the size, so chips and scenes share one texture;
    ``smooth`` (Matern nu) is 0.5 for ragged outlines and 2 for gentle ones. Periodic (Whittle 1954).
    """
    white = rng.standard_normal(shape, dtype=np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * _amplitude(shape, length, smooth), s=shape)
    return field.astype(np.float32)


def smoothstep(x: Field, low: float, high: float) -> Field:
    """0 below ``low``, 1 above ``high``, a cubic ramp between."""
    t: Field = np.clip((x - low) * (1.0 / (high - low)), 0.0, 1.0, dtype=np.float32)
    return t * t * (3 - 2 * t)


def blur(x: Field, sigma: float) -> Field:
    """``x`` ``(h, w)`` smoothed by a Gaussian of ``sigma`` pixels; edges repeat; a constant stays itself."""
    radius = max(1, math.ceil(2.5 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        n = x.shape[axis]
        pad = np.pad(x, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        out = np.zeros_like(x)
        for i, k in enumerate(kernel.tolist()):
            out += k * (pad[i : i + n] if axis == 0 else pad[:, i : i + n])
        x = out
    return x


def winding_line(rng: np.random.Generator, shape: Shape, wander: float, length: float) -> Field:
    """Signed distance ``(h, w)`` to a line that crosses the image, meandering by about ``wander`` pixels."""
    y, x = grid(shape)
    angle = rng.uniform(0, 2 * math.pi)
    cy, cx = rng.uniform(0.15, 0.85, 2) * shape
    plane = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
    level = (plane + wander * noise(rng, shape, length, 2.0)).astype(np.float32)
    gy, gx = np.gradient(level)
    # A level set divided by its slope has an even width, as a river has.
    slope: Field = np.maximum(np.hypot(gy, gx), 0.35, dtype=np.float32)
    distance: Field = level / slope
    return distance


def pick(table: NDArray[np.floating], ids: Ids) -> Field:
    """The entry of ``table`` that belongs to each id; the same id always gets the same entry."""
    return table[ids % len(table)].astype(np.float32)


def per_id(rng: np.random.Generator, ids: Ids) -> Field:
    """A uniform number in 0-1 for each id, as an image of the shape of ``ids``."""
    return pick(rng.random(_TABLE, dtype=np.float32), ids)


def rotated(shape: Shape, angle: float, bend: Field | float = 0.0) -> tuple[Field, Field]:
    """Coordinates ``(across, along)`` turned by ``angle`` radians and shifted by ``bend`` pixels; never negative."""
    y, x = grid(shape)
    reach = float(sum(shape)) + 32.0
    across = x * math.cos(angle) + y * math.sin(angle) + bend + reach
    along = y * math.cos(angle) - x * math.sin(angle) + bend + reach
    return across.astype(np.float32), along.astype(np.float32)


def strips(rng: np.random.Generator, shape: Shape, angle: float, width: float, length: float, bend: Field) -> Ids:
    """Ids of rectangular parcels laid in strips, as after land consolidation: strips of uneven width, cut unevenly."""
    across, along = rotated(shape, angle, bend)
    edges = np.cumsum(width * rng.uniform(0.5, 1.6, int(3 * sum(shape) / width) + 40))
    strip = np.searchsorted(edges, across.ravel()).reshape(shape)
    cut, shift = rng.uniform(0.6, 1.8, len(edges) + 1) * length, rng.uniform(0, 400, len(edges) + 1)
    return strip * 1009 + ((along + shift[strip]) / cut[strip]).astype(np.int64)


def cells(rng: np.random.Generator, shape: Shape, size: float, jitter: float = 1.0) -> tuple[Ids, Field]:
    """Ids of Voronoi cells about ``size`` pixels wide and the distance to their seed; ``jitter`` 0 is a square lattice."""
    y, x = grid(shape)
    rows, cols = (int(s / size) + 3 for s in shape)
    seeds = (0.5 + jitter * (rng.random((2, rows, cols), dtype=np.float32) - 0.5)).astype(np.float32)
    # Row and column 0 of the lattice lie outside the image, so that border pixels have all nine neighbours.
    r, c = (y / size).astype(np.int64) + 1, (x / size).astype(np.int64) + 1
    best = np.full(shape, np.inf, np.float32)
    ids = np.zeros(shape, np.int64)
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            i, j = r + dr, c + dc
            d = ((seeds[0, i, j] + i - 1) * size - y) ** 2 + ((seeds[1, i, j] + j - 1) * size - x) ** 2
            nearer = d < best
            best[nearer] = d[nearer]
            ids[nearer] = (i * 1009 + j)[nearer]
    return ids, np.sqrt(best).astype(np.float32)


def edges_of(ids: Ids) -> Mask:
    """Pixels ``(h, w)`` with a neighbour of another id on any of four sides."""
    edge = np.zeros(ids.shape, np.bool_)
    down, right = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def illumination(height: Field, azimuth: float, elevation: float, pixel_m: float) -> Field:
    """Sunlight on a slope relative to flat ground ``(h, w)``: cos(incidence) / sin(sun elevation); angles in radians."""
    gy, gx = np.gradient(height, pixel_m)
    # The sun stands in direction (sin azimuth, -cos azimuth) of (column, row): north is up.
    facing = -(gx * math.sin(azimuth) - gy * math.cos(azimuth))
    lit = (1 + facing / math.tan(elevation)) / np.sqrt(1 + gx**2 + gy**2)
    clipped: Field = np.clip(lit, 0.0, 2.0).astype(np.float32)
    return clipped
