"""Adaptation rules (paper 3.1 and GEO-Bench-2): each finds a specialist's bands among an input's bands, by name.

One visible list, `RULES`; a rule is a pure function from two band sets to the channels it picks or the reason why it
does not fire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eosfm.bands import BandSet, Modality
from eosfm.contracts import AdaptationError, known

Match = tuple[tuple[int, ...], str]
"""(channel j of the view is channel index[j] of the input, what a reader should know about it)"""


@dataclass(frozen=True)
class Rule:
    """A named way to read a specialist's bands out of an input's bands."""

    name: str
    what: str
    select: Callable[[BandSet, BandSet], list[Match] | str] = field(repr=False)
    """(wanted, available) -> matches, or the reason why there is none ("" where the rule is not for this specialist)"""


def _composite(wanted: BandSet) -> str | None:
    """The named three-band composite a specialist reads: "RGB", "infrared-red-green", "SAR", or None."""
    if wanted.commons == ("red", "green", "blue"):
        return "RGB"
    if wanted.commons in (("nir", "red", "green"), ("nir08", "red", "green")):
        return "infrared-red-green"
    if len(wanted) == 3 and all(b.modality is Modality.SAR for b in wanted):
        return "SAR"
    return None


def _by_name(wanted: BandSet, available: BandSet) -> list[Match] | str:
    found = [available.index_of(b.key) for b in wanted]
    missing = [f"{b.family}:{b.name}" for b, i in zip(wanted, found, strict=True) if i is None]
    if missing:
        return f"needs {_few(missing)}, which the input does not have"
    index = tuple(i for i in found if i is not None)
    levels = {(b.sensor, available[i].sensor) for b, i in zip(wanted, index, strict=True)}
    other = sorted(f"{have} read by a specialist of {want}" for want, have in levels if want != have)
    return [(index, "; ".join(other))]


def _identity(wanted: BandSet, available: BandSet) -> list[Match] | str:
    if [b.key for b in wanted] != [b.key for b in available]:
        return ""
    return _by_name(wanted, available)


def _subset(wanted: BandSet, available: BandSet) -> list[Match] | str:
    return _by_name(wanted, available) if not {Modality.OPTICAL, Modality.SAR} <= {b.modality for b in wanted} else ""


def _s1_s2(wanted: BandSet, available: BandSet) -> list[Match] | str:
    if not {Modality.OPTICAL, Modality.SAR} <= {b.modality for b in wanted}:
        return ""
    return _by_name(wanted, available)


def _common_names(wanted: BandSet, available: BandSet) -> list[Match] | str:
    if any(b.modality is not Modality.OPTICAL for b in wanted) or _composite(wanted):
        return ""
    reasons, matches = [], []
    for sensor, channels in _optical(available).items():
        picked = [channels.get(b.common) for b in wanted]
        missing = [b.common for b, i in zip(wanted, picked, strict=True) if i is None]
        if missing:
            reasons.append(f"{sensor} has no {_few(missing)}")
            continue
        index = tuple(i for i in picked if i is not None)
        matches.append((index, _shift(wanted, available, index)))
    return matches or "; ".join(reasons)


def _optical_composite(*commons: tuple[str, ...]) -> Callable[[BandSet, BandSet], list[Match] | str]:
    def select(wanted: BandSet, available: BandSet) -> list[Match] | str:
        if _composite(wanted) is None:
            return ""
        matches = []
        for channels in _optical(available).values():
            picked = [next((channels[c] for c in options if c in channels), None) for options in commons]
            if all(i is not None for i in picked):
                matches.append((tuple(i for i in picked if i is not None), _crossing(wanted, Modality.OPTICAL)))
        return matches or f"the input has no {', '.join(c[0] for c in commons)} of one sensor"

    return select


def _sar_composite(*polarisations: str) -> Callable[[BandSet, BandSet], list[Match] | str]:
    def select(wanted: BandSet, available: BandSet) -> list[Match] | str:
        if _composite(wanted) is None:
            return ""
        matches = []
        for sensor in dict.fromkeys(b.sensor for b in available if b.modality is Modality.SAR):
            channels = {b.name: i for i, b in enumerate(available) if b.sensor == sensor}
            if all(p in channels for p in polarisations):
                matches.append((tuple(channels[p] for p in polarisations), _crossing(wanted, Modality.SAR)))
        return matches or f"the input has no SAR {', '.join(dict.fromkeys(polarisations))}"

    return select


def _single_sar(wanted: BandSet, available: BandSet) -> list[Match] | str:
    if _composite(wanted) is None:
        return ""
    sensors: dict[str, list[int]] = {}
    for i, b in enumerate(available):
        if b.modality is Modality.SAR:
            sensors.setdefault(b.sensor, []).append(i)
    alone = [channels[0] for channels in sensors.values() if len(channels) == 1]
    return [((i, i, i), _crossing(wanted, Modality.SAR)) for i in alone] or "the input has no SAR of one polarisation"


def _nearest(tolerance_nm: float) -> Callable[[BandSet, BandSet], list[Match] | str]:
    def select(wanted: BandSet, available: BandSet) -> list[Match] | str:
        if any(b.wavelength_nm is None for b in wanted):
            return "the specialist has bands without a known wavelength"
        index = []
        for b in wanted:
            gaps = [
                (abs(a.wavelength_nm - (b.wavelength_nm or 0.0)), a.key, i)
                for i, a in enumerate(available)
                if a.wavelength_nm
            ]
            gap, _, i = min(gaps, default=(float("inf"), None, -1))  # equally near: by name, never by position
            if gap > tolerance_nm:
                return f"no band within {tolerance_nm:g} nm of {b.name} ({b.wavelength_nm:g} nm); nearest is {gap:g} nm away"
            index.append(i)
        return [(tuple(index), f"tolerance {tolerance_nm:g} nm; " + _shift(wanted, available, tuple(index)))]

    return select


RULES: tuple[Rule, ...] = (
    Rule("identity", "the input's bands are the specialist's, in order", _identity),
    Rule("subset", "the specialist's bands are among the input's, by name", _subset),
    Rule("s1-s2-composite", "optical and SAR bands of a mixed specialist, all by name", _s1_s2),
    Rule("common-names", "another optical sensor's bands of the same common names", _common_names),
    Rule("true-colour", "(red, green, blue) into a three-band composite", _optical_composite(("red",), ("green",), ("blue",))),
    Rule("infrared-red-green", "(near infrared, red, green) into a three-band composite",
         _optical_composite(("nir", "nir08"), ("red",), ("green",))),
    Rule("vv-vh-vh", "(VV, VH, VH) into a three-band composite (paper 3.1)", _sar_composite("VV", "VH", "VH")),
)  # fmt: skip
"""Fire by default, all that match; the first rule that picks the same channels names the view."""

OPTIONAL_RULES: tuple[Rule, ...] = (
    Rule("vv-vh-vv", "(VV, VH, VV) into a three-band composite (GEO-Bench-2)", _sar_composite("VV", "VH", "VV")),
    Rule(
        "single-sar", "the one band of a SAR of one polarisation, three times, into a three-band composite", _single_sar
    ),
)
"""Fire when asked for by name; so does ``nearest-wavelength:NM``."""

DEFAULT_RULES: tuple[str, ...] = tuple(r.name for r in RULES)


def rules_named(names: Sequence[str]) -> list[Rule]:
    """The rules called ``names``; ``nearest-wavelength:30`` carries its tolerance in nm; unknown names list the known."""
    table = {r.name: r for r in (*RULES, *OPTIONAL_RULES)}
    out = []
    for name in names:
        head, _, tolerance = name.partition(":")
        if head == "nearest-wavelength":
            if not tolerance.replace(".", "", 1).isdecimal():
                raise AdaptationError(f"rule {name!r}: say the tolerance in nm, for example nearest-wavelength:30")
            out.append(Rule(name, f"the nearest band within {tolerance} nm", _nearest(float(tolerance))))
        elif name in table:
            out.append(table[name])
        else:
            raise AdaptationError(f"unknown rule {name!r}; {known([*table, 'nearest-wavelength:NM'])}")
    return out


def _optical(available: BandSet) -> dict[str, dict[str, int]]:
    """Per optical sensor of the input: common name -> channel."""
    out: dict[str, dict[str, int]] = {}
    for i, b in enumerate(available):
        if b.modality is Modality.OPTICAL:
            out.setdefault(b.sensor, {})[b.common] = i
    return out


def _crossing(wanted: BandSet, modality: Modality) -> str:
    return "" if wanted[0].modality is modality else "cross-modal view (paper 3.1)"


def _shift(wanted: BandSet, available: BandSet, index: tuple[int, ...]) -> str:
    pairs = [(w, available[i]) for w, i in zip(wanted, index, strict=True)]
    gaps = [f"{a.name} for {w.name} {a.wavelength_nm - w.wavelength_nm:+.0f} nm" for w, a in pairs
            if a.wavelength_nm is not None and w.wavelength_nm is not None]  # fmt: skip
    return ", ".join(gaps)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
