"""Runs of equal pixels: a frame has far fewer of them than pixels, so tables are made from them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Runs(NamedTuple):
    """Horizontal runs, in reading order.

    starts: (R,) int64, position of the first pixel in the flattened map.
    lengths: (R,) int64, pixels, at least 1; they add up to H x W.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def find_runs(*maps: NDArray[Any]) -> Runs:
    """The runs over which every map is constant; a run ends with its row.

    Args:
        maps: one or more (H, W) arrays of any dtype.

    Raises:
        ValueError: the maps differ in shape or aren't (H, W).
    """
    shape = maps[0].shape
    if len(shape) != 2 or any(m.shape != shape for m in maps):
        raise ValueError(f"maps must share one (H, W), got {', '.join(str(m.shape) for m in maps)}")
    new = np.ones(shape, bool)
    if new.size:
        new[:, 1:] = maps[0][:, 1:] != maps[0][:, :-1]
        for other in maps[1:]:
            new[:, 1:] |= other[:, 1:] != other[:, :-1]
    starts = np.flatnonzero(new).astype(np.int64, copy=False)
    return Runs(starts, np.diff(starts, append=new.size))
