"""Flow by networks: sizes, colours, weights files, and what is said when one can't be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models.optical_flow import raft_small

from panoptube.errors import UserError
from panoptube.flow.flownet2 import FlowNet2
from panoptube.flow.learned import RAFT, LearnedFlow, flow_network, network_flow


@pytest.fixture(scope="module")
def small_raft() -> nn.Module:
    torch.manual_seed(0)
    return raft_small().eval()


@pytest.fixture
def raft_file(small_raft: nn.Module, tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(small_raft.state_dict(), path)
    return path


def flownet2_file(path: Path, prefix: str, extra: dict[str, Tensor]) -> Path:
    """FlowNet2 that sees nothing and says (1.5, -2); one stored zero stands for all of a layer's weights."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in FlowNet2().state_dict().items()}
    state = {prefix + name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    state[f"{prefix}flownetfusion.predict_flow0.bias"] = torch.tensor([1.5, -2.0])
    torch.save({"state_dict": state | extra}, path)
    return path


class Reads(nn.Module):
    """In place of a network: the mean of red at each pixel of the first and of the second image."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return torch.stack([image[:, 0], reference[:, 0]], 1)


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3)).astype(np.uint8)


def line(error: pytest.ExceptionInfo[UserError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("size", "seen"), [((128, 136), (128, 136)), ((129, 170), (136, 176)), ((5, 7), (128, 128))]
)
def test_raft_sees_a_size_that_it_takes(size: tuple[int, int], seen: tuple[int, int]) -> None:
    class Ramp(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
            assert a.shape == b.shape == (1, 3, *seen)
            assert torch.equal(a[:, :, -1, -1], a[:, :, size[0] - 1, size[1] - 1])
            assert (a.min(), b.max()) == (-1, 1)
            coarse = torch.zeros(1, 2, *seen)
            return [coarse, coarse + torch.arange(seen[1])]

    image, reference = torch.full((2, 1, 3, *size), 100.0)
    image[0, 0, 0, 0], reference[0, 0, 0, 0] = 0, 255
    flow = RAFT(Ramp())(image, reference)
    assert torch.equal(flow, torch.arange(size[1]).expand(1, 2, *size))


def test_raft_is_torchvisions(small_raft: nn.Module, raft_file: Path) -> None:
    first, second = picture(0, 128, 136), picture(1, 128, 136)
    network = flow_network("raft-small", raft_file)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    pair = [torch.from_numpy(x).permute(2, 0, 1)[None] / 255 * 2 - 1 for x in (first, second)]
    with torch.no_grad():
        expected = small_raft(*pair)[-1][0].permute(1, 2, 0).numpy()
    flow = network_flow(network, first, second)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("prefix", "extra"),
    [("", {}), ("flownet2.", {"neck.lateral_convs.0.conv.bias": torch.ones(2)}), ("module.", {})],
)
def test_flownet2_from_its_own_checkpoint_and_from_fusetrack(
    tmp_path: Path, prefix: str, extra: dict[str, Tensor]
) -> None:
    path = flownet2_file(tmp_path / "flow.pth.tar", prefix, extra)
    for name in ("000", "001"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture(int(name), 20, 30))
    source = LearnedFlow(tmp_path, "flownet2", path)
    flow = source("clip", "000", "001")
    assert flow.shape == (20, 30, 2)
    assert np.array_equal(flow, np.broadcast_to(np.float32([1.5, -2]), flow.shape))
    assert source.name == "flownet2 (flow.pth.tar)"


def test_images_are_rgb_and_found_in_the_clip(tmp_path: Path, raft_file: Path) -> None:
    (tmp_path / "clip").mkdir()
    first, second = picture(0, 4, 6), picture(1, 4, 6)
    cv2.imwrite(str(tmp_path / "clip" / "000.png"), first[..., ::-1])
    cv2.imwrite(str(tmp_path / "001_leftImg8bit.png"), second[..., ::-1])
    cv2.imwrite(str(tmp_path / "000.png"), second[..., ::-1])
    source = LearnedFlow(tmp_path, "raft-small", raft_file)
    source.network = Reads()
    read = np.stack([first[..., 0], second[..., 0]], -1)
    assert np.array_equal(source("clip", "000", "001"), read)
    assert np.array_equal(source("clip", "001", "000"), read[..., ::-1])
    assert np.array_equal(source("other", "000", "001"), read[..., [1, 1]])


def test_images_that_cannot_be_used(tmp_path: Path, raft_file: Path) -> None:
    source = LearnedFlow(tmp_path, "raft-small", raft_file)
    cv2.imwrite(str(tmp_path / "000.png"), picture(0, 4, 6))
    cv2.imwrite(str(tmp_path / "001.png"), picture(0, 4, 7))
    (tmp_path / "002.png").write_bytes(b"no")
    for second, message in (
        ("001", "differ in size"),
        ("002", r"002\.png is no image"),
        ("003", "lacks the image of frame 003"),
    ):
        with pytest.raises(UserError, match=message) as error:
            source("clip", "000", second)
        line(error)
    with pytest.raises(UserError, match="is no folder"):
        LearnedFlow(tmp_path / "nowhere", "raft-small", raft_file)


def test_weights_that_do_not_fit(tmp_path: Path, raft_file: Path) -> None:
    with pytest.raises(UserError, match="FlowNet2 needs weights"):
        flow_network("flownet2")
    with pytest.raises(UserError, match=r"mine\.safetensors as raft-large: \d+ entries") as error:
        flow_network("raft-large", raft_file)
    line(error)
    with pytest.raises(UserError, match=r"as flownet2: \d+ entries are missing"):
        flow_network("flownet2", raft_file)
    state = safetensors.torch.load_file(raft_file)
    name, value = next(iter(state.items()))
    for changed in ({name: value[..., :1].contiguous()}, {"another": value.clone()}):
        safetensors.torch.save_file(state | changed, raft_file)
        with pytest.raises(UserError, match=f": 1 entries .* {next(iter(changed))} the first"):
            flow_network("raft-small", raft_file)


def test_weights_that_cannot_be_read(tmp_path: Path, raft_file: Path) -> None:
    raft_file.write_bytes(raft_file.read_bytes()[:1000])
    with pytest.raises(UserError, match="can't be read as safetensors") as error:
        flow_network("raft-small", raft_file)
    assert str(raft_file) in line(error)
    with pytest.raises(UserError, match="can't be read as safetensors"):
        flow_network("raft-small", tmp_path / "nothing.safetensors")
    with pytest.raises(UserError, match="no such file"):
        flow_network("flownet2", tmp_path / "nothing.pth")


def test_half_precision_weights_run_in_float32(
    tmp_path: Path, small_raft: nn.Module, raft_file: Path
) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in small_raft.state_dict().items()}
    safetensors.torch.save_file(half, raft_file)
    network = flow_network("raft-small", raft_file)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_offered_weights(tmp_path: Path, small_raft: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError, match=r"can't get raft-small from https://.*no route to host") as error:
        LearnedFlow(tmp_path, "raft-small")
    assert "as the weights" in line(error)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: dict(small_raft.state_dict())
    )
    source = LearnedFlow(tmp_path, "raft-small")
    assert source.name == "raft-small (torchvision, C_T_V2)"
    assert all(torch.equal(a, b) for a, b in zip(source.network.parameters(), small_raft.parameters()))
