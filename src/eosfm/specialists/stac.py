"""A specialist's card as a STAC item with the Machine Learning Model extension, for catalogues; and a check of such items.

Written to the layout of MLM 1.5.0 and STAC 1.1.0. `problems` restates the parts of that JSON schema which such an item can
break; it is no replacement for the schema itself.
"""

from __future__ import annotations

import math
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from eosfm.contracts import PYRAMID_STRIDES, CardError
from eosfm.files import write_json
from eosfm.specialists.card import SpecialistCard
from eosfm.specialists.store import CARD, WEIGHTS
from eosfm.specialists.zoo import ZooEntry

ITEM = "stac-item.json"
MLM = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
EO = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
TASKS = {
    "segmentation": ["semantic-segmentation"],
    "classification": ["scene-classification"],
    "multilabel": ["classification"],
    "regression": ["regression"],
    "detection": ["object-detection"],
    "instances": ["instance-segmentation"],
    "masked-autoencoder": ["generative"],
    "none": [],
}
"""the card's kind of task -> MLM's words"""
_DIMENSIONS = ["batch", "channel", "height", "width"]
_EO_NAMES = {
    "pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071", "rededge075", "rededge078",
    "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12",
}  # fmt: skip
"""common names that the EO extension has; others (polarisations) stay out of its field"""


def export_stac(entry: ZooEntry, folder: Path, href: str = "") -> Path:
    """Write ``folder/NAME/stac-item.json`` for a specialist and return its path.

    Args:
        entry: the specialist, of `eosfm.specialists.zoo`.
        folder: a catalogue's folder; not the specialist's own, whose files are exactly card and weights.
        href: URL of a folder that holds the specialist's files; default: their place on this disk, relative to the item.

    Raises:
        CardError: the item would break the schema, or ``folder`` lies inside the specialist's.
    """
    target = folder / entry.card.name / ITEM
    if target.resolve().is_relative_to(entry.folder.resolve()):
        raise CardError(f"{target} would lie inside the specialist {entry.folder}; name another folder for STAC items")
    place = href.rstrip("/") or Path(os.path.relpath(entry.folder.resolve(), target.parent.resolve())).as_posix()
    item = stac_item(entry.card, place)
    if found := problems(item):
        raise CardError(f"{entry.folder / CARD}: no valid STAC item comes of this card: {'; '.join(found)}")
    write_json(target, item)
    return target


def stac_item(card: SpecialistCard, place: str) -> dict[str, Any]:
    """The item for ``card``, whose files lie at ``place`` (a URL or path without the final slash)."""
    bands = card.bandset()
    names = [f"{b.sensor}:{b.name}" for b in bands]
    described: dict[str, dict[str, Any]] = {}
    for name, b in zip(names, bands, strict=True):
        row: dict[str, Any] = {"name": name, "description": f"{b.common}, stored as {b.unit}"}
        if b.gsd_m is not None:
            row["gsd"] = b.gsd_m
        if b.common in _EO_NAMES:
            row["eo:common_name"] = b.common
        if b.wavelength_nm is not None:
            row["eo:center_wavelength"] = round(b.wavelength_nm / 1000, 6)  # micrometres
        described[name] = row  # a repeated channel is described once
    scaling = [
        {"type": "z-score", "mean": m, "stddev": s}
        for m, s in zip(card.statistics.mean, card.statistics.std, strict=True)
    ]
    tasks = TASKS.get(card.task.kind, [])
    size = card.chip_size
    outputs = [
        {
            "name": f"features at stride {stride}",
            "tasks": tasks,
            "result": {"shape": [-1, channels, size // stride, size // stride], "dim_order": _DIMENSIONS,
                       "data_type": "float32"},
            "classification:classes": [],
        }
        for channels, stride in zip(card.channels, PYRAMID_STRIDES, strict=True)
    ]  # fmt: skip
    checksum = "1220" + card.weights.sha256  # multihash: SHA-256, 32 bytes
    trained = card.task.kind != "none"
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, FILE, EO],
        "id": card.name,
        "geometry": None,  # the card does not record where the training images lie
        "properties": {
            "datetime": card.created,
            "title": card.name,
            "description": card.description or f"Frozen encoder trained for {card.task.kind} on {card.data.name}.",
            "license": "other",
            "eosfm:licence": card.licence,
            "eosfm:data_licence": card.data.licence,
            "bands": list(described.values()),
            "mlm:name": _mlm_name(card.name),
            "mlm:architecture": "ConvNeXtV2-Atto" if card.pyramid is None else card.architecture,
            "mlm:framework": "PyTorch",
            "mlm:tasks": tasks,
            "mlm:total_parameters": card.weights.parameters,
            "mlm:memory_size": card.weights.bytes,
            "mlm:pretrained": trained,
            "mlm:pretrained_source": card.data.name if trained else None,
            "mlm:accelerator": None,
            "mlm:input": [
                {
                    "name": "image in the declared units",
                    "bands": names,
                    "input": {"shape": [-1, len(bands), size, size], "dim_order": ["batch", "bands", "height", "width"],
                              "data_type": "float32"},
                    "value_scaling": scaling,
                    "resize_type": None,
                }
            ],
            "mlm:output": outputs,
        },
        "links": [],
        "assets": {
            "weights": {
                "href": f"{place}/{WEIGHTS}",
                "title": "Encoder weights",
                "type": "application/octet-stream",
                "roles": ["mlm:model", "mlm:weights"],
                "mlm:artifact_type": "safetensors.torch.save_file",
                "file:size": card.weights.bytes,
                "file:checksum": checksum,
            },
            "card": {
                "href": f"{place}/{CARD}",
                "title": "Specialist card",
                "type": "application/json",
                "roles": ["metadata"],
            },
        },
    }  # fmt: skip


def _mlm_name(name: str) -> str:
    plain = name.replace("+", "-plus").rstrip("._-")
    return plain if re.fullmatch(_NAME, plain) else f"eosfm-{plain}"


def problems(item: Any) -> list[str]:
    """What in ``item`` breaks STAC 1.1 or MLM 1.5, as far as it is restated here; empty where nothing does."""
    if not isinstance(item, dict) or not isinstance(item.get("properties"), dict):
        return ["not a STAC item: expected an object with properties"]
    out = [f"{k} is {item.get(k)!r}, expected {v!r}" for k, v in _FIXED.items() if item.get(k) != v]
    if MLM not in (item.get("stac_extensions") or []):
        out.append(f"stac_extensions lacks {MLM}")
    if item.get("geometry") is None and "bbox" in item:
        out.append("a bbox without a geometry")
    p = item["properties"]
    out += [f"properties lack {k}" for k in _REQUIRED if k not in p]
    out += [f"{k} belongs to an asset" for k in ("mlm:artifact_type", "mlm:compile_method", "mlm:entrypoint") if k in p]
    out += [f"unknown field {k}" for k in p if k.startswith("mlm:") and k not in _KNOWN]
    out += _wrong_properties(p) if not out else []
    return out + _wrong_assets(item.get("assets"))


_NAME = r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]"
_FIXED = {"type": "Feature", "stac_version": "1.1.0"}
_REQUIRED = ("datetime", "mlm:name", "mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output")
_KNOWN = {
    *_REQUIRED, "mlm:framework", "mlm:framework_version", "mlm:memory_size", "mlm:total_parameters", "mlm:pretrained",
    "mlm:pretrained_source", "mlm:batch_size_suggestion", "mlm:accelerator", "mlm:accelerator_constrained",
    "mlm:accelerator_summary", "mlm:accelerator_count", "mlm:hyperparameters",
}  # fmt: skip
_MLM_TASKS = {
    "regression", "classification", "scene-classification", "detection", "object-detection", "segmentation",
    "semantic-segmentation", "instance-segmentation", "panoptic-segmentation", "similarity-search", "generative",
    "image-captioning", "super-resolution", "downscaling",
}  # fmt: skip


def _wrong_properties(p: dict[str, Any]) -> list[str]:
    out = []
    try:
        aware = datetime.fromisoformat(p["datetime"]).tzinfo is not None
    except (TypeError, ValueError):
        aware = False
    if not aware:
        out.append(f"datetime is {p['datetime']!r}, expected a date and time with its zone")
    if not re.fullmatch(_NAME, str(p["mlm:name"])):
        out.append(f"mlm:name is {p['mlm:name']!r}, expected a letter first and a letter or digit last")
    if unknown := sorted(set(p["mlm:tasks"]) - _MLM_TASKS):
        out.append(f"mlm:tasks has {', '.join(unknown)}")
    if p.get("mlm:pretrained") is False and p.get("mlm:pretrained_source", "") is not None:
        out.append("mlm:pretrained_source must be null where nothing was trained")
    listed = {b.get("name") for b in p.get("bands") or []}
    for i in p["mlm:input"]:
        shape, order = i["input"]["shape"], i["input"]["dim_order"]
        if len(shape) != len(order) or len(set(order)) != len(order):
            out.append(f"input {i['name']!r}: shape {shape} and dim_order {order} do not agree")
        if ("bands" in order) != bool(i.get("bands")):
            out.append(f"input {i['name']!r}: a dimension 'bands' goes with a list of bands")
        elif i.get("bands") and shape[order.index("bands")] != len(i["bands"]):
            out.append(f"input {i['name']!r}: {len(i['bands'])} bands, shape {shape}")
        out += [f"band {b} is not described in bands" for b in i.get("bands") or [] if b not in listed]
        scaling = i.get("value_scaling") or []
        if scaling and len(scaling) not in (1, len(i.get("bands") or [])):
            out.append(f"input {i['name']!r}: {len(scaling)} scalings")
        numbers = [s.get(k) for s in scaling if s.get("type") == "z-score" for k in ("mean", "stddev")]
        if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            out.append(f"input {i['name']!r}: a z-score needs a finite mean and stddev")
    for o in p["mlm:output"]:
        if missing := {"name", "tasks", "result"} - o.keys():
            out.append(f"an output lacks {', '.join(sorted(missing))}")
        elif len(o["result"]["shape"]) != len(o["result"]["dim_order"]):
            out.append(f"output {o['name']!r}: shape and dim_order do not agree")
    return out


def _wrong_assets(assets: Any) -> list[str]:
    if not isinstance(assets, dict) or not assets:
        return ["no assets"]
    out, models = [], 0
    for name, a in assets.items():
        is_model = "mlm:model" in (a.get("roles") or [])
        models += is_model
        if not a.get("href"):
            out.append(f"asset {name}: no href")
        if is_model != ("mlm:artifact_type" in a):
            out.append(f"asset {name}: role mlm:model and mlm:artifact_type go together")
        checksum = a.get("file:checksum", "1220" + "0" * 64)
        if not re.fullmatch(r"1220[0-9a-f]{64}", checksum):
            out.append(f"asset {name}: checksum {checksum[:20]!r} is no SHA-256 multihash")
    return out if models else [*out, "no asset with role mlm:model"]
