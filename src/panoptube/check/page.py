"""One self-contained HTML page with pictures of the worst faults."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from panoptube.check.faults import KINDS, Box, Fault
from panoptube.check.labels import Labels
from panoptube.check.report import Report, place
from panoptube.check.stored import check_stored
from panoptube.data.clip import Image
from panoptube.data.new_file import write_text
from panoptube.errors import UserError
from panoptube.panoptic.frame import VOID, Color, PanopticFrame
from panoptube.view.overlay import overlay

SHOWN = 8
"""Pictures of each kind: enough to see what is behind it; the JSON has all."""
LISTED = 100
"""Faults of each kind that are written out."""
CROP = 400
"""Width of a picture in pixels."""
CONTEXT = 1.0
"""Surroundings shown on each side, in sides of the box."""
LEAST = 48
"""Pixels of the frame that a picture shows at least, on each side."""
PAPER = 96
"""Grey where there is no image."""
OUTLINES: tuple[Color, ...] = ((255, 214, 0), (0, 229, 255), (255, 64, 160))
"""RGB of the first, second and further tracks concerned."""
PLACE: Color = (255, 255, 255)
"""RGB of the box around a place where nothing of the fault is labelled."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #565f70; --page: #f6f7f9; --card: #fff;
  --line: #dde1e8; --link: #0b57d0; --error: #b3261e; --warning: #8a5000; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a3acbd; --page: #14171d;
  --card: #1e222a; --line: #363c48; --link: #8ab4f8; --error: #ff8a80; --warning: #ffb95c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 0 auto;
  max-width: 1320px; padding: 24px; overflow-wrap: anywhere; }
h1 { font-size: 24px; margin: 0 0 8px; } h2 { font-size: 18px; margin: 36px 0 2px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 80ch; } a { color: var(--link); }
table { border-collapse: collapse; background: var(--card); overflow-wrap: normal; }
th, td { text-align: left; padding: 5px 14px; border: 1px solid var(--line); }
.faults { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 260px), 1fr)); gap: 14px; }
figure { margin: 0; background: var(--card); padding: 10px; border: 1px solid var(--line);
  border-radius: 6px; }
.two { grid-column: span 2; } @media (max-width: 640px) { .two { grid-column: auto; } }
.panels { display: flex; gap: 6px; font-size: 13px; color: var(--soft); } .panels div { flex: 1; }
figcaption { margin-bottom: 8px; } img { display: block; width: 100%; margin-bottom: 4px; }
.mark { display: inline-block; white-space: nowrap; margin-right: 10px; }
.mark i { display: inline-block; width: 10px; height: 10px; margin-right: 5px; border: 1px solid #0008; }
.error { color: var(--error); } .warning { color: var(--warning); } .note { color: var(--soft); }
.error, .warning, .note { font-weight: 600; }
ul { margin: 8px 0; padding-left: 20px; } summary { cursor: pointer; margin: 8px 0; }
"""

INTRO = (
    "A fault that lies between two frames has two pictures, the frame before on the left. What the fault is "
    "about is outlined; under each picture is what the labels of that frame call it. A white box is a place "
    "where the labels have nothing of it. Pictures are cut out and enlarged; where there is no picture, the "
    "labels are drawn instead."
)


@dataclass(frozen=True)
class Panel:
    """The place of a fault in one frame.

    Attributes:
        frame: index in the clip.
        picture: (H, `CROP`, 3) uint8 RGB.
        marks: RGB of each outline, and what is outlined.
        lacks: "picture" or "labels" if the frame has none that can be read, else "".
    """

    frame: int
    picture: Image
    marks: tuple[tuple[Color, str], ...]
    lacks: str


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
    found = {kind: faults for kind in KINDS if (faults := report.worst(kind))}
    rows = "".join(
        f'<tr><td><a href="#{kind}">{kind}</a></td><td>{escape(KINDS[kind])}</td>'
        f"<td>{_severities(faults)}</td></tr>"
        for kind, faults in found.items()
    )
    body = f"<p>{INTRO}</p><table><tr><th>kind</th><th>what</th><th>how many</th></tr>{rows}</table>"
    body += "".join(_section(kind, faults, clips) for kind, faults in found.items())
    title = f"Labels of {escape(report.dataset)}"
    write_text(
        path,
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(report.root)}: {report.clips} clips, {report.frames} frames, "
        f"{len(report.faults)} faults</p>{body if found else '<p>Nothing was found.</p>'}</body></html>\n",
    )


def _severities(faults: Sequence[Fault]) -> str:
    """Such as "2 warnings, 21 notes"."""
    counts = Counter(f.severity for f in faults)
    return ", ".join(
        f'<span class="{name}">{n} {name}{"s" if n > 1 else ""}</span>' for name, n in counts.items()
    )


def _section(kind: str, faults: Sequence[Fault], clips: Mapping[str, Labels]) -> str:
    figures, others = [], []
    for number, fault in enumerate(faults):
        labels = clips.get(fault.clip)
        panels = [] if labels is None or number >= SHOWN else draw_fault(fault, labels)
        if panels:
            figures.append(_figure(fault, panels))
        else:
            others.append(f"<li>{_line(fault)}</li>")
    more = ""
    if others:
        left = len(others) - LISTED
        note = f"<li>and {left} more, in the JSON report</li>" if left > 0 else ""
        more = f"<ul>{''.join(others[:LISTED])}{note}</ul>"
        if figures:
            more = f"<details><summary>{len(others)} more</summary>{more}</details>"
    return (
        f'<h2 id="{kind}">{kind}: {len(faults)}</h2><p>{escape(KINDS[kind])}</p>'
        f'<div class="faults">{"".join(figures)}</div>{more}'
    )


def _figure(fault: Fault, panels: Sequence[Panel]) -> str:
    images = "".join(_panel_html(panel) for panel in panels)
    return (
        f'<figure class="{"two" if len(panels) > 1 else "one"}"><figcaption>{_line(fault)}</figcaption>'
        f'<div class="panels">{images}</div></figure>'
    )


def _panel_html(panel: Panel) -> str:
    data = cv2.imencode(".jpg", panel.picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    marks = "".join(
        f'<span class="mark"><i style="background: rgb{color}"></i>{escape(text)}</span>'
        for color, text in panel.marks
    )
    lacks = f", no {panel.lacks}" if panel.lacks else ""
    return (
        f'<div><img alt="frame {panel.frame}" src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        f'<span class="mark">frame {panel.frame}{lacks}</span>{marks}</div>'
    )


def _line(fault: Fault) -> str:
    lasts = f" ({fault.frames} frames)" if fault.frames > 1 else ""
    return (
        f'<span class="{fault.severity}">{fault.severity}</span> '
        f"{escape(f'{place(fault)}{fault.message}{lasts}')}"
    )


def draw_fault(fault: Fault, labels: Labels) -> list[Panel]:
    """What a fault looks like: the same place in the frame it was compared with, if any, and in its own.

    Frames of which nothing can be read are left out.
    """
    height, width = labels.clip.size
    if fault.frame is None or not height:
        return []
    box = _surroundings(fault.where or (0, 0, width, height), height, width)
    panels = [_panel(fault, labels, t, box) for t in (fault.before, fault.frame) if t is not None]
    return [panel for panel in panels if panel is not None]


def _surroundings(box: Box, height: int, width: int) -> Box:
    """The box with context, neither very flat nor very tall, inside the frame."""
    x, y, w, h = box
    high = min(max(round(h * (1 + 2 * CONTEXT)), LEAST), height)
    wide = min(max(round(w * (1 + 2 * CONTEXT)), round(high / 0.8), LEAST), width)
    high = min(max(high, round(wide * 0.6)), height)
    left = min(max(round(x + w / 2 - wide / 2), 0), width - wide)
    top = min(max(round(y + h / 2 - high / 2), 0), height - high)
    return left, top, wide, high


def _panel(fault: Fault, labels: Labels, t: int, box: Box) -> Panel | None:
    image, truth = _read(labels, t)
    if image is None and truth is None:
        return None
    x, y, width, height = box
    window = slice(y, y + height), slice(x, x + width)
    base = np.full((height, width, 3), PAPER, np.uint8) if image is None else image[window]
    size = CROP, max(1, round(CROP * height / width))
    drawn: Image = cv2.resize(base, size, interpolation=cv2.INTER_CUBIC)
    if truth is None:
        return Panel(t, drawn, (), "labels")
    crop = PanopticFrame(
        *(
            cv2.resize(np.ascontiguousarray(part[window]), size, interpolation=cv2.INTER_NEAREST)
            for part in (truth.semantic, truth.instance)
        )
    )
    taxonomy = labels.clip.taxonomy
    masks = [(str(i), crop.instance == i) for i in fault.tracks]
    if fault.kind == "no-instance":
        crowd = np.where(crop.instance == 0, crop.semantic, VOID)
        found = (c for c in np.unique(crowd).tolist() if taxonomy.is_thing(c))
        masks += [("without id", crowd == c) for c in found]
    if image is None:
        drawn = overlay(drawn, crop, taxonomy, names=False)
    marks = []
    for number, (name, mask) in enumerate(masks):
        if not mask.any():
            continue
        color = OUTLINES[min(number, len(OUTLINES) - 1)]
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(drawn, contours, -1, color, 2)
        classes = (taxonomy.names[label] for label in np.unique(crop.semantic[mask]) if label != VOID)
        marks.append((color, f"{' and '.join(classes)} {name}"))
    if not marks and fault.where is not None:
        left, top, w, h = fault.where
        scale = CROP / width
        corners = [round((left - x) * scale), round((top - y) * scale)]
        corners += [round((left + w - x) * scale), round((top + h - y) * scale)]
        cv2.rectangle(drawn, corners[:2], corners[2:], PLACE, 2, cv2.LINE_4)
        elsewhere = np.isin(truth.instance, fault.tracks).any()
        marks.append((PLACE, "labelled elsewhere" if elsewhere else "not in the labels"))
    return Panel(t, drawn, tuple(marks), "picture" if image is None else "")


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
