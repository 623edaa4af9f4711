"""What a street is like and how the camera drives through it: widths, crossings, path, weather."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from panoptube.data.street_shade import (
    AMBIENT,
    CLOUDS,
    DRIFT,
    DUSK,
    HAZE,
    HAZE_R,
    SEED,
    SUN,
    SUN_X,
    SUN_Y,
    SUN_Z,
    TOP_R,
    WET,
)  # fmt: skip

FPS = 10.0
Z_RANGE = (-25.0, 160.0)
"""Ends of the main street, metres."""

BORDERS = ("wall", "fence", "hedge", "open")
"""What stands between a garden and the pavement."""

Array = NDArray[np.float64]


class Plan:
    """One street before anything stands on it. The main street runs along z at x = 0; one keeps to the right.

    Attributes:
        rng: what everything else of the street is drawn from, in a fixed order.
        half, walk, edge: half the road's width, the pavement's width, where the plots begin (|x|), metres.
        verge: width of the grass between road and pavement, part of `walk`, metres; 0 = none.
        green, border: share of plots with a garden and what mostly stands before it, left and right.
        lanes, lane: lanes per direction; x of the camera's lane.
        crosses, cross, cross_half: z of the crossings and of the first; half the width of the roads across.
        camera: (T, 6) x, y, z in metres, heading, pitch (up), roll in radians.
        focal: focal length as a share of the picture's width.
        light: (T, 17), see street_shade.
        rain, blur, noise: strength of streaks, sigma of the lens in pixels at 512 wide, sigma of the noise.
        bonnet: height of the visible bonnet of the camera's car as a share of the picture; 0 = none.
        sun_offset: where the shadow of a point 1 m high falls, (x, z) metres.
    """

    def __init__(self, seed: int, frames: int, difficulty: float) -> None:
        self.frames, self.difficulty = frames, difficulty
        self.rng = np.random.default_rng([seed, 20210619])
        self.time = np.arange(frames) / FPS
        self._streets()
        self._weather()
        self._drive()

    def _streets(self) -> None:
        rng = self.rng
        self.wide = rng.random() < 0.22
        self.parking = rng.random(2) < 0.55
        self.lanes = 2 if self.wide else 1
        driven = 7.0 if self.wide else rng.uniform(3.0, 3.6)
        self.half = driven + 2.2 * float(self.parking.any())  # the parking strip belongs to the road
        self.verge = rng.uniform(1.0, 2.5) if rng.random() < 0.45 else 0.0
        self.walk = rng.uniform(3.2, 6.5) + 0.6 * self.verge
        self.edge = self.half + self.walk
        self.lane = 1.75 if not self.wide or rng.random() < 0.4 else 5.2
        self.cross_half = rng.uniform(4.5, 6.5)
        self.cross = rng.uniform(18, 42) if rng.random() < 0.6 else rng.uniform(42, 65)
        self.crosses = [self.cross, self.cross + rng.uniform(55, 75)]
        self.avenue = rng.random() < 0.35
        self.tramway = rng.random() < 0.32
        self.median = self.wide and not self.tramway and rng.random() < 0.3
        self.green = rng.uniform(0.2, 1.2, 2)  # share of plots without a house, left and right
        self.border = rng.choice(BORDERS, 2, p=[0.39, 0.39, 0.08, 0.14])

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
        wave = [
            sum(np.sin(rng.uniform(3, 25) * t + rng.uniform(0, 6.28)) for _ in range(3)) for _ in range(4)
        ]
        camera = np.zeros((len(t), 6))
        camera[:, 0], camera[:, 2] = x, z
        camera[:, 1] = rng.uniform(1.22, 1.8) + 0.01 * wave[3]
        camera[:, 3] = yaw + 0.5 * shake * wave[0]
        camera[:, 4] = rng.uniform(-0.05, 0.02) + shake * wave[1]
        camera[:, 5] = rng.normal(0, 0.006) + 0.6 * shake * wave[2]
        self.camera = camera
        self.focal = rng.uniform(0.9, 1.2)  # Cityscapes: 2262 pixels of 2048
        self.bonnet = rng.uniform(0.05, 0.11) if rng.random() < 0.22 else 0.0

    def _weather(self) -> None:
        rng, t = self.rng, self.time
        kind = rng.choice(["sun", "cloud", "rain", "dusk"], p=[0.42, 0.30, 0.14, 0.14])
        light = np.zeros((self.frames, 17))
        a, e = rng.uniform(0, 6.28), rng.uniform(0.45, 1.1)
        light[:, SUN_X], light[:, SUN_Y], light[:, SUN_Z] = (
            math.cos(a) * math.cos(e),
            math.sin(e),
            math.sin(a) * math.cos(e),
        )
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
        light[:, DUSK] = (
            rng.uniform(0.6, 1.0)
            if kind == "dusk"
            else (0.35 if kind == "rain" and rng.random() < 0.4 else 0)
        )
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
        self.noise = float(
            rng.uniform(0.004, 0.008 + 0.018 * self.difficulty) * (1.6 if kind == "dusk" else 1)
        )
        self.exposure = (
            1 + 0.08 * self.difficulty * np.sin(rng.uniform(0.5, 3) * t + rng.uniform(0, 6.28))
        ) * rng.uniform(0.9, 1.1)
        self.tint = 1 + rng.normal(0, 0.03, 3)
        self.shadow_strength = float(np.clip(sun * 0.85, 0.05, 0.55))
        self.sun_offset = (-light[0, SUN_X] / light[0, SUN_Y], -light[0, SUN_Z] / light[0, SUN_Y])

    def stretches(self, margin: float) -> list[tuple[float, float]]:
        """Parts of the main street between crossings, as (z0, z1)."""
        cuts = [
            Z_RANGE[0],
            *(v for c in self.crosses for v in (c - self.cross_half - margin, c + self.cross_half + margin)),
            Z_RANGE[1],
        ]
        return [(a, b) for a, b in zip(cuts[::2], cuts[1::2]) if b - a > 4]

    def facing(self, x: Array | float, z: Array | float, y: float = 0.0, width: Array | float = 1.0) -> Array:
        """Poses (T, 5) that face the camera."""
        pose = np.zeros((self.frames, 5))
        pose[:, 0], pose[:, 1], pose[:, 2], pose[:, 4] = x, y, z, width
        pose[:, 3] = np.arctan2(pose[:, 0] - self.camera[:, 0], pose[:, 2] - self.camera[:, 2])
        return pose

    def still(self, x: float, z: float, yaw: float) -> Array:
        return np.tile([x, 0.0, z, yaw, 1.0], (self.frames, 1))
