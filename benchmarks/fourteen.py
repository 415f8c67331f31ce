"""Fourteen specialists on embedded worlds, as many as the paper has: the demo's eight and six more (about 10 minutes).

python benchmarks/fourteen.py runs/fourteen      # then: eosfm adapt benchmarks/burn-scars.yaml, see docs/selection.md
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from eosfm.demo.embedded import AERIAL, S1, S2_IRG, S2_RGB, S2_SIX, embedded_plan, splits_of
from eosfm.demo.plan import SpecialistPlan
from eosfm.demo.run import train_plan
from eosfm.progress import bars
from eosfm.training.parallel import Job, cores, run_jobs

MORE = (
    ("s2-crop-fields", "Parcels and their borders from six Sentinel-2 bands", "crop-fields", S2_SIX),
    ("s2-irg-urban", "Urban density from Sentinel-2 infrared, red and green", "urban-density", S2_IRG),
    ("s2-rgb-water", "Open water from Sentinel-2 true colour", "water", S2_RGB),
    ("s2-irg-scene", "The main cover of a Sentinel-2 infrared, red and green scene", "scene", S2_IRG),
    ("aerial-land-cover", "Six land covers from 8-bit aerial pictures", "land-cover", AERIAL),
    ("s1-land-cover", "Six land covers from Sentinel-1", "land-cover", S1),
)


def plans(seed: int = 0) -> list[SpecialistPlan]:
    """The demo's plan and six more of its kind."""
    eight = embedded_plan(seed, quick=False).specialists
    chips = 512
    more = [
        replace(
            eight[0], name=name, description=about,
            make=partial(splits_of, task, bands, chips, chips // 8, chips // 4, 200 + 10 * seed + i),
        )
        for i, (name, about, task, bands) in enumerate(MORE)
    ]  # fmt: skip
    return [*eight, *more]


def main() -> None:
    """Train what is not there yet."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fourteen")
    wanted = plans()
    with bars("specialists", len(wanted)) as tell:
        cards = run_jobs([Job(p.name, train_plan, (p, out, cores())) for p in wanted], progress=tell)
    for c in cards:
        sys.stdout.write(f"{c.name}: {c.metrics[0].name} {c.metrics[0].value:.3f}, {c.training.seconds:.0f} s\n")


if __name__ == "__main__":
    main()
