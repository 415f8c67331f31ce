"""`eosfm bench`: every case with every model and seed, one row each. Finished rows are never measured again.

A row's key is the hash of whatever its score depends on (case, model, seed, the specialists' weights, the protocol's
numbers), so a changed file is another row, and two files that share a case share its rows. Trials are rows of a file of
their own; they come first, then the seeds run with what they chose. On a cluster workers measure, and only the process that
was started writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from eosfm._version import __version__
from eosfm.benchmark import trials
from eosfm.benchmark.ledger import Ledger, Row
from eosfm.benchmark.measuring import Attempt, Data, Job, attempt, specialists_of
from eosfm.benchmark.protocol import PROTOCOLS, settings
from eosfm.benchmark.side_by_side import require_same_data, require_same_weights
from eosfm.benchmark.suite import CONSTANT, SINGLE, Case, Suite, models_of, without_rows, without_specialists
from eosfm.benchmark.trials import Hyper
from eosfm.cluster import Lost, Task, connected, run_tasks
from eosfm.config import absolute, paths_read, read_record, to_plain
from eosfm.contracts import ConfigError, CorruptArtifact
from eosfm.files import sha256_bytes
from eosfm.training.energy import EnergyMeter
from eosfm.training.settings import Progress

_LATER = {"task": "", "mode": "frozen", "trials": 0, "join": None}
"""fields of `Case` that came after the first rows: they enter a key where they are not this"""


def plan(suite: Suite) -> list[Job]:
    """All rows that ``suite`` asks for.

    Raises:
        ZooError, ConfigError: specialists that are not there, or none left.
    """
    return [job for jobs in _planned(suite) for job in jobs if job.trial is None]


def plan_trials(suite: Suite) -> list[Job]:
    """All trials that they need, those of a model side by side."""
    return [job for jobs in _planned(suite) for job in jobs if job.trial is not None]


def matched(jobs: Sequence[Job], rows: Sequence[Row]) -> dict[str, Row]:
    """``rows`` by key.

    Raises:
        CorruptArtifact: one is not of the case, model and seed that its key stands for.
        ConfigError: two of those that were asked for saw other chips of one case.
    """
    found = {r["key"]: r for r in rows}
    for j in jobs:
        r = found.get(j.key)
        if r is not None and (r["case"], r["model"], r["seed"]) != (j.case.name, j.model, j.seed):
            raise CorruptArtifact(
                f"the row {j.key} is of {r['case']}, {r['model']}, seed {r['seed']}, and its key of {j}: it was edited; "
                "delete the line, and it is measured again"
            )
    before: list[Row] = []
    for j in jobs:
        if r := found.get(j.key):
            _require_same_data(j, r, before)
            before.append(r)
    return found


def _require_same_data(job: Job, row: Row, rows: Sequence[Row]) -> None:
    try:
        require_same_data(job.case, row, rows)
    except ConfigError as e:
        raise ConfigError(f"{job}: {e}") from None


def _planned(suite: Suite) -> list[list[Job]]:
    """Per case and model its trials, then its rows."""
    out = []
    for case in suite.cases:
        hashes = {e.card.name: (e.card.weights.sha256, e.card.reading) for e in specialists_of(suite, case)}
        numbers = [(s.name, repr(s.value)) for s in settings(PROTOCOLS[case.protocol])]
        first, *_ = seeds = suite.seeds_of(case)
        for model in models_of(suite, case, list(hashes)):
            used = {n: h for n, h in hashes.items() if not model.startswith(SINGLE) or model == SINGLE + n}
            seen = () if without_specialists(model) else tuple(used.items())
            count = 0 if model == CONSTANT else case.trials
            tries = [
                Job(case, model, first, _key((_plain(replace(case, trials=0)), numbers, model, first, seen, n)), n)
                for n in range(count)
            ]
            judge = (first,) if count else ()  # the seed that chose
            out.append(
                tries + [Job(case, model, s, _key((_plain(case), numbers, model, s, seen, *judge))) for s in seeds]
            )
    return out


def _plain(case: Case) -> object:
    return {k: v for k, v in to_plain(case).items() if k not in _LATER or (k != "task" and v != _LATER[k])}


def _key(facts: object) -> str:
    return sha256_bytes(repr(facts).encode())[:24]


@dataclass(frozen=True)
class Suited:
    """What a suite has by now."""

    rows: list[Row]
    """in the suite's order"""
    left_out: list[str]
    """models that cannot read a case's bands, with the reason"""
    problems: list[str]
    """what should have been measured and could not be, with the reason"""
    unfit: list[str]
    """models that a case's protocol does not measure, with the reason"""


PROBLEMS = "problems.log"
"""beside the results: tracebacks of what nobody foresaw, the newest last"""


@dataclass
class _Book:
    """Where attempts are noted: rows in the ledgers, at once; the rest in memory, and tracebacks in `PROBLEMS`."""

    results: Ledger
    trials: Ledger
    asked: frozenset[str]
    """keys of the suite's rows: what else lies in the ledger may be of other data"""
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)
    problems: dict[tuple[str, str], str] = field(default_factory=dict)

    def closed(self, job: Job) -> bool:
        """Whether the case, or the model on it, has failed already."""
        one = (job.case.name, job.model)
        return one in self.left_out or one in self.problems or (job.case.name, "") in self.problems

    def note(self, job: Job, done: Attempt) -> None:
        """Write what came of ``job``."""
        one = (job.case.name, "" if done.no_data else job.model)
        if done.row is not None and job.trial is None:
            rows = self.results.rows()
            try:
                require_same_weights(done.row, rows)
            except ConfigError as e:
                self.problems[one] = f"{job.case.name}, {job.model}: {e}"
                return
            try:
                _require_same_data(job, done.row, [r for r in rows if r["key"] in self.asked])
            except ConfigError as e:
                self.problems[job.case.name, ""] = str(e)  # the rest of the case would see these data, too
                return
        if done.row is not None:
            (self.results if job.trial is None else self.trials).add(done.row, done.table)
        elif done.left_out:
            self.left_out[one] = done.left_out
        else:
            self.problems[one] = done.problem + (self._traced(job, done.trace) if done.trace else "")

    def _traced(self, job: Job, trace: str) -> str:
        """Append a traceback to `PROBLEMS`, and say where."""
        path = self.results.folder / PROBLEMS
        now = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with path.open("a", encoding="utf-8") as f:
                f.write(f"---- {now} eosfm {__version__}: {job}\n{trace}\n")
        except OSError as e:
            return f" (its traceback cannot be written to {path}: {e.strerror})"
        return f" (traceback: the end of {path})"


def run_suite(
    suite: Suite, progress: Progress | None = None, *, cluster: str | None = None, workers: int = 0
) -> Suited:
    """Measure what is missing. A case or a model that fails does not stop the others.

    Args:
        suite: what to measure.
        progress: called with the fraction done and a line.
        cluster: address of a Ray cluster whose machines measure (`eosfm.cluster.connected`); default this process.
        workers: on a cluster, at most so many rows at once; 0 is as many as there is room for.

    Raises:
        ConfigError: another process writes to the same results; rows there of other data; a cluster that is not there or
            cannot do it.
    """
    jobs, tries = plan(suite), plan_trials(suite)
    with ExitStack() as stack:
        results = stack.enter_context(Ledger(suite.folder).writing())
        book = _Book(results, Ledger(suite.folder, "trials.jsonl"), frozenset(j.key for j in jobs))
        book.trials.mend()
        there = matched(jobs, results.rows())
        todo = [j for j in jobs if j.key not in there]
        tried = {r["key"] for r in book.trials.rows()}
        wanted = {(j.case.name, j.model) for j in todo}
        first = [t for t in tries if t.key not in tried and (t.case.name, t.model) in wanted]
        each = _serial
        if cluster is not None and todo:
            there_too = absolute(suite)
            shared = [p for p in [there_too.cache_folder] if p]
            given = [there_too.zoo, *paths_read(there_too.cases)]
            stack.enter_context(connected(cluster, shared=shared, given=given))
            each = partial(_on_cluster, workers=workers)
        total = len(first) + len(todo)
        each(suite, first, book, _part(progress, 0, total))
        rows = [_decided(j, tries, book) for j in todo]
        each(suite, [j for j in rows if j is not None], book, _part(progress, len(first), total))
        found = {r["key"]: r for r in results.rows()}
    return Suited(
        [found[j.key] for j in jobs if j.key in found], list(book.left_out.values()), list(book.problems.values()),
        without_rows(suite),
    )  # fmt: skip


def _decided(job: Job, tries: Sequence[Job], book: _Book) -> Job | None:
    """``job`` with what its trials chose; None where they chose nothing."""
    own = [t.key for t in tries if (t.case.name, t.model) == (job.case.name, job.model)]
    if not own or book.closed(job):
        return job
    there = {r["key"]: r for r in book.trials.rows()}
    best = trials.best([there[k] for k in own if k in there])
    if best is None or len(there.keys() & set(own)) < len(own):
        reasons = sorted({there[k]["problem"] for k in own if k in there} - {""}) or ["some were lost"]
        book.problems[job.case.name, job.model] = f"{job.case.name}, {job.model}: its trials: {'; '.join(reasons)}"
        return None
    return replace(job, hyper=read_record(Hyper, best["hyper"], str(book.trials.path)))


Part = Callable[[int], Progress | None]


def _serial(suite: Suite, jobs: Sequence[Job], book: _Book, part: Part) -> None:
    data, meter = Data(), EnergyMeter() if jobs else None
    for number, job in enumerate(jobs):
        if not book.closed(job):
            assert meter is not None
            tell = part(number)
            if tell:
                tell(0.0, str(job))
            book.note(job, attempt(job, suite, data, meter, _labelled(tell, str(job))))


def _on_cluster(suite: Suite, jobs: Sequence[Job], book: _Book, part: Part, *, workers: int) -> None:
    sent, open_jobs, landed = absolute(suite), [j for j in jobs if not book.closed(j)], []
    tasks = [Task(str(j), partial(_elsewhere, sent, replace(j, case=absolute(j.case)))) for j in open_jobs]

    def note(number: int, done: Attempt | Lost) -> None:
        landed.append(number)
        job = open_jobs[number]
        if isinstance(done, Lost):
            done = Attempt(problem=f"{job}: the process that measured it was lost twice ({done.reason}); start again")
        if not book.closed(job) or done.row is not None:
            book.note(job, done)

    def tell(name: str, fraction: float, line: str) -> None:
        if step := part(len(landed)):
            step(min(fraction, 0.99), line if line.startswith(name) else f"{name}: {line}")

    if tasks:
        run_tasks(tasks, at_once=workers, progress=tell, landed=note)


def _elsewhere(suite: Suite, job: Job, beside: int = 1, progress: Progress | None = None) -> Attempt:
    """What a worker does: all of it but writing."""
    return attempt(job, suite, Data(), EnergyMeter(share=1 / max(1, beside)), progress)


def _part(progress: Progress | None, before: int, total: int) -> Part:
    def part(number: int) -> Progress | None:
        if progress is None:
            return None
        done = before + number
        return lambda fraction, line: progress((done + fraction) / total, f"{done + 1} of {total}: {line}")

    return part


def _labelled(tell: Progress | None, label: str) -> Progress | None:
    return None if tell is None else lambda fraction, line: tell(fraction, f"{label}: {line}")
