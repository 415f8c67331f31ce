"""Named baselines through the whole bench: rows under both protocols, what cannot be measured said, random weights said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eosfm import commands_bench
from eosfm.benchmark.ledger import Ledger
from eosfm.benchmark.run import plan, run_suite
from eosfm.benchmark.suite import Suite, read_suite
from eosfm.contracts import ConfigError, ZooError
from eosfm.specialists.store import save_specialist
from helpers import make_card, make_encoder

CNN, VIT, GEO = "timm:resnet10t@random", "timm:test_vit@random", "torchgeo:ResNet18_Weights.SENTINEL2_RGB_MOCO@random"
NO_WEIGHTS, NO_BANDS = "timm:convnextv2_atto.fcmae", "torchgeo:ResNet18_Weights.SENTINEL2_ALL_MOCO@random"
FILE = """
name: named
zoo: {folder}/zoo
output: {folder}/out
cases:
  - name: scenes
    protocol: frozen-probe
    data: {{kind: synthetic, task: scene, bands: "sentinel-2-l2a:B08,B04,B03,B02@dn-1e4", size: [12, 6, 8], chip_size: 32}}
  - name: pixels
    protocol: pangaea
    data: {{kind: synthetic, task: water, bands: "sentinel-2-l2a:B08,B04,B03,B02@dn-1e4", size: [4, 2, 4], chip_size: 32}}
    fit: {{epochs: 1, batch_size: 4}}
    head: {{decoder: linear, channels: 8, dropout: 0.0}}
models: ["{cnn}", "{vit}", "{geo}", "{no_weights}", "{no_bands}", "scratch:resnet10t"]
seeds: [0]
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[Suite, commands_bench.Outcome]:
    pytest.importorskip("torchgeo")
    folder = tmp_path_factory.mktemp("named")
    card = make_card("rgb", "sentinel-2-l2a:B04,B03,B02@reflectance")
    save_specialist(make_encoder(3, 0), card, folder / "zoo")
    file = folder / "suite.yaml"
    file.write_text(FILE.format(folder=folder, cnn=CNN, vit=VIT, geo=GEO, no_weights=NO_WEIGHTS, no_bands=NO_BANDS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.hf_hub_download", _offline)
        outcome = commands_bench.bench(file)
    return read_suite(file), outcome


def _offline(*_: object) -> str:
    raise OSError("no network")


def test_rows_under_both_protocols(measured):
    suite, _ = measured
    rows = Ledger(suite.folder).rows()
    assert {(r["case"], r["model"]) for r in rows} == {
        *((c, m) for c in ("scenes", "pixels") for m in (CNN, VIT, GEO)), ("pixels", "scratch:resnet10t"),
    }  # fmt: skip
    for r in rows:
        assert r["metrics"] and r["specialists"] == {}
        if r["model"].startswith("scratch"):
            assert r["trained_parameters"] == r["parameters"]
            continue
        assert r["note"].startswith("RANDOM WEIGHTS") and len(r["weights_sha256"]) == 64
        assert r["weights_sha256"][:12] in r["note"] and 0 < r["trained_parameters"] < r["parameters"]
    by = {(r["case"], r["model"]): r for r in rows}
    assert by["scenes", CNN]["weights_sha256"] == by["pixels", CNN]["weights_sha256"], "one seed, one network"
    assert "resized (bilinear) to 160 x 160" in by["pixels", VIT]["note"]
    assert "own mean and std" in by["pixels", CNN]["note"] and "own mean and std" not in by["pixels", GEO]["note"]


def test_what_was_not_measured_says_why_and_how_to_repair_it(measured):
    _, outcome = measured
    assert outcome.failed
    said = "\n".join(outcome.lines)
    assert f"not measured: scenes, {NO_WEIGHTS}" in said and "hf download timm/convnextv2_atto.fcmae" in said
    assert f"left out: pixels, {NO_BANDS}" in said and "sentinel-2:B01" in said
    assert any(f"{CNN} (random weights)" in row for row in outcome.table)


def test_the_page_says_random_weights(measured):
    suite, _ = measured
    commands_bench.bench_report(suite.folder.parent / "suite.yaml")
    page = (suite.folder / "report.html").read_text()
    assert page.count("random weights") >= 6 and "no pretrained model was measured" in page


def test_a_pin_is_part_of_the_key_and_is_held_to(measured, tmp_path):
    suite, _ = measured
    right = next(r for r in Ledger(suite.folder).rows() if r["model"] == CNN)["weights_sha256"]
    scenes = suite.cases[0]
    pinned = replace(suite, cases=(scenes,), models=(f"{CNN}#{right[:10]}", f"{CNN}#{'0' * 8}"), output=tmp_path)
    assert len({j.key for j in plan(pinned)} | {j.key for j in plan(suite)}) == len(plan(pinned)) + len(plan(suite))
    done = run_suite(pinned)
    assert [r["model"] for r in done.rows] == [f"{CNN}#{right[:10]}"]
    assert len(done.problems) == 1 and right[:16] in done.problems[0]


def test_without_specialists_no_zoo_is_needed(measured, tmp_path):
    suite, _ = measured
    alone = replace(
        suite, zoo=tmp_path / "nowhere", cases=(suite.cases[0],), models=("constant", CNN), output=tmp_path / "out"
    )
    assert [r["model"] for r in run_suite(alone).rows] == ["constant", CNN]
    with pytest.raises(ZooError, match="no such folder"):
        plan(replace(alone, models=("constant", CNN, "ensemble")))


def test_rows_of_other_weights_do_not_stand_side_by_side(measured, tmp_path):
    suite, _ = measured
    scenes = suite.cases[0]
    one = replace(suite, cases=(scenes,), models=(CNN,), output=tmp_path)
    row = dict(next(r for r in Ledger(suite.folder).rows() if r["model"] == CNN), key="older", weights_sha256="f" * 64)
    row["case"] = scenes.name
    with Ledger(tmp_path).writing() as ledger:
        ledger.add(row, Ledger(suite.folder).table(next(r for r in Ledger(suite.folder).rows() if r["model"] == CNN)))
    done = run_suite(one)
    assert not done.rows and "ffffffffffff" in done.problems[0]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("timm:", "expected timm:NAME"),
        ("timm:resnet18@rnadom", "@random"),
        ("torchgeo:A#12", "8 or more"),
        ("clay:x", "unknown model"),
    ],
)
def test_a_name_that_does_not_parse_is_refused_at_once(measured, model, says):
    suite, _ = measured
    with pytest.raises(ConfigError, match=says):
        read_suite(suite.folder.parent / "suite.yaml", [f'models=["{model}"]'])
