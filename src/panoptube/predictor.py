"""The network and one video's memory: image in, labelled frame out."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from panoptube.data.clip import Image
from panoptube.data.transforms import MEAN, normalize
from panoptube.flow.flownet2 import flow_quarter
from panoptube.flow.images import ImageFlow, dis_image_flow
from panoptube.network.exported import ExportedNetwork
from panoptube.network.panoptic import prune
from panoptube.network.vpsnet import Detections, VPSNet
from panoptube.panoptic.assemble import assemble
from panoptube.panoptic.frame import PanopticFrame
from panoptube.panoptic.motion import MotionTracker
from panoptube.panoptic.tracker import Tracker


class VideoPredictor:
    """One per video; the network may be shared. Ids hold from the first `step` to the last.

    Args:
        network: in evaluation mode, on the device that it shall run on; or an exported file.
        max_age: an object that isn't seen for this many frames is forgotten, so that memory does not grow
            with the video. The published behaviour (`legacy`) never forgets.
        flow: from a frame to the one before, at the size that the network sees; used only by networks that
            fuse. Published weights expect FlowNet2's.
    """

    def __init__(
        self, network: VPSNet | ExportedNetwork, max_age: int = 30, flow: ImageFlow = dis_image_flow
    ) -> None:
        self.network = network
        self.flow = flow
        self.device = network.device
        self.legacy = network.config.legacy
        self.fuses = isinstance(network, VPSNet) and network.fuse is not None
        self.tracker = (
            MotionTracker(max_age, network.config.score_threshold)
            if network.config.tracker == "motion"
            else Tracker(None if self.legacy else max_age, network.config.match_score)
        )
        self._number = 0
        self._before: tuple[Image, list[Tensor]] | None = None

    def restart(self) -> None:
        """Forgets what was seen, as at a cut. Ids go on counting, so none of before is given again."""
        self.tracker.clear()
        self._before = None

    @torch.inference_mode()
    def detect(self, images: Sequence[Image]) -> list[Detections]:
        """What the network says of frames, which it sees all at once; `step` then follows.

        It changes nothing, and may be called from several threads.

        Args:
            images: (H, W, 3) uint8, RGB, all of one size.

        Raises:
            ValueError: the network fuses each frame with the one before, or images have another shape or type
                or differ in size.
        """
        if self.fuses:
            raise ValueError("a network that fuses frames sees them one by one")
        sizes = {_size_of(image) for image in images}
        if len(sizes) != 1:
            raise ValueError(f"images must have one size, got {sorted(sizes)}")
        size = network_size(sizes.pop(), self.network.config.test_size)
        return self.network(torch.cat([self.prepare(image)[1] for image in images]), size)

    @torch.inference_mode()
    def step(self, image: Image, found: Detections | None = None) -> PanopticFrame:
        """Labels the next frame of the video.

        The network sees it at the size that its configuration says; the result has the size of the image.

        Args:
            image: (H, W, 3) uint8, RGB.
            found: what `detect` says of it; None asks the network now.

        Raises:
            ValueError: another shape or type, another padded size than `detect` was given, or a flow of
                another shape.
        """
        size = _size_of(image)
        height, width = network_size(size, self.network.config.test_size)
        if found is None:
            found = self._fused(image) if self.fuses else self.detect([image])[0]
        seen = (4 * found.semantic.shape[1], 4 * found.semantic.shape[2])
        if seen != padded_size((height, width)):
            raise ValueError(f"found is of frames of {seen}, this one has {padded_size((height, width))}")
        motion = isinstance(self.tracker, MotionTracker)
        if motion:  # what better ones cover would be an object of its own, and the two would change ids
            visible, _ = prune(found.masks, found.boxes, found.labels, found.scores, seen, legacy=False)
            found = _part(found, visible)
        ids = self.tracker.step(
            found.boxes.cpu(), found.labels.cpu(), found.scores.cpu(), found.embeddings.cpu()
        )
        if motion:
            found, ids = _part(found, torch.nonzero(ids >= 0)[:, 0]), ids[ids >= 0]
        frame = assemble(
            found,
            ids,
            self.network.taxonomy,
            (height, width),
            self.network.config.stuff_area,
            self.legacy,
            self._number,
            self.network.config.void_below,
        )
        self._number += 1
        if size == (height, width):
            return frame

        # Like the bilinear resize, this takes the pixel under the new pixel's centre; INTER_NEAREST does not.
        def back(array: NDArray[np.uint8] | NDArray[np.int32]) -> NDArray[np.uint8] | NDArray[np.int32]:
            return cv2.resize(array, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)  # type: ignore[no-any-return]

        return PanopticFrame(back(frame.semantic), back(frame.instance), frame.scores)  # type: ignore[arg-type]

    def prepare(self, image: Image) -> tuple[Image, Tensor]:
        """(h, w, 3), the frame at the network's size; (1, 3, H, W), the same normalised and padded."""
        size = (image.shape[0], image.shape[1])
        height, width = network_size(size, self.network.config.test_size)
        small = image if size == (height, width) else cv2.resize(image, (width, height))
        padded = padded_size((height, width))
        return small, torch.from_numpy(normalize(small, padded))[None].to(self.device)

    def _fused(self, image: Image) -> Detections:
        """What is seen in a frame with the help of the one before, at first itself (dossier 8.3)."""
        assert isinstance(self.network, VPSNet)
        assert self.network.fuse is not None
        image, tensor = self.prepare(image)
        size = (image.shape[0], image.shape[1])
        if self.legacy:  # the published flow sees the padding, too
            below, right = tensor.shape[2] - size[0], tensor.shape[3] - size[1]
            mean = [float(v) for v in np.rint(MEAN)]
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=mean)
        pyramid: list[Tensor] = self.network.backbone(tensor)
        before, reference = self._before or (image, pyramid)
        if before.shape != image.shape:
            before, reference = image, pyramid
        self._before = image.copy(), pyramid
        flow = self.flow(image, before)
        if flow.shape != (*image.shape[:2], 2):
            raise ValueError(f"flow must be {(*image.shape[:2], 2)}, got {flow.shape}")
        # What isn't known, and the padding, counts as rest.
        known = torch.from_numpy(np.nan_to_num(flow)).to(tensor).permute(2, 0, 1)[None]
        border = (0, tensor.shape[3] - image.shape[1], 0, tensor.shape[2] - image.shape[0])
        quarter = flow_quarter(functional.pad(known, border))
        return self.network.detect_all(self.network.fuse(pyramid, reference, quarter), size)[0]


def _part(found: Detections, which: Tensor) -> Detections:
    """Those of the detections that are at the places `which`, (k,) int64."""
    which = which.to(found.scores.device)
    return Detections(
        found.semantic,
        found.boxes[which],
        found.labels[which],
        found.scores[which],
        found.masks[which],
        found.embeddings[which],
    )


def _size_of(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Height and width; a ValueError if it isn't (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return image.shape[0], image.shape[1]


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """The next multiples of 32, which the pyramid needs (dossier 2.1)."""
    return -(-size[0] // 32) * 32, -(-size[1] // 32) * 32


def network_size(size: tuple[int, int], test_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) at which the network sees a frame of `size` (dossier 2.1).

    As large as fits the long and short edge of `test_size`, keeping the shape.
    """
    scale = min(max(test_size) / max(size), min(test_size) / min(size))
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)
