"""The page of `eosfm explain`: which specialist matters, for which class, in which pixel, and what each one sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosfm.ensemble import Ensemble
from eosfm.explain.attribution import Attribution
from eosfm.explain.contributions import SubsetScorer
from eosfm.explain.maps import NOBODY, carriers, components
from eosfm.explain.pages import METRIC
from eosfm.explain.similarity import Similarity
from eosfm.report.document import Code, Column, Fact, Figure, Item, Note, Report, Section, Table
from eosfm.report.growth import matrix
from eosfm.report.panels import Panel, gallery
from eosfm.report.pictures import best_picture, class_colours
from eosfm.report.plots import ScoreBar, score_bars
from eosfm.training.scoring import STATISTICS


def explain_page(
    scorer: SubsetScorer, a: Attribution, alike: Similarity, chips: Sequence[int], title: str, command: str,
    scene: Tensor | None = None,
) -> Report:  # fmt: skip
    """The whole page.

    Args:
        scorer: that gave ``a``.
        a: attribution on test chips.
        alike: similarity of the specialists on the same chips.
        chips: numbers of test chips to show, a run without gaps.
        title: of the page.
        command: that makes the page.
        scene: ``(1, c, h, w)`` to show what each specialist sees in; default the chips.
    """
    label = METRIC[next(iter(STATISTICS[scorer.chips.kind]))]
    order = np.argsort(-a.shapley[:, 0])
    best, worst = a.names[order[0]], a.names[order[-1]]
    most = alike.pairs()[:1]
    verdict = (
        f"With all specialists the model reaches {label} {a.full[0]:.3f}; with none, its decoder on the fusion's bias alone, "
        f"{a.empty[0]:.3f}. **{best}** carries most of the difference (Shapley value {a.shapley[order[0], 0]:+.3f}), "
        f"{worst} least ({a.shapley[order[-1], 0]:+.3f})."
    )
    facts = [
        Fact(label, f"{a.full[0]:.3f}", f"{len(scorer.chips)} test chips"),
        Fact("without any", f"{a.empty[0]:.3f}"),
        Fact("carries most", best, f"{a.shapley[order[0], 0]:+.3f}"),
    ]
    if most and np.isfinite(most[0][0]):
        facts.append(Fact("most alike", f"{most[0][0]:.2f}", f"{most[0][1]}, {most[0][2]}"))
    sections = [_worth(a, order, label), _agreement(a)]
    if len(a.games) > 2:
        sections.append(_classes(a, order))
    if scorer.chips.kind in ("segmentation", "regression"):
        sections.append(_carried(scorer, chips))
    sections.append(_seen(scorer, chips, scene))
    if len(a.names) > 1:
        sections.append(_alike(alike))
    sections.append(Section("How to repeat it", [], [Code(command)]))
    return Report(title, scorer.chips.name, verdict, facts, sections)


def _worth(a: Attribution, order: NDArray[np.intp], label: str) -> Section:
    z = 1.96
    bars = [
        ScoreBar(a.names[i], float(a.shapley[i, 0]), float(a.shapley[i, 0] - z * a.errors[i, 0]),
                 float(a.shapley[i, 0] + z * a.errors[i, 0]), highlight=bool(i == order[0]))
        for i in order
    ]  # fmt: skip
    exact = "exactly, from all subsets" if a.orders == 0 else f"from {a.orders} random orders; bars are 95 % intervals"
    total = f"They sum to {a.shapley[:, 0].sum():+.4f}; full minus empty is {a.full[0] - a.empty[0]:+.4f}."
    rows = []
    for i in order:
        energy = [f"{100 * v[i]:.1f}" if len(v) else "-" for v in (a.weight_energy, a.signal_energy)]
        rows.append([a.names[i], f"{a.shapley[i, 0]:+.4f}", f"{a.errors[i, 0]:.4f}", f"{a.drop[i, 0]:+.4f}", *energy])
    columns = [Column("specialist"), Column("Shapley value", "right"), Column("standard error", "right"),
               Column("ablation drop", "right"), Column("fusion weights", "right", "% of energy"),
               Column("signal", "right", "% of variance")]  # fmt: skip
    items: list[Item] = [
        Figure(score_bars(bars, label=f"share of the {label}, Shapley value"), f"What each specialist is worth, {exact}. {total}",
               "Shapley value of each specialist"),
        Table(columns, [list(r) for r in rows], "Ablation drop: what is lost when one specialist alone is switched off."),
    ]  # fmt: skip
    about = [
        "The Shapley value is a specialist's gain averaged over all orders in which specialists could join: two that say the "
        "same share the credit, where the ablation drop gives it to neither.",
    ]
    return Section("What each specialist is worth", about, items)


def _agreement(a: Attribution) -> Section:
    rows = [[x, y, "no value" if np.isnan(r) else f"{r:+.2f}"] for x, y, r in a.agreement()]
    columns = [Column("measure"), Column("measure"), Column("rank correlation", "right")]
    about = [
        "Cheap measures are worth having only if they rank specialists as the Shapley value does. Energy looks at weights and "
        "features, not at the score: a specialist can be loud and useless."
    ]
    caption = f"Spearman's correlation over {len(a.names)} specialists; with few of them it is rough."
    return Section("Do the measures agree?", about, [Table(columns, [list(r) for r in rows], caption)])


def _classes(a: Attribution, order: NDArray[np.intp]) -> Section:
    names = [a.names[i] for i in order]
    png = matrix(a.shapley[order], names, list(a.games), digits=3)
    drop = matrix(a.drop[order], names, list(a.games), digits=3)
    items: list[Item] = [
        Figure(png, "Shapley values per class (IoU or recall). Blue helps, orange hurts.", "Shapley values per class"),
        Figure(drop, "Ablation drop per class.", "Ablation drop per class"),
    ]
    return Section("For which class", [], items)


def _carried(scorer: SubsetScorer, chips: Sequence[int]) -> Section:
    who, _ = carriers(scorer, chips)
    x, y = scorer.chips.batch(chips)
    colours = class_colours(scorer.names)
    picture = best_picture(x.numpy(), scorer.chips.bands).pixels
    top = [Panel(p) for p in picture]
    rows, labels = [top], ["input"]
    if scorer.chips.kind == "segmentation":
        full = scorer.logits(scorer.everything, chips).argmax(1).numpy()
        shown = class_colours(scorer.chips.classes)
        rows += [
            [Panel.of_classes(m.numpy(), shown) for m in y],
            [Panel.of_classes(m.astype(np.uint8), shown) for m in full],
        ]
        labels += ["label", "prediction"]
    rows.append([Panel.of_classes(m, colours, ignore=NOBODY) for m in who])
    labels.append("carried by")
    frequent = np.bincount(who[who != NOBODY], minlength=len(scorer.names))
    legend = {n: c for n, c, f in zip(scorer.names, colours, frequent, strict=True) if f}
    caption = (
        "For each pixel the specialist without which the winning class's logit would fall most. Grey: the decision would "
        "stand firmer without any of them."
    )
    png = gallery([f"chip {i}" for i in chips], rows, row_labels=labels, legend=legend)
    return Section("Who carried each pixel", [], [Figure(png, caption, "Maps of the carrying specialist")])


def _seen(scorer: SubsetScorer, chips: Sequence[int], scene: Tensor | None) -> Section:
    ensemble = scorer.model.encoder
    assert isinstance(ensemble, Ensemble)
    x = scorer.chips.batch(chips)[0] if scene is None else scene
    with torch.inference_mode():
        seen = components(ensemble, x)
    picture = best_picture(x.numpy(), scorer.chips.bands).pixels
    heads = [f"chip {i}" for i in chips] if scene is None else ["scene"]
    if scene is not None:  # one picture: specialists side by side
        names = ["input", *seen]
        panels = [Panel(picture[0]), *(Panel(v[0]) for v in seen.values())]
        rows = [panels[i : i + 4] for i in range(0, len(panels), 4)]
        figures: list[Item] = [
            Figure(gallery(names[4 * k : 4 * k + len(r)], [r]), "What each specialist sees in the scene.", "Components")
            for k, r in enumerate(rows)
        ]
    else:
        rows = [[Panel(p) for p in picture], *([Panel(p) for p in v] for v in seen.values())]
        png = gallery(heads, rows, row_labels=["input", *seen])
        figures = [Figure(png, "First row: the input. Below: one row per specialist.", "Principal components")]
    about = [
        "The first three principal components of each specialist's finest features as red, green and blue. Colours can be "
        "compared within one specialist only."
    ]
    return Section("What each specialist sees", about, figures)


def _alike(alike: Similarity) -> Section:
    pairs = [p for p in alike.pairs() if np.isfinite(p[0])][:5]
    text = "; ".join(f"{a} and {b} {v:.2f}" for v, a, b in pairs)
    png = matrix(alike.matrix, alike.names, alike.names, scale=1.0)
    caption = f"Linear CKA of the features before the fusion, mean over levels, {alike.samples} pixels at the finest."
    items: list[Item] = [Figure(png, caption, "Similarity of specialists")]
    if pairs and pairs[0][0] > 0.9:
        items.append(Note(f"{pairs[0][1]} and {pairs[0][2]} say nearly the same: one of them can probably go.", "info"))
    return Section("Which specialists say the same", [f"Most alike: {text}."], items)
