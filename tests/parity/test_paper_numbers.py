"""What the paper (arXiv 2511.21523v1) states and a machine can check: Table 2, section 3.1 and footnote 1."""

from __future__ import annotations

import pytest

from eosfm.adaptation import plan_views
from eosfm.bands import BandSet
from eosfm.contracts import PYRAMID_CHANNELS
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import make_fusion
from helpers import PAPER, ghost, make_card, statistics_of

HLS = BandSet.parse("hls:all@dn-1e4")
EVERYTHING = BandSet.parse("sentinel-2-l1c:all@dn-1e4 + sentinel-1:VV,VH@db")


@pytest.fixture(scope="module")
def fourteen():
    return [ghost(name, bands) for name, bands in PAPER.items()]


def test_fourteen_specialists_have_the_paper_s_bands():
    counts = {n: len(BandSet.parse(b)) for n, b in PAPER.items()}
    assert len(PAPER) == 14
    assert {n: c for n, c in counts.items() if c != 3} == {"eurosat-s2": 13, "sen12ms-s2": 13, "bigearthnet": 14}


def test_fourteen_specialists_have_47_434_480_parameters(fourteen):
    ens = Ensemble(fourteen, EVERYTHING, statistics=statistics_of(EVERYTHING))
    assert ens.skipped == []
    assert len(ens.encoders) == 14
    assert sum(p.numel() for p in ens.encoders.parameters()) == 47_434_480


def test_with_six_hls_bands_exactly_the_three_of_many_bands_are_skipped(fourteen):
    ens = Ensemble(fourteen, HLS, statistics=statistics_of(HLS))
    assert {s.specialist for s in ens.skipped} == {"eurosat-s2", "sen12ms-s2", "bigearthnet"}
    assert all("needs sentinel-" in s.reason for s in ens.skipped)
    assert len(ens.cards) == 11
    assert {v.rule for v in ens.views} == {"true-colour", "infrared-red-green"}
    assert len(ens.views) == 22


def test_eleven_active_views_fuse_with_1_496_600_parameters(fourteen):
    ens = Ensemble(fourteen, HLS, statistics=statistics_of(HLS), rules=["true-colour"])
    assert len(ens.views) == 11
    assert sum(p.numel() for p in ens.fusion.parameters()) == 1_496_600
    both = Ensemble(fourteen, HLS, statistics=statistics_of(HLS))
    assert sum(p.numel() for p in both.fusion.parameters()) == sum(22 * c * c + c for c in PYRAMID_CHANNELS)


def test_pruning_to_six_of_fourteen_leaves_20_4_million_parameters(fourteen):
    ens = Ensemble(fourteen, EVERYTHING, statistics=statistics_of(EVERYTHING))
    three_bands = [c.name for c in ens.cards if len(c.bands) == 3][:6]
    small = ens.pruned(three_bands)
    count = sum(p.numel() for p in small.encoders.parameters())
    assert count == 6 * 3_386_760
    assert round(1 - count / 47_434_480, 2) == 0.57


def test_the_default_fusion_is_a_convolution_to_one_encoder_s_width_without_normalisation(fourteen):
    ens = Ensemble(fourteen, HLS, statistics=statistics_of(HLS))
    assert (ens.fusion.name, ens.fusion.normalise) == ("conv1x1", "none")
    assert ens.out_channels == [40, 80, 160, 320]
    assert make_fusion("concat", 10).out_channels == [400, 800, 1600, 3200]


def picked(wanted: str, available: str, rule: str) -> list[str]:
    card, a = make_card("x", wanted), BandSet.parse(available)
    plans, _ = plan_views("x", card.bandset(), card.statistics, a, statistics_of(a))
    return next(list(p.bands) for p in plans if p.rule == rule)


def test_the_three_rules_of_section_3_1():
    s2, s1 = "sentinel-2-l2a:all@dn-1e4", "sentinel-1:VV,VH@db"
    assert picked("rgb:R,G,B@8bit", s2, "true-colour") == ["B04", "B03", "B02"]  # bands (4, 3, 2)
    assert picked("rgb:R,G,B@8bit", s2, "infrared-red-green") == ["B08", "B04", "B03"]  # bands (8, 4, 3)
    assert picked("rgb:R,G,B@8bit", s1, "vv-vh-vh") == ["VV", "VH", "VH"]  # indices (0, 1, 1)
