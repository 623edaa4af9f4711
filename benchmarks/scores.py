"""VPQ of a weights file on streets that it was not trained on, beside an answer that looks at no image.

    python benchmarks/scores.py [--weights FILE] [--clips 20] [--precision auto] [--json FILE]

Clips are the streets of seeds 0, 1, ... (training draws from 1 000 000 on) at the default difficulty, 30
frames of 256x512, every 5th of them scored. The other answer is the most frequent class at each pixel
position, counted on these very clips. Precision is as in `panoptube predict`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console

from panoptube.data.clip import Clip
from panoptube.data.streets import street_clip
from panoptube.evaluate import always, evaluate_clips, most_frequent_class
from panoptube.network.inference import Precision, choose_dtype, for_inference
from panoptube.network.weights import load_weights
from panoptube.panoptic.frame import PanopticFrame
from panoptube.predict import shipped_weights
from panoptube.predictor import VideoPredictor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, default=shipped_weights())
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--precision", default="auto", choices=get_args(Precision))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    plain, _ = load_weights(arguments.weights)
    dtype = choose_dtype(arguments.precision, torch.device("cpu"))
    network = for_inference(plain, dtype)
    clips = [street_clip(seed) for seed in range(arguments.clips)]

    def follow(clip: Clip) -> Iterator[PanopticFrame]:
        predictor = VideoPredictor(network)
        for t in range(len(clip)):
            yield predictor.step(clip.image(t))

    console = Console()
    result = evaluate_clips(follow, clips)
    console.print(f"[bold]{arguments.weights}, {dtype}[/]", *result.tables(), sep="\n")
    guess = most_frequent_class(clips, network.taxonomy, clips[0].size)
    baseline = evaluate_clips(always(guess), clips)
    console.print("[bold]most frequent class of each pixel position[/]", *baseline.tables()[-1:], sep="\n")
    if arguments.json:
        both = {"network": result.to_dict(), "most_frequent_class": baseline.to_dict()}
        arguments.json.write_text(json.dumps(both, indent=1) + "\n")


if __name__ == "__main__":
    main()
