"""The five networks inside FlowNet2: FlowNetC, two FlowNetS, FlowNetSD and the fusion (dossier 8.2).

Ilg et al., "FlowNet 2.0: Evolution of Optical Flow Estimation with Deep Networks", CVPR 2017. The names of
the modules are those of published weights. Level n has 1 / 2^n of the input's size. All inputs are float,
their sides multiples of 64 (fusion: 4); all predictions are as the layer gives them, before any scaling.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from panoptube.flow.correlation import correlation

SLOPE = 0.1
"""Of all leaky ReLUs."""

Flows = dict[int, Tensor]
"""Level -> (N, 2, H / 2^level, W / 2^level), the coarsest first."""


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the size (but for the stride), leaky ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2), nn.LeakyReLU(SLOPE))


def inter_conv(inputs: int, outputs: int) -> nn.Sequential:
    """A 3x3 convolution without an activation; published names count it as the first of a sequence."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1))


def deconv(inputs: int, outputs: int) -> nn.Sequential:
    """Transposed convolution to twice the size, leaky ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(SLOPE))


def predict_flow(inputs: int) -> nn.Conv2d:
    """Features -> two channels, x and y."""
    return nn.Conv2d(inputs, 2, 3, padding=1)


def upsample_flow(bias: bool) -> nn.ConvTranspose2d:
    """A predicted flow to twice the size, by learned weights."""
    return nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=bias)


class FlowDecoder(nn.Module):
    """Levels 3 to 6 and the way back to level 2, which three of the networks share.

    Args:
        inter: convolve once more before each prediction but the coarsest.
        bias: of the layers that upsample flow.
    """

    def __init__(self, inter: bool, bias: bool) -> None:
        super().__init__()
        self.inter = inter
        for level, inputs, outputs in ((4, 256, 512), (5, 512, 512), (6, 512, 1024)):
            self.add_module(f"conv{level}", conv(inputs, outputs, stride=2))
            self.add_module(f"conv{level}_1", conv(outputs, outputs))
        self.predict_flow6 = predict_flow(1024)
        joined = 1024
        for level, skip, width in ((5, 512, 512), (4, 512, 256), (3, 256, 128), (2, 128, 64)):
            self.add_module(f"deconv{level}", deconv(joined, width))
            self.add_module(f"upsampled_flow{level + 1}_to_{level}", upsample_flow(bias))
            joined = skip + width + 2
            if inter:
                self.add_module(f"inter_conv{level}", inter_conv(joined, width))
            self.add_module(f"predict_flow{level}", predict_flow(width if inter else joined))

    def decode(self, level2: Tensor, level3: Tensor) -> Flows:
        """Flows of the levels 6 to 2 from features of 128 channels at level 2 and of 256 at level 3."""
        features = {2: level2, 3: level3}
        for level in (4, 5, 6):
            x = self._layer(f"conv{level}", features[level - 1])
            features[level] = self._layer(f"conv{level}_1", x)
        x = features[6]
        flows = {6: self._layer("predict_flow6", x)}
        for level in (5, 4, 3, 2):
            flow = self._layer(f"upsampled_flow{level + 1}_to_{level}", flows[level + 1])
            x = torch.cat([features[level], self._layer(f"deconv{level}", x), flow], 1)
            inner = self._layer(f"inter_conv{level}", x) if self.inter else x
            flows[level] = self._layer(f"predict_flow{level}", inner)
        return flows

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(name)(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class CorrelatedFlows:
    """What FlowNetC finds on its way.

    Attributes:
        features, reference_features: (N, 256, H / 8, W / 8) of the two images.
        correlation: (N, 441, H / 8, W / 8) of these, before the activation.
        flows: levels 6 to 2.
    """

    features: Tensor
    reference_features: Tensor
    correlation: Tensor
    flows: Flows


class FlowNetC(FlowDecoder):
    """Features of both images by the same layers, correlated up to 20 cells away; then as FlowNetS."""

    def __init__(self) -> None:
        super().__init__(inter=False, bias=True)
        self.conv1 = conv(3, 64, 7, 2)
        self.conv2 = conv(64, 128, 5, 2)
        self.conv3 = conv(128, 256, 5, 2)
        self.conv_redir = conv(256, 32, 1)
        self.conv3_1 = conv(32 + 441, 256)

    def forward(self, image: Tensor, reference: Tensor) -> CorrelatedFlows:
        """(N, 3, H, W) twice -> flows from `image` to `reference`."""
        level2 = self.conv2(self.conv1(image))
        a, b = self.conv3(level2), self.conv3(self.conv2(self.conv1(reference)))
        volume = correlation(a, b, max_displacement=20, stride=2)
        level3 = self.conv3_1(torch.cat([self.conv_redir(a), functional.leaky_relu(volume, SLOPE)], 1))
        return CorrelatedFlows(a, b, volume, self.decode(level2, level3))


class FlowNetS(FlowDecoder):
    """One stack of convolutions: 12 channels in, (N, 12, H, W) -> levels 6 to 2."""

    def __init__(self) -> None:
        super().__init__(inter=False, bias=False)
        self.conv1 = conv(12, 64, 7, 2)
        self.conv2 = conv(64, 128, 5, 2)
        self.conv3 = conv(128, 256, 5, 2)
        self.conv3_1 = conv(256, 256)

    def forward(self, x: Tensor) -> Flows:
        level2 = self.conv2(self.conv1(x))
        return self.decode(level2, self.conv3_1(self.conv3(level2)))


class FlowNetSD(FlowDecoder):
    """For small displacements: 3x3 kernels only, the first at full size; (N, 6, H, W) -> levels 6 to 2."""

    def __init__(self) -> None:
        super().__init__(inter=True, bias=True)
        self.conv0 = conv(6, 64)
        self.conv1 = conv(64, 64, stride=2)
        self.conv1_1 = conv(64, 128)
        self.conv2 = conv(128, 128, stride=2)
        self.conv2_1 = conv(128, 128)
        self.conv3 = conv(128, 256, stride=2)
        self.conv3_1 = conv(256, 256)

    def forward(self, x: Tensor) -> Flows:
        level2 = self.conv2_1(self.conv2(self.conv1_1(self.conv1(self.conv0(x)))))
        return self.decode(level2, self.conv3_1(self.conv3(level2)))


class FlowNetFusion(nn.Module):
    """Two candidate flows and how well they explain the image: (N, 11, H, W) -> levels 2 to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = conv(11, 64)
        self.conv1 = conv(64, 64, stride=2)
        self.conv1_1 = conv(64, 128)
        self.conv2 = conv(128, 128, stride=2)
        self.conv2_1 = conv(128, 128)
        self.predict_flow2 = predict_flow(128)
        self.deconv1 = deconv(128, 32)
        self.upsampled_flow2_to_1 = upsample_flow(bias=True)
        self.inter_conv1 = inter_conv(128 + 32 + 2, 32)
        self.predict_flow1 = predict_flow(32)
        self.deconv0 = deconv(128 + 32 + 2, 16)
        self.upsampled_flow1_to_0 = upsample_flow(bias=True)
        self.inter_conv0 = inter_conv(64 + 16 + 2, 16)
        self.predict_flow0 = predict_flow(16)

    def forward(self, x: Tensor) -> Flows:
        level0 = self.conv0(x)
        level1 = self.conv1_1(self.conv1(level0))
        level2 = self.conv2_1(self.conv2(level1))
        flow2 = self.predict_flow2(level2)
        joined1 = torch.cat([level1, self.deconv1(level2), self.upsampled_flow2_to_1(flow2)], 1)
        flow1 = self.predict_flow1(self.inter_conv1(joined1))
        joined0 = torch.cat([level0, self.deconv0(joined1), self.upsampled_flow1_to_0(flow1)], 1)
        return {2: flow2, 1: flow1, 0: self.predict_flow0(self.inter_conv0(joined0))}
