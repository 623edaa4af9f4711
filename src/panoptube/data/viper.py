"""VIPER: its classes and its clips (dossier 11.5).

Sequences recorded in a computer game, 1080x1920, about 15 frames per second (github.com/srrichter/viper).
Which of them were recorded by day the toolkit doesn't say; name those to take in a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Clip
from panoptube.data.files import (
    MissingData,
    list_files,
    list_folders,
    picture_size,
    raise_for,
    read_colors,
    read_frame,
    read_gray,
    read_list,
)
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy

VIPER = Taxonomy(
    "viper",
    (
        Category("sky", False, (70, 130, 180), 0),
        Category("road", False, (128, 64, 128), 1),
        Category("sidewalk", False, (244, 35, 232), 2),
        Category("terrain", False, (152, 251, 152), 3),
        Category("tree", False, (87, 182, 35), 4),
        Category("vegetation", False, (35, 142, 35), 5),
        Category("building", False, (70, 70, 70), 6),
        Category("infrastructure", False, (153, 153, 153), 7),
        Category("fence", False, (190, 153, 153), 8),
        Category("billboard", False, (150, 20, 20), 9),
        Category("trafficsign", False, (220, 220, 0), 10),
        Category("mobilebarrier", False, (180, 180, 100), 11),
        Category("trash", False, (81, 0, 21), 12),
        Category("trafficlight", True, (250, 170, 30), 13),
        Category("firehydrant", True, (173, 153, 153), 14),
        Category("chair", True, (168, 153, 153), 15),
        Category("trashcan", True, (81, 0, 81), 16),
        Category("person", True, (220, 20, 60), 17),
        Category("motorcycle", True, (0, 0, 230), 18),
        Category("car", True, (0, 0, 142), 19),
        Category("van", True, (0, 80, 100), 20),
        Category("bus", True, (0, 60, 100), 21),
        Category("truck", True, (0, 0, 70), 22),
    ),
)
"""VPSNet's 23 classes in their order; VIPER's own files have other numbers (dossier 11.5)."""

SPLITS = ("train", "val", "test")
FPS = 15.0
FRAMES = 50
"""Frames of a sequence that count: the paper evaluates on the first 50 (dossier 11.5)."""
TRACKS = 65536
"""A track id is VPSNet's class * TRACKS + the instance id of the file, which has 16 bits."""

CSV_IDS = (2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 14, 15, 18, 13, 16, 17, 19, 20, 23, 24, 25, 26, 27)
"""The numbers in VIPER's files, `classes.csv`, of the classes of `VIPER`; the others up to 31 are void."""
CSV_LENGTH = 32

PAGE = "https://playing-for-benchmarks.org/download"
TREE = """\
ROOT/
  val/img/001/001_00001.jpg     images of all frames (*[0-9]), JPG or PNG
  val/cls/001/001_00001.png     semantic class labels
  val/inst/001/001_00001.png    semantic instance labels
  train/img  train/cls  train/inst    the same
  test/img                            images alone"""


@dataclass(frozen=True)
class SequenceFiles:
    """What a clip is made of.

    Attributes:
        name: three digits.
        size: (height, width).
        images: in order; the stem is SSS_FFFFF.
        cls, inst: by index in `images`; empty where the split has none.
    """

    name: str
    size: tuple[int, int]
    images: list[Path]
    cls: dict[int, Path]
    inst: dict[int, Path]


def read_viper(
    root: Path | str, split: str, sequences: Path | None = None, frames: int | None = FRAMES
) -> list[Clip]:
    """The sequences of a split as clips, by number; frames and labels are read when asked for.

    A track id is class * 65536 + the file's instance id, which needn't be unique over classes. Classes that
    VPSNet doesn't have are void, and so are pixels of a thing class with instance id 0.

    Args:
        root: the folder with train/, val/ and test/, as in `TREE`.
        split: "train", "val" or "test", which has no labels.
        sequences: a text file that names the sequences to take, one a line; None takes all.
        frames: take so many of each sequence, from the first on; None takes all.

    Returns:
        Clips that can be pickled. Reading a frame or its truth raises UserError, naming the file, where it is
        damaged, of another size, or holds a class that VIPER lacks, or where the two PNGs don't agree.

    Raises:
        MissingData: images or labels aren't there.
        UserError: `sequences` names one that isn't there.
    """
    return [
        Clip(
            name=found.name,
            taxonomy=VIPER,
            size=found.size,
            fps=FPS,
            length=len(found.images),
            labelled=tuple(sorted(found.cls)),
            read_image=partial(read_frame, found.images, found.size),
            read_truth=partial(_read_truth, found.cls, found.inst, found.size),
        )
        for found in find_sequences(Path(root), split, sequences, frames)
    ]


def find_sequences(
    root: Path, split: str, sequences: Path | None = None, frames: int | None = FRAMES
) -> list[SequenceFiles]:
    """The files of a split's sequences, by number. Args, Raises: as `read_viper`."""
    if split not in SPLITS:
        raise UserError(f"VIPER has no split {split!r}; it has {', '.join(SPLITS)}")
    if frames is not None and frames < 1:
        raise UserError(f"{frames} frames of each sequence asked for; ask for 1 or more")
    folders = {p.name: p for p in list_folders(root / split / "img")}
    if not folders:
        raise MissingData(f"no sequences in {root / split / 'img'}; unpack the images of {PAGE} in {root}")
    names = sorted(folders) if sequences is None else read_list(sequences)
    unknown = next((n for n in names if n not in folders), None)
    if unknown is not None:
        raise MissingData(
            f"{sequences} names the sequence {unknown!r}, but there is no {root / split / 'img' / unknown}; "
            f"unpack it from {PAGE}, or take it off the list"
        )
    return [_find_sequence(folders[name], split != "test", frames) for name in sorted(set(names))]


def _find_sequence(folder: Path, labelled: bool, frames: int | None) -> SequenceFiles:
    every = list_files(folder)
    if not every:
        raise MissingData(f"no .jpg or .png in {folder}; unpack the images of {PAGE} again")
    index = {path.stem: t for t, path in enumerate(every)}
    if len(index) < len(every):
        raise UserError(f"{folder} holds two pictures of one name; keep one of .jpg and .png")
    images = every[:frames]
    _check_names(folder, images)
    cls: dict[int, Path] = {}
    inst: dict[int, Path] = {}
    if labelled:
        parts = folder.parent.parent
        objects = {p.stem: p for p in list_files(parts / "inst" / folder.name, (".png",))}
        for path in list_files(parts / "cls" / folder.name, (".png",)):
            t = index.get(path.stem)
            if t is None and images[0].stem < path.stem < images[-1].stem:
                raise MissingData(
                    f"{path} has no image in {folder}; unpack the images of all frames of {PAGE}"
                )
            if t is None or t >= len(images):
                continue
            if path.stem not in objects:
                missing = parts / "inst" / folder.name / path.name
                raise MissingData(f"no {missing}; unpack the semantic instance labels of {PAGE}")
            cls[t], inst[t] = path, objects[path.stem]
        if not cls:
            raise MissingData(
                f"no labels of {folder.name} in {parts / 'cls'}; unpack the semantic class labels of {PAGE}"
            )
    return SequenceFiles(folder.name, picture_size(images[0]), images, cls, inst)


def _check_names(folder: Path, images: list[Path]) -> None:
    """SSS_FFFFF, most of them consecutive: the page also has every tenth frame alone, which is no video."""
    form = re.compile(f"{re.escape(folder.name)}_[0-9]+")
    wrong = next((path for path in images if not form.fullmatch(path.stem)), None)
    if wrong is not None or not re.fullmatch("[0-9]+", folder.name):
        raise UserError(
            f"{wrong or folder} isn't called SSS_FFFFF, sequence and frame; unpack the images of {PAGE} again"
        )
    steps = np.diff([int(path.stem.rpartition("_")[2]) for path in images])
    if len(steps) and (step := int(np.median(steps))) > 1:
        raise MissingData(f"frames in {folder} are {step} apart; unpack the images of all frames of {PAGE}")


def _read_truth(
    cls_paths: dict[int, Path], inst_paths: dict[int, Path], size: tuple[int, int], t: int
) -> PanopticFrame:
    return read_label(cls_paths[t], inst_paths[t], size)[0]


def read_label(
    cls_path: Path, inst_path: Path, size: tuple[int, int]
) -> tuple[PanopticFrame, NDArray[np.uint8]]:
    """Truth of a frame, and the class of each pixel.

    Args:
        cls_path, inst_path: the two PNGs that label it.
        size: (H, W).

    Returns:
        The frame, and (H, W) uint8 classes, 255 = void, which thing pixels have also without an instance.

    Raises:
        UserError: as `read_viper` says of reading.
    """
    cls = read_gray(cls_path, size)
    raise_for(cls >= CSV_LENGTH, cls, cls_path, "VIPER's classes.csv ends at 31; unpack it again")
    table = np.full(CSV_LENGTH, VOID, np.uint8)
    table[list(CSV_IDS)] = np.arange(len(VIPER))
    classes: NDArray[np.uint8] = table[cls]

    colors = read_colors(inst_path, size)
    objects = ((colors >> 8 & 255) << 8 | colors >> 16).astype(np.int32)
    what = f"its class, R, isn't that of {cls_path}; unpack both again"
    raise_for((objects > 0) & ((colors & 255) != cls), colors, inst_path, what, "colour")
    thing = (classes >= VIPER.num_stuff) & (classes != VOID)
    semantic = np.where(thing & (objects == 0), VOID, classes).astype(np.uint8)
    instance = np.where(thing & (objects > 0), classes.astype(np.int32) * TRACKS + objects, 0)
    return PanopticFrame(semantic, instance.astype(np.int32)), classes
