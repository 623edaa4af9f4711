"""Outlines of masks along the edges of their pixels: filled, they give back every pixel."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int]


def outlines(mask: NDArray[np.bool_]) -> list[list[Point]]:
    """A closed outline for each connected piece of a mask, the largest first.

    Pixels that touch at a corner only are not connected. An outline goes round its piece with the inside on
    the right; it reaches each hole along a path of two straight lines, on which it also returns, and goes
    round it the other way. So rules of filling by parity and by winding agree.

    Args:
        mask: (H, W).

    Returns:
        Corners (x, y) in pixels, where a pixel reaches from its number to the next.
    """
    count, pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    rings: list[list[list[Point]]] = [[] for _ in range(count)]
    for ring in _rings(mask):
        # It starts on the upper edge of a pixel; the first one of a piece, from above, is the outer one.
        x, y = ring[0]
        rings[pieces[y, x]].append(ring)
    areas = np.bincount(pieces.ravel(), minlength=count)
    order = sorted(range(1, count), key=lambda piece: (-areas[piece], piece))
    return [_join(rings[piece]) for piece in order]


def _rings(mask: NDArray[np.bool_]) -> list[list[Point]]:
    """Outer outlines and those of holes, by rows; each starts at the left end of one of its upper edges."""
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    ways: dict[Point, list[Point]] = {}
    # From each corner, where the edges that start there lead: inside is on the right.
    for edge, (fx, fy), (tx, ty) in (
        (inner & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (inner & ~padded[1:-1, 2:], (1, 0), (1, 1)),
        (inner & ~padded[2:, 1:-1], (1, 1), (0, 1)),
        (inner & ~padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        ys, xs = np.nonzero(edge)
        for x, y in zip(xs.tolist(), ys.tolist()):
            ways.setdefault((x + fx, y + fy), []).append((x + tx, y + ty))
    rings: list[list[Point]] = []
    ys, xs = np.nonzero(inner & ~padded[:-2, 1:-1])
    for start in zip(xs.tolist(), ys.tolist()):
        first = (start[0] + 1, start[1])
        if first not in ways.get(start, ()):
            continue  # it is part of an earlier one
        ways[start].remove(first)
        ring, last, here = [start], start, first
        # Where another outline passes through the start, this one ends coming from below.
        while here != start or (ways[here] and here[1] >= last[1]):
            step = (here[0] - last[0], here[1] - last[1])
            onward = (here[0] + step[0], here[1] + step[1])
            right = (here[0] - step[1], here[1] + step[0])
            # Where two pixels touch at a corner, turning right stays with the same one.
            following = right if right in ways[here] else ways[here][0]
            ways[here].remove(following)
            if following != onward:
                ring.append(here)
            last, here = here, following
        rings.append(ring)
    return rings


def _join(rings: list[list[Point]]) -> list[Point]:
    """The outer outline, with detours to the holes."""
    joined = rings[0]
    for ring in rings[1:]:
        x, y = ring[0]
        near = min(range(len(joined)), key=lambda i: abs(joined[i][0] - x) + abs(joined[i][1] - y))
        corner = (joined[near][0], y)
        joined = [*joined[: near + 1], corner, *ring, ring[0], corner, *joined[near:]]
    return joined
