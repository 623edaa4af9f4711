"""The result of an evaluation: all metrics that were asked for, to print and to write down."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.table import Table

from panoptube.data.new_file import write_text
from panoptube.metrics.pq import PQResult
from panoptube.metrics.printed import Printed
from panoptube.metrics.quality import WindowResult, percent
from panoptube.metrics.stq import STQResult
from panoptube.metrics.tc import TCResult
from panoptube.metrics.tracking import TrackingResult
from panoptube.metrics.vc import VCResult
from panoptube.metrics.vpq import VPQResult

CSV_COLUMNS = ("metric", "k", "scope", "name", "score", "tp", "fp", "fn")


@dataclass(frozen=True)
class Evaluation(Printed):
    """Metrics that weren't asked for are None.

    Attributes:
        protocol: its name.
        official: computed as the published scripts do, bug for bug.
    """

    protocol: str
    official: bool
    vpq: VPQResult | None = None
    pq: PQResult | None = None
    stq: STQResult | None = None
    tc: TCResult | None = None
    vc: VCResult | None = None
    tracking: TrackingResult | None = None

    def tables(self) -> list[Table]:
        """For a rich console."""
        results = (self.vpq, self.pq, self.stq, self.tc, self.vc, self.tracking)
        return [table for result in results if result is not None for table in result.tables()]

    def worst(self, count: int) -> list[Table]:
        """The clips and frames that cost most, for a rich console.

        Costs are points of the final score, in percent: those of all clips add up to what VPQ lacks to 100,
        those of all frames to what PQ lacks.
        """
        tables: list[Table] = []
        if not count:
            return tables
        if self.vpq is not None:
            clips = sorted(self.vpq.per_clip, key=lambda c: -c.lost)[:count]
            table = Table(title="Clips that cost most, in points of VPQ")
            for column in ("clip", "cost", "VPQ / VPQ-Th / VPQ-St"):
                table.add_column(column, justify="left" if column == "clip" else "right")
            for clip in clips:
                scores = " / ".join(percent(m.pq) for m in (clip.all, clip.things, clip.stuff))
                table.add_row(clip.name, f"{100 * clip.lost:.2f}", scores)
            tables.append(table)
        if self.pq is not None:
            frames = sorted(self.pq.frames, key=lambda f: -f.lost)[:count]
            table = Table(title="Frames that cost most, in points of PQ")
            for column in ("frame", "cost", "missed", "invented", "matched"):
                table.add_column(column, justify="left" if column == "frame" else "right")
            for frame in frames:
                table.add_row(
                    frame.name, f"{100 * frame.lost:.2f}", str(frame.fn), str(frame.fp), str(frame.tp)
                )
            tables.append(table)
        return tables

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: nan becomes None."""
        found: dict[str, Any] = {"protocol": self.protocol, "official": self.official}
        for name in ("vpq", "pq", "stq", "tc", "vc", "tracking"):
            result = getattr(self, name)
            if result is not None:
                found[name] = result.to_dict()
        return found

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Every number in one long table of `CSV_COLUMNS`; scores are fractions, "" where there is none."""
        if self.vpq is not None:
            for window in self.vpq.windows:
                yield from _window_rows("vpq", window)
            means = ("all", self.vpq.all), ("things", self.vpq.things), ("stuff", self.vpq.stuff)
            for scope, mean in means:
                yield "vpq", "mean", scope, "", _score(mean.pq), "", "", ""
            for clip in self.vpq.per_clip:
                yield "vpq", "mean", "clip", clip.name, _score(clip.all.pq), "", "", ""
        if self.pq is not None:
            yield from _window_rows("pq", self.pq.quality)
            for frame in self.pq.frames:
                yield "pq lost", "", "frame", frame.name, _score(frame.lost), frame.tp, frame.fp, frame.fn
        if self.stq is not None:
            for name, value in (("stq", self.stq.stq), ("aq", self.stq.aq), ("sq", self.stq.sq)):
                yield name, "", "all", "", _score(value), "", "", ""
            for iou in self.stq.classes:
                yield "iou", "", "class", iou.name, _score(iou.iou), "", "", ""
            for clip_stq in self.stq.clips:
                yield "stq", "", "clip", clip_stq.name, _score(clip_stq.stq), "", "", ""
        if self.tc is not None:
            yield f"tc, flow {self.tc.flow}", "", "all", "", _score(self.tc.tc), "", "", ""
            for name, value in self.tc.classes:
                yield f"tc, flow {self.tc.flow}", "", "class", name, _score(value), "", "", ""
        if self.vc is not None:
            for length, value, _ in self.vc.scores:
                yield f"vc{length}", "", "all", "", _score(value), "", "", ""
        if self.tracking is not None:
            for name in ("hota", "idf1", "motsa"):
                yield name, "", "things", "", _score(getattr(self.tracking, name)), "", "", ""
                for c in self.tracking.classes:
                    yield name, "", "class", c.name, _score(getattr(c, name)), "", "", ""

    def to_csv(self) -> str:
        """Every number, one a line, below a line of column names."""
        text = StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        writer.writerows(self.rows())
        return text.getvalue()

    def to_markdown(self) -> str:
        """The tables of the terminal, for a page."""
        mode = "official" if self.official else "strict"
        parts = [f"Protocol {self.protocol}, {mode} mode.\n"]
        for table in self.tables():
            columns = [str(c.header) for c in table.columns]
            cells = [[str(cell) for cell in c.cells] for c in table.columns]
            lines = [f"**{table.title}**", "", _markdown_row(columns)]
            lines.append(_markdown_row(["---:" if c.justify == "right" else "---" for c in table.columns]))
            lines += [_markdown_row(list(row)) for row in zip(*cells)]
            if table.caption:
                lines += ["", str(table.caption)]
            parts.append("\n".join(lines) + "\n")
        return "\n".join(parts)

    def write(self, json_file: Path | None, csv_file: Path | None, markdown: Path | None) -> None:
        """Write what has a path, each file beside first, then renamed.

        Raises:
            UserError: a file can't be written.
        """
        if json_file is not None:
            write_text(json_file, json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")
        if csv_file is not None:
            write_text(csv_file, self.to_csv())
        if markdown is not None:
            write_text(markdown, self.to_markdown())


def _window_rows(metric: str, window: WindowResult) -> Iterator[tuple[Any, ...]]:
    for scope, mean in (("all", window.all), ("things", window.things), ("stuff", window.stuff)):
        yield metric, window.k, scope, "", _score(mean.pq), "", "", ""
    for c in window.classes:
        yield metric, window.k, "class", c.name, _score(c.pq), c.tp, c.fp, c.fn


def _score(value: float) -> float | str:
    return "" if value != value else value


def _markdown_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
