"""Results on disk: COCO panoptic video, one PNG for each frame and one JSON (dossier 11.3, 11.4).

A PNG pixel holds the id of its segment, R + 256 G + 65536 B, 0 = void; an id is the same track through the
whole video. The JSON says what the ids are:

    {"annotations": [{"image_id": "000000", "file_name": "000000.png", "segments_info": [
        {"id": 9306112, "category_id": 13, "iscrowd": 0, "area": 5120, "bbox": [x, y, w, h],
         "track_id": 3, "score": 0.9}
    ], "time": 0.04, "cut": true}],
    "categories": [{"id": 13, "name": "car", "isthing": 1, "color": [0, 0, 142]}]}

`track_id` (things only) is the number of the track in PanopticFrame; readers that don't know it go by `id`.
`time` is when the frame is shown, in seconds, and `cut` marks the first frame of a new shot; both are
panoptube's own, may be missing, and change no score.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from panoptube.errors import UserError
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.panoptic.id_png import read_id_png, write_id_png
from panoptube.panoptic.segment_ids import IdMap, SegmentIds, SegmentInfo, frame_to_ids, ids_to_frame

T = TypeVar("T")

JSON_NAME = "panoptic.json"
PNG_FOLDER = "panoptic"


@dataclass(slots=True)
class _Annotation:
    segments_info: list[SegmentInfo]
    file_name: str | None = None
    image_id: int | str | None = None


@dataclass(slots=True)
class _Image:
    id: int | str
    width: int
    height: int


@dataclass(slots=True)
class _Category:
    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True)
class _File:
    annotations: list[_Annotation]
    images: list[_Image] = field(default_factory=list)
    categories: list[_Category] = field(default_factory=list)


@dataclass(slots=True)
class _NestedImage:
    file_name: str
    width: int | None = None
    height: int | None = None


@dataclass(slots=True)
class _NestedVideo:
    video_id: int | str
    images: list[_NestedImage] = field(default_factory=list)
    annotations: list[_Annotation] = field(default_factory=list)


@dataclass(slots=True)
class _NestedFile:
    annotations: list[_NestedVideo]
    videos: list[_NestedVideo] = field(default_factory=list)
    categories: list[_Category] = field(default_factory=list)


_FILE = TypeAdapter(_File)
_NESTED_FILE = TypeAdapter(_NestedFile)


class PanopticVideoWriter:
    """Writes one video: `folder/panoptic/NAME.png` as frames come, `folder/panoptic.json` at the end.

    Nothing of a frame stays in memory but the ids of its tracks. The JSON appears only in `close`, so a
    folder without it is an unfinished result; used as a context manager, an exception leaves it out.

    Args:
        folder: made if missing.
        taxonomy: what the frames' classes are.
        overwrite: replace a result that is there.

    Raises:
        UserError: the folder holds a result already, or can't be written.
    """

    def __init__(self, folder: Path, taxonomy: Taxonomy, overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self.taxonomy = taxonomy
        self._ids = SegmentIds(taxonomy)
        self._names: set[str] = set()
        self._size: tuple[int, int] | None = None
        target = self.folder / JSON_NAME
        if target.exists() and not overwrite:
            raise UserError(f"{target} exists; choose another folder, or overwrite it")
        try:
            (self.folder / PNG_FOLDER).mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            self._part = target.with_name(JSON_NAME + ".part")
            self._json = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise UserError(f"can't write to {self.folder}: {error.strerror}") from error

    def write(self, name: str, frame: PanopticFrame, time: float | None = None, cut: bool = False) -> None:
        """Write the next frame as `NAME.png`; `time` in seconds, `cut` for the first frame of a new shot.

        Raises:
            ValueError: the name was used, or is not a plain file name; the frame has another size than the
                first, or doesn't fit the taxonomy.
            UserError: the file can't be written.
        """
        if not name or name != Path(name).name or name in self._names:
            raise ValueError(f"frame names must be plain and differ from each other, got {name!r}")
        if self._size not in (None, frame.size):
            raise ValueError(f"frame {name!r} is {frame.size}, the first was {self._size}")
        id_map, segments = frame_to_ids(frame, self.taxonomy, self._ids)
        file_name = f"{name}.png"
        write_id_png(self.folder / PNG_FOLDER / file_name, id_map)
        rows = [s.to_dict() for s in segments]
        row: dict[str, object] = {"image_id": name, "file_name": file_name, "segments_info": rows}
        if time is not None:
            row["time"] = round(time, 6)
        if cut:
            row["cut"] = True
        self._put((",\n" if self._names else '{"annotations": [\n') + json.dumps(row))
        self._names.add(name)
        self._size = frame.size

    def close(self) -> Path:
        """Finish the JSON and give it its name.

        Raises:
            UserError: no frame was written, or the file can't be.
        """
        if not self._names:
            self.discard()
            raise UserError(f"no frame was written to {self.folder}; the video is empty")
        self._put(f'\n], "categories": {json.dumps(self.taxonomy.to_dict()["categories"])}}}\n')
        target = self.folder / JSON_NAME
        try:
            self._json.close()
            os.replace(self._part, target)
        except OSError as error:
            raise UserError(f"can't write {target}: {error.strerror}") from error
        return target

    def discard(self) -> None:
        """Leave the JSON out."""
        self._json.close()
        self._part.unlink(missing_ok=True)

    def _put(self, text: str) -> None:
        try:
            self._json.write(text)
        except OSError as error:
            raise UserError(f"can't write {self._part}: {error.strerror}") from error

    def __enter__(self) -> PanopticVideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


@dataclass(frozen=True)
class StoredFrame:
    """One frame of a result on disk; pixels are read when asked for.

    Attributes:
        name: the PNG's name without ending, and without the endings that Cityscapes gives its labels.
        path: the PNG.
        segments: what the JSON lists.
        taxonomy: what the classes of `frame` are.
        size: (height, width) as the JSON's `images` says, or None.
    """

    name: str
    path: Path
    segments: list[SegmentInfo] = field(repr=False)
    taxonomy: Taxonomy
    size: tuple[int, int] | None = None

    def ids(self, out: IdMap | None = None) -> IdMap:
        """(H, W) uint32 id map, as it is in the PNG; `out` is a map to fill, if it has the right size.

        Raises:
            UserError: the PNG is missing, broken, or has another size than the JSON says.
        """
        id_map = read_id_png(self.path, out)
        if self.size is not None and id_map.shape != self.size:
            raise UserError(f"{self.path} is {_pixels(id_map.shape)}, its JSON says {_pixels(self.size)}")
        return id_map

    def frame(self, id_map: IdMap | None = None) -> PanopticFrame:
        """The frame; `id_map` is what `ids` gives, None reads it.

        Raises:
            UserError: as `ids`, or PNG and JSON don't agree.
        """
        id_map = self.ids() if id_map is None else id_map
        try:
            return ids_to_frame(id_map, self.segments, self.taxonomy)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error


def read_panoptic_video(
    json_path: Path, png_folder: Path, taxonomy: Taxonomy | None = None
) -> tuple[Taxonomy, list[StoredFrame]]:
    """Open a result; the PNGs are read later, frame by frame.

    Where annotations have no `file_name`, as in Cityscapes-VPS submissions, they belong to the folder's PNGs
    in sorted order.

    Args:
        json_path: the JSON.
        png_folder: where its PNGs are.
        taxonomy: what `category_id` means; None takes the JSON's own categories, stuff first.

    Returns:
        The taxonomy, and the frames in the order of the JSON.

    Raises:
        UserError: a file is missing, not JSON, or not of this form; an unknown category; categories that
            disagree with `taxonomy`; or annotations without `file_name` and not as many PNGs.
    """
    file = _read_json(json_path, _FILE)
    taxonomy = _taxonomy(json_path, file.categories, taxonomy)
    if not file.annotations:
        raise UserError(f"{json_path} has no annotations; write the result again")
    if not png_folder.is_dir():
        raise UserError(f"{png_folder} is no folder; it should hold the PNGs of {json_path.name}")
    names = [a.file_name for a in file.annotations if a.file_name is not None]
    if len(names) < len(file.annotations):
        names = sorted(p.name for p in png_folder.glob("*.png"))
        if len(names) != len(file.annotations):
            raise UserError(
                f"{json_path} has {len(file.annotations)} annotations without file_name, but "
                f"{png_folder} has {len(names)} PNGs; write one for each"
            )
    sizes = {i.id: (i.height, i.width) for i in file.images}
    _drop_ambiguous_tracks(file.annotations)
    frames: list[StoredFrame] = []
    for name, annotation in zip(names, file.annotations):
        size = sizes.get(annotation.image_id) if annotation.image_id is not None else None
        frames.append(_stored(json_path, png_folder, name, annotation, taxonomy, size))
    return taxonomy, frames


def read_nested_videos(
    json_path: Path, png_folder: Path, taxonomy: Taxonomy | None = None
) -> tuple[Taxonomy, dict[str, list[StoredFrame]]]:
    """Open a result in VIPSeg's form: many videos in one JSON, the PNGs of each in a folder of its name.

    Args, Raises:
        as `read_panoptic_video`; `file_name` is needed here.

    Returns:
        The taxonomy, and for each video its frames, both in the order of the JSON.
    """
    file = _read_json(json_path, _NESTED_FILE)
    taxonomy = _taxonomy(json_path, file.categories, taxonomy)
    sizes = {
        (v.video_id, i.file_name): (i.height, i.width)
        for v in file.videos
        for i in v.images
        if i.height is not None and i.width is not None
    }
    videos: dict[str, list[StoredFrame]] = {}
    for video in file.annotations:
        name = str(video.video_id)
        if name in videos:
            raise UserError(f"{json_path} has the video {name} twice; write it once")
        _drop_ambiguous_tracks(video.annotations)
        videos[name] = []
        for annotation in video.annotations:
            if annotation.file_name is None:
                raise UserError(f"{json_path}: an annotation of video {name} has no file_name; add it")
            size = sizes.get((video.video_id, annotation.file_name))
            place = f"{name}/{annotation.file_name}"
            videos[name].append(_stored(json_path, png_folder, place, annotation, taxonomy, size))
    if not any(videos.values()):
        raise UserError(f"{json_path} has no annotations; write the result again")
    return taxonomy, videos


def _stored(
    json_path: Path,
    png_folder: Path,
    name: str,
    annotation: _Annotation,
    taxonomy: Taxonomy,
    size: tuple[int, int] | None,
) -> StoredFrame:
    path = png_folder / name
    if "\0" in name or ".." in path.parts or not path.name or path == png_folder or path == Path(name):
        raise UserError(f"{json_path}: {name[:100]!r} is no PNG in {png_folder}; write the result again")
    known = {c.id for c in taxonomy.categories}
    for segment in annotation.segments_info:
        if segment.category_id not in known:
            raise UserError(
                f"{json_path}: segment {segment.id} of {path.name} has category_id {segment.category_id}, "
                f"which {taxonomy.name!r} doesn't have"
            )
    return StoredFrame(_frame_name(path.name), path, annotation.segments_info, taxonomy, size)


def _taxonomy(path: Path, categories: Sequence[_Category], taxonomy: Taxonomy | None) -> Taxonomy:
    """The one that is given, if the file agrees with it, or the file's own, stuff first."""
    if taxonomy is not None:
        _check_categories(path, categories, taxonomy)
        return taxonomy
    if not categories:
        raise UserError(f"{path} has no categories; name the dataset's taxonomy")
    ordered = sorted(categories, key=lambda c: c.isthing)
    try:
        return Taxonomy.from_dict({"name": path.stem, "categories": [asdict(c) for c in ordered]})
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _read_json(path: Path, form: TypeAdapter[T]) -> T:
    try:
        return form.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} is not panoptic JSON: {place + ': ' if place else ''}{first['msg']}"
        ) from error


def _check_categories(path: Path, categories: Sequence[_Category], taxonomy: Taxonomy) -> None:
    """A file's own categories, where it has some, must mean the same as the taxonomy's."""
    expected = {c.id: c for c in taxonomy.categories}
    for category in categories:
        known = expected.get(category.id)
        if known is not None and (known.name, known.isthing) != (category.name, category.isthing):
            kinds = ["thing" if c.isthing else "stuff" for c in (category, known)]
            raise UserError(
                f"{path}: category {category.id} is {category.name!r} ({kinds[0]}), but {taxonomy.name!r} "
                f"says {known.name!r} ({kinds[1]}); the classes must be the same"
            )


def _drop_ambiguous_tracks(annotations: Sequence[_Annotation]) -> None:
    """Forget every `track_id` of a file where it is another identity than `id`, which is the standard's."""
    forward: dict[tuple[int, int], int] = {}
    backward: dict[tuple[int, int], int] = {}
    things = [s for a in annotations for s in a.segments_info if not s.iscrowd]
    for segment in things:
        track = segment.track_id or segment.id
        forward_track = forward.setdefault((segment.category_id, segment.id), track)
        backward_id = backward.setdefault((segment.category_id, track), segment.id)
        if (forward_track, backward_id) != (track, segment.id):
            for other in things:
                other.track_id = None
            return


def _frame_name(file_name: str) -> str:
    """`0005_0025_city_000000_000001_final_mask.png` -> `0005_0025_city_000000_000001` (dossier 11.2)."""
    stem = file_name.removesuffix(".png")
    return stem.removesuffix("_final_mask").removesuffix("_gtFine_color")


def _pixels(size: tuple[int, ...]) -> str:
    return f"{size[1]} x {size[0]} pixels"
