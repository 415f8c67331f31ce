"""Chips, labels and splits that would train a wrong model or score it wrongly (D12, D13): refused, with the data set's name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Chips, Splits, few_per_class, split_indices
from eosfm.data.labels import require_labels

BANDS = BandSet.parse("sentinel-1:VV,VH@db")


def chips(kind: str = "segmentation", n: int = 4, **changes) -> Chips:
    labels = (
        None
        if "labels" in changes
        else {
            "segmentation": torch.zeros(n, 8, 8, dtype=torch.long),
            "regression": torch.zeros(n, 8, 8),
            "classification": torch.zeros(n, dtype=torch.long),
            "multilabel": torch.zeros(n, 3, dtype=torch.long),
        }[kind]
    )
    fields = {"images": torch.arange(n * 128.0).view(n, 2, 8, 8), "labels": labels, "bands": BANDS, "kind": kind,
              "classes": ("a", "b", "c"), "name": "mine"}  # fmt: skip
    return Chips(**(fields | changes))


def refused(says: str, kind: str = "segmentation", **changes) -> None:
    with pytest.raises(DataError, match=says) as e:
        chips(kind, **changes)
    assert "mine" in str(e.value)


@pytest.mark.parametrize("kind", ["segmentation", "classification"])
@pytest.mark.parametrize("value", [-1, 3, 254, 256, 2**40])
def test_a_label_outside_the_classes_is_refused(kind: str, value: int):
    labels = chips(kind).labels.clone()
    labels.view(-1)[-1] = value
    refused(f"label values {value} are outside the 3 classes 0 to 2", kind, labels=labels)


def test_ignore_is_a_label_of_segmentation_only():
    assert len(chips(labels=torch.full((4, 8, 8), 255))) == 4
    refused("255 are outside", "classification", labels=torch.full((4,), 255))
    refused("255 are outside", "multilabel", labels=torch.full((4, 3), 255))


def test_many_bad_values_are_shown_in_part():
    refused("label values 3, 4, 5, 6, 7 are", labels=torch.arange(256).view(4, 8, 8))


@pytest.mark.parametrize("kind", ["segmentation", "classification"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_float_labels_are_refused(kind: str, dtype: torch.dtype):
    refused(f"labels are {dtype}; expected integers 0 to 2", kind, labels=chips(kind).labels.to(dtype))


@pytest.mark.parametrize("value", [2, -1, float("nan")])
def test_multilabel_is_0_or_1(value: float):
    labels = torch.zeros(4, 3)
    labels[1, 2] = value
    refused("are outside", "multilabel", labels=labels)


def test_regression_labels_may_be_anything_and_missing():
    assert len(chips("regression", labels=torch.full((4, 8, 8), float("nan")))) == 4
    require_labels("regression", torch.tensor([-1e9, 1e9]), 1, "x")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": torch.zeros(0, 2, 8, 8), "labels": torch.zeros(0, 8, 8, dtype=torch.long)}, "no chips"),
        (
            {"images": torch.zeros(4, 3, 8, 8)},
            r"images \(4, 3, 8, 8\); expected \(n, 2, h, w\) for sentinel-1:VV,VH@db",
        ),
        ({"images": torch.zeros(4, 8, 8)}, "expected"),
        ({"labels": torch.zeros(3, 8, 8, dtype=torch.long)}, "4 images but 3 labels"),
        (
            {"labels": torch.zeros(4, 8, 9, dtype=torch.long)},
            r"labels \(4, 8, 9\); segmentation of 4 images .* has \(4, 8, 8\)",
        ),
        ({"labels": torch.zeros(4, 4, 4, dtype=torch.long)}, r"labels \(4, 4, 4\)"),
        ({"kind": "tracking", "labels": torch.zeros(4)}, "unknown task kind 'tracking'; known: segmentation"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict, says: str):
    refused(says, **changes)


def test_labels_of_one_chip_for_regression_must_have_its_size():
    refused("labels ", "regression", labels=torch.zeros(4, 8, 7))


def test_chips_without_ids_get_distinct_ones_and_subsets_keep_theirs():
    data = chips()
    assert len(set(data.ids)) == 4
    part = data.subset([2, 0])
    assert part.ids == (data.ids[2], data.ids[0])
    assert torch.equal(part.images, data.images[[2, 0]])
    assert part.name == "mine"
    x, y = part.batch([1])
    assert torch.equal(x, data.images[:1])
    assert x.dtype == torch.float32
    assert torch.equal(y, data.labels[:1])


def test_the_hash_sees_every_pixel_label_band_and_class():
    data = chips()
    images, labels = data.images.clone(), data.labels.clone()
    images[3, 1, 7, 7] += 1
    labels[3, 7, 7] = 1
    others = [
        dataclasses.replace(data, images=images), dataclasses.replace(data, labels=labels),
        dataclasses.replace(data, bands=BandSet.parse("sentinel-1:VH,VV@db")),
        dataclasses.replace(data, classes=("a", "c", "b")), dataclasses.replace(data, images=data.images.double()),
        data.subset([1, 0, 2, 3]),
    ]  # fmt: skip
    assert len({d.sha256() for d in [data, *others]}) == len(others) + 1
    assert dataclasses.replace(data, name="other").sha256() == data.sha256() == chips().sha256()


def test_statistics_are_those_of_the_pixels():
    x = torch.randn(300, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    x[0, 0] = float("nan")
    data = chips(n=300, images=x, labels=torch.zeros(300, 8, 8, dtype=torch.long))
    np.testing.assert_allclose(data.statistics().mean, np.nanmean(x.double().numpy(), (0, 2, 3)), atol=1e-6)


# splits --------------------------------------------------------------------------------------------------------------


def test_a_chip_in_two_splits_is_refused():
    data = chips(n=6, labels=torch.zeros(6, 8, 8, dtype=torch.long))
    one, two, three = data.subset([0, 1]), data.subset([2, 3]), data.subset([4, 5])
    Splits(one, two, three)
    for parts, names in [
        ((one, data.subset([2, 1]), three), "training|train.*validation"),
        ((one, two, data.subset([5, 0])), "train and the test"),
        ((one, two, data.subset([3])), "validation and the test"),
    ]:
        with pytest.raises(DataError, match=names) as e:
            Splits(*parts)
        assert "is in both" in str(e.value)


@pytest.mark.parametrize(
    "change", [{"bands": BandSet.parse("sentinel-1:VH,VV@db")}, {"classes": ("a", "b", "d")},
               {"bands": BandSet.parse("sentinel-1:VV,VH@linear")}, {"kind": "regression", "labels": torch.zeros(2, 8, 8)}],
)  # fmt: skip
@pytest.mark.parametrize("which", ["validation", "test"])
def test_splits_that_disagree_are_refused(change: dict, which: str):
    data = chips(n=6, labels=torch.zeros(6, 8, 8, dtype=torch.long))
    parts = {"train": data.subset([0, 1]), "validation": data.subset([2, 3]), "test": data.subset([4, 5])}
    parts[which] = dataclasses.replace(parts[which], **change)
    with pytest.raises(DataError, match=f"the {which} split has other bands, classes or task"):
        Splits(**parts)


@given(st.integers(1, 60), st.integers(0, 100), st.integers(0, 4))
def test_a_split_uses_every_chip_once(n: int, seed: int, groups: int):
    labels = [i % groups for i in range(n)] if groups else None
    parts = split_indices(n, (0.6, 0.2, 0.2), seed, labels)
    assert sorted(i for p in parts for i in p) == list(range(n))
    assert parts == split_indices(n, (0.6, 0.2, 0.2), seed, labels)


def test_a_split_depends_on_the_seed_and_has_the_asked_sizes():
    one, other = (split_indices(1000, (0.6, 0.2, 0.2), s) for s in (0, 1))
    assert one != other
    assert [len(p) for p in one] == [600, 200, 200]


def test_a_stratified_split_keeps_the_shares():
    labels = [0] * 500 + [1] * 50
    for part, share in zip(split_indices(550, (0.6, 0.2, 0.2), 0, labels), (0.6, 0.2, 0.2), strict=True):
        assert sum(labels[i] for i in part) == round(50 * share)


def test_few_labels_per_class():
    labels = torch.tensor([0] * 10 + [1] * 5 + [2] * 1)
    data = chips("classification", 16, labels=labels)
    few = few_per_class(data, 3, 0)
    assert torch.bincount(few.labels).tolist() == [3, 3, 1]
    assert few.ids == few_per_class(data, 3, 0).ids
    assert few.ids != few_per_class(data, 3, 1).ids
    assert set(few.ids) <= set(data.ids)
    with pytest.raises(DataError, match="for classification, not segmentation"):
        few_per_class(chips(), 1, 0)
