"""What one video of many is, what becomes of it, and the work in between, wherever it is done."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from panoptube.errors import UserError
from panoptube.video import Choice, open_video

if TYPE_CHECKING:
    from panoptube.flow.images import ImageFlow
    from panoptube.network.exported import ExportedNetwork
    from panoptube.network.inference import Precision
    from panoptube.network.vpsnet import VPSNet


@dataclass(frozen=True)
class VideoRow:
    """One video, a line of videos.csv.

    Attributes:
        source: path, pattern, or address without password.
        folder: name of its result's folder.
        state: done or failed.
        frames: how many were written; None if it failed.
        tracks: different track ids; None if it failed.
        seconds: from the first frame to the last file; None if it failed, or for a result that an
            interrupted run completed but had no time to note.
        note: why it failed, or what of the video had to be left out; one line, or nothing.
    """

    source: str
    folder: str
    state: Literal["done", "failed"]
    frames: int | None = None
    tracks: int | None = None
    seconds: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Listed:
    """A line of a list of videos.

    Attributes:
        source: what `open_video` takes.
        shown: the same without password.
        folder: name of its result's folder.
    """

    source: str
    shown: str
    folder: str


@dataclass(frozen=True)
class Settings:
    """What is the same for all videos; as in `predict`.

    Attributes:
        out: folder of the results' folders; absolute.
        threads: of the processor, for each video.
    """

    out: Path
    weights: Path | None
    fps: float | None
    max_frames: int | None
    device: str
    overwrite: bool
    flow: Path | None
    precision: Precision
    choice: Choice
    cuts: bool
    threads: int


@lru_cache(maxsize=1)
def load(settings: Settings) -> tuple[VPSNet | ExportedNetwork, ImageFlow]:
    """The network and its flow, once per process.

    Raises:
        UserError: it can't be loaded.
    """
    import cv2
    import torch

    from panoptube.predict import load_network

    torch.set_num_threads(settings.threads)
    cv2.setNumThreads(settings.threads)
    return load_network(settings.weights, settings.device, settings.flow, settings.precision)


def label(video: Listed, settings: Settings) -> VideoRow:
    """Labels a video with what `load` has loaded; whatever goes wrong with it is in the row."""
    from panoptube.predict import look_ahead, write_predictions
    from panoptube.predictor import VideoPredictor

    network, flow = load(settings)
    try:
        source = open_video(video.source, settings.fps, settings.choice)
        predictor = VideoPredictor(network, flow=flow)
        done = write_predictions(
            source,
            predictor.step,
            network.taxonomy,
            settings.out / video.folder,
            settings.max_frames,
            settings.overwrite,
            predictor.restart if settings.cuts else None,
            progress=False,
            ahead=look_ahead(predictor, source),
        )
    except Exception as error:  # whatever it is, the other videos are to be done
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return VideoRow(video.shown, video.folder, "failed", note=" ".join(f"{kind}{error}".split()))
    taken, note = round(done.seconds, 3), "; ".join(done.notes)
    return VideoRow(video.shown, video.folder, "done", done.frames, done.tracks, taken, note)


def remove_unfinished(out: Path, videos: Iterable[Listed]) -> None:
    """Removes what processes that were killed had half written of these videos."""
    names = {video.folder for video in videos}
    for path in out.iterdir():
        match = re.fullmatch(r"\.(.+)\.[0-9]+\.part", path.name)
        if match and match[1] in names:
            shutil.rmtree(path, ignore_errors=True)
