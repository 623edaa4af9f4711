"""The command line: one function per command, each a thin one over the Python function of the same name.

What computes is imported only once the command is known: help comes at once, and `evaluate` needs no PyTorch.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
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
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto",
    stride: int = 1,
    start: str | None = None,
    end: str | None = None,
    max_size: int | None = None,
    cuts: bool = True,
    batch: int = 1,
    compile: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Label every pixel of a video and follow every object.

    Writes OUT/overlay.mp4 to look at, and OUT/panoptic.json with OUT/panoptic/*.png to compute with. Ctrl-C
    ends a camera or live stream and keeps the result; of a file, nothing is written then.

    Args:
        source: Video file, folder of pictures, a quoted pattern such as 'drive/*.png', the address of a
            stream (rtsp://, http://), or the number of a camera: 0 is the first.
        out: New or empty folder for the result.
        weights: A file that `panoptube train` or `panoptube export` wrote; None for the weights that come
            with panoptube.
        fps: Frames per second of the source; None for the video's own times, and 10 for pictures.
        max_frames: Stop after this many frames.
        device: cpu, cuda, cuda:1, mps, or auto for the GPU if there is one.
        overwrite: Replace an earlier result in OUT once the new one is complete.
        flow: For a network that fuses frames: weights of FlowNet2; None for OpenCV's DIS flow.
        precision: Of the heavy layers; fp16 needs a GPU. auto is bf16 on a CPU that is faster with it
            (tried out at the start), and float32 elsewhere.
        stride: Take every so many-th frame.
        start: Begin here: seconds, such as 90.5, or h:mm:ss, such as 0:01:30.
        end: Stop here: seconds or h:mm:ss.
        max_size: Shrink larger frames until their long edge has so many pixels.
        cuts: Start tracks anew at a hard cut of the film.
        batch: Frames of a recorded video that go through the network at once. Takes more memory, and pays
            on a GPU that one frame doesn't fill.
        compile: Let torch.compile make the backbone faster. Takes a C++ compiler and up to a minute; the end
            says from how many frames on it pays off.
    """
    from panoptube.predict import GOOD_FOR
    from panoptube.predict import predict as run

    try:
        done = run(
            source,
            out,
            weights,
            fps,
            max_frames,
            device,
            overwrite,
            flow,
            precision,
            stride,
            start,
            end,
            max_size,
            cuts,
            batch,
            compile,
        )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"nothing was written to {out}") from error
    for note in done.notes:
        print(f"panoptube: {note}", file=sys.stderr)
    if weights is None:
        print(GOOD_FOR)
    if done.void > 1 / 3:
        print(
            f"panoptube: {done.void:.0%} of the pixels are void: the network knows little of such videos",
            file=sys.stderr,
        )
    cut = f" {len(done.cuts)} cuts (frames {', '.join(map(str, done.cuts))})," if done.cuts else ""
    print(f"{out}: {done.frames} frames, {done.tracks} tracks,{cut} {done.fps:.1f} frames/s")


def predict_many(
    videos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LIST")],
    out: Path,
    workers: int = 1,
    weights: Path | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    device: str = "auto",
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    flow: Path | None = None,
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto",
    stride: int = 1,
    start: str | None = None,
    end: str | None = None,
    max_size: int | None = None,
    cuts: bool = True,
    ray: str | None = None,
) -> None:
    """Do what `predict` does for every video of a list.

    Writes a folder for each into OUT, and OUT/videos.csv, a table of results and failures. A video that
    fails doesn't stop the others; the exit code is 1 then. Run it again after a stop: it leaves out what is
    finished and tries again what failed.

    Args:
        videos: Text file with a source on each line; relative to the file's folder.
        out: Folder for the results.
        workers: Processes, or tasks of a cluster; each does one video at a time on its share of the cores.
        weights: As for predict, and so are all options below, for every video.
        fps: Frames per second of the sources.
        max_frames: Stop after this many frames of a video.
        device: cpu, cuda, cuda:1, mps, or auto for the GPU if there is one; all workers share it.
        overwrite: Do finished videos again; each replaces the earlier one once it is complete.
        flow: Weights of FlowNet2.
        precision: Of the heavy layers.
        stride: Take every so many-th frame.
        start: Begin here: seconds, such as 90.5, or h:mm:ss, such as 0:01:30.
        end: Stop here: seconds or h:mm:ss.
        max_size: Shrink larger frames until their long edge has so many pixels.
        cuts: Start tracks anew at hard cuts.
        ray: Address of a Ray cluster that shall do the work, as ray.init takes it, or local to start Ray on
            this machine. Needs panoptube[ray].
    """
    from panoptube.predict_many import predict_many as run

    done = run(
        videos,
        out,
        workers,
        weights,
        fps,
        max_frames,
        device,
        overwrite,
        flow,
        precision,
        stride,
        start,
        end,
        max_size,
        cuts,
        ray,
    )
    if done.failed:
        print(
            f"panoptube: {done.failed} of {len(done.videos)} videos failed; {done.table} says why",
            file=sys.stderr,
        )
        raise SystemExit(1)
    print(f"{out}: {len(done.videos)} videos, {sum(row.frames or 0 for row in done.videos)} frames")


def export(
    out: Path,
    weights: Path | None = None,
    format: Literal["onnx", "openvino"] = "onnx",
    size: tuple[int, int] | None = None,
) -> None:
    """Write the network as one file for ONNX Runtime or OpenVINO.

    `panoptube predict --weights OUT` labels videos with it. Needs panoptube[onnx] or panoptube[openvino].

    Args:
        out: The file: *.onnx, or *.xml for OpenVINO, which gets a .bin beside it.
        weights: A file that `panoptube train` wrote; None for the weights that come with panoptube.
        format: For which of them.
        size: Height and width of the frames with padding, multiples of 32, to fix them; None for any size.
    """
    from panoptube.export import export as run

    print(run(out, weights, format, size))


def serve(
    port: int = 7860,
    host: str = "127.0.0.1",
    weights: Path | None = None,
    device: str = "auto",
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto",
) -> None:
    """Open a web page on this machine that labels videos.

    A video is dropped in; the latest frame is shown while it is labelled; the overlay, the result and a
    report can be downloaded. Until Ctrl-C, which removes uploads and results. Needs panoptube[serve].

    Args:
        port: Where to listen; 0 for any port that is free.
        host: Address to listen at; 0.0.0.0 lets everybody on the network use the page.
        weights: A file that `panoptube train` or `panoptube export` wrote; None for the weights that come
            with panoptube.
        device: cpu, cuda, cuda:1, mps, or auto for the GPU if there is one.
        precision: Of the heavy layers, as for predict.
    """
    from panoptube.serve import serve as run

    run(port, host, weights, device, precision)


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
        truth: Folder of the truth, or the panoptic_SPLIT.json of COCO panoptic video.
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
    pred: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction],
    out: Path,
    truth: Path | None = None,
    name: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    images: Path | None = None,
    clip: str | None = None,
    frames: tuple[str, ...] = (),
    count: int = 4,
    clip_length: int = 6,
    skip_unlabelled: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    workers: int = 1,
) -> None:
    """Draw results of one or several models beside the truth.

    If OUT ends with .png, .pdf or .svg: one figure of a clip, a row for each model, the same object in one
    colour in all rows, with insets where they differ most. Else: a picture of each of the worst frames with
    what was missed or invented.

    Args:
        pred: Folder of a result, as for `panoptube evaluate`; once for each model.
        out: File for a figure, or folder for pictures.
        truth: Folder of the truth; a figure can do without.
        name: What to call the model, once for each; none for the names of their folders.
        images: Folder of the frames' images: a row of the figure, and what pictures are drawn on.
        clip: Name of the clip, where there are several; a figure shows one.
        frames: Names of frames; none to choose.
        count: How many to choose: evenly through the clip for a figure, those that cost PQ most for pictures.
        clip_length: Frames of a clip, where one JSON holds several clips without saying so.
        skip_unlabelled: Leave out predicted frames that have no truth.
        workers: Threads that read PNGs.
    """
    from panoptube.view.mistakes import view as run

    for path in run(
        pred, out, truth, name, images, clip, frames, count, clip_length, skip_unlabelled, workers
    ):
        print(path)


def report(
    result: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULT")],
    out: Path | None = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Make one HTML page of a result, to look through it in a browser.

    The video with a timeline of its tracks, and how much there is of each class over time. Needs no network.

    Args:
        result: Folder that `panoptube predict` wrote.
        out: File for the page; None for RESULT.html beside the folder.
        overwrite: Replace OUT.
    """
    from panoptube.report.report import report as run

    done = run(result, out, overwrite)
    print(f"{done.out}: {done.frames} frames, {done.tracks} tracks")


def synthesize(
    clips: int,
    out: Path,
    frames: int = 30,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
    difficulty: float = 0.5,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    layout: Annotated[
        Literal["labelled-video", "cityscapes-vps", "viper", "kitti-step", "vipseg", "coco-video"],
        tyro.conf.arg(name="as"),
    ] = "labelled-video",
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
        layout: The dataset whose folders, file names and classes OUT has; every fifth clip is of the split
            val, and in all but labelled-video the last one, too. cityscapes-vps needs 30 frames.
    """
    from panoptube.data.streets import synthesize as run

    print(run(clips, out, frames, size, seed, difficulty, overwrite, layout))


def prepare(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    root: Path,
    splits: tuple[str, ...] = (),
    sequences: Path | None = None,
    frames: int | None = 50,
    void_unknown: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    workers: int | None = None,
) -> None:
    """Make the files that a dataset's own tools make of its download.

    Truth to evaluate against, label maps and instances, in ROOT itself. Says what to download where something
    is missing. Run it again after a stop: it goes on where it was.

    Args:
        name: cityscapes-vps, viper or vipseg; kitti-step and coco-video need no preparation.
        root: Folder where the dataset was unpacked.
        splits: Some of train, val, test; none for what is there.
        sequences: For viper: text file with the sequences to take, one a line; None for all.
        frames: For viper: so many of each sequence, from the first on; None for all.
        void_unknown: For cityscapes-vps: take colours of no class as void, as the published scripts do.
        workers: Processes; None for one per core.
    """
    from panoptube.data.datasets import DATASETS
    from panoptube.data.files import MissingData
    from panoptube.prepare import prepare as run

    try:
        lines = run(name, root, splits, sequences, frames, void_unknown, workers)
    except MissingData:
        print(f"{name}, as it should be unpacked:\n\n{DATASETS[name].tree}\n", file=sys.stderr)
        raise
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("the same command goes on where it was") from error
    print(*lines, sep="\n")


def import_cvat(
    export: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPORT")],
    out: Path,
    split: str,
    stuff: tuple[str, ...] = (),
    images: Path | None = None,
    fps: float = 25.0,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Make a dataset of videos that were annotated in CVAT, to train and evaluate on (coco-video).

    EXPORT has a folder for each task, called as its video should be: the task's export "CVAT for video 1.1",
    unpacked.

    Args:
        export: Folder of these folders, or one of them.
        out: Folder of the dataset; other splits in it stay.
        split: What to call these videos: train, val or another plain name.
        stuff: Labels that have no objects, such as road and sky; all others are things.
        images: Folder with a folder of images for each video; None for images/ in the export.
        fps: Frames per second, which the export doesn't say.
        overwrite: Replace this split in OUT once the new one is complete.
    """
    from panoptube.data.cvat import import_cvat as run

    print(run(export, out, split, stuff, images, fps, overwrite))


def check(
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")],
    root: Path,
    split: str | None = None,
    json: Path | None = None,
    html: Path | None = None,
) -> None:
    """Find what is wrong in labels, and where.

    Unreadable files, ids and areas that don't fit, tracks that jump or swap, objects without a label for
    one frame, and more.

    Args:
        name: A dataset as for prepare, labelled-video, or panoptic for a folder with panoptic.json.
        root: Folder of the dataset.
        split: Some datasets' train or val; None for all there is.
        json: Write every fault to this file.
        html: Write a page with pictures of the worst faults to this file.
    """
    from rich.console import Console

    from panoptube.check.check import check as run

    report = run(name, root, split, json, html)
    Console(width=None if sys.stdout.isatty() else 120).print(report.table())


def submit(
    name: Annotated[
        Literal["cityscapes-vps", "kitti-step"], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")
    ],
    pred: Path,
    root: Path,
    out: Path,
    split: str = "test",
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Check results and pack them into the file that a benchmark's server takes.

    Args:
        name: The benchmark: cityscapes-vps or kitti-step.
        pred: Folder of the result: panoptic.json and panoptic/, or a folder of that form for each clip,
            called by its number, such as 0010.
        root: Folder of the dataset, which says which frames there must be.
        out: File to make, such as submission.zip.
        split: Split of the dataset.
        overwrite: Replace OUT.
    """
    from panoptube.submit import submit as run

    print(f"{out}: {run(name, pred, root, out, split, overwrite)} frames")


def convert(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")],
    out: Path,
    flow_out: Path | None = None,
    legacy: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    match_score: bool = True,
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
        match_score: The learned match score decides, too, which object a detection is; it didn't when the
            published tables were made.
    """
    from panoptube.convert import Misfit
    from panoptube.convert import convert as run

    try:
        lines = run(checkpoint, out, flow_out, legacy, match_score)
    except Misfit as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        raise
    print(f"{out}: {lines[0]}", *lines[1:], sep="\n")


def convert_result(
    result: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULT")],
    to: Literal["coco-panoptic", "coco-instances", "two-channel", "csv", "parquet", "cvat"],
    out: Path,
    fps: float | None = None,
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Write a result in a form that other tools read.

    Args:
        result: Folder of the result, as for `panoptube evaluate`, or of several, one for each video.
        to: coco-panoptic: an image for each frame. coco-instances: things alone, as YouTube-VIS.
            two-channel: PNGs whose R is the class and G the object. csv, parquet: tables of tracks. cvat:
            polygons to import into CVAT and to correct there.
        out: New folder; for coco-instances a file, such as instances.json.
        fps: Frames per second, for the column `time` of tables; None leaves it out.
        overwrite: Replace an earlier conversion in OUT once the new one is complete.
    """
    from panoptube.convert_result import convert_result as run

    print(run(result, to, out, fps, overwrite))


def ablate(
    tables: Annotated[
        tuple[Literal["table1", "table2", "table3", "table4", "gap"], ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="TABLE ..."),
    ],
    out: Path,
    init: Path | None = None,
    seeds: tuple[int, ...] = (0, 1, 2),
    steps: int | None = None,
    family: Literal["streets", "cityscapes-vps", "viper"] = "streets",
    data: Path | None = None,
    settings: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE ...")] = (),
    only: tuple[str, ...] = (),
    shard: str = "1/1",
    eval_seeds: tuple[int, int] = (1000, 1020),
    eval_frames: int = 30,
    eval_difficulty: float = 0.5,
    speed: bool = True,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> None:
    """Train and score every row of SiamTrack's tables, and write them beside the paper's numbers.

    Writes OUT/TABLE.md, .csv, .json and .png. It can be stopped at any time: the same command goes on, and
    what is finished in OUT/runs is kept.

    Args:
        tables: Which tables; rows that they share are trained once.
        out: Folder for the runs and the tables; may be shared by machines that do a shard each.
        init: Weights that every row starts from; None for a backbone from ImageNet.
        seeds: Each row is trained once for each.
        steps: Steps of a row; None for the recipe's.
        family: Small networks on streets, or the published ones on Cityscapes-VPS or VIPER.
        data: Folder of Cityscapes-VPS or VIPER; its split "val" is scored.
        settings: Other settings of the recipes, such as train.lr=3e-4 loss.warp=0.1.
        only: Names of the rows to do.
        shard: Do every n-th of the runs, from the i-th on: i/n.
        eval_seeds: First seed of the streets to score, and the one after the last; none is trained on.
        eval_frames: Frames of each of these.
        eval_difficulty: Of these, from 0 to 1.
        speed: Measure frames/s and memory once all rows are done, for tables that have them.
        accelerator: What to compute on.
    """
    from panoptube.ablation import ablate as run

    run(
        tables,
        out,
        init,
        seeds,
        steps,
        family,
        data,
        settings,
        only,
        shard,
        eval_seeds,
        eval_frames,
        eval_difficulty,
        speed,
        accelerator,
    )


COMMANDS: dict[str, Callable[..., None]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        predict,
        predict_many,
        export,
        serve,
        train,
        ablate,
        evaluate,
        synthesize,
        prepare,
        import_cvat,
        check,
        view,
        report,
        submit,
        convert,
        convert_result,
    )
}


def main() -> int:
    """Run the command in `sys.argv`.

    The exit code is 0, 1 if some of many videos failed, 2 for a user's mistake, 130 for an interruption.
    """
    # Being told to stop leaves as little behind as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What Pillow finds odd in a broken picture, the error says in one line.
    warnings.filterwarnings("ignore", module="PIL")
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
