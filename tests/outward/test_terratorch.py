"""The TerraTorch backbone: registered in a stand-in of its registry, and built as its factory builds one."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin

from eosfm.contracts import ConfigError, MissingExtra
from eosfm.outward.terratorch import eosfm_ensemble, register

BANDS = "sentinel-2-l2a:B04,B03,B02@dn-1e4"


@pytest.fixture
def registry(monkeypatch):
    class Registry(dict):
        def register(self, constructor):
            assert constructor.__name__ not in self
            self[constructor.__name__] = constructor
            return constructor

    top, sub = ModuleType("terratorch"), ModuleType("terratorch.registry")
    sub.TERRATORCH_BACKBONE_REGISTRY = top.registry = Registry()
    monkeypatch.setitem(sys.modules, "terratorch", top)
    monkeypatch.setitem(sys.modules, "terratorch.registry", sub)
    return sub.TERRATORCH_BACKBONE_REGISTRY


def test_registering_twice_is_once(registry):
    register()
    register()
    assert registry == {"eosfm_ensemble": eosfm_ensemble}


def test_without_terratorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "terratorch", None)
    monkeypatch.delitem(sys.modules, "terratorch.registry", raising=False)
    with pytest.raises(MissingExtra, match=r"eosfm\[terratorch\]"):
        register()


def test_a_backbone_is_channels_and_maps(registry, tiny_zoo):
    register()
    means, stds = [900.0, 800.0, 700.0], [500.0, 400.0, 300.0]
    backbone = registry["eosfm_ensemble"](
        zoo=str(tiny_zoo), bands=BANDS, normalised="mean-std", means=means, stds=stds, leave_out=["s2-six"]
    ).train()
    maps = backbone(torch.randn(2, 3, 64, 64))
    assert [m.shape[1] for m in maps] == backbone.out_channels == [40, 80, 160, 320]
    sum(m.sum() for m in maps).backward()
    assert {n.split(".")[2] for n, p in backbone.named_parameters() if p.grad is not None} == {"convs"}
    assert not any(m.training for e in backbone.ensemble.encoders for m in e.modules())


def test_means_and_stds_go_together(tiny_zoo):
    with pytest.raises(ConfigError, match="mean and std"):
        eosfm_ensemble(str(tiny_zoo), BANDS, normalised="mean-std")
    with pytest.raises(ConfigError, match="means, stds"):
        eosfm_ensemble(str(tiny_zoo), BANDS, normalised="none", means=[1.0, 2.0, 3.0])


CONFIG = """
seed_everything: 0
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_progress_bar: false
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: {out}/ckpt, save_last: true, save_top_k: 1}}
data:
  class_path: GenericNonGeoSegmentationDataModule
  init_args:
    batch_size: 2
    num_workers: 0
    num_classes: 2
    train_data_root: {out}/images
    train_label_data_root: {out}/labels
    val_data_root: {out}/images
    val_label_data_root: {out}/labels
    test_data_root: {out}/images
    test_label_data_root: {out}/labels
    img_grep: "*.tif"
    label_grep: "*.tif"
    dataset_bands: [RED, GREEN, BLUE]
    output_bands: [RED, GREEN, BLUE]
    rgb_indices: [0, 1, 2]
    no_data_replace: 0
    means: [900, 800, 700]
    stds: [500, 400, 300]
model:
  class_path: terratorch.tasks.SemanticSegmentationTask
  init_args:
    model_factory: EncoderDecoderFactory
    loss: ce
    ignore_index: -1
    lr: 1.0e-3
    freeze_backbone: {freeze}
    model_args:
      backbone: eosfm_ensemble
      backbone_zoo: {zoo}
      backbone_bands: sentinel-2-l2a:B04,B03,B02@dn-1e4
      backbone_normalised: mean-std
      backbone_means: [900, 800, 700]
      backbone_stds: [500, 400, 300]
      backbone_fusion: {fusion}
      decoder: UperNetDecoder
      decoder_channels: 32
      num_classes: 2
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)  # importing TerraTorch alone takes half a minute
@pytest.mark.parametrize(("freeze", "fusion"), [("false", "conv1x1"), ("true", "concat")])
def test_the_real_terratorch_trains_tests_and_reloads(tiny_zoo, tmp_path, freeze, fusion):
    """``terratorch fit`` and ``terratorch test`` from a configuration file, where TerraTorch is installed."""
    if find_spec("terratorch") is None:
        pytest.skip("TerraTorch is not installed")
    rng = np.random.default_rng(0)
    for folder, count, dtype in (("images", 3, "float32"), ("labels", 1, "uint8")):
        (tmp_path / folder).mkdir()
        for i in range(4):
            pixels = rng.integers(100, 3000, (count, 64, 64)) if count == 3 else rng.integers(0, 2, (1, 64, 64))
            profile = {
                "driver": "GTiff",
                "width": 64,
                "height": 64,
                "count": count,
                "dtype": dtype,
                "crs": "EPSG:32631",
            }
            place = from_origin(500000, 5000000, 10, 10)
            with rasterio.open(tmp_path / folder / f"{i}.tif", "w", transform=place, **profile) as d:
                d.write(pixels.astype(dtype))
    (tmp_path / "custom_modules").mkdir()
    text = "from eosfm.outward.terratorch import register\n\nregister()\n"
    (tmp_path / "custom_modules" / "__init__.py").write_text(text)
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(out=tmp_path, zoo=tiny_zoo, freeze=freeze, fusion=fusion))
    last = tmp_path / "ckpt" / "last.ckpt"
    for words in (["fit"], ["test", "--ckpt_path", str(last)]):
        command = [str(Path(sys.executable).with_name("terratorch")), words[0], "-c", str(config), *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    state = torch.load(last, weights_only=True, map_location="cpu")["state_dict"]
    assert not any(".encoders." in k for k in state)
    assert "test/loss" in done.stdout + done.stderr
