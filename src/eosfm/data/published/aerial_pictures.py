"""DeepGlobe land cover, LoveDA and LEVIR-CD+ (PNG and JPEG with label pictures), and FireRisk (folders by class)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About
from eosfm.data.published.aerial_files import Scene, TileReader, last_share, picture_size, read_pixels, scene_keys
from eosfm.data.published.satellite_files import Layout, held_out, streamed
from eosfm.tasks.kinds import IGNORE

_RGB = ("R", "G", "B")
_SHARE = 0.15

DEEPGLOBE_COLOURS = {
    (0, 255, 255): 0, (255, 255, 0): 1, (255, 0, 255): 2, (0, 255, 0): 3, (0, 0, 255): 4, (255, 255, 255): 5,
    (0, 0, 0): IGNORE,
}  # fmt: skip
"""black is "unknown": clouds and others, left out of learning and scoring"""
_DEEPGLOBE = About(
    "DeepGlobe land cover",
    BandSet.parse("rgb:R,G,B@8bit"),
    "segmentation",
    ("urban", "agriculture", "rangeland", "forest", "water", "barren"),
    "DeepGlobe terms: non-commercial research and education",
    "DeepGlobe 2018 (Demir et al., arXiv:1805.06561), 2448 x 2448 pixels of 0.5 m satellite imagery as JPEG",
)
_DEEPGLOBE_LAYOUT = Layout(
    "DeepGlobe land cover",
    "data/{training_data,test_data}/images/<id>_sat.jpg and data/{training_data,test_data}/masks/<id>_mask.png",
    "803 labelled pictures (2.8 GB), the split of TU Delft that TorchGeo reads: kaggle datasets download -d "
    "geoap96/deepglobe2018-landcover-segmentation-traindataset",
    "deepglobe-lcc",
)


def deepglobe_lcc(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Land cover of 0.5 m satellite pictures: uint8 red, green, blue ``(3, tile, tile)``; labels ``(tile, tile)``.

    The published training and test lists of the labelled pictures (TorchGeo's `DeepGlobeLandCover`); a share of the
    training pictures, drawn by ``seed``, is held out for validation. Where a picture lies is not published, so that
    neighbours may be in two splits: said in the rule.

    Label channels are cut at 128, as the data set's notes ask ("may not be pure 0 and 255"); TorchGeo turns every other
    colour into class 0, urban, without a word. A colour that is no class after the cut, (255, 0, 0), is an error.

    Raises:
        DataError: missing files, other sizes, or a colour of no class.
    """
    root = _DEEPGLOBE_LAYOUT.folder(root, "data/training_data/images", "data/test_data/images")
    scenes = {part: _pairs(root, f"data/{part}_data", "_sat.jpg", "_mask.png") for part in ("training", "test")}
    out = held_out([s.place for s in scenes["training"]], _SHARE, seed, "DeepGlobe")
    parts = {
        "train": [s for s in scenes["training"] if s.place not in out],
        "validation": [s for s in scenes["training"] if s.place in out],
        "test": scenes["test"],
    }
    keys = {p: scene_keys(root, some, tile, "DeepGlobe") for p, some in parts.items()}
    rule = f"published lists by picture; {_SHARE:.0%} of the training pictures validate (seed {seed}); places are not published"
    reader = TileReader(root, _RGB, _RGB, colours=tuple(DEEPGLOBE_COLOURS.items()), binarize=True)
    return streamed(_DEEPGLOBE, keys, reader, (tile, tile), rule, limit=limit, seed=seed)


def _pairs(root: Path, folder: str, ending: str, label: str) -> list[Scene]:
    names = sorted(p.name.removesuffix(ending) for p in (root / folder / "images").glob(f"*{ending}"))
    if not names:
        raise DataError(f"{root / folder / 'images'}: no *{ending} files")
    scenes = [Scene((f"{folder}/images/{n}{ending}",), f"{folder}/masks/{n}{label}", n) for n in names]
    _DEEPGLOBE_LAYOUT.require([root / s.label for s in scenes])
    return scenes


_LOVEDA = About(
    "LoveDA",
    BandSet.parse("rgb:R,G,B@8bit"),
    "segmentation",
    ("background", "building", "road", "water", "barren", "forest", "agriculture"),
    "CC-BY-NC-SA-4.0",
    "LoveDA (Wang et al. 2021, arXiv:2110.08733), 1024 x 1024 pixels of 0.3 m from Google Earth, three Chinese cities",
)
_LOVEDA_LAYOUT = Layout(
    "LoveDA",
    "{Train,Val}/{Urban,Rural}/{images_png,masks_png}/<number>.png",
    "Train.zip and Val.zip (9 GB) from https://zenodo.org/records/5706578",
    "loveda",
)


def loveda(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Urban and rural land cover at 0.3 m: uint8 red, green, blue; stored label 0 has no data, 1 to 7 are the classes.

    The published test split has no labels, so its validation split tests. Validation is the last share, by number, of the
    training pictures of each kind: neighbours have neighbouring numbers (inferred), so that a cut parts few of them.

    Raises:
        DataError: missing files, other sizes, or label values above 7.
    """
    root = _LOVEDA_LAYOUT.folder(root, "Train/Urban", "Train/Rural", "Val/Urban", "Val/Rural")
    parts: dict[str, list[Scene]] = {"train": [], "validation": [], "test": []}
    for kind in ("Urban", "Rural"):
        first, last = last_share(_numbered(root / f"Train/{kind}/images_png"), _SHARE)
        for part, names, folder in (
            ("train", first, "Train"), ("validation", last, "Train"),
            ("test", _numbered(root / f"Val/{kind}/images_png"), "Val"),
        ):  # fmt: skip
            at = f"{folder}/{kind}"
            parts[part] += [Scene((f"{at}/images_png/{n}",), f"{at}/masks_png/{n}", f"{at}/{n}") for n in names]
    _LOVEDA_LAYOUT.require([root / s.label for some in parts.values() for s in some])
    keys = {p: scene_keys(root, some, tile, "LoveDA") for p, some in parts.items()}
    rule = f"the last {_SHARE:.0%} of its training pictures by number validate; its validation pictures test"
    values = ((0, IGNORE), *((i + 1, i) for i in range(7)))
    return streamed(_LOVEDA, keys, TileReader(root, _RGB, _RGB, values), (tile, tile), rule, limit=limit, seed=seed)


def _numbered(folder: Path) -> list[str]:
    names = [p.name for p in folder.glob("*.png")] if folder.is_dir() else []
    if not names:
        raise DataError(f"{folder}: no *.png files")
    return sorted(names, key=lambda n: (int("".join(c for c in n if c.isdigit()) or 0), n))


_LEVIR = About(
    "LEVIR-CD+",
    BandSet.parse("rgb:R,G,B@8bit"),
    "segmentation",
    ("no change", "change"),
    "LEVIR-CD+ terms: academic use, non-commercial",
    "LEVIR-CD+ (Chen and Shi 2020, doi:10.3390/rs12101662; Shen et al. 2021, arXiv:2107.09244), pairs of 1024 x 1024 pixels of "
    "0.5 m from Google Earth, 20 regions of Texas, 2002 to 2020",
)
_LEVIR_LAYOUT = Layout(
    "LEVIR-CD+",
    "LEVIR-CD+/{train,test}/{A,B,label}/<name>.png",
    "LEVIR-CD+.zip (3.6 GB), by torchgeo.datasets.LEVIRCDPlus(root, download=True)",
    "levircd+",
)


def levircd_plus(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 256) -> Splits:
    """New and lost buildings between two dates: ``(6, tile, tile)``, the first date's and then the second's colours.

    Labels: stored 0 and 255 are no change and change. Published training and test lists; the last share by number of the
    training pairs is held out for validation.

    Raises:
        DataError: missing files, pairs of different sizes, or other label values.
    """
    root = _LEVIR_LAYOUT.folder(root, "LEVIR-CD+/train/A", "LEVIR-CD+/test/A")
    first, last = last_share(_numbered(root / "LEVIR-CD+/train/A"), _SHARE)
    named = {
        "train": ("train", first),
        "validation": ("train", last),
        "test": ("test", _numbered(root / "LEVIR-CD+/test/A")),
    }
    parts = {
        part: [Scene(tuple(f"LEVIR-CD+/{at}/{d}/{n}" for d in "AB"), f"LEVIR-CD+/{at}/label/{n}", n) for n in names]
        for part, (at, names) in named.items()
    }
    _LEVIR_LAYOUT.require([root / f for some in parts.values() for s in some for f in (*s.images, s.label)])
    keys = {p: scene_keys(root, some, tile, "LEVIR-CD+") for p, some in parts.items()}
    rule = f"published lists by pair; the last {_SHARE:.0%} of the training pairs by number validate"
    reader = TileReader(root, _RGB, _RGB, ((0, 0), (1, 1), (255, 1)))
    return streamed(_LEVIR, keys, reader, (tile, tile), rule, limit=limit, seed=seed, dates=2)


FIRERISK = ("High", "Low", "Moderate", "Non-burnable", "Very_High", "Very_Low", "Water")
"""the seven folders, in TorchGeo's order (the published code trained ten outputs)"""
_FIRERISK = About(
    "FireRisk",
    BandSet.parse("naip:R,G,B@8bit"),
    "classification",
    tuple(c.lower().replace("_", " ") for c in FIRERISK),
    "CC-BY-NC-4.0",
    "FireRisk (Shen et al. 2023, arXiv:2303.07035), NAIP pictures of 1 m as PNG, labels of the USDA Forest Service",
)
_FIRERISK_LAYOUT = Layout(
    "FireRisk",
    f"FireRisk/{{train,val}}/{{{','.join(FIRERISK)}}}/<number>_<code>_<longitude>_<latitude>.png",
    "91,872 pictures (14 GB): FireRisk.zip from https://hf.co/datasets/isaaccorley/fire_risk",
    "firerisk",
)


@dataclass(frozen=True)
class _Picture:
    root: Path
    size: tuple[int, int]

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        path = self.root / key
        if (size := picture_size(path)) != self.size:
            raise DataError(f"{path}: {size[0]} x {size[1]} pixels; the others have {self.size[0]} x {self.size[1]}")
        x = read_pixels(path, 3, (0, 0, *self.size))
        return torch.from_numpy(np.ascontiguousarray(x)), torch.tensor(FIRERISK.index(path.parent.name))


def firerisk(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """Fire risk in seven classes from 1 m aerial pictures: uint8 red, green, blue ``(3, h, w)``; one label each.

    The published validation split tests. File names hold longitude and latitude, so that whole squares of one degree are
    held out for validation: a tenth of those of the training split, drawn by ``seed``. Nothing says that
    the published split is by place: the rule counts the test pictures in a square that is trained on.

    Raises:
        DataError: missing classes, a name without a place, pictures of different sizes.
    """
    root = _FIRERISK_LAYOUT.folder(root, *(f"FireRisk/{part}/{c}" for part in ("train", "val") for c in FIRERISK))
    train, test = ([f"FireRisk/{part}/{c}/{f.name}" for c in FIRERISK
                    for f in sorted((root / f"FireRisk/{part}/{c}").glob("*.png"))] for part in ("train", "val"))  # fmt: skip
    out = held_out(map(_square, train), 0.1, seed, "FireRisk")
    parts = {
        "train": [k for k in train if _square(k) not in out],
        "validation": [k for k in train if _square(k) in out],
        "test": test,
    }
    known = {_square(k) for k in parts["train"]}
    near = sum(_square(k) in known for k in test)
    size = picture_size(root / parts["train"][0])
    rule = (
        f"{len(out)} squares of one degree of its training pictures validate (seed {seed}); its validation split tests, "
        f"{near} of {len(test)} pictures of it in a square that is trained on"
    )
    return streamed(_FIRERISK, parts, _Picture(root, size), size, rule, limit=limit, seed=seed)


_PLACED = re.compile(r"\d+_\d+_(-?\d+(?:\.\d+)?)_(-?\d+(?:\.\d+)?)\.png")


def _square(key: str) -> str:
    """The degree of longitude and latitude that a picture lies in."""
    if not (m := _PLACED.fullmatch(key.rpartition("/")[2])):
        raise DataError(
            f"{key}: expected a name like 27032281_4_-103.430441_44.280426.png, with longitude and latitude"
        )
    return f"{math.floor(float(m[1]))} {math.floor(float(m[2]))}"
