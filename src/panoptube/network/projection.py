"""Segment embeddings for SiamTrack's contrastive loss (dossier 9.1); in training only, not in weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Resize = Literal["nearest", "bilinear"]
Gather = Literal["sum", "mean"]


class ProjectionHead(nn.Module):
    """Pyramid levels joined at the finest one's size, two 3x3 convolutions, unit length at every pixel.

    The figure of the paper shows a sum and two convolutions with a ReLU between; widths, the number of levels
    and the way to resize are choices (dossier 9.4, S5 and S6).

    Args:
        in_channels: of the pyramid.
        widths: channels after the first and after the second convolution.
        levels: how many pyramid levels are joined, from P2 on.
        resize: how coarser levels are brought to P2's size.
        gather: whether levels are summed or averaged.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, int] = (256, 256),
        levels: int = 5,
        resize: Resize = "nearest",
        gather: Gather = "sum",
    ) -> None:
        super().__init__()
        self.levels, self.resize, self.gather = levels, resize, gather
        self.first = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.second = nn.Conv2d(widths[0], widths[1], 3, padding=1)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """P2..P6, (B, C, H_l, W_l) each -> (B, D, H / 4, W / 4), of length 1 at every pixel."""
        joined = gather_levels(pyramid[: self.levels], self.resize, self.gather)
        projected: Tensor = self.second(self.first(joined).relu())
        return F.normalize(projected.float(), dim=1)


def gather_levels(pyramid: Sequence[Tensor], resize: Resize, gather: Gather) -> Tensor:
    """Levels of (B, C, H_l, W_l), finest first -> (B, C, H_0, W_0)."""
    joined = pyramid[0]
    for level in pyramid[1:]:
        joined = joined + F.interpolate(level, size=joined.shape[-2:], mode=resize)
    return joined / len(pyramid) if gather == "mean" else joined


def mask_pool(embedding: Tensor, masks: Tensor, renormalize: bool = True) -> Tensor:
    """Mean embedding of each segment.

    Examples:
        >>> import torch
        >>> embedding = torch.eye(2)[:, :, None]  # two pixels, (1, 0) and (0, 1)
        >>> mask_pool(embedding, torch.tensor([[[1], [0]], [[1], [1]]]), renormalize=False).tolist()
        [[1.0, 0.0], [0.5, 0.5]]

    Args:
        embedding: (D, H, W).
        masks: (N, H, W) bool, or weights that are 0 or more; none is empty.
        renormalize: bring the means to length 1, so that a product of two is a cosine (dossier 9.4, S7).

    Returns:
        (N, D), in the embedding's dtype.
    """
    weights = masks.flatten(1).to(embedding.dtype)
    means = weights @ embedding.flatten(1).T / weights.sum(1, keepdim=True).clamp(min=1e-6)
    return F.normalize(means, dim=1) if renormalize else means
