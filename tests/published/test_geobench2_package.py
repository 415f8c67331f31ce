"""GEO-Bench-2 read by us and by the benchmark's own package: the same pixels and labels. Runs where `geobenchv2` is installed.

    uv venv -p 3.11 venv && uv pip install -p venv/bin/python geobenchv2==0.9 -e '.[dev]'
    venv/bin/pytest -m slow tests/published/test_geobench2_package.py

What it names otherwise is asked for under its names: its "VV" of benv2 is the file's VH, its "red" of treesatai near infrared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eosfm.data.catalogue import open_dataset
from eosfm.data.published.geobench2_tables import MONTHS, SHEETS
from eosfm.tasks.boxes import things
from eosfm.tasks.kinds import IGNORE
from miniatures import geobench2_things
from miniatures.geobench2 import WRITERS
from miniatures.real_ones import SHARED

package = pytest.importorskip("geobench_v2.datasets", reason="needs geobenchv2")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")]

S2_10 = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
S2_12 = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]
TREES = ["B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09"]
WORLDVIEW = ["coastal", "blue", "green", "yellow", "red", "red_edge", "nir1", "nir2"]
CLASS = {
    "benv2": ("BENV2", {"band_order": {"s2": S2_12, "s1": ["VH", "VV"]}}),
    "biomassters": ("BioMassters", {"band_order": {"s2": S2_10, "s1": ["VV_asc", "VH_asc"]}, "num_time_steps": 12}),
    "burn_scars": ("BurnScars", {"band_order": ["B02", "B03", "B04", "B8A", "B11", "B12"]}),
    "caffe": ("CaFFe", {"band_order": ["gray"]}),
    "cloudsen12": ("CloudSen12", {"band_order": S2_12}),
    "dynamic_earthnet": (
        "DynamicEarthNet",
        {"band_order": {"planet": ["b", "g", "r", "nir"]}, "temporal_setting": "weekly"},
    ),
    "flair2": ("FLAIR2", {"band_order": {"aerial": ["red", "green", "blue", "nir"]}}),
    "forestnet": ("Forestnet", {"band_order": ["B02", "B03", "B04", "B8A", "B11", "B12"]}),
    "fotw": ("FieldsOfTheWorld", {"band_order": ["red", "green", "blue", "nir"]}),
    "kuro_siwo": ("KuroSiwo", {"band_order": {"sar": ["vv", "vh"]}}),
    "pastis": ("PASTIS", {"band_order": {"s2": S2_10}, "num_time_steps": 6, "temporal_output_format": "TCHW"}),
    "so2sat": ("So2Sat", {"band_order": {"s2": S2_10}}),
    "spacenet2": ("SpaceNet2", {"band_order": {"worldview": WORLDVIEW}}),
    "spacenet7": ("SpaceNet7", {"band_order": ["red", "green", "blue"]}),
    "everwatch": ("EverWatch", {"band_order": ["red", "green", "blue"]}),
    "nzcattle": ("NZCattle", {"band_order": ["red", "green", "blue"]}),
    "substation": ("Substation", {}),
    "pastis_r": (
        "PASTIS",
        {
            "band_order": {"s2": S2_10},
            "num_time_steps": 6,
            "temporal_output_format": "TCHW",
            "label_type": "instance_seg",
        },
    ),
    "treesatai": ("TreeSatAI", {"band_order": {"aerial": ["nir", "green", "blue", "red"], "s2": TREES}}),
}
"""class, and how it is asked for what we read"""
OPTIONS = {"pastis_r": {"dates": 6}}  # of fewer dates than it is asked for the package can make no sample
CODES = {"spacenet2": {1: 0, 2: 1}, "spacenet7": {1: 0, 2: 1}, "burn_scars": {0: 0, 1: 1, 2: IGNORE},
         "kuro_siwo": {0: IGNORE, 1: 0, 2: 1, 3: 2}, "cloudsen12": {0: 0, 1: 1, 2: 2, 3: 3, 99: IGNORE},
         "pastis": {**{i: i for i in range(19)}, 19: IGNORE}, "fotw": {0: 0, 1: 1, 2: 2, 3: IGNORE}}  # fmt: skip
"""its label -> ours, where they differ"""


def theirs(name: str, split: str, root: Path, monkeypatch):
    kind, options = CLASS[name]
    module = "pastis" if name == "pastis_r" else name
    cls = getattr(package, f"GeoBench{kind}", None) or getattr(
        __import__(f"geobench_v2.datasets.{module}", fromlist=["x"]), f"GeoBench{kind}"
    )
    files = sorted(p.name for p in root.glob("*.tortilla"))
    monkeypatch.setattr(cls, "paths", files)
    monkeypatch.setattr(cls, "sha256str", [""] * len(files))
    return cls(root=root, split=split, data_normalizer=torch.nn.Identity, **options)


def flat(name: str, sample: dict) -> np.ndarray:
    """Its picture in our layout, all dates one after another."""
    if name in ("benv2", "treesatai"):
        first = sample["image_s2"] if name == "benv2" else sample["image_aerial"]
        return np.concatenate([first, sample["image_s1"] if name == "benv2" else sample["image_s2"]])
    if name == "fotw":
        return np.concatenate([sample["image_a"], sample["image_b"]])
    if name == "kuro_siwo":
        return np.concatenate([sample[f"image_{k}"] for k in ("pre_1", "pre_2", "post")])
    if name == "dynamic_earthnet":
        return sample["image_planet"].permute(1, 0, 2, 3).flatten(0, 1).numpy()
    if name in ("pastis", "pastis_r"):
        return sample["image_s2"].flatten(0, 1).numpy()
    key = next(k for k in ("image", "image_aerial", "image_s2", "image_worldview") if k in sample)
    return sample[key].numpy()


def compare(name: str, root: Path, monkeypatch) -> int:
    splits, compared = open_dataset(f"geobench2-{name}", root, **OPTIONS.get(name, {})), 0
    second = open_dataset(f"geobench2-{name}-s2", root) if name == "treesatai" else None
    for split in ("train", "validation", "test"):
        ours, other = getattr(splits, split), theirs(name, split, root, monkeypatch)
        assert len(ours) == len(other)
        for i in range(len(ours)):
            x, y = ours.chip(i)
            sample = other[i]
            picture = biomassters(sample) if name == "biomassters" else flat(name, sample)
            if second is not None:
                x = torch.cat([x, getattr(second, split).chip(i)[0]])
            x = x.numpy()
            assert x.shape == picture.shape
            there = np.isfinite(x)
            if name == "biomassters":  # it has 0 in all bands of a date where radar has nothing
                there &= np.repeat((picture.reshape(12, 12, *x.shape[1:]) != 0).any(1), 12, axis=0)
            assert there.mean() > 0.8 and np.array_equal(x[there], picture[there].astype(np.float32))
            gone = picture[~np.isfinite(x)]
            assert np.isin(gone[np.isfinite(gone)], [0, 9999, -9999, -10_000]).all(), (
                "only what it has no value for is NaN"
            )
            found(name, sample, y) if name in geobench2_things.WRITERS else label(name, sample, y.numpy())
            compared += 1
    return compared


def biomassters(sample: dict) -> np.ndarray:
    """The package fills missing months of Sentinel-2 up in front; ours leaves the months where they are."""
    s1, s2 = (sample[f"image_{k}"].permute(1, 0, 2, 3).numpy() for k in ("s1", "s2"))
    there = [m for m in range(len(MONTHS)) if m not in (3, 4)]
    placed = np.zeros_like(s2)
    placed[there] = s2[2:]
    return np.concatenate([np.concatenate([placed[m], s1[m]]) for m in range(len(MONTHS))])


def label(name: str, sample: dict, ours: np.ndarray) -> None:
    if name in ("benv2", "treesatai", "so2sat", "forestnet"):
        assert np.array_equal(np.asarray(sample["label"]), ours)
    elif name == "biomassters":
        np.testing.assert_allclose(sample["mask"].numpy() * 289.89, ours, rtol=1e-5)
    else:
        said = sample["mask"].numpy()
        table = CODES.get(name) or {i: i for i in range(len(SHEETS[name].about.classes))}
        expected = np.vectorize(table.__getitem__)(said)
        if name == "kuro_siwo":
            expected[sample["invalid_data"][0].numpy() == 0] = IGNORE
        assert np.array_equal(expected, ours)


def found(name: str, sample: dict, ours: torch.Tensor) -> None:
    """The same things; of fields the package has void and background too, and boxes that end one pixel early."""
    boxes, classes, masks = things(ours)
    theirs_boxes, theirs_classes = sample["boxes" if name == "pastis_r" else "bbox_xyxy"], sample["label"]
    if name == "pastis_r":
        kept = (theirs_classes > 0) & (theirs_classes < 19)
        theirs_boxes = theirs_boxes[kept] + torch.tensor([0, 0, 1, 1])
        assert torch.equal(sample["mask"][kept].bool(), masks)
        assert len(classes) == int(kept.sum())
        theirs_classes = theirs_classes[kept]
    if name == "substation":
        h, w = masks.shape[-2:]
        assert torch.equal(sample["mask"][:, :h, :w].bool(), masks)  # its masks are 228 x 228 whatever the picture is
    assert torch.equal(theirs_boxes.float(), boxes) and torch.equal(theirs_classes - 1, classes)


@pytest.mark.parametrize("name", sorted({**WRITERS, **geobench2_things.WRITERS}))
def test_the_package_reads_our_miniatures_and_sees_what_we_see(name, tmp_path, monkeypatch):
    {**WRITERS, **geobench2_things.WRITERS}[name](tmp_path)
    assert compare(name, tmp_path, monkeypatch) == 4


@pytest.mark.skipif(not (SHARED / "geobench2_samples").is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["benv2", "caffe", "flair2", "treesatai"])
def test_the_package_and_we_read_the_real_samples_alike(name, monkeypatch):
    assert compare(name, SHARED / "geobench2_samples" / name, monkeypatch) in (5, 9)
