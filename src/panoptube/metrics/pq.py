"""Panoptic quality (PQ) of single frames, and what each frame costs.

Kirillov et al., CVPR 2019: VPQ's matching with windows of one frame (dossier 13.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from panoptube.metrics.printed import Printed
from panoptube.metrics.quality import (
    TubeCounts,
    WindowResult,
    lost_points,
    percent,
    plural,
    window_result,
)
from panoptube.metrics.table import FrameTable, compare_frames
from panoptube.metrics.tubes import count_window
from panoptube.panoptic.frame import PanopticFrame, Taxonomy


@dataclass(frozen=True)
class FramePQ:
    """One frame.

    Attributes:
        name: of the frame.
        tp, fp, fn: matched, surplus and missed segments.
        lost: what it costs PQ, as a fraction; over all frames these add up to 1 - PQ.
    """

    name: str
    tp: int
    fp: int
    fn: int
    lost: float


@dataclass(frozen=True)
class PQResult(Printed):
    """Scores as fractions in [0, 1]; nan where nothing occurred.

    Attributes:
        quality: PQ, SQ and RQ: means over all classes, things, stuff, and by class.
        frames: by frame.
    """

    quality: WindowResult
    frames: tuple[FramePQ, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None, classes are keyed by name."""
        found = self.quality.to_dict()
        return {
            "frames": len(self.frames),
            **{n: found[n] for n in ("all", "things", "stuff", "per_class")},
            "per_frame": {f.name: {"tp": f.tp, "fp": f.fp, "fn": f.fn, "lost": f.lost} for f in self.frames},
        }

    def tables(self) -> list[Table]:
        """For a rich console: means, and by class."""
        table = Table(title=f"PQ in percent, {plural(len(self.frames), 'frame')}")
        table.add_column("class")
        for column in ("PQ", "SQ", "RQ", "TP/FP/FN"):
            table.add_column(column, justify="right")
        q = self.quality
        for name, m in (("all", q.all), ("things", q.things), ("stuff", q.stuff)):
            table.add_row(
                f"{name} ({plural(m.classes, 'class')})", percent(m.pq), percent(m.sq), percent(m.rq), ""
            )
        table.add_section()
        for c in q.classes:
            if c.tp + c.fp + c.fn:
                table.add_row(c.name, percent(c.pq), percent(c.sq), percent(c.rq), f"{c.tp}/{c.fp}/{c.fn}")
        return [table]


class PQ:
    """Adds up segments frame by frame; `compute` makes the scores.

    Frames stand for themselves: their order doesn't matter. Held are the counts of each frame.

    Args:
        taxonomy: the classes of truth and prediction.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        self._frames: list[tuple[str, TubeCounts]] = []

    def update(self, prediction: PanopticFrame, truth: PanopticFrame, name: str | None = None) -> None:
        """Count a frame.

        Raises:
            ValueError: the two differ in size, or don't fit the taxonomy.
        """
        self.update_table(compare_frames(prediction, truth), name)

    def update_table(self, table: FrameTable, name: str | None = None) -> None:
        """Count a frame that `compare_frames` has reduced; None numbers it.

        Raises:
            ValueError: the table doesn't fit the taxonomy.
        """
        table.check(self.taxonomy)
        counts = TubeCounts.zero(len(self.taxonomy))
        count_window(table, self.taxonomy, counts)
        self._frames.append((name or str(len(self._frames)), counts))

    def merge(self, other: PQ) -> None:
        """Add what `other` counted on other frames.

        Raises:
            ValueError: the two count different classes.
        """
        if self.taxonomy != other.taxonomy:
            raise ValueError("only metrics of the same taxonomy can be merged")
        self._frames += other._frames

    def compute(self) -> PQResult:
        """The scores of all frames so far."""
        total = TubeCounts.zero(len(self.taxonomy))
        for _, counts in self._frames:
            total = total + counts
        return pq_result(self._frames, window_result(1, 0, total, self.taxonomy.categories), total)


def pq_result(frames: Sequence[tuple[str, TubeCounts]], quality: WindowResult, total: TubeCounts) -> PQResult:
    """Frames, each with its name and counts, the scores of all, and the sum of the counts."""
    kept = np.ones(len(total.tp), bool)
    scored = tuple(
        FramePQ(name, int(c.tp.sum()), int(c.fp.sum()), int(c.fn.sum()), lost_points(c, total, kept))
        for name, c in frames
    )
    return PQResult(quality, scored)
