"""Where the flow between two frames comes from: the small interface, given files, and OpenCV's DIS."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.errors import UserError
from panoptube.flow.files import ENDINGS, FlowField, read_flow

# Cityscapes-VPS ends the names of its images so (dossier 11.2).
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", "_newImg8bit.png", "_leftImg8bit.png")


class FlowSource(Protocol):
    """Flow between frames that are known by name."""

    name: str
    """What a result that was made with it says about it."""

    def __call__(self, clip: str, first: str, second: str) -> FlowField:
        """(H, W, 2) float32 from frame `first` to frame `second` of the clip.

        Raises:
            UserError: a file is missing or broken.
        """


class GivenFlow:
    """Flow from files: `FOLDER/FIRST.flo`, `.npy` or `.png` is the flow from frame FIRST to the next one,
    also in `FOLDER/CLIP`.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; it should hold the flow from each frame to the next")
        self.folder = folder
        self.name = f"given ({folder.name})"

    def __call__(self, clip: str, first: str, second: str) -> FlowField:
        return read_flow(find_file(self.folder, clip, first, ENDINGS, f"the flow from {first} to {second}"))


class DISFlow:
    """Flow from images `FOLDER/NAME.png` or `.jpg`, also in `FOLDER/CLIP`, by OpenCV's DIS, preset medium.

    Kroeger et al., ECCV 2016. The last image is kept, so each is read once.

    Raises:
        UserError: there is no such folder.
    """

    name = "DIS (OpenCV, preset medium)"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; it should hold the image of each frame")
        self.folder = folder
        self._last: tuple[Path, NDArray[np.uint8]] | None = None

    def __call__(self, clip: str, first: str, second: str) -> FlowField:
        before, after = self._read(clip, first), self._read(clip, second)
        if before.shape != after.shape:
            raise UserError(
                f"the images of {first} and {second} differ in size: {before.shape} and {after.shape}"
            )
        return dis_flow(before, after)

    def _read(self, clip: str, frame: str) -> NDArray[np.uint8]:
        path = find_file(self.folder, clip, frame, IMAGE_ENDINGS, f"the image of frame {frame}")
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        read = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if read is None:
            raise UserError(f"{path} is no image that can be read; copy it again")
        image = np.asarray(read, np.uint8)
        self._last = path, image
        return image


def dis_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> FlowField:
    """(H, W, 2) float32 flow from `first` to `second`, both (H, W) uint8 grey, at least 16 pixels on each
    side.

    Raises:
        UserError: the images are too small.
    """
    if min(first.shape) < 16:
        raise UserError(f"images of {first.shape[1]} x {first.shape[0]} pixels are too small for DIS flow")
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    return np.asarray(flow, np.float32)


def find_file(folder: Path, clip: str, frame: str, endings: tuple[str, ...], what: str) -> Path:
    """The file of a frame, in the folder or in that of its clip."""
    for place in (folder / clip, folder):
        for ending in endings:
            path = place / f"{frame}{ending}"
            if path.is_file():
                return path
    raise UserError(f"{folder} lacks {what}: expected {frame} with {' or '.join(endings)}")
