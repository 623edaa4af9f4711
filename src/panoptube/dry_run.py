"""What a training run would take, from a few of its steps: `panoptube train RECIPE --dry-run`."""

from __future__ import annotations

import itertools
import statistics
import time
from contextlib import closing

import torch
from lightning_fabric import Fabric
from rich.table import Table

from panoptube.ablation_speed import peak_mib
from panoptube.config import DataConfig, RunConfig
from panoptube.data.datasets import find_dataset
from panoptube.data.pairs import load_batches
from panoptube.network.vpsnet import vpsnet
from panoptube.progress import progress_bar
from panoptube.train import build_optimizer, training_data
from panoptube.training_step import TrainingStep

MEASURED = 3
"""Passes that are timed, after one that isn't."""


def dry_run(run: RunConfig, devices: int = 1, accelerator: str = "auto") -> Table:
    """Parameters, memory, steps, learning rate and time of a run; nothing is written.

    Weights are random, and one process of the run is tried. Without data.root, pairs come from streets of the
    same crop, which need no data, and only the number of classes is the dataset's.

    Args:
        run: what would be trained.
        devices: processes of the run.
        accelerator: cpu, cuda, mps or auto.

    Raises:
        UserError: the data can't be read.
    """
    fabric = Fabric(accelerator=accelerator, devices=1)
    fabric.launch()
    torch.manual_seed(run.train.seed)
    missing = run.data.videos > 0 and run.data.root is None
    data = run.data
    if missing:
        update = {"videos": 0.0, "streets": 1.0, "workers": 0, "fit": None, "scale": (1.0, 1.0)}
        data = DataConfig.model_validate(run.data.model_dump() | update)
    tried = run.model_copy(update={"data": data})
    pairs, flow = training_data(tried, fabric.device)
    taxonomy = find_dataset(run.data.dataset).taxonomy if missing else None
    module = TrainingStep(vpsnet(run.network, taxonomy or pairs.taxonomy), tried, flow)
    optimizer: torch.optim.Optimizer = build_optimizer(module, run.train)
    wrapped, optimizer = fabric.setup(module, optimizer)
    wrapped.train()
    mixed = torch.autocast(fabric.device.type, torch.bfloat16, enabled=run.train.precision == "bf16-mixed")
    waiting, working = [], []
    with closing(load_batches(pairs, tried, 0, 1, 0)) as batches, progress_bar(True, "steps") as bar:
        for _ in bar.track(range(MEASURED + 1), description="dry run"):
            begin = time.perf_counter()
            pair, seed = next(batches)
            got = time.perf_counter()
            with mixed:
                terms = wrapped(pair.to(fabric.device), seed, 0)
            fabric.backward(torch.stack(list(terms.values())).sum())
            fabric.clip_gradients(wrapped, optimizer, max_norm=run.train.clip, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            waiting.append(got - begin)
            working.append(time.perf_counter() - got)
    return _table(run, module, devices, waiting[1:], working[1:], peak_memory(fabric.device), missing)


def _table(
    run: RunConfig,
    module: TrainingStep,
    devices: int,
    waiting: list[float],
    working: list[float],
    memory: float,
    missing: bool,
) -> Table:
    config = run.train
    parameters = sum(p.numel() for p in module.network.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    head = 0 if module.projection is None else sum(p.numel() for p in module.projection.parameters())
    pairs = config.batch * config.accumulate * devices
    # Workers prepare pairs while the network works; without them it waits.
    passed = statistics.median(working) + (0 if run.data.workers else statistics.median(waiting))
    seconds = passed * config.accumulate * config.steps
    rate = f"{config.lr:g} is meant for {config.lr_pairs} pairs a step"
    if pairs != config.lr_pairs:
        rate += f"; for {pairs}: --train.lr {config.lr * pairs / config.lr_pairs:g}"
    if pairs < config.lr_pairs and config.lr_pairs % pairs == 0:
        rate += f", or --train.accumulate {config.accumulate * config.lr_pairs // pairs}"
    table = Table(f"{run.name}", "", title="Dry run")
    rows = (
        ("parameters", f"{parameters / 1e6:.1f} M, {trained / 1e6:.1f} M trained"),
        ("projection head", f"{head / 1e6:.2f} M, in training only" if head else "none"),
        ("losses", ", ".join(name for name in type(run.loss).model_fields if getattr(run.loss, name) > 0)),
        ("crop", f"{run.data.size[0]} x {run.data.size[1]}, two frames of it a pair"),
        ("pairs a step", f"{pairs} = {config.batch} x {config.accumulate} passes x {devices} processes"),
        ("steps", f"{config.steps}, {config.steps * pairs} pairs"),
        ("learning rate", rate),
        ("peak memory", f"{memory / 2**20:.0f} MiB a process, {config.precision}"),
        (
            "a pass",
            f"{statistics.median(working):.2f} s, and {statistics.median(waiting):.2f} s for its data",
        ),
        ("whole run", f"{duration(seconds)} on this machine, without validation"),
    )
    for row in rows:
        table.add_row(*row)
    if missing:
        table.caption = "data.root is not set; measured on synthetic streets"
    return table


def peak_memory(device: torch.device) -> float:
    """Bytes: of torch on a GPU, of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_mib() * 2**20


def duration(seconds: float) -> str:
    """In the two largest units, like 3 d 4 h; from minutes on."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (large, size), (small, part) in itertools.pairwise(units):
        if seconds >= size or large == "min":
            return f"{int(seconds // size)} {large} {int(seconds % size // part)} {small}"
    raise AssertionError
