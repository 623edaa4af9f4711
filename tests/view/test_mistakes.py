import sys

import cv2
import numpy as np
import pytest

from panoptube.cli import main
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.errors import UserError
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import PanopticFrame
from panoptube.view.mistakes import BOTH, INVENTED, MISSED, OFF, RIGHT, compare_picture, mistakes, view

CAR = CITYSCAPES.index("car")


def frame(line: str) -> PanopticFrame:
    """r road, a and b cars, s sky, . void."""
    sky = CITYSCAPES.index("sky")
    table = {"r": (0, 0), "a": (CAR, 1), "b": (CAR, 2), "s": (sky, 0), ".": (255, 0)}
    pixels = np.array([[table[c] for c in line]])
    return PanopticFrame(pixels[..., 0].astype(np.uint8), pixels[..., 1].astype(np.int32))


def test_each_pixel_by_hand():
    drawn = mistakes(frame("aaarbbrrrrrss"), frame("aaaarrrrrrr.."), CITYSCAPES)
    # Car a matches at 3 of 4, road at 5 of 8 (and 1 besides); b is invented.
    expected = [RIGHT] * 3 + [OFF] + [INVENTED] * 2 + [RIGHT] * 5 + [(0, 0, 0)] * 2
    assert drawn[0].tolist() == [list(color) for color in expected]
    # A car that is missed, and another invented in its place by one half.
    drawn = mistakes(frame("bbrrrrrr"), frame("raarrrrr"), CITYSCAPES)
    assert drawn[0].tolist() == [list(c) for c in [INVENTED, BOTH, MISSED] + [RIGHT] * 5]


def test_picture_shows_three_panels():
    truth = PanopticFrame(np.zeros((30, 700), np.uint8), np.zeros((30, 700), np.int32))
    image = np.full((30, 700, 3), 200, np.uint8)
    picture = compare_picture(truth, truth, CITYSCAPES, image)
    assert picture.shape[1:] == (2100, 3)
    head = picture.shape[0] - 30
    assert 8 < head < 40
    assert picture[:head].any()
    assert np.array_equal(picture[head:, :700], picture[head:, 700:1400])
    assert (picture[head:, 1400:] == RIGHT).all()
    # Narrow frames are enlarged, so that the line above can be read.
    small = PanopticFrame(np.zeros((3, 70), np.uint8), np.zeros((3, 70), np.int32))
    assert compare_picture(small, small, CITYSCAPES).shape[1] >= 3 * 600


@pytest.fixture
def folders(tmp_path):
    lines = {
        "000000": ("aarrrrrrrr", "aarrrrrrrr"),
        "000001": ("aarrrrrrrr", "rrrrrrrraa"),
        "000002": ("aaarrrrrrr", "aarrrrrrrr"),
    }
    for i, side in enumerate(("truth", "pred")):
        with PanopticVideoWriter(tmp_path / side, CITYSCAPES) as writer:
            for name, pair in lines.items():
                writer.write(name, frame(pair[i]))
    return tmp_path


def test_worst_frames_first_or_those_that_are_named(folders, monkeypatch, capsys):
    arguments = [str(a) for a in ("--truth", folders / "truth", "--pred", folders / "pred")]
    monkeypatch.setattr(
        sys, "argv", ["panoptube", "view", *arguments, "--out", str(folders / "out"), "--count", "2"]
    )
    assert main() == 0
    written = [folders / "out" / f"{name}.png" for name in ("000001", "000002")]
    assert capsys.readouterr().out.splitlines() == [str(p) for p in written]
    assert sorted((folders / "out").iterdir()) == written
    picture = cv2.imread(str(written[0]))[..., ::-1].reshape(-1, 3)
    assert {MISSED, INVENTED} <= {tuple(map(int, c)) for c in np.unique(picture, axis=0)}
    arguments = [folders / "pred"], folders / "two", folders / "truth"
    named = view(*arguments, frames=["000000"], progress=False)
    assert [p.name for p in named] == ["000000.png"]
    with pytest.raises(UserError, match="has no frame '7'; its first is '000000'"):
        view(*arguments, frames=["7"], progress=False)
    with pytest.raises(UserError, match="lacks the image of frame 000000"):
        view(*arguments, frames=["000000"], images=folders, progress=False)


def test_several_models_lie_below_each_other(folders):
    both = [folders / "pred", folders / "truth"]
    written = view(both, folders / "out", folders / "truth", count=1, progress=False)
    (alone,) = view(both[:1], folders / "alone", folders / "truth", count=1, progress=False)
    # The worst frame is that of the one which isn't perfect.
    assert [p.name for p in written] == [alone.name] == ["000001.png"]
    pictures = [cv2.imread(str(p)) for p in (*written, alone)]
    height = len(pictures[1])
    assert pictures[0].shape == (2 * height, *pictures[1].shape[1:])
    assert (pictures[0][-1, -1] == RIGHT).all()
