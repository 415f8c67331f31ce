"""PASTIS: crops in time series of Sentinel-2 and Sentinel-1 over France (Garnot and Landrieu 2021, arXiv:2107.07933)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError
from eosfm.data.chips import Splits
from eosfm.data.folders import About, Field
from eosfm.data.published.pangaea_layouts import LAYOUTS
from eosfm.data.published.satellite_files import relabel, streamed
from eosfm.data.published.series_files import evenly, read_npy, require_dates, stack_dates
from eosfm.tasks.kinds import IGNORE

CLASSES = (
    "background",
    "meadow",
    "soft winter wheat",
    "corn",
    "winter barley",
    "winter rapeseed",
    "spring barley",
    "sunflower",
    "grapevine",
    "beet",
    "winter triticale",
    "winter durum wheat",
    "fruits, vegetables, flowers",
    "potatoes",
    "leguminous fodder",
    "soybeans",
    "orchard",
    "mixed cereal",
    "sorghum",
)
"""label values 0 to 18; 19 is void"""
FOLDS = {"train": (1, 2, 3), "validation": (4,), "test": (5,)}
SIDE = 128
_LAYOUT = LAYOUTS["pastis"]
_S2 = "sentinel-2-l2a:B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@dn-1e4"
_S1 = "sentinel-1:VV,VH@db"
_SOURCE = (
    "PASTIS (Garnot and Landrieu 2021, doi:10.5281/zenodo.5735646), patches of 128 x 128 pixels of 10 m, September 2018 to "
    "November 2019. Contains modified Copernicus Sentinel data."
)
_VALUES = {**{v: v for v in range(len(CLASSES))}, 19: IGNORE}
_NODATA = -10_000


@dataclass(frozen=True)
class _Read:
    root: Path
    dates: int
    radar: bool

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        path = _path(self.root, "S2", key)
        series = read_npy(path, (None, 10, SIDE, SIDE))
        optical = [None if i is None else _optical(series[i]) for i in evenly(len(series), self.dates)]
        pictures = optical
        if self.radar:
            sar = read_npy(_path(self.root, "S1A", key), (None, 3, SIDE, SIDE))
            bands = [None if i is None else np.array(sar[i, :2], np.float32) for i in evenly(len(sar), self.dates)]
            pictures = [_both(o, s) for o, s in zip(optical, bands, strict=True)]
        label = _path(self.root, "TARGET", key)
        y = relabel(np.array(read_npy(label, (3, SIDE, SIDE))[0]), _VALUES, str(label))
        shape = (10 + 2 * self.radar, SIDE, SIDE)
        return torch.from_numpy(stack_dates(pictures, shape)), torch.from_numpy(y)


def pastis(root: Path, *, seed: int = 0, limit: int | None = None, dates: int = 6) -> Splits:
    """Crops: 10 bands of Sentinel-2 L2A x 10000, then VV and VH in dB (ascending), of several dates each.

    Images are float32 ``(dates * 12, 128, 128)``, labels ``(128, 128)``; void (19) is ignored, background is a class.
    -10000 in all optical bands becomes NaN. The third radar band of the files, VV - VH, is left out.

    Dates are evenly spread over each patch's own series, first to last; a date of the radar is not the day of the
    optical one. PANGAEA does the same with 6, but where a series has more than 50 dates it first draws 50 at random and does
    not sort them: which dates it sees, and in which order, is chance.

    Splits are folds 1 to 3, 4 and 5, as in PANGAEA; the data set's authors drew the folds so that none touch.

    Args:
        root: holds ``metadata.geojson``, or a folder ``PASTIS-R`` or ``PASTIS-HD`` that does.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        dates: how many: 3 or more, or 1, which is the last, as in PANGAEA.

    Raises:
        DataError: missing files, metadata without patch and fold, or arrays of another shape or with other labels.
    """
    return _splits(root, "PASTIS", f"{_S2} + {_S1}", seed, limit, dates, ("S2", "S1A", "TARGET"))


def pastis_s2(root: Path, *, seed: int = 0, limit: int | None = None, dates: int = 6) -> Splits:
    """`pastis` without radar: float32 ``(dates * 10, 128, 128)``."""
    return _splits(root, "PASTIS S2", _S2, seed, limit, dates, ("S2", "TARGET"))


def _splits(
    root: Path, title: str, bands: str, seed: int, limit: int | None, dates: int, kinds: tuple[str, ...]
) -> Splits:
    require_dates(dates, 50, title)
    inner = [
        Path(root) / name for name in ("PASTIS-R", "PASTIS-HD") if (Path(root) / name / "metadata.geojson").is_file()
    ]
    root = _LAYOUT.folder(inner[0] if inner else root, "metadata.geojson")
    folds = _folds(root / "metadata.geojson")
    parts = {split: [p for p, fold in folds if fold in chosen] for split, chosen in FOLDS.items()}
    _LAYOUT.require(_path(root, kind, p) for p, _ in folds for kind in kinds)
    about = About(title, BandSet.parse(bands), "segmentation", CLASSES, "etalab-2.0", _SOURCE)
    rule = f"the published folds: 1 to 3, 4, 5; {dates} dates evenly spread over each series"
    read = _Read(root, dates, "S1A" in kinds)
    return streamed(about, parts, read, (SIDE, SIDE), rule, limit=limit, seed=seed, dates=dates)


def _folds(path: Path) -> list[tuple[str, int]]:
    """Patch and fold of every feature."""
    try:
        features: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["features"]
        rows = [(str(int(f["properties"]["ID_PATCH"])), int(f["properties"]["Fold"])) for f in features]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path}: expected features with ID_PATCH and Fold ({e!r})") from e
    if bad := sorted({fold for _, fold in rows} - {1, 2, 3, 4, 5}):
        raise DataError(f"{path}: fold {bad[0]}; expected 1 to 5")
    return rows


def _path(root: Path, kind: str, patch: str) -> Path:
    folder = "ANNOTATIONS" if kind == "TARGET" else f"DATA_{kind}"
    return root / folder / f"{kind}_{patch}.npy"


def _optical(stored: Any) -> Field:
    values = np.array(stored, np.float32)
    values[:, (values == _NODATA).all(0)] = np.nan
    return values


def _both(optical: Field | None, sar: Field | None) -> Field | None:
    if optical is None and sar is None:
        return None
    optical = np.full((10, SIDE, SIDE), np.nan, np.float32) if optical is None else optical
    sar = np.full((2, SIDE, SIDE), np.nan, np.float32) if sar is None else sar
    return np.concatenate([optical, sar])
