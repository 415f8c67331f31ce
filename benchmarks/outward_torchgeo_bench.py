"""torchgeo-bench's own probes on real EuroSAT pictures: an ensemble beside torchgeo-bench's random filters and image statistics.

    python3.12 -m venv .venv-tgb && .venv-tgb/bin/pip install -e '.[torchgeo-bench,report]'
    .venv-tgb/bin/python benchmarks/outward_torchgeo_bench.py

torchgeo-bench's EuroSAT wants all 13 bands; ../shared/data has the red, green and blue of it as 8 bit. So this declares a data
set of its own to torchgeo-bench, with its own band statistics, and gives it the chips and the split that `eosfm bench` reads.
Rows of torchgeo-bench: torchgeo_bench.csv; of eosfm.benchmark.probe on the very same chips: eosfm.csv.
"""

from __future__ import annotations

import csv
import sys
from argparse import ArgumentParser
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from eosfm.benchmark.probe import TORCHGEO_BENCH, knn_probe, linear_probe, pooled_features
from eosfm.benchmark.probing import STANDARDISED
from eosfm.composition import load_specialist
from eosfm.data.chips import ChipSet
from eosfm.data.real import real_root
from eosfm.data.real_chips import eurosat_rgb
from eosfm.ensemble import Ensemble
from eosfm.files import atomic_file
from eosfm.specialists.zoo import find

NAME = "eurosat-rgb-8bit"
SAW_IT = ["eurosat-rgb", *(f"eurosat-group-{i}" for i in range(1, 6))]
INPUT = "sentinel-2-l1c@8bit"
MODELS = {
    "eosfm": (
        "identity",
        ["model=imagestats", "model._target_=eosfm.outward.torchgeo_bench.EosEnsemble", "model.name=eosfm"],
    ),
    "rcf": ("bandspec_zscore", ["model=rcf"]),
    "imagestats": ("identity", ["model=imagestats"]),
}
"""row -> (torchgeo-bench's normalisation, its overrides); imagestats ignores the normalisation"""


class Pairs(Dataset[dict[str, Tensor]]):
    def __init__(self, chips: ChipSet) -> None:
        self.chips = chips

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        x, y = self.chips.batch([i])
        return {"image": x[0].float(), "label": y[0]}


def declare(splits: dict[str, ChipSet]) -> None:
    """Make the chips known to torchgeo-bench as data set `NAME`."""
    from torchgeo_bench.datasets import base, loading

    train = splits["train"]
    s = train.statistics()
    x, _ = train.batch(range(len(train)))
    low, high = x.float().amin((0, 2, 3)), x.float().amax((0, 2, 3))
    words = {"B04": ("red", 0.665), "B03": ("green", 0.56), "B02": ("blue", 0.49)}
    specs = [
        base.BandSpec(
            "s2", words[b.name][0], b.name, s.mean[i], s.std[i], float(low[i]), float(high[i]), words[b.name][1]
        )
        for i, b in enumerate(train.bands)
    ]

    class EuroSATRGB(base.BenchDataset):
        name, task, num_classes, multilabel = NAME, "classification", len(train.classes), False
        bands, rgb_bands = specs, [b.name for b in specs]
        split_sizes = {k: len(v) for k, v in splits.items()}  # noqa: RUF012

        @classmethod
        def data_root(cls) -> Path:
            return Path()

        def get_dataset(self, split, *, partition="default", bands=None, transform=None):  # noqa: ANN001, ANN202
            assert partition == "default" and bands in (None, tuple(self.rgb_bands))
            del transform  # image_size is the chips' own
            return Pairs(splits[split])

    loading._REGISTRY[NAME] = EuroSATRGB


def harness(out: Path, zoo: Path) -> list[dict[str, str]]:
    """torchgeo-bench's rows for `MODELS`."""
    from torchgeo_bench.main import main as run

    target = out / "torchgeo_bench.csv"
    target.unlink(missing_ok=True)
    for name, (normalisation, overrides) in MODELS.items():
        if name == "eosfm":
            overrides = [
                *overrides,
                f"+model.zoo={zoo}",
                f"+model.inputs.s2={INPUT}",
                f"+model.leave_out=[{','.join(SAW_IT)}]",
            ]
        sys.argv = [
            "torchgeo-bench", *overrides, f"dataset.names=[{NAME}]", f"dataset.normalization={normalisation}", "device=cpu",
            "dataset.num_workers=0", "dataset.image_size=64", f"output={target}",
            "hydra/job_logging=stdout",
        ]  # fmt: skip
        run()
    Path(f"{target}.lock").unlink(missing_ok=True)
    with target.open(newline="") as f:
        return list(csv.DictReader(f))


def ours(out: Path, zoo: Path, splits: dict[str, ChipSet]) -> list[dict[str, str]]:
    """The same probes by eosfm on its own features of the same chips: as torchgeo-bench does, and standardised."""
    folders = [e.folder for e in find(zoo) if e.card.name not in SAW_IT]
    train = splits["train"]
    ensemble = Ensemble([load_specialist(f) for f in folders], train.bands, statistics=train.statistics()).eval()
    parts = {k: pooled_features(ensemble, v) for k, v in splits.items()}
    rows = []
    for features, protocol in (("as they come", TORCHGEO_BENCH), ("standardised", STANDARDISED)):
        for result in (
            knn_probe(parts["train"], parts["test"], protocol),
            linear_probe(parts["train"], parts["val"], parts["test"], protocol),
        ):
            r = result.scores["accuracy"]
            rows.append({
                "method": {"knn": "knn5"}.get(result.method, result.method), "features": features, "accuracy": f"{r.value:.4f}",
                "low": f"{r.low:.4f}", "high": f"{r.high:.4f}", "ece": f"{result.scores['ece'].value:.4f}",
                "C": "" if result.penalty is None else f"{result.penalty:.4g}",
                "feature_dim": str(parts["train"].features.shape[1]), "unconverged": str(len(result.unconverged)),
            })  # fmt: skip
    with atomic_file(out / "eosfm.csv") as tmp, tmp.open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def main() -> None:
    args = ArgumentParser(description=__doc__)
    args.add_argument("--zoo", default="runs/demo-real/zoo")
    args.add_argument("--data", default="../shared/data")
    args.add_argument("--per-class", type=int, default=50)
    args.add_argument("--out", default="benchmarks/results/outward")
    a = args.parse_args()
    zoo, out = Path(a.zoo).resolve(), Path(a.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    drawn = eurosat_rgb(real_root(a.data), per_class=a.per_class, seed=0)
    splits: dict[str, ChipSet] = {"train": drawn.train, "val": drawn.validation, "test": drawn.test}
    declare(splits)
    theirs = harness(out, zoo)
    for r in theirs:
        values = (float(r[k]) for k in ("metric_value", "ci_lower", "ci_upper"))
        print(
            f"torchgeo-bench {r['name']:<11} {r['method']:<7}", *(f"{v:.4f}" for v in values), f"k={r['feature_dim']}"
        )
    for r in ours(out, zoo, splits):
        print(f"eosfm {r['features']:<20} {r['method']:<7} {r['accuracy']} {r['low']} {r['high']} k={r['feature_dim']}")


if __name__ == "__main__":
    main()
