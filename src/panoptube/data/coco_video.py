"""COCO panoptic video: one's own labelled videos, in the form of COCO panoptic with a video for each image.

    ROOT/
      panoptic_train.json               one for each split, of any name
      panoptic_train/drive_a/000000.png labels: annotations[].file_name lies in here
      train/drive_a/000000.jpg          frames: images[].file_name lies in here

    {"categories":  [{"id": 13, "name": "car", "isthing": 1, "color": [0, 0, 142]}],
     "videos":      [{"id": 1, "name": "drive_a", "fps": 25}],
     "images":      [{"id": 7, "video_id": 1, "frame_id": 0, "file_name": "drive_a/000000.jpg",
                      "width": 1920, "height": 1080}],
     "annotations": [{"image_id": 7, "file_name": "drive_a/000000.png", "segments_info": [
                      {"id": 9306112, "category_id": 13, "iscrowd": 0, "area": 5120, "bbox": [x, y, w, h]}]}]}

As in COCO panoptic (cocodataset.org, "Data format"), a PNG pixel holds the id of its segment, R + 256 G +
65536 B, 0 = void. What video adds: an `id` is the same object in all frames of a video; `video_id` says which
video an image is of, and `frame_id` its order in it. Without `frame_id` images are in the order of the list.
`videos` may be left out: a video is then called by its id and has 25 frames per second. `color`, `area` and
`bbox` may be left out. `track_id` may give a segment's object a number of its own; it must go with `id`
one to one in the whole file, or isn't used. Images without annotation have no truth. Categories may be in any
order; in the taxonomy stuff comes first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from panoptube.data.clip import Clip
from panoptube.data.files import MissingData, inside, read_frame, read_json
from panoptube.errors import UserError
from panoptube.panoptic.formats import StoredFrame, read_panoptic_video
from panoptube.panoptic.frame import PanopticFrame, Taxonomy

FPS = 25.0
TREE = """\
ROOT/
  panoptic_train.json                  COCO panoptic JSON with video_id for each image
  panoptic_train/VIDEO/000000.png      labels, R + 256 G + 65536 B
  train/VIDEO/000000.jpg               frames
  panoptic_val.json  panoptic_val/  val/    the same"""


@dataclass(slots=True)
class _Video:
    id: int | str
    name: str | None = None
    fps: Annotated[float, Field(gt=0)] = FPS


@dataclass(slots=True)
class _Image:
    id: int | str
    video_id: int | str
    file_name: str
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    frame_id: int | None = None


@dataclass(slots=True)
class _Annotation:
    image_id: int | str
    file_name: str


@dataclass(slots=True)
class _File:
    images: list[_Image]
    annotations: list[_Annotation]
    videos: list[_Video] = field(default_factory=list)


_FORM = TypeAdapter(_File)


def read_coco_video(root: Path | str, split: str, taxonomy: Taxonomy | None = None) -> list[Clip]:
    """The videos of a split, in the order in which the JSON first has them; pixels are read when asked for.

    Args:
        root: a folder as described at the top of this file.
        split: SPLIT of panoptic_SPLIT.json.
        taxonomy: what `category_id` means; None takes the JSON's own categories, stuff first.

    Returns:
        Clips that can be pickled. Reading a frame or its truth raises UserError, naming the file, where it is
        missing, damaged, of another size than the JSON says, or where PNG and JSON don't agree.

    Raises:
        MissingData: there is no such JSON.
        UserError: the JSON isn't of the form above, contradicts itself, or names a file outside the folder.
    """
    return [clip for clip, _ in find_videos(root, split, taxonomy)]


def find_videos(
    root: Path | str, split: str, taxonomy: Taxonomy | None = None
) -> list[tuple[Clip, dict[int, StoredFrame]]]:
    """Those clips, each with PNG and JSON of its labelled frames by index. Args, Raises: the same."""
    root = Path(root)
    path = root / f"panoptic_{split}.json"
    if not path.is_file():
        there = sorted(p.stem.removeprefix("panoptic_") for p in root.glob("panoptic_*.json"))
        has = f"the folder has the splits {', '.join(there)}" if there else "write it, or name another folder"
        raise MissingData(f"no {path}; {has}")
    file = read_json(path, _FORM)
    _check_unique(path, file)
    for image in file.images:
        inside(root / split, image.file_name, path)
    for annotation in file.annotations:
        inside(root / f"panoptic_{split}", annotation.file_name, path)
    taxonomy, stored = read_panoptic_video(path, root / f"panoptic_{split}", taxonomy)
    truth = {annotation.image_id: frame for annotation, frame in zip(file.annotations, stored)}
    videos = {video.id: video for video in file.videos}
    of_video: dict[int | str, list[_Image]] = {}
    for image in file.images:
        of_video.setdefault(image.video_id, []).append(image)
    unknown = next((number for number in of_video if videos and number not in videos), None)
    if unknown is not None:
        raise UserError(
            f"{path} has images of the video {unknown}, which `videos` doesn't list; add it there"
        )
    return [
        _open_clip(path, root / split, videos.get(number, _Video(number)), images, truth, taxonomy)
        for number, images in of_video.items()
    ]


def _check_unique(path: Path, file: _File) -> None:
    names = [video.name if video.name is not None else str(video.id) for video in file.videos]
    for what, values in (
        ("the image id", [image.id for image in file.images]),
        ("the image", [image.file_name for image in file.images]),
        ("an annotation of the image", [annotation.image_id for annotation in file.annotations]),
        ("the video id", [video.id for video in file.videos]),
        ("the video", names),
    ):
        twice = next((value for value, count in Counter(values).items() if count > 1), None)
        if twice is not None:
            raise UserError(f"{path} has {what} {twice} twice; leave one")
    ids = {image.id for image in file.images}
    stray = next((a.image_id for a in file.annotations if a.image_id not in ids), None)
    if stray is not None:
        raise UserError(f"{path} has an annotation of the image {stray}, which `images` doesn't list; add it")


def _open_clip(
    path: Path,
    folder: Path,
    video: _Video,
    images: list[_Image],
    truth: dict[int | str, StoredFrame],
    taxonomy: Taxonomy,
) -> tuple[Clip, dict[int, StoredFrame]]:
    name = video.name if video.name is not None else str(video.id)
    numbers = [image.frame_id for image in images]
    ordered = [number for number in numbers if number is not None]
    if ordered:
        if len(ordered) < len(images):
            raise UserError(f"{path}: some images of the video {name} have no frame_id; give all one")
        twice = next((number for number, count in Counter(ordered).items() if count > 1), None)
        if twice is not None:
            raise UserError(f"{path}: two images of the video {name} have the frame_id {twice}; number them")
        images = sorted(images, key=lambda image: image.frame_id or 0)
    size = (images[0].height, images[0].width)
    other = next((image for image in images if (image.height, image.width) != size), None)
    if other is not None:
        raise UserError(
            f"{path}: {other.file_name} is {other.width}x{other.height}, the first image of the video {name} "
            f"{size[1]}x{size[0]}; a video has one size"
        )
    labels = {t: truth[image.id] for t, image in enumerate(images) if image.id in truth}
    clip = Clip(
        name=name,
        taxonomy=taxonomy,
        size=size,
        fps=video.fps,
        length=len(images),
        labelled=tuple(labels),
        read_image=partial(read_frame, [folder / image.file_name for image in images], size),
        read_truth=partial(_read_truth, labels),
    )
    return clip, labels


def _read_truth(labels: dict[int, StoredFrame], t: int) -> PanopticFrame:
    return labels[t].frame()
