"""Match head: which object of the reference a detection is (dossier section 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panoptube.network.roi import BOX_SIZE


class MatchHead(nn.Module):
    """Two fully connected layers, the same for both frames (dossier 7.1).

    Args:
        channels: C of the features.
        width: D of the embeddings.
        length: L2 norm that embeddings are brought to; 0 leaves them as they are, as published.
    """

    def __init__(self, channels: int, width: int, length: float = 0.0) -> None:
        super().__init__()
        self.length = length
        self.fc1 = nn.Linear(channels * BOX_SIZE**2, width)
        self.fc2 = nn.Linear(width, width)
        for layer in (self.fc1, self.fc2):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(R, C, 7, 7) -> (R, D) embeddings."""
        return brought_to(self.fc2(F.relu(self.fc1(features.flatten(1)))), self.length)


def brought_to(embeddings: Tensor, length: float) -> Tensor:
    """(R, D) -> (R, D), each with the L2 norm `length`, 0 stays 0; with the length 0 as they are.

    Inner products of embeddings of any length say as much of how sure a detection is as of which object it
    is. Those of one length say how much two are alike, and fall below 0, "new", where they aren't.
    """
    return F.normalize(embeddings, dim=1) * length if length else embeddings


def match_logits(embeddings: Tensor, reference: Tensor) -> Tensor:
    """(R, D), (M, D) -> (R, M + 1): the constant 0 for "new object", then inner products (dossier 7.1)."""
    return F.pad(embeddings @ reference.T, (1, 0))


def match_targets(track_ids: Tensor, reference_ids: Tensor) -> Tensor:
    """(G,), (M,) -> (G,), int64: 1 + position of the id in the reference, 0 where absent (dossier 7.2)."""
    same = track_ids[:, None] == reference_ids[None]
    found = torch.where(same.any(1), same.float().argmax(1) + 1 if len(reference_ids) else 0, 0)
    return found.long()
