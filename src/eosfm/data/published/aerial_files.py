"""What the readers of aerial and very-high-resolution data share: large pictures cut into tiles, labels by value or colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.contracts import DataError, missing_extra
from eosfm.data.folders import Labels
from eosfm.data.published.satellite_files import (
    Window,
    raster_size,
    read_tif,
    relabel,
    tiles,
    window_key,
    window_of,
)

_TIFF = (".tif", ".tiff")
_MAX_PIXELS = 2**27

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """One picture (or two dates of it) and its labels, below the data set's root; ``place`` is what splits must not share."""

    images: tuple[str, ...]
    label: str
    place: str


@dataclass(frozen=True)
class TileReader:
    """Reads the tiles that `scene_keys` names.

    Args:
        root: of the data set.
        stored: the file's bands, in file order.
        wanted: those to return, in order.
        values: ``(stored label, class)`` pairs; 255 is ignored.
        colours: ``((red, green, blue), class)`` pairs, for labels that are pictures.
        binarize: label channels of 128 and more mean 255, the others 0, where the data set says that its colours are not pure.
    """

    root: Path
    stored: tuple[str, ...]
    wanted: tuple[str, ...]
    values: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[Colour, int], ...] = ()
    binarize: bool = False

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, window = window_of(key)
        *images, label = name.split("|")
        order = [self.stored.index(b) for b in self.wanted]
        x = np.concatenate([_eight_bit(self.root / i, len(self.stored), window)[order] for i in images])
        path = self.root / label
        if self.colours:
            rgb = read_pixels(path, 3, window)
            y = by_colour((rgb >= 128) * 255 if self.binarize else rgb, dict(self.colours), str(path))
        else:
            y = relabel(read_pixels(path, 1, window)[0], dict(self.values), str(path))
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(np.ascontiguousarray(y))


def _eight_bit(path: Path, count: int, window: Window) -> NDArray[np.uint8]:
    """`read_pixels` of a picture: a copy in 16 bit would be read as 8 bit, 257 times too bright, in one split only."""
    pixels = read_pixels(path, count, window)
    if pixels.dtype != np.uint8:
        raise DataError(f"{path}: {pixels.dtype} values; expected 8 bit, as published")
    return pixels


def scene_keys(root: Path, scenes: Sequence[Scene], side: int, title: str) -> list[str]:
    """The keys of all tiles of ``scenes``; remainders are kept by moving the last tile inwards.

    Raises:
        DataError: a picture whose labels, or second date, have another size, or that is smaller than a tile.
    """
    keys = []
    for s in scenes:
        sizes = {f: picture_size(root / f) for f in (*s.images, s.label)}
        if len(set(sizes.values())) != 1:
            shown = ", ".join(f"{f} {h} x {w}" for f, (h, w) in sizes.items())
            raise DataError(f"{title}: {shown} pixels; expected the same size")
        height, width = sizes[s.label]
        keys += [
            window_key("|".join((*s.images, s.label)), w) for w in tiles(height, width, side, f"{title}, {s.label}")
        ]
    return keys


def picture_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` of a TIFF, PNG or JPEG, from its header."""
    if path.suffix.lower() in _TIFF:
        return raster_size(path)
    with _opened(path) as image:
        return int(image.height), int(image.width)


def read_pixels(path: Path, count: int, window: Window) -> NDArray[Any]:
    """A window of a TIFF, PNG or JPEG with ``count`` channels, as stored ``(count, h, w)``.

    Raises:
        DataError: another number of channels, or no such picture; RasterError: a damaged TIFF.
    """
    if path.suffix.lower() in _TIFF:
        return read_tif(path, count, window)
    top, left, height, width = window
    with _opened(path) as image:
        if len(image.getbands()) != count or image.mode == "P":
            raise DataError(f"{path}: a picture of mode {image.mode}; expected {count} channels of 8 bit")
        try:
            pixels = np.array(image.crop((left, top, left + width, top + height)))
        except (OSError, SyntaxError, ValueError) as e:
            raise DataError(f"{path}: cannot be read ({e}). Is it complete? Fetch it again.") from e
    if pixels.dtype != np.uint8 and pixels.dtype != np.bool_:
        raise DataError(f"{path}: {pixels.dtype} values; expected 8 bit")
    return pixels[None].astype(np.uint8) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _opened(path: Path) -> Any:
    try:
        from PIL import Image
    except ImportError as e:
        raise missing_extra("pillow", "report") from e
    try:
        image = Image.open(path, formats=("PNG", "JPEG"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f"{path}: cannot be read as a PNG or JPEG ({e}). Is it complete? Fetch it again.") from e
    if image.width * image.height > _MAX_PIXELS:
        raise DataError(f"{path}: {image.height} x {image.width} pixels; far larger than this data set's pictures")
    return image


def by_colour(rgb: NDArray[Any], table: dict[Colour, int], where: str) -> Labels:
    """Classes ``(h, w)`` of a picture ``(3, h, w)`` whose colours mean classes.

    Raises:
        DataError: a colour that is not in ``table``: a class of another legend, or a label that was saved as JPEG.
    """
    packed = (rgb[0].astype(np.int64) << 16) | (rgb[1].astype(np.int64) << 8) | rgb[2].astype(np.int64)
    codes = {(r << 16) | (g << 8) | b: c for (r, g, b), c in table.items()}
    unknown = np.setdiff1d(packed, list(codes))
    if len(unknown):
        seen = ", ".join(f"({v >> 16}, {v >> 8 & 255}, {v & 255})" for v in unknown[:3].tolist())
        raise DataError(f"{where}: colours {seen}; expected {', '.join(map(str, table))}")
    return relabel(packed, codes, where)


def last_share(names: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """``names`` and the last ``share`` of them: where neighbours have neighbouring names, a cut leaks at one place only.

    Raises:
        DataError: fewer than two.
    """
    if len(names) < 2:
        raise DataError(f"{len(names)} pictures to train on; expected two or more, one of them to validate on")
    n = min(max(1, round(share * len(names))), len(names) - 1)
    return list(names[:-n]), list(names[-n:])
