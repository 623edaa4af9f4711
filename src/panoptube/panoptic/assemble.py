"""What the network says of a frame -> the panoptic map (dossier sections 6.2 and 6.3).

`index_map` is the plain way: a full-size channel for every class and instance, and their maximum. With
`legacy` there is no other, since an instance can win anywhere. Else `winners` finds the same on the CPU a row
at a time: channels are enlarged and compared while they are in the cache, and instances only where they lie.
"""

# mypy: disallow-untyped-decorators=False, warn-return-any=False
# (numba is untyped)

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from panoptube.network.panoptic import panoptic_logits, prune, uncovered
from panoptube.network.semantic import full_size
from panoptube.network.vpsnet import Detections
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy

CITYSCAPES_PIXELS = 1024 * 2048
"""Of a Cityscapes frame; `legacy` takes `stuff_area` as a share of them, whatever the frame's size."""

AROUND = 1 / 4
"""Share of the frame's height and width over which `void_below` looks at probabilities."""

BYTES = 256
"""With `legacy`, object values are below this."""


class IndexMap(NamedTuple):
    """Which channel wins each pixel.

    Attributes:
        semantic: (H, W) int64, most probable class.
        winner: (H, W) int64, stuff class, or num_stuff + position in `kept`.
        kept: (k,) int64, detections that have a channel, by falling score.
        logits: (num_stuff + k, H, W).
    """

    semantic: Tensor
    winner: Tensor
    kept: Tensor
    logits: Tensor


@torch.no_grad()
def index_map(detections: Detections, num_stuff: int, legacy: bool) -> IndexMap:
    """Panoptic logits of the detections that better ones don't cover, and their maximum (dossier 6.2).

    The published maxima are those of the softmax (`legacy`), in which the best may tie with others.
    """
    semantic = full_size(detections.semantic[None])[0]
    size = (semantic.shape[1], semantic.shape[2])
    d = detections
    kept, empty = prune(d.masks, d.boxes, d.labels, d.scores, size, legacy)
    masks = d.masks[kept] * (0 if empty else 1)
    logits = panoptic_logits(semantic, masks, d.boxes[kept], d.labels[kept], num_stuff, legacy)
    if legacy:
        return IndexMap(semantic.softmax(0).argmax(0), logits.softmax(0).argmax(0), kept, logits)
    return IndexMap(semantic.argmax(0), logits.argmax(0), kept, logits)


class Winners(NamedTuple):
    """What of an `IndexMap` the labelled frame is made of.

    Attributes:
        semantic: (H, W) uint8, most probable class.
        winner: (H, W) int32, stuff class, or num_stuff + position in `kept`.
        kept: k positions of the detections that have a channel, by falling score.
    """

    semantic: NDArray[np.uint8]
    winner: NDArray[np.int32]
    kept: list[int]


@torch.no_grad()
def winners(detections: Detections, num_stuff: int, size: tuple[int, int]) -> Winners:
    """The maxima of `index_map` without `legacy`, cut to `size`, from no map larger than one channel.

    Where two logits differ by less than rounding does, the other one may win.
    """
    logits = np.ascontiguousarray(detections.semantic.cpu().numpy(), np.float32)
    padded = (4 * logits.shape[1], 4 * logits.shape[2])
    d = detections
    kept = uncovered(d.masks, d.boxes, d.labels, d.scores, padded)
    semantic, winner = np.empty(size, np.uint8), np.empty(size, np.int32)
    best = np.empty(size, np.float32)
    _enlarged_maxima(logits, num_stuff, semantic, winner, best)
    labels = d.labels.tolist()
    for channel, window in enumerate(kept, num_stuff):
        of_class = logits[num_stuff + labels[window.detection] - 1]
        _compare(of_class, window.logits, window.x, window.y, channel, winner, best)
    return Winners(semantic, winner, [window.detection for window in kept])


@njit(nogil=True, cache=True)
def _source(place: int, length: int) -> tuple[int, int, float]:
    """What pixel `place` of a line enlarged four times is made of: two of `length` pixels, and the share
    of the second."""
    position = min(max(np.float32(place) / np.float32(4) - np.float32(0.375), np.float32(0)), length - 1)
    first = int(position)
    return first, min(first + 1, length - 1), np.float32(position - first)


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _enlarged_maxima(
    logits: NDArray[np.float32],
    num_stuff: int,
    semantic: NDArray[np.uint8],
    winner: NDArray[np.int32],
    best: NDArray[np.float32],
) -> None:
    """Best of all classes, best of the stuff classes and its logit, enlarged four times, first of equal ones.

    logits (C, h, w); semantic, winner, best (H, W), written, H <= 4 h, W <= 4 w.
    """
    classes, height, width = logits.shape
    # A line with its ends repeated; then by place within four pixels, so that neighbours lie side by side.
    line = np.empty(width + 2, np.float32)
    top, which = np.empty((4, width), np.float32), np.empty((4, width), np.int32)
    stuff_top, stuff_which = np.empty((4, width), np.float32), np.empty((4, width), np.int32)
    for y in range(semantic.shape[0]):
        above, below, share = _source(y, height)
        for c in range(classes):
            upper, lower = logits[c, above], logits[c, below]
            for x in range(width):
                line[x + 1] = upper[x] * (np.float32(1) - share) + lower[x] * share
            line[0], line[width + 1] = line[1], line[width]
            for phase in range(4):
                first = 0 if phase < 2 else 1
                right = np.float32(0.625 + 0.25 * phase - (0 if phase < 2 else 1))
                left = np.float32(1) - right
                row, classes_of = top[phase], which[phase]
                if c == 0:
                    for x in range(width):
                        row[x] = line[x + first] * left + line[x + first + 1] * right
                        classes_of[x] = 0
                else:
                    for x in range(width):
                        value = line[x + first] * left + line[x + first + 1] * right
                        larger = value > row[x]
                        row[x] = value if larger else row[x]
                        classes_of[x] = c if larger else classes_of[x]
            if c == num_stuff - 1:
                stuff_top[:], stuff_which[:] = top, which
        for x in range(semantic.shape[1]):
            semantic[y, x] = which[x % 4, x // 4]
            winner[y, x] = stuff_which[x % 4, x // 4]
            best[y, x] = stuff_top[x % 4, x // 4]


@njit(nogil=True, cache=True, fastmath={"contract", "nsz"})
def _compare(
    of_class: NDArray[np.float32],
    mask: NDArray[np.float32],
    left: int,
    top: int,
    channel: int,
    winner: NDArray[np.int32],
    best: NDArray[np.float32],
) -> None:
    """Gives an instance the pixels where its logits beat the best so far.

    of_class (h, w) logits of its class; mask (a, b), whose corner is at (left, top); winner, best (H, W),
    changed.
    """
    height, width = of_class.shape
    line = np.empty(width, np.float32)
    for y in range(top, min(top + mask.shape[0], winner.shape[0])):
        above, below, share = _source(y, height)
        end = min(left + mask.shape[1], winner.shape[1])
        for x in range(left // 4 - 1 if left >= 4 else 0, min(end // 4 + 2, width)):
            line[x] = of_class[above, x] * (np.float32(1) - share) + of_class[below, x] * share
        for x in range(left, end):
            before, after, right = _source(x, width)
            value = line[before] * (np.float32(1) - right) + line[after] * right + mask[y - top, x - left]
            if value > best[y, x]:
                best[y, x] = value
                winner[y, x] = channel


class Unified(NamedTuple):
    """Class, number of the instance in the frame (from 1) and object value of each pixel; all (H, W)."""

    semantic: NDArray[np.uint8]
    number: NDArray[np.int32]
    object: NDArray[np.int32]


def unify(
    semantic: NDArray[np.integer[Any]],
    index: NDArray[np.integer[Any]],
    labels: NDArray[np.int64],
    ids: NDArray[np.int64],
    taxonomy: Taxonomy,
    stuff_area: int,
    legacy: bool,
) -> Unified:
    """Settles where the two maps disagree, and writes the ids (dossier 6.3).

    An instance becomes stuff where one stuff class has at least half of its pixels in the semantic map.

    Args:
        semantic: (H, W) most probable class.
        index: (H, W) stuff class, or num_stuff + channel.
        labels: (k,) class 1..K of each channel.
        ids: (k,) object id >= 0 of each channel.
        taxonomy: of the classes.
        stuff_area: stuff with fewer pixels becomes void.
        legacy: the id is looked up by the rank among the instances that own a pixel (dossier H1), object
            values are bytes (D9), and those of stuff are the class.

    Returns:
        Object value: id + 1 on things, 0 on stuff.
    """
    num_stuff, channels = taxonomy.num_stuff, taxonomy.num_stuff + len(labels)
    cells = index.astype(np.intp) * len(taxonomy)
    cells += semantic
    votes = np.bincount(cells.ravel(), minlength=channels * len(taxonomy)).reshape(channels, -1)
    pixels = votes.sum(1)
    # What becomes of each channel; the maps are then looked up.
    classes, numbers, objects = (
        np.arange(channels),
        np.zeros(channels, np.int32),
        np.zeros(channels, np.int32),
    )
    if legacy:
        objects[:num_stuff] = range(num_stuff)
    visible = [v for v in range(num_stuff, channels) if pixels[v]]
    for rank, value in enumerate(visible):
        channel = value - num_stuff
        majority, own = int(votes[value].argmax()), int(labels[channel]) + num_stuff - 1
        if majority != own and majority < num_stuff and votes[value, majority] / pixels[value] >= 0.5:
            classes[value] = majority
        else:
            classes[value] = own
            numbers[value] = rank + 1
            objects[value] = ids[rank if legacy else channel] + 1
    if legacy:
        objects %= BYTES
    for label in range(num_stuff):
        if 0 < pixels[classes == label].sum() < stuff_area:
            classes[classes == label] = VOID
    return Unified(classes.astype(np.uint8)[index], numbers[index], objects[index])


def _probability(semantic: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """(C, H / 4, W / 4) logits -> (H, W), mean probability of the best class around each pixel.

    Borders between two classes are never sure, and a network is sure of some pixels of anything. What it
    doesn't know shows in a whole part of the frame.
    """
    best = semantic.float().softmax(0).amax(0).cpu().numpy()
    height, width = max(round(AROUND * best.shape[0]), 1), max(round(AROUND * best.shape[1]), 1)
    best = cv2.blur(best, (width, height), borderType=cv2.BORDER_REFLECT)
    full = cv2.resize(best, (4 * best.shape[1], 4 * best.shape[0]), interpolation=cv2.INTER_LINEAR)
    return full[: size[0], : size[1]]


def _unsure(probability: NDArray[np.float32], number: NDArray[np.int32], below: float) -> NDArray[np.bool_]:
    """(H, W) each: of stuff, whose number is 0, pixel by pixel; of an object all or nothing, by its mean."""
    pixels = np.flatnonzero(number)
    of_pixel = number.ravel()[pixels]
    sums = np.bincount(of_pixel, probability.ravel()[pixels])
    unsure: NDArray[np.bool_] = probability < below
    unsure.flat[pixels] = (sums < below * np.bincount(of_pixel))[of_pixel]
    return unsure


def assemble(
    detections: Detections,
    ids: Tensor,
    taxonomy: Taxonomy,
    size: tuple[int, int],
    stuff_area: float,
    legacy: bool,
    number: int = 0,
    void_below: float = 0.0,
) -> PanopticFrame:
    """The labelled frame.

    With `legacy`, a thing's object value 0 gets the id 256 + `number`, which no other frame has: the
    published files give it a new colour in each.

    Args:
        detections: of the frame.
        ids: (n,) int64 >= 0 of every detection, from the tracker.
        taxonomy: of the classes.
        size: height, width without padding; the map is cut to it.
        stuff_area: stuff that covers a smaller share of the frame becomes void, with `legacy` of a frame of
            Cityscapes.
        legacy: as published, defects included.
        number: of the frame in its video, from 0.
        void_below: stuff becomes void where the probability of the best class, averaged over what is `AROUND`
            it, is smaller, and an object where it is on average over the object; not with `legacy`.
    """
    height, width = size
    semantic: NDArray[np.integer[Any]]
    winner: NDArray[np.integer[Any]]
    if legacy or detections.semantic.device.type != "cpu":
        found = index_map(detections, taxonomy.num_stuff, legacy)
        semantic = found.semantic[:height, :width].cpu().numpy()
        winner = found.winner[:height, :width].cpu().numpy()
        kept = found.kept.tolist()
    else:
        semantic, winner, kept = winners(detections, taxonomy.num_stuff, size)
    labels, ids_of = detections.labels.cpu()[kept].numpy(), ids[kept].numpy()
    area = round(stuff_area * (CITYSCAPES_PIXELS if legacy else height * width))
    unified = unify(semantic, winner, labels, ids_of, taxonomy, area, legacy)
    instance, values = unified.object, ids_of + 1
    if legacy:
        things = (unified.semantic >= taxonomy.num_stuff) & (unified.semantic != VOID)
        instance = np.where(things, instance, 0).astype(np.int32)
        instance[things & (instance == 0)] = BYTES + number
        values = np.where(values % BYTES, values % BYTES, BYTES + number)
    elif void_below > 0:
        unsure = _unsure(_probability(detections.semantic, size), unified.number, void_below)
        unified.semantic[unsure] = VOID
        instance[unsure] = 0
        counts = np.bincount(unified.semantic.ravel(), minlength=taxonomy.num_stuff)[: taxonomy.num_stuff]
        left = np.append(np.arange(255), VOID).astype(np.uint8)
        left[: taxonomy.num_stuff][counts < area] = VOID
        unified.semantic[:] = left[unified.semantic]
    frame = PanopticFrame(unified.semantic, instance)
    present = set(frame.tracks())
    # The best last: it is the one that stays where bytes make one id of several.
    pairs = zip(values[::-1].tolist(), detections.scores.cpu()[kept].tolist()[::-1])
    return replace(frame, scores={i: score for i, score in pairs if i in present})
