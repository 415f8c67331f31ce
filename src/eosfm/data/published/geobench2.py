"""GEO-Bench-2's data sets (Simumba et al. 2025, arXiv:2511.15658), read out of the published ``.tortilla`` files.

    splits = open_dataset("geobench2-caffe", Path("/data/caffe"))      # /data/caffe/geobench_caffe.tortilla

The files are read here and not through the benchmark's package ``geobenchv2``, because that pins exact versions of heavy
packages, hands positions in a stranger's file to GDAL unchecked, finds items by position, and names three sets of bands
wrongly (`geobench2_tables`). ``tests/published/test_geobench2_package.py`` compares pixels and labels with the package.

Splits are the column ``tortilla:data_split``, as the package reads them. Several dates are ``(dates * c, h, w)``, see
`eosfm.training.dates`. What differs from the package:

* pixels that were not measured are NaN, and labels that say nothing are ignored; the package has 0, and a class of its own
  ("no data" of kuro_siwo, void of pastis, a third class of burn_scars), or counts a class that no pixel has ("background" of
  spacenet2 and spacenet7: labels here are 0 and 1, there 1 and 2).
* biomassters: Sentinel-2 and Sentinel-1 of a date are of one month; the package stacks the n-th file of each, although
  Sentinel-2 lacks months. Biomass is in t/ha (the package divides by 289.89); ascending orbit, no cloud probability.
* left out: elevation (flair2, kuro_siwo), the panchromatic band (spacenet2), and what `geobench2_tables` names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import DataError, known
from eosfm.data.chips import Splits
from eosfm.data.folders import SPLITS, Field
from eosfm.data.published import geobench2_things as written
from eosfm.data.published import pastis as crops
from eosfm.data.published.geobench2_tables import S2_SHEETS, SHEETS, Layer, Mask, Sheet
from eosfm.data.published.hdf5_files import hdf5_array, hdf5_text
from eosfm.data.published.satellite_files import relabel, streamed, zeros_to_nan
from eosfm.data.published.tortilla import Item, items, read_item, read_item_tif
from eosfm.seeding import purpose_seed
from eosfm.tasks.kinds import IGNORE

Found = tuple[Path, Item]
"""a sample: its file, and where it lies in it"""


def picked_steps(available: int, dates: int) -> list[int | None]:
    """Which of a series the package takes: evenly spread from the first; a shorter series is filled up in front.

    >>> picked_steps(7, 3), picked_steps(2, 3)
    ([0, 2, 4], [None, 0, 1])
    """
    if available < dates:
        return [*([None] * (dates - available)), *range(available)]
    return [int(i * (available / dates)) for i in range(dates)]


@dataclass(frozen=True)
class _Read:
    """Reads samples by their names. ``size`` is only what a missing picture is made of."""

    sheet: Sheet
    samples: Mapping[str, Found]
    labels: Mapping[str, Tensor]
    dates: tuple[int, ...]
    size: tuple[int, int] = (1, 1)

    def __call__(self, key: str, /) -> tuple[Tensor, Tensor]:
        path, sample = self.samples[key]
        inside = items(path, sample)
        x = self.image(key, inside)
        y = self._label(key, path, inside, (x.shape[-2], x.shape[-1]))
        if self.sheet.valid:
            invalid = read_item_tif(path, _item(inside, self.sheet.valid, f"{path}, {key}"), 1)[0] == 0
            x[:, invalid] = np.nan
            y = y.masked_fill(torch.from_numpy(invalid), IGNORE)
        return torch.from_numpy(x), y

    def image(self, key: str, inside: Sequence[Item]) -> Field:
        """``(dates * c, h, w)`` in the sheet's bands."""
        path, where = self.samples[key][0], f"{self.samples[key][0]}, {key}"
        if self.sheet.series:
            layer = self.sheet.dates[0][0]
            take = partial(picked_steps, dates=len(self.dates))
            series = hdf5_array(read_item(path, _item(inside, layer.item, where)), "data", where, take)
            if series.ndim != 4 or series.shape[1] != len(self.sheet.about.bands):
                raise DataError(
                    f"{where}: a series {series.shape}; expected (dates, {len(self.sheet.about.bands)}, h, w)"
                )
            return np.concatenate([_measured(picture, layer) for picture in series])
        pictures = []
        for date in self.dates:
            held: dict[tuple[str, str], Field] = {}
            for layer in self.sheet.dates[date]:
                bands = BandSet.parse(layer.bands)
                item = _item(inside, layer.item, where, optional=layer.optional)
                if item is None:
                    values = np.full((len(bands), *self.size), np.nan, np.float32)
                else:
                    values = _measured(read_item_tif(path, item, len(bands), layer.more), layer)
                held |= {band.key: value for band, value in zip(bands, values, strict=True)}
            chosen = [held[band.key] for band in self.sheet.about.bands]
            if len(shapes := {c.shape for c in chosen}) > 1:
                raise DataError(f"{where}: bands of {' and '.join(map(str, sorted(shapes)))} pixels; expected one size")
            pictures.append(np.stack(chosen))
        return np.concatenate(pictures)

    def _label(self, key: str, path: Path, inside: Sequence[Item], size: tuple[int, int]) -> Tensor:
        label = self.sheet.label
        if isinstance(label, str):
            return self.labels[key]
        return (
            self._mask(label, path, inside, key)
            if isinstance(label, Mask)
            else self._things(label, path, inside, key, size)
        )

    def _things(
        self, things: written.Things, path: Path, inside: Sequence[Item], key: str, size: tuple[int, int]
    ) -> Tensor:
        where, classes = f"{path}, {key}", self.sheet.about.classes
        if things.form == "maps":
            number, crop = (
                hdf5_array(read_item(path, _item(inside, name, where)), "data", where)
                for name in ("instance", "semantic")
            )
            known_crops = {v: v - 1 for v in range(1, len(crops.CLASSES))}
            return written.instances_of_maps(number, crop[0] if crop.ndim == 3 else crop, known_crops, where)
        data = read_item(path, _item(inside, things.item, where))
        if things.form == "boxes in parquet":
            return written.boxes_of_rows(data, things, classes, size, where)
        text = hdf5_text(data, "annotation", where)
        if things.form == "boxes in json":
            return written.boxes_of_json(text, things, classes, size, where)
        return written.instances_of_json(text, things, classes, size, where)

    def _mask(self, mask: Mask, path: Path, inside: Sequence[Item], key: str) -> Tensor:
        where = f"{path}, {key}"
        item = _item(inside, mask.item, where)
        if item.format == "HDF5":
            stored = hdf5_array(read_item(path, item), "data", where)
            values = stored[0] if stored.ndim == 3 else stored  # PASTIS: classes, then two layers of instances
        else:
            values = read_item_tif(path, item, 1)[0]
        if not mask.values:
            return torch.from_numpy(values.astype(np.float32))
        return torch.from_numpy(relabel(values, dict(mask.values), where))


def _measured(values: Any, layer: Layer) -> Field:
    """As float32, NaN where nothing was measured."""
    out: Field = zeros_to_nan(values) if layer.zeros else values.astype(np.float32)
    if layer.nodata is not None:
        out[np.abs(out) == layer.nodata] = np.nan
    return out


def _item(inside: Sequence[Item], wanted: str, where: str, *, optional: bool = False) -> Any:
    """The one item whose name matches ``wanted``, or the one at that position; None where it may be missing and is."""
    at = int(wanted[1:]) if wanted.startswith("#") else None
    found = [i for n, i in enumerate(inside) if (n == at if at is not None else re.fullmatch(wanted, i.name))]
    if not found and optional:
        return None
    if len(found) != 1:
        raise DataError(f"{where}: {len(found)} items {wanted}; expected one; {known(i.name for i in inside)}")
    return found[0]


def _open(
    sheet: Sheet, root: Path, seed: int, limit: int | None, dates: tuple[int, ...] = (0,), per_class: int | None = None
) -> Splits:
    title = sheet.about.title
    paths = _paths(sheet, Path(root))
    samples: dict[str, Found] = {}
    labels: dict[str, Tensor] = {}
    parts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for path in paths:
        for item in items(path, parts=sheet.files):
            split = item.facts().get("tortilla:data_split")
            if split not in parts or item.name in samples:
                raise DataError(
                    f"{path}: {item.name!r} of split {split!r}; expected each sample once, in one of {SPLITS}"
                )
            samples[item.name] = (path, replace(item, row=()))
            if isinstance(sheet.label, str):
                labels[item.name] = _label(sheet, path, item)
            parts[split].append(item.name)
    if empty := [split for split in SPLITS if not parts[split]]:
        raise DataError(
            f"{title}: no sample of split {' or '.join(empty)} in {len(paths)} files. {sheet.layout.where_to_get()}"
        )
    rule = "GEO-Bench-2's own (tortilla:data_split)"
    if per_class is not None:
        rule += f"; at most {per_class} of each class in each split, drawn by seed {seed}"
        parts = {split: _few(keys, labels, per_class, seed, split) for split, keys in parts.items()}
    if len(dates) > 1 and not sheet.series:
        rule += f"; {len(dates)} dates"
    read = _Read(sheet, samples, labels, dates)
    size = _size(read, *samples[parts["train"][0]])
    read = replace(read, size=size)
    parts = {split: sorted(keys) for split, keys in parts.items()}
    return streamed(sheet.about, parts, read, size, rule, limit=limit, seed=seed, dates=len(dates))


def _paths(sheet: Sheet, root: Path) -> list[Path]:
    """The published files; or, where there is one, its short name, which the benchmark gives to its own samples."""
    short = root / f"{sheet.name}.tortilla"
    if short.is_file() and not (root / sheet.paths[0]).is_file():
        return [short]
    folder = sheet.layout.folder(root, *sheet.paths)
    return [folder / name for name in sheet.paths]


def _size(read: _Read, path: Path, sample: Item) -> tuple[int, int]:
    """``(h, w)`` of a sample, from its first picture that is there."""
    inside = items(path, sample)
    if read.sheet.series:
        h, w = read.image(sample.name, inside).shape[-2:]
        return int(h), int(w)
    for layers in read.sheet.dates:
        for layer in layers:
            if (item := _item(inside, layer.item, str(path), optional=True)) is not None:
                picture = read_item_tif(path, item, len(BandSet.parse(layer.bands)), layer.more)
                return picture.shape[1], picture.shape[2]
    raise DataError(f"{path}, {sample.name}: no picture; {known(i.name for i in inside)}")


def _label(sheet: Sheet, path: Path, sample: Item) -> Tensor:
    """Classes that the table of contents names: one (by name or number), or several."""
    classes, said = sheet.about.classes, sample.facts().get(str(sheet.label))
    names = [said] if sheet.about.kind == "classification" else said
    if not isinstance(names, list) or not names:
        raise DataError(
            f"{path}, {sample.name}: {sheet.label} is {said!r}; expected {sheet.about.kind}; {known(classes)}"
        )
    found = [classes.index(n) if n in classes else n for n in names]
    if bad := [n for n in found if type(n) is not int or not 0 <= n < len(classes)]:
        raise DataError(f"{path}, {sample.name}: class {bad[0]!r}; {known(classes)}")
    if sheet.about.kind == "classification":
        return torch.tensor(found[0])
    return torch.zeros(len(classes), dtype=torch.long).index_fill(0, torch.tensor(found), 1)


def _few(keys: Sequence[str], labels: Mapping[str, Tensor], per_class: int, seed: int, split: str) -> list[str]:
    if per_class < 1:
        raise DataError(f"per_class is {per_class}; expected at least 1 chip of each class")
    rng = np.random.default_rng(purpose_seed(seed, f"per class {split}", per_class))
    picked: list[str] = []
    for c in sorted({int(labels[k]) for k in keys}):
        same = sorted(k for k in keys if int(labels[k]) == c)
        picked += [same[i] for i in rng.permutation(len(same))[:per_class]]
    return picked


def _reader(sheet: Sheet) -> Callable[..., Splits]:
    def reader(root: Path, *, seed: int = 0, limit: int | None = None) -> Splits:
        return _open(sheet, root, seed, limit)

    return _documented(reader, sheet)


def _scenes(sheet: Sheet) -> Callable[..., Splits]:
    def reader(root: Path, *, seed: int = 0, limit: int | None = None, per_class: int | None = None) -> Splits:
        return _open(sheet, root, seed, limit, per_class=per_class)

    return _documented(reader, sheet)


def _dated(sheet: Sheet, default: int, choices: Sequence[int]) -> Callable[..., Splits]:
    def reader(root: Path, *, seed: int = 0, limit: int | None = None, dates: int = default) -> Splits:
        if dates not in choices:
            raise DataError(f"{sheet.about.title}: dates {dates}; expected one of {', '.join(map(str, choices))}")
        if sheet.series:
            return _open(sheet, root, seed, limit, tuple(range(dates)))
        spread = tuple(int(i) for i in np.linspace(0, len(sheet.dates) - 1, dates))
        return _open(sheet, root, seed, limit, (sheet.one,) if dates == 1 else spread)

    return _documented(reader, sheet)


def _documented(reader: Callable[..., Splits], sheet: Sheet) -> Callable[..., Splits]:
    reader.__doc__ = f"{sheet.about.source}. Expected in ``root``: {', '.join(sheet.paths)}."
    return reader


_LONG = (1, *range(3, 61))  # two dates would be read as a change
benv2, benv2_s2 = _reader(SHEETS["benv2"]), _reader(S2_SHEETS["benv2"])
biomassters = _dated(SHEETS["biomassters"], 12, _LONG[:11])
burn_scars = _reader(SHEETS["burn_scars"])
caffe = _reader(SHEETS["caffe"])
cloudsen12 = _reader(SHEETS["cloudsen12"])
dynamic_earthnet = _dated(SHEETS["dynamic_earthnet"], 6, (1, 6))
flair2 = _reader(SHEETS["flair2"])
everwatch = _reader(SHEETS["everwatch"])
forestnet = _scenes(SHEETS["forestnet"])
fotw = _dated(SHEETS["fotw"], 2, (1, 2))
kuro_siwo = _dated(SHEETS["kuro_siwo"], 3, (1, 3))
nzcattle = _reader(SHEETS["nzcattle"])
pastis = _dated(SHEETS["pastis"], 6, _LONG)
pastis_r = _dated(SHEETS["pastis_r"], 12, _LONG)
so2sat = _scenes(SHEETS["so2sat"])
spacenet2 = _reader(SHEETS["spacenet2"])
spacenet7 = _reader(SHEETS["spacenet7"])
substation = _reader(SHEETS["substation"])
treesatai, treesatai_s2 = _reader(SHEETS["treesatai"]), _reader(S2_SHEETS["treesatai"])
