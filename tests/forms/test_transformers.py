"""transformers' form by hand, round trips, and what isn't of the form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from drawn_results import FRAMES, STREET, assert_same, draw

from panoptube.errors import UserError
from panoptube.forms.transformers import from_transformers, to_transformers
from panoptube.panoptic.frame import VOID


def test_a_frame_by_hand() -> None:
    result = to_transformers(draw("..rA ccPP", {3: 0.5}), STREET)
    assert result["segmentation"].tolist() == [[0, 0, 1, 3], [2, 2, 4, 4]]
    assert result["segmentation"].dtype == torch.int32
    assert result["segments_info"] == [
        {"id": 1, "label_id": 0, "was_fused": True, "score": 1.0},
        {"id": 2, "label_id": 2, "was_fused": True, "score": 1.0},
        {"id": 3, "label_id": 2, "was_fused": False, "score": 0.5, "track_id": 3},
        {"id": 4, "label_id": 3, "was_fused": False, "score": 1.0, "track_id": 5},
    ]


@pytest.mark.parametrize("frame", [*FRAMES, draw("ccAB", {3: 0.5, 9: 0.5}), draw("...."), draw("rrss")])
def test_round_trip(frame: Any) -> None:
    assert_same(from_transformers(to_transformers(frame, STREET), STREET), frame)


def test_a_result_of_a_model() -> None:
    segments = [
        {"id": 1, "label_id": 0, "was_fused": True, "score": 0.9},
        {"id": 1, "label_id": 0, "was_fused": True, "score": 0.8},  # each mask of a fused segment is listed
        {"id": 2, "label_id": 3, "was_fused": False, "score": 0.7},
    ]
    frame = from_transformers({"segmentation": np.array([[0, 1, 2]]), "segments_info": segments}, STREET)
    assert frame.semantic.tolist() == [[VOID, 0, 3]]
    assert frame.instance.tolist() == [[0, 0, 2]]
    assert frame.scores == {2: 0.7}


def test_nothing_found() -> None:
    frame = from_transformers({"segmentation": torch.zeros(2, 3) - 1, "segments_info": []}, STREET)
    assert (frame.semantic == VOID).all()
    assert frame.size == (2, 3)


def test_ids_from_0_as_instance_results_have_them() -> None:
    segments = [{"id": 0, "label_id": 2, "score": 0.7}, {"id": 1, "label_id": 2, "score": 0.6}]
    frame = from_transformers({"segmentation": torch.tensor([[-1, 0, 1]]), "segments_info": segments}, STREET)
    assert frame.instance.tolist() == [[0, 1, 2]]
    assert frame.scores == {1: 0.7, 2: 0.6}


def info(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "label_id": 2, "was_fused": False, "score": 0.5} | changes


@pytest.mark.parametrize(
    ("segmentation", "segments", "fault"),
    [
        ([[1]], [info(label_id=4)], "label_id 4"),
        ([[1]], [info(), info(label_id=3)], "the id 1 for two segments"),
        ([[7]], [info()], "holds the id 7"),
        ([[1]], [info(track_id=-4)], "a track below 1"),
        ([[1]], [info(track_id=2**31)], "above 2147483647"),
        ([[[1]]], [info()], "return_binary_maps"),
        ([[1]], [{"id": 1}], "label_id"),
        (None, [info()], "shape"),
    ],
)
def test_faults(segmentation: Any, segments: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        from_transformers({"segmentation": np.array(segmentation), "segments_info": segments}, STREET)


def test_what_is_no_result() -> None:
    with pytest.raises(UserError, match="post_process_panoptic_segmentation"):
        from_transformers({"segmentation": np.zeros((2, 2))}, STREET)


def test_the_library_itself() -> None:
    """Its own function makes the segments: two fused masks of road, a car, a person too faint to count."""
    library = pytest.importorskip("transformers.models.mask2former.image_processing_mask2former")
    masks = torch.zeros(4, 2, 6)
    masks[0, :, :2], masks[1, :, 2:4], masks[2, 0, 4:], masks[3, 1, 4:] = 1, 1, 1, 0.1
    segmentation, segments = library.compute_segments(
        masks, torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 0, 2, 3]), label_ids_to_fuse={0}
    )
    frame = from_transformers({"segmentation": segmentation, "segments_info": segments}, STREET)
    assert frame.semantic.tolist() == [[0, 0, 0, 0, 2, 2], [0, 0, 0, 0, VOID, VOID]]
    assert frame.instance.tolist() == [[0, 0, 0, 0, 2, 2], [0] * 6]
    ours = to_transformers(frame, STREET)
    assert set(segments[0]) <= set(ours["segments_info"][0])
    assert [type(v) for v in segments[0].values()] == [type(v) for v in ours["segments_info"][0].values()]
    assert ours["segmentation"].dtype == segmentation.dtype
    assert torch.equal(ours["segmentation"], segmentation)
