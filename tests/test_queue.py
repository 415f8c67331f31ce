"""`eosfm train` with several files: a queue that resumes, reports and does not stop at the first failure."""

from dataclasses import replace
from pathlib import Path

import pytest

from eosfm.contracts import ConfigError
from eosfm.data.files import DataConfig
from eosfm.outcomes import queue_outcome
from eosfm.queue import train_queue, train_run
from eosfm.runs import TrainRun
from eosfm.tasks.model import HeadConfig
from eosfm.training.settings import FitConfig


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainRun:
    monkeypatch.chdir(tmp_path)
    return TrainRun(
        name="one",
        data=DataConfig(kind="synthetic", task="water", bands="aerial:R,G,B@8bit", size=(8, 4, 4), chip_size=32),
        fit=FitConfig(epochs=1, batch_size=4),
        head=HeadConfig(decoder="linear", channels=8, dropout=0.0),
    )


def test_a_queue_reports_all_and_resumes(run):
    broken = replace(run, name="broken", data=DataConfig(kind="dataset", dataset="eurosat-rgb", root=Path("nowhere")))
    runs = [broken, run, replace(run, name="two")]
    first = train_queue(runs)
    assert [(r.name, r.card is None, r.already) for r in first] == [
        ("broken", True, False), ("one", False, False), ("two", False, False)]  # fmt: skip
    again = train_queue(runs)
    assert [r.already for r in again] == [False, True, True]
    assert again[1].card == first[1].card, "not trained twice"
    outcome = queue_outcome(again)
    assert outcome.failed and outcome.table[1][-1] == "failed" and outcome.table[2][-1] == "was there"
    assert "eurosat" in outcome.lines[0] and outcome.lines[-1].startswith("2 of 3 specialists, ")


def test_other_settings_are_not_mistaken_for_the_same(run):
    train_run(run)
    other = train_queue([replace(run, fit=replace(run.fit, seed=5)), replace(run, name="two")])
    assert other[0].card is None and "overwrite" in other[0].problem
    assert other[1].card is not None


def test_two_of_one_name_are_refused(run):
    with pytest.raises(ConfigError, match="two configurations train"):
        train_queue([run, replace(run, init="x")])
