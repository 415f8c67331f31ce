"""Small real data sets on disk, read into `Splits`. Start here: `READERS` is the list, `real_root` finds the folder.

    splits = READERS["eurosat-rgb"](real_root("../shared/data"))

Each reader says in its docstring what the pixels are, how the split was made and why. None of the data is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from eosfm.contracts import DataError
from eosfm.data.bigearthnet import bigearthnet_s1, bigearthnet_s2
from eosfm.data.chips import Splits
from eosfm.data.real_chips import EUROSAT_CLASSES, eurosat_rgb, mstar, uc_merced
from eosfm.data.real_scenes import caffe, cloud_masks, sen1floods11

__all__ = [
    "EUROSAT_CLASSES",
    "READERS",
    "bigearthnet_s1",
    "bigearthnet_s2",
    "caffe",
    "cloud_masks",
    "eurosat_rgb",
    "mstar",
    "real_root",
    "sen1floods11",
    "uc_merced",
]

READERS: dict[str, Callable[..., Splits]] = {
    "eurosat-rgb": eurosat_rgb,
    "uc-merced": uc_merced,
    "mstar": mstar,
    "caffe": caffe,
    "bigearthnet-s1": bigearthnet_s1,
    "bigearthnet-s2": bigearthnet_s2,
    "clouds-sentinel-2": partial(cloud_masks, sensor="sentinel-2"),
    "clouds-landsat-7": partial(cloud_masks, sensor="landsat-7"),
    "sen1floods11": sen1floods11,
}
"""name -> reader; every one takes the root folder and ``seed``"""

_FOLDERS = (
    "eurosat_rgb",
    "uc_merced",
    "mstar_sar_chips",
    "geobench2_samples",
    "bigearthnet_v1_examples",
    "ukis_csmask",
    "sen1floods11_sample",
)


def real_root(root: Path | str) -> Path:
    """``root``, if at least one of the data sets lies in it.

    Raises:
        DataError: it does not exist or holds none of them, listing the folders that were looked for.
    """
    root = Path(root)
    if any((root / folder).is_dir() for folder in _FOLDERS):
        return root
    state = "holds no known data set" if root.is_dir() else "is not a folder"
    raise DataError(f"{root} {state}; expected at least one of {', '.join(_FOLDERS)} in it")
