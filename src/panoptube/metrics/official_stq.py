"""STQ as the published scripts compute it: deeplab2's on Cityscapes-VPS, and VIPSeg's.

deeplab2 takes maps of class and instance number; files become such maps as in its Cityscapes-VPS-like
encoding: the numbers 1, 2, ... for the ids of things, 0 for stuff and crowd, void for what isn't listed.
VIPSeg's script numbers all ids of a video from 0, and 0 on a thing means crowd there, whatever `iscrowd`
says. `metrics/stq.py` is the corrected version; docs/metrics.md names each difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from panoptube.errors import UserError
from panoptube.metrics.official_files import Video
from panoptube.metrics.stq import ClipCounts, STQResult, association, stq_result
from panoptube.metrics.table import add_up
from panoptube.panoptic.frame import Category

Script = Literal["deeplab2", "vipseg"]


def official_stq(videos: Sequence[Video], categories: Sequence[Category], script: Script) -> STQResult:
    """STQ with predicted void as one more class.

    Raises:
        UserError: a PNG is broken, or a category is unknown.
    """
    clips = [_count(str(i), video, categories, script) for i, video in enumerate(videos) if video]
    return stq_result(clips, [(c.name, c.isthing) for c in categories], predicted_void_is_a_class=True)


def official_confusion(
    videos: Sequence[Video], categories: Sequence[Category], script: Script
) -> NDArray[np.int64]:
    """(C + 1, C + 1) int64 pixels over all videos, row = truth, column = prediction, last = void."""
    total = np.zeros((len(categories) + 1, len(categories) + 1), np.int64)
    for video in filter(None, videos):
        total += _count("", video, categories, script).confusion
    return total


def _count(name: str, video: Video, categories: Sequence[Category], script: Script) -> ClipCounts:
    """One video. Labels are class * 2**32 + number, where class C is void."""
    position = {c.id: i for i, c in enumerate(categories)}
    void = len(categories)
    numbers: tuple[dict[int, int], dict[int, int]] = ({}, {})
    rows: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []
    for frame in video:
        sides = []
        for side, listed, ids in (
            (0, frame.truth, frame.table.truth),
            (1, frame.prediction, frame.table.prediction),
        ):
            label_of: dict[int, int] = {}
            for segment in listed:
                if segment.category not in position:
                    png = frame.pred_png if side else frame.truth_png
                    raise UserError(
                        f"{png}: segment {segment.id} has category_id {segment.category}, "
                        "which the truth doesn't have"
                    )
                number = numbers[side].setdefault(segment.id, len(numbers[side]))
                place = position[segment.category]
                if script == "deeplab2":
                    thing = categories[place].isthing and not (side == 0 and segment.iscrowd)
                    number = number + 1 if thing else 0
                label_of[segment.id] = place << 32 | number
            found, inverse = np.unique(ids, return_inverse=True)
            labels = np.array([label_of.get(i, void << 32) for i in found.tolist()], np.int64)
            sides.append(labels[inverse])
        rows.append((sides[0], sides[1], frame.table.pixels))

    truth, prediction, pixels = (np.concatenate(column) for column in zip(*rows))
    table = add_up(truth, prediction, pixels)
    isthing = np.array([*(c.isthing for c in categories), False])
    thing = isthing[table.truth >> 32]
    numbered = (table.truth & 0xFFFFFFFF) > 0
    total, tubes = association(
        table.truth,
        table.prediction,
        table.pixels,
        is_tube=thing & numbered,
        is_crowd=thing & ~numbered,
        is_predicted=isthing[table.prediction >> 32],
    )
    confusion = np.zeros((void + 1, void + 1), np.int64)
    np.add.at(confusion, (table.truth >> 32, table.prediction >> 32), table.pixels)
    confusion[void] = 0
    return ClipCounts(name, len(video), total, tubes, confusion)
