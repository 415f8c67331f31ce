"""A signature holds for exactly the card and the weights that the owner of a key signed, and for nothing else."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from test_zoo_world import REPO, FolderHub

from eosfm.contracts import ConfigError, CorruptArtifact, MissingExtra, ZooError
from eosfm.files import OutputError
from eosfm.specialists.hub import pull, push
from eosfm.specialists.signing import MAX_SIGNATURE, NEW_KEYS, is_signed, sign_zoo, signature_check
from eosfm.specialists.store import load_specialist, save_specialist, verify_specialist
from eosfm.specialists.zoo import verify_zoo
from helpers import TINY, edit_json, full_disk, make_specialist, tree
from test_cli import call

SIG = "model.sig"


def write_keys(folder: Path, name: str, key: Any = None, password: bytes | None = None) -> None:
    key = key or ec.generate_private_key(ec.SECP256R1())
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    (folder / f"{name}.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``mine`` and ``other`` are good pairs; the rest cannot sign."""
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder, "mine")
    write_keys(folder, "other")
    write_keys(folder, "rsa", rsa.generate_private_key(65537, 2048))
    write_keys(folder, "koblitz", ec.generate_private_key(ec.SECP256K1()))
    write_keys(folder, "locked", password=b"secret")
    (folder / "words.pem").write_text("hello")
    (folder / "bytes.pem").write_bytes(b"\xff\x00" * 50)
    (folder / "empty.pem").write_text("")
    return folder


@pytest.fixture
def signed(own_zoo: Path, keys: Path) -> Path:
    """A zoo of one specialist that "mine" signed."""
    assert sign_zoo(own_zoo, None, keys / "mine.pem") == ["s2-rgb"]
    return own_zoo


def problem(zoo: Path, key: Path) -> str:
    ((_, said),) = verify_zoo(zoo, key=key)
    return said


def test_a_signed_specialist_is_verified_loaded_and_otherwise_the_same(own_zoo: Path, keys: Path):
    before = tree(own_zoo)
    sign_zoo(own_zoo, ["s2-rgb"], keys / "mine.pem")
    assert set(tree(own_zoo)) - set(before) == {f"s2-rgb/{SIG}"}
    assert {k: v for k, v in tree(own_zoo).items() if k in before} == before
    assert problem(own_zoo, keys / "mine.pub") == ""
    load_specialist(own_zoo / "s2-rgb")
    verify_specialist(own_zoo / "s2-rgb", exact_files=True)


def test_nothing_asks_the_network(own_zoo: Path, keys: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    sign_zoo(own_zoo, None, keys / "mine.pem")
    assert problem(own_zoo, keys / "mine.pub") == ""


def test_a_readme_may_change_after_signing(signed: Path, keys: Path):
    (signed / "s2-rgb" / "README.md").write_text("hello")
    assert problem(signed, keys / "mine.pub") == ""


def test_the_library_s_own_command_agrees(signed: Path, keys: Path):
    """The file is not ours alone: whoever has model-signing can check it without eosfm."""
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(signed / "s2-rgb")]
    more = ["--signature", str(signed / "s2-rgb" / SIG), "--public_key"]
    assert subprocess.run([*command, *more, str(keys / "mine.pub")], capture_output=True).returncode == 0
    assert subprocess.run([*command, *more, str(keys / "other.pub")], capture_output=True).returncode != 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_the_line_that_makes_keys_makes_keys(own_zoo: Path, tmp_path: Path):
    subprocess.run(NEW_KEYS, shell=True, check=True, cwd=tmp_path, capture_output=True)
    sign_zoo(own_zoo, None, tmp_path / "private.pem")
    assert problem(own_zoo, tmp_path / "public.pem") == ""


# ---- what must not hold ----


def resealed(zoo: Path) -> None:
    """Weights and card replaced together, the old signature kept: hashes agree with each other."""
    signature = (zoo / "s2-rgb" / SIG).read_bytes()
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 99), zoo, overwrite=True)
    (zoo / "s2-rgb" / SIG).write_bytes(signature)


def swapped(zoo: Path) -> None:
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 99), zoo.parent / "else")
    shutil.copyfile(zoo.parent / "else" / "s2-rgb" / "model.safetensors", zoo / "s2-rgb" / "model.safetensors")


def bundle(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(zoo: Path) -> None:
        data = json.loads((zoo / "s2-rgb" / SIG).read_text())
        change(data)
        (zoo / "s2-rgb" / SIG).write_text(json.dumps(data))

    return damage


def payload(data: dict[str, Any]) -> None:
    """What was signed, rewritten by somebody without the key."""
    text = base64.b64decode(data["dsseEnvelope"]["payload"]).replace(b"card.json", b"cart.json")
    data["dsseEnvelope"]["payload"] = base64.b64encode(text).decode()


def linked(zoo: Path) -> None:
    (zoo / "s2-rgb" / SIG).rename(zoo.parent / "elsewhere")
    (zoo / "s2-rgb" / SIG).symlink_to(zoo.parent / "elsewhere")


def file(content: bytes) -> Callable[[Path], None]:
    return lambda zoo: (zoo / "s2-rgb" / SIG).write_bytes(content) and None


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "not signed": (lambda z: (z / "s2-rgb" / SIG).unlink(), "not signed: --key asks for a signature"),
    "card edited": (lambda z: edit_json(z / "s2-rgb" / "card.json", licence="MIT"), "card.json changed after signing"),
    "weights swapped": (swapped, "the file or the card was changed"),
    "weights and card swapped": (resealed, "card.json and model.safetensors changed after signing"),
    "payload rewritten": (bundle(payload), "not what the owner of this key signed"),
    "no signatures": (bundle(lambda d: d["dsseEnvelope"].update(signatures=[])), "does not hold"),
    "no key named": (bundle(lambda d: d.update(verificationMaterial={})), "does not hold"),
    "no material": (bundle(lambda d: d.pop("verificationMaterial")), "does not hold"),
    "no envelope": (bundle(lambda d: d.pop("dsseEnvelope")), "does not hold"),
    "another kind": (bundle(lambda d: d.update(mediaType="text/plain")), "mediaType"),
    "a list": (file(b"[]"), "does not hold"),
    "deep": (file(b"[" * 100_000), "does not hold"),
    "empty": (file(b""), "does not hold"),
    "bytes": (file(b"\xff\x00"), "does not hold"),
    "huge": (file(b" " * (MAX_SIGNATURE + 1)), "a signature has fewer"),
    "a link": (linked, "not a plain file"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_was_changed_is_a_problem_of_its_row(signed: Path, keys: Path, case: str):
    damage, message = DAMAGE[case]
    damage(signed)
    said = problem(signed, keys / "mine.pub")
    assert message in said and len(said) < 900, said


def test_without_its_hint_of_the_key_a_signature_still_needs_the_key(signed: Path, keys: Path):
    bundle(lambda d: d["verificationMaterial"]["publicKey"].pop("hint"))(signed)
    assert "not what the owner of this key signed" in problem(signed, keys / "other.pub")
    assert problem(signed, keys / "mine.pub") == ""


def test_another_key_is_a_problem(signed: Path, keys: Path):
    assert "made with another key" in problem(signed, keys / "other.pub")


def test_a_signature_of_another_specialist_is_a_problem(signed: Path, keys: Path):
    save_specialist(*make_specialist("b", TINY["s2-rgb"], 5), signed)
    shutil.copyfile(signed / "s2-rgb" / SIG, signed / "b" / SIG)
    report = dict(verify_zoo(signed, key=keys / "mine.pub"))
    assert report["s2-rgb"] == "" and "changed after signing" in report["b"]


@pytest.mark.parametrize("left_out", ["card.json", "model.safetensors"])
def test_a_signature_that_skips_the_card_or_the_weights_does_not_hold(own_zoo: Path, keys: Path, left_out: str):
    """The library would skip what the signature says; then a good key would vouch for a card that nobody signed."""
    from model_signing import hashing, signing, verifying

    folder = own_zoo / "s2-rgb"
    config = hashing.Config().set_ignored_paths(paths=[SIG, left_out])
    signer = signing.Config().use_elliptic_key_signer(private_key=keys / "mine.pem").set_hashing_config(config)
    signer.sign(folder, folder / SIG)
    verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub").verify(folder, folder / SIG)
    assert "it does not cover both card.json and model.safetensors" in problem(own_zoo, keys / "mine.pub")


# ---- signing ----


def test_a_signature_is_not_replaced_unasked(signed: Path, keys: Path):
    save_specialist(*make_specialist("b", TINY["s2-rgb"], 5), signed)
    before = tree(signed)
    with pytest.raises(OutputError, match=r"signed already: s2-rgb.*--overwrite"):
        sign_zoo(signed, None, keys / "other.pem")
    assert tree(signed) == before
    assert sign_zoo(signed, ["b"], keys / "other.pem") == ["b"]
    sign_zoo(signed, None, keys / "other.pem", overwrite=True)
    assert [p for _, p in verify_zoo(signed, key=keys / "other.pub")] == ["", ""]


def test_an_unsound_specialist_is_not_signed(own_zoo: Path, keys: Path):
    save_specialist(*make_specialist("a", TINY["s2-rgb"], 5), own_zoo)
    (own_zoo / "s2-rgb" / "evil.py").write_text("")
    with pytest.raises(CorruptArtifact, match=r"extra files evil\.py"):
        sign_zoo(own_zoo, None, keys / "mine.pem")
    assert not is_signed(own_zoo / "a") and not is_signed(own_zoo / "s2-rgb")
    with pytest.raises(ZooError, match="no specialist 'wolf'"):
        sign_zoo(own_zoo, ["wolf"], keys / "mine.pem")


def test_a_full_disk_leaves_no_half_signature(own_zoo: Path, keys: Path):
    before = tree(own_zoo)
    with full_disk(0), pytest.raises(OutputError, match=r"cannot write .*model\.sig"):
        sign_zoo(own_zoo, None, keys / "mine.pem")
    assert tree(own_zoo) == before


def test_saving_anew_drops_the_signature(signed: Path, keys: Path):
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 9), signed, overwrite=True)
    assert not is_signed(signed / "s2-rgb")
    assert dict(verify_zoo(signed)) == {"s2-rgb": ""}
    assert "not signed" in problem(signed, keys / "mine.pub")


BAD_KEYS = {
    "missing": ("nothing", "no such file"),
    "a folder": (".", "no such file"),
    "words": ("words.pem", "to work with"),
    "bytes": ("bytes.pem", "to work with"),
    "empty": ("empty.pem", "to work with"),
    "rsa": ("rsa", "a key of another kind"),
    "another curve": ("koblitz", "secp256k1"),
}


@pytest.mark.parametrize("case", BAD_KEYS)
def test_a_bad_key_is_one_error_that_says_how_to_make_one(own_zoo: Path, keys: Path, case: str):
    name, message = BAD_KEYS[case]
    whole = "." in name
    for kind, use in {
        "private": lambda k: sign_zoo(own_zoo, None, k),
        "public": signature_check,
    }.items():
        key = keys / (name if whole else f"{name}.{'pem' if kind == 'private' else 'pub'}")
        with pytest.raises(ConfigError, match=message) as e:
            use(key)
        assert f"{kind}" in str(e.value) and "openssl" in str(e.value)
    assert not is_signed(own_zoo / "s2-rgb")


def test_the_wrong_half_of_a_pair_and_a_locked_key_are_said(own_zoo: Path, keys: Path):
    with pytest.raises(ConfigError, match="no private key"):
        sign_zoo(own_zoo, None, keys / "mine.pub")
    with pytest.raises(ConfigError, match="no public key"):
        verify_zoo(own_zoo, key=keys / "mine.pem")
    with pytest.raises(ConfigError, match="encrypted"):
        sign_zoo(own_zoo, None, keys / "locked.pem")


@pytest.mark.parametrize("library", ["model_signing", "OpenSSL"])
def test_without_the_extra_it_says_what_to_install(
    own_zoo: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, library: str
):
    for name in [m for m in sys.modules if m.split(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    for use in (lambda: sign_zoo(own_zoo, None, keys / "mine.pem"), lambda: signature_check(keys / "mine.pub")):
        with pytest.raises(MissingExtra, match=r"pip install 'eosfm\[sign\]'"):
            use()
    assert dict(verify_zoo(own_zoo)) == {"s2-rgb": ""}


# ---- the Hub carries it ----


def test_a_signature_travels(signed: Path, keys: Path, tmp_path: Path):
    hub = FolderHub(tmp_path / "hub")
    done = push(signed, None, REPO, hub=hub)
    pull(REPO, done.commit, tmp_path / "there", hub=hub)
    assert tree(tmp_path / "there") == tree(signed) and problem(tmp_path / "there", keys / "mine.pub") == ""
    (hub.root / hub.now / "s2-rgb" / SIG).unlink()
    with pytest.raises(ZooError, match=r"s2-rgb/model\.sig did not come"):
        pull(REPO, done.commit, tmp_path / "again", hub=hub)


def test_a_signature_that_the_index_does_not_name_is_refused(signed: Path, keys: Path, tmp_path: Path):
    hub = FolderHub(tmp_path / "hub")
    done = push(signed, None, REPO, hub=hub)
    sign_zoo(signed, None, keys / "other.pem", overwrite=True)
    shutil.copyfile(signed / "s2-rgb" / SIG, hub.root / hub.now / "s2-rgb" / SIG)
    with pytest.raises(CorruptArtifact, match="signature are not those of the repository's"):
        pull(REPO, done.commit, tmp_path / "there", hub=hub)


def test_a_push_adds_a_signature_and_neither_drops_nor_replaces_one_unasked(own_zoo: Path, keys: Path, tmp_path: Path):
    hub = FolderHub(tmp_path / "hub")
    push(own_zoo, None, REPO, hub=hub)
    shutil.copytree(own_zoo, tmp_path / "bare")
    sign_zoo(own_zoo, None, keys / "mine.pem")
    assert push(own_zoo, None, REPO, hub=hub).pushed == ("s2-rgb",), "a new signature is news"
    assert push(own_zoo, None, REPO, hub=hub).unchanged == ("s2-rgb",)
    assert push(tmp_path / "bare", None, REPO, hub=hub).unchanged == ("s2-rgb",)
    pull(REPO, hub.now, tmp_path / "there", hub=hub)
    assert problem(tmp_path / "there", keys / "mine.pub") == ""
    sign_zoo(own_zoo, None, keys / "other.pem", overwrite=True)
    with pytest.raises(ZooError, match="another signature of it"):
        push(own_zoo, None, REPO, hub=hub)
    push(own_zoo, None, REPO, overwrite=True, hub=hub)
    pull(REPO, hub.now, tmp_path / "there", overwrite=True, hub=hub)
    assert problem(tmp_path / "there", keys / "other.pub") == ""


def test_a_replaced_specialist_does_not_keep_its_predecessor_s_signature(signed: Path, tmp_path: Path):
    hub = FolderHub(tmp_path / "hub")
    push(signed, None, REPO, hub=hub)
    pull(REPO, hub.now, tmp_path / "there", hub=hub)
    save_specialist(*make_specialist("s2-rgb", TINY["s2-rgb"], 9), tmp_path / "new")
    push(tmp_path / "new", None, REPO, overwrite=True, hub=hub)
    pull(REPO, hub.now, tmp_path / "there", overwrite=True, hub=hub)
    assert not is_signed(tmp_path / "there" / "s2-rgb")


def test_a_link_in_place_of_a_signature_is_not_pushed(own_zoo: Path, tmp_path: Path):
    (tmp_path / "secret").write_text("x")
    (own_zoo / "s2-rgb" / SIG).symlink_to(tmp_path / "secret")
    with pytest.raises(CorruptArtifact, match=r"model\.sig: not a plain file"):
        push(own_zoo, None, REPO, hub=FolderHub(tmp_path / "hub"))


# ---- the command line ----


def test_sign_and_verify_on_the_command_line(monkeypatch, capsys, own_zoo: Path, keys: Path):
    save_specialist(*make_specialist("bare", TINY["s2-rgb"], 5), own_zoo)
    code, out, err = call(monkeypatch, capsys, "zoo", "sign", own_zoo, "s2-rgb", "--key", keys / "mine.pem")
    assert code == 0 and "signed s2-rgb" in out, err
    code, out, _ = call(monkeypatch, capsys, "zoo", "verify", own_zoo)
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert (
        code == 0 and "there, not checked (--key)" in rows["s2-rgb"] and rows["bare"].split() == ["bare", "ok", "none"]
    )
    code, out, _ = call(monkeypatch, capsys, "zoo", "verify", own_zoo, "--key", keys / "mine.pub")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert code == 1 and rows["s2-rgb"].split() == ["s2-rgb", "ok", "good"] and "not signed" in rows["bare"]
    assert "1 of 2 are sound and signed with" in out
    code, out, _ = call(monkeypatch, capsys, "zoo", "verify", own_zoo, "s2-rgb", "--key", keys / "mine.pub")
    assert code == 0
    code, out, _ = call(monkeypatch, capsys, "zoo", "verify", own_zoo, "s2-rgb", "--key", keys / "other.pub")
    assert code == 1 and "made with another key" in out


@pytest.mark.parametrize("command", ["sign", "verify"])
@pytest.mark.parametrize("key", ["nothing.pem", "words.pem", "rsa.pem"])
def test_a_bad_key_ends_with_2(monkeypatch, capsys, own_zoo: Path, keys: Path, command: str, key: str):
    code, _, err = call(monkeypatch, capsys, "zoo", command, own_zoo, "--key", keys / key)
    assert code == 2 and err.startswith(f"error: --key {keys / key}: "), err
