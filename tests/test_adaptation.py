"""Adaptation: views by name, in the specialist's units and statistics, whatever order and unit the input comes in."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosfm.adaptation import AdaptationPlan, adapt, plan_views, require_readable
from eosfm.bands import BandSet
from eosfm.contracts import BandError
from eosfm.rules import DEFAULT_RULES
from eosfm.statistics import BandStatistics
from eosfm.units import Unit
from helpers import image, in_unit, make_card, statistics_of

ALL_RULES = (*DEFAULT_RULES, "vv-vh-vv", "nearest-wavelength:60")

SPECIALISTS = [
    "rgb:R,G,B@8bit",
    "sentinel-2-l2a:B04,B03,B02@reflectance",
    "sentinel-2-l2a:B08,B04,B03@dn-1e4",
    "sentinel-1:VV,VH,VH@db",
    "sentinel-1:VV,VH@linear",
    "sentinel-1:VV,VH@db + sentinel-2-l1c:B02,B03,B04,B11@dn-1e4",
    "sentinel-2-l1c:B04,B11,B05@dn-1e4",
    "landsat-8:red,nir,swir1@dn-landsat-c2",
    "elevation:dem@metre",
]
POOL = BandSet.parse(
    "sentinel-2-l2a:all@dn-1e4-offset-1000 + sentinel-1:VV,VH@linear + landsat-8:B2,B3,B4,B5,B6@dn-landsat-c2"
    " + hls:all@reflectance + sar-x:VV,VH@db + naip:all@8bit + elevation:dem@metre"
)


def view_of(wanted: str, available: BandSet, rules=ALL_RULES) -> dict[str, AdaptationPlan]:
    w = BandSet.parse(wanted)
    found, _ = plan_views("s", w, statistics_of(w), available, statistics_of(available), rules)
    return {p.name: p for p in found}


@given(
    st.lists(st.sampled_from(range(len(POOL))), min_size=1, max_size=14, unique=True),
    st.sampled_from(SPECIALISTS),
    st.randoms(use_true_random=False),
)
def test_views_do_not_depend_on_the_order_of_the_input(chosen: list[int], wanted: str, random):
    shuffled = chosen.copy()
    random.shuffle(shuffled)
    one, other = (BandSet(tuple(POOL[i] for i in order)) for order in (chosen, shuffled))
    a, b = view_of(wanted, one), view_of(wanted, other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].bands == b[name].bands
        assert [one[i] for i in a[name].index] == [other[i] for i in b[name].index]
        assert torch.equal(adapt(image(one, 1, 2), a[name]), adapt(image(other, 1, 2), b[name]))


@given(st.permutations(range(12)))
def test_a_specialist_of_all_bands_reads_them_in_its_own_order(order: list[int]):
    wanted = "sentinel-2-l2a:all@dn-1e4"
    full = BandSet.parse(wanted)
    (plan,) = view_of(wanted, BandSet(tuple(full[i] for i in order)), DEFAULT_RULES).values()
    assert [order[i] for i in plan.index] == list(range(12))


TO_NUMPY = {
    Unit.REFLECTANCE: lambda v: v,
    Unit.DN_1E4: lambda v: v / 1e4,
    Unit.DN_1E4_OFFSET: lambda v: (v - 1000) / 1e4,
    Unit.DN_LANDSAT_C2: lambda v: 0.0000275 * v - 0.2,
    Unit.DB: lambda v: v,
    Unit.LINEAR: lambda v: 10 * np.log10(v),
    Unit.EIGHT_BIT: lambda v: v,
    Unit.METRE: lambda v: v,
}
"""to reflectance, dB, brightness or metres"""


@pytest.mark.parametrize("wanted", SPECIALISTS)
def test_adapt_against_a_slow_reference(wanted: str):
    x = image(POOL, 1, 3)
    for plan in view_of(wanted, POOL).values():
        z = adapt(x, plan)
        for j, (i, (source, target)) in enumerate(zip(plan.index, plan.convert, strict=True)):
            assert POOL[i].unit is source
            value = TO_NUMPY[source](x[:, i].double().numpy())
            if source is not target:  # back from the common unit to the specialist's
                at0, at1 = TO_NUMPY[target](np.array([1.0, 2.0]))
                value = 10 ** (value / 10) if target is Unit.LINEAR else 1 + (value - at0) / (at1 - at0)
            else:
                value = x[:, i].double().numpy()
            expected = (value - plan.mean[j]) / plan.std[j]
            np.testing.assert_allclose(z[:, j].numpy(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("unit", [Unit.REFLECTANCE, Unit.DN_1E4, Unit.DN_1E4_OFFSET, Unit.DN_LANDSAT_C2])
@pytest.mark.parametrize("wanted", ["sentinel-2-l2a:B04,B03,B02@reflectance", "sentinel-2-l2a:B04,B03,B02@dn-1e4"])
def test_the_declared_unit_of_the_input_makes_no_difference(unit: Unit, wanted: str):
    from eosfm.units import convert

    as_reflectance = BandSet.parse("sentinel-2-l2a:B02,B03,B04,B08@reflectance")
    declared = in_unit(as_reflectance, unit)
    x = image(as_reflectance, 2, 8)
    expected, got = view_of(wanted, as_reflectance), view_of(wanted, declared)
    assert expected.keys() == got.keys()
    for name in expected:
        y = adapt(convert(x, Unit.REFLECTANCE, unit), got[name])
        torch.testing.assert_close(y, adapt(x, expected[name]), rtol=0, atol=1e-4)


def test_linear_and_db_inputs_give_one_view():
    db, linear = BandSet.parse("sentinel-1:VH,VV@db"), BandSet.parse("sentinel-1:VH,VV@linear")
    x = image(db, 1, 8)
    for wanted in ("sentinel-1:VV,VH,VH@db", "sentinel-1:VV,VH@linear"):
        for name, plan in view_of(wanted, db).items():
            y = adapt(10 ** (x / 10), view_of(wanted, linear)[name])
            torch.testing.assert_close(y, adapt(x, plan), rtol=1e-4, atol=1e-4)


def test_the_same_quantity_uses_the_specialist_s_statistics_after_conversion():
    wanted, available = (
        BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance"),
        BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4"),
    )
    own = BandStatistics(mean=(9.0, 9.0, 9.0), std=(9.0, 9.0, 9.0))
    (plan,), _ = plan_views("s", wanted, BandStatistics(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)), available, own)
    assert (plan.normalise, plan.mean, plan.std) == ("specialist", (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    z = adapt(torch.tensor([1000.0, 2000.0, 4000.0]).view(1, 3, 1, 1), plan)
    torch.testing.assert_close(z.flatten(), torch.tensor([(0.4 - 0.1) / 0.5, 0.0, (0.1 - 0.3) / 2.0]))


def test_another_modality_uses_the_input_s_statistics_per_band():
    wanted, available = BandSet.parse("rgb:R,G,B@8bit"), BandSet.parse("sentinel-1:VH,VV@db")
    own = BandStatistics(mean=(-20.0, -10.0), std=(4.0, 5.0))
    (plan,), _ = plan_views("s", wanted, statistics_of(wanted), available, own)
    assert (plan.normalise, plan.mean, plan.std) == ("input", (-10.0, -20.0, -20.0), (5.0, 4.0, 4.0))
    assert plan.convert == ((Unit.DB, Unit.DB),) * 3
    z = adapt(torch.tensor([-20.0, 0.0]).view(1, 2, 1, 1), plan)
    assert z.flatten().tolist() == [2.0, 0.0, 0.0]
    assert "sar into a specialist trained on optical" in plan.note


def test_an_inconvertible_unit_uses_the_input_s_statistics():
    wanted, available = BandSet.parse("rgb:R,G,B@8bit"), BandSet.parse("sentinel-2-l2a:B02,B03,B04@reflectance")
    own = BandStatistics(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    (plan,), _ = plan_views("s", wanted, statistics_of(wanted), available, own)
    assert (plan.normalise, plan.mean) == ("input", (0.3, 0.2, 0.1))
    assert "reflectance does not convert to the specialist's 8bit" in plan.note


@pytest.mark.parametrize(
    ("wanted", "available", "why"),
    [
        ("rgb:R,G,B@8bit", "sentinel-1:VV,VH@db", "sar into a specialist trained on optical"),
        ("rgb:R,G,B@8bit", "naip:R,G,B@reflectance", "reflectance does not convert to the specialist's 8bit"),
        ("sentinel-1:VV,VH,VH@db", "sentinel-2-l2a:B04,B03,B02@dn-1e4", "optical into a specialist trained on sar"),
        ("sentinel-1:VV,VH,VH@db", "sentinel-1:VV,VH@8bit", "8bit does not convert to the specialist's db"),
    ],
)
def test_without_statistics_of_the_input_such_views_are_skipped_and_say_so(wanted: str, available: str, why: str):
    w = BandSet.parse(wanted)
    found, reason = plan_views("s", w, statistics_of(w), BandSet.parse(available), None)
    assert found == []
    assert f"{why}, so the input's own statistics are needed and none are declared" in reason


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("unit", ["db", "linear"])
def test_pixels_that_are_not_finite_become_the_mean_and_touch_nothing_else(bad: float, unit: str):
    bands = BandSet.parse(f"sentinel-1:VV,VH@{unit}")
    (plan,) = view_of("sentinel-1:VV,VH@db", bands, ["subset"]).values()
    x = image(bands, 1, 4)
    expected = adapt(x, plan)
    x[0, 0, 1, 2] = bad
    z = adapt(x, plan)
    clipped = unit == "linear" and bad == float("-inf")  # power below zero is -60 dB, as `convert` says
    expected[0, 0, 1, 2] = (-60 - plan.mean[0]) / plan.std[0] if clipped else 0
    torch.testing.assert_close(z, expected)


def test_adapt_does_not_change_its_input():
    x = image(POOL, 1, 4)
    before = x.clone()
    for wanted in SPECIALISTS:
        for plan in view_of(wanted, POOL).values():
            adapt(x, plan)
    assert torch.equal(x, before)


def test_adapt_keeps_precision_and_shape():
    plan = view_of("sentinel-1:VV,VH,VH@db", POOL, ["subset"])["s/subset"]
    z = adapt(image(POOL, 3, (5, 7)).double(), plan)
    assert (z.shape, z.dtype) == ((3, 3, 5, 7), torch.float64)


def test_an_input_with_a_band_twice_is_refused():
    bands = BandSet.parse("sentinel-2-l1c:B04@dn-1e4 + sentinel-2-l2a:B04,B03,B02@dn-1e4")
    with pytest.raises(BandError, match="duplicate band sentinel-2:B04"):
        view_of("rgb:R,G,B@8bit", bands)


def test_a_plan_is_plain_data_that_compares_and_cannot_change():
    (plan,) = view_of(SPECIALISTS[1], BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4"), ["subset"]).values()
    (again,) = view_of(SPECIALISTS[1], BandSet.parse("sentinel-2-l2a:B02,B03,B04@dn-1e4"), ["subset"]).values()
    assert plan == again
    assert hash(plan) == hash(again)
    assert plan.name == "s/subset"
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.index = (0, 1, 2)  # type: ignore[misc]


def test_nothing_readable_lists_every_reason():
    require_readable([object()], [])
    with pytest.raises(BandError, match="no specialist can read this input:\n  a: x\n  b: y"):
        require_readable([], ["a: x", "b: y"])


def test_a_reason_is_given_even_where_no_rule_has_one():
    card = make_card("s", "elevation:dem@metre")
    found, reason = plan_views("s", card.bandset(), card.statistics, BandSet.parse("sentinel-1:VV@db"), None, [])
    assert found == []
    assert "no rule reads elevation:elevation@metre from sentinel-1:VV@db" in reason


def test_planning_needs_no_torch():
    code = "import sys, eosfm.adaptation, eosfm.rules, eosfm.specialists.zoo; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
