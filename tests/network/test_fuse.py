"""Fuse neck: each step by hand or against a slow version; FuseTrack over a clip, in training, in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_network
import torch
from torch import Tensor

from panoptube.config import LossConfig, RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.pairs import FramePair, FrameTargets
from panoptube.flow.flownet2 import flow_quarter
from panoptube.losses.supervised import supervised
from panoptube.network.boxes import random_choice
from panoptube.network.fuse import FrameAttention, FuseNeck, ResidualFlow, gather, scatter, warp
from panoptube.network.vpsnet import VPSNet
from panoptube.network.weights import load_weights, save_weights

TINY = tiny_network.TINY.model_copy(update={"score_threshold": 0.3, "test_size": (64, 128), "fuse": True})
SIZES = ((16, 32), (8, 16), (4, 8), (2, 4), (1, 2))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pyramid(channels: int = 16, frames: int = 1, seed: int = 0) -> list[Tensor]:
    return [random(frames, channels, *size, seed=seed + i) for i, size in enumerate(SIZES)]


def tiny(seed: int = 0, **changes: object) -> VPSNet:
    return tiny_network.tiny(seed, **(TINY.model_dump() | changes))


# --- steps --------------------------------------------------------------------------------------------------


def test_gather_is_the_mean_of_the_nearest_cells() -> None:
    levels = pyramid(channels=3)
    found = gather(levels)
    for y, x in ((0, 0), (15, 31), (7, 13)):
        expected = sum(level[0, :, y >> i, x >> i] for i, level in enumerate(levels)) / 5
        torch.testing.assert_close(found[0, :, y, x], expected)


def test_gather_when_the_last_level_was_rounded_up() -> None:
    """P6 of a height of 96 is 2 cells high, P2 24: a cell serves 12 rows."""
    levels = [torch.zeros(1, 1, 24, 32), torch.arange(2.0).view(1, 1, 2, 1).expand(1, 1, 2, 2)]
    assert gather(levels)[0, 0, :, 0].tolist() == [0] * 12 + [0.5] * 12


def test_scatter_adds_the_largest_value_of_each_cell() -> None:
    levels, fused = pyramid(channels=3), random(1, 3, 16, 32, seed=9)
    found = scatter(levels, fused)
    assert [level.shape for level in found] == [level.shape for level in levels]
    assert torch.equal(found[0], levels[0] + fused)
    for i in range(1, 5):
        step = 2**i
        window = fused[0, :, :step, -step:].amax((1, 2))
        torch.testing.assert_close(found[i][0, :, 0, -1], levels[i][0, :, 0, -1] + window)


def test_warp_by_nothing_is_the_identity() -> None:
    features = random(2, 3, 6, 10)
    torch.testing.assert_close(warp(features, torch.zeros(2, 2, 6, 10), legacy=False), features)


def test_warp_by_whole_pixels_moves_and_is_zero_outside() -> None:
    features, flow = random(1, 3, 6, 10), torch.zeros(1, 2, 6, 10)
    flow[:, 0], flow[:, 1] = 2, -1  # what is at (y - 1, x + 2) in the reference comes here
    expected = torch.zeros_like(features)
    expected[:, :, 1:, :8] = features[:, :, :5, 2:]
    torch.testing.assert_close(warp(features, flow, legacy=False), expected)


def test_warp_by_parts_of_a_pixel_by_hand() -> None:
    features = torch.tensor([[0.0, 10, 20], [40, 50, 60]]).view(1, 1, 2, 3)
    flow = torch.zeros(1, 2, 2, 3)
    flow[0, :, 0, 1] = torch.tensor([0.25, 0.5])
    # (1.25, 0.5): a quarter of the way from 10 to 20 above, from 50 to 60 below, and half of each
    assert warp(features, flow, legacy=False)[0, 0, 0, 1].item() == pytest.approx(32.5)


def test_published_warp_by_hand() -> None:
    """x is sampled at (x + u) w / (w - 1) - 1/2."""
    features = torch.arange(20.0).view(1, 1, 4, 5)
    flow = torch.zeros(1, 2, 4, 5)
    at_rest = warp(features, flow, legacy=True)[0, 0]
    # (1, 1): x at 1 * 5 / 4 - 1/2 = 3/4, y at 1 * 4 / 3 - 1/2 = 5/6
    assert at_rest[1, 1].item() == pytest.approx(0.75 + 5 * 5 / 6)
    # The corner is sampled at (-1/2, -1/2): a quarter of pixel 0, three quarters of zeros; at the other
    # end a quarter of the last one.
    assert at_rest[0, 0].item() == 0
    assert at_rest[3, 4].item() == pytest.approx(19 / 4, rel=1e-5)
    flow[0, :, 1, 1] = torch.tensor([1.0, -0.25])
    # x at 2 * 5 / 4 - 1/2 = 2, y at 0.75 * 4 / 3 - 1/2 = 1/2
    assert warp(features, flow, legacy=True)[0, 0, 1, 1].item() == pytest.approx(2 + 2.5, rel=1e-5)


def test_warp_of_half_precision_keeps_its_places() -> None:
    features = torch.arange(300.0).expand(1, 1, 2, 300).bfloat16()
    found = warp(features, torch.zeros(1, 2, 2, 300).bfloat16(), legacy=False)
    torch.testing.assert_close(found, features.float(), rtol=0, atol=1e-2)


def test_residual_flow_sees_features_correlation_and_flow() -> None:
    residual = ResidualFlow(16)
    seen: list[Tensor] = []
    residual.convs[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    target, warped, flow = random(1, 16, 8, 10), random(1, 16, 8, 10, seed=1), random(1, 2, 8, 10, seed=2)
    assert residual(target, warped, flow).shape == flow.shape
    assert torch.equal(seen[0][:, :16], target)
    assert torch.equal(seen[0][:, -2:], flow)
    # Channel 9 (dy + 4) + dx + 4, here dy = -2, dx = 3: the mean product with the place two rows up.
    expected = (target[0, :, 5, 2] * warped[0, :, 3, 5]).mean()
    torch.testing.assert_close(seen[0][0, 16 + 9 * 2 + 7, 5, 2], expected)


def set_to(value: float, *convs: torch.nn.Conv2d) -> None:
    for conv in convs:
        torch.nn.init.constant_(conv.weight, value)
        assert conv.bias is not None
        torch.nn.init.zeros_(conv.bias)


def test_attention_of_equal_maps_weighs_both_alike() -> None:
    attention = FrameAttention(16)
    attention.embed.load_state_dict(attention.embed_target.state_dict())
    seen: list[Tensor] = []
    attention.join.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    frame = random(2, 16, 8, 10)
    assert attention(frame, frame).shape == frame.shape
    (both,) = seen
    assert torch.equal(both[:, :16], both[:, 16:])
    # A frame is always like itself: the sum of squares is positive, the weight above a half.
    weight = torch.sigmoid((attention.embed(frame) ** 2).sum(1, keepdim=True))
    assert (weight >= 0.5).all()
    torch.testing.assert_close(both[:, :16], frame * weight)


def test_attention_by_hand() -> None:
    """With all inner maps 0, p is 1/2 for both, the spatial weight 2 * 1/2 = 1, and nothing is added."""
    attention = FrameAttention(16)
    set_to(0.0, *(m for m in attention.children() if isinstance(m, torch.nn.Conv2d)))
    torch.nn.init.constant_(attention.join.weight[:, :16], 1 / 16)
    torch.nn.init.constant_(attention.join.weight[:, 16:], 1 / 8)
    frame, other = random(1, 16, 8, 10), random(1, 16, 8, 10, seed=1)
    mean = frame.mean(1, keepdim=True) / 2 + other.mean(1, keepdim=True)
    expected = torch.where(mean > 0, mean, 0.1 * mean).expand_as(frame)
    torch.testing.assert_close(attention(frame, other), expected)
    # A bias of the last spatial convolution scales, and is added through add1 and add2.
    assert attention.spatial4.bias is not None
    assert attention.add2.bias is not None
    torch.nn.init.constant_(attention.spatial4.bias, 3.0)
    torch.nn.init.constant_(attention.add2.bias, -7.0)
    scaled = expected * 2 * torch.sigmoid(torch.tensor(3.0)) - 7
    torch.testing.assert_close(attention(frame, other), scaled)


def test_attention_looks_at_greatest_and_mean_values_around() -> None:
    attention = FrameAttention(16)
    seen: dict[str, Tensor] = {}
    attention.spatial1.register_forward_hook(lambda module, inputs, output: seen.update(before=output))
    attention.spatial2.register_forward_hook(lambda module, inputs, output: seen.update(after=inputs[0]))
    attention(random(1, 16, 8, 10), random(1, 16, 8, 10, seed=1))
    before = torch.where(seen["before"] > 0, seen["before"], 0.1 * seen["before"])
    assert seen["after"].shape == (1, 32, 4, 5)
    greatest, mean = seen["after"][0, :16], seen["after"][0, 16:]
    torch.testing.assert_close(greatest[:, 1, 2], before[0, :, 1:4, 3:6].amax((1, 2)))
    torch.testing.assert_close(mean[:, 1, 2], before[0, :, 1:4, 3:6].mean((1, 2)))
    torch.testing.assert_close(greatest[:, 0, 0], before[0, :, :2, :2].amax((1, 2)))
    torch.testing.assert_close(mean[:, 0, 0], before[0, :, :2, :2].sum((1, 2)) / 9)  # zeros around it count


def test_second_warp_is_of_the_warped_map() -> None:
    """Flow 2 1/2, then a residual flow of 1/2: two interpolations, where one by 3 would need none."""
    neck = FuseNeck(16)
    set_to(0.0, *(m for m in neck.residual.modules() if isinstance(m, torch.nn.Conv2d)))
    last = neck.residual.convs[-1].bias
    assert isinstance(last, torch.nn.Parameter)
    with torch.no_grad():
        last[0] = 0.5
    seen: list[Tensor] = []
    neck.attention.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    flow = torch.zeros(1, 2, 16, 32)
    flow[:, 0] = 2.5
    neck(pyramid(), pyramid(seed=10), flow)
    reference = gather(pyramid(seed=10))
    expected = reference[..., 2:30] / 4 + reference[..., 3:31] / 2 + reference[..., 4:] / 4
    torch.testing.assert_close(seen[0][..., :28], expected)


def test_neck_whose_last_convolution_says_nothing_changes_nothing() -> None:
    neck = FuseNeck(16)
    set_to(0.0, neck.refine)
    found = neck(pyramid(), pyramid(seed=10), random(1, 2, 16, 32))
    assert all(torch.equal(a, b) for a, b in zip(found, pyramid()))
    torch.nn.init.constant_(neck.refine.weight, -1)
    assert neck.refine.bias is not None
    torch.nn.init.constant_(neck.refine.bias, -1e6)  # ReLU
    found = neck(pyramid(), pyramid(seed=10), random(1, 2, 16, 32))
    assert all(torch.equal(a, b) for a, b in zip(found, pyramid()))


def test_both_warps_of_a_neck_are_as_it_was_made() -> None:
    """At rest, with a residual flow of 0, the reference is warped twice; published, that shifts it twice."""
    for legacy in (False, True):
        neck = FuseNeck(16, legacy)
        set_to(0.0, *(m for m in neck.residual.modules() if isinstance(m, torch.nn.Conv2d)))
        seen: list[Tensor] = []
        neck.attention.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(inputs[1]))
        rest = torch.zeros(1, 2, 16, 32)
        neck(pyramid(), pyramid(seed=10), rest)
        reference = gather(pyramid(seed=10))
        torch.testing.assert_close(seen[0], warp(warp(reference, rest, legacy), rest, legacy))
        assert torch.allclose(seen[0], reference, atol=1e-4) == (not legacy)


@pytest.mark.parametrize("legacy", [False, True])
def test_gradients_reach_both_pyramids_and_every_parameter(legacy: bool) -> None:
    neck = FuseNeck(16, legacy)
    target, reference = pyramid(), pyramid(seed=10)
    for level in (*target, *reference):
        level.requires_grad_(True)
    found = neck(target, reference, 3 * random(1, 2, 16, 32))
    torch.stack([level.square().sum() for level in found]).sum().backward()
    for level in (*target, *reference, *neck.parameters()):
        assert level.grad is not None
        assert level.grad.isfinite().all()
        assert (level.grad != 0).any()


def test_frames_of_a_batch_are_fused_alone() -> None:
    neck, flow = FuseNeck(16).double(), random(2, 2, 16, 32).double()
    target = [level.double() for level in pyramid(frames=2)]
    reference = [level.double() for level in pyramid(frames=2, seed=10)]
    together = neck(target, reference, flow)
    for i in (0, 1):
        alone = neck([x[i : i + 1] for x in target], [x[i : i + 1] for x in reference], flow[i : i + 1])
        for a, b in zip(alone, together):
            torch.testing.assert_close(a, b[i : i + 1])


# --- training -----------------------------------------------------------------------------------------------


def targets(boxes: list[list[int]], labels: list[int], ids: list[int]) -> FrameTargets:
    """Things that fill their boxes, on class 0; 64 x 128."""
    masks = torch.zeros(len(boxes), 64, 128, dtype=torch.uint8)
    semantic = torch.zeros(64, 128, dtype=torch.int64)
    for mask, (x1, y1, x2, y2), label in zip(masks, boxes, labels):
        mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        semantic[y1 : y2 + 1, x1 : x2 + 1] = CITYSCAPES.num_stuff + label - 1
    return FrameTargets(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(labels),
        masks,
        torch.tensor(ids),
        semantic,
    )


TWO = targets([[16, 16, 47, 47], [60, 10, 100, 50]], [3, 1], [5, 9])
ONE = targets([[64, 12, 104, 52]], [1], [9])


def pair(count: int = 1, **changes: Tensor | None) -> FramePair:
    fields: dict[str, Tensor | None] = {
        "images": random(count, 2, 3, 64, 128),
        "flow": 4 * random(count, 2, 64, 128, seed=5),
    }
    fields |= changes
    return FramePair(  # type: ignore[arg-type]
        targets=((TWO, ONE),) * count, gaps=torch.ones(count, dtype=torch.int64), **fields
    )


def backward(network: VPSNet, batch: FramePair) -> dict[str, float]:
    network.train()
    outputs = network.training_outputs(batch, random_choice(torch.Generator().manual_seed(0)))
    terms = supervised(outputs, LossConfig())
    torch.stack(list(terms.values())).sum().backward()
    return {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize("legacy", [False, True])
def test_training_step_moves_every_trained_parameter(legacy: bool) -> None:
    network = tiny(legacy=legacy)
    terms = backward(network, pair(2))
    assert all(np.isfinite(list(terms.values())))
    assert min(terms.values()) > 0
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name


def test_flow_that_is_not_known_counts_as_rest() -> None:
    flow = torch.zeros(1, 2, 64, 128)
    expected = backward(tiny(), pair(flow=flow))
    assert backward(tiny(), pair(flow=torch.full_like(flow, torch.nan))) == expected
    assert backward(tiny(), pair(flow=torch.full_like(flow, 20))) != expected


def test_pair_without_flow_is_refused() -> None:
    with pytest.raises(ValueError, match="needs pairs with flow"):
        backward(tiny(), pair(flow=None))


@pytest.mark.parametrize("legacy", [False, True])
def test_pyramid_of_a_pair_is_fused_for_the_target_alone(legacy: bool) -> None:
    """Objects to match are pooled from the reference's own features (dossier 8.3)."""
    network, batch = tiny(legacy=legacy).eval(), pair(2)
    assert batch.flow is not None
    found = network.pair_pyramid(batch.images, flow_quarter(batch.flow))
    assert network.fuse is not None
    target, reference = network.backbone(batch.images[:, 0]), network.backbone(batch.images[:, 1])
    fused = network.fuse(target, reference, flow_quarter(batch.flow))
    for i, level in enumerate(found):
        torch.testing.assert_close(level[:2], fused[i])
        torch.testing.assert_close(level[2:], reference[i])
        assert not torch.equal(level[:2], target[i])


def test_fuse_has_no_match_head_and_trains_without() -> None:
    network = tiny(match_channels=0)
    assert network.matching is None
    terms = backward(network, pair())
    assert {name for name, value in terms.items() if value == 0} == {"match"}
    assert {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None} == set()


# --- a clip, a file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_lone_frame_is_its_own_reference_at_rest(legacy: bool) -> None:
    network, images = tiny(legacy=legacy).eval(), random(2, 3, 64, 128)
    assert network.fuse is not None
    with torch.no_grad():
        plain = network.backbone(images)
        fused = network.fuse(plain, plain, torch.zeros(2, 2, 16, 32))
    for a, b in zip(network(images), network.detect_all(fused)):
        assert torch.equal(a.semantic, b.semantic)
        assert torch.equal(a.boxes, b.boxes)


@pytest.mark.parametrize("changes", [{}, {"match_channels": 0}], ids=["FuseTrack", "Fuse"])
def test_weights_round_trip(tmp_path: Path, changes: dict[str, object]) -> None:
    network = tiny(1, **changes)
    run = RunConfig(name="a run", network=network.config)
    save_weights(tmp_path / "w.safetensors", network, run)
    loaded, found = load_weights(tmp_path / "w.safetensors")
    assert found == run
    own = network.state_dict()
    assert {k for k in own if k.startswith("fuse.")}
    assert {k for k in own if k.startswith("matching.")} == (
        set() if changes else {f"matching.fc{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    )
    assert own.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())
