"""The fast plan gives what the readable ensemble gives: every fusion, norm, unit, hole in the data and ablation."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from eosfm.contracts import BandError, ConfigError
from eosfm.engine.folded import Patches, as_map, encode, fold_body, fold_stem, stem_map
from eosfm.engine.fused import fused
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import FUSIONS
from eosfm.fusion.selection import SelectionConfig
from helpers import full_ensemble, image, make_encoder, worst_level

# conversions by a scale, by an offset, by a logarithm (not affine), and into another modality
INPUTS = (
    "sentinel-2-l2a:all@dn-1e4-offset-1000",
    "sentinel-2-l2a:B04,B03,B02@reflectance + sentinel-1:VV,VH@linear",
    "hls:all@dn-1e4",
)


def ensemble(bands="hls:all@dn-1e4", **changes) -> Ensemble:
    return full_ensemble(bands, **changes)


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_a_folded_encoder_is_the_encoder(channels):
    encoder = make_encoder(channels)
    x = torch.randn(1, channels, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        body, stem = fold_body(encoder, torch.float32), fold_stem(encoder, None, channels, torch.float32)
        tokens = encode(stem_map(Patches(x), stem), body.low, body.high, 24, 16)
        got = [as_map(t, 24 >> i, 16 >> i) for i, t in enumerate(tokens)]
        assert [m.shape for m in got] == [m.shape for m in encoder(x)]
        assert worst_level(encoder(x), got) < 1e-5


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_fusion_and_norm(fusion, normalise):
    ens = ensemble(fusion=fusion, normalise=normalise)
    x = image(ens.bands, 2, 64)
    with torch.inference_mode():
        assert worst_level(ens(x), fused(ens)(x)) < 1e-5


@pytest.mark.parametrize("bands", INPUTS)
def test_every_unit(bands):
    ens = ensemble(bands)
    plan = fused(ens)
    assert any(s is None for s in plan._stems) == ("linear" in bands), "a logarithm cannot be folded"
    x = image(ens.bands, 2, (64, 96))
    with torch.inference_mode():
        assert worst_level(ens(x), plan(x)) < 1e-5
        for a, b in zip(ens.encode(x), plan.encode(x), strict=True):
            assert worst_level(a, b) < 1e-5


@pytest.mark.parametrize("bands", INPUTS)
def test_pixels_that_are_not_finite_become_the_mean_in_both(bands):
    ens = ensemble(bands)
    x = image(ens.bands, 2, 64)
    x[0, :, :20, :30], x[1, 0, 5, 5], x[1, 1, 6, 6] = float("nan"), float("inf"), float("-inf")
    with torch.inference_mode():
        got = fused(ens)(x)
        assert all(bool(m.isfinite().all()) for m in got)
        assert worst_level(ens(x), got) < 1e-5


@pytest.mark.parametrize("bands", INPUTS)
def test_bf16_points_the_same_way(bands):
    ens = ensemble(bands)
    x = image(ens.bands, 2, 64)
    with torch.inference_mode():
        for a, b in zip(ens(x), fused(ens, precision="bf16")(x), strict=True):
            assert b.dtype == torch.float32
            assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9999


def test_ablated_specialists_do_not_run_and_count_for_nothing(monkeypatch):
    ens = ensemble()
    x = image(ens.bands, 2, 64)
    plan = fused(ens)
    names = [c.name for c in ens.cards]
    ens.ablate(names[1:])
    ran = []
    monkeypatch.setattr("eosfm.engine.fused.encode", lambda *args: ran.append(args) or encode(*args))
    with torch.inference_mode():
        assert worst_level(ens(x), plan(x)) < 1e-5
        assert len(ran) == 2 * sum(v.specialist == names[0] for v in ens.views)
        ens.ablate(names)
        for a, b in zip(ens(x), plan(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert all(float(m.abs().max()) == 0 for p in plan.encode(x) for m in p)
    small = fused(ens.pruned(names[:1]))
    assert len(small._folded) == 1


def test_gradients_reach_the_fusion_and_are_the_same():
    ens = ensemble()
    x = image(ens.bands, 2, 64)
    grads = []
    for net in (ens, fused(ens)):
        ens.zero_grad()
        sum(m.square().mean() for m in net(x)).backward()
        grads.append([p.grad.clone() for p in ens.fusion.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize("normalise", ["none", "batch"])
def test_it_trains_as_the_ensemble_does(normalise):
    """Batch norm of the views sees the whole batch, and a selection its gates."""
    ens = ensemble(normalise=normalise)
    ens.select(SelectionConfig(keep=2)).advance(0.8)
    x = image(ens.bands, 3, 64)
    ens.train()
    state = {k: v.clone() for k, v in ens.fusion.state_dict().items()}
    a = ens(x)
    ens.fusion.load_state_dict(state)
    b = fused(ens)(x)
    assert worst_level([m.detach() for m in a], [m.detach() for m in b]) < 1e-5


def test_what_it_refuses():
    ens = ensemble()
    with pytest.raises(ConfigError, match="known: fp32, bf16"):
        fused(ens, precision="int8")
    with pytest.raises(BandError, match="multiple of 32"):
        fused(ens)(torch.zeros(1, len(ens.bands), 33, 64))
    with pytest.raises(BandError, match="expected"):
        fused(ens)(torch.zeros(1, 2, 64, 64))


def test_released_weights_are_the_plans_alone():
    ens = deepcopy(ensemble())
    x = image(ens.bands, 2, 64)
    with torch.inference_mode():
        before = ens(x)
        plan = fused(ens, release=True)
        assert worst_level(before, plan(x)) < 1e-5
        assert not any(k.startswith("encoders.") for k in ens.state_dict())
        with pytest.raises(ConfigError, match="load it again"):
            ens(x)


@pytest.mark.parametrize("how", ["fused AdamW", "AdamW", "data"])
def test_the_plan_follows_the_fusion_however_it_is_changed(how):
    """A fused optimiser changes weights without a new version of them."""
    ens = ensemble()
    plan, x = fused(ens), image(ens.bands, 1, 64)
    with torch.no_grad():
        plan(x)
    weights = list(ens.fusion.parameters())
    if how == "data":
        for w in weights:
            w.data.mul_(2)
    else:
        step = torch.optim.AdamW(weights, lr=0.1, fused=how == "fused AdamW")
        sum(m.square().mean() for m in ens(x)).backward()
        step.step()
    with torch.no_grad():
        assert worst_level(ens(x), plan(x)) < 1e-5


def test_an_empty_batch_gives_empty_maps():
    ens = ensemble()
    x = image(ens.bands, 1, 64)[:0]
    with torch.no_grad():
        assert [m.shape for m in fused(ens)(x)] == [m.shape for m in ens(x)]
        assert [len(p[0]) for p in fused(ens).encode(x)] == [0] * len(ens.views)


@pytest.mark.parametrize("threads", [1, 2])
def test_autocast_around_it_changes_nothing(threads):
    ens = ensemble()
    x, before = image(ens.bands, 2, 64), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            got = fused(ens, kernels="library")(x)
        with torch.no_grad():
            assert worst_level(ens(x), got) < 1e-5
    finally:
        torch.set_num_threads(before)
