"""The core without optional extras: load, routes, compose, embed and predict work; training says which extra it needs.

`make test-core` runs this folder in an environment that has no extras; elsewhere the extras are hidden from a child process.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXTRAS = ["lightning", "pytorch_lightning", "torchmetrics", "segmentation_models_pytorch", "tensorboard", "codecarbon",
          "matplotlib", "jinja2", "model_signing", "OpenSSL", "openvino", "onnx", "onnxruntime", "onnxscript", "nncf"]  # fmt: skip

_SCRIPT = """
import sys
from pathlib import Path
import numpy as np, torch
import eosfm
from eosfm import commands, commands_scene
from eosfm.bands import BandSet
from eosfm.inference.raster import georeference, write_scene
from eosfm.specialists.card import *
from eosfm.specialists.encoder import untrained_encoder
from eosfm.specialists.store import save_specialist
from eosfm.statistics import BandStatistics
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.stored import save_task_model
work = Path(sys.argv[1])
bands = BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance")
card = SpecialistCard(name="rgb", bands=card_bands(bands), chip_size=32,
    statistics=BandStatistics(mean=(0.1,) * 3, std=(0.1,) * 3), task=TaskInfo(kind="none"), data=DataInfo(name="none", licence="CC0-1.0"), training=TrainingInfo(), licence="CC0-1.0",
    weights=WeightsInfo(sha256="0" * 64, bytes=0, parameters=0), eosfm_version="", created="")
save_specialist(untrained_encoder(3, 0), card, work / "zoo")
hls = BandSet.parse("hls:all@reflectance")
assert commands.routes(work / "zoo", str(hls)).table
ens = eosfm.load(work / "zoo", bands=hls)
assert [p.shape[1] for p in ens(torch.rand(1, 6, 64, 64))] == [40, 80, 160, 320]
where = georeference("EPSG:32631", 500000.0, 4800000.0, 10.0)
write_scene(work / "s.tif", np.random.default_rng(0).random((6, 70, 80), dtype=np.float32) * 0.4, hls, where)
commands.compose(work / "zoo", work / "ens", fusion="sum")
commands_scene.embed(work / "ens", work / "s.tif", work / "f.tif", bands=str(hls))
task = TaskSpec(kind="segmentation", classes=("a", "b"), chip_size=32, head=HeadConfig(decoder="linear", channels=8))
save_task_model(TaskModel(ens, task), work / "model", work / "zoo", name="m", data=DataInfo(name="none", licence="CC0-1.0"),
                training=TrainingInfo())
commands_scene.predict(work / "model", work / "s.tif", work / "m.tif")
assert (work / "f.tif").exists() and (work / "m.tif").exists()
hidden = [m for m in sys.modules if m.split(".")[0] in set(sys.argv[2].split(",")) and sys.modules[m] is not None]
assert not hidden, hidden
print("core works")
"""


def child(tmp_path, *args, script=None):
    """A Python process in which no extra can be imported, whether installed or not."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nfor m in {EXTRAS}:\n    sys.modules[m] = None\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *args] if script else [sys.executable, "-m", "eosfm", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)


def test_core_works_without_extras(tmp_path):
    done = child(tmp_path, str(tmp_path), ",".join(EXTRAS), script=_SCRIPT)
    assert done.returncode == 0 and "core works" in done.stdout, done.stderr


@pytest.mark.parametrize("command", [["train", "c.yaml"], ["adapt", "c.yaml"], ["demo", "--quick", "--out", "o"],
                                     ["zoo", "sign", "z", "--key", "k.pem"], ["zoo", "verify", "z", "--key", "k.pem"]])  # fmt: skip
def test_commands_that_need_an_extra_say_so(tmp_path, command):
    (tmp_path / "c.yaml").write_text(
        "name: x\ndata: {kind: synthetic, task: water, bands: 'sentinel-2-l2a:B04,B03,B02@reflectance'}\n"
    )
    done = child(tmp_path, *command)
    assert done.returncode == 2 and "pip install 'eosfm[" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (Path(tmp_path) / "zoo").exists()
