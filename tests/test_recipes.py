"""Recipes: the published numbers, and what a wrong name or file is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from panoptube.config import RunConfig
from panoptube.errors import UserError
from panoptube.recipes import (
    FOR_ANYBODY,
    RECIPES,
    fuse,
    fusetrack,
    load_run,
    siamtrack,
    siamtrack_base,
    streets_real,
    tiny_fusetrack_streets,
    tiny_siamtrack_base_streets,
    tiny_siamtrack_streets,
    tiny_streets,
    track,
)


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


def test_siamtrack_is_track_on_both_frames() -> None:
    base, full = siamtrack_base(), siamtrack()
    assert (base.network, base.loss, base.train) == (track().network, track().loss, track().train)
    assert base.siamese.both_frames
    assert (base.data.gaps, base.data.gaps_in) == ((-2, 2), "labels")
    assert not base.loss.temporal
    assert full.loss.temporal == ("contrast_classes", "contrast_instances", "warp", "tube")
    assert full.model_copy(update={"name": base.name, "loss": base.loss}) == base
    small, tiny = tiny_siamtrack_streets(), tiny_siamtrack_base_streets()
    assert small.model_copy(update={"name": tiny.name, "loss": tiny.loss}) == tiny
    assert (tiny.network, tiny.train) == (tiny_streets().network, tiny_streets().train)


def test_new_options_change_no_other_recipe() -> None:
    for name, make in RECIPES.items():
        run = make()
        new = (run.network.ignore_untrusted, run.network.match_length, run.data.degrade, run.data.paste)
        assert (new == (1, 0, 0, 0)) == (name != "streets-real")
    real = streets_real()
    assert 0 < real.data.videos < real.data.streets
    assert real.siamese == tiny_siamtrack_streets().siamese
    own = {"ignore_untrusted": 0.5, "match_length": 3.0, **FOR_ANYBODY}
    assert real.network == tiny_streets().network.model_copy(update=own), "so that tiny's weights fit"


def test_recipes_of_viper_differ_in_the_data_alone() -> None:
    for name in ("track", "fusetrack", "fuse", "siamtrack-base", "siamtrack"):
        city, viper = RECIPES[name](), RECIPES[f"{name}-viper"]()
        assert (viper.data.dataset, viper.data.gaps, viper.data.gaps_in) == ("viper", (-10, 10), "frames")
        assert viper.network.test_size == viper.data.fit == (1080, 1920)
        same = {"name": city.name, "data": city.data}
        same["network"] = viper.network.model_copy(update={"test_size": city.network.test_size})
        assert viper.model_copy(update=same) == city


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
