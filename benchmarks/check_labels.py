"""What `panoptube check` finds of faults planted in streets, and how often it cries wolf.

    python benchmarks/check_labels.py --clips 20 --json check_labels.json

Each kind of fault is planted once in each clip, at a random frame and object; objects are at least 60 pixels
large, so that there is something to see. Found means: an alarm of that kind in the planted frame, about a
planted track. False alarms are all others that the clip hasn't got without the fault, except notes and those
about a planted track or, where no track is, a planted frame. "clean" are the alarms without any fault. Flow
is DIS, not the streets' own.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from panoptube.check.check import check_clip
from panoptube.check.faults import Fault
from panoptube.check.labels import Labels, open_labels
from panoptube.check.segments import TINY
from panoptube.data.clip import Clip, Image
from panoptube.data.labelled_video import write_labelled_video
from panoptube.data.streets import street_clip
from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import VOID, PanopticFrame

VISIBLE = 60
"""Pixels of the objects that faults are planted in."""
DIFFICULTIES = (0.3, 0.5, 0.8, 1.0)
NEW_ID = 900
"""No street has so many tracks."""


@dataclass
class Film:
    """A clip in memory, to be changed. `labelled`: frames with labels."""

    clip: Clip
    images: list[Image]
    truths: list[PanopticFrame]
    labelled: list[int]

    def labels(self) -> Labels:
        clip = replace(
            self.clip,
            read_image=self.images.__getitem__,
            read_truth=self.truths.__getitem__,
            read_flow=None,
            labelled=tuple(self.labelled),
        )
        return Labels(clip)

    def copy(self) -> Film:
        truths = [PanopticFrame(t.semantic.copy(), t.instance.copy()) for t in self.truths]
        return Film(self.clip, list(self.images), truths, list(self.labelled))

    def visible(self, *frames: int) -> list[int]:
        """Ids that are large enough in all these frames."""
        counts = [np.bincount(self.truths[t].instance.ravel(), minlength=NEW_ID) for t in frames]
        return [int(i) for i in np.flatnonzero(np.min(counts, axis=0) >= VISIBLE) if i]

    def label(self, t: int, i: int) -> int:
        truth = self.truths[t]
        return int(np.bincount(truth.semantic[truth.instance == i]).argmax())

    def box(self, t: int, i: int) -> tuple[float, float, float]:
        """Centre x, y and diagonal."""
        y, x = np.nonzero(self.truths[t].instance == i)
        width, height = x.max() - x.min() + 1, y.max() - y.min() + 1
        return x.min() + width / 2, y.min() + height / 2, float(np.hypot(width, height))


@dataclass(frozen=True)
class Plant:
    """Where a fault was put: frames, and tracks if it is about some."""

    frames: tuple[int, ...]
    tracks: tuple[int, ...] = ()

    def found(self, fault: Fault) -> bool:
        return fault.frame in self.frames and (not self.tracks or self.explains(fault))

    def explains(self, fault: Fault) -> bool:
        if self.tracks:
            return bool(set(self.tracks) & set(fault.tracks))
        return fault.frame in self.frames or fault.before in self.frames


Planter = Callable[[Film, np.random.Generator], "Plant | None"]
"""Changes a film; None where it has no place for the fault."""


def choose(rng: np.random.Generator, options: Sequence[int]) -> int:
    return options[int(rng.integers(len(options)))]


def places(film: Film, rng: np.random.Generator) -> Iterable[tuple[int, int, int, list[int]]]:
    """Labelled frames with a neighbour on both sides, in random order: before, frame, after, ids in all."""
    order = rng.permutation(np.arange(1, len(film.labelled) - 1))
    for k in order.tolist():
        a, b, c = film.labelled[k - 1 : k + 2]
        yield a, b, c, film.visible(a, b, c)


def paint(film: Film, frames: Iterable[int], changes: dict[int, int]) -> None:
    """Give tracks other ids, all at once."""
    for t in frames:
        old = film.truths[t].instance.copy()
        for before, after in changes.items():
            film.truths[t].instance[old == before] = after


def from_on(film: Film, t: int) -> list[int]:
    return [u for u in film.labelled if u >= t]


def apart(film: Film, t: int, a: int, b: int, times: float) -> bool:
    """Whether two objects are so many diagonals of the larger one apart."""
    (ax, ay, size), (bx, by, other) = film.box(t, a), film.box(t, b)
    return bool(np.hypot(ax - bx, ay - by) > times * max(size, other))


def pairs(film: Film, t: int, ids: Sequence[int], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Of one class, in random order."""
    found = [(a, b) for a in ids for b in ids if a != b and film.label(t, a) == film.label(t, b)]
    return [found[i] for i in rng.permutation(len(found))]


def swap(film: Film, rng: np.random.Generator) -> Plant | None:
    for _, t, _, ids in places(film, rng):
        for a, b in pairs(film, t, ids, rng):
            paint(film, from_on(film, t), {a: b, b: a})
            return Plant((t,), (a, b))
    return None


def jump(film: Film, rng: np.random.Generator) -> Plant | None:
    """The id goes to another object, and its own gets a new one."""
    for before, t, _, ids in places(film, rng):
        for a, b in pairs(film, t, ids, rng):
            if apart(film, t, a, b, 2) and apart(film, before, a, b, 2):
                paint(film, from_on(film, t), {a: NEW_ID, b: a})
                return Plant((t,), (a, b, NEW_ID))
    return None


def renamed(film: Film, rng: np.random.Generator) -> Plant | None:
    for _, t, _, ids in places(film, rng):
        if ids:
            a = choose(rng, ids)
            paint(film, from_on(film, t), {a: NEW_ID})
            return Plant((t,), (a, NEW_ID))
    return None


def change_class(film: Film, rng: np.random.Generator) -> Plant | None:
    for _, t, _, ids in places(film, rng):
        if ids:
            a = choose(rng, ids)
            things = range(film.clip.taxonomy.num_stuff, len(film.clip.taxonomy))
            other = choose(rng, [c for c in things if c != film.label(t, a)])
            for u in from_on(film, t):
                film.truths[u].semantic[film.truths[u].instance == a] = other
            # Which of the two classes is the wrong one depends on which has more frames.
            return Plant(tuple(film.labelled), (a,))
    return None


def lost(film: Film, rng: np.random.Generator) -> Plant | None:
    """One frame's mask becomes the stuff next to it, or void."""
    for _, t, _, ids in places(film, rng):
        if ids:
            a = choose(rng, ids)
            truth = film.truths[t]
            mask = truth.instance == a
            ring = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~mask
            around = truth.semantic[ring & (truth.semantic < film.clip.taxonomy.num_stuff)]
            void = rng.random() < 0.5 or not len(around)
            truth.semantic[mask] = VOID if void else np.bincount(around).argmax()
            truth.instance[mask] = 0
            return Plant((t,), (a,))
    return None


def no_instance(film: Film, rng: np.random.Generator) -> Plant | None:
    for _, t, _, ids in places(film, rng):
        if ids:
            a = choose(rng, ids)
            paint(film, [t], {a: 0})
            return Plant((t,), (a,))
    return None


def tiny(film: Film, rng: np.random.Generator) -> Plant | None:
    for _, t, _, ids in places(film, rng):
        if ids:
            a = choose(rng, ids)
            truth = film.truths[t]
            pixels = np.argwhere(truth.instance == a)
            rest = pixels[int(rng.integers(1, TINY)) :]
            truth.semantic[rest[:, 0], rest[:, 1]] = VOID
            truth.instance[rest[:, 0], rest[:, 1]] = 0
            return Plant((t,), (a,))
    return None


def split(film: Film, rng: np.random.Generator) -> Plant | None:
    """Two objects, one id."""
    for _, t, _, ids in places(film, rng):
        for a, b in pairs(film, t, ids, rng):
            if apart(film, t, a, b, 4):
                paint(film, [t], {b: a})
                return Plant((t,), (a, b))
    return None


def duplicate(film: Film, rng: np.random.Generator) -> Plant | None:
    t = int(rng.integers(1, len(film.images)))
    film.images[t] = film.images[t - 1]
    film.truths[t] = film.truths[t - 1]
    return Plant((t,))


def duplicate_compressed(film: Film, rng: np.random.Generator) -> Plant | None:
    plant = duplicate(film, rng)
    assert plant is not None
    (t,) = plant.frames
    data = cv2.imencode(".jpg", film.images[t], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    film.images[t] = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return plant


def gap(film: Film, rng: np.random.Generator) -> Plant | None:
    t = film.labelled.pop(int(rng.integers(1, len(film.labelled) - 1)))
    return Plant((t,))


IN_FRAMES: dict[str, tuple[str, Planter]] = {
    "swap": ("swap", swap),
    "jump": ("jump", jump),
    "renamed": ("renamed", renamed),
    "class": ("class", change_class),
    "lost": ("lost", lost),
    "no-instance": ("no-instance", no_instance),
    "tiny": ("tiny", tiny),
    "split": ("split", split),
    "duplicate": ("duplicate", duplicate),
    "duplicate, compressed": ("duplicate", duplicate_compressed),
    "gap": ("gap", gap),
}
"""By row: kind, and what plants it in frames in memory."""


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def shrink(path: Path) -> None:
    picture = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    cv2.imwrite(str(path), picture[:-2])


def remove(path: Path) -> None:
    path.unlink()


Segments = list[dict[str, Any]]


def wrong_area(segments: Segments, at: int) -> None:
    segments[at]["area"] += 1


def moved_box(segments: Segments, at: int) -> None:
    segments[at]["bbox"][0] += 3


def forgotten(segments: Segments, at: int) -> None:
    del segments[at]


def invented(segments: Segments, at: int) -> None:
    segments.append({**segments[at], "id": 77, "track_id": None})


IN_FILES: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "image cut short": ("file", "img", cut_short),
    "image of another size": ("file", "img", shrink),
    "label cut short": ("file", "label", cut_short),
    "label of another size": ("file", "label", shrink),
    "PNG missing": ("file", "panoptic", remove),
    "PNG cut short": ("file", "panoptic", cut_short),
    "PNG of another size": ("file", "panoptic", shrink),
}
"""By row: kind, folder, and what happens to a file in it."""
IN_JSON: dict[str, tuple[str, Callable[[Segments, int], None]]] = {
    "area off by one pixel": ("area", wrong_area),
    "box off by three pixels": ("box", moved_box),
    "id that the JSON lacks": ("id", forgotten),
    "id that the PNG lacks": ("id", invented),
}
"""By row: kind, and what happens to the segments of a frame."""


def in_files(film: Film, folder: Path, rng: np.random.Generator) -> Iterable[tuple[str, str, Plant, Labels]]:
    """Row, kind, plant and the clip with it, for each fault of files; one at a time lies in `folder`."""
    t = int(rng.integers(1, len(film.images)))
    name = f"{t:06d}"
    for row, (kind, part, spoil) in IN_FILES.items():
        shutil.rmtree(folder, ignore_errors=True)
        dataset = write(film, folder, panoptic=part == "panoptic")
        spoil(next(folder.rglob(f"{part}/{name}.*")))
        yield row, kind, Plant((t,)), opened(dataset, folder)
    for row, (kind, change) in IN_JSON.items():
        shutil.rmtree(folder, ignore_errors=True)
        dataset = write(film, folder, panoptic=True)
        path = folder / film.clip.name / "panoptic.json"
        data = json.loads(path.read_text())
        segments = data["annotations"][t]["segments_info"]
        change(segments, int(rng.integers(len(segments))))
        path.write_text(json.dumps(data))
        yield row, kind, Plant((t,)), opened(dataset, folder)


def write(film: Film, folder: Path, panoptic: bool) -> str:
    """Write a film as a dataset, and say as which."""
    folder.mkdir(parents=True)
    if not panoptic:
        write_labelled_video(film.labels().clip, folder)
        return "labelled-video"
    with PanopticVideoWriter(folder / film.clip.name, film.clip.taxonomy) as writer:
        for t, truth in enumerate(film.truths):
            writer.write(f"{t:06d}", truth)
    return "panoptic"


def opened(dataset: str, folder: Path) -> Labels:
    (labels,), _ = open_labels(dataset, folder, None)
    return labels


@dataclass
class Row:
    """Counts of one sort of fault."""

    kind: str
    planted: int = 0
    found: int = 0
    false: int = 0


def count(row: Row, plant: Plant, faults: Sequence[Fault], usual: Counter[tuple[Any, ...]]) -> None:
    """Add a clip with one planted fault; `usual` are the alarms of the clip without it."""
    row.planted += 1
    row.found += any(f.kind == row.kind and plant.found(f) for f in faults)
    row.false += sum(
        f.severity != "note" and not plant.explains(f) and not usual[signature(f)] for f in faults
    )


def signature(fault: Fault) -> tuple[Any, ...]:
    return fault.kind, fault.frame, fault.tracks


def main(
    clips: int = 20,
    frames: int = 12,
    size: tuple[int, int] = (256, 512),
    every: int = 1,
    seed: int = 7000,
    json: Annotated[Path | None, tyro.conf.arg(help="Write the numbers to this file.")] = None,
) -> None:
    """Plant, check, and print a table.

    Args:
        clips: Streets.
        frames: Labelled frames of each.
        size: Height and width.
        every: Every which frame is labelled.
        seed: Of the first street.
    """
    rows = {row: Row(kind) for row, (kind, *_) in (IN_FRAMES | IN_FILES | IN_JSON).items()}
    clean: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for number in track(range(clips), description="clips", console=Console(stderr=True)):
            difficulty = DIFFICULTIES[number % len(DIFFICULTIES)]
            clip = street_clip(seed + number, (frames - 1) * every + 1, size, difficulty)
            images = [clip.image(t) for t in range(len(clip))]
            truths = [clip.read_truth(t) for t in range(len(clip))]
            film = Film(clip, images, truths, list(range(0, len(clip), every)))
            before = check_clip(film.labels()).faults
            usual = Counter(map(signature, before))
            clean.update(f.kind for f in before if f.severity != "note")
            for i, (row, (_, planter)) in enumerate(IN_FRAMES.items()):
                changed = film.copy()
                plant = planter(changed, np.random.default_rng([seed, number, i]))
                if plant is not None:
                    count(rows[row], plant, check_clip(changed.labels()).faults, usual)
            rng = np.random.default_rng([seed, number, 99])
            for row, _, plant, labels in in_files(film, Path(scratch) / "data", rng):
                count(rows[row], plant, check_clip(labels).faults, usual)
    report(rows, clean, clips, clips * frames, json)


def report(rows: dict[str, Row], clean: Counter[str], clips: int, frames: int, path: Path | None) -> None:
    table = Table(title=f"{clips} streets, {frames} labelled frames")
    for head in ("planted", "kind", "times", "found", "recall", "false alarms"):
        table.add_column(head, justify="left" if head in ("planted", "kind") else "right")
    for name, row in rows.items():
        share = f"{100 * row.found / row.planted:.0f} %" if row.planted else "-"
        table.add_row(name, row.kind, str(row.planted), str(row.found), share, str(row.false))
    total = [sum(getattr(r, part) for r in rows.values()) for part in ("planted", "found", "false")]
    false = f"{total[2]} ({100 * total[2] / max(1, total[1] + total[2]):.1f} %)"
    recall = f"{100 * total[1] / max(1, total[0]):.1f} %"
    table.add_row("all", "", str(total[0]), str(total[1]), recall, false, style="bold")
    kinds = ", ".join(f"{kind} {n}" for kind, n in clean.items())
    table.add_row("clean", "", "", "", "", f"{clean.total()}{f': {kinds}' if kinds else ''}")
    Console().print(table)
    if path is not None:
        data = {"rows": {name: vars(row) for name, row in rows.items()}, "clean": dict(clean)}
        path.write_text(json.dumps({"clips": clips, "frames": frames, **data}, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
