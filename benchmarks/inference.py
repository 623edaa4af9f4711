"""Speed and memory of a frame through the network, beside the plain ways and beside torchvision's Mask R-CNN.

    python benchmarks/inference.py [--size H W] [--recipe R | --weights FILE] [--device cpu|cuda] [--runs N]
                                   [--json FILE]

Each variant has a process of its own, and they take turns, so that other work meets all alike:

    bf16, float32       `for_inference` and `VideoPredictor`: image in, labelled frame out
    plain               the network as it is trained, a full-size channel for each instance, float32
    plain, torchvision  the same on torchvision's deformable convolution
    Mask R-CNN          torchvision's maskrcnn_resnet50_fpn at the same size, float32

Weights are random: the published layers' by the parity check's rule, Mask R-CNN's as torchvision draws them.
Random scores mean nothing, so thresholds are set where --detections objects are left in the map of the first
frame. Of Mask R-CNN, ten times as many pairs of region and class go into suppression, and --detections come
out. Frames are of a synthetic street.

Memory is the process's peak, and on a CPU also that above its imports, which take most of it.

The share of the peak is the frame's multiply-adds (torch.utils.flop_counter, at `float32`) over its time, as
a share of the best of four matrix products in the same precision in the same run. In float32 it can be above
1, where convolutions have quicker instructions than the library's matrix product. OMP_NUM_THREADS sets the
number of threads.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import panoptube.predictor
from panoptube.ablation_speed import STREET, peak_mib, processor
from panoptube.config import RunConfig
from panoptube.convert import published_name
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.streets import street_clip
from panoptube.data.transforms import normalize
from panoptube.network import deform
from panoptube.network.inference import for_inference
from panoptube.network.panoptic import uncovered
from panoptube.network.vpsnet import Detections, VPSNet, vpsnet
from panoptube.network.weights import load_weights, save_weights
from panoptube.panoptic import assemble
from panoptube.predictor import VideoPredictor
from panoptube.recipes import load_run
from parity import rule_weight
from prediction import resident_mib

RULE = Path(__file__).parents[1] / "tests" / "data" / "parity" / "weights_rule.json"
VARIANTS = ("bf16", "float32", "plain", "plain, torchvision", "Mask R-CNN")
FRAMES = 2
SHAPES = ((2048, 2048, 2048), (4096, 2304, 256), (8192, 576, 512), (1000, 12544, 1024))
"""Products that are timed: rows, depth, columns."""
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}

Image = NDArray[np.uint8]
Result = TypeVar("Result")


def random_network(run: RunConfig, device: str) -> VPSNet:
    """The recipe's network with the rule's weights."""
    network = vpsnet(run.network, CITYSCAPES)
    rule = json.loads(RULE.read_text())
    state = {k: rule_weight(published_name(k), tuple(v.shape), rule) for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    return network.eval().to(device)


@torch.no_grad()
def threshold_for(network: VPSNet, image: Image, wanted: int, device: str) -> float:
    """The score threshold at which nearly so many objects are left in the panoptic map; may be 0."""
    size = (image.shape[0], image.shape[1])
    pyramid = network.pyramid(torch.from_numpy(normalize(image, size))[None].to(device))
    semantic, rpn = network.semantic(pyramid), network.rpn(pyramid)
    own = network.config
    low, high = 0.0, 0.999
    for _ in range(12):
        middle = (low + high) / 2
        network.config = own.model_copy(update={"score_threshold": middle})
        d = network.detect(pyramid, semantic, rpn, 0)
        left = len(uncovered(d.masks, d.boxes, d.labels, d.scores, size))
        low, high = (middle, high) if left > wanted else (low, middle)
    network.config = own
    return high


class Stages:
    """Seconds of named parts of a frame."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.on = False
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def of(self, name: str, function: Callable[..., Result]) -> Callable[..., Result]:
        def timed(*arguments: Any, **named: Any) -> Result:
            if not self.on:
                return function(*arguments, **named)
            begin = self.now()
            result = function(*arguments, **named)
            self.seconds[name].append(self.now() - begin)
            return result

        return timed

    def now(self) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def whole_channels(detections: Detections, num_stuff: int, size: tuple[int, int]) -> assemble.Winners:
    """`assemble.winners` the plain way."""
    found = assemble.index_map(detections, num_stuff, legacy=False)
    maps = [m[: size[0], : size[1]].cpu().numpy() for m in (found.semantic, found.winner)]
    return assemble.Winners(maps[0], maps[1], found.kept.tolist())


def torchvision_deform(input: Tensor, offset: Tensor, weight: Tensor, padding: int = 1) -> Tensor:
    result: Tensor = torchvision.ops.deform_conv2d(input, offset, weight, padding=padding)
    return result


class Ours:
    """A variant of panoptube. Its results are on the CPU, so that a GPU has finished."""

    def __init__(self, name: str, weights: Path, device: str, stages: Stages) -> None:
        network, _ = load_weights(weights)
        network = network.to(device)
        if name in DTYPES:
            network = for_inference(network, DTYPES[name])
        else:
            assemble.winners = whole_channels
        if name == "plain, torchvision":
            deform.deform_conv2d = torchvision_deform
        self.network, self.device = network, device
        for part in ("backbone", "semantic", "rpn"):
            module = getattr(network, part)
            module.forward = stages.of(part, module.forward)
        network.detect = stages.of("second stage", network.detect)  # type: ignore[method-assign]
        vars(panoptube.predictor)["assemble"] = stages.of("assembly", assemble.assemble)

    def step(self, image: Image) -> tuple[int, list[NDArray[Any]]]:
        """Detections that have a pixel; the maps."""
        frame = VideoPredictor(self.network).step(image)
        return len(frame.scores), [frame.semantic, frame.instance]

    def multiply_adds(self, image: Image) -> int:
        tensor = torch.from_numpy(normalize(image, (image.shape[0], image.shape[1])))[None].to(self.device)
        with FlopCounterMode(display=False) as counter:
            self.network(tensor)
        return int(counter.get_total_flops()) // 2


class MaskRCNN:
    """torchvision's, without a resize."""

    def __init__(self, image: Image, wanted: int, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = torchvision.models.detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, min_size=min(image.shape[:2]), max_size=max(image.shape[:2])
        )
        self.model.eval().to(device)
        heads, seen = self.model.roi_heads, []
        hook = heads.box_predictor.register_forward_hook(lambda module, given, result: seen.append(result[0]))
        heads.detections_per_img = wanted
        heads.score_thresh = 1.0
        self.step(image)
        hook.remove()
        scores = seen[0].softmax(1)[:, 1:].flatten()
        heads.score_thresh = float(scores.topk(10 * wanted).values[-1])

    @torch.inference_mode()
    def step(self, image: Image) -> tuple[int, list[NDArray[Any]]]:
        tensor = torch.from_numpy(image).to(self.device).permute(2, 0, 1).contiguous().float() / 255
        found = self.model([tensor])[0]
        found = {name: value.cpu() for name, value in found.items()}
        return len(found["boxes"]), []

    def multiply_adds(self, image: Image) -> int:
        with FlopCounterMode(display=False) as counter:
            self.step(image)
        return int(counter.get_total_flops()) // 2


def serve(name: str, weights: Path, images: list[Image], wanted: int, device: str, pipe: Connection) -> None:
    """Labels a frame for each number that comes, and answers its seconds; at the end all the rest."""
    imports = resident_mib()
    stages = Stages(device)
    variant: Ours | MaskRCNN
    if name == "Mask R-CNN":
        variant = MaskRCNN(images[0], wanted, device)
    else:
        variant = Ours(name, weights, device, stages)
    found: list[int] = []
    maps: list[list[NDArray[Any]]] = []
    while (turn := pipe.recv()) is not None:
        begin = time.perf_counter()
        number, made = variant.step(images[turn % FRAMES])
        pipe.send(time.perf_counter() - begin)
        found, maps = [*found, number], [*maps, made][:FRAMES]
    memory = torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else peak_mib()
    stages.on = True
    for image in images:
        variant.step(image)
    stages.on = False
    parts = {part: statistics.mean(seconds) for part, seconds in stages.seconds.items()}
    # The counter sees what runs on the network's own kernels, which torchvision's operator would hide.
    count = variant.multiply_adds(images[0]) if name in ("float32", "Mask R-CNN") else 0
    pipe.send((memory, memory - imports if device == "cpu" else memory, found, parts, count, maps))


def serve_products(device: str, pipe: Connection) -> None:
    """Times the matrix products for each number that comes, and answers the best rates in GFLOP/s so far."""
    best = {name: dict.fromkeys(map(str, SHAPES), 0.0) for name in DTYPES}
    stages = Stages(device)
    while pipe.recv() is not None:
        for name, dtype in DTYPES.items():
            for shape in SHAPES:
                a = torch.randn(shape[0], shape[1], device=device).to(dtype)
                b = torch.randn(shape[1], shape[2], device=device).to(dtype)
                for _ in range(2):
                    begin = stages.now()
                    torch.mm(a, b)
                    rate = 2e-9 * shape[0] * shape[1] * shape[2] / (stages.now() - begin)
                    best[name][str(shape)] = max(best[name][str(shape)], rate)
        pipe.send(0.0)
    pipe.send(best)


def measure(weights: Path, images: list[Image], wanted: int, device: str, runs: int) -> dict[str, Any]:
    """All variants, in turns."""
    spawn = multiprocessing.get_context("spawn")
    jobs: dict[str, tuple[Callable[..., None], tuple[Any, ...]]] = {
        name: (serve, (name, weights, images, wanted, device)) for name in VARIANTS
    }
    jobs["products"] = (serve_products, (device,))
    pipes: dict[str, Connection] = {}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for name, (target, arguments) in jobs.items():
        pipes[name], theirs = spawn.Pipe()
        spawn.Process(target=target, args=(*arguments, theirs), daemon=True).start()
        theirs.close()
    for turn in track(range(1 + runs), "frames", console=Console(stderr=True)):
        for name, pipe in pipes.items():
            pipe.send(turn)
            seconds[name].append(pipe.recv())
    ends = {}
    for name, pipe in pipes.items():
        pipe.send(None)
        ends[name] = pipe.recv()
    peak = ends.pop("products")
    plain = ends["plain"][5]
    rows = {}
    for name, (memory, above, found, parts, _, maps) in ends.items():
        dtype = name if name in DTYPES else "float32"
        count = ends["Mask R-CNN" if name == "Mask R-CNN" else "float32"][4]
        median = statistics.median(seconds[name][1:])
        rows[name] = {
            "median_s": median,
            "seconds": seconds[name][1:],
            "peak_mib": memory,
            "peak_above_imports_mib": above,
            "detections": found,
            "stages_s": parts,
            "multiply_adds": count,
            "share_of_peak": 2e-9 * count / median / max(peak[dtype].values()),
            "pixels_unlike_plain": [
                float(np.mean([(a != b).any(0) if a.ndim > 2 else a != b for a, b in zip(x, y)]))
                for x, y in zip(maps, plain)
                if x
            ],
        }
    return {"variants": rows, "products_gflops": peak}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("H", "W"))
    parser.add_argument("--recipe", default="track", help="one with a ResNet, and without flow")
    parser.add_argument(
        "--weights", type=Path, help="a file that panoptube train wrote, instead of random ones"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--detections", type=int, default=40)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    clip = street_clip(STREET, frames=FRAMES, size=size)
    images = [np.ascontiguousarray(clip.image(t)) for t in range(FRAMES)]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.safetensors"
        if options.weights:
            network, run = load_weights(options.weights)
            changed: dict[str, Any] = {"test_size": size}
        else:
            run = load_run(options.recipe)
            network = random_network(run, options.device)
            threshold = threshold_for(network, images[0], options.detections, options.device)
            changed = {"test_size": size, "score_threshold": threshold}
        run = run.model_copy(update={"network": run.network.model_copy(update=changed)})
        save_weights(weights, network, run)
        del network
        result = measure(weights, images, options.detections, options.device, options.runs)
    on_cpu = options.device == "cpu"
    result |= {
        "size": size,
        "network": run.name,
        "weights": str(options.weights or "random"),
        "device": processor() if on_cpu else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }
    rows = result["variants"]
    table = Table(title=f"{size[0]}x{size[1]}, {result['device']}, {result['threads']} threads")
    stages = ("backbone", "semantic", "rpn", "second stage", "assembly")
    for heading in (
        "",
        "s",
        "bf16 is faster",
        "MiB",
        "above imports",
        "found",
        "of peak",
        "unlike plain",
        *stages,
    ):
        table.add_column(heading, justify="right" if heading else "left")
    for name, row in rows.items():
        unlike = row["pixels_unlike_plain"]
        table.add_row(
            name,
            f"{row['median_s']:.2f}",
            f"{row['median_s'] / rows['bf16']['median_s']:.1f} x",
            f"{row['peak_mib']:.0f}",
            f"{row['peak_above_imports_mib']:.0f}",
            str(row["detections"][0]),
            f"{row['share_of_peak']:.0%}",
            f"{max(unlike):.1e}" if unlike else "",
            *(f"{row['stages_s'][part]:.2f}" if part in row["stages_s"] else "" for part in stages),
        )
    Console(width=140).print(table)
    for name, rates in result["products_gflops"].items():
        print(f"{name} products, GFLOP/s:", ", ".join(f"{s} {r:.0f}" for s, r in rates.items()))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
