"""Inria buildings, ISPRS Potsdam, MiniFrance and LandCover.ai: large aerial GeoTIFFs, cut into tiles, split by place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About
from eosfm.data.published.aerial_files import Scene, TileReader, scene_keys
from eosfm.data.published.satellite_files import Layout, held_out, streamed
from eosfm.tasks.kinds import IGNORE

_RGB = ("R", "G", "B")


def _made(
    about: About, layout: Layout, root: Path, parts: Mapping[str, Sequence[Scene]], reader: TileReader, rule: str, tile: int,
    limit: int | None, seed: int,
) -> Splits:  # fmt: skip
    layout.require([root / f for some in parts.values() for s in some for f in (*s.images, s.label)])
    keys = {part: scene_keys(root, some, tile, about.title) for part, some in parts.items()}
    return streamed(about, keys, reader, (tile, tile), rule, limit=limit, seed=seed)


_INRIA = About(
    "Inria buildings",
    BandSet.parse("aerial:R,G,B@8bit"),
    "segmentation",
    ("not building", "building"),
    "not stated (open access, Inria 2017)",
    "Inria Aerial Image Labeling (Maggiori et al. 2017, doi:10.1109/IGARSS.2017.8127684), 180 labelled pictures of 5000 x 5000 "
    "pixels of 0.3 m, five cities",
)
_INRIA_LAYOUT = Layout(
    "Inria",
    "AerialImageDataset/train/{images,gt}/<city><number>.tif",
    "NEW2-AerialImageDataset.zip (21 GB) from https://project.inria.fr/aerialimagelabeling",
    "inria",
)
_NUMBERED = re.compile(r"([A-Za-z-]+)(\d+)\.tif")


def inria(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Buildings at 0.3 m: uint8 red, green, blue ``(3, tile, tile)``; stored labels 0 and 255.

    The data set's test cities have no labels. Its own convention keeps the first five pictures of each city from training:
    they test; pictures 6 to 8 of each city validate.

    Raises:
        DataError: missing files, another file name, other sizes, or label values other than 0 and 255.
    """
    root = _INRIA_LAYOUT.folder(root, "AerialImageDataset/train/images", "AerialImageDataset/train/gt")
    parts: dict[str, list[Scene]] = {"train": [], "validation": [], "test": []}
    for path in sorted((root / "AerialImageDataset/train/images").glob("*.tif")):
        if not (m := _NUMBERED.fullmatch(path.name)):
            raise DataError(f"{path}: expected <city><number>.tif, for example austin1.tif")
        number = int(m[2])
        part = "test" if number <= 5 else "validation" if number <= 8 else "train"
        at = "AerialImageDataset/train"
        parts[part].append(Scene((f"{at}/images/{path.name}",), f"{at}/gt/{path.name}", path.stem))
    reader = TileReader(root, _RGB, _RGB, ((0, 0), (255, 1)))
    rule = "by picture: numbers 1 to 5 of each city test (the data set's convention), 6 to 8 validate"
    return _made(_INRIA, _INRIA_LAYOUT, root, parts, reader, rule, tile, limit, seed)


_ROWS = {2: range(10, 13), 3: range(10, 13), 4: range(10, 13), 5: range(10, 13), 6: range(7, 13), 7: range(7, 13)}
POTSDAM_TRAIN = tuple(f"{row}_{column}" for row, columns in _ROWS.items() for column in columns)
POTSDAM_TEST = (
    "2_13",
    "2_14",
    "3_13",
    "3_14",
    "4_13",
    "4_14",
    "4_15",
    "5_13",
    "5_14",
    "5_15",
    "6_13",
    "6_14",
    "6_15",
    "7_13",
)
"""the ISPRS lists of 24 and 14 tiles"""
POTSDAM_COLOURS = {
    (255, 0, 0): 0, (255, 255, 255): 1, (0, 0, 255): 2, (0, 255, 255): 3, (0, 255, 0): 4, (255, 255, 0): 5,
}  # fmt: skip
_POTSDAM = About(
    "Potsdam",
    BandSet.parse("aerial:N,R,G@8bit"),
    "segmentation",
    ("clutter", "impervious surfaces", "building", "low vegetation", "tree", "car"),
    "ISPRS terms: research, non-commercial",
    "ISPRS 2D semantic labelling, Potsdam (Rottensteiner et al. 2012, doi:10.5194/isprsannals-I-3-293-2012), 38 tiles of "
    "6000 x 6000 pixels of 0.05 m",
)
_POTSDAM_LAYOUT = Layout(
    "Potsdam",
    "4_Ortho_RGBIR/top_potsdam_<tile>_RGBIR.tif and top_potsdam_<tile>_label.tif",
    "4_Ortho_RGBIR.zip and 5_Labels_all.zip (12 GB) from https://www.isprs.org/resources/datasets/benchmarks/UrbanSemLab",
    "potsdam",
)


def potsdam(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Six classes at 5 cm in near infrared, red, green (files: red, green, blue, near infrared); labels by colour.

    The 24 and 14 tiles of the ISPRS lists (TorchGeo's `Potsdam2D`) for training and testing; a fifth of the training tiles,
    drawn by ``seed``, validates. Tiles that are not there are an error, not a smaller data set.

    Label channels are cut at 128: two published training labels are not pure (reported by their users, not seen here: 4_12
    is a lossy copy, 6_7 has cars of (252, 255, 0)), and TorchGeo turns every other colour into class 0, clutter, without a
    word. Black and magenta, which are no class, are errors.

    Raises:
        DataError: missing files, other sizes, or a colour of no class.
    """
    root = _POTSDAM_LAYOUT.folder(root, "4_Ortho_RGBIR")
    out = held_out(POTSDAM_TRAIN, 0.2, seed, "Potsdam")
    names = {"train": [n for n in POTSDAM_TRAIN if n not in out], "validation": sorted(out), "test": POTSDAM_TEST}
    parts = {
        part: [Scene((f"4_Ortho_RGBIR/top_potsdam_{n}_RGBIR.tif",), f"top_potsdam_{n}_label.tif", n) for n in some]
        for part, some in names.items()
    }
    reader = TileReader(
        root, ("R", "G", "B", "N"), _POTSDAM.bands.names, colours=tuple(POTSDAM_COLOURS.items()), binarize=True
    )
    rule = f"ISPRS lists by tile; tiles {', '.join(sorted(out))} validate (seed {seed})"
    return _made(_POTSDAM, _POTSDAM_LAYOUT, root, parts, reader, rule, tile, limit, seed)


_MINIFRANCE = About(
    "MiniFrance",
    BandSet.parse("aerial:R,G,B@8bit"),
    "segmentation",
    ("urban fabric", "industrial, commercial, public, military, private and transport", "mine, dump and construction",
     "artificial non-agricultural vegetation", "arable land", "permanent crops", "pastures", "mixed cultivation",
     "orchards at the fringe of urban", "forests", "herbaceous vegetation", "open spaces", "wetlands", "water"),
    "etalab-2.0",
    "MiniFrance (Castillo-Navarro et al. 2022, doi:10.1007/s10994-020-05943-y), BD ORTHO of 0.5 m, labels of Urban Atlas 2012, "
    "in the layout of the Data Fusion Contest 2022",
)  # fmt: skip
_MINIFRANCE_LAYOUT = Layout(
    "MiniFrance",
    "labeled_train/<region>/BDORTHO/<name>.tif and labeled_train/<region>/UrbanAtlas/<name>_UA2012.tif",
    "labeled_train.zip (about 30 GB) from https://ieee-dataport.org/competitions/data-fusion-contest-2022-dfc2022",
    "minifrance",
)
_LAMBERT = re.compile(r".*?-(\d{4})-(\d{4})-LA93-.*")
_BLOCK_KM = 5


def minifrance(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Land use of French regions at 0.5 m: uint8 red, green, blue ``(3, tile, tile)``; 14 classes of Urban Atlas.

    Stored labels 1 to 14 are the classes; 0 (no information) and 15 (clouds and shadows) are ignored. One whole region, the
    last by name, tests. In the others, blocks of 5 km validate: a file's name holds its place in kilometres of Lambert 93,
    so that no picture beside a training picture is scored except along the edges of blocks.

    Raises:
        DataError: missing files, fewer than two regions, a name without a place, other sizes or labels above 15.
    """
    root = _MINIFRANCE_LAYOUT.folder(root, "labeled_train")
    regions = sorted(p.name for p in (root / "labeled_train").iterdir() if (p / "BDORTHO").is_dir())
    if len(regions) < 2:
        raise DataError(
            f"MiniFrance: regions {regions} in {root / 'labeled_train'}; two or more are needed, one of them to test on"
        )
    scenes = {r: _region(root, r) for r in regions}
    blocks = {s.place for r in regions[:-1] for s in scenes[r]}
    out = held_out(blocks, 0.15, seed, "MiniFrance")
    rest = [s for r in regions[:-1] for s in scenes[r]]
    parts = {
        "train": [s for s in rest if s.place not in out],
        "validation": [s for s in rest if s.place in out],
        "test": scenes[regions[-1]],
    }
    values = ((0, IGNORE), (15, IGNORE), *((i + 1, i) for i in range(14)))
    rule = f"region {regions[-1]} tests; blocks of {_BLOCK_KM} km in the others validate (15 %, seed {seed})"
    return _made(
        _MINIFRANCE, _MINIFRANCE_LAYOUT, root, parts, TileReader(root, _RGB, _RGB, values), rule, tile, limit, seed
    )


def _region(root: Path, region: str) -> list[Scene]:
    out = []
    for path in sorted((root / "labeled_train" / region / "BDORTHO").glob("*.tif")):
        if not (m := _LAMBERT.fullmatch(path.name)):
            raise DataError(
                f"{path}: expected a name like 06-2014-1015-6305-LA93-0M50-E080.tif, with its place in kilometres"
            )
        east, north = int(m[1]) // _BLOCK_KM, int(m[2]) // _BLOCK_KM
        label = f"labeled_train/{region}/UrbanAtlas/{path.stem}_UA2012.tif"
        out.append(Scene((f"labeled_train/{region}/BDORTHO/{path.name}",), label, f"{region} {east} {north}"))
    if not out:
        raise DataError(f"{root / 'labeled_train' / region / 'BDORTHO'}: no *.tif files")
    return out


_LANDCOVERAI = About(
    "LandCover.ai",
    BandSet.parse("aerial:R,G,B@8bit"),
    "segmentation",
    ("background", "building", "woodland", "water", "road"),
    "CC-BY-NC-SA-4.0",
    "LandCover.ai v1 (Boguszewski et al. 2021, arXiv:2005.02264), 41 Polish orthophotos of 0.25 and 0.5 m",
)
_LANDCOVERAI_LAYOUT = Layout(
    "LandCover.ai",
    "images/<orthophoto>.tif and masks/<orthophoto>.tif",
    "landcover.ai.v1.zip (1.5 GB) from https://landcover.ai.linuxpolska.com",
    "landcoverai",
)


def landcoverai(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Five classes on Polish orthophotos: uint8 red, green, blue ``(3, tile, tile)``; stored labels 0 to 4.

    The published lists (and TorchGeo's) draw chips of the same orthophotos into training and test, so that neighbours are
    in both; here whole orthophotos are held out, 15 % for testing (the same ones for every seed, so that runs compare) and
    15 % for validation, drawn by ``seed``.

    Raises:
        DataError: missing files, other sizes, or label values above 4.
    """
    root = _LANDCOVERAI_LAYOUT.folder(root, "images", "masks")
    names = sorted(p.name for p in (root / "images").glob("*.tif"))
    test = held_out(names, 0.15, 0, "LandCover.ai")
    check = held_out([n for n in names if n not in test], 0.15 / 0.85, seed + 1, "LandCover.ai")
    part_of = {n: "test" if n in test else "validation" if n in check else "train" for n in names}
    parts = {
        p: [Scene((f"images/{n}",), f"masks/{n}", n) for n in names if part_of[n] == p]
        for p in ("train", "validation", "test")
    }
    reader = TileReader(root, _RGB, _RGB, tuple((i, i) for i in range(5)))
    rule = (
        f"by orthophoto: 15 % test (always the same), 15 % validate (seed {seed}); the published lists mix chips of one"
    )
    return _made(_LANDCOVERAI, _LANDCOVERAI_LAYOUT, root, parts, reader, rule, tile, limit, seed)
