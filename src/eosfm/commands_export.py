"""Commands that fit models to a machine: export, kernels. Importing this imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from eosfm.contracts import ConfigError, DataError
from eosfm.outcomes import Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from eosfm.data.chips import ChipSet
    from eosfm.engine.export import ExportReport

CALIBRATION = 128
"""training chips that int8 ranges are measured on, evenly spread"""
COMPARED = 16


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL_OR_ENSEMBLE", help="Folder of a task model or an ensemble.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override settings of --data: data.root=/data")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="The folder to write; default MODEL-FORMAT.")] = None,
    format: Annotated[str, typer.Option(help="onnx or openvino.")] = "openvino",
    precision: Annotated[
        str, typer.Option(help="fp32; bf16 (openvino: float16 weights, bf16 arithmetic); int8 (needs --data).")
    ] = "fp32",
    data: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with a `data` part (the one given to adapt works): scores before and after; calibrates int8."
        ),
    ] = None,
    bands: Annotated[
        str | None, typer.Option(help="The input's bands, for an ensemble that is not tied to an input yet.")
    ] = None,
    chip_size: Annotated[
        int | None, typer.Option(help="Tile side; default the model's. Features depend on it.")
    ] = None,
    zoo: Annotated[Path | None, typer.Option(help="Where the specialists lie, if they moved.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> Outcome:
    """Write a model for ONNX Runtime or OpenVINO. One folder, from raw pixels to logits, compared with its source first."""
    from eosfm.bands import BandSet
    from eosfm.composition import load
    from eosfm.contracts import known
    from eosfm.data.files import open_data
    from eosfm.engine.export import export as write
    from eosfm.engine.runtime import FILES
    from eosfm.runs import read_data
    from eosfm.tasks.model import TaskModel
    from eosfm.tasks.stored import TASK, load_task_model
    from eosfm.training.scoring import score

    if format not in FILES:
        raise ConfigError(f"unknown format {format!r}; {known(FILES)}")
    if overrides and data is None:
        raise ConfigError(f"{' '.join(overrides)}: settings override those of a --data file, and none is given")
    is_task = (model / TASK).exists()
    if is_task and bands:
        raise ConfigError(f"{model} is a task model with bands of its own: leave --bands out")
    loaded = (
        load_task_model(model, zoo)[0] if is_task else load(model, BandSet.parse(bands) if bands else None, zoo=zoo)
    )
    ensemble = loaded.encoder if isinstance(loaded, TaskModel) else loaded
    splits = open_data(read_data(data, overrides or ())) if data is not None else None
    if splits is not None and splits.train.bands != ensemble.bands:
        raise DataError(f"{model} reads {ensemble.bands}; the data are {splits.train.bands}")
    scores: Callable[[Any], dict[str, float]] | None = None
    if splits is not None and isinstance(loaded, TaskModel):
        if splits.test.classes != loaded.task.classes:
            raise DataError(
                f"{model} predicts {', '.join(loaded.task.classes)}; the data have {', '.join(splits.test.classes)}"
            )
        test = splits.test

        def scores(predict: Any) -> dict[str, float]:
            return {m.name: m.value for m in score(predict, test, 0).metrics}

    report = write(
        loaded, to or model.with_name(f"{model.name}-{format}"), format=cast(Any, format), precision=cast(Any, precision),
        name=model.resolve().name, chip_size=chip_size,
        calibration=_chips(splits.train, CALIBRATION) if splits is not None and precision == "int8" else None,
        chips=_chips(splits.test, COMPARED) if splits is not None else None, score=scores, overwrite=overwrite,
    )  # fmt: skip
    return _outcome(report)


def _chips(chips: ChipSet, most: int) -> Tensor:
    """Up to ``most`` chips, evenly spread, padded to sides that the graph takes."""
    from eosfm.specialists.encoder import pad

    n = min(most, len(chips))
    return pad(chips.batch([i * len(chips) // n for i in range(n)])[0].float())


def _outcome(report: ExportReport) -> Outcome:
    rows = [("output", "max abs error", "relative error", "cosine", "argmax agreement")]
    for a in report.agreement:
        same = "-" if a.argmax is None else f"{100 * a.argmax:.3f} %"
        rows.append((a.output, f"{a.max_abs:.2e}", f"{a.relative:.2e}", f"{a.cosine:.7f}", same))
    card, size = report.card, sum(f.bytes for f in report.card.files) / 1e6
    lines = [f"{n}: {v:.4f} before, {report.after[n]:.4f} after" for n, v in report.before.items()]
    if card.inference_precision != report.computed_in:
        lines.append(f"compared in {report.computed_in}, because this CPU has no {card.inference_precision}")
    lines.append(f"height and width must be multiples of {card.multiple_of}; the batch is free")
    lines.append(f"wrote {report.folder}: {card.format}, {card.precision}, {size:.1f} MB")
    return Outcome(report, table=tuple(rows), lines=tuple(lines))


def kernels() -> Outcome:
    """Compile the CPU kernels for this machine, once: maps and features then come 1.5 to 2 times faster. Needs a C++ compiler."""
    from eosfm.engine import native
    from eosfm.progress import bar

    if native.intact():
        target, did = native.library(), "already built"
    else:
        with bar("kernels") as progress:
            progress(0.0, "compiling, about 15 s")
            target, did = native.build(), "built"
    native.load()
    return Outcome({"library": str(target)}, (f"{did}: {target}", "predict, embed and adapt use them from now on"))
