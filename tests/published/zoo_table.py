"""The table of docs/zoo.md, made from the recipes and from what their readers say of miniatures of the data.

PYTHONPATH=tests .venv/bin/python tests/published/zoo_table.py   # prints the table; a test compares it with the page
"""

import sys
import tempfile
from pathlib import Path

import yaml

from eosfm.data.catalogue import open_dataset, reader_options

ROOT = Path(__file__).parents[2]
COLUMNS = ("specialist", "data set", "bands, in order, and unit", "task", "classes", "head", "licence of the data")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def row(recipe: dict, folder: Path) -> str:
    """One line: everything but the name and the head is what the reader declares."""
    data = recipe["data"]
    options = {"tile": 64} if "tile" in reader_options(data["dataset"]) else {}
    train = open_dataset(data["dataset"], folder, limit=2, **options).train
    head = recipe["head"]["decoder"] if train.kind in ("segmentation", "regression") else "pooled linear"
    dates = ", two dates" if train.dates == 2 else ""
    source = train.source.replace("|", "/")
    return (
        f"| `{recipe['name']}` | {source} | `{train.bands}`{dates} | {train.kind} | {len(train.classes)} | {head} | "
        f"{train.licence} |"
    )


def table() -> str:
    """All rows, sorted by name."""
    from test_recipes import MINIATURES, RECIPES

    rows = [HEADER]
    with tempfile.TemporaryDirectory() as tmp:
        for name, path in sorted(RECIPES.items()):
            recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
            if recipe["data"]["kind"] == "dataset":
                MINIATURES[name](Path(tmp) / name)
                rows.append(row(recipe, Path(tmp) / name))
    return "\n".join(rows)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.stdout.write(table() + "\n")
