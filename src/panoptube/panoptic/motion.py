"""A tracker for videos of many frames a second: objects are looked for where they are going.

`tracker.Tracker` is the published one. It lets each detection choose its object alone, so of two that want
the same one the other becomes new, although its own object is there; and where looks tell little, as of
people a few pixels wide, that happens all the time. Here pairs are made best first, one to one.

Detections that the network isn't sure of start no object, but continue one that nothing better continues
(after ByteTrack, Zhang et al., ECCV 2022): half hidden, an object is still where it was going.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from panoptube.network.boxes import iou
from panoptube.network.match import match_logits
from panoptube.panoptic.tracker import Tracker

OVERLAP = 4.0
"""Weight of the IoU with where an object should be, beside the log probability that looks are the same."""

LEAST_OVERLAP = 0.05
"""What overlaps less lies elsewhere."""

SURE = math.log(0.5)
"""Log probability above which looks alone tell that it is the same object, wherever it lies."""

NEW = -2.0
"""A detection that fits no object better than this becomes a new one."""

INERTIA = 0.5
"""Share of the earlier speed in the present one."""


WEAK_OVERLAP = 0.5
"""Least IoU of a weak detection with where the object that it continues should be."""

WEAK_AGE = 3
"""Objects that weren't seen for more frames than this aren't continued by weak detections."""


class MotionTracker(Tracker):
    """Gives the detections of one video their ids; each object goes on as fast as it was last.

    Args:
        max_age: objects that no detection continued for this many frames are forgotten.
        threshold: detections with a score not above this are weak.
    """

    def __init__(self, max_age: int | None = 30, threshold: float = 0.0) -> None:
        super().__init__(max_age)
        self.threshold = threshold
        self.speeds = torch.zeros(0, 2)

    def clear(self) -> None:
        super().clear()
        self.speeds = torch.zeros(0, 2)

    def step(self, boxes: Tensor, labels: Tensor, scores: Tensor, embeddings: Tensor) -> Tensor:
        """As `Tracker.step`; weak detections that continue nothing have the id -1."""
        strong = torch.nonzero(scores > self.threshold)[:, 0]
        weak = torch.nonzero(scores <= self.threshold)[:, 0]
        ids = torch.full((len(boxes),), -1, dtype=torch.int64)
        ids[strong] = super().step(boxes[strong], labels[strong], scores[strong], embeddings[strong])
        ids[weak] = self._continue_weakly(boxes[weak], labels[weak])
        return ids

    def expected(self, later: int = 1) -> Tensor:
        """(m, 4), where the objects in memory should be so many frames after the present one."""
        ahead = torch.tensor([age + later for age in self.ages], dtype=self.boxes.dtype)
        return self.boxes + (self.speeds * ahead[:, None]).repeat(1, 2)

    def fit(self, boxes: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
        """(n, m), how well detections fit objects: mean log probability of the looks + 4 IoU.

        The probability is that of an object among all and none, for a detection, and that of a detection
        among all and none, for an object. -inf for another class, and for what lies elsewhere if looks
        don't speak for it.
        """
        logits = match_logits(embeddings, self.embeddings)[:, 1:]
        of_detections = F.pad(logits, (1, 0)).log_softmax(1)[:, 1:]
        of_objects = F.pad(logits, (0, 0, 1, 0)).log_softmax(0)[1:]
        looks, overlap = (of_detections + of_objects) / 2, iou(boxes, self.expected())
        same_class = labels[:, None] == self.labels[None]
        possible = same_class & ((overlap >= LEAST_OVERLAP) | (looks > SURE))
        return torch.where(possible, looks + OVERLAP * overlap, -torch.inf)

    def _continue(
        self, boxes: Tensor, labels: Tensor, scores: Tensor, embeddings: Tensor
    ) -> tuple[list[int], list[int]]:
        fit = self.fit(boxes, labels, embeddings)
        result = [-1] * len(boxes)
        self.boxes, self.embeddings = self.boxes.clone(), self.embeddings.clone()
        for i, k in best_first(fit, NEW):
            result[i] = self.ids[k]
            self._move(k, boxes[i], self.ages[k] + 1)
            self.embeddings[k] = embeddings[i]
        return [i for i, known in enumerate(result) if known < 0], result

    def _continue_weakly(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """Ids, or -1, of weak detections, after the others have theirs; looks of such detections tell little,
        and aren't remembered."""
        ids = torch.full((len(boxes),), -1, dtype=torch.int64)
        if len(boxes) == 0 or not self.ids:
            return ids
        ages = torch.tensor(self.ages)
        possible = (labels[:, None] == self.labels[None]) & (ages > 0) & (ages <= WEAK_AGE + 1)
        overlap = iou(boxes, self.expected(later=0))
        self.boxes = self.boxes.clone()
        for i, k in best_first(torch.where(possible, overlap, -torch.inf), WEAK_OVERLAP):
            ids[i] = self.ids[k]
            self._move(k, boxes[i], self.ages[k])
            self.ages[k] = 0
        return ids

    def _move(self, k: int, box: Tensor, frames: int) -> None:
        """Object k is at `box`, so many frames after it was seen last."""
        moved = (box - self.boxes[k]).view(2, 2).mean(0) / frames
        at_first = not bool(self.speeds[k].any())
        self.speeds = self.speeds.clone()
        self.speeds[k] = moved if at_first else INERTIA * self.speeds[k] + (1 - INERTIA) * moved
        self.boxes[k] = box

    def _add(self, boxes: Tensor, labels: Tensor, embeddings: Tensor) -> None:
        super()._add(boxes, labels, embeddings)
        self.speeds = torch.cat([self.speeds, self.speeds.new_zeros(len(boxes), 2)])

    def _keep(self, which: list[int]) -> None:
        super()._keep(which)
        self.speeds = self.speeds[which]


def best_first(fit: Tensor, above: float) -> list[tuple[int, int]]:
    """(n, m) -> pairs of row and column, one to one, largest first, all larger than `above`."""
    pairs: list[tuple[int, int]] = []
    rows: set[int] = set()
    columns: set[int] = set()
    for place in fit.flatten().argsort(descending=True, stable=True).tolist():
        i, k = divmod(place, fit.shape[1])
        if not fit[i, k] > above:
            break
        if i not in rows and k not in columns:
            rows.add(i)
            columns.add(k)
            pairs.append((i, k))
    return pairs
