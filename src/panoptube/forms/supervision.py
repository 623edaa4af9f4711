"""`supervision.Detections`: the things of a frame with masks and tracks (supervision.roboflow.com, "Core").

`xyxy` is (N, 4) float32, from the near side of the first pixel to the far side of the last, so that the
difference is the width; `mask` is (N, H, W) bool; `class_id` the place in the taxonomy; `tracker_id` the
track; `confidence` its score; `data["class_name"]` what supervision's label annotators write.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from panoptube.errors import UserError
from panoptube.forms.extra import load
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy


def to_supervision(frame: PanopticFrame, taxonomy: Taxonomy) -> Any:
    """The tracks of a frame as `supervision.Detections`, by class, then track; stuff and crowd are left out.

    Where some have no score, theirs is 1.0; where none has, `confidence` is None.

    Raises:
        UserError: supervision isn't installed.
        ValueError: the frame doesn't fit the taxonomy.
    """
    sv = load("supervision", "to_supervision")
    frame.check(taxonomy)
    things = [s for s in frame.segments() if s.id]
    masks = [(frame.semantic == s.label) & (frame.instance == s.id) for s in things]
    boxes = [(x, y, x + width, y + height) for x, y, width, height in (s.bbox for s in things)]
    scored = any(s.score is not None for s in things)
    scores = np.array([1.0 if s.score is None else s.score for s in things], np.float32)
    return sv.Detections(
        xyxy=np.array(boxes, np.float32).reshape(-1, 4),
        mask=np.array(masks, np.bool_).reshape(-1, *frame.size),
        confidence=scores if scored else None,
        class_id=np.array([s.label for s in things], np.int64),
        tracker_id=np.array([s.id for s in things], np.int64),
        data={"class_name": np.array([taxonomy.names[s.label] for s in things], np.str_)},
    )


def from_supervision(
    detections: Any, taxonomy: Taxonomy, size: tuple[int, int], stuff: PanopticFrame | None = None
) -> PanopticFrame:
    """The frame of `supervision.Detections` that have masks and classes.

    Where masks overlap, the more confident one is seen; of equal ones the later. Without `tracker_id` they
    are numbered from 1 on.

    Args:
        detections: their `class_id` is the place in the taxonomy.
        taxonomy: its things are what they may be.
        size: (height, width) in pixels.
        stuff: frame whose stuff is seen beside them; its things are left out. None: void.

    Raises:
        UserError: there is no mask or class, one is of stuff or unknown, a size differs, or a track
            is below 1.
    """
    if len(detections) and (detections.mask is None or detections.class_id is None):
        raise UserError("the detections have no mask or no class_id; give those of a segmentation model")
    semantic = np.full(size, VOID, np.uint8)
    instance = np.zeros(size, np.int32)
    if stuff is not None:
        if stuff.size != size:
            raise UserError(f"the frame with stuff is {stuff.size}, the detections are {size}; give one size")
        there = stuff.semantic < taxonomy.num_stuff
        semantic[there] = stuff.semantic[there]
    count = len(detections)
    tracks = range(1, count + 1) if detections.tracker_id is None else detections.tracker_id.tolist()
    confidence = np.zeros(count) if detections.confidence is None else detections.confidence
    for i in np.argsort(confidence, kind="stable").tolist():
        label, track, mask = int(detections.class_id[i]), int(tracks[i]), np.asarray(detections.mask[i])
        if not taxonomy.is_thing(label):
            raise UserError(
                f"detection {i} has class_id {label}; the things of {taxonomy.name!r} are "
                f"{taxonomy.num_stuff}..{len(taxonomy) - 1}"
            )
        if not 1 <= track < 2**31:
            raise UserError(f"detection {i} has tracker_id {track}; leave out those that aren't tracked yet")
        if mask.shape != size:
            raise UserError(f"the mask of detection {i} is {mask.shape}, not {size}; give the frame's size")
        semantic[mask] = label
        instance[mask] = track
    known = () if detections.confidence is None else zip(tracks, detections.confidence.tolist())
    return PanopticFrame(semantic, instance, {int(track): float(score) for track, score in known})
