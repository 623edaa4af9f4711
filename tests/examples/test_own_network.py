"""examples/own_network.py: it runs, and each loss falls on pairs that were not trained on."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "examples" / "own_network.py"


def test_the_losses_fall_on_other_streets(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT))["main"](steps=24, size=(64, 128), streets=4)
    rows = re.findall(r"contrast ([\d.]+) +warp ([\d.]+) +tube ([\d.]+)", capsys.readouterr().out)
    assert len(rows) == 10
    history = torch.tensor([[float(value) for value in row] for row in rows])
    trained, control = history[:5], history[5:]
    # Both start from the same network.
    assert torch.equal(trained[0], control[0])
    assert (trained[-1] < trained[0]).all()
    # Supervision alone makes tubes better, too, but not embeddings, nor logits that move with the image.
    assert (trained[2:, :2].mean(0) < control[2:, :2].mean(0)).all()


def test_common_masks_by_hand() -> None:
    labels = torch.tensor([[[0, 3, 5, 255]], [[5, 0, 0, 255]]])
    common, masks = runpy.run_path(str(SCRIPT))["common_masks"](labels, 255)
    assert common.tolist() == [0, 5]
    assert masks.tolist() == [[[[1, 0, 0, 0]], [[0, 0, 1, 0]]], [[[0, 1, 1, 0]], [[1, 0, 0, 0]]]]
    assert runpy.run_path(str(SCRIPT))["common_masks"](labels[:, :, 3:], 255)[1].shape == (2, 0, 1, 1)


@pytest.mark.parametrize("name", ["contrast", "warp", "tube"])
def test_each_loss_reaches_the_network(name: str) -> None:
    example = runpy.run_path(str(SCRIPT))
    torch.manual_seed(0)
    model = example["Siamese"]()
    model.losses(*example["street_pair"](0, 3, (64, 128)))[name].backward()
    gradient = model.network.backbone["0"][0].weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
