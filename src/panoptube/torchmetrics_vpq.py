"""VPQ as a torchmetrics metric: a thin adapter, for training loops that know no other kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from panoptube.metrics.protocol import CITYSCAPES_VPS, Protocol
from panoptube.metrics.quality import TubeCounts, window_result
from panoptube.metrics.vpq import VPQ
from panoptube.panoptic.frame import PanopticFrame, Taxonomy


class VideoPanopticQuality(Metric):
    """VPQ of whole clips, each given in one `update`.

    Between processes the counts are summed, so that the result is that of all clips of all processes.

    Args:
        taxonomy: the C classes of predictions and truths.
        protocol: window lengths, and what is left out.
        kwargs: of torchmetrics' Metric.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    iou: Tensor
    events: Tensor

    def __init__(self, taxonomy: Taxonomy, protocol: Protocol = CITYSCAPES_VPS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.taxonomy, self.protocol = taxonomy, protocol
        shape = len(protocol.windows), len(taxonomy)
        # By window length and class; `events` are TP, FP and FN.
        self.add_state("iou", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("events", torch.zeros((3, *shape), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor) -> None:
        """Count a clip.

        Args:
            prediction, truth: (T, H, W, 2) of integers for the T frames with truth: class (255 = void) and
            track
                id (0 for stuff and crowd).

        Raises:
            ValueError: shapes differ or aren't these, or a class or id doesn't fit the taxonomy.
        """
        if prediction.shape != truth.shape or truth.ndim != 4 or truth.shape[-1] != 2:
            raise ValueError(
                f"prediction and truth must be (T, H, W, 2), got {tuple(prediction.shape)} "
                f"and {tuple(truth.shape)}"
            )
        metric = VPQ(self.taxonomy, self.protocol)
        for predicted, expected in zip(prediction.cpu().numpy(), truth.cpu().numpy()):
            metric.update(*(_frame(maps) for maps in (predicted, expected)))
        metric.end_clip()
        for i, counts in enumerate(metric.counts()):
            self.iou[i] += torch.from_numpy(counts.iou).to(self.iou.device)
            events = torch.from_numpy(np.stack([counts.tp, counts.fp, counts.fn]))
            self.events[:, i] += events.to(self.events.device)

    def compute(self) -> dict[str, Tensor]:
        """`vpq`, `vpq_things` and `vpq_stuff`: means over the window lengths, as fractions, () float64."""
        categories, excluded = self.taxonomy.categories, self.protocol.excluded
        windows = []
        for i, n in enumerate(self.protocol.windows):
            counts = TubeCounts(self.iou[i].cpu().numpy(), *self.events[:, i].cpu().numpy())
            windows.append(window_result(n, self.protocol.k(n), counts, categories, excluded))
        groups = {
            "vpq": [w.all.pq for w in windows],
            "vpq_things": [w.things.pq for w in windows],
            "vpq_stuff": [w.stuff.pq for w in windows],
        }
        return {name: torch.tensor(pqs, dtype=torch.float64).mean() for name, pqs in groups.items()}


def _frame(maps: np.ndarray[Any, Any]) -> PanopticFrame:
    """(H, W, 2) of integers as a frame."""
    labels = maps[..., 0]
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < 256:
        raise ValueError(f"classes must be in 0..255, got {labels.min()}..{labels.max()}")
    return PanopticFrame(labels.astype(np.uint8), maps[..., 1].astype(np.int32))
