"""Each supervised term by hand, at its best, at its worst and with nothing to compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor

from panoptube.config import LossConfig
from panoptube.losses import supervised as losses
from panoptube.network.roi import RoiTargets
from panoptube.network.rpn import RpnTargets
from panoptube.network.vpsnet import FrameTraining


def integers(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def frame() -> FrameTraining:
    """All predictions are 0. 3 classes, 3 + 2 anchors, 4 sampled boxes, 2 of them positive, 2 x 2 pixels."""
    return FrameTraining(
        semantic=torch.zeros(3, 2, 2),
        semantic_target=torch.tensor([[0, 1], [2, 255]]),
        objectness=[torch.zeros(3), torch.zeros(2)],
        deltas=[torch.zeros(3, 4), torch.zeros(2, 4)],
        rpn=RpnTargets(
            integers(1, 4), integers(0), torch.tensor([[1.0, 0, 0, 0], [0, 1 / 18, 0, -2]]), torch.zeros(5, 4)
        ),
        class_logits=torch.zeros(4, 3),
        box_deltas=torch.zeros(4, 3, 4),
        roi=RoiTargets(
            torch.zeros(4, 4),
            integers(2, 1, 0, 0),
            torch.tensor([[0.5, 0, 0, 0], [0, 3, 0, 0]]),
            integers(0, 1),
            torch.cat([torch.ones(1, 28, 28), torch.zeros(1, 28, 28)]).to(torch.uint8),
        ),
        mask_logits=torch.zeros(2, 28, 28),
        match=torch.zeros(2, 5),
        match_target=integers(0, 3),
        panoptic=torch.zeros(6, 2, 2),
        panoptic_target=torch.tensor([[5, 255], [255, 0]]),
    )


def empty() -> FrameTraining:
    """The same without truth: no things, no sampled boxes or anchors, all void."""
    f = frame()
    none, no_boxes = integers(), torch.zeros(0, 4)
    return replace(
        f,
        semantic_target=torch.full((2, 2), 255),
        rpn=RpnTargets(none, none, no_boxes, torch.zeros(5, 4)),
        class_logits=torch.zeros(0, 3),
        box_deltas=torch.zeros(0, 3, 4),
        roi=RoiTargets(no_boxes, none, no_boxes, none, torch.zeros(0, 28, 28, dtype=torch.uint8)),
        mask_logits=torch.zeros(0, 28, 28),
        match=torch.zeros(0, 1),
        match_target=none,
        panoptic=torch.zeros(3, 2, 2),
        panoptic_target=torch.full((2, 2), 255),
    )


def semantic(f: FrameTraining) -> Tensor:
    return losses.pixel_loss(f.semantic, f.semantic_target)


def panoptic(f: FrameTraining) -> Tensor:
    return losses.pixel_loss(f.panoptic, f.panoptic_target)


def objectness(f: FrameTraining) -> Tensor:
    return losses.sum_of(losses.rpn_objectness_loss(f))


def rpn_boxes(f: FrameTraining) -> Tensor:
    return losses.sum_of(losses.rpn_box_loss(f))


def test_pixel_loss_by_hand() -> None:
    assert semantic(frame()).item() == pytest.approx(log(3))
    assert panoptic(frame()).item() == pytest.approx(log(6))
    logits = torch.zeros(2, 1, 3)
    logits[1] = torch.tensor([log(3.0), log(3.0), 50])
    # Probabilities of class 1: 3/4, 3/4; the third pixel is void.
    found = losses.pixel_loss(logits, torch.tensor([[1, 0, 255]]))
    assert found.item() == pytest.approx((log(4 / 3) + log(4)) / 2)


def test_objectness_by_hand_per_level() -> None:
    f = replace(frame(), objectness=[torch.tensor([log(3.0), log(3.0), 9]), torch.tensor([9.0, 0])])
    # 2 positives and 1 negative: anchor 0 says 3/4 and is none, 1 says 3/4 and is one, 4 says 1/2 and is one.
    first, second = losses.rpn_objectness_loss(f)
    assert first.item() == pytest.approx((log(4) + log(4 / 3)) / 3)
    assert second.item() == pytest.approx(log(2) / 3)


def test_rpn_boxes_by_hand_per_level() -> None:
    first, second = losses.rpn_box_loss(frame())
    # Beyond beta = 1/9: d - 1/18; within: d * d / (2/9).
    assert first.item() == pytest.approx((1 - 1 / 18) / 3)
    assert second.item() == pytest.approx(((1 / 18) ** 2 * 9 / 2 + 2 - 1 / 18) / 3)


def test_rpn_counts_at_least_one_of_each() -> None:
    f = frame()
    alone = replace(f, rpn=RpnTargets(integers(), integers(0), torch.zeros(0, 4), f.rpn.anchors))
    assert objectness(alone).item() == pytest.approx(log(2) / (1 + 1))
    alone = replace(f, rpn=RpnTargets(integers(1), integers(), torch.ones(1, 4), f.rpn.anchors))
    assert rpn_boxes(alone).item() == pytest.approx(4 * (1 - 1 / 18) / (1 + 1))


def test_classes_by_hand() -> None:
    assert losses.class_loss(frame()).item() == pytest.approx(log(3))
    logits = torch.zeros(4, 3)
    logits[0, 2] = log(2.0)  # 2/4 for the true class
    found = losses.class_loss(replace(frame(), class_logits=logits))
    assert found.item() == pytest.approx((log(2) + 3 * log(3)) / 4)


def test_boxes_by_hand() -> None:
    # 0.5 * 0.5 ** 2 and 3 - 0.5, over all 4 samples.
    assert losses.box_loss(frame()).item() == pytest.approx((1 / 8 + 5 / 2) / 4)


def test_boxes_look_only_at_the_true_class() -> None:
    deltas = torch.full((4, 3, 4), 77.0)
    deltas[0, 2], deltas[1, 1] = torch.tensor([0.5, 0, 0, 0]), torch.tensor([0.0, 3, 0, 0])
    assert losses.box_loss(replace(frame(), box_deltas=deltas)).item() == 0


def test_masks_by_hand() -> None:
    assert losses.mask_loss(frame()).item() == pytest.approx(log(2))
    logits = torch.full((2, 28, 28), log(3.0))  # 3/4: right for the first, wrong for the second
    found = losses.mask_loss(replace(frame(), mask_logits=logits))
    assert found.item() == pytest.approx((log(4 / 3) + log(4)) / 2)


def test_match_by_hand() -> None:
    assert losses.match_loss(frame()).item() == pytest.approx(log(5))
    match = torch.zeros(2, 5)
    match[1, 3] = log(4.0)  # 4 / 8
    assert losses.match_loss(replace(frame(), match=match)).item() == pytest.approx((log(5) + log(2)) / 2)


def test_match_counts_a_single_positive() -> None:
    """The published code leaves it out by accident (dossier 7.2)."""
    f = replace(frame(), match=torch.zeros(1, 3), match_target=integers(2))
    assert losses.match_loss(f).item() == pytest.approx(log(3))


TERMS: dict[str, Callable[[FrameTraining], Tensor]] = {
    "semantic": semantic,
    "rpn_objectness": objectness,
    "rpn_boxes": rpn_boxes,
    "classes": losses.class_loss,
    "boxes": losses.box_loss,
    "masks": losses.mask_loss,
    "match": losses.match_loss,
    "panoptic": panoptic,
}


def told(right: bool) -> FrameTraining:
    """Predictions that are sure, and right or wrong everywhere."""
    f, sure = frame(), 100.0 if right else -100.0

    def one_hot(target: Tensor, classes: int) -> Tensor:
        return torch.nn.functional.one_hot(target.where(target != 255, 0), classes) * sure

    deltas = torch.zeros(4, 3, 4)
    if right:
        deltas[0, 2], deltas[1, 1] = f.roi.deltas
    return replace(
        f,
        semantic=one_hot(f.semantic_target, 3).permute(2, 0, 1),
        objectness=[torch.tensor([-sure, sure, 0]), torch.tensor([0, sure])],
        deltas=[
            torch.zeros(3, 4).index_put((integers(1),), f.rpn.deltas[0]),
            torch.stack([torch.zeros(4), f.rpn.deltas[1]]),
        ]
        if right
        else f.deltas,
        class_logits=one_hot(f.roi.labels, 3),
        box_deltas=deltas,
        mask_logits=(f.roi.masks.float() * 2 - 1) * sure,
        match=one_hot(f.match_target, 5),
        panoptic=one_hot(f.panoptic_target, 6).permute(2, 0, 1),
    )


@pytest.mark.parametrize("name", TERMS)
def test_best(name: str) -> None:
    assert TERMS[name](told(right=True)).item() < 1e-40


@pytest.mark.parametrize("name", sorted(set(TERMS) - {"boxes", "rpn_boxes"}))
def test_worst(name: str) -> None:
    found = TERMS[name](told(right=False)).item()
    expected = {  # mean of 100 and a little for what the other classes share
        "semantic": 100 + log(2),
        "rpn_objectness": 100,
        "classes": 100 + log(2),
        "masks": 100,
        "match": 100 + log(4),
        "panoptic": 100 + log(5),
    }
    assert found == pytest.approx(expected[name])


def watched(f: FrameTraining) -> tuple[FrameTraining, dict[str, Tensor]]:
    """The frame with predictions that record a gradient."""
    leaves = {}
    for name in ("semantic", "class_logits", "box_deltas", "mask_logits", "match", "panoptic"):
        leaves[name] = getattr(f, name).clone().requires_grad_()
    scores = [level.clone().requires_grad_() for level in f.objectness]
    deltas = [level.clone().requires_grad_() for level in f.deltas]
    changed = replace(f, objectness=scores, deltas=deltas, **leaves)
    for i, (a, b) in enumerate(zip(scores, deltas)):
        leaves[f"objectness {i}"], leaves[f"deltas {i}"] = a, b
    return changed, leaves


@pytest.mark.parametrize("name", TERMS)
def test_nothing_to_compare_is_zero_with_a_gradient(name: str) -> None:
    f, leaves = watched(empty())
    term = TERMS[name](f)
    assert term.item() == 0
    term.backward()
    got = {key for key, leaf in leaves.items() if leaf.grad is not None}
    own = {
        "rpn_objectness": {"objectness 0", "objectness 1"},
        "rpn_boxes": {"deltas 0", "deltas 1"},
        "classes": {"class_logits"},
        "boxes": {"box_deltas"},
        "masks": {"mask_logits"},
    }
    assert got == own.get(name, {name})
    assert all((leaves[key].grad == 0).all() for key in got)


def test_all_terms_are_weighted_means_over_the_frames() -> None:
    weights = LossConfig(
        semantic=2, rpn_objectness=3, rpn_boxes=4, classes=5, boxes=6, masks=7, match=8, panoptic=9
    )
    f, g = frame(), told(right=False)
    found = losses.supervised([f, g], weights)
    assert list(found) == list(TERMS) == list(LossConfig.model_fields)[: len(TERMS)]
    for name, term in TERMS.items():
        expected = getattr(weights, name) * (term(f).item() + term(g).item()) / 2
        assert found[name].item() == pytest.approx(expected), name


def test_published_weights() -> None:
    weights = LossConfig()
    assert (weights.match, weights.panoptic) == (0.5, 0.5)
    assert all(getattr(weights, name) == 1 for name in set(TERMS) - {"match", "panoptic"})


def test_whole_empty_step_has_every_gradient() -> None:
    f, leaves = watched(empty())
    sum(losses.supervised([f], LossConfig()).values()).backward()
    assert [name for name, leaf in leaves.items() if leaf.grad is None] == []
