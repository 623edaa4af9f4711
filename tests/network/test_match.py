"""Match head: logits and targets by hand, at their best, worst and empty."""

from __future__ import annotations

import pytest
import torch

from panoptube.network.match import MatchHead, brought_to, match_logits, match_targets


def test_logits_by_hand() -> None:
    now = torch.tensor([[1.0, 2], [0, -1]])
    before = torch.tensor([[3.0, 1], [0, 0], [-1, 4]])
    assert match_logits(now, before).tolist() == [[0, 5, 0, 7], [0, -1, 0, -4]]


def test_logits_without_reference_leave_only_new() -> None:
    assert match_logits(torch.randn(3, 5), torch.zeros(0, 5)).tolist() == [[0], [0], [0]]
    assert match_logits(torch.zeros(0, 5), torch.randn(2, 5)).shape == (0, 3)


def test_head_is_two_layers_without_a_last_activation() -> None:
    torch.manual_seed(0)
    head = MatchHead(2, 6).double()
    features = torch.randn(4, 2, 7, 7, dtype=torch.float64)
    w1, b1, w2, b2 = (p.tolist() for p in head.parameters())
    found = head(features).tolist()
    for row, flat in zip(found, features.flatten(1).tolist()):
        hidden = [max(sum(a * x for a, x in zip(w, flat)) + b, 0) for w, b in zip(w1, b1)]
        assert row == pytest.approx([sum(a * h for a, h in zip(w, hidden)) + b for w, b in zip(w2, b2)])
    assert min(min(row) for row in found) < 0


def test_embeddings_brought_to_a_length_keep_their_direction() -> None:
    torch.manual_seed(0)
    head, features = MatchHead(2, 6), torch.randn(4, 2, 7, 7)
    plain = head(features)
    head.length = 3.0
    found = head(features)
    assert found.norm(dim=1).tolist() == pytest.approx([3.0] * 4)
    assert torch.allclose(found, plain * (3 / plain.norm(dim=1, keepdim=True)))
    logits = match_logits(found, found)
    assert logits[:, 1:].diagonal().tolist() == pytest.approx([9.0] * 4), "alike at their best"
    assert logits.abs().max() <= 9 + 1e-4
    opposite = match_logits(found, -found)[:, 1:].diagonal()
    assert opposite.tolist() == pytest.approx([-9.0] * 4), "unlike at their worst: new is better"
    assert head(features[:0]).shape == (0, 6)


def test_an_embedding_of_nothing_stays_nothing_and_has_a_gradient() -> None:
    nothing = torch.zeros(1, 6, requires_grad=True)
    found = brought_to(nothing, 3.0)
    found.sum().backward()
    assert found.tolist() == [[0.0] * 6]
    assert nothing.grad is not None
    assert nothing.grad.isfinite().all()


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        ([7, 3, 9], [3, 9, 7], [3, 1, 2]),  # all found
        ([7, 3], [4, 5], [0, 0]),  # all new
        ([7, 3], [3], [0, 1]),
        ([7, 3], [], [0, 0]),
        ([], [1, 2], []),
        ([2**40 + 1], [2**40, 2**40 + 1], [2]),  # ids beyond float32 stay apart
    ],
)
def test_targets(now: list[int], before: list[int], expected: list[int]) -> None:
    found = match_targets(torch.tensor(now, dtype=torch.int64), torch.tensor(before, dtype=torch.int64))
    assert found.tolist() == expected
    assert found.dtype == torch.int64
