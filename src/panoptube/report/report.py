"""A result in; out comes a page to look through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from panoptube.data.files import read_json
from panoptube.data.new_file import write_text
from panoptube.errors import UserError
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, read_panoptic_video
from panoptube.progress import progress_bar
from panoptube.report.film import frame_times, read_film
from panoptube.report.page import make_page
from panoptube.report.summary import summarise
from panoptube.view.overlay import OVERLAY_NAME


@dataclass(frozen=True)
class ReportSummary:
    """What `report` wrote: the page `out`, about so many frames and tracks."""

    out: Path
    frames: int
    tracks: int


def report(
    result: str | Path, out: str | Path | None = None, overwrite: bool = False, progress: bool = True
) -> ReportSummary:
    """Write one HTML page of what `panoptube predict` wrote: video, timeline of tracks, amounts over time.

    The page needs nothing else: no network, no other file. It appears when it is complete.

    Args:
        result: folder with overlay.mp4, panoptic.json and panoptic/.
        out: file to make; None for one beside the folder, of its name.
        overwrite: replace `out`.
        progress: show a bar with the time left.

    Raises:
        UserError: there is no such result, or a part of it is missing or broken; `out` exists or can't be
            written.
    """
    result = Path(result)
    out = _beside(result) if out is None else Path(out)
    if not (result / JSON_NAME).is_file():
        raise UserError(f"{result} holds no {JSON_NAME}; name a folder that `panoptube predict` wrote")
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file for the page, such as {out / 'report.html'}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists; name another file, or overwrite it (--overwrite)")
    taxonomy, frames = read_panoptic_video(result / JSON_NAME, result / PNG_FOLDER)
    film = result / OVERLAY_NAME
    shown = frame_times(film)
    if len(shown) != len(frames) + 1:
        raise UserError(
            f"{film} has {len(shown) - 1} frames, {JSON_NAME} has {len(frames)}; predict the video again"
        )
    times = _times(result / JSON_NAME, shown)
    with progress_bar(progress, "frames") as bar:
        summary = summarise(bar.track(frames, description="read the frames"), taxonomy)
        video = read_film(film, shown[-1], bar)
    write_text(out, make_page(result.resolve().name, summary, shown, times, video))
    return ReportSummary(out, len(frames), len(summary.tracks))


def _beside(result: Path) -> Path:
    """Not inside: `panoptube predict --overwrite` replaces only folders that hold nothing but a result."""
    folder = result if result.name not in ("", "..") else result.resolve()
    return folder.parent / f"{folder.name}.html"


@dataclass(slots=True)
class _Annotation:
    time: float | None = None


@dataclass(slots=True)
class _File:
    annotations: list[_Annotation]


_FILE = TypeAdapter(_File)


def _times(path: Path, shown: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T + 1,) seconds of the frames in the original video, and its end; the JSON's if it has them."""
    found = [a.time for a in read_json(path, _FILE).annotations if a.time is not None]
    if len(found) != len(shown) - 1:
        return shown
    times = np.array([*found, found[-1] + shown[-1] - shown[-2]])
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise UserError(f"{path}: the times of the frames don't increase; predict the video again")
    return times
