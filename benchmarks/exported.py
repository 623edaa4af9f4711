"""Exported files beside the network itself: the same maps and ids, VPQ, frames/s.

    python benchmarks/exported.py [--weights FILE] [--clips 20] [--size H W] [--json FILE]

Each clip is a street of 30 frames (seeds 0, 1, ...), of 256x512 unless --size says otherwise. All variants
label each frame in turns on the same threads: the network itself, and what `panoptube export` writes of it on
ONNX Runtime and on OpenVINO, in float32; the network and OpenVINO also in bf16 if this processor computes
faster in it. Pixels and frames are compared with the
network's in float32: pixels whose class or id differs, and frames with other ids. VPQ counts every 5th frame.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from panoptube.ablation_speed import processor
from panoptube.data.streets import street_clip
from panoptube.evaluate import evaluate_clips
from panoptube.export import export
from panoptube.metrics.quality import percent
from panoptube.network.exported import ExportedNetwork, load_exported
from panoptube.network.inference import choose_dtype
from panoptube.network.vpsnet import VPSNet
from panoptube.panoptic.frame import PanopticFrame
from panoptube.predict import load_network, shipped_weights
from panoptube.predictor import VideoPredictor

FIRST = "PyTorch, float32"


def load(weights: Path, folder: Path) -> dict[str, VPSNet | ExportedNetwork]:
    """All variants, by name; the exported files go into the folder."""
    onnx = export(folder / "network.onnx", weights, "onnx")
    openvino = export(folder / "network.xml", weights, "openvino")
    variants: dict[str, VPSNet | ExportedNetwork] = {
        FIRST: load_network(weights, "cpu", None, "float32")[0],
        "ONNX Runtime, float32": load_exported(onnx),
        "OpenVINO, float32": load_exported(openvino),
    }
    if choose_dtype("auto", torch.device("cpu")) is torch.bfloat16:
        variants["PyTorch, bf16"] = load_network(weights, "cpu", None, "bf16")[0]
        variants["OpenVINO, bf16"] = load_exported(openvino, "bf16")
    return variants


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=shipped_weights())
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    size = (arguments.size[0], arguments.size[1])
    clips = [street_clip(seed, size=size) for seed in range(arguments.clips)]
    with tempfile.TemporaryDirectory() as folder:
        networks = load(arguments.weights, Path(folder))
        frames: dict[str, list[list[PanopticFrame]]] = {name: [] for name in networks}
        seconds: dict[str, list[float]] = {name: [] for name in networks}
        for clip in track(clips, "clips", console=Console(stderr=True)):
            predictors = {name: VideoPredictor(network) for name, network in networks.items()}
            for name in networks:
                frames[name].append([])
            for t in range(len(clip)):
                for name, predictor in predictors.items():
                    image = clip.image(t)
                    begin = time.perf_counter()
                    frames[name][-1].append(predictor.step(image))
                    seconds[name].append(time.perf_counter() - begin)
    rows: dict[str, Any] = {}
    for name, found in frames.items():
        given = {id(clip): predicted for clip, predicted in zip(clips, found)}
        pairs = [pair for both in zip(found, frames[FIRST]) for pair in zip(*both)]
        pixels = [((a.semantic != b.semantic) | (a.instance != b.instance)).mean() for a, b in pairs]
        result = evaluate_clips(lambda clip, given=given: iter(given[id(clip)]), clips)  # type: ignore[misc]
        rows[name] = {
            "pixels_that_differ": float(statistics.mean(pixels)),
            "frames": len(pairs),
            "frames_with_other_ids": sum(a.scores.keys() != b.scores.keys() for a, b in pairs),
            "vpq": result.all.pq,
            "median_s": statistics.median(seconds[name]),
        }
    table = Table(title=f"{len(clips)} clips, {size[0]}x{size[1]}, {processor()}")
    for header in ("", "pixels that differ", "frames with other ids", "VPQ", "frames/s of the network"):
        table.add_column(header, justify="left" if not header else "right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['pixels_that_differ']:.1e}",
            f"{row['frames_with_other_ids']} of {row['frames']}",
            percent(row["vpq"]),
            f"{1 / row['median_s']:.1f}",
        )
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"device": processor(), "size": size, "clips": len(clips), "variants": rows}, indent=1)
        )


if __name__ == "__main__":
    main()
