"""What training an ensemble costs beside a large model, computed openly: measured seconds, stated assumptions, published costs.

The claim to test: "over 90 % less training carbon than mainstream large models". Every number is an input with a source:
cards of trained specialists (`Measured`), and a `Study` of assumptions and publications. Factors that are not known are
ranges; each is drawn log-uniformly and independently, and an `Estimate` is the median of the draws with 95 % of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eosfm.config import read_record, read_yaml, record
from eosfm.contracts import DataError
from eosfm.seeding import purpose_seed
from eosfm.specialists.card import read_card

Draws = NDArray[np.float64]
DRAWS = 20_000
SAVING = 0.9
"""what the claim says is saved, at least"""


@record
class Range:
    """An assumption: the true value is taken to lie between ``low`` and ``high``."""

    low: float
    high: float
    source: str

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"{self.low} to {self.high}; expected two positive numbers, the lower first")


@record
class PlannedSpecialist:
    """One specialist as its authors trained it, as far as that is known."""

    name: str
    images: int
    side: int
    """pixels"""
    dense: bool
    """predicts pixels, so that a decoder is trained with it"""
    trained: bool = True
    """false: taken over from others, so its cost is in nobody's sum here"""
    note: str = ""


@record
class Published:
    """A training cost as somebody published it: energy, GPU hours or CO2, whichever is known (several: energy counts)."""

    name: str
    source: str
    kwh: float | None = None
    gpu_hours: float | None = None
    co2_kg: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        given = [v for v in (self.kwh, self.gpu_hours, self.co2_kg) if v is not None]
        if not given or min(given) <= 0 or not self.source.strip():
            raise ValueError(f"{self.name}: expected a source, and a positive kwh, gpu_hours or co2_kg")


@record
class Study:
    """Everything that is assumed or published, read from YAML (`benchmarks/carbon.yaml`)."""

    watts: Range
    """of a machine's one busy core with its share of the rest"""
    epochs: Range
    dense: Range
    """cost of a step with a decoder over one without"""
    kg_per_kwh: Range
    gpu_watts: Range
    """of a GPU with its share of the host and the building"""
    specialists: tuple[PlannedSpecialist, ...]
    ensembles: tuple[Published, ...] = ()
    large_models: tuple[Published, ...] = ()


def read_study(path: Path) -> Study:
    """The study at ``path``; `ConfigError` names the key where something is missing, unknown or impossible."""
    return read_record(Study, read_yaml(path), str(path))


@dataclass(frozen=True)
class Measured:
    """What a card says that its specialist's training cost."""

    name: str
    supervised: bool
    seconds: float
    kwh: float | None
    co2_kg: float | None
    pixels: float
    """all that the encoder saw: images x epochs x chip size squared"""

    @property
    def watts(self) -> float | None:
        """Mean power behind ``kwh``."""
        return None if self.kwh is None else self.kwh * 3.6e6 / self.seconds


def measured(cards: Sequence[Path]) -> list[Measured]:
    """The costs on ``cards`` (``card.json`` files).

    Raises:
        CardError: a card that cannot be read.
        DataError: a card without seconds, epochs or number of images.
    """
    out = []
    for path in cards:
        c = read_card(path)
        pixels = float(c.data.images * c.training.epochs * c.chip_size**2)
        if c.training.seconds <= 0 or pixels <= 0:
            raise DataError(f"{path}: needs seconds, epochs and images to say what training cost")
        out.append(Measured(c.name, c.task.kind != "masked-autoencoder", c.training.seconds, c.training.energy_kwh,
                            c.training.co2_kg, pixels))  # fmt: skip
    return out


@dataclass(frozen=True)
class Estimate:
    """The median of the draws and the range that 95 % of them lie in."""

    mid: float
    low: float
    high: float


@dataclass(frozen=True)
class Cost:
    """What one training (of an ensemble or a large model) costs."""

    name: str
    kwh: Estimate | None
    """None where only CO2 was published"""
    co2_kg: Estimate
    basis: str
    """the arithmetic in words"""


@dataclass(frozen=True)
class Verdict:
    """An ensemble beside a large model."""

    ensemble: str
    model: str
    ratio: Estimate
    """CO2 of the ensemble over that of the model"""
    share: float
    """of the draws in which more than 90 % are saved"""
    answer: Literal["holds", "does not hold", "undecided"]


def ensemble_costs(study: Study, cards: Sequence[Measured], seed: int = 0) -> list[Cost]:
    """The ensemble as measured here, as its authors trained it (scaled from here), and as published, in that order.

    Raises:
        DataError: no card of a supervised training.
    """
    draw = _Draw(seed)
    found = _as_trained_here(study, cards, draw) | _in_full(study, cards, draw)
    return [_cost(name, d, basis) for name, (d, basis) in found.items()]


def model_costs(study: Study, seed: int = 0) -> list[Cost]:
    """Every large model of ``study`` whose cost is published."""
    draw = _Draw(seed)
    return [_cost(m.name, *_published(m, study, draw)) for m in study.large_models]


def verdicts(study: Study, cards: Sequence[Measured], seed: int = 0) -> list[Verdict]:
    """Every ensemble trained in full beside every large model; what was trained here is none, so it proves nothing.

    Where the energy of both is known, both are taken to run on the same grid.
    """
    draw = _Draw(seed)
    out = []
    for name, (ours, _) in _in_full(study, cards, draw).items():
        for m in study.large_models:
            theirs, _ = _published(m, study, draw)
            same_grid = "kwh" in ours and "kwh" in theirs
            ratio = ours["kwh"] / theirs["kwh"] if same_grid else ours["co2_kg"] / theirs["co2_kg"]
            e, limit = _estimate(ratio), 1 - SAVING
            answer: Literal["holds", "does not hold", "undecided"] = (
                "holds" if e.high < limit else "does not hold" if e.low >= limit else "undecided"
            )
            out.append(Verdict(name, m.name, e, float((ratio < limit).mean()), answer))
    return out


@dataclass(frozen=True)
class BreakEven:
    """From which training cost of a large model on the claim holds for an ensemble."""

    ensemble: str
    kwh: Estimate
    gpu_hours: Estimate


def break_even(study: Study, cards: Sequence[Measured], seed: int = 0) -> list[BreakEven]:
    """What a large model must at least have cost for each ensemble of known energy to save 90 % on the same grid."""
    draw = _Draw(seed)
    return [
        BreakEven(n, _estimate(need := d["kwh"] / (1 - SAVING)), _estimate(need * 1000 / draw("gpu_watts", study.gpu_watts)))
        for n, (d, _) in _in_full(study, cards, draw).items() if "kwh" in d
    ]  # fmt: skip


class _Draw:
    """Draws of every range by its name: the same range is the same draw wherever it enters."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, name: str, of: Range) -> Draws:
        rng = np.random.default_rng(purpose_seed(self.seed, f"carbon-{name}"))
        return np.exp(rng.uniform(np.log(of.low), np.log(of.high), DRAWS))


Sums = dict[str, tuple[dict[str, Draws], str]]


def _as_trained_here(study: Study, cards: Sequence[Measured], draw: _Draw) -> Sums:
    n, seconds = len(study.specialists), [m.seconds for m in _supervised(cards)]
    least, most = min(seconds), max(seconds)
    kwh = n * draw("seconds", Range(low=least, high=most, source="cards")) * draw("watts", study.watts) / 3.6e6
    basis = f"{n} x {least:,.0f} to {most:,.0f} s x {study.watts.low:g} to {study.watts.high:g} W"
    return {
        f"{n} specialists as trained here": ({"kwh": kwh, "co2_kg": kwh * draw("kg_per_kwh", study.kg_per_kwh)}, basis)
    }


def _in_full(study: Study, cards: Sequence[Measured], draw: _Draw) -> Sums:
    """The ensembles that may be compared with large models: the paper's, scaled from here, and those published."""
    speeds = [m.seconds / m.pixels for m in _supervised(cards)]
    fast, slow = min(speeds), max(speeds)
    plain, dense = (
        sum(s.images * s.side**2 for s in study.specialists if s.trained and s.dense is kind) for kind in (False, True)
    )
    pixels = draw("epochs", study.epochs) * (plain + dense * draw("dense", study.dense))
    kwh = draw("seconds", Range(low=fast, high=slow, source="cards")) * pixels * draw("watts", study.watts) / 3.6e6
    taken = ", ".join(s.name for s in study.specialists if not s.trained)
    basis = (
        f"({plain / 1e9:.1f} + {dense / 1e9:.1f} x {study.dense.low:g} to {study.dense.high:g}) gigapixels an epoch x "
        f"{study.epochs.low:g} to {study.epochs.high:g} epochs x {fast * 1e9:,.0f} to {slow * 1e9:,.0f} s a gigapixel x "
        f"{study.watts.low:g} to {study.watts.high:g} W" + (f"; without {taken}" if taken else "")
    )
    name = f"{len(study.specialists)} specialists to the paper's extent"
    out: Sums = {name: ({"kwh": kwh, "co2_kg": kwh * draw("kg_per_kwh", study.kg_per_kwh)}, basis)}
    return out | {p.name: _published(p, study, draw) for p in study.ensembles}


def _supervised(cards: Sequence[Measured]) -> list[Measured]:
    found = [m for m in cards if m.supervised]
    if not found:
        raise DataError("no card of a supervised training; give one or more card.json of specialists")
    return found


def _published(p: Published, study: Study, draw: _Draw) -> tuple[dict[str, Draws], str]:
    grid, kwh, one = draw("kg_per_kwh", study.kg_per_kwh), p.kwh, np.ones(DRAWS)
    out: dict[str, Draws] = {}
    if kwh is not None:
        out, basis = {"kwh": kwh * one}, f"{kwh:g} kWh published"
    elif p.gpu_hours is not None:
        out = {"kwh": p.gpu_hours * draw("gpu_watts", study.gpu_watts) / 1000}
        basis = f"{p.gpu_hours:g} GPU hours published x {study.gpu_watts.low:g} to {study.gpu_watts.high:g} W"
    else:
        basis = ""
    if p.co2_kg is not None:
        out["co2_kg"] = p.co2_kg * one
        return out, "; ".join(filter(None, [basis, f"{p.co2_kg:g} kg published"]))
    out["co2_kg"] = out["kwh"] * grid
    return out, f"{basis} x {study.kg_per_kwh.low:g} to {study.kg_per_kwh.high:g} kg/kWh"


def _cost(name: str, draws: Mapping[str, Draws], basis: str) -> Cost:
    return Cost(name, _estimate(draws["kwh"]) if "kwh" in draws else None, _estimate(draws["co2_kg"]), basis)


def _estimate(draws: Draws) -> Estimate:
    low, mid, high = np.quantile(draws, [0.025, 0.5, 0.975])
    return Estimate(float(mid), float(low), float(high))
