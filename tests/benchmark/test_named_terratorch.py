"""TerraTorch's backbones as baselines; the networks themselves only where TerraTorch is installed (6 GB)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.named import terratorch_models as named
from eosfm.benchmark.readings import Name, choose
from eosfm.contracts import BandError, ConfigError, MissingExtra
from eosfm.statistics import BandStatistics

S2 = BandSet.parse("sentinel-2-l2a:all@dn-1e4")
needs_terratorch = pytest.mark.skipif(find_spec("terratorch") is None, reason="TerraTorch is not installed")


def statistics(n: int) -> BandStatistics:
    return BandStatistics(mean=(1000.0,) * n, std=(500.0,) * n)


def backbone(text: str, bands: BandSet = S2) -> Backbone:
    name, own = Name.parse(text), statistics(len(bands))
    built = named.build(name, bands, own, (64, 64), 0)
    return Backbone(name, built, choose(name, [built.reading], bands, own)[1], (64, 64), 0, bands)


def test_clay_reads_all_that_have_a_wavelength():
    have = BandSet.parse("sentinel-1:VV@db + sentinel-2-l2a:B12,B02@reflectance")
    reading = named.readings("clay_v1_base", have)[0]
    assert reading.bands.names == ("B12", "B02") and "VV left out" in reading.note and reading.own == "always"
    with pytest.raises(BandError, match="known wavelength"):
        named.readings("clay_v1_base", BandSet.parse("sentinel-1:VV@db"))


@pytest.mark.skipif(find_spec("terratorch") is not None, reason="TerraTorch is installed")
def test_without_it_the_repair_is_said():
    with pytest.raises(MissingExtra, match=r"pip install 'eosfm\[terratorch\]'"):
        backbone("terratorch:prithvi_eo_tiny@random")


@needs_terratorch
def test_prithvi_gives_terratorchs_own_tokens_with_its_statistics():
    ours = backbone("terratorch:prithvi_eo_tiny@random")
    assert ours.plan.bands == ("B02", "B03", "B04", "B8A", "B11", "B12") and ours.plan.mean[0] == 1087.0
    x = torch.rand(1, 6, 224, 224)
    tokens = ours.body.network(x)
    for m, t in zip(ours.body.maps(x), tokens, strict=True):
        torch.testing.assert_close(m.flatten(2).transpose(1, 2), t[:, 1:])


@needs_terratorch
def test_terramind_reads_what_is_there():
    both = BandSet.parse("sentinel-1:VV,VH@db + sentinel-2-l2a:all@dn-1e4")
    for bands, kind in ((S2, "S2L2A"), (BandSet.parse("sentinel-2-l1c:all@dn-1e4"), "S2L1C"), (both, "S2L2A+S1GRD"),
                        (BandSet.parse("sentinel-1:VV,VH@db"), "S1GRD")):  # fmt: skip
        ours = backbone("terratorch:terramind_v1_tiny@random", bands)
        assert ours.reading.kind == kind and [m.shape[-1] for m in ours(torch.rand(1, len(bands), 64, 64))] == [
            16,
            8,
            4,
            2,
        ]


@needs_terratorch
def test_a_weights_name_of_torchgeo_is_sent_there():
    with pytest.raises(ConfigError, match="torchgeo:NAME"):
        backbone("terratorch:ssl4eos12_resnet50_sentinel2_all_moco@random")
