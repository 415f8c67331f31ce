"""`eosfm train --cluster`: the same queue on Ray; lost processes, other machines' eyes, and room for devices.

One Ray with two CPUs serves all slow tests but the last, which starts its own as a user does.
"""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from eosfm import cluster, commands
from eosfm.cluster import Lost, Task, connected, run_tasks
from eosfm.config import absolute, paths_read
from eosfm.contracts import ConfigError, MissingExtra
from eosfm.data.files import DataConfig
from eosfm.queue import train_queue
from eosfm.runs import TrainRun
from eosfm.tasks.model import HeadConfig
from eosfm.training.settings import FitConfig

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")


@pytest.fixture(scope="module")
def two_cpus():
    """The tasks of this module travel whole: a worker cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with connected("local", cpus=2):
        yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainRun:
    monkeypatch.chdir(tmp_path)
    return TrainRun(
        name="one",
        data=DataConfig(kind="synthetic", task="water", bands="aerial:R,G,B@8bit", size=(8, 4, 4), chip_size=32),
        fit=FitConfig(epochs=1, batch_size=4),
        head=HeadConfig(decoder="linear", channels=8, dropout=0.0),
    )


def worker(task: str) -> psutil.Process | None:
    """The process of this Ray that works at ``task``."""
    for p in psutil.Process().children(recursive=True):
        try:
            if p.cmdline()[:1] == [f"ray::{task}"]:
                return p
        except psutil.Error:
            pass
    return None


@pytest.mark.slow
def test_a_queue_on_a_cluster_is_the_same_queue(two_cpus, run):
    broken = replace(run, name="broken", data=DataConfig(kind="dataset", dataset="eurosat-rgb", root=Path("nowhere")))
    runs, told = [broken, run, replace(run, name="two")], []
    first = train_queue(runs, cluster="local", progress=lambda *news: told.append(news))
    assert [(r.name, r.card is None, r.already) for r in first] == [
        ("broken", True, False), ("one", False, False), ("two", False, False)], [r.problem for r in first]  # fmt: skip
    assert "nowhere" in first[0].problem and "eurosat" in first[0].problem
    assert {name for name, _, _ in told} == {"one", "two"} and max(f for _, f, _ in told) == 1
    here = train_queue(runs[1:])
    assert [r.already for r in here] == [True, True], "what the cluster trained is known here"
    again = train_queue(runs[1:], cluster="local", workers=1)
    assert [r.already for r in again] == [True, True] and again[0].card == first[1].card


@pytest.mark.slow
def test_the_command_with_one_file(two_cpus, run, tmp_path):
    (tmp_path / "one.yaml").write_text(
        "{name: one, data: {kind: synthetic, task: water, bands: 'aerial:R,G,B@8bit', size: [8, 4, 4], chip_size: 32},"
        " fit: {epochs: 1, batch_size: 4}, head: {decoder: linear, channels: 8, dropout: 0.0}}"
    )
    outcome = commands.train([str(tmp_path / "one.yaml")], cluster="local")
    assert outcome.table[1][0] == "one" and outcome.table[1][-1] == "trained" and not outcome.failed


@pytest.mark.slow
def test_a_lost_process_is_begun_once_more_and_continues(two_cpus, run, tmp_path, capfd):
    long = replace(run, name="long", fit=replace(run.fit, epochs=12))
    killed = []

    def kill() -> None:
        while not (tmp_path / "runs" / "long" / "last.ckpt").exists():
            time.sleep(0.02)
        victim = worker("long")
        victim.kill()
        killed.append(victim.pid)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    told: list[str] = []
    (row,) = train_queue([long], cluster="local", progress=lambda _, __, line: told.append(line))
    assert killed and row.card is not None and row.card.training.epochs == 12, row.problem
    assert any("lost, once more" in line for line in told)
    assert not capfd.readouterr().out, "stdout is for the table"
    logs = sorted((tmp_path / "runs" / "long" / "log").glob("version_*/metrics.csv"))
    assert int(next(csv.DictReader(logs[-1].read_text().splitlines()))["epoch"]) > 0, "not from the beginning"
    train_queue([replace(long, name="whole")], cluster="local")
    one, other = (tmp_path / "zoo" / n / "model.safetensors" for n in ("long", "whole"))
    assert one.read_bytes() == other.read_bytes()


def die(beside, progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(beside, progress) -> None:
    raise ArithmeticError("of its own")


def count(beside, progress) -> int:
    return beside


@pytest.mark.slow
def test_lost_twice_is_a_row_and_an_unforeseen_error_stops(two_cpus, run, monkeypatch):
    done = run_tasks([Task("dies", die), Task("lives", count)])
    assert isinstance(done[0], Lost) and "died" in done[0].reason and done[1] == 2
    assert run_tasks([Task("a", count), Task("b", count)], at_once=1) == [1, 1]
    with pytest.raises(ArithmeticError, match="of its own"):
        run_tasks([Task("s", stumble)])
    monkeypatch.setattr("eosfm.queue.run_tasks", lambda *_, **__: [Lost("why")])
    (row,) = train_queue([run], cluster="local")
    assert row.card is None and "lost twice" in row.problem and "why" in row.problem and "again" in row.problem


@pytest.mark.slow
def test_a_machine_that_does_not_see_the_files_is_named(two_cpus, tmp_path):
    mine = Path(f"/proc/self/task/{os.getpid()}")  # there for this process alone
    with pytest.raises(ConfigError, match=r"does not see /proc/self/task/\d+ of .*file system that all machines share"):
        cluster._require_sight([tmp_path / "zoo"], [mine])
    cluster._require_sight([tmp_path / "zoo" / "new"], [tmp_path, tmp_path / "absent"])
    assert not list(tmp_path.iterdir()), "the marks are gone"


def test_room_for_devices():
    def node(i: str, **resources: float) -> dict:
        return {"NodeID": i, "Alive": True, "Resources": resources}

    cpus = [node("a", CPU=4.0), node("b", CPU=2.0), node("head")]
    assert cluster._room(Task("t", die), cpus, 9) == ({"num_cpus": 1}, {"a": 4, "b": 2})
    assert cluster._room(Task("t", die), cpus, 2)[1] == {"a": 2, "b": 2}, "no more than there are tasks"
    assert cluster._room(Task("t", die, devices=2, helpers=4), cpus, 9) == ({"num_cpus": 4}, {"a": 1, "b": 1})
    gpus = [*cpus, node("g", CPU=16.0, GPU=4.0)]
    assert cluster._room(Task("t", die, devices=2, helpers=2), gpus, 9) == ({"num_cpus": 3, "num_gpus": 2}, {"g": 2})
    with pytest.raises(ConfigError, match=r"t: devices 8;.*at most 4 GPUs"):
        cluster._room(Task("t", die, devices=8), gpus, 9)


def test_runs_are_sent_with_absolute_paths(run, tmp_path):
    data = DataConfig(kind="dataset", dataset="eurosat-rgb", root=Path("data"))
    sent = absolute(replace(run, data=data))
    assert (sent.zoo, sent.data.root, sent.run) == (tmp_path / "zoo", tmp_path / "data", None)
    assert replace(sent, zoo=run.zoo, data=data) == replace(run, data=data)
    assert paths_read(sent) == [tmp_path / "zoo", tmp_path / "data"]


def test_without_ray_or_without_a_cluster(run, monkeypatch):
    with monkeypatch.context() as m:
        m.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingExtra, match=r"eosfm\[cluster\]"):
            train_queue([run], cluster="local")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"no Ray cluster at 'nonsense'.*ray start --head"):
        train_queue([run], cluster="nonsense")


@pytest.mark.slow
@pytest.mark.parametrize("how, code", [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_an_interrupt_cancels_and_says_how_to_go_on(tmp_path, how, code):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(
            f"{{name: {name}, data: {{kind: synthetic, task: water, bands: 'aerial:R,G,B@8bit', size: [64, 4, 4],"
            " chip_size: 32}, fit: {epochs: 5000, batch_size: 32}, head: {decoder: linear, channels: 8}}"
        )
    command = [sys.executable, "-m", "eosfm", "train", "a.yaml", "b.yaml", "c.yaml", "--cluster", "local"]
    job = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 240
    while not (tmp_path / "runs" / "a" / "last.ckpt").exists():
        assert time.monotonic() < deadline and job.poll() is None, job.stderr.read()
        time.sleep(0.2)
    family = psutil.Process(job.pid).children(recursive=True)
    job.send_signal(how)
    _, err = job.communicate(timeout=120)
    assert job.returncode == code, err
    assert "start the same command again to continue" in err and "Traceback" not in err
    _, left = psutil.wait_procs(family, timeout=20)
    assert not left
    assert not (tmp_path / "zoo" / "a").exists()
