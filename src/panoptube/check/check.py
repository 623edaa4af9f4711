"""`panoptube check`: one pass over the frames of a dataset, two in memory at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from panoptube.check.faults import Box, Fault, Ledger
from panoptube.check.labels import Labels, open_labels
from panoptube.check.page import write_page
from panoptube.check.report import Report
from panoptube.check.segments import FrameSegments, find_segments, find_split, find_tiny
from panoptube.check.stored import check_stored
from panoptube.check.tracks import Snapshot, TrackChecker
from panoptube.data.clip import Clip, Image
from panoptube.errors import UserError
from panoptube.flow.files import FlowField
from panoptube.flow.images import dis_image_flow
from panoptube.panoptic.frame import PanopticFrame
from panoptube.progress import progress_bar

REGULAR = 0.7
"""Share of the steps between labelled frames that must be equal for a longer one to be a gap."""
BLOCK = 8
"""Pixels on a side of the blocks that pictures are compared by."""
SAME_PICTURE = 0.25
"""Share of the changes before and after below which a frame is the one before it again. A copy saved as JPEG
of quality 95 has 0.01 to 0.2; the least of 2,000 frames of streets and films that are no copies has 0.37.
"""
STANDS_STILL = 0.5
"""Grey levels of change below which nothing moves and copies can't be told."""
LEAST_SIDE = 16
"""Pixels that DIS needs on each side."""


def check(
    name: str,
    root: Path,
    split: str | None = None,
    json: Path | None = None,
    html: Path | None = None,
    progress: bool = True,
) -> Report:
    """Find what is wrong in the labels of a dataset, and where. docs/check.md says what each kind means.

    Args:
        name: of the dataset, one of `panoptube.check.labels.NAMES`.
        root: its folder.
        split: of the dataset; None for all of it.
        json: file to write every fault to, or None.
        html: file for a page with pictures of the worst faults, or None.
        progress: show a bar with the time left.

    Raises:
        UserError: no such dataset, nothing in the folder can be opened, or a report can't be written.
    """
    root = Path(root)
    labels, faults = open_labels(name, root, split)
    pictures: dict[bytes, tuple[str, int]] = {}
    classes: set[str] = set()
    with progress_bar(progress, "frames") as bar:
        task = bar.add_task("check", total=sum(len(item.clip) for item in labels))
        for item in labels:
            found = check_clip(item, pictures, lambda: bar.advance(task))
            faults += found.faults
            classes |= found.classes
    named = {c.name: None for item in labels for c in item.clip.taxonomy.categories}
    faults += [Fault("unused", "note", f"no pixel is {c}") for c in named if c not in classes]
    report = Report(name, str(root), len(labels), sum(len(item.clip) for item in labels), faults)
    if json is not None:
        report.write_json(json)
    if html is not None:
        write_page(html, report, labels)
    return report


@dataclass
class Checked:
    """Faults of a clip, and the names of the classes that occur in it."""

    faults: list[Fault]
    classes: set[str] = field(default_factory=set)


def check_clip(
    labels: Labels,
    pictures: dict[bytes, tuple[str, int]] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Checked:
    """What is wrong in one clip.

    Args:
        labels: the clip.
        pictures: digest of each picture so far with its clip and frame, added to; the way to find copies
            between clips.
        advance: called after each frame.
    """
    clip = labels.clip
    pictures = {} if pictures is None else pictures
    ledger = Ledger()
    for fault in _gaps(labels):
        ledger.add(fault)
    labelled = {t: place for place, t in enumerate(clip.labelled)}
    tracks = TrackChecker(clip.taxonomy)
    motion = _Motion(clip)
    history = _ClassHistory(clip.taxonomy.names)
    changes = _PictureChanges()
    used: set[int] = set()
    copies: set[int] = set()
    for t in range(len(clip)):
        image = _read_image(labels, t, ledger)
        if image is not None:
            first = pictures.setdefault(_digest(image), (clip.name, t))
            if first != (clip.name, t):
                copies.add(t)
                ledger.add(_copy(clip.name, t, *first))
        changes.step(t, image)
        motion.step(image)
        if t in labelled:
            truth = _read_truth(labels, t, ledger)
            if truth is not None:
                segments = find_segments(truth, clip.taxonomy)
                used |= set(segments.classes)
                history.step(t, segments)
                faults, gone_over = tracks.step(Snapshot(t, image, truth, segments), motion.flow(t))
                motion.restart(t)
                for fault in faults:
                    ledger.add(fault)
                for fault in [
                    *find_tiny(segments, clip.taxonomy),
                    *find_split(truth, segments, clip.taxonomy),
                ]:
                    ledger.extend((fault.kind, fault.tracks), labelled[t], replace(fault, frame=t))
                for label, (area, box) in segments.crowd.items():
                    gone = gone_over.get(label, [])
                    fault = _no_instance(clip.taxonomy.names[label], area, box, gone)
                    if gone:
                        fault = replace(fault, before=clip.labelled[labelled[t] - 1])
                    ledger.extend((fault.kind, label), labelled[t], replace(fault, frame=t))
        advance()
    for fault in [*history.faults(), *changes.faults(copies)]:
        ledger.add(fault)
    faults = [replace(fault, clip=clip.name) for fault in ledger.faults()]
    return Checked(faults, {clip.taxonomy.names[label] for label in used})


def _read_image(labels: Labels, t: int, ledger: Ledger) -> Image | None:
    if not labels.has_images:
        return None
    try:
        return labels.clip.image(t)
    except (UserError, ValueError) as error:
        ledger.add(Fault("file", "error", str(error), frame=t))
        return None


def _read_truth(labels: Labels, t: int, ledger: Ledger) -> PanopticFrame | None:
    """The truth of a labelled frame, or None if it can't be used."""
    clip = labels.clip
    try:
        if t not in labels.stored:
            return clip.truth(t)
        faults, truth = check_stored(labels.stored[t])
        if truth.size != clip.size:
            size, wanted = (f"{s[1]} x {s[0]}" for s in (truth.size, clip.size))
            raise UserError(
                f"{labels.stored[t].path} is {size} pixels, the clip {wanted}; a clip has one size"
            )
    except (UserError, ValueError) as error:
        ledger.add(Fault("file", "error", str(error), frame=t))
        return None
    for fault in faults:
        ledger.add(replace(fault, frame=t))
    return truth


class _Motion:
    """Flow from the last labelled frame: the clip's own if it has one, else DIS from picture to picture."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._start: int | None = None
        self._before: Image | None = None
        self._total: FlowField | None = None

    def step(self, image: Image | None) -> None:
        """Go on to the next frame; a picture that is missing breaks the flow off."""
        if self._clip.read_flow is not None or min(self._clip.size) < LEAST_SIDE:
            return
        if image is None or self._before is None:
            self._total = None
        elif self._total is not None:
            flow = dis_image_flow(self._before, image)
            at = self._total + self._grid()
            self._total = self._total + cv2.remap(
                flow, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        self._before = image

    def flow(self, t: int) -> FlowField | None:
        """(H, W, 2) from the last labelled frame to frame `t`, the present one, or None if there is none."""
        if self._start is None or self._clip.read_flow is None:
            return self._total
        return self._clip.read_flow(self._start, t)

    def restart(self, t: int) -> None:
        """The present frame `t` is the last labelled one."""
        self._start = t
        self._total = np.zeros((*self._clip.size, 2), np.float32)

    def _grid(self) -> FlowField:
        """(H, W, 2) position of every pixel, x first."""
        height, width = self._clip.size
        return np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (width, height))), axis=-1)


def _gaps(labels: Labels) -> Iterator[Fault]:
    """Frames without labels where labels are otherwise evenly spaced."""
    frames = labels.clip.labelled
    steps = Counter(b - a for a, b in pairwise(frames))
    if not steps:
        return
    step, count = steps.most_common(1)[0]
    if count < REGULAR * steps.total():
        return
    for a, b in pairwise(frames):
        if b - a > step and (b - a) % step == 0:
            for t in range(a + step, b, step):
                yield Fault("gap", "warning", "no labels, though its neighbours have some", frame=t)


def _no_instance(name: str, area: int, box: Box, tracks: list[int]) -> Fault:
    message = f"{name} without an instance: {area} pixels"
    if not tracks:
        return Fault("no-instance", "note", message, where=box, weight=area / 1e9)
    message += f", which {', '.join(f'{name} {i}' for i in tracks)} became"
    return Fault("no-instance", "warning", message, where=box, tracks=tuple(tracks), weight=area)


def _digest(image: Image) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _copy(clip: str, t: int, first_clip: str, first: int) -> Fault:
    same = first_clip == clip
    message = f"the same picture as frame {first}{'' if same else f' of {first_clip}'}"
    return Fault("duplicate", "warning", message, frame=t, before=first if same else None, weight=2)


class _PictureChanges:
    """Finds frames that are nearly the one before, which a copy compressed anew is."""

    def __init__(self) -> None:
        self._before: Image | None = None
        self._changes: dict[int, float] = {}

    def step(self, t: int, image: Image | None) -> None:
        small = None if image is None else _shrink(image)
        if small is not None and self._before is not None:
            self._changes[t] = float(cv2.absdiff(small, self._before).mean())
        self._before = small

    def faults(self, copies: set[int]) -> Iterator[Fault]:
        """`copies` are frames that are known to be equal to another."""
        for t, change in self._changes.items():
            around = [self._changes[u] for u in (t - 1, t + 1) if u in self._changes]
            usual = min(around, default=0.0)
            if t not in copies and usual >= STANDS_STILL and change < SAME_PICTURE * usual:
                message = f"almost the picture of frame {t - 1}: it differs by {change:.2f} grey levels, "
                message += f"those beside it by {usual:.1f}"
                yield Fault("duplicate", "warning", message, frame=t, before=t - 1, weight=1)


def _shrink(image: Image) -> Image:
    """Each block of pixels as its mean: what compression changes mostly averages out."""
    height, width = (max(1, n // BLOCK) for n in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


@dataclass
class _Sighting:
    """A track with one class: the first frame, the frame of the track before that, and how many in all."""

    t: int
    before: int | None
    box: Box
    frames: int = 0


class _ClassHistory:
    """Which classes each track has had; finds those with more than one."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._seen: dict[int, dict[int, _Sighting]] = {}
        self._last: dict[int, int] = {}

    def step(self, t: int, segments: FrameSegments) -> None:
        for i, track in segments.tracks.items():
            for label in segments.mixed.get(i, [track.label]):
                first = _Sighting(t, self._last.get(i), track.box)
                self._seen.setdefault(i, {}).setdefault(label, first).frames += 1
            self._last[i] = t

    def faults(self) -> Iterator[Fault]:
        for i, classes in self._seen.items():
            (main, usual), *others = sorted(classes.items(), key=lambda c: (-c[1].frames, c[1].t))
            for label, sighting in others:
                times = f"{usual.frames} frame{'s' if usual.frames > 1 else ''}"
                message = f"id {i} is {self._names[main]} in {times}, but {self._names[label]} here"
                yield Fault(
                    "class", "error", message, "", sighting.t, sighting.before, sighting.box, (i,),
                    sighting.frames, sighting.frames,
                )  # fmt: skip
