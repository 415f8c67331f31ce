"""Masked pretraining: unlabelled images of any bands make a specialist. `eosfm.training.masked` is the model."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from eosfm._version import __version__
from eosfm.bands import BandSet
from eosfm.config import read_record, read_yaml, record, to_plain
from eosfm.contracts import ConfigError, DataError
from eosfm.data.chips import ChipSet, Splits
from eosfm.data.files import DataConfig, open_data
from eosfm.files import require_place
from eosfm.seeding import purpose_seed, seeded
from eosfm.specialists.card import DataInfo, Metric, SpecialistCard, TaskInfo, card_bands, require_safe_name
from eosfm.specialists.encoder import MIN_SIZE, ConvNeXtV2Atto
from eosfm.specialists.licences import combine
from eosfm.specialists.store import _NO_WEIGHTS, save_specialist
from eosfm.statistics import BandStatistics
from eosfm.training.initial import RANDOM, Start, start_from
from eosfm.training.masked import MaskedAutoencoder, MaskedConfig, Target, channels
from eosfm.training.settings import FitConfig, Progress
from eosfm.training.unlabelled import Imagery, ImagesConfig, Unlabelled, imagery, open_images

if TYPE_CHECKING:
    from eosfm.training.energy import EnergyMeter
    from eosfm.training.fit import TrainedSpecialist
    from eosfm.training.scoring import Array

KIND = "masked-autoencoder"
CONVNEXT_V2 = MaskedConfig()


@record
class TargetConfig:
    """Bands to predict, and how much they count."""

    bands: str
    weight: float = 1.0


@record
class PretrainRun:
    """``eosfm pretrain``: one specialist from images without labels."""

    name: str
    description: str = ""
    zoo: Path = Path("zoo")
    init: str = "random"
    """"random", "imagenet-fcmae" (CC BY-NC 4.0: the specialist inherits it), or a specialist of the zoo"""
    images: ImagesConfig | None = None
    """files without labels"""
    data: DataConfig | None = None
    """or a labelled data set, whose labels and test split are left alone"""
    inputs: str = ""
    """bands that the specialist reads, of those of the data; default all"""
    targets: tuple[TargetConfig, ...] = ()
    """what is predicted where patches are hidden; default the inputs. Several make a multi-pretext autoencoder (MP-MAE)"""
    masked: MaskedConfig = MaskedConfig()
    fit: FitConfig = FitConfig(epochs=200, batch_size=64, learning_rate=1e-3, augment=True)
    run: Path | None = None
    """checkpoints and logs; default ``runs/NAME``"""

    def __post_init__(self) -> None:
        require_safe_name(self.name)
        if (self.images is None) == (self.data is None):
            raise ValueError("give either images (files without labels) or data (a labelled data set)")
        require_own_loss(self.fit)


def require_own_loss(config: FitConfig) -> FitConfig:
    """``config``, or `ConfigError` if it asks for the loss of a labelled task."""
    if config.loss is not None or config.class_weights is not None:
        raise ConfigError("masked pretraining has one loss and no classes: leave fit.loss and fit.class_weights out")
    return config


def run_pretrain(
    path: Path, overrides: Sequence[str] = (), *, overwrite: bool = False, progress: Progress | None = None
) -> TrainedSpecialist:
    """What the YAML file ``path`` (a `PretrainRun`) with ``key=value`` overrides describes; a killed run continues.

    Args:
        path: for example ``recipes/pretrain-synthetic.yaml``.
        overrides: ``fit.epochs=5``.
        overwrite: replace a specialist of the same name.
        progress: called after each step.

    Raises:
        ConfigError: an unknown key, a wrong type or a contradiction.
    """
    from eosfm.training.energy import EnergyMeter

    run = read_record(PretrainRun, read_yaml(path, overrides), str(path))
    require_place(run.zoo / run.name, overwrite=overwrite)
    if run.images is not None:
        data = open_images(run.images)
    else:
        assert run.data is not None
        data = imagery(open_data(run.data), run.fit.seed)
    inputs = BandSet.parse(run.inputs) if run.inputs else data.train.bands
    return pretrain_masked(
        data, run.fit, run.zoo, name=run.name, description=run.description, masked=run.masked, inputs=inputs,
        targets=[Target(BandSet.parse(t.bands), t.weight) for t in run.targets],
        start=start_from(run.init, inputs, run.zoo, run.fit.seed), run=run.run or Path("runs") / run.name,
        meter=EnergyMeter(), progress=progress, overwrite=overwrite,
    )  # fmt: skip


def pretrain_masked(
    data: Splits | Imagery | ChipSet,
    config: FitConfig,
    zoo: Path,
    *,
    name: str,
    description: str = "",
    masked: MaskedConfig = CONVNEXT_V2,
    inputs: BandSet | None = None,
    targets: Sequence[Target] = (),
    start: Start | None = None,
    run: Path | None = None,
    meter: EnergyMeter | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> TrainedSpecialist:
    """Train an encoder to predict hidden patches, keep its best validation epoch, and store it in ``zoo``.

    The loop, its checkpoints and its resuming are those of `eosfm.training.module.fit`. What is hidden depends on the seed,
    the epoch and the batch, so a resumed run ends with the same weights; in validation it is the same in each epoch.

    Args:
        data: training and validation images; labels and a test split are left alone. See `imagery` for chips without splits.
        config: see `FitConfig`; no loss and no class weights.
        zoo: folder in which ``name/card.json`` and ``name/model.safetensors`` are written.
        name: of the specialist.
        description: one sentence for the card.
        masked: what is hidden and how it is predicted.
        inputs: the bands that the specialist reads; default all of the data.
        targets: what is predicted; default the inputs.
        start: what to start from (`start_from`); default random weights.
        run: folder of checkpoints and logs; a killed run continues from it. Default: a temporary one.
        meter: measures energy where given.
        progress: called after each step.
        overwrite: replace a specialist of the same name.

    Raises:
        ConfigError: chips of one patch, or settings of a labelled task.
        BandError, UnitError: inputs or targets that the data do not hold in that unit.
        DataError: a validation part with nothing to predict.
    """
    from eosfm.training.energy import Energy
    from eosfm.training.fit import TrainedSpecialist, _folder, training_info
    from eosfm.training.module import fit

    require_safe_name(name)
    require_place(zoo / name, overwrite=overwrite)
    require_own_loss(config)
    images = imagery(data, config.seed)
    train = images.train
    bands, inputs = train.bands, inputs or train.bands
    targets = targets or [Target(inputs)]
    rows, columns, shown = masked.grid(train.size)
    statistics, read = train.statistics(), channels(inputs, bands)
    images.validation.statistics()  # a validation part without a valid pixel fails here, not after hours
    with seeded(purpose_seed(config.seed, "specialist")):
        start = start or Start(ConvNeXtV2Atto(len(inputs)), RANDOM)
        model = MaskedAutoencoder(start.encoder, bands, statistics, inputs, targets, masked)
    data_hash = train.sha256()
    asked = f"{to_plain(masked)} {inputs} {[(str(t.bands), t.weight) for t in targets]}"
    with _folder(run) as folder, meter.measure(name) if meter else nullcontext(Energy()) as energy:
        began = time.perf_counter()
        result = fit(
            model, KIND, 1, Unlabelled(train), Unlabelled(images.validation), config, folder=folder,
            progress=progress, label=name, identity=data_hash + start.text + asked,
        )  # fmt: skip
        energy.seconds = time.perf_counter() - began
    energy = energy.after(result.earlier_seconds)
    what = f"{rows * columns - shown} of {rows * columns} patches of {masked.patch} pixels hidden; predicts "
    card = SpecialistCard(
        name=name,
        description=description,
        bands=card_bands(inputs),
        statistics=BandStatistics(
            mean=tuple(statistics.mean[i] for i in read), std=tuple(statistics.std[i] for i in read)
        ),
        chip_size=-(-max(train.size) // MIN_SIZE) * MIN_SIZE,
        task=TaskInfo(kind=KIND, description=what + "; ".join(str(t.bands) for t in targets)),
        data=_data_info(images, data_hash),
        metrics=tuple(reconstruction(model, images.validation, config, targets)),
        training=training_info(start.text, replace(config, epochs=result.epochs), energy),
        licence=combine(train.licence, start.licence) if start.licence else train.licence,
        weights=_NO_WEIGHTS,
        eosfm_version=__version__,
        created="",
    )
    return TrainedSpecialist(save_specialist(start.encoder, card, zoo, overwrite=overwrite), result, energy)


def _data_info(images: Imagery, sha256: str) -> DataInfo:
    t = images.train
    return DataInfo(
        name=t.name, licence=t.licence, source=t.source, images=len(t) * t.dates, split=images.rule, sha256=sha256
    )  # fmt: skip


def reconstruction(
    model: MaskedAutoencoder, chips: ChipSet, config: FitConfig, targets: Sequence[Target]
) -> list[Metric]:
    """The loss on ``chips`` with the patches hidden that validation hides (on one device), and that of each of several targets.

    In a normalised target 1 is the error of a model that knows nothing but the mean of the patch it does not see.
    """
    from eosfm.training.module import VALIDATION
    from eosfm.training.scoring import bootstrap

    source, sums = Unlabelled(chips), []
    with torch.inference_mode():
        for number, first in enumerate(range(0, len(source), config.batch_size)):
            x, _ = source.batch(range(first, min(first + config.batch_size, len(source))))
            sums.append(model.errors(x, purpose_seed(config.seed, "mask", VALIDATION, number)).double().numpy())
    table: Array = np.concatenate(sums)
    empty = [str(t.bands) for t, n in zip(targets, table[..., 1].sum(0), strict=True) if n == 0]
    if empty:
        raise DataError(
            f"{chips.name}: no valid hidden pixel of {', '.join(empty)}, so nothing chose the epoch; check nodata"
        )

    def loss(weight: Array, part: Array) -> float:
        error, count = part.sum(0).T
        kept = weight * (count > 0)
        return float((kept * error / np.maximum(count, 1)).sum() / kept.sum()) if kept.sum() > 0 else math.nan

    rows = [("reconstruction", np.array([t.weight for t in targets]))]
    if len(targets) > 1:
        rows += [(f"reconstruction of {t.bands}", w) for t, w in zip(targets, np.eye(len(targets)), strict=True)]
    seed, n, out = purpose_seed(config.seed, "bootstrap", 0) % 2**32, len(table), []
    for name, weight in rows:
        statistic = partial(loss, weight)
        low, high = bootstrap([table], statistic, seed)
        value = statistic(table)
        out.append(Metric(name=name, value=value, low=low, high=high, split="validation", samples=n, seed=config.seed))
    return out
