"""Band adaptation (paper 3.1): from the bands an image has to the bands a specialist reads, by name and by rule.

    rules x (bands of the input, bands of the specialist) -> AdaptationPlan(index, unit conversion, statistics, why)

All rules that match fire, and each gives one view. Nothing is decided by the number of channels, nothing is repeated to
fill up, and a specialist with many bands is read only when all of them are there (the paper's footnote 1). Nearest
wavelength is lossy and has to be asked for by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from eosfm.bands import Band, BandSet
from eosfm.contracts import BandError
from eosfm.rules import DEFAULT_RULES, rules_named
from eosfm.statistics import BandStatistics
from eosfm.units import Unit, convert, convertible

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class AdaptationPlan:
    """How one specialist reads one input under one rule: pure data, printable, stored with results."""

    specialist: str
    rule: str
    index: tuple[int, ...]
    """channel j of the view is channel ``index[j]`` of the input"""
    bands: tuple[str, ...]
    """names of the picked input bands, for people"""
    convert: tuple[tuple[Unit, Unit], ...]
    """per channel: from the input's unit to the unit whose statistics are applied"""
    normalise: Literal["specialist", "input"]
    """whose statistics standardise the view: the specialist's (same quantity) or the input's (another modality)"""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    note: str = ""

    @property
    def name(self) -> str:
        """``"eurosat-rgb/true-colour"``: unique within an ensemble."""
        return f"{self.specialist}/{self.rule}"


def adapt(x: Tensor, plan: AdaptationPlan) -> Tensor:
    """The view of ``x`` that ``plan`` describes, standardised, ready for the specialist.

    Invariant, before units and statistics: ``adapt(x, plan)[:, j]`` comes from ``x[:, plan.index[j]]``. Pixels that are
    not finite (nodata) become 0, the mean: ConvNeXtV2's GRN looks at the whole chip, so one NaN would spoil all of it.

    Args:
        x: ``(b, c, h, w)`` in the declared units of the input.
        plan: made by `plan_views`.

    Returns:
        ``(b, len(plan.index), h, w)``, zero mean and unit variance by the plan's statistics.
    """
    channels = [convert(x[:, i], *units) for i, units in zip(plan.index, plan.convert, strict=True)]
    z = x.new_empty(0) if not channels else _stack(channels)
    mean = z.new_tensor(plan.mean).view(1, -1, 1, 1)
    std = z.new_tensor(plan.std).view(1, -1, 1, 1)
    return ((z - mean) / std).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _stack(channels: list[Tensor]) -> Tensor:
    import torch  # here, so that `routes` and `--help` need no torch

    return torch.stack(channels, dim=1)


def plan_views(
    specialist: str,
    wanted: BandSet,
    statistics: BandStatistics,
    available: BandSet,
    input_statistics: BandStatistics | None = None,
    rules: Sequence[str] = DEFAULT_RULES,
) -> tuple[list[AdaptationPlan], str]:
    """Every way ``specialist`` can read ``available``, and the reason where it cannot.

    Args:
        specialist: name, for the plans.
        wanted: the specialist's bands, in order.
        statistics: the specialist's statistics, in the units of ``wanted``.
        available: the input's bands.
        input_statistics: the input's own statistics, in its units; needed where modality or unit differ.
        rules: rule names; see `RULES`.

    Returns:
        ``(plans, reason)``; ``reason`` says why there is no plan, or which views are lost for want of statistics.
    """
    available.require_distinct()
    plans: dict[tuple[int, ...], AdaptationPlan] = {}
    reasons = []
    lost: list[str] = []
    for rule in rules_named(rules):
        matches = rule.select(wanted, available)
        if isinstance(matches, str):
            reasons += [f"{rule.name}: {matches}"] if matches else []
            continue
        for index, note in matches:
            if index in plans:
                continue
            label = rule.name if len(matches) == 1 else f"{rule.name}@{available[index[0]].sensor}"
            plan = _normalised(specialist, label, index, note, wanted, statistics, available, input_statistics)
            if isinstance(plan, str):
                reasons.append(f"{label}: {plan}")
                lost.append(f"{label}: {plan}")
            else:
                plans[index] = plan
    if not plans:
        return [], "; ".join(reasons) or f"no rule reads {wanted} from {available}"
    return list(plans.values()), "; ".join(lost)


def _normalised(
    specialist: str, rule: str, index: tuple[int, ...], note: str, wanted: BandSet, statistics: BandStatistics,
    available: BandSet, own: BandStatistics | None,
) -> AdaptationPlan | str:  # fmt: skip
    picked = [available[i] for i in index]
    names = tuple(b.name for b in picked)
    same = all(p.modality is w.modality and convertible(p.unit, w.unit) for p, w in zip(picked, wanted, strict=True))
    if same:
        units = tuple((p.unit, w.unit) for p, w in zip(picked, wanted, strict=True))
        return AdaptationPlan(
            specialist, rule, index, names, units, "specialist", statistics.mean, statistics.std, note
        )
    why = _difference(picked, wanted)
    if own is None:
        return f"{why}, so the input's own statistics are needed and none are declared (statistics=...)"
    keep = tuple((p.unit, p.unit) for p in picked)
    mean, std = tuple(own.mean[i] for i in index), tuple(own.std[i] for i in index)
    return AdaptationPlan(
        specialist, rule, index, names, keep, "input", mean, std, "; ".join(filter(None, [note, why]))
    )


def _difference(picked: Sequence[Band], wanted: BandSet) -> str:
    p, w = next(
        (p, w)
        for p, w in zip(picked, wanted, strict=True)
        if p.modality is not w.modality or not convertible(p.unit, w.unit)
    )
    if p.modality is not w.modality:
        return f"{p.modality} into a specialist trained on {w.modality}"
    return f"{p.unit} does not convert to the specialist's {w.unit}"


def require_readable(plans: Sequence[object], reasons: Sequence[str]) -> None:
    """`BandError` when no specialist at all can read the input."""
    if not plans:
        raise BandError("no specialist can read this input:\n  " + "\n  ".join(reasons))
