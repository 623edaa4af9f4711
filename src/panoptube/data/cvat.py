"""CVAT's export "CVAT for video 1.1" -> COCO panoptic video, what `coco_video` reads.

    EXPORT/
      drive_a/annotations.xml             one folder for each task: its export, unpacked
      drive_a/images/frame_000000.png     there if the task was exported with "Save images"

    <annotations><version>1.1</version>
      <meta><task><size>30</size><mode>interpolation</mode>
        <start_frame>0</start_frame><frame_filter>step=2</frame_filter>
        <labels><label><name>car</name><color>#00008e</color></label></labels></task></meta>
      <track id="0" label="car" group_id="4">
        <polygon frame="0" outside="0" keyframe="1" points="1.00,2.00;9.00,2.00;9.00,6.00" z_order="0"/>
        <mask frame="2" outside="0" keyframe="1" rle="3, 5, 8" left="10" top="4" width="4"
              height="4" z_order="1"/>
      </track>
    </annotations>

Of this form (docs.cvat.ai, "XML annotation format"; what CVAT writes: cvat-ai/cvat,
cvat/apps/dataset_manager/formats/cvat.py, `dump_as_cvat_interpolation`, and bindings.py, `abs_frame_id` and
`meta_for_task`):

- A track has a shape for every frame, also between keyframes, so nothing is interpolated here. From a shape
  with outside="1" to the track's next one it has none.
- Shapes that are no tracks, as masks are, stand there as tracks of one frame. With the same `group_id`
  (Group in CVAT) they are one object here, as are the parts of an object that is seen in two pieces.
- `frame` counts frames of the video: the i-th of the task is start_frame + i * step. The images of a
  video (mode "interpolation") are called by it, frame_000012.png; uploaded pictures keep their names.
- A mask's `rle` are lengths of runs in its box, by rows, alternately outside and inside, outside first.
- Coordinates are pixels, and a pixel reaches from its number to the next.
"""

from __future__ import annotations

import colorsys
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from panoptube.data.coco_video_writer import CocoVideoWriter
from panoptube.data.files import link_or_copy, list_files, picture_size, read_json
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Category, Color, PanopticFrame, Taxonomy
from panoptube.progress import progress_bar

XML = "annotations.xml"
MAX_BYTES = 256 << 20
"""Of an XML file, which is read as a whole; far above 5,000 frames with 20 polygons each."""
FURTHEST = 1e6
"""Coordinates are below this, in pixels."""


def import_cvat(
    export: Path | str,
    out: Path | str,
    split: str,
    stuff: Sequence[str] = (),
    images: Path | str | None = None,
    fps: float = 25.0,
    overwrite: bool = False,
    progress: bool = True,
) -> str:
    """Writes a split of COCO panoptic video: `out`/panoptic_SPLIT.json, panoptic_SPLIT/ and SPLIT/.

    Each task is a video, called as the folder of its XML. Frames are numbered from 0. Pixels under no shape
    are void, and a frame without any shape has no truth. Where shapes overlap, the one with the higher
    z_order is seen; of equal ones a thing before stuff, then the later one in the file. A pixel is in a
    polygon if its middle is. Images get a second name, or are copied where the disk has no links.

    Args:
        export: folder as at the top of this file, the folder of one task, or its XML.
        out: folder of the dataset; other splits in it stay.
        split: "train", "val" or another plain name.
        stuff: labels of which a frame has one segment; all others are things, an object each.
        images: folder with the images of each video in a folder of its name, or of the only video; None:
            images/ beside the XML.
        fps: frames per second, above 0; CVAT doesn't write it.
        overwrite: replace the split if it is there, once the new one is complete.
        progress: show a bar with the time left.

    Returns:
        A line that says what was written.

    Raises:
        UserError: the export isn't of this form, is of another one of CVAT's, has shapes without an area,
            or declares a document type; images are missing or of several sizes; labels differ
            between tasks or from the folder's other splits; the split exists; or the disk is full.
    """
    out, root = Path(out), Path(export)
    if split != Path(split).name or not split or split.startswith("."):
        raise UserError(f"{split!r} is no name of a split; take a plain one, such as train")
    if not 0 < fps < math.inf:
        raise UserError(f"fps is {fps}; give frames per second above 0")
    names = (f"panoptic_{split}.json", f"panoptic_{split}", split)
    _check_free(out, names, overwrite)
    paths = _find_exports(root)
    tasks = [
        _read_task(name, path, None if images is None else Path(images), len(paths) == 1)
        for name, path in paths.items()
    ]
    taxonomy = _taxonomy(tasks, stuff)
    _check_other_splits(out, names[0], taxonomy)
    part = out / f".import-{split}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        frames, tracks = _write(part, split, tasks, taxonomy, fps, progress)
        _install(part, out, names)
    except OSError as error:
        raise UserError(
            f"can't write to {out}: {error.strerror}; make room or name another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"{out / names[0]}: {len(tasks)} videos, {frames} frames, {tracks} objects"


@dataclass(frozen=True)
class _Shape:
    """What one track covers in one frame.

    `track` is the same for all shapes of an object of the task. `polygon`: (N, 2) x, y in pixels. `mask`:
    (h, w) bool with its corner (x, y) in the frame. One of the two is None.
    """

    label: str
    track: tuple[str, str]
    z_order: int
    polygon: NDArray[np.float64] | None
    mask: tuple[NDArray[np.bool_], int, int] | None

    def inside(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """(H, W)."""
        if self.polygon is not None:
            return fill_polygon(self.polygon, size)
        whole = np.zeros(size, np.bool_)
        if self.mask is not None:
            mask, x, y = self.mask
            whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        return whole


@dataclass(frozen=True)
class _Task:
    """One video: its labels with their colours; its images and shapes by frame number."""

    name: str
    path: Path
    labels: dict[str, Color | None]
    size: tuple[int, int]
    images: dict[int, Path]
    shapes: dict[int, list[_Shape]]


def fill_polygon(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose middle lies inside a polygon; of two that share an edge, each pixel is in one.

    Args:
        points: (N, 2) corners, x and y in pixels; they may lie outside the frame.
        size: (H, W) of the frame.

    Returns:
        (H, W). Where the outline crosses itself, what it goes round twice is outside.
    """
    height, width = size
    (x, y), (next_x, next_y) = points.T, np.roll(points, -1, 0).T
    rows = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= rows) != (next_y[:, None] <= rows))
    share = (rows[row] - y[edge]) / (next_y[edge] - y[edge])
    crossing = x[edge] + share * (next_x[edge] - x[edge])
    # Inside and outside change places at the first pixel whose middle isn't left of the crossing.
    turns = np.zeros((height, width + 1), np.uint8)
    np.add.at(turns, (row, np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)), 1)
    inside: NDArray[np.bool_] = np.bitwise_xor.accumulate(turns & 1, axis=1)[:, :width].astype(np.bool_)
    return inside


def _find_exports(root: Path) -> dict[str, Path]:
    """XML files by the name of their video."""
    if root.suffix.lower() == ".zip":
        raise UserError(
            f"{root} is packed; unpack it into a folder called as the video, and name that folder"
        )
    if root.is_file():
        return {root.resolve().parent.name: root}
    if (root / XML).is_file():
        return {root.resolve().name: root / XML}
    found = {path.parent.name: path for path in sorted(root.glob(f"*/{XML}"))}
    if not found:
        raise UserError(
            f'{root} has no {XML}, nor have its folders; export each task as "CVAT for video 1.1" and unpack '
            f"it to {root / 'VIDEO'}"
        )
    return found


def _read_task(name: str, path: Path, images: Path | None, alone: bool) -> _Task:
    root = _read_xml(path)
    task = root.find("meta/task")
    if root.tag != "annotations" or task is None or root.find("image") is not None:
        raise UserError(f'{path} is no export of a task as "CVAT for video 1.1"; export the task as that')
    folder = path.parent / "images" if images is None else images
    if images is not None and not (alone and not (images / name).is_dir()):
        folder = images / name
    numbered = _number_images(path, folder, task)
    size = picture_size(next(iter(numbered.values())))
    for picture in numbered.values():
        height, width = picture_size(picture)
        if (height, width) != size:
            raise UserError(
                f"{picture} is {width}x{height}, the first {size[1]}x{size[0]}; a video has one size"
            )
    known = (task.findtext("original_size/width"), task.findtext("original_size/height"))
    if known != (None, None) and known != (str(size[1]), str(size[0])):
        raise UserError(
            f"{path} is of a video of {known[0]}x{known[1]}, the images in {folder} are {size[1]}x{size[0]}; "
            "give those that were annotated"
        )
    labels: dict[str, Color | None] = {}
    for label in task.iterfind("labels/label"):
        if label.find("parent") is None:  # those that have one are points of a skeleton
            labels[label.findtext("name") or ""] = _color(label.findtext("color"))
    shapes: dict[int, list[_Shape]] = {}
    for track in root.iterfind("track"):
        for number, shape in _read_track(path, track, size):
            if shape.label not in labels:
                raise UserError(
                    f"{path} has a track of {shape.label!r}, no label of its task; export it again"
                )
            if number not in numbered:
                raise UserError(
                    f"{path} has a shape in frame {number}, of which {folder} has no image; "
                    "export both together"
                )
            shapes.setdefault(number, []).append(shape)
    return _Task(name, path, labels, size, numbered, shapes)


def _read_xml(path: Path) -> Element:
    """The root of an XML file. One that declares a document type is refused: entities come in through it."""
    tree = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.data

    def refuse(*declared: object) -> None:
        raise UserError(f"{path} declares a document type, which CVAT never writes; export it again")

    parser.StartDoctypeDeclHandler = refuse
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"{path} has {size >> 20} MiB, more than {MAX_BYTES >> 20}; cut the video into several tasks"
            )
        parser.Parse(path.read_bytes(), True)
        return tree.close()
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not whole XML: {error}; export it again") from error


def _number_images(path: Path, folder: Path, task: Element) -> dict[int, Path]:
    """Images by frame number: the one in their names, as CVAT writes them for videos, or else by order.

    By name, deleted frames may be missing. By order, names are those of pictures that were uploaded.
    """
    files = list_files(folder)
    if not files:
        raise UserError(
            f'{folder} has no images; export the task with "Save images", or name their folder (--images)'
        )
    count, start = _whole(path, task.findtext("size")), _whole(path, task.findtext("start_frame") or "0")
    filtered = re.search(r"step=(\d{1,9})", task.findtext("frame_filter") or "")
    frames = range(start, start + count * (step := max(int(filtered[1]) if filtered else 1, 1)), step)
    matches = [re.fullmatch(r"frame_(\d{1,9})", file.stem) for file in files]
    numbers = [int(match[1]) for match in matches if match is not None]
    if task.findtext("mode") == "interpolation" and len(set(numbers) & set(frames)) == len(files):
        return dict(zip(numbers, files))
    if len(files) != count:
        raise UserError(
            f"{folder} has {len(files)} images, but the task of {path} {count} frames; give them all"
        )
    return dict(zip(frames, files))


def _read_track(path: Path, track: Element, size: tuple[int, int]) -> Iterator[tuple[int, _Shape]]:
    label, number = track.get("label", ""), track.get("id", "")
    group = track.get("group_id", "0")
    key = ("track", number) if group == "0" else (f"group of {label}", group)
    for element in track:
        if element.get("outside") == "1":
            continue
        frame = _whole(path, element.get("frame"))
        polygon = mask = None
        if element.tag == "polygon":
            polygon = _points(path, element.get("points", ""))
        elif element.tag == "mask":
            mask = _mask(path, element, size)
        else:
            raise UserError(
                f"{path} has a {element.tag} in track {number} ({label}), frame {frame}; only polygons and "
                "masks have pixels: draw it as one, or delete it"
            )
        yield frame, _Shape(label, key, _whole(path, element.get("z_order", "0"), -(2**31)), polygon, mask)


def _points(path: Path, text: str) -> NDArray[np.float64]:
    try:
        points = np.array([[float(v) for v in pair.split(",")] for pair in text.split(";")])
    except ValueError:
        points = np.empty((0, 0))
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not (abs(points) < FURTHEST).all():
        raise UserError(
            f"{path} has a polygon of the points {text[:40]!r}; it should be x,y;x,y;x,y: export it again"
        )
    return points


def _mask(path: Path, element: Element, size: tuple[int, int]) -> tuple[NDArray[np.bool_], int, int]:
    x, y, width, height = (_whole(path, element.get(name)) for name in ("left", "top", "width", "height"))
    runs = [_whole(path, run.strip()) for run in element.get("rle", "").split(",")]
    if x + width > size[1] or y + height > size[0] or sum(runs) != width * height:
        raise UserError(
            f"{path} has a mask of {width}x{height} pixels at {x}, {y} in frame {element.get('frame')}, but "
            f"{sum(runs)} pixels of runs and an image of {size[1]}x{size[0]}; export it again"
        )
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(height, width), x, y


def _whole(path: Path, text: str | None, least: int = 0) -> int:
    if text is None or not re.fullmatch(r"-?\d{1,10}", text, re.ASCII) or int(text) < least:
        raise UserError(f"{path} has {text!r} where a whole number should be; export it again")
    return int(text)


def _color(text: str | None) -> Color | None:
    if text is None or not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return None
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _taxonomy(tasks: Sequence[_Task], stuff: Sequence[str]) -> Taxonomy:
    """Ids are places in the list of labels, from 1 on, so that tasks of one project agree."""
    labels = tasks[0].labels
    other = next((task for task in tasks if list(task.labels) != list(labels)), None)
    if other is not None:
        raise UserError(
            f"{other.path} has other labels than {tasks[0].path}; give all tasks the labels of one project"
        )
    unknown = next((name for name in stuff if name not in labels), None)
    if unknown is not None:
        raise UserError(f"no label is called {unknown!r}; there are {', '.join(labels)}")
    categories = [
        Category(name, name not in stuff, color or _hue(i), i)
        for i, (name, color) in enumerate(labels.items(), 1)
    ]
    return Taxonomy("cvat", tuple(sorted(categories, key=lambda c: c.isthing)))


def _hue(i: int) -> Color:
    """For a label without a colour, as older versions of CVAT write them."""
    r, g, b = colorsys.hsv_to_rgb(i * 0.618 % 1, 0.6, 0.8)
    return round(255 * r), round(255 * g), round(255 * b)


@dataclass(slots=True)
class _Class:
    id: int
    name: str
    isthing: bool


@dataclass(slots=True)
class _Classes:
    categories: list[_Class]


_CLASSES = TypeAdapter(_Classes)


def _check_other_splits(out: Path, name: str, taxonomy: Taxonomy) -> None:
    own = {(c.id, c.name, c.isthing) for c in taxonomy.categories}
    for path in sorted(out.glob("panoptic_*.json")):
        if path.name == name:
            continue
        there = {(c.id, c.name, c.isthing) for c in read_json(path, _CLASSES).categories}
        if there != own:
            missing = ", ".join(sorted({c[1] for c in there ^ own}))
            raise UserError(
                f"{path} has other classes ({missing}); give the same labels and the same --stuff, "
                "or another --out"
            )


def _check_free(out: Path, names: Sequence[str], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the dataset")
    if (out / names[0]).exists():
        if not overwrite:
            raise UserError(
                f"{out / names[0]} exists; name another split or folder, or overwrite it (--overwrite)"
            )
        return
    there = next((out / name for name in names if (out / name).exists()), None)
    if there is not None:
        raise UserError(f"{there} exists, which no import has written; name another split or folder")


def _write(
    part: Path, split: str, tasks: Sequence[_Task], taxonomy: Taxonomy, fps: float, progress: bool
) -> tuple[int, int]:
    """Everything of the split into `part`; returns the number of frames and of objects."""
    writer = CocoVideoWriter(part, split, taxonomy)
    numbers: dict[tuple[str, tuple[str, str]], int] = {}
    with progress_bar(progress, "frames") as bar:
        bar_task = bar.add_task("import", total=sum(len(task.images) for task in tasks))
        for task in tasks:
            writer.add_video(task.name, fps, task.size)
            for number, picture in sorted(task.images.items()):
                frame = _draw(task, number, taxonomy, numbers)
                link_or_copy(picture, writer.add_frame(number, picture.suffix.lower(), frame))
                bar.advance(bar_task)
    if not writer.annotations:
        raise UserError(
            f"{tasks[0].path} has no shape that covers a pixel; annotate the task, and export it again"
        )
    writer.close()
    return len(writer.images), len(numbers)


def _draw(
    task: _Task, number: int, taxonomy: Taxonomy, numbers: dict[tuple[str, tuple[str, str]], int]
) -> PanopticFrame | None:
    """The truth of a frame, or None if no shape covers a pixel; `numbers` has those of objects so far."""
    semantic = np.full(task.size, VOID, np.uint8)
    instance = np.zeros(task.size, np.int32)
    shapes = [(taxonomy.index(shape.label), shape) for shape in task.shapes.get(number, [])]
    for label, shape in sorted(shapes, key=lambda s: (s[1].z_order, taxonomy.is_thing(s[0]))):
        inside = shape.inside(task.size)
        semantic[inside] = label
        instance[inside] = 0
        if taxonomy.is_thing(label):
            instance[inside] = numbers.setdefault((task.name, shape.track), len(numbers) + 1)
    return PanopticFrame(semantic, instance) if (semantic != VOID).any() else None


def _install(part: Path, out: Path, names: Sequence[str]) -> None:
    """Gives the new split its place, the JSON last; if a step fails, an earlier split is as it was."""
    old = part / "old"
    old.mkdir()
    steps = [(out / name, old / name) for name in names if (out / name).exists()]
    steps += [(part / name, out / name) for name in reversed(names)]
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in steps:
            source.rename(target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            target.rename(source)
        raise
