"""Names and units of a harness: declared by the user, checked against the data set's own statistics, never guessed."""

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.contracts import BandError, ConfigError, UnitError
from eosfm.outward.inputs import named_bands, require_consistent, require_plausible, statistics_of

S2 = {"s2": "sentinel-2-l1c@dn-1e4"}


def consistent(bands, mean, low=None, high=None):
    n = len(mean)
    require_consistent(
        BandSet.parse(bands), statistics_of(mean, [1.0] * n, "test"), low or [1.0] * n, high or [9999.0] * n
    )


def test_names_of_several_groups_in_channel_order():
    channels = [("s1", "vh"), ("s2", "red"), ("s2", "b8a"), ("s1", "vv")]
    named = named_bands(channels, {**S2, "s1": "sentinel-1@db"})
    assert str(named) == "sentinel-1:VH@db + sentinel-2-l1c:B04,B8A@dn-1e4 + sentinel-1:VV@db"


def test_rename_overrules_the_harness():
    named = named_bands([("s1", "vv"), ("s1", "vh")], {"s1": "sentinel-1@db"}, {"vv": "VH", "vh": "VV"})
    assert named.names == ("VH", "VV")


@pytest.mark.parametrize(
    ("channels", "inputs", "rename", "error", "repair"),
    [
        ([("s2", "red")], {}, None, BandError, r"inputs\.s2=SENSOR@UNIT"),
        ([("s2", "red")], {"s2": "sentinel-2-l1c"}, None, UnitError, "no unit declared"),
        ([("s2", "red")], {"s2": "sentinel-2-l1c@db"}, None, UnitError, "makes no sense"),
        ([("s2", "panchromatic")], S2, None, BandError, r"rename\.panchromatic=BAND"),
        ([("s2", "red")], S2, {"rot": "B04"}, BandError, "rename names rot"),
        ([("s2", "red"), ("s2", "b04")], S2, None, BandError, "duplicate band"),
    ],
)
def test_what_is_not_known_is_an_error_with_its_repair(channels, inputs, rename, error, repair):
    with pytest.raises(error, match=repair):
        named_bands(channels, inputs, rename)


@pytest.mark.parametrize(
    ("bands", "mean", "low", "high", "says"),
    [
        # torchgeo-bench 0.4.0: benv2, m-eurosat, m-brick-kiln, so2sat
        ("sentinel-1:VV,VH@db", [-19.361, -12.6317], None, None, "VV is the brighter one"),
        ("sentinel-2-l1c:B8A,B10@dn-1e4", [751.2, 1848.9], None, None, "B10@dn-1e4 has mean 1848.9, reflectance 0.18"),
        ("sentinel-2-l1c:B04,B11@dn-1e4", [807.6, 89.9], None, [5365.0, 255.0], "B11@dn-1e4 ends at 255"),
        ("sentinel-1:VV@linear", [0.2], [-107.6], None, "power is never negative"),
        ("sentinel-2-l2a:B04@dn-1e4", [0.11], None, None, "dn-1e4 lies within 20"),
        ("sentinel-2-l2a:B04@reflectance", [947.6], None, None, "reflectance lies within"),
    ],
)
def test_statistics_that_contradict_the_names(bands, mean, low, high, says):
    with pytest.raises(BandError, match=says) as e:
        consistent(bands, mean, low, high)
    assert "trust_names=true" in str(e.value) and "rename.NAME=BAND" in str(e.value)


@pytest.mark.parametrize(
    ("bands", "mean", "low", "high"),
    [
        ("sentinel-2-l1c:B04,B10,B8A@dn-1e4", [947.6, 12.1, 2594.1], None, [28000.0, 183.0, 28000.0]),  # eurosat
        ("sentinel-1:VH,VV@db", [-19.361, -12.6317], None, None),
        ("sentinel-1:VV@db", [-12.0], [-66.0], None),
        ("aerial:R,G,B@8bit", [113.1, 119.4, 116.3], None, [254.0, 255.0, 254.0]),
    ],
)
def test_statistics_that_agree(bands, mean, low, high):
    consistent(bands, mean, low, high)


def test_values_that_are_not_in_their_unit():
    bands = BandSet.parse("sentinel-2-l2a:B04,B03@reflectance")
    raw = torch.rand(2, 2, 8, 8) * 0.4
    require_plausible(raw, bands)
    require_plausible(raw.masked_fill(raw > 0.3, torch.nan), bands)
    with pytest.raises(UnitError, match=r"B03@reflectance.*normalised="):
        require_plausible(torch.stack([raw[:, 0], raw[:, 1] * 10000], 1), bands)


def test_statistics_say_whose_they_are():
    with pytest.raises(ConfigError, match="data_mean"):
        statistics_of(["a"], [1.0], "data_mean")
