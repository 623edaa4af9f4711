"""One self-contained HTML page of a result. What comes from the data reaches it as JSON, never as HTML."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panoptube.panoptic.frame import Color
from panoptube.report.summary import BOX_EVERY, SeenTrack, Summary
from panoptube.video import written_size
from panoptube.view.overlay import track_color

DRAWN = 2000
"""Tracks in the timeline: the longest ones. More make the page slow, and nobody scrolls through them."""
POINTS = 600
"""Points of a curve of shares: as many as it is pixels wide on most screens."""


def make_page(
    name: str, summary: Summary, shown: NDArray[np.float64], times: NDArray[np.float64], video: bytes
) -> str:
    """The page as HTML.

    The only script that a browser runs in it is the page's own, whose hash stands in its Content Security
    Policy (https://www.w3.org/TR/CSP3/); it builds everything that depends on the data as text nodes.

    Args:
        name: of the result.
        summary: of its T frames.
        shown: (T + 1,) seconds at which the video shows each frame, and its end.
        times: (T + 1,) seconds of each frame in the original video, and its end.
        video: MP4.
    """
    here = Path(__file__).parent
    style, script = ((here / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    policy = (
        f"default-src 'none'; media-src data:; script-src 'sha256-{_hash(script)}'; "
        f"style-src 'sha256-{_hash(style)}'"
    )
    data = json.dumps(page_data(name, summary, shown, times), separators=(",", ":"), allow_nan=False)
    # The end of a script element, or a comment in it, can't be spelled without "<".
    data = data.replace("<", "\\u003c")
    body = (here / "page.html").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}</title>\n<style>{style}</style></head>\n<body>\n"
        + body.replace("{video}", f"data:video/mp4;base64,{b64encode(video).decode()}")
        + f'<script type="application/json" id="data">{data}</script>\n<script>{script}</script>\n'
        "</body></html>\n"
    )


def _hash(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def page_data(
    name: str, summary: Summary, shown: NDArray[np.float64], times: NDArray[np.float64]
) -> dict[str, Any]:
    """What the page's script draws. Its size grows with runs, tracks and changes rather than with frames.

    Returns:
        JSON-ready: `name`; `size`, width and height of the video in pixels; `shown` and `times`, seconds,
        `times` None where they are the same; `boxEvery`; `classes`, those that occur, things first, then by
        amount, each with `name`, `thing`, `color`, `tracks` (how many), `share` (mean, 0 to 1) and `steps`,
        [frame, value] wherever the number of objects, or of stuff the share, changes; `tracks`, by class,
        each with `class` (position in `classes`), `id`, `color`, `area` (largest, pixels), `frames`, and
        `runs`, [first frame, last frame, [x, y, w, h, x, ...]]; `hidden`, how many tracks are left out.
    """
    taxonomy = summary.taxonomy
    in_class = np.bincount([t.label for t in summary.tracks], minlength=len(taxonomy)).tolist()
    share = summary.shares.mean(0).tolist()
    labels = sorted(
        (i for i in range(len(taxonomy)) if share[i] > 0),
        key=lambda i: (not taxonomy.is_thing(i), -in_class[i], -share[i]),
    )
    drawn = sorted(summary.tracks, key=lambda t: -t.frames)[:DRAWN]
    keep = {(t.label, t.id) for t in drawn}
    height, width = summary.size
    return {
        "name": name,
        "size": written_size((height, width))[::-1],
        "shown": np.round(shown, 4).tolist(),
        "times": None if np.array_equal(shown, times) else np.round(times, 4).tolist(),
        "boxEvery": BOX_EVERY,
        "classes": [
            {
                "name": taxonomy.names[i],
                "thing": taxonomy.is_thing(i),
                "color": _css(taxonomy.categories[i].color),
                "tracks": in_class[i],
                "share": round(share[i], 6),
                "steps": (
                    steps(summary.counts[:, i], len(times))
                    if taxonomy.is_thing(i)
                    else steps(np.round(summary.shares[:, i], 5), POINTS)
                ),
            }
            for i in labels
        ],
        "tracks": [
            _track(t, labels.index(t.label))
            for t in sorted(summary.tracks, key=lambda t: labels.index(t.label))
            if (t.label, t.id) in keep
        ],
        "hidden": len(summary.tracks) - len(drawn),
    }


def _track(track: SeenTrack, place: int) -> dict[str, Any]:
    return {
        "class": place,
        "id": track.id,
        "color": _css(track_color(track.id)),
        "area": track.area,
        "frames": track.frames,
        "runs": [[run.first, run.last, [v for box in run.boxes for v in box]] for run in track.runs],
    }


def _css(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def steps(values: NDArray[Any], points: int) -> list[list[float]]:
    """A curve as [frame, value] wherever it changes.

    Args:
        values: (T,) of each frame.
        points: at most so many; where there are more frames, neighbours are averaged.
    """
    starts = np.unique(np.linspace(0, len(values), min(points, len(values)), endpoint=False).astype(int))
    if len(starts) < len(values):
        sums = np.add.reduceat(values, starts)
        values = np.round(sums / np.diff(starts, append=len(values)), 5)
    changes = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
    return [[int(starts[i]), values[i].item()] for i in changes]
