"""VIPER: read as it unpacks, sequences by list, the first frames, and every fault named."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_trees import SIZE, VIPER_CSV, classes, picture, save, scene, viper_maps, write_viper

from panoptube.data.files import MissingData
from panoptube.data.viper import CSV_IDS, VIPER, read_label, read_viper
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID

CSV = """0,unlabeled,0,0,0
1,ambiguous,111,74,0
2,sky,70,130,180
3,road,128,64,128
4,sidewalk,244,35,232
5,railtrack,230,150,140
6,terrain,152,251,152
7,tree,87,182,35
8,vegetation,35,142,35
9,building,70,70,70
10,infrastructure,153,153,153
11,fence,190,153,153
12,billboard,150,20,20
13,trafficlight,250,170,30
14,trafficsign,220,220,0
15,mobilebarrier,180,180,100
16,firehydrant,173,153,153
17,chair,168,153,153
18,trash,81,0,21
19,trashcan,81,0,81
20,person,220,20,60
21,animal,255,0,0
22,bicycle,119,11,32
23,motorcycle,0,0,230
24,car,0,0,142
25,van,0,80,100
26,bus,0,60,100
27,truck,0,0,70
28,trailer,0,0,90
29,train,0,80,100
30,plane,0,100,100
31,boat,50,0,90"""
"""VIPER's classes.csv, its first five columns."""


def test_class_numbers() -> None:
    rows = {int(row[0]): row for row in (line.split(",") for line in CSV.splitlines())}
    for number, category in zip(CSV_IDS, VIPER.categories, strict=True):
        assert rows[number][1] == category.name
        assert tuple(map(int, rows[number][2:5])) == category.color
    left = {rows[n][1] for n in set(rows) - set(CSV_IDS)}
    assert left == {
        "unlabeled", "ambiguous", "railtrack", "animal", "bicycle", "trailer", "train", "plane", "boat"
    }  # fmt: skip


def test_as_it_unpacks(tmp_path: Path) -> None:
    write_viper(tmp_path, suffix=".png")
    clips = pickle.loads(pickle.dumps(read_viper(tmp_path, "val")))
    assert [c.name for c in clips] == ["003", "004"]
    names = {"s": "sky", "r": "road", "c": "car", "p": "person"}
    for shift, clip in enumerate(clips):
        assert (clip.size, clip.fps, clip.length, clip.labelled) == (SIZE, 15.0, 4, (0, 1, 2, 3))
        for t in range(4):
            assert (clip.image(t) == picture(t, shift)).all()
            truth = clip.truth(t)
            assert truth is not None
            kinds, numbers = scene(t, shift)
            assert (truth.semantic == classes(kinds, {k: VIPER.index(n) for k, n in names.items()})).all()
            cls = truth.semantic.astype(int)
            assert (truth.instance == np.where(numbers >= 0, cls * 65536 + 1000 + numbers, 0)).all()


def test_jpg(tmp_path: Path) -> None:
    write_viper(tmp_path, sequences=1)
    (clip,) = read_viper(tmp_path, "val")
    assert clip.image(3).shape == (*SIZE, 3)


def test_sequences_and_frames(tmp_path: Path) -> None:
    write_viper(tmp_path, sequences=3, frames=55)
    assert [len(c) for c in read_viper(tmp_path, "val")] == [50, 50, 50]
    listed = tmp_path / "day.txt"
    listed.write_text("# by day\n\n005\n003\n")
    clips = read_viper(tmp_path, "val", listed, frames=None)
    assert [(c.name, len(c)) for c in clips] == [("003", 55), ("005", 55)]
    assert [(c.name, len(c), c.labelled) for c in read_viper(tmp_path, "val", listed, 2)] == [
        ("003", 2, (0, 1)),
        ("005", 2, (0, 1)),
    ]
    listed.write_text("003\n077\n")
    with pytest.raises(MissingData, match=r"day\.txt names the sequence '077', but there is no .*img/077"):
        read_viper(tmp_path, "val", listed)
    listed.write_text("# none\n")
    with pytest.raises(UserError, match=r"day\.txt names nothing"):
        read_viper(tmp_path, "val", listed)
    with pytest.raises(UserError, match="0 frames"):
        read_viper(tmp_path, "val", frames=0)


def test_labels_of_some_frames(tmp_path: Path) -> None:
    write_viper(tmp_path, sequences=1)
    (tmp_path / "val/cls/003/003_00002.png").unlink()
    (clip,) = read_viper(tmp_path, "val")
    assert clip.labelled == (0, 2, 3)


def test_test_has_no_labels(tmp_path: Path) -> None:
    write_viper(tmp_path, "test", sequences=1)
    (clip,) = read_viper(tmp_path, "test")
    assert (len(clip), clip.labelled) == (4, ())


def test_things_by_hand(tmp_path: Path) -> None:
    cls, inst = tmp_path / "cls.png", tmp_path / "inst.png"
    save(cls, np.array([[24, 24, 24, 3, 31, 22]], np.uint8))
    save(
        inst, np.array([[[24, 1, 2], [24, 255, 255], [24, 0, 0], [3, 0, 9], [31, 0, 1], [0, 0, 0]]], np.uint8)
    )
    frame, every = read_label(cls, inst, (1, 6))
    car, road = VIPER.index("car"), VIPER.index("road")
    # A car without an instance is void; boats and bicycles are no classes; roads have no instances.
    assert frame.semantic.tolist() == [[car, car, VOID, road, VOID, VOID]]
    assert frame.instance.tolist() == [[car * 65536 + 258, car * 65536 + 65535, 0, 0, 0, 0]]
    assert every.tolist() == [[car, car, car, road, VOID, VOID]]


def test_indexed_colours(tmp_path: Path) -> None:
    """The toolkit calls class labels indexed images: numbers count, not the palette's colours."""
    from PIL import Image

    write_viper(tmp_path, sequences=1)
    cls, _ = viper_maps(0, 0)
    indexed = Image.fromarray(cls, "P")
    indexed.putpalette([value for line in CSV.splitlines() for value in map(int, line.split(",")[2:])])
    before = read_viper(tmp_path, "val")[0].truth(0)
    indexed.save(tmp_path / "val/cls/003/003_00001.png")
    after = read_viper(tmp_path, "val")[0].truth(0)
    assert before is not None
    assert after is not None
    assert (before.semantic == after.semantic).all()
    assert VIPER_CSV["c"] in cls


OPENING: dict[str, tuple[Callable[[Path], object], str]] = {
    "no images": (lambda root: shutil.rmtree(root / "val/img"), r"no sequences in .*val/img; unpack"),
    "empty sequence": (lambda root: empty(root / "val/img/003"), r"no \.jpg or \.png in .*img/003"),
    "no class labels": (lambda root: shutil.rmtree(root / "val/cls"), r"no labels of 003 in .*cls; unpack"),
    "no instance labels": (
        lambda root: shutil.rmtree(root / "val/inst"),
        r"no .*inst/003/003_00001\.png; unpack the semantic instance labels of https",
    ),
    "label without image": (
        lambda root: (root / "val/img/003/003_00002.jpg").unlink(),
        r"cls/003/003_00002\.png has no image",
    ),
    "every second frame": (
        lambda root: [
            p.unlink() for part in ("img", "cls") for p in (root / "val" / part).rglob("*[02468].*g")
        ],
        r"frames in .*img/003 are 2 apart; unpack the images of all frames",
    ),
    "two pictures of a name": (
        lambda root: (root / "val/img/003/003_00002.png").touch(),
        "two pictures of one name",
    ),
    "another name": (lambda root: (root / "val/img/003/x.jpg").touch(), r"x\.jpg isn't called SSS_FFFFF"),
    "frame of another sequence": (
        lambda root: (root / "val/img/003/004_00009.jpg").touch(),
        r"004_00009\.jpg isn't called SSS_FFFFF",
    ),
    "another folder": (
        lambda root: save(root / "val/img/day/day_00001.jpg", picture(0)),
        r"img/day isn't called SSS_FFFFF",
    ),
}


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize("fault", OPENING)
def test_faults_found_when_opening(tmp_path: Path, fault: str) -> None:
    write_viper(tmp_path, frames=6)
    spoil, message = OPENING[fault]
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        read_viper(tmp_path, "val")


CLS, INST = "val/cls/003/003_00001.png", "val/inst/003/003_00001.png"
WRONG = viper_maps(0, 0)[1]
WRONG[WRONG[:, :, 0] == 24] += np.array([1, 0, 0], np.uint8)
READING: dict[str, tuple[str, np.ndarray | bytes, str]] = {
    "unknown class": (
        CLS,
        np.full(SIZE, 32, np.uint8),
        "value 32 at row 0, column 0: VIPER's classes.csv ends",
    ),
    "another class in the instances": (INST, WRONG, "colour 25, 3, 232 at row 4.*isn't that of .*cls"),
    "damaged classes": (CLS, b"", "not a readable picture"),
    "damaged instances": (INST, b"PNG", "not a readable picture"),
    "classes of another size": (CLS, np.zeros((10, 15), np.uint8), "is 15x10, but its clip is 16x10"),
    "instances of another size": (INST, np.zeros((9, 16, 3), np.uint8), "is 16x9, but its clip is 16x10"),
    "grey instances": (INST, np.zeros(SIZE, np.uint8), "should be a coloured one"),
    "coloured classes": (CLS, np.zeros((*SIZE, 3), np.uint8), "one channel"),
}


@pytest.mark.parametrize("fault", READING)
def test_faults_found_when_reading_name_the_file(tmp_path: Path, fault: str) -> None:
    write_viper(tmp_path, sequences=1)
    name, content, message = READING[fault]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        save(tmp_path / name, content)
    (clip,) = read_viper(tmp_path, "val")
    with pytest.raises(UserError, match=message) as caught:
        clip.truth(0)
    assert name in str(caught.value)


def test_image_of_another_size(tmp_path: Path) -> None:
    write_viper(tmp_path, sequences=1, suffix=".png")
    save(tmp_path / "val/img/003/003_00002.png", picture(0, 0, (8, 8)))
    (clip,) = read_viper(tmp_path, "val")
    with pytest.raises(UserError, match=r"003_00002\.png is 8x8, but its clip is 16x10"):
        clip.image(1)
    (tmp_path / "val/img/003/003_00003.png").unlink()
    with pytest.raises(UserError, match=r"003_00003\.png is missing"):
        clip.image(2)


def test_grey_with_alpha(tmp_path: Path) -> None:
    from PIL import Image

    write_viper(tmp_path, sequences=1)
    Image.new("LA", SIZE[::-1]).save(tmp_path / CLS)
    (clip,) = read_viper(tmp_path, "val")
    with pytest.raises(UserError, match=r"003_00001\.png is a LA picture; it should have one channel"):
        clip.truth(0)
