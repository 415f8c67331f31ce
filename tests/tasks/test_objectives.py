"""Losses and metrics: by hand, with ignored pixels left out of everything."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eosfm.contracts import ConfigError
from eosfm.tasks.kinds import IGNORE, KINDS, OBJECTS
from eosfm.tasks.objectives import OBJECTIVES, make_loss, make_metrics, update_metrics

PIXEL_LOSSES = [("segmentation", n) for n in OBJECTIVES["segmentation"].losses]
EVERY_LOSS = [(k, n) for k, o in OBJECTIVES.items() if k not in OBJECTS for n in o.losses]


def batch(kind: str, seed: int = 0, n: int = 3, k: int = 4, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    if kind == "segmentation":
        return torch.randn(n, k, size, size, generator=g), torch.randint(0, k, (n, size, size), generator=g)
    if kind == "classification":
        return torch.randn(n, k, generator=g), torch.randint(0, k, (n,), generator=g)
    if kind == "multilabel":
        return torch.randn(n, k, generator=g), torch.randint(0, 2, (n, k), generator=g)
    return torch.randn(n, 1, size, size, generator=g), torch.randn(n, size, size, generator=g)


def test_cross_entropy_by_hand():
    z, y = batch("segmentation")
    y[0, :2] = IGNORE
    total, count = 0.0, 0
    for i in range(3):
        for r in range(6):
            for c in range(6):
                if y[i, r, c] != IGNORE:
                    total -= z[i, :, r, c].log_softmax(0)[y[i, r, c]].item()
                    count += 1
    assert make_loss("segmentation")(z, y).item() == pytest.approx(total / count, rel=1e-5)


def test_class_weights_by_hand():
    z, y = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])
    z[1, 1] = 2.0
    a, b = math.log(2), math.log(1 + math.exp(-2))
    got = make_loss("classification", None, (1.0, 3.0))(z, y).item()
    assert got == pytest.approx((1 * a + 3 * b) / 4, rel=1e-6)


def test_soft_dice_by_hand():
    """1 - 2|pt| / (|p| + |t|) over the batch, averaged over the classes; absent classes do not count."""
    z, y = batch("segmentation", k=4)
    y[y == 3] = 0  # the last class is absent
    y[1, 3] = IGNORE
    p = z.softmax(1)
    ok = y != IGNORE
    losses = []
    for c in range(4):
        t = ((y == c) & ok).float()
        dice = (2 * (p[:, c] * t).sum() / ((p[:, c] * ok).sum() + t.sum())).item()
        losses.append((1 - dice) * float(t.any()))
    got = make_loss("segmentation", "dice")(z, y).item()
    assert got == pytest.approx(sum(losses) / 4, rel=1e-5)
    both = make_loss("segmentation", "cross-entropy+dice")(z, y).item()
    assert both == pytest.approx(got + make_loss("segmentation", "cross-entropy")(z, y).item(), rel=1e-6)


def test_regression_losses_by_hand():
    z, y = batch("regression", n=1, size=2)
    y[0, 0, 0] = float("nan")
    e = (z[0, 0] - y[0]).flatten()[1:]
    assert make_loss("regression")(z, y).item() == pytest.approx(e.square().mean().item(), rel=1e-6)
    assert make_loss("regression", "l1")(z, y).item() == pytest.approx(e.abs().mean().item(), rel=1e-6)
    huber = torch.where(e.abs() < 1, 0.5 * e * e, e.abs() - 0.5).mean().item()
    assert make_loss("regression", "huber")(z, y).item() == pytest.approx(huber, rel=1e-6)


def test_multilabel_by_hand():
    z, y = batch("multilabel")
    expected = -(y * z.sigmoid().log() + (1 - y) * (-z).sigmoid().log()).mean().item()
    assert make_loss("multilabel")(z, y).item() == pytest.approx(expected, rel=1e-5)
    assert make_loss("multilabel")(z, y.float()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("kind", "name"), PIXEL_LOSSES)
def test_ignored_pixels_change_nothing(kind: str, name: str):
    loss = make_loss(kind, name)
    z, y = batch(kind)
    y[0] = IGNORE
    y[1, :3] = IGNORE
    spoiled = torch.where((y == IGNORE)[:, None], torch.randn_like(z) * 9, z)
    torch.testing.assert_close(loss(spoiled, y), loss(z, y))
    z = z.requires_grad_()
    loss(z, y).backward()
    ignored = (y == IGNORE)[:, None].expand_as(z)
    assert (z.grad[ignored] == 0).all()
    assert (z.grad[~ignored] != 0).any()


@pytest.mark.parametrize("name", OBJECTIVES["regression"].losses)
def test_nodata_in_regression_changes_nothing(name: str):
    loss = make_loss("regression", name)
    z, y = batch("regression")
    y[:, 1] = float("nan")
    spoiled = torch.where(y.isnan()[:, None], torch.full_like(z, 1e6), z)
    torch.testing.assert_close(loss(spoiled, y), loss(z, y))


@pytest.mark.parametrize(
    ("kind", "name"), [*PIXEL_LOSSES, ("regression", "mse"), ("regression", "l1"), ("regression", "huber")]
)
def test_a_batch_with_nothing_to_learn_from_gives_exactly_0_and_no_nan(kind: str, name: str):
    z, y = batch(kind)
    y = torch.full_like(y, float("nan") if kind == "regression" else IGNORE)
    w = torch.ones(1, requires_grad=True)
    value = make_loss(kind, name)(z * w, y)
    value.backward()
    assert value.item() == 0.0
    assert w.grad is not None
    assert w.grad.item() == 0.0


@pytest.mark.parametrize(("kind", "name"), EVERY_LOSS)
def test_every_loss_is_finite_and_lower_for_the_right_answer(kind: str, name: str):
    loss = make_loss(kind, name)
    z, y = batch(kind)
    if kind in ("segmentation", "classification"):
        right = 8.0 * torch.nn.functional.one_hot(y, 4).float().movedim(-1, 1)
    elif kind == "multilabel":
        right = 8.0 * (2.0 * y - 1)
    else:
        right = y[:, None]
    assert 0 <= loss(right, y) < loss(z, y)
    z = z.requires_grad_()
    loss(z, y).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad.any()


@pytest.mark.parametrize(("kind", "name"), EVERY_LOSS)
def test_extreme_logits_do_not_overflow(kind: str, name: str):
    z, y = batch(kind)
    z = (1e4 * z).requires_grad_()
    value = make_loss(kind, name)(z, y)
    value.backward()
    assert value.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (("tracking",), "unknown task kind 'tracking'; known: classification"),
        (("segmentation", "mse"), "loss 'mse' is not for segmentation; known: cross-entropy"),
        (("regression", "dice"), "loss 'dice' is not for regression"),
        (("segmentation", "dice", (1.0, 2.0)), "class weights have no meaning for loss 'dice'"),
        (("regression", None, (1.0,)), "class weights have no meaning for loss 'mse'"),
    ],
)
def test_impossible_losses_are_refused(ask: tuple, says: str):
    with pytest.raises(ConfigError, match=says):
        make_loss(*ask)


def test_the_table_covers_every_kind():
    assert tuple(OBJECTIVES) == KINDS
    for kind, objective in OBJECTIVES.items():
        metrics = make_metrics(kind, 3)
        assert objective.monitor in metrics
        assert objective.higher_is_better == (objective.monitor != "rmse")


# metrics -------------------------------------------------------------------------------------------------------------


def ious(p: torch.Tensor, y: torch.Tensor, k: int) -> list[float]:
    """Per class present, counted pixel by pixel."""
    out = []
    for c in range(k):
        inside = union = 0
        for a, b in zip(p.flatten().tolist(), y.flatten().tolist(), strict=True):
            if b == IGNORE:
                continue
            inside += a == c and b == c
            union += c in (a, b)
        if union:
            out.append(inside / union)
    return out


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_validation_miou_leaves_ignored_pixels_and_absent_classes_out(seed: int, k: int):
    g = torch.Generator().manual_seed(seed)
    shown = torch.randint(0, k, (k,), generator=g)  # usually some classes never occur
    metrics = make_metrics("segmentation", k)
    ps, ys = [], []
    for _ in range(2):
        z = torch.randn(2, k, 3, 3, generator=g)
        z[:, [c for c in range(k) if c not in shown]] -= 100
        y = shown[torch.randint(0, k, (2, 3, 3), generator=g)]
        y[torch.rand(2, 3, 3, generator=g) < 0.3] = IGNORE
        update_metrics(metrics, "segmentation", z, y)
        ps.append(z.argmax(1))
        ys.append(y)
    p, y = torch.cat(ps), torch.cat(ys)
    if (y == IGNORE).all():
        return
    got = metrics.compute()
    expected = ious(p, y, k)
    assert got["miou"].item() == pytest.approx(sum(expected) / len(expected), abs=1e-6)
    ok = y != IGNORE
    assert got["accuracy"].item() == pytest.approx((p[ok] == y[ok]).float().mean().item(), abs=1e-6)


def test_validation_rmse_leaves_nodata_out():
    metrics = make_metrics("regression", 1)
    y = torch.tensor([[[1.0, float("nan")], [3.0, 4.0]]])
    update_metrics(metrics, "regression", torch.tensor([[[[2.0, 99.0], [3.0, 2.0]]]]), y)
    update_metrics(metrics, "regression", torch.full((1, 1, 2, 2), 9.0), torch.full((1, 2, 2), float("nan")))
    got = metrics.compute()
    assert got["rmse"].item() == pytest.approx(math.sqrt(5 / 3))
    assert got["mae"].item() == pytest.approx(1.0)


def test_validation_map_of_a_perfect_ranking_is_1():
    metrics = make_metrics("multilabel", 2)
    y = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]])
    update_metrics(metrics, "multilabel", 4.0 * y - 2, y)
    assert metrics.compute()["map"].item() == 1.0
    metrics.reset()
    update_metrics(metrics, "multilabel", 2 - 4.0 * y, y)
    assert metrics.compute()["map"].item() < 0.6
