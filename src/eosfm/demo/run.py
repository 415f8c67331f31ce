"""Run a demo plan: train what is missing, compare, map a scene, write the report. An interrupted demo continues."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from eosfm.benchmark.compare import Comparison, Part, compare, merged
from eosfm.benchmark.results import load_comparison, save_comparison
from eosfm.config import read_json, to_plain
from eosfm.contracts import EosfmError
from eosfm.data.chips import Splits
from eosfm.demo.embedded import embedded_plan
from eosfm.demo.plan import DemoPlan, SpecialistPlan, TaskPlan
from eosfm.demo.scene import Mapped, map_scene
from eosfm.files import require_place, sha256_bytes, write_json
from eosfm.progress import bars
from eosfm.specialists.card import SpecialistCard
from eosfm.specialists.store import verify_specialist
from eosfm.tasks.model import TaskSpec
from eosfm.training.energy import Energy, EnergyMeter
from eosfm.training.fit import train_specialist
from eosfm.training.parallel import Job, cores, run_jobs
from eosfm.training.settings import Progress


@dataclass
class DemoResult:
    """Everything the report is made of."""

    plan: DemoPlan
    zoo: Path
    cards: list[SpecialistCard] = field(default_factory=list)
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)
    scene: Mapped | None = None
    phases: dict[str, Energy] = field(default_factory=dict)
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)


def run_demo(
    *, data: Path | None, out: Path, report: Path, seed: int = 0, workers: int = 0, quick: bool = False
) -> DemoResult:
    """Run the embedded demo, or the one on real data where ``data`` is given, and write ``report``.

    Args:
        data: folder of small real data, or None.
        out: for specialists (``zoo``), models, results; what is finished there is not computed again.
        report: HTML file to write.
        seed: of everything random.
        workers: processes side by side; 0 is one per core.
        quick: a smoke test whose scores mean nothing.
    """
    for path in (out / "phases.json", report):
        require_place(path, overwrite=True)
    if data is None:
        plan = embedded_plan(seed, quick)
    else:
        from eosfm.demo.real import real_plan

        plan = real_plan(data, seed, quick)
    zoo = out / "zoo"
    result = DemoResult(plan, zoo)
    meter = EnergyMeter()
    count = workers or cores()
    with meter.measure("specialists") as energy, bars("1/4 specialists", len(plan.specialists)) as tell:
        jobs = [Job(p.name, train_plan, (p, out, count)) for p in plan.specialists]
        result.cards = run_jobs(jobs, workers=count, progress=tell)
    _add_phase(result, out, "training the specialists", energy)
    work = [(t, s) for t in plan.tasks for s in t.seeds]
    parts: tuple[Part, ...] = ("frozen", "baselines")
    with meter.measure("comparison") as energy, bars("2/4 unseen tasks, seeds and baselines", 2 * len(work)) as tell:
        names = [p.name for p in plan.specialists]
        jobs_of = [
            Job(
                f"{t.name}, seed {s}, {part}", compare_plan, (t, s, part, out, [n for n in names if n not in t.exclude])
            )
            for part in parts
            for t, s in work
        ]
        done = run_jobs(jobs_of, workers=count, progress=tell)
        for (task, _), frozen, baselines in zip(work, done[: len(work)], done[len(work) :], strict=True):
            result.comparisons.setdefault(task.name, []).append(merged(frozen, baselines))
    _add_phase(result, out, "adapting to unseen tasks, all methods and seeds", energy)
    with meter.measure("scene") as energy, bars("3/4 mapping a scene") as tell:
        tell("scene", 0.0, "predicting a GeoTIFF in tiles")
        task = next(t for t in plan.tasks if t.name == plan.scene_task)
        result.scene = map_scene(
            model_folder(out, task), out / "scene", data=data, seed=seed, size=128 if quick else 640
        )
    _add_phase(result, out, "mapping a scene", energy)
    result.seconds = sum(e.seconds for e in result.phases.values())
    with bars("4/4 report") as tell:
        tell("report", 0.5, "drawing")
        from eosfm.demo.story import write_story

        write_story(result, report, data=data, seed=seed, quick=quick)
    return result


def _add_phase(result: DemoResult, out: Path, name: str, energy: Energy) -> None:
    """Note what a phase cost, on top of what earlier sessions in ``out`` spent on it: a resumed demo is not a cheap one."""
    path = out / "phases.json"
    stored = read_json(path) if path.exists() else {}
    before = stored.get(name, {"seconds": 0.0, "kwh": 0.0, "co2_kg": 0.0})
    total = Energy(
        seconds=before["seconds"] + energy.seconds,
        kwh=before["kwh"] + (energy.kwh or 0.0),
        co2_kg=before["co2_kg"] + (energy.co2_kg or 0.0),
        method=energy.method,
    )
    write_json(path, {**stored, name: {"seconds": total.seconds, "kwh": total.kwh, "co2_kg": total.co2_kg}})
    result.phases[name] = total


def model_folder(out: Path, task: TaskPlan) -> Path:
    """Where the first seed's adapted ensemble is stored."""
    return out / "models" / task.name


def train_plan(plan: SpecialistPlan, out: Path, share: int, progress: Progress | None = None) -> SpecialistCard:
    """Train one planned specialist, unless the zoo holds it from the same data and settings."""
    zoo = out / "zoo"
    splits = plan.make()
    key = sha256_bytes(f"{splits.train.sha256()}{to_plain(plan.fit)}{to_plain(plan.head)}{plan.name}".encode())
    note = out / "specialists" / f"{plan.name}.json"
    if (zoo / plan.name / "card.json").exists() and note.exists():
        try:
            card = verify_specialist(zoo / plan.name)
            if f'"{key}"' in note.read_text(encoding="utf-8"):
                return card
        except EosfmError:
            pass  # broken or edited: train it again
    done = train_specialist(
        splits, plan.fit, zoo, name=plan.name, description=plan.description, head=plan.head,
        run=out / "runs" / f"{plan.name}-{key[:8]}", meter=EnergyMeter(share=1 / share), progress=progress, overwrite=True,
    )  # fmt: skip
    write_json(note, {"key": key})
    return done.card


def compare_plan(
    task: TaskPlan, seed: int, part: Part, out: Path, names: list[str], progress: Progress | None = None
) -> Comparison:
    """Compare on one task with one seed, unless the result is there from the same specialists, data and settings."""
    splits: Splits = task.make(seed)
    spec = TaskSpec(
        kind=splits.train.kind, classes=splits.train.classes, chip_size=splits.train.size[-1], head=task.head
    )  # fmt: skip
    weights = [verify_specialist(out / "zoo" / n).weights.sha256 for n in names]
    text = (
        f"{splits.train.sha256()}{splits.test.sha256()}{to_plain(task.protocol)}{to_plain(spec)}{names}{weights}{seed}"
    )
    key = sha256_bytes(text.encode())[:16]
    folder = out / "results" / f"{task.name}-{seed}-{part}-{key}"
    if (folder / "rows.json").exists():
        return load_comparison(folder)
    keep = model_folder(out, task) if seed == task.seeds[0] else None
    done = compare(
        out / "zoo", names, splits, spec, task.protocol, seed, out / "runs" / f"{task.name}-{seed}-{key}",
        part=part, keep=keep, progress=progress,
    )  # fmt: skip
    save_comparison(done, spec.kind, folder)
    return done
