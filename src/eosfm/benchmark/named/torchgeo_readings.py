"""What TorchGeo's networks read: bands, units and normalisation, each with its source.

Networks of fixed bands name them in their weights' ``meta``; mean and std are those of the weights' ``transforms``. The unit
is in neither, so `CONVENTIONS` declares it. Networks of any bands (DOFA, Copernicus-FM, Panopticon) are told wavelengths; their
authors standardise each data set by its own statistics, as TorchGeo's sources say of DOFA.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eosfm.bands import Band, BandSet, Modality
from eosfm.benchmark.readings import Reading
from eosfm.contracts import BandError

TCI = 3558.0
"""digital numbers that the 8-bit true-colour image of Sentinel-2 saturates at (ESA, Level-1C product: TCI)"""

CONVENTIONS = (
    (r"SENTINEL2.*SATLAS", "sentinel-2-l1c", "satlas"),
    (r"SENTINEL2_RGB_SECO|EarthLoc", "sentinel-2-l1c", "8bit"),
    (r"SENTINEL2", "sentinel-2-l1c", "dn-1e4"),
    (r"SENTINEL1.*SATLAS", "sentinel-1", "8bit"),
    (r"SENTINEL1", "sentinel-1", "db"),
    (r"LANDSAT_TM", "landsat-5", "8bit"),
    (r"LANDSAT_ETM", "landsat-7", "8bit"),
    (r"LANDSAT", "landsat-8", "8bit"),
    (r"NAIP", "naip", "8bit"),
    (r"FMOW|CITYSCAPES", "rgb", "8bit"),
)
"""first pattern in the weights' name that fits: sensor and unit. SSL4EO-S12: digital numbers and dB; SSL4EO-L: 8 bit;
SatlasPretrain: the 8-bit true-colour image, and digital numbers beside it"""
COLOURS = r"FMOW|CITYSCAPES|EarthLoc"
"""z-scores with ImageNet's statistics, which any colour picture may take the place of"""

S2_WIDTHS = {
    "B01": 20.0, "B02": 65.0, "B03": 35.0, "B04": 30.0, "B05": 15.0, "B06": 15.0, "B07": 20.0, "B08": 115.0, "B8A": 20.0,
    "B09": 20.0, "B10": 30.0, "B11": 90.0, "B12": 180.0,
}  # fmt: skip
"""nanometres; ESA's MSI bandwidths as Copernicus-FM rounds them"""
S1_COPERNICUS = (5e7, 1e9)
"""wavelength and width of Sentinel-1 in nanometres, as Copernicus-FM declares them"""
S1_DOFA = 5.405
"""what DOFA is told for both polarisations: the frequency in GHz, in the place of micrometres"""
S1_PANOPTICON = {"VV": -1.0, "VH": -2.0, "HH": -3.0, "HV": -4.0}
"""TorchGeo's ChnEmb: transmitted and received polarisation, mean over orbits"""


@dataclass(frozen=True)
class AnyBands:
    """What a network of any bands is told about each of them."""

    wavelengths: tuple[float, ...]
    widths: tuple[float, ...] = ()

    @classmethod
    def of(cls, family: str, bands: Sequence[Band]) -> AnyBands:
        told = [_told(family, b) for b in bands]
        return cls(tuple(t[0] for t in told if t), tuple(t[1] for t in told if t))


def _told(family: str, band: Band) -> tuple[float, float] | None:
    """Wavelength and width of ``band``, or None where the network has no way to be told."""
    nm = band.wavelength_nm
    if family == "dofa":
        if band.family == "sentinel-1":
            return S1_DOFA, 0.0
        return (nm / 1000, 0.0) if nm else None
    if family == "panopticon":
        return (S1_PANOPTICON[band.name], 0.0) if band.modality is Modality.SAR else (nm, 0.0) if nm else None
    if band.family == "sentinel-1":
        return S1_COPERNICUS
    return (nm, S2_WIDTHS[band.name]) if nm and band.family == "sentinel-2" else None


def any_bands(family: str, available: BandSet) -> Reading:
    """All of ``available`` that the network can be told of.

    Raises:
        BandError: none.
    """
    kept = tuple(b for b in available if _told(family, b) is not None)
    if not kept:
        what = "Sentinel-1 or Sentinel-2" if family == "copernicusfm" else "known wavelength"
        raise BandError(f"{family} reads bands of {what}; of {available} it can be told nothing")
    lost = [b.name for b in available if b not in kept]
    n = len(kept)
    return Reading(
        BandSet(kept), (0.0,) * n, (1.0,) * n, own="always",
        note=f"{', '.join(lost)} left out: the network cannot be told what they are" if lost else "",
    )  # fmt: skip


def fixed_readings(family: str, weights: Any) -> list[Reading]:
    """The ways in which ``weights`` can be fed.

    Raises:
        BandError: bands that no sensor here has (thermal infrared, NDVI).
    """
    if family == "croma":
        return _croma()
    label = str(weights)
    sensor, unit = next((s, u) for p, s, u in CONVENTIONS if re.search(p, label))
    names = [str(n) for n in weights.meta.get("bands", ("R", "G", "B"))]
    try:
        BandSet.of(sensor, names, "8bit")
    except BandError as e:
        raise BandError(f"{label} wants {', '.join(names)}: {str(e).split(';')[0]}") from None
    mean, std = _standardisation(weights.transforms, len(names))
    if "CITYSCAPES" in label:  # its transform is for values from 0 to 1
        mean, std = tuple(255 * m for m in mean), tuple(255 * s for s in std)
    note = "TorchGeo names no normalisation: raw values" if set(std) == {1.0} and set(mean) == {0.0} else ""
    if unit != "satlas":
        own = "other units" if re.search(COLOURS, label) else "never"
        return [Reading(BandSet.of(sensor, names, unit), mean, std, own=own, note=note)]  # type: ignore[arg-type]
    eight = [n in ("B04", "B03", "B02") for n in names]
    pictures = BandSet(tuple(Band.of(sensor, n, "8bit" if e else "dn-1e4") for n, e in zip(names, eight, strict=True)))
    stretched = tuple(TCI if e else s for e, s in zip(eight, std, strict=True))
    return [
        Reading(pictures, mean, std, clip=(0.0, 1.0)),
        Reading(BandSet.of(sensor, names, "dn-1e4"), mean, stretched, clip=(0.0, 1.0),
                note=f"red, green and blue as the 8-bit true-colour image has them: saturated at {TCI:g}"),
    ]  # fmt: skip


def _croma() -> list[Reading]:
    """CROMA scales each channel to 0-1 between mean - 2 std and mean + 2 std of the data (its use_croma.py)."""
    optical = BandSet.of("sentinel-2-l2a", [n for n in S2_WIDTHS if n != "B10"], "dn-1e4")
    sar = BandSet.of("sentinel-1", ["VV", "VH"], "db")
    note = "scaled between mean - 2 std and mean + 2 std, clipped there"
    return [
        Reading(bands, (0.0,) * len(bands), (1.0,) * len(bands), clip=(-0.5, 0.5), own="always",
                spread=4.0, shift=0.5, kind=kind, note=note)
        for kind, bands in (("joint", BandSet((*sar, *optical))), ("optical", optical), ("sar", sar))
    ]  # fmt: skip


def _standardisation(transforms: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """All normalisations of ``transforms`` in one: ``(x - mean) / std`` per channel."""
    mean, std = [0.0] * channels, [1.0] * channels
    for step in transforms.modules():
        if type(step).__name__ != "Normalize":
            continue
        given = getattr(step, "flags", None) or {"mean": step.mean, "std": step.std}
        m, s = ([float(v) for v in given[k]] * (channels if len(given[k]) == 1 else 1) for k in ("mean", "std"))
        mean = [a + b * c for a, b, c in zip(mean, std, m, strict=True)]
        std = [b * c for b, c in zip(std, s, strict=True)]
    return tuple(mean), tuple(std)
