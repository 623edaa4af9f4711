"""VPSNet-FuseTrack against VPSNet-Track: parameters, time and memory of a frame, in the published sizes.

    python benchmarks/fusetrack.py [--size H W] [--frames N] [--detections N] [--device cuda]
                                   [--precision auto] [--json FILE]

Each contender runs in a process of its own, on the same frames of a synthetic street, by turns frame after
frame, so that whatever else the machine does meets all of them. Networks are those that `panoptube predict`
computes with, FlowNet2 in float32. Weights are drawn by the rule of tests/data/parity, FlowNet2's are random;
the score threshold is set where --detections objects are left in the first frame's map. Times are medians of
`VideoPredictor.step` after a frame to warm up. Memory is the process's peak, on a GPU what torch allocated.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.progress import track as progress
from rich.table import Table
from torch import nn

from inference import random_network, threshold_for
from panoptube.ablation_speed import peak_mib
from panoptube.data.clip import Clip
from panoptube.data.streets import street_clip
from panoptube.flow.flownet2 import FlowNet2
from panoptube.flow.images import ImageFlow, dis_image_flow
from panoptube.flow.learned import network_flow
from panoptube.network.inference import Precision, choose_dtype, for_inference
from panoptube.predictor import VideoPredictor
from panoptube.recipes import fusetrack, track

CONTENDERS = ("Track", "FuseTrack, DIS", "FuseTrack, FlowNet2")


def million_numbers(module: nn.Module) -> float:
    """Numbers in the weights, in millions, batch norm's statistics among them."""
    return float(sum(value.numel() for value in module.state_dict().values())) / 1e6


def street(options: argparse.Namespace) -> Clip:
    return street_clip(3, frames=options.frames + 1, size=tuple(options.size))


def serve(contender: str, threshold: float, options: argparse.Namespace, pipe: Connection) -> None:
    """Run one frame per request, and answer its seconds; at the end, the parameters and the peak."""
    torch.set_num_threads(options.threads)
    fuse, learned = contender != "Track", contender.endswith("FlowNet2")
    network = random_network(fusetrack() if fuse else track(), options.device)
    changed = {"test_size": tuple(options.size), "score_threshold": threshold}
    network.config = network.config.model_copy(update=changed)
    million = million_numbers(network)
    flow: ImageFlow = dis_image_flow
    if learned:
        flownet = FlowNet2().eval().requires_grad_(False).to(options.device)
        million += million_numbers(flownet)
        flow = partial(network_flow, flownet)
    clip = street(options)
    network = for_inference(network, choose_dtype(options.precision, torch.device(options.device)))
    predictor = VideoPredictor(network, flow=flow)
    cuda = options.device == "cuda"
    for t in range(len(clip)):
        image = clip.image(t)
        pipe.recv()
        begin = time.perf_counter()
        frame = predictor.step(image)
        if cuda:
            torch.cuda.synchronize()
        pipe.send((time.perf_counter() - begin, len(frame.scores)))
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_mib()
    pipe.send((million, peak))


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Of each contender: `parameters_m`, `seconds` (median), `peak_mib`, `things` (mean per frame)."""
    first = street(options).image(0)
    thresholds = [
        threshold_for(random_network(run, options.device), first, options.detections, options.device)
        for run in (track(), fusetrack())
    ]
    # A fresh interpreter, so that no contender's peak contains another's.
    spawn = multiprocessing.get_context("spawn")
    start: Callable[..., Any] = spawn.Process
    pipes: dict[str, Connection] = {}
    for name in CONTENDERS:
        pipes[name], theirs = spawn.Pipe()
        start(target=serve, args=(name, thresholds[name != "Track"], options, theirs), daemon=True).start()
    turns: dict[str, list[tuple[float, int]]] = {name: [] for name in CONTENDERS}
    frames = range(options.frames + 1)
    for _ in progress(frames, description="frames", console=Console(stderr=True)):
        for name, pipe in pipes.items():
            pipe.send(None)
            turns[name].append(pipe.recv())
    found = {}
    for name, pipe in pipes.items():
        parameters, peak = pipe.recv()
        seconds = statistics.median(s for s, _ in turns[name][1:])
        things = statistics.mean(n for _, n in turns[name][1:])
        found[name] = {
            "parameters_m": parameters,
            "seconds": seconds,
            "peak_mib": peak,
            "things": things,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--detections", type=int, default=40)
    parser.add_argument("--precision", default="auto", choices=get_args(Precision))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    height, width = options.size
    table = Table(title=f"A frame of {height}x{width}, {options.device}, precision {options.precision}")
    for heading in ("", "parameters, M", "objects", "s a frame", "times Track", "peak MiB", "times Track"):
        table.add_column(heading, justify="right" if heading else "left")
    base = found["Track"]
    for name, row in found.items():
        table.add_row(
            name,
            f"{row['parameters_m']:.1f}",
            f"{row['things']:.1f}",
            f"{row['seconds']:.2f}",
            f"{row['seconds'] / base['seconds']:.2f}",
            f"{row['peak_mib']:.0f}",
            f"{row['peak_mib'] / base['peak_mib']:.2f}",
        )
    Console().print(table)
    if options.json:
        about = {"size": [height, width], "precision": options.precision, "threads": options.threads}
        options.json.write_text(json.dumps(about | {"rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
