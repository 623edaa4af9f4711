"""Recipes: the published numbers, and what a wrong name or file is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from panoptube.config import RunConfig
from panoptube.errors import UserError
from panoptube.recipes import RECIPES, fuse, fusetrack, load_run, tiny_fusetrack_streets, tiny_streets, track


def test_track_has_the_published_numbers() -> None:
    run = track()
    train, data, loss = run.train, run.data, run.loss
    assert (train.optimizer, train.lr, train.weight_decay, train.clip) == ("sgd", 0.005, 1e-4, 35)
    assert (train.steps, train.warmup, train.schedule, train.milestones) == (
        28_800,
        500,
        "steps",
        (8 / 12, 11 / 12),
    )
    assert (data.size, data.fit, data.scale, data.jitter) == ((800, 1600), (1024, 2048), (0.8, 1.5), 0)
    assert data.gaps == (-5, 5)
    assert (loss.match, loss.panoptic) == (0.5, 0.5)
    assert {loss.semantic, loss.rpn_objectness, loss.rpn_boxes, loss.classes, loss.boxes, loss.masks} == {1}
    assert (run.network.backbone, run.network.semantic_channels) == ("resnet50", (256, 128, 128))


def test_fusetrack_is_track_with_the_neck_and_fuse_has_no_match_head() -> None:
    run = fusetrack()
    assert run.network == track().network.model_copy(update={"fuse": True})
    assert (run.data, run.loss, run.train) == (track().data, track().loss, track().train)
    start = fuse()
    assert start.network == run.network.model_copy(update={"match_channels": 0})
    assert (start.train.steps, start.train.milestones) == (24 * 2400, (16 / 24, 22 / 24))
    assert start.train.model_copy(update={"steps": run.train.steps, "milestones": run.train.milestones}) == (
        run.train
    )
    small = tiny_fusetrack_streets()
    assert small.network == tiny_streets().network.model_copy(update={"fuse": True})
    assert (small.data, small.loss, small.train) == (
        tiny_streets().data,
        tiny_streets().loss,
        tiny_streets().train,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_load_by_name_and_survive_yaml(name: str, tmp_path: Path) -> None:
    run = load_run(name)
    assert run == RECIPES[name]()
    assert run.name == name
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    assert load_run(tmp_path / "run.yaml") == run
    assert RunConfig.model_validate(run.model_dump()) == run  # also what model_copy put in is in range
    assert all(edge % 32 == 0 for edge in run.data.size)


def test_wrong_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean tiny-streets"):
        load_run("tiny-street")
    with pytest.raises(UserError, match="there are track, fusetrack, fuse, siamtrack-base, siamtrack"):
        load_run("xyz")
    with pytest.raises(UserError, match=r"can't read .*gone\.yaml"):
        load_run(tmp_path / "gone.yaml")
    (tmp_path / "bad.yaml").write_text("name: a\ntrain: {lr: -1}\n")
    with pytest.raises(UserError, match=r"bad\.yaml: train\.lr"):
        load_run(tmp_path / "bad.yaml")
