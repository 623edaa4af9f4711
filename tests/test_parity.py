"""VPSNet-Track against stored results of the published code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import check_parity
from check_parity import Arrays, Row

EXCERPT = Path(__file__).parent / "data" / "parity"
FULL = Path(__file__).parents[2] / "shared" / "fixtures"
RULE = json.loads((EXCERPT / "weights_rule.json").read_text())


def read(name: str) -> Arrays:
    with np.load(EXCERPT / name) as data:
        return {key: data[key] for key in data.files}


def failures(rows: list[Row]) -> list[str]:
    return [f"{row.name}: {row.difference:.3g} > {row.tolerance:.3g}" for row in rows if not row.passed]


def test_inference_equals_the_published_code() -> None:
    stored = read("vpsnet_track_small.npz")
    rows, seen = check_parity.check_inference(RULE, stored)
    assert failures(rows) == []
    assert set(stored) <= seen
    assert len(rows) >= len(stored) - 1  # all but the frames themselves


def test_training_step_equals_the_published_code_and_changed_references_fail() -> None:
    stored = read("vpsnet_track_losses.npz")
    changed = dict(stored)
    changed["loss/loss_mask"] = stored["loss/loss_mask"] * (1 + 2e-5)
    changed["rcnn_labels"] = stored["rcnn_labels"].copy()
    changed["rcnn_labels"][-1] += 1
    changed["grad_l2"] = stored["grad_l2"].copy()
    changed["grad_l2"][7] *= 1.002
    changed["match_score"] = stored["match_score"] + 1.1e-3 * stored["match_score"].std()
    rows, seen = check_parity.check_training(RULE, changed)
    wrong = {row.name for row in rows if not row.passed}
    assert wrong == {"loss/loss_mask", "rcnn_labels", f"grad_l2/{stored['grad_names'][7]}", "match_score"}
    assert set(stored) <= seen


def test_proposals_are_compared_as_a_set() -> None:
    rows = np.array([[0, 0, 9, 9, 0.9], [1, 1, 5, 5, 0.8], [2, 2, 3, 3, 0.7]], np.float32)
    order = check_parity.same_rows(rows[[2, 0, 1]], rows)
    assert order.tolist() == [1, 2, 0]
    twice = check_parity.same_rows(rows[[0, 0, 1]], rows)
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
    assert check_parity.compare("x", ours, stored, kind).passed is passes


def test_folder_without_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["check_parity.py", str(tmp_path)])
    assert check_parity.main() == 2


def test_array_that_nothing_compares_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "weights_rule.json").write_text("{}")
    np.savez(tmp_path / "vpsnet_track_small.npz", a=np.ones(2), b=np.ones(2))
    monkeypatch.setitem(
        check_parity.CHECKS, "vpsnet_track_small.npz", lambda rule, stored: ([Row("a", 0, 0)], {"a"})
    )
    monkeypatch.setattr("sys.argv", ["check_parity.py", str(tmp_path)])
    assert check_parity.main() == 1
    assert "vpsnet_track_small.npz: b" in capsys.readouterr().out


@pytest.mark.skipif(not FULL.is_dir(), reason="the full reference data is not here")
def test_full_reference_data() -> None:
    rows, left, _ = check_parity.check_folder(FULL)
    assert failures(rows) == []
    assert left == []
