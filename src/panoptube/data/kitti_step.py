"""KITTI-STEP: its classes and its clips.

21 training sequences of KITTI tracking, about 375x1242, 10 frames per second, every frame labelled: 12 for
training, 9 for validation. Cityscapes' 19 classes; persons and cars alone have instances. A label is an RGB
PNG: R = class, 255 = void, instance id = 256 G + B, constant through the sequence, 0 = none. Facts from
github.com/google-research/deeplab2: g3doc/setup/kitti_step.md, data/dataset.py (which classes have instances)
and data/utils/create_step_panoptic_maps.py (the encoding).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.files import (
    MissingData,
    list_files,
    list_folders,
    picture_size,
    raise_for,
    read_colors,
    read_frame,
)
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy

SPLITS = ("train", "val", "test")
FPS = 10.0
TRACKS = 65536
"""A track id is class * TRACKS + the instance id of the file, which has 16 bits."""

WITH_INSTANCES = ("person", "car")
_CATEGORIES = [replace(c, isthing=c.name in WITH_INSTANCES) for c in CITYSCAPES.categories]
KITTI_STEP = Taxonomy("kitti-step", tuple(sorted(_CATEGORIES, key=lambda c: c.isthing)))
"""Cityscapes' 19 classes with their train ids; persons and cars are things, and come last."""

IMAGE_PAGE = "https://www.cvlibs.net/datasets/kitti/eval_step.php"
LABEL_PAGE = "https://storage.googleapis.com/gresearch/tf-deeplab/data/kitti-step.tar.gz"
TREE = """\
ROOT/
  training/image_02/0000/000000.png                    data_tracking_image_2.zip of KITTI tracking
  testing/image_02/0000/000000.png                     the same
  kitti-step/panoptic_maps/train/0000/000000.png       kitti-step.tar.gz
  kitti-step/panoptic_maps/val/0002/000000.png         the same
DeepLab2's arrangement, images/SPLIT/ and panoptic_maps/SPLIT/, is read as well."""


@dataclass(frozen=True)
class SequenceFiles:
    """What a clip is made of.

    Attributes:
        name: four digits.
        size: (height, width).
        images: in order; the stem is the frame's number, six digits.
        labels: by index in `images`; empty where the split has none.
    """

    name: str
    size: tuple[int, int]
    images: list[Path]
    labels: dict[int, Path]


def read_kitti_step(root: Path | str, split: str) -> list[Clip]:
    """The sequences of a split as clips, by number; frames and labels are read when asked for.

    A track id is class * 65536 + the file's instance id, which counts each class apart. Pixels of persons and
    cars without an instance are crowd. Frames are the pictures there are, also where numbers are skipped.

    Args:
        root: the folder where the downloads were unpacked, as in `TREE`.
        split: "train", "val" or "test", which has no labels.

    Returns:
        Clips that can be pickled. Reading a frame or its truth raises UserError, naming the file, where it is
        damaged, of another size, holds an unknown class, or an instance of a class that has none.

    Raises:
        MissingData: images or labels aren't there.
        UserError: there is no such split.
    """
    return [
        Clip(
            name=found.name,
            taxonomy=KITTI_STEP,
            size=found.size,
            fps=FPS,
            length=len(found.images),
            labelled=tuple(sorted(found.labels)),
            read_image=partial(read_frame, found.images, found.size),
            read_truth=partial(_read_truth, found.labels, found.size),
        )
        for found in find_sequences(Path(root), split)
    ]


def find_sequences(root: Path, split: str) -> list[SequenceFiles]:
    """The files of a split's sequences, by number. Args, Raises: as `read_kitti_step`."""
    if split not in SPLITS:
        raise UserError(f"KITTI-STEP has no split {split!r}; it has {', '.join(SPLITS)}")
    tracking = root / ("testing" if split == "test" else "training") / "image_02"
    images = {p.name: p for folder in (tracking, root / "images" / split) for p in list_folders(folder)}
    if split == "test":
        if not images:
            raise MissingData(f"no sequences in {tracking}; unpack data_tracking_image_2.zip of {IMAGE_PAGE}")
        return [_find_sequence(images[name], None) for name in sorted(images)]
    nested = root / "kitti-step" / "panoptic_maps" / split
    labels = list_folders(nested) or list_folders(root / "panoptic_maps" / split)
    if not labels:
        raise MissingData(f"no sequences in {nested}; unpack {LABEL_PAGE} in {root}")
    missing = next((p.name for p in labels if p.name not in images), None)
    if missing is not None:
        raise MissingData(
            f"no {tracking / missing}; unpack data_tracking_image_2.zip of {IMAGE_PAGE} in {root}"
        )
    return [_find_sequence(images[folder.name], folder) for folder in labels]


def _find_sequence(folder: Path, labels: Path | None) -> SequenceFiles:
    images = list_files(folder, (".png",))
    if not images:
        raise MissingData(f"no .png in {folder}; unpack data_tracking_image_2.zip of {IMAGE_PAGE} again")
    index = {path.name: t for t, path in enumerate(images)}
    by_frame: dict[int, Path] = {}
    if labels is not None:
        for path in list_files(labels, (".png",)):
            if path.name not in index:
                raise MissingData(
                    f"no {folder / path.name}; unpack data_tracking_image_2.zip of {IMAGE_PAGE} again"
                )
            by_frame[index[path.name]] = path
        if not by_frame:
            raise MissingData(f"no labels in {labels}; unpack {LABEL_PAGE} again")
    return SequenceFiles(folder.name, picture_size(images[0]), images, by_frame)


def _read_truth(paths: dict[int, Path], size: tuple[int, int], t: int) -> PanopticFrame:
    path = paths[t]
    colors = read_colors(path, size)
    table = np.full(256, VOID, np.uint8)
    table[[c.id for c in KITTI_STEP.categories]] = np.arange(len(KITTI_STEP))
    classes = colors & 255
    semantic: NDArray[np.uint8] = table[classes]
    raise_for(
        (semantic == VOID) & (classes != VOID), colors, path,
        "R is no class of KITTI-STEP, 0 to 18 or 255; unpack it again", "colour",
    )  # fmt: skip
    objects = ((colors >> 8 & 255) << 8 | colors >> 16).astype(np.int32)
    thing = (semantic >= KITTI_STEP.num_stuff) & (semantic != VOID)
    raise_for(
        (objects > 0) & ~thing, colors, path,
        f"an instance, 256 G + B, of a class other than {' and '.join(WITH_INSTANCES)}", "colour",
    )  # fmt: skip
    instance = np.where(objects > 0, classes.astype(np.int32) * TRACKS + objects, 0)
    return PanopticFrame(semantic, instance.astype(np.int32))
