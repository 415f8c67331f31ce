"""Readers of real data: on fakes in exactly the published layout, and on the real files where they are at hand.

The real files are looked for in $EOSFM_SHARED_DATA, else in ../shared/data beside the repository.
"""

import csv
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.contracts import DataError, RasterError
from eosfm.data import bigearthnet
from eosfm.data.bigearthnet import CLASSES, CORINE, DROPPED, to_19
from eosfm.data.folders import channel_order, data_folder, few, grid, read_rows, stripes
from eosfm.data.real import (
    EUROSAT_CLASSES,
    READERS,
    bigearthnet_s1,
    bigearthnet_s2,
    caffe,
    cloud_masks,
    eurosat_rgb,
    mstar,
    real_root,
    sen1floods11,
    uc_merced,
)
from eosfm.tasks.kinds import IGNORE

Image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")

ROOT = Path(os.environ.get("EOSFM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(not ROOT.is_dir(), reason=f"real data is not at {ROOT}; set EOSFM_SHARED_DATA")


def parts(splits):
    return splits.train, splits.validation, splits.test


def jpeg(value, size=64, mode="RGB"):
    out = io.BytesIO()
    height = size if isinstance(size, int) else size[1]
    width = size if isinstance(size, int) else size[0]
    pixels = np.full((height, width, 3) if mode == "RGB" else (height, width), value, np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


@pytest.fixture
def fake_eurosat(tmp_path):
    """Ten classes, four tiles each (2 train, 1 validation, 1 test), in the layout of the real archive."""
    folder = tmp_path / "eurosat_rgb"
    folder.mkdir()
    rows = {"train": [], "validation": [], "test": []}
    with zipfile.ZipFile(folder / "EuroSAT.zip", "w") as z:
        for label, c in enumerate(EUROSAT_CLASSES):
            for i, split in enumerate(("train", "train", "validation", "test"), start=1):
                z.writestr(f"2750/{c}/{c}_{i}.jpg", jpeg(20 * label))
                rows[split].append((len(rows[split]), f"{c}/{c}_{i}.jpg", label, c))
    for split, lines in rows.items():
        with (folder / f"{split}.csv").open("w", newline="") as f:
            csv.writer(f).writerows([("", "Filename", "Label", "ClassName"), *lines[::-1]])
    return tmp_path


class TestEurosat:
    def test_layout(self, fake_eurosat):
        splits = eurosat_rgb(fake_eurosat)
        assert [p.images.shape for p in parts(splits)] == [(20, 3, 64, 64), (10, 3, 64, 64), (10, 3, 64, 64)]
        assert splits.train.images.dtype == torch.uint8
        assert str(splits.train.bands) == "sentinel-2-l1c:B04,B03,B02@8bit"
        assert (splits.train.kind, splits.train.classes, splits.train.licence) == (
            "classification",
            EUROSAT_CLASSES,
            "MIT",
        )
        for p in parts(splits):
            brightness = p.images.float().mean((1, 2, 3)).div(20).round().long()
            assert torch.equal(brightness, p.labels)  # every picture kept its own label
            assert all(EUROSAT_CLASSES[y] in i for i, y in zip(p.ids, p.labels.tolist(), strict=True))

    def test_a_group_of_classes_is_labelled_anew(self, fake_eurosat):
        splits = eurosat_rgb(fake_eurosat, classes=["River", "Forest"])
        assert splits.test.classes == ("River", "Forest")
        assert dict(zip(splits.test.ids, splits.test.labels.tolist(), strict=True)) == {
            "2750/River/River_4.jpg": 0,
            "2750/Forest/Forest_4.jpg": 1,
        }

    def test_few_of_each_class_and_the_folder_itself_and_unpacked(self, fake_eurosat):
        folder = fake_eurosat / "eurosat_rgb"
        some = eurosat_rgb(folder, per_class=1, seed=3)
        assert some.train.labels.bincount().tolist() == [1] * 10
        assert "seed 3" in some.rule
        with zipfile.ZipFile(folder / "EuroSAT.zip") as z:
            z.extractall(folder)
        (folder / "EuroSAT.zip").unlink()
        again = eurosat_rgb(folder, per_class=1, seed=3)
        assert (again.train.ids, again.train.sha256()) == (some.train.ids, some.train.sha256())
        draws = {eurosat_rgb(folder, per_class=1, seed=s).train.ids for s in range(4)}
        assert len(draws) > 1

    def test_unknown_repeated_and_single_classes(self, fake_eurosat):
        for classes in (["Forest", "Ocean"], ["Forest", "Forest"], ["Forest"]):
            with pytest.raises(DataError, match="two or more different ones; known: AnnualCrop"):
                eurosat_rgb(fake_eurosat, classes=classes)

    def test_what_is_missing_is_named(self, fake_eurosat):
        with pytest.raises(DataError, match=r"expected train\.csv, validation\.csv, test\.csv in .*nowhere"):
            eurosat_rgb(fake_eurosat / "nowhere")
        folder = fake_eurosat / "eurosat_rgb"
        table = folder / "test.csv"
        good = table.read_text()
        for bad, why in [
            (good.replace("Forest_4", "Forest_99"), "no member '2750/Forest/Forest_99.jpg'"),
            (good.replace("Forest_4.jpg,1", "Forest_4.jpg,2"), "label 2; known"),
            (good.replace("Forest/Forest_4", "../Forest_4"), "no member"),
            (good.replace("Filename", "File"), "no column Filename"),
            (good + "5,River/River_4.jpg\n", "row 11 is cut short"),
        ]:
            table.write_text(bad)
            with pytest.raises(DataError, match=why):
                eurosat_rgb(fake_eurosat)
        table.write_text(good)
        (folder / "EuroSAT.zip").unlink()
        with pytest.raises(DataError, match=r"neither EuroSAT\.zip nor the unpacked folder 2750"):
            eurosat_rgb(fake_eurosat)

    def test_a_tile_in_two_splits_is_refused(self, fake_eurosat):
        table = fake_eurosat / "eurosat_rgb" / "test.csv"
        table.write_text(table.read_text().replace("Forest_4", "Forest_1"))
        with pytest.raises(DataError, match="both the train and the test split"):
            eurosat_rgb(fake_eurosat)


class TestChips:
    def test_uc_merced_splits_by_blocks_of_numbers(self, tmp_path):
        numbers = [0, 1, 2, 4, 5, 7, 8, 9, 10, 12]
        with zipfile.ZipFile(tmp_path / "uc_merced_jpg.zip", "w") as z:
            for c in ("beach", "river"):
                for n in reversed(numbers):
                    z.writestr(f"UCMerced/{c}/{c}{n:02}.jpg", jpeg(n, (256, 251) if n == 4 else 256))
        splits = uc_merced(tmp_path, size=64)
        assert splits.train.images.shape == (12, 3, 64, 64)
        assert [p.images[: len(p) // 2, 0, 0, 0].tolist() for p in parts(splits)] == [
            numbers[:6],
            numbers[6:8],
            numbers[8:],
        ]
        assert "0.3 m" in splits.train.source and "1.2 m" in splits.train.source

    def test_mstar_crops_all_classes_to_one_size(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "mstar_jpeg.zip", "w") as z:
            for c, size in (("T72", 128), ("ZIL131", (192, 193)), ("BRDM2", (128, 129))):
                for n in range(10):
                    z.writestr(f"mstar/{c}/HB{n:05}.jpeg", jpeg(n, size, "L"))
        splits = mstar(tmp_path, size=96, seed=1)
        assert [p.images.shape for p in parts(splits)] == [(18, 1, 96, 96), (6, 1, 96, 96), (6, 1, 96, 96)]
        assert splits.train.labels.bincount().tolist() == [6, 6, 6]
        assert str(splits.train.bands) == "sar-x:HH@8bit"
        thrice = mstar(tmp_path, size=96, seed=1, composite=True)
        assert str(thrice.train.bands) == "sar-x:HH,HH,HH@8bit"
        assert torch.equal(thrice.train.images, splits.train.images.expand(-1, 3, -1, -1))
        assert mstar(tmp_path, size=96, seed=1).train.ids == splits.train.ids
        assert mstar(tmp_path, size=96, seed=2).train.ids != splits.train.ids
        with pytest.raises(DataError, match="choose 32 to 128"):
            mstar(tmp_path, size=160)
        with zipfile.ZipFile(tmp_path / "mstar_jpeg.zip", "a") as z:
            z.writestr("mstar/T72/HB00010.jpeg", jpeg(0, 128, "RGB"))
        with pytest.raises(DataError, match="mode RGB; expected L"):
            mstar(tmp_path, size=96, seed=1)

    def test_an_unexpected_member_is_an_error(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "mstar_jpeg.zip", "w") as z:
            z.writestr("mstar/readme.txt", "hello")
        with pytest.raises(DataError, match=r"unexpected member 'mstar/readme\.txt'"):
            mstar(tmp_path)


class TestScenes:
    def fake_clouds(self, folder, **arrays):
        mask = np.arange(5, dtype=np.uint8).repeat(60).reshape(300, 1, 1).repeat(300, axis=1)
        image = np.broadcast_to(np.arange(300, dtype=np.float32)[None, :, None], (300, 300, 6))  # value = column
        np.savez_compressed(folder / "landsat7.npz", **({"img": image, "msk": mask} | arrays))
        return folder

    def test_clouds_are_cut_into_stripes_and_relabelled(self, tmp_path):
        splits = cloud_masks(self.fake_clouds(tmp_path), sensor="landsat-7", chip=32, gap=8)
        for p, (low, high) in zip(parts(splits), ((0, 159), (168, 199), (208, 271)), strict=True):
            assert (int(p.images.min()), int(p.images.max())) == (low, high)
            assert p.labels[:, 0, 0].unique().tolist() == [0, 1, 2]
        first = splits.train.labels[:, 0, 0][: 9 * 5 : 5]  # rows 0, 32, ... of the first column of chips
        assert first.tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 1]
        assert splits.train.ids[0] == "ukis_csmask/landsat7#0,0,32"

    @pytest.mark.parametrize(
        ("arrays", "why"),
        [
            ({"msk": np.full((300, 300, 1), 9, np.uint8)}, r"mask values \[9\]; expected \[0, 1, 2, 3, 4\]"),
            ({"msk": np.zeros((299, 300, 1), np.uint8)}, "expected the same"),
            ({"msk": np.zeros((300, 300), np.uint8)}, r"expected numbers \(h, w, 1\)"),
            ({"img": np.zeros((300, 300, 5), np.float32)}, r"expected numbers \(h, w, 6\)"),
            ({"img": np.array([{"pickled": "object"}])}, "no plain array 'img' can be read"),
        ],
        ids=["value", "size", "flat", "bands", "pickle"],
    )
    def test_arrays_that_contradict_are_refused(self, tmp_path, arrays, why):
        with pytest.raises(DataError, match=why):
            cloud_masks(self.fake_clouds(tmp_path, **arrays), sensor="landsat-7", chip=32)

    @pytest.mark.parametrize("read", [caffe, bigearthnet_s1])
    def test_a_table_cannot_lead_out_of_the_folder(self, tmp_path, read):
        name = "S2A_MSIL2A_20180529T115401_N9999_R023_T29UNB_88_44"
        head, row = "tortilla:id,tortilla:data_split,labels,patch_id", f"../../x,train,['Pastures'],{name}"
        (tmp_path / "samples.csv").write_text(f"{head}\n{row}\n")
        with pytest.raises(DataError, match=r"'\.\./\.\./x', split 'train'.*expected sample_N"):
            read(tmp_path)

    def test_a_damaged_raster_is_named(self, tmp_path):
        (tmp_path / "samples.csv").write_text("tortilla:id,tortilla:data_split\nsample_1,train\n")
        (tmp_path / "sample_1").mkdir()
        (tmp_path / "sample_1" / "img.tif").write_bytes(b"II*\0 and nothing more")
        with pytest.raises(RasterError, match=r"sample_1/img\.tif"):
            caffe(tmp_path)


class TestPlainFiles:
    def test_windows_lie_inside_and_stripes_apart(self):
        assert grid(100, 70, 32, "x") == [(t, x) for t in (0, 32, 64) for x in (0, 32)]
        assert stripes(512, 64, 32, "x") == [[0, 64, 128, 192], [288, 352], [448]]
        for width in (512, 500, 300):
            for gap in (0, 10, 32):
                a, b, c = stripes(width, 48, gap, "x")
                assert b[0] - (a[-1] + 48) == c[0] - (b[-1] + 48) == gap
                assert c[-1] + 48 <= width
        for bad in ((100, 64, 0), (512, 256, 0)):
            with pytest.raises(DataError, match=r"choose smaller chips$"):
                stripes(*bad, "x")
        for bad in ((512, 64, -1), (512, 0, 0)):
            with pytest.raises(DataError, match="expected 1 or more, and 0 or more"):
                stripes(*bad, "x")
        with pytest.raises(DataError, match="choose 1 to 70"):
            grid(100, 70, 71, "x")

    def test_bands_are_found_by_name_in_any_order(self):
        assert channel_order(Path("x.tif"), ["VH", "VV"], "sentinel-1", ["VV", "VH"]) == [1, 0]
        assert channel_order(Path("x.tif"), ["B4", "B03", "blue"], "sentinel-2-l1c", ["B02", "B04"]) == [2, 0]
        for described, why in (
            ([None, "VV"], "not those of"),
            (["VV", "angle"], "not those of"),
            (["VV"], "no band VH"),
        ):
            with pytest.raises(DataError, match=why):
                channel_order(Path("x.tif"), described, "sentinel-1", ["VV", "VH"])

    def test_folders_and_tables(self, tmp_path):
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "t.csv").write_text('a,b\n1,"two\nlines"\n')
        assert (
            data_folder(tmp_path, "set", "t.csv") == data_folder(tmp_path / "set", "set", "t.csv") == tmp_path / "set"
        )
        assert read_rows(tmp_path / "set" / "t.csv", ["b"]) == [{"b": "two\nlines"}]
        (tmp_path / "set" / "t.csv").write_bytes(b"a,b\n\xff\xfe,2\n")
        with pytest.raises(DataError, match="comma-separated"):
            read_rows(tmp_path / "set" / "t.csv", ["b"])
        with pytest.raises(DataError, match=r"no data set other .* expected t\.csv"):
            data_folder(tmp_path, "other", "t.csv")

    def test_the_root_holds_at_least_one_data_set(self, fake_eurosat, tmp_path):
        assert real_root(fake_eurosat) == fake_eurosat
        with pytest.raises(DataError, match="holds no known data set; expected at least one of eurosat_rgb"):
            real_root(tmp_path / "eurosat_rgb")
        with pytest.raises(DataError, match="is not a folder"):
            real_root(tmp_path / "absent")

    @pytest.mark.parametrize("name", READERS)
    def test_an_absent_data_set_says_what_is_expected(self, name, tmp_path):
        with pytest.raises(DataError, match=r"expected .* in .*(or in .* itself)"):
            READERS[name](tmp_path, seed=0)


def test_the_nomenclature_of_bigearthnet():
    old = [name for names in CORINE.values() for name in names]
    assert (len(CLASSES), len(set(old)), len(set(old) | set(DROPPED))) == (19, 32, 43)
    assert to_19(["Sea and ocean", "Coastal lagoons", "Airports"], "x") == ("Marine waters",)
    assert to_19(["Marine waters", "Arable land"], "x") == ("Arable land", "Marine waters")
    assert to_19(["Bare rock"], "x") == ()
    with pytest.raises(DataError, match="'Glaciers' is neither"):
        to_19(["Glaciers"], "x")


@needs_data
class TestRealFiles:
    def test_eurosat(self):
        splits = eurosat_rgb(ROOT, per_class=3)
        assert [p.images.shape for p in parts(splits)] == [(30, 3, 64, 64)] * 3
        means = splits.train.images.float().mean((2, 3))
        forest, sea = (means[splits.train.labels == EUROSAT_CLASSES.index(c)] for c in ("Forest", "SeaLake"))
        assert (sea[:, 2] > sea[:, 0]).all() and (forest[:, 2] > forest[:, 0]).all()  # haze: more blue than red

    @pytest.mark.slow
    def test_eurosat_is_complete(self):
        splits = eurosat_rgb(ROOT)
        assert [len(p) for p in parts(splits)] == [18900, 5400, 2700]
        total = sum(p.labels.bincount() for p in parts(splits))
        assert total.tolist() == [3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000]

    def test_uc_merced(self):
        splits = uc_merced(ROOT, per_class=2)
        assert [p.images.shape for p in parts(splits)] == [(42, 3, 128, 128)] * 3
        assert len(splits.train.classes) == 21

    def test_mstar(self):
        splits = mstar(ROOT, per_class=3)
        assert [p.images.shape for p in parts(splits)] == [(30, 1, 128, 128)] * 3
        assert len(splits.train.classes) == 10
        mean = splits.train.images[:, 0].float().mean(0)
        assert mean[44:84, 44:84].mean() > 1.2 * mean[:30].mean()  # the target is in the middle

    def test_caffe(self):
        splits = caffe(ROOT, limit=8)
        for p in parts(splits):
            assert p.images.shape[1:] == (1, 128, 128) and p.images.dtype == torch.uint8
            assert int(p.labels.max()) <= 3
            assert (p.labels != 0).flatten(1).any(1).all()  # no chip without data
            assert (p.images[:, 0][p.labels == 0] == 0).all()  # class 0 is where nothing was recorded
        assert "placeholder" in splits.train.source
        thrice = caffe(ROOT, limit=8, composite=True)
        assert str(thrice.train.bands) == "sar:VV,VV,VV@8bit"
        assert torch.equal(thrice.test.images, splits.test.images.expand(-1, 3, -1, -1))
        glaciers = [{i.split("#")[0] for i in p.ids} for p in parts(caffe(ROOT))]
        assert not (glaciers[0] & glaciers[1] or glaciers[0] & glaciers[2] or glaciers[1] & glaciers[2])

    def test_bigearthnet_pairs(self):
        s1, s2 = bigearthnet_s1(ROOT), bigearthnet_s2(ROOT)
        for a, b in zip(parts(s1), parts(s2), strict=True):
            assert a.ids == b.ids and torch.equal(a.labels, b.labels)
            assert a.images.shape[1:] == (3, 128, 128) and b.images.shape[1:] == (12, 128, 128)
            assert a.labels.shape[1] == 19 and bool((a.labels.sum(1) > 0).all())
            vv, vh, again = a.images.mean((2, 3)).unbind(1)
            assert (vv > vh).all() and torch.equal(vh, again) and (vv < 0).all() and (vh > -40).all()
        assert [len(p) for p in parts(s1)] == [9, 2, 4]
        bands = s2.train.bands
        red, nir = (bands.names.index(b) for b in ("B04", "B08"))
        fields = s2.train.images[s2.train.labels[:, CLASSES.index("Pastures")] == 1]
        assert (fields[:, nir].mean((1, 2)) > 3 * fields[:, red].mean((1, 2))).all()
        sea = s2.train.images[s2.train.labels[:, CLASSES.index("Marine waters")] == 1]
        assert (sea[:, nir].mean((1, 2)) < 400).all() and (sea.mean((2, 3)) < 1000).all()  # no offset of 1000

    def test_swapped_polarisations_are_noticed(self, monkeypatch):
        monkeypatch.setattr(bigearthnet, "_V2_S1", ("VV", "VH"))
        with pytest.raises(DataError, match=r"s1\.tif: mean VV .* VV must be the stronger one"):
            bigearthnet_s1(ROOT)

    def test_bigearthnet_sizes(self):
        plain, cropped, padded = (bigearthnet_s2(ROOT, size=s, limit=1).validation.images for s in (120, 96, 128))
        assert torch.equal(plain[..., 12:108, 12:108], cropped)
        assert torch.equal(plain, padded[..., 4:124, 4:124])
        alone = bigearthnet_s1(ROOT / "geobench2_samples" / "benv2", polarisations=["VV", "VH"])
        assert [p.images.shape[:2] for p in parts(alone)] == [(5, 2), (2, 2), (2, 2)]
        with pytest.raises(DataError, match="choose 32 to 224"):
            bigearthnet_s2(ROOT, size=256)

    @pytest.mark.parametrize("sensor", ["sentinel-2", "landsat-7"])
    def test_clouds(self, sensor):
        splits = cloud_masks(ROOT, sensor=sensor)
        assert [p.images.shape for p in parts(splits)] == [(n, 6, 64, 64) for n in (32, 16, 8)]
        for p in parts(splits):
            assert p.labels.unique().tolist() == [0, 1, 2]
            clear, cloud, shadow = (p.images.movedim(1, -1)[p.labels == c].mean(0) for c in range(3))
            assert (cloud > clear).all() and (shadow[3:] < clear[3:]).all()
            assert clear[3] > clear[2]  # more near infrared than red over land with plants
        with pytest.raises(DataError, match="known: landsat-7, sentinel-2"):
            cloud_masks(ROOT, sensor="landsat-5")

    def test_sen1floods11(self):
        splits = sen1floods11(ROOT)
        assert [p.images.shape for p in parts(splits)] == [(n, 15, 64, 64) for n in (32, 16, 8)]
        names = splits.train.bands.names
        for p in parts(splits):
            assert set(p.labels.unique().tolist()) == {0, 1, IGNORE}
            dry, water = (p.images.movedim(1, -1)[p.labels == c].mean(0) for c in (0, 1))
            assert dry[0] > dry[1] and water[0] > water[1] and (water[:2] < dry[:2] - 5).all()
            nir, red, cirrus = (names.index(b) for b in ("B08", "B04", "B10"))
            assert dry[nir] > 1.4 * dry[red] and water[nir] < water[red] and dry[cirrus] < 50

    def test_limits_are_drawn_by_the_seed(self):
        a, b = (cloud_masks(ROOT, limit=5, seed=s) for s in (0, 1))
        assert len(a.train) == 5 and a.train.ids != b.train.ids
        assert a.train.ids == cloud_masks(ROOT, limit=5, seed=0).train.ids
        with pytest.raises(DataError, match="at least 1"):
            few(a.train, 0, 0)
