"""Two plots of what specialists are worth: scores over sizes with bands, and a matrix of numbers in colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError
from eosfm.report.axes import blue, cycle, end_labels, padded, ticks
from eosfm.report.style import INK, MUTED, WARM, Width, points, sheet, width_px


@dataclass(frozen=True)
class Line:
    """Scores over sizes, with a band where there is one; ``markers`` off for a fitted curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    markers: bool = True
    joined: bool = True


def lines(
    rows: Sequence[Line], *, xlabel: str, ylabel: str, mark: tuple[float, float, str] | None = None,
    width: Width = "full",
) -> bytes:  # fmt: skip
    """PNG of several lines over one axis, each named at its end; ``mark`` circles a point and names it.

    Raises:
        DataError: no line, an empty one, or a band of another length.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    if not rows or any(not r.x or len(r.y) != len(r.x) or len(r.low) not in (0, len(r.x)) for r in rows):
        raise DataError("lines needs at least one line, each with as many y (and bounds) as x")
    values = [float(v) for r in rows for seq in (r.y, r.low, r.high) for v in seq if math.isfinite(v)]
    pad = 0.08 * ((max(values) - min(values)) or 1.0)
    every = [float(v) for r in rows for v in r.x]
    with sheet(width_px(width), 400 if width == "full" else 330) as s:
        room = min(s.widest([r.name for r in rows], 12, True) + 26, 0.36 * s.width)
        box = (64.0, 14.0, s.width - 64 - room, s.height - 14 - 50.0)
        ax = s.axes(*box)
        ax.set(ylim=(min(values) - pad, max(values) + pad), xlim=padded(every))
        ax.grid(False, axis="x")
        ticks(ax.xaxis, 8, integers=all(v.is_integer() for v in every))
        ticks(ax.yaxis, 6)
        ax.set_xlabel(xlabel, size=points(13), color=INK, labelpad=6)
        ax.set_ylabel(ylabel, size=points(13), color=INK, labelpad=8)
        for r, (colour, dashes) in zip(rows, cycle(len(rows)), strict=True):
            if r.low:
                ax.fill_between(r.x, r.low, r.high, color=colour, alpha=0.13, linewidth=0, zorder=2)
            ax.plot(
                r.x, r.y, marker="o" if r.markers else None, linestyle=dashes if r.joined else "none",
                color=colour, linewidth=points(2.2),
                markersize=points(7), markeredgecolor="white", markeredgewidth=points(1), zorder=4,
            )  # fmt: skip
        if mark is not None:
            ax.plot([mark[0]], [mark[1]], "o", markersize=points(15), markerfacecolor="none", markeredgecolor=WARM,
                    markeredgewidth=points(2), zorder=5)  # fmt: skip
            ax.annotate(mark[2], mark[:2], xytext=(0, points(16)), textcoords="offset points", ha="center",
                        size=points(12), color=WARM, zorder=6)  # fmt: skip
        ends = [next((float(v) for v in reversed(r.y) if math.isfinite(v)), min(values)) for r in rows]
        end_labels(s, box, ax, ends, [r.name for r in rows], [str(c) for c, _ in cycle(len(rows))])
        return s.png()


def matrix(
    numbers: NDArray[Any], rows: Sequence[str], columns: Sequence[str], *, digits: int = 2, scale: float | None = None,
    width: Width = "full",
) -> bytes:  # fmt: skip
    """PNG of ``numbers`` ``(rows, columns)``: blue above 0, orange below, white at 0; NaN stays empty.

    Args:
        numbers: what is shown.
        rows: names of the rows.
        columns: names of the columns.
        digits: after the point.
        scale: the number that gets the full colour; default the largest magnitude.
        width: of the figure.

    Raises:
        DataError: names that do not fit the matrix.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    m = np.asarray(numbers, float)
    if m.shape != (len(rows), len(columns)) or not m.size:
        raise DataError(f"matrix: {m.shape} numbers for {len(rows)} rows and {len(columns)} columns")
    finite = np.abs(m[np.isfinite(m)])
    most = scale or float(finite.max(initial=0)) or 1.0
    with sheet(width_px(width), 100) as s:
        left = min(s.widest(rows, 12), 0.3 * s.width) + 14
        heads = [s.fit(c, 150, 12) for c in columns]
        top = 0.75 * s.widest(heads, 12) + 22
        lean = 0.75 * s.width_of(heads[-1], 12)
        cell = min((s.width - left - lean) / len(columns), 96.0)
        tall = 26.0
        s.resize(top + tall * len(rows) + 6, left + cell * len(columns) + lean)
        for j, head in enumerate(heads):
            s.text(left + (j + 0.5) * cell - 2, top - 8, head, size=12, rotation=45, vertical="baseline", colour=MUTED)
        for i, name in enumerate(rows):
            y = top + i * tall
            s.text(left - 8, y + tall / 2, s.fit(name, left - 14, 12), size=12, at="right")
            for j, value in enumerate(m[i]):
                if not np.isfinite(value):
                    continue
                share = min(1.0, abs(float(value)) / most)
                fill = blue(share) if value >= 0 else _orange(share)
                s.box(left + j * cell + 1, y + 1, cell - 2, tall - 2, fill=fill, radius=3)
                if cell >= 30:
                    text = f"{value:.{digits}f}".replace("-", "−")
                    ink = "white" if share > 0.55 else INK
                    s.text(left + (j + 0.5) * cell, y + tall / 2, text, size=11, colour=ink, at="center")
        return s.png()


def _orange(share: float) -> str:
    low, high = (0xF4, 0xF6, 0xF8), tuple(int(WARM[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high, strict=True))
