"""The page: hostile text stays text, nothing is fetched, every picture has words, equal reports give equal bytes."""

import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from eosfm.contracts import DataError, MissingExtra
from eosfm.files import OutputError
from eosfm.report.document import (
    Cell,
    Code,
    Column,
    Fact,
    Figure,
    Note,
    Report,
    Section,
    Table,
    _split,
    render,
    write_report,
)

EVIL = "<script>alert('x')</script>\"' & </style><img src=x onerror=alert(1)>"


def tiny_png(width: int = 4, height: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x7f" * 3 * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def report(text: str = "text") -> Report:
    table = Table(
        [Column(text, note=text), Column("score", "right", text)],
        [[text, Cell("0.81 ± 0.02", 0.81)], [Cell(text, muted=True), "12"]],
        text,
        0,
    )
    items = [
        Figure(tiny_png(), text, text),
        Figure(tiny_png(), text, text, "half"),
        Figure(tiny_png(8, 8), text, text, narrow=tiny_png()),
        table,
        Note(text),
        Note(text, "warning"),
        Code(text, text),
    ]
    sections = [Section(text, [text], items), Section("empty")]
    return Report(text, text, text, [Fact(text, text, text)], sections, [text])


class Page(HTMLParser):
    """Collects tags and text, and checks that elements nest."""

    VOID = frozenset({"meta", "link", "img", "source", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag]


def test_hostile_text_stays_text() -> None:
    page = Page(render(report(EVIL)))
    assert not page.all("script") and len(page.all("style")) == 1
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert all((a["src"] or "").startswith("data:image/") for a in page.all("img"))
    assert "".join(page.text).count(EVIL) >= 12, "it is shown as it was written"
    assert all(a["alt"] == EVIL for a in page.all("img"))


@pytest.mark.parametrize(
    "text",
    ["[x](javascript:alert(1))", "[x](http://a.b)", '[x](https://a"onclick="b)', "[x](data:text/html,x)", "{{ 7*7 }}"],
)
def test_only_plain_https_links_become_links(text: str) -> None:
    page = Page(render(report(text)))
    for a in page.all("a"):
        assert set(a) <= {"href", "rel"}
        assert (a["href"] or "").startswith(("#s", "https://"))
        assert "onclick" not in a
    assert "49" not in "".join(page.text)


def test_the_three_marks() -> None:
    text = "run `a < **b**` and **bold `code`** or [the **paper**](https://arxiv.org/abs/2511.21523?a=1&b=2)."
    html = render(Report("t", "", "", [], [Section("s", [text])]))
    assert "<code>a &lt; **b**</code>" in html
    assert "<strong>bold <code>code</code></strong>" in html
    assert 'href="https://arxiv.org/abs/2511.21523?a=1&amp;b=2"' in html
    Page(html)


def test_nothing_is_fetched() -> None:
    html = render(report())
    page = Page(html)
    assert not page.all("script") and not page.all("iframe") and not page.all("object")
    for attrs in page.all("link"):
        assert attrs["href"] == "data:,"
    for tag, attrs in page.tags:
        for name in ("src", "srcset", "data", "poster", "action"):
            assert (attrs.get(name) or "data:").startswith("data:"), (tag, name)
    assert "url(" not in html and "@import" not in html
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and "default-src 'none'" in policy
    assert not re.search(r"https?://", html)


def test_every_picture_has_words_and_a_size() -> None:
    images = Page(render(report())).all("img")
    assert len(images) == 3
    assert all(a["alt"] for a in images)
    assert [(a["width"], a["height"]) for a in images] == [("2", "1"), ("2", "1"), ("4", "4")]
    with pytest.raises(DataError, match="alternative text"):
        Figure(tiny_png(), "caption", "  ")
    with pytest.raises(DataError, match="PNG, WebP or JPEG"):
        Figure(b"<svg>", "caption", "alt")
    with pytest.raises(DataError, match="PNG, WebP or JPEG"):
        Figure(tiny_png(), "caption", "alt", narrow=b"GIF89a")


def test_a_narrow_picture_is_for_narrow_screens_only() -> None:
    sources = Page(render(report())).all("source")
    assert len(sources) == 1
    assert "max-width" in (sources[0]["media"] or "") and (sources[0]["srcset"] or "").startswith("data:image/png")


def test_other_picture_formats_keep_their_type() -> None:
    webp, jpeg = b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xd8\xff\xe0"
    html = render(Report("t", "", "", [], [Section("s", [], [Figure(webp, "c", "a"), Figure(jpeg, "c", "a")])]))
    assert "data:image/webp;base64," in html and "data:image/jpeg;base64," in html


def test_figures_and_tables_are_numbered_and_sections_linked() -> None:
    page = Page(render(report()))
    text = "".join(page.text)
    assert all(f"Figure {i}." in text for i in (1, 2, 3)) and "Table 1." in text
    targets = {a["href"] for a in page.all("a")}
    assert {"#s1", "#s2"} <= targets
    assert {"s1", "s2"} <= {a["id"] for a in page.all("section")}
    assert len(page.all("h1")) == 1
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_tables_mark_the_best_row_and_their_headings() -> None:
    page = Page(render(report()))
    assert [a.get("class") for a in page.all("tr")] == [None, "best", None]
    assert {a.get("scope") for a in page.all("th")} == {"col", "row"}
    with pytest.raises(DataError, match="row 0 has 1 cells for 2 columns"):
        Table([Column("a"), Column("b")], [["x"]], "c")
    with pytest.raises(DataError, match="highlight 3"):
        Table([Column("a")], [["x"]], "c", 3)
    assert "<tbody>" in render(Report("t", "", "", [], [Section("s", [], [Table([Column("a", "right")], [], "none")])]))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.81 ± 0.02", ("0", ".81 ± 0.02")), ("-1.5", ("-1", ".5")), ("−1.5", ("−1", ".5")), ("12", ("12", "")),
        ("1,234.5", ("1,234", ".5")), ("7 MB", ("7", " MB")), ("14.33 M", ("14", ".33 M")), ("none", ("none", "")),
        ("–", ("–", "")), ("85 %", ("85", " %")), ("3×", ("3", "×")), ("2026-01-02", ("2026", "-01-02")), ("", ("", "")),
        ("1 234", ("1 234", "")), ("0.1, 0.2", ("0", ".1, 0.2")), ("≈ 3.5 s", ("≈ 3.5 s", "")),
    ],
)  # fmt: skip
def test_numbers_are_split_at_the_decimal_point(text: str, parts: tuple[str, str]) -> None:
    assert _split(text) == parts
    assert "".join(_split(text)) == text


def test_equal_reports_give_equal_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a.html", tmp_path / "deep" / "b.html"
    size = write_report(report(), a)
    assert write_report(report(), b) == size == a.stat().st_size
    assert a.read_bytes() == b.read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.html"], "no temporary file stays"


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        write_report(report(), tmp_path / "folder")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_dark_print_and_narrow_screens_have_their_rules() -> None:
    html = render(report())
    for rule in ("prefers-color-scheme: dark", "@media print", "max-width: 44rem", 'name="viewport"', 'lang="en"'):
        assert rule in html


def test_without_jinja_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=r"eosfm\[report\]"):
        render(report())


def test_importing_the_room_needs_no_extra() -> None:
    code = (
        "import sys; sys.modules.update(matplotlib=None, jinja2=None, PIL=None); "
        "import eosfm.report.document, eosfm.report.plots, eosfm.report.pictures, eosfm.report.routes, eosfm.report.panels"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
