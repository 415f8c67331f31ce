"""A suite on Ray: the serial run's rows, one writer; a lost worker's row is begun once more, a killed driver goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from eosfm.benchmark import run
from eosfm.benchmark.ledger import Ledger
from eosfm.benchmark.measuring import Attempt
from eosfm.benchmark.run import plan, run_suite
from eosfm.benchmark.suite import Suite, read_suite
from eosfm.cluster import Lost, connected
from eosfm.specialists.store import save_specialist
from helpers import make_card, make_encoder

FILE = """
name: spread
zoo: {zoo}
output: {out}
cases:
  - name: scenes
    protocol: frozen-probe
    data: {{kind: synthetic, task: scene, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4", size: [24, 12, 16], chip_size: 32}}
    draw: true
  - name: pixels
    protocol: geobench2
    trials: 2
    data: {{kind: synthetic, task: water, bands: "sentinel-2-l2a:B04,B03,B02@dn-1e4", size: [8, 4, 6], chip_size: 32}}
    fit: {{epochs: 2, batch_size: 4}}
models: [constant, image-statistics, "single:*", ensemble]
seeds: [0, 1]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> Suite:
    folder = tmp_path_factory.mktemp("spread")
    for i, (name, bands) in enumerate(
        [("rgb", "sentinel-2-l2a:B04,B03,B02@reflectance"), ("sar", "sentinel-1:VV,VH@db")]
    ):
        card = make_card(name, bands)
        save_specialist(make_encoder(len(card.bands), i), card, folder / "zoo")
    (folder / "suite.yaml").write_text(FILE.format(zoo=folder / "zoo", out=folder / "serial"))
    return read_suite(folder / "suite.yaml")


@pytest.fixture(scope="module")
def serial(suite) -> dict[str, object]:
    done = run_suite(suite)
    assert not done.problems and len(done.left_out) == 2
    return scores(suite)


def scores(suite: Suite) -> dict[str, object]:
    return {r["key"]: (r["metrics"], r["validation"], r["note"]) for r in Ledger(suite.folder).rows()}


def whole(suite: Suite, serial: dict[str, object]) -> None:
    """Every row once, and each the serial run's."""
    for name in ("results.jsonl", "trials.jsonl"):
        keys = [r["key"] for r in Ledger(suite.folder, name).rows()]
        assert len(keys) == len(set(keys))
    found = scores(suite)
    assert found.keys() == serial.keys()
    for key, (metrics, validation, note) in found.items():  # type: ignore[misc]
        expected, checked, noted = serial[key]  # type: ignore[misc]
        assert [m["name"] for m in metrics] == [m["name"] for m in expected] and note == noted
        assert [m["value"] for m in metrics] == pytest.approx([m["value"] for m in expected], abs=1e-6)
        assert validation == pytest.approx(checked, abs=1e-6)


def test_what_workers_send_is_written_once_and_here(suite, tmp_path, monkeypatch):
    """Without Ray: tasks come back in any order, one of them lost."""
    small = replace(suite, cases=suite.cases[:1], output=tmp_path)

    def fake(tasks, *, at_once, progress, landed):
        assert at_once == 3
        for number in reversed(range(len(tasks))):
            answer = tasks[number].call(beside=2, progress=None)
            assert (isinstance(answer, Attempt) and not list(tmp_path.glob("chips/*"))) or number < len(tasks) - 1
            landed(number, Lost("died") if "image-statistics, seed 1" in tasks[number].name else answer)

    class Nothing:
        def __init__(self, *_, **paths):
            self.paths = paths

        def __enter__(self):
            assert all(p.is_absolute() for p in (*self.paths["shared"], *self.paths["given"]))

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(run, "run_tasks", fake)
    monkeypatch.setattr(run, "connected", Nothing)
    done = run_suite(small, cluster="local", workers=3)
    assert len(done.problems) == 1 and "lost twice (died)" in done.problems[0] and len(done.left_out) == 1
    wanted = [j.key for j in plan(small) if j.model != "single:sar"]
    assert len(done.rows) == len(wanted) - 1
    again = run_suite(small)
    assert {r["key"] for r in again.rows} == set(wanted) and not again.problems


@pytest.fixture(scope="module")
def two_cpus():
    pytest.importorskip("ray")
    with connected("local", cpus=2):
        yield


@pytest.mark.slow
@pytest.mark.timeout(900)  # each starts processes that import torch
def test_a_cluster_gives_the_serial_rows(suite, serial, two_cpus, tmp_path):
    there = replace(suite, output=tmp_path)
    told: list[tuple[float, str]] = []
    done = run_suite(there, lambda f, line: told.append((f, line)), cluster="local")
    assert not done.problems and len(done.left_out) == 2
    whole(there, serial)
    assert told and all(0 <= f <= 1 for f, _ in told)


@pytest.mark.slow
@pytest.mark.timeout(900)  # each starts processes that import torch
def test_a_worker_that_is_killed_loses_nothing(suite, serial, two_cpus, tmp_path):
    psutil = pytest.importorskip("psutil")
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for p in psutil.Process().children(recursive=True):
                try:
                    if p.cmdline()[:1] and p.cmdline()[0].startswith("ray::pixels, ensemble, seed 1"):
                        p.kill()
                        killed.append(p.pid)
                        return
                except psutil.Error:
                    continue
            time.sleep(0.01)

    threading.Thread(target=kill, daemon=True).start()
    there = replace(suite, output=tmp_path)
    lines: list[str] = []
    done = run_suite(there, lambda _, line: lines.append(line), cluster="local")
    assert killed and not done.problems and any("lost, once more" in line for line in lines)
    whole(there, serial)


@pytest.mark.slow
@pytest.mark.timeout(900)  # each starts processes that import torch
def test_a_driver_that_is_killed_goes_on(suite, serial, tmp_path):
    pytest.importorskip("ray")
    file = tmp_path / "suite.yaml"
    file.write_text(FILE.format(zoo=suite.zoo, out=tmp_path / "out"))
    there = read_suite(file)
    command = [sys.executable, "-m", "eosfm", "bench", str(file), "--cluster", "local"]
    job = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ, start_new_session=True
    )
    while len(Ledger(there.folder).rows()) < 2 and job.poll() is None:
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.wait()
    before = [r["key"] for r in Ledger(there.folder).rows()]
    assert 2 <= len(before) < len(serial)
    subprocess.run(command, check=True, capture_output=True)
    assert [r["key"] for r in Ledger(there.folder).rows()][: len(before)] == before
    whole(there, serial)
