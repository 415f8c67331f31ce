"""Labelled scenes cut into chips: glacier zones in radar, clouds and their shadows, a flood seen by two sensors.

Chips never overlap. Where one scene is all there is, the splits are stripes of it with a strip left out in between:
neighbouring pixels are alike, and a random split of chips would measure memory. Numbers got this way are about one scene.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from eosfm.bands import BandSet
from eosfm.contracts import DataError, known
from eosfm.data.archives import scan_zip
from eosfm.data.chips import Chips, Splits
from eosfm.data.folders import (
    SPLITS,
    About,
    Field,
    Labels,
    channel_order,
    data_folder,
    few,
    grid,
    read_labels,
    read_raster,
    read_rows,
    stripes,
    thrice,
)
from eosfm.inference.raster import Georeference, RasterFile
from eosfm.tasks.kinds import IGNORE

Window = tuple[int, int]
"""top and left of a chip, in pixels of the scene"""
Piece = tuple[NDArray[Any], Labels, str]
"""a chip's pixels, labels and id"""

_CAFFE = About(
    "CaFFe",
    BandSet.of("sar", ("VV",), "8bit"),
    "segmentation",
    ("not available", "rock", "glacier", "ocean and ice melange"),
    "CC-BY-4.0",
    "CaFFe (Gourmelon et al. 2022, doi:10.1594/PANGAEA.940950), GEO-Bench-2's sample: TerraSAR-X and TanDEM-X amplitude "
    "as 8 bit, about 6 m. The polarisation is not stated in the files: VV is a placeholder, not a fact.",
)
_FLOOD = About(
    "Sen1Floods11",
    BandSet.parse("sentinel-1:VV,VH@db + sentinel-2-l1c:all@dn-1e4"),
    "segmentation",
    ("dry", "water"),
    "not stated (open access)",
    "Sen1Floods11 (Bonafilia et al. 2020, doi:10.1109/CVPRW50498.2020.00113), hand-labelled chip Spain_7370579, EPSG:4326 "
    "at about 10 m. Contains modified Copernicus Sentinel data.",
)
_FLOOD_CHIP = "Spain_7370579"
CLOUD_CLASSES = ("clear", "cloud", "cloud shadow")
_CLOUD_OF = {0: 2, 1: 0, 2: 0, 3: 0, 4: 1}  # reference mask -> CLOUD_CLASSES, as in the package's own tests
_CLOUD_BANDS = {
    "sentinel-2": "sentinel-2-l1c:B02,B03,B04,B08,B11,B12@reflectance",
    "landsat-7": "landsat-7:B1,B2,B3,B4,B5,B7@reflectance",
}


def caffe(
    root: Path | str, *, chip: int = 128, limit: int | None = None, seed: int = 0, composite: bool = False
) -> Splits:
    """Glacier zones: the grey radar amplitude, uint8 ``(n, 1, chip, chip)``; labels ``(n, chip, chip)``.

    Split as GEO-Bench-2 does, by its 512-pixel samples (so the chips of one sample stay together); test glaciers occur in
    no other split. Class 0, "not available", is where the picture is 0 because nothing was recorded: it is part of the
    benchmark's four classes and trivial to find. Chips that hold nothing else are left out.

    Args:
        root: the folder of all shared data, or ``geobench2_samples/caffe`` itself.
        chip: side of the chips in pixels.
        limit: at most so many chips in each split, drawn by ``seed``.
        seed: of that draw.
        composite: the one band three times over, for training a specialist that reads three-band SAR composites.

    Raises:
        DataError: missing files, or ones that contradict each other.
        RasterError: a damaged file.
    """
    about = replace(_CAFFE, bands=thrice(_CAFFE.bands)) if composite else _CAFFE
    folder = data_folder(root, "geobench2_samples/caffe", "samples.csv")
    pieces: dict[str, list[Piece]] = {s: [] for s in SPLITS}
    for row in read_rows(folder / "samples.csv", ("tortilla:id", "tortilla:data_split")):
        sample, split = row["tortilla:id"], row["tortilla:data_split"]
        if not re.fullmatch(r"sample_\d+", sample) or split not in SPLITS:
            raise DataError(
                f"{folder / 'samples.csv'}: {sample!r}, split {split!r}; expected sample_N, one of {SPLITS}"
            )
        image, _ = read_raster(folder / sample / "img.tif")
        if len(image) != 1 or not bool(((image >= 0) & (image <= 255)).all()):
            raise DataError(f"{folder / sample / 'img.tif'}: {len(image)} bands; expected one, of values 0 to 255")
        zones = read_labels(folder / sample / "mask.tif")
        windows = [w for w in grid(zones.shape[0], zones.shape[1], chip, sample) if bool(_at(zones, w, chip).any())]
        pieces[split] += _cut(
            np.repeat(image, len(about.bands), axis=0).astype(np.uint8), zones, windows, chip, f"caffe/{sample}"
        )
    rule = f"GEO-Bench-2's split by sample; chips of {chip} pixels, empty ones left out"
    return _splits(about, pieces, limit, seed, rule)


def cloud_masks(
    root: Path | str,
    *,
    sensor: Literal["sentinel-2", "landsat-7"] = "sentinel-2",
    chip: int = 64,
    gap: int = 32,
    limit: int | None = None,
    seed: int = 0,
) -> Splits:
    """Clouds and their shadows: top-of-atmosphere reflectance, float32 ``(n, 6, chip, chip)``; labels ``(n, chip, chip)``.

    Bands are blue, green, red, near infrared and two short-wave infrared ones. The archive names no band numbers;
    Sentinel-2's "nir" is taken for B08, as in the catalogues whose names it uses. One scene of 512 pixels is cut into
    vertical stripes for training, validation and test (left, middle, right); every class is in each.

    Args:
        root: the folder of all shared data, or ``ukis_csmask`` itself.
        sensor: "sentinel-2" or "landsat-7".
        chip: side of the chips in pixels.
        gap: unused pixels between two stripes.
        limit: at most so many chips in each split, drawn by ``seed``.
        seed: of that draw.

    Raises:
        DataError: an unknown sensor, a missing or damaged file, a mask value that is not explained, too large chips.
    """
    if sensor not in _CLOUD_BANDS:
        raise DataError(f"cloud masks: no scene of {sensor!r}; {known(_CLOUD_BANDS)}")
    name = sensor.replace("-", "")
    path = data_folder(root, "ukis_csmask", f"{name}.npz") / f"{name}.npz"
    image, mask = _load(path, "img", 6).astype(np.float32), _load(path, "msk", 1)[0]
    odd = sorted(set(np.unique(mask).tolist()) - set(_CLOUD_OF))
    if odd:
        raise DataError(f"{path}: mask values {odd}; expected {sorted(_CLOUD_OF)} (see MASK_CLASSES.txt)")
    about = About(
        f"Clouds {sensor}",
        BandSet.parse(_CLOUD_BANDS[sensor]),
        "segmentation",
        CLOUD_CLASSES,
        "Apache-2.0",
        "Test scene of ukis-csmask (Wieland et al. 2019, doi:10.1016/j.rse.2019.05.022), without georeference; its package "
        "resamples scenes to about 30 m. Contains modified Copernicus Sentinel or USGS Landsat data.",
    )
    label = np.array([_CLOUD_OF[v] for v in range(len(_CLOUD_OF))])[mask.astype(np.int64)]
    return _stripes(about, image, label, f"ukis_csmask/{name}", chip, gap, limit, seed)


def sen1floods11(root: Path | str, *, chip: int = 64, gap: int = 32, limit: int | None = None, seed: int = 0) -> Splits:
    """A flood in Spain: VV and VH in dB, then 13 Sentinel-2 L1C bands, float32 ``(n, 15, chip, chip)``; labels dry, water.

    Sentinel-2 values are reflectance x 10000. Unlabelled pixels (-1) become 255, which is ignored. NaN stays NaN; pixels
    where all 13 Sentinel-2 bands are 0 become NaN (0 in one band alone is a value: cirrus over clear ground).

    The one chip of 512 pixels is cut into *vertical* stripes for training, validation and test, left to right: its water
    lies across all of them, whereas horizontal stripes would leave the last one nearly dry.

    Args:
        root: the folder of all shared data, or ``sen1floods11_sample`` itself.
        chip: side of the chips in pixels.
        gap: unused pixels between two stripes (10 m each).
        limit: at most so many chips in each split, drawn by ``seed``.
        seed: of that draw.

    Raises:
        DataError: missing files, ones that contradict each other, or too large chips.
        RasterError: a damaged file.
    """
    image, label, _ = flood_scene(root)
    return _stripes(_FLOOD, image, label, f"sen1floods11/{_FLOOD_CHIP}", chip, gap, limit, seed)


def flood_scene(root: Path | str) -> tuple[Field, Labels, Georeference]:
    """The whole chip of `sen1floods11`: image ``(15, 512, 512)``, labels with 255 ignored, and where it lies."""
    files = {part: f"sample/{part}/{_FLOOD_CHIP}_{part.removesuffix('s')}Hand.tif" for part in ("S1", "S2", "Labels")}
    folder = data_folder(root, "sen1floods11_sample", *files.values())
    layers = []
    for part, sensor in (("S1", "sentinel-1"), ("S2", "sentinel-2-l1c")):
        values, described = read_raster(folder / files[part])
        wanted = [b.name for b in _FLOOD.bands if b.sensor == sensor]
        layers.append(values[channel_order(folder / files[part], described, sensor, wanted)])
    label = read_labels(folder / files["Labels"])
    if layers[0].shape[1:] != layers[1].shape[1:]:
        raise DataError(
            f"{folder}: S1 {layers[0].shape[1:]}, S2 {layers[1].shape[1:]} pixels; expected the same of both"
        )
    file = RasterFile(folder / files["S1"])
    file.close()
    return np.concatenate(layers), np.where(label == -1, IGNORE, label), file.where


def _stripes(
    about: About, image: Field, label: Labels, stem: str, chip: int, gap: int, limit: int | None, seed: int
) -> Splits:
    """Chips of one scene ``(c, h, w)``; the three splits are vertical stripes. Chips without any label are left out."""
    height, width = label.shape
    tops = [t for t, _ in grid(height, chip, chip, stem)]
    pieces: dict[str, list[Piece]] = {}
    for split, lefts in zip(SPLITS, stripes(width, chip, gap, stem), strict=True):
        windows = [w for w in product(tops, lefts) if bool((_at(label, w, chip) != IGNORE).any())]
        pieces[split] = _cut(image, label, windows, chip, stem)
    rule = f"vertical stripes of one scene, 60/20/20 from the left, {gap} pixels left out between them; chips of {chip}"
    return _splits(about, pieces, limit, seed, rule)


def _cut(image: NDArray[Any], label: Labels, windows: Iterable[Window], chip: int, stem: str) -> list[Piece]:
    if image.shape[1:] != label.shape:
        raise DataError(f"{stem}: an image of {image.shape[1:]} pixels with labels of {label.shape}; expected the same")
    return [(_at(image, w, chip), _at(label, w, chip), f"{stem}#{w[0]},{w[1]},{chip}") for w in windows]


def _at(values: NDArray[Any], window: Window, chip: int) -> NDArray[Any]:
    top, left = window
    return values[..., top : top + chip, left : left + chip]


def _splits(about: About, pieces: dict[str, list[Piece]], limit: int | None, seed: int, rule: str) -> Splits:
    parts: dict[str, Chips] = {}
    for split, cut in pieces.items():
        if not cut:
            raise DataError(f"{about.title}: no labelled chip in the {split} split; are all files there?")
        images, labels = (torch.from_numpy(np.stack([piece[i] for piece in cut])) for i in (0, 1))
        parts[split] = few(about.chips(split, images, labels, [i for _, _, i in cut]), limit, seed)
    rule = rule if limit is None else f"{rule}; at most {limit} in each, seed {seed}"
    return Splits(parts["train"], parts["validation"], parts["test"], rule)


def _load(path: Path, name: str, count: int) -> NDArray[Any]:
    """Array ``name`` of an .npz, stored ``(h, w, count)``, as ``(count, h, w)``; pickled content is refused."""
    scan_zip(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values: NDArray[Any] = arrays[name]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path}: no plain array {name!r} can be read ({e}); fetch it again") from e
    if values.ndim != 3 or values.shape[2] != count or values.dtype.kind not in "uif":
        raise DataError(f"{path}: {name} is {values.dtype} {values.shape}; expected numbers (h, w, {count})")
    return np.ascontiguousarray(values.transpose(2, 0, 1))
