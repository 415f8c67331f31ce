"""Batches: an order that a resumed run repeats, and augmentation that moves image and label together."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosfm.seeding import purpose_seed, seeded
from eosfm.training.batches import EpochSampler, dihedral, loader


def keys(n: int = 10, batch: int = 3, seed: int = 0, shuffle: bool = True, epoch: int = 0) -> list:
    sampler = EpochSampler(n, batch, seed, shuffle)
    sampler.set_epoch(epoch)
    assert len(list(sampler)) == len(sampler)
    return list(sampler)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_every_epoch_shows_every_chip_once(n: int, batch: int, seed: int, epoch: int, shuffle: bool):
    got = keys(n, batch, seed, shuffle, epoch)
    assert sorted(i for _, _, b in got for i in b) == list(range(n))
    assert [len(b) for _, _, b in got[:-1]] == [batch] * (len(got) - 1)
    assert [(e, k) for e, k, _ in got] == [(epoch, k) for k in range(len(got))]


def test_the_order_depends_on_seed_and_epoch_only():
    torch.manual_seed(1)
    a = keys(seed=3, epoch=2)
    torch.manual_seed(2)
    torch.rand(100)
    sampler = EpochSampler(10, 3, 3, True)
    for epoch in (0, 1, 2):  # got there by another way
        sampler.set_epoch(epoch)
        b = list(sampler)
    assert a == b
    assert keys(seed=3, epoch=3) != a
    assert [k[2] for k in keys(seed=3, epoch=3)] != [k[2] for k in a]
    assert [k[2] for k in keys(seed=4, epoch=2)] != [k[2] for k in a]


def test_the_order_does_not_depend_on_the_batch_size():
    one, other = ([i for _, _, b in keys(20, size, 5, epoch=1) for i in b] for size in (3, 7))
    assert one == other


def test_iterating_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    keys()
    assert torch.equal(torch.get_rng_state(), state)


def test_without_shuffling_the_order_is_the_data_s():
    assert [i for _, _, b in keys(shuffle=False, epoch=4) for i in b] == list(range(10))


class Source:
    """Labels are a function of the images, so that a move of one without the other shows."""

    def __init__(self, n: int = 12, size: tuple[int, int] = (6, 6)) -> None:
        self.x = torch.rand(n, 2, *size, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices):
        x = self.x[torch.as_tensor(indices)]
        return x, label(x)


def label(x: torch.Tensor) -> torch.Tensor:
    return ((x[:, 0] + 2 * x[:, 1]) * 10).long()


@pytest.mark.parametrize("size", [(6, 6), (4, 8), (8, 4), (1, 1), (1, 5)])
def test_image_and_label_move_together(size: tuple[int, int]):
    x, y = Source(64, size).batch(range(64))
    a, b = dihedral(x, y, torch.Generator().manual_seed(0))
    assert torch.equal(b, label(a))
    assert a.shape == x.shape
    if max(size) > 1:
        assert not torch.equal(a, x)
    assert torch.equal(a.flatten(2).sort().values, x.flatten(2).sort().values), "pixels are moved, never changed"


@pytest.mark.parametrize(("size", "symmetries"), [((3, 3), 8), ((2, 3), 4)])
def test_every_symmetry_of_the_chip_occurs_about_equally_often(size: tuple[int, int], symmetries: int):
    n = 4000
    x = torch.arange(float(size[0] * size[1])).view(1, 1, *size).expand(n, 1, *size)
    a, _ = dihedral(x, torch.zeros(n), torch.Generator().manual_seed(0))
    seen = Counter(tuple(m.flatten().tolist()) for m in a)
    assert len(seen) == symmetries
    assert min(seen.values()) > 0.8 * n / symmetries


@pytest.mark.parametrize("y", [torch.arange(5), torch.arange(15).view(5, 3)])
def test_labels_of_scenes_are_left_alone(y: torch.Tensor):
    _, b = dihedral(torch.rand(5, 2, 4, 4), y, torch.Generator().manual_seed(0))
    assert b is y


def test_augmentation_does_not_change_the_stored_images():
    source = Source()
    before = source.x.clone()
    list(loader(source, 4, 0, train=True, augment=True))
    x, y = source.x, label(source.x)
    dihedral(x, y, torch.Generator().manual_seed(0))
    assert torch.equal(source.x, before)


def epoch_of(source: Source, epoch: int, **kwargs) -> list[torch.Tensor]:
    batches = loader(source, 4, 7, **kwargs)
    batches.sampler.set_epoch(epoch)
    return [x for x, _ in batches]


def test_a_replayed_epoch_is_the_same_epoch_augmentation_included():
    source = Source()
    torch.manual_seed(1)
    a = epoch_of(source, 3, train=True, augment=True)
    torch.manual_seed(2)
    b = epoch_of(source, 3, train=True, augment=True)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    c = epoch_of(source, 4, train=True, augment=True)
    assert not all(torch.equal(x, y) for x, y in zip(a, c, strict=True))


def test_validation_is_neither_shuffled_nor_augmented():
    source = Source()
    assert torch.equal(torch.cat(epoch_of(source, 5, train=False, augment=True)), source.x)


def test_batches_carry_aligned_labels():
    for x, y in loader(Source(), 5, 0, train=True, augment=True):
        assert torch.equal(y, label(x))


def test_one_seed_per_purpose():
    seeds = {
        purpose_seed(s, p, *n)
        for s in range(20)
        for p in ("order", "augment")
        for n in ((), (0,), (1,), (0, 1), (1, 0))
    }
    assert len(seeds) == 200
    assert all(0 <= s < 2**63 for s in seeds)
    assert purpose_seed(0, "order", 1) == purpose_seed(0, "order", 1)


def test_seeded_blocks_repeat_and_restore():
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(3):
            draws.append(torch.rand(3))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(KeyError), seeded(3):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)
