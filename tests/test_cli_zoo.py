"""``eosfm zoo``: what a user types, reads and gets; bad input ends with exit code 2 and one message."""

import dataclasses
import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from eosfm import cli, commands_zoo
from eosfm.specialists.store import load_specialist, save_specialist
from eosfm.specialists.zoo import list_zoo
from helpers import TINY, make_card, make_encoder, make_specialist, random_weights, tree
from test_cli import call


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_zoo_command_is_one_function_here():
    mine = {k: f for k, f in cli.COMMANDS.items() if k.startswith("zoo ")}
    assert set(mine) == {
        "zoo list",
        "zoo show",
        "zoo verify",
        "zoo sign",
        "zoo add",
        "zoo import",
        "zoo push",
        "zoo pull",
        "zoo export-stac",
        "zoo export-pangaea",
    }
    assert all(f.__module__ == commands_zoo.__name__ for f in mine.values())


def test_list_filters_and_says_why_the_rest_is_left_out(monkeypatch, capsys, work, tiny_zoo):
    save_specialist(make_encoder(3), make_card("closed", TINY["s2-rgb"], licence="CC-BY-NC-4.0"), work / "b")
    save_specialist(make_encoder(3), make_card("odd", TINY["s2-rgb"], licence="ask us"), work / "b")
    code, out, _ = call(monkeypatch, capsys, "zoo", "list", tiny_zoo, "b")
    assert code == 0 and "6 specialists" in out and "left out" not in out
    code, out, _ = call(monkeypatch, capsys, "zoo", "list", tiny_zoo, "b", "--licence", "commercial")
    assert "left out closed: licence CC-BY-NC-4.0: does not allow commercial use" in out
    assert "left out odd: licence ask us: not known to allow commercial use" in out
    assert "4 of 6 specialists" in out
    code, out, _ = call(monkeypatch, capsys, "zoo", "list", tiny_zoo, "--modality", "sar", "--task", "segmentation")
    assert "1 of 4 specialists" in out and "left out s2-six: reads optical" in out
    bands = "sentinel-2-l2a:B04,B03,B02@reflectance"
    code, out, _ = call(monkeypatch, capsys, "zoo", "list", tiny_zoo, "--bands", bands)
    assert code == 0 and re.search(r"left out s2-six: cannot read them: .*B8A", out) and "3 of 4" in out


def test_listing_goes_on_after_a_broken_card(monkeypatch, capsys, work, own_zoo):
    (own_zoo / "odd").mkdir()
    (own_zoo / "odd" / "card.json").write_text("{")
    code, out, _ = call(monkeypatch, capsys, "zoo", "list", own_zoo)
    assert code != 0 and "s2-rgb" in out and "broken odd: " in out


def test_importing_the_published_file(monkeypatch, capsys, work):
    content = [
        (3, random_weights(3, 1), {"backbone": "timm_convnextv2_atto", "encoder_name": "sen12ms-s1"}),
        (14, random_weights(14, 2), {"backbone": "timm_convnextv2_atto", "encoder_name": "bigearthnet"}),
        (3, random_weights(3, 3), {"backbone": "timm_convnextv2_atto", "encoder_name": "bigearthnet"}),
        (3, random_weights(3, 4), {"backbone": "timm_convnextv2_atto", "encoder_name": "encoder_3"}),
    ]
    torch.save(content, "eosfm.pth")
    code, _, err = call(monkeypatch, capsys, "zoo", "import", "eosfm.pth", "--to", "zoo")
    assert code == 2 and "entry 3, 'encoder_3' with 3 channels, is not known" in err and not (work / "zoo").exists()
    code, out, err = call(monkeypatch, capsys, "zoo", "import", "eosfm.pth", "--to", "zoo", "--as", "3=caffe")
    assert code == 0, err
    assert "licence CC-BY-NC-SA-4.0: does not allow commercial use" in out
    assert "bigearthnet: cannot be reproduced: backscatter was truncated" in out
    assert "sentinel-1:VH,VV@db + sentinel-2-l2a:" in out and "4 specialists imported into zoo" in out
    assert call(monkeypatch, capsys, "zoo", "verify", "zoo")[0] == 0
    code, out, _ = call(monkeypatch, capsys, "zoo", "list", "zoo", "--licence", "commercial")
    assert code == 0 and "0 of 4 specialists" in out
    assert call(monkeypatch, capsys, "zoo", "import", "eosfm.pth", "--as", "3=caffe")[0] == 2, "they exist already"


MINE = ["--name", "mine", "--bands", "sentinel-1:VV,VH@db", "--mean=-12,-19", "--std=5,-6", "--task", "segmentation",
        "--dataset", "floods", "--classes", "dry, wet", "--chip-size", "256", "--licence", "CC-BY-4.0"]  # fmt: skip


def test_importing_a_checkpoint_that_the_user_describes(monkeypatch, capsys, work):
    weights = random_weights(2, 5)
    torch.save({"state_dict": {f"model.encoder.{k}": v for k, v in weights.items()}}, "last.ckpt")
    code, out, err = call(monkeypatch, capsys, "zoo", "import", "last.ckpt", *MINE)
    assert code == 0, err
    assert "licence CC-BY-4.0: allows commercial use" in out
    encoder, card = load_specialist(work / "zoo" / "mine")
    assert card.task.classes == ("dry", "wet") and card.chip_size == 256 and card.statistics.mean == (-12.0, -19.0)
    assert card.statistics.std == (5.0, 6.0)
    flipped = weights["stem_0.weight"] * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    assert torch.equal(encoder.tensors()["stem_0.weight"], flipped)


def test_importing_a_backbone_of_another_architecture(monkeypatch, capsys, work):
    weights = timm.create_model("resnet18", in_chans=2, num_classes=3).state_dict()
    torch.save({"state_dict": {f"model.{k}": v for k, v in weights.items()}}, "r.ckpt")
    how = [*MINE[:-2], "--std=5,6", "--architecture", "resnet18"]
    code, out, err = call(monkeypatch, capsys, "zoo", "import", "r.ckpt", *how)
    assert code == 0, err
    assert "resnet18: its maps 1, 2, 3, 4 (from 0) at strides 4, 8, 16, 32" in out
    assert "left out of the file: model.fc" in out and "licence unknown: not known to allow commercial use" in out
    code, out, _ = call(monkeypatch, capsys, "zoo", "show", "zoo", "mine")
    assert code == 0 and "architecture: resnet18" in out
    assert call(monkeypatch, capsys, "zoo", "verify", "zoo")[0] == 0


def test_importing_timm_weights(monkeypatch, capsys, work):
    whole = {re.sub(r"^(stem|stages)_(\d)", r"\1.\2", k): v for k, v in random_weights(3, 6).items()}
    save_file(whole, work / "hub.safetensors")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(work / "hub.safetensors"))
    code, out, err = call(monkeypatch, capsys, "zoo", "import", "timm:convnextv2_atto.fcmae", "--to", "z")
    assert code == 0, err
    assert "licence CC-BY-NC-4.0: does not allow commercial use" in out
    assert [e.card.name for e in list_zoo(work / "z")] == ["imagenet-fcmae"]


def test_an_unknown_licence_is_said_on_import(monkeypatch, capsys, work):
    torch.save(random_weights(2, 5), "w.pt")
    _, out, _ = call(monkeypatch, capsys, "zoo", "import", "w.pt", *MINE[:-2])
    assert "licence unknown: not known to allow commercial use" in out


def test_stac_items_lie_where_the_user_says(monkeypatch, capsys, work, own_zoo):
    before = tree(own_zoo)
    code, _, err = call(monkeypatch, capsys, "zoo", "export-stac", own_zoo, "s2-rgb", "--to", "stac")
    assert code == 0, err
    assert json.loads((work / "stac" / "s2-rgb" / "stac-item.json").read_text())["id"] == "s2-rgb"
    assert tree(own_zoo) == before and call(monkeypatch, capsys, "zoo", "verify", own_zoo)[0] == 0


def test_push_and_pull_say_the_commit(monkeypatch, capsys, work, own_zoo):
    """Through the command line to the functions; what these do is tested in tests/specialists/test_zoo_world.py."""
    from eosfm.specialists import hub

    seen = []

    def push(zoo, names, repo, *, public, overwrite):
        seen.append((zoo, names, repo, public, overwrite))
        return hub.Pushed("d" * 40, ("s2-rgb",), ())

    def pull(repo, commit, zoo, names, *, overwrite):
        seen.append((repo, commit, str(zoo), names, overwrite))
        return [dataclasses.replace(list_zoo(own_zoo)[0].card, licence="CC-BY-NC-4.0")]

    monkeypatch.setattr(hub, "push", push)
    monkeypatch.setattr(hub, "pull", pull)
    code, out, _ = call(monkeypatch, capsys, "zoo", "push", own_zoo, "me/zoo", "s2-rgb", "--public")
    assert code == 0 and f"me/zoo is at {'d' * 40}" in out
    code, out, _ = call(monkeypatch, capsys, "zoo", "pull", "me/zoo", "--revision", "d" * 40, "--to", "there")
    assert code == 0 and "licence CC-BY-NC-4.0: does not allow commercial use" in out
    assert seen == [(own_zoo, ["s2-rgb"], "me/zoo", True, False), ("me/zoo", "d" * 40, "there", None, False)]


BAD = {
    "no such file": (("zoo", "import", "nothing.pth"), "nothing.pth: no such file"),
    "not weights": (("zoo", "import", "words.pth"), "neither a file of torch.save"),
    "undescribed": (("zoo", "import", "bare.pth"), "does not say what its 2 channels are"),
    "half described": (
        ("zoo", "import", "bare.pth", "--name", "x"),
        "needs --bands, --mean, --std, --task, --dataset, --chip-size too",
    ),
    "a licence is no description": (("zoo", "import", "bare.pth", "--licence", "MIT"), "needs --name"),
    "not numbers": (("zoo", "import", "bare.pth", *MINE, "--mean", "1,x"), "--mean '1,x': expected numbers"),
    "bad band": (("zoo", "import", "bare.pth", *MINE, "--bands", "sentinel-1:XX@db"), "unknown band 'XX'"),
    "bad as": (("zoo", "import", "bare.pth", "--as", "caffe"), "expected ENTRY=NAME"),
    "as and described": (("zoo", "import", "bare.pth", *MINE, "--as", "0=caffe"), "not by both"),
    "timm and described": (("zoo", "import", "timm:convnextv2_atto.fcmae", *MINE), "described already"),
    "timm of another kind": (("zoo", "import", "timm:resnet50"), "another architecture needs your description"),
    "timm has no such weights": (
        ("zoo", "import", "timm:resnet18.mine", *MINE, "--std=5,6"),
        "timm has no weights 'resnet18.mine' of resnet18; known: ",
    ),
    "timm says the architecture": (
        ("zoo", "import", "timm:resnet18.a1_in1k", *MINE, "--architecture", "resnet18"),
        "timm:NAME none of --architecture",
    ),
    "architecture undescribed": (
        ("zoo", "import", "bare.pth", "--architecture", "resnet18"),
        "another architecture needs your description",
    ),
    "our own architecture": (
        ("zoo", "import", "bare.pth", *MINE, "--std=5,6", "--architecture", "convnextv2_atto"),
        "leave the architecture out",
    ),
    "unknown pyramid": (("zoo", "import", "bare.pth", *MINE, "--pyramid", "stack"), "known: resample"),
    "a pyramid of ours": (("zoo", "import", "bare.pth", *MINE, "--pyramid", "resample"), "gives a pyramid itself"),
    "two zoos of one name": (("zoo", "list", "ZOO", "copy"), "is in two zoos"),
    "unknown filter": (("zoo", "list", "ZOO", "--licence", "free"), "known: commercial"),
    "unknown modality": (("zoo", "list", "ZOO", "--modality", "radio"), "known: elevation, optical, sar"),
    "filter with bad bands": (("zoo", "list", "ZOO", "--bands", "sentinel-2:B04@db"), "say which product"),
    "unpinned": (("zoo", "pull", "me/zoo", "--revision", "main"), "pin the full commit"),
    "no repository": (("zoo", "push", "ZOO", "zoo"), "expected OWNER/NAME"),
    "stac inside": (("zoo", "export-stac", "ZOO", "aerial-rgb", "--to", "ZOO"), "name another folder"),
    "stac of nobody": (("zoo", "export-stac", "ZOO", "wolf", "--to", "stac"), "no specialist 'wolf'"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_is_one_message(monkeypatch, capsys, work, tiny_zoo, case):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (work / "words.pth").write_text("hello")
    torch.save(random_weights(2, 5), "bare.pth")
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"]), work / "copy")
    args, message = BAD[case]
    code, _, err = call(monkeypatch, capsys, *[tiny_zoo if a == "ZOO" else a for a in args])
    assert code == 2 and err.startswith("error: ") and message in err, err
    assert not (work / "zoo").exists() and not (work / "stac").exists()
