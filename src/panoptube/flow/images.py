"""Flow between two images; source.py has that between frames known by name. NumPy and OpenCV only."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.flow.files import FlowField
from panoptube.flow.source import dis_flow

ImageFlow = Callable[[NDArray[np.uint8], NDArray[np.uint8]], FlowField]
"""(image, reference), both (H, W, 3) uint8 RGB -> the flow from image to reference, (H, W, 2) float32."""


def dis_image_flow(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> FlowField:
    """An `ImageFlow` by OpenCV's DIS, preset medium, on the grey images.

    Raises:
        UserError: a side has fewer than 16 pixels.
    """
    grey = [np.asarray(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY), np.uint8) for x in (image, reference)]
    return dis_flow(grey[0], grey[1])
