"""Units: every conversion against numbers worked out by hand, and refusal of everything that would be a guess."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosfm.contracts import UnitError
from eosfm.units import MIN_LINEAR_POWER, Quantity, Unit, affine, convert, convertible, parse_unit

REFLECTANCE = [u for u in Unit if u.quantity is Quantity.REFLECTANCE]
PAIRS = [(a, b) for a, b in itertools.product(Unit, Unit)]

BY_HAND = [
    # Sentinel-2: reflectance = (dn + offset) / 10000, offset -1000 since baseline 04.00
    (Unit.DN_1E4, Unit.REFLECTANCE, 1234.0, 0.1234),
    (Unit.DN_1E4, Unit.DN_1E4_OFFSET, 0.0, 1000.0),
    (Unit.DN_1E4, Unit.DN_LANDSAT_C2, 3000.0, 18181.8182),
    (Unit.DN_1E4_OFFSET, Unit.REFLECTANCE, 1000.0, 0.0),
    (Unit.DN_1E4_OFFSET, Unit.REFLECTANCE, 11000.0, 1.0),
    (Unit.DN_1E4_OFFSET, Unit.REFLECTANCE, 0.0, -0.1),
    (Unit.DN_1E4_OFFSET, Unit.DN_1E4, 2234.0, 1234.0),
    (Unit.DN_1E4_OFFSET, Unit.DN_LANDSAT_C2, 1000.0, 7272.7273),
    (Unit.REFLECTANCE, Unit.DN_1E4, 0.25, 2500.0),
    (Unit.REFLECTANCE, Unit.DN_1E4_OFFSET, 0.25, 3500.0),
    # Landsat Collection 2 Level 2: reflectance = 0.0000275 * dn - 0.2
    (Unit.DN_LANDSAT_C2, Unit.REFLECTANCE, 10000.0, 0.075),
    (Unit.DN_LANDSAT_C2, Unit.DN_1E4, 20000.0, 3500.0),
    (Unit.DN_LANDSAT_C2, Unit.DN_1E4_OFFSET, 20000.0, 4500.0),
    (Unit.REFLECTANCE, Unit.DN_LANDSAT_C2, 0.35, 20000.0),
    # radar: dB = 10 log10(power)
    (Unit.LINEAR, Unit.DB, 1.0, 0.0),
    (Unit.LINEAR, Unit.DB, 0.01, -20.0),
    (Unit.LINEAR, Unit.DB, 0.5, -3.0103),
    (Unit.DB, Unit.LINEAR, -10.0, 0.1),
    (Unit.DB, Unit.LINEAR, 3.0103, 2.0),
]


@pytest.mark.parametrize(("source", "target", "value", "expected"), BY_HAND)
def test_conversion_by_hand(source: Unit, target: Unit, value: float, expected: float):
    out = convert(torch.tensor([value], dtype=torch.float64), source, target)
    assert out.item() == pytest.approx(expected, abs=1e-4, rel=1e-6)


def test_every_convertible_pair_is_checked_by_hand():
    checked = {(a, b) for a, b, _, _ in BY_HAND}
    assert checked == {(a, b) for a, b in PAIRS if a is not b and convertible(a, b)}


@pytest.mark.parametrize(("source", "target"), [(a, b) for a, b in PAIRS if a.quantity is not b.quantity])
def test_other_quantities_never_convert(source: Unit, target: Unit):
    assert not convertible(source, target)
    with pytest.raises(UnitError, match=f"{source} .* cannot be converted to {target}"):
        convert(torch.ones(1), source, target)
    with pytest.raises(UnitError):
        affine(source, target)


@pytest.mark.parametrize("unit", list(Unit))
def test_the_same_unit_changes_nothing(unit: Unit):
    x = torch.tensor([float("nan"), -3.0, 0.0, 1e9])
    assert convert(x, unit, unit) is x


@given(value=st.floats(-0.2, 1.5), through=st.sampled_from(REFLECTANCE), start=st.sampled_from(REFLECTANCE))
def test_reflectance_round_trips(value: float, start: Unit, through: Unit):
    x = convert(torch.tensor([value], dtype=torch.float64), Unit.REFLECTANCE, start)
    back = convert(convert(x, start, through), through, start)
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-7)


@given(st.floats(-59.0, 30.0))
def test_db_round_trips(db: float):
    x = torch.tensor([db], dtype=torch.float64)
    torch.testing.assert_close(convert(convert(x, Unit.DB, Unit.LINEAR), Unit.LINEAR, Unit.DB), x, rtol=0, atol=1e-9)


@given(st.floats(-59.0, 20.0))
def test_db_in_single_precision_is_off_by_less_than_a_millibel(db: float):
    x = torch.tensor([db])
    back = convert(convert(x, Unit.DB, Unit.LINEAR), Unit.LINEAR, Unit.DB)
    assert abs(back.item() - db) < 1e-3


@pytest.mark.parametrize("power", [0.0, -1.0, MIN_LINEAR_POWER / 10, MIN_LINEAR_POWER])
def test_power_under_the_floor_is_minus_60_db_and_not_minus_infinity(power: float):
    assert convert(torch.tensor([power]), Unit.LINEAR, Unit.DB).item() == pytest.approx(-60.0, abs=1e-4)


@pytest.mark.parametrize(("source", "target"), [(a, b) for a, b in PAIRS if convertible(a, b)])
def test_nan_stays_nan_and_the_shape_stays(source: Unit, target: Unit):
    x = torch.full((2, 3, 4), float("nan"))
    out = convert(x, source, target)
    assert out.shape == x.shape
    assert out.isnan().all()


def test_affine_says_what_convert_does():
    for a, b in itertools.product(REFLECTANCE, REFLECTANCE):
        scale, offset = affine(a, b) or (math.nan, math.nan)
        x = torch.tensor([1234.0], dtype=torch.float64)
        torch.testing.assert_close(x * scale + offset, convert(x, a, b), rtol=1e-12, atol=1e-9)
    assert affine(Unit.LINEAR, Unit.DB) is None
    assert affine(Unit.DN_1E4_OFFSET, Unit.DN_1E4) == (1.0, -1000.0)


def test_units_are_parsed_in_any_case_and_unknown_ones_list_the_known():
    assert parse_unit(" DN-1e4 ") is Unit.DN_1E4
    with pytest.raises(UnitError, match=r"known: 8bit, db, .*reflectance"):
        parse_unit("toa")


@pytest.mark.parametrize("unit", list(Unit))
def test_every_unit_has_a_quantity_and_a_plausible_range(unit: Unit):
    low, high = unit.plausible
    assert low < high
    assert isinstance(unit.quantity, Quantity)
