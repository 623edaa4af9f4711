"""Hugging Face transformers: what `post_process_panoptic_segmentation` returns for an image.

    {"segmentation": (H, W) int32 tensor, a segment's id per pixel, 0 where there is none,
     "segments_info": [{"id": 1, "label_id": 13, "was_fused": False, "score": 0.9}]}

(huggingface.co/docs/transformers, "Mask2Former"; `compute_segments` in its models/mask2former, version 5.24.)
What that does and the documentation doesn't say: ids count from 1; where no segment is found at all, the map
is -1 and of floats; a fused segment is listed once for each of its masks. `label_id` is a key of the model's
`id2label`: here the place of the class in the taxonomy, `dict(enumerate(taxonomy.names))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs


def to_transformers(frame: PanopticFrame, taxonomy: Taxonomy) -> dict[str, Any]:
    """A frame as transformers' panoptic result, by class, then track.

    Segments of things have `track_id` besides, the track's number in the video. `was_fused` is True for stuff
    and crowd. Every segment there has a score, so one without has 1.0.

    Raises:
        ValueError: the frame doesn't fit the taxonomy.
    """
    frame.check(taxonomy)
    starts, lengths = find_runs(frame.semantic, frame.instance)
    runs = frame.semantic.ravel()[starts].astype(np.int64) << 32 | frame.instance.ravel()[starts]
    keys, inverse = np.unique(runs, return_inverse=True)
    # Void has the highest class, so the others count from 1 on without a gap.
    labels, tracks = keys >> 32, keys & 0xFFFFFFFF
    numbers = np.where(labels == VOID, 0, np.arange(1, len(keys) + 1)).astype(np.int32)
    info: list[dict[str, Any]] = []
    for number, label, track in zip(numbers.tolist(), labels.tolist(), tracks.tolist()):
        if number:
            score = float(frame.scores.get(track, 1.0)) if track else 1.0
            info.append({"id": number, "label_id": label, "was_fused": not track, "score": score})
            if track:
                info[-1]["track_id"] = track
    segmentation = np.repeat(numbers[inverse], lengths).reshape(frame.size)
    return {"segmentation": torch.from_numpy(segmentation), "segments_info": info}


def from_transformers(result: Mapping[str, Any], taxonomy: Taxonomy) -> PanopticFrame:
    """The frame of transformers' panoptic or instance result.

    A thing's track is its `track_id`, or else its `id`, which means nothing beyond the image; where ids count
    from 0, as in instance results, one more. A thing that was fused is crowd. Pixels of no segment are void.

    Args:
        result: its "segmentation" is a tensor or an array.
        taxonomy: `label_id` is the place in it.

    Raises:
        UserError: the result isn't of this form, lists an id for two classes, has a class that the taxonomy
            doesn't have, or a pixel of a segment that isn't listed.
    """
    try:
        found, segments = result["segmentation"], result["segments_info"]
        rows = [
            (int(s["id"]), int(s["label_id"]), bool(s.get("was_fused")), s.get("score"), s.get("track_id"))
            for s in segments
        ]
        ids = np.asarray(found.cpu() if isinstance(found, torch.Tensor) else found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"not a panoptic result of transformers ({error!r}); give one dict of those that "
            "post_process_panoptic_segmentation returns"
        ) from error
    if ids.ndim != 2:
        raise UserError(
            f"the segmentation has the shape {ids.shape}, not (H, W); leave out return_binary_maps"
        )
    listed: dict[int, tuple[int, int]] = {}
    scores: dict[int, float] = {}
    shift = int(any(row[0] == 0 for row in rows))
    for number, label, fused, score, given in rows:
        if not 0 <= label < len(taxonomy):
            raise UserError(
                f"segment {number} has label_id {label}; {taxonomy.name!r} has 0..{len(taxonomy) - 1}"
            )
        track = 0 if fused or not taxonomy.is_thing(label) else int(given or number + shift)
        if listed.setdefault(number, (label, track)) != (label, track):
            # transformers 5.24 counts on from a fused segment's id, and so gives some ids twice.
            raise UserError(
                f"segments_info has the id {number} for two segments; make the result without "
                "label_ids_to_fuse, so that ids differ"
            )
        if track and score is not None:
            scores[track] = float(score)
    starts, lengths = find_runs(ids)
    values, inverse = np.unique(ids.ravel()[starts].astype(np.int64), return_inverse=True)
    unknown = [int(v) for v in values if v not in (0, -1) and int(v) not in listed]
    if unknown:
        raise UserError(f"the segmentation holds the id {unknown[0]}, which segments_info doesn't list")
    pairs: NDArray[np.int64] = np.array([listed.get(int(v), (VOID, 0)) for v in values], np.int64)
    if (pairs < 0).any() or (pairs >= 2**31).any():
        raise UserError("segments_info has a track below 1 or above 2147483647; ids of things count from 1")
    pairs = np.repeat(pairs.reshape(-1, 2)[inverse], lengths, 0).reshape(*ids.shape, 2)
    return PanopticFrame(pairs[..., 0].astype(np.uint8), pairs[..., 1].astype(np.int32), scores)
