"""Labelled videos: round trip through the disk, splits, and every fault a folder can have."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.labelled_video import encode_label, read_labelled_videos, write_labelled_video
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, PanopticFrame

CAR, PERSON, SKY = CITYSCAPES.index("car"), CITYSCAPES.index("person"), CITYSCAPES.index("sky")


def make_clip(name: str = "drive", labelled: tuple[int, ...] = (0, 1, 2)) -> Clip:
    """Three frames of 6 x 8: sky, a car that moves, a crowd, void."""

    def truth(t: int) -> PanopticFrame:
        semantic, instance = np.full((6, 8), SKY, np.uint8), np.zeros((6, 8), np.int32)
        semantic[2:4, t : t + 3], instance[2:4, t : t + 3] = CAR, 7
        semantic[5, :4] = PERSON
        semantic[5, 4:] = VOID
        return PanopticFrame(semantic, instance)

    def image(t: int) -> np.ndarray:
        return np.random.default_rng(t).integers(0, 256, (6, 8, 3), dtype=np.uint8)

    return Clip(name, CITYSCAPES, (6, 8), 10.0, 3, labelled, image, truth)


def test_round_trip(tmp_path: Path) -> None:
    clip = make_clip(labelled=(0, 2))
    write_labelled_video(clip, tmp_path)
    (tmp_path / "index.json").write_text(
        json.dumps({"clips": [{"clip": "drive", "fps": 10, "split": "val"}]})
    )
    (read,) = read_labelled_videos(tmp_path)
    read = pickle.loads(pickle.dumps(read))  # workers get it so
    assert (read.name, read.size, read.fps, read.length, read.labelled) == ("drive", (6, 8), 10.0, 3, (0, 2))
    assert read.truth(1) is None
    for t in range(3):
        assert (read.image(t) == clip.image(t)).all()
    for t in (0, 2):
        truth, expected = read.truth(t), clip.truth(t)
        assert truth is not None
        assert expected is not None
        assert (truth.semantic == expected.semantic).all()
        assert (truth.instance == expected.instance).all()
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["drive"]


def test_values_by_hand() -> None:
    truth = make_clip().truth(0)
    assert truth is not None
    label = encode_label(truth, CITYSCAPES)
    assert label.dtype == np.uint16
    assert (label[0, 0], label[2, 0], label[5, 0], label[5, 7]) == (10_000, 13_007, 11_000, 65_535)


def test_large_track_ids_are_refused() -> None:
    frame = PanopticFrame(np.full((1, 1), CAR, np.uint8), np.full((1, 1), 1000, np.int32))
    with pytest.raises(UserError, match="track id 1000"):
        encode_label(frame, CITYSCAPES)


def test_splits(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_labelled_video(make_clip(name), tmp_path)
    assert [c.name for c in read_labelled_videos(tmp_path, "train")] == ["a", "b", "c"]
    with pytest.raises(UserError, match="'val'"):
        read_labelled_videos(tmp_path, "val")
    (tmp_path / "index.json").write_text(
        json.dumps({"clips": [{"clip": "b", "split": "val"}, {"clip": "a"}]})
    )
    assert [c.name for c in read_labelled_videos(tmp_path, "train")] == ["a", "c"]
    assert [c.name for c in read_labelled_videos(tmp_path, "val")] == ["b"]
    assert [c.name for c in read_labelled_videos(tmp_path)] == ["a", "b", "c"]


def test_an_existing_folder_is_not_written_over(tmp_path: Path) -> None:
    write_labelled_video(make_clip(), tmp_path)
    with pytest.raises(UserError, match="exists"):
        write_labelled_video(make_clip(), tmp_path)


def write_label(root: Path, label: np.ndarray) -> None:
    cv2.imwrite(str(root / "drive/label/000001.png"), label)


def remove_tree(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


OPENING: dict[str, tuple[Callable[[Path], object], str]] = {
    "no labels": (lambda root: remove_tree(root / "drive/label"), r"no labels in .*label"),
    "no frames": (lambda root: remove_tree(root / "drive/img"), r"no \.jpg or \.png in .*img"),
    "label without frame": (
        lambda root: (root / "drive/img/000001.png").unlink(),
        r"000001\.png has no frame",
    ),
    "two frames of a name": (
        lambda root: (root / "drive/img/000001.jpg").touch(),
        "two pictures of one name",
    ),
    "index of a missing clip": (
        lambda root: (root / "index.json").write_text('{"clips": [{"clip": "gone"}]}'),
        "lists the clip 'gone'",
    ),
    "index without clips": (
        lambda root: (root / "index.json").write_text("[]"),
        r"index\.json is not of the form",
    ),
    "index not JSON": (lambda root: (root / "index.json").write_text("{"), r"index\.json is not of the form"),
    "bad rate": (
        lambda root: (root / "index.json").write_text('{"clips": [{"clip": "drive", "fps": "fast"}]}'),
        r"index\.json is not of the form",
    ),
    "bad split": (
        lambda root: (root / "index.json").write_text('{"clips": [{"clip": "drive", "split": "tset"}]}'),
        "split 'tset'",
    ),
}


@pytest.mark.parametrize("fault", OPENING)
def test_faults_found_when_opening(tmp_path: Path, fault: str) -> None:
    write_labelled_video(make_clip(), tmp_path)
    spoil, message = OPENING[fault]
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        read_labelled_videos(tmp_path)


READING: dict[str, tuple[Callable[[Path], object], str]] = {
    "label of another size": (
        lambda root: write_label(root, np.zeros((6, 9), np.uint16)),
        "9x6, its frame 8x6",
    ),
    "8-bit label": (lambda root: write_label(root, np.zeros((6, 8), np.uint8)), "uint8"),
    "coloured label": (lambda root: write_label(root, np.zeros((6, 8, 3), np.uint16)), "one channel"),
    "unknown class": (
        lambda root: write_label(root, np.full((6, 8), 19_000, np.uint16)),
        "19000 at row 0, column 0",
    ),
    "beyond all classes": (lambda root: write_label(root, np.full((6, 8), 65_534, np.uint16)), "65534"),
    "track id on stuff": (lambda root: write_label(root, np.full((6, 8), 10_001, np.uint16)), "stuff"),
    "damaged label": (
        lambda root: (root / "drive/label/000001.png").write_bytes(b"PNG"),
        "not a readable picture",
    ),
    "damaged frame": (
        lambda root: (root / "drive/img/000001.png").write_bytes(b"PNG"),
        "not a readable picture",
    ),
    "frame of another size": (
        lambda root: cv2.imwrite(str(root / "drive/img/000001.png"), np.zeros((8, 6, 3), np.uint8)),
        "6x8, the clip's first frame 8x6",
    ),
}


@pytest.mark.parametrize("fault", READING)
def test_faults_found_when_reading_name_the_file(tmp_path: Path, fault: str) -> None:
    write_labelled_video(make_clip(), tmp_path)
    spoil, message = READING[fault]
    spoil(tmp_path)
    (clip,) = read_labelled_videos(tmp_path)
    with pytest.raises(UserError, match=message) as caught:  # noqa: PT012 - one of the two is at fault
        clip.image(1)
        clip.truth(1)
    assert "000001.png" in str(caught.value)


def test_missing_and_empty_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        read_labelled_videos(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no clips"):
        read_labelled_videos(tmp_path)
