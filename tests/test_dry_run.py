"""What a dry run says, and that it writes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from panoptube.config import RunConfig
from panoptube.dry_run import dry_run, duration
from panoptube.recipes import TEMPORAL


def said(run: RunConfig, devices: int = 1) -> dict[str, str]:
    table = dry_run(run, devices, "cpu")
    names, texts = ([str(cell) for cell in column.cells] for column in table.columns)
    return dict(zip(names, texts)) | {"caption": str(table.caption)}


@pytest.fixture
def narrow() -> RunConfig:
    network = {"backbone": "resnet18", "channels": 16, "semantic_channels": (16,), "semantic_groups": 4}
    network |= {"box_channels": 32, "mask_channels": 16, "mask_convs": 1, "match_channels": 16}
    network |= {"train_proposals": 50, "rpn_samples": 32, "roi_samples": 32}
    return RunConfig.model_validate(
        {
            "name": "narrow",
            "network": network,
            "data": {"size": (64, 128), "workers": 0, "gaps": (-4, 4)},
            "loss": TEMPORAL,
            "siamese": {"both_frames": True, "projection": (16, 8)},
            "train": {"steps": 100, "accumulate": 2, "lr": 0.08},
        }
    )


def test_what_it_says(narrow: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = said(narrow, devices=2)
    head = 16 * 16 * 9 + 16 + 16 * 8 * 9 + 8
    assert found["projection head"] == f"{head / 1e6:.2f} M, in training only"
    assert found["pairs a step"] == "4 = 1 x 2 passes x 2 processes"
    assert found["steps"] == "100, 400 pairs"
    assert found["learning rate"] == (
        "0.08 is meant for 8 pairs a step; for 4: --train.lr 0.04, or --train.accumulate 4"
    )
    assert found["losses"].endswith("contrast_classes, contrast_instances, warp, tube")
    assert 100 < int(found["peak memory"].split()[0]) < 10_000
    assert found["caption"] == "None"
    assert os.listdir(tmp_path) == []


def test_without_data_it_takes_streets_and_says_so(narrow: RunConfig) -> None:
    data = narrow.data.model_copy(update={"streets": 0.0, "videos": 1.0, "dataset": "viper"})
    found = said(narrow.model_copy(update={"data": data}))
    assert found["caption"] == "data.root is not set; measured on synthetic streets"
    more = float(found["parameters"].split()[0]) - float(said(narrow)["parameters"].split()[0])
    assert more >= 0  # VIPER has more classes


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 min 0 s"), (59.9, "0 min 59 s"), (3600, "1 h 0 min"), (86400 * 2 + 7300, "2 d 2 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
