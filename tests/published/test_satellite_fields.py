"""Cloud cover, Kenya crop types and OSCD: bands by name, dates, labels, tiles, splits and damage, by value."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.contracts import DataError, RasterError
from eosfm.data.catalogue import open_dataset
from eosfm.data.published.satellite_files import held_out, kept_apart, read_grey, tiles, window_key, window_of
from eosfm.tasks.kinds import IGNORE
from miniatures.satellite import (
    BIGEARTHNET_S2,
    KENYA_DATES,
    write_cloud_cover,
    write_kenya,
    write_lines,
    write_oscd,
    write_png,
    write_tif,
)

OSCD_STEM = "Onera Satellite Change Detection dataset - "


def parts(splits):
    return splits.train, splits.validation, splits.test


@pytest.fixture(scope="module")
def clouds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clouds")
    write_cloud_cover(folder)
    return folder


@pytest.fixture(scope="module")
def kenya(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kenya")
    write_kenya(folder)
    return folder


@pytest.fixture(scope="module")
def oscd(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("oscd")
    write_oscd(folder)
    return folder


def test_cloud_cover_bands_nodata_and_labels_by_value(clouds, tmp_path):
    shutil.copytree(clouds, tmp_path / "c")
    folder = tmp_path / "c" / "test" / "test_features" / "lag0"
    for name, v in {"B02": 200, "B03": 300, "B04": 400, "B08": 800}.items():
        band = np.full((1, 512, 512), v, np.uint16)
        band[0, 0, 0] = 0
        band[0, 0, 1] = 0 if name != "B08" else 5  # dark, not nodata: near infrared saw something
        write_tif(folder / f"{name}.tif", band)
    test = open_dataset("cloud-cover", tmp_path / "c").test
    x, y = test.chip(0)
    assert str(test.bands) == "sentinel-2-l2a:B04,B03,B02@dn-1e4"
    assert x[:, 9, 9].tolist() == [400, 300, 200]
    assert x[:, 0, 0].isnan().all()
    assert x[:, 0, 1].tolist() == [0, 0, 0]
    assert y.unique().tolist() == [0, 1]
    label = tmp_path / "c" / "test" / "test_labels" / "lag0.tif"
    write_tif(label, np.full((1, 512, 512), 2, np.uint8))
    with pytest.raises(DataError, match=r"lag0\.tif: label values 2; expected 0, 1"):
        test.chip(0)
    (folder / "B08.tif").write_bytes(b"II*\0broken")
    with pytest.raises(RasterError, match=r"lag0/B08\.tif"):
        test.chip(0)


def test_cloud_cover_validates_on_held_out_locations(clouds, tmp_path):
    seen = set()
    for seed in range(6):
        splits = open_dataset("cloud-cover", clouds, seed=seed)
        places = [{k.split("/")[1] for k in p.ids} for p in parts(splits)]
        assert [len(p) for p in places] == [2, 1, 1]
        assert places[2] == {"Lagos"}
        assert not places[0] & places[1]
        assert all(k.startswith("train/") for k in splits.validation.ids)
        seen |= places[1]
    assert len(seen) > 1
    assert [len(p) for p in parts(open_dataset("cloud-cover", clouds, limit=1))] == [1, 1, 1]
    shutil.copytree(clouds, tmp_path / "c")
    table = tmp_path / "c" / "test" / "test_metadata.csv"
    write_lines(table, [table.read_text().replace("Lagos", "Lusaka").strip()])
    splits = open_dataset("cloud-cover", tmp_path / "c")
    assert not any("Lusaka" in k for k in (*splits.train.ids, *splits.validation.ids))
    assert "2 chips left out whose location is in a later split" in splits.rule


def test_cloud_cover_tiles_are_cut_from_the_whole(clouds):
    whole, cut = (open_dataset("cloud-cover", clouds, tile=t) for t in (512, 320))
    assert [len(p) for p in parts(cut)] == [16, 8, 8]
    (x, y), (last, labels) = whole.train.chip(0), cut.train.chip(3)
    assert torch.equal(last, x[:, 192:, 192:])
    assert torch.equal(labels, y[192:, 192:])


def test_cloud_cover_is_read_under_the_archives_own_names(clouds, tmp_path):
    """What azcopy brings lies in public/ and private/; TorchGeo 0.9 reads those, 0.8 renamed them."""
    shutil.copytree(clouds / "train", tmp_path / "public")
    shutil.copytree(clouds / "test", tmp_path / "private")
    renamed, own = open_dataset("cloud-cover", clouds), open_dataset("cloud-cover", tmp_path)
    for a, b in zip(parts(renamed), parts(own), strict=True):
        assert a.ids == b.ids and a.sha256() == b.sha256()


def test_cloud_cover_damage_is_named(clouds, tmp_path):
    with pytest.raises(DataError, match=r"train/train_metadata\.csv.*not found.*azcopy"):
        open_dataset("cloud-cover", tmp_path)
    shutil.copytree(clouds, tmp_path / "c")
    table = tmp_path / "c" / "train" / "train_metadata.csv"
    rows = table.read_text()
    (tmp_path / "c" / "train" / "train_labels" / "jai1.tif").unlink()
    with pytest.raises(DataError, match=r"1 files are missing.*jai1\.tif"):
        open_dataset("cloud-cover", tmp_path / "c")
    write_lines(table, [rows.replace("location", "place").strip()])
    with pytest.raises(DataError, match="no column location"):
        open_dataset("cloud-cover", tmp_path / "c")
    write_lines(table, [rows.replace("jai1,", "../jai1,").strip()])
    with pytest.raises(DataError, match=r"chip '\.\./jai1'"):
        open_dataset("cloud-cover", tmp_path / "c")


def test_kenya_bands_labels_and_date_by_value(kenya, tmp_path):
    shutil.copytree(kenya, tmp_path / "k")
    value = {b: 100 * (i + 1) for i, b in enumerate(BIGEARTHNET_S2)}
    for name, v in value.items():
        band = np.full((1, 200, 192), v, np.uint16)
        band[0, 199, 191] = 0
        write_tif(tmp_path / "k" / "data" / "0" / KENYA_DATES[1] / f"0_{name}_{KENYA_DATES[1]}.tif", band)
    crops = np.zeros((1, 200, 192), np.uint8)
    crops[0, 0, :8] = range(8)
    crops[0, 199, 191] = 7
    write_tif(tmp_path / "k" / "data" / "0" / "0_label.tif", crops)
    splits = open_dataset("kenya-croptype", tmp_path / "k", tile=64)
    assert KENYA_DATES[1] in splits.rule
    train = splits.train
    assert str(train.bands) == f"sentinel-2-l2a:{','.join(BIGEARTHNET_S2)}@dn-1e4"
    mine = [k for k in train.ids if k.startswith("0@")]
    assert mine == [
        "0@0,0,64,64",
        "0@136,128,64,64",
    ]  # the rest of the tile has no field; the last one is moved inwards
    x, y = train.chip(train.ids.index(mine[0]))
    assert dict(zip(train.bands.names, x[:, 3, 3].tolist(), strict=True)) == value
    assert y[0, :8].tolist() == [IGNORE, 0, 1, 2, 3, 4, 5, 6]
    assert (y[1:] == IGNORE).all()
    assert train.classes[0] == "maize"
    x, y = train.chip(train.ids.index(mine[1]))
    assert y[63, 63] == 6
    assert x[:, 63, 63].isnan().all()
    assert x.isnan().sum() == 12
    crops[0, 0, 0] = 8
    write_tif(tmp_path / "k" / "data" / "0" / "0_label.tif", crops)
    with pytest.raises(DataError, match=r"0_label\.tif: label values 8"):
        train.chip(train.ids.index(mine[0]))


def test_kenya_splits_are_tiles_with_a_margin(kenya):
    splits = open_dataset("kenya-croptype", kenya, tile=64)
    windows = [[window_of(k) for k in p.ids] for p in parts(splits)]
    assert [{n for n, _ in w} for w in windows] == [{"0", "1"}, {"2"}, {"3"}]
    for part in windows[1:]:
        covered = np.zeros((200, 192), bool)
        for _, (top, left, height, width) in part:
            covered[top : top + height, left : left + width] = True
        inner = np.zeros_like(covered)
        inner[32:-32, 32:-32] = True
        assert (covered == inner).all()
    assert [len(p) for p in parts(open_dataset("kenya-croptype", kenya, limit=2))] == [2, 2, 2]
    with pytest.raises(DataError, match="tiles of 160 pixels from 136 x 128"):
        open_dataset("kenya-croptype", kenya, tile=160)


def test_kenya_damage_is_named(kenya, tmp_path):
    with pytest.raises(DataError, match=r"FieldIds\.csv.*source\.coop"):
        open_dataset("kenya-croptype", tmp_path)
    shutil.copytree(kenya, tmp_path / "k")
    data = tmp_path / "k" / "data"
    write_tif(data / "3" / KENYA_DATES[0] / f"3_CLD_{KENYA_DATES[0]}.tif", np.full((1, 200, 192), 101, np.uint8))
    with pytest.raises(DataError, match="outside 0 to 100 %"):
        open_dataset("kenya-croptype", tmp_path / "k")
    shutil.rmtree(data / "3" / KENYA_DATES[0])
    with pytest.raises(DataError, match=r"1 files are missing.*3_CLD_20190606\.tif"):
        open_dataset("kenya-croptype", tmp_path / "k")
    shutil.copytree(kenya / "data" / "3" / KENYA_DATES[0], data / "3" / KENYA_DATES[0])
    band = data / "1" / KENYA_DATES[1] / f"1_B11_{KENYA_DATES[1]}.tif"
    write_tif(band, np.ones((1, 201, 193), np.uint16))
    with pytest.raises(DataError, match=r"1_B11_20190825\.tif: \(201, 193\) pixels, its labels \(200, 192\)"):
        open_dataset("kenya-croptype", tmp_path / "k")
    band.unlink()
    with pytest.raises(DataError, match=r"1_B11_20190825\.tif"):
        open_dataset("kenya-croptype", tmp_path / "k")


def test_oscd_is_two_dates_of_named_bands(oscd, tmp_path):
    shutil.copytree(oscd, tmp_path / "o")
    images = tmp_path / "o" / f"{OSCD_STEM}Images" / "montpellier"
    names = open_dataset("oscd", oscd).train.bands.names
    assert names[7:10] == ("B08", "B8A", "B09")
    for date in (1, 2):
        for i, name in enumerate(names):
            band = np.full((1, 150, 140), 1000 * date + i + 1, np.uint16)
            band[0, 149, 139] = 0 if date == 2 else 1
            write_tif(images / f"imgs_{date}_rect" / f"{name}.tif", band)
    change = np.zeros((150, 140), np.uint8)
    change[149, 139] = 255
    write_png(tmp_path / "o" / f"{OSCD_STEM}Test Labels" / "montpellier" / "cm" / "cm.png", change)
    test = open_dataset("oscd", tmp_path / "o").test
    assert (test.dates, len(test.bands)) == (2, 13)
    at = test.ids.index("test/montpellier@22,12,128,128")  # moved inwards: 150 and 140 are no multiples of 128
    x, y = test.chip(at)
    assert x[:, 5, 5].tolist() == [1000 * d + i + 1 for d in (1, 2) for i in range(13)]
    assert x[:13, 127, 127].tolist() == [1] * 13
    assert x[13:, 127, 127].isnan().all()
    assert y.sum() == y[127, 127] == 1
    change[0, 0] = 128
    write_png(tmp_path / "o" / f"{OSCD_STEM}Test Labels" / "montpellier" / "cm" / "cm.png", change)
    with pytest.raises(DataError, match=r"cm\.png: label values 128; expected 0, 255"):
        test.chip(at)


def test_oscd_holds_out_cities(oscd):
    seen = set()
    for seed in range(6):
        splits = open_dataset("oscd", oscd, seed=seed)
        cities = [{window_of(k)[0].split("/")[1] for k in p.ids} for p in parts(splits)]
        assert cities[2] == {"brasilia", "montpellier"}
        assert cities[0] | cities[1] == {"abudhabi", "beirut", "bercy"}
        assert len(cities[1]) == 1
        assert next(iter(cities[1])) in splits.rule
        seen |= cities[1]
    assert len(seen) > 1
    assert [len(p) for p in parts(open_dataset("oscd", oscd, tile=64))] == [18, 9, 18]
    assert [len(p) for p in parts(open_dataset("oscd", oscd, limit=3))] == [3, 3, 3]
    with pytest.raises(DataError, match=r"tiles of 256 pixels from 150 x 140"):
        open_dataset("oscd", oscd, tile=256)


def test_oscd_damage_is_named(oscd, tmp_path):
    with pytest.raises(DataError, match=r"OSCD: Onera.*Images.*not found.*rcdaudt\.github\.io"):
        open_dataset("oscd", tmp_path)
    shutil.copytree(oscd, tmp_path / "o")
    folder = tmp_path / "o" / f"{OSCD_STEM}Images" / "beirut" / "imgs_2_rect"
    (folder / "B8A.tif").rename(folder / "B13.tif")
    with pytest.raises(DataError, match=r"beirut/imgs_2_rect: bands .*B13.* in 13 files; expected one file of each"):
        open_dataset("oscd", tmp_path / "o")
    (folder / "B13.tif").unlink()
    write_tif(folder / "B8A.tif", np.ones((1, 75, 70), np.uint16))
    with pytest.raises(DataError, match=r"B8A\.tif: \(75, 70\) pixels, its labels \(150, 140\)"):
        open_dataset("oscd", tmp_path / "o")
    shutil.copy(oscd / folder.relative_to(tmp_path / "o") / "B8A.tif", folder / "B8A.tif")
    (tmp_path / "o" / f"{OSCD_STEM}Train Labels" / "bercy" / "cm" / "cm.png").unlink()
    with pytest.raises(DataError, match=r"1 files are missing.*bercy/cm/cm\.png"):
        open_dataset("oscd", tmp_path / "o")


def test_readers_can_be_sent_to_worker_processes(clouds, kenya, oscd):
    for dataset, folder in (("cloud-cover", clouds), ("kenya-croptype", kenya), ("oscd", oscd)):
        train = open_dataset(dataset, folder).train
        sent = pickle.loads(pickle.dumps(train))
        assert torch.equal(sent.chip(0)[0], train.chip(0)[0])
        assert len(pickle.dumps(train.read)) < 10_000


def test_helpers_refuse_what_would_leak():
    with pytest.raises(DataError, match="only"):
        held_out(["a", "a"], 0.5, 0, "x")
    for n in range(2, 9):
        groups = [str(i) for i in range(n)]
        assert 0 < len(held_out(groups, 0.01, 0, "x")) <= len(held_out(groups, 0.99, 0, "x")) < n
    with pytest.raises(DataError, match="every scene of the train split is also in a later one"):
        kept_apart({"train": ["a1", "b1"], "validation": ["a2"], "test": ["b2"]}, lambda k: k[0], "scene", "x")


def test_tiles_cover_everything_once_or_more():
    for height, width, side in ((64, 64, 64), (65, 64, 64), (150, 140, 64), (128, 192, 64)):
        covered = np.zeros((height, width), int)
        for top, left, h, w in tiles(height, width, side, "x"):
            covered[top : top + h, left : left + w] += 1
        assert covered.min() == 1
        if height % side == width % side == 0:
            assert covered.max() == 1
    assert window_of(window_key("a@b/c", (1, 2, 3, 4))) == ("a@b/c", (1, 2, 3, 4))


def test_grey_pictures_keep_their_values(tmp_path):
    from PIL import Image

    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    opaque = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    for i, picture in enumerate((grey, opaque[..., :3], opaque)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        assert torch.equal(torch.from_numpy(read_grey(tmp_path / f"{i}.png")), torch.from_numpy(grey))
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    assert np.array_equal(read_grey(tmp_path / "bits.png"), 255 * (grey > 100))
    opaque[0, 0, 3] = 0
    Image.fromarray(opaque).save(tmp_path / "hole.png")
    with pytest.raises(DataError, match="colours"):
        read_grey(tmp_path / "hole.png")
    Image.fromarray(grey.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"mode I;16.*expected 8 bit grey"):
        read_grey(tmp_path / "deep.png")
