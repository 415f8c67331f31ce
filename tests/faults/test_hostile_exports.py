"""Exports that were forged, scenes that do not fit, exports that were killed: refused in words, with nothing half written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

import eosfm
from eosfm import cli
from eosfm.bands import BandSet
from eosfm.config import to_plain
from eosfm.contracts import CorruptArtifact, ExportError
from eosfm.engine.exported import CARD, open_export
from eosfm.engine.runtime import FILES, INPUT
from eosfm.ensemble import Ensemble
from eosfm.files import sha256_file
from eosfm.inference.raster import georeference, write_scene
from eosfm.seeding import seeded
from eosfm.specialists.card import digest_of
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from helpers import TINY, full_disk, image, make_specialist, statistics_of, tree

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")
PLACE = georeference("EPSG:32631", 500_000.0, 4_800_000.0, 10.0)
FORMATS = sorted(FILES)


def model(bands: BandSet = BANDS) -> TaskModel:
    ens = Ensemble([make_specialist("s2-rgb", TINY["s2-rgb"], 0)], bands, statistics=statistics_of(bands)).eval()
    task = TaskSpec(
        kind="segmentation",
        classes=("a", "b"),
        chip_size=32,
        colours=("#000000", "#ffffff"),
        head=HeadConfig(decoder="linear", channels=8),
    )
    with seeded(1):
        return TaskModel(ens, task).eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Exports of a model of 32-pixel chips, and a scene that fits."""
    root = tmp_path_factory.mktemp("exports")
    for form in FORMATS:
        eosfm.export(model(), root / form, format=form)
    write_scene(root / "scene.tif", image(BANDS, 1, (70, 45))[0].numpy(), BANDS, PLACE)
    return root


@pytest.fixture
def forged(place, tmp_path):
    """``forged(form, **changes)``: a copy whose card says something else and has the right digest."""

    def make(form: str = "onnx", **changes) -> Path:
        folder = tmp_path / "forged"
        shutil.copytree(place / form, folder)
        card = json.loads((folder / CARD).read_text()) | changes
        card["digest"] = digest_of(card)
        (folder / CARD).write_text(json.dumps(card))
        return folder

    return make


def call(monkeypatch, capsys, *words) -> tuple[int, str]:
    """What ``eosfm words`` exits with and says on stderr."""
    monkeypatch.setattr(sys, "argv", ["eosfm", *map(str, words)])
    with pytest.raises(SystemExit) as e:
        cli.main()
    return int(e.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [(32, 32), (64, 96), (1, 1), (33, 70)])
def test_a_model_of_the_smallest_chips_gives_the_same_in_every_runtime(place, form, size):
    """PyTorch takes a side of one block for a fixed one, so small models need care."""
    x = image(BANDS, 3, size)
    with torch.inference_mode():
        want = model()(x)
    [got] = open_export(place / form)(x)
    assert got.shape == want.shape == (3, 2, *size)
    assert float((got - want).norm() / want.norm()) < 1e-4


CARDS = {
    "an absurd chip": ({"chip_size": 32 * 10**9}, "at most 8192"),
    "a chip of nothing": ({"chip_size": 0}, "expected a multiple of 32"),
    "statistics of other bands": (
        {"statistics": {"mean": [1.0], "std": [1.0]}},
        "statistics of 1 channels for 3 bands",
    ),
    "no spread": ({"statistics": {"mean": [1.0] * 3, "std": [0.0] * 3}}, "above 0"),
    "colours that are none": ({"colours": ["red", "green"]}, "expected one '#rrggbb'"),
    "a colour too few": ({"colours": ["#000000"]}, "expected one '#rrggbb'"),
    "classes and outputs": ({"classes": ["a"], "colours": []}, "1 classes, but outputs"),
    "one class twice": ({"classes": ["a", "a"]}, "twice"),
    "another stride": ({"outputs": [{"name": "logits", "channels": 2, "stride": 4}]}, "of segmentation stride 1"),
    "a stride of 0": ({"outputs": [{"name": "logits", "channels": 2, "stride": 0}]}, "of segmentation stride 1"),
    "another task": ({"kind": "classification"}, "of classification stride None"),
    "endless features": (
        {"kind": "features", "classes": [], "colours": [], "outputs": [{"name": "x", "channels": 10**12, "stride": 4}]},
        "expected 1 to 65535",
    ),
    "a band twice": ({"bands": ["sentinel-2-l2a:B04@dn-1e4"] * 3}, "duplicate band"),
    "no bands": ({"bands": [], "statistics": None}, "bands"),
    "another version's field": ({"colour_space": "RGB"}, "Export the model again"),
    "a list": ({"versions": []}, "versions"),
}


@pytest.mark.parametrize("what", CARDS)
def test_a_card_that_contradicts_itself_is_refused_whatever_its_digest_says(
    place, forged, tmp_path, monkeypatch, capsys, what
):
    changes, says = CARDS[what]
    folder = forged(**changes)
    code, err = call(monkeypatch, capsys, "predict", folder, place / "scene.tif", tmp_path / "m.tif")
    assert code == 2 and says in err and "Traceback" not in err, err
    assert str(folder / CARD) in err
    assert not list(tmp_path.glob("m.tif*"))


def graph(folder: Path, build) -> None:
    """Put another graph into ``folder`` and make the card agree."""
    import onnx

    x = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["b", 3, "h", "w"])
    y = onnx.helper.make_tensor_value_info("logits", build[1], None)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(build[0](onnx.helper.make_node), "g", [x], [y]),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.save(made, folder / "model.onnx")
    card = read_export_card_unchecked(folder)
    info = replace(
        card.files[0],
        sha256=sha256_file(folder / "model.onnx"),
        bytes=(folder / "model.onnx").stat().st_size,
    )
    (folder / CARD).write_text(json.dumps(to_plain(replace(card, files=(info,)).sealed())))


def read_export_card_unchecked(folder: Path):
    from eosfm.config import read_record
    from eosfm.engine.exported import ExportCard

    return read_record(ExportCard, json.loads((folder / CARD).read_text()), "card")


GRAPHS = {
    "too many channels": ((lambda n: [n("Identity", [INPUT], ["logits"])], 1), CorruptArtifact, "promises"),
    "a vector": (
        (lambda n: [n("GlobalAveragePool", [INPUT], ["p"]), n("Flatten", ["p"], ["logits"])], 1),
        CorruptArtifact,
        "promises",
    ),
    "integers": ((lambda n: [n("Shape", [INPUT], ["logits"])], 7), CorruptArtifact, "promises"),
    "one that fails": (
        (lambda n: [n("Shape", [INPUT], ["s"]), n("Reshape", [INPUT, "two"], ["logits"])], 1),
        ExportError,
        "the runtime failed",
    ),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_a_graph_that_does_not_give_what_the_card_promises_is_refused(place, forged, tmp_path, what):
    import onnx

    build, error, says = GRAPHS[what]
    folder = forged()
    if what == "one that fails":  # its sizes cannot be, which shows when it runs

        def nodes(n):
            two = onnx.numpy_helper.from_array(np.array([7, 7], np.int64), "two")
            return [n("Constant", [], ["two"], value=two), n("Reshape", [INPUT, "two"], ["logits"])]

        build = (nodes, 1)
    graph(folder, build)
    with pytest.raises(error, match=says):
        open_export(folder)(image(BANDS, 1, 32))


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_graph_with_the_right_hash_is_refused_or_runs(forged, seed):
    """Bytes of the first names and nodes: the runtime's own errors, of whatever class, never reach a user bare."""
    folder = forged()
    data, draw = bytearray((folder / "model.onnx").read_bytes()), np.random.default_rng(seed)
    data[draw.integers(60, 110 if seed < 6 else 3000)] = draw.integers(128, 256)
    (folder / "model.onnx").write_bytes(data)
    card = read_export_card_unchecked(folder)
    info = replace(card.files[0], sha256=sha256_file(folder / "model.onnx"))
    (folder / CARD).write_text(json.dumps(to_plain(replace(card, files=(info,)).sealed())))
    with suppress(CorruptArtifact, ExportError):
        open_export(folder)(image(BANDS, 1, 32))


def test_another_model_s_graph_is_refused(place, forged):
    folder = forged("openvino")
    shutil.copy(place / "onnx" / "model.onnx", folder / "model.bin")
    with pytest.raises(CorruptArtifact, match="its card says"):
        open_export(folder)
    shutil.rmtree(folder)
    folder = forged("onnx", format="openvino")
    with pytest.raises(CorruptArtifact, match="expected"):
        open_export(folder)


def other_bands(path: Path) -> None:
    write_scene(path, image(TINY["s1-sar"], 1, 64)[0].numpy()[:2], BandSet.parse("sentinel-1:VV,VH@db"), PLACE)


def nothing_said(path: Path) -> None:
    size = {"count": 3, "height": 40, "width": 40, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", transform=PLACE.transform, crs=PLACE.crs, **size) as f:
        f.write(np.ones((3, 40, 40), np.float32))


SCENES = {
    "other bands": (other_bands, "lacks"),
    "a unit of another quantity": (
        lambda p: write_scene(
            p, image(BANDS, 1, 64)[0].numpy(), BandSet.parse("sentinel-2-l2a:B04,B03,B02@8bit"), PLACE
        ),
        "8bit",
    ),
    "no band names": (nothing_said, "band"),
    "not a raster": (lambda p: p.write_text("hello"), "is not a GeoTIFF"),
    "empty": (lambda p: p.touch(), "the file is empty"),
    "a folder": (Path.mkdir, "cannot open"),
    "missing": (lambda p: None, "cannot open"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", SCENES)
def test_a_scene_that_does_not_fit_an_export_is_refused(place, tmp_path, monkeypatch, capsys, form, what):
    make, says = SCENES[what]
    make(tmp_path / "s.tif")
    code, err = call(monkeypatch, capsys, "predict", place / form, tmp_path / "s.tif", tmp_path / "m.tif")
    assert code == 2 and says in err and "Traceback" not in err, err
    assert not list(tmp_path.glob("m.tif*"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", ["one pixel", "nothing valid", "infinite", "degrees"])
def test_odd_scenes_give_maps_with_nodata_where_nothing_is(place, tmp_path, form, what):
    x = image(BANDS, 1, 1 if what == "one pixel" else 40)[0].numpy()
    where = georeference("EPSG:4326", 3.0, 43.0, 1e-4) if what == "degrees" else PLACE
    x[:, :20] = {"nothing valid": np.nan, "infinite": np.inf}.get(what, x[:, :20])
    if what == "nothing valid":
        x[:] = np.nan
    write_scene(tmp_path / "s.tif", x, BANDS, where)
    from eosfm.commands_scene import predict

    predict(place / form, tmp_path / "s.tif", tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as f:
        assert ((f.read(1) == 255) == ~np.isfinite(x).all(0)).all() and f.crs == where.crs


def script(place: Path, form: str, *words) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, place / form / "infer.py", *map(str, words)], capture_output=True, text=True, check=False
    )


def turned_around(path: Path) -> None:
    write_scene(path, image(BANDS, 1, 64)[0].numpy(), BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4"), PLACE)


def described_in_another_order(path: Path) -> None:
    nothing_said(path)
    with rasterio.open(path, "r+") as f:
        f.descriptions = ("B02", "B03", "B04")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (turned_around, "expected sentinel-2-l2a:B04@dn-1e4, sentinel-2-l2a:B03"),
        (described_in_another_order, "in this order and unit"),
        (lambda p: p.write_text("hello"), "expected a GeoTIFF"),
        (lambda p: None, "expected a GeoTIFF"),
    ],
)
def test_the_script_refuses_what_would_be_a_wrong_map(place, tmp_path, make, says):
    make(tmp_path / "s.tif")
    (tmp_path / "m.tif").write_text("mine")
    done = script(place, "onnx", tmp_path / "s.tif", tmp_path / "m.tif")
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "m.tif").read_text() == "mine" and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("form", FORMATS)
def test_the_script_says_how_to_call_it_and_destroys_nothing(place, tmp_path, form):
    scene = shutil.copy(place / "scene.tif", tmp_path / "s.tif")
    before = tree(tmp_path)
    for words, says in (
        ((), "usage"),
        ((scene,), "usage"),
        ((scene, scene), "not the scene itself"),
        ((scene, tmp_path / "no" / "m.tif"), "a folder that is there"),
        ((scene, tmp_path), "cannot write"),
    ):
        done = script(place, form, *words)
        assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert tree(tmp_path) == before and not list(tmp_path.glob(".*"))


def test_an_export_that_cannot_be_written_leaves_what_was_there(place, tmp_path):
    from eosfm.files import OutputError

    shutil.copytree(place / "onnx", tmp_path / "x")
    before = tree(tmp_path)
    for form in FORMATS:
        with full_disk(100_000), pytest.raises(OutputError, match="cannot write"):
            eosfm.export(model(), tmp_path / "x", format=form, overwrite=True)
        assert tree(tmp_path) == before and [p.name for p in tmp_path.iterdir()] == ["x"], form
    for where in (Path("/proc/x"), tmp_path / "x" / CARD / "below"):
        with pytest.raises(OutputError, match="cannot write"):
            eosfm.export(model(), where, format="onnx")
    with pytest.raises(OutputError, match="exists already"):
        eosfm.export(model(), tmp_path / "x", format="onnx")


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from test_hostile_exports import model
import eosfm
print("go", flush=True)
eosfm.export(model(), sys.argv[1], format="onnx", overwrite=True)
"""


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_the_old_one(place, tmp_path):
    shutil.copytree(place / "onnx", tmp_path / "x")
    here = Path(__file__).parent
    for seconds in (0.0, 0.5, 1.5, 3.0, 5.0):
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path / "x", here],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(here.parent)])},
        )
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(seconds)
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["x"]
        open_export(tmp_path / "x")(image(BANDS, 1, 32))
