"""A result on disk, as the writers of all forms take it: videos by name, frame by frame."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from panoptube.data.files import picture_size
from panoptube.errors import UserError
from panoptube.panoptic.formats import StoredFrame, read_nested_videos, read_panoptic_video
from panoptube.panoptic.frame import Segment, Taxonomy
from panoptube.panoptic.layouts import find_sources
from panoptube.panoptic.segment_ids import Listing

Videos = dict[str, list[StoredFrame]]
"""Frames of each video in order; pixels are read when asked for."""


def read_result(folder: Path | str) -> tuple[Taxonomy, Videos]:
    """Open what `panoptube predict` wrote, a folder of such folders, or a result in VIPSeg's form.

    A single result is called as its folder.

    Raises:
        UserError: the folder has none of these forms, a JSON is broken, classes differ, a frame is listed
            twice, or a video has no plain name.
    """
    folder = Path(folder)
    videos: Videos = {}
    taxonomy: Taxonomy | None = None
    for name, source in find_sources(folder).items():
        if source.kind == "vipseg":
            taxonomy, found = read_nested_videos(source.json, source.pngs, taxonomy)
            videos |= {video: frames for video, frames in found.items() if frames}
        elif source.kind == "one":
            taxonomy, frames = read_panoptic_video(source.json, source.pngs, taxonomy)
            videos[name or folder.resolve().name] = frames
        else:
            raise UserError(
                f"{source.json} lists the frames of several clips as one; give a folder with panoptic.json "
                "and panoptic/, or one of that form for each clip"
            )
    assert taxonomy is not None
    for name, frames in videos.items():
        if name != Path(name).name or name.startswith("."):
            raise UserError(f"{folder} has a video called {name!r}; give it a plain name")
        png, count = Counter(f.path.name for f in frames).most_common(1)[0]
        if count > 1:
            raise UserError(
                f"the result of {name!r} lists {png} twice; give each frame a file of its own name"
            )
    return taxonomy, videos


def video_size(name: str, frames: list[StoredFrame]) -> tuple[int, int]:
    """(height, width) in pixels of all frames; only the heads of the PNGs are read.

    Raises:
        UserError: a PNG is missing or broken, or the frames differ.
    """
    size = picture_size(frames[0].path)
    for frame in frames[1:]:
        other = picture_size(frame.path)
        if other != size:
            raise UserError(
                f"{frame.path} is {other[1]}x{other[0]}, the first frame of {name!r} {size[1]}x{size[0]}; "
                "a video has one size"
            )
    return size


def frame_segments(stored: StoredFrame) -> list[Segment]:
    """The segments of a frame, by class, then id: from its JSON alone if that has all areas and boxes.

    Raises:
        UserError: the JSON isn't sound; or the PNG, where it is needed, is missing or broken.
    """
    if any(s.area is None or s.bbox is None for s in stored.segments):
        return stored.frame().segments()
    try:
        listing = Listing(stored.segments, stored.taxonomy)
    except UserError as error:
        raise UserError(f"{stored.path}: {error}") from error
    found = []
    for label, track, info in zip(listing.labels[1:].tolist(), listing.tracks[1:].tolist(), listing.segments):
        assert info.area is not None
        assert info.bbox is not None
        x, y, width, height = map(int, info.bbox)
        found.append(Segment(label, track, info.area, (x, y, width, height), info.score if track else None))
    return sorted(found, key=lambda s: (s.label, s.id))
