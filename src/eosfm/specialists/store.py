"""Specialists on disk: a folder with ``card.json`` and ``model.safetensors``; written atomically, hash checked, no pickle."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from eosfm._version import __version__
from eosfm.config import to_plain
from eosfm.contracts import CorruptArtifact
from eosfm.files import OutputError, atomic_folder, sha256_file
from eosfm.specialists.backbone import AnyEncoder, FrozenBackbone, loaded
from eosfm.specialists.card import SpecialistCard, WeightsInfo, read_card
from eosfm.specialists.encoder import ConvNeXtV2Atto

CARD, WEIGHTS = "card.json", "model.safetensors"
README, SIGNATURE = "README.md", "model.sig"  # may lie beside them; the signature is made by `specialists.signing`
_NO_WEIGHTS = WeightsInfo(sha256="0" * 64, bytes=0, parameters=0)


def save_specialist(
    encoder: ConvNeXtV2Atto | FrozenBackbone, card: SpecialistCard, zoo: Path, *, overwrite: bool = False
) -> SpecialistCard:
    """Store ``encoder`` under ``zoo/card.name`` and return its card with hash, size, version and date filled in.

    Raises:
        OutputError: the specialist exists and ``overwrite`` is false, or the place cannot be written.
    """
    with atomic_folder(zoo / card.name, overwrite=overwrite) as tmp:
        tensors = encoder.tensors()
        write_tensors(tmp / WEIGHTS, tensors, {"format": "pt"})  # two keys would be written in random order
        weights = WeightsInfo(
            sha256=sha256_file(tmp / WEIGHTS),
            bytes=(tmp / WEIGHTS).stat().st_size,
            parameters=sum(t.numel() for t in tensors.values()),
        )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        card = dataclasses.replace(card, weights=weights, eosfm_version=__version__, created=now)
        card = card.sealed()
        text = json.dumps(to_plain(card), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (tmp / CARD).write_text(text, encoding="utf-8")
    return card


def load_specialist(folder: Path) -> tuple[AnyEncoder, SpecialistCard]:
    """The frozen encoder and the card in ``folder``, after every check of `verify_specialist`."""
    card = verify_specialist(folder)
    return loaded(card, read_tensors(folder / WEIGHTS), f"specialist {card.name} ({folder})"), card


def verify_specialist(folder: Path, *, exact_files: bool = False) -> SpecialistCard:
    """The card in ``folder`` if its weights file is the one it describes.

    Args:
        folder: a specialist's folder.
        exact_files: also refuse files that do not belong to a specialist (what ``zoo verify`` asks).

    Raises:
        CardError: the card is missing or malformed.
        CorruptArtifact: weights missing, truncated, changed, or (``exact_files``) other files beside them.
    """
    if (folder / CARD).is_symlink():
        raise CorruptArtifact(f"{folder / CARD}: not a plain file")
    card = read_card(folder / CARD)
    weights = folder / WEIGHTS
    require_file(weights, card.weights.sha256, card.weights.bytes)
    extra = sorted(p.name for p in folder.iterdir() if p.name not in (CARD, WEIGHTS, README, SIGNATURE))
    if exact_files and extra:
        raise CorruptArtifact(f"{folder}: extra files {', '.join(extra)}; a specialist is {CARD} and {WEIGHTS} only")
    signature = folder / SIGNATURE  # push copies it: a link would take along what it leads to
    if exact_files and (signature.is_symlink() or (signature.exists() and not signature.is_file())):
        raise CorruptArtifact(f"{signature}: not a plain file")
    return card


def require_file(path: Path, sha256: str, size: int) -> None:
    """`CorruptArtifact` unless ``path`` is a plain file of ``size`` bytes with this SHA-256; says which it is not."""
    if path.is_symlink() or not path.is_file():
        raise CorruptArtifact(f"{path}: missing, or not a plain file")
    actual = path.stat().st_size
    if actual != size:
        raise CorruptArtifact(f"{path}: {actual} bytes, its card says {size}: truncated or replaced. Fetch it again.")
    digest = sha256_file(path)
    if digest != sha256:
        raise CorruptArtifact(
            f"{path}: sha256 {digest[:16]}..., its card says {sha256[:16]}...: the file or the card was changed. "
            "Fetch both again from whoever made it; never edit a card by hand."
        )


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file; a full disk is an `OutputError`. Call it inside an `atomic_folder`."""
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file(tensors, path, metadata=metadata)
        path.chmod(mode)  # safetensors makes files that only their maker can read: no zoo for two on one machine
    except SafetensorError as e:  # how safetensors reports a full disk
        raise OutputError(f"cannot write {path}: {e}") from e


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; anything malformed is a `CorruptArtifact` that names the file."""
    try:
        with safe_open(path, framework="pt"):
            pass  # reads and checks the header only: a hostile length is refused before anything is allocated
        tensors: dict[str, Tensor] = load_file(path)
        return tensors
    except (SafetensorError, OSError, ValueError) as e:
        raise CorruptArtifact(f"{path}: not a valid safetensors file: {e}") from None
