"""Streets: the same seed gives the same street, and truth, flow and occlusion fit together."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.labelled_video import read_labelled_videos
from panoptube.data.streets import Street, street_clip, synthesize
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID
from streets import association_of_boxes, overlap, returning

SMALL = (64, 128)


@pytest.fixture(scope="module")
def street() -> Street:
    return Street(3, frames=12, size=SMALL)


def test_the_same_seed_gives_the_same_bits_in_any_order(street: Street) -> None:
    again = Street(3, frames=12, size=SMALL)
    for t in (7, 2, 11):
        (image, truth), (image2, truth2) = street.render(t), again.render(t)
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(truth.semantic, truth2.semantic)
        np.testing.assert_array_equal(truth.instance, truth2.instance)
        np.testing.assert_array_equal(street.flow(t, 4), again.flow(t, 4))


def test_other_seeds_and_other_times_look_different(street: Street) -> None:
    assert (Street(4, 12, SMALL).render(2)[0] != street.render(2)[0]).mean() > 0.5
    assert (street.render(0)[0] != street.render(11)[0]).mean() > 0.3


def test_a_frame_is_drawn_once_and_the_cache_is_bounded(street: Street) -> None:
    assert street.render(5)[1] is street.truth(5)
    for t in range(12):
        street.image(t)
    assert len(street._cache) <= 4


@pytest.mark.parametrize("difficulty", [0.0, 0.5, 1.0])
def test_truth_fits_the_taxonomy_and_ids_stay_with_one_class(difficulty: float) -> None:
    clip = street_clip(8, frames=6, size=SMALL, difficulty=difficulty)
    label_of: dict[int, int] = {}
    for t in clip.labelled:
        truth = clip.truth(t)  # checks classes and stray ids
        assert truth is not None
        for segment in truth.segments():
            if segment.id > 0:
                assert CITYSCAPES.is_thing(segment.label)
                assert label_of.setdefault(segment.id, segment.label) == segment.label
                assert segment.area >= 6
    assert len(label_of) >= 3
    assert max(label_of) < 1000


def test_all_classes_occur() -> None:
    seen: set[int] = set()
    for seed in range(40):
        clip = street_clip(seed, frames=3, size=(128, 256))
        seen |= set(np.unique(clip.read_truth(1).semantic).tolist())
        if len(seen - {VOID}) == len(CITYSCAPES):
            break
    assert [name for i, name in enumerate(CITYSCAPES.names) if i not in seen] == []
    assert VOID in seen


def test_no_movement_between_a_frame_and_itself(street: Street) -> None:
    flow = street.flow(6, 6)
    assert flow.dtype == np.float32
    assert flow.shape == (*SMALL, 2)
    np.testing.assert_allclose(flow, 0, atol=1e-3)
    assert not street.occluded(6, 6).any()


def test_flow_carries_labels_where_the_point_is_still_seen() -> None:
    agree: list[float] = []
    seen: list[float] = []
    for seed in range(4):
        street = Street(seed, 12, (128, 256))
        for t, u in ((0, 1), (6, 5), (3, 8), (11, 0)):
            row, col = landing(street.flow(t, u))
            visible = ~street.occluded(t, u)
            a, b = street.truth(t), street.truth(u)
            key_a = a.semantic.astype(int) * 1000 + a.instance
            key_b = b.semantic.astype(int) * 1000 + b.instance
            assert not visible[(row < 0) | (row >= 128) | (col < 0) | (col >= 256)].any()
            agree.append(float((key_a[visible] == key_b[row[visible], col[visible]]).mean()))
            if abs(t - u) == 1:
                seen.append(float(visible.mean()))
    assert np.mean(agree) > 0.97
    assert min(agree) > 0.94
    assert min(seen) > 0.6  # occlusion doesn't simply give up


def test_forward_then_backward_flow_returns(street: Street) -> None:
    for t, u in ((4, 5), (8, 5)):
        there, back, visible = street.flow(t, u), street.flow(u, t), ~street.occluded(t, u)
        row, col = landing(there)
        y, x = np.nonzero(visible)
        # the way back of the nearest pixel starts up to half a pixel beside the point
        error = np.linalg.norm(there[y, x] + back[row[y, x], col[y, x]], axis=-1)
        magnified = np.linalg.norm(back[row[y, x], col[y, x]], axis=-1)
        assert (error < 1 + 0.1 * magnified).mean() > 0.97


def test_flow_of_the_road_is_that_of_a_plane_below_the_camera() -> None:
    """Road points by hand: from the pixel to the ground at y = 0, and into the other camera."""
    street = Street(3, frames=12, size=SMALL)
    camera = street._plan.camera
    truth, flow = street.truth(2), street.flow(2, 4)
    focal = street._plan.focal * SMALL[1]
    rows, cols = np.nonzero(truth.semantic == CITYSCAPES.index("road"))
    assert len(rows) > 200

    def axes(t: int) -> np.ndarray:
        yaw, pitch, roll = camera[t, 3:]
        cy, sy, cp, sp, cr, sr = (f(v) for v in (yaw, pitch, roll) for f in (np.cos, np.sin))
        turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        lean = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
        return np.asarray(turn @ nod @ lean)

    ray = np.stack([(cols - 63.5) / focal, (31.5 - rows) / focal, np.ones(len(rows))])
    world = axes(2) @ ray
    world = camera[2, :3, None] + world * (-camera[2, 1] / world[1])
    local = axes(4).T @ (world - camera[4, :3, None])
    ahead = local[2] > 0.5
    want = np.stack([63.5 + focal * local[0] / local[2] - cols, 31.5 - focal * local[1] / local[2] - rows], 1)
    error = np.abs(flow[rows, cols] - want).max(1)[ahead]
    assert np.median(error) < 1e-2
    assert (error < 0.1).mean() > 0.98


def test_what_the_flow_connects_looks_alike() -> None:
    """Colours agree along the flow better than at the same place, on a clear day without much noise."""
    street = next(
        s for s in (Street(seed, 8, (128, 256), 0.0) for seed in range(30)) if s._plan.weather == "sun"
    )
    a, b, flow = street.image(3).astype(float), street.image(4).astype(float), street.flow(3, 4)
    row, col = landing(flow)
    visible = ~street.occluded(3, 4) & (np.linalg.norm(flow, axis=-1) > 2)
    along = np.abs(a[visible] - b[row[visible], col[visible]]).mean()
    still = np.abs(a[visible] - b[visible]).mean()
    assert visible.sum() > 500
    assert along < 0.75 * still


def test_occlusion_marks_what_leaves_the_picture_and_what_is_hidden(street: Street) -> None:
    flow, occluded = street.flow(0, 11), street.occluded(0, 11)
    row, col = landing(flow)
    outside = (row < 0) | (row >= SMALL[0]) | (col < 0) | (col >= SMALL[1])
    assert outside.any()
    assert occluded[outside].all()
    assert (occluded & ~outside).any()
    assert np.isfinite(flow).all()


def test_a_clip_is_labelled_throughout_and_can_be_pickled() -> None:
    clip = street_clip(5, frames=4, size=SMALL)
    assert (clip.name, clip.fps, clip.labelled, clip.taxonomy) == (
        "streets-000005",
        10,
        (0, 1, 2, 3),
        CITYSCAPES,
    )
    copy: Clip = pickle.loads(pickle.dumps(clip))
    np.testing.assert_array_equal(clip.image(2), copy.image(2))
    assert clip.read_flow is not None
    assert clip.read_flow(0, 3).shape == (*SMALL, 2)


def test_a_single_frame_is_enough() -> None:
    image, truth = Street(9, frames=1, size=(32, 32)).render(0)
    assert image.shape == (32, 32, 3)
    truth.check(CITYSCAPES)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"difficulty": 1.01}, "difficulty"),
        ({"difficulty": -0.1}, "difficulty"),
        ({"difficulty": float("nan")}, "difficulty"),
        ({"frames": 0}, "frames"),
        ({"size": (16, 512)}, "size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        Street(**{"seed": 0, "size": SMALL, **arguments})  # type: ignore[arg-type]


def test_frames_outside_the_street(street: Street) -> None:
    for call in (lambda: street.render(12), lambda: street.flow(0, 12), lambda: street.occluded(-1, 0)):
        with pytest.raises(IndexError):
            call()


def test_written_streets_read_back_as_they_were(tmp_path: Path) -> None:
    out = synthesize(6, tmp_path / "deep" / "streets", frames=2, size=SMALL, seed=20)
    clips = read_labelled_videos(out)
    assert [c.name for c in clips] == [f"streets-{seed:06d}" for seed in range(20, 26)]
    assert [c.name for c in read_labelled_videos(out, split="val")] == ["streets-000024"]
    for seed, clip in zip(range(20, 26), clips):
        drawn = street_clip(seed, 2, SMALL)
        assert (len(clip), clip.fps, clip.size) == (2, 10, SMALL)
        for t in range(2):
            truth, want = clip.read_truth(t), drawn.read_truth(t)
            np.testing.assert_array_equal(truth.semantic, want.semantic)
            np.testing.assert_array_equal(truth.instance, want.instance)
            assert np.abs(clip.image(t).astype(int) - drawn.image(t)).mean() < 12
    entry = json.loads((out / "index.json").read_text())["clips"][0]
    tracks = {s.id for t in range(2) for s in clips[0].read_truth(t).segments() if s.id > 0}
    assert entry["n_tracks"] == len(tracks)
    assert cv2.imread(str(out / "contact_sheet.png")).shape == (3 * 64, 4 * 128, 3)
    assert [p.name for p in out.parent.iterdir()] == ["streets"]


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "precious.txt").write_text("keep")
    with pytest.raises(UserError, match="mine"):
        synthesize(1, out, frames=1, size=SMALL)
    with pytest.raises(UserError, match=r"precious\.txt"):
        synthesize(1, out / "precious.txt", frames=1, size=SMALL)
    assert [p.name for p in tmp_path.rglob("*")] == ["mine", "precious.txt"]
    synthesize(1, out, frames=1, size=SMALL, overwrite=True)
    assert sorted(p.name for p in out.iterdir()) == ["contact_sheet.png", "index.json", "streets-000000"]


def test_nothing_is_left_of_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="difficulty"):
        synthesize(2, tmp_path / "a", difficulty=2.0)
    with pytest.raises(UserError, match="0 clips"):
        synthesize(0, tmp_path / "a")

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    # Of a picture, then of index.json.
    for part in ("write_bytes", "write_text"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, part, full)
            with pytest.raises(UserError, match="a can't be written: No space left on device; make") as error:
                synthesize(1, tmp_path / "a", frames=1, size=SMALL)
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []


def test_figures_of_the_benchmark() -> None:
    from panoptube.panoptic.frame import PanopticFrame, Segment

    assert overlap((0, 0, 4, 4), (2, 0, 4, 4)) == pytest.approx(8 / 24)
    assert overlap((0, 0, 2, 2), (5, 5, 2, 2)) == 0
    a, b = (Segment(13, i, 20, (0, 0, 4, 5), None) for i in (1, 2))
    assert returning([[a, b], [b], [a, b]]) == (1, 2)

    def frame(*boxes: tuple[int, int, int]) -> PanopticFrame:  # id, first and last column
        semantic, instance = np.zeros((10, 40), np.uint8), np.zeros((10, 40), np.int32)
        for track, x0, x1 in boxes:
            semantic[:, x0:x1], instance[:, x0:x1] = 13, track
        return PanopticFrame(semantic, instance)

    assert association_of_boxes([frame((1, 0, 10)), frame((1, 5, 15))]) == [1.0]
    # moves beyond its box: two ids of half the pixels each: 2 * (100 * 100 / 200) / 200
    assert association_of_boxes([frame((1, 0, 10)), frame((1, 20, 30))]) == [0.5]


def landing(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest pixel (row, column) of where the flow leads."""
    y, x = np.mgrid[0 : flow.shape[0], 0 : flow.shape[1]]
    return np.rint(y + flow[..., 1]).astype(int), np.rint(x + flow[..., 0]).astype(int)
