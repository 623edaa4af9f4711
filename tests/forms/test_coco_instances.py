"""COCO video instances: read by pycocotools and hotcoco, read back, and broken on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_results import FRAMES, assert_same, draw, things, write_result

from panoptube.convert_result import convert_result
from panoptube.errors import UserError
from panoptube.forms.coco_instances import read_coco_instances
from panoptube.panoptic.frame import PanopticFrame

coder = pytest.importorskip("pycocotools.mask")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_result(tmp_path / "result")
    line = convert_result(tmp_path / "result", "coco-instances", tmp_path / "out/i.json", progress=False)
    assert line.endswith("i.json: coco-instances of 1 video, 3 frames")
    return tmp_path / "out/i.json"


def test_a_result_by_hand(written: Path) -> None:
    data = json.loads(written.read_text())
    (video,) = data["videos"]
    names = ["000000.png", "000001.png", "000002.png"]
    assert video == {"id": 1, "name": "result", "width": 8, "height": 5, "length": 3, "file_names": names}
    assert [c["name"] for c in data["categories"]] == ["car", "person"]
    rows = {a["track_id"]: a for a in data["annotations"]}
    assert [a["id"] for a in data["annotations"]] == [1, 2, 3]
    assert (rows[3]["category_id"], rows[5]["category_id"], rows[9]["category_id"]) == (26, 24, 26)
    assert rows[3]["areas"] == [15, None, 4]
    assert rows[3]["bboxes"] == [[0, 1, 8, 3], None, [0, 1, 2, 2]]
    assert rows[3]["score"] == 0.75  # of 0.5 and 1.0
    assert rows[5]["score"] == 0.5  # of 0.75 and 0.25
    assert rows[5]["segmentations"][2] is None


@pytest.mark.parametrize("library", ["pycocotools.mask", "hotcoco.mask"])
def test_other_readers_see_the_same_masks(written: Path, library: str) -> None:
    module = pytest.importorskip("hotcoco").mask if library.startswith("hot") else coder
    for row in json.loads(written.read_text())["annotations"]:
        for t, (runs, area) in enumerate(zip(row["segmentations"], row["areas"])):
            expected = FRAMES[t].instance == row["track_id"]
            if runs is None:
                assert not expected.any()
            else:
                assert (np.asarray(module.decode(runs)).reshape(5, 8).astype(bool) == expected).all()
                assert area == expected.sum()


def test_it_comes_back(written: Path) -> None:
    taxonomy, videos = read_coco_instances(written)
    assert taxonomy.names == ("car", "person")
    video = videos["result"]
    assert (video.length, video.size) == (3, (5, 8))
    for t, frame in enumerate(FRAMES):
        expected = things(frame)
        semantic = np.where(expected.instance > 0, expected.semantic - 2, 255).astype(np.uint8)
        scores = {3: 0.75, 5: 0.5, 9: 0.125}
        seen = {track: scores[track] for track in np.unique(frame.instance).tolist() if track}
        assert_same(video.frame(t), PanopticFrame(semantic, frame.instance, seen))


def test_several_videos(tmp_path: Path) -> None:
    write_result(tmp_path / "all/a", FRAMES[:1])
    write_result(tmp_path / "all/b", FRAMES[1:])
    convert_result(tmp_path / "all", "coco-instances", tmp_path / "i.json", progress=False)
    _, videos = read_coco_instances(tmp_path / "i.json")
    assert {name: video.length for name, video in videos.items()} == {"a": 1, "b": 2}
    assert (videos["b"].frame(1).instance == FRAMES[2].instance).all()


def test_a_result_without_things(tmp_path: Path) -> None:
    write_result(tmp_path / "result", [draw("rrss")])
    convert_result(tmp_path / "result", "coco-instances", tmp_path / "i.json", progress=False)
    _, videos = read_coco_instances(tmp_path / "i.json")
    assert not videos["result"].frame(0).instance.any()


def document(*segmentations: Any, **changes: Any) -> dict[str, Any]:
    rows = [
        {"id": i, "video_id": 4, "category_id": 1, "segmentations": [s], "score": 1 - i / 10}
        for i, s in enumerate(segmentations)
    ]
    video = {"id": 4, "width": 4, "height": 2, "file_names": ["a.jpg"]}
    return {"videos": [video], "annotations": rows, "categories": [{"id": 1, "name": "cat"}]} | changes


def read(tmp_path: Path, data: dict[str, Any]) -> PanopticFrame:
    path = tmp_path / "i.json"
    path.write_text(json.dumps(data))
    return read_coco_instances(path)[1]["4"].frame(0)


def test_plain_runs_and_polygons_by_others(tmp_path: Path) -> None:
    """Runs go down the columns; of overlapping masks the more confident, here the first, is seen."""
    runs = {"size": [2, 4], "counts": [2, 3, 3]}
    frame = read(tmp_path, document(runs, [[2, 0, 4, 0, 4, 2, 2, 2]]))
    assert frame.instance.tolist() == [[0, 1, 1, 2], [0, 1, 2, 2]]
    assert frame.scores == {1: 1.0, 2: 0.9}


def test_crowd(tmp_path: Path) -> None:
    data = document({"size": [2, 4], "counts": [0, 8]})
    data["annotations"][0]["iscrowd"] = 1
    frame = read(tmp_path, data)
    assert (frame.semantic == 0).all()
    assert not frame.instance.any()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (document({"size": [2, 4], "counts": [2, 3]}), "a mask in frame 0 of 4 is broken"),
        (document({"size": [2, 4], "counts": [-2, 7, 3]}), "is broken"),
        (document({"size": [2, 4], "counts": "zzzzzzzz"}), "is broken"),
        (document({"size": [2, 4], "counts": "\x00é"}), "is broken"),
        (document({"size": [20, 40], "counts": [800]}), r"\(20, 40\), the video"),
        (document([[1, 2, 3]]), "is broken"),
        (document([[0, 0, 1e9, 0, 1, 1]]), "is broken"),
        (document([]), "is broken"),
        (document(None, categories=[{"id": 2, "name": "dog"}]), "category 1"),
        (document(None, videos=[]), "video 4"),
        (document(None, videos=document()["videos"] * 2), "a video id twice"),
        (document(None, videos=[document()["videos"][0] | {"length": 3}]), "each of its 3 frames"),
        (document(None, categories=[]), "has 0 classes"),
        ({"videos": []}, "not of the form"),
    ],
)
def test_faults(tmp_path: Path, data: dict[str, Any], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read(tmp_path, data)
