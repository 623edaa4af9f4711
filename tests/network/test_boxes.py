"""Boxes with inclusive ends: against pixels counted one by one, and against loops in double precision."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from panoptube.network.boxes import (
    MAX_LOG_RATIO,
    ROI_STD,
    RPN_STD,
    area,
    assign,
    covered,
    decode,
    encode,
    iou,
    nms,
    random_choice,
    sample,
    spare_untrusted,
)


def whole_boxes(number: int, seed: int, limit: int = 12) -> Tensor:
    """(number, 4) float64 boxes on a small grid, so that ties are common; single pixels too."""
    corners = torch.randint(limit, (number, 2, 2), generator=torch.Generator().manual_seed(seed)).double()
    return torch.cat([corners.min(1).values, corners.max(1).values], 1)


def any_boxes(number: int, seed: int) -> Tensor:
    """(number, 4) float64 boxes in 200 x 300 that aren't on whole pixels."""
    u = torch.rand(number, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, side = u[:, :2] * torch.tensor([200, 100]), u[:, 2:] * 99
    return torch.cat([low, low + side], 1)


def pixels(box: list[float]) -> set[tuple[int, int]]:
    x1, y1, x2, y2 = map(int, box)
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


def counted_iou(a: list[float], b: list[float]) -> Fraction:
    return Fraction(len(pixels(a) & pixels(b)), len(pixels(a) | pixels(b)))


def test_iou_counts_pixels() -> None:
    a, b = whole_boxes(40, 0), whole_boxes(30, 1)
    expected = [[float(counted_iou(p, q)) for q in b.tolist()] for p in a.tolist()]
    assert iou(a, b).tolist() == expected
    assert area(a).tolist() == [len(pixels(box)) for box in a.tolist()]


def test_iou_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 3, 3]])
    others = torch.tensor([[0.0, 0, 3, 3], [3, 0, 6, 3], [4, 0, 7, 3], [0, 0, 0, 0], [9, 9, 9, 9]])
    assert iou(boxes, others)[0].tolist() == pytest.approx([1, 4 / (16 + 16 - 4), 0, 1 / 16, 0])


def test_iou_of_nothing() -> None:
    assert iou(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert iou(torch.zeros(3, 4), torch.zeros(0, 4)).shape == (3, 0)


def test_encode_by_hand() -> None:
    box, truth = torch.tensor([[0.0, 0, 9, 19]]), torch.tensor([[5.0, 0, 24, 9]])
    deltas = encode(box, truth, (0.1, 0.1, 0.2, 0.2))[0].tolist()
    # Centres (4.5, 9.5) and (14.5, 4.5), sizes (10, 20) and (20, 10).
    assert deltas == pytest.approx([1 / 0.1, -5 / 20 / 0.1, math.log(2) / 0.2, -math.log(2) / 0.2], rel=1e-6)


@pytest.mark.parametrize("std", [RPN_STD, ROI_STD])
@pytest.mark.parametrize("clamp_below", [True, False])
def test_decode_undoes_encode(std: tuple[float, ...], clamp_below: bool) -> None:
    boxes, truth = any_boxes(50, 2), any_boxes(50, 3)
    truth[:, 2:] = torch.maximum(truth[:, 2:], truth[:, :2] + 4)  # no change of size beyond the limit
    decoded = decode(boxes, encode(boxes, truth, std)[:, None], std, (200, 300), clamp_below)
    assert torch.allclose(decoded[:, 0], truth, rtol=0, atol=1e-9)


def test_decode_clips_to_the_last_pixel() -> None:
    box = torch.tensor([[10.0, 10, 19, 19]])
    deltas = torch.tensor([[[-9.0, -9, 2, 2], [9, 9, 2, 2], [0, 0, 0, 0]]])
    assert decode(box, deltas, RPN_STD, (30, 40))[0].tolist() == [
        [0, 0, 0, 0],
        [39, 29, 39, 29],
        [10, 10, 19, 19],
    ]


def test_decode_limits_growth_always_and_shrinkage_where_told() -> None:
    box = torch.tensor([[0.0, 0, 999, 999]], dtype=torch.float64)

    def width(delta: float, clamp_below: bool) -> float:
        deltas = torch.tensor([[[0.0, 0, delta, 0]]], dtype=torch.float64)
        x1, _, x2, _ = decode(box, deltas, RPN_STD, (10**6, 10**6), clamp_below)[0, 0].tolist()
        return x2 - x1 + 1

    assert width(-9, True) == pytest.approx(1000 / (1000 / 16))
    assert width(-9, False) == pytest.approx(1000 * math.exp(-9))
    for clamp_below in (
        True,
        False,
    ):  # the left half is clipped at 0, what is left goes from 0 to 499.5 + half
        assert width(9, clamp_below) == pytest.approx(500 + 1000 * math.exp(MAX_LOG_RATIO) / 2)


def loop_nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i].item()):
        if all(counted_iou(boxes[i].tolist(), boxes[k].tolist()) <= Fraction(str(threshold)) for k in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_equals_loops(threshold: float) -> None:
    for seed in range(5):
        boxes = whole_boxes(60, seed, limit=9)
        scores = torch.rand(60, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert nms(boxes, scores, threshold).tolist() == loop_nms(boxes, scores, threshold)


def test_nms_is_inclusive_and_strict() -> None:
    scores = torch.tensor([0.9, 0.8])
    beside = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]])  # 2 shared pixels of 6; 0 with exclusive ends
    assert nms(beside, scores, 0.3).tolist() == [0]
    assert nms(beside, scores, 0.4).tolist() == [0, 1]
    half = torch.tensor([[0.0, 0, 3, 3], [0, 0, 3, 1]])  # exactly 0.5
    assert nms(half, scores, 0.5).tolist() == [0, 1]
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def loop_assign(boxes: Tensor, truth: Tensor, positive: str, negative: str, floor: str) -> list[int]:
    overlap = [[counted_iou(g, b) for b in boxes.tolist()] for g in truth.tolist()]
    result = []
    for n in range(len(boxes)):
        column = [row[n] for row in overlap]
        best = max(column)
        if best >= Fraction(positive):
            result.append(column.index(best))
        else:
            result.append(-1 if best < Fraction(negative) else -2)
    for g, row in enumerate(overlap):
        if max(row) >= Fraction(floor):
            for n, value in enumerate(row):
                if value == max(row):
                    result[n] = g
    return result


@pytest.mark.parametrize("limits", [("0.7", "0.3", "0.3"), ("0.5", "0.5", "0.5")])
def test_assign_equals_loops(limits: tuple[str, str, str]) -> None:
    for seed in range(8):
        boxes, truth = whole_boxes(80, seed, limit=8), whole_boxes(6, seed + 100, limit=8)
        assert assign(boxes, truth, *map(float, limits)).tolist() == loop_assign(boxes, truth, *limits)


def test_assign_later_truth_takes_a_shared_best_box() -> None:
    boxes = torch.tensor([[0.0, 0, 9, 9]])
    truth = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 4]])  # IoU 1 and 0.5
    assert assign(boxes, truth, 0.7, 0.3, 0.3).tolist() == [1]
    assert assign(boxes, truth.flip(0), 0.7, 0.3, 0.3).tolist() == [1]


def test_assign_low_quality_takes_all_ties_but_nothing_below_the_floor() -> None:
    truth = torch.tensor([[0.0, 0, 9, 9]])
    ties = torch.tensor([[0.0, 0, 9, 3], [0, 6, 9, 9], [0, 0, 9, 2.5], [50, 50, 59, 59]])  # 0.4, 0.4, 0.35, 0
    assert assign(ties, truth, 0.7, 0.3, 0.3).tolist() == [0, 0, -2, -1]
    exact = torch.tensor([[0.0, 0, 9, 2]])  # 0.3 is enough
    assert assign(exact, truth, 0.7, 0.3, 0.3).tolist() == [0]
    low = torch.tensor([[0.0, 0, 9, 1.9]])  # 0.29
    assert assign(low, truth, 0.7, 0.3, 0.3).tolist() == [-1]
    assert assign(low, truth, 0.7, 0.2, 0.3).tolist() == [-2]


def test_assign_nothing() -> None:
    assert assign(torch.zeros(3, 4), torch.zeros(0, 4), 0.7, 0.3, 0.3).tolist() == [-1, -1, -1]
    assert assign(torch.zeros(0, 4), torch.zeros(2, 4), 0.7, 0.3, 0.3).tolist() == []


def first(candidates: Tensor, number: int) -> Tensor:
    return candidates[:number]


def test_sample_by_hand() -> None:
    assigned = torch.tensor([-1, 2, -2, 0, -1, 1, -1, 0])
    chosen = sample(assigned, 4, 0.5, first)
    assert [c.tolist() for c in chosen] == [[1, 3], [0, 4], [2, 0]]
    few = sample(assigned, 100, 0.5, first)
    assert [c.tolist() for c in few] == [[1, 3, 5, 7], [0, 4, 6], [2, 0, 1, 0]]


def test_sample_fills_up_with_negatives() -> None:
    assigned = torch.tensor([3, -1, -1, -1, -1, -2])
    chosen = sample(assigned, 4, 0.25, first)
    assert (len(chosen.positive), len(chosen.negative)) == (1, 3)
    chosen = sample(torch.full((10,), -1), 4, 0.5, first)
    assert (len(chosen.positive), len(chosen.negative), len(chosen.truth)) == (0, 4, 0)


def test_random_choice() -> None:
    candidates = torch.arange(100) * 3
    draw = random_choice(torch.Generator().manual_seed(7))(candidates, 30)
    assert draw.tolist() == sorted(set(draw.tolist())), "ascending, none twice"
    assert len(draw) == 30
    assert set(draw.tolist()) <= set(candidates.tolist())
    assert torch.equal(draw, random_choice(torch.Generator().manual_seed(7))(candidates, 30))
    counts = torch.zeros(10)
    choose = random_choice(torch.Generator().manual_seed(0))
    for _ in range(2000):
        counts[choose(torch.arange(10), 3)] += 1
    assert (counts - 600).abs().max() < 100, "uniform: 600 each, 5 standard deviations are about 100"


def test_covered_counts_pixels() -> None:
    boxes = whole_boxes(30, 3)
    mask = torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    expected = [sum(bool(mask[y, x]) for x, y in pixels(box)) / len(pixels(box)) for box in boxes.tolist()]
    assert covered(boxes, mask).tolist() == pytest.approx(expected)


def test_covered_at_the_border_and_outside() -> None:
    """Only pixels inside the map count; a box without any is not covered."""
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[:, :2] = True
    boxes = torch.tensor([[-3.0, -3, 3, 9], [4, 0, 9, 3], [7, 0, 9, 3], [0.4, 0.4, 1.4, 3.4]])
    assert covered(boxes, mask).tolist() == [0.5, 0, 0, 1]


def test_only_untrusted_negatives_are_spared() -> None:
    untrusted = torch.zeros(10, 20, dtype=torch.bool)
    untrusted[:, 10:] = True
    boxes = torch.tensor([[0.0, 0, 9, 9], [12, 0, 19, 9], [8, 0, 11, 9], [7, 0, 14, 9], [12, 0, 19, 9]])
    assigned = torch.tensor([-1, -1, -1, -1, 2])
    # Shares 0, 1, 1/2, 5/8, and a positive, which stays.
    assert spare_untrusted(assigned, boxes, untrusted, 0.5).tolist() == [-1, -2, -1, -2, 2]
    assert spare_untrusted(assigned, boxes, untrusted, 1.0).tolist() == assigned.tolist()
    assert spare_untrusted(assigned, boxes, None, 0.0).tolist() == assigned.tolist()
    assert assigned.tolist() == [-1, -1, -1, -1, 2], "the argument itself stays"
