"""What `eosfm train` does: one specialist, or a queue of them, each with its own checkpoints and its own row of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from eosfm.cluster import Lost, Task, connected, run_tasks
from eosfm.config import absolute, paths_read, read_json, to_plain
from eosfm.contracts import ConfigError, EosfmError
from eosfm.data.files import open_data
from eosfm.files import require_place, sha256_bytes, write_json
from eosfm.runs import TrainRun
from eosfm.specialists.card import SpecialistCard
from eosfm.specialists.store import verify_specialist
from eosfm.training.energy import EnergyMeter
from eosfm.training.fit import train_specialist
from eosfm.training.initial import start_from
from eosfm.training.parallel import Job, cores, run_jobs
from eosfm.training.settings import Progress


@dataclass(frozen=True)
class Trained:
    """One row of a queue: the specialist's card, or the problem that kept it from being trained."""

    name: str
    card: SpecialistCard | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()
    already: bool = False
    """it lay in the zoo, trained with the same settings"""


def train_run(
    run: TrainRun,
    *,
    overwrite: bool = False,
    share: float = 1.0,
    settings: str | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train the specialist that ``run`` describes; a killed run continues.

    Args:
        run: see `TrainRun`.
        overwrite: replace a specialist of the same name.
        share: of the machine's energy that this process uses.
        settings: by which it is known again; default those of ``run``. A run that was sent elsewhere keeps its own.
        progress: called after each step.
    """
    require_place(run.zoo / run.name, overwrite=overwrite)
    splits = open_data(run.data)
    done = train_specialist(
        splits, run.fit, run.zoo, name=run.name, description=run.description, head=run.head,
        start=start_from(run.init, splits.train.bands, run.zoo, run.fit.seed), run=_folder(run),
        meter=EnergyMeter(share=share), progress=progress, overwrite=overwrite,
    )  # fmt: skip
    write_json(
        _folder(run) / "done.json", {"settings": settings or _settings(run), "weights": done.card.weights.sha256}
    )
    found = (*splits.train.unit_warnings(), *splits.train.label_warnings())
    return Trained(run.name, done.card, warnings=found)


def train_queue(
    runs: Sequence[TrainRun],
    *,
    overwrite: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Callable[[str, float, str], None] | None = None,
) -> list[Trained]:
    """Train every run; what cannot be trained becomes a row with its problem and does not stop the others.

    A specialist that the zoo holds from the same settings is not trained again, so a killed queue continues.

    Args:
        runs: in this order.
        overwrite: replace specialists that were made with other settings, too.
        workers: processes side by side (one CPU thread each); 1, the default, trains one after another with all threads,
            0 means one process per core. On a cluster: at most so many at once, by default as many as it has room for.
        cluster: address of a Ray cluster that trains them (see `eosfm.cluster.connected`); ``local`` is Ray on this machine.
            All paths must lie on a file system that its machines share.
        progress: called with name, fraction and line.

    Raises:
        ConfigError: two runs of one name in one zoo; a cluster that is not there or cannot do it.
    """
    places = [run.zoo.resolve() / run.name for run in runs]
    if twice := {p for p in places if places.count(p) > 1}:
        raise ConfigError(f"two configurations train {', '.join(sorted(map(str, twice)))}; give each a name of its own")
    if cluster is not None:
        return _train_on_cluster(runs, overwrite, workers or 0, cluster, progress)
    count = min(cores() if workers == 0 else workers or 1, len(runs))
    jobs = [Job(r.name, partial(_row, r, overwrite, _settings(r), count)) for r in runs]
    return run_jobs(jobs, workers=count, progress=progress)


def _train_on_cluster(
    runs: Sequence[TrainRun],
    overwrite: bool,
    at_once: int,
    address: str,
    progress: Callable[[str, float, str], None] | None,
) -> list[Trained]:
    sent = [absolute(replace(run, run=_folder(run))) for run in runs]
    tasks = [
        Task(a.name, partial(_row, a, overwrite, _settings(r)), a.fit.devices, a.fit.devices * a.fit.workers)
        for r, a in zip(runs, sent, strict=True)
    ]
    shared = [p for a in sent for p in (a.zoo, a.run or a.zoo)]
    with connected(address, cpus=cores(), shared=shared, given=[p for a in sent for p in paths_read(a)]):
        results = run_tasks(tasks, at_once=at_once, progress=progress)
    return [
        Trained(a.name, problem=f"{_LOST} ({done.reason}). {a.run} holds what was done; start the same command again")
        if isinstance(done, Lost)
        else done
        for a, done in zip(sent, results, strict=True)
    ]


_LOST = "the process that trained it was lost twice: killed, out of memory, or its machine is gone"


def _row(run: TrainRun, overwrite: bool, settings: str, beside: int = 1, progress: Progress | None = None) -> Trained:
    try:
        if (card := finished(run, settings)) is not None:
            return Trained(run.name, card, already=True)
        return train_run(run, overwrite=overwrite, share=1 / max(1, beside), settings=settings, progress=progress)
    except EosfmError as e:
        return Trained(run.name, problem=str(e))


def finished(run: TrainRun, settings: str | None = None) -> SpecialistCard | None:
    """The specialist's card, if it lies in the zoo, sound, and was trained with the settings of ``run`` (or ``settings``)."""
    note = _folder(run) / "done.json"
    if not note.exists() or not (run.zoo / run.name / "card.json").exists():
        return None
    card = verify_specialist(run.zoo / run.name)
    same = read_json(note) == {"settings": settings or _settings(run), "weights": card.weights.sha256}
    return card if same else None


def _folder(run: TrainRun) -> Path:
    return run.run or Path("runs") / run.name


def _settings(run: TrainRun) -> str:
    return sha256_bytes(repr(to_plain(run)).encode())
