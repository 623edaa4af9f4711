"""Hard cuts of a film: frame by frame, without knowing the rest of it.

Two frames are of different shots if neither their layout nor their colours are alike. Layout alone changes in
a fast pan, colours alone in a flash of light, and noise changes neither. PySceneDetect's detectors sum up how
much pixels change in hue, saturation and value, and so take all three for cuts at their own thresholds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Image
from panoptube.video import TimedImage

CUT = 0.35
"""The difference above which two frames in succession are of different shots; docs/video.md has figures."""

NOISE = 4.0
"""Grey levels; contrast below this is no layout, so that plain and dark frames are alike."""

FLASH = 3
"""Frames that a flash of light may last: if one that follows is like the one before it, there was no cut."""


@dataclass(frozen=True)
class Look:
    """What is remembered of a frame.

    Attributes:
        layout: (32, 32) float64, grey levels less their mean.
        colours: (512,) float64, the share of each colour; 8 levels of red, green and blue.
    """

    layout: NDArray[np.float64]
    colours: NDArray[np.float64]

    @classmethod
    def of(cls, image: Image) -> Look:
        """The look of an (H, W, 3) uint8 RGB frame, whatever its size."""
        small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
        grey = cv2.resize(
            cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float64), (32, 32), interpolation=cv2.INTER_AREA
        )
        level = (small >> 5).astype(np.int64) @ np.array([64, 8, 1])
        return cls(grey - grey.mean(), np.bincount(level.ravel(), minlength=512) / level.size)


def difference(a: Look, b: Look) -> float:
    """From 0, alike, to about 1, nothing in common.

    Geometric mean of 1 - correlation of the layouts, at least 0, and the share of colours that isn't common.
    """
    noise = NOISE**2
    norm = np.sqrt(((a.layout**2).mean() + noise) * ((b.layout**2).mean() + noise))
    correlation = float(((a.layout * b.layout).mean() + noise) / norm)
    common = float(np.minimum(a.colours, b.colours).sum())
    return float(np.sqrt(max(1 - correlation, 0.0) * max(1 - common, 0.0)))


def mark_cuts(frames: Iterable[TimedImage]) -> Iterator[tuple[TimedImage, bool]]:
    """The same frames, and whether each is the first of a new shot; the first of all is not.

    Where there may be a cut, `FLASH` more frames are read before the frame is passed on. A shot of no more
    frames than that, after which the one before goes on, counts as a flash. Fades are not noticed.
    """
    source = iter(frames)
    ahead: deque[tuple[TimedImage, Look]] = deque()
    before: Look | None = None

    def read(count: int) -> None:
        while len(ahead) < count and (frame := next(source, None)) is not None:
            ahead.append((frame, Look.of(frame.image)))

    while True:
        read(1)
        if not ahead:
            return
        frame, look = ahead.popleft()
        before = look if before is None else before
        differs = difference(before, look) > CUT
        if differs:
            read(FLASH)
        cut = differs and all(difference(before, later) > CUT for _, later in ahead)
        if cut or not differs:
            before = look  # a flash is not what the next frames are compared with
        yield frame, cut
