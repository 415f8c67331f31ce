"""Cards: what they accept comes back equal, what contradicts itself is refused with the file and the key path (F7, F10, M4)."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm.bands import BandSet
from eosfm.config import read_record, to_plain
from eosfm.contracts import CardError
from eosfm.specialists.card import Metric, SpecialistCard, card_bands, read_card, require_safe_name
from eosfm.statistics import BandStatistics
from helpers import TINY, make_card

CARD = make_card("s2-rgb", TINY["s2-rgb"])
PLAIN = to_plain(CARD)


def refused(tmp_path: Path, content: object) -> str:
    path = tmp_path / "card.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    start = time.perf_counter()
    with pytest.raises(CardError) as e:
        read_card(path)
    assert time.perf_counter() - start < 2
    assert str(path) in str(e.value)
    assert len(str(e.value)) < 2000
    return str(e.value)


def test_a_card_reads_back_equal(tmp_path: Path):
    metric = Metric(name="miou", value=0.5, low=0.4, high=0.6, split="test", samples=3, seed=0)
    card = dataclasses.replace(CARD, metrics=(metric,), description="Ünïcode")
    (tmp_path / "card.json").write_text(json.dumps(to_plain(card)))
    assert read_card(tmp_path / "card.json") == card


@pytest.mark.parametrize("bands", TINY.values())
def test_bands_keep_their_order_and_repeats(bands: str):
    bandset = BandSet.parse(bands)
    assert make_card("x", bands).bandset() == bandset
    assert len(card_bands(bandset)) == len(bandset)


def test_the_reference_is_name_and_hash():
    card = dataclasses.replace(CARD, weights=dataclasses.replace(CARD.weights, sha256="ab" * 32))
    assert card.reference == "s2-rgb@" + "ab" * 6


HOSTILE_NAMES = [
    "../../x", "..", ".", "", "/etc/passwd", "a/b", "a\\b", "C:x", ".hidden", "-flag", "a..b", "a b", "a\n", "a\x00b", "Ä",
    "UPPER", "a" * 81, "~root", "$HOME", "a;b", "CON:", "%2e%2e", "\u202eabc", "x/../../y",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_refused(tmp_path: Path, name: str):
    with pytest.raises(CardError, match="expected 1-80 of a-z"):
        require_safe_name(name)
    with pytest.raises(CardError):
        dataclasses.replace(CARD, name=name)
    assert "expected 1-80" in refused(tmp_path, PLAIN | {"name": name})


@given(st.text(max_size=90))
def test_an_accepted_name_is_one_plain_folder_inside_the_zoo(name: str):
    try:
        require_safe_name(name)
    except CardError:
        return
    place = Path("/zoo") / name
    assert place.parent == Path("/zoo")
    assert place.name == name
    assert not name.startswith(".")


@pytest.mark.parametrize("name", ["a", "eurosat-s2", "sen12ms.v2+x_1", "0", "a" * 80])
def test_ordinary_names_are_accepted(name: str):
    assert require_safe_name(name) == name


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"chip_size": "x"}, "chip_size: "),
        ({"chip_size": 64.5}, "chip_size: "),
        ({"chip_size": None}, "chip_size: "),
        ({"chip_size": 48}, "chip size 48"),
        ({"chip_size": 0}, "chip size 0"),
        ({"chip_size": -64}, "chip size -64"),
        ({"wheels": 4}, "wheels: unknown key"),
        ({"task": {"kind": "none", "wheels": 4}}, "task.wheels: unknown key"),
        ({"task": {}}, "task.kind: Field required"),
        ({"data": "mine"}, "data: "),
        ({"metrics": [{"name": "miou", "value": "high", "split": "t", "samples": 1, "seed": 0}]}, "metrics.0.value: "),
        ({"metrics": {"miou": 1}}, "metrics: "),
        ({"weights": PLAIN["weights"] | {"file": "../../x"}}, "weights.file: .*'model.safetensors'"),
        ({"weights": PLAIN["weights"] | {"file": "model.pt"}}, "weights.file: "),
        ({"weights": PLAIN["weights"] | {"sha256": 5}}, "weights.sha256: "),
        ({"architecture": "resnet50"}, "architecture 'resnet50' without a pyramid"),
        ({"bands": "B04"}, "bands: "),
        ({"bands": [{"sensor": "sentinel-2-l2a", "name": "B04"}] * 3}, "bands.0.unit: Field required"),
        ({"bands": []}, "3 channels for 0 bands"),
        ({"bands": [{"sensor": "modis", "name": "1", "unit": "8bit"}] * 3}, "unknown sensor 'modis'"),
        ({"bands": [{"sensor": "sentinel-2-l2a", "name": "B10", "unit": "dn-1e4"}] * 3}, "unknown band 'B10'"),
        ({"bands": [{"sensor": "sentinel-2-l2a", "name": "B04", "unit": "db"}] * 3}, "makes no sense"),
        ({"bands": [{"sensor": "sentinel-2-l2a", "name": "B04", "unit": "toa"}] * 3}, "unknown unit 'toa'"),
        ({"statistics": {"mean": [1, 1, 1], "std": [1, 0, 1]}}, "std 0"),
        ({"statistics": {"mean": [1, 1, 1], "std": [1, -1, 1]}}, "std -1"),
        ({"statistics": {"mean": [1, 1], "std": [1, 1]}}, "2 channels for 3 bands"),
        ({"statistics": {"mean": [1, 1, 1], "std": [1, 1]}}, "3 means but 2 standard deviations"),
        ({"statistics": {"mean": [1, 1, "x"], "std": [1, 1, 1]}}, "statistics.mean.2: "),
        ({"statistics": {"mean": [1, 1, 1]}}, "statistics.std: Field required"),
        ({"training": {"epochs": [1]}}, "training.epochs: "),
        ({"schema_version": 2}, "schema_version 2; this eosfm reads version 1"),
        ({"schema_version": "1"}, "schema_version '1'"),
        ({"schema_version": None}, "schema_version None"),
    ],
)
def test_a_wrong_card_names_the_file_and_the_key(tmp_path: Path, change: dict, path: str):
    import re

    assert re.search(path, refused(tmp_path, PLAIN | change))


@pytest.mark.parametrize(
    "key", sorted(set(PLAIN) - {"schema_version", "description", "architecture", "pyramid", "metrics", "digest"})
)
def test_every_field_without_a_default_is_required(tmp_path: Path, key: str):
    assert f"{key}: Field required" in refused(tmp_path, {k: v for k, v in PLAIN.items() if k != key})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not a valid JSON file"),
        ("[]", "schema_version None"),
        ("null", "schema_version None"),
        ("{}", "schema_version None"),
        ('"a card"', "schema_version None"),
        ("[" * 100_000, "nested too deeply"),
        ('{"schema_version": 1, "name": ' + "[" * 100_000, "nested too deeply"),
        (json.dumps(PLAIN)[:-1] + ', "name": "other"}', "duplicate key 'name'"),
        (json.dumps(PLAIN).replace('"std": [', '"std": [NaN, '), "NaN is not a JSON number"),
        (json.dumps(PLAIN).replace('"mean": [', '"mean": [1e999, '), "statistics.mean.0: .*finite"),
        (json.dumps(PLAIN)[: len(json.dumps(PLAIN)) // 2], "not a valid JSON file"),
        (json.dumps(PLAIN | {"description": "x" * 50_000_000}), "at most 2000000"),
    ],
    ids=[
        "empty",
        "list",
        "null",
        "object",
        "text",
        "nested",
        "nested value",
        "duplicate",
        "nan",
        "inf",
        "half",
        "50 MB",
    ],
)
def test_hostile_card_json(tmp_path: Path, content: str, says: str):
    import re

    assert re.search(says, refused(tmp_path, content))


def test_a_card_cannot_be_made_with_impossible_statistics():
    for statistics in (BandStatistics(mean=(1.0,), std=(1.0,)), BandStatistics(mean=(1.0,) * 4, std=(1.0,) * 4)):
        with pytest.raises(CardError, match="channels for 3 bands"):
            dataclasses.replace(CARD, statistics=statistics)


def test_plain_form_uses_json_types_only():
    assert json.loads(json.dumps(PLAIN, allow_nan=False)) == PLAIN
    assert read_record(SpecialistCard, PLAIN, "x") == CARD
