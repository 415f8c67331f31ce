"""Distance To Best against the paper's own table, and where that contradicts itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosfm.benchmark.dtb import PAPER_V1, REFERENCES, ReferenceTable, distance_to_best
from eosfm.contracts import DataError

OURS = "EoS-FM (48M)"


def slow(table: ReferenceTable, model: str) -> float:
    total = 0.0
    for task in table.tasks:
        column = [s[task] for s in table.scores.values() if task in s]
        own = table.scores[model][task]
        total += own - min(column) if task in table.lower_is_better else max(column) - own
    return total / len(table.tasks)


@pytest.mark.parametrize("model", sorted(set(PAPER_V1.scores) - {OURS}))
def test_seven_rows_of_the_paper_s_table_follow_from_their_scores(model: str):
    assert distance_to_best(PAPER_V1, model).mean == pytest.approx(PAPER_V1.printed[model], abs=0.035)


def test_the_paper_s_own_row_gives_4_02_and_not_the_4_17_it_prints():
    got = distance_to_best(PAPER_V1, OURS).mean
    assert got == pytest.approx(4.015, abs=1e-9)
    assert PAPER_V1.printed[OURS] == 4.17
    assert abs(got - 4.17) > 0.15


def test_without_the_suspect_task_the_order_is_another():
    table = PAPER_V1.without("AI4SmallFarms")
    got = {m: distance_to_best(table, m).mean for m in table.scores}
    expected = {
        "CROMA (303M)": 0.87,
        "U-Net (~8M, trained)": 4.25,
        "DOFA (112M)": 4.63,
        OURS: 4.94,
        "SatlasNet (87M)": 5.79,
    }
    for model, value in expected.items():
        assert got[model] == pytest.approx(value, abs=0.006)
    assert min(got, key=got.get) == "CROMA (303M)"
    assert table.printed == {}


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_every_reference_against_plain_loops(name: str):
    table = REFERENCES[name]
    assert table.source
    for model in table.scores:
        got = distance_to_best(table, model)
        assert got.mean == pytest.approx(slow(table, model))
        assert got.mean >= 0
        assert got.reference is table


def test_the_published_averages_of_pangaea_are_those_of_the_embedded_rows():
    printed = {"CROMA": 55.72, "DOFA": 54.89, "TerraMind-B": 58.18, "TerraMind-L": 59.10, "RAMEN": 60.03}
    table = REFERENCES["pangaea-100"]
    assert {m: np.mean(list(s.values())) for m, s in table.scores.items()} == pytest.approx(printed, abs=0.006)


@given(st.permutations(sorted(PAPER_V1.scores)), st.permutations(PAPER_V1.tasks))
def test_the_order_of_models_and_tasks_does_not_matter(models, tasks):
    table = ReferenceTable("t", "s", "%", tuple(tasks), {m: PAPER_V1.scores[m] for m in models})
    assert distance_to_best(table, OURS).mean == pytest.approx(4.015)


def test_a_better_model_moves_everybody_away():
    best = {"HLS Burn Scars": 85.51, "MADOS": 68.55, "Sen1Floods11": 92.42, "AI4SmallFarms": 47.34}
    table = PAPER_V1.extended("ours", best)
    assert distance_to_best(table, "ours").mean == 0
    assert set(distance_to_best(table, "ours").best.values()) == {"ours"}
    assert distance_to_best(table, OURS).mean == pytest.approx(4.015 + 1.0)
    assert "ours" not in PAPER_V1.scores


def test_errors_are_better_when_smaller():
    table = ReferenceTable(
        "t", "s", "t/ha", ("biomass",), {"a": {"biomass": 40.0}, "b": {"biomass": 35.5}}, {}, ("biomass",)
    )
    assert distance_to_best(table, "a").mean == 4.5
    assert distance_to_best(table, "a").best == {"biomass": "b"}
    assert distance_to_best(table, "b").mean == 0


def test_a_distance_is_printed_with_its_whole_reference():
    rows = distance_to_best(PAPER_V1, OURS).rows()
    assert rows[0] == ["model", *PAPER_V1.tasks, "mean DTB", "printed"]
    assert len(rows) == 1 + len(PAPER_V1.scores)
    assert rows[1] == ["U-Net (~8M, trained)", "84.51", "54.79", "91.42", "46.34", "3.190", "3.19"]
    assert rows[2] == [OURS, "79.50", "59.90", "89.26", "45.10", "4.015", "4.17"]
    assert [float(r[5]) for r in rows[1:]] == sorted(float(r[5]) for r in rows[1:])


def test_a_model_without_a_task_has_no_mean_but_may_be_the_best():
    table = PAPER_V1.extended("specialist", {"MADOS": 90.0})
    assert distance_to_best(table, OURS).best["MADOS"] == "specialist"
    with pytest.raises(DataError, match="no score for HLS"):
        distance_to_best(table, "specialist")
    assert next(r for r in distance_to_best(table, OURS).rows() if r[0] == "specialist")[1:6] == [
        "-",
        "90.00",
        "-",
        "-",
        "-",
    ]


def test_scores_that_cannot_be_compared_are_refused():
    with pytest.raises(DataError, match="no model 'x'"):
        distance_to_best(PAPER_V1, "x")
    with pytest.raises(DataError, match="already"):
        PAPER_V1.extended(OURS, {})
    with pytest.raises(DataError, match="has a score for Flevoland"):
        PAPER_V1.extended("x", {"Flevoland": 1.0})
    with pytest.raises(DataError, match="no finite score for MADOS"):
        PAPER_V1.extended("x", {"MADOS": float("nan")})
    with pytest.raises(DataError, match="no task"):
        PAPER_V1.without("Flevoland")


def test_a_reference_cannot_be_changed():
    with pytest.raises(TypeError):
        PAPER_V1.scores[OURS]["MADOS"] = 99.0
    with pytest.raises(TypeError):
        PAPER_V1.scores["x"] = {}
