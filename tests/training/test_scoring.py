"""Scores against a slow reference that counts pixel by pixel and shares no code with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosfm.bands import BandSet
from eosfm.data.chips import Chips
from eosfm.tasks.boxes import CELLS, stacked, things
from eosfm.tasks.kinds import IGNORE, KINDS, OBJECTS
from eosfm.tasks.objectives import OBJECTIVES, make_metrics, update_metrics
from eosfm.training.scoring import STATISTICS, bootstrap, iou_per_class, per_chip_counts, score, scores_from
from miniatures.things import drawn_batch


def batch(kind: str, seed: int, n: int = 6, k: int = 4, size: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and labels; about a third of all pixels ignored, one class never labelled."""
    g = torch.Generator().manual_seed(seed)
    if kind in OBJECTS:
        return drawn_batch(kind, seed, n)
    if kind == "classification":
        return torch.randn(n, k, generator=g), torch.randint(0, k - 1, (n,), generator=g)
    if kind == "multilabel":
        y = torch.randint(0, 2, (n, k), generator=g)
        y[:, -1] = 0
        return torch.randn(n, k, generator=g), y
    if kind == "segmentation":
        y = torch.randint(0, k - 1, (n, size, size), generator=g)
        y[torch.rand(n, size, size, generator=g) < 0.3] = IGNORE
        return torch.randn(n, k, size, size, generator=g), y
    y = torch.randn(n, size, size, generator=g) * 3 + 1
    y[torch.rand(n, size, size, generator=g) < 0.3] = float("nan")
    return torch.randn(n, 1, size, size, generator=g), y


def confusion(z: torch.Tensor, y: torch.Tensor, k: int) -> list[list[int]]:
    table = [[0] * k for _ in range(k)]
    for a, b in zip(z.argmax(1).flatten().tolist(), y.flatten().tolist(), strict=True):
        if b != IGNORE:
            table[b][a] += 1
    return table


def reference(kind: str, z: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    if kind == "regression":
        pairs = [(p, t) for p, t in zip(z.flatten().tolist(), y.flatten().tolist(), strict=True) if not math.isnan(t)]
        mean = sum(t for _, t in pairs) / len(pairs)
        squared = sum((p - t) ** 2 for p, t in pairs)
        return {"rmse": math.sqrt(squared / len(pairs)), "r2": 1 - squared / sum((t - mean) ** 2 for _, t in pairs)}
    k = z.shape[1]
    if kind == "multilabel":
        out = []
        for c in range(k):
            ranked = sorted(zip(z[:, c].tolist(), y[:, c].tolist(), strict=True), reverse=True)
            hits, total = 0, 0.0
            for i, (_, t) in enumerate(ranked, 1):
                if t:
                    hits += 1
                    total += hits / i
            if hits:
                out.append(total / hits)
        return {"map": sum(out) / len(out)}
    t = confusion(z, y, k)
    rows, columns = [sum(r) for r in t], [sum(r[c] for r in t) for c in range(k)]
    union = [rows[c] + columns[c] - t[c][c] for c in range(k)]
    out = {
        "accuracy": sum(t[c][c] for c in range(k)) / sum(rows),
        "f1": np.mean([2 * t[c][c] / (rows[c] + columns[c]) for c in range(k) if rows[c] + columns[c]]),
    }
    if kind == "segmentation":
        out["miou"] = np.mean([t[c][c] / union[c] for c in range(k) if union[c]])
    return out


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in OBJECTS])  # of things: tests/tasks/test_precision.py
@pytest.mark.parametrize("seed", range(8))
def test_every_score_against_the_reference(kind: str, seed: int):
    z, y = batch(kind, seed)
    table = per_chip_counts(kind, z, y, 4)
    expected = reference(kind, z, y)
    assert STATISTICS[kind].keys() == expected.keys()
    for name, statistic in STATISTICS[kind].items():
        assert statistic(table) == pytest.approx(expected[name], rel=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_test_score_and_the_validation_score_agree(kind: str, seed: int):
    """Torchmetrics picks the best epoch, `score` reports it: they must mean the same thing."""
    z, y = batch(kind, seed, k=1 if kind == "regression" else 4)
    if kind == "multilabel":
        y[0, -1] = 1  # torchmetrics warns where a class has no positive
    metrics = make_metrics(kind, z.shape[1])
    update_metrics(metrics, kind, z, y)
    monitor = OBJECTIVES[kind].monitor
    ours = STATISTICS[kind][monitor](per_chip_counts(kind, z, y, z.shape[1]))
    assert metrics.compute()[monitor].item() == pytest.approx(ours, rel=1e-5)
    assert next(iter(STATISTICS[kind])) == monitor


@given(st.integers(0, 10_000), st.integers(2, 30))
def test_confusion_counts_per_chip(seed: int, k: int):
    g = torch.Generator().manual_seed(seed)
    z, y = torch.randn(3, k, 3, 2, generator=g), torch.randint(0, k, (3, 3, 2), generator=g)
    y[torch.rand(3, 3, 2, generator=g) < 0.4] = IGNORE
    table = per_chip_counts("segmentation", z, y, k)
    for i in range(3):
        assert table[i].tolist() == confusion(z[i : i + 1], y[i : i + 1], k)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_of_a_batch_are_the_counts_of_its_chips(kind: str):
    z, y = batch(kind, 0)
    whole = per_chip_counts(kind, z, y, 4)
    parts = [per_chip_counts(kind, z[i : i + 1], y[i : i + 1], 4) for i in range(len(z))]
    if kind in OBJECTS:  # chips have different numbers of things: tables are filled up
        whole, parts = whole.sum(1, where=whole[..., :1] >= 0), [p.sum(1, where=p[..., :1] >= 0) for p in parts]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert len(whole) == len(z)


def perfect(labels: torch.Tensor) -> torch.Tensor:
    """What `eosfm.tasks.boxes` calls predictions: each thing where it is, and all of its box."""
    rows = []
    for y in labels:
        boxes, classes, masks = things(y)
        cells = [] if masks is None else [torch.ones(len(boxes), CELLS**2)]
        rows.append(torch.cat([classes[:, None].float(), torch.ones(len(boxes), 1), boxes, *cells], 1))
    return stacked(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_model_scores_perfectly(kind: str):
    _, y = batch(kind, 0)
    if kind in OBJECTS:
        z = perfect(y)
    elif kind in ("segmentation", "classification"):
        z = torch.nn.functional.one_hot(y.where(y != IGNORE, torch.tensor(0)), 4).float().movedim(-1, 1)
    else:
        z = y.nan_to_num()[:, None] if kind == "regression" else 2.0 * y - 1
    for name, statistic in STATISTICS[kind].items():
        value = statistic(per_chip_counts(kind, z, y, 4))
        if "masks" in name:  # where things overlap, whole boxes are not their masks
            assert 0.8 < value <= 1
        else:
            assert value == (0.0 if name == "rmse" else 1.0)


def test_one_global_confusion_matrix_and_not_the_mean_over_chips():
    """PANGAEA's mIoU: a chip with one pixel of a class must not weigh as much as a chip full of it."""
    y = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    z = torch.nn.functional.one_hot(torch.tensor([[[0, 0, 0, 0]], [[1, 1, 1, 1]]]), 2).float().movedim(-1, 1)
    table = per_chip_counts("segmentation", z, y, 2)
    assert iou_per_class(table).tolist() == [3 / 4, 4 / 5]
    assert STATISTICS["segmentation"]["miou"](table) == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_classes_that_never_occur_do_not_count_and_missed_ones_do():
    y = torch.tensor([[[0, 0, 1, 1]]])
    z = torch.zeros(1, 4, 1, 4)
    z[:, 0] = 1  # always class 0; classes 2 and 3 neither labelled nor predicted
    iou = iou_per_class(per_chip_counts("segmentation", z, y, 4))
    assert iou[:2].tolist() == [0.5, 0.0]
    assert np.isnan(iou[2:]).all()
    assert STATISTICS["segmentation"]["miou"](per_chip_counts("segmentation", z, y, 4)) == 0.25


def table_of(kind: str, n: int, seed: int = 0) -> np.ndarray:
    z, y = batch(kind, seed, n=n)
    return per_chip_counts(kind, z, y, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_contains_the_score_and_shrinks_with_the_number_of_chips(kind: str):
    statistic = next(iter(STATISTICS[kind].values()))
    widths = []
    for n in (20, 320):
        table = table_of(kind, n)
        low, high = bootstrap([table], statistic, seed=0, resamples=200)
        assert low <= high
        if kind != "multilabel":  # average precision of few chips is biased upwards by repeats
            assert low <= statistic(table) <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert widths[1] > 0


def test_the_interval_of_a_mean_is_the_textbook_one():
    """Accuracy of n chips of one pixel each: +- 1.96 sqrt(p (1 - p) / n)."""
    n, right = 400, 300
    table = np.zeros((n, 2, 2), dtype=np.int64)
    table[:right, 0, 0] = 1
    table[right:, 0, 1] = 1
    low, high = bootstrap([table], STATISTICS["classification"]["accuracy"], seed=0)
    half = 1.96 * math.sqrt(0.75 * 0.25 / n)
    assert low == pytest.approx(0.75 - half, abs=0.006)
    assert high == pytest.approx(0.75 + half, abs=0.006)


def test_the_interval_depends_on_the_seed_only():
    statistic, table = STATISTICS["segmentation"]["miou"], table_of("segmentation", 20)
    assert bootstrap([table], statistic, 1) == bootstrap([table], statistic, 1)
    assert bootstrap([table], statistic, 1) != bootstrap([table], statistic, 2)


def test_several_seeds_widen_the_interval_where_they_disagree():
    good, bad = np.zeros((50, 2, 2), dtype=np.int64), np.zeros((50, 2, 2), dtype=np.int64)
    good[:, 0, 0], bad[:, 0, 1] = 1, 1
    accuracy = STATISTICS["classification"]["accuracy"]
    assert bootstrap([good], accuracy, 0) == (1.0, 1.0)
    assert bootstrap([good, good, good], accuracy, 0) == (1.0, 1.0)
    low, high = bootstrap([good, bad, good, bad, good], accuracy, 0)
    assert low < 0.4
    assert high == 1.0


def test_one_chip_gives_no_interval_at_all():
    table = table_of("segmentation", 1)
    miou = STATISTICS["segmentation"]["miou"]
    assert bootstrap([table], miou, 0, 20) == (miou(table), miou(table))


def test_scores_carry_value_interval_samples_and_seed():
    table = table_of("segmentation", 12)
    scores = scores_from("segmentation", table, ("a", "b", "c", "d"), seed=3, split="validation")
    assert [m.name for m in scores.metrics] == ["miou", "accuracy", "f1"]
    assert scores.main == "miou"
    for m in scores.metrics:
        assert m.low is not None
        assert m.high is not None
        assert m.low <= m.value <= m.high
        assert (m.samples, m.seed, m.split) == (12, 3, "validation")
    np.testing.assert_array_equal(scores.class_scores, iou_per_class(table))


def test_recall_per_class_in_classification():
    z = torch.eye(3)[torch.tensor([0, 0, 1, 1, 0])]
    y = torch.tensor([0, 0, 0, 1, 1])
    scores = scores_from("classification", per_chip_counts("classification", z, y, 3), ("a", "b", "c"), 0)
    assert scores.class_scores[:2] == pytest.approx((2 / 3, 1 / 2))
    assert math.isnan(scores.class_scores[2])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_score_reads_every_chip_once_whatever_the_batch(batch_size: int):
    x = torch.arange(10.0).view(10, 1, 1, 1).expand(10, 1, 2, 2).clone()
    y = (x[:, 0] > 4).long()
    y[3] = 1  # one chip of ten is wrong
    chips = Chips(images=x, labels=y, bands=BandSet.parse("sentinel-1:VV@db"), kind="segmentation",
                  classes=("low", "high"), name="ramp")  # fmt: skip
    seen = []

    def model(x: torch.Tensor) -> torch.Tensor:
        seen.extend(x[:, 0, 0, 0].tolist())
        return torch.cat([4.5 - x, x - 4.5], 1)

    scores = score(model, chips, 0, batch_size=batch_size)
    assert seen == list(range(10))
    assert {m.name: m.value for m in scores.metrics}["accuracy"] == pytest.approx(0.9)
    assert scores.per_chip.shape == (10, 2, 2)
