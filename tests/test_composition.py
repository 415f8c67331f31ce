"""Ensembles on disk: specialists by name and hash, a fusion that reads back bit by bit, and nothing that changed unnoticed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.composition import compose, load, read_manifest, save_ensemble
from eosfm.contracts import AdaptationError, BandError, CorruptArtifact, EosfmError, ZooError
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError
from eosfm.fusion.fuse import FUSIONS
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.specialists.zoo import find
from helpers import TINY, edit_json, equal, image, make_specialist, statistics_of, tree

BANDS = BandSet.parse("sentinel-2-l2a:B08,B04,B03,B02@dn-1e4 + sentinel-1:VV,VH@linear")
X = image(BANDS, 1, 32)


def trained(zoo: Path, kind: str = "conv1x1", normalise="none", names=None, **changes) -> Ensemble:
    """An ensemble of the zoo whose fusion is not what the constructor would make."""
    specialists = [load_specialist(e.folder) for e in find(zoo, names)]
    ens = Ensemble(specialists, BANDS, statistics=statistics_of(BANDS), fusion=kind, normalise=normalise, **changes)
    with torch.no_grad():
        for p in ens.fusion.parameters():
            p.normal_(0, 0.05)
        ens.train()(image(BANDS, 2, 64, seed=5))
    ens.fusion_trained = True
    return ens.eval()


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("normalise", ["none", "batch"])
def test_an_ensemble_round_trips_bit_by_bit(tiny_zoo: Path, tmp_path: Path, kind: str, normalise: str):
    ens = trained(tiny_zoo, kind, normalise, ["s1-sar"])
    save_ensemble(ens, tmp_path / "ens", tiny_zoo)
    again = load(tmp_path / "ens").eval()
    assert again.views == ens.views
    assert (again.bands, again.statistics, again.rules) == (ens.bands, ens.statistics, ens.rules)
    with torch.no_grad():
        assert equal(again(X), ens(X))


def test_a_pruned_ensemble_round_trips(tiny_zoo: Path, tmp_path: Path):
    ens = trained(tiny_zoo).pruned(["s1-sar"]).eval()
    save_ensemble(ens, tmp_path / "ens", tiny_zoo)
    assert equal(load(tmp_path / "ens").eval()(X), ens(X))


def test_rules_that_were_chosen_are_stored(tiny_zoo: Path, tmp_path: Path):
    ens = trained(tiny_zoo, names=["s2-rgb"], rules=["vv-vh-vv", "true-colour"])
    save_ensemble(ens, tmp_path / "ens", tiny_zoo)
    assert [v.rule for v in load(tmp_path / "ens").views] == ["vv-vh-vv", "true-colour"]


def test_a_stored_ensemble_holds_no_specialist(tiny_zoo: Path, tmp_path: Path):
    save_ensemble(trained(tiny_zoo, names=["s1-sar"]), tmp_path / "ens", tiny_zoo)
    assert sorted(p.name for p in (tmp_path / "ens").iterdir()) == ["ensemble.json", "fusion.safetensors"]
    from safetensors import safe_open

    with safe_open(tmp_path / "ens" / "fusion.safetensors", "pt") as f:
        assert all(k.startswith(("convs.", "norms.")) for k in f.keys())  # noqa: SIM118


def test_compose_writes_a_list_and_load_reads_it_for_any_input(tiny_zoo: Path, tmp_path: Path):
    manifest = compose(tiny_zoo, tmp_path / "ens", names=["s2-rgb", "s1-sar"], fusion="sum", normalise="layer")
    assert [r.name for r in manifest.specialists] == ["s2-rgb", "s1-sar"]
    assert read_manifest(tmp_path / "ens" / "ensemble.json") == manifest
    for text in (str(BANDS), "sentinel-1:VH,VV@db"):
        ens = load(tmp_path / "ens", text, statistics=statistics_of(BandSet.parse(text)))
        assert [c.name for c in ens.cards] == ["s2-rgb", "s1-sar"]
        assert (ens.fusion.name, ens.fusion.normalise, str(ens.bands)) == ("sum", "layer", text)
    with pytest.raises(BandError, match="not tied to an input yet: say bands="):
        load(tmp_path / "ens")


def test_compose_refuses_what_could_not_be_loaded(tiny_zoo: Path, own_zoo: Path, tmp_path: Path):
    for ask, error, says in [
        ({"names": ["nope"]}, ZooError, "no specialist 'nope'"),
        ({"rules": ["rgb"]}, AdaptationError, "unknown rule"),
        ({"fusion": "max"}, AdaptationError, "unknown fusion 'max'; known: conv1x1"),
    ]:
        with pytest.raises(error, match=says):
            compose(tiny_zoo, tmp_path / "ens", **ask)
    with (own_zoo / "s2-rgb" / "model.safetensors").open("r+b") as f:
        f.truncate(10)
    with pytest.raises(CorruptArtifact, match="10 bytes"):
        compose(own_zoo, tmp_path / "ens")
    assert not (tmp_path / "ens").exists()


def test_an_existing_ensemble_is_not_replaced_by_accident(tiny_zoo: Path, tmp_path: Path):
    compose(tiny_zoo, tmp_path / "ens", fusion="sum")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        compose(tiny_zoo, tmp_path / "ens", fusion="product")
    assert tree(tmp_path) == before
    compose(tiny_zoo, tmp_path / "ens", fusion="product", overwrite=True)
    assert read_manifest(tmp_path / "ens" / "ensemble.json").fusion == "product"


def test_a_zoo_and_a_single_specialist_load_like_ensembles(tiny_zoo: Path):
    ens = load(tiny_zoo, str(BANDS), statistics=statistics_of(BANDS))
    assert [c.name for c in ens.cards] == ["aerial-rgb", "s1-sar", "s2-rgb"]
    assert [s.specialist for s in ens.skipped] == ["s2-six"]
    assert [c.name for c in load(tiny_zoo / "s2-rgb", BANDS).cards] == ["s2-rgb"]
    for path in (tiny_zoo, tiny_zoo / "s2-rgb"):
        with pytest.raises(BandError, match="say what the image's bands are"):
            load(path)
    with pytest.raises(ZooError, match="no such folder"):
        load(tiny_zoo / "nope", BANDS)


def test_another_specialist_under_the_same_name_is_refused(own_zoo: Path, tmp_path: Path):
    save_ensemble(trained(own_zoo), tmp_path / "ens", own_zoo)
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 77), own_zoo, overwrite=True)
    with pytest.raises(ZooError, match="another specialist under the same name"):
        load(tmp_path / "ens")


def test_a_missing_specialist_or_zoo_says_where_it_was_looked_for(own_zoo: Path, tmp_path: Path):
    save_ensemble(trained(own_zoo), tmp_path / "ens", own_zoo)
    own_zoo.rename(tmp_path / "moved")
    with pytest.raises(ZooError, match=r"needs specialist 's2-rgb': .*zoo: no such folder(?s:.*)--zoo"):
        load(tmp_path / "ens")
    load(tmp_path / "ens", zoo=tmp_path / "moved")


def test_zoo_and_ensemble_can_move_together(own_zoo: Path, tmp_path: Path):
    (tmp_path / "home").mkdir()
    shutil.move(own_zoo, tmp_path / "home" / "zoo")
    save_ensemble(trained(tmp_path / "home" / "zoo"), tmp_path / "home" / "ens", tmp_path / "home" / "zoo")
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    load(tmp_path / "elsewhere" / "ens")


def test_another_input_than_the_trained_one_is_refused(own_zoo: Path, tmp_path: Path):
    save_ensemble(trained(own_zoo), tmp_path / "ens", own_zoo)
    load(tmp_path / "ens", BANDS)
    for other in ("sentinel-2-l2a:B04,B08,B03,B02@dn-1e4", str(BANDS).replace("dn-1e4", "reflectance")):
        with pytest.raises(AdaptationError, match=r"made for .* asked for"):
            load(tmp_path / "ens", other)


@pytest.fixture
def stored(own_zoo: Path, tmp_path: Path) -> Path:
    """A stored ensemble that a test may damage."""
    save_ensemble(trained(own_zoo), tmp_path / "ens", own_zoo)
    return tmp_path / "ens"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"views": ["s2-rgb/subset"]}, "does not fit the fusion"),
        ({"views": ["s2-rgb/vv-vh-vh", "s2-rgb/infrared-red-green", "s2-rgb/subset"]}, "stored views"),
        ({"rules": ["subset"]}, "stored views"),
        ({"normalise": "batch"}, "does not fit the fusion"),
        ({"fusion": "mlp"}, "does not fit the fusion"),
        ({"fusion": "max"}, "unknown fusion"),
        ({"normalise": "group"}, "normalise: "),
        ({"rules": ["rgb"]}, "unknown rule"),
        ({"wheels": 4}, "wheels: unknown key"),
        ({"schema_version": 2}, "schema_version: "),
        ({"specialists": []}, "no specialist can read"),
        ({"specialists": [{"name": "../../etc", "sha256": "0", "reading": "0"}]}, "no specialist '../../etc'"),
        ({"specialists": [{"name": "s2-rgb"}]}, r"specialists\.0\.sha256: (Field|Missing)"),
        ({"specialists": [{"name": "s2-rgb", "sha256": "", "reading": ""}]}, "another specialist under the same name"),
        ({"statistics": {"mean": [0.0], "std": [0.0]}}, "std 0"),
        ({"statistics": {"mean": [0.0], "std": [1.0]}}, "1 channels for 6 bands"),
        ({"bands": "sentinel-1:VV"}, "no unit declared"),
        ({"bands": "sentinel-1:" + " " * 100_000 + "!"}, "cannot read band set"),
        ({"weights": {"file": "x", "sha256": "0", "bytes": 1}}, "weights file 'x'"),
        ({"weights": {"file": "fusion.safetensors", "sha256": "0", "bytes": 1}}, "its card says 1"),
    ],
    ids=lambda v: str(v)[:40],
)
@pytest.mark.timeout(20)
def test_a_changed_manifest_is_refused(stored: Path, change: dict, says: str):
    edit_json(stored / "ensemble.json", **change)
    with pytest.raises(EosfmError, match=says):
        load(stored)


def test_changed_and_missing_fusion_weights_are_refused(stored: Path):
    weights = stored / "fusion.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=r"fusion\.safetensors: sha256"):
        load(stored)
    weights.write_bytes(data[:-1])
    with pytest.raises(CorruptArtifact, match=f"{len(data) - 1} bytes"):
        load(stored)
    weights.unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        load(stored)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"zoo": NaN}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(stored: Path, text: str):
    (stored / "ensemble.json").write_text(text)
    with pytest.raises(CorruptArtifact, match=r"ensemble\.json"):
        load(stored)


def test_an_interrupted_save_leaves_the_previous_ensemble(stored: Path, own_zoo: Path, monkeypatch):
    before = tree(stored)

    def fail(*_):
        raise OSError("no")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="cannot write"):
        save_ensemble(trained(own_zoo, "sum"), stored, own_zoo, overwrite=True)
    monkeypatch.undo()
    assert tree(stored) == before
    assert [p.name for p in stored.parent.iterdir() if p.name.endswith(".part")] == []
    assert json.loads((stored / "ensemble.json").read_text())["fusion"] == "conv1x1"
