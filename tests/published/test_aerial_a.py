"""DeepGlobe, FireRisk, MiniFrance and Inria: every label by value, TorchGeo's own numbers, wrong files named."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eosfm.contracts import DataError
from eosfm.data.catalogue import open_dataset
from eosfm.data.published.aerial_pictures import FIRERISK
from eosfm.data.published.satellite_files import window_of
from eosfm.tasks.kinds import IGNORE
from miniatures import aerial

WRITERS = {n: aerial.MINIATURES[n] for n in ("deepglobe-lcc", "firerisk", "minifrance", "inria")}
INRIA = Path("AerialImageDataset/train")
NICE = Path("labeled_train/Nice")


def opened(root: Path, name: str, tile: int = 96):
    return open_dataset(name, root, **({} if name == "firerisk" else {"tile": tile}))


def ramp(path: Path) -> None:
    """A picture whose three channels hold 10, 20 and 30 everywhere."""
    aerial.tif(path, np.tile(np.array([10, 20, 30], np.uint8), (96, 96, 1)))


def test_minifrance_pixels_and_labels_by_value(tmp_path):
    aerial.write_minifrance(tmp_path)
    for picture in (tmp_path / NICE / "BDORTHO").glob("*.tif"):
        ramp(picture)
        stored = np.repeat(np.arange(16, dtype=np.uint8), 6)[:, None].repeat(96, 1)
        aerial.tif(tmp_path / NICE / "UrbanAtlas" / f"{picture.stem}_UA2012.tif", stored)
    test = opened(tmp_path, "minifrance").test
    x, y = test.chip(0)
    assert [float(c.unique()) for c in x] == [10, 20, 30]
    assert y[::6, 0].tolist() == [IGNORE, *range(14), IGNORE]
    assert test.classes[4] == "arable land" and test.classes[13] == "water"  # stored 5 and 14


def test_inria_pixels_and_labels_by_value(tmp_path):
    aerial.write_inria(tmp_path)
    for label in (tmp_path / INRIA / "gt").glob("*1.tif"):
        stored = np.zeros((96, 96), np.uint8)
        stored[:40] = 255
        aerial.tif(label, stored)
        ramp(tmp_path / INRIA / "images" / label.name)
    test = opened(tmp_path, "inria").test
    x, y = test.chip(0)
    assert [float(c.unique()) for c in x] == [10, 20, 30]
    assert (y[:40] == 1).all() and (y[40:] == 0).all()


def test_deepglobe_labels_by_colour(tmp_path):
    aerial.write_deepglobe(tmp_path)
    table = {(0, 255, 255): 0, (255, 255, 0): 1, (255, 0, 255): 2, (0, 255, 0): 3, (0, 0, 255): 4,
             (255, 255, 255): 5, (0, 0, 0): IGNORE}  # fmt: skip
    mask = np.zeros((96, 96, 3), np.uint8)
    for row, colour in enumerate(table):
        mask[row] = colour
    for path in (tmp_path / "data/test_data/masks").glob("*.png"):
        Image.fromarray(mask).save(path)
    _, y = opened(tmp_path, "deepglobe-lcc").test.chip(0)
    assert y[: len(table), 0].tolist() == list(table.values())


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_worker_process_can_have_the_reader(tmp_path, name):
    WRITERS[name](tmp_path)
    part = opened(tmp_path, name).validation
    again = pickle.loads(pickle.dumps(part))
    assert all(torch.equal(a, b) for a, b in zip(part.chip(0), again.chip(0), strict=True))


def test_wrong_labels_and_names_are_errors(tmp_path):
    aerial.write_inria(tmp_path / "inria")
    one = np.ones((96, 96), np.uint8)  # 0 and 1 where the files have 0 and 255
    aerial.tif(tmp_path / "inria" / INRIA / "gt/austin1.tif", one)
    with pytest.raises(DataError, match=r"austin1\.tif: label values 1; expected 0, 255"):
        _ = opened(tmp_path / "inria", "inria").test.labels
    aerial.tif(tmp_path / "inria" / INRIA / "gt/austin1.tif", one[:90])
    with pytest.raises(DataError, match=r"austin1\.tif 90 x 96 pixels; expected the same size"):
        opened(tmp_path / "inria", "inria")
    ramp(tmp_path / "inria" / INRIA / "images/austin.tif")
    with pytest.raises(DataError, match=r"austin\.tif: expected <city><number>\.tif"):
        opened(tmp_path / "inria", "inria")

    aerial.write_minifrance(tmp_path / "mf")
    label = min((tmp_path / "mf" / NICE / "UrbanAtlas").glob("*.tif"))
    aerial.tif(label, one * 16)
    with pytest.raises(DataError, match=r"_UA2012\.tif: label values 16"):
        _ = opened(tmp_path / "mf", "minifrance").test.labels
    label.unlink()
    with pytest.raises(DataError, match=r"1 files are missing, the first is .*_UA2012\.tif"):
        opened(tmp_path / "mf", "minifrance")
    ramp(tmp_path / "mf" / NICE / "BDORTHO/nice.tif")
    with pytest.raises(DataError, match=r"nice\.tif: expected a name like"):
        opened(tmp_path / "mf", "minifrance")


def test_a_band_too_many_is_an_error(tmp_path):
    """MiniFrance's infrared twin, BD ORTHO IRC, or an alpha channel."""
    aerial.write_minifrance(tmp_path)
    for picture in (tmp_path / NICE / "BDORTHO").glob("*.tif"):
        aerial.tif(picture, aerial.picture(np.random.default_rng(0), channels=4))
    with pytest.raises(DataError, match=r"4 bands; expected 3"):
        opened(tmp_path, "minifrance").test.chip(0)


def test_inria_and_minifrance_against_torchgeo(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchgeo.datasets")
    monkeypatch.chdir(
        tmp_path
    )  # TorchGeo takes the picture's number from the first "letters, digits" of the whole path
    aerial.write_inria(tmp_path / "inria")
    ours, theirs = opened(tmp_path / "inria", "inria"), {}
    for split in ("train", "val"):
        theirs[split] = datasets.InriaAerialImageLabeling("inria", split)
    where = {(s, Path(f["image"]).name): i for s, d in theirs.items() for i, f in enumerate(d.files)}
    for part, split in ((ours.train, "train"), (ours.validation, "train"), (ours.test, "val")):
        for i, key in enumerate(part.ids):
            sample = theirs[split][where.pop((split, Path(window_of(key)[0].split("|")[0]).name))]
            x, y = part.chip(i)
            assert torch.equal(x, sample["image"]) and torch.equal(y, sample["mask"])
    assert not where, "every picture of TorchGeo's is in one of our splits"

    aerial.write_minifrance(tmp_path / "mf")
    for picture in (tmp_path / "mf/labeled_train").glob("*/BDORTHO/*.tif"):  # TorchGeo reads the heights too
        heights = picture.parents[1] / "RGEALTI" / f"{picture.stem}_RGEALTI.tif"
        aerial.tif(heights, np.zeros((48, 48), np.float32))
    for folder in ("unlabeled_train", "val"):  # and insists on these
        (tmp_path / "mf" / folder).mkdir()
    dfc = datasets.DFC2022(tmp_path / "mf", "train")
    at = {Path(f["image"]).name: i for i, f in enumerate(dfc.files)}
    splits = opened(tmp_path / "mf", "minifrance")
    assert len(splits.train) + len(splits.validation) + len(splits.test) == len(dfc)
    starts = [c.lower().partition(",")[0].partition(" ")[0] for c in dfc.classes[1:15]]
    assert [c.partition(",")[0].partition(" ")[0] for c in splits.train.classes] == [
        "mixed" if s == "complex" else s for s in starts
    ]
    for part in (splits.train, splits.validation, splits.test):
        for i, key in enumerate(part.ids):
            sample, (x, y) = dfc[at[Path(window_of(key)[0].split("|")[0]).name]], part.chip(i)
            stored = torch.where((sample["mask"] == 0) | (sample["mask"] == 15), IGNORE + 1, sample["mask"]) - 1
            assert torch.equal(x, sample["image"][:3]) and torch.equal(y, stored)


def test_firerisk_validates_on_places_of_its_own(tmp_path):
    """Pictures 0.1 degree apart along two parallels: none of a validation square is trained on, whatever its class."""
    rng = np.random.default_rng(0)
    for part, latitude in (("train", 44.3), ("val", 41.3)):
        for c in FIRERISK:
            for i in range(40):
                name = f"{27032281 + i}_{aerial.FIRERISK_CODES[c]}_{-104.05 + 0.1 * i:.6f}_{latitude}.png"
                aerial.png(tmp_path / "FireRisk" / part / c / name, aerial.picture(rng, 8))
    splits = open_dataset("firerisk", tmp_path)
    squares = [
        {tuple(int(float(v) // 1) for v in Path(k).stem.split("_")[2:]) for k in p.ids}
        for p in (splits.train, splits.validation, splits.test)
    ]
    assert not squares[0] & squares[1] and len(squares[0] | squares[1]) == 5
    assert "1 squares of one degree" in splits.rule and "0 of 280 pictures" in splits.rule
    folder = tmp_path / "FireRisk/val/High"
    path = min(folder.iterdir())
    path.rename(folder / f"27032281_4_{min(squares[0])[0] + 0.5}_44.5.png")
    assert "1 of 280 pictures" in open_dataset("firerisk", tmp_path).rule
    aerial.png(tmp_path / "FireRisk/train/High/high_1.png", aerial.picture(rng, 8))
    with pytest.raises(DataError, match=r"high_1\.png: expected a name like .*longitude"):
        open_dataset("firerisk", tmp_path)


def test_deepglobe_colours_that_are_not_pure(tmp_path):
    """The data set's notes: "may not be pure 0 and 255 ... binarize them at threshold 128"."""
    aerial.write_deepglobe(tmp_path)
    mask = np.full((96, 96, 3), (3, 250, 254), np.uint8)
    mask[40:] = (127, 128, 0)
    mask[80:] = (9, 4, 1)
    masks = sorted((tmp_path / "data/test_data/masks").glob("*.png"))
    Image.fromarray(mask).save(masks[0])
    mask[5, 5] = (254, 3, 0)
    Image.fromarray(mask).save(masks[1])
    test = opened(tmp_path, "deepglobe-lcc").test
    assert test.chip(0)[1][::40, 0].tolist() == [0, 3, IGNORE]
    with pytest.raises(DataError, match=r"colours \(255, 0, 0\)"):
        test.chip(1)


@pytest.mark.parametrize(("name", "folder"), [("inria", INRIA / "images"), ("minifrance", NICE / "BDORTHO")])
def test_sixteen_bit_copies_are_an_error(tmp_path, name, folder):
    WRITERS[name](tmp_path)
    for path in (tmp_path / folder).glob("*.tif"):
        aerial.tif(path, aerial.picture(np.random.default_rng(0)).astype(np.uint16) * 257)
    with pytest.raises(DataError, match=r"\.tif: uint16 values; expected 8 bit"):
        opened(tmp_path, name).test.chip(0)
