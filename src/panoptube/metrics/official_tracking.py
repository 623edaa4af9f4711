"""Tracking of things from files read as the published scripts read them: segment ids are track ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from panoptube.metrics.official_files import Listed, OfficialFrame, Video
from panoptube.metrics.table import VOID_KEY, FrameTable, add_up
from panoptube.metrics.tracking import Tracking
from panoptube.panoptic.frame import Category, Taxonomy

VOID_ID = 0
UNLISTED_KEY = 255 << 32
"""Of true pixels whose id the JSON doesn't list: no class has it, and it excuses nothing."""


def official_tracking(videos: Sequence[Video], categories: Sequence[Category]) -> Tracking:
    """All masks of the videos, counted. The ignore region is id 0 and every crowd segment of any class.

    Raises:
        UserError: TrackEval isn't installed, or a PNG is broken.
    """
    taxonomy = Taxonomy("official", tuple(sorted(categories, key=lambda c: c.isthing)))
    label_of = {c.id: i for i, c in enumerate(taxonomy.categories)}
    tracking = Tracking(taxonomy)
    for video in videos:
        for frame in video:
            tracking.update_table(_keys(frame, taxonomy, label_of))
        tracking.end_clip()
    return tracking


def _keys(frame: OfficialFrame, taxonomy: Taxonomy, label_of: dict[int, int]) -> FrameTable:
    def key(segment: Listed, is_truth: bool) -> int:
        label = label_of.get(segment.category)
        if is_truth and segment.iscrowd:
            return VOID_KEY
        if label is None:
            return UNLISTED_KEY
        return (label + 1) << 32 | (segment.id if taxonomy.is_thing(label) else 0)

    columns = []
    for is_truth, listed, ids in (
        (True, frame.truth, frame.table.truth),
        (False, frame.prediction, frame.table.prediction),
    ):
        keys = {s.id: key(s, is_truth) for s in listed}
        if is_truth:
            keys[VOID_ID] = VOID_KEY
        found, inverse = np.unique(ids, return_inverse=True)
        columns.append(np.array([keys.get(i, UNLISTED_KEY) for i in found.tolist()], np.int64)[inverse])
    return add_up(columns[0], columns[1], frame.table.pixels)
