"""overlay.py: what is where keeps its colour, and the image shows through."""

from __future__ import annotations

import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.panoptic.frame import VOID, PanopticFrame
from panoptube.view.overlay import STUFF_OPACITY, THING_OPACITY, overlay, track_color

ROAD, CAR = CITYSCAPES.index("road"), CITYSCAPES.index("car")


def scene(size: tuple[int, int] = (60, 80), track: int = 7, top: int = 20) -> PanopticFrame:
    """Road, void in the lower right, and one car of 20 x 20."""
    semantic = np.full(size, ROAD, np.uint8)
    semantic[-10:, -10:] = VOID
    semantic[top : top + 20, 30:50] = CAR
    return PanopticFrame(semantic, np.where(semantic == CAR, track, 0).astype(np.int32))


def blend(image: np.ndarray, opacity: float, color: tuple[int, int, int]) -> np.ndarray:
    return image * (1 - opacity) + opacity * np.array(color)


def test_each_kind_of_segment_is_blended_at_its_opacity() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    drawn = overlay(image, scene(), CITYSCAPES, names=False)
    assert drawn.dtype == np.uint8
    inside, road, void = (
        (slice(22, 38), slice(32, 48)),
        (slice(2, 18), slice(2, 78)),
        (slice(51, 60), slice(71, 80)),
    )
    for place, expected in (
        (inside, blend(image[inside], THING_OPACITY, track_color(7))),
        (road, blend(image[road], STUFF_OPACITY, CITYSCAPES.categories[ROAD].color)),
        (void, image[void]),
    ):
        assert np.abs(drawn[place] - expected).max() < 3


def test_the_image_given_is_left_alone() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    overlay(image, scene(), CITYSCAPES)
    assert not image.any()


def test_a_track_is_outlined_on_all_sides() -> None:
    drawn = overlay(np.zeros((60, 80, 3), np.uint8), scene(), CITYSCAPES, names=False).astype(int)
    outline = 128 + np.array(track_color(7)) // 2
    for side in (drawn[20, 30:50], drawn[39, 30:50], drawn[20:40, 30], drawn[20:40, 49]):
        assert np.abs(side - outline).max() <= 1


def test_a_track_keeps_its_colour_wherever_it_goes_and_whatever_else_is_there() -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    before = overlay(black, scene(top=20), CITYSCAPES, names=False)[25:35, 35:45]
    moved = scene(top=35)
    moved.semantic[:10, :10], moved.instance[:10, :10] = CAR, 3
    after = overlay(black, moved, CITYSCAPES, names=False)
    np.testing.assert_array_equal(after[40:50, 35:45], before)
    assert np.abs(after[5, 5].astype(int) - before[0, 0]).max() > 30, "another track, another colour"


def test_colours_of_ids_that_meet_are_far_apart() -> None:
    colors = np.array([track_color(i) for i in range(1, 201)], float)
    assert colors.min() >= 0
    assert colors.max() <= 255
    assert len({tuple(c) for c in colors}) > 190
    for step in range(1, 34):
        assert np.linalg.norm(colors[step:] - colors[:-step], axis=1).min() > 35


def test_names_are_written_above_large_tracks_only() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    frame = scene((200, 300), top=100)
    frame.semantic[10:15, 10:15], frame.instance[10:15, 10:15] = CAR, 2
    with_names, without = (overlay(image, frame, CITYSCAPES, names) for names in (True, False))
    rows, columns = np.nonzero((with_names != without).any(2))
    assert rows.min() > 80
    assert rows.max() < 100, "above the car"
    assert columns.min() < 40 < columns.max(), "centred on it"
    box = (
        with_names[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].reshape(-1, 3).astype(int)
    )
    assert (np.abs(box - track_color(7)).max(1) == 0).mean() > 0.5, "on the track's colour"
    assert np.ptp(box @ [0.3, 0.6, 0.1]) > 80, "in letters that stand out"


def test_names_stay_inside_the_image() -> None:
    frame = scene((60, 300), top=0)
    image = np.zeros((60, 300, 3), np.uint8)
    changed = (overlay(image, frame, CITYSCAPES) != overlay(image, frame, CITYSCAPES, names=False)).any(2)
    assert changed[:20].any()


@pytest.mark.parametrize("size", [(1, 1), (5, 200), (200, 5)])
def test_images_that_no_name_fits_into(size: tuple[int, int]) -> None:
    frame = PanopticFrame(np.full(size, CAR, np.uint8), np.ones(size, np.int32))
    drawn = overlay(np.zeros((*size, 3), np.uint8), frame, CITYSCAPES)
    assert np.abs(drawn - THING_OPACITY * np.array(track_color(1))).max() < 3


def test_crowd_is_drawn_as_stuff() -> None:
    frame = PanopticFrame(np.full((40, 40), CAR, np.uint8), np.zeros((40, 40), np.int32))
    drawn = overlay(np.zeros((40, 40, 3), np.uint8), frame, CITYSCAPES)
    assert np.abs(drawn - STUFF_OPACITY * np.array(CITYSCAPES.categories[CAR].color)).max() < 2


def test_sizes_must_agree() -> None:
    with pytest.raises(ValueError, match="agree"):
        overlay(np.zeros((60, 81, 3), np.uint8), scene(), CITYSCAPES)
