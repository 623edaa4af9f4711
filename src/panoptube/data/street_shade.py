"""Colours of a street: ground, sky and light, with dusk, wet roads and haze; compiled by numba."""

# mypy: disallow-untyped-decorators=False, warn-return-any=False
# (numba is untyped)

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from panoptube.data.street_materials import material
from panoptube.data.street_render import (
    COBBLE,
    CURB,
    GRASS,
    GROUND,
    MARKING,
    PATCH,
    PAVEMENT,
    RAIL,
    SKY,
    ground_type,
)
from panoptube.data.street_shapes import (
    BICYCLE,
    BODY,
    FOLIAGE,
    GLASS,
    MOTORCYCLE,
    PERSON,
    POLE,
    RIDER,
    hashed,
    noise,
)

(
    SUN, AMBIENT, SUN_X, SUN_Y, SUN_Z, HAZE, DUSK, WET, CLOUDS, DRIFT, SEED,
    HAZE_R, HAZE_G, HAZE_B, TOP_R, TOP_G, TOP_B,
) = range(17)  # fmt: skip
"""Entries of a frame's light."""


@njit(nogil=True, cache=True)
def _sky(dx: float, dy: float, dz: float, light: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    n = math.sqrt(dx * dx + dy * dy + dz * dz)
    e = max(0.0, dy / n)
    t = min(1.0, e * 2.2) ** 0.7
    for c in range(3):
        out[c] = light[HAZE_R + c] * (1 - t) + light[TOP_R + c] * t
    x = dx / n / (e + 0.12)
    z = dz / n / (e + 0.12)
    s = int(light[SEED])
    f = 0.6 * noise(x * 1.1 + light[DRIFT], z * 1.1, s) + 0.3 * noise(x * 2.7 + light[DRIFT], z * 2.7, s + 1)
    f = (f + 0.1 * noise(x * 7.0, z * 7.0, s + 2) - 1.0 + light[CLOUDS]) * 3.0
    f = min(1.0, max(0.0, f)) * min(1.0, e * 8)
    white = 1.0 - 0.55 * light[DUSK] - 0.25 * light[WET]
    for c in range(3):
        out[c] = out[c] * (1 - f) + f * white * (0.95 - 0.12 * noise(x * 3 + 5, z * 3, s + 3))


@njit(nogil=True, cache=True)
def _ground(
    kind: int, x: float, z: float, foot: float, seed: int, wet: float, col: NDArray[np.float64]
) -> None:
    n = 0.6 * noise(x * 0.35, z * 0.12, seed) + 0.4 * noise(x * 1.7, z * 1.1, seed + 1)
    fine = noise(x * 14, z * 14, seed + 2) if foot < 0.12 else 0.5
    if kind in (PAVEMENT, CURB):
        k = 0.56 + 0.1 * n + 0.06 * fine
        if kind == CURB:
            k += 0.1
        elif foot < 0.18:
            gx = x / 0.5 - math.floor(x / 0.5)
            gz = z / 0.5 - math.floor(z / 0.5)
            tile = hashed(math.floor(x / 0.5), math.floor(z / 0.5), seed)
            k += 0.08 * (tile - 0.5)
            if gx < 0.06 or gz < 0.06:
                k -= 0.12
        col[0], col[1], col[2] = k * 1.02, k * 0.98, k * 0.93
    elif kind == GRASS:
        k = 0.5 + 0.35 * n + 0.3 * fine
        dry = noise(x * 0.2, z * 0.2, seed + 7)
        col[0] = k * (0.35 + 0.3 * dry)
        col[1] = k * (0.55 + 0.05 * dry)
        col[2] = k * 0.22
    elif kind == COBBLE:
        tile = hashed(math.floor(x / 0.18), math.floor(z / 0.18), seed) if foot < 0.1 else 0.5
        k = 0.30 + 0.12 * tile + 0.08 * n
        col[0], col[1], col[2] = k, k * 0.97, k * 0.93
    else:
        k = 0.27 + 0.1 * n + 0.06 * fine
        if kind == PATCH:
            k *= 0.75
        k *= 1 - 0.35 * wet
        r, g, b = k, k, k * 1.03
        if kind in (MARKING, RAIL):
            bright = 0.82 - 0.2 * noise(x * 3, z * 3, seed + 4) if kind == MARKING else 0.5
            f = min(1.0, 0.2 / (foot + 0.02))
            r = r * (1 - f) + f * bright
            g = g * (1 - f) + f * bright
            b = b * (1 - f) + f * bright
        col[0], col[1], col[2] = r, g, b


@njit(nogil=True, cache=True)
def colour(
    cam: NDArray[np.float64],
    rot: NDArray[np.float64],
    focal: float,
    seen: NDArray[np.int64],
    depth: NDArray[np.float32],
    shade: NDArray[np.float32],
    obj: NDArray[np.int64],
    mat: NDArray[np.int64],
    par: NDArray[np.float64],
    base: NDArray[np.float64],
    uv: NDArray[np.float64],
    normal: NDArray[np.float64],
    anim: NDArray[np.float64],
    brake: NDArray[np.float64],
    ground: NDArray[np.uint8],
    lightmap: NDArray[np.uint8],
    origin: NDArray[np.float64],
    cell: float,
    light: NDArray[np.float64],
    image: NDArray[np.float32],
) -> None:
    """Colours the picture layer into image (H, W, 3), light in about [0, 1].

    lightmap: (h, w), sun that reaches the ground cell, 255 = all. The other arrays are as in `rasterise`.
    """
    height, width = seen.shape
    cx = (width - 1) / 2
    cy = (height - 1) / 2
    col = np.zeros(3)
    sky = np.zeros(3)
    sun = light[SUN]
    ambient = light[AMBIENT]
    seed = int(light[SEED])
    for row in range(height):
        ry = (cy - row) / focal
        for c0 in range(width):
            rx = (c0 - cx) / focal
            p = seen[row, c0]
            if p in (SKY, GROUND):
                dx = rot[0, 0] * rx + rot[0, 1] * ry + rot[0, 2]
                dy = rot[1, 0] * rx + rot[1, 1] * ry + rot[1, 2]
                dz = rot[2, 0] * rx + rot[2, 1] * ry + rot[2, 2]
                if p == SKY:
                    _sky(dx, dy, dz, light, col)
                    for c in range(3):
                        image[row, c0, c] = col[c]
                    continue
                z = float(depth[row, c0])
                x = cam[0] + z * dx
                w = cam[2] + z * dz
                foot = z / focal * max(1.0, 0.6 * z / cam[1])
                kind = ground_type(ground, origin, cell, x, w)
                _ground(kind, x, w, foot, seed, light[WET], col)
                reach = 1.0
                i = math.floor((w - origin[1]) / cell) // 2
                j = math.floor((x - origin[0]) / cell) // 2
                if 0 <= i < lightmap.shape[0] and 0 <= j < lightmap.shape[1]:
                    reach = lightmap[i, j] / 255.0
                s = float(shade[row, c0])
                k = (ambient + sun * light[SUN_Y] * reach) * s
                for c in range(3):
                    col[c] *= k
                if light[WET] > 0 and kind != GRASS:
                    _sky(dx, -dy, dz, light, sky)
                    f = light[WET] * 0.5 * s * (1 - min(1.0, abs(dy) * 1.6)) ** 3
                    f *= 0.4 + 0.8 * noise(x * 0.8, w * 0.3, seed + 11)
                    for c in range(3):
                        col[c] = col[c] * (1 - f) + sky[c] * f
            else:
                z = float(depth[row, c0])
                u = z * (uv[p, 0] * rx + uv[p, 1] * ry + uv[p, 2]) + uv[p, 3]
                v = z * (uv[p, 4] * rx + uv[p, 5] * ry + uv[p, 6]) + uv[p, 7]
                for c in range(3):
                    col[c] = base[p, c]
                m = mat[p]
                foot = z / focal
                k = obj[p]
                glow = material(m, u, v, foot, anim[k], par[p], light[DUSK], brake[k], col)
                if m in (PERSON, RIDER, BICYCLE, MOTORCYCLE, FOLIAGE, POLE):
                    face = 0.62
                else:
                    face = (
                        normal[p, 0] * light[SUN_X]
                        + normal[p, 1] * light[SUN_Y]
                        + normal[p, 2] * light[SUN_Z]
                    )
                    face = max(0.0, face)
                k2 = ambient * (0.85 + 0.15 * normal[p, 1]) + sun * face
                if m in (GLASS, BODY):  # reflected sky
                    f = 0.22 if m == GLASS else 0.06
                    for c in range(3):
                        col[c] = col[c] * (1 - f) + f * light[TOP_R + c]
                k2 = k2 * (1 - glow) + glow
                for c in range(3):
                    col[c] *= k2
            f = 1 - math.exp(-light[HAZE] * float(depth[row, c0]))
            for c in range(3):
                image[row, c0, c] = col[c] * (1 - f) + light[HAZE_R + c] * f
