"""Task models: any image size in, the same size out; checkpoints without specialists; round trips bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from eosfm.bands import BandSet
from eosfm.config import read_record
from eosfm.contracts import ConfigError, CorruptArtifact, EosfmError, ZooError
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError, sha256_file
from eosfm.specialists.card import DataInfo, Metric, TrainingInfo
from eosfm.specialists.encoder import pad
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.tasks.kinds import KINDS, OBJECTS
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec, fingerprint, is_frozen_key, probabilities
from eosfm.tasks.scene import SceneFeatures, SceneTaskModel
from eosfm.tasks.stored import TaskCard, load_task_model, load_trainable, save_task_model  # fmt: skip
from helpers import TINY, edit_json, full_disk, image, make_specialist, statistics_of, tree

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4 + sentinel-1:VV,VH@db")
LIGHT = HeadConfig(decoder="linear", channels=8)
INFO = {"data": DataInfo(name="noise", licence="CC0-1.0"), "training": TrainingInfo()}


def spec(kind: str = "segmentation", **changes) -> TaskSpec:
    return TaskSpec(**({"kind": kind, "classes": ("a", "b", "c"), "chip_size": 64, "head": LIGHT} | changes))


def model_of(zoo: Path, task: TaskSpec, **changes) -> TaskModel:
    """A task model over ``zoo`` whose weights are not those a constructor makes."""
    specialists = [load_specialist(f) for f in sorted(zoo.iterdir())]
    model = TaskModel(Ensemble(specialists, BANDS, statistics=statistics_of(BANDS), **changes), task)
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.normal_(0, 0.05)
        model.train()(image(BANDS, 2, 64, seed=9))
    return model.eval()


SMALL = TaskModel(Ensemble([make_specialist("s2-rgb", TINY["s2-rgb"])], BANDS, rules=["subset"]), spec()).eval()


@given(st.integers(1, 70), st.integers(1, 70))
def test_padding_repeats_the_border_and_can_be_cut_off(h: int, w: int):
    x = torch.randn(1, 2, h, w)
    y = pad(x)
    assert y.shape[-2] % 32 == y.shape[-1] % 32 == 0
    assert y.shape[-2] - h < 32
    assert y.shape[-1] - w < 32
    assert torch.equal(y[..., :h, :w], x)
    assert (y[..., h:, :w] == x[..., -1:, :]).all()
    assert (y[..., :h, w:] == x[..., :, -1:]).all()
    assert y is x or (h % 32 or w % 32)


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (32, 64), (50, 37), (100, 5)])
def test_the_output_has_the_image_s_size(size: tuple[int, int]):
    with torch.no_grad():
        out = SMALL(image(BANDS, 1, size))
    assert out.shape == (1, 3, *size)
    assert out.isfinite().all()


def test_the_output_is_the_padded_image_s_output_cut_back():
    x = image(BANDS, 1, (50, 37))
    with torch.no_grad():
        assert torch.equal(SMALL(x), SMALL(pad(x))[..., :50, :37])


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in OBJECTS])
def test_every_kind_gives_its_shape_and_probabilities(kind: str):
    classes = ("height",) if kind == "regression" else ("a", "b", "c")
    model = TaskModel(SMALL.encoder, spec(kind, classes=classes)).eval()
    with torch.no_grad():
        z = model(image(BANDS, 2, 32))
    per_scene = kind in ("classification", "multilabel")
    assert z.shape == ((2, 3) if per_scene else (2, len(classes), 32, 32))
    p = probabilities(kind, z)
    assert p.shape == z.shape
    if kind in ("segmentation", "classification"):
        torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
    elif kind == "multilabel":
        torch.testing.assert_close(p, 1 / (1 + (-z).exp()))
    else:
        assert p is z


def test_features_computed_before_give_the_same_output():
    x = image(BANDS, 2, 64)
    with torch.no_grad():
        expected = SMALL(x)
        tolerance = 1e-5 * float(expected.abs().max())  # a linear head: tests/parity/test_linear_head.py
        torch.testing.assert_close(SMALL.from_features(SMALL.encoder.encode(x)), expected, rtol=0, atol=tolerance)


# checkpoints ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_holds_everything_that_is_trained_and_no_specialist(own_zoo: Path):
    model = model_of(own_zoo, spec(), normalise="batch")
    stored = model.trainable_tensors()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained <= stored.keys()
    assert any("running_mean" in k for k in stored)
    assert not any(k.startswith("encoder.encoders") for k in stored)
    frozen = set(model.state_dict()) - stored.keys()
    assert frozen == {k for k in model.state_dict() if k.startswith("encoder.encoders.")}
    assert sum(t.numel() for t in stored.values()) < 500_000


@pytest.mark.parametrize(
    ("key", "frozen"),
    [("encoder.encoders.0.body.stem_0.weight", True), ("encoders.0.x", True), ("model.encoder.encoders.1.x", True),
     ("encoder.fusion.convs.0.weight", False), ("head.classify.weight", False), ("encoder.encoder.x", False),
     ("head.my_encoders.x", False)],
)  # fmt: skip
def test_frozen_keys(key: str, frozen: bool):
    assert is_frozen_key(key) is frozen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fusion", "normalise"), [("conv1x1", "none"), ("mlp", "batch"), ("sum", "layer")])
def test_a_task_model_round_trips_bit_by_bit(own_zoo: Path, tmp_path: Path, kind: str, fusion: str, normalise: str):
    head = HeadConfig(decoder="unet", channels=8, norm="batch")
    model = model_of(own_zoo, spec(kind, head=head), fusion=fusion, normalise=normalise)
    metric = Metric(name="miou", value=0.5, split="test", samples=3, seed=0)
    card = save_task_model(model, tmp_path / "task", own_zoo, name="t", metrics=[metric], **INFO)
    again, stored = load_task_model(tmp_path / "task")
    assert stored == card
    assert stored.task == model.task
    assert not again.training
    x = image(BANDS, 1, (40, 33))
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert fingerprint(again) == fingerprint(model)
    assert not set(load_file(tmp_path / "task" / "model.safetensors")) & {
        k for k in model.state_dict() if is_frozen_key(k)
    }


@pytest.fixture
def stored(own_zoo: Path, tmp_path: Path) -> Path:
    """A stored task model that a test may damage."""
    save_task_model(model_of(own_zoo, spec()), tmp_path / "task", own_zoo, name="t", **INFO)
    return tmp_path / "task"


def test_another_specialist_under_the_same_name_is_refused(stored: Path, own_zoo: Path):
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 77), own_zoo, overwrite=True)
    with pytest.raises(ZooError, match="another specialist under the same name"):
        load_task_model(stored)


def test_the_zoo_can_be_named(stored: Path, own_zoo: Path, tmp_path: Path):
    own_zoo.rename(tmp_path / "moved")
    with pytest.raises(ZooError, match="no such folder"):
        load_task_model(stored)
    load_task_model(stored, tmp_path / "moved")


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_weights_are_refused(stored: Path, damage: str):
    weights = stored / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    weights.write_bytes(data[:-1] if damage == "truncate" else data)
    if damage == "remove":
        weights.unlink()
    with pytest.raises(CorruptArtifact, match=r"model\.safetensors"):
        load_task_model(stored)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "specialist"])
def test_weights_of_another_model_are_refused(stored: Path, change: str):
    tensors = load_file(stored / "model.safetensors")
    name = "head.classify.weight"
    if change == "missing":
        del tensors[name]
    elif change == "shape":
        tensors[name] = tensors[name][:2].clone()
    else:
        tensors["head.more" if change == "extra" else "encoder.encoders.0.body.stem_0.weight"] = torch.zeros(1)
    save_file(tensors, stored / "model.safetensors")
    size = (stored / "model.safetensors").stat().st_size
    info = {"file": "model.safetensors", "sha256": sha256_file(stored / "model.safetensors"), "bytes": size}
    edit_json(stored / "task.json", weights=info)
    edit_json(stored / "ensemble.json", weights=info)
    with pytest.raises(CorruptArtifact, match=r"does not fit this model: (missing|extra|head)"):
        load_task_model(stored)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": None}, "task: Field required"),
        ({"task": {"kind": "dancing", "classes": ["a"], "chip_size": 64}}, "task kind 'dancing'; known: segmentation"),
        ({"task": {"kind": "segmentation", "classes": [], "chip_size": 64}}, "at least one class"),
        ({"task": {"kind": "segmentation", "classes": ["a"], "chip_size": 65}}, "chip size 65"),
        ({"task": {"kind": "segmentation", "classes": ["a"], "chip_size": 64, "head": {"decoder": 3}}}, "head.decoder"),
        ({"task": {"kind": "segmentation", "classes": ["a"], "chip_size": 64, "head": {"norm": "x"}}}, "head.norm"),
        ({"schema_version": 2}, "schema_version"),
        ({"wheels": 4}, "wheels: unknown key"),
    ],
)
def test_a_wrong_task_card_names_the_file_and_the_key(stored: Path, change: dict, says: str):
    edit_json(stored / "task.json", **change)
    with pytest.raises(CorruptArtifact, match=says) as e:
        load_task_model(stored)
    assert str(stored / "task.json") in str(e.value)


def test_other_classes_than_the_weights_were_trained_for_are_refused(stored: Path):
    task = {
        "kind": "segmentation",
        "classes": ["a", "b"],
        "chip_size": 64,
        "head": {"decoder": "linear", "channels": 8},
    }
    edit_json(stored / "task.json", task=task)
    with pytest.raises(CorruptArtifact, match="does not fit this model"):
        load_task_model(stored)


@pytest.mark.parametrize("name", ["task.json", "ensemble.json"])
def test_a_missing_file_is_named(stored: Path, name: str):
    (stored / name).unlink()
    with pytest.raises(EosfmError, match=name):
        load_task_model(stored)


def test_unknown_decoders_are_refused(stored: Path):
    task = {"kind": "segmentation", "classes": ["a"], "chip_size": 64, "head": {"decoder": "fpn"}}
    edit_json(stored / "task.json", task=task)
    with pytest.raises(ConfigError, match="unknown decoder 'fpn'"):
        load_task_model(stored)


def test_an_existing_model_is_not_replaced_by_accident(stored: Path, own_zoo: Path):
    before = tree(stored)
    with pytest.raises(OutputError, match="exists already"):
        save_task_model(model_of(own_zoo, spec("multilabel")), stored, own_zoo, name="t", **INFO)
    assert tree(stored) == before


def test_a_full_disk_leaves_the_previous_model(stored: Path, own_zoo: Path):
    before = tree(stored.parent)
    with full_disk(50_000), pytest.raises(Exception, match="File too large"):
        save_task_model(model_of(own_zoo, spec("multilabel")), stored, own_zoo, name="t", overwrite=True, **INFO)
    assert tree(stored.parent) == before
    load_task_model(stored)


def test_load_trainable_changes_nothing_when_it_refuses():
    model = TaskModel(SMALL.encoder, spec())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tensors = {k: v + 1 for k, v in model.trainable_tensors().items()}
    tensors.popitem()
    with pytest.raises(CorruptArtifact, match="here: does not fit this model: missing"):
        load_trainable(model, tensors, "here")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_fingerprint_sees_every_weight():
    model = TaskModel(SMALL.encoder, spec())
    before = fingerprint(model)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.head.classify.bias[0] += 1e-3
    assert fingerprint(model) != before


def test_task_specs_and_cards_are_strict():
    with pytest.raises(ConfigError, match=r"kind: |task kind"):
        read_record(TaskSpec, {"kind": "x", "classes": ["a"], "chip_size": 64}, "f")
    with pytest.raises(ConfigError, match="weights: Field required"):
        read_record(TaskCard, {"name": "t"}, "f")


# what inference sees -------------------------------------------------------------------------------------------------


def test_scene_models_give_maps_of_the_chip_s_size():
    x = image(BANDS, 1, 64)
    with torch.inference_mode():
        pixels = SceneTaskModel(SMALL, "id")
        torch.testing.assert_close(pixels.chips(x), SMALL(x).softmax(1), rtol=1e-4, atol=1e-5)
        assert (pixels.kind, pixels.names, pixels.chip_size, pixels.bands) == ("classes", ("a", "b", "c"), 64, BANDS)
        scene = TaskModel(SMALL.encoder, spec("multilabel")).eval()
        whole = SceneTaskModel(scene, "id")
        assert whole.kind == "values"
        out = whole.chips(x)
        assert out.shape == (1, 3, 64, 64)
        torch.testing.assert_close(out, scene(x).sigmoid()[..., None, None].expand_as(out), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", range(4))
def test_scene_features_are_one_level_of_the_fused_pyramid(level: int):
    features = SceneFeatures(SMALL.encoder, level, 64, "id")
    x = image(BANDS, 1, 64)
    with torch.no_grad():
        torch.testing.assert_close(features.chips(x), SMALL.encoder(x)[level], rtol=1e-4, atol=1e-4)
    assert features.stride == 64 // features.chips(x).shape[-1]
    assert len(features.names) == SMALL.encoder.out_channels[level]


def test_the_fast_model_is_the_model_and_leaves_it_alone():
    x = image(SMALL.encoder.bands, 2, 64)
    fast, rough = SMALL.fast("fp32"), SMALL.fast("bf16")
    with torch.inference_mode():
        expected = SMALL(x)
        torch.testing.assert_close(fast(x), expected, rtol=1e-4, atol=1e-4)
        assert rough(x).dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(rough(x).flatten(), expected.flatten(), dim=0) > 0.999
        assert torch.equal(SMALL(x), expected)
    assert SceneTaskModel(SMALL, "id", "bf16").fingerprint != SceneTaskModel(SMALL, "id").fingerprint
