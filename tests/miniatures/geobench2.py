"""Tiny copies of GEO-Bench-2's data sets in its ``.tortilla`` files, as the scripts of `geobenchv2` 0.9 write them.

Items, their order, formats, types, value ranges and the columns of the tables are the scripts'; only the pixels are fewer.
`WRITERS` lists them all. Every band has a level of its own, so that a wrong order shows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosfm.data.bigearthnet import CLASSES as CORINE
from eosfm.data.published.geobench2_tables import MONTHS
from miniatures.satellite import digital, patchwork
from miniatures.tortillas import hdf5_bytes, pack, tif_bytes, write_bytes

SIDE = 32
SPLITS = ("train", "train", "validation", "test")
"""of the four samples of each data set"""
PLACE = {
    "stac:crs": "EPSG:32632",
    "stac:centroid": "POINT (9.0 48.7)",
    "stac:time_start": 1.5e9,
    "lon": 9.0,
    "lat": 48.7,
}

Pixels = NDArray[np.generic]
Sample = tuple[dict[str, Pixels], dict[str, dict[str, Any]], dict[str, Any]]
"""items, their own columns, and the columns of the sample in the outer table"""


def levels(rng: np.random.Generator, means: tuple[float, ...], std: float, form: str = "f4") -> Pixels:
    """Noise ``(c, SIDE, SIDE)`` about a mean for each band."""
    values: Pixels = (np.array(means)[:, None, None] + rng.normal(0, std, (len(means), SIDE, SIDE))).astype(form)
    return values


def gray(rng: np.random.Generator, means: tuple[float, ...]) -> Pixels:
    """8 bit, never 0 but in the first pixel."""
    values = levels(rng, means, 4).clip(1, 255).astype(np.uint8)
    return values


def cover(rng: np.random.Generator, values: tuple[int, ...] | range, form: str = "u1") -> Pixels:
    """A layer of labels ``(1, SIDE, SIDE)`` in which all of ``values`` occur."""
    return patchwork(rng, values, SIDE, 4)[None].astype(form)


def write(
    folder: Path, name: str, samples: Callable[[np.random.Generator, int], Sample], parts: int = 1, seed: int = 0
) -> None:
    """Four samples; in ``parts`` files, dealt out in turn, as ``.part.tortilla``."""
    rng = np.random.default_rng(seed)
    outer: list[dict[str, tuple[str, bytes]]] = [{} for _ in range(parts)]
    facts: dict[str, dict[str, Any]] = {}
    for i, split in enumerate(SPLITS):
        layers, own, columns = samples(rng, i)
        common = {"tortilla:data_split": split, "add_test_split": False, **PLACE}
        inside = {
            key: ("HDF5", hdf5_bytes(v)) if columns.get("hdf5") else ("GTiff", tif_bytes(v))
            for key, v in layers.items()
        }
        columns = {k: v for k, v in columns.items() if k != "hdf5"}
        data = pack(inside, own, **{**common, **columns})
        outer[i % parts][f"sample_{i}"] = ("TORTILLA", data)
        facts[f"sample_{i}"] = {**common, **columns}
    for part, held in enumerate(outer):
        file = f"geobench_{name}.tortilla" if parts == 1 else f"geobench_{name}.{part:04d}.part.tortilla"
        write_bytes(folder / file, pack(held, facts, partitions=parts))


def mapped(name: str, image: str, label: str, pixels: Callable[..., Pixels], values: tuple[int, ...] | range,
           form: str = "u1") -> Callable[[Path], None]:  # fmt: skip
    """A writer of samples of one picture and one mask; its first pixel was not measured."""

    def one(rng: np.random.Generator, i: int) -> Sample:
        mask, x = cover(rng, values, form), pixels(rng)
        x[:, 0, 0] = 0
        return {image: x, label: mask}, {}, {}

    return partial(write, name=name, samples=one)


def benv2(rng: np.random.Generator, i: int) -> Sample:
    words = [["Arable land", "Pastures"], ["Marine waters"], ["Inland waters", "Coniferous forest"], [CORINE[0]]][i]
    s2 = digital(rng, 12, SIDE)
    return {"s1": levels(rng, (-18.0, -11.0), 1), "s2": s2}, {}, {"labels": words, "patch_id": f"p{i}"}


def biomassters(rng: np.random.Generator, i: int) -> Sample:
    chip, layers, own = f"00{i}b0634", {}, {}
    for sensor in ("S1", "S2"):
        for m, month in enumerate(MONTHS):
            if sensor == "S2" and m in (3, 4):
                continue
            x = levels(rng, (-9.0, -16.0, -10.0, -17.0), 1) if sensor == "S1" else digital(rng, 11, SIDE, 500 + 50 * m)
            if sensor == "S1":
                x[2:, 0, 0] = -9999
                x[:2, 0, 1] = -9999
            layers[f"{chip}_{sensor}_{month}"] = x
            own[f"{chip}_{sensor}_{month}"] = {"modality": sensor, "month": month}
    layers[f"{chip}_AGBM"] = 40.0 * cover(rng, (0, 1, 2, 3), "f4")
    own[f"{chip}_AGBM"] = {"modality": "AGBM", "month": ""}
    return layers, own, {}


def burn_scars(rng: np.random.Generator, i: int) -> Sample:
    x, y = levels(rng, (0.03, 0.06, 0.07, 0.25, 0.2, 0.12), 0.005), cover(rng, (0, 0, 1), "i2")
    x[:, 0, 0], y[0, 0, 0] = 9999, -1
    return {"image": x, "label": y}, {}, {}


def dynamic_earthnet(rng: np.random.Generator, i: int) -> Sample:
    layers = {f"planet_{d}": digital(rng, 4, SIDE, 500 + 10 * d) for d in range(28)}
    layers |= {"s1": levels(rng, (0.1,) * 8, 0.01), "s2": digital(rng, 12, SIDE), "label": cover(rng, range(7))}
    own = {k: {"modality": k.split("_")[0]} for k in layers}
    return layers, own, {}


def forestnet(rng: np.random.Generator, i: int) -> Sample:
    label = ["Mining", "Other", "Fish pond", "Logging road"][i]
    number = {"Mining": 7, "Other": 11, "Fish pond": 8, "Logging road": 9}[label]
    return {"image": gray(rng, (72, 83, 77, 124, 91, 74))}, {"image": {"labels": number}}, {"labels": label}


def fotw(rng: np.random.Generator, i: int) -> Sample:
    def window() -> Pixels:
        return levels(rng, (860.0, 850.0, 590.0, 2980.0), 50, "u2")

    layers = {"win_a": window(), "win_b": window(), "instance_mask": cover(rng, range(9), "u4"),
              "semantic_3class_mask": cover(rng, (0, 1, 2, 3))}  # fmt: skip
    return layers, {}, {"country": "austria", "aoi_id": f"g{i}"}


def kuro_siwo(rng: np.random.Generator, i: int) -> Sample:
    layers: dict[str, Pixels] = {}
    for n, when in enumerate(("pre_event_1", "pre_event_2", "post_event")):
        layers[when] = levels(rng, (0.1 + 0.05 * n, 0.03), 0.005).clip(0.001)
    layers["post_event"][:, 0, 1] = np.nan
    valid = np.ones((1, SIDE, SIDE), np.uint8)
    valid[0, 0, 0] = 0
    layers |= {"dem": levels(rng, (90.0,), 5), "mask": cover(rng, (0, 1, 2, 3)), "invalid_data": valid}
    return layers, {}, {"pflood": 1.0}


def pastis(rng: np.random.Generator, i: int) -> Sample:
    length = (9, 6, 7, 8)[i]
    s2 = np.stack([digital(rng, 10, SIDE, 500 + 40 * t) for t in range(length)]).astype(np.int16)
    s2[:, :, 0, 0] = -10_000
    s1 = np.stack([levels(rng, (-10.0, -17.0, 7.0), 1) for _ in range(length + 2)])
    crops = cover(rng, range(20))
    layers = {
        "s2": s2,
        "s1a": s1,
        "s1d": s1[:-1],
        "semantic": np.repeat(crops, 3, 0),
        "instance": crops[0].astype(np.int32),
    }
    dates = list(range(20180917, 20180917 + length))
    return layers, {}, {"hdf5": True, "dates": dates, "patch_id": 10_000 + i}


def so2sat(rng: np.random.Generator, i: int) -> Sample:
    number = (0, 7, 16, 3)[i]
    label = ["Compact high-rise", "Large low-rise", "Water", "Open high-rise"][i]
    layers = {"s1": levels(rng, (0.0, 0.0), 0.3), "s2": levels(rng, tuple(0.10 + 0.01 * b for b in range(10)), 0.003)}
    return layers, {k: {"labels": number} for k in layers}, {"labels": label}


def spacenet2(rng: np.random.Generator, i: int) -> Sample:
    x = levels(rng, (299.0, 358.0, 465.0, 420.0, 334.0, 409.0, 475.0, 362.0), 20, "u2")
    x[:, 0, 0] = 0
    layers = {"ps-ms": x, "pan": levels(rng, (469.0,), 20, "u2"), "semantic_mask": cover(rng, (0, 0, 1)),
              "instance_mask": cover(rng, range(5), "u2")}  # fmt: skip
    return layers, {}, {}


def treesatai(rng: np.random.Generator, i: int) -> Sample:
    words = [["Picea", "Fagus"], ["Quercus"], ["Abies"], ["Tilia", "Acer"]][i]
    wrapped = levels(rng, (-6.0, -12.0, 0.5), 1).astype(np.int32).astype(np.uint16)
    layers = {"aerial": gray(rng, (154, 92, 85, 79)), "s1": wrapped, "s2": digital(rng, 12, SIDE, 300)}
    return layers, {}, {"species_labels": words, "dist_labels": [1.0 / len(words)] * len(words)}


def eight_bit(*means: float) -> Callable[[np.random.Generator], Pixels]:
    return partial(gray, means=means)


WRITERS: dict[str, Callable[[Path], None]] = {
    "benv2": partial(write, name="benv2", samples=benv2),
    "biomassters": partial(write, name="biomassters", samples=biomassters, parts=3),
    "burn_scars": partial(write, name="burn_scars", samples=burn_scars),
    "caffe": mapped("caffe", "img", "mask", eight_bit(63), range(4)),
    "cloudsen12": mapped("cloudsen12", "s2l2a", "target", lambda rng: digital(rng, 12, SIDE), (0, 1, 2, 3, 99)),
    "dynamic_earthnet": partial(write, name="dynamic_earthnet", samples=dynamic_earthnet, parts=3),
    "flair2": mapped("flair2", "aerial", "mask", eight_bit(110, 115, 106, 104, 18), range(1, 20)),
    "forestnet": partial(write, name="forestnet", samples=forestnet),
    "fotw": partial(write, name="fotw", samples=fotw),
    "kuro_siwo": partial(write, name="kuro_siwo", samples=kuro_siwo),
    "pastis": partial(write, name="pastis", samples=pastis, parts=3),
    "so2sat": partial(write, name="so2sat", samples=so2sat),
    "spacenet2": partial(write, name="spacenet2", samples=spacenet2),
    "spacenet7": mapped("spacenet7", "images", "mask", eight_bit(117, 104, 77, 255), (0, 1)),
    "treesatai": partial(write, name="treesatai", samples=treesatai),
}
"""GEO-Bench-2's name -> function that writes its files into a folder"""
