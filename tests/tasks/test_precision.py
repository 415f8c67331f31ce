"""Average precision of things against pycocotools, on drawn predictions; by boxes and by masks."""

import contextlib
import io

import numpy as np
import pytest
import torch

from eosfm.tasks.boxes import NONE, stacked, things
from eosfm.tasks.detection import pasted, suppressed
from eosfm.tasks.objectives import make_metrics, update_metrics
from eosfm.tasks.precision import average_precision, matched_chip, padded
from eosfm.training.scoring import STATISTICS, per_chip_counts, scores_from
from miniatures.things import CLASSES, SIDE, drawn


def coco(chips, kind):
    """Average precision by pycocotools, overall and at 0.5."""
    from pycocotools import mask as rle
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def packed(m):
        return rle.encode(np.asfortranarray(m.numpy().astype(np.uint8)))

    truth, found = [], []
    for image, (rows, label) in enumerate(chips):
        boxes, classes, masks = things(label)
        for k, (box, c) in enumerate(zip(boxes.tolist(), classes.tolist(), strict=True)):
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            one = {"image_id": image, "category_id": c, "bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": 0}
            one["id"] = len(truth) + 1
            if kind == "segm":
                one["segmentation"] = packed(masks[k])
            truth.append(one)
        drawn_masks = pasted(rows, (SIDE, SIDE)) if kind == "segm" else None
        for k, row in enumerate(rows.tolist()):
            one = {"image_id": image, "category_id": int(row[0]), "score": row[1]}
            one["bbox"] = [row[2], row[3], row[4] - row[2], row[5] - row[3]]
            if kind == "segm":
                one["segmentation"] = packed(drawn_masks[k])
            found.append(one)
    data = COCO()
    data.dataset = {
        "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(len(chips))],
        "categories": [{"id": c, "name": str(c)} for c in range(CLASSES)],
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        data.createIndex()
        judge = COCOeval(data, data.loadRes(found), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[0], judge.stats[1]


@pytest.mark.parametrize("kind", ["detection", "instances"])
@pytest.mark.parametrize("seed", range(6))
def test_precision_is_pycocotools(kind, seed):
    rng = np.random.default_rng(seed)
    chips = [drawn(rng, kind == "instances") for _ in range(40)]
    table = padded([matched_chip(rows, label) for rows, label in chips])
    scores = {name: statistic(table) for name, statistic in STATISTICS[kind].items()}
    boxes = coco(chips, "bbox")
    assert scores["map-boxes"] == pytest.approx(boxes[0], abs=1e-6) and 0.02 < boxes[0] < 0.9
    if kind == "detection":
        assert scores["map-boxes-50"] == pytest.approx(boxes[1], abs=1e-6)
    else:
        masks = coco(chips, "segm")
        assert scores["map-masks"] == pytest.approx(masks[0], abs=1e-6) and masks[0] > 0.005
        assert scores["map-masks-50"] == pytest.approx(masks[1], abs=1e-6)


def test_perfect_and_empty_predictions():
    label = torch.tensor([[0, 1, 1, 9, 9], [2, 20, 20, 40, 30.0]])
    perfect = torch.tensor([[0, 0.9, 1, 1, 9, 9], [2, 0.6, 20, 20, 40, 30.0]])
    assert average_precision(matched_chip(perfect, label)) == 1
    assert average_precision(matched_chip(torch.zeros(0, 6), label)) == 0
    assert np.isnan(average_precision(matched_chip(perfect, label[:0])))  # nothing to find: no score, not 0 or 1
    assert np.isnan(average_precision(padded([np.zeros((0, 12))])))


def test_a_thing_is_found_once_and_by_the_surer_prediction():
    label = torch.tensor([[0, 0, 0, 10, 10.0]])
    twice = torch.tensor([[0, 0.5, 0, 0, 10, 10], [0, 0.9, 0, 0, 10, 9.0]])
    rows = matched_chip(twice, label)
    assert rows[0, 1] == pytest.approx(0.9) and rows[0, 2:].tolist() == [1] * 9 + [0]  # an overlap of 0.9
    assert rows[1, 2:].tolist() == [0] * 9 + [1]  # the exact one only where the surer one is too far off


def test_more_than_a_hundred_predictions_of_a_class_do_not_count():
    label = torch.tensor([[0, 0, 0, 10, 10.0]])
    many = torch.cat(
        [torch.tensor([[0, 0.9, 30, 30, 40, 40.0]]).repeat(100, 1), torch.tensor([[0, 0.1, 0, 0, 10, 10.0]])]
    )
    assert average_precision(matched_chip(many, label)) == 0
    assert average_precision(matched_chip(many[1:], label)) > 0


def test_metric_over_batches_is_the_score_of_all(tmp_path):
    rng = np.random.default_rng(7)
    chips = [drawn(rng, False) for _ in range(12)]
    metric = make_metrics("detection", CLASSES)
    for i in range(0, 12, 5):
        update_metrics(
            metric, "detection", stacked([r for r, _ in chips[i : i + 5]]), stacked([y for _, y in chips[i : i + 5]])
        )
    table = padded([matched_chip(r, y) for r, y in chips])
    assert float(metric.compute()["map-boxes"]) == pytest.approx(average_precision(table), abs=1e-6)
    metric.reset()
    update_metrics(metric, "detection", torch.zeros(1, 0, 6), torch.zeros(1, 0, 5))
    assert float(metric.compute()["map-boxes"]) == 0
    scores = scores_from("detection", table, ("a", "b", "c"), 0)
    assert scores.main == "map-boxes" and scores.metrics[0].low < scores.metrics[0].value < scores.metrics[0].high
    one = per_chip_counts("detection", stacked([r for r, _ in chips]), stacked([y for _, y in chips]), CLASSES)
    assert average_precision(one) == pytest.approx(average_precision(table))


def test_resampling_chips_is_scoring_them_again():
    rng = np.random.default_rng(3)
    chips = [drawn(rng, True) for _ in range(9)]
    table, picked = padded([matched_chip(*c) for c in chips]), [4, 4, 0, 8, 1, 1, 2, 7, 7]
    again = padded([matched_chip(*chips[i]) for i in picked])
    assert average_precision(table[picked], masks=True) == average_precision(again, masks=True)


def test_suppression_is_torchvisions_nms_across_classes():
    rows = torch.tensor(
        [[0, 0.9, 0, 0, 10, 10], [1, 0.8, 0, 0, 10, 9], [1, 0.7, 30, 30, 40, 40], [0, 0.5, 50, 50, 60, 60.0]]
    )[None]
    out = suppressed(rows, 0.5, 0.5)
    assert (out[0, :, 0] != NONE).tolist() == [
        True,
        False,
        True,
        False,
    ]  # another class, overlapped; and 0.5 is not above
    assert torch.equal(rows[0, 1], torch.tensor([1, 0.8, 0, 0, 10, 9])) and torch.equal(out[0, 0], rows[0, 0])
