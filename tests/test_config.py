"""Configuration: round trip through YAML, limits, and messages that name the field."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from panoptube.config import DataConfig, LossConfig, NetworkConfig, RunConfig, TrainConfig
from panoptube.errors import UserError


def test_round_trip() -> None:
    run = RunConfig(
        name="a: strange, name",
        network=NetworkConfig(
            semantic_channels=(64, 32), backbone="timm:x", legacy=True, test_size=(96, 200)
        ),
        data=DataConfig(root=Path("some/folder"), size=(64, 96), fit=(100, 200), gaps=(-2, 3)),
        loss=LossConfig(match=0.25),
        train=TrainConfig(lr=1e-7, milestones=(0.1,), precision="bf16-mixed"),
    )
    assert RunConfig.from_yaml(run.to_yaml()) == run
    assert RunConfig.from_yaml(RunConfig(name="x").to_yaml()) == RunConfig(name="x")


def test_what_is_left_out_has_its_default() -> None:
    run = RunConfig.from_yaml("name: x\ntrain:\n  steps: 5\n")
    assert run == RunConfig(name="x", train=TrainConfig(steps=5))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[", ["my.yaml is not YAML"]),
        ("", ["my.yaml: top level"]),
        ("- a\n- b", ["my.yaml: top level"]),
        ("train: {steps: 3}", ["my.yaml: name"]),
        ("name: x\nnetwork: {chanels: 3}", ["network.chanels", "not permitted"]),
        ("name: x\ntrain: {steps: 0}", ["train.steps", "greater than or equal to 1"]),
        ("name: x\ntrain: {steps: many}", ["train.steps", "integer"]),
        ("name: x\ntrain: {optimizer: lion}", ["train.optimizer", "sgd|adamw"]),
        ("name: x\ntrain: {lr: 0}", ["train.lr"]),
        ("name: x\nnetwork: {score_threshold: 1}", ["network.score_threshold"]),
        ("name: x\nnetwork: {match_channels: -1}", ["network.match_channels", "greater than or equal to 0"]),
        ("name: x\nnetwork: {fuse: often}", ["network.fuse", "boolean"]),
        ("name: x\nnetwork: {semantic_channels: [64, 48]}", ["network", "multiples of semantic_groups, 32"]),
        ("name: x\nnetwork: {semantic_channels: []}", ["network", "multiples of semantic_groups"]),
        ("name: x\ndata: {size: [100, 128]}", ["data", "multiples of 32", "(100, 128)"]),
        ("name: x\ndata: {size: [0, 128]}", ["data", "multiples of 32"]),
        ("name: x\ndata: {size: [64]}", ["data.size"]),
    ],
)
def test_messages_name_the_field_in_one_line(text: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        RunConfig.from_yaml(text, "my.yaml")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("my.yaml")
    assert [part for part in parts if part not in message] == []


def test_every_field_has_a_sentence() -> None:
    for config in (NetworkConfig, DataConfig, LossConfig, TrainConfig):
        silent = [
            n for n, f in config.model_fields.items() if not (f.description or "").strip().endswith(".")
        ]
        assert silent == [], config.__name__


def test_configurations_do_not_change() -> None:
    with pytest.raises(pydantic.ValidationError):
        NetworkConfig().channels = 3  # type: ignore[misc]
