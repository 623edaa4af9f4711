"""Clips in the classes of another dataset, by tables of class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.kitti_step import KITTI_STEP
from panoptube.data.viper import VIPER
from panoptube.data.vipseg import VIPSEG
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy

TO_KITTI_STEP = {name: name for name in CITYSCAPES.names}
"""Cityscapes' classes are KITTI-STEP's; only persons and cars are things there."""

TO_VIPER = {
    "road": "road",
    "sidewalk": "sidewalk",
    "building": "building",
    "wall": "infrastructure",
    "fence": "fence",
    "pole": "infrastructure",
    "traffic sign": "trafficsign",
    "vegetation": "vegetation",
    "terrain": "terrain",
    "sky": "sky",
    "person": "person",
    "rider": "person",
    "car": "car",
    "truck": "truck",
    "bus": "bus",
    "motorcycle": "motorcycle",
}
"""Cityscapes' classes in VIPER. Traffic lights are things there, but Cityscapes doesn't tell them apart;
trains and bicycles are void there (dossier 11.5)."""

TO_VIPSEG = {
    "road": "road",
    "sidewalk": "path",
    "building": "building",
    "wall": "wall",
    "fence": "handrail_or_fence",
    "pole": "pole",
    "traffic light": "traffic_light",
    "vegetation": "tree",
    "terrain": "grass",
    "sky": "sky",
    "person": "person",
    "rider": "person",
    "car": "car",
    "truck": "truck",
    "bus": "bus",
    "train": "train",
    "motorcycle": "motorcycle",
    "bicycle": "bicycle",
}
"""Cityscapes' classes in VIPSeg, which has no traffic signs."""

FROM_CITYSCAPES: dict[str, tuple[Taxonomy, Mapping[str, str]]] = {
    "kitti-step": (KITTI_STEP, TO_KITTI_STEP),
    "viper": (VIPER, TO_VIPER),
    "vipseg": (VIPSEG, TO_VIPSEG),
}
"""By dataset: its classes, and which of them Cityscapes' are."""


def with_classes(clip: Clip, taxonomy: Taxonomy, names: Mapping[str, str]) -> Clip:
    """The clip with its truth in other classes; it can be pickled if `clip` can.

    Args:
        clip: any.
        taxonomy: the classes that its truth shall have.
        names: which of them each class of the clip is. A class that isn't listed becomes void; a thing that
            is stuff in `taxonomy` loses its track ids.

    Raises:
        UserError: a name that is no class.
        ValueError: a stuff class shall be a thing: which object a pixel is of isn't known.
    """
    table = np.full(256, VOID, np.uint8)
    for name, other in names.items():
        label, wanted = clip.taxonomy.index(name), taxonomy.index(other)
        if taxonomy.is_thing(wanted) and not clip.taxonomy.is_thing(label):
            raise ValueError(f"{name} is stuff in {clip.taxonomy.name}, {other} a thing in {taxonomy.name}")
        table[label] = wanted
    read_truth = partial(_read_truth, clip, table, taxonomy.num_stuff)
    return replace(clip, taxonomy=taxonomy, read_truth=read_truth)


def _read_truth(clip: Clip, table: NDArray[np.uint8], num_stuff: int, t: int) -> PanopticFrame:
    frame = clip.read_truth(t)
    semantic: NDArray[np.uint8] = table[frame.semantic]
    thing = (semantic >= num_stuff) & (semantic != VOID)
    return PanopticFrame(semantic, np.where(thing, frame.instance, 0).astype(np.int32), frame.scores)
