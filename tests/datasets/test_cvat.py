"""CVAT's export by hand; whatever is wrong in it is named, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from official_trees import save

from panoptube.data import cvat
from panoptube.data.coco_video import read_coco_video
from panoptube.data.cvat import fill_polygon, import_cvat
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID

SIZE = (6, 8)
META = """<size>3</size><mode>interpolation</mode><start_frame>10</start_frame>
<frame_filter>step=2</frame_filter>
<labels><label><name>car</name><color>#00008e</color></label><label><name>road</name></label>
<label><name>nose</name><parent>dog</parent></label><label><name>dog</name></label></labels>"""
ROAD = '<track id="0" label="road"><polygon frame="10" points="0,3;8,3;8,6;0,6" z_order="0"/></track>'
CAR = """<track id="1" label="car">
<polygon frame="10" outside="0" points="1,2;4,2;4,5;1,5" z_order="0"/>
<polygon frame="12" outside="1" points="1,2;4,2;4,5;1,5" z_order="0"/>
<polygon frame="14" outside="0" points="2,2;5,2;5,5;2,5" z_order="0"/></track>"""
DOGS = """<track id="2" label="dog" group_id="7">
<mask frame="10" rle="1, 2, 3" left="3" top="1" width="3" height="2" z_order="1"/>
<mask frame="11" outside="1"/></track>
<track id="3" label="dog" group_id="7">
<mask frame="10" rle="0, 1" left="7" top="0" width="1" height="1" z_order="-1"/></track>
<track id="4" label="dog" group_id="7">
<mask frame="14" rle="0, 4" left="0" top="0" width="2" height="2" z_order="0"/></track>"""
FRAME_10 = """
.......D
....DD..
.CCC....
rCCCrrrr
rCCCrrrr
rrrrrrrr"""
FRAME_14 = """
DD......
DD......
..CCC...
..CCC...
..CCC...
........"""


def document(tracks: str = ROAD + CAR + DOGS, meta: str = META) -> str:
    return f"<?xml version='1.0'?><annotations><meta><task>{meta}</task></meta>{tracks}</annotations>"


def write(folder: Path, text: str | None = None, names: tuple[str, ...] | None = None) -> Path:
    """An export of three frames, 10, 12 and 14."""
    for t, name in enumerate(names or ("frame_000010", "frame_000012", "frame_000014")):
        save(folder / f"images/{name}.png", np.full((*SIZE, 3), 10 * t, np.uint8))
    (folder / "annotations.xml").write_text(document() if text is None else text)
    return folder


def run(export: Path, out: Path, split: str = "train", **options: object) -> str:
    return import_cvat(export, out, split, ["road"], progress=False, **options)  # type: ignore[arg-type]


def drawing(out: Path, t: int, split: str = "train", video: int = 0) -> str:
    clip = read_coco_video(out, split)[video]
    truth = clip.truth(t)
    assert truth is not None
    letters = {VOID: ".", 0: "r", 1: "C", 2: "D"}
    assert clip.taxonomy.names == ("road", "car", "dog")
    return "\n" + "\n".join("".join(letters[v] for v in row) for row in truth.semantic.tolist())


def test_polygon_by_hand() -> None:
    inside = fill_polygon(np.array([[2.0, 1.0], [6.0, 1.0], [6.0, 4.0], [2.0, 4.0]]), SIZE)
    assert inside.sum() == 12
    assert inside[1:4, 2:6].all()
    assert fill_polygon(np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]), SIZE).sum() in (6, 10)
    assert fill_polygon(np.array([[-50.0, -50.0], [90.0, -50.0], [90.0, 90.0], [-50.0, 90.0]]), SIZE).all()
    assert not fill_polygon(np.array([[20.0, 1.0], [30.0, 1.0], [30.0, 4.0]]), SIZE).any()


def test_polygon_against_a_slow_version() -> None:
    """Each pixel's middle: how many edges cross the line to its left."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.uniform(-3, 11, (int(rng.integers(3, 9)), 2))
        expected = np.zeros(SIZE, bool)
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                x, y = column + 0.5, row + 0.5
                crossings = 0
                for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0)):
                    if (y0 <= y) != (y1 <= y):
                        crossings += x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x
                expected[row, column] = crossings % 2
        np.testing.assert_array_equal(fill_polygon(points, SIZE), expected)


def test_polygons_that_share_an_edge_cover_each_pixel_once() -> None:
    rng = np.random.default_rng(1)
    for middle in rng.uniform(0, 6, (20, 2)):
        corners = np.array([[0.0, 0.0], [8.0, 0.0], [8.0, 6.0], [0.0, 6.0]])
        parts = [
            fill_polygon(np.array([a, b, middle]), SIZE) for a, b in zip(corners, np.roll(corners, -1, 0))
        ]
        assert (np.sum(parts, axis=0) == 1).all()


def test_a_task_by_hand(tmp_path: Path) -> None:
    """Things over stuff of the same z-order, a mask below all, outside, void, a frame without shapes."""
    line = run(write(tmp_path / "export/drive"), tmp_path / "out")
    assert line.endswith("panoptic_train.json: 1 videos, 3 frames, 2 objects")
    (clip,) = read_coco_video(tmp_path / "out", "train")
    assert (clip.name, clip.length, clip.labelled, clip.fps) == ("drive", 3, (0, 2), 25.0)
    assert [clip.image(t)[0, 0, 0] for t in range(3)] == [0, 10, 20]
    assert [c.color for c in clip.taxonomy.categories][1] == (0, 0, 142)
    assert drawing(tmp_path / "out", 0) == FRAME_10
    assert drawing(tmp_path / "out", 2) == FRAME_14
    first, last = clip.truth(0), clip.truth(2)
    assert first is not None
    assert last is not None
    for truth in (first, last):  # car and dog keep their numbers, the dog's two pieces are one object
        assert [np.unique(truth.instance[truth.semantic == label]).tolist() for label in (1, 2)] == [
            [int(first.instance[2, 1])],
            [int(first.instance[0, 7])],
        ]
    stored = json.loads((tmp_path / "out/panoptic_train.json").read_text())
    assert [image["frame_id"] for image in stored["images"]] == [10, 12, 14]
    tracks = [
        {s["track_id"]: s["id"] for s in a["segments_info"] if "track_id" in s} for a in stored["annotations"]
    ]
    assert tracks[0] == tracks[1]
    assert len(tracks[0]) == 2


def test_higher_z_order_wins_over_kind_and_order(tmp_path: Path) -> None:
    road = ROAD.replace('z_order="0"', 'z_order="1"')
    run(write(tmp_path / "a", document(road + CAR)), tmp_path / "out")
    assert drawing(tmp_path / "out", 0) == "\n........\n........\n.CCC....\n" + "\n".join(["rrrrrrrr"] * 3)


def test_two_tasks_have_objects_of_their_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "exports" / name)
    assert "2 videos, 6 frames, 4 objects" in run(tmp_path / "exports", tmp_path / "out", fps=12.5)
    clips = read_coco_video(tmp_path / "out", "train")
    assert [(clip.name, clip.fps) for clip in clips] == [("a", 12.5), ("b", 12.5)]
    assert drawing(tmp_path / "out", 0, video=1) == FRAME_10
    found = [set(np.unique(truth.instance)) for clip in clips if (truth := clip.truth(0)) is not None]
    assert found[0] & found[1] == {0}


def test_deleted_frames_are_told_by_name(tmp_path: Path) -> None:
    run(write(tmp_path / "a", names=("frame_000010", "frame_000014")), tmp_path / "out")
    assert drawing(tmp_path / "out", 1) == FRAME_14


def test_other_names_go_by_order(tmp_path: Path) -> None:
    """Pictures that were uploaded, and frames that someone else numbered from 1."""
    uploaded = document().replace("interpolation", "annotation")
    run(write(tmp_path / "a", uploaded, ("frame_000010", "frame_000011", "frame_000012")), tmp_path / "out")
    assert drawing(tmp_path / "out", 2) == FRAME_14
    run(write(tmp_path / "b", None, ("frame_1", "frame_2", "frame_3")), tmp_path / "out", "val")
    assert drawing(tmp_path / "out", 2, "val") == FRAME_14


def test_images_elsewhere(tmp_path: Path) -> None:
    export = write(tmp_path / "exports/a")
    for place in ("frames", "videos/a"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (export / "images").rename(tmp_path / place)
        out = tmp_path / place.replace("/", "_") / "out"
        run(export, out, images=(tmp_path / place.split("/")[0]))
        (clip,) = read_coco_video(out, "train")
        assert [int(clip.image(t).mean()) for t in range(len(clip))] == [0, 10, 20]
        (tmp_path / place).rename(export / "images")


def test_overwrite_is_asked_for_and_keeps_the_old_until_the_new_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(write(tmp_path / "a"), out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=r"panoptic_train\.json exists.*--overwrite"):
        run(tmp_path / "a", out)
    write(tmp_path / "b", document(CAR.replace("1,2;", "1;")))
    with pytest.raises(UserError, match="polygon"):
        run(tmp_path / "b", out, overwrite=True)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    write(tmp_path / "b", document(ROAD))
    run(tmp_path / "b", out, overwrite=True)
    assert [clip.name for clip in read_coco_video(out, "train")] == ["b"]
    assert sorted(p.name for p in out.iterdir()) == ["panoptic_train", "panoptic_train.json", "train"]


def test_a_failed_step_brings_the_old_split_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    run(write(tmp_path / "a"), out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.parent.name == ".import-train.part" and self.name == "panoptic_train":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="No space left"):
        run(tmp_path / "a", out, overwrite=True)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


BOMB = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace("<annotations>", BOMB + "<annotations>"), "declares a document type"),
        (lambda s: s[:-30], "is not whole XML"),
        (lambda s: "", "is not whole XML"),
        (lambda s: "PK\x03\x04", "is not whole XML"),
        (lambda s: s.replace("task>", "job>"), "is no export of a task"),
        (lambda s: s.replace("<track", "<image/><track", 1), "is no export of a task"),
        (
            lambda s: s.replace("<polygon", "<box", 1),
            "has a box in track 0",
        ),
        (lambda s: s.replace('label="car"', 'label="bus"'), "has a track of 'bus'"),
        (lambda s: s.replace('frame="14"', 'frame="13"'), "shape in frame 13, of which"),
        (lambda s: s.replace('frame="14"', 'frame="x"'), "has 'x' where a whole number"),
        (lambda s: s.replace('frame="14"', 'frame="-1"'), "has '-1' where a whole number"),
        (lambda s: s.replace("0,3;", "nan,3;"), "has a polygon of the points"),
        (lambda s: s.replace("0,3;", "1e300,3;"), "has a polygon of the points"),
        (lambda s: s.replace("0,3;8,3;8,6;0,6", "0,3;8,3"), "has a polygon of the points"),
        (lambda s: s.replace('rle="1, 2, 3"', 'rle="1, 2, 4"'), "has a mask of 3x2 pixels"),
        (lambda s: s.replace('rle="1, 2, 3"', 'rle="1, 9999999999"'), "has a mask of 3x2 pixels"),
        (lambda s: s.replace('rle="1, 2, 3"', 'rle=""'), "has '' where a whole number"),
        (lambda s: s.replace('left="7"', 'left="8"'), "has a mask of 1x1 pixels at 8, 0"),
        (lambda s: s.replace("<name>road</name>", "<name>street</name>"), "has a track of 'road'"),
        (lambda s: document(""), "has no shape that covers a pixel"),
        (
            lambda s: s.replace(
                "<size>", "<original_size><width>9</width><height>6</height></original_size><size>"
            ),
            "is of a video of 9x6",
        ),
    ],
)
def test_faults_are_named_and_nothing_is_written(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    text = change(document())
    assert text != document()
    write(tmp_path / "a", text)
    with pytest.raises(UserError, match=message) as caught:
        run(tmp_path / "a", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_faults_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="unpack it"):
        run(tmp_path / "a.zip", out)
    with pytest.raises(UserError, match=r"has no annotations\.xml"):
        run(tmp_path, out)
    export = write(tmp_path / "a")
    with pytest.raises(UserError, match=r"'\.\./x' is no name of a split"):
        run(export, out, "../x")
    with pytest.raises(UserError, match="no label is called 'sky'; there are car, road, dog"):
        import_cvat(export, out, "train", ["sky"], progress=False)
    with pytest.raises(UserError, match="fps is 0"):
        run(export, out, fps=0.0)
    with pytest.raises(UserError, match="has no images"):
        run(export, out, images=tmp_path / "nowhere")
    save(export / "images/frame_000012.png", np.zeros((7, 8, 3), np.uint8))
    with pytest.raises(UserError, match=r"frame_000012\.png is 8x7, the first 8x6"):
        run(export, out)
    (export / "images/frame_000012.png").unlink()
    (export / "images/frame_000010.png").rename(export / "images/first.png")
    with pytest.raises(UserError, match=r"has 2 images, but the task of .* 3 frames"):
        run(export, out)
    monkeypatch.setattr(cvat, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="cut the video into several tasks"):
        run(write(tmp_path / "b"), out)
    assert not out.exists()


def test_tasks_and_splits_must_have_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path / "exports/a")
    write(tmp_path / "exports/b", document(CAR, META.replace("<name>dog</name>", "<name>cat</name>")))
    with pytest.raises(UserError, match="give all tasks the labels of one project"):
        run(tmp_path / "exports", tmp_path / "out")
    run(tmp_path / "exports/a", tmp_path / "out")
    with pytest.raises(UserError, match=r"panoptic_train\.json has other classes \(road\)"):
        import_cvat(tmp_path / "exports/a", tmp_path / "out", "val", progress=False)


def test_files_that_no_import_wrote_stay(tmp_path: Path) -> None:
    (tmp_path / "out/train").mkdir(parents=True)
    with pytest.raises(UserError, match="which no import has written"):
        run(write(tmp_path / "a"), tmp_path / "out", overwrite=True)
