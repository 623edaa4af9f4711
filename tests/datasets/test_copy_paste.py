"""Copy and paste: masks, ids, occlusion and motion in both frames, by hand; pairs with and without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from panoptube.config import DataConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.copy_paste import Window, paste
from panoptube.data.pairs import draw_pair, frame_targets
from panoptube.panoptic.frame import VOID, PanopticFrame

ROAD, PERSON, CAR = (CITYSCAPES.index(name) for name in ("road", "person", "car"))
H, W = 32, 48


class Draws:
    """Stands for a generator: all candidates are taken, or none."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self, size: int) -> np.ndarray:
        return np.full(size, self.value)


ALL, NONE = Draws(0.0), Draws(0.9)


def frame(*things: tuple[int, int, int, int, int, int]) -> PanopticFrame:
    """Road, and things as (class, id, top, left, height, width)."""
    semantic, instance = np.full((H, W), ROAD, np.uint8), np.zeros((H, W), np.int32)
    for label, track, top, left, height, width in things:
        semantic[top : top + height, left : left + width] = label
        instance[top : top + height, left : left + width] = track
    return PanopticFrame(semantic, instance)


def window(first: PanopticFrame, second: PanopticFrame, color: int, flow: float) -> Window:
    """A window in one colour with one flow, both ways."""
    picture = np.full((H, W, 3), color, np.uint8)
    flows = tuple(np.full((2, H, W), sign * flow, np.float32) for sign in (1, -1))
    return Window((picture, picture.copy()), (first, second), flows)


# The donor's car 5 moves by 4 to the right; its crowd stays at home.
DONOR = window(
    frame((CAR, 5, 10, 10, 8, 12), (PERSON, 0, 0, 0, 4, 4)), frame((CAR, 5, 10, 14, 8, 12)), 200, 4.0
)
SCENE = window(frame((PERSON, 5, 4, 16, 20, 4)), frame((PERSON, 5, 4, 16, 20, 4)), 50, 0.5)


def test_a_pasted_thing_is_in_both_frames_with_mask_box_id_and_motion() -> None:
    found = paste(SCENE, DONOR, CITYSCAPES, ALL)  # type: ignore[arg-type]
    for crop, truth, left in zip(found.crops, found.truths, (10, 14)):
        targets = frame_targets(truth, CITYSCAPES)
        # By class: the person, whose id stays, and the car under a new one.
        assert targets.track_ids.tolist() == [5, 6]
        assert targets.boxes.tolist() == [[16, 4, 19, 23], [left, 10, left + 11, 17]]
        assert targets.masks.sum((1, 2)).tolist() == [20 * 4 - 8 * 4, 8 * 12], "the car hides the person"
        car = np.zeros((H, W), bool)
        car[10:18, left : left + 12] = True
        assert (targets.masks[1].numpy() == car).all()
        assert (crop[car] == 200).all()
        assert (crop[~car] == 50).all()
        assert ((truth.semantic == PERSON) == (targets.masks[0].numpy() == 1)).all(), "no crowd came along"
    there, back = found.flows
    assert (there[:, 10:18, 10:22] == 4).all()
    assert (back[:, 10:18, 14:26] == -4).all()
    for flow, rest in ((there, 0.5), (back, -0.5)):
        assert (flow == rest).sum() == 2 * (H * W - 8 * 12)


def test_what_is_nearly_hidden_becomes_void() -> None:
    """Of person 1 a column is left, less than a tenth of it; in the other frame a row, which is more."""
    first = frame((PERSON, 1, 10, 9, 8, 13), (PERSON, 2, 10, 30, 8, 13))
    second = frame((PERSON, 1, 10, 14, 9, 12), (PERSON, 2, 10, 30, 8, 13))
    found = paste(window(first, second, 50, 0), DONOR, CITYSCAPES, ALL)  # type: ignore[arg-type]
    # First frame: 8 of 104 pixels remain. Second frame: 12 of 108.
    assert frame_targets(found.truths[0], CITYSCAPES).track_ids.tolist() == [2, 3]
    assert (found.truths[0].semantic[10:18, 9] == VOID).all()
    assert (found.truths[0].semantic == VOID).sum() == 8
    assert frame_targets(found.truths[1], CITYSCAPES).track_ids.tolist() == [1, 2, 3]
    assert not (found.truths[1].semantic == VOID).any()


def test_nothing_is_pasted_without_things_or_luck_or_of_too_large_ones() -> None:
    large = window(frame((CAR, 1, 0, 0, 20, 20)), frame(), 200, 1.0)  # more than a quarter of the window
    empty = window(frame((PERSON, 0, 0, 0, 9, 9)), frame(), 200, 1.0)
    assert paste(SCENE, DONOR, CITYSCAPES, NONE) is SCENE  # type: ignore[arg-type]
    for donor in (large, empty):
        assert paste(SCENE, donor, CITYSCAPES, ALL) is SCENE  # type: ignore[arg-type]


def test_the_window_stays_as_it_was() -> None:
    before = [SCENE.crops[0].copy(), SCENE.truths[0].semantic.copy(), SCENE.flows[0].copy()]
    paste(SCENE, DONOR, CITYSCAPES, ALL)  # type: ignore[arg-type]
    after = [SCENE.crops[0], SCENE.truths[0].semantic, SCENE.flows[0]]
    assert all(np.array_equal(a, b) for a, b in zip(before, after))


def test_padding_stays_empty() -> None:
    """The window's frame has 14 rows, so the car loses its lower half."""
    scene = window(frame(), frame(), 50, 0)
    for truth in scene.truths:
        truth.semantic[14:] = VOID
    crops = (scene.crops[0][:14], scene.crops[1][:14])
    found = paste(replace(scene, crops=crops), DONOR, CITYSCAPES, ALL)  # type: ignore[arg-type]
    for crop, truth, left in zip(found.crops, found.truths, (10, 14)):
        assert crop.shape == (14, W, 3)
        assert (truth.semantic[14:] == VOID).all()
        assert not truth.instance[14:].any()
        assert frame_targets(truth, CITYSCAPES).boxes.tolist() == [[left, 10, left + 11, 13]]


def clip(truth: PanopticFrame, color: int) -> Clip:
    picture = np.full((H, W, 3), color, np.uint8)
    return Clip(
        "still", CITYSCAPES, (H, W), 10.0, 2, (0, 1), lambda t: picture, lambda t: truth,
        lambda t, u: np.full((H, W, 2), color / 100, np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_with_a_donor(seed: int) -> None:
    """The donor has a crop, and so a flip, of its own; its motion turns round with it."""
    config = DataConfig(size=(32, 64), scale=(1, 1))
    scene, donor = clip(frame((PERSON, 7, 24, 2, 6, 4)), 50), clip(frame((CAR, 7, 2, 4, 8, 12)), 200)
    plain = draw_pair(scene, 0, 1, np.random.default_rng(seed), config, 1)
    found = draw_pair(scene, 0, 1, np.random.default_rng(seed), config, 1, (donor, 0, 1))
    assert found.flow is not None
    assert plain.flow is not None
    a, b = found.targets[0]
    assert torch.equal(a.masks, b.masks)
    assert torch.equal(a.boxes[:1], plain.targets[0][0].boxes), "what was there stays in its place"
    ids = a.track_ids.tolist()
    assert ids in ([7], [7, 8])
    if len(ids) == 2:
        car = a.masks[1].bool()
        assert car.sum() == 8 * 12
        flipped = bool(a.boxes[1, 0] != 4)
        assert (found.flow[0, 0][car] == (-2 if flipped else 2)).all()
        assert (found.flow[0, 1][car] == 2).all()
        plain.flow[0][:, car] = found.flow[0][:, car]
    assert torch.equal(found.flow, plain.flow)
