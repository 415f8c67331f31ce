"""Backbones of other architectures: their features are timm's own, and a file that does not fit is refused whole."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from eosfm.contracts import CardError, ConfigError, CorruptArtifact, EosfmError, ZooError
from eosfm.files import OutputError
from eosfm.specialists.card import PyramidInfo, read_card
from eosfm.specialists.import_backbone import import_backbone
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.specialists.upstream import Description
from eosfm.specialists.zoo import verify_zoo
from helpers import edit_json, equal

S2 = "sentinel-2-l1c:B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B10,B11,B12@dn-1e4"
RGB = "sentinel-2-l2a:B04,B03,B02@dn-1e4"
SWIN, VIT = "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"
PASS = Path(os.devnull)


def own(bands: str = RGB, chip_size: int = 64, **changes: Any) -> Description:
    given = Description(
        name="mine", bands=bands, mean=(1500.0,), std=(600.0,), chip_size=chip_size, task="none", dataset="somewhere"
    )
    return replace(given, **changes)


@cache
def network(name: str, channels: int, size: int = 224) -> torch.nn.Module:
    """timm's whole model with a classifier and random weights; batch norms that have seen something."""
    sized = {} if name.startswith("resnet") else {"img_size": size}
    torch.manual_seed(3)
    model = timm.create_model(name, in_chans=channels, num_classes=7, **sized).eval()
    for m in model.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 1.5)
    return model


def state(name: str, channels: int = 3, size: int = 224) -> dict[str, Tensor]:
    return dict(network(name, channels, size).state_dict())


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + k: v for k, v in tensors.items()}


def saved(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def probe(channels: int, h: int, w: int) -> Tensor:
    return torch.randn(2, channels, h, w, generator=torch.Generator().manual_seed(h))


LAYOUTS = {
    "bare.safetensors": lambda t: t,
    "torchgeo.pth": lambda t: {k: v for k, v in t.items() if not k.startswith(("fc", "head"))},
    "lightning.ckpt": lambda t: {"epoch": 3, "state_dict": under("model.", t), "hyper_parameters": {"lr": 0.1}},
    "terratorch.ckpt": lambda t: {
        "state_dict": under("model.encoder._timm_module.", t) | {"model.decoder.conv.weight": torch.zeros(2, 2)}
    },
}


@pytest.mark.parametrize(("layout", "channels"), zip(LAYOUTS, (3, 13, 13, 3), strict=True))
def test_a_resnet_in_every_layout_gives_timms_features(tmp_path: Path, layout: str, channels: int):
    tensors = state("resnet18", channels)
    given = own(RGB if channels == 3 else S2)
    done = import_backbone(saved(tmp_path / layout, LAYOUTS[layout](tensors)), "resnet18", given, tmp_path / "zoo")
    encoder, card = load_specialist(tmp_path / "zoo" / "mine")
    assert card == done.card and card.architecture == "resnet18" and card.licence == "unknown"
    assert card.pyramid == PyramidInfo(channels=(64, 128, 256, 512), levels=(1, 2, 3, 4))
    theirs = timm.create_model("resnet18", in_chans=channels, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    theirs.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("fc")})
    x = probe(channels, 64, 96)
    with torch.no_grad():
        assert equal(encoder(x), theirs(x))
    assert encoder.out_channels == [64, 128, 256, 512] and not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.train().training
    assert not [t for t in encoder.tensors().values() if not t.is_floating_point()], "counters are not weights"
    assert verify_zoo(tmp_path / "zoo") == [("mine", "")]
    notes = " ".join(done.notes)
    assert "resnet18: its maps 1, 2, 3, 4 (from 0) at strides 4, 8, 16, 32" in notes
    beside = {"bare.safetensors": "fc", "lightning.ckpt": "model.fc", "terratorch.ckpt": "model.decoder"}
    assert beside.get(layout, "") in notes and ("left out" in notes) is (layout in beside)


def test_a_swin_gives_timms_features_with_channels_first_at_any_size(tmp_path: Path):
    tensors = state(SWIN, 13)
    file = saved(tmp_path / "swin.ckpt", {"state_dict": under("backbone.", tensors)})
    done = import_backbone(file, SWIN, own(S2, 224), tmp_path / "zoo")
    encoder, card = load_specialist(tmp_path / "zoo" / "mine")
    assert card.pyramid == PyramidInfo(channels=(96, 192, 384, 768), levels=(0, 1, 2, 3))
    assert "left out of the file: backbone.head, backbone.norm" in done.notes
    x = probe(13, 224, 224)[:1]
    with torch.no_grad():
        theirs = network(SWIN, 13).forward_intermediates(x, intermediates_only=True)
        assert equal(encoder(x), theirs)
        # a map as wide as it has channels: no shape says which axis is which
        assert [m.shape[1:] for m in encoder(probe(13, 384, 384)[:1])] == [
            (96, 96, 96), (192, 48, 48), (384, 24, 24), (768, 12, 12)
        ]  # fmt: skip


@pytest.mark.parametrize("channels", [3, 13])
def test_a_vit_is_resampled_only_when_asked_and_says_so(tmp_path: Path, channels: int):
    given = own(RGB if channels == 3 else S2)
    file = saved(tmp_path / "vit.pth", {"model": state(VIT, channels, 64)})
    with pytest.raises(ConfigError, match=r"stride[s]? 16; .* 4, 8, 32 are missing.*--pyramid resample"):
        import_backbone(file, VIT, given, tmp_path / "zoo")
    done = import_backbone(file, VIT, given, tmp_path / "zoo", resample=True)
    encoder, card = load_specialist(tmp_path / "zoo" / "mine")
    assert card.pyramid == PyramidInfo(channels=(192,) * 4, levels=(2, 5, 8, 11), resampled=True)
    assert "strides 16, resampled (bilinear) to 4, 8, 16, 32, which adds no detail" in card.description
    assert card == done.card
    x = probe(channels, 64, 64)
    with torch.no_grad():
        blocks = network(VIT, channels, 64).forward_intermediates(x, indices=[2, 5, 8, 11], intermediates_only=True)
        ours = encoder(x)
        assert [tuple(m.shape[2:]) for m in ours] == [(16, 16), (8, 8), (4, 4), (2, 2)]
        assert torch.equal(ours[2], blocks[2]), "at its own stride nothing is resampled"
        torch.testing.assert_close(ours[0], F.interpolate(blocks[0], scale_factor=4, mode="bilinear"))
        assert [tuple(m.shape[2:]) for m in encoder(probe(channels, 32, 96))] == [(8, 24), (4, 12), (2, 6), (1, 3)]
    with pytest.raises(ConfigError, match="only a network with a single stride"):
        import_backbone(file, "resnet18", replace(given, name="other"), tmp_path / "zoo", resample=True)


@pytest.mark.slow
def test_torchgeos_own_resnet_is_timms(tmp_path: Path):
    """The state dict that TorchGeo loads its published weights into, named as in its files."""
    resnet = pytest.importorskip("torchgeo.models.resnet")
    model = resnet.resnet18(in_chans=13).eval()
    import_backbone(saved(tmp_path / "r.pth", model.state_dict()), "resnet18", own(S2), tmp_path / "zoo")
    x = probe(13, 64, 64)
    with torch.no_grad():
        deepest = load_specialist(tmp_path / "zoo" / "mine")[0](x)[-1]
        assert torch.equal(deepest, model.forward_features(x))


REFUSED = {
    "a tensor is missing": (
        lambda t: {k: v for k, v in t.items() if k != "layer4.1.bn2.running_var"},
        "resnet18", CardError, r"not resnet18 weights: missing layer4\.1\.bn2\.running_var",
    ),
    "a wrong shape": (
        lambda t: t | {"layer1.0.conv1.weight": torch.zeros(64, 32, 3, 3)},
        "resnet18", CardError, r"layer1\.0\.conv1\.weight: shape \(64, 32, 3, 3\), expected \(64, 64, 3, 3\)",
    ),
    "other bands": (
        lambda t: t | {"conv1.weight": torch.zeros(64, 13, 7, 7)},
        "resnet18", CardError, r"of 3 bands .*conv1\.weight: shape \(64, 13, 7, 7\), expected \(64, 3, 7, 7\)",
    ),
    "not finite": (
        lambda t: t | {"bn1.bias": torch.full((64,), torch.nan)}, "resnet18", CardError, "bn1.bias: contains NaN or Inf",
    ),
    "a larger one of the family": (
        lambda t: timm.create_model("resnet34").state_dict(), "resnet18", CardError,
        r"tensors in the same parts .*'layer1\.2\.conv1\.weight' .* larger architecture",
    ),
    "another network": (lambda t: {"a.b": torch.zeros(2)}, "resnet18", CardError, "none of its 1 tensors .*'a.b'"),
    "several": (
        lambda t: under("student.", t) | under("teacher.", {k: v + 1 for k, v in t.items()}), "resnet18", ZooError,
        r"several resnet18, at 'student\.', 'teacher\.'; say which one: --prefix",
    ),
    "a list": (lambda t: [(3, t, {})], "resnet18", CorruptArtifact, "expected a state dict"),
    "no such architecture": (lambda t: t, "resnet19", ConfigError, "timm has no architecture 'resnet19'; for example "),
    "a place on the hub": (lambda t: t, "hf-hub:me/mine", ConfigError, "timm has no architecture"),
    "a tag": (lambda t: t, "resnet18.a1_in1k", ConfigError, "timm has no architecture"),
    "one size only": (lambda t: t, "maxvit_nano_rw_256", ConfigError, "a specialist must read every multiple of 32"),
    "other strides": (lambda t: t, "levit_128s", ConfigError, "a pyramid needs 4, 8, 16, 32"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_whole(tmp_path: Path, case: str):
    change, architecture, error, message = REFUSED[case]
    file = saved(tmp_path / "x.pth", change(state("resnet18")))
    with pytest.raises(error, match=message):
        import_backbone(file, architecture, own(chip_size=224), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_one_of_several_is_chosen_by_its_prefix(tmp_path: Path):
    tensors = state("resnet18")
    both = under("student.", tensors) | under("teacher.", {k: v + 1 for k, v in tensors.items()})
    file = saved(tmp_path / "x.pth", both)
    with pytest.raises(ZooError, match=r"no resnet18 at 'nowhere\.'; there is one at: 'student\.', 'teacher\.'"):
        import_backbone(file, "resnet18", own(), tmp_path / "zoo", prefix="nowhere")
    done = import_backbone(file, "resnet18", own(), tmp_path / "zoo", prefix="student")
    assert "left out of the file: student.fc, teacher.bn1" in " ".join(done.notes)
    stored = load_specialist(tmp_path / "zoo" / "mine")[0].tensors()
    assert torch.equal(stored["conv1.weight"], tensors["conv1.weight"])


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(tmp_path: Path):
    file = saved(tmp_path / "x.pth", {"state_dict": state("resnet18"), "more": Touch(tmp_path / "ran")})
    with pytest.raises(CorruptArtifact, match="more than tensors and plain values"):
        import_backbone(file, "resnet18", own(), tmp_path / "zoo")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "zoo").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists(), "the payload would have run"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str):
    tensors = state("resnet18")
    file = saved(tmp_path / f"x{suffix}", tensors)
    file.write_bytes(file.read_bytes()[:-5000])
    assert not zipfile.is_zipfile(file)
    with pytest.raises(CorruptArtifact):
        import_backbone(file, "resnet18", own(), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_negative_std_is_refused_with_the_way_out(tmp_path: Path):
    with pytest.raises(ConfigError, match="negate that channel"):
        import_backbone(PASS, "resnet18", own(std=(-600.0,)), tmp_path / "zoo")


def test_an_existing_specialist_is_not_replaced_by_accident(stored: Path, tmp_path: Path):
    with pytest.raises(OutputError):
        import_backbone(PASS, "resnet18", own(), tmp_path)
    import_backbone(
        saved(tmp_path / "x.pth", state("resnet18")), "resnet18", own(licence="MIT"), tmp_path, overwrite=True
    )
    assert load_specialist(stored)[1].licence == "MIT"


def test_timms_own_weights_come_from_its_place_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved(tmp_path / "hub.safetensors", state("resnet18"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(tmp_path / "hub.safetensors"))
    done = import_backbone("timm:resnet18.a1_in1k", "", own("rgb:R,G,B@8bit"), tmp_path / "zoo")
    assert done.card.architecture == "resnet18" and "Imported from timm resnet18.a1_in1k." in done.card.description
    with pytest.raises(ConfigError, match=r"timm has no weights 'resnet18\.mine' of resnet18; known: "):
        import_backbone("timm:resnet18.mine", "", own(name="other"), tmp_path / "zoo")


# ---- cards ----


@pytest.fixture(scope="module")
def resnet_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet")
    import_backbone(saved(folder / "x.pth", state("resnet18")), "resnet18", own(), folder / "zoo")
    return folder / "zoo"


@pytest.fixture
def stored(resnet_zoo: Path, tmp_path: Path) -> Path:
    """A specialist whose card may be edited; its weights are those of `resnet_zoo`."""
    (tmp_path / "mine").mkdir()
    shutil.copy(resnet_zoo / "mine" / "card.json", tmp_path / "mine")
    os.link(resnet_zoo / "mine" / "model.safetensors", tmp_path / "mine" / "model.safetensors")
    return tmp_path / "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "vit_giant_patch14_224"}, r"\(stride, channels\)"),
        ({"architecture": "resnet152"}, r"the card says channels"),
        ({"architecture": "resnet34"}, "not resnet34 weights: missing"),
        ({"architecture": "resnet18; rm"}, "timm has no architecture"),
        ({"architecture": "convnextv2_atto"}, "with a pyramid"),
        ({"pyramid": None}, "without a pyramid"),
        ({"pyramid": {"channels": [64, 64, 128, 256], "levels": [0, 1, 2, 3]}}, "at strides"),
        ({"pyramid": {"channels": [64, 128, 256, 512], "levels": [1, 2, 3, 9]}}, "no feature maps of resnet18"),
        ({"pyramid": {"channels": [64, 128, 256, 512], "levels": [4, 3, 2, 1]}}, "levels rising"),
        ({"pyramid": {"channels": [64, 128, 256, 512], "levels": [1, 2, 3, 4], "resampled": True}}, "the card says"),
    ],
)
def test_a_card_that_lies_about_the_architecture_is_refused(stored: Path, change: dict[str, Any], message: str):
    edit_json(stored / "card.json", digest="", **change)
    with pytest.raises(EosfmError, match=message):
        load_specialist(stored)


def test_a_card_that_asks_for_a_huge_network_costs_no_memory(stored: Path, monkeypatch: pytest.MonkeyPatch):
    """Its weights do not fit, and that is found out before the network is made."""
    edit_json(
        stored / "card.json", digest="", architecture="eva_giant_patch14_224", chip_size=224,
        pyramid={"channels": [1408] * 4, "levels": [9, 19, 29, 39], "resampled": True},
    )  # fmt: skip
    with pytest.raises(EosfmError):
        load_specialist(stored)
    edit_json(
        stored / "card.json", digest="", architecture="convnext_xxlarge",
        pyramid={"channels": [384, 768, 1536, 3072], "levels": [0, 1, 2, 3]},
    )  # fmt: skip
    made = []
    monkeypatch.setattr("eosfm.specialists.backbone.seeded", lambda *_: made.append(1))
    with pytest.raises(CardError, match="not convnext_xxlarge weights"):
        load_specialist(stored)
    assert not made


def test_what_the_pyramid_is_belongs_to_what_a_checkpoint_depends_on(stored: Path):
    encoder, card = load_specialist(stored)
    again = save_specialist(encoder, replace(card, name="again"), stored.parent)
    assert read_card(stored.parent / "again" / "card.json") == again
    assert again.weights.sha256 == card.weights.sha256 and again.reading == card.reading
    assert replace(card, chip_size=128).reading != card.reading
    assert replace(card, pyramid=replace(card.pyramid, levels=(0, 2, 3, 4))).reading != card.reading
