"""A figure of several models on one clip: a row for each, the same object in one colour in all rows, insets
where the rows differ most.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from panoptube.data.clip import Image
from panoptube.errors import UserError
from panoptube.evaluate import ordered
from panoptube.metrics.table import (
    VOID_KEY,
    FrameTable,
    compare_frames,
    join_tables,
    key_labels,
    key_tracks,
    segment_keys,
)
from panoptube.panoptic.frame import PanopticFrame, Taxonomy
from panoptube.panoptic.runs import find_runs
from panoptube.progress import progress_bar
from panoptube.view.overlay import overlay
from panoptube.view.results import ComparedClip, read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colors = dict[int, int]
"""Of each thing, by its key (`panoptube.metrics.table`), the number that its colour is made of."""

ENDINGS = (".png", ".pdf", ".svg")
INSETS = 2
"""At most, for each frame."""
INSET_SHARES = (1 / 8, 1 / 3)
"""Least and most of the frame's width that an inset enlarges; it is drawn half as wide as the frame."""
MARGIN = 1.4
"""Width of an inset over that of the difference in it."""
CANDIDATES = 12
"""Combinations of segments, those that weigh most, in which differences are looked for."""
BOX_COLORS = ("#ffd400", "#ff4fd8")
# Inches and points: the text width of a page with two columns.
WIDTH, LABEL, COLUMN_GAP, ROW_GAP, INSET_GAP, TITLE, BORDER = 7.0, 0.18, 0.06, 0.1, 0.03, 0.18, 0.015
FONT_SIZE = 8
DPI = 300


class Box(NamedTuple):
    """Pixels [top, top + height) x [left, left + width)."""

    top: int
    left: int
    height: int
    width: int


def reference_colors(table: FrameTable, taxonomy: Taxonomy) -> Colors:
    """Numbers 1, 2, ... for the true things of a clip, the largest first.

    Args:
        table: overlaps over all frames of the clip.
    """
    keys, inverse = np.unique(table.truth, return_inverse=True)
    areas = np.bincount(inverse, table.pixels, len(keys))
    things = _is_thing(keys, taxonomy)
    order = np.argsort(-areas[things], kind="stable")
    return {int(key): number for number, key in enumerate(keys[things][order].tolist(), 1)}


def matched_colors(table: FrameTable, reference: Colors, taxonomy: Taxonomy, free: int) -> Colors:
    """Numbers for the things of a prediction: that of the true thing which it overlaps most over the clip.

    Two predicted things never share one: it goes to the one that overlaps more, so a track that breaks, or
    changes its class, changes its colour. What has no true thing of its class below most of it gets a
    number of its own.

    Args:
        table: overlaps over all frames of the clip.
        reference: of the true things.
        free: the first number that nothing has.
    """
    colors: Colors = {}
    taken: set[int] = set()
    best: set[int] = set()
    # The first row of a predicted thing is that with the true segment which it overlaps most.
    for row in np.argsort(-table.pixels, kind="stable"):
        true, key = int(table.truth[row]), int(table.prediction[row])
        if true == VOID_KEY or key in best or not _is_thing(table.prediction[row : row + 1], taxonomy)[0]:
            continue
        best.add(key)
        if true in reference and true not in taken and true >> 32 == key >> 32:
            colors[key] = reference[true]
            taken.add(true)
    keys = np.unique(table.prediction)
    for key in keys[_is_thing(keys, taxonomy)].tolist():
        if key not in colors:
            colors[key] = free
            free += 1
    return colors


def _is_thing(keys: NDArray[np.int64], taxonomy: Taxonomy) -> NDArray[np.bool_]:
    """Crowd is none: it has no colour of its own."""
    return (key_labels(keys) >= taxonomy.num_stuff) & (key_tracks(keys) > 0)


def recolor(frame: PanopticFrame, colors: Colors) -> PanopticFrame:
    """The frame with the numbers of `colors` in place of its track ids."""
    starts, lengths = find_runs(frame.semantic, frame.instance)
    keys = segment_keys(frame.semantic.reshape(-1)[starts], frame.instance.reshape(-1)[starts])
    present, inverse = np.unique(keys, return_inverse=True)
    numbers = np.array([colors.get(key, 0) for key in present.tolist()], np.int32)
    return PanopticFrame(frame.semantic, np.repeat(numbers[inverse], lengths).reshape(frame.size))


def find_boxes(frames: Sequence[PanopticFrame], truth: PanopticFrame | None) -> list[Box]:
    """Up to `INSETS` boxes that don't overlap around what the rows disagree on, the most first.

    Pixels that hang together, and lie on the same segment in each row, are one difference. It weighs as much
    as its pixels times the pairs of rows that differ there. Void of the truth doesn't count.

    Args:
        frames: recoloured predictions, (H, W) each.
        truth: the recoloured truth, or None.
    """
    rows = [*frames, *([] if truth is None else [truth])]
    size = rows[0].size
    # Combinations of segments are looked up once for each run of pixels, and spread out then.
    starts, lengths = find_runs(*(part for f in rows for part in (f.semantic, f.instance)))
    keys = [segment_keys(f.semantic.reshape(-1)[starts], f.instance.reshape(-1)[starts]) for f in rows]
    combinations, number_of = np.unique(np.stack(keys), axis=1, return_inverse=True)
    pairs: NDArray[np.int64] = np.zeros(combinations.shape[1], np.int64)
    for i, row in enumerate(combinations):
        pairs += (row != combinations[:i]).sum(0)
    if truth is not None:
        pairs[combinations[-1] == VOID_KEY] = 0
    weights = pairs * np.bincount(number_of.reshape(-1), lengths, len(pairs))
    combined = np.repeat(number_of.reshape(-1), lengths).reshape(size)

    found: list[tuple[float, Box]] = []
    for number in np.argsort(-weights)[:CANDIDATES]:
        if not weights[number]:
            break
        # The first part is the rest of the frame.
        _, parts, stats, _ = cv2.connectedComponentsWithStats((combined == number).view(np.uint8))
        areas = stats[1:, cv2.CC_STAT_AREA]
        found += [
            (float(pairs[number] * areas[i - 1]), _box_around(parts == i, stats[i]))
            for i in 1 + np.argsort(-areas)[: 2 * INSETS]
        ]
    boxes: list[Box] = []
    for _, box in sorted(found, key=lambda f: -f[0]):
        if len(boxes) < INSETS and not any(_overlap(box, other) for other in boxes):
            boxes.append(box)
    return boxes


def _box_around(mask: NDArray[np.bool_], stats: NDArray[np.int32]) -> Box:
    """A box in the frame's proportions around the mask with a margin; of what is too large, the rim that is
    nearest to the middle of the frame.

    Args:
        mask: (H, W).
        stats: of the mask: left, top, width, height, pixels.
    """
    height, width = mask.shape
    share = max(stats[cv2.CC_STAT_HEIGHT] / height, stats[cv2.CC_STAT_WIDTH] / width)
    h, w = (max(round(n * float(np.clip(MARGIN * share, *INSET_SHARES))), 1) for n in (height, width))
    if share <= INSET_SHARES[1]:
        x = stats[cv2.CC_STAT_LEFT] + stats[cv2.CC_STAT_WIDTH] / 2
        y = stats[cv2.CC_STAT_TOP] + stats[cv2.CC_STAT_HEIGHT] / 2
    else:
        inside = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
        # Without a rim it is the whole frame.
        ys, xs = np.nonzero(mask & ~inside if not mask.all() else mask)
        nearest = int(np.argmin(np.hypot((ys - height / 2) / height, (xs - width / 2) / width)))
        y, x = float(ys[nearest]), float(xs[nearest])
    top, left = np.clip(round(y - h / 2), 0, height - h), np.clip(round(x - w / 2), 0, width - w)
    return Box(int(top), int(left), h, w)


def _overlap(a: Box, b: Box) -> bool:
    across = a.left < b.left + b.width and b.left < a.left + a.width
    return across and a.top < b.top + b.height and b.top < a.top + a.height


class _Read(NamedTuple):
    """A frame's overlaps with each prediction, and its maps if it is drawn: reference first."""

    tables: list[FrameTable]
    frames: list[PanopticFrame]


def clip_figure(
    clip: ComparedClip,
    names: Sequence[str],
    chosen: Sequence[int],
    taxonomy: Taxonomy,
    images: Path | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Figure:
    """The figure: rows of image, truth, and each prediction; under each frame its insets.

    Colours are matched over the whole clip: those of things by `matched_colors`, those of stuff are those
    of the class, faint. Without truth the first prediction takes its place.

    Args:
        clip: what to draw.
        names: of the predictions.
        chosen: indices of the frames, one column each.
        taxonomy: of the classes.
        images: folder with the image of each frame, for a row of them, or None.
        workers: threads that read PNGs.
        progress: show a bar with the time left.

    Raises:
        UserError: a file can't be read, or sizes differ.
    """
    reference = clip.truth or clip.predictions[0]

    def read(t: int) -> _Read:
        first = reference[t].frame()
        tables, frames = [], [first]
        for prediction in clip.predictions:
            frame = first if prediction[t] is reference[t] else prediction[t].frame()
            try:
                tables.append(compare_frames(frame, first))
                tables[-1].check(taxonomy)
            except ValueError as error:
                raise UserError(f"{prediction[t].path}: {error}") from error
            frames.append(frame)
        return _Read(tables, frames if t in chosen else [])

    with progress_bar(progress, "frames") as bar:
        indices = range(len(clip.frames))
        found = list(bar.track(ordered(read, indices, workers), len(indices), description="figure"))
    tables = [join_tables(part) for part in zip(*(f.tables for f in found))]
    true_colors = reference_colors(tables[0], taxonomy)
    colors, free = [true_colors], len(true_colors) + 1
    for table in tables:
        colors.append(matched_colors(table, true_colors, taxonomy, free))
        free = max([free - 1, *colors[-1].values()]) + 1

    columns: list[list[Image]] = []
    boxes: list[list[Box]] = []
    for t in chosen:
        matched = [recolor(*pair) for pair in zip(found[t].frames, colors)]
        boxes.append(find_boxes(matched[1:], matched[0] if clip.truth else None))
        shown = matched if clip.truth else matched[1:]
        white = np.full((*shown[0].size, 3), 255, np.uint8)
        column = [overlay(white, frame, taxonomy, names=False) for frame in shown]
        if images is not None:
            image = read_image(images, clip.name, clip.frames[t])
            if image.shape != white.shape:
                raise UserError(
                    f"the image of frame {clip.frames[t]} is {image.shape[1]}x{image.shape[0]}, the result "
                    f"{white.shape[1]}x{white.shape[0]}; give images of its size"
                )
            column.insert(0, image)
        columns.append(column)
    labels = [*(["image"] if images else []), *(["truth"] if clip.truth else []), *names]
    return draw(labels, [_title(clip.frames[t], t) for t in chosen], columns, boxes)


def _title(name: str, position: int) -> str:
    """Datasets end the names of frames with their numbers; else the position in the clip, from 0."""
    number = re.search(r"\d+$", name)
    return f"frame {int(number[0]) if number else position}"


def draw(
    labels: Sequence[str],
    titles: Sequence[str],
    columns: Sequence[Sequence[Image]],
    boxes: Sequence[Sequence[Box]],
) -> Figure:
    """Panels in rows and columns, with what lies in the boxes enlarged below each.

    Args:
        labels: of the R rows.
        titles: of the C columns.
        columns: C times R pictures, (H, W, 3) uint8 RGB, all of one size.
        boxes: C times up to `INSETS`.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    size = columns[0][0].shape
    width = (WIDTH - LABEL - BORDER - COLUMN_GAP * (len(titles) - 1)) / len(titles)
    height = width * size[0] / size[1]
    inset_width = (width - INSET_GAP * (INSETS - 1)) / INSETS
    inset_height = inset_width * size[0] / size[1]
    block = height + (INSET_GAP + inset_height if any(boxes) else 0)
    total = TITLE + block * len(labels) + ROW_GAP * (len(labels) - 1) + BORDER
    figure = Figure(figsize=(WIDTH, total))

    def panel(picture: Image, left: float, top: float, w: float, h: float, smooth: bool) -> Axes:
        axes = figure.add_axes((left / WIDTH, 1 - (top + h) / total, w / WIDTH, h / total))
        axes.imshow(picture, interpolation="antialiased" if smooth else "nearest", aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(linewidth=0.4, color="0.55")
        return axes

    for r, label in enumerate(labels):
        top = TITLE + r * (block + ROW_GAP)
        figure.text(
            0.1 / WIDTH, 1 - (top + block / 2) / total, label,
            rotation=90, ha="center", va="center", fontsize=FONT_SIZE,
        )  # fmt: skip
        for c, column in enumerate(columns):
            left = LABEL + c * (width + COLUMN_GAP)
            axes = panel(column[r], left, top, width, height, smooth=True)
            if r == 0:
                axes.set_title(titles[c], fontsize=FONT_SIZE, pad=3)
            for i, (box, color) in enumerate(zip(boxes[c], BOX_COLORS)):
                corner = (box.left - 0.5, box.top - 0.5)
                dotted = Rectangle(
                    corner, box.width, box.height, fill=False, edgecolor=color, linestyle=(0, (2, 1))
                )
                dotted.set_path_effects([withStroke(linewidth=2, foreground="black")])
                axes.add_patch(dotted)
                part = column[r][box.top : box.top + box.height, box.left : box.left + box.width]
                place = left + i * (inset_width + INSET_GAP), top + height + INSET_GAP
                inset = panel(part, *place, inset_width, inset_height, smooth=False)
                inset.spines[:].set(linewidth=1.2, color=color)
    return figure


def figure_bytes(figure: Figure, ending: str) -> bytes:
    """The file: raster at 300 dots an inch, or PDF and SVG whose words stay text.

    Args:
        ending: one of `ENDINGS`.
    """
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
        figure.savefig(content, format=ending[1:], dpi=DPI)
    return content.getvalue()
