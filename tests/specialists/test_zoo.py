"""A zoo lists what is in it, finds by name, and says of every specialist whether it can be trusted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eosfm import commands_zoo
from eosfm.contracts import CardError, EosfmError, ZooError
from eosfm.specialists.zoo import find, list_zoo, verify_zoo
from helpers import TINY, edit_json, full_disk


def test_a_zoo_lists_its_specialists_by_name(tiny_zoo: Path):
    entries = list_zoo(tiny_zoo)
    assert [e.card.name for e in entries] == sorted(TINY)
    assert [e.folder for e in entries] == [tiny_zoo / n for n in sorted(TINY)]


def test_find_keeps_the_order_asked_for(tiny_zoo: Path):
    assert [e.card.name for e in find(tiny_zoo, ["s2-six", "aerial-rgb"])] == ["s2-six", "aerial-rgb"]
    assert [e.card.name for e in find(tiny_zoo)] == sorted(TINY)
    assert find(tiny_zoo, []) == []


def test_unknown_and_repeated_names_are_errors(tiny_zoo: Path):
    with pytest.raises(ZooError, match=r"no specialist 'nope' in .*; known: aerial-rgb, s1-sar, s2-rgb, s2-six"):
        find(tiny_zoo, ["s2-rgb", "nope"])
    with pytest.raises(ZooError, match="s2-rgb is named twice"):
        find(tiny_zoo, ["s2-rgb", "s2-six", "s2-rgb"])


def test_an_empty_or_missing_zoo_is_an_error(tmp_path: Path):
    assert list_zoo(tmp_path) == []
    for ask in (find, verify_zoo):
        with pytest.raises(ZooError, match="no specialists here"):
            ask(tmp_path)
        with pytest.raises(ZooError, match="no such folder"):
            ask(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(ZooError, match="no such folder"):
        list_zoo(tmp_path / "file")


def test_folders_without_a_card_and_hidden_leftovers_are_no_specialists(own_zoo: Path):
    (own_zoo / "notes").mkdir()
    (own_zoo / "README.md").write_text("x")
    shutil.copytree(own_zoo / "s2-rgb", own_zoo / ".s2-rgb.0a1b2c3d.part")
    assert [e.card.name for e in list_zoo(own_zoo)] == ["s2-rgb"]


def test_a_folder_that_is_not_called_what_its_card_says_is_refused(own_zoo: Path):
    """M3: otherwise two folders could both claim to be one specialist."""
    shutil.copytree(own_zoo / "s2-rgb", own_zoo / "copy")
    with pytest.raises(ZooError, match="its card says it is 's2-rgb'; folder and name must agree"):
        list_zoo(own_zoo)
    assert {n: bool(p) for n, p in verify_zoo(own_zoo)} == {"copy": True, "s2-rgb": False}


def test_a_broken_card_is_named(own_zoo: Path):
    edit_json(own_zoo / "s2-rgb" / "card.json", statistics={"mean": [0, 0, 0], "std": [1, 0, 1]})
    with pytest.raises(CardError, match=r"s2-rgb/card\.json: .*std 0"):
        list_zoo(own_zoo)


def test_one_broken_card_hides_no_other_specialist(own_zoo: Path):
    shutil.copytree(own_zoo / "s2-rgb", own_zoo / "bad")
    broken: dict[str, EosfmError] = {}
    assert [e.card.name for e in list_zoo(own_zoo, broken)] == ["s2-rgb"]
    assert "folder and name must agree" in str(broken["bad"])
    assert [e.card.name for e in find(own_zoo, ["s2-rgb"])] == ["s2-rgb"]
    with pytest.raises(ZooError, match="folder and name must agree"):
        find(own_zoo, ["s2-rgb", "bad"])
    with pytest.raises(ZooError, match="folder and name must agree"):
        find(own_zoo)  # all of them: one must not silently be missing


@pytest.mark.parametrize("what", ["folder", "card"])
def test_links_that_lead_outside_the_zoo_are_refused(own_zoo: Path, tmp_path: Path, what: str):
    """F7: a zoo is what lies in its folder; a link could point at anything on this machine."""
    source = own_zoo / "s2-rgb" if what == "folder" else own_zoo / "s2-rgb" / "card.json"
    source.rename(tmp_path / "outside")
    source.symlink_to(tmp_path / "outside")
    with pytest.raises(ZooError, match="leads outside the zoo"):
        list_zoo(own_zoo)
    ((name, problem),) = verify_zoo(own_zoo)
    assert name == "s2-rgb"
    assert problem


@pytest.mark.parametrize("what", ["folder", "card"])
@pytest.mark.parametrize("to", ["itself", "nowhere"])
def test_links_that_lead_nowhere_are_broken_specialists(own_zoo: Path, what: str, to: str):
    """Nothing can be seen behind them, so they were passed over without a word, and an ensemble was one short."""
    link = own_zoo / "lost" if what == "folder" else own_zoo / "lost" / "card.json"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(link if to == "itself" else own_zoo / "gone")
    broken: dict[str, EosfmError] = {}
    assert [e.card.name for e in list_zoo(own_zoo, broken)] == ["s2-rgb"]
    assert "leads" in str(broken["lost"]) and "nowhere" in str(broken["lost"])
    for names in (None, ["lost"]):
        with pytest.raises(ZooError, match="nowhere"):
            find(own_zoo, names)
    assert [(n, "nowhere" in p) for n, p in verify_zoo(own_zoo)] == [("lost", True), ("s2-rgb", False)]
    outcome = commands_zoo.zoo_list([own_zoo])
    assert outcome.failed and any("broken lost: " in line for line in outcome.lines)


def test_a_zoo_may_itself_be_a_link(own_zoo: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(own_zoo)
    assert [e.card.name for e in list_zoo(tmp_path / "link")] == ["s2-rgb"]
    assert verify_zoo(tmp_path / "link") == [("s2-rgb", "")]


def test_verify_reports_each_specialist_and_goes_on(own_zoo: Path):
    for name in ("b", "c"):
        shutil.copytree(own_zoo / "s2-rgb", own_zoo / name)
        edit_json(own_zoo / name / "card.json", name=name)
    with (own_zoo / "b" / "model.safetensors").open("r+b") as f:
        f.truncate(1000)
    report = dict(verify_zoo(own_zoo))
    assert report["s2-rgb"] == report["c"] == ""
    assert "1000 bytes" in report["b"]
    assert dict(verify_zoo(own_zoo, ["c"])) == {"c": ""}
    assert len(verify_zoo(own_zoo, ["c", "b"])) == 2


def test_verify_reports_extra_files_and_missing_cards(own_zoo: Path):
    (own_zoo / "s2-rgb" / "evil.py").write_text("")
    (own_zoo / "empty").mkdir()
    report = dict(verify_zoo(own_zoo))
    assert "extra files evil.py" in report["s2-rgb"]
    assert "no such file" in report["empty"]


def test_reading_a_zoo_writes_nothing(own_zoo: Path):
    with full_disk(0):
        list_zoo(own_zoo)
        verify_zoo(own_zoo)
