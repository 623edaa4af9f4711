"""Copy and paste: things of one pair of frames laid over another pair, with their masks, ids and motion.

As in Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR
2021, but for two frames at once: a thing keeps its own motion. h, w: size of the training crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Image
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy

LARGEST = 0.25
"""A thing that covers more of a crop isn't pasted: it would hide everything."""
REMAINDER = 0.1
"""A thing of which less than this is left visible becomes void: nobody could tell what it is."""


@dataclass(frozen=True)
class Window:
    """Target and reference frame of a pair, cut to the training crop, before colours change.

    Attributes:
        crops: (<= h, <= w, 3) uint8 RGB each, without padding, which is at the bottom and on the right.
        truths: (h, w) each, void in the padding.
        flows: none; or from target to reference; or that and back: (2, h, w) float32 pixels each.
    """

    crops: tuple[Image, Image]
    truths: tuple[PanopticFrame, PanopticFrame]
    flows: tuple[NDArray[np.float32], ...] = ()


def paste(window: Window, donor: Window, taxonomy: Taxonomy, rng: np.random.Generator) -> Window:
    """Lays a random half of the donor's things over the window, where they are in the donor.

    Ids of pasted things are above those of the window. Crowd isn't pasted. The flow of pasted pixels is the
    donor's.

    Args:
        window, donor: of one size, with as many flows.
        taxonomy: of both.
        rng: draws which things.
    """
    keys = [_thing_keys(truth, taxonomy) for truth in donor.truths]
    candidates = np.unique(np.concatenate([k[k > 0] for k in keys]))
    candidates = candidates[rng.random(len(candidates)) < 0.5]
    chosen = [c for c in candidates if all((k == c).mean() <= LARGEST for k in keys)]
    if not chosen:
        return window
    first_id = 1 + max(int(truth.instance.max()) for truth in window.truths)
    crops: list[Image] = []
    truths: list[PanopticFrame] = []
    masks: list[NDArray[np.bool_]] = []
    for crop, other, truth, other_truth, other_keys in zip(
        window.crops, donor.crops, window.truths, donor.truths, keys
    ):
        mask = np.isin(other_keys, chosen)
        mask[crop.shape[0] :], mask[:, crop.shape[1] :] = False, False
        crop = crop.copy()
        height, width = min(crop.shape[0], other.shape[0]), min(crop.shape[1], other.shape[1])
        on = mask[:height, :width]
        crop[:height, :width][on] = other[:height, :width][on]
        semantic, instance = truth.semantic.copy(), truth.instance.copy()
        _clear_remainders(semantic, instance, _thing_keys(truth, taxonomy), mask)
        semantic[mask] = other_truth.semantic[mask]
        instance[mask] = first_id + np.searchsorted(chosen, other_keys[mask])
        crops.append(crop)
        truths.append(PanopticFrame(semantic, instance))
        masks.append(mask)
    flows = tuple(np.where(mask, theirs, own) for mask, theirs, own in zip(masks, donor.flows, window.flows))
    return Window((crops[0], crops[1]), (truths[0], truths[1]), flows)


def _thing_keys(frame: PanopticFrame, taxonomy: Taxonomy) -> NDArray[np.int64]:
    """(h, w) int64: class and id of things in one number, 0 elsewhere and for crowd."""
    thing = (frame.semantic >= taxonomy.num_stuff) & (frame.semantic != VOID) & (frame.instance > 0)
    return np.where(thing, frame.semantic.astype(np.int64) << 32 | frame.instance, 0)


def _clear_remainders(
    semantic: NDArray[np.uint8],
    instance: NDArray[np.int32],
    keys: NDArray[np.int64],
    mask: NDArray[np.bool_],
) -> None:
    """Makes void, in place, what `mask` leaves of things that it nearly hides."""
    covered, hidden = np.unique(keys[mask], return_counts=True)
    for key, pixels in zip(covered.tolist(), hidden.tolist()):
        if key:
            whole = keys == key
            total = int(whole.sum())
            if total - pixels < REMAINDER * total:
                semantic[whole], instance[whole] = VOID, 0
