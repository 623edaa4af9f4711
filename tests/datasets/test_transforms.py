"""Joint geometry, colours and normalisation, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from panoptube.data.transforms import Degradation, Geometry, Photometric, normalize


def columns(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: every pixel says its row, column and nothing."""
    ys, xs = np.mgrid[:height, :width]
    return np.stack([ys, xs, np.zeros_like(ys)], -1).astype(np.uint8)


def test_identity_crop_by_hand() -> None:
    geometry = Geometry((20, 30), (20, 30), top=3, left=5, size=(8, 10), flip=False)
    image = columns(20, 30)
    assert (geometry.image(image) == image[3:11, 5:15]).all()
    assert (geometry.labels(image[:, :, 1], 255) == image[3:11, 5:15, 1]).all()


def test_flip_mirrors_the_window_and_not_the_frame() -> None:
    geometry = Geometry((20, 30), (20, 30), top=0, left=5, size=(20, 4), flip=True)
    assert geometry.image(columns(20, 30))[0, :, 1].tolist() == [8, 7, 6, 5]
    assert geometry.labels(columns(20, 30)[:, :, 1], 255)[0].tolist() == [8, 7, 6, 5]


def test_padding_is_at_the_bottom_and_right_also_after_a_flip() -> None:
    geometry = Geometry((4, 6), (4, 6), top=0, left=0, size=(8, 8), flip=True)
    labels = geometry.labels(columns(4, 6)[:, :, 1], 255)
    assert labels[0].tolist() == [5, 4, 3, 2, 1, 0, 255, 255]
    assert (labels[4:] == 255).all()
    assert geometry.image(columns(4, 6)).shape == (4, 6, 3)


@pytest.mark.parametrize("factor", [2, 3])
def test_whole_enlargements_repeat_labels(factor: int) -> None:
    source = np.arange(12, dtype=np.int32).reshape(3, 4)
    size = (3 * factor, 4 * factor)
    geometry = Geometry((3, 4), size, 0, 0, size, False)
    assert (geometry.labels(source, 0) == source.repeat(factor, 0).repeat(factor, 1)).all()


def test_halving_takes_the_pixel_under_the_centre() -> None:
    # Centres of the halves are at 1, 3, 5, ... in pixel edges: pixels 1, 3, 5 begin there.
    geometry = Geometry((6, 8), (3, 4), 0, 0, (3, 4), False)
    assert geometry.labels(columns(6, 8)[:, :, 1], 0)[0].tolist() == [1, 3, 5, 7]
    assert geometry.labels(columns(6, 8)[:, :, 0], 0)[:, 0].tolist() == [1, 3, 5]


@pytest.mark.parametrize("seed", range(8))
def test_image_and_labels_stay_together(seed: int) -> None:
    """A smooth ramp: what bilinear says of the image is within a pixel of what nearest says of the labels."""
    image = columns(100, 200)
    geometry = Geometry.draw(np.random.default_rng(seed), (100, 200), (64, 96), (0.8, 1.5))
    crop = geometry.image(image).astype(int)
    for channel in (0, 1):
        labels = geometry.labels(image[:, :, channel], 0).astype(int)[: crop.shape[0], : crop.shape[1]]
        assert abs(labels - crop[:, :, channel]).max() <= 1


def test_draws_cover_what_they_should() -> None:
    rng = np.random.default_rng(0)
    drawn = [Geometry.draw(rng, (100, 200), (90, 180), (0.8, 1.5)) for _ in range(400)]
    factors = [g.scaled[0] / 100 for g in drawn]
    assert 0.8 <= min(factors) < 0.82
    assert 1.48 < max(factors) <= 1.5
    assert 160 < sum(g.flip for g in drawn) < 240
    for g in drawn:
        assert 0 <= g.top <= max(g.scaled[0] - 90, 0)
        assert 0 <= g.left <= max(g.scaled[1] - 180, 0)
    still = [Geometry.draw(rng, (100, 200), (90, 180), (1, 1)) for _ in range(400)]
    assert {g.top for g in still} == set(range(11))
    assert {g.left for g in still} == set(range(21))


def test_fit_scales_long_side_to_long_side() -> None:
    # min(400 / 200, 300 / 100) = 2 (dossier 2.1), whichever way round the frame is.
    rng = np.random.default_rng(0)
    assert Geometry.draw(rng, (100, 200), (32, 32), (1, 1), fit=(300, 400)).scaled == (200, 400)
    assert Geometry.draw(rng, (200, 100), (32, 32), (1, 1), fit=(300, 400)).scaled == (400, 200)
    assert Geometry.draw(rng, (1080, 1920), (32, 32), (1, 1), fit=(1024, 2048)).scaled == (1024, 1820)


def test_frame_of_another_size_is_refused() -> None:
    geometry = Geometry((4, 6), (4, 6), 0, 0, (4, 6), False)
    with pytest.raises(ValueError, match=r"\(4, 6\)"):
        geometry.image(columns(6, 4))


def test_normalize_by_hand_and_padding_is_the_mean_colour() -> None:
    image = np.full((2, 3, 3), (124, 116, 255), np.uint8)
    out = normalize(image, (4, 4))
    assert out.shape == (3, 4, 4)
    assert out.dtype == np.float32
    expected = [(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (255 - 103.53) / 57.375]
    np.testing.assert_allclose(out[:, 1, 2], expected, atol=1e-6)
    assert not out[:, 2:].any()
    assert not out[:, :, 3:].any()


def test_photometric_by_hand() -> None:
    pixel = np.array([[[100, 150, 200]]], np.uint8)
    assert Photometric()(pixel).tolist() == [[[100, 150, 200]]]
    assert Photometric(brightness=0.5)(pixel).tolist() == [[[50, 75, 100]]]
    assert Photometric(brightness=2)(pixel).tolist() == [[[200, 255, 255]]]  # kept in range
    assert Photometric(gains=(0.5, 1, 1))(pixel).tolist() == [[[50, 150, 200]]]
    # 127.5 + 2 * (x - 127.5) = 72.5, 172.5, 272.5
    assert abs(Photometric(contrast=2)(pixel).astype(float) - [72.5, 172.5, 255]).max() <= 0.5
    grey = round(0.299 * 100 + 0.587 * 150 + 0.114 * 200)
    assert Photometric(saturation=0)(pixel).tolist() == [[[grey] * 3]]


def test_no_jitter_changes_nothing_and_jitter_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    still = Photometric.draw(np.random.default_rng(1), 0.0)
    assert still == Photometric()
    drawn = Photometric.draw(np.random.default_rng(1), 0.3)
    assert (drawn(image) != image).any()
    second = drawn.then(np.random.default_rng(2), 0.03)
    assert second.saturation == drawn.saturation
    assert second.gains == drawn.gains
    assert 0 < abs(second.brightness / drawn.brightness - 1) <= 0.03


def test_degradation_by_hand() -> None:
    rng = np.random.default_rng(0)
    red = np.full((16, 16, 3), (200, 0, 0), np.uint8)
    assert Degradation()(red, rng) is red
    assert abs(Degradation(hue=120)(red, rng).astype(int) - [0, 200, 0]).max() <= 3
    assert Degradation(grey=True)(red, rng)[0, 0].tolist() == [60] * 3
    dot = np.zeros((15, 15, 3), np.uint8)
    dot[7, 7] = 255
    blurred = Degradation(blur=1.0)(dot, rng)
    assert blurred[7, 7, 0] == pytest.approx(255 / (2 * np.pi), abs=3)  # the peak of a Gaussian
    grey = np.full((64, 64, 3), 128, np.uint8)
    noise = Degradation(noise=5)(grey, rng).astype(float) - 128
    assert noise.std() == pytest.approx(5, rel=0.05)
    assert abs(noise.mean()) < 0.2
    texture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    losses = [abs(Degradation(quality=q)(texture, rng).astype(int) - texture).mean() for q in (95, 20)]
    assert 0 < losses[0] < losses[1]
    assert abs(Degradation(quality=90)(red, rng).astype(int) - red).max() <= 4, "channels keep their places"


def test_degradation_draws_nothing_without_a_chance() -> None:
    rng, untouched = np.random.default_rng(1), np.random.default_rng(1)
    assert Degradation.draw(rng, 0.0) == Degradation()
    assert rng.random() == untouched.random()
    sure = Degradation.draw(rng, 1.0)
    assert sure.grey
    assert 0 < abs(sure.hue) <= 20
    assert 0.4 <= sure.blur <= 1.5
    assert 2 <= sure.noise <= 10
    assert sure.quality is not None
    assert 20 <= sure.quality < 80
    parts = [Degradation.draw(rng, 0.25) for _ in range(400)]
    assert sum(p.grey for p in parts) == pytest.approx(100, abs=30)
