"""Every data set that can be named in a configuration: ``data: {kind: dataset, dataset: NAME, root: FOLDER}``.

    splits = open_dataset("eurosat-s2", Path("/data/eurosat"))

A reader takes the data set's root folder, ``seed`` (of whatever its split or limit draws) and ``limit`` (at most so many
chips a split), and gives `Splits` whose chips carry their bands and unit. Nothing is downloaded.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eosfm.contracts import DataError, known
from eosfm.data.chips import ChipSet, Splits
from eosfm.data.real import READERS
from eosfm.seeding import purpose_seed

PUBLISHED: dict[str, str] = {
    "bigearthnet-v2": "bigearthnet_v2:bigearthnet_v2",
    "bigearthnet-v2-rgb": "bigearthnet_v2:bigearthnet_v2_rgb",
    "bigearthnet-v2-s1": "bigearthnet_v2:bigearthnet_v2_s1",
    "caffe-full": "caffe:caffe_full",
    "cloud-cover": "cloud_cover:cloud_cover",
    "etci2021": "etci2021:etci2021",
    "eurosat-s2": "eurosat:eurosat_s2",
    "eurosat-s2-spatial": "eurosat:eurosat_s2_spatial",
    "kenya-croptype": "kenya:kenya_croptype",
    "oscd": "oscd:oscd",
    "sen12ms-all": "sen12ms:sen12ms_all",
    "sen12ms-rgb": "sen12ms:sen12ms_rgb",
    "sen12ms-s1": "sen12ms:sen12ms_s1",
    "sen12ms-s2": "sen12ms:sen12ms_s2",
    "deepglobe-lcc": "aerial_pictures:deepglobe_lcc",
    "loveda": "aerial_pictures:loveda",
    "levircd+": "aerial_pictures:levircd_plus",
    "firerisk": "aerial_pictures:firerisk",
    "inria": "aerial_cities:inria",
    "potsdam": "aerial_cities:potsdam",
    "minifrance": "aerial_cities:minifrance",
    "landcoverai": "aerial_cities:landcoverai",
    "opencanopy": "opencanopy:opencanopy",
    "ai4smallfarms": "small_farms:ai4smallfarms",
    "biomassters": "biomassters:biomassters",
    "croptype-southsudan": "south_sudan:croptype_southsudan",
    "dynamicearthnet": "dynamic_earth_net:dynamicearthnet",
    "fivebillionpixels": "fivebillion:fivebillionpixels",
    "hls-burn-scars": "burn_scars:hls_burn_scars",
    "mados": "mados:mados",
    "pastis": "pastis:pastis",
    "pastis-s2": "pastis:pastis_s2",
    "sen1floods11-hand": "sen1floods11:sen1floods11_hand",
    "spacenet7": "spacenet7:spacenet7",
    "spacenet7-change": "spacenet7:spacenet7_change",
    "xview2": "xview2:xview2",
    "geobench2-benv2": "geobench2:benv2",
    "geobench2-benv2-s2": "geobench2:benv2_s2",
    "geobench2-biomassters": "geobench2:biomassters",
    "geobench2-burn_scars": "geobench2:burn_scars",
    "geobench2-caffe": "geobench2:caffe",
    "geobench2-cloudsen12": "geobench2:cloudsen12",
    "geobench2-dynamic_earthnet": "geobench2:dynamic_earthnet",
    "geobench2-everwatch": "geobench2:everwatch",
    "geobench2-flair2": "geobench2:flair2",
    "geobench2-forestnet": "geobench2:forestnet",
    "geobench2-fotw": "geobench2:fotw",
    "geobench2-kuro_siwo": "geobench2:kuro_siwo",
    "geobench2-nzcattle": "geobench2:nzcattle",
    "geobench2-pastis": "geobench2:pastis",
    "geobench2-pastis_r": "geobench2:pastis_r",
    "geobench2-so2sat": "geobench2:so2sat",
    "geobench2-spacenet2": "geobench2:spacenet2",
    "geobench2-spacenet7": "geobench2:spacenet7",
    "geobench2-substation": "geobench2:substation",
    "geobench2-treesatai": "geobench2:treesatai",
    "geobench2-treesatai-s2": "geobench2:treesatai_s2",
}
"""name -> "module:function" below `eosfm.data.published`, imported when asked for (TorchGeo takes seconds to import)"""


def dataset_names() -> list[str]:
    """Every known name, sorted."""
    return sorted({*READERS, *PUBLISHED})


def open_dataset(name: str, root: Path, *, seed: int = 0, **options: int) -> Splits:
    """The splits of data set ``name`` in the folder ``root``; ``options`` are the reader's own (``limit``, ``per_class``).

    Raises:
        DataError: an unknown name or option, or files that are missing or contradict the layout.
    """
    reader, accepted = _reader(name), reader_options(name)
    limit = None if "limit" in accepted else options.pop("limit", None)
    if unknown := [o for o in options if o not in accepted]:
        raise DataError(f"{name} has no option {', '.join(unknown)}; {known({*accepted, 'limit'})}")
    splits: Splits = reader(root, seed=seed, **options)
    return splits if limit is None else limited(splits, limit, seed)


def reader_options(name: str) -> list[str]:
    """What the reader of ``name`` can be told besides its root folder."""
    return [p for p in inspect.signature(_reader(name)).parameters if p != "root"]


def _reader(name: str) -> Callable[..., Splits]:
    if name in READERS:
        return READERS[name]
    if name not in PUBLISHED:
        raise DataError(f"unknown data set {name!r}; {known(dataset_names())}")
    module, _, function = PUBLISHED[name].partition(":")
    found: Callable[..., Splits] = getattr(importlib.import_module(f"eosfm.data.published.{module}"), function)
    return found


def limited(splits: Splits, limit: int, seed: int) -> Splits:
    """At most ``limit`` chips in each split, drawn by ``seed``."""

    def some(chips: ChipSet, part: str) -> ChipSet:
        if len(chips) <= limit:
            return chips
        order = np.random.default_rng(purpose_seed(seed, "limit", *part.encode())).permutation(len(chips))
        return chips.subset(sorted(order[:limit].tolist()))

    parts = [some(getattr(splits, part), part) for part in ("train", "validation", "test")]
    return Splits(parts[0], parts[1], parts[2], rule=f"{splits.rule}; at most {limit} chips a split, drawn by seed")
