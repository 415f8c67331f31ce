"""PANGAEA's data sets of one or two dates: bands, units, labels, splits and damage, by value."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.contracts import DataError
from eosfm.data.catalogue import open_dataset
from eosfm.data.published import burn_scars, mados, spacenet7
from eosfm.data.published.satellite_files import window_of
from eosfm.data.real_scenes import flood_scene
from eosfm.tasks.kinds import IGNORE
from miniatures.pangaea import MADOS_NM, WRITERS, write_placed
from miniatures.real_ones import SHARED
from miniatures.satellite import write_lines, write_png, write_tif

ONE_OR_TWO = ("hls-burn-scars", "sen1floods11-hand", "mados", "ai4smallfarms", "spacenet7", "spacenet7-change",
              "fivebillionpixels", "xview2")  # fmt: skip


def parts(splits):
    return splits.train, splits.validation, splits.test


def tiled(name, folder, tile=32, **options):
    return open_dataset(name, folder, **({} if name == "mados" else {"tile": tile}), **options)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("pangaea")
    for name in ONE_OR_TWO:
        WRITERS[name](root / name)
    return root


@pytest.fixture
def folder(originals, tmp_path):
    """``folder(name)``: a copy of a miniature that a test may damage."""

    def copy(name: str) -> Path:
        shutil.copytree(originals / name, tmp_path / name)
        return tmp_path / name

    return copy


@pytest.mark.parametrize("name", ONE_OR_TWO)
def test_every_reader_gives_splits_that_share_nothing_and_travel(name, originals):
    splits = tiled(name, originals / name)
    ids = [set(p.ids) for p in parts(splits)]
    assert all(ids) and not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]
    assert [len(p) for p in parts(tiled(name, originals / name, limit=1))] == [1, 1, 1]
    assert splits.rule and splits.train.licence and not splits.train.unit_warnings()
    sent = pickle.loads(pickle.dumps(splits.train))
    x, y = sent.chip(0)
    assert torch.equal(torch.nan_to_num(x), torch.nan_to_num(splits.train.chip(0)[0])) and torch.equal(
        y, splits.train.chip(0)[1]
    )
    assert len(x) == splits.train.dates * len(splits.train.bands)
    assert len(splits.train.statistics().mean) == len(splits.train.bands)


@pytest.mark.parametrize("name", ONE_OR_TWO)
def test_an_empty_folder_says_where_to_get_the_data(name, tmp_path):
    with pytest.raises(DataError, match=r"not found in .*Expected there: .*Get it: .*(https|gs)://") as caught:
        open_dataset(name, tmp_path)
    assert "recipes/" not in str(caught.value)


def test_burn_scars_by_value(folder):
    root = folder("hls-burn-scars")
    stem = root / "validation" / "subsetted_512x512_HLS.S30.T10SGJ.2020214.v1.4"
    x = np.arange(6, dtype=np.float32)[:, None, None] / 10 + np.zeros((6, 64, 64), np.float32)
    x[2, 1, 1] = -9999
    mask = np.zeros((1, 64, 64), np.int16)
    mask[0, 0, :3] = (-1, 0, 1)
    write_placed(stem.with_name(stem.name + "_merged.tif"), x, 400_000.0)
    write_placed(stem.with_name(stem.name + ".mask.tif"), mask, 400_000.0)
    test = open_dataset("hls-burn-scars", root, tile=64).test
    assert str(test.bands) == "hls:BLUE,GREEN,RED,NIR_NARROW,SWIR_1,SWIR_2@reflectance"
    got, y = test.chip(0)
    assert got[:, 5, 5].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert got.isnan().sum() == 1 and got[2, 1, 1].isnan()
    assert y[0, :3].tolist() == [IGNORE, 0, 1]
    write_placed(stem.with_name(stem.name + "_merged.tif"), (x * 10_000).astype(np.int16), 400_000.0)
    with pytest.raises(DataError, match="expected reflectance as real numbers"):
        test.chip(0)


def test_burn_scars_never_train_on_ground_that_is_tested(folder):
    """Two dates of one fire: T12SVE is tested, and a training chip now lies half upon it."""
    root = folder("hls-burn-scars")
    before = open_dataset("hls-burn-scars", root, tile=64)
    assert "0 chips left out" in before.rule
    key = next(k for k in before.train.ids if "T13TBE" in k or "T11SKA" in k)
    image = root / f"{window_of(key)[0]}_merged.tif"
    write_placed(image, np.full((6, 64, 64), 0.1, np.float32), 500_000.0 + 32 * 30.0)
    after = open_dataset("hls-burn-scars", root, tile=64)
    assert "1 chips left out" in after.rule and key not in after.train.ids and len(after.test) == 2
    tiles = [{burn_scars._mgrs(window_of(k)[0]) for k in p.ids} for p in parts(after)]
    assert not tiles[0] & tiles[1]


def test_floods_are_read_by_band_name(folder):
    root = folder("sen1floods11-hand")
    data = root / "v1.1" / "data" / "flood_events" / "HandLabeled"
    write_placed(data / "S1Hand" / "Spain_4_S1Hand.tif",
                 np.stack([np.full((64, 64), v, np.float32) for v in (-20, -12)]), 0.0, ("VH", "VV"))  # fmt: skip
    test = open_dataset("sen1floods11-hand", root / "v1.1", tile=64).test
    x, y = test.chip(0)
    assert test.bands.names[:3] == ("VV", "VH", "B01") and x[:2, 9, 9].tolist() == [-12, -20]
    assert set(y.unique().tolist()) == {0, 1, IGNORE} and (y[:4] == IGNORE).all()
    rule = open_dataset("sen1floods11-hand", root, tile=64).rule
    assert "1 floods have chips in more than one split" in rule
    write_lines(root / "v1.1/splits/flood_handlabeled/flood_test_data.csv", ["../x_1_S1Hand.tif,../x_1_LabelHand.tif"])
    with pytest.raises(DataError, match=r"flood_test_data\.csv: line"):
        open_dataset("sen1floods11-hand", root, tile=64)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_real_flood_chip_is_what_the_other_reader_reads(tmp_path):
    sample, data = SHARED / "sen1floods11_sample" / "sample", tmp_path / "v1.1/data/flood_events/HandLabeled"
    for n, part in enumerate(("train", "valid", "test")):
        chip = f"Spain_{n}"
        for layer, source in (("S1", "S1"), ("S2", "S2"), ("Label", "Labels")):
            (data / f"{layer}Hand").mkdir(parents=True, exist_ok=True)
            real = sample / source / f"Spain_7370579_{layer}Hand.tif"
            (data / f"{layer}Hand" / f"{chip}_{layer}Hand.tif").symlink_to(real)
        write_lines(tmp_path / f"v1.1/splits/flood_handlabeled/flood_{part}_data.csv",
                    [f"{chip}_S1Hand.tif,{chip}_LabelHand.tif"])  # fmt: skip
    test = open_dataset("sen1floods11-hand", tmp_path).test
    x, y = test.chip(0)
    image, label, _ = flood_scene(SHARED)
    assert torch.equal(torch.nan_to_num(x), torch.nan_to_num(torch.from_numpy(image)))
    assert torch.equal(y, torch.from_numpy(label))


def test_mados_bands_are_found_by_wavelength_on_both_satellites(folder):
    root = folder("mados")
    scene = root / "Scene_7"
    by_band = {b: nms[-1] for b, (_, nms) in mados._NM.items()}
    assert sorted(by_band.values()) == sorted(nm for nms in MADOS_NM.values() for nm in nms)
    for i, (band, (metres, nms)) in enumerate(mados._NM.items()):
        old = scene / str(metres) / f"Scene_7_L2R_rhorc_{nms[-1]}_3.tif"
        side = 2400 // metres
        values = np.full((1, side, side), i / 10, np.float32)
        values[0, 0, 0] = np.nan if band == "B11" else i / 10
        write_tif(old, values, placed=False)
        old.rename(scene / str(metres) / f"Scene_7_L2R_rhorc_{nms[0]}_3.tif")  # Sentinel-2B's names
    label = np.arange(240 * 240).reshape(1, 240, 240) % 16
    write_tif(scene / "10" / "Scene_7_L2R_cl_3.tif", label.astype(np.uint8), placed=False)
    test = open_dataset("mados", root).test
    x, y = test.chip(test.ids.index("Scene_7_3"))
    assert x[:, 100, 100].tolist() == pytest.approx([i / 10 for i in range(11)])
    b11 = test.bands.names.index("B11")
    assert x[b11, :2, :2].isnan().all() and x.isnan().sum() == 4
    assert y[0, :16].tolist() == [IGNORE, *range(15)] and len(test.classes) == 15
    write_tif(scene / "10" / "Scene_7_L2R_cl_3.tif", np.full((1, 240, 240), 16, np.uint8), placed=False)
    with pytest.raises(DataError, match="label values 16"):
        test.chip(test.ids.index("Scene_7_3"))
    (scene / "20" / "Scene_7_L2R_rhorc_704_3.tif").unlink()
    with pytest.raises(DataError, match=r"0 files of B05 in .*Scene_7_L2R_rhorc_704_3"):
        open_dataset("mados", root)


def test_small_farms_have_two_real_classes(folder):
    root = folder("ai4smallfarms")
    splits = open_dataset("ai4smallfarms", root, tile=64)
    x, y = splits.test.chip(0)
    assert y.unique().tolist() == [0, 1] and splits.train.classes == ("unmarked", "marked")
    assert (x[:, y == 1].mean() > x[:, y == 0].mean() + 300).item()  # the miniature's marks are bright
    (root / "sentinel-2-asia" / "validate").rename(root / "sentinel-2-asia" / "val")
    renamed = open_dataset("ai4smallfarms", root, tile=64)
    assert len(renamed.validation) == len(splits.validation)
    for kind in ("images", "masks"):  # a tile that is tested, under training as well
        base = root / "sentinel-2-asia"
        shutil.copy(base / "test" / kind / "40_cambodia.tif", base / "train" / kind / "40_cambodia.tif")
    assert "1 chips left out whose tile is in a later split" in open_dataset("ai4smallfarms", root, tile=64).rule
    write_tif(root / "sentinel-2-asia/test/masks/40_cambodia.tif", np.full((1, 80, 72), 7, np.uint8))
    with pytest.raises(DataError, match=r"40_cambodia\.tif: label values 7"):
        splits.test.chip(0)


def test_spacenet7_takes_labelled_clear_months_and_splits_by_area(originals):
    splits = tiled("spacenet7", originals / "spacenet7")
    areas = [{window_of(k)[0].split("|")[0] for k in p.ids} for p in parts(splits)]
    assert areas == [{spacenet7.AREAS[s][0]} for s in ("train", "validation", "test")]
    assert {window_of(k)[0].split("|")[1] for k in splits.train.ids} == {"2018_01", "2018_04", "2018_05"}
    assert [len(a) for a in spacenet7.AREAS.values()] == [30, 15, 14]
    assert len({a for areas in spacenet7.AREAS.values() for a in areas}) == 59
    x, _ = splits.train.chip(splits.train.ids.index(f"{spacenet7.AREAS['train'][0]}|2018_01@0,0,32,32"))
    assert x[:, 0, 0].isnan().all() and x.isnan().sum() == 3


def test_spacenet7_change_is_the_first_against_the_middle_month(originals):
    one, two = (tiled(n, originals / n) for n in ("spacenet7", "spacenet7-change"))
    key = two.test.ids[0]
    name, window = key.split("@")
    area, first, second = name.split("|")
    assert (first, second) == ("2018_01", "2018_04") and two.test.dates == 2
    x, y = two.test.chip(0)
    (x1, y1), (x2, y2) = (one.test.chip(one.test.ids.index(f"{area}|{m}@{window}")) for m in (first, second))
    assert torch.equal(torch.nan_to_num(x), torch.nan_to_num(torch.cat([x1, x2])))
    assert torch.equal(y, (y1 != y2).long()) and y.any()


def test_five_billion_pixels_by_value(folder):
    root = folder("fivebillionpixels")
    stem = "GF2_PMS1__L1A0000564534-MSS1_0"
    label = (np.arange(72 * 64) % 25).reshape(1, 72, 64).astype(np.uint8)
    write_tif(root / "test" / "labels" / f"{stem}_24label.tif", label, placed=False)
    pixels = np.array([80, 30, 20, 10], np.uint8)[:, None, None] * np.ones((4, 72, 64), np.uint8)
    write_tif(root / "test" / "imgs" / f"{stem}.tif", pixels, placed=False)
    test = open_dataset("fivebillionpixels", root, tile=64).test
    x, y = test.chip(0)
    assert dict(zip(test.bands.names, x[:, 0, 0].tolist(), strict=True)) == {
        "nir": 80,
        "red": 30,
        "green": 20,
        "blue": 10,
    }
    assert y[0, :25].tolist() == [IGNORE, *range(24)]
    for kind, end in (("imgs", ""), ("labels", "_24label")):  # another tile of the tested scene, under training
        source, target = root / "test" / kind, root / "train" / kind
        shutil.copy(source / f"{stem}{end}.tif", target / f"{stem[:-1]}7{end}.tif")
    assert "1 chips left out whose scene is in a later split" in open_dataset("fivebillionpixels", root, tile=64).rule
    (root / "val" / "labels" / "GF2_PMS1__L1A0000564533-MSS1_0_24label.tif").unlink()
    with pytest.raises(DataError, match="no label; expected val/labels/GF2_PMS1__L1A0000564533-MSS1_0"):
        open_dataset("fivebillionpixels", root, tile=64)


def test_xview2_is_before_then_after_with_whole_disasters_held_out(folder):
    from PIL import Image

    root = folder("xview2")
    for when, colour in (("pre", (10, 20, 30)), ("post", (40, 50, 60))):
        picture = np.zeros((64, 64, 3), np.uint8) + np.array(colour, np.uint8)
        Image.fromarray(picture).save(root / "test" / "images" / f"socal-fire_00000009_{when}_disaster.png")
    splits = open_dataset("xview2", root, tile=64)
    x, y = splits.test.chip(0)
    assert x[:, 0, 0].tolist() == [10, 20, 30, 40, 50, 60] and splits.test.dates == 2
    assert set(y.unique().tolist()) == {0, 1, 2, 3, 4}
    seen = set()
    for seed in range(6):
        some = open_dataset("xview2", root, tile=64, seed=seed)
        events = [{k.split("/")[2].rsplit("_", 3)[0] for k in p.ids} for p in parts(some)]
        assert not events[0] & events[1]
        seen |= events[1]
    assert len(seen) > 1
    for part in ("train", "tier3", "test"):  # PANGAEA's folder of masks
        (root / part / "masks").mkdir()
        for path in (root / part / "targets").glob("*_post_disaster_target.png"):
            path.rename(root / part / "masks" / path.name.replace("_target", ""))
        shutil.rmtree(root / part / "targets")
    assert torch.equal(open_dataset("xview2", root, tile=64).test.chip(0)[1], y)
    write_png(root / "test" / "masks" / "socal-fire_00000009_post_disaster.png", np.full((64, 64), 5, np.uint8))
    with pytest.raises(DataError, match="label values 5"):
        open_dataset("xview2", root, tile=64).test.chip(0)
