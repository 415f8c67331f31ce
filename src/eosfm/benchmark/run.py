"""`eosfm bench`: every case with every model and seed, one row each. Finished rows are never measured again.

A row's key is the hash of whatever its score depends on (case, model, seed, the specialists' weights, the protocol's
numbers), so a changed file is another row, and two files that share a case share its rows.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eosfm._version import __version__
from eosfm.benchmark import probing
from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.baselines import ConstantPredictor, scratch, untrained
from eosfm.benchmark.frozen import adapt_backbone, open_backbone, require_same_weights
from eosfm.benchmark.ledger import Ledger, Measured, Row
from eosfm.benchmark.protocol import FrozenProbe, Pangaea, settings
from eosfm.benchmark.readings import is_named
from eosfm.benchmark.subsets import class_shares, stratified
from eosfm.benchmark.suite import (
    CONSTANT,
    PROBE,
    SCRATCH,
    SCRATCH_OF,
    SINGLE,
    UNTRAINED,
    Case,
    Suite,
    models_of,
    without_specialists,
)
from eosfm.config import to_plain
from eosfm.contracts import BandError, ConfigError, EosfmError
from eosfm.data.chips import Splits
from eosfm.data.files import open_data
from eosfm.ensemble import Ensemble, Specialist
from eosfm.files import sha256_bytes
from eosfm.seeding import purpose_seed
from eosfm.specialists.store import load_specialist
from eosfm.specialists.zoo import ZooEntry, find
from eosfm.tasks.model import HeadConfig, TaskSpec
from eosfm.training.energy import EnergyMeter
from eosfm.training.fit import adapt_ensemble
from eosfm.training.module import fit
from eosfm.training.scoring import score
from eosfm.training.settings import Progress


@dataclass(frozen=True)
class Job:
    """One row to be."""

    case: Case
    model: str
    seed: int
    key: str


def plan(suite: Suite) -> list[Job]:
    """All rows that ``suite`` asks for.

    Raises:
        ZooError, ConfigError: specialists that are not there, or none left.
    """
    jobs = []
    for case in suite.cases:
        entries = _specialists(suite, case)
        hashes = {e.card.name: e.card.weights.sha256 for e in entries}
        protocol = FrozenProbe() if case.protocol == PROBE else Pangaea()
        numbers = [(s.name, repr(s.value)) for s in settings(protocol)]
        for model in models_of(suite, case, list(hashes)):
            used = {n: h for n, h in hashes.items() if not model.startswith(SINGLE) or model == SINGLE + n}
            seen = () if without_specialists(model) else tuple(used.items())
            for seed in suite.seeds:
                facts = (to_plain(case), numbers, model, seed, seen)
                jobs.append(Job(case, model, seed, sha256_bytes(repr(facts).encode())[:24]))
    return jobs


@dataclass(frozen=True)
class Suited:
    """What a suite has by now."""

    rows: list[Row]
    """in the suite's order"""
    left_out: list[str]
    """models that cannot read a case's bands, with the reason"""
    problems: list[str]
    """what should have been measured and could not be, with the reason"""


def run_suite(suite: Suite, progress: Progress | None = None) -> Suited:
    """Measure what is missing. A case or a model that fails does not stop the others.

    Raises:
        ConfigError: another process writes to the same results.
    """
    left_out: dict[tuple[str, str], str] = {}
    problems: dict[tuple[str, str], str] = {}
    jobs = plan(suite)
    with Ledger(suite.folder).writing() as ledger:
        there = {r["key"]: r for r in ledger.rows()}
        todo = [j for j in jobs if j.key not in there]
        meter = EnergyMeter() if todo else None
        opened: tuple[object, Splits] | None = None
        for number, job in enumerate(todo):
            name, one = job.case.name, (job.case.name, job.model)
            if one in left_out or one in problems or (name, "") in problems:
                continue
            data = replace(job.case.data, seed=job.seed) if job.case.draw else job.case.data
            wanted = (data, job.case.labels, job.seed if job.case.labels < 1 else None)
            if opened is None or opened[0] != wanted:
                try:
                    opened = wanted, _data(job.case, data, job.seed)
                except EosfmError as e:
                    problems[name, ""] = f"{name}: {e}"
                    continue
            try:
                row, table = _measure(job, suite, opened[1], meter, _within(progress, number, len(todo), job))
                require_same_weights(row, list(there.values()))
            except BandError as e:
                left_out[one] = f"{name}, {job.model}: {e}"
            except EosfmError as e:
                problems[one] = f"{name}, {job.model}: {e}"
            else:
                ledger.add(row, table)
                there[job.key] = row
    return Suited([there[j.key] for j in jobs if j.key in there], list(left_out.values()), list(problems.values()))


def _measure(
    job: Job, suite: Suite, splits: Splits, meter: EnergyMeter | None, progress: Progress | None
) -> tuple[Row, NDArray[Any]]:
    case, started = job.case, time.time()
    alone = is_named(job.model) or job.model.startswith(SCRATCH_OF)
    specialists = [] if alone else [load_specialist(e.folder) for e in _specialists(suite, case)]
    if job.model.startswith(SINGLE):
        specialists = [s for s in specialists if s[1].name == job.model[len(SINGLE) :]]
    if job.model == UNTRAINED:
        specialists = untrained(specialists, job.seed)
    build: Callable[[], Ensemble | Backbone] = partial(_ensemble, specialists, splits, case, job.seed)
    if is_named(job.model):
        build = partial(open_backbone, job.model, splits, job.seed)
    assert meter is not None
    with meter.measure(job.model) as energy:
        if case.protocol == PROBE:
            done = probing.probe(job.model, build, splits, job.seed)
        else:
            done = _train(job, build, splits, progress)
    parts = (splits.train, splits.validation, splits.test)
    row: Row = {
        "key": job.key, "case": case.name, "model": job.model, "seed": job.seed, "protocol": case.protocol,
        "differs": _differs(case), "metrics": done.metrics, "validation": done.validation, "kind": splits.train.kind,
        "classes": list(splits.train.classes), "parameters": done.parameters, "trained_parameters": done.trained,
        "note": done.note, "weights_sha256": done.weights, "data": splits.train.name, "data_sha256": [p.sha256() for p in parts],
        "split": splits.rule, "chips": [len(p) for p in parts],
        "specialists": {c.name: c.weights.sha256 for _, c in specialists},
        "seconds": round(energy.seconds, 2), "kwh": energy.kwh, "co2_kg": energy.co2_kg,
        "versions": {"eosfm": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads", "at": round(started),
    }  # fmt: skip
    return row, done.table


def _train(job: Job, build: Callable[[], Ensemble | Backbone], splits: Splits, progress: Progress | None) -> Measured:
    """PANGAEA: fusion and decoder on a frozen encoder; the test split is looked at once."""
    protocol, case = Pangaea(), job.case
    config = replace(case.fit or protocol.fit_config(job.seed), seed=job.seed)
    head = case.head or HeadConfig(
        decoder=protocol.decoder, channels=protocol.decoder_channels, dropout=protocol.dropout
    )
    side = -(-max(splits.train.size) // 32) * 32
    task = TaskSpec(kind=splits.train.kind, classes=splits.train.classes, chip_size=side, head=head)
    best: float | None = None
    note = weights = ""
    if job.model == CONSTANT:
        model: torch.nn.Module = ConstantPredictor(splits.train)
    elif job.model.startswith(SCRATCH):
        model = scratch(job.model.removeprefix(SCRATCH).removeprefix(":"), splits.train, task, job.seed)
        with tempfile.TemporaryDirectory(prefix="eosfm-bench-") as folder:
            best = fit(
                model, task.kind, len(task.classes), splits.train, splits.validation, config, folder=Path(folder),
                progress=progress, label=job.model, short=True,
            ).best  # fmt: skip
    elif isinstance(encoder := build(), Backbone):
        model, result = adapt_backbone(encoder, splits, task, config, progress=progress, label=job.model)
        best, note, weights = result.best, encoder.note, encoder.sha256
    else:
        model, result, _ = adapt_ensemble(encoder, splits, task, config, progress=progress, label=job.model)
        best = result.best
    scores = score(model.eval(), splits.test, job.seed)
    metrics = [{"name": m.name, "value": m.value, "low": m.low, "high": m.high} for m in scores.metrics]
    count = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for n, p in model.named_parameters() if ".encoders." in f".{n}")
    trained = 0 if job.model == CONSTANT else count - frozen
    return Measured(scores.per_chip, metrics, best, count, trained, note, weights)


def _ensemble(specialists: Sequence[Specialist], splits: Splits, case: Case, seed: int) -> Ensemble:
    return Ensemble(
        specialists, splits.train.bands, statistics=splits.train.statistics(), rules=case.rules, normalise=case.normalise,
        seed=purpose_seed(seed, "fusion"),
    )  # fmt: skip


def _specialists(suite: Suite, case: Case) -> list[ZooEntry]:
    entries = find(suite.zoo, case.only)
    if unknown := set(case.leave_out) - {e.card.name for e in find(suite.zoo)}:
        raise ConfigError(f"{case.name}: leave_out names {', '.join(sorted(unknown))}, which {suite.zoo} does not hold")
    kept = [e for e in entries if e.card.name not in case.leave_out]
    if not kept:
        raise ConfigError(f"{case.name}: no specialist is left")
    return kept


def _data(case: Case, data: Any, seed: int) -> Splits:
    splits = open_data(data)
    if case.labels == 1:
        return splits
    train = splits.train
    labels = np.concatenate([train.batch([i])[1].numpy() for i in range(len(train))])
    chosen = stratified(train.kind, class_shares(train.kind, labels, len(train.classes)), case.labels, seed)
    part = train.subset(list(chosen.indices))
    return Splits(
        part, splits.validation, splits.test, rule=f"{splits.rule}; {len(part)} of {len(train)} training chips"
    )


def _differs(case: Case) -> list[str]:
    """Where a row does not follow its protocol."""
    out = [f"training: {case.fit.epochs} epochs of batch {case.fit.batch_size}"] if case.fit else []
    return out + ([f"head: {case.head.decoder}, {case.head.channels} channels"] if case.head else [])


def _within(progress: Progress | None, number: int, total: int, job: Job) -> Progress | None:
    if progress is None:
        return None
    label = f"{number + 1} of {total}: {job.case.name}, {job.model}, seed {job.seed}"
    progress(number / total, label)
    return lambda fraction, line: progress((number + fraction) / total, f"{label}: {line}")
