import sys
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from panoptube.cli import main
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.errors import UserError
from panoptube.metrics.table import FrameTable, compare_frames
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import PanopticFrame
from panoptube.view.figure import Box, find_boxes, matched_colors, recolor, reference_colors
from panoptube.view.mistakes import view
from panoptube.view.overlay import overlay

CAR, TRUCK = CITYSCAPES.index("car"), CITYSCAPES.index("truck")


def key(label: int, track: int) -> int:
    return (label + 1) * 2**32 + track


def table(*rows: tuple[int, int, int]) -> FrameTable:
    rows = tuple(sorted(rows))
    return FrameTable(*(np.array(column, np.int64) for column in zip(*rows)))


def frame(size=(64, 128), **things: tuple[int, int, slice, slice]) -> PanopticFrame:
    """Road, and on it the things: class, id, rows, columns."""
    semantic, instance = np.zeros(size, np.uint8), np.zeros(size, np.int32)
    for label, track, rows, columns in things.values():
        semantic[rows, columns], instance[rows, columns] = label, track
    return PanopticFrame(semantic, instance)


def test_true_things_are_numbered_by_size():
    overlaps = table((key(CAR, 7), key(CAR, 1), 10), (key(CAR, 9), key(CAR, 1), 8), (key(CAR, 9), 0, 5))
    # Road and crowd have the colour of their class.
    overlaps = table(*zip(*overlaps.__dict__.values()), (key(0, 0), 0, 50), (key(CAR, 0), 0, 60))
    assert reference_colors(overlaps, CITYSCAPES) == {key(CAR, 9): 1, key(CAR, 7): 2}


def test_colours_follow_the_largest_overlap_over_the_clip():
    true = {key(CAR, 7): 1, key(CAR, 9): 2, key(TRUCK, 3): 3}
    overlaps = table(
        (key(CAR, 7), key(CAR, 70), 30),
        (key(CAR, 7), key(CAR, 71), 40),  # the track breaks; its longer part keeps the colour
        (key(CAR, 9), key(CAR, 70), 29),
        (key(CAR, 9), key(CAR, 90), 5),
        (key(CAR, 9), key(CAR, 0), 50),  # crowd has the colour of its class
        (key(TRUCK, 3), key(CAR, 31), 20),  # another class
        (key(0, 0), key(CAR, 92), 9),  # most of it lies on the road
        (key(CAR, 9), key(CAR, 92), 8),
        (0, key(CAR, 93), 90),  # void says nothing
        (key(TRUCK, 3), key(TRUCK, 93), 1),
        (0, key(TRUCK, 93), 10),
    )
    colors = matched_colors(overlaps, true, CITYSCAPES, 4)
    assert {k: v for k, v in colors.items() if v < 4} == {
        key(CAR, 71): 1,
        key(CAR, 90): 2,
        key(TRUCK, 93): 3,
    }
    own = [colors[key(CAR, i)] for i in (70, 31, 92, 93)]
    assert sorted(own) == [4, 5, 6, 7]
    assert len(colors) == 7


def test_the_same_object_has_one_colour_in_both_rows():
    place = np.s_[10:20], np.s_[30:50]
    truth = frame(a=(CAR, 40, *place), b=(CAR, 2, np.s_[40:50], np.s_[5:15]))
    moved = frame(a=(CAR, 3, np.s_[11:21], np.s_[31:51]))
    overlaps = compare_frames(moved, truth)
    true = reference_colors(overlaps, CITYSCAPES)
    found = recolor(moved, matched_colors(overlaps, true, CITYSCAPES, len(true) + 1))
    white = np.full((64, 128, 3), 255, np.uint8)
    rows = [overlay(white, f, CITYSCAPES, names=False) for f in (recolor(truth, true), found)]
    assert np.array_equal(rows[0][15, 40], rows[1][15, 40])
    assert not np.array_equal(rows[0][15, 40], rows[0][45, 10])
    # Without matching they would differ.
    assert not np.array_equal(overlay(white, moved, CITYSCAPES, names=False)[15, 40], rows[0][15, 40])


def test_boxes_lie_around_the_largest_differences():
    big, small = (CAR, 1, np.s_[10:22], np.s_[80:100]), (CAR, 2, np.s_[50:54], np.s_[10:16])
    truth = frame(big=big, small=small)
    first, second = find_boxes([truth, frame()], truth)
    # 1.4 times the share of its height, 12 of 64, in the proportions of the frame; then the least, 1/8.
    assert first == Box(8, 73, 17, 34)
    assert (second.height, second.width) == (8, 16)
    assert second.top <= 50
    assert second.top + 8 >= 54
    assert second.left <= 10
    assert second.left + 16 >= 16


@pytest.mark.parametrize(("columns", "first_is_left"), [(14, True), (16, False)])
def test_differences_weigh_their_pixels_times_the_pairs(columns, first_is_left):
    """Left, 10 x 10, all three rows differ: 3 pairs. Right, both models miss 10 rows of a car: 2 pairs."""
    left, right = (np.s_[10:20], np.s_[10:20]), (np.s_[40:50], np.s_[90 : 90 + columns])
    truth = frame(a=(CAR, 1, *left), b=(CAR, 2, *right))
    models = [frame(a=(CAR, 3, *left)), frame(a=(CAR, 4, *left))]
    assert (find_boxes(models, truth)[0].left < 64) == first_is_left


def test_boxes_of_what_two_models_both_miss_and_of_nothing():
    truth = frame(one=(CAR, 1, np.s_[10:20], np.s_[80:90]))
    assert len(find_boxes([frame(), frame()], truth)) == 1
    assert find_boxes([frame(), frame()], None) == []
    assert find_boxes([truth], None) == []
    void = frame(one=(255, 0, np.s_[10:20], np.s_[80:90]))
    assert find_boxes([truth, frame()], void) == []


def test_boxes_stay_inside_and_apart():
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = [
            PanopticFrame(
                np.asarray(cv2.resize(rng.integers(0, 3, (5, 7), np.uint8), (70, 50), interpolation=0)),
                np.zeros((50, 70), np.int32),
            )
            for _ in range(2)
        ]
        boxes = find_boxes(noise, None)
        assert len(boxes) == 2
        cover = np.zeros((50, 70), int)
        for top, left, height, width in boxes:
            assert top >= 0
            assert left >= 0
            assert top + height <= 50
            assert left + width <= 70
            cover[top : top + height, left : left + width] += 1
        assert cover.max() == 1
    # All of the frame.
    everywhere = PanopticFrame(np.ones((50, 70), np.uint8), np.zeros((50, 70), np.int32))
    assert len(find_boxes([everywhere, frame((50, 70))], None)) == 1


@pytest.fixture
def folders(tmp_path):
    """Truth, A as the truth with other ids, B without the car; and images."""
    (tmp_path / "images").mkdir()
    for side in ("truth", "A", "B"):
        with PanopticVideoWriter(tmp_path / side, CITYSCAPES) as writer:
            for t in range(5):
                track = 3 if side == "truth" else 8
                columns = np.s_[10 * t + 20 : 10 * t + 40]
                shown = frame() if side == "B" else frame(a=(CAR, track, np.s_[20:32], columns))
                writer.write(f"{t:06d}", shown)
                cv2.imwrite(
                    str(tmp_path / "images" / f"{t:06d}.png"), np.full((64, 128, 3), 40 * t, np.uint8)
                )
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["panoptube", "view", *map(str, arguments)])
    return main()


def test_a_figure_from_the_command_line(folders, monkeypatch, capsys):
    out = folders / "new" / "figure.svg"
    code = run(
        monkeypatch, "--pred", folders / "A", "--pred", folders / "B", "--truth", folders / "truth",
        "--images", folders / "images", "--count", "3", "--name", "Siam & all", "--name", "Base",
        "--out", out,
    )  # fmt: skip
    assert code == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert list(out.parent.iterdir()) == [out]
    root = ET.parse(out).getroot()
    words = ["".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(words) == ["Base", "Siam & all", "frame 0", "frame 2", "frame 4", "image", "truth"]
    # Four rows of three frames, each with the car enlarged.
    assert len(list(root.iter("{http://www.w3.org/2000/svg}image"))) == 4 * 3 * 2


def test_png_and_pdf(folders):
    preds = [folders / "A", folders / "B"]
    (png,) = view(preds, folders / "f.png", folders / "truth", frames=["000001"], progress=False)
    assert cv2.imread(str(png)).shape[1] == 2100
    (pdf,) = view(preds, folders / "f.PDF", progress=False)
    assert pdf.read_bytes().startswith(b"%PDF")
    # One result alone is a figure, too; nothing differs, so it has no insets.
    (alone,) = view(preds[:1], folders / "one.svg", count=9, progress=False)
    assert alone.read_text().count("<image") == 5


def test_mistakes_of_figures_are_one_line(folders, monkeypatch, capsys):
    a, b, truth, out = (folders / n for n in ("A", "B", "truth", "f.png"))
    with PanopticVideoWriter(folders / "short", CITYSCAPES) as writer:
        writer.write("000000", frame())
    with PanopticVideoWriter(folders / "small", CITYSCAPES) as writer:
        for t in range(5):
            writer.write(f"{t:06d}", frame((32, 64)))

    cases = {
        "there is no result": (),
        "has no frame '000001', which the truth has": ("--pred", folders / "short", "--truth", truth),
        "stands for the truth": ("--pred", a, "--pred", folders / "short"),
        r"the prediction is \(32, 64\)": ("--pred", folders / "small", "--truth", truth),
        "two results are called 'A'": ("--pred", a, "--pred", a),
        "1 names for 2 results": ("--pred", a, "--pred", b, "--name", "x"),
        "has no frame '7'; its first is '000000'": ("--pred", a, "--frames", "7"),
        "has no clip 'z'; it has A": ("--pred", a, "--clip", "z"),
        "count must be 1 or more": ("--pred", a, "--count", "0"),
        "lacks the image of frame 000000": ("--pred", a, "--images", b),
    }
    for expected, arguments in cases.items():
        assert run(monkeypatch, *arguments, "--out", out) == 2, expected
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("panoptube: ")]
        with pytest.raises(UserError, match=expected):
            raise UserError(line)
        assert not out.exists()
    cv2.imwrite(str(folders / "images" / "000000.png"), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(UserError, match="is 4x3, the result 128x64"):
        view([a], out, images=folders / "images", progress=False)
    # Pictures of mistakes can't do without truth.
    assert run(monkeypatch, "--pred", a, "--out", folders / "look") == 2
    assert "need the truth" in capsys.readouterr().err


def test_one_of_several_clips(folders):
    for side in ("many", "answers"):
        for clip in ("x", "y"):
            with PanopticVideoWriter(folders / side / clip, CITYSCAPES) as writer:
                writer.write("000000", frame())
    arguments = [folders / "answers"], folders / "f.png", folders / "many"
    with pytest.raises(UserError, match="choose with --clip one of x, y"):
        view(*arguments, progress=False)
    assert view(*arguments, clip="y", progress=False) == [folders / "f.png"]
    # Pictures can be of one clip, too.
    written = view(arguments[0], folders / "look", folders / "many", clip="y", progress=False)
    assert [p.name for p in written] == ["y_000000.png"]
