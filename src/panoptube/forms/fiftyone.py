"""FiftyOne: the frames of a video sample (docs.voxel51.com, "Using FiftyOne Datasets", Labels).

A `Detection` has its box as shares of the picture's width and height, its mask within the box, and `index`
for the object that it is of. A `Segmentation` has one integer per pixel, where 0 is the background, which the
App doesn't draw: so a class is its place in the taxonomy plus 1, and void is 0. Frames are numbered from 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from panoptube.forms.extra import load
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy


def to_fiftyone(frame: PanopticFrame, taxonomy: Taxonomy) -> tuple[Any, Any]:
    """A frame as `fiftyone.Detections` of its tracks and `fiftyone.Segmentation` of all its classes.

    Raises:
        UserError: fiftyone isn't installed.
        ValueError: the frame doesn't fit the taxonomy.
    """
    fo = load("fiftyone", "to_fiftyone", "fiftyone")
    frame.check(taxonomy)
    height, width = frame.size
    detections = []
    for label, track, _, (x, y, w, h), score in frame.segments():
        if track:
            part = slice(y, y + h), slice(x, x + w)
            detections.append(
                fo.Detection(
                    label=taxonomy.names[label],
                    bounding_box=[x / width, y / height, w / width, h / height],
                    mask=(frame.semantic[part] == label) & (frame.instance[part] == track),
                    confidence=score,
                    index=track,
                )
            )
    classes = np.where(frame.semantic == VOID, 0, frame.semantic.astype(np.uint16) + 1).astype(np.uint8)
    return fo.Detections(detections=detections), fo.Segmentation(mask=classes)


def mask_targets(taxonomy: Taxonomy) -> dict[int, str]:
    """What the values of the `Segmentation` mean: for `dataset.mask_targets[FIELD]`."""
    return {i: name for i, name in enumerate(taxonomy.names, 1)}


def fill_sample(
    sample: Any, frames: Iterable[PanopticFrame], taxonomy: Taxonomy, field: str = "panoptube"
) -> int:
    """Gives each frame of a video sample the fields FIELD, its tracks, and FIELD_classes, all its classes.

    Other fields of the frames stay. The caller adds the sample to a dataset, or saves it.

    Args:
        sample: a `fiftyone.Sample` of a video.
        frames: of that video, all from the first on; may be lazy.
        taxonomy: what their classes are.
        field: name of the field.

    Returns:
        The number of frames.

    Raises:
        UserError: fiftyone isn't installed.
        ValueError: a frame doesn't fit the taxonomy.
    """
    number = 0
    for number, frame in enumerate(frames, 1):
        tracks, classes = to_fiftyone(frame, taxonomy)
        sample.frames[number][field] = tracks
        sample.frames[number][f"{field}_classes"] = classes
    return number
