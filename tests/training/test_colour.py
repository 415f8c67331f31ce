"""Colours change where there are colours: optical bands, valid pixels, training images; alike in every unit and replay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import ConfigError
from eosfm.data.chips import Chips
from eosfm.engine.cache import Features
from eosfm.training.batches import loader
from eosfm.training.colour import Colour, optical_channels, recoloured
from eosfm.training.fit import adapt_ensemble, train_specialist
from eosfm.training.settings import FitConfig
from eosfm.training.unlabelled import Unlabelled
from eosfm.units import Unit, convert
from helpers import image, in_unit

ALL = Colour(0.3, 0.4, 0.2)
MIXED = BandSet.parse(
    "sentinel-1:VV,VH@db + sentinel-2-l2a:B04,B03@dn-1e4-offset-1000 + elevation:elevation@metre + naip:R@8bit"
)
OPTICAL = [2, 3, 5]
OTHERS = [0, 1, 4]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_gaps(bands: BandSet = MIXED, n: int = 3) -> Tensor:
    x = image(bands, n, 16)
    x[0, :, :4] = torch.nan
    x[1, 2, 5, 5], x[1, 0, 6, 6], x[1, 3, 7, 7] = torch.inf, -torch.inf, -torch.inf
    x[2, 3] = torch.nan
    return x


def slow(x: Tensor, bands: BandSet, colour: Colour, g: torch.Generator) -> Tensor:
    """The rule image by image and pixel by pixel, from the same draws."""
    optical = [i for i, b in enumerate(bands) if b.modality == "optical"]
    n = len(x)
    contrast, brightness = torch.rand(n, 1, 1, 1, generator=g), torch.rand(n, 1, 1, 1, generator=g)
    gains = torch.rand(n, len(optical), 1, 1, generator=g)
    out = x.clone()
    for i in range(n):
        c = 1 + colour.contrast * (2 * float(contrast[i]) - 1)
        b = 1 + colour.brightness * (2 * float(brightness[i]) - 1)
        for k, channel in enumerate(optical):
            gain = b * (1 + colour.band_gain * (2 * float(gains[i, k]) - 1))
            zero = 1000.0 if bands[channel].unit is Unit.DN_1E4_OFFSET else 0.0
            values = [float(v) for v in x[i, channel].flatten() if v.isfinite()]
            mean = sum(values) / len(values) if values else 0.0
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    v = float(x[i, channel, row, column])
                    if torch.isfinite(torch.tensor(v)):
                        out[i, channel, row, column] = zero + gain * (mean + c * (v - mean) - zero)
    return out


@pytest.mark.parametrize("colour", [ALL, Colour(brightness=0.5), Colour(contrast=0.5), Colour(band_gain=0.5)])
def test_it_is_the_rule(colour: Colour):
    x = with_gaps()
    torch.testing.assert_close(
        recoloured(x, MIXED, colour, generator(4)), slow(x, MIXED, colour, generator(4)),
        rtol=1e-5, atol=1e-3, equal_nan=True,
    )  # fmt: skip


def test_radar_elevation_and_nodata_stay_to_the_last_bit():
    x = with_gaps()
    before = x.clone()
    y = recoloured(x, MIXED, ALL, generator())
    assert torch.equal(x.view(torch.int32), before.view(torch.int32)), "the source's own image"
    assert torch.equal(y[:, OTHERS].view(torch.int32), x[:, OTHERS].view(torch.int32))
    gaps = ~x.isfinite()
    assert torch.equal(~y.isfinite(), gaps) and torch.equal(y[gaps].view(torch.int32), x[gaps].view(torch.int32))
    assert (y[:, OPTICAL][x[:, OPTICAL].isfinite()] != x[:, OPTICAL][x[:, OPTICAL].isfinite()]).float().mean() > 0.99


def test_brightness_is_one_gain_an_image_and_band_gain_one_a_band():
    bands = BandSet.parse("sentinel-2-l2a:B02,B03,B04@reflectance")
    x = 0.1 + image(bands, 64, 8)
    ratio = recoloured(x, bands, Colour(brightness=0.3), generator()) / x
    assert torch.allclose(ratio, ratio[:, :1, :1, :1], rtol=1e-5)
    assert 0.7 <= ratio.min() < 0.75 and 1.25 < ratio.max() <= 1.3
    ratio = recoloured(x, bands, Colour(band_gain=0.3), generator()) / x
    assert torch.allclose(ratio, ratio[:, :, :1, :1], rtol=1e-5)
    assert (ratio[:, 0, 0, 0] - ratio[:, 1, 0, 0]).abs().max() > 0.2
    y = recoloured(x, bands, Colour(contrast=0.3), generator())
    torch.testing.assert_close(y.mean((2, 3)), x.mean((2, 3)))
    spread = y.std((2, 3)) / x.std((2, 3))
    assert torch.allclose(spread, spread[:, :1], rtol=1e-4) and 0.7 <= spread.min() < 0.75


@pytest.mark.parametrize("unit", [Unit.DN_1E4, Unit.DN_1E4_OFFSET, Unit.DN_LANDSAT_C2])
def test_it_is_the_same_light_in_every_unit(unit: Unit):
    bands = BandSet.parse("landsat-8:all@reflectance")
    other = in_unit(bands, unit)
    x = image(bands, 2, 16)
    y = recoloured(convert(x, Unit.REFLECTANCE, unit), other, ALL, generator(2))
    torch.testing.assert_close(convert(y, unit, Unit.REFLECTANCE), recoloured(x, bands, ALL, generator(2)))


def test_two_dates_have_colours_of_their_own():
    x = with_gaps()
    both = recoloured(torch.cat([x, x], 1), MIXED, ALL, generator())
    first, second = both.chunk(2, dim=1)
    assert torch.equal(first[:, OTHERS].nan_to_num(), second[:, OTHERS].nan_to_num())
    assert not torch.allclose(first[0, 2].nan_to_num(), second[0, 2].nan_to_num())


@pytest.mark.parametrize("bands", ["sentinel-1:VV,VH@db", "elevation:elevation@metre", "sar:VV,VV@8bit"])
def test_without_an_optical_band_it_is_an_error(bands: str):
    b = BandSet.parse(bands)
    with pytest.raises(ConfigError, match=r"change optical bands, and .* has none"):
        recoloured(image(b, 1, 8), b, ALL, generator())
    with pytest.raises(ConfigError, match="has none; set them to 0"):
        loader(chips(b), 2, 0, train=True, colour=ALL)
    assert optical_channels(MIXED) == OPTICAL


# ---- in a training ----


def chips(bands: BandSet = MIXED, n: int = 7) -> Chips:
    return Chips(image(bands, n, 8), torch.zeros(n, dtype=torch.long), bands, "classification", ("a", "b"), "tiny")


def epoch_of(epoch: int, seed: int = 0, source=None, **options) -> Tensor:
    batches = loader(source or chips(), 3, seed, **options)
    batches.sampler.set_epoch(epoch)
    return torch.cat([x for x, _ in batches])


def test_an_epoch_replays_and_another_one_differs():
    a, b = (epoch_of(2, train=True, colour=ALL) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, epoch_of(2, seed=1, train=True, colour=ALL))
    same_order = [epoch_of(2, train=True), epoch_of(2, train=True, colour=ALL)]
    assert torch.equal(same_order[0][:, OTHERS], same_order[1][:, OTHERS])
    moved = [epoch_of(2, train=True, augment=True, zoom=0.2, colour=c) for c in (Colour(), ALL)]
    assert torch.equal(moved[0][:, OTHERS], moved[1][:, OTHERS]), "flips and crops are drawn as without it"
    assert not torch.equal(moved[0][:, OPTICAL], moved[1][:, OPTICAL])


def test_default_and_validation_are_left_alone():
    assert not Colour() and FitConfig().augmented == ()
    assert torch.equal(epoch_of(0, train=False, colour=ALL), chips().images)
    source = Unlabelled(chips())
    assert torch.equal(epoch_of(1, source=source, train=True), epoch_of(1, train=True))
    assert torch.equal(epoch_of(1, source=source, train=True, colour=ALL), epoch_of(1, train=True, colour=ALL))


def test_settings_say_what_is_wrong():
    for name in ("brightness", "contrast", "band_gain"):
        for value in (-0.1, 1.0):
            with pytest.raises(ValueError, match=f"{name} {value} is a share"):
                FitConfig(**{name: value})
    config = FitConfig(augment=True, zoom=0.1, brightness=0.1, contrast=0.1, band_gain=0.1, epochs=3)
    assert config.augmented == ("augment", "zoom", "brightness", "contrast", "band_gain")
    assert config.without_augmentation() == FitConfig(epochs=3)


def test_cached_features_have_no_colour():
    features = Features([[]], torch.zeros(2))
    with pytest.raises(ConfigError, match="these are cached features"):
        loader(features, 2, 0, train=True, colour=ALL)
    from eosfm.ensemble import Ensemble
    from eosfm.tasks.model import TaskSpec
    from helpers import TINY, make_specialist, statistics_of
    from training.test_fit import CONFIG, HLS, tiny

    data = tiny("burn-scars", HLS)
    ens = Ensemble([make_specialist("s2-rgb", TINY["s2-rgb"])], HLS, statistics=statistics_of(HLS))
    task = TaskSpec(kind="segmentation", classes=data.train.classes, chip_size=32)
    with pytest.raises(ConfigError, match=r"set cache: false, or leave out contrast"):
        adapt_ensemble(ens, data, task, replace(CONFIG, augment=False, contrast=0.2), cache=True)


def test_a_specialist_trains_with_it_and_the_result_depends_on_it(tmp_path):
    from eosfm.specialists.store import load_specialist
    from training.test_fit import CONFIG, HEAD, tiny

    config = replace(CONFIG, epochs=1)
    stored = {}
    for name, changes in (("plain", {}), ("one", {"brightness": 0.3}), ("again", {"brightness": 0.3})):
        train_specialist(tiny(), replace(config, **changes), tmp_path, name=name, head=HEAD)
        stored[name] = load_specialist(tmp_path / name)[1].weights.sha256
    assert stored["one"] == stored["again"] != stored["plain"]
