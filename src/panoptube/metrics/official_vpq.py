"""VPQ and PQ as the published scripts compute them, bug for bug.

For numbers that must equal published ones, whatever the input. The rules are those that the scripts follow,
not those that they should: where they stop with an error, so does this. `metrics/vpq.py` is the corrected
version; docs/metrics.md names each difference. The code is our own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from panoptube.errors import UserError
from panoptube.metrics.official_files import Listed, OfficialFrame, Video
from panoptube.metrics.protocol import Protocol
from panoptube.metrics.quality import TubeCounts, WindowResult, window_result
from panoptube.metrics.table import join_tables
from panoptube.panoptic.frame import Category

VOID_ID = 0
VIPER_EXCLUDED_ID = 11
"""mobilebarrier; VIPER's script knows it by this number."""


@dataclass(frozen=True)
class Rules:
    """In what the scripts differ.

    Attributes:
        json_areas: areas of true tubes come from the JSON, not from the PNG.
        min_tube: true tubes that have a pixel, but fewer than these, are neither matched nor missed.
        check_iou: an IoU above 1 stops the script.
    """

    json_areas: bool = True
    min_tube: int = 0
    check_iou: bool = True


CITYSCAPES_RULES = Rules()
"""mcahny/vps `tools/eval_vpq.py`, and VIPSeg's `eval_vpq_vspw.py`."""
VIPER_RULES = Rules(json_areas=False, min_tube=32 * 32)
"""mcahny/vps `tools/dataset/viper.py`."""
PANOPTICAPI_RULES = Rules(check_iou=False)
"""cocodataset/panopticapi `evaluation.py`: windows of one frame."""


def count_videos(
    videos: Sequence[Video], window: int, categories: Sequence[Category], rules: Rules
) -> list[TubeCounts]:
    """The counts of each video; a video that is shorter than the window has none.

    Raises:
        UserError: the script would stop; a PNG is broken.
    """
    positions = {c.id: i for i, c in enumerate(categories)}
    counted: list[TubeCounts] = []
    for video in videos:
        counts = TubeCounts.zero(len(categories))
        for start in range(len(video) - window + 1):
            _count_window(video[start : start + window], positions, rules, counts)
        counted.append(counts)
    return counted


def average(
    counted: Sequence[TubeCounts], window: int, protocol: Protocol, categories: Sequence[Category]
) -> WindowResult:
    """Videos added up in their order, and means over classes.

    Raises:
        UserError: the script would stop, because of all classes, things or stuff none occurs.
    """
    total = TubeCounts.zero(len(categories))
    for counts in counted:
        total = total + counts
    excluded = [c.name for c in categories if protocol.name == "viper" and c.id == VIPER_EXCLUDED_ID]
    k = protocol.k(window)
    result = window_result(window, k, total, categories, excluded, absent=0.0)
    for name, group in (("class", result.all), ("thing", result.things), ("stuff class", result.stuff)):
        if not group.classes:
            raise UserError(
                f"the official script stops (division by zero): no {name} occurs at k = {k}; "
                "leave out --official for the mean of what there is"
            )
    return result


@dataclass(slots=True)
class _Tube:
    category: int
    iscrowd: bool
    area: int


def _count_window(
    frames: Sequence[OfficialFrame], positions: dict[int, int], rules: Rules, counts: TubeCounts
) -> None:
    """Match the tubes of one window and add the outcome to `counts`.

    Args:
        frames: of the window.
        positions: place of each category id in `counts`.
        rules: of the script.
        counts: changed in place.
    """
    if len({f.size for f in frames}) > 1:
        raise UserError(f"the official script stops: frames differ in size near {frames[0].truth_png}")
    truths: dict[int, _Tube] = {}
    predictions: dict[int, _Tube] = {}
    for frame in frames:
        for listed in frame.truth:
            area = listed.area if rules.json_areas else 0
            if area is None:
                raise UserError(f"the official script stops: id {listed.id} of {frame.truth_png} has no area")
            # Class and crowd are those of the first listing.
            tube = truths.setdefault(listed.id, _Tube(listed.category, listed.iscrowd, 0))
            tube.area += area
        areas = _predicted_areas(frame, positions)
        for segment_id, listed in _first_listings(frame.prediction).items():
            tube = predictions.setdefault(segment_id, _Tube(listed.category, listed.iscrowd, 0))
            tube.area += areas[segment_id]

    table = join_tables([f.table for f in frames])
    rows = list(zip(table.truth.tolist(), table.prediction.tolist(), table.pixels.tolist()))
    overlap = {(truth_id, pred_id): pixels for truth_id, pred_id, pixels in rows}
    drawn: dict[int, int] = {}
    for truth_id, _, pixels in rows:
        drawn[truth_id] = drawn.get(truth_id, 0) + pixels
    small = {truth_id for truth_id, pixels in drawn.items() if pixels < rules.min_tube}
    if not rules.json_areas:
        for truth_id, tube in truths.items():
            tube.area = drawn.get(truth_id, 0)

    matched_truths: set[int] = set()
    matched_predictions: set[int] = set()
    for truth_id, pred_id, pixels in rows:
        truth, prediction = truths.get(truth_id), predictions.get(pred_id)
        if truth is None or prediction is None or truth.iscrowd or truth_id in small:
            continue
        if truth.category != prediction.category:
            continue
        # Void of the truth leaves the union; if the truth lists void as a segment, that is taken off twice.
        union = prediction.area + truth.area - pixels - overlap.get((VOID_ID, pred_id), 0)
        iou = pixels / union if union else math.inf
        if rules.check_iou and iou > 1:
            raise UserError(
                f"the official script stops: IoU {iou:g} of id {truth_id} in {frames[0].truth_png}; "
                "areas of JSON and PNG don't agree"
            )
        if iou > 0.5:
            matched_truths.add(truth_id)
            matched_predictions.add(pred_id)
            counts.iou[positions[truth.category]] += iou
            counts.tp[positions[truth.category]] += 1

    crowd_of: dict[int, int] = {}
    for truth_id, truth in truths.items():
        if truth.iscrowd:
            # One crowd of each category is remembered, the last.
            crowd_of[truth.category] = truth_id
        elif truth_id not in matched_truths and truth_id not in small and truth.category in positions:
            counts.fn[positions[truth.category]] += 1
    for pred_id, prediction in predictions.items():
        if pred_id in matched_predictions:
            continue
        excused = overlap.get((VOID_ID, pred_id), 0)
        if prediction.category in crowd_of:
            excused += overlap.get((crowd_of[prediction.category], pred_id), 0)
        if not excused / prediction.area > 0.5:
            counts.fp[positions[prediction.category]] += 1
    counts.windows += 1


def _first_listings(listed: Sequence[Listed]) -> dict[int, Listed]:
    return {s.id: s for s in reversed(listed)}


def _predicted_areas(frame: OfficialFrame, positions: dict[int, int]) -> dict[int, int]:
    """Pixels of each predicted id; stops where the scripts do."""
    table = frame.table
    ids, inverse = np.unique(table.prediction, return_inverse=True)
    areas = dict(zip(ids.tolist(), np.bincount(inverse, table.pixels).astype(np.int64).tolist()))
    known = {s.id for s in frame.prediction}
    for segment_id in areas:
        if segment_id not in known and segment_id != VOID_ID:
            raise UserError(f"{frame.pred_png} holds id {segment_id}, which its JSON doesn't list")
    for listed in frame.prediction:
        if listed.id not in areas:
            raise UserError(f"{frame.pred_png} doesn't hold id {listed.id}, which its JSON lists")
        if listed.category not in positions:
            raise UserError(
                f"{frame.pred_png}: segment {listed.id} has category_id {listed.category}, which the truth "
                "doesn't have"
            )
    return areas
