"""RoIAlign and mask targets literally in loops; levels at their thresholds; samples, detections by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from panoptube.network.roi import (
    BoxHead,
    MaskHead,
    mask_targets,
    pool,
    roi_levels,
    roi_targets,
    select,
)


@pytest.mark.parametrize(
    ("width", "height", "level"),
    [
        (1, 1, 0),
        (111, 111, 0),
        (112, 112, 1),
        (56, 224, 1),
        (223, 223, 1),
        (224, 224, 2),
        (447, 447, 2),
        (448, 448, 3),
        (5000, 3000, 3),
    ],
)
def test_levels(width: int, height: int, level: int) -> None:
    box = torch.tensor([[7.0, 9.0, 7 + width - 1, 9 + height - 1]])
    assert roi_levels(box).tolist() == [level]


def bilinear(plane: list[list[float]], y: float, x: float) -> float:
    """One sample as the published kernel takes it (dossier L6): no half-pixel shift, clamped."""
    height, width = len(plane), len(plane[0])
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    top = plane[y0][x0] * (1 - fx) + plane[y0][x1] * fx
    bottom = plane[y1][x0] * (1 - fx) + plane[y1][x1] * fx
    return top * (1 - fy) + bottom * fy


def loop_roi_align(plane: list[list[float]], box: list[float], size: int, stride: int) -> list[list[float]]:
    x1, y1 = box[0] / stride, box[1] / stride
    cell_w = max((box[2] + 1) / stride - x1, 0.0) / size
    cell_h = max((box[3] + 1) / stride - y1, 0.0) / size
    return [
        [
            sum(
                bilinear(plane, y1 + (i + sy) * cell_h, x1 + (j + sx) * cell_w)
                for sy in (0.25, 0.75)
                for sx in (0.25, 0.75)
            )
            / 4
            for j in range(size)
        ]
        for i in range(size)
    ]


@pytest.mark.parametrize("size", [7, 14])
def test_pool_equals_loops(size: int) -> None:
    g = torch.Generator().manual_seed(0)
    height, width = 512, 640
    pyramid = [
        torch.randn(2, 2, height // s, width // s, generator=g, dtype=torch.float64)
        for s in (4, 8, 16, 32, 64)
    ]
    boxes = torch.tensor(
        [
            [3.2, 5.9, 40.7, 33.1],  # P2
            [100.0, 50, 100, 50],  # one pixel, thinner than a cell
            [300.5, 20.25, 302, 400],  # thin and long
            [10.0, 20, 150, 160],  # P3
            [600.0, 470, 639, 511],  # the far corner
            [0.0, 0, 255, 300],  # P4
            [0.0, 0, 639, 511],  # P5
            [50.0, 50, 45, 48],  # turned inside out: no width
        ],
        dtype=torch.float64,
    )
    levels = roi_levels(torch.cat([boxes[:7], boxes[1:2]])).tolist()
    assert set(levels) == {0, 1, 2, 3}
    for image in (0, 1):
        found = pool(pyramid, image, boxes[:7], size)
        for n, box in enumerate(boxes[:7].tolist()):
            for channel in range(2):
                plane = pyramid[levels[n]][image, channel].tolist()
                expected = torch.tensor(
                    loop_roi_align(plane, box, size, 4 * 2 ** levels[n]), dtype=torch.float64
                )
                assert torch.allclose(found[n, channel], expected, rtol=0, atol=1e-10), (n, channel)


def test_pool_of_no_boxes_has_a_gradient() -> None:
    pyramid = [torch.randn(1, 3, 64 // s, 64 // s, requires_grad=True) for s in (4, 8, 16, 32)]
    found = pool(pyramid, 0, torch.zeros(0, 4), 7)
    assert found.shape == (0, 3, 7, 7)
    found.sum().backward()
    assert all(level.grad is not None and (level.grad == 0).all() for level in pyramid)


def test_box_head_lays_out_four_numbers_per_class() -> None:
    head = BoxHead(2, 8, 3)
    head.deltas.weight.data.zero_()
    head.deltas.bias.data.copy_(torch.arange(16))
    classes, deltas = head(torch.randn(5, 2, 7, 7))
    assert classes.shape == (5, 4)
    assert deltas[2].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert head(torch.zeros(0, 2, 7, 7))[1].shape == (0, 4, 4)


def test_mask_head_gives_each_region_its_own_class() -> None:
    torch.manual_seed(0)
    head = MaskHead(2, 4, 2, 3)
    features = torch.randn(3, 2, 14, 14)
    labels = torch.tensor([2, 0, 3])
    everything = head(features)
    assert everything.shape == (3, 4, 28, 28)
    own = head.of_class(features, labels)
    for i, label in enumerate(labels.tolist()):
        assert torch.equal(own[i], everything[i, label])
    assert head.of_class(features[:0], labels[:0]).shape == (0, 28, 28)


def loop_mask_target(mask: np.ndarray, box: list[float]) -> np.ndarray:
    """(28, 28) float64: the crop of whole pixels, bilinear between pixel centres, before rounding."""
    x1, y1, x2, y2 = map(int, box)
    crop = mask[y1 : y2 + 1, x1 : x2 + 1].astype(float).tolist()
    height, width = len(crop), len(crop[0])
    target = np.zeros((28, 28))
    for i in range(28):
        for j in range(28):
            target[i, j] = bilinear(crop, (i + 0.5) * height / 28 - 0.5, (j + 0.5) * width / 28 - 0.5)
    return target


def test_mask_targets_are_the_bilinear_resize_cut_to_0_and_1() -> None:
    rng = np.random.default_rng(0)
    masks = (rng.random((2, 12, 16)) > 0.5).repeat(5, 1).repeat(5, 2).astype(np.uint8)
    boxes = torch.tensor(
        [[3.9, 2.2, 50.8, 40.9], [0, 0, 79, 59], [10, 10, 10, 10], [70.0, 3, 79.9, 58], [5, 5, 20, 15]]
    )
    truth = torch.tensor([0, 1, 1, 0, 1])
    targets = mask_targets(boxes, torch.from_numpy(masks), truth).numpy()
    assert targets.dtype == np.uint8
    for target, box, g in zip(targets, boxes.tolist(), truth.tolist()):
        expected = loop_mask_target(masks[g], box)
        # OpenCV cuts each of the two rows to quarters before it rounds their sum: 1/2 to 3/4 may be either.
        assert (target[expected < 0.498] == 0).all()
        assert (target[expected > 0.752] == 1).all()
        assert ((expected < 0.498) | (expected > 0.752)).mean() > 0.7
        assert set(np.unique(target).tolist()) <= {0, 1}


def test_mask_targets_by_hand() -> None:
    mask = torch.zeros(1, 40, 60, dtype=torch.uint8)
    mask[0, :, 16:] = 1
    target = mask_targets(torch.tensor([[2.99, 0, 29.99, 27.99]]), mask, torch.tensor([0]))[0]
    assert target[5].tolist() == [0] * 14 + [1] * 14  # columns 2..29 one to one
    assert mask_targets(torch.zeros(0, 4), mask, torch.zeros(0, dtype=torch.int64)).shape == (0, 28, 28)


def first(candidates: Tensor, number: int) -> Tensor:
    return candidates[:number]


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """Two true boxes with classes 3 and 1, and their masks."""
    truth = torch.tensor([[10.0, 10, 29, 29], [40, 10, 59, 29]])
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 10:30, 10:30], masks[1, 10:30, 40:50] = 1, 1
    return truth, torch.tensor([3, 1]), masks


def test_roi_targets_by_hand() -> None:
    truth, labels, masks = scene()
    proposals = torch.tensor([[0.0, 40, 9, 49], [40, 10, 59, 19], [11, 10, 30, 29], [40, 10, 59, 18]])
    found = roi_targets(proposals, truth, labels, masks, 100, first)
    # True boxes first; the second proposal has IoU 0.5 with the second box, the last one 0.45.
    assert found.boxes.tolist() == [*truth.tolist(), *proposals[[1, 2, 0, 3]].tolist()]
    assert found.labels.tolist() == [3, 1, 1, 3, 0, 0]
    assert found.truth.tolist() == [0, 1, 1, 0]
    assert found.deltas[:2].tolist() == [[0] * 4] * 2
    assert found.deltas[2].tolist() == pytest.approx([0, 5 / 10 / 0.1, 0, math.log(2) / 0.2])
    assert found.masks.shape == (4, 28, 28)
    assert found.masks[0].min() == 1
    assert found.masks[1, 3].tolist() == [1] * 14 + [0] * 14


def test_roi_targets_sample_at_most_a_quarter_positive() -> None:
    truth, labels, masks = scene()
    proposals = torch.cat([truth.repeat(10, 1), torch.tensor([[0.0, 50, 9, 59]]).repeat(20, 1)])
    found = roi_targets(proposals, truth, labels, masks, 16, first)
    assert (len(found.truth), len(found.labels)) == (4, 16)
    assert found.labels.tolist() == [3, 1, 3, 1, *[0] * 12]


def test_roi_targets_without_truth() -> None:
    _, _, masks = scene()
    none = torch.zeros(0, dtype=torch.int64)
    found = roi_targets(torch.tensor([[0.0, 0, 9, 9]]), torch.zeros(0, 4), none, masks[:0], 16, first)
    assert found.labels.tolist() == [0]
    assert (found.deltas.shape, found.masks.shape) == ((0, 4), (0, 28, 28))


def test_proposals_on_untrusted_pixels_are_no_negatives() -> None:
    truth, labels, masks = scene()
    untrusted = torch.zeros(64, 64, dtype=torch.bool)
    untrusted[40:] = True
    proposals = torch.tensor([[0.0, 40, 9, 49], [0, 32, 9, 47], [0, 30, 9, 47], [10, 10, 29, 30]])
    found = roi_targets(proposals, truth, labels, masks, 100, first, untrusted, 0.5)
    # The first lies on untrusted pixels alone; of the second it is a half, of the third less.
    assert found.boxes.tolist() == [*truth.tolist(), *proposals[[3, 1, 2]].tolist()]
    assert found.labels.tolist() == [3, 1, 3, 0, 0]


def detections(probabilities: list[list[float]], proposals: Tensor, limit: int = 100, legacy: bool = False):  # type: ignore[no-untyped-def]
    """Chosen of proposals with these class probabilities (background first) and no deltas."""
    logits = torch.tensor(probabilities).log()
    deltas = torch.zeros(len(proposals), logits.shape[1], 4)
    return select(proposals, logits, deltas, (64, 64), 0.6, limit, legacy)


def test_select_is_class_agnostic_and_strict() -> None:
    proposals = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29], [40, 40, 49, 49]])
    found = detections([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.39, 0.01, 0.6], [0.38, 0.61, 0.01]], proposals)
    # The second suppresses the first although the class differs; 0.6 of the third isn't above 0.6.
    assert found.boxes.tolist() == [[0, 0, 9, 8], [40, 40, 49, 49]]
    assert found.labels.tolist() == [2, 1]
    assert found.scores.tolist() == pytest.approx([0.8, 0.61])


@pytest.mark.parametrize(
    ("limit", "kept"), [(1, [0]), (2, [0, 10, 20]), (3, [0, 10, 20]), (4, [0, 10, 20, 30])]
)
def test_select_keeps_what_is_as_good_as_the_last(limit: int, kept: list[int]) -> None:
    proposals = torch.tensor([[0.0, 0, 5, 5], [10, 0, 15, 5], [20, 0, 25, 5], [30, 0, 35, 5]])
    found = detections([[0.1, 0.9], [0.2, 0.8], [0.2, 0.8], [0.3, 0.7]], proposals, limit)
    assert found.boxes[:, 0].tolist() == kept


def test_select_reads_the_deltas_of_the_class_and_clips() -> None:
    deltas = torch.zeros(1, 3, 4)
    deltas[0, 2] = torch.tensor([10.0, 0, 0, 0])  # one width to the right
    logits = torch.tensor([[0.1, 0.1, 0.8]]).log()
    found = select(torch.tensor([[50.0, 0, 59, 9]]), logits, deltas, (32, 64), 0.6, 100, False)
    assert found.boxes.tolist() == [[60, 0, 63, 9]]


def test_select_lets_boxes_shrink_without_limit() -> None:
    deltas = torch.zeros(1, 2, 4)
    deltas[0, 1, 2] = -6 / 0.2  # e ** -6 of the width, less than the 16 / 1000 of proposals
    found = select(
        torch.tensor([[0.0, 0, 59, 9]]), torch.tensor([[0.1, 0.9]]).log(), deltas, (32, 64), 0.6, 100, False
    )
    x1, _, x2, _ = found.boxes[0].tolist()
    assert x2 - x1 + 1 == pytest.approx(60 * math.exp(-6), abs=1e-5)


def test_select_nothing() -> None:
    proposals = torch.tensor([[0.0, 0, 9, 9]])
    found = detections([[0.9, 0.1]], proposals)
    assert [tuple(t.shape) for t in found] == [(0, 4), (0,), (0,)]
    dummy = detections([[0.9, 0.1]], proposals, legacy=True)
    assert [t.tolist() for t in dummy] == [[[0, 0, 0, 0]], [0], [1]]
    found = detections([[0.1, 0.9]], proposals, legacy=True)
    assert found.labels.tolist() == [1]
