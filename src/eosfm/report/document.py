"""One self-contained HTML file: text, tables and pictures in, a typeset page out that asks nothing of the network.

    report = Report("Title", "Subtitle", verdict="...", facts=[Fact("mIoU", "0.81")], sections=[...], footer=["..."])
    size = write_report(report, Path("report.html"))

All text is escaped. Three marks are understood afterwards in paragraphs, captions, notes and cells: code in single
backquotes, ``**bold**`` and ``[text](https://...)``. Equal reports give equal bytes: no date is added.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias

from eosfm._version import __version__
from eosfm.contracts import DataError, missing_extra
from eosfm.files import atomic_file


@dataclass(frozen=True)
class Figure:
    """A picture with its caption. It is numbered and shown at half its pixel size, for sharp screens.

    Raises:
        DataError: bytes that are not PNG, WebP or JPEG, or an empty alternative text.
    """

    png: bytes
    caption: str
    alt: str
    """what a reader who cannot see the picture should know"""
    width: Literal["full", "half"] = "full"
    """two halves in a row stand side by side"""
    narrow: bytes | None = None
    """the same picture laid out for a telephone; without it, a full picture can be swiped sideways there"""

    def __post_init__(self) -> None:
        for data in (self.png, self.narrow or self.png):
            _media_type(data)
        if not self.alt.strip():
            raise DataError(f"figure {self.caption[:40]!r} needs an alternative text (alt=...)")


@dataclass(frozen=True)
class Column:
    """A column's heading; right-aligned columns line their numbers up at the decimal point."""

    name: str
    align: Literal["left", "right"] = "left"
    note: str = ""
    """small print under the heading: a unit, a direction"""


@dataclass(frozen=True)
class Cell:
    """A cell with more than text."""

    text: str
    share: float | None = None
    """0-1: a bar behind the text"""
    muted: bool = False


@dataclass(frozen=True)
class Table:
    """A table with its caption; it is numbered.

    Raises:
        DataError: a row that does not have one cell per column, or a highlight that is no row.
    """

    columns: list[Column]
    rows: list[list[Cell | str]]
    caption: str
    highlight: int | None = None
    """the row to mark as the best"""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise DataError(
                    f"table {self.caption[:40]!r}: row {i} has {len(row)} cells for {len(self.columns)} columns"
                )
        if self.highlight is not None and not 0 <= self.highlight < len(self.rows):
            raise DataError(
                f"table {self.caption[:40]!r}: highlight {self.highlight} is none of its {len(self.rows)} rows"
            )


@dataclass(frozen=True)
class Note:
    """A boxed remark, such as what small data cannot show."""

    text: str
    kind: Literal["info", "warning"] = "info"


@dataclass(frozen=True)
class Code:
    """Lines to copy into a terminal or an editor."""

    text: str
    language: str = "shell"


Item: TypeAlias = "Figure | Table | Note | Code"


@dataclass(frozen=True)
class Section:
    """A heading, its paragraphs, then its items."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)


@dataclass(frozen=True)
class Fact:
    """A key figure at the top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """Everything the page says."""

    title: str
    subtitle: str
    verdict: str
    """the answer in two or three sentences"""
    facts: list[Fact]
    sections: list[Section]
    footer: list[str] = field(default_factory=list)


def render(report: Report) -> str:
    """The page as HTML text.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as e:
        raise missing_extra("jinja2", "report") from e
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["inline"] = lambda text: _markup(_inline(text))
    source = resources.files("eosfm.report").joinpath("template.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source)
    return page.render(report=report, sections=_numbered(report.sections), version=__version__)


def write_report(report: Report, path: Path) -> int:
    """Write the page to ``path``, whole or not at all, and return its size in bytes.

    Raises:
        MissingExtra: Jinja2 is not installed.
        OutputError: ``path`` cannot be written.
    """
    data = render(report).encode("utf-8")
    with atomic_file(path) as tmp:
        tmp.write_bytes(data)
    return len(data)


def _numbered(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """What the template shows: sections and items with their numbers, pictures as data URIs, cells in parts."""
    count = {"figure": 0, "table": 0}
    out = []
    for s in sections:
        items = []
        for item in s.items:
            kind = type(item).__name__.lower()
            if kind in count:
                count[kind] += 1
            shown: dict[str, Any] = {"kind": kind, "item": item, "number": count.get(kind, 0)}
            if isinstance(item, Figure):
                shown["uri"], shown["size"] = _data_uri(item.png), _size(item.png)
                narrow = item.narrow
                shown["narrow"] = None if narrow is None else _data_uri(narrow)
                shown["narrow_size"] = None if narrow is None else _size(narrow)
            elif isinstance(item, Table):
                shown["rows"] = _cells(item)
            items.append(shown)
        out.append({"title": s.title, "paragraphs": s.paragraphs, "items": items})
    return out


def _cells(table: Table) -> list[list[dict[str, Any]]]:
    """Each cell as whole part, fraction and the width that the fractions of its column need."""
    columns = []
    for j, column in enumerate(table.columns):
        cells = [c if isinstance(c, Cell) else Cell(c) for c in (row[j] for row in table.rows)]
        parts = [_split(c.text) if column.align == "right" else (c.text, "") for c in cells]
        room = max((_digits_wide(tail) for _, tail in parts), default=0)
        columns.append(
            [
                {"whole": whole, "tail": tail, "room": room, "muted": c.muted, "share": _clipped(c.share)}
                for c, (whole, tail) in zip(cells, parts, strict=True)
            ]
        )
    return [list(row) for row in zip(*columns, strict=True)]


def _split(text: str) -> tuple[str, str]:
    """``"12.3 ± 0.4" -> ("12", ".3 ± 0.4")``; text that is no number stays whole.

    >>> _split("-1.5"), _split("7 MB"), _split("none")
    (('-1', '.5'), ('7', ' MB'), ('none', ''))
    """
    m = re.match(r"(?P<whole>[<>~≈+−-]?\d[\d,\u202f ]*?)(?P<tail>(?:\.\d|\s?[^\d\s,.]).*)?$", text)
    return (m["whole"], m["tail"] or "") if m else (text, "")


def _digits_wide(text: str) -> float:
    """About how wide ``text`` is, measured in digits."""
    return sum(0.5 if c in " .,:;'|()[]" else 1.0 for c in text)


def _clipped(share: float | None) -> float | None:
    return None if share is None or not math.isfinite(share) else round(min(max(share, 0.0), 1.0), 3)


_MARKS = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*|\[([^\[\]]+)\]\((https://[^\s()<>]+)\)")


def _inline(text: str) -> str:
    """HTML of ``text``: everything escaped, then the three marks."""
    return _marked(escape(text, quote=True))


def _marked(safe: str) -> str:
    def replace(m: re.Match[str]) -> str:
        code, bold, label, url = m.groups()
        if code is not None:
            return f"<code>{code}</code>"
        if bold is not None:
            return f"<strong>{_marked(bold)}</strong>"
        return f'<a href="{url}" rel="noopener noreferrer">{label}</a>'

    return _MARKS.sub(replace, safe)


def _markup(safe: str) -> Any:
    from markupsafe import Markup  # comes with Jinja2

    return Markup(safe)  # escaped in `_inline`


def _media_type(data: bytes) -> str:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    raise DataError(f"a figure holds PNG, WebP or JPEG bytes; these begin with {data[:8]!r}")


def _data_uri(data: bytes) -> str:
    return f"data:{_media_type(data)};base64,{base64.b64encode(data).decode('ascii')}"


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height in CSS pixels, where the header tells: half the pixels, which are drawn for sharp screens."""
    if _media_type(data) != "image/png":
        return None
    w, h = struct.unpack(">II", data[16:24])
    return math.ceil(w / 2), math.ceil(h / 2)
