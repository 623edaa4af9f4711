"""Flow from files: Middlebury `.flo`, NumPy `.npy`, and KITTI's 16-bit PNG."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.errors import UserError

FlowField = NDArray[np.float32]
"""(H, W, 2) float32 in pixels, x first: pixel p of the first frame is at p + flow(p) in the second. nan where
the flow isn't known."""

ENDINGS = (".flo", ".npy", ".png")

FLO_MAGIC = 202021.25
UNKNOWN = 1e9
"""Middlebury marks unknown flow by greater numbers."""


def read_flow(path: Path) -> FlowField:
    """A flow field; what the file marks as unknown or invalid becomes nan.

    * `.flo` (Middlebury): the number 202021.25, width, height, then x and y of each pixel, little-endian.
    * `.npy`: (H, W, 2) of floats.
    * `.png` (KITTI): 16-bit RGB, (R - 2**15) / 64 is x, (G - 2**15) / 64 is y, B is 0 where there is no flow.

    Raises:
        UserError: the file is missing, has another ending, or is broken.
    """
    readers = {".flo": _read_flo, ".npy": _read_npy, ".png": _read_kitti}
    if path.suffix not in readers:
        raise UserError(f"{path} is no flow; expected a file that ends with {', '.join(ENDINGS)}")
    if not path.is_file():
        raise UserError(f"can't read {path}: there is no such file")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no flow: {error}") from error


def _read_flo(path: Path) -> FlowField:
    data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != FLO_MAGIC:
        raise ValueError("it doesn't begin like a .flo file")
    width, height = np.frombuffer(data, "<i4", 2, 4).tolist()
    if width < 1 or height < 1 or len(data) != 12 + 8 * width * height:
        raise ValueError(f"{len(data)} bytes don't fit {width} x {height} pixels")
    flow: FlowField = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    flow[(np.abs(flow) > UNKNOWN).any(-1)] = np.nan
    return flow


def _read_npy(path: Path) -> FlowField:
    flow = np.load(path, allow_pickle=False)
    if flow.ndim != 3 or flow.shape[2] != 2 or not np.issubdtype(flow.dtype, np.floating):
        raise ValueError(f"expected (H, W, 2) of floats, got {flow.shape} {flow.dtype}")
    return np.asarray(flow, np.float32)


def _read_kitti(path: Path) -> FlowField:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint16:
        raise ValueError("expected a 16-bit RGB PNG")
    # OpenCV's order is B, G, R.
    flow: FlowField = (image[..., :0:-1].astype(np.float32) - 2**15) / 64
    flow[image[..., 0] == 0] = np.nan
    return flow
