"""A linear head on a linear fusion, multiplied from the classes' side: numbers and gradients of the plain way."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from eosfm.bands import BandSet
from eosfm.contracts import Pyramid
from eosfm.ensemble import Ensemble
from eosfm.fusion.selection import SelectionConfig
from eosfm.seeding import seeded
from eosfm.tasks import model as models
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.objectives import make_loss
from helpers import TINY, image, make_specialist

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@dn-1e4 + sentinel-1:VV,VH@db")
NAMES = ("s1-sar", "s2-rgb")


def task_model(normalise: str = "none", classes: int = 3, fusion: str = "conv1x1") -> TaskModel:
    specialists = [make_specialist(n, TINY[n], i) for i, n in enumerate(NAMES)]
    ensemble = Ensemble(specialists, BANDS, rules=["subset"], normalise=normalise, fusion=fusion)
    task = TaskSpec(
        kind="segmentation", classes=tuple(map(str, range(classes))), chip_size=64,
        head=HeadConfig(decoder="linear", channels=8, dropout=0.0),
    )  # fmt: skip
    with seeded(0):
        return TaskModel(ensemble, task)


def plain(model: TaskModel, features: list[Pyramid]) -> Tensor:
    return model.head(model.encoder.fuse(features))


def both_ways(model: TaskModel, features: list[Pyramid]) -> tuple[list[Tensor], list[Tensor]]:
    """Output, then gradients of everything that is trained: by `from_features`, and plainly."""
    y = torch.randint(0, len(model.task.classes), (2, 64, 64), generator=torch.Generator().manual_seed(3))
    found = []
    for forward in (model.from_features, lambda f: plain(model, f)):
        model.zero_grad(set_to_none=True)
        with seeded(5):  # a selector draws
            z = forward(features)
        make_loss("segmentation")(z, y).backward()
        grads = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        found.append([z.detach(), *grads])
    return found[0], found[1]


@pytest.mark.parametrize("normalise", ["none", "layer", "batch"])
@pytest.mark.parametrize("gates", [[1.0, 1.0], [0.0, 1.0], [0.5, 0.0], [0.3, 1.0]])
def test_same_output_and_gradients(normalise: str, gates: list[float]):
    model = task_model(normalise).train()
    features = model.encoder.encode(image(BANDS, 2, 64))
    model.encoder.gates = torch.tensor(gates)
    ours, theirs = both_ways(model, features)
    assert len(ours) > 8
    for a, b in zip(ours, theirs, strict=True):
        assert b.abs().sum() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_selector_learns_the_same():
    model = task_model().train()
    scores = model.encoder.select(SelectionConfig(keep=1)).scores
    features = model.encoder.encode(image(BANDS, 2, 64))
    ours, theirs = both_ways(model, features)
    assert scores.grad is not None and scores.grad.any()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_an_ablated_view_that_gives_nan_is_nothing():
    model = task_model().eval()
    features = model.encoder.encode(image(BANDS, 2, 64))
    model.encoder.ablate(["s1-sar"])
    for view, plan in enumerate(model.encoder.views):
        if plan.specialist == "s1-sar":
            features[view] = [torch.full_like(m, float("nan")) for m in features[view]]
    with torch.no_grad():
        assert model.from_features(features).isfinite().all()


def test_rounded_features_are_no_worse_than_the_plain_way():
    model = task_model().eval()
    features = model.encoder.encode(image(BANDS, 2, 64))
    rounded = [[m.bfloat16() for m in p] for p in features]
    with torch.no_grad():
        exact = plain(model, features)
        with torch.autocast("cpu", torch.bfloat16):
            ours, theirs = model.from_features(rounded), plain(model, rounded).float()
    error = (ours - exact).norm() / exact.norm()
    assert error < 0.01
    assert error <= 1.2 * (theirs - exact).norm() / exact.norm()


@pytest.mark.parametrize(("how", "taken"), [({}, True), ({"classes": 41}, False), ({"fusion": "sum"}, False)])
def test_it_is_taken_only_where_it_is_the_same_and_less(how: dict, taken: bool):
    model = task_model(**how).eval()
    features = model.encoder.encode(image(BANDS, 1, 64))
    with torch.no_grad(), patch.object(models, "projected", wraps=models.projected) as call:
        torch.testing.assert_close(model.from_features(features), plain(model, features), rtol=1e-4, atol=1e-4)
    assert call.called == taken
