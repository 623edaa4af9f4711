"""Draws a street: a depth-buffered rasteriser of flat polygons with procedural materials, compiled by numba.

World axes: x right, y up, z along the street, metres. Camera axes: x right, y up, z forward. Pixel centres
lie on whole numbers. Two layers of surfaces are kept: what the picture shows, and what the truth says. They
differ only where one looks through something that is labelled whole (between spokes, fence bars, leaves), as
annotators do.
"""

# mypy: disallow-untyped-decorators=False, warn-return-any=False
# (numba is untyped)

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from panoptube.data.street_shapes import (
    BICYCLE,
    FENCE,
    FOLIAGE,
    MOTORCYCLE,
    PERSON,
    RIDER,
    SHADOW,
    SIGN,
    WHEEL,
    covers,
)

SKY, GROUND = -1, -2
"""Surface indices that are no polygon."""

ROAD, MARKING, PAVEMENT, CURB, GRASS, RAIL, PATCH, COBBLE = range(8)
"""Ground types, the values of the ground map."""

NEAR = 0.15
"""Depth in metres at which polygons are cut off."""


@njit(nogil=True, cache=True)
def _fill(x: NDArray[np.float64], y: NDArray[np.float64], n: int, row: int, width: int) -> tuple[int, int]:
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


@njit(nogil=True, cache=True)
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
            axes (P, 3, 3): origin, u and v direction of its picture coordinates; flat (P,): two-sided.
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
        cut = m in (FOLIAGE, PERSON, BICYCLE, RIDER, MOTORCYCLE, WHEEL)
        cut = cut or m in (SIGN, FENCE)
        for row in range(max(0, math.ceil(ymin)), min(height - 1, math.floor(ymax)) + 1):
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
                    cover = covers(m, u, v, anim[k], par[p])
                    if cover == 0:
                        continue
                if cover == 1 and z < depth[row, col]:
                    depth[row, col] = z
                    seen[row, col] = p
                if z < label_depth[row, col]:
                    label_depth[row, col] = z
                    label[row, col] = p


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def ground_type(
    ground: NDArray[np.uint8], origin: NDArray[np.float64], cell: float, x: float, z: float
) -> int:
    """Value of the ground map (rows are z, columns x, first cell at origin) at a place; grass outside it."""
    i = math.floor((z - origin[1]) / cell)
    j = math.floor((x - origin[0]) / cell)
    if 0 <= i < ground.shape[0] and 0 <= j < ground.shape[1]:
        return int(ground[i, j])
    return GRASS


@njit(nogil=True, cache=True)
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
    """Class, track id and object (-1 sky, 0 ground and all that is fixed) of every pixel of the truth."""
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


@njit(nogil=True, cache=True)
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
    """Where each pixel's surface point is in another frame (flow, pixels), and its depth_u in metres there.

    Object -2 moves with the camera.

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
            if k == -2:
                flow[row, col, 0] = 0.0
                flow[row, col, 1] = 0.0
                depth_u[row, col] = 1.0
                continue
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
