"""The inference script that goes with an export: numpy, rasterio and the runtime, neither eosfm nor PyTorch."""

from __future__ import annotations

from eosfm.engine.exported import CARD, FEATURES, ExportCard
from eosfm.engine.runtime import FILES, INPUT

_HEAD = '''"""{what} without eosfm and PyTorch: python infer.py SCENE.tif OUTPUT.tif

Needs numpy, rasterio and {library}. SCENE.tif must hold exactly these bands, in this order and unit:
{bands}
Tiles of {side} x {side} pixels side by side; `eosfm predict` also blends overlapping ones and needs less memory.
"""

import json
import sys
from pathlib import Path
'''
_ONNX = f"""
import numpy as np
import onnxruntime
import rasterio

folder = Path(__file__).resolve().parent
card = json.loads((folder / "{CARD}").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(folder / "{FILES["onnx"][0]}", providers=["CPUExecutionProvider"])


def run(tile):
    return session.run(None, {{"{INPUT}": tile}})[0]
"""
_OPENVINO = f"""
import numpy as np
import rasterio

sys.modules["openvino_telemetry"] = None  # or OpenVINO would report its use over the network
import openvino  # noqa: E402

folder = Path(__file__).resolve().parent
card = json.loads((folder / "{CARD}").read_text(encoding="utf-8"))
hint = {{"INFERENCE_PRECISION_HINT": card["inference_precision"]}}  # without it a CPU with bf16 would use it
session = openvino.Core().compile_model(folder / "{FILES["openvino"][0]}", "CPU", hint)


def run(tile):
    return session(tile)[0]
"""
_BODY = """

n, step = card["chip_size"], {step}
with rasterio.open(sys.argv[1]) as scene:
    x, where, crs = scene.read(out_dtype="float32", masked=True).filled(np.nan), scene.transform, scene.crs
if len(x) != len(card["bands"]):
    sys.exit(f"{{sys.argv[1]}} has {{len(x)}} bands; expected {{', '.join(card['bands'])}}")
h, w = x.shape[1:]
invalid = ~np.isfinite(x).all(0)
x = np.pad(x, ((0, 0), (0, -h % n), (0, -w % n)), mode="edge")
rows = []
for top in range(0, x.shape[1], n):
    tiles = [run(x[None, :, top : top + n, left : left + n]) for left in range(0, x.shape[2], n)]
    rows.append(np.concatenate([{tile} for z in tiles], axis=-1))
out = np.concatenate(rows, axis=-2)[0, :, : -(-h // step), : -(-w // step)]
{finish}
profile = dict(driver="GTiff", count=len(out), height=out.shape[1], width=out.shape[2], dtype=out.dtype.name, crs=crs)
with rasterio.open(sys.argv[2], "w", transform=where * where.scale(step), nodata={nodata}, **profile) as target:
    target.write(out)
"""
_FINISH = {
    "classes": "out = out.argmax(0)[None].astype(np.uint8)\nout[:, invalid] = 255",
    "multilabel": "out = (1 / (1 + np.exp(-out))).astype(np.float32)\nout[:, invalid] = np.nan",
    "regression": "out[:, invalid] = np.nan",
    FEATURES: "",
}


def inference_script(card: ExportCard) -> str:
    """The text of ``infer.py`` for ``card``; features are written at their finest level."""
    classes = card.kind in ("segmentation", "classification")
    vector = card.outputs[0].stride is None
    head = _HEAD.format(
        what="Features of a GeoTIFF" if card.kind == FEATURES else "Map a GeoTIFF",
        library="onnxruntime" if card.format == "onnx" else "openvino",
        bands="\n".join(f"    {i + 1}: {b}" for i, b in enumerate(card.bands)),
        side=card.chip_size,
    )
    body = _BODY.format(
        step=card.outputs[0].stride or 1,
        tile="np.broadcast_to(z[..., None, None], (*z.shape, n, n))" if vector else "z",
        finish=_FINISH["classes" if classes else card.kind],
        nodata="255" if classes else "float('nan')",
    )
    text = head + (_ONNX if card.format == "onnx" else _OPENVINO) + body
    return text.replace("\n\nprofile", "\nprofile")
