"""Boxes with inclusive ends: overlap, coding, suppression, assignment, sampling.

Convention of the whole network (dossier 0.4, 3.3, 3.6): a box is x1 y1 x2 y2 in input pixels, both ends
belong to it, its width is x2 - x1 + 1. N: boxes, G: true boxes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms as _exclusive_nms

MAX_LOG_RATIO = math.log(1000 / 16)
"""Largest change of log width or height that a delta can ask for."""

RPN_STD = (1.0, 1.0, 1.0, 1.0)
ROI_STD = (0.1, 0.1, 0.2, 0.2)

Choose = Callable[[Tensor, int], Tensor]
"""(n,) candidates, number wanted < n -> that many of them, ascending."""


def random_choice(generator: torch.Generator) -> Choose:
    """A `Choose` that draws uniformly without replacement; `generator` lives on the CPU."""

    def choose(candidates: Tensor, number: int) -> Tensor:
        order = torch.randperm(len(candidates), generator=generator)[:number]
        return candidates[order.sort().values.to(candidates.device)]

    return choose


def area(boxes: Tensor) -> Tensor:
    """(N, 4) -> (N,), in pixels."""
    return (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, 4), (M, 4) -> (N, M) intersection over union."""
    top_left = torch.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (bottom_right - top_left + 1).clamp(min=0)
    overlap = sides[..., 0] * sides[..., 1]
    return overlap / (area(a)[:, None] + area(b)[None] - overlap)


def encode(boxes: Tensor, truth: Tensor, std: Sequence[float]) -> Tensor:
    """Deltas (N, 4) that lead from `boxes` (N, 4) to `truth` (N, 4), divided by `std` (dossier 3.3)."""
    size, true_size = boxes[:, 2:] - boxes[:, :2] + 1, truth[:, 2:] - truth[:, :2] + 1
    center, true_center = (boxes[:, :2] + boxes[:, 2:]) * 0.5, (truth[:, :2] + truth[:, 2:]) * 0.5
    deltas = torch.cat([(true_center - center) / size, torch.log(true_size / size)], 1)
    return deltas / deltas.new_tensor(std)


def decode(
    boxes: Tensor, deltas: Tensor, std: Sequence[float], image_size: tuple[int, int], clamp_below: bool = True
) -> Tensor:
    """Inverse of `encode`, clipped to the image.

    Args:
        boxes: (N, 4).
        deltas: (N, K, 4), K alternatives per box.
        std: what `encode` divided by.
        image_size: height, width in pixels; x is clipped to [0, width - 1].
        clamp_below: also limit how much a box may shrink; proposals do, detections don't (dossier L4).

    Returns:
        (N, K, 4).
    """
    deltas = deltas * deltas.new_tensor(std)
    size, center = (
        boxes[:, None, 2:] - boxes[:, None, :2] + 1,
        (boxes[:, None, :2] + boxes[:, None, 2:]) * 0.5,
    )
    log_ratio = deltas[..., 2:].clamp(min=-MAX_LOG_RATIO if clamp_below else None, max=MAX_LOG_RATIO)
    new_center, half = center + size * deltas[..., :2], size * log_ratio.exp() * 0.5
    limit = boxes.new_tensor([image_size[1] - 1, image_size[0] - 1])
    low = torch.minimum((new_center - half + 0.5).clamp(min=0), limit)
    high = torch.minimum((new_center + half - 0.5).clamp(min=0), limit)
    return torch.cat([low, high], -1)


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes that no better one overlaps by more than `threshold`, by falling score.

    Moving the far ends by one turns torchvision's exclusive boxes into inclusive ones (dossier L2).
    """
    kept: Tensor = _exclusive_nms(boxes + boxes.new_tensor([0, 0, 1, 1]), scores, threshold)
    return kept


def assign(boxes: Tensor, truth: Tensor, positive: float, negative: float, floor: float) -> Tensor:
    """Which true box each box stands for (dossier 3.4).

    A box is negative below `negative` IoU with everything, positive from `positive` on. Then each true box,
    in order, takes every box that overlaps it best, if that is `floor` or more; later ones overwrite.

    Returns:
        (N,) int64: index of the true box; -1 negative, -2 neither.
    """
    result = torch.full((len(boxes),), -2, dtype=torch.int64, device=boxes.device)
    if len(truth) == 0 or len(boxes) == 0:
        return result.fill_(-1)
    overlap = iou(truth, boxes)
    best, which = overlap.max(0)
    result[best < negative] = -1
    result = torch.where(best >= positive, which, result)
    for g, top in enumerate(overlap.max(1).values):
        if top >= floor:
            result[overlap[g] == top] = g
    return result


def covered(boxes: Tensor, mask: Tensor) -> Tensor:
    """(N,) float32: the share of each box's pixels, those inside the map, that lie on `mask`, (H, W) bool."""
    height, width = mask.shape
    sums = F.pad(mask.int().cumsum(0).cumsum(1), (1, 0, 1, 0))  # of all pixels above and to the left
    corners = boxes.round().long()
    x1, x2 = corners[:, 0].clamp(0, width), (corners[:, 2] + 1).clamp(0, width)
    y1, y2 = corners[:, 1].clamp(0, height), (corners[:, 3] + 1).clamp(0, height)
    inside = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    return inside / ((x2 - x1) * (y2 - y1)).clamp(min=1)


def spare_untrusted(assigned: Tensor, boxes: Tensor, untrusted: Tensor | None, most: float) -> Tensor:
    """An assignment in which negatives that are more than `most` untrusted are neither.

    Args:
        assigned: (N,) int64 as `assign` gives it.
        boxes: (N, 4).
        untrusted: (H, W) bool, pixels where a thing may be that the truth doesn't show; None: there are none.
        most: share of a box.
    """
    if untrusted is None:
        return assigned
    spared = (assigned == -1) & (covered(boxes, untrusted) > most)
    return assigned.masked_fill(spared, -2)


class Sample(NamedTuple):
    """Chosen boxes: indices of positives and negatives, ascending, and the true box of each positive."""

    positive: Tensor
    negative: Tensor
    truth: Tensor


def sample(assigned: Tensor, number: int, positive_share: float, choose: Choose) -> Sample:
    """Chooses at most `number` boxes from an assignment, at most `positive_share` of them positive."""

    def take(candidates: Tensor, limit: int) -> Tensor:
        return choose(candidates, limit) if len(candidates) > limit else candidates

    positive = take(torch.nonzero(assigned >= 0)[:, 0], int(number * positive_share))
    negative = take(torch.nonzero(assigned == -1)[:, 0], number - len(positive))
    return Sample(positive, negative, assigned[positive])
