"""Fusion against a slow reference written from the definitions: every kind, every normalisation, any gates."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from eosfm.contracts import PYRAMID_CHANNELS, ConfigError, Pyramid
from eosfm.fusion.fuse import FUSIONS, Conv1x1, Fusion, make_fusion
from helpers import assert_close, equal

NORMS = ("none", "layer", "batch")
EVERY = [pytest.param(k, n, id=f"{k}-{n}") for k, n in itertools.product(FUSIONS, NORMS)]


def pyramids(views: int, seed: int = 0, batch: int = 2, size: int = 8) -> list[Pyramid]:
    g = torch.Generator().manual_seed(seed)
    return [
        [1 + 2 * torch.randn(batch, c, max(1, size // 2**i), max(1, size // 2**i), generator=g)
         for i, c in enumerate(PYRAMID_CHANNELS)]
        for _ in range(views)
    ]  # fmt: skip


def worn(kind: str, views: int, normalise: str) -> Fusion:
    """A fusion whose weights and running statistics are all different from their first values, in evaluation mode."""
    torch.manual_seed(len(kind) + views)
    fusion = make_fusion(kind, views, normalise)
    with torch.no_grad():
        for p in fusion.parameters():
            p.normal_(0, 0.1)
        for _ in range(2):
            fusion.train()(pyramids(views, seed=7, batch=3), torch.ones(views))
    return fusion.eval()


def reference(fusion: Fusion, views: list[Pyramid], gates: Tensor) -> Pyramid:
    """From the definitions, one view and one level at a time, with nothing of `eosfm.fusion` but the weights."""
    state = {k: v.double() for k, v in fusion.state_dict().items()}
    out = []
    for level, c in enumerate(PYRAMID_CHANNELS):
        total = None
        columns = []
        for v, view in enumerate(views):
            m = view[level].double()
            if fusion.normalise == "layer":
                m = F.layer_norm(m.permute(0, 2, 3, 1), (c,), eps=1e-6).permute(0, 3, 1, 2)
            elif fusion.normalise == "batch":
                mean, var = (state[f"norms.{v}.{level}.running_{s}"].view(1, c, 1, 1) for s in ("mean", "var"))
                m = (m - mean) / (var + 1e-5).sqrt()
            g = gates[v].double()
            columns.append(m * g)
            if fusion.name == "sum":
                total = m * g if total is None else total + m * g
            elif fusion.name == "product":
                factor = torch.ones_like(m) if g == 0 else 1 + g * (m - 1)
                total = factor if total is None else total * factor
            elif fusion.name in ("conv1x1", "mlp"):
                w = state[f"convs.{level}.weight" if fusion.name == "conv1x1" else f"mlps.{level}.0.weight"]
                part = torch.einsum("oc,bchw->bohw", w[:, v * c : (v + 1) * c, 0, 0], m * g)
                total = part if total is None else total + part
        if fusion.name == "concat":
            total = torch.cat(columns, 1)
        if fusion.name == "conv1x1":
            total = total + state[f"convs.{level}.bias"].view(1, c, 1, 1)
        if fusion.name == "mlp":
            hidden = F.gelu(total + state[f"mlps.{level}.0.bias"].view(1, c, 1, 1))
            total = torch.einsum("oc,bchw->bohw", state[f"mlps.{level}.2.weight"][:, :, 0, 0], hidden)
            total = total + state[f"mlps.{level}.2.bias"].view(1, c, 1, 1)
        out.append(total.float())
    return out


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
@pytest.mark.parametrize("gates", [(1, 1, 1), (1, 0, 1), (0, 0, 1), (0, 0, 0), (0.5, 2, 1)], ids=str)
def test_against_the_reference(kind: str, normalise: str, gates: tuple[float, ...]):
    fusion, x, g = worn(kind, 3, normalise), pyramids(3), torch.tensor(gates, dtype=torch.float32)
    with torch.no_grad():
        assert_close(fusion(x, g), reference(fusion, x, g), 1e-5)


def test_a_convolution_of_the_concatenation_is_the_sum_of_the_views_convolutions():
    fusion, x = worn("conv1x1", 4, "none"), pyramids(4)
    assert isinstance(fusion, Conv1x1)
    for level, c in enumerate(PYRAMID_CHANNELS):
        conv = fusion.convs[level]
        parts = [F.conv2d(view[level], conv.weight[:, v * c : (v + 1) * c]) for v, view in enumerate(x)]
        whole = conv(torch.cat([view[level] for view in x], 1))
        torch.testing.assert_close(sum(parts) + conv.bias.view(1, -1, 1, 1), whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("views", [1, 2, 11, 22])
def test_the_number_of_parameters_follows_the_paper_s_formula(views: int):
    count = sum(p.numel() for p in make_fusion("conv1x1", views).parameters())
    assert count == sum(views * c * c + c for c in PYRAMID_CHANNELS)
    if views == 11:
        assert count == 1_496_600
    mlp = sum(p.numel() for p in make_fusion("mlp", views).parameters())
    assert mlp == count + sum(c * c + c for c in PYRAMID_CHANNELS)
    for kind in ("concat", "sum", "product"):
        assert not list(make_fusion(kind, views).parameters())


@pytest.mark.parametrize("normalise", NORMS)
def test_normalisation_adds_no_parameters(normalise: str):
    norms = make_fusion("sum", 3, normalise)
    assert sum(p.numel() for p in norms.parameters()) == 0


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
def test_a_view_with_gate_0_has_no_influence_whatever_it_holds(kind: str, normalise: str):
    fusion, a, b = worn(kind, 3, normalise), pyramids(3), pyramids(3, seed=1)
    gates = torch.tensor([1.0, 0.0, 1.0])
    with torch.no_grad():
        assert equal(fusion(a, gates), fusion([a[0], b[1], a[2]], gates))
        assert not equal(fusion(a, torch.ones(3)), fusion([a[0], b[1], a[2]], torch.ones(3)))


@pytest.mark.parametrize("normalise", NORMS)
def test_the_gate_comes_after_the_normalisation(normalise: str):
    """Gated before it, a zero map would become -mean/std, and the ablated view would still speak."""
    fusion = worn("concat", 2, normalise)
    for level in fusion(pyramids(2), torch.tensor([0.0, 1.0])):
        c = level.shape[1] // 2
        assert (level[:, :c] == 0).all()
        assert (level[:, c:] != 0).any()


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
@pytest.mark.parametrize("keep", [(0,), (2,), (0, 2), (1, 2), (0, 1, 2)], ids=str)
def test_narrowed_is_gated(kind: str, normalise: str, keep: tuple[int, ...]):
    fusion, x = worn(kind, 3, normalise), pyramids(3)
    gates = torch.tensor([float(v in keep) for v in range(3)])
    small = fusion.narrowed(keep).eval()
    assert (small.views, small.name, small.normalise) == (len(keep), kind, normalise)
    with torch.no_grad():
        expected = fusion(x, gates)
        got = small([x[v] for v in keep], torch.ones(len(keep)))
    if kind == "concat":
        expected = [
            torch.cat([m[:, v * c : (v + 1) * c] for v in keep], 1)
            for m, c in zip(expected, PYRAMID_CHANNELS, strict=True)
        ]
    assert_close(got, expected, 1e-5)
    assert [m.shape[1] for m in got] == small.out_channels


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
def test_narrowing_to_all_changes_nothing(kind: str, normalise: str):
    fusion, x = worn(kind, 2, normalise), pyramids(2)
    with torch.no_grad():
        assert equal(fusion.narrowed([0, 1]).eval()(x, torch.ones(2)), fusion(x, torch.ones(2)))


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
def test_what_is_done_to_a_narrowed_fusion_does_not_reach_the_original(kind: str, normalise: str):
    fusion, x = worn(kind, 2, normalise), pyramids(2)
    with torch.no_grad():
        before = fusion(x, torch.ones(2))
        small = fusion.narrowed([0, 1]).train()
        small(pyramids(2, seed=9), torch.ones(2))
        for p in small.parameters():
            p.add_(1.0)
        assert equal(fusion(x, torch.ones(2)), before)


@pytest.mark.parametrize("kind", FUSIONS)
def test_one_view_through_sum_product_and_concat_is_itself(kind: str):
    x = pyramids(1)
    if kind in ("sum", "product", "concat"):
        assert_close(make_fusion(kind, 1)(x, torch.ones(1)), x[0], 1e-6)


def test_sum_and_product_do_not_depend_on_the_order_of_the_views():
    x = pyramids(3)
    for kind in ("sum", "product"):
        fusion = make_fusion(kind, 3)
        assert_close(fusion(x, torch.ones(3)), fusion(x[::-1], torch.ones(3)), 1e-5)


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
def test_gradients_are_finite_and_reach_every_parameter(kind: str, normalise: str):
    fusion = worn(kind, 2, normalise).train()
    gates = torch.ones(2, requires_grad=True)
    sum(m.square().mean() for m in fusion(pyramids(2), gates)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in fusion.parameters())
    assert gates.grad is not None
    assert gates.grad.isfinite().all()


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
def test_weights_round_trip(kind: str, normalise: str):
    fusion, x = worn(kind, 2, normalise), pyramids(2)
    other = make_fusion(kind, 2, normalise)
    other.load_state_dict(fusion.state_dict(), strict=True)
    with torch.no_grad():
        assert equal(other.eval()(x, torch.ones(2)), fusion(x, torch.ones(2)))


def test_wrong_asks_are_refused():
    with pytest.raises(ConfigError, match="unknown fusion 'max'; known: concat, conv1x1, mlp, product, sum"):
        make_fusion("max", 2)
    with pytest.raises(ConfigError, match="unknown normalisation 'group'"):
        make_fusion("sum", 2, "group")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one view"):
        make_fusion("sum", 0)


@pytest.mark.parametrize("kind", FUSIONS)
def test_another_number_of_views_or_gates_is_an_error(kind: str):
    fusion = make_fusion(kind, 2)
    for views, gates in ((1, 2), (3, 2), (2, 1), (2, 3)):
        with pytest.raises((ValueError, RuntimeError)):
            fusion(pyramids(views), torch.ones(gates))
