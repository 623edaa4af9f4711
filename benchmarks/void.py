"""What `network.void_below` costs on streets and real videos, and what it makes void of other pictures.

    python benchmarks/void.py OUT PICTURE ... [--weights FILE] [--below 0 0.5 ...] [--seeds 300 310]
                              [--videos VIDEOS]

Streets are of the seeds from the first to before the last, 30 frames of 256x512, every 5th scored; VIDEOS is
a folder of labelled videos (docs/weights.md), of whose `val` clips every 5th frame counts. PICTURES are of
what the weights are not made for. OUT gets void.json and void.png: each picture, and its result without and
with the weights' own `void_below`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from panoptube.data.clip import Clip, Image
from panoptube.data.labelled_video import read_labelled_videos
from panoptube.data.streets import street_clip
from panoptube.evaluate import evaluate_clips
from panoptube.network.inference import for_inference
from panoptube.network.vpsnet import Detections, VPSNet
from panoptube.network.weights import load_weights
from panoptube.panoptic.frame import VOID, PanopticFrame
from panoptube.predict import shipped_weights
from panoptube.predictor import VideoPredictor
from panoptube.progress import progress_bar
from panoptube.video import open_video
from panoptube.view.overlay import overlay
from panoptube.view.results import write_picture

BELOW = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7)
WIDTH = 360
"""Of one picture of the sheet, in pixels."""


def set_below(network: VPSNet, below: float) -> None:
    network.config = network.config.model_copy(update={"void_below": below})


def detect(network: VPSNet, clips: list[Clip]) -> list[list[Detections]]:
    """What the network says of each frame: it is the same whatever becomes void."""
    found: list[list[Detections]] = []
    with progress_bar(True, "frames") as bar:
        task = bar.add_task("detect", total=sum(map(len, clips)))
        for clip in clips:
            predictor = VideoPredictor(network)
            found.append([])
            for t in range(len(clip)):
                found[-1].extend(predictor.detect([clip.image(t)]))
                bar.advance(task)
    return found


def vpq(network: VPSNet, clips: list[Clip], found: list[list[Detections]]) -> float:
    of_clip = {clip.name: frames for clip, frames in zip(clips, found)}

    def follow(clip: Clip) -> Iterator[PanopticFrame]:
        predictor, blank = VideoPredictor(network), np.zeros((*clip.size, 3), np.uint8)
        for said in of_clip[clip.name]:
            yield predictor.step(blank, said)

    return evaluate_clips(follow, clips).all.pq


def sheet_row(image: Image, frames: list[PanopticFrame], network: VPSNet) -> Image:
    size = (WIDTH, round(image.shape[0] * WIDTH / image.shape[1]))
    pictures = [image, *(overlay(image, frame, network.taxonomy) for frame in frames)]
    return np.concatenate([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures], 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", type=Path, nargs="*")
    parser.add_argument("--weights", type=Path, default=shipped_weights())
    parser.add_argument("--below", type=float, nargs="+", default=BELOW)
    parser.add_argument("--seeds", type=int, nargs=2, default=(300, 310))
    parser.add_argument("--videos", type=Path)
    arguments = parser.parse_args()

    plain, _ = load_weights(arguments.weights)
    network, own = for_inference(plain, torch.float32), plain.config.void_below
    sets = {"streets": [street_clip(seed) for seed in range(*arguments.seeds)]}
    if arguments.videos:
        sets["real videos"] = read_labelled_videos(arguments.videos, "val")
    found = {name: detect(network, clips) for name, clips in sets.items()}
    images = {path.name: next(iter(open_video(path))) for path in arguments.pictures}

    rows: dict[float, dict[str, float]] = {}
    for below in arguments.below:
        set_below(network, below)
        row = {f"VPQ, {name}": vpq(network, clips, found[name]) for name, clips in sets.items()}
        void = {
            n: float((VideoPredictor(network).step(i).semantic == VOID).mean()) for n, i in images.items()
        }
        if void:
            row |= {"void, all pictures": float(np.mean(list(void.values())))}
        rows[below] = row | {f"void, {name}": share for name, share in void.items()}
    names = list(next(iter(rows.values())))
    table = Table("void_below", *map(str, rows), title="percent")
    for name in names:
        table.add_row(name, *(f"{100 * row[name]:.1f}" for row in rows.values()))
    Console().print(table)
    figures = {"weights": arguments.weights.name, "own": own, "below": {str(b): r for b, r in rows.items()}}
    write_picture(arguments.out / "void.json", f"{json.dumps(figures, indent=1)}\n".encode())

    if images:
        sheet = []
        for image in images.values():
            frames = []
            for below in (0.0, own):
                set_below(network, below)
                frames.append(VideoPredictor(network).step(image))
            sheet.append(sheet_row(image, frames, network))
        png = cv2.imencode(".png", np.ascontiguousarray(np.concatenate(sheet)[..., ::-1]))[1]
        write_picture(arguments.out / "void.png", png.tobytes())


if __name__ == "__main__":
    main()
