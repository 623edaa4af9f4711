"""Warping a label map of frame t + 1 to frame t by the flow t -> t + 1.

Convention: pixel coordinates, pixel centres at whole numbers. W(y, x) is the map of t + 1 at (x, y) +
flow(y, x), clamped to the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from panoptube.flow.files import FlowField
from panoptube.panoptic.frame import VOID


def warp_nearest(labels: NDArray[np.uint8], flow: FlowField) -> NDArray[np.uint8]:
    """The nearest pixel's label, at floor(position + 1/2); void where the flow is nan.

    Args:
        labels: (H, W) uint8 of frame t + 1.
        flow: (H, W, 2) float32 from t to t + 1.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: the two differ in size.
    """
    x, y, known = _positions(labels, flow)
    height, width = labels.shape
    half = np.float32(0.5)
    column = np.clip(np.floor(x + half), 0, width - 1).astype(np.int64)
    row = np.clip(np.floor(y + half), 0, height - 1).astype(np.int64)
    warped: NDArray[np.uint8] = labels[row, column]
    warped[~known] = VOID
    return warped


def warp_ids_bilinear(labels: NDArray[np.uint8], flow: FlowField) -> NDArray[np.uint8]:
    """Labels interpolated as if they were grey values, then cut to whole numbers: TC as published (13.3).

    Between the classes 2 and 8 a false class 5 appears, and rounding in the weights drops some pixels of a
    constant region to the class below: it is no sound way to warp labels. The arithmetic is that of
    FlowNet2's Resample2d without a fused multiply-add: coordinates and fractions in float32; of the four
    terms the first three in float64, rounded to float32, the last in float32; added in this order in
    float32.

    Args, Returns, Raises:
        as `warp_nearest`.
    """
    x, y, known = _positions(labels, flow)
    height, width = labels.shape
    left, top = np.floor(x), np.floor(y)
    a, b = x - left, y - top
    columns = [np.clip(left + i, 0, width - 1).astype(np.int64) for i in (0, 1)]
    rows = [np.clip(top + i, 0, height - 1).astype(np.int64) for i in (0, 1)]
    values = labels.astype(np.float32)
    one = np.float64(1)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    total = ((one - wide_a) * (one - wide_b) * values[rows[0], columns[0]]).astype(np.float32)
    total += (wide_a * (one - wide_b) * values[rows[0], columns[1]]).astype(np.float32)
    total += ((one - wide_a) * wide_b * values[rows[1], columns[0]]).astype(np.float32)
    total += a * b * values[rows[1], columns[1]]
    warped: NDArray[np.uint8] = total.astype(np.uint8)
    warped[~known] = VOID
    return warped


def _positions(
    labels: NDArray[np.uint8], flow: FlowField
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel goes, x and y (H, W) float32, and whether that is known."""
    if flow.shape != (*labels.shape, 2):
        raise ValueError(f"labels are {labels.shape}, flow is {flow.shape}; their sizes must agree")
    height, width = labels.shape
    known = ~(np.isnan(flow[..., 0]) | np.isnan(flow[..., 1]))
    moved = np.where(known[..., None], flow, np.float32(0))
    x = np.arange(width, dtype=np.float32) + moved[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + moved[..., 1]
    return x, y, known
