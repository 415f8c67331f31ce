"""Exported graphs as functions of arrays: ONNX Runtime or OpenVINO behind one face. The only module that runs them.

OpenVINO computes in bf16 on a CPU that has it unless it is told otherwise, so the precision is always said. It also reports
its use to its makers when it is imported; `quiet_openvino` keeps it from that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eosfm.contracts import CorruptArtifact

FILES = {"onnx": ("model.onnx",), "openvino": ("model.xml", "model.bin")}
"""format -> the files of its graph; the first is the one to open"""
INPUT = "image"
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Session:
    """A graph ready to run."""

    run: Callable[[Array], list[Array]]
    """``(b, c, h, w)`` -> its outputs; a runtime that fails raises `RuntimeError`"""
    channels: int | None
    """channels of the input; None where the graph leaves them open"""
    outputs: tuple[str, ...]
    computes_in: str
    """the number format of the arithmetic: "f32", or "bf16" where the machine has it"""


def open_session(folder: Path, form: str, precision: str) -> Session:
    """The graph in ``folder``, on as many threads as PyTorch uses.

    Raises:
        CorruptArtifact: the runtime cannot read the graph.
        ModuleNotFoundError: the runtime is not installed (extra ``export``).
    """
    return _onnx(folder / FILES[form][0]) if form == "onnx" else _openvino(folder / FILES[form][0], precision)


def inference_hint(precision: str) -> str:
    """OpenVINO's name for the arithmetic of ``precision``; what int8 leaves unquantised runs in f32."""
    return _HINTS[precision]


def quiet_openvino() -> None:
    """Import OpenVINO without its usage reports (it falls back to a stub where that package is missing)."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is how an import is refused


def _onnx(path: Path) -> Session:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    refusals = (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf, errors.NoModel,
                errors.NotImplemented, errors.RuntimeException,
                UnicodeDecodeError)  # fmt: skip  # they share no class of their own; the last is of names in a damaged graph
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        # from bytes: a graph that names other files on this machine cannot be opened
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), tuple(o.name for o in session.get_outputs())
    except refusals as e:
        raise _unreadable(path, "ONNX Runtime", e) from None
    if len(inputs) != 1 or inputs[0].name != INPUT:
        raise CorruptArtifact(f"{path}: inputs {[i.name for i in inputs]}; expected one, {INPUT!r}")
    channels = inputs[0].shape[1] if len(inputs[0].shape) == 4 else None

    def run(x: Array) -> list[Array]:
        try:
            return [np.asarray(y) for y in session.run(None, {INPUT: np.ascontiguousarray(x)})]
        except refusals as e:
            raise RuntimeError(" ".join(str(e).split())[:300]) from None

    return Session(run, channels if isinstance(channels, int) else None, outputs, "f32")


def _openvino(path: Path, precision: str) -> Session:
    quiet_openvino()
    import openvino

    core = openvino.Core()
    config: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    try:
        model = core.read_model(path, path.with_suffix(".bin"))
        if len(model.inputs) != 1 or INPUT not in model.input(0).get_names():
            raise CorruptArtifact(f"{path}: its graph does not have the one input {INPUT!r}")
        shape, outputs = model.input(0).get_partial_shape(), tuple(o.get_any_name() for o in model.outputs)
        compiled = core.compile_model(model, "CPU", config)
    except RuntimeError as e:
        raise _unreadable(path, "OpenVINO", e) from None
    channels = shape[1].get_length() if len(shape) == 4 and not shape[1].is_dynamic else None
    hint = compiled.get_property("INFERENCE_PRECISION_HINT")

    def run(x: Array) -> list[Array]:
        found = compiled(np.ascontiguousarray(x))
        return [np.asarray(found[o]) for o in compiled.outputs]

    return Session(run, channels, outputs, "bf16" if hint == openvino.Type.bf16 else "f32")


def _unreadable(path: Path, runtime: str, error: Exception) -> CorruptArtifact:
    return CorruptArtifact(
        f"{path}: {runtime} cannot read it: {' '.join(str(error).split())[:300]}. Export the model again."
    )
