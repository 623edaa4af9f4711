"""The command line: one function per command, each a thin one over the Python function of the same name.

What computes is imported only once the command is known: help comes at once, and `evaluate` needs no PyTorch.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import tyro

from panoptube.config import RunConfig
from panoptube.errors import UserError
from panoptube.recipes import RECIPES, load_run


def predict(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")],
    out: Path,
    weights: Path | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    device: str = "auto",
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Label every pixel of a video and follow every object.

    Writes OUT/overlay.mp4 to look at, and OUT/panoptic.json with OUT/panoptic/*.png to compute with.

    Args:
        source: Video file, folder of pictures, or a quoted pattern such as 'drive/*.png'.
        out: New or empty folder for the result.
        weights: A file that `panoptube train` wrote; None for the weights that come with panoptube.
        fps: Frames per second; None for the video's own, and 10 for pictures.
        max_frames: Stop after this many frames.
        device: cpu, cuda, cuda:1, mps, or auto for the GPU if there is one.
        overwrite: Replace an earlier result in OUT once the new one is complete.
    """
    from panoptube.predict import predict as run

    try:
        done = run(source, out, weights, fps, max_frames, device, overwrite)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"nothing was written to {out}") from error
    for note in done.notes:
        print(f"panoptube: {note}", file=sys.stderr)
    print(f"{out}: {done.frames} frames, {done.tracks} tracks, {done.fps:.1f} frames/s")


def train(
    run: Annotated[RunConfig, tyro.conf.arg(name="")],
    out: Path,
    init: Path | None = None,
    devices: int | Literal["auto"] = 1,
    nodes: int = 1,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> None:
    """Train a network; every setting of the recipe can be changed.

    Goes on where it stopped if OUT holds a checkpoint of the same run.

    Args:
        run: The recipe.
        out: Folder of the run: config.yaml, losses.csv, checkpoint.pt, weights.safetensors.
        init: Weights to start from; None for a backbone from ImageNet.
        devices: Processes on this machine, one per GPU, or auto for all GPUs.
        nodes: Machines, each of which runs this same command.
        accelerator: What to compute on.
    """
    from panoptube.train import train as run_training

    run_training(run, out, init, devices, nodes, accelerator)


def evaluate(truth: Path, pred: Path, clip_length: int = 6, windows: tuple[int, ...] = (1, 2, 3, 4)) -> None:
    """Score a result against the truth: video panoptic quality (VPQ).

    Both folders hold panoptic.json and panoptic/*.png as `panoptube predict` writes them, or folders of that
    form, one for each clip, or the files of Cityscapes-VPS.

    Args:
        truth: Folder of the truth.
        pred: Folder of the result.
        clip_length: Labelled frames of a clip, where one JSON holds several clips.
        windows: Lengths of the windows in labelled frames.
    """
    from rich.console import Console

    from panoptube.evaluate import evaluate as run

    Console().print(*run(truth, pred, clip_length, windows).tables(), sep="\n")


COMMANDS = {f.__name__: f for f in (predict, train, evaluate)}


def main() -> int:
    """Run the command in `sys.argv`; the exit code is 0, 2 for a user's mistake, 130 for an interruption."""
    # Being told to stop leaves as little behind as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            _run(sys.argv[1:])
        finally:
            sys.stdout.flush()  # here, where a closed pipe is dealt with
    except UserError as error:
        print(f"panoptube: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print("; ".join(["panoptube: interrupted", *map(str, error.args)]), file=sys.stderr)
        return 130
    except (
        BrokenPipeError
    ):  # whoever read the output has gone; the interpreter's last flush must not fail on it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 130
    return 0


def _run(args: list[str]) -> None:
    if args == ["--version"]:
        print(f"panoptube {version('panoptube')}")
    elif args[:1] == ["train"]:
        _run_train(args[1:])
    else:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="panoptube",
            description="Video panoptic segmentation: every pixel labelled, every segment followed.",
            args=args or ["--help"],
        )


def _run_train(args: list[str]) -> None:
    """The recipe comes first, since it decides the defaults of all settings."""
    if not args or args[0].startswith("-"):
        print("usage: panoptube train RECIPE --out OUT [SETTINGS]\n\nRECIPE is a .yaml file, or one of")
        for name, recipe in RECIPES.items():
            print(f"  {name:14} {(recipe.__doc__ or '').splitlines()[0]}")
        print("\nIts settings and their defaults: panoptube train RECIPE --help")
        if args[:1] not in (["-h"], ["--help"]):
            raise UserError("train needs a recipe; name one of the above")
        return
    command = partial(train, run=load_run(args[0]))
    tyro.cli(command, prog=f"panoptube train {args[0]}", args=args[1:])
