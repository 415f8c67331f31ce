"""Signatures of specialists, made and checked with key files and sigstore's ``model-signing``, offline: who vouches for them.

A hash on a card says that the weights are the card's; whoever replaces both stays unseen. A signature, ``model.sig``,
covers card and weights, so that only the owner of the private key can make others. The file is a sigstore bundle with the
hashes of both files; ``model_signing verify key`` reads it too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eosfm.contracts import ConfigError, CorruptArtifact, missing_extra
from eosfm.files import OutputError, atomic_file
from eosfm.specialists.store import CARD, README, SIGNATURE, WEIGHTS, load_specialist, verify_specialist
from eosfm.specialists.zoo import find

if TYPE_CHECKING:
    from model_signing import hashing

MAX_SIGNATURE = 1 << 20
"""Bytes of a signature that is read; one of two files has 2 thousand."""
NEW_KEYS = (
    "openssl ecparam -name prime256v1 -genkey -noout -out private.pem && "
    "openssl ec -in private.pem -pubout -out public.pem"
)
"""a shell line that makes a pair of keys: what every message about a bad key shows"""
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OSError)
"""what the library raises for a bundle that is not one: it takes its fields without looking"""


def is_signed(folder: Path) -> bool:
    """Whether a signature lies in a specialist's ``folder``; says nothing about whether it holds."""
    return (folder / SIGNATURE).exists()


def sign_zoo(zoo: Path, names: Sequence[str] | None, key: Path, *, overwrite: bool = False) -> list[str]:
    """Sign specialists of ``zoo`` (default: all) with the private key in the file ``key``, and return their names.

    Raises:
        ConfigError: ``key`` is missing or no private key that can sign.
        CorruptArtifact: a specialist that is not sound; nothing is signed then.
        OutputError: one is signed already and ``overwrite`` is false; nothing is signed then.
        MissingExtra: ``model-signing`` is not installed.
    """
    sign = _signer(key)
    entries = find(zoo, names)
    signed = [e.card.name for e in entries if is_signed(e.folder)]
    if signed and not overwrite:
        raise OutputError(
            f"signed already: {', '.join(signed)}. Name the others, or replace these signatures by yours (--overwrite)."
        )
    for e in entries:
        verify_specialist(e.folder, exact_files=True)
        load_specialist(e.folder)
    for e in entries:
        sign(e.folder)
    return [e.card.name for e in entries]


def signature_check(key: Path) -> Callable[[Path], None]:
    """A function that raises `CorruptArtifact` unless a specialist's folder is signed with the key that goes with ``key``.

    Raises:
        ConfigError: ``key`` is missing or no public key.
        MissingExtra: ``model-signing`` is not installed.
    """
    _require_library()
    from model_signing import verifying

    config = _with_key(
        lambda: verifying.Config().use_elliptic_key_verifier(public_key=_key_file(key, "public")), key, "public"
    )

    def check(folder: Path) -> None:
        from cryptography.exceptions import InvalidSignature

        file = folder / SIGNATURE
        if not is_signed(folder):
            raise CorruptArtifact(
                f"{folder}: not signed: --key asks for a signature and there is no {SIGNATURE}. Get the specialist from "
                "whoever signs with this key, or sign it yourself: eosfm zoo sign"
            )
        _require_readable(file)
        try:
            config.set_hashing_config(_coverage()).verify(folder.resolve(), file)
        except (*_UNREADABLE, InvalidSignature) as e:
            raise CorruptArtifact(
                f"{file}: does not hold with {key}: {_reason(e)}. Get the specialist again from whoever signed it, and the "
                "public key from them too."
            ) from None

    return check


def _signer(key: Path) -> Callable[[Path], None]:
    _require_library()
    from model_signing import signing

    config = _with_key(
        lambda: signing.Config().use_elliptic_key_signer(private_key=_key_file(key, "private")), key, "private"
    )

    def sign(folder: Path) -> None:
        with atomic_file(folder / SIGNATURE) as tmp:
            try:
                config.set_hashing_config(_coverage()).sign(folder.resolve(), tmp)
            except ValueError as e:
                raise CorruptArtifact(f"{folder}: cannot be signed: {e}") from None

    return sign


def _coverage() -> hashing.Config:
    """Every file of a specialist but the two that may change: its README and the signature itself."""
    from model_signing import hashing

    class Ours(hashing.Config):  # type: ignore[misc]
        """The library would also skip what the signature tells it to skip; that could be the card."""

        def add_ignored_paths(self, *, model_path: object, paths: object) -> None:
            """Nothing that a signature says makes it cover less."""

    return Ours().set_ignored_paths(paths=[README, SIGNATURE], ignore_git_paths=False)


def _require_readable(file: Path) -> None:
    if file.is_symlink() or not file.is_file():
        raise CorruptArtifact(f"{file}: not a plain file")
    if (size := file.stat().st_size) > MAX_SIGNATURE:
        raise CorruptArtifact(f"{file}: {size} bytes; a signature has fewer than {MAX_SIGNATURE}")


def _reason(e: Exception) -> str:
    """Why a signature does not hold, in our words where the library's are bytes or nothing."""
    text = " ".join(str(e).split())
    if changed := [n for n in (CARD, WEIGHTS) if re.search(rf"Hash mismatch for \\?'{re.escape(n)}", text)]:
        return f"{' and '.join(changed)} changed after signing"
    if text.startswith("Signature mismatch") and "Extra files" in text:
        return f"it does not cover both {CARD} and {WEIGHTS}"
    if text.startswith("Key mismatch"):
        return "made with another key"
    if isinstance(e, ValueError):
        return text[:300]
    if isinstance(e, _UNREADABLE):
        return f"not a signature of model-signing ({type(e).__name__}: {text[:100]})"
    return "not what the owner of this key signed"


def _with_key(make: Callable[[], Any], key: Path, kind: str) -> Any:
    """What ``make`` makes of the key file; whatever the library says about a file that is no such key, as a `ConfigError`."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return make()
    except (ValueError, TypeError, AttributeError, OSError, UnsupportedAlgorithm) as e:
        first = (str(e).strip().splitlines() or [type(e).__name__])[0][:200]
        if isinstance(e, AttributeError):  # the library asks a key of another kind for its curve
            first = "a key of another kind"
        raise ConfigError(
            f"--key {key}: no {kind} key to work with: {first}\nExpected: a PEM file with a {kind} elliptic curve key "
            f"(P-256, P-384 or P-521), not encrypted. New ones: {NEW_KEYS}"
        ) from None


def _key_file(key: Path, kind: str) -> Path:
    if not key.is_file():
        raise ConfigError(f"--key {key}: no such file; expected a PEM file with a {kind} key. New ones: {NEW_KEYS}")
    return key


def _require_library() -> None:
    """`MissingExtra` unless ``model_signing`` can be imported; it imports pyOpenSSL without asking for it."""
    try:
        import model_signing  # noqa: F401
    except ModuleNotFoundError as e:
        if (e.name or "").split(".")[0] not in ("model_signing", "OpenSSL"):
            raise
        raise missing_extra(f"{e.name} (for signatures)", "sign") from None
