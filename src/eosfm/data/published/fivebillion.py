"""Five-Billion-Pixels: land cover of China in Gaofen-2 (Tong et al. 2023), in tiles, as PANGAEA lays it out."""

from __future__ import annotations

import re
from pathlib import Path

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About
from eosfm.data.published.aerial_files import Scene, TileReader, scene_keys
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import kept_apart, streamed
from eosfm.tasks.kinds import IGNORE

CLASSES = (
    "industrial area",
    "paddy field",
    "irrigated field",
    "dry cropland",
    "garden land",
    "arbor forest",
    "shrub forest",
    "park",
    "natural meadow",
    "artificial meadow",
    "river",
    "urban residential",
    "lake",
    "pond",
    "fish pond",
    "snow",
    "bare land",
    "rural residential",
    "stadium",
    "square",
    "road",
    "overpass",
    "railway station",
    "airport",
)
"""label values 1 to 24 in order; 0 is not labelled"""
_LAYOUT = LAYOUTS["fivebillionpixels"]
_STORED = ("nir", "red", "green", "blue")
_ABOUT = About(
    "Five-Billion-Pixels",
    BandSet.parse("gaofen-2:nir,red,green,blue@8bit"),
    "segmentation",
    CLASSES,
    "research-only",
    "Five-Billion-Pixels (Tong et al. 2023, doi:10.1016/j.isprsjprs.2022.12.011), 150 Gaofen-2 scenes of 6800 x 7200 pixels "
    "of 4 m, stretched to 8 bit by its authors",
)
_VALUES = ((0, IGNORE), *((v, v - 1) for v in range(1, len(CLASSES) + 1)))
_SCENE = re.compile(r"GF2_PMS\d_+L1A\d+-MSS\d")


def fivebillionpixels(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Land cover: near infrared, red, green, blue of Gaofen-2 as 8 bit, float32 ``(4, tile, tile)``; labels of 24 classes.

    Label 0 is ignored (PANGAEA counts 25 classes and ignores one of them). The pictures are the 8-bit ones, whose bands
    are near infrared first (the 16-bit ones, blue first, are refused).

    Splits are the three folders; the tiles of a scene that is in several of them are left out of the earlier ones. The
    scene is known by the original file name (GF2_PMS1__L1A0000564539-MSS1); a file of another name is a scene of its own.

    Args:
        root: holds ``train``, ``val`` and ``test``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips in pixels; PANGAEA's is 520, which is no multiple of the encoder's stride.

    Raises:
        DataError: missing files, pictures that are not 8 bit or without a label, or (when it is read) a label above 24.
        RasterError: a damaged file.
    """
    folders = {"train": "train", "validation": "val", "test": "test"}
    root = _LAYOUT.folder(root, *(f"{f}/{kind}" for f in folders.values() for kind in ("imgs", "labels")))
    found = {split: _pairs(root, folder) for split, folder in folders.items()}
    parts, lost = kept_apart({s: sorted(p) for s, p in found.items()}, _scene, "scene", "Five-Billion-Pixels")
    keys = {}
    for split, names in parts.items():
        scenes = [Scene((name,), found[split][name], _scene(name)) for name in names]
        keys[split] = scene_keys(root, scenes, tile, "Five-Billion-Pixels")
    read = TileReader(root, _STORED, _ABOUT.bands.names, values=_VALUES)
    return streamed(_ABOUT, keys, read, (tile, tile), f"folders train, val, test{lost}", limit=limit, seed=seed)


def _pairs(root: Path, folder: str) -> dict[str, str]:
    """Picture -> label, by name."""
    labels = {p.stem.removesuffix("_24label"): p for p in (root / folder / "labels").glob("*.tif")}
    pictures = sorted((root / folder / "imgs").glob("*.tif"))
    if not pictures:
        raise DataError(f"Five-Billion-Pixels: no *.tif in {root / folder / 'imgs'}. {_LAYOUT.where_to_get()}")
    if lost := [p for p in pictures if p.stem not in labels]:
        raise DataError(
            f"{lost[0]}: no label; expected {folder}/labels/{lost[0].stem}.tif or {lost[0].stem}_24label.tif"
        )
    return {p.relative_to(root).as_posix(): labels[p.stem].relative_to(root).as_posix() for p in pictures}


def _scene(name: str) -> str:
    stem = Path(name).stem
    match = _SCENE.match(stem)
    return match[0] if match else stem
