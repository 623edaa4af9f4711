"""Pairs: geometry shared by both frames, boxes and ids by hand, a sequence that depends on index and seed."""

from __future__ import annotations

import itertools
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from panoptube.config import DataConfig, RunConfig, TrainConfig
from panoptube.data import pairs
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.labelled_video import write_labelled_video
from panoptube.data.pairs import (
    FramePair,
    PairDataset,
    collate,
    crop_flow,
    draw_pair,
    frame_targets,
    load_batches,
    reference_frame,
)
from panoptube.data.transforms import MEAN, STD, Geometry
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, PanopticFrame

ROAD, PERSON, CAR, SKY = (CITYSCAPES.index(name) for name in ("road", "person", "car", "sky"))
STILL = DataConfig(size=(64, 96), scale=(1, 1), streets=0, videos=1)


def truth_at(t: int) -> PanopticFrame:
    """64 x 96: sky, road, void; car 7 moves 2 pixels a frame, person 3 stands, and there is a crowd."""
    semantic, instance = np.full((64, 96), SKY, np.uint8), np.zeros((64, 96), np.int32)
    semantic[32:] = ROAD
    semantic[40:50, 10 + 2 * t : 30 + 2 * t], instance[40:50, 10 + 2 * t : 30 + 2 * t] = CAR, 7
    semantic[20:40, 70:76], instance[20:40, 70:76] = PERSON, 3
    semantic[0:4, 80:90] = PERSON
    semantic[60:] = VOID
    return PanopticFrame(semantic, instance)


def moving_clip(labelled: tuple[int, ...] = tuple(range(8)), name: str = "moving") -> Clip:
    """Every pixel's red is its class, its green its track id: the picture says where each label belongs."""

    def image(t: int) -> np.ndarray:
        truth = truth_at(t)
        return np.stack([truth.semantic, truth.instance.astype(np.uint8), truth.semantic], -1)

    return Clip(name, CITYSCAPES, (64, 96), 10.0, 8, labelled, image, truth_at)


def denormalized(pair: FramePair, frame: int) -> np.ndarray:
    """(H, W, 3) uint8 of one frame of the first pair."""
    image = pair.images[0, frame].numpy().transpose(1, 2, 0)
    return (image * STD + MEAN).round().astype(np.uint8)


def test_targets_by_hand() -> None:
    targets = frame_targets(truth_at(1), CITYSCAPES)
    # By class, then id; inclusive ends.
    assert targets.boxes.tolist() == [[70, 20, 75, 39], [12, 40, 31, 49]]
    assert targets.labels.tolist() == [1, 3]  # person is the first thing, car the third; 0 is background
    assert targets.track_ids.tolist() == [3, 7]
    assert targets.masks.sum((1, 2)).tolist() == [6 * 20, 20 * 10]
    assert targets.masks.dtype == torch.uint8
    assert targets.semantic.dtype == torch.int64
    # Crowd: class in the semantic map, no box.
    assert (targets.semantic[0:4, 80:90] == PERSON).all()


def test_slivers_have_no_box_but_keep_their_class() -> None:
    semantic, instance = np.full((8, 8), ROAD, np.uint8), np.zeros((8, 8), np.int32)
    semantic[0, :3], instance[0, :3] = CAR, 1
    semantic[4, :4], instance[4, :4] = CAR, 2
    targets = frame_targets(PanopticFrame(semantic, instance), CITYSCAPES)
    assert targets.track_ids.tolist() == [2]
    assert (targets.semantic[0, :3] == CAR).all()


def test_equal_ids_of_two_classes_are_two_things() -> None:
    semantic, instance = np.full((8, 8), CAR, np.uint8), np.ones((8, 8), np.int32)
    semantic[:, 4:] = PERSON
    targets = frame_targets(PanopticFrame(semantic, instance), CITYSCAPES)
    assert targets.boxes.tolist() == [[4, 0, 7, 7], [0, 0, 3, 7]]


def test_frame_without_things_has_empty_targets() -> None:
    targets = frame_targets(PanopticFrame(np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.int32)), CITYSCAPES)
    assert targets.boxes.shape == (0, 4)
    assert targets.masks.shape == (0, 4, 6)


def test_flip_and_boxes_by_hand() -> None:
    """The whole frame, flipped or not: x becomes 95 - x, and left and right ends change places."""
    seen = set()
    for seed in range(20):
        pair = draw_pair(moving_clip(), 1, 2, np.random.default_rng(seed), STILL)
        target, reference = pair.targets[0]
        boxes = target.boxes.tolist(), reference.boxes.tolist()
        straight = [[70, 20, 75, 39], [12, 40, 31, 49]], [[70, 20, 75, 39], [16, 40, 35, 49]]
        flipped = [[20, 20, 25, 39], [64, 40, 83, 49]], [[20, 20, 25, 39], [60, 40, 79, 49]]
        assert boxes in (straight, flipped)
        seen.add(boxes == flipped)
        assert pair.gaps.tolist() == [2]
    assert seen == {True, False}


@pytest.mark.parametrize("seed", range(6))
def test_picture_and_labels_of_both_frames_share_scale_flip_and_crop(seed: int) -> None:
    """At scale 1 the picture must say exactly what the labels say, in both frames."""
    config = STILL.model_copy(update={"size": (32, 64)})
    pair = draw_pair(moving_clip(), 2, 3, np.random.default_rng(seed), config)
    for frame, targets in enumerate(pair.targets[0]):
        image = denormalized(pair, frame)
        assert (image[:, :, 0] == targets.semantic.numpy()).all()
        for mask, track in zip(targets.masks.numpy(), targets.track_ids.tolist()):
            assert ((image[:, :, 1] == track) == (mask > 0)).all()
    # What doesn't move is in the same place in both frames.
    first, second = (targets.semantic for targets in pair.targets[0])
    for label in (SKY, VOID):
        assert torch.equal(first == label, second == label)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_those_of_the_masks_after_any_crop(seed: int) -> None:
    config = DataConfig(size=(32, 64), scale=(0.6, 1.5))
    pair = draw_pair(moving_clip(), 0, 5, np.random.default_rng(seed), config)
    for targets in pair.targets[0]:
        for box, mask in zip(targets.boxes.tolist(), targets.masks):
            ys, xs = torch.nonzero(mask, as_tuple=True)
            assert box == [xs.min(), ys.min(), xs.max(), ys.max()]


def test_smaller_frames_are_padded_with_void_and_the_mean_colour() -> None:
    config = STILL.model_copy(update={"size": (96, 128)})
    pair = draw_pair(moving_clip(), 0, 1, np.random.default_rng(0), config)
    assert pair.images.shape == (1, 2, 3, 96, 128)
    assert not pair.images[..., 64:, :].any()
    assert not pair.images[..., 96:].any()
    for targets in pair.targets[0]:
        assert (targets.semantic[64:] == VOID).all()
        assert (targets.semantic[:, 96:] == VOID).all()
        assert not targets.masks[:, 64:].any()
        assert targets.size == (64, 96)
        assert targets.to(torch.device("cpu")).size == (64, 96)


def test_colours_change_alike_in_both_frames() -> None:
    config = STILL.model_copy(update={"jitter": 0.4})
    plain = draw_pair(moving_clip(), 0, 1, np.random.default_rng(3), STILL)
    pair = draw_pair(moving_clip(), 0, 1, np.random.default_rng(3), config)
    assert not torch.allclose(pair.images, plain.images)
    corner = pair.images[0, :, :, 10, 40]  # the same bit of sky in both frames
    assert not torch.equal(corner[0], corner[1])
    assert torch.allclose(corner[0], corner[1], atol=0.3)


def test_frame_without_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="no truth for frame 1"):
        draw_pair(moving_clip((0, 2)), 0, 1, np.random.default_rng(0), STILL)


def test_collate_keeps_order() -> None:
    drawn = [draw_pair(moving_clip(), t, 1, np.random.default_rng(t), STILL) for t in (0, 3)]
    batch = collate(drawn)
    assert batch.images.shape == (2, 2, 3, 64, 96)
    assert torch.equal(batch.images[1], drawn[1].images[0])
    assert batch.targets == (drawn[0].targets[0], drawn[1].targets[0])
    assert batch.flow is None


def same(a: FramePair, b: FramePair) -> bool:
    tensors = [
        [pair.images, pair.gaps, *(torch.as_tensor(v) for t in pair.targets[0] for v in vars(t).values())]
        for pair in (a, b)
    ]
    return all(torch.equal(x, y) for x, y in zip(*tensors))


@pytest.fixture
def videos(tmp_path: Path) -> DataConfig:
    """A folder with two labelled videos, one with every second frame labelled."""
    write_labelled_video(moving_clip(name="a"), tmp_path)
    write_labelled_video(moving_clip((0, 2, 4, 6), name="b"), tmp_path)
    return DataConfig(root=tmp_path, streets=0, videos=1, size=(32, 64), gaps=(-4, -2, 2, 4), jitter=0.2)


def test_pair_depends_on_index_and_seed_alone(videos: DataConfig) -> None:
    dataset = PairDataset(videos, seed=5)
    forwards = [dataset[i] for i in range(6)]
    again = pickle.loads(pickle.dumps(dataset))
    backwards = [again[i] for i in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards))
    assert not any(same(a, b) for a, b in itertools.combinations(forwards, 2))
    assert not same(PairDataset(videos, seed=6)[0], forwards[0])


def test_both_frames_are_labelled_and_hold_things(
    videos: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, int, int]] = []
    original = pairs.draw_pair

    def spy(clip: Clip, t: int, gap: int, *others: Any) -> FramePair:
        drawn.append((clip.name, t, t + gap))
        return original(clip, t, gap, *others)

    monkeypatch.setattr(pairs, "draw_pair", spy)
    dataset = PairDataset(videos, seed=0)
    for i in range(40):
        assert all(len(frame.labels) for frame in dataset[i].targets[0])
    assert {name for name, _, _ in drawn} == {"a", "b"}
    for name, t, u in drawn:
        assert 0 <= u < 8
        assert abs(u - t) in (2, 4)
        assert name == "a" or t % 2 == u % 2 == 0
    assert {t for _, t, _ in drawn} == set(range(8))
    assert {(u - t) > 0 for _, t, u in drawn} == {True, False}


def test_pasted_things_come_from_another_draw(videos: DataConfig) -> None:
    plain = PairDataset(videos, seed=0)
    none, always = (PairDataset(videos.model_copy(update={"paste": share}), seed=0) for share in (0.0, 1.0))
    assert all(same(plain[i], none[i]) for i in range(6))
    more = 0
    for i in range(30):
        pair = always[i]
        for frame in pair.targets[0]:
            ids = frame.track_ids.tolist()
            assert len(set(ids)) == len(ids)
            more += bool(set(ids) - {3, 7})  # the clips' own
    assert 10 < more < 60


def test_degraded_pairs_keep_their_labels() -> None:
    config = STILL.model_copy(update={"degrade": 1.0})
    plain, poor = (draw_pair(moving_clip(), 0, 1, np.random.default_rng(3), c) for c in (STILL, config))
    assert not torch.allclose(plain.images, poor.images)
    for a, b in zip(plain.targets[0], poor.targets[0]):
        assert torch.equal(a.masks, b.masks)
        assert torch.equal(a.semantic, b.semantic)


def run_on(data: DataConfig, workers: int, batch: int = 2) -> RunConfig:
    data = data.model_copy(update={"workers": workers})
    return RunConfig(name="test", data=data, train=TrainConfig(batch=batch))


def test_processes_share_the_pairs_of_a_step(videos: DataConfig) -> None:
    dataset, run = PairDataset(videos, seed=0), run_on(videos, workers=0)
    shared = [load_batches(dataset, run, 3, processes=2, rank=rank) for rank in (0, 1)]
    alone = load_batches(dataset, run, 6, processes=1, rank=0)
    for _ in range(2):
        for mine in shared:
            (pair, seed), (expected, expected_seed) = next(mine), next(alone)
            assert same(pair, expected)
            assert seed == expected_seed
    pair, _ = next(load_batches(dataset, run, 6, processes=1, rank=0))
    assert same(pair, collate([dataset[12], dataset[13]]))


def test_workers_change_nothing_and_their_errors_are_one_line(videos: DataConfig) -> None:
    assert videos.root is not None
    for path in (videos.root / "b/label").glob("*.png"):
        path.write_bytes(b"damaged")
    dataset = PairDataset(videos, seed=0)
    here, there = (load_batches(dataset, run_on(videos, workers, batch=1), 0, 1, 0) for workers in (0, 1))
    messages: list[str] = []
    for batches in (here, there):
        with pytest.raises(UserError) as caught:  # noqa: PT012 - the pairs before the first damaged one are fine
            while True:
                pair, seed = next(batches)
                messages.append(f"{pair.images.sum().item()} {pair.targets[0][0].boxes.tolist()} {seed}")
        messages.append(str(caught.value))
    half = len(messages) // 2
    assert messages[:half] == messages[half:]
    assert half > 1
    assert re.fullmatch(r"\S+/b/label/00000\d\.png is not a readable picture; replace it", messages[-1])


def test_videos_without_things_are_reported(tmp_path: Path) -> None:
    empty = PanopticFrame(np.zeros((32, 64), np.uint8), np.zeros((32, 64), np.int32))
    clip = Clip(
        "empty",
        CITYSCAPES,
        (32, 64),
        10,
        3,
        (0, 1, 2),
        lambda t: np.zeros((32, 64, 3), np.uint8),
        lambda t: empty,
    )
    write_labelled_video(clip, tmp_path)
    dataset = PairDataset(DataConfig(root=tmp_path, streets=0, videos=1, size=(32, 64), gaps=(1,)), seed=0)
    with pytest.raises(UserError, match="no things in a frame"):
        dataset[0]


def test_nothing_to_draw_from_is_reported() -> None:
    with pytest.raises(UserError, match="both 0"):
        PairDataset(DataConfig(streets=0, videos=0), 0)
    with pytest.raises(UserError, match=r"data\.root"):
        PairDataset(DataConfig(streets=0, videos=1), 0)


def test_streets_are_fresh_shared_by_a_stretch_and_never_the_held_out_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from panoptube.data import streets

    drawn: list[int] = []

    def fake(seed: int, frames: int, size: tuple[int, int], difficulty: float) -> Clip:
        assert 0.2 <= difficulty <= 0.8
        drawn.append(seed)
        return moving_clip()

    monkeypatch.setattr(streets, "street_clip", fake)
    pairs._training_street.cache_clear()
    dataset = PairDataset(DataConfig(size=(64, 96), gaps=(-1, 1)), seed=0)
    stretch = pairs.STREETS_AT_ONCE * pairs.PAIRS_PER_STREET
    for i in range(stretch):
        dataset[i]
    assert len(set(drawn)) == len(drawn) == pairs.STREETS_AT_ONCE
    dataset[stretch]
    assert len(set(drawn)) == len(drawn) == pairs.STREETS_AT_ONCE + 1
    assert min(drawn) >= pairs.FIRST_TRAINING_SEED
    pairs._training_street.cache_clear()


def test_a_real_street_gives_pairs_with_matching_ids() -> None:
    dataset = PairDataset(DataConfig(size=(64, 128), gaps=(-2, 2)), seed=0)
    pair = dataset[0]
    assert pair.images.shape == (1, 2, 3, 64, 128)
    ids = [set(frame.track_ids.tolist()) for frame in pair.targets[0]]
    assert ids[0] & ids[1]


# --- flow ---------------------------------------------------------------------------------------------------


def test_flow_by_hand() -> None:
    """Frames of 4 x 6 grow to 8 x 18, then columns 3 to 14 of the rows 1 to 6 are cut out."""
    flow = np.random.default_rng(0).uniform(-5, 5, (4, 6, 2)).astype(np.float32)
    geometry = Geometry((4, 6), (8, 18), top=1, left=3, size=(6, 12), flip=False)
    found = crop_flow(flow, geometry)
    assert found.shape == (2, 6, 12)
    assert found.dtype == np.float32
    # The pixel at (2, 5) of the window is (3, 8) of the grown frame, which comes from (1, 2).
    assert found[:, 2, 5] == pytest.approx(flow[1, 2] * (3, 2))
    flipped = crop_flow(flow, replace(geometry, flip=True))
    assert np.array_equal(flipped[0], -found[0, :, ::-1])
    assert np.array_equal(flipped[1], found[1, :, ::-1])
    padded = crop_flow(flow, replace(geometry, top=0, left=0, size=(10, 20)))
    assert (padded[:, 8:] == 0).all()
    assert (padded[:, :, 18:] == 0).all()


def with_exact_flow(clip: Clip) -> Clip:
    """The car's: 2 pixels a frame; everything else rests."""

    def flow(t: int, u: int) -> np.ndarray:
        field = np.zeros((64, 96, 2), np.float32)
        field[truth_at(t).instance == 7, 0] = 2 * (u - t)
        return field

    return replace(clip, read_flow=flow)


@pytest.mark.parametrize("seed", range(6))
def test_flow_leads_from_a_thing_to_itself_whatever_the_crop(seed: int) -> None:
    config = DataConfig(size=(64, 96), scale=(0.8, 1.5), streets=0, videos=1)
    pair = draw_pair(
        with_exact_flow(moving_clip()), 1, 4, np.random.default_rng(seed), config, flow_directions=1
    )
    assert pair.flow is not None
    target, reference = pair.targets[0]
    assert 7 in target.track_ids
    there = reference.semantic.numpy() == CAR
    mask = target.masks[target.track_ids == 7][0].numpy().astype(bool)
    y, x = np.nonzero(mask)
    dx, dy = pair.flow[0].numpy()[:, y, x]
    assert len(set(dx.tolist())) == 1
    assert (dy == 0).all()
    moved = np.rint(x + dx).astype(int)
    inside = (moved >= 1) & (moved < 95)
    # Up to a pixel at its edges, where rounding differs.
    hits = there[y[inside], moved[inside]].mean()
    assert hits > 0.9


def test_flow_is_from_dis_where_the_clip_has_none() -> None:
    """A picture that moves 3 pixels to the right in 2 frames, and flows nowhere in the padding."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 120, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    still = truth_at(0)

    def image(t: int) -> np.ndarray:
        return np.ascontiguousarray(smooth[:, 20 - t * 3 // 2 :][:, :96])

    clip = Clip("sliding", CITYSCAPES, (64, 96), 10.0, 3, (0, 1, 2), image, lambda t: still)
    config = DataConfig(size=(96, 128), scale=(1, 1), streets=0, videos=1, jitter=0.2)
    for seed in range(4):  # with and without a flip
        pair = draw_pair(clip, 0, 2, np.random.default_rng(seed), config, flow_directions=1)
        wrong = replace(clip, read_flow=lambda t, u: np.full((*clip.size, 2), 9, np.float32))
        computed = config.model_copy(update={"exact_flow": False})
        again = draw_pair(wrong, 0, 2, np.random.default_rng(seed), computed, flow_directions=1)
        assert again.flow is not None
        assert torch.equal(again.flow, pair.flow)
        flipped = bool(pair.targets[0][0].boxes[0, 0] < 48)  # the person's box
        assert pair.flow is not None
        assert (pair.flow[0, :, 64:] == 0).all()
        assert (pair.flow[0, :, :, 96:] == 0).all()
        assert pair.flow[0, 0, 8:56, 16:80].median().item() == pytest.approx(-3 if flipped else 3, abs=0.2)
        assert pair.flow[0, 1, 8:56, 16:80].median().item() == pytest.approx(0, abs=0.2)


@pytest.mark.parametrize(
    ("t", "gap", "gaps_in", "expected"),
    [
        (4, 5, "frames", 9),
        (19, 5, "frames", 14),  # the other sign at the end
        (4, 10, "frames", 14),
        (4, 3, "frames", None),
        (4, 1, "labels", 9),
        (9, 2, "labels", 19),
        (19, 2, "labels", 9),
        (14, -3, "labels", None),
    ],
)
def test_reference_frame_by_hand(t: int, gap: int, gaps_in: str, expected: int | None) -> None:
    clip = replace(moving_clip(), length=20, labelled=(4, 9, 14, 19))
    assert reference_frame(clip, t, gap, gaps_in) == expected


def test_flow_back_and_crops_of_their_own(videos: DataConfig) -> None:
    pair = PairDataset(videos, 3, flow_directions=2)[0]
    assert pair.backward_flow is not None
    assert pair.flow is not None
    assert not torch.equal(pair.flow, pair.backward_flow)
    own = videos.model_copy(update={"joint_crop": False})
    same = []
    for seed in range(8):
        apart, joint = (draw_pair(moving_clip(), 1, 4, np.random.default_rng(seed), c) for c in (own, videos))
        assert torch.equal(apart.images[:, 0], joint.images[:, 0])
        same.append(torch.equal(apart.images[:, 1], joint.images[:, 1]))
    assert not all(same)


def test_flow_changes_nothing_else(videos: DataConfig) -> None:
    plain, flowing = PairDataset(videos, 3), PairDataset(videos, 3, flow_directions=1)
    for index in range(3):
        a, b = plain[index], flowing[index]
        assert a.flow is None
        assert b.flow is not None
        assert b.flow.shape == (1, 2, *videos.size)
        assert torch.equal(a.images, b.images)
        assert a.gaps.tolist() == b.gaps.tolist()
        assert torch.equal(a.targets[0][0].boxes, b.targets[0][0].boxes)
