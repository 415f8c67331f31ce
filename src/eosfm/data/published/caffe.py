"""CaFFe, all 19,092 patches: zones of calving glaciers in radar (Gourmelon et al. 2022), in TorchGeo's layout."""

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
from eosfm.data.folders import About
from eosfm.data.published.satellite_files import (
    Layout,
    kept_apart,
    read_grey,
    relabel,
    streamed,
    tiles,
    window_key,
    window_of,
)

_SIDE = 512
_ZONES = {0: 0, 64: 1, 127: 2, 254: 3}
"""grey value of ``zones`` -> class (TorchGeo's ``CaFFe.px_class_values_zones``)"""
_NAME = re.compile(r"[\w-]+_zones_[\w-]*\.png")
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}
_LAYOUT = Layout(
    "CaFFe",
    "caffe/{sar_images,zones}/{train,val,test}/*.png, where <scene>_zones_<patch>.png belongs to <scene>_<patch>.png",
    "caffe.zip (19,092 patches of 512 x 512 pixels) from https://huggingface.co/datasets/torchgeo/caffe, unpacked there",
    "caffe",
)
_ABOUT = About(
    "CaFFe, full",
    BandSet.of("sar", ("VV", "VV", "VV"), "8bit"),
    "segmentation",
    ("not available", "rock", "glacier", "ocean and ice melange"),
    "CC-BY-4.0",
    "CaFFe (Gourmelon et al. 2022, doi:10.1594/PANGAEA.940950), TorchGeo's patches: amplitude of several radar satellites as "
    "8 bit, 6 to 20 m. The polarisation is not stated in the files: VV is a placeholder, not a fact.",
)


@dataclass(frozen=True)
class _Read:
    root: Path

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        name, (top, left, height, width) = window_of(key)
        image, zones = _image(self.root, name), self.root / "zones" / name
        grey, mask = read_grey(image), read_grey(zones)
        if grey.shape != (_SIDE, _SIDE) or mask.shape != grey.shape:
            raise DataError(f"{image}: {grey.shape}, its zones {mask.shape}; expected {_SIDE} x {_SIDE} of both")
        at = (slice(top, top + height), slice(left, left + width))
        x = np.repeat(grey[at][None], 3, axis=0).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy(relabel(mask[at], _ZONES, str(zones)))


def caffe_full(root: Path, *, seed: int = 0, limit: int | None = None, tile: int = 512) -> Splits:
    """Glacier zones: the grey amplitude three times over, float32 ``(3, tile, tile)``; labels int64 ``(tile, tile)``.

    The same bands and classes as `eosfm.data.real_scenes.caffe`, which reads GEO-Bench-2's sample. Class 0, "not
    available", is where nothing was recorded; it is one of the benchmark's four classes, so those pixels stay 0 and scored.

    The split is the published one; patches of a scene (one glacier at one time) that a later split also has are left out.

    Args:
        root: holds ``caffe/``, or is it.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.
        tile: side of the chips; a patch of 512 pixels is cut into those, the last ones moved inwards.

    Raises:
        DataError: missing files, ``tile`` above 512, or (when they are read) zones of another grey value.
    """
    root = Path(root) if (Path(root) / "zones").is_dir() else Path(root) / "caffe"
    _LAYOUT.folder(root, *(f"{kind}/{f}" for kind in ("sar_images", "zones") for f in _FOLDERS.values()))
    found = {
        split: [f"{folder}/{p.name}" for p in sorted((root / "zones" / folder).glob("*.png"))]
        for split, folder in _FOLDERS.items()
    }
    for name in (n for names in found.values() for n in names):
        if _NAME.fullmatch(name.split("/")[1]) is None:
            raise DataError(f"{root / 'zones' / name}: expected names like <scene>_zones_<patch>.png")
    kept, lost = kept_apart(found, _scene, "scene", "CaFFe")
    windows = tiles(_SIDE, _SIDE, tile, "CaFFe")
    parts = {split: [window_key(n, w) for n in names for w in windows] for split, names in kept.items()}
    splits = streamed(_ABOUT, parts, _Read(root), (tile, tile), f"the data set's own{lost}", limit=limit, seed=seed)
    for part in (splits.train, splits.validation, splits.test):
        _LAYOUT.require(_image(root, window_of(key)[0]) for key in part.ids)
    return splits


def _scene(name: str) -> str:
    return name.split("/")[-1].partition("_zones_")[0]


def _image(root: Path, name: str) -> Path:
    return root / "sar_images" / name.replace("_zones_", "_")
