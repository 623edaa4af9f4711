"""The datasets by name, as the command line knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from panoptube.data import cityscapes_vps, coco_video, kitti_step, viper, vipseg
from panoptube.data.clip import Clip
from panoptube.data.labelled_video import read_labelled_videos
from panoptube.errors import UserError
from panoptube.panoptic.frame import Taxonomy

LABELLED_VIDEO_TREE = """\
ROOT/
  index.json                   optional: splits and frames per second
  CLIP/img/000000.jpg          frames
  CLIP/label/000000.png        16 bits: class id * 1000 + track id; 65535 = void"""


@dataclass(frozen=True)
class Dataset:
    """How a dataset is read.

    Attributes:
        read: (root, split) -> clips; raises UserError where files are missing or wrong.
        tree: what lies under the root, and where it comes from, to show.
        taxonomy: its classes; None where its own files say.
    """

    read: Callable[[Path, str], list[Clip]]
    tree: str
    taxonomy: Taxonomy | None = None


DATASETS = {
    "cityscapes-vps": Dataset(
        cityscapes_vps.read_cityscapes_vps, cityscapes_vps.TREE, cityscapes_vps.CITYSCAPES
    ),
    "viper": Dataset(viper.read_viper, viper.TREE, viper.VIPER),
    "kitti-step": Dataset(kitti_step.read_kitti_step, kitti_step.TREE, kitti_step.KITTI_STEP),
    "vipseg": Dataset(vipseg.read_vipseg, vipseg.TREE, vipseg.VIPSEG),
    "coco-video": Dataset(coco_video.read_coco_video, coco_video.TREE),
    "labelled-video": Dataset(read_labelled_videos, LABELLED_VIDEO_TREE),
}


def find_dataset(name: str) -> Dataset:
    """The dataset of that name.

    Raises:
        UserError: there is none.
    """
    if name not in DATASETS:
        raise UserError(f"no dataset is called {name!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def read_dataset(
    name: str,
    root: Path | str,
    split: str,
    sequences: Path | None = None,
    frames: int | None = viper.FRAMES,
) -> list[Clip]:
    """The clips of a dataset's split; pixels are read when asked for.

    Args:
        name: one of `DATASETS`.
        root: the folder where it was unpacked; `DATASETS[name].tree` shows what lies there.
        split: "train", "val", "test".
        sequences, frames: of VIPER alone, as in `read_viper`.

    Raises:
        UserError: no such dataset or split, something is missing or wrong, or `sequences` is given for a
            dataset other than VIPER.
    """
    dataset = find_dataset(name)
    if name == "viper":
        return viper.read_viper(root, split, sequences, frames)
    if sequences is not None:
        raise UserError(f"{name} takes no list of sequences; leave out {sequences}")
    return dataset.read(Path(root), split)
