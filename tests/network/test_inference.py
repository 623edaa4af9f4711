"""The network for prediction against the network of training: same maps and ids in float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from tiny_network import tiny
from torch import Tensor, nn

from panoptube.config import NetworkConfig
from panoptube.convert import published_name
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.transforms import normalize
from panoptube.errors import UserError
from panoptube.network import inference
from panoptube.network.inference import (
    choose_dtype,
    fold_batch_norm,
    for_inference,
    pad_evenly,
    pointwise,
    relu_,
)
from panoptube.network.roi import pool
from panoptube.network.vpsnet import Detections, VPSNet, vpsnet
from panoptube.panoptic.assemble import index_map
from panoptube.predictor import VideoPredictor
from parity import rule_weight

RULE = Path(__file__).parents[1] / "data" / "parity" / "weights_rule.json"


def ready(network: VPSNet) -> VPSNet:
    """With batch norm that does something and heads that find something."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.add_(0.3 * torch.rand(values.shape, generator=generator))
    for layer in (network.boxes.classes, network.boxes.deltas):
        layer.weight.data.mul_(20)
    return network.eval()


def images(number: int, height: int, width: int) -> Tensor:
    """Smooth noise, which sees to it that neighbouring pixels are alike."""
    small = torch.randn(number, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(3))
    return 2 * torch.nn.functional.interpolate(small, scale_factor=8, mode="bilinear")


def assert_alike(quick: Detections, plain: Detections, tolerance: float) -> None:
    for name in ("semantic", "boxes", "scores", "masks", "embeddings"):
        a, b = getattr(quick, name), getattr(plain, name)
        assert a.dtype == torch.float32
        assert a.shape == b.shape, name
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.abs().max() + 1))
    assert torch.equal(quick.labels, plain.labels)


@pytest.mark.parametrize("backbone", ["resnet18", "timm:tf_efficientnet_lite0"])
def test_float32_is_the_same(backbone: str) -> None:
    network = ready(tiny(score_threshold=0.2, backbone=backbone))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    batch = images(2, 96, 160)
    found, plain = for_inference(network)(batch, (90, 150)), network(batch, (90, 150))
    for quick, usual in zip(found, plain):
        assert len(usual.boxes) > 3
        assert_alike(quick, usual, 1e-4)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_bfloat16_is_near_and_decides_in_float32() -> None:
    network = ready(tiny(score_threshold=0.2))
    quick = for_inference(network, torch.bfloat16)
    batch = images(1, 96, 160)
    found, plain = quick(batch)[0], network(batch)[0]
    assert found.semantic.dtype == found.scores.dtype == found.masks.dtype == torch.float32
    error = (found.semantic - plain.semantic).abs().mean() / plain.semantic.std()
    assert error < 0.05
    assert len(found.boxes) > 3
    assert quick.backbone.lateral[0].weight.dtype == torch.bfloat16
    assert quick.boxes.classes.weight.dtype == torch.float32


def test_nothing_found() -> None:
    found = for_inference(tiny(score_threshold=0.99).eval())(images(1, 64, 96))[0]
    assert (found.boxes.shape, found.masks.shape) == ((0, 4), (0, 28, 28))


def video_of(network: VPSNet, pictures: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    video = VideoPredictor(network)
    frames = [video.step(picture) for picture in pictures]
    return [(frame.semantic, frame.instance) for frame in frames]


def pictures(number: int, height: int, width: int) -> list[np.ndarray]:
    colours = 128 + 50 * images(1, height, width + 8 * number)[0].permute(1, 2, 0).numpy()
    whole = np.clip(colours, 0, 255).astype(np.uint8)
    return [np.ascontiguousarray(whole[:, 8 * t : 8 * t + width]) for t in range(number)]


def assert_same_video(network: VPSNet, shown: list[np.ndarray]) -> None:
    """Maps and ids are the same; a pixel may differ where its two best logits nearly tie."""
    plain, quick = video_of(network, shown), video_of(for_inference(network), shown)
    for picture, a, b in zip(shown, plain, quick):
        assert len(np.unique(a[1])) > 3
        differs = np.logical_or(*map(np.not_equal, a, b))
        assert differs.mean() < 1e-4
        if differs.any():
            tensor = torch.from_numpy(normalize(picture, (picture.shape[0], picture.shape[1])))[None]
            logits = index_map(network(tensor)[0], CITYSCAPES.num_stuff, legacy=False).logits
            best = logits[:, torch.from_numpy(differs)].topk(2, 0).values
            assert float((best[0] - best[1]).max()) < 1e-3


@pytest.mark.parametrize(
    "changes",
    [{}, {"match_length": 3.0, "tracker": "motion", "weak_threshold": 0.1}],
    ids=["as published", "ours"],
)
def test_videos_have_the_same_maps_and_ids(changes: dict[str, Any]) -> None:
    network = ready(tiny(score_threshold=0.2, test_size=(96, 160), **changes))
    assert_same_video(network, pictures(4, 96, 160))


def test_published_size_has_the_same_maps_and_ids() -> None:
    """The layers of VPSNet-Track with ResNet-50, narrow after the pyramid's heads."""
    config = NetworkConfig(
        test_size=(128, 256), score_threshold=0.3, box_channels=128, match_channels=64, mask_channels=64
    )
    network = vpsnet(config, CITYSCAPES).eval()
    rule = json.loads(RULE.read_text())
    network.load_state_dict(
        {
            key: rule_weight(published_name(key), tuple(value.shape), rule)
            for key, value in network.state_dict().items()
        }
    )
    assert_same_video(network, pictures(1, 128, 256))


def test_fused_videos() -> None:
    network = ready(tiny(score_threshold=0.2, test_size=(96, 160), fuse=True))
    shown = pictures(3, 96, 160)
    plain, quick = video_of(network, shown), video_of(for_inference(network), shown)
    assert all(np.mean(x != y) < 1e-4 for a, b in zip(plain, quick) for x, y in zip(a, b))
    half = video_of(for_inference(network, torch.bfloat16), shown)
    assert all(a[0].shape == b[0].shape for a, b in zip(plain, half))
    assert np.mean([np.mean(a[0] == b[0]) for a, b in zip(plain, half)]) > 0.5


def test_regions_are_roi_aligned() -> None:
    generator = torch.Generator().manual_seed(0)
    pyramid = [torch.randn(2, 8, 128 // s, 192 // s, generator=generator) for s in (4, 8, 16, 32)]
    last = [level.contiguous(memory_format=torch.channels_last) for level in pyramid]
    corner = torch.rand(200, 2, generator=generator) * torch.tensor([191.0, 127])
    sides = torch.rand(200, 2, generator=generator) ** 3 * 500 - 5  # also across the borders and inside out
    boxes = torch.cat([corner - 20, corner - 20 + sides.clamp(min=-0.9)], 1)
    network = for_inference(tiny().eval())
    for size in (7, 14):
        found = network.pool(last, 1, boxes, size)
        torch.testing.assert_close(found, pool(pyramid, 1, boxes, size), rtol=1e-4, atol=1e-4)
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert network.pool(last, 0, boxes[:0], 7).shape == (0, 8, 7, 7)


def test_folding_leaves_no_batch_norm() -> None:
    for name in ("resnet18", "timm:tf_efficientnet_lite0"):
        network = ready(tiny(backbone=name))
        batch = images(1, 64, 96)
        with torch.no_grad():
            before = network.backbone(batch)
            fold_batch_norm(network.backbone)
            after = network.backbone(batch)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in network.backbone.modules())
        for a, b in zip(before, after):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pointwise_is_a_convolution_in_float32(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BAND", 7)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, 3, 4, generator=g).to(dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(6, 5, generator=g), torch.randn(6, generator=g)
    expected = torch.conv2d(x.float(), weight[:, :, None, None], bias)
    torch.testing.assert_close(pointwise(x, weight, bias), expected)


def test_legacy_and_other_dtypes_are_refused() -> None:
    with pytest.raises(ValueError, match="published behaviour"):
        for_inference(tiny(legacy=True))
    with pytest.raises(ValueError, match="dtype must be"):
        for_inference(tiny(), torch.float64)


def test_time_of_a_product_is_a_time() -> None:
    assert 0 < inference._product_time(torch.float32) < 10


def test_choice_of_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for native, seconds, expected in (
        (True, 0.5, torch.bfloat16),
        (True, 0.9, torch.float32),  # too little to gain
        (True, 2.0, torch.float32),
        (False, 0.5, torch.float32),
    ):
        times = {torch.float32: 1.0, torch.bfloat16: seconds}
        monkeypatch.setattr(inference, "_native_bfloat16", lambda native=native: native)
        monkeypatch.setattr(inference, "_product_time", times.__getitem__)
        assert choose_dtype("auto", cpu) == expected
        assert choose_dtype("auto", gpu) == torch.float32
    assert choose_dtype("float32", cpu) == torch.float32
    assert choose_dtype("bf16", cpu) == torch.bfloat16
    assert choose_dtype("fp16", gpu) == torch.float16
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        choose_dtype("fp16", cpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("clipped", [False, True])
def test_relu_is_that_of_torch(dtype: torch.dtype, clipped: bool) -> None:
    edges = torch.tensor([0.0, -0.0, 6, 5.96875, 6.03125, 1e-40]).expand(2, 8, 5, 6)
    x = torch.cat([torch.randn(2, 8, 5, 7) * 5, edges], 3)
    x[0, 0, 0, :2] = torch.tensor([torch.inf, -torch.inf])
    x = x.to(dtype, memory_format=torch.channels_last)
    expected = F.relu6(x) if clipped else F.relu(x)
    result = relu_(x, clipped)
    assert result is x
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("groups", [1, 4])
def test_even_padding_gives_the_same_on_even_inputs(kernel: int, groups: int) -> None:
    image = torch.randn(2, 4, 14, 22)
    module = nn.Sequential(Conv2dSame(4, 8, kernel, stride=2, groups=groups))
    expected = module(image)
    pad_evenly(module)
    assert type(module[0]) is nn.Conv2d
    torch.testing.assert_close(module(image), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"stride": 3}, {"stride": 2, "dilation": 2}, {"stride": 2, "kernel": 2}])
def test_other_paddings_stay(options: dict[str, int]) -> None:
    kernel = options.pop("kernel", 3)
    module = nn.Sequential(Conv2dSame(4, 8, kernel, **options))
    before = module[0]
    pad_evenly(module)
    assert module[0] is before
