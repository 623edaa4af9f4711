"""Many videos on a Ray cluster: one task each, wherever there is room."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from panoptube.errors import UserError
from panoptube.many.task import Listed, Settings, VideoRow, label, load, remove_unfinished
from panoptube.panoptic.formats import JSON_NAME

STOPPING = 10
"""Seconds that tasks get to end when all is stopped."""


def work_off(
    todo: deque[Listed],
    workers: int,
    settings: Settings,
    record: Callable[[VideoRow], None],
    address: str,
) -> None:
    """Lets the cluster do all videos, `workers` at a time; calls `record` for each that is done or failed.

    A task that dies with its worker, or with its machine, is tried once more.

    Args:
        settings: its `threads` are replaced by a share of the cluster's cores.
        address: as `ray.init` takes it: auto, HOST:PORT, ray://HOST:PORT; or local, to start Ray on this
            machine for the time of this run.

    Raises:
        UserError: Ray isn't installed or doesn't answer, its machines can't load panoptube or the network, or
            don't write to the folder that is seen here.
    """
    with _connected(address) as ray:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores, gpus = (int(sum(m.get(kind, 0) for m in machines)) for kind in ("CPU", "GPU"))
        threads = max(1, min(cores // workers, int(max(m.get("CPU", 0) for m in machines))))
        task = ray.remote(_label).options(
            num_cpus=threads,
            num_gpus=0 if settings.device == "cpu" else min(1, gpus / workers),
            max_retries=0,
        )
        settings = replace(settings, threads=threads)
        running: dict[Any, Listed] = {}
        tried: set[Listed] = set()
        try:
            while todo or running:
                while todo and len(running) < workers:
                    video = todo.popleft()
                    running[task.remote(video, settings)] = video
                for reference in ray.wait(list(running))[0]:
                    video = running.pop(reference)
                    try:
                        answer: VideoRow | UserError = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise UserError(
                            f"the cluster can't run panoptube ({_line(error.cause)}); install the same "
                            "version of it on all machines"
                        ) from error
                    except ray.exceptions.RayError as error:
                        remove_unfinished(settings.out, [video])
                        if video in tried:
                            note = f"its worker died, twice, perhaps for lack of memory ({_line(error)})"
                            record(VideoRow(video.shown, video.folder, "failed", note=note))
                        else:
                            tried.add(video)
                            todo.appendleft(video)
                        continue
                    if isinstance(answer, UserError):
                        raise answer
                    if answer.state == "done" and not (settings.out / video.folder / JSON_NAME).is_file():
                        raise UserError(
                            f"a machine of the cluster wrote {settings.out / video.folder}, which isn't "
                            "here; name a folder on a disk that all machines share"
                        )
                    record(answer)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=STOPPING)
                remove_unfinished(settings.out, running.values())


def _label(video: Listed, settings: Settings) -> VideoRow | UserError:
    """The task; Ray keeps the process, and so the network, for the next."""
    try:
        load(settings)
    except UserError as error:
        return error
    return label(video, settings)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Gives Ray, connected while entered.

    Raises:
        UserError: it isn't installed, or doesn't answer.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError('a cluster needs ray; pip install "panoptube[ray]"')
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    import ray

    start: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR", **start)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"Ray does not answer at {address} ({_line(error)}); start it, or say local"
        ) from error
    try:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray's own would end this process in between
                signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()


def _line(error: object) -> str:
    return " ".join(str(error).split())[:200]
