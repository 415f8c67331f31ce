"""Rules: all that match fire, by name and never by position or count, and each that does not says why."""

from __future__ import annotations

import pytest

from eosfm.adaptation import AdaptationPlan, plan_views
from eosfm.bands import BandSet
from eosfm.contracts import AdaptationError
from eosfm.rules import DEFAULT_RULES, OPTIONAL_RULES, RULES, rules_named
from helpers import statistics_of


def plans(wanted: str, available: str, rules=DEFAULT_RULES) -> list[AdaptationPlan]:
    w, a = BandSet.parse(wanted), BandSet.parse(available)
    return plan_views("s", w, statistics_of(w), a, statistics_of(a), rules)[0]


def views(wanted: str, available: str, rules=DEFAULT_RULES) -> dict[str, tuple[str, ...]]:
    """rule -> names of the picked bands, after checking that index and names agree."""
    a = BandSet.parse(available)
    found = plans(wanted, available, rules)
    for p in found:
        assert p.bands == tuple(a[i].name for i in p.index)
    assert len({p.rule for p in found}) == len(found), "view names must be unique"
    return {p.rule: p.bands for p in found}


def reason(wanted: str, available: str, rules=DEFAULT_RULES) -> str:
    w, a = BandSet.parse(wanted), BandSet.parse(available)
    found, why = plan_views("s", w, statistics_of(w), a, statistics_of(a), rules)
    assert not found
    assert why
    return why


S2_RGB, RGB = "sentinel-2-l2a:B04,B03,B02@reflectance", "rgb:R,G,B@8bit"
S2_ALL, S1 = "sentinel-2-l2a:all@dn-1e4", "sentinel-1:VH,VV@db"
IRG = "sentinel-2-l2a:B08,B04,B03@reflectance"


def test_identity_hides_the_rules_that_pick_the_same_channels():
    assert views(S2_RGB, S2_RGB) == {"identity": ("B04", "B03", "B02")}


def test_subset_hides_true_colour():
    assert views(S2_RGB, S2_ALL) == {"subset": ("B04", "B03", "B02"), "infrared-red-green": ("B08", "B04", "B03")}


def test_the_paper_s_rules_all_fire_on_sentinel_1_and_2():
    assert views(RGB, f"{S2_ALL} + {S1}") == {
        "true-colour": ("B04", "B03", "B02"),
        "infrared-red-green": ("B08", "B04", "B03"),
        "vv-vh-vh": ("VV", "VH", "VH"),
    }


def test_a_sar_specialist_reads_optical_composites():
    assert views("sentinel-1:VV,VH,VH@db", f"{S2_ALL} + {S1}") == {
        "subset": ("VV", "VH", "VH"),
        "true-colour": ("B04", "B03", "B02"),
        "infrared-red-green": ("B08", "B04", "B03"),
    }


def test_an_infrared_specialist_reads_true_colour_too():
    assert views(IRG, S2_ALL) == {"subset": ("B08", "B04", "B03"), "true-colour": ("B04", "B03", "B02")}


def test_hls_narrow_infrared_stands_for_infrared():
    assert views(RGB, "hls:all@dn-1e4") == {
        "true-colour": ("RED", "GREEN", "BLUE"),
        "infrared-red-green": ("NIR_NARROW", "RED", "GREEN"),
    }


def test_broad_infrared_is_preferred_to_narrow_wherever_it_stands():
    for order in ("B8A,B08,B03,B04", "B04,B03,B08,B8A"):
        assert views(RGB, f"sentinel-2-l2a:{order}@dn-1e4") == {"infrared-red-green": ("B08", "B04", "B03")}


def test_vv_vh_vv_only_when_asked_for():
    assert "vv-vh-vv" not in DEFAULT_RULES
    assert [r.name for r in OPTIONAL_RULES] == ["vv-vh-vv", "single-sar"]
    assert views(RGB, S1) == {"vv-vh-vh": ("VV", "VH", "VH")}
    assert views(RGB, S1, [*DEFAULT_RULES, "vv-vh-vv"]) == {
        "vv-vh-vh": ("VV", "VH", "VH"),
        "vv-vh-vv": ("VV", "VH", "VV"),
    }


def test_one_polarisation_fills_a_composite_only_when_asked_for():
    alone = "sar-x:HH@8bit"
    assert views(RGB, alone) == {} and views(RGB, S1, [*DEFAULT_RULES, "single-sar"]) == views(RGB, S1)
    assert views(RGB, alone, ["single-sar"]) == {"single-sar": ("HH", "HH", "HH")}
    assert views("sar:VV,VV,VV@8bit", alone, ["single-sar"]) == {"single-sar": ("HH", "HH", "HH")}
    assert views("sar-x:HH,HH,HH@8bit", alone, ["subset", "single-sar"]) == {"subset": ("HH", "HH", "HH")}
    assert views("sentinel-1:VV,VH@db", alone, ["single-sar"]) == {}, "no composite of three"


def test_sar_polarisations_come_from_one_sensor():
    assert views(RGB, "sentinel-1:VH@db + sar-x:VV@db") == {}
    assert views(RGB, "sentinel-1:VH,VV@db + sar-x:VV,VH@db") == {
        "vv-vh-vh@sentinel-1": ("VV", "VH", "VH"),
        "vv-vh-vh@sar-x": ("VV", "VH", "VH"),
    }


def test_colours_come_from_one_sensor():
    assert views(RGB, "sentinel-2-l2a:B04,B03@dn-1e4 + landsat-8:blue@dn-1e4") == {}
    two = views(RGB, "sentinel-2-l2a:B02,B03,B04@dn-1e4 + landsat-8:B4,B3,B2@dn-1e4")
    assert two == {"true-colour@sentinel-2-l2a": ("B04", "B03", "B02"), "true-colour@landsat-8": ("B4", "B3", "B2")}


def test_horizontal_polarisation_does_not_stand_for_vertical():
    assert "no SAR VV, VH" in reason(RGB, "sentinel-1:HH,HV@db")


def test_the_channel_count_decides_nothing():
    three, two = "elevation:dem@metre + sentinel-2-l2a:B11,B12@dn-1e4", "sentinel-2-l2a:B11,B12@dn-1e4"
    assert views(RGB, three) == {}, "three channels are not a picture"
    assert views(RGB, two) == {}, "two channels are not SAR"
    four = "sentinel-2-l2a:B02,B03,B04,B08@dn-1e4"
    assert views(four, "sentinel-2-l2a:B04,B03,B02@dn-1e4") == {}, "nothing is repeated to fill up"


def test_blue_green_red_is_found_by_name():
    assert views("sentinel-2-l2a:B02,B03,B04@dn-1e4", S2_RGB) == {"subset": ("B02", "B03", "B04")}
    (plan,) = plans("sentinel-2-l2a:B02,B03,B04@dn-1e4", S2_RGB)
    assert plan.index == (2, 1, 0)


def test_sentinel_1_and_2_composite_by_name():
    wanted = "sentinel-1:VV,VH@db + sentinel-2-l2a:B02,B08@dn-1e4"
    assert views(wanted, "sentinel-2-l2a:B08,B03,B02@reflectance + sentinel-1:VH,VV@linear") == {
        "s1-s2-composite": ("VV", "VH", "B02", "B08")
    }
    assert "needs sentinel-1:VV, sentinel-1:VH" in reason(wanted, S2_ALL)
    assert "needs sentinel-2:B08" in reason(wanted, "sentinel-2-l2a:B02,B03@dn-1e4 + sentinel-1:VH,VV@db")


def test_the_composite_rule_is_for_mixed_specialists_only():
    assert views(S2_RGB, S2_RGB, ["s1-s2-composite"]) == {}
    assert views("sentinel-1:VV,VH@db", S1, ["s1-s2-composite"]) == {}
    assert "s1-s2-composite" not in reason(S2_RGB, S1, ["subset", "s1-s2-composite"])


def test_products_of_one_family_are_read_by_name_and_the_note_says_so():
    (plan,) = plans("sentinel-2-l1c:B04,B11@dn-1e4", "sentinel-2-l2a:B11,B04@dn-1e4")
    assert (plan.rule, plan.index) == ("subset", (1, 0))
    assert plan.note == "sentinel-2-l2a read by a specialist of sentinel-2-l1c"


def test_common_names_cross_sensors_and_report_the_shift():
    (plan,) = plans("sentinel-2-l2a:B02,B04,B11@dn-1e4", "landsat-8:all@dn-landsat-c2")
    assert (plan.rule, plan.bands) == ("common-names", ("B2", "B4", "B6"))
    assert plan.note == "B2 for B02 -10 nm, B4 for B04 -10 nm, B6 for B11 -5 nm"


def test_common_names_say_what_is_missing():
    why = reason("sentinel-2-l1c:all@dn-1e4", "hls:all@dn-1e4")
    assert "subset: needs sentinel-2:B01, sentinel-2:B02, sentinel-2:B03, sentinel-2:B04 and 9 more" in why
    assert "common-names: hls has no coastal, rededge071, rededge075, rededge078 and 3 more" in why


def test_every_reason_names_its_rule():
    why = reason(RGB, "sentinel-2-l2a:B11@dn-1e4")
    for rule in ("subset", "true-colour", "infrared-red-green", "vv-vh-vh"):
        assert f"{rule}: " in why


def test_nearest_wavelength_only_by_name():
    wanted, available = "sentinel-2-l2a:B05@dn-1e4", "landsat-8:B4@dn-1e4"  # 704 nm from 655 nm
    assert views(wanted, available) == {}
    assert views(wanted, available, ["nearest-wavelength:50"]) == {"nearest-wavelength:50": ("B4",)}


def test_nearest_wavelength_respects_its_tolerance_and_reports_it():
    wanted, available = "sentinel-2-l2a:B05,B04@dn-1e4", "landsat-8:B5,B4@dn-1e4"
    (plan,) = plans(wanted, available, ["nearest-wavelength:49"])
    assert plan.bands == ("B4", "B4")
    assert plan.note == "tolerance 49 nm; B4 for B05 -49 nm, B4 for B04 -10 nm"
    why = reason(wanted, available, ["nearest-wavelength:48.9"])
    assert why == "nearest-wavelength:48.9: no band within 48.9 nm of B05 (704 nm); nearest is 49 nm away"


def test_nearest_wavelength_has_no_answer_for_radar_and_plain_pictures():
    for wanted in ("sentinel-1:VV@db", RGB):
        assert "without a known wavelength" in reason(wanted, S2_ALL, ["nearest-wavelength:1000"])
    assert "nearest is inf nm away" in reason("sentinel-2-l2a:B04@dn-1e4", S1, ["nearest-wavelength:1000"])


@pytest.mark.parametrize("name", ["nearest-wavelength", "nearest-wavelength:", "nearest-wavelength:-5",
                                  "nearest-wavelength:nan", "nearest-wavelength:1e3", "nearest-wavelength:²"])  # fmt: skip
def test_a_tolerance_is_a_number_of_nanometres(name: str):
    with pytest.raises(AdaptationError, match="say the tolerance in nm"):
        rules_named([name])


def test_unknown_rules_list_the_known():
    with pytest.raises(AdaptationError, match=r"unknown rule 'rgb'; known: .*nearest-wavelength:NM.*vv-vh-vv"):
        rules_named(["true-colour", "rgb"])


def test_only_the_rules_asked_for_fire():
    assert views(RGB, f"{S2_ALL} + {S1}", ["vv-vh-vh"]) == {"vv-vh-vh": ("VV", "VH", "VH")}
    assert views(S2_RGB, S2_ALL, ["true-colour"]) == {"true-colour": ("B04", "B03", "B02")}


def test_the_list_of_rules_is_the_documented_one():
    assert [r.name for r in RULES] == list(DEFAULT_RULES)
    assert len(set(DEFAULT_RULES)) == len(DEFAULT_RULES)
    assert all(r.what for r in (*RULES, *OPTIONAL_RULES))


def test_a_cross_modal_view_says_so():
    by_rule = {p.rule: p for p in plans(RGB, f"{S2_ALL} + {S1}")}
    assert "cross-modal" in by_rule["vv-vh-vh"].note
    assert "cross-modal" not in by_rule["true-colour"].note
