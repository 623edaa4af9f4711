"""Training a narrow VPSNet through `train`: going on after a stop, validation, starting weights."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from rich.console import Console

from panoptube import train as training
from panoptube.config import DataConfig, NetworkConfig, RunConfig, TrainConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.clip import Clip
from panoptube.data.labelled_video import write_labelled_video
from panoptube.data.pairs import FramePair, PairDataset, frame_targets
from panoptube.errors import UserError
from panoptube.network.weights import load_weights, save_weights
from panoptube.panoptic.frame import PanopticFrame
from panoptube.recipes import TEMPORAL
from panoptube.train import check_finite
from panoptube.training_step import TrainingStep

ROAD, PERSON, CAR, SKY = (CITYSCAPES.index(name) for name in ("road", "person", "car", "sky"))


def truth_at(t: int) -> PanopticFrame:
    """64 x 128: sky over road; a car that moves, a person who stands."""
    semantic, instance = np.full((64, 128), SKY, np.uint8), np.zeros((64, 128), np.int32)
    semantic[32:] = ROAD
    semantic[36:56, 10 + t : 50 + t], instance[36:56, 10 + t : 50 + t] = CAR, 7
    semantic[16:50, 80:94], instance[16:50, 80:94] = PERSON, 3
    return PanopticFrame(semantic, instance)


@pytest.fixture
def narrow(tmp_path: Path) -> RunConfig:
    """A narrow VPSNet and two videos, one of them for validation."""

    def image(t: int) -> np.ndarray:
        noise = np.random.default_rng(t).integers(0, 20, (64, 128, 3))
        return (CITYSCAPES.colors[truth_at(t).semantic] // 2 + noise).astype(np.uint8)

    for name in ("street", "yard"):
        clip = Clip(name, CITYSCAPES, (64, 128), 10.0, 20, tuple(range(20)), image, truth_at)
        write_labelled_video(clip, tmp_path / "videos")
    (tmp_path / "videos/index.json").write_text('{"clips": [{"clip": "yard", "split": "val"}]}')
    network = NetworkConfig(
        backbone="resnet18",
        channels=16,
        semantic_channels=(16,),
        semantic_groups=4,
        box_channels=32,
        mask_channels=16,
        mask_convs=1,
        match_channels=16,
        train_proposals=50,
        test_proposals=20,
        rpn_samples=32,
        roi_samples=32,
        test_size=(64, 128),
    )
    data = DataConfig(root=tmp_path / "videos", streets=0, videos=1, size=(64, 128), workers=0)
    settings = TrainConfig(steps=4, save_every=4, validate_every=0, optimizer="adamw", lr=1e-3, warmup=2)
    return RunConfig(name="narrow", network=network, data=data, train=settings)


def with_temporal_losses(run: RunConfig, **siamese: Any) -> RunConfig:
    """SiamTrack, its pairs 4 frames apart."""
    fields = run.model_dump()
    fields["data"]["gaps"] = (-4, 4)
    fields["loss"] |= TEMPORAL
    fields["siamese"] |= {"both_frames": True, "projection": (16, 8)} | siamese
    return RunConfig.model_validate(fields)


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "load_imagenet", lambda backbone, name: "random weights")


def stop_after(done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(numbers: dict[str, float], step: int, out: Path) -> None:
        if step + 2 == done:  # processes have agreed on this step's stop already; the next one is the last
            os.kill(os.getpid(), signal.SIGTERM)
        check_finite(numbers, step, out)

    monkeypatch.setattr(training, "check_finite", check)


def test_four_steps_of_the_network_are_two_and_two(
    tmp_path: Path, narrow: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = {"accelerator": "cpu", "console": Console(quiet=True)}
    assert training.train(narrow, tmp_path / "whole", **quiet) == 4
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        assert training.train(narrow, tmp_path / "halves", **quiet) == 2
    assert training.train(narrow, tmp_path / "halves", **quiet) == 4
    whole, halves = (load_weights(tmp_path / name / "weights.safetensors") for name in ("whole", "halves"))
    for (name, x), y in zip(whole[0].state_dict().items(), halves[0].state_dict().values()):
        assert torch.equal(x, y), name
    assert (tmp_path / "whole/losses.csv").read_bytes() == (tmp_path / "halves/losses.csv").read_bytes()
    assert whole[1] == narrow
    terms = ["semantic", "rpn_objectness", "rpn_boxes", "classes", "boxes", "masks", "match", "panoptic"]
    assert next(csv.reader((tmp_path / "whole/losses.csv").open())) == [
        "step",
        "total",
        *terms,
        "gradient",
        "lr",
    ]


@pytest.mark.parametrize("siamese", [False, True])
def test_every_parameter_gets_a_gradient(narrow: RunConfig, siamese: bool) -> None:
    """Also from a pair without things: a missing gradient hangs distributed training."""
    if siamese:
        narrow = with_temporal_losses(narrow)
    step = TrainingStep(training.vpsnet(narrow.network, CITYSCAPES), narrow)
    pair = PairDataset(narrow.data, 0, flow_directions=narrow.flow_directions)[0]
    nothing = frame_targets(
        PanopticFrame(np.zeros((64, 128), np.uint8), np.zeros((64, 128), np.int32)), CITYSCAPES
    )
    for each in (pair, replace(pair, targets=((nothing, nothing),))):
        step.zero_grad()
        torch.stack(list(step(each, 3).values())).sum().backward()
        missing = [name for name, p in step.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []


def test_validation_of_the_network(tmp_path: Path, narrow: RunConfig) -> None:
    settings = narrow.train.model_copy(update={"validate_every": 1, "steps": 2})
    run = narrow.model_copy(update={"train": settings})
    console = Console(file=(tmp_path / "screen.txt").open("w"))
    assert training.train(run, tmp_path / "run", accelerator="cpu", console=console) == 2
    console.file.close()
    assert "validation after 2 steps: vpq " in (tmp_path / "screen.txt").read_text()
    pictures = sorted((tmp_path / "run/pictures").iterdir())
    assert [p.name for p in pictures] == ["000001_yard.jpg", "000002_yard.jpg"]
    picture = cv2.imread(str(pictures[0]))
    assert picture.shape == (128, 128, 3)
    # Below is the truth of the last scored frame: the car's own colour, not the sky's.
    assert abs(picture[64 + 46, 49].astype(int) - picture[64 + 8, 49]).max() > 30


def test_validation_without_clips_says_what_to_do(tmp_path: Path, narrow: RunConfig) -> None:
    (tmp_path / "videos/index.json").unlink()
    run = narrow.model_copy(update={"train": narrow.train.model_copy(update={"validate_every": 1})})
    with pytest.raises(UserError, match=r"'val'.*validate_every to 0"):
        training.train(run, tmp_path / "run", accelerator="cpu", console=Console(quiet=True))


def test_fusetrack_trains_validates_and_is_written(tmp_path: Path, narrow: RunConfig) -> None:
    """The videos have no flow, so that it is DIS's; `init` takes over what FuseTrack shares with Track."""
    save_weights(tmp_path / "track.safetensors", training.vpsnet(narrow.network, CITYSCAPES), narrow)
    settings = narrow.train.model_copy(update={"validate_every": 2, "steps": 2})
    network = narrow.network.model_copy(update={"fuse": True})
    run = narrow.model_copy(update={"train": settings, "network": network})
    console = Console(file=(tmp_path / "screen.txt").open("w"), width=10_000)
    out = tmp_path / "run"
    init = tmp_path / "track.safetensors"
    assert training.train(run, out, init, accelerator="cpu", console=console) == 2
    console.file.close()
    screen = (tmp_path / "screen.txt").read_text()
    assert "28 missing: fuse." in screen
    assert "validation after 2 steps: vpq " in screen
    trained, found = load_weights(out / "weights.safetensors")
    assert found == run
    assert trained.fuse is not None
    assert all(value.isfinite().all() for value in trained.state_dict().values())


def test_init_starts_from_weights(tmp_path: Path, narrow: RunConfig) -> None:
    network = training.vpsnet(narrow.network, CITYSCAPES)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    save_weights(tmp_path / "init.safetensors", network, narrow)
    run = narrow.model_copy(update={"train": narrow.train.model_copy(update={"steps": 1, "lr": 1e-12})})
    quiet = {"accelerator": "cpu", "console": Console(quiet=True)}
    training.train(run, tmp_path / "run", tmp_path / "init.safetensors", **quiet)
    trained, _ = load_weights(tmp_path / "run/weights.safetensors")
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 0.01), msg=name)


# --- both frames --------------------------------------------------------------------------------------------


def siamese_step(run: RunConfig) -> tuple[TrainingStep, FramePair]:
    torch.manual_seed(0)
    step = TrainingStep(training.vpsnet(run.network, CITYSCAPES), run)
    return step.eval(), PairDataset(run.data, 0, flow_directions=run.flow_directions)[0]


def test_supervised_terms_are_those_of_both_frames(narrow: RunConfig) -> None:
    """A frame paired with itself: both are supervised alike but for the boxes that are drawn."""
    run = with_temporal_losses(narrow)
    step, pair = siamese_step(run)
    target = pair.targets[0][0]
    twice = replace(pair, images=pair.images[:, :1].repeat(1, 2, 1, 1, 1), targets=((target, target),))
    single = TrainingStep(step.network, narrow)
    both, one = step(twice, 3), single(twice, 3)
    assert set(both) == {*one, "contrast_classes", "contrast_instances", "warp", "tube"}
    for name in ("semantic", "panoptic"):
        assert both[name].item() == pytest.approx(one[name].item(), rel=1e-5), name


def test_reference_frame_is_supervised(narrow: RunConfig) -> None:
    step, pair = siamese_step(with_temporal_losses(narrow))
    wrong = replace(pair.targets[0][1], semantic=torch.full((64, 128), SKY))
    changed = replace(pair, targets=((pair.targets[0][0], wrong),))
    assert step(changed, 3)["semantic"] != step(pair, 3)["semantic"]


def test_matching_goes_one_way_unless_asked(narrow: RunConfig) -> None:
    """With the same draws the target's part is the same, and its mean with the reference's another number."""
    one_way, pair = siamese_step(with_temporal_losses(narrow))
    both_ways = TrainingStep(one_way.network, with_temporal_losses(narrow, match_both_ways=True)).eval()
    alone = TrainingStep(one_way.network, narrow).eval()
    assert one_way(pair, 3)["match"].item() == pytest.approx(alone(pair, 3)["match"].item(), rel=1e-4)
    assert one_way(pair, 3)["match"] != both_ways(pair, 3)["match"]


@pytest.mark.parametrize("term", ["contrast_classes", "contrast_instances", "warp", "tube"])
def test_each_temporal_term_alone_reaches_the_pyramid(narrow: RunConfig, term: str) -> None:
    step, pair = siamese_step(with_temporal_losses(narrow))
    step(pair, 3)[term].backward()
    gradients = [p.grad for p in step.network.backbone.parameters() if p.grad is not None]
    assert any(g.abs().max() > 0 for g in gradients)


def test_temporal_terms_start_when_they_should(narrow: RunConfig) -> None:
    step, pair = siamese_step(with_temporal_losses(narrow, start=5))
    for done, counts in ((4, False), (5, True)):
        terms = step(pair, 3, done)
        assert [bool(terms[name] != 0) for name in TEMPORAL] == [counts] * 4


def test_weights_of_siamtrack_are_those_of_track(tmp_path: Path, narrow: RunConfig) -> None:
    """The projection head is in the checkpoint, so that a run goes on exactly, and in no weights file."""
    quiet = {"accelerator": "cpu", "console": Console(quiet=True)}
    run = with_temporal_losses(narrow)
    training.train(run, tmp_path / "siam", **quiet)
    training.train(narrow, tmp_path / "track", **quiet)
    siam, track = (load_weights(tmp_path / n / "weights.safetensors")[0] for n in ("siam", "track"))
    assert set(siam.state_dict()) == set(track.state_dict())
    saved = torch.load(tmp_path / "siam/checkpoint.pt", weights_only=True)["module"]
    assert "projection.second.weight" in saved
    header = next(csv.reader((tmp_path / "siam/losses.csv").open()))
    assert header[10:14] == list(TEMPORAL)


def test_flow_comes_from_a_network_where_the_data_has_none(narrow: RunConfig) -> None:
    run = with_temporal_losses(narrow, warp_directions="both")
    asked = []

    class Still(torch.nn.Module):
        def forward(self, image: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
            asked.append((image, reference))
            return torch.zeros(len(image), 2, *image.shape[2:])

    step = TrainingStep(training.vpsnet(run.network, CITYSCAPES), run, Still())
    pair = PairDataset(run.data, 0)[0]
    assert pair.flow is None
    step(pair, 3)
    (first, second), (again, _) = asked
    assert torch.equal(again, second)
    assert first.min() > -1e-4
    assert 50 < first.max() < 256


def test_terms_that_cannot_be_had_are_refused(narrow: RunConfig) -> None:
    fields = narrow.model_dump()
    for change, message in (
        ({"loss": {"tube": 1.0}}, "set siamese.both_frames"),
        ({"siamese": {"both_frames": True}, "network": {"fuse": True}}, "network.fuse"),
        (
            {"siamese": {"both_frames": True}, "loss": {"warp": 1.0}, "data": {"joint_crop": False}},
            "data.joint_crop",
        ),
    ):
        wrong = fields | {part: fields[part] | value for part, value in change.items()}
        with pytest.raises(ValueError, match=message):
            RunConfig.model_validate(wrong)
