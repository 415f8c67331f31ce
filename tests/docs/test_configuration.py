"""The YAML examples of docs/configuration.md are valid as they stand, and every key and choice is named there."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from eosfm.bands import BandSet
from eosfm.benchmark.suite import Case, Suite, read_suite
from eosfm.config import read_record, read_yaml
from eosfm.data.files import DataConfig
from eosfm.data.synthetic import TASKS
from eosfm.fusion.fuse import FUSIONS
from eosfm.fusion.selection import SelectionConfig
from eosfm.rules import DEFAULT_RULES, OPTIONAL_RULES
from eosfm.runs import AdaptRun, TrainRun
from eosfm.tasks.decoders import DECODERS
from eosfm.tasks.model import HeadConfig
from eosfm.tasks.objectives import OBJECTIVES
from eosfm.training.masked import MaskedConfig
from eosfm.training.pretrain import PretrainRun, TargetConfig
from eosfm.training.settings import FitConfig
from eosfm.training.unlabelled import ImagesConfig
from eosfm.units import Unit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
RUNS = (TrainRun, AdaptRun, PretrainRun, DataConfig, FitConfig, HeadConfig, SelectionConfig, ImagesConfig, TargetConfig,
        MaskedConfig)  # fmt: skip


def in_code(text: str) -> set[str]:
    """The words of code spans, and the keys of YAML blocks without their comments: prose names no key."""
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.S)
    keys = {k for b in blocks for k in re.findall(r"(\w+):(?=\s)", re.sub(r"\s#.*", "\n", b))}
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    comments = " ".join(c for b in blocks for c in re.findall(r"\s#(.*)", b))
    return keys | {w for s in spans for w in re.findall(r"[\w+-]+", s)} | set(re.findall(r"(\w+):", comments))


@pytest.mark.parametrize(
    ("page", "records"), [("configuration.md", RUNS), ("benchmarks.md", (Case, Suite))], ids=lambda v: str(v)[:20]
)
def test_every_key_is_named(page, records):
    words = in_code((ROOT / "docs" / page).read_text(encoding="utf-8"))
    absent = [f"{r.__name__}.{f.name}" for r in records for f in dataclasses.fields(r) if f.name not in words]
    assert not absent, f"docs/{page} does not name {', '.join(absent)}"


def test_every_choice_is_named():
    words = set(re.findall(r"[\w+-]+", TEXT))
    losses = {loss for o in OBJECTIVES.values() for loss in o.losses} | set(OBJECTIVES)
    choices = {*TASKS, *losses, *DECODERS, *FUSIONS, *DEFAULT_RULES, *(r.name for r in OPTIONAL_RULES)}
    assert not choices - words


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_file_is_read(path):
    """They are what the README's commands call my-..., and run on what `make demo` leaves."""
    if path.stem == "my-suite":
        suite = read_suite(path)
        assert suite.zoo == Path("runs/demo/zoo") and all(c.data.kind == "synthetic" for c in suite.cases)
        return
    kind = {"my-specialist": TrainRun, "my-images": PretrainRun, "my-task": AdaptRun}[path.stem]
    run = read_record(kind, read_yaml(path), path.name)
    assert run.name == path.stem and run.zoo == Path("runs/demo/zoo") and run.data.kind == "synthetic"


def test_the_readme_s_own_files_are_there():
    named = set(re.findall(r"\bexamples/(my-[a-z]+\.yaml)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert named == {p.name for p in (ROOT / "examples").glob("*.yaml")} and len(named) == 4


def test_the_examples_are_read():
    train, adapt, pretrain = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    images = read_record(PretrainRun, yaml.safe_load(pretrain), "pretrain").images
    assert images is not None and BandSet.parse(images.bands)
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
