"""Every command of ``eosfm`` as a documented Python function. Importing this module imports nothing heavy.

Paths may be strings; results are returned, and printed by the command line (`eosfm.cli`) only.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from eosfm.contracts import ConfigError
from eosfm.outcomes import Outcome, queue_outcome, score_table

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override settings: data.root=/data fit.epochs=5")
]
ZooDir = Annotated[Path, typer.Argument(metavar="ZOO", help="Folder of specialists.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Folder of small real data; without it, synthetic worlds are made.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where everything goes, default runs/demo; an interrupted demo continues.")
    ] = None,
    report: Annotated[Path, typer.Option(help="The HTML report.")] = Path("report.html"),
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes side by side; 0 is one per core.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A smoke test: tiny data, two epochs, no meaning.")] = False,
) -> Outcome:
    """Run the whole paper in miniature. Train specialists, fuse, adapt, compare, map a scene, write a report."""
    from eosfm.demo.run import run_demo

    out = out or Path("runs/demo-quick" if quick else "runs/demo")
    summary = run_demo(data=data, out=out, report=report, seed=seed, workers=workers, quick=quick)
    return Outcome(summary, lines=tuple(summary.lines))


def train(
    config: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG... [KEY=VALUE]...", help="YAML files, then settings: data.root=/data fit.epochs=5"
        ),
    ],
    workers: Annotated[
        int | None, typer.Option(help="Of several files, so many side by side (default 1); 0 is one per core.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Train on a Ray cluster: auto, ray://HOST:10001, or local for this machine.")
    ] = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Train specialists and store them in a zoo. Several files make a queue; a killed run continues when started again."""
    from eosfm.progress import bar, bars
    from eosfm.queue import train_queue, train_run
    from eosfm.runs import TrainRun, read_run

    files, overrides = [c for c in config if "=" not in c], [c for c in config if "=" in c]
    for word in files:
        if not Path(word).exists() and not word.endswith((".yaml", ".yml")):
            raise ConfigError(
                f"{word!r} is neither a YAML file nor a setting: expected key=value, for example fit.epochs=5"
            )
    if not files:
        raise ConfigError(
            "no configuration file; expected for example: eosfm train recipes/eurosat-rgb.yaml data.root=/data"
        )
    runs = [read_run(TrainRun, Path(f), overrides) for f in files]
    assert all(isinstance(r, TrainRun) for r in runs)
    if len(runs) == 1 and cluster is None:
        run = runs[0]
        with bar(f"training {run.name}") as progress:
            done = train_run(run, overwrite=overwrite, progress=progress)  # type: ignore[arg-type]
        assert done.card is not None
        rows = [("score (test)", "value", "95 % interval", "samples")]
        rows += [(m.name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}", str(m.samples)) for m in done.card.metrics]
        warnings = [f"warning: {w}" for w in done.warnings]
        return Outcome(
            done, table=tuple(rows), lines=(*warnings, f"stored {run.zoo / run.name} ({done.card.reference})")
        )
    with bars("specialists", len(runs)) as tell:
        results = train_queue(runs, overwrite=overwrite, workers=workers, cluster=cluster, progress=tell)  # type: ignore[arg-type]
    return queue_outcome(results)


def pretrain(
    config: Annotated[Path, typer.Argument(help="YAML file; see recipes/pretrain-synthetic.yaml.")],
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Make a specialist from images without labels. Masked autoencoding; a killed run continues when started again."""
    from eosfm.progress import bar
    from eosfm.training.pretrain import run_pretrain

    with bar(f"pretraining {config.stem}") as progress:
        done = run_pretrain(config, overrides or (), overwrite=overwrite, progress=progress)
    rows = [("score (validation)", "value", "95 % interval", "samples")]
    rows += [(m.name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}", str(m.samples)) for m in done.card.metrics]
    return Outcome(done, table=tuple(rows), lines=(f"stored {done.card.reference}",))


def compose(
    zoo: ZooDir,
    output: Annotated[Path, typer.Argument(help="Folder to write the ensemble to.")],
    names: Annotated[list[str] | None, typer.Option("--specialist", help="Take only these (repeat).")] = None,
    rules: Annotated[
        list[str] | None, typer.Option("--rule", help="Adaptation rules (repeat); default all but the lossy.")
    ] = None,
    fusion: Annotated[str, typer.Option(help="conv1x1, mlp, concat, sum or product.")] = "conv1x1",
    normalise: Annotated[str, typer.Option(help="Per view, before the fusion: none, layer or batch.")] = "none",
    overwrite: Overwrite = False,
) -> Outcome:
    """Put specialists together. Writes an ensemble: a list with hashes; the weights stay in the zoo."""
    from eosfm.composition import compose as write
    from eosfm.rules import DEFAULT_RULES

    if normalise not in ("none", "layer", "batch"):
        raise ConfigError(f"unknown normalisation {normalise!r}; known: none, layer, batch")
    manifest = write(
        zoo, output, names=names or None, rules=rules or DEFAULT_RULES, fusion=fusion,
        normalise=normalise, overwrite=overwrite,  # type: ignore[arg-type]  # checked above
    )  # fmt: skip
    return Outcome(manifest, lines=(f"{output}: {len(manifest.specialists)} specialists, fusion {fusion}",))


def routes(
    path: Annotated[Path, typer.Argument(metavar="ENSEMBLE_OR_ZOO", help="Folder of an ensemble or of specialists.")],
    bands: Annotated[str, typer.Option(help="The input's bands: SENSOR:BAND,BAND@UNIT, joined by '+'.")],
    rules: Annotated[
        list[str] | None, typer.Option("--rule", help="Adaptation rules (repeat), e.g. nearest-wavelength:30.")
    ] = None,
    statistics: Annotated[
        bool, typer.Option(help="Plan as `adapt` does, which measures the input's statistics.")
    ] = True,
) -> Outcome:
    """Show who reads which bands, and how. Rule, bands, units, statistics; and who is skipped, and why."""
    from eosfm.adaptation import plan_views
    from eosfm.bands import BandSet
    from eosfm.composition import MANIFEST, read_manifest
    from eosfm.contracts import ZooError
    from eosfm.rules import DEFAULT_RULES
    from eosfm.specialists.zoo import find
    from eosfm.statistics import BandStatistics

    wanted = BandSet.parse(bands)
    if (path / MANIFEST).exists():
        manifest = read_manifest(path / MANIFEST)
        entries = find((path / manifest.zoo).resolve(), [r.name for r in manifest.specialists])
        chosen = tuple(rules or manifest.rules)
    elif path.is_dir():
        entries, chosen = find(path), tuple(rules or DEFAULT_RULES)
    else:
        raise ZooError(f"{path}: no such folder; expected an ensemble or a zoo")
    own = BandStatistics(mean=(0.0,) * len(wanted), std=(1.0,) * len(wanted)) if statistics else None
    rows = [("specialist", "rule", "reads", "units", "standardised with", "note")]
    plans, skipped = [], []
    lost: list[str] = []
    for e in entries:
        views, reason = plan_views(e.card.name, e.card.bandset(), e.card.statistics, wanted, own, chosen)
        plans += views
        skipped += [(e.card.name, reason)] if reason and not views else []
        lost += [f"{e.card.name} loses a view: {reason}"] if reason and views else []
        for v in views:
            units = ", ".join(dict.fromkeys(a if a == b else f"{a} -> {b}" for a, b in v.convert))
            whose = "the specialist's statistics" if v.normalise == "specialist" else "the input's statistics"
            rows.append((v.specialist, v.rule, ", ".join(v.bands), units, whose, v.note))
    lines = [f"{len(plans)} views of {len(entries) - len(skipped)} specialists; {len(skipped)} skipped"]
    lines += [*lost, *(f"skipped {name}: {reason}" for name, reason in skipped)]
    return Outcome((plans, skipped), table=tuple(rows) if plans else (), lines=tuple(lines), failed=not plans)


def adapt(
    config: Annotated[Path, typer.Argument(help="YAML file; see docs/configuration.md.")],
    overrides: Overrides = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Train fusion and decoder for a task. Specialists stay frozen; a killed run continues when started again."""
    from eosfm.data.files import open_data
    from eosfm.dates import default_join
    from eosfm.ensemble import Ensemble
    from eosfm.files import require_place
    from eosfm.progress import bar
    from eosfm.runs import AdaptRun, read_run
    from eosfm.specialists.store import load_specialist
    from eosfm.specialists.zoo import find
    from eosfm.tasks.model import TaskSpec
    from eosfm.tasks.stored import learned_choice, load_task_model, save_task_model
    from eosfm.training.energy import EnergyMeter
    from eosfm.training.fit import adapt_ensemble, data_info, training_info
    from eosfm.training.scoring import score

    run = read_run(AdaptRun, config, overrides or ())
    assert isinstance(run, AdaptRun)
    folder = run.output or Path("models") / run.name
    checkpoints = run.run or Path("runs") / run.name
    require_place(folder, overwrite=overwrite)
    require_place(checkpoints / "run.json", overwrite=True)
    splits = open_data(run.data)
    try:
        task = TaskSpec(
            kind=splits.train.kind, classes=splits.train.classes, chip_size=splits.train.size[-1], head=run.head,
            colours=run.colours, dates=splits.train.dates, join=run.join or default_join(splits.train.dates),
        )  # fmt: skip
    except ValueError as e:
        raise ConfigError(f"{config}: {e}") from None
    start = None
    if run.start is not None:
        start, before = load_task_model(run.start, run.zoo)
        ensemble, task = (
            start.encoder,
            replace(task, head=before.task.head, dates=before.task.dates, join=before.task.join),
        )
        if splits.train.bands != ensemble.bands or splits.train.classes != before.task.classes:
            raise ConfigError(
                f"start: {run.start} reads {ensemble.bands} and predicts {', '.join(before.task.classes)}; "
                f"the data are {splits.train.bands} with {', '.join(splits.train.classes)}"
            )
    else:
        ensemble = Ensemble(
            [load_specialist(e.folder) for e in find(run.zoo, run.specialists)], splits.train.bands,
            statistics=splits.train.statistics(), rules=run.rules, fusion=run.fusion, normalise=run.normalise,
            seed=run.fit.seed,
        )  # fmt: skip
    with bar(f"adapting {run.name}") as progress:
        model, _, energy = adapt_ensemble(
            ensemble, splits, task, run.fit, cache=run.cache, cache_folder=run.cache_folder, start=start, selection=run.selection,
            run=checkpoints, meter=EnergyMeter(), progress=progress, label=run.name,
        )  # fmt: skip
    result = score(model, splits.test, run.fit.seed)
    card = save_task_model(
        model, folder, run.zoo, name=run.name, data=data_info(splits, splits.train.sha256()),
        training=training_info("frozen ensemble", run.fit, energy), metrics=result.metrics,
        chosen=learned_choice(ensemble), overwrite=overwrite,
    )  # fmt: skip
    skipped = [f"skipped {s.specialist}: {s.reason}" for s in ensemble.skipped]
    warnings = [f"warning: {w}" for w in (*splits.train.unit_warnings(), *splits.train.label_warnings())]
    chose = [f"kept {', '.join(c.kept)}; dropped {', '.join(c.dropped) or 'none'}"] if (c := card.chosen) else []
    table, poor = score_table(result, splits)
    return Outcome(card, table=table, lines=(*warnings, *poor, *skipped, *chose, f"stored {folder}"))


def evaluate(
    model: Annotated[Path, typer.Argument(help="Folder of a task model.")],
    config: Annotated[Path, typer.Argument(help="YAML file with a `data` part (the one given to adapt works).")],
    overrides: Overrides = None,
    zoo: Annotated[Path | None, typer.Option(help="Where the specialists lie, if they moved.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write the scores as JSON.")] = None,
) -> Outcome:
    """Score a task model on a test split. A constant predictor is shown beside it."""
    from eosfm.config import to_plain
    from eosfm.contracts import DataError
    from eosfm.data.files import open_data
    from eosfm.files import require_place, write_json
    from eosfm.runs import read_data
    from eosfm.tasks.stored import load_task_model
    from eosfm.training.fit import require_dates
    from eosfm.training.scoring import score

    if output is not None:
        require_place(output, overwrite=True)
    loaded, card = load_task_model(model, zoo)
    splits = open_data(read_data(config, overrides or ()))
    require_dates(card.task, splits)
    if splits.test.bands != loaded.encoder.bands or splits.test.classes != card.task.classes:
        raise DataError(
            f"{model} reads {loaded.encoder.bands} and predicts {', '.join(card.task.classes)}; "
            f"the data are {splits.test.bands} with {', '.join(splits.test.classes)}"
        )
    result = score(loaded, splits.test, card.training.seed)
    table, poor = score_table(result, splits)
    if output is not None:
        facts = {"model": card.name, "weights_sha256": card.weights.sha256, "data_sha256": splits.test.sha256(),
                 "split": splits.rule, "metrics": [to_plain(m) for m in result.metrics], "warnings": poor}  # fmt: skip
        write_json(output, facts)
    return Outcome(result, table=table, lines=(*poor, *((f"wrote {output}",) if output else ())))
