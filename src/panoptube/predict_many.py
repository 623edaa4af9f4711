"""Many videos on one machine: worker processes that load the network once, one video at a time each.

A worker that is killed takes the whole of a `ProcessPoolExecutor` with it, and libraries that replace dead
workers give them one queue to share. Here every worker has a pipe of its own: a closed pipe is a dead worker,
and it says whose. The main process loads neither PyTorch nor a network.
"""

from __future__ import annotations

import csv
import glob
import io
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from panoptube.data.new_file import write_text, writing
from panoptube.errors import UserError
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, read_panoptic_video
from panoptube.video import Choice, without_password

if TYPE_CHECKING:
    from panoptube.network.inference import Precision

TABLE = "videos.csv"
LOCK = ".lock"


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


COLUMNS = [field.name for field in fields(VideoRow)]


@dataclass(frozen=True)
class PredictManySummary:
    """What `predict_many` wrote.

    Attributes:
        table: the file with a line for each video.
        videos: those of the list, in its order.
    """

    table: Path
    videos: tuple[VideoRow, ...]

    @property
    def failed(self) -> int:
        """How many of them failed."""
        return sum(row.state == "failed" for row in self.videos)


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
class _Settings:
    """What is the same for all videos; as in `predict`."""

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


def predict_many(
    videos: str | Path,
    out: str | Path,
    workers: int = 1,
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
    progress: bool = True,
) -> PredictManySummary:
    """Label every pixel of many videos; each result is what `predict` would write.

    Writes a folder for each video into `out`, and `out/videos.csv`, anew after every video. A video that
    fails doesn't stop the others. Run again, it leaves out what is finished, whatever the options were, and
    tries again what failed. If a worker is killed, its video is tried once more, by another one.

    A script that calls this needs `if __name__ == "__main__":`, since workers import it.

    Args:
        videos: text file with a source on each line (see `read_list`).
        out: folder of the results.
        workers: processes. Each has the network in memory, and its share of the processor's cores.
        overwrite: replace results in `out`, each once the new one is complete.
        weights, fps, max_frames, device, flow, precision, stride, start, end, max_size, cuts: as in
            `predict`, for every video.
        progress: show a bar with the time left.

    Raises:
        UserError: the list can't be read, an option is wrong, the network can't be loaded, `out` can't be
            written, another run writes to it, a result in it is of another source, or no worker can load
            the network. A fault of one video is in the table instead.
        KeyboardInterrupt: on Ctrl-C, with a line that says what is finished.
    """
    out = Path(out)
    listed = read_list(videos)
    if workers < 1:
        raise UserError(f"{workers} workers asked for; ask for 1 or more")
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames is {max_frames}; give 1 or more, or leave it out for whole videos")
    settings = _Settings(
        out.resolve(),
        None if weights is None else Path(weights),
        fps,
        max_frames,
        device,
        overwrite,
        None if flow is None else Path(flow),
        precision,
        Choice.of(stride, start, end, max_size),
        cuts,
        max(_cores() // workers, 1),
    )
    lock = FileLock(out / LOCK, timeout=0)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"another run is writing to {out}; wait for it, or name another folder"
            ) from error
    try:
        return _label(listed, out, workers, settings, progress)
    finally:
        lock.release()


def _label(
    listed: list[Listed], out: Path, workers: int, settings: _Settings, progress: bool
) -> PredictManySummary:
    """Does what is to be done of the list, in an `out` of its own."""
    table = _Table(out)
    todo = [video for video in listed if settings.overwrite or not table.has(video)]
    _remove_unfinished(out, todo)
    finished = failed = 0
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # A video may take hours, and the speed is that of all so far.
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=1e9,
        disable=not progress,
    )
    try:
        with bar:
            task = bar.add_task("predict", total=len(listed), completed=len(listed) - len(todo))

            def record(row: VideoRow) -> None:
                nonlocal finished, failed
                table.put(row)
                finished += row.state == "done"
                failed += row.state == "failed"
                bar.update(task, advance=1, description=f"predict ({failed} failed)" if failed else "predict")

            _work_off(deque(todo), workers, settings, record)
    except KeyboardInterrupt as error:
        count = len(listed) - len(todo) + finished
        raise KeyboardInterrupt(
            f"{count} of {len(listed)} videos are finished in {out}; the same command goes on"
        ) from error
    return PredictManySummary(table.path, tuple(table.rows[video.folder] for video in listed))


def read_list(path: str | Path) -> list[Listed]:
    """The videos of a text file: one source a line, as `predict` takes them; blank lines and # lines apart.

    Paths are relative to the file's folder. A result is called as its source: `drives/day 1.mp4` as
    `drives-day-1`. So its name depends on nothing else in the list, and more can be added.

    Raises:
        UserError: no such file, not text, nothing in it, or two lines whose results would have one name.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not a list of videos (not UTF-8 text); give one, or the video to panoptube predict"
        ) from error
    except OSError as error:
        raise UserError(
            f"can't read {path}: {error.strerror}; give a text file with a video a line"
        ) from error
    lines = [line.strip() for line in text.splitlines()]
    folder = Path(os.path.abspath(path)).parent
    videos = [_listed(line, folder) for line in lines if line and not line.startswith("#")]
    if not videos:
        raise UserError(f"{path} lists no video; write one a line")
    names: dict[str, str] = {TABLE: TABLE}
    for video in videos:
        key = video.folder.casefold()  # some disks don't tell upper case from lower
        if not key:
            raise UserError(f"{path}: {video.shown} has no name to call its result by; rename it")
        if key in names:
            raise UserError(
                f"{path}: the results of {names[key]} and {video.shown} would both be called "
                f"{video.folder}; rename one, or take it into another list"
            )
        names[key] = video.shown
    return videos


def _listed(line: str, folder: Path) -> Listed:
    """A line of a list that lies in `folder`."""
    place = Path(os.path.abspath(folder / Path(line).expanduser()))
    if "://" in line or (line.isdigit() and not place.exists()):
        source, shown, name = line, without_password(line), without_password(line).split("://")[-1]
    else:
        source = shown = str(place)
        if glob.has_magic(line) and not place.exists():  # only the line's own signs are a pattern
            source = str(Path(glob.escape(str(folder))) / line)
        name = str(place.relative_to(folder) if place.is_relative_to(folder) else place)
    name = re.sub(r"\.(?=\w*[A-Za-z])\w{1,5}$", "", name)
    return Listed(source, shown, re.sub(r"[^\w.]+", "-", name).strip("-."))


class _Table:
    """videos.csv; lines of videos that aren't in the present list stay.

    Raises:
        UserError: on creation, there is one that isn't of this form.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / TABLE
        self.rows: dict[str, VideoRow] = {}
        if not self.path.exists():
            return
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                if reader.fieldnames != COLUMNS:
                    raise ValueError(reader.fieldnames)
                for line in reader:
                    row = _row(line)
                    self.rows[row.folder] = row
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise UserError(f"{self.path} is not a table of results; move it away and run again") from error

    def has(self, video: Listed) -> bool:
        """Whether the result is there and complete; then it has a row, too.

        Raises:
            UserError: it is the result of another source, or broken.
        """
        folder = self.out / video.folder
        if not (folder / JSON_NAME).is_file():
            return False
        row = self.rows.get(video.folder)
        if row is not None and row.source != video.shown:
            raise UserError(
                f"{folder} is the result of {row.source}, not of {video.shown}; name another folder for these"
            )
        if row is None or row.state == "failed":  # the run was stopped just then
            _, frames = read_panoptic_video(folder / JSON_NAME, folder / PNG_FOLDER)
            tracks = {s.track_id for frame in frames for s in frame.segments} - {None}
            self.put(VideoRow(video.shown, video.folder, "done", len(frames), len(tracks)))
        return True

    def put(self, row: VideoRow) -> None:
        """Adds or replaces a line, on disk too; the file is never half written.

        Raises:
            UserError: it can't be written.
        """
        self.rows[row.folder] = row
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows.values())
        write_text(self.path, text.getvalue())


def _row(line: dict[str, Any]) -> VideoRow:
    if line["state"] not in ("done", "failed"):
        raise ValueError(line["state"])
    return VideoRow(
        **line
        | {
            "frames": int(line["frames"]) if line["frames"] else None,
            "tracks": int(line["tracks"]) if line["tracks"] else None,
            "seconds": float(line["seconds"]) if line["seconds"] else None,
        }
    )


class _Worker:
    """A process with the network, this end of its pipe, and the video that it is at.

    It answers None once it has loaded the network, or the UserError why it can't; then a row for each video.
    """

    def __init__(self, settings: _Settings) -> None:
        # Forked processes can't use the threads that OpenCV has started.
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_work, args=(theirs, settings), daemon=True)
        self.process.start()
        theirs.close()
        self.out = settings.out
        self.ready = False
        self.video: Listed | None = None

    def give(self, video: Listed) -> None:
        self.video = video
        with suppress(OSError):  # it has died: so says its pipe when it is read next
            self.pipe.send(video)

    def end(self) -> None:
        """Ends it at once, and removes what it has half written."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if self.video is not None:
            part = self.out / f".{self.video.folder}.{self.process.pid}.part"
            shutil.rmtree(part, ignore_errors=True)


def _work_off(
    todo: deque[Listed], workers: int, settings: _Settings, record: Callable[[VideoRow], None]
) -> None:
    """Lets `workers` do all videos, and calls `record` for each as it is done or has failed.

    Raises:
        UserError: the network can't be loaded.
    """
    crew: list[_Worker] = []
    tried: set[Listed] = set()
    try:
        while len(crew) < min(workers, len(todo)):
            crew.append(_Worker(settings))
        while crew:
            for pipe in connection.wait([worker.pipe for worker in crew]):
                worker = next(worker for worker in crew if worker.pipe is pipe)
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    crew.remove(worker)
                    _bury(worker, todo, tried, record)
                    if todo and worker.ready:
                        crew.append(_Worker(settings))
                    elif todo and not crew:
                        raise UserError(
                            "no worker lives until it has loaded the network, perhaps for lack of memory; "
                            "take fewer workers and run it again to go on"
                        ) from None
                    continue
                if isinstance(answer, UserError):
                    raise answer
                worker.ready, worker.video = True, None
                if answer is not None:
                    record(answer)
                if todo:
                    worker.give(todo.popleft())
                else:
                    crew.remove(worker)
                    worker.end()
    finally:
        for worker in crew:
            worker.end()


def _bury(
    worker: _Worker, todo: deque[Listed], tried: set[Listed], record: Callable[[VideoRow], None]
) -> None:
    """The video of a dead worker is the next one, or has failed if this was the second time."""
    video = worker.video
    worker.end()
    if video is None:
        return
    if video not in tried:
        tried.add(video)
        todo.appendleft(video)
        return
    code = worker.process.exitcode or 0
    how = f"was killed (signal {-code})" if code < 0 else f"ended with exit code {code}"
    note = f"its worker {how}, twice, perhaps for lack of memory; take fewer workers or a smaller max_size"
    record(VideoRow(video.shown, video.folder, "failed", note=note))


def _work(pipe: Connection, settings: _Settings) -> None:
    """The life of a worker."""
    # Ctrl-C reaches the workers, too; it is for the main process to stop them. This comes before what takes
    # seconds to import.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    import cv2
    import torch

    from panoptube.predict import load_network, write_predictions
    from panoptube.predictor import VideoPredictor
    from panoptube.prepare import end_with_parent
    from panoptube.video import open_video

    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(settings.threads)
    cv2.setNumThreads(settings.threads)
    try:
        network, flow = load_network(settings.weights, settings.device, settings.flow, settings.precision)
    except UserError as error:
        pipe.send(error)
        return
    pipe.send(None)
    while True:
        video: Listed = pipe.recv()
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
            )
        except Exception as error:  # whatever it is, the other videos are to be done
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            note = " ".join(f"{kind}{error}".split())
            pipe.send(VideoRow(video.shown, video.folder, "failed", note=note))
        else:
            note = "; ".join(done.notes)
            taken = round(done.seconds, 3)
            pipe.send(VideoRow(video.shown, video.folder, "done", done.frames, done.tracks, taken, note))


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _remove_unfinished(out: Path, videos: Iterable[Listed]) -> None:
    """What a run that was killed had half written of these videos."""
    names = {video.folder for video in videos}
    for path in out.iterdir():
        match = re.fullmatch(r"\.(.+)\.[0-9]+\.part", path.name)
        if match and match[1] in names:
            shutil.rmtree(path, ignore_errors=True)
