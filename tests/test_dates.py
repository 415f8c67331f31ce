"""Several dates through a frozen ensemble: each alone, then joined; what is stored predicts the same; one date is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from eosfm import dates as of_dates
from eosfm.bands import BandSet
from eosfm.contracts import BandError, ConfigError
from eosfm.data.chips import Splits
from eosfm.data.streams import StreamedChips
from eosfm.ensemble import Ensemble
from eosfm.specialists.card import DataInfo, TrainingInfo
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.scene import SceneTaskModel
from eosfm.tasks.stored import load_task_model, save_task_model
from eosfm.training.fit import adapt_ensemble
from eosfm.training.scoring import score
from eosfm.training.settings import FitConfig
from helpers import assert_close, image, make_specialist

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance")
HEAD = HeadConfig(decoder="linear", channels=8, dropout=0.0)
CONFIG = FitConfig(epochs=1, batch_size=4, learning_rate=3e-3)


def spec(dates: int, join: str) -> TaskSpec:
    return TaskSpec(kind="segmentation", classes=("no", "yes"), chip_size=32, head=HEAD, dates=dates, join=join)  # type: ignore[arg-type]


def ensemble(**options) -> Ensemble:
    specialists = [make_specialist("a", str(BANDS), 0), make_specialist("b", "aerial:R,G,B@8bit", 1)]
    given = make_specialist("a", str(BANDS), 0)[1].statistics
    return Ensemble(specialists, BANDS, statistics=given, **options).eval()


def series(dates: int, n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.cat([image(BANDS, n, 32, seed + d) for d in range(dates)], 1)


@pytest.fixture(scope="module")
def made() -> tuple[Ensemble, dict[str, TaskModel]]:
    ens = ensemble()
    return ens, {join: TaskModel(ens, spec(dates, join)).eval() for join, dates in
                 (("mean", 4), ("concat", 2), ("difference", 2))}  # fmt: skip


def pyramid(model: TaskModel, x: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return model._of_dates(x)


def test_the_mean_is_that_of_features_fed_one_by_one_in_any_order(made):
    ens, models = made
    x = series(4)
    alone = [ens(d) for d in x.chunk(4, 1)]
    mean = [torch.stack(level).mean(0) for level in zip(*alone, strict=True)]
    assert_close(pyramid(models["mean"], x), mean)
    shuffled = torch.cat([x.chunk(4, 1)[i] for i in (2, 0, 3, 1)], 1)
    assert_close(pyramid(models["mean"], shuffled), mean)
    torch.testing.assert_close(models["mean"](x), models["mean"](shuffled), rtol=1e-4, atol=1e-5)


def test_a_missing_date_is_left_out_of_the_mean_of_its_chip_only(made):
    ens, models = made
    x = series(4)
    x[1, 3:6] = float("nan")
    x[2, 0, 0, 0] = float("nan")  # one pixel: the date is still there
    got = pyramid(models["mean"], x)
    for chip, there in ((0, range(4)), (1, (0, 2, 3)), (2, range(4))):
        alone = [ens(x[chip : chip + 1].chunk(4, 1)[d]) for d in there]
        mean = [torch.stack(level).mean(0) for level in zip(*alone, strict=True)]
        assert_close([m[chip : chip + 1] for m in got], mean)


def test_a_change_keeps_both_dates_or_their_difference(made):
    ens, models = made
    x = series(2)
    first, second = (ens(d) for d in x.chunk(2, 1))
    back = torch.cat(x.chunk(2, 1)[::-1], 1)
    assert_close(pyramid(models["concat"], x), [torch.cat(p, 1) for p in zip(first, second, strict=True)])
    assert_close(pyramid(models["concat"], back), [torch.cat(p, 1) for p in zip(second, first, strict=True)])
    gap = pyramid(models["difference"], x)
    assert_close(gap, [b - a for a, b in zip(first, second, strict=True)])
    assert_close(pyramid(models["difference"], back), [-m for m in gap])
    assert all(bool((m == 0).all()) for m in pyramid(models["difference"], torch.cat([x[:, :3]] * 2, 1)))


@pytest.mark.parametrize("join", ["mean", "concat", "difference"])
def test_kept_features_give_the_model_s_output(made, join):
    ens, models = made
    model = models[join]
    x = series(model.task.dates)
    kept = of_dates.kept_features(ens.encode(of_dates.each_date(x, model.task.dates)), x, model.task.dates, join)
    assert all(len(m) == 3 for p in kept for m in p), "one row per chip"
    torch.testing.assert_close(model.from_features(kept), model(x))
    with pytest.raises(BandError, match=r"expected \d dates of .*, so \d+ channels"):
        model(series(3))
    assert model.fast("fp32") is model
    with pytest.raises(ConfigError, match="one date"):
        model.fast("bf16")


class Read:
    """A square is bright at all dates (label 1 there); of every third chip the second date is missing."""

    def __init__(self, dates: int) -> None:
        self.dates = dates

    def __call__(self, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(int(key))
        x = 0.3 * torch.rand(3 * self.dates, 32, 32, generator=g)
        x[:, 8:24, 8:24] += 0.3
        if int(key) % 3 == 0:
            x[3:6] = float("nan")
        y = torch.zeros(32, 32, dtype=torch.long)
        y[8:24, 8:24] = 1
        return x, y


def splits(dates: int) -> Splits:
    def part(name: str, first: int, n: int) -> StreamedChips:
        ids = tuple(str(i) for i in range(first, first + n))
        return StreamedChips(Read(dates), ids, (32, 32), BANDS, "segmentation", ("no", "yes"), name, dates=dates)

    return Splits(part("train", 0, 8), part("validation", 100, 4), part("test", 200, 4))


@pytest.mark.parametrize(("dates", "join"), [(3, "mean"), (2, "concat"), (2, "difference")])
def test_adapted_cached_stored_and_loaded_it_predicts_the_same(tmp_path, dates, join):
    zoo, data = tmp_path / "zoo", splits(dates)
    for encoder, card in (make_specialist("a", str(BANDS), 0), make_specialist("b", "aerial:R,G,B@8bit", 1)):
        save_specialist(encoder, card, zoo)

    def fresh() -> Ensemble:
        return Ensemble([load_specialist(zoo / n) for n in "ab"], BANDS, statistics=data.train.statistics())

    model, result, _ = adapt_ensemble(fresh(), data, spec(dates, join), CONFIG, cache_folder=tmp_path / "kept")
    x = data.test.batch(range(4))[0]
    if join == "mean":
        slow, same, _ = adapt_ensemble(fresh(), data, spec(dates, join), CONFIG, cache=False)
        assert same.best == pytest.approx(result.best, abs=1e-3)
        torch.testing.assert_close(model(x), slow(x), rtol=1e-2, atol=1e-2)
    else:
        again, _, _ = adapt_ensemble(fresh(), data, spec(dates, join), CONFIG, cache_folder=tmp_path / "kept")
        torch.testing.assert_close(model(x), again(x), rtol=0, atol=0)
    save_task_model(
        model, tmp_path / "m", zoo, name="m", data=DataInfo(name="x", licence="CC0-1.0"), training=TrainingInfo()
    )
    loaded, card = load_task_model(tmp_path / "m", zoo)
    assert (card.task.dates, card.task.join) == (dates, join)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=0)
    assert score(loaded, data.test, 0).metrics[0].name == "miou"
    smaller = loaded.pruned(["a"])
    loaded.encoder.ablate(["b"])
    with torch.no_grad():
        torch.testing.assert_close(smaller(x), loaded(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match=f"reads chips of {dates} dates .*a scene has one"):
        SceneTaskModel(loaded, "x")


def test_features_of_other_dates_are_not_read_from_the_cache(tmp_path):
    from eosfm.engine.cache import cached_features

    ens, data = ensemble(), splits(2)
    for join in ("mean", "concat"):
        cached_features(ens, data.test, folder=tmp_path, dates=2, join=join)  # type: ignore[arg-type]
    kept = cached_features(ens, data.test, folder=tmp_path, dates=2, join="concat").batch([0])[0]
    assert kept[0][0].shape[1] == 80


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="2 for a difference"):
        spec(3, "difference")
    with pytest.raises(ConfigError, match="chips of 3 dates; the task reads 1"):
        adapt_ensemble(ensemble(), splits(3), replace(spec(1, "mean")), CONFIG)
    assert [of_dates.default_join(d) for d in (1, 2, 3)] == ["mean", "concat", "mean"]
