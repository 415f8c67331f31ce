"""Silent mistakes of detection, each found while it was built."""

import torch

from eosfm.tasks.boxes import NONE, turned_boxes
from eosfm.tasks.detection import DetectionHead
from eosfm.training.batches import dihedral


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
