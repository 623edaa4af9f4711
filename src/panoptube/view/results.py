"""Results of several models on the same clips, with truth and images: what pictures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from panoptube.data.clip import Image
from panoptube.data.new_file import new_file, writing
from panoptube.errors import UserError
from panoptube.flow.source import IMAGE_ENDINGS, find_file
from panoptube.panoptic.formats import StoredFrame
from panoptube.panoptic.frame import Taxonomy
from panoptube.panoptic.layouts import StoredClip, read_clips


@dataclass(frozen=True)
class ComparedClip:
    """A clip with the results of all models.

    Attributes:
        name: unique among the clips.
        frames: names of the frames, in order.
        truth: as many frames, or None where there is no truth.
        predictions: of each model, as many frames.
    """

    name: str
    frames: list[str]
    truth: list[StoredFrame] | None
    predictions: list[list[StoredFrame]]


def read_results(
    pred: Sequence[Path], truth: Path | None, clip_length: int = 6, skip_unlabelled: bool = False
) -> tuple[Taxonomy, list[ComparedClip]]:
    """Open results and truth; pixels are read later. Without truth the first result says what there is.

    Args:
        pred: a folder for each model.
        truth: its folder, or None.
        clip_length, skip_unlabelled: as `panoptube.evaluate.evaluate`.

    Raises:
        UserError: no result, one has none of the known forms, or they don't hold the same clips and frames.
    """
    if not pred:
        raise UserError("there is no result to draw; give its folder with --pred")
    read: list[list[StoredClip]] = []
    taxonomy: Taxonomy | None = None
    for folder in pred:
        try:
            taxonomy, clips = read_clips(truth or pred[0], folder, clip_length, taxonomy, skip_unlabelled)
        except UserError as error:
            if truth is not None or folder == pred[0]:
                raise
            raise UserError(f"{pred[0]} stands for the truth, as there is no --truth: {error}") from error
        read.append(clips)
    assert taxonomy is not None
    return taxonomy, [
        ComparedClip(
            same[0].name,
            [f.name for f in same[0].truth],
            None if truth is None else same[0].truth,
            [clip.prediction for clip in same],
        )
        for same in zip(*read)
    ]


def read_image(folder: Path, clip: str, frame: str) -> Image:
    """FOLDER/FRAME.png or .jpg, or the same in FOLDER/CLIP: (H, W, 3) uint8 RGB.

    Raises:
        UserError: there is none, or it can't be read.
    """
    path = find_file(folder, clip, frame, IMAGE_ENDINGS, f"the image of frame {frame}")
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f"{path} is no image that can be read; copy it again")
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def write_picture(path: Path, content: bytes) -> None:
    """Write a file that is never half there; its folder is made if missing.

    Raises:
        UserError: it can't be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        part.write_bytes(content)
