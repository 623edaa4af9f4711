"""The networks against stored results of the published code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import check_parity
import parity
import parity_fusetrack
import parity_track
from parity import Arrays, Row

EXCERPT = Path(__file__).parent / "data" / "parity"
FULL = Path(__file__).parents[2] / "shared" / "fixtures"
RULE = json.loads((EXCERPT / "weights_rule.json").read_text())
with_full_data = pytest.mark.skipif(not FULL.is_dir(), reason="the full reference data is not here")


def failures(rows: list[Row]) -> list[str]:
    return [f"{row.name}: {row.difference:.3g} > {row.tolerance:.3g}" for row in rows if not row.passed]


def test_inference_equals_the_published_code() -> None:
    stored = check_parity.read(EXCERPT / "vpsnet_track_small.npz")
    rows, seen = parity_track.check_inference(RULE, stored)
    assert failures(rows) == []
    assert set(stored) <= seen
    assert len(rows) >= len(stored) - 1  # all but the frames themselves


def test_training_step_equals_the_published_code_and_changed_references_fail() -> None:
    stored = check_parity.read(EXCERPT / "vpsnet_track_losses.npz")
    changed = dict(stored)
    changed["loss/loss_mask"] = stored["loss/loss_mask"] * (1 + 2e-5)
    changed["rcnn_labels"] = stored["rcnn_labels"].copy()
    changed["rcnn_labels"][-1] += 1
    changed["grad_l2"] = stored["grad_l2"].copy()
    changed["grad_l2"][7] *= 1.002
    changed["match_score"] = stored["match_score"] + 1.1e-3 * stored["match_score"].std()
    rows, seen = parity_track.check_training(RULE, changed)
    wrong = {row.name for row in rows if not row.passed}
    assert wrong == {"loss/loss_mask", "rcnn_labels", f"grad_l2/{stored['grad_names'][7]}", "match_score"}
    assert set(stored) <= seen


@with_full_data
def test_changed_references_of_fusetrack_fail() -> None:
    frames = check_parity.read(FULL / "vpsnet_track_small.npz")["frames"]
    whole = check_parity.read(FULL / "vpsnet_fusetrack_small.npz")
    stored = {name: value for name, value in whole.items() if name.startswith("f0_")}
    stored["f0_warp_fine"] += 1.1e-3 * stored["f0_warp_fine"].std()
    stored["f0_corr"][40, 3, 3] += 2e-3 * stored["f0_corr"].std()
    inputs = {"frames": frames[:1], "flow": whole["flow"][:1]}
    rows, seen = parity_fusetrack.check_inference(RULE, stored | inputs)
    assert {row.name for row in rows if not row.passed} == {"f0_warp_fine", "f0_corr"}
    assert set(stored) <= seen

    stored = check_parity.read(FULL / "vpsnet_fusetrack_losses.npz")
    names = stored["grad_names"].tolist()
    residual = names.index("extra_neck.liteflownet.flow_estimator.convs.0.0.weight")
    refine = names.index("extra_neck.refine.conv.weight")
    stored["grad_l2"][residual] *= 1.03
    stored["grad_l2"][refine] *= 1.002
    stored["loss/loss_pano"] *= 1 + 2e-5
    truth = check_parity.read(FULL / "vpsnet_track_losses.npz")
    inputs = {name: truth[name] for name in parity_track.TRAINING_INPUTS}
    rows, seen = parity_fusetrack.check_training(RULE, stored | inputs)
    wrong = {row.name for row in rows if not row.passed}
    assert wrong == {"loss/loss_pano", f"grad_l2/{names[residual]}", f"grad_l2/{names[refine]}"}
    assert set(stored) <= seen


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


@with_full_data
def test_full_reference_data() -> None:
    rows, left = check_parity.check_folder(FULL)
    assert failures(rows) == []
    assert left == []
