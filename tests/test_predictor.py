"""Image in, labelled frame out: sizes, ids through the video, memory, wrong input."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from panoptube.config import NetworkConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.transforms import MEAN, STD
from panoptube.flow.flownet2 import flow_quarter
from panoptube.flow.images import dis_image_flow
from panoptube.network.fuse import FuseNeck
from panoptube.network.vpsnet import Detections, VPSNet, vpsnet
from panoptube.panoptic.frame import VOID
from panoptube.panoptic.segment_ids import SegmentIds, frame_to_ids
from panoptube.predictor import VideoPredictor, network_size

CAR, PERSON = 3, 1
ROAD = 0
LOOKS = 64


class Scripted(nn.Module):
    """Says frame by frame what it is told to, in maps of its input's size. Remembers what it was shown."""

    def __init__(self, frames: Sequence[Sequence[tuple[list[float], int, int]]], **config: object) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = NetworkConfig(test_size=(64, 128)).model_copy(update=config)
        self.taxonomy = CITYSCAPES
        self.fuse = None
        self.device = torch.device("cpu")
        self.frames = list(frames)
        self.shown: list[Tensor] = []
        self.sizes: list[tuple[int, int] | None] = []

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> list[Detections]:
        """Each detection is (box, label, which of 64 different looks); it fills its box. Road elsewhere."""
        found = self.frames[len(self.shown) % len(self.frames)]
        self.shown.append(images)
        self.sizes.append(size)
        height, width = images.shape[2] // 4, images.shape[3] // 4
        semantic = torch.zeros(len(CITYSCAPES), height, width)
        semantic[ROAD] = 1
        for (x1, y1, x2, y2), label, _ in found:
            rows, columns = slice(int(y1) // 4, int(y2) // 4 + 1), slice(int(x1) // 4, int(x2) // 4 + 1)
            semantic[CITYSCAPES.num_stuff + label - 1, rows, columns] = 9
        n = len(found)
        looks = 30 * (torch.eye(LOOKS) - 1 / LOOKS)  # products of different looks are below 0
        return [
            Detections(
                semantic,
                torch.tensor([box for box, _, _ in found]).reshape(n, 4),
                torch.tensor([label for _, label, _ in found], dtype=torch.int64),
                torch.linspace(0.99, 0.8, n),
                torch.full((n, 28, 28), 9.0),
                looks[[look % LOOKS for _, _, look in found]],
            )
        ]


def predictor(network: Scripted | VPSNet, max_age: int = 30) -> VideoPredictor:
    return VideoPredictor(network, max_age)  # type: ignore[arg-type]


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


BOX = [16.0, 16, 47, 47]


@pytest.mark.parametrize(
    ("size", "inside"),
    [
        ((64, 128), (64, 128)),
        ((128, 256), (64, 128)),
        ((32, 64), (64, 128)),
        ((45, 70), (64, 100)),
        ((70, 45), (100, 64)),
        ((1, 1), (64, 64)),
        ((20, 200), (13, 128)),
        ((63, 127), (63, 128)),
    ],
)
def test_result_has_the_size_of_the_image(size: tuple[int, int], inside: tuple[int, int]) -> None:
    network = Scripted([[]])
    frame = predictor(network).step(image(*size))
    assert frame.size == size
    assert network_size(size, (64, 128)) == inside
    padded = tuple(-(-edge // 32) * 32 for edge in inside)
    assert tuple(network.shown[0].shape) == (1, 3, *padded)
    assert network.sizes == [inside], "the network knows what is padding"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1024, 2048), (1024, 2048)),
        ((1080, 1920), (1024, 1820)),
        ((2048, 1024), (2048, 1024)),
        ((1, 10_000), (1, 2048)),
        ((480, 640), (1024, 1365)),
    ],
)
def test_network_size_of_the_published_scale(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(size, (1024, 2048)) == expected
    assert network_size(size, (2048, 1024)) == expected


def test_network_sees_the_normalised_image_with_padding_of_the_mean_colour() -> None:
    network = Scripted([[]], test_size=(60, 100))
    picture = image(60, 100)
    predictor(network).step(picture)
    shown = network.shown[0][0].permute(1, 2, 0).numpy()
    assert shown.shape == (64, 128, 3)
    assert np.allclose(shown[:60, :100], (picture - MEAN) / STD, atol=1e-5)
    assert (shown[60:] == 0).all()
    assert (shown[:, 100:] == 0).all()


@pytest.mark.parametrize("size", [(60, 100), (30, 50), (120, 200)])
def test_padding_is_cut_off_before_the_result_is_scaled(size: tuple[int, int]) -> None:
    edge = [0.0, 56, 127, 63]  # reaches into the padding, which begins at row 60 and column 100
    frame = predictor(Scripted([[(edge, CAR, 0)]], test_size=(60, 100))).step(image(*size))
    assert frame.size == size
    below = round(56 / 60 * size[0])
    assert (frame.instance[below:] == 1).all()
    assert (frame.instance[:below] == 0).all()


def test_labels_and_ids_at_the_size_of_the_network() -> None:
    frame = predictor(Scripted([[(BOX, CAR, 0)]])).step(image(64, 128))
    car = CITYSCAPES.index("car")
    expected = np.full((64, 128), ROAD, np.uint8)
    expected[16:48, 16:48] = car
    assert np.array_equal(frame.semantic, expected)
    assert np.array_equal(frame.instance, np.where(expected == car, 1, 0))
    assert frame.scores == pytest.approx({1: 0.99})
    assert (frame.semantic.dtype, frame.instance.dtype) == (np.uint8, np.int32)


@pytest.mark.parametrize("factor", [0.5, 2, 3])
def test_result_is_scaled_about_the_pixel_centres(factor: float) -> None:
    """A pixel of the result has the label that the network gave the place under its centre."""
    network = Scripted([[([17.0, 18, 47, 40], CAR, 0), ([70.0, 3, 99, 60], PERSON, 1)]])
    inside = predictor(network).step(image(64, 128))
    size = (int(64 * factor), int(128 * factor))
    frame = predictor(Scripted(network.frames)).step(image(*size))
    rows = ((np.arange(size[0]) + 0.5) / factor).astype(int)
    columns = ((np.arange(size[1]) + 0.5) / factor).astype(int)
    assert np.array_equal(frame.semantic, inside.semantic[np.ix_(rows, columns)])
    assert np.array_equal(frame.instance, inside.instance[np.ix_(rows, columns)])
    assert set(np.unique(frame.instance).tolist()) == {0, 1, 2}
    assert frame.scores == inside.scores


def test_ids_follow_the_objects_through_the_video() -> None:
    other = [80.0, 16, 111, 47]
    network = Scripted(
        [
            [(BOX, CAR, 0), (other, CAR, 1)],
            [(other, CAR, 1), (BOX, CAR, 0)],  # the other way round
            [],
            [(other, CAR, 1), (BOX, PERSON, 2)],  # someone new where the first one was
        ]
    )
    video = predictor(network)
    frames = [video.step(image(64, 128, t)) for t in range(4)]
    at = [(int(f.instance[30, 30]), int(f.instance[30, 90])) for f in frames]
    assert at == [(1, 2), (1, 2), (0, 0), (3, 2)]
    assert [set(f.scores) for f in frames] == [{1, 2}, {1, 2}, set(), {2, 3}]
    fresh = predictor(Scripted(network.frames))
    assert int(fresh.step(image(64, 128)).instance[30, 30]) == 1, "another video starts anew"


def test_a_restart_forgets_who_was_seen_but_not_how_many() -> None:
    other = [80.0, 16, 111, 47]
    video = predictor(Scripted([[(BOX, CAR, 0), (other, CAR, 1)]]))
    seen = []
    for t in range(6):
        if t in (2, 5):
            video.restart()
        seen.append(sorted(video.step(image(64, 128)).scores))
    assert seen == [[1, 2], [1, 2], [3, 4], [3, 4], [3, 4], [5, 6]]
    assert len(video.tracker) == 2
    untouched = predictor(Scripted([[]]))
    untouched.restart()
    assert untouched.step(image(64, 128)).scores == {}


def test_frames_seen_ahead_are_followed_in_order() -> None:
    class Counting(Scripted):
        """Looks at each frame of a batch on its own."""

        def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> list[Detections]:
            return [super(Counting, self).forward(image[None], size)[0] for image in images]

    script = [[(BOX, CAR, 0)], [(BOX, CAR, 0), ([64.0, 16, 95, 47], PERSON, 1)], []]
    pictures = [image(64, 128, seed) for seed in range(5)]
    ahead, plain = predictor(Counting(script)), predictor(Counting(script))
    found = [*ahead.detect(pictures[:3]), *ahead.detect(pictures[3:])]
    assert len(ahead.tracker) == 0
    for picture, said in zip(pictures, found):
        ours, theirs = ahead.step(picture, said), plain.step(picture)
        np.testing.assert_array_equal(ours.instance, theirs.instance)
        np.testing.assert_array_equal(ours.semantic, theirs.semantic)
    assert len(ahead.network.shown) == 5  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images must have one size, got .*120.*128"):
        ahead.detect([image(64, 128), image(64, 120)])
    with pytest.raises(ValueError, match=r"images must have one size, got \[\]"):
        ahead.detect([])
    with pytest.raises(ValueError, match=r"found is of frames of \(64, 128\), this one has \(128, 64\)"):
        ahead.step(image(128, 64), found[0])


def test_memory_is_bounded_by_max_age() -> None:
    script = [[(BOX, CAR, t)] for t in range(LOOKS)]  # something new in each frame
    video = predictor(Scripted(script), max_age=5)
    seen = set()
    for t in range(LOOKS):
        seen |= set(video.step(image(64, 128)).scores)
        assert len(video.tracker) == min(t + 1, 6)
    assert len(seen) == LOOKS, "no id twice"
    published = predictor(Scripted(script, legacy=True), max_age=5)
    for _ in range(LOOKS):
        published.step(image(64, 128))
    assert len(published.tracker) == LOOKS


@pytest.mark.parametrize(("match_score", "second"), [(True, (2, 1)), (False, (1, 2))])
def test_looks_decide_only_with_the_match_score(match_score: bool, second: tuple[int, int]) -> None:
    """Two cars change places, or their looks."""
    other = [80.0, 16, 111, 47]
    network = Scripted(
        [[(BOX, CAR, 0), (other, CAR, 1)], [(BOX, CAR, 1), (other, CAR, 0)]], match_score=match_score
    )
    video = predictor(network)
    first, frame = video.step(image(64, 128)), video.step(image(64, 128))
    assert (int(first.instance[30, 30]), int(first.instance[30, 90])) == (1, 2)
    assert (int(frame.instance[30, 30]), int(frame.instance[30, 90])) == second


def test_legacy_object_value_0_is_a_segment_with_another_id_in_each_frame() -> None:
    """A byte holds id + 1 of objects 255 and 511 as 0; the published files have no crowd."""
    other = [80.0, 16, 111, 47]
    video = predictor(Scripted([[(BOX, CAR, 0), (other, CAR, 1)]], legacy=True, stuff_area=0.0))
    video.tracker.next_id = 255
    frames = [video.step(image(64, 128)) for _ in range(3)]
    assert [int(f.instance[30, 30]) for f in frames] == [256, 257, 258]
    assert [int(f.instance[30, 90]) for f in frames] == [1, 1, 1]
    assert frames[2].scores == pytest.approx({258: 0.99, 1: 0.8})
    assert np.array_equal(frames[0].instance > 0, frames[0].semantic == CITYSCAPES.index("car"))
    ids = SegmentIds(CITYSCAPES)
    tables = [frame_to_ids(f, CITYSCAPES, ids)[1] for f in frames]
    assert not any(segment.iscrowd for table in tables for segment in table)
    cars = [[s.id for s in table if s.track_id is not None] for table in tables]
    assert len({min(pair) for pair in cars} | {max(pair) for pair in cars}) == 4, "1 that goes on, 3 new ones"


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((64, 128), np.uint8),
        np.zeros((64, 128, 4), np.uint8),
        np.zeros((64, 128, 3), np.float32),
        np.zeros((3, 64, 128), np.uint8),
        np.zeros((0, 128, 3), np.uint8),
        np.zeros((1, 64, 128, 3), np.uint8),
    ],
)
def test_wrong_input(wrong: np.ndarray) -> None:
    network = Scripted([[]])
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8, got \("):
        predictor(network).step(wrong)
    assert network.shown == []


def tiny(finds_something: bool, legacy: bool = False, fuse: bool = False) -> VPSNet:
    """A whole network, untrained; where told to, its class logits are far apart and it finds something."""
    torch.manual_seed(0)
    config = NetworkConfig(
        backbone="resnet18",
        channels=16,
        semantic_channels=(16,),
        semantic_groups=4,
        box_channels=32,
        mask_channels=16,
        mask_convs=1,
        match_channels=16,
        test_proposals=50,
        score_threshold=0.3,
        test_size=(64, 128),
        legacy=legacy,
        fuse=fuse,
    )
    network = vpsnet(config, CITYSCAPES).eval()
    if finds_something:
        network.boxes.classes.weight.data *= 10
    network.semantic.logits.bias.data[: CITYSCAPES.num_stuff] -= 3  # things win pixels
    return network


def test_whole_network_keeps_ids_on_a_repeated_frame() -> None:
    network = tiny(finds_something=True)
    for size in ((64, 128), (50, 90)):
        video, picture = predictor(network), image(*size)
        first = video.step(picture)
        assert first.size == size
        assert first.scores, "it found something"
        first.check(CITYSCAPES)
        for _ in range(3):
            again = video.step(picture)
            assert np.array_equal(again.semantic, first.semantic)
            assert np.array_equal(again.instance, first.instance)
            assert again.scores == first.scores


@pytest.mark.parametrize("legacy", [False, True])
def test_whole_network_that_finds_nothing(legacy: bool) -> None:
    frame = predictor(tiny(finds_something=False, legacy=legacy)).step(image(50, 90))
    assert (frame.instance == 0).all()
    assert frame.scores == {}
    assert ((frame.semantic < CITYSCAPES.num_stuff) | (frame.semantic == VOID)).all()


class GivenFlow:
    """Says what it is told to; remembers copies of what it was asked about."""

    def __init__(self, flow: np.ndarray | float) -> None:
        self.flow = flow
        self.asked: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, picture: np.ndarray, reference: np.ndarray) -> np.ndarray:
        self.asked.append((picture.copy(), reference.copy()))
        return np.broadcast_to(np.float32(self.flow), (*picture.shape[:2], 2))


def what_is_fused(network: VPSNet) -> list[tuple[list[Tensor], list[Tensor], Tensor]]:
    """Pyramid, reference and flow of each call of the neck, from now on."""
    seen: list[tuple[list[Tensor], list[Tensor], Tensor]] = []
    assert isinstance(network.fuse, FuseNeck)

    def keep(neck: nn.Module, inputs: tuple[list[Tensor], list[Tensor], Tensor]) -> None:
        seen.append(inputs)

    network.fuse.register_forward_pre_hook(keep)
    return seen


@pytest.mark.parametrize("legacy", [False, True])
def test_fused_frames_have_the_one_before_as_their_reference(legacy: bool) -> None:
    network, source = tiny(finds_something=True, fuse=True, legacy=legacy), GivenFlow(4.0)
    seen, video = what_is_fused(network), VideoPredictor(network, flow=source)
    sizes: list[tuple[int, int] | None] = []
    detect_all = network.detect_all

    def detect(pyramid: Sequence[Tensor], size: tuple[int, int] | None = None) -> list[Detections]:
        sizes.append(size)
        return detect_all(pyramid, size)

    network.detect_all = detect  # type: ignore[method-assign]
    pictures = [image(64, 115, seed) for seed in range(3)]
    buffer = np.empty_like(pictures[0])
    for picture in pictures:
        buffer[:] = picture  # as a camera that fills the same memory again
        frame = video.step(buffer)
        assert frame.size == (64, 115)
        frame.check(CITYSCAPES)
    assert frame.scores, "it found something"
    assert sizes == [(64, 115)] * 3, "the network knows what is padding"
    first, *others = source.asked
    assert first[0].shape == (64, 128 if legacy else 115, 3)
    assert np.array_equal(*first), "the first frame is its own reference"
    for (_, before), (picture, _), shown in zip(others, source.asked, pictures):
        assert np.array_equal(before, picture)
        assert np.array_equal(picture[:, :115], shown)
        assert (picture[:, 115:] == (124, 116, 104)).all(), "padding has the mean colour"
    assert all(torch.equal(a, b) for a, b in zip(seen[0][0], seen[0][1]))
    for t in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(seen[t][1], seen[t - 1][0]))
        assert not torch.equal(seen[t][0][0], seen[t][1][0])
    # The network sees 64 x 128 pixels, the last 13 columns of which are padding: at rest, but published.
    flow = torch.zeros(1, 2, 64, 128)
    flow[..., : 128 if legacy else 115] = 4
    assert torch.equal(seen[2][2], flow_quarter(flow))
    assert seen[2][2][0, 0, 0].tolist() == [1] * 29 + [1 if legacy else 0] * 3


def test_what_is_fused_decides_what_is_seen() -> None:
    network = tiny(finds_something=True, fuse=True)
    pictures = [image(64, 128, seed) for seed in range(2)]

    def second(flow: np.ndarray | float, first: np.ndarray) -> np.ndarray:
        video = VideoPredictor(network, flow=GivenFlow(flow))
        video.step(first)
        return video.step(pictures[1]).semantic

    usual = second(0.0, pictures[0])
    assert np.array_equal(usual, second(0.0, pictures[0]))
    assert np.array_equal(usual, second(np.nan, pictures[0])), "unknown flow counts as rest"
    assert not np.array_equal(usual, second(30.0, pictures[0]))
    assert not np.array_equal(usual, second(0.0, pictures[1]))


def test_frame_of_another_size_is_its_own_reference() -> None:
    source = GivenFlow(0.0)
    video = VideoPredictor(tiny(finds_something=False, fuse=True), flow=source)
    video.step(image(64, 128))
    video.step(image(64, 64))
    assert [picture.shape for picture, _ in source.asked] == [(64, 128, 3), (64, 64, 3)]
    assert np.array_equal(*source.asked[1])


def test_flow_of_another_size_is_refused() -> None:
    video = VideoPredictor(
        tiny(finds_something=False, fuse=True), flow=lambda a, b: np.zeros((16, 32, 2), np.float32)
    )
    with pytest.raises(ValueError, match=r"flow must be \(64, 128, 2\), got \(16, 32, 2\)"):
        video.step(image(64, 128))


def test_flow_is_from_dis_where_none_is_given() -> None:
    network = tiny(finds_something=False, fuse=True)
    seen, video = what_is_fused(network), VideoPredictor(network)
    smooth = cv2.GaussianBlur(image(96, 160), (0, 0), 2)
    before, now = np.ascontiguousarray(smooth[:64, 6:134]), np.ascontiguousarray(smooth[:64, :128])
    video.step(before)
    video.step(now)
    expected = torch.from_numpy(dis_image_flow(now, before)).permute(2, 0, 1)[None]
    torch.testing.assert_close(seen[1][2], flow_quarter(expected))
    # What is at x now was at x - 6 before: 1.5 pixels of P2.
    assert seen[1][2][0, 0].median().item() == pytest.approx(-1.5, abs=0.1)


def test_track_asks_for_no_flow() -> None:
    source = GivenFlow(0.0)
    VideoPredictor(tiny(finds_something=True), flow=source).step(image(64, 128))
    assert source.asked == []


def test_network_without_a_match_head_follows_by_class_and_place() -> None:
    network = tiny(finds_something=True)
    network.matching = None
    video = VideoPredictor(network)
    first, again = video.step(image(64, 128)), video.step(image(64, 128))
    assert first.scores
    assert np.array_equal(first.instance, again.instance)
