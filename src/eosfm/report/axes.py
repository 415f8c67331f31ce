"""What several plots share: ticks, padding, labels at the ends of lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eosfm.report.style import ACCENT, SERIES, Sheet, spread


def end_labels(
    s: Sheet, box: tuple[float, float, float, float], ax: Any, values: Sequence[float], names: Sequence[str],
    colours: Sequence[str],
) -> None:  # fmt: skip
    """Names to the right of a plot, each at the height of its value, moved apart where they would overlap."""
    left, top, width, height = box
    low, high = ax.get_ylim()
    wanted = [top + height * (high - v) / (high - low) for v in values]
    right = left + width
    for y0, y, name, colour in zip(wanted, spread(wanted, 17, top, top + height), names, colours, strict=True):
        s.line([right + 2, right + 10], [y0, y], colour=colour, line=1)
        s.text(right + 14, y, s.fit(name, s.width - right - 16, 12, True), size=12, colour=colour, bold=True)


def number(value: float, digits: int) -> str:
    """``value`` with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "no value"


def padded(x: Sequence[float]) -> tuple[float, float]:
    """Limits of an axis that shows all of ``x``."""
    pad = 0.03 * ((max(x) - min(x)) or 1.0)
    return min(x) - pad, max(x) + pad


def ticks(axis: Any, most: int, *, integers: bool = False) -> None:
    """At most so many round ticks."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(most, integer=integers, steps=[1, 2, 2.5, 5, 10]))


def cycle(n: int) -> list[tuple[str, object]]:
    """Colour and dashes of ``n`` lines."""
    return [SERIES[i % len(SERIES)] for i in range(n)]


def blue(share: float) -> str:
    """White to the accent colour."""
    low, high = (0xF4, 0xF6, 0xF8), tuple(int(ACCENT[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high, strict=True))
