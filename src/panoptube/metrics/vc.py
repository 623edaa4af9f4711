"""Video consistency (VC): where the truth's class stays the same over C frames, does the prediction's?

Miao et al., CVPR 2021 (VSPW). VC8 and VC16 are those of C = 8 and 16.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from panoptube.metrics.printed import Printed
from panoptube.metrics.quality import number, percent
from panoptube.panoptic.frame import VOID


@dataclass(frozen=True)
class VCResult(Printed):
    """Scores as fractions in [0, 1]; nan where no clip is long enough.

    Attributes:
        scores: (C, VC, number of windows) for each C.
    """

    scores: tuple[tuple[int, float, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None."""
        return {f"vc{c}": number(score) for c, score, _ in self.scores} | {
            f"windows{c}": windows for c, _, windows in self.scores
        }

    def tables(self) -> list[Table]:
        """For a rich console."""
        table = Table(title="VC in percent")
        for c, _, windows in self.scores:
            table.add_column(f"VC{c} ({windows} windows)", justify="right")
        table.add_row(*(percent(score) for _, score, _ in self.scores))
        return [table]


class VC:
    """Adds up windows of C frames; `compute` makes the scores.

    Feed the frames of a clip in order, then `end_clip`. A window's score is the share of pixels whose
    predicted class doesn't change, among those whose true class doesn't; VC is the mean over windows. Held
    are one count for each pixel and side, not the frames.

    Strict: all T - C + 1 windows of a clip of T frames; pixels that are void in the truth are left out.
    Official, as the published script: without the last window of each clip, void is a class, a window
    without a constant pixel makes everything nan, and the windows of C = 8 stay in the mean of C = 16.

    Args:
        lengths: C, each at least 2.
        official: as the published script.
    """

    def __init__(self, lengths: Sequence[int] = (8, 16), official: bool = False) -> None:
        self.lengths, self.official = tuple(lengths), official
        self.reset()

    def reset(self) -> None:
        """Forget everything that was counted."""
        # By clip, and in a clip by length: the scores of its windows.
        self._clips: list[list[list[float]]] = []
        self._start()

    def _start(self) -> None:
        self._before: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self._same: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
        self._open: list[list[float]] = [[] for _ in self.lengths]
        self._frames = 0

    def update(self, prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Count the next frame of the open clip.

        Args:
            prediction, truth: (H, W) uint8 classes, 255 = void.

        Raises:
            ValueError: the two differ in size, or from the frame before.
        """
        shape = self._before[0].shape if self._before else truth.shape
        if prediction.shape != truth.shape or truth.shape != shape:
            raise ValueError(
                f"frames of a clip must agree: {prediction.shape}, {truth.shape}, before {shape}"
            )
        if self._before is None or self._same is None:
            self._same = np.ones(shape, np.int32), np.ones(shape, np.int32)
        else:
            for now, before, same in zip((prediction, truth), self._before, self._same):
                same += 1
                same[now != before] = 1
        self._before = prediction.copy(), truth.copy()
        self._frames += 1
        stays, constant = self._same
        for length, scores in zip(self.lengths, self._open):
            if self._frames < length:
                continue
            judged = constant >= length
            if not self.official:
                judged &= truth != VOID
            pixels = int(judged.sum())
            if pixels or self.official:
                kept = int((stays[judged] >= length).sum())
                scores.append(kept / pixels if pixels else math.nan)

    def end_clip(self) -> None:
        """The next frame starts a new clip: no window reaches into it. Does nothing if no clip is open."""
        if self._frames:
            self._clips.append([scores[:-1] if self.official else scores for scores in self._open])
            self._start()

    def merge(self, other: VC) -> None:
        """Add what `other` counted on other clips; ends the open clip of both.

        Raises:
            ValueError: the two count other windows, or in the other mode.
        """
        if (self.lengths, self.official) != (other.lengths, other.official):
            raise ValueError("only metrics of the same lengths and mode can be merged")
        self.end_clip()
        other.end_clip()
        self._clips += other._clips

    def compute(self) -> VCResult:
        """The scores of all clips that have ended, and of the open one's windows."""
        clips = [*self._clips, self._open]
        scores: list[tuple[int, float, int]] = []
        pool: list[float] = []
        for i, length in enumerate(self.lengths):
            found = [score for clip in clips for score in clip[i]]
            pool = pool + found if self.official else found
            scores.append((length, float(np.mean(pool)) if pool else math.nan, len(found)))
        return VCResult(tuple(scores))
