"""Panoptic head: windows, logits, pruning and targets by hand and against loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from panoptube.network.panoptic import (
    OUTSIDE,
    instance_logits,
    panoptic_logits,
    panoptic_target,
    paste,
    prune,
)

SIZE = (8, 12)


def window(map_: Tensor, outside: float) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2, inclusive, of what isn't `outside`, after checking that it is a full rectangle."""
    ys, xs = torch.nonzero(map_ != outside, as_tuple=True)
    box = (int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max()))
    assert len(xs) == (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
    return box


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2.0, 1, 5, 3), (2, 1, 5, 3)),
        ((2.9, 1.9, 5.9, 3.9), (2, 1, 5, 3)),  # cut, not rounded
        ((4.0, 4, 4, 4), (4, 4, 4, 4)),
        ((9.0, 5, 20, 30), (9, 5, 11, 7)),  # leaves the map
        ((5.0, 5, 3, 2), (5, 5, 5, 5)),  # inside out: one pixel
        ((0.0, 0, 11, 7), (0, 0, 11, 7)),
    ],
)
def test_paste_windows(box: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert window(paste(torch.full((28, 28), 3.0), box, SIZE, -7.0), -7.0) == expected


def test_paste_equals_loops() -> None:
    g = torch.Generator().manual_seed(0)
    mask = torch.randn(28, 28, generator=g, dtype=torch.float64)
    for box in ((3, 4, 52, 30), (0, 0, 9, 4), (10, 2, 37, 29)):
        x1, y1, x2, y2 = box
        width, height = x2 - x1 + 1, y2 - y1 + 1
        found = paste(mask, box, (40, 60), 0.0)
        for y in range(0, height, 3):
            for x in range(0, width, 4):
                sy = min(max((y + 0.5) * 28 / height - 0.5, 0), 27)
                sx = min(max((x + 0.5) * 28 / width - 0.5, 0), 27)
                i, j = min(int(sy), 26), min(int(sx), 26)
                fy, fx = sy - i, sx - j
                expected = (
                    mask[i, j] * (1 - fy) * (1 - fx)
                    + mask[i, j + 1] * (1 - fy) * fx
                    + mask[i + 1, j] * fy * (1 - fx)
                    + mask[i + 1, j + 1] * fy * fx
                )
                assert float(found[y1 + y, x1 + x]) == pytest.approx(float(expected), abs=1e-12)


def semantic_map() -> Tensor:
    """(5, 8, 12): three stuff classes and two things; channel c is 100 c + its column."""
    return (100.0 * torch.arange(5))[:, None, None] + torch.arange(12.0).expand(5, *SIZE)


def test_instance_logits_by_hand() -> None:
    masks = [torch.full((28, 28), 0.5), torch.full((28, 28), -2.0)]
    boxes = torch.tensor([[2.0, 1, 5.6, 3], [9, 5, 20, 30]])
    found = instance_logits(semantic_map(), masks, boxes, torch.tensor([2, 1]), 3, legacy=False)
    expected = torch.full((2, *SIZE), OUTSIDE)
    expected[0, 1:4, 2:6] = 400.5 + torch.arange(2.0, 6)
    expected[1, 5:, 9:] = 298 + torch.arange(9.0, 12)
    assert torch.equal(found, expected)


def test_legacy_instance_logits_are_0_outside_and_round_the_semantic_box() -> None:
    mask = [torch.full((28, 28), 0.5)]
    found = instance_logits(
        semantic_map(), mask, torch.tensor([[2.9, 1, 5.6, 3.5]]), torch.tensor([2]), 3, legacy=True
    )
    expected = torch.zeros(1, *SIZE)
    expected[0, 1:5, 2:7] = 400 + torch.arange(2.0, 7)  # to round(5.6) = 6 and round(3.5) = 4
    expected[0, 1:4, 2:6] += 0.5  # to int(5.6) = 5
    assert torch.equal(found, expected)


def test_legacy_rounds_halves_to_even() -> None:
    box = torch.tensor([[0.0, 0, 2.5, 3.5]])
    found = instance_logits(semantic_map(), [torch.zeros(28, 28)], box, torch.tensor([1]), 3, legacy=True)
    assert window(found[0], 0.0) == (0, 0, 2, 4)


def test_legacy_dummy_has_a_zero_channel() -> None:
    found = instance_logits(
        semantic_map(), [torch.ones(28, 28)], torch.zeros(1, 4), torch.tensor([0]), 3, legacy=True
    )
    assert torch.equal(found, torch.zeros(1, *SIZE))


def test_panoptic_logits_are_stuff_then_instances() -> None:
    semantic = semantic_map()
    boxes, labels = torch.tensor([[2.0, 1, 5, 3]]), torch.tensor([1])
    found = panoptic_logits(semantic, torch.zeros(1, 28, 28), boxes, labels, 3, legacy=False)
    assert found.shape == (4, *SIZE)
    assert torch.equal(found[:3], semantic[:3])
    assert float(found[3, 2, 4]) == 304
    none = panoptic_logits(semantic, torch.zeros(0, 28, 28), boxes[:0], labels[:0], 3, legacy=False)
    assert torch.equal(none, semantic[:3])


def test_instance_wins_only_inside_its_box() -> None:
    semantic = torch.full((5, *SIZE), -50.0)
    args = (torch.full((1, 28, 28), 60.0), torch.tensor([[2.0, 1, 5, 3]]), torch.tensor([1]), 3)
    clean = panoptic_logits(semantic, *args, legacy=False).argmax(0)
    assert window(clean, 0) == (2, 1, 5, 3)
    published = panoptic_logits(semantic, *args, legacy=True).argmax(0)
    assert (published == 3).all(), "0 outside beats negative logits everywhere"


def test_gradients_reach_semantics_and_masks() -> None:
    semantic = torch.zeros(5, *SIZE, requires_grad=True)
    masks = torch.zeros(1, 28, 28, requires_grad=True)
    found = panoptic_logits(semantic, masks, torch.tensor([[2.0, 1, 5, 3]]), torch.tensor([2]), 3, False)
    found[3, 2, 4].backward()
    assert semantic.grad is not None
    assert torch.nonzero(semantic.grad).tolist() == [[4, 2, 4]]
    assert masks.grad is not None
    assert float(masks.grad.sum()) == pytest.approx(1)


def full_masks(number: int) -> Tensor:
    return torch.ones(number, 28, 28)


def kept(
    boxes: list[list[float]], labels: list[int], scores: list[float], masks: Tensor | None = None
) -> list[int]:
    masks = full_masks(len(boxes)) if masks is None else masks
    found, empty = prune(
        masks, torch.tensor(boxes), torch.tensor(labels), torch.tensor(scores), (20, 40), False
    )
    assert not empty
    return found.tolist()


def test_prune_drops_what_better_ones_cover_by_more_than_three_tenths() -> None:
    a = [0.0, 0, 9, 9]
    assert kept([a, [7.0, 0, 16, 9]], [1, 1], [0.9, 0.8]) == [0, 1]  # 30 of 100
    assert kept([a, [6.0, 0, 15, 9]], [1, 1], [0.9, 0.8]) == [0]  # 40 of 100
    assert kept([a, [6.0, 0, 15, 9]], [1, 2], [0.9, 0.8]) == [0, 1]  # another class
    assert kept([[2.0, 2, 5, 5], a], [1, 1], [0.9, 0.8]) == [0, 1]  # 16 of its own 100 pixels


def test_prune_goes_by_score_and_counts_all_better_ones_together() -> None:
    boxes = [[6.0, 0, 15, 9], [0.0, 0, 9, 9], [20, 0, 29, 9]]
    assert kept(boxes, [1, 1, 1], [0.7, 0.9, 0.8]) == [1, 2]
    # The last is covered 20 + 20 of 100 by two that are kept.
    assert kept([[0.0, 0, 9, 9], [16, 0, 25, 9], [8, 0, 17, 9]], [1, 1, 1], [0.9, 0.8, 0.7]) == [0, 1]
    # A dropped one claims nothing: the last overlaps only it.
    assert kept([[0.0, 0, 9, 9], [4, 0, 13, 9], [10, 0, 19, 9]], [1, 1, 1], [0.9, 0.8, 0.7]) == [0, 2]


def test_prune_ties_keep_their_order() -> None:
    assert kept([[0.0, 0, 9, 9], [20, 0, 29, 9], [0, 0, 9, 8]], [1, 1, 1], [0.8, 0.8, 0.8]) == [0, 1]


def test_prune_looks_at_masks_not_boxes() -> None:
    masks = full_masks(2)
    masks[1, :, :14] = -1  # right half only: columns 11..15 of 6..15
    assert kept([[0.0, 0, 9, 9], [6, 0, 15, 9]], [1, 1], [0.9, 0.8], masks) == [0, 1]
    masks = full_masks(3)
    masks[1, :, :14] = -1  # columns 10..19 of 0..19: what the first has claimed beside it stays claimed
    boxes = [[0.0, 0, 9, 9], [0, 0, 19, 9], [0, 0, 9, 9]]
    assert kept(boxes, [1, 1, 1], [0.9, 0.8, 0.7], masks) == [0, 1]
    masks = full_masks(2)
    masks[1] = 0  # logit 0 is not foreground
    assert kept([[0.0, 0, 9, 9], [20, 0, 29, 9]], [1, 1], [0.9, 0.8], masks) == [0]


def test_prune_everything() -> None:
    args = (torch.zeros(2, 28, 28), torch.tensor([[0.0, 0, 9, 9]]).repeat(2, 1), torch.tensor([1, 2]))
    scores = torch.tensor([0.9, 0.8])
    found, empty = prune(*args, scores, (20, 40), legacy=False)
    assert (found.tolist(), empty) == ([], False)
    found, empty = prune(*args, scores, (20, 40), legacy=True)
    assert (found.tolist(), empty) == ([0], True)


def test_prune_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    for legacy in (False, True):
        found, empty = prune(
            torch.zeros(0, 28, 28), torch.zeros(0, 4), none, torch.zeros(0), (20, 40), legacy
        )
        assert (found.tolist(), empty) == ([], False)


def enlarge(picture: list[str], values: dict[str, int]) -> Tensor:
    """One character for 4 x 4 pixels; the other fifteen pixels hold 1, a stuff class, to be skipped."""
    small = torch.tensor([[values[c] for c in line] for line in picture])
    large = torch.ones(4 * small.shape[0], 4 * small.shape[1], dtype=torch.int64)
    large[::4, ::4] = small
    return large


def test_panoptic_target_by_hand() -> None:
    # s, r: stuff 0 and 2; t: thing class 3; v: void.
    semantic = enlarge(["ssrv", "sttv", "rttt"], {"s": 0, "r": 2, "t": 3, "v": 255})
    masks = torch.stack(
        [
            enlarge(["....", ".11.", "...."], {".": 0, "1": 1}),
            enlarge(["....", "..11", "..1."], {".": 0, "1": 1}),
        ]
    ).to(torch.uint8)
    masks[:, 1::2] = 0
    target = panoptic_target(semantic, masks, 3)
    # The later one overwrites where both are, also void; thing pixels of neither are void.
    assert target.tolist() == [[0, 0, 2, 255], [0, 3, 4, 4], [2, 255, 4, 255]]
    assert panoptic_target(semantic, masks.flip(0), 3)[1].tolist() == [0, 4, 4, 3]


def test_panoptic_target_without_things() -> None:
    semantic = enlarge(["stv"], {"s": 0, "t": 4, "v": 255})
    found = panoptic_target(semantic, torch.zeros(0, 4, 12, dtype=torch.uint8), 3)
    assert found.tolist() == [[0, 255, 255]]
