"""What the synthetic streets hold, and how fast they are drawn.

python benchmarks/streets.py --clips 50 --json streets.json

Speeds are per second of processor time, all threads added up: what one free core does.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from panoptube.data.cityscapes_vps import CITYSCAPES
from panoptube.data.streets import street_clip
from panoptube.panoptic.frame import PanopticFrame, Segment

EVERY = 5
"""Of every fifth frame, the last is labelled, as in Cityscapes-VPS."""


def main(
    clips: int = 50,
    frames: int = 30,
    difficulty: float = 0.5,
    seed: int = 0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Measures clips of 256x512 pixels of consecutive seeds.

    Args:
        clips: how many.
        frames: frames of each.
        difficulty: in [0, 1].
        seed: of the first clip.
        json_file: where to write the figures, too.
    """
    things: list[int] = []
    pixels: list[int] = []
    tracks = hidden = 0
    clips_with: Counter[str] = Counter()
    share = np.zeros(256)
    association: list[float] = []
    seconds = {"setup": 0.0, "image and truth": 0.0, "flow": 0.0}
    street_clip(seed, 1, difficulty=difficulty).image(0)  # compiles, untimed
    for number in track(range(clips), description="streets"):
        start = time.process_time()
        clip = street_clip(seed + number, frames, difficulty=difficulty)
        seconds["setup"] += time.process_time() - start
        assert clip.read_flow is not None
        truths: list[PanopticFrame] = []
        for t in range(frames):
            start = time.process_time()
            clip.read_image(t)
            truths.append(clip.read_truth(t))
            seconds["image and truth"] += time.process_time() - start
            start = time.process_time()
            clip.read_flow(t, min(t + 1, frames - 1))
            seconds["flow"] += time.process_time() - start
            share += np.bincount(truths[-1].semantic.ravel(), minlength=256)
        segments = [[s for s in truth.segments() if s.id > 0] for truth in truths]
        things += [len(s) for s in segments]
        pixels += [s.area for per_frame in segments for s in per_frame]
        seen = np.unique([truth.semantic for truth in truths])
        clips_with.update(CITYSCAPES.names[v] for v in seen if v < len(CITYSCAPES))
        back, all_tracks = returning(segments)
        hidden, tracks = hidden + back, tracks + all_tracks
        labelled = truths[EVERY - 1 :: EVERY]
        if labelled:
            association += association_of_boxes(labelled)
    drawn = clips * frames
    figures = {
        "frames": drawn,
        "things per frame, median": float(np.median(things)),
        "tracks": tracks,
        "tracks hidden for a while": hidden / max(tracks, 1),
        "pixels per thing, median": float(np.median(pixels)),
        "AQ of linking by boxes": float(np.mean(association)),
        "void": share[255] / share.sum(),
        "frames/s": drawn / seconds["image and truth"],
        "frames/s, setup included": drawn / (seconds["image and truth"] + seconds["setup"]),
        "flow/s (without drawing twice)": drawn / seconds["flow"],
        "setup, ms a clip": 1000 * seconds["setup"] / clips,
        "clips with class": {name: clips_with[name] for name in CITYSCAPES.names},
        "share of pixels": {name: share[i] / share.sum() for i, name in enumerate(CITYSCAPES.names)},
    }
    show(figures)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


def returning(segments: Sequence[Sequence[Segment]]) -> tuple[int, int]:
    """How many tracks are seen, then not, then seen again; and how many there are."""
    when: dict[int, list[int]] = {}
    for t, frame in enumerate(segments):
        for s in frame:
            when.setdefault(s.id, []).append(t)
    return sum(ts[-1] - ts[0] + 1 > len(ts) for ts in when.values()), len(when)


def association_of_boxes(truths: Sequence[PanopticFrame]) -> list[float]:
    """Per true track, its summand of AQ (dossier 13.4) if true masks are linked by class and boxes alone.

    Boxes of neighbouring frames are linked greedily, best overlap first, within a class; what overlaps
    nothing gets a new id. Returns, for each track g, 1/|g| sum_p TPA * TPA / (|p| + |g| - TPA).
    """
    sizes: Counter[int] = Counter()
    predicted: Counter[int] = Counter()
    both: Counter[tuple[int, int]] = Counter()
    before: list[tuple[Segment, int]] = []
    new = 0
    for truth in truths:
        now = [s for s in truth.segments() if s.id > 0]
        pairs = sorted(
            (
                (overlap(a.bbox, s.bbox), i, j)
                for i, (a, _) in enumerate(before)
                for j, s in enumerate(now)
                if a.label == s.label
            ),
            key=lambda pair: -pair[0],
        )
        ids: dict[int, int] = {}
        used: set[int] = set()
        for iou, i, j in pairs:
            if iou > 0 and i not in used and j not in ids:
                used.add(i)
                ids[j] = before[i][1]
        for j, s in enumerate(now):
            if j not in ids:
                new += 1
                ids[j] = new
            sizes[s.id] += s.area
            predicted[ids[j]] += s.area
            both[s.id, ids[j]] += s.area
        before = [(s, ids[j]) for j, s in enumerate(now)]
    terms = dict.fromkeys(sizes, 0.0)
    for (g, p), tpa in both.items():
        terms[g] += tpa * tpa / (predicted[p] + sizes[g] - tpa) / sizes[g]
    return list(terms.values())


def overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """IoU of two boxes x, y, width, height."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def show(figures: dict[str, object]) -> None:
    table = Table(title="Streets, 256x512")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if not isinstance(value, dict):
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console = Console()
    console.print(table)
    classes = Table(title="Classes")
    for column in ("class", "clips", "% of pixels"):
        classes.add_column(column, justify="left" if column == "class" else "right")
    counts, shares = figures["clips with class"], figures["share of pixels"]
    assert isinstance(counts, dict)
    assert isinstance(shares, dict)
    for name in counts:
        classes.add_row(name, str(counts[name]), f"{100 * shares[name]:.2f}")
    console.print(classes)


if __name__ == "__main__":
    tyro.cli(main)
