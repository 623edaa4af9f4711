"""compiled.py, with a compiler that is none: what pays, what is used, and what fails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
from tiny_network import tiny
from torch import Tensor

from panoptube.errors import UserError
from panoptube.network.compiled import Gain, compile_backbone
from panoptube.network.inference import for_inference
from panoptube.network.vpsnet import VPSNet

Function = Callable[[Tensor], list[Tensor]]


@pytest.fixture
def network() -> VPSNet:
    return for_inference(tiny().eval(), torch.bfloat16)


def test_frames_that_make_up_for_compiling() -> None:
    gain = Gain(compiling=44, plain=0.5, compiled=0.25)
    assert gain.frames == 176
    assert str(gain) == (
        "compiling took 44 s and brings 500.0 ms to 250.0 ms for the backbone of a frame: "
        "it pays off from 176 frames on"
    )
    for compiled in (0.030, 0.040):
        none = Gain(44, 0.030, compiled)
        assert math.isinf(none.frames)
        assert str(none).startswith("compiling took 44 s and gains nothing here (30.0 ms to ")


def test_the_faster_backbone_is_used_for_images_of_the_size_it_was_compiled_for(
    network: VPSNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Size, torch.dtype]] = []

    def faster(function: Function, dynamic: bool) -> Function:
        assert not dynamic
        known = [level + 1 for level in function(torch.zeros(1, 3, 64, 96, dtype=torch.bfloat16))]

        def compiled(x: Tensor) -> list[Tensor]:
            seen.append((x.shape, x.dtype))
            return known

        return compiled

    monkeypatch.setattr(torch, "compile", faster)
    images = torch.zeros(1, 3, 64, 96)
    plain = network.backbone(images)
    gain = compile_backbone(network, images)
    assert gain.compiled < gain.plain
    assert set(seen) == {(images.shape, torch.bfloat16)}
    for level, before in zip(network.backbone(images), plain):
        torch.testing.assert_close(level, before + 1)
    before = len(seen)
    network.backbone(torch.zeros(1, 3, 64, 64))
    network.backbone(torch.zeros(2, 3, 64, 96))
    assert len(seen) == before


def test_a_slower_backbone_is_not_used(network: VPSNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(function: Function, dynamic: bool) -> Function:
        def compiled(x: Tensor) -> list[Tensor]:
            time.sleep(0.05)
            return function(x)

        return compiled

    monkeypatch.setattr(torch, "compile", slower)
    own = network.backbone.forward
    gain = compile_backbone(network, torch.zeros(1, 3, 64, 96))
    assert math.isinf(gain.frames)
    assert network.backbone.forward == own


def test_without_a_compiler_it_is_one_line(network: VPSNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: Function, dynamic: bool) -> Function:
        def compiled(x: Tensor) -> list[Tensor]:
            raise RuntimeError("no g++\nin PATH")

        return compiled

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(UserError, match=r"doesn't work here \(no g\+\+ in PATH\); leave out --compile"):
        compile_backbone(network, torch.zeros(1, 3, 64, 96))
