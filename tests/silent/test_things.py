"""Silent mistakes of detection, each found while it was built."""

from dataclasses import replace

import pytest
import torch

from eosfm.bands import BandSet
from eosfm.benchmark.adapting import Trained, scored
from eosfm.benchmark.baselines import ConstantPredictor
from eosfm.benchmark.suite import CONSTANT, Case
from eosfm.data.chips import Chips
from eosfm.data.files import DataConfig
from eosfm.specialists.stac import TASKS
from eosfm.tasks.boxes import NONE, turned_boxes
from eosfm.tasks.detection import DetectionHead
from eosfm.tasks.kinds import KINDS
from eosfm.tasks.objectives import ObjectPrecision
from eosfm.training.batches import dihedral
from eosfm.training.module import fit
from eosfm.training.settings import FitConfig
from miniatures.things import drawn_batch

BANDS = BandSet.parse("aerial:R@8bit")


def test_small_images_are_pooled_by_the_encoders_strides():
    """torchvision's pooler took 1/2 for the scale of a stride of 4, where an image of 40 x 33 had been padded to 64 x 64."""
    torch.manual_seed(0)
    first, second = (DetectionHead((4, 4, 4, 4), 2, 8).eval() for _ in range(2))
    second.load_state_dict(first.state_dict())
    pyramid = [torch.randn(1, 4, 64 // s, 64 // s) for s in (4, 8, 16, 32)]
    with torch.inference_mode():
        first(pyramid, (64, 64))  # the pooler would have remembered this size
        assert torch.equal(first(pyramid, (40, 33)), second(pyramid, (40, 33)))
    assert [second.roi.box_roi_pool.scales[i] for i in range(4)] == [1 / 4, 1 / 8, 1 / 16, 1 / 32]


def test_a_list_of_boxes_is_not_turned_as_if_it_were_a_map():
    """``(b, m, 5)`` looks like ``(b, h, w)``: flipping its rows and columns would give boxes of nonsense, and no error."""
    x, y = torch.rand(4, 1, 5, 5), torch.tensor([[0.0, 1, 1, 3, 4]]).repeat(4, 5, 1)
    _, moved = dihedral(x, y, torch.Generator().manual_seed(0), boxes=True)
    assert (
        (moved[..., 0] == 0).all() and (moved[..., 1] < moved[..., 3]).all() and (moved[..., 2] < moved[..., 4]).all()
    )
    nothing = torch.full((2, 5), float(NONE))
    assert torch.equal(turned_boxes(nothing, 5, (9, 9)), nothing)


def test_every_epoch_begins_with_the_same_draws_wherever_a_session_began(tmp_path):
    """The loader draws from the global generator, in the first epoch of a session before it was seeded, in others after it: a
    resumed run had other dropout, and other proposals of a detector, than one that was never killed."""
    chips = Chips(torch.rand(4, 1, 32, 32), torch.tensor([0, 1, 0, 1]), BANDS, "classification", ("a", "b"), "four")
    drawn: dict[str, list[float]] = {}

    class Draws(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.linear, self.name = torch.nn.Linear(1, 2), name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                drawn.setdefault(self.name, []).append(torch.rand(()).item())
            return self.linear(x.mean((2, 3)))

    config = FitConfig(epochs=3, batch_size=2, learning_rate=1e-3)
    fit(Draws("whole"), "classification", 2, chips, chips, config, folder=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(fraction: float, _: str) -> None:
        if fraction > 0.7:
            raise Killed

    with pytest.raises(Killed):
        fit(Draws("a"), "classification", 2, chips, chips, config, folder=tmp_path / "cut", progress=kill)
    fit(Draws("b"), "classification", 2, chips, chips, config, folder=tmp_path / "cut")
    assert len(drawn["whole"]) == 6 and drawn["b"] == drawn["whole"][-len(drawn["b"]) :] and len(drawn["b"]) < 6


def test_precision_of_several_processes_is_that_of_all_rows():
    """After a sync torchmetrics hands over one tensor instead of a list: its rows were taken for tables, and a run of two
    processes ended in an IndexError after its first epoch."""
    one, all_of_it = ObjectPrecision(), ObjectPrecision()
    for seed in range(2):
        z, y = drawn_batch("detection", seed, 5)
        all_of_it.update(z, y)
        one.update(z, y)
    one.matches = torch.cat(one.matches)
    assert one.compute() == all_of_it.compute() > 0


def test_every_kind_has_its_words_in_a_catalogue():
    """A detection specialist's STAC item had no task at all."""
    assert all(TASKS[kind] for kind in KINDS)


def test_the_protocol_throws_unsure_predictions_away_and_the_constant_keeps_its_box(tmp_path):
    """GEO-Bench-2's task drops predictions of 0.5 and less: of a constant predictor of three classes nothing would be left."""
    box = torch.tensor([[[0.0, 4, 4, 20, 20], [1.0, 30, 30, 50, 50], [2.0, 4, 40, 20, 60]]]).repeat(3, 1, 1)
    chips = Chips(torch.rand(3, 1, 64, 64), box, BANDS, "detection", ("a", "b", "c"), "boxes")
    case = Case(
        name="x", protocol="geobench2", data=DataConfig(kind="dataset", dataset="geobench2-everwatch", root=tmp_path)
    )

    class Says(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = torch.cat([box[0, :, :1], torch.tensor([[0.9], [0.5], [0.4]]), box[0, :, 1:]], 1)
            return rows.expand(len(x), -1, -1)

    def main(model: torch.nn.Module, name: str, where: Case = case) -> float:
        return scored(Trained(model, None), name, where, chips, 0).metrics[0]["value"]

    assert main(Says(), "ensemble") == 1 / 3
    assert main(Says(), "ensemble", replace(case, protocol="pangaea", data=replace(case.data, dataset="mados"))) == 1
    assert main(ConstantPredictor(chips), CONSTANT) == 1
