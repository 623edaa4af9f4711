"""Two-channel PNGs: by hand, round trip, and what doesn't fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_results import FRAMES, STREET, draw, write_result
from PIL import Image

from panoptube.convert_result import convert_result
from panoptube.data.write_layouts import ObjectNumbers
from panoptube.errors import UserError
from panoptube.forms.two_channel import OBJECTS, from_two_channel, to_two_channel
from panoptube.panoptic.frame import PanopticFrame


def numbers() -> ObjectNumbers:
    return ObjectNumbers("a", STREET, OBJECTS)


def test_by_hand() -> None:
    image = to_two_channel(draw("rs.c BAPP"), STREET, numbers())
    assert image.dtype == np.uint8
    # Categories have the ids 7, 23, 26 and 24; B comes first among the cars, P is the only person.
    assert image[..., 0].tolist() == [[7, 23, 255, 26], [26, 26, 24, 24]]
    assert image[..., 1].tolist() == [[0, 0, 0, 0], [1, 2, 1, 1]]
    assert not image[..., 2].any()


def test_a_result_and_back(tmp_path: Path) -> None:
    write_result(tmp_path / "result")
    line = convert_result(tmp_path / "result", "two-channel", tmp_path / "out", progress=False)
    assert line.endswith("two-channel of 1 video, 3 frames")
    assert [c["id"] for c in json.loads((tmp_path / "out/categories.json").read_text())] == [7, 23, 26, 24]
    ids: dict[int, set[int]] = {}
    for t, frame in enumerate(FRAMES):
        with Image.open(tmp_path / f"out/two_channel/{t:06d}.png") as picture:
            back = from_two_channel(np.array(picture), STREET)
        assert back.semantic.tolist() == frame.semantic.tolist()
        for old, new in zip(frame.instance.ravel().tolist(), back.instance.ravel().tolist()):
            ids.setdefault(old, set()).add(new)
    assert ids.pop(0) == {0}
    assert all(len(new) == 1 for new in ids.values())  # a track is one object in all frames
    assert len(set.union(*ids.values())) == len(ids)


def test_several_videos_have_folders(tmp_path: Path) -> None:
    for name in "ab":
        write_result(tmp_path / "results" / name, FRAMES[:1])
    convert_result(tmp_path / "results", "two-channel", tmp_path / "out", progress=False)
    assert sorted(p.parent.name for p in (tmp_path / "out").rglob("*.png")) == ["a", "b"]


def test_more_objects_than_a_byte_holds() -> None:
    row = np.arange(1, 257, dtype=np.int32)[None]
    semantic = np.full(row.shape, 2, np.uint8)
    to_two_channel(PanopticFrame(semantic[:, :255], row[:, :255]), STREET, numbers())
    with pytest.raises(UserError, match="more than 255 objects of the class car"):
        to_two_channel(PanopticFrame(semantic, row), STREET, numbers())


def test_ids_of_categories_that_do_not_fit() -> None:
    wide = replace(STREET, categories=(replace(STREET.categories[0], id=255), *STREET.categories[1:]))
    with pytest.raises(UserError, match="id 255"):
        to_two_channel(FRAMES[0], wide, numbers())


@pytest.mark.parametrize(
    ("pixel", "message"),
    [((9, 0, 0), "category 9"), ((7, 1, 0), "objects of stuff"), ((255, 1, 0), "stuff or void")],
)
def test_images_that_are_not_of_the_form(pixel: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_two_channel(np.array([[pixel]], np.uint8), STREET)
    with pytest.raises(UserError, match="give"):
        from_two_channel(np.array([pixel], np.uint8), STREET)
