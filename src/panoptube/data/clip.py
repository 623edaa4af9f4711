"""A clip: frames with truth, the one interface that every dataset reader returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from panoptube.panoptic.frame import PanopticFrame, Taxonomy

Image = NDArray[np.uint8]
"""(H, W, 3) uint8, RGB."""


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one video, read when asked for, with truth where there is some.

    Attributes:
        name: unique in its dataset.
        taxonomy: what the truth's classes mean.
        size: (height, width) in pixels, of every frame.
        fps: frames per second.
        length: number of frames.
        labelled: indices of the frames that have truth, ascending.
        read_image: index -> (H, W, 3) uint8 RGB.
        read_truth: index in `labelled` -> PanopticFrame.
        read_flow: (t, u) -> (H, W, 2) float32 in pixels, x first: pixel p of frame t is at p + flow(p) in
            frame u. None where the dataset has no flow.

    Raises:
        ValueError: no frames, or a labelled frame outside the clip or out of order.
    """

    name: str
    taxonomy: Taxonomy
    size: tuple[int, int]
    fps: float
    length: int
    labelled: tuple[int, ...]
    read_image: Callable[[int], Image]
    read_truth: Callable[[int], PanopticFrame]
    read_flow: Callable[[int, int], NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"clip {self.name!r} has no frames")
        if list(self.labelled) != sorted(set(self.labelled)) or not all(
            0 <= t < self.length for t in self.labelled
        ):
            raise ValueError(
                f"clip {self.name!r}: labelled frames must ascend within 0..{self.length - 1}, "
                f"got {self.labelled}"
            )

    def __len__(self) -> int:
        return self.length

    def image(self, t: int) -> Image:
        """Frame `t`, (H, W, 3) uint8 RGB.

        Raises:
            IndexError: the clip has no such frame.
            ValueError: the frame has another size or type than the clip says.
        """
        self._inside(t)
        image = self.read_image(t)
        if image.shape != (*self.size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"clip {self.name!r}, frame {t}: expected {(*self.size, 3)} uint8, "
                f"got {image.shape} {image.dtype}"
            )
        return image

    def truth(self, t: int) -> PanopticFrame | None:
        """Truth of frame `t`, or None where it has none.

        Raises:
            IndexError: the clip has no such frame.
            ValueError: the truth has another size than the clip, or classes that the taxonomy lacks.
        """
        self._inside(t)
        if t not in self.labelled:
            return None
        truth = self.read_truth(t)
        if truth.size != self.size:
            raise ValueError(
                f"clip {self.name!r}, truth of frame {t}: size {truth.size}, the clip has {self.size}"
            )
        try:
            truth.check(self.taxonomy)
        except ValueError as error:
            raise ValueError(f"clip {self.name!r}, truth of frame {t}: {error}") from error
        return truth

    def _inside(self, t: int) -> None:
        if not 0 <= t < self.length:
            raise IndexError(f"clip {self.name!r} has frames 0..{self.length - 1}, not {t}")
