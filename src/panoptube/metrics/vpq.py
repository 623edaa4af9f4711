"""Video panoptic quality (VPQ) over windows of labelled frames, dossier 13.1.

Words: a *window* is n consecutive labelled frames of one clip, a *tube* all pixels of one (class, id) in a
    window. C: number of classes. k: video frames from the first to the last frame of a window, which is how
    papers name it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from panoptube.errors import UserError
from panoptube.metrics.table import (
    VOID_KEY,
    FrameTable,
    compare_frames,
    join_tables,
    key_labels,
    key_tracks,
)
from panoptube.panoptic.frame import PanopticFrame, Taxonomy


@dataclass
class TubeCounts:
    """What matching adds up, by class; ratios are made from the sums only.

    Attributes:
        iou: (C,) float64, sum of the IoU of the matches.
        tp, fp, fn: (C,) int64, matched, surplus and missed tubes.
        windows: number of windows counted.
    """

    iou: NDArray[np.float64]
    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    windows: int = 0

    @classmethod
    def zero(cls, num_classes: int) -> TubeCounts:
        tp, fp, fn = np.zeros((3, num_classes), np.int64)
        return cls(np.zeros(num_classes), tp, fp, fn)

    def __add__(self, other: TubeCounts) -> TubeCounts:
        return TubeCounts(
            self.iou + other.iou,
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.windows + other.windows,
        )


def count_window(table: FrameTable, taxonomy: Taxonomy, counts: TubeCounts) -> None:
    """Match the tubes of one window and add the outcome to `counts`, dossier 13.1.

    A true and a predicted tube of one class match if IoU > 1/2, where pixels of the prediction that are void
    in the truth are left out of the union. A true tube without a match is a FN. A predicted tube without a
    match is a FP, unless more than half of it lies on void or on crowd of its own class. Crowd is neither
    matched nor missed, and all crowd of a class excuses (the published script remembers one crowd segment of
    each class). A prediction that says crowd (a thing with id 0) is judged as one tube like any other. Void
    in the prediction is no tube, but stays in the union.

    Args:
        table: overlaps over all frames of the window.
        taxonomy: of C classes.
        counts: sums of C classes, changed in place.
    """
    truths, truth_of = np.unique(table.truth, return_inverse=True)
    predictions, prediction_of = np.unique(table.prediction, return_inverse=True)
    truth_label, prediction_label = key_labels(truths), key_labels(predictions)
    truth_area = _sum_by(truth_of, table.pixels, len(truths))
    prediction_area = _sum_by(prediction_of, table.pixels, len(predictions))
    crowd = (truth_label >= taxonomy.num_stuff) & (key_tracks(truths) == 0)
    wanted = (truths != VOID_KEY) & ~crowd

    on_void = table.truth == VOID_KEY
    same_class = truth_label[truth_of] == prediction_label[prediction_of]
    void = _sum_by(prediction_of[on_void], table.pixels[on_void], len(predictions))
    union = prediction_area[prediction_of] + truth_area[truth_of] - table.pixels - void[prediction_of]
    match = wanted[truth_of] & same_class & (2 * table.pixels > union)
    labels = truth_label[truth_of[match]]
    np.add.at(counts.iou, labels, table.pixels[match] / union[match])
    np.add.at(counts.tp, labels, 1)

    wanted[truth_of[match]] = False
    np.add.at(counts.fn, truth_label[wanted], 1)

    excused = on_void | (crowd[truth_of] & same_class)
    forgiven = _sum_by(prediction_of[excused], table.pixels[excused], len(predictions))
    surplus = (predictions != VOID_KEY) & (2 * forgiven <= prediction_area)
    surplus[prediction_of[match]] = False
    np.add.at(counts.fp, prediction_label[surplus], 1)
    counts.windows += 1


def _sum_by(group: NDArray[np.intp], pixels: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """(groups,) int64: pixels added up by group."""
    sums = np.zeros(groups, np.int64)
    np.add.at(sums, group, pixels)
    return sums


@dataclass(frozen=True)
class ClassQuality:
    """One class over all windows of one length. Ratios are fractions; nan where the class never occurred."""

    name: str
    isthing: bool
    pq: float
    sq: float
    rq: float
    iou: float
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True)
class MeanQuality:
    """Means over the `classes` classes that occurred, as fractions; nan if none did."""

    pq: float
    sq: float
    rq: float
    classes: int


@dataclass(frozen=True)
class WindowResult:
    """All `windows` windows of `window` labelled frames; `k` is the paper's name for them."""

    window: int
    k: int
    windows: int
    all: MeanQuality
    things: MeanQuality
    stuff: MeanQuality
    classes: tuple[ClassQuality, ...]


@dataclass(frozen=True)
class VPQResult:
    """Scores as fractions in [0, 1]; printed as percent, as papers do.

    Attributes:
        all, things, stuff: means over the window lengths: the final VPQ, VPQ-Th, VPQ-St. nan if one of the
            lengths has no value, such as when every clip is shorter than it.
        windows: by window length.
        frames, clips: how many were counted.
    """

    all: MeanQuality
    things: MeanQuality
    stuff: MeanQuality
    windows: tuple[WindowResult, ...]
    frames: int
    clips: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None, classes are keyed by name."""
        return {
            "vpq": _number(self.all.pq),
            "vpq_things": _number(self.things.pq),
            "vpq_stuff": _number(self.stuff.pq),
            "frames": self.frames,
            "clips": self.clips,
            "windows": [
                {
                    "window": w.window,
                    "k": w.k,
                    "windows": w.windows,
                    **{
                        name: {
                            "pq": _number(q.pq),
                            "sq": _number(q.sq),
                            "rq": _number(q.rq),
                            "classes": q.classes,
                        }
                        for name, q in (("all", w.all), ("things", w.things), ("stuff", w.stuff))
                    },
                    "per_class": {
                        c.name: {
                            "isthing": c.isthing,
                            "pq": _number(c.pq),
                            "sq": _number(c.sq),
                            "rq": _number(c.rq),
                            "iou": c.iou,
                            "tp": c.tp,
                            "fp": c.fp,
                            "fn": c.fn,
                        }
                        for c in w.classes
                    },
                }
                for w in self.windows
            ],
        }

    def tables(self) -> tuple[Table, Table]:
        """For a rich console: VPQ / VPQ-Th / VPQ-St by k, and PQ by class and k."""
        clips, frames = _plural(self.clips, "clip"), _plural(self.frames, "labelled frame")
        summary = Table(title=f"VPQ / VPQ-Th / VPQ-St in percent, {clips}, {frames}")
        classes = Table(title="VPQ by class in percent; TP/FP/FN tubes over all windows")
        classes.add_column("class")
        for w in self.windows:
            summary.add_column(f"k = {w.k}", justify="right")
            classes.add_column(f"k = {w.k}", justify="right")
        summary.add_column("mean", justify="right")
        classes.add_column("mean", justify="right")
        classes.add_column("TP/FP/FN", justify="right")
        columns = [(w.all, w.things, w.stuff) for w in self.windows] + [(self.all, self.things, self.stuff)]
        summary.add_row(*(" / ".join(_percent(q.pq) for q in column) for column in columns))
        for row in zip(*(w.classes for w in self.windows)):
            sums = (sum(c.tp for c in row), sum(c.fp for c in row), sum(c.fn for c in row))
            if any(sums):
                scores = [c.pq for c in row]
                mean = sum(scores) / len(scores)
                classes.add_row(row[0].name, *map(_percent, scores), _percent(mean), "/".join(map(str, sums)))
        for w in self.windows:
            if not w.windows:
                summary.caption = (
                    f"no clip has {w.window} labelled frames, so k = {w.k} and the mean have no value"
                )
                break
        return summary, classes

    def __str__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=120, color_system=None)
        for table in self.tables():
            console.print(table)
        return text.getvalue()


class VPQ:
    """Adds up tubes frame by frame; `compute` makes the scores.

    Feed the labelled frames of a clip in order, then `end_clip`. Windows lie within a clip, start at every
    frame and are never partial: a clip of T labelled frames has T - n + 1 windows of n, and none if T < n.
    Only the tables of the last frames of the open clip are held.

    A class that occurs in neither truth nor prediction is left out of the means; one that is only predicted
    counts with 0. A tube is a (class, id): an id that changes its class is two tubes.

    Args:
        taxonomy: the classes of truth and prediction.
        windows: window lengths in labelled frames, each at least 1, ascending.
        spacing: video frames from one labelled frame to the next; only names windows: k = spacing (n - 1).

    Raises:
        UserError: windows are none, below 1, or not ascending.
    """

    def __init__(self, taxonomy: Taxonomy, windows: Sequence[int] = (1, 2, 3, 4), spacing: int = 5) -> None:
        if not windows or windows[0] < 1 or list(windows) != sorted(set(windows)):
            raise UserError(f"window lengths must ascend from 1 or more, got {tuple(windows)}")
        self.taxonomy = taxonomy
        self.windows = tuple(windows)
        self.spacing = spacing
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._recent: deque[FrameTable] = deque(maxlen=self.windows[-1])
        self._closed = [TubeCounts.zero(len(self.taxonomy)) for _ in self.windows]
        self._open = [TubeCounts.zero(len(self.taxonomy)) for _ in self.windows]
        self._frames = 0
        self._clips = 0

    def update(self, prediction: PanopticFrame, truth: PanopticFrame) -> None:
        """Count the next labelled frame of the open clip.

        Raises:
            ValueError: the two differ in size, or don't fit the taxonomy.
        """
        self.update_table(compare_frames(prediction, truth))

    def update_table(self, table: FrameTable) -> None:
        """Count the next labelled frame of the open clip, already reduced by `compare_frames`.

        Raises:
            ValueError: the table doesn't fit the taxonomy.
        """
        table.check(self.taxonomy)
        self._recent.append(table)
        self._frames += 1
        for length, counts in zip(self.windows, self._open):
            if length <= len(self._recent):
                count_window(join_tables(list(self._recent)[-length:]), self.taxonomy, counts)

    def end_clip(self) -> None:
        """The next frame starts a new clip: no window reaches into it. Does nothing if no clip is open."""
        if not self._recent:
            return
        # By clip first: the published script adds in this order, so that IoU sums round as its do.
        self._closed = [closed + opened for closed, opened in zip(self._closed, self._open)]
        self._open = [TubeCounts.zero(len(self.taxonomy)) for _ in self.windows]
        self._recent.clear()
        self._clips += 1

    def merge(self, other: VPQ) -> None:
        """Add what `other` counted on other clips; ends the open clip of both.

        Raises:
            ValueError: the two count different classes or windows.
        """
        if (self.taxonomy, self.windows) != (other.taxonomy, other.windows):
            raise ValueError("only metrics of the same taxonomy and windows can be merged")
        self.end_clip()
        other.end_clip()
        self._closed = [mine + theirs for mine, theirs in zip(self._closed, other._closed)]
        self._frames += other._frames
        self._clips += other._clips

    def compute(self) -> VPQResult:
        """The scores of all frames so far; an open clip counts with the windows it has."""
        windows = tuple(
            _window_result(n, self.spacing * (n - 1), closed + opened, self.taxonomy)
            for n, closed, opened in zip(self.windows, self._closed, self._open)
        )
        return VPQResult(
            all=_mean([w.all for w in windows]),
            things=_mean([w.things for w in windows]),
            stuff=_mean([w.stuff for w in windows]),
            windows=windows,
            frames=self._frames,
            clips=self._clips + bool(self._recent),
        )


def _window_result(window: int, k: int, counts: TubeCounts, taxonomy: Taxonomy) -> WindowResult:
    """PQ = IoU sum / (TP + FP/2 + FN/2) = SQ x RQ by class, and the means over the classes that occurred."""
    classes: list[ClassQuality] = []
    for i, category in enumerate(taxonomy.categories):
        iou, tp, fp, fn = float(counts.iou[i]), int(counts.tp[i]), int(counts.fp[i]), int(counts.fn[i])
        tubes = tp + 0.5 * fp + 0.5 * fn
        pq, rq = (iou / tubes, tp / tubes) if tubes else (math.nan, math.nan)
        sq = iou / tp if tp else (0.0 if tubes else math.nan)
        classes.append(ClassQuality(category.name, category.isthing, pq, sq, rq, iou, tp, fp, fn))
    return WindowResult(
        window=window,
        k=k,
        windows=counts.windows,
        all=_over_classes(classes),
        things=_over_classes([c for c in classes if c.isthing]),
        stuff=_over_classes([c for c in classes if not c.isthing]),
        classes=tuple(classes),
    )


def _over_classes(classes: Sequence[ClassQuality]) -> MeanQuality:
    """Mean over the classes that occurred."""
    seen = [c for c in classes if c.tp + c.fp + c.fn]
    pq, sq, rq = (
        sum(values) / len(seen) if seen else math.nan
        for values in ([c.pq for c in seen], [c.sq for c in seen], [c.rq for c in seen])
    )
    return MeanQuality(pq, sq, rq, len(seen))


def _mean(windows: Sequence[MeanQuality]) -> MeanQuality:
    """Mean over the window lengths."""
    n = len(windows)
    return MeanQuality(
        sum(w.pq for w in windows) / n,
        sum(w.sq for w in windows) / n,
        sum(w.rq for w in windows) / n,
        max(w.classes for w in windows),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
