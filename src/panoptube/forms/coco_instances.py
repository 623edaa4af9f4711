"""COCO video instances, the form of YouTube-VIS: things alone, one annotation for each track of a video.

    {"videos":      [{"id": 1, "name": "drive_a", "width": 1920, "height": 1080, "length": 2,
                      "file_names": ["000000.png", "000001.png"]}],
     "annotations": [{"id": 1, "video_id": 1, "category_id": 13, "iscrowd": 0, "width": 1920, "height": 1080,
                      "segmentations": [{"size": [1080, 1920], "counts": "..."}, null],
                      "bboxes": [[x, y, w, h], null], "areas": [5120, null], "track_id": 3, "score": 0.9}],
     "categories":  [{"id": 13, "name": "car", "isthing": 1, "color": [0, 0, 142], "supercategory": "thing"}]}

(youtube-vos.org/dataset/vis; "Data format" on codalab.org/competitions/20128, of which TrackEval has a copy,
docs/YouTube-VIS-format.txt.) The three lists have an entry for each frame, null where the track isn't seen.
`counts` are pycocotools' compressed runs. Two additions: `track_id`, the track's number in the result, and
`score`, the mean of its scores. Stuff, crowd and scores of single frames are lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from panoptube.data.files import read_json
from panoptube.data.new_file import write_text
from panoptube.errors import UserError
from panoptube.forms.extra import load
from panoptube.forms.result import Videos, video_size
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.progress import progress_bar


def write_coco_instances(videos: Videos, taxonomy: Taxonomy, path: Path, progress: bool = True) -> None:
    """Writes the things of a result as above. In memory are the runs of all masks, not the frames.

    Raises:
        UserError: pycocotools isn't installed, a frame is broken, or the file can't be written.
    """
    coder = load("pycocotools.mask", "COCO video instances")
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("coco-instances", total=sum(map(len, videos.values())))
        for number, (video, frames) in enumerate(videos.items(), 1):
            height, width = video_size(video, frames)
            size = {"width": width, "height": height}
            names = [stored.path.name for stored in frames]
            listed.append({"id": number, "name": video, **size, "length": len(frames), "file_names": names})
            tracks: dict[tuple[int, int], dict[str, Any]] = {}
            scores: dict[tuple[int, int], list[float]] = {}
            for t, stored in enumerate(frames):
                frame = stored.frame()
                for label, track, area, box, score in frame.segments():
                    if not track:
                        continue
                    row = tracks.get((label, track))
                    if row is None:
                        row = {"id": 0, "video_id": number, "category_id": taxonomy.categories[label].id}
                        row |= {"iscrowd": 0, **size, "track_id": track}
                        row |= {n: [None] * len(frames) for n in ("segmentations", "bboxes", "areas")}
                        tracks[label, track] = row
                    mask = (frame.semantic == label) & (frame.instance == track)
                    runs = coder.encode(np.asfortranarray(mask, np.uint8))
                    row["segmentations"][t] = {"size": runs["size"], "counts": runs["counts"].decode("ascii")}
                    row["bboxes"][t], row["areas"][t] = list(box), area
                    if score is not None:
                        scores.setdefault((label, track), []).append(score)
                bar.advance(task)
            for key, row in tracks.items():
                row["id"] = len(annotations) + 1
                if key in scores:
                    row["score"] = float(np.mean(scores[key]))
                annotations.append(row)
    categories = [c | {"supercategory": "thing"} for c in taxonomy.to_dict()["categories"] if c["isthing"]]
    content = {"info": {}, "videos": listed, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(content))


@dataclass(slots=True)
class _Category:
    id: int
    name: str
    color: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True)
class _Video:
    id: int
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    name: str | None = None
    length: int | None = None
    file_names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Runs:
    size: tuple[int, int]
    counts: str | list[int]


@dataclass(slots=True)
class _Annotation:
    video_id: int
    category_id: int
    segmentations: list[_Runs | list[list[float]] | None]
    track_id: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    iscrowd: bool = False
    score: float | None = None


@dataclass(slots=True)
class _File:
    videos: list[_Video]
    annotations: list[_Annotation]
    categories: list[_Category]


_FORM = TypeAdapter(_File)


@dataclass(frozen=True)
class InstanceVideo:
    """One video of such a file; masks are decoded when asked for.

    Attributes:
        name: of the video. size: (height, width) in pixels. length: number of frames.
    """

    name: str
    size: tuple[int, int]
    length: int
    _source: Path = field(repr=False)
    _tracks: list[tuple[int, int, _Annotation]] = field(repr=False)
    """Class, track id and what the file says, the most confident last."""

    def frame(self, t: int) -> PanopticFrame:
        """Frame `t`, from 0 on: its things, the rest void. Where masks overlap, the more confident is seen.

        Raises:
            UserError: a mask is broken, or of another size.
        """
        semantic = np.full(self.size, VOID, np.uint8)
        instance = np.zeros(self.size, np.int32)
        scores: dict[int, float] = {}
        for label, track, row in self._tracks:
            shape = row.segmentations[t]
            if shape is not None:
                mask = self._decode(shape, t)
                semantic[mask], instance[mask] = label, track
                if row.score is not None and track:
                    scores[track] = row.score
        return PanopticFrame(semantic, instance, scores)

    def _decode(self, shape: _Runs | list[list[float]], t: int) -> NDArray[np.bool_]:
        coder = load("pycocotools.mask", "COCO video instances")
        height, width = self.size
        fault = f"{self._source}: a mask in frame {t} of {self.name} is broken; write the file again"
        if isinstance(shape, _Runs):
            if shape.size != self.size:
                raise UserError(fault.replace("broken", f"{shape.size}, the video {self.size}"))
            if isinstance(shape.counts, list):
                # pycocotools trusts the numbers, which must fill the picture.
                if min(shape.counts, default=0) < 0 or sum(shape.counts) != height * width:
                    raise UserError(fault)
                runs = coder.frPyObjects({"size": list(shape.size), "counts": shape.counts}, height, width)
            else:
                if not re.fullmatch("[0-o]+", shape.counts):  # six bits in each character, from "0" on
                    raise UserError(fault)
                runs = {"size": list(shape.size), "counts": shape.counts.encode("ascii")}
        else:
            # pycocotools walks along the outline, however far it goes.
            near = all(abs(v) <= 4 * max(self.size) for polygon in shape for v in polygon)
            if not shape or not near or any(len(polygon) < 6 or len(polygon) % 2 for polygon in shape):
                raise UserError(fault)
            runs = coder.merge(coder.frPyObjects(shape, height, width))
        try:
            return np.asarray(coder.decode(runs)).astype(np.bool_)
        except ValueError as error:  # "Invalid RLE mask representation"
            raise UserError(fault) from error


def read_coco_instances(path: Path | str) -> tuple[Taxonomy, Mapping[str, InstanceVideo]]:
    """Open a file as above: runs, compressed or not, or polygons.

    A track is its `track_id` if all annotations of a video have one and no two of a class have the same, or
    else its place among them, from 1 on. `iscrowd` is crowd.

    Returns:
        The taxonomy, things alone, and the videos by name, or by id where they have none.

    Raises:
        UserError: the file is missing, not of this form, or contradicts itself.
    """
    path = Path(path)
    file = read_json(path, _FORM)
    taxonomy = Taxonomy.from_dict(
        {
            "name": path.stem,
            "categories": [
                {"id": c.id, "name": c.name, "isthing": 1, "color": c.color} for c in file.categories
            ],
        }
    )
    label_of = {c.id: i for i, c in enumerate(taxonomy.categories)}
    of_video: dict[int, list[_Annotation]] = {video.id: [] for video in file.videos}
    if len(of_video) < len(file.videos):
        raise UserError(f"{path} has a video id twice; number the videos")
    for row in file.annotations:
        if row.video_id not in of_video or row.category_id not in label_of:
            raise UserError(
                f"{path} has an annotation of video {row.video_id} and category {row.category_id}, which it "
                "doesn't both list; add them"
            )
        of_video[row.video_id].append(row)
    videos: dict[str, InstanceVideo] = {}
    for video in file.videos:
        name, rows = video.name or str(video.id), of_video[video.id]
        length = len(video.file_names) if video.length is None else video.length
        if name in videos:
            raise UserError(f"{path} has the video {name} twice; give each a name of its own")
        if any(len(row.segmentations) != length for row in rows):
            raise UserError(f"{path} has a track of {name} without an entry for each of its {length} frames")
        given = {(row.category_id, row.track_id) for row in rows if row.track_id is not None}
        own = len(given) == len(rows)
        tracks = [
            (label_of[row.category_id], 0 if row.iscrowd else (row.track_id or 0) if own else place, row)
            for place, row in enumerate(rows, 1)
        ]
        tracks.sort(key=lambda track: track[2].score or 0.0)
        videos[name] = InstanceVideo(name, (video.height, video.width), length, path, tracks)
    return taxonomy, videos
