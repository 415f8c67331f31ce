"""Where chips lie on the ground: two splits that show the same place make every score worthless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eosfm.contracts import DataError

MAX_SHARED = 0.01
"""share of a chip that may lie in another split: neighbours touch, and grids differ by fractions of a pixel"""


@dataclass(frozen=True)
class Footprint:
    """A chip's bounding box in its coordinate reference system."""

    crs: str
    left: float
    bottom: float
    right: float
    top: float


def require_apart(splits: Mapping[str, tuple[Sequence[str], Sequence[Footprint]]]) -> None:
    """`DataError` if chips of two ``splits`` (ids and footprints) of one CRS cover the same ground, naming two of them."""
    names = list(splits)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            _require_apart(one, splits[one], other, splits[other])


def without_shared_ground(
    splits: Mapping[str, Sequence[str]], places: Mapping[str, Footprint]
) -> tuple[dict[str, list[str]], int]:
    """``splits`` (training first, test last) without the chips that show ground of a later split, and how many those were.

    ``places`` has the footprint of every chip. Chips in different coordinate reference systems are not compared.
    """
    out = {name: list(keys) for name, keys in splits.items()}
    names, lost = list(splits), 0
    for i, name in enumerate(names):
        later = [places[k] for other in names[i + 1 :] for k in splits[other]]
        kept = [k for k in out[name] if not any(_shared(places[k], f) > MAX_SHARED for f in later)]
        lost += len(out[name]) - len(kept)
        out[name] = kept
    return out, lost


def _shared(a: Footprint, b: Footprint) -> float:
    """The share of the smaller of the two that lies in the other."""
    if a.crs != b.crs:
        return 0.0
    wide, high = min(a.right, b.right) - max(a.left, b.left), min(a.top, b.top) - max(a.bottom, b.bottom)
    smaller = min((f.right - f.left) * (f.top - f.bottom) for f in (a, b))
    return max(wide, 0.0) * max(high, 0.0) / smaller


def _require_apart(
    one: str,
    a: tuple[Sequence[str], Sequence[Footprint]],
    other: str,
    b: tuple[Sequence[str], Sequence[Footprint]],
) -> None:
    for crs in {f.crs for f in a[1]} & {f.crs for f in b[1]}:
        mine = [(i, f) for i, f in zip(*a, strict=True) if f.crs == crs]
        yours = [(i, f) for i, f in zip(*b, strict=True) if f.crs == crs]
        boxes = np.array([(f.left, f.bottom, f.right, f.top) for _, f in yours])
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        for key, f in mine:
            wide = np.minimum(boxes[:, 2], f.right) - np.maximum(boxes[:, 0], f.left)
            high = np.minimum(boxes[:, 3], f.top) - np.maximum(boxes[:, 1], f.bottom)
            shared = (
                np.clip(wide, 0, None)
                * np.clip(high, 0, None)
                / np.minimum(area, (f.right - f.left) * (f.top - f.bottom))
            )
            worst = int(shared.argmax())
            if shared[worst] > MAX_SHARED:
                raise DataError(
                    f"chip {key!r} of the {one} split and {yours[worst][0]!r} of the {other} split show the same ground "
                    f"({100 * shared[worst]:.0f} % of it); scores would be worthless. Split by place."
                )
