"""VPSNet-Track against stored results of the published code: inference over a clip, and a training step.

FuseTrack's check uses what both networks have in common.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panoptube.config import LossConfig
from panoptube.convert import published_name
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.pairs import FrameTargets
from panoptube.losses import supervised as losses
from panoptube.network.match import match_logits, match_targets
from panoptube.network.roi import BOX_SIZE, MASK_SIZE, pool
from panoptube.network.rpn import RpnOutput, anchors, propose
from panoptube.network.semantic import full_size
from panoptube.network.vpsnet import FrameTraining, VPSNet
from panoptube.panoptic.assemble import CITYSCAPES_PIXELS, index_map, unify
from panoptube.panoptic.tracker import WORST, Association, Tracker
from parity import FLOAT_TOLERANCE, Arrays, Row, compare, network_from_rule, network_input, numpy, same_rows

ON_STORED = " (stored proposals)"
TRUTH = ("gt_bboxes", "gt_labels", "gt_masks", "gt_obj_ids", "gt_semantic_seg")
REFERENCE_TRUTH = ("ref_bboxes", "ref_labels", "ref_obj_ids")
TRAINING_INPUTS = {"img_bgr", "ref_bgr", *TRUTH, *REFERENCE_TRUTH}


# --- inference -------------------------------------------------------------------------------------------

PYRAMID_SLICES = ((8, 8, 8), (8, 4, 4), (8, 2, 2), (8, 1, 1), (8, 1, 1))
BODY_SLICES = ((16, 8, 8), (16, 4, 4), (32, 2, 2), (48, 1, 1))
RPN_SLICES = (8, 4, 2, 1, 1)


Stage = tuple[list[Tensor], RpnOutput, Tensor]
"""Of one frame: the pyramid that the heads see, what the RPN says, semantic logits."""


def pyramid_arrays(name: str, pyramid: list[Tensor], out: Arrays) -> None:
    """The levels, such as f0_P2 to f0_P6, into `out`."""
    for i, level in enumerate(pyramid):
        a, b, c = PYRAMID_SLICES[i]
        out[f"{name}{i + 2}"] = numpy(level[0])[::a, ::b, ::c]
        out[f"{name}{i + 2}_chmean"] = numpy(level[0].mean((1, 2)))


def stage_arrays(network: VPSNet, image: Tensor, t: int, out: Arrays) -> Stage:
    """Backbone to proposals of frame `t`, into `out`."""
    pyramid = network.backbone(image)
    if t == 0:
        for i, c in enumerate(network.backbone.body(image)):
            a, b, d = BODY_SLICES[i]
            out[f"f0_C{i + 2}"] = numpy(c[0])[::a, ::b, ::d]
            out[f"f0_C{i + 2}_chmean"] = numpy(c[0].mean((1, 2)))
            out[f"f0_C{i + 2}_chstd"] = numpy(c[0].std((1, 2), correction=0))
    pyramid_arrays(f"f{t}_P", pyramid, out)
    return first_stage(network, pyramid, t, out)


def first_stage(network: VPSNet, pyramid: list[Tensor], t: int, out: Arrays) -> Stage:
    """RPN and semantic head on the pyramid of frame `t`, into `out`."""
    rpn = network.rpn(pyramid)
    for i in range(5):
        step = 1 if t == 0 else RPN_SLICES[i]
        out[f"f{t}_rpn_cls{i}"] = numpy(rpn.objectness[i][0])[:, ::step, ::step]
        out[f"f{t}_rpn_reg{i}"] = numpy(rpn.deltas[i][0])[:, ::step, ::step]
    semantic = network.semantic(pyramid)
    out[f"f{t}_fcn_score"] = numpy(semantic[0]) if t == 0 else numpy(semantic[0])[:, ::4, ::4]
    full = full_size(semantic)[0]
    out[f"f{t}_fcn_output"] = numpy(full)[:, 3::16, 5::16]
    out[f"f{t}_fcn_argmax"] = numpy(full.argmax(0))
    return pyramid, rpn, semantic


def association_arrays(found: Association, t: str, cur: Tensor, prev: Tensor, out: Arrays) -> None:
    out[f"{t}_track_emb_cur"], out[f"{t}_track_emb_prev"] = numpy(cur), numpy(prev)
    out[f"{t}_match_score"], out[f"{t}_match_logprob"] = numpy(found.match), numpy(found.log_probability)
    out[f"{t}_match_iou"], out[f"{t}_match_label_delta"] = numpy(found.overlap), numpy(found.same_class)
    out[f"{t}_comp_scores"] = numpy(found.total)


def best_claims(found: Association) -> NDArray[np.float32]:
    """Best score of the detections that chose each object in memory."""
    score, choice = found.total.max(1)
    result = np.full(found.total.shape[1] - 1, WORST, np.float32)
    np.maximum.at(result, numpy(choice)[numpy(choice) > 0] - 1, numpy(score)[numpy(choice) > 0])
    return result


def second_stage(
    network: VPSNet,
    tracker: Tracker,
    stage: Stage,
    proposals: Tensor,
    t: str,
    out: Arrays,
) -> None:
    """Heads, tracking and assembly of one frame from its proposals, into `out`."""
    pyramid, rpn, semantic = stage
    features = pool(pyramid, 0, proposals, BOX_SIZE)
    class_logits, deltas = network.boxes(features)
    out[f"{t}_bbox_cls_score"] = numpy(class_logits)
    rows = slice(None) if t == "f0" else slice(None, None, 4)
    out[f"{t}_bbox_reg"] = numpy(deltas.flatten(1))[rows]
    d = network.detect(pyramid, semantic, rpn, 0, proposals)
    out[f"{t}_det_prob"], out[f"{t}_det_cls_idx"] = numpy(d.scores), numpy(d.labels)
    out[f"{t}_det_rois"] = np.pad(numpy(d.boxes), ((0, 0), (1, 0)))
    out[f"{t}_det_mask_logits"] = numpy(d.masks)
    if t == "f0":
        out["f0_roifeat7_first4"] = numpy(features[:4])
        out["f0_roifeat7_chmean"] = numpy(features[::8].mean((2, 3)))
        mask_features = pool(pyramid, 0, d.boxes[:4], MASK_SIZE)
        out["f0_roifeat14_det_first4"] = numpy(mask_features)[:, ::4]
        out["f0_det_mask_logits_allcls_first4"] = numpy(network.masks(mask_features))
    claims = np.full(len(d.boxes), WORST, np.float32)
    if len(tracker):
        found = tracker.associate(d.boxes, d.labels, d.scores, d.embeddings)
        association_arrays(found, t, d.embeddings, tracker.embeddings, out)
        claims = best_claims(found)
    out[f"{t}_best_match_scores"] = claims
    ids = tracker.step(d.boxes, d.labels, d.scores, d.embeddings)
    out[f"{t}_det_obj_ids"] = numpy(ids)
    out[f"{t}_memory_bboxes"], out[f"{t}_memory_labels"] = numpy(tracker.boxes), numpy(tracker.labels) - 1
    found_map = index_map(d, CITYSCAPES.num_stuff, legacy=True)
    kept = found_map.kept
    out[f"{t}_keep_inds"] = numpy(kept)
    step = 8 if t == "f0" else 16
    out[f"{t}_panoptic_logits"] = numpy(found_map.logits)[:, 3::step, 5::step]
    out[f"{t}_panoptic_argmax"] = numpy(found_map.winner)
    out[f"{t}_pano_cls_inds"], out[f"{t}_pano_cls_prob"] = numpy(d.labels[kept]), numpy(d.scores[kept])
    out[f"{t}_pano_det_labels"], out[f"{t}_pano_det_obj_ids"] = numpy(d.labels[kept]) - 1, numpy(ids[kept])
    unified = unify(
        numpy(found_map.semantic),
        numpy(found_map.winner),
        numpy(d.labels[kept]),
        numpy(ids[kept]),
        CITYSCAPES,
        round(network.config.stuff_area * CITYSCAPES_PIXELS),
        True,
    )
    out[f"{t}_pan_2ch"] = np.stack(unified, -1)


def kind_of(name: str) -> str:
    if re.search(r"(fcn_argmax|panoptic_argmax|pan_2ch)$", name):
        return "pixels"
    if re.search(r"(cls_idx|keep_inds|cls_inds|labels|obj_ids|label_delta)$", name):
        return "exact"
    return "float"


def compared(out: Arrays, stored: Arrays, suffix: str = "") -> list[Row]:
    """A row for each array of `out` that is stored."""
    return [compare(k, v, stored[k], kind_of(k), suffix) for k, v in out.items() if k in stored]


def own_proposals(network: VPSNet, stage: Stage) -> Tensor:
    """(R, 5)."""
    height, width = stage[2].shape[2:]
    return propose(stage[1], 0, (4 * height, 4 * width), network.config.test_proposals)


def second_stage_rows(network: VPSNet, stages: list[Stage], stored: Arrays) -> list[Row]:
    """Proposals and all that follows from them, of a clip: on the network's own, and on the stored ones."""
    rows: list[Row] = []
    for suffix in ("", ON_STORED):
        out, tracker = Arrays(), Tracker(max_age=None)
        for t, stage in enumerate(stages):
            name = f"f{t}_proposals"
            given = torch.from_numpy(stored[name])
            if not suffix:
                own = own_proposals(network, stage)
                order = same_rows(numpy(own), stored[name])
                rows.append(compare(name, numpy(own)[order], stored[name], "float"))
                given = own[torch.from_numpy(order)]
            second_stage(network, tracker, stage, given[:, :4], f"f{t}", out)
        rows += compared(out, stored, suffix)
    return rows


@torch.no_grad()
def check_inference(rule: dict[str, Any], stored: Arrays) -> tuple[list[Row], set[str]]:
    """Every array of the inference file."""
    network = network_from_rule(rule).eval()
    out = Arrays()
    stages = [
        stage_arrays(network, network_input(frame)[None], t, out) for t, frame in enumerate(stored["frames"])
    ]
    rows = compared(out, stored) + second_stage_rows(network, stages, stored)

    network.boxes.classes.bias.copy_(torch.tensor([60.0] + [0.0] * CITYSCAPES.num_things))
    out, tracker = Arrays(), Tracker(max_age=None)
    for t, stage in enumerate(stages[:2]):
        second_stage(network, tracker, stage, own_proposals(network, stage)[:, :4], f"nodet{t}", out)
    rows += compared(out, stored)
    return rows, {row.name.removesuffix(ON_STORED) for row in rows} | {"frames"}


# --- training --------------------------------------------------------------------------------------------


def spread_choice(candidates: Tensor, number: int) -> Tensor:
    """The sampler of the stored step: candidates at floor(i n / number)."""
    return candidates[torch.arange(number) * len(candidates) // number]


def accuracy(logits: Tensor, target: Tensor) -> NDArray[Any]:
    return np.array([100 * float((logits.argmax(1) == target).float().mean())])


def check_training(rule: dict[str, Any], stored: Arrays) -> tuple[list[Row], set[str]]:
    """Every array of the training file."""
    # In float32 an offset of the deformable convolution may round to the other side of a pixel's centre,
    # where its gradient jumps; which ones do so depends on the processor's instructions.
    rows = training_rows(network_from_rule(rule).double(), stored, None, Noise())
    return rows, {row.name for row in rows} | TRAINING_INPUTS | {"grad_l2", "grad_first8"}


class Noise(NamedTuple):
    """By how much rounding alone can move a gradient, where that is more than the usual tolerance.

    Attributes:
        layers: beginning of published names -> of the length, and of the first eight values; both as shares
            of the length.
        largest: of the first eight values of any parameter, as a share of the largest of them.
    """

    layers: Mapping[str, tuple[float, float]] = MappingProxyType({})
    largest: float = 0.0


def training_rows(network: VPSNet, stored: Arrays, flow: Tensor | None, noise: Noise) -> list[Row]:
    """The stored step, on the stored proposals; it leaves the gradients in the network.

    Args:
        network: with the rule's weights, in float32 or float64: so everything is computed.
        stored: both images, truth, and what is compared.
        flow: (1, 2, H / 4, W / 4) for a network that fuses, else None.
        noise: of the gradients.
    """
    network.train()
    dtype = next(network.parameters()).dtype
    images = torch.stack([network_input(stored[k]) for k in ("img_bgr", "ref_bgr")]).to(dtype)

    def tensor(name: str) -> Tensor:
        value = torch.from_numpy(stored[name])
        return value.to(dtype) if value.is_floating_point() else value

    truth = FrameTargets(
        tensor("gt_bboxes"),
        tensor("gt_labels"),
        tensor("gt_masks"),
        tensor("gt_obj_ids"),
        tensor("gt_semantic_seg").long(),
    )
    empty_masks = torch.zeros(len(stored["ref_bboxes"]), *stored["gt_semantic_seg"].shape, dtype=torch.uint8)
    reference = FrameTargets(
        tensor("ref_bboxes"),
        tensor("ref_labels"),
        empty_masks,
        tensor("ref_obj_ids"),
        torch.full_like(truth.semantic, 255),
    )
    size = (images.shape[2], images.shape[3])
    pyramid = network.pair_pyramid(images[None], flow if flow is None else flow.to(dtype))
    target_pyramid = [level[:1] for level in pyramid]
    semantic, rpn = network.semantic(target_pyramid), network.rpn(target_pyramid)
    own = numpy(propose(rpn, 0, size, network.config.train_proposals))
    order = same_rows(own, stored["train_proposals"])
    rows = [compare("train_proposals", own[order], stored["train_proposals"], "float")]
    f = network.train_frame(
        pyramid,
        semantic,
        full_size(semantic)[0],
        rpn,
        0,
        1,
        truth,
        reference,
        spread_choice,
        tensor("train_proposals")[:, :4],
    )
    out = training_arrays(network, f, truth, reference, pyramid, rpn, size)
    total = sum(losses.supervised([f], LossConfig()).values(), torch.zeros(()))
    total.backward()  # type: ignore[no-untyped-call]
    out["loss/total"] = numpy(total)[None]
    for name, value in out.items():
        kind = "loss" if name.startswith("loss/") else "float" if value.dtype.kind == "f" else "exact"
        if name in stored:
            rows.append(compare(name, value, stored[name], kind))
    return rows + gradient_rows(network, stored, noise)


def training_arrays(
    network: VPSNet,
    f: FrameTraining,
    truth: FrameTargets,
    reference: FrameTargets,
    pyramid: list[Tensor],
    rpn: RpnOutput,
    size: tuple[int, int],
) -> Arrays:
    """Samples, targets, outputs and losses of the step under the names of the file."""
    all_anchors = torch.cat(anchors(rpn))
    inside = (all_anchors[:, :2] >= 0).all(1) & (all_anchors[:, 2] < size[1]) & (all_anchors[:, 3] < size[0])
    rank = torch.cumsum(inside, 0) - 1
    positive = len(f.roi.truth)
    weights = LossConfig()
    assert network.matching is not None
    ids = torch.zeros(len(f.roi.labels), dtype=torch.int64)
    ids[:positive] = f.match_target
    match = match_logits(
        network.matching(pool(pyramid, 0, f.roi.boxes, BOX_SIZE)),
        network.matching(pool(pyramid, 1, reference.boxes, BOX_SIZE)),
    )
    box_targets = torch.zeros(len(f.roi.labels), 4)
    box_targets[:positive] = f.roi.deltas
    match_weights = torch.zeros(len(f.roi.labels))
    match_weights[:positive] = 1

    def weighted(term: Tensor | list[Tensor], weight: float) -> NDArray[Any]:
        return numpy(torch.stack(term if isinstance(term, list) else [term]) * weight)

    return {
        "gt_pids": numpy(match_targets(truth.track_ids, reference.track_ids)),
        "gt_semantic_seg_Nx": numpy(truth.semantic[::4, ::4]),
        "rpn_pos_inds_in_inside_anchors": numpy(rank[f.rpn.positive]),
        "rpn_neg_inds_in_inside_anchors": numpy(rank[f.rpn.negative]),
        "rpn_pos_bboxes": numpy(all_anchors[f.rpn.positive]),
        "rpn_neg_bboxes": numpy(all_anchors[f.rpn.negative]),
        "rcnn_pos_bboxes": numpy(f.roi.boxes[:positive]),
        "rcnn_neg_bboxes": numpy(f.roi.boxes[positive:]),
        "rcnn_pos_gt_inds": numpy(f.roi.truth),
        "rcnn_labels": numpy(f.roi.labels),
        "rcnn_bbox_targets": numpy(box_targets),
        "rcnn_match_ids": numpy(ids),
        "rcnn_match_weights": numpy(match_weights),
        "rcnn_cls_score": numpy(f.class_logits),
        "match_score": numpy(match),
        "mask_targets": numpy(f.roi.masks),
        "panoptic_gt": numpy(f.panoptic_target),
        "panoptic_logits": numpy(f.panoptic)[:, 1::4, 1::4],
        "loss/loss_segm": weighted(losses.pixel_loss(f.semantic, f.semantic_target), weights.semantic),
        "loss/loss_rpn_cls": weighted(losses.rpn_objectness_loss(f), weights.rpn_objectness),
        "loss/loss_rpn_bbox": weighted(losses.rpn_box_loss(f), weights.rpn_boxes),
        "loss/loss_cls": weighted(losses.class_loss(f), weights.classes),
        "loss/acc": accuracy(f.class_logits, f.roi.labels),
        "loss/loss_bbox": weighted(losses.box_loss(f), weights.boxes),
        "loss/loss_match": weighted(losses.match_loss(f), weights.match),
        "loss/match_acc": accuracy(f.match, f.match_target),
        "loss/loss_mask": weighted(losses.mask_loss(f), weights.masks),
        "loss/loss_pano": weighted(losses.pixel_loss(f.panoptic, f.panoptic_target), weights.panoptic),
    }


def gradient_rows(network: VPSNet, stored: Arrays, noise: Noise) -> list[Row]:
    """Each parameter's gradient against its stored length and first eight values; none may lack one."""
    ours = {published_name(k): p.grad for k, p in network.named_parameters() if p.grad is not None}
    names = [str(n) for n in stored["grad_names"]]
    missing = sorted(set(names) ^ set(ours))
    rows = [Row("grad_names", len(missing), 0, "names in one only" + (f": {missing[:3]}" if missing else ""))]
    for name, length, first in zip(names, stored["grad_l2"], stored["grad_first8"]):
        if name not in ours:
            continue
        of_length, of_eight = next(
            (pair for start, pair in noise.layers.items() if name.startswith(start)),
            (FLOAT_TOLERANCE, FLOAT_TOLERANCE),
        )
        grad = numpy(ours[name]).astype(np.float64)
        head = np.zeros(8)
        head[: min(8, grad.size)] = grad.ravel()[:8]
        difference = abs(float(np.sqrt((grad**2).sum())) - float(length))
        rows.append(Row(f"grad_l2/{name}", difference, of_length * float(length), "of its length"))
        tolerance = max(of_eight * float(length), noise.largest * float(np.abs(first).max()))
        rows.append(Row(f"grad_first8/{name}", float(np.abs(head - first).max()), tolerance, "of its length"))
    return rows
