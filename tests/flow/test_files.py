import struct

import cv2
import numpy as np
import pytest

from panoptube.errors import UserError
from panoptube.flow.files import read_flow

FLOW = (np.arange(24, dtype=np.float32).reshape(3, 4, 2) - 9) / 4


def test_flo(tmp_path):
    flow = FLOW.copy()
    flow[1, 2] = 1e10, 0
    data = struct.pack("<fii", 202021.25, 4, 3) + flow.tobytes()
    (tmp_path / "x.flo").write_bytes(data)
    found = read_flow(tmp_path / "x.flo")
    assert np.isnan(found[1, 2]).all()
    found[1, 2] = FLOW[1, 2]
    assert np.array_equal(found, FLOW)
    for broken in (data[:-1], data[:8], b"PIEH" + bytes(40), struct.pack("<fii", 202021.25, 4, -3)):
        (tmp_path / "x.flo").write_bytes(broken)
        with pytest.raises(UserError, match=r"x\.flo is no flow"):
            read_flow(tmp_path / "x.flo")


def test_npy(tmp_path):
    np.save(tmp_path / "x.npy", FLOW.astype(np.float64))
    assert np.array_equal(read_flow(tmp_path / "x.npy"), FLOW)
    for wrong in (FLOW[..., 0], FLOW.astype(int), np.array([None])):
        np.save(tmp_path / "x.npy", wrong, allow_pickle=True)
        with pytest.raises(UserError, match=r"x\.npy is no flow"):
            read_flow(tmp_path / "x.npy")


def test_kitti(tmp_path):
    image = np.ones((3, 4, 3), np.uint16)
    # Blue first: whether there is flow, then y, then x.
    image[..., 2], image[..., 1] = FLOW[..., 0] * 64 + 2**15, FLOW[..., 1] * 64 + 2**15
    image[0, 1, 0] = 0
    cv2.imwrite(str(tmp_path / "x.png"), image)
    found = read_flow(tmp_path / "x.png")
    assert np.isnan(found[0, 1]).all()
    found[0, 1] = FLOW[0, 1]
    assert np.array_equal(found, FLOW)
    cv2.imwrite(str(tmp_path / "x.png"), image.astype(np.uint8))
    with pytest.raises(UserError, match="expected a 16-bit RGB PNG"):
        read_flow(tmp_path / "x.png")


def test_other_files(tmp_path):
    with pytest.raises(UserError, match=r"x\.txt is no flow; expected a file that ends with \.flo"):
        read_flow(tmp_path / "x.txt")
    with pytest.raises(UserError, match="there is no such file"):
        read_flow(tmp_path / "x.npy")
