"""A whole network that is quick to make and to run."""

from __future__ import annotations

import torch

from panoptube.config import NetworkConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.network.vpsnet import VPSNet, vpsnet

TINY = NetworkConfig(
    backbone="resnet18",
    channels=16,
    semantic_channels=(16,),
    semantic_groups=4,
    box_channels=32,
    mask_channels=16,
    mask_convs=1,
    match_channels=16,
    train_proposals=50,
    test_proposals=50,
    rpn_samples=32,
    roi_samples=32,
)


def tiny(seed: int = 0, **changes: object) -> VPSNet:
    torch.manual_seed(seed)
    return vpsnet(TINY.model_copy(update=changes), CITYSCAPES)
