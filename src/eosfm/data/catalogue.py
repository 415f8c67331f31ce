"""Every data set that can be named in a configuration: ``data: {kind: dataset, dataset: NAME, root: FOLDER}``.

    splits = open_dataset("eurosat-s2", Path("/data/eurosat"))

A reader takes the data set's root folder, ``seed`` (of whatever its split or limit draws) and ``limit`` (at most so many
chips a split), and gives `Splits` whose chips carry their bands and unit. Nothing is downloaded.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

from eosfm.contracts import DataError, known
from eosfm.data.chips import Splits
from eosfm.data.real import READERS

PUBLISHED: dict[str, str] = {}
"""name -> "module:function" below `eosfm.data.published`, imported when asked for (TorchGeo takes seconds to import)"""


def dataset_names() -> list[str]:
    """Every known name, sorted."""
    return sorted({*READERS, *PUBLISHED})


def open_dataset(name: str, root: Path, *, seed: int = 0, **options: int) -> Splits:
    """The splits of data set ``name`` in the folder ``root``; ``options`` are the reader's own (``limit``, ``per_class``).

    Raises:
        DataError: an unknown name or option, or files that are missing or contradict the layout.
    """
    if name in READERS:
        reader = READERS[name]
    elif name in PUBLISHED:
        module, _, function = PUBLISHED[name].partition(":")
        reader = getattr(importlib.import_module(f"eosfm.data.published.{module}"), function)
    else:
        raise DataError(f"unknown data set {name!r}; {known(dataset_names())}")
    accepted = inspect.signature(reader).parameters
    if unknown := [o for o in options if o not in accepted]:
        raise DataError(f"{name} has no option {', '.join(unknown)}; {known(p for p in accepted if p != 'root')}")
    splits: Splits = reader(root, seed=seed, **options)
    return splits
