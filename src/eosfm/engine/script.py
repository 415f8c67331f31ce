"""The inference script that goes with an export: numpy, rasterio and the runtime, neither eosfm nor PyTorch.

It is for people to change, so it stays short; but it refuses what would give a wrong map or destroy a file.
"""

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

if len(sys.argv) != 3:
    sys.exit("usage: python infer.py SCENE.tif OUTPUT.tif")
source, output = Path(sys.argv[1]), Path(sys.argv[2])
if not output.parent.is_dir() or (output.exists() and source.exists() and output.samefile(source)):
    sys.exit(f"{{output}}: expected a new file in a folder that is there, and not the scene itself")
n, step = card["chip_size"], {step}
try:
    with rasterio.open(source) as scene:
        x, where, crs = scene.read(out_dtype="float32", masked=True).filled(np.nan), scene.transform, scene.crs
        said, tag = scene.descriptions, scene.tags().get("EOSFM_BANDS")
except rasterio.errors.RasterioError as e:
    sys.exit(f"cannot read {{source}}: {{e}}; expected a GeoTIFF")
wanted = [b.split(":")[1].split("@")[0] for b in card["bands"]]
other = sorted(map(str, said)) == sorted(wanted) and list(said) != wanted  # the same names in another order
if len(x) != len(wanted) or other or tag not in (None, {tag!r}):
    says = tag or ", ".join(map(str, said))
    sys.exit(
        f"{{source}} has {{len(x)}} bands; expected {{', '.join(card['bands'])}}, in this order and unit. It says: {{says}}"
    )
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
part = output.with_name(f".{{output.name}}.part")  # a run that fails leaves what was there
try:
    with rasterio.open(part, "w", transform=where * where.scale(step), nodata={nodata}, **profile) as target:
        target.write(out)
    part.replace(output)
except (rasterio.errors.RasterioError, OSError) as e:
    sys.exit(f"cannot write {{output}}: {{e}}")
finally:
    part.unlink(missing_ok=True)
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
        tag=str(card.bandset()),
        tile="np.broadcast_to(z[..., None, None], (*z.shape, n, n))" if vector else "z",
        finish=_FINISH["classes" if classes else card.kind],
        nodata="255" if classes else "float('nan')",
    )
    text = head + (_ONNX if card.format == "onnx" else _OPENVINO) + body
    return text.replace("\n\nprofile", "\nprofile")
