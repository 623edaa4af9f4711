"""A frame's segments drawn over its image, each track in a colour that it keeps through the video."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Image
from panoptube.panoptic.frame import VOID, Color, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs

STUFF_OPACITY = 0.35
THING_OPACITY = 0.55
GOLDEN_RATIO = 0.618033988749895


def track_color(track: int) -> Color:
    """RGB of a track id, 0..255: a function of the id alone, so it stays through the video and between runs.

    Hues step by the golden ratio, which keeps ids that are near each other far apart in colour; brightness
    and saturation take turns, so that hues that come close again, 8 or 13 ids later, differ in those.
    """
    hue = track * GOLDEN_RATIO % 1
    saturation, value = ((0.75, 1.0), (1.0, 0.8), (0.5, 0.95))[track % 3]
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * r), round(255 * g), round(255 * b)


def overlay(image: Image, frame: PanopticFrame, taxonomy: Taxonomy, names: bool = True) -> Image:
    """Stuff and crowd faintly in the colour of their class, tracks strongly in their own, with outlines and names.

    Void stays as it is.

    Args:
        image: (H, W, 3) uint8 RGB.
        frame: of the same size.
        taxonomy: what its classes are.
        names: write class and id at every track that is large enough.

    Returns:
        (H, W, 3) uint8 RGB, a new array.

    Raises:
        ValueError: image and frame differ in size.
    """
    if image.shape != (*frame.size, 3):
        raise ValueError(f"image is {image.shape}, frame is {frame.size}; they must agree")
    # One number for each segment of the frame; what follows is look-up by that number.
    starts, lengths = find_runs(frame.semantic, frame.instance)
    keys = frame.semantic.reshape(-1)[starts].astype(np.int64) << 32 | frame.instance.reshape(-1)[starts]
    segments, firsts, index = np.unique(keys, return_index=True, return_inverse=True)
    labels, tracks = segments >> 32, segments & 0xFFFFFFFF
    colors = taxonomy.colors[labels]
    for i in np.flatnonzero(tracks):
        colors[i] = track_color(int(tracks[i]))
    opacity = np.select([labels == VOID, tracks > 0], [0, THING_OPACITY], STUFF_OPACITY)
    numbers = np.repeat(index.astype(np.uint16), lengths).reshape(frame.size)

    paint = (opacity[:, None] * colors).astype(np.uint8)[numbers]
    keep = (256 * (1 - opacity)).astype(np.uint8)[numbers]
    keep = 255 - (255 * opacity).astype(np.uint8)
    drawn = cv2.multiply(image, np.repeat(keep[:, None], 3, 1)[numbers], scale=1 / 255)
    drawn = cv2.add(drawn, paint)

    edges = _edges(numbers, max(1, round(min(frame.size) / 500)))
    outline = np.where((tracks > 0)[:, None], colors // 2 + 128, (colors + 0.7)).astype(np.uint8)
    edges &= (labels != VOID)[numbers]
    drawn[edges] = outline[numbers[edges]]
    if names:
        ...
    return drawn


def _edges(numbers, width):
    edges = np.zeros(numbers.shape, bool)
    edges[:, :-1] |= numbers[:, :-1] != numbers[:, 1:]
    edges[:-1] |= numbers[:-1] != numbers[1:]
    return edges
