"""ConvNeXtV2-Atto and other architectures in one ensemble: every step from `compose` to `predict` takes both."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import eosfm
from eosfm.adaptation import adapt
from eosfm.bands import BandSet
from eosfm.benchmark.baselines import untrained
from eosfm.composition import compose, load, save_ensemble
from eosfm.contracts import ConfigError
from eosfm.data.worlds import synthetic_chips
from eosfm.engine.fused import fused
from eosfm.ensemble import Ensemble, Specialist
from eosfm.explain.contributions import SubsetScorer
from eosfm.fusion.fuse import FUSIONS, make_fusion
from eosfm.inference.raster import georeference, write_scene
from eosfm.specialists.backbone import FrozenBackbone, plan_pyramid
from eosfm.specialists.hub import pull, push
from eosfm.specialists.stac import problems, stac_item
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.specialists.zoo import find, verify_zoo
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.training.initial import start_from
from helpers import TINY, equal, image, make_card, make_specialist, statistics_of, tree
from specialists.test_zoo_world import REPO, FolderHub
from test_cli import call

HLS = BandSet.parse("hls:all@reflectance")
ATTO_CHANNELS = (40, 80, 160, 320)
MIXING = ["concat", "conv1x1", "mlp"]


@cache
def foreign(name: str = "net", architecture: str = "resnet18", bands: str = TINY["s2-rgb"]) -> Specialist:
    """A specialist of another architecture with random weights. Cached, so do not change it."""
    channels = len(BandSet.parse(bands))
    pyramid = plan_pyramid(architecture, channels, 64, resample=architecture.startswith("vit"))
    card = make_card(name, bands, architecture=architecture, pyramid=pyramid)
    torch.manual_seed(5)
    return FrozenBackbone(architecture, channels, 64, pyramid), card


def members() -> list[Specialist]:
    """Two of ours around two others, so that every column of a fusion has a neighbour of another width."""
    vit = foreign("vit", "vit_tiny_patch16_224", TINY["s2-six"])
    return [make_specialist("s2-six", TINY["s2-six"]), foreign(), vit, make_specialist("s2-rgb", TINY["s2-rgb"], 1)]


def mixed(fusion: str = "conv1x1", normalise: str = "none", of: list[Specialist] | None = None) -> Ensemble:
    ens = Ensemble(of or members(), HLS, statistics=statistics_of(HLS), fusion=fusion, normalise=normalise)
    with torch.no_grad():
        for p in ens.fusion.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return ens.eval()


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    for encoder, card in members():
        save_specialist(encoder, card, tmp_path / "zoo")
    return tmp_path / "zoo"


def close(a, b, tolerance: float = 1e-5) -> bool:
    with torch.no_grad():
        return all(float((x - y).norm()) <= tolerance * (1 + float(x.norm())) for x, y in zip(a, b, strict=True))


# ---- the fusion ----


def test_a_fusion_of_different_widths_is_one_convolution_over_all_channels():
    ens, x = mixed(), image(HLS)
    widths = [(64, 128, 256, 512) if v.specialist == "net" else (192,) * 4 if v.specialist == "vit" else ATTO_CHANNELS
              for v in ens.views]  # fmt: skip
    assert ens.fusion.widths == widths and ens.out_channels == list(ATTO_CHANNELS)
    table = {c.name: e for e, c in members()}
    features = [table[v.specialist](adapt(x, v)) for v in ens.views]
    for level, m in enumerate(ens(x)):
        conv = ens.fusion.convs[level]
        stacked = torch.cat([f[level] for f in features], 1)
        expected = torch.einsum("oc,bchw->bohw", conv.weight[:, :, 0, 0], stacked) + conv.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(m, expected, rtol=1e-4, atol=1e-4)
    assert mixed("concat").out_channels == [sum(w[i] for w in widths) for i in range(4)]


@pytest.mark.parametrize("fusion", sorted(set(FUSIONS) - set(MIXING)))
def test_a_fusion_that_adds_up_maps_refuses_other_widths(zoo: Path, tmp_path: Path, fusion: str):
    with pytest.raises(ConfigError, match=rf"a {fusion} fusion needs maps of \(40, 80, 160, 320\).*conv1x1"):
        mixed(fusion)
    with pytest.raises(ConfigError, match="Fuse with conv1x1, mlp or concat"):
        compose(zoo, tmp_path / "e", fusion=fusion)
    assert not (tmp_path / "e").exists()
    with pytest.raises(ConfigError, match="1 widths for 2 views"):
        make_fusion("conv1x1", 2, "none", [ATTO_CHANNELS])


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
@pytest.mark.parametrize("fusion", MIXING)
def test_pruning_equals_ablating_whatever_the_widths(fusion: str, normalise: str):
    ens, x = mixed(fusion, normalise), image(HLS)
    names = {c.name for c in ens.cards}
    for keep in ({"net"}, {"s2-rgb", "vit"}, {"s2-six", "net", "vit"}):
        ens.ablate(names - keep)
        ablated = ens(x)
        small = ens.pruned(keep)
        if fusion == "concat":  # the ablated views are zeros there, and gone here
            kept = [
                torch.tensor([v.specialist in keep for v, w in zip(ens.views, ens.fusion.widths, strict=True)
                              for _ in range(w[i])]) for i in range(4)
            ]  # fmt: skip
            assert not any(m[:, ~k].any() for m, k in zip(ablated, kept, strict=True))
            ablated = [m[:, k] for m, k in zip(ablated, kept, strict=True)]
        assert close(small(x), ablated)
        ens.ablate([])


@pytest.mark.parametrize("fusion", ["conv1x1", "mlp"])
def test_one_of_another_width_is_added_in_silence(fusion: str):
    ours, x = [members()[0]], image(HLS)
    old = Ensemble(ours, HLS, statistics=statistics_of(HLS), fusion=fusion, normalise="batch").eval()
    new = old.extended([foreign()]).eval()
    assert new.fusion.widths[-1] == (64, 128, 256, 512)
    assert close(old(x), new(x)) and equal(new.pruned(["s2-six"])(x), old(x))


# ---- the fast plan ----


@pytest.mark.parametrize("fusion", MIXING)
def test_the_fast_plan_runs_them_as_they_are(fusion: str):
    ens, x = mixed(fusion), image(HLS)
    x[0, 0, 3, 4] = torch.nan
    plan = fused(ens)
    assert plan.plain == ["net", "vit"]
    with torch.inference_mode():
        assert close(ens(x), plan(x)) and all(close(a, b) for a, b in zip(ens.encode(x), plan.encode(x), strict=True))
        ens.ablate(["net", "s2-six"])
        assert close(ens(x), plan(x))
        silent = [v.specialist in ("net", "s2-six") for v in ens.views]
        for quiet, a, b in zip(silent, ens.encode(x), plan.encode(x), strict=True):
            assert [m.shape for m in a] == [m.shape for m in b]
            assert not quiet or not any(m.any() for m in b)
        pairs = list(zip(mixed(fusion)(x), fused(mixed(fusion), precision="bf16")(x), strict=True))
    for a, b in pairs:
        assert float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.9999
    assert fused(Ensemble([members()[0]], HLS, statistics=statistics_of(HLS))).plain == []


# ---- what is built on an ensemble ----


@pytest.mark.parametrize("fusion", MIXING)
def test_a_subset_equals_ablating_the_others(fusion: str):
    chips = synthetic_chips("burn-scars", HLS, 3, size=32)
    task = TaskSpec(kind=chips.kind, classes=chips.classes, chip_size=32, head=HeadConfig(decoder="linear", channels=8))
    model = TaskModel(mixed(fusion), task).eval()
    scorer = SubsetScorer(model, chips)
    x, _ = chips.batch(range(3))
    for kept in combinations(scorer.names, 2):
        model.encoder.ablate(set(scorer.names) - set(kept))
        with torch.inference_mode():
            expected = model(x)
        model.encoder.ablate([])
        got = scorer.logits(scorer.subset(kept), range(3))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_an_untrained_one_keeps_its_architecture():
    (encoder, card), (again, same) = foreign(), untrained([foreign()], 3)[0]
    assert card == same and again.out_channels == encoder.out_channels
    assert not torch.equal(again.tensors()["conv1.weight"], encoder.tensors()["conv1.weight"])


def test_ours_do_not_start_from_another_architecture(zoo: Path):
    with pytest.raises(ConfigError, match="init 'net': a resnet18; what is trained here is convnextv2_atto"):
        start_from("net", BandSet.parse("rgb:R,G,B@8bit"), zoo, 0)


def test_it_is_stored_loaded_and_shared(zoo: Path, tmp_path: Path):
    assert {p for _, p in verify_zoo(zoo)} == {""}
    ens, x = mixed("mlp", of=[load_specialist(e.folder) for e in find(zoo)]), image(HLS)
    assert close(ens(x), mixed("mlp", of=sorted(members(), key=lambda s: s[1].name))(x))
    save_ensemble(ens, tmp_path / "e", zoo)
    assert equal(load(tmp_path / "e")(x), ens(x))
    alone = eosfm.load(zoo / "net", bands=HLS, statistics=statistics_of(HLS))
    assert alone.out_channels == list(ATTO_CHANNELS)
    hub = FolderHub(tmp_path / "hub")
    done = push(zoo, ["net", "s2-rgb"], REPO, hub=hub)
    pull(REPO, done.commit, tmp_path / "pulled", hub=hub)
    assert tree(tmp_path / "pulled" / "net") == tree(zoo / "net")
    assert load_specialist(tmp_path / "pulled" / "net")[1].architecture == "resnet18"
    item = stac_item(find(zoo, ["net"])[0].card, "net")
    assert not problems(item) and item["properties"]["mlm:architecture"] == "resnet18"
    assert [o["result"]["shape"][1] for o in item["properties"]["mlm:output"]] == [64, 128, 256, 512]


def test_from_compose_to_predict_on_the_command_line(zoo: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(monkeypatch, capsys, "compose", "zoo", "ens")
    assert code == 0, err
    task = {
        "name": "burn", "zoo": "zoo", "head": {"decoder": "linear", "channels": 8},
        "data": {"kind": "synthetic", "task": "burn-scars", "bands": str(HLS), "size": [4, 4, 4], "chip_size": 32},
        "fit": {"epochs": 2, "batch_size": 2, "learning_rate": 0.01},
    }  # fmt: skip
    Path("task.yaml").write_text(yaml.safe_dump(task))
    code, _, err = call(monkeypatch, capsys, "adapt", "task.yaml")
    assert code == 0, err
    where = georeference("EPSG:32631", 500000.0, 4800000.0, 10.0)
    pixels = np.random.default_rng(0).random((6, 70, 80), dtype=np.float32) * 0.4
    write_scene(Path("s.tif"), pixels, HLS, where)
    code, _, err = call(monkeypatch, capsys, "predict", "models/burn", "s.tif", "map.tif")
    assert code == 0 and Path("map.tif").exists(), err
    model, _ = eosfm.load_task_model(tmp_path / "models" / "burn")
    assert {c.name for c in model.encoder.cards} == {"net", "vit", "s2-rgb", "s2-six"}
    for name in ("net", "vit"):
        assert equal(
            list(model.encoder.encoders[[c.name for c in model.encoder.cards].index(name)].tensors().values()),
            list(load_specialist(zoo / name)[0].tensors().values()),
        )
