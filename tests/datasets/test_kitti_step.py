"""KITTI-STEP: read as it unpacks, and every fault named."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_trees import SIZE, classes, kitti_map, picture, save, scene, write_kitti_step

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.files import MissingData
from panoptube.data.kitti_step import KITTI_STEP, read_kitti_step
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID

MAP = "kitti-step/panoptic_maps/val/0002/000000.png"


def test_classes() -> None:
    """Cityscapes' train ids; only persons and cars have instances."""
    assert {c.id: c.name for c in KITTI_STEP.categories} == {c.id: c.name for c in CITYSCAPES.categories}
    assert [(c.id, c.name) for c in KITTI_STEP.categories if c.isthing] == [(11, "person"), (13, "car")]


@pytest.mark.parametrize("arranged", [False, True])
def test_as_it_unpacks(tmp_path: Path, arranged: bool) -> None:
    write_kitti_step(tmp_path)
    if arranged:  # as DeepLab2 wants it
        shutil.move(tmp_path / "kitti-step/panoptic_maps", tmp_path)
        for split, name in (("train", "0000"), ("val", "0002")):
            (tmp_path / "images" / split).mkdir(parents=True)
            shutil.move(tmp_path / "training/image_02" / name, tmp_path / "images" / split)
        shutil.move(tmp_path / "testing/image_02", tmp_path / "images/test")
    names = {"s": "sky", "r": "road", "c": "car", "p": "person"}
    for shift, (split, name) in enumerate((("train", "0000"), ("val", "0002"))):
        (clip,) = pickle.loads(pickle.dumps(read_kitti_step(tmp_path, split)))
        assert (clip.name, clip.size, clip.fps, clip.length, clip.labelled) == (
            name,
            SIZE,
            10.0,
            3,
            (0, 1, 2),
        )
        for t in range(3):
            assert (clip.image(t) == picture(t, shift)).all()
            truth = clip.truth(t)
            assert truth is not None
            kinds, numbers = scene(t, shift)
            assert (
                truth.semantic == classes(kinds, {k: KITTI_STEP.index(n) for k, n in names.items()})
            ).all()
            ids = classes(kinds, {"c": 13, "p": 11}).astype(int)
            assert (truth.instance == np.where(numbers >= 0, ids * 65536 + 300 * numbers + 1, 0)).all()
    (clip,) = read_kitti_step(tmp_path, "test")
    assert (clip.name, clip.length, clip.labelled) == ("0000", 3, ())
    assert (clip.image(1) == picture(1, 9)).all()


def test_values_by_hand(tmp_path: Path) -> None:
    write_kitti_step(tmp_path)
    values = kitti_map(0, 1)
    values[0, :4] = [[13, 1, 44], [13, 0, 0], [255, 0, 0], [12, 0, 0]]
    save(tmp_path / MAP, values)
    truth = read_kitti_step(tmp_path, "val")[0].truth(0)
    assert truth is not None
    car, rider = KITTI_STEP.index("car"), KITTI_STEP.index("rider")
    assert truth.semantic[0, :4].tolist() == [car, car, VOID, rider]
    assert truth.instance[0, :4].tolist() == [13 * 65536 + 300, 0, 0, 0]  # a car without an instance is crowd


def test_sequence_that_skips_numbers(tmp_path: Path) -> None:
    write_kitti_step(tmp_path)
    (tmp_path / "training/image_02/0002/000001.png").unlink()
    (tmp_path / MAP).with_name("000001.png").unlink()
    (clip,) = read_kitti_step(tmp_path, "val")
    assert (clip.length, clip.labelled) == (2, (0, 1))
    assert (clip.image(1) == picture(2, 1)).all()


MISSING: dict[str, tuple[Callable[[Path], object], str]] = {
    "labels": (
        lambda root: shutil.rmtree(root / "kitti-step"),
        r"no sequences in .*val; unpack https.*tar\.gz",
    ),
    "images of a sequence": (
        lambda root: shutil.rmtree(root / "training/image_02/0002"),
        r"no .*image_02/0002; unpack data_tracking_image_2\.zip of https",
    ),
    "image of a label": (
        lambda root: (root / "training/image_02/0002/000001.png").unlink(),
        r"no .*0002/000001\.png; unpack",
    ),
    "all images of a sequence": (
        lambda root: [p.unlink() for p in (root / "training/image_02/0002").iterdir()],
        r"no \.png in .*0002; unpack",
    ),
}


@pytest.mark.parametrize("fault", MISSING)
def test_missing(tmp_path: Path, fault: str) -> None:
    write_kitti_step(tmp_path)
    spoil, message = MISSING[fault]
    spoil(tmp_path)
    with pytest.raises(MissingData, match=message):
        read_kitti_step(tmp_path, "val")


def test_no_test_images(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no sequences in .*testing/image_02"):
        read_kitti_step(tmp_path, "test")
    with pytest.raises(UserError, match="no split 'all'"):
        read_kitti_step(tmp_path, "all")


READING: dict[str, tuple[np.ndarray | bytes, str]] = {
    "unknown class": (
        np.full((*SIZE, 3), [19, 0, 0], np.uint8),
        "colour 19, 0, 0 at row 0, column 0: R is no",
    ),
    "instance of a rider": (np.full((*SIZE, 3), [12, 0, 1], np.uint8), "colour 12, 0, 1 at row 0, column 0"),
    "instance of void": (np.full((*SIZE, 3), [255, 1, 0], np.uint8), "colour 255, 1, 0 at row 0"),
    "damaged": (b"PNG", "not a readable picture"),
    "another size": (np.zeros((9, 16, 3), np.uint8), "is 16x9, but its clip is 16x10"),
    "grey": (np.zeros(SIZE, np.uint8), "should be a coloured one"),
}


@pytest.mark.parametrize("fault", READING)
def test_faults_found_when_reading_name_the_file(tmp_path: Path, fault: str) -> None:
    write_kitti_step(tmp_path)
    content, message = READING[fault]
    if isinstance(content, bytes):
        (tmp_path / MAP).write_bytes(content)
    else:
        save(tmp_path / MAP, content)
    (clip,) = read_kitti_step(tmp_path, "val")
    with pytest.raises(UserError, match=message) as caught:
        clip.truth(0)
    assert MAP in str(caught.value)
