"""What stands in a street: ground, houses, gardens, trees, lamps, signs, traffic lights, bins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from panoptube.data import street_models as models
from panoptube.data import street_shapes as shapes
from panoptube.data.street_models import Color, Model
from panoptube.data.street_plan import BORDERS, Z_RANGE, Array, Plan
from panoptube.data.street_render import COBBLE, CURB, GRASS, MARKING, PATCH, PAVEMENT, RAIL, ROAD

CELL = 0.1
"""Metres per cell of the ground map."""
X_RANGE = (-75.0, 75.0)
"""Ends of the ground map, metres; along z it ends with the main street."""

Place = tuple[float, float]

WALLS: tuple[Color, ...] = (
    (0.72, 0.66, 0.55), (0.62, 0.35, 0.27), (0.80, 0.77, 0.70), (0.55, 0.53, 0.50), (0.74, 0.56, 0.38),
    (0.52, 0.28, 0.22), (0.66, 0.68, 0.70), (0.78, 0.70, 0.45), (0.60, 0.48, 0.40), (0.50, 0.56, 0.60),
)  # fmt: skip


@dataclass(frozen=True)
class Blocker:
    """What can hide a person: upright cylinders at (x, z) = discs (T, D, 2), radius and height, metres."""

    discs: Array
    radius: float
    height: float


class Layout:
    """Fills the model with what never moves.

    Attributes:
        ground: (h, w) uint8 ground types at CELL metres; rows are z, columns x, the first is at `origin`.
        lightmap: (h / 2, w / 2) uint8, share of the sun that reaches the ground, 255 = all.
        blockers: what a person can hide behind.
    """

    def __init__(self, plan: Plan, model: Model) -> None:
        self.plan, self.model = plan, model
        self.blockers: list[Blocker] = []
        self._shadow_polygons: list[tuple[Array, float]] = []
        self._ground()
        self._houses()
        self._furniture()
        self._lightmap()

    def _ground(self) -> None:
        rng = self.plan.rng
        w, h = round((X_RANGE[1] - X_RANGE[0]) / CELL), round((Z_RANGE[1] - Z_RANGE[0]) / CELL)
        self.ground = np.full((h, w), PAVEMENT, np.uint8)
        self.origin = np.array([X_RANGE[0], Z_RANGE[0]])
        paint = self._paint
        half, q = self.plan.half, self.plan.cross_half
        paint(-half - 0.15, -99, half + 0.15, 999, CURB)
        if self.plan.verge:
            for s in (-1, 1):
                paint(s * (half + 0.15), -99, s * (half + 0.15 + self.plan.verge), 999, GRASS)
        for c in self.plan.crosses:
            paint(-999, c - q - self.plan.walk, 999, c + q + self.plan.walk, PAVEMENT)
        paint(-half - 0.15, -99, half + 0.15, 999, CURB)
        for c in self.plan.crosses:
            paint(-999, c - q - 0.15, 999, c + q + 0.15, CURB)
        paint(-half, -99, half, 999, ROAD)
        for c in self.plan.crosses:
            paint(-999, c - q, 999, c + q, ROAD)
            for sx in (-1, 1):  # round corners
                for sz in (-1, 1):
                    self._corner(sx * half, c + sz * q, sx, sz, 3.5)
        for _ in range(int(rng.integers(3, 9))):
            x, z = rng.uniform(-half, half), rng.uniform(0, 90)
            paint(x, z, x + rng.uniform(0.5, 2.5), z + rng.uniform(1, 8), PATCH)
        if rng.random() < 0.15:
            self.ground[self.ground == ROAD] = COBBLE
        lines = [0.0] if self.plan.lanes == 1 else [-3.5, 0.0, 3.5]
        solid = rng.random() < 0.3
        for x in lines:
            for z in np.arange(Z_RANGE[0], Z_RANGE[1], 6.0):
                if all(abs(z + 1.5 - c) > q + 6.5 for c in self.plan.crosses):
                    paint(x - 0.07, z, x + 0.08, z + (6.0 if solid and x == 0 else 3.0), MARKING)
        if rng.random() < 0.7 and self.plan.parking.any():
            for s in (-1, 1):  # edge of the parking strip
                for z in np.arange(Z_RANGE[0], Z_RANGE[1], 1.0):
                    if all(abs(z - c) > q + 5 for c in self.plan.crosses):
                        paint(s * (half - 2.2), z, s * (half - 2.2) + 0.12, z + 1.0, MARKING)
        for c in self.plan.crosses:
            for s in (-1, 1):
                zebra = rng.random() < 0.75
                z0 = c + s * (q + 1.2)
                for x in np.arange(-half + 0.3, half - 0.4, 1.0):
                    if zebra:
                        paint(x, z0, x + 0.5, z0 + s * 3.0, MARKING)
                z1 = c + s * (q + 5.0)
                paint(0.0 if s < 0 else -half + 2.3, z1, half - 2.3 if s < 0 else 0.0, z1 + s * 0.35, MARKING)
            for x in np.arange(half + 4, 70, 6.0):
                for s in (-1, 1):
                    paint(s * x, c - 0.07, s * (x + 3), c + 0.08, MARKING)
        if self.plan.tramway:
            for x in (-1.75 - 0.72, -1.75 + 0.72, 1.75 - 0.72, 1.75 + 0.72):
                paint(x - 0.05, -99, x + 0.05, 999, RAIL)
        if self.plan.median:
            for z0, z1 in self.plan.stretches(6.5):
                paint(-0.8, z0, 0.8, z1, CURB)
                paint(-0.65, z0 + 0.15, 0.65, z1 - 0.15, GRASS)

    def _paint(self, x0: float, z0: float, x1: float, z1: float, kind: int) -> None:
        x0, x1 = min(x0, x1), max(x0, x1)
        z0, z1 = min(z0, z1), max(z0, z1)
        a, b = (max(0, round((v - X_RANGE[0]) / CELL)) for v in (x0, x1))
        c, d = (max(0, round((v - Z_RANGE[0]) / CELL)) for v in (z0, z1))
        self.ground[c:d, a:b] = kind

    def _corner(self, x: float, z: float, sx: int, sz: int, radius: float) -> None:
        """Rounds the kerb at the corner (x, z) of a block that lies towards (sx, sz)."""
        n = round(radius / CELL)
        j, i = round((x - X_RANGE[0]) / CELL), round((z - Z_RANGE[0]) / CELL)
        y, w = np.mgrid[0:n, 0:n] + 0.5
        away = np.hypot(n - y, n - w)
        rows = slice(i, i + n) if sz > 0 else slice(i - n, i)
        cols = slice(j, j + n) if sx > 0 else slice(j - n, j)
        block = self.ground[rows, cols]
        if block.shape == away.shape:
            away = away[::sz, ::sx]
            block[away > n] = ROAD
            block[(away <= n) & (away > n - 1.5)] = CURB

    def _houses(self) -> None:
        rng, e, q = self.plan.rng, self.plan.edge, self.plan.cross_half + self.plan.walk
        self.storey = rng.uniform(2.9, 3.5)
        for s in (-1, 1):
            for z0, z1 in self.plan.stretches(self.plan.walk):
                # seen from the street, along runs to the right
                start = (s * e, z1 if s > 0 else z0)
                self._row(start, (0.0, -1.0 if s > 0 else 1.0), (float(s), 0.0), z1 - z0, main=True)
        for c in self.plan.crosses:
            for s in (-1, 1):
                for sx in (-1, 1):
                    length = X_RANGE[1] - e - 13
                    x0 = sx * (e + 13)
                    x1 = sx * X_RANGE[1]
                    left = min(x0, x1) if s > 0 else max(x0, x1)
                    self._row((left, c + s * q), (float(s), 0.0), (0.0, float(s)), length, main=False)
        # what closes the view at the ends
        for z, out in ((Z_RANGE[1], 1.0), (Z_RANGE[0], -1.0)):
            self._row((-40.0 * out, z), (out, 0.0), (0.0, out), 80.0, main=False)
        for sx in (-1, 1):
            for c in self.plan.crosses:
                self._row(
                    (sx * X_RANGE[1], c + 25 * sx), (0.0, -float(sx)), (float(sx), 0.0), 50.0, main=False
                )

    def _row(self, start: Place, along: Place, out: Place, length: float, main: bool) -> None:
        rng, side = self.plan.rng, int(start[0] > 0)
        a = 0.0
        while a < length - 1:
            width = rng.uniform(9, 19) if main else rng.uniform(14, 26)
            width = min(width, length - a)
            if length - a - width < 6:
                width = length - a
            corner = main and (a == 0.0 or a + width >= length)
            if rng.random() < self.plan.green[side] and not (corner and rng.random() < 0.4):
                border = self.plan.border[side] if rng.random() < 0.8 else rng.choice(BORDERS)
                self._garden(start, along, out, a, width, str(border))
            else:
                self._house(start, along, out, a, width, rng.uniform(0, 2.5) if rng.random() < 0.2 else 0.0)
            a += width

    def _at(self, start: Place, along: Place, out: Place, a: float, d: float) -> Place:
        return start[0] + a * along[0] + d * out[0], start[1] + a * along[1] + d * out[1]

    def _house(self, start: Place, along: Place, out: Place, a: float, width: float, back: float) -> None:
        rng, m = self.plan.rng, self.model
        storeys = int(rng.integers(2, 7))
        shop = rng.uniform(3.2, 4.0) if rng.random() < 0.6 else 0.9
        height = shop + storeys * self.storey
        base = WALLS[int(rng.integers(len(WALLS)))]
        k = rng.uniform(0.8, 1.15)
        color = (min(1, base[0] * k), min(1, base[1] * k), min(1, base[2] * k))
        par = [
            self.storey,
            rng.uniform(1.9, 3.2),
            shop,
            float(rng.integers(9999)),
            rng.uniform(0.42, 0.78),
            rng.random(),
            rng.uniform(0.15, 0.5),
        ]
        deep = 12.5
        c = [
            self._at(start, along, out, x, d)
            for x, d in ((a, back), (a + width, back), (a + width, back + deep), (a, back + deep))
        ]
        for i, j, w in ((0, 1, width), (1, 2, deep), (3, 0, deep)):
            (x0, z0), (x1, z1) = c[i], c[j]
            side = [*par] if i == 0 else [*par[:4], par[4] * 0.6, *par[5:]]
            corners = [(x0, 0.0, z0), (x1, 0.0, z1), (x1, height, z1), (x0, height, z0)]
            m.face(0, "building", shapes.FACADE, corners, color, [w, height, *side])
        if rng.random() < 0.45:  # roof above the street
            (x0, z0), (x1, z1) = c[0], c[1]
            p, q = self._at(start, along, out, a, back + 4), self._at(start, along, out, a + width, back + 4)
            corners = [(x0, height, z0), (x1, height, z1), (q[0], height + 3, q[1]), (p[0], height + 3, p[1])]
            m.face(
                0,
                "building",
                shapes.ROOF,
                corners,
                (0.45, 0.25, 0.2) if rng.random() < 0.6 else (0.28, 0.28, 0.3),
            )
        if back > 0:
            self._strip(start, along, out, a, width, 0.0, back, GRASS if rng.random() < 0.6 else PAVEMENT)
        self._shadow(c, height)

    def _strip(
        self, start: Place, along: Place, out: Place, a: float, width: float, d0: float, d1: float, kind: int
    ) -> None:
        p, q = self._at(start, along, out, a, d0), self._at(start, along, out, a + width, d1)
        self._paint(p[0], p[1], q[0], q[1], kind)

    def _garden(self, start: Place, along: Place, out: Place, a: float, width: float, kind: str) -> None:
        """A plot without a house at the street; kind is what stands before it, one of BORDERS."""
        rng, m = self.plan.rng, self.model
        self._strip(start, along, out, a, width, 0.0, 14.0, GRASS)
        p, q = self._at(start, along, out, a, 0.3), self._at(start, along, out, a + width, 0.3)
        if kind != "open":
            low, high = {"wall": (1.5, 3.2), "fence": (1.3, 2.5), "hedge": (1.0, 2.2)}[kind]
            h = rng.uniform(low, high)
            corners = [(p[0], 0.0, p[1]), (q[0], 0.0, q[1]), (q[0], h, q[1]), (p[0], h, p[1])]
            if kind == "wall":
                base = WALLS[int(rng.integers(len(WALLS)))]
                m.face(
                    0, "wall", shapes.WALL, corners, base, [width, h, float(rng.integers(9999))], both=True
                )
            elif kind == "fence":
                solid = rng.random() < 0.4
                base = (
                    (0.45, 0.32, 0.2)
                    if solid
                    else ((0.12, 0.13, 0.13), (0.15, 0.3, 0.2), (0.6, 0.6, 0.6))[int(rng.integers(3))]
                )
                m.face(
                    0,
                    "fence",
                    shapes.FENCE,
                    corners,
                    base,
                    [h, 0.18 if solid else 0.22, 0.0 if solid else 1.0],
                    both=True,
                )
            else:
                m.face(
                    0,
                    "vegetation",
                    shapes.HEDGE,
                    corners,
                    (0.2, 0.36, 0.12),
                    [width / 2, h / 2, float(rng.integers(9999)), 0, 0],
                    both=True,
                )
        for _ in range(int(rng.integers(1, int(2 + width // 5)))):
            x, z = self._at(start, along, out, a + rng.uniform(1, width - 1), rng.uniform(2.5, 11))
            self._tree(x, z, rng.uniform(4.5, 10))
        for _ in range(int(rng.integers(0, 4))):  # bushes
            x, z = self._at(start, along, out, a + rng.uniform(1, width - 1), rng.uniform(1.2, 5))
            self._bush(x, z, rng.uniform(0.5, 1.3))
        if rng.random() < 0.7:
            self._house(start, along, out, a, width, 14.0)
        else:
            p, q = self._at(start, along, out, a, 14.0), self._at(start, along, out, a + width, 14.0)
            h = rng.uniform(3, 6)
            corners = [(p[0], 0.0, p[1]), (q[0], 0.0, q[1]), (q[0], h, q[1]), (p[0], h, p[1])]
            m.face(
                0,
                "vegetation",
                shapes.HEDGE,
                corners,
                (0.18, 0.32, 0.12),
                [width / 2, h / 2, float(rng.integers(9999)), 0, 0],
                both=True,
            )

    def _shadow(self, corners: list[Place], height: float) -> None:
        dx, dz = self.plan.sun_offset
        reach = height / max(1.0, math.hypot(dx, dz) * height / 25)
        shifted = [(x + dx * reach, z + dz * reach) for x, z in corners]
        hull = cv2.convexHull(np.array([*corners, *shifted], np.float32)).reshape(-1, 2)
        self._shadow_polygons.append((hull.astype(float), 1.0))

    def _lightmap(self) -> None:
        light = np.full((self.ground.shape[0] // 2, self.ground.shape[1] // 2), 255, np.uint8)
        for polygon, strength in self._shadow_polygons:
            cells = np.round((polygon - self.origin) / (2 * CELL)).astype(np.int32)
            cv2.fillPoly(light, [cells], 255 * (1 - strength))
        self.lightmap = cv2.blur(light, (3, 3))

    def _tree(self, x: float, z: float, height: float) -> None:
        rng = self.plan.rng
        base = ((0.22, 0.40, 0.12), (0.28, 0.42, 0.14), (0.16, 0.32, 0.12), (0.42, 0.40, 0.12))[
            int(rng.integers(4))
        ]
        models.tree(self.model, self.model.object(self.plan.facing(x, z)), rng, height, base)
        self.blockers.append(self._column(x, z, 0.09 + 0.018 * height, height))
        dx, dz = self.plan.sun_offset
        for _ in range(4):
            k = height * rng.uniform(0.5, 0.8)
            a = rng.uniform(0, 6.28, 9)
            ring = np.stack([np.cos(np.sort(a)), np.sin(np.sort(a))], 1) * height * rng.uniform(0.15, 0.3)
            middle = np.array([x + dx * k + rng.uniform(-1, 1), z + dz * k + rng.uniform(-1, 1)])
            self._shadow_polygons.append((ring + middle, 0.85))

    def _column(self, x: float, z: float, radius: float, height: float) -> Blocker:
        return Blocker(np.tile([[x, z]], (self.plan.frames, 1, 1)).astype(float), radius, height)

    def _bush(self, x: float, z: float, size: float) -> None:
        k = self.model.object(self.plan.facing(x, z))
        par = [size, size * 0.8, float(self.plan.rng.integers(9999)), 0.5, 0.3]
        self.model.cutout(
            k,
            "vegetation",
            shapes.FOLIAGE,
            (-size, -0.3, size, 1.6 * size - 0.3),
            (0.2, 0.36, 0.13),
            par,
            corner=True,
        )

    def _pole(self, x: float, z: float, height: float, width: float) -> int:
        shade = self.plan.rng.uniform(0.25, 0.6)
        k = self.model.object(self.plan.facing(x, z))
        models.pole(self.model, k, height, width, (shade, shade, shade * 1.02))
        return k

    def _furniture(self) -> None:
        rng, m = self.plan.rng, self.model
        step = rng.uniform(16, 26)
        for s in (-1, 1):
            for z0, z1 in self.plan.stretches(1.0):
                for z in np.arange(z0 + rng.uniform(0, 8), z1, step):  # lamps
                    x = s * (self.plan.half + 0.5)
                    h = rng.uniform(5.5, 8)
                    self._pole(x, z, h, rng.uniform(0.16, 0.3))
                    arm = [(x, h - 0.15, z), (x - s * 1.8, h, z), (x - s * 1.8, h + 0.12, z), (x, h, z)]
                    m.face(0, "pole", shapes.PLAIN, arm, (0.4, 0.4, 0.42), both=True)
                if self.plan.avenue:
                    for z in np.arange(z0 + 3, z1 - 2, rng.uniform(7, 11)):
                        self._tree(s * (self.plan.half + 1.0), z + rng.uniform(-1, 1), rng.uniform(5.5, 9))
                for z in np.arange(z0 + 2, z1 - 1, rng.uniform(9, 20)):  # signs
                    self._sign(s * (self.plan.half + rng.uniform(0.3, 0.8)), z + rng.uniform(-2, 2), s > 0)
                for z in np.arange(z0 + 4, z1 - 1, rng.uniform(10, 24)):  # bins, boxes, columns
                    self._clutter(s * (self.plan.half + rng.uniform(0.8, 1.6)), z + rng.uniform(-3, 3), s)
                if rng.random() < 0.5 and not self.plan.parking[0 if s < 0 else 1]:  # railing along the kerb
                    length = min(z1 - z0, rng.uniform(10, 40))
                    self._fence_along(
                        s * (self.plan.half + 0.25), z0 + rng.random() * (z1 - z0 - length), length, 1.1
                    )
                elif rng.random() < 0.25:  # building site
                    length = min(z1 - z0, rng.uniform(8, 25))
                    x, high = s * (self.plan.half + rng.uniform(0.9, 2.0)), rng.uniform(1.9, 2.3)
                    self._fence_along(x, z0 + rng.random() * (z1 - z0 - length), length, high)
        lit = rng.random() < 0.8 or self.plan.stops
        for c in self.plan.crosses if lit else []:
            state = (
                np.zeros(self.plan.frames)
                if self.plan.stops or rng.random() < 0.3
                else np.ones(self.plan.frames)
            )
            q = self.plan.cross_half
            for x, z in (
                (self.plan.half + 0.6, c - q - 1.0),
                (-self.plan.half - 0.6, c + q + 1.0),
                (self.plan.half + 0.6, c + q + 1.0),
            ):
                self._pole(x, z, 5.6, 0.18)
                k = m.object(self.plan.still(x, z, 0.0), anim=state)
                models.light_box(m, k, 0.0, 2.3, -0.15)
                if rng.random() < 0.7:
                    arm = [
                        (x, 5.4, z),
                        (x - np.sign(x) * 4.5, 5.5, z),
                        (x - np.sign(x) * 4.5, 5.62, z),
                        (x, 5.55, z),
                    ]
                    m.face(0, "pole", shapes.PLAIN, arm, (0.4, 0.4, 0.42), both=True)
                    models.light_box(m, k, -float(np.sign(x)) * 4.2, 4.6, -0.15)

    def _fence_along(self, x: float, z: float, length: float, height: float) -> None:
        """A see-through fence of steel along the street from z on."""
        corners = [(x, 0.0, z), (x, 0.0, z + length), (x, height, z + length), (x, height, z)]
        grey = self.plan.rng.uniform(0.3, 0.6)
        self.model.face(
            0, "fence", shapes.FENCE, corners, (grey, grey, grey * 1.04), [height, 0.14, 1.0], both=True
        )

    def _sign(self, x: float, z: float, ahead: bool) -> None:
        rng, m = self.plan.rng, self.model
        h = rng.uniform(2.2, 2.8)
        self._pole(x, z, h + 0.7, 0.11)
        kind = int(rng.integers(5))
        k = m.object(self.plan.still(x, z, rng.normal(0, 0.25)))
        if kind == 4:
            board = rng.uniform(0.6, 1.1)
            models.sign(m, k, h, (board, 0.5 * board), 2, 4)
        elif kind == 1:
            models.sign(m, k, h, (0.42, 0.42), 2 if rng.random() < 0.5 else 0, 1)
        elif kind == 0:
            models.sign(m, k, h, (0.48, 0.43), int(rng.integers(2)), 0)
        else:
            models.sign(m, k, h, (0.42, 0.42), (0, 0, 0, 3)[kind], kind)

    def _clutter(self, x: float, z: float, s: int) -> None:
        rng, m = self.plan.rng, self.model
        kind = rng.choice(["bin", "box", "column", "hedge", "none"], p=[0.16, 0.12, 0.36, 0.16, 0.2])
        if kind == "none":
            return
        k = m.object(self.plan.still(x, z, 0.0))
        if kind == "column":  # advertising column: part of no class
            grey = (0.5, 0.5, 0.48)
            m.prism(
                k,
                "void",
                grey,
                (-0.6, 0.6, -0.6, 0.6),
                (0.0, 2.7),
                (0.6, 0.6),
                (shapes.POSTER, shapes.POSTER, shapes.POSTER, shapes.PLAIN),
                [float(rng.integers(9999))],
            )
            self.blockers.append(self._column(x, z, 0.6, 2.7))
        elif kind == "hedge":
            h, n = rng.uniform(1.5, 2.3), rng.uniform(1.5, 4)
            m.prism(
                k,
                "vegetation",
                (0.2, 0.37, 0.13),
                (-n, n, -n, n),
                (0.0, h),
                (0.45, 0.4),
                (shapes.HEDGE,) * 4,
                [float(rng.integers(9999))],
            )
            self.blockers.append(self._column(x, z, 0.5, h))
        else:
            c = ((0.15, 0.3, 0.18), (0.55, 0.5, 0.2), (0.3, 0.3, 0.32))[int(rng.integers(3))]
            w, h = (0.3, 1.0) if kind == "bin" else (0.45, 1.3)
            m.prism(k, "void", c, (-w, w, -w, w), (0.0, h), (w, w), (shapes.PLAIN,) * 4)
        m.shadow(
            k, 0.5, -0.5, 0.5, self.plan.shadow_strength, (self.plan.sun_offset[0], self.plan.sun_offset[1])
        )
