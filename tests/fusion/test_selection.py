"""Learned top-k: hard forwards, a gradient for every gate, the schedule, and that it finds what matters."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from eosfm.contracts import ConfigError
from eosfm.engine.cache import cached_features
from eosfm.ensemble import Ensemble
from eosfm.fusion.selection import SelectionConfig, TopK
from eosfm.seeding import seeded
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.objectives import make_loss
from eosfm.training.fit import adapt_ensemble
from eosfm.training.settings import FitConfig
from helpers import equal

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from selection_world import selection_world

NAMES = [f"s{i}" for i in range(6)]
FIT = FitConfig(epochs=30, batch_size=8, learning_rate=1e-3)


def selector(keep=2, **changes) -> TopK:
    return TopK(NAMES, [0, 1, 1, 2, 3, 4, 5], SelectionConfig(keep=keep, **changes))


def task_of(splits) -> TaskSpec:
    head = HeadConfig(decoder="linear", channels=32, dropout=0.0)
    return TaskSpec(kind="segmentation", classes=splits.train.classes, chip_size=64, head=head)


@pytest.mark.parametrize("done", [0.0, 0.1, 0.3, 0.5, 0.59])
def test_the_forward_is_hard_and_every_gate_has_a_gradient(done):
    s = selector().train()
    s.advance(done)
    gates = s()
    assert set(gates.tolist()) <= {0.0, 1.0} and gates[1] == gates[2], "the views of one specialist go together"
    (gates * torch.arange(1.0, 8.0)).sum().backward()
    assert s.scores.grad is not None and bool((s.scores.grad != 0).all())


def test_the_number_that_is_on_falls_and_stays():
    s = selector(explore=0.25, settle=0.75).train()
    most, on = [], []
    for step in range(101):
        s.advance(step / 100)
        most.append(s.most())
        on.append(int(s()[[0, 1, 3, 4, 5, 6]].sum()))
    assert most[:26] == [6] * 26 and most[75:] == on[75:] == [2] * 26
    assert all(a >= b for a, b in pairwise(most)) and set(most) == {2, 3, 4, 5, 6}
    assert all(2 <= a <= b for a, b in zip(on, most, strict=True)) and len(set(on[:26])) > 2, "company changes"
    s.advance(0.9)
    assert not s().requires_grad, "settled: scores no longer move"
    assert s.eval()()[[0, 1, 3, 4, 5, 6]].sum() == 2, "validation sees what will be kept, at any time"


def test_one_common_step_keeps_what_the_gradient_says():
    """An optimiser with a step for each score would move all of them alike; the useful ones must go further."""
    s = selector(learning_rate=1.0).train()
    optimiser = torch.optim.AdamW([s.optimiser_group()])
    for _ in range(5):
        optimiser.zero_grad()
        s.advance(0.1)
        (1e-6 * s() * torch.tensor([-8.0, 0.5, 0.5, 0.01, 0.01, 0.01, -0.01])).sum().backward()
        optimiser.step()
    moved = s.scores.detach().abs()
    assert moved[0] > 5 * moved[1] > 50 * moved[2], "also where the loss is flat as 1e-6"


def test_ties_are_not_dead():
    """All scores start equal; one step of gradient tells them apart, in both directions."""
    s = selector().train()
    s.advance(0.1)
    (s() * torch.tensor([1.0, 0.5, 0, -1, 2, -2, 3])).sum().backward()
    with torch.no_grad():
        s.scores -= s.scores.grad
    assert s.chosen() == ["s2", "s4"]
    assert len(set(s.scores.tolist())) == 6


def test_impossible_wishes():
    with pytest.raises(ConfigError, match=r"keep 7 of 6 specialists .*at most 6"):
        selector(keep=7)
    for wrong in ({"keep": 0}, {"keep": 1, "explore": 0.8}, {"keep": 1, "settle": 1.5}, {"keep": 1, "noise": -1}):
        with pytest.raises(ValueError, match="expected"):
            SelectionConfig(**wrong)


@pytest.fixture(scope="module")
def world():
    return selection_world(0, train=16, validation=8, test=8)


def ensemble(world) -> Ensemble:
    splits, specialists, _ = world
    return Ensemble(specialists, splits.train.bands, statistics=splits.train.statistics(), seed=1)


def test_gradient_reaches_the_gate_of_a_specialist_that_is_off(world):
    splits, _, _ = world
    ens = ensemble(world)
    ens.select(SelectionConfig(keep=3)).advance(0.5)
    model = TaskModel(ens, task_of(splits)).train()
    features = cached_features(ens, splits.train)
    x, y = features.batch(range(8))
    with seeded(0):
        make_loss("segmentation")(model.from_features(x), y).backward()
    off = [i for i, g in enumerate(ens.selector().tolist()) if g == 0]
    assert off and bool((ens.selector.scores.grad[off] != 0).all())


def test_keeping_all_is_no_selection(world):
    splits, _, _ = world
    config = replace(FIT, epochs=2)
    plain, _, _ = adapt_ensemble(ensemble(world), splits, task_of(splits), config)
    all_, _, _ = adapt_ensemble(ensemble(world), splits, task_of(splits), config, selection=SelectionConfig(keep=12))
    a, b = plain.trainable_tensors(), all_.trainable_tensors()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_model_that_comes_back_has_no_trace_of_the_others(world):
    splits, _, _ = world
    ens = ensemble(world)
    model, result, _ = adapt_ensemble(
        ens, splits, task_of(splits), replace(FIT, epochs=4), selection=SelectionConfig(keep=3)
    )
    assert [c.name for c in model.encoder.cards] == ens.selector.chosen() and len(model.encoder.encoders) == 3
    assert model.encoder.selector is None and model.encoder.fusion.views == 3
    x, _ = splits.test.batch([0, 1])
    with torch.inference_mode():
        assert equal(model.encoder(x), ens.pruned(ens.selector.chosen())(x))
        for a, b in zip(ens.eval()(x), model.encoder(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert result.epochs == 4


def finds(seed: int) -> int:
    splits, specialists, truth = selection_world(seed)
    ens = Ensemble(specialists, splits.train.bands, statistics=splits.train.statistics(), seed=seed)
    config = replace(FIT, seed=seed, validate_every=10)
    adapt_ensemble(ens, splits, task_of(splits), config, selection=SelectionConfig(keep=3))
    return len(set(ens.selector.chosen()) & set(truth))


def test_it_finds_the_informative_specialists():
    assert finds(0) == 3


@pytest.mark.slow
def test_it_finds_them_in_nine_of_ten_seeds():
    assert sum(finds(seed) == 3 for seed in range(10)) >= 9
