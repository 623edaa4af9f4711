"""The tube-matching loss of SiamTrack (Eqs. 5 to 7): one Dice score over both frames of a segment."""

from __future__ import annotations

from torch import Tensor


def tube_matching_loss(
    predicted: Tensor, truth: Tensor, valid: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """1 - 2 sum(T G) / (sum T^2 + sum G^2 + 1e-5), mean over the segments (Eqs. 5 to 7).

    T is a segment's probability in both frames and G its true mask; sums run over both frames and all
    pixels, so a mask in the wrong frame costs as much as one in the wrong place. Take the softmax over all
    channels of a frame before the channels of the K segments are picked (dossier 9.4, S19).

    Examples:
        >>> import torch
        >>> truth = torch.zeros(2, 1, 4, 4)
        >>> truth[:, :, :2] = 1  # 16 pixels in two frames
        >>> round(tube_matching_loss(truth / 2, truth).item(), 4)  # 1 - 2 * 8 / (4 + 16)
        0.2

    Args:
        predicted: (2, K, H, W) float in [0, 1].
        truth: (2, K, H, W) 0 or 1, any dtype.
        valid: (2, H, W) bool or 0 and 1; pixels that aren't count in no sum. None: all are.
        epsilon: added to the denominator of Eq. 7 (dossier 9.4, S22).

    Returns:
        () in [0, 1], in the dtype of `predicted`; 0 with a gradient of 0 if K is 0.

    Raises:
        ValueError: shapes that don't fit.
    """
    if predicted.ndim != 4 or len(predicted) != 2 or predicted.shape != truth.shape:
        raise ValueError(
            f"tubes must be (2, K, H, W) twice, got {tuple(predicted.shape)}, {tuple(truth.shape)}"
        )
    if not predicted.shape[1]:
        return predicted.sum() * 0
    truth = truth.to(predicted.dtype)
    if valid is not None:
        if valid.shape != (2, *predicted.shape[2:]):
            raise ValueError(
                f"valid must be (2, H, W) like the tubes {tuple(predicted.shape)}, got {tuple(valid.shape)}"
            )
        mask = valid.to(predicted.dtype)[:, None]
        predicted, truth = predicted * mask, truth * mask
    both = (predicted * truth).sum((0, 2, 3))
    each = predicted.square().sum((0, 2, 3)) + truth.square().sum((0, 2, 3))
    return (1 - 2 * both / (each + epsilon)).mean()
