"""Draws a street: a depth-buffered rasteriser of flat polygons with procedural materials, compiled by numba.

World axes: x right, y up, z along the street, metres. Camera axes: x right, y up, z forward. Pixel centres lie on
whole numbers. Two layers of surfaces are kept: what the picture shows, and what the truth says. They differ only
where one looks through something that is labelled whole (between spokes, fence bars, leaves), as annotators do.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

SKY, GROUND = -1, -2
"""Surface indices that are no polygon."""

(
    PLAIN, FACADE, BODY, GLASS, WHEEL, FOLIAGE, PERSON, BICYCLE, RIDER, MOTORCYCLE, SIGN, LIGHT, FENCE, WALL,
    COACH, FRONT, REAR, HEDGE, POLE, CARGO, POSTER, ROOF, SHADOW,
) = range(23)  # fmt: skip
"""Materials."""

ROAD, MARKING, PAVEMENT, CURB, GRASS, RAIL, PATCH, COBBLE = range(8)
"""Ground types, the values of the ground map."""

NEAR = 0.15
"""Depth in metres at which polygons are cut off."""


@njit(cache=True)
def _hash(x: int, y: int, s: int) -> float:
    """A number in [0, 1) that looks random in each argument."""
    h = (x * 374761393 + y * 668265263 + s * 362437) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFFFF) / 16777216.0


@njit(cache=True)
def _noise(x: float, y: float, s: int) -> float:
    """Smooth value noise in [0, 1), one feature per unit."""
    x0 = math.floor(x)
    y0 = math.floor(y)
    fx = x - x0
    fy = y - y0
    fx = fx * fx * (3 - 2 * fx)
    fy = fy * fy * (3 - 2 * fy)
    i = int(x0)
    j = int(y0)
    a = _hash(i, j, s)
    b = _hash(i + 1, j, s)
    c = _hash(i, j + 1, s)
    d = _hash(i + 1, j + 1, s)
    return (a + (b - a) * fx) * (1 - fy) + (c + (d - c) * fx) * fy


@njit(cache=True)
def _capsule(u: float, v: float, ax: float, ay: float, bx: float, by: float, r: float) -> bool:
    """Whether (u, v) is within r of the segment from a to b."""
    dx = bx - ax
    dy = by - ay
    t = ((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy + 1e-9)
    t = min(1.0, max(0.0, t))
    ex = u - ax - t * dx
    ey = v - ay - t * dy
    return ex * ex + ey * ey < r * r


@njit(cache=True)
def _limb(u: float, v: float, hx: float, hy: float, a: float, bend: float, n: float, r: float) -> int:
    """A leg or an arm of two bones of length n hanging from (hx, hy): 0 outside, 1 on it, 2 on its last part."""
    kx = hx + n * math.sin(a)
    ky = hy - n * math.cos(a)
    fx = kx + n * math.sin(a - bend)
    fy = ky - n * math.cos(a - bend)
    if _capsule(u, v, fx, fy + 0.01, fx + 0.04, fy, r * 0.85):
        return 2
    if _capsule(u, v, hx, hy, kx, ky, r) or _capsule(u, v, kx, ky, fx, fy, r * 0.8):
        return 1
    return 0


@njit(cache=True)
def _person(u: float, v: float, phase: float, p: NDArray[np.float64]) -> int:
    """Part of a walking person at (u, v) metres from the feet: 0 none, 1 trousers, 2 top, 3 skin, 4 hair, 5 shoe, 6 bag.

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
    if _capsule(x, y, 0.0, low + 0.06, 0.0, 0.765, 0.098 if y > 0.6 else 0.088 + (0.03 if kind < 0.25 else 0.0)):
        return 2
    leg = _limb(x, y, 0.01, 0.51, 0.52 * swing * s, swing * (0.25 + 0.4 * max(0.0, c)), 0.245, 0.058)
    if leg == 0:
        leg = _limb(x, y, -0.01, 0.51, -0.52 * swing * s, swing * (0.25 + 0.4 * max(0.0, -c)), 0.245, 0.058)
    if leg:
        return 5 if leg == 2 else 1
    arm = _limb(x, y, 0.0, 0.785, 0.55 * swing * s, -0.35, 0.17, 0.038)
    return 0 if arm == 0 else (3 if arm == 2 else 2)


@njit(cache=True)
def _rider(u: float, v: float, phase: float, motor: bool, scale: float) -> int:
    """Part of a rider, as `_person`; (u, v) from the ground below the pedals, +u is forward. 7 is a helmet."""
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


@njit(cache=True)
def _bicycle(u: float, v: float) -> int:
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


@njit(cache=True)
def _motorcycle(u: float, v: float) -> int:
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


@njit(cache=True)
def _covers(m: int, u: float, v: float, anim: float, p: NDArray[np.float64]) -> int:
    """Whether material m covers (u, v): 0 no, 1 picture and truth, 2 truth only."""
    if m == PERSON:
        return 1 if _person(u, v, anim, p) else 0
    if m == RIDER:
        return 1 if _rider(u, v, anim, p[1] > 0.5, p[0]) else 0
    if m == BICYCLE:
        part = _bicycle(u, v)
        return 0 if part == 0 else (2 if part == 3 else 1)
    if m == MOTORCYCLE:
        return 1 if _motorcycle(u, v) else 0
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
        n = 0.65 * _noise(u * 1.3 + 7, v * 1.3 + 3, s) + 0.35 * _noise(u * 4.0, v * 4.0, s + 1)
        edge = 1.0 - r2 + p[3] * (n - 0.62)
        if edge < 0.0:
            return 0
        if r2 > 0.45 and _noise(u * 3.1 + 9, v * 3.1, s + 5) > 0.80:
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


@njit(cache=True)
def _fill(
    x: NDArray[np.float64], y: NDArray[np.float64], n: int, row: int, width: int
) -> tuple[int, int]:
    """First and last pixel of the convex polygon in a row; first > last if there is none."""
    lo = 1e18
    hi = -1e18
    for i in range(n):
        j = i + 1 if i + 1 < n else 0
        ya = y[i]
        yb = y[j]
        if (ya <= row) != (yb <= row):
            xc = x[i] + (row - ya) * (x[j] - x[i]) / (yb - ya)
            lo = min(lo, xc)
            hi = max(hi, xc)
    if lo > hi or lo > width - 1 or hi < 0:
        return 1, 0
    return int(max(0.0, math.ceil(lo))), int(min(width - 1.0, math.floor(hi)))


@njit(cache=True)
def rasterise(
    cam: NDArray[np.float64],
    rot: NDArray[np.float64],
    focal: float,
    verts: NDArray[np.float64],
    count: NDArray[np.int64],
    obj: NDArray[np.int64],
    mat: NDArray[np.int64],
    par: NDArray[np.float64],
    axes: NDArray[np.float64],
    flat: NDArray[np.bool_],
    pose: NDArray[np.float64],
    anim: NDArray[np.float64],
    seen: NDArray[np.int64],
    depth: NDArray[np.float32],
    label: NDArray[np.int64],
    label_depth: NDArray[np.float32],
    shade: NDArray[np.float32],
    uv: NDArray[np.float64],
    normal: NDArray[np.float64],
) -> None:
    """Draws all polygons into the two layers.

    Args:
        cam: (3,) position; rot: (3, 3) camera axes as columns in the world; focal: pixels.
        verts (P, 6, 3), count (P,): corners in the object's axes; obj, mat (P,); par (P, 12) of the material;
            axes (P, 3, 3): origin, u and v direction of its picture coordinates; flat (P,): seen from both sides.
        pose (K, 5): x, y, z, heading, width factor of each object; anim (K,): phase of its limbs.
        seen, depth: (H, W), layer of the picture, in: sky and ground, out: polygon indices and metres.
        label, label_depth: (H, W), layer of the truth.
        shade: (H, W) light left on the ground, in [0, 1].
        uv: (P, 8) out: u, v = affine functions of the camera-space point.
        normal: (P, 3) out: in the world.
    """
    height, width = seen.shape
    cx = (width - 1) / 2
    cy = (height - 1) / 2
    pts = np.zeros((6, 3))
    clip = np.zeros((12, 3))
    sx = np.zeros(12)
    sy = np.zeros(12)
    a = np.zeros((3, 3))
    for p in range(verts.shape[0]):
        k = obj[p]
        m = mat[p]
        n = count[p]
        cos = math.cos(pose[k, 3])
        sin = math.sin(pose[k, 3])
        s = pose[k, 4]
        ahead = False
        for i in range(n):
            lx = verts[p, i, 0] * s
            lz = verts[p, i, 2]
            wx = pose[k, 0] + lx * cos + lz * sin - cam[0]
            wy = pose[k, 1] + verts[p, i, 1] - cam[1]
            wz = pose[k, 2] - lx * sin + lz * cos - cam[2]
            for c in range(3):
                pts[i, c] = wx * rot[0, c] + wy * rot[1, c] + wz * rot[2, c]
            ahead = ahead or pts[i, 2] > NEAR
        if not ahead:
            continue
        # plane through the picture axes, in camera space
        for r in range(3):
            lx = axes[p, r, 0] * s
            lz = axes[p, r, 2]
            wx = lx * cos + lz * sin
            wy = axes[p, r, 1]
            wz = -lx * sin + lz * cos
            if r == 0:
                wx += pose[k, 0] - cam[0]
                wy += pose[k, 1] - cam[1]
                wz += pose[k, 2] - cam[2]
            for c in range(3):
                a[r, c] = wx * rot[0, c] + wy * rot[1, c] + wz * rot[2, c]
        nx = a[1, 1] * a[2, 2] - a[1, 2] * a[2, 1]
        ny = a[1, 2] * a[2, 0] - a[1, 0] * a[2, 2]
        nz = a[1, 0] * a[2, 1] - a[1, 1] * a[2, 0]
        d = nx * a[0, 0] + ny * a[0, 1] + nz * a[0, 2]
        if abs(d) < 1e-6:
            continue
        # u runs right and v up for who sees the front: u x v then points away, and d > 0
        if not flat[p] and d < 0:
            continue
        size = math.sqrt(nx * nx + ny * ny + nz * nz) * (-1.0 if d > 0 else 1.0)
        for c in range(3):
            normal[p, c] = (rot[c, 0] * nx + rot[c, 1] * ny + rot[c, 2] * nz) / size
        # cut off what is nearer than NEAR
        q = 0
        for i in range(n):
            j = i + 1 if i + 1 < n else 0
            zi = pts[i, 2] - NEAR
            zj = pts[j, 2] - NEAR
            if zi > 0:
                for c in range(3):
                    clip[q, c] = pts[i, c]
                q += 1
            if (zi > 0) != (zj > 0):
                t = zi / (zi - zj)
                for c in range(3):
                    clip[q, c] = pts[i, c] + t * (pts[j, c] - pts[i, c])
                q += 1
        if q < 3:
            continue
        ymin = 1e18
        ymax = -1e18
        for i in range(q):
            sx[i] = cx + focal * clip[i, 0] / clip[i, 2]
            sy[i] = cy - focal * clip[i, 1] / clip[i, 2]
            ymin = min(ymin, sy[i])
            ymax = max(ymax, sy[i])
        # u = U.(x - o) / U.U, and the same for v
        uu = a[1, 0] ** 2 + a[1, 1] ** 2 + a[1, 2] ** 2
        vv = a[2, 0] ** 2 + a[2, 1] ** 2 + a[2, 2] ** 2
        for c in range(3):
            uv[p, c] = a[1, c] / uu
            uv[p, 4 + c] = a[2, c] / vv
        uv[p, 3] = -(uv[p, 0] * a[0, 0] + uv[p, 1] * a[0, 1] + uv[p, 2] * a[0, 2])
        uv[p, 7] = -(uv[p, 4] * a[0, 0] + uv[p, 5] * a[0, 1] + uv[p, 6] * a[0, 2])
        cut = m == FOLIAGE or m == PERSON or m == BICYCLE or m == RIDER or m == MOTORCYCLE or m == WHEEL
        cut = cut or m == SIGN or m == FENCE
        for row in range(max(0, int(math.ceil(ymin))), min(height - 1, int(math.floor(ymax))) + 1):
            first, last = _fill(sx, sy, q, row, width)
            ry = (cy - row) / focal
            for col in range(first, last + 1):
                rx = (col - cx) / focal
                g = nx * rx + ny * ry + nz
                if g * d <= 0:
                    continue
                z = d / g
                if m == SHADOW:
                    if seen[row, col] == GROUND:
                        u = z * (uv[p, 0] * rx + uv[p, 1] * ry + uv[p, 2]) + uv[p, 3]
                        v = z * (uv[p, 4] * rx + uv[p, 5] * ry + uv[p, 6]) + uv[p, 7]
                        e = min(min(u, par[p, 0] - u), min(v, par[p, 1] - v)) / par[p, 3]
                        dark = 1 - par[p, 2] * min(1.0, max(0.0, e))
                        shade[row, col] = min(shade[row, col], dark)
                    continue
                if z >= depth[row, col] and z >= label_depth[row, col]:
                    continue
                cover = 1
                if cut:
                    u = z * (uv[p, 0] * rx + uv[p, 1] * ry + uv[p, 2]) + uv[p, 3]
                    v = z * (uv[p, 4] * rx + uv[p, 5] * ry + uv[p, 6]) + uv[p, 7]
                    cover = _covers(m, u, v, anim[k], par[p])
                    if cover == 0:
                        continue
                if cover == 1 and z < depth[row, col]:
                    depth[row, col] = z
                    seen[row, col] = p
                if z < label_depth[row, col]:
                    label_depth[row, col] = z
                    label[row, col] = p


@njit(cache=True)
def background(
    cam: NDArray[np.float64],
    rot: NDArray[np.float64],
    focal: float,
    seen: NDArray[np.int64],
    depth: NDArray[np.float32],
    far: float,
) -> None:
    """Fills the layers with ground up to `far` metres and sky beyond."""
    height, width = seen.shape
    cx = (width - 1) / 2
    cy = (height - 1) / 2
    for row in range(height):
        ry = (cy - row) / focal
        for col in range(width):
            rx = (col - cx) / focal
            dy = rot[1, 0] * rx + rot[1, 1] * ry + rot[1, 2]
            seen[row, col] = SKY
            depth[row, col] = np.float32(np.inf)
            if dy < -1e-5:
                z = -cam[1] / dy
                if z < far:
                    seen[row, col] = GROUND
                    depth[row, col] = z


@njit(cache=True)
def ground_type(ground: NDArray[np.uint8], origin: NDArray[np.float64], cell: float, x: float, z: float) -> int:
    """Value of the ground map (rows are z, columns are x, first cell at origin) at a place; grass outside it."""
    i = int(math.floor((z - origin[1]) / cell))
    j = int(math.floor((x - origin[0]) / cell))
    if 0 <= i < ground.shape[0] and 0 <= j < ground.shape[1]:
        return int(ground[i, j])
    return GRASS


@njit(cache=True)
def truth_of(
    cam: NDArray[np.float64],
    rot: NDArray[np.float64],
    focal: float,
    label: NDArray[np.int64],
    label_depth: NDArray[np.float32],
    obj: NDArray[np.int64],
    cls: NDArray[np.uint8],
    track: NDArray[np.int32],
    ground: NDArray[np.uint8],
    origin: NDArray[np.float64],
    cell: float,
    ground_class: NDArray[np.uint8],
    sky_class: int,
    semantic: NDArray[np.uint8],
    instance: NDArray[np.int32],
    surface: NDArray[np.int32],
) -> None:
    """Class, track id and object (-1 sky, 0 ground and everything fixed) of every pixel, from the truth layer."""
    height, width = label.shape
    cx = (width - 1) / 2
    cy = (height - 1) / 2
    for row in range(height):
        ry = (cy - row) / focal
        for col in range(width):
            p = label[row, col]
            instance[row, col] = 0
            if p >= 0:
                k = obj[p]
                semantic[row, col] = cls[p]
                instance[row, col] = track[k]
                surface[row, col] = k
            elif p == SKY:
                semantic[row, col] = sky_class
                surface[row, col] = -1
            else:
                rx = (col - cx) / focal
                z = label_depth[row, col]
                x = cam[0] + z * (rot[0, 0] * rx + rot[0, 1] * ry + rot[0, 2])
                w = cam[2] + z * (rot[2, 0] * rx + rot[2, 1] * ry + rot[2, 2])
                semantic[row, col] = ground_class[ground_type(ground, origin, cell, x, w)]
                surface[row, col] = 0


@njit(cache=True)
def flow_of(
    cam: NDArray[np.float64],
    rot: NDArray[np.float64],
    cam_u: NDArray[np.float64],
    rot_u: NDArray[np.float64],
    focal: float,
    surface: NDArray[np.int32],
    depth: NDArray[np.float32],
    pose: NDArray[np.float64],
    pose_u: NDArray[np.float64],
    flow: NDArray[np.float32],
    depth_u: NDArray[np.float32],
) -> None:
    """Where each pixel's surface point is in another frame (flow, pixels) and how deep there (depth_u, metres).

    A point that is then behind the camera is projected from NEAR in front of it.
    """
    height, width = surface.shape
    cx = (width - 1) / 2
    cy = (height - 1) / 2
    for row in range(height):
        ry = (cy - row) / focal
        for col in range(width):
            rx = (col - cx) / focal
            k = surface[row, col]
            dx = rot[0, 0] * rx + rot[0, 1] * ry + rot[0, 2]
            dy = rot[1, 0] * rx + rot[1, 1] * ry + rot[1, 2]
            dz = rot[2, 0] * rx + rot[2, 1] * ry + rot[2, 2]
            if k >= 0:
                z = depth[row, col]
                dx = cam[0] + z * dx
                dy = cam[1] + z * dy
                dz = cam[2] + z * dz
                if k > 0:
                    ax = dx - pose[k, 0]
                    az = dz - pose[k, 2]
                    cos = math.cos(pose[k, 3])
                    sin = math.sin(pose[k, 3])
                    lx = (ax * cos - az * sin) / pose[k, 4] * pose_u[k, 4]
                    lz = ax * sin + az * cos
                    cos = math.cos(pose_u[k, 3])
                    sin = math.sin(pose_u[k, 3])
                    dx = pose_u[k, 0] + lx * cos + lz * sin
                    dy = dy - pose[k, 1] + pose_u[k, 1]
                    dz = pose_u[k, 2] - lx * sin + lz * cos
                dx -= cam_u[0]
                dy -= cam_u[1]
                dz -= cam_u[2]
            x = dx * rot_u[0, 0] + dy * rot_u[1, 0] + dz * rot_u[2, 0]
            y = dx * rot_u[0, 1] + dy * rot_u[1, 1] + dz * rot_u[2, 1]
            z = dx * rot_u[0, 2] + dy * rot_u[1, 2] + dz * rot_u[2, 2]
            depth_u[row, col] = z if k >= 0 else np.inf
            z = max(z, NEAR)
            flow[row, col, 0] = cx + focal * x / z - col
            flow[row, col, 1] = cy - focal * y / z - row


Arrays = dict[str, Any]
