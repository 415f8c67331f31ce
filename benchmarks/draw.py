"""Plots of what the other benchmarks measured, from their CSV files: python benchmarks/draw.py"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from result_tables import RESULTS, read

COLOURS = {"fused fp32": "#9db7d5", "fused fp32 native": "#2b6cb0", "fused bf16": "#f0c390", "fused bf16 native": "#c05621",
           "published loop fp32": "#888888", "published loop bf16": "#bbbbbb"}  # fmt: skip


def ratios(rows: list[dict[str, str]], target: Path) -> None:
    """Bars: how many times faster than the published loop in its faster mode; lines from the lowest to the highest round."""
    cases = list(dict.fromkeys(r["case"] for r in rows if not r["case"].startswith("G")))
    variants = [v for v in COLOURS if not v.startswith("published")]
    fig, ax = plt.subplots(figsize=(8, 0.62 * len(cases) + 1))
    for i, case in enumerate(cases):
        for j, v in enumerate(variants):
            r = next((r for r in rows if r["case"] == case and r["variant"] == v), None)
            if r is None:
                continue
            y, x, low, high = i + (j - 1.5) * 0.2, float(r["ratio"]), float(r["low"]), float(r["high"])
            ax.barh(y, x, 0.18, color=COLOURS[v], label=v if i == 0 else None)
            ax.plot([low, high], [y, y], color="black", linewidth=0.8)
    ax.axvline(1, color="#888888", linewidth=0.8)
    ax.set_yticks(range(len(cases)), cases)
    ax.invert_yaxis()
    ax.set_xlabel("times faster than the published loop in its faster mode")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(target, dpi=120, bbox_inches="tight")
    plt.close(fig)


def growth(rows: list[dict[str, str]], target: Path) -> None:
    """Milliseconds per image over the number of specialists."""
    mine = [r for r in rows if r["case"].startswith("G")]
    if not mine:
        return
    fig, ax = plt.subplots(figsize=(5.5, 3.6))
    for v, colour in COLOURS.items():
        points = sorted((int(r["case"].split("-")[0][1:]), float(r["ms"])) for r in mine if r["variant"] == v)
        ax.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=v)
    ax.set_xlabel("specialists (three bands each)")
    ax.set_ylabel("ms per image of 224 px, batch 1")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    fig.savefig(target, dpi=120, bbox_inches="tight")
    plt.close(fig)


def main() -> None:
    """Beside the rows they show."""
    folder = RESULTS / "inference"
    rows = read("inference/times.csv")
    ratios(rows, folder / "ratios.png")
    growth(rows, folder / "growth.png")


if __name__ == "__main__":
    main()
