"""Whether a frame's PNG and its entry in the JSON agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from panoptube.check.faults import Box, Fault
from panoptube.check.segments import measure
from panoptube.errors import UserError
from panoptube.panoptic.formats import StoredFrame
from panoptube.panoptic.frame import PanopticFrame
from panoptube.panoptic.runs import find_runs
from panoptube.panoptic.segment_ids import IdMap, SegmentInfo, ids_to_frame

BOX_TOLERANCE = 1.0
"""Pixels: some tools write a box's last pixel minus its first, some one more."""


def check_stored(frame: StoredFrame) -> tuple[list[Fault], PanopticFrame]:
    """Everything in which PNG and JSON differ, and the frame with what both have; the rest is void.

    Raises:
        UserError: the PNG can't be read, has another size than the JSON says, or segments make no sense
            whatever the PNG holds, such as crowd of a stuff class.
    """
    id_map = frame.ids()
    starts, lengths = find_runs(id_map)
    keys = id_map.reshape(-1)[starts].astype(np.int64)
    found = {i: (area, box) for i, area, box in measure(keys, starts, lengths, id_map.shape[1])}
    faults = list(_compare(frame, found))
    return faults, _agreed(frame, id_map, found)


def _compare(frame: StoredFrame, found: dict[int, tuple[int, Box]]) -> Iterator[Fault]:
    names = {c.id: c.name for c in frame.taxonomy.categories}
    listed: set[int] = set()
    for segment in frame.segments:
        name = f"{names[segment.category_id]} {segment.id}"
        tracks = (segment.track_id or segment.id,)
        if segment.id in listed or segment.id == 0:
            what = f"the id {segment.id} twice" if segment.id else "the id 0, which is void"
            yield Fault("id", "error", f"{frame.path}: the JSON lists {what}", tracks=tracks)
            continue
        listed.add(segment.id)
        if segment.id not in found:
            yield Fault(
                "id", "error", f"{frame.path}: the JSON lists {name}, which the PNG lacks",
                where=_whole(segment.bbox), tracks=tracks,
            )  # fmt: skip
            continue
        area, box = found[segment.id]
        if segment.area is not None and segment.area != area:
            message = f"{frame.path}: {name} has area {segment.area} in the JSON, {area} pixels in the PNG"
            yield Fault("area", "error", message, where=box, tracks=tracks, weight=abs(segment.area - area))
        if segment.bbox is not None:
            off = max(abs(a - b) for a, b in zip(segment.bbox, box))
            if off > BOX_TOLERANCE:
                given = ", ".join(f"{v:g}" for v in segment.bbox)
                message = f"{frame.path}: {name} has the box [{given}] in the JSON, {list(box)} in the PNG"
                yield Fault("box", "error", message, where=box, tracks=tracks, weight=off)
    for segment_id in sorted(found.keys() - listed - {0}):
        area, box = found[segment_id]
        message = f"{frame.path}: the PNG holds the id {segment_id}, {area} pixels, which the JSON lacks"
        yield Fault("id", "error", message, where=box, tracks=(segment_id,), weight=area)


def _agreed(frame: StoredFrame, id_map: IdMap, found: dict[int, tuple[int, Box]]) -> PanopticFrame:
    segments: dict[int, SegmentInfo] = {}
    for segment in frame.segments:
        if segment.id and segment.id in found:
            segments.setdefault(segment.id, replace(segment, area=None))
    unknown = [i for i in found if i not in segments]
    if unknown != [0]:
        id_map = np.where(np.isin(id_map, unknown), 0, id_map)
    try:
        return ids_to_frame(id_map, list(segments.values()), frame.taxonomy)
    except UserError as error:
        raise UserError(f"{frame.path}: {error}") from error


def _whole(bbox: tuple[float, float, float, float] | None) -> Box | None:
    if bbox is None:
        return None
    x, y, width, height = (round(v) for v in bbox)
    return x, y, width, height
