"""GEO-Bench-2's data sets from their ``.tortilla`` files: bands, units, labels, dates, splits, by value; and the traps."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from eosfm.contracts import DataError
from eosfm.data.catalogue import dataset_names, open_dataset, reader_options
from eosfm.data.files import DataConfig, open_data
from eosfm.data.published.geobench2 import picked_steps
from eosfm.data.published.geobench2_tables import S2_SHEETS, SHEETS, Mask
from eosfm.ensemble import Ensemble
from eosfm.tasks.kinds import IGNORE
from eosfm.tasks.model import HeadConfig, TaskSpec
from eosfm.training.fit import adapt_ensemble
from eosfm.training.settings import FitConfig
from helpers import make_specialist
from miniatures import geobench2, geobench2_things
from miniatures.geobench2 import SIDE, WRITERS
from miniatures.real_ones import SHARED
from miniatures.tortillas import pack

PIXELS = [n for n, s in SHEETS.items() if isinstance(s.label, Mask | str)]
NAMES = [*(f"geobench2-{n}" for n in PIXELS), *(f"geobench2-{n}-s2" for n in S2_SHEETS)]
DATES = {"biomassters": 12, "dynamic_earthnet": 6, "fotw": 2, "kuro_siwo": 3, "pastis": 6}


def plain(name: str) -> str:
    return name.removeprefix("geobench2-").removesuffix("-s2")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geobench2")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


def opened(name, root, **options):
    return open_dataset(name, root / plain(name), **options)


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_opens_with_its_bands_dates_and_split(name, root):
    splits, dates = opened(name, root), DATES.get(plain(name), 1)
    sheet = (S2_SHEETS if name.endswith("-s2") else SHEETS)[plain(name)]
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [2, 1, 1]
    assert [p.ids for p in (splits.train, splits.validation, splits.test)] == [
        ("sample_0", "sample_1"),
        ("sample_2",),
        ("sample_3",),
    ]
    assert splits.train.bands == sheet.about.bands and splits.train.classes == sheet.about.classes
    x, y = pickle.loads(pickle.dumps(splits.train)).batch([0, 1])
    assert x.shape == (2, dates * len(sheet.about.bands), SIDE, SIDE) and splits.train.dates == dates
    assert x.isfinite().float().mean() > 0.8 and y.shape[1:] in ((), (SIDE, SIDE), (len(sheet.about.classes),))
    assert not splits.train.unit_warnings() and len(splits.train.statistics().mean) == len(sheet.about.bands)
    assert name in dataset_names() and "tortilla:data_split" in splits.rule


def test_there_is_a_miniature_and_a_reader_of_every_task():
    written = {*WRITERS, *geobench2_things.WRITERS}
    assert written == set(SHEETS) and {f"geobench2-{n}" for n in SHEETS} <= set(dataset_names()) and len(SHEETS) == 19


def means(splits) -> dict[str, float]:
    return dict(zip(splits.train.bands.names, splits.train.statistics().mean, strict=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("benv2", {"VV": -11, "VH": -18}),  # the file holds VH first
        ("treesatai", {"R": 79, "G": 92, "B": 85, "N": 154}),  # ... near infrared, green, blue, red
        ("flair2", {"R": 110, "G": 115, "B": 106, "N": 104}),
        ("spacenet7", {"red": 117, "green": 104, "blue": 77}),
        ("forestnet", {"B2": 72, "B3": 83, "B4": 77, "B5": 124, "B6": 91, "B7": 74}),
        ("fotw", {"B04": 860, "B03": 850, "B02": 590, "B08": 2980}),
        ("burn_scars", {"BLUE": 0.03, "NIR_NARROW": 0.25, "SWIR_2": 0.12}),
        ("so2sat", {"B02": 0.10, "B12": 0.19}),
        ("spacenet2", {"coastal": 299, "yellow": 420, "nir2": 362}),
        ("biomassters", {"VV": -9, "VH": -16}),  # the ascending orbit
    ],
)
def test_every_band_is_what_its_name_says(name, expected, root):
    found = means(opened(f"geobench2-{name}", root, **({"dates": 1} if name in ("fotw", "biomassters") else {})))
    for band, value in expected.items():
        assert found[band] == pytest.approx(value, abs=max(0.01, abs(value) * 0.04)), band


def test_what_was_not_measured_is_nan_and_what_is_unknown_is_ignored(root):
    for name in ("burn_scars", "cloudsen12", "spacenet2", "spacenet7"):
        x, _ = opened(f"geobench2-{name}", root).train.chip(0)
        assert x[:, 0, 0].isnan().all() and x[:, 5, 5].isfinite().all()
    x, y = opened("geobench2-kuro_siwo", root).train.chip(0)
    assert x[:, 0, 0].isnan().all() and y[0, 0] == IGNORE, "invalid"
    assert x[4:, 0, 1].isnan().all() and x[:4, 0, 1].isfinite().all(), "after the flood only"
    assert opened("geobench2-burn_scars", root).train.chip(0)[1][0, 0] == IGNORE
    x, _ = opened("geobench2-caffe", root).train.chip(0)
    assert x.isfinite().all(), "0 is a value of 8 bit"
    x, _ = opened("geobench2-pastis", root).train.chip(0)
    assert x[:, 0, 0].isnan().all()
    for name in ("cloudsen12", "kuro_siwo", "pastis", "fotw"):
        labels = torch.unique(opened(f"geobench2-{name}", root).train.chip(0)[1]).tolist()
        assert labels == [*range(len(SHEETS[name].about.classes)), IGNORE]
    assert torch.unique(opened("geobench2-flair2", root).train.chip(0)[1]).tolist() == list(range(13))
    assert torch.unique(opened("geobench2-spacenet2", root).train.chip(0)[1]).tolist() == [0, 1]


def test_labels_of_scenes_are_found_by_name(root):
    for name, expected in (("so2sat", [0, 7]), ("forestnet", [7, 11])):
        assert opened(f"geobench2-{name}", root).train.labels.tolist() == expected
    train = opened("geobench2-benv2", root).train
    found = [[train.classes[i] for i in row.nonzero()[:, 0]] for row in train.labels]
    assert found == [["Arable land", "Pastures"], ["Marine waters"]]
    few = opened("geobench2-so2sat", root, per_class=1)
    assert (
        len(few.train) == 2
        and "at most 1 of each class" in few.rule
        and "per_class" in reader_options("geobench2-forestnet")
    )
    assert len(opened("geobench2-benv2", root, limit=1).train) == 1


def test_dates_are_the_benchmarks(root):
    months = opened("geobench2-biomassters", root).train.chip(0)[0].reshape(12, 12, SIDE, SIDE)
    assert [m for m in range(12) if months[m, :10].isnan().all()] == [3, 4], "a missing month stays where it is"
    level = [float(months[m, 0].nanmean()) for m in range(12) if m not in (3, 4)]
    assert level == sorted(level) and months[3, 10:, 5:].isfinite().all()
    days = opened("geobench2-dynamic_earthnet", root).train.chip(0)[0].reshape(6, 4, SIDE, SIDE).nanmean((2, 3))[:, 0]
    assert days.tolist() == pytest.approx([500, 540, 590, 640, 690, 740], abs=20), "days 1, 5, 10, 15, 20, 25"
    one = opened("geobench2-kuro_siwo", root, dates=1).train.chip(0)[0]
    assert one[0].nanmean() == pytest.approx(0.2, abs=0.01), "after the flood"
    steps = opened("geobench2-pastis", root, dates=8).train
    x = steps.chip(1)[0].reshape(8, 10, SIDE, SIDE)
    assert [bool(d.isnan().all()) for d in x] == [True] * 2 + [False] * 6, "filled up in front"
    assert picked_steps(9, 6) == [0, 1, 3, 4, 6, 7] and picked_steps(9, 1) == [0]
    for name, wrong in (
        ("kuro_siwo", 2),
        ("biomassters", 2),
        ("biomassters", 13),
        ("fotw", 3),
        ("dynamic_earthnet", 5),
    ):
        with pytest.raises(DataError, match=f"dates {wrong}; expected one of 1"):
            opened(f"geobench2-{name}", root, dates=wrong)


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_say_what_to_fetch(name, tmp_path):
    with pytest.raises(
        DataError, match=rf"eosfm fetch geobench2-{plain(name)} .*hf download aialliance/{plain(name)} "
    ):
        open_dataset(name, tmp_path)


def rewritten(tmp_path, change):
    """so2sat's miniature with ``change`` of one sample's columns."""

    def sample(rng, i):
        layers, own, columns = geobench2.so2sat(rng, i)
        return (layers, own, columns | change) if i == 1 else (layers, own, columns)

    geobench2.write(tmp_path, "so2sat", sample)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": "Castle"}, "class 'Castle'; known: Bare"),
        ({"labels": None}, "class None"),
        ({"tortilla:data_split": "extra"}, "of split 'extra'; expected each sample once"),
    ],
)
def test_a_table_that_contradicts_the_task_is_refused(change, message, tmp_path):
    with pytest.raises(DataError, match=message):
        open_dataset("geobench2-so2sat", rewritten(tmp_path, change))


def test_samples_that_contradict_the_task_are_refused(tmp_path, root):
    geobench2.mapped("caffe", "img", "mask", geobench2.eight_bit(63), (0, 1, 7))(tmp_path / "values")
    with pytest.raises(DataError, match=r"sample_0: label values 7; expected 0, 1, 2, 3"):
        open_dataset("geobench2-caffe", tmp_path / "values").train.chip(0)
    geobench2.mapped("caffe", "img", "zones", geobench2.eight_bit(63), range(4))(tmp_path / "names")
    with pytest.raises(DataError, match=r"0 items mask; expected one; known: img, zones"):
        open_dataset("geobench2-caffe", tmp_path / "names").train.chip(0)
    geobench2.mapped("caffe", "img", "mask", geobench2.eight_bit(63, 64), range(4))(tmp_path / "bands")
    with pytest.raises(DataError, match="2 bands; expected 1"):
        open_dataset("geobench2-caffe", tmp_path / "bands")
    part = (root / "pastis" / "geobench_pastis.0001.part.tortilla").read_bytes()
    for i in range(3):
        (tmp_path / f"geobench_pastis.000{i}.part.tortilla").write_bytes(part)
    with pytest.raises(DataError, match="expected each sample once"):
        open_dataset("geobench2-pastis", tmp_path)
    only = pack({"a": ("TORTILLA", part)}, **{"tortilla:data_split": "train"})
    (tmp_path / "geobench_caffe.tortilla").write_bytes(only)
    with pytest.raises(DataError, match="no sample of split validation or test"):
        open_dataset("geobench2-caffe", tmp_path)


REAL = {"benv2": (14, 120), "caffe": (1, 512), "flair2": (4, 512), "treesatai": (4, 304)}


@pytest.mark.skipif(not (SHARED / "geobench2_samples").is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", REAL)
def test_the_real_samples_open_and_train_for_a_step(name):
    config = DataConfig(kind="dataset", dataset=f"geobench2-{name}", root=SHARED / "geobench2_samples" / name)
    splits = open_data(config)
    bands, side = REAL[name]
    x, _ = splits.train.batch([0])
    assert x.shape == (1, bands, side, side) and not splits.train.unit_warnings()
    found = means(splits)
    if name == "benv2":
        assert found["VV"] > found["VH"] + 5, "cross-polarised backscatter is the weaker"
    if name == "treesatai":
        assert found["N"] > 1.3 * max(found["R"], found["G"], found["B"]), "forests are bright in the near infrared"
    small = {p: getattr(splits, p).subset([0]) for p in ("train", "validation", "test")}
    small = type(splits)(**small)
    wanted = (
        "sar:VV,VV,VV@8bit" if name == "caffe" else "aerial:R,G,B@8bit" if name != "benv2" else "sentinel-1:VV,VH,VH@db"
    )
    ensemble = Ensemble([make_specialist("one", wanted)], splits.train.bands, statistics=small.train.statistics())
    task = TaskSpec(kind=splits.train.kind, classes=splits.train.classes, chip_size=-(-side // 32) * 32,
                    head=HeadConfig(decoder="linear", channels=8, dropout=0.0))  # fmt: skip
    _, result, _ = adapt_ensemble(ensemble, small, task, FitConfig(epochs=1, batch_size=1))
    assert np.isfinite(result.best)
