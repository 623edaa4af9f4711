"""A result of a few pixels, drawn: r road, s sky; A, B cars, P a person; c crowd of cars; . void."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panoptube.panoptic.formats import PanopticVideoWriter
from panoptube.panoptic.frame import VOID, Category, PanopticFrame, Taxonomy

STREET = Taxonomy(
    "street",
    (
        Category("road", False, (128, 64, 128), 7),
        Category("sky & air", False, (70, 130, 180), 23),
        Category("car", True, (0, 0, 142), 26),
        Category("person", True, (220, 20, 60), 24),
    ),
)
LETTERS = {"r": (0, 0), "s": (1, 0), "A": (2, 3), "B": (2, 9), "P": (3, 5), "c": (2, 0), ".": (VOID, 0)}


def draw(picture: str, scores: dict[int, float] | None = None) -> PanopticFrame:
    pairs = np.array([[LETTERS[c] for c in line] for line in picture.split()])
    return PanopticFrame(pairs[..., 0].astype(np.uint8), pairs[..., 1].astype(np.int32), scores or {})


# A is cut in two by P and has a hole, then is gone, then is back; B comes last, in two pieces.
FRAMES = [
    draw("ssssssss AAAAPPAA ArAAPPAA AAAAPPrr rrrrrr..", {3: 0.5, 5: 0.75}),
    draw("ssssssss ssssPPss rrrrPPrr rrrrPPrr rrrrrr..", {5: 0.25}),
    draw("ssssssss AAssssBB AABBssBB rrBBrrrr rrrrrr..", {3: 1.0, 9: 0.125}),
]


def write_result(folder: Path, frames: Sequence[PanopticFrame] = FRAMES) -> Path:
    with PanopticVideoWriter(folder, STREET) as writer:
        for t, frame in enumerate(frames):
            writer.write(f"{t:06d}", frame)
    return folder


def assert_same(got: PanopticFrame, expected: PanopticFrame) -> None:
    assert got.semantic.tolist() == expected.semantic.tolist()
    assert got.instance.tolist() == expected.instance.tolist()
    assert (got.semantic.dtype, got.instance.dtype) == (np.uint8, np.int32)
    assert dict(got.scores) == dict(expected.scores)


def things(frame: PanopticFrame) -> PanopticFrame:
    """The tracks alone."""
    there = frame.instance > 0
    return PanopticFrame(np.where(there, frame.semantic, VOID).astype(np.uint8), frame.instance, frame.scores)
