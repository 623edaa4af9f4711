"""One video's memory: which detection continues which object (dossier 7.3). Plain tensors in, ids out.

n: detections of a frame, by falling score. m: objects in memory. D: length of an embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from panoptube.network.boxes import iou
from panoptube.network.match import match_logits

SCORE, OVERLAP, SAME_CLASS = 1.0, 2.0, 10.0
"""Weights of the terms beside the match probability."""

WORST = -100.0
"""A detection that fits its object no better than this becomes a new one."""


class Association(NamedTuple):
    """How well each detection fits "new object" (column 0) and each object in memory.

    All are (n, m + 1), but overlap and same_class are (n, m).
    """

    match: Tensor
    log_probability: Tensor
    overlap: Tensor
    same_class: Tensor
    total: Tensor


class Tracker:
    """Gives the detections of one video their ids.

    Args:
        max_age: objects that no detection continued for this many frames are forgotten; None never forgets.
        match_score: include the learned term, which the first published code left out (dossier D2).
    """

    def __init__(self, max_age: int | None = 30, match_score: bool = True) -> None:
        self.max_age = max_age
        self.match_score = match_score
        self.boxes = torch.zeros(0, 4)
        self.labels = torch.zeros(0, dtype=torch.int64)
        self.embeddings = torch.zeros(0, 0)
        self.ids: list[int] = []
        self.ages: list[int] = []
        self.next_id = 0

    def __len__(self) -> int:
        """Objects in memory."""
        return len(self.ids)

    def clear(self) -> None:
        """Forgets all objects. Ids go on counting."""
        self._keep([])

    def associate(self, boxes: Tensor, labels: Tensor, scores: Tensor, embeddings: Tensor) -> Association:
        """Scores against the memory: log softmax of the match logits + ln score + 2 IoU + 10 same class.

        "New object" has IoU 0 and counts as the same class.
        """
        match = match_logits(embeddings, self.embeddings)
        log_probability = match.log_softmax(1)
        overlap = iou(boxes, self.boxes)
        same = (labels[:, None] == self.labels[None]).to(boxes.dtype)
        total = scores.log()[:, None] * SCORE
        total = total + OVERLAP * torch.nn.functional.pad(overlap, (1, 0))
        total = total + SAME_CLASS * torch.nn.functional.pad(same, (1, 0), value=1.0)
        if self.match_score:
            total = total + log_probability
        return Association(match, log_probability, overlap, same, total)

    def step(self, boxes: Tensor, labels: Tensor, scores: Tensor, embeddings: Tensor) -> Tensor:
        """Takes the next frame's detections and remembers them.

        Each detection goes to what fits it best. Of several that want one object, the best gets it; the
        others become new objects. A continued object takes over box and embedding, not the class
        (dossier 7.3).

        Args:
            boxes: (n, 4); labels: (n,) int64; scores: (n,); embeddings: (n, D).

        Returns:
            (n,) int64 ids from 0, unique in the video.
        """
        if not self.ids:
            self.embeddings = embeddings[:0]
            self.boxes, self.labels = boxes[:0], labels[:0]
            new = list(range(len(boxes)))
            result = [-1] * len(boxes)
        else:
            new, result = self._continue(boxes, labels, scores, embeddings)
        self.ages = [age + 1 for age in self.ages]
        for k in {self.ids.index(i) for i in result if i >= 0}:
            self.ages[k] = 0
        for i in new:
            result[i] = self.next_id
            self.ids.append(self.next_id)
            self.ages.append(0)
            self.next_id += 1
        self._add(boxes[new], labels[new], embeddings[new])
        if self.max_age is not None and any(age > self.max_age for age in self.ages):
            self._keep([k for k, age in enumerate(self.ages) if age <= self.max_age])
        return torch.tensor(result, dtype=torch.int64)

    def _continue(
        self, boxes: Tensor, labels: Tensor, scores: Tensor, embeddings: Tensor
    ) -> tuple[list[int], list[int]]:
        """Gives each wanted object to its best claimant.

        Those that fit "new object" best are added before the losers, which come last (dossier 7.3).

        Returns:
            The detections that become new objects, in order, and the ids so far (-1: new).
        """
        totals, columns = self.associate(boxes, labels, scores, embeddings).total.max(1)
        best, choice = totals.tolist(), columns.tolist()
        winner: dict[int, int] = {}
        for i, column in enumerate(choice):
            k = column - 1
            if k >= 0 and best[i] > (best[winner[k]] if k in winner else WORST):
                winner[k] = i
        result = [-1] * len(best)
        self.boxes, self.embeddings = self.boxes.clone(), self.embeddings.clone()
        for k, i in winner.items():
            result[i] = self.ids[k]
            self.boxes[k], self.embeddings[k] = boxes[i], embeddings[i]
        new = [i for i, column in enumerate(choice) if column == 0]
        losers = [i for i, column in enumerate(choice) if column > 0 and result[i] < 0]
        return new + losers, result

    def _add(self, boxes: Tensor, labels: Tensor, embeddings: Tensor) -> None:
        """Remembers new objects behind those in memory."""
        self.boxes = torch.cat([self.boxes, boxes])
        self.labels = torch.cat([self.labels, labels])
        self.embeddings = torch.cat([self.embeddings, embeddings])

    def _keep(self, which: list[int]) -> None:
        """Forgets all objects but those at these places."""
        self.ids, self.ages = [self.ids[k] for k in which], [self.ages[k] for k in which]
        self.boxes, self.labels = self.boxes[which], self.labels[which]
        self.embeddings = self.embeddings[which]
