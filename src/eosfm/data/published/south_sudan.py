"""Crop types of South Sudan, 2016 to 2018 (Rustowicz et al. 2019), as SustainBench publishes them.

Not verified, because the files are not at hand: that the optical values are Sentinel-2 L1C (the paper takes them from Earth
Engine, where L2A of those years did not exist then), and that arrays are ``(bands, height, width, dates)``, as PANGAEA's
loader reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import SPLITS, About, Field, read_rows
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import streamed, zeros_to_nan
from eosfm.data.published.series_files import evenly, read_npz, require_dates, stack_dates
from eosfm.tasks.kinds import IGNORE

SIDE = 64
_LAYOUT = LAYOUTS["croptype-southsudan"]
_ABOUT = About(
    "Crop types of South Sudan",
    BandSet.parse("sentinel-2-l1c:B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@dn-1e4 + sentinel-1:VV,VH@db"),
    "segmentation",
    ("sorghum", "maize", "rice", "groundnut"),
    "not stated",
    "Crop type mapping in Ghana and South Sudan (Rustowicz et al. 2019; SustainBench, Yeh et al. 2021), chips of 64 x 64 "
    "pixels of 10 m. Contains modified Copernicus Sentinel data.",
)
_MAX_DATES = 50


@dataclass(frozen=True)
class _Read:
    folder: Path
    dates: int

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        path, truth = _path(self.folder, "npy", key), _path(self.folder, "truth", key)
        optical = _dates(read_npz(path, "s2", (10, SIDE, SIDE, None)).astype(np.float32), self.dates)
        radar = _dates(read_npz(path, "s1", (None, SIDE, SIDE, None))[:2].astype(np.float32), self.dates)
        pairs = zip(optical, radar, strict=True)
        x = stack_dates([np.concatenate([zeros_to_nan(o), zeros_to_nan(r)]) for o, r in pairs], (12, SIDE, SIDE))
        crops = read_npz(truth, "truth", (SIDE, SIDE))
        if crops.min() < 0 or not np.array_equal(crops, np.round(crops)):
            raise DataError(f"{truth}: labels down to {crops.min()}; expected whole numbers from 0, the crops")
        y = np.where((crops >= 1) & (crops <= len(_ABOUT.classes)), crops - 1, IGNORE)
        return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))


def croptype_southsudan(root: Path, *, seed: int = 0, limit: int | None = None, dates: int = 6) -> Splits:
    """Crops of fields: 10 bands of Sentinel-2 x 10000, then VV and VH in dB, of several dates: ``(dates * 12, 64, 64)``.

    The four commonest crops are classes; other crops and everything that is no labelled field are ignored, as in PANGAEA.
    Pixels that are 0 in all bands of a sensor become NaN: the files are padded with zeros.

    Dates are evenly spread over each chip's own series (those of the two sensors are different days), oldest to newest as
    stored. PANGAEA takes the last 6 as stored, in reverse, and pads shorter series with zeros; here they are NaN. Planet's
    pictures, which the files also hold, are not read, nor does PANGAEA.

    Splits are the published partition.

    Args:
        root: holds ``southsudan``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        dates: how many: 3 or more, or 1, which is the last stored.

    Raises:
        DataError: missing files, a partition other than 0, 1, 2, damaged archives, or arrays of another shape.
    """
    require_dates(dates, _MAX_DATES, _ABOUT.title)
    root = _LAYOUT.folder(root, "southsudan/list_eval_partition.csv")
    folder = root / "southsudan"
    table = folder / "list_eval_partition.csv"
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for row in read_rows(table, ("id", "partition")):
        if not row["id"].isdigit() or row["partition"] not in ("0", "1", "2"):
            raise DataError(
                f"{table}: id {row['id']!r}, partition {row['partition']!r}; expected a number, and 0, 1 or 2"
            )
        parts[SPLITS[int(row["partition"])]].append(f"{int(row['id']):06d}")
    _LAYOUT.require(_path(folder, kind, key) for keys in parts.values() for key in keys for kind in ("npy", "truth"))
    rule = f"the published partition; {dates} dates evenly spread over each series"
    return streamed(_ABOUT, parts, _Read(folder, dates), (SIDE, SIDE), rule, limit=limit, seed=seed, dates=dates)


def _path(folder: Path, kind: str, key: str) -> Path:
    return folder / kind / f"southsudan_{key}.npz"


def _dates(series: Field, dates: int) -> list[Field]:
    """Of ``(c, h, w, t)``, the dates that are taken; one that is not there is all 0, which the caller makes NaN."""
    return [
        np.zeros(series.shape[:3], np.float32) if i is None else series[..., i] for i in evenly(series.shape[3], dates)
    ]
