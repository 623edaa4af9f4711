"""What happens to a pair before training: one resize, crop and flip for both frames, colours, normalisation.

H, W: size of the source frame. h, w: size of the training crop. Everything here is NumPy; draws come from the
generator that is passed in, so that equal generators give equal pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
"""(3,) float32, RGB, on the scale 0..255 (dossier 2.1)."""
STD = np.array([58.395, 57.12, 57.375], np.float32)
"""(3,) float32, RGB, on the scale 0..255 (dossier 2.1)."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""(3,) float32, share of R, G, B in the brightness of a pixel (ITU-R BT.601)."""

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Geometry:
    """A resize, crop, flip and pad that is the same for every image and label map of a pair (dossier 10.1).

    The source is resized to `scaled`, the window of `size` at (top, left) is cut out, mirrored if `flip`, and
    padded at the bottom and on the right where the scaled frame is smaller than the window.

    Attributes:
        source: (H, W) of the frames it is for.
        scaled: (height, width) after the resize.
        top, left: corner of the window in the scaled frame; 0 where the frame is smaller than the window.
        size: (h, w) of the result.
        flip: whether left and right change places.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    flip: bool

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        source: tuple[int, int],
        size: tuple[int, int],
        scale: tuple[float, float],
        fit: tuple[int, int] | None = None,
    ) -> Geometry:
        """A random one: factor uniform in `scale`, offsets uniform, flip in half of the cases.

        Args:
            rng: where the four draws come from.
            source: (H, W) of the frames.
            size: (h, w) of the crop.
            scale: range of the factor.
            fit: (height, width) that the factor 1 fits the frame into, aspect kept, long side to long side
                (dossier 2.1, step 2); None leaves the frame's own size.
        """
        factor = rng.uniform(*scale)
        if fit is not None:
            factor *= min(max(fit) / max(source), min(fit) / min(source))
        height, width = (max(1, int(edge * factor + 0.5)) for edge in source)
        top = int(rng.integers(max(height - size[0], 0) + 1))
        left = int(rng.integers(max(width - size[1], 0) + 1))
        return cls(source, (height, width), top, left, size, bool(rng.random() < 0.5))

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window of an image, bilinear, without the padding, which comes after the normalisation.

        Args:
            image: (H, W, 3) uint8.

        Returns:
            (min(h, scaled), min(w, scaled), 3) uint8.
        """
        self._check(image)
        resized = cv2.resize(image, self.scaled[::-1], interpolation=cv2.INTER_LINEAR)
        crop = resized[self.top : self.top + self.size[0], self.left : self.left + self.size[1]]
        return np.ascontiguousarray(crop[:, ::-1] if self.flip else crop)

    def labels(self, labels: NDArray[Scalar], fill: int) -> NDArray[Scalar]:
        """The window of a label map, nearest pixel, padded with `fill`.

        The pixel is the one under the centre of the new pixel, as in the image's bilinear resize; cv2's
        nearest takes the one under its corner, half a pixel off.

        Args:
            labels: (H, W) of any integer type.

        Returns:
            (h, w), same type.
        """
        self._check(labels)
        rows = self._nearest(self.source[0], self.scaled[0], self.top, self.size[0])
        columns = self._nearest(self.source[1], self.scaled[1], self.left, self.size[1])
        if self.flip:
            columns = columns[::-1]
        padded = np.full(self.size, fill, labels.dtype)
        padded[: len(rows), : len(columns)] = labels.take(rows, 0).take(columns, 1)
        return padded

    @staticmethod
    def _nearest(source: int, scaled: int, start: int, length: int) -> NDArray[np.intp]:
        window = np.arange(start, min(start + length, scaled))
        return np.minimum(((window + 0.5) * source / scaled).astype(np.intp), source - 1)

    def _check(self, array: NDArray[Any]) -> None:
        if array.shape[:2] != self.source:
            raise ValueError(f"this geometry is for frames of {self.source}, got {array.shape}")


@dataclass(frozen=True)
class Photometric:
    """A change of colours. The default changes nothing.

    Attributes:
        brightness: factor on the whole picture.
        contrast: factor on the distance from mid-grey.
        saturation: factor on the distance of a pixel from its own grey; 0 is a grey picture.
        gains: factors on R, G, B (white balance).
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float) -> Photometric:
        """A random one: factors uniform in 1 +- strength, the gains in 1 +- strength / 4."""
        brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
        red, green, blue = rng.uniform(1 - strength / 4, 1 + strength / 4, 3)
        return cls(brightness, contrast, saturation, (red, green, blue))

    def then(self, rng: np.random.Generator, strength: float) -> Photometric:
        """The same with brightness and contrast a little off, as between two frames of one camera."""
        brightness, contrast = rng.uniform(1 - strength, 1 + strength, 2)
        return replace(self, brightness=self.brightness * brightness, contrast=self.contrast * contrast)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB in, the same out, rounded and kept in 0..255."""
        if self == Photometric():
            return image
        # One affine map of the colours: saturation first, then white balance and brightness, then contrast.
        matrix = self.saturation * np.eye(3, dtype=np.float32) + (1 - self.saturation) * LUMA
        matrix = self.contrast * self.brightness * np.array(self.gains, np.float32)[:, None] * matrix
        offset = np.full((3, 1), 127.5 * (1 - self.contrast), np.float32)
        changed: NDArray[np.uint8] = cv2.transform(image, np.hstack([matrix, offset]))
        return changed


@dataclass(frozen=True)
class Degradation:
    """What cameras and files do to a picture. The default changes nothing.

    Attributes:
        hue: turn of the colour circle, degrees.
        grey: whether the colours are gone.
        blur: standard deviation in pixels.
        noise: standard deviation on the scale 0..255, of every channel of every pixel.
        quality: of a JPEG, 1 to 100; None leaves it out.
    """

    hue: float = 0.0
    grey: bool = False
    blur: float = 0.0
    noise: float = 0.0
    quality: int | None = None

    @classmethod
    def draw(cls, rng: np.random.Generator, chance: float) -> Degradation:
        """A random one: each part with the same chance, independently. A chance of 0 draws nothing."""
        if chance == 0:
            return cls()
        hue, grey, blur, noise, jpeg = rng.random(5) < chance
        return cls(
            hue=float(rng.uniform(-20, 20)) if hue else 0.0,
            grey=bool(grey),
            blur=float(rng.uniform(0.4, 1.5)) if blur else 0.0,
            noise=float(rng.uniform(2, 10)) if noise else 0.0,
            quality=int(rng.integers(20, 80)) if jpeg else None,
        )

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB in, the same out; `rng` gives the noise, which no two frames share."""
        if self.hue:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)  # hue in 256ths of the circle
            turned = np.arange(256) + round(self.hue * 256 / 360)
            hsv[..., 0] = (turned % 256).astype(np.uint8)[hsv[..., 0]]
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
        if self.grey:
            image = Photometric(saturation=0.0)(image)
        if self.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        if self.noise:
            noise = rng.standard_normal(image.shape, np.float32) * np.float32(self.noise)
            image = np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)
        if self.quality is not None:
            bgr = np.ascontiguousarray(image[..., ::-1])
            data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1]
            image = np.ascontiguousarray(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1])
        return image


def normalize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """(x - mean) / std, then zeros at the bottom and on the right: padding has the mean colour (dossier 2.1).

    Args:
        image: (H, W, 3) uint8 RGB, no larger than `size`.
        size: (h, w) of the result.

    Returns:
        (3, h, w) float32.
    """
    padded = np.zeros((3, *size), np.float32)
    height, width = image.shape[:2]
    for channel, plane in enumerate(cv2.split(image)):
        table = (np.arange(256, dtype=np.float32) - MEAN[channel]) / STD[channel]
        padded[channel, :height, :width] = cv2.LUT(plane, table)
    return padded
