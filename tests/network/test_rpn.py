"""Anchors, what they should say, and proposals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from panoptube.network.boxes import RPN_STD, decode, nms
from panoptube.network.rpn import RegionProposals, RpnOutput, anchors, level_anchors, propose, rpn_targets

TABLE = {  # dossier 3.2
    4: ((-21, -9, 24, 12), (-14, -14, 17, 17), (-9, -21, 12, 24)),
    8: ((-41, -19, 48, 26), (-28, -28, 35, 35), (-19, -41, 26, 48)),
    16: ((-83, -37, 98, 52), (-56, -56, 71, 71), (-37, -83, 52, 98)),
    32: ((-165, -75, 196, 106), (-112, -112, 143, 143), (-75, -165, 106, 196)),
    64: ((-330, -149, 393, 212), (-224, -224, 287, 287), (-149, -330, 212, 393)),
}


def output(size: tuple[int, int], seed: int = 0, levels: tuple[int, ...] = (4, 8, 16, 32, 64)) -> RpnOutput:
    """Random outputs for one image of `size`."""
    g = torch.Generator().manual_seed(seed)
    shapes = [(-(-size[0] // s), -(-size[1] // s)) for s in levels]
    return RpnOutput(
        [torch.randn(1, 3, *shape, generator=g) for shape in shapes],
        [torch.randn(1, 12, *shape, generator=g) * 0.3 for shape in shapes],
    )


def first(candidates: Tensor, number: int) -> Tensor:
    return candidates[:number]


@pytest.mark.parametrize("stride", TABLE)
def test_anchors_are_the_table(stride: int) -> None:
    expected = [
        [x1 + j * stride, y1 + i * stride, x2 + j * stride, y2 + i * stride]
        for i in range(2)
        for j in range(3)
        for x1, y1, x2, y2 in TABLE[stride]
    ]
    assert level_anchors(2, 3, stride).tolist() == expected


def test_flat_follows_the_anchors() -> None:
    height, width = 2, 3
    objectness = torch.zeros(2, 3, height, width)
    deltas = torch.zeros(2, 12, height, width)
    for i in range(height):
        for j in range(width):
            for a in range(3):
                objectness[1, a, i, j] = 100 * i + 10 * j + a
                for k in range(4):
                    deltas[1, 4 * a + k, i, j] = 1000 * i + 100 * j + 10 * a + k
    scores, offsets = RpnOutput([objectness], [deltas]).flat(1)
    order = [(i, j, a) for i in range(height) for j in range(width) for a in range(3)]
    assert scores[0].tolist() == [100 * i + 10 * j + a for i, j, a in order]
    assert offsets[0].tolist() == [[1000 * i + 100 * j + 10 * a + k for k in range(4)] for i, j, a in order]


def test_head_is_shared_by_the_levels() -> None:
    torch.manual_seed(0)
    head = RegionProposals(8)
    level = torch.randn(2, 8, 4, 6)
    found = head([level, level, level[:, :, :2, :3]])
    assert torch.equal(found.objectness[0], found.objectness[1])
    assert torch.equal(found.deltas[0], found.deltas[1])
    assert [tuple(o.shape) for o in found.objectness] == [(2, 3, 4, 6), (2, 3, 4, 6), (2, 3, 2, 3)]
    assert tuple(found.deltas[2].shape) == (2, 12, 2, 3)
    assert len(list(head.parameters())) == 6
    head.conv.bias.data.fill_(-1e6)  # ReLU in between: nothing of the input gets through
    assert (head([level]).objectness[0] == 0).all()


def test_proposals_equal_the_steps_one_by_one() -> None:
    size, number = (64, 128), 40
    out = output(size, seed=3)
    expected: list[list[float]] = []
    for objectness, deltas, boxes in zip(*out.flat(0), anchors(out)):
        scores = objectness.sigmoid()
        best = sorted(range(len(scores)), key=lambda i: -scores[i].item())[:number]
        level = [
            [
                *decode(boxes[i : i + 1], deltas[i].view(1, 1, 4), RPN_STD, size)[0, 0].tolist(),
                scores[i].item(),
            ]
            for i in best
        ]
        table = torch.tensor(level)
        expected += [level[i] for i in nms(table[:, :4], table[:, 4], 0.7).tolist()[:number]]
    expected.sort(key=lambda row: -row[4])
    proposals = propose(out, 0, size, number)
    assert len(expected) > number, "or the total limit isn't tested"
    assert torch.equal(proposals, torch.tensor(expected[:number]))


def test_proposals_are_inside_the_image_and_fall_in_score() -> None:
    proposals = propose(output((64, 128), seed=5), 0, (60, 100), 1000)
    assert (proposals[:, :2] >= 0).all()
    assert (proposals[:, 2] <= 99).all()
    assert (proposals[:, 3] <= 59).all()
    assert (proposals[:, 4].diff() <= 0).all()


def test_proposals_of_the_right_image() -> None:
    a, b = output((64, 64), 1), output((64, 64), 2)
    both = RpnOutput(
        [torch.cat(pair) for pair in zip(a.objectness, b.objectness)],
        [torch.cat(pair) for pair in zip(a.deltas, b.deltas)],
    )
    assert torch.equal(propose(both, 1, (64, 64), 50), propose(b, 0, (64, 64), 50))


def test_targets_only_inside_the_image() -> None:
    size = (60, 100)
    out = output((64, 128))
    truth = torch.tensor([[16.0, 16, 47, 47]])
    targets = rpn_targets(out, truth, size, 10**6, first)
    inside = [
        i
        for i, (x1, y1, x2, y2) in enumerate(targets.anchors.tolist())
        if x1 >= 0 and y1 >= 0 and x2 < size[1] and y2 < size[0]
    ]
    chosen = targets.positive.tolist() + targets.negative.tolist()
    assert 0 < len(chosen) <= len(inside)
    assert set(chosen) <= set(inside)
    assert len(targets.positive) > 0


def test_targets_by_hand() -> None:
    out = output((64, 128))
    square = level_anchors(16, 32, 4).view(16, 32, 3, 4)[8, 8, 1]  # 18, 18, 49, 49
    assert square.tolist() == [18, 18, 49, 49]
    targets = rpn_targets(out, square[None] + 1, (64, 128), 256, first)
    index = (8 * 32 + 8) * 3 + 1
    at = targets.positive.tolist().index(index)
    assert targets.deltas[at].tolist() == pytest.approx([1 / 32, 1 / 32, 0, 0])
    assert len(targets.positive) + len(targets.negative) == 256


def test_targets_sample_at_most_half_positive() -> None:
    out = output((64, 128))
    square = torch.tensor([[18.0, 18, 49, 49]])
    many = rpn_targets(out, square.repeat(3, 1), (64, 128), 10**6, first)
    assert len(many.positive) > 2
    few = rpn_targets(out, square, (64, 128), 4, first)
    assert (len(few.positive), len(few.negative)) == (2, 2)


def test_targets_without_truth_are_all_negative() -> None:
    targets = rpn_targets(output((64, 128)), torch.zeros(0, 4), (64, 128), 32, first)
    assert (len(targets.positive), len(targets.negative)) == (0, 32)
    assert targets.deltas.shape == (0, 4)


def test_image_smaller_than_every_anchor() -> None:
    targets = rpn_targets(output((32, 32)), torch.tensor([[0.0, 0, 9, 9]]), (20, 20), 32, first)
    assert (len(targets.positive), len(targets.negative)) == (0, 0)


def test_anchors_on_untrusted_pixels_are_no_negatives() -> None:
    out, square = output((64, 128)), torch.tensor([[18.0, 18, 49, 49]])
    untrusted = torch.zeros(64, 128, dtype=torch.bool)
    untrusted[:, 64:] = True
    all_of_them = rpn_targets(out, square, (64, 128), 10**6, first)
    half = rpn_targets(out, square, (64, 128), 10**6, first, untrusted, 0.5)
    boxes = all_of_them.anchors
    # An anchor lies in the right half by more than half of itself if its centre is beyond x = 63.5.
    right = (boxes[:, 0] + boxes[:, 2]) / 2 > 63.5
    assert right[all_of_them.negative].any()
    assert half.negative.tolist() == [i for i in all_of_them.negative.tolist() if not right[i]]
    assert torch.equal(half.positive, all_of_them.positive)
