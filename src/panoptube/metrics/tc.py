"""Temporal consistency (TC): is what was predicted for a frame, moved along, what was predicted for the next?

Liu et al., ECCV 2020; dossier 13.3. No truth is needed, but optical flow, and the value depends on whose: a
result names its flow, and only results with the same flow can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from panoptube.flow.files import FlowField
from panoptube.flow.warp import warp_ids_bilinear, warp_nearest
from panoptube.metrics.printed import Printed
from panoptube.metrics.quality import number, percent, plural
from panoptube.panoptic.frame import VOID


@dataclass(frozen=True)
class TCResult(Printed):
    """Scores as fractions in [0, 1]; nan where nothing was compared.

    Attributes:
        tc: mean over classes of intersection / union over all pairs.
        classes: by class; nan where it never occurs.
        pairs: pairs of frames compared.
        flow: whose flow it was.
        official: made as the published script does.
    """

    tc: float
    classes: tuple[tuple[str, float], ...]
    pairs: int
    flow: str
    official: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None, classes are keyed by name."""
        return {
            "tc": number(self.tc),
            "pairs": self.pairs,
            "flow": self.flow,
            "official": self.official,
            "per_class": {name: number(iou) for name, iou in self.classes},
        }

    def tables(self) -> list[Table]:
        """For a rich console."""
        table = Table(title=f"TC in percent, {plural(self.pairs, 'pair')} of frames; flow: {self.flow}")
        table.add_column("TC", justify="right")
        table.add_row(percent(self.tc))
        return [table]


class TC:
    """Adds up pairs of neighbouring frames; `compute` makes the score.

    Strict: labels are warped to the nearest pixel, and the mean goes over the classes that occur. Official:
    the numbers of the classes are interpolated and cut (see `warp_ids_bilinear`), the last class also
    counts the number after it, and the mean goes over all classes, those that never occur with 0. Pixels
    that are void in the warped map, or whose flow is unknown, are left out; those that are void in the map
    of t alone are not.

    Args:
        names: of the classes 0, 1, ..., fewer than 255.
        flow: whose flow it is.
        official: as the published script.
    """

    def __init__(self, names: Sequence[str], flow: str, official: bool = False) -> None:
        self.names, self.flow, self.official = tuple(names), flow, official
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        self.intersection, self.union, self.target = np.zeros((3, len(self.names)), np.int64)
        self.pairs = 0

    def update(self, labels: NDArray[np.uint8], following: NDArray[np.uint8], flow: FlowField) -> None:
        """Count a pair of frames.

        Args:
            labels, following: (H, W) uint8 predicted classes of frames t and t + 1, 255 = void.
            flow: (H, W, 2) float32 from t to t + 1.

        Raises:
            ValueError: they differ in size.
        """
        if labels.shape != following.shape:
            raise ValueError(f"the frames are {labels.shape} and {following.shape}; they must agree")
        warped = (warp_ids_bilinear if self.official else warp_nearest)(following, flow)
        judged = warped != VOID
        before, after = labels[judged], warped[judged]
        intersection = self._count(before[before == after])
        target = self._count(after)
        self.intersection += intersection
        self.target += target
        self.union += self._count(before) + target - intersection
        self.pairs += 1

    def merge(self, other: TC) -> None:
        """Add what `other` counted.

        Raises:
            ValueError: the two have other classes, flow or mode.
        """
        if (self.names, self.flow, self.official) != (other.names, other.flow, other.official):
            raise ValueError("only metrics of the same classes, flow and mode can be merged")
        self.intersection += other.intersection
        self.union += other.union
        self.target += other.target
        self.pairs += other.pairs

    def compute(self) -> TCResult:
        """The score of all pairs so far."""
        seen = self.union > 0
        ious = np.where(seen, self.intersection / np.maximum(self.union, 1), math.nan)
        if self.official:
            tc = float((self.intersection / (self.union + 1e-10)).mean())
        else:
            tc = float(ious[seen].mean()) if seen.any() else math.nan
        return TCResult(tc, tuple(zip(self.names, ious.tolist())), self.pairs, self.flow, self.official)

    def _count(self, labels: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(C,) int64 pixels by class."""
        classes = len(self.names)
        counts = np.bincount(labels, minlength=256)
        if self.official:
            # The script's last histogram bin is closed on both sides.
            counts[classes - 1] += counts[classes]
        return counts[:classes].astype(np.int64)
