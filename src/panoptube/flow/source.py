"""Where the flow between two frames comes from: the small interface, given files, and OpenCV's DIS."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.errors import UserError
from panoptube.flow.files import ENDINGS, FlowField, read_flow

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


class FlowSource(Protocol):
    """Flow between frames that are known by name."""

    name: str
    """What a result that was made with it says about it."""

    def __call__(self, first: str, second: str) -> FlowField:
        """(H, W, 2) float32 from frame `first` to frame `second`.

        Raises:
            UserError: a file is missing or broken.
        """


class GivenFlow:
    """Flow from files: `FOLDER/FIRST.flo`, `.npy` or `.png` is the flow from frame FIRST to the next one.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; it should hold the flow from each frame to the next")
        self.folder = folder
        self.name = f"given ({folder.name})"

    def __call__(self, first: str, second: str) -> FlowField:
        return read_flow(_find(self.folder, first, ENDINGS, f"the flow from {first} to {second}"))


class DISFlow:
    """Flow from images `FOLDER/NAME.png` or `.jpg`, by OpenCV's DIS (Kroeger et al., ECCV 2016), preset medium.

    The image of the frame before is kept, so each is read once.

    Raises:
        UserError: there is no such folder.
    """

    name = "DIS (OpenCV, preset medium)"

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; it should hold the image of each frame")
        self.folder = folder
        self._last: tuple[str, NDArray[np.uint8]] | None = None

    def __call__(self, first: str, second: str) -> FlowField:
        before = self._last[1] if self._last and self._last[0] == first else self._read(first)
        after = self._read(second)
        self._last = second, after
        if before.shape != after.shape:
            raise UserError(
                f"the images of {first} and {second} differ in size: {before.shape[::-1]} and {after.shape[::-1]}"
            )
        return dis_flow(before, after)

    def _read(self, frame: str) -> NDArray[np.uint8]:
        path = _find(self.folder, frame, IMAGE_ENDINGS, f"the image of frame {frame}")
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise UserError(f"{path} is no image that can be read; copy it again")
        return np.asarray(image, np.uint8)


def dis_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> FlowField:
    """(H, W, 2) float32 flow from `first` to `second`, both (H, W) uint8 grey, at least 16 pixels on each side.

    Raises:
        UserError: the images are too small.
    """
    if min(first.shape) < 16:
        raise UserError(f"images of {first.shape[1]} x {first.shape[0]} pixels are too small for DIS flow")
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)
    return np.asarray(flow, np.float32)


def _find(folder: Path, frame: str, endings: tuple[str, ...], what: str) -> Path:
    """The file of a frame; names of frames may have a clip's folder before them."""
    for ending in endings:
        path = folder / f"{frame}{ending}"
        if path.is_file():
            return path
    raise UserError(f"{folder} lacks {what}: expected {frame} with {' or '.join(endings)}")
