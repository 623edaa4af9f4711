"""Filled outlines give back each pixel."""

from __future__ import annotations

import cv2
import numpy as np

from panoptube.data.cvat import fill_polygon
from panoptube.forms.outlines import outlines


def mask(picture: str) -> np.ndarray:
    return np.array([[c == "#" for c in line] for line in picture.split()])


def test_a_square_and_a_pixel() -> None:
    assert outlines(mask("##. ##. ..#")) == [
        [(0, 0), (2, 0), (2, 2), (0, 2)],
        [(2, 2), (3, 2), (3, 3), (2, 3)],
    ]


def test_a_hole_is_reached_along_straight_lines() -> None:
    (ring,) = outlines(mask("#### #..# ####"))
    steps = list(zip(ring, ring[1:] + ring[:1]))
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in steps)
    # Twice the area, with its sign: the hole is gone round the other way.
    assert sum(a[0] * b[1] - a[1] * b[0] for a, b in steps) == 2 * 10


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((3, 4), bool)) == []


def test_random_masks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width = rng.integers(1, 12, 2)
        there = rng.random((height, width)) < rng.random()
        rings = outlines(there)
        filled = sum(
            (fill_polygon(np.array(ring, float), (height, width)).astype(int) for ring in rings),
            np.zeros((height, width), int),
        )
        assert (filled == there).all()  # and no pixel twice
        assert len(rings) == cv2.connectedComponents(there.astype(np.uint8), connectivity=4)[0] - 1
        # By winding, too: it is 1 in the middle of each pixel of the mask, 0 elsewhere.
        for y, x in np.ndindex(height, width):
            assert sum(_winding(ring, x + 0.5, y + 0.5) for ring in rings) == there[y, x]


def _winding(ring: list[tuple[int, int]], x: float, y: float) -> int:
    """How often a ring goes round a point, from the vertical edges to the right of it."""
    turns = 0
    for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1]):
        if ax == bx > x and min(ay, by) < y < max(ay, by):
            turns += 1 if by > ay else -1
    return turns
