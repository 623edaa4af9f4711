"""A frame's segments drawn over its image, each track in a colour that it keeps through the video."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Image
from panoptube.panoptic.frame import VOID, Color, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs

OVERLAY_NAME = "overlay.mp4"
"""A result's video of these pictures."""
STUFF_OPACITY = 0.3
THING_OPACITY = 0.55
NAMED_AREA = 0.001
"""Share of the frame that a track must cover to get its name written."""
GOLDEN_RATIO = 0.618033988749895


def track_color(track: int) -> Color:
    """RGB of a track id, 0..255: a function of the id alone, so it stays through the video and between runs.

    Hues step by the golden ratio, which keeps ids that are near each other far apart in colour. Five pairs of
    saturation and brightness take turns, so that hues that come close again, 8, 13 or 21 ids later, differ
    in those.
    """
    hue = track * GOLDEN_RATIO % 1
    saturation, value = ((0.85, 1.0), (1.0, 0.7), (0.45, 1.0), (0.95, 0.85), (0.5, 0.75))[track % 5]
    r, g, b = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * r), round(255 * g), round(255 * b)


def overlay(image: Image, frame: PanopticFrame, taxonomy: Taxonomy, names: bool = True) -> Image:
    """Stuff and crowd faintly in the colour of their class, tracks strongly in their own, outlined and named.

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
    height, width = frame.size
    # One number for each segment of the frame: pixels, outlines and names are look-ups by that number.
    starts, lengths = find_runs(frame.semantic, frame.instance)
    keys = frame.semantic.reshape(-1)[starts].astype(np.int64) << 32 | frame.instance.reshape(-1)[starts]
    segments, firsts, numbers = np.unique(keys, return_index=True, return_inverse=True)
    labels, tracks = segments >> 32, segments & 0xFFFFFFFF
    number = np.repeat(numbers.reshape(-1), lengths).reshape(frame.size)
    colors = taxonomy.colors[labels]
    for i in np.flatnonzero(tracks):
        colors[i] = track_color(int(tracks[i]))

    # The second half of the tables is for pixels on an outline.
    fill = np.select([labels == VOID, tracks > 0], [0, THING_OPACITY], STUFF_OPACITY)
    line = np.select([labels == VOID, tracks > 0], [0, 1], 2 * STUFF_OPACITY)
    opacity = np.concatenate([fill, line])[:, None]
    lighter = np.where(tracks[:, None] > 0, 128 + colors // 2, colors)
    paint = (opacity * np.concatenate([colors, lighter])).astype(np.uint8)
    keep = np.broadcast_to(255 * (1 - opacity), paint.shape).astype(np.uint8)
    entry = number + len(segments) * _outlines(number, tracks > 0)
    drawn: Image = cv2.multiply(image, keep.take(entry, 0), scale=1 / 255)
    drawn = cv2.add(drawn, paint.take(entry, 0))

    if names:
        areas = np.bincount(numbers.reshape(-1), lengths)
        centers = np.bincount(numbers.reshape(-1), lengths * (starts % width + lengths / 2)) / areas
        tags = [
            (
                f"{taxonomy.names[labels[i]]} {tracks[i]}",
                colors[i].tolist(),
                centers[i],
                starts[firsts[i]] // width,
            )
            for i in np.argsort(tracks)  # the oldest first, so that their names stay while others come and go
            if tracks[i] and areas[i] >= NAMED_AREA * height * width
        ]
        _write_names(drawn, tags)
    return drawn


def _outlines(number: NDArray[np.int64], thing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) bool: a segment's last pixels before its neighbour; of a track on all sides, of stuff on two."""
    across, down = number[:, :-1] != number[:, 1:], number[:-1] != number[1:]
    edges = np.zeros(number.shape, bool)
    edges[:, :-1] |= across
    edges[:-1] |= down
    inside = thing[number]
    edges[:, 1:] |= across & inside[:, 1:]
    edges[1:] |= down & inside[1:]
    thickness = round(min(number.shape) / 400)
    if thickness > 1:
        edges = cv2.dilate(edges.view(np.uint8), np.ones((thickness, thickness), np.uint8)).view(bool)
    return edges


def _write_names(image: Image, tags: list[tuple[str, Color, float, int]]) -> None:
    """Write each (text, colour, centre x, top y) into `image`, above the top.

    One that doesn't fit, or would cover an earlier one, is left out.
    """
    height, width = image.shape[:2]
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, max(0.36, min(height, width) / 1100)
    thickness = max(1, round(1.6 * scale))
    taken = np.zeros((height, width), bool)
    for text, color, center, top in tags:
        (w, h), below = cv2.getTextSize(text, font, scale, thickness)
        left = int(np.clip(center - w / 2 - 2, 0, max(width - w - 4, 0)))
        bottom = int(np.clip(top - 1, h + below + 1, height - 1))
        box = (slice(bottom - h - below, bottom + 1), slice(left, left + w + 4))
        if w + 4 > width or h + below + 2 > height or taken[box].any():
            continue
        taken[box] = True
        image[box] = color
        dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] < 140
        ink = (255, 255, 255) if dark else (0, 0, 0)
        cv2.putText(image, text, (left + 2, bottom - below + 1), font, scale, ink, thickness, cv2.LINE_AA)
