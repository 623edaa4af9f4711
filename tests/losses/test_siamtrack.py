"""The three temporal losses by hand, against loops, at their best and worst, empty, and their gradients."""

from __future__ import annotations

import doctest
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from panoptube.losses import segment, tube, warp
from panoptube.losses.segment import Denominator, contrastive_loss
from panoptube.losses.tube import tube_matching_loss
from panoptube.losses.warp import occlusion_map, warp_bilinear, warping_loss


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("module", [segment, tube, warp])
def test_the_examples_run(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


# --- segment ------------------------------------------------------------------------------------------------


def contrast_in_loops(a: NDArray[np.float64], b: NDArray[np.float64], t: float, reading: str) -> float:
    frames, total = [a, b], 0.0
    for f in (0, 1):
        for i in range(len(a)):

            def s(g: int, k: int, f: int = f, i: int = i) -> float:
                u, v = frames[f][i], frames[g][k]
                return float(u @ v / math.sqrt(u @ u) / math.sqrt(v @ v)) / t

            below = 0.0
            for g in (0, 1):
                for k in range(len(a)):
                    if reading == "ntxent" and (g, k) != (f, i):
                        below += math.exp(s(g, k))
                    if reading == "neg_only" and k != i:
                        below += math.exp(s(g, k))
                    if reading == "printed" and k != i and g != f:
                        below += math.exp(s(g, k))
            total += -s(1 - f, i) + math.log(below)
    return total / (2 * len(a))


@pytest.mark.parametrize("reading", ["ntxent", "neg_only", "printed"])
@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("temperature", [0.5, 0.1])
def test_contrast_equals_its_loops(reading: Denominator, count: int, temperature: float) -> None:
    a, b = draw(count, 7, seed=1), draw(count, 7, seed=2)
    expected = contrast_in_loops(a.numpy(), b.numpy(), temperature, reading)
    assert contrastive_loss(a, b, temperature, reading).item() == pytest.approx(expected, rel=1e-12)


def test_contrast_by_hand() -> None:
    """Two segments that agree and are orthogonal, t = 1/2: the positive is 2, the three others 2, 0, 0."""
    z = torch.eye(2, dtype=torch.float64)
    two = math.exp(2)
    assert contrastive_loss(z, z).item() == pytest.approx(math.log(two + 2) - 2, rel=1e-12)
    assert contrastive_loss(z, z, denominator="neg_only").item() == pytest.approx(math.log(2) - 2, rel=1e-12)
    assert contrastive_loss(z, z, denominator="printed").item() == pytest.approx(-2, rel=1e-12)


def test_contrast_at_its_best_and_worst() -> None:
    best = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)
    # the positive is 2, the others -2 each: ln(e^2 + 2 e^-2) - 2
    assert contrastive_loss(best, best).item() == pytest.approx(math.log(1 + 2 * math.exp(-4)), rel=1e-9)
    # each finds its positive opposite and the other segment of the other frame in its place
    worst = contrastive_loss(best, -best)
    assert worst.item() == pytest.approx(math.log(2 * math.exp(-2) + math.exp(2)) + 2, rel=1e-9)
    between = contrastive_loss(best, best + 0.3 * draw(2, 2))
    assert contrastive_loss(best, best) < between < worst


def test_contrast_ignores_length() -> None:
    a, b = draw(4, 5, seed=3), draw(4, 5, seed=4)
    assert torch.allclose(contrastive_loss(a, b), contrastive_loss(7 * a, b / 9))


@pytest.mark.parametrize("reading", ["ntxent", "neg_only", "printed"])
@pytest.mark.parametrize("count", [0, 1])
def test_contrast_of_none_or_one_is_zero_with_a_gradient(reading: Denominator, count: int) -> None:
    a, b = draw(count, 5, seed=5).requires_grad_(), draw(count, 5, seed=6).requires_grad_()
    loss = contrastive_loss(a, b, denominator=reading)
    loss.backward()
    assert loss.item() == 0
    assert a.grad is not None
    assert b.grad is not None
    assert not a.grad.any()
    assert not b.grad.any()


@pytest.mark.parametrize("reading", ["ntxent", "neg_only", "printed"])
def test_gradient_of_the_contrast(reading: Denominator) -> None:
    a, b = draw(3, 4, seed=7).requires_grad_(), draw(3, 4, seed=8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: contrastive_loss(x, y, 0.5, reading), (a, b))


def test_contrast_refuses() -> None:
    with pytest.raises(ValueError, match="twice"):
        contrastive_loss(draw(3, 4), draw(2, 4))
    with pytest.raises(ValueError, match="temperature"):
        contrastive_loss(draw(3, 4), draw(3, 4), 0.0)
    with pytest.raises(ValueError, match="denominator"):
        contrastive_loss(draw(3, 4), draw(3, 4), denominator="all")  # type: ignore[arg-type]


# --- tube ---------------------------------------------------------------------------------------------------


def tubes(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    predicted = draw(2, 3, 4, 5, seed=seed).softmax(1)
    truth = (draw(2, 3, 4, 5, seed=seed + 1) > 0.5).double()
    return predicted, truth, draw(2, 4, 5, seed=seed + 2) > -0.3


@pytest.mark.parametrize("masked", [False, True])
def test_tubes_equal_their_loops(masked: bool) -> None:
    predicted, truth, valid = tubes(10)
    total = 0.0
    for k in range(3):
        both = each = 0.0
        for f in range(2):
            for y in range(4):
                for x in range(5):
                    if masked and not valid[f, y, x]:
                        continue
                    p, g = predicted[f, k, y, x].item(), truth[f, k, y, x].item()
                    both += p * g
                    each += p * p + g * g
        total += 1 - 2 * both / (each + 1e-5)
    loss = tube_matching_loss(predicted, truth, valid if masked else None)
    assert loss.item() == pytest.approx(total / 3, rel=1e-12)


def test_tubes_at_their_best_and_worst() -> None:
    _, truth, _ = tubes(20)
    assert tube_matching_loss(truth, truth).item() == pytest.approx(0, abs=1e-6)
    assert tube_matching_loss(1 - truth, truth).item() == 1
    # right in one frame, absent from the other: 2 * 8 / (8 + 16)
    half = torch.zeros(2, 1, 4, 4)
    half[:, :, :2] = 1
    only_one = half.clone()
    only_one[1] = 0
    assert tube_matching_loss(only_one, half).item() == pytest.approx(1 - 16 / 24, abs=1e-6)


def test_void_pixels_count_in_no_sum() -> None:
    predicted, truth, valid = tubes(30)
    other = torch.where(valid[:, None], predicted, 1 - predicted)
    assert not torch.equal(predicted, other)
    assert torch.equal(tube_matching_loss(predicted, truth, valid), tube_matching_loss(other, truth, valid))


def test_no_tubes_is_zero_with_a_gradient() -> None:
    predicted = torch.zeros(2, 0, 4, 4, requires_grad=True)
    loss = tube_matching_loss(predicted, torch.zeros(2, 0, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert predicted.grad is not None


def test_gradient_of_the_tubes() -> None:
    predicted, truth, valid = tubes(40)
    assert torch.autograd.gradcheck(
        lambda p: tube_matching_loss(p, truth, valid), (predicted.requires_grad_(),)
    )


def test_tubes_refuse() -> None:
    predicted, truth, valid = tubes(50)
    with pytest.raises(ValueError, match="twice"):
        tube_matching_loss(predicted[:1], truth[:1])
    with pytest.raises(ValueError, match="valid"):
        tube_matching_loss(predicted, truth, valid[:, :2])


# --- warp ---------------------------------------------------------------------------------------------------


def warp_in_loops(maps: NDArray[np.float64], flow: NDArray[np.float64]) -> NDArray[np.float64]:
    channels, height, width = maps.shape
    out = np.empty_like(maps)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                u = min(max(x + flow[0, y, x], 0), width - 1)
                v = min(max(y + flow[1, y, x], 0), height - 1)
                x0, y0 = int(u), int(v)
                x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
                a, b = u - x0, v - y0
                top = (1 - a) * maps[c, y0, x0] + a * maps[c, y0, x1]
                low = (1 - a) * maps[c, y1, x0] + a * maps[c, y1, x1]
                out[c, y, x] = (1 - b) * top + b * low
    return out


@pytest.mark.parametrize("size", [(4, 6), (1, 5), (5, 1)])
def test_warping_equals_its_loops(size: tuple[int, int]) -> None:
    maps, flow = draw(3, *size, seed=60), 3 * draw(2, *size, seed=61)
    expected = warp_in_loops(maps.numpy(), flow.numpy())
    np.testing.assert_allclose(warp_bilinear(maps, flow).numpy(), expected, rtol=0, atol=1e-12)


def test_half_precision_finds_far_pixels() -> None:
    maps = torch.zeros(1, 2, 1000, dtype=torch.bfloat16)
    maps[0, :, 701] = 1
    flow = torch.zeros(2, 2, 1000)
    flow[0] = 2
    warped = warp_bilinear(maps, flow)
    assert warped.dtype == torch.bfloat16
    assert warped[0, 0, 699] == 1
    assert warped.sum() == 2


def test_occlusion_by_hand() -> None:
    image = torch.zeros(3, 1, 3, dtype=torch.float64)
    warped = image.clone()
    warped[:, 0, 1] = torch.tensor([0.01, 0.02, 0.02], dtype=torch.float64)  # length 0.03
    warped[:, 0, 2] = 1
    expected = [1.0, math.exp(-1.5), math.exp(-50 * math.sqrt(3))]
    np.testing.assert_allclose(occlusion_map(image, warped)[0].numpy(), expected, rtol=1e-12)
    assert occlusion_map(image, warped, alpha=0).eq(1).all()


def test_gradient_of_the_occlusion_is_finite_where_nothing_differs() -> None:
    image = torch.zeros(3, 2, 2, requires_grad=True)
    occlusion_map(image, torch.zeros(3, 2, 2)).sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_warping_loss_equals_its_loops() -> None:
    a, b, flow = draw(3, 4, 5, seed=70), draw(3, 4, 5, seed=71), 2 * draw(2, 4, 5, seed=72)
    occlusion = draw(4, 5, seed=73).sigmoid()
    d = a.numpy() - warp_in_loops(b.numpy(), flow.numpy())
    expected = np.mean(occlusion.numpy() * np.sqrt((d**2).sum(0) + 1e-6))
    assert warping_loss(a, b, flow, occlusion).item() == pytest.approx(expected, rel=1e-12)


def test_warping_loss_at_its_best_and_when_all_is_hidden() -> None:
    b = draw(2, 4, 6, seed=74)
    flow = torch.zeros(2, 4, 6, dtype=torch.float64)
    flow[0] = 1
    moved = b[:, :, [1, 2, 3, 4, 5, 5]]
    assert warping_loss(moved, b, flow, torch.ones(4, 6)).item() == pytest.approx(1e-3, rel=1e-9)
    assert warping_loss(b, b, flow, torch.ones(4, 6)).item() > 0.1
    assert warping_loss(b, b, flow, torch.zeros(4, 6)).item() == 0


def test_no_channels_is_zero_with_a_gradient() -> None:
    a = torch.zeros(0, 4, 6, requires_grad=True)
    loss = warping_loss(a, torch.zeros(0, 4, 6), torch.zeros(2, 4, 6), torch.ones(4, 6))
    loss.backward()
    assert loss.item() == 0
    assert a.grad is not None


def test_gradient_of_the_warping_loss() -> None:
    a, b = draw(2, 3, 4, seed=75).requires_grad_(), draw(2, 3, 4, seed=76).requires_grad_()
    flow, occlusion = 0.7 * draw(2, 3, 4, seed=77), draw(3, 4, seed=78).sigmoid()
    assert torch.autograd.gradcheck(lambda x, y: warping_loss(x, y, flow, occlusion), (a, b))


def test_warping_refuses() -> None:
    a, flow = draw(2, 3, 4), torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match="flow"):
        warp_bilinear(a, flow[:, :2])
    with pytest.raises(ValueError, match="occlusion"):
        warping_loss(a, a, flow, torch.ones(2, 4))
    with pytest.raises(ValueError, match="images"):
        occlusion_map(a, a[:1])
