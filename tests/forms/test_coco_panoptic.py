"""COCO panoptic: images for frames, read by independent readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_results import FRAMES, STREET, assert_same, draw, write_result
from PIL import Image

from panoptube.convert_result import convert_result
from panoptube.errors import UserError
from panoptube.forms.coco_panoptic import from_coco_panoptic, to_coco_panoptic
from panoptube.forms.result import read_result
from panoptube.panoptic.segment_ids import SegmentIds


def read_plainly(folder: Path) -> dict[str, Any]:
    """As panopticapi does: every id of a PNG is listed and has its area, and the other way round."""
    data = json.loads((folder / "panoptic.json").read_text())
    images = {image["id"]: image for image in data["images"]}
    categories = {c["id"]: c for c in data["categories"]}
    for annotation in data["annotations"]:
        image = images.pop(annotation["image_id"])
        rgb = np.array(Image.open(folder / "panoptic" / annotation["file_name"]), np.uint32)
        assert rgb.shape == (image["height"], image["width"], 3)
        assert image["file_name"] == annotation["file_name"]
        ids, areas = np.unique(rgb @ np.array([1, 256, 65536], np.uint32), return_counts=True)
        listed = {s["id"]: s for s in annotation["segments_info"]}
        there = {int(i): int(a) for i, a in zip(ids, areas) if i}
        assert there == {i: s["area"] for i, s in listed.items()}
        assert all(s["category_id"] in categories and len(s["bbox"]) == 4 for s in listed.values())
    assert not images
    return data


def test_a_result(tmp_path: Path) -> None:
    write_result(tmp_path / "result")
    line = convert_result(tmp_path / "result", "coco-panoptic", tmp_path / "coco", progress=False)
    assert line.endswith("coco-panoptic of 1 video, 3 frames")
    data = read_plainly(tmp_path / "coco")
    assert [image["id"] for image in data["images"]] == [1, 2, 3]
    assert {c["name"]: (c["isthing"], c["supercategory"]) for c in data["categories"]} == {
        "road": (0, "stuff"),
        "sky & air": (0, "stuff"),
        "car": (1, "thing"),
        "person": (1, "thing"),
    }
    # It is a result as before, which evaluate takes.
    _, videos = read_result(tmp_path / "coco")
    for stored, frame in zip(videos["coco"], FRAMES):
        assert_same(stored.frame(), frame)


def test_several_videos(tmp_path: Path) -> None:
    write_result(tmp_path / "results/a")
    write_result(tmp_path / "results/b", FRAMES[1:])
    convert_result(tmp_path / "results", "coco-panoptic", tmp_path / "coco", progress=False)
    data = read_plainly(tmp_path / "coco")
    names = [image["file_name"] for image in data["images"]]
    assert names == ["a/000000.png", "a/000001.png", "a/000002.png", "b/000000.png", "b/000001.png"]


def test_areas_and_boxes_are_found_where_the_json_has_none(tmp_path: Path) -> None:
    write_result(tmp_path / "result")
    whole = json.loads((tmp_path / "result/panoptic.json").read_text())
    bare = json.loads(json.dumps(whole))
    for annotation in bare["annotations"]:
        for segment in annotation["segments_info"]:
            del segment["area"], segment["bbox"]
    (tmp_path / "result/panoptic.json").write_text(json.dumps(bare))
    convert_result(tmp_path / "result", "coco-panoptic", tmp_path / "coco", progress=False)
    found = json.loads((tmp_path / "coco/panoptic.json").read_text())["annotations"]
    assert [a["segments_info"] for a in found] == [a["segments_info"] for a in whole["annotations"]]


def test_a_json_that_lies_about_its_pngs(tmp_path: Path) -> None:
    write_result(tmp_path / "result")
    path = tmp_path / "result/panoptic.json"
    data = json.loads(path.read_text())
    data["annotations"][1]["segments_info"].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=data["annotations"][1]["file_name"]):
        convert_result(tmp_path / "result", "coco-panoptic", tmp_path / "coco", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["result"]


def test_single_images_there_and_back() -> None:
    ids = SegmentIds(STREET)
    for frame in [*FRAMES, draw("ccAr")]:
        rgb, segments_info = to_coco_panoptic(frame, STREET, ids)
        assert rgb.shape == (*frame.size, 3)
        assert_same(from_coco_panoptic(rgb, segments_info, STREET), frame)


def test_a_pixel_by_hand() -> None:
    rgb, segments_info = to_coco_panoptic(draw(".r"), STREET)
    assert rgb.tolist() == [[[0, 0, 0], [128, 64, 128]]]
    number = 128 + 256 * 64 + 65536 * 128
    row = {"id": number, "category_id": 7, "iscrowd": 0, "area": 1, "bbox": (1, 0, 1, 1)}
    assert segments_info == [row]
    # Another tool's: no area, other keys.
    frame = from_coco_panoptic(rgb, [{"id": number, "category_id": 26, "isthing": True}], STREET)
    assert frame.instance.tolist() == [[0, number]]


@pytest.mark.parametrize(
    ("image", "info", "fault"),
    [
        (np.zeros((1, 1), np.uint8), [], "give .H, W, 3."),
        (np.ones((1, 1, 3), np.uint8), [], "doesn't list"),
        (np.ones((1, 1, 3), np.uint8), [{"id": "x", "category_id": 7}], "not COCO panoptic: 0.id"),
        (np.ones((1, 1, 3), np.uint8), [{"id": 65793, "category_id": 8}], "category_id 8"),
    ],
)
def test_faults(image: np.ndarray, info: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        from_coco_panoptic(image, info, STREET)
