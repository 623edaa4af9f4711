"""What is made of each dataset's download, clip by clip (dossier 11.2 to 11.5; VIPSeg's own
create_panoptic_video_labels.py): plans, which `panoptube.prepare` carries out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panoptube.data import cityscapes_vps, viper, vipseg
from panoptube.errors import UserError
from panoptube.panoptic.frame import PanopticFrame, Taxonomy

MADE = "made by panoptube prepare"
"""What an instance JSON says that isn't of the download."""
Label = tuple[PanopticFrame, NDArray[np.uint8]]
"""A frame's truth, and (H, W) uint8 the class of each pixel, also where a thing pixel is of no object."""


@dataclass(frozen=True)
class FramePlan:
    """A labelled frame. `image_id`, `number`: its id in the panoptic and in the instance JSON."""

    t: int
    image_id: int | str
    number: int
    image_name: str
    label_name: str


@dataclass(frozen=True)
class ClipPlan:
    """What is made of a clip. Folders that are None are left out.

    Attributes:
        name: of the clip.
        size: (height, width).
        frames: with labels, in order.
        read: t -> its label.
        inputs: the files that are read.
        links: (file, the name that it shall have as well).
        labelmap: folder for uint8 classes.
        panoptic_inst: folder for uint16 class, or class * 1000 + object number.
        panoptic_video: folder for RGB ids.
    """

    name: str
    size: tuple[int, int]
    frames: tuple[FramePlan, ...]
    read: Callable[[int], Label]
    inputs: tuple[Path, ...]
    links: tuple[tuple[Path, Path], ...] = ()
    labelmap: Path | None = None
    panoptic_inst: Path | None = None
    panoptic_video: Path | None = None


@dataclass(frozen=True)
class SplitPlan:
    """What is made of a split.

    Attributes:
        name: of the split.
        taxonomy: its classes.
        clips: in the order that they have in the JSON files.
        panoptic_json, instance_json: to write, or None.
        nested: the panoptic JSON has a list of frames for each clip, VIPSeg's form.
    """

    name: str
    taxonomy: Taxonomy
    clips: list[ClipPlan]
    panoptic_json: Path | None = None
    instance_json: Path | None = None
    nested: bool = False


def make_plans(
    name: str,
    root: Path,
    splits: Sequence[str] = (),
    sequences: Path | None = None,
    frames: int | None = viper.FRAMES,
    void_unknown: bool = False,
) -> list[SplitPlan]:
    """What is to be made. Nothing is written, but everything that is needed is looked for.

    Args, Raises: as `panoptube.prepare.prepare`.
    """
    plans: dict[str, Callable[[str], SplitPlan]] = {
        "cityscapes-vps": partial(_plan_cityscapes_vps, root, void_unknown),
        "viper": partial(_plan_viper, root, sequences, frames),
        "vipseg": partial(_plan_vipseg, root),
    }
    if name not in plans:
        raise UserError(f"{name} needs no preparation, its files are read as they are; {', '.join(plans)} do")
    if sequences is not None and name != "viper":
        raise UserError(f"{name} takes no list of sequences; leave out {sequences}")
    if void_unknown and name != "cityscapes-vps":
        raise UserError(f"{name} has no colours that could be unknown; leave that option out")
    return [plans[name](split) for split in splits or _splits_there(name, root)]


def _splits_there(name: str, root: Path) -> list[str]:
    if name == "vipseg":
        return ["val"]  # its videos are all in one folder; train isn't evaluated
    part = "cls" if name == "cityscapes-vps" else "img"
    # Where none is there, val says what to download.
    return [split for split in ("train", "val") if (root / split / part).is_dir()] or ["val"]


def _plan_cityscapes_vps(root: Path, void_unknown: bool, split: str) -> SplitPlan:
    """Dossier 11.2: img/ and img_all/ fetched, cls/ and inst/ completed, the files called "created", and for
    val the truth of VPQ. Instances come with the download; they are made where they are missing.
    """
    folder = root / split
    clips: list[ClipPlan] = []
    for found in cityscapes_vps.find_clips(root, split):
        links: list[tuple[Path, Path]] = []
        for t, source in found.images.items():
            if t in found.frames:
                links.append((source, folder / "img" / found.file_names[t]))
            if split != "train":
                links.append((source, folder / "img_all" / f"{found.sources[t]}_leftImg8bit.png"))
        frames: list[FramePlan] = []
        for t, label in found.labels.items():
            name, image_name = found.frames[t], found.file_names[t]
            label_name = image_name.replace("newImg8bit", "final_mask").replace("leftImg8bit", "gtFine_color")
            # 0005_0028 is 50028, as Python reads it.
            frames.append(FramePlan(t, name, int(name[:9]), image_name, label_name))
            if label.cls.parent != folder / "cls":
                links.append((label.cls, folder / "cls" / f"{name}_gtFine_color.png"))
                links.append((label.inst, folder / "inst" / f"{name}_gtFine_instanceIds.png"))
        clips.append(
            ClipPlan(
                name=found.name,
                size=found.size,
                frames=tuple(frames),
                read=partial(_read_cityscapes_vps, found.labels, found.size, void_unknown),
                inputs=tuple(path for label in found.labels.values() for path in label),
                links=tuple(links),
                labelmap=folder / "labelmap",
                panoptic_inst=folder / "panoptic_inst",
                panoptic_video=folder / "panoptic_video" if split == "val" else None,
            )
        )
    instance_json = root / f"instances_{split}_city_vps_rle.json"
    return SplitPlan(
        split,
        cityscapes_vps.CITYSCAPES,
        clips,
        root / f"panoptic_gt_{split}_city_vps.json" if split == "val" else None,
        instance_json if split != "test" and not _is_downloaded(instance_json) else None,
    )


def _read_cityscapes_vps(
    labels: dict[int, cityscapes_vps.LabelFiles], size: tuple[int, int], void_unknown: bool, t: int
) -> Label:
    return cityscapes_vps.read_label(labels[t], size, void_unknown)


def _plan_viper(root: Path, sequences: Path | None, frames: int | None, split: str) -> SplitPlan:
    """Dossier 11.5: label maps, instances, and for val the truth of VPQ."""
    folder = root / split
    clips: list[ClipPlan] = []
    for found in viper.find_sequences(root, split, sequences, frames):
        stems = {t: found.images[t].stem for t in sorted(found.cls)}
        clips.append(
            ClipPlan(
                name=found.name,
                size=found.size,
                frames=tuple(
                    FramePlan(t, number, number, found.images[t].name, f"{stem}.png")
                    for t, stem in stems.items()
                    for number in [int(found.name) * 10000 + int(stem.rpartition("_")[2])]
                ),
                read=partial(_read_viper, found.cls, found.inst, found.size),
                inputs=(*found.cls.values(), *found.inst.values()),
                labelmap=folder / "labelmap",
                panoptic_video=folder / "panoptic_video" if split == "val" else None,
            )
        )
    return SplitPlan(
        split,
        viper.VIPER,
        clips,
        root / f"viper_panoptic_{split}_video.json" if split == "val" else None,
        root / f"instances_{split}_viper_rle.json",
    )


def _read_viper(cls: dict[int, Path], inst: dict[int, Path], size: tuple[int, int], t: int) -> Label:
    return viper.read_label(cls[t], inst[t], size)


def _plan_vipseg(root: Path, split: str) -> SplitPlan:
    """The published conversion to COCO panoptic, at the size that the masks have."""
    clips = [
        ClipPlan(
            name=found.name,
            size=found.size,
            frames=tuple(
                FramePlan(t, path.stem, 0, path.name, path.name) for t, path in sorted(found.labels.items())
            ),
            read=partial(_read_vipseg, found.labels, found.size),
            inputs=tuple(found.labels.values()),
            panoptic_video=root / "panomasksRGB" / found.name,
        )
        for found in vipseg.find_videos(root, split)
    ]
    panoptic_json = root / f"panoptic_gt_VIPSeg_{split}.json" if split != "test" else None
    return SplitPlan(split, vipseg.VIPSEG, clips, panoptic_json, nested=True)


def _read_vipseg(labels: dict[int, Path], size: tuple[int, int], t: int) -> Label:
    frame = vipseg.read_label(labels, size, t)
    return frame, frame.semantic


def _is_downloaded(path: Path) -> bool:
    """Whether a file is there that isn't of an earlier run."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MADE.encode() not in file.read(100)
