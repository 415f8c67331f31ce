"""What `eosfm bench` measures, as data: cases (data under a protocol) x models x seeds, from one YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from eosfm.benchmark.protocol import PROTOCOLS, FrozenProbe
from eosfm.benchmark.readings import LIBRARIES, Name, is_named
from eosfm.benchmark.tasks import TASKS
from eosfm.config import read_record, read_yaml, record
from eosfm.contracts import ConfigError, known
from eosfm.data.files import DataConfig
from eosfm.dates import Join
from eosfm.fusion.fuse import Normalise
from eosfm.rules import DEFAULT_RULES
from eosfm.specialists.card import require_safe_name
from eosfm.tasks.model import HeadConfig
from eosfm.training.settings import FitConfig

CONSTANT, ENSEMBLE, UNTRAINED, SCRATCH = "constant", "ensemble", "untrained-ensemble", "scratch"
STATISTICS, RANDOM, SINGLE = "image-statistics", "random-features", "single:"
SCRATCH_OF = "scratch:"
MODELS = {
    CONSTANT: "the most frequent training label, everywhere",
    STATISTICS: "mean and standard deviation of each band of an image (probes only)",
    RANDOM: "160 random filters of 7x7 pixels, rectified and averaged (probes only)",
    UNTRAINED: "the ensemble with random weights in every encoder",
    "single:NAME": "one specialist alone; single:* is each of them",
    ENSEMBLE: "all specialists of the case",
    SCRATCH: "a network trained on the case's labels only: a U-Net, or ConvNeXtV2-Atto for scenes (trainings only)",
    "scratch:NAME": "timm's network NAME (resnet18, resnet50) with the case's head, all trained from scratch (trainings only)",
    **{f"{library}:NAME": f"frozen: {what}; see eosfm bench models" for library, what in LIBRARIES.items()},
}
PROBE, PANGAEA, GEOBENCH2 = "frozen-probe", "pangaea", "geobench2"
LEAST_LABELS = 1e-4
"""a smaller share of the labels is taken for a slip: of each stratum one chip is drawn at the least"""


@record
class Case:
    """One data set under one protocol."""

    name: str
    data: DataConfig
    protocol: Literal["frozen-probe", "pangaea", "geobench2"]
    task: str = ""
    """which task of a benchmark this is (`eosfm.benchmark.tasks.TASKS`): its page then has IQM or Distance To Best"""
    mode: Literal["frozen", "full"] = "frozen"
    """geobench2: train fusion and head only, or every parameter of every encoder too"""
    trials: int = 0
    """geobench2: so many choices of learning rate, weight decay and batch size, judged by validation on the first seed"""
    join: Join | None = None
    """how several dates become one; default mean under geobench2, else concat of two (a change) and mean of more"""
    leave_out: tuple[str, ...] = ()
    """specialists that may not take part, because they saw these data"""
    only: tuple[str, ...] | None = None
    """specialists that take part; default all of the zoo"""
    labels: float = 1.0
    """share of the training labels, stratified as PANGAEA does it"""
    draw: bool = False
    """each seed draws chips of its own (``limit`` and ``per_class`` of the data)"""
    fit: FitConfig | None = None
    """in place of the protocol's training: the row then says so"""
    head: HeadConfig | None = None
    """in place of the protocol's decoder: the row then says so"""
    normalise: Normalise = "none"
    rules: tuple[str, ...] = DEFAULT_RULES

    def __post_init__(self) -> None:
        require_safe_name(self.name)
        if not LEAST_LABELS <= self.labels <= 1:
            raise ValueError(
                f"labels {self.labels} is a share of the training labels, {LEAST_LABELS:g} to 1; however small, one chip of "
                "each stratum is drawn, and the row's split says how many chips that was"
            )
        if self.protocol == PROBE and (self.fit is not None or self.head is not None):
            raise ValueError(f"{self.name}: a {PROBE} trains no head; leave fit and head out")
        if self.trials < 0 or (self.protocol != GEOBENCH2 and (self.trials or self.mode != "frozen")):
            raise ValueError(f"{self.name}: mode full and trials (0 or more) are of protocol {GEOBENCH2}")
        if self.task and self.task not in TASKS:
            raise ValueError(f"{self.name}: unknown task {self.task!r}; {known(TASKS)}")

    @property
    def benchmark_task(self) -> str:
        """Its name in `eosfm.benchmark.tasks.TASKS`: what it says, or the task of its protocol with its data; "" is none."""
        name = f"{self.protocol}/{self.data.dataset.removeprefix(f'{self.protocol}-')}"
        return self.task or (name if name in TASKS else "")


@record
class Suite:
    """``eosfm bench``: every case with every model and seed."""

    name: str
    zoo: Path = Path("zoo")
    cases: tuple[Case, ...]
    models: tuple[str, ...] = (CONSTANT, STATISTICS, RANDOM, UNTRAINED, "single:*", ENSEMBLE)
    seeds: tuple[int, ...] | None = None
    """default those of each case's protocol: five under geobench2, 234 under pangaea, 0 for a probe"""
    output: Path | None = None
    """folder of results.jsonl; default ``runs/bench/NAME``"""
    cache_folder: Path | None = None
    """frozen features of specialists are kept there, for other runs too; default in memory"""

    def __post_init__(self) -> None:
        require_safe_name(self.name)
        seeds = (0,) if self.seeds is None else self.seeds
        for what, values in (("cases", [c.name for c in self.cases]), ("models", self.models), ("seeds", seeds)):
            if not values or len(set(values)) < len(values):
                raise ValueError(
                    f"{what}: expected one or more, each once; got {', '.join(map(str, values)) or 'none'}"
                )
        for m in self.models:
            if is_named(m):
                try:
                    Name.parse(m)
                except ConfigError as e:
                    raise ValueError(str(e)) from None
            elif (m not in MODELS and not m.startswith((SINGLE, SCRATCH_OF))) or m in (SINGLE, SCRATCH_OF):
                raise ValueError(f"unknown model {m!r}; {known(MODELS)}")
        if all(unfit(m, c.protocol) for m in self.models for c in self.cases):
            raise ValueError(f"models: nothing would be measured: {'; '.join(without_rows(self))}")

    def seeds_of(self, case: Case) -> tuple[int, ...]:
        """The seeds of a case's rows; its trials have the first."""
        if self.seeds is not None:
            return self.seeds
        p = PROTOCOLS[case.protocol]
        return (p.seed,) if isinstance(p, FrozenProbe) else p.seeds

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.output or Path("runs") / "bench" / self.name


def read_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """The suite in the YAML file ``path``; unknown keys are errors."""
    return read_record(Suite, read_yaml(path, overrides), str(path))


def without_specialists(model: str) -> bool:
    """Whether no specialist of the zoo has a part in ``model``."""
    return model in (CONSTANT, STATISTICS, RANDOM) or model.startswith(SCRATCH) or is_named(model)


def unfit(model: str, protocol: str) -> str:
    """Why ``model`` cannot be measured under ``protocol``; "" where it can."""
    if protocol == PROBE and model.startswith(SCRATCH):
        return f"a {PROBE} trains no network; it is measured under {PANGAEA} and {GEOBENCH2}"
    if protocol != PROBE and model in (STATISTICS, RANDOM):
        return f"{protocol} trains a head on maps, and this one has vectors only; it is measured under {PROBE}"
    return ""


def without_rows(suite: Suite) -> list[str]:
    """What ``suite`` names and does not measure, a line for each model and protocol, with the reason."""
    out = []
    for model in suite.models:
        for protocol in dict.fromkeys(c.protocol for c in suite.cases):
            if reason := unfit(model, protocol):
                cases = ", ".join(c.name for c in suite.cases if c.protocol == protocol)
                out.append(f"{cases}, {model}: {reason}")
        saw = [c.name for c in suite.cases if model.startswith(SINGLE) and model.removeprefix(SINGLE) in c.leave_out]
        if saw:
            out.append(f"{', '.join(saw)}, {model}: leave_out names it")
    return out


def models_of(suite: Suite, case: Case, names: Sequence[str]) -> list[str]:
    """The models of one case, those of `without_rows` left out; ``names`` are its specialists.

    Raises:
        ConfigError: a single specialist that is not there.
    """
    out = []
    for m in suite.models:
        one = m.removeprefix(SINGLE)
        if m == "single:*":
            out += [SINGLE + n for n in names]
        elif m.startswith(SINGLE) and one not in {*names, *case.leave_out}:
            raise ConfigError(f"{case.name}: model {m}; {known(names)}")
        elif one not in case.leave_out and not unfit(m, case.protocol):
            out.append(m)
    return list(dict.fromkeys(out))
