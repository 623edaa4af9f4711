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
    flow: Path | None = None,
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
        flow: For a network that fuses frames: weights of FlowNet2; None for OpenCV's DIS flow.
    """
    from panoptube.predict import predict as run

    try:
        done = run(source, out, weights, fps, max_frames, device, overwrite, flow)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"nothing was written to {out}") from error
    for note in done.notes:
        print(f"panoptube: {note}", file=sys.stderr)
    print(f"{out}: {done.frames} frames, {done.tracks} tracks, {done.fps:.1f} frames/s")


def train(
    run: Annotated[RunConfig, tyro.conf.arg(name="")],
    out: Path | None = None,
    init: Path | None = None,
    devices: int | Literal["auto"] = 1,
    nodes: int = 1,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    dry_run: bool = False,
) -> None:
    """Train a network; every setting of the recipe can be changed.

    Goes on where it stopped if OUT holds a checkpoint of the same run.

    Args:
        run: The recipe.
        out: Folder of the run: config.yaml, losses.csv, checkpoint.pt, weights.safetensors. Required.
        init: Weights to start from; None for a backbone from ImageNet.
        devices: Processes on this machine, one per GPU, or auto for all GPUs.
        nodes: Machines, each of which runs this same command.
        accelerator: What to compute on.
        dry_run: Try a few steps, say what the run would take, and write nothing.
    """
    if dry_run:
        from rich.console import Console

        from panoptube.dry_run import dry_run as try_steps

        Console().print(try_steps(run, 1 if devices == "auto" else devices * nodes, accelerator))
        return
    from panoptube.train import train as run_training

    if out is None:
        raise UserError("train needs a folder for the run; give --out, or --dry-run to try without one")
    run_training(run, out, init, devices, nodes, accelerator)


def evaluate(
    truth: Path,
    pred: Path,
    protocol: Literal["cityscapes-vps", "viper", "vipseg", "vipseg-8"] = "cityscapes-vps",
    metrics: tuple[Literal["vpq", "pq", "stq", "tc", "vc", "hota"], ...] = ("vpq",),
    official: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    windows: tuple[int, ...] | None = None,
    clip_length: int = 6,
    skip_unlabelled: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    images: Path | None = None,
    flow: Path | None = None,
    workers: int = 1,
    worst: int = 0,
    json: Path | None = None,
    csv: Path | None = None,
    markdown: Path | None = None,
) -> None:
    """Score a result against the truth.

    Both folders hold panoptic.json and panoptic/*.png as `panoptube predict` writes them, or folders of that
    form, one for each clip, or the files of Cityscapes-VPS, VIPER or VIPSeg.

    Args:
        truth: Folder of the truth.
        pred: Folder of the result.
        protocol: Whose windows VPQ has.
        metrics: What to compute. hota brings HOTA, IDF1 and MOTSA, and needs panoptube[tracking].
        official: Compute as the published scripts do, bug for bug.
        windows: Other lengths of the windows, in frames with truth.
        clip_length: Frames of a clip, where one JSON holds several clips without saying so.
        skip_unlabelled: Leave out predicted frames that have no truth.
        images: For tc: folder of the frames' images, from which flow is computed.
        flow: For tc: folder of the flow from each frame to the next, .flo, .npy or KITTI's .png.
        workers: Threads that read PNGs.
        worst: List so many clips and frames that cost most; computes vpq and pq.
        json: Write everything to this file.
        csv: Write every number to this file, one a line.
        markdown: Write the tables to this file.
    """
    from rich.console import Console

    from panoptube.evaluate import evaluate as run

    named: list[str] = [*metrics, *(m for m in ("vpq", "pq") if worst and m not in metrics)]
    result = run(
        truth,
        pred,
        protocol,
        named,
        official,
        windows,
        clip_length,
        skip_unlabelled,
        images,
        flow,
        workers,
    )
    result.write(json, csv, markdown)
    # The papers' row fits on one line; a pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(*result.tables(), *result.worst(worst), sep="\n")


def view(
    truth: Path,
    pred: Path,
    out: Path,
    frames: tuple[str, ...] = (),
    worst: int = 5,
    images: Path | None = None,
    clip_length: int = 6,
    skip_unlabelled: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    workers: int = 1,
) -> None:
    """Draw frames side by side: truth, prediction, and what was missed or invented.

    Args:
        truth: Folder of the truth, as for `panoptube evaluate`.
        pred: Folder of the result.
        out: Folder for the pictures, one for each frame.
        frames: Names of frames; none for those that cost PQ most.
        worst: How many of those.
        images: Folder of the frames' images to draw on.
        clip_length: Frames of a clip, where one JSON holds several clips without saying so.
        skip_unlabelled: Leave out predicted frames that have no truth.
        workers: Threads that read PNGs.
    """
    from panoptube.view.mistakes import view as run

    for path in run(truth, pred, out, frames, worst, images, clip_length, skip_unlabelled, workers):
        print(path)


def synthesize(
    clips: int,
    out: Path,
    frames: int = 30,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
    difficulty: float = 0.5,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Draw street scenes with the exact class and id of every pixel, to train and test on.

    Args:
        clips: Number of clips.
        out: New or empty folder for them.
        frames: Frames of a clip.
        size: Height and width in pixels.
        seed: Of the first clip; the same seeds give the same clips.
        difficulty: From 0, few objects in good light, to 1.
        overwrite: Replace what is in OUT once the new clips are complete.
    """
    from panoptube.data.streets import synthesize as run

    print(run(clips, out, frames, size, seed, difficulty, overwrite))


def convert(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")],
    out: Path,
    flow_out: Path | None = None,
    legacy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Make a weights file of another project's checkpoint.

    Takes the published VPSNet checkpoints (Track, FuseTrack, Fuse; Cityscapes or VIPER), FlowNet2, and
    torchvision's Mask R-CNN of COCO as a start for training. Says what it carried over; entries that don't
    fit are listed, and then nothing is written.

    Args:
        checkpoint: A .pth or .pth.tar file of PyTorch.
        out: New weights file, .safetensors.
        flow_out: New file for the FlowNet2 that lies in a FuseTrack checkpoint.
        legacy: The network behaves as the published code does, defects included.
    """
    from panoptube.convert import Misfit
    from panoptube.convert import convert as run

    try:
        lines = run(checkpoint, out, flow_out, legacy)
    except Misfit as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        raise
    print(f"{out}: {lines[0]}", *lines[1:], sep="\n")


COMMANDS = {f.__name__: f for f in (predict, train, evaluate, synthesize, view, convert)}


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
            print(f"  {name:28} {(recipe.__doc__ or '').splitlines()[0]}")
        print("\nIts settings and their defaults: panoptube train RECIPE --help")
        if args[:1] not in (["-h"], ["--help"]):
            raise UserError("train needs a recipe; name one of the above")
        return
    command = partial(train, run=load_run(args[0]))
    tyro.cli(command, prog=f"panoptube train {args[0]}", args=args[1:])
