"""The supervised losses of VPSNet-Track, one function per term (dossier 3.4, 4.2, 4.3, 5, 6.1, 7.2).

Each is a mean over the frames of the batch. A term with nothing to compare is a zero that still has a
gradient, since a missing gradient can hang distributed training.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from panoptube.config import LossConfig
from panoptube.network.vpsnet import FrameTraining
from panoptube.panoptic.frame import VOID


def supervised(frames: Sequence[FrameTraining], weights: LossConfig) -> dict[str, Tensor]:
    """The eight terms, weighted, under the names of `LossConfig`; each is a () tensor."""
    count = len(frames)
    terms = {
        "semantic": sum_of(pixel_loss(f.semantic, f.semantic_target) for f in frames) * weights.semantic,
        "rpn_objectness": sum_of(sum_of(rpn_objectness_loss(f)) for f in frames) * weights.rpn_objectness,
        "rpn_boxes": sum_of(sum_of(rpn_box_loss(f)) for f in frames) * weights.rpn_boxes,
        "classes": sum_of(class_loss(f) for f in frames) * weights.classes,
        "boxes": sum_of(box_loss(f) for f in frames) * weights.boxes,
        "masks": sum_of(mask_loss(f) for f in frames) * weights.masks,
        "match": match_term(frames, weights) * count,
        "panoptic": sum_of(pixel_loss(f.panoptic, f.panoptic_target) for f in frames) * weights.panoptic,
    }
    return {name: term / count for name, term in terms.items()}


def match_term(frames: Sequence[FrameTraining], weights: LossConfig) -> Tensor:
    """The weighted match term alone, mean over `frames`, ()."""
    return sum_of(match_loss(f) for f in frames) * weights.match / len(frames)


def sum_of(values: Iterable[Tensor]) -> Tensor:
    """Sum of () tensors."""
    return torch.stack(list(values)).sum()


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of a map, mean over the pixels with truth.

    Args:
        logits: (C, H, W).
        target: (H, W) int64, 255 ignored.
    """
    if not bool((target != VOID).any()):
        return logits.sum() * 0
    return F.cross_entropy(logits[None].float(), target[None], ignore_index=VOID)


def _rpn_samples(frame: FrameTraining) -> int:
    return max(len(frame.rpn.positive), 1) + max(len(frame.rpn.negative), 1)


def _per_level(index: Tensor, levels: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Per level: which entries of `index` are in it, and where."""
    found, start = [], 0
    for level in levels:
        chosen = torch.nonzero((index >= start) & (index < start + len(level)))[:, 0]
        found.append((chosen, index[chosen] - start))
        start += len(level)
    return found


def rpn_objectness_loss(frame: FrameTraining) -> list[Tensor]:
    """Binary cross entropy of the sampled anchors, per level, over all samples (dossier 3.4)."""
    index = torch.cat([frame.rpn.positive, frame.rpn.negative])
    target = torch.cat([torch.ones_like(frame.rpn.positive), torch.zeros_like(frame.rpn.negative)]).float()
    return [
        F.binary_cross_entropy_with_logits(level[at].float(), target[chosen], reduction="sum")
        / _rpn_samples(frame)
        for level, (chosen, at) in zip(frame.objectness, _per_level(index, frame.objectness))
    ]


def rpn_box_loss(frame: FrameTraining) -> list[Tensor]:
    """Smooth L1 (beta 1/9) of the positive anchors' deltas, per level, over all samples (dossier 3.4)."""
    return [
        F.smooth_l1_loss(level[at].float(), frame.rpn.deltas[chosen], reduction="sum", beta=1 / 9)
        / _rpn_samples(frame)
        for level, (chosen, at) in zip(frame.deltas, _per_level(frame.rpn.positive, frame.deltas))
    ]


def class_loss(frame: FrameTraining) -> Tensor:
    """Cross entropy of the sampled boxes, mean (dossier 4.2)."""
    total = F.cross_entropy(frame.class_logits.float(), frame.roi.labels, reduction="sum")
    return total / max(len(frame.roi.labels), 1)


def box_loss(frame: FrameTraining) -> Tensor:
    """Smooth L1 (beta 1) of the positives' deltas of their true class, over all samples (dossier 4.2)."""
    positive = len(frame.roi.truth)
    rows = torch.arange(positive, device=frame.box_deltas.device)
    deltas = frame.box_deltas[rows, frame.roi.labels[:positive]].float()
    total = F.smooth_l1_loss(deltas, frame.roi.deltas, reduction="sum", beta=1.0)
    return total / max(len(frame.roi.labels), 1)


def mask_loss(frame: FrameTraining) -> Tensor:
    """Binary cross entropy of the positives' masks, mean over their pixels (dossier 4.3)."""
    if len(frame.mask_logits) == 0:
        return frame.mask_logits.sum() * 0
    return F.binary_cross_entropy_with_logits(frame.mask_logits.float(), frame.roi.masks.float())


def match_loss(frame: FrameTraining) -> Tensor:
    """Cross entropy of the positives over "new" and the reference's objects, mean (dossier 7.2)."""
    if len(frame.match) == 0:
        return frame.match.sum() * 0
    return F.cross_entropy(frame.match.float(), frame.match_target)
