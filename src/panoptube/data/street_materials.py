"""Colours of materials: facades, clothes, paint, glass, leaves, signs, lamps; compiled by numba."""

# mypy: disallow-untyped-decorators=False, warn-return-any=False
# (numba is untyped)

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from panoptube.data.street_shapes import (
    BICYCLE,
    BODY,
    CARGO,
    COACH,
    FACADE,
    FENCE,
    FOLIAGE,
    FRONT,
    GLASS,
    HEDGE,
    LIGHT,
    MOTORCYCLE,
    PERSON,
    POLE,
    POSTER,
    REAR,
    RIDER,
    ROOF,
    SIGN,
    WALL,
    WHEEL,
    bicycle,
    hashed,
    motorcycle,
    noise,
    person,
    rider,
)  # fmt: skip


@njit(nogil=True, cache=True)
def _facade(
    u: float, v: float, foot: float, p: NDArray[np.float64], dusk: float, col: NDArray[np.float64]
) -> float:
    """p: width, height, storey, bay, shop height, seed, window share, style, lit share. Returns the glow."""
    seed = int(p[5])
    r, g, b = col[0], col[1], col[2]
    grain = 0.9 + 0.2 * noise(u * 0.6, v * 0.6, seed) * min(1.0, 0.6 / (foot + 0.1))
    if p[7] < 0.4 and foot < 0.15:
        brick = math.floor(v / 0.22)
        grain *= 0.9 + 0.16 * hashed(math.floor(u / 0.45 + 0.5 * (brick % 2)), int(brick), seed)
    fade = min(1.0, max(0.0, 1.7 - foot / (0.3 * p[3])))
    glow = 0.0
    if v < p[4]:
        bay = math.floor(u / (2 * p[3]))
        x = u / (2 * p[3]) - bay
        shop = hashed(int(bay), 7, seed)
        if v > p[4] - 0.75:  # sign band or awning
            hue = hashed(int(bay), 3, seed)
            col[0] = 0.25 + 0.65 * hue
            col[1] = 0.2 + 0.6 * hashed(int(bay), 4, seed)
            col[2] = 0.2 + 0.6 * hashed(int(bay), 5, seed)
            letters = (
                v > p[4] - 0.55 and v < p[4] - 0.22 and 0.2 < x < 0.8 and hashed(int(u * 4), 9, seed) > 0.35
            )
            if letters and foot < 0.3:
                for c in range(3):
                    col[c] = 0.95 if hue < 0.6 else 0.1
            glow = 0.7 * dusk * shop
        elif 0.07 < x < 0.93 and v > 0.35 and (x < 0.44 or x > 0.5):
            s = 0.12 + 0.2 * noise(u * 1.5, v * 1.5 + shop, seed + 3)
            if x > 0.78:  # door
                s *= 0.6
            col[0] = s + 0.05
            col[1] = s + 0.06
            col[2] = s + 0.08
            if dusk > 0.2 and shop > 0.3:
                glow = 0.9 * dusk
                col[0], col[1], col[2] = 0.95, 0.8 + 0.1 * s, 0.5 + 0.2 * s
            elif shop > 0.6:
                col[0] += 0.25 * shop
                col[1] += 0.2 * shop
        else:
            for c in range(3):
                col[c] *= 0.55
        for c in range(3):
            col[c] = col[c] * fade + (1 - fade) * (0.5 * r + 0.15)
        return glow * fade
    w = v - p[4]
    floor = math.floor(w / p[2])
    bay = math.floor(u / p[3])
    x = u / p[3] - bay
    y = w / p[2] - floor
    if v > p[1] - 0.5 or (y < 0.06 and p[7] > 0.3):  # cornice
        for c in range(3):
            col[c] = min(1.0, col[c] * 1.15)
    edge = 0.5 - 0.5 * p[6]
    top = 0.82 if p[7] < 0.75 else 0.9
    if edge < x < 1 - edge and 0.2 < y < top and u > 0.4 and u < p[0] - 0.4 and v < p[1] - 0.6:
        lit = hashed(int(bay), int(floor), seed)
        pane = 0.14 + 0.16 * y + 0.1 * lit
        wr, wg, wb = pane * 0.9, pane, pane * 1.15
        if lit > 0.86:  # curtains
            wr, wg, wb = 0.6, 0.58, 0.52
        frame = abs(x - 0.5) < 0.025 or x - edge < 0.04 or 1 - edge - x < 0.04 or top - y < 0.03
        if frame and foot < 0.25:
            wr, wg, wb = 0.85, 0.85, 0.82
        elif dusk > 0.2 and lit < p[8]:
            glow = 0.95 * dusk
            wr, wg, wb = 1.0, 0.82, 0.5
        col[0] = wr * fade + (1 - fade) * (0.7 * r + 0.06)
        col[1] = wg * fade + (1 - fade) * (0.7 * g + 0.06)
        col[2] = wb * fade + (1 - fade) * (0.7 * b + 0.07)
        return glow * fade
    if edge - 0.05 < x < 1.05 - edge and 0.13 < y <= 0.2:  # sill
        grain *= 1.15
    for c in range(3):
        col[c] = min(1.0, col[c] * grain)
    return 0.0


@njit(nogil=True, cache=True)
def _clothes(part: int, p: NDArray[np.float64], v: float, u: float, col: NDArray[np.float64]) -> None:
    """p[3:6] top, p[6:9] trousers, p[9] skin, p[10] hair."""
    if part == 1:
        col[0], col[1], col[2] = p[6], p[7], p[8]
    elif part == 2:
        col[0], col[1], col[2] = p[3], p[4], p[5]
    elif part == 3:
        col[0], col[1], col[2] = p[9], p[9] * 0.76, p[9] * 0.62
    elif part == 4:
        col[0], col[1], col[2] = p[10], p[10] * 0.75, p[10] * 0.5
    elif part == 6:
        col[0], col[1], col[2] = p[6] * 0.5 + 0.2, p[8] * 0.4 + 0.1, p[7] * 0.4 + 0.1
    elif part == 7:
        col[0], col[1], col[2] = p[10] + 0.3, p[8] + 0.2, p[7] + 0.2
    else:
        col[0] = col[1] = col[2] = 0.1
    fold = 0.82 + 0.3 * noise(u * 9, v * 6, int(p[3] * 999))
    for c in range(3):
        col[c] *= fold


@njit(nogil=True, cache=True)
def material(
    m: int, u: float, v: float, foot: float, anim: float, p: NDArray[np.float64], dusk: float, brake: float,
    col: NDArray[np.float64],
) -> float:  # fmt: skip
    """Turns the base colour into the material's at (u, v) metres; `foot`: metres that a pixel covers.

    Returns the glow: the share of the light that is its own, in [0, 1].
    """
    if m == FACADE:
        return _facade(u, v, foot, p, dusk, col)
    if m == PERSON:
        _clothes(person(u, v, anim, p), p, v, u, col)
    elif m == RIDER:
        _clothes(rider(u, v, anim, p[1] > 0.5, p[0]), p, v, u, col)
    elif m == BICYCLE:
        if bicycle(u, v) == 1:
            col[0] = col[1] = col[2] = 0.08
    elif m == MOTORCYCLE:
        part = motorcycle(u, v)
        if part == 1 or part == 4:
            col[0] = col[1] = col[2] = 0.07
        elif part == 3:
            col[0] = col[1] = col[2] = 0.3 + 0.25 * noise(u * 12, v * 12, 5)
        elif part == 5:
            col[0] = col[1] = col[2] = 0.95
            return 0.5 + 0.5 * dusk
    elif m in (FOLIAGE, HEDGE):
        s = int(p[2])
        n = noise(u * 2.2, v * 2.2, s)
        if foot < 0.25:
            n = 0.5 * n + 0.5 * noise(u * 7, v * 7, s + 3)
        if foot < 0.06:
            n = 0.7 * n + 0.3 * noise(u * 21, v * 21, s + 4)
        h = v / (2 * p[1])
        x = u / (2 * p[0]) - 0.5
        k = (0.45 + 0.55 * h - 0.35 * x * p[4]) * (0.45 + 1.1 * n)
        for c in range(3):
            col[c] *= k
    elif m == WHEEL:
        r = math.hypot(u - p[0], v - p[0]) / p[0]
        if r < 0.62:
            spoke = math.cos(5 * math.atan2(v - p[0], u - p[0]) + anim)
            g = 0.5 + 0.2 * spoke if r > 0.2 else 0.35
            col[0] = col[1] = col[2] = g
        else:
            col[0] = col[1] = col[2] = 0.06
    elif m == GLASS:
        k = 0.13 + 0.28 * v / max(p[1], 0.3) + 0.05 * noise(u * 2, v * 2, 3)
        col[0], col[1], col[2] = k * 0.85, k * 0.95, k * 1.05
        if p[2] > 0.5 and abs(u - 0.5 * p[0]) < 0.06:
            col[0] = col[1] = col[2] = 0.05
    elif m == BODY:
        h = v / p[1]
        k = 0.72 + 0.35 * h
        if 0.62 < h < 0.72:
            k += 0.12
        if h < 0.12:
            k *= 0.4
        if p[2] > 0.5 and foot < 0.05:  # doors
            x = u / p[0]
            if abs(x - 0.30) < 0.006 or abs(x - 0.52) < 0.006 or abs(x - 0.70) < 0.006:
                k *= 0.45
            if 0.74 < h < 0.8 and (0.32 < x < 0.36 or 0.54 < x < 0.58):
                k *= 0.6
        for c in range(3):
            col[c] = min(1.0, col[c] * k)
    elif m in (FRONT, REAR):
        x = abs(u / p[0] - 0.5) * 2
        h = v / p[1]
        k = 0.75 + 0.3 * h
        for c in range(3):
            col[c] = min(1.0, col[c] * k)
        if h < 0.16:
            col[0] = col[1] = col[2] = 0.08
        elif x < 0.28 and 0.25 < h < 0.45 and (m == REAR or h < 0.36):
            col[0] = col[1] = col[2] = 0.85
        elif m == FRONT and x < 0.6 and 0.3 < h < 0.72:
            col[0] = col[1] = col[2] = 0.1 + 0.1 * (int(v * 22) % 2)
        elif x > 0.66 and 0.52 < h < 0.84:
            if m == FRONT:
                col[0], col[1], col[2] = 0.95, 0.95, 0.88
                return 0.35 + 0.65 * dusk
            col[0], col[1], col[2] = 0.55 + 0.45 * brake, 0.05 + 0.1 * brake, 0.05
            return max(0.2 + 0.5 * dusk, brake)
    elif m == COACH:
        # p: width, height, window low, window high, bay, kind (bus, tram), seed, stripe colour 3
        inside = p[2] < v < p[3]
        bay = u / p[4] - math.floor(u / p[4])
        door = hashed(math.floor(u / p[4]), 1, int(p[6])) > 0.72
        if door and 0.08 < bay < 0.92 and 0.25 < v < p[3]:
            col[0], col[1], col[2] = 0.16, 0.18, 0.2
            if abs(bay - 0.5) < 0.04:
                col[0] = col[1] = col[2] = 0.55
        elif inside and 0.05 < bay < 0.95:
            k = 0.12 + 0.2 * (v - p[2])
            col[0], col[1], col[2] = k, k * 1.08, k * 1.2
            if dusk > 0.2:
                col[0], col[1], col[2] = 0.85, 0.8, 0.6
                return 0.8 * dusk
        elif v < 0.3:
            col[0] = col[1] = col[2] = 0.1
        elif p[2] - 0.35 < v < p[2] - 0.1 or v > p[3] + 0.35:
            col[0], col[1], col[2] = p[7], p[8], p[9]
    elif m == CARGO:
        k = 0.9 + 0.1 * noise(u, v, int(p[2]))
        if p[3] > 0.5 and 0.35 < v / p[1] < 0.65 and 0.15 < u / p[0] < 0.85:
            k *= 0.55
        if foot < 0.1 and u / 1.2 - math.floor(u / 1.2) < 0.03:
            k *= 0.8
        if v < 0.12:
            k *= 0.4
        for c in range(3):
            col[c] *= k
    elif m == SIGN:
        x = (u - p[0]) / p[0]
        y = (v - p[1]) / p[1]
        kind = int(p[3])
        e = math.sqrt(x * x + y * y) if p[2] < 0.5 else max(abs(x), abs(y))
        if p[2] > 0.5 and p[2] < 1.5:
            e = max(-y, 2 * abs(x) + y)
        if kind == 0:  # red rim
            col[0], col[1], col[2] = (0.8, 0.06, 0.08) if e > 0.68 else (0.95, 0.95, 0.93)
            if e < 0.3:
                col[0] = col[1] = col[2] = 0.1
        elif kind == 1:  # blue, white figure
            col[0], col[1], col[2] = (
                (0.95, 0.95, 0.95) if abs(x) < 0.2 and abs(y) < 0.6 else (0.05, 0.25, 0.7)
            )
        elif kind == 2:  # red, white bar
            col[0], col[1], col[2] = (
                (0.95, 0.95, 0.95) if abs(y) < 0.2 and abs(x) < 0.7 else (0.78, 0.05, 0.08)
            )
        elif kind == 3:  # yellow diamond or board
            col[0], col[1], col[2] = (0.95, 0.75, 0.1) if e < 0.8 else (0.15, 0.15, 0.15)
        else:  # green direction board
            text = abs(y) < 0.6 and abs(x) < 0.8 and hashed(int(u * 9), int(v * 5), 3) > 0.5
            col[0], col[1], col[2] = (0.95, 0.95, 0.95) if e > 0.93 or text else (0.05, 0.4, 0.25)
        return 0.25 * dusk
    elif m == LIGHT:
        # anim counts the phases: 0 red, 1 green, 2 amber; p: width, height
        lamp = int(3 * v / p[1])
        y = 3 * v / p[1] - lamp - 0.5
        x = (u / p[0] - 0.5) * p[0] / (p[1] / 3)
        col[0] = col[1] = col[2] = 0.07
        if x * x + y * y < 0.15:
            on = (lamp == 2 and anim < 0.5) or (lamp == 0 and 0.5 < anim < 1.5) or (lamp == 1 and anim > 1.5)
            k = 1.0 if on else 0.16
            col[0] = k if lamp > 0 else 0.1 * k
            col[1] = (0.08 if lamp == 2 else 0.65 if lamp == 1 else 0.9) * k
            col[2] = (0.5 if lamp == 0 else 0.05) * k
            return 1.0 if on else 0.0
    elif m == WALL:
        row = math.floor(v / 0.25)
        x = u / 0.6 + 0.5 * (row % 2)
        k = 0.85 + 0.25 * noise(u * 0.8, v * 2, int(p[2]))
        if foot < 0.12:
            k *= 0.82 + 0.25 * hashed(math.floor(x), int(row), int(p[2]))
            if v / 0.25 - row < 0.12 or x - math.floor(x) < 0.05:
                k *= 0.75
        if v > p[1] - 0.14:
            k = 1.15
        for c in range(3):
            col[c] = min(1.0, col[c] * k)
    elif m == FENCE:
        w = u / p[1] - math.floor(u / p[1])
        k = 0.75 + 0.35 * w if foot < 0.3 * p[1] else 0.9
        if p[2] < 0.5 and (w < 0.1 or abs(v - 0.75 * p[0]) < 0.05):
            k *= 0.5
        for c in range(3):
            col[c] *= k
    elif m == POLE:
        x = u / p[0]
        k = 0.55 + 0.9 * x * (1.4 - x) + 0.1 * noise(u * 20, v * 3, 1)
        for c in range(3):
            col[c] *= k
    elif m == POSTER:
        x = u / p[0]
        y = v / p[1]
        if 0.08 < x < 0.92 and 0.15 < y < 0.92:
            s = int(p[2])
            col[0] = 0.3 + 0.6 * noise(x * 2, y * 3, s)
            col[1] = 0.3 + 0.6 * noise(x * 2, y * 3, s + 1)
            col[2] = 0.3 + 0.6 * noise(x * 2, y * 3, s + 2)
            return 0.6 * dusk
    elif m == ROOF:
        k = 0.8 + 0.25 * noise(u * 1.5, v * 4, 2)
        for c in range(3):
            col[c] *= k
    return 0.0
