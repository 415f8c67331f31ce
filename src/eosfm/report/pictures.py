"""Pictures of images and class maps, in numpy. Channels are picked by common name, never by position.

    picture = best_picture(chips, bands)      # (n, h, w, 3) uint8, "true colour (B04, B03, B02)"
    colours = class_colours(["unburnt", "burnt"])
    rgb = colour_map(labels, colours)

One call stretches all its images alike, so pass the chips that a reader will compare together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eosfm.bands import Band, BandSet, Modality
from eosfm.contracts import BandError, DataError
from eosfm.report.colours import NODATA, class_colours, rgb
from eosfm.units import MIN_LINEAR_POWER, Quantity, Unit, affine

__all__ = [
    "AGREEMENT", "NODATA", "Picture", "agreement_map", "best_picture", "class_colours", "colour_map", "false_colour",
    "picture", "possible_pictures", "sar_composite", "true_colour",
]  # fmt: skip

Pixels: TypeAlias = NDArray[np.uint8]
Numbers: TypeAlias = NDArray[Any]
Kind: TypeAlias = Literal["true-colour", "false-colour", "sar", "grey"]

_COMPOSITES: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "true-colour": (("red",), ("green",), ("blue",)),
    "false-colour": (("swir22", "swir16"), ("nir08", "nir"), ("red",)),
}
_POLARISATIONS = (("VV", "VH"), ("HH", "HV"))
_PERCENTILES = (2.0, 50.0, 98.0)
_GAMMA = 1.3
_MIN_SPAN = {
    Quantity.REFLECTANCE: 0.03,
    Quantity.BACKSCATTER: 3.0,
    Quantity.BRIGHTNESS: 8.0,
    Quantity.COUNTS: 8.0,
    Quantity.HEIGHT: 1.0,
}
"""What is at least spread from black to white, so that the noise of an even surface is not stretched into structure."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What can be shown of an image, and what a caption should call it."""

    pixels: Pixels
    """``(h, w, 3)``, or ``(n, h, w, 3)`` for ``n`` images"""
    label: str
    """``"true colour (B04, B03, B02)"``"""


def possible_pictures(bands: BandSet) -> list[Kind]:
    """The kinds of picture that ``bands`` allow, the most familiar first; ``"grey"`` is always possible."""
    kinds: list[Kind] = [k for k in _COMPOSITES if _optical(bands, k) is not None]
    return [*kinds, *(["sar"] if _polarisations(bands) is not None else []), "grey"]  # type: ignore[list-item]


def picture(images: Numbers, bands: BandSet, kind: Kind) -> Picture:
    """``images`` ``(c, h, w)`` or ``(n, c, h, w)``, in the units that ``bands`` declare, as a picture of ``kind``.

    Each channel is stretched between its 2nd and 98th percentile over all images. Two things differ for reflectance: the
    upper end is lower where clouds would leave everything else dark, and it is drawn half-way towards the other channels'
    so that hues stay natural. 8-bit optical values, which are made for display, stay as they are. Pixels that are not
    finite become `NODATA`. Permuting the channels together with the bands changes nothing.

    Raises:
        BandError: ``bands`` do not allow this kind, or ``images`` has another number of channels.
    """
    x = np.asarray(images)
    if x.ndim not in (3, 4) or x.shape[-3] != len(bands):
        raise BandError(f"expected (c, h, w) or (n, c, h, w) with {len(bands)} channels for {bands}; got {x.shape}")
    if kind == "sar":
        pair = _polarisations(bands)
        if pair is None:
            raise BandError(f"a SAR picture needs VV and VH, or HH and HV, of one sensor; the bands are {bands}")
        co, cross = (_physical(_channel(x, i), bands[i].unit) for i in pair)
        a, b = (bands[i].name for i in pair)
        channels = [co, cross, co - cross]
        unit = "" if bands[pair[0]].unit is Unit.EIGHT_BIT else " in dB"
        return Picture(
            _compose(channels, [_limits(c, bands[pair[0]].unit.quantity) for c in channels]),
            f"SAR ({a}, {b}, {a}−{b}{unit})",
        )
    if kind == "grey":
        i = _plainest(bands)
        return Picture(_stretched(x, bands, (i, i, i)), f"{bands[i].name} ({bands[i].common}), grey")
    index = _optical(bands, kind)
    if index is None:
        wanted = ", ".join(" or ".join(c) for c in _COMPOSITES[kind])
        raise BandError(f"a {kind} picture needs {wanted} of one sensor; the bands are {bands}")
    names = ", ".join(bands[i].name for i in index)
    title = "true colour" if kind == "true-colour" else f"{_said(bands[index[0]])}–NIR–red"
    return Picture(_stretched(x, bands, index), f"{title} ({names})")


def best_picture(images: Numbers, bands: BandSet) -> Picture:
    """The most familiar picture that ``bands`` allow: true colour, else false colour, else SAR, else one band in grey."""
    return picture(images, bands, possible_pictures(bands)[0])


def true_colour(images: Numbers, bands: BandSet) -> Pixels:
    """Red, green and blue as a human would see them; see `picture`."""
    return picture(images, bands, "true-colour").pixels


def false_colour(images: Numbers, bands: BandSet) -> Pixels:
    """Short-wave infrared, near infrared, red: burns are red-brown, healthy plants green, water black; see `picture`."""
    return picture(images, bands, "false-colour").pixels


def sar_composite(images: Numbers, bands: BandSet) -> Pixels:
    """VV, VH and their ratio (the difference in dB); see `picture`."""
    return picture(images, bands, "sar").pixels


def colour_map(labels: Numbers, colours: Sequence[str], ignore: int = 255) -> Pixels:
    """Labels ``(..., h, w)`` as ``(..., h, w, 3)``; label ``i`` gets ``colours[i]``, ``ignore`` gets `NODATA`.

    Raises:
        DataError: a label without a colour.
    """
    y = np.asarray(labels)
    outside = (y != ignore) & ((y < 0) | (y >= len(colours)))
    if outside.any():
        bad = ", ".join(str(v) for v in np.unique(y[outside])[:5].tolist())
        raise DataError(f"labels {bad} have no colour: there are {len(colours)} colours, and {ignore} is ignored")
    table = np.array([rgb(c) for c in (*colours, NODATA)], np.uint8)
    return table[np.where(y == ignore, len(colours), y).astype(np.int64)]


AGREEMENT = {"agrees": "#a9c3d6", "differs": "#c2402f"}
"""Legend of `agreement_map`."""


def agreement_map(prediction: Numbers, truth: Numbers, ignore: int = 255) -> Pixels:
    """Where ``prediction`` and ``truth`` ``(..., h, w)`` agree and where they differ; ignored pixels are `NODATA`."""
    y = np.where(np.asarray(truth) == ignore, 2, np.asarray(prediction) != np.asarray(truth))
    return colour_map(y, list(AGREEMENT.values()), ignore=2)


def _optical(bands: BandSet, kind: Kind) -> tuple[int, int, int] | None:
    """Channels of the composite, all of one sensor: the finest that has them."""
    sensors = {b.sensor for b in bands if b.modality is Modality.OPTICAL}

    def rank(sensor: str) -> tuple[float, str]:
        sizes = [b.gsd_m for b in bands if b.sensor == sensor and b.gsd_m is not None]
        return min(sizes, default=float("inf")), sensor

    for sensor in sorted(sensors, key=rank):
        channels = {b.common: i for i, b in enumerate(bands) if b.sensor == sensor}
        picked = [next((channels[c] for c in options if c in channels), None) for options in _COMPOSITES[kind]]
        r, g, b = picked
        if r is not None and g is not None and b is not None:
            return r, g, b
    return None


def _polarisations(bands: BandSet) -> tuple[int, int] | None:
    sensors = sorted({b.sensor for b in bands if b.modality is Modality.SAR})
    for sensor in sensors:
        channels = {b.name: i for i, b in enumerate(bands) if b.sensor == sensor}
        for co, cross in _POLARISATIONS:
            if co in channels and cross in channels:
                return channels[co], channels[cross]
    return None


def _plainest(bands: BandSet) -> int:
    """The band to show alone: red or its like, whatever the order of the channels."""
    liked = ["red", "pan", "green", "nir08", "nir", "vv", "hh", "elevation"]

    def rank(i: int) -> tuple[int, str, str]:
        b = bands[i]
        return (liked.index(b.common) if b.common in liked else len(liked)), b.sensor, b.name

    return min(range(len(bands)), key=rank)


def _said(band: Band) -> str:
    return {"swir22": "SWIR2", "swir16": "SWIR1"}.get(band.common, band.common)


def _channel(x: Numbers, i: int) -> NDArray[np.float64]:
    """Channel ``i`` as ``(n, h, w)`` or ``(h, w)``, with NaN where nothing finite is."""
    c: NDArray[np.float64] = x[..., i, :, :].astype(np.float64)
    c[~np.isfinite(c)] = np.nan
    return c


def _physical(c: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
    """Reflectance or dB, so that channels in different units look alike; other quantities as they are."""
    if unit.quantity is Quantity.REFLECTANCE:
        scale, offset = affine(unit, Unit.REFLECTANCE) or (1.0, 0.0)
        return c * scale + offset
    if unit is Unit.LINEAR:
        power: NDArray[np.float64] = np.log10(np.maximum(c, MIN_LINEAR_POWER))
        return 10.0 * power
    return c


def _stretched(x: Numbers, bands: BandSet, index: tuple[int, int, int]) -> Pixels:
    picked = [bands[i] for i in index]
    channels = [_physical(_channel(x, i), b.unit) for i, b in zip(index, picked, strict=True)]
    if all(b.unit is Unit.EIGHT_BIT and b.modality is Modality.OPTICAL for b in picked):
        return _compose(channels, [(0.0, 255.0)] * 3)
    limits = [_limits(c, b.unit.quantity) for c, b in zip(channels, picked, strict=True)]
    if any(b.unit.quantity is not Quantity.REFLECTANCE for b in picked):
        return _compose(channels, limits)
    top = sum(high for _, high in limits) / 3
    return _compose(channels, [(low, max((high + top) / 2, low + 0.01)) for low, high in limits], _GAMMA)


def _compose(
    channels: Sequence[NDArray[np.float64]], limits: Sequence[tuple[float, float]], gamma: float = 1.0
) -> Pixels:
    """Three channels as one picture, each black to white over its limits."""
    shown = [np.clip((c - a) / (b - a), 0.0, 1.0) ** (1 / gamma) for c, (a, b) in zip(channels, limits, strict=True)]
    values = np.stack(shown, axis=-1)
    void = np.isnan(values).any(axis=-1, keepdims=True)
    return np.rint(np.where(void, rgb(NODATA), values * 255.0)).astype(np.uint8)


def _limits(c: NDArray[np.float64], quantity: Quantity) -> tuple[float, float]:
    """What becomes black and what becomes white."""
    valid = c[np.isfinite(c)]
    if valid.size == 0:
        return 0.0, 1.0
    low, middle, high = (float(p) for p in np.percentile(valid, _PERCENTILES))
    if quantity is Quantity.REFLECTANCE:  # clouds are few and bright: three times the darker half's range is enough
        high = min(high, middle + 3 * (middle - low))
    span = _MIN_SPAN[quantity]
    if high - low < span:
        low, high = (low + high - span) / 2, (low + high + span) / 2
    return low, high
