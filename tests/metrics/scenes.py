"""Frames drawn as text, one character per pixel."""

import numpy as np

from panoptube.panoptic.frame import Category, PanopticFrame, Taxonomy

FOUR = Taxonomy(
    "four",
    (
        Category("road", False, (128, 64, 128), 7),
        Category("sky", False, (70, 130, 180), 23),
        Category("car", True, (0, 0, 142), 26),
        Category("person", True, (220, 20, 60), 24),
    ),
)
PIXELS = {
    ".": (255, 0),
    "r": (0, 0),
    "s": (1, 0),
    "C": (2, 0),  # crowd of cars
    "a": (2, 1),
    "b": (2, 2),
    "P": (3, 0),  # crowd of persons
    "p": (3, 3),
    "q": (3, 4),
}


def frame(line: str) -> PanopticFrame:
    pixels = np.array([[PIXELS[c] for c in line]])
    return PanopticFrame(pixels[..., 0].astype(np.uint8), pixels[..., 1].astype(np.int32))


def feed(metric, clips: dict[str, list[tuple[str, str]]]):
    """Count clips of (truth, prediction), and say the result."""
    for name, lines in clips.items():
        for truth, prediction in lines:
            metric.update(frame(prediction), frame(truth))
        metric.end_clip(name)
    return metric.compute()
