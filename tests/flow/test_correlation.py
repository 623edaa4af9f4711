"""The cost volume against four nested loops, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from panoptube.flow.correlation import BLOCK, correlation


def slow(a: Tensor, b: Tensor, d: int, stride: int) -> Tensor:
    """The definition, one number at a time."""
    n, _, height, width = a.shape
    steps = range(-d, d + 1, stride)
    result = a.new_zeros(n, len(steps) ** 2, height, width)
    for i, dy in enumerate(steps):
        for j, dx in enumerate(steps):
            for y in range(max(0, -dy), min(height, height - dy)):
                for x in range(max(0, -dx), min(width, width - dx)):
                    result[:, i * len(steps) + j, y, x] = (a[:, :, y, x] * b[:, :, y + dy, x + dx]).mean(1)
    return result


@pytest.mark.parametrize(
    ("shape", "d", "stride"),
    [
        ((1, 3, 6, 7), 2, 1),
        ((2, 2, 5, BLOCK), 4, 2),
        ((2, 2, 3, BLOCK + 1), 3, 3),
        ((1, 1, 4, 5), 20, 10),  # most displacements lead outside
        ((1, 2, 3, 4), 0, 1),
        ((1, 2, 1, 1), 4, 1),
        ((0, 2, 3, 4), 1, 1),
    ],
)
def test_equals_the_definition(shape: tuple[int, int, int, int], d: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    ours = correlation(a, b, d, stride)
    assert ours.shape == (shape[0], (2 * d // stride + 1) ** 2, *shape[2:])
    torch.testing.assert_close(ours, slow(a, b, d, stride))


def test_memory_layout_does_not_matter() -> None:
    a, b = torch.randn(2, 2, 8, 6, 40)
    dense = correlation(a, b, 2, 1)
    striped = correlation(a.to(memory_format=torch.channels_last), b.mT.contiguous().mT, 2, 1)
    torch.testing.assert_close(striped, dense)


def test_row_displacement_is_slowest_and_leads_into_b() -> None:
    a, b = torch.zeros(2, 1, 2, 5, 5)
    a[0, :, 2, 2] = 1
    b[0, :, 3, 0] = torch.tensor([4.0, 8.0])  # one row down, two columns to the left
    volume = correlation(a, b, 2, 1)
    assert volume[0, (1 + 2) * 5 + (-2 + 2), 2, 2] == 6  # the mean of 4 and 8
    assert volume.count_nonzero() == 1


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(1, 2, 3, BLOCK + 2, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    )
    assert torch.autograd.gradcheck(lambda a, b: correlation(a, b, 2, 2), (a, b), fast_mode=True)
    weight = torch.randn(1, 9, 3, BLOCK + 2, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((correlation(a, b, 2, 2) * weight).sum(), (a, b))
    expected = torch.autograd.grad((slow(a, b, 2, 2) * weight).sum(), (a, b))
    torch.testing.assert_close(ours, expected)


def test_errors() -> None:
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="shapes must agree"):
        correlation(x, x[..., 1:], 1, 1)
    with pytest.raises(ValueError, match="stride 2 doesn't divide"):
        correlation(x, x, 3, 2)
