"""CVAT: a file to import into a task, to correct a result by hand; it comes back by `panoptube import-cvat`.

    OUT/labels.json               the labels, to paste into the task's or project's "Raw" field
    OUT/drive_a/annotations.xml   "CVAT for video 1.1", one file for each video

`data/cvat.py` says what is in such a file. How CVAT reads it decides how a result is written (cvat-ai/cvat,
cvat/apps/dataset_manager/formats/cvat.py, `load_anno`): a track whose first shape is a mask becomes a single
shape and loses its group, so masks can't carry an object through a video. Tracks of polygons stay tracks and
keep their group. Therefore:

- A thing is a track of polygons along the edges of its pixels, so that filled they give back each pixel. If
  it is ever seen in several pieces, each is a track, the largest first, and they share a group.
- Stuff is one mask for each frame.
- Void and crowd have no shape; both come back as void. Scores and track numbers are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from panoptube.data.cvat import MAX_BYTES, XML
from panoptube.data.new_file import write_text, writing
from panoptube.errors import UserError
from panoptube.forms.outlines import outlines
from panoptube.forms.result import Videos
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.progress import progress_bar

LABELS = "labels.json"


def write_cvat(videos: Videos, taxonomy: Taxonomy, folder: Path, progress: bool = True) -> None:
    """Writes a result as above. In memory are the shapes of one video, not its frames.

    Raises:
        UserError: a frame is broken, a file can't be written, or is larger than `import-cvat` reads.
    """
    write_text(folder / LABELS, json.dumps(raw_labels(taxonomy), indent=1))
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("cvat", total=sum(map(len, videos.values())))
        for name, frames in videos.items():
            path = folder / name / XML
            read = (stored.frame() for stored in frames)
            text = to_cvat(name, bar.track(read, task_id=task), taxonomy)
            if len(text) > MAX_BYTES:
                raise UserError(
                    f"{name} makes {len(text) >> 20} MiB of {XML}, more than {MAX_BYTES >> 20}; predict the "
                    "video in parts (--max-frames)"
                )
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(text)


def raw_labels(taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """The classes as CVAT's label constructor takes them in its raw form."""
    return [{"name": c.name, "color": _color(c.color), "attributes": []} for c in taxonomy.categories]


def to_cvat(name: str, frames: Iterable[PanopticFrame], taxonomy: Taxonomy) -> bytes:
    """The annotations.xml of a video.

    Args:
        name: of the task.
        frames: all of the video, from the first on, all of one size; may be lazy.
        taxonomy: what their classes are.

    Raises:
        ValueError: there is no frame, one is of another size, or doesn't fit the taxonomy.
    """
    size: tuple[int, int] | None = None
    # By class, track and piece, the last frame and shape, and all shapes; of stuff each frame by itself.
    pieces: dict[tuple[int, int, int], _Track] = {}
    masks: list[tuple[int, str]] = []
    count = 0
    for t, frame in enumerate(frames):
        if size not in (None, frame.size):
            raise ValueError(f"frame {t} is {frame.size}, the first {size}; a video has one size")
        frame.check(taxonomy)
        size, count = frame.size, t + 1
        for label, track, _, (x, y, width, height), _ in frame.segments():
            part = slice(y, y + height), slice(x, x + width)
            mask = (frame.semantic[part] == label) & (frame.instance[part] == track)
            if track:
                for piece, outline in enumerate(outlines(mask)):
                    points = ";".join(f"{px + x},{py + y}" for px, py in outline)
                    pieces.setdefault((label, track, piece), _Track()).add(t, points)
            elif not taxonomy.is_thing(label):
                masks.append((label, _mask(t, mask, x, y)))
    if size is None:
        raise ValueError("there is no frame")
    groups: dict[tuple[int, int], int] = {}
    for label, track, piece in pieces:
        if piece == 1:
            groups[label, track] = len(groups) + 1
    lines = [_head(name, count, size, taxonomy)]
    ordered = sorted(pieces)
    for number, key in enumerate(ordered):
        group = groups.get(key[:2])
        attribute = "" if group is None else f' group_id="{group}"'
        shapes = "\n".join(pieces[key].finish(count))
        lines.append(f"<track {_attributes(number, taxonomy.names[key[0]])}{attribute}>\n{shapes}\n</track>")
    for number, (label, shape) in enumerate(masks, len(ordered)):
        lines.append(f"<track {_attributes(number, taxonomy.names[label])}>{shape}</track>")
    return "\n".join([*lines, "</annotations>\n"]).encode()


class _Track:
    """The shapes of one track of polygons, all of them keyframes, so that CVAT interpolates nothing."""

    def __init__(self) -> None:
        self._shapes: list[str] = []
        self._last, self._points = -1, ""

    def add(self, t: int, points: str) -> None:
        if self._shapes and t > self._last + 1:
            self._shapes.append(_polygon(self._last + 1, self._points, outside=1))
        self._shapes.append(_polygon(t, points, outside=0))
        self._last, self._points = t, points

    def finish(self, count: int) -> list[str]:
        """All shapes, and the one that says that it isn't seen up to the end of `count` frames."""
        if self._last + 1 < count:
            return [*self._shapes, _polygon(self._last + 1, self._points, outside=1)]
        return self._shapes


def _polygon(t: int, points: str, outside: int) -> str:
    return (
        f'<polygon frame="{t}" keyframe="1" outside="{outside}" occluded="0" points="{points}" z_order="0"/>'
    )


def _mask(t: int, mask: NDArray[np.bool_], x: int, y: int) -> str:
    flat = mask.ravel()
    ends = np.flatnonzero(np.diff(flat, append=~flat[-1:])) + 1
    runs = np.diff(ends, prepend=0).tolist()
    if flat[0]:
        runs.insert(0, 0)  # outside comes first
    height, width = mask.shape
    return (
        f'<mask frame="{t}" keyframe="1" outside="0" occluded="0" rle="{", ".join(map(str, runs))}" '
        f'left="{x}" top="{y}" width="{width}" height="{height}" z_order="0"/>'
    )


def _attributes(number: int, label: str) -> str:
    return f'id="{number}" label={quoteattr(label)} source="file"'


def _head(name: str, count: int, size: tuple[int, int], taxonomy: Taxonomy) -> str:
    labels = "\n".join(
        f"<label><name>{escape(c.name)}</name><color>{_color(c.color)}</color><attributes></attributes></label>"
        for c in taxonomy.categories
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
<version>1.1</version>
<meta><task>
<name>{escape(name)}</name><size>{count}</size><mode>interpolation</mode>
<start_frame>0</start_frame><stop_frame>{count - 1}</stop_frame><frame_filter></frame_filter>
<labels>
{labels}
</labels>
<original_size><width>{size[1]}</width><height>{size[0]}</height></original_size>
</task></meta>"""


def _color(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
