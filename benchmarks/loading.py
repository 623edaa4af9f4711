"""How fast training pairs come from disk, and where the time goes.

    python benchmarks/loading.py [--recipe siamtrack] [--pairs 16] [--json FILE]

Writes two busy synthetic streets of 1024 x 2048 in the layout of Cityscapes-VPS:

* stages: pairs are drawn in this process by `PairDataset` with the recipe's resize, crop and flip, without
  flow, and handed on as a worker does. CPU seconds by stage, each without the stages it calls. Files are in
  the operating system's cache.
* flow: the same with DIS flow of the crops.
* worker: pairs from one process of `load_batches`, as training gets them: pairs/s by the clock, CPU seconds a
  pair, and the process's largest resident memory, which should stay below 1 GB. Linux only.

One thread each, so a rate is that of a core. CPU time changes little with what else a machine does, but not
nothing: caches and memory are shared.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from panoptube.config import RunConfig
from panoptube.data import cityscapes_vps, pairs, transforms
from panoptube.data.cityscapes_vps import LENGTH
from panoptube.data.clip import Clip
from panoptube.data.pairs import PairDataset, collate, load_batches
from panoptube.data.streets import street_clip
from panoptube.data.write_layouts import CITYSCAPES_FRAMES, write_dataset
from panoptube.panoptic.frame import PanopticFrame
from panoptube.recipes import load_run

Result = TypeVar("Result")

STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "decode images": ((cityscapes_vps, "read_image"),),
    "decode labels": ((cityscapes_vps, "read_colors"), (cityscapes_vps, "read_gray")),
    "labels to frame": ((cityscapes_vps, "read_label"),),
    "check frame": ((PanopticFrame, "check"), (PanopticFrame, "__post_init__")),
    "resize, crop images": ((transforms.Geometry, "image"),),
    "resize, crop labels": ((transforms.Geometry, "labels"),),
    "colours": ((transforms.Photometric, "__call__"),),
    "normalise": ((pairs, "normalize"),),
    "masks, boxes": ((pairs, "frame_targets"),),
    "flow": ((pairs, "dis_image_flow"),),
}
"""What runs in each: a module or class, and the function in it."""
ON = "collate, hand on"
REST = "the rest"
WARM = 2
"""Pairs drawn before measuring."""


# --- the set ----------------------------------------------------------------------------------------------


def draw_set(root: Path, clips: int, size: tuple[int, int]) -> None:
    """The split "train" of Cityscapes-VPS, of streets; images that no pair has are grey."""

    def draw() -> Iterator[tuple[str, Clip]]:
        for seed in track(range(clips), "draw", console=Console(stderr=True)):
            street = street_clip(seed, LENGTH, size, difficulty=1.0)

            def image(t: int, street: Clip = street) -> NDArray[np.uint8]:
                return street.read_image(t) if t in CITYSCAPES_FRAMES else np.full((*size, 3), 96, np.uint8)

            yield "train", replace(street, read_image=image)

    write_dataset("cityscapes-vps", draw(), root)


# --- what is timed ----------------------------------------------------------------------------------------


class Stages:
    """CPU seconds by stage, each without the stages that it calls."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def timed(self, stage: str, function: Callable[..., Result]) -> Callable[..., Result]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Result:
            self._inner.append(0.0)
            begin = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - begin
                self.seconds[stage] += spent - self._inner.pop()
                self._inner[-1] += spent

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Times the functions in `STAGES` while it is open."""
        with ExitStack() as stack:
            for stage, functions in STAGES.items():
                for place, name in functions:
                    stack.enter_context(patch.object(place, name, self.timed(stage, getattr(place, name))))
            yield


def hand_on(pair: Any) -> None:
    """To another process and back: tensors go into shared memory, as a worker's do."""
    pickle.loads(ForkingPickler.dumps(collate([pair])))


def time_stages(run: RunConfig, count: int, flow_directions: int) -> dict[str, Any]:
    """Mean CPU seconds a pair, and by stage, and what a pair is made of."""
    dataset, stages = PairDataset(run.data, run.train.seed, flow_directions), Stages()
    draw, send = stages.timed(REST, dataset.__getitem__), stages.timed(ON, hand_on)
    spent: list[float] = []
    things = 0
    with stages.watching():
        for i in track(range(-WARM, count), "pairs", console=Console(stderr=True)):
            if i == 0:
                stages.seconds.clear()
            begin = time.process_time()
            pair = draw(i + WARM)
            send(pair)
            if i >= 0:
                spent.append(time.process_time() - begin)
                things += sum(len(frame.labels) for frame in pair.targets[0])
    return {
        "pairs": count,
        "cpu_seconds_a_pair": statistics.mean(spent),
        "pairs_per_second_of_a_core": 1 / statistics.mean(spent),
        "things_a_frame": things / count / 2,
        "stages": {stage: seconds / count for stage, seconds in stages.seconds.items()},
    }


def watch_worker(run: RunConfig, count: int) -> dict[str, float]:
    """Pairs by one worker process."""
    run = run.model_copy(update={"data": run.data.model_copy(update={"workers": 1})})
    batches = load_batches(PairDataset(run.data, run.train.seed), run, start=0, processes=1, rank=0)
    for _ in range(WARM):
        next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    cpu, begin = cpu_seconds(worker.pid), time.perf_counter()
    for _ in track(range(count), "worker", console=Console(stderr=True)):
        next(batches)
    elapsed = time.perf_counter() - begin
    found = {
        "pairs_per_second": count * run.train.batch / elapsed,
        "cpu_seconds_a_pair": (cpu_seconds(worker.pid) - cpu) / count / run.train.batch,
        "peak_mib": peak_mib(worker.pid),
    }
    batches.close()
    return found


def cpu_seconds(process: int) -> float:
    """User and system time so far; fields 14 and 15 of proc(5)'s stat, counted from behind the name."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


# --- the table --------------------------------------------------------------------------------------------


def show(result: dict[str, Any]) -> None:
    plain, flow, worker = result["without_flow"], result["with_flow"], result["worker"]
    height, width = result["size"]
    table = Table(
        title=f"{result['recipe']}, frames of {height}x{width}, {plain['things_a_frame']:.1f} things a frame"
    )
    for heading in ("CPU time of a pair", "ms", "share"):
        table.add_column(heading, justify="right" if heading != "CPU time of a pair" else "left")
    for stage, seconds in sorted(plain["stages"].items(), key=lambda s: -s[1]):
        table.add_row(stage, f"{1000 * seconds:.1f}", f"{seconds / plain['cpu_seconds_a_pair']:.1%}")
    console = Console()
    console.print(table)
    console.print(f"pairs/s of a core: {plain['pairs_per_second_of_a_core']:.2f}")
    console.print(f"pairs/s of a core, DIS flow one way: {flow['pairs_per_second_of_a_core']:.2f}")
    console.print(
        f"one worker: {worker['pairs_per_second']:.2f} pairs/s, {1000 * worker['cpu_seconds_a_pair']:.0f} "
        f"ms of CPU time a pair, peak memory {worker['peak_mib']:.0f} MiB (below 1 GB = 954 MiB)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="siamtrack")
    parser.add_argument("--pairs", type=int, default=16, help="drawn for each of the three figures")
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--folder", type=Path, help="where to draw, and to find what was drawn before")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary) / "set"
        if not (root / "panoptic_im_train_city_vps.json").is_file():
            draw_set(root, options.clips, tuple(options.size))
        run = load_run(options.recipe)
        run = run.model_copy(update={"data": run.data.model_copy(update={"root": root})})
        result = {
            "recipe": options.recipe,
            "size": PairDataset(run.data, 0).clips[0].size,
            "without_flow": time_stages(run, options.pairs, 0),
            "with_flow": time_stages(run, options.pairs, 1),
            "worker": watch_worker(run, options.pairs),
        }
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
