"""Bands, band sets and the sensors that define them. A band name means nothing without its sensor.

    BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance + sentinel-1:VV,VH@db")

Wavelengths are band centres in nanometres (ESA, USGS, NASA HLS, Planet and Airbus product guides); None where the
question has no answer (radar, elevation) or none is known (a plain RGB picture).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from eosfm.contracts import BandError, UnitError, known
from eosfm.sensors import SENSOR_TABLE
from eosfm.units import Quantity, Unit, parse_unit


class Modality(StrEnum):
    """The kind of instrument, which decides whether two bands can be compared at all."""

    OPTICAL = "optical"
    SAR = "sar"
    ELEVATION = "elevation"


_UNITS: dict[Modality, tuple[Quantity, ...]] = {
    Modality.OPTICAL: (Quantity.REFLECTANCE, Quantity.BRIGHTNESS, Quantity.COUNTS),
    Modality.SAR: (Quantity.BACKSCATTER, Quantity.BRIGHTNESS),
    Modality.ELEVATION: (Quantity.HEIGHT, Quantity.BRIGHTNESS),
}


@dataclass(frozen=True)
class Channel:
    """One channel of a sensor, before a unit is declared for it."""

    name: str
    """canonical within the sensor: "B04", "VV" """
    common: str
    """common name (STAC): "red", "nir08", "swir16"; the polarisation for radar"""
    wavelength_nm: float | None
    gsd_m: float | None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sensor:
    """A sensor and its channels in file order."""

    name: str
    family: str
    """products of one family share channels ("sentinel-2" for L1C and L2A)"""
    modality: Modality
    channels: tuple[Channel, ...]

    @property
    def units(self) -> tuple[Unit, ...]:
        """Units in which this sensor's values can be stored."""
        return tuple(u for u in Unit if u.quantity in _UNITS[self.modality])

    def resolve(self, name: str) -> Channel:
        """The channel called ``name``, an alias or a common name, in any case; ``B4``, ``B04`` and ``red`` agree.

        Raises:
            BandError: unknown (lists what is known) or ambiguous (lists the candidates).
        """
        key = _key(name)
        exact = [c for c in self.channels if key == _key(c.name)]
        found = exact or [c for c in self.channels if key == _key(c.common)]
        found = found or [c for c in self.channels if key in map(_key, c.aliases)]
        if len(found) == 1:
            return found[0]
        if found:
            choices = ", ".join(f"{c.name} ({_about(c)})" for c in found)
            raise BandError(f"band {name!r} is ambiguous on {self.name}: it can be {choices}. Name one of them.")
        raise BandError(
            f"unknown band {name!r} for sensor {self.name}{_did_you_mean(name, self)}; known: {self.table()}"
        )

    def table(self) -> str:
        """``"B02 (blue, 492 nm), B03 (green, 560 nm)"``, for error messages and help."""
        return ", ".join(f"{c.name} ({_about(c)})" for c in self.channels)


@dataclass(frozen=True)
class Band:
    """One channel of an image: which sensor saw it, at which wavelength, in which unit it is stored."""

    sensor: str
    name: str
    unit: Unit
    common: str
    modality: Modality
    family: str
    wavelength_nm: float | None = None
    gsd_m: float | None = None

    @classmethod
    def of(cls, sensor: str, name: str, unit: Unit | str) -> Band:
        """The band ``name`` (or an alias of it) of ``sensor``, stored in ``unit``."""
        s = sensor_named(sensor)
        u = unit if isinstance(unit, Unit) else parse_unit(unit)
        if u not in s.units:
            raise UnitError(f"unit {u} makes no sense for {s.name} ({s.modality}); {known(s.units)}")
        c = s.resolve(name)
        return cls(s.name, c.name, u, c.common, s.modality, s.family, c.wavelength_nm, c.gsd_m)

    @property
    def key(self) -> tuple[str, str]:
        """What makes two bands the same measurement: the sensor family and the channel."""
        return self.family, self.name

    def __str__(self) -> str:
        return f"{self.sensor}:{self.name}@{self.unit}"


@dataclass(frozen=True)
class BandSet(Sequence[Band]):
    """Bands in the order of an image's channels. The identity of channel ``i`` is ``bands[i]``, and nothing else."""

    bands: tuple[Band, ...]

    def __post_init__(self) -> None:
        if not self.bands:
            raise BandError("a band set needs at least one band")

    @classmethod
    def of(cls, sensor: str, names: Iterable[str], unit: Unit | str) -> BandSet:
        """``BandSet.of("sentinel-1", ["VV", "VH"], "db")``."""
        return cls(tuple(Band.of(sensor, n, unit) for n in names))

    @classmethod
    def parse(cls, text: str) -> BandSet:
        """Read ``SENSOR:BAND,BAND@UNIT``, several joined by ``+``; ``all`` stands for every band of the sensor.

        ``str(BandSet.parse(s))`` parses to an equal band set.

        Raises:
            BandError: unknown sensor or band, ambiguous band, or text that does not parse.
            UnitError: no unit declared, or one that makes no sense for the sensor.
        """
        bands: list[Band] = []
        for part in text.split("+"):
            m = re.fullmatch(
                r"([\w-]+)\s*:([\w,\s-]+)(?:@\s*([\w-]+))?", part.strip()
            )  # no two neighbours match a space
            if m is None:
                raise BandError(
                    f"cannot read band set {part.strip()!r}; expected SENSOR:BAND,BAND@UNIT, for example "
                    "'sentinel-2-l2a:B04,B03,B02@reflectance' or 'sentinel-1:VV,VH@db'"
                )
            sensor = sensor_named(m[1])
            if m[3] is None:
                raise UnitError(f"no unit declared for {part.strip()!r}: append @UNIT; {known(sensor.units)}")
            names = [n.strip() for n in m[2].split(",")]
            if [n.lower() for n in names] == ["all"]:
                names = [c.name for c in sensor.channels]
            bands += [Band.of(sensor.name, n, m[3]) for n in names]
        return cls(tuple(bands))

    def require_distinct(self) -> BandSet:
        """This band set, or `BandError` if a measurement occurs twice (an input's channels must be distinct)."""
        keys = [b.key for b in self.bands]
        twice = sorted({f"{f}:{n}" for f, n in keys if keys.count((f, n)) > 1})
        if twice:
            raise BandError(
                f"duplicate band {', '.join(twice)} in {self}: each channel of an input must be another band"
            )
        return self

    def index_of(self, key: tuple[str, str]) -> int | None:
        """Channel whose `Band.key` is ``key``, or None."""
        return next((i for i, b in enumerate(self.bands) if b.key == key), None)

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names in channel order."""
        return tuple(b.name for b in self.bands)

    @property
    def commons(self) -> tuple[str, ...]:
        """Common names in channel order."""
        return tuple(b.common for b in self.bands)

    def __len__(self) -> int:
        return len(self.bands)

    def __iter__(self) -> Iterator[Band]:
        return iter(self.bands)

    def __getitem__(self, i: int) -> Band:  # type: ignore[override]  # a slice of channels has no meaning by position
        return self.bands[i]

    def __str__(self) -> str:
        groups: list[tuple[str, Unit, list[str]]] = []
        for b in self.bands:
            if groups and groups[-1][:2] == (b.sensor, b.unit):
                groups[-1][2].append(b.name)
            else:
                groups.append((b.sensor, b.unit, [b.name]))
        return " + ".join(f"{s}:{','.join(names)}@{u}" for s, u, names in groups)


def sensor_named(name: str) -> Sensor:
    """The sensor called ``name``; raises `BandError` that lists the known ones, or the products of an ambiguous family."""
    key = name.strip().lower().replace("_", "-")
    if key in SENSORS:
        return SENSORS[key]
    products = [s.name for s in SENSORS.values() if s.family == key or s.name.startswith(key + "-")]
    if products:
        raise BandError(f"sensor {name!r} is ambiguous; say which product: {', '.join(products)}")
    raise BandError(f"unknown sensor {name!r}; {known(SENSORS)}")


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _about(c: Channel) -> str:
    return c.common if c.wavelength_nm is None else f"{c.common}, {c.wavelength_nm:g} nm"


def _did_you_mean(name: str, sensor: Sensor) -> str:
    words = {_key(w): c.name for c in sensor.channels for w in (c.name, c.common, *c.aliases)}
    close = get_close_matches(_key(name), words, n=1)
    return f" (did you mean {words[close[0]]}?)" if close else ""


def _sensor(name: str, family: str, modality: str, rows: Sequence[tuple[object, ...]]) -> Sensor:
    channels = tuple(Channel(str(r[0]), str(r[1]), r[2], r[3], tuple(r[4:])) for r in rows)  # type: ignore[arg-type]
    return Sensor(name, family, Modality(modality), channels)


SENSORS: dict[str, Sensor] = {name: _sensor(name, *rest) for name, rest in SENSOR_TABLE.items()}
"""Every known sensor by name; adding one is adding rows to `eosfm.sensors.SENSOR_TABLE`."""
