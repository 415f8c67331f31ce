"""The tasks of two benchmarks as data: PANGAEA's eleven data sets (SpaceNet 7 twice), and GEO-Bench-2's nineteen.

PANGAEA (Marsocci et al. 2024, arXiv:2412.04204): kinds, classes, bands and chip sizes are those of its configurations;
all its scores are of a frozen encoder with a UPerNet decoder, batches of 8 for training and 1 for testing. GEO-Bench-2
(Simumba et al. 2025, arXiv:2511.15658): metrics and capability groups are those of its leaderboard's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eosfm.benchmark.iqm import BIOMASSTERS_STD, CAPABILITIES
from eosfm.contracts import DataError, known
from eosfm.data.published.geobench2_tables import SHEETS
from eosfm.data.published.pangaea_layouts import LAYOUTS

Kind = Literal["segmentation", "change", "regression", "classification", "multilabel", "detection", "instances"]
S2_10 = "sentinel-2-{}:B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@dn-1e4"


@dataclass(frozen=True)
class Task:
    """One task of a benchmark; `where_to_get` says how its data come here."""

    benchmark: Literal["PANGAEA", "GEO-Bench-2"]
    dataset: str
    """what `eosfm.data.catalogue.open_dataset` calls it"""
    kind: Kind
    metric: str
    classes: int | None = None
    """None where it is not known here"""
    bands: str = ""
    """what the reader gives"""
    dates: int = 1
    chip: int | None = None
    """side in pixels, as the benchmark sets it"""
    note: str = ""
    """what differs here, or what a comparison must heed"""
    groups: tuple[str, ...] = ()
    """GEO-Bench-2's capabilities"""
    scale: float | None = None
    """GEO-Bench-2 turns an error into a score: ``1 - metric * scale``, here of an error in our unit"""


_ROWS: tuple[tuple[str, Kind, int, str, int, int, str], ...] = (
    (
        "hls-burn-scars", "segmentation", 2, "hls:BLUE,GREEN,RED,NIR_NARROW,SWIR_1,SWIR_2@reflectance", 1, 512,
        "validation by MGRS tile, and no training chip on tested ground (PANGAEA: chips at random)",
    ),
    (
        "mados", "segmentation", 15,
        "sentinel-2-l2a:B01,B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@reflectance", 1, 240,
        "sparse labels; published split by chip, scenes are shared",
    ),
    (
        "sen1floods11-hand", "segmentation", 2,
        "sentinel-1:VV,VH@db + sentinel-2-l1c:B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B10,B11,B12@dn-1e4", 1, 512,
        "published split by chip, floods are shared",
    ),
    (
        "ai4smallfarms", "segmentation", 2, "sentinel-2-l2a:B02,B03,B04,B08@dn-1e4", 1, 496,
        "the published column (25 to 28 mIoU) lies below a constant map: compare with the constant predictor only",
    ),
    (
        "pastis", "segmentation", 19, f"{S2_10.format('l2a')} + sentinel-1:VV,VH@db", 6, 128,
        "dates averaged (PANGAEA: learnt weights or L-TAE); dates in order, where PANGAEA draws 50 at random first",
    ),
    (
        "croptype-southsudan", "segmentation", 4, f"{S2_10.format('l1c')} + sentinel-1:VV,VH@db", 6, 64,
        "dates evenly spread and averaged (PANGAEA: the last six, shorter series padded with zeros)",
    ),
    (
        "dynamicearthnet", "segmentation", 6, "planetscope-4b:blue,green,red,nir@dn-1e4", 6, 1024,
        "dates averaged; pixels without a layer ignored (PANGAEA: class 0); tiles of 256",
    ),
    (
        "spacenet7", "segmentation", 2, "planetscope-4b:red,green,blue@8bit", 1, 256,
        "PANGAEA's configuration has one class; here are two",
    ),
    (
        "spacenet7-change", "change", 2, "planetscope-4b:red,green,blue@8bit", 2, 256,
        "PANGAEA's configuration has one class; here are two. First and middle month in all splits",
    ),
    (
        "fivebillionpixels", "segmentation", 24, "gaofen-2:nir,red,green,blue@8bit", 1, 520,
        "PANGAEA counts 25 classes and ignores one of them; tiles of 512, a multiple of the encoder's stride",
    ),
    (
        "xview2", "change", 5, "rgb:R,G,B@8bit", 2, 1024,
        "whole disasters held out for validation (PANGAEA: chips at random); tiles of 512",
    ),
    (
        "biomassters", "regression", 1, f"{S2_10.format('l2a')} + sentinel-1:VV,VH@db", 12, 256,
        "months averaged; the ascending orbit only, no cloud probability; a missing month is left out of the mean",
    ),
)  # fmt: skip
PANGAEA: dict[str, Task] = {
    name: Task("PANGAEA", name, kind, "rmse" if kind == "regression" else "miou", classes, bands, dates, chip, note)
    for name, kind, classes, bands, dates, chip, note in _ROWS
}

_KINDS: dict[str, tuple[Kind, str]] = {
    **dict.fromkeys(CAPABILITIES["pixel-wise"], ("segmentation", "miou")),
    **dict.fromkeys(("everwatch", "nzcattle"), ("detection", "map-boxes")),
    **dict.fromkeys(("substation", "pastis_r"), ("instances", "map-masks")),
    "so2sat": ("classification", "accuracy"),
    "forestnet": ("classification", "accuracy"),
    "benv2": ("multilabel", "f1"),
    "treesatai": ("multilabel", "f1"),
    "biomassters": ("regression", "rmse"),
}
_BIOMASSTERS = BIOMASSTERS_STD / 289.89  # its package divides t/ha by 289.89
_DATES = {"biomassters": 12, "dynamic_earthnet": 6, "fotw": 2, "kuro_siwo": 3, "pastis": 6, "pastis_r": 12}
_CHIP = {
    "benv2": 120, "biomassters": 256, "burn_scars": 512, "caffe": 512, "cloudsen12": 512, "dynamic_earthnet": 512, "flair2": 512,
    "everwatch": 512, "forestnet": 332, "fotw": 256, "kuro_siwo": 224, "nzcattle": 500, "pastis": 128, "pastis_r": 128,
    "so2sat": 32, "spacenet7": 512, "substation": 228, "treesatai": 304,
}  # fmt: skip
_NOTES = {
    "benv2": "the package calls VH VV, and VV VH; geobench2-benv2-s2 is Sentinel-2 alone",
    "biomassters": "dates averaged; biomass in t/ha (the package divides by 289.89); a missing month is left out of the mean",
    "burn_scars": "no data ignored (the package: a third value)",
    "cloudsen12": "names and number of items are not in the sources at hand: the first is the picture, the second the mask",
    "dynamic_earthnet": "six days of PlanetScope, dates averaged; pixels without a layer are class 0, as in its files",
    "flair2": "elevation left out",
    "fotw": "both windows side by side; unknown (3) ignored",
    "kuro_siwo": "linear power, dates averaged (with dates: 1, after the flood); no data ignored (the package: a fourth class)",
    "pastis": "Sentinel-2, dates averaged; void ignored; how many dates the leaderboard took is not in the sources at hand",
    "pastis_r": "Sentinel-2, dates averaged; fields of void and background left out (the package finds them as classes)",
    "so2sat": "Sentinel-1 left out: amplitudes, and their names swapped",
    "spacenet2": "uncalibrated counts; two classes (the package has a third that no pixel has)",
    "spacenet7": "two classes (the package has a third that no pixel has)",
    "substation": "all 13 bands (published runs: red, green, blue); masks of all polygons, boxes around them",
    "treesatai": "the package calls near infrared red, and red near infrared; Sentinel-2 is geobench2-treesatai-s2",
}
"""what differs from the package geobenchv2 0.9, by which the leaderboard's scores were made"""


def _geo_bench(name: str) -> Task:
    kind, metric = _KINDS[name]
    groups = tuple(group for group, members in CAPABILITIES.items() if name in members)
    about = SHEETS[name].about
    return Task(
        "GEO-Bench-2", f"geobench2-{name}", kind, metric, len(about.classes), str(about.bands), _DATES.get(name, 1),
        _CHIP.get(name), _NOTES.get(name, ""), groups, _BIOMASSTERS if name == "biomassters" else None,
    )  # fmt: skip


GEO_BENCH_2: dict[str, Task] = {name: _geo_bench(name) for name in sorted(_KINDS)}

TASKS: dict[str, Task] = {
    **{f"pangaea/{name}": task for name, task in PANGAEA.items()},
    **{f"geobench2/{name}": task for name, task in GEO_BENCH_2.items()},
}
"""``benchmark/name`` -> task"""


def where_to_get(name: str) -> str:
    """How the data of task ``name`` come here: what an error about missing data says.

    Raises:
        DataError: an unknown name.
    """
    if name not in TASKS:
        raise DataError(f"unknown task {name!r}; {known(TASKS)}")
    task = TASKS[name]
    if task.benchmark == "PANGAEA":
        layout = LAYOUTS[task.dataset]
        return f"{layout.title}: {layout.where_to_get()}"
    short = name.removeprefix("geobench2/")
    layout = SHEETS[short].layout
    return f"{layout.title}: {layout.where_to_get()}"
