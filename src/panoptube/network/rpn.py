"""Region proposals: head, anchors, targets, proposals (dossier section 3). A: anchors of all levels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panoptube.network.backbone import STRIDES
from panoptube.network.boxes import RPN_STD, Choose, assign, decode, encode, nms, sample, spare_untrusted

SCALE = 8
RATIOS = (0.5, 1.0, 2.0)
NMS_IOU = 0.7


class RpnOutput(NamedTuple):
    """Per level: objectness (B, 3, h, w) logits and deltas (B, 12, h, w), four channels per anchor."""

    objectness: list[Tensor]
    deltas: list[Tensor]

    def flat(self, image: int) -> tuple[list[Tensor], list[Tensor]]:
        """Of one image, per level: (A_l,) objectness and (A_l, 4) deltas, in the order of `anchors`."""
        objectness = [level[image].permute(1, 2, 0).reshape(-1) for level in self.objectness]
        deltas = [level[image].permute(1, 2, 0).reshape(-1, 4) for level in self.deltas]
        return objectness, deltas


class RpnTargets(NamedTuple):
    """What one image's anchors should say.

    Attributes:
        positive, negative: (P,), (N,) int64 indices of the sampled anchors, ascending.
        deltas: (P, 4) for the positives.
        anchors: (A, 4), all of them.
    """

    positive: Tensor
    negative: Tensor
    deltas: Tensor
    anchors: Tensor


class RegionProposals(nn.Module):
    """3x3 convolution, then objectness and deltas by 1x1, shared by all levels (dossier 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, len(RATIOS), 1)
        self.deltas = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        for layer in (self.conv, self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, pyramid: Sequence[Tensor]) -> RpnOutput:
        """P2..P6 -> RpnOutput."""
        hidden = [F.relu(self.conv(level)) for level in pyramid]
        return RpnOutput([self.objectness(h) for h in hidden], [self.deltas(h) for h in hidden])


def base_anchors(stride: int) -> Tensor:
    """(3, 4) float64, the anchors of a level's first cell, by ratio (dossier 3.2)."""
    ratio = torch.tensor(RATIOS, dtype=torch.float64).sqrt()
    half_width, half_height = (SCALE * stride / ratio - 1) / 2, (SCALE * stride * ratio - 1) / 2
    center = (stride - 1) / 2
    return torch.stack(
        [center - half_width, center - half_height, center + half_width, center + half_height], 1
    ).round()


@lru_cache(maxsize=16)
def level_anchors(height: int, width: int, stride: int) -> Tensor:
    """Anchors of one level (dossier 3.2): whole numbers, centred on (stride - 1) / 2 of each cell.

    Returns:
        (height * width * 3, 4), by row, column, ratio.
    """
    y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
    shift = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shift + base_anchors(stride)).reshape(-1, 4).float()


def anchors(output: RpnOutput) -> list[Tensor]:
    """Per level (A_l, 4)."""
    return [
        level_anchors(level.shape[2], level.shape[3], stride).to(level.device)
        for level, stride in zip(output.objectness, STRIDES)
    ]


@torch.no_grad()
def propose(output: RpnOutput, image: int, image_size: tuple[int, int], number: int) -> Tensor:
    """Proposals of one image (dossier 3.5): the best of each level, suppressed at IoU 0.7, together.

    Args:
        image: which of the batch.
        image_size: height, width without padding; boxes are clipped to it.
        number: kept per level and in total.

    Returns:
        (<= number, 5) x1 y1 x2 y2 score, by falling score.
    """
    kept = []
    for objectness, deltas, boxes in zip(*output.flat(image), anchors(output)):
        scores = objectness.float().sigmoid()
        if len(scores) > number:
            scores, best = scores.topk(number)
            deltas, boxes = deltas[best], boxes[best]
        decoded = decode(boxes, deltas.float()[:, None], RPN_STD, image_size)[:, 0]
        # Survivors in index order: so equal scores of two levels are resolved as in the published network.
        survivors = nms(decoded, scores, NMS_IOU).sort().values
        kept.append(torch.cat([decoded[survivors], scores[survivors, None]], 1))
    proposals = torch.cat(kept)
    return proposals[proposals[:, 4].topk(min(number, len(proposals))).indices]


@torch.no_grad()
def rpn_targets(
    output: RpnOutput,
    truth: Tensor,
    image_size: tuple[int, int],
    number: int,
    choose: Choose,
    untrusted: Tensor | None = None,
    most: float = 1.0,
) -> RpnTargets:
    """Samples the anchors of one image that lie inside it and says what they should predict (dossier 3.4).

    Args:
        truth: (G, 4) true boxes.
        image_size: height, width without padding.
        number: anchors to sample.
        choose: draws the sample.
        untrusted, most: as in `spare_untrusted`.
    """
    boxes = torch.cat(anchors(output))
    inside = (boxes[:, :2] >= 0).all(1) & (boxes[:, 2] < image_size[1]) & (boxes[:, 3] < image_size[0])
    index = torch.nonzero(inside)[:, 0]
    assigned = assign(boxes[index], truth, 0.7, 0.3, 0.3)
    chosen = sample(spare_untrusted(assigned, boxes[index], untrusted, most), number, 0.5, choose)
    positive = index[chosen.positive]
    return RpnTargets(
        positive, index[chosen.negative], encode(boxes[positive], truth[chosen.truth], RPN_STD), boxes
    )
