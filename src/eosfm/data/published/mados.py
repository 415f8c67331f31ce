"""MADOS: marine debris and oil spills in Sentinel-2 (Kikaki et al. 2024, doi:10.1016/j.isprsjprs.2024.02.017), its own layout."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About, Field
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import (
    listed,
    raster_size,
    read_tif,
    relabel,
    shared_groups,
    streamed,
)
from eosfm.tasks.kinds import IGNORE

CLASSES = (
    "marine debris",
    "dense Sargassum",
    "sparse floating algae",
    "natural organic material",
    "ship",
    "oil spill",
    "marine water",
    "sediment-laden water",
    "foam",
    "turbid water",
    "shallow water",
    "waves and wakes",
    "oil platform",
    "jellyfish",
    "sea snot",
)
"""label values 1 to 15 in order; 0 is not annotated"""
_LAYOUT = LAYOUTS["mados"]
_ABOUT = About(
    "MADOS",
    BandSet.parse("sentinel-2-l2a:B01,B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@reflectance"),
    "segmentation",
    CLASSES,
    "CC-BY-4.0",
    "MADOS (Kikaki et al. 2024, doi:10.5281/zenodo.10664073), Sentinel-2 chips of 240 x 240 pixels of 10 m, 2015 to 2022, "
    "corrected by ACOLITE for Rayleigh scattering and gases, not for aerosol. Contains modified Copernicus Sentinel data.",
)
_NM: dict[str, tuple[int, tuple[int, ...]]] = {
    "B01": (60, (442, 443)),
    "B02": (10, (492,)),
    "B03": (10, (559, 560)),
    "B04": (10, (665,)),
    "B05": (20, (704,)),
    "B06": (20, (739, 740)),
    "B07": (20, (780, 783)),
    "B08": (10, (833,)),
    "B8A": (20, (864, 865)),
    "B11": (20, (1610, 1614)),
    "B12": (20, (2186, 2202)),
}
"""band -> pixel in metres, which is its folder, and its wavelengths on Sentinel-2B and 2A, which are in the file names"""
_VALUES = {0: IGNORE, **{v: v - 1 for v in range(1, len(CLASSES) + 1)}}
_LINE = re.compile(r"(Scene_\d+)_(\d+)")


@dataclass(frozen=True)
class _Read:
    root: Path
    size: tuple[int, int]

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        x = np.stack([_band(self.root, key, b, self.size) for b in _ABOUT.bands.names])
        path = _label(self.root, key)
        y = relabel(read_tif(path, 1, size=self.size)[0], _VALUES, str(path))
        return torch.from_numpy(x), torch.from_numpy(y)


def mados(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """Things on the sea: 11 bands of Sentinel-2 as reflectance, float32 ``(11, 240, 240)``; labels ``(240, 240)``.

    Annotations are sparse: label 0 is ignored. Bands are found by the wavelength in their file names, which differs between
    Sentinel-2A and 2B, and those of 20 and 60 m are repeated (nearest, as in PANGAEA). NaN stays NaN. Declared as L2A, the
    nearest product: ACOLITE's "rhorc" still holds the aerosol's reflectance, which L2A does not.

    Splits are the published lists, by chip; the rule says how many scenes have chips in more than one of them.

    Args:
        root: holds ``splits`` and the folders ``Scene_<n>``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.

    Raises:
        DataError: missing files, a list with other names, bands whose size is no part of the label's, chips of different
            size, or (when it is read) a label above 15.
        RasterError: a damaged file.
    """
    lists = {"train": "splits/train_X.txt", "validation": "splits/val_X.txt", "test": "splits/test_X.txt"}
    root = _LAYOUT.folder(root, *lists.values())
    parts = {split: listed(root / path) for split, path in lists.items()}
    for split, path in lists.items():
        if bad := [c for c in parts[split] if not _LINE.fullmatch(c)]:
            raise DataError(f"{root / path}: line {bad[0]!r}; expected Scene_0_12, a scene and its crop")
    chips = [c for names in parts.values() for c in names]
    _LAYOUT.require(_label(root, c) for c in chips)
    for chip in chips:
        for band in _ABOUT.bands.names:
            _file(root, chip, band)
    size = raster_size(_label(root, chips[0]))
    rule = "the published lists, by chip" + shared_groups(parts, lambda c: _scene(c)[0], "scenes")
    return streamed(_ABOUT, parts, _Read(root, size), size, rule, limit=limit, seed=seed)


def _scene(chip: str) -> tuple[str, str]:
    scene, _, crop = chip.rpartition("_")
    return scene, crop


def _label(root: Path, chip: str) -> Path:
    scene, crop = _scene(chip)
    return root / scene / "10" / f"{scene}_L2R_cl_{crop}.tif"


def _file(root: Path, chip: str, band: str) -> Path:
    """The file of ``band``, whichever of the two satellites it is of.

    Raises:
        DataError: none, or one of each satellite.
    """
    scene, crop = _scene(chip)
    metres, wavelengths = _NM[band]
    folder = root / scene / str(metres)
    found = [f for nm in wavelengths if (f := folder / f"{scene}_L2R_rhorc_{nm}_{crop}.tif").is_file()]
    if len(found) != 1:
        names = " or ".join(f"{scene}_L2R_rhorc_{nm}_{crop}.tif" for nm in wavelengths)
        raise DataError(
            f"MADOS: {len(found)} files of {band} in {folder}; expected one, {names}. {_LAYOUT.where_to_get()}"
        )
    return found[0]


def _band(root: Path, chip: str, band: str, size: tuple[int, int]) -> Field:
    path = _file(root, chip, band)
    n = _NM[band][0] // 10
    if size[0] % n or size[1] % n:
        raise DataError(f"{path}: the label has {size} pixels of 10 m, which are no whole pixels of {10 * n} m")
    values = read_tif(path, 1, size=(size[0] // n, size[1] // n))[0].astype(np.float32)
    return np.repeat(np.repeat(values, n, axis=0), n, axis=1)
