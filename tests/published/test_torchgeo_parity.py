"""Our readers and TorchGeo's classes, on the same miniatures: the same chips, bands and labels, value by value.

Where we differ on purpose (nodata, ignored labels, dB with decimals, cleaning), the difference is undone here and named.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.data.catalogue import open_dataset
from eosfm.data.published import bigearthnet_v2, caffe, cloud_cover, etci2021, eurosat, kenya, oscd, sen12ms
from eosfm.data.published.satellite_files import window_of
from eosfm.tasks.kinds import IGNORE
from miniatures import pangaea, pangaea_series, satellite

torchgeo = pytest.importorskip("torchgeo.datasets")


def parts(splits):
    return splits.train, splits.validation, splits.test


def test_eurosat(tmp_path: Path):
    satellite.write_eurosat_s2(tmp_path)
    assert torchgeo.EuroSAT.all_band_names == eurosat.FILE_BANDS
    splits = open_dataset("eurosat-s2", tmp_path)
    for part, split in zip(parts(splits), ("train", "val", "test"), strict=True):
        theirs = torchgeo.EuroSAT(tmp_path, split, bands=part.bands.names, download=False)
        assert tuple(theirs.classes) == part.classes
        chips = {Path(path).name: theirs[i] for i, (path, _) in enumerate(theirs.samples)}
        assert set(chips) == {Path(k).name for k in part.ids}
        for i, key in enumerate(part.ids):
            x, y = part.chip(i)
            assert torch.equal(x, chips[Path(key).name]["image"])
            assert y == chips[Path(key).name]["label"]


def test_sen12ms(tmp_path: Path):
    from torchgeo.datamodules import SEN12MSDataModule

    satellite.write_sen12ms(tmp_path)
    mapping = SEN12MSDataModule.DFC2020_CLASS_MAPPING  # 0 is unclassified, classes count from 1
    ours = torch.tensor([sen12ms.IGBP[v] for v in range(18)])
    assert torch.equal(ours.where(ours != IGNORE, -1) + 1, mapping)
    splits = open_dataset("sen12ms-all", tmp_path)
    assert splits.train.bands.names == torchgeo.SEN12MS.BAND_SETS["all"]
    for split, mine in (("test", [splits.test]), ("train", [splits.train, splits.validation])):
        theirs = torchgeo.SEN12MS(tmp_path, split)
        assert sorted(theirs.ids) == sorted(k for p in mine for k in p.ids)
        for part in mine:
            for i, key in enumerate(part.ids):
                sample = theirs[theirs.ids.index(key)]
                x, y = part.chip(i)
                assert torch.equal(x, sample["image"].float())
                assert torch.equal(y.where(y != IGNORE, -1) + 1, mapping[sample["mask"]])


def test_bigearthnet_v2(tmp_path: Path, monkeypatch):
    satellite.write_bigearthnet_v2_published(tmp_path)
    assert tuple(torchgeo.BigEarthNetV2.class_set) == bigearthnet_v2.CLASSES
    monkeypatch.setattr(torchgeo.BigEarthNetV2, "_verify", lambda self: None)  # it wants the reference maps too
    splits = open_dataset("bigearthnet-v2", tmp_path)
    inner = (..., slice(4, 124), slice(4, 124))  # without the mirrored border
    for part, split in zip(parts(splits), ("train", "val", "test"), strict=True):
        theirs = torchgeo.BigEarthNetV2(tmp_path, split, bands="all")
        assert [k.split("|")[0] for k in part.ids] == theirs.metadata_df["patch_id"].tolist()
        for i in range(len(part)):
            x, y = part.chip(i)
            vh_vv = theirs._load_image(i, "s1")  # rounded to whole dB, VH before VV
            assert torch.equal(x[[1, 0]][inner].round(), vh_vv)
            native = [2 + part.bands.names[2:].index(b) for b in ("B02", "B03", "B04", "B08")]
            assert torch.equal(x[native][inner], theirs._load_image(i, "s2")[[1, 2, 3, 7]])
            coarse = (x[2:][inner] - theirs._load_image(i, "s2")).abs()  # bilinear twice: torch's, and GDAL's rounded
            assert coarse.mean() < 30
            assert torch.equal(y, theirs._load_target(i))


def test_etci2021(tmp_path: Path):
    satellite.write_etci2021(tmp_path)
    splits = open_dataset("etci2021", tmp_path)
    for split, mine in (("train", [splits.train, splits.validation]), ("val", [splits.test])):
        theirs = torchgeo.ETCI2021(tmp_path, split)
        where = {Path(f["vv"]).name: i for i, f in enumerate(theirs.files)}
        for part in mine:
            for i, key in enumerate(part.ids):
                sample = theirs[where[etci2021._path(tmp_path, key, "vv").name]]
                x, y = part.chip(i)
                assert torch.equal(x, sample["image"][[0, 3, 3]])  # VV and VH, three equal channels each
                assert torch.equal(y, sample["mask"][1])  # water bodies, flood
        empty = len(theirs) - sum(map(len, mine))
        assert empty == (2 if split == "train" else 1)


def test_caffe(tmp_path: Path):
    satellite.write_caffe(tmp_path)
    assert list(torchgeo.CaFFe.px_class_values_zones) == list(caffe._ZONES)
    splits = open_dataset("caffe-full", tmp_path)
    for part, split in zip(parts(splits), ("train", "val", "test"), strict=True):
        theirs = torchgeo.CaFFe(tmp_path, split)
        where = {Path(p).name: i for i, p in enumerate(theirs.fpaths)}
        assert set(where) == {Path(window_of(k)[0]).name for k in part.ids}
        for i, key in enumerate(part.ids):
            sample = theirs[where[Path(window_of(key)[0]).name]]
            x, y = part.chip(i)
            assert torch.equal(x, sample["image"].expand(3, -1, -1))
            assert torch.equal(y, sample["mask_zones"])


def test_cloud_cover(tmp_path: Path):
    satellite.write_cloud_cover(tmp_path)
    assert torchgeo.CloudCoverDetection.all_bands == cloud_cover.FILES
    splits = open_dataset("cloud-cover", tmp_path)
    for part, folder in torchgeo.CloudCoverDetection.splits.items():
        (tmp_path / folder).symlink_to(part)  # TorchGeo 0.9 looks there, 0.8 in train/ and test/
    for split, mine in (("train", [splits.train, splits.validation]), ("test", [splits.test])):
        theirs = torchgeo.CloudCoverDetection(tmp_path, split, bands=splits.train.bands.names)
        chips = theirs.metadata["chip_id"].tolist()
        assert sorted(chips) == sorted(window_of(k)[0].split("/")[2] for p in mine for k in p.ids)
        for part in mine:
            for i, key in enumerate(part.ids):
                sample = theirs[chips.index(window_of(key)[0].split("/")[2])]
                x, y = part.chip(i)
                assert torch.equal(x, sample["image"])
                assert torch.equal(y, sample["mask"])


def test_kenya_croptype(tmp_path: Path, monkeypatch):
    satellite.write_kenya(tmp_path)
    cls = torchgeo.CV4AKenyaCropType
    assert cls.all_bands[:-1] == satellite.BIGEARTHNET_S2
    assert sorted(t for tiles in kenya.TILES.values() for t in tiles) == sorted(cls.tiles)
    for name, value in (("tile_height", 200), ("tile_width", 192), ("dates", satellite.KENYA_DATES)):
        monkeypatch.setattr(cls, name, value)
    theirs = cls(tmp_path, bands=cls.all_bands[:-1])
    for part in parts(open_dataset("kenya-croptype", tmp_path, tile=64)):
        for i, key in enumerate(part.ids):
            tile, (top, left, h, w) = window_of(key)
            at = (..., slice(top, top + h), slice(left, left + w))
            x, y = part.chip(i)
            assert torch.equal(x, theirs._load_single_image_tile(tile, satellite.KENYA_DATES[1])[at])
            crops = theirs._load_label_tile(tile)[0][at]  # counts from 1, 0 is no label
            assert torch.equal(y.where(y != IGNORE, -1) + 1, crops.long())


def test_oscd(tmp_path: Path):
    satellite.write_oscd(tmp_path)
    splits = open_dataset("oscd", tmp_path)
    assert splits.train.bands.names == torchgeo.OSCD.all_bands
    assert oscd._STEM in str(next(tmp_path.iterdir()))
    for split, mine in (("train", [splits.train, splits.validation]), ("test", [splits.test])):
        theirs = torchgeo.OSCD(tmp_path, split)
        cities = {f["region"]: theirs[i] for i, f in enumerate(theirs.files)}
        found: dict[str, np.ndarray] = {c: np.zeros((150, 140), bool) for c in cities}
        for part in mine:
            for i, key in enumerate(part.ids):
                name, (top, left, h, w) = window_of(key)
                city = name.split("/")[1]
                at = (..., slice(top, top + h), slice(left, left + w))
                x, y = part.chip(i)
                assert torch.equal(x, cities[city]["image"][at].flatten(0, 1))
                assert torch.equal(y, cities[city]["mask"][0][at])
                found[city][at] = True
        assert all(f.all() for f in found.values())


def test_xview2(tmp_path: Path):
    pangaea.write_xview2(tmp_path)
    splits = open_dataset("xview2", tmp_path, tile=64)
    assert splits.train.classes[1:] == tuple(c.replace("-", " ") for c in torchgeo.XView2.classes[1:])
    theirs = torchgeo.XView2(tmp_path, "train")
    files = {Path(f["image1"]).name: i for i, f in enumerate(theirs.files)}
    found = 0
    for part in (splits.train, splits.validation):
        for i, key in enumerate(part.ids):
            first = Path(key.split("|")[0])
            if first.parts[0] == "train":
                sample = theirs[files[first.name]]
                x, y = part.chip(i)
                after = theirs._load_target(theirs.files[files[first.name]]["mask2"])
                assert torch.equal(x, sample["image"].flatten(0, 1)) and torch.equal(y, after)
                found += 1
    assert found == len(theirs) == 2


def test_pastis(tmp_path: Path):
    root = tmp_path / torchgeo.PASTIS.directory
    pangaea_series.write_pastis(root)
    splits = open_dataset("pastis", tmp_path, dates=7)
    assert [c.replace("_", " ").replace(",", "") for c in torchgeo.PASTIS.classes[:19]] == [
        c.replace(",", "") for c in splits.train.classes
    ]
    for part, folds in zip(parts(splits), ((1, 2, 3), (4,), (5,)), strict=True):
        optical, radar = (torchgeo.PASTIS(tmp_path, folds=folds, bands=b) for b in ("s2", "s1a"))
        assert [str(i) for i in optical.idxs] == list(part.ids)
        for i in range(len(part)):
            x, y = part.chip(i)
            series = x.reshape(7, 12, 128, 128)
            assert torch.equal(series[:, :10], optical[i]["image"])  # all seven dates, in order
            assert torch.equal(series[[0, -1], 10:], radar[i]["image"][[0, -1], :2])  # of nine, first and last
            assert torch.equal(y.where(y != IGNORE, 19), optical[i]["mask"])


def test_biomassters(tmp_path: Path):
    pangaea_series.write_biomassters(tmp_path)
    splits = open_dataset("biomassters", tmp_path)
    theirs = torchgeo.BioMassters(tmp_path, "train", as_time_series=True)
    order = sorted(k.split("/")[1] for p in (splits.train, splits.validation) for k in p.ids)
    assert len(theirs) == len(order)
    for part in (splits.train, splits.validation):
        for i, key in enumerate(part.ids):
            x, y = part.chip(i)
            sample = theirs[order.index(key.split("/")[1])]
            months = x.reshape(12, 12, 64, 64)
            seen = [m for m in range(12) if not months[m, :10].isnan().all()]
            assert torch.equal(months[seen][:, :10].int(), sample["image_S2"][:, :10])  # whole numbers there, NaN is 0
            assert torch.equal(months[:, 10:].int(), sample["image_S1"][:, :2])
            assert torch.equal(y, sample["label"][0])
