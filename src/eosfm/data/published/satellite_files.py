"""What the readers of published satellite data share: folders, keys, held-out groups, tiles, TIFF windows and PNGs.

The readers read the extracted layouts themselves, in the order and under the names of TorchGeo's classes (checked against
TorchGeo 0.8.1 in ``tests/published/test_torchgeo_parity.py``), because TorchGeo takes seconds to import in every process,
knows no nodata, and pairs files by their position in a sorted list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.contracts import DataError, missing_extra
from eosfm.data.chips import Splits
from eosfm.data.folders import SPLITS, About, Field, Labels
from eosfm.data.streams import Reader, StreamedChips
from eosfm.inference.raster import RasterFile
from eosfm.seeding import purpose_seed

Window = tuple[int, int, int, int]
"""top, left, height, width in pixels"""
_MAX_VALUES = 2**27  # half a gigabyte of float32: above every scene of these data sets, below a sparse bomb
_GREY = ("1", "L", "RGB", "RGBA")


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk, and where it comes from: what an error about a missing file says."""

    title: str
    tree: str
    """the files below the root"""
    source: str
    """where to get them, how large they are, and how to unpack them"""
    recipe: str = ""
    """of the specialist that is trained on it; empty for data that only judge"""

    def where_to_get(self) -> str:
        """What must lie in the root folder, and how it gets there."""
        then = f" Then: eosfm train recipes/{self.recipe}.yaml data.root=FOLDER" if self.recipe else ""
        return f"Expected there: {self.tree}. Get it: {self.source}.{then}"

    def folder(self, root: Path, *markers: str) -> Path:
        """``root``, which holds all of ``markers``.

        Raises:
            DataError: one of them is missing.
        """
        root = Path(root)
        missing = [m for m in markers if not (root / m).exists()]
        if missing:
            raise DataError(f"{self.title}: {', '.join(missing)} not found in {root}. {self.where_to_get()}")
        return root

    def require(self, files: Iterable[Path]) -> None:
        """`DataError` if one of ``files`` is missing: training would stop at it hours later."""
        missing = [f for f in files if not f.is_file()]
        if missing:
            raise DataError(
                f"{self.title}: {len(missing)} files are missing, the first is {missing[0]}. Expected: {self.tree}. "
                f"Is everything unpacked? Get it: {self.source}"
            )


def listed(path: Path) -> list[str]:
    """The lines of a split file, stripped, without empty ones.

    Raises:
        DataError: unreadable, or nothing in it.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path}: cannot be read as a list of files, one a line ({e})") from e
    if not (names := [line for line in lines if line]):
        raise DataError(f"{path}: no file is listed; expected one a line")
    return names


def drawn(keys: Sequence[str], limit: int | None, seed: int, title: str) -> tuple[str, ...]:
    """At most ``limit`` of ``keys``, drawn by ``seed``, in their old order; None keeps all."""
    if limit is not None and limit < 1:
        raise DataError(f"{title}: limit {limit}; expected at least 1 chip")
    if limit is None or len(keys) <= limit:
        return tuple(keys)
    rng = np.random.default_rng(purpose_seed(seed, "limit", limit))
    return tuple(keys[i] for i in sorted(rng.permutation(len(keys))[:limit].tolist()))


def streamed(
    about: About,
    parts: Mapping[str, Sequence[str]],
    read: Reader,
    size: tuple[int, int],
    rule: str,
    *,
    limit: int | None,
    seed: int,
    dates: int = 1,
) -> Splits:
    """`Splits` of chips that stay on disk, from the keys of each split."""
    chips = {
        split: StreamedChips(
            read, drawn(parts[split], limit, seed, about.title), size, about.bands, about.kind, about.classes,
            f"{about.title} ({split})", about.licence, about.source, dates,
        )
        for split in SPLITS
    }  # fmt: skip
    if limit is not None:
        rule = f"{rule}; at most {limit} in each, seed {seed}"
    return Splits(chips["train"], chips["validation"], chips["test"], rule)


def held_out(groups: Iterable[str], fraction: float, seed: int, title: str) -> frozenset[str]:
    """``fraction`` of the distinct ``groups`` (scenes, cities), drawn by ``seed``: at least one, and never all.

    Raises:
        DataError: fewer than two groups, so that nothing can be held out.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise DataError(f"{title}: only {names} to train on; expected two or more, one of them to validate on")
    n = min(max(1, round(fraction * len(names))), len(names) - 1)
    rng = np.random.default_rng(purpose_seed(seed, "held out"))
    return frozenset(names[i] for i in rng.permutation(len(names))[:n].tolist())


def kept_apart(
    parts: Mapping[str, Sequence[str]], group_of: Callable[[str], str], what: str, title: str
) -> tuple[dict[str, list[str]], str]:
    """``parts`` without the chips whose group is also in a later split, and a clause for the split's rule.

    Published splits are not always by scene. A training chip of a scene that is tested on would make the score worthless,
    so it is left out (of training first, then of validation), and the rule says how many were.

    Raises:
        DataError: nothing is left of a split.
    """
    out: dict[str, list[str]] = {}
    later: set[str] = set()
    lost = 0
    for split in reversed(SPLITS):
        out[split] = [k for k in parts[split] if group_of(k) not in later]
        lost += len(parts[split]) - len(out[split])
        later |= {group_of(k) for k in parts[split]}
        if parts[split] and not out[split]:
            raise DataError(f"{title}: every {what} of the {split} split is also in a later one; no chip may be used")
    return out, f"; {lost} chips left out whose {what} is in a later split" if lost else ""


def shared_groups(parts: Mapping[str, Sequence[str]], group_of: Callable[[str], str], what: str) -> str:
    """A clause for the rule of a published split that is kept as it is: how many groups (scenes) are in several splits."""
    groups = [{group_of(k) for k in parts[split]} for split in SPLITS]
    n = len((groups[0] & groups[1]) | (groups[0] & groups[2]) | (groups[1] & groups[2]))
    return f"; {n} {what} have chips in more than one split, as published" if n else ""


def tiles(height: int, width: int, side: int, where: str) -> list[Window]:
    """Windows of ``side`` pixels that cover everything; the last one of a row or column is moved inwards, over the others.

    >>> tiles(5, 4, 4, "scene")
    [(0, 0, 4, 4), (1, 0, 4, 4)]

    Raises:
        DataError: ``side`` is below 1 or larger than the scene.
    """
    if not 1 <= side <= min(height, width):
        raise DataError(f"{where}: tiles of {side} pixels from {height} x {width}; choose 1 to {min(height, width)}")
    tops, lefts = ([*range(0, n - side, side), n - side] for n in (height, width))
    return [(t, x, side, side) for t in tops for x in lefts]


def window_key(name: str, window: Window) -> str:
    """``name@top,left,height,width``: the key of a tile, which `window_of` takes apart."""
    return f"{name}@{','.join(map(str, window))}"


def window_of(key: str) -> tuple[str, Window]:
    """Name and window of a key made by `window_key`."""
    name, _, numbers = key.rpartition("@")
    top, left, height, width = map(int, numbers.split(","))
    return name, (top, left, height, width)


def raster_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` of a GeoTIFF, from its header."""
    file = RasterFile(path)
    file.close()
    return file.height, file.width


def raster_bands(path: Path) -> int:
    """How many bands a GeoTIFF has, from its header."""
    file = RasterFile(path)
    file.close()
    return file.count


def read_tif(
    path: Path, count: int, window: Window | None = None, *, size: tuple[int, int] | None = None
) -> NDArray[Any]:
    """All ``count`` bands of a GeoTIFF of ``size`` ``(h, w)``, or a window of them, as stored ``(count, h, w)``.

    Raises:
        RasterError: no GeoTIFF, damaged, or a window that leaves it.
        DataError: another number of bands or another size, or far larger than the data set's files.
    """
    file = RasterFile(path)
    try:
        if file.count != count:
            raise DataError(f"{path}: {file.count} bands; expected {count}")
        if size is not None and (file.height, file.width) != size:
            raise DataError(f"{path}: {file.height} x {file.width} pixels; expected {size[0]} x {size[1]}")
        top, left, height, width = window or (0, 0, file.height, file.width)
        if count * height * width > _MAX_VALUES:
            raise DataError(f"{path}: {count} x {height} x {width} values; expected a chip")
        return file.read(top, left, height, width, range(count))
    finally:
        file.close()


def zeros_to_nan(values: NDArray[Any]) -> Field:
    """``(c, h, w)`` as float32, NaN where all bands are 0: Sentinel-2's NODATA (0 in one band alone is a value)."""
    out = values.astype(np.float32)
    out[:, (values == 0).all(0)] = np.nan
    return out


def relabel(values: NDArray[Any], table: Mapping[int, int], where: str) -> Labels:
    """Stored label values replaced by those of ``table``, int64 ``(h, w)``.

    Raises:
        DataError: a value that is not in ``table``.
    """
    known = sorted(table)
    unknown = np.setdiff1d(values, known)
    if len(unknown):
        seen = ", ".join(str(v) for v in unknown[:5].tolist())
        raise DataError(f"{where}: label values {seen}; expected {', '.join(map(str, known))}")
    places = np.searchsorted(known, values)
    return np.array([table[k] for k in known], np.int64)[places]


def read_grey(path: Path) -> NDArray[np.uint8]:
    """Grey values ``(h, w)`` of a PNG: of one channel, or of three equal ones (as ETCI stores radar); an opaque alpha is dropped.

    Raises:
        DataError: no PNG, damaged, in colours, or of more than 8 bit.
        MissingExtra: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as e:
        raise missing_extra("pillow", "report") from e
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in _GREY or image.width * image.height > _MAX_VALUES:
                raise DataError(f"{path}: mode {image.mode}, {image.height} x {image.width}; expected 8 bit grey")
            pixels = np.array(image.convert("L") if image.mode == "1" else image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f"{path}: cannot be read as a PNG ({e}). Is it complete? Fetch it again.") from e
    if pixels.ndim == 2:
        return pixels
    grey = pixels[..., 0]
    if (pixels[..., 1:3] != grey[..., None]).any() or (pixels[..., 3:] != 255).any():
        raise DataError(f"{path}: a picture in colours; expected equal channels, a grey picture")
    return np.ascontiguousarray(grey)
