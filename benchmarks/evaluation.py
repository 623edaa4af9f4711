"""Time and memory of an evaluation, beside the PNG decoding alone and beside hotcoco's PQ, in one run.

    python benchmarks/evaluation.py [--json FILE] [--small] [--folder FOLDER] [--rounds N]

Draws 50 videos of 6 labelled frames, 1024 x 2048, about 50 segments a frame, truth and prediction (the same
on every machine; PNGs as Pillow writes them), in FOLDER or in a temporary one. Then each of these runs in a
process of its own, by turns, so that a busy machine is busy for all:

* ours: VPQ for all four windows, PQ and STQ together, with one worker and with two;
* OpenCV: nothing but decoding the same PNGs, one thread;
* hotcoco: PQ alone.

Ratios are made within a round, and the median over the rounds is printed. Times are CPU seconds of the work
without starting Python, importing, and numba's loading of compiled functions (0.4 s); the speed-up by a
second worker is one of elapsed time. --small is a quick try.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from rich.console import Console
from rich.progress import track
from rich.table import Table

from panoptube.ablation_speed import peak_mib
from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.metrics.table import compare_ids

FRAMES = 6
OBJECTS = 38
NAME = "{video:04d}_{number:04d}_streets_{video:06d}_{frame:06d}"

# --- the set ----------------------------------------------------------------------------------------------


def draw_set(folder: Path, videos: int, size: tuple[int, int]) -> None:
    """Truth in `folder`/gt and prediction in `folder`/pred, in the form of Cityscapes-VPS."""
    truth, pred = folder / "gt" / "panoptic_video", folder / "pred" / "pan_pred"
    truth.mkdir(parents=True)
    pred.mkdir(parents=True)
    lists: dict[str, list[dict[str, Any]]] = {"images": [], "gt": [], "pred": []}
    for video in track(range(videos), description="draw", console=Console(stderr=True)):
        scene = Scene(video, size)
        for frame in range(FRAMES):
            name = NAME.format(video=5 * (video + 1), number=FRAMES * video + frame + 1, frame=frame)
            ending = "_gtFine_color.png" if frame == 3 else "_final_mask.png"
            image = "_leftImg8bit.png" if frame == 3 else "_newImg8bit.png"
            lists["images"].append(
                {"id": name, "file_name": name + image, "height": size[0], "width": size[1]}
            )
            for side, path in (("gt", truth / (name + ending)), ("pred", pred / f"{name}.png")):
                ids, classes = scene.draw(frame, side == "pred")
                lists[side].append(save(path, name, ids, classes))
    categories = CITYSCAPES.to_dict()["categories"]
    files: tuple[tuple[Path, str, dict[str, Any]], ...] = (
        (folder / "gt" / "panoptic_gt.json", "gt", {"images": lists["images"], "categories": categories}),
        (folder / "pred" / "pred.json", "pred", {}),
    )
    for path, side, more in files:
        path.write_text(json.dumps({**more, "annotations": lists[side]}))
    # hotcoco wants numbers for ids.
    numbers = {entry["id"]: i for i, entry in enumerate(lists["images"])}
    for _, side, more in files:
        annotations = [{**a, "image_id": numbers[a["image_id"]]} for a in lists[side]]
        renumbered = {**more, "images": [{**i, "id": numbers[i["id"]]} for i in lists["images"]]}
        path = folder / f"hotcoco_{side}.json"
        path.write_text(json.dumps({**renumbered, "annotations": annotations}))


class Scene:
    """Eleven bands of stuff under things that move, with ragged outlines."""

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self.size = size
        height, width = size
        rng = self.rng = np.random.default_rng(seed)
        steps = rng.normal(0, height / 400, (11, width)).cumsum(1)
        steps -= np.linspace(0, 1, width) * steps[:, -1:]
        self.edges = np.sort(rng.uniform(0, height, 11))[:, None] + steps
        self.stuff = rng.permutation(11)
        self.things = rng.integers(11, 19, OBJECTS)
        self.center = rng.uniform(0, 1, (OBJECTS, 2)) * (width, height)
        self.speed = rng.normal(0, width / 150, (OBJECTS, 2))
        corners = 60
        angles = np.sort(rng.uniform(0, 2 * np.pi, (OBJECTS, corners)))
        radius = rng.gamma(3, height / 70, (OBJECTS, 1)) * rng.uniform(0.75, 1.25, (OBJECTS, corners))
        self.outline = np.stack([np.cos(angles), np.sin(angles)], -1) * radius[..., None]
        self.ids = 1000 + rng.permutation(2**24 - 2000)[: 2 * OBJECTS].reshape(2, OBJECTS)
        self.wrong = rng.random((3, OBJECTS))

    def draw(self, frame: int, predicted: bool) -> tuple[NDArray[np.uint32], dict[int, int]]:
        """(H, W) uint32 ids, and the class of each. A prediction is shifted, misses, mistakes and
        switches.
        """
        height, width = self.size
        shift = 3 if predicted else 0
        classes = {int(c) + 1: int(c) for c in range(11)}
        ids = np.full(self.size, self.stuff[0] + 1, np.int32)
        below = np.array([[width - 1, height], [0, height]])
        for edge, c in zip(self.edges[1:], self.stuff[1:]):
            line = np.stack([np.arange(width), edge + shift], 1)
            cv2.fillPoly(ids, [np.concatenate([line, below]).round().astype(np.int32)], int(c) + 1)
        if not predicted:
            ids[-height // 12 :] = 0
        for i in range(OBJECTS):
            missed, mistaken, switched = self.wrong[:, i] < (0.08, 0.08, 0.1)
            if predicted and missed:
                continue
            number = int(self.ids[1 if predicted and switched and frame > 2 else 0, i])
            place = self.center[i] + frame * self.speed[i] + shift
            cv2.fillPoly(ids, [np.round(place + self.outline[i]).astype(np.int32)], number)
            classes[number] = int(
                11 + (self.things[i] - 10) % 8 if predicted and mistaken else self.things[i]
            )
        return ids.astype(np.uint32), classes


def save(path: Path, name: str, ids: NDArray[np.uint32], classes: dict[int, int]) -> dict[str, Any]:
    """Write the PNG; its entry for the JSON."""
    rgb = np.ascontiguousarray(ids).view(np.uint8).reshape(*ids.shape, 4)[..., :3]
    Pillow.fromarray(np.ascontiguousarray(rgb)).save(path)
    table = compare_ids(ids, ids)
    segments = [
        {"id": i, "category_id": classes[i], "iscrowd": 0, "area": area}
        for i, area in zip(table.truth.tolist(), table.pixels.tolist())
        if i
    ]
    return {"image_id": name, "file_name": path.name, "segments_info": segments}


# --- what is timed; each runs in a process of its own -----------------------------------------------------


def ours(folder: Path, workers: int) -> dict[str, float]:
    from panoptube.evaluate import evaluate
    from panoptube.panoptic.id_png import read_id_png

    ids = read_id_png(next(folder.glob("gt/panoptic_video/*.png")))
    compare_ids(ids, ids)  # both load what numba compiled
    metrics = ("vpq", "pq", "stq")
    with timed() as spent:
        found = evaluate(folder / "gt", folder / "pred", metrics=metrics, workers=workers, progress=False)
    assert found.vpq is not None
    assert found.pq is not None
    assert found.stq is not None
    return {**spent.times, "pq": found.pq.quality.all.pq, "vpq": found.vpq.all.pq, "stq": found.stq.stq}


def opencv(folder: Path, workers: int) -> dict[str, float]:
    del workers
    cv2.setNumThreads(1)
    paths = sorted(str(p) for p in folder.glob("*/*/*.png"))
    with timed() as spent:
        for path in paths:
            cv2.imread(path, cv2.IMREAD_COLOR)
    return {**spent.times, "pngs": len(paths)}


def hotcoco(folder: Path, workers: int) -> dict[str, float]:
    del workers
    from hotcoco.panoptic import PanopticEval

    with timed() as spent:
        found = PanopticEval(
            str(folder / "hotcoco_gt.json"),
            str(folder / "hotcoco_pred.json"),
            gt_folder=str(folder / "gt" / "panoptic_video"),
            pred_folder=str(folder / "pred" / "pan_pred"),
        )
        found.evaluate()
    return {**spent.times, "pq": found.results()["All"]["pq"]}


CONTENDERS: dict[str, tuple[Callable[[Path, int], dict[str, float]], int]] = {
    "ours": (ours, 1),
    "opencv": (opencv, 1),
    "hotcoco": (hotcoco, 1),
    "ours, 2 workers": (ours, 2),
}


class timed:
    """CPU seconds of this process, all threads, and elapsed seconds."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def __enter__(self) -> timed:
        self._start = os.times()
        return self

    def __exit__(self, *_: object) -> None:
        end = os.times()
        cpu = end.user + end.system - self._start.user - self._start.system
        self.times = {"cpu": cpu, "elapsed": end.elapsed - self._start.elapsed}


def run_alone(contender: str, folder: Path) -> dict[str, float]:
    """Run one contender in a new process, and say what it took."""
    single = {n: "1" for n in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, __file__, "--contender", contender, "--folder", str(folder)]
    done = subprocess.run(command, env=os.environ | single, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{contender} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# --- the comparison ---------------------------------------------------------------------------------------


def compare(folder: Path, rounds: int) -> dict[str, Any]:
    """Every contender by turns."""
    run_alone("ours", folder)  # compiles on a machine's first run
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in track(range(rounds), description="rounds", console=Console(stderr=True)):
        for name, runs in found.items():
            runs.append(run_alone(name, folder))

    def ratio(name: str, other: str, what: str) -> float:
        return statistics.median(a[what] / b[what] for a, b in zip(found[name], found[other]))

    pq, other = found["ours"][0]["pq"], found["hotcoco"][0]["pq"]
    if abs(pq - other) > 1e-12:
        raise RuntimeError(f"PQ differs: {pq} here, {other} by hotcoco")
    return {
        "pngs": int(found["opencv"][0]["pngs"]),
        "scores": {n: found["ours"][0][n] for n in ("vpq", "pq", "stq")},
        "median": {
            name: {n: statistics.median(r[n] for r in runs) for n in ("cpu", "elapsed", "peak_mb")}
            for name, runs in found.items()
        },
        "ratios": {
            "ours / opencv, cpu": ratio("ours", "opencv", "cpu"),
            "ours / hotcoco, cpu": ratio("ours", "hotcoco", "cpu"),
            "1 worker / 2 workers, elapsed": ratio("ours", "ours, 2 workers", "elapsed"),
        },
        "rounds": found,
    }


def show(result: dict[str, Any]) -> None:
    table = Table(title=f"{result['pngs']} PNGs; medians of {len(result['rounds']['ours'])} rounds")
    for column in ("", "CPU s", "elapsed s", "CPU ms a PNG", "peak MB"):
        table.add_column(column, justify="left" if not column else "right")
    what = {
        "ours": "panoptube: VPQ x 4, PQ, STQ",
        "opencv": "OpenCV: decoding alone",
        "hotcoco": "hotcoco: PQ",
        "ours, 2 workers": "panoptube, 2 workers",
    }
    for name, m in result["median"].items():
        per_png = 1000 * m["cpu"] / result["pngs"]
        cells = (f"{m['cpu']:.2f}", f"{m['elapsed']:.2f}", f"{per_png:.1f}", f"{m['peak_mb']:.0f}")
        table.add_row(what[name], *cells)
    console = Console()
    console.print(table)
    limits = {
        "ours / opencv, cpu": "at most 1.3; below 1 is the stretch",
        "ours / hotcoco, cpu": "at most 2.2",
        "1 worker / 2 workers, elapsed": "at least 1.7",
    }
    for name, value in result["ratios"].items():
        console.print(f"{name}: {value:.2f} ({limits[name]})")
    console.print(f"peak memory: {result['median']['ours']['peak_mb']:.0f} MB (below 300)")


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--small", action="store_true", help="a quick try: 6 videos, 512 x 1024")
    parser.add_argument("--folder", type=Path, help="where to draw, and to find what was drawn before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.contender:
        function, workers = CONTENDERS[options.contender]
        print(json.dumps(function(options.folder, workers) | {"peak_mb": peak_mib()}))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        place = (options.folder or Path(temporary)) / ("small" if options.small else "large")
        if not (place / "pred" / "pred.json").is_file():
            draw_set(place, *((6, (512, 1024)) if options.small else (50, (1024, 2048))))
        result = compare(place, options.rounds)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
