"""The projection head, against plain loops and by hand."""

from __future__ import annotations

import doctest

import pytest
import torch

from panoptube.network import projection
from panoptube.network.projection import ProjectionHead, gather_levels, mask_pool


def test_example() -> None:
    assert doctest.testmod(projection) == (0, 3)


def levels() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 3, 8 // 2**i, 16 // 2**i, generator=generator) for i in range(3)]


def test_levels_are_summed_at_the_finest_size() -> None:
    pyramid = levels()
    summed = gather_levels(pyramid, "nearest", "sum")
    assert summed.shape == pyramid[0].shape
    for y in range(8):
        for x in range(16):
            slow = sum(level[0, :, y >> i, x >> i] for i, level in enumerate(pyramid))
            assert torch.allclose(summed[0, :, y, x], slow)
    assert torch.allclose(gather_levels(pyramid, "nearest", "mean"), summed / 3)
    assert not torch.allclose(gather_levels(pyramid, "bilinear", "sum"), summed)


def test_embeddings_have_length_one_and_use_the_levels_they_should() -> None:
    torch.manual_seed(0)
    head = ProjectionHead(3, (4, 6), levels=2)
    pyramid = levels()
    found = head(pyramid)
    assert found.shape == (1, 6, 8, 16)
    assert torch.allclose(found.square().sum(1), torch.ones(1, 8, 16), atol=1e-5)
    assert torch.equal(found, head([pyramid[0], pyramid[1], 100 * pyramid[2]]))
    assert not torch.equal(found, head([pyramid[0], 2 * pyramid[1], pyramid[2]]))


@pytest.mark.parametrize("renormalize", [True, False])
def test_pooling_against_loops(renormalize: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(5, 4, 6, generator=generator, dtype=torch.float64)
    masks = torch.rand(3, 4, 6, generator=generator) > 0.5
    found = mask_pool(embedding, masks, renormalize)
    for row, mask in zip(found, masks):
        pixels = [embedding[:, y, x] for y in range(4) for x in range(6) if mask[y, x]]
        mean = sum(pixels) / len(pixels)
        assert torch.allclose(row, mean / mean.norm() if renormalize else mean)
    assert found.dtype == torch.float64


def test_nothing_to_pool_keeps_a_gradient() -> None:
    embedding = torch.randn(5, 4, 6, requires_grad=True)
    mask_pool(embedding, torch.zeros(0, 4, 6)).sum().backward()
    assert embedding.grad is not None
    assert not embedding.grad.any()
