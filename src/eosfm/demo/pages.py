"""The parts of the demo's report that tell of the machinery: the scene, the routes, the specialists, the cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from eosfm.adaptation import plan_views
from eosfm.demo.plan import SpecialistPlan, TaskPlan
from eosfm.report import panels, pictures, routes
from eosfm.report.document import Cell, Code, Column, Figure, Item, Note, Section, Table
from eosfm.statistics import BandStatistics
from eosfm.training.parallel import cores

if TYPE_CHECKING:
    from eosfm.demo.run import DemoResult
    from eosfm.specialists.card import SpecialistCard

METRIC = {"miou": "mean IoU", "accuracy": "accuracy", "map": "mean average precision", "rmse": "RMSE"}


def scene_section(result: DemoResult) -> Section:
    """The mapped scene beside its truth, and how far overlapping tiles disagree."""
    s = result.scene
    assert s is not None
    colours = pictures.class_colours(s.classes)
    known = s.truth != 255
    shown = {"input": panels.Panel(pictures.best_picture(s.image, s.bands).pixels),
             "map": panels.Panel.of_classes(s.prediction, colours), "truth": panels.Panel.of_classes(s.truth, colours)}  # fmt: skip
    if len(s.bands) > 3:
        kinds = pictures.possible_pictures(s.bands)
        if len(kinds) > 1 and kinds[1] != "grey":
            second = pictures.picture(s.image, s.bands, kinds[1])
            shown = {
                "input": shown["input"],
                second.label: panels.Panel(second.pixels),
                "map": shown["map"],
                "truth": shown["truth"],
            }
    png = panels.scene_panels(shown, legend=dict(zip(s.classes, colours, strict=True)), metres_per_pixel=s.pixel_m)
    valid = known & (s.prediction != 255)
    right = float((s.prediction == s.truth)[valid].mean()) if valid.any() else float("nan")
    r = s.report
    tiles = (
        f"{r.tiles} overlapping tiles at the chip size the model was trained at, blended smoothly; {r.seconds:.1f} s. "
        f"Where tiles overlap their probabilities differ by {r.tile_disagreement or 0:.3f} on average and "
        f"{100 * (r.split_share or 0):.1f} % of those pixels change class between tiles: ConvNeXt V2's response norm looks at the whole tile."
    )
    caption = f"{s.where}. {100 * right:.1f} % of labelled pixels are right. Grey: no data in, no data out."
    text = [f"GeoTIFF in, cloud-optimised GeoTIFF out, by the same code as `eosfm predict`: {tiles}"]
    items: list[Item] = [Figure(png, caption, "Input scene, predicted map and truth")]
    items += [Note(w, "warning") for w in r.warnings]
    return Section("A whole scene", text, items)


def routes_section(result: DemoResult, task: TaskPlan) -> Section:
    """Which specialist reads which bands for a task, under which rule, and who is left out and why."""
    chips = task.make(task.seeds[0]).test
    own = BandStatistics(mean=(0.0,) * len(chips.bands), std=(1.0,) * len(chips.bands))
    views, skipped, rows = [], [], []
    labels = dict(zip(chips.bands.names, routes.band_labels(chips.bands), strict=True))
    for card in result.cards:
        if card.name in task.exclude:
            skipped.append((card.name, "left out: it has seen this data or these classes"))
            continue
        plans, reason = plan_views(card.name, card.bandset(), card.statistics, chips.bands, own, task.protocol.rules)
        if reason:
            skipped.append((card.name, reason))
        for v in plans:
            views.append(routes.RouteView(v.specialist, v.rule, tuple(labels[b] for b in v.bands), v.normalise))
            units = ", ".join(dict.fromkeys(str(a) if a == b else f"{a} → {b}" for a, b in v.convert))
            whose = "specialist" if v.normalise == "specialist" else "input"
            rows.append([v.specialist, v.rule, ", ".join(v.bands), units, whose, v.note or "-"])
    png = routes.route_diagram(
        list(labels.values()), views, skipped, output="map" if chips.kind == "segmentation" else "class",
        input_picture=pictures.best_picture(chips.batch([0])[0].numpy(), chips.bands).pixels[0],
    )  # fmt: skip
    columns = [Column(c) for c in ("specialist", "rule", "reads", "units", "standardised by", "remark")]
    items: list[Item] = [
        Figure(png, f"Which specialist reads which bands of {chips.bands}.", "From bands through views and specialists to the map"),
        Table(columns, [list(r) for r in rows], f"{len(views)} views. Units convert exactly, or the view is standardised with the input's own statistics."),
    ]  # fmt: skip
    if skipped:
        items.append(
            Table(
                [Column("skipped"), Column("why")], [[a, b] for a, b in skipped], "Specialists that do not take part."
            )
        )
    about = (
        "Bands are matched by name, never by position or number. Every rule that matches gives a view of its own, and the fusion "
        "learns what to make of it. A specialist with many bands takes part only when all of them are there."
    )
    return Section(f"Who reads what: {task.name}", [about], items)


def specialists_section(result: DemoResult) -> Section:
    """Every specialist: what it learnt, from what, at which score and cost."""
    columns = [Column("specialist"), Column("learnt"), Column("bands"), Column("chips", "right"), Column("test score", "right"),
               Column("95 % interval", "right"), Column("seconds", "right"), Column("Wh", "right"), Column("licence")]  # fmt: skip
    rows: list[list[Cell | str]] = []
    for c in result.cards:
        m = c.metrics[0]
        wh = "-" if c.training.energy_kwh is None else f"{1000 * c.training.energy_kwh:.2f}"
        rows.append([c.name, c.task.kind, str(c.bandset()), str(c.data.images), f"{METRIC[m.name]} {m.value:.3f}",
                     f"{m.low:.3f} to {m.high:.3f}", f"{c.training.seconds:.0f}", wh, c.licence])  # fmt: skip
    items: list[Item] = []
    panels_shown, titles = _specimens(result.plan.specialists, result.cards)
    if panels_shown:
        caption = (
            "What each specialist was trained on (one test chip): its input above, the label below where it is a map."
        )
        items.append(Figure(panels.gallery(titles, panels_shown), caption, "One chip of each specialist's data"))
    caption = "Scores are on each specialist's own test split and are not comparable with one another: tasks differ."
    items.append(Table(columns, rows, caption))
    text = ["Each specialist is a ConvNeXtV2-Atto of 3.4 million parameters, trained alone on one data set and one task from random "
            "weights, then frozen. Its card says what it reads, in which unit, what it cost and what it may be used for."]  # fmt: skip
    return Section("The specialists", text, items)


def _specimens(
    plans: Sequence[SpecialistPlan], cards: Sequence[SpecialistCard]
) -> tuple[list[list[panels.Panel]], list[str]]:
    top, bottom, titles = [], [], []
    for plan, card in list(zip(plans, cards, strict=True))[:8]:
        chips = plan.make().test
        n = min(8, len(chips))
        image = pictures.best_picture(chips.batch(range(n))[0].numpy(), chips.bands).pixels
        size = image.shape[1]
        titles.append(card.name)
        if chips.kind == "segmentation":
            pick = max(range(n), key=lambda i: len(torch.unique(chips.labels[i])))
            bottom.append(panels.Panel.of_classes(chips.labels[pick].numpy(), pictures.class_colours(chips.classes)))
        else:
            pick = 0
            if chips.kind == "regression":
                y = np.nan_to_num(chips.labels[pick].numpy(), nan=0.0)
                low, high = float(y.min()), float(y.max())
                grey = (255 * (y - low) / max(1e-6, high - low)).astype(np.uint8)
                bottom.append(panels.Panel(np.repeat(grey[..., None], 3, -1)))
            else:
                word = chips.classes[int(chips.labels[pick])] if chips.kind == "classification" else "several"
                bottom.append(panels.Panel(np.full((size, size, 3), 240, np.uint8), note=word[:18]))
        top.append(panels.Panel(image[pick]))
    same = {p.pixels.shape for p in top}
    return ([top, bottom], titles) if len(same) >= 1 else ([], [])


def cost_section(result: DemoResult, data: Path | None, seed: int, quick: bool) -> Section:
    """Seconds, energy and CO2 of each part, and the command that repeats the page."""
    columns = [Column("part"), Column("seconds", "right"), Column("Wh", "right"), Column("g CO2", "right")]
    rows: list[list[Cell | str]] = []
    for name, e in result.phases.items():
        rows.append([name, f"{e.seconds:.0f}", _or_dash(e.kwh), _or_dash(e.co2_kg)])
    method = next(iter(result.phases.values())).method
    command = (
        "eosfm demo"
        + (f" --data {data}" if data else "")
        + (f" --seed {seed}" if seed else "")
        + (" --quick" if quick else "")
    )
    items: list[Item] = [Table(columns, rows, f"Energy by {method}. On {cores_text()}."), Code(command, "shell")]
    text = ["The paper's argument is frugality: specialists are trained once and shared; a new task trains a fusion, a decoder and "
            "nothing else. What this page took:"]  # fmt: skip
    return Section("What it cost, and how to repeat it", text, items)


def _or_dash(kilo: float | None) -> str:
    return "-" if kilo is None else f"{1000 * kilo:.2f}"


def cores_text() -> str:
    """Say how many CPU cores there are."""
    return f"{cores()} CPU cores"
