"""VPSNet-Track: backbone, proposals, boxes, masks, semantics, panoptic logits and matching on one page.

B: frames, H, W: their size with padding, a multiple of 32. S: stuff classes, K: thing classes, C = S + K.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from panoptube.config import NetworkConfig
from panoptube.data.pairs import FramePair, FrameTargets
from panoptube.network.backbone import FeaturePyramid, backbone
from panoptube.network.boxes import Choose
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
        embeddings: (n, D) for matching.
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
    """The parts of VPSNet-Track and how they meet. It holds weights, and nothing about a video."""

    def __init__(
        self,
        config: NetworkConfig,
        taxonomy: Taxonomy,
        backbone: FeaturePyramid,
        rpn: RegionProposals,
        boxes: BoxHead,
        masks: MaskHead,
        semantic: SemanticHead,
        matching: MatchHead,
    ) -> None:
        super().__init__()
        self.config, self.taxonomy = config, taxonomy
        self.backbone, self.rpn, self.boxes, self.masks = backbone, rpn, boxes, masks
        self.semantic, self.matching = semantic, matching

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Detections]:
        """(B, 3, H, W) float32 normalised RGB -> what is seen in each frame."""
        pyramid = self.backbone(images)
        semantic = self.semantic(pyramid)
        proposals = self.rpn(pyramid)
        return [self.detect(pyramid, semantic, proposals, i) for i in range(len(images))]

    @torch.no_grad()
    def detect(
        self,
        pyramid: Sequence[Tensor],
        semantic: Tensor,
        rpn: RpnOutput,
        image: int,
        proposals: Tensor | None = None,
    ) -> Detections:
        """The second stage for one frame of the batch; `proposals` (R, 4) replace the network's own."""
        size = (4 * semantic.shape[2], 4 * semantic.shape[3])
        if proposals is None:
            proposals = propose(rpn, image, size, self.config.test_proposals)[:, :4]
        class_logits, deltas = self.boxes(pool(pyramid, image, proposals, BOX_SIZE))
        found = select(
            proposals,
            class_logits,
            deltas,
            size,
            self.config.score_threshold,
            self.config.max_detections,
            self.config.legacy,
        )
        embeddings = self.matching(pool(pyramid, image, found.boxes, BOX_SIZE))
        masks = self.masks.of_class(pool(pyramid, image, found.boxes, MASK_SIZE), found.labels)
        return Detections(semantic[image].float(), *found, masks.float(), embeddings.float())

    def training_outputs(self, pair: FramePair, choose: Choose) -> list[FrameTraining]:
        """Predictions and targets for the target frame of each pair; the reference gives objects to match.

        Args:
            pair: B pairs.
            choose: draws the anchors and boxes that are trained on.
        """
        count = len(pair.images)
        pyramid = self.backbone(torch.cat([pair.images[:, 0], pair.images[:, 1]]))
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

        Args:
            pyramid: P2..P6 of all frames.
            semantic: (B, C, H / 4, W / 4) logits of the supervised frames.
            semantic_full: (C, H, W) logits of this one.
            rpn: of the supervised frames.
            image, reference_image: where this frame and its reference are in the batch.
            truth, reference: of the two frames.
            choose: draws the anchors and boxes that are trained on.
            proposals: (R, 4) instead of the network's own.
        """
        size = (semantic_full.shape[1], semantic_full.shape[2])
        anchors = rpn_targets(rpn, truth.boxes, size, self.config.rpn_samples, choose)
        if proposals is None:
            proposals = propose(rpn, image, size, self.config.train_proposals)[:, :4]
        roi = roi_targets(proposals, truth.boxes, truth.labels, truth.masks, self.config.roi_samples, choose)
        features = pool(pyramid, image, roi.boxes, BOX_SIZE)
        class_logits, box_deltas = self.boxes(features)
        positive = len(roi.truth)
        masks = self.masks.of_class(
            pool(pyramid, image, roi.boxes[:positive], MASK_SIZE), roi.labels[:positive]
        )
        match = match_logits(
            self.matching(features[:positive]),
            self.matching(pool(pyramid, reference_image, reference.boxes, BOX_SIZE)),
        )
        true_masks = self.masks.of_class(pool(pyramid, image, truth.boxes, MASK_SIZE), truth.labels)
        stuff = self.taxonomy.num_stuff
        return FrameTraining(
            semantic=semantic_full,
            semantic_target=truth.semantic,
            objectness=rpn.flat(image)[0],
            deltas=rpn.flat(image)[1],
            rpn=anchors,
            class_logits=class_logits,
            box_deltas=box_deltas,
            roi=roi,
            mask_logits=masks,
            match=match,
            match_target=match_targets(truth.track_ids, reference.track_ids)[roi.truth],
            panoptic=panoptic_logits(
                semantic[image], true_masks, truth.boxes * 0.25, truth.labels, stuff, self.config.legacy
            ),
            panoptic_target=panoptic_target(truth.semantic, truth.masks, stuff),
        )


def vpsnet(config: NetworkConfig, taxonomy: Taxonomy) -> VPSNet:
    """The usual VPSNet-Track, with random weights.

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
        matching=MatchHead(config.channels, config.match_channels),
    )
