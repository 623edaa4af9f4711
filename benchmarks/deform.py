"""Deformable convolution on the CPU: panoptube's against torchvision's, in one process, in turns.

    python benchmarks/deform.py [--json FILE]

Rows: 256 channels at 128x256, forward without gradients (the finest level of a 512x1024 frame); 64 channels
at 64x128, forward and backward. OMP_NUM_THREADS sets the number of threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision import ops

from panoptube.network.deform import deform_conv2d

Operator = Callable[[Tensor, Tensor, Tensor], Tensor]


def theirs(input: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
    result: Tensor = ops.deform_conv2d(input, offset, weight, padding=1)
    return result


def seconds(operator: Operator, arguments: tuple[Tensor, Tensor, Tensor], backward: bool) -> float:
    """One run: forward, and with `backward` the gradients of all three arguments."""
    begin = time.perf_counter()
    with torch.set_grad_enabled(backward):
        result = operator(*arguments)
    if backward:
        torch.autograd.grad(result, arguments, torch.ones_like(result))
    return time.perf_counter() - begin


def measure(
    name: str, channels: int, height: int, width: int, backward: bool, runs: int
) -> dict[str, float | str]:
    """Best and median milliseconds of both, and their ratios, over `runs` turns after one to warm up."""
    generator = torch.Generator().manual_seed(0)
    shapes = (1, channels, height, width), (1, 18, height, width), (channels, channels, 3, 3)
    input, offset, weight = (torch.randn(s, generator=generator).requires_grad_(backward) for s in shapes)
    times: dict[Operator, list[float]] = {deform_conv2d: [], theirs: []}
    for turn in range(runs + 1):
        for operator, spent in times.items():
            took = seconds(operator, (input, offset, weight), backward)
            if turn:
                spent.append(1e3 * took)
    ours, other = times[deform_conv2d], times[theirs]
    return {
        "case": name,
        "ours_min_ms": min(ours),
        "ours_median_ms": statistics.median(ours),
        "torchvision_min_ms": min(other),
        "torchvision_median_ms": statistics.median(other),
        "ratio_min": min(other) / min(ours),
        "ratio_median": statistics.median(other) / statistics.median(ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args()
    rows = [
        measure("256 channels, 128x256, forward", 256, 128, 256, backward=False, runs=9),
        measure("64 channels, 64x128, forward + backward", 64, 64, 128, backward=True, runs=9),
    ]
    table = Table(
        title=f"Deformable convolution, float32, {torch.get_num_threads()} threads: best (median) in ms"
    )
    for heading in ("", "panoptube", "torchvision", "times as fast"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        pairs = (("ours_min_ms", "ours_median_ms"), ("torchvision_min_ms", "torchvision_median_ms"))
        cells = [f"{row[best]:.1f} ({row[middle]:.1f})" for best, middle in pairs]
        table.add_row(str(row["case"]), *cells, f"{row['ratio_min']:.1f} ({row['ratio_median']:.1f})")
    Console().print(table)
    if options.json:
        result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
