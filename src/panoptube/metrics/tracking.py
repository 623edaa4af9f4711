"""Tracking of the things: HOTA, IDF1 and MOTSA, computed by TrackEval (extra `tracking`) from our tables.

The protocol is that of KITTI-MOTS: each thing class by itself; masks of one class match if their IoU is at
least 1/2; a predicted mask that matches nothing and lies by more than half on the ignore region (void, and
crowd of any class) is left out. TrackEval gets the matrices of IoUs that its own reader would make from
files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from panoptube.errors import UserError
from panoptube.metrics.printed import Printed
from panoptube.metrics.quality import number, percent
from panoptube.metrics.table import VOID_KEY, FrameTable, compare_frames, key_labels, key_tracks
from panoptube.panoptic.frame import PanopticFrame, Taxonomy

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class ClassTracking:
    """One thing class over all clips.

    Attributes:
        name: of the class.
        hota, deta, assa: means over the thresholds 0.05, 0.1, ..., 0.95, as fractions.
        idf1: as a fraction.
        motsa, smotsa: 1 is best; below 0 if there are more errors than true masks.
        id_switches: number.
        fields: everything that TrackEval says, by metric (HOTA, CLEAR, Identity) and field; HOTA's fields are
            arrays over the thresholds.
        hota_by_clip: HOTA of each clip alone.
    """

    name: str
    hota: float
    deta: float
    assa: float
    idf1: float
    motsa: float
    smotsa: float
    id_switches: int
    fields: dict[str, dict[str, Any]]
    hota_by_clip: tuple[float, ...]


@dataclass(frozen=True)
class TrackingResult(Printed):
    """By thing class, and the mean over those that occur in truth or prediction; nan if none does."""

    hota: float
    idf1: float
    motsa: float
    classes: tuple[ClassTracking, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None, classes are keyed by name."""
        return {
            "hota": number(self.hota),
            "idf1": number(self.idf1),
            "motsa": number(self.motsa),
            "per_class": {
                c.name: {
                    "hota": c.hota,
                    "deta": c.deta,
                    "assa": c.assa,
                    "idf1": c.idf1,
                    "motsa": c.motsa,
                    "smotsa": c.smotsa,
                    "id_switches": c.id_switches,
                }
                for c in self.classes
            },
        }

    def tables(self) -> list[Table]:
        """For a rich console."""
        table = Table(title="Tracking of the things in percent (TrackEval, as on KITTI-MOTS)")
        table.add_column("class")
        for column in ("HOTA", "DetA", "AssA", "IDF1", "MOTSA", "sMOTSA", "id switches"):
            table.add_column(column, justify="right")
        for c in self.classes:
            scores = (c.hota, c.deta, c.assa, c.idf1, c.motsa, c.smotsa)
            table.add_row(c.name, *map(percent, scores), str(c.id_switches))
        mean = [percent(v) for v in (self.hota, self.idf1, self.motsa)]
        table.add_row("mean", mean[0], "", "", mean[1], mean[2], "", "")
        return [table]


@dataclass(frozen=True)
class _Detections:
    """One class in one frame: ids of true and predicted masks, and their IoUs."""

    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    iou: NDArray[np.float64]


class Tracking:
    """Adds up masks frame by frame; `compute` lets TrackEval make the scores.

    Feed the frames of a clip in order, then `end_clip`. Held are the ids and IoUs of each frame.

    Args:
        taxonomy: of truth and prediction.

    Raises:
        UserError: TrackEval isn't installed.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self._metrics = _trackeval()
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        # By clip, in a clip by frame, in a frame by thing class.
        self._clips: list[list[list[_Detections]]] = []
        self._open: list[list[_Detections]] = []

    def update(self, prediction: PanopticFrame, truth: PanopticFrame) -> None:
        """Count the next frame of the open clip.

        Raises:
            ValueError: the two differ in size, or don't fit the taxonomy.
        """
        table = compare_frames(prediction, truth)
        table.check(self.taxonomy)
        self.update_table(table)

    def update_table(self, table: FrameTable) -> None:
        """Count the next frame of the open clip, already reduced by `compare_frames`."""
        labels = key_labels(table.truth)
        things = range(self.taxonomy.num_stuff, len(self.taxonomy))
        crowd = np.isin(labels, things) & (key_tracks(table.truth) == 0)
        ignored = crowd | (table.truth == VOID_KEY)
        self._open.append([_detections(table, label, ignored) for label in things])

    def end_clip(self, name: str | None = None) -> None:
        """The next frame starts a new clip, in which ids mean other objects. Does nothing if no clip is
        open.
        """
        if self._open:
            self._clips.append(self._open)
            self._open = []

    def merge(self, other: Tracking) -> None:
        """Add what `other` counted on other clips; ends the open clip of both.

        Raises:
            ValueError: the two count different classes.
        """
        if self.taxonomy != other.taxonomy:
            raise ValueError("only metrics of the same taxonomy can be merged")
        self.end_clip()
        other.end_clip()
        self._clips += other._clips

    def compute(self) -> TrackingResult:
        """The scores of all frames so far, with those of an open clip."""
        scored = [self.compute_class(label) for label in range(self.taxonomy.num_stuff, len(self.taxonomy))]
        classes = [c for c in scored if any(c.fields["CLEAR"][n] for n in ("CLR_TP", "CLR_FN", "CLR_FP"))]
        hota, idf1, motsa = (
            sum(values) / len(values) if values else math.nan
            for values in (
                [c.hota for c in classes],
                [c.idf1 for c in classes],
                [c.motsa for c in classes],
            )
        )
        return TrackingResult(hota, idf1, motsa, tuple(classes))

    def compute_class(self, label: int) -> ClassTracking:
        """The scores of one thing class, whether it occurs or not."""
        clips = [*self._clips, self._open] if self._open else self._clips
        place = label - self.taxonomy.num_stuff
        sequences = [_sequence([frame[place] for frame in clip]) for clip in clips]
        return _class_tracking(self.taxonomy.names[label], sequences, self._metrics)


def _trackeval() -> ModuleType:
    try:
        import trackeval.metrics  # type: ignore[import-untyped]
    except ImportError as error:
        raise UserError(
            f"HOTA, IDF1 and MOTSA need TrackEval ({error}); install panoptube[tracking]"
        ) from error
    found: ModuleType = trackeval.metrics
    return found


def _detections(table: FrameTable, label: int, ignored: NDArray[np.bool_]) -> _Detections:
    """The masks of a class in one frame, without predictions that the ignore region excuses."""
    from scipy.optimize import linear_sum_assignment

    is_true = (key_labels(table.truth) == label) & (key_tracks(table.truth) > 0)
    is_predicted = key_labels(table.prediction) == label
    truths, predictions = np.unique(table.truth[is_true]), np.unique(table.prediction[is_predicted])
    shape = len(truths), len(predictions)
    true_area, area, lost = np.zeros(shape[0], np.int64), np.zeros(shape[1], np.int64), np.zeros(shape[1])
    np.add.at(true_area, np.searchsorted(truths, table.truth[is_true]), table.pixels[is_true])
    place = np.searchsorted(predictions, table.prediction[is_predicted])
    np.add.at(area, place, table.pixels[is_predicted])
    np.add.at(lost, place, table.pixels[is_predicted] * ignored[is_predicted])
    shared = np.zeros(shape, np.int64)
    both = is_true & is_predicted
    rows = np.searchsorted(truths, table.truth[both]), np.searchsorted(predictions, table.prediction[both])
    shared[rows] = table.pixels[both]
    iou = shared / (true_area[:, None] + area - shared)

    unmatched = np.ones(shape[1], bool)
    if iou.size:
        score = np.where(iou < 0.5 - EPS, -10000, iou)
        row, column = linear_sum_assignment(-score)
        unmatched[column[score[row, column] > EPS]] = False
    keep = ~(unmatched & (lost / np.maximum(area, 1) > 0.5 + EPS))
    return _Detections(truths, predictions[keep], iou[:, keep])


def _sequence(frames: Sequence[_Detections]) -> dict[str, Any]:
    """One class of one clip as TrackEval's metrics take it: ids are numbered from 0."""
    truths = np.unique(np.concatenate([f.truth for f in frames]))
    predictions = np.unique(np.concatenate([f.prediction for f in frames]))
    return {
        "num_timesteps": len(frames),
        "num_gt_ids": len(truths),
        "num_tracker_ids": len(predictions),
        "num_gt_dets": sum(len(f.truth) for f in frames),
        "num_tracker_dets": sum(len(f.prediction) for f in frames),
        "gt_ids": [np.searchsorted(truths, f.truth) for f in frames],
        "tracker_ids": [np.searchsorted(predictions, f.prediction) for f in frames],
        "similarity_scores": [f.iou for f in frames],
    }


def _class_tracking(name: str, sequences: Sequence[dict[str, Any]], metrics: ModuleType) -> ClassTracking:
    quiet = {"PRINT_CONFIG": False}
    makers = {"HOTA": metrics.HOTA(), "CLEAR": metrics.CLEAR(quiet), "Identity": metrics.Identity(quiet)}
    alone = {
        key: {str(i): metric.eval_sequence(sequence) for i, sequence in enumerate(sequences)}
        for key, metric in makers.items()
    }
    fields = {key: metric.combine_sequences(alone[key]) for key, metric in makers.items()}
    return ClassTracking(
        name=name,
        hota=float(np.mean(fields["HOTA"]["HOTA"])),
        deta=float(np.mean(fields["HOTA"]["DetA"])),
        assa=float(np.mean(fields["HOTA"]["AssA"])),
        idf1=float(fields["Identity"]["IDF1"]),
        motsa=float(fields["CLEAR"]["MOTA"]),
        smotsa=float(fields["CLEAR"]["sMOTA"]),
        id_switches=int(fields["CLEAR"]["IDSW"]),
        fields=fields,
        hota_by_clip=tuple(float(np.mean(r["HOTA"])) for r in alone["HOTA"].values()),
    )
