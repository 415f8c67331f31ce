"""GEO-Bench-2's data sets (Simumba et al. 2025, arXiv:2511.15658) as data: items, bands, units, label values, classes, files.

Names of items and files, label values and orders of classes are those of the package `geobenchv2` 0.9: of its readers and of
the scripts that wrote the files. Where the readers' names of bands are wrong, the names here are what the bands are:

benv2      s1.tif holds VH, VV (its script's order; the first is the weaker in all real samples); its reader says VV, VH
treesatai  aerial.tif holds near infrared, green, blue, red (TorchGeo's order; the first is the brightest over the forests of the
           samples); its reader says red, green, blue, near infrared
so2sat     s1.tif holds the real parts of VH and VV, amplitudes and no powers: left out
treesatai  s1.tif holds dB that were cast to unsigned integers (65530 for -6): left out
dynamic_earthnet  s2 names B10, which Level 2A has not, and its published means fit no order: left out
"""

from __future__ import annotations

from dataclasses import dataclass

from eosfm.bands import BandSet
from eosfm.data.bigearthnet import CLASSES as CORINE
from eosfm.data.folders import About
from eosfm.data.published import pastis
from eosfm.data.published.geobench2_things import Things
from eosfm.data.published.satellite_files import Layout
from eosfm.tasks.kinds import IGNORE

S2_10 = "sentinel-2-l2a:B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@dn-1e4"
S2_12 = "sentinel-2-l2a:B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B11,B12@dn-1e4"
S2_L1C = "sentinel-2-l1c:B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B10,B11,B12@dn-1e4"
MONTHS = (
    "September",
    "October",
    "November",
    "December",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
)
_COPERNICUS = "Contains modified Copernicus Sentinel data."
_HUB = "https://hf.co/datasets/aialliance"


@dataclass(frozen=True)
class Layer:
    """One item of a sample that holds pixels."""

    item: str
    """pattern of the item's whole name; ``#1`` is the second item, where no source says its name"""
    bands: str
    """of the file, in file order, with their unit"""
    more: int = 0
    """bands that may follow and are left out"""
    nodata: float | None = None
    """this value, or its negative, was not measured"""
    zeros: bool = False
    """a pixel that is 0 in all bands was not measured"""
    optional: bool = False
    """a sample may lack it: NaN"""


@dataclass(frozen=True)
class Mask:
    """Labels in an item, one a pixel."""

    item: str
    values: tuple[tuple[int, int], ...] = ()
    """``(stored, class)``; empty: a quantity, not classes"""


@dataclass(frozen=True)
class Sheet:
    """One data set."""

    name: str
    about: About
    dates: tuple[tuple[Layer, ...], ...]
    """the items of each date; one date is repeated where an item holds the whole series (HDF5)"""
    label: Mask | Things | str
    """a mask, single things, or the column of the table of contents that names the classes"""
    one: int = 0
    """the date that is read where one is asked for"""
    series: bool = False
    files: int = 1
    valid: str = ""
    """item that is 0 where nothing can be said"""
    held_by: str = ""
    """the data set whose files these are, where it is another"""

    @property
    def paths(self) -> tuple[str, ...]:
        """The files' names, as published."""
        stem = self.held_by or self.name
        if self.files == 1:
            return (f"geobench_{stem}.tortilla",)
        return tuple(f"geobench_{stem}.{i:04d}.part.tortilla" for i in range(self.files))

    @property
    def layout(self) -> Layout:
        """Which files, and where they come from."""
        held = self.held_by or self.name
        wanted = self.paths[0] if self.files == 1 else f"geobench_{held}.0000 to {self.files - 1:04d}.part.tortilla"
        get = (
            f"eosfm fetch geobench2-{self.name} FOLDER, which tells the size, goes on where it broke and checks the hash; or "
            f"hf download aialliance/{held} --repo-type dataset --include 'geobench_*' --local-dir FOLDER"
        )
        return Layout(f"GEO-Bench-2, {self.name}", wanted, f"{get} ({_HUB}/{held})")


def _about(title: str, bands: str, kind: str, classes: tuple[str, ...], licence: str, source: str) -> About:
    return About(
        f"GEO-Bench-2, {title}", BandSet.parse(bands), kind, classes, licence, f"GEO-Bench-2's version of {source}"
    )


def _same(n: int, first: int = 0) -> tuple[tuple[int, int], ...]:
    """Stored values ``first``, ``first`` + 1, ... are classes 0, 1, ..."""
    return tuple((first + i, i) for i in range(n))


def _sheet(
    name: str, bands: str, kind: str, classes: tuple[str, ...], licence: str, source: str, dates: tuple[tuple[Layer, ...], ...],
    label: Mask | Things | str, **more: object,
) -> Sheet:  # fmt: skip
    return Sheet(name, _about(name, bands, kind, classes, licence, source), dates, label, **more)  # type: ignore[arg-type]


_BUILDINGS = Mask("(semantic_)?mask", ((0, 0), (1, 1)))
_PLANET = "planetscope-4b:blue,green,red,nir@dn-1e4"
_S2_TREES = "sentinel-2-l2a:B02,B03,B04,B08,B05,B06,B07,B8A,B11,B12,B01,B09@dn-1e4"
_TREES = (
    "Abies", "Acer", "Alnus", "Betula", "Cleared", "Fagus", "Fraxinus", "Larix", "Picea", "Pinus", "Populus", "Prunus",
    "Pseudotsuga", "Quercus", "Tilia",
)  # fmt: skip
_BENV2 = Layer("s2", S2_12, zeros=True)
_BIGEARTHNET = f"BigEarthNet v2 (Clasen et al. 2024), 120 x 120 pixels of 10 m. {_COPERNICUS}"
_TREESATAI = "TreeSatAI (Ahlswede et al. 2023, doi:10.5194/essd-15-681-2023), 304 x 304 pixels of 0.2 m in Lower Saxony"

_SHEETS = (
    _sheet(
        "benv2", f"{S2_12} + sentinel-1:VV,VH@db", "multilabel", CORINE, "CDLA-Permissive-1.0", _BIGEARTHNET,
        ((_BENV2, Layer("s1", "sentinel-1:VH,VV@db")),), "labels",
    ),
    _sheet(
        "biomassters", f"{S2_10} + sentinel-1:VV,VH@db", "regression", ("biomass above ground in tonnes a hectare",), "CC-BY-4.0",
        f"BioMassters (Nascetti et al. 2023), 256 x 256 pixels of 10 m in Finland. {_COPERNICUS}",
        tuple(
            (
                Layer(rf"\w+_S2_({i:02d}|{month})", S2_10, more=1, zeros=True, optional=True),
                Layer(rf"\w+_S1_({i:02d}|{month})", "sentinel-1:VV,VH@db", more=2, nodata=9999.0),
            )
            for i, month in enumerate(MONTHS)
        ),
        Mask(r"\w+_AGBM"), files=3,
    ),
    _sheet(
        "burn_scars", "hls:all@reflectance", "segmentation", ("background", "burn scar"), "CC-BY-4.0",
        "HLS Burn Scars (Phillips et al. 2023), 512 x 512 pixels of 30 m",
        ((Layer("image", "hls:BLUE,GREEN,RED,NIR_NARROW,SWIR_1,SWIR_2@reflectance", nodata=9999.0),),),
        Mask("label", ((-1, IGNORE), *_same(2))),
    ),
    _sheet(
        "caffe", "sar:VV@8bit", "segmentation", ("not available", "rock", "glacier", "ocean and ice melange"), "CC-BY-4.0",
        "CaFFe (Gourmelon et al. 2022), 512 x 512 pixels of 6 to 20 m. The polarisation is not stated: VV is a placeholder",
        ((Layer("img", "sar:VV@8bit"),),), Mask("mask", _same(4)),
    ),
    _sheet(
        "cloudsen12", S2_12, "segmentation", ("clear", "thick cloud", "thin cloud", "cloud shadow"), "not stated",
        f"CloudSEN12+ (Aybar et al. 2024), Level 2A, high-quality labels, 512 x 512 pixels of 10 m. {_COPERNICUS}",
        ((Layer("#0", S2_12, more=3, zeros=True),),), Mask("#1", (*_same(4), (99, IGNORE))),
    ),
    _sheet(
        "dynamic_earthnet", _PLANET, "segmentation",
        ("impervious surfaces", "agriculture", "forest and other vegetation", "wetlands", "soil", "water", "snow and ice"),
        "CC-BY-SA-4.0", "DynamicEarthNet (Toker et al. 2022), 512 x 512 pixels of 3 m",
        tuple((Layer(f"planet_{i}", _PLANET, zeros=True),) for i in (0, 4, 9, 14, 19, 24)), Mask("label", _same(7)), files=3,
    ),
    _sheet(
        "flair2", "aerial:R,G,B,N@8bit", "segmentation",
        ("building", "pervious surface", "impervious surface", "bare soil", "water", "coniferous", "deciduous", "brushwood",
         "vineyard", "herbaceous vegetation", "agricultural land", "plowed land", "other"),
        "Etalab-2.0", "FLAIR #2 (Garioud et al. 2023), 512 x 512 pixels of 0.2 m in France",
        ((Layer("aerial", "aerial:R,G,B,N@8bit", more=1),),), Mask("mask", (*_same(13, 1), *((v, 12) for v in range(14, 20)))),
    ),
    _sheet(
        "forestnet", "landsat-8:B2,B3,B4,B5,B6,B7@8bit", "classification",
        ("Oil palm plantation", "Timber plantation", "Other large-scale plantations", "Grassland/shrubland",
         "Small-scale agriculture", "Small-scale mixed plantation", "Small-scale oil palm plantation", "Mining", "Fish pond",
         "Logging road", "Secondary forest", "Other"),
        "not stated", "ForestNet (Irvin et al. 2020), 332 x 332 pixels of 15 m in Indonesia, values of 0 to 255",
        ((Layer("image", "landsat-8:B2,B3,B4,B5,B6,B7@8bit"),),), "labels",
    ),
    _sheet(
        "everwatch", "aerial:R,G,B@8bit", "detection",
        ("White Ibis", "Great Egret", "Great Blue Heron", "Snowy Egret", "Wood Stork", "Roseate Spoonbill", "Anhinga",
         "Unknown White"),
        "not stated", "EverWatch (doi:10.5281/zenodo.11165946): birds from drones over the Everglades, "
        "pictures shrunk to 512 x 512 pixels by the benchmark",
        ((Layer("image", "aerial:R,G,B@8bit"),),), Things("boxes in parquet", unnamed="Unknown White"),
    ),
    _sheet(
        "fotw", "sentinel-2-l2a:B04,B03,B02,B08@dn-1e4", "segmentation", ("background", "field", "field boundary"), "not stated",
        f"Fields of The World (Kerner et al. 2024), 256 x 256 pixels of 10 m, planting and harvest. {_COPERNICUS}",
        tuple((Layer(w, "sentinel-2-l2a:B04,B03,B02,B08@dn-1e4", zeros=True),) for w in ("win_a", "win_b")),
        Mask("semantic_3class_mask", (*_same(3), (3, IGNORE))),
    ),
    _sheet(
        "kuro_siwo", "sentinel-1:VV,VH@linear", "segmentation", ("no water", "permanent water", "flood"), "not stated",
        f"Kuro Siwo (Bountos et al. 2023), 224 x 224 pixels of 10 m, sigma0. {_COPERNICUS}",
        tuple((Layer(i, "sentinel-1:VV,VH@linear"),) for i in ("pre_event_1", "pre_event_2", "post_event")),
        Mask("mask", (*_same(3), (3, IGNORE))), one=2, valid="invalid_data",
    ),
    _sheet(
        "nzcattle", "aerial:R,G,B@8bit", "detection", ("cattle",), "CC-BY-4.0",
        "New Zealand Cattle Detection (Abuaiadah and Switzer 2022, doi:10.5281/zenodo.5908869), 500 x 500 pixels of 0.1 m",
        ((Layer("image", "aerial:R,G,B@8bit"),),), Things("boxes in json", key="boxes"),
    ),
    _sheet(
        "pastis", S2_10, "segmentation", pastis.CLASSES, "etalab-2.0",
        f"PASTIS-R (Garnot et al. 2022), 128 x 128 pixels of 10 m in France. {_COPERNICUS}",
        ((Layer("s2", S2_10, nodata=10_000.0),),), Mask("semantic", (*_same(19), (19, IGNORE))), files=3, series=True,
    ),
    _sheet(
        "pastis_r", S2_10, "instances", pastis.CLASSES[1:], "etalab-2.0",
        f"PASTIS-R (Garnot et al. 2022), fields as instances, 128 x 128 pixels of 10 m in France. {_COPERNICUS}",
        ((Layer("s2", S2_10, nodata=10_000.0),),), Things("maps"), files=3, series=True, held_by="pastis",
    ),
    _sheet(
        "so2sat", "sentinel-2-l1c:B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@reflectance", "classification",
        ("Compact high-rise", "Compact middle-rise", "Compact low-rise", "Open high-rise", "Open middle-rise", "Open low-rise",
         "Lightweight low-rise", "Large low-rise", "Sparsely built", "Heavy industry", "Dense Trees", "Scattered trees",
         "Bush, scrub", "Low plants", "Bare rock or paved", "Bare soil or sand", "Water"),
        "CC-BY-4.0", f"So2Sat LCZ42 (Zhu et al. 2020), 32 x 32 pixels of 10 m. {_COPERNICUS}",
        ((Layer("s2", "sentinel-2-l1c:B02,B03,B04,B05,B06,B07,B08,B8A,B11,B12@reflectance"),),), "labels",
    ),
    _sheet(
        "spacenet2", "worldview-3:all@dn", "segmentation", ("no building", "building"), "CC-BY-SA-4.0",
        "SpaceNet 2 (Van Etten et al. 2018), WorldView-3, eight bands sharpened to 0.3 m",
        ((Layer("ps-ms", "worldview-3:all@dn", zeros=True),),), _BUILDINGS,
    ),
    _sheet(
        "spacenet7", "planetscope-4b:red,green,blue@8bit", "segmentation", ("no building", "building"), "CC-BY-SA-4.0",
        "SpaceNet 7 (Van Etten et al. 2021), monthly PlanetScope mosaics, 512 x 512 pixels of 4 m",
        ((Layer("images", "planetscope-4b:red,green,blue@8bit", more=1, zeros=True),),), _BUILDINGS,
    ),
    _sheet(
        "substation", S2_L1C, "instances", ("power station",), "not stated",
        f"Substation (TransitionZero, arXiv:2409.17363), means over several dates, 228 x 228 pixels of 10 m. {_COPERNICUS}",
        ((Layer("image", S2_L1C, zeros=True),),), Things("polygons in json", key="sample_annotations"),
    ),
    _sheet(
        "treesatai", "aerial:R,G,B,N@8bit", "multilabel", _TREES, "CC-BY-4.0", _TREESATAI,
        ((Layer("aerial", "aerial:N,G,B,R@8bit"),),), "species_labels",
    ),
)  # fmt: skip

SHEETS: dict[str, Sheet] = {s.name: s for s in _SHEETS}
"""data set, as GEO-Bench-2 calls it -> what it holds"""
S2_SHEETS: dict[str, Sheet] = {
    "benv2": _sheet("benv2", S2_12, "multilabel", CORINE, "CDLA-Permissive-1.0", _BIGEARTHNET, ((_BENV2,),), "labels"),
    "treesatai": _sheet(
        "treesatai", _S2_TREES, "multilabel", _TREES, "CC-BY-4.0", f"{_TREESATAI}; Sentinel-2 on the same grid. {_COPERNICUS}",
        ((Layer("s2", _S2_TREES, zeros=True),),), "species_labels",
    ),
}  # fmt: skip
"""two of them, Sentinel-2 only"""
