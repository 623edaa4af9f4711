"""What training costs by term: seconds of a step, by turns in one process; memory, each in its own.

    python benchmarks/training.py [--backbone NAME] [--size H W] [--device cuda] [--bf16] [--json FILE]

Each step is one pair of a synthetic street: forward, backward, clipping and the optimiser's step, without
preparing the pair. Track supervises the target frame and takes features of the reference; Base supervises
both; each of SiamTrack's four losses is added to Base alone, and SiamTrack has them all. Memory is the
process's resident memory, imports included, or what PyTorch has allocated on the GPU. Limits: SiamTrack at
most 2.3 times Track, and its losses at most a quarter of its step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track as progress
from rich.table import Table

from panoptube.ablation_speed import peak_mib
from panoptube.config import RunConfig
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.pairs import FramePair, PairDataset
from panoptube.network.vpsnet import vpsnet
from panoptube.recipes import TEMPORAL, siamtrack, siamtrack_base, track
from panoptube.train import build_optimizer
from panoptube.training_step import TrainingStep


def contenders() -> dict[str, RunConfig]:
    """By name, in the order of the table."""
    base = siamtrack_base()
    alone = {
        f"Base + {term}": base.model_copy(update={"loss": base.loss.model_copy(update={term: weight})})
        for term, weight in TEMPORAL.items()
    }
    return {"Track": track(), "Base": base, **alone, "SiamTrack": siamtrack()}


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


def pairs_of(run: RunConfig) -> PairDataset:
    return PairDataset(run.data, 0, flow_directions=1)


def seconds(options: argparse.Namespace) -> dict[str, float]:
    """Medians by name."""
    all_of_them = {n: Contender(on_streets(r, options), options.device) for n, r in contenders().items()}
    pairs = pairs_of(all_of_them["SiamTrack"].run)
    times: dict[str, list[float]] = {name: [] for name in all_of_them}
    for turn in progress(range(options.turns + 1), "turns", console=Console(stderr=True)):
        pair = pairs[turn].to(torch.device(options.device))
        for name, contender in all_of_them.items():
            times[name].append(contender.seconds(pair, options.device, options.bf16))
    return {name: statistics.median(spent[1:]) for name, spent in times.items()}


def memory(name: str, options: argparse.Namespace) -> float:
    """MiB at the peak of two steps, in this process."""
    contender = Contender(on_streets(contenders()[name], options), options.device)
    pairs = pairs_of(contender.run)
    for turn in range(2):
        contender.seconds(pairs[turn].to(torch.device(options.device)), options.device, options.bf16)
    return torch.cuda.max_memory_allocated() / 2**20 if options.device == "cuda" else peak_mib()


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
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(memory(options.memory_of, options))
        return
    mib = {}
    for name in progress(list(contenders()), "memory", console=Console(stderr=True)):
        command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
        mib[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    spent = seconds(options)
    precision = "bf16-mixed" if options.bf16 else "float32"
    table = Table(
        title=f"A step of one pair, {options.size[0]}x{options.size[1]}, {options.device}, {precision}"
    )
    for heading in ("", "s", "times Track", "peak MiB"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in spent:
        table.add_row(name, f"{spent[name]:.2f}", f"{spent[name] / spent['Track']:.2f}", f"{mib[name]:.0f}")
    console = Console()
    console.print(table)
    share = 1 - spent["Base"] / spent["SiamTrack"]
    console.print(f"share of the losses between the frames: {share:.1%}")
    if options.json:
        about = {"backbone": options.backbone, "size": list(options.size), "device": options.device}
        about |= {"precision": precision, "threads": torch.get_num_threads()}
        figures = {name: {"seconds": spent[name], "peak_mib": mib[name]} for name in spent}
        options.json.write_text(json.dumps(about | {"steps": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
