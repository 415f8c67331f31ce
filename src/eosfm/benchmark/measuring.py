"""One row, or one trial: specialists and data are opened, the model is measured under its protocol, and nothing is written."""

from __future__ import annotations

import math
import platform
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray

from eosfm._version import __version__
from eosfm.benchmark import probing
from eosfm.benchmark.adapting import note_of, scored, settings_of, train
from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.baselines import untrained
from eosfm.benchmark.frozen import open_backbone
from eosfm.benchmark.ledger import Row
from eosfm.benchmark.protocol import GeoBench2
from eosfm.benchmark.readings import is_named
from eosfm.benchmark.subsets import class_shares, stratified
from eosfm.benchmark.suite import CONSTANT, PANGAEA, PROBE, SCRATCH, SINGLE, UNTRAINED, Case, Suite, without_specialists
from eosfm.benchmark.trials import Hyper, hyper
from eosfm.config import to_plain
from eosfm.contracts import BandError, ConfigError, EosfmError, TrainingError, known
from eosfm.data.chips import Splits
from eosfm.data.files import open_data
from eosfm.ensemble import Ensemble, Specialist
from eosfm.seeding import purpose_seed
from eosfm.specialists.store import load_specialist
from eosfm.specialists.zoo import ZooEntry, find, list_zoo
from eosfm.tasks.boxes import joined_labels
from eosfm.tasks.kinds import DETECTORS, OBJECTS
from eosfm.training.energy import EnergyMeter
from eosfm.training.settings import Progress


@dataclass(frozen=True)
class Job:
    """One row to be, or one trial of it."""

    case: Case
    model: str
    seed: int
    key: str
    trial: int | None = None
    hyper: Hyper | None = None
    """of a row: what its trials chose"""

    def __str__(self) -> str:
        return f"{self.case.name}, {self.model}, seed {self.seed}" + (
            "" if self.trial is None else f", trial {self.trial}"
        )


@dataclass(frozen=True)
class Attempt:
    """What came of a job: a row, or the reason why there is none."""

    row: Row | None = None
    table: NDArray[Any] | None = None
    left_out: str = ""
    """the model cannot read the case's bands"""
    problem: str = ""
    no_data: bool = False
    """the problem is the case's, not the model's"""
    trace: str = ""
    """of a problem that nobody foresaw, which may be a mistake of ours: the traceback"""


class Data:
    """The splits of a job; those of the last one are kept, because the next one often has the same."""

    def __init__(self) -> None:
        self._last: tuple[object, Splits] | None = None

    def of(self, job: Job) -> Splits:
        """See `eosfm.data.files.open_data`; with ``draw`` by the job's seed, with ``labels`` a part of the training chips."""
        case = job.case
        data = replace(case.data, seed=job.seed) if case.draw else case.data
        wanted = (data, case.labels, job.seed if case.labels < 1 else None)
        if self._last is None or self._last[0] != wanted:
            splits = open_data(data)
            self._last = wanted, splits if case.labels == 1 else _fewer(splits, case.labels, job.seed)
        return self._last[1]


def attempt(
    job: Job, suite: Suite, data: Data, meter: EnergyMeter, progress: Progress | None = None
) -> Attempt:  # fmt: skip
    """Do ``job``; whatever a user can cause or repair is part of the answer."""
    name = job.case.name
    try:
        splits = data.of(job)
    except EosfmError as e:
        return Attempt(problem=f"{name}: {e}", no_data=True)
    try:
        row, table = measure(job, suite, splits, meter, progress)
    except BandError as e:
        return Attempt(left_out=f"{name}, {job.model}: {e}")
    except EosfmError as e:
        return Attempt(problem=f"{name}, {job.model}: {e}")
    except (RuntimeError, MemoryError, ValueError) as e:  # out of memory, an operator that a device lacks, ...
        said = str(e).splitlines()[0] if str(e) else "out of memory"
        return Attempt(problem=f"{name}, {job.model}: {type(e).__name__}: {said}", trace=traceback.format_exc())
    return Attempt(row, table)


def measure(
    job: Job, suite: Suite, splits: Splits, meter: EnergyMeter, progress: Progress | None = None
) -> tuple[Row, NDArray[Any] | None]:
    """The row of ``job``, with the counts per test chip; a trial has none.

    Raises:
        EosfmError: of any kind; a trial that diverges is a row without a validation score.
    """
    case, started = job.case, time.time()
    alone = is_named(job.model) or job.model.startswith(SCRATCH)
    specialists = [] if alone else [load_specialist(e.folder) for e in specialists_of(suite, case)]
    if job.model.startswith(SINGLE):
        specialists = [s for s in specialists if s[1].name == job.model[len(SINGLE) :]]
    if job.model == UNTRAINED:
        specialists = untrained(specialists, job.seed)
    build: Callable[[], Ensemble | Backbone] = partial(_ensemble, specialists, splits, case, job.seed)
    if is_named(job.model):
        build = partial(open_backbone, job.model, splits, job.seed)
    common: Row = {
        "key": job.key, "case": case.name, "model": job.model, "seed": job.seed, "protocol": case.protocol, "mode": case.mode,
        "kind": splits.train.kind,
    }  # fmt: skip
    options: dict[str, Any] = {"cache_folder": suite.cache_folder, "progress": progress}
    if job.trial is not None:
        return {**common, **_trial(job, build, splits, meter, options), "at": round(started)}, None
    tried = 0 if job.model == CONSTANT else case.trials
    with meter.measure(job.model) as energy:
        if case.protocol == PROBE:
            done = probing.probe(job.model, build, splits, job.seed, suite.cache_folder)
        else:
            config = settings_of(case, job.seed)
            trained = train(job.model, case, build, splits, job.hyper.of(config) if job.hyper else config, **options)
            done = scored(trained, job.model, case, splits.test, job.seed, note_of(job.hyper, tried))
    if not math.isfinite(done.metrics[0]["value"]):
        raise ConfigError(f"{done.metrics[0]['name']} is not defined on these test chips; take others")
    parts = (splits.train, splits.validation, splits.test)
    row: Row = {
        **common, "differs": _differs(case, splits.train.kind), "metrics": [m for m in map(_finite, done.metrics) if m],
        "validation": done.validation,
        "classes": list(splits.train.classes), "parameters": done.parameters, "trained_parameters": done.trained,
        "note": done.note, "weights_sha256": done.weights, "trials": tried,
        "hyper": to_plain(job.hyper) if job.hyper else None, "dates": splits.train.dates,
        "data": splits.train.name, "data_sha256": [p.sha256() for p in parts], "split": splits.rule,
        "chips": [len(p) for p in parts],
        "specialists": {} if without_specialists(job.model) else {c.name: c.weights.sha256 for _, c in specialists},
        "seconds": round(energy.seconds, 2), "kwh": energy.kwh, "co2_kg": energy.co2_kg,
        "versions": {"eosfm": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads", "at": round(started),
    }  # fmt: skip
    return row, done.table


def _finite(metric: dict[str, Any]) -> dict[str, Any] | None:
    """Without bounds that are not numbers; None for a score that is none, as calibration where no chip has two classes."""
    if not math.isfinite(metric["value"]):
        return None
    return {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in metric.items()}


def _trial(job: Job, build: Any, splits: Splits, meter: EnergyMeter, options: dict[str, Any]) -> Row:
    assert job.trial is not None
    config = settings_of(job.case, job.seed)
    tries, problem, validation = hyper(job.trial, config, GeoBench2(), things=splits.train.kind in OBJECTS), "", None
    with meter.measure(f"{job.model}-trial") as energy:
        try:
            validation = train(job.model, job.case, build, splits, tries.of(config), **options).validation
        except TrainingError as e:
            problem = str(e)
    return {
        "trial": job.trial, "hyper": to_plain(tries), "validation": validation, "problem": problem,
        "seconds": round(energy.seconds, 2), "kwh": energy.kwh,
    }  # fmt: skip


def _ensemble(specialists: Sequence[Specialist], splits: Splits, case: Case, seed: int) -> Ensemble:
    return Ensemble(
        specialists, splits.train.bands, statistics=splits.train.statistics(), rules=case.rules, normalise=case.normalise,
        seed=purpose_seed(seed, "fusion"),
    )  # fmt: skip


def specialists_of(suite: Suite, case: Case) -> list[ZooEntry]:
    """The specialists that take part in a case; none, and no zoo is needed, where no model has any.

    Raises:
        ZooError, ConfigError: some are not there, or none is left.
    """
    if all(map(without_specialists, suite.models)):
        _require_names(suite, case)
        return []
    entries = find(suite.zoo, case.only)
    if unknown := set(case.leave_out) - {e.card.name for e in find(suite.zoo)}:
        raise ConfigError(f"{case.name}: leave_out names {', '.join(sorted(unknown))}, which {suite.zoo} does not hold")
    kept = [e for e in entries if e.card.name not in case.leave_out]
    if not kept:
        raise ConfigError(f"{case.name}: no specialist is left")
    return kept


def _require_names(suite: Suite, case: Case) -> None:
    """`ConfigError` where a case names specialists that its suite, in which none takes part, has no zoo for or not in it."""
    for key, names in (("leave_out", case.leave_out), ("only", case.only or ())):
        if names and not suite.zoo.is_dir():
            raise ConfigError(
                f"{case.name}: {key} names {', '.join(names)}, which means nothing here: no model of this suite has "
                f"specialists, and there is no zoo {suite.zoo}. Leave {key} out, or name the zoo that holds them"
            )
        if names:
            broken: dict[str, EosfmError] = {}
            there = {e.card.name for e in list_zoo(suite.zoo, broken)} | broken.keys()
            if unknown := sorted(set(names) - there):
                raise ConfigError(
                    f"{case.name}: {key} names {', '.join(unknown)}, which {suite.zoo} does not hold; {known(there)}"
                )


def _fewer(splits: Splits, share: float, seed: int) -> Splits:
    train = splits.train
    labels = joined_labels([train.batch([i])[1] for i in range(len(train))]).numpy()
    chosen = stratified(train.kind, class_shares(train.kind, labels, len(train.classes)), share, seed)
    part = train.subset(list(chosen.indices))
    return Splits(
        part, splits.validation, splits.test, rule=f"{splits.rule}; {len(part)} of {len(train)} training chips"
    )


def _differs(case: Case, kind: str) -> list[str]:
    """Where a row does not follow its protocol."""
    out = [f"training: {case.fit.epochs} epochs of batch {case.fit.batch_size}"] if case.fit else []
    if case.protocol == PANGAEA and kind in OBJECTS:
        out.append("PANGAEA has no such task: GEO-Bench-2's head")
    if case.head:
        what = DETECTORS.get(kind, case.head.decoder)
        out.append(f"head: {what}, {case.head.channels} channels")
    return out
