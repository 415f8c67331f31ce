"""The PANGAEA encoder on a stand-in for its decoder: what pangaea/run.py, the preprocessor and SegUPerNet do to an encoder."""

import logging

import pytest
import torch
import yaml
from torch import nn

from eosfm.commands_zoo import zoo_export_pangaea
from eosfm.contracts import BandError, ConfigError, UnitError, ZooError
from eosfm.files import OutputError
from eosfm.outward.pangaea import EosEncoder, encoder_config

DATASET = {
    "img_size": 64,
    "bands": {"optical": ["B4", "B3", "B2"], "sar": ["VV", "VH"]},
    "data_mean": {"optical": [900.0, 800.0, 700.0], "sar": [-11.0, -18.0]},
    "data_std": {"optical": [500.0, 400.0, 300.0], "sar": [4.0, 5.0]},
}
INPUTS = {"optical": "sentinel-2-l2a@dn-1e4", "sar": "sentinel-1@db"}


def build(zoo, **changes):
    options = {
        "zoo": str(zoo), "inputs": INPUTS, "input_bands": DATASET["bands"], "data_mean": DATASET["data_mean"],
        "data_std": DATASET["data_std"], "normalised": "mean-std", "input_size": 64,
    }  # fmt: skip
    return EosEncoder(**{**options, **changes})


def sample():
    g = torch.Generator().manual_seed(2)
    optical, sar = torch.rand(2, 3, 1, 64, 64, generator=g) * 3000 + 100, -20 * torch.rand(2, 2, 1, 64, 64, generator=g)
    return {"optical": optical, "sar": sar}


def standardised(x):
    def of(name, k):
        return torch.tensor(DATASET[name][k]).view(1, -1, 1, 1, 1)

    return {k: (v - of("data_mean", k)) / of("data_std", k) for k, v in x.items()}


class Decoder(nn.Module):
    """What a frozen-encoder decoder of PANGAEA asks of an encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        assert encoder.pyramid_output and not encoder.multi_temporal and not encoder.multi_temporal_output
        for p in encoder.parameters():
            p.requires_grad = False
        assert len(encoder.output_layers) == len(encoder.output_dim)
        self.laterals = nn.ModuleList(nn.Conv2d(c, 8, 1) for c in encoder.output_dim)

    def forward(self, img):
        with torch.no_grad():
            maps = self.encoder({k: v[:, :, 0] for k, v in img.items()})
        side = maps[0].shape[-2:]
        return sum(nn.functional.interpolate(c(m), size=side) for c, m in zip(self.laterals, maps, strict=True))


def test_through_a_decoder(tiny_zoo):
    encoder = build(tiny_zoo)
    encoder.load_encoder_weights(logging.getLogger("test"))
    decoder = Decoder(encoder).train()
    out = decoder(standardised(sample()))
    assert out.shape == (2, 8, 16, 16)
    out.sum().backward()
    assert all(p.grad is None for p in encoder.parameters())


def test_both_preprocessings_give_the_same_features(tiny_zoo):
    x = sample()
    undone, raw = build(tiny_zoo).eval(), build(tiny_zoo, normalised="none").eval()
    for a, b in zip(undone(standardised(x)), raw(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_other_preprocessing_is_noticed(tiny_zoo):
    with pytest.raises(UnitError, match="normalised="):
        build(tiny_zoo)(sample())
    with pytest.raises(UnitError, match="normalised="):
        build(tiny_zoo, normalised="none")(standardised(sample()))


def test_modalities_are_taken_by_name(tiny_zoo):
    x = standardised(sample())
    encoder = build(tiny_zoo).eval()
    a, b = encoder(x), encoder(dict(reversed(x.items())))
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    with pytest.raises(BandError, match="no 'sar' among optical"):
        encoder({"optical": x["optical"]})


def test_several_dates_go_one_by_one(tiny_zoo):
    x = {k: v.repeat(1, 1, 3, 1, 1) for k, v in standardised(sample()).items()}
    with pytest.raises(BandError, match="once per date"):
        build(tiny_zoo)(x)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"input_size": 100}, "multiple of 32"),
        ({"data_mean": {"optical": [0.0] * 3}}, "take all three from the data set"),
        ({"data_std": {"optical": [1.0] * 2, "sar": [1.0] * 2}}, "optical: 3 bands, 3 means and 2 stds"),
        ({"normalised": "minmax"}, "no known unit"),
    ],
)
def test_configurations_that_do_not_fit(tiny_zoo, changes, says):
    with pytest.raises(ConfigError, match=says):
        build(tiny_zoo, **changes)


def resolved(text, dataset):
    """What Hydra does: interpolations of the data set's configuration, then the target called with the rest."""
    config = yaml.safe_load(text)
    return {
        k: dataset[v.removeprefix("${dataset.").removesuffix("}")] if isinstance(v, str) and v.startswith("${") else v
        for k, v in config.items()
        if k not in ("_target_", "_convert_")
    }


def test_the_yaml_builds_the_encoder(tiny_zoo):
    text = encoder_config(tiny_zoo, INPUTS, leave_out=["s2-six"])
    assert yaml.safe_load(text)["_target_"] == "eosfm.outward.pangaea.EosEncoder"
    encoder = EosEncoder(**resolved(text, DATASET))
    assert encoder.input_bands == DATASET["bands"] and encoder.input_size == 64
    assert "s2-six" not in {c.name for c in encoder.guest.ensemble.cards}


def test_the_command(tiny_zoo, tmp_path):
    to = tmp_path / "eosfm.yaml"
    zoo_export_pangaea(tiny_zoo, ["optical=hls-s30@reflectance"], to)
    assert yaml.safe_load(to.read_text())["inputs"] == {"optical": "hls-s30@reflectance"}
    with pytest.raises(OutputError):
        zoo_export_pangaea(tiny_zoo, ["optical=hls-s30@reflectance"], to)
    for bad in (["hls-s30@reflectance"], ["a=sentinel-1@db", "a=sentinel-1@db"]):
        with pytest.raises(ConfigError, match="MODALITY=SENSOR@UNIT"):
            zoo_export_pangaea(tiny_zoo, bad, tmp_path / "b.yaml")
    with pytest.raises(UnitError, match="no unit"):
        zoo_export_pangaea(tiny_zoo, ["optical=hls-s30"], tmp_path / "b.yaml")
    with pytest.raises(ZooError, match="no specialist 'nobody'"):
        zoo_export_pangaea(tiny_zoo, ["optical=hls-s30@reflectance"], tmp_path / "b.yaml", leave_out=["nobody"])
