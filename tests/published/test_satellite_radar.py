"""BigEarthNet v2, ETCI 2021 and CaFFe: bands by name, labels, cleaning, splits and damage, by value."""

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.contracts import DataError
from eosfm.data.bigearthnet import CLASSES
from eosfm.data.catalogue import open_dataset
from miniatures.satellite import (
    BIGEARTHNET_S2,
    write_bigearthnet_v2,
    write_caffe,
    write_etci2021,
    write_lines,
    write_png,
    write_tif,
)


def parts(splits):
    return splits.train, splits.validation, splits.test


@pytest.fixture(scope="module")
def bigearthnet(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bigearthnet")
    write_bigearthnet_v2(folder)
    return folder


@pytest.fixture(scope="module")
def etci(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("etci")
    write_etci2021(folder)
    return folder


@pytest.fixture(scope="module")
def caffe(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("caffe")
    write_caffe(folder)
    return folder


def test_bigearthnet_finds_bands_by_name(tmp_path):
    write_bigearthnet_v2(tmp_path)
    value = {"VV": -7.25, "VH": -15.5} | {b: 100.0 * (i + 1) for i, b in enumerate(BIGEARTHNET_S2)}
    for name, v in value.items():
        (file,) = (tmp_path / f"BigEarthNet-{'S1' if name in ('VV', 'VH') else 'S2'}").glob(f"*/*_26_0/*_{name}.tif")
        side = 20 if name in ("B01", "B09") else 120 if name in ("B02", "B03", "B04", "B08") else 60
        write_tif(file, np.full((1, side, side), v, np.float32 if v < 0 else np.uint16))
    expected = {
        "bigearthnet-v2": ("VV", "VH", *BIGEARTHNET_S2),
        "bigearthnet-v2-s1": ("VV", "VH", "VH"),
        "bigearthnet-v2-rgb": ("B04", "B03", "B02"),
    }
    for dataset, names in expected.items():
        train = open_dataset(dataset, tmp_path).train
        assert train.bands.names == names
        x, _ = train.chip(0)
        assert x.shape == (len(names), 128, 128)
        assert x.flatten(1).T.unique(dim=0).tolist() == [[value[n] for n in names]]  # dB keep their decimals
    assert {(b.sensor, str(b.unit)) for b in open_dataset("bigearthnet-v2", tmp_path).train.bands} == {
        ("sentinel-1", "db"),
        ("sentinel-2-l2a", "dn-1e4"),
    }


def test_bigearthnet_mirrors_its_border(bigearthnet):
    train = open_dataset("bigearthnet-v2-rgb", bigearthnet).train
    x, _ = train.chip(0)
    assert torch.equal(x[:, 3], x[:, 5])
    assert torch.equal(x[:, :, 124], x[:, :, 122])


def test_bigearthnet_labels_and_split(bigearthnet):
    splits = open_dataset("bigearthnet-v2", bigearthnet)
    assert [len(p) for p in parts(splits)] == [4, 2, 2]
    assert (len(splits.train.classes), splits.train.kind) == (19, "multilabel")
    named = [[CLASSES[i] for i in y.nonzero()[:, 0].tolist()] for y in splits.train.labels]
    assert named == [
        ["Arable land", "Pastures"],
        ["Marine waters"],
        ["Transitional woodland, shrub", "Inland waters"],
        ["Arable land", "Pastures"],
    ]
    assert [len(p) for p in parts(open_dataset("bigearthnet-v2-s1", bigearthnet, limit=1))] == [1, 1, 1]


def test_bigearthnet_reads_parquet_where_there_is_an_engine(bigearthnet, tmp_path, monkeypatch):
    import pandas

    shutil.copytree(bigearthnet, tmp_path / "b")
    frame = pandas.read_csv(bigearthnet / "metadata.csv")
    frame["labels"] = [np.array(v.split("|"), object) for v in frame["labels"]]
    (tmp_path / "b" / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"metadata\.parquet not found"):
        open_dataset("bigearthnet-v2", tmp_path / "b")
    frame.to_parquet(tmp_path / "b" / "metadata.parquet")
    here, csv = open_dataset("bigearthnet-v2", tmp_path / "b"), open_dataset("bigearthnet-v2", bigearthnet)
    assert [p.ids for p in parts(here)] == [p.ids for p in parts(csv)]
    frame.drop(columns="split").to_parquet(tmp_path / "b" / "metadata.parquet")
    with pytest.raises(DataError, match="no column split"):
        open_dataset("bigearthnet-v2", tmp_path / "b")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DataError, match=r"needs pandas and pyarrow.*read_parquet\('metadata\.parquet'\)"):
        open_dataset("bigearthnet-v2", tmp_path / "b")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Marine waters", "Marine water", r"labels \['Marine water'\]"),
        (",validation,", ",val,", "split 'val'"),
        (",S1A_IW_GRDH_1SDV_20170613T165043_33UUP_26_0,", ",../../x,", r"expected names like"),
    ],
)
def test_bigearthnet_refuses_odd_metadata(tmp_path, old, new, says):
    for sensor in ("S1", "S2"):
        (tmp_path / f"BigEarthNet-{sensor}").mkdir()
    write_bigearthnet_v2(tmp_path / "whole")
    text = (tmp_path / "whole" / "metadata.csv").read_text()
    assert old in text
    write_lines(tmp_path / "metadata.csv", text.replace(old, new).splitlines())
    with pytest.raises(DataError, match=says):
        open_dataset("bigearthnet-v2", tmp_path)


def test_bigearthnet_damage_is_named(tmp_path):
    with pytest.raises(DataError, match=r"BigEarthNet-S1, metadata\.parquet not found.*bigearth\.net"):
        open_dataset("bigearthnet-v2-s1", tmp_path)
    write_bigearthnet_v2(tmp_path)
    shutil.rmtree(tmp_path / "BigEarthNet-S2")
    open_dataset("bigearthnet-v2-s1", tmp_path)  # needs Sentinel-1 only
    (file,) = (tmp_path / "BigEarthNet-S1").glob("*/*_26_1/*_VH.tif")
    write_tif(file, np.zeros((1, 119, 120), np.float32))
    with pytest.raises(DataError, match=r"_26_1_VH\.tif: shape \(1, 119, 120\)"):
        open_dataset("bigearthnet-v2-s1", tmp_path).train.chip(1)
    shutil.rmtree(file.parent)
    with pytest.raises(DataError, match=r"1 files are missing.*_26_1_VV\.tif"):
        open_dataset("bigearthnet-v2-s1", tmp_path)


def test_readers_can_be_sent_to_worker_processes(bigearthnet, etci, caffe):
    for dataset, folder in (("bigearthnet-v2", bigearthnet), ("etci2021", etci), ("caffe-full", caffe)):
        train = open_dataset(dataset, folder).train
        sent = pickle.loads(pickle.dumps(train))
        assert torch.equal(sent.chip(0)[0], train.chip(0)[0])
        assert len(pickle.dumps(train.read)) < 10_000


def test_etci_is_cleaned_and_split_by_region(etci):
    splits = open_dataset("etci2021", etci)
    regions = [{k.split("/")[1].split("_")[0] for k in p.ids} for p in parts(splits)]
    assert regions == [{"bangladesh"}, {"nebraska"}, {"florence"}]
    assert [len(p) for p in parts(splits)] == [4, 2, 2]  # of 5, 3 and 3: one empty tile each
    assert not any(k.endswith(("x-4_y-0", "nebraska_20170309t002110/x-2_y-0")) for p in parts(splits) for k in p.ids)
    assert "validation nebraska; tiles of one single value left out, and 0 incomplete" in splits.rule
    assert str(splits.train.bands) == "sentinel-1:VV,VH,VH@8bit"
    few = open_dataset("etci2021", etci, limit=2, seed=1)
    assert [len(p) for p in parts(few)] == [2, 2, 2]
    assert set(few.train.ids) <= set(splits.train.ids)


def test_etci_channels_and_flood_by_value(etci, tmp_path):
    shutil.copytree(etci, tmp_path / "e")
    tiles = tmp_path / "e" / "train" / "bangladesh_20170314t115609" / "tiles"
    stem = "bangladesh_20170314t115609_x-1_y-0"
    vv, vh, flood = (np.full((256, 256), v, np.uint8) for v in (130, 90, 0))
    vv[0, 0] = vh[0, 0] = 0  # calm water, not nodata
    flood[:, 200:] = 255
    write_png(tiles / "vv" / f"{stem}_vv.png", vv, colours=True)
    write_png(tiles / "vh" / f"{stem}_vh.png", vh, colours=True)
    write_png(tiles / "flood_label" / f"{stem}.png", flood)
    train = open_dataset("etci2021", tmp_path / "e").train
    at = train.ids.index("train/bangladesh_20170314t115609/x-1_y-0")
    x, y = train.chip(at)
    assert x[:, 9, 9].tolist() == [130, 90, 90]
    assert x[:, 0, 0].tolist() == [0, 0, 0]
    assert y[:, :200].unique().tolist() == [0]
    assert y[:, 200:].unique().tolist() == [1]
    flood[3, 3] = 128
    write_png(tiles / "flood_label" / f"{stem}.png", flood)
    with pytest.raises(DataError, match=r"x-1_y-0\.png: label values 128; expected 0, 255"):
        train.chip(at)


def test_etci_pairs_by_name_and_counts_what_is_missing(etci, tmp_path):
    shutil.copytree(etci, tmp_path / "e")
    tiles = tmp_path / "e" / "train" / "bangladesh_20170314t115609" / "tiles"
    (tiles / "flood_label" / "bangladesh_20170314t115609_x-0_y-0.png").unlink()  # a sorted zip would shift all labels
    splits = open_dataset("etci2021", tmp_path / "e")
    assert not any(k.endswith("115609/x-0_y-0") for k in splits.train.ids)
    assert "1 incomplete" in splits.rule
    shutil.rmtree(tmp_path / "e" / "test" / "florence_20180510t231343" / "tiles" / "vh")
    with pytest.raises(DataError, match=r"test: 0 complete tiles, 3 without VH or flood_label"):
        open_dataset("etci2021", tmp_path / "e")


def test_etci_refuses_colours_and_damage(etci, tmp_path):
    with pytest.raises(DataError, match=r"ETCI 2021: train, test not found.*val_with_ref_labels\.zip"):
        open_dataset("etci2021", tmp_path)
    shutil.copytree(etci, tmp_path / "e")
    file = next((tmp_path / "e").glob("train/nebraska*/tiles/vv/*x-0_y-0_vv.png"))
    whole = file.read_bytes()
    from PIL import Image

    Image.fromarray(np.dstack([np.full((256, 256), v, np.uint8) for v in (1, 2, 3)])).save(file)
    with pytest.raises(DataError, match="a picture in colours"):
        open_dataset("etci2021", tmp_path / "e")
    file.write_bytes(whole[:2000])
    with pytest.raises(DataError, match=r"x-0_y-0_vv\.png: cannot be read as a PNG"):
        open_dataset("etci2021", tmp_path / "e")


def test_caffe_zones_and_grey_by_value(caffe, tmp_path):
    shutil.copytree(caffe, tmp_path / "c")
    zones = np.repeat(np.array([0, 64, 127, 254], np.uint8), 128)[None].repeat(512, axis=0)
    data, name = tmp_path / "c" / "caffe", "Mapple_2011-07-18_TSX_7_1_104"
    write_png(data / "zones" / "test" / f"{name}_zones__0_0_0.png", zones)
    write_png(data / "sar_images" / "test" / f"{name}__0_0_0.png", zones // 2 + 1)
    test = open_dataset("caffe-full", tmp_path / "c").test
    x, y = test.chip(1)
    assert "Mapple" in test.ids[1]
    assert str(test.bands) == "sar:VV,VV,VV@8bit"
    assert y[5].reshape(4, 128).unique(dim=1)[:, 0].tolist() == [0, 1, 2, 3]
    assert x[:, 5, ::128].tolist() == [[1, 33, 64, 128]] * 3
    zones[0, 0] = 255
    write_png(data / "zones" / "test" / f"{name}_zones__0_0_0.png", zones)
    with pytest.raises(DataError, match=r"_zones__0_0_0\.png: label values 255; expected 0, 64, 127, 254"):
        test.chip(1)


def test_caffe_tiles_and_scenes(caffe):
    whole = open_dataset("caffe-full", caffe)
    assert [len(p) for p in parts(whole)] == [4, 2, 2]
    scenes = [{k.split("/")[1].split("_zones_")[0] for k in p.ids} for p in parts(whole)]
    assert not (scenes[0] & scenes[1] or scenes[0] & scenes[2] or scenes[1] & scenes[2])
    cut = open_dataset("caffe-full", caffe / "caffe", tile=320)  # 512 is no multiple of it
    assert [len(p) for p in parts(cut)] == [16, 8, 8]
    x, y = whole.train.chip(0)
    last, labels = cut.train.chip(3)
    assert torch.equal(last, x[:, 192:, 192:])
    assert torch.equal(labels, y[192:, 192:])
    assert [len(p) for p in parts(open_dataset("caffe-full", caffe, limit=1, tile=256))] == [1, 1, 1]
    with pytest.raises(DataError, match="tiles of 513 pixels from 512 x 512"):
        open_dataset("caffe-full", caffe, tile=513)


def test_caffe_training_patches_of_a_validation_scene_are_left_out(caffe, tmp_path):
    shutil.copytree(caffe, tmp_path / "c")
    for kind, infix in (("zones", "_zones_"), ("sar_images", "_")):
        folder = tmp_path / "c" / "caffe" / kind
        shutil.copy(folder / "val" / f"SI_2013-08-14_TSX_7_1_125{infix}_0_0_0.png",
                    folder / "train" / f"SI_2013-08-14_TSX_7_1_125{infix}_9_9_9.png")  # fmt: skip
    splits = open_dataset("caffe-full", tmp_path / "c")
    assert not any("SI_" in k for k in splits.train.ids)
    assert "1 chips left out whose scene is in a later split" in splits.rule


def test_caffe_damage_is_named(caffe, tmp_path):
    with pytest.raises(DataError, match=r"CaFFe: sar_images/train.*huggingface\.co/datasets/torchgeo/caffe"):
        open_dataset("caffe-full", tmp_path)
    shutil.copytree(caffe, tmp_path / "c")
    next((tmp_path / "c").glob("caffe/sar_images/val/*.png")).unlink()
    with pytest.raises(DataError, match=r"1 files are missing.*sar_images/val"):
        open_dataset("caffe-full", tmp_path / "c")
