import math

import numpy as np
import pytest

from panoptube.flow.warp import warp_ids_bilinear, warp_nearest

LABELS = np.random.default_rng(0).integers(19, size=(6, 8)).astype(np.uint8)


def constant(x: float, y: float) -> np.ndarray:
    return np.broadcast_to(np.float32([x, y]), (6, 8, 2)).copy()


@pytest.mark.parametrize("warp", [warp_nearest, warp_ids_bilinear])
def test_zero_flow_and_whole_pixels(warp):
    assert np.array_equal(warp(LABELS, constant(0, 0)), LABELS)
    # W(y, x) is the label at (x + 2, y - 1), clamped to the image.
    expected = LABELS[np.clip(np.arange(6) - 1, 0, 5)][:, np.clip(np.arange(8) + 2, 0, 7)]
    assert np.array_equal(warp(LABELS, constant(2, -1)), expected)
    assert np.array_equal(warp(LABELS, constant(99, 0)), LABELS[:, 7:].repeat(8, 1))


def test_nearest_invents_no_class_and_bilinear_does():
    edge = np.full((6, 8), 2, np.uint8)
    edge[:, 4:] = 8
    assert np.unique(warp_nearest(edge, constant(0.5, 0.3))).tolist() == [2, 8]
    assert np.unique(warp_ids_bilinear(edge, constant(0.5, 0.3))).tolist() == [2, 5, 8]


def test_bilinear_by_hand():
    flow = np.random.default_rng(1).normal(0, 2, (6, 8, 2)).astype(np.float32)
    found = warp_ids_bilinear(LABELS, flow)
    near = warp_nearest(LABELS, flow)
    for y in range(6):
        for x in range(8):
            at_x, at_y = np.float32(x) + flow[y, x, 0], np.float32(y) + flow[y, x, 1]
            left, top = math.floor(at_x), math.floor(at_y)
            a, b = float(at_x) - left, float(at_y) - top

            def label(row: int, column: int) -> int:
                return int(LABELS[min(max(row, 0), 5), min(max(column, 0), 7)])

            value = (1 - b) * ((1 - a) * label(top, left) + a * label(top, left + 1))
            value += b * ((1 - a) * label(top + 1, left) + a * label(top + 1, left + 1))
            # Whole numbers may fall to either side.
            assert int(value - 1e-4) <= found[y, x] <= int(value + 1e-4)
            assert near[y, x] == label(math.floor(at_y + 0.5), math.floor(at_x + 0.5))


def test_unknown_flow_is_void_and_sizes_must_agree():
    flow = constant(0, 0)
    flow[2, 3, 1] = np.nan
    for warp in (warp_nearest, warp_ids_bilinear):
        assert np.argwhere(warp(LABELS, flow) == 255).tolist() == [[2, 3]]
        with pytest.raises(ValueError, match="must agree"):
            warp(LABELS, flow[1:])
