"""Statistics per band, against numpy, with nodata left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosfm.contracts import CardError, DataError
from eosfm.statistics import BandStatistics, band_statistics


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (3000.0, 1000.0), (1e-3, 0.0), (1e-5, 2e-5), (1.0, 1e4), (10.0, -20.0)]
)
def test_against_numpy(scale: float, shift: float):
    x = shift + scale * np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
    got = band_statistics(torch.from_numpy(x))
    flat = x.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(got.mean, flat.mean(1), rtol=1e-6, atol=1e-8 * scale)
    np.testing.assert_allclose(got.std, flat.std(1), rtol=1e-6)


@given(st.integers(1, 5), st.sampled_from([torch.float32, torch.uint8, torch.int16, torch.float64]))
def test_how_the_images_are_grouped_makes_no_difference(size: int, dtype: torch.dtype):
    x = torch.randint(0, 200, (7, 2, 3, 4), generator=torch.Generator().manual_seed(size)).to(dtype)
    assert band_statistics(x) == band_statistics(x[i : i + size] for i in range(0, 7, size))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_pixels_that_are_not_finite_are_left_out(bad: float):
    x = torch.tensor([[[1.0, 3.0, bad, bad]], [[5.0, bad, 5.0, 9.0]]])
    got = band_statistics([x.view(2, 1, 4)])
    assert got.mean == (2.0, pytest.approx(19 / 3))
    assert got.std[0] == 1.0


def test_a_constant_band_gets_std_1_and_a_nearly_constant_one_keeps_its_own():
    x = torch.stack([torch.full((4, 4), 7.0), 7.0 + 1e-3 * torch.arange(16.0).view(4, 4)])
    got = band_statistics([x])
    assert got.std[0] == 1.0
    assert 0.004 < got.std[1] < 0.005


def test_no_images_and_no_valid_pixel_are_errors():
    with pytest.raises(DataError, match="empty data set"):
        band_statistics([])
    with pytest.raises(DataError, match="channel 1 has no valid pixel"):
        band_statistics([torch.stack([torch.ones(2, 2), torch.full((2, 2), float("nan"))])])


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((1.0,), (0.0,)),
        ((1.0,), (-1.0,)),
        ((1.0,), (float("nan"),)),
        ((1.0,), (float("inf"),)),
        ((float("nan"),), (1.0,)),
        ((float("-inf"),), (1.0,)),
        ((1.0, 1.0), (1.0,)),
        ((), (1.0,)),
    ],
)
def test_impossible_statistics_are_refused(mean: tuple[float, ...], std: tuple[float, ...]):
    with pytest.raises(CardError, match="statistics"):
        BandStatistics(mean=mean, std=std)


def test_a_wrong_number_of_channels_is_refused():
    s = BandStatistics(mean=(1.0, 2.0), std=(1.0, 1.0))
    assert s.require_channels(2, "x") is s
    with pytest.raises(CardError, match="x: statistics of 2 channels for 3 bands"):
        s.require_channels(3, "x")
