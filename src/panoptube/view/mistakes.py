"""Results beside their truth: the command, and pictures of what was missed and what was invented."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Image
from panoptube.errors import UserError
from panoptube.evaluate import evaluate
from panoptube.metrics.table import compare_frames, segment_keys
from panoptube.metrics.tubes import match_tubes
from panoptube.panoptic.frame import VOID, Color, PanopticFrame, Taxonomy
from panoptube.progress import progress_bar
from panoptube.view.figure import ENDINGS, clip_figure, figure_bytes
from panoptube.view.overlay import overlay
from panoptube.view.results import ComparedClip, read_image, read_results, write_picture

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
    prediction: PanopticFrame,
    truth: PanopticFrame,
    taxonomy: Taxonomy,
    image: Image | None = None,
    name: str = "prediction",
) -> Image:
    """Truth, prediction, and mistakes from left to right, with a line above that says so.

    Args:
        prediction, truth: of size (H, W).
        taxonomy: what their classes are.
        image: (H, W, 3) uint8 RGB to draw on, or None for plain grey.
        name: of the prediction.

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
    for i, text in enumerate(("truth", name)):
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
    pred: Sequence[Path],
    out: Path,
    truth: Path | None = None,
    name: Sequence[str] = (),
    images: Path | None = None,
    clip: str | None = None,
    frames: Sequence[str] = (),
    count: int = 4,
    clip_length: int = 6,
    skip_unlabelled: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> list[Path]:
    """Draw results of one or several models: one figure, or a picture of each of the worst frames.

    Args:
        pred: a folder for each model, as for `panoptube.evaluate.evaluate`.
        out: file with an ending of `figure.ENDINGS` for a figure of one clip, a row for each model; or folder
            for NAME.png of each frame with truth, prediction, and what was missed or invented.
        truth: its folder. A figure can do without: colours are then those of the first model.
        name: what to call each model; none for the names of their folders.
        images: folder with NAME.png or .jpg of each frame, or with a folder of those for each clip: a row of
            the figure, and what pictures are drawn on.
        clip: name of the clip; None for the only one of a figure, and all for pictures.
        frames: names of frames; none to choose.
        count: how many to choose: evenly through the clip for a figure, those that cost PQ most for pictures.
        clip_length, skip_unlabelled, workers: as `evaluate`.
        progress: show a bar with the time left.

    Returns:
        What was written; pictures in the order of `frames`, or the worst first.

    Raises:
        UserError: as `evaluate`; the folders don't hold the same frames; there is no such clip or frame; two
            models have one name; or a file can't be read or written.
    """
    names = _row_names(pred, name)
    if count < 1:
        raise UserError(f"{count} frames can't be drawn; --count must be 1 or more")
    taxonomy, clips = read_results(pred, truth, clip_length, skip_unlabelled)
    unique = len({f for c in clips for f in c.frames}) == sum(len(c.frames) for c in clips)
    if clip is not None:
        if clip not in [c.name for c in clips]:
            raise UserError(f"{truth or pred[0]} has no clip {clip!r}; it has {_listed(clips)}")
        clips = [c for c in clips if c.name == clip]
    if out.suffix.lower() in ENDINGS:
        if len(clips) > 1:
            raise UserError(f"a figure shows one clip; choose with --clip one of {_listed(clips)}")
        have = clips[0].frames
        for wanted in frames:
            if wanted not in have:
                raise UserError(f"clip {clips[0].name} has no frame {wanted!r}; its first is {have[0]!r}")
        if frames:
            chosen = [have.index(wanted) for wanted in frames]
        else:
            chosen = np.unique(np.linspace(0, len(have) - 1, count).round().astype(int)).tolist()
        drawn = clip_figure(clips[0], names, chosen, taxonomy, images, workers, progress)
        write_picture(out, figure_bytes(drawn, out.suffix.lower()))
        return [out]

    if truth is None:
        raise UserError(
            f"pictures of mistakes need the truth; give --truth, or end --out with {' or '.join(ENDINGS)}"
        )
    # Frames by the names that `evaluate` gives them.
    places = {f if unique else f"{c.name}/{f}": (c, i) for c in clips for i, f in enumerate(c.frames)}
    if not frames:
        lost = dict.fromkeys(places, 0.0)
        for folder in pred:
            scores = evaluate(
                truth,
                folder,
                metrics=("pq",),
                clip_length=clip_length,
                skip_unlabelled=skip_unlabelled,
                workers=workers,
                progress=progress,
            ).pq
            assert scores is not None
            for frame in scores.frames:
                if frame.name in lost:
                    lost[frame.name] += frame.lost
        frames = sorted(lost, key=lambda f: -lost[f])[:count]
    for wanted in frames:
        if wanted not in places:
            raise UserError(f"{truth} has no frame {wanted!r}; its first is {next(iter(places))!r}")
    written: list[Path] = []
    with progress_bar(progress, "frames") as bar:
        for wanted in bar.track(frames, description="pictures"):
            place, i = places[wanted]
            assert place.truth is not None
            true = place.truth[i].frame()
            image = None if images is None else read_image(images, place.name, place.frames[i])
            rows = []
            for label, prediction in zip(names, place.predictions):
                try:
                    rows.append(compare_picture(prediction[i].frame(), true, taxonomy, image, label))
                except ValueError as error:
                    raise UserError(f"{prediction[i].path}: {error}") from error
            written.append(out / f"{wanted.replace('/', '_')}.png")
            picture = np.concatenate(rows)
            write_picture(written[-1], cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
    return written


def _row_names(pred: Sequence[Path], given: Sequence[str]) -> list[str]:
    if given and len(given) != len(pred):
        raise UserError(f"{len(given)} names for {len(pred)} results; give one --name for each --pred")
    names = list(given) or [folder.resolve().name for folder in pred]
    twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
    if twice is not None:
        raise UserError(f"two results are called {twice!r}; tell them apart with one --name for each --pred")
    return names


def _listed(clips: Sequence[ComparedClip]) -> str:
    return ", ".join(c.name for c in clips[:5]) + (", ..." if len(clips) > 5 else "")
