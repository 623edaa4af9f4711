"""Matching true and predicted tubes of one window (dossier 13.1).

A *tube* is all pixels of one (class, id) in a window of frames; in a window of one frame it is a segment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from panoptube.metrics.quality import TubeCounts
from panoptube.metrics.table import VOID_KEY, FrameTable, key_labels, key_tracks
from panoptube.panoptic.frame import Taxonomy


class Matching(NamedTuple):
    """The outcome for one window.

    matched_truth, matched_prediction: (M,) int64 keys of the pairs.
    iou: (M,) float64 in (1/2, 1].
    missed: (FN,) int64 keys of true tubes.
    surplus: (FP,) int64 keys of predicted tubes.
    """

    matched_truth: NDArray[np.int64]
    matched_prediction: NDArray[np.int64]
    iou: NDArray[np.float64]
    missed: NDArray[np.int64]
    surplus: NDArray[np.int64]


def match_tubes(table: FrameTable, taxonomy: Taxonomy, min_tube: int = 0) -> Matching:
    """A true and a predicted tube of one class match if IoU > 1/2, where pixels of the prediction that are
    void in the truth are left out of the union. A true tube without a match is missed. A predicted tube
    without a match is surplus, unless more than half of it lies on void or on crowd of its own class. Crowd
    is neither matched nor missed, and all crowd of a class excuses (the published script remembers one
    crowd segment of each class). A prediction that says crowd (a thing with id 0) is judged as one tube
    like any other. Void in the prediction is no tube, but stays in the union.

    Args:
        table: overlaps over all frames of the window.
        taxonomy: of its classes.
        min_tube: true tubes of fewer pixels are neither matched nor missed (dossier 13.2); crowd and void of
            any size excuse.
    """
    truths, truth_of = np.unique(table.truth, return_inverse=True)
    predictions, prediction_of = np.unique(table.prediction, return_inverse=True)
    truth_label, prediction_label = key_labels(truths), key_labels(predictions)
    truth_area = _sum_by(truth_of, table.pixels, len(truths))
    prediction_area = _sum_by(prediction_of, table.pixels, len(predictions))
    crowd = (truth_label >= taxonomy.num_stuff) & (key_tracks(truths) == 0)
    wanted = (truths != VOID_KEY) & ~crowd & (truth_area >= min_tube)

    on_void = table.truth == VOID_KEY
    same_class = truth_label[truth_of] == prediction_label[prediction_of]
    void = _sum_by(prediction_of[on_void], table.pixels[on_void], len(predictions))
    union = prediction_area[prediction_of] + truth_area[truth_of] - table.pixels - void[prediction_of]
    match = wanted[truth_of] & same_class & (2 * table.pixels > union)
    wanted[truth_of[match]] = False

    excused = on_void | (crowd[truth_of] & same_class)
    forgiven = _sum_by(prediction_of[excused], table.pixels[excused], len(predictions))
    surplus = (predictions != VOID_KEY) & (2 * forgiven <= prediction_area)
    surplus[prediction_of[match]] = False
    return Matching(
        table.truth[match],
        table.prediction[match],
        table.pixels[match] / union[match],
        truths[wanted],
        predictions[surplus],
    )


def count_window(table: FrameTable, taxonomy: Taxonomy, counts: TubeCounts, min_tube: int = 0) -> None:
    """Match the tubes of one window and add the outcome to `counts`, changed in place."""
    found = match_tubes(table, taxonomy, min_tube)
    labels = key_labels(found.matched_truth)
    np.add.at(counts.iou, labels, found.iou)
    np.add.at(counts.tp, labels, 1)
    np.add.at(counts.fp, key_labels(found.surplus), 1)
    np.add.at(counts.fn, key_labels(found.missed), 1)
    counts.windows += 1


def _sum_by(group: NDArray[np.intp], pixels: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """(groups,) int64: pixels added up by group."""
    sums = np.zeros(groups, np.int64)
    np.add.at(sums, group, pixels)
    return sums
