"""Chips on disk behave as chips in memory."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.catalogue import dataset_names, open_dataset
from eosfm.data.chips import Chips, Splits
from eosfm.data.streams import StreamedChips

RGB = BandSet.parse("rgb:R,G,B@8bit")


@dataclass(frozen=True)
class Npy:
    folder: Path

    def __call__(self, key: str) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.load(self.folder / f"{key}.npy")), torch.tensor(int(key) % 2)


def in_memory(n: int = 12) -> Chips:
    g = torch.Generator().manual_seed(3)
    images = torch.randint(0, 255, (n, 3, 32, 32), generator=g, dtype=torch.uint8)
    labels = torch.arange(n) % 2
    ids = tuple(str(i) for i in range(n))
    return Chips(images, labels, RGB, "classification", ("a", "b"), "m", ids=ids)


@pytest.fixture
def both(tmp_path: Path) -> tuple[Chips, StreamedChips]:
    chips = in_memory()
    for i, x in enumerate(chips.images):
        np.save(tmp_path / f"{i}.npy", x.numpy())
    stream = StreamedChips(Npy(tmp_path), chips.ids, (32, 32), RGB, "classification", ("a", "b"), "m")
    return chips, stream


def test_a_stream_gives_what_memory_gives(both):
    chips, stream = both
    for a, b in zip(chips.batch([3, 0, 7]), stream.batch([3, 0, 7]), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert stream.statistics() == chips.statistics()
    assert (len(stream), stream.size) == (len(chips), chips.size)
    assert torch.equal(stream.labels, chips.labels)
    assert stream.subset([4, 2]).ids == chips.subset([4, 2]).ids
    assert stream.unit_warnings() == chips.unit_warnings()


def test_the_hash_moves_with_pixels_ids_and_bands(both, tmp_path):
    _, stream = both
    before = stream.sha256()
    assert before == replace(stream, name="other").sha256()
    assert before != stream.subset(range(11)).sha256()
    assert before != replace(stream, classes=("b", "a")).sha256()
    np.save(tmp_path / "5.npy", np.zeros((3, 32, 32), np.uint8))
    assert before != stream.sha256()


def test_a_bad_chip_is_named(both, tmp_path):
    _, stream = both
    np.save(tmp_path / "5.npy", np.zeros((3, 32, 31), np.uint8))
    with pytest.raises(DataError, match=r"m, 5: image \(3, 32, 31\)"):
        stream.batch([5])
    with pytest.raises(DataError, match=r"m, 1: label values 1 are outside the 1 classes"):
        replace(stream, classes=("a",)).batch([1])
    with pytest.raises(DataError, match="no chips"):
        replace(stream, ids=())
    with pytest.raises(DataError, match="listed twice"):
        replace(stream, ids=("1", "1"))
    with pytest.raises(DataError, match="unknown task kind"):
        replace(stream, kind="x")


def test_two_dates_share_their_statistics(both):
    _, stream = both

    @dataclass(frozen=True)
    class Pair:
        inner: Npy

        def __call__(self, key: str) -> tuple[Tensor, Tensor]:
            x, y = self.inner(key)
            return torch.cat([x, x]), y

    pairs = replace(stream, read=Pair(stream.read), dates=2)
    assert pairs.batch([1])[0].shape == (1, 6, 32, 32)
    assert pairs.statistics() == stream.statistics()


def test_streams_make_splits_and_overlap_is_refused(both):
    _, stream = both
    Splits(stream.subset(range(6)), stream.subset([6, 7]), stream.subset([8, 9]))
    with pytest.raises(DataError, match="in both the train and the test split"):
        Splits(stream.subset(range(6)), stream.subset([6, 7]), stream.subset([5]))


def test_an_unknown_data_set_or_option_names_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"unknown data set 'eurosat'.*eurosat-rgb"):
        open_dataset("eurosat", tmp_path)
    with pytest.raises(DataError, match=r"has no option per_class.*limit"):
        open_dataset("bigearthnet-s2", tmp_path, per_class=3)
    assert dataset_names() == sorted(dataset_names())
