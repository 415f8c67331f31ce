"""The plots of the report. Each function returns PNG bytes in one consistent style; equal input gives equal bytes.

png = score_bars([ScoreBar("ensemble", 0.81, 0.79, 0.83, (0.80, 0.81, 0.82), highlight=True), ...], label="mIoU")
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError
from eosfm.report.axes import blue, cycle, end_labels, number, padded, ticks
from eosfm.report.panels import Panel, gallery, scene_panels
from eosfm.report.routes import RouteView, band_labels, route_diagram
from eosfm.report.style import (
    ACCENT,
    ACCENT_SOFT,
    FAINT,
    INK,
    MUTED,
    SERIES,
    Sheet,
    Width,
    points,
    sheet,
    width_px,
)

__all__ = [
    "Panel", "RouteView", "ScoreBar", "band_labels", "confusion", "curve", "gallery", "route_diagram", "scene_panels",
    "score_bars", "training_curves",
]  # fmt: skip


@dataclass(frozen=True)
class ScoreBar:
    """The score of one method: a mean, its 95 % interval (NaN where unknown) and the score of each seed."""

    name: str
    mean: float
    low: float = math.nan
    high: float = math.nan
    seeds: tuple[float, ...] = ()
    highlight: bool = False


def score_bars(rows: Sequence[ScoreBar], *, label: str, digits: int = 3, width: Width = "full") -> bytes:
    """PNG of one line per method, in the given order: mean, interval, one open dot per seed, and the numbers.

    The axis starts at zero where that costs no detail. At half width, which suits telephones, each method takes two lines.

    Raises:
        DataError: no rows, or no finite mean.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    numbers = [v for r in rows for v in (r.mean, r.low, r.high, *r.seeds) if math.isfinite(v)]
    if not any(math.isfinite(r.mean) for r in rows):
        raise DataError("score_bars needs at least one method with a finite score")
    low, high = min(numbers), max(numbers)
    pad = 0.06 * ((high - low) or abs(high) or 1.0)
    start = 0.0 if 0 <= low < 0.4 * high else low - pad
    wide, top = width == "full", 8.0
    step, shift = (38.0, 0.0) if wide else (60.0, 0.2)  # at half width the name stands above its line
    with sheet(width_px(width), 100) as s:
        ranges = [_interval(r, digits) for r in rows]
        values = s.widest([number(r.mean, digits) for r in rows], 14, True)
        aside = values + s.widest(ranges, 12) + (30 if any(ranges) else 18)
        left = min(s.widest([r.name for r in rows], 14, True), 0.34 * s.width) + 18 if wide else 10.0
        right = aside if wide else 10.0
        bottom = top + step * len(rows)
        s.resize(bottom + 76)
        ax = s.axes(left, top, s.width - left - right, bottom - top)
        ax.set(xlim=(start, high + pad), ylim=(len(rows) - 0.5, -0.5), yticks=[])
        ax.set_xlabel(label, size=points(13), color=INK, labelpad=6)
        ax.grid(False, axis="y")
        ax.spines["left"].set_visible(False)
        ticks(ax.xaxis, 7)
        for i, r in enumerate(rows):
            middle = top + step * (i + 0.5)
            if r.highlight:
                s.box(0, middle - step / 2 + 2, s.width, step - 4, fill=ACCENT_SOFT, radius=6, under=True)
            colour = ACCENT if r.highlight else MUTED
            y = middle if wide else middle - 15
            numbers_x = s.width - aside + 12 if wide else s.width - aside
            s.text(10, y, s.fit(r.name, (left if wide else numbers_x) - 20, 14, r.highlight), size=14, bold=r.highlight)
            s.text(numbers_x, y, number(r.mean, digits), size=14, bold=True, colour=colour)
            s.text(numbers_x + values + 10, y, ranges[i], size=12, colour=MUTED)
            _score_mark(ax, i + shift, r, colour, 38.0 / step)
        _score_key(s, left, bottom + 64, any(ranges), any(len(r.seeds) for r in rows))
        return s.png()


def _score_mark(ax: Any, y: float, r: ScoreBar, colour: str, unit: float) -> None:
    """Interval, seeds and mean of one method at height ``y``; ``unit`` is the height of a 38 pixel line."""
    ax.plot([r.low, r.high], [y, y], color=colour, linewidth=points(3), alpha=0.55, solid_capstyle="butt", zorder=3)
    for end in (r.low, r.high):
        ax.plot([end, end], [y - 0.13 * unit, y + 0.13 * unit], color=colour, linewidth=points(1.6), zorder=3)
    ax.plot(
        r.seeds, [y + 0.27 * unit] * len(r.seeds), "o", markersize=points(5), markerfacecolor="white",
        markeredgecolor=colour, markeredgewidth=points(1.1), zorder=4,
    )  # fmt: skip
    ax.plot([r.mean], [y], "D" if r.highlight else "o", color=colour, markersize=points(9), markeredgecolor="white",
            markeredgewidth=points(1.2), zorder=5)  # fmt: skip


def curve(
    x: Sequence[float],
    mean: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    xlabel: str,
    ylabel: str,
    references: Mapping[str, float] | None = None,
    runs: Sequence[Sequence[float]] = (),
    label: str = "mean",
    width: Width = "full",
) -> bytes:
    """PNG of a mean with its 95 % band, dots of single runs (one sequence over ``x`` per run), and reference lines.

    Raises:
        DataError: sequences of different lengths, or none.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    if not x or {len(mean), len(low), len(high), *map(len, runs)} != {len(x)}:
        raise DataError(
            f"curve: {len(x)} x, {len(mean)} means, {len(low)} lows, {len(high)} highs must be equally many"
        )
    lines = dict(references or {})
    every = [v for seq in (mean, low, high, lines.values(), *runs) for v in seq if math.isfinite(v)]
    bottom, top = min(every, default=0.0), max(every, default=1.0)
    pad = 0.08 * ((top - bottom) or 1.0)
    with sheet(width_px(width), 400 if width == "full" else 330) as s:
        names = [f"{n}  {v:.3f}" for n, v in lines.items()]
        room = min(s.widest([*names, label], 12, True) + 26, 0.36 * s.width)
        box = (64.0, 14.0, s.width - 64 - room, s.height - 14 - 50.0)
        ax = s.axes(*box)
        ax.set(ylim=(bottom - pad, top + pad), xlim=padded(x))
        ax.grid(False, axis="x")
        ticks(ax.xaxis, 8, integers=all(float(v).is_integer() for v in x))
        ticks(ax.yaxis, 6)
        ax.set_xlabel(xlabel, size=points(13), color=INK, labelpad=6)
        ax.set_ylabel(ylabel, size=points(13), color=INK, labelpad=8)
        for k, value in enumerate(lines.values()):
            colour, dashes = SERIES[1 + k % (len(SERIES) - 1)]
            ax.axhline(
                value, color=colour, linewidth=points(1.5), linestyle=dashes if dashes != "-" else "--", zorder=2
            )
        ax.fill_between(x, low, high, color=ACCENT, alpha=0.15, linewidth=0, zorder=2)
        for run in runs:
            ax.plot(x, run, "o", markersize=points(4.5), color=ACCENT, alpha=0.35, markeredgewidth=0, zorder=3)
        ax.plot(x, mean, "o-", color=ACCENT, linewidth=points(2.6), markersize=points(8), markeredgecolor="white",
                markeredgewidth=points(1.2), zorder=4)  # fmt: skip
        last = next((v for v in reversed(mean) if math.isfinite(v)), bottom)
        colours = [ACCENT, *(SERIES[1 + k % (len(SERIES) - 1)][0] for k in range(len(lines)))]
        end_labels(s, box, ax, [last, *lines.values()], [label, *names], colours)
        return s.png()


def confusion(
    matrix: Sequence[Sequence[float]] | NDArray[Any], classes: Sequence[str], *, width: Width = "half"
) -> bytes:
    """PNG of a confusion matrix ``[truth][prediction]`` of counts, each row shown as shares of the true class.

    Raises:
        DataError: the matrix is not square with one row per class.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    m = np.asarray(matrix, np.float64)
    n = len(classes)
    if m.shape != (n, n) or n == 0:
        raise DataError(f"confusion: expected a matrix ({n}, {n}) for {n} classes; got {m.shape}")
    totals = m.sum(axis=1, keepdims=True)
    shares = np.divide(m, totals, out=np.zeros_like(m), where=totals > 0)
    with sheet(width_px(width), 100) as s:
        names = [s.fit(c, 0.3 * s.width, 12) for c in classes]
        widest = s.widest(names, 12)
        left = widest + 38
        slanted = widest > min((s.width - left) / n, 150.0) - 8
        margin = 0.75 * s.width_of(names[-1], 12) if slanted else 2.0  # a slanted name leans over the edge
        cell = min((s.width - left - margin) / n, 150.0)
        tall, top = min(cell, 76.0), 0.75 * widest + 42 if slanted else 50.0
        s.resize(top + n * tall + 4, left + n * cell + margin)
        s.text(left + 1, 12, "predicted", size=12, colour=MUTED)
        s.text(8, top + n * tall / 2, "true", size=12, colour=MUTED, rotation=90, at="center", vertical="center")
        for i, name in enumerate(names):
            y, x = top + (i + 0.5) * tall, left + (i + 0.5) * cell
            s.text(left - 10, y, name, size=12, at="right")
            if slanted:
                s.text(x - 2, top - 8, name, size=12, rotation=45, vertical="baseline")
            else:
                s.text(x, top - 13, name, size=12, at="center")
            for j in range(n):
                _confusion_cell(
                    s, left + j * cell, y - tall / 2, cell, tall, float(shares[i, j]), float(m[i, j]), i == j
                )
        return s.png()


def _confusion_cell(
    s: Sheet, x: float, y: float, cell: float, tall: float, share: float, count: float, bold: bool
) -> None:
    s.box(x + 1, y + 1, cell - 2, tall - 2, fill=blue(share), radius=3)
    if cell < 24:
        return
    ink = "white" if share > 0.5 else INK if share >= 0.005 else FAINT
    middle, centre, roomy = x + cell / 2, y + tall / 2, cell > 40
    number = f"{count:,.0f}"
    counted = tall >= 56 and s.width_of(number, 11) < cell - 8
    text = f"{100 * share:.0f} %" if roomy else f"{100 * share:.0f}"
    s.text(middle, centre - 8 * counted, text, size=13 if roomy else 11, colour=ink, at="center", bold=bold)
    if counted:
        s.text(middle, centre + 11, number, size=11, colour="#dbe8f1" if share > 0.5 else MUTED, at="center")


def training_curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    ylabel: str = "validation score",
    xlabel: str = "epoch",
    width: Width = "half",
) -> bytes:
    """PNG of one line per name over ``(epoch, value)`` pairs, labelled at its end.

    Raises:
        DataError: no series, or one without points.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    if not series or any(len(points_) == 0 for points_ in series.values()):
        raise DataError("training_curves needs at least one point in every series")
    with sheet(width_px(width), 330) as s:
        room = min(s.widest(list(series), 12, True) + 24, 0.4 * s.width)
        box = (60.0, 14.0, s.width - 60 - room, s.height - 14 - 50.0)
        ax = s.axes(*box)
        every = [float(e) for pts in series.values() for e, _ in pts]
        ax.set_xlim(padded(every))
        for (_, pts), (colour, dashes) in zip(series.items(), cycle(len(series)), strict=True):
            epochs, values = zip(*pts, strict=True)
            marker = "o" if len(pts) == 1 else ""
            ax.plot(epochs, values, marker=marker, color=colour, linewidth=points(2), linestyle=dashes, zorder=3)
        ax.grid(False, axis="x")
        ticks(ax.xaxis, 6, integers=all(e.is_integer() for e in every))
        ticks(ax.yaxis, 6)
        ax.set_xlabel(xlabel, size=points(13), color=INK, labelpad=6)
        ax.set_ylabel(ylabel, size=points(13), color=INK, labelpad=8)
        ends = [next((v for _, v in reversed(pts) if math.isfinite(v)), 0.0) for pts in series.values()]
        end_labels(s, box, ax, ends, list(series), [c for c, _ in cycle(len(series))])
        return s.png()


def _score_key(s: Sheet, x: float, y: float, interval: bool, seeds: bool) -> None:
    s.dot(x + 6, y, 4.5, fill=MUTED)
    s.text(x + 17, y, "mean", size=12, colour=MUTED)
    x += 17 + s.width_of("mean", 12) + 22
    if interval:
        s.line([x, x + 20], [y, y], colour=MUTED, line=3, alpha=0.55)
        for end in (x, x + 20):
            s.line([end, end], [y - 4, y + 4], colour=MUTED, line=1.6)
        s.text(x + 27, y, "95 % interval", size=12, colour=MUTED)
        x += 27 + s.width_of("95 % interval", 12) + 22
    if seeds:
        s.dot(x + 5, y, 2.8, fill="white", edge=MUTED, line=1.1)
        s.text(x + 14, y, "one seed", size=12, colour=MUTED)


def _interval(r: ScoreBar, digits: int) -> str:
    if not (math.isfinite(r.low) and math.isfinite(r.high)):
        return ""
    return f"{number(r.low, digits)} – {number(r.high, digits)}"
