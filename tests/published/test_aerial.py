"""Aerial readers: bands by value, labels by value, splits without a shared place, remainders kept, damage named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eosfm.contracts import DataError, EosfmError
from eosfm.data.catalogue import open_dataset
from eosfm.data.published import aerial_files
from eosfm.data.published.aerial_cities import POTSDAM_TEST, POTSDAM_TRAIN
from eosfm.data.published.satellite_files import window_of
from eosfm.tasks.kinds import IGNORE
from miniatures import aerial

NAMES = sorted(aerial.MINIATURES)
ORDER = {"potsdam": (3, 0, 1), "opencanopy": (3, 0, 1)}  # near infrared, red, green of files in R, G, B, N


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("aerial")
    for name, write in aerial.MINIATURES.items():
        write(root / name)
    return root


def opened(written: Path, name: str, **options: int):
    if name != "firerisk":
        options.setdefault("tile", 64)
    return open_dataset(name, written / name, **options)


def parts(splits):
    return splits.train, splits.validation, splits.test


@pytest.mark.parametrize("name", NAMES)
def test_bands_are_where_their_names_say(written, name):
    splits = opened(written, name)
    order = ORDER.get(name, (0, 1, 2))
    for part in parts(splits):
        x, _ = part.batch(range(min(4, len(part))))
        means = x.mean((0, 2, 3)).tolist()
        for channel, stored in enumerate(order * part.dates):
            assert means[channel] == pytest.approx(60 + 20 * stored, abs=4 if part.dates == 1 or channel < 3 else 90), (
                name
            )
        assert part.unit_warnings() == []
        assert part.licence and part.source
    assert splits.rule


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("firerisk", "opencanopy")])
def test_labels_are_the_classes_of_the_files(written, name):
    splits = opened(written, name)
    labels = torch.cat([p.labels.flatten() for p in parts(splits)])
    k = len(splits.train.classes)
    assert set(range(k)) <= set(labels.unique().tolist()), "every class of the miniature is met"
    assert set(labels.unique().tolist()) <= {*range(k), IGNORE}
    assert bool((labels == IGNORE).any()) is (name in ("deepglobe-lcc", "loveda", "minifrance"))


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_is_in_two_splits(written, name):
    sets = [{window_of(i)[0] if "@" in i else i for i in p.ids} for p in parts(opened(written, name))]
    if name != "opencanopy":  # its areas of one picture are the published split
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    limited = opened(written, name, limit=1)
    assert [len(p) for p in parts(limited)] == [1, 1, 1]
    assert opened(written, name, seed=7).test.ids == opened(written, name).test.ids


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("firerisk", "opencanopy", "potsdam")])
def test_remainders_are_kept(written, name):
    """Pictures of 96 pixels in tiles of 64: four tiles each, which cover every pixel."""
    part = opened(written, name).test
    windows = {}
    for key in part.ids:
        picture, (top, left, height, width) = window_of(key)
        seen = windows.setdefault(picture, np.zeros((96, 96), bool))
        seen[top : top + height, left : left + width] = True
    assert windows and all(seen.all() for seen in windows.values())
    with pytest.raises(DataError, match="tiles of 128 pixels from 96 x 96"):
        opened(written, name, tile=128)


def test_minifrance_splits_by_region_and_block(written):
    train, validation, test = parts(opened(written, "minifrance"))
    assert all("/Nice/" in i for i in test.ids) and all("/Nantes" in i for i in (*train.ids, *validation.ids))
    blocks = [{int(i.split("06-2014-")[1][:4]) // 5 for i in p.ids} for p in (train, validation)]
    assert not blocks[0] & blocks[1]


def test_inria_keeps_its_convention(written):
    numbers = [
        {i.split("/gt/")[1].split(".")[0].lstrip("-abcdefghijklmnopqrstuvwxyz") for i in p.ids}
        for p in parts(opened(written, "inria"))
    ]
    assert numbers == [{"9", "36"}, {"6"}, {"1"}]


def test_firerisk_has_seven_classes(written):
    splits = open_dataset("firerisk", written / "firerisk")
    assert len(splits.train.classes) == 7
    for part in parts(splits):
        for i, key in enumerate(part.ids):
            name = key.split("/")[2].lower().replace("_", " ")
            assert splits.train.classes[int(part.chip(i)[1])] == name


def test_levir_change_is_where_the_second_date_is_bright(written):
    train = opened(written, "levircd+").train
    x, y = train.batch(range(len(train)))
    assert train.dates == 2 and x.shape[1] == 6
    assert float(x[:, 3][y == 1].mean()) == 220 and float(x[:, 0].mean()) == pytest.approx(60, abs=4)
    assert len(train.statistics().mean) == 3


def test_against_torchgeo(written):
    datasets = pytest.importorskip("torchgeo.datasets")
    theirs = datasets.LoveDA(written / "loveda", "val")
    ours = opened(written, "loveda", tile=96).test
    by_name = {Path(f["image"]).name: i for i, f in enumerate(theirs.files)}
    for i, key in enumerate(ours.ids):
        sample, (x, y) = theirs[by_name[Path(window_of(key)[0].split("|")[0]).name]], ours.chip(i)
        assert torch.equal(x, sample["image"].float())
        assert torch.equal(torch.where(y == IGNORE, 0, y + 1), sample["mask"])
    theirs = datasets.DeepGlobeLandCover(written / "deepglobe-lcc", "test")
    ours = opened(written, "deepglobe-lcc", tile=96).test
    for i in range(len(ours)):
        x, y = ours.chip(i)
        assert torch.equal(x, theirs[i]["image"].float())
        assert torch.equal(torch.where(y == IGNORE, 6, y), theirs[i]["mask"])
    assert set(datasets.Potsdam2D.splits["train"]) == {f"top_potsdam_{n}" for n in POTSDAM_TRAIN}
    assert set(datasets.Potsdam2D.splits["test"]) == {f"top_potsdam_{n}" for n in POTSDAM_TEST}
    theirs = datasets.FireRisk(written / "firerisk", "val")
    assert [c.lower().replace("_", " ") for c in theirs.classes] == list(
        open_dataset("firerisk", written / "firerisk").train.classes
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder_says_what_and_where(tmp_path, name):
    with pytest.raises(
        DataError, match=rf"(?s)not found in .*Get it: .*eosfm train recipes/{name.replace('+', '[+]')}\.yaml"
    ):
        open_dataset(name, tmp_path)


def test_damage_is_named(tmp_path):
    aerial.write_loveda(tmp_path)
    mask = tmp_path / "Val/Rural/masks_png/2522.png"
    mask.write_bytes(mask.read_bytes()[:60])
    splits = open_dataset("loveda", tmp_path, tile=64)
    with pytest.raises(EosfmError, match=r"2522\.png"):
        _ = splits.test.labels
    Image.fromarray(np.full((96, 96), 9, np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"2522\.png: label values 9"):
        _ = open_dataset("loveda", tmp_path, tile=64).test.labels
    mask.unlink()
    with pytest.raises(DataError, match=r"1 files are missing, the first is .*2522\.png"):
        open_dataset("loveda", tmp_path, tile=64)


def test_a_colour_of_no_class_is_refused():
    rgb = np.zeros((3, 2, 2), np.uint8)
    rgb[0, 0, 0] = 7
    with pytest.raises(DataError, match=r"colours \(7, 0, 0\); expected \(0, 0, 0\)"):
        aerial_files.by_colour(rgb, {(0, 0, 0): 1}, "x.png")
    assert (aerial_files.by_colour(rgb * 0, {(0, 0, 0): 1}, "x.png") == 1).all()
