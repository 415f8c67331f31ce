"""Every recipe, as a user types it, on a miniature of its data set: trains, validates, stores a specialist, reloads it."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from eosfm.commands import train
from eosfm.data.catalogue import dataset_names, reader_options
from eosfm.specialists.store import load_specialist

ROOT = Path(__file__).parents[2]
RECIPES = {p.stem: p for p in sorted((ROOT / "recipes").glob("*.yaml")) if not p.stem.startswith("pretrain")}
REAL = ROOT.parent / "shared" / "data"


def miniatures() -> dict[str, Callable[[Path], None]]:
    """Recipe name -> what writes its miniature."""
    found: dict[str, Callable[[Path], None]] = {}
    for path in sorted((ROOT / "tests" / "miniatures").glob("*.py")):
        found |= getattr(importlib.import_module(f"miniatures.{path.stem}"), "MINIATURES", {})
    return found


MINIATURES = miniatures()


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_trains_on_its_miniature(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = RECIPES[name].read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    assert recipe["name"] == name and f"eosfm train recipes/{name}.yaml data.root=" in text
    small = [
        "fit.epochs=1",
        "fit.batch_size=2",
        "fit.accumulate=1",
        "fit.workers=0",
        "fit.devices=1",
        "fit.validate_every=1",
        "data.limit=4",
    ]
    if recipe["data"]["kind"] == "dataset":
        assert recipe["data"]["dataset"] in dataset_names()
        MINIATURES[name](tmp_path / "data")
        small.append(f"data.root={tmp_path / 'data'}")
        if "tile" in reader_options(recipe["data"]["dataset"]):
            small.append("data.tile=64")
    outcome = train([str(RECIPES[name]), *small])
    encoder, card = load_specialist(tmp_path / "zoo" / name)
    assert outcome.value.card == card
    assert encoder.in_channels == len(card.bands)
    assert card.metrics and card.data.split and card.data.licence != "unknown"
    assert card.description == recipe["description"]


def test_every_miniature_has_its_recipe():
    assert set(MINIATURES) <= set(RECIPES)
