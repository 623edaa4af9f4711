"""predict.py: the pipeline round a predictor without a network; what is written, and what not on failure."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import ANY

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
from panoptube.network.compiled import Gain
from panoptube.network.inference import for_inference
from panoptube.network.vpsnet import Detections, VPSNet, vpsnet
from panoptube.network.weights import save_weights
from panoptube.panoptic.formats import PanopticVideoWriter, read_panoptic_video
from panoptube.panoptic.frame import VOID, PanopticFrame
from panoptube.predict import Ahead, PredictSummary, find_device, look_ahead, predict, write_predictions
from panoptube.predictor import VideoPredictor
from panoptube.video import Choice, Timed, VideoSource, open_video, write_video
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


def run(film: Path, out: Path, step: Callable[..., PanopticFrame], **options: object) -> PredictSummary:
    return write_predictions(open_video(film), step, CITYSCAPES, out, **options)  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_every_frame_goes_through_in_order_and_is_written(film: Path, tmp_path: Path) -> None:
    fake, out = Fake(), tmp_path / "results" / "film"
    summary = run(film, out, fake)
    assert (summary.frames, summary.tracks, summary.notes) == (10, 2, ())
    assert summary.fps == 10 / summary.seconds
    assert summary.void == 0
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


def test_the_share_of_void_is_told(film: Path, tmp_path: Path) -> None:
    def step(image: np.ndarray) -> PanopticFrame:
        semantic = np.full(SIZE, ROAD, np.uint8)
        semantic[:12] = VOID if image.mean() > 90 else ROAD  # a quarter of the last five frames
        return PanopticFrame(semantic, np.zeros(SIZE, np.int32))

    assert run(film, tmp_path / "out", step).void == pytest.approx(1 / 8)


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


def still_running(before: set[threading.Thread]) -> list[threading.Thread]:
    """Threads begun since `before`; the bar's own gets a moment, since rich tells it to end and goes on."""
    begun = [thread for thread in threading.enumerate() if thread not in before]
    for thread in begun:
        if type(thread).__module__ == "rich.live":
            thread.join(2)
    return [thread for thread in begun if thread.is_alive()]


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
    before = set(threading.enumerate())  # other tests' among them
    with pytest.raises(error):
        run(film, tmp_path / "out", fail_at(count, error))
    assert names(tmp_path) == ["film.mp4"]
    assert not still_running(before)


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

        def _decode(self) -> Iterator[Timed]:
            for t, image in enumerate(video):
                if t == 6:
                    raise Broken
                yield t / 10, partial(np.copy, image)

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

        def _decode(self) -> Iterator[Timed]:
            for t in range(60):
                decoded[0] += 1
                waiting.append(decoded[0] - drawn[0])
                yield t / 10, lambda: np.zeros((*SIZE, 3), np.uint8)

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


def test_times_are_kept_in_the_result_and_in_the_overlay(tmp_path: Path) -> None:
    shown = [0, 0.1, 0.15, 1.0, 1.5]
    with write_video(tmp_path / "uneven.mp4", 10, SIZE) as write:
        for t, time_ in enumerate(shown):
            write(np.full((*SIZE, 3), 20 * t, np.uint8), time_)
    video = open_video(tmp_path / "uneven.mp4", choice=Choice(start=0.1))
    write_predictions(video, Fake(), CITYSCAPES, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]
    assert [row["time"] for row in stored] == pytest.approx(shown[1:], abs=1e-4)
    assert not any("cut" in row for row in stored)
    drawn = [frame.time for frame in open_video(tmp_path / "out" / "overlay.mp4").frames()]
    assert drawn == pytest.approx([0, 0.05, 0.9, 1.4], abs=1e-4)
    _, frames = read_panoptic_video(tmp_path / "out" / "panoptic.json", tmp_path / "out" / "panoptic")
    assert len(frames) == 4, "what readers don't know does not disturb them"


class Blocks(VideoSource):
    """3 shots of 6, 5 and 7 frames, of blocks in colours of their own."""

    name, size, fps, length = "blocks", SIZE, 10.0, 18

    def _decode(self) -> Iterator[Timed]:
        for t in range(18):
            random = np.random.default_rng((t >= 6) + (t >= 11))
            blocks = random.integers(0, 256, (6, 8, 3)).astype(np.uint8)
            yield t / 10, partial(np.kron, blocks, np.ones((8, 8, 1), np.uint8))


def test_a_cut_restarts_before_its_first_frame_is_labelled(tmp_path: Path) -> None:
    fake = Fake()
    restarts: list[int] = []

    def restart() -> None:
        restarts.append(len(fake.seen))

    summary = write_predictions(Blocks(), fake, CITYSCAPES, tmp_path / "out", restart=restart)
    assert summary.frames == 18
    assert summary.cuts == (6, 11)
    assert restarts == [6, 11]
    rows = json.loads((tmp_path / "out" / "panoptic.json").read_text())["annotations"]
    assert [t for t, row in enumerate(rows) if row.get("cut")] == [6, 11]
    unmarked = write_predictions(Blocks(), Fake(), CITYSCAPES, tmp_path / "plain")
    assert unmarked.cuts == ()


class Live(VideoSource):
    """A source that never ends by itself, and gives nothing more after `count` frames."""

    name, size, fps, length, live = "camera 0", SIZE, 10.0, None, True

    def __init__(self, count: int = 10**9) -> None:
        super().__init__()
        self.count = count
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def _decode(self) -> Iterator[Timed]:
        try:
            for t in range(self.count):
                if self.stopped.wait(0.002):
                    return
                yield t / 10, lambda: np.zeros((*SIZE, 3), np.uint8)
            self.stopped.wait()
        finally:
            self.notes.append("3 frames were dropped")


def test_ctrl_c_ends_a_live_video_and_keeps_what_there_is(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # other tests' among them
    out = tmp_path / "out"
    summary = write_predictions(Live(), fail_at(5, KeyboardInterrupt), CITYSCAPES, out)
    assert (summary.frames, summary.notes) == (5, ("3 frames were dropped",))
    _, stored = read_panoptic_video(out / "panoptic.json", out / "panoptic")
    assert len(stored) == len(list(open_video(out / "overlay.mp4"))) == 5
    assert names(tmp_path) == ["out"]
    assert not still_running(before)


def test_ctrl_c_while_nothing_comes(tmp_path: Path) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    assert write_predictions(Live(4), Fake(), CITYSCAPES, tmp_path / "out").frames == 4
    timer.join()


def test_a_live_video_that_fails_or_gave_nothing_leaves_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # other tests' among them
    with pytest.raises(KeyboardInterrupt):
        write_predictions(Live(), fail_at(0, KeyboardInterrupt), CITYSCAPES, tmp_path / "out")
    with pytest.raises(Broken):
        write_predictions(Live(), fail_at(3, Broken), CITYSCAPES, tmp_path / "out")
    assert names(tmp_path) == []
    assert not still_running(before)


def test_a_live_video_ends_after_max_frames(tmp_path: Path) -> None:
    video = Live()
    assert write_predictions(video, Fake(), CITYSCAPES, tmp_path / "out", max_frames=3).frames == 3
    assert video.stopped.is_set()


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
    with pytest.raises(UserError, match="soon is not a time"):
        predict(film, tmp_path / "new", start="soon")
    with pytest.raises(UserError, match="stride is 0"):
        predict(film, tmp_path / "new", stride=0)
    with pytest.raises(Broken):
        predict(film, tmp_path / "new")


def narrow(folder: Path, fuse: bool = False, legacy: bool = False) -> tuple[VPSNet, Path]:
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
        legacy=legacy,
    )
    network, weights = vpsnet(config, CITYSCAPES).eval(), folder / "narrow.safetensors"
    save_weights(weights, network, RunConfig(name="narrow", network=config))
    return network, weights


def test_the_network_itself_runs_and_answers_at_the_size_of_the_video(film: Path, tmp_path: Path) -> None:
    network, weights = narrow(tmp_path)
    out = tmp_path / "out"
    assert predict(film, out, weights, max_frames=2, device="cpu", precision="float32").frames == 2
    _, stored = read_panoptic_video(out / "panoptic.json", out / "panoptic")
    predictor = VideoPredictor(for_inference(network))
    for image, file in zip(open_video(film), stored):
        expected, read = predictor.step(image), file.frame()
        assert read.size == SIZE
        np.testing.assert_array_equal(read.semantic, expected.semantic)
        np.testing.assert_array_equal(read.instance, expected.instance)


def test_several_frames_at_once_give_the_same(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = narrow(tmp_path)
    at_once: list[int] = []
    forward = VPSNet.forward

    def counted(self: VPSNet, images: Tensor, size: tuple[int, int] | None = None) -> list[Detections]:
        at_once.append(len(images))
        return forward(self, images, size)

    monkeypatch.setattr(VPSNet, "forward", counted)
    for batch in (1, 4):
        predict(film, tmp_path / f"{batch}", weights, device="cpu", precision="float32", batch=batch)
    assert at_once == [1] * 10 + [4, 4, 2]
    for path in sorted((tmp_path / "1").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "4" / path.relative_to(tmp_path / "1")).read_bytes()


def test_tracks_start_anew_at_a_cut_within_a_batch(film: Path, tmp_path: Path) -> None:
    calls: list[str] = []
    looks: list[int] = []
    images = [np.full((*SIZE, 3), value, np.uint8) for value in (30, 30, 220, 220)]
    images[2][:, :30], images[3][:, :30] = (200, 0, 90), (200, 0, 90)
    with write_video(tmp_path / "cut.mp4", 10, SIZE) as write:
        for picture in [i for i in images for _ in range(4)]:
            write(picture)

    def look(images: Sequence[np.ndarray]) -> list[int]:
        looks.append(len(images))
        return [int(image.sum()) for image in images]

    def step(image: np.ndarray, found: int) -> PanopticFrame:
        assert found == image.sum()
        calls.append("step")
        return PanopticFrame(np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32))

    run(
        tmp_path / "cut.mp4",
        tmp_path / "out",
        step,
        restart=lambda: calls.append("restart"),
        ahead=Ahead(look, batch=5),
    )
    assert looks == [5, 5, 5, 1]
    assert calls == ["step"] * 8 + ["restart"] + ["step"] * 8


def test_frames_seen_at_the_same_time_are_followed_in_order(film: Path, tmp_path: Path) -> None:
    both, threads = threading.Barrier(2), torch.get_num_threads()
    seen: list[int] = []
    of_look: set[int] = set()

    def look(images: Sequence[np.ndarray]) -> list[int]:
        both.wait(10)  # two calls at a time, or it breaks
        of_look.add(torch.get_num_threads())
        return [int(image.sum()) for image in images]

    def step(image: np.ndarray, found: int) -> PanopticFrame:
        seen.append(found)
        return still

    torch.set_num_threads(4)
    try:
        still = PanopticFrame(np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.int32))
        assert run(film, tmp_path / "out", step, ahead=Ahead(look, calls=2)).frames == 10
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)
    assert of_look == {2}
    assert seen == [int(image.sum()) for image, _ in open_video(film).frames()]


def test_what_looking_ahead_raises_comes_out(film: Path, tmp_path: Path) -> None:
    def look(images: Sequence[np.ndarray]) -> list[int]:
        raise Broken

    before = set(threading.enumerate())
    with pytest.raises(Broken):
        run(film, tmp_path / "out", Fake(), ahead=Ahead(look, calls=2))
    assert names(tmp_path) == ["film.mp4"]
    assert not still_running(before)


def test_a_cpu_sees_as_many_small_frames_at_once_as_it_has_threads(tmp_path: Path) -> None:
    network, _ = narrow(tmp_path)
    size, threads = network.config.test_size, torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        for height, calls in ((48, 6), (384, 5), (576, 2), (768, 1), (3072, 1)):
            network.config = network.config.model_copy(update={"test_size": (height, height * 4 // 3)})
            assert look_ahead(VideoPredictor(network), Blocks()) == Ahead(ANY, 1, calls)
        network.config = network.config.model_copy(update={"test_size": (384, 512)})
        assert look_ahead(VideoPredictor(network), Blocks(), 2) == Ahead(ANY, 2, 2)
    finally:
        torch.set_num_threads(threads)
        network.config = network.config.model_copy(update={"test_size": size})
    assert look_ahead(VideoPredictor(network), Live()) is None
    fusing, _ = narrow(tmp_path, fuse=True)
    assert look_ahead(VideoPredictor(fusing), Blocks()) is None


def test_compiling_is_for_the_size_and_the_threads_that_are_used(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = narrow(tmp_path)
    seen: list[tuple[torch.Size, int]] = []

    def compile_backbone(network: VPSNet, images: Tensor) -> Gain:
        seen.append((images.shape, torch.get_num_threads()))
        return Gain(10, 0.2, 0.1)

    forward, shapes = VPSNet.forward, set()

    def shaped(self: VPSNet, images: Tensor, size: tuple[int, int] | None = None) -> list[Detections]:
        shapes.add((images.shape, torch.get_num_threads()))
        return forward(self, images, size)

    monkeypatch.setattr("panoptube.predict.compile_backbone", compile_backbone)
    monkeypatch.setattr(VPSNet, "forward", shaped)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        done = predict(film, tmp_path / "out", weights, device="cpu", compile=True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert shapes == set(seen)
    assert len(seen) == 1
    assert done.notes == (str(Gain(10, 0.2, 0.1)),)


def test_published_behaviour_is_not_compiled(film: Path, tmp_path: Path) -> None:
    _, weights = narrow(tmp_path, legacy=True)
    with pytest.raises(UserError, match="only networks of panoptube train are compiled; leave out --compile"):
        predict(film, tmp_path / "out", weights, compile=True)
    assert not (tmp_path / "out").exists()


def test_a_batch_where_frames_come_one_by_one_is_refused(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, fuses = narrow(tmp_path, fuse=True)
    with pytest.raises(UserError, match="batch is 0; give 1 or more"):
        predict(film, tmp_path / "out", fuses, batch=0)
    with pytest.raises(UserError, match="needs the frame before; leave out the batch"):
        predict(film, tmp_path / "out", fuses, batch=2)
    monkeypatch.setattr(panoptube.predict, "open_video", lambda *_: Live())
    with pytest.raises(UserError, match="a live video comes a frame at a time; leave out the batch"):
        predict("rtsp://camera", tmp_path / "out", fuses, batch=2)
    assert not (tmp_path / "out").exists()


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
        assert predict(film, out, weights, max_frames=3, flow=flow, precision="float32").frames == 3
        predictor = VideoPredictor(for_inference(network), flow=source)
        _, stored = read_panoptic_video(out / "panoptic.json", out / "panoptic")
        for image, file in zip(open_video(film), stored):
            np.testing.assert_array_equal(file.frame().semantic, predictor.step(image).semantic)
    assert asked == [("flownet2", tmp_path / "flow.safetensors")]


def test_published_behaviour_is_computed_in_float32(film: Path, tmp_path: Path) -> None:
    _, weights = narrow(tmp_path, legacy=True)
    with pytest.raises(UserError, match="as published, in float32; leave out the precision"):
        predict(film, tmp_path / "out", weights, max_frames=1, precision="bf16")
    assert predict(film, tmp_path / "out", weights, max_frames=1).frames == 1


def test_a_restart_forgets_the_frame_that_is_fused(film: Path, tmp_path: Path) -> None:
    network, _ = narrow(tmp_path, fuse=True)
    first, last = list(open_video(film))[::9]
    restarted, fresh, going_on = (VideoPredictor(network) for _ in range(3))
    for predictor in (restarted, going_on):
        predictor.step(first)
    restarted.restart()
    expected = fresh.step(last).semantic
    np.testing.assert_array_equal(restarted.step(last).semantic, expected)
    assert (going_on.step(last).semantic != expected).any(), "it does make a difference"


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


def test_the_choice_of_frames_reaches_the_video(film: Path, tmp_path: Path) -> None:
    _, weights = narrow(tmp_path)
    out = tmp_path / "out"
    options = {"stride": 2, "start": "0:00:00.2", "end": "0.85", "max_size": 32}
    assert predict(film, out, weights, **options).frames == 4  # type: ignore[arg-type]
    rows = json.loads((out / "panoptic.json").read_text())["annotations"]
    assert [row["time"] for row in rows] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert open_video(out / "overlay.mp4").size == (24, 32)
