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
