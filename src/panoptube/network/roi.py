"""Box and mask heads, what they look at, their targets, and the choice of detections (dossier section 4).

R: boxes (regions), K: thing classes, K + 1 with background at 0. Boxes have inclusive ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from panoptube.network.backbone import STRIDES
from panoptube.network.boxes import ROI_STD, Choose, assign, decode, encode, nms, sample, spare_untrusted

BOX_SIZE = 7
MASK_SIZE = 14
MASK_LOGITS = 28
NMS_IOU = 0.5


def roi_levels(boxes: Tensor) -> Tensor:
    """(R, 4) -> (R,) int64, which of P2..P5 to read; thresholds 112, 224, 448 pixels (dossier L7)."""
    width, height = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    return torch.floor(torch.log2(torch.sqrt(width * height) / 56 + 1e-6)).clamp(0, 3).long()


def pool(pyramid: Sequence[Tensor], image: int, boxes: Tensor, size: int) -> Tensor:
    """RoIAlign with 2x2 samples per cell, each box from the level of its size (dossier 4.1).

    Args:
        pyramid: P2.. (B, C, h, w); the first four are used.
        image: which of the batch.
        boxes: (R, 4).
        size: cells per side.

    Returns:
        (R, C, size, size).
    """
    levels = roi_levels(boxes)
    result = pyramid[0].new_zeros(boxes.shape[0], pyramid[0].shape[1], size, size)
    for level in range(4):
        chosen = torch.nonzero(levels == level)[:, 0]
        # Half a cell undoes the operator's shift, one more pixel makes the far end inclusive (dossier L6).
        half = 0.5 * STRIDES[level]
        moved = boxes[chosen] + boxes.new_tensor([half, half, half + 1, half + 1])
        features = pyramid[level][image : image + 1]
        pooled = roi_align(features, [moved.to(features.dtype)], size, 1 / STRIDES[level], 2, aligned=True)
        result = result.index_copy(0, chosen, pooled)
    return result


class BoxHead(nn.Module):
    """Two fully connected layers, then class logits and a box per class (dossier 4.2)."""

    def __init__(self, channels: int, width: int, num_things: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * BOX_SIZE**2, width)
        self.fc2 = nn.Linear(width, width)
        self.classes = nn.Linear(width, num_things + 1)
        self.deltas = nn.Linear(width, 4 * (num_things + 1))
        for layer in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.fc1, self.fc2, self.classes, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, 7, 7) -> class logits (R, K + 1), deltas (R, K + 1, 4)."""
        hidden = F.relu(self.fc2(F.relu(self.fc1(features.flatten(1)))))
        classes = self.classes(hidden)
        return classes, self.deltas(hidden).unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """3x3 convolutions, a transposed one, and one logit map per class (dossier 4.3)."""

    def __init__(self, channels: int, width: int, convs: int, num_things: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(width if i else channels, width, 3, padding=1) for i in range(convs)
        )
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.logits = nn.Conv2d(width, num_things + 1, 1)
        for layer in (*self.convs, self.upsample, self.logits):
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            assert layer.bias is not None
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(R, C, 14, 14) -> (R, K + 1, 28, 28) logits; channel 0 is unused."""
        x = features
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.logits(F.relu(self.upsample(x)))  # type: ignore[no-any-return]

    def of_class(self, features: Tensor, labels: Tensor) -> Tensor:
        """(R, C, 14, 14), (R,) int64 -> (R, 28, 28), the logits of each region's own class."""
        return self(features)[torch.arange(len(labels), device=labels.device), labels]  # type: ignore[no-any-return]


class RoiTargets(NamedTuple):
    """What the sampled boxes of one image should say; P positives come first.

    Attributes:
        boxes: (R, 4).
        labels: (R,) int64, 0 for negatives.
        deltas: (P, 4).
        truth: (P,) int64, index of the true box of each positive.
        masks: (P, 28, 28) uint8, 0 or 1.
    """

    boxes: Tensor
    labels: Tensor
    deltas: Tensor
    truth: Tensor
    masks: Tensor


@torch.no_grad()
def roi_targets(
    proposals: Tensor,
    truth: Tensor,
    labels: Tensor,
    masks: Tensor,
    number: int,
    choose: Choose,
    untrusted: Tensor | None = None,
    most: float = 1.0,
) -> RoiTargets:
    """Samples boxes of one image for the second stage (dossier 4.2); true boxes are the first candidates.

    Args:
        proposals: (R, 4).
        truth: (G, 4) true boxes.
        labels: (G,) int64, 1..K.
        masks: (G, H, W) uint8.
        number: boxes to sample, at most a quarter positive.
        choose: draws the sample.
        untrusted, most: as in `spare_untrusted`.
    """
    candidates = torch.cat([truth, proposals])
    assigned = torch.cat(
        [torch.arange(len(truth), device=truth.device), assign(proposals, truth, 0.5, 0.5, 0.5)]
    )
    chosen = sample(spare_untrusted(assigned, candidates, untrusted, most), number, 0.25, choose)
    positive = candidates[chosen.positive]
    deltas = encode(positive, truth[chosen.truth], ROI_STD)
    boxes = torch.cat([positive, candidates[chosen.negative]])
    roi_labels = torch.cat([labels[chosen.truth], labels.new_zeros(len(chosen.negative))])
    return RoiTargets(boxes, roi_labels, deltas, chosen.truth, mask_targets(positive, masks, chosen.truth))


def mask_targets(boxes: Tensor, masks: Tensor, truth: Tensor) -> Tensor:
    """(P, 4) boxes, (G, H, W) uint8 masks, (P,) which mask -> (P, 28, 28) uint8, each mask cut to its box.

    OpenCV resizes the bytes themselves and so rounds to 0 or 1, as in the published training (dossier L9).
    """
    array = masks.cpu().numpy()
    result = np.zeros((len(boxes), MASK_LOGITS, MASK_LOGITS), np.uint8)
    for i, (x1, y1, x2, y2) in enumerate(boxes.cpu().numpy().astype(int)):
        crop = array[int(truth[i]), y1 : max(y2, y1) + 1, x1 : max(x2, x1) + 1]
        result[i] = cv2.resize(crop, (MASK_LOGITS, MASK_LOGITS))
    return torch.from_numpy(result).to(masks.device)


class Selected(NamedTuple):
    """Detections by falling score: boxes (n, 4), labels (n,) int64 1..K, scores (n,)."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor


@torch.no_grad()
def select(
    proposals: Tensor,
    class_logits: Tensor,
    deltas: Tensor,
    image_size: tuple[int, int],
    score_threshold: float,
    max_detections: int,
    legacy: bool,
) -> Selected:
    """Class-agnostic choice of detections (dossier 4.2).

    All (box, class) pairs above the threshold, suppressed at IoU 0.5 whatever their class.

    Args:
        proposals: (R, 4).
        class_logits: (R, K + 1).
        deltas: (R, K + 1, 4).
        image_size: height, width with padding; boxes are clipped to it.
        score_threshold: a pair needs a probability above it.
        max_detections: of more, those as good as the last of them are kept.
        legacy: where nothing is found, give one detection of class 0 with score 1 and box 0 0 0 0.
    """
    probability = class_logits.float().softmax(1)
    region, label = torch.nonzero(probability[:, 1:] > score_threshold, as_tuple=True)
    label = label + 1
    scores = probability[region, label]
    boxes = decode(
        proposals[region], deltas[region, label].float()[:, None], ROI_STD, image_size, clamp_below=False
    )[:, 0]
    keep = nms(boxes, scores, NMS_IOU)
    if len(keep) > max_detections:
        keep = keep[scores[keep] >= scores[keep][max_detections - 1]]
    if len(keep) == 0 and legacy:
        return Selected(boxes.new_zeros(1, 4), label.new_zeros(1), boxes.new_ones(1))
    return Selected(boxes[keep], label[keep], scores[keep])
