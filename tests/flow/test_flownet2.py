"""FlowNet2 against its definition written down a second time, line by line, with slow operators."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import parity_flownet2
from panoptube.flow.flownet2 import FlowNet2, channel_norm, flow_quarter, resample

REFERENCE = Path(__file__).parents[3] / "shared"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> FlowNet2:
    """Random weights of a size that keeps the features' size; flow predictors of some pixels."""
    with torch.device("meta"):
        network = FlowNet2()
    network.to_empty(device="cpu").requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        bound = 0.1 if parameter.ndim == 1 else (6 / parameter[0].numel()) ** 0.5
        gain = 100.0 if name == "flownets_d.predict_flow2.weight" else 1.0
        parameter.uniform_(-gain * bound, gain * bound, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Smooth noise, and the same moved by 3 and 2 pixels."""
    generator = torch.Generator().manual_seed(1)
    noise = F.interpolate(torch.rand(1, 3, 24, 24, generator=generator), 96, mode="bicubic").clamp(0, 1)
    return 255 * noise[:, :, 8:72, 8:72], 255 * noise[:, :, 10:74, 11:75]


def slow_resample(image: Tensor, flow: Tensor) -> Tensor:
    """Pixel by pixel, neighbours clamped to the image."""
    result = torch.empty_like(image)
    _, _, height, width = image.shape
    for n in range(len(image)):
        for y in range(height):
            for x in range(width):
                u, v = (x + flow[n, 0, y, x]).item(), (y + flow[n, 1, y, x]).item()
                left, top = int(np.floor(u)), int(np.floor(v))
                value = torch.zeros(image.shape[1])
                for row, column, share in (
                    (top, left, (1 - (u - left)) * (1 - (v - top))),
                    (top, left + 1, (u - left) * (1 - (v - top))),
                    (top + 1, left, (1 - (u - left)) * (v - top)),
                    (top + 1, left + 1, (u - left) * (v - top)),
                ):
                    value += share * image[n, :, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                result[n, :, y, x] = value
    return result


class Layers:
    """Layers of one network, by their published names."""

    def __init__(self, state: State, prefix: str) -> None:
        self.state, self.prefix = state, prefix

    def weight(self, name: str) -> tuple[Tensor, Tensor | None]:
        return self.state[f"{self.prefix}.{name}.weight"], self.state.get(f"{self.prefix}.{name}.bias")

    def conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = self.weight(f"{name}.0")
        return F.leaky_relu(F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2), 0.1)

    def plain(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weight(name)
        return F.conv2d(x, weight, bias, padding=1)

    def deconv(self, name: str, x: Tensor) -> Tensor:
        return F.leaky_relu(F.conv_transpose2d(x, *self.weight(f"{name}.0"), 2, 1), 0.1)

    def up(self, name: str, flow: Tensor) -> Tensor:
        return F.conv_transpose2d(flow, *self.weight(name), 2, 1)

    def flow2(self, c2: Tensor, c3: Tensor, inter: bool = False) -> Tensor:
        """From features of level 2 and 3 to the flow at level 2."""
        c4 = self.conv("conv4_1", self.conv("conv4", c3, 2))
        c5 = self.conv("conv5_1", self.conv("conv5", c4, 2))
        c6 = self.conv("conv6_1", self.conv("conv6", c5, 2))
        x, flow = c6, self.plain("predict_flow6", c6)
        for skip, level in ((c5, 5), (c4, 4), (c3, 3), (c2, 2)):
            up = self.up(f"upsampled_flow{level + 1}_to_{level}", flow)
            x = torch.cat((skip, self.deconv(f"deconv{level}", x), up), 1)
            seen = self.plain(f"inter_conv{level}.0", x) if inter else x
            flow = self.plain(f"predict_flow{level}", seen)
        return flow


def flownet_c(layers: Layers, x1: Tensor, x2: Tensor) -> Tensor:
    c2, r2 = (layers.conv("conv2", layers.conv("conv1", x, 2), 2) for x in (x1, x2))
    a, b = layers.conv("conv3", c2, 2), layers.conv("conv3", r2, 2)
    padded = F.pad(b, (20, 20, 20, 20))
    height, width = a.shape[2:]
    volume = [
        (a * padded[:, :, dy : dy + height, dx : dx + width]).mean(1)
        for dy in range(0, 41, 2)
        for dx in range(0, 41, 2)
    ]
    joined = torch.cat((layers.conv("conv_redir", a), F.leaky_relu(torch.stack(volume, 1), 0.1)), 1)
    return layers.flow2(c2, layers.conv("conv3_1", joined))


def flownet_s(layers: Layers, x: Tensor) -> Tensor:
    c2 = layers.conv("conv2", layers.conv("conv1", x, 2), 2)
    return layers.flow2(c2, layers.conv("conv3_1", layers.conv("conv3", c2, 2)))


def flownet_sd(layers: Layers, x: Tensor) -> Tensor:
    c1 = layers.conv("conv1_1", layers.conv("conv1", layers.conv("conv0", x), 2))
    c2 = layers.conv("conv2_1", layers.conv("conv2", c1, 2))
    return layers.flow2(c2, layers.conv("conv3_1", layers.conv("conv3", c2, 2)), inter=True)


def flownet_fusion(layers: Layers, x: Tensor) -> Tensor:
    c0 = layers.conv("conv0", x)
    c1 = layers.conv("conv1_1", layers.conv("conv1", c0, 2))
    c2 = layers.conv("conv2_1", layers.conv("conv2", c1, 2))
    flow = layers.plain("predict_flow2", c2)
    x1 = torch.cat((c1, layers.deconv("deconv1", c2), layers.up("upsampled_flow2_to_1", flow)), 1)
    flow = layers.plain("predict_flow1", layers.plain("inter_conv1.0", x1))
    x0 = torch.cat((c0, layers.deconv("deconv0", x1), layers.up("upsampled_flow1_to_0", flow)), 1)
    return layers.plain("predict_flow0", layers.plain("inter_conv0.0", x0))


def length(x: Tensor) -> Tensor:
    return (x * x).sum(1, keepdim=True).sqrt()


def flownet2(state: State, i1: Tensor, i2: Tensor) -> Tensor:
    """Dossier 8.2, formula by formula; one pair."""
    mu = torch.cat((i1[0].flatten(1), i2[0].flatten(1)), 1).mean(1)[None, :, None, None]
    x1, x2 = (i1 - mu) / 255, (i2 - mu) / 255
    f_c = F.interpolate(20 * flownet_c(Layers(state, "flownetc"), x1, x2), scale_factor=4, mode="bilinear")
    w = slow_resample(x2, f_c)
    x = torch.cat((x1, x2, w, f_c / 20, length(x1 - w)), 1)
    f_1 = F.interpolate(20 * flownet_s(Layers(state, "flownets_1"), x), scale_factor=4, mode="bilinear")
    w = slow_resample(x2, f_1)
    x = torch.cat((x1, x2, w, f_1 / 20, length(x1 - w)), 1)
    f_2 = 20 * flownet_s(Layers(state, "flownets_2"), x)
    f_2 = f_2.repeat_interleave(4, 2).repeat_interleave(4, 3)
    f_d = flownet_sd(Layers(state, "flownets_d"), torch.cat((x1, x2), 1)) / 20
    f_d = f_d.repeat_interleave(4, 2).repeat_interleave(4, 3)
    error_d, error_2 = (length(x1 - slow_resample(x2, f)) for f in (f_d, f_2))
    x = torch.cat((x1, f_d, f_2, length(f_d), length(f_2), error_d, error_2), 1)
    return flownet_fusion(Layers(state, "flownetfusion"), x)


def test_equals_the_definition_and_tells_the_frames_apart(
    network: FlowNet2, pair: tuple[Tensor, Tensor]
) -> None:
    stages = network.stages(*pair)
    assert torch.equal(network(*pair), stages.flow)
    expected = flownet2(network.state_dict(), *pair)
    size = expected.abs().mean().item()
    for candidate in (stages.c, stages.s1, stages.s2, stages.sd):  # else this test would see little of it
        assert candidate.flow.abs().mean() > 0.3
    torch.testing.assert_close(stages.flow, expected, rtol=0, atol=1e-3 * size)
    assert (network(pair[1], pair[0]) - expected).abs().mean() > 0.01 * size


def test_any_size_by_zeros_on_the_right_and_at_the_bottom(
    network: FlowNet2, pair: tuple[Tensor, Tensor]
) -> None:
    image, reference = (x[:, :, :33, :61].repeat(2, 1, 1, 1) for x in pair)
    image[1] = 40 + 0.5 * image[1]  # each pair of a batch has its own mean
    padded = torch.zeros(2, 2, 3, 64, 64)
    padded[0, :, :, :33, :61], padded[1, :, :, :33, :61] = image, reference
    flow = network(image, reference)
    assert flow.shape == (2, 2, 33, 61)
    for n in range(2):
        alone = network.stages(padded[0, n : n + 1], padded[1, n : n + 1]).flow[:, :, :33, :61]
        torch.testing.assert_close(flow[n : n + 1], alone, rtol=1e-3, atol=1e-3)
    assert network(image[:0], reference[:0]).shape == (0, 2, 33, 61)


def test_entries_are_the_published_ones() -> None:
    with torch.device("meta"):
        shapes = {name: list(value.shape) for name, value in FlowNet2().state_dict().items()}
    assert len(shapes) == 220
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 162_518_834
    assert shapes["flownetc.conv3_1.0.weight"] == [256, 32 + 441, 3, 3]
    assert shapes["flownets_2.deconv4.0.weight"] == [1026, 256, 4, 4]
    assert "flownets_1.upsampled_flow6_to_5.bias" not in shapes
    assert "flownets_d.upsampled_flow6_to_5.bias" in shapes
    table = REFERENCE / "spec" / "state_dict_fusetrack.tsv"
    if table.is_file():
        rows = [line.split("\t") for line in table.read_text().splitlines()]
        published = {row[0]: json.loads(row[1]) for row in rows if row[0].startswith("flownet2.")}
        assert {f"flownet2.{name}": shape for name, shape in shapes.items()} == published


def test_resample_by_hand() -> None:
    image = torch.tensor([[0.0, 10, 20], [30, 40, 50]])[None, None]
    flow = torch.zeros(1, 2, 2, 3)
    torch.testing.assert_close(resample(image, flow), image)
    flow[0, :, 0, 0] = torch.tensor([0.5, 0.25])  # x is first: between the columns 0 and 1
    flow[0, :, 0, 1] = torch.tensor([1.0, 1.0])
    flow[0, :, 1, 0] = torch.tensor([-9.0, -0.5])  # on the left border, between the rows
    flow[0, :, 1, 2] = torch.tensor([0.5, 9.0])  # beyond the corner
    expected = torch.tensor([[5 + 0.25 * 30, 50, 20], [15, 40, 50]])[None, None]
    torch.testing.assert_close(resample(image, flow), expected)


def test_resample_equals_the_slow_one() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 3, 5, 9, generator=generator)
    flow = 4 * torch.randn(2, 2, 5, 9, generator=generator)
    flow[0, :, 2] = flow[0, :, 2].round()
    torch.testing.assert_close(resample(image, flow), slow_resample(image, flow), rtol=1e-5, atol=1e-5)
    single = torch.tensor([[[[7.0]]]])
    assert resample(single, torch.full((1, 2, 1, 1), 3.0)).item() == 7


def test_channel_norm_by_hand() -> None:
    x = torch.tensor([[3.0, 0.0], [-4.0, 0.0]])[None, :, :, None].requires_grad_()  # channels, rows
    norm = channel_norm(x)
    assert norm.tolist() == [[[[5.0], [0.0]]]]
    norm.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, :, :, 0], torch.tensor([[0.6, 0.0], [-0.8, 0.0]]))


def test_flow_quarter_by_hand() -> None:
    """Each cell is the mean of the four pixels around its centre, in pixels four times as large."""
    flow = torch.arange(2 * 8 * 12, dtype=torch.float32).view(1, 2, 8, 12)
    expected = torch.stack(
        [
            flow[0, :, 4 * y + 1 : 4 * y + 3, 4 * x + 1 : 4 * x + 3].mean((1, 2)) / 4
            for y in range(2)
            for x in range(3)
        ],
        1,
    ).view(1, 2, 2, 3)
    torch.testing.assert_close(flow_quarter(flow), expected)
    torch.testing.assert_close(flow_quarter(torch.full((1, 2, 10, 7), 8.0)), torch.full((1, 2, 2, 1), 2.0))


@pytest.mark.skipif(not (REFERENCE / "fixtures").is_dir(), reason="the full reference data is not here")
def test_full_reference_data() -> None:
    rule = json.loads((REFERENCE / "fixtures" / "weights_rule.json").read_text())
    with np.load(REFERENCE / "fixtures" / "flownet2_small.npz") as data:
        stored = {name: data[name] for name in data.files}
    rows, seen = parity_flownet2.check_flownet2(rule, stored)
    assert [f"{row.name}: {row.difference:.3g}" for row in rows if not row.passed] == []
    assert set(stored) == seen
    assert len(rows) == len(stored) - len(parity_flownet2.INPUTS)
