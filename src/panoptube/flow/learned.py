"""Flow by a network: FlowNet2, and torchvision's RAFT, small and large.

This imports torch; `source.py`, with the flow that needs no network, doesn't.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.optical_flow import (
    Raft_Large_Weights,
    Raft_Small_Weights,
    raft_large,
    raft_small,
)

from panoptube.convert import FLOW_PREFIX, read_checkpoint
from panoptube.errors import UserError
from panoptube.flow.files import FlowField
from panoptube.flow.flownet2 import FlowNet2
from panoptube.flow.source import IMAGE_ENDINGS, find_file

FlowKind = Literal["flownet2", "raft-small", "raft-large"]

NETWORKS: dict[FlowKind, Callable[[], nn.Module]] = {
    "flownet2": FlowNet2,
    "raft-small": raft_small,
    "raft-large": raft_large,
}

RAFT_MULTIPLE, RAFT_LEAST = 8, 128
"""RAFT takes sides that are multiples of 8 and at least 128 pixels."""


class RAFT(nn.Module):
    """torchvision's RAFT for images of any size (Teed and Deng, ECCV 2020).

    Args:
        network: `raft_small` or `raft_large`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Flow in pixels, x first: what is at p in `image` is at p + flow(p) in `reference`.

        The border pixels are repeated on the right and at the bottom up to a size that RAFT takes.

        Args:
            image: (N, 3, H, W) float32 RGB, 0..255.
            reference: the same shape.

        Returns:
            (N, 2, H, W) float32.
        """
        height, width = image.shape[2:]
        border = (0, _raft_size(width) - width, 0, _raft_size(height) - height)
        pair = [functional.pad(x / 127.5 - 1, border, mode="replicate") for x in (image, reference)]
        refined: list[Tensor] = self.network(*pair)
        return refined[-1][:, :, :height, :width]


def _raft_size(side: int) -> int:
    return max(RAFT_LEAST, side + -side % RAFT_MULTIPLE)


def flow_network(kind: FlowKind, weights: Path | None = None) -> nn.Module:
    """A frozen network, in evaluation mode: called with image and reference, both (N, 3, H, W) float32 RGB
    0..255 of any size, it returns the flow from image to reference, (N, 2, H, W) float32 in pixels, x first.

    Args:
        kind: which network.
        weights: a safetensors file or PyTorch checkpoint with its published entries. For FlowNet2 also a
            checkpoint of FuseTrack, which holds it. None: those that torchvision offers for RAFT,
            downloaded once.

    Raises:
        UserError: the file is missing, damaged or of another network; nothing was given for FlowNet2; or the
            download failed.
    """
    if kind == "flownet2" and weights is None:
        raise UserError("FlowNet2 needs weights; give its checkpoint, or one of FuseTrack")
    state = _offered_state(kind) if weights is None else _read_state(weights)
    if kind == "flownet2" and any(name.startswith(FLOW_PREFIX) for name in state):
        state = {
            n.removeprefix(FLOW_PREFIX): value for n, value in state.items() if n.startswith(FLOW_PREFIX)
        }
    with torch.device("meta"):  # random weights would take longer than the file's
        network = NETWORKS[kind]()
    _load(network, state, f"{weights or _offer(kind).url} as {kind}")
    if kind != "flownet2":
        network = RAFT(network)
    return network.float().eval().requires_grad_(False)


def network_flow(network: nn.Module, image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> FlowField:
    """Flow from `image` to `reference` by a network of `flow_network`, on the device where its weights are.

    Args:
        image: (H, W, 3) uint8 RGB.
        reference: the same shape.

    Returns:
        (H, W, 2) float32.
    """
    device = next(network.parameters()).device
    pair = [
        torch.from_numpy(np.ascontiguousarray(x)).to(device).permute(2, 0, 1)[None].float()
        for x in (image, reference)
    ]
    with torch.inference_mode():
        flow: Tensor = network(*pair)
    return np.asarray(flow[0].permute(1, 2, 0).cpu().numpy(), np.float32)


class LearnedFlow:
    """Flow from images `FOLDER/NAME.png` or `.jpg`, also in `FOLDER/CLIP`, by a network.

    The last image is kept, so each is read once.

    Args:
        folder: of the images.
        kind, weights: as for `flow_network`.
        device: where the network runs.

    Raises:
        UserError: there is no such folder, or `flow_network` raises it.
    """

    def __init__(
        self,
        folder: Path,
        kind: FlowKind,
        weights: Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; it should hold the image of each frame")
        self.folder = folder
        self.network = flow_network(kind, weights).to(device)
        self.name = f"{kind} ({weights.name if weights else f'torchvision, {_offer(kind).name}'})"
        self._last: tuple[Path, NDArray[np.uint8]] | None = None

    def __call__(self, clip: str, first: str, second: str) -> FlowField:
        """(H, W, 2) float32 from frame `first` to frame `second` of the clip.

        Raises:
            UserError: an image is missing or broken, or the two differ in size.
        """
        before, after = self._read(clip, first), self._read(clip, second)
        if before.shape != after.shape:
            raise UserError(
                f"the images of {first} and {second} differ in size: {before.shape} and {after.shape}"
            )
        return network_flow(self.network, before, after)

    def _read(self, clip: str, frame: str) -> NDArray[np.uint8]:
        path = find_file(self.folder, clip, frame, IMAGE_ENDINGS, f"the image of frame {frame}")
        if self._last is not None and self._last[0] == path:
            return self._last[1]
        read = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if read is None:
            raise UserError(f"{path} is no image that can be read; copy it again")
        image = np.asarray(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), np.uint8)
        self._last = path, image
        return image


# --- weights ------------------------------------------------------------------------------------------------


def _offer(kind: FlowKind) -> Raft_Small_Weights | Raft_Large_Weights:
    """What torchvision offers for RAFT; the two have no common base that mypy knows."""
    return Raft_Small_Weights.DEFAULT if kind == "raft-small" else Raft_Large_Weights.DEFAULT


def _offered_state(kind: FlowKind) -> dict[str, Tensor]:
    """torchvision's weights, from its cache or the network."""
    offer = _offer(kind)
    try:
        state: dict[str, Tensor] = offer.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # unreachable or a full disk; cut off on the way
        raise UserError(
            f"can't get {kind} from {offer.url} ({' '.join(str(error).split())}); get this file elsewhere, "
            "and give it as the weights"
        ) from error
    return state


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        return read_checkpoint(path)
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: can't be read as safetensors ({' '.join(str(error).split())}); give a complete file"
        ) from error


def _load(network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """The state becomes the network's own; every entry must be there in its shape, and no other."""
    own = network.state_dict()
    wrong = [n for n in own if n not in state or state[n].shape != own[n].shape]
    wrong += [n for n in state if n not in own]
    if wrong:
        raise UserError(
            f"{what}: {len(wrong)} entries are missing, misshapen or unexpected, {wrong[0]} the first; give "
            "an unchanged checkpoint of this network"
        )
    network.load_state_dict(state, assign=True)
