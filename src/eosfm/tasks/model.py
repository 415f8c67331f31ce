"""TaskModel: an encoder (frozen ensemble or any other), a head, and what the output means; stored without the encoder.

folder/task.json + ensemble.json + model.safetensors (fusion, decoder and head only; specialists by hash)
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from eosfm.bands import BandSet
from eosfm.composition import MANIFEST, FileInfo, from_manifest, manifest_of, read_manifest, write_manifest
from eosfm.config import read_json, read_record, record, to_plain
from eosfm.contracts import CorruptArtifact, Encoder, Pyramid, ZooError
from eosfm.ensemble import Ensemble
from eosfm.files import atomic_folder, sha256_file
from eosfm.specialists.card import DataInfo, Metric, TrainingInfo
from eosfm.specialists.encoder import MIN_SIZE
from eosfm.specialists.store import load_specialist, read_tensors, require_file, write_tensors
from eosfm.specialists.zoo import find
from eosfm.tasks.heads import PixelHead, SceneHead
from eosfm.tasks.kinds import IGNORE, KINDS

TASK, WEIGHTS = "task.json", "model.safetensors"
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@record
class HeadConfig:
    """Decoder and head; the defaults are PANGAEA's UPerNet, slimmer."""

    decoder: str = "upernet"
    channels: int = 128
    dropout: float = 0.1
    norm: Literal["group", "batch"] = "group"

    def __post_init__(self) -> None:
        if self.channels < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"channels {self.channels}, dropout {self.dropout}; expected 1 or more, and 0 to below 1")


@record
class TaskSpec:
    """What a task model predicts, and at which chip size it was trained."""

    kind: str
    classes: tuple[str, ...]
    chip_size: int
    head: HeadConfig = HeadConfig()
    colours: tuple[str, ...] = ()
    """one "#rrggbb" per class, for maps"""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task kind {self.kind!r}; known: {', '.join(KINDS)}")
        if not self.classes:
            raise ValueError("a task needs at least one class (or the name of the value it predicts)")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {', '.join(self.classes)}: each needs a name of its own")
        if self.colours and (len(self.colours) != len(self.classes) or not all(map(_COLOUR.fullmatch, self.colours))):
            raise ValueError(
                f"colours {self.colours}: expected one '#rrggbb' for each of {len(self.classes)} classes, or none"
            )
        if self.kind == "segmentation" and len(self.classes) > IGNORE:
            raise ValueError(
                f"{len(self.classes)} classes; a segmentation has at most {IGNORE}: label {IGNORE} is ignored"
            )
        if self.chip_size < MIN_SIZE or self.chip_size % MIN_SIZE:
            raise ValueError(f"chip size {self.chip_size}; expected a multiple of {MIN_SIZE}")


@record
class TaskCard:
    """``task.json``: the task, how it was trained and scored, and the hash of its weights."""

    schema_version: Literal[1] = 1
    name: str
    task: TaskSpec
    data: DataInfo
    training: TrainingInfo
    metrics: tuple[Metric, ...] = ()
    weights: FileInfo


def make_head(task: TaskSpec, in_channels: Sequence[int]) -> nn.Module:
    """The head that ``task`` asks for, over a pyramid of ``in_channels``."""
    outputs, h = len(task.classes), task.head
    if task.kind in ("classification", "multilabel"):
        return SceneHead(in_channels, outputs, h.dropout)
    return PixelHead(in_channels, outputs, h.decoder, h.channels, h.dropout, h.norm)


class TaskModel(nn.Module):
    """``head(encoder(x))``. Images of any size are padded to a multiple of 32 and the output is cut back."""

    def __init__(self, encoder: nn.Module & Encoder, task: TaskSpec) -> None:  # type: ignore[valid-type]
        super().__init__()
        self.encoder, self.task = encoder, task
        self.head = make_head(task, encoder.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(b, k, h, w)`` for pixels or ``(b, k)`` for scenes, from ``x`` ``(b, c, h, w)`` in declared units."""
        h, w = x.shape[-2:]
        out: Tensor = self.head(self.encoder(pad(x)))
        return out[..., :h, :w] if out.ndim == 4 else out

    def from_features(self, pyramids: Sequence[Pyramid], size: tuple[int, int] | None = None) -> Tensor:
        """The same from the views' features, computed before by ``encoder.encode`` (an `Ensemble`).

        ``size`` is that of the chips before they were padded; the output is cut back to it.
        """
        out: Tensor = self.head(self.encoder.fuse(pyramids))
        return out[..., : size[0], : size[1]] if size is not None and out.ndim == 4 else out

    def trainable_tensors(self) -> dict[str, Tensor]:
        """Fusion, decoder and head: everything but frozen specialists."""
        return {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items() if not is_frozen_key(k)}


def is_frozen_key(key: str) -> bool:
    """Whether a state-dict key belongs to a specialist (referenced by hash, never copied into a checkpoint)."""
    return ".encoders." in f".{key}"


def pad(x: Tensor) -> Tensor:
    """``x`` grown on the right and bottom to multiples of 32 by repeating the border; ``pad(x)[..., :h, :w] == x``."""
    h, w = x.shape[-2:]
    down, right = -h % MIN_SIZE, -w % MIN_SIZE
    return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x


def probabilities(kind: str, z: Tensor) -> Tensor:
    """Class probabilities, or the values themselves for regression; the shape of ``z``."""
    if kind == "multilabel":
        return z.sigmoid()
    return z if kind == "regression" else z.softmax(1)


def save_task_model(
    model: TaskModel, folder: Path, zoo: Path, *, name: str, data: DataInfo, training: TrainingInfo,
    metrics: Sequence[Metric] = (), overwrite: bool = False,
) -> TaskCard:  # fmt: skip
    """Store ``model`` (whose encoder is an `Ensemble` of specialists of ``zoo``) without its specialists, atomically."""
    ensemble = model.encoder
    assert isinstance(ensemble, Ensemble)
    with atomic_folder(folder, overwrite=overwrite) as tmp:
        write_tensors(tmp / WEIGHTS, model.trainable_tensors())
        info = FileInfo(file=WEIGHTS, sha256=sha256_file(tmp / WEIGHTS), bytes=(tmp / WEIGHTS).stat().st_size)
        known_metrics = tuple(m for m in metrics if math.isfinite(m.value))  # R2 of constant labels has no value
        card = TaskCard(name=name, task=model.task, data=data, training=training, metrics=known_metrics, weights=info)
        (tmp / TASK).write_text(json.dumps(to_plain(card), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        manifest = replace(manifest_of(ensemble, folder, zoo), weights=info, weights_prefix="encoder.fusion.")
        write_manifest(tmp / MANIFEST, manifest)
    return card


def load_task_model(folder: Path, zoo: Path | None = None) -> tuple[TaskModel, TaskCard]:
    """The task model in ``folder``, in evaluation mode, with its own and every specialist's hash checked.

    Raises:
        CorruptArtifact: weights changed, tensors missing or extra.
        ZooError: a specialist is missing or is another one under the same name.
    """
    if folder.is_dir() and not (folder / TASK).exists():
        what = (
            "an ensemble"
            if (folder / MANIFEST).exists()
            else "a specialist"
            if (folder / "card.json").exists()
            else "a folder"
        )
        raise ZooError(f"{folder} is {what} without {TASK}; expected a task model, which `eosfm adapt` makes")
    card = read_record(
        TaskCard, read_json(folder / TASK, error=CorruptArtifact), str(folder / TASK), error=CorruptArtifact
    )
    ensemble = from_manifest(read_manifest(folder / MANIFEST), folder, zoo=zoo)
    model = TaskModel(ensemble, card.task)
    require_file(folder / WEIGHTS, card.weights.sha256, card.weights.bytes)
    load_trainable(model, read_tensors(folder / WEIGHTS), str(folder / WEIGHTS))
    ensemble.fusion_trained = True
    return model.eval(), card


def extend_task_model(folder: Path, names: Sequence[str], output: Path, zoo: Path | None = None) -> TaskCard:
    """The task model in ``folder`` with the specialists ``names`` of its zoo added, stored in ``output``.

    It predicts exactly what it did: the new fusion weights are 0 until it is adapted further (``start`` of an adapt file).

    Raises:
        ZooError: an unknown name, or one that is already in the ensemble.
        BandError: none of them can read the model's input.
    """
    model, card = load_task_model(folder, zoo)
    where = zoo or (folder / read_manifest(folder / MANIFEST).zoo).resolve()
    wider = TaskModel(model.encoder.extended([load_specialist(e.folder) for e in find(where, names)]), card.task)
    wider.head.load_state_dict(model.head.state_dict(), strict=True)
    return save_task_model(
        wider.eval(), output, where, name=card.name, data=card.data, training=card.training, metrics=card.metrics
    )


def load_trainable(model: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy ``tensors`` into ``model``; only frozen specialists may be absent, nothing may be extra or misshapen."""
    own = {k: v for k, v in model.state_dict().items() if not is_frozen_key(k)}
    wrong = [f"missing {k}" for k in own.keys() - tensors.keys()] + [f"extra {k}" for k in tensors.keys() - own.keys()]
    wrong += [f"{k}: {tuple(tensors[k].shape)}, expected {tuple(v.shape)}" for k, v in own.items()
              if k in tensors and tensors[k].shape != v.shape]  # fmt: skip
    if wrong:
        raise CorruptArtifact(f"{where}: does not fit this model: {'; '.join(sorted(wrong)[:4])}")
    model.load_state_dict(tensors, strict=False)


class SceneTaskModel:
    """A `TaskModel` as `eosfm.inference.predict` sees it: chips in, class probabilities or values out."""

    stride = 1

    def __init__(self, model: TaskModel, fingerprint: str) -> None:
        self.model, self.fingerprint = model, fingerprint
        self.bands: BandSet = model.encoder.bands
        self.statistics = model.encoder.statistics
        self.chip_size = model.task.chip_size
        # multi-label maps have no single winner: they are written as one probability band per class
        self.kind = "classes" if model.task.kind in ("segmentation", "classification") else "values"
        self.names = model.task.classes

    def chips(self, x: Tensor) -> Tensor:
        """``(b, k, chip, chip)`` of ``x`` ``(b, c, chip, chip)``; scene labels cover their whole chip."""
        z = probabilities(self.model.task.kind, self.model(x))
        return z if z.ndim == 4 else z[..., None, None].expand(-1, -1, *x.shape[-2:])


class SceneFeatures:
    """One level of an ensemble's fused pyramid, as `eosfm.inference.predict` sees it."""

    kind = "features"

    def __init__(self, ensemble: Ensemble, level: int, chip_size: int, fingerprint: str) -> None:
        self.ensemble, self.level, self.chip_size, self.fingerprint = ensemble, level, chip_size, fingerprint
        self.bands, self.statistics = ensemble.bands, ensemble.statistics
        self.stride = 4 * 2**level
        self.names = tuple(f"feature_{i:03d}" for i in range(ensemble.out_channels[level]))

    def chips(self, x: Tensor) -> Tensor:
        """``(b, channels, chip/stride, chip/stride)`` fused features."""
        with torch.no_grad():
            features: Pyramid = self.ensemble(x)
        return features[self.level]


def fingerprint(model: nn.Module) -> str:
    """A hash of all weights and of how each view reads its input, for telling one model from another (resume, results)."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    h = hashlib.sha256(save(tensors))
    for e in model.modules():
        if isinstance(e, Ensemble):
            h.update(f"{e.bands}|{e.views}|{e.gates.tolist()}|{e.fusion.name}|{e.fusion.normalise}".encode())
    return h.hexdigest()
