"""BioMassters: forest biomass of Finland from a year of Sentinel-1 and Sentinel-2 (Nascetti et al. 2023), in its own layout."""

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
from eosfm.data.folders import About, Field, read_rows
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import raster_size, read_tif, streamed, zeros_to_nan
from eosfm.data.published.series_files import require_dates

MONTHS = 12
"""00 is September"""
_LAYOUT = LAYOUTS["biomassters"]
_ABOUT = About(
    "BioMassters",
    BandSet.parse("sentinel-2-l2a:B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@dn-1e4 + sentinel-1:VV,VH@db"),
    "regression",
    ("biomass above ground in tonnes a hectare",),
    "CC-BY-4.0",
    "BioMassters (Nascetti et al. 2023), chips of 256 x 256 pixels of 10 m in Finland, 2016 to 2021, biomass from lidar. "
    "Contains modified Copernicus Sentinel data.",
)
_CHIP = re.compile(r"[0-9a-z]+")
_NODATA = -9999.0


@dataclass(frozen=True)
class _Read:
    root: Path
    size: tuple[int, int]
    months: tuple[int, ...]

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        folder, chip = key.split("/")
        pictures = []
        for month in self.months:
            optical = self._picture(folder, chip, "S2", month, 11)
            radar = self._picture(folder, chip, "S1", month, 4)
            radar = np.where(radar == _NODATA, np.nan, radar)
            pictures += [zeros_to_nan(optical[:10]), radar[:2]]
        label = _label(self.root, folder, chip)
        y = read_tif(label, 1, size=self.size)[0].astype(np.float32)
        return torch.from_numpy(np.concatenate(pictures)), torch.from_numpy(y)

    def _picture(self, folder: str, chip: str, sensor: str, month: int, count: int) -> Field:
        """Every month is a file, but for some of Sentinel-2, which the publishers could not fill."""
        path = self.root / f"{folder}_features" / f"{chip}_{sensor}_{month:02d}.tif"
        if not path.is_file():
            return np.full((count, *self.size), np.nan, np.float32)
        return read_tif(path, count, size=self.size).astype(np.float32)


def biomassters(root: Path, *, seed: int = 0, limit: int | None = None, dates: int = MONTHS) -> Splits:
    """Biomass in t/ha from a year: 10 bands of Sentinel-2 L2A x 10000, then VV and VH in dB, month by month.

    Images are float32 ``(dates * 12, 256, 256)``, labels float32 ``(256, 256)``. A missing month is NaN, and so is -9999 in
    radar, and 0 in all optical bands. Two things that the files hold are left out and said here: the descending orbit's VV
    and VH (a chip cannot name a band twice; PANGAEA gives models that know one VV the ascending one, too), and the
    probability of clouds, which is no measurement. Fewer ``dates`` are the months evenly spread from September; 1 is March
    (06), PANGAEA's.

    Splits are PANGAEA's three lists; validation chips lie among the training files.

    Args:
        root: holds the lists, the features and the labels.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        dates: how many of the 12 months: 1, or 3 to 12.

    Raises:
        DataError: missing files, a list without chip_id, chips without any radar, or files of different size.
        RasterError: a damaged file.
    """
    require_dates(dates, MONTHS, "BioMassters")
    lists = {"train": "train", "validation": "val", "test": "test"}
    root = _LAYOUT.folder(root, *(f"{name}_Data_list.csv" for name in lists.values()))
    parts = {split: _chips(root, name) for split, name in lists.items()}
    keys = [k for some in parts.values() for k in some]
    _LAYOUT.require(_label(root, *k.split("/")) for k in keys)
    _LAYOUT.require(root / f"{k.split('/')[0]}_features" / f"{k.split('/')[1]}_S1_00.tif" for k in keys)
    months = (6,) if dates == 1 else tuple(int(m) for m in np.linspace(0, MONTHS - 1, dates))
    size = raster_size(_label(root, *keys[0].split("/")))
    rule = f"PANGAEA's lists; months {', '.join(f'{m:02d}' for m in months)} (00 is September)"
    return streamed(_ABOUT, parts, _Read(root, size, months), size, rule, limit=limit, seed=seed, dates=dates)


def _chips(root: Path, name: str) -> list[str]:
    table = root / f"{name}_Data_list.csv"
    chips = [row["chip_id"] for row in read_rows(table, ("chip_id",))]
    if bad := [c for c in chips if not _CHIP.fullmatch(c)]:
        raise DataError(f"{table}: chip_id {bad[0]!r}; expected letters and digits")
    return [f"{'test' if name == 'test' else 'train'}/{c}" for c in chips]


def _label(root: Path, folder: str, chip: str) -> Path:
    return root / f"{folder}_agbm" / f"{chip}_agbm.tif"
