"""Deformable convolution (DCN v1), with its own kernels on the CPU (dossier L13 and section 5).

torchvision's CPU operator would take nearly all of the training time. Here a band of pixels at a time is
gathered into columns from channels-last data, where the inner loop over channels is contiguous, and the rest
is matrix products. A bilinear sample is a weighted sum of four rows of that data, which is what torch's
embedding bag computes, on torch's threads and with its vector code. The backward pass gathers the columns
again rather than keeping them: it reads the same cache lines anyway.

The kernels of this file run on the calling thread. On two cores, more threads for them lost time: they
compete with torch's, which stay awake for the next product. It also means no thread pool that a second caller
or a forked process could trip over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag
from torchvision import ops

Array = NDArray[Any]

COLUMN_BYTES = 2 << 20
"""Size of a band's columns: they stay in a core's cache until the product has read them."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def jit(function: Kernel) -> Kernel:
    """Compiled at the first call. Sums may be reordered, which SIMD needs; NaN stays NaN."""
    compiled: Kernel = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})(function)
    return compiled


@jit
def _corner(y: float, x: float, height: int, width: int) -> int:
    """Row of pixel (y, x) among `height * width`; outside, the row of zeros that follows them."""
    if 0 <= y < height and 0 <= x < width:
        return int(y) * width + int(x)
    return height * width


@jit
def _place(
    offset: Array, rows: Array, weights: Array, first: int, shape: Any, kernel: tuple[int, ...], padding: int
) -> None:
    """Where output pixels `first` .. `first + n` are sampled: four rows of the image, and their weights.

    Outside the image it is row 0 with weight 0, or NaN where the offset isn't finite.

    offset (2 * taps, H' * W'); rows (n, taps, 4) and weights (n, taps, 4), written; shape (H, W, W').
    """
    height, width, out_width = shape
    kind = weights.dtype.type
    zero, one = kind(0), kind(1)
    for n in range(rows.shape[0]):
        pixel = first + n
        for tap in range(rows.shape[1]):
            y = pixel // out_width + tap // kernel[1] - padding + offset[2 * tap, pixel]
            x = pixel % out_width + tap % kernel[1] - padding + offset[2 * tap + 1, pixel]
            y0, x0 = math.floor(y), math.floor(x)
            ly, lx = kind(y - y0), kind(x - x0)
            weights[n, tap, 0] = (one - ly) * (one - lx)
            weights[n, tap, 1] = (one - ly) * lx
            weights[n, tap, 2] = ly * (one - lx)
            weights[n, tap, 3] = ly * lx
            for corner in range(4):
                row = _corner(y0 + corner // 2, x0 + corner % 2, height, width)
                if row == height * width:
                    row = 0
                    weights[n, tap, corner] *= zero
                rows[n, tap, corner] = row


@jit
def _scatter(
    image: Array,
    grad_image: Array,
    offset: Array,
    grad_offset: Array,
    columns: Array,
    first: int,
    shape: Any,
    kernel: tuple[int, ...],
    padding: int,
) -> None:
    """Gradients through the bilinear samples of output pixels `first` .. `first + n`.

    image (H * W + 1, C), last row zero; columns (n, taps, C) holds its own gradient and gets the samples in
    its place, which the weight's gradient needs next; grad_image (H * W + 1, C) is added to; offset and
    grad_offset (2 * taps, H' * W'), the latter written; shape (H, W, W').
    """
    height, width, out_width = shape
    outside = height * width
    kind = image.dtype.type
    zero, one = kind(0), kind(1)
    for row in range(columns.shape[0]):
        pixel = first + row
        for tap in range(columns.shape[1]):
            y = pixel // out_width + tap // kernel[1] - padding + offset[2 * tap, pixel]
            x = pixel % out_width + tap % kernel[1] - padding + offset[2 * tap + 1, pixel]
            y0, x0 = math.floor(y), math.floor(x)
            ly, lx = kind(y - y0), kind(x - x0)
            i00 = _corner(y0, x0, height, width)
            i01 = _corner(y0, x0 + 1, height, width)
            i10 = _corner(y0 + 1, x0, height, width)
            i11 = _corner(y0 + 1, x0 + 1, height, width)
            column = columns[row, tap]
            # One corner at a time: with a single array written, the loop is known to be free of overlap.
            for corner, weight in (
                (i00, (one - ly) * (one - lx)),
                (i01, (one - ly) * lx),
                (i10, ly * (one - lx)),
                (i11, ly * lx),
            ):
                if corner != outside:
                    target = grad_image[corner]
                    for c in range(column.size):
                        target[c] += weight * column[c]
            v00, v01, v10, v11 = image[i00], image[i01], image[i10], image[i11]
            grad_y, grad_x = zero, zero
            for c in range(column.size):
                across_top, across_bottom = v01[c] - v00[c], v11[c] - v10[c]
                top, bottom = v00[c] + lx * across_top, v10[c] + lx * across_bottom
                grad_y += column[c] * (bottom - top)
                grad_x += column[c] * (across_top + ly * (across_bottom - across_top))
                column[c] = top + ly * (bottom - top)
            grad_offset[2 * tap, pixel] = grad_y
            grad_offset[2 * tap + 1, pixel] = grad_x


def _channels_last(sample: Tensor) -> Tensor:
    """(C, H, W) -> (H * W + 1, C), and a row of zeros, which places outside the image read going backward.

    NumPy asks the system for huge pages, torch does not; with small ones, first touching the memory takes as
    long as filling it.
    """
    channels, height, width = sample.shape
    rows = torch.from_numpy(np.empty((height * width + 1, channels), sample.numpy().dtype))
    rows[:-1].copy_(sample.reshape(channels, -1).t())
    rows[-1] = 0
    return rows


def _bands(input: Tensor, weight: Tensor, pixels: int) -> Iterator[tuple[int, int]]:
    """First pixel and number of pixels of each band, whose columns (n, taps, C) are of COLUMN_BYTES."""
    pixel_bytes = weight.shape[2] * weight.shape[3] * input.shape[1] * input.element_size()
    size = max(1, COLUMN_BYTES // max(1, pixel_bytes))
    for first in range(0, pixels, size):
        yield first, min(size, pixels - first)


def sampled_conv2d(input: Tensor, offset: Tensor, weight: Tensor, padding: int) -> Tensor:
    """`deform_conv2d` without gradients, in half precision if that is what `input` and `weight` have.

    Places are computed in float32 (float64 if the input is). On the CPU the result is channels last, and an
    input that is so, too, is read where it lies. A GPU computes float16 as it is, bfloat16 in float32.
    """
    if input.device.type != "cpu":
        dtype = torch.float32 if input.dtype == torch.bfloat16 else input.dtype
        result = ops.deform_conv2d(input.to(dtype), offset.to(dtype), weight.to(dtype), padding=padding)
        return result.to(input.dtype)  # type: ignore[no-any-return]
    place_dtype = torch.promote_types(input.dtype, torch.float32)
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
    # Channels last: a band of the product is then one piece of memory, and the fastest to compute.
    output = input.new_empty(len(input), *offset.shape[2:], len(weight))
    shape, kernel = (*input.shape[2:], offset.shape[3]), tuple(weight.shape[2:])
    taps = kernel[0] * kernel[1]
    images = input.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1, 2)
    for rows, offsets, out in zip(
        images, offset.to(place_dtype).contiguous().flatten(2), output.flatten(1, 2)
    ):
        for first, size in _bands(input, weight, offsets.shape[1]):
            places = torch.empty(size, taps, 4, dtype=torch.int64)
            weights = torch.empty(size, taps, 4, dtype=place_dtype)
            _place(offsets.numpy(), places.numpy(), weights.numpy(), first, shape, kernel, padding)
            columns = embedding_bag(
                places.flatten(0, 1),
                rows,
                per_sample_weights=weights.to(rows.dtype).flatten(0, 1),
                mode="sum",
            )
            torch.mm(columns.view(size, -1), matrix, out=out[first : first + size])
            del columns  # so that the next band gets the same memory, still in the cache
    return output.permute(0, 3, 1, 2)


class _DeformConv2d(torch.autograd.Function):
    """The CPU operator. Arguments as `deform_conv2d`, all of the same dtype, float32 or float64.

    Products are written with `out=`, which autocast leaves alone.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, offset: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(input, offset, weight)
        ctx.padding = padding
        return sampled_conv2d(input.detach(), offset.detach(), weight.detach(), padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        input, offset, weight = ctx.saved_tensors
        input, offset, weight = input.detach(), offset.detach(), weight.detach()
        matrix = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        grad_matrix = torch.zeros_like(matrix)
        grad_input = torch.empty_like(input, memory_format=torch.contiguous_format)
        grad_offset = torch.empty_like(offset, memory_format=torch.contiguous_format)
        shape, kernel = (*input.shape[2:], offset.shape[3]), tuple(weight.shape[2:])
        taps = kernel[0] * kernel[1]
        for b, (offsets, grad) in enumerate(
            zip(offset.contiguous().flatten(2), grad_output.contiguous().flatten(2))
        ):
            rows = _channels_last(input[b])
            grad_rows = torch.zeros_like(rows)
            grad_offsets = grad_offset[b].flatten(1)
            for first, size in _bands(input, weight, offsets.shape[1]):
                columns = rows.new_empty(size, taps, rows.shape[1])
                part, flat = grad[:, first : first + size], columns.flatten(1)
                torch.mm(part.t(), matrix, out=flat)
                _scatter(
                    rows.numpy(),
                    grad_rows.numpy(),
                    offsets.numpy(),
                    grad_offsets.numpy(),
                    columns.numpy(),
                    first,
                    shape,
                    kernel,
                    ctx.padding,
                )
                torch.addmm(grad_matrix, part, flat, out=grad_matrix)
            grad_input[b].flatten(1).copy_(grad_rows[:-1].t())
        grad_weight = grad_matrix.view(len(weight), *kernel, -1).permute(0, 3, 1, 2)
        return grad_input, grad_offset, grad_weight.contiguous(), None


def deform_conv2d(input: Tensor, offset: Tensor, weight: Tensor, padding: int = 1) -> Tensor:
    """Deformable convolution, version 1: each tap reads the input, bilinearly, at its place plus an offset.

    Stride 1, dilation 1, one group, no bias; zero outside the input (dossier L13). The same as
    torchvision.ops.deform_conv2d, which does the work on a GPU. On the CPU it is this file's own, which may
    be called from several threads at a time, gives the same bits every time, and keeps nothing but its
    arguments for the backward pass.

    float64 is computed in float64, everything else in float32; the result has the input's dtype.

    Args:
        input: (B, C, H, W), any memory format.
        offset: (B, 2 * kh * kw, H', W') in pixels: (dy, dx) of the first tap, of the second, ..., row by row.
        weight: (O, C, kh, kw).
        padding: zeros around the input, in pixels; H' = H + 2 * padding - kh + 1, and W' alike.

    Returns:
        (B, O, H', W').

    Raises:
        ValueError: the shapes don't fit.
    """
    taps = weight.shape[2] * weight.shape[3]
    size = [n + 2 * padding - k + 1 for n, k in zip(input.shape[2:], weight.shape[2:])]
    if input.ndim != 4 or weight.ndim != 4 or weight.shape[1] != input.shape[1]:
        raise ValueError(f"input {tuple(input.shape)} does not fit the weight {tuple(weight.shape)}")
    if list(offset.shape) != [input.shape[0], 2 * taps, *size]:
        raise ValueError(
            f"offset is {tuple(offset.shape)}; the input needs {(input.shape[0], 2 * taps, *size)}"
        )
    dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
    arguments = input.to(dtype), offset.to(dtype), weight.to(dtype)
    if input.device.type == "cpu":
        result: Tensor = _DeformConv2d.apply(*arguments, padding)
    else:
        result = ops.deform_conv2d(*arguments, padding=padding)
    return result.to(input.dtype)


class DeformConv2d(nn.Module):
    """Deformable convolution that predicts its own offsets from its input (dossier 5).

    `offset` is an ordinary convolution with bias, Xavier-uniform with zero bias, so that offsets start small
    but not zero. `weight` (out, in, k, k) is uniform in +-1 / sqrt(in * k * k); no bias.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.padding = kernel_size // 2
        self.offset = nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size, padding=self.padding)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.xavier_uniform_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)
        bound = 1 / math.sqrt(in_channels * kernel_size**2)
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W) for an odd kernel size."""
        return deform_conv2d(x, self.offset(x), self.weight, self.padding)
