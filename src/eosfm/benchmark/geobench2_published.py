"""GEO-Bench-2's leaderboard as published: the ranges that its scores are scaled by, and the rows of ten frozen backbones.

From https://github.com/The-AI-Alliance/GEO-Bench-2-Leaderboard (Apache-2.0) at commit f977fd51: ``utils/normalizer/
leaderboard_combined/normalizer.json``, made of two full fine-tuning submissions, and two of its submissions,
``results/80100fc6-...`` (frozen: ten backbones on the fifteen tasks that are not detection) and ``results/2ce4a907-...`` (full:
three backbones on all nineteen), which is one of the two. Scores here are rounded to five digits; BioMassters' are ``1 - RMSE *
0.2538``. The rows of the other base submission are not at hand, so the ranges' ends cannot all be seen in the rows. Of
the frozen submission the rows say 16 trials, its ``additional_info.json`` 10.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from eosfm.benchmark.iqm import Normaliser, Run

SOURCE = "The-AI-Alliance/GEO-Bench-2-Leaderboard, commit f977fd51"
RANGES: dict[str, tuple[float, float]] = {
    "benv2": (0.7138733267784119, 0.7664718627929688),
    "biomassters": (0.9482341889789176, 0.9600944613389646),
    "burn_scars": (0.6498024463653564, 0.9017086625099182),
    "caffe": (0.5596897006034851, 0.7002602815628052),
    "cloudsen12": (0.5892206430435181, 0.7069313526153564),
    "dynamic_earthnet": (0.1660756915807724, 0.3561779260635376),
    "everwatch": (0.2177008986473083, 0.3155497610569),
    "flair2": (0.4062314331531524, 0.5503402948379517),
    "forestnet": (0.4642497599124908, 0.6082578301429749),
    "fotw": (0.5552823543548584, 0.6179081797599792),
    "kuro_siwo": (0.3207171559333801, 0.7027350068092346),
    "nzcattle": (0.2819505035877228, 0.401744931936264),
    "pastis": (0.2038679122924804, 0.43324875831604),
    "pastis_r": (0.084835797548294, 0.1661437004804611),
    "so2sat": (0.5111562013626099, 0.6541582345962524),
    "spacenet2": (0.8431392908096313, 0.8844738006591797),
    "spacenet7": (0.3912872672080993, 0.6402554512023926),
    "substation": (0.1244395673274993, 0.2031933367252349),
    "treesatai": (0.5388144254684448, 0.6719674468040466),
}
"""data set -> least and greatest score of the base submissions"""
LEADERBOARD = Normaliser(RANGES, f"the leaderboard's base submissions ({SOURCE})")


@cache
def published(mode: str) -> tuple[Run, ...]:
    """The published rows of ``mode`` ("frozen" or "full"), five seeds a backbone and data set; more is better."""
    with (Path(__file__).parent / "geobench2_published.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Run(r["backbone"], r["dataset"], int(r["seed"]), float(r["score"]))
            for r in csv.DictReader(file)
            if r["mode"] == mode
        )
