"""convert.py: other projects' names, shapes and numbers, and files that don't fit."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

import parity
import parity_track
from panoptube import cli
from panoptube.config import NetworkConfig
from panoptube.convert import Misfit, coco_name, convert, published_name, read_checkpoint
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.viper import VIPER
from panoptube.errors import UserError
from panoptube.flow.flownet2 import FlowNet2
from panoptube.network.boxes import RPN_STD, decode
from panoptube.network.rpn import level_anchors
from panoptube.network.vpsnet import VPSNet, vpsnet
from panoptube.network.weights import load_weights

DATA = Path(__file__).parent / "data"
PUBLISHED = {
    name: tuple(json.loads(shape))
    for name, shape in (line.split("\t") for line in (DATA / "state_dict_track.tsv").read_text().splitlines())
}
NECK = {
    "liteflownet.flow_estimator.convs.0.0": (64, 339, 3, 3),
    "liteflownet.flow_estimator.convs.1.0": (64, 64, 3, 3),
    "liteflownet.flow_estimator.convs.2.0": (32, 64, 3, 3),
    "liteflownet.flow_estimator.convs.3": (2, 32, 3, 3),
    "tcea_fusion.tAtt_1": (256, 256, 3, 3),
    "tcea_fusion.tAtt_2": (256, 256, 3, 3),
    "tcea_fusion.fea_fusion": (256, 512, 1, 1),
    "tcea_fusion.sAtt_1": (256, 512, 1, 1),
    "tcea_fusion.sAtt_2": (256, 512, 1, 1),
    "tcea_fusion.sAtt_3": (256, 256, 3, 3),
    "tcea_fusion.sAtt_4": (256, 256, 3, 3),
    "tcea_fusion.sAtt_add_1": (256, 256, 1, 1),
    "tcea_fusion.sAtt_add_2": (256, 256, 1, 1),
    "refine.conv": (256, 256, 3, 3),
}
"""Convolutions of the published fuse neck: the shape of the weight; each has a bias."""
FUSETRACK = (
    PUBLISHED
    | {f"extra_neck.{name}.weight": shape for name, shape in NECK.items()}
    | {f"extra_neck.{name}.bias": shape[:1] for name, shape in NECK.items()}
)
FUSE = {name: shape for name, shape in FUSETRACK.items() if not name.startswith("track_head.")}
FULL = Path(__file__).parents[2] / "shared" / "fixtures"
VIPER_ROWS = {
    "panopticFPN.conv_pred.conv": 23,
    "bbox_head.fc_cls": 11,
    "bbox_head.fc_reg": 44,
    "mask_head.conv_logits": 11,
}

State = dict[str, Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that goes at once: weights of full size are large."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def thin(shapes: dict[str, tuple[int, ...]]) -> State:
    """Entries of these shapes whose numbers, all 0, take no room in a file."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def mmcv_form(state: State) -> dict[str, Any]:
    meta = {
        "mmdet_version": "1.0rc0",
        "config": "model = dict()",
        "CLASSES": ("a", "b"),
        "epoch": 12,
        "iter": 4,
    }
    momentum = {
        "state": {0: {"momentum_buffer": torch.ones(3)}},
        "param_groups": [{"lr": 0.1, "params": [0]}],
    }
    return {"meta": meta, "state_dict": OrderedDict(state), "optimizer": momentum}


def save(content: object, path: Path, zipped: bool = False) -> Path:
    """As torch 1.4, which the published code names, saved it, or as later ones do."""
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


# --- names and shapes ---------------------------------------------------------------------------------------


def test_every_entry_has_its_own_name_and_shape() -> None:
    with torch.device("meta"):
        own = vpsnet(NetworkConfig(), CITYSCAPES).state_dict()
    names = {name: published_name(name) for name in own}
    assert len(set(names.values())) == len(names) == len(PUBLISHED) == 381
    assert set(names.values()) == set(PUBLISHED)
    wrong = {
        n: (tuple(own[n].shape), PUBLISHED[p])
        for n, p in names.items()
        if tuple(own[n].shape) != PUBLISHED[p]
    }
    assert wrong == {}


def test_number_of_values() -> None:
    """Dossier 1.1: 59 108 739 parameters and buffers."""
    with torch.device("meta"):
        own = vpsnet(NetworkConfig(), CITYSCAPES).state_dict()
    assert sum(value.numel() for value in own.values()) == 59_108_739


@pytest.mark.parametrize(
    "name", ["projection.fc1.weight", "net.backbone.body.conv1.weight", "backbone.conv1.weight"]
)
def test_names_that_are_not_ours(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        published_name(name)


# --- published checkpoints ----------------------------------------------------------------------------------


def test_track_gives_the_stored_outputs(folder: Path) -> None:
    rule = json.loads((DATA / "parity" / "weights_rule.json").read_text())
    state = {name: parity.rule_weight(name, shape, rule) for name, shape in PUBLISHED.items()}
    out = folder / "track.safetensors"
    lines = convert(save(mmcv_form(state), folder / "latest.pth"), out, legacy=True)
    assert lines == ("VPSNet-Track, 19 classes of cityscapes, 381 entries",)
    network, run = load_weights(out)
    assert network.taxonomy == CITYSCAPES
    assert run.network == NetworkConfig(legacy=True)
    assert run.name == "converted from latest.pth"
    expected = parity.network_from_rule(rule).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())

    with np.load(DATA / "parity" / "vpsnet_track_small.npz") as file:
        stored = {name: file[name] for name in file.files}
    found: parity.Arrays = {}
    with torch.no_grad():
        parity_track.stage_arrays(network, parity.network_input(stored["frames"][0])[None], 0, found)
    rows = [parity.compare(n, found[n], stored[n], "float") for n in found if n in stored and "arg" not in n]
    assert len(rows) > 10
    assert [row for row in rows if not row.passed] == []


def test_fusetrack_is_recognised_and_gives_the_stored_pyramid(folder: Path) -> None:
    rule = json.loads((DATA / "parity" / "weights_rule.json").read_text())
    state = {name: parity.rule_weight(name, shape, rule) for name, shape in FUSETRACK.items()}
    out = folder / "f.safetensors"
    lines = convert(save(mmcv_form(state), folder / "latest.pth"), out, legacy=True)
    assert lines == ("VPSNet-FuseTrack, 19 classes of cityscapes, 409 entries",)
    network, run = load_weights(out)
    assert run.network == NetworkConfig(legacy=True, fuse=True)
    own = network.state_dict()
    assert len(own) == 409
    assert all(torch.equal(value, state[published_name(key)]) for key, value in own.items())

    if not FULL.is_dir():
        return
    with np.load(FULL / "vpsnet_track_small.npz") as file:
        frames = file["frames"]
    with np.load(FULL / "vpsnet_fusetrack_small.npz") as file:
        stored = {name: file[name] for name in file.files if name == "flow" or name.startswith("f1_X")}
    pair = torch.stack([parity.network_input(frames[t]) for t in (1, 0)])
    with torch.no_grad():
        fused = network.pair_pyramid(pair[None], torch.from_numpy(stored["flow"][1:2]))
    for level, (a, b, c) in zip(range(5), parity_track.PYRAMID_SLICES):
        found = fused[level][0].numpy()[::a, ::b, ::c]
        assert parity.compare("x", found, stored[f"f1_X{level + 2}"], "float").passed


def test_settings_go_into_the_file(folder: Path) -> None:
    checkpoint, out = save(thin(PUBLISHED), folder / "latest.pth"), folder / "track.safetensors"
    convert(checkpoint, out, legacy=True, match_score=False)
    assert load_weights(out)[1].network == NetworkConfig(legacy=True, match_score=False)
    out.unlink()
    convert(checkpoint, out)
    assert load_weights(out)[1].network == NetworkConfig()


@pytest.mark.parametrize("viper", [False, True])
def test_fuse_is_recognised(folder: Path, viper: bool) -> None:
    shapes = with_viper_rows(FUSE) if viper else FUSE
    lines = convert(save(thin(shapes), folder / "f.pth"), folder / "f.safetensors")
    assert lines == (
        f"VPSNet-Fuse, {'23 classes of viper' if viper else '19 classes of cityscapes'}, 405 entries",
        "it has no match head: objects are followed by class and overlap alone",
    )
    network, _ = load_weights(folder / "f.safetensors")
    assert network.matching is None
    assert network.fuse is not None


def with_viper_rows(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The same entries for VIPER's classes."""
    layers = {name: VIPER_ROWS.get(name.rpartition(".")[0]) for name in shapes}
    return {name: (layers[name] or shape[0], *shape[1:]) if shape else () for name, shape in shapes.items()}


def test_viper_is_recognised(folder: Path) -> None:
    shapes = with_viper_rows(PUBLISHED)
    lines = convert(save(thin(shapes), folder / "v.pth", zipped=True), folder / "v.safetensors")
    assert lines == ("VPSNet-Track, 23 classes of viper, 381 entries",)
    network, run = load_weights(folder / "v.safetensors")
    assert network.taxonomy == VIPER
    assert run.network == NetworkConfig(test_size=(1080, 1920))
    assert network.boxes.deltas.weight.shape == (44, 1024)


def test_viper_classes() -> None:
    assert (len(VIPER), VIPER.num_stuff, VIPER.num_things) == (23, 13, 10)
    assert VIPER.index("mobilebarrier") == 11  # the number that the published VPQ leaves out
    assert [c.id for c in VIPER.categories] == list(range(23))
    assert VIPER.names[13:] == (
        *("trafficlight", "firehydrant", "chair", "trashcan", "person"),
        *("motorcycle", "car", "van", "bus", "truck"),
    )


def test_counters_of_batches_may_be_missing(folder: Path) -> None:
    shapes = {name: shape for name, shape in PUBLISHED.items() if not name.endswith("num_batches_tracked")}
    convert(save(thin(shapes), folder / "t.pth", zipped=True), folder / "t.safetensors")
    assert load_weights(folder / "t.safetensors")[0].backbone.body.bn1.num_batches_tracked == 0


@pytest.mark.parametrize("zipped", [False, True])
def test_prefix_of_data_parallel_comes_off(tmp_path: Path, zipped: bool) -> None:
    state = {"module.a.weight": torch.arange(3.0), "module.module.b": torch.ones(2)}
    read = read_checkpoint(save(mmcv_form(state), tmp_path / "c.pth", zipped))
    assert list(read) == ["a.weight", "module.b"]
    assert torch.equal(read["a.weight"], torch.arange(3.0))
    mixed = {"module.a": torch.ones(1), "a": torch.ones(1)}
    assert list(read_checkpoint(save(mixed, tmp_path / "d.pth"))) == list(mixed)


@pytest.mark.parametrize("zipped", [False, True])
def test_half_precision_becomes_single(folder: Path, zipped: bool) -> None:
    state = {name: value.half() for name, value in thin(PUBLISHED).items()}
    convert(save(state, folder / "h.pth", zipped), folder / "h.safetensors")
    assert load_weights(folder / "h.safetensors")[0].boxes.fc1.weight.dtype == torch.float32


# --- FlowNet2 -----------------------------------------------------------------------------------------------


class SmallFlow(nn.Module):
    """Stands in for FlowNet2, whose 162 million numbers take too long to write."""

    def __init__(self) -> None:
        super().__init__()
        self.flownetfusion = nn.Conv2d(3, 2, 1)


def test_flownet2_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panoptube.convert.FlowNet2", SmallFlow)
    net = SmallFlow()
    content = {"arch": "FlowNet2", "epoch": 0, "best_EPE": 1e10, "state_dict": net.state_dict()}
    checkpoint, out = save(content, tmp_path / "FlowNet2_checkpoint.pth.tar"), tmp_path / "f.safetensors"
    assert convert(checkpoint, out) == ("FlowNet2, 2 entries",)
    written = load_file(out)
    assert written.keys() == net.state_dict().keys()
    assert all(torch.equal(written[name], value) for name, value in net.state_dict().items())
    prefixed = {f"flownet2.{name}": value for name, value in net.state_dict().items()}
    assert convert(save(prefixed, tmp_path / "p.pth"), tmp_path / "p.safetensors") == ("FlowNet2, 2 entries",)
    assert load_file(tmp_path / "p.safetensors").keys() == written.keys()
    with pytest.raises(UserError, match="holds no FlowNet2 within another network"):
        convert(checkpoint, tmp_path / "a.safetensors", tmp_path / "b.safetensors")


def test_flownet2_within_another_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panoptube.convert.FlowNet2", SmallFlow)
    flow = SmallFlow().state_dict()
    state = thin(PUBLISHED) | {f"flownet2.{name}": value for name, value in flow.items()}
    checkpoint, out, flow_out = (
        save(state, folder / "c.pth"),
        folder / "n.safetensors",
        folder / "f.safetensors",
    )
    assert convert(checkpoint, out, flow_out)[-1] == f"{flow_out}: FlowNet2, 2 entries"
    assert all(torch.equal(value, flow[name]) for name, value in load_file(flow_out).items())
    assert load_weights(out)[0].taxonomy == CITYSCAPES
    out.unlink()
    assert convert(checkpoint, out)[-1] == "left out: FlowNet2, 2 entries; --flow-out FILE writes them"
    with pytest.raises(UserError, match="is named twice"):
        convert(checkpoint, folder / "x.safetensors", folder / "x.safetensors")


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: State, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("panoptube.convert.FlowNet2", SmallFlow)
    monkeypatch.setattr("safetensors.torch.save_file", fail)
    checkpoint = save(SmallFlow().state_dict(), tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"f\.safetensors: can't be written .*No space left"):
        convert(checkpoint, tmp_path / "f.safetensors")
    assert os.listdir(tmp_path) == ["c.pth"]


@pytest.mark.parametrize("prefix", ["", "flownet2."])
def test_flownet2_that_does_not_fit(tmp_path: Path, prefix: str) -> None:
    with torch.device("meta"):
        shapes = {prefix + name: tuple(value.shape) for name, value in FlowNet2().state_dict().items()}
    del shapes[f"{prefix}flownets_1.deconv5.0.bias"]
    found = misfit(shapes | (PUBLISHED if prefix else {}), tmp_path)
    assert found.lines == ("missing: flownets_1.deconv5.0.bias, 512",)


# --- what doesn't fit ---------------------------------------------------------------------------------------


def misfit(shapes: dict[str, tuple[int, ...]], folder: Path) -> Misfit:
    """What `convert` says of such a checkpoint; it must write nothing."""
    checkpoint, out = save(mmcv_form(thin(shapes)), folder / "c.pth"), folder / "out.safetensors"
    with pytest.raises(Misfit) as caught:
        convert(checkpoint, out)
    assert os.listdir(folder) == ["c.pth"]
    return caught.value


def test_missing_unexpected_and_misshapen_entries_are_listed(tmp_path: Path) -> None:
    shapes = dict(PUBLISHED)
    del shapes["rpn_head.rpn_reg.bias"]
    shapes["rpn_head.rpn_reg.scale"] = ()
    shapes["bbox_head.fc_cls.weight"] = (11, 1024)
    found = misfit(shapes, tmp_path)
    assert found.lines == (
        "misshapen: bbox_head.fc_cls.weight is 11x1024, should be 9x1024",
        "missing: rpn_head.rpn_reg.bias, 12",
        "unexpected: rpn_head.rpn_reg.scale, one number",
    )
    assert str(found) == (
        f"{tmp_path / 'c.pth'} as VPSNet-Track: 1 entries missing, 1 unexpected, 1 misshapen; "
        "nothing was written; give an unchanged checkpoint"
    )


def test_long_lists_are_cut_off(tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in PUBLISHED.items() if not name.startswith("backbone.layer3.")}
    gone = sum(name.startswith("backbone.layer3.") and "num_batches" not in name for name in PUBLISHED)
    found = misfit(shapes, tmp_path)
    assert f"{gone} entries missing, 0 unexpected, 0 misshapen" in str(found)
    assert len(found.lines) == 21
    assert found.lines[-1] == f"and {gone - 20} more"


def test_other_classes_are_refused(tmp_path: Path) -> None:
    shapes = PUBLISHED | {"panopticFPN.conv_pred.conv.bias": (133,), "bbox_head.fc_cls.bias": (81,)}
    with pytest.raises(UserError, match=r"classes of another dataset .*133.*81.* Cityscapes .* VIPER"):
        convert(save(thin(shapes), tmp_path / "c.pth"), tmp_path / "out.safetensors")


def test_half_a_fuse_neck(tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in FUSETRACK.items() if "tcea_fusion" not in name}
    found = misfit(shapes, tmp_path)
    assert "as VPSNet-FuseTrack: 18 entries missing, 0 unexpected, 0 misshapen" in str(found)
    assert "missing: extra_neck.tcea_fusion.tAtt_1.weight, 256x256x3x3" in found.lines


def test_other_networks_are_refused(tmp_path: Path) -> None:
    checkpoint = save(nn.Linear(2, 3).state_dict(), tmp_path / "c.pth")
    with pytest.raises(UserError, match=r"none of VPSNet, .*, but weight; give"):
        convert(checkpoint, tmp_path / "out.safetensors")


# --- files that can't be read -------------------------------------------------------------------------------


class Trap:
    """Unpickled without care it would call os.mkdir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    content = mmcv_form({"a": torch.ones(1)})
    content["meta"]["hook"] = Trap(tmp_path / "sprung")
    with pytest.raises(UserError, match=r"needs the Python object \w+\.mkdir to be read") as caught:
        read_checkpoint(save(content, tmp_path / "c.pth", zipped))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(UserError, match=r"needs the Python object torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(save(nn.Linear(1, 1), tmp_path / "d.pth", zipped))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, zipped: bool, share: float) -> None:
    path = save(mmcv_form({"a": torch.ones(1000)}), tmp_path / "c.pth", zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        UserError, match=r"c\.pth can't be read as a PyTorch checkpoint \(.+\); give a c"
    ) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE html><html>", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(50)]
)
def test_wrong_kind_of_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"can't be read as a PyTorch checkpoint") as caught:
        read_checkpoint(tmp_path / "c.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1], {}, {"state_dict": 3}, {"a": 1}, {"state_dict": {"a": 1}}, {0: 1}])
def test_files_without_a_state_dict(tmp_path: Path, content: object) -> None:
    with pytest.raises(UserError, match="holds no state_dict"):
        read_checkpoint(save(content, tmp_path / "c.pth"))


def test_paths(tmp_path: Path) -> None:
    checkpoint = save(thin(PUBLISHED), tmp_path / "c.pth")
    with pytest.raises(UserError, match="is a folder; give the checkpoint file"):
        convert(tmp_path, tmp_path / "out.safetensors")
    with pytest.raises(UserError, match=r"no\.pth: no such file"):
        convert(tmp_path / "no.pth", tmp_path / "out.safetensors")
    with pytest.raises(UserError, match=r"c\.pth exists; name another file"):
        convert(checkpoint, checkpoint)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        convert(checkpoint, tmp_path / "nowhere" / "out.safetensors")
    assert os.listdir(tmp_path) == ["c.pth"]


# --- torchvision's Mask R-CNN -------------------------------------------------------------------------------


def mask_rcnn(norm: Callable[..., nn.Module]) -> MaskRCNN:
    """Random weights, also where torchvision starts from 0 or 1."""
    torch.manual_seed(0)
    model = MaskRCNN(_resnet_fpn_extractor(resnet50(norm_layer=norm), 3), 91)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            # Small variances, so that the eps shows.
            nn.init.uniform_(module.running_var, 1e-5, 1e-3)
            nn.init.uniform_(module.running_mean, -1e-3, 1e-3)
            nn.init.uniform_(module.weight.data, 5e-3, 1e-2)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.02)
    nn.init.normal_(model.rpn.head.bbox_pred.weight, std=1e-3)
    return model.eval()


def old_names(state: State) -> State:
    """As the file has them that torchvision publishes."""
    renamed = {}
    for name, value in state.items():
        for i in range(4):
            name = name.replace(f"roi_heads.mask_head.{i}.0.", f"roi_heads.mask_head.mask_fcn{i + 1}.")
            name = name.replace(f"inner_blocks.{i}.0.", f"inner_blocks.{i}.")
            name = name.replace(f"layer_blocks.{i}.0.", f"layer_blocks.{i}.")
        renamed[name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")] = value
    return renamed


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MaskRCNN, VPSNet, tuple[str, ...]]]:
    """torchvision's network in the published form (norms with eps 0, old names), ours, and the report."""
    model = mask_rcnn(FrozenBatchNorm2d)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.eps = 0.0
    folder = tmp_path_factory.mktemp("coco")
    lines = convert(save(old_names(model.state_dict()), folder / "c.pth"), folder / "c.safetensors")
    yield model, load_weights(folder / "c.safetensors")[0], lines
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.randn(1, 3, 128, 192, generator=torch.Generator().manual_seed(1))


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.std())


@torch.no_grad()
def test_coco_pyramid_and_rpn(coco: tuple[MaskRCNN, VPSNet, tuple[str, ...]], image: Tensor) -> None:
    model, network, _ = coco
    theirs, ours = list(model.backbone(image).values()), network.backbone(image)
    assert len(theirs) == len(ours) == 5
    assert max(relative(a, b) for a, b in zip(ours, theirs)) < 1e-4

    objectness, deltas = model.rpn.head(theirs)
    rpn = network.rpn(ours)
    assert max(relative(a, b) for a, b in zip(rpn.objectness, objectness)) < 1e-4
    sizes = [tuple(level.shape[-2:]) for level in theirs]
    strides = [[torch.tensor(s), torch.tensor(s)] for s in (4, 8, 16, 32, 64)]
    anchors = model.rpn.anchor_generator.grid_anchors([(int(h), int(w)) for h, w in sizes], strides)
    for level, delta in enumerate(deltas):
        height, width = sizes[level]
        flat = delta.view(1, 3, 4, height, width).permute(0, 3, 4, 1, 2).reshape(-1, 4)
        expected = model.rpn.box_coder.decode_single(flat, anchors[level])
        own = decode(
            level_anchors(height, width, 4 * 2**level), rpn.flat(0)[1][level][:, None], RPN_STD, (4096, 4096)
        )[:, 0]
        inside = (expected >= 1).all(1)  # the others are cut off at 0
        far = inside.any() and (own + torch.tensor([0, 0, 1, 1]) - expected)[inside].abs().max()
        assert far < 0.1  # anchors are whole numbers; without the shift it would be half a stride


@torch.no_grad()
def test_coco_heads(coco: tuple[MaskRCNN, VPSNet, tuple[str, ...]]) -> None:
    model, network, _ = coco
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(3, 256, 7, 7, generator=generator)
    theirs, their_deltas = model.roi_heads.box_predictor(model.roi_heads.box_head(features))
    ours, our_deltas = network.boxes(features)
    their_masks = model.roi_heads.mask_predictor(model.roi_heads.mask_head(features))
    our_masks = network.masks(features)
    rows = {"person": 1, "car": 3, "truck": 8, "bus": 6, "train": 7, "motorcycle": 4, "bicycle": 2}
    pairs = {0: 0} | {CITYSCAPES.index(name) - 10: row for name, row in rows.items()}
    mine, other = list(pairs), list(pairs.values())
    assert relative(ours[:, mine], theirs[:, other]) < 1e-4
    assert relative(our_deltas[:, mine], their_deltas.view(3, 91, 4)[:, other]) < 1e-4
    assert relative(our_masks[:, mine], their_masks[:, other]) < 1e-4
    assert set(range(9)) - set(mine) == {CITYSCAPES.index("rider") - 10}


def test_coco_report(coco: tuple[MaskRCNN, VPSNet, tuple[str, ...]]) -> None:
    _, network, lines = coco
    assert network.taxonomy == CITYSCAPES
    assert lines[2:6] == (
        "carried over: class, box and mask predictors of background, person, car, truck, bus, train, "
        "motorcycle, bicycle",
        "random: predictors of rider; semantic head; match head",
        "left out: predictors of COCO's other 83 classes",
        "changed: biases of the RPN's deltas, since anchors are centred on cells here, on corners there",
    )
    assert lines[6].startswith("changed: scales of batch norm")


@torch.no_grad()
def test_coco_with_ordinary_batch_norm(folder: Path, image: Tensor) -> None:
    model = mask_rcnn(nn.BatchNorm2d)
    lines = convert(save(model.state_dict(), folder / "c.pth", zipped=True), folder / "c.safetensors")
    assert lines[6].startswith("batch norm as it is")
    network, _ = load_weights(folder / "c.safetensors")
    pyramids = zip(network.backbone(image), model.backbone(image).values())
    assert max(relative(ours, theirs) for ours, theirs in pyramids) < 1e-4


def test_coco_that_does_not_fit(tmp_path: Path) -> None:
    with torch.device("meta"):
        own = vpsnet(NetworkConfig(), CITYSCAPES).state_dict()
    shapes = {
        coco_name(key): tuple(value.shape)
        for key, value in own.items()
        if not key.startswith(("semantic.", "matching."))
    }
    shapes["rpn.head.conv.1.0.weight"] = (256, 256, 3, 3)  # as in the second version of the network
    found = misfit(shapes, tmp_path)
    assert "misshapen: roi_heads.box_predictor.cls_score.weight is 9x1024, should be 91x1024" in found.lines
    assert "unexpected: rpn.head.conv.1.0.weight, 256x256x3x3" in found.lines


# --- the command --------------------------------------------------------------------------------------------


def test_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    checkpoint, out = save(thin(PUBLISHED), folder / "c.pth"), folder / "out.safetensors"

    def run(*args: object) -> int:
        monkeypatch.setattr(sys, "argv", ["panoptube", "convert", *map(str, args)])
        return cli.main()

    assert run(checkpoint, "--out", out, "--legacy") == 0
    assert capsys.readouterr().out == f"{out}: VPSNet-Track, 19 classes of cityscapes, 381 entries\n"
    assert load_weights(out)[1].network == NetworkConfig(legacy=True)
    table = folder / "table.safetensors"
    assert run(checkpoint, "--out", table, "--legacy", "--no-match-score") == 0
    assert load_weights(table)[1].network == NetworkConfig(legacy=True, match_score=False)
    capsys.readouterr()
    assert run(checkpoint, "--out", out) == 2
    assert capsys.readouterr().err == f"panoptube: {out} exists; name another file, or remove it\n"

    other = folder / "other.safetensors"
    checkpoint = save(thin(PUBLISHED | {"rpn_head.rpn_cls.bias": (5,)}), folder / "d.pth")
    assert run(checkpoint, "--out", other) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "misshapen: rpn_head.rpn_cls.bias is 5, should be 3"
    assert lines[1].startswith(
        f"panoptube: {checkpoint} as VPSNet-Track: 0 entries missing, 0 unexpected, 1 missh"
    )
    assert len(lines) == 2
    assert not other.exists()
