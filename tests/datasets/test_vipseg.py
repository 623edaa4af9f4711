"""VIPSeg: read as it unpacks, and every fault named."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_trees import SIZE, classes, save, scene, vipseg_map, write_vipseg

from panoptube.data.files import MissingData
from panoptube.data.vipseg import VIPSEG, read_vipseg
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID

MASK = "panomasks/6_qHIKRwYe3Cs/00000000.png"


def test_classes() -> None:
    assert (len(VIPSEG), VIPSEG.num_things) == (124, 58)
    assert sorted(c.id for c in VIPSEG.categories) == list(range(124))
    by_id = {c.id: c for c in VIPSEG.categories}
    # The README's example: the values of persons are 6100, 6101, ..., category 61 counted from 1.
    assert (by_id[60].name, by_id[60].isthing, by_id[60].color) == ("person", True, (11, 200, 200))
    assert (by_id[0].name, by_id[123].name) == ("wall", "train")


@pytest.mark.parametrize("resized", [False, True])
def test_as_it_unpacks(tmp_path: Path, resized: bool) -> None:
    write_vipseg(tmp_path)
    root = tmp_path
    if resized:  # the folder that the published script makes, beside the lists
        root = tmp_path / "VIPSeg_720P"
        root.mkdir()
        shutil.move(tmp_path / "imgs", root / "images")
        shutil.move(tmp_path / "panomasks", root)
    clips = pickle.loads(pickle.dumps(read_vipseg(root, "val")))
    assert [c.name for c in clips] == ["127_-hIVCYO4C90", "6_qHIKRwYe3Cs"]
    names = {"s": "sky", "r": "road", "c": "car", "p": "person"}
    for shift, clip in enumerate(clips):
        assert (clip.size, clip.fps, clip.length, clip.labelled) == (SIZE, 5.0, 3, (0, 1, 2))
        for t in range(3):
            assert clip.image(t).shape == (*SIZE, 3)
            truth = clip.truth(t)
            assert truth is not None
            kinds, numbers = scene(t, shift)
            assert (truth.semantic == classes(kinds, {k: VIPSEG.index(n) for k, n in names.items()})).all()
            assert (truth.instance == np.where(numbers >= 0, vipseg_map(t, shift), 0)).all()
            assert set(np.unique(truth.instance)) == {0, 4900, 4921, 6107}
    assert [c.name for c in read_vipseg(root, "train")] == ["10_abc"]
    (clip,) = read_vipseg(root, "test")
    assert (clip.name, clip.length, clip.labelled) == ("11_abc", 3, ())


def test_values_by_hand(tmp_path: Path) -> None:
    write_vipseg(tmp_path)
    values = np.zeros(SIZE, np.uint16)
    values[0, :6] = [0, 1, 124, 61, 12499, 300]
    save(tmp_path / MASK, values)
    truth = read_vipseg(tmp_path, "val")[1].truth(0)
    assert truth is not None
    wall, train, person, door = map(VIPSEG.index, ("wall", "train", "person", "door"))
    assert truth.semantic[0, :6].tolist() == [VOID, wall, train, person, train, door]
    # A thing without a number is an object, as in the published conversion.
    assert truth.instance[0, :6].tolist() == [0, 0, 124, 61, 12499, 300]


MISSING: dict[str, tuple[Callable[[Path], object], str]] = {
    "images": (
        lambda root: shutil.rmtree(root / "imgs"),
        r"no videos in .*imgs; unpack the download linked on",
    ),
    "list": (lambda root: (root / "val.txt").unlink(), r"no .*val\.txt; take it from https"),
    "a video": (
        lambda root: shutil.rmtree(root / "imgs/6_qHIKRwYe3Cs"),
        r"no .*6_qHIKRwYe3Cs, which .*val\.txt",
    ),
    "masks of a video": (
        lambda root: shutil.rmtree(root / "panomasks/6_qHIKRwYe3Cs"),
        r"no labels in .*panomasks/6_qHIKRwYe3Cs; unpack",
    ),
    "image of a mask": (
        lambda root: (root / "imgs/6_qHIKRwYe3Cs/00000000.jpg").unlink(),
        r"panomasks/6_qHIKRwYe3Cs/00000000\.png has no image",
    ),
}


@pytest.mark.parametrize("fault", MISSING)
def test_missing(tmp_path: Path, fault: str) -> None:
    write_vipseg(tmp_path / "VIPSeg")
    spoil, message = MISSING[fault]
    spoil(tmp_path / "VIPSeg")
    with pytest.raises(MissingData, match=message):
        read_vipseg(tmp_path / "VIPSeg", "val")


READING: dict[str, tuple[np.ndarray | bytes, str]] = {
    "unknown class": (
        np.full(SIZE, 12500, np.uint16),
        "value 12500 at row 0, column 0: VIPSeg's classes end",
    ),
    "object of stuff": (
        np.full(SIZE, 2901, np.uint16),
        "value 2901 at row 0, column 0: an object of a stuff",
    ),
    "damaged": (b"PNG", "not a readable picture"),
    "another size": (np.zeros((9, 16), np.uint16), "is 16x9, but its clip is 16x10"),
    "coloured": (np.zeros((*SIZE, 3), np.uint8), "one channel"),
}


@pytest.mark.parametrize("fault", READING)
def test_faults_found_when_reading_name_the_file(tmp_path: Path, fault: str) -> None:
    write_vipseg(tmp_path)
    content, message = READING[fault]
    if isinstance(content, bytes):
        (tmp_path / MASK).write_bytes(content)
    else:
        save(tmp_path / MASK, content)
    clip = read_vipseg(tmp_path, "val")[1]
    with pytest.raises(UserError, match=message) as caught:
        clip.truth(0)
    assert MASK in str(caught.value)


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'all'"):
        read_vipseg(tmp_path, "all")
