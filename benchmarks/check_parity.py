"""Compares panoptube's VPSNet-Track with stored results of the published code, array by array.

    python benchmarks/check_parity.py FOLDER

FOLDER holds weights_rule.json and vpsnet_track_small.npz (inference over a clip), vpsnet_track_losses.npz
(a training step), or one of them. Weights are made from their names by the rule. Everything runs with the
published behaviour (`legacy`). Each array gets a row with its largest difference, the tolerance and a
verdict; the exit code is 1 if a row fails or an array was not compared, 2 if the folder can't be used.

Inference runs twice: on the network's own proposals, and on the stored ones, so that near-tied proposals that
change place don't spread.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panoptube.config import LossConfig, NetworkConfig
from panoptube.convert import published_name
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.pairs import FrameTargets
from panoptube.data.transforms import normalize
from panoptube.losses import supervised as losses
from panoptube.network.match import match_logits, match_targets
from panoptube.network.roi import BOX_SIZE, MASK_SIZE, pool
from panoptube.network.rpn import anchors, propose
from panoptube.network.semantic import full_size
from panoptube.network.vpsnet import FrameTraining, VPSNet, vpsnet
from panoptube.panoptic.assemble import index_map, unify
from panoptube.panoptic.tracker import WORST, Association, Tracker

Arrays = dict[str, NDArray[Any]]
FLOAT_TOLERANCE = 1e-3
LOSS_TOLERANCE = 1e-5
FLIPPED_PIXELS = 3
STUFF_AREA = 2048


# --- weights ---------------------------------------------------------------------------------------------


def rule_weight(name: str, shape: tuple[int, ...], rule: dict[str, Any]) -> Tensor:
    """The value of entry `name` of the published state dict by the rule."""
    if name in rule["overrides"]:
        return torch.tensor(rule["overrides"][name], dtype=torch.float32)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    z = np.random.default_rng(zlib.crc32((rule["salt"] + name).encode())).standard_normal(shape)
    gain = next((g for pattern, g in rule["gains"] if re.search(pattern, name)), 1.0)
    if name.endswith("running_mean"):
        z = 0.05 * z
    elif name.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif name.endswith(".bias"):
        z = gain * 0.02 * z
    elif len(shape) == 1:
        z = gain * (1 + 0.1 * z)
    else:
        transposed = name == "mask_head.upsample.weight"
        if len(shape) == 4 and shape[1] > 3 and not transposed:
            z = z - z.mean(axis=(1, 2, 3), keepdims=True)
        if len(shape) == 2:
            z = z - z.mean(axis=1, keepdims=True)
        fan_in = shape[0] if transposed else int(np.prod(shape[1:]))
        z = gain * np.sqrt(2 / fan_in) * z
    return torch.from_numpy(np.asarray(z, np.float64).astype(np.float32))


def network_from_rule(rule: dict[str, Any]) -> VPSNet:
    """VPSNet-Track in its published form with the rule's weights."""
    network = vpsnet(NetworkConfig(legacy=True), CITYSCAPES)
    state = {
        key: rule_weight(published_name(key), tuple(value.shape), rule)
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network


# --- comparison ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One compared array."""

    name: str
    difference: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.difference <= self.tolerance)


def compare(name: str, ours: NDArray[Any], stored: NDArray[Any], kind: str, suffix: str = "") -> Row:
    """Largest difference of two arrays against the tolerance of their kind: exact, pixels, float, or loss."""
    shown = name + suffix
    if ours.shape != stored.shape:
        return Row(shown, float("inf"), 0, f"shape {ours.shape}, stored {stored.shape}")
    if kind == "exact":
        return Row(shown, float(np.count_nonzero(ours != stored)), 0, "entries that differ")
    if kind == "pixels":
        different = ours != stored
        pixels = different.any(-1) if different.ndim == 3 else different
        return Row(shown, float(np.count_nonzero(pixels)), FLIPPED_PIXELS, "pixels that differ")
    a, b = ours.astype(np.float64), stored.astype(np.float64)
    if not np.isfinite(a).all():
        return Row(shown, float("inf"), 0, "not finite")
    difference = float(np.abs(a - b).max()) if a.size else 0.0
    if kind == "loss":
        return Row(shown, difference, LOSS_TOLERANCE * float(np.abs(b).max()), "of its size")
    spread = float(b.std()) if b.size else 0.0
    # A single number, or equal ones, has no spread: its size stands in.
    return Row(
        shown, difference, FLOAT_TOLERANCE * (spread or float(np.abs(b).max(initial=0))), "of its spread"
    )


def same_rows(ours: NDArray[np.float32], stored: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each stored row the nearest of ours, each used once: the arrays as sets."""
    distance = np.abs(ours[None].astype(np.float64) - stored[:, None]).max(-1)
    result = np.full(len(stored), -1, np.int64)
    taken = np.zeros(len(ours), bool)
    for i in np.argsort(distance.min(1), kind="stable"):
        free = np.where(taken, np.inf, distance[i])
        result[i] = int(free.argmin())
        taken[result[i]] = True
    return result


# --- inference -------------------------------------------------------------------------------------------


def numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


def network_input(bgr: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) BGR -> (3, H, W)."""
    return torch.from_numpy(normalize(np.ascontiguousarray(bgr[..., ::-1]), (bgr.shape[0], bgr.shape[1])))


PYRAMID_SLICES = ((8, 8, 8), (8, 4, 4), (8, 2, 2), (8, 1, 1), (8, 1, 1))
BODY_SLICES = ((16, 8, 8), (16, 4, 4), (32, 2, 2), (48, 1, 1))
RPN_SLICES = (8, 4, 2, 1, 1)


def stage_arrays(network: VPSNet, image: Tensor, t: int, out: Arrays) -> tuple[list[Tensor], Any, Tensor]:
    """Backbone to proposals of frame `t`, into `out`; returns pyramid, RPN output, semantic logits."""
    pyramid = network.backbone(image)
    if t == 0:
        for i, c in enumerate(network.backbone.body(image)):
            a, b, d = BODY_SLICES[i]
            out[f"f0_C{i + 2}"] = numpy(c[0])[::a, ::b, ::d]
            out[f"f0_C{i + 2}_chmean"] = numpy(c[0].mean((1, 2)))
            out[f"f0_C{i + 2}_chstd"] = numpy(c[0].std((1, 2), correction=0))
    for i, p in enumerate(pyramid):
        a, b, d = PYRAMID_SLICES[i]
        out[f"f{t}_P{i + 2}"] = numpy(p[0])[::a, ::b, ::d]
        out[f"f{t}_P{i + 2}_chmean"] = numpy(p[0].mean((1, 2)))
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
    stage: tuple[list[Tensor], Any, Tensor],
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
        STUFF_AREA,
        True,
    )
    out[f"{t}_pan_2ch"] = np.stack(unified, -1)


def kind_of(name: str) -> str:
    if re.search(r"(fcn_argmax|panoptic_argmax|pan_2ch)$", name):
        return "pixels"
    if re.search(r"(cls_idx|keep_inds|cls_inds|labels|obj_ids|label_delta)$", name):
        return "exact"
    return "float"


@torch.no_grad()
def check_inference(rule: dict[str, Any], stored: Arrays) -> tuple[list[Row], set[str]]:
    """Every array of the inference file."""
    network = network_from_rule(rule).eval()
    rows: list[Row] = []
    seen: set[str] = set()
    images = [network_input(frame)[None] for frame in stored["frames"]]
    stages, first = [], Arrays()
    for t, image in enumerate(images):
        stages.append(stage_arrays(network, image, t, first))
    for name, value in first.items():
        if name in stored:
            rows.append(compare(name, value, stored[name], kind_of(name)))
            seen.add(name)
    for suffix in ("", " (stored proposals)"):
        out, tracker = Arrays(), Tracker(max_age=None)
        for t, stage in enumerate(stages):
            name = f"f{t}_proposals"
            given = torch.from_numpy(stored[name])
            if not suffix:
                own = propose(
                    stage[1], 0, (images[t].shape[2], images[t].shape[3]), network.config.test_proposals
                )
                order = same_rows(numpy(own), stored[name])
                rows.append(compare(name, numpy(own)[order], stored[name], "float"))
                seen.add(name)
                given = own[torch.from_numpy(order)]
            second_stage(network, tracker, stage, given[:, :4], f"f{t}", out)
        for name, value in out.items():
            if name in stored:
                rows.append(compare(name, value, stored[name], kind_of(name), suffix))
                seen.add(name)
    seen.add("frames")

    network.boxes.classes.bias.copy_(torch.tensor([60.0] + [0.0] * CITYSCAPES.num_things))
    out, tracker = Arrays(), Tracker(max_age=None)
    for t in range(min(2, len(images))):
        own = propose(
            stages[t][1], 0, (images[t].shape[2], images[t].shape[3]), network.config.test_proposals
        )
        second_stage(network, tracker, stages[t], own[:, :4], f"nodet{t}", out)
    for name, value in out.items():
        if name in stored:
            rows.append(compare(name, value, stored[name], kind_of(name)))
            seen.add(name)
    return rows, seen


# --- training --------------------------------------------------------------------------------------------


def spread_choice(candidates: Tensor, number: int) -> Tensor:
    """The sampler of the stored step: candidates at floor(i n / number)."""
    return candidates[torch.arange(number) * len(candidates) // number]


def accuracy(logits: Tensor, target: Tensor) -> NDArray[Any]:
    return np.array([100 * float((logits.argmax(1) == target).float().mean())])


def check_training(rule: dict[str, Any], stored: Arrays) -> tuple[list[Row], set[str]]:
    """Every array of the training file."""
    network = network_from_rule(rule).train()
    images = torch.stack([network_input(stored[k]) for k in ("img_bgr", "ref_bgr")])

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(stored[name])

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
    pyramid = network.backbone(images)
    target_pyramid = [level[:1] for level in pyramid]
    semantic, rpn = network.semantic(target_pyramid), network.rpn(target_pyramid)
    rows: list[Row] = []
    own = numpy(propose(rpn, 0, size, network.config.train_proposals))
    order = same_rows(own, stored["train_proposals"])
    rows.append(compare("train_proposals", own[order], stored["train_proposals"], "float"))
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
    terms = losses.supervised([f], LossConfig())
    total = sum(terms.values(), torch.zeros(()))
    total.backward()  # type: ignore[no-untyped-call]
    out["loss/total"] = numpy(total)[None]
    for name, value in out.items():
        kind = "loss" if name.startswith("loss/") else "float" if value.dtype.kind == "f" else "exact"
        rows.append(compare(name, value, stored[name], kind))
    seen = set(out) | {"train_proposals", "img_bgr", "ref_bgr"}
    seen |= {
        "gt_bboxes",
        "gt_labels",
        "gt_masks",
        "gt_obj_ids",
        "gt_semantic_seg",
        "ref_bboxes",
        "ref_labels",
        "ref_obj_ids",
    }
    rows += gradient_rows(network, stored)
    return rows, seen | {"grad_names", "grad_l2", "grad_first8"}


def training_arrays(
    network: VPSNet,
    f: FrameTraining,
    truth: FrameTargets,
    reference: FrameTargets,
    pyramid: list[Tensor],
    rpn: Any,
    size: tuple[int, int],
) -> Arrays:
    """Samples, targets, outputs and losses of the step under the names of the file."""
    all_anchors = torch.cat(anchors(rpn))
    inside = (all_anchors[:, :2] >= 0).all(1) & (all_anchors[:, 2] < size[1]) & (all_anchors[:, 3] < size[0])
    rank = torch.cumsum(inside, 0) - 1
    positive = len(f.roi.truth)
    weights = LossConfig()
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


def gradient_rows(network: VPSNet, stored: Arrays) -> list[Row]:
    """Each parameter's gradient against its stored length and first eight values; none may lack one."""
    ours = {published_name(k): p.grad for k, p in network.named_parameters() if p.grad is not None}
    names = [str(n) for n in stored["grad_names"]]
    missing = sorted(set(names) ^ set(ours))
    rows = [Row("grad_names", len(missing), 0, "names in one only" + (f": {missing[:3]}" if missing else ""))]
    for name, length, first in zip(names, stored["grad_l2"], stored["grad_first8"]):
        if name not in ours:
            continue
        grad = numpy(ours[name]).astype(np.float64)
        rows.append(
            Row(
                f"grad_l2/{name}",
                abs(float(np.sqrt((grad**2).sum())) - float(length)),
                FLOAT_TOLERANCE * float(length),
                "of its length",
            )
        )
        head = np.zeros(8)
        head[: min(8, grad.size)] = grad.ravel()[:8]
        rows.append(
            Row(
                f"grad_first8/{name}",
                float(np.abs(head - first).max()),
                FLOAT_TOLERANCE * float(length),
                "of its length",
            )
        )
    return rows


# --- the run ----------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[dict[str, Any], Arrays], tuple[list[Row], set[str]]]] = {
    "vpsnet_track_small.npz": check_inference,
    "vpsnet_track_losses.npz": check_training,
}


def check_folder(folder: Path) -> tuple[list[Row], list[str], list[str]]:
    """All rows; arrays that were not compared; files that are of other models."""
    rule = json.loads((folder / "weights_rule.json").read_text())
    rows: list[Row] = []
    left: list[str] = []
    files = sorted(p.name for p in folder.glob("*.npz"))
    for file in files:
        if file in CHECKS:
            with np.load(folder / file) as data:
                stored = {name: data[name] for name in data.files}
            found, seen = CHECKS[file](rule, stored)
            rows += [replace(row, name=f"{file.removesuffix('.npz')}: {row.name}") for row in found]
            left += [f"{file}: {name}" for name in sorted(set(stored) - seen)]
    return rows, left, [file for file in files if file not in CHECKS]


def main() -> int:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "weights_rule.json").is_file():
        print(
            "usage: check_parity.py FOLDER, with weights_rule.json and vpsnet_track_*.npz in it",
            file=sys.stderr,
        )
        return 2
    rows, left, others = check_folder(Path(sys.argv[1]))
    if not rows:
        print(f"{sys.argv[1]}: holds none of {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    for row in rows:
        verdict = "ok  " if row.passed else "FAIL"
        print(f"{verdict} {row.name:<75} {row.difference:.3g} <= {row.tolerance:.3g} {row.note}")
    for name in left:
        print(f"FAIL {name:<75} not compared")
    for file in others:
        print(f"     {file}: another model's, not looked at")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows)} rows, {failed} failed, {len(left)} arrays not compared")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
