"""Subsets by summed contributions == the ensemble with all others ablated, for every fusion."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, ZooError
from eosfm.data.worlds import synthetic_chips
from eosfm.ensemble import Ensemble
from eosfm.explain import contributions
from eosfm.explain.contributions import SubsetScorer
from eosfm.fusion.fuse import FUSIONS
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.training.scoring import score
from helpers import TINY, make_specialist, statistics_of

HLS = BandSet.parse("hls:all@reflectance")


def model_of(fusion="conv1x1", normalise="none", task="burn-scars", decoder="unet") -> tuple[TaskModel, object]:
    chips = synthetic_chips(task, HLS, 7, size=48)
    specialists = [make_specialist(n, TINY[n], i) for i, n in enumerate(TINY)]
    ensemble = Ensemble(specialists, HLS, statistics=statistics_of(HLS), fusion=fusion, normalise=normalise)
    head = HeadConfig(decoder=decoder, channels=8, dropout=0.0)
    torch.manual_seed(3)
    model = TaskModel(ensemble, TaskSpec(kind=chips.kind, classes=chips.classes, chip_size=64, head=head))
    with torch.no_grad():
        for p in [*ensemble.fusion.parameters(), *model.head.parameters()]:
            p.add_(0.1 * torch.randn(p.shape))
    return model.eval(), chips


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_a_subset_equals_ablating_the_others(fusion, normalise):
    model, chips = model_of(fusion, normalise)
    scorer = SubsetScorer(model, chips, batch_size=3)
    names = set(scorer.names)
    assert len(names) == 4
    x, _ = chips.batch(range(4))
    for size in range(len(names) + 1):
        for kept in combinations(scorer.names, size):
            model.encoder.ablate(names - set(kept))
            with torch.inference_mode():
                expected = model(x)
            model.encoder.ablate([])
            got = scorer.logits(scorer.subset(kept), range(4))
            scale = max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("task", ["burn-scars", "scene", "scene-multilabel", "vegetation-fraction"])
def test_counts_are_those_of_scoring_the_ablated_model(task):
    model, chips = model_of(task=task, decoder="linear")
    scorer = SubsetScorer(model, chips)
    kept = scorer.names[:2]
    some, everything = scorer.counts([scorer.subset(kept), scorer.everything])
    np.testing.assert_allclose(everything, score(model, chips, 0).per_chip, rtol=1e-4, atol=1e-4)
    model.encoder.ablate(scorer.names[2:])
    np.testing.assert_allclose(some, score(model, chips, 0).per_chip, rtol=1e-4, atol=1e-4)


def test_single_views_and_many_subsets_at_once():
    model, chips = model_of()
    scorer = SubsetScorer(model, chips, by="view", batch_size=2)
    assert scorer.names == [v.name for v in model.encoder.views]
    subsets = [frozenset(s) for k in range(3) for s in combinations(range(len(scorer.names)), k)]
    together = scorer.counts(subsets)
    alone = SubsetScorer(model, chips, by="view")
    for s, table in zip(subsets, together, strict=True):
        np.testing.assert_array_equal(table, alone.counts([s])[0])


def test_large_data_goes_to_a_file_and_the_file_goes_away(monkeypatch):
    model, chips = model_of()
    plain = SubsetScorer(model, chips)
    monkeypatch.setattr(contributions, "IN_MEMORY", 1000)
    mapped = SubsetScorer(model, chips)
    folder = mapped._folder.name
    s = mapped.subset(mapped.names[1:3])
    np.testing.assert_array_equal(mapped.counts([s])[0], plain.counts([s])[0])
    assert np.allclose(mapped.energy(), plain.energy())
    import os

    assert os.path.isdir(folder)
    del mapped
    assert not os.path.exists(folder)


def test_contributions_know_what_they_cannot_do():
    model, chips = model_of("mlp")
    with pytest.raises(ConfigError, match="not a sum over views"):
        SubsetScorer(model, chips).energy()
    with pytest.raises(ZooError, match="no active 'nobody'; known: "):
        SubsetScorer(model, chips).subset(["nobody"])
    other = synthetic_chips("water", HLS, 2, size=48)
    with pytest.raises(ConfigError, match="predicts unburnt, burnt"):
        SubsetScorer(model, other)
    with pytest.raises(ConfigError, match="known: specialist, view"):
        SubsetScorer(model, chips, by="band")
