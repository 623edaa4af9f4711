"""Scores of weights files on real labelled videos, side by side, and a picture of each clip.

    python benchmarks/real_video.py VIDEOS OUT [--weights FILE ...] [--split val]

VIDEOS is a folder of labelled videos (docs/weights.md). OUT gets real_video.json, real_video.md and, for each
weights file, NAME.png: of each clip the frame in the middle, its labels and the result. PQ, STQ, IDF1 and TC
count every frame, TC with OpenCV's DIS flow; VPQ counts every 5th. PQ of the core classes is the mean over
`CORE`, those that nearly every street shows.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from panoptube.data.clip import Clip, Image
from panoptube.data.labelled_video import read_labelled_videos
from panoptube.errors import UserError
from panoptube.evaluate import scored_frames
from panoptube.evaluation import Evaluation
from panoptube.flow.images import dis_image_flow
from panoptube.metrics.pq import PQ
from panoptube.metrics.protocol import Protocol
from panoptube.metrics.quality import percent
from panoptube.metrics.stq import STQ
from panoptube.metrics.table import compare_frames
from panoptube.metrics.tc import TC
from panoptube.metrics.tracking import Tracking
from panoptube.metrics.vpq import VPQ
from panoptube.network.inference import for_inference
from panoptube.network.vpsnet import VPSNet
from panoptube.network.weights import load_weights
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.predict import shipped_weights
from panoptube.predictor import VideoPredictor
from panoptube.progress import progress_bar
from panoptube.view.overlay import overlay
from panoptube.view.results import write_picture

CORE = ("road", "sidewalk", "building", "vegetation", "terrain", "sky", "person", "car")
FOLLOWED = ("person", "car")
EVERY = 5
WIDTH = 416
"""Of one picture of the sheet, in pixels."""


def score(network: VPSNet, clips: Sequence[Clip]) -> tuple[Evaluation, Image]:
    """All metrics over the clips, and the sheet: (H, W, 3) uint8 RGB, a row for each clip."""
    taxonomy = clips[0].taxonomy
    pq, stq = PQ(taxonomy), STQ(taxonomy)
    vpq = VPQ(taxonomy, Protocol("real-video", (1, 2, 3, 4), spacing=EVERY))
    tc = TC(taxonomy.names, "DIS (OpenCV, preset medium)")
    tracking = _tracking(taxonomy)
    rows: list[Image] = []
    with progress_bar(True, "frames") as bar:
        task = bar.add_task("score", total=sum(map(len, clips)))
        for clip in clips:
            predictor, scored = VideoPredictor(network), set(scored_frames(clip, EVERY))
            before: tuple[Image, PanopticFrame] | None = None
            shown = clip.labelled[len(clip.labelled) // 2]
            for t in range(len(clip)):
                image = clip.image(t)
                frame, truth = predictor.step(image), clip.truth(t)
                if before is not None:
                    tc.update(before[1].semantic, frame.semantic, dis_image_flow(before[0], image))
                before = image, frame
                bar.advance(task)
                if truth is None:
                    continue
                table = compare_frames(frame, truth)
                pq.update_table(table, f"{clip.name}/{t:06d}")
                stq.update_table(table)
                if tracking is not None:
                    tracking.update_table(table)
                if t in scored:
                    vpq.update_table(table)
                if t == shown:
                    rows.append(sheet_row(f"{clip.name} {t}", image, truth, frame, taxonomy))
            for metric in (stq, vpq, tracking):
                if metric is not None:
                    metric.end_clip(clip.name)
    result = Evaluation(
        "real-video",
        official=False,
        vpq=vpq.compute(),
        pq=pq.compute(),
        stq=stq.compute(),
        tc=tc.compute(),
        tracking=None if tracking is None else tracking.compute(),
    )
    return result, np.concatenate(rows)


def _tracking(taxonomy: Taxonomy) -> Tracking | None:
    """None without TrackEval."""
    try:
        return Tracking(taxonomy)
    except UserError:
        return None


def sheet_row(
    name: str, image: Image, truth: PanopticFrame, frame: PanopticFrame, taxonomy: Taxonomy
) -> Image:
    """Image, labels and result side by side, each `WIDTH` wide."""
    size = (WIDTH, round(image.shape[0] * WIDTH / image.shape[1]))
    pictures = [image, overlay(image, truth, taxonomy), overlay(image, frame, taxonomy)]
    row = np.concatenate([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures], 1)
    (width, height), below = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    row[: height + below + 4, : width + 6] = 0
    cv2.putText(row, name, (3, height + 3), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,) * 3, 1, cv2.LINE_AA)
    return row


def figures(result: Evaluation) -> dict[str, float]:
    """The numbers of the table, as fractions, by name; nan where there is none."""
    assert result.pq is not None
    assert result.vpq is not None
    assert result.stq is not None
    assert result.tc is not None
    quality = result.pq.quality
    by_class = {c.name: c.pq for c in quality.classes}
    core = [by_class[name] for name in CORE if not math.isnan(by_class.get(name, math.nan))]
    found = {
        "PQ, core classes": sum(core) / len(core) if core else math.nan,
        "PQ": quality.all.pq,
        "PQ, things": quality.things.pq,
        "PQ, stuff": quality.stuff.pq,
        "VPQ": result.vpq.all.pq,
        "STQ": result.stq.stq,
        "AQ": result.stq.aq,
        "SQ": result.stq.sq,
        "TC, DIS flow": result.tc.tc,
    }
    if result.tracking is not None:
        idf1 = {c.name: c.idf1 for c in result.tracking.classes}
        found |= {f"IDF1, {name}": idf1.get(name, math.nan) for name in FOLLOWED}
    return found | {f"PQ, {name}": value for name, value in by_class.items()}


def markdown(columns: dict[str, dict[str, float]], counted: str) -> str:
    """A table in percent with a column for each weights file."""
    lines = [f"{counted}; percent.\n", f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for name in next(iter(columns.values())):
        values = [column[name] for column in columns.values()]
        if not all(map(math.isnan, values)):
            lines.append(f"| {name} | {' | '.join(map(percent, values))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, nargs="+", default=[shipped_weights()])
    parser.add_argument("--split", default="val")
    arguments = parser.parse_args()

    clips = read_labelled_videos(arguments.videos, arguments.split)
    counted = f"{len(clips)} clips, {sum(map(len, clips))} frames, split {arguments.split}"
    results: dict[str, Evaluation] = {}
    for weights in arguments.weights:
        name = weights.stem if weights.stem != "weights" else weights.parent.name
        results[name], sheet = score(for_inference(load_weights(weights)[0]), clips)
        png = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))[1]
        write_picture(arguments.out / f"{name}.png", png.tobytes())
        table = markdown({n: figures(r) for n, r in results.items()}, counted)
        content = {n: {"figures": _numbers(figures(r)), **r.to_dict()} for n, r in results.items()}
        write_picture(arguments.out / "real_video.json", f"{json.dumps(content, indent=1)}\n".encode())
        write_picture(arguments.out / "real_video.md", table.encode())
    print(table)


def _numbers(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


if __name__ == "__main__":
    main()
