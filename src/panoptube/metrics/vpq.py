"""Video panoptic quality (VPQ) over windows of frames with truth, dossier 13.1 and 13.2.

Words: a *window* is n consecutive frames with truth of one clip, a *tube* all pixels of one (class, id) in a
    window. k: what papers call a window length; it depends on the dataset's protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from panoptube.metrics.printed import Printed
from panoptube.metrics.protocol import CITYSCAPES_VPS, Protocol
from panoptube.metrics.quality import (
    MeanQuality,
    TubeCounts,
    WindowResult,
    lost_points,
    mean_over_windows,
    number,
    percent,
    plural,
    window_result,
)
from panoptube.metrics.table import FrameTable, compare_frames, join_tables
from panoptube.metrics.tubes import count_window
from panoptube.panoptic.frame import Category, PanopticFrame, Taxonomy


@dataclass(frozen=True)
class ClipVPQ:
    """One clip by itself.

    Attributes:
        name: of the clip.
        frames: how many were counted.
        all, things, stuff: means over the window lengths; nan if the clip is too short for one of them.
        lost: what it costs the VPQ of all clips, as a fraction; over all clips these add up to 1 - VPQ.
    """

    name: str
    frames: int
    all: MeanQuality
    things: MeanQuality
    stuff: MeanQuality
    lost: float


@dataclass(frozen=True)
class VPQResult(Printed):
    """Scores as fractions in [0, 1]; printed as percent, as papers do.

    Attributes:
        all, things, stuff: means over the window lengths: the final VPQ, VPQ-Th, VPQ-St. nan if one of the
            lengths has no value, such as when every clip is shorter than it.
        windows: by window length.
        frames: how many were counted.
        per_clip: by clip.
    """

    all: MeanQuality
    things: MeanQuality
    stuff: MeanQuality
    windows: tuple[WindowResult, ...]
    frames: int
    per_clip: tuple[ClipVPQ, ...]

    @property
    def clips(self) -> int:
        """How many were counted."""
        return len(self.per_clip)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None, classes and clips are keyed by name."""
        return {
            "vpq": number(self.all.pq),
            "vpq_things": number(self.things.pq),
            "vpq_stuff": number(self.stuff.pq),
            "frames": self.frames,
            "clips": self.clips,
            "windows": [w.to_dict() for w in self.windows],
            "per_clip": {
                c.name: {
                    "frames": c.frames,
                    "vpq": number(c.all.pq),
                    "vpq_things": number(c.things.pq),
                    "vpq_stuff": number(c.stuff.pq),
                    "lost": c.lost,
                }
                for c in self.per_clip
            },
        }

    def tables(self) -> list[Table]:
        """For a rich console: VPQ / VPQ-Th / VPQ-St by k, and PQ by class and k."""
        clips, frames = plural(self.clips, "clip"), plural(self.frames, "frame")
        summary = Table(title=f"VPQ / VPQ-Th / VPQ-St in percent, {clips}, {frames} with truth")
        classes = Table(title="VPQ by class in percent; TP/FP/FN tubes over all windows")
        classes.add_column("class")
        for w in self.windows:
            summary.add_column(f"k = {w.k}", justify="right")
            classes.add_column(f"k = {w.k}", justify="right")
        summary.add_column("mean", justify="right")
        classes.add_column("mean", justify="right")
        classes.add_column("TP/FP/FN", justify="right")
        summary.add_row(*self.row())
        for row in zip(*(w.classes for w in self.windows)):
            sums = (sum(c.tp for c in row), sum(c.fp for c in row), sum(c.fn for c in row))
            if any(sums):
                scores = [c.pq for c in row]
                mean = sum(scores) / len(scores)
                classes.add_row(row[0].name, *map(percent, scores), percent(mean), "/".join(map(str, sums)))
        for w in self.windows:
            if not w.windows:
                summary.caption = (
                    f"no clip has {w.window} frames with truth, so k = {w.k} and the mean have no value"
                )
                break
        return [summary, classes]

    def row(self) -> list[str]:
        """The papers' row: VPQ / VPQ-Th / VPQ-St for each k, then the mean, in percent."""
        columns = [(w.all, w.things, w.stuff) for w in self.windows] + [(self.all, self.things, self.stuff)]
        return [" / ".join(percent(q.pq) for q in column) for column in columns]


@dataclass(frozen=True)
class ClipCounts:
    """One clip: its counts by window length."""

    name: str
    frames: int
    windows: tuple[TubeCounts, ...]


def vpq_result(
    clips: Sequence[ClipCounts],
    windows: Sequence[WindowResult],
    protocol: Protocol,
    categories: Sequence[Category],
) -> VPQResult:
    """Clips and window lengths together.

    Args:
        clips: counts of C classes.
        windows: the scores of all clips, one for each window length of the protocol.
        protocol: the windows, and the classes that no mean contains.
        categories: the C classes.
    """
    kept = np.array([c.name not in protocol.excluded for c in categories], bool)
    totals = [_total([c.windows[i] for c in clips], len(categories)) for i in range(len(protocol.windows))]
    scored: list[ClipVPQ] = []
    for clip in clips:
        own = [
            window_result(n, protocol.k(n), counts, categories, protocol.excluded)
            for n, counts in zip(protocol.windows, clip.windows)
        ]
        lost = [lost_points(part, total, kept) for part, total in zip(clip.windows, totals)]
        scored.append(
            ClipVPQ(
                clip.name,
                clip.frames,
                mean_over_windows([w.all for w in own]),
                mean_over_windows([w.things for w in own]),
                mean_over_windows([w.stuff for w in own]),
                sum(lost) / len(lost),
            )
        )
    return VPQResult(
        all=mean_over_windows([w.all for w in windows]),
        things=mean_over_windows([w.things for w in windows]),
        stuff=mean_over_windows([w.stuff for w in windows]),
        windows=tuple(windows),
        frames=sum(c.frames for c in clips),
        per_clip=tuple(scored),
    )


def _total(parts: Sequence[TubeCounts], classes: int) -> TubeCounts:
    """In the order of the clips: the published script adds in this order, so that IoU sums round as its
    do.
    """
    total = TubeCounts.zero(classes)
    for part in parts:
        total = total + part
    return total


class VPQ:
    """Adds up tubes frame by frame; `compute` makes the scores.

    Feed the frames with truth of a clip in order, then `end_clip`. Windows lie within a clip, start at every
    frame and are never partial: a clip of T frames has T - n + 1 windows of n, and none if T < n. Only the
    tables of the last frames of the open clip are held.

    A class that occurs in neither truth nor prediction is left out of the means; one that is only predicted
    counts with 0. A tube is a (class, id): an id that changes its class is two tubes.

    Args:
        taxonomy: the classes of truth and prediction.
        protocol: window lengths and their names, and what is left out.
    """

    def __init__(self, taxonomy: Taxonomy, protocol: Protocol = CITYSCAPES_VPS) -> None:
        self.taxonomy = taxonomy
        self.protocol = protocol
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._clips: list[ClipCounts] = []
        self._start()

    def _start(self) -> None:
        self._recent: deque[FrameTable] = deque(maxlen=self.protocol.windows[-1])
        self._open = [TubeCounts.zero(len(self.taxonomy)) for _ in self.protocol.windows]
        self._frames = 0

    def update(self, prediction: PanopticFrame, truth: PanopticFrame) -> None:
        """Count the next frame of the open clip.

        Raises:
            ValueError: the two differ in size, or don't fit the taxonomy.
        """
        self.update_table(compare_frames(prediction, truth))

    def update_table(self, table: FrameTable) -> None:
        """Count the next frame of the open clip, already reduced by `compare_frames`.

        Raises:
            ValueError: the table doesn't fit the taxonomy.
        """
        table.check(self.taxonomy)
        self._recent.append(table)
        self._frames += 1
        for length, counts in zip(self.protocol.windows, self._open):
            if length <= len(self._recent):
                window = join_tables(list(self._recent)[-length:])
                count_window(window, self.taxonomy, counts, self.protocol.min_tube)

    def end_clip(self, name: str | None = None) -> None:
        """The next frame starts a new clip: no window reaches into it. Does nothing if no clip is open.

        Args:
            name: of the clip that ends; None numbers it.
        """
        if self._frames:
            self._clips.append(self._ended(name))
            self._start()

    def merge(self, other: VPQ) -> None:
        """Add what `other` counted on other clips; ends the open clip of both.

        Raises:
            ValueError: the two count different classes or windows.
        """
        if (self.taxonomy, self.protocol) != (other.taxonomy, other.protocol):
            raise ValueError("only metrics of the same taxonomy and windows can be merged")
        self.end_clip()
        other.end_clip()
        self._clips += other._clips

    def compute(self) -> VPQResult:
        """The scores of all frames so far; an open clip counts with the windows it has."""
        clips = [*self._clips, self._ended(None)] if self._frames else self._clips
        categories = self.taxonomy.categories
        windows = [
            window_result(n, self.protocol.k(n), counts, categories, self.protocol.excluded)
            for n, counts in zip(self.protocol.windows, self.counts())
        ]
        return vpq_result(clips, windows, self.protocol, categories)

    def counts(self) -> list[TubeCounts]:
        """The counts of all frames so far, by window length."""
        clips = [*self._clips, self._ended(None)] if self._frames else self._clips
        places = range(len(self.protocol.windows))
        return [_total([c.windows[i] for c in clips], len(self.taxonomy)) for i in places]

    def _ended(self, name: str | None) -> ClipCounts:
        return ClipCounts(name or str(len(self._clips)), self._frames, tuple(self._open))
