"""Run configurations read from YAML: what `eosfm train`, `adapt` and `evaluate` do, as frozen records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eosfm.config import read_record, read_yaml, record
from eosfm.data.files import DataConfig
from eosfm.dates import Join
from eosfm.fusion.fuse import Normalise
from eosfm.fusion.selection import SelectionConfig
from eosfm.rules import DEFAULT_RULES
from eosfm.specialists.card import require_safe_name
from eosfm.tasks.model import HeadConfig
from eosfm.training.settings import FitConfig


@record
class TrainRun:
    """``eosfm train``: one specialist."""

    name: str
    description: str = ""
    zoo: Path = Path("zoo")
    init: str = "random"
    """"random", "imagenet-fcmae" (CC BY-NC 4.0: the specialist inherits it), or a specialist of the zoo"""
    data: DataConfig
    fit: FitConfig = FitConfig(epochs=30, batch_size=32, learning_rate=1e-3, augment=True)
    head: HeadConfig = HeadConfig(decoder="linear", channels=64, dropout=0.0)
    run: Path | None = None
    """checkpoints and logs; default ``runs/NAME``"""

    def __post_init__(self) -> None:
        require_safe_name(self.name)


@record
class AdaptRun:
    """``eosfm adapt``: fusion and decoder of a frozen ensemble for one task."""

    name: str
    zoo: Path = Path("zoo")
    specialists: tuple[str, ...] | None = None
    """default: all of the zoo"""
    rules: tuple[str, ...] = DEFAULT_RULES
    fusion: str = "conv1x1"
    normalise: Normalise = "none"
    join: Join | None = None
    """how the features of several dates become one: mean, concat or difference; default concat of two, mean of more"""
    data: DataConfig
    fit: FitConfig = FitConfig(epochs=80, batch_size=8, learning_rate=5e-4)
    head: HeadConfig = HeadConfig()
    selection: SelectionConfig | None = None
    """learn which ``keep`` specialists to keep; the stored model has no trace of the others"""
    start: Path | None = None
    """a task model to train further, with its specialists, fusion, head and statistics"""
    cache: bool = True
    """compute frozen features once; with fit.augment in all orientations of a chip"""
    cache_folder: Path | None = None
    """keep them there, for other runs too; default in memory"""
    colours: tuple[str, ...] = ()
    output: Path | None = None
    """default ``models/NAME``"""
    run: Path | None = None
    """checkpoints and logs; default ``runs/NAME``"""

    def __post_init__(self) -> None:
        require_safe_name(self.name)
        if self.cache and (drawn := [n for n in self.fit.augmented if n != "augment"]):
            fields = ", ".join(f"fit.{n}" for n in drawn)
            raise ValueError(
                f"crops and colours of cached features do not exist: set cache: false, or leave out {fields}"
            )
        if not self.cache and self.cache_folder:
            raise ValueError("cache_folder with cache: false; leave one of them out")


@record
class DataOnly:
    """``eosfm evaluate``: the data to score on; other keys of an adapt file are allowed beside it."""

    data: DataConfig


def read_run(cls: type[TrainRun] | type[AdaptRun], path: Path, overrides: Sequence[str] = ()) -> TrainRun | AdaptRun:
    """The run described in the YAML file ``path`` with ``key=value`` overrides; unknown keys are errors."""
    return read_record(cls, read_yaml(path, overrides), str(path))


def read_data(path: Path, overrides: Sequence[str] = ()) -> DataConfig:
    """The ``data`` part of a YAML file."""
    content = read_yaml(path, overrides)
    return read_record(DataOnly, {"data": content.get("data", content)}, str(path)).data


def read_fit(path: Path, overrides: Sequence[str] = ()) -> FitConfig:
    """The ``fit`` part of an adapt file; that of `AdaptRun` where it has none."""
    content = read_yaml(path, overrides)
    default = AdaptRun.__dataclass_fields__["fit"].default
    assert isinstance(default, FitConfig)
    return read_record(FitConfig, content["fit"], str(path)) if "fit" in content else default
