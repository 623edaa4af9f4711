"""`supervision.Detections` by the library itself."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_results import FRAMES, STREET, assert_same, draw, things

from panoptube.errors import UserError
from panoptube.forms.supervision import from_supervision, to_supervision
from panoptube.forms.transformers import to_transformers
from panoptube.panoptic.frame import VOID

sv = pytest.importorskip("supervision")


def test_a_frame_by_hand() -> None:
    found = to_supervision(draw("rrrr cAAP rrAr", {3: 0.5}), STREET)
    assert found.xyxy.tolist() == [[1, 1, 3, 3], [3, 1, 4, 2]]
    assert found.tracker_id.tolist() == [3, 5]
    assert found.class_id.tolist() == [2, 3]
    assert found.confidence.tolist() == [0.5, 1.0]
    assert found.data["class_name"].tolist() == ["car", "person"]
    assert found.area.tolist() == [3, 1]
    # The library's own boxes end at the last pixel.
    boxes = sv.mask_to_xyxy(found.mask) + np.array([0, 0, 1, 1])
    assert boxes.tolist() == found.xyxy.tolist()


@pytest.mark.parametrize("frame", [*FRAMES, draw("rrss")])
def test_round_trip(frame) -> None:
    found = to_supervision(frame, STREET)
    assert_same(from_supervision(found, STREET, frame.size), things(frame))
    assert_same(from_supervision(found, STREET, frame.size, stuff=frame), frame)


def test_no_scores() -> None:
    found = to_supervision(draw("AArr"), STREET)
    assert found.confidence is None
    assert from_supervision(found, STREET, (1, 4)).scores == {}


def test_filtered_detections_leave_void() -> None:
    frame = draw("AAPP rrrr")
    found = to_supervision(frame, STREET)
    assert_same(from_supervision(found[found.class_id == 3], STREET, (2, 4), frame), draw("..PP rrrr"))
    assert_same(from_supervision(sv.Detections.empty(), STREET, (2, 4), frame), draw(".... rrrr"))


def test_overlaps_show_the_more_confident_and_none_is_numbered() -> None:
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], bool)
    boxes = np.zeros((2, 4))
    found = sv.Detections(boxes, masks, np.array([0.9, 0.4]), np.array([2, 3]))
    frame = from_supervision(found, STREET, (1, 3))
    assert (frame.semantic.tolist(), frame.instance.tolist()) == ([[2, 2, 3]], [[1, 1, 2]])
    assert frame.scores == {1: 0.9, 2: 0.4}


def test_its_annotators_and_its_reader_take_ours() -> None:
    frame = FRAMES[0]
    found = to_supervision(frame, STREET)
    picture = np.zeros((*frame.size, 3), np.uint8)
    painted = sv.MaskAnnotator(opacity=1.0, color_lookup=sv.ColorLookup.TRACK).annotate(picture, found)
    assert ((painted != 0).any(2) == (frame.instance > 0)).all()
    read = sv.Detections.from_transformers(to_transformers(frame, STREET), dict(enumerate(STREET.names)))
    assert read.data["class_name"].tolist() == ["road", "sky & air", "car", "person"]
    assert (read.mask[2:] == found.mask).all()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"class_id": np.array([0])}, "class_id 0"),
        ({"class_id": np.array([4])}, "class_id 4"),
        ({"tracker_id": np.array([-1])}, "tracker_id -1"),
        ({"mask": np.ones((1, 2, 2), bool)}, "give the frame's size"),
        ({"mask": None}, "no mask"),
        ({"class_id": None}, "no class_id"),
    ],
)
def test_faults(changes: dict, fault: str) -> None:
    whole = {"mask": np.ones((1, 2, 3), bool), "class_id": np.array([2]), "tracker_id": np.array([1])}
    with pytest.raises(UserError, match=fault):
        from_supervision(sv.Detections(np.zeros((1, 4)), **(whole | changes)), STREET, (2, 3))
    with pytest.raises(UserError, match="give one size"):
        from_supervision(sv.Detections.empty(), STREET, (2, 3), draw("rr"))
    assert from_supervision(sv.Detections.empty(), STREET, (2, 3)).semantic.min() == VOID
