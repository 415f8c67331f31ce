import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from inference_fakes import RGB, WHERE, Fake, Positional, classes, scene
from rasterio.windows import Window

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, EosfmError, RasterError
from eosfm.inference import parts
from eosfm.inference.predict import predict_scene
from eosfm.inference.raster import Georeference, write_scene
from helpers import full_disk

NAN = float("nan")
SIZES = [(1, 1), (31, 31), (33, 33), (64, 64), (65, 65), (100, 500)]


def run(model, source, output, **options):
    return predict_scene(model, source, output, **{"progress": False, **options})


def read(path):
    with rasterio.open(path) as f:
        return f.read()


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "dossier é 東"
    folder.mkdir()
    return folder / "scène 1.tif", folder / "carte 1.tif"


# ---------------------------------------------------------------- tiled == whole


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [None, 0, 24])
def test_pointwise_model_gives_the_whole_image_result(paths, size, overlap):
    pixels = scene(paths[0], *size)
    report = run(Fake(), *paths, overlap=overlap, block=50)
    whole = Fake().whole(torch.from_numpy(pixels)[None])[0].numpy()
    assert np.array_equal(read(paths[1]), whole)
    assert report.pixels == size[0] * size[1]
    assert report.valid_share == 1.0
    assert report.tile_disagreement in (None, 0.0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [4, 32])
def test_features_have_one_pixel_per_stride(paths, size, stride):
    pixels = scene(paths[0], *size)
    run(Fake(chip_size=64, stride=stride, kind="features"), *paths, block=100)
    rows, cols = -(-size[0] // stride), -(-size[1] // stride)
    padded = np.pad(pixels, ((0, 0), (0, rows * stride - size[0]), (0, cols * stride - size[1])), mode="edge")
    whole = Fake(stride=stride).whole(torch.from_numpy(padded)[None])[0].numpy()
    with rasterio.open(paths[1]) as f:
        assert f.shape == (rows, cols)
        assert np.allclose(f.read(), whole, atol=1e-6)
        assert f.descriptions == ("sum", "difference")
        assert f.crs == WHERE.crs
        assert f.transform == rasterio.Affine(10.0 * stride, 0, 500000.0, 0, -10.0 * stride, 4800000.0)


@pytest.mark.parametrize("kind", ["values", "classes"])
def test_block_and_batch_do_not_change_the_result(paths, kind):
    scene(paths[0], 130, 170, holes=[(slice(0, 50), slice(40, 90)), (slice(100, 101), slice(3, 4))])
    model = Positional(kind=kind)  # contradicts itself between tiles, so blending is seen
    results, reports = [], []
    for i, (block, batch) in enumerate([(24, 1), (60, 3), (100, 8), (4096, 2)]):
        output = paths[1].with_name(f"{i}.tif")
        reports.append(run(model, paths[0], output, overlap=8, block=block, batch_size=batch))
        results.append(read(output))
    for result, report in zip(results[1:], reports[1:], strict=True):
        assert np.array_equal(result, results[0], equal_nan=kind == "values")
        assert (report.tiles, report.skipped_tiles, report.class_shares) == (
            reports[0].tiles, reports[0].skipped_tiles, reports[0].class_shares,
        )  # fmt: skip
        assert report.tile_disagreement == pytest.approx(reports[0].tile_disagreement, rel=1e-6)
        assert report.split_share == reports[0].split_share
    assert reports[0].tile_disagreement > 0


def test_neighbouring_blocks_do_not_repeat_each_others_columns(paths):
    scene(paths[0], 32, 32 + 24 * 20)  # one row of 21 tiles
    model = Fake()
    run(model, *paths, overlap=8, block=48)
    assert sum(model.calls) == 21


def test_disagreement_is_measured(paths):
    scene(paths[0], 32, 56)  # two tiles, 8 columns of overlap: one says 24..31 there, the other 0..7
    report = run(Positional(), *paths, overlap=8)
    assert report.tiles == 2
    assert 4 < report.tile_disagreement <= 12  # up to half of 24 where the weights are equal
    assert report.split_share is None
    report = run(Positional(kind="classes"), *paths, overlap=8, overwrite=True)
    assert report.split_share == 1.0


# ---------------------------------------------------------------- nodata


@pytest.mark.parametrize(("nodata", "dtype"), [(0, "uint16"), (-9999, "float32"), (NAN, "float32")])
@pytest.mark.parametrize("kind", ["values", "classes"])
def test_nodata_out_is_exactly_nodata_in(paths, nodata, dtype, kind):
    holes = [(slice(0, 40), slice(0, 70)), (slice(77, 78), slice(33, 34)), (slice(20, 90), slice(100, 103))]
    bands = RGB if dtype == "float32" else BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")
    scene(paths[0], 100, 120, holes=holes, nodata=nodata, dtype=dtype, bands=bands)
    expected = np.zeros((100, 120), bool)
    for hole in holes:
        expected[hole] = True
    model = classes() if kind == "classes" else Fake()
    report = run(model, *paths, overlap=8, block=48)
    got = read(paths[1])
    assert np.array_equal((got == 255).all(0) if kind == "classes" else np.isnan(got).all(0), expected)
    assert report.valid_share == pytest.approx(1 - expected.mean())
    assert report.skipped_tiles > 0
    with rasterio.open(paths[1]) as f:
        assert np.array_equal(f.dataset_mask() == 0, expected)


def test_a_cell_is_nodata_only_if_all_its_pixels_are(paths):
    scene(paths[0], 64, 64, holes=[(slice(0, 4), slice(0, 4)), (slice(8, 12), slice(8, 11))])
    run(Fake(stride=4), *paths)
    assert np.isnan(read(paths[1])).all(0).nonzero() == (np.array([0]), np.array([0]))


def test_scene_without_a_valid_pixel_needs_no_model(paths):
    scene(paths[0], 100, 100, holes=[(slice(None), slice(None))])
    model = classes()
    report = run(model, *paths)
    assert (read(paths[1]) == 255).all()
    assert model.calls == []
    assert report.skipped_tiles == report.tiles
    assert (report.valid_share, report.tile_disagreement) == (0.0, None)
    assert set(report.class_shares.values()) == {0.0}


def test_sparse_scene_is_skipped_by_its_index(paths):
    profile = {"crs": WHERE.crs, "transform": WHERE.transform, "tiled": True, "sparse_ok": True, "bigtiff": "yes"}
    with rasterio.open(paths[0], "w", driver="GTiff", dtype="float32", count=3, height=6000, width=6000, nodata=NAN,
                       **profile) as f:  # fmt: skip
        f.write(np.ones((3, 40, 40), np.float32), window=Window(3000, 3000, 40, 40))
    report = run(classes(), *paths, bands=RGB)
    got = read(paths[1])
    assert (got != 255).sum() == 1600
    assert (got[0, 3000:3040, 3000:3040] != 255).all()
    assert report.tiles - report.skipped_tiles == 9  # starts 2976, 3000, 3024 along each axis


# ---------------------------------------------------------------- what is written


def test_class_map_is_a_cog_that_says_what_it_is(paths):
    pixels = scene(paths[0], 1030, 600)
    colours = [(0, 0, 255), (0, 255, 0), (9, 9, 9)]
    report = run(classes(), *paths, probabilities=True, colours=colours)
    whole = classes().whole(torch.from_numpy(pixels)[None])[0]
    with rasterio.open(paths[1]) as f:
        assert f.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert f.overviews(1) == [2, 4]
        assert (f.dtypes, f.nodata, f.shape) == (("uint8",), 255, (1030, 600))
        assert np.array_equal(f.read(1), whole.argmax(0))
        assert f.colormap(1)[1] == (0, 255, 0, 255)
        assert json.loads(f.tags()["EOSFM_CLASSES"]) == ["water", "land", "other"]
        assert f.tags()["EOSFM_MODEL"] == "fake-1"
        assert (f.crs, f.transform) == (WHERE.crs, WHERE.transform)
    with rasterio.open(paths[1].with_name("carte 1_probabilities.tif")) as f:
        assert f.descriptions == ("water", "land", "other")
        assert np.isnan(f.nodata)
        assert np.array_equal(f.read(), whole.numpy())
        assert f.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert report.outputs == (paths[1], paths[1].with_name("carte 1_probabilities.tif"))
    assert sum(report.class_shares.values()) == pytest.approx(1.0)
    assert len(list(paths[1].parent.iterdir())) == 3  # scene, map, probabilities: nothing left over


def test_rotated_and_unplaced_scenes(paths):
    rotated = Georeference(WHERE.crs, WHERE.transform * WHERE.transform.rotation(30))
    scene(paths[0], 40, 40, where=rotated)
    run(Fake(stride=4), *paths)
    with rasterio.open(paths[1]) as f:
        assert f.transform == rotated.transform * rasterio.Affine.scale(4)
    scene(paths[0], 40, 40, where=Georeference())
    with pytest.raises(RasterError, match="no CRS and no transform"):
        run(Fake(), *paths, overwrite=True)
    run(Fake(), *paths, overwrite=True, allow_no_crs=True)
    assert read(paths[1]).shape == (2, 40, 40)


def test_bands_are_mapped_converted_and_suspicious_units_reported(paths):
    bands = BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4")
    pixels = np.random.default_rng(0).uniform(0, 0.4, (3, 40, 40)).astype(np.float32)
    write_scene(paths[0], pixels, bands, WHERE)
    report = run(Fake(), *paths)
    assert np.allclose(read(paths[1])[1], (pixels[2] - pixels[0]) / 10000, atol=1e-8)
    assert len(report.warnings) == 3
    assert "would fit reflectance" in report.warnings[0]


def test_progress_bar_stays_off_stdout_and_files(paths, capfd):
    scene(paths[0], 40, 40)
    predict_scene(Fake(), *paths)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.strip() == ""  # transient, and stderr is no terminal here


# ---------------------------------------------------------------- refusals


def test_contradictions_are_config_errors(paths):
    scene(paths[0], 40, 40)
    bad = [
        (Fake(kind="maps"), {}, "known: classes, features, values"),
        (Fake(chip_size=40), {}, "multiple of 32"),
        (Fake(names=()), {}, "name each output"),
        (Fake(names=("a", "a")), {}, "name each output"),
        (Fake(kind="classes", names=tuple(map(str, range(256)))), {}, "at most 255"),
        (Fake(), {"probabilities": True}, "leave it out"),
        (Fake(), {"colours": [(0, 0, 0)]}, "none for a model of kind 'values'"),
        (classes(), {"colours": [(0, 0, 0)]}, "expected 3, one per class"),
        (classes(), {"colours": [(0, 0, 300)] * 3}, "0..255"),
        (Fake(), {"batch_size": 0}, "batch_size"),
        (Fake(), {"block": 0}, "block"),
        (Fake(), {"overlap": 32}, "overlap 32"),
        (Fake(), {"overlap": -1}, "gaps"),
        (Fake(stride=8), {"overlap": 4}, "multiple of the model's stride 8"),
    ]
    for model, options, says in bad:
        with pytest.raises(ConfigError, match=says):
            run(model, *paths, **options)
    assert [p.name for p in paths[0].parent.iterdir()] == [paths[0].name]


def test_a_model_that_breaks_its_promise_is_an_error_and_leaves_nothing(paths):
    class Wrong(Fake):
        def whole(self, x):
            return super().whole(x)[:, :, ::2]

    class Leaky(Fake):  # does not fill the invalid pixels: a real network would spread them everywhere
        def chips(self, x):
            return torch.stack([x.sum(1), x.mean((1, 2, 3), keepdim=True)[:, 0].expand(len(x), 32, 32)], 1)

    scene(paths[0], 40, 40, holes=[(slice(3, 4), slice(3, 4))])
    with pytest.raises(
        EosfmError, match=r"returned \(4, 2, 16, 32\).*promises \(4, 2, 32, 32\)|returned \(2, 2, 16, 32\)"
    ):
        run(Wrong(), *paths)
    with pytest.raises(EosfmError, match=r"NaN or infinity at \d+ valid pixels .* rows 0\.\.39"):
        run(Leaky(), *paths)
    assert [p.name for p in paths[0].parent.iterdir()] == [paths[0].name]


def test_out_of_memory_says_what_to_do_and_the_rest_resumes(paths):
    class Greedy(Fake):
        def chips(self, x):
            if len(self.calls) > 3 and len(x) > 1:
                raise torch.OutOfMemoryError
            return super().chips(x)

    scene(paths[0], 100, 100)
    model = Greedy()
    with pytest.raises(EosfmError, match="smaller batch_size"):
        run(model, *paths, overlap=8, block=48, batch_size=2)
    assert paths[1].with_name(paths[1].name + ".part").exists()
    run(model, *paths, overlap=8, block=48, batch_size=1)
    assert not paths[1].with_name(paths[1].name + ".part").exists()


def test_existing_output_is_refused_and_replaced_only_when_asked(paths):
    scene(paths[0], 40, 40)
    paths[1].write_text("precious")
    with pytest.raises(RasterError, match=r"carte 1\.tif exists.*--overwrite"):
        run(Fake(), *paths)
    assert paths[1].read_text() == "precious"
    run(Fake(), *paths, overwrite=True)
    assert read(paths[1]).shape == (2, 40, 40)


def test_existing_probabilities_are_refused_before_work(paths):
    scene(paths[0], 40, 40)
    paths[1].with_name("carte 1_probabilities.tif").write_text("precious")
    model = classes()
    with pytest.raises(RasterError, match=r"probabilities\.tif exists"):
        run(model, *paths, probabilities=True)
    assert model.calls == []
    assert len(list(paths[0].parent.iterdir())) == 2


def test_scene_is_never_overwritten_by_its_own_map(paths):
    scene(paths[0], 40, 40)
    before = paths[0].read_bytes()
    with pytest.raises(RasterError, match="is the scene itself"):
        run(Fake(), paths[0], paths[0], overwrite=True)
    assert paths[0].read_bytes() == before


@pytest.mark.parametrize("output", ["none/map.tif", "/proc/map.tif", "."])
def test_unwritable_folder_is_a_clear_error(paths, output):
    scene(paths[0], 40, 40)
    with pytest.raises(RasterError, match=r"cannot write .*writable|is a folder"):
        run(Fake(), paths[0], paths[0].parent / output)


@pytest.mark.parametrize("limit", [3_000, 200_000])
def test_full_disk_keeps_the_previous_map_and_the_finished_blocks(paths, limit):
    """Blocks of 48 x 48 x 3 floats take 28 kB each: the first limit stops them, the second the final file."""
    scene(paths[0], 300, 300)
    paths[1].write_text("previous")
    with full_disk(limit), pytest.raises(RasterError, match=r"[Ff]ull|space"):
        run(classes(), *paths, overlap=8, block=48, probabilities=True, overwrite=True)
    assert paths[1].read_text() == "previous"
    part = paths[1].with_name(paths[1].name + ".part")
    assert not list(part.glob("*.tif*")) if limit > 28_000 else not part.exists()
    model = classes()
    run(model, *paths, overlap=8, block=48, probabilities=True, overwrite=True)
    assert bool(model.calls) is (limit < 28_000)  # with room again, finished blocks are not computed again
    assert read(paths[1]).shape == (1, 300, 300)


def test_damaged_scene_fails_with_its_window_and_no_output(paths):
    scene(paths[0], 600, 600)
    paths[0].write_bytes(paths[0].read_bytes()[:-200_000])
    with pytest.raises(RasterError, match=r"scène 1\.tif at rows \d+\.\.\d+, columns"):
        run(Fake(), *paths)
    assert not paths[1].exists()


# ---------------------------------------------------------------- killed, resumed, contested


def start(paths, delay):
    """A process that makes the class map with `delay` seconds per model call."""
    script = Path(__file__).with_name("inference_fakes.py")
    return subprocess.Popen([sys.executable, str(script), *map(str, paths), str(delay)])


def wait_for_blocks(part, count, process):
    end = time.monotonic() + 60
    while len(list(part.glob("*.map.npy"))) < count:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def test_killed_run_leaves_no_map_and_resumes_to_the_same_bytes(paths, tmp_path):
    scene(paths[0], 300, 250, holes=[(slice(0, 60), slice(0, 60))])
    options = {"overlap": 8, "block": 48, "batch_size": 2, "probabilities": True}
    straight = tmp_path / "straight.tif"
    expected = run(classes(), paths[0], straight, **options)
    all_calls = classes()
    run(all_calls, paths[0], straight, **options, overwrite=True)

    part = paths[1].with_name(paths[1].name + ".part")
    process = start(paths, 0.05)
    wait_for_blocks(part, 7, process)
    with pytest.raises(RasterError, match=r"another process is writing .*carte 1\.tif"):
        run(classes(), *paths, **options)
    with pytest.raises(RasterError, match="another process"):
        run(classes(), *paths, **options, overwrite=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not paths[1].exists()
    with (part / "journal.jsonl").open("a") as f:
        f.write('{"block": 9, "sta')  # torn by the crash
    finished = len(list(part.glob("*.map.npy")))

    for change, says in [({"overlap": 16}, r"overlap \(was 8, now 16\)"), ({"nodata": 5}, "nodata")]:
        with pytest.raises(RasterError, match=f"unfinished job that differs in.*{says}.*--overwrite"):
            run(classes(), *paths, **{**options, **change})
    with pytest.raises(RasterError, match=r"model \(was 'fake-1', now 'fake-2'\)"):
        run(classes(fingerprint="fake-2"), *paths, **options)

    resumed = classes()
    report = run(resumed, *paths, **options)
    assert finished >= 7 and 0 < sum(resumed.calls) < sum(all_calls.calls)
    assert paths[1].read_bytes() == straight.read_bytes()
    beside = "{}_probabilities.tif"
    assert (paths[1].with_name(beside.format("carte 1"))).read_bytes() == (
        tmp_path / beside.format("straight")
    ).read_bytes()
    for name in ("tiles", "skipped_tiles", "valid_share", "class_shares", "tile_disagreement", "split_share"):
        assert getattr(report, name) == getattr(expected, name)
    assert not part.exists()


def test_overwrite_replaces_the_blocks_of_another_job(paths):
    class Killed(Fake):
        def chips(self, x):
            if len(self.calls) > 3:
                raise KeyboardInterrupt
            return super().chips(x)

    scene(paths[0], 100, 100)
    with pytest.raises(KeyboardInterrupt):
        run(Killed(), *paths, overlap=8, block=48)
    part = paths[1].with_name(paths[1].name + ".part")
    assert list(part.glob("*.npy"))
    os.utime(paths[0])  # the scene changed: its old blocks may not be used
    with pytest.raises(RasterError, match="source_modified_ns"):
        run(Fake(), *paths, overlap=8, block=48)
    run(Fake(), *paths, overlap=8, block=48, overwrite=True)
    assert not part.exists()


def test_kill_while_assembling_leaves_no_map_and_a_rerun_completes(paths, monkeypatch):
    scene(paths[0], 100, 100)
    monkeypatch.setattr("eosfm.inference.predict.publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(Fake(), *paths)
    assert not paths[1].exists()
    monkeypatch.undo()
    model = Fake()
    run(model, *paths)
    assert model.calls == []
    assert read(paths[1]).shape == (2, 100, 100)


def test_damaged_block_of_an_earlier_run_is_an_error(paths, monkeypatch):
    scene(paths[0], 100, 100)
    part = paths[1].with_name(paths[1].name + ".part")
    monkeypatch.setattr("eosfm.inference.predict.write_cog", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(Fake(), *paths)
    monkeypatch.undo()
    block = part / "0.map.npy"
    block.write_bytes(block.read_bytes()[:-100])
    with pytest.raises(RasterError, match=r"0\.map\.npy is damaged.*Delete"):
        run(Fake(), *paths)
    np.save(block, np.zeros(3, np.float32))
    with pytest.raises(RasterError, match=r"holds \(3,\), expected \(2, 100, 100\)"):
        run(Fake(), *paths)
    block.unlink()
    run(Fake(), *paths)  # a block that is gone is computed again


def test_line_torn_by_a_crash_does_not_swallow_the_next(tmp_path):
    output, pixels = tmp_path / "map.tif", {"map": np.ones((1, 2, 2), np.uint8)}
    with pytest.raises(KeyboardInterrupt), parts.claim(output, {"a": 1}, overwrite=False) as part:
        part.save(0, pixels, {"valid": 1})
        raise KeyboardInterrupt
    with (part.path / "journal.jsonl").open("a") as f:
        f.write('{"block": 1, "sta')
    with pytest.raises(KeyboardInterrupt), parts.claim(output, {"a": 1}, overwrite=False) as part:
        part.save(1, {}, {"valid": 0})
        raise KeyboardInterrupt
    with parts.claim(output, {"a": 1}, overwrite=False) as part:
        assert part.done == {0: {"valid": 1}, 1: {"valid": 0}}
        assert np.array_equal(part.load(0, "map", (1, 2, 2)), pixels["map"])
        assert part.load(1, "map", (1, 2, 2)) is None
        part.remove()
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_in_the_part_folder_are_not_deleted(paths):
    scene(paths[0], 40, 40)
    part = paths[1].with_name(paths[1].name + ".part")
    part.mkdir()
    (part / "thesis.docx").write_text("precious")
    with pytest.raises(RasterError, match=r"not ours \(thesis\.docx\)"):
        run(Fake(), *paths, overwrite=True)
    assert (part / "thesis.docx").read_text() == "precious"


def test_lock_of_a_folder_that_was_just_removed_is_not_trusted(tmp_path, monkeypatch):
    """Two processes: the first finishes and removes the folder after the second opened its lock file."""
    real, raced = parts._is_still_there, []

    def race(handle, path):
        if not raced:
            raced.append(path)
            path.unlink()
        return real(handle, path)

    monkeypatch.setattr(parts, "_is_still_there", race)
    with parts.claim(tmp_path / "map.tif", {}, overwrite=False) as part:
        assert (part.path / "lock").exists()
        with (
            pytest.raises(RasterError, match="another process"),
            parts.claim(tmp_path / "map.tif", {}, overwrite=False),
        ):
            pass
    assert raced


# ---------------------------------------------------------------- memory


# Not getrusage: ru_maxrss survives exec, so a child would report the peak of the pytest process that started it.
PEAK = """
def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM")) / 1024
"""

MEMORY = (
    PEAK
    + """
import sys, torch
from dataclasses import dataclass
from eosfm.bands import BandSet
from eosfm.inference.predict import predict_scene
torch.set_num_threads(1)

class Trivial:
    bands, chip_size, stride, kind = BandSet.parse("sentinel-2-l2a:B04,B03,B02,B08@reflectance"), 512, 1, "classes"
    names, fingerprint = ("a", "b", "c"), "trivial"
    def chips(self, x):
        return x[:, :3].nan_to_num(0).softmax(1)

report = predict_scene(Trivial(), sys.argv[1], sys.argv[2], progress=False)
print(peak(), report.seconds, report.tiles)
"""
)


def peak_megabytes(source, output):
    done = subprocess.run([sys.executable, "-c", MEMORY, str(source), str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak, seconds, tiles = map(float, done.stdout.split())
    print(f"{source.name}: peak {peak:.0f} MB, {seconds:.0f} s, {tiles:.0f} tiles")  # noqa: T201 - shown by pytest -s
    return peak


def big_scene(path, side, *, empty=False):
    bands = "sentinel-2-l2a:B04,B03,B02,B08@dn-1e4"
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", driver="GTiff", dtype="uint16", count=4, height=side, width=side, nodata=0, tiled=True,
                       sparse_ok=True, bigtiff="yes", crs=WHERE.crs, transform=WHERE.transform) as f:  # fmt: skip
        f.update_tags(EOSFM_BANDS=bands)
        for top in range(0, 0 if empty else side, 512):
            rows = min(512, side - top)
            f.write(rng.integers(1, 9000, (4, rows, side), np.uint16), window=Window(0, top, side, rows))


def test_the_peak_is_the_childs_own():
    ballast = np.ones(300 * 2**20, np.uint8)
    idle, busy = (
        float(subprocess.run([sys.executable, "-c", f"{PEAK}\nx = b'1' * {n} * 2**20\nprint(peak())"], capture_output=True,
                             text=True, check=True).stdout) for n in (1, 100)
    )  # fmt: skip
    assert ballast[0] and idle < 100
    assert busy - idle > 90


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path):
    big_scene(tmp_path / "small.tif", 2048)
    big_scene(tmp_path / "large.tif", 10980)
    small = peak_megabytes(tmp_path / "small.tif", tmp_path / "a.tif")
    large = peak_megabytes(tmp_path / "large.tif", tmp_path / "b.tif")
    assert large - small < 250


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_scene_that_declares_80_gigabytes_streams(tmp_path):
    big_scene(tmp_path / "small.tif", 2048)
    big_scene(tmp_path / "giant.tif", 100_000, empty=True)
    small = peak_megabytes(tmp_path / "small.tif", tmp_path / "a.tif")
    giant = peak_megabytes(tmp_path / "giant.tif", tmp_path / "b.tif")
    assert giant - small < 250
