"""A video in; out come its panoptic maps, their JSON and an overlay to look at."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import ProgressColumn, Task
from rich.text import Text

from panoptube.cuts import mark_cuts
from panoptube.data.clip import Image
from panoptube.data.new_folder import disk_errors, part_of
from panoptube.errors import UserError
from panoptube.flow.images import ImageFlow, dis_image_flow
from panoptube.network.compiled import compile_backbone
from panoptube.network.exported import ExportedNetwork, is_exported, load_exported
from panoptube.network.inference import Precision, choose_dtype, for_inference
from panoptube.network.vpsnet import Detections, VPSNet
from panoptube.network.weights import load_weights
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, PanopticVideoWriter
from panoptube.panoptic.frame import VOID, PanopticFrame, Taxonomy
from panoptube.predictor import VideoPredictor, network_size
from panoptube.progress import progress_bar
from panoptube.video import Choice, TimedImage, VideoSource, open_video, write_video
from panoptube.view.overlay import OVERLAY_NAME, overlay

AHEAD = 4
"""Frames that may wait before the network, and after it: enough to even out, few enough to fit in memory."""

PIXELS_AT_ONCE = 1 << 20
"""Of small frames that a CPU sees at the same time: together they take the memory of one larger frame."""


@dataclass(frozen=True)
class PredictSummary:
    """What `predict` wrote.

    Attributes:
        out: the folder.
        frames: how many.
        tracks: different track ids.
        seconds: from the first frame to the last file.
        notes: what of the video had to be left out, and what compiling has brought, a sentence each.
        cuts: numbers of the frames that begin a new shot, from 0 in the result.
        void: share of all pixels that have no class, 0..1.
    """

    out: Path
    frames: int
    tracks: int
    seconds: float
    notes: tuple[str, ...]
    cuts: tuple[int, ...] = ()
    void: float = 0.0

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds


GOOD_FOR = (
    "These weights are for streets by day: road, buildings, trees, sky, people, vehicles. "
    "Indoors, at night or from the air they give void or nonsense."
)
"""Of `shipped_weights`, for those who don't name any."""


def shipped_weights() -> Path:
    """The weights that come with panoptube: a small network for street scenes, made for a CPU."""
    return Path(__file__).parent / "weights" / "tiny.safetensors"


def predict(
    source: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
    flow: str | Path | None = None,
    precision: Precision = "auto",
    stride: int = 1,
    start: str | float | None = None,
    end: str | float | None = None,
    max_size: int | None = None,
    cuts: bool = True,
    batch: int = 1,
    compile: bool = False,
) -> PredictSummary:
    """Label every pixel of a video and follow every object.

    Writes `out/overlay.mp4` to look at, and `out/panoptic.json` with `out/panoptic/000000.png`, ... to
    compute with (`panoptube.panoptic.formats`), all at the size of the video. `out` appears when all of it
    is complete. Frames keep their times. A camera or a live stream goes on until it ends or Ctrl-C, which
    keeps what there is; frames that come faster than they are labelled are dropped.

    Args:
        source: video file, folder of pictures, glob of pictures, one picture, address of a stream
            (rtsp://, http://, ...), or number of a camera, such as "0".
        out: new or empty folder.
        weights: what `panoptube train` or `panoptube export` wrote; None takes those that come with
            panoptube.
        fps: frames per second of the source; None takes the video's own times, and 10 for pictures.
        max_frames: stop after this many.
        device: cpu, cuda, cuda:1, mps, or auto for the GPU if there is one.
        overwrite: replace an earlier result in `out` once the new one is complete.
        flow: FlowNet2's weights, such as `panoptube convert` writes, for a network that fuses frames; None
            takes OpenCV's DIS flow.
        precision: of the heavy layers: float32, bf16, fp16 on a GPU, or auto for bf16 on a CPU that is faster
            with it (tried out at the start) and float32 elsewhere.
        stride: take every so many-th frame.
        start: begin here; seconds, or a text such as "0:01:30" (h:mm:ss).
        end: stop here; likewise.
        max_size: shrink larger frames on reading, until the long edge has so many pixels.
        cuts: start tracks anew at a hard cut (`panoptube.cuts`).
        batch: how many frames of a recorded video go through the network at once; results are the same but
            for rounding. It takes the memory of so many frames, and pays where a frame alone leaves a GPU
            idle. On a CPU, small frames are seen at the same time anyway, each by its own threads.
        compile: let torch.compile make the backbone faster, which takes a C++ compiler and up to a minute;
            one of the `notes` says from how many frames on it pays off.

    Raises:
        UserError: the source can't be read, `out` holds something, the weights aren't panoptube's, `flow`
            isn't FlowNet2 or the network doesn't fuse, there is no such device or it can't have this
            precision, `batch` is above 1 for a live video or a network that fuses, the network can't be
            compiled, or the disk is full.
    """
    out = Path(out)
    check_free(out, overwrite)
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames is {max_frames}; give 1 or more, or leave it out for the whole video")
    if batch < 1:
        raise UserError(f"batch is {batch}; give 1 or more")
    video = open_video(source, fps, Choice.of(stride, start, end, max_size))
    if batch > 1 and video.live:
        raise UserError("a live video comes a frame at a time; leave out the batch")
    network, find_flow = load_network(weights, device, flow, precision)
    predictor = VideoPredictor(network, flow=find_flow)
    if batch > 1 and predictor.fuses:
        raise UserError("these weights are of a network that needs the frame before; leave out the batch")
    ahead = look_ahead(predictor, video, batch)
    gain = (_compile(predictor, video.size, ahead),) if compile else ()
    done = write_predictions(
        video,
        predictor.step,
        network.taxonomy,
        out,
        max_frames,
        overwrite,
        predictor.restart if cuts else None,
        ahead=ahead,
    )
    return replace(done, notes=(*done.notes, *gain))


def _compile(predictor: VideoPredictor, size: tuple[int, int], ahead: Ahead | None) -> str:
    """Compiles the predictor's network for frames of `size`; says what that brings."""
    network = predictor.network
    if not isinstance(network, VPSNet) or predictor.legacy:
        raise UserError("only networks of panoptube train are compiled; leave out --compile")
    batch, calls = (1, 1) if ahead is None else ahead[1:]
    with _share_of_threads(calls):
        _, image = predictor.prepare(np.zeros((*size, 3), np.uint8))
        return str(compile_backbone(network, image.expand(batch, *image.shape[1:])))


def load_network(
    weights: str | Path | None, device: str, flow: str | Path | None, precision: Precision
) -> tuple[VPSNet | ExportedNetwork, ImageFlow]:
    """What a `VideoPredictor` takes; may be shared by those of many videos.

    Args:
        weights, device, flow, precision: as in `predict`, which also says what can be wrong.
    """
    if weights is not None and is_exported(Path(weights)):
        if flow is not None:
            raise UserError(f"{weights} uses no flow; leave out {flow}")
        if device not in ("auto", "cpu"):
            raise UserError(
                f"{weights} runs on the CPU; leave out the device, or give weights of panoptube train"
            )
        return load_exported(Path(weights), precision), dis_image_flow
    network, _ = load_weights(shipped_weights() if weights is None else Path(weights))
    where = find_device(device)
    find_flow: ImageFlow = dis_image_flow
    if flow is not None:
        if not network.config.fuse:
            raise UserError(f"these weights are of a network that uses no flow; leave out {flow}")
        from panoptube.flow.learned import flow_network, network_flow  # slow to import

        find_flow = partial(network_flow, flow_network("flownet2", Path(flow)).to(where))
    network = network.to(where)
    if not network.config.legacy:
        network = for_inference(network, choose_dtype(precision, where))
    elif precision not in ("auto", "float32"):
        raise UserError("these weights are computed as published, in float32; leave out the precision")
    return network, find_flow


def find_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU, or the CPU where there is none.

    Raises:
        UserError: PyTorch knows no such device, or this machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # "not compiled with CUDA enabled" is an AssertionError
        raise UserError(
            f"there is no device {name!r} here; use auto or cpu, or cuda with a GPU's PyTorch"
        ) from error
    return device


def check_free(out: Path, overwrite: bool) -> None:
    """Whether a result may be written to `out`. Only results are ever replaced, whatever `overwrite` says.

    Raises:
        UserError: `out` is a file or the current folder, or holds other files, or a result that may not be
            replaced.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; name a folder for the result")
    if out.resolve() == Path.cwd():
        raise UserError(f"{out} is the current folder; name another one for the result")
    there = {p.name for p in out.iterdir()}
    others = sorted(there - {OVERLAY_NAME, JSON_NAME, PNG_FOLDER})
    if others:
        raise UserError(f"{out} holds other files ({others[0]}); name a new folder for the result")
    if there and not overwrite:
        raise UserError(f"{out} holds a result; name another folder, or overwrite it (--overwrite)")


Seen = Sequence[Detections | None]
"""What `Ahead.detect` said of frames; None of those that it was not asked about."""


class Ahead(NamedTuple):
    """How the network sees frames before they are followed.

    Attributes:
        detect: what the network says of frames.
        batch: how many frames it gets at once; the last ones may be fewer.
        calls: how many such calls are made at the same time, each in a thread with its share of PyTorch's
            threads.
    """

    detect: Callable[[Sequence[Image]], Sequence[Detections]]
    batch: int = 1
    calls: int = 1


def look_ahead(predictor: VideoPredictor, video: VideoSource, batch: int = 1) -> Ahead | None:
    """How `write_predictions` is fastest; None if frames must come one by one.

    A layer of a small frame is too little work for several threads to share: on a CPU each of them sees a
    frame of its own.
    """
    if predictor.fuses or video.live:
        return None
    calls = 1
    if isinstance(predictor.network, VPSNet) and predictor.device.type == "cpu":
        height, width = network_size(video.size, predictor.network.config.test_size)
        calls = max(1, min(torch.get_num_threads(), PIXELS_AT_ONCE // (batch * height * width)))
    return Ahead(predictor.detect, batch, calls)


def write_predictions(
    video: VideoSource,
    step: Callable[..., PanopticFrame],
    taxonomy: Taxonomy,
    out: Path,
    max_frames: int | None = None,
    overwrite: bool = False,
    restart: Callable[[], None] | None = None,
    progress: bool = True,
    ahead: Ahead | None = None,
) -> PredictSummary:
    """Run `step` over a video and write what `predict` writes; threads decode and write beside it.

    No frame stays in memory, only its name and where it is in the overlay. If anything fails, or on Ctrl-C,
    `out` stays as it was; but Ctrl-C ends a live video, and what there is of it is written.

    Args:
        video: its frames, in order, are what `step` gets.
        step: (H, W, 3) uint8 RGB -> frame of the same size. With `ahead`, what that says of the frame is its
            second argument.
        taxonomy: what the frames' classes are.
        out, max_frames, overwrite: as in `predict`.
        restart: called before `step` gets the first frame of a new shot; None looks for no cuts.
        progress: show a bar with the time left.
        ahead: see the next frames of a recorded video before `step` follows them, in order; None for a live
            one.

    Raises:
        UserError: `out` holds something, the disk is full, or what `video` and `step` raise.
    """
    check_free(out, overwrite)
    out = out.resolve()
    start = time.perf_counter()
    with disk_errors(out), part_of(out) as part:
        frames, tracks, cuts, void = _run(video, step, taxonomy, part, max_frames, restart, progress, ahead)
    taken = time.perf_counter() - start
    return PredictSummary(out, frames, tracks, taken, tuple(video.notes), tuple(cuts), void)


def _run(
    video: VideoSource,
    step: Callable[..., PanopticFrame],
    taxonomy: Taxonomy,
    folder: Path,
    max_frames: int | None,
    restart: Callable[[], None] | None,
    progress: bool,
    ahead: Ahead | None,
) -> tuple[int, int, list[int], float]:
    """Number of frames and of tracks, the frames that begin a shot, and the share of void pixels."""
    frames = video.frames()
    marked = mark_cuts(frames) if restart is not None else ((frame, False) for frame in frames)
    chosen = iter(islice(marked, max_frames))
    total = min((n for n in (video.length, max_frames) if n is not None), default=None)
    tracks: set[int] = set()
    cuts: list[int] = []
    void: list[float] = []
    with (
        progress_bar(progress, _Speed()) as bar,
        write_video(folder / OVERLAY_NAME, video.fps, video.size) as write_image,
        PanopticVideoWriter(folder, taxonomy) as panoptic,
        ThreadPoolExecutor(1) as decoder,
        ThreadPoolExecutor(1) as painter,
        ThreadPoolExecutor(1) as filer,
        _looking(ahead) as look,
        _stopping(video, frames, decoder),
    ):

        def paint(image: Image, frame: PanopticFrame, shown: float) -> None:
            write_image(overlay(image, frame, taxonomy), shown)

        def file(name: str, frame: PanopticFrame, shown: float, cut: bool) -> None:
            panoptic.write(name, frame, shown, cut)
            tracks.update(frame.tracks())
            void.append(float((frame.semantic == VOID).mean()))

        task = bar.add_task("predict", total=total)
        decoded: deque[Future[tuple[TimedImage, bool] | None]] = deque()
        seen: deque[tuple[list[tuple[TimedImage, bool]], Future[Seen]]] = deque()
        written: deque[Future[None]] = deque()
        batch, calls = (1, 0) if ahead is None else ahead[1:]
        count = 0
        begin: float | None = None
        try:
            while True:
                while len(seen) <= 2 * calls:
                    # Of a live video the newest frame is asked for when it is needed, not before.
                    while len(decoded) < (1 if video.live else AHEAD + batch):
                        decoded.append(decoder.submit(next, chosen, None))
                    came = [item for _ in range(batch) if (item := decoded.popleft().result()) is not None]
                    if not came:
                        break
                    seen.append((came, look([image for (image, _), _ in came])))
                if not seen:
                    break
                came, found = seen.popleft()
                for ((image, shown), cut), said in zip(came, found.result()):
                    if cut and restart is not None:
                        restart()
                    frame = step(image) if said is None else step(image, said)
                    begin = shown if begin is None else begin
                    written.append(painter.submit(paint, image, frame, shown - begin))
                    written.append(filer.submit(file, f"{count:06d}", frame, shown, cut))
                    if cut:
                        cuts.append(count)
                    count += 1
                    while written and (len(written) > 2 * AHEAD or written[0].done()):
                        written.popleft().result()  # waits where writing is slower, raises what it raised
                    bar.advance(task)
        except KeyboardInterrupt:
            if not video.live or not count:
                raise
        for future in written:
            future.result()
    return count, len(tracks), cuts, sum(void) / max(len(void), 1)


@contextmanager
def _looking(ahead: Ahead | None) -> Iterator[Callable[[Sequence[Image]], Future[Seen]]]:
    """Frames -> what was said of each, to come; nothing without `ahead`."""
    if ahead is None:

        def nothing(images: Sequence[Image]) -> Future[Seen]:
            done: Future[Seen] = Future()
            done.set_result([None] * len(images))
            return done

        yield nothing
        return
    detect = ahead.detect
    with _share_of_threads(ahead.calls):
        pool = ThreadPoolExecutor(ahead.calls)
        try:
            yield lambda images: pool.submit(detect, images)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _share_of_threads(calls: int) -> Iterator[None]:
    """Of PyTorch's threads, for each of so many that compute at the same time: this one, and new ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // calls))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _stopping(
    video: VideoSource, frames: Generator[TimedImage, None, None], decoder: ThreadPoolExecutor
) -> Iterator[None]:
    """Ends the reading of a video, so that nothing waits for a frame, and the video's notes are complete."""
    try:
        yield
    finally:
        video.stop()
        decoder.submit(frames.close).result()


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} frames/s" if task.speed else "", style="progress.data.speed")
