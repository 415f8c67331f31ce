"""The training loop: Lightning around any model with a loss. The only module that imports Lightning."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from torch import Tensor, nn
from torch.optim import Optimizer

from eosfm.config import read_json, to_plain
from eosfm.contracts import ConfigError, TrainingError
from eosfm.files import write_json
from eosfm.fusion.selection import TopK
from eosfm.seeding import purpose_seed, seeded
from eosfm.tasks.kinds import OBJECTS
from eosfm.tasks.model import is_frozen_key
from eosfm.tasks.objectives import OBJECTIVES, Loss, Objective, make_loss, make_metrics, update_metrics
from eosfm.training.batches import BatchSource, loader, place
from eosfm.training.checkpoints import AtomicCheckpoints, read_checkpoint
from eosfm.training.colour import Colour
from eosfm.training.parallel import cores, relay
from eosfm.training.settings import FitConfig, FitResult, Progress, falling

OWN_LOSS = {"masked-autoencoder": Objective(("reconstruction",), "reconstruction", higher_is_better=False)}
"""kinds without labels: the model has the loss, ``own_loss(x, seed)``, and draws by ``seed`` what it asks itself"""
VALIDATION = -1
"""the epoch by which validation is seeded"""

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class TaskModule(L.LightningModule):
    """Any ``model(input) -> logits`` with a kind of task; checkpoints hold what is trained and nothing else."""

    def __init__(
        self, model: nn.Module, kind: str, classes: int, config: FitConfig, forward: Callable[..., Tensor] | None
    ) -> None:
        super().__init__()
        self.model, self.kind, self.config = model, kind, config
        self.scores = None if kind in OWN_LOSS else make_metrics(kind, classes)
        self.logits: Callable[..., Tensor] = forward or model.forward
        self.selector = next((m for m in model.modules() if isinstance(m, TopK)), None)
        self.began, self.earlier = time.perf_counter(), 0.0

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Make the loss (a closure, which cannot travel to another process) and share the CPU's cores."""
        if self.scores is not None:
            self.loss: Loss = make_loss(self.kind, self.config.loss, self.config.class_weights)
        if self.config.devices > 1 and self.device.type == "cpu":
            torch.set_num_threads(max(1, cores() // self.config.devices))

    def training_step(self, batch: tuple[Any, Tensor], number: int) -> Tensor:
        """The loss of one batch; a loss that is not finite stops the run before it spoils the weights."""
        x, y = batch
        if self.scores is None:
            value = self.own_loss(x, number, self.current_epoch)
        elif self.kind in OBJECTS:
            value = self.logits(x, targets=y)
        else:
            value = self.loss(self.logits(x), y)
        if not math.isfinite(value.item()):
            raise TrainingError(
                f"loss is {value.item()} at epoch {self.current_epoch}, batch {number}: lower learning_rate "
                f"(now {self.config.learning_rate:g}), or check the declared units. The last good checkpoint is kept."
            )
        many = self.config.devices > 1
        self.log("loss", value, on_step=False, on_epoch=True, batch_size=len(y), sync_dist=many)
        return value

    def own_loss(self, x: Tensor, number: int, epoch: int = VALIDATION) -> Tensor:
        """The loss of a model of `OWN_LOSS`, seeded by epoch and batch, so that a resumed run asks the same."""
        rank, world = place()
        seed = purpose_seed(self.config.seed, "mask", epoch, number * world + rank)
        value: Tensor = self.model.own_loss(x, seed)  # type: ignore[operator]
        return value

    def validation_step(self, batch: tuple[Any, Tensor], number: int) -> None:
        """Add the batch to the validation scores. Without labels: the loss, each epoch with the same questions."""
        if self.scores is not None:
            update_metrics(self.scores, self.kind, self.logits(batch[0]), batch[1])
            return
        value = self.own_loss(batch[0], number)
        many = self.config.devices > 1
        self.log("reconstruction", value, on_step=False, on_epoch=True, batch_size=len(batch[1]), sync_dist=many)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        if self.scores is None:
            return
        values = self.scores.compute()
        self.scores.reset()
        self.log_dict(dict(values))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  Lightning's signature
        """Seed dropout by epoch, tell a selection how far the training is: a resumed run goes on as one that was never killed.

        Not at the epoch's start: the loader draws from the same generator, in the first epoch of a session before that, in
        others after it.
        """
        if batch_idx == 0:
            torch.manual_seed(purpose_seed(self.config.seed, "dropout", self.current_epoch))
        if self.selector is not None:
            self.selector.advance(self.global_step / max(1, int(self.trainer.estimated_stepping_batches)))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002  Lightning's signature
    ) -> None:
        """By norm. Lightning's own refuses a fused optimiser in mixed precision; that is for fp16, whose gradients are scaled."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """AdamW, without decay on biases and norms; linear warm-up, then `FitConfig.schedule`."""
        scores = [] if self.selector is None else [p for p in self.selector.parameters() if p.requires_grad]
        trained = [p for p in self.model.parameters() if p.requires_grad and all(p is not s for s in scores)]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if self.selector is not None and scores:
            groups.append(self.selector.optimiser_group())
        optimiser = torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=True)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        rise = max(1, round(self.config.warmup * total))

        def scale(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return falling(self.config.schedule, min(1.0, (step - rise) / max(1, total - rise)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, scale)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave frozen specialists out: they are referenced by hash. Spoiled weights never replace good ones."""
        trained = {k: v for k, v in checkpoint["state_dict"].items() if not is_frozen_key(k)}
        if not all(bool(v.isfinite().all()) for v in trained.values()):
            raise TrainingError(
                f"weights are not finite after epoch {self.current_epoch}: lower learning_rate (now "
                f"{self.config.learning_rate:g}). The last good checkpoint is kept."
            )
        checkpoint["state_dict"] = trained
        checkpoint["seconds"] = self.earlier + time.perf_counter() - self.began

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen weights back, so that Lightning's strict check still covers everything that is trained."""
        frozen = {k: v for k, v in self.state_dict().items() if is_frozen_key(k)}
        checkpoint["state_dict"] = {**frozen, **checkpoint["state_dict"]}


class _Quiet(Callback):
    """The first callback of each process: filters do not travel to the processes of a DDP run."""

    def setup(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.world_size > 1:
            _quiet()


class _Report(Callback):
    def __init__(self, progress: Progress, label: str) -> None:
        self.progress, self.label, self.line = progress, label, ""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        total = max(1, int(trainer.estimated_stepping_batches))
        self.progress(trainer.global_step / total, f"{self.label} epoch {trainer.current_epoch + 1}{self.line}")

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        shown = [
            f"{k} {float(v):.3f}"
            for k, v in trainer.callback_metrics.items()
            if k in ("miou", "accuracy", "map", "map-boxes", "map-masks", "rmse", "reconstruction")
        ]
        self.line = " | " + " ".join(shown[:1]) if shown else ""


def fit(
    model: nn.Module,
    kind: str,
    classes: int,
    train: BatchSource,
    validation: BatchSource,
    config: FitConfig,
    *,
    folder: Path,
    forward: Callable[..., Tensor] | None = None,
    progress: Progress | None = None,
    label: str = "",
    identity: str = "",
    short: bool = False,
    began: float | None = None,
) -> FitResult:
    """Train ``model`` and leave it with the weights of its best validation epoch.

    A run that was killed continues from ``folder/last.ckpt`` to the result the uninterrupted run would have had.

    Args:
        model: its parameters with ``requires_grad`` are trained.
        kind: of task; see `eosfm.tasks.objectives.OBJECTIVES`, and `OWN_LOSS` for models that need no labels.
        classes: number of classes (1 for regression).
        train: training batches, shuffled by (seed, epoch).
        validation: picks the best epoch; never a test split.
        config: see `FitConfig`.
        folder: for checkpoints and logs (``log/version_N/metrics.csv``, TensorBoard).
        forward: called in place of ``model`` (features instead of pixels).
        progress: called after each step.
        label: shown in ``progress``.
        began: when the work began (`time.perf_counter`), where some of it came before, such as frozen features.
        short: a training of seconds: a killed one starts again, and only the best and the last epoch are written.
        identity: hash of data and model; a folder with checkpoints of another identity or config is refused.

    Raises:
        TrainingError: a loss that is not finite, or checkpoints of another run in ``folder``.
    """
    objective = OWN_LOSS[kind] if kind in OWN_LOSS else OBJECTIVES[kind]
    if config.class_weights is not None and len(config.class_weights) != classes:
        raise ConfigError(f"{len(config.class_weights)} class_weights for {classes} classes; give one for each class")
    with seeded(config.seed), relay(progress if config.devices > 1 else None) as told:
        module = TaskModule(model, kind, classes, config, forward)
        module.began = module.began if began is None else began
        best = ModelCheckpoint(
            folder, "best", monitor=objective.monitor, mode="max" if objective.higher_is_better else "min",
            save_top_k=1, enable_version_counter=False,
        )  # fmt: skip
        # Lightning's save_last writes only when the best improves; a killed run should lose one epoch at the most.
        every = config.epochs if short and not config.patience else 1
        last = ModelCheckpoint(
            folder, "last", save_top_k=1, save_on_train_epoch_end=True, every_n_epochs=every, enable_version_counter=False
        )  # fmt: skip
        # Each session logs to a file of its own: Lightning's CSV logger cannot continue another's.
        loggers: list[Logger] = [CSVLogger(folder, name="log")]
        loggers.append(TensorBoardLogger(str(folder), name="", version="tensorboard"))
        callbacks: list[Callback] = [_Quiet(), best, last, *([_Report(told or progress, label)] if progress else [])]
        if config.patience:
            callbacks.append(
                EarlyStopping(
                    objective.monitor, patience=config.patience, mode=best.mode, check_on_train_epoch_end=False
                )
            )
        with warnings.catch_warnings():
            _quiet()
            trainer = L.Trainer(
                max_epochs=config.epochs,
                accelerator="auto",
                devices=config.devices,
                strategy="auto" if config.devices == 1 else "ddp_spawn",
                use_distributed_sampler=False,  # `EpochSampler` shares the batches out
                precision="bf16-mixed" if config.precision == "bf16" else "32-true",
                callbacks=callbacks,
                logger=loggers,
                plugins=[AtomicCheckpoints()],
                gradient_clip_val=config.clip_gradients or None,
                accumulate_grad_batches=config.accumulate,
                check_val_every_n_epoch=config.validate_every,
                num_sanity_val_steps=0,
                enable_progress_bar=False,
                enable_model_summary=False,
                log_every_n_steps=50,
                default_root_dir=str(folder),
            )
            batches = loader(
                train,
                config.batch_size,
                config.seed,
                train=True,
                augment=config.augment,
                zoom=config.zoom,
                colour=Colour(config.brightness, config.contrast, config.band_gain),
                workers=config.workers,
            )
            checks = loader(validation, config.batch_size, config.seed, train=False)
            resume = folder / "last.ckpt"
            _same_run(folder, {"config": to_plain(config), "kind": kind, "classes": classes, "identity": identity})
            if resume.exists():
                module.earlier = float(read_checkpoint(resume).get("seconds", 0.0))
            earlier = module.earlier
            try:
                trainer.fit(
                    module, batches, checks, ckpt_path=str(resume) if resume.exists() else None, weights_only=True
                )
            except ValueError as e:
                if "more than 1 value per channel" not in str(e):
                    raise
                raise ConfigError(
                    f"batch normalisation needs two chips in every batch; {len(train)} chips in batches of {config.batch_size} "
                    "leave one alone. Change batch_size, or use head norm: group."
                ) from None
    # What processes of their own have done is known from what they wrote.
    end, kept = read_checkpoint(folder / "last.ckpt"), read_checkpoint(folder / "best.ckpt")
    module.on_load_checkpoint(kept)
    module.load_state_dict(kept["state_dict"], strict=True)
    model.cpu().eval()
    return FitResult(
        monitor=objective.monitor,
        best=float(end["callbacks"][best.state_key]["best_model_score"]),
        best_epoch=int(kept["epoch"]),
        epochs=int(end["epoch"]) + 1,
        steps=int(end["global_step"]),
        earlier_seconds=earlier,
    )


def _quiet() -> None:
    """Silence what Lightning and torch say of choices that were made on purpose."""
    warnings.filterwarnings("ignore", module="lightning")  # workers, batch sizes
    warnings.filterwarnings("ignore", module="torchmetrics")  # small splits may lack a class
    warnings.filterwarnings("ignore", message=".*(lr_scheduler|Checkpoint directory|isinstance|log directory).*")
    warnings.filterwarnings(
        "ignore", message="Grad strides do not match"
    )  # depthwise kernels; costs nothing that shows
    logging.getLogger("lightning").setLevel(logging.ERROR)


_RUN_PARTS = {
    "config": "training settings",
    "kind": "task",
    "classes": "classes",
    "identity": "data, initial weights or mask",
}


def _same_run(folder: Path, run: dict[str, Any]) -> None:
    """`TrainingError` if ``folder`` holds checkpoints of another run; otherwise note which run it is."""
    note = folder / "run.json"
    if note.exists() and (folder / "last.ckpt").exists():
        if (stored := read_json(note, error=TrainingError)) != run:
            changed = [k for k in run if stored.get(k) != run[k]] if isinstance(stored, dict) else ["run.json"]
            raise TrainingError(
                f"{folder} holds checkpoints of a run with other {', '.join(map(_RUN_PARTS.get, changed, changed))}; they cannot "
                "be continued with this one. Name another folder (run=FOLDER), or delete this one to start afresh."
            )
    else:
        write_json(note, run)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard may import TensorFlow where it is installed
