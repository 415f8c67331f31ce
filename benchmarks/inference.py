"""Forward passes of a whole ensemble: the fast plan beside a re-creation of the published loop, in turns, a process each.

python benchmarks/inference.py                # writes benchmarks/results/inference/times.csv and prints ratios
python benchmarks/inference.py R-1-224 5      # one case, five rounds
python benchmarks/inference.py growth         # 1 to 30 specialists

Cases are WORKLOAD-BATCH-SIZE. R: 14 specialists of three bands on a three-band input, 14 views. S: ten of three bands and
four of thirteen on Sentinel-2's thirteen, 24 views. R6: R with six of 14 kept; the published loop runs all and multiplies by 0.
G5: R with five specialists. `eosfm kernels` comes first: without them the native variants are left out. Random weights: times
do not depend on them. The published loop is written from its description: one encoder after another, batch norm without affine
on each map, concatenation, a 1x1 convolution per level. Processes take turns, so that foreign load hits all alike.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from result_tables import store
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from eosfm.bands import BandSet
from eosfm.engine import native
from eosfm.engine.fused import fused
from eosfm.ensemble import Ensemble, Specialist
from eosfm.fusion.fuse import Normalise
from eosfm.specialists.card import DataInfo, SpecialistCard, TaskInfo, TrainingInfo, WeightsInfo, card_bands
from eosfm.specialists.encoder import FrozenEncoder
from eosfm.statistics import BandStatistics

RGB, ALL = "sentinel-2-l1c:B04,B03,B02@dn-1e4", "sentinel-2-l1c:all@dn-1e4"
GROWTH = ("G1-1-224", "G5-1-224", "G14-1-224", "G30-1-224")
CASES = ("R-1-224", "R-8-224", "S-1-224", "S-8-224", "R-1-512", "S-4-512", "R6-1-224", "R6-8-224")
VARIANTS = (
    "published loop fp32",
    "published loop bf16",
    "fused fp32",
    "fused fp32 native",
    "fused bf16",
    "fused bf16 native",
)
ROUNDS = 4
MOST = 2.0
"""seconds of one variant's turn: short forwards are repeated"""


def specialist(name: str, bands: BandSet) -> Specialist:
    """An encoder with random weights in which every parameter counts, and its card."""
    encoder = FrozenEncoder(len(bands))
    g = torch.Generator().manual_seed(sum(name.encode()))
    own = encoder.tensors()
    noise = {k: torch.randn(v.shape, generator=g) for k, v in own.items()}
    encoder.load_tensors(
        {k: n / n[0].numel() ** 0.5 if n.ndim > 1 and n.shape[0] > 1 else own[k] + 0.1 * n for k, n in noise.items()},
        name,
    )
    own_statistics = BandStatistics(mean=(1500.0,) * len(bands), std=(900.0,) * len(bands))
    card = SpecialistCard(
        name=name, bands=card_bands(bands), statistics=own_statistics,
        chip_size=224, task=TaskInfo(kind="segmentation", classes=("a", "b")), data=DataInfo(name="none", licence="CC0-1.0"),
        training=TrainingInfo(),
        licence="CC0-1.0", weights=WeightsInfo(sha256="0" * 64, bytes=0, parameters=0), eosfm_version="0",
        created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    return encoder, card


def workload(name: str, normalise: Normalise = "batch") -> tuple[Ensemble, list[str]]:
    """The ensemble, and the specialists that are kept."""
    rgb, every = BandSet.parse(RGB), BandSet.parse(ALL)
    names = [f"rgb-{i}" for i in range(10 if name == "S" else int(name[1:]) if name[0] == "G" else 14)]
    members = [specialist(n, rgb) for n in names]
    if name == "S":
        members += [specialist(f"all-{i}", every) for i in range(4)]
    ensemble = Ensemble(members, every if name == "S" else rgb, normalise=normalise).eval()
    assert len(ensemble.views) == (24 if name == "S" else len(names)), len(ensemble.views)
    return ensemble, names[:6] if name == "R6" else [c.name for c in ensemble.cards]


class PublishedLoop(nn.Module):
    """What the published forward does, written from its description; the same weights as the ensemble."""

    def __init__(self, ensemble: Ensemble, kept: list[str]) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.mask = [float(v.specialist in kept) for v in ensemble.views]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Every view, then masks, then one concatenation and convolution per level."""
        e, maps = self.ensemble, []
        for view, plan in enumerate(e.views):
            mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (plan.mean, plan.std))
            features = e.encoders[e._encoder_of[view]]((x[:, list(plan.index)] - mean) / std)
            maps.append([n(m) * self.mask[view] for n, m in zip(e.fusion.norms[view], features, strict=True)])  # type: ignore[arg-type]
        convs = e.fusion.get_submodule("convs")
        assert isinstance(convs, nn.ModuleList)
        return [conv(torch.cat(level, 1)) for conv, level in zip(convs, zip(*maps, strict=True), strict=True)]


def variant(name: str, ensemble: Ensemble, kept: list[str]) -> Callable[[Tensor], list[Tensor]]:
    """The forward called ``name``."""
    if name.startswith("published"):
        loop = PublishedLoop(ensemble, kept)

        def run(x: Tensor) -> list[Tensor]:
            with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith("bf16")):
                return loop(x)  # type: ignore[no-any-return]

        return run
    small = ensemble.pruned(kept) if len(kept) < len(ensemble.cards) else ensemble
    if name.startswith("fused"):
        return fused(
            small, precision="bf16" if "bf16" in name else "fp32", kernels="native" if "native" in name else "library"
        )
    return small


def worker(case: str, name: str) -> None:
    """One variant in a process of its own: a line of JSON per turn."""
    torch.set_num_threads(2)
    kind, batch, size = case.split("-")
    ensemble, kept = workload(kind)
    g = torch.Generator().manual_seed(1)
    x = 1500 + 900 * torch.randn(int(batch), len(ensemble.bands), int(size), int(size), generator=g)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            reference = PublishedLoop(ensemble, kept)(x[:1])
        run = variant(name, ensemble, kept)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        out = run(x)
        first = time.perf_counter() - start
        pairs = [(a, b[:1].float()) for a, b in zip(reference, out, strict=True)]
        error = max(float((a - b).norm() / a.norm()) for a, b in pairs)
        cosine = min(float(torch.cosine_similarity(a.double().flatten(), b.double().flatten(), 0)) for a, b in pairs)
        run(x)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tell(
            {
                "first": first,
                "error": error,
                "cosine": cosine,
                "memory_mb": (peak - before) / 1024,
                "rss_mb": peak / 1024,
                "gflop": counter.get_total_flops() * len(x) / 1e9 * len(kept) / len(ensemble.cards),
                "peak": matmul_peak(torch.bfloat16 if "bf16" in name else torch.float32),
            }
        )
        for _ in sys.stdin:
            times = []
            while sum(times) < MOST and len(times) < 20:
                start = time.perf_counter()
                run(x)
                times.append(time.perf_counter() - start)
            tell({"ms": 1000 * statistics.median(times)})


def matmul_peak(dtype: torch.dtype) -> float:
    """GFLOP/s of the machine at its best: a large matrix product of oneDNN in ``dtype`` (MKL is slower on AMD)."""
    a, times = torch.randn(2048, 2048).to(dtype), []
    for _ in range(12):
        start = time.perf_counter()
        torch.ops.mkldnn._linear_pointwise(a, a, None, "none", [], "none")
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times) / 1e9


def tell(value: dict[str, float]) -> None:
    """One line to the driver."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def measure(case: str, rounds: int) -> list[dict[str, object]]:
    """All variants of one case, in turns."""
    started = []
    variants = [v for v in VARIANTS if "native" not in v or native.built()]
    for v in variants:
        p = subprocess.Popen([sys.executable, __file__, "--worker", case, v], stdin=-1, stdout=-1, text=True)
        assert p.stdin is not None and p.stdout is not None
        started.append((v, p, json.loads(p.stdout.readline())))  # one after the other: warming up is work, too
    times: dict[str, list[float]] = {v: [] for v in variants}
    for _ in range(rounds):
        for v, p, _facts in started:
            p.stdin.write("go\n")  # type: ignore[union-attr]
            p.stdin.flush()  # type: ignore[union-attr]
            times[v].append(json.loads(p.stdout.readline())["ms"])  # type: ignore[union-attr]
    for _, p, _facts in started:
        p.communicate()
    rows = []
    peer = min(variants[:2], key=lambda v: statistics.median(times[v]))  # in its fastest mode
    for v, _, facts in started:
        ratios = sorted(a / b for a, b in zip(times[peer], times[v], strict=True))
        rows.append({"case": case, "variant": v, "ms": round(statistics.median(times[v]), 1),
                     "peer": peer, "ratio": round(statistics.median(ratios), 2),
                     "low": round(ratios[0], 2), "high": round(ratios[-1], 2),
                     "error": f"{facts['error']:.1e}",
                     "cosine": f"{facts['cosine']:.6f}", "memory_mb": round(facts["memory_mb"]), "rss_mb": round(facts["rss_mb"]),
                     "first_s": round(facts["first"], 1), "gflop": round(facts["gflop"], 1),
                     "share_of_peak": round(1000 * facts["gflop"] / statistics.median(times[v]) / facts["peak"], 2),
                     "load": round(os.getloadavg()[0], 2)})  # fmt: skip
    return rows


def main() -> None:
    """All cases, or the one that is named."""
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3])
        return
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    rows = []
    asked = sys.argv[1:2]
    for case in GROWTH if asked == ["growth"] else asked or CASES:
        done = measure(case, rounds)
        rows += done
        for r in done:
            sys.stdout.write(f"{r['case']} {r['variant']}: {r['ms']} ms, {r['ratio']}x ({r['low']}-{r['high']}), "
                             f"error {r['error']}, cosine {r['cosine']}, "
                             f"+{r['memory_mb']} MB, {r['rss_mb']} MB in all, first {r['first_s']} s, "
                             f"{r['share_of_peak']} of peak\n")  # fmt: skip
        sys.stdout.flush()
        store("inference/times.csv", rows, "case")


if __name__ == "__main__":
    main()
