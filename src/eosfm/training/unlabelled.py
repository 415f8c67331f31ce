"""Images to learn from without labels: chips whose labels are left alone, or a folder of GeoTIFFs of any size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.config import record
from eosfm.contracts import DataError
from eosfm.data.chips import ChipSet, Splits, split_indices
from eosfm.data.folders import grid
from eosfm.data.footprints import MAX_SHARED, Footprint, require_apart
from eosfm.data.streams import StreamedChips
from eosfm.inference.scene import SceneReader
from eosfm.seeding import purpose_seed

HELD_BACK = 0.1
"""share of the images by which the best epoch is chosen"""
_KEY = re.compile(r"(.+)\[(\d+),(\d+)\]", re.S)


@dataclass(frozen=True)
class Imagery:
    """Images to train on and images to validate with, of the same bands and size; labels are never looked at.

    Raises:
        DataError: bands or sizes that differ, or an image or a place in both parts.
    """

    train: ChipSet
    validation: ChipSet
    rule: str = ""
    """how they were divided, for the card"""

    def __post_init__(self) -> None:
        a, b = self.train, self.validation
        if (a.bands, a.size) != (b.bands, b.size):
            raise DataError(f"training images are {a.bands}, {a.size}; validation images are {b.bands}, {b.size}")
        if both := set(a.ids) & set(b.ids):
            raise DataError(f"image {min(both)!r} is in both the training and the validation part; divide them anew")
        parts = {"training": a, "validation": b}
        require_apart({name: (p.ids, f) for name, p in parts.items() if (f := getattr(p, "footprints", ()))})


def imagery(data: Splits | Imagery | ChipSet, seed: int) -> Imagery:
    """``data`` as `Imagery`: a test split is left out; of chips without splits, one in ten (by ``seed``) validates."""
    if isinstance(data, Imagery):
        return data
    if isinstance(data, Splits):
        return Imagery(data.train, data.validation, f"{data.rule}; the test split was not used".removeprefix("; "))
    train, held = split_indices(len(data), (1 - HELD_BACK, HELD_BACK), seed)
    if not held:
        raise DataError(f"{data.name}: {len(data)} images are too few to hold one in ten back; give at least 5")
    return Imagery(data.subset(train), data.subset(held), "one image in ten, at random, chose the epoch")


@dataclass(frozen=True)
class Unlabelled:
    """A data set as the training loop wants it: images, and 0 for every label. Two dates are two images."""

    chips: ChipSet

    def __len__(self) -> int:
        return len(self.chips)

    @property
    def bands(self) -> BandSet:
        """Of one image."""
        return self.chips.bands

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Float32 images ``(dates * b, c, h, w)`` at ``indices``, and zeros."""
        x, _ = self.chips.batch(indices)
        x = x.reshape(-1, len(self.chips.bands), *x.shape[-2:])
        return x, torch.zeros(len(x))


@record
class ImagesConfig:
    """GeoTIFFs without labels. Nothing is guessed from file contents."""

    root: Path
    """searched for ``*.tif`` and ``*.tiff``, with all folders in it"""
    bands: str
    """the channels to train on, ``SENSOR:BAND,BAND@UNIT``"""
    file_bands: str | None = None
    """what the files' bands are, in file order, where the files do not say so themselves"""
    chip_size: int = 128
    """side of the windows that the files are cut into; what remains at the edges is left out"""
    limit: int | None = None
    """at most so many windows, drawn by ``seed``"""
    allow_no_crs: bool = False
    """accept files without georeference: then nobody notices if two of them show the same place"""
    name: str = ""
    licence: str = "unknown"
    source: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.chip_size < 32 or self.chip_size % 32:
            raise ValueError(f"chip_size {self.chip_size}; expected a multiple of 32")
        if self.limit is not None and self.limit < 2:
            raise ValueError(f"limit {self.limit}; expected 2 or more")


@dataclass(frozen=True)
class Windows:
    """Reads ``file.tif[top,left]``: one window of one GeoTIFF, with label 0."""

    config: ImagesConfig

    def open(self, name: str) -> SceneReader:
        """The file called ``name`` below the root; see `SceneReader` for errors."""
        c = self.config
        declared = BandSet.parse(c.file_bands) if c.file_bands else None
        wanted = BandSet.parse(c.bands).require_distinct()
        return SceneReader(c.root / name, wanted, declared=declared, allow_no_crs=c.allow_no_crs)

    def __call__(self, key: str) -> tuple[Tensor, Tensor]:
        """The window ``(c, size, size)`` in the wanted units, NaN where nodata."""
        m = _KEY.fullmatch(key)
        assert m is not None
        with self.open(m[1]) as scene:
            return scene.read(int(m[2]), int(m[3]), self.config.chip_size, self.config.chip_size), torch.tensor(0)


def open_images(config: ImagesConfig) -> Imagery:
    """The windows of all files of ``config``, read when they are needed. No ground is in both parts.

    Files that show common ground are one place. Of ten places or more, one in ten validates; of fewer, the southern tenth
    of each (the lower, without georeference), and windows on the border are left out.

    Raises:
        DataError: no files, files smaller than a window, or too few windows.
        RasterError, BandError, UnitError: see `SceneReader`.
    """
    read, size = Windows(config), config.chip_size
    if not config.root.is_dir():
        raise DataError(f"{config.root}: no such folder; expected one with *.tif files")
    names = sorted(
        p.relative_to(config.root).as_posix() for p in config.root.rglob("*") if p.suffix.lower() in (".tif", ".tiff")
    )
    if not names:
        raise DataError(f"{config.root}: no *.tif files in it")
    windows: list[tuple[str, Footprint, int]] = []
    extents = []
    for number, name in enumerate(names):
        with read.open(name) as scene:
            extents.append(_ground(scene, number, 0, 0, scene.height, scene.width))
            for top, left in grid(scene.height, scene.width, size, str(scene.path)):
                if not scene.known_empty(top, left, size, size):
                    at = _ground(scene, number, top, left, size, size)
                    windows.append((f"{name}[{top},{left}]", at, number))
    place = places(extents)
    if config.limit is not None and len(windows) > config.limit:
        rng = np.random.default_rng(purpose_seed(config.seed, "limit", config.limit))
        windows = [windows[i] for i in sorted(rng.permutation(len(windows))[: config.limit])]
    held = _held_back(place, config.seed)
    border = {k: _border([at for _, at, number in windows if place[number] == k]) for k in set(place)}
    train: list[str] = []
    validation: list[str] = []
    for key, at, number in windows:
        if held:
            (validation if place[number] in held else train).append(key)
        else:
            edge, tolerance = border[place[number]], 0.5 * MAX_SHARED * (at.top - at.bottom)
            if at.bottom >= edge - tolerance:
                train.append(key)
            elif at.top <= edge + tolerance:
                validation.append(key)
    if not train or not validation:
        raise DataError(
            f"{config.root}: {len(train)} training and {len(validation)} validation windows of {size} pixels; "
            "use more files, larger ones, or a smaller chip_size"
        )
    rule = "one place in ten chose the epoch" if held else "the southern tenth of each place chose the epoch"
    bands, title = BandSet.parse(config.bands), config.name or config.root.name
    parts = [
        StreamedChips(
            read, tuple(ids), (size, size), bands, "classification", ("unlabelled",), f"{title} ({part})",
            config.licence, config.source,
        )
        for part, ids in (("train", train), ("validation", validation))
    ]  # fmt: skip
    return Imagery(parts[0], parts[1], rule)


def places(extents: Sequence[Footprint]) -> list[int]:
    """For each extent the number of its place: extents of one CRS that share more than a hundredth of the smaller one."""
    crs = np.array([e.crs for e in extents])
    box = np.array([(e.left, e.bottom, e.right, e.top) for e in extents])
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    number = np.arange(len(extents))
    for i in range(len(extents)):
        wide = np.minimum(box[:, 2], box[i, 2]) - np.maximum(box[:, 0], box[i, 0])
        high = np.minimum(box[:, 3], box[i, 3]) - np.maximum(box[:, 1], box[i, 1])
        shared = np.clip(wide, 0, None) * np.clip(high, 0, None) > MAX_SHARED * np.minimum(area, area[i])
        together = np.unique(number[shared & (crs == crs[i])])
        number[np.isin(number, together)] = together[0]
    out: list[int] = number.tolist()
    return out


def _held_back(place: Sequence[int], seed: int) -> set[int]:
    """The places that validate, where there are at least ten; otherwise none."""
    different = sorted(set(place))
    count = int(HELD_BACK * len(different))
    rng = np.random.default_rng(purpose_seed(seed, "places"))
    return {different[i] for i in rng.permutation(len(different))[:count]}


def _border(windows: Sequence[Footprint]) -> float:
    """The upper edge of a window of a place, below which a tenth of the place or a little more lies."""
    if not windows:
        return 0.0
    bottom, top = min(w.bottom for w in windows), max(w.top for w in windows)
    return min(w.top for w in windows if w.top >= bottom + HELD_BACK * (top - bottom))


def _ground(scene: SceneReader, number: int, top: int, left: int, height: int, width: int) -> Footprint:
    """Where a window lies; of a file without georeference, in the rows and columns of that file alone."""
    if scene.where.missing:
        return Footprint(f"file {number}", left, -(top + height), left + width, -top)
    t = scene.where.transform
    corners = [t * (x, y) for x in (left, left + width) for y in (top, top + height)]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return Footprint(str(scene.where.crs), min(xs), min(ys), max(xs), max(ys))
