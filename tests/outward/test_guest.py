"""The ensemble as a guest: chosen, fed, frozen, and lean in the harness's checkpoints."""

import pytest
import torch
from torch import nn

from eosfm.bands import BandSet
from eosfm.composition import compose, load, save_ensemble
from eosfm.contracts import AdaptationError, BandError, ConfigError, CorruptArtifact, UnitError, ZooError
from eosfm.outward.guest import Guest, assemble
from eosfm.statistics import BandStatistics

RGB = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")
STATISTICS = BandStatistics(mean=(900.0, 800.0, 700.0), std=(500.0, 400.0, 300.0))


def raw():
    g = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 32, 32, generator=g) * 3000 + 100


def guest(zoo, *, normalised="none", fusion="concat", **options):
    ensemble = assemble(zoo, RGB, STATISTICS, fusion=fusion, **options)
    return Guest(ensemble, normalised, STATISTICS).eval()


def test_normalisation_is_undone(tiny_zoo):
    x = raw()
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (STATISTICS.mean, STATISTICS.std))
    plain, undone = guest(tiny_zoo), guest(tiny_zoo, normalised="mean-std")
    for a, b in zip(plain(x), undone((x - mean) / std), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_concat_is_every_view_side_by_side(tiny_zoo):
    g, x = guest(tiny_zoo), raw()
    views = g.ensemble.encode(x)
    assert g.out_channels == [c * len(views) for c in (40, 80, 160, 320)]
    for level, m in enumerate(g(x)):
        assert torch.equal(m, torch.cat([v[level] for v in views], 1))


def test_a_normalisation_that_is_not_there(tiny_zoo):
    with pytest.raises(UnitError, match="normalised="):
        guest(tiny_zoo)((raw() - 800) / 400)
    with pytest.raises(UnitError, match="normalised="):
        guest(tiny_zoo, normalised="mean-std")(raw())
    Guest(assemble(tiny_zoo, RGB, STATISTICS), "none", STATISTICS, check_values=False)((raw() - 800) / 400)


def test_unknown_normalisations_are_refused(tiny_zoo):
    with pytest.raises(ConfigError, match="no known unit"):
        guest(tiny_zoo, normalised="minmax")
    with pytest.raises(ConfigError, match="needs the mean and std"):
        Guest(assemble(tiny_zoo, RGB, None), "mean-std", None)


def test_odd_sizes_say_the_next_even_one(tiny_zoo):
    with pytest.raises(BandError, match=r"\(32, 32\)"):
        guest(tiny_zoo)(raw()[..., :20, :20])


def test_who_takes_part(tiny_zoo, caplog):
    assert {c.name for c in guest(tiny_zoo, leave_out=["s2-rgb"]).ensemble.cards} == {"aerial-rgb", "s1-sar"}
    assert [c.name for c in guest(tiny_zoo, specialists=["s2-rgb"]).ensemble.cards] == ["s2-rgb"]
    assert [c.name for c in guest([tiny_zoo / "s2-rgb"]).ensemble.cards] == ["s2-rgb"]
    assert [c.name for c in guest(str(tiny_zoo / "s2-rgb")).ensemble.cards] == ["s2-rgb"]
    guest(tiny_zoo)
    assert "left out: s2-six" in caplog.text


def test_unknown_names_and_nobody_left(tiny_zoo):
    with pytest.raises(ZooError, match=r"'s2-rgp'.*known: aerial-rgb"):
        guest(tiny_zoo, leave_out=["s2-rgp"])
    with pytest.raises(ZooError, match="no specialist is left"):
        guest(tiny_zoo, specialists=["s2-rgb"], leave_out=["s2-rgb"])


def test_a_stored_ensemble(tiny_zoo, tmp_path):
    compose(tiny_zoo, tmp_path / "untrained", names=["s2-rgb", "aerial-rgb"])
    assert guest(tmp_path / "untrained").ensemble.fusion.name == "concat", "a random fusion would blur the views"
    with pytest.raises(ConfigError, match="stored ensemble"):
        guest(tmp_path / "untrained", leave_out=["s2-rgb"])
    trained = assemble(tmp_path / "untrained", RGB, STATISTICS, fusion="conv1x1")
    trained.fusion_trained = True
    save_ensemble(trained, tmp_path / "trained", tiny_zoo)
    kept = guest(tmp_path / "trained")
    assert kept.ensemble.fusion.name == "conv1x1"
    assert all(torch.equal(a, b) for a, b in zip(kept(raw()), trained(raw()), strict=True))


def test_specialists_stay_in_evaluation_mode(tiny_zoo):
    g = guest(tiny_zoo, fusion="conv1x1").train()
    assert g.training and g.ensemble.fusion.training
    assert not any(m.training for e in g.ensemble.encoders for m in e.modules())
    g(raw())[0].sum().backward()
    assert all(p.grad is None for p in g.ensemble.encoders.parameters())
    assert any(p.grad is not None for p in g.ensemble.fusion.parameters())


def test_a_frozen_random_fusion_is_refused_in_training(tiny_zoo):
    g = guest(tiny_zoo, fusion="conv1x1").requires_grad_(False).train()
    with pytest.raises(ConfigError, match="fusion=concat"):
        g(raw())
    guest(tiny_zoo).requires_grad_(False).train()(raw())


def test_checkpoints_hold_the_fusion_and_name_the_specialists(tiny_zoo, tmp_path):
    model = nn.Sequential(guest(tiny_zoo, fusion="conv1x1"))
    torch.save(model.state_dict(), tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert not any("encoders" in k for k in state)
    assert sum(v.numel() for v in state.values()) < 1_000_000
    again = nn.Sequential(guest(tiny_zoo, fusion="conv1x1"))
    nn.init.zeros_(again[0].ensemble.fusion.convs[0].weight)
    again.load_state_dict(state, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(model(raw()), again(raw()), strict=True))


def test_a_checkpoint_of_other_specialists_is_refused(tiny_zoo):
    # as many views, of other specialists: every shape fits
    one = guest(tiny_zoo, fusion="conv1x1", specialists=["s2-rgb"]).state_dict()
    other = guest(tiny_zoo, fusion="conv1x1", specialists=["aerial-rgb"])
    with pytest.raises(CorruptArtifact, match="other specialists"):
        other.load_state_dict(one)


def test_a_stored_ensemble_is_for_its_own_bands(tiny_zoo, tmp_path):
    """Its statistics are in the order of its bands: under others they would belong to the wrong ones."""
    other = BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4")
    stored = load(tiny_zoo, other, statistics=STATISTICS)
    save_ensemble(stored, tmp_path / "stored", tiny_zoo)
    with pytest.raises(AdaptationError, match="reorder and convert"):
        assemble(tmp_path / "stored", RGB, STATISTICS)
    assert [v.name for v in assemble(tmp_path / "stored", other, STATISTICS).views] == [v.name for v in stored.views]
