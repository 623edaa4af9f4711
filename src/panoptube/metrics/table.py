"""What all metrics are made from: one small table of overlaps for each frame.

A frame pair is reduced once to rows of (truth key, prediction key, pixels); VPQ for every window, PQ and STQ
need nothing else, so memory grows with the segments and not with the pixels.
"""

# mypy: disallow-untyped-decorators=False, warn-return-any=False
# (numba is untyped)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs
from panoptube.panoptic.segment_ids import IdMap

VOID_KEY = 0
"""The key of unlabelled pixels."""


def segment_keys(labels: NDArray[np.uint8], tracks: NDArray[np.int32]) -> NDArray[np.int64]:
    """(N,) int64, one number for a segment's (class, id): ``(class + 1) * 2**32 + id``, and 0 for void.

    Args:
        labels: (N,) uint8, position of the class in the taxonomy, 255 = void.
        tracks: (N,) int32, 0 or more; 0 on a thing is crowd. Ignored on void.
    """
    keys = (labels.astype(np.int64) + 1) << 32 | tracks
    keys[labels == VOID] = VOID_KEY
    return keys


def key_labels(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) int64: the classes of keys, -1 for void."""
    return (keys >> 32) - 1


def key_tracks(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) int64: the track ids of keys, 0 for stuff, crowd and void."""
    return keys & 0xFFFFFFFF


@dataclass(frozen=True)
class FrameTable:
    """Overlaps of truth and prediction over one frame, or over several added up.

    Each pair occurs once, in ascending order of (truth, prediction).

    Attributes:
        truth: (P,) int64 keys.
        prediction: (P,) int64 keys.
        pixels: (P,) int64, more than 0.
    """

    truth: NDArray[np.int64]
    prediction: NDArray[np.int64]
    pixels: NDArray[np.int64]

    def check(self, taxonomy: Taxonomy) -> None:
        """Whether both sides fit the taxonomy.

        Raises:
            ValueError: a class that the taxonomy doesn't have, or a track id on stuff.
        """
        for side, keys in (("truth", self.truth), ("prediction", self.prediction)):
            labels, tracks = key_labels(keys), key_tracks(keys)
            if len(keys) and int(labels.max()) >= len(taxonomy):
                raise ValueError(
                    f"the {side} holds class {labels.max()}; "
                    f"{taxonomy.name!r} has 0..{len(taxonomy) - 1} and 255"
                )
            stray = (tracks > 0) & (labels < taxonomy.num_stuff)
            if stray.any():
                label, track = int(labels[stray][0]), int(tracks[stray][0])
                raise ValueError(
                    f"the {side} has track id {track} on {taxonomy.names[label]}; only things have ids"
                )


def add_up(truth: NDArray[np.int64], prediction: NDArray[np.int64], pixels: NDArray[np.int64]) -> FrameTable:
    """The table of rows that may repeat pairs.

    Args:
        truth, prediction: (R,) int64 keys.
        pixels: (R,) int64.
    """
    order = np.lexsort((prediction, truth))
    truth, prediction, pixels = truth[order], prediction[order], pixels[order]
    new = np.ones(len(truth), bool)
    new[1:] = (truth[1:] != truth[:-1]) | (prediction[1:] != prediction[:-1])
    firsts = np.flatnonzero(new)
    sums = np.add.reduceat(pixels, firsts) if len(firsts) else pixels
    return FrameTable(truth[firsts], prediction[firsts], sums)


def compare_frames(prediction: PanopticFrame, truth: PanopticFrame) -> FrameTable:
    """Reduce a frame to its table. The pixels add up to H x W.

    Raises:
        ValueError: the two differ in size.
    """
    if prediction.size != truth.size:
        raise ValueError(f"the prediction is {prediction.size}, the truth {truth.size}; they must agree")
    starts, lengths = find_runs(truth.semantic, truth.instance, prediction.semantic, prediction.instance)
    truth_keys, prediction_keys = (
        segment_keys(f.semantic.reshape(-1)[starts], f.instance.reshape(-1)[starts])
        for f in (truth, prediction)
    )
    return add_up(truth_keys, prediction_keys, lengths)


def compare_ids(prediction: IdMap, truth: IdMap) -> FrameTable:
    """Reduce two id maps to the table of their ids, which stand in it in place of keys.

    Args:
        prediction, truth: (H, W) uint32, ids below 2**24.

    Raises:
        ValueError: the two differ in size.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"the prediction is {prediction.shape}, the truth {truth.shape}; they must agree")
    pairs, pixels = _count_pairs(truth.reshape(-1), prediction.reshape(-1))
    order = np.argsort(pairs)
    pairs = pairs[order]
    return FrameTable(pairs >> 32, pairs & 0xFFFFFFFF, pixels[order])


@njit(nogil=True, cache=True)
def _count_pairs(
    first: NDArray[np.uint32], second: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(P,) int64 `first << 32 | second` for each pair that occurs, and how often it does; in no order.

    A hash table with open addressing, asked once for each run of equal pairs.
    """
    size = 1024
    keys, counts = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    used = start = 0
    for i in range(1, len(first) + 1):
        if i < len(first) and first[i] == first[i - 1] and second[i] == second[i - 1]:
            continue
        key = np.int64(first[i - 1]) << 32 | np.int64(second[i - 1])
        slot = _slot(keys, key)
        if keys[slot] < 0:
            keys[slot] = key
            used += 1
        counts[slot] += i - start
        start = i
        if 2 * used > size:
            size *= 4
            old_keys, old_counts = keys, counts
            keys, counts = np.full(size, -1, np.int64), np.zeros(size, np.int64)
            for old in np.flatnonzero(old_keys >= 0):
                slot = _slot(keys, old_keys[old])
                keys[slot], counts[slot] = old_keys[old], old_counts[old]
    found = np.flatnonzero(keys >= 0)
    return keys[found], counts[found]


@njit(nogil=True, cache=True)
def _slot(keys: NDArray[np.int64], key: int) -> int:
    """Where `key` is, or the free place that it belongs in. The length of `keys` is a power of two."""
    mixed = key ^ (key >> 29)
    mixed = (mixed * 0x2545F4914F6CDD1D) & 0x7FFFFFFFFFFFFFFF
    slot = (mixed >> 20) & (len(keys) - 1)
    while keys[slot] != -1 and keys[slot] != key:
        slot = (slot + 1) & (len(keys) - 1)
    return slot


def join_tables(tables: Sequence[FrameTable]) -> FrameTable:
    """The overlaps of tubes over several frames: the tables of the frames, added up."""
    if len(tables) == 1:
        return tables[0]
    return add_up(
        np.concatenate([t.truth for t in tables]),
        np.concatenate([t.prediction for t in tables]),
        np.concatenate([t.pixels for t in tables]),
    )
