"""Labelled pictures, one class each: EuroSAT, UC Merced and the MSTAR targets, read from their zip archives.

Pixels stay uint8 as published. Each reader takes the folder of all shared data or the data set's own, and draws with
``seed`` only where something is drawn at random.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from eosfm.bands import BandSet
from eosfm.contracts import DataError, known
from eosfm.data.archives import ImageSource, Mode, Pixels, centre_crop, decode_images
from eosfm.data.chips import Chips, Splits, split_indices
from eosfm.data.folders import FRACTIONS, SPLITS, About, data_folder, read_rows, thrice
from eosfm.seeding import purpose_seed

EUROSAT_CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)

Member = tuple[str, int]
"""name inside the archive, and label"""


_EUROSAT = About(
    "EuroSAT RGB",
    BandSet.parse("sentinel-2-l1c:B04,B03,B02@8bit"),
    "classification",
    EUROSAT_CLASSES,
    "MIT",
    "EuroSAT (Helber et al. 2019, doi:10.1109/JSTARS.2019.2918242), 27,000 JPEG of 64 x 64 pixels at 10 m, stretched to "
    "8 bit by its authors. Contains modified Copernicus Sentinel-2 data.",
)
_UC_MERCED = About(
    "UC Merced",
    BandSet.parse("aerial:R,G,B@8bit"),
    "classification",
    (),
    "imagery US public domain (USGS); no formal licence text on the compilation",
    "UC Merced Land Use (Yang and Newsam 2010), re-compressed JPEG copy, 60 of 100 pictures a class, 0.3 m. Squared, "
    "then averaged over areas to {size} x {size} pixels, so that a pixel is about {gsd:.2g} m.",
)
_MSTAR = About(
    "MSTAR",
    BandSet.of("sar-x", ("HH",), "8bit"),
    "classification",
    (),
    "US Air Force, approved for public release, distribution unlimited; no formal licence",
    "MSTAR public targets (AFRL/DARPA), X band, HH, spotlight, 0.3 m, magnitude as 8-bit JPEG, cropped to the middle "
    "{size} x {size} pixels because the size of a chip gives away its class. Depression angles are not recorded, so this is "
    "not the 17 against 15 degrees protocol of the literature; clutter and brightness still betray the class in part.",
)


def eurosat_rgb(
    root: Path | str, *, classes: Sequence[str] | None = None, per_class: int | None = None, seed: int = 0
) -> Splits:
    """EuroSAT in natural colours: images uint8 ``(n, 3, 64, 64)`` of red, green, blue; one of 10 scene classes.

    The split is the one of the published ``train.csv``, ``validation.csv`` and ``test.csv`` (random 70/20/10; not
    TorchGeo's split by longitude, so neighbouring tiles can be in two splits).

    Args:
        root: holds ``eurosat_rgb/``, or is it: ``EuroSAT.zip`` (or the unpacked ``2750/``) and the three tables.
        classes: only these, labelled 0, 1, ... in this order; None keeps all ten.
        per_class: at most so many of each class *in each split*, drawn by ``seed`` before anything is decoded.
        seed: of that draw.

    Raises:
        DataError: files that are missing, damaged or contradict each other; an unknown class.
        MissingExtra: Pillow is not installed.
    """
    folder = data_folder(root, "eurosat_rgb", *(f"{s}.csv" for s in SPLITS))
    wanted = _wanted(classes)
    parts: dict[str, list[Member]] = {}
    for split in SPLITS:
        table = folder / f"{split}.csv"
        parts[split] = []
        for row in read_rows(table, ("Filename", "Label", "ClassName")):
            name, label = row["ClassName"], row["Label"]
            if name not in EUROSAT_CLASSES or label != str(EUROSAT_CLASSES.index(name)):
                raise DataError(
                    f"{table}: {row['Filename']} is of class {name!r}, label {label}; {known(EUROSAT_CLASSES)}"
                )
            if name in wanted:
                parts[split].append((f"2750/{row['Filename']}", wanted.index(name)))
    archive = folder / "EuroSAT.zip"
    with ImageSource(archive if archive.exists() else _unpacked(folder, "2750")) as source:
        return _splits(
            replace(_EUROSAT, classes=wanted),
            source,
            parts,
            "RGB",
            64,
            rule="the data set's train.csv, validation.csv and test.csv (random, 70/20/10)",
            per_class=per_class,
            seed=seed,
        )


def uc_merced(root: Path | str, *, size: int = 128, per_class: int | None = None, seed: int = 0) -> Splits:
    """UC Merced Land Use: images uint8 ``(n, 3, size, size)`` of red, green, blue from the air; one of 21 classes.

    Published at 256 pixels and 0.3 m with a few of 247 to 257. Each picture's middle square is averaged over areas to
    ``size`` (128: exactly 2 x 2 pixels of a 256-pixel picture, 0.6 m), so that all keep their whole extent.

    The split cuts each class's *file numbers*, in order, into 60/20/20: neighbouring numbers are often crops of one
    scene, and a random split would put near-duplicates into training and test.

    Args:
        root: holds ``uc_merced/``, or is it: ``uc_merced_jpg.zip``.
        size: side of the chips in pixels, 32 to 247.
        per_class: at most so many of each class in each split, drawn by ``seed``.
        seed: of that draw.

    Raises:
        DataError: the archive is missing or damaged, or a size out of range.
        MissingExtra: Pillow is not installed.
    """
    if not 32 <= size <= 247:
        raise DataError(f"UC Merced: size {size}; choose 32 to 247 pixels, the side of its smallest picture")
    folder = data_folder(root, "uc_merced", "uc_merced_jpg.zip")
    with ImageSource(folder / "uc_merced_jpg.zip") as source:
        groups = _by_folder(source, r"UCMerced/([a-z]+)/\1(\d+)\.jpg")
        parts: dict[str, list[Member]] = {s: [] for s in SPLITS}
        for label, members in enumerate(groups.values()):
            edges = [round(float(e) * len(members)) for e in np.cumsum((0.0, *FRACTIONS))]
            for i, split in enumerate(SPLITS):
                parts[split] += [(m, label) for m in members[edges[i] : edges[i + 1]]]
        text = _UC_MERCED.source.format(size=size, gsd=0.3 * 256 / size)
        return _splits(
            replace(_UC_MERCED, classes=tuple(groups), source=text),
            source,
            parts,
            "RGB",
            size,
            rule="blocks of consecutive file numbers in each class, 60/20/20",
            prepare=lambda p, where: _area(centre_crop(p, min(p.shape[1:]), where), size),
            per_class=per_class,
            seed=seed,
        )


def mstar(
    root: Path | str, *, size: int = 128, per_class: int | None = None, seed: int = 0, composite: bool = False
) -> Splits:
    """MSTAR targets: images uint8 ``(n, 1, size, size)``, the HH magnitude; one of 10 vehicles.

    Published chips are 128 to 193 pixels wide *depending on the class*, so all are cropped to one size about the middle,
    where the target is. Split at random by ``seed``, 60/20/20 in each class: views a few degrees apart are in different
    splits, which makes it easier than the literature's protocol. The classes were also recorded in different fields and
    scaled differently: the outer pixels alone, without a target, tell them apart far better than chance.

    Args:
        root: holds ``mstar_sar_chips/``, or is it: ``mstar_jpeg.zip``.
        size: side of the chips in pixels, 32 to 128.
        per_class: at most so many of each class in each split.
        seed: of the split, and of the draw of ``per_class``.
        composite: the one band three times over, for training a specialist that reads three-band SAR composites.

    Raises:
        DataError: the archive is missing or damaged, a picture is not grey, or a size out of range.
        MissingExtra: Pillow is not installed.
    """
    if not 32 <= size <= 128:
        raise DataError(f"MSTAR: size {size}; choose 32 to 128 pixels, the side of its smallest chip")
    folder = data_folder(root, "mstar_sar_chips", "mstar_jpeg.zip")
    with ImageSource(folder / "mstar_jpeg.zip") as source:
        groups = _by_folder(source, r"mstar/([A-Z0-9_]+)/[A-Z]+(\d+)\.jpeg")
        members = [(m, label) for label, names in enumerate(groups.values()) for m in names]
        drawn = split_indices(len(members), FRACTIONS, seed, [label for _, label in members])
        parts = {s: [members[i] for i in indices] for s, indices in zip(SPLITS, drawn, strict=True)}
        return _splits(
            replace(
                _MSTAR,
                classes=tuple(groups),
                source=_MSTAR.source.format(size=size),
                bands=thrice(_MSTAR.bands) if composite else _MSTAR.bands,
            ),
            source,
            parts,
            "L",
            size,
            rule=f"random in each class by seed {seed}, 60/20/20",
            prepare=lambda p, where: centre_crop(p, size, where),
            per_class=per_class,
            seed=seed,
        )


def _splits(
    about: About,
    source: ImageSource,
    parts: Mapping[str, Sequence[Member]],
    mode: Mode,
    size: int,
    *,
    rule: str,
    per_class: int | None,
    seed: int,
    prepare: Callable[[Pixels, str], Pixels] | None = None,
) -> Splits:
    """Decode the members of each split; a grey picture is repeated for each of the bands."""
    chips: dict[str, Chips] = {}
    for split in SPLITS:
        members = sorted(_drawn(parts[split], per_class, seed, split))
        names = [m for m, _ in members]
        images = torch.from_numpy(decode_images(source, names, mode, (size, size), prepare))
        chips[split] = about.chips(
            split,
            images if mode == "RGB" else images.repeat(1, len(about.bands), 1, 1),
            torch.tensor([label for _, label in members], dtype=torch.long),
            names,
        )
    if per_class is not None:
        rule += f"; at most {per_class} of each class in each split, drawn by seed {seed}"
    return Splits(chips["train"], chips["validation"], chips["test"], rule)


def _drawn(members: Sequence[Member], per_class: int | None, seed: int, split: str) -> list[Member]:
    if per_class is None:
        return list(members)
    if per_class < 1:
        raise DataError(f"per_class is {per_class}; expected at least 1 chip of each class")
    rng = np.random.default_rng(purpose_seed(seed, f"per class {split}", per_class))
    picked: list[Member] = []
    for label in sorted({label for _, label in members}):
        same = sorted(m for m in members if m[1] == label)
        picked += [same[i] for i in rng.permutation(len(same))[:per_class]]
    return picked


def _wanted(classes: Sequence[str] | None) -> tuple[str, ...]:
    wanted = EUROSAT_CLASSES if classes is None else tuple(classes)
    unknown = [c for c in wanted if c not in EUROSAT_CLASSES]
    if unknown or len(set(wanted)) < len(wanted) or len(wanted) < 2:
        raise DataError(f"classes {list(wanted)}; expected two or more different ones; {known(EUROSAT_CLASSES)}")
    return wanted


def _by_folder(source: ImageSource, pattern: str) -> dict[str, list[str]]:
    """Class -> members in the order of their numbers, for members whose names match ``(class) ... (number)``."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for name in source.names:
        match = re.fullmatch(pattern, name)
        if match is None:
            raise DataError(f"{source.path}: unexpected member {name!r}; expected names like {pattern}")
        groups.setdefault(match[1], []).append((int(match[2]), name))
    return {c: [name for _, name in sorted(groups[c])] for c in sorted(groups)}


def _unpacked(folder: Path, name: str) -> Path:
    if not (folder / name).is_dir():
        raise DataError(f"{folder}: neither EuroSAT.zip nor the unpacked folder {name}; put one of them there")
    return folder


def _area(pixels: Pixels, size: int) -> Pixels:
    """``(c, h, w)`` averaged over areas to ``size`` x ``size``, rounded."""
    return F.adaptive_avg_pool2d(torch.from_numpy(pixels.copy()).float()[None], size)[0].round().byte().numpy()
