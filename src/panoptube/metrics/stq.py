"""Segmentation and tracking quality, STQ = sqrt(AQ x SQ) (Weber et al. 2021; dossier 13.4).

AQ asks whether pixels keep their identity through a whole clip, whatever their class; SQ is the mean IoU of
the classes. C: number of classes. A *tube* is a (class, id) of a thing over the whole clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from panoptube.metrics.printed import Printed
from panoptube.metrics.quality import number, percent, plural
from panoptube.metrics.table import (
    VOID_KEY,
    FrameTable,
    compare_frames,
    join_tables,
    key_labels,
    key_tracks,
)
from panoptube.panoptic.frame import PanopticFrame, Taxonomy


@dataclass(frozen=True)
class ClassIoU:
    """One class; `iou` is nan where it occurs in neither truth nor prediction."""

    name: str
    isthing: bool
    iou: float


@dataclass(frozen=True)
class ClipSTQ:
    """One clip by itself: its own tubes and classes. nan where nothing is labelled."""

    name: str
    frames: int
    tubes: int
    stq: float
    aq: float
    sq: float


@dataclass(frozen=True)
class STQResult(Printed):
    """Scores as fractions in [0, 1]; nan if no pixel of the truth is labelled.

    Attributes:
        stq, aq, sq: over all clips. AQ is the mean over all true tubes of all clips, 0 without any.
        tubes: true tubes.
        classes: IoU by class.
        clips: by clip.
    """

    stq: float
    aq: float
    sq: float
    tubes: int
    classes: tuple[ClassIoU, ...]
    clips: tuple[ClipSTQ, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None, classes and clips are keyed by name."""
        return {
            "stq": number(self.stq),
            "aq": number(self.aq),
            "sq": number(self.sq),
            "tubes": self.tubes,
            "per_class": {c.name: {"isthing": c.isthing, "iou": number(c.iou)} for c in self.classes},
            "per_clip": {
                c.name: {
                    "frames": c.frames,
                    "tubes": c.tubes,
                    "stq": number(c.stq),
                    "aq": number(c.aq),
                    "sq": number(c.sq),
                }
                for c in self.clips
            },
        }

    def tables(self) -> list[Table]:
        """For a rich console."""
        table = Table(title=f"STQ in percent, {plural(self.tubes, 'true tube')}")
        for column in ("STQ", "AQ", "SQ"):
            table.add_column(column, justify="right")
        table.add_row(percent(self.stq), percent(self.aq), percent(self.sq))
        classes = Table(title="IoU by class in percent")
        classes.add_column("class")
        classes.add_column("IoU", justify="right")
        for c in self.classes:
            if not math.isnan(c.iou):
                classes.add_row(c.name, percent(c.iou))
        return [table, classes]


@dataclass(frozen=True)
class ClipCounts:
    """What a clip adds to STQ.

    Attributes:
        name: of the clip.
        frames: number of frames.
        association: sum over true tubes of their association, each in [0, 1].
        tubes: number of true tubes.
        confusion: (C + 1, C + 1) int64 pixels, row = truth, column = prediction, last = void. The void row is
            0: what the truth doesn't label isn't judged.
    """

    name: str
    frames: int
    association: float
    tubes: int
    confusion: NDArray[np.int64]


def association(
    truth: NDArray[np.int64],
    prediction: NDArray[np.int64],
    pixels: NDArray[np.int64],
    is_tube: NDArray[np.bool_],
    is_crowd: NDArray[np.bool_],
    is_predicted: NDArray[np.bool_],
) -> tuple[float, int]:
    """The association of the true tubes of one clip, added up, and their number.

    Of a true tube g it is 1/|g| times the sum over predicted tubes p of |g & p|^2 / |g | p|. Pixels of the
    truth's crowd don't count for |p|; those on its stuff and void do.

    Args:
        truth, prediction: (P,) int64 tube of each row.
        pixels: (P,) int64, of the row, more than 0.
        is_tube, is_crowd: (P,) bool, the row lies on a true tube, or on crowd.
        is_predicted: (P,) bool, the row lies on a predicted tube.
    """
    truths, truth_of = np.unique(truth[is_tube], return_inverse=True)
    if not len(truths):
        return 0.0, 0
    truth_size = np.zeros(len(truths), np.int64)
    np.add.at(truth_size, truth_of, pixels[is_tube])
    judged = is_predicted & ~is_crowd
    predictions, prediction_of = np.unique(prediction[judged], return_inverse=True)
    prediction_size = np.zeros(len(predictions), np.int64)
    np.add.at(prediction_size, prediction_of, pixels[judged])

    both = is_tube & is_predicted
    g, p = np.searchsorted(truths, truth[both]), np.searchsorted(predictions, prediction[both])
    pairs, pair_of = np.unique(g * max(len(predictions), 1) + p, return_inverse=True)
    shared = np.zeros(len(pairs), np.int64)
    np.add.at(shared, pair_of, pixels[both])
    g, p = np.divmod(pairs, max(len(predictions), 1))
    ratio = shared / (truth_size[g] + prediction_size[p] - shared)
    return float((shared * ratio / truth_size[g]).sum()), len(truths)


def class_ious(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) float64 IoU of each class of an (N, N) confusion; nan where its union is empty."""
    hits = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hits
    return np.where(union > 0, hits / np.maximum(union, 1), math.nan)


def mean_iou(ious: NDArray[np.float64]) -> float:
    """Mean of those that are not nan; nan if none."""
    seen = ious[~np.isnan(ious)]
    return float(seen.sum() / len(seen)) if len(seen) else math.nan


def stq_result(
    clips: Sequence[ClipCounts], names: Sequence[tuple[str, bool]], predicted_void_is_a_class: bool = False
) -> STQResult:
    """The scores.

    Args:
        clips: counts of C classes. names: (name, isthing) of each of the C classes.
        predicted_void_is_a_class: as in deeplab2, where void that was predicted on labelled pixels becomes
        one
            more class, with IoU 0. Otherwise such pixels are missed pixels of their class, no more.
    """
    classes = len(names)
    judged = classes + 1 if predicted_void_is_a_class else classes
    total = np.zeros((classes + 1, classes + 1), np.int64)
    for clip in clips:
        total += clip.confusion
    tubes = sum(c.tubes for c in clips)
    aq = sum(c.association for c in clips) / tubes if tubes else 0.0
    ious = class_ious(total)
    sq = mean_iou(ious[:judged])
    scored: list[ClipSTQ] = []
    for clip in clips:
        clip_aq = clip.association / clip.tubes if clip.tubes else 0.0
        clip_sq = mean_iou(class_ious(clip.confusion)[:judged])
        scored.append(
            ClipSTQ(clip.name, clip.frames, clip.tubes, math.sqrt(clip_aq * clip_sq), clip_aq, clip_sq)
        )
    return STQResult(
        stq=math.sqrt(aq * sq),
        aq=aq,
        sq=sq,
        tubes=tubes,
        classes=tuple(ClassIoU(name, isthing, float(iou)) for (name, isthing), iou in zip(names, ious)),
        clips=tuple(scored),
    )


class STQ:
    """Adds up tubes and classes frame by frame; `compute` makes the scores.

    Feed the frames of a clip in order, then `end_clip`. Crowd (a thing with id 0) of the truth counts for
    SQ and is left out of AQ. Void of the prediction is no class: where it lies on labelled pixels they are
    missed.

    Args:
        taxonomy: the C classes of truth and prediction.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._open: list[FrameTable] = []
        self._clips: list[ClipCounts] = []

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
        self._open.append(table)

    def end_clip(self, name: str | None = None) -> None:
        """The next frame starts a new clip, in which ids mean other objects. Does nothing if no clip is
        open.
        """
        if self._open:
            self._clips.append(self._count(name or str(len(self._clips))))
            self._open = []

    def merge(self, other: STQ) -> None:
        """Add what `other` counted on other clips; ends the open clip of both.

        Raises:
            ValueError: the two count different classes.
        """
        if self.taxonomy != other.taxonomy:
            raise ValueError("only metrics of the same taxonomy can be merged")
        self.end_clip()
        other.end_clip()
        self._clips += other._clips

    def compute(self) -> STQResult:
        """The scores of all frames so far, with those of an open clip."""
        clips = [*self._clips, self._count(str(len(self._clips)))] if self._open else self._clips
        return stq_result(clips, [(c.name, c.isthing) for c in self.taxonomy.categories])

    def _count(self, name: str) -> ClipCounts:
        table = join_tables(self._open)
        labels, predicted = key_labels(table.truth), key_labels(table.prediction)
        thing = labels >= self.taxonomy.num_stuff
        track = key_tracks(table.truth) > 0
        total, tubes = association(
            table.truth,
            table.prediction,
            table.pixels,
            is_tube=thing & track,
            is_crowd=thing & ~track,
            is_predicted=predicted >= self.taxonomy.num_stuff,
        )
        classes = len(self.taxonomy)
        confusion = np.zeros((classes + 1, classes + 1), np.int64)
        judged = table.truth != VOID_KEY
        np.add.at(
            confusion,
            (labels[judged], np.where(predicted[judged] < 0, classes, predicted[judged])),
            table.pixels[judged],
        )
        return ClipCounts(name, len(self._open), total, tubes, confusion)
