"""A street and what happens in it: layout, the car with the camera, traffic, people, weather; all drawn from a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data import street_models as models
from panoptube.data import street_render as r
from panoptube.data.street_models import Color, Model
from panoptube.data.street_shade import (
    AMBIENT, CLOUDS, DRIFT, DUSK, HAZE, HAZE_R, SEED, SUN, SUN_X, SUN_Y, SUN_Z, TOP_R, WET,
)  # fmt: skip

FPS = 10.0
CELL = 0.1
"""Metres per cell of the ground map."""
X_RANGE, Z_RANGE = (-75.0, 75.0), (-25.0, 160.0)
"""What the ground map covers, metres."""

Array = NDArray[np.float64]
Rng = np.random.Generator

WALLS: tuple[Color, ...] = (
    (0.72, 0.66, 0.55), (0.62, 0.35, 0.27), (0.80, 0.77, 0.70), (0.55, 0.53, 0.50), (0.74, 0.56, 0.38),
    (0.52, 0.28, 0.22), (0.66, 0.68, 0.70), (0.78, 0.70, 0.45), (0.60, 0.48, 0.40), (0.50, 0.56, 0.60),
)  # fmt: skip
PAINTS: tuple[Color, ...] = (
    (0.85, 0.85, 0.86), (0.12, 0.12, 0.13), (0.45, 0.46, 0.48), (0.65, 0.66, 0.68), (0.60, 0.08, 0.08),
    (0.10, 0.18, 0.45), (0.25, 0.27, 0.30), (0.12, 0.30, 0.22), (0.70, 0.60, 0.35), (0.30, 0.45, 0.65),
)  # fmt: skip
CLOTHES: tuple[Color, ...] = (
    (0.10, 0.10, 0.12), (0.15, 0.18, 0.32), (0.75, 0.74, 0.72), (0.62, 0.12, 0.12), (0.35, 0.35, 0.36),
    (0.20, 0.40, 0.30), (0.80, 0.62, 0.20), (0.45, 0.30, 0.20), (0.30, 0.45, 0.65), (0.70, 0.40, 0.50),
)  # fmt: skip


@dataclass(frozen=True)
class Blocker:
    """Something that can hide a person: upright cylinders at (x, z) = discs (T, D, 2), their radius and height, metres."""

    discs: Array
    radius: float
    height: float


class Scene:
    """Everything that the renderer needs of one street, as arrays.

    Attributes:
        camera: (T, 6) x, y, z in metres, heading, pitch (up), roll in radians.
        light: (T, 17), see street_shade.
        ground, lightmap: ground types at CELL, and the share of sun at 2 * CELL (255 = all).
        model: polygons and objects.
        rain, blur, noise: strength of streaks, sigma of the lens in pixels at 512 wide, sigma of sensor noise.
        bonnet: height of the visible bonnet of the camera's car as a share of the picture; 0 = none.
    """

    def __init__(self, seed: int, frames: int, difficulty: float) -> None:
        self.frames, self.difficulty = frames, difficulty
        self.rng = np.random.default_rng([seed, 20210619])
        self.seed = seed
        self.model = Model(frames)
        self.time = np.arange(frames) / FPS
        self.track = 0
        self.blockers: list[Blocker] = []
        self.taken: list[tuple[Array, float]] = []  # discs (T, D, 2) and radius of vehicles, so that they don't collide
        self._streets()
        self._weather()
        self._drive()
        self._ground()
        self._shadow_polygons: list[tuple[Array, float]] = []
        self._houses()
        self._furniture()
        self._park()
        self._traffic()
        self._people()
        self._lightmap()

    # ---- layout -------------------------------------------------------------------------------------------------

    def _streets(self) -> None:
        rng = self.rng
        self.wide = rng.random() < 0.27
        self.parking = rng.random(2) < 0.75
        self.lanes = 2 if self.wide else 1
        self.half = 3.4 * self.lanes + 0.2 + 2.2 * float(self.parking.any())  # the parking strip belongs to the road
        self.walk = rng.uniform(3.0, 5.0)
        self.edge = self.half + self.walk
        self.lane = 1.75 if not self.wide or rng.random() < 0.4 else 5.2
        self.cross_half = rng.uniform(4.5, 6.5)
        self.cross = rng.uniform(18, 42)
        self.crosses = [self.cross, self.cross + rng.uniform(55, 75)]
        self.avenue = rng.random() < 0.45
        self.verge = rng.random() < 0.4  # grass between road and pavement
        self.tramway = rng.random() < 0.38
        self.median = self.wide and not self.tramway and rng.random() < 0.3
        self.green = rng.uniform(0.1, 0.75)  # share of plots without a house

    def _drive(self) -> None:
        rng, t = self.rng, self.time
        kind = rng.choice(["straight", "turn", "stop", "start"], p=[0.52, 0.22, 0.14, 0.12])
        speed = rng.uniform(5, 9) + rng.uniform(0, 3) * (0.5 + self.difficulty)
        self.turns = 0
        if kind == "turn":
            speed = rng.uniform(4, 6)
            self.turns = 1 if rng.random() < 0.55 else -1
            self.cross = self.crosses[0] = rng.uniform(12, 19)
        if kind == "stop":
            speed = rng.uniform(5, 9)
            self.cross = self.crosses[0] = max(self.cross, 26.0)
            stop = min(self.cross - self.cross_half - 7.0, speed * 2.2)
            tau = max(2 * stop / speed, 0.5)
            u = np.clip(t / tau, 0, 1)
            s = stop * (2 * u - u * u)
        elif kind == "start":
            s = 0.5 * rng.uniform(1.5, 3.0) * np.maximum(t - rng.uniform(0.2, 1.2), 0) ** 2
        else:
            s = speed * t + 0.5 * rng.uniform(-0.7, 0.7) * t * t
        x, z, yaw = np.full_like(s, self.lane), s, np.zeros_like(s)
        if self.turns:
            lane = self.cross - 1.75 * self.turns
            radius = 6.5 if self.turns > 0 else 9.5
            start = lane - radius
            angle = np.clip((s - start) / radius, 0, math.pi / 2)
            rest = np.maximum(s - start - radius * math.pi / 2, 0)
            z = np.where(s < start, s, start + radius * np.sin(angle))
            x = self.lane + self.turns * (radius * (1 - np.cos(angle)) + rest)
            yaw = self.turns * angle
        else:
            sway = rng.uniform(0, 0.35)
            w, p = rng.uniform(0.5, 1.4), rng.uniform(0, 6.28)
            x = x + sway * np.sin(w * t + p)
            yaw = np.arctan(sway * w * np.cos(w * t + p) / max(speed, 4))
            yaw = yaw + rng.normal(0, 0.06)  # the camera doesn't look quite ahead
        self.stops = kind in ("stop", "start")
        shake = 0.0012 + 0.003 * self.difficulty
        wave = [sum(np.sin(rng.uniform(3, 25) * t + rng.uniform(0, 6.28)) for _ in range(3)) for _ in range(4)]
        camera = np.zeros((len(t), 6))
        camera[:, 0], camera[:, 2] = x, z
        camera[:, 1] = rng.uniform(1.22, 1.6) + 0.01 * wave[3]
        camera[:, 3] = yaw + 0.5 * shake * wave[0]
        camera[:, 4] = rng.uniform(-0.05, 0.02) + shake * wave[1]
        camera[:, 5] = rng.normal(0, 0.006) + 0.6 * shake * wave[2]
        self.camera = camera
        self.focal = rng.uniform(0.78, 1.0)
        self.bonnet = rng.uniform(0.05, 0.11) if rng.random() < 0.22 else 0.0

    def _weather(self) -> None:
        rng, t = self.rng, self.time
        kind = rng.choice(["sun", "cloud", "rain", "dusk"], p=[0.42, 0.30, 0.14, 0.14])
        light = np.zeros((self.frames, 17))
        a, e = rng.uniform(0, 6.28), rng.uniform(0.45, 1.1)
        light[:, SUN_X], light[:, SUN_Y], light[:, SUN_Z] = math.cos(a) * math.cos(e), math.sin(e), math.sin(a) * math.cos(e)
        gleam = 1 + 0.25 * (0.3 + self.difficulty) * np.sin(rng.uniform(0.3, 1.6) * t + rng.uniform(0, 6.28))
        sun, ambient, haze, clouds, top, low = {
            "sun": (0.85, 0.52, 0.0022, 0.62, (0.24, 0.46, 0.86), (0.80, 0.87, 0.95)),
            "cloud": (0.22, 0.85, 0.0045, 1.0, (0.62, 0.67, 0.74), (0.86, 0.88, 0.91)),
            "rain": (0.06, 0.68, 0.0105, 1.05, (0.48, 0.52, 0.58), (0.68, 0.71, 0.75)),
            "dusk": (0.12, 0.36, 0.0045, 0.72, (0.16, 0.20, 0.42), (0.86, 0.58, 0.42)),
        }[str(kind)]
        light[:, SUN] = sun * gleam * rng.uniform(0.85, 1.15)
        light[:, AMBIENT] = ambient * (1 + 0.3 * (gleam - 1)) * rng.uniform(0.88, 1.1)
        light[:, HAZE] = haze * rng.uniform(0.5, 1.8)
        light[:, DUSK] = rng.uniform(0.6, 1.0) if kind == "dusk" else (0.35 if kind == "rain" and rng.random() < 0.4 else 0)
        light[:, WET] = rng.uniform(0.6, 1.0) if kind == "rain" else (0.5 if rng.random() < 0.1 else 0)
        light[:, CLOUDS] = clouds * rng.uniform(0.8, 1.15)
        light[:, DRIFT] = rng.uniform(0, 50) + 0.02 * t
        light[:, SEED] = rng.integers(1 << 20)
        for c in range(3):
            light[:, HAZE_R + c] = low[c] * rng.uniform(0.95, 1.05)
            light[:, TOP_R + c] = top[c] * rng.uniform(0.9, 1.1)
        self.light, self.weather = light, str(kind)
        self.rain = float(rng.uniform(0.5, 1)) if kind == "rain" else 0.0
        self.blur = float(rng.uniform(0.25, 0.55 + 0.5 * self.difficulty))
        self.noise = float(rng.uniform(0.004, 0.008 + 0.018 * self.difficulty) * (1.6 if kind == "dusk" else 1))
        self.exposure = (1 + 0.08 * self.difficulty * np.sin(rng.uniform(0.5, 3) * t + rng.uniform(0, 6.28))) * rng.uniform(0.9, 1.1)
        self.tint = 1 + rng.normal(0, 0.03, 3)
        self.shadow_strength = float(np.clip(sun * 0.85, 0.05, 0.55))
        self.sun_offset = (-light[0, SUN_X] / light[0, SUN_Y], -light[0, SUN_Z] / light[0, SUN_Y])

    def _ground(self) -> None:
        rng = self.rng
        w, h = round((X_RANGE[1] - X_RANGE[0]) / CELL), round((Z_RANGE[1] - Z_RANGE[0]) / CELL)
        self.ground = np.full((h, w), r.PAVEMENT, np.uint8)
        self.origin = np.array([X_RANGE[0], Z_RANGE[0]])
        paint = self._paint
        half, q = self.half, self.cross_half
        paint(-half - 0.15, -99, half + 0.15, 999, r.CURB)
        if self.verge:
            for s in (-1, 1):
                paint(s * (half + 0.15), -99, s * (half + 1.4), 999, r.GRASS)
        for c in self.crosses:
            paint(-999, c - q - self.walk, 999, c + q + self.walk, r.PAVEMENT)
        paint(-half - 0.15, -99, half + 0.15, 999, r.CURB)
        for c in self.crosses:
            paint(-999, c - q - 0.15, 999, c + q + 0.15, r.CURB)
        paint(-half, -99, half, 999, r.ROAD)
        for c in self.crosses:
            paint(-999, c - q, 999, c + q, r.ROAD)
            for sx in (-1, 1):  # round corners
                for sz in (-1, 1):
                    self._corner(sx * half, c + sz * q, sx, sz, 3.5)
        for _ in range(int(rng.integers(3, 9))):
            x, z = rng.uniform(-half, half), rng.uniform(0, 90)
            paint(x, z, x + rng.uniform(0.5, 2.5), z + rng.uniform(1, 8), r.PATCH)
        if rng.random() < 0.15:
            self.ground[self.ground == r.ROAD] = r.COBBLE
        lines = [0.0] if self.lanes == 1 else [-3.5, 0.0, 3.5]
        solid = rng.random() < 0.3
        for x in lines:
            for z in np.arange(Z_RANGE[0], Z_RANGE[1], 6.0):
                if all(abs(z + 1.5 - c) > q + 6.5 for c in self.crosses):
                    paint(x - 0.07, z, x + 0.08, z + (6.0 if solid and x == 0 else 3.0), r.MARKING)
        if rng.random() < 0.7 and self.parking.any():
            for s in (-1, 1):  # edge of the parking strip
                for z in np.arange(Z_RANGE[0], Z_RANGE[1], 1.0):
                    if all(abs(z - c) > q + 5 for c in self.crosses):
                        paint(s * (half - 2.2), z, s * (half - 2.2) + 0.12, z + 1.0, r.MARKING)
        for c in self.crosses:
            for s in (-1, 1):
                zebra = rng.random() < 0.75
                z0 = c + s * (q + 1.2)
                for x in np.arange(-half + 0.3, half - 0.4, 1.0):
                    if zebra:
                        paint(x, z0, x + 0.5, z0 + s * 3.0, r.MARKING)
                z1 = c + s * (q + 5.0)
                paint(0.0 if s < 0 else -half + 2.3, z1, half - 2.3 if s < 0 else 0.0, z1 + s * 0.35, r.MARKING)
            for x in np.arange(half + 4, 70, 6.0):
                for s in (-1, 1):
                    paint(s * x, c - 0.07, s * (x + 3), c + 0.08, r.MARKING)
        if self.tramway:
            for x in (-1.75 - 0.72, -1.75 + 0.72, 1.75 - 0.72, 1.75 + 0.72):
                paint(x - 0.05, -99, x + 0.05, 999, r.RAIL)
        if self.median:
            for z0, z1 in self._stretches(6.5):
                paint(-0.8, z0, 0.8, z1, r.CURB)
                paint(-0.65, z0 + 0.15, 0.65, z1 - 0.15, r.GRASS)

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
            block[away > n] = r.ROAD
            block[(away <= n) & (away > n - 1.5)] = r.CURB

    def _stretches(self, margin: float) -> list[tuple[float, float]]:
        """Parts of the main street between crossings, as (z0, z1)."""
        cuts = [Z_RANGE[0], *(v for c in self.crosses for v in (c - self.cross_half - margin, c + self.cross_half + margin)), Z_RANGE[1]]
        return [(a, b) for a, b in zip(cuts[::2], cuts[1::2]) if b - a > 4]

    # ---- houses and gardens -------------------------------------------------------------------------------------

    def _houses(self) -> None:
        rng, e, q = self.rng, self.edge, self.cross_half + self.walk
        self.storey = rng.uniform(2.9, 3.5)
        for s in (-1, 1):
            for z0, z1 in self._stretches(self.walk):
                # seen from the street, along runs to the right
                start = (s * e, z1 if s > 0 else z0)
                self._row(start, (0.0, -1.0 if s > 0 else 1.0), (float(s), 0.0), z1 - z0, main=True)
        for c in self.crosses:
            for s in (-1, 1):
                for sx in (-1, 1):
                    length = X_RANGE[1] - e - 13
                    x0 = sx * (e + 13)
                    x1 = sx * X_RANGE[1]
                    left = min(x0, x1) if s > 0 else max(x0, x1)
                    self._row((left, c + s * q), (float(s), 0.0), (0.0, float(s)), length, main=False)
        # what closes the view at the ends
        for z, s in ((Z_RANGE[1], 1.0), (Z_RANGE[0], -1.0)):
            self._row((-40.0 * s, z), (s, 0.0), (0.0, s), 80.0, main=False)
        for sx in (-1, 1):
            for c in self.crosses:
                self._row((sx * X_RANGE[1], c + 25 * sx), (0.0, -float(sx)), (float(sx), 0.0), 50.0, main=False)

    def _row(self, start: tuple[float, float], along: tuple[float, float], out: tuple[float, float], length: float, main: bool) -> None:
        rng = self.rng
        a = 0.0
        while a < length - 1:
            width = rng.uniform(9, 19) if main else rng.uniform(14, 26)
            width = min(width, length - a)
            if length - a - width < 6:
                width = length - a
            corner = main and (a == 0.0 or a + width >= length)
            if rng.random() < self.green and not (corner and rng.random() < 0.6):
                self._garden(start, along, out, a, width)
            else:
                self._house(start, along, out, a, width, rng.uniform(0, 2.5) if rng.random() < 0.2 else 0.0)
            a += width

    def _at(self, start: tuple[float, float], along: tuple[float, float], out: tuple[float, float], a: float, d: float) -> tuple[float, float]:
        return start[0] + a * along[0] + d * out[0], start[1] + a * along[1] + d * out[1]

    def _house(self, start: tuple[float, float], along: tuple[float, float], out: tuple[float, float], a: float, width: float, back: float) -> None:
        rng, m = self.rng, self.model
        storeys = int(rng.integers(2, 7))
        shop = rng.uniform(3.2, 4.0) if rng.random() < 0.6 else 0.9
        height = shop + storeys * self.storey
        base = WALLS[int(rng.integers(len(WALLS)))]
        k = rng.uniform(0.8, 1.15)
        color = (min(1, base[0] * k), min(1, base[1] * k), min(1, base[2] * k))
        par = [self.storey, rng.uniform(1.9, 3.2), shop, float(rng.integers(9999)), rng.uniform(0.42, 0.78), rng.random(), rng.uniform(0.15, 0.5)]
        deep = 12.5
        c = [self._at(start, along, out, x, d) for x, d in ((a, back), (a + width, back), (a + width, back + deep), (a, back + deep))]
        for i, j, w in ((0, 1, width), (1, 2, deep), (3, 0, deep)):
            (x0, z0), (x1, z1) = c[i], c[j]
            side = [*par] if i == 0 else [*par[:4], par[4] * 0.6, *par[5:]]
            corners = [(x0, 0.0, z0), (x1, 0.0, z1), (x1, height, z1), (x0, height, z0)]
            m.face(0, "building", r.FACADE, corners, color, [w, height, *side])
        if rng.random() < 0.45:  # roof above the street
            (x0, z0), (x1, z1) = c[0], c[1]
            p, q = self._at(start, along, out, a, back + 4), self._at(start, along, out, a + width, back + 4)
            corners = [(x0, height, z0), (x1, height, z1), (q[0], height + 3, q[1]), (p[0], height + 3, p[1])]
            m.face(0, "building", r.ROOF, corners, (0.45, 0.25, 0.2) if rng.random() < 0.6 else (0.28, 0.28, 0.3))
        if back > 0:
            self._strip(start, along, out, a, width, 0.0, back, r.GRASS if rng.random() < 0.6 else r.PAVEMENT)
        self._shadow(c, height)

    def _strip(self, start: tuple[float, float], along: tuple[float, float], out: tuple[float, float], a: float, width: float, d0: float, d1: float, kind: int) -> None:
        p, q = self._at(start, along, out, a, d0), self._at(start, along, out, a + width, d1)
        self._paint(p[0], p[1], q[0], q[1], kind)

    def _garden(self, start: tuple[float, float], along: tuple[float, float], out: tuple[float, float], a: float, width: float) -> None:
        rng, m = self.rng, self.model
        self._strip(start, along, out, a, width, 0.0, 14.0, r.GRASS)
        kind = rng.choice(["wall", "fence", "hedge", "open"], p=[0.3, 0.34, 0.16, 0.2])
        p, q = self._at(start, along, out, a, 0.3), self._at(start, along, out, a + width, 0.3)
        if kind != "open":
            low, high = {"wall": (1.2, 2.6), "fence": (1.1, 2.2), "hedge": (1.0, 2.2)}[str(kind)]
            h = rng.uniform(low, high)
            corners = [(p[0], 0.0, p[1]), (q[0], 0.0, q[1]), (q[0], h, q[1]), (p[0], h, p[1])]
            if kind == "wall":
                base = WALLS[int(rng.integers(len(WALLS)))]
                m.face(0, "wall", r.WALL, corners, base, [width, h, float(rng.integers(9999))], both=True)
            elif kind == "fence":
                solid = rng.random() < 0.4
                base = (0.45, 0.32, 0.2) if solid else ((0.12, 0.13, 0.13), (0.15, 0.3, 0.2), (0.6, 0.6, 0.6))[int(rng.integers(3))]
                m.face(0, "fence", r.FENCE, corners, base, [h, 0.18 if solid else 0.22, 0.0 if solid else 1.0], both=True)
            else:
                m.face(0, "vegetation", r.HEDGE, corners, (0.2, 0.36, 0.12), [width / 2, h / 2, float(rng.integers(9999)), 0, 0], both=True)
        for _ in range(int(rng.integers(1, 2 + width // 5))):
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
            m.face(0, "vegetation", r.HEDGE, corners, (0.18, 0.32, 0.12), [width / 2, h / 2, float(rng.integers(9999)), 0, 0], both=True)

    def _shadow(self, corners: list[tuple[float, float]], height: float) -> None:
        dx, dz = self.sun_offset
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

    # ---- things that stand --------------------------------------------------------------------------------------

    def _facing(self, x: Array | float, z: Array | float, y: float = 0.0, width: Array | float = 1.0) -> Array:
        """Poses (T, 5) that face the camera."""
        pose = np.zeros((self.frames, 5))
        pose[:, 0], pose[:, 1], pose[:, 2], pose[:, 4] = x, y, z, width
        pose[:, 3] = np.arctan2(pose[:, 0] - self.camera[:, 0], pose[:, 2] - self.camera[:, 2])
        return pose

    def _still(self, x: float, z: float, yaw: float) -> Array:
        return np.tile([x, 0.0, z, yaw, 1.0], (self.frames, 1))

    def _tree(self, x: float, z: float, height: float) -> None:
        rng = self.rng
        base = ((0.22, 0.40, 0.12), (0.28, 0.42, 0.14), (0.16, 0.32, 0.12), (0.42, 0.40, 0.12))[int(rng.integers(4))]
        models.tree(self.model, self.model.object(self._facing(x, z)), rng, height, base)
        self.blockers.append(self._column(x, z, 0.09 + 0.018 * height, height))
        dx, dz = self.sun_offset
        for _ in range(4):
            k = height * rng.uniform(0.5, 0.8)
            a = rng.uniform(0, 6.28, 9)
            ring = np.stack([np.cos(np.sort(a)), np.sin(np.sort(a))], 1) * height * rng.uniform(0.15, 0.3)
            self._shadow_polygons.append((ring + [x + dx * k + rng.uniform(-1, 1), z + dz * k + rng.uniform(-1, 1)], 0.85))

    def _column(self, x: float, z: float, radius: float, height: float) -> Blocker:
        return Blocker(np.tile([[x, z]], (self.frames, 1, 1)).astype(float), radius, height)

    def _bush(self, x: float, z: float, size: float) -> None:
        k = self.model.object(self._facing(x, z))
        par = [size, size * 0.8, float(self.rng.integers(9999)), 0.5, 0.3]
        self.model.cutout(k, "vegetation", r.FOLIAGE, (-size, -0.3, size, 1.6 * size - 0.3), (0.2, 0.36, 0.13), par, corner=True)

    def _pole(self, x: float, z: float, height: float, width: float) -> int:
        shade = self.rng.uniform(0.25, 0.6)
        k = self.model.object(self._facing(x, z))
        models.pole(self.model, k, height, width, (shade, shade, shade * 1.02))
        return k

    def _furniture(self) -> None:
        rng, m = self.rng, self.model
        step = rng.uniform(16, 26)
        for s in (-1, 1):
            for z0, z1 in self._stretches(1.0):
                for z in np.arange(z0 + rng.uniform(0, 8), z1, step):  # lamps
                    x = s * (self.half + 0.5)
                    h = rng.uniform(5.5, 8)
                    self._pole(x, z, h, rng.uniform(0.14, 0.24))
                    arm = [(x, h - 0.15, z), (x - s * 1.8, h, z), (x - s * 1.8, h + 0.12, z), (x, h, z)]
                    m.face(0, "pole", r.PLAIN, arm, (0.4, 0.4, 0.42), both=True)
                if self.avenue:
                    for z in np.arange(z0 + 3, z1 - 2, rng.uniform(7, 11)):
                        self._tree(s * (self.half + 1.0), z + rng.uniform(-1, 1), rng.uniform(5.5, 9))
                for z in np.arange(z0 + 2, z1 - 1, rng.uniform(9, 20)):  # signs
                    self._sign(s * (self.half + rng.uniform(0.3, 0.8)), z + rng.uniform(-2, 2), s > 0)
                for z in np.arange(z0 + 4, z1 - 1, rng.uniform(10, 24)):  # bins, boxes, columns
                    self._clutter(s * (self.half + rng.uniform(0.8, 1.6)), z + rng.uniform(-3, 3), s)
                if rng.random() < 0.3 and not self.parking[0 if s < 0 else 1]:  # railing along the kerb
                    length = min(z1 - z0, rng.uniform(6, 25))
                    a = max(z0, rng.uniform(z0, z1 - length))
                    x = s * (self.half + 0.25)
                    c = [(x, 0.0, a), (x, 0.0, a + length), (x, 1.0, a + length), (x, 1.0, a)]
                    m.face(0, "fence", r.FENCE, c, (0.5, 0.5, 0.52), [1.0, 0.14, 1.0], both=True)
        lit = rng.random() < 0.8 or self.stops
        for c in self.crosses if lit else []:
            state = np.zeros(self.frames) if self.stops or rng.random() < 0.3 else np.ones(self.frames)
            q = self.cross_half
            for x, z in ((self.half + 0.6, c - q - 1.0), (-self.half - 0.6, c + q + 1.0), (self.half + 0.6, c + q + 1.0)):
                self._pole(x, z, 5.6, 0.18)
                k = m.object(self._still(x, z, 0.0), anim=state)
                models.light_box(m, k, 0.0, 2.3, -0.15)
                if rng.random() < 0.7:
                    arm = [(x, 5.4, z), (x - np.sign(x) * 4.5, 5.5, z), (x - np.sign(x) * 4.5, 5.62, z), (x, 5.55, z)]
                    m.face(0, "pole", r.PLAIN, arm, (0.4, 0.4, 0.42), both=True)
                    models.light_box(m, k, -float(np.sign(x)) * 4.2, 4.6, -0.15)

    def _sign(self, x: float, z: float, ahead: bool) -> None:
        rng, m = self.rng, self.model
        h = rng.uniform(2.2, 2.8)
        self._pole(x, z, h + 0.7, 0.09)
        kind = int(rng.integers(5))
        k = m.object(self._still(x, z, rng.normal(0, 0.25)))
        if kind == 4:
            models.sign(m, k, h, (0.75, 0.35), 2, 4)
        elif kind == 1:
            models.sign(m, k, h, (0.36, 0.36), 2 if rng.random() < 0.5 else 0, 1)
        elif kind == 0:
            models.sign(m, k, h, (0.42, 0.38), int(rng.integers(2)), 0)
        else:
            models.sign(m, k, h, (0.38, 0.38), (0, 0, 0, 3)[kind], kind)

    def _clutter(self, x: float, z: float, s: int) -> None:
        rng, m = self.rng, self.model
        kind = rng.choice(["bin", "box", "column", "hedge", "none"], p=[0.16, 0.12, 0.3, 0.27, 0.15])
        if kind == "none":
            return
        k = m.object(self._still(x, z, 0.0))
        if kind == "column":  # advertising column: part of no class
            models_color = (0.5, 0.5, 0.48)
            m.prism(k, "void", models_color, (-0.6, 0.6, -0.6, 0.6), (0.0, 2.7), (0.6, 0.6), (r.POSTER, r.POSTER, r.POSTER, r.PLAIN), [float(rng.integers(9999))])
            self.blockers.append(self._column(x, z, 0.6, 2.7))
        elif kind == "hedge":
            h, n = rng.uniform(1.5, 2.3), rng.uniform(1.5, 4)
            m.prism(k, "vegetation", (0.2, 0.37, 0.13), (-n, n, -n, n), (0.0, h), (0.45, 0.4), (r.HEDGE,) * 4, [float(rng.integers(9999))])
            self.blockers.append(self._column(x, z, 0.5, h))
        else:
            c = ((0.15, 0.3, 0.18), (0.55, 0.5, 0.2), (0.3, 0.3, 0.32))[int(rng.integers(3))]
            w, h = (0.3, 1.0) if kind == "bin" else (0.45, 1.3)
            m.prism(k, "void", c, (-w, w, -w, w), (0.0, h), (w, w), (r.PLAIN,) * 4)
        m.shadow(k, 0.5, -0.5, 0.5, self.shadow_strength, (self.sun_offset[0], self.sun_offset[1]))

    # ---- vehicles -----------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self.track += 1
        return self.track

    def _free(self, pose: Array, half: float, width: float) -> bool:
        """Whether a vehicle on this path touches no other, nor the camera's car; if so the path is taken."""
        n = max(1, round(half / width))
        offsets = np.linspace(-half + width, half - width, n) if n > 1 else np.zeros(1)
        discs = np.stack([pose[:, None, 0] + offsets * np.sin(pose[:, None, 3]), pose[:, None, 2] + offsets * np.cos(pose[:, None, 3])], 2)
        yaw = self.camera[:, None, 3]
        back = np.array([-0.6, -2.6])
        ego = np.stack([self.camera[:, None, 0] + back * np.sin(yaw), self.camera[:, None, 2] + back * np.cos(yaw)], 2)
        for other, radius in [(ego, 1.15), *self.taken]:
            gap = np.linalg.norm(discs[::3, :, None] - other[::3, None], axis=-1)
            if gap.min() < width + radius + 0.1:
                return False
        self.taken.append((discs, width))
        return True

    def _sun_in(self, yaw: float, height: float) -> tuple[float, float]:
        dx, dz = self.sun_offset
        k = min(1.0, 1.5 / max(0.1, math.hypot(dx, dz))) * height * 0.6
        return (dx * math.cos(yaw) - dz * math.sin(yaw)) * k, (dx * math.sin(yaw) + dz * math.cos(yaw)) * k

    def _vehicle(self, kind: str, pose: Array, moving: bool) -> bool:
        """Adds a vehicle on its path if there is room."""
        rng, m = self.rng, self.model
        size = {"car": (2.3, 0.95), "truck": (4.2, 1.25), "bus": (5.8, 1.3), "train": (13.0, 1.3)}[kind]
        long = rng.uniform(6.5, 9.5) if kind == "truck" else rng.uniform(18, 30) if kind == "train" else rng.uniform(10.5, 12.5)
        half = {"car": 2.3, "truck": long / 2, "bus": long / 2, "train": long / 2}[kind]
        if not self._free(pose, half + 0.3, size[1]):
            return False
        step = np.hypot(np.gradient(pose[:, 0]), np.gradient(pose[:, 2])) if self.frames > 1 else np.zeros(1)
        slows = np.gradient(step) < -0.002 if self.frames > 1 else np.zeros(1, bool)
        k = m.object(pose, self._next(), brake=(slows | (moving & (step < 0.02))).astype(float))
        paint = PAINTS[int(rng.integers(len(PAINTS)))]
        u = rng.uniform(0.85, 1.15)
        paint = (min(1, paint[0] * u), min(1, paint[1] * u), min(1, paint[2] * u))
        bright: Color = (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.6))
        if kind == "car":
            shape = models.car(m, k, int(rng.choice(5, p=[0.25, 0.25, 0.22, 0.13, 0.15])), paint)
        elif kind == "truck":
            cargo = ((0.85, 0.85, 0.84), (0.35, 0.4, 0.5), (0.7, 0.6, 0.4), (0.5, 0.12, 0.1))[int(rng.integers(4))]
            shape = models.truck(m, k, paint, cargo, long, float(rng.random() < 0.5))
        else:
            body = ((0.85, 0.82, 0.75), (0.75, 0.1, 0.1), (0.9, 0.75, 0.15), (0.2, 0.35, 0.6), (0.3, 0.55, 0.35))[int(rng.integers(5))]
            shape = models.coach(m, k, kind, body, bright, long, 3.1 if kind == "bus" else 3.4, int(rng.integers(9999)))
        half, wide, height = shape
        m.shadow(k, wide, -half, half, self.shadow_strength, self._sun_in(float(pose[0, 3]), height))
        self.blockers.append(Blocker(self.taken[-1][0], wide, height))
        return True

    def _park(self) -> None:
        rng = self.rng
        dense = 0.4 + 0.35 * self.difficulty + rng.uniform(-0.2, 0.2)
        for s in (-1, 1):
            if not self.parking[0 if s < 0 else 1]:
                continue
            for z0, z1 in self._stretches(5.5):
                z = max(z0, -6.0) + rng.uniform(2, 6)
                while z < min(z1 - 3, 75):
                    kind = str(rng.choice(["car", "truck"], p=[0.93, 0.07]))
                    if kind == "truck":
                        z += 2.5
                    if rng.random() < dense:
                        yaw = (0.0 if s > 0 else math.pi) + rng.normal(0, 0.03)
                        if rng.random() < 0.15:
                            yaw += math.pi
                        self._vehicle(kind, self._still(s * (self.half - 1.15) + rng.normal(0, 0.08), z, yaw), False)
                    z += rng.uniform(5.2, 6.6) + (3.0 if kind == "truck" else 0.0)
        for c in self.crosses:
            for s in (-1, 1):
                for sx in (-1, 1):
                    for x in np.arange(self.half + 8, 40, 6.2):
                        if rng.random() < 0.45 * dense and self.cross_half > 5.2:
                            self._vehicle("car", self._still(sx * x, c + s * (self.cross_half - 1.1), math.pi / 2 * s), False)

    def _path(self, x: Array | float, z: Array | float, yaw: float) -> Array:
        pose = np.zeros((self.frames, 5))
        pose[:, 0], pose[:, 2], pose[:, 3], pose[:, 4] = x, z, yaw, 1.0
        return pose

    def _ride(self, speed: float) -> Array:
        """Distance driven at each frame, with a little acceleration or braking."""
        rng, t = self.rng, self.time
        d = speed * t + 0.5 * rng.uniform(-0.8, 0.8) * t * t * min(1.0, speed / 6)
        return np.asarray(np.maximum.accumulate(d))

    def _traffic(self) -> None:
        rng, d = self.rng, self.difficulty
        if self.tramway:
            ahead = rng.random() < 0.35 and self.lane > 3
            x = 1.75 if ahead else -1.75
            z = rng.uniform(18, 30) + 10 if ahead else rng.uniform(28, 60)
            go = self._ride(rng.uniform(3, 9))
            self._vehicle("train", self._path(x, z + go if ahead else z - go, 0.0 if ahead else math.pi), True)
        kinds, odds = ["car", "truck", "bus"], [0.76, 0.12, 0.12]
        if rng.random() < 0.55 and not self.turns and not self.stops:  # ahead in the same lane
            kind = str(rng.choice(kinds, p=[0.84, 0.08, 0.08]))
            speed = float(np.mean(np.gradient(self.camera[:, 2]))) * FPS if self.frames > 1 else 5.0
            gap = rng.uniform(9, 24) + (4 if kind != "car" else 0)
            self._vehicle(kind, self._path(self.lane, gap + self._ride(speed * rng.uniform(0.9, 1.2)), 0.0), True)
        if self.lanes == 2:
            other = 5.2 if self.lane < 3 else 1.75
            for z in np.arange(rng.uniform(3, 9), 50, rng.uniform(11, 20)):
                if rng.random() < 0.55:
                    self._vehicle(str(rng.choice(kinds, p=odds)), self._path(other, z + self._ride(rng.uniform(2, 12)), 0.0), True)
        for x in [-1.75, -5.2][: self.lanes]:
            jam = rng.random() < 0.15 + 0.25 * d
            speed = rng.uniform(0, 2.5) if jam else rng.uniform(5, 11)
            go = self._ride(speed)
            z = rng.uniform(8, 20)
            for _ in range(int(rng.integers(1, 5)) + 2 * jam):
                self._vehicle(str(rng.choice(kinds, p=odds)), self._path(x + rng.normal(0, 0.1), z - go, math.pi), True)
                z += rng.uniform(7, 12) if jam else rng.uniform(9, 26)
        for c in self.crosses[:1]:  # across
            for s in (-1, 1):
                if rng.random() < 0.6:
                    speed = rng.uniform(4, 9)
                    x = -s * rng.uniform(4, 28)
                    kind = str(rng.choice(kinds, p=odds))
                    self._vehicle(kind, self._path(x + s * self._ride(speed), c - s * 2.0, s * math.pi / 2), True)
        if rng.random() < 0.2:  # bus at its stop
            self._vehicle("bus", self._path(self.half - 1.3, rng.uniform(12, 40) + self._ride(rng.uniform(0, 3)), 0.0), True)
        for name, odds_of in (("bicycle", 0.9 + 0.8 * d), ("motorcycle", 0.5 + 0.5 * d)):
            for _ in range(int(odds_of + rng.random())):
                self._rider(name)
        self._bike_racks()

    def _two_wheels(self, name: str, pose: Array, ridden: bool, track: bool = True) -> None:
        """Adds a bicycle or motorcycle, with its rider as a track of its own if it is ridden."""
        rng, m = self.rng, self.model
        facing = self._facing(pose[:, 0], pose[:, 2])
        across = np.sin(pose[:, 3] - facing[:, 3])
        # from behind or ahead the outline is narrow; the side it points to is kept, so that its flow stays smooth
        side = 1.0 if float(np.mean(across)) >= 0 else -1.0
        facing[:, 4] = side * np.clip(side * across, 0.28, 1.0)
        color = PAINTS[int(rng.integers(len(PAINTS)))]
        k = m.object(facing, self._next() if track else 0)
        models.two_wheeler(m, k, name, color)
        m.shadow(k, 0.9, -0.35, 0.35, 0.3, (0.0, 0.0))
        if ridden:
            seat = facing.copy()
            seat[:, 4] = side * np.clip(side * across, 0.5, 1.0)
            step = np.hypot(np.gradient(pose[:, 0]), np.gradient(pose[:, 2])) if self.frames > 1 else np.zeros(1)
            phase = rng.uniform(0, 6.28) + np.cumsum(step) * 1.6
            models.rider(m, m.object(seat, self._next(), anim=phase), self._look(), name == "motorcycle")

    def _rider(self, name: str) -> None:
        rng = self.rng
        speed = rng.uniform(2.5, 5.5) if name == "bicycle" else rng.uniform(4, 11)
        go = self._ride(speed)
        where = rng.random()
        if where < 0.5:  # along, ahead of the camera
            near = self.half - 2.9 if self.lane > 3 or not self.wide else 3.5
            pose = self._path(near + 0.3 + rng.uniform(0, 0.4), rng.uniform(7, 22) + go, 0.0)
        elif where < 0.8:  # towards the camera
            pose = self._path(-self.half + 2.6 + rng.uniform(-0.3, 0.3), rng.uniform(16, 42) - go, math.pi)
        else:  # across
            s = 1 if rng.random() < 0.5 else -1
            pose = self._path(-s * rng.uniform(2, 14) + s * go, self.crosses[0] - s * 3.2 + rng.uniform(-0.5, 0.5), s * math.pi / 2)
        if self._free(pose, 0.9, 0.4):
            self._two_wheels(name, pose, True)

    def _bike_racks(self) -> None:
        rng = self.rng
        for s in (-1, 1):
            for name in ("bicycle", "motorcycle"):
                if rng.random() < (0.4 if name == "bicycle" else 0.3):
                    z = rng.uniform(8, 40)
                    crowd = rng.random() < 0.3
                    for i in range(int(rng.integers(1, 4)) + 3 * crowd):
                        x = s * (self.half + 0.9)
                        yaw = s * math.pi / 2 + rng.normal(0, 0.15)
                        self._two_wheels(name, self._path(x, z + (0.55 if crowd else 2.3) * i, yaw), False, track=not crowd)

    # ---- people -------------------------------------------------------------------------------------------------

    def _look(self) -> list[float]:
        rng = self.rng
        top, low = CLOTHES[int(rng.integers(len(CLOTHES)))], CLOTHES[int(rng.integers(len(CLOTHES)))]
        height = rng.uniform(1.58, 1.88) if rng.random() < 0.88 else rng.uniform(1.1, 1.4)
        k = rng.uniform(0.7, 1.15)
        return [
            height, 1.0, rng.random(), *(min(1.0, c * k) for c in top), *(c * 0.8 for c in low), rng.uniform(0.35, 0.9), rng.uniform(0.05, 0.5),
        ]  # fmt: skip

    def _person(self, x: Array | float, z: Array | float, track: bool = True) -> None:
        """Adds a person who walks along this path."""
        rng, m = self.rng, self.model
        pose = self._facing(x, z)
        if self.frames > 1:
            vx, vz = np.gradient(pose[:, 0]), np.gradient(pose[:, 2])
        else:
            vx = vz = np.zeros(1)
        step = np.hypot(vx, vz)
        across = np.where(step > 1e-3, vx * np.cos(pose[:, 3]) - vz * np.sin(pose[:, 3]), 0.7 * np.ones_like(step))
        across = across / np.maximum(step, 1e-3)
        side = 1.0 if float(np.mean(across)) >= 0 else -1.0
        pose[:, 4] = side * np.clip(side * across, 0.62, 1.0)
        look = self._look()
        moves = float(step.mean()) > 0.01
        look[1] = 1.0 if moves else 0.12
        phase = rng.uniform(0, 6.28) + (np.cumsum(step) / (0.42 * look[0]) * math.pi if moves else 0.0)
        k = m.object(pose, self._next() if track else 0, anim=phase * np.ones(self.frames))
        models.person(m, k, look)
        m.shadow(k, 0.25, -0.2, 0.2, 0.4, (0.0, 0.0))

    def _people(self) -> None:
        rng, d, t = self.rng, self.difficulty, self.time
        for _ in range(round(rng.uniform(3, 7) + 4 * d)):  # along the pavements
            s = 1 if rng.random() < 0.5 else -1
            speed = rng.choice([0.0, 1.0], p=[0.2, 0.8]) * rng.uniform(0.9, 1.9) * (1 if rng.random() < 0.5 else -1)
            self._person(s * (self.half + rng.uniform(0.7, self.walk - 0.4)), rng.uniform(4, 38) + speed * t)
        for _ in range(int(rng.random() * 2.2 + 1.5 * d)):  # over the crossing, ahead of the camera
            s = 1 if rng.random() < 0.5 else -1
            z = self.cross + (self.cross_half + 2.6) * (1 if rng.random() < 0.6 or not self.stops else -1) + rng.uniform(-1, 1)
            x = -s * rng.uniform(0, self.half + 2) + s * rng.uniform(0.9, 1.8) * t
            if np.hypot(x - self.camera[:, 0], z - self.camera[:, 2]).min() > 2.5:
                self._person(x, z + 0.0 * t)
        self._hidden_people(round(2 + 8 * d))
        if rng.random() < 0.45:  # a crowd: nobody in it has an id
            s = 1 if rng.random() < 0.5 else -1
            x0, z0 = s * (self.half + rng.uniform(1.2, self.walk - 0.8)), rng.uniform(14, 40)
            speed = rng.choice([0.0, rng.uniform(-1, 1)])
            for _ in range(int(rng.integers(7, 16))):
                self._person(x0 + rng.normal(0, 0.5), z0 + rng.normal(0, 1.2) + speed * t, track=False)

    def _hidden_people(self, count: int) -> None:
        """People who pass behind something at some moment, seen from the camera, and come out again."""
        rng, t = self.rng, self.time
        if not self.blockers or self.frames < 7:
            return
        discs = np.concatenate([b.discs for b in self.blockers], 1)
        radius = np.concatenate([np.full(b.discs.shape[1], b.radius) for b in self.blockers])
        height = np.concatenate([np.full(b.discs.shape[1], b.height) for b in self.blockers])
        eye, up, yaw = self.camera[:, [0, 2]], self.camera[:, 1], self.camera[:, 3]
        forward, right = np.stack([np.sin(yaw), np.cos(yaw)], 1), np.stack([np.cos(yaw), -np.sin(yaw)], 1)
        view = 0.47 / self.focal
        way = discs - eye[:, None]
        ahead, aside = (way * forward[:, None]).sum(-1), (way * right[:, None]).sum(-1)
        candidates = np.argwhere((ahead > 3) & (ahead < 32) & (np.abs(aside) < view * ahead) & (np.abs(way[..., 0]) > 0.3))
        for when, i in rng.permutation(candidates)[: 80 * count]:
            if count == 0:
                return
            dx, dz = way[when, i]
            lane = np.sign(dx) * (self.half + rng.uniform(0.5, self.walk - 0.3))
            far = (lane - eye[when, 0]) / dx
            if not (1.08 < far < 3.5 and far * ahead[when, i] < 36 and radius[i] * far > 0.3 and 3 < when < self.frames - 3):
                continue
            path = eye[when, 1] + far * dz + rng.uniform(0.7, 1.9) * rng.choice([-1.0, 1.0]) * (t - t[when])
            line = np.stack([lane - eye[:, 0], path - eye[:, 1]], 1)
            along, across = (line * forward).sum(1), (line * right).sum(1)
            length = np.maximum(np.hypot(line[:, 0], line[:, 1]), 0.1)
            at = (way * line[:, None]).sum(-1) / length[:, None]
            off = np.abs(way[..., 0] * line[:, None, 1] - way[..., 1] * line[:, None, 0]) / length[:, None]
            top = up[:, None] + (height - up[:, None]) * length[:, None] / np.maximum(at, 0.5)
            hides = (at > 0.5) & (at < length[:, None]) & (off < radius - 0.1) & (top > 1.65)
            visible = (along > 3) & (along < 38) & (np.abs(across) < view * along) & ~hides.any(1)
            if hides[when].any() and visible[:when].sum() > 1 and visible[when:].sum() > 1:
                self._person(lane, path)
                count -= 1
