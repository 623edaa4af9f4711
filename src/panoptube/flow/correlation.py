"""Cost volumes: how alike each pixel of one feature map is to the neighbours of the same place in another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 32
"""Columns that are multiplied at once."""


def correlation(a: Tensor, b: Tensor, max_displacement: int, stride: int) -> Tensor:
    """The mean over channels of `a` times `b` displaced (dossier 8.2).

    The displacements are -d, -d + s, ..., d in both directions, K of them each. Channel i * K + j of the
    result at (y, x) is mean_c a[c, y, x] * b[c, y + dy_i, x + dx_j], where `b` is 0 outside.

    Args:
        a: (N, C, H, W) of floats.
        b: the same shape and type.
        max_displacement: d in pixels, a multiple of `stride`.
        stride: s in pixels.

    Returns:
        (N, K * K, H, W) with K = 2 d / s + 1; the row displacement is slowest. Differentiable in both.

    Raises:
        ValueError: the shapes differ, or `stride` doesn't divide `max_displacement`.
    """
    if a.shape != b.shape:
        raise ValueError(f"a is {tuple(a.shape)}, b is {tuple(b.shape)}; their shapes must agree")
    d = max_displacement
    if d % stride:
        raise ValueError(f"stride {stride} doesn't divide the largest displacement {d}")
    channels, height, width = a.shape[1:]
    over = -width % BLOCK
    # For each row displacement, a matrix product of each block of columns of `a` with the columns of `b` that
    # it can meet. That gives more products than are wanted, and is much faster than a pass per displacement.
    blocks = functional.pad(a, (0, over)).unfold(3, BLOCK, BLOCK)
    left = blocks.permute(2, 0, 3, 4, 1).contiguous()  # H, N, blocks, BLOCK, C
    blocks = functional.pad(b, (d, d + over, d, d)).unfold(3, BLOCK + 2 * d, BLOCK)
    right = blocks.permute(2, 0, 3, 1, 4).contiguous()  # H + 2 d, N, blocks, C, BLOCK + 2 d
    volume = [
        _diagonals(left @ right[y : y + height])[..., ::stride].flatten(2, 3)[:, :, :width]
        for y in range(0, 2 * d + 1, stride)
    ]
    return torch.cat(volume, 3).permute(1, 3, 0, 2) / channels


def _diagonals(products: Tensor) -> Tensor:
    """(..., n, n + 2 d) -> (..., n, 2 d + 1): entries x, x + 1, ..., x + 2 d of row x.

    Read as rows that are one longer, each row starts one entry further left.
    """
    n, columns = products.shape[-2:]
    longer = functional.pad(products.flatten(-2), (0, n)).view(*products.shape[:-1], columns + 1)
    return longer[..., : columns - n + 1]
