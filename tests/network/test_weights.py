"""Weights files: what comes back, what a damaged file says, and that no half file is ever left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from panoptube.config import NetworkConfig, RunConfig, TrainConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.errors import UserError
from panoptube.network.vpsnet import VPSNet, vpsnet
from panoptube.network.weights import load_fitting, load_weights, save_weights
from panoptube.panoptic.frame import Category, Taxonomy

TINY = NetworkConfig(
    backbone="resnet18",
    channels=8,
    semantic_channels=(8,),
    semantic_groups=2,
    box_channels=8,
    mask_channels=8,
    mask_convs=1,
    match_channels=8,
)
RUN = RunConfig(name="a run", network=TINY, train=TrainConfig(steps=7, lr=1e-3))
TWO = Taxonomy("two", (Category("way", False, (1, 2, 3), 7), Category("cart", True, (4, 5, 6), 9)))


def network(seed: int = 0, taxonomy: Taxonomy = TWO, config: NetworkConfig = TINY) -> VPSNet:
    torch.manual_seed(seed)
    return vpsnet(config, taxonomy)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_weights(path, network(), RUN)
    return path


def message(path: Path) -> str:
    """The one line that loading the file ends with; both ways of loading name the file."""
    with pytest.raises(UserError) as error:
        load_weights(path)
    text = str(error.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_round_trip_is_exact(saved: Path) -> None:
    original = network()
    original.backbone.body.bn1.running_mean[0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    original.rpn.conv.bias.data[:3] = torch.tensor([-0.0, 1e-40, 3e38])
    save_weights(saved, original, RUN)
    loaded, run = load_weights(saved)
    assert run == RUN
    assert loaded.taxonomy == TWO
    assert loaded.config == TINY
    assert not loaded.training
    state, expected = loaded.state_dict(), original.state_dict()
    assert list(state) == list(expected)
    for name, value in expected.items():
        assert state[name].dtype == value.dtype, name
        assert state[name].numpy().tobytes() == value.numpy().tobytes(), name


def test_loaded_network_answers_alike(saved: Path) -> None:
    images = torch.randn(1, 3, 32, 32)
    loaded, _ = load_weights(saved)
    a, b = network().eval()(images)[0], loaded(images)[0]
    # Close, not equal: a matrix product may round by where its numbers lie in memory.
    torch.testing.assert_close(a.semantic, b.semantic, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(a.semantic, network(5).eval()(images)[0].semantic, atol=1e-2)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_truncated_file(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    assert "not a complete safetensors file" in message(saved)
    with pytest.raises(UserError, match="not a complete safetensors file"):
        load_fitting(network(), saved)


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("these are not weights\n" * 50)
    assert "not a complete safetensors file" in message(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.safetensors", tmp_path):
        assert "no such weights file" in message(path)
        with pytest.raises(UserError, match="no such weights file"):
            load_fitting(network(), path)


def test_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.ones(2)}, path)
    assert "holds no panoptube run" in message(path)


def changed(saved: Path, **metadata: str) -> Path:
    """The file with other metadata."""
    with safetensors.safe_open(saved, "pt") as file:
        old = dict(file.metadata())
    safetensors.torch.save_file(safetensors.torch.load_file(saved), saved, old | metadata)
    return saved


def test_weights_that_do_not_fit_their_configuration(saved: Path) -> None:
    wide = RUN.model_copy(update={"network": TINY.model_copy(update={"box_channels": 16})})
    text = message(changed(saved, run=wide.to_yaml()))
    assert "doesn't fit its own configuration" in text
    assert "boxes.fc1.weight" in text


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"box_channels": 10**12}, "box_channels"),
        ({"box_channels": 2**14, "match_channels": 2**14}, "doesn't fit its own configuration"),  # 3 GB
        ({"mask_convs": 10**9}, "mask_convs"),
        ({"test_size": (10**9, 10**9)}, "test_size"),
        ({"semantic_channels": (10**9,)}, "semantic_channels"),
    ],
)
def test_a_configuration_that_no_memory_can_hold(saved: Path, setting: dict[str, Any], said: str) -> None:
    vast = RUN.model_copy(update={"network": TINY.model_copy(update=setting)})
    assert said in message(changed(saved, run=vast.to_yaml()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_values_that_are_no_numbers(saved: Path, value: float) -> None:
    broken = network()
    broken.rpn.conv.bias.data[3] = value
    save_weights(saved, broken, RUN)
    assert "rpn.conv.bias holds NaN or infinite values; give other weights" in message(saved)
    with pytest.raises(UserError, match="holds NaN"):
        load_fitting(network(), saved)


@pytest.mark.parametrize(
    ("metadata", "part"),
    [
        ({"run": "name: a\nnetwork: {colour: red}"}, "network.colour"),
        ({"run": "["}, "is not YAML"),
        ({"taxonomy": "{"}, "its taxonomy"),
        ({"taxonomy": '{"categories": []}'}, "has 0 classes"),
        ({"taxonomy": "{}"}, "not a taxonomy"),
    ],
)
def test_damaged_metadata(saved: Path, metadata: dict[str, str], part: str) -> None:
    assert part in message(changed(saved, **metadata))


def test_fitting_entries_are_copied_and_listed(saved: Path) -> None:
    target = network(1, CITYSCAPES, TINY.model_copy(update={"mask_convs": 2}))
    before = {k: v.clone() for k, v in target.state_dict().items()}
    source = network().state_dict()
    fit = load_fitting(target, saved)
    after = target.state_dict()
    assert set(fit.misshapen) == {
        f"{name}.{kind}"
        for name in ("boxes.classes", "boxes.deltas", "masks.logits", "semantic.logits")
        for kind in ("weight", "bias")
    }
    assert fit.missing == ("masks.convs.1.bias", "masks.convs.1.weight")
    assert fit.unexpected == ()
    assert set(fit.fitting) | set(fit.misshapen) | set(fit.missing) == set(after)
    assert all(torch.equal(after[name], source[name]) for name in fit.fitting)
    assert all(torch.equal(after[name], before[name]) for name in fit.misshapen + fit.missing)
    text = str(fit)
    assert text.startswith(f"{len(fit.fitting)} entries fit; 2 missing: masks.convs.1.bias")
    assert "8 misshapen" in text
    assert "unexpected" not in text


def test_unexpected_entries_are_listed(saved: Path) -> None:
    state = safetensors.torch.load_file(saved) | {"projection.weight": torch.ones(1)}
    safetensors.torch.save_file(state, saved)
    fit = load_fitting(network(1), saved)
    assert fit.unexpected == ("projection.weight",)
    assert (fit.missing, fit.misshapen) == ((), ())


def test_nothing_fits(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"x": torch.ones(2)}, path)
    with pytest.raises(UserError, match="nothing in it fits") as error:
        load_fitting(network(), path)
    assert str(path) in str(error.value)


def test_failing_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = saved.read_bytes()

    def disk_full(_: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(old[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", disk_full)
    with pytest.raises(UserError, match=r"can't be written .*No space left on device") as error:
        save_weights(saved, network(5), RUN)
    assert str(saved) in str(error.value)
    assert saved.read_bytes() == old
    assert list(saved.parent.iterdir()) == [saved]


def test_save_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be written"):
        save_weights(tmp_path / "no" / "weights.safetensors", network(), RUN)


def test_save_replaces(saved: Path) -> None:
    save_weights(saved, network(5), RUN)
    loaded, _ = load_weights(saved)
    assert torch.equal(loaded.rpn.conv.weight, network(5).rpn.conv.weight)
    assert list(saved.parent.iterdir()) == [saved]
