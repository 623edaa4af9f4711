"""The network and one video's memory: image in, labelled frame out."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from panoptube.data.transforms import normalize
from panoptube.network.vpsnet import VPSNet
from panoptube.panoptic.assemble import assemble
from panoptube.panoptic.frame import PanopticFrame
from panoptube.panoptic.tracker import Tracker


class VideoPredictor:
    """One per video; the network may be shared. Ids hold from the first `step` to the last.

    Args:
        network: in evaluation mode, on the device that it shall run on.
        max_age: an object that isn't seen for this many frames is forgotten, so that memory does not grow
            with the video. The published behaviour (`legacy`) never forgets.
    """

    def __init__(self, network: VPSNet, max_age: int = 30) -> None:
        self.network = network
        self.device = next(network.parameters()).device
        self.legacy = network.config.legacy
        self.tracker = Tracker(max_age=None if self.legacy else max_age)

    @torch.inference_mode()
    def step(self, image: NDArray[np.uint8]) -> PanopticFrame:
        """Labels the next frame of the video.

        The network sees it at the size that its configuration says; the result has the size of the image.

        Args:
            image: (H, W, 3) uint8, RGB.

        Raises:
            ValueError: another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        size = (image.shape[0], image.shape[1])
        height, width = network_size(size, self.network.config.test_size)
        small = image if size == (height, width) else cv2.resize(image, (width, height))
        padded = (-(-height // 32) * 32, -(-width // 32) * 32)
        tensor = torch.from_numpy(normalize(small, padded))[None].to(self.device)
        found = self.network(tensor)[0]
        ids = self.tracker.step(
            found.boxes.cpu(), found.labels.cpu(), found.scores.cpu(), found.embeddings.cpu()
        )
        stuff_area = self.network.config.stuff_area
        frame = assemble(found, ids, self.network.taxonomy, (height, width), stuff_area, self.legacy)
        if size == (height, width):
            return frame

        # Like the bilinear resize, this takes the pixel under the new pixel's centre; INTER_NEAREST does not.
        def back(array: NDArray[np.uint8] | NDArray[np.int32]) -> NDArray[np.uint8] | NDArray[np.int32]:
            return cv2.resize(array, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[no-any-return]

        return PanopticFrame(back(frame.semantic), back(frame.instance), frame.scores)  # type: ignore[arg-type]


def network_size(size: tuple[int, int], test_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which the network sees a frame of `size` (dossier 2.1).

    As large as fits the long and short edge of `test_size`, keeping the shape.
    """
    scale = min(max(test_size) / max(size), min(test_size) / min(size))
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)
