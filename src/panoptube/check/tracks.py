"""What is wrong between two labelled frames: tracks that jump, swap, go on under another id, or lose a frame.

Where a track should be in the next frame is guessed in three ways: where the flow takes its pixels, where it
would be had it kept its speed, and where it was. Flow fails on what is small and fast, speed on what turns;
a track is wrong only if all of them fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from panoptube.check.faults import Fault
from panoptube.check.segments import FrameSegments, Track, union
from panoptube.data.clip import Image
from panoptube.flow.files import FlowField
from panoptube.panoptic.frame import PanopticFrame, Taxonomy

TOUCHES = 0.02
"""Share of the smaller mask below which two masks don't overlap; borders alone give a few pixels."""
JUMP = 1.2
"""Diagonals of the larger box that a track may miss its guess by. In streets, among 3,000 steps of
tracks at ten frames a second, nothing without overlap missed it by more than 0.85.
"""
JUMP_PER_FRAME = 0.15
"""What is added for each unlabelled frame in between: guesses get worse with time."""
JUMP_WITHOUT_FLOW = 2.0
"""The same for each frame where there are no images: the camera's own motion is then in every miss."""
HIDDEN = 0.5
"""Share of a track's guess that other tracks must cover to hide it."""
SWAP = 0.3
"""IoU with the other's guess, and gain in the sum of both IoUs, for two tracks to have exchanged ids."""
NEARER = 0.5
"""Share of the shorter jump that both distances may add up to after an exchange, if no masks overlap."""
RENAMED = 0.3
"""IoU of a new track with the guess of one that ends for it to be the same object, which may just come out
from behind another.
"""
RENAMED_SHARE = 0.6
"""Share of the smaller of the two masks that must overlap."""
GONE_OVER = 0.5
"""Share of a track's pixels that lie on crowd of its class for the track to have become crowd."""
LOST_PIXELS = 60
"""Smaller objects come and go with every hair that hides them."""
LOST_PLACE = 0.6
"""Share of a lost object's pixels that must lie on no other thing: those may hide it."""
LOST_LOOK = 12.0
"""Grey levels, of 255, by which half the pixels of an object may differ from where the flow takes them for it
to be still in view; what hides it differs by more.
"""

Guess = NDArray[np.float64]


@dataclass(frozen=True)
class Snapshot:
    """A labelled frame: its index in the clip, picture if there is one, truth and segments."""

    t: int
    image: Image | None
    truth: PanopticFrame
    segments: FrameSegments


class _Overlaps:
    """Pixels of tracks of one frame, carried to the next, and what lies there.

    Args:
        before, after: the two frames.
        x, y: (N,) where the pixels of `ids` are guessed to be.
        ids: (N,) track of each.
    """

    def __init__(
        self,
        before: Snapshot,
        after: Snapshot,
        x: NDArray[np.floating],
        y: NDArray[np.floating],
        ids: NDArray[np.int32],
    ) -> None:
        height, width = after.truth.size
        column, row = np.rint(x).astype(np.int64), np.rint(y).astype(np.int64)
        inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        self.inside = inside
        self.column, self.row, self.ids = column[inside], row[inside], ids[inside]
        landed = after.truth.instance[self.row, self.column]
        keys, counts = np.unique(self.ids.astype(np.int64) << 32 | landed, return_counts=True)
        self.pixels = {(k >> 32, k & 0xFFFFFFFF): n for k, n in zip(keys.tolist(), counts.tolist())}
        self._areas = {i: track.area for i, track in before.segments.tracks.items()}
        self._areas_after = {i: track.area for i, track in after.segments.tracks.items()}

    def iou(self, one: int, other: int) -> float:
        """Of track `one` of the first frame with track `other` of the second."""
        shared = self.pixels.get((one, other), 0)
        return float(shared / (self._areas[one] + self._areas_after[other] - shared))

    def share(self, one: int, other: int) -> float:
        """The same of the smaller of the two."""
        return float(self.pixels.get((one, other), 0) / min(self._areas[one], self._areas_after[other]))

    def touch(self, track: int) -> bool:
        """Whether a track overlaps itself."""
        return self.share(track, track) > TOUCHES

    def hidden(self, track: int) -> bool:
        """Whether tracks that were there before cover its place: then another part of it may show up."""
        others = sum(n for (i, j), n in self.pixels.items() if i == track != j and j in self._areas)
        return bool(others >= HIDDEN * self._areas[track])


class TrackChecker:
    """Follows the tracks of one clip; holds one frame.

    Args:
        taxonomy: what the classes are.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._names = taxonomy.names
        self._before: Snapshot | None = None
        self._speed: dict[int, Guess] = {}
        self._seen: set[int] = set()
        self._missing: dict[int, tuple[int, Track]] = {}

    def step(self, now: Snapshot, flow: FlowField | None) -> tuple[list[Fault], dict[int, list[int]]]:
        """Compare a labelled frame with the one before.

        Args:
            now: the frame.
            flow: (H, W, 2) in pixels from the labelled frame before to this one, or None where there is none;
                then only speed and place are guesses.

        Returns:
            The faults, and for each class the tracks that became crowd.
        """
        before, self._before = self._before, now
        faults: list[Fault] = []
        gone_over: dict[int, list[int]] = {}
        if before is not None:
            faults, gone_over = self._compare(before, now, flow)
        self._seen |= set(now.segments.tracks)
        return faults, gone_over

    def _compare(
        self, before: Snapshot, now: Snapshot, flow: FlowField | None
    ) -> tuple[list[Fault], dict[int, list[int]]]:
        then, here = before.segments.tracks, now.segments.tracks
        y, x = np.nonzero(before.truth.instance)
        ids = before.truth.instance[y, x]
        gap = now.t - before.t
        still = np.zeros((len(x), 2))
        moves = [still if flow is None else flow[y, x].astype(np.float64)]
        if self._speed:
            moves.append(self._by_track(ids, {i: v * gap for i, v in self._speed.items()}, moves[0]))
        overlaps = [_Overlaps(before, now, x + move[:, 0], y + move[:, 1], ids) for move in moves]
        guesses = self._guesses(then, ids, moves)

        missed = {
            i: min(float(np.linalg.norm(g - here[i].center)) for g in guesses[i])
            for i in then.keys() & here.keys()
        }
        allowed = JUMP_WITHOUT_FLOW * gap if flow is None else JUMP + JUMP_PER_FRAME * (gap - 1)
        far = {
            i
            for i, distance in missed.items()
            if distance > allowed * max(then[i].diagonal, here[i].diagonal)
            and not any(o.touch(i) for o in overlaps)
        }
        faults = []
        swapped = dict(self._swaps(then, here, overlaps, guesses, missed, far))
        for a, b in swapped.items():
            name = self._names[then[a].label]
            faults.append(self._fault("swap", f"{name} {a} and {b} exchange their ids", before, now, (a, b)))
        exchanged = swapped.keys() | set(swapped.values())
        for i in sorted(far - exchanged):
            if any(o.hidden(i) for o in overlaps):
                continue
            times = missed[i] / max(then[i].diagonal, here[i].diagonal)
            name = self._names[here[i].label]
            message = f"{name} {i} jumps by {missed[i]:.0f} pixels, {times:.1f} times its size"
            faults.append(self._fault("jump", message, before, now, (i,), times))
        ended = then.keys() - here.keys()
        gone_over = self._gone_over(then, ended, overlaps[0], now)
        faults += self._renamed(before, now, ended, overlaps)
        faults += self._found_again(before, now)
        renamed = {f.tracks[0] for f in faults if f.kind in ("renamed", "class")}
        crowd = {i for found in gone_over.values() for i in found}
        self._missing = {
            i: (before.t, then[i])
            for i in ended - renamed - crowd
            if self._in_view(then[i], overlaps[0], before, now)
        }
        self._speed = {
            i: (here[i].center - then[i].center) / gap
            for i in then.keys() & here.keys()
            if i not in exchanged
        }
        return faults, gone_over

    @staticmethod
    def _by_track(ids: NDArray[np.int32], speeds: dict[int, Guess], otherwise: Guess) -> Guess:
        """(N, 2) motion of each pixel by its track, or `otherwise` where that has none."""
        values, inverse = np.unique(ids, return_inverse=True)
        known = np.array([i in speeds for i in values.tolist()])
        table = np.array([speeds.get(i, np.zeros(2)) for i in values.tolist()])
        return np.where(known[inverse][:, None], table[inverse], otherwise)

    def _guesses(
        self, then: dict[int, Track], ids: NDArray[np.int32], moves: list[Guess]
    ) -> dict[int, list[Guess]]:
        """Where the centre of each track may be: by each of `moves`, and where it was."""
        order = np.argsort(ids, kind="stable")
        values, firsts = np.unique(ids[order], return_index=True)
        guesses: dict[int, list[Guess]] = {}
        for i, pixels in zip(values.tolist(), np.split(order, firsts[1:])):
            center = then[i].center
            guesses[i] = [center, *(center + np.median(move[pixels], axis=0) for move in moves)]
        return guesses

    def _swaps(
        self,
        then: dict[int, Track],
        here: dict[int, Track],
        overlaps: list[_Overlaps],
        guesses: dict[int, list[Guess]],
        missed: dict[int, float],
        far: set[int],
    ) -> Iterator[tuple[int, int]]:
        """Pairs that fit better the other way round, each track in one pair at most."""
        crossing = {
            (min(pair), max(pair))
            for o in overlaps
            for pair in o.pixels
            if pair[0] != pair[1] and pair[0] in here and pair[1] in then
        }
        both = sorted(far)
        crossing |= {(a, b) for k, a in enumerate(both) for b in both[k + 1 :]}
        taken: set[int] = set()
        for a, b in sorted(crossing):
            if {a, b} & taken:
                continue
            own = [max(o.iou(i, i) for o in overlaps) for i in (a, b)]
            other = [max(o.iou(i, j) for o in overlaps) for i, j in ((a, b), (b, a))]
            exchanged = min(other) >= SWAP and sum(other) >= sum(own) + SWAP
            if not exchanged and {a, b} <= far:
                distance = sum(
                    min(float(np.linalg.norm(g - here[j].center)) for g in guesses[i])
                    for i, j in ((a, b), (b, a))
                )
                exchanged = distance < NEARER * min(missed[a], missed[b])
            if exchanged:
                taken |= {a, b}
                yield a, b

    def _renamed(
        self, before: Snapshot, now: Snapshot, ended: set[int], overlaps: list[_Overlaps]
    ) -> Iterator[Fault]:
        """Tracks that end where another begins. Ids that contain the class change with it."""
        then, here = before.segments.tracks, now.segments.tracks
        for old, new in sorted({pair for o in overlaps for pair in o.pixels}):
            if old not in ended or new not in here or new in then:
                continue
            iou = max(o.iou(old, new) for o in overlaps)
            share = max(o.share(old, new) for o in overlaps)
            if iou >= RENAMED and share >= RENAMED_SHARE:
                names = [self._names[track.label] for track in (then[old], here[new])]
                message = f"{names[0]} {old} goes on as {names[1]} {new}"
                message += ", which was there before" if new in self._seen else ""
                kind = "renamed" if names[0] == names[1] else "class"
                yield self._fault(kind, message, before, now, (old, new), iou)

    def _gone_over(
        self, then: dict[int, Track], ended: set[int], overlaps: _Overlaps, now: Snapshot
    ) -> dict[int, list[int]]:
        """By class, the tracks that end and whose pixels are crowd of their class now."""
        found: dict[int, list[int]] = {}
        for i in sorted(ended):
            label = then[i].label
            if label not in now.segments.crowd:
                continue
            mine = overlaps.ids == i
            row, column = overlaps.row[mine], overlaps.column[mine]
            crowd = (now.truth.semantic[row, column] == label) & (now.truth.instance[row, column] == 0)
            if crowd.sum() >= GONE_OVER * then[i].area:
                found.setdefault(label, []).append(i)
        return found

    def _in_view(self, track: Track, overlaps: _Overlaps, before: Snapshot, now: Snapshot) -> bool:
        """Whether an object without a label looks as before at its place, and no other thing hides it."""
        if track.area < LOST_PIXELS or before.image is None or now.image is None:
            return False
        mine = overlaps.ids == track.id
        row, column = overlaps.row[mine], overlaps.column[mine]
        if (now.truth.instance[row, column] == 0).sum() < LOST_PLACE * track.area:
            return False
        y, x = np.nonzero(before.truth.instance)
        y, x = y[overlaps.inside][mine], x[overlaps.inside][mine]
        difference = _grey(before.image[y, x]) - _grey(now.image[row, column])
        return float(np.median(np.abs(difference))) <= LOST_LOOK

    def _found_again(self, before: Snapshot, now: Snapshot) -> Iterator[Fault]:
        """Tracks that missed exactly the frame before this one, though they were in view."""
        for i, (earlier, track) in sorted(self._missing.items()):
            again = now.segments.tracks.get(i)
            if again is None or again.label != track.label:
                continue
            if np.linalg.norm(again.center - track.center) > max(track.diagonal, again.diagonal):
                continue
            message = f"{self._names[track.label]} {i} has no label here, but in the frames before and after"
            yield Fault(
                "lost", "warning", message, frame=before.t, before=earlier,
                where=union(track.box, again.box), tracks=(i,), weight=track.area,
            )  # fmt: skip

    @staticmethod
    def _fault(
        kind: str,
        message: str,
        before: Snapshot,
        now: Snapshot,
        tracks: tuple[int, ...],
        weight: float = 1,
    ) -> Fault:
        where = None
        for i in tracks:
            for box in (s.segments.tracks[i].box for s in (before, now) if i in s.segments.tracks):
                where = box if where is None else union(where, box)
        return Fault(kind, "warning", message, "", now.t, before.t, where, tracks, weight=weight)


def _grey(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 3) to (N,), by ITU-R BT.601."""
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114]))
