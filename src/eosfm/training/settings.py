"""How to train, as data: read from YAML, recorded with every result. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from eosfm.config import record

Progress = Callable[[float, str], None]
"""called with the fraction done (0-1) and one line for people"""


@record
class FitConfig:
    """How to train; every field is recorded with the result."""

    epochs: int = 80
    batch_size: int = 8
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup: float = 0.05
    """share of all steps in which the learning rate rises"""
    schedule: Literal["cosine", "steps", "constant"] = "cosine"
    """after the warm-up: along a cosine to 0, a tenth at 60 % and again at 90 % of all steps (PANGAEA), or constant"""
    accumulate: int = 1
    """batches whose gradients are summed before a step: batch_size times this is the batch the optimiser sees"""
    patience: int = 0
    """stop after so many validations without a better score; 0 trains all epochs"""
    loss: str | None = None
    class_weights: tuple[float, ...] | None = None
    augment: bool = False
    """random flips and quarter turns"""
    zoom: float = 0.0
    """random crops down to ``1 - zoom`` of the side, enlarged to the whole chip; 0 is none. It changes the pixel size"""
    brightness: float = 0.0
    """of optical bands, per image: reflectance times ``1 - brightness`` to ``1 + brightness``; see `training.colour`"""
    contrast: float = 0.0
    """of optical bands, per image: distance from the image's own mean times ``1 - contrast`` to ``1 + contrast``"""
    band_gain: float = 0.0
    """as brightness, of each optical band its own"""
    clip_gradients: float = 1.0
    precision: Literal["32", "bf16"] = "32"
    validate_every: int = 1
    workers: int = 0
    devices: int = 1
    """GPUs, or CPU processes, that share every batch (Lightning's DDP); 2 processes of one thread beat 2 threads"""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every", "accumulate", "devices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 < self.learning_rate < 10:
            raise ValueError(f"learning_rate {self.learning_rate}; expected a small positive number, for example 1e-4")
        for name in ("workers", "weight_decay", "clip_gradients", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 <= self.zoom < 0.9:
            raise ValueError(f"zoom {self.zoom} is the share of a side that a crop may lose, 0 to below 0.9")
        for name in ("brightness", "contrast", "band_gain"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is a share of the value, 0 to below 1")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup {self.warmup} is a share of all steps, 0 to below 1")
        if abs(self.seed) >= 2**63:
            raise ValueError(f"seed {self.seed} is too large")
        if self.class_weights is not None and (min(self.class_weights) < 0 or max(self.class_weights) <= 0):
            raise ValueError(f"class_weights {self.class_weights}; expected numbers of 0 or more, not all 0")
        if self.validate_every > self.epochs:
            raise ValueError(
                f"validate_every {self.validate_every} is more than epochs {self.epochs}: no validation at all"
            )

    @property
    def augmented(self) -> tuple[str, ...]:
        """What is changed about the images, by name."""
        return tuple(n for n in AUGMENTATIONS if getattr(self, n))

    def without_augmentation(self) -> FitConfig:
        """These settings for images as they are."""
        return replace(self, augment=False, **dict.fromkeys(AUGMENTATIONS[1:], 0.0))  # type: ignore[arg-type]


AUGMENTATIONS = ("augment", "zoom", "brightness", "contrast", "band_gain")
"""of `FitConfig`"""


@record
class FitResult:
    """What training gave: the best validation score and when it was reached."""

    monitor: str
    best: float
    best_epoch: int
    epochs: int
    steps: int
    earlier_seconds: float = 0.0
    """of sessions that were killed, up to the checkpoint that was continued"""


def falling(schedule: str, done: float) -> float:
    """The learning rate as a share of its peak, when the share ``done`` (0-1) of the steps after the warm-up is over."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 if schedule == "constant" or done < 0.6 else 0.1 if done < 0.9 else 0.01
