"""What the network says of a frame -> the panoptic map (dossier sections 6.2 and 6.3)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panoptube.network.panoptic import panoptic_logits, prune
from panoptube.network.semantic import full_size
from panoptube.network.vpsnet import Detections
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy

CITYSCAPES_PIXELS = 1024 * 2048
"""Of a Cityscapes frame; `legacy` takes `stuff_area` as a share of them, whatever the frame's size."""

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


class Unified(NamedTuple):
    """Class, number of the instance in the frame (from 1) and object value of each pixel; all (H, W)."""

    semantic: NDArray[np.uint8]
    number: NDArray[np.int32]
    object: NDArray[np.int32]


def unify(
    semantic: NDArray[np.int64],
    index: NDArray[np.int64],
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
    last_stuff = taxonomy.num_stuff - 1
    result = Unified(index.astype(np.uint8), np.zeros(index.shape, np.int32), np.zeros(index.shape, np.int32))
    result.semantic[index > last_stuff] = VOID
    if legacy:
        result.object[:] = np.where(index <= last_stuff, index, 0)
    visible = np.unique(index[index > last_stuff])
    for rank, value in enumerate(visible.tolist()):
        channel = value - last_stuff - 1
        where = index == value
        votes = np.bincount(semantic[where], minlength=len(taxonomy))
        majority, own = int(votes.argmax()), int(labels[channel]) + last_stuff
        if majority != own and majority <= last_stuff and votes[majority] / votes.sum() >= 0.5:
            result.semantic[where] = majority
        else:
            result.semantic[where] = own
            result.number[where] = rank + 1
            result.object[where] = ids[rank if legacy else channel] + 1
    if legacy:
        result.object[:] %= BYTES
    for label in range(taxonomy.num_stuff):
        where = result.semantic == label
        if 0 < np.count_nonzero(where) < stuff_area:
            result.semantic[where] = VOID
    return result


def assemble(
    detections: Detections,
    ids: Tensor,
    taxonomy: Taxonomy,
    size: tuple[int, int],
    stuff_area: float,
    legacy: bool,
    number: int = 0,
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
    """
    found = index_map(detections, taxonomy.num_stuff, legacy)
    kept = found.kept.cpu()
    height, width = size
    unified = unify(
        found.semantic[:height, :width].cpu().numpy(),
        found.winner[:height, :width].cpu().numpy(),
        detections.labels.cpu()[kept].numpy(),
        ids[kept].numpy(),
        taxonomy,
        round(stuff_area * (CITYSCAPES_PIXELS if legacy else height * width)),
        legacy,
    )
    things = (unified.semantic >= taxonomy.num_stuff) & (unified.semantic != VOID)
    instance, values = np.where(things, unified.object, 0).astype(np.int32), ids[kept].numpy() + 1
    if legacy:
        instance[things & (instance == 0)] = BYTES + number
        values = np.where(values % BYTES, values % BYTES, BYTES + number)
    present = set(np.unique(instance).tolist())
    # The best last: it is the one that stays where bytes make one id of several.
    pairs = zip(values[::-1].tolist(), detections.scores.cpu()[kept].tolist()[::-1])
    return PanopticFrame(unified.semantic, instance, {i: score for i, score in pairs if i in present})
