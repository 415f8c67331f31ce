"""The class under torchgeo-bench: what its main.py and its SegmentationProbe do to a model, on stand-ins of its band records."""

from dataclasses import dataclass

import pytest
import torch

from eosfm.benchmark.probe import pooled_features
from eosfm.contracts import BandError, ConfigError
from eosfm.data.chips import Chips
from eosfm.ensemble import Ensemble
from eosfm.outward.torchgeo_bench import EosEnsemble
from eosfm.specialists.store import load_specialist
from eosfm.statistics import BandStatistics


@dataclass(frozen=True)
class BandSpec:
    """As in torchgeo_bench/datasets/base.py."""

    sensor: str
    name: str
    source_name: str
    mean: float
    std: float
    min: float
    max: float
    wavelength_um: float | None = None


RGB = [
    BandSpec("s2", "red", "B04", 947.627, 593.752, 0, 28000, 0.665),
    BandSpec("s2", "green", "B03", 1042.93, 395.094, 0, 28000, 0.56),
    BandSpec("s2", "blue", "B02", 1118.24, 333.009, 0, 28000, 0.49),
]
REST = [
    BandSpec("s2", "coastal_aerosol", "B01", 1354.41, 245.718, 816, 17720, 0.443),
    BandSpec("s2", "red_edge_1", "B05", 1199.47, 566.418, 174, 23381, 0.705),
    BandSpec("s2", "nir", "B08", 2296.83, 1117.98, 0, 28002, 0.842),
    BandSpec("s2", "water_vapour", "B09", 732.084, 404.921, 40, 15384, 0.945),
    BandSpec("s2", "swir_cirrus", "B10", 12.1133, 4.7759, 1, 183, 1.375),
    BandSpec("s2", "swir_1", "B11", 1819.01, 1002.59, 5, 24704, 1.61),
    BandSpec("s2", "swir_2", "B12", 1118.92, 761.305, 1, 22210, 2.19),
    BandSpec("s2", "red_edge_4", "B8A", 2594.14, 1231.59, 91, 28000, 0.865),
]
INPUTS = {"s2": "sentinel-2-l1c@dn-1e4"}


def images(n=4, channels=3, size=64):
    g = torch.Generator().manual_seed(1)
    return torch.rand(n, channels, size, size, generator=g) * 2500 + 100


def model(zoo, bands=tuple(RGB), normalization="identity", **options):
    return EosEnsemble(list(bands), normalization, zoo=str(zoo), **{"inputs": INPUTS, **options})


def test_vectors_are_those_of_our_own_probes(tiny_zoo):
    m, x = model(tiny_zoo), images()
    bands = m.guest.ensemble.bands
    statistics = BandStatistics(mean=tuple(b.mean for b in RGB), std=tuple(b.std for b in RGB))
    members = [load_specialist(f) for f in sorted(tiny_zoo.iterdir())]
    ours = Ensemble(members, bands, statistics=statistics)
    chips = Chips(
        name="x", kind="classification", bands=bands, images=x, labels=torch.tensor([0, 1, 0, 1]), classes=("a", "b"),
        source="test", licence="CC0-1.0",
    )  # fmt: skip
    reference = torch.from_numpy(pooled_features(ours, chips).features)
    # ours: view by view; theirs: level by level. The same numbers, so the same distances and the same regressions.
    torch.testing.assert_close(m(x).sort(1).values, reference.sort(1).values, rtol=1e-5, atol=1e-6)


def test_names_of_torchgeo_bench(tiny_zoo):
    m = model(tiny_zoo, [*RGB, *REST], name="eosfm", eval={"c_range": [-6, 4, 40]})
    assert m.guest.ensemble.bands.names == ("B04", "B03", "B02", "B01", "B05", "B08", "B09", "B10", "B11", "B12", "B8A")
    assert m.num_channels == 11


@pytest.mark.parametrize("normalization", ["bandspec_zscore", "model_native", "minmax", "minmax_zscore"])
def test_only_raw_values_have_a_unit(tiny_zoo, normalization):
    with pytest.raises(ConfigError, match=r"dataset\.normalization=identity"):
        model(tiny_zoo, normalization=normalization)


def test_names_that_the_statistics_contradict(tiny_zoo):
    swapped = [
        BandSpec("s1", "vv", "VV", -19.361, 5.6, -66.5, 24.3),
        BandSpec("s1", "vh", "VH", -12.63, 5.1, -65.3, 33.6),
    ]
    inputs = {"s1": "sentinel-1@db"}
    with pytest.raises(BandError, match="VV is the brighter one"):
        model(tiny_zoo, swapped, inputs=inputs)
    options = {"inputs": inputs, "specialists": ["s1-sar"]}
    right = model(tiny_zoo, swapped, rename={"vv": "VH", "vh": "VV"}, **options)
    insisted = model(tiny_zoo, swapped, trust_names=True, **options)
    x = images(1, 2) / -200
    assert torch.equal(right(x), insisted(x.flip(1))) and not torch.equal(right(x), insisted(x))


def test_an_undeclared_sensor(tiny_zoo):
    with pytest.raises(BandError, match=r"inputs\.s2"):
        model(tiny_zoo, inputs={"s1": "sentinel-1@db"})


def test_levels(tiny_zoo):
    m, x = model(tiny_zoo), images(1)
    assert model(tiny_zoo, levels=[3])(x).shape[1] == m.guest.out_channels[3]
    with pytest.raises(ConfigError, match="0 to 3"):
        model(tiny_zoo, levels=[4])


def test_layers_for_segmentation(tiny_zoo):
    m = model(tiny_zoo)
    seen = {}
    for name, module in m.named_modules():
        if name in ("stride4", "stride8", "stride16", "stride32"):
            module.register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    m(torch.randn(1, 3, 96, 64))  # SegmentationProbe learns shapes from noise
    shapes = {k: tuple(v.shape) for k, v in seen.items()}
    assert shapes == {
        f"stride{s}": (1, c, 96 // s, 64 // s) for s, c in zip((4, 8, 16, 32), m.guest.out_channels, strict=True)
    }
    with pytest.raises(BandError, match=r"dataset\.image_size"):
        m(images(1, size=50))


def test_vectors_of_odd_sizes_are_padded(tiny_zoo):
    assert model(tiny_zoo)(images(1, size=50)).isfinite().all()


def test_the_face_of_bench_model():
    """Every public name of the real class, where torchgeo-bench is installed (Python 3.12)."""
    interface = pytest.importorskip("torchgeo_bench.models.interface")
    theirs = {n for n in vars(interface.BenchModel) if not n.startswith("_")}
    optional = {"expected_input_unit", "pretrain_mean", "pretrain_std"}  # read by its own normaliser only
    assert theirs - optional - set(dir(EosEnsemble)) == set()
