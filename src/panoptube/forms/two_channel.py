"""Two-channel PNGs: a pixel's class and the number of its object, a byte each.

    OUT/categories.json             what the classes are, as in COCO panoptic
    OUT/two_channel/000000.png      of several videos: OUT/two_channel/VIDEO/000000.png

R is the id of the category, 255 for void; G the object, from 1 on within its class and constant through the
video, 0 for stuff and crowd; B is 0. panopticapi's converters/2channels2panoptic_coco_format.py reads such
files (`--void 255`); the form is that of Kirillov et al., "Panoptic Segmentation", CVPR 2019.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from panoptube.data.new_file import write_text, writing
from panoptube.data.write_layouts import ObjectNumbers, save_picture
from panoptube.errors import UserError
from panoptube.forms.result import Videos
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.progress import progress_bar

CATEGORIES = "categories.json"
FOLDER = "two_channel"
OBJECTS = 255
"""Most objects of a class in a video."""


def to_two_channel(frame: PanopticFrame, taxonomy: Taxonomy, numbers: ObjectNumbers) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a frame.

    Args:
        frame: the next one of its video.
        taxonomy: what its classes are.
        numbers: of the video, `ObjectNumbers(name, taxonomy, OBJECTS)`.

    Raises:
        UserError: a category's id is above 254, or the video has more than `OBJECTS` objects of a class.
    """
    category = np.full(256, VOID, np.uint8)
    category[: len(taxonomy)] = _ids(taxonomy)
    objects = numbers(frame)
    return np.dstack([category[frame.semantic], objects, np.zeros_like(objects)]).astype(np.uint8)


def from_two_channel(image: NDArray[np.uint8], taxonomy: Taxonomy) -> PanopticFrame:
    """The frame of a PNG. Ids of objects are unique over classes: the class's place * 256 + number.

    Args:
        image: (H, W, 2 or 3) uint8.
        taxonomy: what the categories are.

    Raises:
        UserError: another shape, a category that the taxonomy lacks, or a numbered object of stuff.
    """
    if image.ndim != 3 or image.shape[2] not in (2, 3) or image.dtype != np.uint8:
        raise UserError(f"the image is {image.shape} {image.dtype}; give (H, W, 2) or (H, W, 3) uint8")
    place = np.full(256, -1, np.int32)
    place[_ids(taxonomy)] = np.arange(len(taxonomy))
    place[VOID] = VOID
    semantic, number = place[image[..., 0]], image[..., 1].astype(np.int32)
    if (semantic < 0).any():
        unknown = int(image[..., 0][semantic < 0][0])
        raise UserError(f"the image has category {unknown}, which {taxonomy.name!r} lacks; name its taxonomy")
    numbered = number > 0
    if (numbered & ((semantic < taxonomy.num_stuff) | (semantic == VOID))).any():
        raise UserError("the image numbers objects of stuff or void; the second channel must be 0 there")
    instance = np.where(numbered, semantic * 256 + number, 0).astype(np.int32)
    return PanopticFrame(semantic.astype(np.uint8), instance)


def write_two_channel(videos: Videos, taxonomy: Taxonomy, folder: Path, progress: bool = True) -> None:
    """Writes a result as above.

    Raises:
        UserError: as `to_two_channel`; a frame is broken, or a file can't be written.
    """
    write_text(folder / CATEGORIES, json.dumps(taxonomy.to_dict()["categories"]))
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("two-channel", total=sum(map(len, videos.values())))
        for name, frames in videos.items():
            numbers = ObjectNumbers(name, taxonomy, OBJECTS)
            place = folder / FOLDER if len(videos) == 1 else folder / FOLDER / name
            for stored in frames:
                path = place / stored.path.name
                picture = to_two_channel(stored.frame(), taxonomy, numbers)
                with writing(path):
                    save_picture(path, picture)
                bar.advance(task)


def _ids(taxonomy: Taxonomy) -> list[int]:
    ids = [category.id for category in taxonomy.categories]
    if max(ids) >= VOID:
        raise UserError(f"{taxonomy.name!r} has a category with id {max(ids)}; two channels hold up to 254")
    return ids
