"""Class colours: what a map maker would choose for a known name, and colours that stay apart for all others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NODATA = "#dfe2e6"
"""Light grey: pixels without a value, and pixels whose label is ignored."""

_NEUTRAL = {
    "unburnt", "unburned", "not burnt", "not burned", "background", "other", "others", "rest", "none", "land", "clear",
    "open", "dry", "no water", "non water", "not water", "no flood", "no cloud", "no change", "unchanged", "clear sky",
    "dry land", "no building", "non built", "negative",
}  # fmt: skip
_NEUTRAL_COLOUR = "#ebe5d5"

# Checked in this order: the first word found in the name decides. Light and dark are chosen so that neighbours on a map
# (forest - urban, crops - grass) keep apart without red-green vision.
_KNOWN: tuple[tuple[str, str], ...] = (
    ("flood+vegetation", "#4cb5ae"), ("flood", "#4aa8e0"), ("wetland marsh mangrove swamp bog peat", "#4cb5ae"),
    ("shadow", "#4b4560"), ("cirrus thin haze", "#c3cbd8"), ("cloud", "#aeb8c6"), ("snow ice glacier", "#c5e7f5"),
    ("burn fire scar char", "#d7401f"), ("change damage destroyed landslide", "#d7401f"), ("ship boat vessel", "#332288"),
    ("boundary border edge outline", "#4a2c1a"),
    ("agroforestry agro", "#8a9a3b"), ("shrub heath moor scrub chaparral bush savanna", "#a89246"),
    ("conifer needle", "#0b3d2a"), ("forest tree wood broadleaf broadleaved deciduous", "#14633c"),
    ("permanent orchard vineyard olive vine fruit plantation", "#7a5c1e"), ("rice", "#7f8fd1"),
    ("pasture meadow grass rangeland herbaceous vegetation green", "#b5d85f"),
    ("crop arable agricultur cultivat farm field interior harvest", "#f0a92e"),
    ("industr commercial factory warehouse", "#9c4f96"), ("road highway runway railway airport parking asphalt", "#70757d"),
    ("suburb residential sparse houses", "#ee9ca0"), ("urban built building dense impervious settlement city artificial roof",
                                                      "#d2476a"),
    ("water river lake sea ocean marine pond coastal", "#1f6fb8"),
    ("bare soil sand beach dune rock desert barren mine quarry", "#c9ad86"),
)  # fmt: skip

# Paul Tol's "muted" and "bright" sets, which stay apart under the common colour-vision deficiencies.
_QUALITATIVE = (
    "#332288",
    "#ddcc77",
    "#117733",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#cc6677",
    "#999933",
    "#aa4499",
    "#4477aa",
)


def class_colours(classes: Sequence[str]) -> list[str]:
    """One ``"#rrggbb"`` per class: what a map maker would choose for a known name, else a colour-blind safe palette.

    The colours of one call differ from one another; equal calls give equal colours.
    """
    chosen: dict[int, str] = {}
    for i, name in enumerate(classes):
        base = _known_colour(name)
        if base is not None:
            shades = [base, *(_shade(base, s) for s in (0.35, -0.3, 0.55, -0.5))]
            chosen[i] = _distinct(shades, list(chosen.values()))
    for i in range(len(classes)):
        if i not in chosen:
            palette = [*_QUALITATIVE, *(_shade(c, 0.4) for c in _QUALITATIVE), *(_shade(c, -0.4) for c in _QUALITATIVE)]
            chosen[i] = _distinct(palette, list(chosen.values()))
    return [chosen[i] for i in range(len(classes))]


def rgb(colour: str) -> tuple[int, int, int]:
    """``"#0b5f8f" -> (11, 95, 143)``."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _known_colour(name: str) -> str | None:
    words = _words(name)
    if " ".join(words) in _NEUTRAL:
        return _NEUTRAL_COLOUR
    for keys, colour in _KNOWN:
        for key in keys.split():  # "a+b": both words
            if all(any(w.startswith(part) for w in words) for part in key.split("+")):
                return colour
    return None


def _words(name: str) -> list[str]:
    """``"SeaLake" -> ["sea", "lake"]``, ``"Non-irrigated arable land" -> ["non", "irrigated", "arable", "land"]``."""
    spaced = "".join(f" {c}" if c.isupper() and i and name[i - 1].islower() else c for i, c in enumerate(name))
    return "".join(c.lower() if c.isalnum() else " " for c in spaced).split()


def _distinct(candidates: Sequence[str], taken: Sequence[str]) -> str:
    """The first candidate well apart from all ``taken``, else the one farthest from them."""
    gaps = [min((_gap(c, t) for t in taken), default=1e9) for c in candidates]
    return next((c for c, g in zip(candidates, gaps, strict=True) if g > 15.0), candidates[int(np.argmax(gaps))])


def _gap(a: str, b: str) -> float:
    """Distance in CIELAB; about 2 is just noticeable."""
    return float(np.linalg.norm(_lab(a) - _lab(b)))


def _lab(colour: str) -> NDArray[np.float64]:
    c = np.array(rgb(colour)) / 255.0
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _shade(colour: str, by: float) -> str:
    """``colour`` moved towards white (``by`` > 0) or black."""
    target = 255.0 if by > 0 else 0.0
    return "#" + "".join(f"{round(v + (target - v) * abs(by)):02x}" for v in rgb(colour))
