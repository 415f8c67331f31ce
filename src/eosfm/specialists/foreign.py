"""Weights that others saved: read without running anything in them, and renamed to our tensor names, or refused with the reason.

Understood are files of `torch.save` (PyTorch 1.6 or later) and safetensors, holding

- a list of ``(in_chans, state_dict, config)``, as EoS-FM publishes its specialists;
- a state dict, bare or under "state_dict" (Lightning, TerraTorch) or "model" (facebookresearch/ConvNeXt-V2), in which
  somewhere (``model.encoder.``, ``_timm_module.``, ``backbone.``) the tensors of one ConvNeXtV2-Atto lie.

A file is checked from the outside first: size, and as a zip archive its names, sizes, compression and checksums. Then it
is mapped, not read, with ``torch.load(weights_only=True)``, and only the tensors of the encoder are ever copied.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # the error only; nothing is unpickled but by torch's restricted reader
from typing import Any, Literal

import torch
from torch import Tensor

from eosfm.contracts import CardError, CorruptArtifact, ZooError
from eosfm.specialists.encoder import feature_names
from eosfm.specialists.outside import (
    EXPECTED,
    MALFORMED,
    MAX_TENSORS,
    require_file_here,
    require_sound_archive,
    what_came,
)
from eosfm.specialists.store import read_tensors

MAX_BYTES = 4 << 30
"""Size of a file: a training checkpoint of a task model with its optimiser is far below."""
MAX_ENTRIES = 500
MAX_NUMBERS = 20_000_000
"""Numbers in one tensor of an encoder; ConvNeXtV2-Atto's largest has 409,600."""
STEMS = ("stem_0.weight", "stem.0.weight", "downsample_layers.0.0.weight")
"""the first convolution, as timm's feature list, timm's model and facebookresearch's code call it"""
WHICH_OTHER = "Say which one, as timm calls it, and it is imported as such: --architecture resnet18"


@dataclass(frozen=True)
class ForeignEncoder:
    """One encoder of a file, its tensors under our names."""

    index: int
    name: str
    """what the file calls it; "" where it does not say"""
    channels: int
    tensors: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    """what else lay beside the encoder (decoder, head), for the report"""


@dataclass(frozen=True)
class ForeignFile:
    """What a file holds."""

    kind: Literal["published", "checkpoint"]
    """"published": a list of named encoders, as EoS-FM's; "checkpoint": one encoder and perhaps more around it"""
    encoders: tuple[ForeignEncoder, ...]


def read_foreign(path: Path, prefix: str | None = None) -> ForeignFile:
    """The ConvNeXtV2-Atto encoders in the file at ``path``.

    Args:
        path: a file of `torch.save` or of safetensors.
        prefix: where the encoder lies in a checkpoint ("model.encoder."), if there are several.

    Raises:
        CorruptArtifact: missing, too large, truncated, changed, or not such a file; or one that would run code.
        CardError: a file of another architecture, or an encoder whose tensors are malformed.
        ZooError: several encoders in a checkpoint and no ``prefix``.
    """
    content = read_content(path)
    if isinstance(content, (list, tuple)):
        return ForeignFile("published", _published(path, content))
    return ForeignFile("checkpoint", (_single(path, content, prefix),))


def read_content(path: Path) -> Any:
    """What a file of `torch.save` or of safetensors holds, checked from the outside first; nothing in it is run.

    Raises:
        CorruptArtifact: missing, too large, truncated, changed, or not such a file; or one that would run code.
    """
    require_file_here(path)
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise CorruptArtifact(f"{path}: {size} bytes; at most {MAX_BYTES} are read. Save the encoder's tensors alone.")
    if zipfile.is_zipfile(path):
        require_sound_archive(path, size)
        return _load(path)
    if path.suffix == ".safetensors":
        return read_tensors(path)
    raise CorruptArtifact(f"{path}: {what_came(path, size)}. {EXPECTED}")


def _load(path: Path) -> Any:
    # Mapped: an absurd tensor costs no memory, and PyTorch checks each slice against the file.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about contents that are refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except UnpicklingError as e:
        found = re.search(r"GLOBAL:? (?:GLOBAL )?([\w.]+)", str(e))
        reason = (
            f"it holds more than tensors and plain values ({found[1] if found else str(e)[:120]}), and reading that could "
            "run code. Where you trust it, save the tensors alone: "
            'torch.save({"state_dict": checkpoint["state_dict"]}, ...)'
        )
    except (*MALFORMED, RecursionError) as e:
        reason = " ".join(str(e).split())[:300]
    raise CorruptArtifact(f"{path}: {reason}")


def _published(path: Path, content: list[Any] | tuple[Any, ...]) -> tuple[ForeignEncoder, ...]:
    """Each ``(in_chans, state_dict, config)`` of a list."""
    if not 0 < len(content) <= MAX_ENTRIES:
        raise CorruptArtifact(f"{path}: a list of {len(content)}; expected 1 to {MAX_ENTRIES} encoders")
    out = []
    for i, entry in enumerate(content):
        where = f"{path}, entry {i}"
        if not (isinstance(entry, (list, tuple)) and len(entry) == 3):
            raise CorruptArtifact(f"{where}: expected (in_chans, state_dict, config), got {_shape_of(entry)}")
        channels, state, config = entry
        if not (isinstance(channels, int) and not isinstance(channels, bool) and isinstance(config, dict)):
            raise CorruptArtifact(
                f"{where}: expected (int, dict of tensors, dict), got ({', '.join(_shape_of(e) for e in entry)})"
            )
        _require_atto(where, config)
        name = config.get("encoder_name", config.get("name", ""))
        if not isinstance(name, str):
            raise CorruptArtifact(f"{where}: its name is {_shape_of(name)}, expected text")
        tensors, left_out = _to_ours(where, _tensors(where, state), "")
        _require_channels(where, tensors, channels)
        out.append(ForeignEncoder(i, name[:200], channels, tensors, left_out))
    return tuple(out)


def _single(path: Path, content: Any, prefix: str | None) -> ForeignEncoder:
    """The one encoder of a checkpoint or state dict."""
    tensors = state_of(path, content)
    found = sorted({n.removesuffix(s) for s in STEMS for n in tensors if n == s or n.endswith("." + s)})
    if prefix is not None:
        wanted = prefix if not prefix or prefix.endswith(".") else prefix + "."
        if wanted not in found:
            raise ZooError(
                f"{path}: no encoder at {wanted!r}; there is one at: {', '.join(map(repr, found)) or 'none'}"
            )
        found = [wanted]
    if not found:
        some = ", ".join(repr(n[:60]) for n in list(tensors)[:3])
        raise CardError(
            f"{path}: no ConvNeXt stem ({', '.join(STEMS)}) among its {len(tensors)} tensors ({some} ...): another "
            f"architecture. {WHICH_OTHER}"
        )
    if len(found) > 1:
        raise ZooError(
            f"{path}: several encoders, at {', '.join(map(repr, found))}; say which one: --prefix {found[0]!r}"
        )
    ours, left_out = _to_ours(str(path), tensors, found[0])
    return ForeignEncoder(0, "", ours["stem_0.weight"].shape[1], ours, left_out)


def state_of(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, bare or under "state_dict" or "model", by name."""
    if not isinstance(content, dict):
        raise CorruptArtifact(f"{path}: holds {_shape_of(content)}; expected a state dict or a list of encoders")
    inner = next((content[k] for k in ("state_dict", "model") if isinstance(content.get(k), dict)), content)
    return _tensors(str(path), inner)


def _require_atto(where: str, config: dict[Any, Any]) -> None:
    declared = config.get("backbone")
    if isinstance(declared, str) and declared.removeprefix("timm_").split(".")[0] != "convnextv2_atto":
        raise CardError(
            f"{where}: a {declared[:60]!r}, which cannot be imported from a list: only ConvNeXtV2-Atto can."
        )


def _tensors(where: str, state: Any) -> dict[str, Tensor]:
    """The tensors of a state dict by name; checkpoints hold counters and settings beside them, which are passed over."""
    if not isinstance(state, dict):
        raise CorruptArtifact(f"{where}: its state dict is {_shape_of(state)}")
    if len(state) > MAX_TENSORS:
        raise CorruptArtifact(f"{where}: {len(state)} tensors; at most {MAX_TENSORS} are read")
    out = {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not out:
        raise CorruptArtifact(f"{where}: no tensors under names in it")
    return out


def _to_ours(where: str, tensors: dict[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The encoder's own tensors below ``prefix`` under our names, copied; and what was left out."""
    mine = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    depth = max(1, prefix.count("."))
    outside = {".".join(n.split(".")[:depth]) for n in tensors if not n.startswith(prefix)}
    out: dict[str, Tensor] = {}
    for name, tensor in mine.items():
        ours = _our_name(name)
        if ours is None:
            outside.add(prefix + name.split(".")[0])
            continue
        if ours in out:
            raise CorruptArtifact(f"{where}: two tensors both become {ours}")
        require_plain(f"{where}: {prefix}{name[:80]}", tensor)
        out[ours] = _our_shape(ours, tensor.detach()).clone().contiguous()
    _require_blocks(where, out)
    return out, tuple(sorted(outside))


def _our_name(name: str) -> str | None:
    """The name in timm's feature list of a tensor called ``name`` there, in timm's model or in facebookresearch's code.

    >>> _our_name("stages.2.3.grn.gamma"), _our_name("downsample_layers.1.1.bias"), _our_name("head.weight")
    ('stages_2.blocks.3.mlp.grn.weight', 'stages_1.downsample.1.bias', None)
    """
    if re.match(r"(stem|stages)_\d+\.", name):
        return name
    if m := re.fullmatch(r"downsample_layers\.(\d)\.(\d)\.(\w+)", name):
        return f"stem_{m[2]}.{m[3]}" if m[1] == "0" else f"stages_{m[1]}.downsample.{m[2]}.{m[3]}"
    if m := re.fullmatch(r"stages\.(\d)\.(\d+)\.(\w+)\.(\w+)", name):  # facebookresearch: no "blocks" in between
        part = {"dwconv": "conv_dw", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2", "grn": "mlp.grn"}.get(m[3], m[3])
        return f"stages_{m[1]}.blocks.{m[2]}.{part}.{ {'gamma': 'weight', 'beta': 'bias'}.get(m[4], m[4]) }"
    renamed = next(iter(feature_names({name: torch.empty(0)})), "")
    return renamed if re.match(r"(stem|stages)_\d+\.", renamed) else None


def _our_shape(name: str, tensor: Tensor) -> Tensor:
    """A dense layer as the 1x1 convolution it is, and GRN's [1, 1, 1, 4C] as [4C]; other shapes as they are."""
    if re.search(r"mlp\.fc[12]\.weight$", name) and tensor.ndim == 2:
        return tensor[:, :, None, None]
    if re.search(r"mlp\.grn\.(weight|bias)$", name) and tensor.ndim == 4 and tensor.shape[:3] == (1, 1, 1):
        return tensor.flatten()
    return tensor


def require_plain(where: str, tensor: Tensor) -> None:
    """`CorruptArtifact` for a tensor that is not simply numbers in the file: sparse, without data, or one number stretched."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise CorruptArtifact(f"{where}: not a plain tensor ({tensor.layout}, {tensor.device})")
    if tensor.numel() > MAX_NUMBERS or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CorruptArtifact(f"{where}: claims {tensor.numel()} numbers, more than an encoder has or the file holds")


def _require_blocks(where: str, ours: dict[str, Tensor]) -> None:
    """`CardError` for the relatives of ConvNeXtV2-Atto, said more kindly than by a list of shapes."""
    stem = ours.get("stem_0.weight")
    if stem is None:
        raise CardError(f"{where}: no ConvNeXt stem; another architecture. {WHICH_OTHER}")
    if stem.ndim != 4 or stem.shape[0] != 40:
        raise CardError(
            f"{where}: its stem is {tuple(stem.shape)}, ConvNeXtV2-Atto's is (40, channels, 4, 4): a larger or another "
            f"model. {WHICH_OTHER}"
        )
    if not any(".grn." in n for n in ours):
        raise CardError(f"{where}: no response normalisation (GRN), so a ConvNeXt of version 1. {WHICH_OTHER}")


def _require_channels(where: str, ours: dict[str, Tensor], declared: int) -> None:
    if (has := ours["stem_0.weight"].shape[1]) != declared:
        raise CorruptArtifact(f"{where}: declares {declared} input channels, its stem reads {has}")


def _shape_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, (list, tuple, dict)) else type(value).__name__
