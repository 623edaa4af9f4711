"""Semantic head: which level goes where, and the enlargement."""

from __future__ import annotations

import torch

from panoptube.network.semantic import DeformableBlock, SemanticHead, full_size


def pyramid(channels: int = 4, size: tuple[int, int] = (64, 96)) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(1, channels, size[0] // s, size[1] // s, generator=g) for s in (4, 8, 16, 32)]


def test_shape_and_unused_sixth_level() -> None:
    head = SemanticHead(4, (8, 8), 2, 5)
    levels = pyramid()
    found = head(levels)
    assert found.shape == (1, 5, 16, 24)
    assert torch.equal(head([*levels, torch.full((1, 4, 1, 2), torch.nan)]), found)


def test_each_level_has_its_quarter_of_the_classifier() -> None:
    torch.manual_seed(0)
    head = SemanticHead(4, (8,), 2, 5)
    for part in range(4):
        levels = [level.requires_grad_() for level in pyramid()]
        head.zero_grad()
        weight = torch.zeros_like(head.logits.weight)
        weight[:, 8 * part : 8 * part + 8] = 1
        head.logits.weight.data.copy_(weight)
        head(levels).square().sum().backward()
        seen = [bool((level.grad != 0).any()) for level in levels if level.grad is not None]
        assert seen == [i == part for i in range(4)]


def test_levels_share_one_stack() -> None:
    torch.manual_seed(0)
    head = SemanticHead(4, (8,), 2, 8)
    constant = [torch.ones_like(level) for level in pyramid(size=(512, 512))]
    middle = []
    for part in range(4):
        weight = torch.zeros(8, 32, 1, 1)
        weight[:, 8 * part : 8 * part + 8, 0, 0] = torch.eye(8)
        head.logits.weight.data.copy_(weight)
        middle.append(
            head.blocks(constant[part])[0, :, constant[part].shape[2] // 2, constant[part].shape[3] // 2]
        )
    # Away from the borders a constant level looks the same at every stride, up to the norm over the borders.
    assert all((m > 0).equal(middle[0] > 0) for m in middle[1:])
    assert len({name for name, _ in head.named_parameters()}) == 3 + 2 + 2


def test_block_with_zero_offsets_is_a_convolution() -> None:
    torch.manual_seed(0)
    block = DeformableBlock(4, 8, 2).double()
    block.conv.offset.weight.data.zero_()
    x = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    plain = torch.conv2d(x, block.conv.weight, padding=1)
    groups = plain.view(2, 2, -1)
    normed = (groups - groups.mean(2, keepdim=True)) / (
        groups.var(2, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    expected = normed.view_as(plain).clamp(min=0)
    assert torch.allclose(block(x), expected, rtol=0, atol=1e-10)


def test_offsets_start_small_but_not_zero() -> None:
    """Dossier 5: Xavier reaches the offset predictors of the published network too; std about 0.028."""
    torch.manual_seed(0)
    offset = DeformableBlock(256, 256, 32).conv.offset
    assert abs(offset.weight.std().item() - 0.028) < 0.001
    assert (offset.bias == 0).all()


def test_full_size_by_hand() -> None:
    found = full_size(torch.tensor([[[[0.0, 8.0]]]]))
    assert found.shape == (1, 1, 4, 8)
    for row in found[0, 0].tolist():  # centres at (x + 0.5) / 4 - 0.5, clamped to 0..1
        assert row == [0, 0, 1, 3, 5, 7, 8, 8]
    assert (full_size(torch.full((2, 3, 4, 5), 7.0)) == 7).all()
