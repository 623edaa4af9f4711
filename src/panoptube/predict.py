"""A video in; out come its panoptic maps, their JSON and an overlay to look at."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from panoptube.data.clip import Image
from panoptube.data.new_folder import install
from panoptube.errors import UserError
from panoptube.flow.images import ImageFlow, dis_image_flow
from panoptube.network.weights import load_weights
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, PanopticVideoWriter
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.predictor import VideoPredictor
from panoptube.video import VideoSource, open_video, write_video
from panoptube.view.overlay import overlay

OVERLAY_NAME = "overlay.mp4"
AHEAD = 4
"""Frames that may wait before the network, and after it: enough to even out, few enough to fit in memory."""


@dataclass(frozen=True)
class PredictSummary:
    """What `predict` wrote.

    Attributes:
        out: the folder.
        frames: how many.
        tracks: different track ids.
        seconds: from the first frame to the last file.
        notes: what of the video had to be left out, a sentence each.
    """

    out: Path
    frames: int
    tracks: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds


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
) -> PredictSummary:
    """Label every pixel of a video and follow every object.

    Writes `out/overlay.mp4` to look at, and `out/panoptic.json` with `out/panoptic/000000.png`, ... to
    compute with (`panoptube.panoptic.formats`), all at the size of the video. `out` appears when all of it
    is complete.

    Args:
        source: video file, folder of pictures, glob of pictures, or one picture.
        out: new or empty folder.
        weights: what `panoptube train` wrote; None takes those that come with panoptube.
        fps: frames per second; None takes the video's own, and 10 for pictures.
        max_frames: stop after this many.
        device: cpu, cuda, cuda:1, mps, or auto for the GPU if there is one.
        overwrite: replace an earlier result in `out` once the new one is complete.
        flow: FlowNet2's weights, such as `panoptube convert` writes, for a network that fuses frames; None
            takes OpenCV's DIS flow.

    Raises:
        UserError: the source can't be read, `out` holds something, the weights aren't panoptube's, `flow`
            isn't FlowNet2 or the network doesn't fuse, there is no such device, or the disk is full.
    """
    out = Path(out)
    check_free(out, overwrite)
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames is {max_frames}; give 1 or more, or leave it out for the whole video")
    video = open_video(source, fps)
    network, _ = load_weights(shipped_weights() if weights is None else Path(weights))
    where = find_device(device)
    find_flow: ImageFlow = dis_image_flow
    if flow is not None:
        if not network.config.fuse:
            raise UserError(f"these weights are of a network that uses no flow; leave out {flow}")
        from panoptube.flow.learned import flow_network, network_flow  # slow to import

        find_flow = partial(network_flow, flow_network("flownet2", Path(flow)).to(where))
    predictor = VideoPredictor(network.to(where), flow=find_flow)
    return write_predictions(video, predictor.step, network.taxonomy, out, max_frames, overwrite)


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


def write_predictions(
    video: VideoSource,
    step: Callable[[Image], PanopticFrame],
    taxonomy: Taxonomy,
    out: Path,
    max_frames: int | None = None,
    overwrite: bool = False,
) -> PredictSummary:
    """Run `step` over a video and write what `predict` writes; threads decode and write beside it.

    Memory doesn't grow with the video. If anything fails, or on Ctrl-C, `out` stays as it was.

    Args:
        video: its frames, in order, are what `step` gets.
        step: (H, W, 3) uint8 RGB -> frame of the same size.
        taxonomy: what the frames' classes are.
        out, max_frames, overwrite: as in `predict`.

    Raises:
        UserError: `out` holds something, the disk is full, or what `video` and `step` raise.
    """
    check_free(out, overwrite)
    out = out.resolve()
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    start = time.perf_counter()
    try:
        part.mkdir(parents=True)
        frames, tracks = _run(video, step, taxonomy, part, max_frames)
        install(part, out)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise UserError(
            f"{out} can't be written: {error.strerror}; make room or name another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return PredictSummary(out, frames, tracks, time.perf_counter() - start, tuple(video.notes))


def _run(
    video: VideoSource,
    step: Callable[[Image], PanopticFrame],
    taxonomy: Taxonomy,
    folder: Path,
    max_frames: int | None,
) -> tuple[int, int]:
    """Number of frames and of tracks."""
    images = iter(islice(video, max_frames))
    total = min((n for n in (video.length, max_frames) if n is not None), default=None)
    tracks: set[int] = set()
    with (
        _bar() as bar,
        write_video(folder / OVERLAY_NAME, video.fps, video.size) as write_image,
        PanopticVideoWriter(folder, taxonomy) as panoptic,
        ThreadPoolExecutor(1) as decoder,
        ThreadPoolExecutor(1) as painter,
        ThreadPoolExecutor(1) as filer,
    ):

        def paint(image: Image, frame: PanopticFrame) -> None:
            write_image(overlay(image, frame, taxonomy))

        def file(name: str, frame: PanopticFrame) -> None:
            panoptic.write(name, frame)
            tracks.update(np.unique(frame.instance).tolist())

        task = bar.add_task("predict", total=total)
        ahead: deque[Future[Image | None]] = deque(decoder.submit(next, images, None) for _ in range(AHEAD))
        written: deque[Future[None]] = deque()
        count = 0
        while (image := ahead.popleft().result()) is not None:
            ahead.append(decoder.submit(next, images, None))
            frame = step(image)
            written.append(painter.submit(paint, image, frame))
            written.append(filer.submit(file, f"{count:06d}", frame))
            while written and (len(written) > 2 * AHEAD or written[0].done()):
                written.popleft().result()  # waits where writing is slower, and raises what it raised
            count += 1
            bar.advance(task)
        for future in written:
            future.result()
    return count, len(tracks - {0})


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} frames/s" if task.speed else "", style="progress.data.speed")


def _bar() -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
