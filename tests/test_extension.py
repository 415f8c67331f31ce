"""A specialist is added to what exists: nothing changes until it is trained further."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.commands_zoo import zoo_add
from eosfm.contracts import ConfigError, EosfmError, ZooError
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import FUSIONS
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.tasks.model import TaskSpec
from eosfm.tasks.stored import extend_task_model, load_task_model, save_task_model
from eosfm.training.energy import Energy
from eosfm.training.fit import adapt_ensemble, data_info, training_info
from helpers import TINY, equal, image, make_specialist, statistics_of
from training.test_fit import CONFIG, HEAD, HLS, tiny


def specialists(*names: str):
    return [make_specialist(n, TINY[n], i) for i, n in enumerate(names)]


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
@pytest.mark.parametrize("fusion", ["conv1x1", "mlp"])
def test_a_new_view_is_silent_at_first(fusion, normalise):
    bands = BandSet.parse("sentinel-2-l2a:all@reflectance")
    first, *rest = list(TINY)
    old = Ensemble(
        specialists(first), bands, statistics=statistics_of(bands), fusion=fusion, normalise=normalise
    ).eval()
    new = old.extended(specialists(*rest)).eval()
    x = image(bands, 64)
    assert len(new.views) > len(old.views) and len(new.encoders) == len(new.cards) > 1
    for a, b in zip(old(x), new(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert [v.name for v in new.views][: len(old.views)] == [v.name for v in old.views]
    weights = [p for n, p in new.fusion.named_parameters() if p.ndim == 4]
    assert all(p.requires_grad for p in weights)
    assert equal(new.pruned([c.name for c in old.cards])(x), old(x))


@pytest.mark.parametrize("fusion", sorted(set(FUSIONS) - {"conv1x1", "mlp"}))
def test_a_fusion_without_weights_says_why_it_cannot(fusion):
    bands = BandSet.parse("sentinel-2-l2a:all@reflectance")
    first, second, *_ = list(TINY)
    old = Ensemble(specialists(first), bands, statistics=statistics_of(bands), fusion=fusion)
    with pytest.raises(ConfigError, match=f"a {fusion} fusion has no weights"):
        old.extended(specialists(second))
    with pytest.raises(ZooError, match="already has"):
        Ensemble(specialists(first), bands, statistics=statistics_of(bands)).extended(specialists(first))


def test_a_stored_model_grows_and_learns_on(tmp_path: Path):
    zoo, data = tmp_path / "zoo", tiny("burn-scars", HLS)
    for name, bands, seed in (("a", "hls:RED,GREEN,BLUE@reflectance", 1), ("b", "hls:all@reflectance", 2)):
        save_specialist(*make_specialist(name, bands, seed), zoo)
    task = TaskSpec(kind="segmentation", classes=data.train.classes, chip_size=32, head=HEAD)
    config = replace(CONFIG, augment=False, epochs=1)
    ens = Ensemble([load_specialist(zoo / "a")], HLS, statistics=data.train.statistics())
    model, _, _ = adapt_ensemble(ens, data, task, config)
    save_task_model(model, tmp_path / "m", zoo, name="burn", data=data_info(data, "0"),
                    training=training_info("", config, Energy()))  # fmt: skip
    zoo_add(tmp_path / "m", ["b"], tmp_path / "wide")
    before, _ = load_task_model(tmp_path / "m")
    after, _ = load_task_model(tmp_path / "wide")
    x, _ = data.test.batch([0, 1])
    torch.testing.assert_close(before(x), after(x), rtol=1e-5, atol=1e-6)
    new = slice(before.encoder.fusion.convs[0].weight.shape[1], None)
    assert not after.encoder.fusion.convs[0].weight[:, new].any()
    trained, _, _ = adapt_ensemble(after.encoder, data, after.task, replace(config, learning_rate=1e-2), start=after)
    assert trained.encoder.fusion.convs[0].weight[:, new].any(), "the new specialist learns to speak"
    with pytest.raises(EosfmError, match="already has a"):
        extend_task_model(tmp_path / "m", ["a"], tmp_path / "other")
    assert not (tmp_path / "other").exists()
