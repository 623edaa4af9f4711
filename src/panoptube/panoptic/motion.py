"""A tracker for videos of many frames a second: objects are looked for where they are going.

`tracker.Tracker` is the published one. It lets each detection choose its object alone, so of two that want
the same one the other becomes new, although its own object is there; and where looks tell little, as of
people a few pixels wide, that happens all the time. Here pairs are made best first, one to one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from panoptube.network.boxes import iou
from panoptube.network.match import match_logits
from panoptube.panoptic.tracker import Tracker

OVERLAP = 8.0
"""Weight of the IoU with where an object should be, beside the log probability that looks are the same."""

LEAST_OVERLAP = 0.05
"""What overlaps less lies elsewhere."""

SURE = math.log(0.5)
"""Log probability above which looks alone tell that it is the same object, wherever it lies."""

NEW = -2.0
"""A detection that fits no object better than this becomes a new one."""

INERTIA = 0.5
"""Share of the earlier speed in the present one."""


class MotionTracker(Tracker):
    """Gives the detections of one video their ids; each object goes on as fast as it was last.

    Args:
        max_age: objects that no detection continued for this many frames are forgotten.
    """

    def __init__(self, max_age: int | None = 30) -> None:
        super().__init__(max_age)
        self.speeds = torch.zeros(0, 2)

    def clear(self) -> None:
        super().clear()
        self.speeds = torch.zeros(0, 2)

    def expected(self) -> Tensor:
        """(m, 4), where the objects in memory should be in the next frame."""
        ahead = torch.tensor([age + 1 for age in self.ages], dtype=self.boxes.dtype)
        return self.boxes + (self.speeds * ahead[:, None]).repeat(1, 2)

    def fit(self, boxes: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
        """(n, m), how well detections fit objects: mean log probability of the looks + 8 IoU.

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
        self.speeds = self.speeds.clone()
        taken: set[int] = set()
        for place in fit.flatten().argsort(descending=True, stable=True).tolist():
            i, k = divmod(place, len(self.ids))
            if not fit[i, k] > NEW:
                break
            if result[i] >= 0 or k in taken:
                continue
            taken.add(k)
            result[i] = self.ids[k]
            moved = (boxes[i] - self.boxes[k]).view(2, 2).mean(0) / (self.ages[k] + 1)
            at_first = not bool(self.speeds[k].any())
            self.speeds[k] = moved if at_first else INERTIA * self.speeds[k] + (1 - INERTIA) * moved
            self.boxes[k], self.embeddings[k] = boxes[i], embeddings[i]
        return [i for i, known in enumerate(result) if known < 0], result

    def _add(self, boxes: Tensor, labels: Tensor, embeddings: Tensor) -> None:
        super()._add(boxes, labels, embeddings)
        self.speeds = torch.cat([self.speeds, self.speeds.new_zeros(len(boxes), 2)])

    def _keep(self, which: list[int]) -> None:
        super()._keep(which)
        self.speeds = self.speeds[which]
