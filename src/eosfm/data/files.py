"""Users' own files: GeoTIFF chips with label rasters, one labelled scene, or folders of pictures by class.

chips    ROOT/{train,validation,test}/images/*.tif  with  .../labels/<same name>.tif
scene    image: one GeoTIFF, labels: one raster of the same size; cut into chips, split by stripes with a gap
folders  ROOT/{train,validation,test}/<class>/*.tif|*.jpg|*.png
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.config import record
from eosfm.contracts import DataError, missing_extra
from eosfm.data.catalogue import open_dataset
from eosfm.data.chips import Chips, Splits
from eosfm.data.footprints import Footprint
from eosfm.data.worlds import synthetic_splits
from eosfm.inference.raster import RasterFile
from eosfm.inference.scene import SceneReader
from eosfm.tasks.kinds import IGNORE, OBJECTS

MAX_GIB = 8.0
"""Chips are held in memory; more than this is refused with the figure."""

PARTS = ("train", "validation", "test")


@record
class DataConfig:
    """Which data, and what their channels and labels mean. Nothing is guessed from file contents."""

    kind: Literal["chips", "scene", "folders", "synthetic", "dataset"]
    bands: str = ""
    """the channels to train on, ``SENSOR:BAND,BAND@UNIT``; a known data set brings its own"""
    dataset: str = ""
    """name of a known data set (`eosfm.data.catalogue`), for ``kind: dataset``"""
    per_class: int | None = None
    """of a known classification data set: at most so many chips a class in each split"""
    limit: int | None = None
    """of a known data set: at most so many chips in each split, drawn by ``seed``"""
    tile: int | None = None
    """of a known data set of large images: side of the tiles they are cut into"""
    dates: int | None = None
    """of a known time series: how many dates of it"""
    task: str = "segmentation"
    """kind of task; for synthetic data the name of the world's task"""
    classes: tuple[str, ...] = ()
    root: Path | None = None
    image: Path | None = None
    labels: Path | None = None
    file_bands: str | None = None
    """what the files' bands are, in file order, where the files do not say so themselves"""
    ignore_value: int | None = None
    """label value of pixels without a label (besides the label raster's nodata)"""
    chip_size: int = 64
    allow_no_crs: bool = False
    name: str = ""
    licence: str = "unknown"
    source: str = ""
    size: tuple[int, int, int] = (256, 64, 128)
    """synthetic only: training, validation and test chips"""
    seed: int = 0

    def __post_init__(self) -> None:
        needed = {"chips": ("root", "bands"), "folders": ("root", "bands"), "scene": ("image", "labels"), "synthetic": ("bands",),
                  "dataset": ("dataset", "root")}[self.kind]  # fmt: skip
        if absent := [n for n in needed if getattr(self, n) in (None, "")]:
            raise ValueError(f"data of kind {self.kind!r} needs {' and '.join(absent)}")
        if self.kind not in ("synthetic", "dataset") and not self.classes:
            raise ValueError("name the classes, in the order of the label values (one name for a regression)")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {', '.join(self.classes)}: each needs a name of its own")
        for option in ("per_class", "limit", "tile", "dates"):
            if (value := getattr(self, option)) is not None and value < 1:
                raise ValueError(f"{option} {value}; expected 1 or more")
            if value is not None and self.kind != "dataset":
                raise ValueError(f"{option} is for published data (kind: dataset), and means nothing for {self.kind!r}")
        if self.kind in ("dataset", "synthetic"):
            given = [
                o
                for o in ("name", "licence", "source")
                if getattr(self, o) != DataConfig.__dataclass_fields__[o].default
            ]
            if given:
                raise ValueError(f"{', '.join(given)}: {self.kind!r} data say that of themselves; leave it out")
        elif self.task in OBJECTS:
            raise ValueError(
                f"task {self.task!r}: boxes and instances are read from published data only (kind: dataset, for example "
                "geobench2-everwatch); your own can be given in Python as eosfm.data.chips.Chips"
            )
        if self.chip_size < 32 or self.chip_size % 32:
            raise ValueError(f"chip_size {self.chip_size}; expected a multiple of 32")


def open_data(config: DataConfig) -> Splits:
    """The training, validation and test chips that ``config`` describes.

    Raises:
        DataError: files that are missing, empty, mis-paired, of different size, or labels outside the classes.
        RasterError: a file that cannot be read, with its path and window.
        BandError, UnitError: bands or units that are not declared, unknown or contradicted by the file.
    """
    if config.kind == "dataset":
        return _dataset(config)
    bands = BandSet.parse(config.bands).require_distinct()
    if config.kind == "synthetic":
        return synthetic_splits(config.task, bands, *config.size, size=config.chip_size, seed=config.seed)
    if config.kind == "scene":
        return _scene(config, bands)
    read = _chip_folder if config.kind == "chips" else _class_folders
    parts = [read(config, bands, part) for part in PARTS]
    return Splits(parts[0], parts[1], parts[2], rule="folders train, validation, test")


def _dataset(config: DataConfig) -> Splits:
    assert config.root is not None
    options = {
        name: value for name in ("per_class", "limit", "tile", "dates") if (value := getattr(config, name)) is not None
    }
    return open_dataset(config.dataset, config.root, seed=config.seed, **options)


def _chip_folder(config: DataConfig, bands: BandSet, part: str) -> Chips:
    assert config.root is not None
    folder = config.root / part
    images = sorted((folder / "images").glob("*.tif")) if (folder / "images").is_dir() else []
    if not images:
        raise DataError(
            f"{folder / 'images'}: no *.tif files; expected {config.root}/{{{','.join(PARTS)}}}/{{images,labels}}/*.tif"
        )
    xs, ys, ids, places = [], [], [], []
    for path in images:
        label = folder / "labels" / path.name
        if not label.exists():
            raise DataError(f"{path}: no label raster; expected {label}")
        for x, y, at, place in _pair(config, bands, path, label):
            xs.append(x)
            ys.append(y)
            ids.append(f"{path.name}[{at}]")
            places.append(place)
    return _chips(config, bands, xs, ys, [f"{part}/{i}" for i in ids], part, places)


def _scene(config: DataConfig, bands: BandSet) -> Splits:
    assert config.image is not None and config.labels is not None
    cut = list(_pair(config, bands, config.image, config.labels))
    rows = sorted({at[0] for _, _, at, _ in cut})
    if len(rows) < 6:
        smaller = "Use a smaller chip_size, or" if config.chip_size > 32 else "Use a larger scene, or"
        raise DataError(
            f"{config.image}: {len(rows)} rows of {config.chip_size} px chips; a split into stripes with gaps needs 6. "
            f"{smaller} kind: chips with your own split."
        )
    n = len(rows)
    first, second = round(0.6 * n), round(0.8 * n)
    stripes = {
        "train": rows[: first - 1],
        "validation": rows[first : second - 1] or rows[first : first + 1],
        "test": rows[second:],
    }
    parts = []
    for part in PARTS:
        some = [(x, y, at, p) for x, y, at, p in cut if at[0] in stripes[part] and bool((_valid(config, y)).any())]
        xs, ys = [x for x, _, _, _ in some], [y for _, y, _, _ in some]
        ids = [f"{config.image.name}[{at}]" for _, _, at, _ in some]
        parts.append(_chips(config, bands, xs, ys, ids, part, [p for _, _, _, p in some]))
    rule = "horizontal stripes of one scene (60/20/20 %), a row of chips left out between them"
    return Splits(parts[0], parts[1], parts[2], rule=rule)


def _valid(config: DataConfig, y: Tensor) -> Tensor:
    return y.isfinite() if config.task == "regression" else y != IGNORE


def _pair(
    config: DataConfig, bands: BandSet, image: Path, label: Path
) -> Iterator[tuple[Tensor, Tensor, tuple[int, int], Footprint | None]]:
    """Chips of an image with its label raster; remainders are kept by moving the last chip inwards."""
    declared = BandSet.parse(config.file_bands) if config.file_bands else None
    size = config.chip_size
    with SceneReader(image, bands, declared=declared, allow_no_crs=config.allow_no_crs) as scene:
        truth = RasterFile(label)
        try:
            if (truth.height, truth.width) != (scene.height, scene.width):
                raise DataError(
                    f"{label} is {truth.height} x {truth.width} pixels, {image} is {scene.height} x {scene.width}"
                )
            if truth.count != 1:
                raise DataError(f"{label} has {truth.count} bands; expected a label raster of one band")
            if not truth.where.missing and not scene.where.missing and not _same_place(truth, scene):
                raise DataError(
                    f"{label} and {image} lie in different places (CRS or transform differ): warp one to the other"
                )
            if scene.height < size or scene.width < size:
                raise DataError(f"{image} is {scene.height} x {scene.width} pixels, smaller than a chip of {size}")
            for top in _starts(scene.height, size):
                for left in _starts(scene.width, size):
                    y = _labels(config, truth, label, top, left)
                    yield scene.read(top, left, size, size), y, (top, left), _footprint(scene, top, left, size)
        finally:
            truth.close()


def _footprint(scene: SceneReader, top: int, left: int, size: int) -> Footprint | None:
    """None where the scene is not placed, or rotated, so that boxes of neighbours would overlap."""
    t = scene.where.transform
    if scene.where.missing or t.b or t.d:
        return None
    (x0, y0), (x1, y1) = t * (left, top), t * (left + size, top + size)
    return Footprint(str(scene.where.crs), min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _same_place(a: RasterFile, b: SceneReader) -> bool:
    tolerance = 0.01 * abs(a.where.transform.a)  # a hundredth of a pixel
    return bool(a.where.crs == b.where.crs and a.where.transform.almost_equals(b.where.transform, tolerance))


def _starts(length: int, size: int) -> list[int]:
    starts = list(range(0, length - size + 1, size))
    return starts if starts[-1] + size == length else [*starts, length - size]


def _labels(config: DataConfig, truth: RasterFile, path: Path, top: int, left: int) -> Tensor:
    size = config.chip_size
    values = truth.read(top, left, size, size, [0])[0]
    nodata = truth.nodata[0]
    if config.task == "regression":
        y = torch.from_numpy(values.astype(np.float32))
        return y if nodata is None else torch.where(y == nodata, float("nan"), y)
    known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not np.array_equal(known, np.round(known)):
        raise DataError(
            f"{path}: label values with decimals; class labels are whole numbers 0 to {len(config.classes) - 1}"
        )
    if nodata is not None and nodata != config.ignore_value and nodata in range(len(config.classes)):
        raise DataError(
            f"{path}: its nodata value {nodata:g} is also class {config.classes[int(nodata)]!r}. To leave those pixels out, "
            f"set ignore_value: {nodata:g}; if they are labels, remove the nodata value (gdal_edit.py -unsetnodata)."
        )
    absent = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    for ignored in (nodata, config.ignore_value):
        if ignored is not None:
            absent |= values == ignored
    out = torch.from_numpy(np.where(absent, IGNORE, values).astype(np.int64))
    bad = out[(out != IGNORE) & ((out < 0) | (out >= len(config.classes)))]
    if len(bad):
        values_seen = ", ".join(str(int(v)) for v in torch.unique(bad)[:5])
        raise DataError(
            f"{path}: label values {values_seen} outside the {len(config.classes)} classes 0 to {len(config.classes) - 1} "
            f"({', '.join(config.classes)}); name more classes, or set ignore_value"
        )
    return out


def _class_folders(config: DataConfig, bands: BandSet, part: str) -> Chips:
    assert config.root is not None
    xs, ys, ids = [], [], []
    for c, name in enumerate(config.classes):
        folder = config.root / part / name
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _ENDINGS) if folder.is_dir() else []
        if not files:
            raise DataError(f"{folder}: no pictures of class {name!r} ({', '.join(_ENDINGS)})")
        for path in files:
            xs.append(_picture(config, bands, path))
            ys.append(torch.tensor(c))
            ids.append(f"{name}/{path.name}")
    return _chips(config, bands, xs, ys, [f"{part}/{i}" for i in ids], part)


_ENDINGS = (".tif", ".tiff", ".jpg", ".jpeg", ".png")


def _picture(config: DataConfig, bands: BandSet, path: Path) -> Tensor:
    size = config.chip_size
    if path.suffix.lower() in (".tif", ".tiff"):
        declared = BandSet.parse(config.file_bands) if config.file_bands else None
        with SceneReader(path, bands, declared=declared, allow_no_crs=True) as scene:
            x = scene.read(0, 0, scene.height, scene.width)
    else:
        if bands.commons != ("red", "green", "blue") or any(str(b.unit) != "8bit" for b in bands):
            raise DataError(
                f"{path}: a JPEG or PNG holds red, green, blue in 8 bit; the configuration declares {bands}"
            )
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError:
            raise missing_extra("pillow", "report") from None
        try:
            with Image.open(path) as img:
                x = torch.from_numpy(np.array(img.convert("RGB"))).permute(2, 0, 1).float()
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as e:
            raise DataError(f"{path}: cannot be read as a picture: {e}") from None
    h, w = x.shape[-2:]
    if h < size or w < size:
        raise DataError(f"{path}: {h} x {w} pixels, smaller than chip_size {size}")
    top, left = (h - size) // 2, (w - size) // 2
    return x[:, top : top + size, left : left + size]


def _chips(
    config: DataConfig,
    bands: BandSet,
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    ids: Sequence[str],
    part: str,
    places: Sequence[Footprint | None] = (),
) -> Chips:
    name = f"{config.name or config.kind} ({part})"
    if not xs:
        raise DataError(f"{name}: no chips with a label; check paths, nodata and ignore_value")
    gib = len(xs) * xs[0].nelement() * 4 / 2**30
    if gib > MAX_GIB:
        raise DataError(f"{name}: {gib:.1f} GiB of chips; up to {MAX_GIB:g} GiB fit here. Use fewer or smaller chips.")
    return Chips(
        images=torch.stack(list(xs)), labels=torch.stack(list(ys)), bands=bands, kind=config.task,
        classes=config.classes, name=name, licence=config.licence, source=config.source, ids=tuple(ids),
        footprints=tuple(p for p in places if p is not None) if all(places) else (),
    )  # fmt: skip
