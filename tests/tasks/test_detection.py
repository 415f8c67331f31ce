"""Faster and Mask R-CNN on our pyramid: torchvision's own, by value; boxes that turn with their picture; learning; refusals."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign

from eosfm.bands import BandSet
from eosfm.benchmark.baselines import ConstantPredictor
from eosfm.contracts import ConfigError, DataError
from eosfm.data.chips import Chips, Splits
from eosfm.engine.cache import cached_features, turned
from eosfm.ensemble import Ensemble
from eosfm.tasks.boxes import CELLS, NONE, joined_labels, stacked, things, turned_boxes
from eosfm.tasks.detection import ANCHORS, DetectionHead, pasted
from eosfm.tasks.model import HeadConfig, TaskModel, TaskSpec
from eosfm.tasks.scene import SceneTaskModel
from eosfm.training.batches import dihedral, loader
from eosfm.training.fit import adapt_ensemble
from eosfm.training.scoring import score
from eosfm.training.settings import FitConfig
from helpers import make_specialist

BANDS = BandSet.parse("sentinel-2-l2a:B04,B03,B02@reflectance")
CHANNELS, SIDE = (8, 12, 16, 20), 64


def square_chips(n, seed, kind="detection", noise=0.005):
    """Ground with bright (class 0) and dark (class 1) squares."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.2, noise, (n, 3, SIDE, SIDE)).astype(np.float32)
    lists, maps = [], np.zeros((n, 2, SIDE, SIDE), np.int64)
    for i in range(n):
        rows = []
        for quarter in range(1 + i % 3):
            c, (w, h) = int(rng.integers(2)), rng.integers(22, 31, 2).tolist()
            left, top = (
                32 * (quarter % 2) + int(rng.integers(0, 32 - w)),
                32 * (quarter // 2) + int(rng.integers(0, 32 - h)),
            )
            inside = np.s_[top : top + h, left : left + w]
            x[i][(slice(None), *inside)] += 0.15 if c == 0 else -0.15
            maps[i, 0][inside], maps[i, 1][inside] = quarter + 1, c
            rows.append([c, left, top, left + w, top + h])
        lists.append(torch.tensor(rows, dtype=torch.float32))
    labels = stacked(lists) if kind == "detection" else torch.from_numpy(maps)
    return Chips(torch.from_numpy(x), labels, BANDS, kind, ("bright", "dark"), f"squares {seed}")


def splits(kind="detection", train=24):
    return Splits(square_chips(train, 0, kind), square_chips(6, 1, kind), square_chips(9, 2, kind))


class Given(nn.Module):
    """A backbone that gives what it was given."""

    def __init__(self, pyramid, channels):
        super().__init__()
        self.pyramid, self.out_channels = pyramid, channels

    def forward(self, _):
        return {str(i): p for i, p in enumerate(self.pyramid)}


def drawn_pyramid(n=2):
    torch.manual_seed(0)
    return [torch.randn(n, c, SIDE // s, SIDE // s) for c, s in zip(CHANNELS, (4, 8, 16, 32), strict=True)]


@pytest.mark.parametrize("masks", [False, True])
def test_head_is_torchvisions_detector(masks):
    torch.manual_seed(1)
    head = DetectionHead(CHANNELS, 2, 16, masks=masks)
    pyramid = drawn_pyramid()
    with torch.no_grad():
        levels = list(head.neck({str(i): p for i, p in enumerate(pyramid)}).values())
    names = ["0", "1", "2", "3"]
    more = {}
    if masks:
        more = {"mask_roi_pool": MultiScaleRoIAlign(names, 14, 2), "mask_head": MaskRCNNHeads(16, (16,) * 4, 1),
                "mask_predictor": MaskRCNNPredictor(16, 16, 3)}  # fmt: skip
    build = {
        "min_size": SIDE, "max_size": SIDE, "image_mean": [0.0], "image_std": [1.0],
        "box_roi_pool": MultiScaleRoIAlign(names, 7, 2),
        "rpn_anchor_generator": AnchorGenerator(tuple((a,) for a in ANCHORS), ((0.5, 1.0, 2.0),) * 4),
    }  # fmt: skip
    theirs = (
        MaskRCNN(Given(levels, 16), 3, mask_roi_pool=more["mask_roi_pool"], mask_head=more["mask_head"],
                 **build)
        if masks
        else FasterRCNN(Given(levels, 16), 3, **build)
    )  # fmt: skip
    if masks:
        theirs.roi_heads.mask_predictor = more["mask_predictor"]
    theirs.rpn.load_state_dict(head.rpn.state_dict())
    theirs.roi_heads.load_state_dict(head.roi.state_dict())
    images = [torch.zeros(1, SIDE, SIDE) for _ in range(2)]
    found = head.eval()(pyramid, (SIDE, SIDE))
    for rows, wanted in zip(found, theirs.eval()(images), strict=True):
        rows = rows[rows[:, 0] != NONE]
        torch.testing.assert_close(rows[:, 0].long() + 1, wanted["labels"])
        torch.testing.assert_close(rows[:, 1], wanted["scores"])
        torch.testing.assert_close(rows[:, 2:6], wanted["boxes"])
        assert rows.shape[1] == (6 + CELLS**2 if masks else 6) and len(rows)
    label = square_chips(2, 5, "instances" if masks else "detection").labels
    targets = []
    for y in label:
        boxes, classes, inside = things(y)
        targets.append({"boxes": boxes, "labels": classes + 1} | ({"masks": inside.to(torch.uint8)} if masks else {}))
    torch.manual_seed(3)
    ours = head.train()(pyramid, (SIDE, SIDE), label)
    torch.manual_seed(3)
    losses = theirs.train()(images, targets)
    torch.testing.assert_close(ours, sum(losses.values()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
@pytest.mark.parametrize("orientation", range(8))
def test_boxes_turn_with_their_picture(size, orientation):
    h, w = size
    y = torch.tensor([[1, 3, 5, 17, 40], [0, 50, 0, 64, 9.0], [NONE] * 5])
    maps = torch.zeros(2, h, w, dtype=torch.long)
    for n, (c, x1, y1, x2, y2) in enumerate(y[:2].long().tolist(), 1):
        maps[0, y1:y2, x1:x2], maps[1, y1:y2, x1:x2] = n, c
    boxes, classes, _ = things(turned(maps, orientation))
    moved = turned_boxes(y, orientation, size)
    assert torch.equal(moved[:2, 1:], boxes) and torch.equal(moved[:2, 0].long(), classes)
    assert torch.equal(moved[2], y[2])  # what holds nothing stays so


def test_augmentation_keeps_things_under_their_boxes():
    chips = square_chips(8, 3)
    g = torch.Generator().manual_seed(0)
    x, y = dihedral(*chips.batch(range(8)), g, boxes=True)
    assert not torch.equal(x, chips.images)
    for picture, label in zip(x, y, strict=True):
        for box, c in zip(*things(label)[:2], strict=True):
            x1, y1, x2, y2 = box.long().tolist()
            inside = picture[:, y1:y2, x1:x2].mean()
            assert inside == pytest.approx(0.35 if c == 0 else 0.05, abs=0.01)


def test_cached_orientations_have_their_boxes():
    ensemble = Ensemble([make_specialist("a", str(BANDS))], BANDS)
    chips = square_chips(3, 4)
    kept = cached_features(ensemble, chips, orientations=8)
    for among, orientation in enumerate(kept.orientations):
        pyramids, y = kept.batch([1], [among])
        assert torch.equal(y[0], turned_boxes(chips.labels[1], orientation, (SIDE, SIDE)))
        wanted = ensemble.encode(turned(chips.images[1:2], orientation))[0][0]
        torch.testing.assert_close(pyramids[0][0], wanted, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", ["detection", "instances"])
def test_the_loss_of_a_batch_falls_and_specialists_stay(kind):
    chips = square_chips(2, 0, kind)
    ensemble = Ensemble([make_specialist("a", str(BANDS))], BANDS)
    task = TaskSpec(kind=kind, classes=chips.classes, chip_size=SIDE, head=HeadConfig(channels=16))
    torch.manual_seed(0)
    model = TaskModel(ensemble, task)
    frozen = {k: v.clone() for k, v in ensemble.encoders.state_dict().items()}
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(12):
        loss = model(chips.images, targets=chips.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert max(losses[-3:]) < 0.8 * min(losses[:2])
    assert all(torch.equal(v, ensemble.encoders.state_dict()[k]) for k, v in frozen.items())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detection", "instances"])
def test_it_learns_to_find_squares(kind):
    parts = splits(kind, train=16)
    ensemble = Ensemble([make_specialist("a", str(BANDS)), make_specialist("b", str(BANDS), seed=1)], BANDS)
    task = TaskSpec(kind=kind, classes=("bright", "dark"), chip_size=SIDE, head=HeadConfig(channels=32))
    config = FitConfig(epochs=14, batch_size=4, learning_rate=2e-3, validate_every=3)
    model, result, _ = adapt_ensemble(ensemble, parts, task, config)
    scores = score(model.eval(), parts.test, 0)
    named = {m.name: m.value for m in scores.metrics}
    assert scores.main == ("map-boxes" if kind == "detection" else "map-masks")
    assert named[f"{scores.main}-50"] > 0.5 and result.best > 0.2
    constant = score(ConstantPredictor(parts.train), parts.test, 0)
    assert named[scores.main] > constant.metrics[0].value + 0.1


@pytest.mark.parametrize("kind", ["detection", "instances"])
def test_cached_features_give_the_same_things_and_the_same_loss(kind):
    ensemble = Ensemble([make_specialist("a", str(BANDS))], BANDS)
    torch.manual_seed(0)
    task = TaskSpec(kind=kind, classes=("bright", "dark"), chip_size=SIDE, head=HeadConfig(channels=8))
    model, chips = TaskModel(ensemble, task).eval(), square_chips(2, 6, kind)
    with torch.inference_mode():
        torch.testing.assert_close(model.from_features(ensemble.encode(chips.images)), model(chips.images))
        cut = model(chips.images[..., :50, :60])
    assert cut[..., 2:6][cut[..., 0] != NONE].amax((0,)).tolist() <= [60, 50, 60, 50]
    losses = []
    for call in (model, lambda x, targets: model.from_features(ensemble.encode(x), targets=targets)):
        torch.manual_seed(3)
        losses.append(call(chips.images, targets=chips.labels))
    torch.testing.assert_close(losses[0], losses[1])
    assert all(p.grad is None for p in ensemble.encoders.parameters())


def test_a_chip_without_things_can_be_learnt_from_and_scored():
    labels = torch.full((2, 1, 5), float(NONE))
    chips = Chips(torch.rand(2, 3, SIDE, SIDE), labels, BANDS, "detection", ("bright", "dark"), "empty")
    ensemble = Ensemble([make_specialist("a", str(BANDS))], BANDS)
    task = TaskSpec(kind="detection", classes=chips.classes, chip_size=SIDE, head=HeadConfig(channels=8))
    model = TaskModel(ensemble, task)
    loss = model(chips.images, targets=labels)
    assert bool(loss.isfinite()) and loss.requires_grad
    assert not score(model.eval(), chips, 0).metrics  # nothing to find: no score rather than a wrong one


def test_masks_are_pasted_where_they_were_found():
    rows = torch.cat([torch.tensor([[0, 1.0, 3, 5, 13, 25], [0, 1.0, 2.4, 2.4, 2.6, 9.0]]), torch.ones(2, CELLS**2)], 1)
    rows[0, 6:].view(CELLS, CELLS)[:, CELLS // 2 :] = 0  # the left half of the first
    out = pasted(rows, (32, 40))
    assert out.shape == (2, 32, 40) and out[0, 5:25, 3:8].all() and int(out[0].sum()) == 20 * 5
    assert int(out[1].sum()) == 7 and out[1, 2:9, 2].all()
    assert pasted(rows[:0], (8, 8)).shape == (0, 8, 8)


def test_labels_that_are_no_boxes_are_refused():
    x = torch.rand(1, 3, SIDE, SIDE)

    def chips(label, kind="detection"):
        return Chips(x, torch.tensor(label)[None], BANDS, kind, ("bright", "dark"), "odd")

    for row, says in [
        ([2.0, 1, 1, 5, 5], "class 2 of a box"),
        ([0.5, 1, 1, 5, 5], "class 0.5"),
        ([0.0, 5, 1, 5, 9], "box 5, 1, 5, 9"),
        ([0.0, 1, 1, 65, 9], "x1 < x2 <= 64"),
        ([0.0, -1, 1, 5, 9], "box -1"),
        ([0.0, 1, 1, float("nan"), 9], "finite"),
    ]:
        with pytest.raises(DataError, match=says):
            chips([row])
    with pytest.raises(DataError, match=r"labels \(1, 1, 4\)"):
        chips([[0.0, 1, 1, 5]])
    two = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    two[0, :4], two[1, :2] = 1, 1
    with pytest.raises(DataError, match="pixels of two classes"):
        chips(two.tolist(), "instances")
    with pytest.raises(DataError, match="class 7 of an instance"):
        chips((two.clamp(max=0) + torch.tensor([1, 7])[:, None, None]).tolist(), "instances")


def test_what_is_for_maps_says_so(tmp_path):
    ensemble = Ensemble([make_specialist("a", str(BANDS))], BANDS)
    task = TaskSpec(kind="detection", classes=("bright", "dark"), chip_size=SIDE, head=HeadConfig(channels=8))
    model = TaskModel(ensemble, task).eval()
    with pytest.raises(ConfigError, match="finds single things"):
        SceneTaskModel(model, "x")
    with pytest.raises(ConfigError, match="zoom is not for boxes"):
        loader(square_chips(2, 0), 2, 0, train=True, zoom=0.2)


def test_joined_labels_of_unequal_batches():
    a, b = torch.ones(2, 3, 5), torch.ones(1, 1, 5)
    out = joined_labels([a, b])
    assert out.shape == (3, 3, 5) and (out[2, 1:] == NONE).all()
    assert torch.equal(joined_labels([torch.tensor([1, 2]), torch.tensor([3])]), torch.tensor([1, 2, 3]))
