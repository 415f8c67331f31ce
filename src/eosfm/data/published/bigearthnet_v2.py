"""BigEarthNet v2.0, all 480,038 pairs (Clasen et al. 2024, arXiv:2407.03653), in its own layout (TorchGeo's `BigEarthNetV2`).

The samples at hand of both versions are read by `eosfm.data.bigearthnet`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError, known
from eosfm.data.bigearthnet import CLASSES, SIDE
from eosfm.data.chips import Splits
from eosfm.data.folders import SPLITS, About, Field, read_raster, read_rows
from eosfm.data.published.satellite_files import Layout, streamed

_SIZE = 128
_COLUMNS = ("patch_id", "s1_name", "split", "labels")
_S1_NAME = re.compile(r"(S1[AB]_IW_GRDH_\w+?)_\w{5}_\d+_\d+")
_S2_NAME = re.compile(r"(S2[AB]_MSIL2A_\w+?)_\d+_\d+")
_TO_CSV = (
    "python -c \"import pandas as p; d = p.read_parquet('metadata.parquet'); d['labels'] = d['labels'].map('|'.join); "
    "d.to_csv('metadata.csv', index=False)\""
)
_LAYOUT = Layout(
    "BigEarthNet v2",
    "BigEarthNet-S1/<scene>/<s1_name>/<s1_name>_{VV,VH}.tif, BigEarthNet-S2/<scene>/<patch_id>/<patch_id>_B<nn>.tif and "
    "metadata.parquet (or metadata.csv)",
    "BigEarthNet-S1.tar.*, BigEarthNet-S2.tar.* (480,038 pairs, about 120 GB) and metadata.parquet from https://bigearth.net "
    "or https://hf.co/datasets/torchgeo/bigearthnet, unpacked in one folder",
    "bigearthnet",
)


@dataclass(frozen=True)
class _Read:
    root: Path
    bands: BandSet

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        patch, s1, labels = key.split("|")
        channels = {
            (b.sensor, b.name): _band(_path(self.root, s1 if b.sensor == "sentinel-1" else patch, b.name))
            for b in set(self.bands)
        }
        x = torch.from_numpy(np.stack([channels[b.sensor, b.name] for b in self.bands]))
        border = (_SIZE - SIDE) // 2
        x = F.pad(x[None], (border,) * 4, mode="reflect")[0]
        return x, torch.tensor([int(c) for c in labels])


def bigearthnet_v2_s1(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """Sentinel-1 in dB, VV, VH, VH as three-channel specialists read it: float32 ``(3, 128, 128)``; see `bigearthnet_v2`."""
    return _splits(root, "BigEarthNet v2 S1", BandSet.of("sentinel-1", ("VV", "VH", "VH"), "db"), seed, limit)


def bigearthnet_v2_rgb(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """Red, green, blue (B04, B03, B02) of Sentinel-2 L2A x 10000: float32 ``(3, 128, 128)``. Else as `bigearthnet_v2`."""
    return _splits(
        root, "BigEarthNet v2 RGB", BandSet.of("sentinel-2-l2a", ("B04", "B03", "B02"), "dn-1e4"), seed, limit
    )


def bigearthnet_v2(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
    """VV, VH in dB and the 12 bands of Sentinel-2 L2A x 10000: float32 ``(14, 128, 128)``; labels 0/1 ``(19,)``.

    Every band is found by its name in the file name, never by its place in a sorted list (where VH precedes VV), and read
    as stored (TorchGeo rounds dB to whole numbers). Bands of 20 and 60 m are brought to 10 m, bilinear; the 120 pixels are
    mirrored at the border to 128, a multiple of the encoder's stride. Classes are in the official order.

    ``metadata.parquet`` is read with pandas and pyarrow. A ``metadata.csv`` beside it, with labels joined by ``|``, is read
    instead where it exists, and needs neither.

    Args:
        root: holds ``BigEarthNet-S1``, ``BigEarthNet-S2`` (those of them that the bands need) and the metadata.
        seed: of the draw of ``limit``.
        limit: at most so many chips in each split.

    Raises:
        DataError: missing files, no parquet engine, or metadata with another label, split or name than version 2 has.
        RasterError: a damaged file (when it is read).
    """
    bands = BandSet.parse("sentinel-1:VV,VH@db + sentinel-2-l2a:all@dn-1e4")
    return _splits(root, "BigEarthNet v2", bands, seed, limit)


def _splits(root: Path, title: str, bands: BandSet, seed: int, limit: int | None) -> Splits:
    sensors = sorted({"BigEarthNet-S1" if b.sensor == "sentinel-1" else "BigEarthNet-S2" for b in bands})
    table = "metadata.csv" if (Path(root) / "metadata.csv").exists() else "metadata.parquet"
    root = _LAYOUT.folder(root, *sensors, table)
    about = About(
        title,
        bands,
        "multilabel",
        CLASSES,
        "CDLA-Permissive-1.0",
        "BigEarthNet v2.0 (Clasen et al. 2024, arXiv:2407.03653, doi:10.5281/zenodo.10891137), patches of 120 x 120 pixels, "
        "mirrored at the border to 128. Contains modified Copernicus Sentinel data.",
    )
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for row, (patch, s1, split, labels) in enumerate(_metadata(root / table)):
        if split not in parts or not _S2_NAME.fullmatch(patch) or not _S1_NAME.fullmatch(s1):
            raise DataError(
                f"{root / table}, row {row + 1}: {patch!r}, {s1!r}, split {split!r}; expected names like S2A_MSIL2A_..._26_57 "
                f"and S1A_IW_GRDH_..._26_57, and a split of {', '.join(SPLITS)}"
            )
        parts[split].append(f"{patch}|{s1}|{_bits(labels, f'{root / table}, {patch}')}")
    rule = "the data set's own, by region (metadata's split)"
    splits = streamed(about, parts, _Read(root, bands), (_SIZE, _SIZE), rule, limit=limit, seed=seed)
    for part in (splits.train, splits.validation, splits.test):
        for key in part.ids:
            patch, s1, _ = key.split("|")
            _LAYOUT.require(
                _path(root, s1, "VV") if s == "BigEarthNet-S1" else _path(root, patch, "B02") for s in sensors
            )
    return splits


def _metadata(table: Path) -> list[tuple[str, str, str, list[str]]]:
    """Patch, Sentinel-1 name, split and class names of every row."""
    if table.suffix == ".csv":
        rows = read_rows(table, _COLUMNS)
        return [(r["patch_id"], r["s1_name"], r["split"], r["labels"].split("|")) for r in rows]
    try:
        import pandas  # type: ignore[import-untyped]

        frame = pandas.read_parquet(table)
    except ImportError as e:
        raise DataError(
            f"{table}: reading parquet needs pandas and pyarrow ({e}). Install them (pip install pandas pyarrow), or make "
            f"metadata.csv where they are: {_TO_CSV}"
        ) from e
    except (OSError, ValueError) as e:
        raise DataError(f"{table}: cannot be read as parquet ({e}); fetch it again") from e
    if missing := [c for c in _COLUMNS if c not in frame.columns]:
        raise DataError(f"{table}: no column {', '.join(missing)}; found {', '.join(map(str, frame.columns))}")
    columns = (frame[c].tolist() for c in _COLUMNS)
    return [(str(p), str(s1), str(split), [str(x) for x in ls]) for p, s1, split, ls in zip(*columns, strict=True)]


def _bits(labels: Iterable[str], where: str) -> str:
    """``"0100..."``: which of the 19 classes ``labels`` names. Part of the key, so that the reader stays small."""
    names = set(labels)
    if not names or (unknown := names - set(CLASSES)):
        raise DataError(f"{where}: labels {sorted(unknown) if names else '(none)'}; {known(CLASSES)}")
    return "".join(str(int(c in names)) for c in CLASSES)


def _path(root: Path, name: str, band: str) -> Path:
    sensor, pattern = ("BigEarthNet-S1", _S1_NAME) if name.startswith("S1") else ("BigEarthNet-S2", _S2_NAME)
    match = pattern.fullmatch(name)
    assert match is not None  # names were checked when the table was read
    return root / sensor / match[1] / name / f"{name}_{band}.tif"


def _band(path: Path) -> Field:
    """One band as ``(120, 120)``; those of 60 and 20 pixels are resized, bilinear."""
    values, _ = read_raster(path)
    if values.shape not in {(1, n, n) for n in (20, 60, SIDE)}:
        raise DataError(f"{path}: shape {values.shape}; expected one band of 20, 60 or {SIDE} pixels square")
    if values.shape[1] == SIDE:
        return np.asarray(values[0], np.float32)
    resized = F.interpolate(torch.from_numpy(values)[None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy(), np.float32)
