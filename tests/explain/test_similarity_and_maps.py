"""CKA against its definition, and the pictures of attribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.worlds import synthetic_chips
from eosfm.ensemble import Ensemble
from eosfm.explain.attribution import attribute
from eosfm.explain.contributions import SubsetScorer
from eosfm.explain.maps import NOBODY, carriers, components
from eosfm.explain.similarity import cka_matrix, similarity
from explain.test_contributions import model_of
from helpers import make_specialist, statistics_of

HLS = BandSet.parse("hls:all@reflectance")


def hsic_by_definition(a, b):
    """Song et al. 2012, eq. 5, in plain loops' algebra."""
    n = len(a)
    k, m = a @ a.T, b @ b.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    one = np.ones(n)
    return (
        np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ m @ one)
    ) / (n * (n - 3))


def test_cka_is_its_definition():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 5)), rng.normal(size=(40, 7))
    c = a @ rng.normal(size=(5, 4)) + 0.3 * rng.normal(size=(40, 4))
    got = cka_matrix([a, b, c])
    for i, x in enumerate((a, b, c)):
        for j, y in enumerate((a, b, c)):
            x0, y0 = x - x.mean(0), y - y.mean(0)
            expected = hsic_by_definition(x0, y0) / np.sqrt(hsic_by_definition(x0, x0) * hsic_by_definition(y0, y0))
            assert got[i, j] == pytest.approx(expected, abs=1e-10)


def test_what_cka_does_not_see_and_what_it_does():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(300, 6))
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    m = cka_matrix([a, 3 * a @ turn + 1, rng.normal(size=(300, 200)), np.ones((300, 2))])
    assert m[0, 1] == pytest.approx(1), "rotation, scale and offset do not matter"
    assert abs(m[0, 2]) < 0.05, "many channels and few samples do not look alike by chance"
    assert np.isnan(m[0, 3]), "a constant is like nothing"


def test_a_copy_is_found_and_few_samples_are_refused():
    six = "sentinel-2-l2a:B02,B03,B04,B8A,B11,B12@dn-1e4"
    specialists = [make_specialist("first", six, 0), make_specialist("copy", six, 0), make_specialist("other", six, 5)]
    ens = Ensemble(specialists, HLS, statistics=statistics_of(HLS))
    found = similarity(ens, synthetic_chips("water", HLS, 5, size=64), samples=200)
    assert {found.pairs()[0][1], found.pairs()[0][2]} == {"first", "copy"}
    assert found.pairs()[0][0] == pytest.approx(1) and found.pairs()[1][0] < 0.999
    with pytest.raises(DataError, match="at least 4"):
        similarity(ens, synthetic_chips("water", HLS, 2, size=32))


def test_attribution_is_efficient_and_a_silenced_specialist_is_worth_nothing():
    model, chips = model_of()
    fusion, ens = model.encoder.fusion, model.encoder
    dead = ens.cards[2].name
    with torch.no_grad():
        for conv, c in zip(fusion.convs, (40, 80, 160, 320), strict=True):
            for v, view in enumerate(ens.views):
                if view.specialist == dead:
                    conv.weight[:, v * c : (v + 1) * c] = 0
    a = attribute(SubsetScorer(model, chips), orders=8)
    np.testing.assert_allclose(a.shapley.sum(0), a.full - a.empty, atol=1e-12)
    assert a.games == ("all", "unburnt", "burnt")
    i = a.names.index(dead)
    for measure in a.measures().values():
        assert measure[i] == pytest.approx(0, abs=1e-12)
    assert a.weight_energy.sum() == pytest.approx(1) and a.signal_energy.sum() == pytest.approx(1)
    assert len(a.agreement()) == 6


def test_carriers_are_those_whose_loss_hurts_most():
    model, chips = model_of()
    scorer = SubsetScorer(model, chips)
    who, loss = carriers(scorer, range(2))
    assert who.shape == loss.shape == (2, 48, 48)
    full = scorer.logits(scorer.everything, range(2))
    for y, x in ((3, 5), (30, 40), (47, 0)):
        c = int(full[0, :, y, x].argmax())
        drops = [
            float(full[0, c, y, x] - scorer.logits(scorer.everything - {i}, range(2))[0, c, y, x]) for i in range(4)
        ]
        assert who[0, y, x] == (int(np.argmax(drops)) if max(drops) > 0 else NOBODY)


def test_components_are_pictures_that_repeat():
    model, chips = model_of()
    x, _ = chips.batch(range(3))
    with torch.inference_mode():
        seen, again = components(model.encoder, x), components(model.encoder, x)
    assert list(seen) == [c.name for c in model.encoder.cards]
    for name, p in seen.items():
        assert p.shape == (3, 12, 12, 3) and p.dtype == np.uint8
        assert p.min() == 0 and p.max() == 255
        np.testing.assert_array_equal(p, again[name])
