"""The route diagram: which bands reach which specialist under which rule, and what happens to the features.

input bands -> views -> specialists (frozen) -> fusion (trained) -> pyramid -> decoder (trained) -> map
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.report.panels import Panel, place
from eosfm.report.style import ACCENT, FAINT, FROZEN, FROZEN_EDGE, FULL, INK, MUTED, RULE, WARM, Sheet, sheet

_BAND_COLOURS = (
    ("coastal", "#6b5bd2"), ("blue", "#3b78d8"), ("green", "#3f9b52"), ("yellow", "#c9a21a"), ("rededge071", "#d0508f"),
    ("rededge075", "#b23a78"), ("rededge", "#8f2f68"), ("red", "#d1422f"), ("nir08", "#7a1f3d"), ("nir09", "#4d1a2c"),
    ("nir_narrow", "#7a1f3d"), ("nir", "#94303a"), ("cirrus", "#8fa3b8"), ("swir16", "#b5762a"), ("swir22", "#7d4f1d"),
    ("swir1", "#b5762a"), ("swir2", "#7d4f1d"), ("swir_1", "#b5762a"), ("swir_2", "#7d4f1d"), ("pan", "#6f7680"),
    ("vv", "#2b8c7e"), ("vh", "#63b8ab"), ("hh", "#1f6b78"), ("hv", "#74a9b5"), ("elevation", "#8a7a4f"),
)  # fmt: skip
_HEAD, _SKIPPED_SHOWN = 46.0, 12


@dataclass(frozen=True)
class RouteView:
    """One way to read the input: a specialist, the rule, the picked bands in order, and whose statistics normalise."""

    specialist: str
    rule: str
    bands: tuple[str, ...]
    normalise: str = "specialist"
    """``"specialist"``, or ``"input"`` where the view crosses into another modality or unit"""


def band_labels(bands: BandSet) -> list[str]:
    """``["B04 red", "VV"]``: names that `route_diagram` shows and colours; a view may name a band by its first word."""
    return [b.name if b.name.lower() == b.common.replace("_", "") else f"{b.name} {b.common}" for b in bands]


def route_diagram(
    input_bands: Sequence[str],
    views: Sequence[RouteView],
    skipped: Sequence[tuple[str, str]] = (),
    *,
    fusion: str = "Conv 1×1",
    decoder: str = "Decoder",
    output: str = "Map",
    input_picture: NDArray[np.uint8] | None = None,
    output_picture: NDArray[np.uint8] | None = None,
) -> bytes:
    """PNG of the whole flow from left to right, as in Figure 1 of the paper; grows downwards with the views.

    Args:
        input_bands: labels as `band_labels` makes them; views refer to them by the whole label or its first word.
        views: all routes; those of one specialist are drawn together.
        skipped: specialists that cannot read the input, with the reason.
        fusion: name in the fusion's box.
        decoder: name in the decoder's box.
        output: what the answer is called.
        input_picture: a small ``(h, w, 3)`` picture above the bands.
        output_picture: a small ``(h, w, 3)`` picture of the answer.

    Raises:
        DataError: no bands, no views, or a view of a band that the input does not have.
        MissingExtra: matplotlib or Pillow is not installed.
    """
    if not input_bands or not views:
        raise DataError("a route diagram needs input bands and at least one view")
    place_of = {b: i for i, b in enumerate(input_bands)} | {b.split()[0]: i for i, b in enumerate(input_bands)}
    unknown = sorted({b for v in views for b in v.bands if b not in place_of})
    if unknown:
        raise DataError(f"views read {', '.join(unknown)}, which the input does not have: {', '.join(input_bands)}")
    names = list(dict.fromkeys(v.specialist for v in views))
    ordered = sorted(views, key=lambda v: names.index(v.specialist))
    colours = [_band_colour(b, i) for i, b in enumerate(input_bands)]
    row = 42.0 if len(views) <= 12 else 27.0 if len(views) <= 24 else 23.0
    with sheet(FULL, 100) as s:
        shape = _Layout(s, list(input_bands), ordered, row, input_picture is not None)
        notes = [(n, s.wrap(r, FULL - 250, 12, 2)) for n, r in skipped[:_SKIPPED_SHOWN]]
        below = sum(17.0 * len(lines) + 5 for _, lines in notes) + (38 if notes else 0)
        s.resize(math.ceil(_HEAD + shape.height + 34 + below))
        _draw_input(s, shape, input_bands, colours, input_picture)
        _draw_views(s, shape, ordered, colours, place_of)
        _draw_specialists(s, shape, ordered, names)
        _draw_tail(s, shape, fusion, decoder, output, output_picture)
        _draw_key(s, _HEAD + shape.height + 22, any(v.normalise == "input" for v in views))
        if notes:
            _draw_skipped(s, _HEAD + shape.height + 52, notes, len(skipped))
        return s.png()


class _Layout:
    """Where everything goes, in CSS pixels."""

    def __init__(self, s: Sheet, bands: Sequence[str], views: Sequence[RouteView], row: float, picture: bool) -> None:
        self.row, self.compact = row, row < 40
        self.input_x, self.input_w = 1.0, min(max(s.widest(bands, 11.5) + 30, 84), 140)
        self.tail = FULL - 292.0  # fusion begins
        self.special_w = 138.0
        self.special_x = self.tail - 48 - self.special_w
        self.view_x = self.input_x + self.input_w + 74
        self.view_w = self.special_x - 22 - self.view_x
        self.view_y: list[float] = []
        y = _HEAD
        for i, v in enumerate(views):
            if i and v.specialist != views[i - 1].specialist:
                y += 9
            self.view_y.append(y)
            y += row
        self.picture = self.input_w + 14 if picture else 0.0
        self.band_step = min(max(((y - _HEAD) * 0.8 - self.picture) / len(bands), 20.0), 32.0)
        needed = self.picture + self.band_step * len(bands)
        self.height = max(y - _HEAD, needed, 150.0)
        shift = (self.height - (y - _HEAD)) / 2
        self.view_y = [v + shift for v in self.view_y]
        self.band_y = [
            _HEAD + (self.height - needed) / 2 + self.picture + self.band_step * (i + 0.5) for i in range(len(bands))
        ]
        self.middle = _HEAD + self.height / 2


def _head(s: Sheet, x: float, title: str, sub: str, at: str = "left") -> None:
    s.text(x, 10, title, size=13, bold=True, at=at)
    s.text(x, 27, sub, size=11.5, colour=MUTED, at=at)


def _draw_input(
    s: Sheet, at: _Layout, bands: Sequence[str], colours: Sequence[str], picture: NDArray[np.uint8] | None
) -> None:
    _head(s, at.input_x, "Input", f"{len(bands)} bands" if len(bands) > 1 else "1 band")
    if picture is not None:
        place(s, Panel(_square(picture)), at.input_x, at.band_y[0] - at.band_step / 2 - at.picture, at.input_w)
    for label, y, colour in zip(bands, at.band_y, colours, strict=True):
        h = min(at.band_step - 4, 22.0)
        s.box(at.input_x, y - h / 2, at.input_w, h, fill="white", edge=RULE, radius=4)
        s.box(at.input_x + 5, y - 5, 10, 10, fill=colour, radius=2.5)
        s.text(at.input_x + 21, y, s.fit(label, at.input_w - 25, 11.5), size=11.5)


def _draw_views(
    s: Sheet, at: _Layout, views: Sequence[RouteView], colours: Sequence[str], place_of: dict[str, int]
) -> None:
    _head(s, at.view_x, "Views", f"{len(views)} by rule, bands by name" if len(views) > 1 else "1, bands by name")
    line, alpha = (1.3, 0.75) if len(views) <= 12 else (0.9, 0.4)
    for v, y in zip(views, at.view_y, strict=True):
        h, w = at.row - 5, at.view_w
        picked = [place_of[b] for b in v.bands]
        for j, i in enumerate(picked):
            end = y + h * (j + 1) / (len(picked) + 1)
            s.swing(
                (at.input_x + at.input_w, at.band_y[i]), (at.view_x, end), colour=colours[i], line=line, alpha=alpha
            )
        own = v.normalise == "input"
        s.box(at.view_x, y, w, h, fill="white", edge=WARM if own else FROZEN_EDGE, radius=5, dashed=own)
        squares = [colours[i] for i in picked[:14]]
        if at.compact:
            for j, c in enumerate(squares):
                s.box(at.view_x + w - 8 - 8.5 * (len(squares) - j), y + h / 2 - 4, 7, 8, fill=c, radius=1.5)
            s.text(at.view_x + 8, y + h / 2, s.fit(v.rule, w - 24 - 8.5 * len(squares), 11.5), size=11.5)
        else:
            s.text(at.view_x + 9, y + h * 0.30, s.fit(v.rule, w - 16, 12, True), size=12, bold=True)
            for j, c in enumerate(squares):
                s.box(at.view_x + 9 + 9.5 * j, y + h * 0.70 - 4, 8, 8, fill=c, radius=2)
            left = 9 + 9.5 * len(squares) + 5
            text = ", ".join(v.bands)
            if s.width_of(text, 10.5) > w - left - 5:
                text = f"{len(v.bands)} bands"
            s.text(at.view_x + left, y + h * 0.70, text, size=10.5, colour=MUTED)


def _draw_specialists(s: Sheet, at: _Layout, views: Sequence[RouteView], names: Sequence[str]) -> None:
    _head(s, at.special_x, "Specialists", f"{len(names)}, frozen")
    for name in names:
        ys = [y for v, y in zip(views, at.view_y, strict=True) if v.specialist == name]
        top, bottom = ys[0], ys[-1] + at.row - 5
        middle = (top + bottom) / 2
        tall = max(bottom - top, 20.0)
        s.box(at.special_x, middle - tall / 2, at.special_w, tall, fill=FROZEN, edge=FROZEN_EDGE, radius=6)
        size = 11.5 if at.compact else 12.5
        room = at.special_w - 16
        fits = int((tall - 4) // 15) or 1
        lines = s.wrap(name.replace("-", "- "), room, size, min(2, fits), True) if fits > 1 else [name]
        lines = [t.replace("- ", "-") for t in lines]
        if len(lines) > 1 and s.width_of(name, size, True) <= room:
            lines = [name]
        for k, text in enumerate(lines):
            y = middle + 15 * (k - (len(lines) - 1) / 2)
            s.text(at.special_x + at.special_w / 2, y, s.fit(text, room, size, True), size=size, bold=True, at="center")
        for y in ys:
            centre = y + (at.row - 5) / 2
            s.swing((at.view_x + at.view_w, centre), (at.special_x, centre), colour=FAINT, line=1.2)
        reach = min(at.height, 260.0)
        target = at.middle + (middle - at.middle) * (reach - 40) / max(at.height, reach)
        s.swing((at.special_x + at.special_w, middle), (at.tail, target), colour=FAINT, line=1.4)


def _draw_tail(
    s: Sheet, at: _Layout, fusion: str, decoder: str, output: str, picture: NDArray[np.uint8] | None
) -> None:
    tall, x, y = min(at.height, 260.0), at.tail, at.middle
    _head(s, x + 18, "Fusion", "trained", "center")
    s.box(x, y - tall / 2, 36, tall, fill=ACCENT, radius=6)
    s.text(x + 18, y, s.fit(fusion, tall - 16, 13, True), size=13, bold=True, colour="white", rotation=90, at="center",
           vertical="center")  # fmt: skip
    levels = x + 36 + 20
    s.swing((x + 36, y), (levels - 2, y), colour=ACCENT, line=1.6, arrow=True)
    for k, side in enumerate((44.0, 32.0, 22.0, 14.0)):
        top = y - 66 + (0, 50, 88, 116)[k]
        s.box(levels + (44 - side) / 2, top, side, side, fill="#cfe0ec", edge=ACCENT, line=1, radius=2)
    s.text(levels + 22, y + 78, "pyramid,", size=11.5, colour=MUTED, at="center")
    s.text(levels + 22, y + 93, "4 levels", size=11.5, colour=MUTED, at="center")
    dec = levels + 44 + 20
    s.swing((levels + 46, y), (dec - 2, y), colour=ACCENT, line=1.6, arrow=True)
    _head(s, dec + 23, "Decoder", "trained", "center")
    s.polygon([(dec, y - 34), (dec + 46, y - 62), (dec + 46, y + 62), (dec, y + 34)], ACCENT)
    s.text(dec + 25, y, s.fit(decoder, 100, 13, True), size=13, bold=True, colour="white", rotation=90, at="center",
           vertical="center")  # fmt: skip
    end = dec + 46 + 20
    s.swing((dec + 46, y), (end - 2, y), colour=ACCENT, line=1.6, arrow=True)
    side = FULL - end - 1
    _head(s, FULL - 1, s.fit(output, FULL - end - 4, 13, True), "the answer", "right")
    if picture is not None:
        place(s, Panel(_square(picture), classes=True), end, y - side / 2, side)
    s.box(
        end,
        y - side / 2,
        side,
        side,
        fill="none" if picture is not None else "#cfe0ec",
        edge=ACCENT,
        line=1.2,
        radius=2,
    )


def _draw_key(s: Sheet, y: float, crossing: bool) -> None:
    x = 1.0
    entries = [
        ("frozen: trained before, on other tasks", FROZEN, FROZEN_EDGE, False),
        ("trained for this task", ACCENT, "none", False),
    ]
    if crossing:
        entries.append(("standardised by the input's own statistics (another modality or unit)", "white", WARM, True))
    for text, fill, edge, dashed in entries:
        s.box(x + 0.5, y - 6, 18, 12, fill=fill, edge=edge, radius=3, dashed=dashed)
        s.text(x + 25, y, text, size=12, colour=MUTED)
        x += 25 + s.width_of(text, 12) + 24


def _draw_skipped(s: Sheet, y: float, notes: Sequence[tuple[str, list[str]]], total: int) -> None:
    s.line([0, FULL], [y - 8, y - 8], colour=RULE)
    more = f" (the first {len(notes)} of {total})" if total > len(notes) else ""
    s.text(0, y + 10, f"Not used here, and why{more}", size=12, bold=True, colour=INK)
    y += 32
    for name, lines in notes:
        s.text(0, y, s.fit(name, 230, 12), size=12)
        for text in lines:
            s.text(250, y, text, size=12, colour=MUTED)
            y += 17
        y += 5


def _band_colour(label: str, i: int) -> str:
    words = label.lower().replace("-", "_")
    for key, colour in _BAND_COLOURS:
        if key in words:
            return colour
    return _BAND_COLOURS[i * 3 % len(_BAND_COLOURS)][1]


def _square(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of ``picture``."""
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return np.ascontiguousarray(picture[top : top + side, left : left + side])
