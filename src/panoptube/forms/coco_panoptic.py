"""COCO panoptic, an image for each frame: what panopticapi reads (cocodataset.org, "Data format", 4).

    OUT/panoptic.json
    OUT/panoptic/000000.png         of several videos: OUT/panoptic/VIDEO/000000.png

    {"images":      [{"id": 1, "file_name": "000000.png", "width": 1920, "height": 1080}],
     "annotations": [{"image_id": 1, "file_name": "000000.png", "segments_info": [
                      {"id": 9306112, "category_id": 13, "iscrowd": 0, "area": 5120, "bbox": [x, y, w, h]}]}],
     "categories":  [{"id": 13, "name": "car", "isthing": 1, "color": [0, 0, 142], "supercategory": "thing"}]}

A pixel holds its segment's id, R + 256 G + 65536 B, 0 = void. That is how `panoptube predict` stores a
result, so the PNGs stay as they are; what is added is `images`, and image ids that are numbers. `track_id`
and `score` stay, too: panopticapi doesn't read them, panoptube reads them back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from panoptube.data.files import link_or_copy, picture_size
from panoptube.data.new_file import write_text, writing
from panoptube.errors import UserError
from panoptube.forms.result import Videos
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, StoredFrame
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.panoptic.segment_ids import SegmentIds, SegmentInfo, frame_to_ids, ids_to_frame
from panoptube.progress import progress_bar

_SEGMENTS = TypeAdapter(list[SegmentInfo])
_KNOWN = {f.name for f in fields(SegmentInfo)}


def to_coco_panoptic(
    frame: PanopticFrame, taxonomy: Taxonomy, ids: SegmentIds | None = None
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """A frame as COCO panoptic has it.

    Args:
        frame: of size (H, W).
        taxonomy: what its classes are.
        ids: of the video, so that a track has one colour in all its frames; None for a single image.

    Returns:
        (H, W, 3) uint8 RGB, to be saved as PNG, and `segments_info`.

    Raises:
        ValueError: the frame doesn't fit the taxonomy.
    """
    id_map, segments = frame_to_ids(frame, taxonomy, ids or SegmentIds(taxonomy))
    rgb = np.ascontiguousarray(id_map, "<u4").view(np.uint8).reshape(*id_map.shape, 4)[..., :3]
    return np.ascontiguousarray(rgb), [segment.to_dict() for segment in segments]


def from_coco_panoptic(
    image: NDArray[np.uint8], segments_info: Sequence[Mapping[str, Any]], taxonomy: Taxonomy
) -> PanopticFrame:
    """The frame of a PNG and its `segments_info`. A thing's track is its `track_id`, or else its `id`.

    Args:
        image: (H, W, 3) uint8 RGB.
        segments_info: of this image.
        taxonomy: what `category_id` means.

    Raises:
        UserError: either isn't of this form, or they don't agree.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UserError(f"the image is {image.shape} {image.dtype}; give (H, W, 3) uint8, RGB")
    rows = [{name: value for name, value in info.items() if name in _KNOWN} for info in segments_info]
    try:
        segments = _SEGMENTS.validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"segments_info is not COCO panoptic: {place}: {first['msg']}") from error
    r, g, b = np.moveaxis(image.astype(np.uint32), -1, 0)
    return ids_to_frame(r | g << 8 | b << 16, segments, taxonomy)


def write_coco_panoptic(videos: Videos, taxonomy: Taxonomy, folder: Path, progress: bool = True) -> None:
    """Writes a result as above; PNGs get a second name, or are copied where the disk has no links.

    Raises:
        UserError: a PNG is missing or broken, or doesn't fit what is listed, or a file can't be written.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("coco-panoptic", total=sum(map(len, videos.values())))
        for video, frames in videos.items():
            for stored in frames:
                name = stored.path.name if len(videos) == 1 else f"{video}/{stored.path.name}"
                height, width = picture_size(stored.path)
                number = len(images) + 1
                images.append({"id": number, "file_name": name, "width": width, "height": height})
                annotations.append(
                    {"image_id": number, "file_name": name, "segments_info": _segments_info(stored)}
                )
                target = folder / PNG_FOLDER / name
                with writing(target):
                    link_or_copy(stored.path, target)
                bar.advance(task)
    categories = [
        c | {"supercategory": "thing" if c["isthing"] else "stuff"} for c in taxonomy.to_dict()["categories"]
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(folder / JSON_NAME, json.dumps(content))


def _segments_info(stored: StoredFrame) -> list[dict[str, Any]]:
    """As listed, with areas and boxes, which COCO asks for."""
    id_map = stored.ids()
    stored.frame(id_map)  # whether PNG and JSON agree
    if all(s.area is not None and s.bbox is not None for s in stored.segments):
        return [s.to_dict() for s in stored.segments]
    rows = []
    for segment in stored.segments:
        mask = id_map == segment.id
        x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box = [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)]
        rows.append(segment.to_dict() | {"area": int(mask.sum()), "bbox": box})
    return rows
