"""Exports: what a runtime gives is what PyTorch gives, at any size; without PyTorch; and nobody's folder is trusted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
import yaml

import eosfm
from eosfm import cli, commands_export, commands_scene
from eosfm.bands import BandSet
from eosfm.config import to_plain
from eosfm.contracts import BandError, ConfigError, CorruptArtifact, ExportError
from eosfm.engine import export as exporting
from eosfm.engine.exported import CARD, open_export, read_export_card
from eosfm.engine.runtime import FILES
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError, sha256_file
from eosfm.fusion.fuse import FUSIONS
from eosfm.inference.raster import georeference, write_scene
from eosfm.seeding import seeded
from eosfm.specialists.card import DataInfo, TrainingInfo
from eosfm.specialists.encoder import untrained_encoder
from eosfm.specialists.store import save_specialist
from eosfm.specialists.zoo import find
from eosfm.statistics import BandStatistics
from eosfm.tasks.decoders import DECODERS
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.scene import SceneExport
from eosfm.tasks.stored import save_task_model
from helpers import TINY, image, make_specialist, statistics_of

HLS = "hls:all@reflectance"
PLACE = georeference("EPSG:32631", 500_000.0, 4_800_000.0, 30.0)
DATA = {"data": {"kind": "synthetic", "task": "burn-scars", "bands": HLS, "size": [4, 4, 4], "chip_size": 32}}
FORMATS = sorted(FILES)


def ensemble(names=("s2-rgb", "s2-six"), bands=HLS, rules=("common-names", "true-colour"), **changes) -> Ensemble:
    b = BandSet.parse(bands)
    specialists = [make_specialist(n, TINY[n], i) for i, n in enumerate(names)]
    return Ensemble(specialists, b, statistics=statistics_of(b), rules=rules, **changes).eval()


def task_model(ens, decoder="upernet", kind="segmentation", classes=("unburnt", "burnt")) -> TaskModel:
    task = TaskSpec(kind=kind, classes=classes, chip_size=64, head=HeadConfig(decoder=decoder, channels=16))
    with seeded(1):
        return TaskModel(ens, task).eval()


@pytest.fixture(scope="module")
def model() -> TaskModel:
    return task_model(ensemble(), "linear")


@pytest.fixture(scope="module")
def place(model, tmp_path_factory):
    """A folder with a zoo, a stored task model, and an export of it for every runtime."""
    root = tmp_path_factory.mktemp("export")
    for i, name in enumerate(("s2-rgb", "s2-six")):
        save_specialist(*make_specialist(name, TINY[name], i), root / "zoo")
    # the stored model's references must be those of the zoo's cards
    model.encoder.cards = [e.card for e in find(root / "zoo")]
    nobody = DataInfo(name="noise", licence="CC0-1.0")
    save_task_model(model, root / "model", root / "zoo", name="burn", data=nobody, training=TrainingInfo())
    (root / "data.yaml").write_text(yaml.safe_dump(DATA))
    done = commands_export.export(root / "model", to=root / "openvino", data=root / "data.yaml")
    (root / "said.json").write_text(json.dumps({"table": done.table, "lines": done.lines}))
    eosfm.export(model, root / "onnx", format="onnx")
    pixels = image(HLS, 1, (128, 192))[0].numpy()
    pixels[:, :20, :30] = np.nan
    write_scene(root / "scene.tif", pixels, BandSet.parse(HLS), PLACE)
    return root


@pytest.mark.parametrize("form", FORMATS)
def test_any_size_and_batch_with_holes(place, model, form):
    exported = open_export(place / form)
    for n, size in ((1, (32, 32)), (3, (96, 160)), (2, (50, 33))):
        x = image(HLS, n, size)
        x[0, :, 3:9, 5:20], x[-1, 0, 0, 0] = float("nan"), float("inf")
        with torch.inference_mode():
            want = model(x)
        [got] = exported(x)
        assert got.shape == want.shape == (n, 2, *size)
        assert float((got - want).norm() / want.norm()) < 1e-4
    with pytest.raises(BandError, match="expected"):
        exported(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("form", FORMATS)
def test_the_folder_says_what_it_is(place, model, form):
    names = {"model.json", "parity.json", "infer.py", *FILES[form]}
    assert {p.name for p in (place / form).iterdir()} == names
    assert not list(place.glob(".*")), "temporary files are left"
    card = read_export_card(place / form)
    assert card.bandset() == model.encoder.bands and card.classes == model.task.classes
    assert (card.kind, card.chip_size, card.multiple_of, card.precision) == ("segmentation", 64, 32, "fp32")
    assert [s.name for s in card.specialists] == ["s2-rgb", "s2-six"]
    parity = json.loads((place / form / "parity.json").read_text())
    [logits] = parity["agreement"]
    assert logits["relative"] < 1e-4 and logits["cosine"] > 0.9999 and logits["argmax"] > 0.999
    assert len({tuple(s) for s in parity["inputs"]}) >= 3
    for name in FILES[form]:
        assert b"/site-packages/" not in (place / form / name).read_bytes(), "a path of this machine"


def test_labelled_data_are_scored_before_and_after(place):
    said = json.loads((place / "said.json").read_text())
    parity = json.loads((place / "openvino" / "parity.json").read_text())
    assert parity["before"].keys() == parity["after"].keys() >= {"miou", "accuracy"}
    assert parity["before"] == pytest.approx(parity["after"], abs=1e-3)
    assert [4, 6, 32, 32] in parity["inputs"], "the test chips were compared, too"
    assert said["table"][0][0] == "output" and said["table"][1][0] == "logits"
    assert any(line.startswith("miou: ") for line in said["lines"])


def read(path):
    with rasterio.open(path) as f:
        return f.read(), f.profile


@pytest.mark.parametrize("form", FORMATS)
def test_the_map_is_that_of_pytorch(place, tmp_path, form):
    scene = place / "scene.tif"
    commands_scene.predict(place / "model", scene, tmp_path / "torch.tif", probabilities=True)
    commands_scene.predict(place / form, scene, tmp_path / "map.tif", engine=form, probabilities=True)
    (a, one), (b, two) = read(tmp_path / "torch.tif"), read(tmp_path / "map.tif")
    assert one["transform"] == two["transform"] and one["crs"] == two["crs"]
    assert (a == b).mean() > 0.999 and (b[:, :20, :30] == 255).all()
    p, q = read(tmp_path / "torch_probabilities.tif")[0], read(tmp_path / "map_probabilities.tif")[0]
    np.testing.assert_allclose(p, q, atol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_the_script_needs_neither_eosfm_nor_torch(place, tmp_path, form):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import sys\nfor m in ('torch', 'eosfm', 'timm'):\n    sys.modules[m] = None\n"
    )
    command = [sys.executable, place / form / "infer.py", place / "scene.tif", tmp_path / "map.tif"]
    env = {**os.environ, "PYTHONPATH": str(blocked), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # tiles of 64 pixels fit into 128 x 192, so without overlap eosfm sees the same tiles
    commands_scene.predict(place / "model", place / "scene.tif", tmp_path / "ours.tif", overlap=0)
    (got, profile), (want, other) = read(tmp_path / "map.tif"), read(tmp_path / "ours.tif")
    assert (got == want).mean() > 0.999
    assert (profile["transform"], profile["crs"], profile["nodata"]) == (other["transform"], other["crs"], 255)
    write_scene(tmp_path / "rgb.tif", np.zeros((3, 64, 64), np.float32), BandSet.parse(TINY["s2-rgb"]), PLACE)
    done = subprocess.run(
        [*command[:2], tmp_path / "rgb.tif", tmp_path / "no.tif"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 1 and "has 3 bands; expected hls:" in done.stderr and not (tmp_path / "no.tif").exists()


def test_the_engine_must_be_that_of_the_folder(place, tmp_path):
    scene, target = place / "scene.tif", tmp_path / "m.tif"
    with pytest.raises(ConfigError, match=r"eosfm export .*model --to .*model-openvino --format openvino"):
        commands_scene.predict(place / "model", scene, target, engine="openvino")
    with pytest.raises(ConfigError, match="is an export for onnx; leave --engine out"):
        commands_scene.predict(place / "onnx", scene, target, engine="torch")
    with pytest.raises(ConfigError, match="known: torch, onnx, openvino"):
        commands_scene.predict(place / "model", scene, target, engine="tensorrt")
    with pytest.raises(ConfigError, match="leave --zoo and --precision out"):
        commands_scene.predict(place / "onnx", scene, target, zoo=place / "zoo")
    with pytest.raises(ConfigError, match="a task's maps, which `eosfm predict` writes"):
        commands_scene.embed(place / "onnx", scene, target)
    assert not target.exists()


def edited(folder, **changes):
    """Change the card as an editor would."""
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


def resealed(folder, **changes):
    """Change the card and its digest, as somebody who means it would."""
    card = replace(read_export_card(folder), **changes).sealed()
    (folder / CARD).write_text(json.dumps(to_plain(card)))


def with_new_hashes(folder, card):
    files = tuple(
        replace(f, sha256=sha256_file(folder / f.file), bytes=(folder / f.file).stat().st_size) for f in card.files
    )
    (folder / CARD).write_text(json.dumps(to_plain(replace(card, files=files).sealed())))


def other_unit(folder):
    edited(folder, bands=[b.replace("reflectance", "dn-1e4") for b in read_export_card(folder).bands])


def other_weights(folder):
    file = folder / FILES[read_export_card(folder).format][-1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def fewer_bands(folder):
    card = read_export_card(folder)
    resealed(folder, bands=card.bands[:3], statistics=None)


def another_output(folder):
    resealed(folder, outputs=(replace(read_export_card(folder).outputs[0], name="other"),))


def elsewhere(folder):
    (folder / CARD).write_text((folder / CARD).read_text().replace('"model.', '"../model.'))


def rubbish(folder):
    card = read_export_card(folder)
    first = FILES[card.format][0]
    (folder / first).write_bytes(b"<net></net>" if card.format == "openvino" else b"\x08\x0a\x12\x04rubbish")
    with_new_hashes(folder, card)


def a_link(folder):
    file = folder / FILES[read_export_card(folder).format][0]
    file.rename(folder / "real")
    file.symlink_to(folder / "real")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (other_unit, "was edited after eosfm wrote it"),
        (other_weights, "its card says"),
        (fewer_bands, "reads 6 channels"),
        (another_output, "gives logits"),
        (elsewhere, "expected"),
        (rubbish, "cannot read it"),
        (a_link, "not a plain file"),
        (lambda f: (f / CARD).write_text("{"), "not a valid JSON file"),
        (lambda f: (f / FILES[read_export_card(f).format][0]).unlink(), "missing"),
    ],
)
def test_a_folder_that_was_changed_is_refused(place, tmp_path, form, damage, says):
    shutil.copytree(place / form, tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(CorruptArtifact, match=says):
        commands_scene.predict(tmp_path / "x", place / "scene.tif", tmp_path / "m.tif")
    assert not (tmp_path / "m.tif").exists()


def test_an_onnx_graph_cannot_read_other_files(place, tmp_path):
    """Weights kept outside, in a file that the graph names, are not looked for."""
    import onnx

    shutil.copytree(place / "onnx", tmp_path / "x")
    card = read_export_card(tmp_path / "x")
    graph = onnx.load(tmp_path / "x" / "model.onnx")
    onnx.save(graph, tmp_path / "x" / "model.onnx", save_as_external_data=True, location="weights.bin")
    with_new_hashes(tmp_path / "x", card)
    with pytest.raises(CorruptArtifact, match="cannot read it"):
        open_export(tmp_path / "x")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "int8"}, "int8 needs calibration"),
        ({"precision": "bf16", "format": "onnx"}, "use format openvino"),
        ({"precision": "fp16"}, "known: bf16, fp32, int8"),
        ({"format": "tflite"}, "known: onnx, openvino"),
        ({"calibration": torch.zeros(1, 6, 32, 32)}, "leave it out"),
        ({"chip_size": 50}, "multiple of 32"),
    ],
)
def test_what_cannot_be_exported(model, tmp_path, options, says):
    with pytest.raises(ConfigError, match=says):
        eosfm.export(model, tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


def test_only_ensembles_of_specialists_are_exported(model, tmp_path):
    with pytest.raises(ConfigError, match="not a ConvNeXtV2Atto"):
        eosfm.export(TaskModel(untrained_encoder(3, 0), model.task), tmp_path / "x")


def test_bf16_keeps_raw_values_apart_and_an_export_that_is_off_leaves_nothing(tmp_path, monkeypatch):
    """Digital numbers around 10000 that differ by tens: bf16 has 8 bits and would make one number of them."""
    bands = "sentinel-2-l2a:B04,B03,B02@dn-1e4"
    encoder, card = make_specialist("rgb", bands, 0)
    card = replace(card, statistics=BandStatistics(mean=(10000.0,) * 3, std=(100.0,) * 3))
    ens = Ensemble([(encoder, card)], BandSet.parse(bands), statistics=card.statistics, fusion="concat").eval()
    report = eosfm.export(ens, tmp_path / "x", precision="bf16", chip_size=32)
    assert all(a.cosine > 0.999 and a.relative < 0.05 for a in report.agreement)
    weights = sum(p.numel() for p in ens.parameters())
    assert 2 * weights < (tmp_path / "x" / "model.bin").stat().st_size < 2.3 * weights
    features = SceneExport(open_export(tmp_path / "x"), level=1)
    x = 10000 + 100 * torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert float(F.cosine_similarity(features.chips(x).flatten(), ens(x)[1].flatten(), 0)) > 0.999
    with pytest.raises(BandError, match="multiple of 32"):
        features.exported(x[..., :30])
    with pytest.raises(OutputError, match="exists already"):
        eosfm.export(ens, tmp_path / "x")
    before = (tmp_path / "x" / CARD).read_bytes()
    monkeypatch.setitem(exporting.TOLERANCE, "bf16", ("cosine", 1.1))
    with pytest.raises(ExportError, match=r"does not give what its source gives: cosine level_1 0\.9999"):
        eosfm.export(ens, tmp_path / "x", precision="bf16", chip_size=32, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x"] and (tmp_path / "x" / CARD).read_bytes() == before


def test_the_command_refuses_what_does_not_fit(place, tmp_path, monkeypatch, capsys):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["eosfm", "export", *map(str, args)])
        with pytest.raises(SystemExit) as e:
            cli.main()
        return e.value.code, capsys.readouterr().err

    out = ("--to", tmp_path / "x")
    for args, says in (
        ((place / "model", *out, "--precision", "int8"), "int8 needs calibration"),
        ((place / "model", *out, "data.root=/x"), "settings override those of a --data file"),
        ((place / "model", *out, "--bands", HLS), "leave --bands out"),
        ((place / "nothing", *out), "no such folder"),
        ((place / "model", *out, "--format", "tflite"), "known: onnx, openvino"),
        ((place / "model", *out, "--data", place / "data.yaml", "data.bands=hls:all@dn-1e4"), "the data are hls"),
    ):
        code, err = call(*args)
        assert code == 2 and says in err and "Traceback" not in err, err
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["segmentation", "classification", "multilabel", "regression"])
@pytest.mark.parametrize("decoder", sorted(DECODERS))
def test_every_head_in_every_runtime(tmp_path, form, kind, decoder):
    if kind in ("classification", "multilabel") and decoder != "linear":
        pytest.skip("heads of scenes have no decoder")
    # logarithms both ways and another modality
    ens = ensemble(("s1-sar", "s2-rgb"), "sentinel-2-l2a:B04,B03,B02@dn-1e4-offset-1000 + sentinel-1:VV,VH@linear")
    model = task_model(ens, decoder, kind)
    eosfm.export(model, tmp_path / "x", format=form)
    pixels = image(ens.bands, 1, (64, 128))[0].numpy()
    pixels[:, :20, :30] = np.nan
    write_scene(tmp_path / "s.tif", pixels, ens.bands, PLACE)
    done = subprocess.run(
        [sys.executable, tmp_path / "x" / "infer.py", tmp_path / "s.tif", tmp_path / "m.tif"], check=False
    )
    assert done.returncode == 0
    commands_scene.predict(tmp_path / "x", tmp_path / "s.tif", tmp_path / "ours.tif", overlap=0)
    np.testing.assert_allclose(read(tmp_path / "m.tif")[0], read(tmp_path / "ours.tif")[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_fusion_in_every_runtime(tmp_path, form, fusion):
    ens = ensemble(names=("s2-rgb",), rules=("true-colour", "infrared-red-green"), fusion=fusion, normalise="batch")
    eosfm.export(ens, tmp_path / "x", format=form)  # which compares
    pixels = image(HLS, 1, (64, 96))[0].numpy()
    write_scene(tmp_path / "s.tif", pixels, ens.bands, PLACE)
    commands_scene.embed(tmp_path / "x", tmp_path / "s.tif", tmp_path / "f.tif", level=2)
    assert read(tmp_path / "f.tif")[0].shape == (ens.out_channels[2], 4, 6)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_int8_is_calibrated_on_real_chips(place, tmp_path, form):
    more = {"data": place / "data.yaml", "overrides": ["data.size=[16,4,4]"]}
    done = commands_export.export(place / "model", to=tmp_path / "x", format=form, precision="int8", **more)
    size = {
        n: sum(f.stat().st_size for f in (n).iterdir() if f.name in FILES[form]) for n in (place / form, tmp_path / "x")
    }
    assert size[tmp_path / "x"] < 0.6 * size[place / form]
    [logits] = done.value.agreement
    assert 0.9 < logits.cosine < 1 and logits.relative > 1e-3, "it really is quantised"
    assert done.value.card.versions.keys() >= {"nncf", "torch"}


@pytest.mark.slow
def test_pruned_is_smaller(place, model, tmp_path):
    eosfm.export(model.pruned(["s2-rgb"]), tmp_path / "x", format="openvino")
    small, whole = ((f / "model.bin").stat().st_size for f in (tmp_path / "x", place / "openvino"))
    assert small < 0.6 * whole
    assert "s2-six" not in (tmp_path / "x" / CARD).read_text()
