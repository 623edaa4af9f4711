"""Speed and memory of the whole way from a video to its files, and how long its tracks are.

    python benchmarks/prediction.py VIDEO [--weights FILE] [--precision auto] [--size H W] [--batch N]
                                    [--json FILE]

All is as `panoptube predict` does it. Frames/s include decoding, network, tracking, overlay video and PNGs.
--size is what the network sees, instead of the size in the weights. Memory is the process's resident memory
at frame 100 and at frame 700, or the last; their ratio should be 1. Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table

from panoptube.data.clip import Image
from panoptube.network.inference import Precision
from panoptube.network.vpsnet import Detections
from panoptube.panoptic.frame import PanopticFrame
from panoptube.predict import load_network, look_ahead, shipped_weights, write_predictions
from panoptube.predictor import VideoPredictor
from panoptube.video import open_video

EARLY = 100
LONG = 40


def resident_mib() -> float:
    """Resident memory of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video")
    parser.add_argument("--weights", type=Path, default=shipped_weights())
    parser.add_argument("--precision", default="auto", choices=get_args(Precision))
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    network, flow = load_network(arguments.weights, "auto", None, arguments.precision)
    if arguments.size:
        network.config = network.config.model_copy(update={"test_size": tuple(arguments.size)})
    predictor = VideoPredictor(network, flow=flow)
    memory: list[float] = []
    seen: Counter[int] = Counter()

    def step(image: Image, found: Detections | None = None) -> PanopticFrame:
        frame = predictor.step(image, found)
        seen.update(frame.tracks())
        memory.append(resident_mib())
        return frame

    with tempfile.TemporaryDirectory() as folder:
        video = open_video(arguments.video)
        done = write_predictions(
            video,
            step,
            network.taxonomy,
            Path(folder) / "out",
            restart=predictor.restart,
            ahead=look_ahead(predictor, video, arguments.batch),
        )
    late = min(7 * EARLY, len(memory)) - 1
    early = min(EARLY, len(memory)) - 1
    result = {
        "precision": arguments.precision,
        "network_size": list(network.config.test_size),
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        "frames": done.frames,
        "frames_per_second": done.fps,
        "tracks": done.tracks,
        f"tracks_of_{LONG}_frames": sum(n >= LONG for n in seen.values()),
        f"resident_mib_frame_{early + 1}": memory[early],
        f"resident_mib_frame_{late + 1}": memory[late],
        "resident_ratio": memory[late] / memory[early],
        "resident_mib_max": max(memory),
    }
    table = Table(Path(arguments.video).name, "")
    for name, value in result.items():
        table.add_row(name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
