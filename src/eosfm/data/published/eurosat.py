"""EuroSAT with all 13 bands of Sentinel-2 L1C (Helber et al. 2019), in TorchGeo's layout (`torchgeo.datasets.EuroSAT`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError, known
from eosfm.data.chips import Splits
from eosfm.data.folders import About
from eosfm.data.published.satellite_files import Layout, listed, read_tif, streamed, zeros_to_nan
from eosfm.data.real_chips import EUROSAT_CLASSES

FILE_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
"""the bands of a file, in its order: B8A is last (TorchGeo's ``EuroSAT.all_band_names``)"""
_BANDS = BandSet.parse("sentinel-2-l1c:all@dn-1e4")
_ORDER = [FILE_BANDS.index(name) for name in _BANDS.names]
_SIZE = (64, 64)
_IMAGES = Path("ds/images/remote_sensing/otherDatasets/sentinel_2/tif")
_LAYOUT = Layout(
    "EuroSAT, 13 bands",
    f"{_IMAGES}/<Class>/<Class>_<n>.tif and eurosat-train.txt, eurosat-val.txt, eurosat-test.txt",
    "EuroSATallBands.zip (27,000 files, about 2 GB) and the three lists from https://hf.co/datasets/torchgeo/eurosat, the "
    "archive unpacked in the same folder",
    "eurosat-s2",
)
_ABOUT = About(
    "EuroSAT S2",
    _BANDS,
    "classification",
    EUROSAT_CLASSES,
    "MIT",
    "EuroSAT (Helber et al. 2019, doi:10.1109/JSTARS.2019.2918242), 27,000 chips of 64 x 64 pixels at 10 m, Sentinel-2 L1C "
    "digital numbers. Contains modified Copernicus Sentinel-2 data.",
)


@dataclass(frozen=True)
class _Read:
    folder: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        values = read_tif(self.folder / key, len(FILE_BANDS), size=_SIZE)[_ORDER]
        return torch.from_numpy(zeros_to_nan(values)), torch.tensor(EUROSAT_CLASSES.index(key.split("/")[0]))


def eurosat_s2(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """EuroSAT, all bands: float32 ``(13, 64, 64)`` in sensor order (B08, B8A, B09 ...), DN = reflectance x 10000; 10 classes.

    The split is the one of Neumann et al. 2019 (arXiv:1911.06721), random 60/20/20: neighbouring tiles of one scene can be
    in two splits. `eurosat_s2_spatial` splits by longitude. Pixels that are 0 in all 13 bands become NaN.

    Args:
        root: holds ``ds/`` and ``eurosat-{train,val,test}.txt``.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.

    Raises:
        DataError: missing files, a list that names no class.
        RasterError: a damaged file (when it is read).
    """
    return _splits(root, "eurosat", "the data set's lists (random 60/20/20, Neumann et al. 2019)", seed, limit)


def eurosat_s2_spatial(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """`eurosat_s2` with TorchGeo's split by longitude, 60/20/20 (``eurosat-spatial-{train,val,test}.txt``).

    Raises:
        DataError, RasterError: as `eurosat_s2`.
    """
    return _splits(root, "eurosat-spatial", "TorchGeo's lists (by longitude, 60/20/20)", seed, limit)


def _splits(root: Path, lists: str, rule: str, seed: int, limit: int | None) -> Splits:
    names = {"train": f"{lists}-train.txt", "validation": f"{lists}-val.txt", "test": f"{lists}-test.txt"}
    root = _LAYOUT.folder(root, str(_IMAGES), *names.values())
    parts = {split: [_key(line, root / name) for line in listed(root / name)] for split, name in names.items()}
    splits = streamed(_ABOUT, parts, _Read(root / _IMAGES), _SIZE, rule, limit=limit, seed=seed)
    for part in (splits.train, splits.validation, splits.test):
        _LAYOUT.require(root / _IMAGES / key for key in part.ids)
    return splits


def _key(line: str, table: Path) -> str:
    """``Forest_12.jpg`` or ``Forest_12.tif`` -> ``Forest/Forest_12.tif``."""
    match = re.fullmatch(r"([A-Za-z]+)_\d+\.(?:jpg|tif)", line)
    if match is None or match[1] not in EUROSAT_CLASSES:
        raise DataError(f"{table}: {line!r}; expected lines like Forest_12.jpg; {known(EUROSAT_CLASSES)}")
    return f"{match[1]}/{Path(line).stem}.tif"
