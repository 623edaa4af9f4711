"""Scenes of three boxes drawn by hand, and random scenes against the dossier's steps in loops."""

from __future__ import annotations

from math import exp, log

import pytest
import torch
from torch import Tensor

from panoptube.panoptic.tracker import Tracker

# Three places that don't overlap, and one that shares 64 of 136 pixels with LEFT.
LEFT, MIDDLE, RIGHT = (0, 0, 9, 9), (20, 0, 29, 9), (40, 0, 49, 9)
NEAR_LEFT = (2, 2, 11, 11)
# Looks: an object's own product is 9, that of two objects is -9 or 0.
RED, BLUE, GREEN = (3.0, 0, 0), (-3.0, 0, 0), (0, 3.0, 0)
PLAIN = (0.0, 0, 0)

Detection = tuple[tuple[int, int, int, int], int, float, tuple[float, float, float]]


def step(tracker: Tracker, *found: Detection) -> list[int]:
    n = len(found)
    return tracker.step(
        torch.tensor([d[0] for d in found], dtype=torch.float64).reshape(n, 4),
        torch.tensor([d[1] for d in found], dtype=torch.int64),
        torch.tensor([d[2] for d in found], dtype=torch.float64),
        torch.tensor([d[3] for d in found], dtype=torch.float64).reshape(n, 3),
    ).tolist()


def test_first_frame_numbers_the_detections() -> None:
    tracker = Tracker()
    assert step(tracker, (LEFT, 1, 0.9, RED), (MIDDLE, 1, 0.8, BLUE), (RIGHT, 2, 0.7, GREEN)) == [0, 1, 2]
    assert len(tracker) == 3


def test_objects_continue_in_any_order() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, RED), (MIDDLE, 1, 0.8, BLUE), (RIGHT, 2, 0.7, GREEN))
    assert step(tracker, (RIGHT, 2, 0.9, GREEN), (LEFT, 1, 0.8, RED), (MIDDLE, 1, 0.7, BLUE)) == [2, 0, 1]
    assert len(tracker) == 3


def test_looks_bridge_a_jump_and_position_decides_between_equal_looks() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, RED), (MIDDLE, 1, 0.8, BLUE))
    assert step(tracker, (RIGHT, 1, 0.9, RED)) == [0]
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, GREEN), (MIDDLE, 1, 0.8, GREEN))
    assert step(tracker, (MIDDLE, 1, 0.9, GREEN), (LEFT, 1, 0.8, GREEN)) == [1, 0]


def test_what_fits_nothing_is_new() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, RED))
    assert step(tracker, (RIGHT, 1, 0.9, BLUE)) == [1], "looks speak against it"
    assert step(tracker, (LEFT, 2, 0.9, GREEN)) == [2], "another class"
    assert step(tracker, (LEFT, 1, 0.9, RED)) == [0], "the first is still known"


def test_association_by_hand() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, (1.0, 0, 0)), (RIGHT, 2, 0.9, (0, 1.0, 0)))
    found = tracker.associate(
        torch.tensor([NEAR_LEFT], dtype=torch.float64),
        torch.tensor([1]),
        torch.tensor([0.5], dtype=torch.float64),
        torch.tensor([[2.0, 1, 0]], dtype=torch.float64),
    )
    assert found.match.tolist() == [[0, 2, 1]]
    total = 1 + exp(2) + exp(1)
    assert found.log_probability[0].tolist() == pytest.approx([-log(total), 2 - log(total), 1 - log(total)])
    assert found.overlap[0].tolist() == pytest.approx([64 / 136, 0])
    assert found.same_class.tolist() == [[1, 0]]
    assert found.total[0].tolist() == pytest.approx(
        [
            -log(total) + log(0.5) + 2 * 0 + 10 * 1,
            2 - log(total) + log(0.5) + 2 * 64 / 136 + 10 * 1,
            1 - log(total) + log(0.5) + 2 * 0 + 10 * 0,
        ]
    )


def test_loser_becomes_new() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, RED))
    assert step(tracker, (LEFT, 1, 0.9, RED), (NEAR_LEFT, 1, 0.8, RED)) == [0, 1]


def test_later_better_claimant_undoes_an_earlier_one() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, RED))
    # ln 0.9 + 2 * 64 / 136 < ln 0.8 + 2
    assert step(tracker, (NEAR_LEFT, 1, 0.9, RED), (LEFT, 1, 0.8, RED)) == [1, 0]
    assert tracker.boxes.tolist() == [list(map(float, LEFT)), list(map(float, NEAR_LEFT))]
    # And the undone one is an object of its own from now on.
    assert step(tracker, (NEAR_LEFT, 1, 0.9, RED), (LEFT, 1, 0.8, RED)) == [1, 0]


def test_new_ones_come_before_losers() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, RED))
    found = step(tracker, (NEAR_LEFT, 1, 0.9, RED), (LEFT, 1, 0.8, RED), (RIGHT, 2, 0.7, GREEN))
    assert found == [2, 0, 1]


def test_equal_claimants_the_first_wins() -> None:
    tracker = Tracker()
    step(tracker, (LEFT, 1, 0.9, RED))
    assert step(tracker, (LEFT, 1, 0.8, RED), (LEFT, 1, 0.8, RED)) == [0, 1]


def test_box_and_looks_are_taken_over_but_not_the_class() -> None:
    tracker = Tracker()
    strong = (6.0, 0, 0)
    step(tracker, (LEFT, 1, 0.9, strong))
    # Another class, but looks so alike (36 against 0) that 10 for the class don't matter.
    assert step(tracker, (NEAR_LEFT, 2, 0.9, (6.0, 1, 0))) == [0]
    assert tracker.labels.tolist() == [1]
    assert tracker.boxes.tolist() == [list(map(float, NEAR_LEFT))]
    assert tracker.embeddings.tolist() == [[6, 1, 0]]
    # Looks that say nothing: only the class that it began with continues it.
    assert step(tracker, (NEAR_LEFT, 2, 0.9, PLAIN)) == [1]
    assert step(tracker, (NEAR_LEFT, 1, 0.9, PLAIN)) == [0]


def test_objects_are_forgotten_after_max_age() -> None:
    for absent, expected in ((3, 0), (4, 1)):
        tracker = Tracker(max_age=3)
        step(tracker, (LEFT, 1, 0.9, RED))
        for _ in range(absent):
            assert step(tracker) == []
        assert len(tracker) == 1 - expected
        assert step(tracker, (LEFT, 1, 0.9, RED)) == [expected]


def test_being_seen_starts_the_age_anew() -> None:
    tracker = Tracker(max_age=2)
    step(tracker, (LEFT, 1, 0.9, RED), (RIGHT, 1, 0.9, BLUE))
    for _ in range(4):
        step(tracker)
        step(tracker)
        assert step(tracker, (LEFT, 1, 0.9, RED)) == [0]
    assert step(tracker, (RIGHT, 1, 0.9, BLUE)) == [2]


def test_none_never_forgets() -> None:
    tracker = Tracker(max_age=None)
    step(tracker, (LEFT, 1, 0.9, RED))
    for _ in range(500):
        step(tracker)
    assert step(tracker, (LEFT, 1, 0.9, RED)) == [0]


def test_forgetting_keeps_the_others_in_place() -> None:
    tracker = Tracker(max_age=1)
    step(tracker, (LEFT, 1, 0.9, RED), (MIDDLE, 1, 0.9, BLUE), (RIGHT, 2, 0.9, GREEN))
    for _ in range(3):
        assert step(tracker, (MIDDLE, 1, 0.9, BLUE), (RIGHT, 2, 0.9, GREEN)) == [1, 2]
    assert tracker.ids == [1, 2]
    assert (len(tracker.boxes), len(tracker.labels), len(tracker.embeddings)) == (2, 2, 2)
    assert step(tracker, (LEFT, 1, 0.9, RED)) == [3]


def test_ids_are_never_used_twice() -> None:
    tracker, seen = Tracker(max_age=0), []
    for label in range(1, 30):  # another class each time: always new
        seen += step(tracker, (LEFT, label, 0.9, PLAIN), (RIGHT, label + 100, 0.8, PLAIN))
        assert len(tracker) <= 4
    assert seen == list(range(58))


def test_video_that_begins_with_empty_frames() -> None:
    tracker = Tracker()
    assert step(tracker) == []
    assert step(tracker) == []
    assert step(tracker, (LEFT, 1, 0.9, RED)) == [0]
    assert step(tracker) == []
    assert step(tracker, (LEFT, 1, 0.9, RED)) == [0]


def test_without_the_learned_term_looks_do_not_matter() -> None:
    for learned, expected in ((True, [1]), (False, [0])):
        tracker = Tracker(match_score=learned)
        step(tracker, (LEFT, 1, 0.9, RED))
        assert step(tracker, (LEFT, 1, 0.9, BLUE)) == expected


def test_memory_is_not_the_callers() -> None:
    tracker = Tracker()
    boxes = torch.tensor([list(LEFT)], dtype=torch.float32)
    looks = torch.ones(1, 3)
    for _ in range(3):
        tracker.step(boxes, torch.tensor([1]), torch.tensor([0.9]), looks)
    assert boxes.tolist() == [list(LEFT)]
    moved = boxes + 1
    tracker.step(moved, torch.tensor([1]), torch.tensor([0.9]), looks)
    assert boxes.tolist() == [list(LEFT)]


class Loops:
    """Dossier 7.3 step by step, in plain numbers."""

    def __init__(self) -> None:
        self.memory: list[tuple[list[float], int, list[float]]] = []

    def step(self, boxes: Tensor, labels: Tensor, scores: Tensor, embeddings: Tensor) -> list[int]:
        found = list(zip(boxes.tolist(), labels.tolist(), scores.tolist(), embeddings.tolist()))
        if not self.memory:
            self.memory = [(box, label, look) for box, label, _, look in found]
            return list(range(len(found)))
        ids: list[int | None] = [None] * len(found)
        rows = []
        for box, label, score, look in found:
            s = [0.0] + [sum(a * b for a, b in zip(look, other)) for _, _, other in self.memory]
            norm = log(sum(exp(v - max(s)) for v in s)) + max(s)
            row = [s[0] - norm + log(score) + 10]
            for j, (other, kind, _) in enumerate(self.memory):
                row.append(s[j + 1] - norm + log(score) + 2 * loop_iou(box, other) + 10 * (label == kind))
            rows.append(row)
        best: dict[int, tuple[float, int]] = {}
        for i, row in enumerate(rows):
            choice = row.index(max(row))
            if choice == 0:
                ids[i] = len(self.memory)
                self.memory.append((found[i][0], found[i][1], found[i][3]))
                continue
            k = choice - 1
            value, previous = best.get(k, (-100.0, -1))
            if max(row) > value:
                if previous >= 0:
                    ids[previous] = None
                ids[i], best[k] = k, (max(row), i)
                self.memory[k] = (found[i][0], self.memory[k][1], found[i][3])
        for i, found_id in enumerate(ids):
            if found_id is None:
                ids[i] = len(self.memory)
                self.memory.append((found[i][0], found[i][1], found[i][3]))
        return [i for i in ids if i is not None]


def loop_iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(width, 0) * max(height, 0)
    areas = [(x2 - x1 + 1) * (y2 - y1 + 1) for x1, y1, x2, y2 in (a, b)]
    return shared / (sum(areas) - shared)


def test_random_scenes_equal_the_steps_in_loops() -> None:
    for seed in range(6):
        g = torch.Generator().manual_seed(seed)
        tracker, loops = Tracker(max_age=None), Loops()
        continued = 0
        for frame in range(12):
            n = int(torch.randint(1, 9, (1,), generator=g))
            corner = torch.rand(n, 2, generator=g, dtype=torch.float64) * 30
            boxes = torch.cat([corner, corner + torch.rand(n, 2, generator=g, dtype=torch.float64) * 30], 1)
            labels = torch.randint(1, 4, (n,), generator=g)
            scores = torch.rand(n, generator=g, dtype=torch.float64).clamp(min=0.01)
            looks = torch.randn(n, 4, generator=g, dtype=torch.float64)
            expected = loops.step(boxes, labels, scores, looks)
            known = tracker.next_id
            assert tracker.step(boxes, labels, scores, looks).tolist() == expected, (seed, frame)
            continued += sum(i < known for i in expected)
        assert continued > 10
