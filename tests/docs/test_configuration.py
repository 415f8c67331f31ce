"""The YAML examples of docs/configuration.md are valid as they stand."""

import re
from pathlib import Path

import yaml

from eosfm.bands import BandSet
from eosfm.config import read_record
from eosfm.runs import AdaptRun, TrainRun
from eosfm.training.pretrain import PretrainRun
from eosfm.units import Unit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_examples_are_read():
    train, adapt = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    run = read_record(TrainRun, yaml.safe_load(train), "train")
    assert run.data.kind == "chips" and BandSet.parse(run.data.bands)
    task = read_record(AdaptRun, yaml.safe_load(adapt), "adapt")
    assert task.head.decoder == "upernet" and BandSet.parse(task.data.bands)


def test_every_recipe_is_read():
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        kind = PretrainRun if path.stem.startswith("pretrain") else TrainRun
        assert read_record(kind, yaml.safe_load(path.read_text(encoding="utf-8")), path.name).name == path.stem


def test_the_unit_table_names_every_unit():
    assert {str(u) for u in Unit} == set(re.findall(r"`([a-z0-9-]+)`", TEXT[TEXT.index("| unit |") :]))
