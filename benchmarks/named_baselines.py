"""One forward of every named baseline with random weights, and docs/baselines.md from what was run.

    python benchmarks/named_baselines.py run timm torchgeo      # or terratorch, in an environment that has it
    python benchmarks/named_baselines.py table                  # writes docs/baselines.md

A run appends to benchmarks/results/named_forwards.json; names that are there are not run again. Chips are 64 x 64 random values
in a plausible range; the first of `DATA` that the network can read is used.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch

from eosfm.bands import BandSet
from eosfm.benchmark.backbones import Backbone
from eosfm.benchmark.named.listing import listing
from eosfm.benchmark.readings import Name, choose
from eosfm.contracts import PYRAMID_STRIDES, BandError
from eosfm.files import atomic_file
from eosfm.statistics import band_statistics

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "named_forwards.json"
DATA = (
    "sentinel-2-l1c:all@dn-1e4", "sentinel-2-l2a:all@dn-1e4", "sentinel-1:VV,VH@db", "sentinel-1:VV,VH@8bit", "naip:R,G,B@8bit",
    "landsat-8:B1,B2,B3,B4,B5,B6,B7@8bit", "landsat-7:B1,B2,B3,B4,B5,B7@8bit", "sentinel-2-l1c:B04,B03,B02@8bit",
)  # fmt: skip
RANGE = {"dn-1e4": (0.0, 6000.0), "db": (-25.0, 0.0), "8bit": (0.0, 255.0)}


def forward(text: str) -> dict[str, object]:
    """What one forward of the baseline ``text`` gave, or why there was none."""
    name = Name.parse(text + "@random")
    library = importlib.import_module(f"eosfm.benchmark.named.{name.library}_models")
    why = ""
    for data in DATA:
        bands = BandSet.parse(data)
        g = torch.Generator().manual_seed(0)
        spans = [RANGE[b.unit] for b in bands]
        x = torch.stack([lo + (hi - lo) * torch.rand(2, 64, 64, generator=g) for lo, hi in spans], 1)
        statistics = band_statistics([x])
        try:
            built = library.build(name, bands, statistics, (64, 64), 0)
        except BandError as e:
            why = " ".join(str(e).split())[:200]
            continue
        _, plan = choose(name, [built.reading], bands, statistics)
        model = Backbone(name, built, plan, (64, 64), 0)
        maps = model(x[:1])
        assert [m.shape[-1] for m in maps] == [64 // s for s in PYRAMID_STRIDES] and all(
            m.isfinite().all() for m in maps
        )
        return {
            "data": data, "read": ",".join(plan.bands), "parameters": sum(p.numel() for p in built.body.parameters()),
            "strides": list(built.body.strides), "side": built.body.side, "how": built.body.how, "source": built.body.source,
        }  # fmt: skip
    return {"refused": why}


def run(libraries: list[str]) -> None:
    """One forward of whatever has none yet."""
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    names = [item.name for item in listing()[0] if item.name.split(":")[0] in libraries]
    for n in names:
        if n in done:
            continue
        done[n] = forward(n)
        print(n, done[n], flush=True)
        with atomic_file(RESULTS) as tmp:
            tmp.write_text(json.dumps(done, indent=1) + "\n")


def table() -> None:
    """docs/baselines.md."""
    done = json.loads(RESULTS.read_text())
    listed = {item.name: item for item in listing()[0]}
    lines = [(HERE / "named_baselines.md").read_text().rstrip(), ""]
    for library in ("timm", "torchgeo", "terratorch"):
        mine = {n: r for n, r in done.items() if n.startswith(library + ":")}
        ran = sum("parameters" in r for r in mine.values())
        lines += [f"## {library}", "", f"{ran} of {len(mine)} ran here with random weights; {_versions(mine)}.", ""]
        lines += [
            "| name | million parameters | strides, side | bands it wants | normalisation | ran |",
            "|---|---|---|---|---|---|",
        ]
        for n, r in mine.items():
            item = listed.get(n)
            bands, how = (item.bands, item.normalisation) if item else (str(r.get("read", "")), "")
            if "parameters" not in r:
                lines.append(f"| `{n}` | | | {bands} | {how} | no: {r['refused']} |")
                continue
            native = "/".join(str(s) for s in dict.fromkeys(r["strides"]))
            side = f", {r['side']} px" if r["side"] else ""
            lines.append(f"| `{n}` | {r['parameters'] / 1e6:.1f} | {native}{side} | {bands} | {how} | yes |")
        lines.append("")
    with atomic_file(HERE.parent / "docs" / "baselines.md") as tmp:
        tmp.write_text("\n".join(lines).rstrip() + "\n")


def _versions(rows: dict[str, dict[str, object]]) -> str:
    return ", ".join(sorted({" ".join(str(r["source"]).split()[:2]) for r in rows.values() if "source" in r}))


if __name__ == "__main__":
    table() if sys.argv[1] == "table" else run(sys.argv[2:])
