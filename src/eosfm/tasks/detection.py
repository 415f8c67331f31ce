"""Faster R-CNN and Mask R-CNN over a pyramid: boxes of things, and their pixels. torchvision's parts, wired to our features.

GEO-Bench-2 measures detection with Faster R-CNN and instances with Mask R-CNN on a feature pyramid (its tutorial; levels,
anchors and the pooling of boxes as in TerraTorch 1.2's ObjectDetectionModelFactory, images neither resized nor normalised
again). Mask R-CNN is torchvision's own (He et al. 2017: masks of 28 cells). TerraTorch's differs: two layers in the proposals'
head, four convolutions before the box head, batch norms in both heads, masks pooled to 7 x 7 and so of 14 cells.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, nms
from torchvision.ops.poolers import initLevelMapper

from eosfm.contracts import PYRAMID_STRIDES, Pyramid
from eosfm.tasks.boxes import BOX, CELLS, MASK, NONE, SCORE, stacked, things

ANCHORS = (32, 64, 128, 256)
"""side in pixels, one a level"""
HIDDEN = 1024
MOST = 100
"""things in an image, as COCO counts them"""
LEAST_SCORE = 0.05


class DetectionHead(nn.Module):
    """Boxes of things from a pyramid, with their pixels where ``masks``; in training their loss."""

    def __init__(self, in_channels: Sequence[int], classes: int, channels: int = 256, *, masks: bool = False) -> None:
        super().__init__()
        self.masks = masks
        names = [str(i) for i in range(len(PYRAMID_STRIDES))]
        self.neck = FeaturePyramidNetwork(list(in_channels), channels)
        ratios = ((0.5, 1.0, 2.0),) * len(names)
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(tuple((a,) for a in ANCHORS), ratios), RPNHead(channels, 3),
            fg_iou_thresh=0.7, bg_iou_thresh=0.3, batch_size_per_image=256, positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000}, post_nms_top_n={"training": 2000, "testing": 1000},
            nms_thresh=0.7,
        )  # fmt: skip
        self.roi = RoIHeads(
            _pooler(names, 7), TwoMLPHead(channels * 7**2, HIDDEN), FastRCNNPredictor(HIDDEN, classes + 1),
            fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=512, positive_fraction=0.25, bbox_reg_weights=None,
            score_thresh=LEAST_SCORE, nms_thresh=0.5, detections_per_img=MOST,
            mask_roi_pool=_pooler(names, CELLS // 2) if masks else None,
            mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1) if masks else None,
            mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1) if masks else None,
        )  # fmt: skip

    def forward(self, pyramid: Pyramid, size: tuple[int, int], targets: Tensor | None = None) -> Tensor:
        """Predictions ``(b, m, 6)`` or ``(b, m, 6 + 28 * 28)``, see `eosfm.tasks.boxes`; with ``targets`` the loss.

        Args:
            pyramid: of ``b`` images, which may be padded on the right and bottom.
            size: ``(h, w)`` of the images themselves; nothing is found outside.
            targets: labels of the images; only while training.
        """
        pyramid = [p.float() for p in pyramid]  # boxes are pixels: half precision would move them
        with torch.autocast(pyramid[0].device.type, enabled=False):
            levels: dict[str, Tensor] = self.neck(OrderedDict((str(i), p) for i, p in enumerate(pyramid)))
            h, w = (s * PYRAMID_STRIDES[0] for s in pyramid[0].shape[-2:])
            images = ImageList(pyramid[0].new_empty((len(pyramid[0]), 1, h, w)), [size] * len(pyramid[0]))
            wanted = None if targets is None else [_target(y.to(pyramid[0].device)) for y in targets]
            self.rpn.train(wanted is not None)  # torchvision's parts ask for targets whenever they train
            self.roi.train(wanted is not None)
            proposals, first = self.rpn(images, levels, wanted)
            found, second = self.roi(levels, proposals, images.image_sizes, wanted)
            if wanted is not None:
                return torch.stack([*first.values(), *second.values()]).sum()
            return stacked([self._rows(f) for f in found])

    def _rows(self, found: dict[str, Tensor]) -> Tensor:
        parts = [(found["labels"] - 1).float()[:, None], found["scores"][:, None], found["boxes"]]
        if self.masks:
            parts.append(found["masks"].flatten(1))
        return torch.cat(parts, 1)


def _pooler(names: list[str], side: int) -> MultiScaleRoIAlign:
    """Boxes cut out of the levels. torchvision guesses the strides from the first image's size, wrongly where it was padded."""
    out = MultiScaleRoIAlign(names, side, 2)
    out.scales = [1 / s for s in PYRAMID_STRIDES]
    finest, coarsest = (int(math.log2(s)) for s in (PYRAMID_STRIDES[0], PYRAMID_STRIDES[-1]))
    out.map_levels = initLevelMapper(finest, coarsest, out.canonical_scale, out.canonical_level)
    return out


def _target(y: Tensor) -> dict[str, Tensor]:
    boxes, classes, masks = things(y)
    out = {"boxes": boxes.to(y.device), "labels": (classes + 1).to(y.device)}  # 0 is the background
    return out if masks is None else {**out, "masks": masks.to(torch.uint8)}


def suppressed(predictions: Tensor, score: float, overlap: float) -> Tensor:
    """``predictions`` without those of at most ``score``, and without those that a better one overlaps, whatever its class.

    What TerraTorch's ObjectDetectionTask does before it scores (0.5 and an IoU of 0.5, its defaults). A thing that is
    dropped becomes a row of `NONE`.
    """
    out = predictions.clone()
    for rows in out:
        held = ((rows[:, 0] != NONE) & (rows[:, SCORE] > score)).nonzero()[:, 0]
        keep = held[nms(rows[held][:, BOX], rows[held][:, SCORE], overlap)]
        dropped = torch.ones(len(rows), dtype=torch.bool)
        dropped[keep] = False
        rows[dropped] = NONE
    return out


def pasted(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks ``(m, h, w)`` of the predictions ``rows`` ``(m, 6 + 28 * 28)`` of one image of ``size``: 0.5 and more.

    Cells are read at the pixels' centres. torchvision's own pasting rounds boxes to whole pixels and so grows masks by up to
    one on each side: a square of 10 pixels found exactly would overlap itself by 0.83.
    """
    h, w = size
    x1, y1, x2, y2 = rows[:, BOX].unbind(1)
    x, y = torch.arange(w) + 0.5, torch.arange(h) + 0.5
    across = (x - x1[:, None]) / (x2 - x1).clamp(min=1e-6)[:, None]  # 0 to 1 inside
    down = (y - y1[:, None]) / (y2 - y1).clamp(min=1e-6)[:, None]
    inside = ((down > 0) & (down < 1))[:, :, None] & ((across > 0) & (across < 1))[:, None]
    grid = torch.stack([across[:, None].expand(-1, h, -1), down[:, :, None].expand(-1, -1, w)], -1) * 2 - 1
    cells = rows[:, MASK:].reshape(-1, 1, CELLS, CELLS)
    out = F.grid_sample(cells, grid, padding_mode="border", align_corners=False)[:, 0] >= 0.5
    return out & inside
