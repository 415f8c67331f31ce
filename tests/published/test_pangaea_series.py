"""PANGAEA's time series: which dates, in which order, what is missing, labels, splits and damage, by value."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eosfm.contracts import ConfigError, DataError
from eosfm.data.catalogue import open_dataset
from eosfm.data.files import DataConfig, open_data
from eosfm.data.published.dynamic_earth_net import DAYS
from eosfm.data.published.series_files import evenly, read_npy, read_npz
from eosfm.ensemble import Ensemble
from eosfm.tasks.kinds import IGNORE
from eosfm.tasks.model import HeadConfig, TaskSpec
from eosfm.training.dates import MeanOfDates
from eosfm.training.fit import adapt_ensemble, train_specialist
from eosfm.training.settings import FitConfig
from miniatures.pangaea import WRITERS
from miniatures.satellite import write_lines, write_tif

SERIES = {"pastis": 12, "pastis-s2": 10, "croptype-southsudan": 12, "dynamicearthnet": 4, "biomassters": 12}
"""name -> bands of one date"""


def parts(splits):
    return splits.train, splits.validation, splits.test


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("series")
    for name in SERIES:
        if name in WRITERS:
            WRITERS[name](root / name)
    (root / "pastis-s2").symlink_to(root / "pastis")
    return root


def opened(name, folder, **options):
    return open_dataset(name, folder, **({"tile": 32} if name == "dynamicearthnet" else {}), **options)


@pytest.mark.parametrize("name", SERIES)
def test_every_series_has_dates_of_all_bands_and_splits_that_share_nothing(name, originals):
    for dates in (1, 3):
        splits = opened(name, originals / name, dates=dates)
        train = splits.train
        assert (train.dates, len(train.bands)) == (dates, SERIES[name])
        ids = [set(p.ids) for p in parts(splits)]
        assert all(ids) and not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]
        x, _ = pickle.loads(pickle.dumps(train)).chip(0)
        assert len(x) == dates * SERIES[name] and len(train.statistics().mean) == SERIES[name]
        assert not train.unit_warnings()
    for dates in (0, 2, 51):
        with pytest.raises(DataError, match=r"dates \d+; expected 1, or 3 to \d+"):
            opened(name, originals / name, dates=dates)


@pytest.mark.parametrize("name", SERIES)
def test_an_empty_folder_says_where_to_get_the_data(name, tmp_path):
    with pytest.raises(DataError, match=r"not found in .*Expected there: .*Get it: .*https://"):
        open_dataset(name, tmp_path)


def test_dates_are_evenly_spread_from_first_to_last():
    for n in range(1, 30):
        for dates in range(1, 13):
            found = evenly(n, dates)
            there = [i for i in found if i is not None]
            assert len(found) == dates and there == sorted(set(there)) and len(there) == min(n, dates)
            assert there[-1] == n - 1 and (dates == 1 or there[0] == 0)
            assert dates < 2 or n < dates or max(np.diff(there)) - min(np.diff(there)) <= 1


def test_pastis_takes_dates_of_each_sensor_and_ignores_void(originals, tmp_path):
    shutil.copytree(originals / "pastis", tmp_path / "p")
    s2 = np.zeros((7, 10, 128, 128), np.int16) + np.arange(7, dtype=np.int16)[:, None, None, None] * 1000
    s2 += np.arange(10, dtype=np.int16)[:, None, None]
    s2[0, :, 5, 5] = -10_000
    s2[3, 0, 5, 5] = -10_000  # in one band alone: a value
    np.save(tmp_path / "p" / "DATA_S2" / "S2_10005.npy", s2)
    crops = np.zeros((3, 128, 128), np.uint8)
    crops[0, 0, :20] = range(20)
    np.save(tmp_path / "p" / "ANNOTATIONS" / "TARGET_10005.npy", crops)
    test = open_dataset("pastis", tmp_path / "p", dates=3).test
    x, y = test.chip(0)
    series = x.reshape(3, 12, 128, 128)
    assert series[:, 0, 9, 9].tolist() == [0, 3000, 6000] and series[0, :10, 9, 9].tolist() == list(range(10))
    assert series[0, :10, 5, 5].isnan().all() and series[1, 0, 5, 5] == -10_000 and x.isnan().sum() == 10
    radar = np.load(tmp_path / "p" / "DATA_S1A" / "S1A_10005.npy")
    assert torch.equal(series[:, 10:], torch.from_numpy(radar[[0, 4, 8], :2]))
    assert y[0, :20].tolist() == [*range(19), IGNORE]
    single = open_dataset("pastis-s2", tmp_path / "p", dates=1).test
    assert torch.equal(single.chip(0)[0], torch.from_numpy(s2[-1].astype(np.float32)))


def test_pastis_splits_are_folds(originals, tmp_path):
    splits = open_dataset("pastis", originals / "pastis")
    assert [p.ids for p in parts(splits)] == [("10001", "10002", "10003"), ("10004",), ("10005",)]
    shutil.copytree(originals / "pastis", tmp_path / "PASTIS-R")
    assert open_dataset("pastis", tmp_path).test.ids == ("10005",)
    table = tmp_path / "PASTIS-R" / "metadata.geojson"
    facts = json.loads(table.read_text())
    facts["features"][0]["properties"]["Fold"] = 6
    table.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="fold 6"):
        open_dataset("pastis", tmp_path)
    del facts["features"][0]["properties"]["Fold"]
    table.write_text(json.dumps(facts))
    with pytest.raises(DataError, match="ID_PATCH and Fold"):
        open_dataset("pastis", tmp_path)


def test_arrays_of_strangers_are_not_unpickled_and_have_the_right_shape(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.save(tmp_path / "b.npy", np.zeros((2, 3), np.float32))
    whole = (tmp_path / "b.npy").read_bytes()
    (tmp_path / "c.npy").write_bytes(whole[:-4])
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3)))
    for name, error in (
        ("a.npy", "no plain array"),
        ("c.npy", "no plain array"),
        ("b.npy", r"expected numbers \(any, 4\)"),
    ):
        with pytest.raises(DataError, match=error):
            read_npy(tmp_path / name, (None, 4))
    assert read_npz(tmp_path / "d.npz", "x", (2, None)).shape == (2, 3)
    with pytest.raises(DataError, match="'y'"):
        read_npz(tmp_path / "d.npz", "y", (2, 3))
    with pytest.raises(DataError, match="not a zip archive"):
        read_npz(tmp_path / "b.npy", "x", (2, 3))


def test_south_sudan_keeps_four_crops_and_leaves_missing_dates_empty(originals):
    splits = open_dataset("croptype-southsudan", originals / "croptype-southsudan", dates=6)
    short = splits.train.ids.index("000017")  # four optical dates, six of radar
    x, y = splits.train.chip(short)
    series = x.reshape(6, 12, 64, 64)
    assert [bool(d[:10].isnan().all()) for d in series] == [False] * 4 + [True] * 2
    assert not series[:, 10:].isnan().any()
    truth = np.load(originals / "croptype-southsudan" / "southsudan" / "truth" / "southsudan_000017.npz")["truth"]
    expected = torch.from_numpy(np.where((truth >= 1) & (truth <= 4), truth.astype(int) - 1, IGNORE))
    assert torch.equal(y, expected) and set(y.unique().tolist()) == {0, 1, 2, 3, IGNORE}
    stored = np.load(originals / "croptype-southsudan" / "southsudan" / "npy" / "southsudan_000017.npz")
    assert torch.equal(series[:4, :10], torch.from_numpy(stored["s2"]).permute(3, 0, 1, 2).float())
    assert torch.equal(series[:, 10:], torch.from_numpy(stored["s1"][:2]).permute(3, 0, 1, 2))


def test_dynamic_earth_net_layers_become_classes(originals, tmp_path):
    shutil.copytree(originals / "dynamicearthnet", tmp_path / "d")
    label = next((tmp_path / "d" / "labels" / "4421_3800_13_39N").rglob("*.tif"))
    layers = np.zeros((7, 64, 64), np.uint8)
    for c in range(7):
        layers[c, 0, c] = 255
    write_tif(label, layers)
    test = open_dataset("dynamicearthnet", tmp_path / "d", tile=64).test
    x, y = test.chip(0)
    assert y[0, :8].tolist() == [0, 1, 2, 3, 4, 5, IGNORE, IGNORE] and (y[1:] == IGNORE).all()
    means = x.reshape(6, 4, -1).mean(2)[:, 0]
    assert (means.diff() > 50).all() and len(DAYS) == 6  # the miniature's days grow brighter
    layers[1, 0, 0] = 255
    write_tif(label, layers)
    with pytest.raises(DataError, match="at most one of them 255"):
        test.chip(0)
    lists = tmp_path / "d" / "dynnet_training_splits"
    line = (lists / "test.txt").read_text().strip()
    write_lines(lists / "train.txt", [*(lists / "train.txt").read_text().splitlines(), line])
    assert (
        "1 chips left out whose area is in a later split"
        in open_dataset("dynamicearthnet", tmp_path / "d", tile=64).rule
    )
    write_lines(lists / "test.txt", [line.replace("/labels/", "/../labels/")])
    with pytest.raises(DataError, match="within the root"):
        open_dataset("dynamicearthnet", tmp_path / "d", tile=64)


def test_biomass_of_a_year_and_of_march(originals, tmp_path):
    shutil.copytree(originals / "biomassters", tmp_path / "b")
    radar = np.stack([np.full((64, 64), v, np.float32) for v in (-9, -16, -10, -17)])
    radar[0, 0, 0] = -9999
    write_tif(tmp_path / "b" / "test_features" / "ffb9ed24_S1_06.tif", radar)
    splits = open_dataset("biomassters", tmp_path / "b")
    x, y = splits.test.chip(0)
    months = x.reshape(12, 12, 64, 64)
    assert [m for m in range(12) if months[m, :10].isnan().all()] == [3, 4] and y.dtype == torch.float32
    assert (
        months[6, 10:, 5, 5].tolist() == [-9, -16] and months[6, 10, 0, 0].isnan() and not months[6, 11].isnan().any()
    )
    march = open_dataset("biomassters", tmp_path / "b", dates=1)
    assert (
        torch.equal(torch.nan_to_num(march.test.chip(0)[0]), torch.nan_to_num(months[6])) and "months 06" in march.rule
    )
    assert [k.split("/")[0] for k in (*splits.validation.ids, *splits.test.ids)] == ["train", "test"]
    write_lines(tmp_path / "b" / "val_Data_list.csv", ["chip_id", "../x"])
    with pytest.raises(DataError, match=r"chip_id '\.\./x'"):
        open_dataset("biomassters", tmp_path / "b")


class Level(nn.Module):
    """One level: the input itself, NaN as 0."""

    def forward(self, x):
        return [torch.nan_to_num(x)]


def test_the_mean_over_dates_leaves_out_what_was_not_seen():
    x = torch.rand(3, 4 * 2, 4, 4)
    x[0, 2:4] = float("nan")  # the second date of the first chip
    x[1, 0, 0, 0] = float("nan")  # one pixel does not make a date empty
    x[2] = float("nan")
    (out,) = MeanOfDates(Level(), 4)(x)
    dates = torch.nan_to_num(x).reshape(3, 4, 2, 4, 4)
    assert torch.allclose(out[0], dates[0, [0, 2, 3]].mean(0)) and torch.allclose(out[1], dates[1].mean(0))
    assert (out[2] == 0).all()


def test_a_series_makes_a_specialist_and_an_ensemble_is_adapted_to_it(originals, tmp_path, make_specialist):
    splits = open_dataset("croptype-southsudan", originals / "croptype-southsudan", dates=3)
    config = FitConfig(epochs=1, batch_size=2)
    card = train_specialist(splits, config, tmp_path, name="crops").card
    assert len(card.bands) == 12 and (tmp_path / "crops" / "model.safetensors").is_file()
    ensemble = Ensemble([make_specialist("s", str(splits.train.bands), 0)], splits.train.bands)
    head = HeadConfig(decoder="linear", channels=16)
    task = TaskSpec(kind="segmentation", classes=splits.train.classes, chip_size=64, head=head, dates=3)
    model, _, _ = adapt_ensemble(ensemble, splits, task, config)
    assert model(splits.test.batch([0])[0]).shape == (1, 4, 64, 64)
    with pytest.raises(ConfigError, match="chips of 3 dates; the task reads 1"):
        adapt_ensemble(ensemble, splits, replace(task, dates=1), config)


def test_one_date_of_a_series_is_what_an_ensemble_is_adapted_to(originals, make_specialist):
    config = DataConfig(kind="dataset", dataset="croptype-southsudan", root=originals / "croptype-southsudan", dates=1)
    splits = open_data(config)
    bands = splits.train.bands
    ensemble = Ensemble([make_specialist("s", str(bands), 0)], bands, statistics=splits.train.statistics())
    task = TaskSpec(
        kind="segmentation", classes=splits.train.classes, chip_size=64, head=HeadConfig(decoder="linear", channels=16)
    )
    model, result, _ = adapt_ensemble(ensemble, splits, task, FitConfig(epochs=1, batch_size=2))
    assert result.epochs == 1 and model(splits.test.batch([0])[0]).shape == (1, 4, 64, 64)
    with pytest.raises(DataError, match="xview2 has no option dates"):
        open_data(DataConfig(kind="dataset", dataset="xview2", root=originals, dates=3))


def test_a_missing_array_is_named(originals, tmp_path):
    shutil.copytree(originals / "pastis", tmp_path / "p")
    Path(tmp_path / "p" / "DATA_S1A" / "S1A_10002.npy").unlink()
    assert open_dataset("pastis-s2", tmp_path / "p").train.ids
    with pytest.raises(DataError, match=r"1 files are missing.*S1A_10002\.npy"):
        open_dataset("pastis", tmp_path / "p")
