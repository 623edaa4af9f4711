"""The warping loss of SiamTrack (Eq. 4): logits move with the image where the flow can be trusted."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

OcclusionNorm = Literal["l2", "squared", "summed"]
WarpNorm = Literal["l2", "squared", "l1", "mse"]
WarpMean = Literal["pixels", "visible", "sum"]

EPSILON = 1e-6
"""Inside the root of Eq. 4, whose gradient would not be finite at 0 (dossier 9.4, S14)."""


def warp_bilinear(maps: Tensor, flow: Tensor) -> Tensor:
    """W(y, x) = maps at (x, y) + flow(y, x): bilinear, coordinates clamped to the border (dossier 9.4, S18).

    Examples:
        >>> ramp = torch.arange(4.0).expand(1, 2, 4)
        >>> half_right = torch.stack([torch.full((2, 4), 0.5), torch.zeros(2, 4)])
        >>> [round(x, 3) for x in warp_bilinear(ramp, half_right)[0, 0].tolist()]
        [0.5, 1.5, 2.5, 3.0]

    Args:
        maps: (K, H, W) float of the frame that the flow leads to.
        flow: (2, H, W) float in pixels, x first.

    Returns:
        (K, H, W), in the dtype of `maps`; positions in half precision are computed in float32.

    Raises:
        ValueError: shapes that don't fit.
    """
    if maps.ndim != 3 or flow.shape != (2, *maps.shape[1:]):
        raise ValueError(
            f"maps must be (K, H, W) and flow (2, H, W), got {tuple(maps.shape)}, {tuple(flow.shape)}"
        )
    if not len(maps):
        return maps
    precise = torch.promote_types(maps.dtype, torch.float32)
    flow = flow.to(precise)
    height, width = maps.shape[1:]
    x = torch.arange(width, device=flow.device) + flow[0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[1]
    # grid_sample takes -1 and 1 for the centres of the first and the last pixel
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)
    warped = F.grid_sample(maps[None].to(precise), grid[None], padding_mode="border", align_corners=True)
    return warped[0].to(maps.dtype)


def occlusion_map(image: Tensor, warped: Tensor, alpha: float = 50.0, norm: OcclusionNorm = "l2") -> Tensor:
    """exp(-alpha |I - W|): near 1 where the warped other frame looks the same, near 0 where it is hidden.

    The norm is the L2 norm over the channels, not squared, as printed below Eq. 4 (dossier 9.4, S11 and
    S12): a difference of 0.02 in each channel gives 0.18.

    Examples:
        >>> round(occlusion_map(torch.zeros(3, 1, 1), torch.full((3, 1, 1), 0.02)).item(), 2)
        0.18

    Args:
        image: (3, H, W) float in [0, 1].
        warped: (3, H, W), the other frame warped to this one.
        alpha: how strict; 0 or more.
        norm: the L2 norm; its square; or the square of the sum over the channels, as in the code of earlier
            work (S12).

    Returns:
        (H, W) in [0, 1], in the inputs' dtype.

    Raises:
        ValueError: shapes that differ.
    """
    if image.ndim != 3 or image.shape != warped.shape:
        raise ValueError(f"images must be (3, H, W) twice, got {tuple(image.shape)}, {tuple(warped.shape)}")
    difference = image - warped
    if norm == "l2":
        distance = torch.linalg.vector_norm(difference, dim=0)
    else:
        distance = difference.square().sum(0) if norm == "squared" else difference.sum(0).square()
    return torch.exp(-alpha * distance)


def warping_loss(
    logits: Tensor,
    reference_logits: Tensor,
    flow: Tensor,
    occlusion: Tensor,
    norm: WarpNorm = "l2",
    mean: WarpMean = "pixels",
) -> Tensor:
    """Mean over the pixels of O sqrt(sum over channels of d^2 + 1e-6), d = logits - warped reference (Eq. 4).

    The sum over the pixels that the paper prints is a mean here (dossier 9.4, S15). Both frames get a
    gradient.

    Examples:
        >>> logits = torch.zeros(2, 3, 3)
        >>> still, seen = torch.zeros(2, 3, 3), torch.ones(3, 3)
        >>> other = torch.tensor([3.0, 4.0])[:, None, None].expand(2, 3, 3)
        >>> round(warping_loss(logits, other, still, seen).item(), 4)
        5.0

    Args:
        logits: (K, H, W) float, channel i a segment.
        reference_logits: (K, H, W), channel i the same segment in the other frame.
        flow: (2, H, W) in pixels of these maps, x first, from this frame to the other.
        occlusion: (H, W) in [0, 1], 0 where nothing is compared.
        norm: of d over the channels: as above; its square; the sum of |d|; or the mean of d^2 (S14).
        mean: over all pixels; over those that are seen, weighted by O; or the sum that is printed (S15).

    Returns:
        (), in the inputs' dtype; 0 with a gradient of 0 if K is 0 or there are no pixels.

    Raises:
        ValueError: shapes that don't fit.
    """
    if logits.ndim != 3 or logits.shape != reference_logits.shape or occlusion.shape != logits.shape[1:]:
        raise ValueError(
            f"logits must be (K, H, W) twice and occlusion (H, W), got {tuple(logits.shape)}, "
            f"{tuple(reference_logits.shape)}, {tuple(occlusion.shape)}"
        )
    if not logits.numel():
        return (logits.sum() + reference_logits.sum()) * 0
    difference = logits - warp_bilinear(reference_logits, flow)
    squares = difference.square()
    lengths = {
        "l2": lambda: torch.sqrt(squares.sum(0) + EPSILON),
        "squared": lambda: squares.sum(0),
        "l1": lambda: difference.abs().sum(0),
        "mse": lambda: squares.mean(0),
    }
    seen = occlusion.to(logits.dtype)
    total = (seen * lengths[norm]()).sum()
    if mean == "sum":
        return total
    return total / (seen.sum().clamp(min=EPSILON) if mean == "visible" else seen.numel())
