"""TaskModel: an encoder (frozen ensemble or any other), a head, and what the output means. `eosfm.tasks.stored` keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from copy import copy
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from eosfm.config import record
from eosfm.contracts import PYRAMID_CHANNELS, PYRAMID_STRIDES, BandError, ConfigError, Encoder, Pyramid
from eosfm.dates import Join, each_date, joined, joined_channels, kept_features
from eosfm.engine.fused import Fused, Precision, fused
from eosfm.ensemble import Ensemble
from eosfm.fusion.fuse import Conv1x1
from eosfm.fusion.projected import projected
from eosfm.specialists.encoder import MIN_SIZE, pad
from eosfm.tasks.heads import PixelHead, SceneHead
from eosfm.tasks.kinds import IGNORE, KINDS, OBJECTS, require_colours


@record
class HeadConfig:
    """Decoder and head; the defaults are PANGAEA's UPerNet, slimmer. ``decoder`` is of maps: scenes and things have none."""

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
    dates: int = 1
    """how many dates of a place it reads: chips are ``(dates * c, h, w)``, the first date's bands first"""
    join: Join = "mean"
    """how the features of several dates become one pyramid; see `eosfm.dates`"""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"task kind {self.kind!r}; known: {', '.join(KINDS)}")
        if not self.classes:
            raise ValueError("a task needs at least one class (or the name of the value it predicts)")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {', '.join(self.classes)}: each needs a name of its own")
        require_colours(self.colours, self.classes)
        if self.kind == "segmentation" and len(self.classes) > IGNORE:
            raise ValueError(
                f"{len(self.classes)} classes; a segmentation has at most {IGNORE}: label {IGNORE} is ignored"
            )
        if self.dates < 1 or (self.join == "difference" and self.dates != 2):
            raise ValueError(f"dates {self.dates}, join {self.join}; expected 1 or more, and 2 for a difference")
        if self.chip_size < MIN_SIZE or self.chip_size % MIN_SIZE:
            raise ValueError(f"chip size {self.chip_size}; expected a multiple of {MIN_SIZE}")


def make_head(task: TaskSpec, in_channels: Sequence[int]) -> nn.Module:
    """The head that ``task`` asks for, over a pyramid of ``in_channels``."""
    outputs, h = len(task.classes), task.head
    if task.kind in ("classification", "multilabel"):
        return SceneHead(in_channels, outputs, h.dropout)
    if task.kind in OBJECTS:
        from eosfm.tasks.detection import DetectionHead  # its parts take a second to import

        return DetectionHead(in_channels, outputs, h.channels, masks=task.kind == "instances")
    return PixelHead(in_channels, outputs, h.decoder, h.channels, h.dropout, h.norm)


class TaskModel(nn.Module):
    """``head(encoder(x))``. Images of any size are padded to a multiple of 32 and the output is cut back."""

    def __init__(self, encoder: nn.Module & Encoder, task: TaskSpec) -> None:  # type: ignore[valid-type]
        super().__init__()
        self.encoder, self.task = encoder, task
        self.head = make_head(task, joined_channels(encoder.out_channels, task.dates, task.join))

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits ``(b, k, h, w)`` for pixels or ``(b, k)`` for scenes, from ``x`` ``(b, dates * c, h, w)`` in declared units.

        Of things (detection, instances) what `eosfm.tasks.boxes` calls a prediction; with ``targets`` their loss.
        """
        h, w = x.shape[-2:]
        fused_maps = self.encoder(pad(x)) if self.task.dates == 1 else self._of_dates(pad(x))
        if self.task.kind in OBJECTS:
            return self._things(fused_maps, (h, w), targets)
        rounded = isinstance(self.encoder, Fused) and self.encoder.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=True) if rounded else nullcontext():
            out: Tensor = self.head(fused_maps)
        out = out.float() if rounded else out
        return out[..., :h, :w] if out.ndim == 4 else out

    def _things(self, fused_maps: Pyramid, size: tuple[int, int] | None, targets: Tensor | None) -> Tensor:
        whole = tuple(PYRAMID_STRIDES[0] * s for s in fused_maps[0].shape[-2:])
        out: Tensor = self.head(fused_maps, size or whole, targets)
        return out

    def from_features(
        self, pyramids: Sequence[Pyramid], size: tuple[int, int] | None = None, targets: Tensor | None = None
    ) -> Tensor:
        """The same from the views' features, computed before by ``encoder.encode`` (an `Ensemble`).

        Of several dates they are what `eosfm.dates.kept_features` keeps. ``size`` is that of the chips before they were
        padded; the output is cut back to it.
        """
        if self.task.kind in OBJECTS:
            return self._things(self._joined(pyramids), size, targets)
        out = self._linear(pyramids)
        if out is None:
            out = self.head(self._joined(pyramids))
        return out[..., : size[0], : size[1]] if size is not None and out.ndim == 4 else out

    def _linear(self, pyramids: Sequence[Pyramid]) -> Tensor | None:
        """`from_features` of a linear head on a linear fusion, without the fused maps; None where it is not, or no gain."""
        few = len(self.task.classes) <= PYRAMID_CHANNELS[0]
        if not (
            few and self.task.dates == 1 and isinstance(self.encoder, Ensemble) and isinstance(self.head, PixelHead)
        ):
            return None
        fusion, device = self.encoder.fusion, self.encoder.gates.device.type
        if not isinstance(fusion, Conv1x1):
            return None
        with torch.autocast(device, enabled=False):  # products of weights, small and worth their digits
            rows = self.head.rows()
            if rows is None:
                return None
        levels = projected(fusion, pyramids, self.encoder.gates_now(), rows)
        with torch.autocast(device, enabled=False):
            return self.head.of_rows(levels)

    def _of_dates(self, x: Tensor) -> Pyramid:
        dates, join = self.task.dates, self.task.join
        if x.shape[1] != dates * len(self.encoder.bands):
            raise BandError(
                f"expected {dates} dates of {self.encoder.bands}, so {dates * len(self.encoder.bands)} channels, the first "
                f"date's first; got {x.shape[1]}"
            )
        return self._joined(kept_features(self.encoder.encode(each_date(x, dates)), x, dates, join))

    def _joined(self, kept: Sequence[Pyramid]) -> Pyramid:
        """The pyramid for the head. A change is fused date by date, with one fusion, and then joined."""
        dates, join = self.task.dates, self.task.join
        fuse: Callable[[Sequence[Pyramid]], Pyramid] = self.encoder.fuse
        if dates == 1 or join == "mean":
            return fuse(kept)
        return joined(fuse([[each_date(m, dates) for m in p] for p in kept]), dates, join)

    def pruned(self, keep: Iterable[str]) -> TaskModel:
        """A model of the specialists or views ``keep`` only: equal output to ablating all others, no trace of them.

        Raises:
            ZooError: an unknown name.
            ConfigError: the head reads the views one by one (a concat fusion), so nothing can be cut out of the encoder alone.
        """
        assert isinstance(self.encoder, Ensemble)
        smaller = self.encoder.pruned(keep)
        if smaller.out_channels != self.encoder.out_channels:
            raise ConfigError(
                f"a {self.encoder.fusion.name} fusion hands every view to the head, which was trained for all of them: "
                "adapt a smaller ensemble instead (specialists: [...])"
            )
        new = TaskModel(smaller, self.task)
        new.head.load_state_dict(self.head.state_dict(), strict=True)
        return new.train(self.training)

    def fast(self, precision: Precision, *, release: bool = False) -> TaskModel:
        """The same model with its ensemble run by the fast plan (`eosfm.engine.fused`), for inference.

        Fusion and head are shared, and with ``release`` this model gives its encoders away and cannot run any more.

        On a CPU only: elsewhere, where the encoder is no ensemble, and of several dates, this is the model itself, which
        must then be in fp32.

        Raises:
            ConfigError: bf16 for a model without a fast plan.
        """
        if not isinstance(self.encoder, Ensemble) or self.encoder.gates.device.type != "cpu" or self.task.dates > 1:
            if precision != "fp32":
                raise ConfigError("bf16 is for ensembles of one date on a CPU; leave --precision out")
            return self
        new = copy(self)
        new._modules = dict(self._modules)  # a copy shares it, and would change the original
        new.encoder = fused(self.encoder, precision=precision, release=release)
        return new

    def trainable_tensors(self) -> dict[str, Tensor]:
        """Fusion, decoder and head: everything but frozen specialists."""
        return {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items() if not is_frozen_key(k)}


def require_maps(task: TaskSpec, what: str) -> None:
    """`ConfigError` where ``task`` finds single things or reads several dates, and ``what`` ("a scene") is for neither."""
    if task.kind in OBJECTS:
        raise ConfigError(
            f"this task model finds single things ({task.kind}); here {what} needs one of pixels or scenes. Score it on chips "
            "with `eosfm evaluate`, or call it in Python: TaskModel(x) gives boxes"
        )
    if task.dates != 1:
        raise ConfigError(
            f"this task model reads chips of {task.dates} dates (join: {task.join}), and {what} has one: use a model of one "
            "date, adapted with data: {dates: 1}, or score this one on chips with `eosfm evaluate`"
        )


def is_frozen_key(key: str) -> bool:
    """Whether a state-dict key belongs to a specialist (referenced by hash, never copied into a checkpoint)."""
    return ".encoders." in f".{key}"


def probabilities(kind: str, z: Tensor) -> Tensor:
    """Class probabilities, or the values themselves for regression; the shape of ``z``."""
    if kind == "multilabel":
        return z.sigmoid()
    return z if kind == "regression" else z.softmax(1)


def fingerprint(model: nn.Module) -> str:
    """A hash of all weights and of how each view reads its input, for telling one model from another (resume, results)."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    h = hashlib.sha256(save(tensors))
    for e in model.modules():
        if isinstance(e, Ensemble):
            h.update(f"{e.bands}|{e.views}|{e.gates.tolist()}|{e.fusion.name}|{e.fusion.normalise}".encode())
    return h.hexdigest()
