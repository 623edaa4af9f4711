"""CVAT: what is written comes back through `import_cvat`, pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from drawn_results import FRAMES, STREET, draw, write_result

from panoptube.convert_result import convert_result
from panoptube.data.coco_video import read_coco_video
from panoptube.data.cvat import import_cvat
from panoptube.errors import UserError
from panoptube.forms import cvat
from panoptube.forms.cvat import to_cvat
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy

STUFF = [c.name for c in STREET.categories if not c.isthing]


def back(tmp_path: Path, frames: list[PanopticFrame]) -> list[PanopticFrame]:
    """Converted, given images as CVAT's export has them, and imported; of frames without shapes, void."""
    write_result(tmp_path / "result", frames)
    convert_result(tmp_path / "result", "cvat", tmp_path / "exports", progress=False)
    images = tmp_path / "exports/result/images"
    images.mkdir()
    for t, frame in enumerate(frames):
        cv2.imwrite(str(images / f"frame_{t:06d}.png"), np.full((*frame.size, 3), t, np.uint8))
    import_cvat(tmp_path / "exports", tmp_path / "data", "val", stuff=STUFF, progress=False)
    (clip,) = read_coco_video(tmp_path / "data", "val")
    assert clip.taxonomy.names == STREET.names
    assert [c.color for c in clip.taxonomy.categories] == [c.color for c in STREET.categories]
    assert clip.name == "result"
    empty = PanopticFrame(np.full(clip.size, VOID, np.uint8), np.zeros(clip.size, np.int32))
    return [clip.truth(t) or empty for t in range(len(clip))]


def assert_equal_tracks(found: list[PanopticFrame], expected: list[PanopticFrame]) -> None:
    """Every pixel's class, and tracks but for their numbers, which are the same through the video."""
    numbers: dict[int, int] = {}
    for got, frame in zip(found, expected, strict=True):
        assert got.semantic.tolist() == frame.semantic.tolist()
        for old, new in zip(frame.instance.ravel().tolist(), got.instance.ravel().tolist()):
            assert numbers.setdefault(old, new) == new
    assert len(set(numbers.values())) == len(numbers)
    assert numbers.get(0, 0) == 0


def test_things_and_stuff_come_back_exactly(tmp_path: Path) -> None:
    """With pieces, a hole, a gap in time and a label that XML must escape."""
    assert_equal_tracks(back(tmp_path, FRAMES), FRAMES)


def test_random_maps_come_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frames = []
    for _ in range(6):
        letters = rng.choice(list("rsABP."), (9, 11), p=[0.2, 0.1, 0.3, 0.1, 0.2, 0.1])
        frames.append(draw(" ".join("".join(row) for row in letters)))
    assert_equal_tracks(back(tmp_path, frames), frames)


def test_crowd_becomes_void(tmp_path: Path) -> None:
    found = back(tmp_path, [draw("rrccAA"), draw("......"), draw("AArrrr")])
    assert_equal_tracks(found, [draw("rr..AA"), draw("......"), draw("AArrrr")])


def test_the_file_by_hand() -> None:
    root = ElementTree.fromstring(to_cvat("drive & co", [draw("AAr."), draw("rrr."), draw("rAr.")], STREET))
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/name") == "drive & co"
    assert root.findtext("meta/task/size") == "3"
    tracks = root.findall("track")
    assert [track.get("id") for track in tracks] == ["0", "1", "2", "3"]
    assert [track.get("label") for track in tracks] == ["car", "road", "road", "road"]
    car = [(s.tag, s.get("frame"), s.get("outside"), s.get("keyframe"), s.get("points")) for s in tracks[0]]
    square = "0,0;2,0;2,1;0,1"
    assert car == [
        ("polygon", "0", "0", "1", square),
        ("polygon", "1", "1", "1", square),
        ("polygon", "2", "0", "1", "1,0;2,0;2,1;1,1"),
    ]
    assert "group_id" not in tracks[0].attrib  # never in pieces
    road = tracks[3][0]
    assert [road.get(n) for n in ("frame", "rle", "left", "top", "width", "height")] == [
        *("2", "0, 1, 1, 1", "0", "0", "3", "1")
    ]


def test_a_track_that_ends_is_outside_and_pieces_share_a_group() -> None:
    root = ElementTree.fromstring(to_cvat("d", [draw("ArA"), draw("rrr")], STREET))
    cars = [track for track in root.findall("track") if track.get("label") == "car"]
    assert [track.get("group_id") for track in cars] == ["1", "1"]
    assert [[s.get("outside") for s in track] for track in cars] == [["0", "1"], ["0", "1"]]


def test_labels_to_paste(tmp_path: Path) -> None:
    write_result(tmp_path / "result")
    convert_result(tmp_path / "result", "cvat", tmp_path / "exports", progress=False)
    labels = json.loads((tmp_path / "exports/labels.json").read_text())
    assert labels[0] == {"name": "road", "color": "#804080", "attributes": []}
    assert [label["name"] for label in labels] == list(STREET.names)


def test_hostile_names_are_only_text() -> None:
    name = '"/><track id="9'
    taxonomy = Taxonomy("t", (Category(name, True, (0, 0, 0), 1),))
    frame = PanopticFrame(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.int32))
    (track,) = ElementTree.fromstring(to_cvat("]]><x>", [frame], taxonomy)).findall("track")
    assert track.get("label") == name


def test_more_than_import_reads_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvat, "MAX_BYTES", 1000)
    write_result(tmp_path / "result")
    with pytest.raises(UserError, match="--max-frames"):
        convert_result(tmp_path / "result", "cvat", tmp_path / "exports", progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result"]


def test_frames_of_two_sizes() -> None:
    with pytest.raises(ValueError, match="frame 1"):
        to_cvat("d", [draw("AA"), draw("A")], STREET)
    with pytest.raises(ValueError, match="no frame"):
        to_cvat("d", [], STREET)
