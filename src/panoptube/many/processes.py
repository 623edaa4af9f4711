"""Many videos on one machine: processes that load the network once, one video at a time each.

A worker that is killed takes the whole of a `ProcessPoolExecutor` with it, and libraries that replace dead
workers give them one queue to share. Here every worker has a pipe of its own: a closed pipe is a dead worker,
and it says whose.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.connection import Connection

from panoptube.errors import UserError
from panoptube.many.task import Listed, Settings, VideoRow


class _Worker:
    """A process with the network, this end of its pipe, and the video that it is at.

    It answers None once it has loaded the network, or the UserError why it can't; then a row for each video.
    """

    def __init__(self, settings: Settings) -> None:
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


def work_off(
    todo: deque[Listed], workers: int, settings: Settings, record: Callable[[VideoRow], None]
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


def _work(pipe: Connection, settings: Settings) -> None:
    """The life of a worker."""
    # Ctrl-C reaches the workers, too; it is for the main process to stop them. This comes before what takes
    # seconds to import.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    from panoptube.many.task import label, load
    from panoptube.prepare import end_with_parent

    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        load(settings)
    except UserError as error:
        pipe.send(error)
        return
    pipe.send(None)
    while True:
        pipe.send(label(pipe.recv(), settings))
