"""FlowNet2: optical flow by a cascade of five networks, in plain PyTorch (dossier 8.1, 8.2).

Ilg et al., "FlowNet 2.0: Evolution of Optical Flow Estimation with Deep Networks", CVPR 2017. The entries of
the state dict have the names and shapes of published weights; in those of FuseTrack `flownet2.` stands before
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from panoptube.flow.flownet2_networks import (
    CorrelatedFlows,
    FlowNetC,
    FlowNetFusion,
    FlowNetS,
    FlowNetSD,
    Flows,
)

SCALE = 20.0
"""The networks predict flow in units of 20 pixels at level 2, FlowNetSD in units of 1 / 20 pixel."""
MULTIPLE = 64
"""Both sides of the images that the networks see are multiples of this."""


@dataclass(frozen=True)
class Candidate:
    """A flow on the way to the last one.

    Attributes:
        predictions: what the network gave, by level.
        flow: (N, 2, H, W) in pixels.
        warped: (N, 3, H, W), the reference sampled by it.
    """

    predictions: Flows
    flow: Tensor
    warped: Tensor


@dataclass(frozen=True)
class FlowNet2Stages:
    """All that FlowNet2 computes for a pair of images, in order.

    Attributes:
        image, reference: (N, 3, H, W), less their common mean, divided by 255.
        correlated: FlowNetC's result.
        c, s1, s2, sd: the candidates of FlowNetC, the two FlowNetS, FlowNetSD.
        fusion: predictions of the levels 2 to 0.
    """

    image: Tensor
    reference: Tensor
    correlated: CorrelatedFlows
    c: Candidate
    s1: Candidate
    s2: Candidate
    sd: Candidate
    fusion: Flows

    @property
    def flow(self) -> Tensor:
        """(N, 2, H, W) in pixels: the fusion's prediction at full size."""
        return self.fusion[0]


class FlowNet2(nn.Module):
    """FlowNetC and two FlowNetS in a row, FlowNetSD beside them, and the fusion of both."""

    def __init__(self) -> None:
        super().__init__()
        self.flownetc = FlowNetC()
        self.flownets_1 = FlowNetS()
        self.flownets_2 = FlowNetS()
        self.flownets_d = FlowNetSD()
        self.flownetfusion = FlowNetFusion()

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Flow in pixels, x first: what is at p in `image` is at p + flow(p) in `reference`.

        Any size will do. Zeros are added on the right and at the bottom up to multiples of 64, and take part
        in the mean that is subtracted, as published (dossier 8.1).

        Args:
            image: (N, 3, H, W) float32 RGB, 0..255.
            reference: the same shape.

        Returns:
            (N, 2, H, W) float32.
        """
        height, width = image.shape[2:]
        border = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        stages = self.stages(functional.pad(image, border), functional.pad(reference, border))
        return stages.flow[:, :, :height, :width]

    def stages(self, image: Tensor, reference: Tensor) -> FlowNet2Stages:
        """Every step for images (N, 3, H, W) float32 RGB 0..255 whose sides are multiples of 64.

        The two ways of upsampling are those that the published weights belong to.
        """
        mean = torch.stack([image, reference]).mean((0, 3, 4))[:, :, None, None]
        image, reference = (image - mean) / 255, (reference - mean) / 255

        def candidate(predictions: Flows, scale: float, mode: str) -> Candidate:
            flow = functional.interpolate(predictions[2] * scale, scale_factor=4, mode=mode)
            return Candidate(predictions, flow, resample(reference, flow))

        def refined(by: FlowNetS, start: Candidate, mode: str) -> Candidate:
            error = channel_norm(image - start.warped)
            predictions = by(torch.cat([image, reference, start.warped, start.flow / SCALE, error], 1))
            return candidate(predictions, SCALE, mode)

        correlated = self.flownetc(image, reference)
        c = candidate(correlated.flows, SCALE, "bilinear")
        s1 = refined(self.flownets_1, c, "bilinear")
        s2 = refined(self.flownets_2, s1, "nearest")
        sd = candidate(self.flownets_d(torch.cat([image, reference], 1)), 1 / SCALE, "nearest")
        fusion = self.flownetfusion(
            torch.cat(
                [
                    image,
                    sd.flow,
                    s2.flow,
                    channel_norm(sd.flow),
                    channel_norm(s2.flow),
                    channel_norm(image - sd.warped),
                    channel_norm(image - s2.warped),
                ],
                1,
            )
        )
        return FlowNet2Stages(image, reference, correlated, c, s1, s2, sd, fusion)


def resample(image: Tensor, flow: Tensor) -> Tensor:
    """`image` at p + flow(p), bilinear; outside, the value of the nearest border pixel (dossier 8.2).

    Args:
        image: (N, C, H, W).
        flow: (N, 2, H, W) in pixels, x first.

    Returns:
        (N, C, H, W).
    """
    height, width = flow.shape[2:]
    x = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 1]
    # -1 and 1 are the centres of the first and the last pixel.
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)
    return functional.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def channel_norm(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W), each pixel's length over the channels; its gradient at length 0 is 0."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return length


def flow_quarter(flow: Tensor) -> Tensor:
    """Flow at a quarter of the size, in pixels of that size, as the fuse module takes it (dossier 8.1).

    Args:
        flow: (N, 2, H, W).

    Returns:
        (N, 2, H // 4, W // 4), bilinear with half-pixel centres.
    """
    return 0.25 * functional.interpolate(flow, scale_factor=0.25, mode="bilinear", align_corners=False)
