"""Fuse neck: features of a reference frame, brought to this one's places by flow, join its own (dossier 8.3).

B: frames, C: channels of the pyramid, h, w: size of P2, both even. Flow is in pixels of that size, x first,
and leads from this frame to the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panoptube.flow.correlation import correlation

DISPLACEMENT = 4
"""Pixels of P2 that the residual flow can look around in each direction."""
RESIDUAL_WIDTHS = (64, 64, 32)
SLOPE = 0.1
"""Of the leaky ReLUs."""


class FuseNeck(nn.Module):
    """Gathers both pyramids, warps the reference's twice, fuses, and adds the result to each level.

    Args:
        channels: C.
        legacy: warp as published, see `warp`.
    """

    def __init__(self, channels: int, legacy: bool = False) -> None:
        super().__init__()
        self.legacy = legacy
        self.residual = ResidualFlow(channels)
        self.attention = FrameAttention(channels)
        self.refine = nn.Conv2d(channels, channels, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, pyramid: Sequence[Tensor], reference: Sequence[Tensor], flow: Tensor) -> list[Tensor]:
        """P2..P6 for the heads.

        Args:
            pyramid: P2..P6 of these frames.
            reference: those of their references.
            flow: (B, 2, h, w).
        """
        target = gather(pyramid)
        warped = warp(gather(reference), flow, self.legacy)
        warped = warp(warped, self.residual(target, warped, flow), self.legacy)
        return scatter(pyramid, F.relu(self.refine(self.attention(target, warped))))


def gather(pyramid: Sequence[Tensor]) -> Tensor:
    """P2.. -> (B, C, h, w), the mean of all levels, each brought to P2's size by nearest interpolation."""
    size = pyramid[0].shape[-2:]
    total = pyramid[0]
    for level in pyramid[1:]:
        total = total + F.interpolate(level, size=size, mode="nearest")
    return total / len(pyramid)


def scatter(pyramid: Sequence[Tensor], fused: Tensor) -> list[Tensor]:
    """Adds (B, C, h, w) to each level: as it is to P2, by adaptive max pooling to the smaller ones."""
    smaller = [level + F.adaptive_max_pool2d(fused, level.shape[-2:]) for level in pyramid[1:]]
    return [pyramid[0] + fused, *smaller]


def warp(features: Tensor, flow: Tensor, legacy: bool) -> Tensor:
    """`features` at p + flow(p), bilinear, 0 outside.

    Args:
        features: (B, C, h, w).
        flow: (B, 2, h, w).
        legacy: as published (dossier D8): the grid has -1 and 1 at the centres of the outer pixels, but is
            read as if these were the outer edges. So x is sampled at (x + u) w / (w - 1) - 1/2, and flow 0
            shifts by up to half a pixel.

    Returns:
        (B, C, h, w), float32 where the features have half precision: in it, places would be off by pixels.
    """
    height, width = flow.shape[-2:]
    flow = flow.to(torch.promote_types(flow.dtype, torch.float32))
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 1]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(features.to(grid.dtype), grid, padding_mode="zeros", align_corners=not legacy)


class ResidualFlow(nn.Module):
    """What the flow still lacks, from the correlation of features with the warped ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = channels + (2 * DISPLACEMENT + 1) ** 2 + 2
        widths = (first, *RESIDUAL_WIDTHS, 2)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))

    def forward(self, target: Tensor, warped: Tensor, flow: Tensor) -> Tensor:
        """Two (B, C, h, w), (B, 2, h, w) -> (B, 2, h, w)."""
        x = torch.cat([target, correlation(target, warped, DISPLACEMENT, 1), flow], 1)
        for conv in self.convs[:-1]:
            x = F.leaky_relu(conv(x), SLOPE)
        return self.convs[-1](x)  # type: ignore[no-any-return]


class FrameAttention(nn.Module):
    """Weighs frames by how alike they are to this one, joins them, and weighs places (TCEA, dossier 8.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, channels, 3, padding=1)
        self.embed_target = nn.Conv2d(channels, channels, 3, padding=1)
        self.join = nn.Conv2d(2 * channels, channels, 1)
        self.spatial1 = nn.Conv2d(2 * channels, channels, 1)
        self.spatial2 = nn.Conv2d(2 * channels, channels, 1)
        self.spatial3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.spatial4 = nn.Conv2d(channels, channels, 3, padding=1)
        self.add1 = nn.Conv2d(channels, channels, 1)
        self.add2 = nn.Conv2d(channels, channels, 1)

    def forward(self, target: Tensor, warped: Tensor) -> Tensor:
        """Two (B, C, h, w) -> (B, C, h, w)."""
        center = self.embed_target(target)
        frames = [
            frame * torch.sigmoid((self.embed(frame) * center).sum(1, keepdim=True))
            for frame in (target, warped)
        ]
        both = torch.cat(frames, 1)
        joined = F.leaky_relu(self.join(both), SLOPE)
        x = F.leaky_relu(self.spatial1(both), SLOPE)
        x = torch.cat([F.max_pool2d(x, 3, 2, padding=1), F.avg_pool2d(x, 3, 2, padding=1)], 1)
        x = F.leaky_relu(self.spatial2(x), SLOPE)
        x = F.leaky_relu(self.spatial3(x), SLOPE)
        x = self.spatial4(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
        add: Tensor = self.add2(F.leaky_relu(self.add1(x), SLOPE))
        return joined * torch.sigmoid(x) * 2 + add
