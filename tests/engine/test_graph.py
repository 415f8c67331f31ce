"""The graph that is exported is the readable model: every fusion, decoder, unit, hole in the data and size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from eosfm.adaptation import adapt
from eosfm.bands import BandSet
from eosfm.contracts import ConfigError
from eosfm.engine.graph import AdaptivePool, View, graph_of
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import FUSIONS
from eosfm.fusion.selection import SelectionConfig
from eosfm.tasks.decoders import DECODERS
from eosfm.tasks.kinds import KINDS, OBJECTS
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from helpers import TINY, image, make_specialist, statistics_of

# conversions by a scale, by an offset, by logarithms both ways, and into another modality
INPUTS = (
    "sentinel-2-l2a:all@dn-1e4-offset-1000",
    "hls:all@dn-1e4",
    "sentinel-2-l2a:B04,B03,B02@reflectance + sentinel-1:VV,VH@linear",
    "sentinel-1:VH,VV@linear",
)
NAN, INF = float("nan"), float("inf")


def ensemble(bands=INPUTS[1], names=("s2-rgb", "s1-sar"), **changes) -> Ensemble:
    b = BandSet.parse(bands)
    specialists = [make_specialist(n, TINY[n], i) for i, n in enumerate(names)]
    return Ensemble(specialists, b, statistics=statistics_of(b), **changes).eval()


def holed(bands, n, size):
    x = image(bands, n, size)
    x[0, :, 3:17, 5:20] = NAN
    x[-1, 0, 0, 0] = INF
    return x


def off(a, b) -> float:
    return max(float((x - y).norm() / x.norm()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("bands", INPUTS)
def test_every_view_is_what_adapt_gives(bands):
    ens = ensemble(bands, names=tuple(TINY))
    x = holed(ens.bands, 2, (32, 64))
    for plan in ens.views:
        want, got = adapt(x, plan), View(plan, len(ens.bands))(x)
        assert got.isfinite().all() and (got == 0).sum() >= (want == 0).sum() > 0
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_a_band_read_twice_under_different_statistics():
    ens = ensemble("sentinel-1:VV,VH@db", names=("s1-sar",))
    plan = replace(ens.views[0], mean=(-10.0, -15.0, -18.0), std=(3.0, 4.0, 7.0))
    assert plan.index == (0, 1, 1)
    x = image(ens.bands, 2, 32)
    torch.testing.assert_close(View(plan, 2)(x), adapt(x, plan), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_fusion_and_norm(fusion, normalise):
    ens = ensemble(
        fusion=fusion, normalise=normalise, rules=("common-names", "true-colour"), names=("s2-rgb", "s2-six")
    )
    x = image(ens.bands, 2, 32)
    with torch.inference_mode():
        assert off(ens(x), graph_of(ens)(x)) < 1e-5


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_adaptive_pooling_of_any_size(bins):
    for size in ((1, 1), (2, 3), (7, 4), (16, 9)):
        x = torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(AdaptivePool(bins)(x), nn.AdaptiveAvgPool2d(bins)(x))


@pytest.mark.parametrize("decoder", sorted(DECODERS))
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in OBJECTS])
def test_every_head(kind, decoder):
    if kind in ("classification", "multilabel") and decoder != "upernet":
        pytest.skip("heads of scenes have no decoder")
    ens = ensemble(rules=("common-names", "true-colour"), names=("s2-rgb",))
    task = TaskSpec(kind=kind, classes=("a", "b"), chip_size=64, head=HeadConfig(decoder=decoder, channels=16))
    model = TaskModel(ens, task).eval()
    graph = graph_of(ens, model.head)
    with torch.inference_mode():
        for n, size in ((1, (32, 32)), (2, (96, 64))):
            x = holed(ens.bands, n, size)
            assert off([model(x)], graph(x)) < 1e-5
    assert any(isinstance(m, nn.AdaptiveAvgPool2d) for m in model.modules()) == (decoder == "upernet" and kind in (
        "segmentation", "regression")), "the model itself stays as it was"  # fmt: skip


def test_what_is_pruned_leaves_no_trace_and_what_is_ablated_is_refused():
    ens = ensemble(names=("s2-rgb", "s2-six"))
    small = ens.pruned(["s2-rgb"])
    weights = sum(p.numel() for p in graph_of(small).parameters())
    assert weights == sum(p.numel() for p in small.parameters()) < 0.6 * sum(p.numel() for p in ens.parameters())
    ens.ablate(["s2-six"])
    with pytest.raises(ConfigError, match=r"export pruned\(...\) instead"):
        graph_of(ens)
    ens.ablate([])
    ens.select(SelectionConfig(keep=1))
    with pytest.raises(ConfigError, match="still being chosen"):
        graph_of(ens)
