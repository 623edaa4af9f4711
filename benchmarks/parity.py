"""What the parity checks share: weights by rule, the network's input, rows of the table."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panoptube.config import NetworkConfig
from panoptube.convert import published_name
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.transforms import normalize
from panoptube.network.vpsnet import VPSNet, vpsnet

Arrays = dict[str, NDArray[Any]]
FLOAT_TOLERANCE = 1e-3
LOSS_TOLERANCE = 1e-5
FLIPPED_PIXELS = 3


def rule_weight(name: str, shape: tuple[int, ...], rule: dict[str, Any]) -> Tensor:
    """The value of entry `name` of the published state dict by the rule."""
    if name in rule["overrides"]:
        return torch.tensor(rule["overrides"][name], dtype=torch.float32)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    z = np.random.default_rng(zlib.crc32((rule["salt"] + name).encode())).standard_normal(shape)
    gain = next((g for pattern, g in rule["gains"] if re.search(pattern, name)), 1.0)
    if name.endswith("running_mean"):
        z = 0.05 * z
    elif name.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif name.endswith(".bias"):
        z = gain * 0.02 * z
    elif len(shape) == 1:
        z = gain * (1 + 0.1 * z)
    else:
        transposed = name == "mask_head.upsample.weight"
        if len(shape) == 4 and shape[1] > 3 and not transposed:
            z = z - z.mean(axis=(1, 2, 3), keepdims=True)
        if len(shape) == 2:
            z = z - z.mean(axis=1, keepdims=True)
        fan_in = shape[0] if transposed else int(np.prod(shape[1:]))
        z = gain * np.sqrt(2 / fan_in) * z
    return torch.from_numpy(np.asarray(z, np.float64).astype(np.float32))


def network_from_rule(rule: dict[str, Any], fuse: bool = False) -> VPSNet:
    """VPSNet-Track, or FuseTrack, in its published form with the rule's weights."""
    network = vpsnet(NetworkConfig(legacy=True, fuse=fuse), CITYSCAPES)
    state = {
        key: rule_weight(published_name(key), tuple(value.shape), rule)
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return network


def numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


def network_input(bgr: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) BGR -> (3, H, W)."""
    return torch.from_numpy(normalize(np.ascontiguousarray(bgr[..., ::-1]), (bgr.shape[0], bgr.shape[1])))


@dataclass(frozen=True)
class Row:
    """One compared array."""

    name: str
    difference: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return bool(self.difference <= self.tolerance)


def compare(name: str, ours: NDArray[Any], stored: NDArray[Any], kind: str, suffix: str = "") -> Row:
    """Largest difference of two arrays against the tolerance of their kind: exact, pixels, float, or loss."""
    shown = name + suffix
    if ours.shape != stored.shape:
        return Row(shown, float("inf"), 0, f"shape {ours.shape}, stored {stored.shape}")
    if kind == "exact":
        return Row(shown, float(np.count_nonzero(ours != stored)), 0, "entries that differ")
    if kind == "pixels":
        different = ours != stored
        pixels = different.any(-1) if different.ndim == 3 else different
        return Row(shown, float(np.count_nonzero(pixels)), FLIPPED_PIXELS, "pixels that differ")
    a, b = ours.astype(np.float64), stored.astype(np.float64)
    if not np.isfinite(a).all():
        return Row(shown, float("inf"), 0, "not finite")
    difference = float(np.abs(a - b).max()) if a.size else 0.0
    if kind == "loss":
        return Row(shown, difference, LOSS_TOLERANCE * float(np.abs(b).max()), "of its size")
    spread = float(b.std()) if b.size else 0.0
    # A single number, or equal ones, has no spread: its size stands in.
    return Row(
        shown, difference, FLOAT_TOLERANCE * (spread or float(np.abs(b).max(initial=0))), "of its spread"
    )


def same_rows(ours: NDArray[np.float32], stored: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each stored row the nearest of ours, each used once: the arrays as sets."""
    distance = np.abs(ours[None].astype(np.float64) - stored[:, None]).max(-1)
    result = np.full(len(stored), -1, np.int64)
    taken = np.zeros(len(ours), bool)
    for i in np.argsort(distance.min(1), kind="stable"):
        free = np.where(taken, np.inf, distance[i])
        result[i] = int(free.argmin())
        taken[result[i]] = True
    return result
