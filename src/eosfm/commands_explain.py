"""The commands that choose and explain: select, prune, scaling, explain, similarity. Importing this imports nothing heavy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eosfm.contracts import ConfigError
from eosfm.outcomes import Outcome

if TYPE_CHECKING:
    from eosfm.data.chips import Splits
    from eosfm.explain.price import Price
    from eosfm.tasks.model import TaskModel
    from eosfm.tasks.stored import TaskCard
    from eosfm.training.settings import FitConfig

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a task model.")]
Config = Annotated[Path, typer.Argument(help="YAML file with its data (the one given to adapt).")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override settings of the file.")]
ZooDir = Annotated[Path | None, typer.Option("--zoo", help="Where the specialists lie, if they moved.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def select(
    model: Model,
    config: Config,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="Folder for selection.json and report.html.")] = Path("runs/select"),
    method: Annotated[str, typer.Option(help="forward, backward or exhaustive (up to 12).")] = "forward",
    refit: Annotated[bool, typer.Option("--refit", help="Train fusion and head anew for every subset.")] = False,
    tolerance: Annotated[float, typer.Option(help="Validation score that may be lost.")] = 0.01,
    seed: Seed = 0,
    zoo: ZooDir = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Search which specialists to keep. A curve of score against cost, and the smallest subset that keeps the score."""
    from eosfm.config import to_plain
    from eosfm.explain.pages import price_cells, select_page
    from eosfm.explain.studies import select_subset
    from eosfm.files import require_place, write_json
    from eosfm.progress import bar
    from eosfm.report.document import write_report

    if method not in ("forward", "backward", "exhaustive"):
        raise ConfigError(f"--method {method!r}; known: forward, backward, exhaustive")
    if not 0 <= tolerance < 1:
        raise ConfigError(f"--tolerance {tolerance}; expected a share of the score, 0 to below 1")
    require_place(output / "selection.json", overwrite=overwrite)
    loaded, card, splits, fit = _open(model, config, overrides, zoo)
    with bar("select") as progress:
        found = select_subset(
            loaded, splits, method=method, refit=fit if refit else None, tolerance=tolerance, seed=seed, progress=progress,  # type: ignore[arg-type]  # checked above
        )  # fmt: skip
    facts = {
        "model": card.name, "weights_sha256": card.weights.sha256, "data_sha256": splits.test.sha256(), "method": method,
        "refitted": found.refitted, "tolerance": tolerance, "seed": seed, "chosen": found.rows[found.chosen].names,
        "rows": [{"names": r.names, "validation": r.validation, "test": to_plain(r.test), "minus_all": r.difference,
                  "price": vars(r.price)} for r in found.rows],
    }  # fmt: skip
    write_json(output / "selection.json", facts)
    command = _command("select", model, config, overrides, method=method, refit=refit, tolerance=tolerance, seed=seed)
    page = select_page(found, f"{card.name}: which specialists to keep", splits.test.name, command)
    write_report(page, output / "report.html")
    rows: list[tuple[str, ...]] = [
        ("keep", "last added", "validation", "test", "95 % interval", "params M", "MB", "GMACs", "ms")
    ]
    for i, r in enumerate(found.rows):
        before = found.rows[i - 1].names if i else ()
        new = " ".join(n for n in r.names if n not in before)
        rows.append((f"{len(r.names)}{' *' if i == found.chosen else ''}", new, f"{r.validation:.4f}", f"{r.test.value:.4f}",
                     f"{r.test.low:.4f} to {r.test.high:.4f}", *price_cells(r.price)))  # fmt: skip
    chosen = found.rows[found.chosen]
    lines = [
        f"* {len(chosen.names)} of {len(found.rows[-1].names)} stay within {tolerance:g} on validation data: "
        + ", ".join(chosen.names),
        f"wrote {output / 'selection.json'} and {output / 'report.html'}",
        f"next: eosfm prune {model} OUTPUT --selection {output / 'selection.json'}",
    ]
    return Outcome(found, table=tuple(rows), lines=tuple(lines))


def prune(
    model: Model,
    output: Annotated[Path, typer.Argument(help="Folder to write the smaller model to.")],
    keep: Annotated[
        int | None, typer.Option(help="Keep so many: the best of that size of --selection, else by fusion weights.")
    ] = None,
    names: Annotated[list[str] | None, typer.Option("--name", help="Keep these specialists (repeat).")] = None,
    selection: Annotated[Path | None, typer.Option(help="selection.json of `eosfm select`.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with data, to score before and after.")] = None,
    zoo: ZooDir = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Cut specialists out for good. Fewer parameters, smaller files, faster; equal output to ablating them."""
    from dataclasses import replace

    from eosfm.composition import MANIFEST, read_manifest
    from eosfm.explain.price import prices
    from eosfm.explain.pruning import choose
    from eosfm.files import require_place
    from eosfm.tasks.stored import load_task_model, save_task_model
    from eosfm.training.scoring import score

    require_place(output, overwrite=overwrite)
    loaded, card = load_task_model(model, zoo)
    choice = choose(loaded, card, keep=keep, names=names or None, selection=selection)
    smaller = loaded.pruned(choice.kept)
    before, after = prices([loaded, smaller])
    rows: list[tuple[str, ...]] = [("", "before", "after", "ratio"), *_price_rows(before, after)]
    metrics: tuple[object, ...] = ()
    if config is not None:
        _, _, splits, _ = _open(model, config, None, zoo)
        old, new = score(loaded, splits.test, card.training.seed), score(smaller, splits.test, card.training.seed)
        metrics = tuple(new.metrics)
        for a, b in zip(old.metrics, new.metrics, strict=True):
            rows.append((f"{a.name} (test)", f"{a.value:.4f} ({a.low:.4f}-{a.high:.4f})",
                         f"{b.value:.4f} ({b.low:.4f}-{b.high:.4f})", f"{b.value - a.value:+.4f}"))  # fmt: skip
    where = zoo or (model / read_manifest(model / MANIFEST).zoo).resolve()
    stored = save_task_model(
        smaller, output, where, name=card.name, data=card.data, training=card.training, metrics=metrics,  # type: ignore[arg-type]
        chosen=replace(choice), overwrite=overwrite,
    )  # fmt: skip
    lines = [f"kept {', '.join(choice.kept)}", f"dropped {', '.join(choice.dropped) or 'none'} ({choice.by})"]
    if choice.by.startswith("fusion-weight"):
        lines.append("warning: the size of weights says little about their use; `eosfm select` chooses by score")
    return Outcome(stored, table=tuple(rows), lines=(*lines, f"stored {output}"))


def _price_rows(a: Price, b: Price) -> list[tuple[str, ...]]:
    rows = [("specialists", a.specialists, b.specialists, "d"), ("views", a.views, b.views, "d"),
            ("parameters", a.parameters, b.parameters, ",d"),
            ("  fusion, head", a.trained_parameters, b.trained_parameters, ",d"),
            ("bytes of weights", a.bytes, b.bytes, ",d"), ("multiply-adds a chip", a.macs, b.macs, ",d"),
            ("milliseconds a chip", a.milliseconds, b.milliseconds, ".1f")]  # fmt: skip
    return [(name, format(x, f), format(y, f), f"{y / x:.2f}") for name, x, y, f in rows]


def scaling(
    model: Model,
    config: Config,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="Folder; a killed run continues.")] = Path("runs/scaling"),
    orders: Annotated[int, typer.Option(help="Random orders for the ablation.")] = 16,
    refit: Annotated[bool, typer.Option("--refit", help="Also train fusion and head anew at each size.")] = False,
    refit_orders: Annotated[int, typer.Option(help="Random orders for that.")] = 3,
    seed: Seed = 0,
    zoo: ZooDir = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Score over the number of specialists (the paper's Figure 2), and whether more would help."""
    from eosfm.explain.pages import scaling_page
    from eosfm.explain.studies import scale_up
    from eosfm.files import require_place, write_json
    from eosfm.progress import bar
    from eosfm.report.document import write_report

    if orders < 2 or refit_orders < 1:
        raise ConfigError(f"--orders {orders} --refit-orders {refit_orders}; expected at least 2 and 1")
    require_place(output / "scores.json", overwrite=True)
    loaded, card, splits, fit = _open(model, config, overrides, zoo)
    if overwrite:
        (output / "scores.json").unlink(missing_ok=True)
    with bar("scaling") as progress:
        found = scale_up(
            loaded, splits, output, orders=orders, refit=fit if refit else None, refit_orders=refit_orders, seed=seed,
            progress=progress,
        )  # fmt: skip
    curves = {
        mode: {"names": found.names, "orders": g.orders, "scores": g.scores.tolist(),
               "greedy_order": found.greedy[mode].orders[0], "greedy_scores": found.greedy[mode].scores[0].tolist(),
               "fit": vars(found.outlooks[mode].curve), "verdict": found.outlooks[mode].verdict()}
        for mode, g in found.random.items()
    }  # fmt: skip
    write_json(
        output / "curves.json", {"metric": found.metric, "data_sha256": splits.test.sha256(), "seed": seed} | curves
    )
    options = {"orders": orders, "refit": refit, "refit_orders": refit_orders, "seed": seed}
    command = _command("scaling", model, config, overrides, **options)
    write_report(
        scaling_page(found, f"{card.name}: does it grow with its specialists?", splits.test.name, command),
        output / "report.html",
    )
    header, lines = ["specialists"], []
    columns = []
    for mode, g in found.random.items():
        mean, low, high = g.spread()
        header += [f"{mode}, random orders", "95 % of orders", "greedy order"]
        columns += [[f"{v:.4f}" for v in mean], [f"{a:.4f} to {b:.4f}" for a, b in zip(low, high, strict=True)],
                    [f"{v:.4f}" for v in found.greedy[mode].scores[0]]]  # fmt: skip
        lines.append(f"{mode}: {found.outlooks[mode].verdict()}")
    rows = [tuple(header), *((str(k + 1), *(c[k] for c in columns)) for k in range(len(found.names)))]
    return Outcome(found, table=tuple(rows), lines=(*lines, f"wrote {output / 'report.html'}"))


def explain(
    model: Model,
    config: Config,
    overrides: Overrides = None,
    output: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("explain.html"),
    orders: Annotated[int, typer.Option(help="Random orders for the Shapley values.")] = 32,
    chips: Annotated[int, typer.Option(help="Test chips to show.")] = 4,
    image: Annotated[Path | None, typer.Option(help="A GeoTIFF in which to show what each specialist sees.")] = None,
    seed: Seed = 0,
    zoo: ZooDir = None,
    overwrite: Overwrite = False,
) -> Outcome:
    """Show which specialist matters. Per class and per pixel: Shapley values, ablation, energy; and what each one sees."""
    from eosfm.explain.attribution import attribute
    from eosfm.explain.attribution_page import explain_page
    from eosfm.explain.contributions import SubsetScorer
    from eosfm.explain.scene import middle
    from eosfm.explain.similarity import similarity
    from eosfm.files import require_place, write_json
    from eosfm.progress import bar
    from eosfm.report.document import write_report

    if orders < 2 or chips < 1:
        raise ConfigError(f"--orders {orders} --chips {chips}; expected at least 2 and 1")
    numbers = output.with_suffix(".json")
    if numbers == output:
        raise ConfigError(
            f"{output} is the page; its numbers go beside it as .json, so give it another ending, as .html"
        )
    for path in (output, numbers):
        require_place(path, overwrite=overwrite)
    loaded, card, splits, _ = _open(model, config, overrides, zoo)
    scene = middle(image, loaded) if image is not None else None
    with bar("explain") as progress:
        scorer = SubsetScorer(loaded, splits.test, progress=progress)
        found = attribute(scorer, orders=orders, seed=seed)
        alike = similarity(loaded.encoder, splits.test, seed=seed, progress=progress)
    shown = range(min(chips, len(splits.test)))
    command = _command("explain", model, config, overrides, orders=orders, seed=seed)
    page = explain_page(scorer, found, alike, shown, f"{card.name}: which specialist matters", command, scene)
    write_report(page, output)
    plain = {k: _without_nan(v.tolist() if hasattr(v, "tolist") else v) for k, v in vars(found).items()}
    cka = {"names": alike.names, "matrix": _without_nan(alike.matrix.tolist()), "samples": alike.samples}
    write_json(numbers, {"model": card.name, "weights_sha256": card.weights.sha256, "seed": seed,
                         "data_sha256": splits.test.sha256(), "attribution": plain, "cka": cka})  # fmt: skip
    rows = [("specialist", "Shapley value", "standard error", "ablation drop", "weights %", "signal %")]
    for i in (-found.shapley[:, 0]).argsort():
        energy = [f"{100 * v[i]:.1f}" if len(v) else "-" for v in (found.weight_energy, found.signal_energy)]
        numbers_ = f"{found.shapley[i, 0]:+.4f}", f"{found.errors[i, 0]:.4f}", f"{found.drop[i, 0]:+.4f}"
        rows.append((found.names[i], *numbers_, *energy))
    lines = [f"all {found.full[0]:.4f}, none {found.empty[0]:.4f}", f"wrote {output} and {numbers}"]
    lines[:0] = [f"rank correlation of {a} and {b}: {r:+.2f}" for a, b, r in found.agreement()]
    return Outcome(found, table=tuple(rows), lines=tuple(lines))


def similarity(
    path: Annotated[Path, typer.Argument(metavar="ENSEMBLE_OR_ZOO", help="Folder of a model, an ensemble or a zoo.")],
    config: Config,
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    samples: Annotated[int, typer.Option(help="Pixels at each level.")] = 2000,
    seed: Seed = 0,
) -> Outcome:
    """Show which specialists say the same (CKA of their features on your data), before one more is added."""
    from eosfm.composition import load
    from eosfm.data.files import open_data
    from eosfm.explain.similarity import similarity as measure
    from eosfm.progress import bar
    from eosfm.runs import read_data

    if split not in ("train", "validation", "test") or samples < 4:
        raise ConfigError(f"--split {split!r} --samples {samples}; expected train, validation or test, and 4 or more")
    splits = open_data(read_data(config, overrides or ()))
    chips = getattr(splits, split)
    ensemble = load(path, bands=chips.bands, statistics=splits.train.statistics())
    with bar("similarity") as progress:
        found = measure(ensemble, chips, samples=samples, seed=seed, progress=progress)
    rows = [("most alike", "", "CKA")]
    rows += [(a, b, f"{v:.3f}") for v, a, b in found.pairs()[:20]]
    lines = [f"skipped {s.specialist}: {s.reason}" for s in ensemble.skipped]
    return Outcome(found, table=tuple(rows), lines=tuple(lines))


def _open(
    model: Path, config: Path, overrides: list[str] | None, zoo: Path | None
) -> tuple[TaskModel, TaskCard, Splits, FitConfig]:
    """A task model, its card, the data of ``config`` and how it says to train."""
    from eosfm.data.files import open_data
    from eosfm.runs import read_data, read_fit
    from eosfm.tasks.model import require_maps
    from eosfm.tasks.stored import load_task_model

    loaded, card = load_task_model(model, zoo)
    require_maps(card.task, "this command")
    splits = open_data(read_data(config, overrides or ()))
    return loaded, card, splits, read_fit(config, overrides or ())


def _without_nan(value: object) -> object:
    """Numbers that do not exist (the error of one sample, the CKA of a constant) as null, which JSON has."""
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and value != value else value


def _command(name: str, model: Path, config: Path, overrides: list[str] | None, **options: float | str | bool) -> str:
    words = ["eosfm", name, str(model), str(config), *(overrides or ())]
    for key, value in options.items():
        flag = f"--{key.replace('_', '-')}"
        words += [flag] if value is True else [] if value is False else [flag, str(value)]
    return shlex.join(words)
