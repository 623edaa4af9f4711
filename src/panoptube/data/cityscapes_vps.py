"""Cityscapes-VPS: its classes and its clips (dossier 11.1 to 11.4).

500 clips of 30 frames, 1024x2048, 17 frames per second; of each clip the frames 4, 9, 14, 19, 24 and 29 are
labelled, counted from 0. Frame 19 is Cityscapes' own fine annotation, the others come with Cityscapes-VPS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from panoptube.data.clip import Clip, Image
from panoptube.data.files import (
    MissingData,
    list_files,
    raise_for,
    read_colors,
    read_gray,
    read_image,
    read_json,
)
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Category, Color, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs
from panoptube.panoptic.segment_ids import IdMap

CITYSCAPES = Taxonomy(
    "cityscapes",
    (
        Category("road", False, (128, 64, 128), 0),
        Category("sidewalk", False, (244, 35, 232), 1),
        Category("building", False, (70, 70, 70), 2),
        Category("wall", False, (102, 102, 156), 3),
        Category("fence", False, (190, 153, 153), 4),
        Category("pole", False, (153, 153, 153), 5),
        Category("traffic light", False, (250, 170, 30), 6),
        Category("traffic sign", False, (220, 220, 0), 7),
        Category("vegetation", False, (107, 142, 35), 8),
        Category("terrain", False, (152, 251, 152), 9),
        Category("sky", False, (70, 130, 180), 10),
        Category("person", True, (220, 20, 60), 11),
        Category("rider", True, (255, 0, 0), 12),
        Category("car", True, (0, 0, 142), 13),
        Category("truck", True, (0, 0, 70), 14),
        Category("bus", True, (0, 60, 100), 15),
        Category("train", True, (0, 80, 100), 16),
        Category("motorcycle", True, (0, 0, 230), 17),
        Category("bicycle", True, (119, 11, 32), 18),
    ),
)
"""Cityscapes' 19 train ids, in their order."""

SPLITS = ("train", "val", "test")
LENGTH = 30
"""Frames of a clip."""
FPS = 17.0

VPS_PAGE = "https://github.com/mcahny/vps"
CITYSCAPES_PAGE = "https://www.cityscapes-dataset.com/downloads"
TREE = """\
ROOT/
  panoptic_im_train_city_vps.json  ..._val_...  ..._test_...    cityscapes-vps-dataset-1.0.zip
  train/cls/0001_0001_CITY_SSSSSS_NNNNNN_final_mask.png         the same
  train/inst/0001_0001_CITY_SSSSSS_NNNNNN_original_image_instance_greyscale.png    the same
  val/cls/  val/inst/                                           the same
  gtFine/val/CITY/CITY_SSSSSS_NNNNNN_gtFine_color.png           gtFine_trainvaltest.zip
  gtFine/val/CITY/CITY_SSSSSS_NNNNNN_gtFine_instanceIds.png     the same
  leftImg8bit_sequence/val/CITY/CITY_SSSSSS_NNNNNN_leftImg8bit.png    leftImg8bit_sequence_trainvaltest.zip
gtFine/ and leftImg8bit_sequence/ may lie beside ROOT instead. What the published scripts copy from them,
img/, img_all/, and frame 19 in cls/ and inst/, is used where it is there."""

VOID_COLORS: tuple[Color, ...] = (
    (0, 0, 0),  # unlabeled, ego vehicle, out of roi, static
    (111, 74, 0),  # dynamic
    (81, 0, 81),  # ground
    (250, 170, 160),  # parking
    (230, 150, 140),  # rail track
    (180, 165, 180),  # guard rail
    (150, 100, 100),  # bridge
    (150, 120, 90),  # tunnel
    (0, 0, 90),  # caravan
    (0, 0, 110),  # trailer
)
"""Colours of Cityscapes' labels without a train id (cityscapesScripts, helpers/labels.py); polegroup and
license plate have the colours of pole and car."""


class LabelFiles(NamedTuple):
    """The two PNGs that label a frame: class colours, and instance ids."""

    cls: Path
    inst: Path


@dataclass(frozen=True)
class ClipFiles:
    """What a clip is made of.

    Attributes:
        name: its number, four digits.
        size: (height, width).
        sources: of all 30 frames, Cityscapes' names: city_SSSSSS_NNNNNN.
        frames: of its labelled frames, by index in the clip: the name, VVVV_FFFF_city_SSSSSS_NNNNNN.
        file_names: of the same: the image's name in train/img or val/img.
        images: by index in the clip, for those that are there.
        labels: by index in the clip; empty where the split has none.
    """

    name: str
    size: tuple[int, int]
    sources: tuple[str, ...]
    frames: dict[int, str]
    file_names: dict[int, str]
    images: dict[int, Path]
    labels: dict[int, LabelFiles]


@dataclass(slots=True)
class _Image:
    id: str
    file_name: str
    width: int
    height: int


@dataclass(slots=True)
class _File:
    images: list[_Image]


_FORM = TypeAdapter(_File)
_NAME = re.compile(r"(\d{4})_(\d{4})_([a-z]+)_(\d{6})_(\d{6})")
_ENDINGS = ("_newImg8bit.png", "_leftImg8bit.png")


def read_cityscapes_vps(root: Path | str, split: str, void_unknown: bool = False) -> list[Clip]:
    """The clips of a split, by number; frames and labels are read when asked for.

    Track ids are the dataset's own: class * 1000 + object number. As in the published truth (dossier 11.4) an
    object has the class that most of its pixels have, and pixels of a thing class without an object are void.

    Args:
        root: the folder with panoptic_im_SPLIT_city_vps.json, as in `TREE`.
        split: "train", "val" or "test", which has no labels.
        void_unknown: colours that Cityscapes doesn't have are void, as in the published scripts, instead of a
            fault.

    Returns:
        Clips of 30 frames, which can be pickled. Reading a frame or its truth raises UserError, naming the
        file, where it is missing, damaged, of another size, or holds an unknown colour.

    Raises:
        MissingData: a file isn't there.
        UserError: the JSON isn't of its form, or its names contradict each other.
    """
    clips: list[Clip] = []
    for files in find_clips(Path(root), split):
        missing = next((files.frames[t] for t in files.frames if t not in files.images), None)
        if missing is not None:
            raise MissingData(
                f"{root} has no image of {missing}; unpack leftImg8bit_sequence_trainvaltest.zip of "
                f"{CITYSCAPES_PAGE} in it"
            )
        clips.append(
            Clip(
                name=files.name,
                taxonomy=CITYSCAPES,
                size=files.size,
                fps=FPS,
                length=LENGTH,
                labelled=tuple(sorted(files.labels)),
                read_image=partial(_read_image, files.name, files.images, files.size),
                read_truth=partial(_read_truth, files.labels, files.size, void_unknown),
            )
        )
    return clips


def find_clips(root: Path, split: str) -> list[ClipFiles]:
    """The files of a split's clips, by number. Labels must be there, images needn't.

    Raises:
        MissingData: the JSON isn't there, or a label of "train" or "val".
        UserError: the JSON isn't of its form, or its names contradict each other.
    """
    if split not in SPLITS:
        raise UserError(f"Cityscapes-VPS has no split {split!r}; it has {', '.join(SPLITS)}")
    json_path = root / f"panoptic_im_{split}_city_vps.json"
    if not json_path.is_file():
        raise MissingData(
            f"no {json_path}; unpack cityscapes-vps-dataset-1.0.zip, linked on {VPS_PAGE}, in {root}"
        )
    listed: dict[str, list[_Image]] = {}
    for image in sorted(read_json(json_path, _FORM).images, key=lambda i: i.id):
        if not _NAME.fullmatch(image.id) or image.file_name not in [image.id + e for e in _ENDINGS]:
            raise UserError(
                f"{json_path} has the image {image.id!r}, not VVVV_FFFF_city_SSSSSS_NNNNNN; unpack it again"
            )
        listed.setdefault(image.id[:4], []).append(image)
    if not listed:
        raise UserError(f"{json_path} lists no images; unpack it again")
    pictures = _Pictures(root, split)
    labels = _Labels(root, split)
    return [_find_clip(json_path, name, images, pictures, labels) for name, images in listed.items()]


def _find_clip(
    json_path: Path, name: str, listed: list[_Image], pictures: _Pictures, labels: _Labels
) -> ClipFiles:
    first = listed[0]
    size = (first.height, first.width)
    frames: dict[int, str] = {}
    file_names: dict[int, str] = {}
    starts: set[str] = set()
    for image in listed:
        _, running, city, sequence, number = _NAME.fullmatch(image.id).groups()  # type: ignore[union-attr]
        # FFFF = 6 (VVVV - 1) + j, j = 1..6, and the j-th labelled frame is the (5 j)-th of the clip.
        t = 5 * (int(running) - 6 * (int(name) - 1)) - 1
        if not 0 <= t < LENGTH or t in frames or (image.height, image.width) != size:
            raise UserError(
                f"{json_path}: the image {image.id!r} doesn't fit into clip {name} of six labelled frames of "
                f"{size[1]}x{size[0]}; unpack it again"
            )
        frames[t], file_names[t] = image.id, image.file_name
        starts.add(f"{city}_{sequence}_{int(number) - t:06d}")
    if len(starts) > 1:
        raise UserError(f"{json_path}: the images of clip {name} aren't five frames apart; unpack it again")
    city, sequence, start = starts.pop().split("_")
    sources = tuple(f"{city}_{sequence}_{int(start) + t:06d}" for t in range(LENGTH))
    images: dict[int, Path] = {}
    for t, source in enumerate(sources):
        path = pictures.find(file_names.get(t), city, source)
        if path is not None:
            images[t] = path
    found = {t: labels.find(frames[t]) for t in frames} if labels.wanted else {}
    return ClipFiles(name, size, sources, frames, file_names, images, found)


def _beside(root: Path, name: str) -> Path:
    """A folder of Cityscapes itself: in the dataset's folder, or beside it, as their scripts want it."""
    return root / name if (root / name).is_dir() else root.resolve().parent / name


class _Pictures:
    """Where the images are: folders are listed once."""

    def __init__(self, root: Path, split: str) -> None:
        self._labelled = {p.name: p for p in list_files(root / split / "img")}
        self._all = {p.name: p for p in list_files(root / split / "img_all")}
        self._sequences = _beside(root, "leftImg8bit_sequence") / "val"
        self._cities: dict[str, dict[str, Path]] = {}

    def find(self, file_name: str | None, city: str, frame: str) -> Path | None:
        if city not in self._cities:
            self._cities[city] = {p.name: p for p in list_files(self._sequences / city)}
        name = f"{frame}_leftImg8bit.png"
        path = self._labelled.get(file_name) if file_name else None
        return path or self._all.get(name) or self._cities[city].get(name)


class _Labels:
    """Where the labels are."""

    def __init__(self, root: Path, split: str) -> None:
        self._root, self._split = root, split
        self._cls = _by_frame(list_files(root / split / "cls", (".png",)))
        self._inst = _by_frame(list_files(root / split / "inst", (".png",)))
        self._fine = _beside(root, "gtFine") / "val"
        self.wanted = split != "test" or bool(self._cls)

    def find(self, frame: str) -> LabelFiles:
        cls, inst = self._cls.get(frame), self._inst.get(frame)
        _, _, city, rest = frame.split("_", 3)
        fine = self._fine / city / f"{city}_{rest}_gtFine_color.png"
        if cls is None and fine.is_file():
            cls, inst = fine, fine.with_name(fine.name.replace("_color", "_instanceIds"))
        if cls is None or inst is None or not inst.is_file():
            raise MissingData(
                f"{self._root / self._split} has no {'inst' if cls else 'cls'} PNG of {frame}; unpack "
                f"cityscapes-vps-dataset-1.0.zip, linked on {VPS_PAGE}, and gtFine_trainvaltest.zip of "
                f"{CITYSCAPES_PAGE}, which has each clip's frame 19, in {self._root}"
            )
        return LabelFiles(cls, inst)


def _by_frame(paths: Iterable[Path]) -> dict[str, Path]:
    """By VVVV_FFFF_city_SSSSSS_NNNNNN, with which their names begin."""
    return {match[0]: p for p in paths if (match := _NAME.match(p.name))}


def _read_image(clip: str, paths: dict[int, Path], size: tuple[int, int], t: int) -> Image:
    if t not in paths:
        raise MissingData(
            f"clip {clip} has no image of frame {t}; unpack leftImg8bit_sequence_trainvaltest.zip of "
            f"{CITYSCAPES_PAGE} in the dataset's folder"
        )
    return read_image(paths[t], size)


def _read_truth(
    labels: dict[int, LabelFiles], size: tuple[int, int], void_unknown: bool, t: int
) -> PanopticFrame:
    return read_label(labels[t], size, void_unknown)[0]


def read_label(
    files: LabelFiles, size: tuple[int, int], void_unknown: bool = False
) -> tuple[PanopticFrame, NDArray[np.uint8]]:
    """Truth of a frame, and the class of each pixel.

    Args:
        files: of the frame.
        size: (H, W).
        void_unknown: as in `read_cityscapes_vps`.

    Returns:
        The frame, and (H, W) uint8 classes, 255 = void, which thing pixels have also where they are of no
        object: what the published code trains its semantic head on (dossier 11.4, `labelmap`).

    Raises:
        UserError: as `read_cityscapes_vps` says of reading.
    """
    colors, objects = read_colors(files.cls, size), read_gray(files.inst, size)
    return _merge(files, colors, objects, void_unknown)


def _merge(
    files: LabelFiles, colors: IdMap, objects: NDArray[np.integer[Any]], void_unknown: bool
) -> tuple[PanopticFrame, NDArray[np.uint8]]:
    """Dossier 11.4, `labelmap` and `panoptic_inst`, on runs of equal pixels."""
    starts, lengths = find_runs(colors, objects)
    values, place = np.unique(colors.reshape(-1)[starts], return_inverse=True)
    known = {_id(c.color): i for i, c in enumerate(CITYSCAPES.categories)} | {
        _id(c): VOID for c in VOID_COLORS
    }
    unknown = [v for v in values.tolist() if v not in known]
    if unknown and not void_unknown:
        what = "no class of Cityscapes has it; correct the PNG or unpack it again"
        raise_for(np.isin(colors, unknown), colors, files.cls, what, "colour")
    table = np.array([known.get(v, VOID) for v in values.tolist()], np.uint8)
    classes = table[place]
    thing = (classes >= CITYSCAPES.num_stuff) & (classes != VOID)
    semantic = np.where(thing, VOID, classes).astype(np.uint8)
    instance = np.zeros(len(starts), np.int32)

    numbers = objects.reshape(-1)[starts].astype(np.int64)
    inside = numbers >= 1000
    if inside.any():
        ids, of = np.unique(numbers[inside], return_inverse=True)
        pixels = np.bincount(
            of * len(values) + place[inside], lengths[inside], len(ids) * len(values)
        ).reshape(len(ids), len(values))
        # The class of most of an object's pixels; of equally frequent colours the one with the smallest id.
        label = table[pixels.argmax(1)]
        is_thing = (label >= CITYSCAPES.num_stuff) & (label != VOID)
        track = np.array([c.id for c in CITYSCAPES.categories] + [0] * (256 - len(CITYSCAPES)))[label] * 1000
        track += ids % 1000
        where = np.flatnonzero(inside)[is_thing[of]]
        semantic[where] = label[of][is_thing[of]]
        instance[where] = track[of][is_thing[of]]
    shape = colors.shape
    frame = PanopticFrame(
        np.repeat(semantic, lengths).reshape(shape), np.repeat(instance, lengths).reshape(shape)
    )
    return frame, np.repeat(classes, lengths).reshape(shape)


def _id(color: Color) -> int:
    return color[0] + 256 * color[1] + 65536 * color[2]
