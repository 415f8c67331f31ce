"""A suite: every row once, whatever happens in between; what changes a score changes the key; the page says what was measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eosfm import commands_bench
from eosfm.benchmark import measuring, run
from eosfm.benchmark.leaderboard import boards, findings
from eosfm.benchmark.ledger import Ledger
from eosfm.benchmark.run import matched, plan, run_suite
from eosfm.benchmark.suite import Suite, read_suite, without_rows
from eosfm.contracts import ConfigError, CorruptArtifact, EosfmError, ZooError
from eosfm.specialists.store import save_specialist
from eosfm.specialists.zoo import find
from eosfm.statistics import BandStatistics
from helpers import make_card, make_encoder

FILE = """
name: small
zoo: {zoo}
output: {out}
cases:
  - name: scenes
    protocol: frozen-probe
    data: {{kind: synthetic, task: scene, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4", size: [24, 12, 16], chip_size: 32}}
    draw: true
  - name: pixels
    protocol: pangaea
    leave_out: [other]
    data: {{kind: synthetic, task: water, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4", size: [4, 4, 6], chip_size: 32}}
    fit: {{epochs: 1, batch_size: 4}}
    head: {{decoder: linear, channels: 8, dropout: 0.0}}
models: [constant, image-statistics, random-features, untrained-ensemble, "single:*", ensemble, scratch]
seeds: [0, 1]
"""
PROBED, TRAINED = 4 + 2 + 1, 1 + 1 + 1 + 1 + 1
"""models per case: radar cannot be read; `scratch` is no probe, image statistics and random features are no trainings"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    for i, (name, bands) in enumerate([("rgb", "sentinel-2-l2a:B04,B03,B02@reflectance"), ("other", "aerial:R,G,B@8bit"),
                                       ("sar", "sentinel-1:VV,VH@db")]):  # fmt: skip
        card = make_card(name, bands)
        save_specialist(make_encoder(len(card.bands), i), card, folder)
    return folder


@pytest.fixture(scope="module")
def measured(zoo, tmp_path_factory) -> Suite:
    """A suite that has run, and the file it came from beside its results."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "suite.yaml").write_text(FILE.format(zoo=zoo, out=folder / "out"))
    outcome = commands_bench.bench(folder / "suite.yaml")
    assert not outcome.failed, outcome.lines
    return read_suite(folder / "suite.yaml")


def keys(suite: Suite) -> list[str]:
    return [r["key"] for r in Ledger(suite.folder).rows()]


def test_every_row_is_there_once_and_says_where_it_comes_from(measured):
    rows = Ledger(measured.folder).rows()
    count = {case: len({r["model"] for r in rows if r["case"] == case}) for case in ("scenes", "pixels")}
    assert count["pixels"] == TRAINED - 0 and count["scenes"] >= 6, count
    assert len(set(keys(measured))) == len(rows) == 2 * sum(count.values())
    assert not [
        r for r in rows if r["model"] == "single:sar" or (r["case"] == "pixels" and r["model"] == "single:other")
    ]
    for r in rows:
        assert r["metrics"] and r["metrics"][0]["low"] <= r["metrics"][0]["value"] <= r["metrics"][0]["high"]
        assert len(r["data_sha256"]) == 3 and r["versions"]["eosfm"] and r["seconds"] >= 0 and r["split"]
        assert (r["differs"] != []) == (r["case"] == "pixels"), "a shortened protocol says so"
        assert len(Ledger(measured.folder).table(r)) == r["chips"][2]
    drawn = {r["data_sha256"][0] for r in rows if r["case"] == "scenes"}
    assert len(drawn) == 2 and len({r["data_sha256"][0] for r in rows if r["case"] == "pixels"}) == 1


def test_finished_rows_are_not_measured_again(measured, monkeypatch):
    before = (measured.folder / "results.jsonl").read_bytes()
    monkeypatch.setattr(run, "attempt", lambda *_: pytest.fail("measured again"))
    monkeypatch.setattr(run, "models_of", lambda *a: [m for m in real(*a) if m != "single:sar"])
    done = run_suite(measured)
    assert not done.problems and (measured.folder / "results.jsonl").read_bytes() == before


real = run.models_of


def test_what_was_cut_short_goes_on_and_doubles_nothing(measured, zoo, tmp_path, monkeypatch):
    suite = replace(
        measured, output=tmp_path / "out", cases=measured.cases[:1], models=("constant", "image-statistics", "ensemble")
    )
    whole, count = run.attempt, []

    def stops(*args):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(run, "attempt", stops)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite)
    assert len(keys(suite)) == 2
    with (tmp_path / "out" / "results.jsonl").open("a") as f:
        f.write('{"key": "half a li')  # a machine that went down in the middle of a write
    assert len(keys(suite)) == 2
    monkeypatch.setattr(run, "attempt", whole)
    done = run_suite(suite)
    assert len(done.rows) == 6 and len(set(keys(suite))) == len(keys(suite)) == 6
    fixed = {(r["case"], r["model"], r["seed"]): r["metrics"] for r in Ledger(measured.folder).rows()}
    for r in done.rows:
        assert r["metrics"] == fixed["scenes", r["model"], r["seed"]], "the same in one go or in two"


def test_whatever_a_score_depends_on_makes_another_row(measured, zoo):
    before = {(j.case.name, j.model, j.seed): j.key for j in plan(measured)}
    case = measured.cases[1]
    changed = replace(measured, cases=(measured.cases[0], replace(case, fit=replace(case.fit, epochs=2))))
    after = {(j.case.name, j.model, j.seed): j.key for j in plan(changed)}
    assert {k for k in before if before[k] != after[k]} == {k for k in before if k[0] == "pixels"}
    assert len(set(before.values())) == len(before)
    fewer = {
        (j.case.name, j.model, j.seed): j.key
        for j in plan(replace(measured, cases=(replace(measured.cases[0], leave_out=("other",)),)))
    }
    assert fewer["scenes", "ensemble", 0] != before["scenes", "ensemble", 0]


def test_a_broken_case_or_model_does_not_stop_the_others(measured, tmp_path):
    scenes, pixels = measured.cases
    lost = replace(
        pixels, name="lost", data=replace(pixels.data, kind="dataset", dataset="mados", root=tmp_path / "nowhere")
    )
    probe = replace(scenes, name="no-scenes", data=pixels.data)
    suite = replace(measured, output=tmp_path / "out", cases=(lost, probe, scenes), models=("constant",), seeds=(0,))
    done = run_suite(suite)
    assert [r["case"] for r in done.rows] == ["scenes"]
    assert len(done.problems) == 2 and "nowhere" in done.problems[0] and "frozen-probe needs scenes" in done.problems[1]


def test_one_writer_and_no_silent_garbage(measured, tmp_path):
    ledger = Ledger(tmp_path)
    with ledger.writing(), pytest.raises(ConfigError, match="another process is writing"), Ledger(tmp_path).writing():
        pass
    (tmp_path / "results.jsonl").write_text('{"key": "a", "trial": 0}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(CorruptArtifact, match=r"line 2: .*delete the line"):
        ledger.rows()
    (tmp_path / "chips").mkdir()
    np.savez(tmp_path / "chips" / "a.npz", table=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CorruptArtifact, match=r"a\.npz"):
        ledger.table({"key": "a"})


def test_the_best_single_is_chosen_on_validation_and_findings_follow_intervals(measured):
    rows, ledger = Ledger(measured.folder).rows(), Ledger(measured.folder)
    scenes = boards(measured, rows, ledger)[0]
    singles = {s.model: s for s in scenes.standings if s.model.startswith("single:")}
    assert scenes.best_single == max(singles, key=lambda m: singles[m].validation)
    values = [s.score.value for s in scenes.standings]
    assert values == sorted(values, reverse=True)
    for s in scenes.standings:
        assert s.score.low <= s.score.value <= s.score.high
        np.testing.assert_allclose(np.mean(s.values), s.score.value)
    told = ("untrained-ensemble", scenes.best_single, "random-features", "image-statistics", "constant")
    for line, model in zip(findings(scenes), told, strict=True):
        d = next(s for s in scenes.standings if s.model == model).behind_ensemble
        expected = "ahead" if d.low > 0 else "behind" if d.high < 0 else "cannot be told"
        assert expected in line


def test_the_page_and_a_dry_run(measured, capsys):
    file = measured.folder.parent / "suite.yaml"
    outcome = commands_bench.bench_report(file, ["seeds=[0,1,2]"])
    page = (measured.folder / "report.html").read_text()
    assert "scenes" in page and "Published figures" in page and "not measured here" in page and "seed 2" in page
    assert any("not measured yet" in line for line in outcome.lines)
    dry = commands_bench.bench(file, ["seeds=[0,1,2]"], dry_run=True)
    assert all("seed 2" in line or "single:sar" in line for line in dry.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("models=[wizard]", "unknown model 'wizard'.*ensemble"),
        ("seeds=[0,0]", "seeds: expected one or more, each once"),
        ("cases.0.labels=2", "share of the training labels"),
        ("cases.0.labels=1.0e-9", r"labels 1e-09 is a share of the training labels, 0\.0001 to 1"),
        ("cases.0.labels=true", r"cases\.0\.labels: expected a number.*got True"),
        ("seeds=[true]", r"seeds\.0: expected a whole number.*got True"),
        ("cases.1.fit.epochs=true", r"cases\.1\.fit\.epochs: expected a whole number.*got True"),
        ("cases.0.head={decoder: linear}", "trains no head"),
        ("cases.0.nmae=1", "nmae: unknown key"),
    ],
)
def test_a_wrong_file_is_refused(measured, change, says):
    with pytest.raises(ConfigError, match=says):
        read_suite(measured.folder.parent / "suite.yaml", [change])


def test_a_small_share_of_labels_is_one_chip_a_stratum_and_the_row_says_how_many(measured, tmp_path):
    case = replace(measured.cases[0], labels=1e-3)
    (row,) = run_suite(replace(measured, output=tmp_path, cases=(case,), models=("image-statistics",), seeds=(0,))).rows
    assert 2 <= row["chips"][0] <= 6, "six covers, a stratum each"
    assert f"{row['chips'][0]} of 24 training chips" in row["split"]


def test_a_model_that_a_protocol_does_not_measure_is_told(measured, tmp_path):
    """`scratch` under frozen-probe gave no row and no word."""
    file = measured.folder.parent / "suite.yaml"
    for outcome in (commands_bench.bench(file), commands_bench.bench(file, dry_run=True)):
        told = [line for line in outcome.lines if line.startswith("left out: ")]
        assert any(re.match("left out: scenes, scratch: a frozen-probe trains no network", line) for line in told)
        assert sum(line.startswith("left out: pixels, ") and "vectors only" in line for line in told) == 2
        assert not any("pixels, scratch" in line or "scenes, image-statistics" in line for line in told)
    with pytest.raises(
        ConfigError, match=r"nothing would be measured: scenes, scratch:resnet18: a frozen-probe trains no"
    ):
        read_suite(file, ["models=[scratch:resnet18]", f"cases=[{one_case()}]"])


def one_case() -> str:
    return (
        "{name: scenes, protocol: frozen-probe, "
        'data: {kind: synthetic, task: scene, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4"}}'
    )


@pytest.mark.parametrize("key", ["leave_out", "only"])
def test_names_are_checked_where_no_specialist_takes_part(measured, tmp_path, key):
    """A mistyped name in a suite of baselines was never seen, and leaked once an ensemble was added."""
    case = measured.cases[0]
    suite = replace(measured, models=("constant", "image-statistics"), cases=(replace(case, **{key: ("rgb", "rbg")}),))
    with pytest.raises(ConfigError, match=rf"scenes: {key} names rbg, which .*; known: other, rgb, sar"):
        plan(suite)
    assert plan(replace(suite, cases=(replace(case, **{key: ("rgb",)}),)))
    with pytest.raises(ConfigError, match=rf"{key} names rgb, rbg, which means nothing here: .*Leave {key} out"):
        plan(replace(suite, zoo=tmp_path / "nowhere"))


def test_rows_of_changed_data_do_not_stand_side_by_side(measured, tmp_path, monkeypatch):
    """The data's files are in no key: rows from before and after a change stood in one table."""
    shutil.copytree(measured.folder, tmp_path / "out")
    suite = replace(
        measured, output=tmp_path / "out", models=("constant", "image-statistics", "random-features"), seeds=(0, 1, 2)
    )
    opened = measuring.open_data

    def changed(config):  # the same configuration, other files
        return opened(replace(config, seed=config.seed + 100))

    monkeypatch.setattr(measuring, "open_data", changed)
    drawn = run_suite(replace(suite, cases=measured.cases[:1]))
    assert not drawn.problems and len(drawn.rows) == 9, (
        "each seed has chips of its own: seed 2 has no row to contradict"
    )
    fixed = run_suite(replace(suite, cases=measured.cases[1:], models=("constant",)))
    assert [r["seed"] for r in fixed.rows] == [0, 1]
    assert len(fixed.problems) == 1 and re.search(
        r"pixels, constant, seed 2: the test chips have hash \w+, those of the row of constant, seed 0, \w+: "
        r"the data's files were changed.*delete the lines of pixels in results\.jsonl",
        fixed.problems[0],
    )
    ledger = Ledger(tmp_path / "out")
    edited, lines = ("scenes", 0, "constant"), []
    for r in ledger.rows():
        change = {"data_sha256": ["f" * 64] * 3} if (r["case"], r["seed"], r["model"]) == edited else {}
        lines.append(json.dumps(r | change))
    ledger.path.write_text("\n".join(lines) + "\n")
    for again in (lambda: run_suite(suite), lambda: matched(plan(suite), ledger.rows())):
        with pytest.raises(
            ConfigError, match=r"scenes, image-statistics, seed 0: the test chips have hash \w+.*ffffffffffff"
        ):
            again()


def test_frozen_probes_keep_features_in_the_cache_folder(measured, tmp_path, monkeypatch):
    """`cache_folder` was ignored by them. Kept features are found again, and change no score."""
    suite = replace(
        measured, output=tmp_path / "out", cases=measured.cases[:1], models=("untrained-ensemble", "ensemble"), seeds=(0,),
        cache_folder=tmp_path / "features",
    )  # fmt: skip
    done = run_suite(suite)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "features").rglob("*.safetensors")}
    assert files
    theirs = {(r["case"], r["model"], r["seed"]): r["metrics"] for r in Ledger(measured.folder).rows()}
    assert [r["metrics"] for r in done.rows] == [theirs["scenes", r["model"], 0] for r in done.rows]
    monkeypatch.setattr("eosfm.engine.cache.write_shard", lambda *_: pytest.fail("computed again"))
    again = run_suite(replace(suite, output=tmp_path / "again"))
    assert [r["metrics"] for r in again.rows] == [r["metrics"] for r in done.rows] and not again.problems
    assert files == {p: p.stat().st_mtime_ns for p in (tmp_path / "features").rglob("*.safetensors")}


def test_specialists_that_are_not_there(measured):
    with pytest.raises(ConfigError, match="leave_out names nobody"):
        plan(replace(measured, cases=(replace(measured.cases[0], leave_out=("nobody",)),)))
    with pytest.raises(ConfigError, match=r"model single:nobody.*rgb"):
        plan(replace(measured, models=("single:nobody",)))
    with pytest.raises(ZooError):
        plan(replace(measured, zoo=measured.folder))


@pytest.mark.slow
def test_kill_minus_nine_at_any_moment_loses_at_most_the_running_row(measured, zoo, tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text(FILE.format(zoo=zoo, out=tmp_path / "out"))
    suite, command = read_suite(file), [sys.executable, "-m", "eosfm", "bench", str(file)]
    for wanted in (1, 5, 9):
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        while len(keys(suite)) < wanted and job.poll() is None:
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert wanted <= len(keys(suite)) == len(set(keys(suite)))
    subprocess.run(command, check=True, capture_output=True)
    ours = {r["key"]: r["metrics"] for r in Ledger(suite.folder).rows()}
    assert len(ours) == len(keys(suite)) == len(keys(measured))
    theirs = {
        (r["case"], r["model"], r["seed"]): json.dumps(r["metrics"][0]["value"]) for r in Ledger(measured.folder).rows()
    }
    for r in Ledger(suite.folder).rows():
        assert json.dumps(r["metrics"][0]["value"]) == theirs[r["case"], r["model"], r["seed"]]


def test_a_card_that_says_something_else_is_another_row(measured, zoo, tmp_path):
    """Weights alone do not decide what a specialist gives: so do the statistics on its card."""
    shutil.copytree(zoo, tmp_path / "zoo")
    shutil.rmtree(tmp_path / "zoo" / "rgb")
    card = make_card("rgb", "sentinel-2-l2a:B04,B03,B02@reflectance")
    card = replace(
        card, statistics=BandStatistics(mean=tuple(2 * m for m in card.statistics.mean), std=card.statistics.std)
    )
    save_specialist(make_encoder(3, 0), card, tmp_path / "zoo")
    other = {(j.case.name, j.model, j.seed): j.key for j in plan(replace(measured, zoo=tmp_path / "zoo"))}
    for j in plan(measured):
        same = other[j.case.name, j.model, j.seed] == j.key
        assert same == (
            j.model in ("constant", "image-statistics", "random-features", "scratch", "single:other", "single:sar")
        )


def test_what_was_edited_by_hand_is_told(measured, tmp_path):
    shutil.copytree(measured.folder, tmp_path / "out")
    mine = replace(measured, output=tmp_path / "out")
    ledger, (first, second, *_) = Ledger(mine.folder), Ledger(mine.folder).rows()
    shutil.copy(tmp_path / "out" / "chips" / f"{second['key']}.npz", tmp_path / "out" / "chips" / f"{first['key']}.npz")
    with pytest.raises(CorruptArtifact, match="measured again"):
        ledger.table(first)
    (tmp_path / "out" / "chips" / f"{second['key']}.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CorruptArtifact, match="measured again"):
        ledger.table(second)
    for change in (
        {"case": "another"},
        {"model": "ensemble"},
        {"metrics": []},
        {"seed": "x"},
        {"validation": float("nan")},
    ):
        lines = [json.dumps(r | change if r == first else r) for r in Ledger(measured.folder).rows()]
        ledger.path.write_text("\n".join(lines) + "\n")
        if first | change == first:
            continue
        with pytest.raises(CorruptArtifact, match="measured again"):
            run_suite(mine)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), MemoryError(), ValueError("nan")])
def test_an_unforeseen_failure_stays_in_its_row(measured, tmp_path, monkeypatch, error):
    def fails(job, *args):
        if job.model == "ensemble":
            raise error
        return real(job, *args)

    real = measuring.measure
    monkeypatch.setattr(measuring, "measure", fails)
    suite = replace(measured, output=tmp_path, cases=measured.cases[:1], models=("ensemble", "constant"), seeds=(0,))
    done = run_suite(suite)
    assert [r["model"] for r in done.rows] == ["constant"]
    assert len(done.problems) == 1 and type(error).__name__ in done.problems[0]
    assert f"(traceback: the end of {tmp_path / 'problems.log'})" in done.problems[0]
    run_suite(suite)
    log = (tmp_path / "problems.log").read_text()
    assert log.count("---- ") == 2 and "scenes, ensemble, seed 0" in log, "appended, with what it was about"
    assert "in fails" in log and "raise error" in log, "a mistake of ours can be found"


def test_an_error_that_a_user_can_repair_leaves_no_traceback(measured, tmp_path):
    scenes, pixels = measured.cases
    probe = replace(scenes, data=pixels.data)
    done = run_suite(replace(measured, output=tmp_path, cases=(probe,), models=("constant",), seeds=(0,)))
    assert done.problems and not (tmp_path / "problems.log").exists()


def test_pangaea_s_own_metric_stands_first(measured):
    rows = [r for r in Ledger(measured.folder).rows() if r["case"] == "pixels"]
    assert all([m["name"] for m in r["metrics"]][:2] == ["miou-absent-zero", "miou"] for r in rows)


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300])
def test_an_output_that_cannot_be_is_told(measured, tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(EosfmError, match="choose another output"):
        run_suite(replace(measured, output=tmp_path / place))


def test_a_single_specialist_that_a_case_leaves_out_is_told(measured):
    """It was dropped without a word."""
    name = next(iter(find(measured.zoo))).card.name
    case = replace(measured.cases[0], leave_out=(name,))
    suite = replace(measured, models=("constant", f"single:{name}"), cases=(case,))
    assert f"{case.name}, single:{name}: leave_out names it" in without_rows(suite)
    assert not [line for line in without_rows(measured) if "leave_out" in line]
