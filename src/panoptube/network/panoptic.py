"""Panoptic head: one channel per stuff class and per instance (dossier section 6). It has no weights.

H, W: size of the map that is made: the input in prediction, a quarter of it in training. k: instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from panoptube.panoptic.frame import VOID

OUTSIDE = -1e4
"""Logit of an instance outside its box: it can't win there, and differences stay finite."""

OVERLAP = 0.3
"""Share of a mask that better masks of its class may cover before it is dropped (dossier 6.2)."""


def paste(mask: Tensor, box: Sequence[float], size: tuple[int, int], outside: float) -> Tensor:
    """(28, 28) logits -> (H, W): resized to the box cut to integers, `outside` elsewhere (dossier 6)."""
    return _place(_resize(mask, box), int(box[0]), int(box[1]), size, outside)


def _resize(mask: Tensor, box: Sequence[float]) -> Tensor:
    """(28, 28) -> the size of the box cut to integers, at least a pixel."""
    x1, y1, x2, y2 = (int(v) for v in box)
    size = (max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1))
    return F.interpolate(mask[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _place(window: Tensor, x1: int, y1: int, size: tuple[int, int], outside: float) -> Tensor:
    """Puts a window with its corner at (x1, y1) >= 0 into a map of `size`, cutting off what leaves it."""
    window = window[: max(size[0] - y1, 0), : max(size[1] - x1, 0)]
    height, width = window.shape
    return F.pad(window, (x1, size[1] - x1 - width, y1, size[0] - y1 - height), value=outside)


def instance_logits(
    semantic: Tensor, masks: Sequence[Tensor], boxes: Tensor, labels: Tensor, num_stuff: int, legacy: bool
) -> Tensor:
    """Semantic logits of each instance's class, inside its box, plus its mask logits (dossier 6).

    Args:
        semantic: (C, H, W) logits, stuff first.
        masks: k tensors (28, 28).
        boxes: (k, 4), at the scale of (H, W).
        labels: (k,) int64, 1..K.
        num_stuff: stuff classes.
        legacy: both terms are 0 outside the box, so that an instance can win pixels anywhere, and the box of
            the semantic term is rounded at its far end.

    Returns:
        (k, H, W).
    """
    size = (semantic.shape[1], semantic.shape[2])
    channels = []
    for mask, box, label in zip(masks, boxes.tolist(), labels.tolist()):
        if not legacy:
            x1, y1, x2, y2 = (int(v) for v in box)
            pasted = paste(mask, box, size, OUTSIDE)
            window = semantic[num_stuff + label - 1, y1 : max(y2, y1) + 1, x1 : max(x2, x1) + 1]
            channels.append(pasted + _place(window, x1, y1, size, 0.0))
        elif label == 0:  # the dummy detection
            channels.append(semantic.new_zeros(size))
        else:
            window = semantic[num_stuff + label - 1][
                int(box[1]) : round(box[3]) + 1, int(box[0]) : round(box[2]) + 1
            ]
            channels.append(_place(window, int(box[0]), int(box[1]), size, 0.0) + paste(mask, box, size, 0.0))
    return torch.stack(channels) if channels else semantic.new_zeros(0, *size)


class Window(NamedTuple):
    """An instance's mask where it lies in the map.

    Attributes:
        detection: its position among the detections.
        x, y: column and row of the corner, at least 0.
        logits: (height, width) float32, cut to the map.
    """

    detection: int
    x: int
    y: int
    logits: NDArray[np.float32]


@torch.no_grad()
def uncovered(
    masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, size: tuple[int, int]
) -> list[Window]:
    """The instances that better ones of their class don't cover, and that aren't empty (dossier 6.2).

    Computed on the CPU, whose answers don't have to be waited for one by one.

    Args:
        masks: (n, 28, 28) logits.
        boxes: (n, 4).
        labels: (n,) int64.
        scores: (n,).
        size: H, W.

    Returns:
        By falling score.
    """
    masks = masks.cpu()
    claimed: dict[int, NDArray[np.bool_]] = {}
    kept = []
    rows, classes = boxes.tolist(), labels.tolist()
    for i in scores.argsort(descending=True, stable=True).tolist():
        x, y = int(rows[i][0]), int(rows[i][1])
        logits = _resize(masks[i], rows[i]).numpy()[: max(size[0] - y, 0), : max(size[1] - x, 0)]
        mask = logits > 0
        pixels = np.count_nonzero(mask)
        if pixels == 0:
            continue
        if classes[i] not in claimed:
            claimed[classes[i]] = np.zeros(size, np.bool_)
        window = claimed[classes[i]][y : y + mask.shape[0], x : x + mask.shape[1]]
        if np.count_nonzero(mask & window) / pixels > OVERLAP:
            continue
        window |= mask
        kept.append(Window(i, x, y, logits))
    return kept


def prune(
    masks: Tensor, boxes: Tensor, labels: Tensor, scores: Tensor, size: tuple[int, int], legacy: bool
) -> tuple[Tensor, bool]:
    """Which instances have a channel; arguments as `uncovered`.

    Args:
        legacy: where everything is dropped, the first comes back, with an empty mask.

    Returns:
        (k,) int64 indices of the kept, by falling score; and whether the only one has an empty mask (legacy).
    """
    kept = [window.detection for window in uncovered(masks, boxes, labels, scores, size)]
    empty = legacy and not kept and len(scores) > 0
    return torch.tensor([0] if empty else kept, dtype=torch.int64, device=masks.device), empty


def panoptic_logits(
    semantic: Tensor,
    masks: Tensor,
    boxes: Tensor,
    labels: Tensor,
    num_stuff: int,
    legacy: bool,
) -> Tensor:
    """(C, H, W) semantic logits and k instances -> (num_stuff + k, H, W); arguments as `instance_logits`."""
    instances = instance_logits(semantic, list(masks), boxes, labels, num_stuff, legacy)
    return torch.cat([semantic[:num_stuff], instances])


def panoptic_target(semantic: Tensor, masks: Tensor, num_stuff: int) -> Tensor:
    """Truth for the panoptic logits of training, at a quarter of the size (dossier 6.1).

    Args:
        semantic: (H, W) int64, class or 255.
        masks: (G, H, W) uint8, in the order of the channels; later ones overwrite earlier ones.
        num_stuff: stuff classes.

    Returns:
        (H / 4, W / 4) int64: stuff class, num_stuff + index of the instance, or 255; thing pixels without an
        instance are 255.
    """
    quarter = semantic[::4, ::4]
    target = torch.where(quarter < num_stuff, quarter, VOID)
    for i, mask in enumerate(masks[:, ::4, ::4]):
        target[mask != 0] = num_stuff + i
    return target
