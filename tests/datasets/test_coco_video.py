"""COCO panoptic video: read what is documented, nothing outside the folder, and every fault named."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_trees import SIZE, picture, save, scene

from panoptube.data.coco_video import read_coco_video
from panoptube.data.files import MissingData
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID

CATEGORIES = [
    {"id": 40, "name": "car", "isthing": 1, "color": [0, 0, 142]},
    {"id": 7, "name": "sky", "isthing": 0, "color": [70, 130, 180]},
    {"id": 30, "name": "person", "isthing": 1, "color": [220, 20, 60]},
    {"id": 2, "name": "road", "isthing": 0},
]
LETTERS = {"s": 7, "r": 2, "c": 40, "p": 30}
TRUTH = {"s": 0, "r": 1, "c": 2, "p": 3}
"""Places in the taxonomy: stuff first, otherwise in the JSON's order."""


def segment_id(letter: str, number: int) -> int:
    return LETTERS[letter] + 65536 * (number + 1)


def write(root: Path, change: Callable[[dict[str, Any]], object] = lambda data: None) -> None:
    """Two videos whose images are listed in turn; frame_ids say their order, backwards in the list."""
    data: dict[str, Any] = {
        "categories": CATEGORIES,
        "videos": [{"id": 1, "name": "drive_a", "fps": 12.5}, {"id": "b", "name": "drive_b"}],
        "images": [],
        "annotations": [],
    }
    for t in (2, 1, 0):
        for shift, (video, name) in enumerate(((1, "drive_a"), ("b", "drive_b"))):
            number = 10 * t + shift
            save(root / f"train/{name}/{t:06d}.png", picture(t, shift))
            data["images"].append(
                {
                    "id": number,
                    "video_id": video,
                    "frame_id": 5 * t,
                    "file_name": f"{name}/{t:06d}.png",
                    "width": SIZE[1],
                    "height": SIZE[0],
                }
            )
            if (shift, t) == (1, 1):
                continue  # not labelled
            kinds, numbers = scene(t, shift)
            ids = np.zeros(SIZE, np.uint32)
            segments = []
            for letter in LETTERS:
                for n in np.unique(numbers[kinds == letter]):
                    inside = (kinds == letter) & (numbers == n)
                    ids[inside] = segment_id(letter, int(n))
                    segments.append(
                        {
                            "id": segment_id(letter, int(n)),
                            "category_id": LETTERS[letter],
                            "area": int(inside.sum()),
                        }
                    )
            save(
                root / f"panoptic_train/{name}/{t:06d}.png",
                np.dstack([ids & 255, ids >> 8 & 255, ids >> 16]).astype(np.uint8),
            )
            data["annotations"].append(
                {"image_id": number, "file_name": f"{name}/{t:06d}.png", "segments_info": segments}
            )
    change(data)
    (root / "panoptic_train.json").write_text(json.dumps(data))


def check(
    root: Path, names: tuple[str, str] = ("drive_a", "drive_b"), fps: tuple[float, float] = (12.5, 25.0)
) -> None:
    clips = pickle.loads(pickle.dumps(read_coco_video(root, "train")))
    assert [(c.name, c.fps) for c in clips] == list(zip(names, fps))
    assert [(c.length, c.labelled) for c in clips] == [(3, (0, 1, 2)), (3, (0, 2))]
    for shift, clip in enumerate(clips):
        assert [(c.name, c.isthing, c.id) for c in clip.taxonomy.categories] == [
            ("sky", False, 7),
            ("road", False, 2),
            ("car", True, 40),
            ("person", True, 30),
        ]
        for t in range(3):
            assert (clip.image(t) == picture(t, shift)).all()
        for t in clip.labelled:
            truth = clip.truth(t)
            assert truth is not None
            kinds, numbers = scene(t, shift)
            semantic = np.full(SIZE, VOID)
            instance = np.zeros(SIZE, int)
            for letter, place in TRUTH.items():
                semantic[kinds == letter] = place
                for n in np.unique(numbers[(kinds == letter) & (numbers >= 0)]):
                    instance[(kinds == letter) & (numbers == n)] = segment_id(letter, int(n))
            assert (truth.semantic == semantic).all()
            assert (truth.instance == instance).all()


def test_as_documented(tmp_path: Path) -> None:
    write(tmp_path)
    check(tmp_path)


def test_without_videos_and_frame_ids(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        del data["videos"]
        data["images"].reverse()
        # The videos change places, since the list says their order.
        data["images"].sort(key=lambda image: image["id"] % 10)
        for image in data["images"]:
            del image["frame_id"]

    write(tmp_path, change)
    check(tmp_path, ("1", "b"), (25.0, 25.0))


def test_crowd_and_track_ids(tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        for annotation in data["annotations"]:
            for segment in annotation["segments_info"]:
                if segment["category_id"] == 30:
                    segment["iscrowd"] = 1
                elif segment["category_id"] == 40:
                    segment["track_id"] = segment["id"] >> 16

    write(tmp_path, change)
    truth = read_coco_video(tmp_path, "train")[0].truth(0)
    assert truth is not None
    assert set(np.unique(truth.instance[truth.semantic == 2])) == {1, 22}
    assert set(np.unique(truth.instance[truth.semantic == 3])) == {0}


def first(data: dict[str, Any], what: str) -> dict[str, Any]:
    found: dict[str, Any] = data[what][0]
    return found


OUTSIDE = ["../secret.png", "/etc/secret.png", "drive_a/../../secret.png", "..\\secret.png", ""]
OPENING: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no images": (lambda d: d.pop("images"), "images: Field required"),
    "image without video": (
        lambda d: first(d, "images").pop("video_id"),
        r"images\.0\.video_id: Field required",
    ),
    "no categories": (lambda d: d.update(categories=[]), "has no categories"),
    "image id twice": (lambda d: first(d, "images").update(id=d["images"][1]["id"]), "image id 21 twice"),
    "image twice": (
        lambda d: first(d, "images").update(file_name=d["images"][1]["file_name"]),
        r"the image drive_b/000002\.png twice",
    ),
    "annotation twice": (
        lambda d: d["annotations"].append(d["annotations"][0]),
        "annotation of the image 20 twice",
    ),
    "annotation without image": (
        lambda d: first(d, "annotations").update(image_id=99),
        "image 99, which `images`",
    ),
    "unlisted video": (
        lambda d: first(d, "images").update(video_id=9),
        "images of the video 9, which `videos`",
    ),
    "video twice": (lambda d: first(d, "videos").update(name="drive_b"), "the video drive_b twice"),
    "frame twice": (lambda d: first(d, "images").update(frame_id=5), "drive_a have the frame_id 5"),
    "frame_id missing": (lambda d: first(d, "images").pop("frame_id"), "have no frame_id"),
    "two sizes": (
        lambda d: first(d, "images").update(width=17),
        r"000002\.png is 17x10, the first image of the video drive_a 16x10",
    ),
    "unknown category": (
        lambda d: first(d, "annotations")["segments_info"][0].update(category_id=99),
        "category_id 99",
    ),
    "no frames per second": (lambda d: first(d, "videos").update(fps=0), r"videos\.0\.fps"),
}
for _name in OUTSIDE:
    OPENING[f"image {_name!r}"] = (
        lambda d, n=_name: first(d, "images").update(file_name=n),  # type: ignore[misc]
        "names the file .*which is not in .*train; correct the name",
    )
    OPENING[f"label {_name!r}"] = (
        lambda d, n=_name: first(d, "annotations").update(file_name=n),  # type: ignore[misc]
        "names the file .*which is not in .*panoptic_train; correct the name",
    )


@pytest.mark.parametrize("fault", OPENING)
def test_faults_found_when_opening(tmp_path: Path, fault: str) -> None:
    change, message = OPENING[fault]
    write(tmp_path, change)
    with pytest.raises(UserError, match=message) as caught:
        read_coco_video(tmp_path, "train")
    assert "panoptic_train" in str(caught.value)


def test_missing_json(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no .*panoptic_val\.json; write it"):
        read_coco_video(tmp_path, "val")
    write(tmp_path)
    with pytest.raises(MissingData, match=r"no .*panoptic_val\.json; the folder has the splits train"):
        read_coco_video(tmp_path, "val")


READING: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing label": (lambda root: (root / "panoptic_train/drive_a/000000.png").unlink(), "No such file"),
    "missing frame": (lambda root: (root / "train/drive_a/000000.png").unlink(), "is missing"),
    "damaged label": (
        lambda root: (root / "panoptic_train/drive_a/000000.png").write_bytes(b"PNG"),
        "not a complete PNG",
    ),
    "label of another size": (
        lambda root: save(root / "panoptic_train/drive_a/000000.png", np.zeros((9, 16, 3), np.uint8)),
        "is 16 x 9 pixels, its JSON says 16 x 10",
    ),
    "unlisted id": (
        lambda root: save(root / "panoptic_train/drive_a/000000.png", np.full((*SIZE, 3), 1, np.uint8)),
        "holds id 65793, which the JSON doesn't list",
    ),
    "frame of another size": (
        lambda root: save(root / "train/drive_a/000000.png", picture(0, 0, (8, 8))),
        "is 8x8, but its clip is 16x10",
    ),
}


@pytest.mark.parametrize("fault", READING)
def test_faults_found_when_reading_name_the_file(tmp_path: Path, fault: str) -> None:
    write(tmp_path)
    spoil, message = READING[fault]
    spoil(tmp_path)
    clip = read_coco_video(tmp_path, "train")[0]
    with pytest.raises(UserError, match=message) as caught:  # noqa: PT012 - one of the two is at fault
        clip.image(0)
        clip.truth(0)
    assert "drive_a/000000.png" in str(caught.value)
