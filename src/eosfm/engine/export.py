"""Export: a task model or an ensemble becomes a folder that runs without eosfm and PyTorch, and is proven to give the same.

    export(model, folder) -> model.onnx | model.xml + model.bin, model.json, parity.json, infer.py

The exported graph is run beside its source on images of several sizes and batches, with holes in them. What differs by more
than `TOLERANCE` is an error and leaves nothing behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from eosfm.composition import FileInfo, reference_to
from eosfm.config import to_plain
from eosfm.contracts import MAX_CHIP, PYRAMID_STRIDES, ConfigError, ExportError, known, missing_extra
from eosfm.engine.convert import write_onnx, write_openvino
from eosfm.engine.exported import CARD, FEATURES, PARITY, SCRIPT, ExportCard, Exported, Output, open_export
from eosfm.engine.graph import graph_of
from eosfm.engine.runtime import FILES, inference_hint
from eosfm.engine.script import inference_script
from eosfm.ensemble import Ensemble
from eosfm.files import atomic_folder, require_place, sha256_file
from eosfm.specialists.encoder import MIN_SIZE
from eosfm.tasks.model import TaskModel, fingerprint, require_maps

Format = Literal["onnx", "openvino"]
Precision = Literal["fp32", "bf16", "int8"]
TOLERANCE = {"fp32": ("relative", 1e-4), "bf16": ("cosine", 0.999), "int8": ("cosine", 0.9)}
"""precision -> what is tested in every batch, and how far it may go: a share of the norm at most, or a cosine at least"""
_LIBRARIES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}

Score = Callable[[Callable[[Tensor], Tensor]], Mapping[str, float]]


@dataclass(frozen=True)
class Agreement:
    """How far one output is from its source's: the worst of all batches."""

    output: str
    max_abs: float
    relative: float
    """norm of the difference, as a share of the norm"""
    cosine: float
    argmax: float | None
    """share of equal classes over all batches; None unless the output is logits of classes"""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares; `parity.json` holds the same."""

    folder: Path
    card: ExportCard
    inputs: tuple[tuple[int, ...], ...]
    """shapes of the batches that were compared"""
    agreement: tuple[Agreement, ...]
    computed_in: str
    """the arithmetic of this machine: "f32" for a bf16 export where the CPU has no bf16"""
    before: dict[str, float]
    after: dict[str, float]
    """scores on labelled data, where given"""


def export(
    model: Ensemble | TaskModel,
    folder: str | Path,
    *,
    format: Format = "openvino",
    precision: Precision = "fp32",
    name: str | None = None,
    chip_size: int | None = None,
    calibration: Tensor | None = None,
    chips: Tensor | None = None,
    score: Score | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write ``model`` to ``folder`` for a runtime, with everything from raw pixels on inside its graph.

    Args:
        model: its encoder must be an `Ensemble` without ablated views. Prune first: what is pruned leaves no trace.
        folder: made in one step, after the comparison.
        format: "onnx" or "openvino"; both with open batch, height and width (multiples of 32).
        precision: "fp32"; "bf16" (OpenVINO: float16 weights, bf16 arithmetic); "int8" (8-bit weights and activations).
        name: default the folder's.
        chip_size: side of the images to use it with; default the task's, or the largest of the specialists'.
        calibration: ``(n, c, h, w)`` real chips in declared units, for int8 only, which measures its ranges on them.
        chips: ``(n, c, h, w)`` further images to compare on, h and w multiples of 32.
        score: scores of a function from chips to logits, computed before and after.
        overwrite: replace ``folder``.

    Raises:
        ConfigError: a combination that cannot be (int8 without calibration, ONNX in bf16), or ablated views.
        ExportError: the runtime cannot express the model, or gives something else than its source.
        MissingExtra: the runtime is not installed.
    """
    folder = Path(folder)
    _check(format, precision, calibration)
    ensemble, task = (model, None) if isinstance(model, Ensemble) else (model.encoder, model.task)
    if task is not None:
        require_maps(task, "an exported graph")
    if not isinstance(ensemble, Ensemble):
        raise ConfigError(f"only ensembles of specialists are exported, not a {type(ensemble).__name__}")
    side = chip_size or (task.chip_size if task else max(c.chip_size for c in ensemble.cards))
    if not MIN_SIZE <= side <= MAX_CHIP or side % MIN_SIZE:
        raise ConfigError(f"chip_size {side}; expected a multiple of {MIN_SIZE}, at most {MAX_CHIP}")
    require_place(folder, overwrite=overwrite)
    graph = graph_of(ensemble, None if isinstance(model, Ensemble) else model.head)
    outputs = _outputs(ensemble, model)
    batches = [*_probes(ensemble, side), *([] if chips is None else [chips.float()])]
    with _evaluating(model), atomic_folder(folder, overwrite=overwrite) as tmp:
        names = [o.name for o in outputs]
        # traced with two blocks a side at least: PyTorch takes a side of one for fixed
        example = batches[0] if side > MIN_SIZE else next(_probes(ensemble, 2 * MIN_SIZE))
        if format == "onnx":
            write_onnx(graph, example, names, tmp, calibration)
        else:
            write_openvino(graph, example, names, tmp, calibration, half=precision == "bf16")
        kind = task.kind if task else FEATURES
        card = ExportCard(
            name=name or folder.name, format=format, precision=precision, inference_precision=inference_hint(precision),
            bands=tuple(str(b) for b in ensemble.bands), statistics=ensemble.statistics, chip_size=side,
            kind=kind, classes=task.classes if task else (), colours=task.colours if task else (),
            outputs=outputs, specialists=tuple(reference_to(c) for c in ensemble.cards),
            source_sha256=fingerprint(model), versions=_versions(format, precision),
            files=tuple(_info(tmp / f) for f in FILES[format]),
        ).sealed()  # fmt: skip
        (tmp / CARD).write_text(_json(to_plain(card)), encoding="utf-8")
        exported = open_export(tmp)
        report = _compare(model, exported, batches, score, folder)
        facts = {"precision": precision, "tolerance": dict([TOLERANCE[precision]]), "computed_in": report.computed_in,
                 "inputs": report.inputs, "agreement": [asdict(a) for a in report.agreement],
                 "before": report.before, "after": report.after}  # fmt: skip
        (tmp / PARITY).write_text(_json(facts), encoding="utf-8")
        (tmp / SCRIPT).write_text(inference_script(card), encoding="utf-8")
    return report


def _check(form: str, precision: str, calibration: Tensor | None) -> None:
    for value, allowed in ((form, get_args(Format)), (precision, get_args(Precision))):
        if value not in allowed:
            raise ConfigError(
                f"unknown {'format' if allowed is get_args(Format) else 'precision'} {value!r}; {known(allowed)}"
            )
    if form == "onnx" and precision == "bf16":
        raise ConfigError(
            "ONNX Runtime has hardly any operator in bf16 on a CPU; use format openvino, or precision fp32"
        )
    if precision == "int8" and calibration is None:
        raise ConfigError(
            "int8 needs calibration: real chips of the declared bands and units, on which the range of every activation is "
            "measured (calibration=..., or --data CONFIG.yaml on the command line)"
        )
    if precision != "int8" and calibration is not None:
        raise ConfigError(f"calibration is for int8 only, not for {precision}: leave it out")
    for library in (*_LIBRARIES[form], *(["nncf"] if precision == "int8" else [])):
        try:
            version(library)
        except PackageNotFoundError:
            raise missing_extra(library, "export") from None


def _outputs(ensemble: Ensemble, model: nn.Module) -> tuple[Output, ...]:
    if isinstance(model, TaskModel):
        stride = None if model.task.kind in ("classification", "multilabel") else 1
        return (Output(name="logits", channels=len(model.task.classes), stride=stride),)
    pairs = zip(ensemble.out_channels, PYRAMID_STRIDES, strict=True)
    return tuple(Output(name=f"level_{i}", channels=c, stride=s) for i, (c, s) in enumerate(pairs, 1))


def _probes(ensemble: Ensemble, side: int) -> Iterator[Tensor]:
    """Batches of three sizes in plausible values, the last two with holes: what a graph with a fixed size or NaN fails on."""
    draw = torch.Generator().manual_seed(0)
    for n, h, w in ((2, side, side), (1, side + 32, side), (3, 64, 96)):
        x = torch.rand(n, len(ensemble.bands), h, w, generator=draw)
        for i, band in enumerate(ensemble.bands):
            low, high = band.unit.plausible
            if ensemble.statistics is not None:
                mean, std = ensemble.statistics.mean[i], ensemble.statistics.std[i]
                low, high = max(low, mean - 2 * std), min(high, mean + 2 * std)
            x[:, i] = low + (high - low) * x[:, i]
        if n != 2:
            x[0, :, 3:17, 5:20] = float("nan")
            x[-1, 0, 0, 0] = float("inf")
        yield x


def _compare(
    model: nn.Module, exported: Exported, batches: Sequence[Tensor], score: Score | None, folder: Path
) -> ExportReport:
    names = [o.name for o in exported.card.outputs]
    classes = exported.card.kind in ("segmentation", "classification")
    found: dict[str, list[Agreement]] = {n: [] for n in names}
    with torch.inference_mode():
        for x in batches:
            for some in torch.split(x, 8):
                want = model(some)
                want = [want] if isinstance(want, Tensor) else want
                for n, a, b in zip(names, want, exported(some), strict=True):
                    found[n].append(_agreement(n, a, b, classes=classes))
        worst = tuple(
            Agreement(
                n, max(a.max_abs for a in all_), max(a.relative for a in all_), min(a.cosine for a in all_),
                sum(a.argmax or 0.0 for a in all_) / len(all_) if classes else None,
            )
            for n, all_ in found.items()
        )  # fmt: skip
        what, limit = TOLERANCE[exported.card.precision]
        wrong = [a for a in worst if not (a.relative <= limit if what == "relative" else a.cosine >= limit)]
        if wrong:
            values = ", ".join(f"{a.output} {getattr(a, what):.6g}" for a in wrong)
            raise ExportError(
                f"the exported {exported.card.precision} graph does not give what its source gives: {what} {values}; "
                f"allowed is {limit:g}. Nothing was written. Use another format or precision, and please report it."
            )
        before = dict(score(model)) if score else {}
        after = dict(score(lambda x: exported(x)[0])) if score else {}
    shapes = tuple(tuple(x.shape) for x in batches)
    return ExportReport(folder, exported.card, shapes, worst, exported.session.computes_in, before, after)


def _agreement(name: str, want: Tensor, got: Tensor, *, classes: bool) -> Agreement:
    if want.shape != got.shape:
        raise ExportError(f"{name}: the exported graph gives {tuple(got.shape)}, its source {tuple(want.shape)}")
    a, b = want.double().flatten(), got.double().flatten()
    length = a.norm().clamp_min(1e-30)
    return Agreement(
        name, float((a - b).abs().max()), float((a - b).norm() / length), float(a @ b / (length * b.norm())),
        float((want.argmax(1) == got.argmax(1)).double().mean()) if classes else None,
    )  # fmt: skip


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def _info(path: Path) -> FileInfo:
    return FileInfo(file=path.name, sha256=sha256_file(path), bytes=path.stat().st_size)


def _versions(form: str, precision: str) -> dict[str, str]:
    extra = ("nncf",) if precision == "int8" else ()
    return {n: version(n) for n in ("torch", *_LIBRARIES[form], *extra)}


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
