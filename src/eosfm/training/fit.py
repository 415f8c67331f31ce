"""The two trainings of the paper as plain functions: a specialist (encoder + head), and the adaptation of a frozen ensemble."""

from __future__ import annotations

import platform
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from eosfm._version import __version__
from eosfm.config import to_plain
from eosfm.contracts import ConfigError, Pyramid
from eosfm.data.chips import Chips, Splits
from eosfm.engine.cache import ORIENTATIONS, cached_features, can_pool
from eosfm.ensemble import Ensemble
from eosfm.files import require_place
from eosfm.fusion.selection import SelectionConfig
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.card import DataInfo, SpecialistCard, TaskInfo, TrainingInfo, card_bands, require_safe_name
from eosfm.specialists.encoder import ConvNeXtV2Atto
from eosfm.specialists.licences import combine
from eosfm.specialists.store import _NO_WEIGHTS, save_specialist
from eosfm.statistics import BandStatistics
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec, fingerprint
from eosfm.training.dates import MeanOfDates, TwoDates
from eosfm.training.energy import Energy, EnergyMeter
from eosfm.training.initial import RANDOM, Start
from eosfm.training.module import fit
from eosfm.training.scoring import score
from eosfm.training.settings import FitConfig, FitResult, Progress


class StandardisedEncoder(nn.Module):
    """An encoder that standardises its input with its own statistics: what a specialist is while it is trained."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: ConvNeXtV2Atto, statistics: BandStatistics) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", torch.tensor(statistics.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(1, -1, 1, 1), persistent=False)

    @property
    def out_channels(self) -> list[int]:
        return self.encoder.out_channels

    def forward(self, x: Tensor) -> Pyramid:
        """Features of ``x`` in the card's units; pixels that are not finite become the mean."""
        pyramid: Pyramid = self.encoder(((x - self.mean) / self.std).nan_to_num(0.0, 0.0, 0.0))
        return pyramid


LIGHT_HEAD = HeadConfig(decoder="linear", channels=64, dropout=0.0)


@dataclass(frozen=True)
class TrainedSpecialist:
    """A stored specialist and how its training went."""

    card: SpecialistCard
    fit: FitResult
    energy: Energy


def train_specialist(
    splits: Splits,
    config: FitConfig,
    zoo: Path,
    *,
    name: str,
    description: str = "",
    head: HeadConfig = LIGHT_HEAD,
    start: Start | None = None,
    run: Path | None = None,
    meter: EnergyMeter | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> TrainedSpecialist:
    """Train an encoder with a head on ``splits``, score it on the test split, and store the encoder in ``zoo``.

    Args:
        splits: train, validation (picks the epoch) and test (scored once).
        config: see `FitConfig`.
        zoo: folder in which ``name/card.json`` and ``name/model.safetensors`` are written.
        name: of the specialist.
        description: one sentence for the card.
        head: thrown away after training; a light one leaves the work to the encoder.
        start: what to start from (`eosfm.training.initial.start_from`); default random weights.
        run: folder of checkpoints and logs; a killed run continues from it. Default: a temporary one.
        meter: measures energy where given.
        progress: called after each step.
        overwrite: replace a specialist of the same name.
    """
    require_safe_name(name)
    require_place(zoo / name, overwrite=overwrite)
    train = splits.train
    statistics = train.statistics()
    chip = -(-max(train.size) // 32) * 32
    task = TaskSpec(kind=train.kind, classes=train.classes, chip_size=chip, head=head)
    with seeded(purpose_seed(config.seed, "specialist")):
        start = start or Start(ConvNeXtV2Atto(len(train.bands)), RANDOM)
        body: nn.Module = StandardisedEncoder(start.encoder, statistics)
        if train.dates == 2:
            body = TwoDates(body)
        elif train.dates > 2:
            body = MeanOfDates(body, train.dates)
        model = TaskModel(body, task)
    data_hash = train.sha256()
    with _folder(run) as folder, meter.measure(name) if meter else nullcontext(Energy()) as energy:
        began = time.perf_counter()
        result = fit(
            model, train.kind, len(train.classes), train, splits.validation, config,
            folder=folder, progress=progress, label=name, identity=data_hash + start.text,
        )  # fmt: skip
        energy.seconds = time.perf_counter() - began
    energy = energy.after(result.earlier_seconds)
    card = SpecialistCard(
        name=name,
        description=description,
        bands=card_bands(train.bands),
        statistics=statistics,
        chip_size=chip,
        task=TaskInfo(kind=train.kind, classes=train.classes, description=description),
        data=data_info(splits, data_hash),
        metrics=tuple(score(model, splits.test, config.seed).metrics),
        training=training_info(start.text, replace(config, epochs=result.epochs), energy),
        licence=combine(train.licence, start.licence) if start.licence else train.licence,
        weights=_NO_WEIGHTS,
        eosfm_version=__version__,
        created="",
    )
    return TrainedSpecialist(save_specialist(start.encoder, card, zoo, overwrite=overwrite), result, energy)


def adapt_ensemble(
    ensemble: Ensemble,
    splits: Splits,
    task: TaskSpec,
    config: FitConfig,
    *,
    cache: bool = True,
    cache_folder: Path | None = None,
    start: TaskModel | None = None,
    selection: SelectionConfig | None = None,
    run: Path | None = None,
    meter: EnergyMeter | None = None,
    progress: Progress | None = None,
    label: str = "adapt",
) -> tuple[TaskModel, FitResult, Energy]:
    """Train fusion, decoder and head on a frozen ensemble (paper 4.1); the specialists do not change by one bit.

    Args:
        ensemble: made for ``splits.train.bands``.
        splits: training and validation data are used; the test split is left to `eosfm.training.scoring.score`.
        task: what to predict and with which head.
        config: see `FitConfig`.
        cache: compute the frozen features once, which gives the same result many times faster. With ``config.augment``
            each chip is kept in all its orientations, eight of a square one.
        cache_folder: keep the features there, and read those that are there already; default in memory.
        start: a model around ``ensemble`` whose fusion and head are trained further; default a new head.
        selection: learn which specialists to keep; the model is then pruned to them. ``model.encoder`` is a smaller
            ensemble, and ``ensemble.selector`` holds the scores.
        run: folder of checkpoints and logs; a killed run continues from it.
        meter: measures energy where given.
        progress: called after each step.
        label: shown in ``progress``.

    Returns:
        ``(model, result, energy)``, the model in evaluation mode with its best validation weights.
    """
    if ensemble.bands != splits.train.bands:
        raise ConfigError(f"the ensemble reads {ensemble.bands}, the data are {splits.train.bands}")
    require_dates(task, splits)
    if cache and (drawn := [n for n in config.augmented if n != "augment"]):
        raise ConfigError(
            f"crops and colours of cached features do not exist: set cache: false, or leave out {', '.join(drawn)}"
        )
    with seeded(purpose_seed(config.seed, "head")):
        model = start or TaskModel(ensemble, task)
    identity = splits.train.sha256() + fingerprint(model) + (f"{task.dates} {task.join}" if task.dates > 1 else "")
    if selection is not None:
        ensemble.select(selection)
        identity += str(to_plain(selection))
    with _folder(run) as folder, meter.measure(label) if meter else nullcontext(Energy()) as energy:
        began = time.perf_counter()
        if cache:
            h, w = splits.train.size
            keep = partial(
                cached_features, ensemble, precision="bf16" if config.precision == "bf16" else "fp32",
                folder=cache_folder, dates=task.dates, join=task.join, pooled=can_pool(ensemble, task.kind),
                progress=progress,
            )  # fmt: skip
            turns = 1 if not config.augment else ORIENTATIONS if h == w else ORIENTATIONS // 2
            train = keep(splits.train, orientations=turns, label=f"{label}: frozen features, training chips")
            check = keep(splits.validation, label=f"{label}: frozen features, validation chips")
            if not isinstance(splits.train, Chips):  # whose hash is of a sample: here every chip was read
                identity += train.content + check.content
        result = fit(
            model, task.kind, len(task.classes),
            train if cache else splits.train, check if cache else splits.validation, config,
            folder=folder, forward=partial(model.from_features, size=splits.train.size) if cache else None,
            progress=progress, label=label, identity=identity, began=began,
        )  # fmt: skip
        energy.seconds = time.perf_counter() - began
    energy = energy.after(result.earlier_seconds)
    ensemble.fusion_trained = True
    if ensemble.selector is not None:
        model = model.pruned(ensemble.selector.chosen())
    return model, result, energy


def require_dates(task: TaskSpec, splits: Splits) -> None:
    """`ConfigError` unless the chips have as many dates as ``task`` reads."""
    if splits.train.dates != task.dates:
        raise ConfigError(
            f"{splits.train.name}: chips of {splits.train.dates} dates; the task reads {task.dates}. Set data: {{dates: "
            f"{task.dates}}} where the data set has a choice, or make a task of {splits.train.dates} dates"
        )


def data_info(splits: Splits, sha256: str) -> DataInfo:
    """What the card says of the data."""
    t = splits.train
    return DataInfo(
        name=t.name, licence=t.licence, source=t.source, images=len(t), split=splits.rule, sha256=sha256
    )  # fmt: skip


def training_info(initialisation: str, config: FitConfig, energy: Energy) -> TrainingInfo:
    """What the card says of the training."""
    return TrainingInfo(
        initialisation=initialisation,
        epochs=config.epochs,
        seed=config.seed,
        seconds=round(energy.seconds, 1),
        energy_kwh=energy.kwh,
        co2_kg=energy.co2_kg,
        hardware=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    )


def _folder(run: Path | None) -> AbstractContextManager[Path]:
    if run is not None:
        return nullcontext(run)
    return _Temporary()


class _Temporary(AbstractContextManager[Path]):
    def __enter__(self) -> Path:
        self._inner = tempfile.TemporaryDirectory(prefix="eosfm-run-")
        return Path(self._inner.name)

    def __exit__(self, *exc: object) -> None:
        self._inner.cleanup()
