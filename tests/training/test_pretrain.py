"""Masked pretraining end to end: a specialist is stored, labels are not looked at, a killed run ends where a whole one does."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.bands import BandSet
from eosfm.config import read_record, read_yaml
from eosfm.contracts import BandError, ConfigError, DataError, RasterError, TrainingError
from eosfm.data.chips import Chips, Splits
from eosfm.data.streams import StreamedChips
from eosfm.data.worlds import synthetic_splits
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError, sha256_file
from eosfm.inference.raster import georeference, write_scene
from eosfm.specialists.encoder import ConvNeXtV2Atto, untrained_encoder
from eosfm.specialists.store import load_specialist
from eosfm.training.initial import Start
from eosfm.training.masked import MaskedAutoencoder, MaskedConfig, Target
from eosfm.training.pretrain import PretrainRun, pretrain_masked, run_pretrain
from eosfm.training.settings import FitConfig
from eosfm.training.unlabelled import Imagery, ImagesConfig, Unlabelled, imagery, open_images, places

ROOT = Path(__file__).parents[2]
RGB = BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance")
BOTH = BandSet.parse("sentinel-2-l2a:B04,B03,B02,B08@reflectance + sentinel-1:VV,VH@db")
CONFIG = FitConfig(epochs=3, batch_size=8, learning_rate=1e-3, augment=True, seed=3)
MASKED = MaskedConfig(patch=16, width=16)


def tiny(bands=RGB, seed=0, task="land-cover"):
    return synthetic_splits(task, bands, 16, 8, 8, size=32, seed=seed)


def pretrain(data, zoo, name="x", config=CONFIG, **options):
    return pretrain_masked(data, config, zoo, name=name, **{"masked": MASKED, **options})


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked") / "zoo"
    return folder, pretrain(tiny(), folder, "hidden", description="Learnt without labels")


# --- what is stored -------------------------------------------------------------------------------------------------


def test_a_pretrained_specialist_is_stored_with_its_card(stored):
    zoo, done = stored
    encoder, card = load_specialist(zoo / "hidden")
    assert card == done.card and card.bandset() == RGB and card.chip_size == 32
    assert card.task.kind == "masked-autoencoder" and card.task.classes == ()
    assert card.task.description == f"3 of 4 patches of 16 pixels hidden; predicts {RGB}"
    assert card.statistics == tiny().train.statistics()
    assert (card.data.images, card.data.sha256) == (16, tiny().train.sha256())
    assert card.data.split == "worlds of different seeds; the test split was not used"
    assert card.training.initialisation == "random" and card.training.epochs == 3 and card.licence == "CC0-1.0"
    assert card.weights.parameters == sum(p.numel() for p in ConvNeXtV2Atto(3).parameters())  # no decoder
    start = untrained_encoder(3, 0)
    assert all(bool((a != b).any()) for a, b in zip(encoder.parameters(), start.parameters(), strict=True))


def test_the_metric_is_the_validation_loss_that_chose_the_epoch(stored):
    _, done = stored
    (metric,) = done.card.metrics
    assert (metric.name, metric.split, metric.samples, metric.seed) == ("reconstruction", "validation", 8, 3)
    assert metric.value == pytest.approx(done.fit.best, rel=1e-5)
    assert metric.low <= metric.value <= metric.high and done.fit.monitor == "reconstruction"


def test_a_pretrained_specialist_joins_an_ensemble(stored):
    zoo, _ = stored
    data = tiny(BOTH)
    ensemble = Ensemble([load_specialist(zoo / "hidden")], BOTH, statistics=data.train.statistics())
    assert [v.bands for v in ensemble.views] and not ensemble.skipped
    assert all(bool(level.isfinite().all()) for level in ensemble(data.train.images[:2]))


def test_labels_are_not_looked_at(stored, tmp_path):
    zoo, _ = stored
    data = tiny()
    wrong = Splits(
        replace(data.train, labels=data.train.labels.flip(0).clamp(max=0)),
        replace(data.validation, labels=data.validation.labels.flip(0)),
        replace(data.test, images=data.test.images + 1e6),
    )
    pretrain(wrong, tmp_path, "hidden")
    a, b = (sha256_file(z / "hidden" / "model.safetensors") for z in (zoo, tmp_path))
    assert a == b


def test_inputs_and_targets_are_chosen_by_name(tmp_path):
    data, inputs, radar = tiny(BOTH), BandSet.parse("sentinel-2-l2a:B08,B02@reflectance"), BOTH_RADAR
    done = pretrain(data, tmp_path, inputs=inputs, targets=[Target(inputs), Target(radar, 0.5)])
    card, all_of_it = done.card, data.train.statistics()
    assert card.bandset() == inputs
    assert card.statistics.mean == (all_of_it.mean[3], all_of_it.mean[2])
    assert card.statistics.std == (all_of_it.std[3], all_of_it.std[2])
    whole, optical, sar = card.metrics
    assert [m.name for m in (optical, sar)] == [f"reconstruction of {inputs}", f"reconstruction of {radar}"]
    assert whole.value == pytest.approx((optical.value + 0.5 * sar.value) / 1.5)


BOTH_RADAR = BandSet.parse("sentinel-1:VV,VH@db")


def test_chips_without_splits_hold_one_in_ten_back(tmp_path):
    chips = tiny().train
    parts = imagery(chips, seed=0)
    assert sorted(parts.train.ids + parts.validation.ids) == sorted(chips.ids) and len(parts.validation) == 2
    assert imagery(chips, seed=0).validation.ids == parts.validation.ids != imagery(chips, seed=1).validation.ids
    done = pretrain(chips, tmp_path, config=replace(CONFIG, epochs=1))
    assert done.card.data.images == 14 and done.card.metrics[0].samples == 2
    with pytest.raises(DataError, match="too few"):
        imagery(chips.subset([0, 1]), seed=0)


@dataclass(frozen=True)
class TwoDates:
    def __call__(self, key):
        return torch.cat(
            [torch.full((3, 32, 32), float(key)), torch.full((3, 32, 32), float(key) + 100)]
        ), torch.tensor(0)


def test_two_dates_are_two_images():
    ids = ("1", "2", "3")
    chips = StreamedChips(TwoDates(), ids, (32, 32), RGB, "classification", ("a",), "pairs", dates=2)
    x, y = Unlabelled(chips).batch([0, 2])
    assert x.shape == (4, 3, 32, 32) and len(y) == 4
    assert x[:, 0, 0, 0].tolist() == [1, 101, 3, 103] and bool((x == x[:, :1, :1, :1]).all())


# --- the loop -------------------------------------------------------------------------------------------------------


def test_each_epoch_and_batch_hides_other_patches_and_validation_always_the_same(tmp_path, monkeypatch):
    seeds = {True: [], False: []}
    real = MaskedAutoencoder.errors

    def errors(self, x, seed):
        seeds[self.training].append(seed)
        return real(self, x, seed)

    monkeypatch.setattr(MaskedAutoencoder, "errors", errors)
    pretrain(tiny(), tmp_path, config=replace(CONFIG, batch_size=4))
    assert len(seeds[True]) == 12 and len(set(seeds[True])) == 12  # 3 epochs of 4 batches
    a, b = seeds[False][:2]
    assert a != b and seeds[False] == [a, b] * 4 and not {a, b} & set(seeds[True])  # 3 epochs and the card's metric


def test_pretraining_learns(tmp_path):
    """Each image has one colour: hidden pixels are known from the visible ones, and by the mean of all with error 1."""
    g = torch.Generator().manual_seed(0)
    images = torch.rand(96, 3, 1, 1, generator=g) + 0.02 * torch.randn(96, 3, 32, 32, generator=g)
    chips = Chips(images, torch.zeros(96, dtype=torch.long), RGB, "classification", ("a",), "colours")
    parts = Imagery(chips.subset(range(64)), chips.subset(range(64, 96)))
    masked = MaskedConfig(patch=16, width=32, normalise=False)
    done = pretrain(parts, tmp_path, config=replace(CONFIG, epochs=8, learning_rate=2e-3), masked=masked)
    assert done.fit.best < 0.6


def test_bf16_trains_with_clipped_gradients(tmp_path):
    done = pretrain(tiny(), tmp_path, config=replace(CONFIG, epochs=1, precision="bf16"))
    assert done.fit.best == pytest.approx(done.card.metrics[0].value, rel=0.01)


def test_images_partly_without_data_train(tmp_path):
    data = tiny()
    for part in (data.train, data.validation):
        part.images[::2, :, :20] = float("nan")
        part.images[1] = float("nan")
    done = pretrain(data, tmp_path, config=replace(CONFIG, epochs=1))
    assert np.isfinite(done.card.metrics[0].value)


def test_a_validation_part_without_a_valid_pixel_is_refused_before_training(tmp_path):
    data = tiny()
    data.validation.images[:] = float("nan")
    with pytest.raises(DataError, match="no valid pixel"):
        pretrain(data, tmp_path, run=tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / "x").exists()


_RUN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from training.test_pretrain import tiny, CONFIG, pretrain
assert "lightning" not in sys.modules, "reading a run must not import Lightning"
import torch
torch.set_num_threads(1)
kill_at = float(sys.argv[2])
def progress(fraction, line):
    if fraction >= kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
pretrain(tiny(), Path(sys.argv[1]) / "zoo", "killed", run=Path(sys.argv[1]) / "run", progress=progress)
"""


def in_a_process(folder, kill_at):
    code = _RUN.format(tests=str(Path(__file__).parents[1]))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, str(folder), str(kill_at)], env=env, capture_output=True, text=True
    )


@pytest.mark.slow
def test_kill_minus_nine_then_resume_equals_an_uninterrupted_run(tmp_path):
    killed = in_a_process(tmp_path / "a", 0.8)  # in the middle of the third epoch
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "a" / "run" / "last.ckpt").exists() and not (tmp_path / "a" / "zoo" / "killed").exists()
    resumed, whole = in_a_process(tmp_path / "a", 2), in_a_process(tmp_path / "b", 2)
    assert resumed.returncode == whole.returncode == 0, resumed.stderr + whole.stderr
    a, b = (sha256_file(tmp_path / f / "zoo" / "killed" / "model.safetensors") for f in "ab")
    assert a == b


def test_a_run_of_other_masks_is_not_continued(tmp_path):
    config = replace(CONFIG, epochs=1)
    pretrain(tiny(), tmp_path / "zoo", "one", config, run=tmp_path / "run")
    with pytest.raises(TrainingError, match="run with other"):
        pretrain(tiny(), tmp_path / "zoo", "two", config, run=tmp_path / "run", masked=replace(MASKED, ratio=0.4))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    encoder = ConvNeXtV2Atto(3)
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss is nan at epoch 0, batch 0"):
        pretrain(tiny(), tmp_path, start=Start(encoder, "given"))
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_trained_is_refused_before_anything_is_read(stored, tmp_path):
    zoo, _ = stored
    with pytest.raises(OutputError):
        pretrain(tiny(), zoo, "hidden")
    with pytest.raises(ConfigError, match="one patch of 32"):
        pretrain(tiny(), tmp_path, masked=MaskedConfig())
    with pytest.raises(ConfigError, match="one loss and no classes"):
        pretrain(tiny(), tmp_path, config=replace(CONFIG, loss="mse"))
    with pytest.raises(BandError, match="not among the data's bands"):
        pretrain(tiny(), tmp_path, targets=[Target(BOTH_RADAR)])


# --- from a file ----------------------------------------------------------------------------------------------------


def test_the_recipe_runs_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = ROOT / "recipes" / "pretrain-synthetic.yaml"
    assert read_record(PretrainRun, read_yaml(recipe), recipe.name).name == recipe.stem
    small = ["data.size=[8,4,1]", "data.chip_size=64", "masked.width=16", "fit.epochs=1", "fit.batch_size=4"]
    done = run_pretrain(recipe, [*small, "init=random"])
    assert (tmp_path / "zoo" / "pretrain-synthetic" / "card.json").exists()
    assert (tmp_path / "runs" / "pretrain-synthetic" / "last.ckpt").exists() and done.energy.kwh is not None
    on = run_pretrain(recipe, [*small, "name=further", "init=pretrain-synthetic"])
    assert on.card.training.initialisation.startswith("specialist pretrain-synthetic@")


@pytest.mark.parametrize(("change", "says"), [
    (["images.root=x", "images.bands=rgb:R@8bit"], "either images .* or data"),
    (["data=null"], "either images .* or data"),
    (["fit.loss=mse"], "one loss and no classes"),
    (["masked.patch=20"], "expected 8, 16, 32"),
    (["masked.mask=1"], "unknown key"),
    (["name=../x"], "name"),
])  # fmt: skip
def test_a_run_that_contradicts_itself_is_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        run_pretrain(ROOT / "recipes" / "pretrain-synthetic.yaml", change)


# --- files without labels -------------------------------------------------------------------------------------------


def write(path, *, size=(320, 64), west=0.0, north=0.0, seed=0, bands=RGB, where=None, empty=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).uniform(0.01, 0.5, (len(bands), *size)).astype(np.float32)
    if empty is not None:
        pixels[:, empty] = -1
    write_scene(path, pixels, bands, where or georeference("EPSG:32631", west, north, 10), nodata=-1)
    return pixels


def config(root, **options):
    return ImagesConfig(**{"root": root, "bands": str(RGB), "chip_size": 32, "licence": "CC0-1.0", **options})


def test_windows_are_read_where_they_say(tmp_path):
    pixels = write(tmp_path / "in" / "a.tif", empty=slice(0, 10))
    images = open_images(config(tmp_path, bands="sentinel-2-l2a:B02,B04@reflectance"))
    assert len(images.train) + len(images.validation) == 20 and images.train.size == (32, 32)
    i = images.train.ids.index("in/a.tif[32,32]")
    x, y = images.train.batch([i])
    assert np.array_equal(x[0].numpy(), pixels[[2, 0], 32:64, 32:64]) and y.tolist() == [0]
    top, _ = images.train.batch([images.train.ids.index("in/a.tif[0,0]")])
    assert bool(top[0, :, :10].isnan().all()) and bool(top[0, :, 10:].isfinite().all())


def tops(chips):
    return {int(i.split("[")[1].split(",")[0]) for i in chips.ids}


def test_few_places_are_divided_on_the_ground(tmp_path):
    """The same place at three dates, one of them shifted: the south of all of them validates, and nothing else."""
    for k, shift in enumerate((0, 0, 160)):
        write(tmp_path / f"date-{k}.tif", size=(640, 64), north=-10.0 * shift, seed=k)
    images = open_images(config(tmp_path))
    for part, rows in ((images.train, (0, 1)), (images.validation, (1, 0))):
        ground = [(32 * (int(i.split("[")[1].split(",")[0]) // 32) + (160 if "date-2" in i else 0)) for i in part.ids]
        assert ground
        limit = 800 - 96  # 10 % of 800 rows, rounded up to whole windows
        assert all(g + 32 <= limit for g in ground) if rows == (0, 1) else all(g >= limit for g in ground)
    assert images.rule == "the southern tenth of each place chose the epoch"
    assert {i.split("[")[0] for i in images.validation.ids} == {"date-2.tif"}


def test_many_places_are_divided_whole(tmp_path):
    for k in range(12):
        write(tmp_path / f"{k}-a.tif", size=(64, 64), west=10_000.0 * k, seed=k)
        write(tmp_path / f"{k}-b.tif", size=(64, 64), west=10_000.0 * k + 320, seed=k + 100)  # half of it is the same
    images = open_images(config(tmp_path))
    seen = [{i.split("-")[0] for i in part.ids} for part in (images.train, images.validation)]
    assert len(seen[0]) == 11 and len(seen[1]) == 1 and not seen[0] & seen[1]
    assert len(images.train) == 11 * 8 and len(images.validation) == 8
    assert open_images(config(tmp_path)).validation.ids == images.validation.ids
    assert len({tuple(open_images(config(tmp_path, seed=s)).validation.ids) for s in range(4)}) > 1
    few = open_images(config(tmp_path, limit=60))
    assert len(few.train) + len(few.validation) == 60


def test_places_join_through_a_third():
    from eosfm.data.footprints import Footprint

    def box(left, crs="EPSG:1"):
        return Footprint(crs, left, 0.0, left + 10.0, 10.0)

    assert places([box(0), box(16), box(8), box(40), box(26), box(0, "EPSG:2")]) == [0, 0, 0, 3, 4, 5]


def test_files_without_georeference_are_asked_for_by_name(tmp_path):
    from rasterio.transform import Affine

    from eosfm.inference.raster import Georeference

    nowhere = Georeference(None, Affine.identity())
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)
        for name in "ab":
            write(tmp_path / f"{name}.tif", where=nowhere, seed=ord(name))
    with pytest.raises(RasterError, match="allow_no_crs"):
        open_images(config(tmp_path))
    images = open_images(config(tmp_path, allow_no_crs=True))
    assert tops(images.validation) == {288} and tops(images.train) == set(range(0, 288, 32))
    assert {i.split("[")[0] for i in images.validation.ids} == {"a.tif", "b.tif"}


def test_a_folder_that_cannot_be_learnt_from_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_images(config(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"no \*\.tif"):
        open_images(config(tmp_path))
    write(tmp_path / "a.tif", size=(40, 40))
    with pytest.raises(DataError, match="0 training and 1 validation"):
        open_images(config(tmp_path))
    with pytest.raises(DataError, match="chips of 64"):
        open_images(config(tmp_path, chip_size=64))
    with pytest.raises(ValueError, match="multiple of 32"):
        config(tmp_path, chip_size=48)


def test_an_image_in_both_parts_is_refused():
    data = tiny()
    with pytest.raises(DataError, match="both the training and the validation"):
        Imagery(data.train, data.train)
    with pytest.raises(DataError, match="validation images are"):
        Imagery(data.train, tiny(BOTH).validation)


def test_files_without_labels_make_a_specialist(tmp_path):
    for k in range(3):
        write(tmp_path / "images" / f"{k}.tif", west=10_000.0 * k, seed=k)
    text = (
        f"name: mine\nzoo: {tmp_path}/zoo\nrun: {tmp_path}/run\nimages: {{root: {tmp_path}/images, chip_size: 32, "
        f"bands: '{RGB}', licence: CC-BY-4.0}}\nmasked: {{patch: 16, width: 16}}\nfit: {{epochs: 1, batch_size: 16}}\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    card = run_pretrain(tmp_path / "mine.yaml").card
    assert card.licence == "CC-BY-4.0" and card.data.images == 54 and card.metrics[0].samples == 6
    assert load_specialist(tmp_path / "zoo" / "mine")[1] == card
