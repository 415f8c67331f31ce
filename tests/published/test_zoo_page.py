"""docs/zoo.md shows what the recipes and readers say."""

from pathlib import Path

from zoo_table import table


def test_the_page_shows_the_table(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    page = (Path(__file__).parents[2] / "docs" / "zoo.md").read_text(encoding="utf-8")
    missing = [row for row in table().splitlines() if row not in page]
    assert not missing, (
        "run: PYTHONPATH=tests .venv/bin/python tests/published/zoo_table.py, and put it into docs/zoo.md"
    )
