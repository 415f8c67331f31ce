"""T5: a scheduler's SIGTERM ends a training cleanly, with its checkpoint kept and words for whoever reads the log."""

import signal
import subprocess
import sys
import time

from eosfm.training.module import read_checkpoint

CONFIG = """
name: long
zoo: zoo
run: run
data: {kind: synthetic, task: water, bands: "aerial:R,G,B@8bit", size: [64, 4, 4], chip_size: 32}
fit: {epochs: 5000, batch_size: 32}
head: {decoder: linear, channels: 8, dropout: 0.0}
"""


def test_sigterm_keeps_the_checkpoint_and_says_how_to_go_on(tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG)
    job = subprocess.Popen(
        [sys.executable, "-m", "eosfm", "train", "c.yaml"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "last.ckpt").exists():
        assert time.monotonic() < deadline and job.poll() is None, job.stderr.read()
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM, err
    assert "start the same command again to continue" in err and "Traceback" not in err
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["epoch"] >= 0
    assert not (tmp_path / "zoo" / "long").exists()
