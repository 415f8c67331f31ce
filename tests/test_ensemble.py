"""The ensemble: views planned from names, frozen specialists, exact ablation and pruning."""

from __future__ import annotations

import itertools

import pytest
import torch

from eosfm.adaptation import adapt
from eosfm.bands import BandSet
from eosfm.contracts import AdaptationError, BandError, CardError, ConfigError, ZooError
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import FUSIONS
from eosfm.statistics import BandStatistics
from helpers import TINY, assert_close, equal, image, make_card, make_encoder, make_specialist, statistics_of

BANDS = BandSet.parse("sentinel-1:VV,VH@linear + sentinel-2-l2a:B08,B04,B03,B02@dn-1e4")
SPECIALISTS = [make_specialist(n, b, s) for s, (n, b) in enumerate(TINY.items())]
EVERY = [pytest.param(k, n, id=f"{k}-{n}") for k, n in itertools.product(FUSIONS, ("none", "layer", "batch"))]


def ensemble(**changes) -> Ensemble:
    return Ensemble(SPECIALISTS, BANDS, **({"statistics": statistics_of(BANDS)} | changes))


def worn(kind: str, normalise: str) -> Ensemble:
    """An ensemble whose fusion was trained a little, in evaluation mode."""
    ens = ensemble(fusion=kind, normalise=normalise)
    with torch.no_grad():
        for p in ens.fusion.parameters():
            p.normal_(0, 0.05)
        ens.train()(image(BANDS, 2, 64, seed=5))
    return ens.eval()


X = image(BANDS, 2, 32)


def test_views_and_skipped_together_are_all_specialists():
    ens = ensemble()
    assert [v.name for v in ens.views] == [
        "aerial-rgb/true-colour", "aerial-rgb/infrared-red-green", "aerial-rgb/vv-vh-vh",
        "s1-sar/subset", "s1-sar/true-colour", "s1-sar/infrared-red-green",
        "s2-rgb/subset", "s2-rgb/infrared-red-green", "s2-rgb/vv-vh-vh",
    ]  # fmt: skip
    assert [s.specialist for s in ens.skipped] == ["s2-six"]
    assert "needs sentinel-2:B8A, sentinel-2:B11, sentinel-2:B12" in ens.skipped[0].reason
    assert [c.name for c in ens.cards] == ["aerial-rgb", "s1-sar", "s2-rgb"]


def test_the_forward_is_adapt_encode_fuse_in_the_order_of_the_views():
    ens = ensemble(fusion="concat")
    by_name = {c.name: e for e, c in SPECIALISTS}
    pyramids = [by_name[v.specialist](adapt(X, v)) for v in ens.views]
    expected = [torch.cat([p[level] for p in pyramids], 1) for level in range(4)]
    assert equal(ens(X), expected)
    assert ens.out_channels == [m.shape[1] for m in expected]
    assert equal(ens.fuse(ens.encode(X)), ens(X))


def test_two_views_share_one_encoder():
    ens = ensemble()
    assert len(ens.encoders) == 3
    assert ens.encoders[0] is SPECIALISTS[0][0]
    assert sum(p.numel() for p in ens.encoders.parameters()) == 3 * 3_386_760


def test_the_input_s_order_and_unit_do_not_change_the_features():
    """The same pixels, bands shuffled and stored as reflectance and dB."""
    rules = ["subset", "s1-s2-composite"]
    other = BandSet.parse("sentinel-2-l2a:B02,B03,B04,B08@reflectance + sentinel-1:VH,VV@db")
    y = torch.stack(
        [X[:, 5] / 1e4, X[:, 4] / 1e4, X[:, 3] / 1e4, X[:, 2] / 1e4, 10 * X[:, 1].log10(), 10 * X[:, 0].log10()], 1
    )
    a = ensemble(rules=rules)
    b = Ensemble(SPECIALISTS, other, rules=rules)
    assert [v.name for v in a.views] == [v.name for v in b.views]
    assert_close(b(y), a(X), 1e-3)


def test_without_statistics_views_into_another_modality_are_gone_and_listed():
    ens = ensemble(statistics=None)
    assert [v.name for v in ens.views] == ["s1-sar/subset", "s2-rgb/subset", "s2-rgb/infrared-red-green"]
    reasons = {s.specialist: s.reason for s in ens.skipped}
    assert reasons.keys() == {"aerial-rgb", "s2-six", "s1-sar", "s2-rgb"}  # the last two lose views only
    assert "vv-vh-vh: sar into a specialist trained on optical" in reasons["s2-rgb"]
    assert "dn-1e4 does not convert to the specialist's 8bit" in reasons["aerial-rgb"]
    assert "sar into a specialist trained on optical" in reasons["aerial-rgb"]


def test_skipping_can_be_an_error():
    with pytest.raises(AdaptationError, match=r"cannot read the input:\n  s2-six: subset: needs"):
        ensemble(on_skip="raise")
    Ensemble(SPECIALISTS[2:3], BANDS, on_skip="raise")


def test_nothing_readable_is_an_error_with_every_reason():
    with pytest.raises(BandError, match=r"(?s)no specialist can read this input.*aerial-rgb: .*s2-six: "):
        Ensemble(SPECIALISTS, BandSet.parse("elevation:dem@metre"))
    with pytest.raises(BandError):
        Ensemble([], BANDS)


def test_one_name_twice_is_an_error():
    """M3: same specialist twice, or two with one name."""
    for pair in ([SPECIALISTS[0]] * 2, [SPECIALISTS[0], make_specialist("aerial-rgb", TINY["s2-rgb"], 9)]):
        with pytest.raises(ZooError, match="two specialists of one name among aerial-rgb, aerial-rgb"):
            Ensemble(pair, BANDS)


def test_wrong_constructions_are_refused():
    with pytest.raises(BandError, match="duplicate band"):
        Ensemble(SPECIALISTS, BandSet.parse("sentinel-1:VV,VH,VH@db"))
    with pytest.raises(CardError, match="input: statistics of 1 channels for 6 bands"):
        ensemble(statistics=BandStatistics(mean=(0.0,), std=(1.0,)))
    with pytest.raises(AdaptationError, match="unknown rule"):
        ensemble(rules=["rgb"])
    with pytest.raises(ConfigError, match="unknown fusion"):
        ensemble(fusion="max")


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (X[:, :3], r"expected \(batch, 6, h, w\) for sentinel-1:VV,VH@linear \+ .*; got \(2, 3, 32, 32\)"),
        (X[0], "expected"),
        (X.long(), "torch.int64; call x.float"),
        (X[..., :31], r"\(32, 31\) is no multiple of 32; pad it to \(32, 32\)"),
        (X[..., :0], "no multiple"),
    ],
)
def test_a_wrong_input_is_refused(x: torch.Tensor, says: str):
    with pytest.raises(BandError, match=says):
        ensemble()(x)


def test_nodata_gives_finite_features_and_the_mean_in_its_place():
    ens = ensemble()
    x = X.clone()
    x[0, 2, 3, 4] = float("nan")
    x[1, 0] = float("nan")
    assert all(m.isfinite().all() for m in ens(x))
    assert not equal(ens(x), ens(X))


@pytest.mark.parametrize(("kind", "normalise"), EVERY)
def test_ablated_is_refused_without_the_view_is_pruned(kind: str, normalise: str):
    ens = worn(kind, normalise)
    names, keep = {"s1-sar", "aerial-rgb/vv-vh-vh"}, []
    for v in ens.views:
        if v.specialist not in names and v.name not in names:
            keep.append(v.name)
    before = ens(X)
    ens.ablate(names)
    ablated = ens(X)
    assert not equal(ablated, before)
    small = ens.pruned(keep).eval()
    assert [v.name for v in small.views] == keep
    pruned = small(X)
    if kind == "concat":
        columns = [i for i, v in enumerate(ens.views) if v.name in keep]
        ablated = [m.unflatten(1, (len(ens.views), -1))[:, columns].flatten(1, 2) for m in ablated]
    assert_close(pruned, ablated, 1e-5)
    # fused again from the features, with anything at all in place of the switched-off views
    features = ens.encode(X)
    for i, v in enumerate(ens.views):
        if v.name not in keep:
            features[i] = [1e3 * torch.randn_like(m) for m in features[i]]
    assert equal(ens.fuse(features), ens(X))
    ens.ablate([])
    assert equal(ens(X), before)


def test_pruned_keeps_no_trace_of_the_others():
    ens = ensemble()
    small = ens.pruned(["s2-rgb"])
    assert [c.name for c in small.cards] == ["s2-rgb"]
    assert len(small.encoders) == 1
    assert small.encoders[0] is ens.encoders[2], "frozen encoders may be shared"
    assert sum(p.numel() for p in small.fusion.parameters()) == sum(3 * c * c + c for c in (40, 80, 160, 320))
    assert (small.bands, small.statistics, small.rules) == (ens.bands, ens.statistics, ens.rules)
    assert equal(small.pruned(["s2-rgb"])(X), small(X))


def test_pruning_in_two_steps_is_pruning_at_once():
    ens = worn("conv1x1", "batch")
    twice = ens.pruned(["s1-sar", "s2-rgb"]).pruned(["s2-rgb/vv-vh-vh", "s1-sar/subset"]).eval()
    once = ens.pruned(["s1-sar/subset", "s2-rgb/vv-vh-vh"]).eval()
    assert [v.name for v in twice.views] == [v.name for v in once.views] == ["s1-sar/subset", "s2-rgb/vv-vh-vh"]
    assert equal(twice(X), once(X))


def test_ablating_all_leaves_the_bias():
    ens = ensemble()
    ens.ablate(c.name for c in ens.cards)
    for m, conv in zip(ens(X), ens.fusion.convs, strict=True):
        assert torch.equal(m, conv.bias.view(1, -1, 1, 1).expand_as(m))


@pytest.mark.parametrize("call", ["ablate", "pruned"])
def test_unknown_names_list_the_known(call: str):
    with pytest.raises(
        ZooError, match=r"no active specialist or view 's2-six', 'x'; known: aerial-rgb, aerial-rgb/inf"
    ):
        getattr(ensemble(), call)(["s2-rgb", "s2-six", "x"])


def test_pruning_everything_is_refused():
    with pytest.raises(AdaptationError, match="at least one view"):
        ensemble().pruned([])


def test_the_fusion_depends_on_the_seed_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    a, b, c = ensemble(seed=1), ensemble(seed=1), ensemble(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert equal(a(X), b(X))
    assert not equal(a(X), c(X))


def test_gradients_reach_the_fusion_and_never_a_specialist():
    ens = ensemble().train()
    sum(m.mean() for m in ens(X)).backward()
    assert all(p.grad is not None for p in ens.fusion.parameters())
    assert all(p.grad is None and not p.requires_grad for p in ens.encoders.parameters())
    features = ens.encode(X.clone().requires_grad_())
    assert not any(m.requires_grad for view in features for m in view), "no graph is kept through frozen encoders"


def test_features_of_one_chip_do_not_depend_on_the_others_in_the_batch():
    ens = worn("conv1x1", "batch")
    both = ens(X)
    for i in range(2):
        assert_close(ens(X[i : i + 1]), [m[i : i + 1] for m in both], 1e-5)


def test_the_names_of_the_views_are_unique():
    two = BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4 + naip:R,G,B@8bit + sentinel-1:VV,VH@db + sar-x:VV,VH@db")
    ens = Ensemble(SPECIALISTS, two, statistics=statistics_of(two), rules=[*ensemble().rules, "vv-vh-vv"])
    assert len({v.name for v in ens.views}) == len(ens.views)
    assert ens(image(two, 1, 32))[0].shape == (1, 40, 8, 8)


def test_a_card_s_order_of_bands_decides_what_the_encoder_sees():
    """One encoder, two cards that name its channels in opposite order: the views differ exactly by that order."""
    encoder = make_encoder(3, 3)
    forth, back = (make_card(n, f"sentinel-2-l2a:{b}@dn-1e4") for n, b in (("x", "B04,B03,B02"), ("y", "B02,B03,B04")))
    a, b = (Ensemble([(encoder, c)], BANDS, rules=["subset"], fusion="sum") for c in (forth, back))
    assert a.views[0].index == b.views[0].index[::-1] == (3, 4, 5)
    assert not equal(a(X), b(X))
