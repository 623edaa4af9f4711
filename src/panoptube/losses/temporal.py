"""The terms of SiamTrack over a trained pair: which segments both frames show, and what is compared of them.

Channel i of a frame's panoptic logits is a stuff class or one of that frame's own things, so channels are
gathered before anything is compared across frames (dossier 9.3). S: stuff classes, N: common segments; maps
are a quarter of the input's size, (h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from panoptube.config import LossConfig, SiameseConfig
from panoptube.data.pairs import FrameTargets
from panoptube.data.transforms import MEAN, STD
from panoptube.flow.flownet2 import flow_quarter
from panoptube.losses.segment import contrastive_loss
from panoptube.losses.tube import tube_matching_loss
from panoptube.losses.warp import occlusion_map, warp_bilinear, warping_loss
from panoptube.network.panoptic import OUTSIDE
from panoptube.network.projection import mask_pool
from panoptube.network.vpsnet import FrameTraining
from panoptube.panoptic.frame import VOID


@dataclass(frozen=True)
class Common:
    """What both frames of a pair show: at least so many pixels of it at a quarter of the size (S9).

    Attributes:
        stuff: (n,) int64 stuff classes, ascending.
        classes: (m,) int64 classes, stuff and things, ascending; crowd counts.
        things: (2, k) int64, a thing's index in the truth of the target and of the reference frame.
    """

    stuff: Tensor
    classes: Tensor
    things: Tensor


def common_segments(
    frames: Sequence[FrameTraining], truths: Sequence[FrameTargets], num_stuff: int, least: int = 1
) -> Common:
    """Of the target and the reference frame, in this order; things are the same if class and track id are."""
    shown = [
        _counts(frame.panoptic_target, num_stuff + len(truth.labels)) >= least
        for frame, truth in zip(frames, truths)
    ]
    semantic = [_counts(truth.semantic[::4, ::4], VOID) >= least for truth in truths]
    a, b = truths
    same = (a.track_ids[:, None] == b.track_ids) & (a.labels[:, None] == b.labels)
    same &= shown[0][num_stuff:, None] & shown[1][num_stuff:]
    return Common(
        stuff=torch.nonzero(shown[0][:num_stuff] & shown[1][:num_stuff])[:, 0],
        classes=torch.nonzero(semantic[0] & semantic[1])[:, 0],
        things=torch.nonzero(same).T,
    )


def _counts(labels: Tensor, length: int) -> Tensor:
    """(length,) pixels of each label below `length`."""
    return torch.bincount(labels[labels < length], minlength=length)


def temporal(
    frames: Sequence[FrameTraining],
    truths: Sequence[FrameTargets],
    embeddings: Tensor | None,
    images: Tensor,
    flow: Tensor | None,
    backward_flow: Tensor | None,
    num_stuff: int,
    weights: LossConfig,
    options: SiameseConfig,
) -> dict[str, Tensor]:
    """Weighted terms of one pair, each (), by their names in `LossConfig`; those without weight are left out.

    Args:
        frames, truths: of the target and the reference frame.
        embeddings: (2, D, h, w) of the projection head; None if no term needs them.
        images: (2, 3, H, W) normalised RGB.
        flow: (2, H, W) from target to reference, nan where unknown; None if no term needs it.
        backward_flow: the same back, for `options.warp_directions` "both".
        num_stuff: S.
        weights: of the terms.
        options: the choices of dossier 9.4.
    """
    common = common_segments(frames, truths, num_stuff, options.least_pixels)
    terms: dict[str, Tensor] = {}
    if weights.contrast_classes > 0:
        assert embeddings is not None
        masks = [_class_masks(truth, common.classes, options.pooling) for truth in truths]
        terms["contrast_classes"] = _contrast(embeddings, masks, options)
    if weights.contrast_instances > 0:
        assert embeddings is not None
        masks = [
            _thing_masks(frames[i], truths[i], common.things[i], num_stuff, options.pooling) for i in (0, 1)
        ]
        if options.instance_graph == "segments":
            stuff = [_class_masks(truth, common.stuff, options.pooling) for truth in truths]
            masks = [torch.cat(both) for both in zip(stuff, masks)]
        terms["contrast_instances"] = _contrast(embeddings, masks, options)
    if weights.warp > 0:
        assert flow is not None
        logits = [_compared_logits(frames[i], common.things[i], num_stuff, options) for i in (0, 1)]
        terms["warp"] = _warp(logits, images, flow, options)
        if backward_flow is not None:
            back = _warp(logits[::-1], images.flip(0), backward_flow, options)
            terms["warp"] = (terms["warp"] + back) / 2
    if weights.tube > 0:
        terms["tube"] = _tubes(frames, common, num_stuff, options)
    return {name: term * getattr(weights, name) for name, term in terms.items()}


def _class_masks(truth: FrameTargets, classes: Tensor, pooling: str) -> Tensor:
    """(N, h, w) float32 masks of classes, things merged."""
    if pooling == "subsample":
        return (truth.semantic[::4, ::4] == classes[:, None, None]).float()
    return _area(truth.semantic == classes[:, None, None])


def _thing_masks(
    frame: FrameTraining, truth: FrameTargets, things: Tensor, num_stuff: int, pooling: str
) -> Tensor:
    """(N, h, w) float32 masks of things, as the panoptic target has them."""
    if pooling == "subsample":
        return (frame.panoptic_target == (num_stuff + things)[:, None, None]).float()
    return _area(truth.masks[things])


def _area(masks: Tensor) -> Tensor:
    """(N, H, W) -> (N, h, w): the share of 4x4 pixels."""
    return F.avg_pool2d(masks.float()[:, None], 4)[:, 0]


def _contrast(embeddings: Tensor, masks: Sequence[Tensor], options: SiameseConfig) -> Tensor:
    """Eqs. 2 and 3 over one graph, whose nodes are the rows of both masks."""
    pooled = [mask_pool(e, m, options.renormalize) for e, m in zip(embeddings, masks)]
    return contrastive_loss(pooled[0], pooled[1], options.temperature, options.denominator)


def _compared_logits(frame: FrameTraining, things: Tensor, num_stuff: int, options: SiameseConfig) -> Tensor:
    """Channels of Eq. 4: all stuff, then the common things (S16).

    Outside its box a thing's logit stands for "never", not for a degree. Where one frame's box ends and the
    other's goes on, the difference would drown all others, so it counts as 0, as in the published network.
    """
    logits = frame.panoptic.float()
    if options.warp_channels == "stuff":
        return logits[:num_stuff]
    if options.warp_channels == "probabilities":
        logits = logits.softmax(0)
    inside = logits[num_stuff + things]
    return torch.cat([logits[:num_stuff], torch.where(inside > OUTSIDE / 2, inside, 0.0)])


def _warp(logits: Sequence[Tensor], images: Tensor, flow: Tensor, options: SiameseConfig) -> Tensor:
    """Eq. 4, flow and occlusion brought to the size of the logits."""
    known = flow.isfinite().all(0)
    flow = flow.nan_to_num()
    image, other = images_of(images, options.occlusion_range)
    seen = occlusion_map(image, warp_bilinear(other, flow), options.alpha, options.occlusion_norm) * known
    if options.warp_border == "exclude":
        seen = seen * _lands_inside(flow)
    quarter = F.interpolate(seen[None, None], scale_factor=0.25, mode="bilinear", align_corners=False)[0, 0]
    reference = logits[1].detach() if options.warp_stop else logits[1]
    return warping_loss(
        logits[0], reference, flow_quarter(flow[None])[0], quarter, options.warp_norm, options.warp_mean
    )


def images_of(images: Tensor, occlusion_range: str) -> Tensor:
    """Normalised images (..., 3, H, W) in the range that the occlusion map takes (S11)."""
    if occlusion_range == "normalised":
        return images
    colours = denormalize(images)
    return colours / 255 if occlusion_range == "unit" else colours


def denormalize(images: Tensor) -> Tensor:
    """Normalised images (..., 3, H, W) -> RGB, 0 to 255."""
    mean, std = (torch.from_numpy(x).to(images)[:, None, None] for x in (MEAN, STD))
    return images * std + mean


def _lands_inside(flow: Tensor) -> Tensor:
    """(H, W) bool: places whose flow (2, H, W) doesn't leave the frame."""
    height, width = flow.shape[1:]
    x = torch.arange(width, device=flow.device) + flow[0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _tubes(frames: Sequence[FrameTraining], common: Common, num_stuff: int, options: SiameseConfig) -> Tensor:
    """Eqs. 5 to 7 over the common segments."""
    predicted, truth, valid = [], [], []
    for frame, things in zip(frames, common.things):
        stuff = common.stuff[:0] if options.tube_segments == "things" else common.stuff
        channels = torch.cat([stuff, num_stuff + things])
        logits = frame.panoptic.float()
        if options.tube_softmax == "all":
            predicted.append(logits.softmax(0)[channels])
        else:
            predicted.append(logits[channels].softmax(0))
        truth.append(frame.panoptic_target == channels[:, None, None])
        valid.append(frame.panoptic_target != VOID)
    return tube_matching_loss(
        torch.stack(predicted),
        torch.stack(truth),
        None if options.tube_void else torch.stack(valid),
        options.tube_epsilon,
    )
