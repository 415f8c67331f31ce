"""Importing others' weights: features equal those of the original fed as it was trained; everything else is refused, unrun."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import pickle
import random
import re
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from timm.models.convnext import checkpoint_filter_fn

from eosfm.adaptation import adapt, plan_views
from eosfm.contracts import AdaptationError, CardError, ConfigError, CorruptArtifact, EosfmError, UnitError, ZooError
from eosfm.files import OutputError
from eosfm.specialists import foreign
from eosfm.specialists.foreign import read_foreign
from eosfm.specialists.import_backbone import import_backbone
from eosfm.specialists.licences import allows_commercial_use
from eosfm.specialists.store import load_specialist
from eosfm.specialists.upstream import Description, import_file, import_timm, published
from eosfm.specialists.zoo import list_zoo, verify_zoo
from helpers import equal, image, random_weights, tree

OWN = Description(
    name="mine",
    bands="sentinel-2-l2a:B04,B03,B02@dn-1e4",
    mean=(900.0, 1000.0, 1100.0),
    std=(500.0, 400.0, 300.0),
    chip_size=64,
    task="segmentation",
    classes=("no", "yes"),
    dataset="somewhere",
    licence="CC-BY-4.0",
)


def entry(name: str, channels: int, seed: int = 0, **config: Any) -> tuple[int, OrderedDict, dict[str, Any]]:
    """One element of EoS-FM's published list, with random weights."""
    config = {"backbone": "timm_convnextv2_atto", "encoder_name": name, "num_classes": 4} | config
    return channels, OrderedDict(random_weights(channels, seed)), config


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def original(weights: dict[str, torch.Tensor], channels: int) -> torch.nn.Module:
    """What the authors ran: timm's own model with their weights."""
    model = timm.create_model("convnextv2_atto", features_only=True, in_chans=channels)
    model.load_state_dict(weights, strict=True)
    return model.eval()


# ---- EoS-FM's published file ----


@pytest.mark.parametrize("d", published(), ids=lambda d: d.name)
def test_every_published_specialist_computes_what_it_was_trained_on(tmp_path: Path, d: Description):
    """Raw values through card and plan equal, bit by bit, the original on its own normalisation."""
    n = len(d.bandset())
    weights = random_weights(n, 3)
    (done,) = import_file(saved(tmp_path / "e.pth", [(n, weights, {"encoder_name": d.name})]), tmp_path / "zoo",
                          names={"0": d.name})  # fmt: skip
    encoder, card = load_specialist(tmp_path / "zoo" / d.name)
    assert card == done.card and str(card.bandset()) == str(d.bandset())
    distinct = list(dict.fromkeys(card.bandset()))
    raw = {b: image(type(card.bandset())((b,)), 2, 64, seed=i) for i, b in enumerate(distinct)}
    x = torch.cat([raw[b] for b in card.bandset()], 1)
    mean, std = (torch.tensor(v * n if len(v) == 1 else v).view(1, -1, 1, 1) for v in (d.mean, d.std))
    with torch.no_grad():
        theirs = original(weights, n)((x - mean) / std)
    available = type(card.bandset())(tuple(distinct))
    plans, reason = plan_views(card.name, card.bandset(), card.statistics, available)
    assert plans, reason
    ours = encoder(adapt(torch.cat([raw[b] for b in distinct], 1), plans[0]))
    assert equal(ours, theirs)


def test_the_manifest_is_honest_and_complete():
    table = {d.name: d for d in published()}
    paper = {"eurosat-s2": 13, "caffe": 3, "sen12ms-s1": 3, "sen12ms-s2": 13, "deepglobe-lcc": 3, "bigearthnet-s1": 3,
             "eurosat": 3, "bigearthnet": 14, "firerisk": 3, "bigearthnet-rgb": 3, "sen12ms-rgb": 3, "imagenet": 3,
             "minifrance": 3, "etc2021": 3}  # fmt: skip
    assert {n: len(table[n].bandset()) for n in paper} == paper
    for d in table.values():
        assert d.licence == "CC-BY-NC-SA-4.0" and not allows_commercial_use(d.licence)
        assert d.inferred, f"{d.name}: no source states its statistics"
    assert table["bigearthnet-s1"].bandset().names == ("VH", "VV", "VV"), "sorted file names: VH first"
    assert table["sen12ms-s1"].bandset().names == table["etc2021"].bandset().names == ("VV", "VH", "VH")
    assert table["eurosat-s2"].bandset().names[-1] == "B8A"
    assert table["bigearthnet"].lost and table["bigearthnet-s1"].lost
    assert sum(3_386_760 + 640 * (n - 3) for n in paper.values()) == 47_434_480


def constants(module: str) -> dict[str, Any]:
    """Literal assignments in a TorchGeo data module, read from its source: importing it takes many seconds."""
    spec = importlib.util.find_spec("torchgeo")
    if spec is None:
        pytest.skip("torchgeo is not installed")
    out: dict[str, Any] = {}
    for node in ast.walk(
        ast.parse((Path(spec.submodule_search_locations[0]) / "datamodules" / f"{module}.py").read_text())
    ):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
            with contextlib.suppress(ValueError):
                out.setdefault(node.targets[0].id, ast.literal_eval(value))
    return out


def test_the_manifest_has_torchgeos_numbers():
    table = {d.name: d for d in published()}
    eurosat = constants("eurosat")
    for name in ("eurosat", "eurosat-s2"):
        assert table[name].mean == tuple(eurosat["MEAN"][b] for b in table[name].bandset().names)
        assert table[name].std == tuple(eurosat["STD"][b] for b in table[name].bandset().names)
    etci, vv_vh_vh = constants("etci2021"), (0, 3, 3)
    assert table["etc2021"].mean == tuple(etci["mean"][i] for i in vv_vh_vh)
    assert table["etc2021"].std == tuple(etci["std"][i] for i in vv_vh_vh)
    caffe = constants("caffe")
    assert (table["caffe"].mean, table["caffe"].std) == (tuple(caffe["mean"]), tuple(caffe["std"]))
    assert table["sen12ms-all"].std == tuple(constants("sen12ms")["std"])
    default = constants("geo")
    for name in ("firerisk", "deepglobe-lcc", "inria", "loveda", "potsdam", "landcover-ai", "levir-cd"):
        assert (table[name].mean, table[name].std) == ((default["mean"],), (default["std"],))


def test_a_whole_file_becomes_a_sound_zoo(tmp_path: Path):
    """Both names for the name, both BigEarthNets told apart by channels, and a card that says what is inferred and lost."""
    content = [
        entry("eurosat", 13, 1),
        entry("eurosat", 3, 2),
        (14, random_weights(14, 3), {"backbone": "timm_convnextv2_atto", "name": "bigearthnet"}),
        entry("bigearthnet", 3, 4),
        entry("bigearthnet-S1", 3, 5),
        entry("etci2021", 3, 6),
    ]
    done = import_file(saved(tmp_path / "eosfm.pth", content), tmp_path / "zoo")
    names = [i.card.name for i in done]
    assert names == ["eurosat-s2", "eurosat", "bigearthnet", "bigearthnet-rgb", "bigearthnet-s1", "etc2021"]
    assert verify_zoo(tmp_path / "zoo") == [(n, "") for n in sorted(names)]
    card = done[2].card
    assert card.licence == "CC-BY-NC-SA-4.0"
    assert (
        card.data.licence == "CDLA-Permissive-1.0" and card.task.kind == "multilabel" and len(card.task.classes) == 19
    )
    for text in (
        "entry 2 ('bigearthnet') of eosfm.pth",
        "Inferred, not stated by its authors: band order",
        "truncated",
    ):
        assert text in card.description, card.description
    assert any("cannot be reproduced" in n for n in done[2].notes)
    for i, (_, weights, _) in zip(done, content, strict=True):
        stored = load_specialist(tmp_path / "zoo" / i.card.name)[0].tensors()
        assert all(torch.equal(stored[k], v) for k, v in weights.items())


def test_a_negative_std_moves_into_the_stem_and_the_card_says_so(tmp_path: Path):
    (done,) = import_file(saved(tmp_path / "e.pth", [entry("sen12ms-s1", 3, 1)]), tmp_path / "zoo")
    assert done.card.statistics.std == (25.0, 25.0, 25.0)
    assert "folded into the first convolution" in done.card.description
    stored, theirs = load_specialist(tmp_path / "zoo" / "sen12ms-s1")[0].tensors(), random_weights(3, 1)
    assert torch.equal(stored["stem_0.weight"], -theirs["stem_0.weight"])
    assert all(torch.equal(stored[k], v) for k, v in theirs.items() if k != "stem_0.weight")


UNCLEAR = {
    "unknown name": ([entry("whales", 3)], {}, r"'whales' with 3 channels, is not known\nknown: .*firerisk.*--as"),
    "known name, other channels": ([entry("firerisk", 5)], {}, "'firerisk' with 5 channels, is not known"),
    "no name": ([(3, random_weights(3, 0), {})], {}, "entry 0, '' with 3 channels, is not known"),
    "path as a name": ([entry("../../etc", 3)], {}, "is not known"),
    "ambiguous": ([entry("sen12ms", 3)], {}, "can be sen12ms-s1 or sen12ms-rgb"),
    "one name twice": (
        [entry("caffe", 3), entry("CaFFe", 3)],
        {},
        "two entries of one name: entry 0 is caffe, entry 1 is",
    ),
    "as: unknown": ([entry("x", 3)], {"x": "whales"}, "no published specialist 'whales'; known: "),
    "as: path": ([entry("x", 3)], {"0": "../x"}, "no published specialist"),
    "as: channels": ([entry("x", 3)], {"0": "bigearthnet"}, "entry 0 reads 3 channels, bigearthnet reads 14"),
    "as: no such entry": ([entry("caffe", 3)], {"7": "caffe"}, "no entry '7'; known: caffe"),
    "as: twice the same": ([entry("caffe", 3), entry("x", 3)], {"x": "caffe"}, "two entries of one name"),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_unclear_is_refused_whole(tmp_path: Path, case: str):
    content, names, message = UNCLEAR[case]
    file = saved(tmp_path / "e.pth", [entry("eurosat", 3, 1), *content] if not names else content)
    with pytest.raises(
        ZooError, match=message if names else message.replace("entry 1", "entry 2").replace("entry 0", "entry 1")
    ):
        import_file(file, tmp_path / "zoo", names=names)
    assert not (tmp_path / "zoo").exists()


def test_an_unknown_entry_can_be_named_described_or_left_out(tmp_path: Path):
    file = saved(tmp_path / "e.pth", [entry("encoder_0", 3, 1), entry("sen12ms", 3, 2), entry("caffe", 3, 3)])
    zoo = tmp_path / "zoo"
    import_file(file, zoo, entries=[2])
    import_file(file, zoo, entries=[1], names={"sen12ms": "sen12ms-rgb"})
    (mine,) = import_file(file, zoo, entries=[0], own=OWN)
    assert [e.card.name for e in list_zoo(zoo)] == ["caffe", "mine", "sen12ms-rgb"]
    assert mine.card.licence == "CC-BY-4.0" and "Inferred" not in mine.card.description
    for bad in ([3], [-1], [0, 0]):
        with pytest.raises(ConfigError, match="expected distinct numbers from 0 to 2"):
            import_file(file, zoo, entries=bad)
    with pytest.raises(ConfigError, match="one description for 3 encoders"):
        import_file(file, zoo, own=OWN)


def test_nothing_is_written_unless_all_is_well(tmp_path: Path):
    broken = entry("caffe", 3)
    broken[1]["stages_3.blocks.1.mlp.fc2.bias"][0] = float("nan")
    with pytest.raises(CardError, match=r"caffe .*contains NaN or Inf"):
        import_file(saved(tmp_path / "e.pth", [entry("eurosat", 3), broken]), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
    good = saved(tmp_path / "g.pth", [entry("eurosat", 3), entry("caffe", 3)])
    import_file(good, tmp_path / "zoo", entries=[1])
    before = tree(tmp_path / "zoo")
    with pytest.raises(OutputError, match="exists already"):
        import_file(good, tmp_path / "zoo")
    assert tree(tmp_path / "zoo") == before
    assert len(import_file(good, tmp_path / "zoo", overwrite=True)) == 2


def test_weights_whose_features_overflow_are_refused(tmp_path: Path):
    weights = {k: v * 1e30 for k, v in random_weights(3, 1).items()}
    with pytest.raises(CorruptArtifact, match="features of a mean image are not finite"):
        import_file(saved(tmp_path / "e.pth", [(3, weights, {"name": "caffe"})]), tmp_path / "zoo")


# ---- checkpoints ----


def facebook(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names as those of facebookresearch/ConvNeXt-V2, with its shapes."""
    out = {}
    for k, v in weights.items():
        k = re.sub(r"^stem_(\d)", r"downsample_layers.0.\1", k)
        k = re.sub(r"^stages_(\d)\.downsample\.(\d)", r"downsample_layers.\1.\2", k)
        k = re.sub(r"^stages_(\d)\.blocks\.(\d+)", r"stages.\1.\2", k)
        k = k.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("mlp.grn.weight", "grn.gamma")
        k = k.replace("mlp.grn.bias", "grn.beta")
        v = v.view(1, 1, 1, -1) if "grn" in k else v.flatten(1) if re.search(r"pwconv\d\.weight", k) else v
        out[k] = v
    return out


def whole_model(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {re.sub(r"^(stem|stages)_(\d)", r"\1.\2", k): v for k, v in weights.items()}


WEIGHTS = random_weights(3, 11)
LAYOUTS = {
    "bare feature list": WEIGHTS,
    "lightning": {"epoch": 3, "hyper_parameters": {"model_args": {"backbone_in_chans": 3}}, "optimizer_states": [{"state": {}}],
                  "state_dict": {f"model.encoder.{k}": v for k, v in WEIGHTS.items()}
                  | {"model.decoder.conv.weight": torch.zeros(4, 4), "model.head.bias": torch.zeros(2)}},
    "old terratorch": {"state_dict": {f"model.encoder._timm_module.{k}": v for k, v in WEIGHTS.items()}},
    "backbone, whole model": {"state_dict": {f"backbone.{k}": v for k, v in whole_model(WEIGHTS).items()}},
    "whole timm model": whole_model(WEIGHTS) | {"head.norm.weight": torch.ones(320), "head.fc.bias": torch.zeros(5)},
    "facebookresearch": {"model": facebook(WEIGHTS) | {"norm.weight": torch.ones(320), "head.weight": torch.zeros(5, 320)}},
    "half precision": {k: v.half() for k, v in WEIGHTS.items()},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_encoder(tmp_path: Path, layout: str):
    (done,) = import_file(saved(tmp_path / "x.ckpt", LAYOUTS[layout]), tmp_path / "zoo", own=OWN)
    stored = load_specialist(tmp_path / "zoo" / "mine")[0].tensors()
    expected = {k: v.half().float() for k, v in WEIGHTS.items()} if layout == "half precision" else WEIGHTS
    assert stored.keys() == expected.keys()
    assert all(torch.equal(stored[k], v) for k, v in expected.items())
    if layout == "lightning":
        assert done.notes == ("left out of the file: model.decoder, model.head",)


def test_facebook_names_map_as_timm_maps_them():
    theirs = checkpoint_filter_fn(
        {"model": facebook(WEIGHTS) | {"norm.weight": torch.ones(320)}},
        timm.create_model("convnextv2_atto", num_classes=0),
    )
    ours = {foreign._our_name(k): foreign._our_shape(foreign._our_name(k), v) for k, v in facebook(WEIGHTS).items()}
    assert whole_model(ours).keys() == theirs.keys() - {"head.norm.weight"}
    assert all(torch.equal(v, theirs[k]) for k, v in whole_model(ours).items())


def test_safetensors_are_read_too(tmp_path: Path):
    save_file(whole_model(WEIGHTS), tmp_path / "m.safetensors")
    (done,) = import_file(tmp_path / "m.safetensors", tmp_path / "zoo", own=OWN)
    assert done.card.weights.parameters == 3_386_760


def test_an_undescribed_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"does not say what its 3 channels are: describe it .*--bands"):
        import_file(saved(tmp_path / "x.ckpt", WEIGHTS), tmp_path / "zoo")


def test_a_description_of_other_bands_is_refused(tmp_path: Path):
    four = replace(OWN, bands="sentinel-2-l2a:B02,B03,B04,B08@dn-1e4", mean=(0.0,), std=(1e4,))
    with pytest.raises(CardError, match=r"described with 4 bands .*, but the weights read 3 channels"):
        import_file(saved(tmp_path / "x.ckpt", WEIGHTS), tmp_path / "zoo", own=four)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"std": (1.0, 1.0)}, ConfigError, "2 values of std for 3 bands"),
        ({"std": (1.0, 0.0, 1.0)}, ConfigError, "no std of 0"),
        ({"mean": (float("nan"),)}, ConfigError, "finite"),
        ({"task": "magic"}, ConfigError, "unknown task 'magic'"),
        ({"name": "../x"}, CardError, "expected 1-80"),
        ({"bands": "sentinel-2-l2a:B04,B03,B02"}, UnitError, "no unit declared"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(
    change: dict[str, Any], error: type[EosfmError], message: str
):
    with pytest.raises(error, match=message):
        replace(OWN, **change)


def test_several_encoders_in_a_checkpoint_must_be_told_apart(tmp_path: Path):
    other = random_weights(3, 12)
    both = {f"model.encoder.{k}": v for k, v in WEIGHTS.items()} | {f"ema.encoder.{k}": v for k, v in other.items()}
    file = saved(tmp_path / "x.ckpt", {"state_dict": both})
    with pytest.raises(ZooError, match=r"several encoders, at 'ema\.encoder\.', 'model\.encoder\.'; .*--prefix"):
        import_file(file, tmp_path / "zoo", own=OWN)
    with pytest.raises(ZooError, match=r"no encoder at 'nowhere\.'"):
        import_file(file, tmp_path / "zoo", own=OWN, prefix="nowhere")
    import_file(file, tmp_path / "zoo", own=OWN, prefix="model.encoder")
    assert torch.equal(
        load_specialist(tmp_path / "zoo" / "mine")[0].tensors()["stem_0.weight"], WEIGHTS["stem_0.weight"]
    )


OTHERS = {
    "resnet": (
        lambda: {"conv1.weight": torch.zeros(64, 3, 7, 7)},
        "no ConvNeXt stem .* another architecture.*--architecture resnet18",
    ),
    "nano": (lambda: timm.create_model("convnextv2_nano").state_dict(), r"stem is \(80, 3, 4, 4\)"),
    "convnext 1": (lambda: timm.create_model("convnext_atto").state_dict(), "no response normalisation"),
    "missing": (
        lambda: {k: v for k, v in WEIGHTS.items() if "stages_3" not in k},
        "not convnextv2_atto weights: missing",
    ),
    "wrong shape": (
        lambda: WEIGHTS | {"stem_0.bias": torch.zeros(41)},
        r"stem_0.bias: shape \(41,\), expected \(40,\)",
    ),
    "extra": (lambda: WEIGHTS | {"stages_0.blocks.7.gamma": torch.zeros(1)}, "extra stages_0.blocks.7.gamma"),
    "integers": (lambda: WEIGHTS | {"stem_0.bias": torch.zeros(40, dtype=torch.int32)}, "stored as torch.int32"),
    "infinite": (lambda: WEIGHTS | {"stem_0.bias": torch.full((40,), torch.inf)}, "contains NaN or Inf"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_architectures_and_broken_ones_are_refused(tmp_path: Path, case: str):
    make, message = OTHERS[case]
    with pytest.raises(CardError, match=message):
        import_file(saved(tmp_path / "x.ckpt", make()), tmp_path / "zoo", own=OWN)
    assert not (tmp_path / "zoo").exists()


def test_a_published_entry_of_another_backbone_is_refused(tmp_path: Path):
    with pytest.raises(CardError, match=r"entry 0: a 'timm_resnet50', which cannot be imported from a list"):
        import_file(saved(tmp_path / "e.pth", [entry("caffe", 3, backbone="timm_resnet50")]), tmp_path / "zoo")


# ---- hostile files ----


class Payload:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def rezip(source: Path, target: Path, *, change: dict[str, bytes] | None = None, compress: bool = False,
          add: tuple[tuple[str, bytes], ...] = ()) -> Path:  # fmt: skip
    """A copy of a torch file with members changed, added or compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", 8 if compress else 0) as new:
        for member in old.infolist():
            data = old.read(member)
            for name, replacement in (change or {}).items():
                data = replacement if member.filename.endswith(name) else data
            new.writestr(member.filename, data)
        for name, data in add:
            new.writestr(name, data)
    return target


def stretched(path: Path) -> Path:
    """A tensor of two thousand million numbers that is one number in the file."""
    state = random_weights(3, 1) | {"stem_0.weight": torch.zeros(1).expand(40, 3, 4, 4_000_000)}
    return saved(path, [(3, state, {"name": "caffe"})])


def hostile(case: str, tmp_path: Path) -> Path:
    good = saved(tmp_path / "good.pth", [entry("caffe", 3)])
    bad = tmp_path / "bad.pth"
    match case:
        case "payload":
            return saved(bad, [(3, random_weights(3, 1), {"name": "caffe", "x": Payload(tmp_path / "ran")})])
        case "payload in a checkpoint":
            return saved(bad, {"state_dict": random_weights(3, 1), "callbacks": Payload(tmp_path / "ran")})
        case "truncated":
            bad.write_bytes(good.read_bytes()[:-1000])
        case "empty":
            bad.write_bytes(b"")
        case "text":
            bad.write_text("hello")
        case "changed":
            data = bytearray(good.read_bytes())
            data[len(data) // 2] ^= 1
            bad.write_bytes(data)
        case "old format":
            torch.save([entry("caffe", 3)], bad, _use_new_zipfile_serialization=False)
        case "truncated pickle":
            torch.save([entry("caffe", 3)], bad, _use_new_zipfile_serialization=False)
            bad.write_bytes(bad.read_bytes()[:5000])
        case "pickled payload":
            bad.write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
        case "pointer":
            bad.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13\n")
        case "web page":
            bad.write_text("\n<!DOCTYPE html><html><body>404</body></html>")
        case "safetensors of another name":
            save_file({"a": torch.zeros(3)}, bad)
        case "truncated safetensors":
            save_file({"a": torch.zeros(3000)}, bad.with_suffix(".safetensors"))
            with (bad := bad.with_suffix(".safetensors")).open("rb+") as f:
                f.truncate(1000)
        case "compressed bomb":
            return rezip(good, bad, compress=True, add=(("good/data/bomb", bytes(50_000_000)),))
        case "leads out":
            return rezip(good, bad, add=(("good/../../etc/passwd", b"x"),))
        case "absolute":
            return rezip(good, bad, add=(("/etc/passwd", b"x"),))
        case "torchscript":
            return rezip(good, bad, add=(("good/code/__torch__.py", b"x"), ("good/constants.pkl", b"x")))
        case "broken pickle":
            return rezip(good, bad, change={"data.pkl": b"\x80\x02]q\x00("})
        case "not an archive of torch":
            with zipfile.ZipFile(bad, "w") as z:
                z.writestr("readme.txt", "hello")
        case "stretched":
            return stretched(bad)
        case "a tensor":
            return saved(bad, torch.zeros(3))
        case "empty list":
            return saved(bad, [])
        case "empty dict":
            return saved(bad, {})
        case "too many entries":
            return saved(bad, [0] * 1000)
        case "nested junk":
            junk: Any = [entry("caffe", 3)]
            for _ in range(400):
                junk = [junk]
            return saved(bad, junk)
        case "wrong tuple":
            return saved(bad, [(3, random_weights(3, 1))])
        case "wrong types":
            return saved(bad, [("3", random_weights(3, 1), {"name": "caffe"})])
        case "state dict of lists":
            return saved(bad, [(3, {"stem_0.weight": [1, 2, 3]}, {"name": "caffe"})])
        case "name of lists":
            return saved(bad, [(3, random_weights(3, 1), {"name": ["caffe"]})])
        case "other channels":
            return saved(bad, [(3, random_weights(5, 1), {"name": "caffe"})])
        case "too many tensors":
            return saved(bad, [(3, {str(i): i for i in range(30_000)}, {"name": "caffe"})])
        case "sparse":
            state = random_weights(3, 1) | {"stem_0.bias": torch.zeros(40).to_sparse()}
            return saved(bad, [(3, state, {"name": "caffe"})])
        case "two names for one tensor":
            return saved(bad, [(3, random_weights(3, 1) | {"stem.0.bias": torch.zeros(40)}, {"name": "caffe"})])
    return bad


HOSTILE = {
    "payload": r"more than tensors and plain values \(.*open\)",
    "payload in a checkpoint": r"more than tensors and plain values \(.*open\).*save the tensors alone",
    "truncated": r"breaks off after \d+ bytes.*fetch it again",
    "empty": "an empty file. Expected a file of torch.save",
    "text": "neither a file of torch.save.*begins with b'hello'",
    "changed": "does not have its checksum|not a readable zip",
    "old format": r"a bare pickle.*saves it again.*Expected a file of torch\.save \(PyTorch 1\.6 or later\)",
    "truncated pickle": "a bare pickle, whole or not.*it is not read",
    "pickled payload": "a bare pickle, whole or not.*it is not read",
    "pointer": "a pointer of Git LFS.*git lfs pull",
    "web page": "a web page, not the weights",
    "safetensors of another name": "looks like safetensors.*NAME.safetensors",
    "truncated safetensors": "not a valid safetensors file",
    "compressed bomb": "is compressed or encrypted",
    "leads out": "leads out of the archive",
    "absolute": "leads out of the archive",
    "torchscript": "TorchScript archive holds a program",
    "broken pickle": "bad.pth: ",
    "not an archive of torch": "bad.pth: ",
    "stretched": "claims 1920000000|claims 7680000000|claims 1\\d+ numbers",
    "a tensor": r"holds a tensor \(3,\)",
    "empty list": "a list of 0",
    "empty dict": "no tensors under names",
    "too many entries": "a list of 1000",
    "nested junk": "expected \\(in_chans, state_dict, config\\), got list of 1",
    "wrong tuple": "got tuple of 2",
    "wrong types": "expected \\(int, dict of tensors, dict\\), got \\(str",
    "state dict of lists": "no tensors under names",
    "name of lists": "its name is list of 1",
    "other channels": "declares 3 input channels, its stem reads 5",
    "too many tensors": "30000 tensors; at most",
    "sparse": "not a plain tensor",
    "two names for one tensor": "two tensors both become stem_0.bias",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_broken_files_are_refused_and_nothing_runs(tmp_path: Path, case: str):
    file = hostile(case, tmp_path)
    with pytest.raises(CorruptArtifact, match=HOSTILE[case]) as e:
        import_file(file, tmp_path / "zoo", own=None)
    assert str(file) in str(e.value)
    assert not (tmp_path / "ran").exists(), "code in the file was run"
    assert not (tmp_path / "zoo").exists()


def test_a_structure_with_any_byte_changed_is_read_or_refused(tmp_path: Path):
    """Checksums made right again, so that PyTorch's restricted reader sees the damage: an error of ours, or plain weights."""
    good = saved(
        tmp_path / "good.pth", [(3, {k: WEIGHTS[k] for k in ("stem_0.weight", "stem_0.bias")}, {"name": "caffe"})]
    )
    with zipfile.ZipFile(good) as z:
        pickled = z.read("good/data.pkl")
    rng = random.Random(0)
    refused = 0
    for _ in range(400):
        data = bytearray(pickled)
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file = rezip(good, tmp_path / "bad.pth", change={"data.pkl": bytes(data)})
        try:
            read_foreign(file)
        except EosfmError:
            refused += 1
    assert refused == 400, "two tensors are no encoder, damaged or not"


def test_the_payload_would_have_run(tmp_path: Path):
    """The test above tests something: an ordinary unpickling of the same file does create the file."""
    file = hostile("payload", tmp_path)
    torch.load(file, weights_only=False)
    assert (tmp_path / "ran").exists()


def test_a_file_of_absurd_size_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "huge.pth").open("wb") as f:
        f.truncate(foreign.MAX_BYTES + 1)  # sparse: takes no disk
    with pytest.raises(CorruptArtifact, match=f"{foreign.MAX_BYTES + 1} bytes; at most"):
        read_foreign(tmp_path / "huge.pth")
    with pytest.raises(CorruptArtifact, match="no such file"):
        read_foreign(tmp_path / "nothing.pth")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("folder", "a folder; name the weights file in it"),
        ("specialist", "a folder; it is a specialist already: copy the folder into the zoo"),
        ("pipe", "not a plain file but a pipe"),
        ("link", "no such file, but a link that leads to none"),
        ("loop", "cannot be read: Too many levels of symbolic links"),
        ("nothing", "no such file"),
    ],
)
@pytest.mark.parametrize("architecture", [None, "resnet18"])
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path, what: str, says: str, architecture: str | None):
    """A folder and a pipe were "no such file", with both before the eyes."""
    path = tmp_path / "x.pth"
    match what:
        case "folder":
            path.mkdir()
        case "specialist":
            path.mkdir()
            (path / "card.json").write_text("{}")
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(tmp_path / "gone")
        case "loop":
            path.symlink_to(path)
    with pytest.raises(CorruptArtifact, match=rf"x\.pth: {says}.*Expected a file of torch\.save"):
        if architecture is None:
            import_file(path, tmp_path / "zoo", own=OWN)
        else:
            import_backbone(path, architecture, OWN, tmp_path / "zoo")


def test_two_members_of_one_name_are_refused(tmp_path: Path):
    good = saved(tmp_path / "good.pth", [entry("caffe", 3)])
    with pytest.warns(UserWarning, match="Duplicate name"):
        rezip(good, tmp_path / "bad.pth", add=(("good/data.pkl", b"x"),))
    with pytest.raises(CorruptArtifact, match="two members of one name"):
        read_foreign(tmp_path / "bad.pth")


def test_reading_does_not_move_the_random_state(tmp_path: Path):
    file = saved(tmp_path / "e.pth", [entry("caffe", 3)])
    before = torch.get_rng_state()
    import_file(file, tmp_path / "zoo")
    assert torch.equal(torch.get_rng_state(), before)


# ---- timm ----


@pytest.fixture
def timm_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    weights = whole_model(random_weights(3, 21)) | {"head.norm.weight": torch.ones(320)}
    save_file(weights, tmp_path / "hub.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(tmp_path / "hub.safetensors"))
    return weights


def test_timm_weights_arrive_with_imagenet_statistics_and_their_licence(tmp_path: Path, timm_hub):
    done = import_timm("convnextv2_atto.fcmae", tmp_path / "zoo")
    encoder, card = load_specialist(tmp_path / "zoo" / "imagenet-fcmae")
    assert card.licence == "CC-BY-NC-4.0" and str(card.bandset()) == "rgb:R,G,B@8bit" and done.card == card
    assert card.task.kind == "masked-autoencoder"
    assert torch.equal(encoder.tensors()["stem_0.weight"], timm_hub["stem.0.weight"])
    cfg = timm.get_pretrained_cfg("convnextv2_atto.fcmae")
    torch.testing.assert_close(torch.tensor(card.statistics.mean) / 255, torch.tensor(cfg.mean))
    torch.testing.assert_close(torch.tensor(card.statistics.std) / 255, torch.tensor(cfg.std))


def test_timm_has_no_other_names(tmp_path: Path, timm_hub):
    for name in ("resnet50", "convnextv2_nano.fcmae", "../x", ""):
        with pytest.raises(ConfigError, match=r"timm has no weights .*known: convnextv2_atto\.fcmae"):
            import_timm(name, tmp_path / "zoo", store_as="x")
    assert not (tmp_path / "zoo").exists()


def test_timm_offline_without_a_cache_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def nothing(*_: str) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", nothing)
    with pytest.raises(ConfigError, match=r"hf download timm/convnextv2_atto\.fcmae .*HF_HOME") as e:
        import_timm("convnextv2_atto.fcmae", tmp_path / "zoo")
    assert "init:" not in str(e.value)
    assert not (tmp_path / "zoo").exists()


def test_an_8_bit_import_reads_no_reflectance_without_statistics(tmp_path: Path, timm_hub):
    """The imported card is used by the ordinary rules: 8 bit does not silently become reflectance."""
    import_timm("convnextv2_atto.fcmae", tmp_path / "zoo")
    _, card = load_specialist(tmp_path / "zoo" / "imagenet-fcmae")
    from eosfm.ensemble import Ensemble

    encoder = load_specialist(tmp_path / "zoo" / "imagenet-fcmae")[0]
    with pytest.raises((AdaptationError, EosfmError), match="input's own statistics are needed"):
        Ensemble([(encoder, card)], replace(OWN).bandset(), on_skip="raise")
