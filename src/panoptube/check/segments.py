"""Segments of one frame: where they are, and what is wrong with a single one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.check.faults import Box, Fault
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs

TINY = 10
"""Pixels below which an instance is a slip of the brush: a mask of three by three shows nothing."""
CRUMB = 0.1
"""Share of the instance below which a part is a crumb: borders drawn by hand leave many of those."""
CRUMB_OF_FRAME = 0.0005
"""Share of the frame above which it is none however large the instance is."""
FAR_APART = 2.0
"""Parts are far apart where the gap is this many times the larger part's diagonal. What hides an object is
mostly narrower than it, a pole or a person before a car.
"""
WIDE = 0.05
"""And where the gap is this share of the frame's diagonal: any pole may hide half of what is small."""
BEHIND = 3.0
"""Times the larger part's diagonal that other things may hide at most."""
HIDDEN = 0.5
"""Share of the way between two parts that other things must cover for these to be what hides the object."""


@dataclass(frozen=True)
class Track:
    """A track in one frame. Where an id has two classes, `label` is that of most of its pixels."""

    id: int
    label: int
    area: int
    box: Box

    @property
    def center(self) -> NDArray[np.float64]:
        """(2,) x, y."""
        x, y, width, height = self.box
        return np.array([x + width / 2, y + height / 2])

    @property
    def diagonal(self) -> float:
        """Of the box, in pixels."""
        return float(np.hypot(self.box[2], self.box[3]))


@dataclass(frozen=True)
class FrameSegments:
    """What a frame holds.

    Attributes:
        tracks: by id.
        classes: positions in the taxonomy of all classes that occur.
        crowd: by class, area and box of the pixels of things without an instance.
        mixed: ids on more than one class, with these classes, those of most pixels first.
    """

    tracks: dict[int, Track]
    classes: tuple[int, ...]
    crowd: dict[int, tuple[int, Box]]
    mixed: dict[int, list[int]]


def find_segments(frame: PanopticFrame, taxonomy: Taxonomy) -> FrameSegments:
    """Tracks, classes and crowd of a frame. Ids on stuff or void, which should not be, are left out."""
    tracks: dict[int, Track] = {}
    classes: set[int] = set()
    crowd: dict[int, tuple[int, Box]] = {}
    mixed: dict[int, list[tuple[int, int]]] = {}
    for label, track, area, box in _table(frame):
        if label == VOID:
            continue
        classes.add(label)
        if not taxonomy.is_thing(label):
            continue
        if not track:
            crowd[label] = area, box
            continue
        known = tracks.get(track)
        if known is None:
            tracks[track] = Track(track, label, area, box)
            continue
        mixed.setdefault(track, [(known.area, known.label)]).append((area, label))
        top = max(mixed[track])
        tracks[track] = Track(track, top[1], known.area + area, union(known.box, box))
    ordered = {track: [label for _, label in sorted(found)[::-1]] for track, found in mixed.items()}
    return FrameSegments(tracks, tuple(sorted(classes)), crowd, ordered)


def _table(frame: PanopticFrame) -> Iterator[tuple[int, int, int, Box]]:
    """Class, track id, area and box of every segment, void too."""
    starts, lengths = find_runs(frame.semantic, frame.instance)
    keys = frame.semantic.reshape(-1)[starts].astype(np.int64) << 32 | frame.instance.reshape(-1)[starts]
    yield from (
        (key >> 32, key & 0xFFFFFFFF, area, box)
        for key, area, box in measure(keys, starts, lengths, frame.size[1])
    )


def measure(
    keys: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], width: int
) -> list[tuple[int, int, Box]]:
    """Key, area and box of everything that runs of pixels belong to, by key.

    Args:
        keys: (R,) what each run belongs to.
        starts, lengths: (R,) as `find_runs` has them.
        width: of the map.
    """
    order = np.argsort(keys, kind="stable")
    values, firsts = np.unique(keys[order], return_index=True)
    if not len(values):
        return []
    y, x = np.divmod(starts[order], width)
    right = x + lengths[order]
    areas = np.add.reduceat(lengths[order], firsts)
    left, top = np.minimum.reduceat(x, firsts), np.minimum.reduceat(y, firsts)
    w, h = np.maximum.reduceat(right, firsts) - left, np.maximum.reduceat(y, firsts) + 1 - top
    return [
        (key, area, (a, b, c, d))
        for key, area, a, b, c, d in zip(*(v.tolist() for v in (values, areas, left, top, w, h)))
    ]


def union(one: Box, other: Box) -> Box:
    """The box around both."""
    left, top = min(one[0], other[0]), min(one[1], other[1])
    right = max(one[0] + one[2], other[0] + other[2])
    bottom = max(one[1] + one[3], other[1] + other[3])
    return left, top, right - left, bottom - top


def find_tiny(segments: FrameSegments, taxonomy: Taxonomy) -> Iterator[Fault]:
    """Instances of a few pixels."""
    for track in segments.tracks.values():
        if track.area < TINY:
            pixels = f"{track.area} pixel{'s' if track.area > 1 else ''}"
            message = f"{taxonomy.names[track.label]} {track.id} has {pixels}"
            yield Fault("tiny", "warning", message, where=track.box, tracks=(track.id,), weight=-track.area)


def find_split(frame: PanopticFrame, segments: FrameSegments, taxonomy: Taxonomy) -> Iterator[Fault]:
    """Instances in parts that lie far apart with no other thing between them that hides the rest."""
    for track in segments.tracks.values():
        x, y, width, height = track.box
        # One part fills at least this much of the box, whatever its form: far parts leave most of it empty.
        if track.area < 2 * TINY or track.area > 0.6 * width * height:
            continue
        window = slice(y, y + height), slice(x, x + width)
        mask = (frame.instance[window] == track.id).astype(np.uint8)
        gap = _widest_gap(mask, _crumb(track.area, frame.size), WIDE * float(np.hypot(*frame.size)))
        if gap is None:
            continue
        (x1, y1), (x2, y2) = gap.points
        steps = max(2, int(np.hypot(x2 - x1, y2 - y1)))
        between = (
            np.linspace(y1, y2, steps).round().astype(int),
            np.linspace(x1, x2, steps).round().astype(int),
        )
        other = (frame.instance[window][between] != 0) | (frame.semantic[window][between] == VOID)
        if steps < BEHIND * gap.size and other[1:-1].mean() >= HIDDEN:
            continue
        message = (
            f"{taxonomy.names[track.label]} {track.id} is in {gap.parts} parts, {steps} pixels apart; "
            "two objects with one id?"
        )
        yield Fault("split", "warning", message, where=track.box, tracks=(track.id,), weight=steps)


def _crumb(area: int, size: tuple[int, int]) -> float:
    """Pixels below which a part of an instance doesn't count."""
    return max(min(CRUMB * area, CRUMB_OF_FRAME * size[0] * size[1]), TINY)


class _Gap(NamedTuple):
    """A gap: points (x, y) on both sides, the largest part's diagonal, and how many parts count."""

    points: tuple[NDArray[np.int64], NDArray[np.int64]]
    size: float
    parts: int


def _widest_gap(mask: NDArray[np.uint8], crumb: float, least: float) -> _Gap | None:
    """Where the stray parts are nearest to the main ones, or None if none is far.

    Main is the largest part and what lies near to it, part by part.
    """
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    stray = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= crumb]
    parts = len(stray)
    if parts < 2:
        return None
    largest = max(stray, key=lambda i: int(stats[i, cv2.CC_STAT_AREA]))
    size = float(np.hypot(stats[largest, cv2.CC_STAT_WIDTH], stats[largest, cv2.CC_STAT_HEIGHT]))
    main = numbers == largest
    stray.remove(largest)
    while stray:
        distance, nearest = cv2.distanceTransformWithLabels(
            (~main).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        gaps = {part: float(distance[numbers == part].min()) for part in stray}
        part = min(stray, key=lambda i: gaps[i])
        if gaps[part] > max(FAR_APART * size, least):
            end = np.argwhere((numbers == part) & (distance == gaps[part]))[0]
            start = np.argwhere(main & (nearest == nearest[end[0], end[1]]))[0]
            return _Gap((start[::-1], end[::-1]), size, parts)
        main |= numbers == part
        stray.remove(part)
    return None
