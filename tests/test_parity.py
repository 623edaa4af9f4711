"""The networks against stored results of the published code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import check_parity
import parity
import parity_track
from parity import Arrays, Row

EXCERPT = Path(__file__).parent / "data" / "parity"
FULL = Path(__file__).parents[2] / "shared" / "fixtures"
RULE = json.loads((EXCERPT / "weights_rule.json").read_text())
with_full_data = pytest.mark.skipif(not FULL.is_dir(), reason="the full reference data is not here")


def failures(rows: list[Row]) -> list[str]:
    return [f"{row.name}: {row.difference:.3g} > {row.tolerance:.3g}" for row in rows if not row.passed]


Change = Callable[[Arrays], dict[str, float]]
"""Changes arrays in place; returns by how much, by row of the table."""


def check_changed(folder: Path, file: str, change: Change) -> None:
    """A file passes, but for what is changed in it first, which differs by the change and no more."""
    stored = check_parity.read(folder / file)
    check = check_parity.CHECKS[file]
    source = check_parity.read(folder / check.source) if check.source else {}
    changes = change(stored)
    rows, seen = check.run(RULE, stored | {name: source[name] for name in check.inputs})
    wrong = {row.name: row for row in rows if not row.passed}
    assert sorted(wrong) == sorted(changes), failures(rows)
    for name, size in changes.items():
        assert size * 0.6 <= wrong[name].difference <= size * 1.4, name
    assert set(stored) <= seen


def gradient(stored: Arrays, index: int, factor: float) -> dict[str, float]:
    """Changes the length of a parameter's gradient."""
    length = float(stored["grad_l2"][index])
    stored["grad_l2"][index] *= factor
    return {f"grad_l2/{stored['grad_names'][index]}": (factor - 1) * length}


def change_inference(stored: Arrays) -> dict[str, float]:
    shift = 2e-3 * stored["f1_fcn_score"].std()
    stored["f1_fcn_score"] += shift
    stored["f0_det_obj_ids"][0] += 1
    return {
        "f1_fcn_score": float(shift),
        "f0_det_obj_ids": 1,
        f"f0_det_obj_ids{parity_track.ON_STORED}": 1,
    }


def change_training(stored: Arrays) -> dict[str, float]:
    loss, spread = float(stored["loss/loss_mask"].max()), float(stored["match_score"].std())
    stored["loss/loss_mask"] *= 1 + 2e-5
    stored["rcnn_labels"][-1] += 1
    stored["match_score"] += 1.1e-3 * spread
    return {
        "loss/loss_mask": 2e-5 * loss,
        "rcnn_labels": 1,
        "match_score": 1.1e-3 * spread,
        **gradient(stored, 7, 1.002),
    }


def change_fused_inference(stored: Arrays) -> dict[str, float]:
    warp, volume = float(stored["f0_warp_fine"].std()), float(stored["f0_corr"].std())
    stored["f0_warp_fine"] += 1.1e-3 * warp
    stored["f0_corr"][40, 3, 3] += 2e-3 * volume
    return {"f0_warp_fine": 1.1e-3 * warp, "f0_corr": 2e-3 * volume}


def change_fused_training(stored: Arrays) -> dict[str, float]:
    names, loss = stored["grad_names"].tolist(), float(stored["loss/loss_pano"].max())
    stored["loss/loss_pano"] *= 1 + 2e-5
    residual = names.index("extra_neck.liteflownet.flow_estimator.convs.0.0.weight")
    refine = names.index("extra_neck.refine.conv.weight")
    return {
        "loss/loss_pano": 2e-5 * loss,
        **gradient(stored, residual, 1.03),
        **gradient(stored, refine, 1.002),
    }


@pytest.mark.skipif(FULL.is_dir(), reason="the full reference data holds it")
def test_inference_equals_the_published_code() -> None:
    check_changed(EXCERPT, "vpsnet_track_small.npz", change_inference)


def test_training_step_equals_the_published_code() -> None:
    check_changed(EXCERPT, "vpsnet_track_losses.npz", change_training)


@with_full_data
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("vpsnet_track_small.npz", change_inference),
        ("vpsnet_fusetrack_small.npz", change_fused_inference),
        ("vpsnet_fusetrack_losses.npz", change_fused_training),
    ],
)
def test_full_reference_data(file: str, change: Change) -> None:
    """What is left is the training step above, and FlowNet2, in tests/flow."""
    check_changed(FULL, file, change)


@with_full_data
def test_all_of_the_full_reference_data_is_checked() -> None:
    assert {path.name for path in FULL.glob("*.npz")} == set(check_parity.CHECKS)
    step = "vpsnet_track_losses.npz"
    assert (FULL / step).read_bytes() == (EXCERPT / step).read_bytes()


def test_noise_widens_the_tolerance_of_the_gradients_it_is_about() -> None:
    network = nn.ModuleDict({"matching": nn.ModuleDict({"fc1": nn.Linear(1, 4), "fc2": nn.Linear(1, 4)})})
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 2)
    first = np.zeros((4, 8))
    first[:, :4] = 2, 2, 2, 2.1
    names = [f"track_head.fcs.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")]
    stored = {"grad_names": np.array(names), "grad_l2": np.full(4, 4.0), "grad_first8": first}

    def failing(noise: parity_track.Noise) -> set[str]:
        rows = parity_track.gradient_rows(network, stored, noise)  # type: ignore[arg-type]
        return {row.name.removeprefix("grad_first8/") for row in rows if not row.passed}

    assert failing(parity_track.Noise()) == set(names)
    assert failing(parity_track.Noise({"track_head.fcs.0.": (0.0, 0.03)})) == set(names[2:])
    assert failing(parity_track.Noise(largest=0.05)) == set()
    assert failing(parity_track.Noise(largest=0.04)) == set(names)


def test_proposals_are_compared_as_a_set() -> None:
    rows = np.array([[0, 0, 9, 9, 0.9], [1, 1, 5, 5, 0.8], [2, 2, 3, 3, 0.7]], np.float32)
    order = parity.same_rows(rows[[2, 0, 1]], rows)
    assert order.tolist() == [1, 2, 0]
    twice = parity.same_rows(rows[[0, 0, 1]], rows)
    assert sorted(twice.tolist()) == [0, 1, 2]  # each row stands for one only, so a missing one shows


@pytest.mark.parametrize(
    ("ours", "stored", "kind", "passes"),
    [
        (np.array([1, 2]), np.array([1, 2]), "exact", True),
        (np.array([1, 3]), np.array([1, 2]), "exact", False),
        (np.zeros((2, 4)), np.eye(2, 4), "pixels", True),
        (np.zeros((2, 4)), np.ones((2, 4)), "pixels", False),
        (np.array([0.0, 1.0]), np.array([0.0, 1.0004]), "float", True),
        (np.array([0.0, 1.0]), np.array([0.0, 1.01]), "float", False),
        (np.array([0.0, np.nan]), np.array([0.0, 1.0]), "float", False),
        (np.array([0.0]), np.array([0.0, 1.0]), "float", False),
        (np.array([1.0]), np.array([1.000009]), "loss", True),
        (np.array([1.0]), np.array([1.000011]), "loss", False),
    ],
)
def test_comparison(ours: np.ndarray, stored: np.ndarray, kind: str, passes: bool) -> None:
    assert parity.compare("x", ours, stored, kind).passed is passes


def test_folder_without_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["check_parity.py", str(tmp_path)])
    assert check_parity.main() == 2


def test_array_that_nothing_compares_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights_rule.json").write_text("{}")
    np.savez(tmp_path / "vpsnet_track_small.npz", a=np.ones(2), b=np.ones(2))
    check = check_parity.Check(lambda rule, stored: ([Row("a", 0, 0)], {"a"}))
    monkeypatch.setitem(check_parity.CHECKS, "vpsnet_track_small.npz", check)
    monkeypatch.setattr("sys.argv", ["check_parity.py", str(tmp_path)])
    assert check_parity.main() == 1
    assert "vpsnet_track_small.npz: b" in capsys.readouterr().out


def test_file_that_no_check_knows_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights_rule.json").write_text("{}")
    np.savez(tmp_path / "vpsnet_track_small.npz", a=np.ones(2))
    np.savez(tmp_path / "other.npz", c=np.ones(2))
    check = check_parity.Check(lambda rule, stored: ([Row("a", 0, 0)], {"a"}))
    monkeypatch.setitem(check_parity.CHECKS, "vpsnet_track_small.npz", check)
    monkeypatch.setattr("sys.argv", ["check_parity.py", str(tmp_path)])
    assert check_parity.main() == 1
    assert "other.npz: c" in capsys.readouterr().out


def test_inputs_come_from_the_file_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights_rule.json").write_text("{}")
    np.savez(tmp_path / "vpsnet_fusetrack_small.npz", a=np.ones(2))
    got: list[Arrays] = []

    def run(rule: dict[str, object], stored: Arrays) -> tuple[list[Row], set[str]]:
        got.append(stored)
        return [Row("a", 0, 0)], {"a", "frames"}

    check = check_parity.CHECKS["vpsnet_fusetrack_small.npz"]._replace(run=run)
    monkeypatch.setitem(check_parity.CHECKS, "vpsnet_fusetrack_small.npz", check)
    monkeypatch.setitem(check_parity.CHECKS, "vpsnet_track_small.npz", check_parity.Check(run))
    monkeypatch.setattr("sys.argv", ["check_parity.py", str(tmp_path)])
    assert check_parity.main() == 2
    assert "vpsnet_track_small.npz is missing" in capsys.readouterr().err
    np.savez(tmp_path / "vpsnet_track_small.npz", a=np.zeros(2), frames=np.zeros(3))
    assert check_parity.main() == 0
    assert set(got[0]) == {"a", "frames"}
    assert got[0]["a"].tolist() == [1, 1]
