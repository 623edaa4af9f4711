"""Cityscapes-VPS: read as it unpacks, object by object, and every fault named."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_trees import (
    CITIES,
    SIZE,
    city_frame,
    city_maps,
    city_names,
    picture,
    save,
    write_cityscapes_vps,
)

from panoptube.data.cityscapes_vps import CITYSCAPES, VOID_COLORS, LabelFiles, read_cityscapes_vps, read_label
from panoptube.data.files import MissingData
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID

FRAME = city_frame("frankfurt", 4)
"""A labelled frame, the first of clip 0005."""


def check_clips(root: Path, split: str = "val") -> None:
    clips = pickle.loads(pickle.dumps(read_cityscapes_vps(root, split)))  # workers get them so
    assert [c.name for c in clips] == list(CITIES.values())
    for shift, clip in enumerate(clips):
        assert (clip.size, clip.fps, clip.length) == (SIZE, 17.0, 30)
        assert clip.labelled == (4, 9, 14, 19, 24, 29)
        for t in clip.labelled:
            truth = clip.truth(t)
            assert truth is not None
            _, inst, ids = city_maps(t, shift)
            assert (truth.semantic == ids).all()
            assert (truth.instance == np.where(inst >= 1000, ids.astype(int) * 1000 + inst % 1000, 0)).all()
            assert set(np.unique(truth.instance)) == {0, 11007, 13000, 13021}


def test_as_it_unpacks(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path)
    check_clips(tmp_path)
    for shift, clip in enumerate(read_cityscapes_vps(tmp_path, "val")):
        for t in range(30):
            assert (clip.image(t) == picture(t, shift)).all()


def test_as_the_published_scripts_merge_it(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path)
    for city in CITIES:
        for t, name in enumerate(city_names(city)):
            source = tmp_path / "leftImg8bit_sequence/val" / city / f"{name}_leftImg8bit.png"
            (tmp_path / "val/img_all").mkdir(exist_ok=True)
            (tmp_path / "val/img").mkdir(exist_ok=True)
            shutil.copy(source, tmp_path / "val/img_all")
            if t % 5 == 4:
                kind = "leftImg8bit" if t == 19 else "newImg8bit"
                shutil.copy(source, tmp_path / "val/img" / f"{city_frame(city, t)}_{kind}.png")
        fine = tmp_path / "gtFine/val" / city
        frame, name = city_frame(city, 19), city_names(city)[19]
        shutil.move(fine / f"{name}_gtFine_color.png", tmp_path / "val/cls" / f"{frame}_gtFine_color.png")
        shutil.move(
            fine / f"{name}_gtFine_instanceIds.png", tmp_path / "val/inst" / f"{frame}_gtFine_instanceIds.png"
        )
    shutil.rmtree(tmp_path / "leftImg8bit_sequence")
    shutil.rmtree(tmp_path / "gtFine")
    check_clips(tmp_path)
    clip = read_cityscapes_vps(tmp_path, "val")[1]
    assert all((clip.image(t) == picture(t, 1)).all() for t in range(30))


def test_cityscapes_beside_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes_vps"
    write_cityscapes_vps(root)
    shutil.move(root / "gtFine", tmp_path)
    shutil.move(root / "leftImg8bit_sequence", tmp_path)
    check_clips(root)


def test_train_with_its_labelled_images_alone(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path, "train", images=False)
    for shift, city in enumerate(CITIES):
        for t in range(4, 30, 5):
            kind = "leftImg8bit" if t == 19 else "newImg8bit"
            save(tmp_path / "train/img" / f"{city_frame(city, t)}_{kind}.png", picture(t, shift))
    check_clips(tmp_path, "train")
    clip = read_cityscapes_vps(tmp_path, "train")[0]
    assert (clip.image(9) == picture(9, 0)).all()
    with pytest.raises(MissingData, match=r"clip 0005 has no image of frame 5; unpack leftImg8bit_sequence"):
        clip.image(5)


def test_test_has_no_labels(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path, "test", labels=False)
    clips = read_cityscapes_vps(tmp_path, "test")
    assert [(c.name, c.length, c.labelled) for c in clips] == [("0005", 30, ()), ("0015", 30, ())]


def label(tmp_path: Path, rows: list[str], numbers: list[list[int]]) -> LabelFiles:
    """A label whose classes are drawn with letters; x is a colour of none."""
    colors = {c.name[0]: c.color for c in CITYSCAPES.categories if c.name in ("road", "sky", "car", "person")}
    colors |= {".": (0, 0, 0), "x": (1, 2, 3)}
    files = LabelFiles(tmp_path / "cls.png", tmp_path / "inst.png")
    save(files.cls, np.array([[colors[letter] for letter in row] for row in rows], np.uint8))
    save(files.inst, np.array(numbers, np.uint16))
    return files


def test_objects_by_hand(tmp_path: Path) -> None:
    files = label(
        tmp_path,
        ["cccpr", "rrrcp", "ppcc."],
        [
            [26999, 26999, 26999, 26999, 26999],  # mostly car: all of it is that car
            [26004, 26004, 26004, 26004, 26],  # mostly road: none, and its car pixel is void, as is a group
            [24000, 24000, 26000, 26000, 24000],  # number 0 is an object; void within it becomes it
        ],
    )
    frame, classes = read_label(files, (3, 5))
    car, person, road = CITYSCAPES.index("car"), CITYSCAPES.index("person"), CITYSCAPES.index("road")
    assert frame.semantic.tolist() == [
        [car] * 5,
        [road, road, road, VOID, VOID],
        [person, person, car, car, person],
    ]
    assert frame.instance.tolist() == [[13999] * 5, [0] * 5, [11000, 11000, 13000, 13000, 11000]]
    assert classes.tolist() == [
        [car, car, car, person, road],
        [road, road, road, car, person],
        [person, person, car, car, VOID],
    ]


def test_against_the_rule_pixel_by_pixel(tmp_path: Path) -> None:
    """The published conversion's rule (dossier 11.4), as slowly as it is said."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        letters = rng.choice(list("rscp."), (6, 8))
        numbers = rng.choice([0, 7, 999, 1000, 24001, 24123, 26001, 26005], (6, 8))
        files = label(tmp_path, ["".join(row) for row in letters], numbers.tolist())
        frame, _ = read_label(files, (6, 8))
        names = {"r": "road", "s": "sky", "c": "car", "p": "person"}
        semantic, instance = np.full((6, 8), VOID), np.zeros((6, 8), int)
        for letter in "rs":
            semantic[letters == letter] = CITYSCAPES.index(names[letter])
        for number in np.unique(numbers[numbers >= 1000]):
            inside = numbers == number
            counts = {k: int((letters[inside] == k).sum()) for k in "rscp."}
            most = [k for k in counts if counts[k] == max(counts.values())]
            if len(most) > 1:  # of equally frequent colours the one with the smallest R + 256 G + 65536 B
                order = {k: sum(v << 8 * i for i, v in enumerate(color(names.get(k)))) for k in most}
                most.sort(key=lambda k: order[k])
            if most[0] in "cp":
                semantic[inside] = CITYSCAPES.index(names[most[0]])
                instance[inside] = CITYSCAPES.index(names[most[0]]) * 1000 + number % 1000
        assert (frame.semantic == semantic).all()
        assert (frame.instance == instance).all()


def color(name: str | None) -> tuple[int, int, int]:
    return CITYSCAPES.categories[CITYSCAPES.index(name)].color if name else (0, 0, 0)


def test_void_colours_are_no_classes() -> None:
    assert not {c.color for c in CITYSCAPES.categories} & set(VOID_COLORS)


def test_unknown_colour(tmp_path: Path) -> None:
    files = label(tmp_path, ["rr", "rx"], [[0, 0], [0, 0]])
    with pytest.raises(UserError, match=r"cls\.png has the colour 1, 2, 3 at row 1, column 1: no class of"):
        read_label(files, (2, 2))
    frame, _ = read_label(files, (2, 2), void_unknown=True)
    assert frame.semantic.tolist() == [[0, 0], [0, VOID]]


def edit(root: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    path = root / "panoptic_im_val_city_vps.json"
    data = json.loads(path.read_text())
    change(data["images"])
    path.write_text(json.dumps(data))


MISSING: dict[str, tuple[Callable[[Path], object], str]] = {
    "the list": (
        lambda root: (root / "panoptic_im_val_city_vps.json").unlink(),
        r"no .*panoptic_im_val_city_vps\.json; unpack cityscapes-vps-dataset-1\.0\.zip",
    ),
    "a class label": (
        lambda root: (root / f"val/cls/{FRAME}_final_mask.png").unlink(),
        rf"no cls PNG of {FRAME}; unpack",
    ),
    "an instance label": (
        lambda root: (root / f"val/inst/{FRAME}_original_image_instance_greyscale.png").unlink(),
        rf"no inst PNG of {FRAME}; unpack",
    ),
    "gtFine": (lambda root: shutil.rmtree(root / "gtFine"), r"gtFine_trainvaltest\.zip of https"),
    "images": (
        lambda root: shutil.rmtree(root / "leftImg8bit_sequence"),
        rf"no image of {FRAME}; unpack leftImg8bit_sequence_trainvaltest\.zip of https",
    ),
}


@pytest.mark.parametrize("fault", MISSING)
def test_missing(tmp_path: Path, fault: str) -> None:
    write_cityscapes_vps(tmp_path)
    spoil, message = MISSING[fault]
    spoil(tmp_path)
    with pytest.raises(MissingData, match=message) as caught:
        read_cityscapes_vps(tmp_path, "val")
    assert "\n" not in str(caught.value)


OPENING: dict[str, tuple[Callable[[Path], object], str]] = {
    "not JSON": (lambda root: (root / "panoptic_im_val_city_vps.json").write_text("{"), "not of the form"),
    "no images": (lambda root: edit(root, lambda images: images.clear()), "lists no images"),
    "another name": (lambda root: edit(root, lambda images: images[0].update(id="0005_x")), "'0005_x'"),
    "a path": (
        lambda root: edit(root, lambda images: images[0].update(file_name="../../etc/passwd")),
        "VVVV_FFFF",
    ),
    "running number of another clip": (
        lambda root: edit(
            root,
            lambda images: images[0].update(
                id=f"0005_0031{FRAME[9:]}", file_name=f"0005_0031{FRAME[9:]}_newImg8bit.png"
            ),
        ),
        "doesn't fit into clip 0005",
    ),
    "frames not five apart": (
        lambda root: edit(
            root,
            lambda images: images[0].update(
                id=f"{FRAME[:-6]}000105", file_name=f"{FRAME[:-6]}000105_newImg8bit.png"
            ),
        ),
        "aren't five frames apart",
    ),
    "two sizes": (lambda root: edit(root, lambda images: images[1].update(width=17)), "six labelled frames"),
}


@pytest.mark.parametrize("fault", OPENING)
def test_faults_found_when_opening(tmp_path: Path, fault: str) -> None:
    write_cityscapes_vps(tmp_path)
    spoil, message = OPENING[fault]
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        read_cityscapes_vps(tmp_path, "val")


CLS, INST = f"val/cls/{FRAME}_final_mask.png", f"val/inst/{FRAME}_original_image_instance_greyscale.png"
IMAGE = f"leftImg8bit_sequence/val/frankfurt/{city_names('frankfurt')[4]}_leftImg8bit.png"
READING: dict[str, tuple[str, np.ndarray | bytes, str]] = {
    "damaged classes": (CLS, b"PNG", "not a readable picture"),
    "damaged instances": (INST, b"PNG", "not a readable picture"),
    "damaged image": (IMAGE, b"PNG", "not a readable picture"),
    "classes of another size": (CLS, np.zeros((10, 15, 3), np.uint8), "is 15x10, but its clip is 16x10"),
    "instances of another size": (INST, np.zeros((11, 16), np.uint16), "is 16x11, but its clip is 16x10"),
    "image of another size": (IMAGE, np.zeros((10, 15, 3), np.uint8), "is 15x10, but its clip is 16x10"),
    "grey classes": (CLS, np.zeros(SIZE, np.uint8), "should be a coloured one"),
    "coloured instances": (INST, np.zeros((*SIZE, 3), np.uint8), "one channel"),
}


@pytest.mark.parametrize("fault", READING)
def test_faults_found_when_reading_name_the_file(tmp_path: Path, fault: str) -> None:
    write_cityscapes_vps(tmp_path)
    name, content, message = READING[fault]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        save(tmp_path / name, content)
    clip = read_cityscapes_vps(tmp_path, "val")[0]
    with pytest.raises(UserError, match=message) as caught:  # noqa: PT012 - one of the two is at fault
        clip.image(4)
        clip.truth(4)
    assert Path(name).name in str(caught.value)


def test_cut_short(tmp_path: Path) -> None:
    write_cityscapes_vps(tmp_path)
    data = (tmp_path / CLS).read_bytes()
    (tmp_path / CLS).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="not a readable picture"):
        read_cityscapes_vps(tmp_path, "val")[0].truth(4)


def test_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'all'; it has train, val, test"):
        read_cityscapes_vps(tmp_path, "all")
