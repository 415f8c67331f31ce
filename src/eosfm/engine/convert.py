"""A graph (`eosfm.engine.graph`) written for a runtime: as ONNX or as OpenVINO IR, with open batch, height and width.

fp32   weights and arithmetic in float32
bf16   OpenVINO only: weights stored in float16, arithmetic in bfloat16 (its inference precision hint)
int8   weights and activations in 8 bits, ranges measured on calibration chips (NNCF post-training quantisation)
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eosfm.contracts import ExportError
from eosfm.engine.graph import Graph
from eosfm.engine.runtime import FILES, INPUT, quiet_openvino
from eosfm.files import OutputError
from eosfm.specialists.encoder import MIN_SIZE

OPSET = 20
"""of ONNX; the first with GELU as one operator"""


def write_onnx(graph: Graph, example: Tensor, names: Sequence[str], folder: Path, calibration: Tensor | None) -> None:
    """``model.onnx`` in ``folder``; quantised to int8 with ``calibration`` ``(n, c, h, w)``.

    Raises:
        ExportError: PyTorch cannot express the graph with open sizes.
    """
    import onnx

    size = torch.export.Dim
    open_sizes = {0: size("batch"), 2: MIN_SIZE * size("rows"), 3: MIN_SIZE * size("columns")}
    with _quiet():
        try:
            program = torch.onnx.export(
                graph, (example,), dynamo=True, input_names=[INPUT], output_names=list(names),
                dynamic_shapes={"x": open_sizes}, opset_version=OPSET, verbose=False,
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as e:
            raise ExportError(f"PyTorch {torch.__version__} cannot write this model as ONNX: {e}") from e
    assert program is not None
    model = program.model_proto
    if calibration is not None:
        model = _quantised(model, [{INPUT: c.numpy()} for c in torch.split(calibration, 1)])
    for node in model.graph.node:
        del node.metadata_props[:]  # source lines and paths of this machine
    fixed = [
        d.dim_value for i, d in enumerate(model.graph.input[0].type.tensor_type.shape.dim) if i != 1 and d.dim_value
    ]
    if fixed:
        raise ExportError(f"the ONNX graph has fixed sizes {fixed} where batch, height and width must stay open")
    onnx.save(model, folder / FILES["onnx"][0])


def write_openvino(
    graph: Graph, example: Tensor, names: Sequence[str], folder: Path, calibration: Tensor | None, *, half: bool
) -> None:
    """``model.xml`` and ``model.bin`` in ``folder``; ``half`` stores weights in float16, ``calibration`` as in `write_onnx`.

    Raises:
        ExportError: OpenVINO cannot express the graph with open sizes.
        OutputError: the disk is full.
    """
    quiet_openvino()
    import openvino
    from openvino.frontend import OpConversionFailure

    with _quiet():
        try:
            model = openvino.convert_model(graph, example_input=example, input=[-1, example.shape[1], -1, -1])
        except OpConversionFailure as e:
            raise ExportError(f"OpenVINO {openvino.__version__} cannot express this model: {e}") from e
    model.input(0).set_names({INPUT})
    for output, name in zip(model.outputs, names, strict=True):
        output.set_names({name})
    if any(not model.input(0).get_partial_shape()[i].is_dynamic for i in (0, 2, 3)):
        raise ExportError("the OpenVINO graph has fixed sizes where batch, height and width must stay open")
    if calibration is not None:
        model = _quantised(model, [c.numpy() for c in torch.split(calibration, 1)])
    try:
        openvino.save_model(model, folder / FILES["openvino"][0], compress_to_fp16=half)
    except RuntimeError as e:  # how OpenVINO reports a full disk
        raise OutputError(f"cannot write {folder / FILES['openvino'][0]}: {e}; is the disk full?") from None


def _quantised(model: Any, chips: Sequence[Any]) -> Any:
    """``model`` with 8-bit weights and activations; band selection and standardisation stay in float32."""
    quiet_openvino()
    with _quiet(), redirect_stdout(sys.stderr):  # its progress bars are no output of ours
        import nncf

        nncf.set_log_level(logging.ERROR)
        views = nncf.IgnoredScope(patterns=[".*views.*"], validate=False)
        return nncf.quantize(model, nncf.Dataset(chips), subset_size=len(chips), ignored_scope=views)


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither the exporters' deprecations nor their logs are the user's business; what they refuse is raised."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
