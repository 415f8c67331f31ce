"""select, prune, scaling, explain, similarity as a user calls them, on a tiny adapted model; and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from eosfm.data.files import open_data
from eosfm.runs import read_data
from eosfm.tasks.stored import load_task_model
from helpers import tree
from test_cli import call

ADAPT = {
    "name": "burn",
    "data": {"kind": "synthetic", "task": "burn-scars", "bands": "hls:all@reflectance", "size": [8, 6, 6], "chip_size": 32},
    "fit": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3},
    "head": {"decoder": "linear", "channels": 8, "dropout": 0.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_zoo):
    """A folder with burn.yaml and the task model models/burn of the four tiny specialists."""
    from eosfm.commands import adapt

    folder = tmp_path_factory.mktemp("adapted")
    content = {**ADAPT, "zoo": str(tiny_zoo), "output": str(folder / "models" / "burn"), "run": str(folder / "run")}
    (folder / "burn.yaml").write_text(yaml.safe_dump(content))
    adapt(folder / "burn.yaml")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return made / "models" / "burn", made / "burn.yaml"


def test_select_then_prune_then_predict_alike(here, monkeypatch, capsys):
    model, config = here
    code, out, err = call(monkeypatch, capsys, "select", model, config, "--output", "s", "--tolerance", 0.05)
    assert code == 0, err
    found = json.loads(Path("s/selection.json").read_text())
    assert [len(r["names"]) for r in found["rows"]] == [1, 2, 3, 4] and "stay within 0.05" in out
    assert found["rows"][3]["minus_all"] == [0.0, 0.0, 0.0]
    macs = [r["price"]["macs"] for r in found["rows"]]
    assert macs == sorted(macs) and macs[0] > 0
    assert "Which specialists to keep" in Path("s/report.html").read_text()

    code, out, err = call(
        monkeypatch, capsys, "prune", model, "small", "--selection", "s/selection.json", "--keep", 2, "--config", config
    )
    assert code == 0, err
    assert "miou (test)" in out and "bytes of weights" in out
    small, card = load_task_model(Path("small"))
    full, _ = load_task_model(model)
    names = found["rows"][1]["names"]
    assert [c.name for c in small.encoder.cards] == names == list(card.chosen.kept)
    assert len(small.encoder.encoders) == 2 and card.chosen.by == "search (selection.json)"
    assert card.metrics[0].value == pytest.approx(found["rows"][1]["test"]["value"], abs=1e-6)
    assert Path("small/model.safetensors").stat().st_size < (model / "model.safetensors").stat().st_size
    full.encoder.ablate({c.name for c in full.encoder.cards} - set(names))
    x, _ = open_data(read_data(config)).test.batch(range(6))
    with torch.inference_mode():
        torch.testing.assert_close(small(x), full(x), rtol=0, atol=1e-5)
    gone = set(card.chosen.dropped)
    assert gone and not any(g in Path("small/ensemble.json").read_text() for g in gone)


def test_select_with_refitting_and_exhaustively(here, monkeypatch, capsys):
    model, config = here
    code, _, err = call(
        monkeypatch, capsys, "select", model, config, "fit.epochs=1", "--refit", "--method", "exhaustive"
    )
    assert code == 0, err
    found = json.loads(Path("runs/select/selection.json").read_text())
    assert found["refitted"] and found["method"] == "exhaustive" and len(found["rows"]) == 4
    code, _, err = call(monkeypatch, capsys, "select", model, config)
    assert code == 2 and "exists already" in err


def test_scaling_continues_and_keeps_its_settings(here, monkeypatch, capsys):
    model, config = here
    args = ("scaling", model, config, "fit.epochs=1", "--orders", 4, "--refit", "--refit-orders", 2)
    code, out, err = call(monkeypatch, capsys, *args)
    assert code == 0, err
    assert "refit" in out and "as many" in out and "cannot be extrapolated" in out
    before = tree(Path("runs/scaling"))
    scores = json.loads(Path("runs/scaling/scores.json").read_text())["scores"]
    curves = json.loads(Path("runs/scaling/curves.json").read_text())
    assert len(curves["ablation"]["scores"]) == 4 and len(curves["refit"]["scores"]) == 2
    full = "+".join(sorted(curves["refit"]["names"]))
    assert {f"refit 0 {full}", f"refit 1 {full}", f"ablation 0 {full}"} <= scores.keys()

    from eosfm.explain.refit import Refit

    monkeypatch.setattr(Refit, "counts", lambda *_: pytest.fail("nothing is left to train"))
    assert call(monkeypatch, capsys, *args)[0] == 0
    assert tree(Path("runs/scaling")) == before
    code, _, err = call(monkeypatch, capsys, *(*args, "--seed", 5))
    assert code == 2 and "another model, data or settings" in err


def test_explain_writes_one_page_and_its_numbers(here, monkeypatch, capsys):
    model, config = here
    code, out, err = call(monkeypatch, capsys, "explain", model, config, "--orders", 8, "--chips", 2)
    assert code == 0, err
    page = Path("explain.html").read_text()
    for title in ("What each specialist is worth", "Do the measures agree?", "For which class", "Who carried each pixel",
                  "What each specialist sees", "Which specialists say the same"):  # fmt: skip
        assert title in page
    assert "http" not in page.replace("http://www.w3.org", "").split("</style>")[1].split("<footer")[0]
    a = json.loads(Path("explain.json").read_text())["attribution"]
    total = sum(v[0] for v in a["shapley"])
    assert total == pytest.approx(a["full"][0] - a["empty"][0], abs=1e-9)
    assert "rank correlation" in out


def test_explain_shows_a_scene(here, monkeypatch, capsys, tmp_path):
    from eosfm.bands import BandSet
    from eosfm.data.worlds import synthetic_chips
    from eosfm.inference.raster import georeference, write_scene

    model, config = here
    bands = BandSet.parse("hls:all@reflectance")
    x = synthetic_chips("burn-scars", bands, 1, size=96).images[0].numpy()
    write_scene(tmp_path / "scene.tif", x, bands, georeference("EPSG:32631", 5e5, 4.8e6, 30.0))
    code, _, err = call(monkeypatch, capsys, "explain", model, config, "--orders", 2, "--image", "scene.tif")
    assert code == 0, err
    assert "sees in the scene" in Path("explain.html").read_text()
    code, _, err = call(monkeypatch, capsys, "explain", model, config, "--image", "no.tif", "--overwrite")
    assert code == 2 and "no.tif" in err


def test_similarity_of_a_zoo(here, monkeypatch, capsys, tiny_zoo):
    model, config = here
    for what in (tiny_zoo, model):
        code, out, err = call(monkeypatch, capsys, "similarity", what, config, "--samples", 64)
        assert code == 0, err
        assert "most alike" in out and "s2-six" in out


def test_adapt_learns_a_selection(here, monkeypatch, capsys):
    _, config = here
    code, out, err = call(monkeypatch, capsys, "adapt", config, "selection.keep=2", "output=chosen", "run=r")
    assert code == 0, err
    model, card = load_task_model(Path("chosen"))
    assert len(model.encoder.cards) == 2 == len(card.chosen.kept) and card.chosen.by == "learned top-k"
    assert len(card.chosen.scores) == 4 and f"kept {', '.join(card.chosen.kept)}" in out
    assert all(d not in Path("chosen/ensemble.json").read_text() for d in card.chosen.dropped)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("prune", "MODEL", "out"), "say what to keep"),
        (("prune", "MODEL", "out", "--keep", 9), "expected 1 to 4"),
        (("prune", "MODEL", "out", "--name", "nobody"), "no specialist 'nobody' in this model; known: "),
        (("prune", "MODEL", "out", "--name", "s2-six", "--keep", 1), "not both"),
        (("prune", "MODEL", "out", "--selection", "no.json"), "no.json"),
        (("prune", "MODEL", "out", "--selection", "other.json"), "another model"),
        (("prune", "MODEL", "out", "--selection", "broken.json"), "not a selection"),
        (("prune", "nowhere", "out", "--keep", 1), "nowhere"),
        (("select", "MODEL", "CONFIG", "--method", "best"), "known: forward, backward, exhaustive"),
        (("select", "MODEL", "CONFIG", "--tolerance", 2), "0 to below 1"),
        (("select", "MODEL", "CONFIG", "data.task=water"), "predicts unburnt, burnt"),
        (("select", "MODEL", "no.yaml"), "no.yaml"),
        (("scaling", "MODEL", "CONFIG", "--orders", 1), "at least 2"),
        (("explain", "MODEL", "CONFIG", "--chips", 0), "expected at least"),
        (("similarity", "MODEL", "CONFIG", "--split", "all"), "expected train, validation or test"),
        (("adapt", "CONFIG", "selection.keep=5", "output=out"), "keep 5 of 4 specialists"),
        (("adapt", "CONFIG", "selection.keep=0", "output=out"), "keep 0"),
    ],
)
def test_bad_wishes_end_with_one_message(args, message, here, monkeypatch, capsys):
    model, config = here
    Path("other.json").write_text(json.dumps({"weights_sha256": "0", "chosen": ["a"], "rows": []}))
    Path("broken.json").write_text("[1]")
    code, _, err = call(monkeypatch, capsys, *({"MODEL": model, "CONFIG": config}.get(a, a) for a in args))
    assert code == 2 and message in err, err
    assert not Path("out").exists()


def test_pruning_by_weights_warns(here, monkeypatch, capsys):
    model, _ = here
    code, out, _ = call(monkeypatch, capsys, "prune", model, "small", "--keep", 1)
    assert code == 0 and "warning: the size of weights says little" in out
    _, card = load_task_model(Path("small"))
    assert len(card.chosen.kept) == 1 and not card.metrics, "old scores are not those of the smaller model"
