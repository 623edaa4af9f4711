"""Scenes drawn by hand, where the published tracker loses ids, and random ones against what must hold."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from panoptube.config import NetworkConfig
from panoptube.panoptic.motion import LEAST_OVERLAP, NEW, WEAK_AGE, MotionTracker, best_first
from panoptube.panoptic.tracker import Tracker

RED, BLUE, PLAIN = (3.0, 0.0), (0.0, 3.0), (0.0, 0.0)
Detection = tuple[float, int, tuple[float, float]]
"""Left edge of a box 10 wide and high, class, looks."""


def step(tracker: Tracker, *found: Detection, scores: tuple[float, ...] | None = None) -> list[int]:
    n = len(found)
    return tracker.step(
        torch.tensor([[left, 0, left + 9, 9] for left, _, _ in found]).float().reshape(n, 4),
        torch.tensor([label for _, label, _ in found], dtype=torch.int64),
        torch.full((n,), 0.9) if scores is None else torch.tensor(scores),
        torch.tensor([looks for _, _, looks in found]).reshape(n, 2),
    ).tolist()


def test_of_two_that_want_one_object_the_other_takes_its_own() -> None:
    """The first overlaps its own object by 7 of 13 pixels, the other by 8 of 12; the second by 9 of 11."""
    scenes = [(0.0, 1, PLAIN), (5.0, 1, PLAIN)], [(3.0, 1, PLAIN), (6.0, 1, PLAIN)]
    published, motion = Tracker(), MotionTracker()
    for tracker in (published, motion):
        step(tracker, *scenes[0])
    assert step(published, *scenes[1]) == [2, 1]
    assert step(motion, *scenes[1]) == [0, 1]


def test_an_object_goes_on_as_fast_as_it_was() -> None:
    tracker = MotionTracker()
    assert [step(tracker, (left, 1, PLAIN)) for left in (0, 6, 12)] == [[0]] * 3
    assert torch.equal(tracker.expected(), torch.tensor([[18.0, 0, 27, 9]]))
    assert step(tracker) == []
    assert torch.equal(tracker.expected(), torch.tensor([[24.0, 0, 33, 9]]))
    assert step(tracker, (24, 1, PLAIN)) == [0], "two frames on, 12 pixels from where it was seen last"
    still = MotionTracker()
    for _ in range(3):
        step(still, (12, 1, PLAIN))
    assert step(still, (24, 1, PLAIN)) == [1], "too far for one that stood"


def test_speed_is_that_of_the_centre_half_old_half_new_and_over_gaps() -> None:
    tracker = MotionTracker()
    step(tracker, (0, 1, PLAIN))
    step(tracker, (4, 1, PLAIN))
    assert tracker.speeds.tolist() == [[4, 0]], "the first is taken as it is"
    step(tracker, (12, 1, PLAIN))
    assert tracker.speeds.tolist() == [[6, 0]]
    step(tracker)
    step(tracker, (20, 1, PLAIN))
    assert tracker.speeds.tolist() == [[5, 0]], "8 pixels in two frames"


def test_fit() -> None:
    tracker = MotionTracker()
    step(tracker, (0, 1, RED), (40, 1, BLUE), (0, 2, RED))
    boxes = torch.tensor([[5.0, 0, 14, 9]])
    fit = tracker.fit(boxes, torch.tensor([1]), torch.tensor([RED]))
    # Logits 9, 0 and 9 beside 0 for none; each column has the detection alone, beside 0 for none.
    row, column = log(exp(9) / (2 * exp(9) + 2)), log(exp(9) / (exp(9) + 1))
    assert fit[0].tolist() == pytest.approx([(row + column) / 2 + 4 * 5 / 15, -torch.inf, -torch.inf])


def test_looks_bridge_a_jump_if_they_speak_for_it() -> None:
    """Logits 9 and 4 beside 0 for none: e9 / (e9 + e4 + 1) is nearly 1, and e4 / (e9 + e4 + 1) nearly 0."""
    tracker = MotionTracker()
    step(tracker, (0, 1, RED), (40, 1, (4 / 3, 0.0)))
    assert step(tracker, (80, 1, RED)) == [0]
    tracker = MotionTracker()
    step(tracker, (0, 1, RED), (40, 1, RED))
    assert step(tracker, (80, 1, RED)) == [0], "ln 1/2 for the detection, 0 for each object"
    tracker = MotionTracker()
    step(tracker, (0, 1, PLAIN))
    assert step(tracker, (80, 1, PLAIN)) == [1], "ln 1/2 for both, which isn't more than that"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ((0.0, 2, RED), "another class"),
        ((10.0, 1, BLUE), "elsewhere, with looks of its own"),
        ((6.0, 1, (-3.0, 0.0)), "other looks"),
    ],
)
def test_what_fits_nothing_is_new(found: Detection, why: str) -> None:
    tracker = MotionTracker()
    step(tracker, (0, 1, RED))
    assert step(tracker, found) == [1], why
    assert step(tracker, (0, 1, RED)) == [0]


def test_forgetting_and_clearing() -> None:
    tracker = MotionTracker(max_age=2)
    step(tracker, (0, 1, RED), (40, 1, RED))
    for left in (2, 4, 6):
        step(tracker, (left, 1, RED))
    assert tracker.ids == [0]
    assert tracker.speeds.tolist() == [[2, 0]]
    tracker.clear()
    assert len(tracker) == len(tracker.speeds) == len(tracker.boxes) == 0
    assert step(tracker) == []
    assert step(tracker, (6, 1, RED)) == [2]


def test_weak_detections_continue_what_nothing_better_continues_and_start_nothing() -> None:
    tracker = MotionTracker(threshold=0.5)
    assert step(tracker, (0, 1, RED), (80, 1, BLUE), scores=(0.9, 0.5)) == [0, -1], "0.5 isn't above 0.5"
    assert len(tracker) == 1
    for left in (4, 8):
        assert step(tracker, (left, 1, RED)) == [0]
    assert step(tracker, (12, 1, BLUE), (40, 1, BLUE), scores=(0.4, 0.3)) == [0, -1], "where it was going"
    assert tracker.boxes.tolist() == [[12, 0, 21, 9]]
    assert tracker.speeds.tolist() == [[4, 0]]
    assert tracker.embeddings.tolist() == [list(RED)], "looks of what is hardly seen aren't remembered"
    assert tracker.ages == [0]
    assert step(tracker, (16, 1, RED), (16, 1, RED), scores=(0.9, 0.4)) == [0, -1], "the better one has it"


@pytest.mark.parametrize(
    ("weak", "expected"),
    [
        ((3, 1, RED), [0]),  # IoU 7 of 13
        ((4, 1, RED), [-1]),  # 6 of 14: looks don't help
        ((0, 2, RED), [-1]),  # another class
    ],
)
def test_what_a_weak_detection_continues(weak: Detection, expected: list[int]) -> None:
    tracker = MotionTracker(threshold=0.5)
    step(tracker, (0, 1, RED))
    assert step(tracker, weak, scores=(0.4,)) == expected


@pytest.mark.parametrize(("missed", "expected"), [(WEAK_AGE, [0]), (WEAK_AGE + 1, [-1])])
def test_weak_detections_bridge_short_gaps_only(missed: int, expected: list[int]) -> None:
    tracker = MotionTracker(threshold=0.5)
    step(tracker, (0, 1, RED))
    for _ in range(missed):
        assert step(tracker) == []
    assert step(tracker, (0, 1, RED), scores=(0.4,)) == expected


def test_without_objects_weak_detections_are_nothing() -> None:
    tracker = MotionTracker(threshold=0.5)
    assert step(tracker, (0, 1, RED), (40, 1, RED), scores=(0.4, 0.4)) == [-1, -1]
    assert (len(tracker), tracker.next_id) == (0, 0)


def test_pairs_are_made_best_first() -> None:
    fit = torch.tensor([[5.0, 9, -torch.inf], [8, 10, 1]])
    assert best_first(fit, 4.0) == [(1, 1), (0, 0)]
    assert best_first(fit, 5.0) == [(1, 1)], "5 isn't more than 5"
    assert best_first(fit[:0], 0.0) == best_first(fit[:, :0], 0.0) == []


def test_random_scenes_are_matched_one_to_one_and_completely() -> None:
    random = torch.Generator().manual_seed(0)
    tracker = MotionTracker(max_age=3)
    given = 0
    for _ in range(60):
        n = int(torch.randint(0, 9, (), generator=random))
        corner = torch.randint(0, 40, (n, 2), generator=random).float()
        boxes = torch.cat([corner, corner + 9], 1)
        labels = torch.randint(1, 3, (n,), generator=random)
        looks = torch.randn(n, 2, generator=random)
        before, fit = list(tracker.ids), tracker.fit(boxes, labels, looks) if len(tracker) else None
        ids = tracker.step(boxes, labels, torch.full((n,), 0.9), looks).tolist()
        assert len(set(ids)) == n
        assert len(tracker.ids) == len(tracker.speeds) == len(tracker.boxes) == len(tracker.embeddings)
        new = [i for i in ids if i not in before]
        assert new == list(range(given, given + len(new)))
        given += len(new)
        if fit is None:
            continue
        free = [k for k, known in enumerate(before) if known not in ids]
        for row, own in zip(fit, ids):
            if own in before:
                assert row[before.index(own)] > NEW
            else:
                assert not (row[free] > NEW).any()
    assert given > 20
    assert 0 < LEAST_OVERLAP < 1


def test_the_published_behaviour_has_the_published_tracker() -> None:
    with pytest.raises(ValueError, match="tracker is motion; with legacy it is published"):
        NetworkConfig(legacy=True, tracker="motion")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weak_threshold": 0.3}, "weak_threshold needs tracker motion"),
        ({"weak_threshold": 0.6, "tracker": "motion"}, "must be below score_threshold, 0.6, got 0.6"),
    ],
)
def test_weak_thresholds_that_say_nothing(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NetworkConfig.model_validate(settings)


def test_detections_are_above_the_lower_of_the_thresholds() -> None:
    assert NetworkConfig(score_threshold=0.5).least_score == 0.5
    assert NetworkConfig(score_threshold=0.5, weak_threshold=0.3, tracker="motion").least_score == 0.3
