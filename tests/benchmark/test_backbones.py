"""A named baseline reads by name and unit, gives the library's own features, and stays frozen."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from eosfm.bands import BandSet
from eosfm.benchmark.backbones import Backbone, Tiles, grid_of, spread
from eosfm.benchmark.frozen import adapt_backbone, native, open_backbone
from eosfm.benchmark.named import timm_models
from eosfm.benchmark.readings import Name, Reading, choose
from eosfm.contracts import BandError, ConfigError
from eosfm.data.chips import Chips, Splits
from eosfm.data.streams import StreamedChips
from eosfm.data.worlds import synthetic_splits
from eosfm.specialists.encoder import pad
from eosfm.statistics import BandStatistics
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.training.settings import FitConfig

RGB8 = BandSet.parse("rgb:R,G,B@8bit")
MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def statistics(n: int) -> BandStatistics:
    return BandStatistics(mean=tuple(100.0 + i for i in range(n)), std=tuple(50.0 + i for i in range(n)))


def backbone(text: str, bands: BandSet = RGB8, size: tuple[int, int] = (64, 64), seed: int = 0) -> Backbone:
    name, own = Name.parse(text), statistics(len(bands))
    built = timm_models.build(name, bands, own, size, seed)
    return Backbone(name, built, choose(name, [built.reading], bands, own)[1], size, seed, bands)


def pixels(bands: int, size: int = 64, high: float = 255.0) -> torch.Tensor:
    return torch.rand(2, bands, size, size, generator=torch.Generator().manual_seed(1)) * high


def published(monkeypatch, tmp_path, name: str) -> torch.nn.Module:
    """timm's whole network, its weights where timm would have put those that it publishes."""
    torch.manual_seed(3)
    whole = timm.create_model(name.partition(".")[0], num_classes=1000).eval()
    for m in whole.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()}, tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(tmp_path / "model.safetensors"))
    return whole


def test_a_convolutional_network_gives_timms_own_maps(monkeypatch, tmp_path):
    whole = published(monkeypatch, tmp_path, "resnet10t.c3_in1k")
    ours, x = backbone("timm:resnet10t.c3_in1k"), pixels(3)
    theirs = whole.forward_intermediates((x - MEAN) / STD, indices=(1, 2, 3, 4), intermediates_only=True)
    for a, b in zip(ours(x), theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert ours.out_channels == [m.shape[1] for m in theirs] and "RANDOM" not in ours.note
    assert not any(True for _ in ours.necks.parameters())


def test_a_vit_gives_timms_own_blocks_then_the_neck(monkeypatch, tmp_path):
    whole = published(monkeypatch, tmp_path, "test_vit.r160_in1k")
    ours, x = backbone("timm:test_vit.r160_in1k", size=(160, 160)), pixels(3, 160)
    # this model was trained on values from -1 to 1
    theirs = whole.forward_intermediates(
        (x - 127.5) / 127.5, indices=list(spread(len(whole.blocks))), intermediates_only=True
    )
    maps = ours.encode(x)[0]
    for a, b in zip(maps, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    pyramid = ours(x)
    assert [m.shape[-1] for m in pyramid] == [40, 20, 10, 5]
    torch.testing.assert_close(pyramid[2], maps[2])
    torch.testing.assert_close(pyramid[3], F.max_pool2d(maps[3], 2))
    for a, b in zip(ours.fuse([maps]), pyramid, strict=True):
        torch.testing.assert_close(a, b)


def test_large_images_are_tiles_of_the_networks_side_and_small_ones_are_resized():
    ours, x = backbone("timm:test_vit@random", size=(320, 160)), pixels(3, 320)[..., :160]
    joined, upper = ours.encode(x)[0], ours.encode(x[..., :160, :])[0]
    for a, b in zip(joined, upper, strict=True):
        torch.testing.assert_close(a[..., : b.shape[-2], :], b, atol=1e-5, rtol=1e-5)
    assert "2 tiles of 160 run alone" in ours.note and Tiles.of(500, 64, 160) == Tiles(3, 1, 160)
    small = backbone("timm:test_vit@random")
    assert "chips of 64 x 64 resized (bilinear) to 160 x 160" in small.note
    assert [m.shape[-1] for m in small(pixels(3))] == [16, 8, 4, 2]


def test_bands_are_found_by_name_whatever_their_order():
    plain = BandSet.parse("sentinel-2-l2a:B04,B03,B02,B08@dn-1e4")
    turned = BandSet.parse("sentinel-2-l2a:B08,B02,B04,B03@dn-1e4")
    x, order = pixels(4, high=4000.0), [3, 2, 0, 1]
    own = BandStatistics(mean=(900.0, 800.0, 700.0, 2000.0), std=(300.0, 250.0, 200.0, 500.0))
    name = Name.parse("timm:resnet10t@random")
    built = timm_models.build(name, plain, own, (64, 64), 0)
    a = Backbone(name, built, choose(name, [built.reading], plain, own)[1], (64, 64), 0, plain)
    other = BandStatistics(mean=tuple(own.mean[i] for i in order), std=tuple(own.std[i] for i in order))
    b = Backbone(name, built, choose(name, [built.reading], turned, other)[1], (64, 64), 0, turned)
    for left, right in zip(a(x), b(x[:, order]), strict=True):
        assert torch.equal(left, right)
    assert "bands B04,B03,B02" in a.note and "own mean and std" in a.note


def test_a_missing_band_is_refused_and_never_filled():
    bands = BandSet.parse("sentinel-2-l2a:B08,B04,B03@dn-1e4")
    with pytest.raises(BandError, match="no red, green, blue"):
        timm_models.build(Name.parse("timm:resnet10t@random"), bands, statistics(3), (64, 64), 0)
    with pytest.raises(BandError):
        timm_models.build(
            Name.parse("timm:resnet10t@random"), BandSet.parse("sentinel-1:VV,VH@db"), statistics(2), (64, 64), 0
        )


def test_units_convert_exactly_or_are_refused():
    wanted = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4")
    reading = Reading(wanted, (1000.0, 900.0, 800.0), (500.0, 400.0, 300.0))
    name = Name.parse("torchgeo:X@random")
    for text, scale, shift in (("reflectance", 1e-4, 0.0), ("dn-1e4-offset-1000", 1.0, 1000.0)):
        given = BandSet.parse(f"sentinel-2-l2a:B04,B03,B02@{text}")
        plan = choose(name, [reading], given, statistics(3))[1]
        built = timm_models.build(Name.parse("timm:resnet10t@random"), wanted, statistics(3), (64, 64), 0)
        x = pixels(3, high=3000.0)
        same = [Backbone(name, built, p, (64, 64), 0, given)(v)[3] for p, v in (
            (plan, x * scale + shift), (choose(name, [reading], wanted, statistics(3))[1], x))]  # fmt: skip
        torch.testing.assert_close(same[0], same[1], atol=1e-3, rtol=1e-3)
    eight = BandSet.parse("sentinel-2-l2a:B04,B03,B02@8bit")
    with pytest.raises(BandError, match=r"8bit does not convert.*@zscore"):
        choose(name, [reading], eight, statistics(3))
    zscore = choose(Name.parse("torchgeo:X@random@zscore"), [reading], eight, statistics(3))[1]
    assert zscore.mean == statistics(3).mean and zscore.normalise == "input"


def test_the_reading_of_the_very_sensor_wins():
    readings = [
        Reading(BandSet.parse(f"sentinel-2-{p}:B04,B03,B02@dn-1e4"), (m,) * 3, (1.0,) * 3)
        for p, m in (("l2a", 1.0), ("l1c", 2.0))
    ]
    name = Name.parse("terratorch:x")
    for product, mean in (("l2a", 1.0), ("l1c", 2.0)):
        bands = BandSet.parse(f"sentinel-2-{product}:B02,B03,B04@dn-1e4")
        assert choose(name, readings, bands, statistics(3))[1].mean[0] == mean


def test_tokens_become_a_map_without_the_class_token():
    tokens = torch.arange(2 * 10 * 3.0).view(2, 10, 3)
    grid = grid_of(tokens)
    assert (
        grid.shape == (2, 3, 3, 3)
        and torch.equal(grid[0, :, 0, 0], tokens[0, 1])
        and torch.equal(grid[0, :, 2, 1], tokens[0, 8])
    )
    assert spread(12) == (2, 5, 8, 11) and spread(24) == (5, 11, 17, 23) and len(set(spread(4))) == 4


@pytest.fixture(scope="module")
def splits() -> Splits:
    return synthetic_splits("water", BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4"), 6, 3, 3, size=64, seed=0)


@pytest.mark.parametrize("model", ["timm:resnet10t@random", "timm:test_vit@random"])
def test_training_the_head_leaves_the_network_as_it_was(splits, model):
    ours = open_backbone(model, splits, seed=0)
    before = {k: v.clone() for k, v in ours.encoders.state_dict().items()}
    head = HeadConfig(decoder="linear", channels=8, dropout=0.0)
    task = TaskSpec(kind="segmentation", classes=splits.train.classes, chip_size=64, head=head)
    config = FitConfig(epochs=2, batch_size=3, learning_rate=1e-2)
    trained, _ = adapt_backbone(ours, splits, task, config)
    after = ours.encoders.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    trained.train()
    trained(splits.train.batch([0, 1])[0])  # outside a training, too
    assert all(torch.equal(v, ours.encoders.state_dict()[k]) for k, v in before.items()), "statistics of batch norms"
    assert not any(".encoders." in f".{k}" for k in trained.trainable_tensors())
    assert not any(p.requires_grad for p in ours.encoders.parameters())


def test_features_that_were_kept_are_those_of_the_forward(splits):
    ours = open_backbone("timm:test_vit@random", splits, seed=0)
    kept, _ = native(ours, splits.train, task_of(splits)).batch([2, 0])
    for a, b in zip(ours.fuse(kept), ours(pad(splits.train.batch([2, 0])[0])), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def task_of(splits, **changed) -> TaskSpec:
    head = HeadConfig(decoder="linear", channels=8, dropout=0.0)
    return TaskSpec(kind=splits.train.kind, classes=splits.train.classes, chip_size=64, head=head, **changed)


@pytest.mark.parametrize("model", ["timm:resnet10t@random", "timm:test_vit@random"])
def test_a_thawed_network_trains_and_the_frozen_one_stays(splits, model):
    ours = open_backbone(model, splits, seed=0)
    before = {k: v.clone() for k, v in ours.encoders.state_dict().items()}
    config = FitConfig(epochs=2, batch_size=3, learning_rate=1e-2)
    trained, _ = adapt_backbone(ours.thaw(), splits, task_of(splits), config)
    after = trained.encoder.members.state_dict()
    assert all(torch.equal(v, ours.encoders.state_dict()[k]) for k, v in before.items())
    weights = [k for k, v in before.items() if v.ndim > 1]
    assert before.keys() == after.keys() and all(not torch.equal(before[k], after[k]) for k in weights[:3])
    assert {f"encoder.members.{k}" for k in after} <= set(trained.trainable_tensors())
    x, _ = splits.test.batch([0, 1])
    with torch.inference_mode():  # before it has learnt anything it is the frozen one
        for a, b in zip(ours(pad(x)), ours.thaw().eval()(pad(x)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("join", ["mean", "concat"])
def test_several_dates_go_through_a_network_one_by_one(splits, join):
    def series(chips: Chips, dates: int) -> StreamedChips:
        def read(key: str) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = chips.batch([int(key)])
            return torch.cat([x[0] * (1 + 0.1 * d) for d in range(dates)]), y[0]

        keys = tuple(map(str, range(len(chips))))
        ids = {"read": read, "ids": keys, "size": chips.size, "bands": chips.bands, "kind": chips.kind}
        return StreamedChips(**ids, classes=chips.classes, name=chips.name, dates=dates)

    dates = 3 if join == "mean" else 2
    several = series(splits.train, dates)
    ours = open_backbone("timm:test_vit@random", splits, seed=0)
    task = task_of(splits, dates=dates, join=join)
    trained = TaskModel(ours, task).eval()
    x, _ = several.batch([0, 1])
    kept, _ = native(ours, several, task).batch([0, 1])
    with torch.inference_mode():
        torch.testing.assert_close(trained.from_features(kept), trained(x), atol=1e-4, rtol=1e-4)
        if join == "mean":
            maps = [ours.encode(pad(x[:, d * 3 : (d + 1) * 3]))[0] for d in range(dates)]
            mean = [torch.stack(level).mean(0) for level in zip(*maps, strict=True)]
            torch.testing.assert_close(trained.head(ours.fuse([mean])), trained(x), atol=1e-4, rtol=1e-4)


def test_random_weights_are_named_and_follow_the_seed(splits):
    one, same, other = (open_backbone("timm:resnet10t@random", splits, seed=s) for s in (0, 0, 1))
    assert one.sha256 == same.sha256 != other.sha256
    assert one.note.startswith("RANDOM WEIGHTS")


def test_unknown_names_list_the_known():
    for text, says in (
        ("timm:resnet10t.nonsense", "resnet10t.c3_in1k"),
        ("timm:resnet10t", "timm:resnet10t.TAG"),
        ("timm:nobody", "timm has no weights"),
    ):
        with pytest.raises(ConfigError, match=says):
            backbone(text)
