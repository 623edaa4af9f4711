"""What moves in a street or is parked there: cars, trucks, buses, trams, two-wheelers, riders, people."""

from __future__ import annotations

import math

import numpy as np

from panoptube.data import street_models as models
from panoptube.data.street_layout import Blocker
from panoptube.data.street_models import Color, Model
from panoptube.data.street_plan import FPS, Array, Plan

PAINTS: tuple[Color, ...] = (
    (0.85, 0.85, 0.86), (0.12, 0.12, 0.13), (0.45, 0.46, 0.48), (0.65, 0.66, 0.68), (0.60, 0.08, 0.08),
    (0.10, 0.18, 0.45), (0.25, 0.27, 0.30), (0.12, 0.30, 0.22), (0.70, 0.60, 0.35), (0.30, 0.45, 0.65),
)  # fmt: skip
CLOTHES: tuple[Color, ...] = (
    (0.10, 0.10, 0.12), (0.15, 0.18, 0.32), (0.75, 0.74, 0.72), (0.62, 0.12, 0.12), (0.35, 0.35, 0.36),
    (0.20, 0.40, 0.30), (0.80, 0.62, 0.20), (0.45, 0.30, 0.20), (0.30, 0.45, 0.65), (0.70, 0.40, 0.50),
)  # fmt: skip


class Actors:
    """Fills the model with things that have track ids, 1 and up, and with crowds, which have none."""

    def __init__(self, plan: Plan, model: Model, blockers: list[Blocker]) -> None:
        self.plan, self.model, self.blockers = plan, model, blockers
        self.track = 0
        self.taken: list[
            tuple[Array, float]
        ] = []  # discs (T, D, 2) and radius of vehicles, so that they don't collide
        self._park()
        self._traffic()
        self._people()

    def _next(self) -> int:
        self.track += 1
        return self.track

    def _free(self, pose: Array, half: float, width: float) -> bool:
        """Whether a vehicle on this path touches no other, nor the camera's car; if so the path is taken."""
        n = max(1, round(half / width))
        offsets = np.linspace(-half + width, half - width, n) if n > 1 else np.zeros(1)
        discs = np.stack(
            [
                pose[:, None, 0] + offsets * np.sin(pose[:, None, 3]),
                pose[:, None, 2] + offsets * np.cos(pose[:, None, 3]),
            ],
            2,
        )
        yaw = self.plan.camera[:, None, 3]
        back = np.array([-0.6, -2.6])
        ego = np.stack(
            [
                self.plan.camera[:, None, 0] + back * np.sin(yaw),
                self.plan.camera[:, None, 2] + back * np.cos(yaw),
            ],
            2,
        )
        for other, radius in [(ego, 1.15), *self.taken]:
            gap = np.linalg.norm(discs[::3, :, None] - other[::3, None], axis=-1)
            if gap.min() < width + radius + 0.1:
                return False
        self.taken.append((discs, width))
        return True

    def _sun_in(self, yaw: float, height: float) -> tuple[float, float]:
        dx, dz = self.plan.sun_offset
        k = min(1.0, 1.5 / max(0.1, math.hypot(dx, dz))) * height * 0.6
        return (dx * math.cos(yaw) - dz * math.sin(yaw)) * k, (dx * math.sin(yaw) + dz * math.cos(yaw)) * k

    def _vehicle(self, kind: str, pose: Array, moving: bool) -> bool:
        """Adds a vehicle on its path if there is room."""
        rng, m = self.plan.rng, self.model
        size = {"car": (2.3, 0.95), "truck": (4.2, 1.25), "bus": (5.8, 1.3), "train": (13.0, 1.3)}[kind]
        long = (
            rng.uniform(6.5, 9.5)
            if kind == "truck"
            else rng.uniform(18, 30)
            if kind == "train"
            else rng.uniform(10.5, 12.5)
        )
        half = {"car": 2.3, "truck": long / 2, "bus": long / 2, "train": long / 2}[kind]
        if not self._free(pose, half + 0.3, size[1]):
            return False
        step = (
            np.hypot(np.gradient(pose[:, 0]), np.gradient(pose[:, 2]))
            if self.plan.frames > 1
            else np.zeros(1)
        )
        slows = np.gradient(step) < -0.002 if self.plan.frames > 1 else np.zeros(1, bool)
        k = m.object(pose, self._next(), brake=(slows | (moving & (step < 0.02))).astype(float))
        paint = PAINTS[int(rng.integers(len(PAINTS)))]
        u = rng.uniform(0.85, 1.15)
        paint = (min(1, paint[0] * u), min(1, paint[1] * u), min(1, paint[2] * u))
        bright: Color = (rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.6), rng.uniform(0.1, 0.6))
        if kind == "car":
            shape = models.car(m, k, int(rng.choice(5, p=[0.25, 0.25, 0.22, 0.13, 0.15])), paint)
        elif kind == "truck":
            cargo = ((0.85, 0.85, 0.84), (0.35, 0.4, 0.5), (0.7, 0.6, 0.4), (0.5, 0.12, 0.1))[
                int(rng.integers(4))
            ]
            shape = models.truck(m, k, paint, cargo, long, float(rng.random() < 0.5))
        else:
            body = (
                (0.85, 0.82, 0.75),
                (0.75, 0.1, 0.1),
                (0.9, 0.75, 0.15),
                (0.2, 0.35, 0.6),
                (0.3, 0.55, 0.35),
            )[int(rng.integers(5))]
            shape = models.coach(
                m, k, kind, body, bright, long, 3.1 if kind == "bus" else 3.4, int(rng.integers(9999))
            )
        half, wide, height = shape
        m.shadow(k, wide, -half, half, self.plan.shadow_strength, self._sun_in(float(pose[0, 3]), height))
        self.blockers.append(Blocker(self.taken[-1][0], wide, height))
        return True

    def _park(self) -> None:
        rng = self.plan.rng
        dense = 0.4 + 0.35 * self.plan.difficulty + rng.uniform(-0.2, 0.2)
        for s in (-1, 1):
            if not self.plan.parking[0 if s < 0 else 1]:
                continue
            for z0, z1 in self.plan.stretches(5.5):
                z = max(z0, -6.0) + rng.uniform(2, 6)
                while z < min(z1 - 3, 75):
                    kind = str(rng.choice(["car", "truck"], p=[0.93, 0.07]))
                    if kind == "truck":
                        z += 2.5
                    if rng.random() < dense:
                        yaw = (0.0 if s > 0 else math.pi) + rng.normal(0, 0.03)
                        if rng.random() < 0.15:
                            yaw += math.pi
                        self._vehicle(
                            kind,
                            self.plan.still(s * (self.plan.half - 1.15) + rng.normal(0, 0.08), z, yaw),
                            False,
                        )
                    z += rng.uniform(5.2, 6.6) + (3.0 if kind == "truck" else 0.0)
        for c in self.plan.crosses:
            for s in (-1, 1):
                for sx in (-1, 1):
                    for x in np.arange(self.plan.half + 8, 40, 6.2):
                        if rng.random() < 0.45 * dense and self.plan.cross_half > 5.2:
                            self._vehicle(
                                "car",
                                self.plan.still(
                                    sx * x, c + s * (self.plan.cross_half - 1.1), math.pi / 2 * s
                                ),
                                False,
                            )

    def _path(self, x: Array | float, z: Array | float, yaw: float) -> Array:
        pose = np.zeros((self.plan.frames, 5))
        pose[:, 0], pose[:, 2], pose[:, 3], pose[:, 4] = x, z, yaw, 1.0
        return pose

    def _ride(self, speed: float) -> Array:
        """Distance driven at each frame, with a little acceleration or braking."""
        rng, t = self.plan.rng, self.plan.time
        d = speed * t + 0.5 * rng.uniform(-0.8, 0.8) * t * t * min(1.0, speed / 6)
        return np.asarray(np.maximum.accumulate(d))

    def _traffic(self) -> None:
        rng, d = self.plan.rng, self.plan.difficulty
        if self.plan.tramway:
            ahead = rng.random() < 0.35 and self.plan.lane > 3
            x = 1.75 if ahead else -1.75
            z = rng.uniform(18, 30) + 10 if ahead else rng.uniform(28, 60)
            go = self._ride(rng.uniform(3, 9))
            self._vehicle(
                "train", self._path(x, z + go if ahead else z - go, 0.0 if ahead else math.pi), True
            )
        kinds, odds = ["car", "truck", "bus"], [0.80, 0.11, 0.09]
        if rng.random() < 0.55 and not self.plan.turns and not self.plan.stops:  # ahead in the same lane
            kind = str(rng.choice(kinds, p=[0.84, 0.08, 0.08]))
            speed = float(np.mean(np.gradient(self.plan.camera[:, 2]))) * FPS if self.plan.frames > 1 else 5.0
            gap = rng.uniform(9, 24) + (4 if kind != "car" else 0)
            self._vehicle(
                kind, self._path(self.plan.lane, gap + self._ride(speed * rng.uniform(0.9, 1.2)), 0.0), True
            )
        if self.plan.lanes == 2:
            other = 5.2 if self.plan.lane < 3 else 1.75
            for z in np.arange(rng.uniform(3, 9), 50, rng.uniform(11, 20)):
                if rng.random() < 0.55:
                    self._vehicle(
                        str(rng.choice(kinds, p=odds)),
                        self._path(other, z + self._ride(rng.uniform(2, 12)), 0.0),
                        True,
                    )
        for x in [-1.75, -5.2][: self.plan.lanes]:
            jam = rng.random() < 0.15 + 0.25 * d
            speed = rng.uniform(0, 2.5) if jam else rng.uniform(5, 11)
            go = self._ride(speed)
            z = rng.uniform(8, 20)
            for _ in range(int(rng.integers(1, 5)) + 2 * jam):
                self._vehicle(
                    str(rng.choice(kinds, p=odds)), self._path(x + rng.normal(0, 0.1), z - go, math.pi), True
                )
                z += rng.uniform(7, 12) if jam else rng.uniform(9, 26)
        for c in self.plan.crosses[:1]:  # across
            for s in (-1, 1):
                if rng.random() < 0.6:
                    speed = rng.uniform(4, 9)
                    x = -s * rng.uniform(4, 28)
                    kind = str(rng.choice(kinds, p=odds))
                    self._vehicle(
                        kind, self._path(x + s * self._ride(speed), c - s * 2.0, s * math.pi / 2), True
                    )
        if rng.random() < 0.2:  # bus at its stop
            self._vehicle(
                "bus",
                self._path(self.plan.half - 1.3, rng.uniform(12, 40) + self._ride(rng.uniform(0, 3)), 0.0),
                True,
            )
        for name, odds_of in (("bicycle", 0.9 + 0.8 * d), ("motorcycle", 0.5 + 0.5 * d)):
            for _ in range(int(odds_of + rng.random())):
                self._rider(name)
        self._bike_racks()

    def _two_wheels(self, name: str, pose: Array, ridden: bool, track: bool = True) -> None:
        """Adds a bicycle or motorcycle, with its rider as a track of its own if it is ridden."""
        rng, m = self.plan.rng, self.model
        facing = self.plan.facing(pose[:, 0], pose[:, 2])
        across = np.sin(pose[:, 3] - facing[:, 3])
        # seen from behind or ahead it is narrow; the side it points to is kept, so that its flow is smooth
        side = 1.0 if float(np.mean(across)) >= 0 else -1.0
        facing[:, 4] = side * np.clip(side * across, 0.28, 1.0)
        color = PAINTS[int(rng.integers(len(PAINTS)))]
        k = m.object(facing, self._next() if track else 0)
        models.two_wheeler(m, k, name, color)
        m.shadow(k, 0.9, -0.35, 0.35, 0.3, (0.0, 0.0))
        if ridden:
            seat = facing.copy()
            seat[:, 4] = side * np.clip(side * across, 0.5, 1.0)
            step = (
                np.hypot(np.gradient(pose[:, 0]), np.gradient(pose[:, 2]))
                if self.plan.frames > 1
                else np.zeros(1)
            )
            phase = rng.uniform(0, 6.28) + np.cumsum(step) * 1.6
            models.rider(m, m.object(seat, self._next(), anim=phase), self._look(), name == "motorcycle")

    def _rider(self, name: str) -> None:
        rng = self.plan.rng
        speed = rng.uniform(2.5, 5.5) if name == "bicycle" else rng.uniform(4, 11)
        go = self._ride(speed)
        where = rng.random()
        if where < 0.5:  # along, ahead of the camera
            near = self.plan.half - 2.9 if self.plan.lane > 3 or not self.plan.wide else 3.5
            pose = self._path(near + 0.3 + rng.uniform(0, 0.4), rng.uniform(7, 22) + go, 0.0)
        elif where < 0.8:  # towards the camera
            pose = self._path(
                -self.plan.half + 2.6 + rng.uniform(-0.3, 0.3), rng.uniform(16, 42) - go, math.pi
            )
        else:  # across
            s = 1 if rng.random() < 0.5 else -1
            pose = self._path(
                -s * rng.uniform(2, 14) + s * go,
                self.plan.crosses[0] - s * 3.2 + rng.uniform(-0.5, 0.5),
                s * math.pi / 2,
            )
        if self._free(pose, 0.9, 0.4):
            self._two_wheels(name, pose, True)

    def _bike_racks(self) -> None:
        rng = self.plan.rng
        for s in (-1, 1):
            for name in ("bicycle", "motorcycle"):
                if rng.random() < (0.4 if name == "bicycle" else 0.3):
                    z = rng.uniform(8, 40)
                    crowd = rng.random() < 0.3
                    for i in range(int(rng.integers(1, 4)) + 3 * crowd):
                        x = s * (self.plan.half + 0.9)
                        yaw = s * math.pi / 2 + rng.normal(0, 0.15)
                        self._two_wheels(
                            name, self._path(x, z + (0.55 if crowd else 2.3) * i, yaw), False, track=not crowd
                        )

    def _look(self) -> list[float]:
        rng = self.plan.rng
        top, low = CLOTHES[int(rng.integers(len(CLOTHES)))], CLOTHES[int(rng.integers(len(CLOTHES)))]
        height = rng.uniform(1.58, 1.88) if rng.random() < 0.88 else rng.uniform(1.1, 1.4)
        k = rng.uniform(0.7, 1.15)
        return [
            height, 1.0, rng.random(), *(min(1.0, c * k) for c in top), *(c * 0.8 for c in low),
            rng.uniform(0.35, 0.9), rng.uniform(0.05, 0.5),
        ]  # fmt: skip

    def _person(self, x: Array | float, z: Array | float, track: bool = True) -> None:
        """Adds a person who walks along this path."""
        rng, m = self.plan.rng, self.model
        pose = self.plan.facing(x, z)
        if self.plan.frames > 1:
            vx, vz = np.gradient(pose[:, 0]), np.gradient(pose[:, 2])
        else:
            vx = vz = np.zeros(1)
        step = np.hypot(vx, vz)
        across = np.where(
            step > 1e-3, vx * np.cos(pose[:, 3]) - vz * np.sin(pose[:, 3]), 0.7 * np.ones_like(step)
        )
        across = across / np.maximum(step, 1e-3)
        side = 1.0 if float(np.mean(across)) >= 0 else -1.0
        pose[:, 4] = side * np.clip(side * across, 0.62, 1.0)
        look = self._look()
        moves = float(step.mean()) > 0.01
        look[1] = 1.0 if moves else 0.12
        phase = rng.uniform(0, 6.28) + (np.cumsum(step) / (0.42 * look[0]) * math.pi if moves else 0.0)
        k = m.object(pose, self._next() if track else 0, anim=phase * np.ones(self.plan.frames))
        models.person(m, k, look)
        m.shadow(k, 0.25, -0.2, 0.2, 0.4, (0.0, 0.0))

    def _people(self) -> None:
        rng, d, t = self.plan.rng, self.plan.difficulty, self.plan.time
        for _ in range(round(rng.uniform(2, 6) + 4 * d)):  # along the pavements
            s = 1 if rng.random() < 0.5 else -1
            speed = (
                rng.choice([0.0, 1.0], p=[0.2, 0.8])
                * rng.uniform(0.9, 1.9)
                * (1 if rng.random() < 0.5 else -1)
            )
            self._person(
                s * (self.plan.half + rng.uniform(0.7, self.plan.walk - 0.4)), rng.uniform(4, 32) + speed * t
            )
        for _ in range(int(rng.random() * 2.2 + 1.5 * d)):  # over the crossing, ahead of the camera
            s = 1 if rng.random() < 0.5 else -1
            z = (
                self.plan.cross
                + (self.plan.cross_half + 2.6) * (1 if rng.random() < 0.6 or not self.plan.stops else -1)
                + rng.uniform(-1, 1)
            )
            x = -s * rng.uniform(0, self.plan.half + 2) + s * rng.uniform(0.9, 1.8) * t
            if np.hypot(x - self.plan.camera[:, 0], z - self.plan.camera[:, 2]).min() > 2.5:
                self._person(x, z + 0.0 * t)
        self._hidden_people(round(4 + 10 * d))
        if rng.random() < 0.45:  # a crowd: nobody in it has an id
            s = 1 if rng.random() < 0.5 else -1
            x0, z0 = s * (self.plan.half + rng.uniform(1.2, self.plan.walk - 0.8)), rng.uniform(14, 40)
            speed = rng.choice([0.0, rng.uniform(-1, 1)])
            for _ in range(int(rng.integers(7, 16))):
                self._person(x0 + rng.normal(0, 0.5), z0 + rng.normal(0, 1.2) + speed * t, track=False)

    def _hidden_people(self, count: int) -> None:
        """People who pass behind something at some moment, seen from the camera, and come out again."""
        rng, t = self.plan.rng, self.plan.time
        if not self.blockers or self.plan.frames < 7:
            return
        discs = np.concatenate([b.discs for b in self.blockers], 1)
        radius = np.concatenate([np.full(b.discs.shape[1], b.radius) for b in self.blockers])
        height = np.concatenate([np.full(b.discs.shape[1], b.height) for b in self.blockers])
        eye, up, yaw = self.plan.camera[:, [0, 2]], self.plan.camera[:, 1], self.plan.camera[:, 3]
        forward, right = np.stack([np.sin(yaw), np.cos(yaw)], 1), np.stack([np.cos(yaw), -np.sin(yaw)], 1)
        view = 0.47 / self.plan.focal
        way = discs - eye[:, None]
        ahead, aside = (way * forward[:, None]).sum(-1), (way * right[:, None]).sum(-1)
        # how many times farther than the blocker the inner and the outer edge of the pavement are
        with np.errstate(divide="ignore", invalid="ignore"):  # straight ahead; dropped below
            inner, outer = (
                (np.sign(way[..., 0]) * (self.plan.half + x) - eye[:, None, 0]) / way[..., 0]
                for x in (0.5, self.plan.walk - 0.3)
            )
        candidates = np.argwhere(
            (ahead > 3)
            & (ahead < 40)
            & (np.abs(aside) < view * ahead)
            & (np.abs(way[..., 0]) > 0.3)
            & (inner < 3.5)
            & (outer > 1.08)
            & (outer * radius > 0.3)
        )
        for when, i in rng.permutation(np.repeat(candidates, 4, 0))[: 100 * count]:
            if count == 0:
                return
            dx, dz = way[when, i]
            lane = np.sign(dx) * (self.plan.half + rng.uniform(0.5, self.plan.walk - 0.3))
            far = (lane - eye[when, 0]) / dx
            if not (
                1.08 < far < 3.5
                and far * ahead[when, i] < 46
                and radius[i] * far > 0.3
                and 3 < when < self.plan.frames - 3
            ):
                continue
            path = eye[when, 1] + far * dz + rng.uniform(0.7, 1.9) * rng.choice([-1.0, 1.0]) * (t - t[when])
            line = np.stack([lane - eye[:, 0], path - eye[:, 1]], 1)
            along, across = (line * forward).sum(1), (line * right).sum(1)
            length = np.maximum(np.hypot(line[:, 0], line[:, 1]), 0.1)
            at = (way * line[:, None]).sum(-1) / length[:, None]
            off = np.abs(way[..., 0] * line[:, None, 1] - way[..., 1] * line[:, None, 0]) / length[:, None]
            top = up[:, None] + (height - up[:, None]) * length[:, None] / np.maximum(at, 0.5)
            hides = (at > 0.5) & (at < length[:, None]) & (off < radius - 0.1) & (top > 1.65)
            visible = (along > 3) & (along < 50) & (np.abs(across) < view * along) & ~hides.any(1)
            if hides[when].any() and visible[:when].sum() > 1 and visible[when:].sum() > 1:
                self._person(lane, path)
                count -= 1
