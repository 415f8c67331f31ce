"""The look of all plots, and the only door to matplotlib: a sheet of paper measured in CSS pixels.

    with sheet(FULL, 300) as s:
        s.text(20, 30, "hello", size=13)
        return s.png()

A sheet is drawn at twice its CSS size, always on white (so it reads in dark mode and in print), with mathematical markup
switched off (a class may be called "$x$"), and saved without dates: equal calls give equal bytes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import missing_extra

FULL, HALF = 920, 426
"""Widths in CSS pixels: a figure across the report's column, and one of two side by side."""
Width: TypeAlias = Literal["full", "half"]

INK, MUTED, FAINT, RULE = "#17212b", "#55616e", "#8b96a3", "#d9dfe6"
ACCENT, ACCENT_SOFT, WARM = "#0b5f8f", "#e6f0f7", "#c4580f"
FROZEN, FROZEN_EDGE = "#eef2f6", "#a9b7c6"
SERIES: tuple[tuple[str, object], ...] = (
    (ACCENT, "-"), (WARM, (0, (6, 2))), ("#2b8c7e", (0, (2, 1.5))), ("#9c4f96", (0, (7, 2, 1.5, 2))), ("#8a7a1f", "-"),
    (FAINT, (0, (6, 2))), ("#332288", (0, (2, 1.5))), ("#b0506a", "-"),
)  # fmt: skip
"""Colour and dashes of one line after another: told apart without colour too."""

_FONTS = ("Inter", "Source Sans 3", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")
_SCALE = 2
_INCH = 100  # CSS pixels


def width_px(width: Width) -> int:
    """CSS pixels of a ``"full"`` or ``"half"`` figure."""
    return FULL if width == "full" else HALF


class Sheet:
    """A matplotlib figure addressed in CSS pixels from its top left corner. Made by `sheet`."""

    def __init__(self, figure: Any, width: int, height: int) -> None:
        self.figure, self.width, self.height = figure, width, height
        self.under = figure.add_axes((0, 0, 1, 1), zorder=1, facecolor="none")
        self.page = figure.add_axes((0, 0, 1, 1), zorder=5, facecolor="none")
        self.resize(height)

    def resize(self, height: float, width: float | None = None) -> None:
        """Another size; call it before drawing."""
        self.width, self.height = round(width or self.width), round(height)
        self.figure.set_size_inches(self.width / _INCH, self.height / _INCH)
        for layer in (self.under, self.page):
            layer.axis("off")
            layer.set_xlim(0, self.width)
            layer.set_ylim(self.height, 0)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """A matplotlib axes with a light grid and no box."""
        w, h = self.width, self.height
        ax = self.figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h), zorder=2, facecolor="none")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(FAINT)
            ax.spines[side].set_linewidth(points(1))
        ax.tick_params(length=points(4), width=points(1), color=FAINT, labelcolor=MUTED, labelsize=points(12), pad=4)
        ax.grid(True, color=RULE, linewidth=points(0.8))
        ax.set_axisbelow(True)
        return ax

    def text(
        self, x: float, y: float, text: str, *, size: float = 13, colour: str = INK, bold: bool = False,
        at: str = "left", vertical: str = "center_baseline", rotation: float = 0, zorder: float = 6,
    ) -> None:  # fmt: skip
        """Write ``text`` with its anchor at ``(x, y)``."""
        self.page.text(
            x, y, text, size=points(size), color=colour, weight="bold" if bold else "normal", ha=at, va=vertical,
            rotation=rotation, zorder=zorder, rotation_mode="anchor" if rotation not in (0, 90) else None,
        )  # fmt: skip

    def width_of(self, text: str, size: float = 13, bold: bool = False) -> float:
        """How wide ``text`` is."""
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=points(size), weight="bold" if bold else "normal")
        w, _, _ = self.figure.canvas.get_renderer().get_text_width_height_descent(text, font, False)
        return float(w) / _SCALE

    def widest(self, texts: Sequence[str], size: float = 13, bold: bool = False) -> float:
        """The width of the widest of ``texts``; 0 for none."""
        return max((self.width_of(t, size, bold) for t in texts), default=0.0)

    def fit(self, text: str, room: float, size: float = 13, bold: bool = False) -> str:
        """``text``, cut with an ellipsis where it is wider than ``room``."""
        if self.width_of(text, size, bold) <= room:
            return text
        short, long = 0, len(text)  # characters that fit, and that do not
        while long - short > 1:
            middle = (short + long) // 2
            fits = self.width_of(text[:middle] + "…", size, bold) <= room
            short, long = (middle, long) if fits else (short, middle)
        return text[:short].rstrip(" ,;-") + "…"

    def wrap(self, text: str, room: float, size: float = 13, lines: int = 3, bold: bool = False) -> list[str]:
        """``text`` in at most ``lines`` lines no wider than ``room``; the last one may end with an ellipsis."""
        out: list[str] = []
        words = text.split()
        while words and len(out) < lines:
            line = words.pop(0)
            while words and self.width_of(f"{line} {words[0]}", size, bold) <= room:
                line += " " + words.pop(0)
            if words and len(out) == lines - 1:
                line = " ".join([line, *words])
            out.append(self.fit(line, room, size, bold))
        return out

    def box(
        self, x: float, y: float, width: float, height: float, *, fill: str = "white", edge: str = "none",
        line: float = 1, radius: float = 4, dashed: bool = False, under: bool = False,
    ) -> None:  # fmt: skip
        """A rectangle with round corners; ``under`` puts it behind the axes."""
        from matplotlib.patches import FancyBboxPatch

        radius = min(radius, width / 2, height / 2)
        (self.under if under else self.page).add_patch(
            FancyBboxPatch(
                (x, y), width, height, boxstyle=f"round,pad=0,rounding_size={radius}", facecolor=fill, edgecolor=edge,
                linewidth=points(line) if edge != "none" else 0, linestyle=(0, (3, 2)) if dashed else "-", zorder=4,
            )
        )  # fmt: skip

    def polygon(self, corners: Sequence[tuple[float, float]], fill: str, edge: str = "none", zorder: float = 4) -> None:
        """A filled polygon."""
        from matplotlib.patches import Polygon

        self.page.add_patch(Polygon(corners, facecolor=fill, edgecolor=edge, linewidth=points(1), zorder=zorder))

    def line(
        self, xs: Sequence[float], ys: Sequence[float], *, colour: str = RULE, line: float = 1, style: object = "-",
        alpha: float = 1.0, zorder: float = 3,
    ) -> None:  # fmt: skip
        """Straight lines through the points."""
        self.page.plot(
            xs, ys, color=colour, linewidth=points(line), linestyle=style, alpha=alpha, zorder=zorder,
            solid_capstyle="round",
        )  # fmt: skip

    def dot(
        self, x: float, y: float, radius: float, *, fill: str, edge: str = "none", line: float = 1, alpha: float = 1.0
    ) -> None:
        """A disc."""
        from matplotlib.patches import Circle

        edge_width = points(line) if edge != "none" else 0
        self.page.add_patch(
            Circle((x, y), radius, facecolor=fill, edgecolor=edge, linewidth=edge_width, alpha=alpha, zorder=5)
        )

    def swing(
        self, start: tuple[float, float], end: tuple[float, float], *, colour: str = FAINT, line: float = 1.2,
        alpha: float = 1.0, arrow: bool = False,
    ) -> None:  # fmt: skip
        """A smooth curve that leaves and arrives horizontally."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        (x0, y0), (x1, y1) = start, end
        tip = x1 - (6 if arrow else 0)
        middle = (x0 + tip) / 2
        path = Path(
            [(x0, y0), (middle, y0), (middle, y1), (tip, y1)], [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
        )
        self.page.add_patch(
            PathPatch(path, facecolor="none", edgecolor=colour, linewidth=points(line), alpha=alpha, zorder=3)
        )
        if arrow:
            self.polygon([(x1, y1), (x1 - 7, y1 - 4), (x1 - 7, y1 + 4)], colour)

    def image(self, pixels: NDArray[np.uint8], x: float, y: float) -> None:
        """``pixels`` ``(h, w, 3)`` one to one on the paper's own grid, which has two pixels to a CSS pixel."""
        left, bottom = round(x * _SCALE), round(self.height * _SCALE) - round(y * _SCALE) - pixels.shape[0]
        self.figure.figimage(pixels, left, bottom, origin="upper", zorder=1)

    def png(self) -> bytes:
        """The sheet as PNG: RGB, without transparency or metadata."""
        from PIL import Image

        self.figure.canvas.draw()
        rgba = np.asarray(self.figure.canvas.buffer_rgba())
        return png(np.ascontiguousarray(rgba[..., :3]), Image)


def png(pixels: NDArray[np.uint8], image: Any) -> bytes:
    """``pixels`` as PNG bytes, by the ``PIL.Image`` module ``image``."""
    out = io.BytesIO()
    image.fromarray(pixels).save(out, "PNG", compress_level=6)
    return out.getvalue()


@contextmanager
def sheet(width: int, height: float) -> Iterator[Sheet]:
    """A blank sheet of ``width`` by ``height`` CSS pixels, in the report's style.

    Raises:
        MissingExtra: matplotlib or Pillow is not installed.
    """
    try:
        import matplotlib
        import PIL.Image  # noqa: F401  # what `Sheet.png` needs, asked for before the work
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as e:
        raise missing_extra("matplotlib", "report") from e
    with matplotlib.rc_context({"font.family": _fonts(), "text.parse_math": False, "axes.unicode_minus": True}):
        figure = Figure(figsize=(width / _INCH, height / _INCH), dpi=_INCH * _SCALE, facecolor="white")
        FigureCanvasAgg(figure)
        yield Sheet(figure, width, round(height))


def legend_height(s: Sheet, entries: Mapping[str, str], room: float) -> float:
    """The height that `draw_legend` takes."""
    return 22.0 * len(_legend_lines(s, entries, room)) if entries else 0.0


def draw_legend(s: Sheet, entries: Mapping[str, str], x: float, y: float, room: float) -> None:
    """Coloured squares with names, in lines no wider than ``room``; ``entries`` is name -> colour."""
    for row, names in enumerate(_legend_lines(s, entries, room)):
        left, middle = x, y + 22.0 * row + 11
        for name in names:
            s.box(left, middle - 6.5, 13, 13, fill=entries[name], edge=FAINT, line=0.8, radius=2.5)
            s.text(left + 19, middle, s.fit(name, room - 24, 12), size=12)
            left += _entry_width(s, name)


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """``positions`` moved as little as needed to lie ``gap`` apart within ``low`` and ``high``: places for labels."""
    order = np.argsort(np.asarray(positions), kind="stable")
    placed = [float(positions[i]) for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], high if i == len(placed) - 1 else placed[i + 1] - gap)
    for i in range(len(placed)):
        placed[i] = max(placed[i], low if i == 0 else placed[i - 1] + gap)
    out = [0.0] * len(placed)
    for i, p in zip(order, placed, strict=True):
        out[int(i)] = p
    return out


def points(pixels: float) -> float:
    """CSS pixels as matplotlib's points."""
    return pixels * 72 / _INCH


def _entry_width(s: Sheet, name: str) -> float:
    return 19 + s.width_of(name, 12) + 20


def _legend_lines(s: Sheet, entries: Mapping[str, str], room: float) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    used = 0.0
    for name in entries:
        w = _entry_width(s, name)
        if lines[-1] and used + w - 20 > room:
            lines.append([])
            used = 0.0
        lines[-1].append(name)
        used += w
    return lines


def _fonts() -> list[str]:
    """The preferred fonts that this machine has; matplotlib brings the last one, and it completes missing letters."""
    from matplotlib import font_manager

    have = set(font_manager.get_font_names())
    return [f for f in _FONTS if f in have]
