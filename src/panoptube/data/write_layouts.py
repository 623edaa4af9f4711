"""Writes clips as the datasets' downloads unpack: `read_dataset`, `prepare` and `check` take them as such.

Formats and their sources are those of the readers: cityscapes_vps.py, viper.py, kitti_step.py, vipseg.py and
coco_video.py. Object numbers are given anew, from 1 on, in the order in which a clip shows its objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data import cityscapes_vps, viper
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.coco_video_writer import CocoVideoWriter
from panoptube.data.kitti_step import KITTI_STEP
from panoptube.data.new_folder import new_folder
from panoptube.data.viper import VIPER
from panoptube.data.vipseg import VIPSEG
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs

Clips = Iterable[tuple[str, Clip]]
"""Pairs of a split, "train" or "val", and a clip; a clip is written before the next one is asked for."""

CITYSCAPES_LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of Cityscapes' 19 train ids (cityscapesScripts, helpers/labels.py): what instance PNGs hold."""
CITYSCAPES_FRAMES = (4, 9, 14, 19, 24, 29)
"""Labelled frames of a clip, from 0; 19 is of Cityscapes itself (dossier 11.1)."""
CITY = "city"
"""What the written frames have in place of a city's name."""
OBJECTS = 65535
"""Most objects of a class in two channels of 8 bits; 0 is none."""
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


def write_dataset(name: str, clips: Clips, out: Path | str, overwrite: bool = False) -> Path:
    """Writes clips in a dataset's layout; returns the folder, which appears once it is complete.

    Args:
        name: one of `WRITERS`.
        clips: with the classes of that dataset, see `class_maps.with_classes`; of coco-video, any classes.
        out: the folder to make.
        overwrite: whether a folder that is there already is replaced.

    Raises:
        UserError: no clips, or one that the layout can't hold; `out` is a file, holds something and
            `overwrite` is off, or can't be written; the disk is full.
    """
    with new_folder(out, overwrite) as folder:
        WRITERS[name](clips, folder)
    return Path(out)


def write_cityscapes_vps(clips: Clips, root: Path) -> None:
    """Cityscapes-VPS: five labels of a clip in SPLIT/cls and SPLIT/inst, that of frame 19 in gtFine/val, all
    images in leftImg8bit_sequence/val, and panoptic_im_SPLIT_city_vps.json (dossier 11.2, 11.3).

    Clips are numbered from 1 over all splits. Crowd reads back as void: it has a class, but no object.

    Raises:
        UserError: a clip isn't of 30 frames with truth in frames 4, 9, 14, 19, 24 and 29, or of 1,000 objects
            of a class, or has other classes; a clip number above 1,666.
    """
    listed: dict[str, list[dict[str, Any]]] = {}
    labels = np.array([*CITYSCAPES_LABELS, *[0] * (256 - len(CITYSCAPES))], np.uint16)
    for number, (split, clip) in enumerate(clips, 1):
        _check(clip, CITYSCAPES)
        if len(clip) != cityscapes_vps.LENGTH or not set(CITYSCAPES_FRAMES) <= set(clip.labelled):
            raise UserError(
                f"clip {clip.name} has {len(clip)} frames; Cityscapes-VPS takes {cityscapes_vps.LENGTH} "
                f"frames, with truth in {', '.join(map(str, CITYSCAPES_FRAMES))}; make it so long"
            )
        if 6 * number > 9999:
            raise UserError(f"{number} clips are too many; the names of Cityscapes-VPS can number 1666")
        objects = ObjectNumbers(clip.name, clip.taxonomy, 999)
        images = root / "leftImg8bit_sequence" / "val" / CITY
        for t in range(len(clip)):
            source = f"{CITY}_{number:06d}_{t:06d}"
            save_picture(images / f"{source}_leftImg8bit.png", clip.image(t))
            if t not in CITYSCAPES_FRAMES:
                continue
            truth = _truth(clip, t)
            numbers = objects(truth)
            cls = CITYSCAPES.colors[truth.semantic]
            inst = labels[truth.semantic]
            inst = np.where(numbers > 0, inst * np.uint16(1000) + numbers, inst).astype(np.uint16)
            name = f"{number:04d}_{6 * (number - 1) + (t + 1) // 5:04d}_{source}"
            if t == 19:
                fine = root / "gtFine" / "val" / CITY / f"{source}_gtFine"
                save_picture(fine.with_name(fine.name + "_color.png"), cls)
                save_picture(fine.with_name(fine.name + "_instanceIds.png"), inst)
            else:
                save_picture(root / split / "cls" / f"{name}_final_mask.png", cls)
                save_picture(root / split / "inst" / f"{name}_original_image_instance_greyscale.png", inst)
            file_name = f"{name}_{'leftImg8bit' if t == 19 else 'newImg8bit'}.png"
            row = {"id": name, "file_name": file_name, "width": clip.size[1], "height": clip.size[0]}
            listed.setdefault(split, []).append(row)
    _check_any(listed)
    for split, rows in listed.items():
        data = {"images": rows, "categories": CITYSCAPES.to_dict()["categories"]}
        (root / f"panoptic_im_{split}_city_vps.json").write_text(json.dumps(data), encoding="utf-8")


def write_viper(clips: Clips, root: Path) -> None:
    """VIPER: SPLIT/{img,cls,inst}/SSS/SSS_FFFFF.png, images as PNG, frames from 1 (dossier 11.5).

    Sequences are numbered from 1 over all splits. Crowd reads back as void: it has a class, but no object.
    `read_viper` takes the first 50 frames unless told otherwise.

    Raises:
        UserError: a clip has no truth, 65,536 objects of a class, or other classes; more than 999 clips.
    """
    classes = np.zeros(256, np.uint8)  # VIPER's 0 is unlabelled
    classes[: len(VIPER)] = viper.CSV_IDS
    count = 0
    for count, (split, clip) in enumerate(clips, 1):
        _check(clip, VIPER)
        if count > 999:
            raise UserError(f"{count} clips are too many; the names of VIPER can number 999")
        objects = ObjectNumbers(clip.name, clip.taxonomy, OBJECTS)
        for t in range(len(clip)):
            name = f"{count:03d}/{count:03d}_{t + 1:05d}.png"
            save_picture(root / split / "img" / name, clip.image(t))
            if t in clip.labelled:
                truth = _truth(clip, t)
                cls = classes[truth.semantic]
                save_picture(root / split / "cls" / name, cls)
                save_picture(root / split / "inst" / name, _two_channels(cls, objects(truth)))
    _check_any(count)


def write_kitti_step(clips: Clips, root: Path) -> None:
    """KITTI-STEP: training/image_02/SSSS/FFFFFF.png, kitti-step/panoptic_maps/SPLIT/SSSS/FFFFFF.png.

    Sequences are numbered from 0 over all splits.

    Raises:
        UserError: a clip has no truth, 65,536 objects of a class, or other classes; more than 10,000 clips.
    """
    count = 0
    for count, (split, clip) in enumerate(clips, 1):
        _check(clip, KITTI_STEP)
        if count > 10000:
            raise UserError(f"{count} clips are too many; the names of KITTI-STEP can number 10000")
        label = KittiStepLabels(clip.name)
        for t in range(len(clip)):
            name = f"{count - 1:04d}/{t:06d}.png"
            save_picture(root / "training" / "image_02" / name, clip.image(t))
            if t in clip.labelled:
                label_path = root / "kitti-step" / "panoptic_maps" / split / name
                save_picture(label_path, label(_truth(clip, t)))
    _check_any(count)


def write_vipseg(clips: Clips, root: Path) -> None:
    """VIPSeg: imgs/VIDEO/FFFFFFFF.jpg of quality 95, panomasks/VIDEO/FFFFFFFF.png, SPLIT.txt.

    Crowd is void: a thing without a number would be an object.

    Raises:
        UserError: a clip has no truth, 100 objects of a class, other classes, or a name that is taken or
            can't be that of a folder.
    """
    values = np.zeros(256, np.uint16)
    values[: len(VIPSEG)] = [c.id + 1 for c in VIPSEG.categories]
    listed: dict[str, list[str]] = {}
    for split, clip in clips:
        _check(clip, VIPSEG)
        _check_name(clip, [name for names in listed.values() for name in names])
        objects = ObjectNumbers(clip.name, clip.taxonomy, 99)
        for t in range(len(clip)):
            save_picture(root / "imgs" / clip.name / f"{t:08d}.jpg", clip.image(t))
            if t in clip.labelled:
                truth = _truth(clip, t)
                numbers = objects(truth)
                value = values[truth.semantic]
                value[(truth.semantic >= VIPSEG.num_stuff) & (numbers == 0)] = 0
                value = np.where(numbers > 0, value * np.uint16(100) + numbers, value).astype(np.uint16)
                save_picture(root / "panomasks" / clip.name / f"{t:08d}.png", value)
        listed.setdefault(split, []).append(clip.name)
    _check_any(listed)
    for split, names in listed.items():
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_coco_video(clips: Clips, root: Path) -> None:
    """COCO panoptic video, as coco_video.py describes it: SPLIT/VIDEO/FFFFFF.png, panoptic_SPLIT.json and
    panoptic_SPLIT/VIDEO/FFFFFF.png.

    Any classes, the same in all clips. Track ids and crowd are kept.

    Raises:
        UserError: a clip has no truth, other classes than the first, or a name that is taken or can't be that
            of a folder.
    """
    writers: dict[str, CocoVideoWriter] = {}
    taxonomy: Taxonomy | None = None
    for split, clip in clips:
        taxonomy = taxonomy or clip.taxonomy
        _check(clip, taxonomy)
        if split not in writers:
            writers[split] = CocoVideoWriter(root, split, taxonomy)
        writer = writers[split]
        _check_name(clip, [video["name"] for video in writer.videos])
        writer.add_video(clip.name, clip.fps, clip.size)
        for t in range(len(clip)):
            save_picture(writer.add_frame(t, ".png", clip.truth(t)), clip.image(t))
    _check_any(writers)
    for writer in writers.values():
        writer.close()


WRITERS: dict[str, Callable[[Clips, Path], None]] = {
    "cityscapes-vps": write_cityscapes_vps,
    "viper": write_viper,
    "kitti-step": write_kitti_step,
    "vipseg": write_vipseg,
    "coco-video": write_coco_video,
}
"""By the names of `panoptube.data.datasets.DATASETS`. Each writes into a folder that is there and empty; what
the disk refuses is an OSError, which `new_folder` reports."""


class KittiStepLabels:
    """Labels of one sequence as KITTI-STEP's PNGs have them; objects are numbered anew.

    Args:
        name: of the sequence, for messages.
    """

    def __init__(self, name: str) -> None:
        self._numbers = ObjectNumbers(name, KITTI_STEP, OBJECTS)
        self._classes = np.full(256, VOID, np.uint8)
        self._classes[: len(KITTI_STEP)] = [c.id for c in KITTI_STEP.categories]

    def __call__(self, frame: PanopticFrame) -> NDArray[np.uint8]:
        """(H, W, 3) uint8: R = class, 255 = void, 256 G + B = object, 0 = none.

        Args:
            frame: the next one, in the classes of `KITTI_STEP`.

        Raises:
            UserError: more than `OBJECTS` of a class in the sequence.
        """
        return _two_channels(self._classes[frame.semantic], self._numbers(frame))


class ObjectNumbers:
    """Numbers the objects of a clip: of each class from 1 on, as they come."""

    def __init__(self, name: str, taxonomy: Taxonomy, most: int) -> None:
        self._name, self._names, self._most = name, taxonomy.names, most
        self._known: dict[tuple[int, int], int] = {}
        self._counts: dict[int, int] = {}

    def __call__(self, frame: PanopticFrame) -> NDArray[np.int32]:
        """(H, W) int32, 0 where no object is."""
        starts, lengths = find_runs(frame.semantic, frame.instance)
        labels, tracks = frame.semantic.reshape(-1)[starts], frame.instance.reshape(-1)[starts]
        numbers = [self._find(*pair) if pair[1] else 0 for pair in zip(labels.tolist(), tracks.tolist())]
        return np.repeat(np.array(numbers, np.int32), lengths).reshape(frame.size)

    def _find(self, label: int, track: int) -> int:
        if (label, track) not in self._known:
            number = self._counts[label] = self._counts.get(label, 0) + 1
            if number > self._most:
                raise UserError(
                    f"clip {self._name} has more than {self._most} objects of the class "
                    f"{self._names[label]}, which the layout can't number; cut it in parts"
                )
            self._known[label, track] = number
        return self._known[label, track]


def _two_channels(classes: NDArray[np.uint8], numbers: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: R = class, object number = 256 G + B."""
    return np.dstack([classes, numbers >> 8, numbers & 255]).astype(np.uint8)


def _truth(clip: Clip, t: int) -> PanopticFrame:
    truth = clip.truth(t)
    assert truth is not None
    return truth


def _check(clip: Clip, taxonomy: Taxonomy) -> None:
    if clip.taxonomy.categories != taxonomy.categories:
        raise UserError(
            f"clip {clip.name} has the classes of {clip.taxonomy.name!r}, not of {taxonomy.name!r}; map them"
        )
    if not clip.labelled:
        raise UserError(f"clip {clip.name} has no truth; leave it out")


def _check_name(clip: Clip, taken: list[str]) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*", clip.name):
        raise UserError(f"a clip is called {clip.name!r}, which can't be a folder's name; rename it")
    if clip.name in taken:
        raise UserError(f"two clips are called {clip.name!r}; rename one")


def _check_any(found: object) -> None:
    if not found:
        raise UserError("there are no clips to write; give one or more")


def encode_picture(suffix: str, picture: NDArray[Any]) -> bytes:
    """The file: ".png", or ".jpg" of quality 95; (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB."""
    bgr = picture[:, :, ::-1] if picture.ndim == 3 else picture
    _, data = cv2.imencode(suffix, bgr, JPEG if suffix == ".jpg" else [])
    return data.tobytes()


def save_picture(path: Path, picture: NDArray[Any]) -> None:
    """Writes what `encode_picture` gives, by the name's ending; folders are made.

    Raises:
        OSError: it can't be written; `new_folder` says so to the user.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_picture(path.suffix, picture))
