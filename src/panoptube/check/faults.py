"""What a fault is, which kinds there are, and faults that last over several frames."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal

Severity = Literal["error", "warning", "note"]
"""error: the data contradict themselves; warning: most likely wrong; note: may be meant so."""

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

KINDS: dict[str, str] = {
    "file": "a file is missing, unreadable, or has another size or form than it should",
    "gap": "a frame without labels where its neighbours, evenly spaced, have some",
    "id": "the PNG holds an id that the JSON lacks, or the reverse",
    "area": "the JSON's area is not that of the PNG",
    "box": "the JSON's box is not that of the PNG",
    "class": "one id, or one object, with two classes",
    "jump": "a track is suddenly somewhere else",
    "swap": "two tracks exchange their ids",
    "renamed": "an object goes on under another id",
    "lost": "an object that is in the frames before and after has no label in this one",
    "no-instance": "pixels of a thing without an instance: crowd, or a forgotten id",
    "tiny": "an instance of a few pixels",
    "split": "an instance in parts that lie far apart",
    "duplicate": "a frame with the picture of another",
    "unused": "a class that never occurs",
}
"""Every kind of fault, in the order of reports."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        severity: how sure it is that something is wrong.
        message: what is wrong, in one line.
        clip: name of the clip, "" where it concerns the dataset.
        frame: index in the clip of the frame with the fault, the worst one if there are several; or None.
        before: index of the frame that it was compared with, or None.
        where: box in `frame` to look at, or None for all of it.
        tracks: ids of the tracks concerned.
        frames: how many frames in a row have it.
        weight: which of two faults of one kind to look at first: the larger.
    """

    kind: str
    severity: Severity
    message: str
    clip: str = ""
    frame: int | None = None
    before: int | None = None
    where: Box | None = None
    tracks: tuple[int, ...] = ()
    frames: int = 1
    weight: float = 0.0


class Ledger:
    """The faults of one clip. What lasts over frames in a row is one fault, shown at its worst frame."""

    def __init__(self) -> None:
        self._closed: list[Fault] = []
        self._open: dict[Hashable, tuple[int, Fault]] = {}

    def add(self, fault: Fault) -> None:
        """A fault of its own."""
        self._closed.append(fault)

    def extend(self, key: Hashable, place: int, fault: Fault) -> None:
        """A fault that goes on if it has the same key and place - 1 had it too.

        Args:
            key: what tells it from others that may last at the same time.
            place: number of the labelled frame, counted from 0.
            fault: as it is in this frame.
        """
        last, known = self._open.get(key, (-2, fault))
        if last == place - 1:
            worst = max(known, fault, key=lambda f: f.weight)
            fault = replace(worst, frames=known.frames + 1)
        elif last >= 0:
            self._closed.append(known)
        self._open[key] = place, fault

    def faults(self) -> list[Fault]:
        """All of them, by kind, then frame."""
        order = list(KINDS)
        found = [*self._closed, *(fault for _, fault in self._open.values())]
        return sorted(found, key=lambda f: (order.index(f.kind), -1 if f.frame is None else f.frame))
