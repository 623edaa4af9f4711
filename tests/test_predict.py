"""predict.py: the pipeline round a predictor without a network; what is written, and what not on failure."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import panoptube.predict
from panoptube.config import NetworkConfig, RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.errors import UserError
from panoptube.flow import learned
from panoptube.flow.images import dis_image_flow
from panoptube.flow.learned import network_flow
from panoptube.network.vpsnet import VPSNet, vpsnet
from panoptube.network.weights import save_weights
from panoptube.panoptic.formats import PanopticVideoWriter, read_panoptic_video
from panoptube.panoptic.frame import PanopticFrame
from panoptube.predict import PredictSummary, find_device, predict, write_predictions
from panoptube.predictor import VideoPredictor
from panoptube.video import VideoSource, open_video, write_video
from panoptube.view.overlay import overlay

ROAD, CAR = CITYSCAPES.index("road"), CITYSCAPES.index("car")
SIZE = (48, 64)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """10 frames of grey that gets lighter."""
    path = tmp_path / "film.mp4"
    with write_video(path, 10, SIZE) as write:
        for t in range(10):
            write(np.full((*SIZE, 3), 20 * t, np.uint8))
    return path


class Fake:
    """A predictor that sees a car (id 5) drive right, and another (id 6) from frame 4 on."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.answers: list[PanopticFrame] = []

    def __call__(self, image: np.ndarray) -> PanopticFrame:
        t = len(self.seen)
        instance = np.zeros(image.shape[:2], np.int32)
        instance[10:30, 2 * t : 2 * t + 20] = 5
        if t >= 4:
            instance[32:46, :12] = 6
        semantic = np.where(instance > 0, CAR, ROAD).astype(np.uint8)
        self.seen.append(image)
        self.answers.append(PanopticFrame(semantic, instance, {5: 0.9}))
        return self.answers[-1]


def run(
    film: Path, out: Path, step: Callable[[np.ndarray], PanopticFrame], **options: object
) -> PredictSummary:
    return write_predictions(open_video(film), step, CITYSCAPES, out, **options)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_every_frame_goes_through_in_order_and_is_written(film: Path, tmp_path: Path) -> None:
    fake, out = Fake(), tmp_path / "results" / "film"
    summary = run(film, out, fake)
    assert (summary.frames, summary.tracks, summary.notes) == (10, 2, ())
    assert summary.fps == 10 / summary.seconds
    np.testing.assert_array_equal(fake.seen, list(open_video(film)))
    assert names(out) == ["overlay.mp4", "panoptic", "panoptic.json"]
    assert names(out.parent) == ["film"]

    taxonomy, stored = read_panoptic_video(out / "panoptic.json", out / "panoptic")
    assert taxonomy.categories == CITYSCAPES.categories
    assert [f.name for f in stored] == [f"{t:06d}" for t in range(10)]
    for file, answer in zip(stored, fake.answers):
        read = file.frame()
        np.testing.assert_array_equal(read.semantic, answer.semantic)
        np.testing.assert_array_equal(read.instance, answer.instance)
        assert read.scores == {5: 0.9}

    drawn = open_video(out / "overlay.mp4")
    assert (drawn.size, drawn.fps) == (SIZE, 10)
    for picture, image, answer in zip(drawn, fake.seen, fake.answers):
        expected = overlay(image, answer, CITYSCAPES)
        assert (
            np.abs(picture.astype(int) - expected).mean() < 8
        )  # what coding loses at the edges of a tiny picture
    assert np.abs(picture.astype(int) - image).mean() > 25  # and far more than that is drawn


def test_it_stops_after_max_frames(film: Path, tmp_path: Path) -> None:
    fake = Fake()
    assert run(film, tmp_path / "out", fake, max_frames=3).frames == 3
    assert len(fake.seen) == 3
    assert len(names(tmp_path / "out" / "panoptic")) == 3


def test_a_video_that_breaks_off_is_predicted_as_far_as_it_goes(tmp_path: Path) -> None:
    path, random = tmp_path / "noise.mp4", np.random.default_rng(0)
    with write_video(path, 10, SIZE) as write:
        for _ in range(20):
            write(random.integers(0, 255, (*SIZE, 3), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    summary = run(path, tmp_path / "out", Fake())
    assert 5 < summary.frames < 15
    assert summary.notes == (
        f"noise.mp4 is damaged or breaks off: {summary.frames} frames of 20 could be decoded",
    )


class Broken(Exception):
    pass


def raise_broken(*_: object, **__: object) -> None:
    raise Broken


def fail_at(count: int, error: type[BaseException]) -> Callable[[np.ndarray], PanopticFrame]:
    fake = Fake()

    def step(image: np.ndarray) -> PanopticFrame:
        if len(fake.seen) == count:
            raise error
        return fake(image)

    return step


@pytest.mark.parametrize("count", [0, 5, 9])
@pytest.mark.parametrize("error", [Broken, KeyboardInterrupt])
def test_a_predictor_that_fails_leaves_nothing(
    film: Path, tmp_path: Path, count: int, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        run(film, tmp_path / "out", fail_at(count, error))
    assert names(tmp_path) == ["film.mp4"]
    assert threading.active_count() == 1


@pytest.mark.parametrize("part", ["overlay", "write"])
def test_a_writer_that_fails_ends_the_run_soon(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    owner = panoptube.predict if part == "overlay" else PanopticVideoWriter
    monkeypatch.setattr(owner, part, raise_broken)
    fake = Fake()

    def slow(image: np.ndarray) -> PanopticFrame:
        time.sleep(0.02)
        return fake(image)

    with pytest.raises(Broken):
        run(film, tmp_path / "out", slow)
    assert len(fake.seen) <= 5
    assert names(tmp_path) == ["film.mp4"]


def test_a_source_that_fails_ends_the_run(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = open_video(film)

    class Failing(VideoSource):
        name, size, fps, length = video.name, video.size, video.fps, video.length

        def __iter__(self):  # type: ignore[no-untyped-def]
            for t, image in enumerate(video):
                if t == 6:
                    raise Broken
                yield image

    fake = Fake()
    with pytest.raises(Broken):
        write_predictions(Failing(), fake, CITYSCAPES, tmp_path / "out")
    assert len(fake.seen) == 6
    assert names(tmp_path) == ["film.mp4"]


def test_frames_that_wait_are_few_however_slow_writing_is(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long videos don't pile up: at no time are more than a few frames between the source and the files."""
    decoded, drawn, waiting = [0], [0], []
    video = open_video(film)

    class Long(VideoSource):
        name, size, fps, length = video.name, video.size, video.fps, 60

        def __iter__(self):  # type: ignore[no-untyped-def]
            for _ in range(60):
                decoded[0] += 1
                waiting.append(decoded[0] - drawn[0])
                yield np.zeros((*SIZE, 3), np.uint8)

    def slow(image: np.ndarray, *_: object) -> np.ndarray:
        time.sleep(0.003)
        drawn[0] += 1
        return image

    monkeypatch.setattr(panoptube.predict, "overlay", slow)
    still = Fake()(np.zeros((*SIZE, 3), np.uint8))
    assert write_predictions(Long(), lambda image: still, CITYSCAPES, tmp_path / "out").frames == 60
    assert max(waiting) <= 2 * panoptube.predict.AHEAD + 4


def test_stages_overlap(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network and drawing take 50 ms each for 10 frames: one after the other that would be 1 s."""

    def slow(image: np.ndarray, *_: object) -> np.ndarray:
        time.sleep(0.05)
        return image

    def step(image: np.ndarray) -> PanopticFrame:
        time.sleep(0.05)
        return still

    still = Fake()(np.zeros((*SIZE, 3), np.uint8))
    monkeypatch.setattr(panoptube.predict, "overlay", slow)
    assert run(film, tmp_path / "out", step).seconds < 0.9


def test_a_result_is_replaced_only_when_asked_and_only_when_complete(film: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(film, out, Fake())
    before = (out / "panoptic.json").read_bytes()
    with pytest.raises(UserError, match="--overwrite"):
        run(film, out, Fake(), max_frames=2)
    with pytest.raises(Broken):
        run(film, out, fail_at(5, Broken), overwrite=True)
    assert (out / "panoptic.json").read_bytes() == before
    assert len(names(out / "panoptic")) == 10
    run(film, out, Fake(), max_frames=2, overwrite=True)
    assert names(out / "panoptic") == ["000000.png", "000001.png"]
    assert names(tmp_path) == ["film.mp4", "out"]


def test_only_results_are_ever_replaced(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = fail_at(0, Broken)  # so that a UserError comes before any work
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    with pytest.raises(UserError, match=r"holds other files \(a\.jpg\)"):
        run(film, photos, step, overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        run(film, film, step, overwrite=True)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="current folder"):
        run(film, Path("."), step)
    monkeypatch.chdir(tmp_path)
    assert run(film, Path("empty"), Fake()).frames == 10


def test_a_full_disk_is_named(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28), "overlay.mp4")

    monkeypatch.setattr(panoptube.predict, "overlay", full)
    with pytest.raises(UserError, match=r"out can't be written: No space left on device; make room"):
        run(film, tmp_path / "out", Fake())


def test_mistakes_are_found_before_the_network_is_loaded(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panoptube.predict, "load_weights", raise_broken)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()
    with pytest.raises(UserError, match="other files"):
        predict(film, tmp_path / "out")
    with pytest.raises(UserError, match="does not exist"):
        predict(tmp_path / "missing.mp4", tmp_path / "new")
    with pytest.raises(UserError, match="max_frames is 0"):
        predict(film, tmp_path / "new", max_frames=0)
    with pytest.raises(Broken):
        predict(film, tmp_path / "new")


def narrow(folder: Path, fuse: bool = False) -> tuple[VPSNet, Path]:
    """An untrained network, and its weights file."""
    torch.manual_seed(0)
    config = NetworkConfig(
        backbone="resnet18",
        channels=16,
        semantic_channels=(16,),
        semantic_groups=4,
        box_channels=16,
        mask_channels=16,
        mask_convs=1,
        match_channels=16,
        test_proposals=20,
        test_size=(32, 64),
        fuse=fuse,
    )
    network, weights = vpsnet(config, CITYSCAPES).eval(), folder / "narrow.safetensors"
    save_weights(weights, network, RunConfig(name="narrow", network=config))
    return network, weights


def test_the_network_itself_runs_and_answers_at_the_size_of_the_video(film: Path, tmp_path: Path) -> None:
    network, weights = narrow(tmp_path)
    out = tmp_path / "out"
    assert predict(film, out, weights, max_frames=2, device="cpu").frames == 2
    _, stored = read_panoptic_video(out / "panoptic.json", out / "panoptic")
    predictor = VideoPredictor(network)
    for image, file in zip(open_video(film), stored):
        expected, read = predictor.step(image), file.frame()
        assert read.size == SIZE
        np.testing.assert_array_equal(read.semantic, expected.semantic)
        np.testing.assert_array_equal(read.instance, expected.instance)


class Rightwards(nn.Module):
    """A flow network that says 9 pixels to the right."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([9.0, 0.0]))

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        return self.bias[None, :, None, None].expand(len(image), 2, *image.shape[2:])


def test_fusetrack_takes_flownet2_or_dis(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, weights = narrow(tmp_path, fuse=True)
    asked: list[object] = []

    def load(*arguments: object) -> nn.Module:
        asked.append(arguments)
        return Rightwards()

    monkeypatch.setattr(learned, "flow_network", load)
    sources = {"flow.safetensors": partial(network_flow, Rightwards()), None: dis_image_flow}
    for name, source in sources.items():
        out = tmp_path / f"out-{name}"
        flow = tmp_path / name if name else None
        assert predict(film, out, weights, max_frames=3, device="cpu", flow=flow).frames == 3
        predictor = VideoPredictor(network, flow=source)
        _, stored = read_panoptic_video(out / "panoptic.json", out / "panoptic")
        for image, file in zip(open_video(film), stored):
            np.testing.assert_array_equal(file.frame().semantic, predictor.step(image).semantic)
    assert asked == [("flownet2", tmp_path / "flow.safetensors")]


def test_flow_for_a_network_without_use_for_it_is_refused(film: Path, tmp_path: Path) -> None:
    _, weights = narrow(tmp_path)
    with pytest.raises(UserError, match=r"uses no flow; leave out .*flow\.safetensors"):
        predict(film, tmp_path / "out", weights, device="cpu", flow=tmp_path / "flow.safetensors")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_missing_are_named(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.safetensors"):
        predict(film, tmp_path / "out", weights=tmp_path / "no.safetensors")
    assert names(tmp_path) == ["film.mp4"]


def test_devices() -> None:
    assert find_device("cpu").type == "cpu"
    assert find_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"no device '{name}'"):
            find_device(name)
