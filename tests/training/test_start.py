"""Where weights start, what that does to the licence, two dates, schedules and early stopping."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError
from eosfm.data.chips import Splits
from eosfm.data.streams import StreamedChips
from eosfm.ensemble import Ensemble
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.encoder import ConvNeXtV2Atto
from eosfm.specialists.licences import LICENCES, allows_commercial_use, combine
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.training.batches import zoomed
from eosfm.training.dates import TwoDates
from eosfm.training.fit import train_specialist
from eosfm.training.initial import start_from
from eosfm.training.settings import FitConfig, falling
from helpers import make_specialist
from training.test_fit import CONFIG, HEAD, RGB, tiny

EIGHT_BIT = BandSet.parse("rgb:R,G,B@8bit")


@pytest.fixture
def fcmae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The Hub's file as timm publishes it (a whole model with its head), with random weights."""
    torch.manual_seed(5)
    model = timm.create_model("convnextv2_atto.fcmae", pretrained=False)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    asked = []

    def download(repo: str, name: str) -> str:
        asked.append((repo, name))
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    yield model.state_dict()
    assert set(asked) == {("timm/convnextv2_atto.fcmae", "model.safetensors")}


def test_fcmae_weights_arrive_under_our_names(fcmae, tmp_path):
    start = start_from("imagenet-fcmae", EIGHT_BIT, tmp_path / "zoo", seed=0)
    got = start.encoder.tensors()
    assert torch.equal(got["stem_0.weight"], fcmae["stem.0.weight"])
    assert torch.equal(got["stages_2.blocks.5.mlp.grn.weight"], fcmae["stages.2.blocks.5.mlp.grn.weight"])
    assert start.licence == "CC-BY-NC-4.0"
    assert start.text == "imagenet-fcmae (all bands copied)"


def test_a_stem_channel_is_copied_by_the_name_of_its_band(fcmae, tmp_path):
    bands = BandSet.parse("sentinel-2-l2a:B08,B02,B03,B04@dn-1e4")
    start = start_from("imagenet-fcmae", bands, tmp_path / "zoo", seed=0)
    stem, source = start.encoder.tensors()["stem_0.weight"], fcmae["stem.0.weight"]
    for channel, theirs in ((1, 2), (2, 1), (3, 0)):
        assert torch.equal(stem[:, channel], source[:, theirs])
    fresh = start_from("random", bands, tmp_path / "zoo", seed=0).encoder.tensors()["stem_0.weight"]
    assert torch.equal(stem[:, 0], fresh[:, 0])
    assert start.text == "imagenet-fcmae (stem of nir random, the rest copied)"


def test_offline_without_a_cache_says_what_to_do(tmp_path, monkeypatch):
    def nothing(*_: str) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", nothing)
    with pytest.raises(ConfigError, match=r"hf download timm/convnextv2_atto.fcmae.*init: random"):
        start_from("imagenet-fcmae", EIGHT_BIT, tmp_path, seed=0)


def test_a_specialist_starts_another_and_its_licence_goes_along(tmp_path):
    zoo = tmp_path / "zoo"
    first = train_specialist(tiny(), replace(CONFIG, epochs=1), zoo, name="first", head=HEAD).card
    start = start_from("first", RGB, zoo, seed=1)
    assert all(
        torch.equal(v, load_specialist(zoo / "first")[0].tensors()[k]) for k, v in start.encoder.tensors().items()
    )
    noncommercial = replace(start, licence="CC-BY-NC-4.0")
    card = train_specialist(tiny(), replace(CONFIG, epochs=1), zoo, name="second", head=HEAD, start=noncommercial).card
    assert card.licence == "CC-BY-NC-4.0 AND CC0-1.0"
    assert card.training.initialisation == f"specialist {first.reference} (all bands copied)"
    assert not allows_commercial_use(card.licence) and allows_commercial_use(first.licence)


@pytest.mark.parametrize(("zoo", "what"), [("zoo", "which is not there"), ("full", "no specialist 'first'")])
def test_an_unknown_start_is_an_error(tmp_path, zoo, what):
    save_specialist(*make_specialist("other", RGB), tmp_path / "full")
    with pytest.raises(ConfigError, match=rf"init 'first': expected random, imagenet-fcmae.*{what}"):
        start_from("first", RGB, tmp_path / zoo, seed=0)


def test_licences_add_up():
    assert combine("CC0-1.0", None, "cc-by-4.0", "CC0-1.0") == "CC-BY-4.0 AND CC0-1.0"
    assert combine("", "MIT") == "MIT AND unknown"
    assert combine() == "unknown"
    assert combine("A AND MIT", "MIT") == "A AND MIT"
    assert allows_commercial_use("MIT AND CC-BY-SA-4.0")
    for closed in ("unknown", "", "MIT AND unknown", "CC-BY-NC-SA-4.0 AND MIT", "CC-BY-ND"):
        assert not allows_commercial_use(closed), closed
    assert not any(v.commercial for k, v in LICENCES.items() if "NC" in k)


class Pairs:
    """Two looks at a world, the second with a bright square where ``change`` is 1."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, key: str) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(self.seed + int(key))
        first = torch.rand(3, 32, 32, generator=g)
        second, y = first.clone(), torch.zeros(32, 32, dtype=torch.long)
        second[:, 8:24, 8:24] += 1
        y[8:24, 8:24] = 1
        return torch.cat([first, second]), y


def pairs(n: int, seed: int, name: str) -> StreamedChips:
    ids = tuple(str(100 * seed + i) for i in range(n))
    return StreamedChips(Pairs(seed), ids, (32, 32), RGB, "segmentation", ("same", "changed"), name, "CC0-1.0", dates=2)


def test_two_dates_make_a_specialist_for_one(tmp_path):
    splits = Splits(pairs(24, 1, "train"), pairs(4, 2, "val"), pairs(4, 3, "test"))
    done = train_specialist(splits, replace(CONFIG, epochs=4, learning_rate=3e-3), tmp_path, name="change", head=HEAD)
    assert [b.name for b in done.card.bands] == ["B04", "B03", "B02"]
    assert done.card.metrics[0].name == "miou" and done.card.metrics[0].value > 0.6
    ens = Ensemble([load_specialist(tmp_path / "change")], RGB)
    assert ens(torch.rand(1, 3, 32, 32))[0].shape == (1, 40, 8, 8)


def test_both_dates_go_through_one_encoder():
    encoder = ConvNeXtV2Atto(3).eval()
    both = TwoDates(encoder)
    a, b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        for level, one, other in zip(both(torch.cat([a, b], 1)), encoder(a), encoder(b), strict=True):
            torch.testing.assert_close(level, torch.cat([one, other], 1), rtol=1e-4, atol=1e-5)
    assert both.out_channels == [80, 160, 320, 640]


def test_schedules():
    assert [round(falling("cosine", d), 3) for d in (0, 0.5, 1)] == [1, 0.5, 0]
    assert [falling("steps", d) for d in (0, 0.59, 0.6, 0.89, 0.9, 1)] == [1, 1, 0.1, 0.1, 0.01, 0.01]
    assert falling("constant", 1) == 1
    with pytest.raises(ValueError, match="accumulate must be 1 or more"):
        FitConfig(accumulate=0)
    with pytest.raises(ValueError, match="patience must be 0 or more"):
        FitConfig(patience=-1)


def test_patience_stops_and_the_card_says_when(tmp_path):
    still = replace(CONFIG, epochs=40, learning_rate=1e-30, patience=2)
    done = train_specialist(tiny(), still, tmp_path, name="x", head=HEAD)
    assert done.fit.epochs == done.card.training.epochs == 3
    assert math.isfinite(done.fit.best)


def test_accumulated_gradients_take_fewer_steps(tmp_path):
    one = train_specialist(tiny(), replace(CONFIG, epochs=1, batch_size=4), tmp_path, name="a", head=HEAD)
    four = train_specialist(
        tiny(), replace(CONFIG, epochs=1, batch_size=4, accumulate=4), tmp_path, name="b", head=HEAD
    )
    assert (one.fit.steps, four.fit.steps) == (4, 1)


@pytest.mark.timeout(900)  # it starts processes that import torch: minutes on a busy machine
def test_two_processes_take_the_steps_of_one(tmp_path):
    """DDP over two CPU processes: equal shares of every batch, averaged gradients, the same weights up to rounding."""
    config = replace(CONFIG, epochs=2, batch_size=8, augment=False)
    plain = replace(HEAD, dropout=0.0)
    lines: list[tuple[float, str]] = []
    a = train_specialist(tiny(), config, tmp_path, name="one", head=plain)
    b = train_specialist(
        tiny(), replace(config, devices=2), tmp_path, name="two", head=plain, run=tmp_path / "run",
        progress=lambda done, line: lines.append((done, line)),
    )  # fmt: skip
    assert (a.fit.steps, a.fit.epochs, a.fit.best_epoch) == (b.fit.steps, b.fit.epochs, b.fit.best_epoch)
    assert a.fit.best == pytest.approx(b.fit.best, abs=0.02)
    one, two = (load_specialist(tmp_path / n)[0].tensors() for n in ("one", "two"))
    start = one_start()
    moved = torch.cat([(v - start[k]).flatten() for k, v in one.items()]).norm()
    apart = torch.cat([(v - two[k]).flatten() for k, v in one.items()]).norm()
    assert float(apart / moved) < 0.1  # Adam divides rounding by rounding where gradients are almost 0
    assert lines and lines[-1][0] == 1.0, "progress travels between processes"
    again = train_specialist(
        tiny(), replace(config, devices=2), tmp_path, name="two", head=plain, run=tmp_path / "run", overwrite=True
    )
    assert again.card.weights.sha256 == b.card.weights.sha256, "a finished run is not trained again"


def one_start() -> dict[str, torch.Tensor]:
    with seeded(purpose_seed(CONFIG.seed, "specialist")):
        return ConvNeXtV2Atto(3).tensors()


def test_zoom_moves_pixels_and_labels_alike():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (4, 8, 8), generator=g).repeat_interleave(4, 1).repeat_interleave(4, 2)
    x = y[:, None].float() * 10
    a, b = zoomed(x, y, 0.5, torch.Generator().manual_seed(1))
    assert not torch.equal(b, y)
    inside = a[:, 0] % 10 == 0  # away from the edges between classes
    assert inside.float().mean() > 0.5
    assert torch.equal(a[:, 0][inside], b[inside].float() * 10)
    assert b.dtype == y.dtype
    same, _ = zoomed(x, y, 0.0, torch.Generator().manual_seed(1))
    torch.testing.assert_close(same, x)
    with pytest.raises(ValueError, match=r"zoom 0\.95"):
        FitConfig(zoom=0.95)
