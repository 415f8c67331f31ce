"""One test per silent failure found in a review."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from eosfm.adaptation import plan_views
from eosfm.bands import BandSet
from eosfm.composition import load, save_ensemble
from eosfm.contracts import BandError, CardError, DataError, EosfmError
from eosfm.data.chips import Chips
from eosfm.data.files import DataConfig
from eosfm.data.labels import require_labels
from eosfm.engine.cache import cached_features
from eosfm.ensemble import Ensemble
from eosfm.files import atomic_folder
from eosfm.specialists.card import DataInfo, Metric, TrainingInfo
from eosfm.specialists.store import load_specialist, verify_specialist
from eosfm.specialists.zoo import verify_zoo
from eosfm.statistics import BandStatistics
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec, fingerprint
from eosfm.tasks.objectives import make_loss
from eosfm.tasks.stored import load_task_model, save_task_model
from eosfm.training.scoring import STATISTICS, per_chip_counts
from helpers import TINY, edit_json, equal, full_disk, image, make_encoder, make_specialist, statistics_of

BANDS = BandSet.parse("sentinel-2-l2a:B08,B04,B03,B02@dn-1e4 + sentinel-1:VV,VH@db")
TASK = TaskSpec(kind="segmentation", classes=("a", "b"), chip_size=32, head=HeadConfig(decoder="linear", channels=8))
INFO = {"data": DataInfo(name="noise", licence="CC0-1.0"), "training": TrainingInfo()}
X = image(BANDS, 1, 32)


def ensemble(zoo: Path, **changes) -> Ensemble:
    specialists = [load_specialist(f) for f in sorted(zoo.iterdir())]
    ens = Ensemble(specialists, BANDS, **({"statistics": statistics_of(BANDS)} | changes))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in ens.fusion.parameters():
            p.normal_(0, 0.05)
    ens.fusion_trained = True
    return ens.eval()


def test_a_pruned_ensemble_has_its_own_running_statistics(own_zoo: Path):
    """Norms were shared: training the pruned ensemble moved the one it was cut from."""
    ens = ensemble(own_zoo, normalise="batch")
    before = ens(X)
    small = ens.pruned(["s2-rgb"])
    small.train()(image(BANDS, 2, 64, seed=3))
    assert equal(ens(X), before)


def test_a_tie_between_two_sensors_is_not_broken_by_position():
    """B04 and HLS RED are both centred on 665 nm; whichever stood first was read."""
    wanted = BandSet.parse("landsat-8:red@reflectance")
    picks = set()
    for text in (
        "sentinel-2-l2a:B04@reflectance + hls:RED@reflectance",
        "hls:RED@reflectance + sentinel-2-l2a:B04@reflectance",
    ):
        a = BandSet.parse(text)
        (plan,), _ = plan_views("s", wanted, statistics_of(wanted), a, None, ["nearest-wavelength:30"])
        picks.add(str(a[plan.index[0]]))
    assert len(picks) == 1


def test_small_numbers_keep_their_statistics():
    """Rounding to six decimals gave linear backscatter of 1e-7 the mean 0 and a std ten times too large."""
    from eosfm.statistics import band_statistics

    x = 1e-7 * torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    s = band_statistics([x])
    assert s.mean[0] == pytest.approx(2.5e-7, rel=1e-5)
    assert s.std[0] == pytest.approx(1e-7 * 1.25**0.5, rel=1e-5)


@pytest.mark.timeout(30)
def test_a_band_set_of_spaces_is_refused_at_once():
    """800 spaces took two minutes (the pattern could split them in n^4 ways); a manifest may hold two million."""
    start = time.perf_counter()
    with pytest.raises(BandError):
        BandSet.parse("sentinel-1:" + " " * 1_000_000 + "!")
    with pytest.raises(BandError):
        BandSet.parse("sentinel-1" + " " * 100_000 + "!")
    assert time.perf_counter() - start < 5


def test_integer_weights_are_not_cast_to_floats():
    tensors = make_encoder(3).tensors()
    tensors["stem_0.weight"] = (tensors["stem_0.weight"] * 10).to(torch.int8)
    with pytest.raises(CardError, match=r"stem_0\.weight: stored as torch\.int8"):
        copy.deepcopy(make_encoder(3)).load_tensors(tensors, "x")


def test_loading_a_task_model_as_an_ensemble_gives_its_trained_fusion(own_zoo: Path, tmp_path: Path):
    model = TaskModel(ensemble(own_zoo), TASK).eval()
    save_task_model(model, tmp_path / "task", own_zoo, name="t", **INFO)
    assert equal(load(tmp_path / "task")(X), model.encoder(X))


@pytest.mark.parametrize("field", ["statistics", "bands"])
def test_a_card_edited_after_training_is_noticed(own_zoo: Path, tmp_path: Path, field: str):
    save_task_model(TaskModel(ensemble(own_zoo), TASK), tmp_path / "task", own_zoo, name="t", **INFO)
    _, card = load_specialist(own_zoo / "s2-rgb")
    if field == "statistics":
        edit_json(own_zoo / "s2-rgb" / "card.json", statistics={"mean": [0, 0, 0], "std": [1, 1, 1]})
    else:
        bands = [{"sensor": b.sensor, "name": b.name, "unit": "dn-1e4"} for b in card.bands]
        edit_json(own_zoo / "s2-rgb" / "card.json", bands=bands)
    with pytest.raises(EosfmError):
        load_task_model(tmp_path / "task")


def test_an_ensemble_pruned_to_one_view_can_be_loaded(own_zoo: Path, tmp_path: Path):
    small = ensemble(own_zoo).pruned(["s2-rgb/subset"]).eval()
    save_ensemble(small, tmp_path / "ens", own_zoo)
    assert equal(load(tmp_path / "ens").eval()(X), small(X))


def test_an_ablated_ensemble_is_not_stored_as_a_whole_one(own_zoo: Path, tmp_path: Path):
    ens = ensemble(own_zoo)
    ens.ablate(["s2-rgb/vv-vh-vh"])
    try:
        save_ensemble(ens, tmp_path / "ens", own_zoo)
    except EosfmError:
        return  # refusing is right too
    assert equal(load(tmp_path / "ens")(X), ens(X))


def test_statistics_that_contradict_the_stored_ones_are_refused(own_zoo: Path, tmp_path: Path):
    save_ensemble(ensemble(own_zoo), tmp_path / "ens", own_zoo)
    with pytest.raises(EosfmError):
        load(tmp_path / "ens", statistics=BandStatistics(mean=(0.0,) * 6, std=(1.0,) * 6))


def test_an_untrained_fusion_is_still_untrained_after_loading(own_zoo: Path, tmp_path: Path):
    ens = ensemble(own_zoo)
    ens.fusion_trained = False
    save_ensemble(ens, tmp_path / "ens", own_zoo)
    assert load(tmp_path / "ens").fusion_trained is False


@pytest.mark.parametrize("change", [{"statistics": BandStatistics(mean=(0.0,) * 6, std=(9.0,) * 6)},
                                    {"rules": ["subset", "infrared-red-green", "vv-vh-vv"]}], ids=str)  # fmt: skip
def test_models_that_give_other_outputs_have_other_fingerprints(own_zoo: Path, change: dict):
    rules = ["subset", "infrared-red-green", "vv-vh-vh"]
    a, b = ensemble(own_zoo, rules=rules), ensemble(own_zoo, **({"rules": rules} | change))
    assert not equal(a(X), b(X))
    assert fingerprint(a) != fingerprint(b)


def test_a_metric_without_a_value_does_not_cost_the_model(own_zoo: Path, tmp_path: Path):
    metric = Metric(name="r2", value=float("nan"), split="test", samples=1, seed=0)
    model = TaskModel(ensemble(own_zoo), TASK)
    save_task_model(model, tmp_path / "task", own_zoo, name="t", metrics=[metric], **INFO)
    load_task_model(tmp_path / "task")


def test_cached_features_of_chips_of_any_size_give_the_forward_s_output(own_zoo: Path):
    x = image(BANDS, 2, 40)
    chips = Chips(images=x, labels=torch.zeros(2, 40, 40, dtype=torch.long), bands=BANDS, kind="segmentation",
                  classes=("a", "b"), name="x")  # fmt: skip
    model = TaskModel(ensemble(own_zoo), TASK).eval()
    features, y = cached_features(model.encoder, chips).batch([0, 1])
    assert model.from_features(features, chips.size).shape[-2:] == y.shape[-2:]


@pytest.mark.parametrize("where", ["loss", "score"])
def test_class_255_of_a_large_classification_counts(where: str):
    z, y = torch.randn(2, 300, generator=torch.Generator().manual_seed(0)), torch.tensor([255, 255])
    require_labels("classification", y, 300, "x")  # a legal label
    value = make_loss("classification")(z, y) if where == "loss" else per_chip_counts("classification", z, y, 300).sum()
    assert value > 0


def test_segmentation_of_more_classes_than_labels_is_refused():
    with pytest.raises((EosfmError, ValueError)):
        TaskSpec(kind="segmentation", classes=tuple(map(str, range(300))), chip_size=32)


def test_average_precision_of_a_constant_predictor_is_the_share_of_positives():
    z, y = torch.zeros(4, 1), torch.tensor([[1], [1], [0], [0]])
    score = STATISTICS["multilabel"]["map"]
    assert score(per_chip_counts("multilabel", z, y, 1)) == score(per_chip_counts("multilabel", z, y.flip(0), 1))


def test_average_precision_sees_the_order_of_confident_logits():
    z, y = torch.tensor([[20.0], [30.0]]), torch.tensor([[0], [1]])
    assert STATISTICS["multilabel"]["map"](per_chip_counts("multilabel", z, y, 1)) == 1.0


def test_rmse_without_a_valid_pixel_is_not_perfect():
    table = per_chip_counts("regression", torch.ones(2, 1, 4, 4), torch.full((2, 4, 4), float("nan")), 1)
    assert STATISTICS["regression"]["rmse"](table) != 0.0


def test_labels_stored_in_eight_bits_are_counted_like_any_other():
    z, y = torch.zeros(1, 20, 2, 2), torch.full((1, 2, 2), 15)
    z[:, 15] = 1
    expected = per_chip_counts("segmentation", z, y, 20)
    assert (per_chip_counts("segmentation", z, y.to(torch.uint8), 20) == expected).all()


def test_a_batch_of_classes_without_weight_gives_0_and_not_nan():
    loss = make_loss("segmentation", None, (0.0, 1.0))
    assert loss(torch.randn(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)).item() == 0.0


def test_half_a_label_is_refused():
    with pytest.raises(DataError):
        require_labels("multilabel", torch.tensor([[0.5, 1.0]]), 2, "x")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("segmentation", {"labels": torch.zeros(2, 1, 8, 8, dtype=torch.long)}),
        ("regression", {"labels": torch.zeros(2, 1, 8, 8)}),
        ("classification", {"labels": torch.zeros(2, 1, dtype=torch.long)}),
        ("multilabel", {"labels": torch.zeros(2, 5, dtype=torch.long)}),
        ("segmentation", {"ids": ("only one",)}),
        ("segmentation", {"ids": ("same", "same")}),
    ],
    ids=["segmentation", "regression", "classification", "multilabel", "one id", "same ids"],
)
def test_labels_of_another_shape_and_wrong_ids_are_refused(kind: str, changes: dict):
    fields = {"images": torch.zeros(2, 6, 8, 8), "labels": torch.zeros(2, 8, 8, dtype=torch.long), "bands": BANDS,
              "kind": kind, "classes": ("a", "b", "c"), "name": "x"}  # fmt: skip
    with pytest.raises(DataError):
        Chips(**(fields | changes))


def test_an_encoder_with_the_card_of_another_is_refused_when_composed():
    encoder, _ = make_specialist("s2-rgb", TINY["s2-rgb"])
    _, card = make_specialist("s2-six", TINY["s2-six"])
    with pytest.raises(EosfmError):
        Ensemble([(encoder, card)], BandSet.parse("sentinel-2-l2a:all@dn-1e4"))


def test_pruning_keeps_the_precision(own_zoo: Path):
    ens = copy.deepcopy(ensemble(own_zoo)).double()
    x = X.double()
    keep = ["s2-rgb/subset", "s2-rgb/vv-vh-vh"]
    ens.ablate(["s2-rgb/infrared-red-green"])
    for a, b in zip(ens.pruned(keep)(x), ens(x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("what", ["load", "prune"])
def test_loading_and_pruning_leave_the_random_state_alone(own_zoo: Path, what: str):
    ens = ensemble(own_zoo)
    state = torch.get_rng_state()
    load_specialist(own_zoo / "s2-rgb") if what == "load" else ens.pruned(["s2-rgb"])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["conv1x1", "sum", "product"])
def test_an_ablated_view_that_gives_nan_is_silent(own_zoo: Path, kind: str):
    ens = ensemble(own_zoo, fusion=kind)
    features = ens.encode(X)
    features[1] = [torch.full_like(m, float("nan")) for m in features[1]]
    ens.ablate([ens.views[1].name])
    assert all(m.isfinite().all() for m in ens.fuse(features))


def test_a_mixed_specialist_finds_its_bands_among_others():
    wanted = BandSet.parse("naip:R,G,B,N@8bit + elevation:dem@metre")
    available = BandSet.parse("elevation:dem@metre + naip:R,G,B,N@8bit")
    plans, reason = plan_views("s", wanted, statistics_of(wanted), available, None)
    assert plans, reason


def test_a_lost_view_of_a_readable_specialist_is_reported(own_zoo: Path):
    ens = ensemble(own_zoo, statistics=None)
    assert [v.rule for v in ens.views] == ["subset", "infrared-red-green"]
    assert "vv-vh-vh" in str(ens.skipped)


@pytest.mark.parametrize("what", ["ensemble", "task"])
def test_a_full_disk_is_an_error_of_ours(own_zoo: Path, tmp_path: Path, what: str):
    ens = ensemble(own_zoo)
    with full_disk(10_000), pytest.raises(EosfmError):
        if what == "ensemble":
            save_ensemble(ens, tmp_path / "ens", own_zoo)
        else:
            save_task_model(TaskModel(ens, TASK), tmp_path / "task", own_zoo, name="t", **INFO)


def test_a_full_disk_under_a_checkpoint_is_an_error_of_ours(tmp_path: Path):
    from eosfm.training.module import AtomicCheckpoints

    with full_disk(10_000), pytest.raises(EosfmError):
        AtomicCheckpoints().save_checkpoint({"x": torch.zeros(100_000)}, tmp_path / "last.ckpt")


def test_a_kill_between_the_two_renames_leaves_one_of_the_two_artifacts(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_text("old")
    code = """
import os, signal, sys
from pathlib import Path
from eosfm.files import atomic_folder
real = Path.replace
def replace(self, target):
    if self.name.endswith(".part"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
with atomic_folder(Path(sys.argv[1]), overwrite=True) as tmp:
    (tmp / "a").write_text("new")
"""
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], check=False)
    if run.returncode == -9:
        assert (tmp_path / "x" / "a").exists()


def test_replacing_a_file_by_a_folder_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "x").write_text("a file")
    try:
        with atomic_folder(tmp_path / "x", overwrite=True) as tmp:
            (tmp / "a").write_text("1")
    except EosfmError:
        pass  # refusing is right too
    assert os.listdir(tmp_path) == ["x"]


def test_the_current_folder_as_output_is_refused_in_words(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EosfmError), atomic_folder(Path(), overwrite=True):
        pass


def test_the_documentation_of_parse_is_true():
    assert "duplicated band" not in (BandSet.parse.__doc__ or "") or not BandSet.parse("sentinel-1:VV,VV@db")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"fit": {"epochs": True}}, r"fit\.epochs: expected a whole number.*got True"),
        ({"fit": {"learning_rate": True}}, r"fit\.learning_rate: expected a number.*got True"),
        ({"fit": {"class_weights": [1.0, False]}}, r"fit\.class_weights\.1: expected a number.*got False"),
        ({"data": {"kind": "synthetic", "bands": "naip:R@8bit", "size": [8, True, 8]}}, r"data\.size\.1: .*got True"),
    ],
)
def test_true_is_not_a_number(data: dict, says: str):
    """Pydantic reads true as 1: `epochs: true` was one epoch. Numbers as text stay, for YAML 1.1 reads 1e-4 as text."""
    from eosfm.config import read_record
    from eosfm.runs import AdaptRun

    sound = {
        "name": "x",
        "data": {"kind": "synthetic", "bands": "naip:R@8bit"},
        "fit": {"augment": True, "epochs": "3"},
    }
    run = read_record(AdaptRun, sound, "x")
    assert run.fit.augment is True and run.fit.epochs == 3
    with pytest.raises(EosfmError, match=says):
        read_record(AdaptRun, sound | data, "x")


def test_labels_of_another_place_are_refused(tmp_path: Path):
    """A label raster of the same size from elsewhere trained without a word."""
    import numpy as np

    from eosfm.data.files import DataConfig, open_data
    from eosfm.inference.raster import georeference, write_scene

    rgb, label = BandSet.parse("naip:R,G,B@8bit"), BandSet.parse("elevation:dem@8bit")
    here, there = (georeference("EPSG:32631", 5e5, y, 1.0) for y in (4.8e6, 4.9e6))
    write_scene(tmp_path / "i.tif", np.full((3, 256, 64), 7, np.uint8), rgb, here)
    for place in (here, there):
        write_scene(tmp_path / "l.tif", np.zeros((1, 256, 64), np.uint8), label, place)
        config = DataConfig(kind="scene", bands=str(rgb), classes=("a", "b"), chip_size=32, image=tmp_path / "i.tif",
                            labels=tmp_path / "l.tif")  # fmt: skip
        if place is here:
            assert len(open_data(config).train)
        else:
            with pytest.raises(DataError, match="different places"):
                open_data(config)


def test_settings_that_spoil_a_model_only_later_are_refused_at_once():
    from eosfm.training.settings import FitConfig

    for bad in ({"classes": ("a", "a")}, {"classes": ("a", "b"), "colours": ("red", "blue")}):
        with pytest.raises(ValueError, match=r"name of its own|#rrggbb"):
            TaskSpec(**({"kind": "segmentation", "chip_size": 32} | bad))
    for bad in ({"workers": -1}, {"class_weights": (0.0, 0.0)}, {"warmup": 5.0}, {"seed": 10**23}):
        with pytest.raises(ValueError, match=r"workers|class_weights|warmup|seed"):
            FitConfig(**bad)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("bands", 0, "unit"), "dn-1e4"), (("statistics", "mean", 0), 0.5), (("task", "classes", 0), "rice"),
     (("chip_size",), 96), (("licence",), "MIT"), (("metrics",), [])],
)  # fmt: skip
def test_a_card_that_was_edited_is_refused_by_all_who_read_it(own_zoo, path, value):
    """`zoo verify` once called a card sound whose mean, unit or classes had been changed: only the weights were hashed."""
    file = own_zoo / "s2-rgb" / "card.json"
    before = json.loads(file.read_text())
    after = json.loads(file.read_text())
    place = after
    for key in path[:-1]:
        place = place[key]
    if place[path[-1]] == value:
        return
    place[path[-1]] = value
    file.write_text(json.dumps(after))
    for read in (load_specialist, verify_specialist):
        with pytest.raises(CardError, match=r"was edited after eosfm wrote it.*\"digest\" line"):
            read(own_zoo / "s2-rgb")
    assert "was edited" in verify_zoo(own_zoo)[0][1]
    file.write_text(json.dumps(dict(reversed(before.items())), indent=4))
    assert verify_zoo(own_zoo) == [("s2-rgb", "")], "layout and order of keys do not matter"
    del after["digest"]
    file.write_text(json.dumps(after))
    load_specialist(own_zoo / "s2-rgb")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "synthetic", "bands": "sentinel-2-l2a:B04@reflectance", "limit": 3}, "limit is for published data"),
        (
            {"kind": "synthetic", "bands": "sentinel-2-l2a:B04@reflectance", "licence": "CC0"},
            "licence: 'synthetic' data say",
        ),
        ({"kind": "dataset", "dataset": "mados", "root": Path("x"), "name": "mine"}, "name: 'dataset' data say"),
        ({"kind": "chips", "root": Path("x"), "bands": "aerial:R@8bit", "classes": ("a",), "dates": 3}, "dates is for"),
        (
            {"kind": "chips", "root": Path("x"), "bands": "aerial:R@8bit", "classes": ("a",), "task": "detection"},
            "boxes and",
        ),
    ],
)
def test_keys_that_mean_nothing_for_the_data_are_refused(given, says):
    """They were read and ignored: a limit of 3 chips trained on all of them."""
    with pytest.raises(ValueError, match=says):
        DataConfig(**given)
