"""What a training step costs: Track, SiamTrack-Base and SiamTrack, by turns in one process.

    python benchmarks/training_step.py [--backbone NAME] [--size H W] [--device cuda] [--bf16] [--json FILE]

Each step is one pair of a synthetic street: forward, backward, clipping and the optimiser's step, without
preparing the pair. Track supervises the target frame and takes features of the reference; Base supervises
both; SiamTrack adds its four losses. Limits: SiamTrack at most 2.3 times Track, and its losses at most a
quarter of its step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track as progress
from rich.table import Table

from panoptube.config import RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.pairs import FramePair, PairDataset
from panoptube.network.vpsnet import vpsnet
from panoptube.recipes import siamtrack, siamtrack_base, track
from panoptube.train import build_optimizer
from panoptube.training_step import TrainingStep


def on_streets(run: RunConfig, options: argparse.Namespace) -> RunConfig:
    """The recipe on synthetic streets, at another size and with another backbone."""
    fields = run.model_dump()
    fields["data"] |= {"streets": 1.0, "videos": 0.0, "size": options.size, "fit": None, "scale": (1.0, 1.0)}
    fields["data"] |= {"gaps": (-10, 10), "gaps_in": "frames"}
    fields["network"] |= {"backbone": options.backbone}
    return RunConfig.model_validate(fields)


class Contender:
    """A network of its own, and its optimiser."""

    def __init__(self, run: RunConfig, device: str) -> None:
        torch.manual_seed(0)
        self.run = run
        self.step = TrainingStep(vpsnet(run.network, CITYSCAPES), run).to(device).train()
        self.optimizer = build_optimizer(self.step, run.train)

    def seconds(self, pair: FramePair, device: str, bf16: bool) -> float:
        """Of one step."""
        begin = time.perf_counter()
        with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            terms = self.step(pair, 0, 0)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        torch.nn.utils.clip_grad_norm_(self.step.parameters(), self.run.train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Median seconds by name, on a GPU with `NAME_mib`, its peak memory."""
    runs = {"Track": track(), "SiamTrack-Base": siamtrack_base(), "SiamTrack": siamtrack()}
    contenders = {name: Contender(on_streets(r, options), options.device) for name, r in runs.items()}
    pairs = PairDataset(contenders["SiamTrack"].run.data, 0, flow_directions=1)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    found: dict[str, float] = {}
    for turn in progress(range(options.turns + 1), "turns", console=Console(stderr=True)):
        pair = pairs[turn].to(torch.device(options.device))
        for name, contender in contenders.items():
            if options.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times[name].append(contender.seconds(pair, options.device, options.bf16))
            if options.device == "cuda":
                found[f"{name}_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found | {name: statistics.median(spent[1:]) for name, spent in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--bf16", action="store_true", help="mixed precision")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options)
    precision = "bf16-mixed" if options.bf16 else "float32"
    table = Table(
        title=f"A step of one pair, {options.size[0]}x{options.size[1]}, {options.device}, {precision}"
    )
    for heading in ("", "s", "times Track"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in ("Track", "SiamTrack-Base", "SiamTrack"):
        table.add_row(name, f"{found[name]:.2f}", f"{found[name] / found['Track']:.2f}")
    console = Console()
    console.print(table)
    share = 1 - found["SiamTrack-Base"] / found["SiamTrack"]
    console.print(f"share of the losses between the frames: {share:.1%}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
