"""VPSNet: backbone, proposals, boxes, masks, semantics, panoptic logits and matching on one page.

With a match head it is VPSNet-Track, with the fuse neck besides FuseTrack, with the neck alone Fuse.

B: frames, H, W: their size with padding, which is at the bottom and on the right, a multiple of 32. S: stuff
classes, K: thing classes, C = S + K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from panoptube.config import NetworkConfig
from panoptube.data.pairs import FramePair, FrameTargets
from panoptube.flow.flownet2 import flow_quarter
from panoptube.network.backbone import FeaturePyramid, backbone
from panoptube.network.boxes import Choose
from panoptube.network.fuse import FuseNeck
from panoptube.network.match import MatchHead, match_logits, match_targets
from panoptube.network.panoptic import panoptic_logits, panoptic_target
from panoptube.network.roi import (
    BOX_SIZE,
    MASK_SIZE,
    BoxHead,
    MaskHead,
    RoiTargets,
    pool,
    roi_targets,
    select,
)
from panoptube.network.rpn import RegionProposals, RpnOutput, RpnTargets, propose, rpn_targets
from panoptube.network.semantic import SemanticHead, full_size
from panoptube.panoptic.frame import Taxonomy


@dataclass(frozen=True)
class Detections:
    """What the network says of one frame; n detections by falling score.

    Attributes:
        semantic: (C, H / 4, W / 4) logits.
        boxes: (n, 4) x1 y1 x2 y2, inclusive ends, in pixels of the input.
        labels: (n,) int64, 1..K.
        scores: (n,) in (0, 1].
        masks: (n, 28, 28) logits of the detected class.
        embeddings: (n, D) for matching; D is 0 without a match head.
    """

    semantic: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    masks: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class FrameTraining:
    """Predictions and targets of one supervised frame.

    Attributes:
        semantic: (C, H, W) logits; semantic_target: (H, W) int64, 255 ignored.
        objectness, deltas: per level (A_l,), (A_l, 4); rpn: their targets.
        class_logits: (R, K + 1); box_deltas: (R, K + 1, 4); roi: their targets.
        mask_logits: (P, 28, 28) of the true class.
        match: (P, M + 1) logits of the positives against the reference's M objects; match_target: (P,) int64.
            Both are empty without a match head, and with `legacy` where there is one positive.
        panoptic: (S + G, H / 4, W / 4) logits; panoptic_target: (H / 4, W / 4) int64, 255 ignored.
    """

    semantic: Tensor
    semantic_target: Tensor
    objectness: list[Tensor]
    deltas: list[Tensor]
    rpn: RpnTargets
    class_logits: Tensor
    box_deltas: Tensor
    roi: RoiTargets
    mask_logits: Tensor
    match: Tensor
    match_target: Tensor
    panoptic: Tensor
    panoptic_target: Tensor


class VPSNet(nn.Module):
    """The parts of VPSNet and how they meet. It holds weights, and nothing about a video."""

    def __init__(
        self,
        config: NetworkConfig,
        taxonomy: Taxonomy,
        backbone: FeaturePyramid,
        rpn: RegionProposals,
        boxes: BoxHead,
        masks: MaskHead,
        semantic: SemanticHead,
        matching: MatchHead | None,
        fuse: FuseNeck | None = None,
    ) -> None:
        super().__init__()
        self.config, self.taxonomy = config, taxonomy
        self.backbone, self.rpn, self.boxes, self.masks = backbone, rpn, boxes, masks
        self.semantic, self.matching, self.fuse = semantic, matching, fuse

    @property
    def device(self) -> torch.device:
        """Where the weights are, and results will be."""
        return next(self.parameters()).device

    @torch.no_grad()
    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> list[Detections]:
        """(B, 3, H, W) float32 normalised RGB -> what is seen in each frame.

        A network that fuses takes each frame for its own reference, at rest; `VideoPredictor` gives it the
        frame before.

        Args:
            images: all of one size.
            size: height, width without padding; None: there is none.
        """
        return self.detect_all(self.pyramid(images), size)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> P2..P6; if the network fuses, each frame fused with itself, at rest."""
        pyramid: list[Tensor] = self.backbone(images)
        if self.fuse is None:
            return pyramid
        at_rest = pyramid[0].new_zeros(len(images), 2, *pyramid[0].shape[-2:])
        return self.fuse(pyramid, pyramid, at_rest)  # type: ignore[no-any-return]

    @torch.no_grad()
    def detect_all(self, pyramid: Sequence[Tensor], size: tuple[int, int] | None = None) -> list[Detections]:
        """P2..P6 of B frames, fused if the network fuses -> what is seen in each; `size` as in `forward`."""
        semantic = self.semantic(pyramid)
        proposals = self.rpn(pyramid)
        return [self.detect(pyramid, semantic, proposals, i, size=size) for i in range(len(semantic))]

    @torch.no_grad()
    def detect(
        self,
        pyramid: Sequence[Tensor],
        semantic: Tensor,
        rpn: RpnOutput,
        image: int,
        proposals: Tensor | None = None,
        size: tuple[int, int] | None = None,
    ) -> Detections:
        """The second stage for one frame of the batch.

        Args:
            pyramid: P2..P6 of all frames, fused if the network fuses.
            semantic: (B, C, H / 4, W / 4) logits.
            rpn: what the RPN says of them.
            image: which frame.
            proposals: (R, 4) instead of the network's own.
            size: height, width without padding, to which its own are clipped; None: there is none.
        """
        padded = (4 * semantic.shape[2], 4 * semantic.shape[3])
        if proposals is None:
            proposals = propose(rpn, image, size or padded, self.config.test_proposals)[:, :4]
        class_logits, deltas = self.boxes(self.pool(pyramid, image, proposals, BOX_SIZE))
        found = select(
            proposals,
            class_logits,
            deltas,
            padded,
            self.config.least_score,
            self.config.max_detections,
            self.config.legacy,
        )
        features = self.pool(pyramid, image, found.boxes, BOX_SIZE)
        embeddings = features[:, 0, 0, :0] if self.matching is None else self.matching(features)
        masks = self.masks.of_class(self.pool(pyramid, image, found.boxes, MASK_SIZE), found.labels)
        return Detections(semantic[image].float(), *found, masks.float(), embeddings.float())

    def pool(self, pyramid: Sequence[Tensor], image: int, boxes: Tensor, size: int) -> Tensor:
        """Features of the boxes of one frame of the batch, as `roi.pool`."""
        return pool(pyramid, image, boxes, size)

    def training_outputs(self, pair: FramePair, choose: Choose) -> list[FrameTraining]:
        """Predictions and targets for the target frame of each pair; the reference gives objects to match.

        Args:
            pair: B pairs; with flow, if the network fuses.
            choose: draws the anchors and boxes that are trained on.

        Raises:
            ValueError: the network fuses, and the pair has no flow.
        """
        count, flow = len(pair.images), None
        if self.fuse is not None:
            if pair.flow is None:
                raise ValueError("a network that fuses needs pairs with flow; this one has none")
            flow = flow_quarter(pair.flow.nan_to_num())  # what isn't known counts as rest
        pyramid = self.pair_pyramid(pair.images, flow)
        targets = [level[:count] for level in pyramid]
        semantic, rpn = self.semantic(targets), self.rpn(targets)
        return [
            self.train_frame(
                pyramid,
                semantic,
                full_size(semantic[i : i + 1])[0],
                rpn,
                i,
                count + i,
                *pair.targets[i],
                choose,
            )
            for i in range(count)
        ]

    def pair_pyramid(self, images: Tensor, flow: Tensor | None) -> list[Tensor]:
        """P2..P6 of B target frames, fused if the network fuses, followed by those of the references, plain.

        Args:
            images: (B, 2, 3, H, W).
            flow: (B, 2, H / 4, W / 4) in pixels of that size, or None where nothing is fused.
        """
        count = len(images)
        pyramid: list[Tensor] = self.backbone(torch.cat([images[:, 0], images[:, 1]]))
        if self.fuse is None or flow is None:
            return pyramid
        references = [level[count:] for level in pyramid]
        fused = self.fuse([level[:count] for level in pyramid], references, flow)
        return [torch.cat(both) for both in zip(fused, references)]

    def train_frame(
        self,
        pyramid: Sequence[Tensor],
        semantic: Tensor,
        semantic_full: Tensor,
        rpn: RpnOutput,
        image: int,
        reference_image: int,
        truth: FrameTargets,
        reference: FrameTargets,
        choose: Choose,
        proposals: Tensor | None = None,
    ) -> FrameTraining:
        """Predictions and targets of one supervised frame.

        Proposals are clipped to the frame without its padding, anchors that leave that aren't sampled
        (dossier 3.4, 3.5), and with `legacy` the padding is labelled class 0 (D13).

        Args:
            pyramid: P2..P6 of all frames, as `pair_pyramid` gives them.
            semantic: (B, C, H / 4, W / 4) logits of the supervised frames.
            semantic_full: (C, H, W) logits of this one.
            rpn: of the supervised frames.
            image, reference_image: where this frame and its reference are in the batch.
            truth, reference: of the two frames.
            choose: draws the anchors and boxes that are trained on.
            proposals: (R, 4) instead of the network's own.
        """
        size = truth.size or (semantic_full.shape[1], semantic_full.shape[2])
        semantic_target = truth.semantic
        if self.config.legacy:
            semantic_target = semantic_target.clone()
            semantic_target[size[0] :], semantic_target[:, size[1] :] = 0, 0
        most = self.config.ignore_untrusted
        untrusted = truth.untrusted(self.taxonomy.num_stuff) if most < 1 else None
        anchors = rpn_targets(rpn, truth.boxes, size, self.config.rpn_samples, choose, untrusted, most)
        if proposals is None:
            proposals = propose(rpn, image, size, self.config.train_proposals)[:, :4]
        roi = roi_targets(
            proposals,
            truth.boxes,
            truth.labels,
            truth.masks,
            self.config.roi_samples,
            choose,
            untrusted,
            most,
        )
        features = pool(pyramid, image, roi.boxes, BOX_SIZE)
        class_logits, box_deltas = self.boxes(features)
        positive = len(roi.truth)
        masks = self.masks.of_class(
            pool(pyramid, image, roi.boxes[:positive], MASK_SIZE), roi.labels[:positive]
        )
        match, match_target = features.new_zeros(0, len(reference.boxes) + 1), roi.truth[:0]
        if self.matching is not None:
            match = match_logits(
                self.matching(features[:positive]),
                self.matching(pool(pyramid, reference_image, reference.boxes, BOX_SIZE)),
            )
            match_target = match_targets(truth.track_ids, reference.track_ids)[roi.truth]
            if self.config.legacy and positive == 1:  # the published loss leaves it out (dossier 7.2)
                match, match_target = match[:0], match_target[:0]
        true_masks = self.masks.of_class(pool(pyramid, image, truth.boxes, MASK_SIZE), truth.labels)
        stuff = self.taxonomy.num_stuff
        return FrameTraining(
            semantic=semantic_full,
            semantic_target=semantic_target,
            objectness=rpn.flat(image)[0],
            deltas=rpn.flat(image)[1],
            rpn=anchors,
            class_logits=class_logits,
            box_deltas=box_deltas,
            roi=roi,
            mask_logits=masks,
            match=match,
            match_target=match_target,
            panoptic=panoptic_logits(
                semantic[image], true_masks, truth.boxes * 0.25, truth.labels, stuff, self.config.legacy
            ),
            panoptic_target=panoptic_target(semantic_target, truth.masks, stuff),
        )


def vpsnet(config: NetworkConfig, taxonomy: Taxonomy) -> VPSNet:
    """The usual VPSNet, with random weights.

    Raises:
        UserError: the backbone isn't known.
    """
    things = taxonomy.num_things
    return VPSNet(
        config,
        taxonomy,
        backbone=backbone(config.backbone, config.channels, config.frozen_stages),
        rpn=RegionProposals(config.channels),
        boxes=BoxHead(config.channels, config.box_channels, things),
        masks=MaskHead(config.channels, config.mask_channels, config.mask_convs, things),
        semantic=SemanticHead(
            config.channels, config.semantic_channels, config.semantic_groups, len(taxonomy)
        ),
        matching=(
            MatchHead(config.channels, config.match_channels, config.match_length)
            if config.match_channels
            else None
        ),
        fuse=FuseNeck(config.channels, config.legacy) if config.fuse else None,
    )
