"""Synthetic streets: short films from a moving car with exact classes, track ids, optical flow and occlusion.

Everybody has them, and they have what tracking must learn: things that enter, leave, hide and come back,
crowds, parked and moving traffic, rain and dusk. The classes are Cityscapes'. A street is a function of its
seed: any frame can be asked for at any time, and the same seed gives the same bits in one environment.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from panoptube.data import street_render as r
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.class_maps import FROM_CITYSCAPES, with_classes
from panoptube.data.clip import Clip, Image
from panoptube.data.labelled_video import encode_label
from panoptube.data.new_folder import new_folder
from panoptube.data.street_actors import Actors
from panoptube.data.street_layout import CELL, Layout
from panoptube.data.street_models import Model
from panoptube.data.street_plan import FPS, Plan
from panoptube.data.street_shade import colour
from panoptube.data.write_layouts import WRITERS, save_picture
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, PanopticFrame
from panoptube.progress import progress_bar
from panoptube.view.overlay import overlay

FAR = 400.0
"""Metres at which the ground ends."""
MIN_SHARE = 20 / (256 * 512)
"""Share of the picture below which a thing counts as not visible: its pixels become void in that frame."""
SHEET = 16
"""Clips on the contact sheet."""
CACHED = 4
"""Frames that are kept once they are drawn."""


@dataclass(frozen=True)
class _Drawn:
    """One frame: picture, truth, and per pixel the object (-2 bonnet, -1 sky, 0 fixed) and depth, metres."""

    image: Image
    truth: PanopticFrame
    surface: NDArray[np.int32]
    depth: NDArray[np.float32]


class Street:
    """One street: `render(t)`, `flow(t, u)`, `occluded(t, u)` for frames 0 <= t, u < frames.

    Args:
        seed: which street; 0 or more.
        frames: how many frames, 10 a second; 1 or more.
        size: (height, width) in pixels, 32 or more each.
        difficulty: in [0, 1]: more traffic and people, more hiding, faster, more shake, blur and noise.

    Raises:
        UserError: one of them is out of range.
    """

    def __init__(
        self, seed: int, frames: int = 30, size: tuple[int, int] = (256, 512), difficulty: float = 0.5
    ) -> None:
        if seed < 0:
            raise UserError(f"seed of a street is {seed}; it must be 0 or more")
        if frames < 1:
            raise UserError(f"a street of {frames} frames; ask for 1 or more")
        if min(size) < 32:
            raise UserError(
                f"size of a street is {size[0]}x{size[1]}; height and width must be 32 pixels or more"
            )
        if not 0 <= difficulty <= 1:
            raise UserError(f"difficulty of a street is {difficulty}; it must lie between 0 and 1")
        self.seed, self.frames, self.size, self.difficulty = (
            int(seed),
            int(frames),
            (int(size[0]), int(size[1])),
            float(difficulty),
        )
        self._plan, m = Plan(self.seed, self.frames, self.difficulty), Model(self.frames)
        self._layout = Layout(self._plan, m)
        Actors(self._plan, m, self._layout.blockers)
        self._verts = np.zeros((len(m.verts), 6, 3))
        self._count = np.array([len(v) for v in m.verts])
        for i, corners in enumerate(m.verts):
            self._verts[i, : len(corners)] = corners
        self._obj, self._mat = np.array(m.objs), np.array(m.mats)
        self._par, self._base, self._axes = np.array(m.pars), np.array(m.colors, float), np.array(m.axes)
        self._flat, self._cls = np.array(m.flats), np.array(m.classes, np.uint8)
        self._pose = np.stack(m.poses, 1)
        self._anim, self._brake = np.stack(m.anims, 1), np.stack(m.brakes, 1)
        self._track = np.array(m.tracks, np.int32)
        kinds = {r.PAVEMENT: "sidewalk", r.CURB: "sidewalk", r.GRASS: "terrain"}
        self._ground_class = np.array([CITYSCAPES.index(kinds.get(i, "road")) for i in range(8)], np.uint8)
        self._focal = self._plan.focal * self.size[1]
        self._cache: OrderedDict[int, _Drawn] = OrderedDict()

    def __reduce__(self) -> tuple[type[Street], tuple[int, int, tuple[int, int], float]]:
        return Street, (self.seed, self.frames, self.size, self.difficulty)

    def render(self, t: int) -> tuple[Image, PanopticFrame]:
        """Picture (H, W, 3) uint8 RGB and truth of frame t.

        Raises:
            IndexError: there is no such frame.
        """
        drawn = self._drawn(t)
        return drawn.image, drawn.truth

    def image(self, t: int) -> Image:
        return self.render(t)[0]

    def truth(self, t: int) -> PanopticFrame:
        return self.render(t)[1]

    def flow(self, t: int, u: int) -> NDArray[np.float32]:
        """(H, W, 2) float32 in pixels, x first: the point seen at p in frame t is at p + flow(p) in frame u.

        Exact for all that is rigid. People, riders, two-wheelers, trees and poles are flat figures that turn
        to the camera: their points move with the figure, and limbs swing within it. The sky moves as what is
        infinitely far. Points outside the picture have their projection all the same; for those behind the
        camera it is that of a point just in front of it.

        Raises:
            IndexError: there is no such frame.
        """
        return self._move(t, u)[0]

    def occluded(self, t: int, u: int) -> NDArray[np.bool_]:
        """(H, W) bool: frame u does not show the point seen in frame t.

        It is outside the picture, or the pixel nearest to it shows another surface.

        Raises:
            IndexError: there is no such frame.
        """
        flow, depth = self._move(t, u)
        a, b = self._drawn(t), self._drawn(u)
        height, width = self.size
        y, x = np.mgrid[0:height, 0:width]
        col, row = np.rint(x + flow[..., 0]), np.rint(y + flow[..., 1])
        outside = (col < 0) | (col >= width) | (row < 0) | (row >= height) | (depth < r.NEAR)
        col, row = np.where(outside, 0, col).astype(int), np.where(outside, 0, row).astype(int)
        there = b.depth[row, col]
        other = b.surface[row, col] != a.surface
        with np.errstate(invalid="ignore"):  # inf - inf in the sky
            front = depth - there > 0.4 + 0.1 * np.where(np.isfinite(there), there, 0)
        return np.asarray(outside | other | (front & (a.surface >= 0)))

    def _move(self, t: int, u: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        a = self._drawn(t)
        self._inside(u)
        flow, depth = np.empty((*self.size, 2), np.float32), np.empty(self.size, np.float32)
        (cam, rot), (cam_u, rot_u) = self._camera(t), self._camera(u)
        r.flow_of(
            cam, rot, cam_u, rot_u, self._focal, a.surface, a.depth, self._pose[t], self._pose[u], flow, depth
        )
        return flow, depth

    def _inside(self, t: int) -> None:
        if not 0 <= t < self.frames:
            raise IndexError(f"the street has frames 0..{self.frames - 1}, not {t}")

    def _camera(self, t: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position, and axes (right, up, forward) as columns."""
        yaw, pitch, roll = self._plan.camera[t, 3:]
        forward = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
        up = np.cross(forward, right)
        right, up = np.cos(roll) * right + np.sin(roll) * up, np.cos(roll) * up - np.sin(roll) * right
        return self._plan.camera[t, :3].copy(), np.ascontiguousarray(np.stack([right, up, forward], 1))

    def _drawn(self, t: int) -> _Drawn:
        self._inside(t)
        if t in self._cache:
            self._cache.move_to_end(t)
            return self._cache[t]
        drawn = self._draw(t)
        self._cache[t] = drawn
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return drawn

    def _draw(self, t: int) -> _Drawn:
        plan, layout, (cam, rot), focal = self._plan, self._layout, self._camera(t), self._focal
        seen, depth = np.empty(self.size, np.int64), np.empty(self.size, np.float32)
        r.background(cam, rot, focal, seen, depth, FAR)
        label, label_depth = seen.copy(), depth.copy()
        shade = np.ones(self.size, np.float32)
        uv, normal = np.zeros((len(self._obj), 8)), np.zeros((len(self._obj), 3))
        r.rasterise(
            cam, rot, focal, self._verts, self._count, self._obj, self._mat, self._par, self._axes,
            self._flat, self._pose[t], self._anim[t], seen, depth, label, label_depth, shade, uv, normal,
        )  # fmt: skip
        semantic, instance = np.empty(self.size, np.uint8), np.empty(self.size, np.int32)
        surface = np.empty(self.size, np.int32)
        r.truth_of(
            cam, rot, focal, label, label_depth, self._obj, self._cls, self._track,
            layout.ground, layout.origin, CELL, self._ground_class, CITYSCAPES.index("sky"),
            semantic, instance, surface,
        )  # fmt: skip
        light = np.empty((*self.size, 3), np.float32)
        colour(
            cam, rot, focal, seen, depth, shade, self._obj, self._mat, self._par, self._base, uv, normal,
            self._anim[t], self._brake[t], layout.ground, layout.lightmap, layout.origin, CELL,
            plan.light[t], light,
        )  # fmt: skip
        hood = self._bonnet(light)
        semantic[hood], instance[hood], surface[hood] = VOID, 0, -2
        areas = np.bincount(instance.ravel(), minlength=len(self._track) + 1)
        small = (areas < max(6, MIN_SHARE * instance.size)) & (np.arange(len(areas)) > 0)
        tiny = small[instance]
        semantic[tiny], instance[tiny] = VOID, 0
        return _Drawn(self._develop(t, light), PanopticFrame(semantic, instance), surface, label_depth)

    def _bonnet(self, light: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Paints the bonnet of the camera's own car at the lower border, if it shows; returns where it is."""
        share = self._plan.bonnet
        if share == 0:
            return np.zeros(self.size, bool)
        height, width = self.size
        x = np.linspace(-1, 1, width)
        top = height * (1 - share * np.sqrt(np.maximum(0, 1.1 - x * x)))
        rows = np.arange(height)[:, None]
        hood = rows > top
        tone = 0.16 + 0.25 * np.clip((rows - top) / (share * height), 0, 1) * (1 - 0.4 * x * x)
        light[hood] = tone[hood][:, None] * np.array([0.9, 0.95, 1.0])
        return np.asarray(hood)

    def _develop(self, t: int, light: NDArray[np.float32]) -> Image:
        """Lens, rain, exposure and sensor: light to uint8."""
        plan, (height, width) = self._plan, self.size
        rng = np.random.default_rng([self.seed, 31, t])
        sigma = plan.blur * width / 512
        if sigma > 0.2:
            light = cv2.GaussianBlur(light, (0, 0), sigma)
        if plan.rain:
            streaks = np.zeros((height, width), np.uint8)
            for _ in range(int(plan.rain * 160)):
                x, y, n = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.02, 0.07) * height
                end, white = (int(x + 0.12 * n), int(y + n)), int(rng.integers(60, 170))
                cv2.line(streaks, (int(x), int(y)), end, white, 1, cv2.LINE_AA)
            light = light + (streaks * np.float32(0.16 / 255))[..., None]
        light = light * (plan.exposure[t] * plan.tint).astype(np.float32)
        grain = rng.standard_normal((height, width), np.float32) * np.float32(plan.noise)
        light = light + grain[..., None]
        return np.asarray(np.clip(light * 255, 0, 255).astype(np.uint8))


def street_clip(
    seed: int, frames: int = 30, size: tuple[int, int] = (256, 512), difficulty: float = 0.5
) -> Clip:
    """A street as a clip named "streets-<seed>": all frames labelled, exact flow, 10 frames a second.

    Arguments and errors as in `Street`. It can be pickled.
    """
    street = Street(seed, frames, size, difficulty)
    return Clip(
        name=f"streets-{street.seed:06d}",
        taxonomy=CITYSCAPES,
        size=street.size,
        fps=FPS,
        length=street.frames,
        labelled=tuple(range(street.frames)),
        read_image=street.image,
        read_truth=street.truth,
        read_flow=street.flow,
    )


def synthesize(
    clips: int,
    out: Path | str,
    frames: int = 30,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
    difficulty: float = 0.5,
    overwrite: bool = False,
    layout: str = "labelled-video",
) -> Path:
    """Writes streets of consecutive seeds as a dataset that `read_dataset` reads; returns the folder.

    As "labelled-video" each clip is <clip>/img/000000.jpg (quality 95) and <clip>/label/000000.png (uint16,
    class id * 1000 + track id, 65535 = void). index.json lists them; every fifth clip has the split "val".
    The other layouts are those of `write_layouts`, in the classes of `class_maps`; every fifth clip and the
    last one have the split "val". contact_sheet.png shows the middle frame of the first clips beside its
    truth. The folder appears once it is complete.

    Args:
        clips: how many; 1 or more.
        out: the folder to make.
        frames, size, difficulty: as in `Street`; "cityscapes-vps" needs 30 frames.
        seed: of the first clip.
        overwrite: whether a folder that is there already is replaced.
        layout: "labelled-video", "cityscapes-vps", "viper", "kitti-step", "vipseg" or "coco-video".

    Raises:
        UserError: no clips asked for, `out` is a file, or holds something and `overwrite` is off, no such
            layout, one that can't hold the clips, an argument of `Street` is out of range, or the disk is
            full.
    """
    if clips < 1:
        raise UserError(f"{clips} clips asked for; ask for 1 or more")
    if layout != "labelled-video" and layout not in WRITERS:
        raise UserError(f"no layout is called {layout!r}; there are labelled-video, {', '.join(WRITERS)}")
    tiles: list[Image] = []

    def draw(bar: Progress) -> Iterator[tuple[str, Clip]]:
        for i in bar.track(range(clips), description="streets"):
            clip = street_clip(seed + i, frames, size, difficulty)
            if layout in FROM_CITYSCAPES:
                clip = with_classes(clip, *FROM_CITYSCAPES[layout])
            last = layout != "labelled-video" and i == clips - 1
            yield "val" if i % 5 == 4 or last else "train", clip
            if i < SHEET:
                tiles.append(_tile(clip, frames // 2))

    with progress_bar(True, "clips") as bar, new_folder(out, overwrite) as folder:
        if layout == "labelled-video":
            _write_labelled_videos(draw(bar), folder, seed, difficulty)
        else:
            WRITERS[layout](draw(bar), folder)
        across = min(len(tiles), 2)
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % across)
        sheet = np.vstack([np.hstack(tiles[i : i + across]) for i in range(0, len(tiles), across)])
        save_picture(folder / "contact_sheet.png", sheet)
    return Path(out)


def _write_labelled_videos(
    clips: Iterable[tuple[str, Clip]], folder: Path, seed: int, difficulty: float
) -> None:
    entries = [
        _write(clip, folder / clip.name) | {"seed": seed + i, "difficulty": difficulty, "split": split}
        for i, (split, clip) in enumerate(clips)
    ]
    index = {
        "format": "label = class id * 1000 + track id (Cityscapes train ids; id 0 of a thing = crowd); "
        "65535 = void",
        "clips": entries,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def _write(clip: Clip, folder: Path) -> dict[str, Any]:
    """Writes frames and labels of one clip and returns its entry for index.json."""
    ids: set[int] = set()
    void = 0
    for t in range(len(clip)):
        image, truth = clip.image(t), clip.read_truth(t)
        save_picture(folder / "img" / f"{t:06d}.jpg", image)
        save_picture(folder / "label" / f"{t:06d}.png", encode_label(truth, clip.taxonomy))
        ids.update(truth.tracks())
        void += int((truth.semantic == VOID).sum())
    height, width = clip.size
    return {
        "clip": clip.name,
        "fps": clip.fps,
        "size": [width, height],
        "n_frames": len(clip),
        "n_tracks": len(ids),
        "void_fraction": round(void / (len(clip) * height * width), 4),
    }


def _tile(clip: Clip, t: int) -> Image:
    """A frame beside its truth."""
    image = clip.image(t)
    return np.hstack([image, overlay(image, clip.read_truth(t), clip.taxonomy, names=False)])
