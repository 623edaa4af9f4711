"""cuts.py: hard cuts are found; flashes, fades, pans, noise and darkness are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from panoptube.cuts import CUT, FLASH, Look, difference, mark_cuts
from panoptube.data.clip import Image
from panoptube.video import TimedImage, open_video

FILMS = Path(__file__).parents[2] / "shared" / "videos"


def scene(seed: int, size: tuple[int, int] = (96, 300)) -> Image:
    """Blobs in a few colours of its own."""
    random = np.random.default_rng(seed)
    palette = random.integers(0, 256, (5, 3)).astype(np.uint8)
    picture = palette[random.integers(0, 5, (6, 12))]
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC)


def shot(seed: int, count: int, speed: int = 2) -> list[Image]:
    """A camera that turns by `speed` of 128 pixels a frame."""
    whole = scene(seed)
    return [whole[:, speed * t : speed * t + 128] for t in range(count)]


def cuts_of(images: Iterable[Image]) -> list[int]:
    marked = list(mark_cuts(TimedImage(image, t / 10) for t, image in enumerate(images)))
    assert [frame.time for frame, _ in marked] == [t / 10 for t in range(len(marked))], "all, in order"
    return [t for t, (_, cut) in enumerate(marked) if cut]


def test_the_first_frame_of_each_shot_is_a_cut_but_not_the_first_of_all() -> None:
    film = [*shot(0, 12), *shot(1, 9), *shot(2, 20)]
    assert cuts_of(film) == [12, 21]
    assert cuts_of(film[:13]) == [12], "the last frame"
    assert cuts_of(film[:1]) == []
    assert cuts_of([]) == []


@pytest.mark.parametrize("length", [1, FLASH])
@pytest.mark.parametrize("gain", [0, 1.7, 100])
def test_a_flash_or_a_black_frame_is_no_cut(length: int, gain: float) -> None:
    film = shot(3, 20)
    for t in range(8, 8 + length):
        film[t] = np.clip(film[t] * gain, 0, 255).astype(np.uint8)
    assert cuts_of(film) == []
    assert cuts_of([*film, *shot(4, 5)]) == [20], "and hides none"


def test_what_lasts_longer_than_a_flash_is_a_shot() -> None:
    assert cuts_of([*shot(0, 8), *shot(1, FLASH + 2), *shot(0, 8)]) == [8, 8 + FLASH + 2]


def test_a_flash_at_a_cut_does_not_hide_it() -> None:
    film = [*shot(0, 8), np.full((96, 128, 3), 255, np.uint8), *shot(1, 8)]
    assert set(cuts_of(film)) & {8, 9}


@pytest.mark.parametrize("seed", range(5))
def test_fades_and_fast_pans_are_no_cuts(seed: int) -> None:
    still = shot(seed, 1)[0]
    fade = [np.round(still * a).astype(np.uint8) for a in np.linspace(1, 0, 13)]
    assert cuts_of([*fade, *fade[::-1]]) == []
    assert cuts_of(shot(seed, 13, speed=13)) == [], "a tenth of the picture for each frame"


def test_darkness_with_noise_is_no_cut() -> None:
    random = np.random.default_rng(0)
    assert (
        cuts_of(np.clip(random.normal(4, 6, (96, 128, 3)), 0, 255).astype(np.uint8) for _ in range(30)) == []
    )


def test_plain_frames_of_other_brightness_are_no_cuts() -> None:
    assert cuts_of(np.full((48, 64, 3), 20 * t, np.uint8) for t in range(10)) == []


def test_the_difference_by_hand() -> None:
    left, right = (np.zeros((64, 64, 3), np.uint8) for _ in range(2))
    left[:, :32], right[:, 32:] = 255, 255
    a, b = Look.of(left), Look.of(right)
    assert difference(a, a) == pytest.approx(0, abs=1e-6)
    # Layouts are opposite, but all colours are common.
    assert difference(a, b) == 0
    # No colour is common: correlation -1 makes sqrt(2 x 1), but for the noise that is allowed for.
    assert difference(a, Look.of(right // 2 + 40)) == pytest.approx(2**0.5, abs=0.01)
    # Twice the size, the same look.
    assert difference(a, Look.of(cv2.resize(left, (128, 128), interpolation=cv2.INTER_NEAREST))) < CUT / 100


def test_no_more_frames_are_held_than_a_flash_has() -> None:
    read = [0]

    def count() -> Iterator[TimedImage]:
        for t, image in enumerate([*shot(0, 10), *shot(1, 10)]):
            read[0] += 1
            yield TimedImage(image, t / 10)

    for t, (_, _) in enumerate(mark_cuts(count())):
        assert read[0] - t - 1 == (min(FLASH, max(10 + FLASH - t, 0)) if t >= 10 else 0)


@pytest.mark.skipif(not FILMS.exists(), reason="the films are not beside the checkout")
@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("bikes.mp4", [30, 76, 137, 187, 242]),
        ("solidWhiteRight.mp4", []),
        ("test_video.mp4", []),
        ("vtest.avi", []),
    ],
)
def test_films(name: str, cuts: list[int]) -> None:
    found = [t for t, (_, cut) in enumerate(mark_cuts(open_video(FILMS / name).frames())) if cut]
    assert found == cuts
