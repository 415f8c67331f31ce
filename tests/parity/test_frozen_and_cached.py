"""Frozen means frozen (M5), and features computed once give what computing them every time gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.data.chips import Chips, Splits
from eosfm.engine.cache import cached_features
from eosfm.ensemble import Ensemble
from eosfm.specialists.encoder import pad
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.objectives import make_loss
from eosfm.training.fit import adapt_ensemble
from eosfm.training.settings import FitConfig
from helpers import TINY, image, make_specialist

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4 + sentinel-1:VV,VH@db")
TASK = TaskSpec(
    kind="segmentation", classes=("a", "b"), chip_size=32, head=HeadConfig(decoder="linear", channels=8, dropout=0.0)
)


def ensemble(normalise="none") -> Ensemble:
    names = ("s1-sar", "s2-rgb")
    specialists = [make_specialist(n, TINY[n], i) for i, n in enumerate(names)]
    return Ensemble(specialists, BANDS, rules=["subset"], normalise=normalise)


def chips(n: int, name: str, size: int = 32, seed: int = 0) -> Chips:
    x = image(BANDS, n, size, seed)
    return Chips(
        images=x, labels=(x[:, 0] > 3000).long(), bands=BANDS, kind="segmentation", classes=("a", "b"), name=name
    )


@pytest.mark.parametrize("normalise", ["none", "batch"])
def test_a_training_step_leaves_every_specialist_bit_identical(normalise: str):
    model = TaskModel(ensemble(normalise), TASK)
    model.train()
    assert model.head.training
    assert not any(m.training for e in model.encoder.encoders for m in e.modules())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x, y = chips(2, "x").batch([0, 1])
    # everything that is registered is handed to the optimiser, decay included: frozen must not depend on a filter
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        make_loss("segmentation")(model(x), y).backward()
        optimiser.step()
    for k, v in model.state_dict().items():
        if ".encoders." in k:
            assert torch.equal(v, before[k]), k
        elif v.is_floating_point():
            assert not torch.equal(v, before[k]), f"{k} was not trained"
    assert all(p.grad is None for p in model.encoder.encoders.parameters())


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
def test_cached_features_give_the_forward_s_output(normalise: str):
    model = TaskModel(ensemble(normalise), TASK)
    with torch.no_grad():
        model.train()(image(BANDS, 2, 32, seed=4))
    model.eval()
    data = chips(5, "x")
    cached = cached_features(model.encoder, data)
    assert len(cached) == 5
    order = [3, 0, 4]
    features, labels = cached.batch(order)
    x, y = data.batch(order)
    assert torch.equal(labels, y)
    with torch.no_grad():
        torch.testing.assert_close(model.from_features(features), model(x), rtol=0, atol=1e-5)
    again = cached_features(model.encoder, data).batch(order)[0]
    for a, b in zip(features, again, strict=True):
        for m, n in zip(a, b, strict=True):
            torch.testing.assert_close(m, n, rtol=0, atol=1e-4)


def test_cached_features_can_be_trained_on():
    model = TaskModel(ensemble(), TASK)
    features, y = cached_features(model.encoder, chips(2, "x")).batch([0, 1])
    make_loss("segmentation")(model.from_features(features), y).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)


def test_adapting_with_and_without_the_cache_is_the_same_training(tmp_path: Path):
    splits = Splits(chips(4, "train"), chips(2, "validation", seed=1), chips(2, "test", seed=2))
    config = FitConfig(epochs=2, batch_size=2, learning_rate=1e-2)
    results = []
    for cache in (True, False):
        ens = ensemble()
        before = {k: v.clone() for k, v in ens.encoders.state_dict().items()}
        model, result, _ = adapt_ensemble(ens, splits, TASK, config, cache=cache, run=tmp_path / str(cache))
        assert all(torch.equal(v, before[k]) for k, v in ens.encoders.state_dict().items())
        assert not model.training
        assert ens.fusion_trained
        results.append((model, result))
    (a, first), (b, second) = results
    assert (first.steps, first.best_epoch) == (second.steps, second.best_epoch)
    x = image(BANDS, 1, 32, seed=7)
    with torch.no_grad():
        torch.testing.assert_close(a(x), b(x), rtol=0, atol=1e-3)
    fresh = TaskModel(ensemble(), TASK)
    assert not torch.equal(fresh.state_dict()["encoder.fusion.convs.0.weight"], a.encoder.fusion.convs[0].weight)


def test_a_stored_checkpoint_of_a_run_holds_no_specialist(tmp_path: Path):
    splits = Splits(chips(2, "train"), chips(2, "validation", seed=1), chips(2, "test", seed=2))
    adapt_ensemble(ensemble(), splits, TASK, FitConfig(epochs=1, batch_size=2), run=tmp_path)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert state
    assert not [k for k in state if ".encoders." in k]


def test_padding_before_the_cache_is_the_model_s_own():
    data = chips(1, "x", size=40)
    ens = ensemble()
    features, _ = cached_features(ens, data).batch([0])
    expected = ens.encode(pad(data.images))
    torch.testing.assert_close(features[0][0], expected[0][0], rtol=0, atol=1e-4)
