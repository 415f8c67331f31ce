"""Write docs/carbon.md: is "over 90 % less training carbon" true? From measured cards, assumptions and published costs.

python benchmarks/carbon.py [--study benchmarks/carbon.yaml] [--out docs/carbon.md] [CARD.json ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eosfm.benchmark.carbon import (
    BreakEven,
    Cost,
    Estimate,
    Measured,
    Study,
    Verdict,
    break_even,
    ensemble_costs,
    measured,
    model_costs,
    read_study,
    verdicts,
)  # fmt: skip
from eosfm.contracts import EosfmError
from eosfm.files import atomic_file

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "benchmarks" / "carbon.yaml"
RESULTS = ROOT / "benchmarks" / "results"
CARDS = [
    RESULTS / "eurosat-rgb" / "card.json",
    RESULTS / "eurosat-rgb-pretrained" / "card.json",
    RESULTS / "eurosat-rgb-pretrained" / "pretraining-card.json",
]
"""the trainings that docs/carbon.md speaks of"""


HEAD = """\
# Training carbon: is it over 90 % less?

Written by `python benchmarks/carbon.py` from the cards in `benchmarks/results/` and the assumptions in `benchmarks/carbon.yaml`;
change those, not this page. The claim comes from a machine-made summary of the EoS-FM paper; the paper itself does not make it.

## Answer
"""
NOT_PROVEN = """\
**Not proven.** None of the sources at hand prints what training a large model cost, so there is nothing to compare with. What can
be said is how much a large model must have cost, on the same grid, for the claim to hold:
"""
MEASURED_HEAD = """
## Measured here

| specialist | training | seconds | kWh | kg CO2 | mean W |
|---|---|---|---|---|---|"""
MEASURED_NOTES = """
Wall time of one core of a shared virtual machine; the slower trainings shared that core with other work. kWh and CO2 are
codecarbon's estimate from constant power, not a meter's. These are small trainings on 18,900 pictures of 64 pixels: **not** the
paper's extent, so the answer above does not rest on what 14 of them cost.
"""
ENSEMBLE_HEAD = """\
## What the specialists cost

| ensemble | kWh | kg CO2 | arithmetic |
|---|---|---|---|"""
ENSEMBLE_NOTES = """
Median, and the range of 95 % of 20,000 draws in which every unknown factor is drawn log-uniformly from its range: as wide as
the assumptions, and no confidence interval of a measurement. The second row is scaled from a CPU core by pixels seen; what a
GPU needs for a pixel was not measured.
"""
NO_LARGE = """\
No published training cost is in the sources at hand. An entry in `large_models` of `benchmarks/carbon.yaml` (energy, GPU hours or
CO2, with its source) puts one here and into the answer."""
RANGES_HEAD = """
## Assumptions

| factor | from | to | source |
|---|---|---|---|"""
LEFT_OUT = """
Left out on all sides: making the hardware, storing and moving data, failed runs (but in the authors' total), using the models.
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cards", nargs="*", type=Path, default=CARDS, help="card.json of trained specialists")
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "carbon.md")
    given = parser.parse_args(arguments)
    try:
        text = page(read_study(given.study), measured(given.cards))
        with atomic_file(given.out) as tmp:
            tmp.write_text(text, encoding="utf-8")
    except EosfmError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


def page(study: Study, cards: Sequence[Measured]) -> str:
    """The whole page, from nothing but the study and the cards."""
    ranges = {
        "W of a busy core": study.watts,
        "epochs": study.epochs,
        "a step with a decoder over one without": study.dense,
        "kg CO2 a kWh": study.kg_per_kwh,
        "W of a GPU": study.gpu_watts,
    }
    parts = [
        [HEAD],
        answer(verdicts(study, cards), break_even(study, cards)),
        [MEASURED_HEAD, *map(measured_row, cards), MEASURED_NOTES],
        [ENSEMBLE_HEAD, *map(cost_row, ensemble_costs(study, cards)), ENSEMBLE_NOTES],
        [f"- {p.name}: {p.source}. {p.note[:1].upper()}{p.note[1:]}." for p in study.ensembles],
        ["\n## What large models cost\n", *large(study, model_costs(study))],
        [RANGES_HEAD, *(f"| {name} | {r.low:g} | {r.high:g} | {r.source} |" for name, r in ranges.items()), LEFT_OUT],
        [f"- `{s.name}`: {s.note}." for s in study.specialists if s.note],
    ]
    return "\n".join(line for part in parts for line in part) + "\n"


def answer(found: Sequence[Verdict], needed: Sequence[BreakEven]) -> list[str]:
    if found:
        out = ["| ensemble | large model | CO2, ensemble over model | draws with over 90 % saved | the claim |"]
        out += ["|---|---|---|---|---|"]
        out += [f"| {v.ensemble} | {v.model} | {shown(v.ratio)} | {v.share:.0%} | {v.answer} |" for v in found]
        out += ["\nHow much a large model must have cost, on the same grid, for the claim to hold:\n"]
    else:
        out = [NOT_PROVEN]
    out += ["| ensemble | kWh at least | GPU hours at least |", "|---|---|---|"]
    return out + [f"| {b.ensemble} | {shown(b.kwh)} | {shown(b.gpu_hours)} |" for b in needed]


def large(study: Study, costs: Sequence[Cost]) -> list[str]:
    if not costs:
        return [NO_LARGE]
    sources = {m.name: m.source for m in study.large_models}
    head = ["| model | kWh | kg CO2 | arithmetic | source |", "|---|---|---|---|---|"]
    return head + [f"{cost_row(c)} {sources[c.name]} |" for c in costs]


def measured_row(m: Measured) -> str:
    cells = [f"{v:.{d}g}" if v is not None else "-" for v, d in ((m.kwh, 3), (m.co2_kg, 3), (m.watts, 2))]
    return f"| {m.name} | {'supervised' if m.supervised else 'masked, no labels'} | {m.seconds:,.0f} | {' | '.join(cells)} |"


def cost_row(c: Cost) -> str:
    return f"| {c.name} | {shown(c.kwh) if c.kwh else '-'} | {shown(c.co2_kg)} | {c.basis} |"


def shown(e: Estimate) -> str:
    if e.low == e.high:
        return number(e.mid)
    return f"{number(e.mid)} ({number(e.low)} to {number(e.high)})"


def number(v: float) -> str:
    return f"{v:,.0f}" if v >= 100 else f"{v:.2g}" if v < 10 else f"{v:.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
