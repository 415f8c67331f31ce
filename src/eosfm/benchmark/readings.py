"""Which baseline a suite names, and how its network reads pixels: bands by name, a declared unit, its own normalisation.

Name.parse("timm:resnet50.a1_in1k@random")     -> library, model, how its weights and statistics are chosen
choose(name, readings, bands, statistics)      -> the reading that these data can feed, and the plan that does it
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from eosfm.adaptation import AdaptationPlan, plan_views
from eosfm.bands import BandSet
from eosfm.contracts import BandError, ConfigError
from eosfm.statistics import BandStatistics

LIBRARIES = {
    "timm": "a network of timm (three bands: red, green, blue), its published weights",
    "torchgeo": "weights that TorchGeo lists, such as ResNet50_Weights.SENTINEL2_ALL_MOCO",
    "terratorch": "a backbone of TerraTorch's registry, such as prithvi_eo_v2_300",
}
SUFFIXES = {
    "random": "random weights instead of the published ones",
    "zscore": "standardised with the training chips' own mean and std instead of the model's convention",
}
RULES = ("identity", "subset", "s1-s2-composite", "common-names", "true-colour")
"""how a reading finds its bands (`eosfm.rules`): all of them by name; none puts radar or infrared into a colour picture"""


@dataclass(frozen=True)
class Name:
    """What ``LIBRARY:MODEL[@random][@zscore][#SHA256]`` asks for."""

    text: str
    library: str
    model: str
    random: bool = False
    zscore: bool = False
    pin: str = ""
    """first digits of the hash that the weights must have"""

    @classmethod
    def parse(cls, text: str) -> Name:
        """Raises `ConfigError` for text that is no such name; whether the model exists is found out when it is built."""
        m = re.fullmatch(r"([a-z]+):([\w./-]+)((?:@\w+)*)(?:#([0-9a-f]{8,64}))?", text)
        suffixes = m[3].split("@")[1:] if m else []
        if m is None or m[1] not in LIBRARIES or not set(suffixes) <= set(SUFFIXES):
            raise ConfigError(
                f"model {text!r}; expected {', '.join(f'{n}:NAME' for n in LIBRARIES)}, then perhaps "
                f"{', '.join('@' + s for s in SUFFIXES)}, then perhaps #HASH of the weights (8 or more hexadecimal digits)"
            )
        return cls(text, m[1], m[2], "random" in suffixes, "zscore" in suffixes, m[4] or "")


def is_named(model: str) -> bool:
    """Whether a suite's ``model`` is one of another library."""
    return model.partition(":")[0] in LIBRARIES


@dataclass(frozen=True)
class Reading:
    """One way in which a network reads pixels."""

    bands: BandSet
    """in the network's order, in the unit of ``mean`` and ``std``"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip: tuple[float, float] | None = None
    """after that"""
    own: Literal["never", "other units", "always"] = "never"
    """when the data's own mean and std take their place: "other units" for z-scores of 8-bit pictures, whose stretch nobody
    recorded; "always" for networks whose authors normalise each data set by itself"""
    spread: float = 1.0
    """and their standard deviation counts so many times"""
    shift: float = 0.0
    """added after ``clip``"""
    kind: str = ""
    """which input of a network that has several"""
    note: str = ""


def choose(
    name: Name, readings: Sequence[Reading], available: BandSet, statistics: BandStatistics
) -> tuple[Reading, AdaptationPlan]:
    """The first reading whose bands the data have; of several of one modality that of the very same sensors.

    Raises:
        BandError: none, or a unit that does not convert; nothing is filled up with zeros.
    """
    reasons: list[str] = []
    fitting = []
    for reading in readings:
        plan = _planned(name, reading, available, statistics)
        if isinstance(plan, str):
            reasons.append(plan)
        else:
            fitting.append((reading, plan))
    if not fitting:
        raise BandError(f"{name.text} cannot read {available}: {'; or '.join(dict.fromkeys(reasons))}")
    sensors, modalities = {b.sensor for b in available}, {b.modality for b in fitting[0][0].bands}
    alike = [f for f in fitting if {b.modality for b in f[0].bands} == modalities]
    return next((f for f in alike if {b.sensor for b in f[0].bands} <= sensors), alike[0])


def _planned(name: Name, reading: Reading, available: BandSet, statistics: BandStatistics) -> AdaptationPlan | str:
    plans, why = plan_views(
        name.text, reading.bands, BandStatistics(mean=reading.mean, std=reading.std), available, statistics, RULES
    )
    if not plans:
        return why
    plan = plans[0]
    if name.zscore or reading.own == "always":
        mean = tuple(statistics.mean[i] for i in plan.index)
        std = tuple(statistics.std[i] * (reading.spread if reading.own == "always" else 1.0) for i in plan.index)
        keep = tuple((available[i].unit, available[i].unit) for i in plan.index)
        return replace(plan, convert=keep, normalise="input", mean=mean, std=std)
    if plan.normalise == "input" and reading.own == "never":
        return (
            f"{plan.note}, and its convention is no plain z-score; NAME@zscore would standardise with the training chips' own "
            "mean and std"
        )
    return plan
