"""Specialists on disk: what is stored is what is loaded, bit by bit, and everything else is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from eosfm.contracts import CardError, CorruptArtifact
from eosfm.files import OutputError, sha256_file
from eosfm.specialists.store import load_specialist, read_tensors, save_specialist, verify_specialist
from helpers import TINY, edit_json, equal, full_disk, image, make_specialist, tree


def test_a_specialist_round_trips_bit_by_bit(tiny_zoo: Path):
    for seed, (name, bands) in enumerate(TINY.items()):
        encoder, card = make_specialist(name, bands, seed)
        again, stored = load_specialist(tiny_zoo / name)
        assert stored.bandset() == card.bandset()
        assert stored.statistics == card.statistics
        x = image(bands, 1, 32).nan_to_num()
        assert equal(again(x), encoder(x))


def test_the_returned_card_is_the_stored_one_with_hash_size_and_count(tmp_path: Path):
    encoder, card = make_specialist("a", TINY["s2-six"])
    stored = save_specialist(encoder, card, tmp_path)
    weights = tmp_path / "a" / "model.safetensors"
    assert stored.weights.sha256 == sha256_file(weights)
    assert stored.weights.bytes == weights.stat().st_size
    assert stored.weights.parameters == 3_386_760 + 3 * 640
    assert verify_specialist(tmp_path / "a", exact_files=True) == stored
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["card.json", "model.safetensors"]
    assert stored.created.endswith("+00:00")


def test_equal_weights_are_equal_bytes(tmp_path: Path):
    """The hash is a specialist's identity, so storing it twice must not change it."""
    encoder, card = make_specialist("a", TINY["s2-rgb"])
    assert len({save_specialist(encoder, card, tmp_path, overwrite=True).weights.sha256 for _ in range(6)}) == 1


def test_loading_is_frozen(tiny_zoo: Path):
    encoder, _ = load_specialist(tiny_zoo / "s2-rgb")
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())


def test_an_existing_specialist_is_not_replaced_by_accident(own_zoo: Path):
    before = tree(own_zoo)
    with pytest.raises(OutputError, match="exists already"):
        save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 9), own_zoo)
    assert tree(own_zoo) == before
    card = save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 9), own_zoo, overwrite=True)
    assert load_specialist(own_zoo / "s2-rgb")[1] == card


def test_a_card_beside_other_bands_is_refused_with_both_numbers(own_zoo: Path):
    """M1: a card of six bands beside weights that read three channels."""
    card = json.loads((own_zoo / "s2-rgb" / "card.json").read_text())
    statistics = {"mean": card["statistics"]["mean"] * 2, "std": card["statistics"]["std"] * 2}
    edit_json(own_zoo / "s2-rgb" / "card.json", bands=card["bands"] * 2, statistics=statistics)
    with pytest.raises(CardError, match="the card names 6 bands but the weights' stem reads 3 channels"):
        load_specialist(own_zoo / "s2-rgb")


def test_a_readme_may_lie_beside_a_specialist_and_nothing_else(own_zoo: Path):
    folder = own_zoo / "s2-rgb"
    (folder / "README.md").write_text("hello")
    verify_specialist(folder, exact_files=True)
    (folder / "evil.py").write_text("print('hello')")
    verify_specialist(folder)
    with pytest.raises(CorruptArtifact, match=r"extra files evil\.py"):
        verify_specialist(folder, exact_files=True)


@pytest.mark.parametrize("name", ["card.json", "model.safetensors"])
def test_a_missing_file_is_named(own_zoo: Path, name: str):
    (own_zoo / "s2-rgb" / name).unlink()
    with pytest.raises((CardError, CorruptArtifact), match=name):
        load_specialist(own_zoo / "s2-rgb")


@pytest.mark.parametrize("name", ["card.json", "model.safetensors"])
def test_a_link_in_place_of_a_file_is_refused(own_zoo: Path, tmp_path: Path, name: str):
    file = own_zoo / "s2-rgb" / name
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptArtifact, match="not a plain file"):
        load_specialist(own_zoo / "s2-rgb")


def test_a_full_disk_leaves_the_previous_specialist(own_zoo: Path):
    before = tree(own_zoo)
    with full_disk(), pytest.raises(OutputError, match=r"cannot write .*s2-rgb"):
        save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 9), own_zoo, overwrite=True)
    assert tree(own_zoo) == before
    load_specialist(own_zoo / "s2-rgb")


def test_a_zoo_below_a_regular_file_cannot_be_written(tmp_path: Path):
    (tmp_path / "zoo").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        save_specialist(*make_specialist("a", TINY["s2-rgb"]), tmp_path / "zoo")
    assert (tmp_path / "zoo").read_text() == "not a folder"


def test_read_tensors_gives_what_was_saved(tiny_zoo: Path):
    encoder, _ = make_specialist("s2-rgb", TINY["s2-rgb"], list(TINY).index("s2-rgb"))
    tensors = read_tensors(tiny_zoo / "s2-rgb" / "model.safetensors")
    assert tensors.keys() == encoder.tensors().keys()
    assert all(torch.equal(v, tensors[k]) for k, v in encoder.tensors().items())
