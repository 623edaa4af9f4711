"""Outlines of what is cut out of flat polygons: people, two-wheelers, leaves, signs; compiled by numba.

All take picture coordinates (u to the right, v up, metres) and return which part covers that point.
"""

# mypy: disallow-untyped-decorators=False, warn-return-any=False
# (numba is untyped)

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

(
    PLAIN, FACADE, BODY, GLASS, WHEEL, FOLIAGE, PERSON, BICYCLE, RIDER, MOTORCYCLE, SIGN, LIGHT, FENCE, WALL,
    COACH, FRONT, REAR, HEDGE, POLE, CARGO, POSTER, ROOF, SHADOW,
) = range(23)  # fmt: skip
"""Materials."""


@njit(nogil=True, cache=True)
def hashed(x: int, y: int, s: int) -> float:
    """A number in [0, 1) that looks random in each argument."""
    h = (x * 374761393 + y * 668265263 + s * 362437) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@njit(nogil=True, cache=True)
def noise(x: float, y: float, s: int) -> float:
    """Smooth value noise in [0, 1), one feature per unit."""
    x0 = math.floor(x)
    y0 = math.floor(y)
    fx = x - x0
    fy = y - y0
    fx = fx * fx * (3 - 2 * fx)
    fy = fy * fy * (3 - 2 * fy)
    i = int(x0)
    j = int(y0)
    a = hashed(i, j, s)
    b = hashed(i + 1, j, s)
    c = hashed(i, j + 1, s)
    d = hashed(i + 1, j + 1, s)
    return (a + (b - a) * fx) * (1 - fy) + (c + (d - c) * fx) * fy


@njit(nogil=True, cache=True)
def _capsule(u: float, v: float, ax: float, ay: float, bx: float, by: float, r: float) -> bool:
    """Whether (u, v) is within r of the segment from a to b."""
    dx = bx - ax
    dy = by - ay
    t = ((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy + 1e-9)
    t = min(1.0, max(0.0, t))
    ex = u - ax - t * dx
    ey = v - ay - t * dy
    return ex * ex + ey * ey < r * r


@njit(nogil=True, cache=True)
def _limb(u: float, v: float, hx: float, hy: float, a: float, bend: float, n: float, r: float) -> int:
    """A leg or an arm of two bones of length n hanging from (hx, hy): 0 outside, 1 on it, 2 its end."""
    kx = hx + n * math.sin(a)
    ky = hy - n * math.cos(a)
    fx = kx + n * math.sin(a - bend)
    fy = ky - n * math.cos(a - bend)
    if _capsule(u, v, fx, fy + 0.01, fx + 0.04, fy, r * 0.85):
        return 2
    if _capsule(u, v, hx, hy, kx, ky, r) or _capsule(u, v, kx, ky, fx, fy, r * 0.8):
        return 1
    return 0


@njit(nogil=True, cache=True)
def person(u: float, v: float, phase: float, p: NDArray[np.float64]) -> int:
    """Part of a walking person; (0, 0) is between the feet.

    0 none, 1 trousers, 2 top, 3 skin, 4 hair, 5 shoe, 6 bag.

    p: height, swing, kind (fraction selects coat or bag), ...
    """
    x = u / p[0]
    y = v / p[0]
    if y < -0.02 or y > 1.0 or abs(x) > 0.36:
        return 0
    swing = p[1]
    # head and hair
    hx = x - 0.012
    hy = y - 0.925
    if hx * hx / 0.0034 + hy * hy / 0.0052 < 1:
        return 4 if hy > 0.022 or hx < -0.03 else 3
    if _capsule(x, y, 0.0, 0.84, 0.01, 0.88, 0.028):
        return 3
    s = math.sin(phase)
    c = math.cos(phase)
    arm = _limb(x, y, 0.0, 0.785, -0.55 * swing * s, -0.35, 0.17, 0.038)
    if arm:
        return 3 if arm == 2 else 2
    kind = p[2]
    if kind > 0.6 and _capsule(x, y, -0.12, 0.74, -0.12, 0.60, 0.075):
        return 6
    low = 0.36 if kind < 0.25 else 0.53
    if _capsule(
        x, y, 0.0, low + 0.06, 0.0, 0.765, 0.098 if y > 0.6 else 0.088 + (0.03 if kind < 0.25 else 0.0)
    ):
        return 2
    leg = _limb(x, y, 0.01, 0.51, 0.52 * swing * s, swing * (0.25 + 0.4 * max(0.0, c)), 0.245, 0.058)
    if leg == 0:
        leg = _limb(x, y, -0.01, 0.51, -0.52 * swing * s, swing * (0.25 + 0.4 * max(0.0, -c)), 0.245, 0.058)
    if leg:
        return 5 if leg == 2 else 1
    arm = _limb(x, y, 0.0, 0.785, 0.55 * swing * s, -0.35, 0.17, 0.038)
    return 0 if arm == 0 else (3 if arm == 2 else 2)


@njit(nogil=True, cache=True)
def rider(u: float, v: float, phase: float, motor: bool, scale: float) -> int:
    """Part of a rider, as `person`; (u, v) from the ground below the pedals, +u is forward. 7 is a helmet."""
    x = u / scale
    y = v / scale
    if y < 0.1 or y > 1.85:
        return 0
    hx = x - 0.20
    hy = y - 1.63
    if hx * hx / 0.0144 + hy * hy / 0.0196 < 1:
        return 7 if (hy > 0.03 or motor) else 3
    if _capsule(x, y, 0.10, 1.36, 0.30, 1.16, 0.06) or _capsule(x, y, 0.30, 1.16, 0.46, 1.06, 0.05):
        return 2
    if _capsule(x, y, -0.18, 0.98, 0.08, 1.36, 0.165):
        return 2
    for side in range(2):
        a = phase + math.pi * side
        px = 0.12 if motor else 0.02 + 0.16 * math.cos(a)
        py = 0.34 if motor else 0.32 + 0.16 * math.sin(a)
        kx = 0.5 * (px - 0.15) + 0.22
        ky = 0.5 * (py + 0.95) + 0.08
        if _capsule(x, y, px, py, px + 0.1, py, 0.055):
            return 5
        if _capsule(x, y, -0.15, 0.95, kx, ky, 0.095) or _capsule(x, y, kx, ky, px, py, 0.075):
            return 1
    return 0


@njit(nogil=True, cache=True)
def bicycle(u: float, v: float) -> int:
    """0 outside, 1 tyre, 2 frame, 3 looked through but labelled."""
    found = 0
    for side in range(2):
        dx = u - (0.53 if side else -0.53)
        dy = v - 0.34
        r = math.sqrt(dx * dx + dy * dy)
        if r < 0.36:
            if r > 0.29 or r < 0.05:
                return 1
            found = 3
    if (
        _capsule(u, v, -0.53, 0.34, -0.18, 0.78, 0.035)
        or _capsule(u, v, -0.18, 0.78, 0.40, 0.80, 0.04)
        or _capsule(u, v, 0.40, 0.80, 0.0, 0.32, 0.04)
        or _capsule(u, v, 0.0, 0.32, -0.18, 0.85, 0.035)
        or _capsule(u, v, 0.53, 0.34, 0.40, 1.02, 0.035)
        or _capsule(u, v, -0.53, 0.34, 0.0, 0.32, 0.03)
        or _capsule(u, v, 0.40, 1.02, 0.52, 1.06, 0.035)
        or _capsule(u, v, -0.30, 0.92, -0.10, 0.92, 0.045)
    ):
        return 2
    if found == 0 and _capsule(u, v, -0.1, 0.62, 0.3, 0.66, 0.2):
        found = 3
    return found


@njit(nogil=True, cache=True)
def motorcycle(u: float, v: float) -> int:
    """0 outside, 1 tyre, 2 paint, 3 engine, 4 seat, 5 lamp."""
    if _capsule(u, v, 0.62, 0.86, 0.66, 0.84, 0.10):
        return 5
    if _capsule(u, v, -0.05, 0.80, 0.35, 0.84, 0.16) or _capsule(u, v, 0.35, 0.84, 0.6, 0.74, 0.14):
        return 2
    if _capsule(u, v, -0.70, 0.82, -0.10, 0.80, 0.09):
        return 4
    if _capsule(u, v, 0.45, 1.08, 0.55, 0.9, 0.05) or _capsule(u, v, 0.50, 0.9, 0.70, 0.32, 0.05):
        return 3
    if _capsule(u, v, -0.22, 0.46, 0.2, 0.48, 0.2) or _capsule(u, v, -0.7, 0.36, -0.2, 0.4, 0.09):
        return 3
    for side in range(2):
        dx = u - (0.70 if side else -0.70)
        dy = v - 0.32
        r = dx * dx + dy * dy
        if r < 0.33 * 0.33:
            return 1 if r > 0.19 * 0.19 else 3
    return 0


@njit(nogil=True, cache=True)
def covers(m: int, u: float, v: float, anim: float, p: NDArray[np.float64]) -> int:
    """Whether material m covers (u, v): 0 no, 1 picture and truth, 2 truth only."""
    if m == PERSON:
        return 1 if person(u, v, anim, p) else 0
    if m == RIDER:
        return 1 if rider(u, v, anim, p[1] > 0.5, p[0]) else 0
    if m == BICYCLE:
        part = bicycle(u, v)
        return 0 if part == 0 else (2 if part == 3 else 1)
    if m == MOTORCYCLE:
        return 1 if motorcycle(u, v) else 0
    if m == WHEEL:
        du = u - p[0]
        dv = v - p[0]
        return 1 if du * du + dv * dv < p[0] * p[0] else 0
    if m == FOLIAGE:
        # p: half width, half height, seed, roughness, leaf size
        x = (u - p[0]) / p[0]
        y = (v - p[1]) / p[1]
        r2 = x * x + y * y
        if r2 > 1.0:
            return 0
        s = int(p[2])
        n = 0.65 * noise(u * 1.3 + 7, v * 1.3 + 3, s) + 0.35 * noise(u * 4.0, v * 4.0, s + 1)
        edge = 1.0 - r2 + p[3] * (n - 0.62)
        if edge < 0.0:
            return 0
        if r2 > 0.45 and noise(u * 3.1 + 9, v * 3.1, s + 5) > 0.80:
            return 2
        return 1
    if m == SIGN:
        # p: half width, half height, shape (0 disc, 1 triangle, 2 rectangle, 3 octagon)
        x = (u - p[0]) / p[0]
        y = (v - p[1]) / p[1]
        if p[2] < 0.5:
            return 1 if x * x + y * y < 1 else 0
        if p[2] < 1.5:
            return 1 if abs(x) < (1 - y) * 0.5 + 0.03 else 0
        if p[2] > 2.5:
            return 1 if abs(x) + abs(y) < 1.41 else 0
        return 1
    if m == FENCE:
        # p: height, bar spacing, kind
        if p[2] > 0.5:
            w = u - math.floor(u / p[1]) * p[1]
            post = u - math.floor(u / 2.4) * 2.4
            solid = w < 0.35 * p[1] or post < 0.1 or abs(v - p[0] + 0.06) < 0.05 or abs(v - 0.12) < 0.05
            return 1 if solid else 2
        return 1
    return 1
