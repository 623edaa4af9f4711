"""The segment-level contrastive loss of SiamTrack (Eqs. 2 and 3): the same segment alike in both frames."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Denominator = Literal["ntxent", "neg_only", "printed"]


def contrastive_loss(
    target: Tensor, reference: Tensor, temperature: float = 0.5, denominator: Denominator = "ntxent"
) -> Tensor:
    """Each embedding is an anchor; row i of the other frame is its positive (Eqs. 2 and 3).

    The loss of an anchor is -s(positive) / t + ln sum exp(s / t), where s is the cosine similarity to the
    anchor, and the result is the mean over the 2N anchors. The paper is not of one mind about the sum, so
    there are three readings (dossier 9.2):

    * `ntxent`: all embeddings but the anchor itself, 2N - 1 terms, as in SimCLR; never below 0.
    * `neg_only`: the other segments in both frames, 2(N - 1) terms, as the text says; may fall below 0.
    * `printed`: the other segments in the other frame, N - 1 terms, as Eq. 2 is printed.

    Semantic classes and thing instances are two graphs: call it once for each and add.

    Examples:
        >>> frame = torch.eye(2, dtype=torch.float64)
        >>> round(contrastive_loss(frame, frame).item(), 4)  # ln(e^2 + 2) - 2
        0.2395

    Args:
        target: (N, D) float, one row a segment.
        reference: (N, D) float, the same segments in the other frame, in the same order.
        temperature: t, above 0.
        denominator: which reading.

    Returns:
        (), in the inputs' dtype; 0 with a gradient of 0 if N is 0 or 1, as there is nothing to tell apart.

    Raises:
        ValueError: shapes that differ or aren't (N, D), an unknown denominator, or no positive temperature.
    """
    if target.ndim != 2 or target.shape != reference.shape:
        raise ValueError(
            f"embeddings must be (N, D) twice, got {tuple(target.shape)}, {tuple(reference.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    count = len(target)
    frame = torch.arange(2, device=target.device).repeat_interleave(count)
    segment = torch.arange(count, device=target.device).repeat(2)
    other_segment = segment[:, None] != segment
    other_frame = frame[:, None] != frame
    summed = {
        "ntxent": other_segment | other_frame,
        "neg_only": other_segment,
        "printed": other_segment & other_frame,
    }
    if denominator not in summed:
        raise ValueError(f"denominator must be one of {', '.join(summed)}, got {denominator!r}")
    if count < 2:
        return (target.sum() + reference.sum()) * 0
    embeddings = F.normalize(torch.cat([target, reference]), dim=1)
    similarity = embeddings @ embeddings.T / temperature
    positive = similarity[~other_segment & other_frame]
    total = similarity.masked_fill(~summed[denominator], -torch.inf).logsumexp(1)
    return (total - positive).mean()
