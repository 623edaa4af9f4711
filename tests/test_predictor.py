"""Image in, labelled frame out: sizes, ids through the video, memory, wrong input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from panoptube.config import NetworkConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.transforms import MEAN, STD
from panoptube.network.vpsnet import Detections, VPSNet, vpsnet
from panoptube.panoptic.frame import VOID
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
        self.frames = list(frames)
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> list[Detections]:
        """Each detection is (box, label, which of 64 different looks); it fills its box. Road elsewhere."""
        found = self.frames[len(self.shown) % len(self.frames)]
        self.shown.append(images)
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


def tiny(finds_something: bool, legacy: bool = False) -> VPSNet:
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
