"""Frozen features, computed once: adapting then costs the fusion and the decoder only.

    features = cached_features(ensemble, chips, precision="bf16", folder=Path("features"))
    pyramids, labels = features.batch([3, 0, 4])        # what Ensemble.fuse takes

On disk each view of each specialist has a folder of its own, named by the hash of how the view reads its input, the
specialist's weights, the orientation and the precision; a shard is named by the hash of its chips' pixels. So chips are read
and hashed at every start, and nothing stale can be used; a specialist that is added later costs its own features only; and
after pruning the others are not even opened. What is damaged is refused (`eosfm.engine.shards`).

    <folder>/<hash of a view>/<hash of the pixels>.safetensors       level0..level3, (chips of the shard, c, h, w)

A killed run computes what is missing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from eosfm.adaptation import AdaptationPlan
from eosfm.contracts import PYRAMID_CHANNELS, ConfigError, Pyramid
from eosfm.dates import Join, each_date, joined_channels, kept_features
from eosfm.engine.fused import DTYPES, Fused, Precision, fused
from eosfm.engine.shards import ShardsOnDisk, write_shard
from eosfm.ensemble import Ensemble
from eosfm.files import OutputError, sha256_bytes
from eosfm.specialists.encoder import pad
from eosfm.tasks.boxes import joined_labels, turned_boxes

Progress = Callable[[float, str], None]
FORMAT = 4
SHARD = 64
"""chips per file: some hundred megabytes at most"""
FEW = 8
"""chips that are computed at once"""
ORIENTATIONS = 8
"""quarter turns, each also mirrored; four of them keep the shape of a chip that is not square"""


class Chips(Protocol):
    """What features are computed of; see `eosfm.data.chips`."""

    @property
    def size(self) -> tuple[int, int]: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]: ...


@dataclass
class Features:
    """Frozen features of a data set, per orientation, view and level; a source of batches as the chips themselves are."""

    parts: list[list[Part]]
    """``[orientation][view]``"""
    labels: Tensor
    orientations: tuple[int, ...] = (0,)
    boxes_in: tuple[int, int] | None = None
    """``(h, w)`` of the chips where labels are lists of boxes, which turn in their own way"""
    content: str = ""
    """the hash of all pixels and labels they were computed of"""

    def __len__(self) -> int:
        return len(self.labels)

    def of(self, views: Sequence[int]) -> Features:
        """The features of ``views`` only; nothing is copied."""
        few = [[row[v] for v in views] for row in self.parts]
        return replace(self, parts=few)

    def batch(self, indices: Sequence[int], among: Sequence[int] | None = None) -> tuple[list[Pyramid], Tensor]:
        """The pyramids of each view at ``indices``, as `Ensemble.fuse` takes them, and the labels.

        ``among`` gives for each index which of `orientations`, by position; default the first, which is the chip as it is.
        """
        which = list(among) if among is not None else [0] * len(indices)
        views = range(len(self.parts[0]))
        pyramids: list[Pyramid] = [[] for _ in views]
        for level in range(len(PYRAMID_CHANNELS)):
            # all views of a level lie in one tensor, so that the fusion need not bring them together again
            rows = [[self.parts[o][v].row(level, i) for v in views] for i, o in zip(indices, which, strict=True)]
            first = rows[0][0]
            together = first.new_empty(len(rows), sum(len(m) for m in rows[0]), *first.shape[1:])
            for number, row in enumerate(rows):
                torch.cat(row, out=together[number])
            for p, m in zip(pyramids, torch.split(together, [len(r) for r in rows[0]], 1), strict=True):
                p.append(m)
        y = [self._label(i, self.orientations[o]) for i, o in zip(indices, which, strict=True)]
        return pyramids, torch.stack(y)

    def _label(self, index: int, orientation: int) -> Tensor:
        y = self.labels[index]
        return turned(y, orientation) if self.boxes_in is None else turned_boxes(y, orientation, self.boxes_in)


class Part(Protocol):
    """One view of all chips in one orientation."""

    def row(self, level: int, index: int) -> Tensor: ...


@dataclass
class _InMemory:
    levels: list[Tensor]

    def row(self, level: int, index: int) -> Tensor:
        return self.levels[level][index]


def cached_features(
    ensemble: Ensemble,
    chips: Chips,
    *,
    precision: Precision = "fp32",
    folder: Path | None = None,
    orientations: int = 1,
    pooled: bool = False,
    dates: int = 1,
    join: Join = "mean",
    progress: Progress | None = None,
    label: str = "frozen features",
) -> Features:
    """Every view's pyramid of every chip. ``TaskModel.from_features`` of them equals the model's forward.

    Args:
        ensemble: frozen; views whose gate is 0 are computed, too.
        chips: with their labels.
        precision: in which features are computed and kept; bf16 is half the size and several times faster.
        folder: keep them here, and read those that are here already; None keeps them in memory.
        orientations: 1, or 2, 4 or 8 of the square's symmetries for augmentation: so many times the size.
        pooled: keep each map's mean, as a map of one pixel. Enough for a scene head (`can_pool`), and far smaller.
        dates: of each chip. Of a mean one row of features is kept, else all dates side by side (`eosfm.dates`).
        join: how the features of several dates will become one pyramid.
        progress: called with fraction and line.
        label: begins the line, which tells the size.

    Raises:
        ConfigError: more than the memory or the disk holds, or another number of orientations.
        OutputError: ``folder`` cannot be written.
        CorruptArtifact: a shard that is not what was written.
    """
    turns = _turns(orientations, *chips.size)
    copies = sum(joined_channels([1], dates, "mean" if join == "mean" else "concat"))
    need = copies * size_in_bytes(ensemble, chips, precision, len(turns), pooled)
    views, series = range(len(ensemble.views)), (dates, join) if dates > 1 else ()
    places: list[list[Path]] = []
    if folder is None:
        _require(need, _memory(), "memory", "set cache_folder: FOLDER to keep them on disk, or cache: false")
    else:
        weights = [weights_sha256(e) for e in ensemble.encoders]
        places = [[folder / _key(ensemble, v, weights, t, precision, pooled, *series) for v in views] for t in turns]
        there = sum(f.stat().st_size for row in places for p in row for f in p.glob("*.safetensors"))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise OutputError(
                f"cannot write features into {folder}: {e.strerror}; choose another cache_folder"
            ) from None
        _require(
            need - there,
            shutil.disk_usage(folder).free,
            f"disk of {folder}",
            "choose another cache_folder, or cache: false",
        )
    line = f"{label}, {need / 1e9:.2f} GB {'in memory' if folder is None else f'in {folder}'}"
    if progress:
        progress(0.0, line)
    plan = _runner(ensemble, precision, pooled)
    count = -(-len(chips) // SHARD)
    kept: list[list[list[Pyramid]]] = [[[] for _ in views] for _ in turns]
    files: list[list[list[Path]]] = [[[] for _ in views] for _ in turns]
    labels: list[Tensor] = []
    content = hashlib.sha256()
    for shard in range(count):
        x, y = chips.batch(range(shard * SHARD, min(len(chips), (shard + 1) * SHARD)))
        labels.append(y)
        name = f"{_content(x)}.safetensors"
        content.update(f"{name} {_content(y)}".encode())
        for t, turn in enumerate(turns):
            for v, place in enumerate(places[t] if places else ()):
                files[t][v].append(place / name)
            todo = [v for v in views if folder is None or not files[t][v][-1].is_file()]
            if folder is not None and todo:  # what was there may have been other data's
                here = need * len(x) * len(todo) // (len(chips) * len(turns) * len(views))
                _require(
                    here,
                    shutil.disk_usage(folder).free,
                    f"disk of {folder}",
                    "make room and start again; what is done stays",
                )
            image = pad(turned(x, turn))
            made = plan(image if dates == 1 else each_date(image, dates), todo) if todo else []
            for v, levels in zip(todo, kept_features(made, image, dates, join), strict=True):
                if folder is None:
                    kept[t][v].append(levels)
                else:
                    write_shard(files[t][v][-1], levels)
        if progress:
            progress((shard + 1) / count, line)
    if folder is None:
        parts: list[list[Part]] = [[_joined(view) for view in row] for row in kept]
    else:
        parts = [[ShardsOnDisk(f, SHARD, len(PYRAMID_CHANNELS)) for f in row] for row in files]
    boxes_in = chips.size if getattr(chips, "kind", "") == "detection" else None
    return Features(parts, joined_labels(labels), turns, boxes_in, content.hexdigest())


def can_pool(ensemble: Ensemble, kind: str) -> bool:
    """Whether a task of ``kind`` sees no more of ``ensemble``'s maps than their means.

    A scene head takes means over pixels, and a linear fusion commutes with them unless a norm comes first.
    """
    return kind in ("classification", "multilabel") and ensemble.fusion.linear and ensemble.fusion.normalise == "none"


def turned(x: Tensor, orientation: int) -> Tensor:
    """``x`` ``(..., h, w)`` turned by ``orientation % 4`` quarters and, from 4 on, mirrored; labels of scenes stay."""
    if orientation == 0 or x.ndim < 2:
        return x
    y = torch.rot90(x, orientation % 4, (-2, -1))
    return y.flip(-1) if orientation >= 4 else y


def size_in_bytes(
    ensemble: Ensemble, chips: Chips, precision: Precision = "fp32", orientations: int = 1, pooled: bool = False
) -> int:
    """What the features of ``chips`` take, before any is computed."""
    h, w = (-(-side // 32) * 32 for side in chips.size)
    scale = [1 if pooled else (h // (4 << i)) * (w // (4 << i)) for i in range(len(PYRAMID_CHANNELS))]
    each = sum(c * pixels for view in ensemble.fusion.widths for c, pixels in zip(view, scale, strict=True))
    return len(chips) * orientations * each * _dtype(precision, pooled).itemsize


def _dtype(precision: Precision, pooled: bool) -> torch.dtype:
    return torch.float32 if pooled else DTYPES[precision]  # means are few, and worth their digits


def _turns(count: int, h: int, w: int) -> tuple[int, ...]:
    # identity first; then what changes most: half turn, mirror, both; then the quarter turns
    order = (0, 2, 4, 6, 1, 3, 5, 7) if h == w else (0, 2, 4, 6)
    if count not in (1, 2, 4, 8) or count > len(order):
        raise ConfigError(f"{count} orientations of chips of {h} x {w}; expected 1, 2, 4{' or 8' if h == w else ''}")
    return order[:count]


def _runner(ensemble: Ensemble, precision: Precision, pooled: bool) -> Callable[[Tensor, list[int]], list[Pyramid]]:
    """The views that are asked for, a few chips at a time."""
    plan: Fused = fused(ensemble, precision=precision)
    dtype = _dtype(precision, pooled)

    def run(x: Tensor, views: list[int]) -> list[Pyramid]:
        kept: list[Pyramid] = []
        for first in range(0, len(x), FEW):
            with torch.no_grad():
                made = plan.encode(x[first : first + FEW], views, torch.float32 if pooled else dtype)
            made = [[m.mean((-2, -1), keepdim=True) for m in p] for p in made] if pooled else made
            if not kept:
                kept = [[m.new_empty(len(x), *m.shape[1:]) for m in p] for p in made]
            for all_, some in zip(kept, made, strict=True):
                for whole, m in zip(all_, some, strict=True):
                    whole[first : first + FEW] = m
        return kept

    return run


def _key(ensemble: Ensemble, view: int, weights: list[str], turn: int, precision: Precision, *how: object) -> str:
    """The hash of everything that the features of one view depend on, but the pixels."""
    plan: AdaptationPlan = ensemble.views[view]
    encoder = ensemble._encoder_of[view]
    reads = (weights[encoder], ensemble.cards[encoder].reading, plan.index, plan.convert, plan.mean, plan.std)
    return sha256_bytes(repr((FORMAT, str(ensemble.bands), turn, precision, how, reads)).encode())[:32]


def _content(x: Tensor) -> str:
    """The hash of pixels."""
    x = x.detach().cpu().contiguous()
    h = hashlib.sha256(f"{tuple(x.shape)} {x.dtype}".encode())
    h.update(x.view(torch.uint8).numpy().data)
    return h.hexdigest()[:32]


def weights_sha256(encoder: nn.Module) -> str:
    """The hash of the weights as they are, whatever a card says."""
    h = hashlib.sha256()
    for name, t in sorted(encoder.state_dict().items()):
        h.update(f"{name} {tuple(t.shape)} {t.dtype}".encode())
        h.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def _joined(shards: list[Pyramid]) -> Part:
    part = _InMemory([torch.cat([s[level] for s in shards]) for level in range(len(PYRAMID_CHANNELS))])
    shards.clear()  # else all features would be there twice in the end
    return part


def _require(need: int, have: int, what: str, repair: str) -> None:
    if need > 0.9 * have:
        error = ConfigError if what == "memory" else OutputError
        raise error(
            f"frozen features take {need / 1e9:.3g} GB, the {what} has {have / 1e9:.3g} GB free: {repair}; "
            "fewer specialists or fit.precision: bf16 make them smaller"
        )


def _memory() -> int:
    """Bytes that a process can still have, as Linux tells it; elsewhere half of what is built in."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
