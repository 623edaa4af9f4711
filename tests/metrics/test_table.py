import numpy as np
import pytest

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.metrics.table import (
    VOID_KEY,
    compare_frames,
    compare_ids,
    join_tables,
    key_labels,
    key_tracks,
    segment_keys,
)
from panoptube.panoptic.frame import PanopticFrame


def random_frame(rng: np.random.Generator, size: tuple[int, int] = (12, 17)) -> PanopticFrame:
    """Patches of stuff, crowd, tracks with large ids, and void."""
    values = [(0, 0), (10, 0), (13, 0), (13, 1), (13, 2**31 - 1), (18, 1), (255, 0)]
    pick = rng.integers(len(values), size=size).repeat(2, axis=1)[:, : size[1]]
    semantic, instance = np.moveaxis(np.array(values, np.int64)[pick], -1, 0)
    return PanopticFrame(semantic.astype(np.uint8), instance.astype(np.int32))


def rows(table):
    return list(zip(table.truth.tolist(), table.prediction.tolist(), table.pixels.tolist()))


def test_compare_counts_every_pixel_once():
    rng = np.random.default_rng(0)
    truth, prediction = random_frame(rng), random_frame(rng)
    counted: dict[tuple[int, int], int] = {}
    for y in range(12):
        for x in range(17):
            pair = []
            for frame in (truth, prediction):
                label, track = int(frame.semantic[y, x]), int(frame.instance[y, x])
                pair.append(0 if label == 255 else (label + 1) * 2**32 + track)
            counted[pair[0], pair[1]] = counted.get((pair[0], pair[1]), 0) + 1
    assert rows(compare_frames(prediction, truth)) == [(*pair, n) for pair, n in sorted(counted.items())]


@pytest.mark.parametrize(("size", "ids"), [((40, 50), 4), ((90, 100), 2**24), ((1, 1), 3), ((0, 5), 3)])
def test_compare_ids_counts_every_pixel_once(size, ids):
    # With 2**24 ids nearly every pixel is a pair of its own, so the hash table has to grow.
    rng = np.random.default_rng(3)
    truth, prediction = rng.integers(ids, size=(2, *size)).astype(np.uint32)
    table = compare_ids(prediction, truth)
    counted: dict[tuple[int, int], int] = {}
    for pair in zip(truth.ravel().tolist(), prediction.ravel().tolist()):
        counted[pair] = counted.get(pair, 0) + 1
    assert rows(table) == [(*pair, n) for pair, n in sorted(counted.items())]
    assert table.pixels.sum() == truth.size


def test_keys_give_class_and_track_back():
    labels = np.array([0, 0, 13, 254, 255], np.uint8)
    tracks = np.array([0, 1, 2**31 - 1, 7, 9], np.int32)
    keys = segment_keys(labels, tracks)
    assert key_labels(keys).tolist() == [0, 0, 13, 254, -1]
    assert key_tracks(keys).tolist() == [0, 1, 2**31 - 1, 7, 0]
    assert keys[-1] == VOID_KEY
    assert len(set(keys.tolist())) == 5


def test_join_is_the_table_of_the_frames_side_by_side():
    rng = np.random.default_rng(1)
    frames = [(random_frame(rng), random_frame(rng)) for _ in range(3)]
    side_by_side = [
        PanopticFrame(np.hstack([f.semantic for f in fs]), np.hstack([f.instance for f in fs]))
        for fs in zip(*frames)
    ]
    joined = join_tables([compare_frames(p, t) for p, t in frames])
    assert rows(joined) == rows(compare_frames(*side_by_side))
    assert joined.pixels.sum() == 3 * 12 * 17


def test_faults():
    rng = np.random.default_rng(2)
    frame = random_frame(rng)
    with pytest.raises(ValueError, match="must agree"):
        compare_ids(np.zeros((2, 3), np.uint32), np.zeros((3, 2), np.uint32))
    with pytest.raises(ValueError, match="must agree"):
        compare_frames(frame, random_frame(rng, (12, 16)))
    zeros = np.zeros((2, 2), np.int32)
    unknown = PanopticFrame(np.full((2, 2), 19, np.uint8), zeros)
    with pytest.raises(ValueError, match="the prediction holds class 19"):
        compare_frames(unknown, PanopticFrame(np.zeros((2, 2), np.uint8), zeros)).check(CITYSCAPES)
    stuff_id = PanopticFrame(np.full((2, 2), 2, np.uint8), zeros + 4)
    with pytest.raises(ValueError, match="the truth has track id 4 on building"):
        compare_frames(frame_of(zeros), stuff_id).check(CITYSCAPES)
    compare_frames(frame, frame).check(CITYSCAPES)


def frame_of(instance: np.ndarray) -> PanopticFrame:
    return PanopticFrame(np.zeros(instance.shape, np.uint8), instance)
