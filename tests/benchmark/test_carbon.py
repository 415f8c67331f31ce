"""The carbon claim: exact arithmetic where nothing is uncertain, and a page that says only what its inputs say."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eosfm.benchmark.carbon import (
    Measured,
    PlannedSpecialist,
    Published,
    Range,
    Study,
    break_even,
    ensemble_costs,
    measured,
    model_costs,
    read_study,
    verdicts,
)
from eosfm.contracts import CardError, ConfigError, DataError

ROOT = Path(__file__).parents[2]
CARD = ROOT / "benchmarks/results/eurosat-rgb/card.json"


def exactly(value: float) -> Range:
    return Range(low=value, high=value, source="test")


SURE = Study(
    watts=exactly(36.0), epochs=exactly(2), dense=exactly(3), kg_per_kwh=exactly(0.5), gpu_watts=exactly(500),
    specialists=(
        PlannedSpecialist(name="scene", images=1000, side=10, dense=False),
        PlannedSpecialist(name="map", images=100, side=20, dense=True),
        PlannedSpecialist(name="taken", images=10**9, side=1000, dense=False, trained=False),
    ),
    ensembles=(Published(name="theirs", source="README", kwh=50.0, co2_kg=5.0),),
)  # fmt: skip
CARDS = [Measured("a", True, 100.0, 0.001, 0.0005, 1e5), Measured("b", False, 900.0, None, None, 1e5)]


def models(**costs: float) -> Study:
    return replace(SURE, large_models=(Published(name="big", source="paper", **costs),))


def test_arithmetic_with_nothing_uncertain():
    here, full, theirs = ensemble_costs(SURE, CARDS)
    assert here.kwh.mid == here.kwh.low == here.kwh.high == pytest.approx(3 * 100 * 36 / 3.6e6)
    pixels = 2 * (1000 * 100 + 3 * 100 * 400)  # the one taken over is in nobody's sum
    assert full.kwh.mid == pytest.approx(pixels * (100 / 1e5) * 36 / 3.6e6)
    assert full.co2_kg.mid == pytest.approx(0.5 * full.kwh.mid)
    assert full.basis.endswith("; without taken")
    assert (theirs.kwh.mid, theirs.co2_kg.mid) == (50.0, 5.0)


def test_break_even_is_ten_times_the_ensemble():
    full, theirs = break_even(SURE, CARDS)
    assert theirs.kwh.mid == pytest.approx(500)
    assert theirs.gpu_hours.mid == pytest.approx(1000)
    assert full.kwh.mid == pytest.approx(10 * ensemble_costs(SURE, CARDS)[1].kwh.mid)


@pytest.mark.parametrize(("costs", "ratio", "answer"), [
    ({"kwh": 501.0}, 50 / 501, "holds"),
    ({"kwh": 499.0}, 50 / 499, "does not hold"),
    ({"gpu_hours": 2000.0}, 50 / 1000, "holds"),
    ({"co2_kg": 20.0}, 5 / 20, "does not hold"),
])  # fmt: skip
def test_verdicts_on_energy_where_it_is_known_and_on_co2_where_not(costs, ratio: float, answer: str):
    got = next(v for v in verdicts(models(**costs), CARDS) if v.ensemble == "theirs")
    assert got.ratio.mid == pytest.approx(ratio)
    assert got.answer == answer
    assert got.share == (answer == "holds")


def test_what_is_trained_here_is_no_evidence():
    assert {v.ensemble for v in verdicts(models(kwh=1e9), CARDS)} == {"3 specialists to the paper's extent", "theirs"}
    assert len(break_even(SURE, CARDS)) == 2


def test_an_uncertain_factor_leaves_the_verdict_open():
    study = replace(models(gpu_hours=1000.0), gpu_watts=Range(low=100, high=2500, source="test"))
    got = next(v for v in verdicts(study, CARDS) if v.ensemble == "theirs")
    assert got.answer == "undecided"
    expected = np.log(2500 / 500) / np.log(25)  # log-uniform draws above 500 W save over 90 %
    assert got.share == pytest.approx(expected, abs=0.02)
    assert 0.02 < got.ratio.low < 0.1 < got.ratio.high < 0.5


def test_draws_are_log_uniform_and_independent():
    study = replace(SURE, watts=Range(low=1, high=100, source="t"), epochs=Range(low=1, high=100, source="t"))
    one, two = ensemble_costs(study, CARDS)[:2]
    assert one.kwh.mid / one.kwh.low == pytest.approx(100 ** (0.5 - 0.025), rel=0.05)
    # The logarithm of a product of two is triangular: its 2.5 % quantile lies at sqrt(2 * 0.025) of half its width.
    assert two.kwh.mid / two.kwh.low == pytest.approx(100 ** (1 - np.sqrt(0.05)), rel=0.1)


def test_a_shared_grid_cancels():
    """The same unknown grid for both must not widen a ratio of energies."""
    study = replace(models(kwh=400.0), kg_per_kwh=Range(low=0.01, high=1.0, source="t"))
    got = next(v for v in verdicts(study, CARDS) if v.ensemble == "theirs")
    assert got.ratio.low == got.ratio.high == pytest.approx(50 / 400)


def test_costs_of_a_large_model_keep_their_arithmetic():
    (cost,) = model_costs(models(gpu_hours=2000.0))
    assert cost.kwh.mid == pytest.approx(1000)
    assert cost.co2_kg.mid == pytest.approx(500)
    assert cost.basis == "2000 GPU hours published x 500 to 500 W x 0.5 to 0.5 kg/kWh"
    (only_co2,) = model_costs(models(co2_kg=10.0))
    assert only_co2.kwh is None
    assert only_co2.basis == "10 kg published"


def test_seconds_and_energy_are_read_from_cards():
    (m,) = measured([CARD])
    about = json.loads(CARD.read_text())
    assert (m.seconds, m.kwh, m.supervised) == (about["training"]["seconds"], about["training"]["energy_kwh"], True)
    assert m.pixels == 18900 * 20 * 64 * 64
    assert m.watts == pytest.approx(m.kwh * 1000 / (m.seconds / 3600))
    assert not measured([CARD.parents[1] / "eurosat-rgb-pretrained/pretraining-card.json"])[0].supervised


def test_cards_that_say_no_cost_are_refused(tmp_path: Path):
    about = json.loads(CARD.read_text())
    about["training"]["seconds"] = 0.0
    (tmp_path / "card.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="needs seconds"):
        measured([tmp_path / "card.json"])
    with pytest.raises(CardError, match="no such file"):
        measured([tmp_path / "absent.json"])
    with pytest.raises(DataError, match="no card of a supervised"):
        ensemble_costs(SURE, CARDS[1:])


@pytest.mark.parametrize("entry", [
    "{name: x, source: paper}", "{name: x, source: '', kwh: 5}", "{name: x, source: paper, kwh: -5}",
    "{name: x, kwh: 5}", "{name: x, source: paper, kilowatts: 5}",
])  # fmt: skip
def test_a_published_cost_needs_a_source_and_a_number(tmp_path: Path, entry: str):
    text = (ROOT / "benchmarks/carbon.yaml").read_text().replace("large_models: []", f"large_models: [{entry}]")
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ConfigError, match="large_models"):
        read_study(tmp_path / "study.yaml")


def test_a_range_upside_down_is_refused(tmp_path: Path):
    text = (ROOT / "benchmarks/carbon.yaml").read_text().replace("low: 10", "low: 100", 1)
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ConfigError, match="epochs"):
        read_study(tmp_path / "study.yaml")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("carbon_page", ROOT / "benchmarks/carbon.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_in_the_repository_is_the_one_its_inputs_give(script, tmp_path: Path):
    assert script.main(["--out", str(tmp_path / "carbon.md")]) == 0
    assert (tmp_path / "carbon.md").read_text() == (ROOT / "docs/carbon.md").read_text()


def test_the_study_has_the_paper_s_specialists():
    study = read_study(ROOT / "benchmarks/carbon.yaml")
    assert len(study.specialists) == 14
    images = {s.name: s.images for s in study.specialists}
    once = ("eurosat", "sen12ms-s1", "deepglobe-lcc", "bigearthnet", "firerisk", "minifrance", "etc2021")
    assert sum(images[n] for n in once) + 681 == 1_373_584  # the paper's count, with CaFFe's scenes


def test_without_a_published_cost_the_page_claims_nothing(script):
    text = script.page(SURE, CARDS)
    assert "**Not proven.**" in text
    assert "| theirs | 500 | 1,000 |" in text
    with_one = script.page(models(kwh=501.0), CARDS)
    assert "**Not proven.**" not in with_one
    assert "| theirs | big | 0.1 | 100% | holds |" in with_one


def test_an_unreadable_study_ends_with_2_and_no_traceback(script, tmp_path: Path, capsys):
    assert script.main(["--study", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "x.md")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "x.md").exists()
