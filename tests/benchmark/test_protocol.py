"""Protocols: no setting without a source, and trainings that are what the protocol says."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from eosfm.benchmark.protocol import PROTOCOLS, FrozenProbe, Pangaea, protocol, settings
from eosfm.benchmark.scores import METRICS
from eosfm.contracts import ConfigError
from eosfm.tasks.kinds import KINDS
from eosfm.training.settings import falling


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_every_setting_has_a_source(name: str):
    rows = settings(protocol(name))
    assert [r.name for r in rows] == [f.name for f in dataclasses.fields(protocol(name))]
    assert all(r.source.strip() for r in rows)
    assert protocol(name).name == name


def test_a_protocol_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol("pangaea").epochs = 1


def test_an_unknown_protocol_names_the_known_ones():
    with pytest.raises(ConfigError, match="frozen-probe, geobench2, pangaea"):
        protocol("pangea")


def test_pangaea_s_training_has_the_published_numbers():
    fit = Pangaea().fit_config(seed=3)
    assert (fit.epochs, fit.batch_size, fit.learning_rate, fit.weight_decay, fit.seed) == (80, 8, 1e-4, 0.05, 3)
    assert (fit.warmup, fit.augment, fit.clip_gradients, fit.precision) == (0.0, False, 0.0, "32")


def test_pangaea_s_milestones_are_those_of_the_training_loop():
    p = Pangaea()
    assert p.fit_config(0).schedule == "steps"
    for share in np.linspace(0, 0.999, 50):
        passed = sum(share >= m for m in p.milestones)
        assert falling("steps", float(share)) == pytest.approx(p.decay**passed)


def test_metrics_a_protocol_names_exist():
    assert Pangaea().metric in METRICS
    metrics = protocol("geobench2").metrics
    assert tuple(metrics) == KINDS
    for kind, name in metrics.items():
        assert kind in METRICS[name].kinds


def test_the_sweep_is_forty_penalties_from_a_millionth_to_ten_thousand():
    assert FrozenProbe().penalties == pytest.approx(np.logspace(-6, 4, 40))


@pytest.mark.parametrize("wrong", [
    {"neighbours": 0}, {"penalties": ()}, {"penalties": (0.0,)}, {"penalties": (math.inf,)}, {"distance": "l1"},
    {"resamples": 0}, {"tolerance": -1.0}, {"multilabel_average": "weighted"},
])  # fmt: skip
def test_contradictory_probe_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match="frozen-probe"):
        FrozenProbe(**wrong)
