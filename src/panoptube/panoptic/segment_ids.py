"""Segment ids: the 24-bit number, also a colour, of a track in all PNGs of its video (dossier 11.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Color, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs

IDS = 1 << 24
"""Ids are below this; 0 = void."""

IdMap = NDArray[np.uint32]
"""(H, W) uint32, segment id of every pixel, R + 256 G + 65536 B; 0 = void."""


class SegmentIds:
    """Gives each track of one video its id, which is also its colour.

    Stuff and crowd have the category's colour. The tracks of a thing class have colours near the category's,
    all different; which one depends on the order in which tracks are first asked for, and on nothing else.
    Category colours that are black (void) or taken move to the nearest free colour.

    Memory grows with the number of tracks.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._colors = [c.color for c in taxonomy.categories]
        self._taken = {0}
        self._ids: dict[tuple[int, int], int] = {}
        self._drawn = [0] * len(taxonomy)
        self._radius = [30] * len(taxonomy)
        for label, color in enumerate(self._colors):
            segment_id = _color_id(color)
            if segment_id in self._taken:
                segment_id = self._draw(label)
            self._taken.add(segment_id)
            self._ids[label, 0] = segment_id

    def __call__(self, label: int, track: int) -> int:
        """Id of a segment, 1..2**24 - 1.

        Args:
            label: position of the class in the taxonomy.
            track: track id; 0 for stuff and crowd.

        Raises:
            UserError: all 2**24 - 1 colours are taken.
        """
        segment_id = self._ids.get((label, track))
        if segment_id is None:
            segment_id = self._draw(label)
            self._taken.add(segment_id)
            self._ids[label, track] = segment_id
        return segment_id

    def _draw(self, label: int) -> int:
        """The next free id near the class's colour.

        Offsets follow an additive recurrence in three dimensions, in integers: neighbours in the sequence lie
        far apart, and every machine computes the same. The cube they are drawn from starts at +-30 and widens
        as it fills.
        """
        base = self._colors[label]
        misses = 0
        while (radius := self._radius[label]) < 256:
            self._drawn[label] += 1
            offsets = [
                ((self._drawn[label] * step) % 2**32 * (2 * radius + 1) >> 32) - radius for step in _STEPS
            ]
            r, g, b = (value + offset for value, offset in zip(base, offsets))
            if 0 <= r < 256 and 0 <= g < 256 and 0 <= b < 256:
                segment_id = _color_id((r, g, b))
                if segment_id not in self._taken:
                    return segment_id
            misses += 1
            if misses == 64:
                self._radius[label], misses = radius + 15, 0
        free = next((i for i in range(IDS) if i not in self._taken), None)
        if free is None:
            raise UserError(f"a video can hold at most {IDS - 1} tracks; write it in parts")
        return free


# 2**32 / g, / g^2, / g^3, where g^4 = g + 1: the three-dimensional counterpart of the golden ratio.
_STEPS = (3518319155, 2882110345, 2360945575)


def _color_id(color: Color) -> int:
    return color[0] + 256 * color[1] + 65536 * color[2]


@dataclass(slots=True)
class SegmentInfo:
    """One segment of one frame as the JSON lists it. `bbox` is x, y, width, height in pixels."""

    id: Annotated[int, Field(ge=0, lt=IDS)]
    category_id: int
    iscrowd: bool = False
    area: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    bbox: tuple[float, float, float, float] | None = None
    track_id: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is None."""
        row = {name: getattr(self, name) for name in self.__slots__}
        row["iscrowd"] = int(self.iscrowd)
        return {name: value for name, value in row.items() if value is not None}


def frame_to_ids(
    frame: PanopticFrame, taxonomy: Taxonomy, ids: SegmentIds
) -> tuple[IdMap, list[SegmentInfo]]:
    """A frame as id map and segment table; `ids_to_frame` is the exact inverse.

    Args:
        frame: of size (H, W).
        taxonomy: what its classes are.
        ids: of the video that the frame belongs to.

    Returns:
        (H, W) uint32 id map, and its segments by class, then track id. Void is none.

    Raises:
        ValueError: a class that the taxonomy doesn't have, or a track id on stuff.
    """
    starts, lengths = find_runs(frame.semantic, frame.instance)
    keys = frame.semantic.reshape(-1)[starts].astype(np.int64) << 32 | frame.instance.reshape(-1)[starts]
    order = np.argsort(keys, kind="stable")
    values, firsts, inverse = np.unique(keys[order], return_index=True, return_inverse=True)
    y, x = np.divmod(starts[order], max(frame.size[1], 1))
    lengths_in_order = lengths[order]

    segments: list[SegmentInfo] = []
    segment_ids = np.zeros(len(values), np.uint32)
    if len(values):
        areas = np.add.reduceat(lengths_in_order, firsts)
        left, right = np.minimum.reduceat(x, firsts), np.maximum.reduceat(x + lengths_in_order, firsts)
        top, bottom = np.minimum.reduceat(y, firsts), np.maximum.reduceat(y, firsts) + 1
    for i, value in enumerate(values.tolist()):
        label, track = value >> 32, value & 0xFFFFFFFF
        if label == VOID:
            continue
        if label >= len(taxonomy):
            raise ValueError(
                f"semantic holds class {label}; {taxonomy.name!r} has 0..{len(taxonomy) - 1} and 255"
            )
        if track and not taxonomy.is_thing(label):
            raise ValueError(f"track id {track} lies on {taxonomy.names[label]}; only things have ids")
        segment_ids[i] = ids(label, track)
        segments.append(
            SegmentInfo(
                id=int(segment_ids[i]),
                category_id=taxonomy.categories[label].id,
                iscrowd=taxonomy.is_thing(label) and not track,
                area=int(areas[i]),
                bbox=(int(left[i]), int(top[i]), int(right[i] - left[i]), int(bottom[i] - top[i])),
                track_id=track or None,
                score=frame.scores.get(track) if track else None,
            )
        )
    run_ids = np.empty(len(starts), np.uint32)
    run_ids[order] = segment_ids[inverse.reshape(-1)]
    return np.repeat(run_ids, lengths).reshape(frame.size), segments


_by_id = attrgetter("id")


class Listing:
    """A frame's segment table, checked, for look-ups by id. Entry 0 is void.

    A thing's track id is its `track_id`, or its `id` where it has none. All crowd of a class is one segment.

    Attributes:
        labels: (K,) uint8 class of each entry.
        tracks: (K,) int32 track id of each entry, 0 for void, stuff and crowd.

    Args:
        segments: of one frame.
        taxonomy: what `category_id` means.

    Raises:
        UserError: the table lists an id twice, id 0, an unknown category, or crowd of a stuff class.
    """

    def __init__(self, segments: Sequence[SegmentInfo], taxonomy: Taxonomy) -> None:
        label_of = {c.id: i for i, c in enumerate(taxonomy.categories)}
        self.segments = sorted(segments, key=_by_id)
        unknown = next((s for s in self.segments if s.category_id not in label_of), None)
        if unknown is not None:
            raise UserError(
                f"segment {unknown.id} has category_id {unknown.category_id}, "
                f"which {taxonomy.name!r} doesn't have"
            )
        self._ids = np.array([0, *[s.id for s in self.segments]], np.uint32)
        repeated = np.flatnonzero(self._ids[1:] == self._ids[:-1])
        if len(repeated):
            number = self._ids[repeated[0]]
            what = "uses id 0, which is void" if number == 0 else f"lists id {number} twice"
            raise UserError(f"the JSON {what}; give every segment its own id")
        self.labels = np.array([VOID, *[label_of[s.category_id] for s in self.segments]], np.uint8)
        crowd = np.array([True, *[s.iscrowd for s in self.segments]])
        stuff = self.labels < taxonomy.num_stuff
        if (crowd & stuff).any():
            place = np.flatnonzero(crowd & stuff)[0]
            raise UserError(
                f"segment {self._ids[place]} is crowd of {taxonomy.names[self.labels[place]]}; "
                "only things can be crowd"
            )
        self.tracks = np.array([0, *[s.track_id or s.id for s in self.segments]], np.int32)
        self.tracks[crowd | stuff] = 0
        # -1 where the table doesn't say.
        self._areas = np.array([-1, *[-1 if s.area is None else s.area for s in self.segments]], np.int64)

    def find(self, ids: NDArray[np.integer[Any]], pixels: NDArray[np.int64]) -> NDArray[np.intp]:
        """(N,) entries of the ids of the whole id map.

        Args:
            ids: (N,) ids; one may occur several times.
            pixels: (N,) how many pixels each stands for.

        Raises:
            UserError: an id isn't listed, or a listed one has no pixels or another area than listed.
        """
        entry = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        unlisted = self._ids[entry] != ids
        if unlisted.any():
            raise UserError(
                f"the PNG holds id {ids[unlisted][0]}, which the JSON doesn't list for this frame"
            )
        areas = np.bincount(entry, pixels, len(self._ids)).astype(np.int64)
        wrong = (areas == 0) | ((self._areas >= 0) & (self._areas != areas))
        wrong[0] = False
        if wrong.any():
            place = np.flatnonzero(wrong)[0]
            number, area = self._ids[place], areas[place]
            if not area:
                raise UserError(f"the JSON lists id {number}, which the PNG doesn't hold")
            raise UserError(
                f"segment {number} has area {self._areas[place]} in the JSON and {area} pixels in the PNG"
            )
        return entry


def ids_to_frame(id_map: IdMap, segments: Sequence[SegmentInfo], taxonomy: Taxonomy) -> PanopticFrame:
    """The frame of an id map and its segment table.

    Args:
        id_map: (H, W) uint32.
        segments: of this frame.
        taxonomy: what `category_id` means.

    Raises:
        UserError: as `Listing` and its `find`: the table isn't sound, or it and the map don't agree.
    """
    listing = Listing(segments, taxonomy)
    starts, lengths = find_runs(id_map)
    entry = listing.find(id_map.reshape(-1)[starts], lengths)
    return PanopticFrame(
        np.repeat(listing.labels[entry], lengths).reshape(id_map.shape),
        np.repeat(listing.tracks[entry], lengths).reshape(id_map.shape),
        {int(t): s.score for t, s in zip(listing.tracks[1:], listing.segments) if t and s.score is not None},
    )
