"""The studies of docs/selection.md on small real data, with the specialists of `make demo-real`.

python benchmarks/real_studies.py ../shared/data runs/demo-real        # writes runs/demo-real/studies/TASK/*.html, *.json

`eosfm select`, `scaling` and `explain` do the same for data that a YAML file describes; these two tasks are built in Python,
because EuroSAT's unseen classes have few labels for training and all of them for the test.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from eosfm.config import to_plain
from eosfm.data.chips import Splits
from eosfm.demo.plan import TaskPlan
from eosfm.demo.real import real_plan
from eosfm.ensemble import Ensemble
from eosfm.explain.attribution import attribute
from eosfm.explain.attribution_page import explain_page
from eosfm.explain.contributions import SubsetScorer
from eosfm.explain.pages import scaling_page, select_page
from eosfm.explain.similarity import similarity
from eosfm.explain.studies import Selection, scale_up, select_subset
from eosfm.files import write_json
from eosfm.fusion.selection import SelectionConfig
from eosfm.progress import bar
from eosfm.report.document import write_report
from eosfm.tasks.stored import load_task_model
from eosfm.training.fit import adapt_ensemble
from eosfm.training.scoring import score

ORDERS, REFIT_ORDERS, KEEP = 16, 3, 6


def study(task: TaskPlan, folder: Path, out: Path) -> None:
    """Select, scale, explain and a learned selection for one task."""
    splits: Splits = task.make(task.seeds[0])
    model, _ = load_task_model(folder / "models" / task.name)
    fit = replace(task.protocol.adapt, seed=task.seeds[0])
    command = "python benchmarks/real_studies.py ../shared/data runs/demo-real"
    title = f"{task.title}: "
    with bar(task.name) as progress:
        found = select_subset(model, splits, progress=progress)
        write_report(select_page(found, title + "which to keep", splits.test.name, command), out / "select.html")
        grown = scale_up(model, splits, out, orders=ORDERS, refit=fit, refit_orders=REFIT_ORDERS, progress=progress)
        write_report(scaling_page(grown, title + "does it grow?", splits.test.name, command), out / "scaling.html")
        few = splits.test.subset(range(0, len(splits.test), max(1, len(splits.test) // 300)))
        scorer = SubsetScorer(model, few, progress=progress)
        worth = attribute(scorer)
        ensemble = model.encoder
        assert isinstance(ensemble, Ensemble)
        alike = similarity(ensemble, few, progress=progress)
        page = explain_page(scorer, worth, alike, range(min(4, len(few))), title + "who matters", command)
        write_report(page, out / "explain.html")
        learned, _, _ = adapt_ensemble(
            Ensemble(
                [(e, c) for e, c in zip(ensemble.encoders, ensemble.cards, strict=True)],  # type: ignore[misc]
                ensemble.bands, statistics=ensemble.statistics, rules=ensemble.rules, seed=task.seeds[0],
            ),
            splits, model.task, fit, selection=SelectionConfig(keep=KEEP), progress=progress,
        )  # fmt: skip
        kept = learned.encoder
        assert isinstance(kept, Ensemble)
        learned_score = score(learned, splits.test, 0).metrics[0]
    write_json(
        out / "studies.json",
        {
            "select": [
                {"names": r.names, "validation": r.validation, "test": to_plain(r.test), "minus_all": r.difference,
                 "price": vars(r.price)} for r in found.rows
            ],
            "chosen": found.rows[found.chosen].names,
            "scaling": {m: {"mean": g.spread()[0].tolist(), "greedy": grown.greedy[m].scores[0].tolist(),
                            "verdict": grown.outlooks[m].verdict()} for m, g in grown.random.items()},
            "shapley": dict(zip(worth.names, worth.shapley[:, 0].tolist(), strict=True)),
            "agreement": [(a, b, None if r != r else r) for a, b, r in worth.agreement()],
            "learned": {"kept": [c.name for c in kept.cards], "test": to_plain(learned_score)},
        },
    )  # fmt: skip
    _say(task.name, found, [f"{m}: {o.verdict()}" for m, o in grown.outlooks.items()])
    sys.stdout.write(f"learned {KEEP}: {learned_score.value:.3f}, {', '.join(c.name for c in kept.cards)}\n")


def _say(name: str, found: Selection, lines: list[str]) -> None:
    sys.stdout.write(f"{name}\n")
    for r in found.rows:
        sys.stdout.write(f"  {len(r.names)}: {r.test.value:.3f} ({r.test.low:.3f}-{r.test.high:.3f}), "
                         f"{r.price.parameters / 1e6:.1f} M, {r.price.milliseconds:.0f} ms\n")  # fmt: skip
    sys.stdout.write("".join(f"  {line}\n" for line in lines))


def main() -> None:
    """EuroSAT's unseen classes, then Sen1Floods11's chip."""
    data, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for task in real_plan(data, 0, quick=False).tasks:
        if task.name in ("eurosat-unseen", "sen1floods11"):
            study(task, folder, folder / "studies" / task.name)


if __name__ == "__main__":
    main()
