"""Training: pair of frames -> network (both) -> losses, one named term each; one loop for every machine."""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from panoptube.checkpoint import load_checkpoint, save_checkpoint, write_atomically
from panoptube.config import RunConfig, TrainConfig
from panoptube.data.clip import Clip, Image
from panoptube.data.datasets import read_dataset
from panoptube.data.pairs import FramePair, PairDataset, load_batches
from panoptube.data.streets import street_clip
from panoptube.errors import UserError
from panoptube.evaluate import evaluate_clips, scored_frames
from panoptube.flow.learned import flow_network
from panoptube.network.backbone import load_imagenet
from panoptube.network.vpsnet import VPSNet, vpsnet
from panoptube.network.weights import load_fitting, save_weights
from panoptube.panoptic.frame import PanopticFrame
from panoptube.predictor import VideoPredictor
from panoptube.training_log import TrainingLog, Validate
from panoptube.training_step import TrainingStep
from panoptube.view.overlay import overlay

SCORED_EVERY = 5
"""Validation scores every fifth frame, as Cityscapes-VPS does."""

NO_VALIDATION = "set train.validate_every to 0 to train without validation"


def train(
    run: RunConfig,
    out: Path | str,
    init: Path | str | None = None,
    devices: int | str = 1,
    nodes: int = 1,
    accelerator: str = "auto",
    console: Console | None = None,
) -> int:
    """Trains a network and leaves config.yaml, losses.csv, checkpoint.pt and weights.safetensors in `out`.

    If `out` has a checkpoint of the same run, the run goes on from there; on the CPU to the last bit as if
    it had never stopped. Ctrl-C or SIGTERM saves and stops after the present step; a second one stops at
    once.

    Args:
        run: what to train, on what, and how.
        out: folder of the run; made if need be.
        init: weights to start from; what doesn't fit starts at random. None: a backbone from ImageNet.
        devices: processes on this machine, one per GPU, or "auto" for all GPUs.
        nodes: machines, each of which runs this same command under torchrun or a cluster's launcher.
        accelerator: cpu, cuda, mps or auto.
        console: where progress goes; standard error if None.

    Returns:
        Steps done; fewer than `run.train.steps` if it was asked to stop.

    Raises:
        UserError: the data can't be read, `out` has another run's checkpoint, a loss is no longer finite, or
            the disk is full.
    """
    out = Path(out)
    console = console or Console(stderr=True)
    fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes)
    fabric.launch()
    console.quiet = console.quiet or not fabric.is_global_zero

    torch.manual_seed(run.train.seed)
    pairs, flow = training_data(run, fabric.device)
    network = vpsnet(run.network, pairs.taxonomy)
    if fabric.is_global_zero and not (out / "checkpoint.pt").exists():  # the other processes get its weights
        if init is None:
            console.print(load_imagenet(network.backbone, run.network.backbone))
        else:
            console.print(f"{init}: {load_fitting(network, Path(init))}")
    validate = None
    if run.train.validate_every and fabric.is_global_zero:
        validate = Validation(network, run, out)
    step = TrainingStep(network, run, flow)
    return fit(
        fabric, step, run, pairs, out, lambda path: save_weights(path, network, run), validate, console
    )


def training_data(run: RunConfig, device: torch.device) -> tuple[PairDataset, nn.Module | None]:
    """The pairs of a run, and on `device` the network of their flow, if they are to come without.

    Raises:
        UserError: the data or the flow network's weights can't be read.
    """
    if run.data.flownet2 is None or not run.flow_directions:
        return PairDataset(run.data, run.train.seed, run.flow_directions), None
    return PairDataset(run.data, run.train.seed), flow_network("flownet2", run.data.flownet2).to(device)


def fit(
    fabric: Fabric,
    module: nn.Module,
    run: RunConfig,
    pairs: torch.utils.data.Dataset[FramePair],
    out: Path,
    save_weights: Callable[[Path], object],
    validate: Validate | None,
    console: Console,
) -> int:
    """The training loop.

    A pair goes to the same optimiser step whatever the number of processes: with R of them, process r takes
    in step s, pass a, the batch number (s * accumulate + a) * R + r.

    Args:
        fabric: launched.
        module: (pair, seed, step) -> weighted terms by name, each (); the same names at every step.
        run: its `train` and `data.workers` are used; all of it is saved.
        pairs: training pairs, endless, by index.
        out: folder of the run.
        save_weights: writes the weights file, at each checkpoint and at the end.
        validate: scores after so many steps, on the first process alone; or None.
        console: where progress goes.

    Returns:
        Steps done.

    Raises:
        UserError: see `train`.
    """
    config, first = run.train, fabric.is_global_zero
    processes = fabric.world_size
    optimizer: torch.optim.Optimizer = build_optimizer(module, config)
    checkpoint = out / "checkpoint.pt"
    pairs_per_step = config.batch * config.accumulate * processes
    done = load_checkpoint(checkpoint, run, pairs_per_step, module, optimizer)
    average = fabric.all_reduce(torch.tensor(float(done), device=fabric.device), reduce_op="mean")
    if average != done:
        raise UserError(f"{checkpoint} is not there for all processes; give a folder that machines share")
    if done:
        console.print(f"{out}: {done} of {config.steps} steps are done")
    if first:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "config.yaml", lambda file: file.write(run.to_yaml().encode()))
    wrapped, optimizer = fabric.setup(module, optimizer)
    wrapped.train()
    # Fabric's own mixed precision would rewrite the pair's tensors, which a frozen pair doesn't allow.
    mixed = torch.autocast(fabric.device.type, torch.bfloat16, enabled=config.precision == "bf16-mixed")
    batches = load_batches(pairs, run, done * config.accumulate, processes, fabric.global_rank)

    def save() -> None:
        if first:
            save_checkpoint(checkpoint, run, done, pairs_per_step, module, optimizer)
            save_weights(out / "weights.safetensors")
        fabric.barrier()

    saved, stopping = done, False
    logging = TrainingLog(out, done, config.steps, console) if first else nullcontext()
    with StopRequest() as stop, logging as log, closing(batches):
        while done < config.steps and not stopping:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done, config)
            try:
                passes = list(islice(batches, config.accumulate))
            except RuntimeError:  # a signal to all processes has ended the workers as well
                if not stop.asked:
                    raise
                break
            sums: dict[str, Tensor] = {}
            for number, (pair, seed) in enumerate(passes, 1):
                torch.manual_seed(seed)  # for layers with randomness of their own
                with fabric.no_backward_sync(wrapped, enabled=number < config.accumulate):
                    with mixed:
                        terms = wrapped(pair.to(fabric.device), seed, done)
                    fabric.backward(torch.stack(list(terms.values())).sum() / config.accumulate)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0) + term.detach().float() / config.accumulate
            # The mean over processes, so that all see the same numbers and stop together.
            stacked = torch.stack([*sums.values(), torch.tensor(float(stop.asked), device=fabric.device)])
            *values, asked = fabric.all_reduce(stacked, reduce_op="mean").tolist()  # type: ignore[union-attr]
            stopping = asked > 0
            numbers = dict(zip(sums, values))
            norm = fabric.clip_gradients(wrapped, optimizer, max_norm=config.clip, error_if_nonfinite=False)
            numbers["gradient"] = float(norm)  # type: ignore[arg-type]
            check_finite(numbers, done, out)
            optimizer.step()
            optimizer.zero_grad()
            if log is not None:
                log.step(done, {"total": sum(values), **numbers, "lr": learning_rate(done, config)})
            done += 1
            if done % config.save_every == 0 or done == config.steps:
                save()
                saved = done
            if config.validate_every and (done % config.validate_every == 0 or done == config.steps):
                if log is not None and validate is not None:
                    log.validation(done, validate)
                    wrapped.train()
                fabric.barrier()
        if saved < done:
            save()
    if done < config.steps:
        console.print(f"stopped after step {done} of {config.steps}; run the same command to go on")
    return done


def build_optimizer(module: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Over every parameter that is trained; weight decay on all of them (dossier 10.1)."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(trained, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Of step `step`, counted from 0: the schedule, times a linear warm-up from a third (dossier 10.1).

    steps: times 0.1 from each milestone on, milestones as shares of all steps (dossier 10.3).
    cosine: half a cosine from the full rate at step 0 to a hundredth of it at the last step.
    """
    if config.schedule == "cosine":
        progress = step / max(config.steps - 1, 1)
        factor = 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2
    else:
        factor = 0.1 ** sum(step >= round(share * config.steps) for share in config.milestones)
    if step < config.warmup:
        factor *= 1 - (1 - step / config.warmup) * 2 / 3
    return config.lr * factor


def check_finite(numbers: dict[str, float], step: int, out: Path) -> None:
    """Stops a run that has gone wrong before the step spoils the weights.

    Raises:
        UserError: a number is not finite; names the step and the terms.
    """
    wrong = [f"{name} {value}" for name, value in numbers.items() if not math.isfinite(value)]
    if wrong:
        raise UserError(
            f"step {step + 1}: not finite: {', '.join(wrong)}; what was saved in {out} is kept; "
            "lower train.lr or train.clip, or lengthen train.warmup, and train into another folder"
        )


class StopRequest:
    """While entered, SIGTERM or Ctrl-C sets `asked`; a second one raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only there can handlers be set
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


class Validation:
    """VPQ and pictures of clips that are never trained on; a callable for `fit`.

    The clips are streets of the seeds 0, 1, ... and the videos of the split "val", where the run has such
    data. Pictures show the prediction above the truth for each clip's last scored frame; they go to
    `out`/pictures.

    Raises:
        UserError: the run trains on labelled videos alone, and none that is long enough has the split "val",
            or that split has other classes.
    """

    def __init__(self, network: VPSNet, run: RunConfig, out: Path) -> None:
        self.network, self.folder = network, out / "pictures"
        count, data = run.train.validation_clips, run.data
        self.clips: list[Clip] = []
        if data.streets > 0:
            middle = sum(data.difficulty) / 2
            self.clips += [street_clip(seed, size=data.size, difficulty=middle) for seed in range(count)]
        if data.videos > 0 and data.root is not None:
            try:
                videos = read_dataset(data.dataset, data.root, "val", data.sequences)
            except UserError as error:
                raise UserError(f"{error}, or {NO_VALIDATION}") from error
            self.clips += [clip for clip in videos if scored_frames(clip, SCORED_EVERY)][:count]
        if not self.clips:
            raise UserError(
                f"no clip of the split 'val' in {data.root} has {SCORED_EVERY} frames; {NO_VALIDATION}"
            )
        own = [(c.name, c.isthing) for c in network.taxonomy.categories]
        if any([(c.name, c.isthing) for c in clip.taxonomy.categories] != own for clip in self.clips):
            raise UserError(
                f"the split 'val' in {data.root} has other classes than 'train', or another order of them; "
                f"give both the same, or {NO_VALIDATION}"
            )

    def __call__(self, done: int) -> tuple[dict[str, float], dict[str, Image]]:
        """Scores in percent by name, and pictures (H, W, 3) uint8 RGB by name, after `done` steps."""
        self.network.eval()
        pictures: dict[str, Image] = {}

        def predict(clip: Clip) -> Iterator[PanopticFrame]:
            predictor = VideoPredictor(self.network)
            show = scored_frames(clip, SCORED_EVERY)[-1]
            for t in range(len(clip)):
                image = clip.image(t)
                frame = predictor.step(image)
                truth = clip.truth(t) if t == show else None
                if truth is not None:
                    seen = [overlay(image, each, clip.taxonomy) for each in (frame, truth)]
                    pictures[clip.name] = np.concatenate(seen)
                yield frame

        result = evaluate_clips(predict, self.clips, SCORED_EVERY, progress=sys.stderr.isatty())
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, picture in pictures.items():
            cv2.imwrite(str(self.folder / f"{done:06d}_{name}.jpg"), picture[:, :, ::-1])
        scores = {"vpq": result.all.pq, "vpq_things": result.things.pq, "vpq_stuff": result.stuff.pq}
        return {name: 100 * score for name, score in scores.items()}, pictures
