"""TorchGeo's weights as baselines: its own features from its own files, its own normalisation, nothing unpickled."""

from __future__ import annotations

import os
from functools import cache

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.readings import Name, choose
from eosfm.contracts import BandError, ConfigError
from eosfm.statistics import BandStatistics

torchgeo_models = pytest.importorskip("torchgeo.models")
from eosfm.benchmark.named import torchgeo_models as named  # noqa: E402
from eosfm.benchmark.named.torchgeo_readings import AnyBands  # noqa: E402

S2 = BandSet.parse("sentinel-2-l1c:all@dn-1e4")
RESNET, SATLAS = "ResNet18_Weights.SENTINEL2_ALL_MOCO", "ResNet50_Weights.SENTINEL2_SI_MS_SATLAS"
CROMA, DOFA = "CROMABase_Weights.CROMA_VIT", "DOFABase16_Weights.DOFA_MAE"


def statistics(n: int) -> BandStatistics:
    return BandStatistics(mean=tuple(1000.0 + 10 * i for i in range(n)), std=tuple(400.0 + i for i in range(n)))


def pixels(n: int, size: int = 64) -> torch.Tensor:
    return torch.rand(2, n, size, size, generator=torch.Generator().manual_seed(0)) * 4000


def backbone(text: str, bands: BandSet = S2, own: BandStatistics | None = None) -> Backbone:
    name, own = Name.parse(text), own or statistics(len(bands))
    built = named.build(name, bands, own, (64, 64), 0)
    return Backbone(name, built, choose(name, [built.reading], bands, own)[1], (64, 64), 0, bands)


@cache
def table() -> dict[str, named.Entry]:
    return named.entries()


def reading(model: str, bands: BandSet = S2) -> tuple[tuple[float, ...], tuple[float, ...]]:
    plan = choose(
        Name.parse(f"torchgeo:{model}"), named.readings(table()[model], bands), bands, statistics(len(bands))
    )[1]
    return plan.mean, plan.std


def fetched(monkeypatch, tmp_path, state: object) -> None:
    """``state`` where torch.hub keeps what it fetched of `RESNET`."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / table()[RESNET].weights.url.rsplit("/", 1)[-1])


def test_features_are_torchgeos_from_the_file_it_would_read(monkeypatch, tmp_path):
    torch.manual_seed(1)
    whole = torchgeo_models.resnet18(in_chans=13).eval()
    fetched(monkeypatch, tmp_path, whole.state_dict())
    x, bands = pixels(13), BandSet.parse("sentinel-2-l2a:all@reflectance + sentinel-2-l1c:B10@reflectance")
    ours = backbone(f"torchgeo:{RESNET}", bands)
    order = [[b.name for b in bands].index(b.name) for b in S2]
    turned = torch.empty_like(x)
    turned[:, order] = x * 1e-4
    theirs = whole.forward_intermediates(x / 10000, indices=(1, 2, 3, 4), intermediates_only=True)
    for a, b in zip(ours(turned), theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert "RANDOM" not in ours.note


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/eosfm-was-here",)


@pytest.mark.parametrize(
    ("state", "says"),
    [({"conv1.weight": Hostile()}, "could not be had"), ({"a": torch.ones(1)}, "not of this network")],
)
def test_a_file_that_would_run_code_or_is_of_another_network_is_refused(monkeypatch, tmp_path, state, says):
    fetched(monkeypatch, tmp_path, state)
    with pytest.raises(ConfigError, match=says):
        backbone(f"torchgeo:{RESNET}")
    assert not os.path.exists("/tmp/eosfm-was-here")


def test_without_a_network_the_address_and_the_place_are_said(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def nothing(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", nothing)
    with pytest.raises(ConfigError, match=r"fetch https://\S+59bfdff9\.pth - and put it at .*checkpoints"):
        backbone(f"torchgeo:{RESNET}")


def test_normalisation_is_that_of_the_weights_transforms():
    assert reading(RESNET) == ((0.0,) * 13, (10000.0,) * 13)
    mean, std = reading("ViTSmall14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON")
    assert mean[:2] == pytest.approx((1612.9, 1397.6)) and std[-1] == pytest.approx(1142.9)
    sar = BandSet.parse("sentinel-1:VH,VV@linear")
    assert reading("ViTSmall16_Weights.SENTINEL1_GRD_MAE", sar)[0] == pytest.approx((-12.59, -20.26))
    gassl = reading("ResNet50_Weights.FMOW_RGB_GASSL", BandSet.parse("rgb:B,G,R@8bit"))
    assert gassl[0] == pytest.approx((123.675, 116.28, 103.53), rel=1e-4) and gassl[1][0] == pytest.approx(
        58.395, rel=1e-4
    )
    assert reading(SATLAS)[1] == (3558.0,) * 3 + (8160.0,) * 6


@pytest.mark.parametrize(
    ("model", "bands", "says"),
    [
        (RESNET, "sentinel-2-l2a:all@dn-1e4", "needs sentinel-2:B10"),
        (RESNET, "sentinel-2-l1c:all@8bit", "8bit does not convert"),
        ("ViTSmall16_Weights.SENTINEL1_GRD_MAE", "sentinel-2-l1c:all@dn-1e4", "needs sentinel-1:VV"),
        ("ResNet18_Weights.LANDSAT_OLI_TIRS_TOA_MOCO", "landsat-8:all@reflectance", "wants B1, .*unknown band 'B10'"),
        (DOFA, "rgb:R,G,B@8bit", "can be told nothing"),
        ("CopernicusFM_Base_Weights.CopernicusFM_ViT", "naip:all@8bit", "can be told nothing"),
        (CROMA, "sentinel-2-l2a:B02,B03,B04@dn-1e4", "needs sentinel-2:B01"),
    ],
)  # fmt: skip
def test_bands_or_units_that_do_not_fit_are_refused_with_the_reason(model, bands, says):
    have = BandSet.parse(bands)
    with pytest.raises(BandError, match=says):
        choose(Name.parse(f"torchgeo:{model}"), named.readings(table()[model], have), have, statistics(len(have)))


def test_croma_reads_what_is_there():
    for text, kind in (("sentinel-2-l2a:all@dn-1e4", "optical"), ("sentinel-1:VV,VH@db", "sar"),
                       ("sentinel-2-l1c:all@dn-1e4 + sentinel-1:VV,VH@db", "joint")):  # fmt: skip
        have = BandSet.parse(text)
        found, plan = choose(
            Name.parse(f"torchgeo:{CROMA}"), named.readings(table()[CROMA], have), have, statistics(len(have))
        )
        assert found.kind == kind
        own = statistics(len(have))
        assert plan.std == tuple(4 * own.std[i] for i in plan.index) and found.clip == (-0.5, 0.5)


def test_dofa_takes_the_bands_it_can_be_told_and_their_order_does_not_matter():
    bands = BandSet.parse("sentinel-2-l2a:B02,B04,B11@dn-1e4 + sentinel-1:VV@db + elevation:elevation@metre")
    own, x, order = statistics(5), pixels(5), [2, 0, 3, 1, 4]
    ours = backbone(f"torchgeo:{DOFA}@random", bands, own)
    assert AnyBands.of("dofa", ours.reading.bands).wavelengths == (0.492, 0.665, 1.614, 5.405)
    assert "elevation left out" in ours.note and "own mean and std" in ours.note
    turned = BandSet(tuple(bands[i] for i in order))
    other = BandStatistics(mean=tuple(own.mean[i] for i in order), std=tuple(own.std[i] for i in order))
    again = backbone(f"torchgeo:{DOFA}@random", turned, other)
    assert again.sha256 == ours.sha256
    for a, b in zip(ours(x), again(x[:, order]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_blocks_are_what_the_network_computes_on():
    """The last of them, normed and averaged, is the network's own feature vector."""
    ours = backbone("torchgeo:ViTSmall16_Weights.SENTINEL1_GRD_MAE@random", BandSet.parse("sentinel-1:VV,VH@db"))
    network, x = ours.body.network[0], torch.rand(1, 2, 224, 224)
    last = ours.body.maps(x)[-1]
    theirs = network.forward_features(x)[:, 1:]
    torch.testing.assert_close(network.norm(last.flatten(2).transpose(1, 2)), theirs, atol=1e-4, rtol=1e-4)


def test_unknown_weights_list_some_that_are_there():
    with pytest.raises(ConfigError, match="among others ResNet18_Weights"):
        backbone("torchgeo:ResNet18_Weights.NOBODY")
