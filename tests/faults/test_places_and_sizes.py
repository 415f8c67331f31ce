"""Places that cannot be written are found before the work; what the system refuses is a sentence; hints say what helps."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from eosfm import cli, commands, commands_explain
from eosfm.bands import BandSet
from eosfm.composition import compose, read_manifest
from eosfm.contracts import ConfigError, CorruptArtifact, DataError
from eosfm.data.folders import stripes
from eosfm.demo.run import run_demo
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError
from eosfm.inference.tiling import TileGrid
from eosfm.outcomes import Outcome
from eosfm.specialists.card import DataInfo, TrainingInfo
from eosfm.specialists.store import load_specialist
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.stored import load_task_model, save_task_model
from eosfm.training.checkpoints import AtomicCheckpoints
from helpers import edit_json, full_disk, statistics_of

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")
ADAPT = """
name: x
zoo: zoo
data: {kind: synthetic, task: burn-scars, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4", size: [4, 4, 4], chip_size: 32}
"""


def call(monkeypatch, capsys, function, *words) -> tuple[int, str]:
    """What the command line makes of ``function`` under the name ``zoo list``."""
    monkeypatch.setitem(cli.COMMANDS, "zoo list", function)
    monkeypatch.setattr(sys, "argv", ["eosfm", "zoo", "list", *words])
    with pytest.raises(SystemExit) as e:
        cli.main()
    return int(e.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("code", [28, 30, 13, 27])
def test_what_a_disk_refuses_to_a_library_is_a_sentence(monkeypatch, capsys, code):
    def fails() -> Outcome:
        raise OSError(code, os.strerror(code), "/data/log.csv")

    exit_code, err = call(monkeypatch, capsys, fails)
    assert exit_code == 2 and f"/data/log.csv: {os.strerror(code)}; what was finished is kept" in err


def test_memory_that_pytorch_cannot_have_is_a_sentence_and_other_errors_are_not_hidden(monkeypatch, capsys):
    def hungry() -> Outcome:
        torch.empty(2**58, dtype=torch.uint8)
        return Outcome(None)

    exit_code, err = call(monkeypatch, capsys, hungry)
    assert exit_code == 2 and "out of memory" in err and "--batch-size" in err and "chip_size" in err, err

    for error in (RuntimeError("a mistake of ours"), FileNotFoundError(2, "a mistake of ours")):

        def wrong(error: Exception = error) -> Outcome:
            raise error

        monkeypatch.setitem(cli.COMMANDS, "zoo list", lambda: wrong())
        with pytest.raises(type(error), match="mistake of ours"):
            cli.main()


@pytest.mark.parametrize("place", ["run", "output"])
def test_adapt_looks_at_its_places_before_it_reads_data(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "a.yaml").write_text(ADAPT)
    monkeypatch.chdir(tmp_path)
    for where in (tmp_path / "file" / "x", Path("/proc/x")):
        with pytest.raises(OutputError, match="cannot write"):
            commands.adapt(tmp_path / "a.yaml", [f"{place}={where}"])
    with pytest.raises(Exception, match="zoo"):  # the places are good: it goes on, and leaves nothing there
        commands.adapt(tmp_path / "a.yaml", [f"{place}={tmp_path / 'new' / 'x'}"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml", "file"]


def test_the_demo_and_evaluate_look_at_their_places_first(tmp_path, monkeypatch):
    def never(*_: object) -> None:
        pytest.fail("work was begun")

    monkeypatch.setattr("eosfm.demo.run.embedded_plan", never)
    for out, report in ((Path("/proc/x"), tmp_path / "r.html"), (tmp_path / "out", Path("/proc/r.html"))):
        with pytest.raises(OutputError, match="cannot write /proc"):
            run_demo(data=None, out=out, report=report)
    with pytest.raises(OutputError, match="cannot write /proc"):
        commands.evaluate(tmp_path / "no model", tmp_path / "no.yaml", output=Path("/proc/scores.json"))


def test_explain_replaces_no_json_that_was_there(tmp_path):
    (tmp_path / "page.json").write_text("mine")
    with pytest.raises(OutputError, match=r"page\.json exists already"):
        commands_explain.explain(tmp_path / "m", tmp_path / "c.yaml", output=tmp_path / "page.html")
    with pytest.raises(ConfigError, match="another ending"):
        commands_explain.explain(tmp_path / "m", tmp_path / "c.yaml", output=tmp_path / "page.json", overwrite=True)
    assert (tmp_path / "page.json").read_text() == "mine"


def test_a_full_disk_under_a_checkpoint_is_called_so(tmp_path):
    with full_disk(300), pytest.raises(OutputError, match=r"is the disk full\? It has \d+ MB free"):
        AtomicCheckpoints().save_checkpoint({"x": torch.zeros(10_000)}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def stored(zoo: Path, folder: Path) -> Path:
    specialists = [load_specialist(f) for f in sorted(zoo.iterdir())]
    task = TaskSpec(
        kind="segmentation", classes=("a", "b"), chip_size=32, head=HeadConfig(decoder="linear", channels=8)
    )
    model = TaskModel(Ensemble(specialists, BANDS, statistics=statistics_of(BANDS)), task)
    data = DataInfo(name="noise", licence="CC0-1.0")
    save_task_model(model, folder, zoo, name="t", data=data, training=TrainingInfo())
    return folder


def test_a_model_of_another_version_says_who_wrote_it_and_what_to_do(own_zoo: Path, tmp_path: Path):
    model = stored(own_zoo, tmp_path / "model")
    manifest = json.loads((model / "ensemble.json").read_text())
    old = [{k: v for k, v in s.items() if k != "reading"} for s in manifest["specialists"]]
    edit_json(model / "ensemble.json", specialists=old, eosfm_version="0.0.7")
    with pytest.raises(CorruptArtifact, match=r"(?s)reading: Field required.*written by eosfm 0\.0\.7.*`eosfm adapt`"):
        load_task_model(model)
    edit_json(model / "task.json", weights=None)
    with pytest.raises(CorruptArtifact, match=r"(?s)weights: Field required.*written by eosfm 0\.0\.7.*`eosfm adapt`"):
        load_task_model(model)
    compose(own_zoo, tmp_path / "ensemble")
    edit_json(tmp_path / "ensemble" / "ensemble.json", rules=None, zoo=None, eosfm_version=None)
    with pytest.raises(CorruptArtifact, match=r"(?s)zoo: Field required.*an unknown version.*`eosfm compose`"):
        read_manifest(tmp_path / "ensemble" / "ensemble.json")


def test_weights_can_be_read_by_others_on_the_machine(own_zoo: Path, tmp_path: Path):
    """safetensors makes its files for their maker alone, whatever the umask."""
    before = os.umask(0o022)
    try:
        model = stored(own_zoo, tmp_path / "model")
    finally:
        os.umask(before)
    assert {oct(p.stat().st_mode & 0o777) for p in model.iterdir()} == {"0o644"}


def test_hints_about_sizes_name_sizes_that_work():
    with pytest.raises(ConfigError, match=r"multiple of the model's stride 32; the nearest is 32$"):
        TileGrid(100, 100, 64, 50, 32)
    TileGrid(100, 100, 64, 32, 32)
    with pytest.raises(ConfigError, match=r"overlap 64 must lie in 0\.\.32 "):
        TileGrid(100, 100, 64, 64, 32)
    with pytest.raises(DataError, match="gaps of -5; expected 1 or more, and 0 or more"):
        stripes(512, 64, -5, "scene")
    with pytest.raises(DataError, match="choose smaller chips or a smaller gap"):
        stripes(512, 64, 250, "scene")
