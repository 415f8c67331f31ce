"""Training end to end on tiny data: a specialist is stored and reloads; a killed run ends where an uninterrupted one does."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, TrainingError
from eosfm.data.worlds import synthetic_splits
from eosfm.ensemble import Ensemble
from eosfm.files import sha256_file
from eosfm.specialists.card import read_card
from eosfm.specialists.encoder import ConvNeXtV2Atto
from eosfm.specialists.store import load_specialist
from eosfm.tasks.model import HeadConfig, TaskSpec
from eosfm.tasks.stored import load_task_model, save_task_model
from eosfm.training.energy import Energy
from eosfm.training.fit import adapt_ensemble, data_info, train_specialist, training_info
from eosfm.training.initial import Start
from eosfm.training.module import read_checkpoint
from eosfm.training.scoring import score
from eosfm.training.settings import FitConfig

RGB = BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance")
HLS = BandSet.parse("hls:all@reflectance")
CONFIG = FitConfig(epochs=3, batch_size=8, learning_rate=1e-3, augment=True, seed=3)
HEAD = HeadConfig(decoder="linear", channels=16, dropout=0.2)


def tiny(task="land-cover", bands=RGB, seed=0):
    return synthetic_splits(task, bands, 16, 8, 8, size=32, seed=seed)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "zoo"
    train_specialist(tiny(), replace(CONFIG, epochs=2), folder, name="covers", head=HEAD)
    return folder


def test_a_trained_specialist_is_stored_with_its_card(zoo):
    encoder, card = load_specialist(zoo / "covers")
    assert card.bandset() == RGB and card.task.kind == "segmentation" and card.chip_size == 32
    assert card.weights.sha256 == sha256_file(zoo / "covers" / "model.safetensors")
    assert card.metrics[0].name == "miou" and card.metrics[0].low <= card.metrics[0].value <= card.metrics[0].high
    assert card.data.images == 16 and card.data.sha256 == tiny().train.sha256()
    assert card.training.initialisation == "random" and card.licence == "CC0-1.0"
    assert [tuple(p.shape[1:]) for p in encoder(torch.zeros(1, 3, 32, 32))] == [
        (40, 8, 8),
        (80, 4, 4),
        (160, 2, 2),
        (320, 1, 1),
    ]


@pytest.mark.parametrize("task", ["scene", "scene-multilabel", "vegetation-fraction"])
def test_every_kind_of_task_trains(task, tmp_path):
    done = train_specialist(tiny(task), replace(CONFIG, epochs=1), tmp_path, name="x", head=HEAD)
    assert done.card.metrics and (tmp_path / "x" / "card.json").exists()


def ensemble_of(zoo, data):
    return Ensemble([load_specialist(zoo / "covers")], data.train.bands, statistics=data.train.statistics())


def test_cached_and_uncached_adaptation_agree(zoo, tmp_path):
    data = tiny("burn-scars", HLS)
    task = TaskSpec(kind="segmentation", classes=data.train.classes, chip_size=32, head=replace(HEAD, dropout=0.0))
    config = replace(CONFIG, augment=False, epochs=2)
    models = [adapt_ensemble(ensemble_of(zoo, data), data, task, config, cache=c)[0] for c in (True, False)]
    a, b = (m.trainable_tensors() for m in models)
    assert a.keys() == b.keys()
    for k in a:
        torch.testing.assert_close(a[k], b[k], rtol=1e-3, atol=1e-5)


def test_adapted_model_survives_the_disk(zoo, tmp_path):
    data = tiny("burn-scars", HLS)
    task = TaskSpec(kind="segmentation", classes=data.train.classes, chip_size=32, head=HEAD)
    config = replace(CONFIG, augment=False, epochs=1)
    frozen = sha256_file(zoo / "covers" / "model.safetensors")
    model, _, _ = adapt_ensemble(ensemble_of(zoo, data), data, task, config)
    save_task_model(
        model, tmp_path / "m", zoo, name="burn", data=data_info(data, "0"), training=training_info("", config, Energy())
    )
    again, _ = load_task_model(tmp_path / "m")
    x = data.test.images[:2]
    assert torch.equal(model(x), again(x))
    assert sha256_file(zoo / "covers" / "model.safetensors") == frozen
    assert (tmp_path / "m" / "model.safetensors").stat().st_size < 3_000_000, "specialists must not be copied"
    assert score(again, data.test, 0).metrics[0].value == score(model, data.test, 0).metrics[0].value


def test_crops_of_a_cache_are_refused(zoo):
    data = tiny("burn-scars", HLS)
    task = TaskSpec(kind="segmentation", classes=data.train.classes, chip_size=32, head=HEAD)
    with pytest.raises(ConfigError, match="do not exist: set cache: false, or leave out zoom"):
        adapt_ensemble(ensemble_of(zoo, data), data, task, replace(CONFIG, zoom=0.2), cache=True)


_RUN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from dataclasses import replace
from training.test_fit import tiny, CONFIG, HEAD
from eosfm.training.fit import train_specialist
import torch
torch.set_num_threads(1)
kill_at = float(sys.argv[2])
def progress(fraction, line):
    if fraction >= kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
train_specialist(tiny(), CONFIG, Path(sys.argv[1]) / "zoo", name="killed", head=replace(HEAD, decoder="unet"),
                 run=Path(sys.argv[1]) / "run", progress=progress)
"""


def run_training(folder, kill_at):
    code = _RUN.format(tests=str(Path(__file__).parents[1]))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), str(kill_at)], env=env, capture_output=True, text=True
    )


def test_kill_minus_nine_then_resume_equals_an_uninterrupted_run(tmp_path):
    """T1: dropout (a linear head has none), shuffling and augmentation are on; killed in the middle of the third epoch."""
    killed = run_training(tmp_path / "a", 0.8)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    killed = run_training(tmp_path / "a", 0.8)  # and once more: a second session continues the first
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "a" / "zoo" / "killed").exists()
    assert (tmp_path / "a" / "run" / "last.ckpt").exists()
    resumed = run_training(tmp_path / "a", 2)
    whole = run_training(tmp_path / "b", 2)
    assert resumed.returncode == whole.returncode == 0, resumed.stderr + whole.stderr
    weights = [sha256_file(tmp_path / f / "zoo" / "killed" / "model.safetensors") for f in "ab"]
    assert weights[0] == weights[1]
    # the card counts the seconds of all sessions, up to the checkpoint that each left
    card = read_card(tmp_path / "a" / "zoo" / "killed" / "card.json")
    spent = torch.load(tmp_path / "a" / "run" / "last.ckpt", weights_only=True)["seconds"]
    assert 0.9 * spent < card.training.seconds < spent + 5


def test_a_run_folder_of_another_run_is_refused(tmp_path):
    train_specialist(tiny(), replace(CONFIG, epochs=1), tmp_path / "zoo", name="one", head=HEAD, run=tmp_path / "run")
    with pytest.raises(TrainingError, match=r"other (training settings|data, initial weights or mask)"):
        train_specialist(
            tiny(), replace(CONFIG, epochs=2), tmp_path / "zoo", name="two", head=HEAD, run=tmp_path / "run"
        )


@pytest.mark.parametrize(("when", "says"), [(0.5, "weights are not finite"), (0.8, "loss is nan at epoch 2, batch 1")])
def test_a_run_that_breaks_stops_and_keeps_the_last_checkpoint(tmp_path, when, says):
    """T4: spoiled at the end or in the middle of an epoch; the last good checkpoint stays and nothing is stored."""
    encoder = ConvNeXtV2Atto(3)

    def spoil(fraction, line):
        if fraction > when:
            with torch.no_grad():
                next(encoder.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match=says):
        train_specialist(tiny(), CONFIG, tmp_path / "zoo", name="wild", head=HEAD, run=tmp_path / "run",
                         start=Start(encoder, "given"), progress=spoil)  # fmt: skip
    kept = read_checkpoint(tmp_path / "run" / "last.ckpt")["state_dict"]
    assert all(bool(v.isfinite().all()) for v in kept.values() if v.is_floating_point())
    assert not (tmp_path / "zoo" / "wild").exists()


def test_checkpoints_hold_no_specialist(zoo, tmp_path):
    data = tiny("burn-scars", HLS)
    task = TaskSpec(kind="segmentation", classes=data.train.classes, chip_size=32, head=HEAD)
    adapt_ensemble(ensemble_of(zoo, data), data, task, replace(CONFIG, augment=False, epochs=1), run=tmp_path / "run")
    for name in ("last.ckpt", "best.ckpt"):
        keys = read_checkpoint(tmp_path / "run" / name)["state_dict"].keys()
        assert keys and not [k for k in keys if "encoders" in k]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half"])
def test_a_broken_checkpoint_says_what_to_do(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(TrainingError, match="not a checkpoint of eosfm"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_a_hostile_checkpoint_runs_no_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'marker'}",)

    torch.save({"state_dict": Payload()}, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError):
        read_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "marker").exists()
