"""The network that sees one frame, written as one file for ONNX Runtime or OpenVINO.

The file holds everything that has weights, with proposals and suppression in between: image in, detections
out. What follows without weights (assembly, ids) is `VideoPredictor`'s, which runs such a file as it runs the
network itself (`network/exported.py`).

A graph's sizes may change from frame to frame, so what `rpn.propose`, `roi.select` and `roi.pool` decide with
Python's numbers is said here with tensors. The order of what is kept is the same.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.onnx.operators import shape_as_tensor

from panoptube.config import NetworkConfig, RunConfig
from panoptube.data.new_file import writing
from panoptube.errors import UserError
from panoptube.network.backbone import STRIDES
from panoptube.network.boxes import MAX_LOG_RATIO, ROI_STD, RPN_STD, nms
from panoptube.network.deform import DeformConv2d
from panoptube.network.exported import INPUTS, OUTPUTS, SUFFIXES
from panoptube.network.roi import BOX_SIZE, MASK_SIZE, NMS_IOU, pool
from panoptube.network.rpn import NMS_IOU as RPN_NMS_IOU
from panoptube.network.rpn import base_anchors
from panoptube.network.vpsnet import VPSNet
from panoptube.network.weights import load_weights
from panoptube.panoptic.frame import Taxonomy
from panoptube.predict import shipped_weights

Format = Literal["onnx", "openvino"]

OPSET = 17
"""Of the ONNX standard; the first with all that is needed is 16."""

TRACED_AT = (128, 192)
"""Height and width of the frame that a graph of any size is traced with."""


def export(
    out: str | Path,
    weights: str | Path | None = None,
    format: Format = "onnx",
    size: tuple[int, int] | None = None,
) -> Path:
    """Write the network as one file that other programs run.

    Inputs and outputs are described in docs/export.md. ONNX is one file; OpenVINO's has its weights beside it
    in a file that ends in .bin.

    Args:
        out: the file, ending in .onnx or .xml.
        weights: what `panoptube train` wrote; None takes those that come with panoptube.
        format: onnx or openvino.
        size: height and width of the padded frame, multiples of 32, if they shall be fixed; None lets the
            file take frames of any size.

    Returns:
        The file.

    Raises:
        UserError: a package is missing, the network fuses frames or is a `legacy` one, the size is no
            multiple of 32, the name has another ending, or the file can't be written.
    """
    out = Path(out)
    if out.suffix != SUFFIXES[format]:
        raise UserError(f"{out}: a file of {format} is named *{SUFFIXES[format]}; change --out or --format")
    for package in ("onnx", "openvino") if format == "openvino" else ("onnx",):
        if importlib.util.find_spec(package) is None:
            raise UserError(f'export needs {package}; pip install "panoptube[{format}]"')
    if size is not None and any(edge < 32 or edge % 32 for edge in size):
        raise UserError(f"the size is {size[0]} {size[1]}; give multiples of 32")
    network, run = load_weights(shipped_weights() if weights is None else Path(weights))
    if network.config.fuse:
        raise UserError("this network fuses two frames; only one that sees one frame can be exported")
    if network.config.legacy:
        raise UserError("this network is computed as published (legacy); it can't be exported")
    about = _about(run, network.taxonomy, size)
    with writing(out), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        part = Path(folder) / "network.onnx"
        # OpenVINO's own fixing of the size takes seconds, its reading of a graph of fixed size many minutes.
        dynamic = size is None or format == "openvino"
        _trace(FrameGraph(network), part, TRACED_AT if size is None else size, dynamic)
        if format == "onnx":
            _add_metadata(part, about)
            os.replace(part, out)
        else:
            _convert(part, about, size)
            os.replace(part.with_suffix(".bin"), out.with_suffix(".bin"))
            os.replace(part.with_suffix(".xml"), out)
    return out


def _about(run: RunConfig, taxonomy: Taxonomy, size: tuple[int, int] | None) -> dict[str, str]:
    """What the file says of itself, as text."""
    about = {"run": run.to_yaml(), "taxonomy": json.dumps(taxonomy.to_dict())}
    return about if size is None else {**about, "size": f"{size[0]} {size[1]}"}


def _trace(graph: FrameGraph, path: Path, size: tuple[int, int], dynamic: bool) -> None:
    """Writes the graph as ONNX."""
    axes: dict[str, dict[int, str]] = {name: {0: "n"} for name in OUTPUTS if name != "semantic"}
    if dynamic:
        axes |= {"image": {2: "height", 3: "width"}, "semantic": {1: "quarter_height", 2: "quarter_width"}}
    example = torch.zeros(1, 3, *size), torch.tensor(size)
    with warnings.catch_warnings():  # about what is traced as a constant: it is one
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            example,
            str(path),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


def _add_metadata(path: Path, about: dict[str, str]) -> None:
    import onnx

    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, about)
    model.producer_name = "panoptube"
    onnx.save(model, str(path))


def _convert(path: Path, about: dict[str, str], size: tuple[int, int] | None) -> None:
    """Writes the ONNX file as .xml and .bin beside it."""
    import openvino

    model = openvino.convert_model(str(path))
    if size is not None:
        model.reshape({"image": [1, 3, *size]})
    for name, text in about.items():
        model.set_rt_info(text, ["panoptube", name])
    openvino.save_model(model, str(path.with_suffix(".xml")), compress_to_fp16=False)


class FrameGraph(nn.Module):
    """A network's computation for one frame, in operations that a graph of any size can hold."""

    def __init__(self, network: VPSNet) -> None:
        super().__init__()
        network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
        self.config: NetworkConfig = network.config
        for block in network.semantic.blocks:
            block.conv = _GridDeform(block.conv)  # type: ignore[union-attr, arg-type]
        self.backbone, self.rpn, self.boxes = network.backbone, network.rpn, network.boxes
        self.masks, self.semantic, self.matching = network.masks, network.semantic, network.matching
        for level, stride in enumerate(STRIDES):
            self.register_buffer(f"anchors{level}", base_anchors(stride))

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            image: (1, 3, H, W) float32 as `normalize` makes it, H and W multiples of 32.
            size: (2,) int64, height and width without padding.

        Returns:
            The fields of `Detections`, in the order of `OUTPUTS`.
        """
        pyramid = self.backbone(image)
        semantic = self.semantic(pyramid)[0]
        padded = 4 * shape_as_tensor(semantic)[1:]
        proposals = self._propose(pyramid, size)
        class_logits, deltas = self.boxes(pool(pyramid, 0, proposals, BOX_SIZE))
        boxes, labels, scores = self._select(proposals, class_logits, deltas, padded)
        # One more box, left out at the end: not every runtime can do nothing.
        some = torch.cat([boxes, boxes.new_tensor([[0.0, 0.0, 31.0, 31.0]])])
        label = torch.cat([labels, labels.new_ones(1)])
        features = pool(pyramid, 0, some, BOX_SIZE)
        embeddings = features[:, 0, 0, :0] if self.matching is None else self.matching(features)
        masks = self.masks(pool(pyramid, 0, some, MASK_SIZE))
        masks = masks.gather(1, label[:, None, None, None].expand(-1, 1, *masks.shape[2:]))[:, 0]
        return boxes, labels, scores, masks[:-1], embeddings[:-1], semantic

    def _propose(self, pyramid: Sequence[Tensor], size: Tensor) -> Tensor:
        """As `rpn.propose`: (R, 4)."""
        number = self.config.test_proposals
        output = self.rpn(pyramid)
        boxes, scores = [], []
        for level, stride in enumerate(STRIDES):
            shape = shape_as_tensor(output.objectness[level])
            y, x = _places(shape[2]) * stride, _places(shape[3]) * stride
            base = getattr(self, f"anchors{level}")
            corner_y, corner_x = base[:, 1::2] + y[:, None, None, None], base[:, ::2] + x[:, None, None]
            shift_x = corner_x[None] + torch.zeros_like(corner_y[:, :, :, :1])
            shift_y = corner_y + torch.zeros_like(corner_x[None, :, :, :1])
            anchors = torch.stack([shift_x, shift_y], -1).reshape(-1, 4).float()
            score = output.objectness[level][0].permute(1, 2, 0).reshape(-1).sigmoid()
            deltas = output.deltas[level][0].permute(1, 2, 0).reshape(-1, 4)
            score, best = _best(score, number)
            decoded = _decode(anchors[best], deltas[best], RPN_STD, size, True)
            kept = nms(decoded, score, RPN_NMS_IOU).sort().values
            boxes.append(decoded[kept])
            scores.append(score[kept])
        return torch.cat(boxes)[_best(torch.cat(scores), number)[1]]

    def _select(
        self, proposals: Tensor, class_logits: Tensor, deltas: Tensor, padded: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `roi.select`: boxes (n, 4), labels (n,) int64, scores (n,)."""
        probability = class_logits.softmax(1)
        region, label = torch.nonzero(probability[:, 1:] > self.config.least_score).unbind(1)
        label = label + 1
        scores = probability[region, label]
        boxes = _decode(proposals[region], deltas[region, label], ROI_STD, padded, False)
        keep = nms(boxes, scores, NMS_IOU)
        most = self.config.max_detections
        least = torch.cat([scores[keep][most - 1 : most], scores.new_zeros(1)])[0]
        keep = keep[scores[keep] >= least]
        return boxes[keep], label[keep], scores[keep]


class _GridDeform(nn.Module):
    """`DeformConv2d` by `grid_sample`, a tap at a time."""

    def __init__(self, conv: DeformConv2d) -> None:
        super().__init__()
        self.offset, self.weight, self.padding = conv.offset, conv.weight, conv.padding

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, H, W) -> (1, O, H, W)."""
        offset = self.offset(x)
        shape = shape_as_tensor(x)
        height, width = shape[2], shape[3]
        y, x_place = _places(height).float()[:, None], _places(width).float()[None]
        # With align_corners, -1 and 1 are the middles of the first and the last pixel.
        scale_y, scale_x = 2 / (height - 1).float(), 2 / (width - 1).float()
        rows, columns = self.weight.shape[2:]
        total: Any = 0
        for tap in range(rows * columns):
            dy, dx = tap // columns - self.padding, tap % columns - self.padding
            to_y = (y + dy + offset[0, 2 * tap]) * scale_y - 1
            to_x = (x_place + dx + offset[0, 2 * tap + 1]) * scale_x - 1
            sampled = F.grid_sample(x, torch.stack([to_x, to_y], -1)[None], align_corners=True)
            total = total + F.conv2d(sampled, self.weight[:, :, tap // columns, tap % columns, None, None])
        return total  # type: ignore[no-any-return]


def _places(length: Tensor) -> Tensor:
    """() int64 -> 0, 1, ... (length,) int64."""
    return torch.arange(length)  # type: ignore[call-overload, no-any-return]


def _best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The largest scores, at most so many, and where they are."""
    count = torch.minimum(shape_as_tensor(scores)[0], torch.tensor(number))
    best = scores.topk(count)  # type: ignore[arg-type]
    return best.values, best.indices


def _decode(boxes: Tensor, deltas: Tensor, std: Sequence[float], size: Tensor, clamp_below: bool) -> Tensor:
    """As `boxes.decode` with one alternative: (N, 4), (N, 4) -> (N, 4)."""
    deltas = deltas * deltas.new_tensor(std)
    extent, center = boxes[:, 2:] - boxes[:, :2] + 1, (boxes[:, :2] + boxes[:, 2:]) * 0.5
    log_ratio = deltas[:, 2:].clamp(min=-MAX_LOG_RATIO if clamp_below else None, max=MAX_LOG_RATIO)
    center, half = center + extent * deltas[:, :2], extent * log_ratio.exp() * 0.5
    limit = (size.flip(0) - 1).float()
    low = torch.minimum((center - half + 0.5).clamp(min=0), limit)
    high = torch.minimum((center + half - 0.5).clamp(min=0), limit)
    return torch.cat([low, high], 1)
