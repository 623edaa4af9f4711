"""Panoptic quality from counts: PQ = IoU sum / (TP + FP/2 + FN/2) = SQ x RQ by class, and means over classes.

C: number of classes. Counts add up and ratios don't, so only counts are added and ratios are made last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panoptube.panoptic.frame import Category


@dataclass
class TubeCounts:
    """What matching adds up, by class.

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

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(C,) bool: classes with a TP, FP or FN."""
        events: NDArray[np.int64] = self.tp + self.fp + self.fn
        return np.asarray(events > 0)

    @property
    def tubes(self) -> NDArray[np.float64]:
        """(C,) float64, TP + FP/2 + FN/2: what the IoU sum would be without an error."""
        tubes: NDArray[np.float64] = self.tp + 0.5 * self.fp + 0.5 * self.fn
        return tubes


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

    def to_dict(self) -> dict[str, Any]:
        return {
            "isthing": self.isthing,
            "pq": number(self.pq),
            "sq": number(self.sq),
            "rq": number(self.rq),
            "iou": self.iou,
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
        }


@dataclass(frozen=True)
class MeanQuality:
    """Means over the `classes` classes that occurred, as fractions; nan if none did."""

    pq: float
    sq: float
    rq: float
    classes: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "pq": number(self.pq),
            "sq": number(self.sq),
            "rq": number(self.rq),
            "classes": self.classes,
        }


@dataclass(frozen=True)
class WindowResult:
    """All `windows` windows of `window` frames; `k` is the papers' name for them."""

    window: int
    k: int
    windows: int
    all: MeanQuality
    things: MeanQuality
    stuff: MeanQuality
    classes: tuple[ClassQuality, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "k": self.k,
            "windows": self.windows,
            "all": self.all.to_dict(),
            "things": self.things.to_dict(),
            "stuff": self.stuff.to_dict(),
            "per_class": {c.name: c.to_dict() for c in self.classes},
        }


def window_result(
    window: int,
    k: int,
    counts: TubeCounts,
    categories: Sequence[Category],
    excluded: Sequence[str] = (),
    absent: float = math.nan,
) -> WindowResult:
    """Ratios by class, and their means over the classes that occurred.

    Args:
        window, k: length of the windows, and their name.
        counts: of C classes.
        categories: the C classes.
        excluded: names of classes to leave out.
        absent: score of a class that never occurred.
    """
    classes: list[ClassQuality] = []
    for i, category in enumerate(categories):
        if category.name in excluded:
            continue
        iou, tp, fp, fn = float(counts.iou[i]), int(counts.tp[i]), int(counts.fp[i]), int(counts.fn[i])
        tubes = tp + 0.5 * fp + 0.5 * fn
        pq, rq = (iou / tubes, tp / tubes) if tubes else (absent, absent)
        sq = iou / tp if tp else (0.0 if tubes else absent)
        classes.append(ClassQuality(category.name, category.isthing, pq, sq, rq, iou, tp, fp, fn))
    return WindowResult(
        window=window,
        k=k,
        windows=counts.windows,
        all=mean_over_classes(classes),
        things=mean_over_classes([c for c in classes if c.isthing]),
        stuff=mean_over_classes([c for c in classes if not c.isthing]),
        classes=tuple(classes),
    )


def mean_over_classes(classes: Sequence[ClassQuality]) -> MeanQuality:
    """Mean over the classes that occurred."""
    seen = [c for c in classes if c.tp + c.fp + c.fn]
    pq, sq, rq = (
        sum(values) / len(seen) if seen else math.nan
        for values in ([c.pq for c in seen], [c.sq for c in seen], [c.rq for c in seen])
    )
    return MeanQuality(pq, sq, rq, len(seen))


def mean_over_windows(windows: Sequence[MeanQuality]) -> MeanQuality:
    """Mean over the window lengths; nan if one of them has no value."""
    n = len(windows)
    return MeanQuality(
        sum(w.pq for w in windows) / n,
        sum(w.sq for w in windows) / n,
        sum(w.rq for w in windows) / n,
        max(w.classes for w in windows),
    )


def lost_points(part: TubeCounts, total: TubeCounts, kept: NDArray[np.bool_]) -> float:
    """What a part of the windows costs the mean PQ over classes, as a fraction.

    1 - PQ of a class is (tubes - IoU sum) / tubes, and both sums go over the windows. So each part has its
    share, and the shares of all parts add up to 1 - PQ.

    Args:
        part, total: of the same C classes; `part` is contained in `total`.
        kept: (C,) bool, classes that the mean contains.
    """
    seen = kept & total.seen
    if not seen.any():
        return 0.0
    return float(((part.tubes - part.iou)[seen] / total.tubes[seen]).sum() / seen.sum())


def number(value: float) -> float | None:
    """JSON has neither nan nor infinity."""
    return value if math.isfinite(value) else None


def percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def plural(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"
