"""What a result holds, in one pass over its frames: when and where tracks are seen, and how much of what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from panoptube.check.faults import Box
from panoptube.check.segments import measure
from panoptube.errors import UserError
from panoptube.panoptic.formats import StoredFrame
from panoptube.panoptic.frame import VOID, Taxonomy
from panoptube.panoptic.runs import find_runs
from panoptube.panoptic.segment_ids import IdMap, Listing

BOX_EVERY = 5
"""Frames from one kept box of a track to the next; a box between them is taken to move evenly."""


@dataclass
class Run:
    """Frames in a row that a track is seen in.

    Attributes:
        first, last: numbers of the frames.
        boxes: at `first`, every `BOX_EVERY` frames after it, and at `last`.
    """

    first: int
    last: int
    boxes: list[Box]


@dataclass
class SeenTrack:
    """A track through the video.

    Attributes:
        label: position of its class in the taxonomy. id: as `PanopticFrame` has it.
        area: pixels in the frame where it is largest. frames: in how many it is seen. runs: in order.
    """

    label: int
    id: int
    area: int = 0
    frames: int = 0
    runs: list[Run] = field(default_factory=list)

    def see(self, t: int, area: int, box: Box) -> None:
        """Frame `t`, later than all before, has it."""
        self.area = max(self.area, area)
        self.frames += 1
        if not self.runs or self.runs[-1].last != t - 1:
            self.runs.append(Run(t, t, [box]))
            return
        run = self.runs[-1]
        if (run.last - run.first) % BOX_EVERY:  # the last box was kept only for being the last
            run.boxes.pop()
        run.boxes.append(box)
        run.last = t


@dataclass(frozen=True)
class Summary:
    """What a result holds.

    Attributes:
        taxonomy: of K classes.
        size: (height, width) of its T frames, in pixels.
        tracks: by class, then in the order in which they appear.
        counts: (T, K) int64, tracks of each class in each frame.
        shares: (T, K) float64, each class's part of the frame's pixels, from 0 to 1; void has the rest.
    """

    taxonomy: Taxonomy
    size: tuple[int, int]
    tracks: list[SeenTrack]
    counts: NDArray[np.int64]
    shares: NDArray[np.float64]


def summarise(frames: Iterable[StoredFrame], taxonomy: Taxonomy) -> Summary:
    """Read every frame once; one id map is in memory at a time.

    Args:
        frames: of one video, in order; at least one.
        taxonomy: what their classes are.

    Raises:
        UserError: a PNG is missing or broken, doesn't fit the JSON, or has another size than the first.
    """
    tracks: dict[tuple[int, int], SeenTrack] = {}
    counts: list[NDArray[np.int64]] = []
    areas: list[NDArray[np.int64]] = []
    ids: IdMap | None = None
    size: tuple[int, int] | None = None
    for t, frame in enumerate(frames):
        ids = frame.ids(ids)
        size = size or (ids.shape[0], ids.shape[1])
        if ids.shape != size:
            raise UserError(
                f"{frame.path} is {ids.shape[1]}x{ids.shape[0]}, the first frame {size[1]}x{size[0]}; "
                "the frames of a video must have one size"
            )
        starts, lengths = find_runs(ids)
        try:
            listing = Listing(frame.segments, taxonomy)
            entries = listing.find(ids.reshape(-1)[starts], lengths)
        except UserError as error:
            raise UserError(f"{frame.path}: {error}") from error
        labels, numbers = listing.labels.tolist(), listing.tracks.tolist()
        counts.append(np.zeros(len(taxonomy), np.int64))
        areas.append(np.zeros(len(taxonomy), np.int64))
        for entry, area, box in measure(entries, starts, lengths, size[1]):
            label, number = labels[entry], numbers[entry]
            if label == VOID:
                continue
            areas[-1][label] += area
            if number:
                counts[-1][label] += 1
                tracks.setdefault((label, number), SeenTrack(label, number)).see(t, area, box)
    assert size is not None
    ordered = sorted(tracks.values(), key=lambda track: (track.label, track.runs[0].first, track.id))
    return Summary(taxonomy, size, ordered, np.array(counts), np.array(areas) / (size[0] * size[1]))
