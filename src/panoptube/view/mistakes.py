"""Truth and prediction side by side, with what was missed and what was invented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Image
from panoptube.errors import UserError
from panoptube.evaluate import evaluate, progress_bar
from panoptube.metrics.table import compare_frames, segment_keys
from panoptube.metrics.tubes import match_tubes
from panoptube.panoptic.formats import StoredFrame
from panoptube.panoptic.frame import VOID, Color, PanopticFrame, Taxonomy
from panoptube.panoptic.layouts import StoredClip, read_clips
from panoptube.view.overlay import overlay

# Colours that colour-blind people can tell apart.
MISSED: Color = (230, 159, 0)
INVENTED: Color = (86, 180, 233)
BOTH: Color = (204, 121, 167)
RIGHT: Color = (70, 70, 70)
OFF: Color = (150, 150, 150)
LEGEND = (
    ("missed", MISSED),
    ("invented", INVENTED),
    ("one for the other", BOTH),
    ("right segment, wrong pixels", OFF),
    ("right", RIGHT),
)
READABLE = 600
"""Pixels that a panel must be wide for the line above it."""
PAPER = 96
"""Grey that segments are drawn on where there is no image."""


def mistakes(prediction: PanopticFrame, truth: PanopticFrame, taxonomy: Taxonomy) -> Image:
    """Each pixel in the colour of its mistake; void of the truth is black.

    Segments are those of PQ: missed is a true one without a match, invented a predicted one without. A pixel
    that lies on one of each is "one for the other".

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: the two differ in size, or don't fit the taxonomy.
    """
    table = compare_frames(prediction, truth)
    table.check(taxonomy)
    found = match_tubes(table, taxonomy)
    true_keys, keys = (
        segment_keys(f.semantic.reshape(-1), f.instance.reshape(-1)).reshape(f.size)
        for f in (truth, prediction)
    )
    missed, invented = np.isin(true_keys, found.missed), np.isin(keys, found.surplus)
    partner = dict(zip(found.matched_truth.tolist(), found.matched_prediction.tolist()))
    expected, inverse = np.unique(true_keys, return_inverse=True)
    mates = np.array([partner.get(k, -1) for k in expected.tolist()], np.int64)
    hit = mates[inverse].reshape(keys.shape) == keys
    drawn: NDArray[np.uint8] = np.full((*truth.size, 3), OFF, np.uint8)
    drawn[hit] = RIGHT
    drawn[missed] = MISSED
    drawn[invented] = INVENTED
    drawn[missed & invented] = BOTH
    drawn[(truth.semantic == VOID) & ~invented] = 0
    return drawn


def compare_picture(
    prediction: PanopticFrame, truth: PanopticFrame, taxonomy: Taxonomy, image: Image | None = None
) -> Image:
    """Truth, prediction, and mistakes from left to right, with a line above that says so.

    Args:
        prediction, truth: of size (H, W).
        taxonomy: what their classes are.
        image: (H, W, 3) uint8 RGB to draw on, or None for plain grey.

    Returns:
        (s H + h, 3 s W, 3) uint8 RGB, where h is the height of the line, and s enlarges narrow frames so that
            the line can be read.

    Raises:
        ValueError: sizes differ, or classes don't fit.
    """
    factor = max(1, -(-READABLE // truth.size[1]))
    base = np.full((*truth.size, 3), PAPER, np.uint8) if image is None else image
    truth, prediction = _enlarge(truth, factor), _enlarge(prediction, factor)
    base = base.repeat(factor, 0).repeat(factor, 1)
    width = truth.size[1]
    panels = [overlay(base, f, taxonomy) for f in (truth, prediction)]
    row = np.concatenate([*panels, mistakes(prediction, truth, taxonomy)], axis=1)
    scale = max(0.35, width / 1800)
    head = np.zeros((round(40 * scale), 3 * width, 3), np.uint8)
    for i, text in enumerate(("truth", "prediction")):
        _write(head, text, (255, 255, 255), i * width, scale)
    left = 2 * width
    for text, color in LEGEND:
        left = _write(head, text, tuple(max(c, 110) for c in color) if color == RIGHT else color, left, scale)
    return np.concatenate([head, row])


def _enlarge(frame: PanopticFrame, factor: int) -> PanopticFrame:
    semantic = frame.semantic.repeat(factor, 0).repeat(factor, 1)
    instance = frame.instance.repeat(factor, 0).repeat(factor, 1)
    return PanopticFrame(semantic, instance, frame.scores)


def _write(head: Image, text: str, color: tuple[int, ...], left: int, scale: float) -> int:
    """Write `text` and say where the next may begin."""
    thickness = max(1, round(1.5 * scale))
    margin = round(10 * scale)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    place = (left + margin, len(head) - margin)
    cv2.putText(head, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
    return left + margin + int(width)


def view(
    truth: Path,
    pred: Path,
    out: Path,
    frames: Sequence[str] = (),
    worst: int = 5,
    images: Path | None = None,
    clip_length: int = 6,
    skip_unlabelled: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> list[Path]:
    """Write pictures of frames: truth, prediction, and what was missed or invented.

    Args:
        truth, pred, clip_length, skip_unlabelled, workers: as `panoptube.evaluate.evaluate`.
        out: folder for NAME.png of each frame; made if missing.
        frames: names of frames; none for those that cost PQ most.
        worst: how many of those.
        images: folder with NAME.png or .jpg of each frame to draw on, or None.
        progress: show a bar with the time left.

    Returns:
        The pictures, in the order of `frames` or the worst first.

    Raises:
        UserError: as `evaluate`; there is no such frame; or a file can't be read or written.
    """
    taxonomy, clips = read_clips(truth, pred, clip_length, None, skip_unlabelled)
    pairs = _named(clips)
    if not frames:
        scores = evaluate(
            truth,
            pred,
            metrics=("pq",),
            clip_length=clip_length,
            skip_unlabelled=skip_unlabelled,
            workers=workers,
            progress=progress,
        ).pq
        assert scores is not None
        frames = [f.name for f in sorted(scores.frames, key=lambda f: -f.lost)[:worst]]
    for name in frames:
        if name not in pairs:
            raise UserError(f"{truth} has no frame {name!r}; its first is {next(iter(pairs))!r}")
    written: list[Path] = []
    with progress_bar(progress) as bar:
        for name in bar.track(frames, description="pictures"):
            predicted, true = pairs[name]
            image = None if images is None else _read_image(images, true.name)
            try:
                picture = compare_picture(predicted.frame(), true.frame(), taxonomy, image)
            except ValueError as error:
                raise UserError(f"{predicted.path}: {error}") from error
            path = out / f"{name.replace('/', '_')}.png"
            try:
                out.mkdir(parents=True, exist_ok=True)
                path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
            except OSError as error:
                raise UserError(f"can't write {path}: {error.strerror}") from error
            written.append(path)
    return written


def _named(clips: Sequence[StoredClip]) -> dict[str, tuple[StoredFrame, StoredFrame]]:
    """Prediction and truth by the name that `evaluate` gives the frame."""
    pairs = [(c.name, p, t) for c in clips for p, t in zip(c.prediction, c.truth)]
    unique = len({t.name for _, _, t in pairs}) == len(pairs)
    return {t.name if unique else f"{clip}/{t.name}": (p, t) for clip, p, t in pairs}


def _read_image(folder: Path, name: str) -> Image:
    for ending in (".png", ".jpg", "_newImg8bit.png", "_leftImg8bit.png"):
        path = folder / f"{name}{ending}"
        if path.is_file():
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise UserError(f"{path} is no image that can be read; copy it again")
            return np.ascontiguousarray(image[..., ::-1], np.uint8)
    raise UserError(f"{folder} has no image of frame {name}: expected {name}.png or .jpg")
