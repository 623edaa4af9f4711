"""Deformable convolution on the CPU against torchvision's, in double precision."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops

from panoptube.network import deform
from panoptube.network.deform import DeformConv2d, deform_conv2d, sampled_conv2d


def arguments(
    batch: int,
    channels: int,
    out: int,
    height: int,
    width: int,
    kernel: int = 3,
    padding: int = 1,
    spread: float = 2.0,
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(channels * height + width)
    size = (height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1)
    shapes = (batch, channels, height, width), (batch, 2 * kernel**2, *size), (out, channels, kernel, kernel)
    input, offset, weight = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return input.requires_grad_(), (spread * offset).requires_grad_(), weight.requires_grad_()


def gradients(result: Tensor, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Gradients under a fixed, uneven weighting of the outputs."""
    return torch.autograd.grad(
        result, inputs, torch.linspace(-1, 2, result.numel(), dtype=result.dtype).view_as(result)
    )


def assert_as_torchvision(inputs: tuple[Tensor, Tensor, Tensor], padding: int = 1) -> None:
    ours, theirs = deform_conv2d(*inputs, padding=padding), ops.deform_conv2d(*inputs, padding=padding)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for a, b in zip(gradients(ours, inputs), gradients(theirs, inputs)):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("shape", "kernel", "padding"),
    [
        ((2, 5, 3, 7, 9), 3, 1),
        ((1, 33, 40, 13, 5), 3, 1),
        ((3, 1, 1, 1, 1), 3, 1),
        ((1, 4, 2, 1, 17), 3, 1),
        ((1, 16, 8, 6, 6), 1, 0),
        ((2, 6, 4, 8, 7), 5, 2),
        ((1, 3, 2, 6, 5), 3, 0),
        ((1, 3, 2, 6, 5), 2, 2),
    ],
)
def test_as_torchvision(shape: tuple[int, int, int, int, int], kernel: int, padding: int) -> None:
    assert_as_torchvision(arguments(*shape, kernel=kernel, padding=padding), padding)


@pytest.mark.parametrize("spread", [30.0, 1e6])
def test_far_outside(spread: float) -> None:
    assert_as_torchvision(arguments(1, 4, 3, 6, 7, spread=spread))


def test_nowhere_near_the_image_is_zero() -> None:
    input, offset, weight = arguments(1, 4, 3, 6, 7)
    result = deform_conv2d(input, torch.full_like(offset, 1e12), weight)
    assert not result.any()


def test_whole_numbers() -> None:
    """On pixel centres the gradient of the offset is one-sided; -1 and H are just outside."""
    input, offset, weight = arguments(1, 4, 3, 6, 7, spread=3.0)
    assert_as_torchvision((input, offset.detach().round().requires_grad_(), weight))


def test_zero_offsets_are_an_ordinary_convolution() -> None:
    input, offset, weight = arguments(2, 5, 3, 7, 9)
    expected = F.conv2d(input, weight, padding=1)
    torch.testing.assert_close(deform_conv2d(input, 0 * offset, weight), expected, rtol=1e-10, atol=1e-10)


def test_order_of_offsets_by_hand() -> None:
    """Centre tap only, dy = 1: every row reads the one below. Then dx = 0.5: half way to the right."""
    input = torch.arange(12.0).view(1, 1, 3, 4)
    weight, offset = torch.zeros(1, 1, 3, 3), torch.zeros(1, 18, 3, 4)
    weight[0, 0, 1, 1] = 1
    offset[:, 2 * 4] = 1
    down = deform_conv2d(input, offset, weight)[0, 0]
    assert down.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11], [0, 0, 0, 0]]
    offset.zero_()[:, 2 * 4 + 1] = 0.5
    right = deform_conv2d(input, offset, weight)[0, 0]
    assert right.tolist() == [[0.5, 1.5, 2.5, 1.5], [4.5, 5.5, 6.5, 3.5], [8.5, 9.5, 10.5, 5.5]]


def test_gradcheck() -> None:
    input, offset, weight = arguments(1, 2, 2, 3, 4)
    safe = (offset.detach().floor() + 0.5 + 0.2 * torch.sin(offset.detach())).requires_grad_()
    assert torch.autograd.gradcheck(deform_conv2d, (input, safe, weight))


@pytest.mark.parametrize("pixels", [1, 7, 62, 63, 64])
def test_bands(pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands that end inside a row, on the last pixel, and beyond it."""
    inputs = arguments(2, 5, 3, 7, 9)
    monkeypatch.setattr(deform, "COLUMN_BYTES", pixels * 9 * 5 * 8)
    assert_as_torchvision(inputs)


def test_memory_formats() -> None:
    input, offset, weight = arguments(2, 5, 3, 7, 9)
    expected = ops.deform_conv2d(input, offset, weight, padding=1)
    views = (
        input.detach().contiguous(memory_format=torch.channels_last),
        offset.detach().transpose(2, 3).contiguous().transpose(2, 3),
        weight.detach().flip(0).contiguous(memory_format=torch.channels_last).flip(0),
    )
    leaves = tuple(v.requires_grad_() for v in views)
    result = deform_conv2d(leaves[0], leaves[1], leaves[2])
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    result.sum().backward()
    reference = torch.autograd.grad(expected.sum(), (input, offset, weight))
    for leaf, grad in zip(leaves, reference):
        torch.testing.assert_close(leaf.grad, grad, rtol=1e-10, atol=1e-10)


def test_empty_batch() -> None:
    inputs = arguments(0, 5, 3, 7, 9)
    result = deform_conv2d(*inputs)
    assert result.shape == (0, 3, 7, 9)
    grads = torch.autograd.grad(result.sum(), inputs)
    assert [g.shape for g in grads] == [i.shape for i in inputs]
    assert not grads[2].any()


def test_same_bits_every_time() -> None:
    input, offset, weight = (a.detach().float().requires_grad_() for a in arguments(2, 48, 32, 20, 30))
    first = deform_conv2d(input, offset, weight)
    grads = gradients(first, (input, offset, weight))
    for _ in range(5):
        again = deform_conv2d(input, offset, weight)
        assert torch.equal(first, again)
        assert all(map(torch.equal, grads, gradients(again, (input, offset, weight))))


def test_two_threads_at_a_time() -> None:
    cases = [arguments(1, 16, 8, 21, 20 + i % 3) for i in range(8)]

    def run(inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        result = deform_conv2d(*inputs)
        return (result, *gradients(result, inputs))

    alone = [run(c) for c in cases]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, cases))
    for a, b in zip(alone, together):
        assert all(map(torch.allclose, a, b))


def test_single_precision_is_close_to_double() -> None:
    inputs = arguments(1, 64, 32, 20, 30)
    single = tuple(a.detach().float().requires_grad_() for a in inputs)
    exact = tuple(a.detach().double().requires_grad_() for a in single)
    low, high = deform_conv2d(*single), deform_conv2d(*exact)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), high, rtol=1e-4, atol=1e-4)
    for a, b in zip(gradients(low, single), gradients(high, exact)):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_in_single(dtype: torch.dtype) -> None:
    input, offset, weight = (a.detach() for a in arguments(1, 16, 8, 9, 9))
    half = input.to(dtype).requires_grad_()
    expected = deform_conv2d(half.detach().float(), offset.float(), weight.float())
    result = deform_conv2d(half, offset.float(), weight.float())
    assert result.dtype == dtype
    assert torch.equal(result, expected.to(dtype))
    result.float().sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype


def test_without_gradients_half_precision_stays_half() -> None:
    """Columns and weights are rounded to 8 bits, sums of products aren't; places are single precision."""
    input, offset, weight = (a.detach() for a in arguments(2, 32, 8, 20, 30))
    half, weight = input.bfloat16().contiguous(memory_format=torch.channels_last), weight.bfloat16()
    result = sampled_conv2d(half, offset.float(), weight, 1)
    expected = deform_conv2d(half.double(), offset.float().double(), weight.double())
    assert result.dtype == torch.bfloat16
    assert result.is_contiguous(memory_format=torch.channels_last)
    error = (result.double() - expected).square().mean().sqrt() / expected.std()
    assert 0 < error < 0.01
    single = sampled_conv2d(input.float(), offset.float(), weight.float(), 1)
    assert torch.equal(single, deform_conv2d(input.float(), offset.float(), weight.float()))


def test_autocast_leaves_the_products_alone() -> None:
    input, offset, weight = (a.detach().float().requires_grad_() for a in arguments(1, 16, 8, 9, 9))
    expected = deform_conv2d(input, offset, weight)
    grads = gradients(expected, (input, offset, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = deform_conv2d(input, offset, weight)
        assert torch.equal(result, expected)
        assert all(map(torch.equal, grads, gradients(result, (input, offset, weight))))


def test_nan_is_not_hidden() -> None:
    input, offset, weight = (a.detach() for a in arguments(1, 2, 1, 3, 3))
    offset[0, 8, 1, 1] = math.nan
    result = deform_conv2d(input, offset, weight)
    assert result[0, 0].isnan().nonzero().tolist() == [[1, 1]]


def test_wrong_shapes() -> None:
    input, offset, weight = arguments(1, 4, 3, 6, 7)
    with pytest.raises(ValueError, match="offset is"):
        deform_conv2d(input, offset[:, :, 1:], weight)
    with pytest.raises(ValueError, match="offset is"):
        deform_conv2d(input, offset, weight, padding=0)
    with pytest.raises(ValueError, match="does not fit the weight"):
        deform_conv2d(input[:, 1:], offset, weight)
    with pytest.raises(ValueError, match="does not fit the weight"):
        deform_conv2d(input[0], offset, weight)


def test_module_starts_as_documented_and_learns() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(32, 24)
    assert {k: tuple(v.shape) for k, v in layer.named_parameters()} == {
        "offset.weight": (18, 32, 3, 3),
        "offset.bias": (18,),
        "weight": (24, 32, 3, 3),
    }
    bound, xavier = 1 / math.sqrt(32 * 9), math.sqrt(6 / ((32 + 18) * 9))
    assert not layer.offset.bias.any()
    assert 0.98 * bound < layer.weight.detach().abs().max() <= bound
    assert 0.98 * xavier < layer.offset.weight.detach().abs().max() <= xavier
    x = torch.randn(2, 32, 9, 11)
    result = layer(x)
    expected = ops.deform_conv2d(x, layer.offset(x), layer.weight, padding=1)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    result.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in layer.parameters())
