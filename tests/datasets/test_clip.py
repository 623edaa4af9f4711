"""Clip: every fault of a reader is named with the clip and the frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.panoptic.frame import PanopticFrame


def image(t: int) -> np.ndarray:
    return np.full((4, 6, 3), t, np.uint8)


def truth(t: int) -> PanopticFrame:
    return PanopticFrame(np.full((4, 6), t, np.uint8), np.zeros((4, 6), np.int32))


def clip(**changes: Any) -> Clip:
    fields: dict[str, Any] = {
        "name": "drive",
        "taxonomy": CITYSCAPES,
        "size": (4, 6),
        "fps": 10.0,
        "length": 5,
        "labelled": (0, 3),
        "read_image": image,
        "read_truth": truth,
    }
    return Clip(**(fields | changes))


def test_frames_and_truth() -> None:
    made = clip()
    assert len(made) == 5
    assert [int(made.image(t)[0, 0, 0]) for t in range(5)] == [0, 1, 2, 3, 4]
    found = [made.truth(t) for t in range(5)]
    assert [None if f is None else int(f.semantic[0, 0]) for f in found] == [0, None, None, 3, None]


def test_truth_is_read_only_where_there_is_some() -> None:
    asked: list[int] = []

    def read(t: int) -> PanopticFrame:
        asked.append(t)
        return truth(t)

    made = clip(read_truth=read)
    for t in range(5):
        made.truth(t)
    assert asked == [0, 3]


@pytest.mark.parametrize("length", [0, -1])
def test_no_frames(length: int) -> None:
    with pytest.raises(ValueError, match="clip 'drive' has no frames"):
        clip(length=length, labelled=())


@pytest.mark.parametrize("labelled", [(3, 0), (0, 0), (0, 5), (-1, 2)])
def test_labelled_frames(labelled: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"clip 'drive': labelled frames must ascend within 0\.\.4, got \("):
        clip(labelled=labelled)


@pytest.mark.parametrize("t", [-1, 5])
def test_frame_outside(t: int) -> None:
    for read in (clip().image, clip().truth):
        with pytest.raises(IndexError, match=rf"clip 'drive' has frames 0\.\.4, not {t}"):
            read(t)


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 3), np.float32)]
)
def test_image_of_another_kind(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"clip 'drive', frame 2: expected \(4, 6, 3\) uint8, got"):
        clip(read_image=lambda t: wrong).image(2)


def test_truth_of_another_size() -> None:
    small = PanopticFrame(np.zeros((4, 5), np.uint8), np.zeros((4, 5), np.int32))
    with pytest.raises(
        ValueError, match=r"clip 'drive', truth of frame 3: size \(4, 5\), the clip has \(4, 6\)"
    ):
        clip(read_truth=lambda t: small).truth(3)


def test_truth_with_a_class_that_the_taxonomy_lacks() -> None:
    wrong = PanopticFrame(np.full((4, 6), 19, np.uint8), np.zeros((4, 6), np.int32))
    with pytest.raises(ValueError, match="clip 'drive', truth of frame 3: semantic holds class 19"):
        clip(read_truth=lambda t: wrong).truth(3)
