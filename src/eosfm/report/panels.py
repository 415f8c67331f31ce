"""Pictures side by side: a gallery of chips, and a large scene with its maps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError
from eosfm.report.pictures import Numbers, Pixels, colour_map
from eosfm.report.style import FULL, INK, MUTED, Sheet, draw_legend, legend_height, sheet

_GUTTER = 6


@dataclass(frozen=True, eq=False)
class Panel:
    """One small picture.

    Raises:
        DataError: the pixels are not ``(h, w, 3)`` uint8.
    """

    pixels: Pixels
    """``(h, w, 3)``"""
    note: str = ""
    """a word or number in the corner, such as the score of this prediction"""
    classes: bool = False
    """whether the colours are classes, which must not be mixed when the picture shrinks"""

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[-1] != 3 or self.pixels.dtype != np.uint8 or not self.pixels.size:
            raise DataError(f"a panel shows (h, w, 3) uint8; got {self.pixels.shape} {self.pixels.dtype}")

    @classmethod
    def of_classes(cls, labels: Numbers, colours: Sequence[str], *, ignore: int = 255, note: str = "") -> Panel:
        """The map of ``labels`` ``(h, w)`` in ``colours``."""
        return cls(colour_map(labels, colours, ignore), note, classes=True)


def gallery(
    columns: Sequence[str],
    rows: Sequence[Sequence[Panel]],
    *,
    row_labels: Sequence[str] = (),
    legend: Mapping[str, str] | None = None,
) -> bytes:
    """PNG of chips in rows and columns: headings above, row labels on the left, class colours (name -> colour) below.

    Chips are enlarged by repeating pixels, so a reader sees what the model saw.

    Raises:
        DataError: no rows, or a row whose panels or labels do not match the columns or rows.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    if not rows or any(len(r) != len(columns) for r in rows):
        raise DataError(f"a gallery of {len(columns)} columns got rows of {sorted({len(r) for r in rows})} panels")
    if row_labels and len(row_labels) != len(rows):
        raise DataError(f"{len(row_labels)} row labels for {len(rows)} rows")
    entries = dict(legend or {})
    with sheet(FULL, 100) as s:
        margin = min(110.0, s.widest(row_labels, 12) + 12) if row_labels else 0.0
        cell = (FULL - margin - _GUTTER * (len(columns) - 1)) / len(columns)
        cell = _crisp(min(cell, 220.0), max(p.pixels.shape[1] for r in rows for p in r))
        heads = [s.wrap(c, cell + _GUTTER - 2, 12, 3) for c in columns]
        top = 16.0 * max(len(h) for h in heads) + 6
        heights = [max(cell * p.pixels.shape[0] / p.pixels.shape[1] for p in r) for r in rows]
        bottom = top + sum(heights) + _GUTTER * (len(rows) - 1)
        content = margin + len(columns) * (cell + _GUTTER) - _GUTTER
        s.resize(math.ceil(bottom + 12 + legend_height(s, entries, content - margin)), max(content, 0.4 * FULL))
        for c, lines in enumerate(heads):
            for k, text in enumerate(reversed(lines)):
                x = margin + c * (cell + _GUTTER) + cell / 2
                s.text(x, top - 12 - 16 * k, text, size=12, colour=MUTED, at="center")
        y = top
        for r, row in enumerate(rows):
            if row_labels:
                lines = s.wrap(row_labels[r], margin - 10, 12, 4)
                for k, text in enumerate(lines):
                    s.text(0, y + heights[r] / 2 + 16 * (k - (len(lines) - 1) / 2), text, size=12)
            for c, panel in enumerate(row):
                place(s, panel, margin + c * (cell + _GUTTER), y, cell)
            y += heights[r] + _GUTTER
        draw_legend(s, entries, margin, bottom + 10, content - margin)
        return s.png()


def scene_panels(
    panels: Mapping[str, Panel],
    *,
    legend: Mapping[str, str] | None = None,
    metres_per_pixel: float | None = None,
) -> bytes:
    """PNG of one large scene several times, side by side: its input, its map, the truth (title -> panel).

    All panels show the same ground. Where ``metres_per_pixel`` is known, the first one carries a scale bar.

    Raises:
        DataError: no panels, or panels of different sizes.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    shapes = {p.pixels.shape for p in panels.values()}
    if len(shapes) != 1:
        raise DataError(f"panels of one scene have one size; got {sorted(shapes)}")
    entries = dict(legend or {})
    across = len(panels) if len(panels) <= 3 else 2 if len(panels) == 4 else 3
    gutter, head = 12.0, 26.0
    cell = min((FULL - gutter * (across - 1)) / across, 520.0)
    h, w = next(iter(shapes))[:2]
    with sheet(FULL, 100) as s:
        tall = head + cell * h / w
        bottom = math.ceil(len(panels) / across) * (tall + 10)
        content = across * (cell + gutter) - gutter
        s.resize(math.ceil(bottom + 4 + legend_height(s, entries, content)), content)
        for k, (title, panel) in enumerate(panels.items()):
            x, y = (k % across) * (cell + gutter), (k // across) * (tall + 10)
            s.text(x + 1, y + 12, s.fit(title, cell, 13, True), size=13, bold=True)
            place(s, panel, x, y + head, cell)
        if metres_per_pixel is not None:
            _scale_bar(s, 16, tall - 16, cell, w * metres_per_pixel)
        draw_legend(s, entries, 1, bottom + 2, content)
        return s.png()


def _crisp(cell: float, pixels: int) -> float:
    """``cell`` or a little less, so that every pixel is repeated equally often where it is repeated much."""
    times = int(2 * cell / pixels)
    return times * pixels / 2 if times >= 3 else float(int(cell))


def place(s: Sheet, panel: Panel, x: float, y: float, cell: float) -> None:
    """Draw ``panel`` ``cell`` CSS pixels wide with its top left corner at ``(x, y)``."""
    h, w = panel.pixels.shape[:2]
    width = round(2 * cell)
    s.image(_resized(panel, width, max(1, round(width * h / w))), x, y)
    if panel.note:
        room = s.width_of(panel.note, 11) + 10
        bottom = y + cell * h / w
        s.box(x + cell - room - 3, bottom - 19, room, 16, fill="#17212bd0", radius=3)
        s.text(x + cell - room / 2 - 3, bottom - 10.5, panel.note, size=11, colour="white", at="center")


def _resized(panel: Panel, width: int, height: int) -> NDArray[np.uint8]:
    """Repeat pixels to enlarge; to shrink, average colours, but drop pixels where the colours are classes."""
    from PIL import Image

    shrink = width < panel.pixels.shape[1] and not panel.classes
    how = Image.Resampling.BOX if shrink else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(panel.pixels).resize((width, height), how))


def _scale_bar(s: Sheet, x: float, y: float, cell: float, metres: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten, at most a third of the panel, with its left end on ``(x, y)``."""
    power = 10.0 ** math.floor(math.log10(metres / 3))
    length = max(step * power for step in (1, 2, 5) if step * power <= metres / 3)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    bar = cell * length / metres
    s.box(x - 8, y - 23, max(bar, s.width_of(text, 12)) + 16, 31, fill="#ffffffe6", radius=4)
    s.line([x, x, x + bar, x + bar], [y - 3, y + 1, y + 1, y - 3], colour=INK, line=1.6, zorder=6)
    s.text(x, y - 12, text, size=12)
