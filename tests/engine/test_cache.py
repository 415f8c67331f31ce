"""Features on disk: the same as in memory, found again, never stale, resumed, refused where they do not fit."""

from __future__ import annotations

import shutil
from collections import namedtuple
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError, CorruptArtifact
from eosfm.data.chips import Chips, Splits
from eosfm.engine import cache
from eosfm.engine.cache import cached_features, can_pool, size_in_bytes, turned
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.training.fit import adapt_ensemble
from eosfm.training.settings import FitConfig
from helpers import TINY, image, make_specialist

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4 + sentinel-1:VV,VH@db")
HEAD = HeadConfig(decoder="linear", channels=8, dropout=0.0)
TASK = TaskSpec(kind="segmentation", classes=("a", "b"), chip_size=32, head=HEAD)
NAMES = ("s1-sar", "s2-rgb")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(cache, "SHARD", 3)


def ensemble(names=NAMES, shift: float = 0.0) -> Ensemble:
    made = deepcopy([make_specialist(n, TINY[n], i) for i, n in enumerate(names)])  # theirs are shared by all tests
    if shift:
        with torch.no_grad():
            next(iter(made[0][0].parameters())).add_(shift)
    return Ensemble(made, BANDS, rules=["subset"])


def chips(n: int = 8, seed: int = 0, size: int | tuple[int, int] = 32) -> Chips:
    x = image(BANDS, n, size, seed)
    return Chips(
        images=x,
        labels=(x[:, 0] > 3000).long(),
        bands=BANDS,
        kind="segmentation",
        classes=("a", "b"),
        name=f"chips {seed}",
    )


def same(a, b, i=(7, 0, 3, 3), atol=1e-5) -> None:
    (p, y), (q, z) = a.batch(i), b.batch(i)
    assert torch.equal(y, z)
    for u, v in zip(p, q, strict=True):
        for m, n in zip(u, v, strict=True):
            torch.testing.assert_close(m.float(), n.float(), rtol=0, atol=atol)


@pytest.fixture
def computed(monkeypatch) -> list[tuple[int, int]]:
    """(chips, views) of every batch for which encoders ran."""
    seen: list[tuple[int, int]] = []
    plain = cache._runner

    def watched(*args):
        run = plain(*args)
        return lambda x, views: seen.append((len(x), len(views))) or run(x, views)

    monkeypatch.setattr(cache, "_runner", watched)
    return seen


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_disk_it_is_what_it_is_in_memory_and_found_again(tmp_path: Path, computed, precision):
    ens, data = ensemble(), chips()
    a = cached_features(ens, data, precision=precision)
    b = cached_features(ens, data, precision=precision, folder=tmp_path)
    assert computed == [(3, 2), (3, 2), (2, 2)] * 2 and len(b) == 8
    same(a, b)
    written = sum(f.stat().st_size for f in tmp_path.rglob("*.safetensors"))
    assert 1 <= written / size_in_bytes(ens, data, precision) < 1.03  # headers of tiny shards
    computed.clear()
    same(a, cached_features(ens, data, precision=precision, folder=tmp_path))
    assert not computed


def test_a_killed_run_computes_what_is_missing_and_half_files_do_not_count(tmp_path: Path, computed):
    ens, data = ensemble(), chips()
    whole = cached_features(ens, data, folder=tmp_path)
    views = sorted(tmp_path.iterdir())
    name = next(p.name for p in views[0].iterdir() if load_file(p)["level0"].shape[0] == 3)
    (views[0] / name).unlink()
    (views[1] / f".{name}.abcd.part").write_bytes(b"half")
    computed.clear()
    same(whole, cached_features(ens, data, folder=tmp_path))
    assert computed == [(3, 1)]


def test_whatever_features_depend_on_makes_another_cache(tmp_path: Path, computed):
    data = chips()
    cached_features(ensemble(), data, folder=tmp_path)
    computed.clear()
    other_statistics = ensemble()
    other_statistics.views = [replace(v, mean=tuple(m + 1 for m in v.mean)) for v in other_statistics.views]
    for ens, d, options, expected in [
        (ensemble(), data, {}, []),
        (ensemble(shift=1e-3), data, {}, [(3, 1), (3, 1), (2, 1)]),  # one specialist's weights; the card says the same
        (other_statistics, data, {}, [(3, 2), (3, 2), (2, 2)]),
        (ensemble(), chips(seed=1), {}, [(3, 2), (3, 2), (2, 2)]),
        (ensemble(), data, {"precision": "bf16"}, [(3, 2), (3, 2), (2, 2)]),
        (ensemble(NAMES[:1]), data, {}, []),  # a part of what is there
    ]:
        got = cached_features(ens, d, folder=tmp_path, **options)
        assert computed == expected
        same(got, cached_features(ens, d, **options))
        computed.clear()


def test_a_damaged_shard_is_named(tmp_path: Path):
    ens, data = ensemble(), chips()
    cached_features(ens, data, folder=tmp_path)
    shard = next(tmp_path.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CorruptArtifact, match=r"safetensors is not what was written.*delete this file"):
        cached_features(ens, data, folder=tmp_path).batch(range(8))
    wrong = {"level0": torch.zeros(2)}
    save_file(wrong, shard)
    assert load_file(shard)["level0"].shape == (2,)
    with pytest.raises(CorruptArtifact, match="not what was written"):
        cached_features(ens, data, folder=tmp_path).batch(range(8))


def test_too_large_is_refused_before_anything_is_computed(tmp_path: Path, computed, monkeypatch):
    ens, data = ensemble(), chips()
    need = size_in_bytes(ens, data)
    monkeypatch.setattr(cache, "_memory", lambda: need)
    with pytest.raises(ConfigError, match=r"GB, the memory has .* GB free: set cache_folder"):
        cached_features(ens, data)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, need))
    with pytest.raises(OutputError, match=r"the disk of .* GB free: choose another cache_folder"):
        cached_features(ens, data, folder=tmp_path)
    assert not computed and not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [32, (33, 50)])
def test_means_are_enough_for_a_scene_head(tmp_path: Path, size):
    data = replace(chips(6, size=size), labels=torch.tensor([0, 1] * 3), kind="classification")
    ens, task = ensemble(), replace(TASK, kind="classification")
    assert can_pool(ens, "classification") and not can_pool(ens, "segmentation")
    assert not any(
        can_pool(Ensemble(_members(ens), BANDS, rules=["subset"], normalise=n), "multilabel")
        for n in ("layer", "batch")
    )
    assert not can_pool(Ensemble(_members(ens), BANDS, rules=["subset"], fusion="mlp"), "classification")
    model = TaskModel(ens, task).eval()
    for folder in (None, tmp_path):
        few = cached_features(ens, data, pooled=True, folder=folder)
        with torch.inference_mode():
            torch.testing.assert_close(
                model.from_features(few.batch(range(6))[0]), model(data.images), rtol=0, atol=1e-4
            )
    assert size_in_bytes(ens, data, pooled=True) == 6 * 600 * 4 * len(ens.views) < size_in_bytes(ens, data) / 7


def _members(ens: Ensemble):
    return list(zip(ens.encoders, ens.cards, strict=True))


def test_a_scene_task_trains_from_means_to_the_same_model(tmp_path: Path, computed):
    splits = Splits(
        *(replace(chips(n, s), labels=torch.arange(n) % 2, kind="classification") for s, n in enumerate((6, 4, 4)))
    )
    task, config = (
        replace(TASK, kind="classification"),
        FitConfig(epochs=3, batch_size=2, learning_rate=1e-3, augment=True),
    )
    with_means, _, _ = adapt_ensemble(ensemble(), splits, task, config, cache_folder=tmp_path)
    assert all(load_file(f)["level0"].shape[-2:] == (1, 1) for f in tmp_path.rglob("*.safetensors"))
    without, _, _ = adapt_ensemble(ensemble(), splits, task, replace(config, augment=False), cache=False)
    again, _, _ = adapt_ensemble(ensemble(), splits, task, replace(config, augment=False))
    for k, v in without.trainable_tensors().items():
        torch.testing.assert_close(v, again.trainable_tensors()[k], rtol=0, atol=1e-3)
    assert any(not torch.equal(v, again.trainable_tensors()[k]) for k, v in with_means.trainable_tensors().items())


def test_orientations_are_the_features_of_turned_chips_and_their_labels():
    ens, data = ensemble(), chips(3)
    got = cached_features(ens, data, orientations=8)
    assert len({turned(torch.arange(4).view(2, 2), o).flatten().tolist().__repr__() for o in got.orientations}) == 8
    for position, o in enumerate(got.orientations):
        p, y = got.batch([1], [position])
        assert torch.equal(y[0], turned(data.labels[1], o))
        for u, v in zip(p, ens.encode(turned(data.images[1:2], o)), strict=True):
            torch.testing.assert_close(u[0], v[0], rtol=0, atol=1e-4)
    flat = cached_features(ens, chips(2, size=(32, 64)), orientations=4)
    assert flat.batch([0], [3])[0][0][0].shape == (1, 40, 8, 16)
    with pytest.raises(ConfigError, match=r"expected 1, 2, 4$"):
        cached_features(ens, chips(2, size=(32, 64)), orientations=8)


def test_adapting_draws_orientations_and_resumes_to_the_same_model(tmp_path: Path):
    splits = Splits(chips(4), chips(2, seed=1), chips(2, seed=2))
    config = FitConfig(epochs=3, batch_size=2, learning_rate=1e-3, augment=True)
    plain, _, _ = adapt_ensemble(ensemble(), splits, TASK, replace(config, augment=False))
    one, _, _ = adapt_ensemble(ensemble(), splits, TASK, config)
    two, _, _ = adapt_ensemble(ensemble(), splits, TASK, config, cache_folder=tmp_path / "features")
    for k, v in one.trainable_tensors().items():
        torch.testing.assert_close(v, two.trainable_tensors()[k], rtol=0, atol=1e-4)
    assert any(not torch.equal(v, plain.trainable_tensors()[k]) for k, v in one.trainable_tensors().items())


def test_bf16_features_train_a_model_that_scores_alike_without_them():
    splits = Splits(chips(8), chips(4, seed=1), chips(2, seed=2))
    config = FitConfig(epochs=4, batch_size=4, learning_rate=1e-2, precision="bf16")
    model, result, _ = adapt_ensemble(ensemble(), splits, TASK, config)
    assert isinstance(model, TaskModel) and all(p.dtype == torch.float32 for p in model.parameters())
    check = cached_features(model.encoder, splits.validation, precision="bf16")
    x, _ = check.batch(range(4))
    assert x[0][0].dtype == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        agree = (
            (model.from_features(x).argmax(1) == model(splits.validation.batch(range(4))[0]).argmax(1)).float().mean()
        )
    assert agree > 0.95 and result.steps == 8
