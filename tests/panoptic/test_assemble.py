"""Maps drawn as small pictures: r road, s sky; the things c car, p person; A, B, C instances; . void."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panoptube.config import NetworkConfig
from panoptube.network.vpsnet import Detections
from panoptube.panoptic.assemble import Unified, _probability, assemble, index_map, unify, winners
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy

FOUR = Taxonomy(
    "four",
    (
        Category("road", False, (1, 2, 3), 0),
        Category("sky", False, (4, 5, 6), 1),
        Category("car", True, (7, 8, 9), 2),
        Category("person", True, (10, 11, 12), 3),
    ),
)
LETTERS = {"r": 0, "s": 1, "c": 2, "p": 3, "A": 2, "B": 3, "C": 4, ".": VOID}
CAR, PERSON = 1, 2
STUFF_AREA = NetworkConfig().stuff_area


def draw(*lines: str) -> np.ndarray:
    return np.array([[LETTERS[c] for c in line] for line in lines], np.int64)


def unified(
    semantic: np.ndarray,
    index: np.ndarray,
    labels: list[int],
    ids: list[int],
    stuff_area: int = 0,
    legacy: bool = False,
) -> Unified:
    return unify(semantic, index, np.array(labels), np.array(ids), FOUR, stuff_area, legacy)


def numbers(*lines: str) -> list[list[int]]:
    return [[int(c) for c in line] for line in lines]


def test_things_keep_their_class_and_get_their_id() -> None:
    found = unified(
        draw("ssss", "ccpp", "rrrr"),
        draw("ssss", "AABB", "rrrr"),
        [CAR, PERSON],
        [6, 2],
    )
    assert found.semantic.tolist() == draw("ssss", "ccpp", "rrrr").tolist()
    assert found.object.tolist() == numbers("0000", "7733", "0000")
    assert found.number.tolist() == numbers("0000", "1122", "0000")
    assert (found.semantic.dtype, found.object.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize(
    ("below", "expected"),
    [
        ("rrrr", "r"),  # all of it
        ("rrcc", "r"),  # half is enough
        ("rrcp", "r"),
        ("rssc", "s"),
        ("rccc", "c"),
        ("rscp", "c"),  # a quarter each
        ("pppp", "c"),  # another thing doesn't count
        ("rcpp", "c"),
    ],
)
def test_majority_of_stuff_makes_an_instance_stuff(below: str, expected: str) -> None:
    found = unified(draw(below), draw("AAAA"), [CAR], [4])
    assert found.semantic.tolist() == draw(expected * 4).tolist()
    assert found.object.tolist() == numbers("5555" if expected == "c" else "0000")


def test_most_frequent_stuff_with_less_than_half_changes_nothing() -> None:
    found = unified(draw("rrrccpp"), draw("AAAAAAA"), [CAR], [0])
    assert found.semantic.tolist() == draw("ccccccc").tolist()


def test_maps_need_not_agree_outside_instances() -> None:
    """Stuff comes from the panoptic map, whatever the semantic map says."""
    found = unified(draw("csp"), draw("rrs"), [], [])
    assert found.semantic.tolist() == draw("rrs").tolist()
    assert (found.object == 0).all()


def test_small_stuff_becomes_void() -> None:
    picture = draw("rrrss", "rrrcc")
    index = draw("rrrss", "rrrAA")
    assert unified(picture, index, [CAR], [0], stuff_area=2).semantic.tolist() == picture.tolist()
    found = unified(picture, index, [CAR], [0], stuff_area=3)
    assert found.semantic.tolist() == draw("rrr..", "rrrcc").tolist()
    assert found.object.tolist() == numbers("00000", "00011")
    everything = unified(picture, index, [CAR], [0], stuff_area=7)
    assert everything.semantic.tolist() == draw(".....", "...cc").tolist()


def test_small_stuff_counts_what_instances_became() -> None:
    semantic, index = draw("rrss", "rrss"), draw("rrsA", "rrsA")
    found = unified(semantic, index, [CAR], [0], stuff_area=3)
    assert found.semantic.tolist() == draw("rrss", "rrss").tolist()


def test_id_lookup_when_an_instance_owns_no_pixel() -> None:
    """Dossier H1: the published code counts only instances that own a pixel."""
    semantic, index = draw("cccpp"), draw("AAACC")
    labels, ids = [CAR, CAR, PERSON], [10, 20, 30]
    assert unified(semantic, index, labels, ids).object.tolist() == [[11, 11, 11, 31, 31]]
    legacy = unified(semantic, index, labels, ids, legacy=True)
    assert legacy.object.tolist() == [[11, 11, 11, 21, 21]]
    assert legacy.semantic.tolist() == semantic.tolist()
    assert legacy.number.tolist() == [[1, 1, 1, 2, 2]]


def test_legacy_objects_are_bytes_and_stuff_has_its_class() -> None:
    semantic, index = draw("rscpp"), draw("rsABB")
    labels, ids = [CAR, PERSON], [255, 300]
    assert unified(semantic, index, labels, ids).object.tolist() == [[0, 0, 256, 301, 301]]
    legacy = unified(semantic, index, labels, ids, legacy=True)
    assert legacy.object.tolist() == [[0, 1, 0, 301 - 256, 301 - 256]]


def test_legacy_instance_that_became_stuff_has_object_0() -> None:
    legacy = unified(draw("sss"), draw("AAs"), [CAR], [4], legacy=True)
    assert legacy.semantic.tolist() == draw("sss").tolist()
    assert legacy.object.tolist() == [[0, 0, 1]]


HEIGHT, WIDTH = 32, 64


def detections(
    boxes: list[list[float]],
    labels: list[int],
    scores: list[float],
    logits: tuple[float, float, float, float] = (1.0, 0.0, 0.5, 0.5),
) -> Detections:
    """Instances that fill their boxes surely, over constant semantic logits (road wins by default)."""
    n = len(boxes)
    return Detections(
        semantic=torch.tensor(logits)[:, None, None].expand(4, HEIGHT // 4, WIDTH // 4).clone(),
        boxes=torch.tensor(boxes).reshape(n, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores),
        masks=torch.full((n, 28, 28), 9.0),
        embeddings=torch.zeros(n, 2),
    )


def with_semantics(found: Detections, box: list[int], label: int) -> Detections:
    """The class wins in the semantic map inside the box, whose corners are multiples of 4, by far."""
    x1, y1, x2, y2 = (v // 4 for v in box)
    found.semantic[FOUR.num_stuff + label - 1, y1 : y2 + 1, x1 : x2 + 1] = 5.0
    return found


def test_assemble() -> None:
    a, b = [4, 8, 19, 23], [40, 4, 55, 27]
    found = detections([list(map(float, a)), list(map(float, b))], [CAR, PERSON], [0.9, 0.8])
    with_semantics(with_semantics(found, a, CAR), b, PERSON)
    frame = assemble(found, torch.tensor([7, 3]), FOUR, (HEIGHT, WIDTH), STUFF_AREA, legacy=False)
    semantic, instance = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.int32)
    semantic[8:24, 4:20], instance[8:24, 4:20] = 2, 8
    semantic[4:28, 40:56], instance[4:28, 40:56] = 3, 4
    assert np.array_equal(frame.semantic, semantic)
    assert np.array_equal(frame.instance, instance)
    assert frame.scores == pytest.approx({8: 0.9, 4: 0.8})
    frame.check(FOUR)


def test_stuff_of_a_small_probability_becomes_void() -> None:
    """Road is 0.39 sure on the left half, 0.99 on the right one; a thing on the left goes with it."""
    a = [4, 8, 19, 23]
    found = with_semantics(detections([list(map(float, a))], [CAR], [0.9]), a, CAR)
    found.semantic[0, :, 8:] += 5

    def labelled(void_below: float, stuff_area: float = 0.0) -> PanopticFrame:
        ids = torch.tensor([7])
        size = (HEIGHT, WIDTH)
        return assemble(found, ids, FOUR, size, stuff_area, legacy=False, void_below=void_below)

    plain, half, all_void = (labelled(p) for p in (0.0, 0.8, 0.999))
    assert VOID not in plain.semantic
    assert plain.tracks() == [8]
    for frame in (half, all_void):
        assert frame.tracks() == []
        assert frame.scores == {}
        kept = frame.semantic != VOID
        assert np.array_equal(frame.semantic[kept], plain.semantic[kept])
    # A quarter of the width is 4 of 16 columns: from two left of the border on, half of them are sure.
    assert (half.semantic[2, :24] == VOID).all()
    assert (half.semantic[:, 40:] == 0).all()
    assert set(np.unique(all_void.semantic)) == {VOID}
    # Stuff that is too small without what became void goes, too.
    before, after = (float((frame.semantic == 0).mean()) for frame in (plain, half))
    assert before > after > 0
    assert 0 in labelled(0.0, (before + after) / 2).semantic
    assert 0 not in labelled(0.8, (before + after) / 2).semantic


def test_an_object_becomes_void_by_its_mean() -> None:
    """It lies on both sides of the border between what is sure and what isn't: all of it stays, or none."""
    box = [24, 8, 43, 23]
    found = with_semantics(detections([list(map(float, box))], [CAR], [0.9]), box, CAR)
    found.semantic[2, :, 8:] += 5
    seen = []
    for below in np.linspace(0.01, 0.99, 50):
        frame = assemble(found, torch.tensor([7]), FOUR, (HEIGHT, WIDTH), 0.0, False, void_below=float(below))
        seen.append(int((frame.instance == 8).sum()))
        assert (frame.semantic[frame.instance == 8] == 2).all()
        assert (frame.scores == {8: pytest.approx(0.9)}) == (seen[-1] > 0)
    assert seen[0] > 0
    assert set(seen) == {0, seen[0]}
    assert sorted(seen, reverse=True) == seen
    probability = _probability(found.semantic, (HEIGHT, WIDTH))
    last = np.linspace(0.01, 0.99, 50)[np.flatnonzero(seen)[-1]]
    first = assemble(found, torch.tensor([7]), FOUR, (HEIGHT, WIDTH), 0.0, False).instance == 8
    assert last <= probability[first].mean() < last + 0.02


def test_a_sure_spot_among_what_is_unsure_becomes_void_and_an_unsure_one_stays() -> None:
    for sure, share in ((True, 0), (False, 1)):
        found = detections([], [], [])
        found.semantic[0] += 0 if sure else 5
        found.semantic[0, 3, 7:9] = 6.0 if sure else 1.0
        no_ids = torch.tensor([], dtype=torch.int64)
        frame = assemble(found, no_ids, FOUR, (HEIGHT, WIDTH), 0.0, legacy=False, void_below=0.6)
        assert (frame.semantic != VOID).mean() == share


def test_assemble_cuts_the_padding_off() -> None:
    found = with_semantics(detections([[4.0, 8, 19, 23]], [CAR], [0.9]), [4, 8, 19, 23], CAR)
    whole = assemble(found, torch.tensor([0]), FOUR, (HEIGHT, WIDTH), STUFF_AREA, legacy=False)
    cut = assemble(found, torch.tensor([0]), FOUR, (15, 13), STUFF_AREA, legacy=False)
    assert cut.size == (15, 13)
    assert np.array_equal(cut.instance, whole.instance[:15, :13])
    gone = assemble(found, torch.tensor([0]), FOUR, (5, 64), STUFF_AREA, legacy=False)
    assert (gone.instance == 0).all()
    assert gone.scores == {}


def test_assemble_drops_what_a_better_one_covers() -> None:
    a, b = [4, 8, 19, 23], [40, 4, 55, 27]
    boxes = [list(map(float, box)) for box in (a, a, b)]
    found = detections(boxes, [CAR, CAR, PERSON], [0.9, 0.8, 0.7])
    with_semantics(with_semantics(found, a, CAR), b, PERSON)
    frame = assemble(found, torch.tensor([5, 6, 7]), FOUR, (HEIGHT, WIDTH), STUFF_AREA, legacy=False)
    assert int(frame.instance[10, 10]) == 6
    assert int(frame.instance[10, 50]) == 8, "what follows a dropped one keeps its own id"
    assert int(frame.semantic[10, 50]) == 3
    assert frame.scores == pytest.approx({6: 0.9, 8: 0.7})


def test_frame_without_detections() -> None:
    nothing = detections([], [], [], logits=(-1.0, -2.0, 1.0, -3.0))  # the semantic map says car everywhere
    clean = assemble(
        nothing, torch.zeros(0, dtype=torch.int64), FOUR, (HEIGHT, WIDTH), STUFF_AREA, legacy=False
    )
    assert (clean.semantic == 0).all(), "the best stuff class"
    assert (clean.instance == 0).all()
    # Published: a dummy of class 0 with a zero channel beats negative stuff and becomes the last stuff class.
    dummy = detections([[0.0, 0, 0, 0]], [0], [1.0], logits=(-1.0, -2.0, 1.0, -3.0))
    published = assemble(dummy, torch.tensor([0]), FOUR, (HEIGHT, WIDTH), STUFF_AREA, legacy=True)
    assert (published.semantic == 1).all()
    assert (published.instance == 0).all()
    assert published.scores == {}


def test_legacy_brings_the_first_back_when_all_masks_are_empty() -> None:
    box = [4.0, 8, 19, 23]
    found = with_semantics(detections([box], [CAR], [0.9]), [4, 8, 19, 23], CAR)
    found.masks[:] = -9
    assert index_map(found, 2, legacy=False).kept.tolist() == []
    legacy = index_map(found, 2, legacy=True)
    assert legacy.kept.tolist() == [0]
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inside[8:24, 4:20] = True
    assert float(legacy.logits[2][~inside].abs().max()) == 0
    assert (legacy.winner[12:20, 8:16] == 2).all(), "its semantic logits are left"


def test_default_stuff_area_is_2048_pixels_of_cityscapes() -> None:
    assert STUFF_AREA * 1024 * 2048 == 2048


@pytest.mark.parametrize(
    ("size", "road", "legacy_road"),
    [((32, 64), 0, 0), ((32, 63), 0, VOID), ((1, 2), 0, VOID)],
    ids=["2048 pixels", "2016", "2"],
)
def test_legacy_stuff_area_is_2048_pixels_of_any_frame(
    size: tuple[int, int], road: int, legacy_road: int
) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    for legacy, expected in ((False, road), (True, legacy_road)):
        frame = assemble(detections([], [], []), nothing, FOUR, size, STUFF_AREA, legacy)
        assert (frame.semantic == expected).all()
    half = assemble(detections([], [], []), nothing, FOUR, (32, 63), STUFF_AREA / 2, legacy=True)
    assert (half.semantic == 0).all(), "1024 pixels are enough"


def test_legacy_softmax_makes_ties() -> None:
    """Logits that differ by less than float32 can tell apart about 1: the first of equal ones wins."""
    close = detections([], [], [], logits=(0.0, 1e-9, -9.0, -9.0))
    for legacy, winner in ((False, 1), (True, 0)):
        found = index_map(close, FOUR.num_stuff, legacy)
        assert (found.winner == winner).all()
        assert (found.semantic == winner).all()
        assert float(found.logits[1].min()) > 0, "the logits stay what they are"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([255, 3], [256 + 7, 4]), ([511, 300], [256 + 7, 301 - 256]), ([3, 259], [4, 4])],
)
def test_legacy_object_value_0_gets_an_id_of_the_frame(ids: list[int], expected: list[int]) -> None:
    a, b = [4, 8, 19, 23], [40, 4, 55, 27]
    found = detections([list(map(float, a)), list(map(float, b))], [CAR, PERSON], [0.9, 0.8])
    with_semantics(with_semantics(found, a, CAR), b, PERSON)
    frame = assemble(found, torch.tensor(ids), FOUR, (HEIGHT, WIDTH), STUFF_AREA, legacy=True, number=7)
    assert [int(frame.instance[10, 10]), int(frame.instance[10, 50])] == expected
    assert frame.scores == pytest.approx({expected[1]: 0.8} | {expected[0]: 0.9}), "the best of equal ids"
    assert int((frame.instance > 0).sum()) == 16 * 16 + 24 * 16
    plain = assemble(found, torch.tensor(ids), FOUR, (HEIGHT, WIDTH), STUFF_AREA, legacy=False, number=7)
    assert sorted(plain.scores) == sorted(i + 1 for i in ids)


def scattered(
    seed: int, instances: int, size: tuple[int, int] = (64, 96), tied: bool = False, floats: bool = False
) -> Detections:
    """Instances anywhere, also across the far borders, one pixel large or inside out, of any score.

    Logits are multiples of 1/8, which enlarging by bilinear weights keeps exact, unless `floats`.
    """
    g = torch.Generator().manual_seed(seed)
    semantic = 3 * torch.randn(4, size[0] // 4, size[1] // 4, generator=g)
    masks = 4 * torch.randn(instances, 1, 4, 4, generator=g) + 1
    masks = torch.nn.functional.interpolate(masks, size=28, mode="bilinear")[:, 0]
    if not floats:
        semantic, masks = (semantic * 8).round() / 8, (masks * 8).round() / 8
    if tied:  # few values: many pixels have several best channels
        semantic, masks = semantic.sign(), masks.sign() * 0
        masks += 1
    corner = torch.rand(instances, 2, generator=g) * torch.tensor([size[1] - 1.0, size[0] - 1.0])
    sides = torch.rand(instances, 2, generator=g) ** 2 * 40 - 2
    scores = (torch.rand(instances, generator=g) * 8).ceil() / 8  # some are equal
    labels = torch.randint(1, 3, (instances,), generator=g)
    return Detections(
        semantic, torch.cat([corner, corner + sides], 1), labels, scores, masks, torch.zeros(instances, 1)
    )


def slowly(
    semantic: np.ndarray, index: np.ndarray, labels: np.ndarray, ids: np.ndarray, stuff_area: int
) -> Unified:
    """`unify`, one instance at a time over the whole map."""
    classes, number, values = (np.where(index < 2, v, 0).astype(np.int64) for v in (index, 0, 0))
    for rank, channel in enumerate(sorted(set(index[index >= 2].tolist()))):
        where = index == channel
        votes = np.bincount(semantic[where], minlength=4)
        if votes.argmax() < 2 and votes.max() >= 0.5 * where.sum():
            classes[where] = votes.argmax()
        else:
            classes[where], number[where] = labels[channel - 2] + 1, rank + 1
            values[where] = ids[channel - 2] + 1
    for c in range(2):
        if (classes == c).sum() < stuff_area:
            classes[classes == c] = VOID
    return Unified(classes, number, values)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("instances", [0, 1, 2, 7, 60])
def test_windows_give_what_whole_channels_give(instances: int, tied: bool) -> None:
    for seed in range(12):
        found = scattered(seed, instances, tied=tied)
        plain = index_map(found, 2, legacy=False)
        for size in ((64, 96), (61, 90), (3, 2)):
            quick = winners(found, 2, size)
            assert quick.kept == plain.kept.tolist()
            assert np.array_equal(quick.semantic, plain.semantic[: size[0], : size[1]])
            assert np.array_equal(quick.winner, plain.winner[: size[0], : size[1]])
    assert instances < 60 or 2 <= len(quick.kept) < instances, "some are covered"


def test_windows_and_whole_channels_differ_where_logits_are_equal_but_for_rounding() -> None:
    for seed in range(12):
        found = scattered(seed, 30, floats=True)
        plain, quick = index_map(found, 2, legacy=False), winners(found, 2, (64, 96))
        best = plain.logits.topk(2, 0).values
        sure = (best[0] - best[1] > 1e-4).numpy()
        assert sure.mean() > 0.99
        assert np.array_equal(quick.winner[sure], plain.winner.numpy()[sure])


@pytest.mark.parametrize("instances", [0, 1, 7, 60])
def test_lookup_gives_what_one_instance_at_a_time_gives(instances: int) -> None:
    for seed in range(12):
        found = winners(scattered(seed, instances), 2, (64, 96))
        generator = np.random.default_rng(seed)
        labels, ids = (generator.integers(1, 3, len(found.kept)), generator.permutation(len(found.kept)))
        for area in (0, 1500):
            quick = unify(found.semantic, found.winner, labels, ids, FOUR, area, legacy=False)
            slow = slowly(found.semantic, found.winner, labels, ids, area)
            assert all(map(np.array_equal, quick, slow))
            assert [a.dtype for a in quick] == [np.uint8, np.int32, np.int32]
