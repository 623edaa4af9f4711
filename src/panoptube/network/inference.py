"""The network for prediction alone: the same results from less work (dossier 2 to 5, 7.1).

What differs from training's network: batch norm is folded into the convolutions before it; channels lie side
by side in memory, so that features of a place are one row; regions are gathered from such rows; the semantic
head classifies each level at its own size and enlarges the logits, which is the same as to classify the
enlarged features, since bilinear weights add up to 1; and heavy layers may have half precision. Boxes,
scores, suppression and all logits that something is decided by are float32 in any case.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from panoptube.errors import UserError
from panoptube.network.backbone import STRIDES
from panoptube.network.deform import jit, sampled_conv2d
from panoptube.network.match import MatchHead, brought_to
from panoptube.network.roi import BOX_SIZE, BoxHead, MaskHead, pool, roi_levels
from panoptube.network.rpn import RegionProposals, RpnOutput
from panoptube.network.semantic import DeformableBlock, SemanticHead
from panoptube.network.vpsnet import VPSNet

Precision = Literal["auto", "float32", "bf16", "fp16"]

Module = TypeVar("Module", bound=nn.Module)

BAND = 2048
"""Places that are brought to float32 at a time: they stay in a core's cache until they are multiplied."""


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What `for_inference` shall compute in.

    `auto` is float32, but bfloat16 on a CPU that multiplies it natively (AVX512-BF16 or AMX), and faster.

    Raises:
        UserError: half precision of a kind that the device computes slowly or not at all.
    """
    if precision == "auto":
        return torch.bfloat16 if device.type == "cpu" and _bfloat16_pays() else torch.float32
    if precision == "fp16" and device.type == "cpu":
        raise UserError("fp16 needs a GPU; take bf16, float32 or auto on a CPU")
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _bfloat16_pays() -> bool:
    """Whether this CPU is clearly faster in bfloat16; tried out in some 20 ms.

    Instructions alone don't tell: of two CPUs with AVX512-BF16 and no AMX, an AMD EPYC multiplied bfloat16
    nearly three times as fast as float32, and an Intel Xeon half as fast.
    """
    return _native_bfloat16() and _product_time(torch.float32) > 1.2 * _product_time(torch.bfloat16)


def _product_time(dtype: torch.dtype) -> float:
    """Seconds for a product of two matrices; the best of a few."""
    matrix = torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(6):
        begin = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - begin)
    return min(times)


def _native_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products; False where PyTorch can't tell."""
    # PyTorch has no public name for it. 2.2 and 2.3 know no such function, or not both.
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        supported = getattr(torch.cpu, name, None)
        if supported is not None and supported():
            return True
    return False


def for_inference(network: VPSNet, dtype: torch.dtype = torch.float32) -> VPSNet:
    """A copy of `network` that predicts the same, faster; it can't be trained.

    Args:
        network: on the device that it shall run on; stays as it is.
        dtype: float32; bfloat16 or float16 for backbone, pyramid, and the hidden layers of the heads.

    Returns:
        A network that takes and returns what `network` does, float32 included.

    Raises:
        ValueError: `network` is a `legacy` one, which is computed as published, or the dtype is another one.
    """
    if network.config.legacy:
        raise ValueError("a network with the published behaviour is computed as published")
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype must be float32, bfloat16 or float16, got {dtype}")
    result = _Inference(network, dtype).eval().requires_grad_(False)
    return result.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Inference(VPSNet):
    """Parts with the interface of those of training, and another way to gather regions."""

    def __init__(self, network: VPSNet, dtype: torch.dtype) -> None:
        def part(module: Module) -> Module:  # one at a time, so that there is never a second whole network
            return copy.deepcopy(module).eval()

        backbone = part(network.backbone)
        fold_batch_norm(backbone)
        pad_evenly(backbone)
        _replace_relu(backbone)
        super().__init__(
            network.config,
            network.taxonomy,
            backbone.to(dtype),
            _Proposals(part(network.rpn), dtype),  # type: ignore[arg-type]
            _Boxes(part(network.boxes), dtype),  # type: ignore[arg-type]
            _Masks(part(network.masks), dtype),  # type: ignore[arg-type]
            _Semantic(part(network.semantic), dtype),  # type: ignore[arg-type]
            None if network.matching is None else _Matching(part(network.matching), dtype),  # type: ignore[arg-type]
            None if network.fuse is None else part(network.fuse),
        )
        self.backbone.register_forward_pre_hook(_Cast(dtype))
        if self.fuse is not None:  # flow and what is warped by it need float32
            self.fuse.register_forward_pre_hook(_Cast(torch.float32))
            self.fuse.register_forward_hook(_CastResult(dtype))

    def pool(self, pyramid: Sequence[Tensor], image: int, boxes: Tensor, size: int) -> Tensor:
        """As `roi.pool`; of the result the channels lie side by side."""
        if boxes.device.type == "cpu":
            return _pool_rows(pyramid, image, boxes, size)
        if pyramid[0].dtype == torch.bfloat16:  # which torchvision's operator doesn't know everywhere
            return pool([level.float() for level in pyramid], image, boxes, size).bfloat16()
        return pool(pyramid, image, boxes, size)


class _Cast:
    """A hook that brings all tensors among the arguments to a dtype, channels last where there are any."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def of(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(self.dtype, memory_format=torch.channels_last)
        return [self.of(v) for v in value]

    def __call__(self, module: nn.Module, arguments: Any) -> Any:
        return tuple(self.of(a) for a in arguments)


class _CastResult(_Cast):
    """The same for a result."""

    def __call__(self, module: nn.Module, arguments: Any, result: Any = None) -> Any:
        return self.of(result)


def fold_batch_norm(backbone: nn.Module) -> None:
    """Puts each batch norm into the convolution whose output it gets, in place; evaluation mode only.

    Which these are is seen from a run with a small picture, so that any backbone will do.
    """
    seen: list[tuple[nn.Conv2d, Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def convolved(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        seen.append((module, output))

    def normed(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        pairs.extend((conv, module) for conv, output in seen if output is arguments[0])

    hooks = [m.register_forward_hook(convolved) for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    hooks += [
        m.register_forward_pre_hook(normed) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 64, 64, device=next(backbone.parameters()).device))
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in backbone.named_modules()}
    for conv, norm in pairs:
        folded = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = folded.weight, folded.bias
        parent, _, name = names[norm].rpartition(".")
        # timm's batch norms apply the activation, too.
        rest = [m for m in (getattr(norm, "drop", None), getattr(norm, "act", None)) if m is not None]
        for module in rest:
            if hasattr(module, "inplace"):  # nothing else reads the convolution's output
                module.inplace = True
        setattr(backbone.get_submodule(parent), name, nn.Sequential(*rest))


SIX = 0x40C0
"""The bits of 6 in bfloat16."""


def relu_(x: Tensor, clipped: bool = False) -> Tensor:
    """ReLU in place, or ReLU6 if `clipped`.

    A CPU compares bfloat16 as the whole numbers with the same bits, which is four times as fast: those of
    positive numbers have the same order, those of negative ones are negative. NaN doesn't stay NaN.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu":
        x.view(torch.int16).clamp_(0, SIX if clipped else None)
        return x
    return F.relu6(x, inplace=True) if clipped else F.relu_(x)


class _Relu(nn.Module):
    def __init__(self, clipped: bool) -> None:
        super().__init__()
        self.clipped = clipped

    def forward(self, x: Tensor) -> Tensor:
        return relu_(x, self.clipped)


def _replace_relu(backbone: nn.Module) -> None:
    """Puts `relu_` where a module does the same."""
    for name, module in list(backbone.named_modules()):
        if type(module) in (nn.ReLU, nn.ReLU6) and getattr(module, "inplace", False):
            parent, _, own = name.rpartition(".")
            setattr(backbone.get_submodule(parent), own, _Relu(isinstance(module, nn.ReLU6)))


def pad_evenly(backbone: nn.Module) -> None:
    """Convolutions of stride 2 that pad a side by one pixel more get the padding of ordinary ones, in place.

    So an even input isn't copied to be padded. A row and a column of zeros before the kernel's others give
    the same result.
    """
    for name, conv in list(backbone.named_modules()):
        if not isinstance(conv, Conv2dSame):
            continue
        kernel = conv.kernel_size[0]
        shape = conv.kernel_size, conv.stride, conv.dilation
        if kernel < 3 or kernel % 2 == 0 or shape != ((kernel, kernel), (2, 2), (1, 1)):
            continue
        even = nn.Conv2d(
            conv.in_channels, conv.out_channels, kernel + 1, 2, kernel // 2, groups=conv.groups, device="meta"
        )
        even.weight, even.bias = nn.Parameter(F.pad(conv.weight.detach(), (1, 0, 1, 0))), conv.bias
        parent, _, own = name.rpartition(".")
        setattr(backbone.get_submodule(parent), own, even)


def _rows(x: Tensor) -> Tensor:
    """(B, C, H, W), channels last -> (B * H * W, C), the same memory."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution in float32 of an input of any precision.

    Args:
        x: (B, C, H, W), channels last.
        weight: (O, C) float32.
        bias: (O,) float32, or None.

    Returns:
        (B, O, H, W) float32, channels last.
    """
    rows = _rows(x)
    if rows.dtype == torch.float32 or rows.device.type != "cpu":
        result = F.linear(rows.float(), weight, bias)
    else:
        result = torch.empty(len(rows), len(weight))
        for first in range(0, len(rows), BAND):
            result[first : first + BAND] = F.linear(rows[first : first + BAND].float(), weight, bias)
    return result.view(x.shape[0], x.shape[2], x.shape[3], len(weight)).permute(0, 3, 1, 2)


class _Proposals(nn.Module):
    """`RegionProposals`, whose last layers are one product in float32."""

    def __init__(self, head: RegionProposals, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = head.conv.to(dtype)
        last = (head.objectness, head.deltas)
        self.weight = nn.Parameter(torch.cat([layer.weight.flatten(1) for layer in last]))
        self.bias = nn.Parameter(torch.cat([layer.bias for layer in last if layer.bias is not None]))
        self.anchors = head.objectness.out_channels

    def forward(self, pyramid: Sequence[Tensor]) -> RpnOutput:
        """P2..P6 -> RpnOutput, float32."""
        both = [pointwise(relu_(self.conv(level)), self.weight, self.bias) for level in pyramid]
        return RpnOutput([b[:, : self.anchors] for b in both], [b[:, self.anchors :] for b in both])


class _Semantic(nn.Module):
    """`SemanticHead`, classifying before it enlarges."""

    def __init__(self, head: SemanticHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.blocks = head.blocks.to(dtype)
        assert head.logits.bias is not None
        self.bias = nn.Parameter(head.logits.bias.detach())
        levels = head.logits.weight.detach().flatten(1).chunk(4, 1)
        self.weights = nn.ParameterList(nn.Parameter(w.contiguous()) for w in levels)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """P2.. -> (B, classes, H / 4, W / 4) float32 logits."""
        size = pyramid[0].shape[-2:]
        total = self.bias[:, None, None]
        for level, weight in zip(pyramid[:4], self.weights):
            x = level
            for block in self.blocks:
                assert isinstance(block, DeformableBlock)
                conv = block.conv
                x = sampled_conv2d(x, conv.offset(x), conv.weight, conv.padding)
                x = relu_(block.norm(x))
            logits = pointwise(x, weight, None)
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            total = total + logits
        return total.contiguous()


def _flat(features: Tensor) -> Tensor:
    """(R, C, s, s) -> (R, s * s * C), no copy where channels lie side by side."""
    return features.permute(0, 2, 3, 1).flatten(1)


def _first_layer(layer: nn.Linear, channels: int, dtype: torch.dtype) -> nn.Linear:
    """Changes the layer to one for `_flat` features, which have another order than training's."""
    weight = layer.weight.detach().view(layer.out_features, channels, -1).transpose(1, 2)
    layer.weight = nn.Parameter(weight.to(dtype).flatten(1))
    return layer.to(dtype)


class _Boxes(nn.Module):
    """`BoxHead`, whose last layers are float32."""

    def __init__(self, head: BoxHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.fc1 = _first_layer(head.fc1, head.fc1.in_features // BOX_SIZE**2, dtype)
        self.fc2 = head.fc2.to(dtype)
        self.classes, self.deltas = head.classes, head.deltas

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, 7, 7) -> class logits (R, K + 1), deltas (R, K + 1, 4), float32."""
        hidden = relu_(self.fc2(relu_(self.fc1(_flat(features))))).float()
        classes = self.classes(hidden)
        return classes, self.deltas(hidden).view(len(features), classes.shape[1], 4)


class _Matching(nn.Module):
    """`MatchHead`, whose last layer is float32."""

    def __init__(self, head: MatchHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.fc1 = _first_layer(head.fc1, head.fc1.in_features // BOX_SIZE**2, dtype)
        self.fc2, self.length = head.fc2, head.length

    def forward(self, features: Tensor) -> Tensor:
        """(R, C, 7, 7) -> (R, D) embeddings, float32."""
        return brought_to(self.fc2(relu_(self.fc1(_flat(features))).float()), self.length)


class _Masks(nn.Module):
    """`MaskHead`, whose last layer is float32."""

    def __init__(self, head: MaskHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.convs, self.upsample = head.convs.to(dtype), head.upsample.to(dtype)
        assert head.logits.bias is not None
        self.weight = nn.Parameter(head.logits.weight.detach().flatten(1))
        self.bias = nn.Parameter(head.logits.bias.detach())

    def of_class(self, features: Tensor, labels: Tensor) -> Tensor:
        """(R, C, 14, 14), (R,) int64 -> (R, 28, 28) float32, the logits of each region's own class."""
        x = features
        for conv in self.convs:
            x = relu_(conv(x))
        x = relu_(self.upsample(x)).contiguous(memory_format=torch.channels_last)
        logits = pointwise(x, self.weight, self.bias)
        return logits[torch.arange(len(labels), device=labels.device), labels]


def _pool_rows(pyramid: Sequence[Tensor], image: int, boxes: Tensor, size: int) -> Tensor:
    """`roi.pool` on the CPU: each cell is a weighted sum of 16 rows, four samples of four pixels each.

    Args:
        pyramid: P2.. (B, C, h, w), channels last; the first four are used.
        image: which of the batch.
        boxes: (R, 4) float32.
        size: cells per side.

    Returns:
        (R, C, size, size), channels last.
    """
    levels = roi_levels(boxes)
    channels = pyramid[0].shape[1]
    result = pyramid[0].new_empty(len(boxes), size * size, channels)
    for level in range(4):
        chosen = torch.nonzero(levels == level)[:, 0]
        if len(chosen) == 0:
            continue
        features = pyramid[level][image]
        places = torch.empty(len(chosen) * size * size, 16, dtype=torch.int64)
        weights = torch.empty(len(chosen) * size * size, 16)
        scaled = boxes[chosen] / STRIDES[level]
        scaled[:, 2:] += 1 / STRIDES[level]  # inclusive ends (dossier L6)
        height, width = features.shape[1:]
        _cells(scaled.numpy(), places.numpy(), weights.numpy(), size, height, width)
        rows = features.permute(1, 2, 0).flatten(0, 1)
        pooled = F.embedding_bag(places, rows, per_sample_weights=weights.to(rows.dtype), mode="sum")
        result[chosen] = pooled.view(len(chosen), size * size, channels)
    return result.view(len(boxes), size, size, channels).permute(0, 3, 1, 2)


@jit
def _cells(
    boxes: NDArray[np.float32],
    places: NDArray[np.int64],
    weights: NDArray[np.float32],
    size: int,
    height: int,
    width: int,
) -> None:
    """Rows and weights of RoIAlign's cells, 2x2 samples in each (dossier L6).

    A sample up to a pixel outside the map is moved to its border; beyond, it is 0.

    boxes (R, 4) in cells of the map, far ends exclusive; places and weights (R * size * size, 16), written.
    """
    quarter = np.float32(0.25)
    for r in range(len(boxes)):
        cell_width, cell_height = (boxes[r, 2] - boxes[r, 0]) / size, (boxes[r, 3] - boxes[r, 1]) / size
        for cell in range(size * size):
            n = r * size * size + cell
            for sample in range(4):
                y = boxes[r, 1] + (cell // size) * cell_height + (sample // 2 + 0.5) * cell_height / 2
                x = boxes[r, 0] + (cell % size) * cell_width + (sample % 2 + 0.5) * cell_width / 2
                outside = y < -1 or y > height or x < -1 or x > width
                y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
                y0, x0 = math.floor(y), math.floor(x)
                y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
                ly, lx = y - y0, x - x0
                share = 0.0 if outside else quarter
                k = 4 * sample
                places[n, k], places[n, k + 1] = y0 * width + x0, y0 * width + x1
                places[n, k + 2], places[n, k + 3] = y1 * width + x0, y1 * width + x1
                weights[n, k], weights[n, k + 1] = (1 - ly) * (1 - lx) * share, (1 - ly) * lx * share
                weights[n, k + 2], weights[n, k + 3] = ly * (1 - lx) * share, ly * lx * share
