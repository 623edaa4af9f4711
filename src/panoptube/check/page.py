"""One self-contained HTML page with pictures of the worst faults."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

import cv2
import numpy as np

from panoptube.check.faults import KINDS, Box, Fault
from panoptube.check.labels import Labels
from panoptube.check.report import Report, place, write_text
from panoptube.check.stored import check_stored
from panoptube.data.clip import Image
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Color, PanopticFrame
from panoptube.view.overlay import overlay

SHOWN = 8
"""Pictures of each kind: enough to see what is behind it; the JSON has all."""
LISTED = 100
"""Faults of each kind that are written out."""
CROP = 320
"""Width of a picture in pixels."""
CONTEXT = 1.0
"""Surroundings shown on each side, in sides of the box."""
LEAST = 48
"""Pixels of the frame that a picture shows at least, on each side."""
PAPER = 96
"""Grey where there is no image."""
OUTLINES: tuple[Color, ...] = ((255, 214, 0), (0, 229, 255), (255, 64, 160))
"""RGB of the first, second and further tracks concerned."""

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2330; background: #f6f7f9; margin: 0 auto;
  max-width: 1080px; padding: 24px; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin: 36px 0 4px; } p { margin: 0 0 12px; color: #5a6375; }
table { border-collapse: collapse; background: #fff; } th, td { text-align: left; padding: 5px 14px;
  border: 1px solid #dde1e8; } td.n { text-align: right; }
.faults { display: flex; flex-wrap: wrap; gap: 14px; } figure { margin: 0; background: #fff; padding: 10px;
  border: 1px solid #dde1e8; border-radius: 6px; max-width: 660px; } figcaption { margin-top: 6px; }
img { display: block; max-width: 100%; } .error { color: #b3261e; } .warning { color: #9a5b00; }
.note { color: #5a6375; }
ul { margin: 8px 0; padding-left: 20px; } summary { cursor: pointer; margin: 8px 0; }
"""


def write_page(path: Path, report: Report, labels: Sequence[Labels]) -> None:
    """Write the page.

    Args:
        path: new file.
        report: what was found.
        labels: the clips it was found in, to take pictures from.

    Raises:
        UserError: it can't be written.
    """
    clips = {item.clip.name: item for item in labels}
    found = {kind: report.worst(kind) for kind in KINDS}
    rows = "".join(
        f'<tr><td><a href="#{kind}">{kind}</a></td><td>{escape(KINDS[kind])}</td>'
        f'<td class="n">{len(faults)}</td></tr>'
        for kind, faults in found.items()
        if faults
    )
    sections = "".join(_section(kind, faults, clips) for kind, faults in found.items() if faults)
    title = f"Labels of {escape(report.dataset)}"
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(report.root)}: {report.clips} clips, {report.frames} frames, "
        f"{len(report.faults)} faults. In pictures, the frame before is on the left; outlined is what the "
        "fault is about.</p>"
        f"<table><tr><th>kind</th><th>what</th><th>faults</th></tr>{rows}</table>{sections}</body></html>\n",
    )


def _section(kind: str, faults: Sequence[Fault], clips: Mapping[str, Labels]) -> str:
    figures = "".join(_figure(fault, clips.get(fault.clip)) for fault in faults[:SHOWN])
    rest = faults[SHOWN:LISTED]
    more = "".join(f'<li class="{f.severity}">{escape(_line(f))}</li>' for f in rest)
    if more:
        left = len(faults) - LISTED
        note = f"<li>and {left} more, in the JSON report</li>" if left > 0 else ""
        more = f"<details><summary>{len(faults) - SHOWN} more</summary><ul>{more}{note}</ul></details>"
    return (
        f'<h2 id="{kind}">{kind}: {len(faults)}</h2><p>{escape(KINDS[kind])}</p>'
        f'<div class="faults">{figures}</div>{more}'
    )


def _figure(fault: Fault, labels: Labels | None) -> str:
    picture = None if labels is None or fault.frame is None else draw_fault(fault, labels)
    image = ""
    if picture is not None:
        data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        image = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
    caption = f'<span class="{fault.severity}">{fault.severity}</span> {escape(_line(fault))}'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _line(fault: Fault) -> str:
    lasts = f" ({fault.frames} frames)" if fault.frames > 1 else ""
    return f"{place(fault)}{fault.message}{lasts}"


def draw_fault(fault: Fault, labels: Labels) -> Image | None:
    """What a fault looks like: the same place in the frame it was compared with, if any, and in its own.

    Returns:
        (H, W, 3) uint8 RGB, or None where nothing of it can be read.
    """
    height, width = labels.clip.size
    if fault.frame is None or not height:
        return None
    box = _surroundings(fault.where or (0, 0, width, height), height, width)
    panels = [_panel(fault, labels, t, box) for t in (fault.before, fault.frame) if t is not None]
    seen = [panel for panel in panels if panel is not None]
    if not seen:
        return None
    line = np.full((seen[0].shape[0], 4, 3), 255, np.uint8)
    return np.hstack([part for panel in seen for part in (line, panel)][1:])


def _surroundings(box: Box, height: int, width: int) -> Box:
    """The box with context, neither very flat nor very tall, inside the frame."""
    x, y, w, h = box
    high = min(max(round(h * (1 + 2 * CONTEXT)), LEAST), height)
    wide = min(max(round(w * (1 + 2 * CONTEXT)), round(high / 0.8), LEAST), width)
    high = min(max(high, round(wide * 0.6)), height)
    left = min(max(round(x + w / 2 - wide / 2), 0), width - wide)
    top = min(max(round(y + h / 2 - high / 2), 0), height - high)
    return left, top, wide, high


def _panel(fault: Fault, labels: Labels, t: int, box: Box) -> Image | None:
    image, truth = _read(labels, t)
    if image is None and truth is None:
        return None
    x, y, width, height = box
    window = slice(y, y + height), slice(x, x + width)
    base = np.full((height, width, 3), PAPER, np.uint8) if image is None else image[window]
    size = CROP, max(1, round(CROP * height / width))
    drawn: Image = cv2.resize(base, size, interpolation=cv2.INTER_CUBIC)
    if truth is None:
        return drawn
    crop = PanopticFrame(
        *(
            cv2.resize(np.ascontiguousarray(part[window]), size, interpolation=cv2.INTER_NEAREST)
            for part in (truth.semantic, truth.instance)
        )
    )
    masks = [(crop.instance == i).astype(np.uint8) for i in fault.tracks]
    if fault.kind == "no-instance":
        things = (crop.semantic >= labels.clip.taxonomy.num_stuff) & (crop.semantic != VOID)
        masks.append((things & (crop.instance == 0)).astype(np.uint8))
    if image is None:
        drawn = overlay(drawn, crop, labels.clip.taxonomy, names=False)
    outlined = False
    for number, mask in enumerate(masks):
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(drawn, contours, -1, OUTLINES[min(number, len(OUTLINES) - 1)], 2)
        outlined |= bool(contours)
    if not outlined and fault.where is not None:
        left, top, w, h = fault.where
        scale = CROP / width
        corners = [round((left - x) * scale), round((top - y) * scale)]
        corners += [round((left + w - x) * scale), round((top + h - y) * scale)]
        cv2.rectangle(drawn, corners[:2], corners[2:], OUTLINES[0], 1, cv2.LINE_4)
    return drawn


def _read(labels: Labels, t: int) -> tuple[Image | None, PanopticFrame | None]:
    """Picture and truth of a frame, None for what can't be read."""
    image: Image | None = None
    truth: PanopticFrame | None = None
    if labels.has_images:
        with suppress(UserError, ValueError):
            image = labels.clip.image(t)
    with suppress(UserError, ValueError):
        truth = check_stored(labels.stored[t])[1] if t in labels.stored else labels.clip.truth(t)
    if truth is not None and truth.size != labels.clip.size:
        truth = None
    return image, truth
