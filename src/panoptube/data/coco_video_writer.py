"""Writes a split of COCO panoptic video, the form that coco_video.py describes and reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from panoptube.data.new_file import write_text, writing
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.panoptic.id_png import write_id_png
from panoptube.panoptic.segment_ids import SegmentIds, frame_to_ids


class CocoVideoWriter:
    """ROOT/panoptic_SPLIT.json, panoptic_SPLIT/VIDEO/FFFFFF.png; the images of SPLIT/VIDEO are the caller's.

    Args:
        root: folder of the dataset.
        split: a plain name.
        taxonomy: of all truth.

    Attributes:
        videos, images, annotations: what the JSON lists, so far.
    """

    def __init__(self, root: Path, split: str, taxonomy: Taxonomy) -> None:
        self._root, self._split, self._taxonomy = root, split, taxonomy
        self._ids = SegmentIds(taxonomy)  # one for a file, since its `track_id` and `id` must go one to one
        self._size, self._first = (0, 0), 0
        self.videos: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add_video(self, name: str, fps: float, size: tuple[int, int]) -> None:
        """Frames that are added from now on are of this video, of (height, width) pixels."""
        self.videos.append({"id": len(self.videos) + 1, "name": name, "fps": fps})
        self._size, self._first = size, len(self.images)

    def add_frame(self, frame_id: int, suffix: str, truth: PanopticFrame | None) -> Path:
        """Writes the truth, if there is some; returns where the image must be written.

        Args:
            frame_id: its order in the video.
            suffix: of the image's name, such as ".png".
            truth: of the video's size.

        Raises:
            UserError: the truth can't be written.
        """
        number, video = len(self.images) + 1, self.videos[-1]
        place = f"{video['name']}/{len(self.images) - self._first:06d}"
        image = {"id": number, "video_id": video["id"], "frame_id": frame_id, "file_name": place + suffix}
        self.images.append(image | {"width": self._size[1], "height": self._size[0]})
        if truth is not None:
            id_map, segments = frame_to_ids(truth, self._taxonomy, self._ids)
            path = self._root / f"panoptic_{self._split}" / f"{place}.png"
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_id_png(path, id_map)
            rows = [segment.to_dict() for segment in segments]
            self.annotations.append({"image_id": number, "file_name": f"{place}.png", "segments_info": rows})
        return self._root / self._split / f"{place}{suffix}"

    def close(self) -> None:
        """Writes the JSON.

        Raises:
            UserError: it can't be written.
        """
        rows = {"videos": self.videos, "images": self.images, "annotations": self.annotations}
        content = {"categories": self._taxonomy.to_dict()["categories"]} | rows
        path = self._root / f"panoptic_{self._split}.json"
        write_text(path, json.dumps(content))
