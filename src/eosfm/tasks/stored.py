"""Task models on disk, stored without their specialists, which are named by hash.

folder/task.json + ensemble.json + model.safetensors (fusion, decoder and head only)
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from eosfm.composition import MANIFEST, FileInfo, from_manifest, manifest_of, read_manifest, write_manifest, written_by
from eosfm.config import read_json, read_record, record, to_plain
from eosfm.contracts import CorruptArtifact, ZooError
from eosfm.ensemble import Ensemble
from eosfm.files import atomic_folder, sha256_file
from eosfm.specialists.card import DataInfo, Metric, TrainingInfo
from eosfm.specialists.store import load_specialist, read_tensors, require_file, write_tensors
from eosfm.specialists.zoo import find
from eosfm.tasks.model import TaskModel, TaskSpec, is_frozen_key

TASK, WEIGHTS = "task.json", "model.safetensors"


@record
class Choice:
    """A choice of specialists: by what, among which, with what score each."""

    by: str
    """"learned top-k", "forward search", ...: how, on which data, at which price"""
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    scores: dict[str, float] = field(default_factory=dict)
    """what each specialist was chosen by, where it is one number"""


@record
class TaskCard:
    """``task.json``: the task, how it was trained and scored, and the hash of its weights."""

    schema_version: Literal[1] = 1
    name: str
    task: TaskSpec
    data: DataInfo
    training: TrainingInfo
    metrics: tuple[Metric, ...] = ()
    chosen: Choice | None = None
    """how its specialists were chosen, where they were"""
    weights: FileInfo


def learned_choice(ensemble: Ensemble) -> Choice | None:
    """What the selector of a trained ``ensemble`` chose; None where nothing was learnt."""
    selector = ensemble.selector
    if selector is None:
        return None
    kept, scores = tuple(selector.chosen()), [round(v, 4) for v in selector.scores.detach().tolist()]
    dropped = tuple(n for n in selector.names if n not in kept)
    return Choice(by="learned top-k", kept=kept, dropped=dropped, scores=dict(zip(selector.names, scores, strict=True)))


def save_task_model(
    model: TaskModel, folder: Path, zoo: Path, *, name: str, data: DataInfo, training: TrainingInfo,
    metrics: Sequence[Metric] = (), chosen: Choice | None = None, overwrite: bool = False,
) -> TaskCard:  # fmt: skip
    """Store ``model`` (whose encoder is an `Ensemble` of specialists of ``zoo``) without its specialists, atomically."""
    ensemble = model.encoder
    assert isinstance(ensemble, Ensemble)
    with atomic_folder(folder, overwrite=overwrite) as tmp:
        write_tensors(tmp / WEIGHTS, model.trainable_tensors())
        info = FileInfo(file=WEIGHTS, sha256=sha256_file(tmp / WEIGHTS), bytes=(tmp / WEIGHTS).stat().st_size)
        known_metrics = tuple(m for m in metrics if math.isfinite(m.value))  # R2 of constant labels has no value
        card = TaskCard(
            name=name, task=model.task, data=data, training=training, metrics=known_metrics, chosen=chosen, weights=info
        )
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
    if not folder.is_dir():
        raise ZooError(f"{folder}: no such folder; expected a task model, which `eosfm adapt` makes")
    if not (folder / TASK).exists():
        what = (
            "an ensemble"
            if (folder / MANIFEST).exists()
            else "a specialist"
            if (folder / "card.json").exists()
            else "a folder"
        )
        raise ZooError(f"{folder} is {what} without {TASK}; expected a task model, which `eosfm adapt` makes")
    data = read_json(folder / TASK, error=CorruptArtifact)
    try:
        card = read_record(TaskCard, data, str(folder / TASK), error=CorruptArtifact)
    except CorruptArtifact as e:
        raise CorruptArtifact(f"{e}\n{written_by(folder)}") from None
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
