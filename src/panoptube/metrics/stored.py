"""From two stored frames to their table, without making maps of classes and ids in between."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from panoptube.errors import UserError
from panoptube.metrics.table import FrameTable, add_up, compare_ids, segment_keys
from panoptube.panoptic.formats import StoredFrame
from panoptube.panoptic.segment_ids import IdMap, Listing


class _Maps(threading.local):
    """The id maps that a thread read last, to be filled again."""

    predicted: IdMap | None = None
    true: IdMap | None = None


_maps = _Maps()


def compare_stored(prediction: StoredFrame, truth: StoredFrame) -> FrameTable:
    """Reduce a frame to its table, as `compare_frames` of the two.

    Raises:
        UserError: a PNG is missing, broken, of another size than the other, or doesn't fit its JSON.
    """
    predicted_ids = _maps.predicted = prediction.ids(_maps.predicted)
    true_ids = _maps.true = truth.ids(_maps.true)
    if predicted_ids.shape != true_ids.shape:
        raise UserError(
            f"{prediction.path} is {_size(predicted_ids)}, its truth is {_size(true_ids)}; "
            "predict at the size of the labels"
        )
    table = compare_ids(predicted_ids, true_ids)
    return add_up(
        _keys(truth, table.truth, table.pixels),
        _keys(prediction, table.prediction, table.pixels),
        table.pixels,
    )


def _keys(frame: StoredFrame, ids: NDArray[np.int64], pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    try:
        listing = Listing(frame.segments, frame.taxonomy)
        entry = listing.find(ids, pixels)
    except UserError as error:
        raise UserError(f"{frame.path}: {error}") from error
    return segment_keys(listing.labels, listing.tracks)[entry]


def _size(ids: NDArray[np.uint32]) -> str:
    return f"{ids.shape[1]} x {ids.shape[0]} pixels"
