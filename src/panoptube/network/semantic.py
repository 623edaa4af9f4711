"""Semantic head: deformable convolutions shared by P2..P5 (dossier section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panoptube.network.deform import DeformConv2d


class DeformableBlock(nn.Module):
    """Deformable 3x3 convolution, group norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.conv = DeformConv2d(in_channels, out_channels)
        self.norm = nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h, w)."""
        return F.relu(self.norm(self.conv(x)))


class SemanticHead(nn.Module):
    """One stack for P2..P5, upsampled to P2, concatenated, classified (dossier section 5)."""

    def __init__(self, channels: int, widths: Sequence[int], groups: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(DeformableBlock(a, b, groups) for a, b in zip([channels, *widths[:-1]], widths))
        )
        self.logits = nn.Conv2d(4 * widths[-1], num_classes, 1)
        nn.init.xavier_uniform_(self.logits.weight)
        assert self.logits.bias is not None
        nn.init.zeros_(self.logits.bias)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """P2.. -> (B, classes, H / 4, W / 4) logits."""
        size = pyramid[0].shape[-2:]
        features = [self.blocks(level) for level in pyramid[:4]]
        features = [features[0], *(_upsample(f, size) for f in features[1:])]
        return self.logits(torch.cat(features, 1))  # type: ignore[no-any-return]


def _upsample(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def full_size(logits: Tensor) -> Tensor:
    """(B, C, H / 4, W / 4) -> (B, C, H, W), bilinear."""
    return F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
