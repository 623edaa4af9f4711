"""How the cost of a frame grows with its size, the number of instances, and the length of the video.

    python benchmarks/costs.py [--frames 10000] [--json FILE] [--chart FILE.png]

size        VPSNet-Track, ResNet-50, as `panoptube predict` runs it: seconds of a frame, and the peak of a
            process of its own above what it took after its imports. Weights are random, and 40 objects are
            wanted in the map, as in `benchmarks/inference.py`.
instances   a panoptic map of 1024x2048 from given detections, and the tracker's step: milliseconds, beside
            the plain assembly with a channel for each instance. Both maps are compared.
frames      the weights that come with panoptube on an endless street of 64x128, where things come and go:
            milliseconds of a frame, and resident memory, at 1, 10, 100, ... frames. Linux only.

OMP_NUM_THREADS sets the number of threads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from inference import random_network, threshold_for
from panoptube.ablation_speed import STREET, peak_mib, processor
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.streets import street_clip
from panoptube.network.inference import choose_dtype, for_inference
from panoptube.network.vpsnet import Detections
from panoptube.network.weights import load_weights, save_weights
from panoptube.panoptic.assemble import index_map, winners
from panoptube.panoptic.tracker import Tracker
from panoptube.predict import load_network, shipped_weights
from panoptube.predictor import VideoPredictor
from panoptube.recipes import load_run
from prediction import resident_mib

SIZES = ((128, 256), (256, 512), (384, 768), (512, 1024), (768, 1536), (1024, 2048))
COUNTS = (0, 10, 20, 40, 60, 80, 100)
DETECTIONS = 40
SMALL, FULL = (64, 128), (1024, 2048)
TURNS = 5

Point = dict[str, float]


# --- size ------------------------------------------------------------------------------------------------


def of_size(size: tuple[int, int], weights: Path, pipe: Connection) -> None:
    """Answers seconds and MiB of a frame of this size, in a process of its own."""
    before = resident_mib()
    network, _ = load_weights(weights)
    network.config = network.config.model_copy(update={"test_size": size})
    network = for_inference(network, choose_dtype("auto", torch.device("cpu")))
    image = np.ascontiguousarray(street_clip(STREET, frames=1, size=size).image(0))
    times = []
    for _ in range(1 + TURNS):
        begin = time.perf_counter()
        VideoPredictor(network).step(image)
        times.append(time.perf_counter() - begin)
    pipe.send((statistics.median(times[1:]), peak_mib() - before))


def sizes(console: Console) -> list[Point]:
    """Seconds and MiB by pixels."""
    spawn = multiprocessing.get_context("spawn")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.safetensors"
        run = load_run("track")
        network = random_network(run, "cpu")
        for size in track(SIZES, "size", console=console):
            image = np.ascontiguousarray(street_clip(STREET, frames=1, size=size).image(0))
            threshold = threshold_for(network, image, DETECTIONS, "cpu")
            config = run.network.model_copy(update={"score_threshold": threshold})
            save_weights(weights, network, run.model_copy(update={"network": config}))
            ours, theirs = spawn.Pipe()
            spawn.Process(target=of_size, args=(size, weights, theirs), daemon=True).start()
            theirs.close()
            seconds, memory = ours.recv()
            found.append({"pixels": size[0] * size[1], "seconds": seconds, "mib": memory})
    return found


# --- instances -------------------------------------------------------------------------------------------


def drawn(count: int, seed: int = 0) -> Detections:
    """Boxes as of cars and people near and far, with round masks, on random classes of 1024x2048."""
    rng = np.random.default_rng(seed)
    height = np.exp(rng.uniform(np.log(24), np.log(400), count))
    width = height * rng.uniform(0.4, 2.2, count)
    x, y = rng.uniform(0, 2048 - width), rng.uniform(300, 1024 - height, count)
    boxes = np.stack([x, y, np.minimum(x + width, 2047), np.minimum(y + height, 1023)], 1)
    place = (np.arange(28) + 0.5) / 14 - 1
    round_mask = 12 * (1 - np.hypot(*np.meshgrid(place, place)))
    semantic = torch.nn.functional.interpolate(
        torch.from_numpy(rng.normal(0, 4, (1, len(CITYSCAPES), 16, 32))).float(), (256, 512), mode="bilinear"
    )[0]
    embeddings = rng.normal(size=(count, 128))
    return Detections(
        semantic,
        torch.from_numpy(boxes).float(),
        torch.from_numpy(rng.integers(1, CITYSCAPES.num_things + 1, count)),
        torch.linspace(0.99, 0.5, count),
        torch.from_numpy(round_mask + rng.normal(0, 1, (count, 28, 28))).float(),
        torch.from_numpy(embeddings).float(),
    )


def milliseconds(function: Callable[..., object], *arguments: object) -> float:
    """Median of some calls, after one to warm up."""
    times = []
    for _ in range(1 + TURNS):
        begin = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times[1:])


def instances(console: Console) -> list[Point]:
    """Milliseconds by detections; `kept` have a channel, `unlike` is the share of pixels that differ."""
    found = []
    for count in track(COUNTS, "instances", console=console):
        frame, stuff = drawn(count), CITYSCAPES.num_stuff
        quick, plain = winners(frame, stuff, FULL), index_map(frame, stuff, False)
        unlike = (quick.winner != plain.winner.numpy()) | (quick.semantic != plain.semantic.numpy())
        follow = Tracker().step
        found.append(
            {
                "detections": count,
                "kept": len(quick.kept),
                "map_ms": milliseconds(winners, frame, stuff, FULL),
                "plain_ms": milliseconds(index_map, frame, stuff, False),
                "tracker_ms": milliseconds(follow, frame.boxes, frame.labels, frame.scores, frame.embeddings),
                "unlike": float(unlike.mean()),
            }
        )
    return found


# --- frames ----------------------------------------------------------------------------------------------


def frames(count: int, console: Console) -> list[Point]:
    """Milliseconds of a frame and MiB of the process after 1, 10, 100, ... frames of one video."""
    network, flow = load_network(shipped_weights(), "cpu", None, "auto")
    network.config = network.config.model_copy(update={"test_size": SMALL, "score_threshold": 0.2})
    predictor = VideoPredictor(network, flow=flow)
    streets = [street_clip(STREET + i, frames=20, size=SMALL) for i in range(5)]
    images = [np.ascontiguousarray(clip.image(t)) for clip in streets for t in range(len(clip))]
    predictor.step(images[0])
    shown, times, found, ids = 1, [], [], 0
    marks = {10**k for k in range(10) if 10**k <= count} | {count // 2, count}
    for t in track(range(1, count + 1), "frames", console=console):
        begin = time.perf_counter()
        frame = predictor.step(images[t % len(images)])
        times.append(time.perf_counter() - begin)
        ids = max([ids, *frame.scores])
        if t in marks:
            recent = times[-max(1, (t - shown + 1) // 2) :]
            point = {"frames": t, "ms": 1000 * statistics.median(recent), "mib": resident_mib()}
            found.append(point | {"in_memory": len(predictor.tracker), "ids_so_far": ids})
            shown = t
    return found


# --- what is shown ---------------------------------------------------------------------------------------


def chart(result: dict[str, Any], path: Path) -> None:
    """The three curves side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    pixels = [p["pixels"] / 2**20 for p in result["size"]]
    lines = left.plot(pixels, [p["seconds"] for p in result["size"]], "o-", color="C0", label="seconds")
    left.set(xlabel="millions of pixels ($2^{20}$)", ylabel="s a frame", title="Size: ResNet-50")
    memory = left.twinx()
    lines += memory.plot(pixels, [p["mib"] for p in result["size"]], "s--", color="C1", label="memory")
    memory.set(ylabel="MiB above the imports", ylim=(0, 1.5 * max(p["mib"] for p in result["size"])))
    left.legend(handles=lines, frameon=False, loc="upper left")
    counts = [p["detections"] for p in result["instances"]]
    for name, label, style in (
        ("plain_ms", "map, a channel for each", "o--"),
        ("map_ms", "map", "o-"),
        ("tracker_ms", "tracker", "s-"),
    ):
        middle.plot(counts, [p[name] for p in result["instances"]], style, label=label)
    middle.set(xlabel="detections", ylabel="ms, 1024x2048", title="Instances", yscale="log")
    middle.legend(frameon=False)
    shown = [p["frames"] for p in result["frames"]]
    lines = right.plot(shown, [p["ms"] for p in result["frames"]], "o-", color="C0", label="time")
    right.set(xlabel="frames", ylabel="ms a frame", title="Length: 64x128", xscale="log")
    right.set_ylim(0, 1.5 * max(p["ms"] for p in result["frames"]))
    memory = right.twinx()
    lines += memory.plot(shown, [p["mib"] for p in result["frames"]], "s--", color="C1", label="memory")
    memory.set(ylabel="MiB of the process", ylim=(0, 1.5 * max(p["mib"] for p in result["frames"])))
    right.legend(handles=lines, frameon=False, loc="lower right")
    for axes in (left, middle, right):
        axes.set_xlim(left=None if axes is right else 0)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    left.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE")
    options = parser.parse_args()
    console = Console(stderr=True)
    result: dict[str, Any] = {
        "machine": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "size": sizes(console),
        "instances": instances(console),
        "frames": frames(options.frames, console),
    }
    for part in ("size", "instances", "frames"):
        table = Table(*result[part][0], title=part)
        for point in result[part]:
            table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in point.values()))
        Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.chart:
        chart(result, options.chart)


if __name__ == "__main__":
    main()
