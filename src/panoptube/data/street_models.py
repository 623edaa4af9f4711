"""What stands and moves in a street, as flat polygons: vehicles, people, trees, poles, houses.

Object axes: x to the right, y up, z forward, metres, origin on the ground below the middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from panoptube.data import street_shapes as shapes
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.panoptic.frame import VOID

Point = tuple[float, float, float]
Color = tuple[float, float, float]
CLASS = {name: label for label, name in enumerate(CITYSCAPES.names)} | {"void": VOID}


@dataclass
class Model:
    """Polygons and objects, collected one by one. Object 0 is the world: fixed, in world axes.

    Attributes:
        frames: number of frames; each object has a pose per frame.
        poses: per object (T, 5): x, y, z, heading (0 = along +z, positive turns right), width factor.
        tracks: per object its track id, 0 for none.
        anims, brakes: per object (T,): phase of its limbs or state of a traffic light; brake lights, 0 or 1.
    """

    frames: int
    poses: list[NDArray[np.float64]] = field(default_factory=list)
    tracks: list[int] = field(default_factory=list)
    anims: list[NDArray[np.float64]] = field(default_factory=list)
    brakes: list[NDArray[np.float64]] = field(default_factory=list)
    verts: list[list[Point]] = field(default_factory=list)
    objs: list[int] = field(default_factory=list)
    mats: list[int] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    pars: list[list[float]] = field(default_factory=list)
    colors: list[Color] = field(default_factory=list)
    axes: list[tuple[Point, Point, Point]] = field(default_factory=list)
    flats: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.object(np.tile([0.0, 0, 0, 0, 1], (self.frames, 1)))

    def object(
        self,
        pose: NDArray[np.float64],
        track: int = 0,
        anim: NDArray[np.float64] | None = None,
        brake: NDArray[np.float64] | None = None,
    ) -> int:
        """Adds an object with a pose (T, 5) per frame and returns its number."""
        zero = np.zeros(self.frames)
        self.poses.append(pose)
        self.tracks.append(track)
        self.anims.append(zero if anim is None else anim)
        self.brakes.append(zero if brake is None else brake)
        return len(self.poses) - 1

    def face(
        self,
        obj: int,
        name: str,
        mat: int,
        corners: Sequence[Point],
        color: Color,
        par: Sequence[float] = (),
        both: bool = False,
    ) -> None:
        """Adds a flat convex polygon of up to six corners.

        Its first corner is the origin of its picture coordinates, u runs to the second, v is upright to u on
        the side of the last; who sees the front sees u run right and v run up.
        """
        o, b, d = corners[0], corners[1], corners[-1]
        u = (b[0] - o[0], b[1] - o[1], b[2] - o[2])
        n = math.sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2])
        u = (u[0] / n, u[1] / n, u[2] / n)
        v = (d[0] - o[0], d[1] - o[1], d[2] - o[2])
        k = v[0] * u[0] + v[1] * u[1] + v[2] * u[2]
        v = (v[0] - k * u[0], v[1] - k * u[1], v[2] - k * u[2])
        n = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
        v = (v[0] / n, v[1] / n, v[2] / n)
        self._add(obj, name, mat, list(corners), (o, u, v), color, par, both)

    def cutout(
        self, obj: int, name: str, mat: int, box: tuple[float, float, float, float], color: Color,
        par: Sequence[float] = (), z: float = 0.0, corner: bool = False,
    ) -> None:  # fmt: skip
        """Adds a rectangle (x0, y0, x1, y1) in the object's x-y plane; u, v are x, y, or from its corner."""
        x0, y0, x1, y1 = box
        corners = [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]
        origin = (x0, y0, z) if corner else (0.0, 0.0, z)
        self._add(obj, name, mat, corners, (origin, (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), color, par, True)

    def _add(
        self, obj: int, name: str, mat: int, corners: list[Point], axes: tuple[Point, Point, Point],
        color: Color, par: Sequence[float], both: bool,
    ) -> None:  # fmt: skip
        self.verts.append(corners)
        self.objs.append(obj)
        self.mats.append(mat)
        self.classes.append(CLASS[name])
        self.pars.append([*par, *([0.0] * (12 - len(par)))])
        self.colors.append(color)
        self.axes.append(axes)
        self.flats.append(both)

    def prism(
        self, obj: int, name: str, color: Color, z: tuple[float, float, float, float], y: tuple[float, float],
        half: tuple[float, float], mats: tuple[int, int, int, int], par: Sequence[float] = (0.0,),
    ) -> None:  # fmt: skip
        """Adds a body with slanted sides: z of rear and front at the bottom, then at the top; y; half widths.

        mats: side, front, rear, roof. Parameters of each face: width, height, then par.
        """
        z0, z1, z2, z3 = z
        y0, y1 = y
        a, b = half
        h = y1 - y0
        side, front, rear, roof = mats
        length, extra = z1 - z0, list(par)
        self.face(
            obj,
            name,
            side,
            [(-a, y0, z1), (-a, y0, z0), (-b, y1, z2), (-b, y1, z3)],
            color,
            [length, h, *extra],
        )
        self.face(
            obj, name, side, [(a, y0, z0), (a, y0, z1), (b, y1, z3), (b, y1, z2)], color, [length, h, *extra]
        )
        self.face(
            obj,
            name,
            front,
            [(a, y0, z1), (-a, y0, z1), (-b, y1, z3), (b, y1, z3)],
            color,
            [2 * a, h, *extra],
        )
        self.face(
            obj, name, rear, [(-a, y0, z0), (a, y0, z0), (b, y1, z2), (-b, y1, z2)], color, [2 * a, h, *extra]
        )
        self.face(
            obj, name, roof, [(-b, y1, z2), (b, y1, z2), (b, y1, z3), (-b, y1, z3)], color, [2 * b, 1.0]
        )

    def wheels(self, obj: int, name: str, half: float, radius: float, at: Sequence[float]) -> None:
        """Adds wheels on both sides of a vehicle, and the dark below its body."""
        d = 2 * radius
        for z in at:
            for x, s in ((half + 0.01, 1), (-half - 0.01, -1)):
                corners = [
                    (x, 0.0, z - s * radius),
                    (x, 0.0, z + s * radius),
                    (x, d, z + s * radius),
                    (x, d, z - s * radius),
                ]
                self.face(obj, name, shapes.WHEEL, corners, (0.1, 0.1, 0.1), [radius])

    def under(self, obj: int, name: str, half: float, z0: float, z1: float, y: float) -> None:
        dark = (0.05, 0.05, 0.055)
        self.prism(obj, name, dark, (z0, z1, z0, z1), (0.12, y), (half, half), (shapes.PLAIN,) * 4)

    def shadow(
        self, obj: int, half: float, z0: float, z1: float, strength: float, sun: tuple[float, float]
    ) -> None:
        """Adds the shadow on the ground: below the object, and away from the sun (in object axes)."""
        for x, z, s, soft in ((0.0, 0.0, 0.75, 0.35), (sun[0], sun[1], strength, 0.3)):
            x0, x1 = min(-half, -half + x) - 0.1, max(half, half + x) + 0.1
            a, b = min(z0, z0 + z) - 0.1, max(z1, z1 + z) + 0.1
            corners = [(x0, 0.0, a), (x1, 0.0, a), (x1, 0.0, b), (x0, 0.0, b)]
            self.face(obj, "void", shapes.SHADOW, corners, (0, 0, 0), [x1 - x0, b - a, s, soft], both=True)


CAR_KINDS = (
    # length, width, height, belt, hood, cabin rear, cabin front, slant
    (4.4, 1.80, 1.48, 0.92, 1.15, -1.75, 0.95, 0.55),  # saloon
    (3.9, 1.74, 1.50, 0.92, 0.90, -1.90, 0.95, 0.50),  # hatchback
    (4.7, 1.90, 1.75, 1.05, 1.05, -2.25, 1.15, 0.45),  # SUV
    (4.6, 1.80, 1.50, 0.92, 1.05, -2.20, 1.05, 0.60),  # estate
    (5.2, 1.95, 2.15, 1.15, 0.75, -2.55, 1.85, 0.55),  # van
)


def car(m: Model, obj: int, kind: int, color: Color) -> tuple[float, float, float]:
    """Adds a car and returns its half length, half width, height."""
    length, width, height, belt, _, back, front, slant = CAR_KINDS[kind]
    a, h = width / 2, length / 2
    m.under(obj, "car", a - 0.12, -h + 0.25, h - 0.25, 0.35)
    m.prism(
        obj,
        "car",
        color,
        (-h, h, -h + 0.12, h - 0.35),
        (0.26, belt),
        (a, a - 0.05),
        (shapes.BODY, shapes.FRONT, shapes.REAR, shapes.BODY),
        [1.0],
    )
    m.prism(
        obj, "car", color, (back, front, back + 0.35 * (kind not in (1, 2, 3)) + 0.12, front - slant - 0.15),
        (belt, height), (a - 0.07, a - 0.25), (shapes.GLASS, shapes.GLASS, shapes.GLASS, shapes.PLAIN), [1.0],
    )  # fmt: skip
    m.wheels(obj, "car", a, 0.33, (-h + 0.78, h - 0.82))
    return h, a, height


def truck(
    m: Model, obj: int, color: Color, cargo: Color, length: float, mark: float
) -> tuple[float, float, float]:
    """A truck of `length` metres; returns half its length, half its width and its height in metres."""
    h, a, cab = length / 2, 1.22, 2.0
    m.under(obj, "truck", a - 0.2, -h + 0.2, h - 0.2, 0.6)
    m.prism(
        obj,
        "truck",
        color,
        (h - cab, h, h - cab, h - 0.05),
        (0.5, 1.5),
        (a, a),
        (shapes.BODY, shapes.FRONT, shapes.PLAIN, shapes.PLAIN),
        [0.0],
    )
    m.prism(
        obj,
        "truck",
        color,
        (h - cab, h - 0.05, h - cab, h - 0.35),
        (1.5, 2.4),
        (a, a - 0.08),
        (shapes.GLASS, shapes.GLASS, shapes.PLAIN, shapes.PLAIN),
    )
    box = (-h, h - cab - 0.15)
    m.prism(
        obj, "truck", cargo, (box[0], box[1], box[0], box[1]), (0.75, 3.2), (a + 0.03, a + 0.03),
        (shapes.CARGO, shapes.PLAIN, shapes.CARGO, shapes.PLAIN), [length, mark],
    )  # fmt: skip
    m.prism(
        obj,
        "truck",
        (0.2, 0.2, 0.22),
        (-h, h - cab, -h, h - cab),
        (0.45, 0.75),
        (a, a),
        (shapes.PLAIN, shapes.PLAIN, shapes.REAR, shapes.PLAIN),
    )
    m.wheels(obj, "truck", a, 0.46, (-h + 1.1, h - 1.0, *((-h + 2.2,) if length > 8 else ())))
    return h, a, 3.2


def coach(
    m: Model, obj: int, name: str, color: Color, stripe: Color, length: float, height: float, seed: int
) -> tuple[float, float, float]:
    """Adds a bus, or the wagons of a tram."""
    tram = name == "train"
    h, a = length / 2, 1.27
    wagons = max(1, round(length / 9)) if tram else 1
    step = length / wagons
    for i in range(wagons):
        z0, z1 = -h + i * step + (0.2 if i else 0.0), -h + (i + 1) * step - (0.2 if i < wagons - 1 else 0.0)
        first, last = i == wagons - 1, i == 0
        slant = 0.35 if tram else 0.1
        m.prism(
            obj, name, color, (z0, z1, z0 + slant * last, z1 - slant * first), (0.3, height), (a, a - 0.05),
            (shapes.COACH, shapes.COACH, shapes.COACH, shapes.ROOF),
            [1.15, 2.25, 1.5, float(tram), seed + i, *stripe],
        )  # fmt: skip
        if i < wagons - 1:
            m.prism(
                obj,
                name,
                (0.12, 0.12, 0.12),
                (z1, z1 + 0.4, z1, z1 + 0.4),
                (0.4, height - 0.15),
                (a - 0.15, a - 0.15),
                (shapes.PLAIN,) * 4,
            )
    for s, z, lamp in ((-1, h + 0.02, (0.95, 0.95, 0.85)), (1, -h - 0.02, (0.6, 0.05, 0.05))):
        for x in (-0.95, 0.75):
            corners = [(s * x, 0.6, z), (s * (x + 0.2), 0.6, z), (s * (x + 0.2), 0.8, z), (s * x, 0.8, z)]
            m.face(obj, name, shapes.PLAIN, corners, lamp)
    if tram:
        m.under(obj, name, a - 0.1, -h + 0.5, h - 0.5, 0.32)
        m.prism(
            obj,
            name,
            (0.25, 0.25, 0.27),
            (-1.5, 1.5, -1.2, 1.2),
            (height, height + 0.3),
            (0.7, 0.6),
            (shapes.PLAIN,) * 4,
        )
    else:
        m.wheels(obj, name, a, 0.48, (-h + 2.6, h - 2.4))
    return h, a, height


def person(m: Model, obj: int, look: Sequence[float], name: str = "person") -> None:
    """look: height, swing, kind, top rgb, trousers rgb, skin, hair."""
    h = look[0]
    m.cutout(obj, name, shapes.PERSON, (-0.34 * h, 0.0, 0.34 * h, h), (0.5, 0.5, 0.5), look)


def rider(m: Model, obj: int, look: Sequence[float], motor: bool) -> None:
    """A person on a bicycle or, if `motor`, a motorcycle; without the vehicle, which is `two_wheeler`."""
    scale = look[0] / 1.75
    m.cutout(
        obj,
        "rider",
        shapes.RIDER,
        (-0.55, 0.1, 0.7, 1.9 * scale),
        (0.5, 0.5, 0.5),
        [scale, float(motor), *look[2:]],
        z=-0.06,
    )


def two_wheeler(m: Model, obj: int, name: str, color: Color) -> None:
    """A "bicycle" or "motorcycle" (`name`), without its rider."""
    mat = shapes.BICYCLE if name == "bicycle" else shapes.MOTORCYCLE
    m.cutout(obj, name, mat, (-1.1, 0.0, 1.1, 1.2), color)


def tree(m: Model, obj: int, rng: np.random.Generator, height: float, green: Color) -> None:
    """A tree of `height` metres, its trunk at the origin; its crown is drawn from `rng`."""
    trunk = 0.09 + 0.018 * height
    m.cutout(
        obj,
        "vegetation",
        shapes.POLE,
        (-trunk, 0.0, trunk, 0.55 * height),
        (0.30, 0.24, 0.18),
        [2 * trunk],
        corner=True,
    )
    for i in range(int(rng.integers(3, 6))):
        a = height * rng.uniform(0.20, 0.32)
        x, y = height * rng.uniform(-0.2, 0.2), height * rng.uniform(0.52, 0.84)
        if i == 0:
            x, y, a = 0.0, 0.68 * height, 0.33 * height
        b = a * rng.uniform(0.75, 1.1)
        k = rng.uniform(0.8, 1.15)
        box = (x - a, max(y - b, 1.9), x + a, max(y - b, 1.9) + 2 * b)
        par = [a, b, float(rng.integers(9999)), rng.uniform(0.6, 1.0), rng.uniform(-1, 1)]
        m.cutout(
            obj,
            "vegetation",
            shapes.FOLIAGE,
            box,
            (green[0] * k, green[1] * k, green[2] * k),
            par,
            z=0.3 * i - 0.6,
            corner=True,
        )


def pole(m: Model, obj: int, height: float, width: float, color: Color) -> None:
    """A pole; height and width in metres."""
    m.cutout(obj, "pole", shapes.POLE, (-width / 2, 0.0, width / 2, height), color, [width], corner=True)


def sign(m: Model, obj: int, y: float, half: tuple[float, float], shape: int, kind: int) -> None:
    """A board whose front looks against the object's heading."""
    a, b = half
    corners = [(-a, y, -0.08), (a, y, -0.08), (a, y + 2 * b, -0.08), (-a, y + 2 * b, -0.08)]
    m.face(
        obj,
        "traffic sign",
        shapes.SIGN,
        corners,
        (0.6, 0.6, 0.6),
        [a, b, float(shape), float(kind)],
        both=True,
    )


def light_box(m: Model, obj: int, x: float, y: float, z: float) -> None:
    """A traffic light's box, its lower edge at (x, y, z) metres, its lamps towards -z."""
    a, h = 0.2, 1.05
    front = [(x - a, y, z - 0.2), (x + a, y, z - 0.2), (x + a, y + h, z - 0.2), (x - a, y + h, z - 0.2)]
    m.face(obj, "traffic light", shapes.LIGHT, front, (0.1, 0.1, 0.1), [2 * a, h])
    dark = (0.09, 0.1, 0.09)
    for c in (
        [(x + a, y, z + 0.1), (x - a, y, z + 0.1), (x - a, y + h, z + 0.1), (x + a, y + h, z + 0.1)],
        [(x - a, y, z + 0.1), (x - a, y, z - 0.2), (x - a, y + h, z - 0.2), (x - a, y + h, z + 0.1)],
        [(x + a, y, z - 0.2), (x + a, y, z + 0.1), (x + a, y + h, z + 0.1), (x + a, y + h, z - 0.2)],
    ):
        m.face(obj, "traffic light", shapes.PLAIN, c, dark)
