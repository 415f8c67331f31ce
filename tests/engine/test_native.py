"""The compiled kernels give what PyTorch's operators give, and are found only where they belong."""

from __future__ import annotations

import os
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F

from eosfm.contracts import ConfigError
from eosfm.engine import native
from eosfm.engine.folded import onednn
from eosfm.engine.fused import fused
from eosfm.ensemble import Ensemble
from helpers import full_ensemble, image, worst_level

pytestmark = pytest.mark.skipif(not onednn(torch.float32), reason="PyTorch without oneDNN")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """The folder of the kernels, built once."""
    folder = tmp_path_factory.mktemp("kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EOSFM_KERNELS", str(folder))
        assert not native.built()
        native.build()
        yield folder


def ensemble(bands="sentinel-2-l2a:all@dn-1e4-offset-1000", **changes) -> Ensemble:
    return full_ensemble(bands, **changes)


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
@pytest.mark.parametrize("size", [32, 64, (64, 96), (224, 32)])
def test_the_same_pyramid(kernels, normalise, size):
    """Also where a level has fewer pixels in a row than the kernel computes at once, or not a multiple of them."""
    ens = ensemble(normalise=normalise)
    plan = fused(ens)
    assert plan.kernels == "native"
    x = image(ens.bands, 2, size)
    with torch.inference_mode():
        assert worst_level(ens(x), plan(x)) < 1e-5
        for a, b in zip(ens.encode(x), plan.encode(x), strict=True):
            assert worst_level(a, b) < 1e-5


def test_bf16_is_no_further_from_the_truth_than_the_library(kernels):
    if not onednn(torch.bfloat16):
        pytest.skip("no bf16 in oneDNN here")
    ens = ensemble()
    x = image(ens.bands, 2, 96)
    with torch.inference_mode():
        truth = ens(x)
        ours, theirs = (fused(ens, precision="bf16", kernels=k)(x) for k in ("native", "library"))
        assert worst_level(truth, ours) < 1.1 * worst_level(truth, theirs)
        assert all(F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.9999 for a, b in zip(truth, ours, strict=True))


@pytest.mark.parametrize(
    "bands", ["sentinel-2-l2a:B04,B03,B02@reflectance + sentinel-1:VV,VH@linear", "hls:all@dn-1e4"]
)
def test_views_it_cannot_take_and_holes_go_the_other_way(kernels, bands):
    ens = ensemble(bands)
    plan = fused(ens)
    x = image(ens.bands, 2, 64)
    with torch.inference_mode():
        assert worst_level(ens(x), plan(x)) < 1e-5
        x[0, :, :20, :30] = float("nan")
        assert worst_level(ens(x), plan(x)) < 1e-5


def test_a_weight_that_is_not_a_number_is_not_rounded_away(kernels):
    ens = deepcopy(ensemble())  # helpers share encoders among tests
    next(iter(ens.encoders[0].parameters())).data.flatten()[0] = float("nan")
    with torch.inference_mode():
        x = image(ens.bands, 1, 32)
        assert ens(x)[0].isnan().any()
        for precision in ("fp32", "bf16") if onednn(torch.bfloat16) else ("fp32",):
            assert fused(ens, precision=precision)(x)[0].isnan().any()


def test_pruned_views_do_not_run_and_gradients_flow(kernels):
    ens = ensemble()
    names = [c.name for c in ens.cards]
    x = image(ens.bands, 2, 64)
    ens.ablate(names[1:])
    plan = fused(ens)
    calls = []
    real = plan._native
    plan._native = lambda *a: calls.append(len(a[4])) or real(*a)
    with torch.inference_mode():
        assert worst_level(ens(x), plan(x)) < 1e-5
    assert sum(calls) == 2 * sum(v.specialist == names[0] for v in ens.views)
    plan(x)[0].sum().backward()
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in ens.fusion.parameters())


def test_found_only_where_they_belong(kernels, tmp_path, monkeypatch):
    there = native.library()
    assert there.parent == kernels and native.build() == there
    monkeypatch.setattr(native, "_cpu", lambda: "another CPU")
    assert native.library() != there and not native.built()
    with pytest.raises(ConfigError, match="eosfm kernels"):
        fused(ensemble(), kernels="native")
    assert fused(ensemble()).kernels == "library"
    with pytest.raises(ConfigError, match="known: auto, library, native"):
        fused(ensemble(), kernels="triton")


def test_no_compiler_and_a_broken_library_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("EOSFM_KERNELS", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(native.BuildError, match=r"no-such-compiler.*apt install"):
        native.build()
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(native.BuildError, match="could not compile"):
        native.build()
    assert list(tmp_path.iterdir()) == [], "nothing half-built stays"
    native.library().write_bytes(b"not a library")
    with pytest.raises(native.BuildError, match="build again"):
        native.load()
    if os.getuid() == 0:
        os.chown(native.library(), 4711, -1)
        native._load.cache_clear()
        with pytest.raises(ConfigError, match="another user"):
            native.load()
