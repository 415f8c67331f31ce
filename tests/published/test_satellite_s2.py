"""EuroSAT with 13 bands and SEN12MS: band order, labels, splits and damage, by value."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.contracts import DataError, RasterError
from eosfm.data.catalogue import open_dataset
from eosfm.data.real_chips import EUROSAT_CLASSES
from eosfm.tasks.kinds import IGNORE
from miniatures.satellite import EUROSAT_TIF, write_eurosat_s2, write_lines, write_sen12ms, write_tif

S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
# what each file's bands are, in file order: TorchGeo 0.8.1, EuroSAT.all_band_names and SEN12MS.band_names
EUROSAT_FILE = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")


def number(name: str) -> int:
    """A value of its own for every band: 8.5 for B8A."""
    return 850 if name == "B8A" else {"VV": -7, "VH": -15}.get(name) or 100 * int(name[1:])


def parts(splits):
    return splits.train, splits.validation, splits.test


@pytest.fixture(scope="module")
def eurosat(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("eurosat")
    write_eurosat_s2(folder)
    return folder


@pytest.fixture(scope="module")
def sen12ms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sen12ms")
    write_sen12ms(folder)
    return folder


def test_eurosat_reads_its_lists_with_units_and_classes(eurosat):
    splits = open_dataset("eurosat-s2", eurosat)
    assert str(splits.train.bands) == f"sentinel-2-l1c:{','.join(S2)}@dn-1e4"
    assert [len(p) for p in parts(splits)] == [10, 10, 10]
    assert splits.train.classes == EUROSAT_CLASSES
    assert splits.train.labels.tolist() == list(range(10))
    assert splits.test.labels.tolist() == list(range(10))
    assert all(p.unit_warnings() == [] for p in parts(splits))
    assert "Neumann" in splits.rule
    assert "longitude" in open_dataset("eurosat-s2-spatial", eurosat).rule


def test_eurosats_last_band_is_b8a(eurosat, tmp_path):
    write_eurosat_s2(tmp_path)
    values = np.stack([np.full((64, 64), number(b), np.uint16) for b in EUROSAT_FILE])
    values[:, :3, :5] = 0  # nodata
    values[3, 10, 10] = 0  # a value: the other bands are not 0 there
    write_tif(tmp_path / EUROSAT_TIF / "River" / "River_1.tif", values)
    splits = open_dataset("eurosat-s2", tmp_path)
    x, y = splits.train.chip(splits.train.ids.index("River/River_1.tif"))
    assert y.item() == EUROSAT_CLASSES.index("River") == 8
    assert dict(zip(splits.train.bands.names, x[:, 40, 40].tolist(), strict=True)) == {b: number(b) for b in S2}
    assert x[:, :3, :5].isnan().all()
    assert x.isnan().sum() == 13 * 15
    assert x[splits.train.bands.names.index("B04"), 10, 10] == 0


def test_eurosat_limit_is_drawn_by_seed(eurosat):
    a, b, c = (open_dataset("eurosat-s2", eurosat, limit=3, seed=s) for s in (0, 0, 5))
    assert [len(p) for p in parts(a)] == [3, 3, 3]
    assert a.train.ids == b.train.ids != c.train.ids
    assert "at most 3" in a.rule
    with pytest.raises(DataError, match="limit 0"):
        open_dataset("eurosat-s2", eurosat, limit=0)


def test_eurosat_damage_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"eurosat-train\.txt.*not found.*hf\.co/datasets/torchgeo/eurosat.*eosfm train"
    ):
        open_dataset("eurosat-s2", tmp_path)
    write_eurosat_s2(tmp_path)
    file = tmp_path / EUROSAT_TIF / "Forest" / "Forest_1.tif"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    splits = open_dataset("eurosat-s2", tmp_path)
    with pytest.raises(RasterError, match="Forest_1"):
        splits.train.labels  # noqa: B018 (reads every chip)
    file.unlink()
    with pytest.raises(DataError, match=r"1 files are missing.*Forest_1\.tif"):
        open_dataset("eurosat-s2", tmp_path)
    write_tif(file, np.ones((12, 64, 64), np.uint16))
    with pytest.raises(DataError, match=r"Forest_1\.tif: 12 bands; expected 13"):
        open_dataset("eurosat-s2", tmp_path).train.labels  # noqa: B018
    write_tif(file, np.ones((13, 63, 64), np.uint16))
    with pytest.raises(DataError, match=r"Forest_1\.tif: 63 x 64 pixels; expected 64 x 64"):
        open_dataset("eurosat-s2", tmp_path).train.labels  # noqa: B018
    write_lines(tmp_path / "eurosat-val.txt", ["Tundra_1.jpg"])
    with pytest.raises(DataError, match=r"eurosat-val\.txt: 'Tundra_1\.jpg'"):
        open_dataset("eurosat-s2", tmp_path)


def test_sen12ms_bands_by_value(sen12ms, tmp_path):
    write_sen12ms(tmp_path)
    ones = np.ones((256, 256))
    name = "ROIs1158_spring_{}_1_p30.tif"
    s1 = np.stack([ones * number(b) for b in ("VV", "VH")]).astype(np.float32)
    s1[:, 0, 0] = np.nan
    s2 = np.stack([ones * number(b) for b in S2]).astype(np.uint16)
    s2[:, 255, :] = 0
    write_tif(tmp_path / "ROIs1158_spring" / "s1_1" / name.format("s1"), s1)
    write_tif(tmp_path / "ROIs1158_spring" / "s2_1" / name.format("s2"), s2)
    expected = {
        "sen12ms-all": ("VV", "VH", *S2),
        "sen12ms-s2": S2,
        "sen12ms-rgb": ("B04", "B03", "B02"),
        "sen12ms-s1": ("VV", "VH", "VH"),
    }
    for dataset, names in expected.items():
        splits = open_dataset(dataset, tmp_path)
        part = next(p for p in parts(splits) if name.format("s2") in p.ids)
        assert part.bands.names == names
        x, _ = part.chip(part.ids.index(name.format("s2")))
        assert x[:, 100, 100].tolist() == [number(n) for n in names]
        radar = torch.tensor([b.sensor == "sentinel-1" for b in part.bands])
        assert x[:, 0, 0].isnan().tolist() == radar.tolist()
        assert x[:, 255, 7].isnan().tolist() == (~radar).tolist()
    units = {b.sensor: str(b.unit) for b in open_dataset("sen12ms-all", tmp_path).train.bands}
    assert units == {"sentinel-1": "db", "sentinel-2-l1c": "dn-1e4"}


def test_sen12ms_labels_are_dfc2020s(sen12ms, tmp_path):
    write_sen12ms(tmp_path)
    igbp = np.zeros((4, 256, 256), np.uint16)
    igbp[0, 0, :18] = np.arange(18)
    igbp[0, 1] = 255
    igbp[1:] = 13  # the other layers must not be read
    cover = tmp_path / "ROIs2017_winter" / "lc_146" / "ROIs2017_winter_lc_146_p30.tif"
    write_tif(cover, igbp)
    test = open_dataset("sen12ms-s1", tmp_path).test
    _, y = test.chip(0)
    names = [None if v == IGNORE else test.classes[v] for v in y[0, :18].tolist()]
    assert names == [None, *["forest"] * 5, *["shrubland"] * 2, *["savanna"] * 2, "grassland", "wetlands", "croplands",
                     "urban and built-up", "croplands", "snow and ice", "barren", "water"]  # fmt: skip
    assert (y[1] == IGNORE).all()
    igbp[0, 9, 9] = 18
    write_tif(cover, igbp)
    with pytest.raises(DataError, match=r"lc_146_p30\.tif: label values 18; expected 0, 1"):
        open_dataset("sen12ms-s1", tmp_path).test.chip(0)


def test_sen12ms_splits_by_scene(sen12ms):
    seen = set()
    for seed in range(6):
        splits = open_dataset("sen12ms-rgb", sen12ms, seed=seed)
        scenes = [{k.rpartition("_")[0] for k in p.ids} for p in parts(splits)]
        assert scenes[2] == {"ROIs2017_winter_s2_146"}
        assert not (scenes[0] & scenes[1] or scenes[0] & scenes[2] or scenes[1] & scenes[2])
        assert [len(p) for p in parts(splits)] == [4, 2, 2]
        assert {p.size for p in parts(splits)} == {(256, 256)}
        seen |= scenes[1]
    assert len(seen) > 1
    assert [len(p) for p in parts(open_dataset("sen12ms-rgb", sen12ms, limit=1))] == [1, 1, 1]


def test_a_training_scene_that_is_also_tested_on_is_left_out(tmp_path):
    write_sen12ms(tmp_path)
    train = (tmp_path / "train_list.txt").read_text().split()
    write_lines(tmp_path / "train_list.txt", [*train, "ROIs2017_winter_s2_146_p99.tif"])
    splits = open_dataset("sen12ms-s2", tmp_path)
    assert not any("146" in k for k in (*splits.train.ids, *splits.validation.ids))
    assert "1 chips left out whose scene is in a later split" in splits.rule


def test_sen12ms_damage_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train_list\.txt, test_list\.txt not found.*500 GB.*m1474000"):
        open_dataset("sen12ms-s2", tmp_path)
    write_sen12ms(tmp_path)
    file = tmp_path / "ROIs1970_fall" / "s2_30" / "ROIs1970_fall_s2_30_p31.tif"
    file.unlink()
    with pytest.raises(DataError, match=r"ROIs1970_fall_s2_30_p31\.tif"):
        open_dataset("sen12ms-s2", tmp_path)
    open_dataset("sen12ms-s1", tmp_path)  # needs no optical file
    write_tif(
        tmp_path / "ROIs2017_winter" / "s1_146" / "ROIs2017_winter_s1_146_p30.tif", np.ones((2, 255, 256), np.float32)
    )
    with pytest.raises(DataError, match=r"s1_146_p30\.tif: 255 x 256 pixels"):
        open_dataset("sen12ms-s1", tmp_path).test.chip(0)
    write_lines(tmp_path / "test_list.txt", ["ROIs1158_spring_s1_1_p30.tif"])
    with pytest.raises(DataError, match=r"test_list\.txt: 'ROIs1158_spring_s1_1_p30\.tif'"):
        open_dataset("sen12ms-s1", tmp_path)
