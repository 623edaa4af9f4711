"""Frames per second and peak memory of weights files, each measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from rich.console import Console
from rich.progress import track

from panoptube.errors import UserError

FRAMES = 20
"""Frames that are timed, after `WARM_UP`."""
WARM_UP = 3
STREET = 3
"""Seed of the street that is shown; never trained on."""


@dataclass(frozen=True)
class Speed:
    """What a network takes to label a video.

    Attributes:
        fps: frames per second, from the median of the frames' times; image in, labelled frame out.
        memory: MiB at most, on a GPU of PyTorch's tensors, elsewhere of the whole process.
        size: (height, width) of the frames.
        machine: what it was measured on.
    """

    fps: float
    memory: float
    size: tuple[int, int]
    machine: str


def measure_speeds(
    weights: Mapping[str, Path],
    size: tuple[int, int],
    device: str = "cpu",
    frames: int = FRAMES,
    console: Console | None = None,
) -> dict[str, Speed]:
    """Of weights files on a synthetic street, frame by frame in turns, so that other work meets all alike.

    Args:
        weights: what `panoptube train` wrote, by name.
        size: (height, width) of the frames.
        device: as torch names it; all networks are on it at the same time.
        frames: how many are timed.
        console: where progress goes; standard error if None.

    Raises:
        UserError: a process ended; its own message is on standard error.
    """
    # Fresh interpreters, so that no peak contains what was computed before.
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    seconds: dict[str, list[float]] = {name: [] for name in weights}
    found = {}
    with ExitStack() as stack:
        for name, path in weights.items():
            pipes[name], theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(path, size, device, frames, theirs), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.kill)
        try:
            for _ in track(range(WARM_UP + frames), "frames/s", console=console or Console(stderr=True)):
                for name, pipe in pipes.items():
                    pipe.send(None)
                    seconds[name].append(pipe.recv())
            for name, pipe in pipes.items():
                memory, machine = pipe.recv()
                found[name] = Speed(1 / statistics.median(seconds[name][WARM_UP:]), memory, size, machine)
        except (EOFError, OSError) as error:
            raise UserError(
                f"the speed of {weights[name]} can't be measured; free memory, or give --no-speed"
            ) from error
    return found


def _serve(weights: Path, size: tuple[int, int], device: str, frames: int, pipe: Connection) -> None:
    """Labels a frame for each request and answers its seconds; at the end the peak and the machine."""
    import torch

    from panoptube.data.streets import street_clip
    from panoptube.network.weights import load_weights
    from panoptube.predictor import VideoPredictor

    network, _ = load_weights(weights)
    predictor = VideoPredictor(network.to(device))
    clip = street_clip(STREET, frames=WARM_UP + frames, size=size)
    for t in range(len(clip)):
        image = clip.image(t)
        pipe.recv()
        begin = time.perf_counter()
        predictor.step(image)  # its result is on the CPU, so that a GPU has finished
        pipe.send(time.perf_counter() - begin)
    if torch.device(device).type == "cuda":
        machine, memory = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device) / 2**20
    else:
        machine, memory = f"{processor()}, threads: {torch.get_num_threads()}", peak_mib()
    pipe.send((memory, f"{machine}, PyTorch {torch.__version__}"))


def processor() -> str:
    """The name of this machine's processor."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_mib() -> float:
    """Of this process. Linux's `VmHWM` starts anew with the program, unlike the maximum of getrusage."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    import resource
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
