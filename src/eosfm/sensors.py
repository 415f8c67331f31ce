"""The sensor table: data only. (name, common name, wavelength nm, ground sampling distance m, aliases...) per channel.

Sources: ESA Sentinel-2 MSI spectral responses (S2A centres), USGS Landsat band designations, NASA HLS v2 user guide,
USDA NAIP, Planet PSB.SD product page, Airbus SPOT user guides, Gaofen-2 (centres of 450-520, 520-590, 630-690 and
770-890 nm), Maxar WorldView-3 (centres of the bands of its data sheet). Common names follow the STAC eo extension.
"""

from __future__ import annotations

Row = tuple[object, ...]

_S2: list[Row] = [
    ("B01", "coastal", 443.0, 60.0, "B1"),
    ("B02", "blue", 492.0, 10.0, "B2"),
    ("B03", "green", 560.0, 10.0, "B3"),
    ("B04", "red", 665.0, 10.0, "B4"),
    ("B05", "rededge071", 704.0, 20.0, "B5", "rededge", "rededge1"),
    ("B06", "rededge075", 741.0, 20.0, "B6", "rededge", "rededge2"),
    ("B07", "rededge078", 783.0, 20.0, "B7", "rededge", "rededge3"),
    ("B08", "nir", 833.0, 10.0, "B8"),
    ("B8A", "nir08", 865.0, 20.0, "B08A", "nirnarrow"),
    ("B09", "nir09", 945.0, 60.0, "B9", "watervapour"),
    ("B10", "cirrus", 1374.0, 60.0),
    ("B11", "swir16", 1614.0, 20.0, "swir1"),
    ("B12", "swir22", 2202.0, 20.0, "swir2"),
]

_SAR: list[Row] = [(p, p.lower(), None, None) for p in ("VV", "VH", "HH", "HV")]
_S1: list[Row] = [(p, p.lower(), None, 10.0) for p in ("VV", "VH", "HH", "HV")]

# Thematic Mapper and ETM+: band 4 is near infrared, band 7 the second short-wave infrared.
_TM: list[Row] = [
    ("B1", "blue", 485.0, 30.0, "B01", "SR_B1"),
    ("B2", "green", 560.0, 30.0, "B02", "SR_B2"),
    ("B3", "red", 660.0, 30.0, "B03", "SR_B3"),
    ("B4", "nir08", 830.0, 30.0, "B04", "SR_B4", "nir"),
    ("B5", "swir16", 1650.0, 30.0, "B05", "SR_B5", "swir1"),
    ("B7", "swir22", 2215.0, 30.0, "B07", "SR_B7", "swir2"),
]

_OLI: list[Row] = [
    ("B1", "coastal", 443.0, 30.0, "B01", "SR_B1"),
    ("B2", "blue", 482.0, 30.0, "B02", "SR_B2"),
    ("B3", "green", 561.0, 30.0, "B03", "SR_B3"),
    ("B4", "red", 655.0, 30.0, "B04", "SR_B4"),
    ("B5", "nir08", 865.0, 30.0, "B05", "SR_B5", "nir"),
    ("B6", "swir16", 1609.0, 30.0, "B06", "SR_B6", "swir1"),
    ("B7", "swir22", 2201.0, 30.0, "B07", "SR_B7", "swir2"),
    ("B8", "pan", 590.0, 15.0, "B08"),
    ("B9", "cirrus", 1373.0, 30.0, "B09"),
]

# HLS: the six bands that Landsat and Sentinel-2 share. The merged product has no band numbers: B05 is near infrared
# on L30 and red edge on S30, so "hls" answers to names only.
_HLS_NAMES = ["BLUE", "GREEN", "RED", "NIR_NARROW", "SWIR_1", "SWIR_2"]
_HLS_COMMON = ["blue", "green", "red", "nir08", "swir16", "swir22"]
_HLS_NM = [490.0, 560.0, 665.0, 865.0, 1610.0, 2200.0]
_HLS_ALIASES = [(), (), (), ("nir", "nirnarrow"), ("swir1",), ("swir2",)]


def _hls(numbers: list[str] | None) -> list[Row]:
    rows: list[Row] = []
    for i, (name, common, nm, aliases) in enumerate(zip(_HLS_NAMES, _HLS_COMMON, _HLS_NM, _HLS_ALIASES, strict=True)):
        number = () if numbers is None else (numbers[i], numbers[i].replace("B0", "B"))
        rows.append((name, common, nm, 30.0, *aliases, *number))
    return rows


_NAIP: list[Row] = [("R", "red", 635.0, 1.0), ("G", "green", 555.0, 1.0), ("B", "blue", 465.0, 1.0)]
_AERIAL: list[Row] = [("R", "red", 650.0, 0.3), ("G", "green", 550.0, 0.3), ("B", "blue", 470.0, 0.3)]

SENSOR_TABLE: dict[str, tuple[str, str, list[Row]]] = {
    "sentinel-2-l1c": ("sentinel-2", "optical", _S2),
    "sentinel-2-l2a": ("sentinel-2", "optical", [r for r in _S2 if r[0] != "B10"]),
    "sentinel-1": ("sentinel-1", "sar", _S1),
    "sar-x": ("sar-x", "sar", _SAR),
    "sar": ("sar", "sar", _SAR),
    "landsat-4": ("landsat-tm", "optical", _TM),
    "landsat-5": ("landsat-tm", "optical", _TM),
    "landsat-7": ("landsat-etm", "optical", [*_TM, ("B8", "pan", 710.0, 15.0, "B08")]),
    "landsat-8": ("landsat-oli", "optical", _OLI),
    "landsat-9": ("landsat-oli", "optical", _OLI),
    "hls": ("hls", "optical", _hls(None)),
    "hls-l30": ("hls", "optical", _hls(["B02", "B03", "B04", "B05", "B06", "B07"])),
    "hls-s30": ("hls", "optical", _hls(["B02", "B03", "B04", "B8A", "B11", "B12"])),
    "naip": ("naip", "optical", [*_NAIP, ("N", "nir", 845.0, 1.0, "NIR")]),
    "aerial": ("aerial", "optical", [*_AERIAL, ("N", "nir", 840.0, 0.3, "NIR")]),
    "planetscope-4b": (
        "planetscope-4b",
        "optical",
        [("blue", "blue", 485.0, 3.0, "B1"), ("green", "green", 545.0, 3.0, "B2"), ("red", "red", 630.0, 3.0, "B3"),
         ("nir", "nir", 820.0, 3.0, "B4")],
    ),
    "planetscope-8b": (
        "planetscope-8b",
        "optical",
        [("coastal_blue", "coastal", 443.0, 3.0, "B1"), ("blue", "blue", 490.0, 3.0, "B2"),
         ("green_i", "green05", 531.0, 3.0, "B3"), ("green", "green", 565.0, 3.0, "B4"),
         ("yellow", "yellow", 610.0, 3.0, "B5"), ("red", "red", 665.0, 3.0, "B6"),
         ("rededge", "rededge071", 705.0, 3.0, "B7"), ("nir", "nir08", 865.0, 3.0, "B8")],
    ),
    "spot-5": (
        "spot-5",
        "optical",
        [("green", "green", 545.0, 10.0, "XS1", "B1"), ("red", "red", 645.0, 10.0, "XS2", "B2"),
         ("nir", "nir", 835.0, 10.0, "XS3", "B3"), ("swir", "swir16", 1665.0, 20.0, "B4")],
    ),
    "spot-6-7": (
        "spot-6-7",
        "optical",
        [("blue", "blue", 485.0, 6.0, "B0"), ("green", "green", 560.0, 6.0, "B1"), ("red", "red", 655.0, 6.0, "B2"),
         ("nir", "nir", 825.0, 6.0, "B3")],
    ),
    "gaofen-2": (
        "gaofen-2",
        "optical",
        [("blue", "blue", 485.0, 4.0, "B1"), ("green", "green", 555.0, 4.0, "B2"), ("red", "red", 660.0, 4.0, "B3"),
         ("nir", "nir", 830.0, 4.0, "B4")],
    ),
    "worldview-3": (
        "worldview-3",
        "optical",
        [("coastal", "coastal", 425.0, 1.24, "B1"), ("blue", "blue", 480.0, 1.24, "B2"),
         ("green", "green", 545.0, 1.24, "B3"), ("yellow", "yellow", 605.0, 1.24, "B4"), ("red", "red", 660.0, 1.24, "B5"),
         ("rededge", "rededge071", 725.0, 1.24, "B6"), ("nir1", "nir", 832.0, 1.24, "B7"), ("nir2", "nir09", 950.0, 1.24, "B8")],
    ),
    "rgb": ("rgb", "optical", [("R", "red", None, None), ("G", "green", None, None), ("B", "blue", None, None)]),
    "elevation": ("elevation", "elevation", [("elevation", "elevation", None, None, "dem", "dsm", "height", "dtm")]),
}  # fmt: skip
"""sensor -> (family, modality, channels in file order)"""
