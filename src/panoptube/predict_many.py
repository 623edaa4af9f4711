"""Many videos, their list and the table of what became of them.

The work is done by processes of this machine (`many/processes.py`) or on a cluster (`many/cluster.py`). The
main process loads neither PyTorch nor a network.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import re
from collections import deque
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from panoptube.data.new_file import write_text, writing
from panoptube.errors import UserError
from panoptube.many import cluster, processes
from panoptube.many.task import Listed, Settings, VideoRow, remove_unfinished
from panoptube.panoptic.formats import JSON_NAME, PNG_FOLDER, read_panoptic_video
from panoptube.progress import progress_bar
from panoptube.video import Choice, without_password

if TYPE_CHECKING:
    from panoptube.network.inference import Precision

TABLE = "videos.csv"
LOCK = ".lock"
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
    ray: str | None = None,
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
        ray: address of a Ray cluster that shall do the work, `workers` videos at a time, as `ray.init` takes
            it, or local to start Ray on this machine. Its machines need panoptube, and the same paths for
            videos, weights and `out`. None for processes of this machine.
        progress: show a bar with the time left.

    Raises:
        UserError: the list can't be read, an option is wrong, the network can't be loaded, `out` can't be
            written, another run writes to it, a result in it is of another source, no worker can load the
            network, or Ray doesn't answer. A fault of one video is in the table instead.
        KeyboardInterrupt: on Ctrl-C, with a line that says what is finished.
    """
    out = Path(out)
    listed = read_list(videos)
    if workers < 1:
        raise UserError(f"{workers} workers asked for; ask for 1 or more")
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames is {max_frames}; give 1 or more, or leave it out for whole videos")
    settings = Settings(
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
        return _label(listed, out, workers, settings, ray, progress)
    finally:
        lock.release()


def _label(
    listed: list[Listed], out: Path, workers: int, settings: Settings, ray: str | None, progress: bool
) -> PredictManySummary:
    """Does what is to be done of the list, in an `out` of its own."""
    table = _Table(out)
    todo = [video for video in listed if settings.overwrite or not table.has(video)]
    remove_unfinished(out, todo)
    finished = failed = 0
    try:
        # A video may take hours, and the speed is that of all so far.
        with progress_bar(progress, period=1e9) as bar:
            task = bar.add_task("predict", total=len(listed), completed=len(listed) - len(todo))

            def record(row: VideoRow) -> None:
                nonlocal finished, failed
                table.put(row)
                finished += row.state == "done"
                failed += row.state == "failed"
                bar.update(task, advance=1, description=f"predict ({failed} failed)" if failed else "predict")

            if ray is None:
                processes.work_off(deque(todo), workers, settings, record)
            elif todo:
                cluster.work_off(deque(todo), workers, settings, record, ray)
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


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
